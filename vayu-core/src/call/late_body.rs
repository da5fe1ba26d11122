//! Bodies that are made late: a body that borrows arguments needs copies of them in a task, which are made when it runs.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::sync::IgnorePoison;

/// The source of the body of a call whose rest is a future that may move to a task.
pub trait MakeBody {
    /// Makes the body, if the future has polled it, or the rest of the call moves to a task. Returns whether it was made.
    fn make(&mut self, is_task: bool) -> bool;
}

/// A body that is in the future from the start.
#[derive(Debug)]
pub struct Made;

impl MakeBody for Made {
    #[inline]
    fn make(&mut self, _: bool) -> bool {
        false
    }
}

/// The maker of a body, and the body. The future of the call has the same slot.
pub struct BodyMaker<T, M> {
    slot: Slot<T>,
    make: Option<M>,
}

/// A body that is pending until it is made.
pub struct LateBody<T> {
    slot: Slot<T>,
    body: Option<Pin<Box<T>>>,
}

struct Slot<T>(Arc<Mutex<SlotState<T>>>);

struct SlotState<T> {
    body: Option<Pin<Box<T>>>,
    is_wanted: bool,
}

impl<T, M> fmt::Debug for BodyMaker<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyMaker").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for LateBody<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateBody").finish_non_exhaustive()
    }
}

/// Returns a body that is made late, and its maker.
pub(crate) fn late_body<T, M>(make: M) -> (BodyMaker<T, M>, Pin<Box<LateBody<T>>>)
where
    T: Future,
    M: FnOnce() -> Pin<Box<T>>,
{
    let state = Arc::new(Mutex::new(SlotState { body: None, is_wanted: false }));
    let body = Box::pin(LateBody { slot: Slot(Arc::clone(&state)), body: None });
    (BodyMaker { slot: Slot(state), make: Some(make) }, body)
}

impl<T, M: FnOnce() -> Pin<Box<T>>> MakeBody for BodyMaker<T, M> {
    fn make(&mut self, is_task: bool) -> bool {
        if !is_task && !self.slot.0.lock().ignore_poison().is_wanted {
            return false;
        }
        let Some(make) = self.make.take() else { return false };
        let body = make();
        self.slot.0.lock().ignore_poison().body = Some(body);
        true
    }
}

impl<T: Future> Future for LateBody<T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T::Output> {
        let this = self.get_mut();
        if this.body.is_none() {
            let mut state = this.slot.0.lock().ignore_poison();
            this.body = state.body.take();
            state.is_wanted = true;
        }
        match &mut this.body {
            Some(body) => body.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}
