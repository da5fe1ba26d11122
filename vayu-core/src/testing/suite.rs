//! The properties that the engine relies on in a backend.

mod batches;
mod concurrency;
mod harness;
mod leases;
mod reopening;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use self::batches::{
    batch_of_no_keys_returns_nothing, batch_of_reads_returns_what_single_reads_return,
    batch_of_writes_stores_what_single_writes_store, large_batch_has_a_result_for_each_key,
    last_record_of_a_key_in_a_batch_is_stored,
};
pub use self::concurrency::{
    no_write_comes_back_after_a_delete, readers_never_see_a_part_of_a_value,
    writers_of_different_keys_do_not_disturb_each_other,
};
pub use self::harness::{Harness, Mode, erased, open, plain};
pub use self::leases::{
    lease_that_was_dropped_is_acquired_again, lease_that_was_released_is_acquired_again,
};
pub use self::reopening::{
    Reopening, clear_never_resets_a_generation, entries_are_where_the_backend_says_they_are,
    invalidations_survive_as_long_as_entries, reopen,
};
use crate::backend::{Backend, BackendExt};
use crate::cache::Cache;
use crate::clock::{Clock, Timestamp};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::{Serializer, ValueClass};
use crate::sync::block_on;

/// Generates the conformance tests of a backend: one `#[test]` for each property that the engine
/// relies on, for sync and async callers, on the backend itself and through `Arc<dyn Backend>`.
///
/// The arguments are a name for the module of the tests, a serializer that fits the backend and can
/// store `Vec<u8>`, and a function that opens an empty backend. That function receives the
/// [`ManualClock`](crate::testing::ManualClock) that the backend must return from [`Backend::clock`] and use for its own expiry,
/// and returns a guard and the backend; the guard (a temporary directory, a server) is dropped after
/// the test.
///
/// # Examples
///
/// ```
/// # mod vayu {
/// #     pub use vayu_core::*;
/// #     pub mod testing { pub use vayu_core::{backend_tests, testing::*}; }
/// # }
/// vayu::testing::backend_tests! {
///     map_backend,
///     vayu::MessagePack,
///     |clock| ((), vayu::testing::MapBackend::with_clock(clock))
/// }
/// # fn main() {}
/// ```
///
/// # A location that outlives the process
///
/// The optional function `reopen` opens the same location again, as another process does: it receives
/// a reference to the guard, and the clock. The tests then also check that entries and invalidations
/// survive that, that clearing never lets a generation return to an earlier value, and that
/// [`Backend::is_in_process`] is `true` if and only if nothing survives. Every backend should have
/// these tests: for one in memory, `reopen` opens an empty one.
///
/// ```
/// # mod vayu {
/// #     pub use vayu_core::*;
/// #     pub mod testing { pub use vayu_core::{backend_tests, testing::*}; }
/// # }
/// use vayu::MessagePack;
/// use vayu::testing::{MapBackend, backend_tests};
///
/// backend_tests! {
///     map_backend,
///     MessagePack,
///     |clock| {
///         let map: MapBackend = MapBackend::with_clock(clock);
///         (map.clone(), map)
///     },
///     reopen = |map, _clock| map.clone()
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! backend_tests {
    ($name:ident, $serializer:ty, $open:expr $(,)?) => {
        #[cfg(test)]
        mod $name {
            $crate::__backend_tests!(@modes $serializer, $open);
        }
    };
    ($name:ident, $serializer:ty, $open:expr, reopen = $reopen:expr $(,)?) => {
        #[cfg(test)]
        mod $name {
            $crate::__backend_tests!(@modes $serializer, $open);
            $crate::__backend_tests!(@reopened sync_reopened, Sync, $serializer, $open, $reopen);
            $crate::__backend_tests!(@reopened async_reopened, Async, $serializer, $open, $reopen);
        }
    };
}

