//! The runs in the background of the process: refreshes, and computations in tasks.
//!
//! They are counted for the end of a program, which would otherwise end them in the middle. The count is that of this
//! process: the runs of a parent process do not end in its child.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_listener::Event;

use crate::clock::{Clock, MonotonicClock};
use crate::flight::Deadline;
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
pub fn finish_background(timeout: Duration) -> bool {
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

/// The id of the process in the upper half, and the number of its runs in the lower one.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Notified when the last run has ended.
static ENDED: Event = Event::new();

/// A run in the background, which ends on drop.
#[derive(Debug)]
pub(crate) struct BackgroundRun {
    /// The process in which it began, in the upper half.
    process: u64,
}

impl BackgroundRun {
    pub(crate) fn begin() -> Self {
        let process = current_process();
        let next = |runs| Some(if runs & PROCESS == process { runs } else { process } + 1);
        let _ = RUNS.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        Self { process }
    }
}

impl Drop for BackgroundRun {
    fn drop(&mut self) {
        let next = |runs| (runs & PROCESS == self.process).then(|| runs - 1);
        let before = RUNS.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if before == Ok(self.process + 1) {
            ENDED.notify(usize::MAX);
        }
    }
}

/// The bits of [`RUNS`] that are the id of the process.
const PROCESS: u64 = !0 << 32;

fn current_process() -> u64 {
    u64::from(process::id()) << 32
}

/// Returns the number of runs of this process.
fn running() -> u64 {
    let runs = RUNS.load(Ordering::Acquire);
    if runs & PROCESS == current_process() { runs & !PROCESS } else { 0 }
}
