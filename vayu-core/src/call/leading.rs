//! The call that leads the flight of its key: what it does before and after the function.
//!
//! Before the function, a leader [reads the backend again](Leading::prepare) and acquires the lease of the key. After it,
//! [`complete`] stores the value, completes the flight and releases the lease.

use std::mem;
use std::ops::ControlFlow;
use std::slice;

use crate::backend::{Backend, Lease, LeaseGuard};
use crate::cache::{self, CachedError};
use crate::call::failure::{is_refused, replaces_value};
use crate::call::kept::{Kept, PreviousRecord};
use crate::call::read::{may_replace, read};
use crate::call::steps::{Step, StepResult, Steps};
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{CachedFn, ComputeReason, FnProperties, remaining_ttl};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::flight::{Completion, Deadline, FlightId, Lead, Outcome, StorePermission};
use crate::io::{Blocking, Io, run_blocking};
use crate::observer::CallTimes;
use crate::panic::{QuietDrop, drop_quietly};
use crate::record::Record;
use crate::serializer::ValueClass;

/// A call that leads the flight of its key.
pub(crate) struct Leading<'a, B: Backend> {
    /// Dropped first.
    pub(super) lease: Option<LeaseGuard>,
    pub(super) lead: Lead<'a, Record<B::Stored>>,
    pub(super) reason: ComputeReason,
    pub(super) call: UntypedCall<'a, B>,
    /// When the call became the leader. A record that was created since is newer than its value.
    pub(super) started: Timestamp,
    /// When the function was called: after `started` if a lease was acquired in between.
    pub(super) began: Timestamp,
    /// The record that the run replaces, if the function asks for it.
    pub(super) previous: Option<Box<PreviousRecord<B::Stored>>>,
}

