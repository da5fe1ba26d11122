//! Generations in stores that refuse conditions, and generations that are damaged, late or missing.

use vayu::testing::watchdog;
use vayu::{ObjectCache, cached};

use crate::faulty_store::{Fault, FaultyStore};
use crate::{HANG, cache};

#[cached(cache = cache, ttl = "1h", prefix = "tagged", skip(cache), tags("tag:{n}"))]
fn tagged(cache: &ObjectCache, n: u64) -> u64 {
    n
}

#[test]
fn store_that_refuses_conditions_has_generations() {
    for fault in [Fault::HasNoConditions, Fault::IgnoresConditions, Fault::FailsConditions] {
        watchdog(HANG, move || {
            let store = FaultyStore::new();
            let (one, other) = (cache(&store), cache(&store));
            store.set(fault);
            for _ in 0..10 {
                tagged(&one, 1);
            }
            let stats = one.stats();
            assert_eq!((stats.misses, stats.hits, stats.errors), (1, 9, 0), "{fault:?}");
            one.invalidate_tag("tag:1").unwrap();
            tagged(&other, 1);
            let stats = other.stats();
            assert_eq!((stats.misses, stats.errors), (1, 0), "{fault:?}");
        });
    }
}

#[test]
fn damaged_generation_is_replaced() {
    watchdog(HANG, || {
        for damage in [vec![], b"foreign".to_vec(), vec![0; 16], vec![0; 100_000]] {
            let store = FaultyStore::new();
            tagged(&cache(&store), 1);
            for name in store.names("/generations/") {
                store.replace(&name, damage.clone());
            }
            let cache = cache(&store);
            tagged(&cache, 1);
            tagged(&cache, 1);
            let stats = cache.stats();
            assert_eq!((stats.misses, stats.hits, stats.errors), (1, 1, 0), "{}", damage.len());
        }
    });
}

#[test]
fn generation_that_cannot_be_replaced_is_an_error_that_names_it() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        tagged(&cache, 1);
        store.set(Fault::BodyEnds(3));
        let generations =
            vayu::backend::Backend::capabilities(cache.backend()).generations.unwrap();
        let group = vayu::backend::Group::tag("tag:1");
        let error = format!("{:?}", generations.generation(group).unwrap_err());
        assert!(error.contains("vayu/v1/generations/"), "{error}");
    });
}

#[test]
fn late_request_of_an_invalidation_has_no_effect_after_another() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let (one, other) = (cache(&store), cache(&store));
        tagged(&one, 1);
        // The first write of the next invalidation is repeated after a later invalidation.
        store.set(Fault::RepeatsLate);
        one.invalidate_tag("tag:1").unwrap();
        store.set(Fault::None);
        other.invalidate_tag("tag:1").unwrap();
        let before = generations(&store);
        store.repeat();
        assert_eq!(generations(&store), before);
    });
}

fn generations(store: &FaultyStore) -> Vec<bytes::Bytes> {
    store.names("/generations/").iter().map(|name| store.bytes(name)).collect()
}
