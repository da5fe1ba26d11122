//! Pausing of all caches of the process.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of pauses. Without a clock there is one from the start.
static PAUSES: AtomicUsize = AtomicUsize::new(if HAS_CLOCK { 0 } else { 1 });

/// `false` where the program must set a clock.
const HAS_CLOCK: bool =
    !cfg!(all(target_family = "wasm", target_os = "unknown", not(feature = "js")));

/// Ends the pause that there is without a clock.
#[cfg(all(target_family = "wasm", target_os = "unknown", feature = "host-clock"))]
pub(crate) fn end_pause_without_clock() {
    if !HAS_CLOCK {
        PAUSES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns whether all caches are paused.
#[inline]
pub(crate) fn is_everything_paused() -> bool {
    PAUSES.load(Ordering::Relaxed) > 0
}

/// Pauses all caches of this process until the returned guard is dropped: calls run their function,
/// nothing is read or stored. For tests without caching.
///
/// Several pauses may overlap; the caches resume when the last one has ended.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// # use std::time::Duration;
/// # use vayu_core as vayu;
/// use vayu::pause_all;
/// # use vayu::{Cache, Key, MessagePack, testing::MapBackend};
/// # let cache: Cache<MapBackend, MessagePack> = Cache::new();
/// # let key = Key::from_text("p", "k");
/// # let minute = Duration::from_secs(60);
/// cache.get_or_insert_with(&key, minute, || 1);
/// let pause = pause_all();
/// assert_eq!(cache.get_or_insert_with(&key, minute, || 2), 2);
/// drop(pause);
/// assert_eq!(cache.get_or_insert_with(&key, minute, || 3), 1);
/// # }
/// ```
pub fn pause_all() -> PauseAllGuard {
    PAUSES.fetch_add(1, Ordering::SeqCst);
    PauseAllGuard(())
}

/// A guard during whose lifetime no cache of the process reads or stores. See [`pause_all`].
#[derive(Debug)]
#[must_use = "the pause ends when this is dropped"]
pub struct PauseAllGuard(());

impl PauseAllGuard {
    /// Ends this pause.
    pub fn resume(self) {
        drop(self);
    }
}

impl Drop for PauseAllGuard {
    fn drop(&mut self) {
        PAUSES.fetch_sub(1, Ordering::SeqCst);
    }
}
