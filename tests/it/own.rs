//! `own(..)`: copies of borrowed arguments for runs in the background.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};
use std::task::Poll;
use std::time::Duration;

use serde::{Serialize, Serializer};
use vayu::telemetry::CallOutcome::Stale;
use vayu::testing::{ManualClock, watchdog};
use vayu::{ErrorKind, MemoryCache, MemoryOptions, cached, watch_sync};

use crate::{HANG, poll, until};

/// An argument that counts its copies.
#[derive(Debug, Default)]
struct Counted {
    copies: Arc<AtomicU32>,
    panics: bool,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        assert!(!self.panics, "planned panic of a copy");
        self.copies.fetch_add(1, Ordering::SeqCst);
        Self { copies: Arc::clone(&self.copies), panics: false }
    }
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl Counted {
    fn copies(&self) -> u32 {
        self.copies.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Shop {
    cache: MemoryCache,
    runs: Arc<AtomicU32>,
    name: String,
    gate: Arc<RwLock<()>>,
}

impl Shop {
    fn new(clock: &ManualClock) -> Self {
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        Self { cache, runs: Arc::default(), name: "shop".to_owned(), gate: Arc::default() }
    }

    /// Waits while the test holds the gate.
    fn wait_while_closed(&self) {
        drop(self.gate.read().unwrap());
    }

    fn run(&self) -> u32 {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    #[cached(
        cache = self.cache, ttl = "1m", stale = "1h", include(self.name), tags("{url}"), handle = sync_entry,
        spawn = std::thread::spawn, own(self, url, items, path, counted)
    )]
    fn sync(&self, url: &str, mut items: &[u32], path: &Path, counted: &Counted, n: u32) -> String {
        struct Other;
        impl Other {
            fn name(&self) -> &'static str {
                let _ = self;
                "other"
            }
        }
        use self::Shop as Renamed;
        items = &items[1..];
        let name = || self.name.clone();
        let _: &Renamed = self;
        let _ = counted;
        format!("{} {} {url} {items:?} {} {n} {}", name(), Other.name(), path.display(), self.run())
    }

    #[cached(
        cache = self.cache, ttl = "1m", stale = "1h", skip(self), spawn = tokio::spawn, own(url, self, counted)
    )]
    async fn refreshed(&self, url: &str, counted: &Counted) -> Result<u32, String> {
        tokio::task::yield_now().await;
        if url.is_empty() {
            return Err(format!("{counted:?}"));
        }
        Ok(self.run())
    }

    #[cached(
        cache = self.cache, ttl = "1m", stale = "1h", skip(self), spawn = tokio::spawn, patience = "50ms",
        own(url, self, counted)
    )]
    async fn patient(&self, url: &str, counted: &Counted) -> u32 {
        tokio::task::yield_now().await;
        let _ = (url, counted);
        self.run()
    }

    #[cached(
        cache = self.cache, ttl = "1m", stale = "1h", skip(self), spawn = std::thread::spawn, patience = "50ms",
        own(url, self, counted)
    )]
    fn patient_sync(&self, url: &str, counted: &Counted) -> u32 {
        let _ = (url, counted);
        self.wait_while_closed();
        self.run()
    }

    #[cached(cache = self.cache, ttl = "1m", skip(self), spawn = tokio::spawn, own(text, self, counted))]
    async fn spawned<T>(&self, text: &T, counted: &Counted) -> usize
    where
        T: Serialize + AsRef<str> + Clone + Send + Sync + 'static,
    {
        tokio::task::yield_now().await;
        let _ = (self.run(), counted);
        text.as_ref().len()
    }
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test)
}

async fn let_tasks_run() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

fn send<T: Send>(future: T) -> T {
    future
}

#[test]
fn sync_function_copies_what_it_borrows_when_a_refresh_begins() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let (shop, counted) = (Shop::new(&clock), Counted::default());
        let ask = || shop.sync("tea", &[1, 2], Path::new("/p"), &counted, 9);
        assert_eq!(ask(), "shop other tea [2] /p 9 1");
        assert_eq!((ask().len(), counted.copies()), (25, 0), "not on a miss, nor on a hit");
        clock.advance(Duration::from_secs(60));
        assert_eq!(ask(), "shop other tea [2] /p 9 1");
        assert_eq!(counted.copies(), 1);
        until(|| shop.cache.stats().refreshes == 1);
        assert_eq!(ask(), "shop other tea [2] /p 9 2");
        assert_eq!(counted.copies(), 1);
        let entry = shop.sync_entry("tea", &[1, 2], Path::new("/p"), &counted, 9);
        assert_eq!(entry.refresh(), "shop other tea [2] /p 9 3");
        assert_eq!(counted.copies(), 1);
    });
}

