//! Decoding of a record to the output of a call.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::CachedOutput;
use crate::call::{CachedFn, Call, StaleValue};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::error::{Error, Result};
use crate::freshness::{is_fresh, is_young};
use crate::outcome::CallOutcome;
use crate::panic::{catch_panic, clear_quietly};
use crate::record::Record;
use crate::serializer::{Serializer, ValueClass};
use crate::validity::{Validator, Validity};

/// The error of a read that would block.
pub(super) struct WouldBlock;

/// The result of decoding a record for a call.
pub(crate) enum Decoded<R> {
    Fresh(R),
    /// Past its ttl, but to be served while it is refreshed.
    Stale(Box<StaleValue<R>>),
    Nothing,
    /// The key does not match the function that it is for. The function runs without the cache.
    Refused,
}

/// A decoded record, with the data for the event of a hit.
struct DecodedRecord<R> {
    decoded: Decoded<R>,
    now: Timestamp,
    created: Timestamp,
    compute_time: CompactDuration,
}

impl<R> DecodedRecord<R> {
    const NOTHING: Self = Self {
        decoded: Decoded::Nothing,
        now: Timestamp::NEVER,
        created: Timestamp::NEVER,
        compute_time: CompactDuration::ZERO,
    };
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Call<'_, B, F> {
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn value_class(&self) -> ValueClass {
        self.serializer().value_class()
    }

