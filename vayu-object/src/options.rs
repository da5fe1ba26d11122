//! Options of a cache in an object store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vayu_core::__internal::remote::RemoteOptions;
use vayu_core::{Clock, Result, SingleFlight};

use crate::error::misconfigured;

/// Options of a cache in an object store.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use vayu_core::SingleFlight;
/// use vayu_object::ObjectOptions;
/// use vayu_object::object_store::memory::InMemory;
///
/// # fn main() -> vayu_core::Result<()> {
/// // Or `object_store::aws::AmazonS3Builder::from_env().with_bucket_name("results").build()?`.
/// let store = Arc::new(InMemory::new());
/// let cache = ObjectOptions::new()
///     .prefix("shop/reports")
///     .timeout(Duration::from_secs(20))
///     .single_flight(SingleFlight::Everywhere)
///     .open(store)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ObjectOptions {
    pub(crate) prefix: String,
    pub(crate) remote: RemoteOptions,
}

/// The longest object that stores accept in one request.
const MAX_OBJECT_BYTES: u64 = 5 << 30;

/// Longest time among the options. A longer one would overflow instants.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl ObjectOptions {
    /// Default [`prefix`](Self::prefix): `vayu`.
    pub const DEFAULT_PREFIX: &'static str = "vayu";

    /// Default [`timeout`](Self::timeout): 10 s.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

    /// Default [`max_entry_bytes`](Self::max_entry_bytes): 64 MiB.
    pub const DEFAULT_MAX_ENTRY_BYTES: u64 = 64 << 20;

    /// Default [`lease_ttl`](Self::lease_ttl): 60 s.
    pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(60);

    /// Returns the default options.
    pub fn new() -> Self {
        Self {
            prefix: Self::DEFAULT_PREFIX.to_owned(),
            remote: RemoteOptions::new(
                Self::DEFAULT_TIMEOUT,
                Self::DEFAULT_MAX_ENTRY_BYTES,
                Self::DEFAULT_LEASE_TTL,
            ),
        }
    }

    /// Sets the path under which all objects are, without a slash at its ends. Caches with the same prefix share their
    /// entries; [`clear`](vayu_core::Cache::clear) removes those of one prefix. The default is
    /// [`DEFAULT_PREFIX`](Self::DEFAULT_PREFIX).
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the timeout of an operation, including the transfer of a value and all attempts of the store to repeat a
    /// request. The default is [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.remote.timeout = timeout;
        self
    }

    /// Sets the size of the largest entry that is written or read, in bytes, including its key and a header of
    /// 80 bytes: up to 5 GiB. The default is [`DEFAULT_MAX_ENTRY_BYTES`](Self::DEFAULT_MAX_ENTRY_BYTES).
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.remote.max_entry_bytes = bytes;
        self
    }

    /// Sets the circuit breaker: after `threshold` failures in a row no operation is started for about
    /// `cooldown`, and for up to 32 times as long while the store continues to fail. While the
    /// breaker is open, calls run their function at once. The default is 3 failures and 1 second.
    pub fn circuit_breaker(mut self, threshold: u32, cooldown: Duration) -> Self {
        self.remote.breaker_threshold = threshold;
        self.remote.breaker_cooldown = cooldown;
        self
    }

    /// Sets the scope in which concurrent misses of a key are coalesced into one computation. The
    /// default is [`SingleFlight::Process`].
    ///
    /// With [`SingleFlight::Everywhere`] a miss acquires a lease in the store before it computes. While another process
    /// holds it, the call polls for a value at intervals that grow to a second. The store must support conditional
    /// requests (`PutMode::Create`), which the first lease verifies. Where it does not, that is counted as an error and
    /// logged once, and each process computes for itself. A call waits for another process for up to
    /// [`with_max_wait`](vayu_core::Cache::with_max_wait), by default 30 seconds, and then computes: set it to more than
    /// a computation takes.
    pub fn single_flight(mut self, single_flight: SingleFlight) -> Self {
        self.remote.single_flight = single_flight;
        self
    }

    /// Stores no arguments of calls, no string keys and no labels: an entry then contains the name of its
    /// function and the SHA-256 of its key.
    ///
    /// By default an entry contains its key, up to 64 KiB. Caches with and without this option read each other's
    /// entries. Arguments that can be guessed can be found by their digest, which is also the name of the object.
    pub fn hide_arguments(mut self) -> Self {
        self.remote.hides_arguments = true;
        self
    }

    /// Sets the time after which a lease expires if it is not released, for example because its
    /// process has died. While a computation runs its lease is renewed three times in this time, for up to 60 times as long; a
    /// store that cannot replace a version of an object (a directory) does not renew it, so that a longer computation may run in two processes. Leases are compared with the clocks
    /// of the machines, which must not differ by as much. It must be more than twice the [`timeout`](Self::timeout). The default is [`DEFAULT_LEASE_TTL`](Self::DEFAULT_LEASE_TTL).
    pub fn lease_ttl(mut self, time: Duration) -> Self {
        self.remote.lease_ttl = time;
        self
    }

    /// Sets the clock that the expiry of entries and leases is measured with. The default is [`SystemClock`](vayu_core::SystemClock),
    /// which machines have in common.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.remote.clock = Arc::new(clock);
        self
    }

    /// Checks the options.
    pub(crate) fn check(&self) -> Result<()> {
        let times = self.remote.times();
        let wrong = if times.contains(&Duration::ZERO) {
            "a time among the options of an object cache is zero"
        } else if times.iter().any(|&time| time > MAX_TIME) {
            "a time among the options of an object cache is longer than a year"
        } else if self.remote.max_entry_bytes > MAX_OBJECT_BYTES {
            "an object may not exceed 5 GiB"
        } else if self.remote.has_leases() && self.remote.lease_ttl <= 2 * self.remote.timeout {
            "`lease_ttl` of an object cache must be more than twice its `timeout`"
        } else {
            return Ok(());
        };
        Err(misconfigured(wrong))
    }
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ObjectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectOptions")
            .field("prefix", &self.prefix)
            .field("timeout", &self.remote.timeout)
            .field("max_entry_bytes", &self.remote.max_entry_bytes)
            .field("single_flight", &self.remote.single_flight)
            .finish_non_exhaustive()
    }
}
