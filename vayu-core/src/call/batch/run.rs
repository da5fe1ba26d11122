//! One run of a batch function, and the end of the flights that it leads.

use std::time::Duration;

use tracing::{Instrument, Span};

use crate::backend::{Backend, LeaseGuard};
use crate::cache::Engine;
use crate::call::background_refresh::CountPanic;
use crate::call::batch::{BatchBody, Part, Role, Runner, Unusable};
use crate::call::leading::{Leading, release_lease};
use crate::call::read::read;
use crate::call::typed::{Frame, OutputOf};
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, remaining_ttl};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::error::{Error, ErrorKind};
use crate::flight::{Completion, Computed, Outcome, StorePermission};
use crate::io::Io;
use crate::log;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::drop_quietly;
use crate::record::Record;

/// An element whose value is being stored.
struct Storing<'a, B: Backend, F: FnOutput> {
    index: usize,
    output: F::Output,
    /// Dropped before the lead.
    lease: Option<LeaseGuard>,
    lead: Computed<'a, Record<B::Stored>>,
    reason: ComputeReason<F::Output>,
    call: Call<'a, B, F>,
    started: Timestamp,
    /// The ttl of the value, if it is stored.
    ttl_left: Option<Duration>,
}

impl<B: Backend, F: FnOutput> Storing<'_, B, F> {
    /// Sets whether a later call may find the value.
    fn set_stored(&mut self, is_stored: bool) {
        self.lead.set_stored(is_stored);
        if !is_stored {
            self.ttl_left = None;
        }
    }
}

