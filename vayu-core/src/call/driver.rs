//! The course of a call after its lookup, for sync and async callers.
//!
//! A lookup that would block ends in [`resume_lookup`], which reads the generations and the record. A
//! call without a fresh value goes on with [`prepare`]: it joins the single flight of its key, and
//! returns the value of the leader, or [becomes the leader](Leading).
//!
//! The code is written once, generic over [`Io`]. The future of a sync caller blocks the thread instead of
//! suspending, so [`run_blocking`](crate::io::run_blocking) polls it once, on the stack and without an
//! executor.
//!
//! It is compiled once for all functions: what involves the types of one is a [step](super::steps).
//!
//! The function runs between [`prepare`] and [`complete`](super::leading::complete), on top of neither: each level of a cached
//! recursion has only [`Prepared`], the frame and the properties of the call on the stack.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::leading::Leading;
use crate::call::lookup::Rest;
use crate::call::previous::PreviousSlot;
use crate::call::read::read;
use crate::call::steps::{Step, Steps};
use crate::call::typed::{TypedCall, UntypedCall};
use crate::call::{Call, ComputeReason, FnProperties, Properties};
use crate::clock::Timestamp;
use crate::flight::{
    Completions, Deadline, Flight, FlightId, HedgeGuard, Join, Lead, Outcome, Turn,
};
use crate::io::Io;
use crate::key::Key;
use crate::log;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::record::Record;

/// The rest of a call, after all that precedes the function.
pub(crate) enum Prepared<'a, B: Backend> {
    /// Return the output that was found. The function does not run.
    Found,
    /// Run the function without the cache.
    Bypass,
    /// Run the function for this caller alone, which must not wait for the flight.
    Uncoordinated(Uncoordinated<'a, B>),
    /// Run the function for all callers that wait, in parallel to the leader.
    Hedge(Hedge<'a, B>),
    /// Run the function for all callers that wait.
    Lead(Leading<'a, B>),
}

/// A call that runs the function although another caller does.
pub(crate) struct Uncoordinated<'a, B: Backend> {
    call: UntypedCall<'a, B>,
    flight: FlightId,
    began: Timestamp,
}

/// A call that runs the function because the leader of the flight takes long.
pub(crate) struct Hedge<'a, B: Backend> {
    call: UntypedCall<'a, B>,
    guard: HedgeGuard<'a, Record<B::Stored>>,
    /// The count of hedges of the flight when this one began.
    hedges: u32,
    began: Timestamp,
}

impl<'a, B: Backend> From<ControlFlow<(), Leading<'a, B>>> for Prepared<'a, B> {
    fn from(prepared: ControlFlow<(), Leading<'a, B>>) -> Self {
        match prepared {
            ControlFlow::Continue(leading) => Self::Lead(leading),
            ControlFlow::Break(()) => Self::Found,
        }
    }
}

impl<B: Backend> Prepared<'_, B> {
    /// Returns the value that the run replaces, with its flight, if the function asks for it.
    #[inline]
    pub(super) fn previous(&self) -> Option<(FlightId, &PreviousSlot)> {
        match self {
            Self::Lead(leading) => {
                leading.previous.as_ref()?.slot().map(|slot| (leading.lead.id(), slot))
            }
            _ => None,
        }
    }

    /// Returns whether there is nothing to drop after the run, as of most calls.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Found | Self::Bypass => true,
            Self::Lead(leading) => leading.has_ended(),
            Self::Uncoordinated(_) | Self::Hedge(_) => false,
        }
    }

    /// Returns the span of the run of the function, if runs are logged. It is boxed: one that is not logged has one word
    /// more on the stack.
    #[inline]
    pub(super) fn run_span(&self) -> Option<Box<Span>> {
        if log::is_enabled() { self.new_run_span() } else { None }
    }

    #[cold]
    fn new_run_span(&self) -> Option<Box<Span>> {
        let (call, reason) = match self {
            Self::Found | Self::Bypass => return None,
            Self::Uncoordinated(uncoordinated) => (&uncoordinated.call, "uncoordinated"),
            Self::Hedge(hedge) => (&hedge.call, "hedge"),
            Self::Lead(leading) => (&leading.call, leading.reason.as_str()),
        };
        (!call.options().is_quiet).then(|| Box::new(log::run_span(call.key.prefix(), reason)))
    }

    /// Begins the run of the function, if it is part of a flight and to be followed by [`into_lead`], and counts the
    /// miss. Returns the flight.
    #[inline]
    pub(super) fn begin_run(&self) -> Option<FlightId> {
        let (call, flight) = match self {
            Self::Found | Self::Bypass => return None,
            Self::Uncoordinated(Uncoordinated { call, flight, .. }) => (call, *flight),
            Self::Hedge(hedge) => (&hedge.call, hedge.guard.flight().id()),
            Self::Lead(leading) => (&leading.call, leading.lead.id()),
        };
        if !matches!(self, Self::Lead(leading) if !matches!(leading.reason, ComputeReason::Miss(_)))
        {
            call.count_miss();
        }
        Some(flight)
    }
}

