//! Calls of async functions, and sync calls among them.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use vayu::backend::{Backend, Bytes, Record, async_trait, forward_backend};
use vayu::testing::{ManualClock, MapBackend};
use vayu::time::{Clock, MonotonicClock};
use vayu::{Cache, Key, MemoryCache, MemoryOptions, MessagePack, cached, single_flight};

use crate::host;

type BoxFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Runs all checks and returns their number.
pub(crate) async fn check_all() -> usize {
    let checks: [(&str, BoxFuture); 9] = [
        ("second async call is a hit", Box::pin(second_async_call_is_a_hit())),
        ("running call is shared", Box::pin(running_call_is_shared())),
        ("wait ends after the limit", Box::pin(wait_ends_after_the_limit())),
        ("sync call does not wait for a task", Box::pin(sync_call_does_not_wait_for_a_task())),
        (
            "sync call does not wait for a suspended write",
            Box::pin(sync_call_does_not_wait_for_a_suspended_write()),
        ),
        (
            "sync call does not wait for a queued task",
            Box::pin(sync_call_does_not_wait_for_a_queued_task()),
        ),
        ("refresh runs as a task", Box::pin(refresh_runs_as_a_task())),
        ("sleep of a clock ends", Box::pin(sleep_of_a_clock_ends())),
        ("sleep ends without timers", Box::pin(sleep_ends_without_timers())),
    ];
    let number = checks.len();
    for (name, check) in checks {
        check.await;
        host::print(&format!("{name}: ok"));
    }
    number
}

/// A future that is pending once.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls a future once.
async fn is_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

