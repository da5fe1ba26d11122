//! Entries of an earlier version can be read.
//!
//! `tests/golden` was written once, with `VAYU_WRITE_GOLDEN=1 cargo test -p vayu-file --test golden`.
//! Additions to the format get entries of their own; existing entries are never written again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;
use vayu_core::testing::ManualClock;
use vayu_core::{
    Backend, Bincode, Json, Key, MessagePack, Postcard, Record, Serializer, Timestamp,
};
use vayu_file::{CacheDirectory, FileCache, FileOptions, Verify};

/// Microseconds since 1970: some time in November 2026.
const CREATED: Timestamp = Timestamp::from_micros(1_795_000_000_000_000);
const EXPIRES: Timestamp = Timestamp::from_micros(1_795_000_060_000_000);
const STALE_UNTIL: Timestamp = Timestamp::from_micros(1_795_000_065_000_000);
const SCHEMA: u64 = 0x0123_4567_89ab_cdef;

type Value = BTreeMap<String, Vec<Option<i64>>>;

fn value() -> Value {
    let numbers = vec![Some(0), None, Some(-1), Some(i64::MAX)];
    BTreeMap::from([("numbers".to_owned(), numbers), ("é".to_owned(), vec![])])
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn arguments() -> Key {
    let map = BTreeMap::from([("b", 1_u8), ("a", 2)]);
    let arguments = (7_u8, -7_i64, 0.5_f32, -0.0_f64, 'é', "text", [true, false], Some(()), map);
    Key::new("golden", &arguments).expect("a key")
}

/// A key whose entry holds its SHA-256, as long keys were written first.
fn long_key() -> Key {
    Key::from_text("golden", "k".repeat(70_000))
}

/// A key whose entry holds its function and its SHA-256.
fn longer_key() -> Key {
    Key::from_text("golden", "k".repeat(80_000))
}

/// A key whose entry has a label.
fn labelled() -> Key {
    Key::new("golden", &("EUR", 7)).expect("a key").with_label("seven euros")
}

/// A key whose entry is written without its arguments.
fn hidden() -> Key {
    Key::new("golden", &("hunter2",)).expect("a key")
}

fn record<S: Serializer<Value, Stored = Bytes>>(serializer: &S) -> Record<Bytes> {
    Record::new(serializer.serialize(&value()).expect("encode"), CREATED, EXPIRES)
        .with_stale_until(STALE_UNTIL)
        .with_schema(SCHEMA)
        .with_serializer(serializer.id())
}

/// Returns the key and the record of each entry.
fn entries() -> Vec<(Key, Record<Bytes>)> {
    let text = |text| Key::from_text("golden", text);
    let never_expires = Record::new(Bytes::new(), CREATED, Timestamp::NEVER);
    vec![
        (text("MessagePack"), record(&MessagePack)),
        (text("JSON"), record(&Json)),
        (text("Postcard"), record(&Postcard)),
        (text("Bincode"), record(&Bincode)),
        (text("an empty value, for ever"), never_expires),
        (arguments(), record(&MessagePack)),
        (long_key(), record(&MessagePack)),
        (labelled(), record(&MessagePack)),
        (hidden(), record(&MessagePack)),
        (longer_key(), record(&MessagePack)),
    ]
}

/// Copies the golden directory, since an open cache may be written to.
fn copy() -> (TempDir, FileCache) {
    let place = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(golden()).expect("the golden directory") {
        let path = entry.expect("an entry").path();
        let target = place.path().join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&target).expect("a folder");
            for file in fs::read_dir(&path).expect("a folder") {
                let file = file.expect("a file");
                fs::copy(file.path(), target.join(file.file_name())).expect("copy");
            }
        } else {
            fs::copy(&path, target).expect("copy");
        }
    }
    let cache = open(place.path());
    (place, cache)
}

/// Opens a cache at a time at which nothing has expired.
fn open(path: &Path) -> FileCache {
    options().open(path).expect("a cache")
}

fn options() -> FileOptions {
    let clock = ManualClock::new();
    clock.set(CREATED);
    FileOptions::new().clock(clock)
}

#[test]
fn every_entry_is_read_as_it_was_written() {
    if std::env::var_os("VAYU_WRITE_GOLDEN").is_some() {
        for (key, record) in entries() {
            let options = options();
            let options = if key == hidden() { options.hide_arguments() } else { options };
            let cache = options.open(golden()).expect("a cache");
            if cache.backend().read(&key).expect("read").is_none() {
                cache.backend().write(&key, record).expect("write");
            }
        }
    }
    let (place, cache) = copy();
    let directory = CacheDirectory::open(place.path()).expect("a cache");
    assert_eq!(directory.entries(Verify::Full).count(), entries().len());
    for (key, written) in entries() {
        let found = cache.backend().read(&key).expect("read").expect("an entry");
        assert_eq!(found, written, "{key}");
        let bytes = found.value();
        let decoded: vayu_core::Result<Value> = match found.serializer().as_u16() {
            1 => MessagePack.deserialize(bytes),
            2 => Json.deserialize(bytes),
            4 => Postcard.deserialize(bytes),
            5 => Bincode.deserialize(bytes),
            _ => continue,
        };
        assert_eq!(decoded.expect("decode"), value(), "{key}");
    }
}

/// `VAYU_EXCHANGE` names a directory that this test fills on one system and reads on another.
#[test]
fn directory_that_another_system_has_written_is_read() {
    let place = tempfile::tempdir().expect("a directory");
    let path = std::env::var_os("VAYU_EXCHANGE").map_or(place.path().to_owned(), PathBuf::from);
    let cache = open(&path);
    let directory = CacheDirectory::open(&path).expect("a cache");
    let is_empty = directory.count().expect("a count") == 0;
    for (key, record) in entries() {
        if is_empty {
            cache.backend().write(&key, record.clone()).expect("write");
        }
        let found = cache.backend().read(&key).expect("read").expect("an entry");
        assert_eq!(found, record, "{key}");
    }
    println!("{} entries {}", entries().len(), if is_empty { "written" } else { "read" });
}

#[test]
fn every_entry_is_listed_with_its_call() {
    let (place, _) = copy();
    let directory = CacheDirectory::open(place.path()).expect("a cache");
    let mut calls: Vec<_> = directory
        .entries(Verify::Full)
        .map(|entry| {
            entry.expect("an entry").details().expect("valid").call().unwrap_or("-").to_owned()
        })
        .collect();
    calls.sort();
    assert_eq!(
        calls,
        [
            "-",
            "golden [seven euros]",
            "golden(7, -7, 0.5, -0.0, 'é', \"text\", (true, false), Some(()), {\"a\": 2, \"b\": 1})",
            "golden(…)",
            "golden(…)",
            "golden:Bincode",
            "golden:JSON",
            "golden:MessagePack",
            "golden:Postcard",
            "golden:an empty value, for ever",
        ]
    );
}
