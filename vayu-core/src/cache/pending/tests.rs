use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;

use super::*;
use crate::backend::{Backend, Capabilities};
use crate::cache::Cache;
use crate::generation::Generations;
use crate::testing::{ManualClock, MapBackend, watchdog};
use crate::{AnyValue, ByReference, Key, Record, forward_backend};

const HANG: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A server that can be unreachable, or refuse to bump generations. Clones are connections of other processes.
#[derive(Clone)]
struct Server {
    entries: MapBackend<AnyValue>,
    state: Arc<ServerState>,
}

#[derive(Default)]
struct ServerState {
    is_away: AtomicBool,
    refuses: AtomicBool,
    bumps: AtomicU64,
    /// The number of bumps that were begun.
    attempts: AtomicU64,
    /// Bumps take a while.
    is_slow: AtomicBool,
    /// The errors of bumps panic when they are formatted.
    has_bad_errors: AtomicBool,
}

/// An error that panics when it is formatted.
struct BadError;

impl std::fmt::Debug for BadError {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("planned panic of an error");
    }
}

impl std::fmt::Display for BadError {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("planned panic of an error");
    }
}

impl std::error::Error for BadError {}

impl Server {
    fn new(clock: &ManualClock) -> Self {
        Self { entries: MapBackend::with_clock(clock.clone()), state: Arc::default() }
    }

    fn open(&self) -> Cache<Self, ByReference> {
        Cache::with_backend(self.clone())
    }

    fn set_away(&self, is_away: bool) {
        self.state.is_away.store(is_away, Ordering::SeqCst);
    }

    fn check(&self, refuses: bool) -> Result<()> {
        if refuses || self.state.is_away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Backend, "planned failure"));
        }
        Ok(())
    }

    fn generations(&self) -> &dyn Generations {
        self.entries.capabilities().generations.expect("a map has them")
    }
}

#[async_trait]
impl Backend for Server {
    type Stored = AnyValue;

    fn read(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.check(false)?;
        self.entries.read(key)
    }

    fn write(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.check(false)?;
        self.entries.write(key, record)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.check(false)?;
        self.entries.delete(key)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        let entries = self.entries.capabilities();
        let capabilities = Capabilities::none().with_generations(self);
        Capabilities { clear: entries.clear, usage: entries.usage, ..capabilities }
    }

    forward_backend! { |this| this.entries => description clock }
}

#[async_trait]
impl Generations for Server {
    fn generation(&self, group: Group) -> Result<u64> {
        self.check(false)?;
        self.generations().generation(group)
    }

    fn bump(&self, group: Group) -> Result<()> {
        self.state.attempts.fetch_add(1, Ordering::SeqCst);
        if self.state.is_slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.state.has_bad_errors.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Backend, "planned failure").with_source(BadError));
        }
        self.check(self.state.refuses.load(Ordering::SeqCst))?;
        self.state.bumps.fetch_add(1, Ordering::SeqCst);
        self.generations().bump(group)
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        YieldNow::default().await;
        let bumped = self.bump(group);
        YieldNow::default().await;
        bumped
    }
}

/// A future that is pending once.
#[derive(Default)]
struct YieldNow(bool);

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn key(n: usize) -> Key {
    Key::from_text("page", n.to_string()).with_tags([format!("tag{n}")])
}

/// Returns the cached value of a key, or else that of a new computation, 2.
fn call(cache: &Cache<Server, ByReference>, n: usize) -> u32 {
    cache.get_or_insert_with(&key(n), HOUR, || 2)
}

/// Prevents the thread that delivers.
fn prevent_thread(cache: &Cache<Server, ByReference>) {
    cache.engine.shared.pending.state().deliverer = Some(std::process::id());
}

/// Makes an invalidation of `tag0` pending, and ends the backoff.
fn make_pending(clock: &ManualClock, cache: &Cache<Server, ByReference>) {
    let state = &cache.backend().state;
    state.refuses.store(true, Ordering::SeqCst);
    assert!(cache.invalidate_tag("tag0").is_err());
    state.refuses.store(false, Ordering::SeqCst);
    clock.advance(LONGEST_PAUSE);
}

/// Advances the clock until there are no pending groups: when the thread that delivers sleeps, so that entries do not
/// expire while it works.
fn deliver(clock: &ManualClock, cache: &Cache<Server, ByReference>) {
    while cache.engine.shared.pending.exist() {
        if clock.sleepers() > 0 {
            clock.advance(LONGEST_PAUSE);
        }
        std::thread::yield_now();
    }
}

