//! Access to single entries by a key made by hand.

use std::time::Duration;

use crate::backend::Backend;
use crate::cache::{Cache, Declaration, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Completion, Outcome};
use crate::freshness::is_fresh;
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::Key;
use crate::panic::catch_panic;
use crate::record::Record;
use crate::serializer::{EntryContext, Serializer};
use crate::validity::{SchemaFlags, Validator, Validity};

impl<B: Backend, S> Cache<B, S> {
    /// Returns the value that is stored for a key, or `None`.
    ///
    /// An entry that has expired, was invalidated, is of another type or cannot be decoded is not
    /// returned. Nor is a value past its ttl that calls may get with `stale`: [`Entry::peek`](crate::Entry::peek) returns it.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Configuration`] if the key does not match the function
    /// that it is for, as far as this is known from the function or the entry: the function has a version
    /// or tags that the [`Key`] does not carry, or another serializer, or another type.
    pub fn get<T>(&self, key: &Key) -> Result<Option<T>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        run_blocking(self.get_over::<Blocking, T>(key))
    }

    /// [`get`](Self::get) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub async fn get_async<T>(&self, key: &Key) -> Result<Option<T>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        self.get_over::<Awaiting, T>(key).await
    }

    async fn get_over<M: Io, T>(&self, key: &Key) -> Result<Option<T>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.engine.is_paused() {
            return Ok(None);
        }
        self.check_before::<T>(key)?;
        let stamp = self.engine.stamp::<M>(key.prefix(), key.tags()).await;
        let stamp = stamp.map_err(|error| error.in_operation("read entry"))?;
        let record = self.engine.read_or_offline::<M>(key).await;
        let record = self.engine.absent_if_unreadable(key, record)?;
        self.decode_record(key, stamp, record)
    }

    /// Stores a value for a key. A computation of the key in progress does not store its value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for a ttl of zero, and if the function that the key is for
    /// would not find the value (see [`get`](Self::get)); [`ErrorKind::Encode`] for a value that
    /// the serializer cannot restore, and those of the backend.
    pub fn set<T>(&self, key: &Key, value: &T, ttl: Duration) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        run_blocking(self.set_over::<Blocking, T>(key, value, ttl))
    }

    /// [`set`](Self::set) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Self::set).
    pub async fn set_async<T>(&self, key: &Key, value: &T, ttl: Duration) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        self.set_over::<Awaiting, T>(key, value, ttl).await
    }

    async fn set_over<M: Io, T>(&self, key: &Key, value: &T, ttl: Duration) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let engine = &self.engine;
        if engine.is_paused() {
            return Ok(());
        }
        let is_certain = self.check::<T>(key)?;
        let stamp = engine.stamp::<M>(key.prefix(), key.tags()).await;
        let stamp = stamp.map_err(|error| error.in_operation("write entry"))?;
        let record = self.encode_record(key, value, stamp, ttl)?;
        if !is_certain && let Ok(Some(old)) = engine.read::<M>(key).await {
            self.check_replaced::<T>(key, old)?;
        }
        engine.store::<M>(key, stamp, record).await
    }

    /// Removes the entry of a key, and returns whether there was one. A computation in progress returns
    /// its value to the callers that already wait for it, but does not store it.
    ///
    /// This holds within the process. A computation in another process that uses the same directory still
    /// stores its value, unless it is invalidated by a tag ([`invalidate_tag`](Self::invalidate_tag)).
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Configuration`] if the function has a version and the
    /// key has none, as far as the cache knows the function.
    pub fn remove(&self, key: &Key) -> Result<bool> {
        run_blocking(self.engine.remove::<Blocking>(key))
    }

    /// [`remove`](Self::remove) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`remove`](Self::remove).
    pub async fn remove_async(&self, key: &Key) -> Result<bool> {
        self.engine.remove::<Awaiting>(key).await
    }

    /// Removes all entries, as [`remove`](Self::remove) does one.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Unsupported`] if it cannot be cleared.
    pub fn clear(&self) -> Result<()> {
        run_blocking(self.engine.remove_all::<Blocking>())
    }

    /// [`clear`](Self::clear) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`clear`](Self::clear).
    pub async fn clear_async(&self) -> Result<()> {
        self.engine.remove_all::<Awaiting>().await
    }

    /// Checks a key that was made by hand against the declarations of its prefix. Returns `true` if all of
    /// them are compatible, and `false` if there are none or some are not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if there are declarations, and none is compatible.
    #[cold]
    pub(super) fn check<T>(&self, key: &Key) -> Result<bool>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        catch_panic("check key", || {
            let Validator { serializer, type_stamp, flags, .. } = self.validator::<T>(key, 0);
            self.engine
                .declarations()
                .check(key.prefix(), Declaration::new(key, flags, serializer, type_stamp))
        })
    }

    /// Checks a key before anything is read, if any function has constraints: an entry that was stored
    /// before the function was declared may look valid.
    #[inline]
    pub(crate) fn check_before<T>(&self, key: &Key) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.engine.declarations().has_constraints() {
            self.check::<T>(key).map(|_| ())
        } else {
            Ok(())
        }
    }

    /// Returns an error if the record to replace is of a function that would not find the new one.
    pub(super) fn check_replaced<T>(&self, key: &Key, old: Record<B::Stored>) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let now = self.engine.now();
        let forbidden = catch_panic("check entry", move || {
            let is_alive = is_fresh(old.created(), old.stale_until(), now);
            let error = self.validator::<T>(key, 0).replacement_error(&old).filter(|_| is_alive);
            let context = self.entry_context::<T, _>(key, &old);
            Ok(error.filter(|_| self.serializer.verify(old.value(), &context).is_ok()))
        });
        forbidden?.map_or(Ok(()), Err)
    }

    fn validator<T>(&self, key: &Key, stamp: u64) -> Validator
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let (serializer, type_stamp) = (self.serializer.id(), self.serializer.schema());
        Validator { serializer, type_stamp, stamp, flags: SchemaFlags::of_key(key) }
    }

    pub(super) fn encode_record<T>(
        &self,
        key: &Key,
        value: &T,
        stamp: u64,
        ttl: Duration,
    ) -> Result<Record<B::Stored>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if ttl.is_zero() {
            return Err(Error::new(ErrorKind::Configuration, "the ttl of a value is zero"));
        }
        catch_panic("encode value", || {
            let created = self.engine.now();
            let record = Record::new((), created, created.saturating_add(ttl))
                .with_schema(self.validator::<T>(key, stamp).schema())
                .with_serializer(self.serializer.id());
            let context = self.entry_context::<T, _>(key, &record);
            let stored = self.serializer.serialize_for(value, &context)?;
            Ok(record.map(|()| stored))
        })
    }

    /// Returns the context in which the value of a record is encoded or decoded.
    fn entry_context<'a, T, V>(&'a self, key: &'a Key, record: &Record<V>) -> EntryContext<'a>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        self.engine.entry_context(key, record, self.serializer.schema())
    }

    pub(super) fn decode_record<T>(
        &self,
        key: &Key,
        stamp: u64,
        record: Option<Record<B::Stored>>,
    ) -> Result<Option<T>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let Some(record) = record else { return self.check::<T>(key).map(|_| None) };
        let now = self.engine.now();
        let decoded = catch_panic("decode value", move || {
            if !is_fresh(record.created(), record.fresh_until(), now) {
                return Ok(Ok(None));
            }
            let validator = self.validator::<T>(key, stamp);
            let is_own = record.schema() == validator.schema()
                && record.serializer() == validator.serializer;
            match if is_own { Validity::Valid } else { validator.validate(&record) } {
                Validity::Valid => {
                    let context = self.entry_context::<T, _>(key, &record);
                    self.serializer.deserialize_for(record.value(), &context).map(Some).map(Ok)
                }
                Validity::Invalid => Ok(self.check::<T>(key).map(|_| None)),
                Validity::Incompatible(error) => {
                    let context = self.entry_context::<T, _>(key, &record);
                    self.serializer.verify(record.value(), &context).map(|()| Err(error))
                }
            }
        });
        match decoded {
            Ok(result) => result,
            Err(error) => {
                self.engine.fault(key.prefix(), &error, false);
                Ok(None)
            }
        }
    }
}

