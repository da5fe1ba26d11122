//! The steps of a driver that involve the types of its function.
//!
//! Code that does not wait takes the [frame](super::typed::Frame) of the call as an argument. The [driver](super::driver) of an
//! async call cannot: its future would hold the frame, and could move between threads only if the output can, which is not known
//! where it is compiled. So the driver suspends with a [`Step`], as a coroutine does. What polls it ([`await_with_steps`]) has the
//! frame, performs the step, and polls again at once. For a sync call the driver performs the step itself ([`Direct`]).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::backend::Backend;
use crate::cache::{CachedError, Engine};
use crate::call::kept::PreviousRecord;
use crate::call::lookup::{Begun, Rest, classify, lookup_with_stamp};
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{CachedFn, Call, FnProperties, Properties};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::flight::{Completions, Flight, FlightId, enter, enter_polled};
use crate::io::Io;
use crate::key::Key;
use crate::panic::QuietDrop;
use crate::record::Record;
use crate::sync::IgnorePoison;

/// A step of the driver that involves the types of the function.
pub(super) enum Step<V> {
    /// Look a call up whose stamp was just made.
    LookUp,
    /// Decode the record that was read, if there is one. The completions are those from before.
    Decode(Option<Record<V>>, Completions),
    /// Decode a record if it is fresh.
    Serve(Record<V>),
    /// Decode a record if it is fresh, and return it for the callers that wait.
    ServeAll(Record<V>),
    /// Take the output out of the outcome of a flight.
    Share(Arc<Flight<Record<V>>>),
    /// Clone the cached error of the key, if there is one.
    ServeError,
    /// Check whether an error of the key is cached.
    FindError,
    /// Decode the value that the run replaces.
    Previous(Box<PreviousRecord<V>>),
    /// Check whether a record is newer than a run that has started at this time.
    IsNewer(Record<V>, Timestamp),
}

/// The result of a [`Step`].
pub(super) enum StepResult<V> {
    /// Of [`Step::LookUp`] and [`Step::Decode`].
    LookedUp(Result<(), Rest>),
    /// Of [`Step::ServeAll`].
    Served(Option<QuietDrop<Record<V>>>),
    /// Of steps that succeed or not.
    Is(bool),
    /// Of [`Step::ServeError`].
    Error(Option<CachedError>),
    /// Of [`Step::Previous`].
    Previous(Option<Box<PreviousRecord<V>>>),
}

/// The way in which a driver performs its steps.
pub(super) trait Steps<B: Backend> {
    /// Performs a step for a call, as part of this flight, if the step is not already.
    async fn perform(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<B::Stored>,
    ) -> StepResult<B::Stored>;

    /// Performs a step of a lookup.
    async fn look_up(&self, call: &UntypedCall<'_, B>, step: Step<B::Stored>) -> Result<(), Rest> {
        match self.perform(call, None, step).await {
            StepResult::LookedUp(result) => result,
            _ => unreachable!("the step is one of a lookup"),
        }
    }

    /// Clones the cached error of the key to the output that was found, and returns it, if there is one.
    async fn serve_error(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
    ) -> Option<CachedError> {
        if !call.function.caches_errors() {
            return None;
        }
        match self.perform(call, flight, Step::ServeError).await {
            StepResult::Error(error) => error,
            _ => unreachable!("the step is one of errors"),
        }
    }

    /// Performs a step that succeeds or not.
    async fn is(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<B::Stored>,
    ) -> bool {
        matches!(self.perform(call, flight, step).await, StepResult::Is(true))
    }
}

/// The steps of a sync call, which are performed at once.
pub(super) struct Direct<'c, B>(RefCell<&'c mut dyn TypedCall<B>>);

impl<'c, B: Backend> Direct<'c, B> {
    pub(super) fn new(typed: &'c mut dyn TypedCall<B>) -> Self {
        Self(RefCell::new(typed))
    }
}

impl<B: Backend> Steps<B> for Direct<'_, B> {
    async fn perform(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<B::Stored>,
    ) -> StepResult<B::Stored> {
        let flight = flight.map(|flight| (flight, true));
        perform_in(call, flight, step, &mut **self.0.borrow_mut())
    }
}

/// A step to be performed for a call in this state, as part of a flight that it leads.
struct Pending<V> {
    step: Step<V>,
    begun: Begun,
    flight: Option<FlightId>,
}

/// The steps for which the driver of a call suspends. A driver that blocks does that too if its call is in a future.
pub(super) struct Suspending<V> {
    state: Mutex<State<V>>,
    blocks: bool,
}

