//! Reading, storing and removing single entries, by a key made by hand.

use std::time::Duration;

use crate::backend::Backend;
use crate::cache::{Cache, Declaration};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Deadline, Landing, Outcome};
use crate::freshness::is_fresh;
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::Key;
use crate::panic::catch_panic;
use crate::record::Record;
use crate::serializer::Serializer;
use crate::validity::{SchemaFlags, Validator, Validity};

impl<B: Backend, S> Cache<B, S> {
    /// Returns the value that is stored for a key, or `None`.
    ///
    /// An entry that has expired, was invalidated, is of another type or cannot be decoded is not
    /// returned.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Configuration`] where the key is not that of the function
    /// whose entry it is meant for, as far as the cache knows the function or the entry says so: the
    /// function has a version or tags that the [`Key`] does not carry, or another serializer, or
    /// another type.
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
        let stamp = self.engine.stamp::<M>(key.prefix(), key.tags()).await?;
        let record = self.engine.read_or_offline::<M>(key).await?;
        self.decode_record(key, stamp, record)
    }

    /// Stores a value for a key. What is being computed for the key at the moment is not stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for a ttl of zero, and where the function that the key is meant
    /// for would not see the value (see [`get`](Self::get)); [`ErrorKind::Encode`] for a value that
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
        let stamp = engine.stamp::<M>(key.prefix(), key.tags()).await?;
        let record = self.encode_record(key, value, stamp, ttl)?;
        if !is_certain && let Ok(Some(old)) = engine.read::<M>(key).await {
            self.check_replaced::<T>(key, old)?;
        }
        let mut deadline = Deadline::default();
        let lead = loop {
            match engine.flights().seize(key, stamp) {
                Ok(lead) => break lead,
                Err(flight) if engine.wait_for::<M>(&flight, &mut deadline).await => {}
                Err(_) => return engine.write::<M>(key, record).await,
            }
        };
        M::lead(lead.id(), async move {
            let result = engine.write::<M>(key, record.clone()).await;
            let mut lead = lead.computed(Outcome::Computed(record.into()));
            while lead.land() == Landing::MustDelete {
                engine.delete::<M>(key).await?;
            }
            result.inspect(|()| engine.count_store(key.prefix()))
        })
        .await
    }

    /// Removes the entry of a key, and returns whether there was one. What is being computed for the
    /// key at the moment goes to the callers that already wait for it, and is not stored.
    ///
    /// That holds in this process. What another process computes at the moment, for a directory that
    /// both use, is stored: tags ([`invalidate_tag`](Self::invalidate_tag)) reach that, too.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Configuration`] where the function has a version and the
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
    /// Those of the backend; [`ErrorKind::Unsupported`] where it cannot be cleared.
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

    /// Checks a key that was made by hand against the functions of its prefix. `true` where all that is
    /// known of them agrees with it, `false` where nothing is known or some do not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] where none of them agrees.
    #[cold]
    fn check<T>(&self, key: &Key) -> Result<bool>
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

    /// [`check`](Self::check) before anything is read, where that may be necessary: an entry that was
    /// stored before the cache knew the function may look right.
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

    /// Checks whether the record that is to be replaced is of a function that would not see the new one.
    fn check_replaced<T>(&self, key: &Key, old: Record<B::Stored>) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let now = self.engine.now();
        let forbidden = catch_panic("check entry", move || {
            let is_alive = is_fresh(old.created(), old.stale_until(), now);
            Ok(self.validator::<T>(key, 0).replacement_error(&old).filter(|_| is_alive))
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

    fn encode_record<T>(
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
        let stored = catch_panic("encode value", || self.serializer.serialize(value))?;
        let created = self.engine.now();
        Ok(Record::new(stored, created, created.saturating_add(ttl))
            .with_schema(self.validator::<T>(key, stamp).schema())
            .with_serializer(self.serializer.id()))
    }

    fn decode_record<T>(
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
        let opened = catch_panic("decode value", move || {
            if !is_fresh(record.created(), record.expires(), now) {
                return Ok(Ok(None));
            }
            let validator = self.validator::<T>(key, stamp);
            let is_own = record.schema() == validator.schema()
                && record.serializer() == validator.serializer;
            match if is_own { Validity::Valid } else { validator.validate(&record) } {
                Validity::Valid => self.serializer.deserialize(record.value()).map(Some).map(Ok),
                Validity::Invalid => Ok(self.check::<T>(key).map(|_| None)),
                Validity::Incompatible(error) => Ok(Err(error)),
            }
        });
        match opened {
            Ok(judged) => judged,
            Err(error) => {
                self.engine.fault(key.prefix(), &error, false);
                Ok(None)
            }
        }
    }
}
