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
//! The function runs between [`prepare`] and [`complete`](super::leading::complete), on top of neither: each level of a cached
//! recursion has only [`Prepared`] on the stack.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::leading::Leading;
use crate::call::lookup::{Lookup, classify, lookup_with_stamp};
use crate::call::previous::Slot;
use crate::call::read::read;
use crate::call::{CachedFn, Call, ComputeReason, FnOutput};
use crate::clock::Timestamp;
use crate::flight::{
    Completions, Deadline, Flight, FlightId, HedgeGuard, Join, Lead, Outcome, Turn,
};
use crate::io::Io;
use crate::log;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::record::Record;

/// The rest of a call, after all that precedes the function.
pub(crate) enum Prepared<'a, B: Backend, F: FnOutput> {
    /// Return this. The function does not run.
    Output(F::Output),
    /// Run the function without the cache.
    Bypass,
    /// Run the function for this caller alone, which must not wait for the flight.
    Uncoordinated(Uncoordinated<'a, B, F>),
    /// Run the function for all callers that wait, in parallel to the leader.
    Hedge(Hedge<'a, B, F>),
    /// Run the function for all callers that wait.
    Lead(Leading<'a, B, F>),
}

/// What [`Leading::prepare`] returns.
impl<'a, B: Backend, F: FnOutput> From<ControlFlow<F::Output, Leading<'a, B, F>>>
    for Prepared<'a, B, F>
{
    fn from(prepared: ControlFlow<F::Output, Leading<'a, B, F>>) -> Self {
        match prepared {
            ControlFlow::Break(output) => Self::Output(output),
            ControlFlow::Continue(leading) => Self::Lead(leading),
        }
    }
}

/// A call that runs the function although another caller does.
pub(crate) struct Uncoordinated<'a, B: Backend, F: FnOutput> {
    call: Call<'a, B, F>,
    flight: FlightId,
    began: Timestamp,
}

/// A call that runs the function because the leader of the flight takes long.
pub(crate) struct Hedge<'a, B: Backend, F: FnOutput> {
    call: Call<'a, B, F>,
    guard: HedgeGuard<'a, Record<B::Stored>>,
    /// The count of hedges of the flight when this one began.
    hedges: u32,
    began: Timestamp,
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Prepared<'_, B, F> {
    /// Returns the value that the run replaces, with its flight, if the function asks for it.
    #[inline]
    pub(super) fn previous(&self) -> Option<(FlightId, &Slot)> {
        match self {
            Self::Lead(leading) => {
                leading.previous.as_ref()?.slot().map(|slot| (leading.lead.id(), slot))
            }
            _ => None,
        }
    }
}

impl<B: Backend, F: FnOutput> Prepared<'_, B, F> {
    /// Returns the span of the run of the function, if runs are logged. It is boxed: one that is not logged has one word
    /// more on the stack.
    #[inline]
    pub(super) fn run_span(&self) -> Option<Box<Span>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        if log::is_enabled() { self.new_run_span() } else { None }
    }

    #[cold]
    fn new_run_span(&self) -> Option<Box<Span>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        let (call, reason) = match self {
            Self::Output(_) | Self::Bypass => return None,
            Self::Uncoordinated(uncoordinated) => (&uncoordinated.call, "uncoordinated"),
            Self::Hedge(hedge) => (&hedge.call, "hedge"),
            Self::Lead(leading) => (&leading.call, leading.reason.as_str()),
        };
        (!call.options().is_quiet).then(|| Box::new(log::run_span(call.key.prefix(), reason)))
    }

    /// Begins the run of the function, if it is part of a flight and to be followed by [`into_lead`], and counts the
    /// miss. Returns the flight.
    #[inline]
    pub(super) fn begin_run(&self) -> Option<FlightId>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        let (call, flight) = match self {
            Self::Output(_) | Self::Bypass => return None,
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

/// Reads the generations and the backend, as far as the lookup could not. Returns the reason to run
/// the function, or else the rest of the call.
pub(super) async fn resume_lookup<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    mut lookup: Lookup<'a, B, F>,
) -> Result<(Call<'a, B, F>, ComputeReason<F::Output>), Prepared<'a, B, F>> {
    loop {
        let result = match lookup {
            Lookup::Bypass => return Err(Prepared::Bypass),
            Lookup::Compute(call, reason) => return Ok((call, reason)),
            Lookup::ReadGenerations(key) => {
                match engine.make_stamp::<M>(key.prefix(), function.tags()).await {
                    Ok(stamp) => lookup_with_stamp(engine, function, key, stamp),
                    Err(error) => {
                        let call = Call::without_stamp(engine, function, key, &error);
                        return Ok((call, ComputeReason::Miss(None)));
                    }
                }
            }
            Lookup::ReadBackend(call) => {
                let before = call.engine.flights().completions(call.key);
                let decoded = match read::<M, B, F>(&call).await {
                    Some(record) => call.decode_counted(record),
                    None => call.nothing(),
                };
                classify(call, decoded, before)
            }
        };
        match result {
            Ok(output) => return Err(Prepared::Output(output)),
            Err(rest) => lookup = rest,
        }
    }
}

/// A call that may have to wait before the function, and the result of joining its flight.
pub(super) struct Unprepared<'a, B: Backend, F: FnOutput> {
    call: Call<'a, B, F>,
    reason: ComputeReason<F::Output>,
    join: Option<Join<'a, Record<B::Stored>>>,
}

