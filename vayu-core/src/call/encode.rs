//! Encoding of an output to the record that is stored.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::typed::EncodeOutput;
use crate::call::{Call, FnProperties, IdleTime};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::error::{Error, ErrorKind, Result};
use crate::panic::catch_panic;
use crate::record::Record;
use crate::serializer::ValueClass;

impl<B: Backend, F: FnProperties> Call<'_, B, F> {
    /// Returns whether no code of users runs while a record is encoded: it does not panic, and gives the same record again.
    #[inline]
    pub(crate) fn encodes_alike(&self) -> bool {
        // The class of a value says something of its stored form in memory alone.
        self.engine.backend().is_in_process()
            && self.function.value_class() != ValueClass::Opaque
            && !self.function.has_closures()
    }

    /// Returns the record to store for an output that took `compute_time` and was returned at
    /// `created`, or `None` if it is not to be stored. An error is counted.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn encode_or_count<E: EncodeOutput<B::Stored> + ?Sized>(
        &self,
        output: &E,
        compute_time: CompactDuration,
        created: Timestamp,
    ) -> Option<Record<B::Stored>> {
        self.ok_or_count(self.encode(output, compute_time, created)).flatten()
    }

    /// [`encode_or_count`](Self::encode_or_count), which counts no error.
    ///
    /// # Errors
    ///
    /// When the value cannot be serialized, or the ttl of all values is zero.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn encode<E: EncodeOutput<B::Stored> + ?Sized>(
        &self,
        output: &E,
        compute_time: CompactDuration,
        created: Timestamp,
    ) -> Result<Option<Record<B::Stored>>> {
        let encode = || self.encode_unguarded(output, compute_time, created);
        // Without a guard, the compiler sees the whole path.
        if self.encodes_alike() { encode() } else { catch_panic("store value", encode) }
    }

    /// [`encode`](Self::encode), to be called within [`catch_panic`], unless the output [encodes alike](Self::encodes_alike).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn encode_unguarded<E: EncodeOutput<B::Stored> + ?Sized>(
        &self,
        output: &E,
        compute_time: CompactDuration,
        created: Timestamp,
    ) -> Result<Option<Record<B::Stored>>> {
        if !output.can_store()? {
            return Ok(None);
        }
        self.declare_unguarded();
        let Some(ttl) = output.ttl() else { return Ok(None) };
        let record = self.record_for(ttl, compute_time, created)?;
        let stored = output.serialize(&self.context(&record))?;
        Ok(Some(record.map(|()| stored)))
    }

    /// Returns the times of the record to store for an output. An error is counted.
    pub(super) fn encode_times<E: EncodeOutput<B::Stored> + ?Sized>(
        &self,
        output: &E,
        compute_time: CompactDuration,
        created: Timestamp,
    ) -> Option<Record<()>> {
        let times = catch_panic("store value", || match output.ttl() {
            Some(ttl) => self.record_for(ttl, compute_time, created).map(Some),
            None => Ok(None),
        });
        self.ok_or_count(times).flatten()
    }

    /// Returns the record of a value with this ttl.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn record_for(
        &self,
        ttl: Duration,
        compute_time: CompactDuration,
        created: Timestamp,
    ) -> Result<Record<()>> {
        let options = self.options();
        if ttl.is_zero() {
            return Err(Error::new(ErrorKind::Configuration, "the ttl of this function is zero"));
        }
        let expires = match self.function.fixed_ttl() {
            // Its microseconds are known.
            Some(fixed) if !options.has_jitter() => created.saturating_add_micros(fixed.micros),
            _ => {
                let ttl = options.jittered(ttl, || self.key.random(created));
                created.saturating_add(ttl)
            }
        };
        let mut stale_until = expires;
        if !options.stale.is_zero() {
            stale_until = expires.saturating_add(options.stale);
        }
        if let Some(idle) = self.function.idle().get() {
            if idle.is_zero() {
                return Err(Error::new(ErrorKind::Configuration, "the idle time is zero"));
            }
            stale_until = idle.end(stale_until, created);
        }
        let record = Record::new((), created, expires)
            .with_end(stale_until)
            .with_schema(self.schema())
            .with_serializer(self.function.serializer_id())
            .with_compact_compute_time(compute_time);
        Ok(record)
    }
}
