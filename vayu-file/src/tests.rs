//! Tests of the backend on a disk in memory that fails.

mod cancellation;
mod crashes;
mod faults;
mod feed;
mod generations;
mod lengths;
mod limits;
mod network;
mod open_files;
mod times;
mod windows;

use std::time::Duration;

use bytes::Bytes;
use vayu_core::testing::ManualClock;
use vayu_core::{Backend, BackendExt, Clock, Key, Record, Timestamp};

use crate::backend::FileBackend;
use crate::fs::model::Disk;
use crate::options::{AsyncIo, FileOptions};

fn options(clock: &ManualClock) -> FileOptions {
    FileOptions::new().clock(clock.clone()).async_io(AsyncIo::Inline)
}

fn open(disk: &Disk, options: &FileOptions) -> FileBackend {
    FileBackend::in_directory(disk.root(), None, options).expect("a backend")
}

fn key(text: impl AsRef<str>) -> Key {
    Key::from_text("test", text)
}

/// Creates a record that expires after a minute.
fn record(clock: &ManualClock, value: impl Into<Bytes>) -> Record<Bytes> {
    let created = clock.now();
    Record::new(value.into(), created, created.saturating_add(Duration::from_secs(60)))
}

fn value(backend: &FileBackend, key: &Key) -> Option<Bytes> {
    backend.read(key).expect("read").map(Record::into_value)
}
