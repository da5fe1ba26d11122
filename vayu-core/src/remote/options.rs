//! The options of caches on servers.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::SingleFlight;
use crate::clock::{Clock, MonotonicClock, SystemClock};
use crate::remote::{Breaker, EntryCodec};

/// The options that all caches on servers have.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// The time limit of an operation.
    pub timeout: Duration,
    /// The size of the largest entry that is written or read, in bytes, with its key and its header.
    pub max_entry_bytes: u64,
    /// The number of failures in a row after which the circuit breaker opens.
    pub breaker_threshold: u32,
    /// The time for which the circuit breaker stays open at first.
    pub breaker_cooldown: Duration,
    /// The callers among which a key is computed once.
    pub single_flight: SingleFlight,
    /// `true` if entries have the digests of their keys in place of the arguments of calls.
    pub hides_arguments: bool,
    /// The time after which a lease that is not released expires.
    pub lease_ttl: Duration,
    /// The clock of the expiry of entries.
    pub clock: Arc<dyn Clock>,
    /// The clock of the circuit breaker and of log lines.
    pub breaker_clock: Arc<dyn Clock>,
}

impl RemoteOptions {
    /// Returns the default options, with those for which each kind of server has a default of its own.
    pub fn new(timeout: Duration, max_entry_bytes: u64, lease_ttl: Duration) -> Self {
        Self {
            timeout,
            max_entry_bytes,
            breaker_threshold: 3,
            breaker_cooldown: Duration::from_secs(1),
            single_flight: SingleFlight::default(),
            hides_arguments: false,
            lease_ttl,
            clock: Arc::new(SystemClock),
            breaker_clock: Arc::new(MonotonicClock),
        }
    }

    /// Returns the times among the options, none of which may be zero.
    pub fn times(&self) -> [Duration; 3] {
        [self.timeout, self.breaker_cooldown, self.lease_ttl]
    }

    /// Returns whether processes coordinate by leases.
    pub fn has_leases(&self) -> bool {
        self.single_flight == SingleFlight::Everywhere
    }

    /// Returns a circuit breaker.
    pub fn breaker<F: Clone + std::error::Error>(&self) -> Breaker<F> {
        let clock = Arc::clone(&self.breaker_clock);
        Breaker::new(self.breaker_threshold, self.breaker_cooldown, clock)
    }

    /// Returns the codec of entries.
    pub fn codec(&self) -> EntryCodec {
        EntryCodec::new(self.max_entry_bytes, self.hides_arguments)
    }
}
