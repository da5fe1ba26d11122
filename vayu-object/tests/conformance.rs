//! The object backend passes the tests of the `Backend` contract.

use std::sync::Arc;

use tempfile::TempDir;
use vayu_core::testing::ManualClock;
use vayu_core::{MessagePack, SingleFlight};
use vayu_object::object_store::ObjectStore;
use vayu_object::object_store::local::LocalFileSystem;
use vayu_object::object_store::memory::InMemory;
use vayu_object::{ObjectBackend, ObjectOptions};

fn open(store: Arc<dyn ObjectStore>, options: ObjectOptions, clock: ManualClock) -> ObjectBackend {
    // The threads of the kit load the machine, so timeouts must be long.
    let patience = std::time::Duration::from_secs(60);
    options.clock(clock).timeout(patience).open(store).expect("a cache").backend().clone()
}

fn with_leases() -> ObjectOptions {
    let ttl = std::time::Duration::from_secs(600);
    ObjectOptions::new().prefix("a/b").lease_ttl(ttl).single_flight(SingleFlight::Everywhere)
}

fn in_directory(place: &TempDir, options: ObjectOptions, clock: ManualClock) -> ObjectBackend {
    let store = LocalFileSystem::new_with_prefix(place.path()).expect("a directory");
    open(Arc::new(store), options, clock)
}

vayu_core::backend_tests! {
    memory,
    MessagePack,
    |clock| {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        (Arc::clone(&store), open(store, ObjectOptions::new(), clock))
    },
    reopen = |store: &Arc<dyn ObjectStore>, clock| {
        open(Arc::clone(store), ObjectOptions::new(), clock)
    }
}

vayu_core::backend_tests! {
    memory_with_leases,
    MessagePack,
    |clock| {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        (Arc::clone(&store), open(store, with_leases(), clock))
    },
    reopen = |store: &Arc<dyn ObjectStore>, clock| open(Arc::clone(store), with_leases(), clock)
}

vayu_core::backend_tests! {
    directory_with_leases,
    MessagePack,
    |clock| {
        let place = tempfile::tempdir().expect("a directory");
        let backend = in_directory(&place, with_leases(), clock);
        (place, backend)
    },
    reopen = |place: &TempDir, clock| in_directory(place, with_leases(), clock)
}
