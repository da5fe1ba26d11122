//! Where records are kept.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Generations, Group};
use crate::invalidation::InvalidationFeed;
use crate::key::Key;
use crate::panic::clear_quietly;
use crate::record::Record;

/// A place where records are kept by key.
///
/// One trait for sync and async callers, usable as a trait object. A backend does not decide
/// whether a record is fresh, does not encode values and does not coordinate callers: the engine
/// ([`Cache`](crate::Cache)) does. It keeps what it was given, until it was told to delete it or
/// chooses to forget it.
///
/// # Behavior
///
/// - Keys are compared whole. Two keys that differ anywhere are two entries.
/// - `write` replaces. After it has returned, `read` answers the new record or nothing, never the
///   old one.
/// - After `delete` has returned, `read` answers nothing until the next `write`.
/// - All methods are called from many threads at once.
/// - An error or a panic of a backend costs its caller a recomputation, nothing else: the engine
///   counts it and goes on.
/// - `write_async` and `delete_async` whose future is dropped may or may not have taken effect, or
///   do so a moment later. To drop a future does not block.
///
/// # Examples
///
/// A whole backend that keeps bytes, and a cache over it:
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use vayu_core::{Backend, Cache, Key, Record, Result};
/// # #[cfg(feature = "message-pack")]
/// use vayu_core::MessagePack;
///
/// #[derive(Debug, Default)]
/// struct Shelf(Mutex<HashMap<Key, Record<Bytes>>>);
///
/// #[async_trait]
/// impl Backend for Shelf {
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
/// let cache: Cache<Shelf, MessagePack> = Cache::with_backend(Shelf::default());
/// let key = Key::new("squares", &(12_u64,)).unwrap();
/// let square = cache.get_or_insert_with(&key, Duration::from_secs(60), || 12_u64 * 12);
/// assert_eq!(square, 144);
/// assert_eq!(cache.get::<u64>(&key).unwrap(), Some(144));
/// # }
/// ```
///
/// The conformance kit ([`backend_tests!`](crate::backend_tests), feature `testing`) makes one
/// test of each property that the engine relies on.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The form in which values are kept: `bytes::Bytes` where they leave the process,
    /// [`AnyValue`](crate::AnyValue) where they are held by reference.
    type Stored: Clone + Send + Sync + 'static;

    /// The record of a key, or `None`.
    ///
    /// # Errors
    ///
    /// When it cannot be known whether there is one. The engine takes that as a miss.
    fn read(&self, key: &Key) -> Result<Option<Record<Self::Stored>>>;

    /// Keeps a record for a key, in the place of any other.
    ///
    /// # Errors
    ///
    /// When it was not kept. What was there before may be gone.
    fn write(&self, key: &Key, record: Record<Self::Stored>) -> Result<()>;

    /// Forgets a key, and says whether there was something to forget.
    ///
    /// # Errors
    ///
    /// When the record may still be there.
    fn delete(&self, key: &Key) -> Result<bool>;

    /// [`read`](Self::read) for async callers.
    async fn read_async(&self, key: &Key) -> Result<Option<Record<Self::Stored>>>;

    /// [`write`](Self::write) for async callers.
    async fn write_async(&self, key: &Key, record: Record<Self::Stored>) -> Result<()>;

    /// [`delete`](Self::delete) for async callers.
    async fn delete_async(&self, key: &Key) -> Result<bool>;

    /// The answer of [`read`](Self::read) where it can be had without blocking.
    ///
    /// The engine asks here first on every path. The default answers `None`: it cannot.
    #[inline]
    fn read_now(&self, key: &Key) -> Option<Result<Option<Record<Self::Stored>>>> {
        let _ = key;
        None
    }

    /// The record of a key whose value is a few words, if that can be had without a lock.
    ///
    /// The engine asks here before [`read_now`](Self::read_now) where the serializer says that values
    /// may be so ([`Serializer::fits_in_words`](crate::Serializer::fits_in_words)), and without a
    /// guard: no code that may panic runs here. `None` does not mean that there is no record. The
    /// default answers that.
    #[inline]
    fn glance(&self, key: &Key) -> Option<Record<Self::Stored>> {
        let _ = key;
        None
    }

    /// [`read_now`](Self::read_now) has found this record of a key, and a [`glance`](Self::glance) had
    /// not: the backend may see that it finds it the next time. No code that may panic runs here
    /// either.
    #[inline]
    fn prepare_glance(&self, key: &Key, found: &Record<Self::Stored>) {
        let _ = (key, found);
    }

    /// Whether the entries are in the memory of this process and nowhere else, and no method blocks
    /// or panics.
    ///
    /// The engine then calls the sync methods from async code, too, asks nobody for the right to
    /// compute, and does without a guard where values do not need one either. The default is
    /// `false`, which is right for every backend.
    #[inline]
    fn is_in_process(&self) -> bool {
        false
    }

    /// Asks to compute a key for all processes that share the entries, without waiting. It is
    /// asked by one caller of this process at a time, and again after a while where the answer is
    /// [`Lease::Held`].
    ///
    /// The default answers [`Lease::NotRequired`]. A right that was granted must come to an end with
    /// its process. A future that is dropped while it asks leaves no right behind.
    ///
    /// # Errors
    ///
    /// When it cannot be known. The engine then computes.
    fn try_acquire_lease(&self, key: &Key) -> Result<Lease> {
        let _ = key;
        Ok(Lease::NotRequired)
    }

    /// [`try_acquire_lease`](Self::try_acquire_lease) for async callers. The default calls it.
    async fn try_acquire_lease_async(&self, key: &Key) -> Result<Lease> {
        self.try_acquire_lease(key)
    }

    /// Forgets every key.
    ///
    /// # Errors
    ///
    /// When some records may still be there; [`ErrorKind::Unsupported`] by default.
    fn clear(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "this backend cannot be cleared"))
    }

    /// [`clear`](Self::clear) for async callers. The default calls it.
    async fn clear_async(&self) -> Result<()> {
        self.clear()
    }

    /// Where the backend keeps the generations of groups, by which many entries are invalidated at
    /// once.
    ///
    /// The default returns `None`. The cache then keeps them itself where the entries are in the memory of
    /// this process ([`is_in_process`](Self::is_in_process)), for as long as the cache lives; elsewhere the
    /// methods that invalidate a group return an error of the kind [`ErrorKind::Unsupported`]. A backend
    /// whose entries outlive the process, or which several caches or processes share, keeps them beside
    /// the entries and safe from eviction, and [`clear`](Self::clear) must not set them back.
    #[inline]
    fn generations(&self) -> Option<&dyn Generations> {
        None
    }

    /// The part of the backend that still responds when the rest does not, such as memory in front of a
    /// server.
    ///
    /// After an operation of a call has failed with [`ErrorKind::Timeout`], the rest of that call uses
    /// this part, so that it does not wait again. The default returns `None`: the call goes on
    /// without the backend.
    #[inline]
    fn offline(&self) -> Option<&dyn Offline<Stored = Self::Stored>> {
        None
    }

    /// How memory in front of the backend learns of what other processes change.
    ///
    /// The default answers `None`: copies of the entries are believed until they expire.
    #[inline]
    fn invalidation_feed(&self) -> Option<&dyn InvalidationFeed> {
        None
    }

    /// How much is kept at the moment, as far as the backend knows.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// The clock that rules the entries: creation and expiry are read from it. The default is
    /// [`SystemClock`].
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
}

