//! The driver of async calls that leave a refresh to a task.

use std::future::Future;
use std::pin::pin;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::future::{find, lead, miss, renew};
use crate::call::{Call, CallKey, Choice, Found, Keep, Policy, Reason, Shape, Ttl, key_in};
use crate::group::Group;
use crate::guard::discard;
use crate::key::Prefix;
use crate::serializer::Serializer;

/// Answers a call as [`future::run`](super::future::run) does, but leaves the refresh of a value
/// past its ttl: that value is the answer, and with it comes what refreshes it.
pub(crate) async fn run<R, B, S, K, H, Z, L, P, G, F>(
    cache: &Cache<B, S>,
    policy: Policy<K, H, Z, L, P, G>,
    body: F,
) -> (R, Option<(Prefix, impl Future<Output = ()> + use<R, B, S, K, H, Z, L, P, G, F>)>)
where
    B: Backend,
    S: Clone,
    K: CallKey,
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: Keep<H::Value>,
    G: AsRef<[Group]>,
    F: Future<Output = R>,
{
    let Some(key) = key_in(cache, &policy) else { return (body.await, None) };
    let stamp = match cache.stamp_async(key.prefix(), policy.tags.as_ref()).await {
        Ok(stamp) => stamp,
        Err(error) => {
            let call = Call::that_cannot_store(cache, &policy, key, &error);
            return (miss(&call, None, pin!(body)).await, None);
        }
    };
    let answer = {
        let call = Call::new(cache, &policy, key, stamp);
        if call.is_asked_to_refresh() {
            return (renew(&call, pin!(body)).await, None);
        }
        match find(&call).await {
            (Found::Fresh(answer), _) => return (answer, None),
            (Found::Nothing, before) => return (miss(&call, before, pin!(body)).await, None),
            (Found::Stale(old), _) if call.begins_refresh() => call.serve_stale(old),
            (Found::Stale(old), _) => return (call.serve_stale(old), None),
        }
    };
    let function = key.prefix().clone();
    (answer, Some((function, refresh(cache.clone(), policy, stamp, body))))
}

/// Awaits the body, unless somebody else does so by now.
async fn refresh<R, B, S, K, H, Z, L, P, G, F>(
    cache: Cache<B, S>,
    policy: Policy<K, H, Z, L, P, G>,
    stamp: u64,
    body: F,
) where
    B: Backend,
    K: CallKey,
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    P: Keep<H::Value>,
    F: Future<Output = R>,
{
    let Some(key) = key_in(&cache, &policy) else { return };
    let call = Call::new(&cache, &policy, key, stamp);
    if let Some(first) = cache.flights().lead_if_vacant(key, stamp) {
        discard(lead(&call, first, true, Reason::Behind, pin!(body)).await);
    }
}
