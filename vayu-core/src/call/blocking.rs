//! The driver of sync calls. Its twin is [`future`](super::future).

use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, Lease, LeaseGuard};
use crate::cache::Cache;
use crate::call::lookup::{
    Inquired, Lookup, LookupReason, RestOf, begin, classify, lookup_with_stamp,
};
use crate::call::{
    CacheIf, Call, CallKey, Choice, ComputeReason, OutputShape, Policy, StaleValue, Ttl,
};
use crate::clock::Timestamp;
use crate::flight::{
    Deadline, Flight, FlightId, Join, Landing, Landings, Lead, Outcome, Permission, Turn, Waiting,
    inside,
};
use crate::generation::Group;
use crate::observer::CallOutcome;
use crate::panic::{QuietDrop, catch_panic, drop_quietly};
use crate::record::Record;
use crate::serializer::Serializer;
use crate::sync::block_on;

/// Answers a call from the cache, or runs `body` and remembers its answer.
#[inline]
pub(crate) fn run<R, B, S, K, H, Z, L, P, G>(
    cache: &Cache<B, S>,
    policy: &Policy<K, H, Z, L, P, G>,
    body: impl FnOnce() -> R,
) -> R
where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    G: AsRef<[Group]>,
{
    match begin(cache, policy) {
        Ok(answer) => answer,
        Err(rest) => finish(cache, policy, rest, body),
    }
}

/// What is to be done once all is done that precedes the body. The body runs on top of this, and of
/// no frame of what was done before it or is done after it: each level of a cached recursion has
/// this on the stack.
enum Ready<'a, R, B: Backend, S, H, Z, L, P> {
    /// Nothing: the call has its answer.
    Answer(R),
    /// To run the body without the cache.
    Run,
    /// To run the body for this caller alone, beside a flight that it must not wait for.
    Beside { call: Call<'a, B, S, H, Z, L, P>, flight: FlightId, began: Timestamp },
    /// To run the body for all that wait for a flight, while its leader does, too.
    Hedge {
        call: Call<'a, B, S, H, Z, L, P>,
        flight: Arc<Flight<Record<B::Stored>>>,
        hedges: u32,
        began: Timestamp,
    },
    /// To run the body for all who wait.
    Lead(Leading<'a, R, B, S, H, Z, L, P>),
}

/// What a leader knows while the body runs.
struct Leading<'a, R, B: Backend, S, H, Z, L, P> {
    /// Given back first.
    claimed: Option<LeaseGuard>,
    lead: Lead<'a, Record<B::Stored>>,
    reason: ComputeReason<R>,
    call: Call<'a, B, S, H, Z, L, P>,
    started: Timestamp,
    began: Timestamp,
}

/// The [`Ready`] of a policy that chooses its serializer by `Z`.
type ReadyOf<'a, R, B, S, H, Z, L, P> = Ready<'a, R, B, S, H, <Z as Choice<S>>::Serializer, L, P>;

/// What [`run`] does for a call that is not answered at once.
#[cold]
#[inline(never)]
fn finish<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    rest: RestOf<'a, R, B, S, H, Z, L, P>,
    body: impl FnOnce() -> R,
) -> R
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    G: AsRef<[Group]>,
{
    match prepare(cache, policy, rest) {
        Ready::Answer(answer) => answer,
        Ready::Run => body(),
        Ready::Beside { call, flight, began } => {
            let answer = inside(flight, body);
            end_beside(&call, began);
            answer
        }
        Ready::Hedge { call, flight, hedges, began } => {
            let answer = inside(flight.id(), body);
            call.record_hedge(&flight, hedges, began);
            end_hedge(call, &flight, began, answer)
        }
        Ready::Lead(leading) => {
            let answer = inside(leading.lead.id(), body);
            land(leading, answer)
        }
    }
}

/// Does all that precedes the body.
#[inline(never)]
fn prepare<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    rest: RestOf<'a, R, B, S, H, Z, L, P>,
) -> ReadyOf<'a, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    G: AsRef<[Group]>,
{
    let (call, why) = match lookup_waiting(cache, policy, rest) {
        Ok(answer) => return Ready::Answer(answer),
        Err(None) => return Ready::Run,
        Err(Some(left)) => left,
    };
    match why {
        LookupReason::Miss(before) => miss(call, before),
        LookupReason::Expired(old) => refresh(call, old),
        LookupReason::Forced => renew(call),
    }
}

/// Asks whoever must be asked.
fn lookup_waiting<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    mut rest: RestOf<'a, R, B, S, H, Z, L, P>,
) -> Inquired<'a, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    G: AsRef<[Group]>,
{
    loop {
        let answered = match rest {
            Lookup::Bypass => return Err(None),
            Lookup::Compute(call, why) => return Err(Some((call, why))),
            Lookup::ReadGenerations(key) => {
                match cache.make_stamp(key.prefix(), policy.tags.as_ref()) {
                    Ok(made) => {
                        lookup_with_stamp::<R, B, S, K, H, Z, L, P, G>(cache, policy, key, made)
                    }
                    Err(error) => {
                        let call = Call::that_cannot_store(cache, policy, key, &error);
                        return Err(Some((call, LookupReason::Miss(None))));
                    }
                }
            }
            Lookup::ReadBackend(call) => {
                let before = call.cache.flights().landings(call.key);
                let found = read(&call)
                    .map_or_else(|| call.nothing(), |record| call.decode_counted(record));
                classify(call, found, before)
            }
        };
        match answered {
            Ok(answer) => return Ok(answer),
            Err(next) => rest = next,
        }
    }
}

