//! Reading and writing entries below a folder.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rustix::rand::{GetRandomFlags, getrandom};
use vayu_core::wire::{self, EncodedEntry, Header};
use vayu_core::{
    Clock, Error, ErrorKind, Invalidation, Key, Lease, LeaseGuard, Record, Result, SingleFlight,
    Timestamp, Usage,
};

use crate::counts::Counts;
use crate::directory;
use crate::feed::Lookout;
use crate::fs::{File, Folder, Kind, buffer, read_full, read_some, write_full};
use crate::layout::{Place, Role, SHARDS, shard_name, temporary_name};
use crate::located_key::Address;
use crate::lock::{KeyLock, try_lock};
use crate::offload::{CancelFlag, cancelled};
use crate::open_files::{HeldFiles, LONGEST_HELD};
use crate::options::{Durability, FileOptions};
use crate::shard_usage::{BLOCK, Content, Excess, Ledger, charge};
use crate::sweep::{Eviction, Sweep, Swept};

/// A directory of entries.
pub(crate) struct Store {
    pub(crate) root: Box<dyn Folder>,
    clock: Arc<dyn Clock>,
    pub(crate) durability: Durability,
    single_flight: SingleFlight,
    max_bytes: u64,
    max_entries: u64,
    max_entry_bytes: u64,
    /// No file is touched while it is locked.
    ledger: Mutex<Ledger>,
    /// The shards that are being swept by a thread of this process.
    swept: [AtomicBool; SHARDS],
    pub(crate) held: HeldFiles,
    evictions: AtomicU64,
    expirations: AtomicU64,
    corrupt_entries: AtomicU64,
    sweeps: AtomicU64,
    has_told_of_evictions: AtomicBool,
    pub(crate) lookout: Lookout,
}

/// An entry shorter than this is read without asking for its length.
const SMALL: usize = 64 * 1024;

/// An entry that was longer than this when it was last read, in bytes, is read into memory that its
/// value keeps. The value of a shorter one is copied out of the buffer of the thread, which costs
/// less than a second block of memory.
const COPIED: u64 = 4 * 1024;

/// How long a write may look for what has expired, and in how many shards.
const SWEEPING_TIME: Duration = Duration::from_millis(1);
const SWEEPING_SHARDS: usize = 8;

/// How many entries a write looks at to keep the limits, apart from those that it may need to make as
/// much go as it has written, and how many it looks at in one shard at most.
const LOOKS: usize = 1024;

/// What it costs to look into a shard, as a number of entries.
const SHARD_LOOKS: usize = 4;

impl Store {
    /// Marks the folder as a cache.
    ///
    /// # Errors
    ///
    /// When it cannot be marked, or holds other files.
    pub(crate) fn new(root: Box<dyn Folder>, options: &FileOptions) -> Result<Self> {
        let is_new = directory::mark(&*root)?;
        Ok(Self::in_marked(root, options, is_new))
    }

    /// Creates a store in a folder that is marked, or needs no mark.
    pub(crate) fn in_marked(root: Box<dyn Folder>, options: &FileOptions, is_new: bool) -> Self {
        let mut ledger = Ledger::new(options.max_entries, options.max_bytes, is_new);
        // Where it cannot be made or read, what this process learns is all that it knows.
        if is_new {
            let _ = Counts::make(&*root, ledger.shards());
        } else if let Ok(counts) = Counts::open(&*root) {
            ledger.merge(&counts);
        }
        Self {
            held: HeldFiles::new(&*root, options.open_files),
            root,
            clock: Arc::clone(&options.clock),
            durability: options.durability,
            single_flight: options.single_flight,
            max_bytes: options.max_bytes,
            max_entries: options.max_entries,
            max_entry_bytes: options.max_entry_bytes,
            ledger: Mutex::new(ledger),
            swept: [const { AtomicBool::new(false) }; SHARDS],
            evictions: AtomicU64::new(0),
            expirations: AtomicU64::new(0),
            corrupt_entries: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
            has_told_of_evictions: AtomicBool::new(false),
            lookout: Lookout::default(),
        }
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let address = Address::of(key);
        if let Some(record) = self.read_held(&address) {
            return Ok(Some(record));
        }
        match self.held.making_room(|| self.read_entry(&address)) {
            Ok(found) => Ok(found),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(failed("read entry", error)),
        }
    }

