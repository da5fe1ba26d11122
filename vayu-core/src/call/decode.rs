//! What a call finds: the answer that a record holds for it.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::{Blocking, Call, Decoded, OutputShape, StaleValue, Ttl};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::entry::Remembered;
use crate::error::{Error, Result};
use crate::freshness::{is_fresh, is_young};
use crate::observer::CallOutcome;
use crate::panic::{catch_panic, clear_quietly};
use crate::record::Record;
use crate::serializer::{Serializer, ValueClass};
use crate::validity::{Validator, Validity};

/// What was found in a record, and what is told of it.
struct DecodedRecord<R> {
    found: Decoded<R>,
    now: Timestamp,
    created: Timestamp,
    compute_time: CompactDuration,
}

impl<R> DecodedRecord<R> {
    const NOTHING: Self = Self {
        found: Decoded::Nothing,
        now: Timestamp::NEVER,
        created: Timestamp::NEVER,
        compute_time: CompactDuration::ZERO,
    };
}

impl<B, S, H, Z, L, P> Call<'_, B, S, H, Z, L, P>
where
    B: Backend,
    H: Copy,
{
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn value_class<T>(&self) -> ValueClass
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        self.serializer.value_class()
    }

    /// Returns a fresh value that the backend finds without a lock. It is an inline value, so no code of
    /// users runs.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn serve_optimistic<R>(&self) -> Option<R>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let mut record = self.cache.backend().read_optimistic(self.key)?;
        let now = self.cache.now();
        if !self.is_fresh::<R>(&record, now) || !self.is_of_this_call(&record) {
            return None;
        }
        let answer =
            self.options.shape.wrap(self.serializer.deserialize_owned(record.value_mut()).ok()?);
        self.count_hit(now, record.created(), record.compact_compute_time());
        Some(answer)
    }

    /// The answer that is there without blocking, if the backend can say that: `Err` if it cannot.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn serve_now<R>(&self) -> Result<Decoded<R>, Blocking>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let backend = self.cache.backend();
        let mut can_say = true;
        // Without a guard the compiler sees the whole path, and makes half of what it would have made.
        let class = self.value_class::<H::Value>();
        let opened = if backend.is_in_process() && class != ValueClass::Opaque {
            self.read_now(&mut can_say)
        } else {
            catch_panic("read entry", || self.read_now(&mut can_say))
        };
        match opened {
            Ok(opened) if can_say => Ok(self.count::<R>(opened)),
            Ok(_) => Err(Blocking),
            Err(error) => {
                self.fault(&error);
                Ok(Decoded::Nothing)
            }
        }
    }

    /// What the backend has at once, and whether it can say that.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_now<R>(&self, can_say: &mut bool) -> Result<DecodedRecord<R>>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        // The record is looked at where it is: see `KeyBytes`.
        let backend = self.cache.backend();
        let mut read = backend.read_now(self.key, self.value_class::<H::Value>());
        if let Some(Ok(Some(record))) = &mut read {
            let opened = self.decode_at_now(record);
            if !matches!(opened, Ok(DecodedRecord { found: Decoded::Fresh(_), .. })) {
                // It may be the last to hold a value of any type.
                clear_quietly(&mut read);
            }
            return opened;
        }
        *can_say = read.is_some();
        read.unwrap_or(Ok(None)).map(|_| DecodedRecord::NOTHING)
    }

    /// What a record holds for this call.
    pub(crate) fn decode_counted<R>(&self, mut record: Record<B::Stored>) -> Decoded<R>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let opened = catch_panic("decode value", move || self.decode_at_now(&mut record));
        self.ok_or_count(opened).map_or(Decoded::Nothing, |opened| self.count::<R>(opened))
    }

    /// The answer that a record holds, if it is fresh.
    pub(crate) fn serve<R>(&self, record: Record<B::Stored>) -> Option<R>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        match self.decode_counted(record) {
            Decoded::Fresh(answer) => Some(answer),
            Decoded::Stale(_) | Decoded::Nothing | Decoded::Refused => None,
        }
    }

    /// Runs code of the serializer and the ttl: only for [`catch_panic`], in which the record is also to
    /// be dropped, as it may be the last to hold the value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn decode_at_now<R>(&self, record: &mut Record<B::Stored>) -> Result<DecodedRecord<R>>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let now = self.cache.now();
        let found = self.decode(record, now)?;
        Ok(DecodedRecord {
            found,
            now,
            created: record.created(),
            compute_time: record.compact_compute_time(),
        })
    }

    /// Counts a hit, if it is one. Where nothing was found by a key that was made by hand, the key may be
    /// another one than that of the function that it is for.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn count<R>(&self, opened: DecodedRecord<R>) -> Decoded<R>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
    {
        let DecodedRecord { found, now, created, compute_time } = opened;
        match found {
            Decoded::Fresh(_) => self.count_hit(now, created, compute_time),
            Decoded::Nothing => return self.nothing(),
            _ => {}
        }
        found
    }

    /// Returns what a call has found that has found nothing.
    #[inline]
    pub(crate) fn nothing<R>(&self) -> Decoded<R>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
    {
        if self.options.is_by_key { self.check() } else { Decoded::Nothing }
    }

    #[cold]
    fn check<R>(&self) -> Decoded<R>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
    {
        let checked = catch_panic("check key", || {
            self.cache.declarations().check(self.key.prefix(), self.declaration())
        });
        match checked {
            Ok(_) => Decoded::Nothing,
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse<R>(&self, error: &Error) -> Decoded<R> {
        self.cache.count_bypass(self.key.prefix(), Some(error), self.options.is_quiet);
        Decoded::Refused
    }

    /// Whether a record is valid for this call that has not the stamps of its own. If not, what that means
    /// for the call.
    #[cold]
    fn admits<R>(&self, record: &Record<B::Stored>) -> Result<(), Decoded<R>>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
    {
        let validator = Validator {
            serializer: self.serializer.id(),
            type_stamp: self.serializer.schema(),
            stamp: self.stamp,
            flags: self.options.flags,
        };
        match validator.validate(record) {
            Validity::Valid => {
                self.declare::<H::Value>();
                Ok(())
            }
            Validity::Incompatible(error) if self.options.is_by_key => Err(self.refuse(&error)),
            Validity::Incompatible(_) | Validity::Invalid => Err(Decoded::Nothing),
        }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn count_hit(&self, now: Timestamp, created: Timestamp, compute_time: CompactDuration) {
        self.cache.counters().hit();
        if self.cache.has_listeners(self.options.is_quiet) {
            self.emit(CallOutcome::Hit, Some(now.saturating_since(created)), compute_time.time());
        }
    }

    /// Whether a record is fresh, as far as that can be said without its value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn is_fresh<R>(&self, record: &Record<B::Stored>, now: Timestamp) -> bool
    where
        H: OutputShape<R>,
        L: Ttl<H::Value>,
    {
        is_fresh(record.created(), record.expires(), now)
            && self
                .options
                .ttl
                .fixed_micros()
                .is_none_or(|ttl| is_young(record.created(), ttl, now))
    }

    /// Whether a record is of this version of this function, and of nothing that was invalidated.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn is_of_this_call<T>(&self, record: &Record<B::Stored>) -> bool
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        record.schema() == self.schema() && record.serializer() == self.serializer.id()
    }

    /// What a record holds, which is taken out of it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn decode<R>(&self, record: &mut Record<B::Stored>, now: Timestamp) -> Result<Decoded<R>>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let may_be_fresh = self.is_fresh::<R>(record, now);
        if !may_be_fresh && self.options.stale.is_zero() {
            return Ok(Decoded::Nothing);
        }
        if !self.is_of_this_call(record)
            && let Err(found) = self.admits(record)
        {
            return Ok(found);
        }
        if !may_be_fresh {
            return self.decode_stale(record, now);
        }
        let value = self.serializer.deserialize_owned(record.value_mut())?;
        Ok(Decoded::Fresh(self.options.shape.wrap(value)))
    }

    /// What [`decode`](Self::decode) answers for a record that is not fresh.
    #[cold]
    fn decode_stale<R>(&self, record: &Record<B::Stored>, now: Timestamp) -> Result<Decoded<R>>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let created = record.created();
        let end =
            record.stale_until().min(self.fresh_until(record).saturating_add(self.options.stale));
        if self.options.stale.is_zero() || !is_fresh(created, end, now) {
            return Ok(Decoded::Nothing);
        }
        let value = self.serializer.deserialize(record.value())?;
        let age = now.saturating_since(created);
        let answer = self.options.shape.wrap(value);
        Ok(Decoded::Stale(Box::new(StaleValue {
            answer,
            age,
            compute_time: record.compute_time(),
            end,
        })))
    }

    /// Returns the instant at which a record is no longer fresh for this call: its own, or an earlier one by
    /// the ttl that every value has now. A ttl that the value decides was decided when it was stored.
    fn fresh_until<R>(&self, record: &Record<B::Stored>) -> Timestamp
    where
        H: OutputShape<R>,
        L: Ttl<H::Value>,
    {
        let ttl = self.options.ttl.fixed().unwrap_or(Duration::MAX);
        record.expires().min(record.created().saturating_add(ttl))
    }

    /// What a record holds for an entry of this call. Nothing is counted.
    pub(crate) fn decode_for_entry<R>(&self, mut record: Record<B::Stored>) -> Option<Remembered<R>>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let now = self.cache.now();
        let (created, fresh_until) = (record.created(), self.fresh_until(&record));
        let recalled = catch_panic("decode value", move || {
            let answer = match self.decode(&mut record, now)? {
                Decoded::Fresh(answer) => answer,
                Decoded::Stale(old) => old.answer,
                Decoded::Nothing | Decoded::Refused => return Ok(None),
            };
            Ok(Some(Remembered {
                answer,
                age: now.saturating_since(created),
                ttl_left: fresh_until.saturating_since(now),
            }))
        });
        self.ok_or_count(recalled).flatten()
    }

    /// The answer that another caller has just computed, whatever its age.
    pub(crate) fn decode_shared<R>(&self, record: &Record<B::Stored>) -> Option<R>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
    {
        let decoded = catch_panic("decode value", || {
            if !self.is_of_this_call(record) && self.admits::<R>(record).is_err() {
                return Ok(None);
            }
            self.serializer.deserialize(record.value()).map(Some)
        });
        let value = self.ok_or_count(decoded).flatten()?;
        self.cache.counters().coalesced();
        self.emit(CallOutcome::Coalesced, None, record.compute_time());
        Some(self.options.shape.wrap(value))
    }
}
