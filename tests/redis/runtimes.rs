//! Async callers in runtimes of all kinds: without timers, without I/O, with a paused clock, and in
//! executors other than tokio.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::Builder;
use vayu::backend::{Backend, Lease, RedisBackend};
use vayu::testing::watchdog;
use vayu::{
    ErrorKind, Key, RedisCache, RedisOptions, SingleFlight, TieredCache, TieredOptions, cached,
};

use crate::proxy::{Proxy, Treatment};
use crate::server::{shared, shared_cluster};
use crate::{HANG, namespace};

const HOUR: Duration = Duration::from_secs(3600);

type Work = Box<dyn FnOnce() -> std::pin::Pin<Box<dyn Future<Output = ()>>>>;

/// Runs work in an executor of each kind.
fn in_each(mut work: impl FnMut(&str) -> Work) {
    let tokio = |builder: &mut Builder, work: Work| {
        let runtime = builder.build().unwrap();
        runtime.block_on(async { work().await });
    };
    let one = Builder::new_current_thread;
    let many = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    };
    tokio(one().enable_all().start_paused(true), work("a paused clock"));
    tokio(one().enable_time().start_paused(true), work("no I/O, and a paused clock"));
    tokio(one().enable_io(), work("no timers"));
    tokio(one().enable_time(), work("no I/O"));
    tokio(&mut one(), work("neither"));
    tokio(one().enable_all(), work("one thread"));
    tokio(many().enable_io(), work("no timers, threads"));
    tokio(many().enable_time(), work("no I/O, threads"));
    tokio(&mut many(), work("neither, threads"));
    tokio(many().enable_all(), work("threads"));
    let smol_work = work("smol");
    smol::block_on(async { smol_work().await });
    let parked_work = work("a thread that is parked");
    block_on(parked_work());
}

/// Runs a future in an executor that has only its thread.
fn block_on(mut future: std::pin::Pin<Box<dyn Future<Output = ()>>>) {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(thread::current())).into();
    while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        thread::park();
    }
}

#[cached(cache = cache, ttl = "1h", skip(cache, runs), tags("tag"), log = false)]
async fn number<B: Backend<Stored = bytes::Bytes>>(
    cache: &vayu::Cache<B, vayu::MessagePack>,
    n: u64,
    runs: &AtomicU32,
) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

#[cached(cache = cache, ttl = "1h", skip(cache, runs), tags("tag"), log = false)]
async fn tiered_number(cache: &TieredCache<RedisBackend>, n: u64, runs: &AtomicU32) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

/// Runs every operation, sync and async.
async fn operate(cache: &RedisCache, kind: &str) {
    let key = Key::from_text("key", kind);
    let runs = AtomicU32::new(0);
    for _ in 0..3 {
        assert_eq!(number(cache, 1, &runs).await, 1);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1, "{kind}");
    cache.set_async(&key, &7_u64, HOUR).await.unwrap();
    assert_eq!(cache.get_async::<u64>(&key).await.unwrap(), Some(7), "{kind}");
    // Sync operations in the same runtime.
    assert_eq!(cache.get::<u64>(&key).unwrap(), Some(7), "{kind}");
    assert!(cache.remove_async(&key).await.unwrap(), "{kind}");
    let lease = cache
        .backend()
        .capabilities()
        .leases
        .expect("leases")
        .try_acquire_async(&key)
        .await
        .unwrap();
    assert!(matches!(lease, Lease::Acquired(_)), "{kind}");
    drop(lease);
    cache.invalidate_tag_async("tag").await.unwrap();
    assert_eq!(number(cache, 1, &runs).await, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 2, "{kind}");
    cache.clear_async().await.unwrap();
    assert_eq!(cache.stats().errors, 0, "{kind}");
}

fn options() -> RedisOptions {
    let options = RedisOptions::new().namespace(namespace()).timeout(Duration::from_secs(10));
    options.single_flight(SingleFlight::Everywhere)
}

#[test]
fn every_operation_works_in_a_runtime_of_any_kind() {
    watchdog(HANG, || {
        in_each(|kind| {
            let (cache, kind) = (options().connect(shared().url()).unwrap(), kind.to_owned());
            Box::new(move || Box::pin(async move { operate(&cache, &kind).await }))
        });
    });
}

#[test]
fn every_operation_works_on_a_cluster_in_a_runtime_of_any_kind() {
    watchdog(HANG, || {
        in_each(|kind| {
            let cache = options().connect_cluster(shared_cluster().urls()).unwrap();
            let kind = kind.to_owned();
            Box::new(move || Box::pin(async move { operate(&cache, &kind).await }))
        });
    });
}

#[test]
fn tiered_cache_works_in_a_runtime_of_any_kind() {
    watchdog(HANG, || {
        in_each(|kind| {
            let (cache, kind) = (
                TieredOptions::new().over(&options().connect(shared().url()).unwrap()),
                kind.to_owned(),
            );
            Box::new(move || {
                Box::pin(async move {
                    let runs = AtomicU32::new(0);
                    for _ in 0..3 {
                        assert_eq!(tiered_number(&cache, 1, &runs).await, 1);
                    }
                    cache.invalidate_tag_async("tag").await.unwrap();
                    for _ in 0..3 {
                        assert_eq!(tiered_number(&cache, 1, &runs).await, 1);
                    }
                    assert_eq!(runs.load(Ordering::SeqCst), 2, "{kind}");
                    assert_eq!(cache.stats().errors, 0, "{kind}");
                })
            })
        });
    });
}

/// A cache is often a static, which short-lived runtimes use.
#[test]
fn runtimes_of_all_kinds_share_one_connection() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = Arc::new(options().connect(proxy.url()).unwrap());
        in_each(|_| {
            let cache = Arc::clone(&cache);
            Box::new(move || {
                Box::pin(async move {
                    cache.get_async::<u64>(&Key::from_text("key", "1")).await.unwrap();
                })
            })
        });
        assert_eq!((proxy.connections(), cache.stats().errors), (1, 0));
    });
}

#[test]
fn timeout_holds_in_a_runtime_of_any_kind() {
    watchdog(HANG, || {
        in_each(|kind| {
            let kind = kind.to_owned();
            Box::new(move || {
                Box::pin(async move {
                    let key = Key::from_text("key", "1");
                    // The server has replied before, or never.
                    for has_replied in [true, false] {
                        let proxy = Proxy::before(shared().port);
                        let options = options().timeout(Duration::from_millis(200));
                        let options = options.circuit_breaker(u32::MAX, HOUR);
                        let cache = options.connect(proxy.url()).unwrap();
                        while has_replied && cache.get_async::<u64>(&key).await.is_err() {}
                        proxy.treat(Treatment { swallow: true, ..Treatment::default() });
                        let failed = cache.get_async::<u64>(&key).await.unwrap_err();
                        assert_eq!(failed.kind(), ErrorKind::Timeout, "{kind}");
                    }
                })
            })
        });
    });
}
