//! The runs in the background of the process: refreshes, and computations in tasks.
//!
//! They are counted for the end of a program, which would otherwise end them in the middle. The refreshes of each cache are
//! also counted for a limit on them. A count is that of this process: the runs of a parent process do not end in its child.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use event_listener::Event;

use crate::clock::{Clock, MonotonicClock, Timestamp};
use crate::flight::Deadline;
use crate::per_process::{PerProcess, ProcessId};
use crate::platform::HAS_THREADS;
use crate::sync::{IgnorePoison, block_on};

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
    process: ProcessId,
    /// The refreshes of its cache, and its slot among them, if it is one.
    refresh: Option<(Arc<Refreshes>, Arc<RefreshSlot>)>,
}

impl BackgroundRun {
    pub(crate) fn begin() -> Self {
        let process = ProcessId::current();
        RUNS.begin(process);
        Self { process, refresh: None }
    }

    /// Returns the slot of a refresh.
    pub(crate) fn slot(&self) -> Option<Arc<RefreshSlot>> {
        self.refresh.as_ref().map(|(_, slot)| Arc::clone(slot))
    }

    /// Records that a refresh, which was in the queue of a spawner until now, starts.
    pub(crate) fn start(&self, now: Timestamp) {
        if let Some((_, slot)) = &self.refresh {
            slot.start(now);
        }
    }
}

impl Drop for BackgroundRun {
    fn drop(&mut self) {
        if let Some((refreshes, slot)) = &self.refresh
            && self.process.is_current()
        {
            refreshes.end(slot);
        }
        if RUNS.end(self.process) {
            ENDED.notify(usize::MAX);
        }
    }
}

/// Returns the number of runs of this process.
fn running() -> u64 {
    RUNS.get(ProcessId::current())
}

/// The refreshes of one cache in the background, and the limit on them.
#[derive(Debug)]
pub(crate) struct Refreshes {
    slots: PerProcess<Mutex<Slots>>,
    max: AtomicUsize,
}

/// The refreshes of one cache that are in progress.
#[derive(Debug, Default)]
struct Slots {
    /// Those that count for the limit.
    counted: Vec<Arc<RefreshSlot>>,
    /// The number of the others, which hang.
    hanging: usize,
}

/// The place of a refresh among those that count for the limit.
///
/// A refresh that runs for too long hangs. It loses its place when another one needs it, and leaves none when it ends.
#[derive(Debug, Default)]
pub(crate) struct RefreshSlot {
    /// When the run started. Until then it is in the queue of a spawner.
    started: OnceLock<Timestamp>,
}

impl RefreshSlot {
    /// Records that the run starts.
    pub(crate) fn start(&self, now: Timestamp) {
        let _ = self.started.set(now);
    }

    /// Returns whether the run started `limit` ago or earlier.
    fn is_overdue(&self, now: Timestamp, limit: Duration) -> bool {
        self.started.get().is_some_and(|started| now.is_far_from(*started, limit))
    }
}

/// The default limit on refreshes of one cache at the same time.
const MAX_REFRESHES: usize = 256;

impl Default for Refreshes {
    fn default() -> Self {
        let slots = PerProcess::new(Mutex::default());
        Self { slots, max: AtomicUsize::new(MAX_REFRESHES) }
    }
}

impl Refreshes {
    /// Begins a refresh, unless as many as the limit are in progress. Those that started `limit` ago or earlier do not count
    /// then, as long as no more of them hang than the limit: each may keep a thread.
    pub(crate) fn begin(
        self: &Arc<Self>,
        now: Timestamp,
        limit: Duration,
    ) -> Option<BackgroundRun> {
        let max = self.max.load(Ordering::Relaxed);
        let slot = Arc::<RefreshSlot>::default();
        let mut slots = self.slots();
        if slots.counted.len() >= max {
            slots.leave_out_hanging(max, now, limit);
        }
        if slots.counted.len() >= max {
            return None;
        }
        slots.counted.push(Arc::clone(&slot));
        drop(slots);
        let mut run = BackgroundRun::begin();
        run.refresh = Some((Arc::clone(self), slot));
        Some(run)
    }

    /// Sets the limit.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Ends a refresh, if it still has its slot.
    fn end(&self, slot: &Arc<RefreshSlot>) {
        let mut slots = self.slots();
        match slots.counted.iter().position(|other| Arc::ptr_eq(other, slot)) {
            Some(index) => drop(slots.counted.swap_remove(index)),
            None => slots.hanging = slots.hanging.saturating_sub(1),
        }
    }

    /// Locks the slots. Those of a parent process are replaced by none.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.replace_after_fork(Mutex::default);
        self.slots.get().lock().ignore_poison()
    }
}

