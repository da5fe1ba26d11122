//! Primitives made of those of a model checker, in place of the ones that it does not offer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Mutex, lock};

/// A cell that is written once.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: Mutex<bool>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { value: std::sync::OnceLock::new(), is_set: Mutex::new(false) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if *lock(&self.is_set) { self.value.get() } else { None }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let mut is_set = lock(&self.is_set);
        *is_set = true;
        self.value.set(value)
    }
}

/// An event that wakes each listener once.
#[derive(Debug)]
pub(crate) struct Event(Arc<Mutex<Listeners>>);

#[derive(Debug, Default)]
struct Listeners {
    rounds: usize,
    wakers: Vec<Waker>,
}

/// A listener of an [`Event`].
#[derive(Debug)]
pub(crate) struct EventListener {
    listeners: Arc<Mutex<Listeners>>,
    joined_in: usize,
}

impl Event {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Listeners::default())))
    }

    pub(crate) fn listen(&self) -> EventListener {
        EventListener { listeners: Arc::clone(&self.0), joined_in: lock(&self.0).rounds }
    }
}

/// Wakes all listeners.
pub(crate) fn notify_all(event: &Event) {
    let wakers = {
        let mut listeners = lock(&event.0);
        listeners.rounds += 1;
        std::mem::take(&mut listeners.wakers)
    };
    wakers.into_iter().for_each(Waker::wake);
}

/// Lets another thread run.
pub(crate) fn back_off(_attempts: u32) {
    #[cfg(vayu_loom)]
    loom::thread::yield_now();
    #[cfg(not(vayu_loom))]
    shuttle::thread::yield_now();
}

impl Future for EventListener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut listeners = lock(&self.listeners);
        if listeners.rounds > self.joined_in {
            return Poll::Ready(());
        }
        listeners.wakers.push(context.waker().clone());
        Poll::Pending
    }
}
