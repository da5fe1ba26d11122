//! The steps of a driver that involve the types of its function.
//!
//! Code that does not wait takes the [frame](super::typed::Frame) of the call as an argument. The [driver](super::driver) of an
//! async call cannot: its future would hold the frame, and could move between threads only if the output can, which is not known
//! where it is compiled. So the driver suspends with a [`Step`], as a coroutine does. What polls it ([`await_with_steps`]) has the
//! frame, performs the step, and polls again at once. For a sync call the driver performs the step itself ([`Direct`]).

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::{CachedError, Engine};
use crate::call::kept::PreviousRecord;
use crate::call::lookup::{Begun, Rest, classify, lookup_with_stamp};
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{CachedFn, Call, ComputeReason, FnProperties, Properties};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::error::Result;
use crate::flight::{Completions, Flight, FlightId, Outcome, enter, enter_polled};
use crate::io::Io;
use crate::key::Key;
use crate::observer::CallTimes;
use crate::panic::QuietDrop;
use crate::record::Record;
use crate::shared_error::SharedError;
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
    /// Read the cached error of the key.
    ReadError,
    /// Decode the value that the run replaces.
    Previous(Box<PreviousRecord<V>>),
    /// Check whether a record is newer than a run that has started at this time.
    IsNewer(Record<V>, Timestamp),
    /// Encode the output of a run that took this time and ended at this one.
    Encode(Duration, Timestamp),
    /// Compute the ttl of an error.
    ErrorTtl(SharedError),
    /// Conclude the call, whose function has returned.
    Conclude(CallTimes, ComputeReason),
}

/// The result of a [`Step`].
pub(super) enum StepResult<V> {
    /// The result of [`Step::LookUp`] and [`Step::Decode`].
    LookedUp(Result<(), Rest>),
    /// The result of [`Step::ServeAll`].
    Served(Option<QuietDrop<Record<V>>>),
    /// The result of a step that succeeds or does not.
    Is(bool),
    /// The result of [`Step::ServeError`] and [`Step::ReadError`].
    Error(Option<CachedError>),
    /// The result of [`Step::Previous`].
    Previous(Option<Box<PreviousRecord<V>>>),
    /// The result of [`Step::Encode`].
    Encoded(Result<Record<V>, NoRecord<V>>),
    /// The result of [`Step::ErrorTtl`].
    ErrorTtl(Duration),
}

/// The reason for which an output has no record.
pub(super) enum NoRecord<V> {
    /// It is a value that is not to be stored, or cannot be.
    Value,
    /// It is a failure. The outcome is there if callers can share it.
    Failure(Option<Outcome<Record<V>>>),
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
        self.error(call, flight, Step::ServeError).await
    }

    /// Returns the cached error of the key, if there is one.
    async fn read_error(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
    ) -> Option<CachedError> {
        self.error(call, flight, Step::ReadError).await
    }

    /// Performs a step of errors.
    async fn error(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<B::Stored>,
    ) -> Option<CachedError> {
        if !call.function.caches_errors() {
            return None;
        }
        match self.perform(call, flight, step).await {
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
        let typed = &mut **self.0.borrow_mut();
        within(flight, true, || perform(call, step, typed))
    }
}

/// The future of a driver. It is `Send` whatever the function returns, and its destructor is compiled once, and not wherever that of
/// the function may be dropped.
pub(super) type Driver<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The place where a driver that suspends leaves a step `Q`, and finds the result `R`.
pub(super) struct Exchange<Q, R>(Mutex<State<Q, R>>);

enum State<Q, R> {
    Idle,
    Pending(Q),
    Done(R),
}

