//! One run of a batch function, and the end of the flights that it leads.

use std::time::Duration;

use tracing::Span;

use crate::backend::{Backend, LeaseGuard};
use crate::call::background_refresh::CountPanic;
use crate::call::batch::runner::{Failed, Part, Role, Runner};
use crate::call::batch::steps::{Ran, Run};
use crate::call::failure::{is_refused, replaces_value};
use crate::call::leading::{Leading, release_lease};
use crate::call::read::may_replace;
use crate::call::steps::{NoRecord, Step, StepOf, StepResult, Steps, part_of_flights, within};
use crate::call::typed::UntypedCall;
use crate::call::{ComputeReason, remaining_ttl};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::flight::{Completion, Computed, FlightId, Lead, Outcome};
use crate::io::Io;
use crate::log;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::{QuietDrop, drop_quietly};
use crate::record::Record;

/// An element whose value is being stored.
struct Storing<'a, B: Backend> {
    place: usize,
    /// Dropped before the lead.
    lease: Option<LeaseGuard>,
    lead: Computed<'a, Record<B::Stored>>,
    reason: ComputeReason,
    /// Whether the value may replace one that is served.
    replaces: bool,
    call: UntypedCall<'a, B>,
    started: Timestamp,
    /// The record, until it is stored.
    record: Option<Record<B::Stored>>,
    /// The ttl of the value, if it is stored.
    ttl_left: Option<Duration>,
}

impl<B: Backend> Storing<'_, B> {
    /// Sets whether a later call may find the value.
    fn set_stored(&mut self, is_stored: bool) {
        self.lead.set_stored(is_stored);
        if !is_stored {
            self.ttl_left = None;
        }
    }

    /// Completes the flight.
    async fn complete<M: Io>(&mut self) {
        while self.lead.complete() == Completion::MustDelete {
            self.set_stored(false);
            self.call.ok_or_count(self.call.engine.delete::<M>(self.call.key).await);
        }
        release_lease::<M, B>(&self.call, self.lease.take()).await;
    }
}

impl<'a, B: Backend> Runner<'a, B> {
    /// Runs the function once, stores the values and completes the flights.
    pub(super) async fn run_once<M: Io>(
        &mut self,
        mut parts: Vec<Part<'a, B>>,
    ) -> Result<(), Failed> {
        // A set of the elements has this order, too.
        parts.sort_unstable_by_key(|part| part.place);
        for part in &parts {
            match &part.role {
                Role::Lead { leading, .. } => {
                    if let ComputeReason::Miss(_) = leading.reason {
                        leading.call.count_miss();
                    }
                }
                Role::Uncoordinated(call) => call.count_miss(),
                Role::Bypass => {}
            }
        }
        let began = self.engine.now();
        let panics = self.count_panics(&parts);
        let places = parts.iter().map(|part| part.place).collect();
        let ran = self.steps.run(Run { places, flight: self.flight, span: run_span(&parts) }).await;
        drop(panics);
        let ended = self.engine.now();
        match ran {
            Ran::Values(has_value) => {
                // The run took this long for all of them: the times of the elements add up to its own.
                let elements = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                let compute_time = ended.saturating_since(began) / elements;
                self.complete::<M>(parts, has_value, compute_time, ended).await;
                Ok(())
            }
            ran => self.fail::<M>(parts, ran, began, ended).await,
        }
    }

