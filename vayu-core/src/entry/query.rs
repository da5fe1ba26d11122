//! The cache and the call of an entry.

use crate::backend::Backend;
use crate::cache::{Cache, Engine};
use crate::call::{CachedFn, CachedOutput, Call};
use crate::error::Result;
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::{Key, KeyError};
use crate::panic::BoxFuture;
use crate::record::Record;

/// The operations of an [`Entry`](crate::Entry) on its cache.
///
/// It is implemented by the attribute, for a type without a name.
pub trait Query {
    /// The type that the function returns.
    type Output;
    /// A record of the backend, not yet decoded.
    type Found: Send;
    /// The backend of the cache.
    type Backend: Backend;
    /// The serializer of the cache.
    type Serializer: Clone;

    /// Returns the cache.
    fn cache(&self) -> &Cache<Self::Backend, Self::Serializer>;

    /// Returns the key of the call.
    ///
    /// # Errors
    ///
    /// When the arguments cannot be encoded.
    fn key(&self) -> Result<&Key, KeyError<'_>>;

    /// Reads the record, without decoding it.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn read(&self, key: &Key) -> Result<Option<Self::Found>>;

    /// [`read`](Self::read) for async callers.
    fn read_async<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Option<Self::Found>>;

    /// Decodes a record, if it may be served.
    fn decode(&self, found: Self::Found) -> Option<CachedOutput<Self::Output>>;

    /// Removes the entry, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn remove(&self, key: &Key) -> Result<bool>;

    /// [`remove`](Self::remove) for async callers.
    fn remove_async<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, bool>;
}

/// The call of an entry, with its cache.
pub(crate) struct Subject<B: Backend, S, F> {
    cache: Cache<B, S>,
    function: F,
}

impl<B: Backend, S, F: CachedFn<Stored = B::Stored>> Subject<B, S, F> {
    pub(crate) fn new(cache: Cache<B, S>, function: F) -> Self {
        Self { cache, function }
    }

    fn engine(&self) -> &Engine<B> {
        self.cache.engine()
    }

    fn declare(&self, key: &Key) {
        Call::new(self.engine(), &self.function, key, 0).declare();
    }
}

impl<B: Backend, S: Clone, F: CachedFn<Stored = B::Stored>> Query for Subject<B, S, F> {
    type Output = F::Output;
    /// The stamp of the call, and the record.
    type Found = (u64, Record<B::Stored>);
    type Backend = B;
    type Serializer = S;

    fn cache(&self) -> &Cache<B, S> {
        &self.cache
    }

    fn key(&self) -> Result<&Key, KeyError<'_>> {
        self.function.key()
    }

    fn read(&self, key: &Key) -> Result<Option<Self::Found>> {
        self.declare(key);
        run_blocking(read::<Blocking, B>(self.engine(), key))
    }

    fn read_async<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Option<Self::Found>> {
        self.declare(key);
        Box::pin(read::<Awaiting, B>(self.engine(), key))
    }

    fn decode(&self, (stamp, record): Self::Found) -> Option<CachedOutput<F::Output>> {
        let key = self.key().ok()?;
        Call::new(self.engine(), &self.function, key, stamp).decode_for_entry(record)
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        run_blocking(self.engine().remove::<Blocking>(key))
    }

    fn remove_async<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, bool> {
        Box::pin(self.engine().remove::<Awaiting>(key))
    }
}

/// Reads the stamp and the record of a key, which carries the tags.
async fn read<M: Io, B: Backend>(
    engine: &Engine<B>,
    key: &Key,
) -> Result<Option<(u64, Record<B::Stored>)>> {
    if engine.is_paused() {
        return Ok(None);
    }
    let stamp = engine.stamp::<M>(key.prefix(), key.tags()).await;
    let stamp = stamp.map_err(|error| error.in_operation("read entry"))?;
    Ok(engine.read_or_offline::<M>(key).await?.map(|record| (stamp, record)))
}
