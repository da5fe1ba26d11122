//! The phase of a flight.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// The phase of a flight. It changes under the lock of the table.
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
    /// The leader has failed, and a hedge is still running, which ends the flight.
    Hedged,
    /// The leader is gone without a value. One of the waiting callers takes the lead.
    Vacant,
    /// The flight has left the table while it had no leader. The waiting callers join again.
    Deserted,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Computing,
        Self::Storing,
        Self::Outdated,
        Self::Detached,
        Self::Hedged,
        Self::Vacant,
        Self::Deserted,
    ];
}

/// The phase of a flight that several callers have. They read it without the lock of the table.
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

    /// Sets the phase. Only under the lock of the table.
    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u64, Ordering::Release);
    }
}
