//! The call that leads the flight of its key: what it does before and after the function.
//!
//! Before the function, a leader [reads the backend again](Leading::prepare) and acquires the lease of the key. After it,
//! [`complete`] stores the value, completes the flight and releases the lease.

use std::mem;
use std::ops::ControlFlow;
use std::slice;

use crate::backend::{Backend, Lease, LeaseGuard};
use crate::cache;
use crate::call::previous::{Kept, PreviousRecord};
use crate::call::read::read;
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, remaining_ttl};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::flight::{Completion, Deadline, FlightId, Lead, Outcome, StorePermission};
use crate::io::{Blocking, Io, run_blocking};
use crate::observer::CallTimes;
use crate::panic::{QuietDrop, drop_quietly};
use crate::record::Record;

/// A call that leads the flight of its key.
pub(crate) struct Leading<'a, B: Backend, F: FnOutput> {
    /// Dropped first.
    pub(super) lease: Option<LeaseGuard>,
    pub(super) lead: Lead<'a, Record<B::Stored>>,
    pub(super) reason: ComputeReason<F::Output>,
    pub(super) call: Call<'a, B, F>,
    /// When the call became the leader. A record that was created since is newer than its value.
    pub(super) started: Timestamp,
    /// When the function was called: after `started` if a lease was acquired in between.
    pub(super) began: Timestamp,
    /// The record that the run replaces, if the function asks for it.
    pub(super) previous: Option<Box<PreviousRecord<B::Stored>>>,
}

