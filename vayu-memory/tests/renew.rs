//! The end of an entry that is set again, in each layout of an entry.

use std::time::Duration;

use vayu_core::{AnyValue, Backend, BackendExt, Key, Record, SerializerId, Timestamp};
use vayu_memory::MemoryBackend;

const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn read(backend: &MemoryBackend, key: &Key) -> Record<AnyValue> {
    backend.read(key).expect("read").expect("it was written")
}

/// Returns everything but the times and the value.
fn rest<V>(record: &Record<V>) -> (u64, SerializerId, Duration, u32) {
    (record.schema(), record.serializer(), record.compute_time(), record.weight())
}

#[test]
fn only_the_end_of_the_entry_that_was_read_is_set() {
    let keys = [
        Key::new("p", &(7_u64,)).expect("a key"),
        Key::from_text("p", "of thirty letters, or a few more"),
        Key::from_text("p", "k".repeat(200)),
    ];
    let values = [AnyValue::new(7_u64), AnyValue::new("seven".to_owned())];
    for key in &keys {
        for value in &values {
            let plain = Record::new(value.clone(), at(10), at(20))
                .with_schema(99)
                .with_serializer(SerializerId::BY_REFERENCE)
                .with_compute_time(Duration::from_millis(77));
            let stale = plain.clone().with_stale_until(at(25));
            let other = plain.clone().with_serializer(SerializerId::user(5)).with_weight(3);
            for record in [plain, stale, other] {
                let backend: MemoryBackend = MemoryBackend::default();
                let times = || {
                    let found = read(&backend, key);
                    assert_eq!(rest(&found), rest(&record));
                    assert_eq!(found.value().downcast_ref::<u64>(), value.downcast_ref::<u64>());
                    let string = found.value().downcast_ref::<String>();
                    assert_eq!(string, value.downcast_ref::<String>());
                    [found.created(), found.expires(), found.stale_until()]
                };
                let seen = record.clone().map(|_| ());
                backend.renew(key, &seen, at(30));
                assert!(backend.read(key).expect("read").is_none(), "there was no entry");
                backend.write(key, record.clone()).expect("write");
                let first = times();
                let end = first[2];
                for others in [
                    seen.clone().with_times(at(11), at(20), end),
                    seen.clone().with_times(at(10), at(19), end),
                    seen.clone().with_times(at(10), at(20), at(26)),
                    seen.clone().with_schema(98),
                ] {
                    backend.renew(key, &others, at(30));
                    assert_eq!(times(), first, "{others:?} is another entry");
                }
                let renew = |end| {
                    backend.renew(key, &read(&backend, key).map(|_| ()), end);
                    assert_eq!(times(), [at(10), at(20), end]);
                };
                renew(at(30));
                renew(at(35));
                renew(Timestamp::NEVER);
                renew(at(15));
            }
        }
    }
}
