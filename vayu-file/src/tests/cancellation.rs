//! What becomes of an operation whose caller has gone, and of one for which no thread is free.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};
use std::thread;

use tokio::runtime::{Builder, Runtime};
use vayu_core::testing::watchdog;
use vayu_core::{Generations, Group, Lease, SingleFlight, SystemClock};

use super::*;
use crate::fs::model::Fault;

/// After this a test hangs.
const HANG: Duration = Duration::from_secs(30);

const OPERATIONS: [&str; 8] =
    ["read", "write", "delete", "claim", "clear", "generation", "bump", "sweep"];

fn backend(disk: &Disk, clock: &ManualClock) -> FileBackend {
    let options = options(clock).async_io(AsyncIo::SpawnBlocking);
    open(disk, &options.single_flight(SingleFlight::Everywhere))
}

/// A runtime with one thread for blocking work, and neither timers nor input and output.
fn runtime() -> Runtime {
    Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime")
}

/// Everything that an async caller can ask for.
async fn run(operation: &str, backend: &FileBackend, clock: &ManualClock) {
    let key = key("k");
    match operation {
        "read" => drop(backend.read_async(&key).await.expect("read")),
        "write" => backend.write_async(&key, record(clock, "new")).await.expect("write"),
        "delete" => assert!(backend.delete_async(&key).await.expect("delete")),
        "claim" => {
            let claim = backend
                .sharing()
                .leases
                .expect("leases")
                .try_acquire_async(&key)
                .await
                .expect("claim");
            assert!(matches!(claim, Lease::Acquired(_)));
        }
        "clear" => backend.clear_async().await.expect("clear"),
        "generation" => drop(backend.generation_async(Group::tag("t")).await.expect("read")),
        "bump" => backend.bump_async(Group::tag("t")).await.expect("bump"),
        _ => drop(backend.sweep_async().await.expect("sweep")),
    }
}

/// Returns once everything that was handed over has ended.
async fn idle() {
    tokio::task::spawn_blocking(|| {}).await.expect("no panic");
}

/// Polls a future until the disk hangs under it, and drops it.
fn abandon(disk: &Disk, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    while !disk.has_hung() {
        let mut context = Context::from_waker(Waker::noop());
        if future.as_mut().poll(&mut context).is_ready() {
            break;
        }
        thread::yield_now();
    }
}

#[test]
fn operation_that_is_dropped_while_the_disk_hangs_waits_for_nothing() {
    for operation in OPERATIONS {
        watchdog(HANG, move || {
            let (clock, disk) = (ManualClock::new(), Disk::default());
            let backend = backend(&disk, &clock);
            backend.write(&key("k"), record(&clock, "old")).expect("write");
            disk.plan(Fault::Hangs(0));
            let runtime = runtime();
            runtime.block_on(async {
                abandon(&disk, run(operation, &backend, &clock));
                disk.plan(None);
                idle().await;
            });
        });
    }
}

#[test]
fn write_that_is_dropped_while_the_disk_hangs_stores_nothing_however_far_it_got() {
    for old in [None, Some("old")] {
        let mut stages = 0;
        for number in 0.. {
            let is_refused = watchdog(HANG, move || {
                let (clock, disk) = (ManualClock::new(), Disk::default());
                let backend = backend(&disk, &clock);
                if let Some(old) = old {
                    backend.write(&key("k"), record(&clock, old)).expect("write");
                }
                disk.plan(Fault::Hangs(number));
                let is_refused = runtime().block_on(async {
                    abandon(&disk, run("write", &backend, &clock));
                    let has_hung = disk.has_hung();
                    let at_that_time = open(&disk.fork(), &options(&clock));
                    let is_in_place =
                        value(&at_that_time, &key("k")).as_deref() == Some(&b"new"[..]);
                    disk.plan(None);
                    idle().await;
                    has_hung && !is_in_place
                });
                if is_refused {
                    let found = value(&backend, &key("k"));
                    assert_ne!(found.as_deref(), Some(&b"new"[..]), "operation {number}");
                    let entries = u64::from(found.is_some());
                    assert_eq!(backend.usage().entries, Some(entries), "operation {number}");
                }
                assert!(!disk.names().iter().any(|name| name.contains("tmp")));
                is_refused
            });
            if !is_refused {
                break;
            }
            stages += 1;
        }
        assert!(stages >= 5, "{stages} operations of a write were made to hang");
    }
}

