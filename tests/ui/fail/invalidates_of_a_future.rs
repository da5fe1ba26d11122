use std::future::Future;
use std::pin::Pin;

use vayu::invalidates;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[invalidates(all)]
fn known_alias(n: u32) -> BoxFuture<'static, u32> {
    Box::pin(async move { n })
}

type Pending = Pin<Box<dyn Future<Output = u32> + Send>>;

#[invalidates(all)]
fn unknown_alias(n: u32) -> Pending {
    Box::pin(async move { n })
}

#[invalidates(all)]
fn of_a_task(n: u32) -> std::future::Ready<u32> {
    std::future::ready(n)
}

#[invalidates(all)]
fn generic<F: Future>(future: F) -> F {
    future
}

fn main() {}
