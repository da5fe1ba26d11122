//! No hangs, stampedes or crashes: recursion, cancellation, panics, corrupt bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use vayu::backend::{
    AnyBackend, AnyValue, Backend, BackendExt, ByReference, EndListener, MemoryBackend, Serializer,
};
use vayu::testing::{Fault, FaultyBackend, ManualClock, MapBackend, watchdog};
use vayu::{Cache, ErrorKind, Key, MemoryCache, MessagePack, cached};

use crate::{HANG, Runs, until};

#[test]
fn recursion_ends() {
    #[cached(ttl = 60)]
    fn fib(n: u64) -> u64 {
        if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
    }
    #[cached(ttl = 60, key = "always the same")]
    fn constant_key(n: u64) -> u64 {
        if n < 2 { n } else { constant_key(n - 1) + constant_key(n - 2) }
    }
    #[cached(ttl = 60)]
    fn ackermann(m: u64, n: u64) -> u64 {
        match (m, n) {
            (0, n) => n + 1,
            (m, 0) => ackermann(m - 1, 1),
            (m, n) => ackermann(m - 1, ackermann(m, n - 1)),
        }
    }
    watchdog(HANG, || {
        assert_eq!(fib(90), 2_880_067_194_370_816_120);
        assert_eq!(constant_key(15), 610);
        assert_eq!(ackermann(2, 5), 13);
    });
}

#[test]
fn async_recursion_ends() {
    #[cached(ttl = 60)]
    async fn fib(n: u64) -> u64 {
        tokio::task::yield_now().await;
        if n < 2 { n } else { Box::pin(fib(n - 1)).await + Box::pin(fib(n - 2)).await }
    }
    watchdog(HANG, || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(fib(60)), 1_548_008_755_920);
    });
}

#[test]
fn two_functions_that_call_each_other_from_two_threads_end() {
    #[cached(ttl = 60)]
    fn even(n: u32, round: u32) -> bool {
        n == 0 || odd(n - 1, round)
    }
    #[cached(ttl = 60)]
    fn odd(n: u32, round: u32) -> bool {
        n != 0 && even(n - 1, round)
    }
    #[cached(ttl = 60)]
    fn left(round: u32) -> u32 {
        thread::yield_now();
        if round == u32::MAX { 0 } else { right(round) }
    }
    #[cached(ttl = 60, key = format!("{round}"))]
    fn right(round: u32) -> u32 {
        static DEPTH: Runs = Runs::new();
        if DEPTH.count().is_multiple_of(7) { 1 } else { left(round) }
    }
    watchdog(HANG, || {
        for round in 0..200 {
            thread::scope(|scope| {
                scope.spawn(move || assert!(even(20, round)));
                scope.spawn(move || assert!(odd(21, round)));
                scope.spawn(move || left(round));
                scope.spawn(move || right(round));
            });
        }
    });
}

#[test]
fn cancelled_caller_does_not_cancel_the_others() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60)]
    async fn slow(gate: u8) -> usize {
        let _ = gate;
        let run = RUNS.count();
        if run == 1 {
            std::future::pending::<()>().await;
        }
        run
    }
    watchdog(HANG, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
        runtime.block_on(async {
            let leader = tokio::spawn(slow(1));
            until(|| RUNS.get() == 1);
            let waiters: Vec<_> = (0..50).map(|_| tokio::spawn(slow(1))).collect();
            tokio::task::yield_now().await;
            leader.abort();
            for waiter in waiters {
                assert_eq!(waiter.await.expect("not cancelled"), 2);
            }
        });
    });
}

