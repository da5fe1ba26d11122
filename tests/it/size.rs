//! The size of the futures of async functions that call each other.

use std::sync::LazyLock;

use serde::Serialize;
use vayu::backend::FileBackend;
use vayu::testing::watchdog;
use vayu::{FileCache, MemoryCache, TieredCache, cached};

use crate::HANG;

/// The maximal bytes that a cached function adds to the future that it awaits.
const A_LEVEL: usize = 600;

static MEMORY: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
static FILES: LazyLock<FileCache> = LazyLock::new(|| {
    let place = tempfile::tempdir().expect("a directory").keep();
    FileCache::open(place).expect("a cache")
});
static TIERS: LazyLock<TieredCache<FileBackend>> =
    LazyLock::new(|| vayu::TieredOptions::new().over(&*FILES));

/// Checks the sizes per level. `own` is the state of the innermost body.
fn grow_by_a_constant(form: &str, own: usize, levels: [usize; 4]) {
    assert!(levels[0] <= own + A_LEVEL, "{form}: {levels:?}");
    for pair in levels.windows(2) {
        assert!(pair[1] <= pair[0] + A_LEVEL, "{form}: {levels:?}");
    }
}

/// The sizes of four functions with one attribute, each of which awaits the previous one.
macro_rules! levels {
    ($n:ident; $($attribute:tt)*) => {{
        #[cached($($attribute)*)]
        async fn one($n: u64) -> u64 {
            tokio::task::yield_now().await;
            $n
        }
        #[cached($($attribute)*)]
        async fn two($n: u64) -> u64 {
            one($n).await
        }
        #[cached($($attribute)*)]
        async fn three($n: u64) -> u64 {
            two($n).await
        }
        #[cached($($attribute)*)]
        async fn four($n: u64) -> u64 {
            three($n).await
        }
        [size_of_val(&one(1)), size_of_val(&two(1)), size_of_val(&three(1)), size_of_val(&four(1))]
    }};
}

macro_rules! forms_on {
    ($cache:ident) => {
        for (form, levels) in [
            ("plain", levels!(n; cache = $cache, ttl = 60)),
            ("stale", levels!(n; cache = $cache, ttl = 60, stale = 60, jitter = "10%")),
            ("spawn", levels!(n; cache = $cache, ttl = 60, stale = 60, spawn = tokio::spawn)),
            ("key", levels!(n; cache = $cache, ttl = 60, key = format!("{n}"), version = 3)),
            ("tags", levels!(n; cache = $cache, ttl = 60, tags("{n}", "all"))),
            ("closures", levels!(
                n; cache = $cache, ttl = |n: &u64| std::time::Duration::from_secs(*n),
                cache_if = |n: &u64| *n > 0
            )),
            ("closures and spawn", levels!(
                n; cache = $cache, ttl = |n: &u64| std::time::Duration::from_secs(*n), stale = 60,
                cache_if = |n: &u64| *n > 0, tags("{n}"), key = format!("{n}"), spawn = tokio::spawn
            )),
        ] {
            grow_by_a_constant(&format!("{form} on {}", stringify!($cache)), 64, levels);
        }
    };
}

#[test]
fn future_of_a_function_grows_by_a_constant_per_level() {
    forms_on!(MEMORY);
    forms_on!(FILES);
    forms_on!(TIERS);
    grow_by_a_constant("the cache of the process", 64, levels!(n; ttl = 60));
}

#[test]
fn future_of_a_result_of_a_string_grows_by_a_constant_per_level() {
    macro_rules! fallible {
        ($($attribute:tt)*) => {{
            #[cached($($attribute)*)]
            async fn one(text: String) -> Result<String, String> {
                tokio::task::yield_now().await;
                if text.is_empty() { Err(text) } else { Ok(text) }
            }
            #[cached($($attribute)*)]
            async fn two(text: String) -> Result<String, String> {
                Ok(one(text).await? + "two")
            }
            #[cached($($attribute)*)]
            async fn three(text: String) -> Result<String, String> {
                Ok(two(text).await? + "three")
            }
            #[cached($($attribute)*)]
            async fn four(text: String) -> Result<String, String> {
                Ok(three(text).await? + "four")
            }
            let text = String::new;
            [
                size_of_val(&one(text())), size_of_val(&two(text())),
                size_of_val(&three(text())), size_of_val(&four(text())),
            ]
        }};
    }
    grow_by_a_constant("a result", 128, fallible!(cache = MEMORY, ttl = 60));
    grow_by_a_constant("a result in files", 128, fallible!(cache = FILES, ttl = 60));
    let spawned = fallible!(cache = TIERS, ttl = 60, stale = 60, spawn = tokio::spawn);
    grow_by_a_constant("a result and a task", 128, spawned);
}

