//! The generations of groups as they are read from the backend, and what is used in their place if that fails.

use std::time::Duration;

use super::Fetched;
use crate::backend::Backend;
use crate::cache::Engine;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{ChangeCount, Generations, Group};
use crate::io::{Io, Operation};
use crate::panic::catch_panic;

/// A generation that was read, or the number that is used in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) generation: u64,
    /// The backend has not returned it.
    pub(super) is_offline: bool,
    /// The backend has not responded in time, or was not asked since it had not before.
    pub(super) has_timed_out: bool,
}

impl Read {
    /// The generation of a group that was never invalidated.
    const NEVER_BUMPED: Self = Self::online(0);

    /// Creates a generation that the backend has returned.
    const fn online(generation: u64) -> Self {
        Self { generation, is_offline: false, has_timed_out: false }
    }
}

/// The state from before generations were read.
#[derive(Clone, Copy)]
pub(super) struct Before {
    at: Timestamp,
    count: Option<ChangeCount>,
    removals: u64,
}

/// The time for which the fetched generation of a coarse group is valid if changes are not noticed.
const VALID_FOR: Duration = Duration::from_millis(75);

impl<B: Backend> Engine<B> {
    /// Returns the present state, before generations are read.
    pub(super) fn before(&self, generations: Option<&dyn Generations>) -> Before {
        // In this order, so that an invalidation after the count was loaded is noticed.
        let removals = self.shared.generations.removals();
        let count = generations.and_then(Generations::change_count);
        Before { at: self.now(), count, removals }
    }

    /// Returns a generation if it is one of this process, or was fetched and nothing has changed since. If
    /// changes are not noticed, that of a coarse group is valid for [`VALID_FOR`].
    pub(super) fn current_generation(
        &self,
        group: Group,
        is_coarse: bool,
        before: Before,
    ) -> Option<u64> {
        let cache = &self.shared.generations;
        if self.backend().capabilities().generations.is_none() {
            return Some(cache.local(group));
        }
        if self.shared.pending.contains(group) {
            return None;
        }
        let fetched = cache.fetched(group)?;
        let is_valid = match before.count {
            Some(ChangeCount { count, is_connected: true }) => fetched.count == Some(count),
            _ => {
                let age = before.at.saturating_since(fetched.at);
                is_coarse && before.at >= fetched.at && age < VALID_FOR
            }
        };
        is_valid.then_some(fetched.generation)
    }

    /// Reads a generation from the backend. After a timeout, the backend is not asked.
    pub(super) async fn fetch<M: Io>(&self, group: Group, has_timed_out: bool) -> Result<Read> {
        let Some(generations) = self.backend().capabilities().generations else {
            return Ok(Read::NEVER_BUMPED);
        };
        let delivered = if has_timed_out {
            Err(timed_out())
        } else {
            self.deliver::<M>(generations, group).await
        };
        let before = self.before(Some(generations));
        let fetched = match delivered {
            Ok(()) => {
                Operation::perform::<M>(
                    "read generation",
                    || generations.generation(group),
                    || generations.generation_async(group),
                )
                .await
            }
            Err(error) => Err(error),
        };
        self.store_fetched(group, before, fetched)
    }

    /// Caches a generation that was fetched, and returns it.
    ///
    /// If the fetch has failed and the backend has an offline part, this returns a generation for it instead:
    ///
    /// - While an invalidation of the group is pending: a generation of the offline part, another one for each invalidation.
    /// - If no change was noticed since a generation was fetched: that generation.
    /// - Otherwise: the generation of the offline part.
    ///
    /// # Errors
    ///
    /// That of the fetch, if the backend has no offline part or has panicked.
    fn store_fetched(&self, group: Group, before: Before, result: Result<u64>) -> Result<Read> {
        let cache = &self.shared.generations;
        let count = before.count.map(|it| it.count);
        match result {
            Ok(generation) => {
                let fetched = Fetched { generation, at: before.at, count };
                cache.insert(group, fetched, before.removals);
                Ok(Read::online(generation))
            }
            // A backend that has panicked may not know that its generations cannot be read.
            Err(error) if error.kind() == ErrorKind::Panic => Err(error),
            Err(error) => {
                let has_timed_out = error.kind() == ErrorKind::Timeout;
                let Some(offline) = self.backend().capabilities().offline else {
                    return Err(error);
                };
                let offline = catch_panic("read generation", || offline.generation(group))?;
                let last = cache.fetched(group).filter(|it| count.is_some() && it.count == count);
                let generation = match self.shared.pending.number_of(group) {
                    // The multiplier is odd, so no two numbers make one generation.
                    Some(number) => {
                        offline.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                    }
                    None => last.map_or(offline, |last| last.generation),
                };
                Ok(Read { generation, is_offline: true, has_timed_out })
            }
        }
    }
}

/// Returns the error of an operation that is skipped after a timeout.
#[cold]
fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "an earlier operation of the call has timed out")
}
