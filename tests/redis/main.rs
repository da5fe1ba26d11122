//! Tests of Redis, on real servers, a cluster of three nodes, and through a proxy that delays, cuts
//! and corrupts replies.
//!
//! Some tests run this binary again as another process; see [`process`].

#![cfg(unix)]

mod at_rest;
mod batches;
mod cluster;
mod conformance;
mod connections;
mod faults;
mod hostile;
mod invalidation;
mod lease_waits;
mod leases;
mod log;
mod misconfiguration;
mod open;
mod outages;
mod process;
mod processes;
mod proxy;
#[path = "../recorder.rs"]
mod recorder;
mod refused;
mod runtimes;
mod sentinel;
mod server;
mod tiers;
mod tls;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vayu::{RedisCache, RedisOptions};

/// Time after which a test counts as hanging.
const HANG: Duration = Duration::from_secs(120);

/// Returns a namespace that no other test uses.
fn namespace() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Opens a cache with a namespace of its own on the shared server.
fn cache() -> RedisCache {
    cache_at(&server::shared().url())
}

/// Opens a cache with a namespace of its own.
fn cache_at(url: &str) -> RedisCache {
    RedisOptions::new().namespace(namespace()).connect(url).expect("a valid URL")
}

/// Waits until a condition holds, and returns the time that took.
fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < HANG / 2, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

/// Returns the size of a test, which an environment variable may raise.
fn size(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("`{variable}` must be a number")),
        Err(_) => usual,
    }
}