    /// The record of an entry whose file is held open, while its name stands for that file. What
    /// is held and gives none is let go.
    fn read_held(&self, address: &Address) -> Option<Record<Bytes>> {
        if !(1..=LONGEST_HELD).contains(&address.last_length()) {
            return None;
        }
        let held = self.held.get(address.key())?;
        let named = self.root.status(address.place().path());
        let record = if named.is_ok_and(|named| named == held.status) {
            self.read_file(&*held.file, address).ok().flatten()
        } else {
            None
        };
        if record.is_none() {
            self.held.let_go(address.key());
        }
        record
    }

    fn read_entry(&self, address: &Address) -> io::Result<Option<Record<Bytes>>> {
        let file = self.root.open(address.place().path())?;
        let was_read_before = address.last_length() > 0;
        let record = self.read_file(&*file, address)?;
        if record.is_none() {
            self.corrupt_entries.fetch_add(1, Ordering::Relaxed);
        } else if was_read_before && address.last_length() <= LONGEST_HELD {
            self.held.hold(address.key(), file);
        }
        Ok(record)
    }

    /// The record of an entry, if the file holds one and of this key.
    fn read_file(&self, file: &dyn File, address: &Address) -> io::Result<Option<Record<Bytes>>> {
        let length = address.last_length();
        if length <= COPIED || length > self.max_entry_bytes {
            return with_buffer(|start| {
                self.read_through(start, file, address, |bytes, value| {
                    Bytes::copy_from_slice(&bytes[value])
                })
            });
        }
        // With one byte more than there was, a read sees that nothing was added.
        self.read_through(&mut buffer(length + 1)?, file, address, keep)
    }

    /// Reads an entry, the beginning of it into an empty buffer. Where that holds all of it, the
    /// value is taken out by `take`.
    fn read_through(
        &self,
        start: &mut Vec<u8>,
        file: &dyn File,
        address: &Address,
        take: fn(&mut Vec<u8>, Range<usize>) -> Bytes,
    ) -> io::Result<Option<Record<Bytes>>> {
        read_some(file, start)?;
        if start.len() < start.capacity() {
            // What is believed is whole, so the end of the file need not be seen.
            if let Some(record) = self.believe(address, start) {
                return Ok(Some(record.map(|value| take(start, value))));
            }
            read_full(file, start)?;
        }
        if start.len() < start.capacity() {
            let record = self.believe(address, start);
            return Ok(record.map(|record| record.map(|value| take(start, value))));
        }
        let Some(mut bytes) = self.read_long(file, start)? else { return Ok(None) };
        let record = self.believe(address, &bytes);
        Ok(record.map(|record| record.map(|value| keep(&mut bytes, value))))
    }

