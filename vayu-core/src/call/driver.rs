//! The course of a call after its lookup, for sync and async callers.
//!
//! A lookup that would block ends in [`resume_lookup`], which reads the generations and the record. A
//! call without a fresh value goes on with [`prepare`]: it joins the single flight of its key, and
//! returns the value of the leader, or becomes the leader, reads the backend again and acquires the
//! lease. After the function has run, [`complete`] stores the value, completes the flight and releases
//! the lease.
//!
//! The code is written once, generic over [`Io`]. The future of a sync caller blocks the thread instead of
//! suspending, so [`run_blocking`](crate::io::run_blocking) polls it once, on the stack and without an
//! executor.
//!
//! The function runs between [`prepare`] and [`complete`], on top of neither: each level of a cached
//! recursion has only [`Prepared`] on the stack.

use std::mem;
use std::ops::ControlFlow;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use crate::backend::{Backend, Lease, LeaseGuard};
use crate::cache::{self, Engine};
use crate::call::lookup::{Lookup, classify, lookup_with_stamp};
use crate::call::previous::{Kept, PreviousRecord, Slot};
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, remaining_ttl};
use crate::clock::Timestamp;
use crate::flight::{
    Completion, Deadline, Flight, FlightId, HedgeGuard, Join, Lead, Outcome, StorePermission, Turn,
};
use crate::io::{Blocking, Io, run_blocking};
use crate::log;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::{QuietDrop, drop_quietly};
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

/// A call that leads the flight of its key.
pub(crate) struct Leading<'a, B: Backend, F: FnOutput> {
    /// Dropped first.
    pub(super) lease: Option<LeaseGuard>,
    pub(super) lead: Lead<'a, Record<B::Stored>>,
    pub(super) reason: ComputeReason<F::Output>,
    pub(super) call: Call<'a, B, F>,
    /// When the call became the leader. A record that was created since is newer than its value.
    pub(super) started: Timestamp,
    /// When the function was called: after `started` if a lease was acquired in between.
    began: Timestamp,
    /// The record that the run replaces, if the function asks for it.
    previous: Option<Box<PreviousRecord<B::Stored>>>,
}

