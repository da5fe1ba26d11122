//! The phase of a flight, an atomic state machine.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// The phase of a flight.
///
/// A leader begins to store without the lock of the table. It and a caller that detaches its flight
/// compete by compare-and-swap, and one of them succeeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// The function runs.
    Computing,
    /// The value is being stored.
    Storing,
    /// The key was invalidated while the value was being stored: the value must be deleted.
    Outdated,
    /// The flight has left the table before its leader began to store.
    Detached,
    /// The leader is gone without a value. One of the waiting callers takes the lead.
    Vacant,
    /// The flight has left the table while it was vacant. The waiting callers join again.
    Deserted,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Computing,
        Self::Storing,
        Self::Outdated,
        Self::Detached,
        Self::Vacant,
        Self::Deserted,
    ];
}

/// The phase of one flight.
#[derive(Debug)]
pub(super) struct AtomicPhase(AtomicU64);

impl AtomicPhase {
    /// Creates a flight's phase.
    pub(super) fn new(phase: Phase) -> Self {
        Self(AtomicU64::new(phase as u64))
    }

    /// Returns the phase.
    pub(super) fn get(&self) -> Phase {
        let phase = self.0.load(Ordering::Acquire);
        Phase::ALL.into_iter().find(|&one| one as u64 == phase).expect("it was a phase")
    }

    /// Sets the phase. Only under the lock of the table, and not while the flight computes.
    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u64, Ordering::Release);
    }

    /// Begins to store. Returns `false` if the flight was detached.
    pub(super) fn begin_store(&self) -> bool {
        self.change(Phase::Computing, Phase::Storing)
    }

    /// Prevents the leader from storing. Returns `false` if it has begun to.
    pub(super) fn detach(&self) -> bool {
        self.change(Phase::Computing, Phase::Detached)
            || self.change(Phase::Vacant, Phase::Deserted)
    }

    /// Marks the lead as vacant. Returns `false` if the flight has left the table, or its value was
    /// being stored.
    pub(super) fn vacate(&self) -> bool {
        self.change(Phase::Computing, Phase::Vacant)
    }

    /// Takes a vacant lead. Returns `false` if it is not vacant.
    pub(super) fn take_lead(&self) -> bool {
        self.change(Phase::Vacant, Phase::Computing)
    }

    fn change(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u64, to as u64);
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
