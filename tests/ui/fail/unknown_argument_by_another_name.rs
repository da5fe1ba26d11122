//! Arguments of other caches, each with what to write here.
use vayu::cached;

#[cached(ttl_secs = 60)]
fn seconds(n: u32) -> u32 {
    n
}

#[cached(ttl_millis = 500)]
fn milliseconds(n: u32) -> u32 {
    n
}

#[cached(time = 60)]
fn time(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, size = 100)]
fn size(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, maxsize = 100)]
fn maxsize(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, result = true)]
fn result(n: u32) -> Result<u32, String> {
    Ok(n)
}

#[cached(ttl = 60, option = true)]
fn option(n: u32) -> Option<u32> {
    Some(n)
}

#[cached(ttl = 60, convert = r#"{ format!("{n}") }"#)]
fn convert(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, sync_writes = true)]
fn sync_writes(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, tag = "numbers")]
fn tag(n: u32) -> u32 {
    n
}

#[cached(timeout = "5m")]
fn timeout(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, name = "NUMBERS")]
fn name(n: u32) -> u32 {
    n
}

#[cached(unbound)]
fn unbound(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, refresh = true)]
fn refresh(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, with_cached_flag = true)]
fn with_cached_flag(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, ty = "UnboundCache<u32, u32>")]
fn ty(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, type = "UnboundCache<u32, u32>")]
fn r#type(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, create = "{ UnboundCache::new() }")]
fn create(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, capacity = 100)]
fn capacity(n: u32) -> u32 {
    n
}

#[cached(expire = 60)]
fn expire(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, max_size = 100)]
fn max_size(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, key_fn = by_number)]
fn key_fn(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, ignore(n))]
fn ignore(n: u32) -> u32 {
    n
}

#[cached(ttl = 60, unless = "result is None")]
fn unless(n: u32) -> u32 {
    n
}

fn main() {}
