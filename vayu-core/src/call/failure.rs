//! The end of a run that has no value to store, errors that callers share, and cached errors.

use std::time::Duration;

use crate::backend::Backend;
use crate::cache::CachedError;
use crate::call::{CachedFn, Call};
use crate::flight::{Completion, Lead, Outcome};
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::catch_panic;
use crate::record::Record;
use crate::serializer::ValueClass;
use crate::shared_error::SharedError;

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Call<'_, B, F> {
    /// Completes the flight of a run whose output is not stored. The waiting callers get its error if they
    /// can share it, and otherwise run the function.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_without_record(
        &self,
        lead: &mut Lead<'_, Record<B::Stored>>,
        output: &F::Output,
        compute_time: Duration,
    ) {
        if !F::shares_errors() || F::value(output).is_some() {
            lead.fail(false, || self.failure(output, compute_time));
        } else if self.may_cache_error() && lead.begin_error() {
            self.complete_with_error(lead, &self.failure(output, compute_time));
        } else {
            lead.fail(true, || self.failure(output, compute_time));
        }
        self.read_absent();
    }

    /// Completes the flight of a run that has failed.
    pub(super) fn complete_failed(
        &self,
        lead: &mut Lead<'_, Record<B::Stored>>,
        outcome: &Outcome<Record<B::Stored>>,
    ) {
        if self.may_cache_error() && lead.begin_error() {
            self.complete_with_error(lead, outcome);
        } else {
            lead.fail(true, || outcome.clone());
        }
        self.read_absent();
    }

    /// Reads the key again in memory after a run that stores nothing: a read of an absent key is when expired entries are
    /// removed. The lookup of a number or a string leaves that to the write that follows as a rule.
    fn read_absent(&self) {
        let backend = self.engine.backend();
        if backend.is_in_process() && self.value_class() != ValueClass::Opaque {
            let read = || Ok(backend.read_now(self.key, ValueClass::Opaque, &mut |_| ()));
            self.ok_or_count(catch_panic("read entry", read));
        }
    }

    fn may_cache_error(&self) -> bool {
        self.function.caches_errors() && self.can_store()
    }

    /// Caches the error of a run and completes its flight.
    fn complete_with_error(
        &self,
        lead: &mut Lead<'_, Record<B::Stored>>,
        outcome: &Outcome<Record<B::Stored>>,
    ) {
        if let Outcome::Failed { error, compute_time } = outcome {
            let (ttl, created) = (self.error_ttl(error), self.engine.now());
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
    fn error_ttl(&self, error: &SharedError) -> Duration {
        let ttl = catch_panic("err_ttl", || Ok(self.function.error_ttl(error)));
        self.ok_or_count(ttl).unwrap_or_default()
    }

    /// Returns the cached error of the key, if it is not older than the ttl that the function gives it now.
    #[cold]
    #[inline(never)]
    pub(super) fn read_error(&self) -> Option<CachedError> {
        let now = self.engine.now();
        let cached = self.engine.errors().get(self.key, self.stamp, now)?;
        (now < cached.created.saturating_add(self.error_ttl(&cached.error))).then_some(cached)
    }

    /// Returns whether an error of the key is cached.
    #[inline]
    pub(crate) fn has_cached_error(&self) -> bool {
        self.function.caches_errors() && self.read_error().is_some()
    }

    /// Returns the output for the cached error of the key, if there is one.
    #[inline]
    pub(super) fn serve_error(&self) -> Option<F::Output> {
        if self.function.caches_errors() { Some(self.serve_error_cold()?.0) } else { None }
    }

    /// [`serve_error`](Self::serve_error) for a leader, whose flight it completes for the callers that wait.
    pub(super) fn serve_error_to_all(
        &self,
        lead: &mut Lead<'_, Record<B::Stored>>,
    ) -> Option<F::Output> {
        if !self.function.caches_errors() {
            return None;
        }
        let (output, CachedError { error, compute_time, .. }) = self.serve_error_cold()?;
        // No error and no value is being stored, so nothing is to be deleted.
        let _ = lead.fail(true, || Outcome::Failed { error, compute_time });
        Some(output)
    }

    #[cold]
    fn serve_error_cold(&self) -> Option<(F::Output, CachedError)> {
        let cached = self.read_error()?;
        let output = catch_panic("clone error", || Ok(F::error_output(&cached.error)));
        let output = self.ok_or_count(output).flatten()?;
        self.count_error_hit(&cached);
        Some((output, cached))
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
        output: &F::Output,
        compute_time: Duration,
    ) -> Outcome<Record<B::Stored>> {
        let error = catch_panic("clone error", || Ok(F::shared_error(output)));
        match self.ok_or_count(error).flatten() {
            Some(error) => Outcome::Failed { error, compute_time },
            None => Outcome::NotShareable,
        }
    }

    /// Returns the output for an error that the run of another caller has just returned, if it is of the
    /// type of this function.
    pub(super) fn share_error(
        &self,
        error: &SharedError,
        compute_time: Duration,
    ) -> Option<F::Output> {
        let output = catch_panic("clone error", || Ok(F::error_output(error)));
        let output = self.ok_or_count(output).flatten()?;
        self.count_shared_error(compute_time);
        Some(output)
    }

    /// Counts and reports a call that gets the error of the run of another caller.
    pub(super) fn count_shared_error(&self, compute_time: Duration) {
        self.engine.counters().call(CallOutcome::Coalesced);
        self.emit(CallOutcome::Coalesced, CallTimes::computed(compute_time));
    }
}