impl<'a, B, F, D> Runner<'a, '_, B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    /// Runs the function once, stores the values and completes the flights.
    pub(super) async fn run_once<M: Io>(
        &mut self,
        mut parts: Vec<Part<'a, B, F>>,
    ) -> Result<(), Unusable<D::Output>> {
        // A set of the elements has this order, too.
        parts.sort_unstable_by_key(|part| part.index);
        let mut indices = Vec::with_capacity(parts.len());
        for part in &parts {
            indices.push(part.index);
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
        let result = match run_span(&parts) {
            None => self.body.run(indices).await,
            // A sync function runs when its future is created.
            Some(span) => {
                let body = &mut *self.body;
                Box::pin(async move { body.run(indices).await }.instrument(span)).await
            }
        };
        drop(panics);
        let ended = self.engine.now();
        match result {
            Ok(values) => {
                // The run took this long for all of them: the times of the elements add up to its own.
                let elements = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                let compute_time = ended.saturating_since(began) / elements;
                self.complete::<M>(parts, values, compute_time, ended).await;
                Ok(())
            }
            Err(unusable) => self.fail::<M>(parts, unusable, began, ended).await,
        }
    }

    /// Returns guards that count a panic of the function as a failed refresh of each element that is refreshed.
    fn count_panics(&self, parts: &[Part<'a, B, F>]) -> Vec<CountPanic<'a, B, F>> {
        let refreshed = parts.iter().filter_map(|part| match &part.role {
            Role::Lead { leading, .. } => {
                matches!(leading.reason, ComputeReason::Background).then_some(&leading.call)
            }
            Role::Uncoordinated(_) | Role::Bypass => None,
        });
        let guard = |call: &Call<'a, B, F>| {
            CountPanic::new(self.engine, call.function, call.key, call.stamp)
        };
        refreshed.map(guard).collect()
    }

    /// Stores the values of a run, and completes its flights.
    async fn complete<M: Io>(
        &mut self,
        parts: Vec<Part<'a, B, F>>,
        values: Vec<Option<F::Output>>,
        compute_time: Duration,
        ended: Timestamp,
    ) {
        let (mut storing, mut records) = (Vec::with_capacity(parts.len()), Vec::new());
        for (Part { index, role }, value) in parts.into_iter().zip(values) {
            let leading = match role {
                Role::Lead { leading, .. } => leading,
                Role::Uncoordinated(call) => {
                    call.emit(CallOutcome::Miss, CallTimes::computed(compute_time));
                    self.outputs[index] = value;
                    continue;
                }
                Role::Bypass => {
                    self.outputs[index] = value;
                    continue;
                }
            };
            let Some(output) = value else {
                leave_out::<M, B, F>(leading, compute_time).await;
                continue;
            };
            let Leading { lease, mut lead, reason, call, started, .. } = leading;
            let encoded = OutputOf { function: call.function, output: &output };
            let compact = CompactDuration::new(compute_time);
            let Some(record) = call.encode_or_count(&encoded, compact, ended) else {
                let frame = Frame::with_returned(call.function, output);
                call.complete_without_record(&mut lead, compute_time, &frame);
                let output = frame.into_returned();
                release_lease::<M, B, F>(&call, lease).await;
                let times = CallTimes::computed(compute_time);
                self.outputs[index] = output.map(|output| conclude(&call, output, times, reason));
                continue;
            };
            let lead = lead.computed(Outcome::computed(record.clone()));
            let ttl_left = remaining_ttl::<B>(record.fresh_until(), ended);
            records.push(record);
            storing.push(Storing { index, output, lease, lead, reason, call, started, ttl_left });
        }
        write::<M, B, F>(self.engine, &mut storing, records).await;
        for element in storing {
            let Storing { index, output, lease, mut lead, reason, call, mut ttl_left, .. } =
                element;
            while lead.complete() == Completion::MustDelete {
                ttl_left = None;
                lead.set_stored(false);
                call.ok_or_count(self.engine.delete::<M>(call.key).await);
            }
            release_lease::<M, B, F>(&call, lease).await;
            let times = CallTimes { ttl_left, ..CallTimes::computed(compute_time) };
            self.outputs[index] = Some(conclude(&call, output, times, reason));
        }
    }

    /// Ends the flights of a run that has failed. It is no error if there is a value past its ttl for each element.
    async fn fail<M: Io>(
        &mut self,
        parts: Vec<Part<'a, B, F>>,
        unusable: Unusable<D::Output>,
        began: Timestamp,
        ended: Timestamp,
    ) -> Result<(), Unusable<D::Output>> {
        let has_stale_value = |part: &Part<'_, B, F>| match &part.role {
            Role::Lead { leading, .. } => match &leading.reason {
                ComputeReason::Expired(stale) => ended < stale.end,
                _ => false,
            },
            Role::Uncoordinated(_) | Role::Bypass => false,
        };
        let are_all_stale = parts.iter().all(has_stale_value);
        let compute_time = ended.saturating_since(began);
        let mut is_counted = false;
        let outcome = Self::failure(&parts, &unusable, compute_time);
        for Part { index, role } in parts {
            let leading = match role {
                Role::Lead { leading, .. } => leading,
                Role::Uncoordinated(call) => {
                    count_unpaired(&call, &unusable, &mut is_counted);
                    call.emit(CallOutcome::Miss, CallTimes::computed(compute_time));
                    continue;
                }
                Role::Bypass => continue,
            };
            let Leading { lease, mut lead, reason, call, .. } = leading;
            call.complete_failed(&mut lead, &outcome, &Frame::new(call.function));
            release_lease::<M, B, F>(&call, lease).await;
            count_unpaired(&call, &unusable, &mut is_counted);
            match reason {
                ComputeReason::Expired(stale) if are_all_stale => {
                    call.record_failed_refresh(None);
                    self.outputs[index] = Some(call.serve_stale(*stale));
                }
                ComputeReason::Miss(_) => {
                    call.emit(CallOutcome::Miss, CallTimes::computed(compute_time));
                }
                reason => {
                    call.conclude_refresh(false, CallTimes::computed(compute_time), &reason, None);
                }
            }
        }
        if are_all_stale {
            drop_quietly(unusable);
            return Ok(());
        }
        Err(unusable)
    }
}

