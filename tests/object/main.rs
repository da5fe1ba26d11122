//! Tests of caches in object stores: in memory, in a directory that processes share, in a store with faults, and on a
//! server that speaks S3.
//!
//! Some tests run this binary again as another process; see [`process`].

#![cfg(unix)]

mod at_rest;
mod calls;
mod cancellation;
mod faults;
mod faulty_store;
mod generations;
mod leases;
mod open;
#[path = "../redis/process.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod process;
mod processes;
#[path = "../recorder.rs"]
mod recorder;
mod s3;

use std::sync::Arc;
use std::time::{Duration, Instant};

use vayu::backend::object_store::ObjectStore;
use vayu::{ObjectCache, ObjectOptions};

/// Time after which a test counts as hanging.
const HANG: Duration = Duration::from_secs(60);

/// Opens a cache in a store.
fn cache(store: &Arc<impl ObjectStore>) -> ObjectCache {
    cache_with(store, ObjectOptions::new())
}

fn cache_with(store: &Arc<impl ObjectStore>, options: ObjectOptions) -> ObjectCache {
    options.open(store.clone()).expect("a cache")
}

/// Waits until a condition holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < HANG / 2, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
