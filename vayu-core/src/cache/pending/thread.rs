//! Deliveries by a thread.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::delivery::{Delivery, DeliveryKind};
use super::{Claim, FIRST_PAUSE};
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