/// The part of a backend that responds without waiting for a server ([`Backend::offline`]).
pub trait Offline: Send + Sync {
    /// That of the backend.
    type Stored;

    /// Returns the record of a key, as far as it is known here.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::read`].
    fn read(&self, key: &Key) -> Result<Option<Record<Self::Stored>>>;

    /// Keeps a record here alone.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::write`].
    fn write(&self, key: &Key, record: Record<Self::Stored>) -> Result<()>;

    /// Returns a generation that stands for the one that cannot be read, where none of the group is
    /// known. It must be a number that no other process has, and another one after each
    /// [`renew`](Generations::bump) and whenever generations can be read again.
    ///
    /// # Errors
    ///
    /// When there is none.
    fn generation(&self, group: Group) -> Result<u64>;
}

/// How much a backend keeps. What it does not know is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Entries kept, expired ones that are not yet swept included.
    pub entries: Option<u64>,
    /// Entries kept at most.
    pub max_entries: Option<u64>,
    /// Weight kept, in the unit of the backend's options.
    pub weight: Option<u64>,
    /// Weight kept at most.
    pub max_weight: Option<u64>,
    /// Entries that were dropped because a limit was reached.
    pub evictions: Option<u64>,
    /// Entries that were not kept because each of them alone is more than the limit allows.
    pub rejections: Option<u64>,
    /// Entries that were dropped because they had expired.
    pub expirations: Option<u64>,
    /// Entries that were found damaged, or were none, and were taken for missing.
    pub corrupt_entries: Option<u64>,
    /// How often a part of the entries was looked through for what has expired.
    pub sweeps: Option<u64>,
}

/// Among whom a key is computed once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SingleFlight {
    /// The callers of this process.
    #[default]
    Process,
    /// All processes that share the entries.
    Everywhere,
}