impl<Q, R> Exchange<Q, R> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Idle))
    }

    fn replace(&self, state: State<Q, R>) -> State<Q, R> {
        mem::replace(&mut *self.0.lock().ignore_poison(), state)
    }

    /// Suspends the driver until its step is performed.
    pub(super) async fn perform(&self, step: Q) -> R {
        self.replace(State::Pending(step));
        poll_fn(|_| match self.replace(State::Idle) {
            State::Done(result) => Poll::Ready(result),
            pending => {
                self.replace(pending);
                Poll::Pending
            }
        })
        .await
    }

    /// Sets the result of the step that was performed. The driver is to be polled again.
    pub(super) fn set_result(&self, result: R) {
        self.replace(State::Done(result));
    }

    /// Polls a driver, and performs its steps.
    ///
    /// # Errors
    ///
    /// That of a step, whose result is still to be set.
    pub(super) fn poll<T, E>(
        &self,
        driver: &mut Driver<'_, T>,
        context: &mut Context<'_>,
        perform: &mut dyn FnMut(Q) -> Result<R, E>,
    ) -> Poll<Result<T, E>> {
        loop {
            if let Poll::Ready(output) = driver.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            let State::Pending(step) = self.replace(State::Idle) else { return Poll::Pending };
            match perform(step) {
                Ok(result) => self.set_result(result),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A step to be performed for a call in this state, as part of a flight that it leads.
pub(super) struct StepOf<V> {
    step: Step<V>,
    begun: Begun,
    flight: Option<FlightId>,
}

/// The result of a [`StepOf`] a call.
pub(super) struct ResultOf<V> {
    result: StepResult<V>,
    has_timed_out: bool,
}

impl<V> StepOf<V> {
    pub(super) fn new<B: Backend<Stored = V>>(
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<V>,
    ) -> Self {
        Self { step, begun: call.begun(), flight }
    }

    /// Performs the step for the function of the call. The driver blocks, or is polled.
    pub(super) fn perform<B: Backend<Stored = V>>(
        self,
        (engine, function, key): (&Engine<B>, &Properties<'_>, &Key),
        blocks: bool,
        typed: &mut dyn TypedCall<B>,
    ) -> ResultOf<V> {
        let call = Call::resumed(engine, function, key, self.begun);
        let result = within(self.flight, blocks, || perform(&call, self.step, typed));
        ResultOf { result, has_timed_out: call.has_timed_out() }
    }
}

impl<V> ResultOf<V> {
    /// Returns the result for the call.
    pub(super) fn of<B: Backend<Stored = V>>(self, call: &UntypedCall<'_, B>) -> StepResult<V> {
        if self.has_timed_out {
            call.set_timed_out();
        }
        self.result
    }
}

/// The steps for which the driver of a call suspends. A driver that blocks does that too if its call is in a future.
pub(super) struct Suspending<V> {
    exchange: Exchange<StepOf<V>, ResultOf<V>>,
    blocks: bool,
}

impl<V> Suspending<V> {
    pub(super) fn new<M: Io>() -> Self {
        Self { exchange: Exchange::new(), blocks: M::BLOCKS }
    }
}

impl<B: Backend> Steps<B> for Suspending<B::Stored> {
    async fn perform(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<B::Stored>,
    ) -> StepResult<B::Stored> {
        self.exchange.perform(StepOf::new(call, flight, step)).await.of(call)
    }
}

/// Performs a step.
#[inline(never)]
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
        Step::ReadError => StepResult::Error(call.read_error(typed)),
        Step::Previous(previous) => StepResult::Previous(call.decode_previous(previous, typed)),
        Step::IsNewer(record, started) => StepResult::Is(call.is_newer(record, started, typed)),
        Step::Encode(compute_time, ended) => {
            let compact = CompactDuration::new(compute_time);
            let record = call.encode_or_count(&*typed, compact, ended);
            StepResult::Encoded(record.ok_or_else(|| {
                if typed.has_value() {
                    NoRecord::Value
                } else {
                    NoRecord::Failure(call.failure_to_share(compute_time, typed))
                }
            }))
        }
        Step::ErrorTtl(error) => StepResult::ErrorTtl(call.error_ttl(&error, typed)),
        Step::Conclude(times, reason) => {
            let is_stale = call.conclude_run(times, reason, typed);
            if is_stale {
                typed.discard_returned();
            }
            StepResult::Is(is_stale)
        }
    }
}

/// Awaits the driver of a call, and performs its steps.
pub(super) async fn await_with_steps<'a, B: Backend, F: CachedFn<Stored = B::Stored>, T>(
    call: (&'a Engine<B>, &'a Properties<'a>, &'a Key),
    frame: &mut Frame<'_, F>,
    steps: &Suspending<B::Stored>,
    mut driver: Driver<'_, T>,
) -> T {
    let polled = poll_fn(|context| {
        let mut perform =
            |step: StepOf<_>| Ok::<_, Infallible>(step.perform(call, steps.blocks, &mut *frame));
        steps.exchange.poll(&mut driver, context, &mut perform)
    });
    let Ok(output) = polled.await;
    output
}

/// Runs code as part of a flight, if there is one. The leader blocks, or is polled.
pub(super) fn within<T>(flight: Option<FlightId>, blocks: bool, code: impl FnOnce() -> T) -> T {
    match flight {
        None => code(),
        Some(flight) if blocks => enter(flight, code),
        Some(flight) => enter_polled(flight, code),
    }
}

/// Does work that has no steps as part of a flight, if there is one.
pub(super) async fn part_of_flights<M: Io, T: Future>(
    flight: Option<FlightId>,
    work: T,
) -> T::Output {
    match flight {
        Some(flight) => M::lead(flight, work).await,
        None => work.await,
    }
}
