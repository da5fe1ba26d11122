//! Invalidations that have not reached the backend, and their delivery.
//!
//! A group is pending if its generation could not be bumped, or if the future of the caller was dropped in between,
//! until it is bumped. While it is:
//!
//! - A call of this process whose entry is in the group uses no generation that was fetched. It delivers the
//!   invalidation first; if that fails, it goes on as if the generation could not be read.
//! - A thread tries to deliver it again and again, with a backoff, for the other processes. It ends with the last
//!   pending group, or with the cache.
//!
//! An invalidation says nothing but that the entries of a group are outdated, so a group is pending once, for the last
//! of its invalidations. If too many groups are pending, all entries are invalidated in their place.
//!
//! One caller delivers a group at a time, and the others wait for it, up to [`LONGEST_WAIT`]. After a failure, an
//! invalidation is pending at once for the time of the backoff.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::backend::{self, Backend};
use crate::cache::{Engine, poll_backoff};
use crate::clock::{Clock, MonotonicClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Generations, Group};
use crate::io::{Io, Operation};
use crate::panic::catch_panic;
use crate::sync::IgnorePoison;

/// The groups whose invalidation has not reached the backend.
#[derive(Debug, Default)]
pub(super) struct PendingInvalidations {
    /// `true` if there are any.
    exist: AtomicBool,
    /// The number of invalidations that were begun, pending or not.
    begun: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<Group, Pending>,
    /// The number of the last invalidation of any group.
    last: u64,
    /// The number of failed deliveries since the last one that succeeded.
    failures: u32,
    /// The last failed delivery, unless one has succeeded since.
    failure: Option<Failure>,
    /// The process whose thread delivers.
    deliverer: Option<u32>,
}

/// A pending group.
#[derive(Debug, Default, Clone, Copy)]
struct Pending {
    /// The number of its last invalidation.
    number: u64,
    is_in_delivery: bool,
}

/// A failed delivery.
#[derive(Debug)]
struct Failure {
    at: Timestamp,
    kind: ErrorKind,
    /// The error with its causes.
    message: String,
    is_logged: bool,
}

/// The maximum number of pending groups. Past that, all entries are invalidated.
const MAX_PENDING: usize = 4096;

/// The first and the longest pause between two deliveries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest time that a call waits for another caller that delivers. Its thread may be that of this caller.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

impl PendingInvalidations {
    /// Returns whether there are any.
    #[inline]
    pub(super) fn exist(&self) -> bool {
        self.exist.load(Ordering::Acquire)
    }

    /// Returns whether a group is pending.
    #[inline]
    pub(super) fn contains(&self, group: Group) -> bool {
        self.number_of(group).is_some()
    }

    /// Returns the number of pending groups.
    pub(super) fn len(&self) -> usize {
        if self.exist() { self.state().groups.len() } else { 0 }
    }

    /// Counts an invalidation that begins, after the write for which it is.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the number of invalidations that were begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Adds a group, under a new number. Returns whether all entries are pending in the place of too many groups from now
    /// on.
    fn add(&self, group: Group) -> bool {
        let mut state = self.state();
        // All entries are pending: no group need be.
        let is_all = state.groups.contains_key(&Group::ALL);
        let is_full = state.groups.len() >= MAX_PENDING && !state.groups.contains_key(&group);
        let group = if is_all || is_full {
            state.groups.clear();
            Group::ALL
        } else {
            group
        };
        state.last += 1;
        let number = state.last;
        state.groups.entry(group).or_default().number = number;
        self.exist.store(true, Ordering::Release);
        is_full && !is_all
    }

    /// Removes a group, unless it was invalidated again.
    fn remove(&self, group: Group, number: u64) {
        let mut state = self.state();
        if state.groups.get(&group).is_some_and(|pending| pending.number == number) {
            state.groups.remove(&group);
            self.exist.store(!state.groups.is_empty(), Ordering::Release);
        }
    }

    /// Returns the number of the last invalidation of a pending group.
    pub(super) fn number_of(&self, group: Group) -> Option<u64> {
        if !self.exist() {
            return None;
        }
        self.state().groups.get(&group).map(|pending| pending.number)
    }

