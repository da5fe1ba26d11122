//! The driver of async calls. Its twin is [`blocking`](super::blocking).

use std::future::Future;
use std::mem;
use std::ops::ControlFlow;
use std::pin::Pin;
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
    Deadline, Flight, FlightId, Hosted, Join, Landing, Landings, Lead, Outcome, Permission, Turn,
    Waiting,
};
use crate::generation::Group;
use crate::observer::CallOutcome;
use crate::panic::{QuietDrop, catch_panic_async, drop_quietly};
use crate::record::Record;
use crate::serializer::Serializer;

/// Answers a call from the cache, or awaits `body` and remembers its answer.
pub(crate) async fn run<R, B, S, K, H, Z, L, P, G>(
    cache: &Cache<B, S>,
    policy: &Policy<K, H, Z, L, P, G>,
    body: Pin<&mut impl Future<Output = R>>,
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
        Err(rest) => finish(cache, policy, rest, body).await,
    }
}

/// What [`run`] does for a call that is not answered at once.
pub(crate) async fn finish<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    rest: RestOf<'a, R, B, S, H, Z, L, P>,
    body: Pin<&mut impl Future<Output = R>>,
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
    let (call, why) = match lookup_waiting(cache, policy, rest).await {
        Ok(answer) => return answer,
        Err(None) => return body.await,
        Err(Some(left)) => left,
    };
    match why {
        LookupReason::Miss(before) => boxed(|| miss(&call, before, body)).await,
        LookupReason::Expired(old) => boxed(|| refresh(&call, old, body)).await,
        LookupReason::Forced => boxed(|| renew(&call, body)).await,
    }
}

/// The future of a call that computes or waits, away from that of its function: what a function
/// awaits has a place in its future, and each level would have one for all this. It has a frame of
/// its own, so that the future is never on the stack of the body.
#[inline(never)]
pub(super) fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

/// Asks whoever must be asked.
pub(super) async fn lookup_waiting<'a, R, B, S, K, H, Z, L, P, G>(
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
                match cache.make_stamp_async(key.prefix(), policy.tags.as_ref()).await {
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
                    .await
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
async fn read<B: Backend, S, H: Copy, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
) -> Option<Record<B::Stored>> {
    if !call.has_timed_out() {
        let found = call.ok_or_count(call.cache.read_async(call.key).await);
        if !call.has_timed_out() {
            return found.flatten();
        }
    }
    call.read_offline()
}

pub(super) async fn miss<R, B, S, H, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    mut before: Option<Landings>,
    body: Pin<&mut impl Future<Output = R>>,
) -> R
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
{
    let flights = call.cache.flights();
    let mut deadline = Deadline::default();
    let (first, look_again) = {
        loop {
            let (ticket, outdated) = match flights.join(call.key, call.stamp, before.take()) {
                Join::Lead { lead: first, look_again } => break (first, look_again),
                Join::Wait { ticket, outdated } => (ticket, outdated),
            };
            let Some(waiting) = Waiting::begin(ticket.flight().id()) else {
                return beside(call, ticket.flight().id(), body).await;
            };
            let hedge_after =
                if outdated { Duration::MAX } else { call.cache.hedge_after(call.key) };
            let turn = ticket.turn(call.cache.begin(&mut deadline), hedge_after).await;
            drop(waiting);
            let next = match turn {
                Turn::Lead(next) => break (next, true),
                Turn::Hedge => {
                    let flight = Arc::clone(ticket.flight());
                    drop(ticket);
                    return hedge(call, &flight, body).await;
                }
                Turn::Late => flights.overtake(call.key, call.stamp, ticket.flight()),
                Turn::Again | Turn::Landed(Outcome::Abandoned) => continue,
                Turn::Landed(_) if outdated => continue,
                Turn::Landed(Outcome::Computed(record)) => {
                    match record.get().and_then(|record| call.decode_shared(record)) {
                        Some(answer) => return answer,
                        None => flights.lead_if_vacant(call.key, call.stamp),
                    }
                }
                Turn::Landed(Outcome::Unshared) => flights.lead_if_vacant(call.key, call.stamp),
            };
            match next {
                Some(next) => break (next, false),
                None => return beside(call, ticket.flight().id(), body).await,
            }
        }
    };
    lead(call, first, look_again, ComputeReason::Miss, &mut deadline, body).await
}

/// Awaits the body to replace an old value, or serves that if another caller does so or the last
/// attempt has failed just now.
async fn refresh<R, B, S, H, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    old: Box<StaleValue<R>>,
    body: Pin<&mut impl Future<Output = R>>,
) -> R
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
{
    if call.begins_refresh()
        && let Some(first) = call.cache.flights().lead_if_vacant(call.key, call.stamp)
    {
        return lead(
            call,
            first,
            true,
            ComputeReason::Expired(old),
            &mut Deadline::default(),
            body,
        )
        .await;
    }
    call.serve_stale(*old)
}

/// Awaits the body because the caller asked for it, in the place of what is being computed.
pub(super) async fn renew<R, B, S, H, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    body: Pin<&mut impl Future<Output = R>>,
) -> R
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
{
    let mut deadline = Deadline::default();
    let first = loop {
        match call.cache.flights().supersede(call.key, call.stamp) {
            Ok(first) => break first,
            Err(flight) if call.cache.wait_for_async(&flight, &mut deadline).await => {}
            Err(flight) => return beside(call, flight.id(), body).await,
        }
    };
    lead(call, first, false, ComputeReason::Forced, &mut deadline, body).await
}