/// The one thread for blocking work is busy, so a write waits for it; meanwhile its caller goes.
#[test]
fn write_whose_caller_has_gone_never_takes_place() {
    let (clock, disk) = (ManualClock::new(), Disk::default());
    let backend = backend(&disk, &clock);
    let (release, released) = channel::<()>();
    runtime().block_on(async {
        let busy = tokio::task::spawn_blocking(move || {
            let _ = released.recv();
        });
        {
            let mut context = Context::from_waker(Waker::noop());
            let key = key("k");
            let mut write = pin!(backend.write_async(&key, record(&clock, "old")));
            assert!(write.as_mut().poll(&mut context).is_pending());
        }
        // The caller has gone, and another one removes the key.
        assert!(!backend.delete(&key("k")).expect("delete"));
        drop(release);
        busy.await.expect("no panic");
        // Behind the write in the queue.
        idle().await;
        assert_eq!(value(&backend, &key("k")), None);
    });
}

/// Those that hold the threads for blocking work may wait for the very operation.
#[test]
fn operation_ends_though_every_blocking_thread_is_occupied_for_good() {
    for operation in OPERATIONS {
        watchdog(HANG, move || {
            let (clock, disk) = (ManualClock::new(), Disk::default());
            let backend = backend(&disk, &clock);
            backend.write(&key("k"), record(&clock, "old")).expect("write");
            let (release, released) = channel::<()>();
            runtime().block_on(async {
                let waiter = tokio::task::spawn_blocking(move || {
                    let _ = released.recv();
                });
                run(operation, &backend, &clock).await;
                drop(release);
                waiter.await.expect("no panic");
            });
        });
    }
}

#[test]
fn operation_that_is_queued_behind_a_disk_that_hangs_does_not_block_the_thread_that_polls() {
    watchdog(HANG, || {
        let (clock, disk) = (ManualClock::new(), Disk::default());
        let backend = backend(&disk, &clock);
        disk.plan(Fault::Hangs(0));
        runtime().block_on(async {
            let mut context = Context::from_waker(Waker::noop());
            let mut first = pin!(run("read", &backend, &clock));
            while !disk.has_hung() {
                assert!(first.as_mut().poll(&mut context).is_pending());
                thread::yield_now();
            }
            let mut second = pin!(run("write", &backend, &clock));
            assert!(second.as_mut().poll(&mut context).is_pending());
            // Long enough for it to be taken back.
            SystemClock.sleep(Duration::from_millis(60)).await;
            assert!(second.as_mut().poll(&mut context).is_pending());
            disk.plan(None);
            first.await;
            second.await;
        });
        assert_eq!(value(&backend, &key("k")), Some("new".into()));
    });
}

#[test]
fn lock_of_an_async_caller_is_given_back_while_the_disk_hangs_and_no_thread_is_free() {
    watchdog(HANG, || {
        let (clock, disk) = (ManualClock::new(), Disk::default());
        let backend = backend(&disk, &clock);
        let (release, released) = channel::<()>();
        runtime().block_on(async {
            let claim = backend
                .sharing()
                .leases
                .expect("leases")
                .try_acquire_async(&key("k"))
                .await
                .expect("claim");
            let waiter = tokio::task::spawn_blocking(move || {
                let _ = released.recv();
            });
            disk.plan(Fault::Hangs(0));
            drop(claim);
            disk.plan(None);
            // Another process, which does not wait until a thread is free here.
            let next =
                backend.sharing().leases.expect("leases").try_acquire(&key("k")).expect("claim");
            assert!(matches!(next, Lease::Acquired(_)), "{next:?}");
            drop(release);
            waiter.await.expect("no panic");
            idle().await;
            // What was left behind is not removed from under the one that has it now.
            let third =
                backend.sharing().leases.expect("leases").try_acquire(&key("k")).expect("claim");
            assert!(matches!(third, Lease::Held), "{third:?}");
            drop(next);
        });
        assert!(!disk.names().iter().any(|name| name.contains(".lock")), "{:?}", disk.names());
    });
}

#[test]
fn operation_whose_runtime_has_ended_takes_place() {
    watchdog(HANG, || {
        let (clock, disk) = (ManualClock::new(), Disk::default());
        let backend = backend(&disk, &clock);
        let ended = runtime();
        let handle = ended.handle().clone();
        ended.shutdown_background();
        let _entered = handle.enter();
        let mut context = Context::from_waker(Waker::noop());
        let mut write = pin!(run("write", &backend, &clock));
        while write.as_mut().poll(&mut context).is_pending() {
            thread::yield_now();
        }
        assert_eq!(value(&backend, &key("k")), Some("new".into()));
    });
}