impl<'a, B: Backend> Leading<'a, B> {
    /// Creates a call that has just become the leader.
    pub(super) fn new(
        call: UntypedCall<'a, B>,
        lead: Lead<'a, Record<B::Stored>>,
        reason: ComputeReason,
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

    /// Does all that a leader does before the function, which does not run if another caller has just stored a value. If
    /// `recheck`, the entry is read again: a function that asks for the value it replaces gets the one of then, if that is the
    /// one that the call has kept. Returns this for the run, or breaks if an output was found.
    ///
    /// # Errors
    ///
    /// This, if no caller waits for the run, and another process holds the lease.
    pub(super) async fn prepare<M: Io>(
        mut self,
        recheck: bool,
        deadline: &mut Deadline,
        steps: &impl Steps<B>,
    ) -> Result<ControlFlow<(), Self>, Self> {
        // A refresh whose lead a miss has taken is not completed with the stored value, which is from before.
        let recheck = recheck && !self.lead.is_refresh();
        if !recheck {
            self.previous = None;
        }
        let is_forced = matches!(self.reason, ComputeReason::Forced);
        if recheck
            && !is_forced
            && let Some(record) = self.read_current::<M>().await
            && let StepResult::Served(Some(value)) =
                steps.perform(&self.call, Some(self.lead.id()), Step::ServeAll(record)).await
        {
            self.call.end_refresh();
            drop(self.lead.computed(Outcome::Computed { value, is_stored: true }));
            return Ok(ControlFlow::Break(()));
        }
        if recheck
            && matches!(self.reason, ComputeReason::Miss(_))
            && let Some(cached) = steps.serve_error(&self.call, Some(self.lead.id())).await
        {
            let CachedError { error, compute_time, .. } = cached;
            // No error and no value is being stored, so nothing is to be deleted.
            let _ = self.lead.fail(true, || Outcome::Failed { error, compute_time });
            return Ok(ControlFlow::Break(()));
        }
        if !is_forced && !self.call.engine.backend().is_in_process() {
            match self.acquire_lease::<M>(deadline, steps).await {
                ControlFlow::Break(true) => return Ok(ControlFlow::Break(())),
                ControlFlow::Break(false) => return Err(self),
                ControlFlow::Continue(()) => {}
            }
        }
        if self.lease.is_some() {
            self.began = self.call.engine.now();
        }
        if let Some(previous) = self.previous.take() {
            let (flight, step) = (Some(self.lead.id()), Step::Previous(previous));
            if let StepResult::Previous(previous) = steps.perform(&self.call, flight, step).await {
                self.previous = previous;
            }
        }
        Ok(ControlFlow::Continue(self))
    }

    /// Acquires the lease of the key, or waits until the process that holds it has stored a value, up to the deadline of the
    /// call. A caller with a stale value returns that instead of waiting. A refresh that no caller waits for ends without an
    /// output. Breaks with whether an output was found.
    async fn acquire_lease<M: Io>(
        &mut self,
        deadline: &mut Deadline,
        steps: &impl Steps<B>,
    ) -> ControlFlow<bool> {
        if self.call.engine.backend().capabilities().leases.is_none() {
            return ControlFlow::Continue(());
        }
        let flight = self.lead.id();
        let mut pauses = self.call.engine.lease_pauses();
        while !self.call.has_timed_out() {
            let mut watch = match M::lead(flight, self.try_acquire_lease::<M>()).await {
                Lease::Acquired(lease) => {
                    if !self.serve_stored::<M>(steps).await {
                        self.lease = Some(lease);
                        return ControlFlow::Continue(());
                    }
                    M::lead(flight, release_lease::<M, B>(&self.call, Some(lease))).await;
                    self.call.end_refresh();
                    return ControlFlow::Break(true);
                }
                Lease::NotRequired => return ControlFlow::Continue(()),
                held => held.into_watch(),
            };
            match mem::replace(&mut self.reason, ComputeReason::Miss(None)) {
                ComputeReason::Expired(stale) => {
                    M::lead(flight, async { self.call.serve_stale(&stale) }).await;
                    return ControlFlow::Break(true);
                }
                ComputeReason::Background => return ControlFlow::Break(false),
                reason => self.reason = reason,
            }
            // Also at the deadline: a read is cheaper than a computation.
            let pause = pauses.next(watch.is_some());
            let watch = slice::from_mut(&mut watch);
            let waiting = self.call.engine.pause_for::<M>(pause, watch, deadline);
            let is_over = !M::lead(flight, waiting).await;
            if self.serve_stored::<M>(steps).await {
                self.call.end_refresh();
                return ControlFlow::Break(true);
            }
            if is_over {
                break;
            }
        }
        self.lead.end_lease();
        ControlFlow::Continue(())
    }

    /// Returns whether another process has stored a fresh value, which is then the output that was found.
    async fn serve_stored<M: Io>(&mut self, steps: &impl Steps<B>) -> bool {
        match self.read_current::<M>().await {
            Some(record) => steps.is(&self.call, Some(self.lead.id()), Step::Serve(record)).await,
            None => false,
        }
    }

    /// Reads the record of the key, as part of the flight.
    async fn read_current<M: Io>(&mut self) -> Option<Record<B::Stored>> {
        M::lead(self.lead.id(), self.read_part_of_flight::<M>()).await
    }

    /// Reads the record of the key. Without the one that was kept if the entry has another, or none, the run has no previous
    /// value.
    async fn read_part_of_flight<M: Io>(&mut self) -> Option<Record<B::Stored>> {
        let record = read::<M, B>(&self.call).await;
        if let Some(before) = self.previous.take() {
            self.previous = self.call.keep_same(&before, record.as_ref());
        }
        record
    }
}

/// Releases a lease before the call returns.
pub(super) async fn release_lease<M: Io, B: Backend>(
    call: &UntypedCall<'_, B>,
    lease: Option<LeaseGuard>,
) {
    // A lease that is dropped is released without waiting for long.
    if let Some(lease) = lease
        && !call.has_timed_out()
    {
        call.ok_or_count(cache::release_lease::<M>(lease).await);
    }
}

/// [`complete`] for a backend in the memory of this process, which neither suspends nor has leases. Returns whether the call
/// returns the value past its ttl instead of the new output.
///
/// The record is cloned before it is stored, for callers that join in the meantime: the backend may not keep
/// it, and to encode it again would run code of users a second time. Where it runs none, the record is encoded
/// again if there are such callers.
pub(super) fn complete_now<B: Backend>(
    leading: &mut Leading<'_, B>,
    typed: &dyn TypedCall<B>,
) -> bool {
    let Leading { call, began, previous, .. } = &*leading;
    let ended = call.engine.now();
    let compute_time = CompactDuration::of_micros(ended.micros_since(*began));
    let renewed =
        previous.as_ref().and_then(|previous| call.renewed_record(previous, ended, typed));
    let record = match renewed {
        None => call.encode_or_count(typed, compute_time, ended),
        renewed => renewed,
    };
    complete_record_now(leading, record, ended, typed)
}

/// [`complete_now`] for an output that may [encode alike](Call::encodes_alike). The types are known here, so that the compiler
/// sees how it is encoded. Of other calls, no code is left.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn complete_alike<B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: &mut Leading<'_, B>,
    frame: &Frame<'_, F>,
) -> Option<bool> {
    let function = frame.function();
    if function.value_class() == ValueClass::Opaque || function.has_closures() {
        return None;
    }
    if !leading.never_waits() || leading.previous.is_some() {
        return None;
    }
    let ended = leading.call.engine.now();
    let compute_time = CompactDuration::of_micros(ended.micros_since(leading.began));
    let record = leading.call.encode_unguarded(&frame.output(), compute_time, ended);
    let record = leading.call.ok_or_count(record).flatten();
    Some(complete_record_now(leading, record, ended, frame))
}

