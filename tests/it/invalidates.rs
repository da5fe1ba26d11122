//! `#[invalidates]`: a function that writes invalidates what was made of the old data.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use vayu::backend::{Backend, Capabilities, Generations, Group, Serializer, forward_backend};
use vayu::testing::{ManualClock, MapBackend, watchdog};
use vayu::{Cache, Error, ErrorKind, MemoryCache, MessagePack, cached, invalidates};

use crate::{HANG, poll, until, with_every_backend};

#[cached(cache = cache, ttl = "1h", prefix = "name", skip(cache, source), tags("user:{id}"))]
fn name<B, S>(cache: &Cache<B, S>, id: u32, source: &AtomicU32) -> u32
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    source.load(Ordering::SeqCst)
}

/// The way in which a function ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ok,
    Err,
    Panic,
}

impl End {
    fn reach(self) -> Result<u32, &'static str> {
        match self {
            Self::Ok => Ok(7),
            Self::Err => Err("failed"),
            Self::Panic => panic!("planned panic"),
        }
    }
}

#[invalidates(cache = cache, tags("user:{id}"))]
fn rename<B: Backend, S>(
    cache: &Cache<B, S>,
    id: u32,
    source: &AtomicU32,
    end: End,
) -> Result<u32, &'static str> {
    source.fetch_add(1, Ordering::SeqCst);
    if end == End::Err {
        return Err("failed");
    }
    end.reach()
}

#[invalidates(cache = cache, tags(format!("user:{id}")))]
async fn rename_async<B: Backend, S>(
    cache: &Cache<B, S>,
    id: u32,
    source: &AtomicU32,
    end: End,
) -> Result<u32, &'static str> {
    source.fetch_add(1, Ordering::SeqCst);
    let value = end.reach()?;
    Ok(value)
}

/// Polls a future to its end on this thread.
fn run<T>(future: impl Future<Output = T>) -> T {
    smol::block_on(future)
}

fn follow_the_end<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    for is_async in [false, true] {
        let (clock, source) = (ManualClock::new(), AtomicU32::new(1));
        let cache = open(clock.clone());
        let rename = |id, end| {
            let rename = || {
                if is_async {
                    run(rename_async(&cache, id, &source, end))
                } else {
                    rename(&cache, id, &source, end)
                }
            };
            let outcome = catch_unwind(AssertUnwindSafe(rename)).ok();
            // Outside of the periods in which generations are cached.
            clock.advance(Duration::from_millis(200));
            outcome
        };
        let names = || (name(&cache, 1, &source), name(&cache, 2, &source));
        assert_eq!(names(), (1, 1));
        assert_eq!(rename(1, End::Ok), Some(Ok(7)));
        assert_eq!(names(), (2, 1));
        assert_eq!(rename(1, End::Err), Some(Err("failed")));
        assert_eq!(names(), (2, 1), "a function that has failed has written nothing");
        assert_eq!(rename(2, End::Panic), None);
        assert_eq!(names(), (2, 4), "one that has panicked may have written");
    }
}

#[test]
fn write_invalidates_unless_it_fails_on_every_backend() {
    watchdog(HANG, || with_every_backend!(follow_the_end));
}

static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);

/// A shop whose prices change.
struct Shop {
    region: String,
    prices: Vec<u32>,
}

impl Shop {
    #[cached(cache = CACHE, ttl = "1h", key = format!("{} {n}", self.region))]
    fn price(&self, n: usize) -> u32 {
        self.prices[n]
    }

    #[cached(cache = CACHE, ttl = "1h", prefix = "total", key = self.region.clone())]
    fn total(&self) -> u32 {
        self.prices.iter().sum()
    }

    /// Returns what borrows from the shop.
    #[invalidates(cache = CACHE, functions(Self::price, Shop::price), prefixes("total"))]
    fn set_price(&mut self, n: usize, mut price: u32) -> &mut u32 {
        price += 1;
        self.prices[n] = price;
        &mut self.prices[n]
    }

    #[invalidates(cache = CACHE, all)]
    async fn clear(&mut self, region: String) {
        if region != self.region {
            return;
        }
        self.prices.fill(0);
    }
}

#[async_trait]
trait Change {
    async fn change(&mut self, price: u32) -> Result<u32, String>;
}