    /// Claims the delivery of a group for one caller.
    fn claim(&self, group: Group) -> Claim {
        let mut state = self.state();
        match state.groups.get_mut(&group) {
            None => Claim::NotPending,
            Some(pending) if pending.is_in_delivery => Claim::InDelivery(pending.number),
            Some(pending) => {
                pending.is_in_delivery = true;
                Claim::Claimed(pending.number)
            }
        }
    }

    /// Ends the delivery of a group.
    fn release(&self, group: Group) {
        if let Some(pending) = self.state().groups.get_mut(&group) {
            pending.is_in_delivery = false;
        }
    }

    fn all(&self) -> Vec<Group> {
        self.state().groups.keys().copied().collect()
    }

    /// Records the result of a delivery. An error that is not [temporary](may_succeed_later) is not recorded: no delivery
    /// waits for its end.
    fn record<T>(&self, result: &Result<T>, now: Timestamp) {
        // Before the lock is taken: the error of a backend may panic when it is formatted.
        let failure = match result {
            Ok(_) => None,
            Err(error) if may_succeed_later(error) => {
                let formatted = catch_panic("format error", || Ok(format!("{error:?}")));
                Some(Failure {
                    at: now,
                    kind: error.kind(),
                    message: formatted.unwrap_or_else(|_| "it cannot be formatted".to_owned()),
                    is_logged: error.is_logged_by_backend(),
                })
            }
            Err(_) => return,
        };
        let mut state = self.state();
        state.failures = if failure.is_some() { state.failures.saturating_add(1) } else { 0 };
        state.failure = failure;
    }

    /// Returns the error of the last delivery if it has failed so recently that the next one would fail, too.
    fn check_backoff(&self, now: Timestamp) -> Result<()> {
        let state = self.state();
        match &state.failure {
            Some(failure) if now.is_within(failure.at, state.pause()) => {
                let error = Error::new(failure.kind, failure.message.clone());
                Err(if failure.is_logged { error.logged_by_backend() } else { error })
            }
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }
}

impl State {
    /// Returns the pause before the next delivery.
    fn pause(&self) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
    }
}

/// The result of claiming the delivery of a group.
enum Claim {
    NotPending,
    /// Another caller delivers it.
    InDelivery(u64),
    /// It is for the caller to deliver, for this invalidation.
    Claimed(u64),
}