/// Does all that follows the encoding of an output in [`complete_now`].
#[inline(never)]
fn complete_record_now<B: Backend>(
    leading: &mut Leading<'_, B>,
    record: Option<Record<B::Stored>>,
    ended: Timestamp,
    typed: &dyn TypedCall<B>,
) -> bool {
    let Leading { lead, reason, call, started, began, previous, .. } = leading;
    let compute_time = CompactDuration::of_micros(ended.micros_since(*began));
    let mut stored_until = None;
    if let Some(record) = record {
        let is_repeatable = call.encodes_alike() && previous.is_none();
        let mut shared = (!is_repeatable).then(|| QuietDrop::from(record.clone()));
        let permission = lead.begin_store();
        let may_store = call.can_store() && may_replace_now(call, permission, *started, typed);
        let mut is_stored = false;
        if may_store {
            let fresh_until = record.fresh_until();
            let class = call.function.value_class();
            let result = call.engine.write_now(call.key, record, class);
            let is_refused = is_refused(&result) && replaces_value(reason, lead);
            is_stored = call.record_write(result);
            stored_until = is_stored.then_some(fresh_until);
            if is_refused {
                run_blocking(call.delete_old::<Blocking>());
            }
        } else {
            drop_quietly(record);
        }
        let mut share = |is_stored| match shared.take() {
            Some(value) => Outcome::Computed { value, is_stored },
            None => encode_again(call, compute_time, ended, is_stored, typed),
        };
        while lead.complete(|| share(is_stored)) == Completion::MustDelete {
            (stored_until, is_stored) = (None, false);
            call.ok_or_count(run_blocking(call.engine.delete::<Blocking>(call.key)));
        }
    } else if replaces_value(reason, lead) && typed.has_value() {
        let may_delete = may_replace_now(call, lead.begin_store(), *started, typed);
        run_blocking(call.complete_with_deletion::<Blocking>(lead, may_delete));
    } else {
        call.complete_without_record(lead, ended.saturating_since(*began), typed);
    }
    let times = || {
        let ttl_left = stored_until.and_then(|until| remaining_ttl::<B>(until, ended));
        CallTimes { ttl_left, ..CallTimes::computed(ended.saturating_since(*began)) }
    };
    if let ComputeReason::Miss(_) = reason {
        call.conclude_miss(times, typed);
        return false;
    }
    let reason = mem::replace(reason, ComputeReason::Miss(None));
    call.conclude_run(times(), reason, typed)
}

/// Returns the outcome for callers that have joined the flight, of an output that [encodes alike](Call::encodes_alike).
#[cold]
#[inline(never)]
fn encode_again<B: Backend>(
    call: &UntypedCall<'_, B>,
    compute_time: CompactDuration,
    created: Timestamp,
    is_stored: bool,
    typed: &dyn TypedCall<B>,
) -> Outcome<Record<B::Stored>> {
    match call.encode_or_count(typed, compute_time, created) {
        Some(record) => Outcome::Computed { value: record.into(), is_stored },
        None => Outcome::NotShareable,
    }
}

/// [`may_replace`] for a backend in the memory of this process.
#[inline]
fn may_replace_now<B: Backend>(
    call: &UntypedCall<'_, B>,
    permission: StorePermission,
    started: Timestamp,
    typed: &dyn TypedCall<B>,
) -> bool {
    match permission {
        StorePermission::Granted => true,
        StorePermission::Refused => false,
        StorePermission::UnlessNewer => is_newest_now(call, started, typed),
    }
}

