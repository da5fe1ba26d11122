//! Decoding of a record to the output of a call.

use std::mem::ManuallyDrop;
use std::time::Duration;

use crate::backend::Backend;
use crate::call::typed::TypedCall;
use crate::call::{CachedFn, Call, FnProperties, OutputShape, StaleValue, remaining_ttl};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::error::{Error, Result};
use crate::log;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::{catch_panic, drop_quietly};
use crate::record::Record;
use crate::serializer::{InlineValue, Serializer, ValueClass};

/// The error of a read that would block.
pub(super) struct WouldBlock;

/// The reason of most misses of a key that has a record, in logs.
pub(super) const EXPIRED: &str = "expired";
/// The reason of a miss of a key that has no record, in logs.
const ABSENT: &str = "absent";
/// The reason of a miss of a key whose record cannot be decoded, in logs.
const CORRUPT: &str = "corrupt";

/// The result of decoding a record for a call. The output is in the frame of the call.
pub(crate) enum Decoded {
    Fresh,
    /// Past its ttl, but to be served while it is refreshed.
    Stale(Box<StaleValue>),
    /// As `Stale`, for a call that has asked for a fresh value only.
    NotFresh,
    Nothing,
    /// The key does not match the function that it is for. The function runs without the cache.
    Refused,
}