/// Returns the span of a run for these elements, if it is logged.
#[inline]
fn run_span<B: Backend, F: CachedFn<Stored = B::Stored>>(parts: &[Part<'_, B, F>]) -> Option<Span> {
    if log::is_enabled() { new_run_span(parts) } else { None }
}

#[cold]
fn new_run_span<B: Backend, F: CachedFn<Stored = B::Stored>>(
    parts: &[Part<'_, B, F>],
) -> Option<Span> {
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

/// Returns the output of an element for which the function has returned `new`: that, or the stale value if `new` is a failure. The
/// times are those of `new`.
fn conclude<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    new: F::Output,
    times: CallTimes,
    reason: ComputeReason<F::Output>,
) -> F::Output {
    let mut frame = Frame::with_returned(call.function, new);
    if let Some(stale) = call.conclude_run(times, reason, &frame) {
        frame.set_found(stale);
        return frame.take_output(true);
    }
    frame.take_output(false)
}

/// Counts and logs an output that cannot be assigned to the elements, once.
fn count_unpaired<B: Backend, F: CachedFn<Stored = B::Stored>, R>(
    call: &Call<'_, B, F>,
    unusable: &Unusable<R>,
    is_counted: &mut bool,
) {
    if let Unusable::Unpaired { wanted, found, .. } = unusable
        && !std::mem::replace(is_counted, true)
    {
        let message = "the function returned a `Vec` whose length is not that of its argument, so nothing of it is cached";
        let lengths = format!("{found} values for {wanted} elements");
        call.count_error(&Error::new(ErrorKind::Configuration, message).with_source(lengths));
    }
}

/// Writes the records of elements whose flights permit it.
async fn write<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    storing: &mut [Storing<'_, B, F>],
    records: Vec<Record<B::Stored>>,
) {
    let (mut places, mut entries) = (Vec::new(), Vec::new());
    // Not shared references: the future is `Send` although an output may not be `Sync`.
    for (place, (element, record)) in storing.iter_mut().zip(records).enumerate() {
        let may_store = element.call.can_store()
            && match element.lead.begin_store() {
                StorePermission::Granted => true,
                StorePermission::Refused => false,
                StorePermission::UnlessNewer => match read::<M, B, F>(&element.call).await {
                    Some(found) => {
                        let frame = Frame::new(element.call.function);
                        !element.call.is_newer(found, element.started, &frame)
                    }
                    None => true,
                },
            };
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
    let results = engine.write_many::<M>(entries).await;
    for (place, result) in places.into_iter().zip(results) {
        let is_stored = storing[place].call.record_write(result);
        storing[place].set_stored(is_stored);
    }
}

/// Ends the flight of an element that the function has left out. There is no such value: one past its ttl is deleted.
async fn leave_out<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: Leading<'_, B, F>,
    compute_time: Duration,
) {
    let Leading { lease, lead, reason, call, .. } = leading;
    let is_stored = !matches!(reason, ComputeReason::Miss(_));
    let mut lead = lead.computed(Outcome::NotShareable);
    if is_stored && lead.begin_store() == StorePermission::Granted {
        call.ok_or_count(call.engine.delete::<M>(call.key).await);
    }
    while lead.complete() == Completion::MustDelete {
        call.ok_or_count(call.engine.delete::<M>(call.key).await);
    }
    release_lease::<M, B, F>(&call, lease).await;
    call.end_cached_error();
    match reason {
        ComputeReason::Miss(_) => call.emit(CallOutcome::Miss, CallTimes::computed(compute_time)),
        // Not a failure: the element is not there any more.
        reason => call.conclude_refresh(true, CallTimes::computed(compute_time), &reason, None),
    }
}

/// Completes the flight of an element that was found after the batch has become its leader.
pub(super) async fn complete_found<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: Leading<'_, B, F>,
    record: Record<B::Stored>,
) {
    let Leading { lease, lead, call, .. } = leading;
    call.end_refresh();
    drop(lead.computed(Outcome::Computed { value: record.into(), is_stored: true }));
    release_lease::<M, B, F>(&call, lease).await;
}
