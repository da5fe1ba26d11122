//! The state of a batch whose elements were not all found.

use std::collections::VecDeque;

use crate::backend::{Backend, LeaseWatch};
use crate::cache::Engine;
use crate::call::ComputeReason;
use crate::call::batch::steps::{BatchSteps, ElementSteps};
use crate::call::leading::Leading;
use crate::call::typed::UntypedCall;
use crate::clock::Timestamp;
use crate::flight::{Deadline, FlightId, Lead, Ticket};
use crate::record::Record;

/// The function has failed, or its output has no values of elements. The output is with the frames.
pub(super) struct Failed;

/// The rest of a batch whose elements were not all found.
pub(super) struct Runner<'a, B: Backend> {
    pub(super) engine: &'a Engine<B>,
    pub(super) steps: &'a BatchSteps<B::Stored>,
    pub(super) at_most: usize,
    /// The time limit of all waits.
    pub(super) deadline: Deadline,
    /// `true` once the deadline has ended a wait.
    pub(super) is_over: bool,
    /// The elements that other callers compute.
    pub(super) pending: VecDeque<Pending<'a, B>>,
    /// The elements whose lease another process holds.
    pub(super) held: Vec<Part<'a, B>>,
    /// The watches of these leases, in the same order, where there are any.
    pub(super) watches: Vec<Option<LeaseWatch>>,
    /// When all of these leases are to be tried, whether or not their watches are ready.
    pub(super) all_due: Option<Timestamp>,
    /// The flight that stands for those that the batch leads.
    pub(super) flight: Option<FlightId>,
    /// The elements have old values, which the callers got.
    pub(super) is_refresh: bool,
}

/// An element that the function is to run for.
pub(super) struct Part<'a, B: Backend> {
    pub(super) place: usize,
    pub(super) role: Role<'a, B>,
}

/// The part that the run of the function has for other callers of an element.
pub(super) enum Role<'a, B: Backend> {
    /// The batch leads the flight. If `recheck`, a value may have been stored in the meantime.
    Lead { leading: Leading<'a, B>, recheck: bool },
    /// The batch must not wait for the flight of another caller.
    Uncoordinated(UntypedCall<'a, B>),
    /// The element has no key, or the cache is not used.
    Bypass,
}

/// An element that another caller computes.
pub(super) struct Pending<'a, B: Backend> {
    pub(super) place: usize,
    pub(super) call: UntypedCall<'a, B>,
    pub(super) reason: ComputeReason,
    pub(super) ticket: Ticket<'a, Record<B::Stored>>,
    pub(super) outdated: bool,
}

impl<'a, B: Backend> Part<'a, B> {
    pub(super) fn lead(
        place: usize,
        call: UntypedCall<'a, B>,
        lead: Lead<'a, Record<B::Stored>>,
        recheck: bool,
        reason: ComputeReason,
    ) -> Self {
        Self { place, role: Role::Lead { leading: Leading::new(call, lead, reason), recheck } }
    }

    /// Returns the call of the element, unless it bypasses the cache.
    pub(super) fn call(&self) -> Option<&UntypedCall<'a, B>> {
        match &self.role {
            Role::Lead { leading, .. } => Some(&leading.call),
            Role::Uncoordinated(call) => Some(call),
            Role::Bypass => None,
        }
    }

    /// Returns the lead of the flight, if the batch has it.
    pub(super) fn leading(&self) -> Option<&Leading<'a, B>> {
        match &self.role {
            Role::Lead { leading, .. } => Some(leading),
            Role::Uncoordinated(_) | Role::Bypass => None,
        }
    }
}

impl<'a, B: Backend> Runner<'a, B> {
    pub(super) fn new(
        engine: &'a Engine<B>,
        steps: &'a BatchSteps<B::Stored>,
        at_most: usize,
    ) -> Self {
        Self {
            engine,
            steps,
            at_most: at_most.max(1),
            deadline: Deadline::default(),
            is_over: false,
            pending: VecDeque::new(),
            held: Vec::new(),
            watches: Vec::new(),
            all_due: None,
            flight: None,
            is_refresh: false,
        }
    }

    /// Returns the steps of the element at this place.
    pub(super) fn of(&self, place: usize) -> ElementSteps<'a, B::Stored> {
        self.steps.of(place)
    }
}