/// Does all that precedes the function if nothing is to be waited for, as on most misses in memory.
#[cfg_attr(not(debug_assertions), inline(always))]
#[allow(clippy::result_large_err, reason = "the rest of the call is not moved further")]
pub(super) fn prepare_now<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
    reason: ComputeReason<F::Output>,
) -> Result<Prepared<'_, B, F>, Unprepared<'_, B, F>> {
    match reason {
        ComputeReason::Miss(before) if call.engine.backend().is_in_process() => {
            prepare_miss_now(call, before, Ok, Err)
        }
        reason => Err(Unprepared { call, reason, join: None }),
    }
}

/// [`prepare_now`] for a miss of a backend in this process. Returns what `ready` or `unready` makes of the rest of the
/// call.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn prepare_miss_now<'a, B: Backend, F: CachedFn<Stored = B::Stored>, R>(
    call: Call<'a, B, F>,
    before: Option<Completions>,
    ready: impl FnOnce(Prepared<'a, B, F>) -> R,
    unready: impl FnOnce(Unprepared<'a, B, F>) -> R,
) -> R {
    if let Some(output) = call.serve_error() {
        return ready(Prepared::Output(output));
    }
    let (flights, reason) = (call.engine.flights(), ComputeReason::Miss(None));
    let join = match flights.start(call.key, call.stamp, before) {
        Some((lead, false)) => {
            let (lease, previous, started, began) = (None, None, call.began, call.began);
            let leading = Leading { lease, lead, reason, call, started, began, previous };
            return ready(Prepared::Lead(leading));
        }
        Some((lead, recheck)) => Join::Lead { lead, recheck },
        None => flights.join_locked(call.key, call.stamp, before),
    };
    unready(Unprepared { call, reason, join: Some(join) })
}

/// Does all that precedes the function.
pub(super) async fn prepare<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    unprepared: Unprepared<'_, B, F>,
) -> Prepared<'_, B, F> {
    let Unprepared { call, reason, join } = unprepared;
    let (mut deadline, mut kept) = (Deadline::default(), None);
    let (joined, reason) = match reason {
        ComputeReason::Miss(before) => {
            if join.is_none()
                && let Some(output) = call.serve_error()
            {
                return Prepared::Output(output);
            }
            let join = join.unwrap_or_else(|| call.join(before));
            let joined = wait_or_lead::<M, B, F>(&call, join, &mut deadline).await;
            (joined, ComputeReason::Miss(None))
        }
        ComputeReason::Expired(mut stale) => match try_lead_refresh(&call) {
            Some(lead) => {
                kept = stale.kept.take();
                (Joined::Lead { lead, recheck: true }, ComputeReason::Expired(stale))
            }
            None => return Prepared::Output(call.serve_stale(*stale)),
        },
        reason if call.options().is_refreshed() => {
            (wait_or_lead::<M, B, F>(&call, call.join(None), &mut deadline).await, reason)
        }
        reason => (lead_refresh::<M, B, F>(&call, &mut deadline).await, reason),
    };
    match joined {
        Joined::Output(output) => Prepared::Output(output),
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
            let prepared = leading.prepare::<M>(recheck, &mut deadline).await;
            prepared.unwrap_or_else(ControlFlow::Continue).into()
        }
    }
}

/// The next step of a call after it has joined the flight of its key, and waited if it had to.
pub(super) enum Joined<'a, B: Backend, F: FnOutput> {
    /// The leader has computed this.
    Output(F::Output),
    /// The caller leads. If `recheck`, a value may have been stored in the meantime.
    Lead { lead: Lead<'a, Record<B::Stored>>, recheck: bool },
    /// The caller must not wait for this flight.
    Uncoordinated(FlightId),
    /// The leader of a flight takes long.
    Hedge(HedgeGuard<'a, Record<B::Stored>>),
}

/// The end of a wait: the next step, or a flight to join, which may have been joined already.
pub(super) type WaitEnd<'a, B, F> =
    Result<Joined<'a, B, F>, Option<Join<'a, Record<<B as Backend>::Stored>>>>;

/// Waits for the leader of a flight that was joined, if there is one.
async fn wait_or_lead<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
    join: Join<'a, Record<B::Stored>>,
    deadline: &mut Deadline,
) -> Joined<'a, B, F> {
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
            Ok(joined) => return joined,
            Err(next) => join = next,
        }
    }
}