#[test]
fn invalidations_of_a_server_that_is_away_for_a_minute_arrive_in_other_processes() {
    // Miri is slow.
    const CALLS: usize = if cfg!(miri) { 20 } else { 200 };
    const GROUPS: usize = CALLS / 4 * 3;
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let (one, other) = (server.open(), server.open());
        for n in 0..CALLS {
            one.set(&key(n), &1_u32, HOUR).expect("set");
            assert_eq!(call(&other, n), 1);
        }
        server.set_away(true);
        for n in 0..CALLS {
            assert!(one.invalidate_tag(format!("tag{}", n % GROUPS)).is_err());
            clock.advance(Duration::from_millis(60_000 / CALLS as u64));
            assert_eq!(call(&one, n), 2, "nothing is served without the server");
        }
        assert_eq!(one.engine.shared.pending.len(), GROUPS, "each group once");
        assert_eq!(server.state.bumps.load(Ordering::SeqCst), 0);
        server.set_away(false);
        deliver(&clock, &one);
        assert_eq!(server.state.bumps.load(Ordering::SeqCst), GROUPS as u64);
        for n in 0..CALLS {
            assert_eq!(call(&other, n), if n < GROUPS { 2 } else { 1 });
        }
    });
}

#[test]
fn entry_of_a_pending_group_is_not_served_although_it_can_be_read() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let (one, other) = (server.open(), server.open());
        for n in 0..2 {
            one.set(&key(n), &1_u32, HOUR).expect("set");
        }
        server.state.refuses.store(true, Ordering::SeqCst);
        assert!(one.invalidate_tag("tag0").is_err());
        for _ in 0..3 {
            clock.advance(Duration::from_millis(40));
            assert_eq!((call(&one, 0), call(&one, 1)), (2, 1));
            assert!(one.get::<u32>(&key(0)).is_err());
        }
        assert_eq!(call(&other, 0), 1, "it knows nothing yet");
        server.state.refuses.store(false, Ordering::SeqCst);
        deliver(&clock, &one);
        assert_eq!((call(&other, 0), call(&one, 0)), (2, 2));
        assert_eq!(one.get::<u32>(&key(0)).expect("get"), Some(2), "it is stored again");
    });
}

#[test]
fn next_call_delivers_an_invalidation_whose_future_was_dropped() {
    watchdog(HANG, || {
        for polls in 0..3 {
            let clock = ManualClock::new();
            let server = Server::new(&clock);
            let (one, other) = (server.open(), server.open());
            one.set(&key(0), &1_u32, HOUR).expect("set");
            {
                let mut invalidation = pin!(one.invalidate_tag_async("tag0"));
                for _ in 0..polls {
                    let polled =
                        invalidation.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    assert!(polled.is_pending());
                }
            }
            let expected = if polls == 0 { 1 } else { 2 };
            assert_eq!((call(&one, 0), call(&other, 0)), (expected, expected), "{polls}");
            deliver(&clock, &one);
        }
    });
}

#[test]
fn too_many_pending_groups_are_all_entries() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let (one, other) = (server.open(), server.open());
        for n in 0..2 {
            one.set(&key(n), &1_u32, HOUR).expect("set");
        }
        server.set_away(true);
        for n in 0..MAX_PENDING + 10 {
            assert!(one.invalidate_tag(format!("other{n}")).is_err());
        }
        assert_eq!(one.engine.shared.pending.len(), 1);
        server.set_away(false);
        deliver(&clock, &one);
        assert_eq!((call(&one, 0), call(&other, 1)), (2, 2));
        assert!(one.invalidate_tag("tag0").is_ok());
        assert_eq!(one.engine.shared.pending.len(), 0);
    });
}

#[test]
fn invalidation_that_fails_during_a_delivery_of_the_group_is_not_lost() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let one = server.open();
        prevent_thread(&one);
        make_pending(&clock, &one);
        let mut first = pin!(one.invalidate_tag_async("tag0"));
        let context = &mut Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(first.as_mut().poll(context).is_pending());
        }
        assert_eq!(server.state.bumps.load(Ordering::SeqCst), 1, "it is bumped");
        server.state.refuses.store(true, Ordering::SeqCst);
        assert!(one.invalidate_tag("tag0").is_err());
        assert!(matches!(first.as_mut().poll(context), Poll::Ready(Ok(()))));
        assert_eq!(one.stats().pending_invalidations, 1, "the second one");
    });
}

