//! The flights of the elements of a batch: joining them without waiting, and waiting for those of other callers.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::ComputeReason;
use crate::call::batch::resume::Missed;
use crate::call::batch::runner::{Failed, Part, Pending, Role, Runner};
use crate::call::driver::{Joined, WaitEnd, after_unshared, after_wait, try_lead_refresh};
use crate::call::steps::{Step, Steps};
use crate::call::typed::UntypedCall;
use crate::flight::{Join, Turn};
use crate::io::Io;
use crate::record::Record;

impl<'a, B: Backend> Runner<'a, B> {
    /// Joins the flights of all elements, without waiting. Those that the batch leads are added to `parts`.
    pub(super) async fn join(&mut self, missed: Vec<Missed<'a, B>>, parts: &mut Vec<Part<'a, B>>) {
        for Missed { place, call, reason } in missed {
            let (join, reason) = match reason {
                ComputeReason::Miss(before) => (call.join(before), ComputeReason::Miss(None)),
                ComputeReason::Expired(stale) => {
                    match try_lead_refresh(&call, &self.of(place)).await {
                        Some(lead) => {
                            let reason = ComputeReason::Expired(stale);
                            parts.push(Part::lead(place, call, lead, true, reason));
                        }
                        None => call.serve_stale(&stale),
                    }
                    continue;
                }
                reason => (call.join(None), reason),
            };
            self.joined(place, call, reason, join, parts);
        }
    }

    fn joined(
        &mut self,
        place: usize,
        call: UntypedCall<'a, B>,
        reason: ComputeReason,
        join: Join<'a, Record<B::Stored>>,
        parts: &mut Vec<Part<'a, B>>,
    ) {
        match join {
            Join::Lead { lead, recheck } => {
                parts.push(Part::lead(place, call, lead, recheck, reason));
            }
            Join::Wait { ticket, outdated } => {
                self.pending.push_back(Pending { place, call, reason, ticket, outdated });
            }
        }
    }

    /// Waits for one flight of another caller. Returns the elements that the function is to run for: that of the flight
    /// if the batch has to compute it, and then all others that it can lead without waiting.
    ///
    /// # Errors
    ///
    /// That of another run that has failed, if that of this batch would be the same run.
    pub(super) async fn wait<M: Io>(
        &mut self,
        mut waited: Pending<'a, B>,
    ) -> Result<Vec<Part<'a, B>>, Failed> {
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
            let next = match self.end_wait(&waited, turn).await? {
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
        let Pending { place, call, reason, ticket, .. } = waited;
        drop(ticket);
        parts.extend(part_of(place, call, reason, joined));
        if !parts.is_empty() {
            self.collect::<M>(&mut parts).await?;
        }
        Ok(parts)
    }

    /// Adds all elements to `parts` that the function can be run for, without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    async fn collect<M: Io>(&mut self, parts: &mut Vec<Part<'a, B>>) -> Result<(), Failed> {
        for _ in 0..self.pending.len() {
            let Some(pending) = self.pending.pop_front() else { break };
            let flight = pending.ticket.flight();
            let ended = match pending.ticket.try_turn() {
                Some(turn) => self.end_wait(&pending, turn).await?,
                None if M::begin_wait(flight.id()).is_none() => {
                    Ok(Joined::Uncoordinated(flight.id()))
                }
                None if self.is_over => self.end_wait(&pending, Turn::TimedOut).await?,
                None => {
                    self.pending.push_back(pending);
                    continue;
                }
            };
            let Pending { place, call, reason, ticket, .. } = pending;
            drop(ticket);
            match ended {
                Ok(joined) => parts.extend(part_of(place, call, reason, joined)),
                Err(next) => {
                    let join = next.unwrap_or_else(|| call.join(None));
                    self.joined(place, call, reason, join, parts);
                }
            }
        }
        Ok(())
    }

    /// Ends the wait for a flight, see [`after_wait`]. If the element joins again, returns the flight that it has joined, if
    /// there is one.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    async fn end_wait(
        &mut self,
        waited: &Pending<'a, B>,
        turn: Turn<'a, '_, Record<B::Stored>>,
    ) -> Result<WaitResult<'a, B>, Failed> {
        let Pending { place, call, ticket, outdated, .. } = waited;
        let (flight, steps) = (ticket.flight(), self.of(*place));
        self.shared_failure(waited, &turn, &steps).await?;
        Ok(match after_wait(call, flight, *outdated, turn) {
            WaitEnd::Joined(joined) => Ok(joined),
            WaitEnd::Again(next) => Err(next),
            WaitEnd::Shared => {
                let is_shared = steps.is(call, None, Step::Share(flight.clone())).await;
                Ok(if is_shared { Joined::Found } else { after_unshared(call, flight) })
            }
        })
    }
}

/// The end of a wait, or a flight to join, which may have been joined already.
type WaitResult<'a, B> =
    Result<Joined<'a, <B as Backend>::Stored>, Option<Join<'a, Record<<B as Backend>::Stored>>>>;

/// Returns the part of an element whose wait has ended, unless it was found.
fn part_of<'a, B: Backend>(
    place: usize,
    call: UntypedCall<'a, B>,
    reason: ComputeReason,
    joined: Joined<'a, B::Stored>,
) -> Option<Part<'a, B>> {
    match joined {
        Joined::Found => None,
        Joined::Lead { lead, recheck } => Some(Part::lead(place, call, lead, recheck, reason)),
        Joined::Uncoordinated(_) | Joined::Hedge(_) => {
            Some(Part { place, role: Role::Uncoordinated(call) })
        }
    }
}
