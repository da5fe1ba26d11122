//! The value that a run replaces, for the function that runs: `vayu::previous`.
//!
//! A call of a function with `revalidate` that finds a value past its ttl keeps its record. While the function runs, the value
//! is in a slot, from which the function may take it. If it returns the value unchanged, the kept record is stored with new
//! times.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::flight::{FlightId, innermost_flight};
use crate::panic::drop_quietly;
use crate::sync::IgnorePoison;

/// Returns the value that the running function replaces: in the body of a function with `revalidate`, that of its entry, if
/// it has one past its ttl.
///
/// It is `None` on a miss, in a forced refresh, in a run without the cache, in another thread or task than that of the run, if
/// `T` is not the type of the value (of a `Result`, that in `Ok`), and while another [`Previous`] of the run exists.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// # use vayu_core as vayu;
/// assert!(vayu::previous::<String>().is_none()); // not in a run
/// # }
/// ```
pub fn previous<T: Send + 'static>() -> Option<Previous<T>> {
    let flight = innermost_flight()?;
    let slot = RUNS.try_with(|runs| {
        let runs = runs.borrow();
        runs.last()?.as_ref().filter(|(of, _)| *of == flight).map(|(_, slot)| slot.clone())
    });
    let slot = slot.ok().flatten()?;
    let mut state = slot.0.lock().ignore_poison();
    let value = match state.value.take()?.downcast() {
        Ok(value) => Some(value),
        Err(other) => {
            state.value = Some(other);
            return None;
        }
    };
    drop(state);
    Some(Previous { value, slot })
}

/// The value that a run replaces, see [`previous`].
pub struct Previous<T: Send + 'static> {
    /// `None` only while it is dropped.
    value: Option<Box<T>>,
    slot: PreviousSlot,
}

impl<T: Send + 'static> Previous<T> {
    /// Returns the value, to be returned by the function as it is: it is still current.
    ///
    /// The stored value gets new times, and is not written again where the backend can write the times alone. A function that
    /// returns another value after this stores the old one all the same; one that returns an error stores nothing.
    #[allow(clippy::missing_panics_doc, reason = "it does not panic")]
    pub fn unchanged(mut self) -> T {
        self.slot.0.lock().ignore_poison().is_unchanged = true;
        *self.value.take().expect("it is taken once")
    }
}

impl<T: Send + 'static> Deref for Previous<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Send + fmt::Debug + 'static> fmt::Debug for Previous<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Previous").field(&self.value).finish()
    }
}

impl<T: Send + 'static> Drop for Previous<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.slot.0.lock().ignore_poison().value = Some(value);
        }
    }
}

/// The place of the previous value of a run, from which its function may take it.
#[derive(Clone)]
pub struct PreviousSlot(Arc<Mutex<SlotState>>);

struct SlotState {
    value: Option<Box<dyn Any + Send>>,
    is_unchanged: bool,
}

impl Drop for SlotState {
    fn drop(&mut self) {
        drop_quietly(self.value.take());
    }
}

impl PreviousSlot {
    pub(crate) fn new<T: Send + 'static>(value: T) -> Self {
        let value: Option<Box<dyn Any + Send>> = Some(Box::new(value));
        Self(Arc::new(Mutex::new(SlotState { value, is_unchanged: false })))
    }

    pub(super) fn is_unchanged(&self) -> bool {
        self.0.lock().ignore_poison().is_unchanged
    }
}

impl fmt::Debug for PreviousSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreviousSlot")
    }
}

thread_local! {
    /// The runs of this thread that have a previous value, the innermost last. `None` is a run without one, inside of those
    /// before it: it may be part of the same flight as they are.
    static RUNS: RefCell<Vec<Option<(FlightId, PreviousSlot)>>> = const { RefCell::new(Vec::new()) };
    /// `true` if the innermost of them has a previous value. It is read by every miss, and needs no destructor.
    static HAS_PREVIOUS: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of a run, with its previous value if there is one, and without that of a run that it is part of.
#[inline]
pub(super) fn in_run<T>(slot: Option<(FlightId, &PreviousSlot)>, code: impl FnOnce() -> T) -> T {
    if slot.is_none() && !HAS_PREVIOUS.get() { code() } else { in_run_with(slot, code) }
}

#[cold]
fn in_run_with<T>(slot: Option<(FlightId, &PreviousSlot)>, code: impl FnOnce() -> T) -> T {
    struct Pop;
    impl Drop for Pop {
        fn drop(&mut self) {
            let last = RUNS.try_with(|runs| change(runs, Vec::pop));
            drop(last);
        }
    }
    /// Changes the runs of this thread.
    fn change<T>(
        runs: &RefCell<Vec<Option<(FlightId, PreviousSlot)>>>,
        change: impl FnOnce(&mut Vec<Option<(FlightId, PreviousSlot)>>) -> T,
    ) -> T {
        let mut runs = runs.borrow_mut();
        let result = change(&mut runs);
        HAS_PREVIOUS.set(matches!(runs.last(), Some(Some(_))));
        result
    }
    let slot = slot.map(|(flight, slot)| (flight, slot.clone()));
    let pushed = RUNS.try_with(|runs| change(runs, |runs| runs.push(slot)));
    let _pop = pushed.ok().map(|()| Pop);
    code()
}

/// A body that is polled with the previous value of its run.
pub(super) struct InRun<'a, T> {
    pub(super) slot: Option<(FlightId, PreviousSlot)>,
    pub(super) body: Pin<&'a mut T>,
}

impl<'a, T> InRun<'a, T> {
    /// Creates a body that is polled without a previous value.
    pub(super) fn bypassed(body: Pin<&'a mut T>) -> Self {
        Self { slot: None, body }
    }
}

impl<T: Future> Future for InRun<'_, T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T::Output> {
        let Self { slot, body } = self.get_mut();
        let slot = slot.as_ref().map(|(flight, slot)| (*flight, slot));
        in_run(slot, || body.as_mut().poll(context))
    }
}
