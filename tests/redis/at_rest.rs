//! Values that are compressed and sealed where they are stored: the conformance kit, and a server whose entries are damaged
//! while it is used and killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use vayu::backend::{Backend, Bytes, EntryContext, Record, RedisBackend, Serializer, SerializerId};
use vayu::testing::{backend_tests, watchdog};
use vayu::time::Timestamp;
use vayu::{
    Cache, Compressed, Key, MessagePack, RedisOptions, Result, SealKeys, Sealed, SingleFlight,
};

use crate::server::{Server, shared};
use crate::{HANG, namespace, size};

type AtRest = Sealed<Compressed<MessagePack>>;

fn at_rest() -> AtRest {
    Sealed::new(SealKeys::new([7; 32]), Compressed::zstd(MessagePack))
}

/// The serializer of the kit, which encodes values without their entries: all are sealed for the same one.
#[derive(Clone)]
struct OfOneEntry(AtRest);

impl Default for OfOneEntry {
    fn default() -> Self {
        Self(at_rest())
    }
}

impl OfOneEntry {
    fn within<R>(&self, run: impl FnOnce(&AtRest, &EntryContext<'_>) -> R) -> R {
        let (key, time) = (Key::from_text("at rest", "all"), Timestamp::from_micros(0));
        let record = Record::new((), time, time).with_serializer(self.id());
        run(&self.0, &EntryContext::new(&key, &record))
    }
}

impl Serializer<Vec<u8>> for OfOneEntry {
    type Stored = Bytes;

    fn id(&self) -> SerializerId {
        Serializer::<Vec<u8>>::id(&self.0)
    }

    fn serialize(&self, value: &Vec<u8>) -> Result<Bytes> {
        self.within(|serializer, entry| serializer.serialize_for(value, entry))
    }

    fn deserialize(&self, stored: &Bytes) -> Result<Vec<u8>> {
        self.within(|serializer, entry| serializer.deserialize_for(stored, entry))
    }
}

fn on_server(namespace: &str, clock: vayu::testing::ManualClock) -> RedisBackend {
    let options = RedisOptions::new().namespace(namespace).clock(clock).timeout(HANG);
    let options = options.single_flight(SingleFlight::Everywhere);
    options.connect(shared().url()).expect("a valid URL").backend().clone()
}

backend_tests!(
    sealed_on_server,
    OfOneEntry,
    |clock| {
        let namespace = namespace();
        let backend = on_server(&namespace, clock);
        (namespace, backend)
    },
    reopen = |name: &String, clock| on_server(name, clock)
);

const KEYS: usize = 5;
const HOUR: Duration = Duration::from_secs(3600);

fn key(n: usize) -> Key {
    Key::from_text("page", n.to_string())
}

/// Returns a value that contains its key twice.
fn page(key: usize, writer: usize, sequence: usize) -> String {
    format!("{key}:{writer}:{}{sequence}:{key}", "<p>a paragraph</p>".repeat(sequence % 40))
}

fn check(key: usize, value: &str) {
    let (start, end) = (format!("{key}:"), format!(":{key}"));
    assert!(value.starts_with(&start) && value.ends_with(&end), "{key}: {value}");
}

/// A pseudo-random number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % limit as u64).expect("it is below the limit")
    }
}

/// Two callers read and write, while the server is killed and another client damages the entries.
#[test]
fn sealed_entry_is_served_whole_for_its_own_key_or_not_at_all() {
    let rounds = size("VAYU_SEALED", 300);
    watchdog(10 * HANG, move || {
        let mut server = Server::start();
        let url = server.url();
        let open = || -> Cache<RedisBackend, AtRest> {
            let options = RedisOptions::new().single_flight(SingleFlight::Everywhere);
            let options = options.circuit_breaker(3, Duration::from_millis(20));
            options.connect(url.as_str()).expect("a valid URL").with_serializer(at_rest())
        };
        let (is_done, hits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..2)
            .map(|writer| {
                let (cache, is_done, hits) = (open(), Arc::clone(&is_done), Arc::clone(&hits));
                thread::spawn(move || call(&cache, writer, &is_done, &hits))
            })
            .collect();
        let (cache, mut random) = (open(), Random(1));
        let (mut damaged, mut kills) = (0, 0);
        // A caller ends early if it has received a wrong value.
        let is_wrong = || callers.iter().any(thread::JoinHandle::is_finished);
        while (damaged < rounds || hits.load(Ordering::Relaxed) < rounds) && !is_wrong() {
            damaged += usize::from(damage(&cache, &server, &mut random));
            if damaged > (kills + 1) * rounds / 4 {
                kills += 1;
                server.kill();
                server.revive();
            }
        }
        is_done.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().expect("no wrong value");
        }
        let hits = hits.load(Ordering::Relaxed);
        println!("{hits} hits, {damaged} entries damaged, {kills} kills");
    });
}

fn call(
    cache: &Cache<RedisBackend, AtRest>,
    writer: usize,
    is_done: &AtomicBool,
    hits: &AtomicUsize,
) {
    let (mut random, mut sequence) = (Random(writer as u64 + 10), 0);
    while !is_done.load(Ordering::Relaxed) {
        let n = random.below(KEYS);
        sequence += 1;
        let new = || page(n, writer, sequence);
        match random.below(8) {
            // An error of the server.
            0 => drop(cache.set(&key(n), &new(), HOUR)),
            1 => check(n, &cache.get_or_insert_with(&key(n), HOUR, new)),
            _ => {
                if let Ok(Some(value)) = cache.get::<String>(&key(n)) {
                    check(n, &value);
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Damages an entry, with a correct checksum if it is written by the backend. Returns whether there was one.
fn damage(cache: &Cache<RedisBackend, AtRest>, server: &Server, random: &mut Random) -> bool {
    let (n, other) = (random.below(KEYS), random.below(KEYS));
    let backend = cache.backend();
    let Ok(Some(record)) = backend.read(&key(n)) else { return false };
    let (created, end) = (record.created(), record.expires().saturating_add(HOUR));
    let mut bytes = record.value().to_vec();
    let at = random.below(bytes.len().max(1));
    let written = match random.below(5) {
        // Another key.
        0 => backend.write(&key(other), record),
        // Other times.
        1 => backend.write(&key(n), record.with_times(created, end, end)),
        // Another value.
        2 => {
            // An earlier truncation may have left none.
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
            backend.write(&key(n), record.map(|_| bytes.into()))
        }
        // A part of it.
        3 => {
            bytes.truncate(at);
            backend.write(&key(n), record.map(|_| bytes.into()))
        }
        // All bytes of the entry of another key.
        _ => {
            let copied = server.try_ask::<Vec<u8>>(redis::cmd("GET").arg(name(n)));
            let copied = copied.and_then(|bytes| {
                server.try_ask::<()>(redis::cmd("SET").arg(name(other)).arg(bytes))
            });
            return copied.is_ok();
        }
    };
    written.is_ok()
}

/// Returns the name of the entry of a key.
fn name(n: usize) -> String {
    let digest = key(n).digest();
    digest.iter().fold("vayu:e:".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}
