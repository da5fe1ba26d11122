//! Tests of the public API on every backend. `wrong_value`, `robustness` and `semantics` test known
//! failures of caching libraries (`docs/traps.md`).

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::items_after_statements,
    clippy::large_stack_arrays,
    clippy::multiple_bound_locations,
    clippy::non_minimal_cfg,
    clippy::option_option,
    clippy::too_many_arguments,
    clippy::unchecked_time_subtraction,
    reason = "functions are written as users may write them, where they are tested"
)]

mod at_rest;
mod batch_err_ttl;
mod batch_handle;
mod batch_spawn;
mod batches;
mod caches;
mod call_time;
mod conditions;
mod directory;
mod ends;
mod entries;
mod err_ttl;
mod errors;
mod expires_at;
mod files;
mod flight_context;
mod forms;
mod hand_written;
mod handle;
mod idle;
mod invalidates;
mod invalidation;
mod keys;
mod model;
mod observe;
mod off;
mod own;
mod own_cache;
mod patience;
mod patience_sync;
mod previous;
mod refused;
mod robustness;
mod semantics;
mod shared_runs;
mod single_flight;
mod size;
mod spawn;
mod spawn_computation;
mod spawn_sync;
mod stale;
mod tiers;
mod traps;
mod updates;
mod validity;
mod watch;
mod wrong_value;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The time limit after which a test counts as hanging.
const HANG: Duration = Duration::from_secs(60);

/// Counts the runs of a body.
struct Runs(AtomicUsize);

impl Runs {
    const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts a run and returns its number, from 1.
    fn count(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Calls a generic function with a constructor of a cache for each backend.
macro_rules! with_every_backend {
    ($run:path) => {{
        use vayu::{AsyncIo, Cache, FileOptions, MemoryOptions, MessagePack, testing::MapBackend};
        $run(|clock| MemoryOptions::new().clock(clock).build());
        $run(|clock| MemoryOptions::new().clock(clock).build_moka());
        $run(|clock| -> Cache<_, MessagePack> {
            Cache::with_backend(MapBackend::with_clock(clock))
        });
        $run(|clock| -> Cache<_, MessagePack> {
            Cache::with_backend($crate::hand_written::Ledger::new(clock))
        });
        let places = std::cell::RefCell::new(Vec::new());
        let files = |clock| {
            let place = tempfile::tempdir().expect("a directory");
            let options = FileOptions::new().clock(clock).async_io(AsyncIo::Inline);
            let cache = options.open(place.path()).expect("a cache");
            places.borrow_mut().push(place);
            cache
        };
        $run(&files);
        $run(|clock| vayu::TieredOptions::new().over(&files(clock)));
        $run(|clock| {
            let backing: Cache<_, MessagePack> = Cache::with_backend(MapBackend::with_clock(clock));
            vayu::TieredOptions::new().over(&backing)
        });
    }};
}
use with_every_backend;

/// Polls a future once, without a waker.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls futures once, in their order, and returns the outputs of those that are ready.
fn poll_all<F: Future>(futures: &mut [Pin<Box<F>>]) -> Vec<F::Output> {
    let ready = |poll| match poll {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    };
    futures.iter_mut().filter_map(|future| ready(poll(future.as_mut()))).collect()
}

/// Yields until `condition` holds. The watchdog aborts a test in which it never does.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}
