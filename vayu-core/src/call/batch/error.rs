//! Errors that batches share, and cached errors.
//!
//! The error of a run is cached for each of its elements. A batch that misses one of these gets it: an output cannot hold
//! an error and values. As for other errors, a function of one element does not get it.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::CachedError;
use crate::call::batch::flights::Pending;
use crate::call::batch::lookup::Missed;
use crate::call::batch::{BatchBody, Part, Role, Runner, Unusable};
use crate::call::typed::Frame;
use crate::call::{CachedFn, Call, ComputeReason, FnOutput};
use crate::flight::{Outcome, Turn};
use crate::panic::catch_panic;
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

impl<'a, B: Backend, F: FnOutput> Part<'a, B, F> {
    /// Returns the call of the element, unless it bypasses the cache.
    pub(super) fn call(&self) -> Option<&Call<'a, B, F>> {
        match &self.role {
            Role::Lead { leading, .. } => Some(&leading.call),
            Role::Uncoordinated(call) => Some(call),
            Role::Bypass => None,
        }
    }
}

impl<'a, B, F, D> Runner<'a, '_, B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    /// Returns the outcome of a run that has failed, for the callers that wait for its elements.
    pub(super) fn failure(
        parts: &[Part<'a, B, F>],
        unusable: &Unusable<D::Output>,
        compute_time: Duration,
    ) -> Outcome<Record<B::Stored>> {
        let Unusable::Failed(output) = unusable else { return Outcome::NotShareable };
        let calls: Vec<_> = parts.iter().filter_map(Part::call).collect();
        let error = catch_panic("clone error", || Ok(D::shared_error(output)));
        let error = calls.first().and_then(|call| call.ok_or_count(error).flatten());
        let Some(error) = error else { return Outcome::NotShareable };
        let elements = calls.iter().map(|call| call.key.hash_code()).collect();
        let has_bypassed = calls.len() < parts.len();
        let error = SharedError::new(&BatchError { error, elements, has_bypassed });
        Outcome::Failed { error, compute_time }
    }

    /// Returns the output of this batch if the run that it has waited for has failed, and all elements of that run are
    /// elements that this batch still waits for: its own run would be of these, too. So does a batch whose next call would
    /// get the error, since it is cached.
    pub(super) fn shared_failure(
        &mut self,
        waited: &Pending<'a, B, F>,
        turn: &Turn<'a, '_, Record<B::Stored>>,
    ) -> Option<D::Output> {
        let Turn::Completed(Outcome::Failed { error, compute_time }) = turn else { return None };
        if waited.outdated || waited.ticket.flight().is_detached() {
            return None;
        }
        let BatchError { error, elements, has_bypassed } = error.get()?;
        let pending = self.pending.iter().map(|pending| &pending.call);
        let mut needed: Vec<u64> =
            pending.chain([&waited.call]).map(|call| call.key.hash_code()).collect();
        needed.sort_unstable();
        let is_needed = |element| needed.binary_search(element).is_ok();
        let is_covered = !has_bypassed && elements.iter().all(is_needed);
        let is_miss = matches!(waited.reason, ComputeReason::Miss(_));
        let is_shared = is_covered
            || (is_miss && waited.call.has_cached_error(&Frame::new(waited.call.function)));
        if !is_shared {
            return None;
        }
        let output = catch_panic("clone error", || Ok(D::error_output(error)));
        let output = waited.call.ok_or_count(output).flatten()?;
        waited.call.count_shared_error(*compute_time);
        for pending in &self.pending {
            if elements.contains(&pending.call.key.hash_code()) {
                pending.call.count_shared_error(*compute_time);
            }
        }
        Some(output)
    }

    /// Returns the output of this batch if an error is cached for an element that it misses.
    pub(super) fn cached_failure(missed: &[Missed<'a, B, F>]) -> Option<D::Output> {
        let calls = missed.iter().filter_map(|missed| match missed.reason {
            ComputeReason::Miss(_) => Some(&missed.call),
            _ => None,
        });
        cached_failure::<B, F, D>(calls)
    }

    /// [`cached_failure`](Self::cached_failure) for elements that this batch leads, after they were read again. Callers
    /// that wait for those with a cached error get that.
    pub(super) fn cached_failure_of_led(parts: &mut [Part<'a, B, F>]) -> Option<D::Output> {
        let calls = parts.iter().filter_map(|part| match &part.role {
            Role::Lead { leading, .. } => {
                matches!(leading.reason, ComputeReason::Miss(_)).then_some(&leading.call)
            }
            Role::Uncoordinated(_) | Role::Bypass => None,
        });
        let output = cached_failure::<B, F, D>(calls)?;
        end_refreshes(parts);
        for part in parts {
            if let Role::Lead { leading, .. } = &mut part.role
                && let Some(CachedError { error, compute_time, .. }) =
                    leading.call.read_error(&Frame::new(leading.call.function))
            {
                // No error and no value is being stored, so nothing is to be deleted.
                let _ = leading.lead.fail(true, || Outcome::Failed { error, compute_time });
            }
        }
        Some(output)
    }
}

/// Ends the refreshes of elements that the function does not run for, so that the next call begins them.
pub(super) fn end_refreshes<B, F>(parts: &[Part<'_, B, F>])
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
{
    for part in parts {
        if let Role::Lead { leading, .. } = &part.role
            && let ComputeReason::Expired(_) = leading.reason
        {
            leading.call.end_refresh();
        }
    }
}

/// Returns the output of a batch if an error is cached for one of these calls. Those with such an error are counted.
fn cached_failure<'c, B, F, D>(calls: impl Iterator<Item = &'c Call<'c, B, F>>) -> Option<D::Output>
where
    B: Backend + 'c,
    F: CachedFn<Stored = B::Stored> + 'c,
    D: BatchBody,
{
    let mut output = None;
    for call in calls {
        // All elements are of one function.
        if !call.function.caches_errors() {
            return None;
        }
        let Some(cached) = call.read_error(&Frame::new(call.function)) else { continue };
        if output.is_none() {
            let error = cached.error.get::<BatchError>().map(|batch| &batch.error);
            let found = catch_panic("clone error", || Ok(error.and_then(D::error_output)));
            output = call.ok_or_count(found).flatten();
        }
        if output.is_some() {
            call.count_error_hit(&cached);
        }
    }
    output
}