/// What the backend has.
fn read<B: Backend, S, H: Copy, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
) -> Option<Record<B::Stored>> {
    if !call.has_timed_out() {
        let found =
            call.ok_or_count(catch_panic("read entry", || call.cache.backend().read(call.key)));
        if !call.has_timed_out() {
            return found.flatten();
        }
    }
    call.read_offline()
}

fn miss<R, B, S, H, Z, L, P>(
    call: Call<'_, B, S, H, Z, L, P>,
    mut before: Option<Landings>,
) -> Ready<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    let flights = call.cache.flights();
    let mut deadline = Deadline::default();
    let (first, look_again) = loop {
        let (ticket, outdated) = match flights.join(call.key, call.stamp, before.take()) {
            Join::Lead { lead: first, look_again } => break (first, look_again),
            Join::Wait { ticket, outdated } => (ticket, outdated),
        };
        let Some(waiting) = Waiting::begin_asleep(ticket.flight().id()) else {
            return beside(call, ticket.flight().id());
        };
        let hedge_after = if outdated { Duration::MAX } else { call.cache.hedge_after(call.key) };
        let turn = block_on(ticket.turn(call.cache.begin(&mut deadline), hedge_after));
        drop(waiting);
        let next = match turn {
            Turn::Lead(next) => break (next, true),
            Turn::Hedge => {
                let (flight, began) = (Arc::clone(ticket.flight()), call.cache.now());
                call.count_miss();
                let hedges = flight.hedges.get();
                return Ready::Hedge { call, flight, hedges, began };
            }
            Turn::Late => flights.overtake(call.key, call.stamp, ticket.flight()),
            Turn::Again | Turn::Landed(Outcome::Abandoned) => continue,
            Turn::Landed(_) if outdated => continue,
            Turn::Landed(Outcome::Computed(record)) => {
                match record.get().and_then(|record| call.decode_shared(record)) {
                    Some(answer) => return Ready::Answer(answer),
                    None => flights.lead_if_vacant(call.key, call.stamp),
                }
            }
            Turn::Landed(Outcome::Unshared) => flights.lead_if_vacant(call.key, call.stamp),
        };
        match next {
            Some(next) => break (next, false),
            None => return beside(call, ticket.flight().id()),
        }
    };
    set_out(call, first, look_again, ComputeReason::Miss, &mut deadline)
}

/// Runs the body to replace an old value, or serves that if another caller does so or the last
/// attempt has failed just now.
#[cold]
#[inline(never)]
fn refresh<R, B, S, H, Z, L, P>(
    call: Call<'_, B, S, H, Z, L, P>,
    old: Box<StaleValue<R>>,
) -> Ready<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    if call.begins_refresh()
        && let Some(first) = call.cache.flights().lead_if_vacant(call.key, call.stamp)
    {
        return set_out(call, first, true, ComputeReason::Expired(old), &mut Deadline::default());
    }
    Ready::Answer(call.serve_stale(*old))
}

/// Runs the body because the caller asked for it, in the place of what is being computed.
#[cold]
#[inline(never)]
fn renew<R, B, S, H, Z, L, P>(call: Call<'_, B, S, H, Z, L, P>) -> Ready<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    let mut deadline = Deadline::default();
    let first = loop {
        match call.cache.flights().supersede(call.key, call.stamp) {
            Ok(first) => break first,
            Err(flight) if call.cache.wait_for(&flight, &mut deadline) => {}
            Err(flight) => return beside(call, flight.id()),
        }
    };
    set_out(call, first, false, ComputeReason::Forced, &mut deadline)
}

/// All that a leader does before the body, which does not run if it was just stored by another.
fn set_out<'a, R, B, S, H, Z, L, P>(
    call: Call<'a, B, S, H, Z, L, P>,
    lead: Lead<'a, Record<B::Stored>>,
    look_again: bool,
    mut reason: ComputeReason<R>,
    deadline: &mut Deadline,
) -> Ready<'a, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    let started = call.cache.now();
    if look_again
        && let Some((answer, found)) = inside(lead.id(), || {
            let found = read(&call)?;
            Some((call.serve(found.clone())?, QuietDrop::from(found)))
        })
    {
        call.ends_refresh();
        drop(lead.computed(Outcome::Computed(found)));
        return Ready::Answer(answer);
    }
    let mut claimed = None;
    if !matches!(reason, ComputeReason::Forced) && !call.cache.backend().is_in_process() {
        match inside(lead.id(), || claim(&call, &lead, &mut reason, deadline)) {
            ControlFlow::Break(answer) => return Ready::Answer(answer),
            ControlFlow::Continue(granted) => claimed = granted,
        }
    }
    if let ComputeReason::Miss = reason {
        call.count_miss();
    }
    let began = if claimed.is_some() { call.cache.now() } else { started };
    Ready::Lead(Leading { claimed, lead, reason, call, started, began })
}

