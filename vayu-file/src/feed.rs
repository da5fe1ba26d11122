//! The invalidation feed: an append-only log that processes with memory tiers poll.
//!
//! The log is the generation file of [`Group::BACKEND`], a group without entries: 16 random bytes,
//! then a record of four bytes for each change of an entry or a generation. A record is appended by
//! one write, which other processes cannot tear. The first subscriber creates the log; without one, a
//! change costs one failed system call more. A subscriber polls at most ten times per second, before
//! it uses a copy in memory.
//!
//! A change is recorded before it is made and again afterwards. The first record covers a process
//! that is killed after the change; the second invalidates what was read in the meantime. When the
//! log has become long, a new one replaces it, and each process discards all its copies. So a record
//! that is appended to the old log at that moment is not missed.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, Weak};
use std::time::Duration;

use vayu_core::__internal::IgnorePoison;
use vayu_core::{Group, Invalidation, InvalidationListener, Result, Timestamp};

use crate::errno::{is_absence, is_open_elsewhere};
use crate::fs::{Directory, FileType, buffer, read_full, write_full};
use crate::generations::LENGTH;
use crate::layout::EntryPath;
use crate::store::Store;

/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The length in bytes from which on a log is replaced.
const MAX_LOG_LENGTH: u64 = 256 * 1024;

/// The length of a record in bytes.
const RECORD_LENGTH: usize = 4;

/// The listeners of this process, and the last state of the log.
#[derive(Debug, Default)]
pub(crate) struct FeedPoller {
    listeners: Mutex<Vec<Weak<dyn InvalidationListener>>>,
    has_listeners: AtomicBool,
    /// The time of the next poll, in microseconds.
    next_poll: AtomicI64,
    /// The bytes of the log at the last poll.
    last_log: Mutex<Option<Vec<u8>>>,
}

impl FeedPoller {
    /// Adds a listener, and creates the log if there is none.
    pub(crate) fn subscribe(&self, store: &Store, listener: Weak<dyn InvalidationListener>) {
        let mut last_log = self.last_log();
        self.listeners().push(listener);
        if last_log.is_none() {
            *last_log = store.create_log();
        }
        self.has_listeners.store(true, Ordering::Release);
    }

    /// Reads the log and notifies the listeners, if a poll is due.
    #[inline]
    pub(crate) fn poll(&self, store: &Store) {
        if !self.has_listeners.load(Ordering::Acquire) {
            return;
        }
        let now = store.now();
        if self.is_due(now) {
            self.poll_log(store, now);
        }
    }

    #[cold]
    fn poll_log(&self, store: &Store, now: Timestamp) {
        let mut last_log = self.last_log();
        // Another call may have polled while this one waited for the lock.
        if !self.is_due(now) {
            return;
        }
        match store.open_files.with_fd_retry(|| store.read_log()) {
            Ok(log) => {
                self.notify(&appended(last_log.as_deref().unwrap_or_default(), &log));
                *last_log = Some(log);
            }
            Err(error) if is_absence(&error) && last_log.is_some() => {
                // The log was removed, and with it records that were not read.
                *last_log = store.create_log();
                self.notify(&[Invalidation::All]);
            }
            Err(_) => {}
        }
        // Last: a call that does not poll relies on the notifications.
        let next = now.saturating_add(POLL_INTERVAL).as_micros();
        self.next_poll.store(next, Ordering::Release);
    }

    #[inline]
    fn is_due(&self, now: Timestamp) -> bool {
        let next = Timestamp::from_micros(self.next_poll.load(Ordering::Acquire));
        !now.is_within_before(next, POLL_INTERVAL)
    }

