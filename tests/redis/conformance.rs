//! The conformance kit, on a server, on a cluster and through tiers.

use vayu::testing::{ManualClock, MapBackend};
use vayu::{
    Backend, FileOptions, MemoryBackend, MemoryOptions, MessagePack, RedisBackend, RedisOptions,
    SingleFlight, SingleTier, TierValue, TieredBackend, Tiers, backend_tests,
};

use crate::namespace;
use crate::server::{shared, shared_cluster};

fn options(clock: ManualClock) -> RedisOptions {
    // The kit's threads keep a machine busy that others share.
    let patience = std::time::Duration::from_secs(10);
    RedisOptions::new().namespace(namespace()).clock(clock).timeout(patience)
}

fn on_server(clock: ManualClock) -> RedisBackend {
    options(clock).connect(shared().url()).expect("an address").backend().clone()
}

/// With leases, of which no other test of the kit has any.
fn with_leases(clock: ManualClock) -> RedisBackend {
    let options = options(clock).single_flight(SingleFlight::Everywhere);
    options.connect(shared().url()).expect("an address").backend().clone()
}

fn on_cluster(clock: ManualClock) -> RedisBackend {
    let options = options(clock).single_flight(SingleFlight::Everywhere);
    let cache = options.connect_cluster(shared_cluster().urls());
    cache.expect("addresses").backend().clone()
}

fn above<F: Backend<Stored = bytes::Bytes>>(far: F) -> TieredBackend<F> {
    TieredBackend::new(MemoryOptions::new(), far)
}

backend_tests!(server, MessagePack, |clock| ((), on_server(clock)));
backend_tests!(server_with_leases, MessagePack, |clock| ((), with_leases(clock)));
backend_tests!(cluster, MessagePack, |clock| ((), on_cluster(clock)));
backend_tests!(memory_over_server, Tiers<MessagePack>, |clock| ((), above(with_leases(clock))));
backend_tests!(memory_over_cluster, Tiers<MessagePack>, |clock| ((), above(on_cluster(clock))));
backend_tests!(memory_over_map, Tiers<MessagePack>, |clock| {
    ((), above(MapBackend::with_clock(clock)))
});
backend_tests!(memory_over_files, Tiers<MessagePack>, |clock| {
    let place = tempfile::tempdir().expect("a directory");
    let cache = FileOptions::new().clock(clock).open(place.path()).expect("a cache");
    let far = cache.backend().clone();
    (place, above(far))
});
backend_tests!(server_alone, Tiers<MessagePack>, |clock| {
    ((), SingleTier::new(with_leases(clock)))
});
backend_tests!(memory_alone, Tiers<MessagePack>, |clock| {
    ((), MemoryBackend::<TierValue>::with_options(MemoryOptions::new().clock(clock)))
});
