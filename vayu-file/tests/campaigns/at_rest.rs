//! Sealed and compressed entries that are changed, moved and given other times while they are used.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use vayu_core::testing::watchdog;
use vayu_core::{Backend, Cache, Compressed, Key, MessagePack, SealKeys, Sealed};
use vayu_file::FileBackend;

use crate::fixture::{Fixture, entry, keys, options};
use crate::tagged_value::{Random, TaggedValue};
use crate::{HANG, HOUR, size};

const KEYS: usize = 5;

type SealedFiles = Cache<FileBackend, Sealed<Compressed<MessagePack>>>;

/// Two caches write and read, while another process damages the entries, as a rule with checksums that are correct.
#[test]
fn sealed_entry_is_served_whole_for_its_own_key_or_not_at_all() {
    let rounds = size("VAYU_SEALED", 200);
    let (served, damaged) = watchdog(HANG, move || {
        let fixture = Fixture::new(&keys(1)[0]);
        let open = || -> SealedFiles {
            let cache = options().open(fixture.path()).expect("a cache");
            cache
                .with_serializer(Sealed::new(SealKeys::new([7; 32]), Compressed::zstd(MessagePack)))
        };
        let (is_done, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let users: Vec<_> = (1..=2)
            .map(|writer| {
                let (cache, is_done, served) = (open(), Arc::clone(&is_done), Arc::clone(&served));
                thread::spawn(move || use_cache(&cache, writer, &is_done, &served))
            })
            .collect();
        let (cache, mut random) = (open(), Random::new(3));
        let (keys, mut damaged) = (keys(KEYS), 0);
        while damaged < rounds || served.load(Ordering::Relaxed) < rounds {
            damaged += usize::from(damage(&cache, fixture.path(), &keys, &mut random));
        }
        is_done.store(true, Ordering::Relaxed);
        for user in users {
            user.join().expect("no wrong value");
        }
        (served.load(Ordering::Relaxed), damaged)
    });
    println!("{served} hits, {damaged} entries damaged");
}

fn use_cache(cache: &SealedFiles, writer: u64, is_done: &AtomicBool, served: &AtomicUsize) {
    let (keys, mut random) = (keys(KEYS), Random::new(writer));
    let mut sequence = 0;
    while !is_done.load(Ordering::Relaxed) {
        let key = random.below(KEYS);
        if random.below(4) == 0 {
            sequence += 1;
            let value = TaggedValue { key, writer, sequence }.value();
            cache.set(&keys[key], &value, HOUR).expect("write");
        } else if let Some(value) = cache.get::<String>(&keys[key]).expect("read") {
            TaggedValue::of(&value, key);
            served.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Damages an entry. Returns whether there was one.
fn damage(
    cache: &SealedFiles,
    directory: &std::path::Path,
    keys: &[Key],
    random: &mut Random,
) -> bool {
    let (key, other) = (&keys[random.below(KEYS)], &keys[random.below(KEYS)]);
    let backend = cache.backend();
    let Ok(Some(record)) = backend.read(key) else { return false };
    let (created, end) = (record.created(), record.expires().saturating_add(HOUR));
    let mut bytes = record.value().to_vec();
    match random.below(6) {
        // Another key.
        0 => backend.write(other, record).expect("write"),
        // Other times.
        1 => backend.write(key, record.with_times(created, end, end)).expect("write"),
        // Another value.
        2 => {
            // An earlier truncation may have left none.
            let at = random.below(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
            backend.write(key, record.map(|_| bytes.into())).expect("write");
        }
        // A part of it.
        3 => {
            bytes.truncate(random.below(bytes.len().max(1)));
            backend.write(key, record.map(|_| bytes.into())).expect("write");
        }
        // A bit of the file, whose checksums are then wrong.
        4 => {
            let Ok(mut file) = fs::read(entry(directory, key)) else { return false };
            let at = random.below(file.len().max(1));
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
            drop(fs::write(entry(directory, key), file));
        }
        // The file of another key.
        _ => drop(fs::copy(entry(directory, key), entry(directory, other))),
    }
    true
}
