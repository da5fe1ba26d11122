//! The trait of backends: storage for records, with optional parts.

mod any;
mod batch;
mod capabilities;
mod ext;
mod forward;
mod lease;
mod no_storage;
mod parts;
#[cfg(test)]
mod tests;
mod usage;

use std::any::type_name;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::any::AnyBackend;
#[doc(hidden)]
pub use self::batch::{BatchResults, fail_batch};
pub use self::capabilities::Capabilities;
pub use self::ext::BackendExt;
pub(crate) use self::lease::LONGEST_PAUSE;
pub use self::lease::{Lease, LeaseGuard, LeaseWatch, Leases, ReleaseLease, SingleFlight};
pub use self::no_storage::NoStorage;
pub use self::parts::{Batches, Clear, EntryTimes, Offline, ReportEnds, ReportUsage};
pub use self::usage::Usage;
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::{InlineValue, ValueClass};

/// Storage for records by key.
///
/// One trait for sync and async callers, usable as a trait object. A backend does not decide
/// whether a record is fresh, does not encode values and does not coordinate callers: the engine
/// ([`Cache`](crate::Cache)) does. It keeps a record until it is deleted or evicted.
///
/// # Behavior
///
/// - Keys are compared whole. Two keys that differ in any byte are two entries.
/// - `write` replaces. After it has returned, `read` returns the new record or none, never the
///   old one.
/// - After `delete` has returned, `read` returns nothing until the next `write`.
/// - All methods are called from many threads at once.
/// - An error or a panic of a backend costs its caller a recomputation, nothing else: the engine
///   counts it and goes on.
/// - If the future of `write_async` or `delete_async` is dropped, the operation may or may not take
///   effect, at once or a moment later. Dropping a future does not block.
///
/// What else a backend may offer has a trait for each part, and [`capabilities`](Self::capabilities) returns those that
/// it has: invalidation by group, leases, batches, clearing, reports.
///
/// # Examples
///
/// A complete backend that stores bytes, and a cache on top of it. The page `backend` of the guide has one whose
/// entries outlive the process.
///
/// ```
/// # mod vayu {
/// #     pub use vayu_core::*;
/// #     pub mod backend { pub use vayu_core::*; pub use async_trait::async_trait; pub use bytes::Bytes; }
/// # }
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::Duration;
///
/// use vayu::backend::{Backend, Bytes, Record, async_trait};
/// # #[cfg(feature = "message-pack")]
/// use vayu::MessagePack;
/// use vayu::{Cache, Key, Result};
///
/// #[derive(Debug, Default)]
/// struct Memory(Mutex<HashMap<Key, Record<Bytes>>>);
///
/// #[async_trait]
/// impl Backend for Memory {
///     type Stored = Bytes;
///
///     fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
///         Ok(self.0.lock().unwrap().get(key).cloned())
///     }
///
///     fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
///         self.0.lock().unwrap().insert(key.clone(), record);
///         Ok(())
///     }
///
///     fn delete(&self, key: &Key) -> Result<bool> {
///         Ok(self.0.lock().unwrap().remove(key).is_some())
///     }
///
///     async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
///         self.read(key)
///     }
///
///     async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
///         self.write(key, record)
///     }
///
///     async fn delete_async(&self, key: &Key) -> Result<bool> {
///         self.delete(key)
///     }
/// }
///
/// # #[cfg(feature = "message-pack")] {
/// let cache: Cache<Memory, MessagePack> = Cache::with_backend(Memory::default());
/// let key = Key::new("squares", &(12_u64,)).unwrap();
/// let square = cache.get_or_insert_with(&key, Duration::from_secs(60), || 12_u64 * 12);
/// assert_eq!(square, 144);
/// assert_eq!(cache.get::<u64>(&key).unwrap(), Some(144));
/// # }
/// ```
///
/// The conformance kit ([`backend_tests!`](crate::backend_tests), feature `testing`) generates one
/// test for each property that the engine relies on.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The form in which values are stored: `bytes::Bytes` where they leave the process,
    /// [`AnyValue`](crate::AnyValue) where they are kept by reference.
    type Stored: Clone + Send + Sync + 'static;

    /// Returns the record of a key, or `None`.
    ///
    /// # Errors
    ///
    /// When it is unknown whether there is one. For a call that is a miss; a lookup by key returns the error, unless it
    /// is [`ErrorKind::Decode`](crate::ErrorKind::Decode): an entry that cannot be decoded is a miss there too.
    fn read(&self, key: &Key) -> Result<Option<Record<Self::Stored>>>;

    /// Stores a record, replacing any other of the same key.
    ///
    /// # Errors
    ///
    /// When the record was not stored. The previous one may be gone.
    fn write(&self, key: &Key, record: Record<Self::Stored>) -> Result<()>;

    /// Removes the record of a key, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// When the record may still be there.
    fn delete(&self, key: &Key) -> Result<bool>;

    /// Returns the record of a key, for async callers: see [`read`](Self::read).
    async fn read_async(&self, key: &Key) -> Result<Option<Record<Self::Stored>>>;

    /// Stores a record, for async callers: see [`write`](Self::write).
    async fn write_async(&self, key: &Key, record: Record<Self::Stored>) -> Result<()>;

    /// Removes the record of a key, for async callers: see [`delete`](Self::delete).
    async fn delete_async(&self, key: &Key) -> Result<bool>;

    /// Calls `visit` with the record that [`read`](Self::read) would return, if that takes no blocking.
    ///
    /// Returns `None`, without a call, if it does. Otherwise `visit` is called once if there is a
    /// record, and not at all if there is none. It does not panic, and must not be called after an error.
    ///
    /// The engine calls this first on every path. `class` says what the value is. With
    /// [`Opaque`](ValueClass::Opaque), `visit` runs code of users, so the backend must not hold a lock:
    /// it clones the record first. With the other classes it may lend its own record under a lock, so
    /// that the value is cloned once. After an [`Inline`](ValueClass::Inline) lookup the backend
    /// may copy the record to where [`read_optimistic`](Self::read_optimistic) finds it. The default
    /// returns `None`.
    #[inline]
    fn read_now(
        &self,
        key: &Key,
        class: ValueClass,
        visit: &mut dyn FnMut(Record<&Self::Stored>),
    ) -> Option<Result<()>> {
        let _ = (key, class, visit);
        None
    }

    /// Returns what `read` returns for the record of a key, if the backend is able to lend the record at once.
    ///
    /// `None` means that [`read_now`](Self::read_now) is to be called, not that there is no record. The engine
    /// calls this for values that are [`Plain`](ValueClass::Plain) and not inline, if the backend
    /// [is in process](Self::is_in_process). It is `read_now` without dynamic dispatch, so that a hit is compiled as
    /// one function. The record may be lent under a lock, and `read` does not panic. The default returns `None`.
    #[inline]
    fn read_with<R>(&self, key: &Key, read: impl FnOnce(Record<&Self::Stored>) -> R) -> Option<R>
    where
        Self: Sized,
    {
        let _ = (key, read);
        None
    }

    /// Returns the record of a key whose value is [`Inline`](ValueClass::Inline), from a copy that is
    /// read without a lock.
    ///
    /// `None` means that [`read_now`](Self::read_now) is to be called, not that there is no record. The
    /// engine calls this without a guard against panics: it must not panic. The default returns `None`.
    #[inline]
    fn read_optimistic(&self, key: &Key) -> Option<Record<InlineValue>> {
        let _ = key;
        None
    }

    /// Returns what `read` returns for the record of [`read_optimistic`](Self::read_optimistic), if its value is of this
    /// [kind](InlineValue::kind), or of any kind if that is `None`.
    ///
    /// It is `read_optimistic` with all that follows it, so that a backend can reject a record by one comparison, and call
    /// `read` in several places, where the compiler knows different things about the record. `read` does not panic.
    #[inline]
    fn read_optimistic_with<R>(
        &self,
        key: &Key,
        kind: Option<u64>,
        read: impl FnOnce(Record<InlineValue>) -> R,
    ) -> Option<R>
    where
        Self: Sized,
    {
        read_of_kind(self.read_optimistic(key), kind, read)
    }

    /// Returns whether the entries are in the memory of this process and nowhere else, and no method
    /// blocks or panics.
    ///
    /// The engine then calls the sync methods from async code too, acquires no leases, and does
    /// without a guard against panics where values do not need one either: a panic in [`write`](Self::write) then reaches
    /// the caller of the function. The default is `false`, which is correct for every backend, and for a wrapper
    /// whose own code may block or panic.
    #[inline]
    fn is_in_process(&self) -> bool {
        false
    }

    /// Returns the optional parts that the backend has, each a trait of its own: generations, leases, batches and others.
    ///
    /// The default returns [`Capabilities::none`]. The parts are the same ones at every call, and a call is cheap.
    /// [`BackendExt`] has their operations, also for a backend that does not have the part.
    #[inline]
    fn capabilities(&self) -> Capabilities<'_, Self::Stored> {
        Capabilities::none()
    }

    /// Returns the kind of the backend and its location, for people, without credentials. It is the name of a
    /// cache in the list of [`caches`](crate::caches) that has no other. The default is the name of the type.
    fn description(&self) -> String {
        let path = type_name::<Self>();
        let path = path.split('<').next().unwrap_or(path);
        path.rsplit("::").next().unwrap_or(path).to_owned()
    }

    /// Returns the clock from which creation and expiry of entries are read. The default is
    /// [`SystemClock`].
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
}

/// Returns what `read` returns for a record whose value is of this kind.
#[inline(always)]
pub fn read_of_kind<R>(
    record: Option<Record<InlineValue>>,
    kind: Option<u64>,
    read: impl FnOnce(Record<InlineValue>) -> R,
) -> Option<R> {
    record.filter(|record| kind.is_none_or(|kind| record.value().kind() == kind)).map(read)
}

/// A backend at a location, such as a path or a URL: [`Cache::open`](crate::Cache::open).
pub trait OpenBackend: Backend + Sized {
    /// The location: a path, a URL.
    type Location;

    /// Opens the backend at this location with its default options.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) when it cannot work there.
    fn open(location: Self::Location) -> Result<Self>;
}