    /// Returns guards that count a panic of the function as a failed refresh of each element that is refreshed.
    fn count_panics(&self, parts: &[Part<'a, B>]) -> Vec<CountPanic<'a, B>> {
        let leads = parts.iter().filter_map(Part::leading);
        let refreshed = leads.filter(|lead| matches!(lead.reason, ComputeReason::Background));
        let guard = |Leading { call, .. }: &Leading<'a, B>| {
            CountPanic::new(self.engine, call.function, call.key, call.stamp)
        };
        refreshed.map(guard).collect()
    }

    /// Stores the values of a run, and completes its flights.
    async fn complete<M: Io>(
        &mut self,
        parts: Vec<Part<'a, B>>,
        has_value: Vec<bool>,
        compute_time: Duration,
        ended: Timestamp,
    ) {
        let (flight, times) = (self.flight, CallTimes::computed(compute_time));
        let to_encode = parts.iter().zip(&has_value).filter(|&(_, &has_value)| has_value);
        let encode = |(part, _): (&Part<'_, B>, _)| {
            let step = Step::Encode(compute_time, ended);
            Some((part.place, StepOf::new(&part.leading()?.call, flight, step)))
        };
        let steps = to_encode.filter_map(encode).collect();
        let mut encoded = self.steps.perform_all(steps).await.into_iter();
        let (mut storing, mut concluding) = (Vec::with_capacity(parts.len()), Vec::new());
        for (Part { place, role }, has_value) in parts.into_iter().zip(has_value) {
            let leading = match role {
                Role::Lead { leading, .. } => leading,
                Role::Uncoordinated(call) => {
                    within(flight, M::BLOCKS, || call.emit(CallOutcome::Miss, times));
                    continue;
                }
                Role::Bypass => continue,
            };
            if !has_value {
                let Leading { lead, reason, call, started, .. } = &leading;
                let may_delete = replaces_value(reason, lead) && {
                    let (permission, steps) = (lead.begin_store(), self.of(place));
                    may_replace::<M, B>(call, permission, *started, flight, &steps).await
                };
                let end = leave_out::<M, B>(leading, compute_time, may_delete);
                part_of_flights::<M, _>(flight, end).await;
                continue;
            }
            let Leading { lease, mut lead, reason, call, started, .. } = leading;
            let encoded = encoded.next().map(|(_, result)| result.of(&call));
            let Some(StepResult::Encoded(encoded)) = encoded else {
                unreachable!("each element that has a value was encoded");
            };
            match encoded {
                Ok(record) => {
                    let replaces = replaces_value(&reason, &lead);
                    let lead = lead.computed(Outcome::computed(record.clone()));
                    let ttl_left = remaining_ttl::<B>(record.fresh_until(), ended);
                    let record = Some(record);
                    storing.push(Storing {
                        place,
                        lease,
                        lead,
                        reason,
                        replaces,
                        call,
                        started,
                        record,
                        ttl_left,
                    });
                }
                Err(no_record) => {
                    match no_record {
                        NoRecord::Failure(Some(outcome)) => {
                            self.complete_failed(place, &call, &mut lead, &outcome).await;
                        }
                        NoRecord::Value if replaces_value(&reason, &lead) => {
                            let (permission, steps) = (lead.begin_store(), self.of(place));
                            let may_delete =
                                may_replace::<M, B>(&call, permission, started, flight, &steps)
                                    .await;
                            let end = call.complete_with_deletion::<M>(&mut lead, may_delete);
                            part_of_flights::<M, _>(flight, end).await;
                        }
                        NoRecord::Value | NoRecord::Failure(None) => {
                            lead.fail(false, || Outcome::NotShareable);
                            call.read_absent();
                        }
                    }
                    part_of_flights::<M, _>(flight, release_lease::<M, B>(&call, lease)).await;
                    concluding.push(conclude(place, &call, flight, times, reason));
                }
            }
        }
        self.store::<M>(&mut storing).await;
        for mut element in storing {
            part_of_flights::<M, _>(flight, element.complete::<M>()).await;
            let Storing { place, reason, call, ttl_left, .. } = element;
            let times = CallTimes { ttl_left, ..times };
            concluding.push(conclude(place, &call, flight, times, reason));
        }
        self.steps.perform_all(concluding).await;
    }

    /// Completes the flight of an element whose run has failed.
    async fn complete_failed(
        &mut self,
        place: usize,
        call: &UntypedCall<'a, B>,
        lead: &mut Lead<'a, Record<B::Stored>>,
        outcome: &Outcome<Record<B::Stored>>,
    ) {
        if call.may_cache_error() && lead.begin_error() {
            let ttl = match outcome.error() {
                Some(error) => {
                    let step = Step::ErrorTtl(error.clone());
                    match self.of(place).perform(call, self.flight, step).await {
                        StepResult::ErrorTtl(ttl) => ttl,
                        _ => unreachable!("the step is one of errors"),
                    }
                }
                None => Duration::ZERO,
            };
            call.complete_with_error(lead, outcome, ttl);
        } else {
            lead.fail(true, || outcome.clone());
        }
        call.read_absent();
    }

    /// Ends the flights of a run that has failed. It is no error if there is a value past its ttl for each element.
    async fn fail<M: Io>(
        &mut self,
        parts: Vec<Part<'a, B>>,
        ran: Ran,
        began: Timestamp,
        ended: Timestamp,
    ) -> Result<(), Failed> {
        let has_stale_value = |part: &Part<'_, B>| match part.leading().map(|lead| &lead.reason) {
            Some(ComputeReason::Expired(stale)) => ended < stale.end,
            _ => false,
        };
        let are_all_stale = parts.iter().all(has_stale_value);
        let compute_time = ended.saturating_since(began);
        let times = CallTimes::computed(compute_time);
        let mut unpaired = unpaired(&ran);
        let outcome = Self::failure(&parts, ran, compute_time);
        for Part { place, role } in parts {
            let leading = match role {
                Role::Lead { leading, .. } => leading,
                Role::Uncoordinated(call) => {
                    unpaired.take().into_iter().for_each(|error| call.count_error(&error));
                    within(self.flight, M::BLOCKS, || call.emit(CallOutcome::Miss, times));
                    continue;
                }
                Role::Bypass => continue,
            };
            let Leading { lease, mut lead, reason, call, .. } = leading;
            self.complete_failed(place, &call, &mut lead, &outcome).await;
            let end = async {
                release_lease::<M, B>(&call, lease).await;
                unpaired.take().into_iter().for_each(|error| call.count_error(&error));
                match reason {
                    ComputeReason::Expired(stale) if are_all_stale => {
                        call.record_failed_refresh(None);
                        call.serve_stale(&stale);
                    }
                    ComputeReason::Miss(_) => call.emit(CallOutcome::Miss, times),
                    reason => call.conclude_refresh(false, times, &reason, None),
                }
            };
            part_of_flights::<M, _>(self.flight, end).await;
        }
        if are_all_stale { Ok(()) } else { Err(Failed) }
    }

