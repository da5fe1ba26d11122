//! `spawn = ..` without `stale`: computations that go on if their caller is dropped.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, ErrorKind, MemoryCache, MemoryOptions, cached};

use crate::{HANG, with_every_backend};

#[derive(Debug, Default)]
struct Source {
    runs: AtomicU32,
    is_open: AtomicBool,
    panics: AtomicBool,
}

impl Source {
    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    /// Waits until the source is open.
    async fn query(&self) -> Result<u32, String> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        while !self.is_open.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        assert!(!self.panics.load(Ordering::SeqCst), "planned panic");
        if run > 90 { Err("down".to_owned()) } else { Ok(run) }
    }
}

#[cached(cache = cache, ttl = "1m", key = "k", spawn = tokio::spawn)]
async fn call<B, S>(cache: Cache<B, S>, source: Arc<Source>) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    source.query().await
}

/// Polls a call a few times, between which other tasks run, and gives up.
async fn give_up<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..64 {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(output) = call.as_mut().poll(&mut context) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(future)
}

fn follow_a_task<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    block_on(async {
        let clock = ManualClock::new();
        let cache = open(clock.clone());
        let source = Arc::new(Source::default());
        let ask = || call(cache.clone(), Arc::clone(&source));
        for _ in 0..3 {
            assert_eq!(give_up(ask()).await, None);
        }
        assert_eq!(source.runs(), 1, "the others joined it");
        source.open();
        assert_eq!(ask().await, Ok(1));
        assert_eq!(ask().await, Ok(1));
        let stats = cache.stats();
        assert_eq!((source.runs(), stats.inserts, stats.errors), (1, 1, 0));
        clock.advance(Duration::from_secs(60));
        assert_eq!(ask().await, Ok(2), "past the ttl");

        source.runs.store(90, Ordering::SeqCst);
        clock.advance(Duration::from_secs(60));
        assert_eq!(ask().await, Err("down".to_owned()));
        assert_eq!((cache.stats().in_flight, cache.stats().errors), (0, 0));
    });
}

#[test]
fn computation_outlives_its_caller_on_every_backend() {
    watchdog(HANG, || with_every_backend!(follow_a_task));
}

#[test]
fn caller_that_always_gives_up_warms_the_cache_only_with_spawn() {
    #[cached(cache = cache, ttl = "1m", key = "k")]
    async fn without<'a>(cache: &'a MemoryCache, source: &'a Source) -> Result<u32, String> {
        source.query().await
    }

    watchdog(HANG, || {
        block_on(async {
            let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
            assert_eq!(give_up(without(&cache, &source)).await, None);
            assert_eq!(give_up(without(&cache, &source)).await, None);
            assert_eq!((source.runs(), cache.stats().inserts), (2, 0));

            assert_eq!(give_up(call(cache.clone(), Arc::clone(&source))).await, None);
            source.open();
            while cache.stats().inserts == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(give_up(call(cache.clone(), Arc::clone(&source))).await, Some(Ok(3)));
        });
    });
}

#[test]
fn thousand_callers_share_one_task() {
    static SPAWNED: AtomicU32 = AtomicU32::new(0);

    #[cached(cache = cache, ttl = "1m", key = "k", spawn = |task| {
        SPAWNED.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(task)
    })]
    async fn shared(cache: MemoryCache, source: Arc<Source>) -> u32 {
        source.query().await.expect("a value")
    }

    watchdog(HANG, || {
        let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.expect("a runtime").block_on(async {
            let tasks: Vec<_> = (0..1_000)
                .map(|_| tokio::spawn(shared(cache.clone(), Arc::clone(&source))))
                .collect();
            while source.runs() == 0 {
                tokio::task::yield_now().await;
            }
            // Half of them give up, among them perhaps the caller of the task.
            for task in tasks.iter().step_by(2) {
                task.abort();
            }
            source.open();
            for (index, task) in tasks.into_iter().enumerate() {
                let result = task.await;
                assert!(index % 2 == 0 || result.is_ok_and(|value| value == 1), "{index}");
            }
        });
        assert_eq!((source.runs(), SPAWNED.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(cache.stats().in_flight, 0);
    });
}

#[test]
fn panic_in_the_task_reaches_the_caller_and_a_waiter_takes_over() {
    watchdog(HANG, || {
        block_on(async {
            let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
            source.panics.store(true, Ordering::SeqCst);
            let ask = || tokio::spawn(call(cache.clone(), Arc::clone(&source)));
            let first = ask();
            while source.runs() == 0 {
                tokio::task::yield_now().await;
            }
            let second = ask();
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
            source.open();
            let panic = first.await.expect_err("it panics").into_panic();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"planned panic"));
            source.panics.store(false, Ordering::SeqCst);
            drop(second.await);
            assert!(call(cache.clone(), Arc::clone(&source)).await.is_ok());
            assert_eq!(cache.stats().in_flight, 0);
        });
    });
}

