//! Watching calls from outside: `vayu::watch` and `vayu::watch_sync`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::telemetry::CallOutcome::{self, Coalesced, ErrorHit, Hit, Miss, Refresh, Stale};
use vayu::testing::{Fault, FaultyBackend, ManualClock, MapBackend};
use vayu::{
    Cache, MemoryCache, MemoryOptions, MessagePack, WatchedCall, cached, single_flight, watch,
    watch_sync,
};

use crate::{poll, with_every_backend};

const SECOND: Duration = Duration::from_secs(1);

fn memory() -> (MemoryCache, ManualClock) {
    let clock = ManualClock::new();
    (MemoryOptions::new().clock(clock.clone()).build(), clock)
}

fn outcomes(calls: &[WatchedCall]) -> Vec<CallOutcome> {
    calls.iter().map(|call| call.outcome).collect()
}

/// A future that is pending once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[test]
fn each_call_is_reported_with_its_times_on_every_backend() {
    with_every_backend!(run);

    fn run<B: Backend, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
    where
        S: Serializer<u8, Stored = B::Stored>,
    {
        #[cached(cache = cache, ttl = 60, stale = 60, prefix = "watched", key = id.to_string(), log = false)]
        fn number<B: Backend, S>(cache: &Cache<B, S>, clock: &ManualClock, id: u8) -> Result<u8, ()>
        where
            S: Serializer<u8, Stored = B::Stored>,
        {
            clock.advance(2 * SECOND);
            if id > 100 { Err(()) } else { Ok(id) }
        }
        let clock = ManualClock::new();
        let cache = make(clock.clone());
        let watched = |id, outcome, age: Option<u32>, ttl_left: Option<u32>| {
            let seconds = |seconds: Option<u32>| seconds.map(|seconds| seconds * SECOND);
            let (_, calls) = watch_sync(|| number(&cache, &clock, id));
            let [call] = &calls[..] else { panic!("{calls:?}") };
            assert_eq!((&call.function[..], call.outcome), ("watched", outcome));
            assert_eq!((call.age, call.ttl_left), (seconds(age), seconds(ttl_left)), "{outcome:?}");
            // A record has its compute time with few bits.
            let [computed, saved] = [call.compute_time, call.time_saved()]
                .map(|time| time.as_secs_f64().round() as u32);
            let expected = if matches!(outcome, Miss | Refresh) { 0 } else { 2 };
            assert_eq!((computed, saved), (2, expected), "{outcome:?}");
        };
        watched(1, Miss, None, Some(60));
        clock.advance(10 * SECOND);
        watched(1, Hit, Some(10), Some(50));
        watched(101, Miss, None, None);
        clock.advance(48 * SECOND);
        watched(1, Refresh, None, Some(60));
        let paused = cache.pause();
        let (_, calls) = watch_sync(|| number(&cache, &clock, 1));
        drop(paused);
        assert_eq!(outcomes(&calls), [Miss]);
        assert_eq!((calls[0].age, calls[0].ttl_left), (None, None), "a call without the cache");
    }
}

#[test]
fn stale_values_cached_errors_and_coalesced_calls_are_reported() {
    #[cached(cache = cache, ttl = 10, stale = 50, err_ttl = 5, key = "k")]
    async fn rate(cache: &MemoryCache, is_up: bool) -> Result<u8, ()> {
        Yield(false).await;
        if is_up { Ok(1) } else { Err(()) }
    }
    let (cache, clock) = memory();
    let mut first = pin!(watch(rate(&cache, true)));
    let mut second = pin!(watch(rate(&cache, true)));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    let Poll::Ready((Ok(1), calls)) = poll(first) else { panic!("its body is ready") };
    assert_eq!(outcomes(&calls), [Miss]);
    let Poll::Ready((Ok(1), calls)) = poll(second) else { panic!("there is a value") };
    assert_eq!((outcomes(&calls), calls[0].ttl_left), (vec![Coalesced], Some(10 * SECOND)));
    clock.advance(12 * SECOND);
    let mut refresh = pin!(watch(rate(&cache, false)));
    assert!(poll(refresh.as_mut()).is_pending());
    let Poll::Ready((Ok(1), calls)) = poll(refresh) else { panic!("there is a stale value") };
    let expected = (vec![Stale], Some(12 * SECOND), Some(Duration::ZERO));
    assert_eq!((outcomes(&calls), calls[0].age, calls[0].ttl_left), expected);
    clock.advance(60 * SECOND);
    let mut failing = pin!(rate(&cache, false));
    assert!(poll(failing.as_mut()).is_pending());
    assert_eq!(poll(failing), Poll::Ready(Err(())));
    cache.clear().unwrap();
    let (mut first, mut second) = (pin!(rate(&cache, false)), pin!(watch(rate(&cache, false))));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    assert_eq!(poll(first), Poll::Ready(Err(())));
    let Poll::Ready((Err(()), calls)) = poll(second) else { panic!("there is an error to share") };
    assert_eq!((outcomes(&calls), calls[0].ttl_left), (vec![Coalesced], None));
    clock.advance(2 * SECOND);
    let Poll::Ready((Err(()), calls)) = poll(pin!(watch(rate(&cache, true)))) else {
        panic!("the error is cached");
    };
    let expected = (vec![ErrorHit], Some(2 * SECOND), Some(3 * SECOND));
    assert_eq!((outcomes(&calls), calls[0].age, calls[0].ttl_left), expected);
}

