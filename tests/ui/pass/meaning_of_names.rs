//! Names and strings that resemble something else, in a crate that denies warnings.
#![deny(warnings)]

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use vayu::cached;

const FOREVER: Duration = Duration::from_secs(600);
const MAX: Duration = Duration::from_secs(60);

#[cached(ttl = FOREVER, stale = MAX)]
fn own_constants(n: u32) -> u32 {
    n
}

#[cached(ttl = max, stale = always)]
fn arguments(max: Duration, always: Duration) -> Duration {
    max + always
}

#[derive(Clone)]
struct Reply(u16);

impl Reply {
    fn is_ok(&self) -> bool {
        self.0 < 400
    }
}

#[cached(ttl = "1m", cache_if = |reply| reply.is_ok())]
fn own_method(code: u16) -> Result<Reply, String> {
    Ok(Reply(code))
}

type Answer = Result<u32, String>;

#[cached(ttl = "1m", cache_if = Result::is_ok)]
fn result_in_a_result(n: u32) -> Result<Answer, String> {
    Ok(Ok(n))
}

#[derive(Clone)]
struct BoxFuture(u32);

#[cached(ttl = "1m")]
fn not_a_future(n: u32) -> BoxFuture {
    BoxFuture(n)
}

#[derive(Clone)]
struct Shared(Arc<str>);

impl Future for Shared {
    type Output = Arc<str>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Arc<str>> {
        Poll::Ready(self.0.clone())
    }
}

#[cached(ttl = "1m", handle = shared_future_entry)]
fn shared_future(text: &str) -> Shared {
    Shared(text.into())
}

#[cached(ttl = "1m")]
fn ready_future(n: u32) -> Ready<u32> {
    ready(n)
}

struct User;

#[cached(ttl = "1m", key = "User")]
fn key_is_the_name_of_a_type(_user: User) -> u32 {
    1
}

#[cached(ttl = "1m", key = "menu::Option")]
fn key_is_a_path(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m", key = ("u32"))]
fn key_in_parentheses(n: u32) -> u32 {
    n
}

/// Deprecated.
#[deprecated]
#[cached(ttl = "1m", handle = old_entry)]
pub fn old(n: u32) -> u32 {
    n
}

/// Also deprecated.
#[cached(ttl = "1m", skip(value), handle = old_async_entry)]
#[deprecated(note = "of no use")]
pub async fn old_async<T: Clone + Send + Sync + 'static>(n: u32, value: T) -> (u32, T) {
    (n, value)
}

fn main() {
    assert_eq!(own_constants(1), 1);
    assert_eq!(arguments(MAX, MAX), MAX + MAX);
    assert!(own_method(500).is_ok_and(|reply| !reply.is_ok()));
    assert_eq!(result_in_a_result(1), Ok(Ok(1)));
    assert_eq!(not_a_future(1).0, 1);
    assert_eq!(&*shared_future("a").0, "a");
    drop(shared_future_entry("a"));
    assert_eq!(ready_future(1).into_inner(), 1);
    assert_eq!(key_is_the_name_of_a_type(User) + key_is_a_path(1) + key_in_parentheses(1), 3);
}