impl<'a, B: Backend, F> Leading<'a, B, F>
where
    F: CachedFn<Stored = B::Stored>,
{
    /// Creates a call that has just become the leader.
    pub(super) fn new(
        call: Call<'a, B, F>,
        lead: Lead<'a, Record<B::Stored>>,
        reason: ComputeReason<F::Output>,
    ) -> Self {
        let started = call.engine.now();
        Self { lease: None, lead, reason, call, started, began: started, previous: None }
    }

    /// Returns the flight that the call leads.
    pub(super) fn flight(&self) -> FlightId {
        self.lead.id()
    }

    /// Returns whether a call that was completed has nothing to drop.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        let Self { lease, lead, reason, previous, .. } = self;
        let has_ended = lead.has_ended() && matches!(reason, ComputeReason::Miss(_));
        has_ended && lease.is_none() && previous.is_none()
    }

    /// Returns whether the rest of the call is for [`complete_now`].
    pub(super) fn never_waits(&self) -> bool {
        self.call.engine.backend().is_in_process()
    }

    /// Returns the lead with the record that the call has kept for the run.
    pub(super) fn keeping(mut self, kept: Option<Kept>) -> Self {
        self.previous = kept.and_then(Kept::into_previous);
        self
    }

    /// Does all that a leader does before the function, which does not run if another caller has just stored a value. If
    /// `recheck`, the entry is read again: a function that asks for the value it replaces gets the one of then, if that is the
    /// one that the call has kept. Returns this for the run, or the output of a call whose function does not run.
    ///
    /// # Errors
    ///
    /// This, if no caller waits for the run, and another process holds the lease.
    pub(super) async fn prepare<M: Io>(
        mut self,
        recheck: bool,
        deadline: &mut Deadline,
    ) -> Result<ControlFlow<F::Output, Self>, Self> {
        // A refresh whose lead a miss has taken is not completed with the stored value, which is from before.
        let recheck = recheck && !self.lead.is_refresh();
        if !recheck {
            self.previous = None;
        }
        let (flight, is_forced) = (self.lead.id(), matches!(self.reason, ComputeReason::Forced));
        if recheck
            && !is_forced
            && let Some((output, record)) = M::lead(flight, self.read_again::<M>()).await
        {
            self.call.end_refresh();
            drop(self.lead.computed(Outcome::Computed { value: record, is_stored: true }));
            return Ok(ControlFlow::Break(output));
        }
        if recheck
            && matches!(self.reason, ComputeReason::Miss(_))
            && let Some(output) = self.call.serve_error_to_all(&mut self.lead)
        {
            return Ok(ControlFlow::Break(output));
        }
        if !is_forced && !self.call.engine.backend().is_in_process() {
            match M::lead(flight, self.acquire_lease::<M>(deadline)).await {
                ControlFlow::Break(Some(output)) => return Ok(ControlFlow::Break(output)),
                ControlFlow::Break(None) => return Err(self),
                ControlFlow::Continue(()) => {}
            }
        }
        if self.lease.is_some() {
            self.began = self.call.engine.now();
        }
        if let Some(previous) = self.previous.take() {
            self.previous = self.call.decode_previous(previous);
        }
        Ok(ControlFlow::Continue(self))
    }

    /// Returns a fresh output that was stored in the meantime, and its record for the callers that wait.
    async fn read_again<M: Io>(&mut self) -> Option<(F::Output, QuietDrop<Record<B::Stored>>)> {
        let record = self.read_current::<M>().await?;
        Some((self.call.serve(record.clone())?, QuietDrop::from(record)))
    }

    /// Acquires the lease of the key, or waits until the process that holds it has stored a value, up to the deadline of the
    /// call. A caller with a stale value returns that instead of waiting. A refresh that no caller waits for ends without an
    /// output.
    async fn acquire_lease<M: Io>(
        &mut self,
        deadline: &mut Deadline,
    ) -> ControlFlow<Option<F::Output>> {
        if self.call.engine.backend().capabilities().leases.is_none() {
            return ControlFlow::Continue(());
        }
        let mut pauses = self.call.engine.lease_pauses();
        while !self.call.has_timed_out() {
            let mut watch = match self.try_acquire_lease::<M>().await {
                Lease::Acquired(lease) => {
                    let Some(output) = self.read_stored::<M>().await else {
                        self.lease = Some(lease);
                        return ControlFlow::Continue(());
                    };
                    release_lease::<M, B, F>(&self.call, Some(lease)).await;
                    self.call.end_refresh();
                    return ControlFlow::Break(Some(output));
                }
                Lease::NotRequired => return ControlFlow::Continue(()),
                held => held.into_watch(),
            };
            match mem::replace(&mut self.reason, ComputeReason::Miss(None)) {
                ComputeReason::Expired(stale) => {
                    return ControlFlow::Break(Some(self.call.serve_stale(*stale)));
                }
                ComputeReason::Background => return ControlFlow::Break(None),
                reason => self.reason = reason,
            }
            // Also at the deadline: a read is cheaper than a computation.
            let pause = pauses.next(watch.is_some());
            let watch = slice::from_mut(&mut watch);
            let is_over = !self.call.engine.pause_for::<M>(pause, watch, deadline).await;
            if let Some(output) = self.read_stored::<M>().await {
                self.call.end_refresh();
                return ControlFlow::Break(Some(output));
            }
            if is_over {
                break;
            }
        }
        self.lead.end_lease();
        ControlFlow::Continue(())
    }

    /// Makes one attempt to acquire the lease of the key, without waiting. An error is counted, and no lease is required then.
    ///
    /// Other callers may hedge while the call has the lease, and not while another process computes.
    pub(super) async fn try_acquire_lease<M: Io>(&mut self) -> Lease {
        let call = &self.call;
        let acquired = if self.lead.begin_lease() {
            let waits = self.reason.waits_for_lease();
            call.ok_or_count(call.engine.try_acquire_lease::<M>(call.key, waits).await)
        } else {
            Some(Lease::Held)
        };
        let lease = acquired.unwrap_or(Lease::NotRequired);
        if !matches!(lease, Lease::Acquired(_)) {
            self.lead.end_lease();
        }
        if !matches!(lease, Lease::NotRequired) {
            self.lead.allow_hedges(matches!(lease, Lease::Acquired(_)));
        }
        lease
    }

    /// Returns a fresh output that another process has stored.
    async fn read_stored<M: Io>(&mut self) -> Option<F::Output> {
        let record = self.read_current::<M>().await?;
        self.call.serve(record)
    }

    /// Reads the record of the key. Without the one that was kept if the entry has another, or none, the run has no previous
    /// value.
    async fn read_current<M: Io>(&mut self) -> Option<Record<B::Stored>> {
        let record = read::<M, B, F>(&self.call).await;
        if let Some(before) = self.previous.take() {
            self.previous = self.call.keep_same(&before, record.as_ref());
        }
        record
    }
}

/// Releases a lease before the call returns.
pub(super) async fn release_lease<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    lease: Option<LeaseGuard>,
) {
    // A lease that is dropped is released without waiting for long.
    if let Some(lease) = lease
        && !call.has_timed_out()
    {
        call.ok_or_count(cache::release_lease::<M>(lease).await);
    }
}