    /// The whole of a long entry of which `start` was read, if its length is what it says.
    fn read_long(&self, file: &dyn File, start: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let status = file.status()?;
        if status.kind != Kind::File
            || entry_length(start) != Some(status.length)
            || status.length > self.max_entry_bytes
        {
            return Ok(None);
        }
        let mut bytes = buffer(status.length)?;
        bytes.extend_from_slice(start);
        read_full(file, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The record of an entry, with the place of its value, if it is one and of this key.
    fn believe(&self, address: &Address, bytes: &[u8]) -> Option<Record<Range<usize>>> {
        let length = bytes.len() as u64;
        if length > self.max_entry_bytes {
            return None;
        }
        let entry = EncodedEntry::parse(bytes).ok().filter(|entry| entry.is_of(address.key()))?;
        address.set_last_length(length);
        Some(entry.record(entry.value_range()))
    }

    /// Writes an entry, unless the caller goes before it is in its place.
    pub(crate) fn write(
        &self,
        key: &Key,
        record: &Record<Bytes>,
        caller: &CancelFlag,
    ) -> Result<()> {
        let address = Address::of(key);
        let place = address.place();
        let bytes = wire::encode(address.key(), record);
        let length = bytes.len() as u64;
        if length > self.max_entry_bytes || charge(length) > self.max_bytes || self.max_entries == 0
        {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("the entry has {length} bytes, more than the limits of the cache allow"),
            ));
        }
        let change = change_of(&address);
        let announce = || self.announce(change).map_err(io::Error::other);
        let replaced = self.replace(place, &bytes, caller, announce);
        self.held.let_go(address.key());
        if !matches!(replaced, Ok(Some(_))) {
            // What was not completed may have changed it, too.
            self.announce(change)?;
        }
        let replaced = replaced.map_err(|error| failed("write entry", error))?;
        let Some(Replaced(replaced)) = replaced else { return Err(cancelled()) };
        self.account(place.shard(), |content| {
            if let Some(length) = replaced {
                content.subtract(length);
            }
            content.add(length, record.created(), record.stale_until());
        });
        self.keep_limits(charge(length));
        self.tend();
        Ok(())
    }

    /// Takes over what other processes know, changes what is known of a shard, and lets others know.
    fn account(&self, shard: usize, change: impl FnOnce(&mut Content)) {
        self.with_counts(shard, |ledger| ledger.update(shard, change));
    }

