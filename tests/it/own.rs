//! `own(..)`: copies of borrowed arguments for runs in the background.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use serde::{Serialize, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{ErrorKind, MemoryCache, MemoryOptions, cached};

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
}

impl Shop {
    fn new(clock: &ManualClock) -> Self {
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        Self { cache, runs: Arc::default(), name: "shop".to_owned() }
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