#[test]
fn leader_that_is_never_polled_again_does_not_block_the_others_forever() {
    static RUNS: Runs = Runs::new();
    let clock = ManualClock::new();
    let cache: Cache<_, ByReference> =
        Cache::with_backend(MapBackend::<AnyValue>::with_clock(clock.clone()));
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: &Cache<MapBackend<AnyValue>, ByReference>) -> usize {
        let run = RUNS.count();
        if run == 1 {
            std::future::pending::<()>().await;
        }
        run
    }
    watchdog(HANG, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut parked = Box::pin(call(&cache));
            assert!(poll_once(&mut parked).await.is_none());
            let advance = thread::spawn(move || {
                until(|| clock.sleepers() == 1);
                clock.advance(Duration::from_secs(30));
            });
            // On the same task: the first future is not polled again.
            assert_eq!(call(&cache).await, 2);
            advance.join().expect("the clock");
        });
    });
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn panic_poisons_no_lock_and_leaves_no_flight() {
    static PANICS: AtomicBool = AtomicBool::new(true);
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = 60)]
    fn fragile(n: u8) -> u8 {
        assert!(!PANICS.load(Ordering::SeqCst), "planned panic");
        n
    }
    for _ in 0..3 {
        assert!(std::panic::catch_unwind(|| fragile(1)).is_err());
        assert_eq!(CACHE.stats().in_flight, 0);
    }
    PANICS.store(false, Ordering::SeqCst);
    assert_eq!(fragile(1), 1);
}

#[test]
fn callers_of_a_failing_source_do_not_queue_up() {
    /// An error that callers cannot share.
    #[derive(Debug, PartialEq)]
    struct Down;
    static RUNS: Runs = Runs::new();
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
    static CACHE: LazyLock<Cache<MapBackend<AnyValue>, ByReference>> =
        LazyLock::new(|| Cache::with_backend(MapBackend::with_clock(CLOCK.clone())));
    #[cached(cache = CACHE, ttl = 60)]
    fn down() -> Result<(), Down> {
        if RUNS.count() == 1 {
            until(|| CLOCK.sleepers() == 15);
        } else {
            // Each waits for all the others, so serialized callers would hang.
            until(|| RUNS.get() == 16);
        }
        Err(Down)
    }
    watchdog(HANG, || {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(down(), Err(Down)));
            }
        });
    });
}

#[test]
fn function_succeeds_although_the_backend_fails() {
    let backend = FaultyBackend::new(MapBackend::<AnyValue>::default());
    let cache: Cache<_, ByReference> = Cache::with_backend(backend.clone());
    #[cached(cache = cache, ttl = 60, key = "k")]
    fn call(cache: &Cache<FaultyBackend<MapBackend<AnyValue>>, ByReference>) -> Result<u8, ()> {
        Ok(7)
    }
    for fault in [
        Fault::FailsReads,
        Fault::PanicsInReads,
        Fault::FailsWrites,
        Fault::PanicsInWrites,
        Fault::FailsDeletes,
        Fault::DropsStamps,
    ] {
        backend.set_fault(fault);
        assert_eq!(call(&cache), Ok(7), "{fault:?}");
        backend.set_fault(None);
        cache.remove(&Key::from_text("none", "k")).expect("remove");
        backend.clear().expect("clear");
    }
    assert!(cache.stats().errors >= 4);
}

#[test]
fn flight_table_is_empty_after_many_keys() {
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = 60)]
    fn fails(n: u32) -> Result<u32, u32> {
        Err(n)
    }
    for n in 0..50_000 {
        assert_eq!(fails(n), Err(n));
    }
    let stats = CACHE.stats();
    assert_eq!((stats.in_flight, stats.usage.entries), (0, Some(0)));
}

#[test]
fn corrupt_and_hostile_bytes_are_a_miss() {
    static CACHE: LazyLock<Cache<MapBackend, MessagePack>> = LazyLock::new(Cache::new);
    #[cached(cache = CACHE, ttl = 60, prefix = "hostile", key = "k")]
    fn call() -> Vec<Vec<String>> {
        vec![vec!["right".to_owned()]]
    }
    let right = call();
    let key = Key::from_text("hostile", "k");
    let stored = CACHE.backend().read(&key).expect("read").expect("an entry");
    let huge = [0xdd, 0xff, 0xff, 0xff, 0xff];
    let attacks: [&[u8]; 6] =
        [&[], &[0xc1], &huge, &[0x91; 100_000], &[0xff; 1000], &stored.value()[1..]];
    for attack in attacks {
        let record = vayu::backend::Record::new(
            bytes::Bytes::copy_from_slice(attack),
            stored.created(),
            stored.expires(),
        )
        .with_schema(stored.schema())
        .with_serializer(stored.serializer());
        CACHE.backend().write(&key, record).expect("write");
        assert_eq!(call(), right);
    }
    assert_eq!(CACHE.stats().errors_of(vayu::ErrorKind::Decode), 6);
}