#[async_trait]
impl Change for Shop {
    #[invalidates(cache = CACHE, prefixes("total"), functions(Self::price))]
    async fn change(&mut self, price: u32) -> Result<u32, String> {
        self.prices.push(price);
        if price == 0 { Err("free".to_owned()) } else { Ok(price) }
    }
}

#[test]
fn methods_of_all_kinds_invalidate_functions_and_prefixes() {
    let mut shop = Shop { region: "EU".to_owned(), prices: vec![1, 2] };
    assert_eq!((shop.price(0), shop.total()), (1, 3));
    *shop.set_price(0, 4) += 1;
    assert_eq!((shop.price(0), shop.total()), (6, 8));
    assert_eq!(run(shop.change(2)), Ok(2));
    assert_eq!(shop.total(), 10);
    assert_eq!(run(shop.change(0)), Err("free".to_owned()));
    shop.prices.push(1);
    assert_eq!(shop.total(), 10);
    run(shop.clear("EU".to_owned()));
    assert_eq!((shop.price(0), shop.total()), (0, 0));
}

#[test]
fn generic_functions_and_those_with_impl_trait_invalidate() {
    #[invalidates(cache = cache, tags("user:{id}"), functions(name::<B, S>))]
    fn add<T, B, S>(cache: Cache<B, S>, id: u32, value: T) -> impl Iterator<Item = T>
    where
        B: Backend,
        S: Serializer<u32, Stored = B::Stored>,
    {
        let _moved = cache;
        std::iter::once(value)
    }
    #[invalidates(cache = cache, all)]
    #[allow(unused_mut)]
    fn alias(cache: &MemoryCache, (mut id, _): (u32, u32)) -> std::io::Result<()> {
        match id {
            0 => Err(std::io::Error::other("failed")),
            _ => Ok(()),
        }
    }

    let (cache, source) = (MemoryCache::new(), AtomicU32::new(1));
    let name = || name(&cache, 1, &source);
    assert_eq!(name(), 1);
    source.store(2, Ordering::SeqCst);
    assert_eq!(add(cache.clone(), 1, 'a').next(), Some('a'));
    assert_eq!(name(), 2);
    source.store(3, Ordering::SeqCst);
    assert!(alias(&cache, (0, 0)).is_err());
    assert_eq!(name(), 2, "the alias of a `Result` is one");
    assert!(alias(&cache, (1, 0)).is_ok());
    assert_eq!(name(), 3);
}

#[test]
fn order_is_after_the_write_unless_it_is_said_to_be_before() {
    #[invalidates(cache = cache, tags("user:{id}"))]
    fn after(cache: &MemoryCache, id: u32, source: &AtomicU32) -> u32 {
        name(cache, id, source)
    }
    #[invalidates(cache = cache, tags("user:{id}"), before)]
    fn before(cache: &MemoryCache, id: u32, source: &AtomicU32) -> Result<u32, u32> {
        Err(name(cache, id, source))
    }
    #[invalidates(cache = cache, tags("user:{id}"), before, after)]
    async fn both(cache: &MemoryCache, id: u32, source: &AtomicU32) -> u32 {
        name(cache, id, source)
    }

    let (cache, source) = (MemoryCache::new(), AtomicU32::new(0));
    let next = || source.fetch_add(1, Ordering::SeqCst);
    let name = || name(&cache, 1, &source);
    assert_eq!((name(), next()), (0, 0));
    assert_eq!((after(&cache, 1, &source), name()), (0, 1));
    next();
    assert_eq!(before(&cache, 1, &source), Err(2));
    next();
    assert_eq!(name(), 2, "it is not invalidated again");
    assert_eq!(run(both(&cache, 1, &source)), 3);
    next();
    assert_eq!(name(), 4);
}

/// A server whose replies take several polls, and that can be away. Clones are connections of other processes.
#[derive(Clone)]
struct Remote {
    map: MapBackend,
    is_away: Arc<AtomicBool>,
}

impl Remote {
    fn open() -> (ManualClock, Cache<Self, MessagePack>, Cache<Self, MessagePack>) {
        let clock = ManualClock::new();
        let map = MapBackend::with_clock(clock.clone());
        let remote = Self { map, is_away: Arc::default() };
        (clock, Cache::with_backend(remote.clone()), Cache::with_backend(remote))
    }

