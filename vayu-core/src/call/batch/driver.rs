//! The course of a batch after its lookup.

use std::mem;

use crate::backend::Backend;
use crate::call::ComputeReason;
use crate::call::batch::error::end_refreshes;
use crate::call::batch::resume::{Resumed, read_again, resume};
use crate::call::batch::run::complete_found;
use crate::call::batch::runner::{Failed, Part, Role, Runner};
use crate::call::batch::steps::Element;
use crate::call::leading::Leading;
use crate::call::lookup::Rest;
use crate::call::steps::part_of_flights;
use crate::call::steps::{Driver, ResultOf, Step, StepOf, StepResult};
use crate::call::task::Start;
use crate::call::typed::UntypedCall;
use crate::flight::BatchRun;
use crate::io::Io;

impl<'a, B: Backend> Runner<'a, B> {
    /// Finds or computes all elements. `start` is awaited before the function runs for other callers, too.
    #[inline(never)]
    pub(super) fn compute<M: Io>(
        self,
        elements: &'a [Element<'a>],
        rests: Vec<Rest>,
        start: Option<Start>,
    ) -> Driver<'a, Result<(), Failed>> {
        Box::pin(self.compute_all::<M>(elements, rests, start))
    }

    async fn compute_all<M: Io>(
        mut self,
        elements: &'a [Element<'a>],
        rests: Vec<Rest>,
        mut start: Option<Start>,
    ) -> Result<(), Failed> {
        let (mut parts, mut missed) = (Vec::new(), Vec::new());
        for resumed in resume::<M, B>(self.engine, elements, rests, self.steps).await {
            match resumed {
                Resumed::Compute(element) => missed.push(element),
                Resumed::Bypass(place) => parts.push(Part { place, role: Role::Bypass }),
            }
        }
        self.cached_failure(&missed).await?;
        self.join(missed, &mut parts).await;
        self.lead::<M>(parts, &mut start).await?;
        while let Some(first) = self.pending.pop_front() {
            let parts = self.wait::<M>(first).await?;
            self.lead::<M>(parts, &mut start).await?;
        }
        Ok(())
    }

    /// Runs the function for elements that were served past their ttl. Each run counts its failure, and is not the reason for
    /// another one to be left out.
    pub(super) async fn refresh<M: Io>(mut self, parts: Vec<Part<'a, B>>) {
        self.is_refresh = true;
        // The failure is counted.
        let _ = self.lead::<M>(parts, &mut None).await;
    }

    /// Runs the function for these elements, and for those whose lease another process holds, after that process.
    async fn lead<M: Io>(
        &mut self,
        parts: Vec<Part<'a, B>>,
        start: &mut Option<Start>,
    ) -> Result<(), Failed> {
        if parts.is_empty() {
            return Ok(());
        }
        if parts.iter().all(|part| matches!(part.role, Role::Bypass)) {
            return self.run::<M>(parts).await;
        }
        let run = BatchRun::begin(parts.iter().filter_map(Part::leading).map(Leading::flight));
        let leads = parts.iter().any(|part| part.leading().is_some());
        if let Some(start) = start.take_if(|_| leads) {
            start.await;
        }
        self.flight = Some(run.id());
        let result = self.run_when_free::<M>(parts).await;
        self.flight = None;
        result
    }

    /// Runs the function for these elements, each once no other process holds its lease.
    async fn run_when_free<M: Io>(&mut self, mut parts: Vec<Part<'a, B>>) -> Result<(), Failed> {
        self.acquire_leases::<M>(&mut parts).await;
        loop {
            self.recheck::<M>(&mut parts).await?;
            self.run::<M>(parts).await?;
            if self.held.is_empty() {
                return Ok(());
            }
            parts = self.wait_for_leases::<M>().await?;
        }
    }

    /// Runs the function for these elements, in as many runs as the limit on their number asks for.
    async fn run<M: Io>(&mut self, mut parts: Vec<Part<'a, B>>) -> Result<(), Failed> {
        while !parts.is_empty() {
            let rest = parts.split_off(parts.len().min(self.at_most));
            let result = self.run_once::<M>(mem::replace(&mut parts, rest)).await;
            if result.is_err() && !self.is_refresh {
                end_refreshes(&parts);
                return result;
            }
        }
        Ok(())
    }

    /// Reads the elements again whose value may have been stored in the meantime, and removes those that were found.
    ///
    /// # Errors
    ///
    /// That of a run that has failed in the meantime, if its error is cached for one of these elements.
    pub(super) async fn recheck<M: Io>(
        &mut self,
        parts: &mut Vec<Part<'a, B>>,
    ) -> Result<(), Failed> {
        for part in &mut *parts {
            if let Role::Lead { leading, recheck } = &mut part.role {
                *recheck &=
                    !matches!(leading.reason, ComputeReason::Forced) && !leading.lead.is_refresh();
            }
        }
        let (places, calls): (Vec<usize>, Vec<&UntypedCall<'_, B>>) = parts
            .iter()
            .filter_map(|part| match &part.role {
                Role::Lead { leading, recheck: true } => Some((part.place, &leading.call)),
                _ => None,
            })
            .unzip();
        if !calls.is_empty() {
            let records = read_again::<M, B>(self.engine, &calls);
            let records = part_of_flights::<M, _>(self.flight, records).await;
            let read = places.into_iter().zip(&calls).zip(records);
            let serve = |((place, call), record): ((_, &&_), Option<_>)| {
                Some((place, StepOf::new(*call, self.flight, Step::ServeAll(record?))))
            };
            let served = self.steps.perform_all(read.filter_map(serve).collect()).await;
            self.complete_served::<M>(parts, served).await;
        }
        self.cached_failure_of_led(parts).await
    }

    /// Completes the flights of elements that were read again and found, and removes these. `served` has the places of elements that have
    /// a record, in their order.
    async fn complete_served<M: Io>(
        &mut self,
        parts: &mut Vec<Part<'a, B>>,
        served: Vec<(usize, ResultOf<B::Stored>)>,
    ) {
        let mut served = served.into_iter().peekable();
        for Part { place, role } in mem::replace(parts, Vec::with_capacity(parts.len())) {
            let Role::Lead { leading, recheck: true } = role else {
                parts.push(Part { place, role });
                continue;
            };
            if let Some((_, result)) = served.next_if(|(of, _)| *of == place)
                && let StepResult::Served(Some(value)) = result.of(&leading.call)
            {
                let completed = complete_found::<M, B>(leading, value);
                part_of_flights::<M, _>(self.flight, completed).await;
            } else {
                parts.push(Part { place, role: Role::Lead { leading, recheck: false } });
            }
        }
    }
}
