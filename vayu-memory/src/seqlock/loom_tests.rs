//! Seats under every interleaving with few preemptions: readers, those who are offered a seat, and
//! those who change an entry.
//!
//! `LOOM_MAX_PREEMPTIONS` in the environment says how few; two are the default.

use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::seqlock::slot::Payload;
use crate::seqlock::table::Table;

/// A hash and its key. Both sit in the same row, and have tags of their own.
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

/// An entry that is whole if its parts are equal.
fn entry(key: [u64; 1], value: u64) -> Payload<3> {
    Payload { words: [key[0], value, value], bits: value }
}

fn value_of(table: &Table<3>, (hash, key): (u64, [u64; 1])) -> Option<u64> {
    let Payload { words, bits } = table.get(hash, key, || ())?;
    assert_eq!(words, [key[0], bits, bits], "a whole entry of this key");
    Some(bits)
}

/// The map that is behind the seats.
type Kept = Arc<Mutex<u64>>;

fn kept(value: u64) -> Kept {
    Arc::new(Mutex::new(value))
}

fn fill(table: &Table<3>, (hash, key): (u64, [u64; 1]), kept: &Kept) {
    table.try_fill(hash, || Some(entry(key, *kept.lock().expect("the value"))));
}

/// The same on a thread of its own, so often.
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
fn what_was_changed_is_not_read_any_more() {
    model(|| {
        let (table, kept) = (table(), kept(1));
        let seating = spawn_fill(&table, ONE, &kept, 1);
        change(&table, ONE, &kept, 2);
        assert_ne!(value_of(&table, ONE), Some(1));
        seating.join().expect("a thread");
        assert_ne!(value_of(&table, ONE), Some(1));
    });
}

#[test]
fn what_was_changed_is_not_read_though_another_key_is_seated() {
    model(|| {
        let (table, kept, other) = (table(), kept(1), kept(7));
        fill(&table, ONE, &kept);
        // It gets the seat beside it, then nothing, and then its seat.
        let seating = spawn_fill(&table, OTHER, &other, 3);
        change(&table, ONE, &kept, 2);
        assert_eq!(value_of(&table, ONE), None);
        seating.join().expect("a thread");
        assert!(matches!(value_of(&table, OTHER), None | Some(7)));
    });
}

/// The map withdraws a seat only where it has something to replace, and does both under its lock.
#[test]
fn what_was_deleted_and_written_again_is_not_read_as_it_was() {
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
fn entry_is_read_whole_while_others_are_seated() {
    model(|| {
        let (table, kept, other) = (table(), kept(1), kept(7));
        fill(&table, ONE, &kept);
        let seating = spawn_fill(&table, OTHER, &other, 3);
        assert!(matches!(value_of(&table, ONE), None | Some(1)));
        assert!(matches!(value_of(&table, OTHER), None | Some(7)));
        seating.join().expect("a thread");
    });
}

#[test]
fn two_who_are_offered_one_seat_do_not_write_at_once() {
    model(|| {
        let (table, kept, other) = (table(), kept(1), kept(7));
        let seating = spawn_fill(&table, OTHER, &other, 1);
        fill(&table, ONE, &kept);
        seating.join().expect("a thread");
        assert!(matches!(value_of(&table, ONE), None | Some(1)));
        assert!(matches!(value_of(&table, OTHER), None | Some(7)));
    });
}
