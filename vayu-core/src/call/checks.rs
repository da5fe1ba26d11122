//! Checks of a record: whether a call may return its value.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::decode::{Decoded, EXPIRED};
use crate::call::typed::TypedCall;
use crate::call::{Call, FnProperties, IdleTime};
use crate::clock::Timestamp;
use crate::freshness::{CLOCK_SKEW, is_fresh, is_fresh_for};
use crate::panic::{catch_panic, drop_quietly};
use crate::record::Record;
use crate::validity::{Mismatch, Validator, Validity};

impl<B: Backend, F: FnProperties> Call<'_, B, F> {
    /// Returns whether the value of a record may be returned as it is.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_usable<V>(&self, record: &Record<V>) -> bool {
        let now = self.began;
        self.is_fresh(record, now) && self.is_of_this_call(record) && !self.moves_end(record, now)
    }

    /// Returns whether a record is fresh, as far as that does not depend on its value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_fresh<V>(&self, record: &Record<V>, now: Timestamp) -> bool {
        let (created, expires) = (record.created(), record.expires());
        match self.function.fixed_ttl() {
            Some(ttl) => is_fresh_for(ttl.micros, created, expires, now),
            None => is_fresh(created, expires, now),
        }
    }

    /// Returns whether a record is of this version of this function, and not invalidated.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_of_this_call<V>(&self, record: &Record<V>) -> bool {
        record.schema() == self.schema() && record.serializer() == self.function.serializer_id()
    }

    /// Returns the times at which a record was created, and from which on it is not fresh by itself.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn times<V>(&self, record: &Record<V>) -> [Timestamp; 2] {
        let has_idle = self.function.idle().get().is_some();
        [record.created(), if has_idle { record.fresh_until() } else { record.expires() }]
    }

    /// Returns the instant at which a record is no longer fresh for this call: its own, or an
    /// earlier one by the ttl that all values have now. A ttl that depends on the value was
    /// computed when the value was stored.
    pub(super) fn fresh_until(&self, [created, expires]: [Timestamp; 2]) -> Timestamp {
        let ttl = self.function.fixed_ttl().map_or(Duration::MAX, |ttl| ttl.time);
        expires.min(created.saturating_add(ttl))
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

    /// Returns whether a record that was found before storing is newer than a computation that started
    /// at `started`. The times of a record that is not authentic do not count.
    pub(crate) fn is_newer(
        &self,
        record: Record<B::Stored>,
        started: Timestamp,
        typed: &dyn TypedCall<B>,
    ) -> bool {
        let (created, expires) = (record.created(), record.fresh_until());
        let is_newer = is_fresh(created, expires, self.engine.now())
            && created >= started
            && self.is_authentic(&record, typed);
        drop_quietly(record);
        is_newer
    }

    /// Returns the rules of this call for records.
    pub(super) fn validator(&self) -> Validator {
        Validator {
            serializer: self.function.serializer_id(),
            type_stamp: self.function.type_stamp(),
            stamp: self.stamp,
            flags: self.options().flags,
        }
    }

    /// Validates a record whose stamps are not those of this call. If it is not valid, returns the result
    /// for the call.
    #[cold]
    pub(super) fn validate(
        &self,
        record: &Record<B::Stored>,
        typed: &dyn TypedCall<B>,
    ) -> Result<(), Decoded> {
        match self.validator().validate(record) {
            Validity::Valid => {
                self.declare();
                Ok(())
            }
            Validity::Incompatible(error)
                if self.options().is_by_key && self.is_authentic(record, typed) =>
            {
                Err(self.refuse(&error))
            }
            Validity::Incompatible(_) | Validity::Invalid => Err(Decoded::Nothing),
        }
    }

    /// Returns whether the header of a record can be relied on, as far as the serializer knows. If not, that is
    /// counted.
    #[cold]
    pub(super) fn is_authentic(
        &self,
        record: &Record<B::Stored>,
        typed: &dyn TypedCall<B>,
    ) -> bool {
        let verified =
            catch_panic("verify value", || typed.verify(record.value(), &self.context(record)));
        self.ok_or_count(verified).is_some()
    }

    /// Returns the reason for which a record would not be served, in logs.
    #[cold]
    pub(super) fn reason_to_reject(
        &self,
        record: &Record<B::Stored>,
        now: Timestamp,
    ) -> &'static str {
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
}
