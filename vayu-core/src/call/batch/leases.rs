//! The leases of the elements of a batch, where processes share the entries.

use std::mem;

use crate::backend::{Backend, Lease};
use crate::call::ComputeReason;
use crate::call::batch::runner::{Failed, Part, Role, Runner};
use crate::call::steps::part_of_flights;
use crate::io::Io;

impl<'a, B: Backend> Runner<'a, B> {
    /// Acquires the leases of elements, without waiting. Those whose lease another process holds are removed: their
    /// value past its ttl is returned, or else they are waited for after all others.
    pub(super) async fn acquire_leases<M: Io>(&mut self, parts: &mut Vec<Part<'a, B>>) {
        part_of_flights::<M, _>(self.flight, self.acquire_part_of_flights::<M>(parts)).await;
    }

    /// [`acquire_leases`](Self::acquire_leases), as part of the flights.
    async fn acquire_part_of_flights<M: Io>(&mut self, parts: &mut Vec<Part<'a, B>>) {
        let backend = self.engine.backend();
        if backend.is_in_process() || backend.capabilities().leases.is_none() {
            return;
        }
        let mut acquired = Vec::with_capacity(parts.len());
        for part in mem::take(parts) {
            let place = part.place;
            let Role::Lead { mut leading, mut recheck } = part.role else {
                acquired.push(part);
                continue;
            };
            let mut held = None;
            if !matches!(leading.reason, ComputeReason::Forced) && !leading.call.has_timed_out() {
                match leading.try_acquire_lease::<M>().await {
                    Lease::Acquired(lease) => {
                        leading.lease = Some(lease);
                        recheck = true;
                    }
                    Lease::NotRequired => {}
                    lease => held = Some(lease.into_watch()),
                }
            }
            let Some(watch) = held else {
                acquired.push(Part { place, role: Role::Lead { leading, recheck } });
                continue;
            };
            match mem::replace(&mut leading.reason, ComputeReason::Miss(None)) {
                ComputeReason::Expired(stale) => {
                    leading.call.serve_stale(&stale);
                }
                // The other process refreshes it.
                ComputeReason::Background => {}
                reason => {
                    leading.reason = reason;
                    self.held.push(Part { place, role: Role::Lead { leading, recheck: true } });
                    self.watches.push(watch);
                }
            }
        }
        *parts = acquired;
    }

    /// Waits for the processes that hold leases of elements, up to the deadline. Returns the elements that the function
    /// is to run for, as soon as there are any.
    ///
    /// # Errors
    ///
    /// Those of [`recheck`](Self::recheck).
    pub(super) async fn wait_for_leases<M: Io>(&mut self) -> Result<Vec<Part<'a, B>>, Failed> {
        let mut pauses = self.engine.lease_pauses();
        loop {
            let is_watched = self.watches.iter().all(Option::is_some);
            let now = self.engine.now();
            let due =
                *self.all_due.get_or_insert_with(|| now.saturating_add(pauses.next(is_watched)));
            let pause = due.saturating_since(now);
            let (watches, deadline) = (&mut self.watches, &mut self.deadline);
            let waiting = self.engine.pause_for::<M>(pause, watches, deadline);
            let is_over = !part_of_flights::<M, _>(self.flight, waiting).await;
            // Also at the deadline: a read is cheaper than a computation.
            let is_early = self.engine.now() < due;
            let mut parts = self.take_released(is_watched && is_early && !is_over);
            if self.held.is_empty() {
                self.all_due = None;
            }
            self.recheck::<M>(&mut parts).await?;
            for part in &mut parts {
                if let Role::Lead { leading, recheck } = &mut part.role {
                    *recheck = true;
                    if is_over {
                        leading.lead.end_lease();
                        *recheck = false;
                    }
                }
            }
            if !is_over {
                self.acquire_leases::<M>(&mut parts).await;
            }
            if !parts.is_empty() || self.held.is_empty() {
                return Ok(parts);
            }
        }
    }

    /// Takes the elements whose lease may have been released: those whose watch is ready, if there are any and
    /// `is_watched`, or else all.
    fn take_released(&mut self, is_watched: bool) -> Vec<Part<'a, B>> {
        let (held, watches) = (mem::take(&mut self.held), mem::take(&mut self.watches));
        if !is_watched || watches.iter().all(Option::is_some) {
            return held;
        }
        let mut released = Vec::new();
        for (part, watch) in held.into_iter().zip(watches) {
            match watch {
                None => released.push(part),
                watch => {
                    self.held.push(part);
                    self.watches.push(watch);
                }
            }
        }
        released
    }
}