/// The parts of [`backend_tests!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __backend_tests {
    (@modes $serializer:ty, $open:expr) => {
        $crate::__backend_tests!(@mode sync_plain, Sync, plain, $serializer, $open);
        $crate::__backend_tests!(@mode sync_dyn, Sync, erased, $serializer, $open);
        $crate::__backend_tests!(@mode async_plain, Async, plain, $serializer, $open);
        $crate::__backend_tests!(@mode async_dyn, Async, erased, $serializer, $open);
    };
    (@reopened $module:ident, $mode:ident, $serializer:ty, $open:expr, $reopen:expr) => {
        mod $module {
            #[allow(unused_imports)]
            use super::super::*;
            $crate::__backend_tests!(@reopenings reopened_tests [$mode, $serializer, $open, $reopen]);
        }
    };
    (@reopened_tests [$mode:ident, $serializer:ty, $open:expr, $reopen:expr] $($property:ident)*) => {$(
        #[test]
        fn $property() {
            let clock = $crate::testing::ManualClock::new();
            let (place, backend) = $crate::testing::suite::open(&clock, $open);
            $crate::testing::suite::$property(&$crate::testing::suite::Reopening::new(
                backend,
                || $crate::testing::suite::reopen(&place, &clock, $reopen),
                <$serializer as ::core::default::Default>::default(),
                $crate::testing::suite::Mode::$mode,
            ));
        }
    )*};
    (@reopening_table [$backend:ty, $serializer:ty] $($property:ident)*) => {
        [$((
            stringify!($property),
            $crate::testing::suite::$property
                as fn(&$crate::testing::suite::Reopening<'_, $backend, $serializer>),
        )),*]
    };
    (@reopenings $then:ident [$($arguments:tt)*]) => {
        $crate::__backend_tests! {
            @$then [$($arguments)*]
            entries_are_where_the_backend_says_they_are
            invalidations_survive_as_long_as_entries
            clear_never_resets_a_generation
        }
    };
    (@mode $module:ident, $mode:ident, $form:ident, $serializer:ty, $open:expr) => {
        mod $module {
            #[allow(unused_imports)]
            use super::super::*;
            $crate::__backend_tests!(@list tests [$mode, $form, $serializer, $open]);
        }
    };
    (@tests [$mode:ident, $form:ident, $serializer:ty, $open:expr] $($property:ident)*) => {$(
        #[test]
        fn $property() {
            let clock = $crate::testing::ManualClock::new();
            let (_guard, backend) = $crate::testing::suite::open(&clock, $open);
            $crate::testing::suite::$property(&$crate::testing::suite::Harness::new(
                $crate::testing::suite::$form(backend),
                clock,
                <$serializer as ::core::default::Default>::default(),
                $crate::testing::suite::Mode::$mode,
            ));
        }
    )*};
    (@table [$backend:ty, $serializer:ty] $($property:ident)*) => {
        [$((
            stringify!($property),
            $crate::testing::suite::$property
                as fn(&$crate::testing::suite::Harness<$backend, $serializer>),
        )),*]
    };
    (@list $then:ident [$($arguments:tt)*]) => {
        $crate::__backend_tests! {
            @$then [$($arguments)*]
            absent_key_reads_as_none
            record_is_read_back_whole
            second_write_replaces_the_first
            deleted_key_reads_as_none
            delete_returns_whether_there_was_an_entry
            expired_entry_is_not_served
            entry_is_kept_as_long_as_it_may_be_served_stale
            entry_that_never_expires_is_kept
            unusual_keys_are_all_different
            prefix_and_string_are_distinguished
            values_of_all_sizes_are_read_back
            batch_of_no_keys_returns_nothing
            batch_of_reads_returns_what_single_reads_return
            batch_of_writes_stores_what_single_writes_store
            last_record_of_a_key_in_a_batch_is_stored
            large_batch_has_a_result_for_each_key
            record_gets_new_times_and_keeps_its_value
            reading_without_blocking_returns_the_same
            readers_never_see_a_part_of_a_value
            writers_of_different_keys_do_not_disturb_each_other
            no_write_comes_back_after_a_delete
            cleared_backend_is_empty
            lease_that_was_released_is_acquired_again
            lease_that_was_dropped_is_acquired_again
        }
    };
}