impl<'a, B: Backend, F> Leading<'a, B, F>
where
    F: CachedFn<Stored = B::Stored>,
{
    /// Creates a call that has just become the leader.
    pub(super) fn new(
        call: Call<'a, B, F>,
        lead: Lead<'a, Record<B::Stored>>,
        reason: ComputeReason<F::Output>,
    ) -> Self {
        let started = call.engine.now();
        Self { lease: None, lead, reason, call, started, began: started, previous: None }
    }

    /// Returns the flight that the call leads.
    pub(super) fn flight(&self) -> FlightId {
        self.lead.id()
    }

    /// Returns whether the rest of the call is for [`complete_now`].
    pub(super) fn never_waits(&self) -> bool {
        self.call.engine.backend().is_in_process()
    }
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Prepared<'_, B, F> {
    /// Returns the value that the run replaces, with its flight, if the function asks for it.
    #[inline]
    pub(super) fn previous(&self) -> Option<(FlightId, &Slot)> {
        match self {
            Self::Lead(leading) => {
                leading.previous.as_ref().map(|previous| (leading.lead.id(), previous.slot()))
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

    /// Returns the flight that the function is part of, if it is to be followed by
    /// [`into_lead`].
    pub(super) fn flight(&self) -> Option<FlightId> {
        match self {
            Self::Output(_) | Self::Bypass => None,
            Self::Uncoordinated(call) => Some(call.flight),
            Self::Hedge(hedge) => Some(hedge.guard.flight().id()),
            Self::Lead(leading) => Some(leading.lead.id()),
        }
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

/// Reads the record of the key.
async fn read<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
) -> Option<Record<B::Stored>> {
    if !call.has_timed_out() {
        let record = call.ok_or_count(call.engine.read::<M>(call.key).await);
        if !call.has_timed_out() {
            return record.flatten();
        }
    }
    call.read_offline()
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
    mut reason: ComputeReason<F::Output>,
) -> Result<Prepared<'_, B, F>, Unprepared<'_, B, F>> {
    let mut join = None;
    if let ComputeReason::Miss(before) = &mut reason
        && call.engine.backend().is_in_process()
    {
        if let Some(output) = call.serve_error() {
            return Ok(Prepared::Output(output));
        }
        match call.engine.flights().join(call.key, call.stamp, before.take()) {
            Join::Lead { lead, recheck: false } => {
                call.count_miss();
                let (lease, started) = (None, call.began);
                let (began, previous) = (started, None);
                let leading = Leading { lease, lead, reason, call, started, began, previous };
                return Ok(Prepared::Lead(leading));
            }
            other => join = Some(other),
        }
    }
    Err(Unprepared { call, reason, join })
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
            call.count_miss();
            let began = call.engine.now();
            Prepared::Uncoordinated(Uncoordinated { call, flight, began })
        }
        Joined::Hedge(guard) => {
            call.count_miss();
            let (hedges, began) = (guard.flight().hedges.get(), call.engine.now());
            Prepared::Hedge(Hedge { call, guard, hedges, began })
        }
        Joined::Lead { lead, recheck } => {
            prepare_lead::<M, B, F>(call, lead, recheck, kept, reason, &mut deadline).await
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

/// Does all that a leader does before the function, which does not run if another caller has just
/// stored a value. If `recheck`, the entry is read again: a function that asks for the value it replaces gets the one of then,
/// if that is the one that the call has `kept`.
pub(super) async fn prepare_lead<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'a, B, F>,
    mut lead: Lead<'a, Record<B::Stored>>,
    recheck: bool,
    kept: Option<Kept>,
    mut reason: ComputeReason<F::Output>,
    deadline: &mut Deadline,
) -> Prepared<'a, B, F> {
    let started = call.engine.now();
    // A refresh whose lead a miss has taken is not completed with the stored value, which is from before.
    let recheck = recheck && !lead.is_refresh();
    let mut kept = kept.filter(|_| recheck);
    if recheck
        && !matches!(reason, ComputeReason::Forced)
        && let Some((output, record)) =
            M::lead(lead.id(), read_again::<M, B, F>(&call, &mut kept)).await
    {
        call.end_refresh();
        drop(lead.computed(Outcome::Computed { value: record, is_stored: true }));
        return Prepared::Output(output);
    }
    if recheck
        && matches!(reason, ComputeReason::Miss(_))
        && let Some(output) = call.serve_error_to_all(&mut lead)
    {
        return Prepared::Output(output);
    }
    let mut lease = None;
    if !matches!(reason, ComputeReason::Forced) && !call.engine.backend().is_in_process() {
        let acquired = acquire_lease::<M, B, F>(&call, &lead, &mut kept, &mut reason, deadline);
        match M::lead(lead.id(), acquired).await {
            ControlFlow::Break(output) => return Prepared::Output(output),
            ControlFlow::Continue(acquired) => lease = acquired,
        }
    }
    if let ComputeReason::Miss(_) = reason {
        call.count_miss();
    }
    let began = if lease.is_some() { call.engine.now() } else { started };
    let previous = kept.and_then(|kept| call.previous(kept));
    Prepared::Lead(Leading { lease, lead, reason, call, started, began, previous })
}

/// Returns a fresh output that was stored in the meantime, and its record for the callers that wait. Takes `kept` if the
/// entry has another record.
async fn read_again<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    kept: &mut Option<Kept>,
) -> Option<(F::Output, QuietDrop<Record<B::Stored>>)> {
    let record = read_current::<M, B, F>(call, kept).await?;
    Some((call.serve(record.clone())?, QuietDrop::from(record)))
}

/// Acquires the lease of the key, or waits until the process that holds it has stored a value, up to
/// the deadline of the call. A caller with a stale value returns that instead of waiting.
async fn acquire_lease<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    lead: &Lead<'_, Record<B::Stored>>,
    kept: &mut Option<Kept>,
    reason: &mut ComputeReason<F::Output>,
    deadline: &mut Deadline,
) -> ControlFlow<F::Output, Option<LeaseGuard>> {
    if call.engine.backend().sharing().leases.is_none() {
        return ControlFlow::Continue(None);
    }
    let mut pauses = call.engine.lease_pauses();
    while !call.has_timed_out() {
        let acquired = if lead.begin_lease() {
            call.ok_or_count(call.engine.try_acquire_lease::<M>(call.key).await)
        } else {
            Some(Lease::Held)
        };
        let mut watch = match acquired {
            Some(held @ (Lease::Held | Lease::Watched(_))) => {
                lead.end_lease();
                lead.allow_hedges(false);
                held.into_watch()
            }
            Some(Lease::Acquired(lease)) => {
                lead.allow_hedges(true);
                let Some(output) = read_stored::<M, B, F>(call, kept).await else {
                    return ControlFlow::Continue(Some(lease));
                };
                release_lease::<M, B, F>(call, Some(lease)).await;
                call.end_refresh();
                return ControlFlow::Break(output);
            }
            Some(Lease::NotRequired) | None => break,
        };
        if let ComputeReason::Expired(_) = reason
            && let ComputeReason::Expired(stale) = mem::replace(reason, ComputeReason::Miss(None))
        {
            return ControlFlow::Break(call.serve_stale(*stale));
        }
        // Also at the deadline: a read is cheaper than a computation.
        let pause = pauses.next(watch.is_some());
        let watch = slice::from_mut(&mut watch);
        let is_over = !call.engine.pause_for::<M>(pause, watch, deadline).await;
        if let Some(output) = read_stored::<M, B, F>(call, kept).await {
            call.end_refresh();
            return ControlFlow::Break(output);
        }
        if is_over {
            break;
        }
    }
    lead.end_lease();
    ControlFlow::Continue(None)
}

/// Returns a fresh output that another process has stored. Takes `kept` if the entry has another record.
async fn read_stored<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    kept: &mut Option<Kept>,
) -> Option<F::Output> {
    let record = read_current::<M, B, F>(call, kept).await?;
    call.serve(record)
}

