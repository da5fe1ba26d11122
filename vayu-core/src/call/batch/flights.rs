//! The flights of the elements of a batch: joining them without waiting, and waiting for those of other callers.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::call::batch::lookup::Missed;
use crate::call::batch::{BatchBody, Part, Role, Runner, Unusable};
use crate::call::driver::{self, Joined, WaitEnd, after_unshared, lead_refresh_unless_failed};
use crate::call::typed::Frame;
use crate::call::{CachedFn, Call, ComputeReason, FnOutput};
use crate::flight::{Flight, Join, Lead, Ticket, Turn};
use crate::io::Io;
use crate::record::Record;

/// An element that another caller computes.
pub(super) struct Pending<'a, B: Backend, F: FnOutput> {
    index: usize,
    pub(super) call: Call<'a, B, F>,
    pub(super) reason: ComputeReason<F::Output>,
    pub(super) ticket: Ticket<'a, Record<B::Stored>>,
    pub(super) outdated: bool,
}

impl<'a, B, F, D> Runner<'a, '_, B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    /// Joins the flights of all elements, without waiting. Those that the batch leads are added to `parts`.
    pub(super) fn join(&mut self, missed: Vec<Missed<'a, B, F>>, parts: &mut Vec<Part<'a, B, F>>) {
        for Missed { index, call, reason } in missed {
            match reason {
                ComputeReason::Miss(before) => {
                    let join = call.join(before);
                    self.joined(index, call, ComputeReason::Miss(None), join, parts);
                }
                ComputeReason::Expired(stale) => match try_lead_refresh(&call) {
                    Some(lead) => {
                        let reason = ComputeReason::Expired(stale);
                        parts.push(Part::lead(index, call, lead, true, reason));
                    }
                    None => self.outputs[index] = Some(call.serve_stale(*stale)),
                },
                reason => {
                    let join = call.join(None);
                    self.joined(index, call, reason, join, parts);
                }
            }
        }
    }

    fn joined(
        &mut self,
        index: usize,
        call: Call<'a, B, F>,
        reason: ComputeReason<F::Output>,
        join: Join<'a, Record<B::Stored>>,
        parts: &mut Vec<Part<'a, B, F>>,
    ) {
        match join {
            Join::Lead { lead, recheck } => {
                parts.push(Part::lead(index, call, lead, recheck, reason));
            }
            Join::Wait { ticket, outdated } => {
                self.pending.push_back(Pending { index, call, reason, ticket, outdated });
            }
        }
    }

    /// Waits for one flight of another caller. Returns the elements that the function is to run for: that of the flight
    /// if the batch has to compute it, and then all others that it can lead without waiting.
    ///
    /// # Errors
    ///
    /// The output of another run that has failed, if that of this batch would be the same run.
    pub(super) async fn wait<M: Io>(
        &mut self,
        mut waited: Pending<'a, B, F>,
    ) -> Result<Vec<Part<'a, B, F>>, Unusable<D::Output>> {
        let mut parts = Vec::new();
        let ended = loop {
            let flight = waited.ticket.flight();
            let Some(waiting) = M::begin_wait(flight.id()) else {
                break Ended::Joined(Joined::Uncoordinated(flight.id()));
            };
            let deadline = self.engine.begin(&mut self.deadline);
            let turn = M::wait(waited.ticket.turn(deadline, Duration::MAX)).await;
            drop(waiting);
            self.is_over |= matches!(turn, Turn::TimedOut);
            if let Some(output) = self.shared_failure(&waited, &turn) {
                return Err(Unusable::Failed(output));
            }
            let next = match after_wait(&waited.call, flight, waited.outdated, turn) {
                Ok(ended) => break ended,
                Err(next) => next,
            };
            match next.unwrap_or_else(|| waited.call.join(None)) {
                Join::Lead { lead, recheck } => {
                    break Ended::Joined(Joined::Lead { lead, recheck });
                }
                Join::Wait { ticket, outdated } => {
                    (waited.ticket, waited.outdated) = (ticket, outdated);
                }
            }
        };
        let Pending { index, call, reason, ticket, .. } = waited;
        drop(ticket);
        self.end_wait(index, call, reason, ended, &mut parts);
        if !parts.is_empty() {
            self.collect::<M>(&mut parts)?;
        }
        Ok(parts)
    }

    /// Adds all elements to `parts` that the function can be run for, without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    fn collect<M: Io>(
        &mut self,
        parts: &mut Vec<Part<'a, B, F>>,
    ) -> Result<(), Unusable<D::Output>> {
        for _ in 0..self.pending.len() {
            let Some(pending) = self.pending.pop_front() else { break };
            let flight = pending.ticket.flight();
            let ended = match pending.ticket.try_turn() {
                Some(turn) => {
                    if let Some(output) = self.shared_failure(&pending, &turn) {
                        return Err(Unusable::Failed(output));
                    }
                    after_wait(&pending.call, flight, pending.outdated, turn)
                }
                None if M::begin_wait(flight.id()).is_none() => {
                    Ok(Ended::Joined(Joined::Uncoordinated(flight.id())))
                }
                None if self.is_over => {
                    after_wait(&pending.call, flight, pending.outdated, Turn::TimedOut)
                }
                None => {
                    self.pending.push_back(pending);
                    continue;
                }
            };
            let Pending { index, call, reason, ticket, .. } = pending;
            drop(ticket);
            match ended {
                Ok(ended) => self.end_wait(index, call, reason, ended, parts),
                Err(next) => {
                    let join = next.unwrap_or_else(|| call.join(None));
                    self.joined(index, call, reason, join, parts);
                }
            }
        }
        Ok(())
    }

    /// Ends the wait for an element.
    fn end_wait(
        &mut self,
        index: usize,
        call: Call<'a, B, F>,
        reason: ComputeReason<F::Output>,
        ended: Ended<'a, B, F>,
        parts: &mut Vec<Part<'a, B, F>>,
    ) {
        match ended {
            Ended::Shared(output) => self.outputs[index] = output,
            Ended::Joined(Joined::Lead { lead, recheck }) => {
                parts.push(Part::lead(index, call, lead, recheck, reason));
            }
            Ended::Joined(_) => parts.push(Part { index, role: Role::Uncoordinated(call) }),
        }
    }
}

