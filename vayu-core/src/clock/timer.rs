//! A timer that works on any executor and without one.
//!
//! One thread of the process serves all timers. They are in an ordered map from deadline to waker. The
//! thread sleeps on a condition variable until the earliest deadline, removes the timers that are due,
//! and wakes them with no lock held.
//!
//! Most timers are time limits and are dropped long before they fire. So starting and dropping one is
//! an insertion into the map and a removal; the thread is notified only if the new deadline is earlier
//! than the one that it sleeps until.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, Once};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::panic::catch_panic;
use crate::per_process::ProcessId;
use crate::sync::IgnorePoison;

/// A future that is ready at a deadline.
#[derive(Debug)]
pub(super) struct TimerFuture {
    /// `None` if the deadline is never reached.
    deadline: Option<Instant>,
    key: Option<TimerKey>,
}

/// The key of a timer: its deadline, and an id that distinguishes timers with the same deadline.
type TimerKey = (Instant, u64);

/// The timers of the process.
struct Timers {
    wakers: BTreeMap<TimerKey, Waker>,
    last_id: u64,
    /// The process of the timer thread. A forked child has the timers of its parent, and no thread.
    thread_process: Option<ProcessId>,
    /// The deadline that the thread sleeps until.
    next_wakeup: Option<Instant>,
}

static TIMERS: Mutex<Timers> = Mutex::new(Timers {
    wakers: BTreeMap::new(),
    last_id: 0,
    thread_process: None,
    next_wakeup: None,
});
/// Notified when a timer has an earlier deadline than the one that the thread sleeps until.
static EARLIER_TIMER: Condvar = Condvar::new();

impl TimerFuture {
    pub(super) fn new(time: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(time), key: None }
    }
}

impl Future for TimerFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        // Code of users, which must not run while the timers are locked.
        let waker = context.waker().clone();
        let mut timers = lock();
        if !timers.ensure_thread() {
            drop(timers);
            warn_no_thread();
            return Poll::Ready(());
        }
        let key = *self.key.get_or_insert_with(|| timers.new_key(deadline));
        let replaced = timers.wakers.insert(key, waker);
        let is_before = timers.next_wakeup.is_none_or(|next_wakeup| deadline < next_wakeup);
        drop(timers);
        if is_before && replaced.is_none() {
            EARLIER_TIMER.notify_one();
        }
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for TimerFuture {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let waker = lock().wakers.remove(&key);
        drop(waker);
    }
}

impl Timers {
    fn new_key(&mut self, deadline: Instant) -> TimerKey {
        self.last_id += 1;
        (deadline, self.last_id)
    }

    /// Starts the timer thread if there is none, and returns whether there is one.
    fn ensure_thread(&mut self) -> bool {
        if !self.thread_process.is_some_and(ProcessId::is_current) {
            // Wakers of the parent process must not be called here.
            mem::forget(mem::take(&mut self.wakers));
            self.next_wakeup = None;
            let thread = thread::Builder::new().name("vayu-timer".to_owned()).spawn(run_timer);
            self.thread_process = thread.is_ok().then(ProcessId::current);
        }
        self.thread_process.is_some()
    }

    /// Removes the timers that are due at `now`, and returns them.
    fn take_due(&mut self, now: Instant) -> BTreeMap<TimerKey, Waker> {
        let later = self.wakers.split_off(&(now, u64::MAX));
        mem::replace(&mut self.wakers, later)
    }
}

/// Warns once that no thread can be started, so that no timer would ever fire.
#[cold]
fn warn_no_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            target: "vayu",
            "cannot start timer thread; callers will compute instead of waiting"
        );
    });
}

fn lock() -> MutexGuard<'static, Timers> {
    TIMERS.lock().ignore_poison()
}