/// All that a leader does after the body.
#[inline(never)]
fn land<R, B, S, H, Z, L, P>(leading: Leading<'_, R, B, S, H, Z, L, P>, answer: R) -> R
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
{
    let Leading { claimed, lead, reason, call, started, began } = leading;
    inside(lead.id(), move || {
        let ended = call.cache.now();
        let compute_time = ended.saturating_since(began);
        let mut lead = if let Some(record) = call.encode_record(&answer, compute_time, ended) {
            let lead = lead.computed(Outcome::Computed(record.clone().into()));
            let may_store = call.can_store()
                && match lead.begin_store() {
                    Permission::Granted => true,
                    Permission::Refused => false,
                    Permission::UnlessNewer => {
                        !read(&call).is_some_and(|found| call.is_newer(found, started))
                    }
                };
            if may_store && call.has_timed_out() {
                call.write_offline(record);
            } else if may_store {
                let result =
                    catch_panic("write entry", || call.cache.backend().write(call.key, record));
                call.record_write(result);
            } else {
                drop_quietly(record);
            }
            lead
        } else {
            lead.computed(Outcome::Unshared)
        };
        while lead.land() == Landing::MustDelete {
            call.ok_or_count(catch_panic("delete entry", || call.cache.backend().delete(call.key)));
        }
        give_back(&call, claimed);
        call.conclude(answer, compute_time, reason)
    })
}

/// Asks the other processes for the right to compute, or waits for a value that anybody stores, until
/// the deadline of the call. Where there is an old value, nothing is waited for; a caller that was
/// asked to compute asks nobody.
fn claim<R, B, S, H, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    lead: &Lead<'_, Record<B::Stored>>,
    reason: &mut ComputeReason<R>,
    deadline: &mut Deadline,
) -> ControlFlow<R, Option<LeaseGuard>>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    for pause in Cache::<B, S>::pauses() {
        if call.has_timed_out() {
            break;
        }
        match call.ok_or_count(call.cache.try_acquire_lease(call.key)) {
            Some(Lease::Held) => lead.allow_hedges(false),
            Some(Lease::Acquired(lease)) => {
                lead.allow_hedges(true);
                return match read(call).and_then(|found| call.serve(found)) {
                    Some(answer) => {
                        give_back(call, Some(lease));
                        call.ends_refresh();
                        ControlFlow::Break(answer)
                    }
                    None => ControlFlow::Continue(Some(lease)),
                };
            }
            Some(Lease::NotRequired) | None => break,
        }
        if let ComputeReason::Expired(_) = reason
            && let ComputeReason::Expired(old) = mem::replace(reason, ComputeReason::Miss)
        {
            return ControlFlow::Break(call.serve_stale(*old));
        }
        // Also at the deadline: to look takes less than to compute.
        let is_over = !block_on(call.cache.pause_for(pause, deadline));
        if let Some(answer) = read(call).and_then(|found| call.serve(found)) {
            call.ends_refresh();
            return ControlFlow::Break(answer);
        }
        if is_over {
            break;
        }
    }
    ControlFlow::Continue(None)
}

/// Gives a lease back before the call returns.
fn give_back<B: Backend, S, H: Copy, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    lease: Option<LeaseGuard>,
) {
    // One that is dropped is given back without waiting for long.
    if let Some(lease) = lease
        && !call.has_timed_out()
    {
        call.ok_or_count(catch_panic("release lease", || lease.release()));
    }
}

/// To run the body for this caller alone, beside a flight that it must not wait for.
fn beside<R, B: Backend, S, H: Copy, Z, L, P>(
    call: Call<'_, B, S, H, Z, L, P>,
    flight: FlightId,
) -> Ready<'_, R, B, S, H, Z, L, P> {
    call.count_miss();
    let began = call.cache.now();
    Ready::Beside { call, flight, began }
}

/// Completes a flight that was hedged with the value of the hedge, and stores that, unless the leader
/// was faster.
#[inline(never)]
fn end_hedge<R, B, S, H, Z, L, P>(
    call: Call<'_, B, S, H, Z, L, P>,
    flight: &Arc<Flight<Record<B::Stored>>>,
    began: Timestamp,
    answer: R,
) -> R
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
{
    let lead = call
        .has_value(&answer)
        .then(|| call.cache.flights().overtake(call.key, call.stamp, flight));
    let Some(lead) = lead.flatten() else {
        end_beside(&call, began);
        return answer;
    };
    let reason = ComputeReason::Miss;
    land(Leading { claimed: None, lead, reason, call, started: began, began }, answer)
}

/// What is left after a body that ran beside a flight.
#[inline(never)]
fn end_beside<B: Backend, S, H: Copy, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    began: Timestamp,
) {
    call.emit(CallOutcome::Miss, None, call.cache.now().saturating_since(began));
}
