//! vayu on Redis: real servers, a cluster of three, and a proxy that delays, cuts and mangles what
//! they say.
//!
//! Some tests run this binary again as another process; see [`process`].

#![cfg(unix)]

mod choice;
mod cluster;
mod conformance;
mod connections;
mod faults;
mod fleet;
mod hostile;
mod invalidation;
mod leases;
mod process;
mod proxy;
mod refused;
mod runtimes;
mod sentinel;
mod server;
mod setup;
mod tiers;
mod tls;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vayu::{RedisCache, RedisOptions};

/// After this a test hangs.
const HANG: Duration = Duration::from_secs(120);

/// A namespace that no other test has.
fn namespace() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A cache of its own on the server that the tests share.
fn cache() -> RedisCache {
    cache_at(&server::shared().url())
}

fn cache_at(url: &str) -> RedisCache {
    RedisOptions::new().namespace(namespace()).connect(url).expect("an address")
}

/// Waits until something is so, which another process or thread brings about.
fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < HANG / 2, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

/// The larger size of a campaign is asked for with a variable.
fn size(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("`{variable}` must be a number")),
        Err(_) => usual,
    }
}
