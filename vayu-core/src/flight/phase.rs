//! How far a flight is.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// How far a flight is. A leader begins to store without the lock of the table, so whoever would have
/// its flight end before asks for that, too, and only one of them is granted it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Computing,
    Storing,
    /// Invalidated while it was being stored: what was stored must not stay.
    Outdated,
    /// It has left the table before it began to store.
    Dismissed,
    /// Its leader is gone without a value. One of those who wait takes the lead.
    Vacant,
    /// It has left the table while it was vacant. Those who wait join again.
    Deserted,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Computing,
        Self::Storing,
        Self::Outdated,
        Self::Dismissed,
        Self::Vacant,
        Self::Deserted,
    ];
}

/// The phase of one flight.
#[derive(Debug)]
pub(super) struct AtomicPhase(AtomicU64);

impl AtomicPhase {
    pub(super) fn new(phase: Phase) -> Self {
        Self(AtomicU64::new(phase as u64))
    }

    pub(super) fn get(&self) -> Phase {
        let phase = self.0.load(Ordering::Acquire);
        Phase::ALL.into_iter().find(|&one| one as u64 == phase).expect("it was a phase")
    }

    /// Only for whoever holds the lock of the table, and not while the flight computes.
    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u64, Ordering::Release);
    }

    /// The leader is about to store. Whether it may: not if its flight was dismissed.
    pub(super) fn begin_store(&self) -> bool {
        self.change(Phase::Computing, Phase::Storing)
    }

    /// Keeps the leader from storing. Whether that could be done: not if it has begun to.
    pub(super) fn dismiss(&self) -> bool {
        self.change(Phase::Computing, Phase::Dismissed)
            || self.change(Phase::Vacant, Phase::Deserted)
    }

    /// The leader is gone. Whether another one may take its place: not if the flight has left the
    /// table, or its value was being stored.
    pub(super) fn vacate(&self) -> bool {
        self.change(Phase::Computing, Phase::Vacant)
    }

    /// Whether the lead was vacant, and is not any more.
    pub(super) fn take_lead(&self) -> bool {
        self.change(Phase::Vacant, Phase::Computing)
    }

    fn change(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u64, to as u64);
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