#[test]
fn future_contains_the_state_of_its_body_once() {
    const MUCH: usize = 1024;
    macro_rules! large {
        ($($attribute:tt)*) => {{
            #[cached($($attribute)*)]
            async fn one(n: u8) -> u8 {
                let held = [n; MUCH];
                tokio::task::yield_now().await;
                held[usize::from(n)]
            }
            #[cached($($attribute)*)]
            async fn two(n: u8) -> u8 {
                one(n).await
            }
            #[cached($($attribute)*)]
            async fn three(n: u8) -> u8 {
                two(n).await
            }
            #[cached($($attribute)*)]
            async fn four(n: u8) -> u8 {
                three(n).await
            }
            [size_of_val(&one(1)), size_of_val(&two(1)), size_of_val(&three(1)), size_of_val(&four(1))]
        }};
    }
    grow_by_a_constant("much", MUCH, large!(cache = MEMORY, ttl = 60));
    grow_by_a_constant("much in files", MUCH, large!(cache = FILES, ttl = 60));
    let spawned = large!(cache = MEMORY, ttl = 60, stale = 60, spawn = tokio::spawn);
    grow_by_a_constant("much and a task", MUCH, spawned);
}

#[derive(Clone)]
struct Shop;

impl Shop {
    #[cached(cache = MEMORY, ttl = 60, handle = one_entry)]
    async fn one(&self, n: u64) -> u64 {
        tokio::task::yield_now().await;
        n
    }

    #[cached(cache = MEMORY, ttl = 60, handle = two_entry)]
    async fn two(&self, n: u64) -> u64 {
        self.one(n).await
    }

    #[cached(cache = MEMORY, ttl = 60, stale = 60, handle = three_entry, spawn = tokio::spawn)]
    async fn three(self, n: u64) -> u64 {
        self.two(n).await
    }

    #[cached(cache = MEMORY, ttl = 60)]
    async fn four(self: &std::sync::Arc<Self>, n: u64) -> u64 {
        Self::clone(self).three(n).await
    }
}

#[test]
fn future_of_a_method_grows_by_a_constant_per_level() {
    let shop = std::sync::Arc::new(Shop);
    let levels = [
        size_of_val(&shop.one(1)),
        size_of_val(&shop.two(1)),
        size_of_val(&Shop.three(1)),
        size_of_val(&shop.four(1)),
    ];
    grow_by_a_constant("methods", 64, levels);
}

#[async_trait::async_trait]
trait Store: Sync {
    #[cached(cache = MEMORY, ttl = 60, include(self.name()))]
    async fn one(&self, n: u64) -> u64 {
        tokio::task::yield_now().await;
        n
    }

    #[cached(cache = FILES, ttl = 60, include(self.name()))]
    async fn two(&self, n: u64) -> u64 {
        self.one(n).await
    }

    #[cached(cache = TIERS, ttl = 60, stale = 60, include(self.name()))]
    async fn three(&self, n: u64) -> u64 {
        self.two(n).await
    }

    #[cached(cache = MEMORY, ttl = 60, include(self.name()))]
    async fn four(&self, n: u64) -> u64 {
        self.three(n).await
    }

    fn name(&self) -> u8;
}

impl Store for Shop {
    fn name(&self) -> u8 {
        7
    }
}

#[test]
fn boxed_future_of_a_method_of_a_trait_has_a_constant_size() {
    let levels = [
        size_of_val(&*Store::one(&Shop, 1)),
        size_of_val(&*Store::two(&Shop, 1)),
        size_of_val(&*Store::three(&Shop, 1)),
        size_of_val(&*Store::four(&Shop, 1)),
    ];
    for size in levels {
        assert!(size <= A_LEVEL, "{levels:?}");
    }
}

