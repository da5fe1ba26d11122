//! The end of a call whose function has returned.

use crate::backend::Backend;
use crate::call::typed::TypedCall;
use crate::call::{Call, ComputeReason, FnProperties};
use crate::error::{Error, ErrorKind};
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::catch_panic;

/// The frame with the output that a function has returned, or `None` if it has returned nothing.
type Returned<'a, B> = Option<&'a dyn TypedCall<B>>;

impl<B: Backend, F: FnProperties> Call<'_, B, F> {
    /// Removes the cached error of the key, of a function that caches errors.
    #[inline]
    pub(super) fn end_cached_error(&self) {
        if self.function.caches_errors() {
            self.engine.errors().remove(self.key);
        }
    }

    /// Concludes a miss whose function has returned.
    #[inline]
    pub(crate) fn conclude_miss(
        &self,
        times: impl FnOnce() -> CallTimes,
        typed: &dyn TypedCall<B>,
    ) {
        if self.function.caches_errors() {
            self.conclude_value(typed);
        }
        // For most calls, nothing is made of the times.
        if self.engine.has_listeners(self.options().is_quiet) {
            self.emit(CallOutcome::Miss, times());
        }
    }

    /// Returns whether the function has returned a value. If so, it ends a cached error.
    #[inline]
    fn conclude_value(&self, typed: &dyn TypedCall<B>) -> bool {
        let has_value = typed.has_value();
        if has_value {
            // Also if the value is not stored.
            self.end_cached_error();
        }
        has_value
    }

    /// Concludes a call whose function has returned. Returns whether the call returns the value past its ttl instead of the
    /// new output. The times are those of the run.
    #[inline(never)]
    pub(super) fn conclude_run(
        &self,
        times: CallTimes,
        reason: ComputeReason,
        typed: &dyn TypedCall<B>,
    ) -> bool {
        let has_value = self.conclude_value(typed);
        match reason {
            ComputeReason::Miss(_) => self.emit(CallOutcome::Miss, times),
            ComputeReason::Expired(stale) if !has_value && self.engine.now() < stale.end => {
                self.record_failed_refresh(Some(typed));
                self.serve_stale(&stale);
                return true;
            }
            ComputeReason::Awaited(run) if !run.end(has_value, times, self.engine.now()) => {
                self.record_failed_refresh(Some(typed));
            }
            reason => self.conclude_refresh(has_value, times, &reason, Some(typed)),
        }
        false
    }

    /// Records the end of a refresh whose output is returned to its caller.
    pub(super) fn conclude_refresh(
        &self,
        has_value: bool,
        times: CallTimes,
        reason: &ComputeReason,
        typed: Returned<'_, B>,
    ) {
        match reason {
            _ if has_value => self.end_refresh(),
            ComputeReason::Forced => {}
            _ => self.record_failed_refresh(typed),
        }
        self.report_refresh(times);
    }

    /// Counts and reports a refresh.
    pub(super) fn report_refresh(&self, times: CallTimes) {
        self.engine.counters().call(CallOutcome::Refresh);
        self.emit(CallOutcome::Refresh, times);
    }

    /// Records that the function failed while there was a value past its ttl: with this output, or by a panic.
    #[cold]
    pub(super) fn record_failed_refresh(&self, typed: Returned<'_, B>) {
        self.engine.refresh_backoff().record_attempt(self.key, self.engine.now());
        self.engine.count_failed_refresh(self.key.prefix(), || {
            let text = catch_panic("show error", || Ok(typed.and_then(TypedCall::error_text)));
            self.ok_or_count(text).flatten()
        });
        let error =
            Error::new(ErrorKind::Miss, "refresh failed: the function returned no value to store");
        self.engine.warn(self.key.prefix(), &error, self.options().is_quiet);
    }
}