/// A call that has to run the function or to wait for a caller that does, and the reason.
pub(super) type Missed<'a, B> = (UntypedCall<'a, B>, ComputeReason);

/// Reads the generations and the backend, as far as the lookup could not. Returns the reason to run
/// the function, or else the rest of the call.
pub(super) async fn resume_lookup<'a, M: Io, B: Backend>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: &'a Key,
    mut rest: Rest,
    steps: &impl Steps<B>,
) -> Result<Missed<'a, B>, Prepared<'a, B>> {
    loop {
        let result = match rest {
            Rest::Bypass => return Err(Prepared::Bypass),
            Rest::Compute(begun, reason) => {
                return Ok((Call::resumed(engine, function, key, begun), reason));
            }
            Rest::ReadGenerations => {
                match engine.make_stamp::<M>(key.prefix(), function.tags()).await {
                    Ok(stamp) => {
                        let call = Call::new(engine, function, key, stamp.stamp);
                        if stamp.has_timed_out {
                            call.set_timed_out();
                        }
                        steps.look_up(&call, Step::LookUp).await
                    }
                    Err(error) => {
                        let call = Call::without_stamp(engine, function, key, &error);
                        return Ok((call, ComputeReason::Miss(None)));
                    }
                }
            }
            Rest::ReadBackend(begun) => {
                let call = Call::resumed(engine, function, key, begun);
                let before = call.engine.flights().completions(call.key);
                let record = read::<M, B>(&call).await;
                steps.look_up(&call, Step::Decode(record, before)).await
            }
        };
        match result {
            Ok(()) => return Err(Prepared::Found),
            Err(next) => rest = next,
        }
    }
}

/// A call that may have to wait before the function, and the result of joining its flight.
pub(super) struct Unprepared<'a, B: Backend> {
    pub(super) call: UntypedCall<'a, B>,
    reason: ComputeReason,
    join: Option<Join<'a, Record<B::Stored>>>,
}

/// Does all that precedes the function if nothing is to be waited for, as on most misses in memory. Otherwise, sets what is
/// `left`, and what it returns has no meaning.
///
/// What it returns is long. As a part of a result it would be moved once more.
pub(super) fn prepare_now<'a, B: Backend>(
    (call, reason): Missed<'a, B>,
    typed: &mut dyn TypedCall<B>,
    left: &mut Option<Box<Unprepared<'a, B>>>,
) -> Prepared<'a, B> {
    let mut unready = |unprepared| {
        *left = Some(Box::new(unprepared));
        Prepared::Bypass
    };
    match reason {
        ComputeReason::Miss(before) if call.engine.backend().is_in_process() => prepare_miss_now(
            call,
            before,
            typed,
            |ready| ready,
            |unprepared, _| unready(unprepared),
        ),
        reason => unready(Unprepared { call, reason, join: None }),
    }
}

/// [`prepare_now`] for a miss of a backend in this process. Returns what `ready` or `unready` makes of the rest of the
/// call.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn prepare_miss_now<'a, B: Backend, R>(
    call: UntypedCall<'a, B>,
    before: Option<Completions>,
    typed: &mut dyn TypedCall<B>,
    ready: impl FnOnce(Prepared<'a, B>) -> R,
    unready: impl FnOnce(Unprepared<'a, B>, &mut dyn TypedCall<B>) -> R,
) -> R {
    if call.serve_error(typed).is_some() {
        return ready(Prepared::Found);
    }
    let (flights, reason) = (call.engine.flights(), ComputeReason::Miss(None));
    let join = match flights.start(call.key, call.stamp, before) {
        Some((lead, false)) => {
            // Not the time at which the call began: its key was made since.
            let began = call.engine.now_inline();
            let (lease, previous, started) = (None, None, began);
            let leading = Leading { lease, lead, reason, call, started, began, previous };
            return ready(Prepared::Lead(leading));
        }
        Some((lead, recheck)) => Join::Lead { lead, recheck },
        None => flights.join_locked(call.key, call.stamp, before),
    };
    unready(Unprepared { call, reason, join: Some(join) }, typed)
}

/// Does all that precedes the function.
pub(super) async fn prepare<'a, M: Io, B: Backend>(
    unprepared: Unprepared<'a, B>,
    steps: &impl Steps<B>,
) -> Prepared<'a, B> {
    let Unprepared { call, reason, join } = unprepared;
    let (mut deadline, mut kept) = (Deadline::default(), None);
    let (joined, reason) = match reason {
        ComputeReason::Miss(before) => {
            if join.is_none() && steps.serve_error(&call, None).await.is_some() {
                return Prepared::Found;
            }
            let join = join.unwrap_or_else(|| call.join(before));
            let joined = wait_or_lead::<M, B>(&call, join, &mut deadline, steps).await;
            (joined, ComputeReason::Miss(None))
        }
        ComputeReason::Expired(mut stale) => match try_lead_refresh(&call, steps).await {
            Some(lead) => {
                kept = stale.kept.take();
                (Joined::Lead { lead, recheck: true }, ComputeReason::Expired(stale))
            }
            None => {
                call.serve_stale(&stale);
                return Prepared::Found;
            }
        },
        reason if call.options().is_refreshed() => {
            let join = call.join(None);
            (wait_or_lead::<M, B>(&call, join, &mut deadline, steps).await, reason)
        }
        reason => (lead_refresh::<M, B>(&call, &mut deadline).await, reason),
    };
    match joined {
        Joined::Found => Prepared::Found,
        Joined::Uncoordinated(flight) => {
            let began = call.engine.now();
            Prepared::Uncoordinated(Uncoordinated { call, flight, began })
        }
        Joined::Hedge(guard) => {
            let (hedges, began) = (guard.flight().hedges.get(), call.engine.now());
            Prepared::Hedge(Hedge { call, guard, hedges, began })
        }
        Joined::Lead { lead, recheck } => {
            let leading = Leading::new(call, lead, reason).keeping(kept);
            let prepared = leading.prepare::<M>(recheck, &mut deadline, steps).await;
            prepared.unwrap_or_else(ControlFlow::Continue).into()
        }
    }
}