    /// Changes the ledger, with what all processes know before, and for all to know after.
    fn with_counts<T>(&self, shard: usize, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let counts = match Counts::open(&*self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The records of a directory that older versions have written, or a file that was
                // removed: what this process knows is a beginning.
                let known = self.ledger().shards().copied().collect::<Vec<_>>();
                let made = directory::is_marked(&*self.root).is_ok_and(|is_marked| is_marked)
                    && Counts::make(&*self.root, known.iter()).is_ok();
                if made { Counts::open(&*self.root).ok() } else { None }
            }
            opened => opened.ok(),
        };
        let mut ledger = self.ledger();
        if let Some(counts) = &counts {
            ledger.merge(counts);
        }
        let result = change(&mut ledger);
        let changed = *ledger.shard(shard);
        drop(ledger);
        if let Some(mut counts) = counts {
            let _ = counts.put(shard, &changed);
        }
        result
    }

    /// Puts a file in its place at one stroke, unless the caller has gone by then: what comes later
    /// could undo what others have done since. Calls `announce` before it takes the place of another
    /// one, and again afterwards.
    pub(crate) fn replace(
        &self,
        place: &Place,
        bytes: &[u8],
        caller: &CancelFlag,
        announce: impl Fn() -> io::Result<()>,
    ) -> io::Result<Option<Replaced>> {
        let folder = self.shard(place)?;
        let mut random = [0; 16];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let mut temporary =
            Temporary { folder: &*folder, name: temporary_name(random), is_left: true };
        let mut file = self.held.making_room(|| folder.create(&temporary.name))?;
        write_full(&mut *file, bytes)?;
        if self.durability == Durability::Synced {
            file.sync()?;
        }
        drop(file);
        let replaced = folder.status(place.name()).ok();
        let replaced =
            replaced.filter(|status| status.kind == Kind::File).map(|status| status.length);
        if replaced.is_some() {
            announce()?;
        }
        if caller.is_set() {
            return Ok(None);
        }
        folder.rename(&temporary.name, place.name())?;
        temporary.is_left = false;
        if replaced.is_some() {
            announce()?;
        }
        if caller.is_set() {
            // The disk may have taken long, and the key may have been removed in the meantime.
            let _ = folder.remove(place.name());
            self.subtract(place, replaced);
            return Ok(None);
        }
        self.sync(&*folder)?;
        Ok(Some(Replaced(replaced)))
    }

    /// A file has gone.
    fn subtract(&self, place: &Place, length: Option<u64>) {
        if let Some(length) = length {
            self.account(place.shard(), |content| content.subtract(length));
        }
    }

    /// The folder of an entry, made if it does not exist.
    fn shard(&self, place: &Place) -> io::Result<Box<dyn Folder>> {
        let name = shard_name(place.shard());
        match self.folder(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        match self.root.make_folder(&name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync(&*self.root)?;
        self.folder(&name)
    }

    fn folder(&self, name: &str) -> io::Result<Box<dyn Folder>> {
        self.held.making_room(|| self.root.folder(name))
    }

    /// Waits for the names in a folder to be safe, if that was asked for.
    fn sync(&self, folder: &dyn Folder) -> io::Result<()> {
        match self.durability {
            // To open it once more may be what fails, and what was done is not to be done again.
            Durability::Synced => self.held.making_room(|| folder.sync()),
            Durability::Relaxed => Ok(()),
        }
    }

    pub(crate) fn delete(&self, key: &Key) -> Result<bool> {
        let address = Address::of(key);
        let (place, change) = (address.place(), change_of(&address));
        self.announce(change)?;
        let removed = self.remove(place);
        self.held.let_go(address.key());
        let existed = match removed {
            Ok(length) => {
                self.account(place.shard(), |content| content.subtract(length));
                true
            }
            Err(error) if is_absence(&error) => false,
            Err(error) => return Err(failed("delete entry", error)),
        };
        self.announce(change)?;
        Ok(existed)
    }

    fn remove(&self, place: &Place) -> io::Result<u64> {
        let folder = self.folder(&shard_name(place.shard()))?;
        let status = folder.status(place.name())?;
        if status.kind == Kind::Folder {
            return Err(io::ErrorKind::NotFound.into());
        }
        folder.remove(place.name())?;
        self.sync(&*folder)?;
        Ok(status.length)
    }

    /// Removes every entry.
    pub(crate) fn clear(&self) -> Result<()> {
        let failed = |error| failed("clear cache directory", error);
        if !directory::is_marked(&*self.root).map_err(failed)? {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the directory is not marked as a cache, so nothing is deleted in it",
            ));
        }
        self.announce(Invalidation::All)?;
        self.remove_all().map_err(failed)?;
        self.announce(Invalidation::All)
    }

    /// Removes every entry of a directory that is marked as a cache.
    pub(crate) fn remove_all(&self) -> io::Result<()> {
        if !directory::is_marked(&*self.root)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        for shard in 0..SHARDS {
            // If this is not completed, no copy is left of what it had removed long before.
            self.try_announce(Invalidation::All);
            let cleared = self.held.making_room(|| self.clear_shard(shard));
            self.held.let_go_of_shard(shard);
            cleared?;
        }
        let cleared = {
            let mut ledger = self.ledger();
            ledger.clear();
            ledger.shards().copied().collect::<Vec<_>>()
        };
        if let Ok(mut counts) = Counts::open(&*self.root) {
            let _ = counts.put_all(cleared.iter());
        }
        Ok(())
    }

    fn clear_shard(&self, shard: usize) -> io::Result<()> {
        let folder = match self.root.folder(&shard_name(shard)) {
            Ok(folder) => folder,
            Err(error) if is_absence(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        folder.list(&mut |name| {
            if Role::of(name) == Role::Entry {
                names.push(name.to_owned());
            }
        })?;
        for name in names {
            match folder.remove(&name) {
                Err(error) if !is_absence(&error) => return Err(error),
                _ => {}
            }
        }
        self.sync(&*folder)
    }

    /// Asks for the lock of a key, if there is one among processes. `claimed` says how it is held.
    pub(crate) fn claim(
        &self,
        key: &Key,
        claimed: impl FnOnce(KeyLock) -> LeaseGuard,
    ) -> Result<Lease> {
        if self.single_flight == SingleFlight::Process {
            return Ok(Lease::NotRequired);
        }
        let address = Address::of(key);
        let place = address.place();
        let lock = || self.shard(place).and_then(|folder| try_lock(folder, place.lock()));
        let locked = self.held.making_room(lock);
        Ok(match locked.map_err(|error| failed("lock entry", error))? {
            Some(lock) => Lease::Acquired(claimed(lock)),
            None => Lease::Held,
        })
    }

    /// What is known, without touching a file.
    pub(crate) fn usage(&self) -> Usage {
        let (entries, bytes) = {
            let ledger = self.ledger();
            let is_complete = ledger.is_complete();
            (is_complete.then(|| ledger.entries()), is_complete.then(|| ledger.bytes()))
        };
        let mut usage = Usage::default();
        usage.entries = entries;
        usage.max_entries = (self.max_entries < u64::MAX).then_some(self.max_entries);
        usage.weight = bytes;
        usage.max_weight = Some(self.max_bytes);
        usage.evictions = Some(self.evictions.load(Ordering::Relaxed));
        usage.expirations = Some(self.expirations.load(Ordering::Relaxed));
        usage.corrupt_entries = Some(self.corrupt_entries.load(Ordering::Relaxed));
        usage.sweeps = Some(self.sweeps.load(Ordering::Relaxed));
        usage
    }

    /// Looks through everything, until the caller has gone.
    pub(crate) fn sweep_all(&self, caller: &CancelFlag) -> Result<Usage> {
        let mut result = Ok(());
        for shard in 0..SHARDS {
            if caller.is_set() {
                return Err(cancelled());
            }
            // What another thread sweeps is swept.
            if let Some(Err(error)) = self.sweep(shard, None, usize::MAX)
                && !is_absence(&error)
            {
                result = result.and(Err(failed("sweep cache directory", error)));
            }
        }
        result.map(|()| self.usage())
    }

    /// Now and then looks for what has expired.
    fn tend(&self) {
        let started = Instant::now();
        let mut swept = 0;
        while started.elapsed() < SWEEPING_TIME && swept < SWEEPING_SHARDS {
            let now = self.clock.now();
            let neglected = {
                let mut ledger = self.ledger();
                if swept > 0 || ledger.is_rested() { ledger.neglected(now) } else { None }
            };
            let Some(shard) = neglected else { break };
            self.sweep(shard, None, LOOKS);
            swept += 1;
        }
        if swept > 0 {
            self.ledger().rest(started.elapsed());
        }
    }

    /// Evicts down to the limits, as far as one write may. The next one goes on.
    fn keep_limits(&self, written: u64) {
        let blocks = usize::try_from(written / BLOCK).unwrap_or(usize::MAX);
        let most = blocks.saturating_mul(SHARD_LOOKS + 1).saturating_add(LOOKS);
        let mut looks = 0;
        let mut is_in_vain = [false; SHARDS];
        while looks < most {
            let (excess, victim) = {
                let ledger = self.ledger();
                let Some(excess) = ledger.excess() else { return };
                let is_free =
                    |shard: usize| !is_in_vain[shard] && !self.swept[shard].load(Ordering::Relaxed);
                (excess, ledger.victim(is_free))
            };
            let Some(shard) = victim else { return };
            let swept = self.sweep(shard, Some(self.eviction(excess)), LOOKS);
            looks += SHARD_LOOKS;
            match swept {
                Some(Ok(swept)) if swept.has_made_room() => {
                    looks += swept.looks;
                    self.tell_of_evictions(swept.evicted);
                }
                Some(Ok(swept)) => {
                    looks += swept.looks;
                    is_in_vain[shard] = true;
                }
                // It would be the victim again.
                Some(Err(_)) | None => is_in_vain[shard] = true,
            }
        }
    }

    /// What goes from a shard when there is too much: down to half of what a shard may hold.
    fn eviction(&self, excess: Excess) -> Eviction {
        let half = 2 * SHARDS as u64;
        let (keep_entries, keep_bytes) = (self.max_entries / half, self.max_bytes / half);
        Eviction { excess, keep_entries, keep_bytes }
    }

    #[cold]
    fn tell_of_evictions(&self, evicted: u64) {
        if evicted > 0 && !self.has_told_of_evictions.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "vayu",
                max_bytes = self.max_bytes,
                max_entries = self.max_entries,
                "cache directory is full, evicting oldest entries",
            );
        }
    }

    /// Makes room on the disk: removes some of the entries that were written longest ago. Whether
    /// there were any.
    pub(crate) fn make_room(&self) -> bool {
        let mut is_in_vain = [false; SHARDS];
        for _ in 0..SHARDS {
            let victim = {
                let ledger = self.ledger();
                let victim = ledger.victim(|shard| !is_in_vain[shard]);
                // What was never looked at may hold something.
                victim.or_else(|| (0..SHARDS).find(|&shard| !is_in_vain[shard]))
            };
            let Some(shard) = victim else { return false };
            let swept = self.sweep(shard, Some(self.eviction(Excess::default())), LOOKS);
            if let Some(Ok(swept)) = swept
                && swept.has_made_room()
            {
                return true;
            }
            is_in_vain[shard] = true;
        }
        false
    }

    /// Sweeps a shard, unless another thread does.
    fn sweep(
        &self,
        shard: usize,
        eviction: Option<Eviction>,
        most: usize,
    ) -> Option<io::Result<Swept>> {
        if self.swept[shard].swap(true, Ordering::Acquire) {
            return None;
        }
        let _swept = OnDrop(|| self.swept[shard].store(false, Ordering::Release));
        let before = *self.ledger().shard(shard);
        let sweep = Sweep { now: self.clock.now(), eviction, most };
        let result = self.held.making_room(|| sweep.run(&*self.root, shard));
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        let content = result.as_ref().ok().map(|swept| swept.content);
        self.with_counts(shard, |ledger| ledger.record(shard, &before, content));
        if let Ok(swept) = &result {
            if swept.has_made_room() {
                self.held.let_go_of_shard(shard);
            }
            self.evictions.fetch_add(swept.evicted, Ordering::Relaxed);
            self.expirations.fetch_add(swept.expired, Ordering::Relaxed);
            self.corrupt_entries.fetch_add(swept.defective, Ordering::Relaxed);
        }
        Some(result)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
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

/// A file was put in its place. The length of the one that was there, if there was one.
pub(crate) struct Replaced(Option<u64>);

/// Runs when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// The name of an entry that is being written, removed when that fails.
struct Temporary<'a> {
    folder: &'a dyn Folder,
    name: String,
    is_left: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_left {
            // What cannot be removed is swept later.
            let _ = self.folder.remove(&self.name);
        }
    }
}

