//! The entries of one directory: state, clearing and leases.
//!
//! Each entry is one file in one of 256 subdirectories (shards), named by the digest of its key. A
//! write goes to a temporary file that is then renamed over the entry, so that a reader sees the old
//! entry, the new one or none. A read trusts no file: header, key and checksum are verified each time.
//!
//! The size of the directory is limited without an index. Each shard has a record of its number of
//! entries, their size, the time of the oldest one and the next expiry ([`ShardUsage`]); a write
//! updates the record of its shard, and processes exchange the records in a file ([`Counts`]). When a
//! limit is exceeded, the write sweeps the shard with the oldest entry. Expired entries are removed by
//! a sweep of at most a millisecond at the end of a write. No thread is started.

mod batch;
mod limits;
mod read;
mod write;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vayu_core::__internal::IgnorePoison;
use vayu_core::{
    Clock, EndCause, EndListeners, Error, ErrorKind, Invalidation, Key, Lease, LeaseGuard, Result,
    SingleFlight, Timestamp, Usage,
};

use crate::counts::Counts;
use crate::directory;
use crate::ends::{Ended, Ending, remove_entry};
use crate::errno::is_absence;
use crate::fs::Directory;
use crate::layout::{EntryPath, FileKind, SHARDS, shard_name};
use crate::located_key::LocatedKey;
use crate::lock::{KeyLock, try_lock};
use crate::open_files::OpenFiles;
use crate::options::{Durability, FileOptions};
use crate::outages::Outages;
use crate::shard_usage::{ShardContent, ShardUsage};

/// The entries of a directory.
pub(crate) struct Store {
    pub(crate) root: Box<dyn Directory>,
    clock: Arc<dyn Clock>,
    pub(crate) durability: Durability,
    single_flight: SingleFlight,
    hides_arguments: bool,
    max_bytes: u64,
    max_entries: u64,
    max_entry_bytes: u64,
    /// No file is accessed while it is locked.
    shard_usage: Mutex<ShardUsage>,
    /// Set for each shard that a thread of this process is sweeping.
    sweep_locks: [AtomicBool; SHARDS],
    pub(crate) open_files: OpenFiles,
    evictions: AtomicU64,
    expirations: AtomicU64,
    corrupt_entries: AtomicU64,
    sweeps: AtomicU64,
    logged_eviction: AtomicBool,
    pub(crate) outages: Outages,
    pub(crate) ends: EndListeners,
}

impl Store {
    /// Creates a store, and marks the directory as a cache.
    ///
    /// # Errors
    ///
    /// When the directory cannot be marked, or contains other files.
    pub(crate) fn new(root: Box<dyn Directory>, options: &FileOptions) -> Result<Self> {
        let is_new = directory::mark(&*root)?;
        Ok(Self::in_marked(root, options, is_new))
    }

