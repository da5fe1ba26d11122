use std::future::Future;
use std::pin::Pin;

use vayu::cached;

#[cached(ttl = "1m")]
fn opaque(n: u32) -> impl Future<Output = u32> {
    async move { n }
}

#[cached(ttl = "1m")]
fn opaque_and_send(n: u32) -> impl Future<Output = u32> + Send + 'static {
    async move { n }
}

#[cached(ttl = "1m")]
fn in_a_box(n: u32) -> Box<dyn Future<Output = u32> + Send> {
    Box::new(async move { n })
}

#[cached(ttl = "1m")]
fn pinned(n: u32) -> Pin<Box<impl Future<Output = u32>>> {
    Box::pin(async move { n })
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[cached(ttl = "1m")]
fn known_alias(n: u32) -> BoxFuture<'static, u32> {
    Box::pin(async move { n })
}

type Pending = Pin<Box<dyn Future<Output = u32> + Send>>;

#[cached(ttl = "1m")]
fn unknown_alias(n: u32) -> Pending {
    Box::pin(async move { n })
}

fn main() {}
