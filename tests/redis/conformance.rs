//! The conformance kit, on a server, on a cluster and on tiered backends.

use tempfile::TempDir;
use vayu::backend::{
    Backend, FileBackend, MemoryBackend, RedisBackend, TieredBackend, TieredSerializer,
    TieredValue, Untiered,
};
use vayu::testing::backend_tests;
use vayu::testing::{ManualClock, MapBackend};
use vayu::{FileOptions, MemoryOptions, MessagePack, RedisOptions, SingleFlight};

use crate::namespace;
use crate::server::{shared, shared_cluster};

fn options(namespace: &str, clock: ManualClock) -> RedisOptions {
    // The threads of the kit load the machine, so timeouts must be long.
    let patience = std::time::Duration::from_secs(10);
    RedisOptions::new().namespace(namespace.to_owned()).clock(clock).timeout(patience)
}

fn on_server(namespace: &str, clock: ManualClock) -> RedisBackend {
    options(namespace, clock).connect(shared().url()).expect("a valid URL").backend().clone()
}

/// Opens a backend with leases, which the other backends here do not use.
fn with_leases(namespace: &str, clock: ManualClock) -> RedisBackend {
    let options = options(namespace, clock).single_flight(SingleFlight::Everywhere);
    options.connect(shared().url()).expect("a valid URL").backend().clone()
}

fn on_cluster(namespace: &str, clock: ManualClock) -> RedisBackend {
    let options = options(namespace, clock).single_flight(SingleFlight::Everywhere);
    let cache = options.connect_cluster(shared_cluster().urls());
    cache.expect("valid URLs").backend().clone()
}

fn above<F: Backend<Stored = bytes::Bytes>>(backing: F) -> TieredBackend<F> {
    TieredBackend::new(MemoryOptions::new(), backing)
}

fn above_files(place: &TempDir, clock: ManualClock) -> TieredBackend<FileBackend> {
    let cache = FileOptions::new().clock(clock).open(place.path()).expect("a cache");
    above(cache.backend().clone())
}

/// Returns a namespace of its own and a backend in it.
fn named<B>(open: impl FnOnce(&str) -> B) -> (String, B) {
    let namespace = namespace();
    let backend = open(&namespace);
    (namespace, backend)
}

backend_tests!(
    server,
    MessagePack,
    |clock| named(|name| on_server(name, clock)),
    reopen = |name: &String, clock| on_server(name, clock)
);
backend_tests!(
    server_with_leases,
    MessagePack,
    |clock| named(|name| with_leases(name, clock)),
    reopen = |name: &String, clock| with_leases(name, clock)
);
backend_tests!(
    cluster,
    MessagePack,
    |clock| named(|name| on_cluster(name, clock)),
    reopen = |name: &String, clock| on_cluster(name, clock)
);
backend_tests!(
    memory_over_server,
    TieredSerializer<MessagePack>,
    |clock| named(|name| above(with_leases(name, clock))),
    reopen = |name: &String, clock| above(with_leases(name, clock))
);
backend_tests!(
    memory_over_cluster,
    TieredSerializer<MessagePack>,
    |clock| named(|name| above(on_cluster(name, clock))),
    reopen = |name: &String, clock| above(on_cluster(name, clock))
);
backend_tests!(
    memory_over_map,
    TieredSerializer<MessagePack>,
    |clock| {
        let map: MapBackend = MapBackend::with_clock(clock);
        (map.clone(), above(map))
    },
    reopen = |map: &MapBackend, _| above(map.clone())
);
backend_tests!(
    memory_over_files,
    TieredSerializer<MessagePack>,
    |clock| {
        let place = tempfile::tempdir().expect("a directory");
        let backend = above_files(&place, clock);
        (place, backend)
    },
    reopen = |place: &TempDir, clock| above_files(place, clock)
);
backend_tests!(
    server_alone,
    TieredSerializer<MessagePack>,
    |clock| named(|name| Untiered::new(with_leases(name, clock))),
    reopen = |name: &String, clock| Untiered::new(with_leases(name, clock))
);
backend_tests!(
    memory_alone,
    TieredSerializer<MessagePack>,
    |clock| ((), MemoryBackend::<TieredValue>::with_options(MemoryOptions::new().clock(clock))),
    reopen = |(), clock| {
        MemoryBackend::<TieredValue>::with_options(MemoryOptions::new().clock(clock))
    }
);