#[test]
fn deserialize_that_panics_is_a_miss() {
    struct Fragile;
    impl serde::Serialize for Fragile {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }
    static PANICS: AtomicBool = AtomicBool::new(false);
    impl<'de> serde::Deserialize<'de> for Fragile {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            assert!(!PANICS.load(Ordering::SeqCst), "planned panic");
            Ok(Self)
        }
    }
    #[derive(Default)]
    struct Format;
    impl<T: serde::Serialize + serde::de::DeserializeOwned> Serializer<T> for Format {
        type Stored = bytes::Bytes;
        fn id(&self) -> vayu::backend::SerializerId {
            vayu::backend::SerializerId::user(7)
        }
        fn serialize(&self, _: &T) -> vayu::Result<bytes::Bytes> {
            Ok(bytes::Bytes::from_static(b"null"))
        }
        fn deserialize(&self, _: &bytes::Bytes) -> vayu::Result<T> {
            T::deserialize(serde::de::value::UnitDeserializer::<serde::de::value::Error>::new())
                .map_err(|_| vayu::Error::new(vayu::ErrorKind::Decode, "decode"))
        }
    }
    let cache: Cache<MapBackend, Format> = Cache::new();
    let (key, runs) = (Key::from_text("p", "k"), Runs::new());
    let call = || {
        cache.get_or_insert_with(&key, HANG, || {
            runs.count();
            Fragile
        })
    };
    call();
    PANICS.store(true, Ordering::SeqCst);
    call();
    assert_eq!(runs.get(), 2);
    assert_eq!(cache.stats().errors_of(vayu::ErrorKind::Panic), 1);
}

/// Tests that the futures of a cache can be spawned, and awaited in handlers.
macro_rules! futures_are_send {
    ($($test:ident: $cache:ty = $open:expr;)*) => {$(
        #[test]
        fn $test() {
            #[cached(cache = cache, ttl = "1m", skip(cache), tags("n:{n}"), handle = number_entry)]
            async fn number(cache: &$cache, n: u64) -> u64 {
                n
            }
            fn send<T: Send>(future: T) -> T {
                future
            }
            let cache: $cache = $open;
            let task = async move {
                let (key, minute) = (Key::from_text("prefix", "key"), Duration::from_secs(60));
                assert_eq!(send(number(&cache, 7)).await, 7);
                assert_eq!(send(number_entry(&cache, 7).peek_async()).await.expect("a read"), Some(7));
                assert_eq!(send(number_entry(&cache, 7).get_async()).await, 7);
                assert_eq!(send(number_entry(&cache, 7).refresh_async()).await, 7);
                assert!(send(number_entry(&cache, 7).invalidate_async()).await.is_ok());
                send(cache.set_async(&key, &8_u64, minute)).await.expect("a write");
                assert_eq!(send(cache.get_async(&key)).await.expect("a read"), Some(8_u64));
                let inserted = cache.get_or_insert_with_async(&key, minute, async { 9_u64 });
                assert_eq!(send(inserted).await, 8);
                assert!(send(cache.remove_async(&key)).await.expect("a removal"));
                send(cache.invalidate_tag_async("n:7")).await.expect("an invalidation");
                send(cache.invalidate_function_async(&number)).await.expect("an invalidation");
                send(cache.invalidate_prefix_async("prefix")).await.expect("an invalidation");
                send(cache.invalidate_all_async()).await.expect("an invalidation");
                send(cache.clear_async()).await.expect("a removal");
            };
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(runtime.spawn(task)).expect("the task ends");
        }
    )*};
}

futures_are_send! {
    futures_of_a_cache_opened_by_url_are_send: vayu::AnyCache = vayu::open("memory:").expect("memory");
    futures_of_a_backend_chosen_at_run_time_are_send: Cache<AnyBackend<bytes::Bytes>, MessagePack> =
        Cache::with_backend(AnyBackend::new(MapBackend::default()));
}

#[test]
fn backend_chosen_at_run_time_is_called_from_functions() {
    fn open(name: &str) -> Arc<dyn Backend<Stored = bytes::Bytes>> {
        match name {
            "map" => Arc::new(MapBackend::default()),
            _ => Arc::new(FaultyBackend::new(MapBackend::default())),
        }
    }
    type Chosen = Cache<Arc<dyn Backend<Stored = bytes::Bytes>>, MessagePack>;
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn call(cache: &Chosen, n: u64) -> usize {
        let _ = n;
        RUNS.count()
    }
    for name in ["map", "faulty"] {
        let cache: Chosen = Cache::with_backend(open(name));
        let first = call(&cache, 1);
        assert_eq!(call(&cache, 1), first);
    }
}