/// [`complete`] for a backend in the memory of this process, which neither suspends nor has leases.
///
/// The record is cloned before it is stored, for callers that join in the meantime: the backend may not keep
/// it, and to encode it again would run code of users a second time. Where it runs none, the record is encoded
/// again if there are such callers.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn complete_now<B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: &mut Leading<'_, B, F>,
    output: F::Output,
) -> F::Output {
    let Leading { lead, reason, call, started, began, previous, .. } = leading;
    let ended = call.engine.now();
    let compute_time = CompactDuration::of_micros(ended.micros_since(*began));
    let (mut ttl_left, mut is_stored) = (None, false);
    let renewed =
        previous.as_ref().and_then(|previous| call.renewed_record(&output, previous, ended));
    let record = match renewed {
        None => call.encode_record_inline(&output, compute_time, ended),
        renewed => renewed,
    };
    if let Some(record) = record {
        let is_repeatable = call.encodes_alike() && previous.is_none();
        let mut shared = (!is_repeatable).then(|| QuietDrop::from(record.clone()));
        let permission = lead.begin_store();
        let may_store = call.can_store()
            && match permission {
                StorePermission::Granted => true,
                StorePermission::Refused => false,
                StorePermission::UnlessNewer => {
                    run_blocking(is_newest::<Blocking, B, F>(call, *started))
                }
            };
        if may_store {
            let fresh_until = record.fresh_until();
            is_stored =
                call.record_write(call.engine.write_now(call.key, record, call.value_class()));
            if is_stored {
                ttl_left = remaining_ttl::<B>(fresh_until, ended);
            }
        } else {
            drop_quietly(record);
        }
        let mut share = |is_stored| match shared.take() {
            Some(value) => Outcome::Computed { value, is_stored },
            None => call.encode_outcome(&output, compute_time, ended, is_stored),
        };
        while lead.complete(|| share(is_stored)) == Completion::MustDelete {
            (ttl_left, is_stored) = (None, false);
            call.ok_or_count(run_blocking(call.engine.delete::<Blocking>(call.key)));
        }
    } else {
        call.complete_without_record(lead, &output, ended.saturating_since(*began));
    }
    let times = CallTimes { ttl_left, ..CallTimes::computed(ended.saturating_since(*began)) };
    if let ComputeReason::Miss(_) = reason {
        call.conclude_miss(&output, times);
        return output;
    }
    call.conclude(output, times, mem::replace(reason, ComputeReason::Miss(None)))
}

/// Returns whether no stored record is newer than a computation that started at `started`.
#[cold]
pub(super) async fn is_newest<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    started: Timestamp,
) -> bool {
    !read::<M, B, F>(call).await.is_some_and(|found| call.is_newer(found, started))
}

/// Does all that a leader does after the function: stores the value, completes the flight and
/// releases the lease. The caller runs it as part of the flight.
pub(super) async fn complete<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: Leading<'_, B, F>,
    output: F::Output,
) -> F::Output {
    let Leading { lease, lead, reason, call, started, began, previous } = leading;
    let ended = call.engine.now();
    let compute_time = ended.saturating_since(began);
    let mut ttl_left = None;
    let renewed =
        previous.as_ref().and_then(|previous| call.renewed_record(&output, previous, ended));
    let old_times = previous.filter(|_| renewed.is_some()).and_then(|previous| previous.times());
    let encode = || call.encode_record(&output, CompactDuration::new(compute_time), ended);
    if let Some(record) = renewed.or_else(encode) {
        let mut lead = lead.computed(Outcome::computed(record.clone()));
        let may_store = call.can_store()
            && match lead.begin_store() {
                StorePermission::Granted => true,
                StorePermission::Refused => false,
                StorePermission::UnlessNewer => is_newest::<M, B, F>(&call, started).await,
            };
        let fresh_until = record.fresh_until();
        let is_stored = if !may_store {
            drop_quietly(record);
            false
        } else if call.has_timed_out() {
            call.write_offline(record)
        } else {
            call.record_write(match old_times {
                None => call.engine.write::<M>(call.key, record).await,
                Some(old) => call.engine.write_times::<M>(call.key, old, record).await,
            })
        };
        if is_stored {
            ttl_left = remaining_ttl::<B>(fresh_until, ended);
            lead.set_stored(true);
        }
        while lead.complete() == Completion::MustDelete {
            ttl_left = None;
            lead.set_stored(false);
            call.ok_or_count(call.engine.delete::<M>(call.key).await);
        }
    } else {
        let mut lead = lead;
        call.complete_without_record(&mut lead, &output, compute_time);
    }
    release_lease::<M, B, F>(&call, lease).await;
    let times = CallTimes { ttl_left, ..CallTimes::computed(compute_time) };
    call.conclude(output, times, reason)
}