#[test]
fn calls_are_in_order_and_nested_watches_see_those_inside() {
    #[cached(ttl = 60, prefix = "inner")]
    fn inner(n: u8) -> u8 {
        n
    }
    #[cached(ttl = 60, prefix = "outer")]
    fn outer(n: u8) -> u8 {
        inner(n) + inner(n)
    }
    let names = |calls: &[WatchedCall]| -> Vec<_> {
        calls.iter().map(|call| (call.function.clone(), call.outcome)).collect()
    };
    let call = |name: &str, outcome| (name.to_owned(), outcome);
    let ((nested, sum), calls) = watch_sync(|| {
        let first = outer(1);
        let (second, nested) = watch_sync(|| inner(1));
        let (third, none) = watch_sync(|| 3);
        assert_eq!(none, []);
        (nested, first + second + third + outer(1))
    });
    assert_eq!((names(&nested), sum), (vec![call("inner", Hit)], 8));
    let [miss, hit] = [Miss, Hit].map(|outcome| call("inner", outcome));
    let expected = [miss, hit.clone(), call("outer", Miss), hit, call("outer", Hit)];
    assert_eq!(names(&calls), expected);
}

#[test]
fn calls_of_another_task_or_thread_are_not_seen() {
    #[cached(ttl = 60, prefix = "tasks")]
    async fn number(n: u8) -> u8 {
        Yield(false).await;
        n
    }
    let mut one = pin!(watch(async { number(1).await + number(1).await }));
    let mut other = pin!(watch(async { number(2).await + number(2).await + number(2).await }));
    let mut unwatched = pin!(number(3));
    assert!(poll(one.as_mut()).is_pending() && poll(other.as_mut()).is_pending());
    assert!(poll(unwatched.as_mut()).is_pending());
    assert_eq!(poll(unwatched), Poll::Ready(3));
    let Poll::Ready((2, calls)) = poll(one) else { panic!("its body is ready") };
    assert_eq!(outcomes(&calls), [Miss, Hit]);
    let Poll::Ready((6, calls)) = poll(other) else { panic!("its body is ready") };
    assert_eq!(outcomes(&calls), [Miss, Hit, Hit]);
    let (seen, calls) = watch_sync(|| {
        thread::scope(|scope| {
            scope.spawn(|| watch_sync(|| poll(pin!(number(1)))).1).join().expect("no panic")
        })
    });
    assert_eq!((outcomes(&seen), calls), (vec![Hit], vec![]));
    // A watch that is dropped before its end leaves nothing behind.
    {
        let mut dropped = pin!(watch(number(4)));
        assert!(poll(dropped.as_mut()).is_pending());
    }
    assert_eq!(outcomes(&watch_sync(|| poll(pin!(number(1)))).1), [Hit]);
}

#[test]
fn watch_ends_with_a_panic_and_the_outer_one_goes_on() {
    #[cached(ttl = 60, prefix = "panics")]
    fn number(n: u8) -> u8 {
        assert_ne!(n, 0, "planned panic");
        n
    }
    let (panicked, calls) = watch_sync(|| {
        number(1);
        let code = || watch_sync(|| (number(1), number(0)));
        let panicked = catch_unwind(AssertUnwindSafe(code)).is_err();
        number(1);
        panicked
    });
    assert!(panicked);
    assert_eq!(outcomes(&calls), [Miss, Hit, Hit], "with the call before the panic");
}