#[test]
fn async_function_copies_what_it_borrows_when_a_refresh_begins() {
    in_runtime(async {
        let clock = ManualClock::new();
        let (shop, counted) = (Shop::new(&clock), Counted::default());
        let ask = || send(shop.refreshed("url", &counted));
        assert_eq!((ask().await, ask().await, counted.copies()), (Ok(1), Ok(1), 0));
        clock.advance(Duration::from_secs(60));
        assert_eq!((ask().await, ask().await, counted.copies()), (Ok(1), Ok(1), 1));
        let_tasks_run().await;
        assert_eq!((ask().await, counted.copies()), (Ok(2), 1));
        let failed = shop.refreshed("", &counted).await;
        assert!(failed.is_err() && counted.copies() == 1);
    });
}

#[test]
fn call_with_patience_copies_what_it_borrows_when_it_runs() {
    in_runtime(async {
        let clock = ManualClock::new();
        let (shop, counted) = (Shop::new(&clock), Counted::default());
        let ask = || send(shop.patient("url", &counted));
        assert_eq!((ask().await, counted.copies()), (1, 1));
        assert_eq!((ask().await, counted.copies()), (1, 1), "not on a hit");
        clock.advance(Duration::from_secs(60));
        let (mut first, mut second) = (pin!(ask()), pin!(ask()));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        assert_eq!(counted.copies(), 2, "the caller that waits for it has none");
        let_tasks_run().await;
        assert_eq!((poll(first), poll(second)), (Poll::Ready(2), Poll::Ready(2)));
    });
}

#[test]
fn one_caller_of_a_sync_refresh_copies_what_it_borrows() {
    const CALLERS: usize = 20;
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let (shop, counted) = (Shop::new(&clock), Counted::default());
        let ask = || shop.patient_sync("url", &counted);
        assert_eq!((ask(), ask(), counted.copies()), (1, 1, 1));
        clock.advance(Duration::from_secs(60));
        let closed = shop.gate.write().unwrap();
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(ask)).collect();
            until(|| clock.sleepers() == CALLERS);
            assert_eq!(counted.copies(), 2, "the callers that wait for it have none");
            drop(closed);
            for caller in callers {
                assert_eq!(caller.join().expect("no panic"), 2);
            }
        });
        let paused = shop.cache.pause();
        assert_eq!((ask(), counted.copies()), (3, 3), "a run without the cache");
        drop(paused);
    });
}

#[test]
fn computation_in_a_task_has_copies_of_what_it_borrows() {
    in_runtime(async {
        let clock = ManualClock::new();
        let (shop, counted) = (Shop::new(&clock), Counted::default());
        let text = "text".to_owned();
        let ask = || send(shop.spawned(&text, &counted));
        {
            let (mut first, mut second) = (Box::pin(ask()), Box::pin(ask()));
            assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
            assert_eq!(counted.copies(), 1, "the caller that waits for it has none");
        }
        let_tasks_run().await;
        assert_eq!((poll(pin!(ask())), counted.copies()), (Poll::Ready(4), 1));
        let paused = shop.cache.pause();
        assert_eq!((ask().await, counted.copies()), (4, 2), "a run without the cache");
        drop(paused);
    });
}

#[test]
fn panic_of_a_copy_does_not_affect_a_call_with_an_old_value() {
    let clock = ManualClock::new();
    let shop = Shop::new(&clock);
    let counted = Counted { panics: true, ..Counted::default() };
    let ask = || shop.sync("tea", &[1, 2], Path::new("/p"), &counted, 9);
    assert!(ask().ends_with('1'));
    clock.advance(Duration::from_secs(60));
    assert!(ask().ends_with('1') && ask().ends_with('1'));
    let stats = shop.cache.stats();
    assert_eq!((stats.errors_of(ErrorKind::Panic), stats.in_flight), (1, 0));
}

#[test]
fn panic_of_a_copy_does_not_affect_a_call_with_patience_and_an_old_value() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let (shop, fine) = (Shop::new(&clock), Counted::default());
        let panics = Counted { panics: true, ..Counted::default() };
        assert_eq!(shop.patient_sync("url", &fine), 1);
        assert_eq!(in_runtime(shop.patient("url", &fine)), 2);
        let pass = |seconds| clock.advance(Duration::from_secs(seconds));
        pass(60);
        for (failures, seconds) in [(2, 4), (2, 1), (4, 5)] {
            let (outputs, calls) = watch_sync(|| {
                (shop.patient_sync("url", &panics), in_runtime(shop.patient("url", &panics)))
            });
            assert_eq!(outputs, (1, 2), "the old values");
            assert!(calls.len() == 2 && calls.iter().all(|call| call.outcome == Stale));
            let stats = shop.cache.stats();
            assert_eq!((stats.failed_refreshes, stats.in_flight), (failures, 0));
            pass(seconds);
        }
        assert_eq!((shop.patient_sync("url", &fine), shop.cache.stats().errors), (3, 0));
        pass(2 * 3600);
        let missed = catch_unwind(AssertUnwindSafe(|| shop.patient_sync("url", &panics)));
        assert!(missed.is_err(), "there is no old value");
        assert_eq!(shop.patient_sync("url", &fine), 4);
    });
}
