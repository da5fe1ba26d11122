//! The driver of async calls that leave a refresh to a task.

use std::future::Future;
use std::pin::pin;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::begin::{Why, begin};
use crate::call::future::{inquire, lead, miss, renew};
use crate::call::{Call, CallKey, Choice, Keep, Policy, Reason, Shape, Ttl, key_in};
use crate::flight::Deadline;
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
    let rest = match begin(cache, &policy) {
        Ok(answer) => return (answer, None),
        Err(rest) => rest,
    };
    let (answer, function, stamp) = match inquire(cache, &policy, rest).await {
        Ok(answer) => return (answer, None),
        Err(None) => return (body.await, None),
        Err(Some((call, why))) => match why {
            Why::Missing(before) => return (miss(&call, before, pin!(body)).await, None),
            Why::Asked => return (renew(&call, pin!(body)).await, None),
            Why::Outdated(old) if !call.begins_refresh() => return (call.serve_stale(*old), None),
            Why::Outdated(old) => (call.serve_stale(*old), call.key.prefix().clone(), call.stamp),
        },
    };
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
        let mut deadline = Deadline::default();
        discard(lead(&call, first, true, Reason::Behind, &mut deadline, pin!(body)).await);
    }
}