#[test]
fn caches_that_are_created_in_a_watch_are_watched() {
    #[cached(cache = cache, ttl = 60, key = "k")]
    fn number(cache: &MemoryCache) -> u8 {
        7
    }
    let ((), calls) = watch_sync(|| {
        let cache = MemoryCache::new();
        assert_eq!((number(&cache), number(&cache)), (7, 7));
        drop(cache);
        let cache = MemoryCache::new();
        assert_eq!(number(&cache), 7);
    });
    assert_eq!(outcomes(&calls), [Miss, Hit, Miss]);
}

#[test]
fn computation_in_a_task_belongs_to_its_call() {
    #[cached(ttl = 60, prefix = "inner of a task")]
    async fn inner(n: u8) -> u8 {
        tokio::task::yield_now().await;
        n
    }
    #[cached(ttl = 60, prefix = "in a task", spawn = tokio::spawn)]
    async fn outer(n: u8) -> u8 {
        inner(n).await;
        assert_ne!(n, 0, "planned panic");
        inner(n).await
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let (_, calls) = watch(async { outer(1).await + outer(1).await }).await;
        let names: Vec<_> = calls.iter().map(|call| (&call.function[..], call.outcome)).collect();
        let (nested, call) = ("inner of a task", "in a task");
        assert_eq!(names, [(nested, Miss), (nested, Hit), (call, Miss), (call, Hit)]);
        let (panicked, calls) = watch(async {
            let watched = watch(outer(0));
            // The task panics, and its caller with it.
            tokio::spawn(watched).await.is_err()
        })
        .await;
        assert!(panicked && calls.is_empty(), "a task of its own is not watched");
    });
    // The thread of the watch runs the task.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (_, calls) = watch_sync(|| runtime.block_on(outer(3)));
    assert_eq!(outcomes(&calls), [Miss, Hit, Miss], "each call once");
    // Without a runtime, the caller polls the rest of the computation.
    let mut call = pin!(watch(outer(2)));
    let calls = loop {
        if let Poll::Ready((_, calls)) = poll(call.as_mut()) {
            break calls;
        }
    };
    assert_eq!(outcomes(&calls), [Miss, Hit, Miss]);
}

#[test]
fn refresh_in_the_background_is_not_watched() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = tokio::spawn)]
    async fn outer(cache: MemoryCache) -> u8 {
        inner(cache.clone()).await
    }
    #[cached(cache = cache, ttl = "1h", key = "k")]
    async fn inner(cache: MemoryCache) -> u8 {
        tokio::task::yield_now().await;
        7
    }
    let (cache, clock) = memory();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (_, calls) = watch_sync(|| runtime.block_on(outer(cache.clone())));
    assert_eq!(outcomes(&calls), [Miss, Miss]);
    clock.advance(61 * SECOND);
    let code = || {
        runtime.block_on(async {
            outer(cache.clone()).await;
            for _ in 0..32 {
                tokio::task::yield_now().await;
            }
        });
    };
    let ((), calls) = watch_sync(code);
    assert_eq!(outcomes(&calls), [Stale]);
    assert_eq!((cache.stats().refreshes, cache.stats().hits), (1, 1), "the refresh has run");
}

#[test]
fn elements_of_a_batch_are_calls() {
    #[cached(ttl = 60, prefix = "batched", each = ids)]
    fn squares(ids: &[u32], is_up: bool) -> Result<Vec<u32>, ()> {
        if is_up { Ok(ids.iter().map(|id| id * id).collect()) } else { Err(()) }
    }
    let times = |calls: &[WatchedCall]| -> Vec<_> {
        let has_ttl = |call: &WatchedCall| call.ttl_left > Some(50 * SECOND);
        calls.iter().map(|call| (call.outcome, has_ttl(call))).collect()
    };
    let (_, calls) = watch_sync(|| squares(&[1, 2, 1], true));
    assert_eq!(times(&calls), [(Miss, true), (Miss, true)]);
    let (_, calls) = watch_sync(|| squares(&[2, 3], true));
    assert_eq!(times(&calls), [(Hit, true), (Miss, true)]);
    let (failed, calls) = watch_sync(|| squares(&[4], false));
    assert_eq!((failed, times(&calls)), (Err(()), vec![(Miss, false)]));
}

