use std::future::Future;

use vayu::{cached, invalidates};

#[invalidates]
fn nothing(_n: u32) {}

#[invalidates(tag("user:{n}"))]
fn singular(_n: u32) {}

#[invalidates(tags("user:{user.id}"))]
fn expression_in_braces(_user: &User) {}

#[invalidates(functions(|n: u32| n))]
fn closure(_n: u32) {}

#[invalidates(cache = "memory", all)]
fn no_cache(_n: u32) {}

#[invalidates(all = true)]
fn flag_with_a_value(_n: u32) {}

#[invalidates(all, before, before)]
fn twice(_n: u32) {}

#[invalidates(all, ttl = "5m")]
fn unknown(_n: u32) {}

#[invalidates(all)]
#[cached(ttl = "5m")]
fn cached_too(n: u32) -> u32 {
    n
}

#[cached(ttl = "5m")]
#[invalidates(all)]
fn cached_first(n: u32) -> u32 {
    n
}

#[invalidates(all)]
fn future(n: u32) -> impl Future<Output = u32> {
    async move { n }
}

#[invalidates(all)]
struct User {
    id: u32,
}

#[invalidates(cache = n, all)]
fn not_a_cache(n: u32) {}

trait Shop {
    #[invalidates(all)]
    fn sell(&self);
}

fn main() {}