/// Wakes due timers, forever.
fn run_timer() {
    let mut timers = lock();
    loop {
        let now = Instant::now();
        let due = timers.take_due(now);
        if !due.is_empty() {
            drop(timers);
            for waker in due.into_values() {
                // A panic of a waker is ignored.
                drop(catch_panic("wake", || {
                    waker.wake();
                    Ok(())
                }));
            }
            timers = lock();
            continue;
        }
        let first = timers.wakers.first_key_value().map(|(&(deadline, _), _)| deadline);
        timers.next_wakeup = first;
        timers = match first {
            None => EARLIER_TIMER.wait(timers).ignore_poison(),
            Some(deadline) => {
                let waited =
                    EARLIER_TIMER.wait_timeout(timers, deadline.saturating_duration_since(now));
                waited.ignore_poison().0
            }
        };
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::task::Wake;

    use super::*;
    use crate::sync::block_on;
    use crate::testing::watchdog;

    const SHORT: Duration = Duration::from_millis(if cfg!(miri) { 100 } else { 3 });
    const LONG: Duration = Duration::from_secs(3600);
    const LIMIT: Duration = Duration::from_secs(60);

    fn poll(wait: &mut TimerFuture, waker: &Waker) -> Poll<()> {
        Pin::new(wait).poll(&mut Context::from_waker(waker))
    }

    /// A waker that sends its name when woken, and may panic.
    struct NotifyWaker(Sender<&'static str>, &'static str, bool);

    impl Wake for NotifyWaker {
        fn wake(self: Arc<Self>) {
            self.0.send(self.1).expect("a receiver");
            assert!(!self.2, "planned panic of a waker");
        }
    }

    #[test]
    fn timer_fires_at_its_deadline_and_not_before() {
        watchdog(LIMIT, || {
            for time in [Duration::ZERO, Duration::from_micros(100), SHORT] {
                let began = Instant::now();
                block_on(pin!(TimerFuture::new(time)));
                assert!(began.elapsed() >= time);
            }
        });
    }

    #[test]
    fn timer_with_the_earliest_deadline_fires_first() {
        watchdog(LIMIT, || {
            let mut long = TimerFuture::new(LONG);
            assert!(poll(&mut long, Waker::noop()).is_pending());
            // The thread sleeps until the long deadline, at the latest after the first of these.
            (0..100).for_each(|_| block_on(TimerFuture::new(Duration::from_micros(50))));
            assert!(poll(&mut long, Waker::noop()).is_pending());
        });
    }

    #[test]
    fn timer_beyond_the_end_of_time_never_fires() {
        assert!(poll(&mut TimerFuture::new(Duration::MAX), Waker::noop()).is_pending());
    }

    #[test]
    fn last_waker_is_woken() {
        watchdog(LIMIT, || {
            let (sender, receiver) = channel();
            let waker = |name| Waker::from(Arc::new(NotifyWaker(sender.clone(), name, false)));
            let mut wait = TimerFuture::new(SHORT * 20);
            assert!(poll(&mut wait, &waker("first")).is_pending());
            assert!(poll(&mut wait, &waker("second")).is_pending());
            assert_eq!(receiver.recv(), Ok("second"));
            assert!(poll(&mut wait, &waker("third")).is_ready());
        });
    }

    #[test]
    fn panic_of_a_waker_does_not_stop_other_timers() {
        watchdog(LIMIT, || {
            let (sender, receiver) = channel();
            let mut wait = TimerFuture::new(SHORT);
            let waker = Waker::from(Arc::new(NotifyWaker(sender, "panics", true)));
            assert!(poll(&mut wait, &waker).is_pending());
            assert_eq!(receiver.recv(), Ok("panics"));
            block_on(TimerFuture::new(SHORT));
        });
    }

    #[test]
    fn dropped_timer_leaves_nothing() {
        static ALIVE: AtomicUsize = AtomicUsize::new(0);
        struct Counted;
        impl Wake for Counted {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for Counted {
            fn drop(&mut self) {
                ALIVE.fetch_sub(1, Ordering::Relaxed);
            }
        }
        ALIVE.fetch_add(1, Ordering::Relaxed);
        let waker = Waker::from(Arc::new(Counted));
        let mut waits: Vec<_> = (0..100).map(|_| TimerFuture::new(LONG)).collect();
        assert!(waits.iter_mut().all(|wait| poll(wait, &waker).is_pending()));
        let keys: Vec<_> = waits.iter().filter_map(|wait| wait.key).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| lock().wakers.contains_key(key)));
        drop((waits, waker));
        assert_eq!(ALIVE.load(Ordering::Relaxed), 0);
        assert!(!keys.iter().any(|key| lock().wakers.contains_key(key)));
    }
}
