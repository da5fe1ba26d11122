//! Errors that batches share, and cached errors.
//!
//! The error of a run is cached for each of its elements. A batch that misses one of these gets it: an output cannot hold
//! an error and values. As for other errors, a function of one element does not get it.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::CachedError;
use crate::call::ComputeReason;
use crate::call::batch::resume::Missed;
use crate::call::batch::runner::{Failed, Part, Pending, Role, Runner};
use crate::call::batch::steps::Ran;
use crate::call::steps::Steps;
use crate::call::typed::UntypedCall;
use crate::flight::{Outcome, Turn};
use crate::record::Record;
use crate::shared_error::SharedError;

/// The error of a run of a batch function. A function of one element has errors of another type, so its callers do not
/// get this one.
#[derive(Debug, Clone)]
pub struct BatchError {
    error: SharedError,
    /// The hashes of the keys of the elements of the run, except for those that bypass the cache.
    elements: Arc<[u64]>,
    /// `true` if there were elements that bypass the cache: the error may be that of one of them.
    has_bypassed: bool,
}

impl BatchError {
    /// Returns the error, if it is of this type.
    pub(crate) fn get<E: 'static>(&self) -> Option<&E> {
        self.error.get()
    }
}

impl<'a, B: Backend> Runner<'a, B> {
    /// Returns the outcome of a run that has failed, for the callers that wait for its elements.
    pub(super) fn failure(
        parts: &[Part<'a, B>],
        ran: Ran,
        compute_time: Duration,
    ) -> Outcome<Record<B::Stored>> {
        let calls: Vec<_> = parts.iter().filter_map(Part::call).collect();
        let (Ran::Failed(error), Some(first)) = (ran, calls.first()) else {
            return Outcome::NotShareable;
        };
        let Some(error) = first.ok_or_count(error).flatten() else { return Outcome::NotShareable };
        let elements = calls.iter().map(|call| call.key.hash_code()).collect();
        let has_bypassed = calls.len() < parts.len();
        let error = SharedError::new(&BatchError { error, elements, has_bypassed });
        Outcome::Failed { error, compute_time }
    }

    /// Ends the batch with the error of the run that it has waited for, if all elements of that run are elements that this
    /// batch still waits for: its own run would be of these, too. So does a batch whose next call would get the error, since
    /// it is cached.
    pub(super) async fn shared_failure(
        &mut self,
        waited: &Pending<'a, B>,
        turn: &Turn<'a, '_, Record<B::Stored>>,
        steps: &impl Steps<B>,
    ) -> Result<(), Failed> {
        let Turn::Completed(Outcome::Failed { error, compute_time }) = turn else { return Ok(()) };
        if waited.outdated || waited.ticket.flight().is_detached() {
            return Ok(());
        }
        let Some(BatchError { error, elements, has_bypassed }) = error.get() else { return Ok(()) };
        let pending = self.pending.iter().map(|pending| &pending.call);
        let mut needed: Vec<u64> =
            pending.chain([&waited.call]).map(|call| call.key.hash_code()).collect();
        needed.sort_unstable();
        let is_needed = |element| needed.binary_search(element).is_ok();
        let is_covered = !has_bypassed && elements.iter().all(is_needed);
        let is_miss = matches!(waited.reason, ComputeReason::Miss(_));
        let is_shared =
            is_covered || (is_miss && steps.read_error(&waited.call, None).await.is_some());
        if !is_shared || !self.clone_error(&waited.call, error).await {
            return Ok(());
        }
        waited.call.count_shared_error(*compute_time);
        for pending in &self.pending {
            if elements.contains(&pending.call.key.hash_code()) {
                pending.call.count_shared_error(*compute_time);
            }
        }
        Err(Failed)
    }

    /// Ends the batch if an error is cached for an element that it misses.
    pub(super) async fn cached_failure(&mut self, missed: &[Missed<'a, B>]) -> Result<(), Failed> {
        let mut has_failed = false;
        for Missed { place, call, reason } in missed {
            self.serve_error(*place, call, reason, &mut has_failed).await;
        }
        if has_failed { Err(Failed) } else { Ok(()) }
    }

    /// [`cached_failure`](Self::cached_failure) for elements that this batch leads, after they were read again. Callers
    /// that wait for those with a cached error get that.
    pub(super) async fn cached_failure_of_led(
        &mut self,
        parts: &mut [Part<'a, B>],
    ) -> Result<(), Failed> {
        let mut has_failed = false;
        for Part { place, role } in &mut *parts {
            if let Role::Lead { leading, .. } = role {
                self.serve_error(*place, &leading.call, &leading.reason, &mut has_failed).await;
            }
        }
        if !has_failed {
            return Ok(());
        }
        end_refreshes(parts);
        for Part { place, role } in parts {
            if let Role::Lead { leading, .. } = role
                && let Some(CachedError { error, compute_time, .. }) =
                    self.of(*place).read_error(&leading.call, self.flight).await
            {
                // No error and no value is being stored, so nothing is to be deleted.
                let _ = leading.lead.fail(true, || Outcome::Failed { error, compute_time });
            }
        }
        Err(Failed)
    }

    /// Clones the error that is cached for an element that the batch misses to its output, unless it has one. An element with
    /// such an error is counted.
    async fn serve_error(
        &mut self,
        place: usize,
        call: &UntypedCall<'a, B>,
        reason: &ComputeReason,
        has_failed: &mut bool,
    ) {
        if !matches!(reason, ComputeReason::Miss(_)) {
            return;
        }
        let Some(cached) = self.of(place).read_error(call, self.flight).await else { return };
        if !*has_failed && let Some(BatchError { error, .. }) = cached.error.get() {
            *has_failed = self.clone_error(call, error).await;
        }
        if *has_failed {
            call.count_error_hit(&cached);
        }
    }

    /// Clones an error to the output of the batch. Returns whether it is of the type of the function.
    async fn clone_error(&mut self, call: &UntypedCall<'a, B>, error: &SharedError) -> bool {
        call.ok_or_count(self.steps.clone_error(error.clone(), self.flight).await) == Some(true)
    }
}

/// Ends the refreshes of elements that the function does not run for, so that the next call begins them.
pub(super) fn end_refreshes<B: Backend>(parts: &[Part<'_, B>]) {
    for leading in parts.iter().filter_map(Part::leading) {
        if let ComputeReason::Expired(_) = leading.reason {
            leading.call.end_refresh();
        }
    }
}
