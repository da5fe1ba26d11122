//! The properties of leases.

use std::thread;
use std::time::Instant;

use super::{Harness, MINUTE, Mode, key, properties};
use crate::backend::{Backend, Lease, LeaseGuard};
use crate::key::Key;
use crate::serializer::Serializer;
use crate::sync::block_on;

/// The result of trying to acquire the lease of a key: `None` where there are no leases.
#[derive(Debug)]
enum LeaseState {
    None,
    Held,
    Ours(LeaseGuard),
}

impl<B: Backend, S> Harness<B, S> {
    fn lease(&self, key: &Key) -> LeaseState {
        let Some(leases) = self.backend.capabilities().leases else { return LeaseState::None };
        let lease = match self.mode {
            Mode::Sync => leases.try_acquire(key),
            Mode::Async => block_on(leases.try_acquire_async(key)),
        };
        match lease.expect("try_acquire") {
            Lease::NotRequired => LeaseState::None,
            Lease::Held | Lease::Watched(_) => LeaseState::Held,
            Lease::Acquired(lease) => LeaseState::Ours(lease),
        }
    }

    fn give_back(&self, lease: LeaseGuard) {
        match self.mode {
            Mode::Sync => lease.release(),
            Mode::Async => block_on(lease.release_async()),
        }
        .expect("release");
    }
}

properties! {
    /// Checks that a lease has one holder, is for one key, and can be acquired again after its release.
    fn lease_that_was_released_is_acquired_again(harness) {
        for _ in 0..3 {
            let LeaseState::Ours(lease) = harness.lease(&key("leased")) else {
                assert!(matches!(harness.lease(&key("leased")), LeaseState::None), "a lease that was released can be acquired again");
                return;
            };
            let state = harness.lease(&key("leased"));
            assert!(matches!(state, LeaseState::Held), "a lease has one holder: {state:?}");
            let LeaseState::Ours(other) = harness.lease(&key("other")) else {
                panic!("the lease of another key is free")
            };
            harness.give_back(lease);
            harness.give_back(other);
        }
        harness.write(&key("leased"), b"value");
        assert_eq!(harness.read(&key("leased")).as_deref(), Some(&b"value"[..]));
    }

    /// Checks that a lease that was dropped can be acquired again soon.
    fn lease_that_was_dropped_is_acquired_again(harness) {
        let LeaseState::Ours(lease) = harness.lease(&key("dropped")) else { return };
        drop(lease);
        let began = Instant::now();
        while matches!(harness.lease(&key("dropped")), LeaseState::Held) {
            assert!(began.elapsed() < MINUTE, "a lease that was dropped can be acquired again");
            thread::yield_now();
        }
    }
}
