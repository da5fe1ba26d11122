//! The file backend passes the tests of the `Backend` contract.

use std::path::Path;

use tempfile::TempDir;
use vayu_core::testing::ManualClock;
use vayu_core::{MessagePack, SingleFlight};
use vayu_file::{AsyncIo, Durability, FileBackend, FileOptions};

fn open(options: FileOptions, clock: ManualClock) -> (TempDir, FileBackend) {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = reopen(options, directory.path(), clock);
    (directory, backend)
}

fn reopen(options: FileOptions, directory: &Path, clock: ManualClock) -> FileBackend {
    options.clock(clock).open(directory).expect("a cache").backend().clone()
}

fn synced_with_leases() -> FileOptions {
    FileOptions::new().durability(Durability::Synced).single_flight(SingleFlight::Everywhere)
}

vayu_core::backend_tests! {
    files,
    MessagePack,
    |clock| open(FileOptions::new().async_io(AsyncIo::Inline), clock),
    reopen = |place: &TempDir, clock| {
        reopen(FileOptions::new().async_io(AsyncIo::Inline), place.path(), clock)
    }
}

vayu_core::backend_tests! {
    synced_files,
    MessagePack,
    |clock| open(synced_with_leases(), clock),
    reopen = |place: &TempDir, clock| reopen(synced_with_leases(), place.path(), clock)
}
