//! Waiting until a time has come, on any executor and on none.
//!
//! Most waits end long before their time: they are for callers who would rather compute than wait for
//! ever. So to begin one, and to end it, is no more than to take a place in a list: the thread that
//! watches the list is woken only if it would sleep too long.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::process;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::panic::catch_panic;

/// Ready once a time has come.
#[derive(Debug)]
pub(super) struct TimerFuture {
    /// Never, if that is none.
    deadline: Option<Instant>,
    key: Option<TimerKey>,
}

/// A place in the list: when its wait is over, and what tells it from others with the same end.
type TimerKey = (Instant, u64);

/// All waits.
struct Timers {
    wakers: BTreeMap<TimerKey, Waker>,
    last_id: u64,
    /// The process whose thread watches the list. A child has the list of its parent, and no thread.
    thread_process: Option<u32>,
    /// When that thread wakes up by itself.
    next_wakeup: Option<Instant>,
}

static TIMERS: Mutex<Timers> = Mutex::new(Timers {
    wakers: BTreeMap::new(),
    last_id: 0,
    thread_process: None,
    next_wakeup: None,
});
/// There is a wait that ends before the thread would wake up.
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
        // Code of others, which is not to run while the list is locked.
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

    /// Whether there is a thread that watches the list; starts it if there is none.
    fn ensure_thread(&mut self) -> bool {
        let process = process::id();
        if self.thread_process != Some(process) {
            // Whoever waits in the parent is not to be woken here.
            mem::forget(mem::take(&mut self.wakers));
            self.next_wakeup = None;
            let thread = thread::Builder::new().name("vayu-timer".to_owned()).spawn(run_timer);
            self.thread_process = thread.is_ok().then_some(process);
        }
        self.thread_process.is_some()
    }

    /// Takes those whose time has come at `now` off the list.
    fn take_due(&mut self, now: Instant) -> BTreeMap<TimerKey, Waker> {
        let later = self.wakers.split_off(&(now, u64::MAX));
        mem::replace(&mut self.wakers, later)
    }
}

/// Nobody who waits would ever be woken, so no wait begins.
#[cold]
fn warn_no_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            target: "vayu",
            "no thread can be started for the time limits of waits: callers compute instead of waiting"
        );
    });
}

fn lock() -> MutexGuard<'static, Timers> {
    TIMERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes whoever is due, for ever.
fn run_timer() {
    let mut timers = lock();
    loop {
        let now = Instant::now();
        let due = timers.take_due(now);
        if !due.is_empty() {
            drop(timers);
            for waker in due.into_values() {
                // What a panic would tell is for whoever made the waker.
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
            None => EARLIER_TIMER.wait(timers).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let waited =
                    EARLIER_TIMER.wait_timeout(timers, deadline.saturating_duration_since(now));
                waited.unwrap_or_else(PoisonError::into_inner).0
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

    const SHORT: Duration = Duration::from_millis(3);
    const LONG: Duration = Duration::from_secs(3600);
    const LIMIT: Duration = Duration::from_secs(60);

    fn poll(wait: &mut TimerFuture, waker: &Waker) -> Poll<()> {
        Pin::new(wait).poll(&mut Context::from_waker(waker))
    }

    /// Says that it was woken, and panics if it is told to.
    struct NotifyWaker(Sender<&'static str>, &'static str, bool);

    impl Wake for NotifyWaker {
        fn wake(self: Arc<Self>) {
            self.0.send(self.1).expect("somebody listens");
            assert!(!self.2, "as it was told");
        }
    }

    #[test]
    fn wait_is_over_when_its_time_has_come_and_not_before() {
        watchdog(LIMIT, || {
            for time in [Duration::ZERO, Duration::from_micros(100), SHORT] {
                let began = Instant::now();
                block_on(pin!(TimerFuture::new(time)));
                assert!(began.elapsed() >= time);
            }
        });
    }

    #[test]
    fn wait_that_ends_first_is_over_first_whenever_it_began() {
        watchdog(LIMIT, || {
            let mut long = TimerFuture::new(LONG);
            assert!(poll(&mut long, Waker::noop()).is_pending());
            // Whoever watches sleeps until the long one is over, at the latest after the first of these.
            (0..100).for_each(|_| block_on(TimerFuture::new(Duration::from_micros(50))));
            assert!(poll(&mut long, Waker::noop()).is_pending());
        });
    }

    #[test]
    fn wait_for_longer_than_there_is_time_is_never_over() {
        assert!(poll(&mut TimerFuture::new(Duration::MAX), Waker::noop()).is_pending());
    }

    #[test]
    fn whoever_asked_last_is_woken() {
        watchdog(LIMIT, || {
            let (sender, receiver) = channel();
            let waker = |name| Waker::from(Arc::new(NotifyWaker(sender.clone(), name, false)));
            let mut wait = TimerFuture::new(SHORT * 4);
            assert!(poll(&mut wait, &waker("first")).is_pending());
            assert!(poll(&mut wait, &waker("second")).is_pending());
            assert_eq!(receiver.recv(), Ok("second"));
            assert!(poll(&mut wait, &waker("third")).is_ready());
        });
    }

    #[test]
    fn panic_of_one_who_is_woken_does_not_keep_others_asleep() {
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
    fn wait_that_is_dropped_leaves_nothing() {
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