    fn generations(&self) -> Result<&dyn Generations, Error> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Backend, "planned failure"));
        }
        Ok(self.map.capabilities().generations.expect("a map has them"))
    }
}

#[async_trait]
impl Backend for Remote {
    type Stored = <MapBackend as Backend>::Stored;

    fn capabilities(&self) -> Capabilities<'_, Self::Stored> {
        let map = self.map.capabilities();
        let capabilities = Capabilities::none().with_generations(self);
        Capabilities { clear: map.clear, usage: map.usage, ..capabilities }
    }

    forward_backend! { |this| this.map =>
        read write delete read_async write_async delete_async description clock
    }
}

#[async_trait]
impl Generations for Remote {
    fn generation(&self, group: Group) -> vayu::Result<u64> {
        self.generations()?.generation(group)
    }

    fn bump(&self, group: Group) -> vayu::Result<()> {
        self.generations()?.bump(group)
    }

    async fn bump_async(&self, group: Group) -> vayu::Result<()> {
        smol::future::yield_now().await;
        let bumped = self.bump(group);
        smol::future::yield_now().await;
        bumped
    }
}

#[invalidates(cache = cache, tags("user:{id}", "all users"), before, after)]
async fn slow_rename<B: Backend, S>(cache: &Cache<B, S>, id: u32, source: &AtomicU32) -> u32 {
    smol::future::yield_now().await;
    source.fetch_add(1, Ordering::SeqCst);
    smol::future::yield_now().await;
    id
}

fn cancel_everywhere<B, S>(clock: &ManualClock, one: &Cache<B, S>, other: &Cache<B, S>) -> usize
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    let source = AtomicU32::new(1);
    for polls in 0.. {
        let names = || (name(one, 1, &source), name(other, 1, &source));
        let before = source.load(Ordering::SeqCst);
        assert_eq!(names(), (before, before));
        let mut is_over = false;
        {
            let mut call = pin!(slow_rename(one, 1, &source));
            for _ in 0..polls {
                is_over = matches!(poll(call.as_mut()), Poll::Ready(_));
            }
        }
        let now = source.load(Ordering::SeqCst);
        assert_eq!(name(one, 1, &source), now, "after {polls} polls");
        // The thread that delivers to other processes may take a while.
        until(|| {
            clock.advance(Duration::from_millis(200));
            one.stats().pending_invalidations == 0
        });
        assert_eq!(names(), (now, now), "after {polls} polls");
        if is_over {
            return polls;
        }
    }
    unreachable!("it ends")
}

#[test]
fn future_that_is_dropped_at_any_await_point_leaves_nothing_outdated() {
    watchdog(HANG, || {
        let (clock, one, other) = Remote::open();
        // Two awaits in the function, and two for each bump of two groups, before and after.
        assert_eq!(cancel_everywhere(&clock, &one, &other), 2 + 2 * 2 * 2 + 1);
        let memory = MemoryCache::new();
        assert_eq!(cancel_everywhere(&clock, &memory, &memory), 3);
    });
}

#[test]
fn write_succeeds_while_the_backend_is_away_and_is_seen_once_it_is_back() {
    watchdog(HANG, || {
        let (clock, one, other) = Remote::open();
        let source = AtomicU32::new(1);
        let names = |cache| (name(cache, 1, &source), name(cache, 2, &source));
        assert_eq!((names(&one), names(&other)), ((1, 1), (1, 1)));
        one.backend().is_away.store(true, Ordering::SeqCst);
        for _ in 0..60 {
            assert_eq!(rename(&one, 1, &source, End::Ok), Ok(7));
            assert!(
                catch_unwind(AssertUnwindSafe(|| rename(&one, 1, &source, End::Panic))).is_err()
            );
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(one.stats().pending_invalidations, 1);
        assert!(one.stats().errors_of(ErrorKind::Backend) >= 60, "each is counted");
        one.backend().is_away.store(false, Ordering::SeqCst);
        until(|| {
            clock.advance(Duration::from_secs(1));
            one.stats().pending_invalidations == 0
        });
        assert_eq!((names(&other), names(&one)), ((121, 1), (121, 1)));
    });
}
