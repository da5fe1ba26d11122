//! The flights of the elements of a batch: joining them without waiting, and waiting for those of other callers.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::batch::lookup::Missed;
use crate::call::batch::{BatchBody, Part, Role, Runner, Unusable};
use crate::call::driver::{Joined, after_wait, try_lead_refresh};
use crate::call::{CachedFn, Call, ComputeReason, FnOutput};
use crate::flight::{Join, Ticket, Turn};
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
        let joined = loop {
            let flight = waited.ticket.flight();
            let Some(waiting) = M::begin_wait(flight.id()) else {
                break Joined::Uncoordinated(flight.id());
            };
            let deadline = self.engine.begin(&mut self.deadline);
            let turn = M::wait(waited.ticket.turn(deadline, Duration::MAX)).await;
            drop(waiting);
            self.is_over |= matches!(turn, Turn::TimedOut);
            if let Some(output) = self.shared_failure(&waited, &turn) {
                return Err(Unusable::Failed(output));
            }
            let next = match after_wait(&waited.call, flight, waited.outdated, turn) {
                Ok(joined) => break joined,
                Err(next) => next,
            };
            match next.unwrap_or_else(|| waited.call.join(None)) {
                Join::Lead { lead, recheck } => break Joined::Lead { lead, recheck },
                Join::Wait { ticket, outdated } => {
                    (waited.ticket, waited.outdated) = (ticket, outdated);
                }
            }
        };
        let Pending { index, call, reason, ticket, .. } = waited;
        drop(ticket);
        self.end_wait(index, call, reason, joined, &mut parts);
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
            let joined = match pending.ticket.try_turn() {
                Some(turn) => {
                    if let Some(output) = self.shared_failure(&pending, &turn) {
                        return Err(Unusable::Failed(output));
                    }
                    after_wait(&pending.call, flight, pending.outdated, turn)
                }
                None if M::begin_wait(flight.id()).is_none() => {
                    Ok(Joined::Uncoordinated(flight.id()))
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
            match joined {
                Ok(joined) => self.end_wait(index, call, reason, joined, parts),
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
        joined: Joined<'a, B, F>,
        parts: &mut Vec<Part<'a, B, F>>,
    ) {
        match joined {
            Joined::Output(output) => self.outputs[index] = Some(output),
            Joined::Lead { lead, recheck } => {
                parts.push(Part::lead(index, call, lead, recheck, reason));
            }
            Joined::Uncoordinated(_) | Joined::Hedge(_) => {
                parts.push(Part { index, role: Role::Uncoordinated(call) });
            }
        }
    }
}