#[test]
fn future_of_a_generic_function_grows_by_a_constant_per_level() {
    #[cached(ttl = 60)]
    async fn one<T: Serialize + Copy + Into<u64>>(n: T) -> u64 {
        tokio::task::yield_now().await;
        n.into()
    }
    #[cached(ttl = 60)]
    async fn two<T: Serialize + Copy + Into<u64>>(n: T) -> u64 {
        one(n).await
    }
    #[cached(ttl = 60, stale = 60, spawn = tokio::spawn)]
    async fn three<T: Serialize + Copy + Into<u64> + Send + Sync + 'static>(n: T) -> u64 {
        two(n).await
    }
    #[cached(ttl = 60)]
    async fn four<T: Serialize + Copy + Into<u64> + Send + Sync + 'static>(n: T) -> u64 {
        three(n).await
    }
    let levels = [
        size_of_val(&one(1_u32)),
        size_of_val(&two(1_u32)),
        size_of_val(&three(1_u32)),
        size_of_val(&four(1_u32)),
    ];
    grow_by_a_constant("generic", 64, levels);
}

#[test]
fn six_nested_functions_with_spawn_fit_on_the_stack_of_a_worker() {
    macro_rules! calls {
        ($name:ident, $called:expr) => {
            #[cached(ttl = 60, stale = 60, spawn = tokio::spawn)]
            async fn $name(n: u64) -> u64 {
                tokio::task::yield_now().await;
                let called: u64 = $called(n).await;
                called + 1
            }
        };
    }
    calls!(one, std::future::ready);
    calls!(two, one);
    calls!(three, two);
    calls!(four, three);
    calls!(five, four);
    calls!(six, five);
    watchdog(HANG, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let value = runtime.expect("a runtime").block_on(async { tokio::spawn(six(1)).await });
        assert_eq!(value.expect("no panic"), 7);
    });
}

/// The maximal bytes that the attribute adds to the future of a body.
const OVER_THE_BODY: usize = 400;

/// Awaits with `N` bytes of state.
async fn body<const N: usize>(n: u64) -> u64 {
    let state = [1_u8; N];
    tokio::task::yield_now().await;
    state.iter().map(|&byte| u64::from(byte)).sum::<u64>() + n
}

#[test]
fn future_of_a_function_is_little_larger_than_that_of_its_body() {
    macro_rules! sizes {
        ($size:literal; $n:ident; $($attribute:tt)*) => {{
            #[cached($($attribute)*)]
            async fn one($n: u64) -> u64 {
                body::<$size>($n).await
            }
            #[cached($($attribute)*)]
            async fn two($n: u64) -> u64 {
                one($n).await
            }
            #[cached($($attribute)*)]
            async fn three($n: u64) -> u64 {
                two($n).await
            }
            [
                size_of_val(&body::<$size>(1)),
                size_of_val(&one(1)),
                size_of_val(&two(1)),
                size_of_val(&three(1)),
            ]
        }};
    }
    macro_rules! bodies {
        ($n:ident; $($attribute:tt)*) => {
            [
                sizes!(0; $n; $($attribute)*),
                sizes!(100; $n; $($attribute)*),
                sizes!(1000; $n; $($attribute)*),
            ]
        };
    }
    for (form, bodies) in [
        ("memory", bodies!(n; cache = MEMORY, ttl = 60)),
        ("files", bodies!(n; cache = FILES, ttl = 60)),
        ("tiers", bodies!(n; cache = TIERS, ttl = 60)),
        ("stale", bodies!(n; cache = MEMORY, ttl = 60, stale = 60, jitter = "10%")),
        ("tags", bodies!(n; cache = MEMORY, ttl = 60, tags("{n}", "all"))),
        ("spawn", bodies!(n; cache = MEMORY, ttl = 60, stale = 60, spawn = tokio::spawn)),
    ] {
        for sizes in bodies {
            for level in sizes.windows(2) {
                assert!(level[1] <= level[0] + OVER_THE_BODY, "{form}: {sizes:?}");
            }
        }
    }
    #[cached(cache = MEMORY, ttl = 60)]
    async fn ready(n: u64) -> u64 {
        n
    }
    let size = size_of_val(&ready(1));
    assert!(size <= OVER_THE_BODY, "{size}");
}
