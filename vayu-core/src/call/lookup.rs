//! The beginning of a call, the same for sync and async callers: all that needs no waiting. Most
//! calls end here.

use crate::backend::Backend;
use crate::cache::{Cache, Made};
use crate::call::{
    Blocking, Call, CallKey, CallOf, Choice, Decoded, OutputShape, Policy, StaleValue, Ttl, key_in,
};
use crate::flight::Landings;
use crate::generation::Group;
use crate::key::Key;
use crate::serializer::{Serializer, ValueClass};

/// What is left to do of a call that could not be answered at once.
#[derive(Debug)]
pub enum Lookup<'a, R, C> {
    /// To run the function without the cache.
    Bypass,
    /// To ask for the generations of its groups.
    ReadGenerations(&'a Key),
    /// To ask the backend.
    ReadBackend(C),
    /// To run the function for the cache, or to wait for somebody who does.
    Compute(C, LookupReason<R>),
}

/// The rest of a call of a policy that chooses its serializer by `Z`.
pub(crate) type RestOf<'a, R, B, S, H, Z, L, P> = Lookup<'a, R, CallOf<'a, B, S, H, Z, L, P>>;

/// The answer of a call, or the rest of it.
pub(crate) type Begun<'a, R, B, S, H, Z, L, P> = Result<R, RestOf<'a, R, B, S, H, Z, L, P>>;

/// The answer of a call, or the call to run the function for. There is none if the function is to
/// run without the cache.
pub(crate) type Inquired<'a, R, B, S, H, Z, L, P> =
    Result<R, Option<(CallOf<'a, B, S, H, Z, L, P>, LookupReason<R>)>>;

/// Why a call cannot be answered with what there is.
#[derive(Debug)]
pub enum LookupReason<R> {
    /// There is nothing. The landings are those before the backend was asked, if it was.
    Miss(Option<Landings>),
    /// There is a value past its ttl.
    Expired(Box<StaleValue<R>>),
    /// The caller wants a new value.
    Forced,
}

/// Answers a call if that can be done at once.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn begin<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
) -> Begun<'a, R, B, S, H, Z, L, P>
where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    G: AsRef<[Group]>,
{
    let Some(key) = key_in(cache, policy) else { return Err(Lookup::Bypass) };
    match cache.known_stamp(key.prefix(), policy.tags.as_ref()) {
        Some(stamp) => lookup::<R, B, S, H, Z, L, P>(Call::new(cache, policy, key, stamp)),
        None => Err(Lookup::ReadGenerations(key)),
    }
}

/// Answers a call whose stamp is known if that can be done at once.
#[cfg_attr(not(debug_assertions), inline(always))]
fn lookup<R, B, S, H, Z, L, P>(call: CallOf<'_, B, S, H, Z, L, P>) -> Begun<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    if call.is_asked_to_refresh() {
        return Err(Lookup::Compute(call, LookupReason::Forced));
    }
    if call.value_class::<H::Value>() == ValueClass::Inline {
        return call
            .serve_optimistic()
            .map_or_else(|| lookup_full_cold::<R, B, S, H, Z, L, P>(call), Ok);
    }
    lookup_full::<R, B, S, H, Z, L, P>(call)
}

/// Answers a call whose stamp was made just now, as [`lookup`] does.
pub(super) fn lookup_with_stamp<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    key: &'a Key,
    made: Made,
) -> Begun<'a, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    let call = Call::new(cache, policy, key, made.stamp);
    if made.has_timed_out {
        call.times_out();
    }
    call.declare::<H::Value>();
    lookup::<R, B, S, H, Z, L, P>(call)
}

/// Answers a call with what the backend has at once.
#[cfg_attr(not(debug_assertions), inline(always))]
fn lookup_full<R, B, S, H, Z, L, P>(
    call: CallOf<'_, B, S, H, Z, L, P>,
) -> Begun<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    let before = call.cache.flights().landings(call.key);
    match call.serve_now() {
        Ok(found) => classify(call, found, before),
        Err(Blocking) => Err(Lookup::ReadBackend(call)),
    }
}

/// [`lookup_full`], out of line for calls that most often end with an optimistic read.
#[inline(never)]
fn lookup_full_cold<R, B, S, H, Z, L, P>(
    call: CallOf<'_, B, S, H, Z, L, P>,
) -> Begun<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    lookup_full::<R, B, S, H, Z, L, P>(call)
}

/// What was found is the answer, or the reason why there is more to do.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn classify<R, C>(
    call: C,
    found: Decoded<R>,
    before: Landings,
) -> Result<R, Lookup<'static, R, C>> {
    match found {
        Decoded::Fresh(answer) => Ok(answer),
        Decoded::Stale(old) => Err(Lookup::Compute(call, LookupReason::Expired(old))),
        Decoded::Nothing => Err(Lookup::Compute(call, LookupReason::Miss(Some(before)))),
        Decoded::Refused => Err(Lookup::Bypass),
    }
}
