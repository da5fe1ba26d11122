//! `max_entries` and `max_weight`: a memory cache of one function's own.

use std::sync::Arc;
use std::time::Duration;

use vayu::{Key, MemoryCache, cached};

use crate::Runs;

const MAX: u64 = 40;

#[test]
fn limit_is_that_of_the_function() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "1h", max_entries = MAX, handle = square_entry)]
    fn square(n: u64) -> u64 {
        RUNS.count();
        n * n
    }

    assert_eq!((square(3), square(3)), (9, 9));
    let cache: MemoryCache = square_entry(0).cache();
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.usage.max_entries), (1, 1, Some(MAX)));
    for n in 0..1_000 {
        assert_eq!(square(n), n * n);
    }
    let entries = cache.stats().usage.entries.expect("it is counted");
    assert!(entries <= MAX, "{entries}");
    square(7);
    let runs = RUNS.get();
    cache.invalidate_function(&square).unwrap();
    square(7);
    assert_eq!(RUNS.get(), runs + 1);
}

#[test]
fn instantiations_of_a_generic_function_share_the_cache_and_not_the_entries() {
    #[cached(ttl = "1h", max_entries = 100, handle = default_entry)]
    fn default<T>(n: u32) -> T
    where
        T: Default + Clone + Send + Sync + 'static,
    {
        T::default()
    }

    assert_eq!((default::<u8>(1), default::<String>(1), default::<u8>(1)), (0, String::new(), 0));
    let stats = default_entry::<u64>(1).cache().stats();
    assert_eq!((stats.hits, stats.misses), (1, 2));
}

#[test]
fn methods_of_generic_types_and_of_traits_have_caches() {
    struct Shop<T>(T);
    impl<T: Copy + Into<u64>> Shop<T> {
        #[cached(ttl = "1h", max_entries = 100, include(self.0.into()), handle = price_entry)]
        fn price(&self, sku: &str) -> u64 {
            self.0.into() + sku.len() as u64
        }

        #[cached(ttl = "1h", max_entries = 100, handle = Self::tax_entry)]
        fn tax(country: &str) -> usize {
            country.len()
        }
    }
    trait Named {
        #[cached(ttl = "1h", max_entries = 100, skip(self), handle = title_entry)]
        fn title(&self, of: &str) -> String {
            format!("Dr. {of}")
        }

        fn plain(&self, n: u8) -> u8;
    }
    impl<T> Named for Shop<T> {
        #[cached(ttl = "1h", max_entries = 100, skip(self))]
        fn plain(&self, n: u8) -> u8 {
            n
        }
    }

    let (small, large) = (Shop(1_u8), Shop(2_u32));
    assert_eq!((small.price("ab"), large.price("ab"), small.price("ab")), (3, 4, 3));
    let stats = large.price_entry("ab").cache().stats();
    assert_eq!((stats.hits, stats.misses), (1, 2));
    assert_eq!((Shop::<u8>::tax("at"), Shop::<u32>::tax("at")), (2, 2));
    assert_eq!(Shop::<u8>::tax_entry("at").cache().stats().misses, 2, "the types are in the key");
    assert_eq!((small.title("A"), small.title("A")), ("Dr. A".to_owned(), "Dr. A".to_owned()));
    assert_eq!(small.title_entry("A").cache().stats().hits, 1);
    assert_eq!((small.plain(1), small.plain(1)), (1, 1));
}

#[test]
fn async_function_has_a_cache_of_its_own() {
    #[cached(ttl = "1h", max_entries = 100, handle = page_entry)]
    async fn page(url: &str) -> Result<Arc<str>, String> {
        if url.is_empty() { Err("no url".to_owned()) } else { Ok(url.into()) }
    }

    smol::block_on(async {
        assert_eq!(page("/").await.unwrap(), page("/").await.unwrap());
        assert!(page("").await.is_err());
    });
    let stats = page_entry("").cache().stats();
    assert_eq!((stats.hits, stats.misses, stats.inserts), (1, 2, 1));
}

#[test]
fn weights_bound_the_cache() {
    #[expect(clippy::ptr_arg, reason = "the type of the values")]
    fn length(value: &String) -> u32 {
        value.len() as u32
    }

    #[cached(ttl = "1h", max_weight = 10 * 100, weigh = length, handle = text_entry)]
    fn text(n: usize) -> Result<String, ()> {
        Ok("x".repeat(n))
    }

    let cache = text_entry(0).cache();
    for n in 100..120 {
        text(n).unwrap();
    }
    let usage = cache.stats().usage;
    assert_eq!(usage.max_weight, Some(1_000));
    assert!(usage.weight.is_some_and(|weight| (800..=1_000).contains(&weight)), "{usage:?}");
    assert!(usage.entries.is_some_and(|entries| entries < 10), "{usage:?}");
    text(2_000).unwrap();
    assert_eq!(cache.stats().usage.rejections, Some(1), "it is too heavy");
}

#[test]
fn generic_function_weighs_values_of_each_type() {
    #[cached(
        ttl = "1h", max_weight = 1_000, weigh = |value: &Vec<T>| value.len() as u32,
        handle = list_entry
    )]
    async fn list<T>(n: usize) -> Vec<T>
    where
        T: Default + Clone + Send + Sync + 'static,
    {
        vec![T::default(); n]
    }

    let cache = list_entry::<u8>(0).cache();
    smol::block_on(async {
        list::<u8>(100).await;
        list::<String>(200).await;
        list::<u64>(300).await;
    });
    assert_eq!(cache.stats().usage.weight, Some(600));
}

#[test]
fn values_that_no_call_has_stored_are_weighed() {
    #[cached(
        ttl = "1h", max_weight = 1_000, weigh = |value: &String| value.len() as u32,
        handle = name_entry
    )]
    fn name(n: usize) -> String {
        "x".repeat(n)
    }

    let cache = name_entry(0).cache();
    let (hour, key) = (Duration::from_secs(3_600), |n: u32| Key::from_text("name", n.to_string()));
    cache.set(&key(1), &"x".repeat(100), hour).unwrap();
    cache.update_with(&key(2), hour, |_: Option<String>| "x".repeat(200)).unwrap();
    assert_eq!(cache.stats().usage.weight, Some(300));
    cache.set(&key(3), &"x".repeat(2_000), hour).unwrap();
    assert_eq!(cache.stats().usage.rejections, Some(1), "it is too heavy");
    cache.set(&key(4), &4_u8, hour).unwrap();
    let usage = cache.stats().usage;
    assert_eq!((usage.weight, usage.rejections), (Some(300), Some(2)), "its weight is unknown");
    assert_eq!(name(5), "xxxxx");
    assert_eq!(cache.stats().usage.weight, Some(305));
}
