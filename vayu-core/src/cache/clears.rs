//! The clears of a cache, as far as updates need to know them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of clears that have begun and that have ended.
#[derive(Debug, Default)]
pub(super) struct Clears {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A clear in progress, which ends on drop.
pub(super) struct Clearing<'a>(&'a Clears);

impl Clears {
    pub(super) fn begin(&self) -> Clearing<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Clearing(self)
    }

    /// Returns the number of clears, or `None` while one is in progress. No clear has overlapped with what was
    /// done between two calls that return the same number.
    pub(super) fn settled(&self) -> Option<u64> {
        let ended = self.ended.load(Ordering::SeqCst);
        (self.begun.load(Ordering::SeqCst) == ended).then_some(ended)
    }
}

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn number_is_known_while_no_clear_is_in_progress() {
        let clears = Clears::default();
        assert_eq!(clears.settled(), Some(0));
        let (first, second) = (clears.begin(), clears.begin());
        assert_eq!(clears.settled(), None);
        drop(first);
        assert_eq!(clears.settled(), None);
        drop(second);
        assert_eq!(clears.settled(), Some(2));
    }
}
