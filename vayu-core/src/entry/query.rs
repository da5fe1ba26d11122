//! The cache and the call of an entry.

use std::future::Future;
use std::pin::Pin;

use crate::backend::{Backend, BackendExt};
use crate::cache::{Cache, Engine, InvalidatedGroup};
use crate::call::typed::{Frame, OutputOf};
use crate::call::{CachedFn, CachedOutput, Call, OutputShape, Properties, RecordState};
use crate::compact_duration::CompactDuration;
use crate::entry::explanation::{Examined, Explanation};
use crate::error::{ErrorKind, Result};
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::{Key, KeyError};
use crate::panic::{BoxFuture, catch_panic};
use crate::record::Record;
use crate::serializer::Serializer;
use crate::validity::Mismatch;

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
    /// A record to store, whose generations are not read yet.
    type Encoded: Send;

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

    /// Encodes an output under the policy of the call, or returns `None` for one that is not cached.
    ///
    /// # Errors
    ///
    /// When the serializer cannot restore the value, or the ttl of all values is zero.
    fn encode(&self, key: &Key, output: &Self::Output) -> Result<Option<Self::Encoded>>;

    /// Stores an encoded output, and returns `false` in a paused cache.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn write(&self, key: &Key, encoded: Self::Encoded) -> Result<bool>;

    /// [`write`](Self::write) for async callers.
    fn write_async<'a>(&'a self, key: &'a Key, encoded: Self::Encoded) -> BoxFuture<'a, bool>;

    /// Returns whether an output is a failure in whose place a cached one is served.
    fn is_failure(&self, output: &Self::Output) -> bool;

    /// Reads what explains the next call.
    ///
    /// # Errors
    ///
    /// The explanation, where there is no record.
    fn examine(&self, key: &Key) -> Examined<Self::Found>;

    /// [`examine`](Self::examine) for async callers.
    fn examine_async<'a>(
        &'a self,
        key: &'a Key,
    ) -> Pin<Box<dyn Future<Output = Examined<Self::Found>> + Send + 'a>>;

    /// Returns the explanation of a record.
    ///
    /// # Errors
    ///
    /// The stamp under which it was stored, if that is not the one of the call.
    fn judge(&self, found: Self::Found) -> Result<Explanation, u64>;

    /// Returns the explanation of a record that was stored under another stamp.
    fn invalidated(&self, key: &Key, stamp: u64) -> Explanation;

    /// [`invalidated`](Self::invalidated) for async callers.
    fn invalidated_async<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Pin<Box<dyn Future<Output = Explanation> + Send + 'a>>;

    /// Returns whether an error is cached for a call that finds no value.
    fn has_cached_error(&self, key: &Key) -> bool;

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
    /// The record under the stamp zero.
    type Encoded = Record<B::Stored>;

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
        let mut frame = Frame::new(&self.function);
        let call = Call::new(self.engine(), &self.function, key, stamp);
        let [age, ttl_left] = call.decode_for_entry(record, &mut frame)?;
        Some(CachedOutput { output: frame.into_found()?, age, ttl_left })
    }

    fn encode(&self, key: &Key, output: &F::Output) -> Result<Option<Record<B::Stored>>> {
        let call = Call::new(self.engine(), &self.function, key, 0);
        let output = OutputOf { function: &self.function, output };
        call.encode(&output, CompactDuration::default(), self.engine().now())
    }

    fn write(&self, key: &Key, record: Record<B::Stored>) -> Result<bool> {
        run_blocking(write::<Blocking, B, F>(
            self.engine(),
            self.function.serializer(),
            key,
            record,
        ))
    }

    fn write_async<'a>(&'a self, key: &'a Key, record: Record<B::Stored>) -> BoxFuture<'a, bool> {
        Box::pin(write::<Awaiting, B, F>(self.engine(), self.function.serializer(), key, record))
    }

    fn is_failure(&self, output: &F::Output) -> bool {
        !self.function.options().stale.is_zero() && F::Shape::value(output).is_none()
    }

    fn examine(&self, key: &Key) -> Examined<Self::Found> {
        self.declare(key);
        run_blocking(examine::<Blocking, B>(self.engine(), key))
    }

    fn examine_async<'a>(
        &'a self,
        key: &'a Key,
    ) -> Pin<Box<dyn Future<Output = Examined<Self::Found>> + Send + 'a>> {
        self.declare(key);
        Box::pin(examine::<Awaiting, B>(self.engine(), key))
    }

    fn judge(&self, (stamp, record): Self::Found) -> Result<Explanation, u64> {
        let key = match self.key() {
            Ok(key) => key,
            Err(error) => return Ok(Explanation::NoKey(error.to_error())),
        };
        let properties = Properties::of(&self.function);
        let call = Call::new(self.engine(), &properties, key, stamp);
        match call.state_of(record, &mut Frame::new(&self.function)) {
            RecordState::Mismatch(Mismatch::Stamp(stamp)) => Err(stamp),
            RecordState::Mismatch(Mismatch::Serializer) => Ok(Explanation::OtherSerializer),
            RecordState::Mismatch(Mismatch::Type) => Ok(Explanation::OtherType),
            RecordState::Fresh => Ok(Explanation::Hit),
            RecordState::Stale => Ok(Explanation::Stale),
            RecordState::Expired => Ok(Explanation::Expired),
            RecordState::FromTheFuture => Ok(Explanation::FromTheFuture),
            RecordState::Corrupt(error) => Ok(Explanation::Corrupt(Some(error))),
        }
    }

    fn invalidated(&self, key: &Key, stamp: u64) -> Explanation {
        run_blocking(invalidated::<Blocking, B>(self.engine(), key, stamp))
    }

    fn invalidated_async<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Pin<Box<dyn Future<Output = Explanation> + Send + 'a>> {
        Box::pin(invalidated::<Awaiting, B>(self.engine(), key, stamp))
    }

    fn has_cached_error(&self, key: &Key) -> bool {
        let engine = self.engine();
        let stamp = engine.known_stamp(engine.flags(), key.prefix(), key.tags());
        stamp.is_some_and(|stamp| {
            let call = Call::new(engine, &self.function, key, stamp);
            call.has_cached_error(&Frame::new(&self.function))
        })
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
    let record = engine.absent_if_unreadable(key, engine.read_or_offline::<M>(key).await)?;
    Ok(record.map(|record| (stamp, record)))
}

