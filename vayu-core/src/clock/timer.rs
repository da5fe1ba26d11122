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

use crate::panic::guarded;

/// Ready once a time has come.
#[derive(Debug)]
pub(super) struct Wait {
    /// Never, if that is none.
    until: Option<Instant>,
    place: Option<Place>,
}

/// A place in the list: when its wait is over, and what tells it from others with the same end.
type Place = (Instant, u64);

/// All waits.
struct List {
    wakers: BTreeMap<Place, Waker>,
    places: u64,
    /// The process whose thread watches the list. A child has the list of its parent, and no thread.
    watched_in: Option<u32>,
    /// When that thread wakes up by itself.
    wakes: Option<Instant>,
}

static LIST: Mutex<List> =
    Mutex::new(List { wakers: BTreeMap::new(), places: 0, watched_in: None, wakes: None });
/// There is a wait that ends before the thread would wake up.
static CHANGED: Condvar = Condvar::new();

impl Wait {
    pub(super) fn new(time: Duration) -> Self {
        Self { until: Instant::now().checked_add(time), place: None }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        if Instant::now() >= until {
            return Poll::Ready(());
        }
        // Code of others, which is not to run while the list is locked.
        let waker = context.waker().clone();
        let mut list = lock();
        if !list.is_watched() {
            drop(list);
            tell_of_no_thread();
            return Poll::Ready(());
        }
        let place = *self.place.get_or_insert_with(|| list.new_place(until));
        let replaced = list.wakers.insert(place, waker);
        let is_before = list.wakes.is_none_or(|wakes| until < wakes);
        drop(list);
        if is_before && replaced.is_none() {
            CHANGED.notify_one();
        }
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let waker = lock().wakers.remove(&place);
        drop(waker);
    }
}

impl List {
    fn new_place(&mut self, until: Instant) -> Place {
        self.places += 1;
        (until, self.places)
    }

    /// Whether there is a thread that watches the list; starts it if there is none.
    fn is_watched(&mut self) -> bool {
        let process = process::id();
        if self.watched_in != Some(process) {
            // Whoever waits in the parent is not to be woken here.
            mem::forget(mem::take(&mut self.wakers));
            self.wakes = None;
            let thread = thread::Builder::new().name("vayu-timer".to_owned()).spawn(watch);
            self.watched_in = thread.is_ok().then_some(process);
        }
        self.watched_in.is_some()
    }

    /// Takes those whose time has come at `now` off the list.
    fn take_due(&mut self, now: Instant) -> BTreeMap<Place, Waker> {
        let later = self.wakers.split_off(&(now, u64::MAX));
        mem::replace(&mut self.wakers, later)
    }
}

/// Nobody who waits would ever be woken, so no wait begins.
#[cold]
fn tell_of_no_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            target: "vayu",
            "no thread can be started for the time limits of waits: callers compute instead of waiting"
        );
    });
}

fn lock() -> MutexGuard<'static, List> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes whoever is due, for ever.
fn watch() {
    let mut list = lock();
    loop {
        let now = Instant::now();
        let due = list.take_due(now);
        if !due.is_empty() {
            drop(list);
            for waker in due.into_values() {
                // What a panic would tell is for whoever made the waker.
                drop(guarded("wake", || {
                    waker.wake();
                    Ok(())
                }));
            }
            list = lock();
            continue;
        }
        let first = list.wakers.first_key_value().map(|(&(until, _), _)| until);
        list.wakes = first;
        list = match first {
            None => CHANGED.wait(list).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let waited = CHANGED.wait_timeout(list, until.saturating_duration_since(now));
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

    fn poll(wait: &mut Wait, waker: &Waker) -> Poll<()> {
        Pin::new(wait).poll(&mut Context::from_waker(waker))
    }

    /// Says that it was woken, and panics if it is told to.
    struct Tells(Sender<&'static str>, &'static str, bool);

    impl Wake for Tells {
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
                block_on(pin!(Wait::new(time)));
                assert!(began.elapsed() >= time);
            }
        });
    }

    #[test]
    fn wait_that_ends_first_is_over_first_whenever_it_began() {
        watchdog(LIMIT, || {
            let mut long = Wait::new(LONG);
            assert!(poll(&mut long, Waker::noop()).is_pending());
            // Whoever watches sleeps until the long one is over, at the latest after the first of these.
            (0..100).for_each(|_| block_on(Wait::new(Duration::from_micros(50))));
            assert!(poll(&mut long, Waker::noop()).is_pending());
        });
    }

    #[test]
    fn wait_for_longer_than_there_is_time_is_never_over() {
        assert!(poll(&mut Wait::new(Duration::MAX), Waker::noop()).is_pending());
    }

    #[test]
    fn whoever_asked_last_is_woken() {
        watchdog(LIMIT, || {
            let (sender, receiver) = channel();
            let waker = |name| Waker::from(Arc::new(Tells(sender.clone(), name, false)));
            let mut wait = Wait::new(SHORT * 4);
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
            let mut wait = Wait::new(SHORT);
            let waker = Waker::from(Arc::new(Tells(sender, "panics", true)));
            assert!(poll(&mut wait, &waker).is_pending());
            assert_eq!(receiver.recv(), Ok("panics"));
            block_on(Wait::new(SHORT));
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
        let mut waits: Vec<_> = (0..100).map(|_| Wait::new(LONG)).collect();
        assert!(waits.iter_mut().all(|wait| poll(wait, &waker).is_pending()));
        let places: Vec<_> = waits.iter().filter_map(|wait| wait.place).collect();
        assert_eq!(places.len(), 100);
        assert!(places.iter().all(|place| lock().wakers.contains_key(place)));
        drop((waits, waker));
        assert_eq!(ALIVE.load(Ordering::Relaxed), 0);
        assert!(!places.iter().any(|place| lock().wakers.contains_key(place)));
    }
}
