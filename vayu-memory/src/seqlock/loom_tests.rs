//! Readers, fills and invalidations of slots under every interleaving with few preemptions.
//!
//! `LOOM_MAX_PREEMPTIONS` in the environment sets their number; the default is two.

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::seqlock::slot::Payload;
use crate::seqlock::table::Table;

/// A hash and its key. Both are in the same set, with different tags.
const ONE: (u64, [u64; 1]) = (8, [11]);
const OTHER: (u64, [u64; 1]) = (4, [22]);

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(test);
}

fn table() -> Arc<Table<3>> {
    let table = Table::new(2);
    table.ensure_allocated();
    Arc::new(table)
}

/// A payload that is consistent if its parts are equal.
fn entry(key: [u64; 1], value: u64) -> Payload<3> {
    Payload { words: [key[0], value, value], bits: value }
}

fn value_of(table: &Table<3>, (hash, key): (u64, [u64; 1])) -> Option<u64> {
    let Payload { words, bits } = table.get(hash, key, || ())?;
    assert_eq!(words, [key[0], bits, bits], "a whole entry of this key");
    Some(bits)
}

/// The map behind the table.
type Kept = Arc<Mutex<u64>>;

fn kept(value: u64) -> Kept {
    Arc::new(Mutex::new(value))
}

fn fill(table: &Table<3>, (hash, key): (u64, [u64; 1]), kept: &Kept) {
    table.try_fill(hash, || Some(entry(key, *kept.lock().expect("the value"))));
}

/// Fills a slot `times` times on another thread.
fn spawn_fill(
    table: &Arc<Table<3>>,
    key: (u64, [u64; 1]),
    kept: &Kept,
    times: usize,
) -> thread::JoinHandle<()> {
    let (table, kept) = (Arc::clone(table), Arc::clone(kept));
    thread::spawn(move || (0..times).for_each(|_| fill(&table, key, &kept)))
}

fn change(table: &Table<3>, (hash, _): (u64, [u64; 1]), kept: &Kept, value: u64) {
    *kept.lock().expect("the value") = value;
    table.invalidate(hash);
}

#[test]
fn changed_entry_is_not_read_any_more() {
    model(|| {
        let (table, kept) = (table(), kept(1));
        let filling = spawn_fill(&table, ONE, &kept, 1);
        change(&table, ONE, &kept, 2);
        assert_ne!(value_of(&table, ONE), Some(1));
        filling.join().expect("a thread");
        assert_ne!(value_of(&table, ONE), Some(1));
    });
}

#[test]
fn changed_entry_is_not_read_while_another_key_is_filled_in() {
    model(|| {
        let (table, kept, other) = (table(), kept(1), kept(7));
        fill(&table, ONE, &kept);
        // It gets the other way, then none, and then the way of the first.
        let filling = spawn_fill(&table, OTHER, &other, 3);
        change(&table, ONE, &kept, 2);
        assert_eq!(value_of(&table, ONE), None);
        filling.join().expect("a thread");
        assert!(matches!(value_of(&table, OTHER), None | Some(7)));
    });
}

/// The map invalidates a slot only where it replaces an entry, and does both under its lock.
#[test]
fn entry_that_was_deleted_and_written_again_is_not_read_as_before() {
    model(|| {
        let table = table();
        let kept = Arc::new(Mutex::new(Some(1)));
        let fill = |table: &Table<3>, kept: &Mutex<Option<u64>>| {
            table.try_fill(ONE.0, || {
                kept.lock().expect("the value").map(|value| entry(ONE.1, value))
            });
        };
        fill(&table, &kept);
        let deleting = {
            let (table, kept) = (Arc::clone(&table), Arc::clone(&kept));
            thread::spawn(move || {
                let mut kept = kept.lock().expect("the value");
                if kept.take().is_some() {
                    table.invalidate(ONE.0);
                }
            })
        };
        {
            let mut kept = kept.lock().expect("the value");
            if kept.replace(2).is_some() {
                table.invalidate(ONE.0);
            }
        }
        assert_ne!(value_of(&table, ONE), Some(1));
        fill(&table, &kept);
        assert_ne!(value_of(&table, ONE), Some(1));
        deleting.join().expect("a thread");
    });
}

#[test]
fn entry_is_read_whole_while_others_are_filled_in() {
    model(|| {
        let (table, kept, other) = (table(), kept(1), kept(7));
        fill(&table, ONE, &kept);
        let filling = spawn_fill(&table, OTHER, &other, 3);
        assert!(matches!(value_of(&table, ONE), None | Some(1)));
        assert!(matches!(value_of(&table, OTHER), None | Some(7)));
        filling.join().expect("a thread");
    });
}

#[test]
fn two_fills_of_one_slot_do_not_write_at_once() {
    model(|| {
        let (table, kept, other) = (table(), kept(1), kept(7));
        let filling = spawn_fill(&table, OTHER, &other, 1);
        fill(&table, ONE, &kept);
        filling.join().expect("a thread");
        assert!(matches!(value_of(&table, ONE), None | Some(1)));
        assert!(matches!(value_of(&table, OTHER), None | Some(7)));
    });
}
