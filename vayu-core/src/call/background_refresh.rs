//! The driver of async calls that leave a refresh to a task.

use std::future::Future;
use std::pin::Pin;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::future::{boxed, lead, lookup_waiting, miss, renew};
use crate::call::lookup::{LookupReason, RestOf};
use crate::call::{
    CacheIf, Call, CallKey, Choice, ComputeReason, OutputShape, Policy, Ttl, key_in,
};
use crate::flight::Deadline;
use crate::generation::Group;
use crate::key::Prefix;
use crate::panic::drop_quietly;
use crate::serializer::Serializer;

/// A refresh that a call leaves to a task.
#[derive(Debug)]
pub struct Refresh<F> {
    pub(crate) function: Prefix,
    stamp: u64,
    body: Pin<Box<F>>,
}

/// Finishes a call as [`future::finish`](super::future::finish) does, but leaves the refresh of a
/// value past its ttl: that value is returned, and with it what refreshes it.
///
/// Not an async function: see [`lead`].
#[expect(clippy::manual_async_fn, reason = "its future would have room for its arguments twice")]
pub(crate) fn finish<'a, R, B, S, K, H, Z, L, P, G, F>(
    cache: &'a Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
    rest: RestOf<'a, R, B, S, H, Z, L, P>,
    mut body: Pin<Box<F>>,
) -> impl Future<Output = (R, Option<Refresh<F>>)>
where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    G: AsRef<[Group]>,
    F: Future<Output = R>,
{
    async move {
        let (call, why) = match lookup_waiting(cache, policy, rest).await {
            Ok(answer) => return (answer, None),
            Err(None) => return (body.await, None),
            Err(Some(left)) => left,
        };
        match why {
            LookupReason::Miss(before) => {
                (boxed(|| miss(&call, before, body.as_mut())).await, None)
            }
            LookupReason::Forced => (boxed(|| renew(&call, body.as_mut())).await, None),
            LookupReason::Expired(old) if !call.begins_refresh() => (call.serve_stale(*old), None),
            LookupReason::Expired(old) => {
                let (function, stamp) = (call.key.prefix().clone(), call.stamp);
                (call.serve_stale(*old), Some(Refresh { function, stamp, body }))
            }
        }
    }
}

/// Awaits the body, unless another caller does so by now.
pub(crate) async fn refresh<R, B, S, K, H, Z, L, P, G, F>(
    cache: Cache<B, S>,
    policy: Policy<K, H, Z, L, P, G>,
    mut refresh: Refresh<F>,
) where
    B: Backend,
    K: CallKey,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: CacheIf<H::Value>,
    F: Future<Output = R>,
{
    let Some(key) = key_in(&cache, &policy) else { return };
    let call = Call::new(&cache, &policy, key, refresh.stamp);
    if let Some(first) = cache.flights().lead_if_vacant(key, refresh.stamp) {
        let (mut deadline, body) = (Deadline::default(), refresh.body.as_mut());
        drop_quietly(
            lead(&call, first, true, ComputeReason::Background, &mut deadline, body).await,
        );
    }
}