/// Returns whether no stored record is newer than a computation that started at `started`.
#[cold]
fn is_newest_now<B: Backend>(
    call: &UntypedCall<'_, B>,
    started: Timestamp,
    typed: &dyn TypedCall<B>,
) -> bool {
    let found = run_blocking(read::<Blocking, B>(call));
    !found.is_some_and(|found| call.is_newer(found, started, typed))
}

/// A call whose value is stored, and whose flight is completed.
pub(super) struct Completed<'a, B: Backend> {
    call: UntypedCall<'a, B>,
    reason: ComputeReason,
    times: CallTimes,
}

impl<B: Backend> Completed<'_, B> {
    /// Concludes the call. Returns whether it returns the value past its ttl instead of the new output.
    pub(super) fn conclude(self, typed: &dyn TypedCall<B>) -> bool {
        let Self { call, reason, times } = self;
        call.conclude_run(times, reason, typed)
    }
}

/// A leader whose function has ended, and the record of its output. Without one, the flight is completed, unless the value before
/// the output is to be deleted.
pub(super) struct Encoded<'a, B: Backend> {
    leading: Leading<'a, B>,
    record: Option<Record<B::Stored>>,
    /// The times of the record that it replaces, if it has the same value.
    old_times: Option<Record<()>>,
    /// The output is a value without a record, and replaces the one that may be stored.
    deletes: bool,
    ended: Timestamp,
}

impl<'a, B: Backend> Encoded<'a, B> {
    /// Returns the flight of the leader.
    pub(super) fn flight(&self) -> FlightId {
        self.leading.flight()
    }

    /// Returns the call.
    pub(super) fn call(&self) -> &UntypedCall<'a, B> {
        &self.leading.call
    }
}

impl<'a, B: Backend> Leading<'a, B> {
    /// Encodes the output of the function, which has just ended. Completes the flight if the output is not to be stored, and the
    /// backend not to be changed.
    pub(super) fn encode(mut self, typed: &dyn TypedCall<B>) -> Encoded<'a, B> {
        let Self { lead, reason, call, began, previous, .. } = &mut self;
        let ended = call.engine.now();
        let compute_time = ended.saturating_since(*began);
        let previous = previous.take();
        let renewed =
            previous.as_ref().and_then(|previous| call.renewed_record(previous, ended, typed));
        let old_times =
            previous.filter(|_| renewed.is_some()).and_then(|previous| previous.times());
        let encode = || call.encode_or_count(typed, CompactDuration::new(compute_time), ended);
        let record = renewed.or_else(encode);
        let mut deletes = false;
        if record.is_none() {
            deletes = replaces_value(reason, lead) && typed.has_value();
            if !deletes {
                call.complete_without_record(lead, compute_time, typed);
            }
        }
        Encoded { leading: self, record, old_times, deletes, ended }
    }
}

/// Does all that a leader does after the function, whose output is encoded: stores the value, completes the flight and
/// releases the lease. The caller runs it as part of the flight.
pub(super) async fn complete<'a, M: Io, B: Backend>(
    encoded: Encoded<'a, B>,
    steps: &impl Steps<B>,
) -> Completed<'a, B> {
    let Encoded { leading, record, old_times, deletes, ended } = encoded;
    let Leading { lease, mut lead, reason, call, started, began, .. } = leading;
    let compute_time = ended.saturating_since(began);
    let mut ttl_left = None;
    if let Some(record) = record {
        let replaces = replaces_value(&reason, &lead);
        let mut lead = lead.computed(Outcome::computed(record.clone()));
        let may_store = call.can_store()
            && may_replace::<M, B>(&call, lead.begin_store(), started, None, steps).await;
        let fresh_until = record.fresh_until();
        let is_stored = if !may_store {
            drop_quietly(record);
            false
        } else if call.has_timed_out() {
            call.write_offline(record)
        } else {
            let result = match old_times {
                None => call.engine.write::<M>(call.key, record).await,
                Some(old) => call.engine.write_times::<M>(call.key, old, record).await,
            };
            let is_refused = replaces && is_refused(&result);
            let is_stored = call.record_write(result);
            if is_refused {
                call.delete_old::<M>().await;
            }
            is_stored
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
    } else if deletes {
        let may_delete = may_replace::<M, B>(&call, lead.begin_store(), started, None, steps).await;
        call.complete_with_deletion::<M>(&mut lead, may_delete).await;
    }
    release_lease::<M, B>(&call, lease).await;
    let times = CallTimes { ttl_left, ..CallTimes::computed(compute_time) };
    Completed { call, reason, times }
}