/// Returns the next step of a call whose wait for a flight has ended. If it joins again, returns the flight that it has
/// joined, if there is one. The outcome of an `outdated` flight is not for this call.
#[inline]
pub(super) fn after_wait<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
    flight: &Arc<Flight<Record<B::Stored>>>,
    outdated: bool,
    turn: Turn<'a, '_, Record<B::Stored>>,
) -> WaitEnd<'a, B, F> {
    let flights = call.engine.flights();
    let try_lead = || flights.try_lead(call.key, call.stamp, call.options().is_refreshed());
    let lead = match turn {
        Turn::Lead(lead) => return Ok(Joined::Lead { lead, recheck: true }),
        Turn::Hedge(guard) => return Ok(Joined::Hedge(guard)),
        Turn::TimedOut => flights.replace_overdue(call.key, call.stamp, flight),
        Turn::Again | Turn::Completed(Outcome::Abandoned) => return Err(None),
        Turn::Completed(_) if outdated => return Err(None),
        Turn::Completed(Outcome::Computed { value, is_stored }) => {
            match value.get().and_then(|record| call.decode_shared(record, *is_stored)) {
                Some(output) => return Ok(Joined::Output(output)),
                None => try_lead(),
            }
        }
        Turn::Completed(Outcome::Failed { error, compute_time }) => {
            // Another leader may have replaced this one, and have a value, or have stored it.
            if flight.is_detached() {
                if let Some(join) = flights.join_running(call.key, call.stamp) {
                    return Err(Some(join));
                }
                if let Some(lead) = try_lead() {
                    return Ok(Joined::Lead { lead, recheck: true });
                }
            }
            match call.share_error(error, *compute_time) {
                Some(output) => return Ok(Joined::Output(output)),
                None => try_lead(),
            }
        }
        Turn::Completed(Outcome::NotShareable) => try_lead(),
    };
    Ok(match lead {
        Some(lead) => Joined::Lead { lead, recheck: false },
        None => Joined::Uncoordinated(flight.id()),
    })
}

/// Leads the refresh of a value past its ttl, unless another caller does, or the last attempt has
/// failed recently.
#[cold]
pub(super) fn try_lead_refresh<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
) -> Option<Lead<'a, Record<B::Stored>>> {
    if !call.begin_refresh() {
        return None;
    }
    call.engine.flights().try_lead(call.key, call.stamp, false)
}

/// Replaces the leader of the key, as soon as no value is being stored.
async fn lead_refresh<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
    deadline: &mut Deadline,
) -> Joined<'a, B, F> {
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
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn into_lead<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    prepared: Prepared<'a, B, F>,
    output: &F::Output,
) -> Option<Leading<'a, B, F>> {
    match prepared {
        Prepared::Lead(leading) => Some(leading),
        Prepared::Hedge(hedge) => hedge_into_lead(hedge, output),
        Prepared::Uncoordinated(Uncoordinated { call, began, .. }) => {
            end_uncoordinated(&call, began);
            None
        }
        Prepared::Output(_) | Prepared::Bypass => None,
    }
}

/// Replaces the leader of a flight that was hedged, unless it was faster.
#[cold]
fn hedge_into_lead<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    hedge: Hedge<'a, B, F>,
    output: &F::Output,
) -> Option<Leading<'a, B, F>> {
    let Hedge { call, guard, hedges, began } = hedge;
    call.record_hedge(guard.flight(), hedges, began);
    let has_value = F::value(output).is_some();
    let flights = call.engine.flights();
    let replace = || flights.replace_overdue(call.key, call.stamp, guard.flight());
    let lead = has_value.then(replace).flatten();
    if !has_value {
        let compute_time = call.engine.now().saturating_since(began);
        guard.fail(|| call.failure(output, compute_time));
    }
    let Some(lead) = lead else {
        end_uncoordinated(&call, began);
        return None;
    };
    let (lease, reason) = (None, ComputeReason::Miss(None));
    Some(Leading { lease, lead, reason, call, started: began, began, previous: None })
}

/// Reports a call that stores nothing.
#[cold]
fn end_uncoordinated<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    began: Timestamp,
) {
    let compute_time = call.engine.now().saturating_since(began);
    call.emit(CallOutcome::Miss, CallTimes::computed(compute_time));
}