/// The next step of a call after it has joined the flight of its key, and waited if it had to.
pub(super) enum Joined<'a, V> {
    /// The leader has computed the output that was found.
    Found,
    /// The caller leads. If `recheck`, a value may have been stored in the meantime.
    Lead { lead: Lead<'a, Record<V>>, recheck: bool },
    /// The caller must not wait for this flight.
    Uncoordinated(FlightId),
    /// The leader of a flight takes long.
    Hedge(HedgeGuard<'a, Record<V>>),
}

/// The end of a wait for a flight.
pub(super) enum WaitEnd<'a, V> {
    /// The wait is over.
    Joined(Joined<'a, V>),
    /// The flight has an outcome, which may have an output for this call. Otherwise the call goes on
    /// [without it](after_unshared).
    Shared,
    /// Join again. A flight may have been joined already.
    Again(Option<Join<'a, Record<V>>>),
}

/// Waits for the leader of a flight that was joined, if there is one.
async fn wait_or_lead<'a, M: Io, B: Backend>(
    call: &UntypedCall<'a, B>,
    join: Join<'a, Record<B::Stored>>,
    deadline: &mut Deadline,
    steps: &impl Steps<B>,
) -> Joined<'a, B::Stored> {
    let mut join = Some(join);
    loop {
        let joined = join.take().unwrap_or_else(|| call.join(None));
        let (ticket, outdated) = match joined {
            Join::Lead { lead, recheck } => return Joined::Lead { lead, recheck },
            Join::Wait { ticket, outdated } => (ticket, outdated),
        };
        let flight = ticket.flight();
        let Some(waiting) = M::begin_wait(flight.id()) else {
            return Joined::Uncoordinated(flight.id());
        };
        let hedge_after = if outdated { Duration::MAX } else { call.engine.hedge_after(call.key) };
        let turn = M::wait(ticket.turn(call.engine.begin(deadline), hedge_after)).await;
        drop(waiting);
        match after_wait(call, flight, outdated, turn) {
            WaitEnd::Joined(joined) => return joined,
            WaitEnd::Shared => {
                if steps.is(call, None, Step::Share(Arc::clone(flight))).await {
                    return Joined::Found;
                }
                return after_unshared(call, flight);
            }
            WaitEnd::Again(next) => join = next,
        }
    }
}

/// Returns the next step of a call whose wait for a flight has ended. The outcome of an `outdated` flight is not for this call.
#[inline]
pub(super) fn after_wait<'a, B: Backend>(
    call: &UntypedCall<'a, B>,
    flight: &Arc<Flight<Record<B::Stored>>>,
    outdated: bool,
    turn: Turn<'a, '_, Record<B::Stored>>,
) -> WaitEnd<'a, B::Stored> {
    let flights = call.engine.flights();
    let lead = match turn {
        Turn::Lead(lead) => return WaitEnd::Joined(Joined::Lead { lead, recheck: true }),
        Turn::Hedge(guard) => return WaitEnd::Joined(Joined::Hedge(guard)),
        Turn::TimedOut => flights.replace_overdue(call.key, call.stamp, flight),
        Turn::Again | Turn::Completed(Outcome::Abandoned) => return WaitEnd::Again(None),
        Turn::Completed(_) if outdated => return WaitEnd::Again(None),
        Turn::Completed(Outcome::Computed { .. }) => return WaitEnd::Shared,
        Turn::Completed(Outcome::Failed { .. }) => {
            // Another leader may have replaced this one, and have a value, or have stored it.
            if flight.is_detached() {
                if let Some(join) = flights.join_running(call.key, call.stamp) {
                    return WaitEnd::Again(Some(join));
                }
                if let Some(lead) = try_lead(call) {
                    return WaitEnd::Joined(Joined::Lead { lead, recheck: true });
                }
            }
            return WaitEnd::Shared;
        }
        Turn::Completed(Outcome::NotShareable) => try_lead(call),
    };
    WaitEnd::Joined(lead_or_uncoordinated(lead, flight))
}