    /// Writes the records of elements whose flights permit it.
    async fn store<M: Io>(&mut self, storing: &mut [Storing<'a, B>]) {
        let (mut places, mut entries) = (Vec::new(), Vec::new());
        // Not shared references: the future is `Send` although a lease is not `Sync`.
        for (place, element) in storing.iter_mut().enumerate() {
            let call = &element.call;
            let (flight, steps) = (self.flight, self.of(element.place));
            let may_store = call.can_store() && {
                let permission = element.lead.begin_store();
                may_replace::<M, B>(call, permission, element.started, flight, &steps).await
            };
            let Some(record) = element.record.take() else { continue };
            if !may_store {
                element.set_stored(false);
                drop_quietly(record);
            } else if element.call.has_timed_out() {
                let is_stored = element.call.write_offline(record);
                element.set_stored(is_stored);
            } else {
                places.push(place);
                entries.push((element.call.key, record));
            }
        }
        if entries.is_empty() {
            return;
        }
        let write = self.engine.write_many::<M>(entries);
        let results = part_of_flights::<M, _>(self.flight, write).await;
        for (place, result) in places.into_iter().zip(results) {
            let element = &mut storing[place];
            let is_refused = element.replaces && is_refused(&result);
            let is_stored = element.call.record_write(result);
            element.set_stored(is_stored);
            if is_refused {
                part_of_flights::<M, _>(self.flight, element.call.delete_old::<M>()).await;
            }
        }
    }
}

/// Returns the step that concludes the call of an element that the function has returned an output for.
fn conclude<B: Backend>(
    place: usize,
    call: &UntypedCall<'_, B>,
    flight: Option<FlightId>,
    times: CallTimes,
    reason: ComputeReason,
) -> (usize, StepOf<B::Stored>) {
    (place, StepOf::new(call, flight, Step::Conclude(times, reason)))
}

/// Returns the span of a run for these elements, a disabled one if it is not logged.
#[inline]
fn run_span<B: Backend>(parts: &[Part<'_, B>]) -> Span {
    let span = if log::is_enabled() { new_run_span(parts) } else { None };
    span.unwrap_or_else(Span::none)
}

#[cold]
fn new_run_span<B: Backend>(parts: &[Part<'_, B>]) -> Option<Span> {
    let call = parts.iter().find_map(Part::call).filter(|call| !call.options().is_quiet)?;
    let mut reasons = parts.iter().filter_map(|part| match &part.role {
        Role::Lead { leading, .. } => Some(leading.reason.as_str()),
        Role::Uncoordinated(_) => Some("uncoordinated"),
        Role::Bypass => None,
    });
    let first = reasons.next()?;
    let reason = if reasons.all(|reason| reason == first) { first } else { "mixed" };
    Some(log::batch_span(call.key.prefix(), reason, parts.len()))
}

/// Returns the error of an output that cannot be assigned to the elements, to be counted and logged once.
fn unpaired(ran: &Ran) -> Option<Error> {
    let Ran::Unpaired { wanted, found } = ran else { return None };
    let message = "the function returned a `Vec` whose length is not that of its argument, so nothing of it is cached";
    let lengths = format!("{found} values for {wanted} elements");
    Some(Error::new(ErrorKind::Configuration, message).with_source(lengths))
}

/// Ends the flight of an element that the function has left out. There is no such value: if it `may_delete` one past its ttl, that
/// is deleted.
async fn leave_out<M: Io, B: Backend>(
    leading: Leading<'_, B>,
    compute_time: Duration,
    may_delete: bool,
) {
    let Leading { lease, lead, reason, call, .. } = leading;
    let mut lead = lead.computed(Outcome::NotShareable);
    if may_delete {
        call.delete_old::<M>().await;
    }
    while lead.complete() == Completion::MustDelete {
        call.ok_or_count(call.engine.delete::<M>(call.key).await);
    }
    release_lease::<M, B>(&call, lease).await;
    call.end_cached_error();
    match reason {
        ComputeReason::Miss(_) => call.emit(CallOutcome::Miss, CallTimes::computed(compute_time)),
        // Not a failure: the element is not there any more.
        reason => call.conclude_refresh(true, CallTimes::computed(compute_time), &reason, None),
    }
}

/// Completes the flight of an element that was found after the batch has become its leader.
pub(super) async fn complete_found<M: Io, B: Backend>(
    leading: Leading<'_, B>,
    value: QuietDrop<Record<B::Stored>>,
) {
    let Leading { lease, lead, call, .. } = leading;
    call.end_refresh();
    drop(lead.computed(Outcome::Computed { value, is_stored: true }));
    release_lease::<M, B>(&call, lease).await;
}
