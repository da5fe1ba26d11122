//! The beginning of a call, the same for sync and async callers: all that needs no waiting. Most
//! calls end here.

use crate::backend::Backend;
use crate::cache::{Cache, Made};
use crate::call::{
    Blocking, Call, CallKey, CallOf, Choice, Found, Old, Policy, Shape, Ttl, key_in,
};
use crate::flight::Landings;
use crate::generation::Group;
use crate::key::Key;
use crate::serializer::Serializer;

/// What is left to do of a call that could not be answered at once.
#[derive(Debug)]
pub enum Rest<'a, R, C> {
    /// To run the function without the cache.
    Run,
    /// To ask for the generations of its groups.
    Ask(&'a Key),
    /// To ask the backend.
    Read(C),
    /// To run the function for the cache, or to wait for somebody who does.
    Compute(C, Why<R>),
}

/// The rest of a call of a policy that chooses its serializer by `Z`.
pub(crate) type RestOf<'a, R, B, S, H, Z, L, P> = Rest<'a, R, CallOf<'a, B, S, H, Z, L, P>>;

/// The answer of a call, or the rest of it.
pub(crate) type Begun<'a, R, B, S, H, Z, L, P> = Result<R, RestOf<'a, R, B, S, H, Z, L, P>>;

/// The answer of a call, or the call to run the function for. There is none if the function is to
/// run without the cache.
pub(crate) type Inquired<'a, R, B, S, H, Z, L, P> =
    Result<R, Option<(CallOf<'a, B, S, H, Z, L, P>, Why<R>)>>;

/// Why a call cannot be answered with what there is.
#[derive(Debug)]
pub enum Why<R> {
    /// There is nothing. The landings are those before the backend was asked, if it was.
    Missing(Option<Landings>),
    /// There is a value past its ttl.
    Outdated(Box<Old<R>>),
    /// The caller wants a new value.
    Asked,
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
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    G: AsRef<[Group]>,
{
    let Some(key) = key_in(cache, policy) else { return Err(Rest::Run) };
    match cache.known_stamp(key.prefix(), policy.tags.as_ref()) {
        Some(stamp) => look::<R, B, S, H, Z, L, P>(Call::new(cache, policy, key, stamp)),
        None => Err(Rest::Ask(key)),
    }
}

/// Answers a call whose stamp is known if that can be done at once.
#[cfg_attr(not(debug_assertions), inline(always))]
fn look<R, B, S, H, Z, L, P>(call: CallOf<'_, B, S, H, Z, L, P>) -> Begun<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    if call.is_asked_to_refresh() {
        return Err(Rest::Compute(call, Why::Asked));
    }
    if call.can_glance::<H::Value>() {
        return call.glance().map_or_else(|| look_closer_apart::<R, B, S, H, Z, L, P>(call), Ok);
    }
    look_closer::<R, B, S, H, Z, L, P>(call)
}

/// Answers a call whose stamp was made just now, as [`look`] does.
pub(super) fn look_after<'a, R, B, S, K, H, Z, L, P, G>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    key: &'a Key,
    made: Made,
) -> Begun<'a, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    let call = Call::new(cache, policy, key, made.stamp);
    if made.has_timed_out {
        call.times_out();
    }
    call.declare::<H::Value>();
    look::<R, B, S, H, Z, L, P>(call)
}

/// Answers a call with what the backend has at once.
#[cfg_attr(not(debug_assertions), inline(always))]
fn look_closer<R, B, S, H, Z, L, P>(
    call: CallOf<'_, B, S, H, Z, L, P>,
) -> Begun<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    let before = call.cache.flights().landings(call.key);
    match call.serve_now() {
        Ok(found) => judge(call, found, before),
        Err(Blocking) => Err(Rest::Read(call)),
    }
}

/// [`look_closer`] for calls that most often end with a glance, and out of their way.
#[inline(never)]
fn look_closer_apart<R, B, S, H, Z, L, P>(
    call: CallOf<'_, B, S, H, Z, L, P>,
) -> Begun<'_, R, B, S, H, Z, L, P>
where
    B: Backend,
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    look_closer::<R, B, S, H, Z, L, P>(call)
}

/// What was found is the answer, or the reason why there is more to do.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn judge<R, C>(
    call: C,
    found: Found<R>,
    before: Landings,
) -> Result<R, Rest<'static, R, C>> {
    match found {
        Found::Fresh(answer) => Ok(answer),
        Found::Stale(old) => Err(Rest::Compute(call, Why::Outdated(old))),
        Found::Nothing => Err(Rest::Compute(call, Why::Missing(Some(before)))),
        Found::Refused => Err(Rest::Run),
    }
}