    /// Creates a store in a directory that is marked, or needs no mark.
    pub(crate) fn in_marked(root: Box<dyn Directory>, options: &FileOptions, is_new: bool) -> Self {
        let mut usage = ShardUsage::new(options.max_entries, options.max_bytes, is_new);
        // Without the file, this process uses only what it has counted itself.
        if is_new {
            let _ = Counts::create(&*root, usage.shards());
        } else if let Ok(counts) = Counts::open(&*root) {
            counts.merge_into(&mut usage);
        }
        Self {
            open_files: OpenFiles::new(&*root, options.open_files),
            root,
            clock: Arc::clone(&options.clock),
            durability: options.durability,
            single_flight: options.single_flight,
            hides_arguments: options.hides_arguments,
            max_bytes: options.max_bytes,
            max_entries: options.max_entries,
            max_entry_bytes: options.max_entry_bytes,
            shard_usage: Mutex::new(usage),
            sweep_locks: [const { AtomicBool::new(false) }; SHARDS],
            evictions: AtomicU64::new(0),
            expirations: AtomicU64::new(0),
            corrupt_entries: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
            logged_eviction: AtomicBool::new(false),
            outages: Outages::new(&options.clock),
            ends: EndListeners::new(),
        }
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Removes every entry.
    pub(crate) fn clear(&self) -> Result<()> {
        let failed = |error| self.outages.error("clear cache directory", error);
        if !directory::is_marked(&*self.root).map_err(failed)? {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the directory is not marked as a cache, so nothing is deleted in it",
            ));
        }
        self.publish(Invalidation::All)?;
        self.remove_all().map_err(failed)?;
        self.publish(Invalidation::All)
    }

    /// Removes every entry of a directory that is marked as a cache, without publishing that.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        if !directory::is_marked(&*self.root)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut can_publish = true;
        for shard in 0..SHARDS {
            // A process that is killed here has published what it removed so far.
            can_publish = can_publish && self.try_publish(Invalidation::All);
            let cleared = self.open_files.with_fd_retry(|| self.clear_shard(shard));
            self.open_files.close_shard(shard);
            cleared?;
        }
        let cleared = {
            let mut usage = self.shard_usage();
            usage.clear();
            usage.shards().copied().collect::<Vec<_>>()
        };
        if let Ok(mut counts) = Counts::open(&*self.root) {
            let _ = counts.write_all(cleared.iter());
        }
        Ok(())
    }

    fn clear_shard(&self, shard: usize) -> io::Result<()> {
        let directory = match self.root.open_directory(&shard_name(shard)) {
            Ok(directory) => directory,
            Err(error) if is_absence(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut ended = (!self.ends.is_empty()).then(Vec::new);
        let result = self.clear_directory(&*directory, &mut ended);
        self.report(ended.unwrap_or_default());
        result
    }

    /// Removes the entries of a shard. Adds them to `ended`, if there is a list.
    fn clear_directory(
        &self,
        directory: &dyn Directory,
        ended: &mut Option<Vec<Ended>>,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        directory.list(&mut |name| {
            if FileKind::of(name) == FileKind::Entry {
                names.push(name.to_owned());
            }
        })?;
        for name in names {
            match remove_entry(directory, &name, EndCause::Invalidated, ended) {
                Err(error) if !is_absence(&error) => return Err(error),
                _ => {}
            }
        }
        self.sync(directory)
    }

    /// Returns the entry of a file that is about to go, if that is to be reported.
    fn ending(&self, directory: &dyn Directory, name: &str) -> Option<Ending> {
        if self.ends.is_empty() { None } else { Ending::read(directory, name) }
    }

    /// Reports entries that have left the directory.
    fn report(&self, ended: impl IntoIterator<Item = Ended>) {
        self.ends.report_all(ended.into_iter().map(|Ended { function, cause }| (function, cause)));
    }

    /// Tries to lock a key for all processes, if the options ask for that. `to_guard` wraps the lock.
    pub(crate) fn try_acquire_lease(
        &self,
        key: &Key,
        to_guard: impl FnOnce(KeyLock) -> LeaseGuard,
    ) -> Result<Lease> {
        if self.single_flight == SingleFlight::Process {
            return Ok(Lease::NotRequired);
        }
        let key = LocatedKey::of(key);
        let path = key.path();
        let lock = || self.shard(path).and_then(|shard| try_lock(shard, path.lock_name()));
        let locked = self.open_files.with_fd_retry(lock);
        Ok(match locked.map_err(|error| self.outages.error("lock entry", error))? {
            Some(lock) => Lease::Acquired(to_guard(lock)),
            None => Lease::Held,
        })
    }

    /// Returns the counters and the known size, without accessing a file.
    pub(crate) fn usage(&self) -> Usage {
        let (entries, bytes) = {
            let usage = self.shard_usage();
            let is_complete = usage.is_complete();
            (is_complete.then(|| usage.entries()), is_complete.then(|| usage.bytes()))
        };
        let mut usage = Usage::default();
        usage.entries = entries;
        usage.max_entries = (self.max_entries < u64::MAX).then_some(self.max_entries);
        usage.weight = bytes;
        usage.max_weight = Some(self.max_bytes);
        usage.max_entry_bytes = Some(self.max_entry_bytes);
        usage.evictions = Some(self.evictions.load(Ordering::Relaxed));
        usage.expirations = Some(self.expirations.load(Ordering::Relaxed));
        usage.corrupt_entries = Some(self.corrupt_entries.load(Ordering::Relaxed));
        usage.sweeps = Some(self.sweeps.load(Ordering::Relaxed));
        usage
    }

    /// Updates the record of a shard, in this process and in the shared file.
    fn update_usage(&self, shard: usize, update: impl FnOnce(&mut ShardContent)) {
        self.update_counts(shard, |usage| usage.update(shard, update));
    }

    /// Merges the shared records, applies `update`, and writes the record of the shard back.
    fn update_counts<T>(&self, shard: usize, update: impl FnOnce(&mut ShardUsage) -> T) -> T {
        let counts = match Counts::open(&*self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // An older version wrote this directory, or the file was removed: start it with the
                // records of this process.
                let known = self.shard_usage().shards().copied().collect::<Vec<_>>();
                let is_created = directory::is_marked(&*self.root).is_ok_and(|is_marked| is_marked)
                    && Counts::create(&*self.root, known.iter()).is_ok();
                if is_created { Counts::open(&*self.root).ok() } else { None }
            }
            opened => opened.ok(),
        };
        let mut usage = self.shard_usage();
        if let Some(counts) = &counts {
            counts.merge_into(&mut usage);
        }
        let result = update(&mut usage);
        let updated = *usage.shard(shard);
        drop(usage);
        if let Some(mut counts) = counts {
            let _ = counts.write(shard, &updated);
        }
        result
    }

    /// Opens the shard of a file, and creates it if it does not exist.
    fn shard(&self, path: &EntryPath) -> io::Result<Box<dyn Directory>> {
        let name = shard_name(path.shard());
        match self.open_directory(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        match self.root.create_directory(&name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync(&*self.root)?;
        self.open_directory(&name)
    }

    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        self.open_files.with_fd_retry(|| self.root.open_directory(name))
    }

    /// Syncs the names in a directory, with [`Durability::Synced`].
    fn sync(&self, directory: &dyn Directory) -> io::Result<()> {
        match self.durability {
            // Only the sync is retried without a descriptor: what precedes it must not run twice.
            Durability::Synced => self.open_files.with_fd_retry(|| directory.sync()),
            Durability::Relaxed => Ok(()),
        }
    }

    fn shard_usage(&self) -> MutexGuard<'_, ShardUsage> {
        self.shard_usage.lock().ignore_poison()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("max_bytes", &self.max_bytes)
            .field("max_entries", &self.max_entries)
            .field("durability", &self.durability)
            .field("single_flight", &self.single_flight)
            .field("evictions", &self.evictions)
            .field("expirations", &self.expirations)
            .field("corrupt_entries", &self.corrupt_entries)
            .field("sweeps", &self.sweeps)
            .finish_non_exhaustive()
    }
}

/// Returns the invalidation that a change of a key causes in memory tiers.
fn invalidation_of(key: &LocatedKey) -> Invalidation {
    let digest = key.wire().digest();
    Invalidation::KeySlot([digest[0], digest[1]])
}