    fn notify(&self, invalidations: &[Invalidation]) {
        if invalidations.is_empty() {
            return;
        }
        let mut listeners = self.listeners();
        listeners.retain(|listener| listener.strong_count() > 0);
        let live = listeners.clone();
        drop(listeners);
        for listener in live.iter().filter_map(Weak::upgrade) {
            for &invalidation in invalidations {
                listener.on_invalidation(invalidation);
            }
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Weak<dyn InvalidationListener>>> {
        self.listeners.lock().ignore_poison()
    }

    fn last_log(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.last_log.lock().ignore_poison()
    }
}

/// Encodes an invalidation as a record.
fn encode(invalidation: Invalidation) -> [u8; RECORD_LENGTH] {
    match invalidation {
        Invalidation::KeySlot([first, second]) => [b'k', first, second, b'\n'],
        Invalidation::Generations => [b'g', 0, 0, b'\n'],
        _ => [b'a', 0, 0, b'\n'],
    }
}

/// Decodes a record. An unknown record invalidates everything.
fn decode(record: &[u8]) -> Invalidation {
    match *record {
        [b'k', first, second, b'\n'] => Invalidation::KeySlot([first, second]),
        [b'g', 0, 0, b'\n'] => Invalidation::Generations,
        _ => Invalidation::All,
    }
}

/// Returns the invalidations that were appended to a log. Another log invalidates everything.
fn appended(before: &[u8], now: &[u8]) -> Vec<Invalidation> {
    match now.strip_prefix(before) {
        Some(new) if before.len() >= LENGTH => new.chunks(RECORD_LENGTH).map(decode).collect(),
        _ => vec![Invalidation::All],
    }
}

/// Appends an invalidation to the log of a directory, if there is one.
pub(crate) fn append(root: &dyn Directory, invalidation: Invalidation) -> io::Result<()> {
    match append_record(root, &encode(invalidation)) {
        Err(error) if !is_absence(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Appends a record. Returns the length of the log before.
fn append_record(root: &dyn Directory, record: &[u8]) -> io::Result<u64> {
    let mut log = root.open_to_append(EntryPath::of_generation(Group::BACKEND).as_str())?;
    let status = log.status()?;
    if status.file_type == FileType::File {
        write_full(&mut *log, record)?;
    }
    Ok(status.length)
}

impl Store {
    /// Appends an invalidation to the log. Without a log, this costs one system call.
    pub(crate) fn publish(&self, invalidation: Invalidation) -> Result<()> {
        match self.open_files.with_fd_retry(|| append_record(&*self.root, &encode(invalidation))) {
            Ok(length) if length > MAX_LOG_LENGTH => self.bump(Group::BACKEND),
            Ok(_) => Ok(()),
            Err(error) if is_absence(&error) => Ok(()),
            // A full disk has no space for a record; replacing the log invalidates everything.
            Err(_) => self.bump(Group::BACKEND),
        }
    }

    /// Appends an invalidation to the log, and ignores errors. Returns `false` if another program has the log open, for
    /// which this has waited.
    pub(crate) fn try_publish(&self, invalidation: Invalidation) -> bool {
        let appended = append_record(&*self.root, &encode(invalidation));
        !appended.is_err_and(|error| is_open_elsewhere(&error))
    }

    /// Reads all of the log: file times are too coarse to prove that nothing was appended.
    fn read_log(&self) -> io::Result<Vec<u8>> {
        let file = self.root.open(EntryPath::of_generation(Group::BACKEND).as_str())?;
        let mut bytes = buffer(file.status()?.length.min(2 * MAX_LOG_LENGTH))?;
        read_full(&*file, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads the log, and creates it if there is none. On failure, changes by other processes are not
    /// noticed until the next subscriber tries again; in a directory that cannot be written to, little
    /// changes.
    fn create_log(&self) -> Option<Vec<u8>> {
        let read = || self.open_files.with_fd_retry(|| self.read_log());
        match read() {
            Err(error) if is_absence(&error) => {
                self.bump(Group::BACKEND).ok()?;
                read().ok()
            }
            log => log.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_decodes_to_its_invalidation_and_unknown_record_to_all() {
        for known in [Invalidation::KeySlot([0, 255]), Invalidation::Generations, Invalidation::All]
        {
            assert_eq!(decode(&encode(known)), known);
        }
        for unknown in [&b""[..], b"k", b"k12", b"k12x", b"g12\n", b"z\0\0\n"] {
            assert_eq!(decode(unknown), Invalidation::All);
        }
    }

    #[test]
    fn appended_records_are_returned_and_another_log_invalidates_all() {
        let (id, other) = ([1; LENGTH], [2; LENGTH]);
        let with = |id: [u8; LENGTH], records: &[Invalidation]| {
            id.into_iter().chain(records.iter().flat_map(|&it| encode(it))).collect::<Vec<_>>()
        };
        let (one, two) = (Invalidation::KeySlot([1, 2]), Invalidation::Generations);
        assert_eq!(appended(&with(id, &[]), &with(id, &[one, two])), [one, two]);
        assert_eq!(appended(&with(id, &[one]), &with(id, &[one, two])), [two]);
        assert_eq!(appended(&with(id, &[one]), &with(id, &[one])), []);
        assert_eq!(appended(&with(id, &[one, two]), &with(id, &[one])), [Invalidation::All]);
        assert_eq!(appended(&with(id, &[]), &with(other, &[one])), [Invalidation::All]);
        assert_eq!(appended(&[], &with(id, &[])), [Invalidation::All]);
    }
}
