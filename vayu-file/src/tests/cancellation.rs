//! Operations that are cancelled, and operations for which no blocking thread is free.

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

/// The time after which a test hangs.
const HANG: Duration = Duration::from_secs(30);

const OPERATIONS: [&str; 8] =
    ["read", "write", "delete", "lease", "clear", "generation", "bump", "sweep"];

fn backend(disk: &Disk, clock: &ManualClock) -> FileBackend {
    let options = options(clock).async_io(AsyncIo::SpawnBlocking);
    open(disk, &options.single_flight(SingleFlight::Everywhere))
}

/// Creates a runtime with one blocking thread, without timers and I/O.
fn runtime() -> Runtime {
    Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime")
}

/// Runs one of the async operations.
async fn run(operation: &str, backend: &FileBackend, clock: &ManualClock) {
    let key = key("k");
    match operation {
        "read" => drop(backend.read_async(&key).await.expect("read")),
        "write" => backend.write_async(&key, record(clock, "new")).await.expect("write"),
        "delete" => assert!(backend.delete_async(&key).await.expect("delete")),
        "lease" => {
            let lease = backend
                .capabilities()
                .leases
                .expect("leases")
                .try_acquire_async(&key)
                .await
                .expect("lease");
            assert!(matches!(lease, Lease::Acquired(_)));
        }
        "clear" => backend.clear_async().await.expect("clear"),
        "generation" => drop(backend.generation_async(Group::tag("t")).await.expect("read")),
        "bump" => backend.bump_async(Group::tag("t")).await.expect("bump"),
        _ => drop(backend.sweep_async().await.expect("sweep")),
    }
}

/// Waits until all blocking tasks and all overdue operations have ended.
async fn idle(backend: &FileBackend) {
    tokio::task::spawn_blocking(|| {}).await.expect("no panic");
    while backend.overdue.has_thread() {
        thread::yield_now();
    }
}

/// Polls a future until the disk hangs, and drops it.
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

/// Runs a test for each operation, on an entry of a disk that hangs.
fn on_a_disk_that_hangs(test: fn(&'static str, &Disk, &FileBackend, &ManualClock)) {
    for operation in OPERATIONS {
        watchdog(HANG, move || {
            let (clock, disk) = (ManualClock::new(), Disk::default());
            let backend = backend(&disk, &clock);
            backend.write(&key("k"), record(&clock, "old")).expect("write");
            disk.plan(Fault::Hangs(0));
            test(operation, &disk, &backend, &clock);
        });
    }
}

#[test]
fn dropping_an_operation_does_not_wait_for_a_disk_that_hangs() {
    on_a_disk_that_hangs(|operation, disk, backend, clock| {
        let runtime = runtime();
        runtime.block_on(async {
            abandon(disk, run(operation, backend, clock));
            disk.plan(None);
            idle(backend).await;
        });
    });
}

/// Dropping it does not wait either.
#[test]
fn polling_does_not_wait_for_a_disk_that_hangs_while_no_thread_is_free() {
    on_a_disk_that_hangs(|operation, disk, backend, clock| {
        let (release, released) = channel::<()>();
        runtime().block_on(async {
            let waiter = tokio::task::spawn_blocking(move || {
                let _ = released.recv();
            });
            abandon(disk, run(operation, backend, clock));
            disk.plan(None);
            drop(release);
            waiter.await.expect("no panic");
            idle(backend).await;
        });
    });
}

#[test]
fn write_that_is_dropped_at_any_stage_on_a_disk_that_hangs_stores_nothing() {
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
                    idle(&backend).await;
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

/// The write waits for the only blocking thread when its future is dropped.
#[test]
fn queued_write_that_is_dropped_never_runs() {
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
        // The future was dropped, and another caller removes the key.
        assert!(!backend.delete(&key("k")).expect("delete"));
        drop(release);
        busy.await.expect("no panic");
        // This task is queued after the write.
        idle(&backend).await;
        assert_eq!(value(&backend, &key("k")), None);
    });
}

/// The tasks that occupy the blocking threads may wait for the operation.
#[test]
fn operation_completes_while_every_blocking_thread_is_occupied() {
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
fn operation_queued_behind_one_that_hangs_does_not_block_the_polling_thread() {
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
            // Longer than the time after which a queued operation is overdue.
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
fn lock_of_an_async_caller_is_released_while_the_disk_hangs_and_no_thread_is_free() {
    watchdog(HANG, || {
        let (clock, disk) = (ManualClock::new(), Disk::default());
        let backend = backend(&disk, &clock);
        let (release, released) = channel::<()>();
        runtime().block_on(async {
            let lease = backend
                .capabilities()
                .leases
                .expect("leases")
                .try_acquire_async(&key("k"))
                .await
                .expect("lease");
            let waiter = tokio::task::spawn_blocking(move || {
                let _ = released.recv();
            });
            disk.plan(Fault::Hangs(0));
            drop(lease);
            disk.plan(None);
            // Another process does not wait for a thread of this one.
            let next = backend
                .capabilities()
                .leases
                .expect("leases")
                .try_acquire(&key("k"))
                .expect("lease");
            assert!(matches!(next, Lease::Acquired(_)), "{next:?}");
            drop(release);
            waiter.await.expect("no panic");
            idle(&backend).await;
            // The queued removal does not remove the lock file of the new holder.
            let third = backend
                .capabilities()
                .leases
                .expect("leases")
                .try_acquire(&key("k"))
                .expect("lease");
            assert!(matches!(third, Lease::Held), "{third:?}");
            drop(next);
        });
        assert!(!disk.names().iter().any(|name| name.contains(".lock")), "{:?}", disk.names());
    });
}

#[test]
fn operation_runs_after_its_runtime_has_shut_down() {
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