/// Awaits two futures at the same time.
async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    poll_fn(|context| {
        poll_into(a.as_mut(), &mut of_a, context);
        poll_into(b.as_mut(), &mut of_b, context);
        match (of_a.take(), of_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (of_a, of_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

fn poll_into<F: Future>(
    future: Pin<&mut F>,
    output: &mut Option<F::Output>,
    context: &mut Context<'_>,
) {
    if output.is_none()
        && let Poll::Ready(ready) = future.poll(context)
    {
        *output = Some(ready);
    }
}

async fn second_async_call_is_a_hit() {
    static RUNS: AtomicU32 = AtomicU32::new(0);

    #[cached(ttl = "1h")]
    async fn call(_n: u64) -> u32 {
        yield_now().await;
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    assert_eq!((call(1).await, call(1).await, call(2).await), (1, 1, 2));
}

async fn running_call_is_shared() {
    static RUNS: AtomicU32 = AtomicU32::new(0);

    #[cached(ttl = "1h")]
    async fn call(_n: u64) -> u32 {
        yield_now().await;
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[single_flight]
    async fn shared(_n: u64) -> u32 {
        yield_now().await;
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    assert_eq!(join(call(1), call(1)).await, (1, 1));
    assert_eq!(join(shared(1), shared(1)).await, (2, 2));
}

/// The first run never ends. The second call waits for it up to the limit, by a timer of the host.
async fn wait_ends_after_the_limit() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    const LIMIT: Duration = Duration::from_millis(50);
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(|| MemoryCache::new().with_max_wait(LIMIT));

    #[cached(cache = CACHE, ttl = "1h")]
    async fn call(_n: u64) -> u32 {
        let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        if run == 1 {
            pending::<()>().await;
        }
        run
    }

    let began = MonotonicClock.now();
    let mut hung = pin!(call(1));
    assert!(is_pending(hung.as_mut()).await);
    assert_eq!(call(1).await, 2);
    let waited = MonotonicClock.now().saturating_since(began);
    assert!(waited + Duration::from_millis(10) >= LIMIT, "{waited:?}");
}

/// A task that is suspended on the only thread cannot make progress while a sync call blocks it.
async fn sync_call_does_not_wait_for_a_task() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    static IS_READY: AtomicBool = AtomicBool::new(false);

    #[cached(ttl = "1h", prefix = "one run", key = "one")]
    async fn in_task() -> u32 {
        while !IS_READY.load(Ordering::Relaxed) {
            yield_now().await;
        }
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[cached(ttl = "1h", prefix = "one run", key = "one")]
    fn at_once() -> u32 {
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    let mut task = pin!(in_task());
    assert!(is_pending(task.as_mut()).await);
    assert_eq!(at_once(), 1);
    IS_READY.store(true, Ordering::Relaxed);
    assert!(task.await > 0);
}

/// A task that was spawned has the lead, and was not polled yet.
async fn sync_call_does_not_wait_for_a_queued_task() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static QUEUE: RefCell<Vec<BoxFuture>> = RefCell::default();
    }

    fn enqueue(task: impl Future<Output = ()> + 'static) {
        QUEUE.with_borrow_mut(|queue| queue.push(Box::pin(task)));
    }

    #[cached(ttl = "1h", prefix = "queued run", key = "one", spawn = enqueue)]
    async fn in_task() -> u32 {
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[cached(ttl = "1h", prefix = "queued run", key = "one")]
    fn at_once() -> u32 {
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    let mut call = pin!(in_task());
    assert!(is_pending(call.as_mut()).await);
    let tasks = QUEUE.take();
    assert_eq!((tasks.len(), RUNS.load(Ordering::Relaxed)), (1, 0));
    let began = MonotonicClock.now();
    assert_eq!(at_once(), 1);
    assert!(MonotonicClock.now().saturating_since(began) < Duration::from_secs(1));
    for task in tasks {
        task.await;
    }
    assert!(call.await > 0);
}

/// A backend whose async writes are suspended until it is open.
struct Slow(MapBackend);

static IS_OPEN: AtomicBool = AtomicBool::new(false);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Slow {
    type Stored = Bytes;

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> vayu::Result<()> {
        while !IS_OPEN.load(Ordering::Relaxed) {
            yield_now().await;
        }
        self.0.write(key, record)
    }

    forward_backend! { |this| this.0 =>
        read write delete read_async delete_async read_now read_with read_optimistic
        is_in_process capabilities description clock
    }
}

async fn sync_call_does_not_wait_for_a_suspended_write() {
    type SlowCache = Cache<Slow, MessagePack>;
    static RUNS: AtomicU32 = AtomicU32::new(0);

    #[cached(cache = cache, ttl = "1h", prefix = "slow", key = "one")]
    async fn in_task(cache: &SlowCache) -> u32 {
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[cached(cache = cache, ttl = "1h", prefix = "slow", key = "one")]
    fn at_once(cache: &SlowCache) -> u32 {
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    let cache = Cache::with_backend(Slow(MapBackend::default()));
    let mut task = pin!(in_task(&cache));
    assert!(is_pending(task.as_mut()).await);
    let began = MonotonicClock.now();
    assert_eq!(at_once(&cache), 2);
    assert!(MonotonicClock.now().saturating_since(began) < Duration::from_secs(1));
    IS_OPEN.store(true, Ordering::Relaxed);
    assert_eq!(task.await, 1);
}

async fn refresh_runs_as_a_task() {
    static RUNS: AtomicU32 = AtomicU32::new(0);

    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "one", spawn = host::spawn)]
    async fn call(cache: MemoryCache) -> u32 {
        let _ = cache;
        yield_now().await;
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    }

    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert_eq!(call(cache.clone()).await, 1);
    clock.advance(Duration::from_secs(90));
    assert_eq!(call(cache.clone()).await, 1);
    assert!(vayu::finish_background_async(Duration::from_secs(60)).await);
    assert_eq!(call(cache).await, 2);
}

async fn sleep_of_a_clock_ends() {
    let began = MonotonicClock.now();
    MonotonicClock.sleep(Duration::from_millis(20)).await;
    assert!(MonotonicClock.now().saturating_since(began) >= Duration::from_millis(15));
}

/// A host of JavaScript may have no `setTimeout`.
async fn sleep_ends_without_timers() {
    host::remove_timers();
    sleep_of_a_clock_ends().await;
}
