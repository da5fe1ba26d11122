//! The end of a run that has no value to store, errors that callers share, and cached errors.

use std::time::Duration;

use crate::backend::Backend;
use crate::cache::CachedError;
use crate::call::typed::TypedCall;
use crate::call::{Call, ComputeReason, FnProperties};
use crate::error::{ErrorKind, Result};
use crate::flight::{Completion, Flight, Lead, Outcome};
use crate::io::Io;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::catch_panic;
use crate::record::Record;
use crate::serializer::ValueClass;
use crate::shared_error::SharedError;

impl<B: Backend, F: FnProperties> Call<'_, B, F> {
    /// Completes the flight of a run whose output is not stored. The waiting callers get its error if they
    /// can share it, and otherwise run the function.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_without_record(
        &self,
        lead: &mut Lead<'_, Record<B::Stored>>,
        compute_time: Duration,
        typed: &dyn TypedCall<B>,
    ) {
        if !self.function.shares_errors() || typed.has_value() {
            lead.fail(false, || Outcome::NotShareable);
        } else if self.may_cache_error() && lead.begin_error() {
            let outcome = self.failure(compute_time, typed);
            let ttl = outcome.error().map_or(Duration::ZERO, |error| self.error_ttl(error, typed));
            self.complete_with_error(lead, &outcome, ttl);
        } else {
            lead.fail(true, || self.failure(compute_time, typed));
        }
        self.read_absent();
    }

    /// Completes the flight of a run whose value is not stored. If it has the permission, it deletes the value before it, which
    /// is not to be served after a newer one.
    pub(super) async fn complete_with_deletion<M: Io>(
        &self,
        lead: &mut Lead<'_, Record<B::Stored>>,
        may_delete: bool,
    ) {
        if may_delete {
            self.delete_old::<M>().await;
        }
        while lead.fail(false, || Outcome::NotShareable) == Completion::MustDelete {
            self.delete_old::<M>().await;
        }
    }

    /// Deletes the entry, unless an operation of this call has timed out.
    pub(super) async fn delete_old<M: Io>(&self) {
        if !self.has_timed_out() {
            self.ok_or_count(self.engine.delete::<M>(self.key).await);
        }
    }

    /// Reads the key again in memory after a run that stores nothing: a read of an absent key is when expired entries are
    /// removed. The lookup of a number or a string leaves that to the write that follows as a rule.
    pub(super) fn read_absent(&self) {
        let backend = self.engine.backend();
        if backend.is_in_process() && self.function.value_class() != ValueClass::Opaque {
            let read = || Ok(backend.read_now(self.key, ValueClass::Opaque, &mut |_| ()));
            self.ok_or_count(catch_panic("read entry", read));
        }
    }

    pub(super) fn may_cache_error(&self) -> bool {
        self.function.caches_errors() && self.can_store()
    }

    /// Caches the error of a run for `ttl` and completes its flight.
    pub(super) fn complete_with_error(
        &self,
        lead: &mut Lead<'_, Record<B::Stored>>,
        outcome: &Outcome<Record<B::Stored>>,
        ttl: Duration,
    ) {
        if let Outcome::Failed { error, compute_time } = outcome {
            let created = self.engine.now();
            if ttl.is_zero() {
                self.engine.errors().remove(self.key);
            } else {
                let (error, expires) = (error.clone(), created.saturating_add(ttl));
                let (stamp, compute_time) = (self.stamp, *compute_time);
                let cached = CachedError { error, stamp, created, expires, compute_time };
                self.engine.errors().insert(self.key, cached, created);
            }
        }
        while lead.fail(true, || outcome.clone()) == Completion::MustDelete {
            self.engine.errors().remove(self.key);
        }
    }

    /// Returns the ttl of an error. A panic is counted.
    pub(super) fn error_ttl(&self, error: &SharedError, typed: &dyn TypedCall<B>) -> Duration {
        let ttl = catch_panic("err_ttl", || Ok(typed.error_ttl(error)));
        self.ok_or_count(ttl).unwrap_or_default()
    }

    /// Returns the cached error of the key, if it is not older than the ttl that the function gives it now.
    #[cold]
    #[inline(never)]
    pub(super) fn read_error(&self, typed: &dyn TypedCall<B>) -> Option<CachedError> {
        let now = self.engine.now();
        let cached = self.engine.errors().get(self.key, self.stamp, now)?;
        let ttl = self.error_ttl(&cached.error, typed);
        (now < cached.created.saturating_add(ttl)).then_some(cached)
    }

    /// Returns whether an error of the key is cached.
    #[inline]
    pub(crate) fn has_cached_error(&self, typed: &dyn TypedCall<B>) -> bool {
        self.function.caches_errors() && self.read_error(typed).is_some()
    }

    /// Clones the cached error of the key to the output that was found, and returns it, if there is one.
    #[inline]
    pub(super) fn serve_error(&self, typed: &mut dyn TypedCall<B>) -> Option<CachedError> {
        if self.function.caches_errors() { self.serve_error_cold(typed) } else { None }
    }

    #[cold]
    fn serve_error_cold(&self, typed: &mut dyn TypedCall<B>) -> Option<CachedError> {
        let cached = self.read_error(typed)?;
        if !self.clone_error(&cached.error, typed) {
            return None;
        }
        self.count_error_hit(&cached);
        Some(cached)
    }

    /// Clones an error to the output that was found. Returns whether it is of the type of the function.
    fn clone_error(&self, error: &SharedError, typed: &mut dyn TypedCall<B>) -> bool {
        let is_cloned = catch_panic("clone error", || Ok(typed.clone_error(error)));
        self.ok_or_count(is_cloned) == Some(true)
    }

    /// Counts and reports a call that gets a cached error.
    pub(super) fn count_error_hit(&self, cached: &CachedError) {
        let now = self.engine.now();
        let times = CallTimes {
            age: Some(now.saturating_since(cached.created)),
            ttl_left: Some(cached.expires.saturating_since(now)),
            compute_time: cached.compute_time,
        };
        self.engine.counters().call(CallOutcome::ErrorHit);
        self.emit(CallOutcome::ErrorHit, times);
    }

    /// Returns the outcome of a run without a value to store, for the callers that wait.
    pub(super) fn failure(
        &self,
        compute_time: Duration,
        typed: &dyn TypedCall<B>,
    ) -> Outcome<Record<B::Stored>> {
        let error = catch_panic("clone error", || Ok(typed.shared_error()));
        match self.ok_or_count(error).flatten() {
            Some(error) => Outcome::Failed { error, compute_time },
            None => Outcome::NotShareable,
        }
    }

    /// Returns the outcome of a run that has failed, if callers can share its error.
    pub(super) fn failure_to_share(
        &self,
        compute_time: Duration,
        typed: &dyn TypedCall<B>,
    ) -> Option<Outcome<Record<B::Stored>>> {
        self.function.shares_errors().then(|| self.failure(compute_time, typed))
    }

    /// Takes the output of the run of another caller out of the outcome of its flight. Returns whether there is one for
    /// this call.
    pub(super) fn share(
        &self,
        flight: &Flight<Record<B::Stored>>,
        typed: &mut dyn TypedCall<B>,
    ) -> bool {
        match flight.outcome() {
            Some(Outcome::Computed { value, is_stored }) => {
                value.get().is_some_and(|record| self.decode_shared(record, *is_stored, typed))
            }
            Some(Outcome::Failed { error, compute_time }) => {
                let is_cloned = self.clone_error(error, typed);
                if is_cloned {
                    self.count_shared_error(*compute_time);
                }
                is_cloned
            }
            Some(Outcome::NotShareable | Outcome::Abandoned) | None => false,
        }
    }

    /// Counts and reports a call that gets the error of the run of another caller.
    pub(super) fn count_shared_error(&self, compute_time: Duration) {
        self.engine.counters().call(CallOutcome::Coalesced);
        self.emit(CallOutcome::Coalesced, CallTimes::computed(compute_time));
    }
}

/// Returns whether a run may replace a value that is served. A miss does not, unless it has taken over a forced refresh.
pub(super) fn replaces_value<R>(reason: &ComputeReason, lead: &Lead<'_, R>) -> bool {
    !matches!(reason, ComputeReason::Miss(_)) || lead.is_refresh()
}

/// Returns whether a write has failed since the value cannot be stored. A later attempt would fail as well.
#[inline]
pub(super) fn is_refused(result: &Result<()>) -> bool {
    #[cold]
    fn is_refusal(kind: ErrorKind) -> bool {
        matches!(kind, ErrorKind::Configuration | ErrorKind::Encode)
    }
    result.as_ref().is_err_and(|error| is_refusal(error.kind()))
}