/// The length that an entry has by its header.
fn entry_length(start: &[u8]) -> Option<u64> {
    Header::parse(start).ok().and_then(|header| header.entry_length())
}

/// The value in the memory that it was read into, with nothing of that wasted.
fn keep(bytes: &mut Vec<u8>, value: Range<usize>) -> Bytes {
    let mut bytes = mem::take(bytes);
    if bytes.capacity() > bytes.len() + 1 {
        bytes.shrink_to_fit();
    }
    let mut kept = Bytes::from(bytes);
    kept.advance(value.start);
    kept
}

/// Lends the buffer of this thread, empty.
fn with_buffer<T>(code: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    // At the end of a thread its buffer may be gone.
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    buffer.clear();
    buffer.reserve_exact(SMALL);
    let answer = code(&mut buffer);
    let _ = BUFFER.try_with(|place| place.replace(buffer));
    answer
}

/// What changes for processes with memory in front when an entry does.
fn change_of(address: &Address) -> Invalidation {
    let digest = address.key().digest();
    Invalidation::KeySlot([digest[0], digest[1]])
}

/// Whether the error says that there is no entry: nothing, or something that is none of ours.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // `SPIPE` is what a pipe answers that somebody holds open, `AGAIN` a device.
    let foreign = [
        Errno::LOOP,
        Errno::NXIO,
        Errno::XDEV,
        Errno::STALE,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::SPIPE,
        Errno::AGAIN,
    ];
    error.kind() == io::ErrorKind::NotFound
        || Errno::from_io_error(error).is_some_and(|errno| foreign.contains(&errno))
}

pub(crate) fn failed(operation: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Backend, operation).with_source(error)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
