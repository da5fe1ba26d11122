//! Which property catches which fault.

use super::*;
use crate::testing::{Fault, FaultyBackend, MapBackend};
use crate::{ByReference, Shared};

type Backend = FaultyBackend<MapBackend<Shared>>;

/// The names of the properties that a backend with this fault does not have.
fn caught_by(fault: Option<Fault>, mode: Mode) -> Vec<&'static str> {
    let table = crate::backend_tests!(@list table [Backend, ByReference]);
    table
        .into_iter()
        .filter(|(_, property)| {
            let clock = ManualClock::new();
            let backend = FaultyBackend::new(MapBackend::with_clock(clock.clone()));
            backend.set_fault(fault);
            let subject = Subject::new(backend, clock, ByReference, mode);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| property(&subject))).is_err()
        })
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn right_backend_has_every_property() {
    assert_eq!(caught_by(None, Mode::Sync), [""; 0]);
    assert_eq!(caught_by(None, Mode::Async), [""; 0]);
}

#[test]
fn every_fault_is_caught_by_the_property_it_violates() {
    let expected = [
        (Fault::ReadFails, "absent_key_reads_as_none"),
        (Fault::ReadPanics, "absent_key_reads_as_none"),
        (Fault::WriteFails, "record_is_read_back_whole"),
        (Fault::WritePanics, "record_is_read_back_whole"),
        (Fault::DeleteFails, "deleted_key_reads_as_none"),
        (Fault::WriteIsLost, "record_is_read_back_whole"),
        (Fault::FirstWriteStays, "second_write_replaces_the_first"),
        (Fault::DeleteIsLost, "no_write_comes_back_after_a_delete"),
        (Fault::DeleteLies, "delete_says_whether_there_was_something"),
        (Fault::KeysAreCut, "unusual_keys_are_all_different"),
        (Fault::KeysEndAtNul, "unusual_keys_are_all_different"),
        (Fault::KeysFoldCase, "unusual_keys_are_all_different"),
        (Fault::KeysAreJoined, "prefix_and_text_are_kept_apart"),
        (Fault::TimesAreLost, "expired_entry_is_not_served"),
        (Fault::StampsAreLost, "record_is_read_back_whole"),
        (Fault::StaleIsDropped, "entry_is_kept_as_long_as_it_may_be_served_stale"),
        (Fault::ClearIsLost, "cleared_backend_is_empty"),
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
    assert_eq!(caught_by(Some(Fault::AsyncReadIsBlind), Mode::Sync), [""; 0]);
    let caught = caught_by(Some(Fault::AsyncReadIsBlind), Mode::Async);
    assert!(caught.contains(&"record_is_read_back_whole"), "{caught:?}");
}