impl Slots {
    /// Does not count refreshes any more that started `limit` ago or earlier, up to `max` of them.
    fn leave_out_hanging(&mut self, max: usize, now: Timestamp, limit: Duration) {
        let hanging = &mut self.hanging;
        self.counted.retain(|slot| {
            let is_counted = *hanging >= max || !slot.is_overdue(now, limit);
            *hanging += usize::from(!is_counted);
            is_counted
        });
    }
}

/// A number of runs in the lower half, with the id of the process that they are of in the upper one.
#[derive(Debug)]
struct RunCount(AtomicU64);

impl RunCount {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns a count of no runs.
    fn none(process: ProcessId) -> u64 {
        u64::from(process.get()) << 32
    }

    /// Returns the runs of a process in a count, if it is of that process.
    fn of(count: u64, process: ProcessId) -> Option<u64> {
        count.checked_sub(Self::none(process)).filter(|runs| u32::try_from(*runs).is_ok())
    }

    /// Counts a run that begins.
    fn begin(&self, process: ProcessId) {
        let next = |count| {
            let runs = Self::of(count, process).unwrap_or(0);
            Some(Self::none(process) + runs + 1)
        };
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// Counts a run that ends. Returns whether it was the last one.
    fn end(&self, process: ProcessId) -> bool {
        let next = |count| Self::of(count, process).map(|_| count - 1);
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        before == Ok(Self::none(process) + 1)
    }

    /// Returns the number of runs of a process.
    fn get(&self, process: ProcessId) -> u64 {
        Self::of(self.0.load(Ordering::Acquire), process).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// Begins a refresh, and starts it at once.
    fn begin_and_start(refreshes: &Arc<Refreshes>, seconds: i64) -> Option<BackgroundRun> {
        let run = refreshes.begin(at(seconds), LIMIT);
        run.inspect(|run| run.start(at(seconds)))
    }

    #[test]
    fn refreshes_have_a_limit_which_those_of_a_parent_process_do_not_count_for() {
        let mut refreshes = Refreshes::default();
        refreshes.set_max(2);
        let parent = Arc::<RefreshSlot>::default();
        refreshes.slots = PerProcess::of_parent(Mutex::new(Slots {
            counted: vec![Arc::clone(&parent); 2],
            hanging: 0,
        }));
        let refreshes = Arc::new(refreshes);
        let begin = || refreshes.begin(at(0), LIMIT);
        let first = begin();
        let second = begin();
        assert!(first.is_some() && second.is_some() && begin().is_none());
        refreshes.end(&parent);
        assert!(begin().is_none());
        drop(first);
        assert!(begin().is_some());
        drop(second);
        refreshes.set_max(0);
        assert!(begin().is_none());
    }

    #[test]
    fn slot_of_a_run_that_hangs_is_given_to_another_one_once() {
        let refreshes = Arc::new(Refreshes::default());
        refreshes.set_max(2);
        let begin = |seconds| begin_and_start(&refreshes, seconds);
        let (first, second) = (begin(0), begin(10));
        assert!(begin(29).is_none());
        let third = begin(30);
        assert!(third.is_some() && begin(39).is_none());
        drop(first);
        assert!(begin(39).is_none(), "it had no slot any more");
        let fourth = begin(40);
        assert!(fourth.is_some() && begin(59).is_none());
        drop((second, third));
        assert!(begin(59).is_some() && fourth.is_some());
    }

    #[test]
    fn no_more_runs_hang_than_the_limit() {
        let refreshes = Arc::new(Refreshes::default());
        refreshes.set_max(1);
        let begin = |seconds| begin_and_start(&refreshes, seconds);
        let (first, second) = (begin(0), begin(30));
        assert!(second.is_some() && begin(90).is_none());
        drop(first);
        assert!(begin(90).is_some());
    }

    #[test]
    fn run_that_has_just_started_does_not_hang() {
        let refreshes = Arc::new(Refreshes::default());
        refreshes.set_max(1);
        let run = refreshes.begin(at(10), LIMIT).expect("there is none");
        run.start(at(10));
        // Another thread has read the clock before.
        assert!(refreshes.begin(at(9), LIMIT).is_none());
    }

    #[test]
    fn run_in_a_queue_keeps_its_slot() {
        let refreshes = Arc::new(Refreshes::default());
        refreshes.set_max(1);
        let run = refreshes.begin(at(0), LIMIT).expect("there is none");
        assert!(refreshes.begin(at(60), LIMIT).is_none());
        run.start(at(60));
        assert!(refreshes.begin(at(89), LIMIT).is_none());
        assert!(refreshes.begin(at(90), LIMIT).is_some());
    }

    #[test]
    fn runs_of_a_parent_process_are_not_counted() {
        let (process, parent) = (ProcessId::current(), ProcessId::of_parent());
        let runs = RunCount::new();
        runs.begin(parent);
        runs.begin(parent);
        assert_eq!((runs.get(parent), runs.get(process)), (2, 0));
        runs.begin(process);
        assert_eq!((runs.end(parent), runs.get(process)), (false, 1));
        assert!(runs.end(process));
    }
}
