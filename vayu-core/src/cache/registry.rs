//! The list of the caches of the process.
//!
//! A cache is listed while a handle on it exists. The list holds weak references, so it keeps no cache
//! alive, and the part of a cache that its handles share removes itself when it is dropped. No code of a
//! backend runs while the list is locked.
//!
//! By the list, the first [watch](crate::watch()) of the process sets a flag of each cache. It is set for each later
//! cache when that is listed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, TryLockError, Weak};

use crate::panic::catch_panic;
use crate::per_process::PerProcess;
use crate::stats::Stats;
use crate::sync::IgnorePoison;

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
pub(super) trait Listed: Send + Sync {
    /// Returns the description of the backend.
    fn description(&self) -> String;

    /// Returns the statistics of the cache. A panic of the backend leaves out its usage.
    fn stats(&self) -> Stats;

    /// Reports the calls of the cache to watches from now on.
    fn set_watched(&self);
}

struct Entry {
    cache: Weak<dyn Listed>,
    name: Option<Arc<str>>,
}

/// The caches by the numbers of their registrations.
type ById = BTreeMap<u64, Entry>;

static LIST: LazyLock<PerProcess<Mutex<ById>>> = LazyLock::new(|| PerProcess::new(empty()));

fn empty() -> Mutex<ById> {
    Mutex::new(ById::new())
}

/// Locks the list. If a thread of a parent process holds the lock, the list of the child starts empty.
fn lock() -> MutexGuard<'static, ById> {
    match LIST.get().try_lock() {
        Ok(list) => return list,
        Err(TryLockError::Poisoned(list)) => return list.into_inner(),
        Err(TryLockError::WouldBlock) => {
            LIST.replace_after_fork(empty);
        }
    }
    LIST.get().lock().ignore_poison()
}

/// Set once there was a watch. It changes while the list is locked, after the flags of all caches in it are set.
static IS_WATCHING: AtomicBool = AtomicBool::new(false);

/// Reports the calls of all caches to watches from now on.
pub(crate) fn begin_watching() {
    if !IS_WATCHING.load(Ordering::Acquire) {
        begin_watching_cold();
    }
}

#[cold]
fn begin_watching_cold() {
    let list = lock();
    let caches = list.values().filter_map(|entry| entry.cache.upgrade());
    let caches: Vec<_> = caches.inspect(|cache| cache.set_watched()).collect();
    IS_WATCHING.store(true, Ordering::Release);
    // The last handle of a cache may be among them, which locks the list when it is dropped.
    drop(list);
    drop(caches);
}

/// The place of a cache in the list, which it leaves on drop.
#[derive(Debug)]
pub(super) struct Registration(u64);

impl Registration {
    /// Creates the place of a cache that is not listed yet.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Lists the cache.
    pub(super) fn list(&self, cache: Weak<dyn Listed>) {
        let listed = cache.upgrade();
        let mut list = lock();
        list.insert(self.0, Entry { cache, name: None });
        if let Some(cache) = listed.as_ref().filter(|_| IS_WATCHING.load(Ordering::Relaxed)) {
            cache.set_watched();
        }
        drop(list);
    }

    /// Sets the name of the cache.
    pub(super) fn set_name(&self, name: Arc<str>) {
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
