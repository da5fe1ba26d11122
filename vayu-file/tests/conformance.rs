//! The file backend has the properties that the engine relies on.

use tempfile::TempDir;
use vayu_core::MessagePack;
use vayu_core::SingleFlight;
use vayu_core::testing::ManualClock;
use vayu_file::{AsyncIo, Durability, FileBackend, FileOptions};

fn open(options: FileOptions, clock: ManualClock) -> (TempDir, FileBackend) {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = options.clock(clock).open(directory.path()).expect("a cache");
    (directory, cache.backend().clone())
}

vayu_core::backend_tests! {
    files,
    MessagePack,
    |clock| open(FileOptions::new().async_io(AsyncIo::Inline), clock)
}

vayu_core::backend_tests! {
    synced_files,
    MessagePack,
    |clock| open(FileOptions::new().durability(Durability::Synced).single_flight(SingleFlight::Everywhere), clock)
}