/// A value whose destructor calls its cache, and panics.
#[derive(Clone)]
struct Loud(Arc<dyn Fn() + Send + Sync>, Arc<AtomicBool>);

impl Drop for Loud {
    fn drop(&mut self) {
        if self.1.load(Ordering::SeqCst) {
            (self.0)();
            panic!("planned panic of a drop");
        }
    }
}

fn destructors_cannot_break_the_cache<B: Backend<Stored = AnyValue>>(
    open: impl Fn(vayu::MemoryOptions) -> Cache<B, ByReference> + Send + 'static,
) {
    watchdog(HANG, move || {
        let clock = ManualClock::new();
        let options = vayu::MemoryOptions::new().max_entries(64).clock(clock.clone());
        let cache = open(options);
        let is_loud = Arc::new(AtomicBool::new(false));
        let call_back: Arc<dyn Fn() + Send + Sync> = {
            let cache = cache.clone();
            Arc::new(move || {
                let key = Key::from_text("loud", "called back");
                cache.get_or_insert_with(&key, HANG, || 7_u64);
                cache.remove(&key).expect("remove");
                let _ = cache.stats();
            })
        };
        let fill = |count: u32| {
            is_loud.store(false, Ordering::SeqCst);
            for n in 0..count {
                let key = Key::new("loud", &(n,)).expect("a number");
                let value = Loud(Arc::clone(&call_back), Arc::clone(&is_loud));
                cache.set(&key, &value, HANG).expect("write");
            }
            is_loud.store(true, Ordering::SeqCst);
        };
        let quiet = Key::from_text("quiet", "");
        let output = || cache.get_or_insert_with(&quiet, HANG, || 1_u64);
        fill(64);
        for n in 0..200_u32 {
            let key = Key::new("evicts", &(n,)).expect("a number");
            assert_eq!(cache.get_or_insert_with(&key, HANG, || n), n);
        }
        fill(64);
        clock.advance(2 * HANG);
        assert_eq!(output(), 1);
        let _ = cache.stats();
        fill(64);
        cache.clear().expect("clear");
        assert_eq!(output(), 1);
        fill(1);
        let key = Key::new("loud", &(0_u32,)).expect("a number");
        cache.set(&key, &1_u64, HANG).expect("replace");
        fill(1);
        cache.remove(&key).expect("remove");
        assert_eq!((output(), cache.stats().in_flight), (1, 0));
        is_loud.store(false, Ordering::SeqCst);
    });
}

#[test]
fn destructors_that_call_the_cache_and_panic_cannot_break_it() {
    destructors_cannot_break_the_cache(vayu::MemoryOptions::build);
}

#[test]
fn destructors_that_call_the_cache_and_panic_cannot_break_moka() {
    destructors_cannot_break_the_cache(vayu::MemoryOptions::build_moka);
}

#[test]
fn value_that_is_not_stored_may_panic_when_it_is_dropped() {
    let cache = vayu::MemoryOptions::new().max_entries(0).build();
    let is_loud = Arc::new(AtomicBool::new(true));
    let key = Key::from_text("p", "k");
    let output =
        cache.get_or_insert_with(&key, HANG, || Loud(Arc::new(|| ()), Arc::clone(&is_loud)));
    is_loud.store(false, Ordering::SeqCst);
    drop(output);
    assert_eq!(cache.stats().in_flight, 0);
}