/// Returns the next step of a call for which the outcome of a flight had no output.
pub(super) fn after_unshared<'a, B: Backend>(
    call: &UntypedCall<'a, B>,
    flight: &Flight<Record<B::Stored>>,
) -> Joined<'a, B::Stored> {
    lead_or_uncoordinated(try_lead(call), flight)
}

fn try_lead<'a, B: Backend>(call: &UntypedCall<'a, B>) -> Option<Lead<'a, Record<B::Stored>>> {
    call.engine.flights().try_lead(call.key, call.stamp, call.options().is_refreshed())
}

fn lead_or_uncoordinated<'a, V>(
    lead: Option<Lead<'a, Record<V>>>,
    flight: &Flight<Record<V>>,
) -> Joined<'a, V> {
    match lead {
        Some(lead) => Joined::Lead { lead, recheck: false },
        None => Joined::Uncoordinated(flight.id()),
    }
}

/// Leads the refresh of a value past its ttl, unless another caller does, or the last attempt has
/// failed recently, or an error is cached.
pub(super) async fn try_lead_refresh<'a, B: Backend>(
    call: &UntypedCall<'a, B>,
    steps: &impl Steps<B>,
) -> Option<Lead<'a, Record<B::Stored>>> {
    if steps.read_error(call, None).await.is_some() || !call.begin_refresh() {
        return None;
    }
    call.engine.flights().try_lead(call.key, call.stamp, false)
}

/// Replaces the leader of the key, as soon as no value is being stored.
async fn lead_refresh<'a, M: Io, B: Backend>(
    call: &UntypedCall<'a, B>,
    deadline: &mut Deadline,
) -> Joined<'a, B::Stored> {
    loop {
        match call.engine.flights().lead_refresh(call.key, call.stamp) {
            Ok(lead) => return Joined::Lead { lead, recheck: false },
            Err(flight) if call.engine.wait_for::<M>(&flight, deadline).await => {}
            Err(flight) => return Joined::Uncoordinated(flight.id()),
        }
    }
}

/// Returns the lead of the flight that is to be [completed](super::leading::complete) after the function. A call
/// without one ends here. Only for a call that is part of a flight.
#[cold]
pub(super) fn into_lead<'a, B: Backend>(
    prepared: Prepared<'a, B>,
    typed: &dyn TypedCall<B>,
) -> Option<Leading<'a, B>> {
    match prepared {
        Prepared::Lead(leading) => Some(leading),
        Prepared::Hedge(hedge) => hedge_into_lead(hedge, typed),
        Prepared::Uncoordinated(Uncoordinated { call, began, .. }) => {
            end_uncoordinated(&call, began);
            None
        }
        Prepared::Found | Prepared::Bypass => None,
    }
}

/// Replaces the leader of a flight that was hedged, unless it was faster.
fn hedge_into_lead<'a, B: Backend>(
    hedge: Hedge<'a, B>,
    typed: &dyn TypedCall<B>,
) -> Option<Leading<'a, B>> {
    let Hedge { call, guard, hedges, began } = hedge;
    call.record_hedge(guard.flight(), hedges, began);
    let has_value = typed.has_value();
    let flights = call.engine.flights();
    let replace = || flights.replace_overdue(call.key, call.stamp, guard.flight());
    let lead = has_value.then(replace).flatten();
    if !has_value {
        let compute_time = call.engine.now().saturating_since(began);
        guard.fail(|| call.failure(compute_time, typed));
    }
    let Some(lead) = lead else {
        end_uncoordinated(&call, began);
        return None;
    };
    let (lease, reason) = (None, ComputeReason::Miss(None));
    Some(Leading { lease, lead, reason, call, started: began, began, previous: None })
}

/// Reports a call that stores nothing.
fn end_uncoordinated<B: Backend>(call: &UntypedCall<'_, B>, began: Timestamp) {
    let compute_time = call.engine.now().saturating_since(began);
    call.emit(CallOutcome::Miss, CallTimes::computed(compute_time));
}
