//! Readers and writers of a small table under every interleaving with few preemptions.
//!
//! `LOOM_MAX_PREEMPTIONS` in the environment sets their number; the default is two.

use loom::sync::Arc;
use loom::thread;
use vayu_core::{AnyValue, InlineValue, Key, Record, Timestamp};

use crate::table::{Limits, Table, Written};

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(test);
}

fn table(entries: usize) -> Arc<Table<AnyValue>> {
    Arc::new(Table::new(1, Limits { entries, weight: u64::MAX }))
}

/// Keys that fit into a slot, into its extension, and into neither.
fn keys() -> [Key; 3] {
    ["short".to_owned(), "more than sixteen letters".to_owned(), "k".repeat(60)]
        .map(|text| Key::from_text("p", text))
}

/// A value that consists of words, or that is held beside the slot. All parts of its record are equal.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Words,
    /// Words of another type.
    LongWords,
    Held,
}

use self::Kind::{Held, LongWords, Words};

fn write(table: &Table<AnyValue>, key: &Key, number: u32, kind: Kind) {
    let at = Timestamp::from_micros(number.into());
    let value = match kind {
        Words => AnyValue::new(number),
        LongWords => AnyValue::new(u64::from(number)),
        Held => AnyValue::new((number,)),
    };
    let record = Record::new(value, at, at).with_schema(number.into());
    let mut written = Written::new(None);
    table.write(key, &mut Some(record), &mut written).expect("no fork");
}

/// Returns the number of an entry whose parts belong together.
fn read(table: &Table<AnyValue>, key: &Key) -> Option<u32> {
    let mut read = |record: Record<&AnyValue>, _| {
        let value = *record.value();
        let held = value.downcast_ref().map(|&(number,): &(u32,)| number);
        let number = held.or(value.downcast_ref().copied()).expect("a number");
        check(&record, number);
        number
    };
    if let Some((record, held)) = table.hold(key)
        && let Some(value) = held.get()
    {
        return Some(read(record.map(|()| value), false));
    }
    table.read(key, &mut read).expect("no fork")
}

/// [`read`] for values that consist of words, without a lock.
fn read_words(table: &Table<AnyValue>, key: &Key) -> Option<u32> {
    let record = table.read_words(key, None, |record| record)?;
    let [_, number, _] = *record.value();
    let number = u32::try_from(number).expect("it was one");
    check(&record, number);
    Some(number)
}

fn check<V>(record: &Record<V>, number: u32) {
    let at = Timestamp::from_micros(number.into());
    assert_eq!((record.created(), record.expires()), (at, at), "one entry");
    assert_eq!(record.schema(), number.into(), "one entry");
}

fn remove(table: &Table<AnyValue>, key: &Key) -> bool {
    table.remove(key).expect("no fork").0
}

/// An entry that is replaced is read as it was or as it is, and missed by no reader but one without a lock.
fn replaced_entry_is_read_whole(key: usize, before: Kind, after: Kind) {
    while_an_entry_is_replaced(key, before, after, |table, key| {
        assert!(matches!(read_words(table, key), None | Some(1 | 2)));
    });
    while_an_entry_is_replaced(key, before, after, |table, key| {
        let first = read(table, key).expect("it is there all the time");
        let second = read(table, key).expect("it is there all the time");
        assert!(matches!(first, 1 | 2) && second >= first, "{first}, then {second}");
    });
}

fn while_an_entry_is_replaced(
    key: usize,
    before: Kind,
    after: Kind,
    reader: impl Fn(&Table<AnyValue>, &Key) + Send + Sync + 'static,
) {
    model(move || {
        let (table, key) = (table(2), keys()[key].clone());
        write(&table, &key, 1, before);
        let writer = {
            let (table, key) = (Arc::clone(&table), key.clone());
            thread::spawn(move || write(&table, &key, 2, after))
        };
        reader(&table, &key);
        writer.join().expect("a thread");
        assert_eq!(read(&table, &key), Some(2));
    });
}

#[test]
fn words_replaced_by_words_are_read_whole() {
    for key in 0..2 {
        replaced_entry_is_read_whole(key, Words, Words);
    }
}

#[test]
fn held_value_replaced_by_one_is_read_whole() {
    replaced_entry_is_read_whole(0, Held, Held);
}

#[test]
fn words_and_held_values_that_replace_each_other_are_read_whole() {
    replaced_entry_is_read_whole(0, Words, Held);
    replaced_entry_is_read_whole(0, Held, Words);
}

#[test]
fn entry_by_a_long_key_is_read_whole() {
    replaced_entry_is_read_whole(2, Words, Held);
}