#[test]
fn calls_without_a_stored_value_have_no_ttl_left() {
    #[single_flight(prefix = "flown")]
    fn flown(n: u8) -> u8 {
        n
    }
    #[cached(ttl = 60, prefix = "bypassed", bypass_if = n > 100)]
    fn bypassed(n: u8) -> u8 {
        n
    }
    #[cached(ttl = 60, prefix = "small", cache_if = |&n: &u8| n < 10)]
    fn small(n: u8) -> u8 {
        n
    }
    #[cached(cache = cache, ttl = 60, prefix = "off", key = "k")]
    fn off(cache: &MemoryCache) -> u8 {
        1
    }
    let cache = MemoryCache::off_by_choice();
    let (_, calls) = watch_sync(|| (flown(1), bypassed(101), small(11), off(&cache)));
    let found: Vec<_> = calls.iter().map(|call| (&call.function[..], call.ttl_left)).collect();
    assert_eq!(found, ["flown", "bypassed", "small", "off"].map(|name| (name, None)));
    assert_eq!(outcomes(&calls), [Miss; 4]);
    let (_, calls) = watch_sync(|| (bypassed(1), small(1)));
    assert!(calls.iter().all(|call| call.ttl_left > Some(50 * SECOND)), "{calls:?}");
}

#[test]
fn future_of_a_watch_is_send() {
    #[cached(ttl = 60)]
    async fn number(n: u8) -> u8 {
        n
    }
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let Poll::Ready((3, calls)) = poll(pin!(is_send(watch(number(3))))) else {
        panic!("it is ready")
    };
    assert_eq!(calls.len(), 1);
}

#[test]
fn value_that_is_not_stored_or_was_invalidated_in_the_meantime_has_no_ttl_left() {
    #[cached(cache = cache, ttl = 60, key = "k", prefix = "gone", tags("t"), handle = number_entry)]
    async fn number<B: Backend, S>(cache: &Cache<B, S>) -> u8
    where
        S: Serializer<u8, Stored = B::Stored> + Clone,
    {
        Yield(false).await;
        7
    }
    fn run<B: Backend, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
    where
        S: Serializer<u8, Stored = B::Stored> + Clone,
    {
        type Invalidate<'a, B, S> = &'a dyn Fn(&Cache<B, S>);
        let by_entry: Invalidate<'_, B, S> = &|cache| drop(number_entry(cache).invalidate());
        let by_tag: Invalidate<'_, B, S> = &|cache| cache.invalidate_tag("t").unwrap();
        let by_nothing: Invalidate<'_, B, S> = &|_| {};
        let minute = Some(60 * SECOND);
        for (invalidate, expected) in [(by_nothing, minute), (by_entry, None), (by_tag, None)] {
            assert_eq!(ttls_left(&make(ManualClock::new()), invalidate), [expected; 2]);
        }
    }
    fn ttls_left<B: Backend, S>(
        cache: &Cache<B, S>,
        invalidate: impl Fn(&Cache<B, S>),
    ) -> [Option<Duration>; 2]
    where
        S: Serializer<u8, Stored = B::Stored> + Clone,
    {
        let mut calls = [(); 2].map(|()| Box::pin(watch(number(cache))));
        assert!(calls.each_mut().map(|call| poll(call.as_mut()).is_pending()) == [true; 2]);
        invalidate(cache);
        let mut outcomes = vec![Miss, Coalesced].into_iter();
        calls.map(|mut call| {
            loop {
                if let Poll::Ready((7, calls)) = poll(call.as_mut()) {
                    assert_eq!(calls[0].outcome, outcomes.next().unwrap());
                    break calls[0].ttl_left;
                }
            }
        })
    }
    run(|clock| MemoryOptions::new().clock(clock).build());
    run(|clock| MemoryOptions::new().clock(clock).build_moka());
    let backend = FaultyBackend::new(MapBackend::with_clock(ManualClock::new()));
    backend.set_fault(Fault::FailsWrites);
    let cache: Cache<_, MessagePack> = Cache::with_backend(backend);
    assert_eq!(ttls_left(&cache, |_| {}), [None; 2]);
}

#[test]
fn first_10_000_calls_of_a_watch_are_kept() {
    #[cached(ttl = 60, prefix = "many")]
    fn number(n: u32) -> u32 {
        n
    }
    let (nested, calls) = watch_sync(|| {
        assert_eq!((0..9_999).map(|_| number(1)).sum::<u32>(), 9_999);
        watch_sync(|| (number(2), number(3))).1
    });
    assert_eq!((nested.len(), calls.len()), (2, 10_000));
    assert_eq!((calls[9_998].outcome, calls[9_999].outcome), (Hit, Miss));
}