const MINUTE: Duration = Duration::from_secs(60);
const SCHEMA: u64 = 0x0123_4567_89ab_cdef;

fn key(text: &str) -> Key {
    Key::from_text("conformance", text)
}

macro_rules! properties {
    ($($(#[$doc:meta])* fn $name:ident($harness:ident) $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Panics
        ///
        /// When the backend does not have this property.
        pub fn $name<B, S>($harness: &Harness<B, S>)
        where
            B: Backend,
            S: Serializer<Vec<u8>, Stored = B::Stored> + Clone,
        $body
    )*};
}

use properties;

properties! {
    /// Checks that a key that was never written reads as `None`.
    fn absent_key_reads_as_none(harness) {
        assert_eq!(harness.read(&key("absent")), None, "a key that was never written reads as `None`");
    }

    /// Checks that the value, the times and the stamps of a record are read back.
    fn record_is_read_back_whole(harness) {
        let stale_until = harness.clock.now().saturating_add(10 * MINUTE);
        let written = harness.record(b"value").with_stale_until(stale_until);
        harness.write_record(&key("whole"), written.clone());
        let found = harness.read_record(&key("whole")).expect("a record that was written is read");
        let contract = "a backend stores a record whole: `Record::encode` writes all of it";
        assert_eq!(found.created(), written.created(), "`created` is lost; {contract}");
        assert_eq!(found.expires(), written.expires(), "`expires` is lost; {contract}");
        assert_eq!(found.stale_until(), stale_until, "`stale_until` is lost; {contract}");
        assert_eq!(found.schema(), SCHEMA, "the schema stamp is lost; {contract}");
        assert_eq!(found.serializer(), written.serializer(), "the serializer is lost; {contract}");
        let value = harness.read(&key("whole"));
        assert_eq!(value.as_deref(), Some(&b"value"[..]), "the value differs; {contract}");
    }

    /// Checks that the last write wins, with its value and its times.
    fn second_write_replaces_the_first(harness) {
        harness.write(&key("twice"), b"a longer first value");
        harness.clock.advance(Duration::from_secs(1));
        harness.write(&key("twice"), b"second");
        let value = harness.read(&key("twice"));
        assert_eq!(value.as_deref(), Some(&b"second"[..]), "a write replaces the value");
        let found = harness.read_record(&key("twice")).expect("a record that was written is read");
        assert_eq!(found.created(), harness.clock.now(), "a write replaces the times");
    }

    /// Checks that new times are stored, with the value that was there.
    fn record_gets_new_times_and_keeps_its_value(harness) {
        let later = |minutes: u32| harness.clock.now().saturating_add(minutes * MINUTE);
        let old = harness.record(b"value").with_stale_until(later(10));
        harness.write_record(&key("renewed"), old.clone());
        let old = old.map(|_| ());
        harness.clock.advance(2 * MINUTE);
        let new = harness.record(b"value").with_stale_until(later(20));
        let written = match harness.mode {
            Mode::Sync => harness.backend.write_times(&key("renewed"), &old, new.clone()),
            Mode::Async => {
                block_on(harness.backend.write_times_async(&key("renewed"), &old, new.clone()))
            }
        };
        written.expect("write");
        let found = harness.read_record(&key("renewed")).expect("a record that was renewed is read");
        let times = |record: &Record<B::Stored>| {
            [record.created(), record.expires(), record.stale_until()]
        };
        assert_eq!(times(&found), times(&new), "new times replace the old ones");
        let value = harness.read(&key("renewed"));
        assert_eq!(value.as_deref(), Some(&b"value"[..]), "the value stays");
    }

    /// Checks that a deleted key reads as `None`, and another one does not.
    fn deleted_key_reads_as_none(harness) {
        harness.write(&key("deleted"), b"value");
        harness.write(&key("kept"), b"value");
        harness.delete(&key("deleted"));
        assert_eq!(harness.read(&key("deleted")), None, "a deleted key reads as `None`");
        let kept = harness.read(&key("kept"));
        assert_eq!(kept.as_deref(), Some(&b"value"[..]), "a delete removes no other key");
    }

    /// Checks that a delete returns whether there was a record.
    fn delete_returns_whether_there_was_an_entry(harness) {
        assert!(!harness.delete(&key("key")), "deleting an absent key returns `false`");
        harness.write(&key("key"), b"value");
        assert!(harness.delete(&key("key")), "deleting a key returns `true`");
        assert!(!harness.delete(&key("key")), "deleting a deleted key returns `false`");
    }

    /// Checks that a cache over the backend serves an entry until just before its ttl is over.
    fn expired_entry_is_not_served(harness) {
        let cache = Cache::<Arc<B>, ()>::with_backend(Arc::clone(&harness.backend))
            .with_serializer(harness.serializer.clone());
        let get = || match harness.mode {
            Mode::Sync => cache.get::<Vec<u8>>(&key("mortal")).expect("read"),
            Mode::Async => block_on(cache.get_async::<Vec<u8>>(&key("mortal"))).expect("read"),
        };
        cache.set(&key("mortal"), &b"value".to_vec(), MINUTE).expect("write");
        harness.clock.advance(Duration::from_micros(59_999_999));
        assert_eq!(get().as_deref(), Some(&b"value"[..]), "an entry is served until just before its ttl is over");
        harness.clock.advance(Duration::from_micros(1));
        assert_eq!(get(), None, "an entry is not served once its ttl is over, by `Backend::clock`");
    }

    /// Checks that an expired record is kept as long as it may be served stale.
    fn entry_is_kept_as_long_as_it_may_be_served_stale(harness) {
        let stale_until = harness.clock.now().saturating_add(10 * MINUTE);
        let record = harness.record(b"value").with_stale_until(stale_until);
        harness.write_record(&key("stale"), record);
        harness.clock.advance(Duration::from_micros(599_999_999));
        harness.write(&key("other"), b"may start a sweep");
        assert_eq!(harness.read(&key("other")).as_deref(), Some(&b"may start a sweep"[..]));
        let stale = harness.read(&key("stale"));
        assert_eq!(stale.as_deref(), Some(&b"value"[..]), "a record is kept until `stale_until`");
    }

    /// Checks that an entry without expiry is kept for a century.
    fn entry_that_never_expires_is_kept(harness) {
        let stored = harness.serializer.serialize(&b"value".to_vec()).expect("encode");
        let record = Record::new(stored, harness.clock.now(), Timestamp::NEVER);
        harness.write_record(&key("eternal"), record);
        harness.clock.advance(Duration::from_secs(100 * 365 * 24 * 60 * 60));
        harness.write(&key("other"), b"may start a sweep");
        let found = harness.read_record(&key("eternal")).expect("a record without expiry is kept");
        assert_eq!(found.expires(), Timestamp::NEVER, "`Timestamp::NEVER` is kept");
    }

    /// Checks that keys that file systems, C strings and joined strings confuse are different entries.
    fn unusual_keys_are_all_different(harness) {
        let keys: Vec<Key> = unusual_texts().iter().map(|text| key(text)).collect();
        for (index, key) in keys.iter().enumerate() {
            harness.write(key, index.to_string().as_bytes());
        }
        for (index, key) in keys.iter().enumerate() {
            let found = harness.read(key).map(|value| String::from_utf8_lossy(&value).into_owned());
            assert_eq!(found, Some(index.to_string()), "keys are compared whole: {key:?} was confused with another one");
        }
        for (index, key) in keys.iter().enumerate() {
            assert!(harness.delete(key), "keys are compared whole: deleting one removed key {index}, {key:?}");
        }
    }

    /// Checks that `a:b` + `c` is not `a` + `b:c`.
    fn prefix_and_string_are_distinguished(harness) {
        let (one, two) = (Key::from_text("a:b", "c"), Key::from_text("a", "b:c"));
        harness.write(&one, b"one");
        let contract = "the prefix and the string of a key are distinguished: use `Key::to_bytes` or `digest`";
        assert_eq!(harness.read(&two), None, "{contract}");
        harness.write(&two, b"two");
        assert_eq!(harness.read(&one).as_deref(), Some(&b"one"[..]), "{contract}");
    }

    /// Checks empty values, small ones and one of a mebibyte.
    fn values_of_all_sizes_are_read_back(harness) {
        let largest = if cfg!(miri) { 300 } else { 1 << 20 };
        for size in [0, 1, 80, largest / 2, largest] {
            let value: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
            let key = key(&format!("size {size}"));
            harness.write(&key, &value);
            assert!(harness.read(&key).as_ref() == Some(&value), "a value of {size} bytes is read back");
        }
    }

    /// Checks that `read_now`, `read_with` and `read_optimistic` return what `read` returns, whatever the class
    /// of the value.
    fn reading_without_blocking_returns_the_same(harness) {
        let (present, absent) = (key("present"), key("absent"));
        harness.write(&present, b"value");
        for class in [ValueClass::Opaque, ValueClass::Plain, ValueClass::Inline] {
            let contract = "`read_now` visits what `read` returns, once, unless it would block";
            for (key, expected) in [(&present, &[harness.clock.now()][..]), (&absent, &[])] {
                let mut visited = Vec::new();
                let read = harness.backend.read_now(key, class, &mut |record| {
                    visited.push(record.created());
                    if class == ValueClass::Opaque {
                        // No lock is held, so code of users may use the backend.
                        assert!(harness.backend.read(key).expect("read").is_some(), "{contract}");
                    }
                });
                match read {
                    Some(read) => {
                        read.expect("read");
                        assert_eq!(visited, expected, "{contract}");
                    }
                    None => assert_eq!(visited, [], "{contract}"),
                }
            }
            let contract = "`read_optimistic` returns what `read` does, or `None`";
            let optimistic = harness.backend.read_optimistic(&present).map(|it| it.created());
            assert!(optimistic.is_none_or(|created| created == harness.clock.now()), "{contract}");
            assert!(harness.backend.read_optimistic(&absent).is_none(), "{contract}");
        }
        let contract = "`read_with` lends what `read` returns, or nothing";
        let lent = harness.backend.read_with(&present, |record| record.created());
        assert!(lent.is_none_or(|created| created == harness.clock.now()), "{contract}");
        assert!(harness.backend.read_with(&absent, |_| ()).is_none(), "{contract}");
    }

    /// Checks that clearing removes everything, or returns [`ErrorKind::Unsupported`].
    fn cleared_backend_is_empty(harness) {
        harness.write(&key("one"), b"value");
        harness.write(&key("two"), b"value");
        let result = match harness.mode {
            Mode::Sync => harness.backend.clear(),
            Mode::Async => block_on(harness.backend.clear_async()),
        };
        match result {
            Ok(()) => {
                let found = [harness.read(&key("one")), harness.read(&key("two"))];
                assert_eq!(found, [None, None], "a cleared backend is empty");
                let entries = harness.backend.usage().entries;
                assert!(matches!(entries, None | Some(0)), "usage of an empty backend: {entries:?}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "`clear` works or is unsupported");
            }
        }
    }

}

fn unusual_texts() -> Vec<String> {
    let long = "k".repeat(if cfg!(miri) { 300 } else { 64 * 1024 });
    let mut texts: Vec<String> = [
        "",
        " ",
        "a",
        "A",
        "\0",
        "a\0b",
        "a\0c",
        "/",
        "a/b",
        "a\\b",
        ".",
        "..",
        "../a",
        "CON",
        "con",
        "é",
        "e\u{301}",
        "ß",
        "ẞ",
        "日本語",
        "\u{feff}a",
        "a\n",
        "a\r\n",
        "a:b",
        "*",
        "%2F",
        "~",
        "-rf",
    ]
    .map(String::from)
    .to_vec();
    texts.push("k".repeat(255));
    texts.push("k".repeat(256));
    texts.push(format!("{long}a"));
    texts.push(format!("{long}b"));
    texts
}