enum State<V> {
    Idle,
    Pending(Pending<V>),
    /// Whether an operation of the call has timed out is beside the result.
    Done(StepResult<V>, bool),
}

impl<V> Suspending<V> {
    pub(super) fn new<M: Io>() -> Self {
        Self { state: Mutex::new(State::Idle), blocks: M::BLOCKS }
    }

    fn replace(&self, state: State<V>) -> State<V> {
        mem::replace(&mut *self.state.lock().ignore_poison(), state)
    }

    /// Takes the step that the driver waits for.
    fn take(&self) -> Option<Pending<V>> {
        match self.replace(State::Idle) {
            State::Pending(pending) => Some(pending),
            State::Idle | State::Done(..) => None,
        }
    }
}

impl<B: Backend> Steps<B> for Suspending<B::Stored> {
    async fn perform(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<B::Stored>,
    ) -> StepResult<B::Stored> {
        self.replace(State::Pending(Pending { step, begun: call.begun(), flight }));
        poll_fn(|_| match self.replace(State::Idle) {
            State::Done(result, has_timed_out) => {
                if has_timed_out {
                    call.set_timed_out();
                }
                Poll::Ready(result)
            }
            pending => {
                self.replace(pending);
                Poll::Pending
            }
        })
        .await
    }
}

/// Performs a step.
fn perform<B: Backend>(
    call: &UntypedCall<'_, B>,
    step: Step<B::Stored>,
    typed: &mut dyn TypedCall<B>,
) -> StepResult<B::Stored> {
    match step {
        Step::LookUp => StepResult::LookedUp(lookup_with_stamp(call, typed)),
        Step::Decode(record, before) => {
            let decoded = call.decode_read(record, typed);
            StepResult::LookedUp(classify(call, decoded, before))
        }
        Step::Serve(record) => StepResult::Is(call.serve(record, typed)),
        Step::ServeAll(record) => {
            let value = QuietDrop::from(record.clone());
            StepResult::Served(call.serve(record, typed).then_some(value))
        }
        Step::Share(flight) => StepResult::Is(call.share(&flight, typed)),
        Step::ServeError => StepResult::Error(call.serve_error(typed)),
        Step::FindError => StepResult::Is(call.has_cached_error(typed)),
        Step::Previous(previous) => StepResult::Previous(call.decode_previous(previous, typed)),
        Step::IsNewer(record, started) => StepResult::Is(call.is_newer(record, started, typed)),
    }
}

/// The future of a driver. It is `Send` whatever the function returns, and its destructor is compiled once, and not wherever that of
/// the function may be dropped.
pub(super) type Driver<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Awaits the driver of a call, and performs its steps.
pub(super) async fn await_with_steps<'a, B: Backend, F: CachedFn<Stored = B::Stored>, T>(
    (engine, function, key): (&'a Engine<B>, &'a Properties<'a>, &'a Key),
    frame: &mut Frame<'_, F>,
    steps: &Suspending<B::Stored>,
    mut driver: Driver<'_, T>,
) -> T {
    poll_fn(|context| {
        poll_with_steps(steps, driver.as_mut(), context, |Pending { step, begun, flight }| {
            let call = Call::resumed(engine, function, key, begun);
            let flight = flight.map(|flight| (flight, steps.blocks));
            let result = perform_in(&call, flight, step, &mut *frame);
            State::Done(result, call.has_timed_out())
        })
    })
    .await
}

/// Performs a step, as part of a flight if the call leads one. The leader blocks or is polled.
#[inline(never)]
fn perform_in<B: Backend>(
    call: &UntypedCall<'_, B>,
    flight: Option<(FlightId, bool)>,
    step: Step<B::Stored>,
    typed: &mut dyn TypedCall<B>,
) -> StepResult<B::Stored> {
    let perform = || perform(call, step, typed);
    match flight {
        None => perform(),
        Some((flight, true)) => enter(flight, perform),
        Some((flight, false)) => enter_polled(flight, perform),
    }
}

/// Polls a driver, and performs its steps.
fn poll_with_steps<V, T>(
    steps: &Suspending<V>,
    mut driver: Pin<&mut (dyn Future<Output = T> + Send + '_)>,
    context: &mut Context<'_>,
    mut perform: impl FnMut(Pending<V>) -> State<V>,
) -> Poll<T> {
    loop {
        if let Poll::Ready(output) = driver.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        let Some(pending) = steps.take() else { return Poll::Pending };
        steps.replace(perform(pending));
    }
}
