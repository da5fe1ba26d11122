//! The traits of the parts that a backend may have, except those for the processes that share its entries.

use async_trait::async_trait;

use crate::backend::Usage;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::generation::Group;
use crate::key::Key;
use crate::observer::EndListener;
use crate::record::Record;

/// The part of a backend that works without waiting for a server ([`Capabilities::offline`]).
///
/// [`Capabilities::offline`]: crate::Capabilities::offline
pub trait Offline: Send + Sync {
    /// The stored form of the backend.
    type Stored;

    /// Returns the record of a key, as far as it is available here.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::read`](crate::Backend::read).
    fn read(&self, key: &Key) -> Result<Option<Record<Self::Stored>>>;

    /// Stores a record here alone.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::write`](crate::Backend::write).
    fn write(&self, key: &Key, record: Record<Self::Stored>) -> Result<()>;

    /// Removes the record of a key here alone.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::delete`](crate::Backend::delete).
    fn delete(&self, key: &Key) -> Result<()>;

    /// Returns the generation that replaces one that cannot be read, where none of the group is
    /// cached. It must be a number that no other process has, and another one after each
    /// [`bump`](crate::Generations::bump) that succeeds and whenever generations can be read again. After one that fails, the cache
    /// makes another number of it.
    ///
    /// # Errors
    ///
    /// When there is none.
    fn generation(&self, group: Group) -> Result<u64>;
}

/// Reads and writes of several keys at once ([`Capabilities::batches`]), for a backend where an operation is expensive,
/// such as a server: it does the work of a batch in fewer steps.
///
/// The effect is that of an operation for each key.
///
/// [`Capabilities::batches`]: crate::Capabilities::batches
#[async_trait]
pub trait Batches: Send + Sync {
    /// The stored form of the backend.
    type Stored: Clone + Send + Sync + 'static;

    /// Returns the records of several keys: one result for each key, in the order of the keys, as
    /// [`Backend::read`](crate::Backend::read) returns it. A key may occur several times.
    ///
    /// An error is that of its key, and the other keys have results of their own.
    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Self::Stored>>>>;

    /// Stores several records: one result for each, in the order of the entries, as
    /// [`Backend::write`](crate::Backend::write) returns it. Of several records of a key, the last one is stored.
    ///
    /// It is not atomic: readers may see some of the records before others. Errors are as for
    /// [`read_many`](Self::read_many).
    fn write_many(&self, entries: Vec<(&Key, Record<Self::Stored>)>) -> Vec<Result<()>>;

    /// Returns the records of several keys, for async callers: see [`read_many`](Self::read_many).
    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Self::Stored>>>>;

    /// Stores several records, for async callers: see [`write_many`](Self::write_many). If the future is
    /// dropped, each record is stored or not.
    async fn write_many_async(&self, entries: Vec<(&Key, Record<Self::Stored>)>)
    -> Vec<Result<()>>;
}

/// Writes of the times of an entry whose value stays ([`Capabilities::times`]).
///
/// [`Capabilities::times`]: crate::Capabilities::times
#[async_trait]
pub trait EntryTimes: Send + Sync {
    /// The stored form of the backend.
    type Stored: Clone + Send + Sync + 'static;

    /// Stores a record whose value is that of the stored one, which has the times `old`: only the times are new.
    ///
    /// The times alone may be written, or all of the record. If another record is stored by now, it may stay.
    ///
    /// # Errors
    ///
    /// As for [`Backend::write`](crate::Backend::write).
    fn write_times(&self, key: &Key, old: &Record<()>, record: Record<Self::Stored>) -> Result<()>;

    /// Stores the times of a record, for async callers: see [`write_times`](Self::write_times).
    async fn write_times_async(
        &self,
        key: &Key,
        old: &Record<()>,
        record: Record<Self::Stored>,
    ) -> Result<()>;

    /// Sets the end ([`Record::stale_until`]) of the record of a key, if that is still `record`, which has no value.
    ///
    /// The engine calls this when a use of an entry extends its life: for functions with `idle`, which take a cache on
    /// [`MemoryBackend`](https://docs.rs/vayu-cache/latest/vayu/backend/struct.MemoryBackend.html) only. The
    /// default does nothing.
    fn renew(&self, key: &Key, record: &Record<()>, end: Timestamp) {
        let _ = (key, record, end);
    }
}

/// The removal of all entries ([`Capabilities::clear`]).
///
/// [`Capabilities::clear`]: crate::Capabilities::clear
#[async_trait]
pub trait Clear: Send + Sync {
    /// Removes every record.
    ///
    /// # Errors
    ///
    /// When some records may still be there.
    fn clear(&self) -> Result<()>;

    /// Removes every record, for async callers. The default calls [`clear`](Self::clear).
    async fn clear_async(&self) -> Result<()> {
        self.clear()
    }
}

/// Reports of how much is stored ([`Capabilities::usage`]).
///
/// [`Capabilities::usage`]: crate::Capabilities::usage
pub trait ReportUsage: Send + Sync {
    /// Returns how much is stored at present, as far as the backend knows.
    fn usage(&self) -> Usage;
}

/// Reports of the entries that leave the backend ([`Capabilities::ends`]).
///
/// [`Capabilities::ends`]: crate::Capabilities::ends
pub trait ReportEnds: Send + Sync {
    /// Reports each entry that leaves the backend from now on to a listener, once, with its function and the cause.
    ///
    /// The backend calls it without holding a lock, after the entry has left.
    /// [`EndListeners`](crate::EndListeners) keeps several listeners: a backend may belong to several caches.
    fn report_ends(&self, listener: EndListener);
}
