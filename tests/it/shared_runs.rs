//! The attribute `single_flight`: concurrent calls share one run, and nothing is stored.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;

use tokio::sync::Notify;
use vayu::single_flight;
use vayu::testing::watchdog;

use crate::{HANG, Runs, poll, poll_all};

#[derive(Debug, Clone, PartialEq)]
struct Failure(usize);

#[test]
fn callers_that_come_while_it_runs_get_its_result_and_later_ones_run_again() {
    static RUNS: Runs = Runs::new();
    #[single_flight(skip(open))]
    async fn slow(n: u64, open: &Notify) -> (u64, usize) {
        open.notified().await;
        (n, RUNS.count())
    }
    let open = Notify::new();
    for round in 1..=2 {
        let mut callers: Vec<_> = (0..1000).map(|_| Box::pin(slow(7, &open))).collect();
        assert_eq!(poll_all(&mut callers), []);
        let mut other = pin!(slow(8, &open));
        assert!(poll(other.as_mut()).is_pending(), "another key does not wait for this one");
        open.notify_one();
        assert_eq!(poll_all(&mut callers), [(7, 2 * round - 1); 1000]);
        open.notify_one();
        assert_eq!(poll(other.as_mut()), Poll::Ready((8, 2 * round)));
    }
}

#[test]
fn error_is_shared_and_not_stored() {
    static RUNS: Runs = Runs::new();
    #[single_flight(key = "k")]
    async fn fails(open: &Notify) -> Result<u8, Failure> {
        open.notified().await;
        Err(Failure(RUNS.count()))
    }
    let open = Notify::new();
    for round in 1..=2 {
        let mut callers: Vec<_> = (0..100).map(|_| Box::pin(fails(&open))).collect();
        assert_eq!(poll_all(&mut callers), []);
        open.notify_one();
        assert_eq!(poll_all(&mut callers), vec![Err(Failure(round)); 100]);
    }
}

/// The runs of a key never overlap, and a call never returns the result of a run that was over before it
/// began: one that a call had returned, since a flight leaves its table before any caller gets its result.
#[test]
fn threads_share_the_run_that_they_overlap_with() {
    static RUNNING: AtomicBool = AtomicBool::new(false);
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    // The number of runs that are certainly over.
    static OVER: AtomicUsize = AtomicUsize::new(0);
    #[single_flight]
    fn number() -> Result<usize, Failure> {
        assert!(!RUNNING.swap(true, Ordering::SeqCst), "two runs at once");
        for _ in 0..20 {
            thread::yield_now();
        }
        RUNNING.store(false, Ordering::SeqCst);
        let run = RUNS.fetch_add(1, Ordering::SeqCst);
        if run.is_multiple_of(2) { Ok(run) } else { Err(Failure(run)) }
    }
    watchdog(HANG, || {
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..200 {
                        let over = OVER.load(Ordering::SeqCst);
                        let (Ok(run) | Err(Failure(run))) = number();
                        assert!(run >= over, "run {run} was over when the call began");
                        OVER.fetch_max(run + 1, Ordering::SeqCst);
                    }
                });
            }
        });
    });
    let runs = RUNS.load(Ordering::SeqCst);
    assert!(runs <= 1600, "{runs}");
}

#[test]
fn sync_callers_share_the_run_of_an_async_one_with_the_same_prefix() {
    static RUNS: Runs = Runs::new();
    #[single_flight(prefix = "shared runs", skip(open))]
    async fn from_tasks(n: u8, open: &Notify) -> usize {
        open.notified().await;
        usize::from(n) + RUNS.count()
    }
    #[single_flight(prefix = "shared runs")]
    fn from_threads(n: u8) -> usize {
        usize::from(n) + 100 + RUNS.count()
    }
    watchdog(HANG, || {
        let open = Notify::new();
        let mut leader = pin!(from_tasks(1, &open));
        assert!(poll(leader.as_mut()).is_pending());
        thread::scope(|scope| {
            let caller = scope.spawn(|| from_threads(1));
            // Another key does not wait, and has been run when it returns.
            assert_eq!(from_threads(2), 103);
            open.notify_one();
            while poll(leader.as_mut()).is_pending() {
                thread::yield_now();
            }
            // It has joined the run, or has come after it.
            assert!([3, 104].contains(&caller.join().expect("no panic")));
        });
    });
}