/// The end of the wait for an element.
enum Ended<'a, B: Backend, F: FnOutput> {
    /// The leader has computed this.
    Shared(Option<F::Output>),
    Joined(Joined<'a, B::Stored>),
}

/// The end of a wait, or a flight to join, which may have been joined already.
type WaitResult<'a, B, F> =
    Result<Ended<'a, B, F>, Option<Join<'a, Record<<B as Backend>::Stored>>>>;

/// Ends the wait for a flight, see [`driver::after_wait`]. If the element joins again, returns the flight that it has joined, if
/// there is one.
fn after_wait<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
    flight: &Arc<Flight<Record<B::Stored>>>,
    outdated: bool,
    turn: Turn<'a, '_, Record<B::Stored>>,
) -> WaitResult<'a, B, F> {
    match driver::after_wait(call, flight, outdated, turn) {
        WaitEnd::Joined(joined) => Ok(Ended::Joined(joined)),
        WaitEnd::Again(next) => Err(next),
        WaitEnd::Shared => {
            let mut frame = Frame::new(call.function);
            if call.share(flight, &mut frame) {
                return Ok(Ended::Shared(frame.into_found()));
            }
            Ok(Ended::Joined(after_unshared(call, flight)))
        }
    }
}

/// Leads the refresh of an element past its ttl, unless another caller does, the last attempt has failed recently, or an error is
/// cached.
fn try_lead_refresh<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
) -> Option<Lead<'a, Record<B::Stored>>> {
    lead_refresh_unless_failed(call, call.has_cached_error(&Frame::new(call.function)))
}
