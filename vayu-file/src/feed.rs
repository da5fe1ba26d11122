//! How a process with memory in front learns what others change: from a log of changes.
//!
//! The log is the file of a generation that no entry is in. It begins with the generation, and each
//! change of an entry or a generation appends a record of four bytes, in one write, which other processes
//! cannot tear. It exists once there is a process with memory in front, so that others pay for it from
//! then on. A process looks at it ten times in a second at most, before it takes anything from memory.
//!
//! A change is recorded before it is made and again afterwards. What was read before the end of the
//! change is so given up, and a process that is killed after the change has recorded it before. A log
//! that has become long gives way to a new one, and every process then gives up all that it has. So a
//! record that is appended to the old one at that moment is not missed.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vayu_core::{Group, Invalidation, InvalidationFeed, InvalidationListener, Result, Timestamp};

use crate::backend::FileBackend;
use crate::fs::{Kind, buffer, read_full, write_full};
use crate::generations::LENGTH;
use crate::layout::Place;
use crate::store::{Store, is_absence};

/// How long a process does without looking.
const INTERVAL: Duration = Duration::from_millis(100);

/// A log that is longer, in bytes, gives way to a new one.
const LONGEST: u64 = 256 * 1024;

/// The bytes of a record.
const RECORD: usize = 4;

/// Who is to be told, and what was seen last.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    watchers: Mutex<Vec<Weak<dyn InvalidationListener>>>,
    is_watched: AtomicBool,
    /// When to look again, in microseconds.
    next: AtomicI64,
    /// What was in the log the last time.
    seen: Mutex<Option<Vec<u8>>>,
}

impl Lookout {
    fn watchers(&self) -> MutexGuard<'_, Vec<Weak<dyn InvalidationListener>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn is_due(&self, now: Timestamp) -> bool {
        let next = Timestamp::from_micros(self.next.load(Ordering::Acquire));
        // A clock that was set back must not keep every call from looking.
        now >= next || next.saturating_since(now) > INTERVAL
    }

    fn tell(&self, changes: &[Invalidation]) {
        if changes.is_empty() {
            return;
        }
        let mut watchers = self.watchers();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        let told = watchers.clone();
        drop(watchers);
        for watcher in told.iter().filter_map(Weak::upgrade) {
            for &change in changes {
                watcher.on_invalidation(change);
            }
        }
    }
}

/// The record of a change.
fn record(change: Invalidation) -> [u8; RECORD] {
    match change {
        Invalidation::KeySlot([first, second]) => [b'k', first, second, b'\n'],
        Invalidation::Generations => [b'g', 0, 0, b'\n'],
        _ => [b'a', 0, 0, b'\n'],
    }
}

/// The change that a record stands for. One that is not known may be any.
fn change(record: &[u8]) -> Invalidation {
    match *record {
        [b'k', first, second, b'\n'] => Invalidation::KeySlot([first, second]),
        [b'g', 0, 0, b'\n'] => Invalidation::Generations,
        _ => Invalidation::All,
    }
}

/// What has changed between two readings of the log.
fn changes(before: &[u8], now: &[u8]) -> Vec<Invalidation> {
    match now.strip_prefix(before) {
        Some(new) if before.len() >= LENGTH => new.chunks(RECORD).map(change).collect(),
        _ => vec![Invalidation::All],
    }
}

impl Store {
    /// Records a change for processes with memory in front, if there ever was one. Where there was none,
    /// that costs one system call.
    pub(crate) fn announce(&self, change: Invalidation) -> Result<()> {
        match self.held.making_room(|| self.append(&record(change))) {
            Ok(length) if length > LONGEST => self.bump(Group::BACKEND),
            Ok(_) => Ok(()),
            Err(error) if is_absence(&error) => Ok(()),
            // A disk that is full has no room for a record, and a log of another generation says as much.
            Err(_) => self.bump(Group::BACKEND),
        }
    }

    /// Records a change if that can be done at once.
    pub(crate) fn try_announce(&self, change: Invalidation) {
        let _ = self.append(&record(change));
    }

