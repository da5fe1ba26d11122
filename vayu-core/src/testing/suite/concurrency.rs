//! The properties of backends that threads share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Harness, key, properties};
use crate::backend::Backend;
use crate::serializer::Serializer;

/// The number of threads, and below the number of rounds.
const THREADS: usize = 4;
const ROUNDS: usize = if cfg!(miri) { 4 } else { 500 };

properties! {
    /// Checks that readers get a whole value that was written, while writers replace it.
    fn readers_never_see_a_part_of_a_value(harness) {
        let key = key("shared");
        let value = |writer: u8, size: usize| vec![writer; size];
        harness.write(&key, &value(0, 64));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let found = harness.read(&key).expect("a key is present while it is replaced");
                        let size = 64 * (usize::from(found[0]) + 1);
                        assert_eq!(found, vec![found[0]; size], "a read returns one whole value, not parts of two");
                    }
                });
            }
            let writers: Vec<_> = (1..=3)
                .map(|writer| {
                    let (harness, key) = (&harness, &key);
                    scope.spawn(move || {
                        for _ in 0..ROUNDS {
                            harness.write(key, &value(writer, 64 * (usize::from(writer) + 1)));
                        }
                    })
                })
                .collect();
            let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            is_over.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok), "a writer panicked");
        });
    }

    /// Checks that no write is lost among writes of other keys.
    fn writers_of_different_keys_do_not_disturb_each_other(harness) {
        let keys_of = |writer: usize| (0..ROUNDS / 4).map(move |n| format!("{writer}/{n}"));
        thread::scope(|scope| {
            for writer in 0..THREADS {
                scope.spawn(move || {
                    for text in keys_of(writer) {
                        harness.write(&key(&text), text.as_bytes());
                    }
                });
            }
        });
        for text in (0..THREADS).flat_map(keys_of) {
            let found = harness.read(&key(&text));
            assert_eq!(found.as_deref(), Some(text.as_bytes()), "no write of another key is lost");
        }
    }

    /// Checks that no earlier write is visible once a delete has returned.
    fn no_write_comes_back_after_a_delete(harness) {
        thread::scope(|scope| {
            for writer in 0..THREADS {
                scope.spawn(move || {
                    let key = key(&format!("own key of {writer}"));
                    for round in 0..ROUNDS {
                        harness.write(&key, round.to_string().as_bytes());
                        harness.delete(&key);
                        let found = harness.read(&key);
                        assert_eq!(found, None, "nothing is read after a delete; round {round}");
                    }
                });
            }
        });
        let shared = key("shared");
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..ROUNDS).for_each(|_| harness.write(&shared, b"value")));
            }
        });
        harness.delete(&shared);
        assert_eq!(harness.read(&shared), None, "no earlier write is visible after a delete");
    }
}