#[test]
fn caller_continues_if_nothing_can_be_spawned_or_the_task_is_dropped() {
    #[cached(cache = cache, ttl = "1m", key = "k", spawn = drop)]
    async fn dropped(cache: MemoryCache, source: Arc<Source>) -> Result<u32, String> {
        source.query().await
    }

    watchdog(HANG, || {
        let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
        source.open();
        // Without a tokio runtime.
        assert_eq!(smol::block_on(call(cache.clone(), Arc::clone(&source))), Ok(1));
        assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 1);
        assert_eq!(smol::block_on(call(cache.clone(), Arc::clone(&source))), Ok(1));

        let cache = MemoryCache::new();
        assert_eq!(smol::block_on(dropped(cache.clone(), Arc::clone(&source))), Ok(2));
        assert_eq!(smol::block_on(dropped(cache.clone(), Arc::clone(&source))), Ok(2));
        assert_eq!(cache.stats().errors, 0);

        // The runtime of the task shuts down while it runs.
        let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let guard = runtime.enter();
        let mut ask = Box::pin(call(cache.clone(), Arc::clone(&source)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(ask.as_mut().poll(&mut context).is_pending());
        crate::until(|| source.runs() == 1);
        drop(guard);
        runtime.shutdown_timeout(Duration::from_secs(10));
        source.open();
        assert_eq!(smol::block_on(ask), Ok(1), "the caller runs the rest of it");
        assert_eq!((source.runs(), cache.stats().inserts), (1, 1));
    });
}

#[test]
fn nested_call_of_the_same_key_does_not_wait_for_its_own_task() {
    #[cached(cache = cache, ttl = "1m", key = "k", spawn = tokio::spawn)]
    async fn outer(cache: MemoryCache, depth: u32) -> u32 {
        if depth == 0 { 0 } else { boxed_inner(cache, depth).await + 1 }
    }

    #[cached(cache = cache, ttl = "1m", key = "other", spawn = |task| smol::spawn(task).detach())]
    async fn inner(cache: MemoryCache, depth: u32) -> u32 {
        boxed_outer(cache, depth - 1).await
    }

    // A type without the future that it is part of.
    fn boxed_outer(cache: MemoryCache, depth: u32) -> Pin<Box<dyn Future<Output = u32> + Send>> {
        Box::pin(outer(cache, depth))
    }

    fn boxed_inner(cache: MemoryCache, depth: u32) -> Pin<Box<dyn Future<Output = u32> + Send>> {
        Box::pin(inner(cache, depth))
    }

    watchdog(HANG, || {
        block_on(async {
            let clock = ManualClock::new();
            let cache = MemoryOptions::new().clock(clock).build();
            assert_eq!(outer(cache.clone(), 3).await, 3);
            assert_eq!(cache.stats().in_flight, 0);
        });
    });
}

#[test]
fn every_form_of_function_may_spawn_its_computation() {
    struct Shop(MemoryCache, AtomicU32);
    impl Shop {
        #[cached(
            cache = self.0, ttl = |_: &u32| Duration::from_secs(60), tags("{sku}"), version = 2,
            bypass_if = is_preview, skip(is_preview), cache_if = |n: &u32| *n != 7,
            spawn = |task| smol::spawn(task).detach(), handle = price_entry
        )]
        async fn price(self: Arc<Self>, sku: String, is_preview: bool) -> u32 {
            drop(sku);
            self.1.fetch_add(1, Ordering::SeqCst)
        }
    }

    #[cached(ttl = "1h", max_entries = 10, spawn = tokio::spawn)]
    async fn default<T>(n: u32) -> T
    where
        T: Default + Clone + Send + Sync + 'static,
    {
        T::default()
    }

    watchdog(HANG, || {
        let shop = Arc::new(Shop(MemoryCache::new(), AtomicU32::new(0)));
        let ask =
            |is_preview| smol::block_on(Arc::clone(&shop).price("tea".to_owned(), is_preview));
        assert_eq!((ask(false), ask(false), ask(true), ask(false)), (0, 0, 1, 0));
        let entry = Arc::clone(&shop).price_entry("tea".to_owned(), false);
        assert_eq!(smol::block_on(entry.refresh_async()), 2);
        assert_eq!(ask(false), 2);
        shop.0.invalidate_tag("tea").unwrap();
        assert_eq!(ask(false), 3);
        assert_eq!(shop.0.stats().errors, 0);
        block_on(async {
            assert_eq!((default::<u8>(1).await, default::<String>(1).await), (0, String::new()));
        });
    });
}
