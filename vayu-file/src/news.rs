//! How a process learns that others have removed entries: the generation of a group that no entry is
//! in is renewed with each removal, once there is somebody who looks at it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vayu_core::{Change, Group, News, Result, Timestamp, Watcher};

use crate::backend::FileBackend;
use crate::store::Store;

/// How long a process does without looking.
const INTERVAL: Duration = Duration::from_millis(100);

/// Who is to be told, and what was seen last.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    /// When to look again, in microseconds.
    next: AtomicI64,
    seen: AtomicU64,
}

impl Lookout {
    fn watchers(&self) -> MutexGuard<'_, Vec<Weak<dyn Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let mut watchers = self.watchers();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        let told = watchers.clone();
        drop(watchers);
        for watcher in told.iter().filter_map(Weak::upgrade) {
            watcher.changed(Change::Everything);
        }
    }
}

impl Store {
    /// Lets whoever looks know that something was removed. Where nobody ever looked, that costs one
    /// system call.
    pub(crate) fn announce(&self) -> Result<()> {
        match self.generation(Group::OF_BACKEND) {
            Ok(0) => Ok(()),
            // What cannot be read can be replaced all the same.
            _ => self.renew(Group::OF_BACKEND),
        }
    }

    #[cold]
    fn look(&self, now: Timestamp) {
        let next = now.saturating_add(INTERVAL).as_micros();
        self.lookout.next.store(next, Ordering::Relaxed);
        let Ok(generation) = self.generation(Group::OF_BACKEND) else { return };
        if self.lookout.seen.swap(generation, Ordering::AcqRel) != generation {
            self.lookout.tell();
        }
    }
}

impl News for FileBackend {
    fn watch(&self, watcher: Weak<dyn Watcher>) {
        self.store.lookout.watchers().push(watcher);
        // Where that fails, others are not heard of before it is tried again by another watcher; a
        // directory that cannot be written to is one in which little is removed.
        if self.store.generation(Group::OF_BACKEND).is_ok_and(|generation| generation == 0) {
            let _ = self.store.renew(Group::OF_BACKEND);
        }
    }

    /// Reads a small file, ten times in a second at most.
    #[inline]
    fn look(&self) {
        let now = self.store.now();
        let next = Timestamp::from_micros(self.store.lookout.next.load(Ordering::Relaxed));
        // A clock that was set back must not keep everybody from looking.
        if now >= next || next.saturating_since(now) > INTERVAL {
            self.store.look(now);
        }
    }
}