    /// Returns a fresh value that the backend reads without a lock. It is an inline value, so no code
    /// of users runs.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn serve_optimistic(&self) -> Option<F::Output> {
        let mut record = self.engine.backend().read_optimistic(self.key)?;
        let now = self.engine.now();
        if !self.is_fresh(&record, now) || !self.is_of_this_call(&record) {
            return None;
        }
        let value = self.serializer().deserialize_owned(record.value_mut()).ok()?;
        self.count_hit(now, record.created(), record.compact_compute_time());
        Some(F::output(value))
    }

    /// Decodes the record of the key, or returns an error if reading it would block.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn decode_now(&self) -> Result<Decoded<F::Output>, WouldBlock> {
        let backend = self.engine.backend();
        let mut is_known = true;
        // Without a guard the compiler sees the whole path, and emits half as much code.
        let decoded = if backend.is_in_process() && self.value_class() != ValueClass::Opaque {
            self.read_now(&mut is_known)
        } else {
            catch_panic("read entry", || self.read_now(&mut is_known))
        };
        match decoded {
            Ok(decoded) if is_known => Ok(self.count(decoded)),
            Ok(_) => Err(WouldBlock),
            Err(error) => {
                self.count_error(&error);
                Ok(Decoded::Nothing)
            }
        }
    }

    /// Reads and decodes the record of the key without blocking. `is_known` is `false` afterwards
    /// if that cannot be done.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_now(&self, is_known: &mut bool) -> Result<DecodedRecord<F::Output>> {
        // The record is decoded where it is: see `KeyBytes`.
        let backend = self.engine.backend();
        let mut read = backend.read_now(self.key, self.value_class());
        if let Some(Ok(Some(record))) = &mut read {
            let decoded = self.decode_at_now(record);
            if !matches!(decoded, Ok(DecodedRecord { decoded: Decoded::Fresh(_), .. })) {
                // It may hold the last reference to a value, whose drop runs code of users.
                clear_quietly(&mut read);
            }
            return decoded;
        }
        *is_known = read.is_some();
        read.unwrap_or(Ok(None)).map(|_| DecodedRecord::NOTHING)
    }

    /// Decodes a record, and counts the hit if it is fresh.
    pub(crate) fn decode_counted(&self, mut record: Record<B::Stored>) -> Decoded<F::Output> {
        let decoded = catch_panic("decode value", move || self.decode_at_now(&mut record));
        self.ok_or_count(decoded).map_or(Decoded::Nothing, |decoded| self.count(decoded))
    }

    /// Returns the output of a record if it is fresh, and counts the hit.
    pub(crate) fn serve(&self, record: Record<B::Stored>) -> Option<F::Output> {
        match self.decode_counted(record) {
            Decoded::Fresh(output) => Some(output),
            Decoded::Stale(_) | Decoded::Nothing | Decoded::Refused => None,
        }
    }

    /// Decodes a record at the current time. This runs code of the serializer and the ttl, so it must be
    /// called within [`catch_panic`], which must also drop the record: it may hold the last reference to
    /// the value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn decode_at_now(&self, record: &mut Record<B::Stored>) -> Result<DecodedRecord<F::Output>> {
        let now = self.engine.now();
        let decoded = self.decode(record, now)?;
        let (created, compute_time) = (record.created(), record.compact_compute_time());
        Ok(DecodedRecord { decoded, now, created, compute_time })
    }

    /// Counts a hit. A key made by hand that finds nothing is checked against the function that it is
    /// for.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn count(&self, record: DecodedRecord<F::Output>) -> Decoded<F::Output> {
        let DecodedRecord { decoded, now, created, compute_time } = record;
        match decoded {
            Decoded::Fresh(_) => self.count_hit(now, created, compute_time),
            Decoded::Nothing => return self.nothing(),
            _ => {}
        }
        decoded
    }

    /// Returns the result of a call without a record. A key made by hand is checked.
    #[inline]
    pub(crate) fn nothing(&self) -> Decoded<F::Output> {
        if self.options().is_by_key { self.check() } else { Decoded::Nothing }
    }

    #[cold]
    fn check(&self) -> Decoded<F::Output> {
        let checked = catch_panic("check key", || {
            self.engine.declarations().check(self.key.prefix(), self.declaration())
        });
        match checked {
            Ok(_) => Decoded::Nothing,
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&self, error: &Error) -> Decoded<F::Output> {
        self.engine.count_bypass(self.key.prefix(), Some(error), self.options().is_quiet);
        Decoded::Refused
    }

    /// Validates a record whose stamps are not those of this call. If it is not valid, returns the result
    /// for the call.
    #[cold]
    fn validate(&self, record: &Record<B::Stored>) -> Result<(), Decoded<F::Output>> {
        let validator = Validator {
            serializer: self.serializer().id(),
            type_stamp: self.serializer().schema(),
            stamp: self.stamp,
            flags: self.options().flags,
        };
        match validator.validate(record) {
            Validity::Valid => {
                self.declare();
                Ok(())
            }
            Validity::Incompatible(error) if self.options().is_by_key => Err(self.refuse(&error)),
            Validity::Incompatible(_) | Validity::Invalid => Err(Decoded::Nothing),
        }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn count_hit(&self, now: Timestamp, created: Timestamp, compute_time: CompactDuration) {
        self.engine.counters().call(CallOutcome::Hit);
        if self.engine.has_listeners(self.options().is_quiet) {
            self.emit_hit(now.saturating_since(created), compute_time.time());
        }
    }

    #[cold]
    fn emit_hit(&self, age: Duration, compute_time: Duration) {
        self.emit(CallOutcome::Hit, Some(age), compute_time);
    }

    /// Returns whether a record is fresh, as far as that does not depend on its value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn is_fresh(&self, record: &Record<B::Stored>, now: Timestamp) -> bool {
        is_fresh(record.created(), record.expires(), now)
            && self
                .function
                .fixed_ttl()
                .is_none_or(|ttl| is_young(record.created(), ttl.micros, now))
    }

    /// Returns whether a record is of this version of this function, and not invalidated.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn is_of_this_call(&self, record: &Record<B::Stored>) -> bool {
        record.schema() == self.schema() && record.serializer() == self.serializer().id()
    }

    /// Decodes a record, whose value is moved out of it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn decode(&self, record: &mut Record<B::Stored>, now: Timestamp) -> Result<Decoded<F::Output>> {
        let may_be_fresh = self.is_fresh(record, now);
        if !may_be_fresh && self.options().stale.is_zero() {
            return Ok(Decoded::Nothing);
        }
        if !self.is_of_this_call(record)
            && let Err(decoded) = self.validate(record)
        {
            return Ok(decoded);
        }
        if !may_be_fresh {
            return self.decode_stale(record, now);
        }
        let value = self.serializer().deserialize_owned(record.value_mut())?;
        Ok(Decoded::Fresh(F::output(value)))
    }

    /// Decodes a record that is not fresh, if it may be served stale.
    #[cold]
    fn decode_stale(
        &self,
        record: &Record<B::Stored>,
        now: Timestamp,
    ) -> Result<Decoded<F::Output>> {
        let (created, stale) = (record.created(), self.options().stale);
        let end = record.stale_until().min(self.fresh_until(record).saturating_add(stale));
        if stale.is_zero() || !is_fresh(created, end, now) {
            return Ok(Decoded::Nothing);
        }
        let value = self.serializer().deserialize(record.value())?;
        let (age, compute_time) = (now.saturating_since(created), record.compute_time());
        let output = F::output(value);
        Ok(Decoded::Stale(Box::new(StaleValue { output, age, compute_time, end })))
    }

    /// Returns the instant at which a record is no longer fresh for this call: its own, or an
    /// earlier one by the ttl that all values have now. A ttl that depends on the value was
    /// computed when the value was stored.
    fn fresh_until(&self, record: &Record<B::Stored>) -> Timestamp {
        let ttl = self.function.fixed_ttl().map_or(Duration::MAX, |ttl| ttl.time);
        record.expires().min(record.created().saturating_add(ttl))
    }

    /// Decodes a record for an entry of this call. Nothing is counted.
    pub(crate) fn decode_for_entry(
        &self,
        mut record: Record<B::Stored>,
    ) -> Option<CachedOutput<F::Output>> {
        let now = self.engine.now();
        let (created, fresh_until) = (record.created(), self.fresh_until(&record));
        let decoded = catch_panic("decode value", move || {
            let output = match self.decode(&mut record, now)? {
                Decoded::Fresh(output) => output,
                Decoded::Stale(stale) => stale.output,
                Decoded::Nothing | Decoded::Refused => return Ok(None),
            };
            let age = now.saturating_since(created);
            Ok(Some(CachedOutput { output, age, ttl_left: fresh_until.saturating_since(now) }))
        });
        self.ok_or_count(decoded).flatten()
    }

    /// Returns the output that another caller has just computed, whatever its age.
    pub(crate) fn decode_shared(&self, record: &Record<B::Stored>) -> Option<F::Output> {
        let decoded = catch_panic("decode value", || {
            if !self.is_of_this_call(record) && self.validate(record).is_err() {
                return Ok(None);
            }
            self.serializer().deserialize(record.value()).map(Some)
        });
        let value = self.ok_or_count(decoded).flatten()?;
        self.engine.counters().call(CallOutcome::Coalesced);
        self.emit(CallOutcome::Coalesced, None, record.compute_time());
        Some(F::output(value))
    }
}
