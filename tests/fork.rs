//! Caches of the parent in a forked child process.
//!
//! Without the test harness: only the thread that calls `fork` exists in the child.

#[cfg(unix)]
#[path = "redis/server.rs"]
#[expect(dead_code, reason = "these tests need a part of it")]
mod server;

#[cfg(unix)]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{what} within a minute");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[cfg(unix)]
fn main() {
    macro_rules! named {
        ($($test:ident)*) => {
            &[$((stringify!($test), unix::$test as fn())),*]
        };
    }
    let tests = named! {
        computation_of_the_parent_does_not_hold_up_the_child
        lock_of_a_thread_of_the_parent_does_not_stop_the_child
        search_for_a_deadlock_in_the_parent_does_not_stop_a_batch_of_the_child
        functions_of_the_parent_are_those_of_the_child
        memory_in_front_of_redis_is_not_trusted_in_the_child
        store_of_the_parent_is_refused_in_the_child
        removal_in_the_child_of_an_update_takes_effect_after_it
        lock_of_a_key_is_released_though_the_child_has_a_copy_of_its_file
        lease_of_the_parent_is_not_released_by_the_child
    };
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    println!("\n{} passed, 0 failed", tests.len());
}

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
mod unix {
    use std::collections::{BTreeMap, HashSet};
    use std::future::{Future, pending, poll_fn};
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Barrier, LazyLock, mpsc};
    use std::task::{Context, Poll, Waker};
    use std::thread;
    use std::time::Duration;

    use fork::{Fork, WEXITSTATUS, WIFEXITED};
    use vayu::attribute::{KeyBuilder, function_prefix};
    use vayu::backend::{Backend, Lease, RedisBackend, Serializer};
    use vayu::testing::watchdog;
    use vayu::{
        Cache, FileOptions, Key, MemoryCache, MemoryOptions, ObjectCache, RedisCache, RedisOptions,
        SingleFlight, TieredCache, TieredOptions, cached,
    };

    use crate::server::Server;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Runs `child` in a child process while `parent` runs in this one. The child must return true
    /// within a minute.
    fn beside_child(child: impl FnOnce() -> bool, parent: impl FnOnce()) {
        match fork::fork().expect("a child") {
            Fork::Child => {
                abort_after_a_minute();
                std::process::exit(i32::from(!child()))
            }
            Fork::Parent(process) => {
                parent();
                wait_for(process);
            }
        }
    }

    /// Aborts a child that hangs.
    fn abort_after_a_minute() {
        thread::spawn(|| {
            thread::sleep(MINUTE);
            std::process::abort();
        });
    }

    /// Waits for the end of a child, which must be successful.
    fn wait_for(process: i32) {
        let status = watchdog(MINUTE, move || fork::waitpid(process)).expect("a status");
        assert!(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status {status}");
    }

    /// The function of an update forks, so that the child goes on with an update that began in its parent.
    pub(crate) fn removal_in_the_child_of_an_update_takes_effect_after_it() {
        let cache = MemoryCache::new();
        let key = &Key::from_text("key", "k");
        let mut child = None;
        let updated = cache.update_with(key, MINUTE, |_: Option<u64>| {
            match fork::fork().expect("a child") {
                Fork::Parent(process) => child = Some(process),
                Fork::Child => {
                    // Its flights are in a table of its own from now on.
                    assert_eq!(cache.stats().in_flight, 0);
                    cache.remove(key).expect("removed");
                }
            }
            7
        });
        let Some(process) = child else {
            let is_right = updated.is_ok() && cache.get::<u64>(key).unwrap().is_none();
            std::process::exit(i32::from(!is_right))
        };
        wait_for(process);
        assert_eq!(updated.expect("updated"), 7);
        assert_eq!(cache.get::<u64>(key).unwrap(), Some(7), "in the parent");
    }

    /// An async call releases the lock before a blocking thread removes its file.
    pub(crate) fn lock_of_a_key_is_released_though_the_child_has_a_copy_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let options = FileOptions::new().single_flight(SingleFlight::Everywhere);
        let cache = options.open(directory.path()).unwrap();
        let leases = cache.backend().capabilities().leases.expect("it has leases");
        let key = &Key::from_text("key", "k");
        let done = directory.path().join("done");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let lease = runtime.block_on(leases.try_acquire_async(key)).unwrap();
        assert!(matches!(lease, Lease::Acquired(_)));
        let child = || {
            crate::until("the parent", || done.exists());
            true
        };
        beside_child(child, || {
            drop(lease);
            // The thread that removes the file ends.
            drop(runtime);
            let again = leases.try_acquire(key).unwrap();
            std::fs::write(&done, "").unwrap();
            assert!(matches!(again, Lease::Acquired(_)), "{again:?}");
        });
    }

    /// The function forks, and its call in the child ends before that in the parent.
    pub(crate) fn lease_of_the_parent_is_not_released_by_the_child() {
        fn check<B, S>(open: impl Fn() -> Cache<B, S>)
        where
            B: Backend,
            S: Serializer<u64, Stored = B::Stored> + Clone + Send + Sync + 'static,
        {
            let (cache, other) = (open(), open());
            let key = &Key::from_text("key", "k");
            let others = other.backend().capabilities().leases.expect("it has leases");
            let fork = || match fork::fork().expect("a child") {
                Fork::Child => {
                    abort_after_a_minute();
                    None
                }
                Fork::Parent(process) => {
                    wait_for(process);
                    Some(others.try_acquire(key).unwrap())
                }
            };
            let mut found = None;
            cache.get_or_insert_with(key, MINUTE, || {
                found = fork();
                7_u64
            });
            let Some(lease) = found.take() else { std::process::exit(0) };
            assert!(matches!(lease, Lease::Held), "{lease:?}");

            cache.remove(key).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let mut call = Box::pin(cache.get_or_insert_with_async(key, MINUTE, async {
                found = fork();
                7_u64
            }));
            let parent = std::process::id();
            // The runtime does not work in the child, which drops the call.
            runtime.block_on(poll_fn(|context| {
                let is_over = call.as_mut().poll(context).is_ready();
                let is_child = std::process::id() != parent;
                if is_over || is_child { Poll::Ready(()) } else { Poll::Pending }
            }));
            drop(call);
            let Some(lease) = found else { std::process::exit(0) };
            assert!(matches!(lease, Lease::Held), "{lease:?}");
        }

        let directory = tempfile::tempdir().unwrap();
        let everywhere = SingleFlight::Everywhere;
        check(|| FileOptions::new().single_flight(everywhere).open(directory.path()).unwrap());
        let server = Server::start();
        check(|| RedisOptions::new().single_flight(everywhere).connect(server.url()).unwrap());
    }

    pub(crate) fn computation_of_the_parent_does_not_hold_up_the_child() {
        static SET_OUT: Barrier = Barrier::new(2);
        static FORKED: Barrier = Barrier::new(2);
        // Longer than the time limit of the test, so a child that waits fails it.
        static CACHE: LazyLock<MemoryCache> =
            LazyLock::new(|| MemoryCache::new().with_max_wait(10 * MINUTE));

        #[cached(cache = CACHE, ttl = "1h")]
        fn process_of(in_the_parent: u32) -> u32 {
            if std::process::id() == in_the_parent {
                SET_OUT.wait();
                FORKED.wait();
            }
            std::process::id()
        }

        let parent = std::process::id();
        let leader = thread::spawn(move || process_of(parent));
        SET_OUT.wait();
        beside_child(
            || process_of(parent) == std::process::id(),
            || {
                // The child has a flight of its own, or it would wait for this one.
                FORKED.wait();
            },
        );
        assert_eq!(leader.join().expect("no panic"), parent);
    }

    /// Threads of the parent hit, miss, evict and sweep while it forks, so that locks are sometimes held by
    /// threads that do not exist in the child.
    pub(crate) fn lock_of_a_thread_of_the_parent_does_not_stop_the_child() {
        static TEXTS: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
        static HEAVY: LazyLock<MemoryCache> =
            LazyLock::new(|| MemoryOptions::new().max_weight(1_000, |_, _| 1).build());

        #[cached(cache = TEXTS, ttl = "1ms")]
        fn text(n: u64) -> String {
            n.to_string()
        }
        #[cached(cache = TEXTS, ttl = "1ms")]
        fn number(n: u64) -> u64 {
            n
        }
        #[cached(cache = TEXTS, ttl = "1ms", each = ids)]
        fn batch(ids: &[u64]) -> BTreeMap<u64, u64> {
            ids.iter().map(|&n| (n, n)).collect()
        }
        #[cached(cache = HEAVY, ttl = "1h")]
        fn heavy(n: u64) -> String {
            n.to_string()
        }

        static IS_OVER: AtomicBool = AtomicBool::new(false);
        // A child that is forked while another thread creates a cache waits for it: the lock is one of the
        // standard library, in the static of the program.
        LazyLock::force(&TEXTS);
        LazyLock::force(&HEAVY);
        let busy = |start: u64| {
            for n in start.. {
                if IS_OVER.load(Ordering::Relaxed) {
                    break;
                }
                text(n % 3_000);
                number(n % 3_000);
                heavy(n % 3_000);
                batch(&[n % 3_000, n % 3_000 + 1]);
                // It holds the lock of the list twice.
                drop(MemoryOptions::new().max_entries(1).build());
            }
        };
        let threads = [0, 500, 1_000, 1_500, 2_000, 2_500].map(|n| thread::spawn(move || busy(n)));
        for _ in 0..60 {
            let child = || {
                let is_right = |n: u64| {
                    let is_right = text(n) == n.to_string() && heavy(n) == n.to_string();
                    is_right && number(n) == n && batch(&[n, n + 1]).len() == 2
                };
                let is_right = (0..400).all(is_right);
                let stats = [&*TEXTS, &*HEAVY].map(MemoryCache::stats);
                TEXTS.clear().expect("a clear");
                let cache = MemoryOptions::new().max_entries(1).build().with_name("of the child");
                let is_listed = vayu::caches().iter().any(|listed| listed.name == "of the child");
                drop(cache);
                is_right && is_listed && stats.iter().all(|stats| stats.in_flight == 0)
            };
            beside_child(child, || ());
        }
        IS_OVER.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no panic");
        }
    }

    /// A thread of the parent searches a long chain of batches that wait for each other, again and again, so that it holds
    /// the lock of the wait-for graph at the time of a fork.
    pub(crate) fn search_for_a_deadlock_in_the_parent_does_not_stop_a_batch_of_the_child() {
        static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        const LENGTH: u64 = 200;

        /// Waits for an element of the next batch of the chain. The last one never ends.
        #[cached(cache = CACHE, ttl = "1h", each = ids, prefix = "chain")]
        async fn link(ids: Vec<u64>) -> Vec<u64> {
            let next = ids[1] + 1;
            if next < 2 * LENGTH {
                one(next).await;
            }
            pending().await
        }
        #[cached(cache = CACHE, ttl = "1h", prefix = "chain")]
        async fn one(id: u64) -> u64 {
            assert!(id >= 2 * LENGTH, "a batch computes it");
            id
        }
        #[cached(cache = CACHE, ttl = "1h", each = ids)]
        async fn first(ids: Vec<u64>) -> Vec<u64> {
            one(0).await;
            ids
        }
        #[cached(cache = CACHE, ttl = "1h", each = ids)]
        fn batch(ids: &[u64]) -> BTreeMap<u64, u64> {
            ids.iter().map(|&n| (n, n)).collect()
        }

        let (send, is_searching) = mpsc::channel();
        let searcher = thread::spawn(move || {
            let mut context = Context::from_waker(Waker::noop());
            let chain = (0..LENGTH).rev().map(|n| Box::pin(link(vec![2 * n, 2 * n + 1])));
            let mut chain: Vec<_> = chain.collect();
            for link in &mut chain {
                assert!(link.as_mut().poll(&mut context).is_pending());
            }
            while !IS_OVER.load(Ordering::Relaxed) {
                assert!(pin!(first(vec![1, 2])).poll(&mut context).is_pending());
                let _ = send.send(());
            }
        });
        is_searching.recv().expect("a search");
        for _ in 0..10 {
            beside_child(|| batch(&[1, 2]).len() == 2, || ());
        }
        IS_OVER.store(true, Ordering::Relaxed);
        searcher.join().expect("no panic");
    }

    /// Calls a function of each instance of a generic function.
    trait Each {
        fn each<P>(call: &mut impl FnMut(Key));
    }
    struct End;
    struct Twice<T>(T);
    impl Each for End {
        fn each<P>(call: &mut impl FnMut(Key)) {
            call(key_of::<P>());
        }
    }
    fn key_of<P>() -> Key {
        let mut builder = KeyBuilder::arguments();
        builder.end_arguments();
        builder.finish_of(function_prefix(&|| size_of::<P>()));
        builder.key().expect("a key").clone()
    }
    impl<T: Each> Each for Twice<T> {
        fn each<P>(call: &mut impl FnMut(Key)) {
            T::each::<(P, u8)>(call);
            T::each::<(P, i8)>(call);
        }
    }

    /// A thread of the parent calls functions for the first time while it forks.
    pub(crate) fn functions_of_the_parent_are_those_of_the_child() {
        type Eight<T> = Twice<Twice<Twice<T>>>;
        type Functions = Eight<Eight<Twice<Twice<End>>>>;

        let (send, receive) = mpsc::channel();
        let caller = thread::spawn(move || {
            Functions::each::<()>(&mut |key| {
                send.send(key).expect("a receiver");
                thread::sleep(Duration::from_micros(200));
            });
        });
        let mut known: Vec<Key> = Vec::new();
        while !caller.is_finished() {
            known.extend(receive.try_iter());
            let child = || {
                let [mut one, mut two] = [Vec::new(), Vec::new()];
                Functions::each::<()>(&mut |key| one.push(key));
                Functions::each::<()>(&mut |key| two.push(key));
                let different: HashSet<_> = one.iter().map(Key::hash_code).collect();
                one == two && one.starts_with(&known) && different.len() == 256
            };
            beside_child(child, || ());
        }
        caller.join().expect("no panic");
    }

    /// The connections in a store cannot be replaced, and the thread that drives them does not exist in the child: a
    /// child that uses them would hang.
    pub(crate) fn store_of_the_parent_is_refused_in_the_child() {
        fn open() -> ObjectCache {
            ObjectCache::open("object+memory:").expect("a cache")
        }
        let (cache, key) = (open(), Key::from_text("key", "k"));
        cache.set(&key, &1_u64, MINUTE).unwrap();
        let child = || {
            let refusal = format!("{:?}", cache.get::<u64>(&key).unwrap_err());
            let value = cache.get_or_insert_with(&key, MINUTE, || 2_u64);
            let own = open();
            own.set(&key, &3_u64, MINUTE).unwrap();
            refusal.contains("before a fork") && value == 2 && own.get(&key).unwrap() == Some(3_u64)
        };
        beside_child(child, || ());
        assert_eq!(cache.get::<u64>(&key).unwrap(), Some(1));
    }

    /// The parent has copies in memory and a subscribed thread, which does not exist in the child. The child
    /// must see the changes of other processes immediately, and after it has subscribed itself.
    pub(crate) fn memory_in_front_of_redis_is_not_trusted_in_the_child() {
        static SERVER: LazyLock<Server> = LazyLock::new(Server::start);
        static CACHE: LazyLock<TieredCache<RedisBackend>> =
            LazyLock::new(|| TieredOptions::new().over(&RedisCache::open(SERVER.url()).unwrap()));

        #[cached(cache = CACHE, ttl = "1h", key = name, tags("t"))]
        fn tagged(name: &str, value: u64) -> u64 {
            value
        }
        #[cached(cache = CACHE, ttl = "1h", key = "k", tags("t"))]
        async fn in_async(value: u64) -> u64 {
            value
        }
        fn run<T>(future: impl Future<Output = T>) -> T {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(future)
        }

        let other = RedisCache::open(SERVER.url()).unwrap();
        let key = Key::from_text("key", "k");
        let changes = || CACHE.backend().tier_stats().invalidations;
        // It is subscribed once it has received an invalidation.
        let listens_after = |change: &dyn Fn()| {
            let before = changes();
            crate::until("an invalidation is received", || {
                change();
                changes() > before
            });
        };
        listens_after(&|| other.invalidate_tag("other").unwrap());
        for _ in 0..2 {
            assert_eq!(tagged("first", 1), 1);
            assert_eq!(tagged("second", 1), 1);
            assert_eq!(run(in_async(1)), 1);
        }
        CACHE.set(&key, &1_u64, MINUTE).unwrap();
        assert_eq!(CACHE.get::<u64>(&key).unwrap(), Some(1));

        // The parent creates this file after its invalidations.
        let directory = tempfile::tempdir().unwrap();
        let done = directory.path().join("done");
        let child = || {
            crate::until("the changes", || done.exists());
            let got = CACHE.get::<u64>(&key).unwrap();
            let right = [got == Some(2), tagged("first", 2) == 2, run(in_async(2)) == 2];
            // The child subscribes: later changes invalidate its memory.
            listens_after(&|| other.invalidate_tag("other").unwrap());
            let again = [tagged("second", 3) == 3, tagged("second", 4) == 3];
            if !right.into_iter().chain(again).all(|is_right| is_right) {
                eprintln!("in the child: {got:?} {right:?} {again:?}");
                return false;
            }
            true
        };
        beside_child(child, || {
            other.set(&key, &2_u64, MINUTE).unwrap();
            other.invalidate_tag("t").unwrap();
            std::fs::write(&done, "").unwrap();
        });
        // The parent still works.
        assert_eq!(tagged("first", 5), 2, "the child has stored it");
        let before = changes();
        listens_after(&|| other.invalidate_tag("other").unwrap());
        assert!(changes() > before);
    }
}