#[test]
fn functions_of_other_types_with_the_same_prefix_do_not_share() {
    #[single_flight(prefix = "types of shared runs", key = "k")]
    async fn number(open: &Notify) -> u64 {
        open.notified().await;
        1
    }
    #[single_flight(prefix = "types of shared runs", key = "k", log = false)]
    async fn text() -> String {
        "text".to_owned()
    }
    let open = Notify::new();
    let mut leader = pin!(number(&open));
    assert!(poll(leader.as_mut()).is_pending());
    let mut other = pin!(text());
    assert!(poll(other.as_mut()).is_pending());
    open.notify_one();
    assert_eq!(poll(leader.as_mut()), Poll::Ready(1));
    assert_eq!(poll(other.as_mut()), Poll::Ready("text".to_owned()));
}

#[test]
fn waiting_caller_runs_after_a_leader_that_panics_or_is_dropped() {
    static RUNS: Runs = Runs::new();
    #[single_flight(key = "k")]
    async fn fails_first(open: &Notify) -> usize {
        open.notified().await;
        let run = RUNS.count();
        assert_ne!(run, 1, "the first run fails");
        run
    }
    let open = Notify::new();
    let mut leader = Box::pin(fails_first(&open));
    let mut waiting = pin!(fails_first(&open));
    assert!(poll(leader.as_mut()).is_pending() && poll(waiting.as_mut()).is_pending());
    open.notify_one();
    assert!(catch_unwind(AssertUnwindSafe(|| poll(leader.as_mut()))).is_err());
    assert!(poll(waiting.as_mut()).is_pending(), "it leads, and its body waits");
    let mut third = pin!(fails_first(&open));
    assert!(poll(third.as_mut()).is_pending());
    {
        let mut dropped = Box::pin(fails_first(&open));
        assert!(poll(dropped.as_mut()).is_pending());
    }
    open.notify_one();
    assert_eq!(poll(waiting.as_mut()), Poll::Ready(2));
    assert_eq!(poll(third.as_mut()), Poll::Ready(2));
}

#[test]
fn call_within_its_own_run_does_not_wait_for_it() {
    #[single_flight(key = "k")]
    fn nested(depth: u8) -> u8 {
        if depth == 0 { 0 } else { nested(depth - 1) + 1 }
    }
    watchdog(HANG, || assert_eq!(nested(3), 3));
}

#[test]
fn methods_generics_patterns_and_functions_without_a_value_are_supported() {
    static RUNS: Runs = Runs::new();
    struct Shop {
        id: u32,
    }
    impl Shop {
        #[single_flight(include(self.id))]
        fn stock(&self) -> Option<u32> {
            Some(self.id)
        }

        #[single_flight(key = |item: &T| item.to_string())]
        async fn label<T: std::fmt::Display + Send + Sync>(&self, item: T) -> Arc<str> {
            format!("{} of {}", item, self.id).into()
        }
    }
    #[single_flight(key = first.to_string())]
    fn sum((first, second): (u8, u8)) -> u8 {
        first + second
    }
    #[single_flight]
    fn flush() {
        RUNS.count();
    }
    let shops = [1, 2].map(|id| Shop { id });
    assert_eq!(shops.each_ref().map(Shop::stock), [Some(1), Some(2)]);
    assert_eq!(poll(pin!(shops[0].label("tea"))), Poll::Ready("tea of 1".into()));
    assert_eq!(sum((1, 2)), 3);
    flush();
    flush();
    assert_eq!(RUNS.get(), 2);
}
