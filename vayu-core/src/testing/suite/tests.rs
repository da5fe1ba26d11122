//! Tests that every fault is caught by the property that it violates.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::error::Result;
use crate::generation::{Generations, Group};
use crate::testing::{Fault, FaultyBackend, ManualClock, MapBackend};
use crate::{AnyValue, ByReference, Capabilities, Clear};

type Backend = FaultyBackend<MapBackend<AnyValue>>;

/// Returns the names of the properties that a backend with this fault does not have.
fn caught_by(fault: Option<Fault>, mode: Mode) -> Vec<&'static str> {
    let table = crate::__backend_tests!(@list table [Backend, ByReference]);
    table
        .into_iter()
        .filter(|(_, property)| {
            let clock = ManualClock::new();
            let backend = FaultyBackend::new(MapBackend::with_clock(clock.clone()));
            backend.set_fault(fault);
            let harness = Harness::new(backend, clock, ByReference, mode);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(&harness))).is_err()
        })
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn correct_backend_has_every_property() {
    assert_eq!(caught_by(None, Mode::Sync), [""; 0]);
    assert_eq!(caught_by(None, Mode::Async), [""; 0]);
}

#[test]
fn every_fault_is_caught_by_the_property_it_violates() {
    let expected = [
        (Fault::FailsReads, "absent_key_reads_as_none"),
        (Fault::PanicsInReads, "absent_key_reads_as_none"),
        (Fault::FailsWrites, "record_is_read_back_whole"),
        (Fault::PanicsInWrites, "record_is_read_back_whole"),
        (Fault::FailsDeletes, "deleted_key_reads_as_none"),
        (Fault::DropsWrites, "record_is_read_back_whole"),
        (Fault::KeepsFirstWrite, "second_write_replaces_the_first"),
        (Fault::DropsDeletes, "no_write_comes_back_after_a_delete"),
        (Fault::ReportsEveryDelete, "delete_returns_whether_there_was_an_entry"),
        (Fault::TruncatesKeys, "unusual_keys_are_all_different"),
        (Fault::EndsKeysAtNul, "unusual_keys_are_all_different"),
        (Fault::FoldsKeyCase, "unusual_keys_are_all_different"),
        (Fault::JoinsKeyParts, "prefix_and_string_are_distinguished"),
        (Fault::DropsTimes, "expired_entry_is_not_served"),
        (Fault::DropsStamps, "record_is_read_back_whole"),
        (Fault::DropsStale, "entry_is_kept_as_long_as_it_may_be_served_stale"),
        (Fault::DropsClear, "cleared_backend_is_empty"),
        (Fault::ReversesBatches, "batch_of_reads_returns_what_single_reads_return"),
        (Fault::MergesKeysOfBatches, "batch_of_reads_returns_what_single_reads_return"),
        (Fault::KeepsFirstOfBatch, "last_record_of_a_key_in_a_batch_is_stored"),
        (Fault::TruncatesBatches, "large_batch_has_a_result_for_each_key"),
    ];
    // Each takes minutes under miri, where the faults of all kinds are the same code.
    let faults = if cfg!(miri) { 2 } else { expected.len() };
    for (fault, property) in expected.into_iter().take(faults) {
        for mode in [Mode::Sync, Mode::Async] {
            let caught = caught_by(Some(fault), mode);
            assert!(caught.contains(&property), "{fault:?} in {mode:?} is caught by {caught:?}");
        }
    }
}

#[test]
fn fault_of_the_async_half_is_caught_in_the_async_mode_only() {
    assert_eq!(caught_by(Some(Fault::AsyncReadsNone), Mode::Sync), [""; 0]);
    let caught = caught_by(Some(Fault::AsyncReadsNone), Mode::Async);
    assert!(caught.contains(&"record_is_read_back_whole"), "{caught:?}");
}

/// A fault of a location that is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Nothing,
    /// There are no generations, and the backend says so.
    HasNoGenerations,
    GenerationsEndWithTheProcess,
    ClearResetsGenerations,
    SaysItIsInProcess,
    EntriesEndWithTheProcess,
    RenewsToOne,
}

/// A backend with such a fault.
struct Lossy {
    map: MapBackend<AnyValue>,
    generations: Arc<FakeGenerations>,
    loss: Loss,
}

#[derive(Default)]
struct FakeGenerations {
    of: Mutex<HashMap<Group, u64>>,
    next: AtomicU64,
    always_one: bool,
}

impl Generations for FakeGenerations {
    fn generation(&self, group: Group) -> Result<u64> {
        Ok(self.of.lock().expect("no panic").get(&group).copied().unwrap_or(0))
    }

    fn bump(&self, group: Group) -> Result<()> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.of.lock().expect("no panic").insert(group, if self.always_one { 1 } else { next });
        Ok(())
    }
}

#[async_trait::async_trait]
impl crate::Backend for Lossy {
    type Stored = AnyValue;

    fn read(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.map.read(key)
    }

    fn write(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.map.write(key, record)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.map.delete(key)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    fn is_in_process(&self) -> bool {
        self.loss == Loss::SaysItIsInProcess
    }

    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        let has_none = [Loss::HasNoGenerations, Loss::SaysItIsInProcess].contains(&self.loss);
        let capabilities = Capabilities::none().with_clear(self);
        if has_none { capabilities } else { capabilities.with_generations(&*self.generations) }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.map.clock()
    }
}

impl Clear for Lossy {
    fn clear(&self) -> Result<()> {
        if self.loss == Loss::ClearResetsGenerations {
            self.generations.of.lock().expect("no panic").clear();
        }
        Clear::clear(&self.map)
    }
}

fn caught_after_reopening(loss: Loss, mode: Mode) -> Vec<&'static str> {
    let table = crate::__backend_tests!(@reopenings reopening_table [Lossy, ByReference]);
    table
        .into_iter()
        .filter(|(_, property)| {
            let clock = ManualClock::new();
            let ledger = || FakeGenerations {
                always_one: loss == Loss::RenewsToOne,
                ..FakeGenerations::default()
            };
            let place = (MapBackend::with_clock(clock.clone()), Arc::new(ledger()));
            let open = || {
                let (map, generations) = place.clone();
                match loss {
                    Loss::GenerationsEndWithTheProcess => {
                        Lossy { map, generations: Arc::new(ledger()), loss }
                    }
                    Loss::EntriesEndWithTheProcess => {
                        Lossy { map: MapBackend::with_clock(clock.clone()), generations, loss }
                    }
                    _ => Lossy { map, generations, loss },
                }
            };
            let test = || property(&Reopening::new(open(), open, ByReference, mode));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_err()
        })
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_loss_is_caught_when_the_place_is_opened_again() {
    let entries = "entries_are_where_the_backend_says_they_are";
    let invalidations = "invalidations_survive_as_long_as_entries";
    let clear = "clear_never_resets_a_generation";
    let expected: [(Loss, &[&str]); 7] = [
        (Loss::Nothing, &[]),
        (Loss::HasNoGenerations, &[]),
        (Loss::GenerationsEndWithTheProcess, &[invalidations, clear]),
        (Loss::ClearResetsGenerations, &[clear]),
        (Loss::SaysItIsInProcess, &[entries, invalidations]),
        (Loss::EntriesEndWithTheProcess, &[entries]),
        (Loss::RenewsToOne, &[clear]),
    ];
    for (loss, properties) in expected {
        for mode in [Mode::Sync, Mode::Async] {
            assert_eq!(caught_after_reopening(loss, mode), properties, "{loss:?} in {mode:?}");
        }
    }
}
