//! The runs in the background of the process: refreshes, and computations in tasks.
//!
//! They are counted for the end of a program, which would otherwise end them in the middle. The refreshes of each cache are
//! also counted for a limit on them. A count is that of this process: the runs of a parent process do not end in its child.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use event_listener::Event;

use crate::clock::{Clock, MonotonicClock};
use crate::flight::Deadline;
use crate::platform::{HAS_THREADS, process_id};
use crate::sync::block_on;

/// Waits until no run is in progress in the background, up to `timeout`. Returns whether there is none: then each value that
/// was computed in the background is stored.
///
/// These are the refreshes and computations that `spawn` runs as tasks, of all functions of the process, with those that
/// begin in the meantime. So a program calls it last, when no requests arrive any more: a runtime that shuts down drops its
/// tasks. With a timeout of zero, it returns whether there is a run at this moment.
///
/// It blocks the thread, on which no task must depend: in async code use [`finish_background_async`]. A run that calls
/// it waits for itself, up to `timeout`.
/// Where there are no threads (WebAssembly), no run can end in the meantime, and it does not wait.
pub fn finish_background(timeout: Duration) -> bool {
    let timeout = if HAS_THREADS { timeout } else { Duration::ZERO };
    block_on(finish_background_async(timeout))
}

/// [`finish_background`] for async callers.
pub async fn finish_background_async(timeout: Duration) -> bool {
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
    let mut deadline = Deadline::default();
    deadline.begin(&clock, timeout);
    loop {
        let ended = ENDED.listen();
        if running() == 0 {
            return true;
        }
        if !deadline.limit(ended).await {
            return running() == 0;
        }
    }
}

/// The runs of the process.
static RUNS: RunCount = RunCount::new();

/// Notified when the last run has ended.
static ENDED: Event = Event::new();

/// A run in the background, which ends on drop.
#[derive(Debug)]
pub(crate) struct BackgroundRun {
    process: ProcessTag,
    /// The refreshes of its cache, if it is one.
    refreshes: Option<Arc<Refreshes>>,
}

impl BackgroundRun {
    pub(crate) fn begin() -> Self {
        let process = ProcessTag::current();
        RUNS.begin(process, u32::MAX);
        Self { process, refreshes: None }
    }
}

impl Drop for BackgroundRun {
    fn drop(&mut self) {
        if let Some(refreshes) = &self.refreshes {
            refreshes.running.end(self.process);
        }
        if RUNS.end(self.process) {
            ENDED.notify(usize::MAX);
        }
    }
}

/// Returns the number of runs of this process.
fn running() -> u64 {
    RUNS.get(ProcessTag::current())
}

/// The refreshes of one cache in the background, and the limit on them.
#[derive(Debug)]
pub(crate) struct Refreshes {
    running: RunCount,
    max: AtomicU32,
}

/// The default limit on refreshes of one cache at the same time.
const MAX_REFRESHES: u32 = 256;

impl Default for Refreshes {
    fn default() -> Self {
        Self { running: RunCount::new(), max: AtomicU32::new(MAX_REFRESHES) }
    }
}

impl Refreshes {
    /// Begins a refresh, unless as many as the limit are in progress.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<BackgroundRun> {
        let process = ProcessTag::current();
        let max = self.max.load(Ordering::Relaxed);
        self.running.begin(process, max).then(|| {
            RUNS.begin(process, u32::MAX);
            BackgroundRun { process, refreshes: Some(Arc::clone(self)) }
        })
    }

    /// Sets the limit.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(u32::try_from(max).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// The id of a process, in the upper half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessTag(u64);

impl ProcessTag {
    const BITS: u64 = !0 << 32;

    fn current() -> Self {
        Self(u64::from(process_id()) << 32)
    }
}

/// A number of runs in the lower half, with the process that they are of in the upper one.
#[derive(Debug)]
struct RunCount(AtomicU64);

impl RunCount {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts a run that begins, unless `max` are in progress. Returns whether it was counted.
    fn begin(&self, process: ProcessTag, max: u32) -> bool {
        let next = |runs| {
            let runs = if runs & ProcessTag::BITS == process.0 { runs } else { process.0 };
            (runs & !ProcessTag::BITS < u64::from(max)).then_some(runs + 1)
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// Counts a run that ends. Returns whether it was the last one.
    fn end(&self, process: ProcessTag) -> bool {
        let next = |runs| (runs & ProcessTag::BITS == process.0).then(|| runs - 1);
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        before == Ok(process.0 + 1)
    }

    fn get(&self, process: ProcessTag) -> u64 {
        let runs = self.0.load(Ordering::Acquire);
        if runs & ProcessTag::BITS == process.0 { runs & !ProcessTag::BITS } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refreshes_have_a_limit_which_those_of_a_parent_process_do_not_count_for() {
        let refreshes = Arc::new(Refreshes::default());
        refreshes.set_max(2);
        let first = refreshes.begin();
        let second = refreshes.begin();
        assert!(first.is_some() && second.is_some() && refreshes.begin().is_none());
        drop(first);
        assert!(refreshes.begin().is_some());
        // As in a child process: the runs that are counted are those of another one.
        let parent = ProcessTag(ProcessTag::current().0 ^ (1 << 32));
        refreshes.running.0.store(parent.0 + 2, Ordering::Relaxed);
        assert!(refreshes.begin().is_some());
        drop(second);
        refreshes.set_max(0);
        assert!(refreshes.begin().is_none());
    }
}