/// Reads the record of the key. Takes `kept` if the entry has another one, or none.
async fn read_current<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    kept: &mut Option<Kept>,
) -> Option<Record<B::Stored>> {
    let record = read::<M, B, F>(call).await;
    if let Some(before) = kept.take() {
        *kept = call.keep_same(&before, record.as_ref());
    }
    record
}

/// Releases a lease before the call returns.
pub(super) async fn release_lease<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    lease: Option<LeaseGuard>,
) {
    // A lease that is dropped is released without waiting for long.
    if let Some(lease) = lease
        && !call.has_timed_out()
    {
        call.ok_or_count(cache::release_lease::<M>(lease).await);
    }
}

/// Returns the lead of the flight that is to be [completed](complete) after the function. A call
/// without one ends here. Only for a call that is part of a [flight](Prepared::flight).
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

/// [`complete`] for a backend in the memory of this process, which neither suspends nor has leases.
///
/// The record is cloned before it is stored, for callers that join in the meantime: the backend may not keep
/// it, and to encode it again would run code of users a second time.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn complete_now<B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: &mut Leading<'_, B, F>,
    output: F::Output,
) -> F::Output {
    let Leading { lead, reason, call, started, began, previous, .. } = leading;
    let ended = call.engine.now();
    let compute_time = ended.saturating_since(*began);
    let mut ttl_left = None;
    let renewed =
        previous.as_ref().and_then(|previous| call.renewed_record(&output, previous, ended));
    if let Some(record) = renewed.or_else(|| call.encode_record(&output, compute_time, ended)) {
        let mut outcome = Outcome::computed(record.clone());
        let permission = lead.begin_store();
        let may_store = call.can_store()
            && match permission {
                StorePermission::Granted => true,
                StorePermission::Refused => false,
                StorePermission::UnlessNewer => {
                    run_blocking(is_newest::<Blocking, B, F>(call, *started))
                }
            };
        if may_store {
            let fresh_until = record.fresh_until();
            if call.record_write(run_blocking(call.engine.write::<Blocking>(call.key, record))) {
                ttl_left = remaining_ttl::<B>(fresh_until, ended);
                outcome.set_stored(true);
            }
        } else {
            drop_quietly(record);
        }
        while lead.complete(&mut outcome) == Completion::MustDelete {
            ttl_left = None;
            outcome.set_stored(false);
            call.ok_or_count(run_blocking(call.engine.delete::<Blocking>(call.key)));
        }
    } else {
        call.complete_without_record(lead, &output, compute_time);
    }
    let times = CallTimes { ttl_left, ..CallTimes::computed(compute_time) };
    call.conclude(output, times, mem::replace(reason, ComputeReason::Miss(None)))
}

/// Returns whether no stored record is newer than a computation that started at `started`.
#[cold]
pub(super) async fn is_newest<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    started: Timestamp,
) -> bool {
    !read::<M, B, F>(call).await.is_some_and(|found| call.is_newer(found, started))
}

/// Does all that a leader does after the function: stores the value, completes the flight and
/// releases the lease. The caller runs it as part of the flight.
pub(super) async fn complete<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: Leading<'_, B, F>,
    output: F::Output,
) -> F::Output {
    let Leading { lease, lead, reason, call, started, began, previous } = leading;
    let ended = call.engine.now();
    let compute_time = ended.saturating_since(began);
    let mut ttl_left = None;
    let renewed =
        previous.as_ref().and_then(|previous| call.renewed_record(&output, previous, ended));
    let old_times = previous.filter(|_| renewed.is_some()).and_then(|previous| previous.times());
    if let Some(record) = renewed.or_else(|| call.encode_record(&output, compute_time, ended)) {
        let mut lead = lead.computed(Outcome::computed(record.clone()));
        let may_store = call.can_store()
            && match lead.begin_store() {
                StorePermission::Granted => true,
                StorePermission::Refused => false,
                StorePermission::UnlessNewer => is_newest::<M, B, F>(&call, started).await,
            };
        let fresh_until = record.fresh_until();
        let is_stored = if !may_store {
            drop_quietly(record);
            false
        } else if call.has_timed_out() {
            call.write_offline(record)
        } else {
            call.record_write(match old_times {
                None => call.engine.write::<M>(call.key, record).await,
                Some(old) => call.engine.write_times::<M>(call.key, old, record).await,
            })
        };
        if is_stored {
            ttl_left = remaining_ttl::<B>(fresh_until, ended);
            lead.set_stored(true);
        }
        while lead.complete() == Completion::MustDelete {
            ttl_left = None;
            lead.set_stored(false);
            call.ok_or_count(call.engine.delete::<M>(call.key).await);
        }
    } else {
        let mut lead = lead;
        call.complete_without_record(&mut lead, &output, compute_time);
    }
    release_lease::<M, B, F>(&call, lease).await;
    let times = CallTimes { ttl_left, ..CallTimes::computed(compute_time) };
    call.conclude(output, times, reason)
}