/// The result of a visit of the backend by a lookup.
pub(super) enum Visited<V> {
    /// No record.
    Nothing,
    /// A fresh value, which is in the frame of the call.
    Fresh {
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
    /// Returns a fresh value if that takes no code of users: an inline value that the backend reads without a lock, or a plain one
    /// that it lends at once. The hit is counted, but not reported.
    ///
    /// No scope drops the value: after a panic it would have its address, so the value would be in memory instead of registers, as the
    /// [key](crate::key::CallKeyBuilder) would. Only code of vayu runs from there on, to unlock the entry and to count the hit.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn serve_directly(&self) -> Option<F::Output> {
        let value = match self.function.value_class() {
            ValueClass::Inline => self.find_inline(),
            ValueClass::Plain => self.find_lent(),
            ValueClass::Opaque => None,
        };
        let value = value?;
        self.engine.counters().call(CallOutcome::Hit);
        Some(F::Shape::output(ManuallyDrop::into_inner(value)))
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn find_inline(&self) -> Option<ManuallyDrop<F::Value>> {
        let kind = InlineValue::kind_of::<F::Value>();
        self.engine.backend().read_optimistic_with(
            self.key,
            kind,
            // In each place where the backend calls it.
            #[inline(always)]
            |record| {
                if !self.is_usable(&record) {
                    return None;
                }
                self.function
                    .serializer()
                    .deserialize_inline(*record.value())
                    .map(ManuallyDrop::new)
            },
        )?
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn find_lent(&self) -> Option<ManuallyDrop<F::Value>> {
        let backend = self.engine.backend();
        if !backend.is_in_process() {
            return None;
        }
        backend.read_with(self.key, |record| {
            if !self.is_usable(&record) {
                return None;
            }
            let context = self.context(&record);
            let value = self.function.serializer().deserialize_for(record.value(), &context);
            value.ok().map(ManuallyDrop::new)
        })?
    }
}

impl<B: Backend, F: FnProperties> Call<'_, B, F> {
    /// Reads the backend, if that takes no blocking. Sets `visited` if there is a record.
    ///
    /// A fresh value is decoded where the backend has it, perhaps under a lock. All else is done
    /// afterwards.
    #[inline]
    pub(super) fn visit_now(
        &self,
        visited: &mut Visited<B::Stored>,
        typed: &mut dyn TypedCall<B>,
    ) -> Option<Result<()>> {
        let (backend, class) = (self.engine.backend(), self.function.value_class());
        let mut visit = |record: Record<&B::Stored>| *visited = self.visit(&record, typed);
        // Without a guard, the code is half as long.
        if backend.is_in_process() && class != ValueClass::Opaque {
            return backend.read_now(self.key, class, &mut visit);
        }
        let read = || Ok(backend.read_now(self.key, class, &mut visit));
        catch_panic("read entry", read).unwrap_or_else(|error| Some(Err(error)))
    }

    /// Decodes a record where the backend has it.
    #[cold]
    fn visit(
        &self,
        record: &Record<&B::Stored>,
        typed: &mut dyn TypedCall<B>,
    ) -> Visited<B::Stored> {
        let now = self.began;
        let is_fresh = self.is_fresh(record, now) && !self.is_idle(record, now);
        if !is_fresh || !self.is_of_this_call(record) {
            if is_fresh || !self.options().stale.is_zero() {
                return Visited::Record(record.clone().map(Clone::clone));
            }
            return Visited::Expired;
        }
        let mut decode = || typed.deserialize(record.value(), &self.context(record));
        let decoded = if self.function.value_class() == ValueClass::Opaque {
            catch_panic("decode value", decode)
        } else {
            decode()
        };
        match decoded {
            Ok(()) => {
                let (times, compute_time) = (self.times(record), record.compact_compute_time());
                Visited::Fresh { times, compute_time, used: self.used_record(record, now) }
            }
            Err(error) => Visited::Failed(error),
        }
    }

    /// Returns whether a call is a miss because there is no record. A key made by hand must be checked first.
    #[inline]
    pub(super) fn is_absent(
        &self,
        read: Option<&Result<()>>,
        visited: &Visited<B::Stored>,
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
        visited: Visited<B::Stored>,
        typed: &mut dyn TypedCall<B>,
    ) -> Result<Decoded, WouldBlock> {
        let (error, reason) = match (read.ok_or(WouldBlock)?, visited) {
            (_, Visited::Fresh { times, compute_time, used }) => {
                let now = self.began;
                self.count_hit(now, times, compute_time);
                if let Some(record) = used {
                    self.move_end(&record, now);
                }
                return Ok(Decoded::Fresh);
            }
            (Ok(()), Visited::Nothing) => return Ok(self.nothing()),
            (Ok(()), Visited::Expired) => return Ok(self.rejected(EXPIRED)),
            (Ok(()), Visited::Record(record)) => return Ok(self.decode_counted(record, typed)),
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

    /// Decodes the record that a backend has returned, if there is one.
    pub(crate) fn decode_read(
        &self,
        record: Option<Record<B::Stored>>,
        typed: &mut dyn TypedCall<B>,
    ) -> Decoded {
        match record {
            Some(record) => self.decode_counted(record, typed),
            None => self.nothing(),
        }
    }

    /// [`decode_read`](Self::decode_read) at this time.
    pub(super) fn decode_read_at(
        &self,
        now: Timestamp,
        record: Option<Record<B::Stored>>,
        typed: &mut dyn TypedCall<B>,
    ) -> Decoded {
        match record {
            Some(record) => self.decode_if(now, record, true, typed),
            None => self.nothing(),
        }
    }

    /// Decodes a record, and counts the hit if it is fresh. A key made by hand that finds nothing is
    /// checked against the function that it is for.
    pub(crate) fn decode_counted(
        &self,
        record: Record<B::Stored>,
        typed: &mut dyn TypedCall<B>,
    ) -> Decoded {
        self.decode_if(self.engine.now(), record, true, typed)
    }

    /// Decodes a record if it is fresh, and counts the hit. Returns whether it is.
    pub(crate) fn serve(&self, record: Record<B::Stored>, typed: &mut dyn TypedCall<B>) -> bool {
        matches!(self.decode_if(self.engine.now(), record, false, typed), Decoded::Fresh)
    }

    /// Decodes a record, also one past its ttl if that `may_be_stale`.
    fn decode_if(
        &self,
        now: Timestamp,
        mut record: Record<B::Stored>,
        may_be_stale: bool,
        typed: &mut dyn TypedCall<B>,
    ) -> Decoded {
        let (times, compute_time) = (self.times(&record), record.compact_compute_time());
        let used = self.used_record(&record, now);
        let reason = if log::has_reasons() { self.reason_to_reject(&record, now) } else { EXPIRED };
        // The record is dropped in there: it may hold the last reference to the value.
        let decoded =
            catch_panic("decode value", move || self.decode(&mut record, now, may_be_stale, typed));
        match self.ok_or_count(decoded) {
            Some(Decoded::Nothing) => self.rejected(reason),
            Some(decoded) => {
                if let Decoded::Fresh = decoded {
                    self.count_hit(now, times, compute_time);
                }
                // A stale value is used, too.
                let is_used = !matches!(decoded, Decoded::Refused);
                if let Some(record) = used.filter(|_| is_used) {
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

    /// Returns the result of a call without a record. A key made by hand is checked.
    #[inline]
    pub(crate) fn nothing(&self) -> Decoded {
        self.rejected(ABSENT)
    }

    /// Returns the result of a call without a record that could be served, for this reason. A key made by hand is
    /// checked.
    #[inline]
    fn rejected(&self, reason: &'static str) -> Decoded {
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

    #[cold]
    fn check(&self) -> Decoded {
        let checked = catch_panic("check key", || {
            self.engine.declarations().check(self.key.prefix(), self.declaration())
        });
        match checked {
            Ok(_) => Decoded::Nothing,
            Err(error) => self.refuse(&error),
        }
    }

    pub(super) fn refuse(&self, error: &Error) -> Decoded {
        self.engine.count_bypass(self.key.prefix(), Some(error), self.options().is_quiet);
        Decoded::Refused
    }

    /// Counts a hit at `now`, and reports it.
    fn count_hit(&self, now: Timestamp, times: [Timestamp; 2], compute_time: CompactDuration) {
        self.engine.counters().call(CallOutcome::Hit);
        let is_quiet = self.options().is_quiet;
        if self.engine.has_listeners(is_quiet) {
            let times = CallTimes {
                age: Some(now.saturating_since(times[0])),
                ttl_left: Some(self.fresh_until(times).saturating_since(now)),
                compute_time: compute_time.time(),
            };
            self.engine.emit(self.key.prefix(), CallOutcome::Hit, times, is_quiet);
        }
    }

    /// Decodes a record, whose value is moved out of it.
    fn decode(
        &self,
        record: &mut Record<B::Stored>,
        now: Timestamp,
        may_be_stale: bool,
        typed: &mut dyn TypedCall<B>,
    ) -> Result<Decoded> {
        let mut may_be_fresh = self.is_fresh(record, now) && !self.is_idle(record, now);
        if !may_be_fresh && self.options().stale.is_zero() {
            return Ok(Decoded::Nothing);
        }
        if !self.is_of_this_call(record) {
            if let Err(decoded) = self.validate(record, typed) {
                return Ok(decoded);
            }
            // It may be of another function, which has an idle time.
            may_be_fresh &= now < record.stale_until();
        }
        if may_be_fresh {
            let context = self.context(record);
            typed.deserialize_owned(record.value_mut(), &context)?;
            return Ok(Decoded::Fresh);
        }
        let Some(end) = self.stale_end(record, now) else { return Ok(Decoded::Nothing) };
        if !may_be_stale {
            return Ok(Decoded::NotFresh);
        }
        typed.deserialize(record.value(), &self.context(record))?;
        let (age, compute_time) = (now.saturating_since(record.created()), record.compute_time());
        let kept = self.keep(record);
        Ok(Decoded::Stale(Box::new(StaleValue { age, compute_time, end, kept })))
    }

    /// Decodes a record for an entry of this call. Returns its age and the rest of its ttl. Nothing is counted.
    pub(crate) fn decode_for_entry(
        &self,
        mut record: Record<B::Stored>,
        typed: &mut dyn TypedCall<B>,
    ) -> Option<[Duration; 2]> {
        let now = self.engine.now();
        let (created, fresh_until) = (record.created(), self.fresh_until(self.times(&record)));
        let decoded =
            catch_panic("decode value", move || self.decode(&mut record, now, true, typed));
        match self.ok_or_count(decoded)? {
            Decoded::Fresh | Decoded::Stale(_) => {
                Some([now.saturating_since(created), fresh_until.saturating_since(now)])
            }
            Decoded::NotFresh | Decoded::Nothing | Decoded::Refused => None,
        }
    }

    /// Decodes the value that another caller has just computed, whatever its age. It `is_stored` if a later call may
    /// find it. Returns whether it could be decoded.
    pub(crate) fn decode_shared(
        &self,
        record: &Record<B::Stored>,
        is_stored: bool,
        typed: &mut dyn TypedCall<B>,
    ) -> bool {
        let decoded = catch_panic("decode value", || {
            if !self.is_of_this_call(record) && self.validate(record, typed).is_err() {
                return Ok(false);
            }
            typed.deserialize(record.value(), &self.context(record)).map(|()| true)
        });
        if self.ok_or_count(decoded) != Some(true) {
            return false;
        }
        self.engine.counters().call(CallOutcome::Coalesced);
        let fresh_until = self.fresh_until(self.times(record));
        let ttl_left = remaining_ttl::<B>(fresh_until, self.engine.now()).filter(|_| is_stored);
        let times = CallTimes { ttl_left, ..CallTimes::computed(record.compute_time()) };
        self.emit(CallOutcome::Coalesced, times);
        true
    }
}
