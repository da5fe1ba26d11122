//! The delivery of a pending invalidation, by a call or by the [thread](super::thread).

use std::time::Duration;

use super::{Claim, LONGEST_WAIT, may_succeed_later};
use crate::backend::{self, Backend};
use crate::cache::{Engine, poll_backoff};
use crate::clock::{Clock, MonotonicClock};
use crate::error::Result;
use crate::generation::{Generations, Group};
use crate::io::{Io, Operation};

/// A group whose generation is being bumped. It is pending if that fails, or if this is dropped before it is done.
pub(super) struct Delivery<'a, B: Backend> {
    engine: &'a Engine<B>,
    group: Group,
    /// The number of the pending invalidation that this delivers, too.
    number: Option<u64>,
    kind: DeliveryKind,
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryKind {
    /// A new invalidation, which gets a number of its own if it fails.
    New,
    /// A retry of one that is pending.
    Retry,
    /// A retry, for which the group was claimed.
    ClaimedRetry,
}

impl<'a, B: Backend> Delivery<'a, B> {
    fn new(engine: &'a Engine<B>, group: Group) -> Self {
        let number = engine.shared.pending.number_of(group);
        Self { engine, group, number, kind: DeliveryKind::New, is_over: false }
    }

    pub(super) fn retry(
        engine: &'a Engine<B>,
        group: Group,
        number: u64,
        kind: DeliveryKind,
    ) -> Self {
        Self { engine, group, number: Some(number), kind, is_over: false }
    }

    /// Bumps the generation of the group.
    pub(super) async fn perform<M: Io>(mut self, generations: &dyn Generations) -> Result<()> {
        let (shared, group) = (&self.engine.shared, self.group);
        shared.generations.remove_fetched(group);
        let bumped = Operation::perform::<M>(
            "bump generation",
            || generations.bump(group),
            || generations.bump_async(group),
        )
        .await;
        shared.pending.record(&bumped, self.engine.now());
        match &bumped {
            Err(error) if may_succeed_later(error) => self.fail(true),
            _ => {
                shared.generations.remove_fetched(group);
                if let Some(number) = self.number {
                    shared.pending.remove(group, number);
                }
            }
        }
        self.is_over = true;
        bumped
    }

    fn fail(&self, is_in_backoff: bool) {
        if self.kind == DeliveryKind::New {
            self.engine.add_pending(self.group, is_in_backoff);
        } else {
            self.engine.shared.generations.remove_fetched(self.group);
            self.engine.start_deliveries(is_in_backoff);
        }
    }
}

impl<B: Backend> Drop for Delivery<'_, B> {
    fn drop(&mut self) {
        if self.kind == DeliveryKind::ClaimedRetry {
            self.engine.shared.pending.release(self.group);
        }
        if !self.is_over {
            self.fail(false);
        }
    }
}

/// `true` if a caller may wait for another one that delivers: not in a model checker, which has no time.
const CAN_WAIT: bool = !cfg!(any(vayu_loom, vayu_shuttle));

impl<B: Backend> Engine<B> {
    /// Bumps the generation of a group in the backend. If that fails, or the future is dropped, it is tried again later.
    /// After a failure, it is tried later without an attempt for the time of the backoff.
    pub(in crate::cache) async fn bump_in_backend<M: Io>(
        &self,
        generations: &dyn Generations,
        group: Group,
    ) -> Result<()> {
        let pending = &self.shared.pending;
        pending.begin();
        if pending.exist()
            && let Err(error) = pending.check_backoff(self.now())
        {
            self.add_pending(group, true);
            return Err(error);
        }
        Delivery::new(self, group).perform::<M>(generations).await
    }

    /// Invalidates a group without waiting: its generation is bumped by another thread, or by the next call that
    /// needs it.
    pub(in crate::cache) fn bump_later(&self, group: Group) {
        self.shared.pending.begin();
        self.add_pending(group, false);
    }

    /// Makes an invalidation of a group pending.
    fn add_pending(&self, group: Group, is_in_backoff: bool) {
        self.shared.pending.add(group);
        self.shared.generations.remove_fetched(group);
        self.start_deliveries(is_in_backoff);
    }

    /// Bumps the generation of a group if it is pending, or waits for another caller that does.
    pub(in crate::cache) async fn deliver<M: Io>(
        &self,
        generations: &dyn Generations,
        group: Group,
    ) -> Result<()> {
        let pending = &self.shared.pending;
        let mut waited = Duration::ZERO;
        let mut pauses = poll_backoff(backend::LONGEST_PAUSE);
        while pending.contains(group) {
            pending.check_backoff(self.now())?;
            let mut delivery = match pending.claim(group) {
                Claim::NotPending => break,
                Claim::Claimed(number) => {
                    Delivery::retry(self, group, number, DeliveryKind::ClaimedRetry)
                }
                Claim::InDelivery(_) if waited < LONGEST_WAIT && CAN_WAIT && M::MAY_WAIT => {
                    let pause = pauses.pause();
                    M::wait(MonotonicClock.sleep(pause)).await;
                    waited += pause;
                    continue;
                }
                Claim::InDelivery(number) => {
                    Delivery::retry(self, group, number, DeliveryKind::Retry)
                }
            };
            if let Err(error) = self.check_reachable::<M>(generations, group).await {
                delivery.is_over = true;
                return Err(error);
            }
            return delivery.perform::<M>(generations).await;
        }
        Ok(())
    }

    /// Delivers what is pending, until nothing is or this time is over. Returns the number of groups that are left.
    pub(in crate::cache) async fn deliver_within<M: Io>(&self, timeout: Duration) -> usize {
        let pending = &self.shared.pending;
        let Some(generations) = self.backend().capabilities().generations else {
            return pending.len();
        };
        let (clock, began) = (self.backend().clock(), self.now());
        loop {
            for group in pending.all() {
                // Its error is recorded, and that of the backoff is the error of an earlier delivery.
                if self.deliver::<M>(generations, group).await.is_err() {
                    break;
                }
            }
            let left = pending.len();
            let time = timeout.saturating_sub(self.now().saturating_since(began));
            if left == 0 || time.is_zero() || !M::MAY_WAIT {
                return left;
            }
            let pause = pending.state().pause();
            M::wait(clock.sleep(pause.min(time))).await;
        }
    }

    /// Reads the generation of a pending group before it is bumped, so that no bump is begun while the backend cannot be
    /// reached: after a timeout it is unknown whether it took effect.
    pub(super) async fn check_reachable<M: Io>(
        &self,
        generations: &dyn Generations,
        group: Group,
    ) -> Result<()> {
        let read = Operation::perform::<M>(
            "read generation",
            || generations.generation(group),
            || generations.generation_async(group),
        )
        .await;
        // That it can be read does not end the backoff.
        if read.is_err() {
            self.shared.pending.record(&read, self.now());
        }
        read.map(drop)
    }
}

#[cfg(any(vayu_loom, vayu_shuttle))]
impl<B: Backend> Engine<B> {
    pub(super) fn start_deliveries(&self, _has_failed: bool) {
        let _ = self;
    }
}