/// What came of asking to compute a key for all processes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lease {
    /// Nobody has to ask: the processes do not wait for each other.
    NotRequired,
    /// The caller computes, and others wait until it has given this back.
    Acquired(LeaseGuard),
    /// Another process computes.
    Held,
}

/// The right to compute a key for all processes, a lease.
///
/// The engine gives it back with [`release`](Self::release) or
/// [`release_async`](Self::release_async) before the call returns. Where that cannot be, because the
/// function panics or the future of the call is dropped, the lease is dropped.
pub struct LeaseGuard(Option<Box<dyn ReleaseLease>>);

/// A lease as a backend keeps it: how it is given back.
///
/// A lease that is dropped without a call of these methods is given back too, by the `Drop` of the
/// implementor. That runs when the function of a call panics, and when the future of an async call is
/// dropped, possibly by a runtime that is ending: it must not rely on that runtime, nor block for
/// long.
#[async_trait]
pub trait ReleaseLease: Send + 'static {
    /// Gives the lease back. Other processes can take it when this returns.
    ///
    /// # Errors
    ///
    /// When others may have to wait until it ends by itself.
    fn release(self: Box<Self>) -> Result<()>;

    /// [`release`](Self::release) for async callers. The default calls it.
    async fn release_async(self: Box<Self>) -> Result<()> {
        self.release()
    }
}

/// What is given back by being dropped.
struct Dropped<T> {
    _guard: T,
}

impl<T: Send + 'static> ReleaseLease for Dropped<T> {
    fn release(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl LeaseGuard {
    /// Makes a lease that is given back when `guard` is dropped, which cannot fail and does not block.
    pub fn new(guard: impl Any + Send) -> Self {
        Self::with_release(Dropped { _guard: guard })
    }

    /// Makes a lease that takes a message to another process to be given back.
    pub fn with_release(lease: impl ReleaseLease) -> Self {
        Self(Some(Box::new(lease)))
    }

    /// Gives the lease back.
    ///
    /// # Errors
    ///
    /// When other processes may have to wait until it ends by itself.
    pub fn release(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), ReleaseLease::release)
    }

    /// [`release`](Self::release) for async callers.
    ///
    /// # Cancellation
    ///
    /// When the future is dropped, the lease is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`release`](Self::release).
    pub async fn release_async(mut self) -> Result<()> {
        match self.0.take() {
            Some(lease) => lease.release_async().await,
            None => Ok(()),
        }
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        clear_quietly(&mut self.0);
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseGuard(..)")
    }
}

/// A backend at a location, such as a path or a URL: [`Cache::open`](crate::Cache::open).
pub trait OpenBackend: Backend + Sized {
    /// The location: a path, a URL.
    type Location;

    /// Opens the backend at this location with its default options.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] when it cannot work there.
    fn open(location: Self::Location) -> Result<Self>;
}

#[async_trait]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    type Stored = B::Stored;

    fn read(&self, key: &Key) -> Result<Option<Record<Self::Stored>>> {
        (**self).read(key)
    }

    fn write(&self, key: &Key, record: Record<Self::Stored>) -> Result<()> {
        (**self).write(key, record)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        (**self).delete(key)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Self::Stored>>> {
        (**self).read_async(key).await
    }

    async fn write_async(&self, key: &Key, record: Record<Self::Stored>) -> Result<()> {
        (**self).write_async(key, record).await
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        (**self).delete_async(key).await
    }

    fn read_now(&self, key: &Key) -> Option<Result<Option<Record<Self::Stored>>>> {
        (**self).read_now(key)
    }

    fn glance(&self, key: &Key) -> Option<Record<Self::Stored>> {
        (**self).glance(key)
    }

    fn prepare_glance(&self, key: &Key, found: &Record<Self::Stored>) {
        (**self).prepare_glance(key, found);
    }

    fn is_in_process(&self) -> bool {
        (**self).is_in_process()
    }

    fn try_acquire_lease(&self, key: &Key) -> Result<Lease> {
        (**self).try_acquire_lease(key)
    }

    async fn try_acquire_lease_async(&self, key: &Key) -> Result<Lease> {
        (**self).try_acquire_lease_async(key).await
    }

    fn clear(&self) -> Result<()> {
        (**self).clear()
    }

    async fn clear_async(&self) -> Result<()> {
        (**self).clear_async().await
    }

    fn generations(&self) -> Option<&dyn Generations> {
        (**self).generations()
    }

    fn offline(&self) -> Option<&dyn Offline<Stored = Self::Stored>> {
        (**self).offline()
    }

    fn invalidation_feed(&self) -> Option<&dyn InvalidationFeed> {
        (**self).invalidation_feed()
    }

    fn usage(&self) -> Usage {
        (**self).usage()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        (**self).clock()
    }
}
