//! Directories on network file systems.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;
use crate::fs::FileSystem;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Records the warnings of each thread.
struct Recorder;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        write!(self.0, "{value:?}").expect("a string takes everything");
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.with_borrow_mut(|lines| lines.push(line.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn opening_a_directory_on_a_network_is_one_warning() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Recorder).expect("the only one"));
    let clock = ManualClock::new();
    let warnings = |file_system| {
        let disk = Disk::default();
        disk.set_file_system(file_system);
        let path = Some(Path::new("/mnt/share"));
        let backend = FileBackend::in_directory(disk.root(), path, &options(&clock));
        let backend = backend.expect("it can be used");
        backend.write(&key("k"), record(&clock, "v")).expect("write");
        assert_eq!(value(&backend, &key("k")).as_deref(), Some(&b"v"[..]));
        LINES.take()
    };
    let lines = warnings(FileSystem::Network("nfs"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("cache directory `/mnt/share` is on a network file system (nfs)"));
    assert!(lines[0].contains("use a local directory, or Redis or an object store"), "{lines:?}");
    for file_system in [FileSystem::Local, FileSystem::Unknown] {
        assert_eq!(warnings(file_system), [""; 0], "{file_system:?}");
    }
}
