//! The headers for HTTP caches, by the cached calls of a request.

use std::time::Duration;

use axum::http::header::{AGE, CACHE_CONTROL};
use axum::http::{HeaderName, HeaderValue};
use vayu::WatchedCall;
use vayu::telemetry::CallOutcome;

/// Returns `X-Cache`, `Age` and `Cache-Control` for a response that was made of these calls: none if there are none.
///
/// The response is as old as the oldest value, and fresh for as long as all values are. `max-age` counts from the
/// time at which the value was computed (RFC 9111), so it is the sum of both.
pub(crate) fn cache_headers(calls: &[WatchedCall]) -> Vec<(HeaderName, HeaderValue)> {
    if calls.is_empty() {
        return Vec::new();
    }
    let is = |outcome| move |call: &WatchedCall| call.outcome == outcome;
    let source = if calls.iter().any(is(CallOutcome::Stale)) {
        "STALE"
    } else if calls.iter().all(is(CallOutcome::Hit)) {
        "HIT"
    } else {
        "MISS"
    };
    let age = calls.iter().filter_map(|call| call.age).max().unwrap_or_default().as_secs();
    // `None`, less than any time, is that of an output that is not cached.
    let ttl_left = calls.iter().map(|call| call.ttl_left).min().flatten();
    let control = match ttl_left.unwrap_or(Duration::ZERO).as_secs() {
        0 => HeaderValue::from_static("no-cache"),
        left => header(&format!("private, max-age={}", age.saturating_add(left))),
    };
    let x_cache = (HeaderName::from_static("x-cache"), HeaderValue::from_static(source));
    vec![x_cache, (AGE, age.into()), (CACHE_CONTROL, control)]
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("it is ASCII")
}
