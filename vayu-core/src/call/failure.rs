//! The end of a run that has no value to store, and errors that callers share.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::{CachedFn, Call};
use crate::flight::{Lead, Outcome};
use crate::outcome::CallOutcome;
use crate::panic::catch_panic;
use crate::record::Record;
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
        let is_failure = F::shares_errors() && F::value(output).is_none();
        lead.fail(is_failure, || self.failure(output, compute_time));
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
        self.engine.counters().call(CallOutcome::Coalesced);
        self.emit(CallOutcome::Coalesced, None, compute_time);
        Some(output)
    }
}
