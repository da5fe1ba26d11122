//! The properties of batches.

use std::time::Duration;

use super::{Harness, MINUTE, Mode, SCHEMA, key, properties};
use crate::backend::{Backend, BackendExt};

use crate::clock::Clock;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::Serializer;
use crate::sync::block_on;

/// The number of keys of a large batch.
const LARGE: usize = if cfg!(miri) { 20 } else { 1000 };

const EACH: &str = "a batch returns one result for each key, in the order of the keys";

impl<B, S> Harness<B, S>
where
    B: Backend,
    S: Serializer<Vec<u8>, Stored = B::Stored> + Clone,
{
    fn read_many(&self, keys: &[Key]) -> Vec<Option<Record<B::Stored>>> {
        let keys: Vec<&Key> = keys.iter().collect();
        let results = match self.mode {
            Mode::Sync => self.backend.read_many(&keys),
            Mode::Async => block_on(self.backend.read_many_async(&keys)),
        };
        assert_eq!(results.len(), keys.len(), "{EACH}");
        results.into_iter().map(|result| result.expect("read")).collect()
    }

    /// Writes the values of several keys in a batch.
    fn write_many(&self, entries: &[(Key, String)]) {
        let records = entries.iter().map(|(key, value)| (key, self.record(value.as_bytes())));
        let results = match self.mode {
            Mode::Sync => self.backend.write_many(records.collect()),
            Mode::Async => block_on(self.backend.write_many_async(records.collect())),
        };
        assert_eq!(results.len(), entries.len(), "{EACH}");
        for result in results {
            result.expect("write");
        }
    }

    /// Returns the values of several keys.
    fn values(&self, keys: &[Key]) -> Vec<Option<String>> {
        let value = |record: Record<B::Stored>| {
            let value = self.serializer.deserialize(record.value());
            String::from_utf8_lossy(&value.expect("what was written can be decoded")).into_owned()
        };
        self.read_many(keys).into_iter().map(|record| record.map(value)).collect()
    }
}

properties! {
    /// Checks that a batch without keys returns no results.
    fn batch_of_no_keys_returns_nothing(harness) {
        assert_eq!(harness.values(&[]), [], "{EACH}");
        harness.write_many(&[]);
    }

    /// Checks that a batch returns records and `None` in the order of its keys, also for keys that occur
    /// several times.
    fn batch_of_reads_returns_what_single_reads_return(harness) {
        for text in ["a", "b", "c"] {
            harness.write(&key(text), text.as_bytes());
            harness.clock.advance(Duration::from_secs(1));
        }
        let keys = ["absent", "c", "a", "c", "other", "b", "absent", "c"].map(key);
        let expected = [None, Some("c"), Some("a"), Some("c"), None, Some("b"), None, Some("c")];
        assert_eq!(harness.values(&keys), expected.map(|value| value.map(String::from)), "{EACH}");
        for (batched, key) in harness.read_many(&keys).iter().zip(&keys) {
            let single = harness.read_record(key);
            let parts = |record: &Record<B::Stored>| {
                let times = [record.created(), record.expires(), record.stale_until()];
                (times, record.schema(), record.serializer(), record.compute_time())
            };
            let contract = "a batch returns the records that single reads return";
            assert_eq!(batched.as_ref().map(parts), single.as_ref().map(parts), "{contract}");
        }
    }

    /// Checks that the records of a batch are stored whole and replace earlier ones.
    fn batch_of_writes_stores_what_single_writes_store(harness) {
        harness.write(&key("replaced"), b"a longer first value");
        harness.write(&key("kept"), b"kept");
        harness.clock.advance(Duration::from_secs(1));
        harness.write_many(&["new", "replaced", ""].map(|text| (key(text), text.to_owned())));
        for text in ["new", "replaced", "", "kept"] {
            let value = harness.read(&key(text));
            assert_eq!(value.as_deref(), Some(text.as_bytes()), "a batch stores each value");
        }
        let found = harness.read_record(&key("replaced")).expect("a record that was written is read");
        let contract = "a batch stores records whole";
        assert_eq!(found.created(), harness.clock.now(), "`created` is lost; {contract}");
        let expires = harness.clock.now().saturating_add(MINUTE);
        assert_eq!(found.expires(), expires, "`expires` is lost; {contract}");
        assert_eq!(found.schema(), SCHEMA, "the schema stamp is lost; {contract}");
        assert!(harness.delete(&key("replaced")), "what a batch stored can be deleted");
        assert_eq!(harness.values(&["replaced", "new"].map(key)), [None, Some("new".to_owned())]);
    }

    /// Checks that a key that occurs several times in a batch of writes has the last of its records.
    fn last_record_of_a_key_in_a_batch_is_stored(harness) {
        let entry = |text: &str, value: &str| (key(text), value.to_owned());
        let entries =
            [("twice", "1"), ("once", "2"), ("twice", "3")].map(|(text, value)| entry(text, value));
        harness.write_many(&entries);
        for values in [
            harness.values(&["twice", "once"].map(key)),
            ["twice", "once"].map(|text| {
                harness.read(&key(text)).map(|value| String::from_utf8_lossy(&value).into_owned())
            }).to_vec(),
        ] {
            let contract = "the last record of a key in a batch is stored";
            assert_eq!(values, ["3", "2"].map(|value| Some(value.to_owned())), "{contract}");
        }
    }

    /// Checks a batch of a thousand keys, which a backend may divide.
    fn large_batch_has_a_result_for_each_key(harness) {
        let entries: Vec<_> = (0..LARGE).map(|n| (key(&format!("large {n}")), n.to_string())).collect();
        harness.write_many(&entries);
        let is_absent = |n: usize| n.is_multiple_of(3);
        let keys: Vec<Key> = (0..LARGE)
            .rev()
            .map(|n| if is_absent(n) { key(&format!("absent {n}")) } else { entries[n].0.clone() })
            .collect();
        let expected = |n: usize| (!is_absent(n)).then(|| n.to_string());
        let expected: Vec<_> = (0..LARGE).rev().map(expected).collect();
        assert!(harness.values(&keys) == expected, "{EACH}");
        let single = harness.read(&entries[LARGE / 2].0);
        assert_eq!(single.as_deref(), Some((LARGE / 2).to_string().as_bytes()));
    }
}