#[test]
fn unbounded_arguments_and_values_do_not_crash() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    enum List {
        End,
        More(Box<List>),
    }
    impl List {
        fn of(length: usize) -> Self {
            (0..length).fold(Self::End, |list, _| Self::More(Box::new(list)))
        }
        fn length(&self) -> usize {
            let (mut list, mut length) = (self, 0);
            while let Self::More(more) = list {
                (list, length) = (more, length + 1);
            }
            length
        }
        fn forget(mut self) {
            while let Self::More(more) = self {
                self = *more;
            }
        }
    }
    static CACHE: LazyLock<Cache<MapBackend, MessagePack>> = LazyLock::new(Cache::new);
    #[cached(cache = CACHE, ttl = 60)]
    fn length(list: &List) -> usize {
        list.length()
    }
    #[cached(cache = CACHE, ttl = 60)]
    fn make(length: usize) -> List {
        List::of(length)
    }
    #[cached(cache = CACHE, ttl = 60, serializer = vayu::Json)]
    fn make_json(length: usize) -> List {
        List::of(length)
    }
    let list = List::of(200_000);
    assert_eq!(length(&list), 200_000);
    list.forget();
    for make in [make, make_json] {
        let list = make(200_000);
        assert_eq!(list.length(), 200_000);
        list.forget();
        assert_eq!((make(50).length(), make(50).length()), (50, 50));
    }
    assert_eq!((CACHE.stats().inserts, CACHE.stats().hits), (2, 2));
}

#[test]
fn futures_of_nested_functions_grow_by_a_constant() {
    #[cached(ttl = 60)]
    async fn one(n: u8) -> u8 {
        let large = [n; 100];
        tokio::task::yield_now().await;
        large[7]
    }
    #[cached(ttl = 60)]
    async fn two(n: u8) -> u8 {
        one(n).await
    }
    #[cached(ttl = 60)]
    async fn three(n: u8) -> u8 {
        two(n).await
    }
    #[cached(ttl = 60)]
    async fn four(n: u8) -> u8 {
        three(n).await
    }
    let sizes =
        [size_of_val(&one(1)), size_of_val(&two(1)), size_of_val(&three(1)), size_of_val(&four(1))];
    for pair in sizes.windows(2) {
        assert!(pair[1] <= pair[0] + 2048, "{sizes:?}");
    }
}

#[test]
fn ttl_that_panics_on_a_hit_is_a_miss() {
    static PANICS: AtomicBool = AtomicBool::new(false);
    fn ttl<T>(_: &T) -> Duration {
        assert!(!PANICS.load(Ordering::SeqCst), "planned panic of a ttl");
        Duration::from_secs(60)
    }
    // With a fixed ttl both values are read without `catch_unwind`.
    #[cached(ttl = |value: &u64| ttl(value))]
    fn number(n: u64) -> u64 {
        n
    }
    #[cached(ttl = |value: &String| ttl(value))]
    fn text(n: u64) -> String {
        n.to_string()
    }
    for _ in 0..2 {
        assert_eq!((number(1), text(1)), (1, "1".to_owned()));
    }
    PANICS.store(true, Ordering::SeqCst);
    assert_eq!((number(1), text(1)), (1, "1".to_owned()));
}

/// The operations of a backend in the process run without a guard against panics. A wrapper of it whose own code may
/// panic is not in the process.
#[test]
fn panic_of_a_wrapper_of_memory_costs_the_storage_of_a_number_only() {
    let backend = FaultyBackend::new(MemoryBackend::default());
    let cache: Cache<_, ByReference> = Cache::with_backend(backend);
    for fault in [Fault::PanicsInWrites, Fault::PanicsInReads] {
        let before = cache.stats().errors_of(ErrorKind::Panic);
        cache.backend().set_fault(fault);
        let key = Key::from_text("numbers", "k");
        let number = cache.get_or_insert_with(&key, Duration::from_secs(60), || 7_u64);
        assert_eq!((number, cache.stats().in_flight), (7, 0), "{fault:?}");
        assert!(cache.stats().errors_of(ErrorKind::Panic) > before, "{fault:?}");
    }
}

#[test]
fn panic_of_a_listener_of_ends_concerns_no_other_listener_and_no_caller() {
    let cache: Cache<MemoryBackend, ByReference> = Cache::new();
    let ends = Arc::new(Runs::new());
    let other = Arc::clone(&ends);
    cache.backend().report_ends(EndListener::new(|_, _| panic!("planned")));
    cache.backend().report_ends(EndListener::new(move |_, _| {
        other.count();
    }));
    let key = Key::from_text("numbers", "k");
    let minute = Duration::from_secs(60);
    assert_eq!(cache.get_or_insert_with(&key, minute, || 7_u64), 7);
    cache.set(&key, &8_u64, minute).expect("set");
    assert_eq!((cache.get::<u64>(&key).expect("read"), ends.get()), (Some(8), 1));
}
