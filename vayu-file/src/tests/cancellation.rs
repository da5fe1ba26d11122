//! What becomes of an operation whose caller has gone.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};

use super::*;

/// The one thread for blocking work is busy, so a write waits for it; meanwhile its caller goes.
#[test]
fn write_whose_caller_has_gone_never_takes_place() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).async_io(AsyncIo::Offloaded));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let (release, released) = channel::<()>();
    runtime.block_on(async {
        let busy = tokio::task::spawn_blocking(move || {
            let _ = released.recv();
        });
        {
            let mut context = Context::from_waker(Waker::noop());
            let key = key("k");
            let mut write = pin!(backend.write_async(&key, record(&clock, "old")));
            assert!(write.as_mut().poll(&mut context).is_pending());
        }
        // The caller has gone, and somebody removes the key.
        assert!(!backend.delete(&key("k")).expect("delete"));
        drop(release);
        busy.await.expect("no panic");
        // Behind the write in the queue.
        tokio::task::spawn_blocking(|| {}).await.expect("no panic");
        assert_eq!(value(&backend, &key("k")), None);
    });
}
