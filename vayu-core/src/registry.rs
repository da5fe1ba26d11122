//! The list of the caches of the process.
//!
//! A cache is listed while a handle on it exists. The list holds weak references, so it keeps no cache
//! alive, and the part of a cache that its handles share removes itself when it is dropped. No code of a
//! backend runs while the list is locked.
//!
//! By the list, the first [watch](crate::watch()) sets a flag of each cache, and the last one clears it. It is set for a
//! later cache when that is listed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};

use crate::panic::catch_panic;
use crate::per_process::PerProcess;
use crate::stats::Stats;

/// A cache of the process, as [`caches`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheInfo {
    /// The name, which [`Cache::with_name`](crate::Cache::with_name) sets. By default the
    /// [description](crate::Backend::description) of the backend, such as `file /var/cache/reports`.
    pub name: String,
    /// The statistics: [`Cache::stats`](crate::Cache::stats).
    pub stats: Stats,
}

/// Returns the caches of the process with their names and statistics, in the order in which they were
/// created: for a health page, or a log line at the end of a program.
///
/// A cache is listed until its last handle is dropped, or for a moment longer if another thread is listing it;
/// clones of a handle are the same cache. A static cache is listed from its first use on. A cache that could not be opened is listed too, and its
/// [`Stats::off`] says why.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// # use vayu_core as vayu;
/// # use vayu::{Cache, MessagePack, testing::MapBackend};
/// let cache: Cache<MapBackend, MessagePack> = Cache::new().with_name("rates");
/// for cache in vayu::caches() {
///     println!("{}: {} hits of {} calls", cache.name, cache.stats.hits, cache.stats.calls());
/// }
/// # assert_eq!(vayu::caches()[0].name, "rates");
/// # }
/// ```
pub fn caches() -> Vec<CacheInfo> {
    type Found = (Arc<dyn Listed>, Option<Arc<str>>);
    let found: Vec<Found> = lock()
        .values()
        .filter_map(|entry| Some((entry.cache.upgrade()?, entry.name.clone())))
        .collect();
    let info = |(cache, name): Found| {
        let name = match name {
            Some(name) => name.to_string(),
            None => catch_panic("describe backend", || Ok(cache.description())).unwrap_or_default(),
        };
        CacheInfo { name, stats: cache.stats() }
    };
    found.into_iter().map(info).collect()
}

/// The part of a cache that its handles share, of any backend.
pub(crate) trait Listed: Send + Sync {
    /// Returns the description of the backend.
    fn description(&self) -> String;

    /// Returns the statistics of the cache. A panic of the backend leaves out its usage.
    fn stats(&self) -> Stats;

    /// Sets whether the calls of the cache are reported to watches.
    fn set_watched(&self, is_watched: bool);
}

struct Entry {
    cache: Weak<dyn Listed>,
    name: Option<Arc<str>>,
}

/// The caches by the numbers of their registrations.
type ById = BTreeMap<u64, Entry>;

static LIST: LazyLock<PerProcess<Mutex<ById>>> =
    LazyLock::new(|| PerProcess::new(Mutex::default()));

/// Locks the list. If a thread of a parent process holds the lock, the list of the child starts empty.
fn lock() -> MutexGuard<'static, ById> {
    LIST.lock(ById::new)
}

/// The number of watches. It becomes zero, and ceases to be zero, only while the list is locked. The flags of all caches
/// are set before the first watch is counted, and cleared after the last one: both under one lock, so that no
/// cache has a flag of another state. A watch that is not the first one finds the flags set, since it has read the number
/// that was stored after them.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// A watch, to which the calls of all caches are reported until it is dropped.
#[derive(Debug)]
pub(crate) struct Watching(());

impl Watching {
    pub(crate) fn begin() -> Self {
        if !count_watch(|watches| (watches > 0).then_some(watches + 1)) {
            let list = lock();
            let is_first = WATCHES.load(Ordering::Acquire) == 0;
            let caches = is_first.then(|| set_watched(&list, true));
            WATCHES.fetch_add(1, Ordering::AcqRel);
            drop(list);
            drop(caches);
        }
        Self(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if !count_watch(|watches| (watches > 1).then_some(watches - 1)) {
            let list = lock();
            let is_last = WATCHES.fetch_sub(1, Ordering::AcqRel) == 1;
            let caches = is_last.then(|| set_watched(&list, false));
            drop(list);
            drop(caches);
        }
    }
}

fn count_watch(next: impl FnMut(usize) -> Option<usize>) -> bool {
    WATCHES.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
}

/// Sets the flag of all caches, and returns them. The last handle of a cache may be among them, which locks the list when
/// it is dropped.
#[cold]
fn set_watched(list: &ById, is_watched: bool) -> Vec<Arc<dyn Listed>> {
    let caches = list.values().filter_map(|entry| entry.cache.upgrade());
    caches.inspect(|cache| cache.set_watched(is_watched)).collect()
}

/// The place of a cache in the list, which it leaves on drop.
#[derive(Debug)]
pub(crate) struct Registration(u64);

impl Registration {
    /// Creates the place of a cache that is not listed yet.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Lists the cache.
    pub(crate) fn list(&self, cache: Weak<dyn Listed>) {
        let listed = cache.upgrade();
        let mut list = lock();
        list.insert(self.0, Entry { cache, name: None });
        if let Some(cache) = listed.as_ref().filter(|_| WATCHES.load(Ordering::Acquire) > 0) {
            cache.set_watched(true);
        }
        drop(list);
    }

    /// Sets the name of the cache.
    pub(crate) fn set_name(&self, name: Arc<str>) {
        let before = lock().get_mut(&self.0).and_then(|entry| entry.name.replace(name));
        drop(before);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = lock().remove(&self.0);
        drop(entry);
    }
}