    /// Returns the length before.
    fn append(&self, record: &[u8]) -> io::Result<u64> {
        let mut log = self.root.open_to_append(Place::of_generation(Group::BACKEND).path())?;
        let status = log.status()?;
        if status.kind == Kind::File {
            write_full(&mut *log, record)?;
        }
        Ok(status.length)
    }

    /// Reads the log as a whole: no time of a file is exact enough to say that nothing was appended.
    fn read_log(&self) -> io::Result<Vec<u8>> {
        let file = self.root.open(Place::of_generation(Group::BACKEND).path())?;
        let mut bytes = buffer(file.status()?.length.min(2 * LONGEST))?;
        read_full(&*file, &mut bytes)?;
        Ok(bytes)
    }

    #[cold]
    fn look(&self, now: Timestamp) {
        let mut seen = self.lookout.seen();
        // Another call may have looked while this one waited for it.
        if !self.lookout.is_due(now) {
            return;
        }
        match self.held.making_room(|| self.read_log()) {
            Ok(new) => {
                self.lookout.tell(&changes(seen.as_deref().unwrap_or_default(), &new));
                *seen = Some(new);
            }
            Err(error) if is_absence(&error) && seen.is_some() => {
                // It was removed, and with it what others have recorded.
                *seen = self.begin_log();
                self.lookout.tell(&[Invalidation::All]);
            }
            Err(_) => {}
        }
        // Only now: whoever sees this has been told.
        let next = now.saturating_add(INTERVAL).as_micros();
        self.lookout.next.store(next, Ordering::Release);
    }

    /// Begins a log if there is none. Where that fails, the changes of others are not noticed before it
    /// is tried again by another watcher; a directory that cannot be written to is one in which little
    /// is changed.
    fn begin_log(&self) -> Option<Vec<u8>> {
        let read = || self.held.making_room(|| self.read_log());
        match read() {
            Err(error) if is_absence(&error) => {
                self.bump(Group::BACKEND).ok()?;
                read().ok()
            }
            seen => seen.ok(),
        }
    }
}

impl InvalidationFeed for FileBackend {
    fn subscribe(&self, watcher: Weak<dyn InvalidationListener>) {
        let lookout = &self.store.lookout;
        let mut seen = lookout.seen();
        lookout.watchers().push(watcher);
        if seen.is_none() {
            *seen = self.store.begin_log();
        }
        lookout.is_watched.store(true, Ordering::Release);
    }

    /// Looks at a small file, ten times in a second at most.
    #[inline]
    fn poll(&self) {
        let lookout = &self.store.lookout;
        if !lookout.is_watched.load(Ordering::Acquire) {
            return;
        }
        let now = self.store.now();
        if lookout.is_due(now) {
            self.store.look(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_says_what_has_changed_and_an_unknown_one_may_say_anything() {
        for known in [Invalidation::KeySlot([0, 255]), Invalidation::Generations, Invalidation::All]
        {
            assert_eq!(change(&record(known)), known);
        }
        for unknown in [&b""[..], b"k", b"k12", b"k12x", b"g12\n", b"z\0\0\n"] {
            assert_eq!(change(unknown), Invalidation::All);
        }
    }

    #[test]
    fn log_that_goes_on_says_what_is_new_and_another_log_may_say_anything() {
        let (id, other) = ([1; LENGTH], [2; LENGTH]);
        let with = |id: [u8; LENGTH], records: &[Invalidation]| {
            id.into_iter().chain(records.iter().flat_map(|&it| record(it))).collect::<Vec<_>>()
        };
        let (one, two) = (Invalidation::KeySlot([1, 2]), Invalidation::Generations);
        assert_eq!(changes(&with(id, &[]), &with(id, &[one, two])), [one, two]);
        assert_eq!(changes(&with(id, &[one]), &with(id, &[one, two])), [two]);
        assert_eq!(changes(&with(id, &[one]), &with(id, &[one])), []);
        assert_eq!(changes(&with(id, &[one, two]), &with(id, &[one])), [Invalidation::All]);
        assert_eq!(changes(&with(id, &[]), &with(other, &[one])), [Invalidation::All]);
        assert_eq!(changes(&[], &with(id, &[])), [Invalidation::All]);
    }
}