/// The slot of an entry that was removed is used for another key.
fn slot_with_another_key_is_not_read_for_the_first(one: usize, other: usize, kind: Kind) {
    model(move || {
        let table = table(1);
        let [one, other] = [one, other].map(|key| keys()[key].clone());
        write(&table, &one, 1, kind);
        let writer = {
            let (table, one, other) = (Arc::clone(&table), one.clone(), other.clone());
            thread::spawn(move || {
                assert!(remove(&table, &one));
                write(&table, &other, 2, kind);
            })
        };
        assert!(matches!(read_words(&table, &one), None | Some(1)));
        assert!(matches!(read(&table, &one), None | Some(1)));
        assert!(matches!(read_words(&table, &other), None | Some(2)));
        writer.join().expect("a thread");
        assert_eq!((read(&table, &one), read(&table, &other)), (None, Some(2)));
    });
}

#[test]
fn slot_of_words_is_not_read_for_another_key() {
    slot_with_another_key_is_not_read_for_the_first(0, 1, Words);
}

#[test]
fn slot_of_a_held_value_is_not_read_for_another_key() {
    slot_with_another_key_is_not_read_for_the_first(1, 2, Held);
}

#[test]
fn removed_entry_is_not_read_any_more() {
    model(|| {
        let (table, [key, ..]) = (table(2), keys());
        write(&table, &key, 1, Words);
        let reader = {
            let (table, key) = (Arc::clone(&table), key.clone());
            thread::spawn(move || {
                let first = read_words(&table, &key);
                let second = read(&table, &key);
                assert!(first.is_some() || second.is_none(), "it does not come back");
            })
        };
        assert!(remove(&table, &key));
        assert_eq!((read_words(&table, &key), read(&table, &key)), (None, None));
        reader.join().expect("a thread");
    });
}

#[test]
fn evicted_entry_is_read_as_it_was_or_not_at_all() {
    model(|| {
        let (table, [one, other, _]) = (table(1), keys());
        write(&table, &one, 1, Words);
        let writer = {
            let (table, other) = (Arc::clone(&table), other.clone());
            thread::spawn(move || write(&table, &other, 2, Held))
        };
        assert!(matches!(read(&table, &one), None | Some(1)));
        writer.join().expect("a thread");
        assert_eq!((read(&table, &one), read(&table, &other)), (None, Some(2)));
    });
}

#[test]
fn two_writers_of_a_key_leave_one_entry() {
    model(|| {
        let (table, [key, ..]) = (table(2), keys());
        let writer = {
            let (table, key) = (Arc::clone(&table), key.clone());
            thread::spawn(move || write(&table, &key, 1, Words))
        };
        write(&table, &key, 2, Held);
        let found = read(&table, &key).expect("one of them");
        writer.join().expect("a thread");
        assert!(matches!(found, 1 | 2) && read(&table, &key).is_some());
        assert!(remove(&table, &key) && !remove(&table, &key));
    });
}

/// Reads a number that is a `u32`, which is one if there is any.
fn read_one(table: &Table<AnyValue>, key: &Key) -> Option<()> {
    let kind = AnyValue::new(0_u32).to_inline().map(InlineValue::kind);
    table.read_words(key, kind, |record| {
        check(&record, 1);
        assert_eq!(record.value()[1], 1);
    })
}

/// Reads an entry in another thread, while `other` is done.
fn while_one_is_read(other: impl Fn(&Table<AnyValue>, &Key) + Send + Sync + 'static) {
    model(move || {
        let (table, [key, ..]) = (table(2), keys());
        write(&table, &key, 1, Words);
        let reader = {
            let (table, key) = (Arc::clone(&table), key.clone());
            thread::spawn(move || read_one(&table, &key))
        };
        other(&table, &key);
        reader.join().expect("a thread");
    });
}

/// The mark of one reader changes the state that the other one expects.
#[test]
fn readers_that_mark_an_entry_at_once_change_nothing_else() {
    while_one_is_read(|table, key| {
        read_one(table, key);
        assert_eq!(read(table, key), Some(1));
    });
}

#[test]
fn value_that_is_replaced_by_one_of_another_kind_is_not_returned() {
    while_one_is_read(|table, key| {
        write(table, key, 2, LongWords);
        assert!(read_one(table, key).is_none());
    });
}

#[test]
fn reference_bits_of_readers_change_nothing_else() {
    model(|| {
        let (table, [one, other, _]) = (table(1), keys());
        write(&table, &one, 1, Words);
        let reader = {
            let (table, one) = (Arc::clone(&table), one.clone());
            thread::spawn(move || {
                assert!(matches!(read_words(&table, &one), None | Some(1)));
            })
        };
        write(&table, &other, 2, Words);
        reader.join().expect("a thread");
        assert!(read(&table, &one).is_none());
        assert_eq!(read_words(&table, &other), Some(2));
    });
}