/// Stores a record that was encoded under the stamp zero, under that of its call.
async fn write<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    serializer: &F::Serializer,
    key: &Key,
    record: Record<B::Stored>,
) -> Result<bool> {
    if engine.is_paused() {
        return Ok(false);
    }
    let stamp = engine.stamp::<M>(key.prefix(), key.tags()).await;
    let stamp = stamp.map_err(|error| error.in_operation("write entry"))?;
    let record = if stamp == 0 {
        record
    } else {
        catch_panic("encode value", || {
            let from = engine.entry_context(key, &record, serializer.schema());
            let schema = record.schema().wrapping_add(stamp);
            let stored = record.value().clone();
            let stored = serializer.rebind(stored, &from, &from.with_schema(schema))?;
            Ok(record.with_schema(schema).map(|_| stored))
        })?
    };
    engine.store::<M>(key, stamp, record).await?;
    engine.refresh_backoff().remove(key);
    Ok(true)
}

/// Reads what explains the next call of a key.
async fn examine<M: Io, B: Backend>(
    engine: &Engine<B>,
    key: &Key,
) -> Examined<(u64, Record<B::Stored>)> {
    if engine.is_paused() {
        return Err(Explanation::Paused);
    }
    let stamp =
        engine.stamp::<M>(key.prefix(), key.tags()).await.map_err(Explanation::Unreadable)?;
    let corrupt_before = corrupt_entries(engine);
    match engine.read_or_offline::<M>(key).await {
        Ok(Some(record)) => Ok((stamp, record)),
        Ok(None) if corrupt_entries(engine) > corrupt_before => Err(Explanation::Corrupt(None)),
        Ok(None) => Err(Explanation::Absent),
        Err(error) if error.kind() == ErrorKind::Decode => Err(Explanation::Corrupt(Some(error))),
        Err(error) => Err(Explanation::Unreadable(error)),
    }
}

/// Returns the number of corrupt entries that the backend has found.
fn corrupt_entries<B: Backend>(engine: &Engine<B>) -> u64 {
    let usage = catch_panic("read usage", || Ok(engine.backend().usage()));
    usage.ok().and_then(|usage| usage.corrupt_entries).unwrap_or(0)
}

/// Returns the explanation of a record that was stored under another stamp than that of its call.
async fn invalidated<M: Io, B: Backend>(engine: &Engine<B>, key: &Key, stamp: u64) -> Explanation {
    match engine.invalidated_group::<M>(key.prefix(), key.tags(), stamp).await {
        Ok(Some(InvalidatedGroup::All)) => Explanation::AllInvalidated,
        Ok(Some(InvalidatedGroup::Function)) => Explanation::FunctionInvalidated,
        Ok(Some(InvalidatedGroup::Tag)) => Explanation::TagInvalidated,
        Ok(None) => Explanation::Invalidated,
        Err(error) => Explanation::Unreadable(error),
    }
}