/// Awaits the body for all who wait, unless it was just stored by another.
///
/// No async function: the future of one has room for its arguments, and once more for what they become.
pub(super) fn lead<R, B, S, H, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    lead: Lead<'_, Record<B::Stored>>,
    look_again: bool,
    mut reason: ComputeReason<R>,
    deadline: &mut Deadline,
    body: Pin<&mut impl Future<Output = R>>,
) -> impl Future<Output = R>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
{
    let started = call.cache.now();
    Hosted::new(lead.id(), async move {
        if look_again && let Some(found) = read(call).await.map(QuietDrop::from) {
            let answer = found.get().and_then(|found| call.serve(found.clone()));
            if let Some(answer) = answer {
                call.ends_refresh();
                drop(lead.computed(Outcome::Computed(found)));
                return answer;
            }
        }
        let claimed = match claim(call, &lead, &mut reason, deadline).await {
            ControlFlow::Break(answer) => return answer,
            ControlFlow::Continue(claimed) => claimed,
        };
        if let ComputeReason::Miss = reason {
            call.count_miss();
        }
        let began = if claimed.is_some() { call.cache.now() } else { started };
        let answer = body.await;
        land(call, lead, claimed, reason, started, began, answer).await
    })
}

/// Does all that a leader does after the body.
async fn land<R, B, S, H, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    lead: Lead<'_, Record<B::Stored>>,
    claimed: Option<LeaseGuard>,
    reason: ComputeReason<R>,
    started: Timestamp,
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
    let ended = call.cache.now();
    let compute_time = ended.saturating_since(began);
    let mut lead = if let Some(record) = call.encode_record(&answer, compute_time, ended) {
        let lead = lead.computed(Outcome::Computed(record.clone().into()));
        let may_store = call.can_store()
            && match lead.begin_store() {
                Permission::Granted => true,
                Permission::Refused => false,
                Permission::UnlessNewer => {
                    !read(call).await.is_some_and(|found| call.is_newer(found, started))
                }
            };
        if may_store && call.has_timed_out() {
            call.write_offline(record);
        } else if may_store {
            call.record_write(call.cache.write_async(call.key, record).await);
        } else {
            drop_quietly(record);
        }
        lead
    } else {
        lead.computed(Outcome::Unshared)
    };
    while lead.land() == Landing::MustDelete {
        call.ok_or_count(call.cache.delete_async(call.key).await);
    }
    give_back(call, claimed).await;
    call.conclude(answer, compute_time, reason)
}

/// Asks the other processes for the right to compute, or waits for a value that anybody stores, until
/// the deadline of the call. Where there is an old value, nothing is waited for; a caller that was
/// asked to compute asks nobody.
async fn claim<R, B, S, H, Z, L, P>(
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
    if matches!(reason, ComputeReason::Forced) || call.cache.backend().is_in_process() {
        return ControlFlow::Continue(None);
    }
    for pause in Cache::<B, S>::pauses() {
        if call.has_timed_out() {
            break;
        }
        match call.ok_or_count(call.cache.try_acquire_lease_async(call.key).await) {
            Some(Lease::Held) => lead.allow_hedges(false),
            Some(Lease::Acquired(lease)) => {
                lead.allow_hedges(true);
                return match read(call).await.and_then(|found| call.serve(found)) {
                    Some(answer) => {
                        give_back(call, Some(lease)).await;
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
        let is_over = !call.cache.pause_for(pause, deadline).await;
        if let Some(answer) = read(call).await.and_then(|found| call.serve(found)) {
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
async fn give_back<B: Backend, S, H: Copy, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    lease: Option<LeaseGuard>,
) {
    // One that is dropped is given back without waiting for long.
    if let Some(lease) = lease
        && !call.has_timed_out()
    {
        call.ok_or_count(
            catch_panic_async("release lease", || Box::pin(lease.release_async())).await,
        );
    }
}

/// Awaits the body for all that wait for a flight, while its leader does, too. Completes the flight with
/// the value and stores that, unless the leader was faster.
async fn hedge<R, B, S, H, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    flight: &Arc<Flight<Record<B::Stored>>>,
    body: Pin<&mut impl Future<Output = R>>,
) -> R
where
    B: Backend,
    H: OutputShape<R>,
    Z: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
{
    call.count_miss();
    let began = call.cache.now();
    let hedges = flight.hedges.get();
    let answer = Hosted::new(flight.id(), body).await;
    call.record_hedge(flight, hedges, began);
    let lead = call
        .has_value(&answer)
        .then(|| call.cache.flights().overtake(call.key, call.stamp, flight));
    let Some(lead) = lead.flatten() else {
        call.emit(CallOutcome::Miss, None, call.cache.now().saturating_since(began));
        return answer;
    };
    let id = lead.id();
    Hosted::new(id, land(call, lead, None, ComputeReason::Miss, began, began, answer)).await
}

/// Awaits the body for this caller alone, beside a flight that it must not wait for.
async fn beside<R, B: Backend, S, H: Copy, Z, L, P>(
    call: &Call<'_, B, S, H, Z, L, P>,
    flight: FlightId,
    body: Pin<&mut impl Future<Output = R>>,
) -> R {
    call.count_miss();
    let began = call.cache.now();
    let answer = Hosted::new(flight, body).await;
    call.emit(CallOutcome::Miss, None, call.cache.now().saturating_since(began));
    answer
}