impl<B: Backend> Engine<B> {
    /// Stores a record for a key, in the place of a running computation.
    pub(crate) async fn store<M: Io>(
        &self,
        key: &Key,
        stamp: u64,
        record: Record<B::Stored>,
    ) -> Result<()> {
        let Some(lead) = self.lead_write::<M>(key, stamp).await else {
            return self.write::<M>(key, record).await;
        };
        M::lead(lead.id(), async move {
            let mut result = self.write::<M>(key, record.clone()).await;
            let mut lead = lead.computed(Outcome::computed(record));
            lead.set_stored(result.is_ok());
            while lead.complete() == Completion::MustDelete {
                lead.set_stored(false);
                result = self.with_cleanup(key, result, self.delete::<M>(key).await);
            }
            result.inspect(|()| self.count_store(key.prefix()))
        })
        .await
    }

    /// Returns the result of a write and of the deletion that followed it. If both failed, the error is that of the write, and
    /// that of the deletion is counted.
    pub(super) fn with_cleanup<T>(
        &self,
        key: &Key,
        written: Result<()>,
        deleted: Result<T>,
    ) -> Result<()> {
        match deleted {
            Ok(_) => written,
            Err(error) if written.is_ok() => Err(error),
            Err(error) => {
                self.fault(key.prefix(), &error, false);
                written
            }
        }
    }
}