/// A group whose generation is being bumped. It is pending if that fails, or if this is dropped before it is done.
struct Delivery<'a, B: Backend> {
    engine: &'a Engine<B>,
    group: Group,
    /// The number of the pending invalidation that this delivers, too.
    number: Option<u64>,
    kind: DeliveryKind,
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeliveryKind {
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

    fn retry(engine: &'a Engine<B>, group: Group, number: u64, kind: DeliveryKind) -> Self {
        Self { engine, group, number: Some(number), kind, is_over: false }
    }

    /// Bumps the generation of the group.
    async fn perform<M: Io>(mut self, generations: &dyn Generations) -> Result<()> {
        let (shared, group) = (&self.engine.shared, self.group);
        shared.generations.invalidate(group);
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
                shared.generations.invalidate(group);
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
            self.engine.shared.generations.invalidate(self.group);
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

/// Whether a caller may wait for another one that delivers: not in a model checker, which has no time.
const CAN_WAIT: bool = !cfg!(any(vayu_loom, vayu_shuttle));

/// Returns whether a delivery that has failed with this error may succeed later. After a panic it is unknown whether
/// the generation was bumped.
fn may_succeed_later(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Backend | ErrorKind::Timeout | ErrorKind::Panic)
}

impl<B: Backend> Engine<B> {
    /// Bumps the generation of a group in the backend. If that fails, or the future is dropped, it is tried again later.
    /// After a failure, it is tried later without an attempt for the time of the backoff.
    pub(super) async fn bump_in_backend<M: Io>(
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
    pub(super) fn bump_later(&self, group: Group) {
        self.shared.pending.begin();
        self.add_pending(group, false);
    }

    /// Makes an invalidation of a group pending.
    fn add_pending(&self, group: Group, is_in_backoff: bool) {
        self.shared.pending.add(group);
        self.shared.generations.invalidate(group);
        self.start_deliveries(is_in_backoff);
    }

    /// Bumps the generation of a group if it is pending, or waits for another caller that does.
    pub(super) async fn deliver<M: Io>(
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
    pub(super) async fn deliver_within<M: Io>(&self, timeout: Duration) -> usize {
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
    async fn check_reachable<M: Io>(
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

/// Deliveries by a thread. A model checker has none: its calls deliver.
#[cfg(not(any(vayu_loom, vayu_shuttle)))]
mod thread {
    use std::sync::{Arc, Weak};
    use std::thread;
    use std::time::Duration;

    use super::{Claim, Delivery, DeliveryKind, FIRST_PAUSE};
    use crate::backend::Backend;
    use crate::cache::Engine;
    use crate::cache::engine::Inner;
    use crate::error::ErrorKind;
    use crate::io::{Blocking, run_blocking};
    use crate::platform::process_id;
    use crate::sync::block_on;

    impl<B: Backend> Engine<B> {
        /// Starts the thread that delivers, unless it runs. If there can be none, the next calls deliver.
        #[cold]
        pub(super) fn start_deliveries(&self, has_failed: bool) {
            let mut state = self.shared.pending.state();
            let process = process_id();
            if state.deliverer == Some(process) || state.groups.is_empty() {
                return;
            }
            let cache = Arc::downgrade(&self.shared);
            let pause = if has_failed { FIRST_PAUSE } else { Duration::ZERO };
            let run = move || deliver_all(&cache, pause);
            let spawned = thread::Builder::new().name("vayu-invalidate".to_owned()).spawn(run);
            if spawned.is_ok() {
                state.deliverer = Some(process);
            }
        }

        /// Delivers all that is pending, if the backend can be reached. Returns the pause after which to try again, or
        /// `None` at the end.
        fn deliver_pending(&self) -> Option<Duration> {
            let pending = &self.shared.pending;
            let generations = self.backend().capabilities().generations?;
            let groups = pending.all();
            let is_reachable = groups.first().is_some_and(|&group| {
                run_blocking(self.check_reachable::<Blocking>(generations, group)).is_ok()
            });
            for group in groups.into_iter().filter(|_| is_reachable) {
                // Perhaps a call has delivered it in the meantime, or does.
                let Claim::Claimed(number) = pending.claim(group) else { continue };
                let delivery = Delivery::retry(self, group, number, DeliveryKind::ClaimedRetry);
                let delivered = run_blocking(delivery.perform::<Blocking>(generations));
                if delivered.is_err_and(|error| error.kind() == ErrorKind::Timeout) {
                    break;
                }
            }
            let mut state = pending.state();
            if state.groups.is_empty() {
                state.deliverer = None;
                return None;
            }
            Some(state.pause())
        }
    }

    /// The thread. If it panics, another one is started by the next failure.
    struct Deliverer<'a, B: Backend>(&'a Weak<Inner<B>>);

    impl<B: Backend> Drop for Deliverer<'_, B> {
        fn drop(&mut self) {
            if thread::panicking()
                && let Some(shared) = self.0.upgrade()
            {
                shared.pending.state().deliverer = None;
            }
        }
    }

    fn deliver_all<B: Backend>(cache: &Weak<Inner<B>>, mut pause: Duration) {
        let _deliverer = Deliverer(cache);
        loop {
            if !pause.is_zero() {
                let Some(shared) = cache.upgrade() else { return };
                let clock = shared.backend().clock();
                drop(shared);
                block_on(clock.sleep(pause));
            }
            let Some(shared) = cache.upgrade() else { return };
            match Engine::new(shared).deliver_pending() {
                Some(next) => pause = next,
                None => return,
            }
        }
    }
}

#[cfg(any(vayu_loom, vayu_shuttle))]
impl<B: Backend> Engine<B> {
    fn start_deliveries(&self, _has_failed: bool) {
        let _ = self;
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests;
