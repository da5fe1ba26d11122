//! Decoding of a record to the output of a call.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::CachedOutput;
use crate::call::{CachedFn, Call, IdleTime, StaleValue, remaining_ttl};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::error::{Error, Result};
use crate::freshness::{CLOCK_SKEW, is_fresh, is_young};
use crate::log;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::{catch_panic, drop_quietly};
use crate::record::Record;
use crate::serializer::{Serializer, ValueClass};
use crate::validity::{Mismatch, Validator, Validity};

/// The error of a read that would block.
pub(super) struct WouldBlock;

/// The reason of most misses of a key that has a record, in logs.
const EXPIRED: &str = "expired";
/// The reason of a miss of a key that has no record, in logs.
const ABSENT: &str = "absent";
/// The reason of a miss of a key whose record cannot be decoded, in logs.
const CORRUPT: &str = "corrupt";

/// The result of decoding a record for a call.
pub(crate) enum Decoded<R> {
    Fresh(R),
    /// Past its ttl, but to be served while it is refreshed.
    Stale(Box<StaleValue<R>>),
    Nothing,
    /// The key does not match the function that it is for. The function runs without the cache.
    Refused,
}

/// What a backend has passed to a lookup.
pub(super) enum Visited<T, V> {
    /// No record.
    Nothing,
    /// A fresh value.
    Fresh {
        value: T,
        times: [Timestamp; 2],
        compute_time: CompactDuration,
        /// The record whose end this use moves.
        used: Option<Record<()>>,
    },
    /// A record that has expired.
    Expired,
    /// A record to be examined outside of the backend.
    Record(Record<V>),
    /// A value that cannot be decoded.
    Failed(Error),
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
        let record = self.engine.backend().read_optimistic(self.key)?;
        let now = self.began;
        if !self.is_fresh(&record, now)
            || !self.is_of_this_call(&record)
            || self.moves_end(&record, now)
        {
            return None;
        }
        let value = self.serializer().deserialize_inline(*record.value())?;
        self.count_hit(now, self.times(&record), record.compact_compute_time());
        Some(F::output(value))
    }

    /// Returns a fresh value that the backend lends at once. It is a plain value, so no code of users runs.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn serve_lent(&self) -> Option<F::Output> {
        let (backend, now) = (self.engine.backend(), self.began);
        if !backend.is_in_process() || self.value_class() != ValueClass::Plain {
            return None;
        }
        let (value, times, compute_time) = backend.read_with(self.key, |record| {
            if !self.is_fresh(&record, now)
                || !self.is_of_this_call(&record)
                || self.moves_end(&record, now)
            {
                return None;
            }
            let value =
                self.serializer().deserialize_for(record.value(), &self.context(&record)).ok()?;
            Some((value, self.times(&record), record.compact_compute_time()))
        })??;
        self.count_hit(now, times, compute_time);
        Some(F::output(value))
    }

    /// Decodes the record of the key, or returns an error if reading it would block.
    ///
    /// A fresh value is cloned where the backend has it, perhaps under a lock. All else is done
    /// afterwards.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn decode_now(&self) -> Result<Decoded<F::Output>, WouldBlock> {
        match self.serve_lent() {
            Some(output) => Ok(Decoded::Fresh(output)),
            None => self.decode_read(),
        }
    }

    /// Decodes the record of the key, which is not lent.
    #[cold]
    #[inline(never)]
    fn decode_read(&self) -> Result<Decoded<F::Output>, WouldBlock> {
        let mut visited = Visited::Nothing;
        let read = self.visit_now(&mut visited);
        if self.is_absent(read.as_ref(), &visited) {
            return Ok(Decoded::Nothing);
        }
        self.decode_visited(read, visited)
    }

    /// Reads the backend, if that takes no blocking. Sets `visited` if there is a record.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn visit_now(
        &self,
        visited: &mut Visited<F::Value, B::Stored>,
    ) -> Option<Result<()>> {
        let (backend, class) = (self.engine.backend(), self.value_class());
        let mut visit = |record: Record<&B::Stored>| *visited = self.visit(&record);
        // Without a guard the compiler sees the whole path, and emits half as much code.
        if backend.is_in_process() && class != ValueClass::Opaque {
            return backend.read_now(self.key, class, &mut visit);
        }
        let read = || Ok(backend.read_now(self.key, class, &mut visit));
        catch_panic("read entry", read).unwrap_or_else(|error| Some(Err(error)))
    }

    /// Decodes a record where the backend has it.
    #[cold]
    fn visit(&self, record: &Record<&B::Stored>) -> Visited<F::Value, B::Stored> {
        let now = self.began;
        let is_fresh = self.is_fresh(record, now) && !self.is_idle(record, now);
        if !is_fresh || !self.is_of_this_call(record) {
            if is_fresh || !self.options().stale.is_zero() {
                return Visited::Record(record.clone().map(Clone::clone));
            }
            return Visited::Expired;
        }
        let decode = || self.serializer().deserialize_for(record.value(), &self.context(record));
        let value = if self.value_class() == ValueClass::Opaque {
            catch_panic("decode value", decode)
        } else {
            decode()
        };
        match value {
            Ok(value) => {
                let (times, compute_time) = (self.times(record), record.compact_compute_time());
                Visited::Fresh { value, times, compute_time, used: self.used_record(record, now) }
            }
            Err(error) => Visited::Failed(error),
        }
    }

    /// Returns whether a call is a miss because there is no record. A key made by hand must be checked first.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_absent(
        &self,
        read: Option<&Result<()>>,
        visited: &Visited<F::Value, B::Stored>,
    ) -> bool {
        let is_absent = matches!((read, visited), (Some(Ok(())), Visited::Nothing))
            && !self.options().is_by_key;
        if is_absent {
            self.log_reason(ABSENT);
        }
        is_absent
    }

    /// Decodes what a backend has passed to a lookup.
    #[cold]
    #[inline(never)]
    pub(super) fn decode_visited(
        &self,
        read: Option<Result<()>>,
        visited: Visited<F::Value, B::Stored>,
    ) -> Result<Decoded<F::Output>, WouldBlock> {
        let (error, reason) = match (read.ok_or(WouldBlock)?, visited) {
            (_, Visited::Fresh { value, times, compute_time, used }) => {
                let now = self.began;
                self.count_hit(now, times, compute_time);
                let output = F::output(value);
                if let Some(record) = used {
                    self.move_end(&record, now);
                }
                return Ok(Decoded::Fresh(output));
            }
            (Ok(()), Visited::Nothing) => return Ok(self.nothing()),
            (Ok(()), Visited::Expired) => return Ok(self.rejected(EXPIRED)),
            (Ok(()), Visited::Record(record)) => return Ok(self.decode_counted(record)),
            (Err(error), visited) => {
                drop_quietly(visited);
                (error, "unreadable")
            }
            (Ok(()), Visited::Failed(error)) => (error, CORRUPT),
        };
        self.count_error(&error);
        self.log_reason(reason);
        Ok(Decoded::Nothing)
    }

    /// Decodes a record, and counts the hit if it is fresh. A key made by hand that finds nothing is
    /// checked against the function that it is for.
    pub(crate) fn decode_counted(&self, mut record: Record<B::Stored>) -> Decoded<F::Output> {
        let now = self.engine.now();
        let (times, compute_time) = (self.times(&record), record.compact_compute_time());
        let used = self.used_record(&record, now);
        let reason = if log::has_reasons() { self.reason_to_reject(&record, now) } else { EXPIRED };
        // The record is dropped in there: it may hold the last reference to the value.
        let decoded = catch_panic("decode value", move || self.decode(&mut record, now));
        match self.ok_or_count(decoded) {
            Some(Decoded::Nothing) => self.rejected(reason),
            Some(decoded) => {
                if let Decoded::Fresh(_) = decoded {
                    self.count_hit(now, times, compute_time);
                }
                // A stale value is used, too.
                if let (Some(record), Decoded::Fresh(_) | Decoded::Stale(_)) = (used, &decoded) {
                    self.move_end(&record, now);
                }
                decoded
            }
            None => {
                self.log_reason(CORRUPT);
                Decoded::Nothing
            }
        }
    }

    /// Returns the output of a record if it is fresh, and counts the hit.
    pub(crate) fn serve(&self, record: Record<B::Stored>) -> Option<F::Output> {
        match self.decode_counted(record) {
            Decoded::Fresh(output) => Some(output),
            Decoded::Stale(_) | Decoded::Nothing | Decoded::Refused => None,
        }
    }

    /// Returns the result of a call without a record. A key made by hand is checked.
    #[inline]
    pub(crate) fn nothing(&self) -> Decoded<F::Output> {
        self.rejected(ABSENT)
    }

    /// Returns the result of a call without a record that could be served, for this reason. A key made by hand is
    /// checked.
    #[inline]
    fn rejected(&self, reason: &'static str) -> Decoded<F::Output> {
        self.log_reason(reason);
        if self.options().is_by_key { self.check() } else { Decoded::Nothing }
    }

    /// Logs why a call is a miss, if that is logged.
    #[inline]
    fn log_reason(&self, reason: &'static str) {
        if log::has_reasons() && !self.options().is_quiet {
            log::log_reason(self.key.prefix(), reason);
        }
    }

    /// Returns the reason for which a record would not be served, in logs.
    #[cold]
    fn reason_to_reject(&self, record: &Record<B::Stored>, now: Timestamp) -> &'static str {
        let mismatch =
            if self.is_of_this_call(record) { None } else { self.validator().mismatch(record) };
        match mismatch {
            Some(Mismatch::Serializer) => "other serializer",
            Some(Mismatch::Type) => "other type",
            Some(Mismatch::Stamp(_)) => "invalidated",
            None if record.created() > now.saturating_add(CLOCK_SKEW) => "created in the future",
            None => EXPIRED,
        }
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
        match self.validator().validate(record) {
            Validity::Valid => {
                self.declare();
                Ok(())
            }
            Validity::Incompatible(error)
                if self.options().is_by_key && self.is_authentic(record) =>
            {
                Err(self.refuse(&error))
            }
            Validity::Incompatible(_) | Validity::Invalid => Err(Decoded::Nothing),
        }
    }

    /// Returns the rules of this call for records.
    pub(super) fn validator(&self) -> Validator {
        Validator {
            serializer: self.serializer().id(),
            type_stamp: self.serializer().schema(),
            stamp: self.stamp,
            flags: self.options().flags,
        }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn count_hit(&self, now: Timestamp, times: [Timestamp; 2], compute_time: CompactDuration) {
        let is_quiet = self.options().is_quiet;
        if self.engine.has_listeners(is_quiet) {
            // Without `self`, which a hit would store on the stack for that.
            let (prefix, ttl) = (self.key.prefix(), self.function.fixed_ttl());
            let ttl = ttl.map_or(u64::MAX, |ttl| ttl.micros);
            let engine = self.engine;
            let [created, expires] = times;
            engine.count_and_emit_hit(prefix, now, created, expires, ttl, compute_time, is_quiet);
        } else {
            // Here, so that the times are in no register at that point.
            self.engine.counters().call(CallOutcome::Hit);
        }
    }

    /// Returns whether a record is fresh, as far as that does not depend on its value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_fresh<V>(&self, record: &Record<V>, now: Timestamp) -> bool {
        is_fresh(record.created(), record.expires(), now)
            && self
                .function
                .fixed_ttl()
                .is_none_or(|ttl| is_young(record.created(), ttl.micros, now))
    }

    /// Returns whether a record is of this version of this function, and not invalidated.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_of_this_call<V>(&self, record: &Record<V>) -> bool {
        record.schema() == self.schema() && record.serializer() == self.serializer().id()
    }

    /// Decodes a record, whose value is moved out of it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn decode(&self, record: &mut Record<B::Stored>, now: Timestamp) -> Result<Decoded<F::Output>> {
        let mut may_be_fresh = self.is_fresh(record, now) && !self.is_idle(record, now);
        if !may_be_fresh && self.options().stale.is_zero() {
            return Ok(Decoded::Nothing);
        }
        if !self.is_of_this_call(record) {
            if let Err(decoded) = self.validate(record) {
                return Ok(decoded);
            }
            // It may be of another function, which has an idle time.
            may_be_fresh &= now < record.stale_until();
        }
        if !may_be_fresh {
            return self.decode_stale(record, now);
        }
        let context = self.context(record);
        let value = self.serializer().deserialize_owned_for(record.value_mut(), &context)?;
        Ok(Decoded::Fresh(F::output(value)))
    }

    /// Decodes a record that is not fresh, if it may be served stale.
    #[cold]
    fn decode_stale(
        &self,
        record: &Record<B::Stored>,
        now: Timestamp,
    ) -> Result<Decoded<F::Output>> {
        let Some(end) = self.stale_end(record, now) else { return Ok(Decoded::Nothing) };
        let created = record.created();
        let value = self.serializer().deserialize_for(record.value(), &self.context(record))?;
        let (age, compute_time) = (now.saturating_since(created), record.compute_time());
        let output = F::output(value);
        let kept = self.keep(record);
        Ok(Decoded::Stale(Box::new(StaleValue { output, age, compute_time, end, kept })))
    }

    /// Returns the first instant at which a record that is not fresh may not be served, if it may be served
    /// at `now`.
    pub(super) fn stale_end(
        &self,
        record: &Record<B::Stored>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let stale = self.options().stale;
        let end =
            record.stale_until().min(self.fresh_until(self.times(record)).saturating_add(stale));
        (!stale.is_zero() && is_fresh(record.created(), end, now)).then_some(end)
    }

    /// Returns the times at which a record was created, and from which on it is not fresh by itself.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn times<V>(&self, record: &Record<V>) -> [Timestamp; 2] {
        let has_idle = self.function.idle().get().is_some();
        [record.created(), if has_idle { record.fresh_until() } else { record.expires() }]
    }

    /// Returns the instant at which a record is no longer fresh for this call: its own, or an
    /// earlier one by the ttl that all values have now. A ttl that depends on the value was
    /// computed when the value was stored.
    fn fresh_until(&self, [created, expires]: [Timestamp; 2]) -> Timestamp {
        let ttl = self.function.fixed_ttl().map_or(Duration::MAX, |ttl| ttl.time);
        expires.min(created.saturating_add(ttl))
    }

    /// Decodes a record for an entry of this call. Nothing is counted.
    pub(crate) fn decode_for_entry(
        &self,
        mut record: Record<B::Stored>,
    ) -> Option<CachedOutput<F::Output>> {
        let now = self.engine.now();
        let (created, fresh_until) = (record.created(), self.fresh_until(self.times(&record)));
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

    /// Returns the output that another caller has just computed, whatever its age. It `is_stored` if a later call may
    /// find it.
    pub(crate) fn decode_shared(
        &self,
        record: &Record<B::Stored>,
        is_stored: bool,
    ) -> Option<F::Output> {
        let decoded = catch_panic("decode value", || {
            if !self.is_of_this_call(record) && self.validate(record).is_err() {
                return Ok(None);
            }
            self.serializer().deserialize_for(record.value(), &self.context(record)).map(Some)
        });
        let value = self.ok_or_count(decoded).flatten()?;
        self.engine.counters().call(CallOutcome::Coalesced);
        let fresh_until = self.fresh_until(self.times(record));
        let ttl_left = remaining_ttl::<B>(fresh_until, self.engine.now()).filter(|_| is_stored);
        let times = CallTimes { ttl_left, ..CallTimes::computed(record.compute_time()) };
        self.emit(CallOutcome::Coalesced, times);
        Some(F::output(value))
    }
}
