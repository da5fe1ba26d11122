//! Errors that batches share.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::call::batch::flights::Pending;
use crate::call::batch::{BatchBody, Part, Role, Runner, Unusable};
use crate::call::{CachedFn, Call, FnOutput};
use crate::flight::{Outcome, Turn};
use crate::panic::catch_panic;
use crate::record::Record;
use crate::shared_error::SharedError;

/// The error of a run of a batch function. A function of one element has errors of another type, so its callers do not
/// get this one.
#[derive(Clone)]
struct BatchError {
    error: SharedError,
    /// The hashes of the keys of all elements of the run.
    elements: Arc<[u64]>,
}

impl<'a, B: Backend, F: FnOutput> Part<'a, B, F> {
    /// Returns the call of the element, unless it bypasses the cache.
    fn call(&self) -> Option<&Call<'a, B, F>> {
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
        let calls: Option<Vec<_>> = parts.iter().map(Part::call).collect();
        let Some(calls) = calls else { return Outcome::NotShareable };
        let error = catch_panic("clone error", || Ok(D::shared_error(output)));
        let error = calls.first().and_then(|call| call.ok_or_count(error).flatten());
        let Some(error) = error else { return Outcome::NotShareable };
        let elements = calls.iter().map(|call| call.key.hash_code()).collect();
        let error = SharedError::new(&BatchError { error, elements });
        Outcome::Failed { error, compute_time }
    }

    /// Returns the output of this batch if the run that it has waited for has failed, and all elements of that run are
    /// elements that this batch still waits for: its own run would be of these, too.
    pub(super) fn shared_failure(
        &mut self,
        waited: &Pending<'a, B, F>,
        turn: &Turn<'a, '_, Record<B::Stored>>,
    ) -> Option<D::Output> {
        let Turn::Completed(Outcome::Failed { error, compute_time }) = turn else { return None };
        if waited.outdated || waited.ticket.flight().is_detached() {
            return None;
        }
        let BatchError { error, elements } = error.get()?;
        let pending = self.pending.iter().map(|pending| &pending.call);
        let mut needed: Vec<u64> =
            pending.chain([&waited.call]).map(|call| call.key.hash_code()).collect();
        needed.sort_unstable();
        if !elements.iter().all(|element| needed.binary_search(element).is_ok()) {
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
}
