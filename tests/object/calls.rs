//! Cached functions on a store: sync and async callers, with and without a runtime.

use tokio::runtime::Builder;
use vayu::testing::watchdog;
use vayu::{ObjectCache, cached};

use crate::faulty_store::FaultyStore;
use crate::{HANG, cache};

#[cached(cache = cache, ttl = "1h", prefix = "report", skip(cache), tags("report:{n}"))]
fn report(cache: &ObjectCache, n: u64) -> String {
    format!("report {n}")
}

#[cached(cache = cache, ttl = "1h", prefix = "report", skip(cache), tags("report:{n}"))]
async fn report_async(cache: &ObjectCache, n: u64) -> String {
    format!("report {n}")
}

#[test]
fn sync_and_async_callers_share_entries_on_every_executor() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        assert_eq!(report(&cache, 1), "report 1");
        let without_timers = Builder::new_current_thread().build().unwrap();
        assert_eq!(without_timers.block_on(report_async(&cache, 1)), "report 1");
        assert_eq!(smol::block_on(report_async(&cache, 1)), "report 1");
        let paused = Builder::new_current_thread().enable_time().start_paused(true).build();
        assert_eq!(paused.unwrap().block_on(report_async(&cache, 1)), "report 1");
        let in_runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert_eq!(in_runtime.block_on(async { report(&cache, 1) }), "report 1");
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.hits, stats.errors), (1, 4, 0));
    });
}

#[test]
fn tag_invalidates_in_every_cache_on_the_store() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let (one, other) = (cache(&store), cache(&store));
        report(&one, 1);
        report(&one, 2);
        report(&other, 1);
        assert_eq!(other.stats().hits, 1);
        one.invalidate_tag("report:1").unwrap();
        report(&other, 1);
        report(&other, 2);
        assert_eq!((other.stats().misses, other.stats().hits), (1, 2));
    });
}

#[test]
fn clear_removes_entries_and_nothing_else() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        for n in 0..3 {
            report(&cache, n);
        }
        let other = "vayu/v1/entries/README".into();
        store.replace(&other, "not an entry");
        cache.invalidate_tag("report:0").unwrap();
        let generations = store.names("/generations/");
        assert!(!generations.is_empty());
        cache.clear().unwrap();
        assert_eq!(store.names("/entries/"), [other]);
        assert_eq!(store.names("/generations/"), generations);
        report(&cache, 1);
        assert_eq!(cache.stats().misses, 4);
    });
}

#[test]
fn hit_is_one_request_for_the_entry_and_one_for_each_group() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        report(&cache, 1);
        report(&cache, 1);
        store.take_requests();
        report(&cache, 1);
        let requests = store.take_requests();
        assert!(requests <= 4, "{requests}: the entry, its tag, the function and everything");
        assert_eq!(cache.stats().hits, 2);
    });
}