#[test]
fn concurrent_calls_deliver_a_group_once() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let one = server.open();
        one.set(&key(0), &1_u32, HOUR).expect("set");
        prevent_thread(&one);
        make_pending(&clock, &one);
        server.state.is_slow.store(true, Ordering::SeqCst);
        let (runs, barrier) = (AtomicU64::new(0), std::sync::Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let run = || {
                        runs.fetch_add(1, Ordering::SeqCst);
                        2_u32
                    };
                    assert_eq!(one.get_or_insert_with(&key(0), HOUR, run), 2);
                });
            }
        });
        assert_eq!(server.state.bumps.load(Ordering::SeqCst), 1);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn invalidation_during_the_backoff_is_pending_without_an_attempt() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let one = server.open();
        prevent_thread(&one);
        server.set_away(true);
        for n in 0..10 {
            assert!(one.invalidate_tag(format!("tag{n}")).is_err());
        }
        assert_eq!(server.state.attempts.load(Ordering::SeqCst), 1);
        assert_eq!(one.stats().pending_invalidations, 10);
    });
}

#[test]
fn invalidation_whose_error_panics_when_it_is_formatted_is_pending() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let one = server.open();
        one.set(&key(0), &1_u32, HOUR).expect("set");
        prevent_thread(&one);
        server.state.has_bad_errors.store(true, Ordering::SeqCst);
        let invalidate = || one.invalidate_tag("tag0").map_err(|error| error.kind());
        assert_eq!(invalidate(), Err(ErrorKind::Backend));
        server.state.has_bad_errors.store(false, Ordering::SeqCst);
        assert_eq!(one.stats().pending_invalidations, 1);
        clock.advance(LONGEST_PAUSE);
        assert_eq!(call(&one, 0), 2);
        assert_eq!(one.stats().pending_invalidations, 0);
    });
}

#[test]
fn call_without_generations_does_not_share_a_run_from_before_an_invalidation() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let server = Server::new(&clock);
        let one = server.open();
        server.set_away(true);
        let (began, has_begun) = std::sync::mpsc::channel();
        let (release, is_released) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let one = &one;
            let earlier = scope.spawn(move || {
                one.get_or_insert_with(&key(0), HOUR, || {
                    began.send(()).expect("send");
                    let _ = is_released.recv_timeout(Duration::from_millis(500));
                    1_u32
                })
            });
            has_begun.recv().expect("it begins");
            assert!(one.invalidate_tag("tag0").is_err());
            assert_eq!(call(one, 0), 2);
            drop(release);
            assert_eq!(earlier.join().expect("join"), 1);
        });
    });
}

#[test]
fn pauses_between_deliveries_double_up_to_the_longest() {
    let mut state = State::default();
    let pauses = (0..40).map(|failures| {
        state.failures = failures;
        state.pause()
    });
    let pauses: Vec<Duration> = pauses.collect();
    assert_eq!(pauses[..4], [50, 50, 100, 200].map(Duration::from_millis));
    assert_eq!(pauses[39], LONGEST_PAUSE);
}

#[test]
fn delivery_at_the_end_of_a_program_returns_the_number_of_groups_that_are_left() {
    watchdog(HANG, || {
        for is_async in [false, true] {
            let clock = ManualClock::new();
            let server = Server::new(&clock);
            let cache = server.open();
            let deliver = |timeout| {
                if is_async {
                    crate::sync::block_on(cache.deliver_pending_async(timeout))
                } else {
                    cache.deliver_pending(timeout)
                }
            };
            assert_eq!(deliver(HOUR), 0, "nothing is pending");
            server.set_away(true);
            for tag in ["a", "b"] {
                cache.invalidate_tag(tag).expect_err("the server is away");
            }
            assert_eq!(deliver(Duration::ZERO), 2);
            std::thread::scope(|scope| {
                let left = scope.spawn(|| deliver(Duration::MAX));
                // It sleeps between its attempts, as the thread of the cache does.
                for step in 0.. {
                    if step == 10 {
                        assert!(!left.is_finished(), "the server is away");
                        server.set_away(false);
                    }
                    if left.is_finished() {
                        break;
                    }
                    clock.advance(LONGEST_PAUSE);
                    std::thread::yield_now();
                }
                assert_eq!(left.join().expect("no panic"), 0);
            });
            assert!(server.state.bumps.load(Ordering::SeqCst) >= 2);
            assert_eq!(cache.stats().pending_invalidations, 0);
        }
    });
}
