//! Leases: the right to compute a key, for all machines.
//!
//! A lease is an object with a random token, the time at which it was acquired and its ttl. An attempt to acquire it reads
//! it first, since stores limit and charge for writes. It is created where there is none, and replaced where it has expired, by
//! conditional requests, so of several processes one acquires it. A store without conditional updates (a directory) deletes
//! the expired lease first: then two processes may acquire it, and both compute. While its function runs, the lease is
//! renewed by version. The holder reads the token before it deletes the object, while the lease is certain to be its own:
//! within half of the time that is left.
//!
//! A lease is released however its call ends: by the call itself, or in the background runtime when the function panics,
//! the future is dropped, or the outcome of the request for it is unknown.

mod renewal;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use vayu_core::__internal::block_on;
use vayu_core::__internal::remote::random_bytes;
use vayu_core::{Clock, Lease, LeaseGuard, ReleaseLease, Timestamp};

use self::renewal::Renewal;
use crate::client::{Client, Operation, runtime};
use crate::error::Failure;
use crate::objects::{Conditional, Found, Objects};

/// The leases in one store.
#[derive(Debug)]
pub(crate) struct Leases {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    support: Mutex<Support>,
}

/// The support of a store for leases, as far as that is known.
#[derive(Debug, Default)]
struct Support {
    /// The store has refused to create an object that exists.
    is_verified: bool,
    /// The store has refused to acquire or to release one: none is acquired before this time.
    disabled_until: Option<Timestamp>,
    /// A refusal was returned to a caller, and no lease was released since.
    is_reported: bool,
    /// A refusal that had no caller to return it to.
    unreported: Option<Failure>,
}

/// The outcome of an attempt to acquire a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Acquired,
    Held,
    Unsupported,
}

/// Longest time for which a thread waits until the background runtime has released the lease of a
/// cancelled call. It suffices for a store that responds, so that the lease is released even if
/// the process ends right afterwards.
const MAX_DROP_WAIT: Duration = Duration::from_millis(250);

impl Leases {
    pub(crate) fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { ttl, clock, support: Mutex::default() }
    }

    /// Acquires a lease unless it is held.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        client: &Client,
        name: Path,
    ) -> vayu_core::Result<Lease> {
        let is_enabled = self.check().map_err(|failure| client.error(failure, "release lease"))?;
        if !is_enabled {
            return Ok(Lease::NotRequired);
        }
        let acquired = async {
            let lease = HeldLease {
                client: client.clone(),
                leases: Arc::clone(self),
                name,
                token: random_bytes()?,
                ours_until: Arc::new(Mutex::new(Instant::now() + self.ttl)),
            };
            let attempt = client.start(|objects| lease.clone().acquire(objects))?;
            let mut pending = PendingLease { attempt: Some(attempt), lease };
            match pending.finish().await? {
                Attempt::Acquired => {
                    let lease = pending.lease.clone();
                    let renewal = Renewal::start(&lease);
                    let lease = ReleaseOnDrop { lease: Some(lease), renewal };
                    Ok(Lease::Acquired(LeaseGuard::with_release(lease)))
                }
                Attempt::Held => Ok(Lease::Held),
                Attempt::Unsupported => {
                    self.disable();
                    self.report(Failure::Unconditional).map(|()| Lease::NotRequired)
                }
            }
        };
        acquired.await.map_err(|failure| client.error(failure, "acquire lease"))
    }

    /// Returns whether leases are acquired now, or a refusal that was not returned yet.
    fn check(&self) -> Result<bool, Failure> {
        let now = self.clock.now();
        let mut support = self.support();
        if let Some(failure) = support.unreported.take() {
            return Err(failure);
        }
        let is_disabled =
            support.disabled_until.is_some_and(|until| now.is_within_before(until, self.ttl));
        Ok(!is_disabled)
    }

    /// Acquires no leases for the time after which one expires that cannot be released.
    fn disable(&self) {
        self.support().disabled_until = Some(self.clock.now().saturating_add(self.ttl));
    }

    /// Returns a refusal, if it is the first one.
    fn report(&self, refusal: Failure) -> Result<(), Failure> {
        if std::mem::replace(&mut self.support().is_reported, true) { Ok(()) } else { Err(refusal) }
    }

    fn support(&self) -> MutexGuard<'_, Support> {
        self.support.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    token: Token,
    acquired: Timestamp,
    ttl: Duration,
}

type Token = [u8; 16];

const MAGIC: [u8; 8] = *b"vayuleas";
const LENGTH: usize = 40;
/// The size of the largest object that is read as a lease.
const MAX_BYTES: u64 = 1024;

/// The time by which the clock of the machine that has acquired a lease may be ahead, as for entries.
const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

impl Content {
    fn to_bytes(self) -> Bytes {
        let micros = u64::try_from(self.ttl.as_micros()).unwrap_or(u64::MAX);
        let (acquired, ttl) = (self.acquired.as_micros().to_le_bytes(), micros.to_le_bytes());
        [&MAGIC[..], &self.token, &acquired, &ttl].concat().into()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (token, rest) = rest.split_first_chunk::<16>()?;
        let (acquired, ttl) = rest.split_first_chunk::<8>()?;
        let ttl = u64::from_le_bytes(ttl.try_into().ok()?);
        (*magic == MAGIC).then(|| Self {
            token: *token,
            acquired: Timestamp::from_micros(i64::from_le_bytes(*acquired)),
            ttl: Duration::from_micros(ttl),
        })
    }

    /// Returns whether the lease has not expired. One that was acquired in the future has: a clock was wrong.
    fn is_held(&self, now: Timestamp) -> bool {
        let end = self.acquired.saturating_add(self.ttl);
        now.is_within_before(end, self.ttl.saturating_add(MAX_SKEW))
    }
}

/// A lease in a store, whether it was acquired or not.
#[derive(Debug, Clone)]
struct HeldLease {
    client: Client,
    leases: Arc<Leases>,
    name: Path,
    token: Token,
    /// Earliest time at which it can expire, measured from before the last request that has acquired or renewed it.
    ours_until: Arc<Mutex<Instant>>,
}

impl HeldLease {
    async fn acquire(self, objects: Objects) -> Result<Attempt, Failure> {
        let now = self.leases.clock.now();
        let content = Content { token: self.token, acquired: now, ttl: self.leases.ttl }.to_bytes();
        let version = match objects.get(&self.name, MAX_BYTES).await? {
            Found::Nothing => return self.create(&objects, content).await,
            Found::TooLong => None,
            Found::Object { bytes, version } => {
                if Content::parse(&bytes).is_some_and(|found| found.is_held(now)) {
                    return Ok(Attempt::Held);
                }
                Some(version)
            }
        };
        // It has expired, or is not a lease.
        let updated = match version {
            Some(version) => objects.update(&self.name, content.clone(), version).await,
            None => Ok(Conditional::Unsupported),
        };
        match updated {
            Ok(Conditional::Done) => Ok(Attempt::Acquired),
            Ok(Conditional::Refused) => self.compare(&objects).await,
            // Some stores have another error for conditions that they do not support.
            Ok(Conditional::Unsupported) | Err(_) => {
                objects.delete(self.name.clone()).await?;
                self.create(&objects, content).await
            }
        }
    }

    /// Creates the lease where there was none.
    async fn create(&self, objects: &Objects, content: Bytes) -> Result<Attempt, Failure> {
        match objects.create(&self.name, content.clone()).await {
            Ok(Conditional::Done) => self.verify(objects, content).await,
            Ok(Conditional::Refused) => self.compare(objects).await,
            Ok(Conditional::Unsupported) => Ok(Attempt::Unsupported),
            Err(failure) if self.leases.support().is_verified => Err(failure),
            Err(failure) => {
                // Some stores have another error for conditions that they do not support.
                let digits = const_hex::encode(self.token);
                let other = Path::from(format!("{}.{digits}", self.name));
                let written = objects.put(&other, content).await;
                let deleted = objects.delete(other).await;
                if written.and(deleted).is_ok() { Ok(Attempt::Unsupported) } else { Err(failure) }
            }
        }
    }

    /// Compares the lease in the store, after a refusal: a request may be repeated after its first reply was lost.
    async fn compare(&self, objects: &Objects) -> Result<Attempt, Failure> {
        Ok(if self.is_ours(objects).await? { Attempt::Acquired } else { Attempt::Held })
    }

    /// Verifies, once for each cache, that the store compares conditions: some servers ignore them. A lease was created
    /// before, so creating it again must be refused.
    async fn verify(&self, objects: &Objects, content: Bytes) -> Result<Attempt, Failure> {
        if self.leases.support().is_verified {
            return Ok(Attempt::Acquired);
        }
        if objects.create(&self.name, content).await? == Conditional::Refused {
            self.leases.support().is_verified = true;
            return Ok(Attempt::Acquired);
        }
        objects.delete(self.name.clone()).await?;
        Ok(Attempt::Unsupported)
    }

    /// Returns whether the lease in the store has our token.
    async fn is_ours(&self, objects: &Objects) -> Result<bool, Failure> {
        let Found::Object { bytes, .. } = objects.get(&self.name, MAX_BYTES).await? else {
            return Ok(false);
        };
        Ok(Content::parse(&bytes).is_some_and(|found| found.token == self.token))
    }

    fn ours_until(&self) -> MutexGuard<'_, Instant> {
        self.ours_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the lease while it is certain to be ours.
    async fn release(&self) -> Result<(), Failure> {
        let left = self.ours_until().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let lease = self.clone();
        let limit = limit_of_release(self.client.timeout(), left);
        let released = self.client.run_within(limit, |objects| async move {
            let is_ours = lease.is_ours(&objects).await?;
            if is_ours {
                objects.delete_found(vec![lease.name]).await?;
            }
            Ok(is_ours)
        });
        match released.await {
            Ok(is_released) => {
                if is_released {
                    self.leases.support().is_reported = false;
                }
                Ok(())
            }
            Err(failure @ Failure::NotDeleted(_)) => {
                // A lease that cannot be released blocks its key until it expires.
                self.leases.disable();
                self.leases.report(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Releases the lease in a task that has no caller. The next attempt to acquire one returns a refusal.
    async fn release_detached(&self) {
        if let Err(failure @ Failure::NotDeleted(_)) = self.release().await {
            self.leases.support().unreported = Some(failure);
        }
    }
}

/// Returns the time limit of the release of a lease that is certain to be held for the time that is left.
fn limit_of_release(timeout: Duration, left: Duration) -> Duration {
    timeout.min(left / 2)
}

/// A lease that is being acquired. If this is dropped, it is released.
struct PendingLease {
    /// `None` when the outcome is known.
    attempt: Option<Operation<Attempt>>,
    lease: HeldLease,
}

impl PendingLease {
    async fn finish(&mut self) -> Result<Attempt, Failure> {
        let Some(attempt) = &mut self.attempt else { return Err(Failure::RuntimeStopped) };
        let result = attempt.finish().await;
        self.attempt = None;
        let may_be_acquired = match &result {
            Ok(attempt) => *attempt == Attempt::Unsupported,
            Err(failure) => failure.is_of_store(),
        };
        if may_be_acquired {
            self.release_later();
        }
        result
    }

    /// Releases a lease that may have been acquired, and again when a request that is on its way has been received.
    fn release_later(&self) {
        let lease = self.lease.clone();
        if let Ok(runtime) = runtime() {
            runtime.spawn(async move {
                lease.release_detached().await;
                tokio::time::sleep(lease.client.timeout()).await;
                lease.release_detached().await;
            });
        }
    }
}

impl Drop for PendingLease {
    fn drop(&mut self) {
        let Some(mut attempt) = self.attempt.take() else { return };
        let lease = self.lease.clone();
        release_in_background(async move {
            if !matches!(attempt.finish().await, Ok(Attempt::Held)) {
                lease.release_detached().await;
            }
        });
    }
}

/// A lease that is released when this is dropped.
struct ReleaseOnDrop {
    /// `None` when it was released.
    lease: Option<HeldLease>,
    renewal: Option<Renewal>,
}

#[async_trait]
impl ReleaseLease for ReleaseOnDrop {
    fn release(self: Box<Self>) -> vayu_core::Result<()> {
        block_on(self.release_async())
    }

    async fn release_async(mut self: Box<Self>) -> vayu_core::Result<()> {
        self.renewal = None;
        let Some(lease) = &self.lease else { return Ok(()) };
        let released = lease.release().await;
        let released = released.map_err(|failure| lease.client.error(failure, "release lease"));
        self.lease = None;
        released
    }
}

impl Drop for ReleaseOnDrop {
    /// Releases the lease after a panic of the function, or when the future of the call was
    /// dropped, possibly together with its runtime.
    fn drop(&mut self) {
        self.renewal = None;
        if let Some(lease) = self.lease.take() {
            release_in_background(async move {
                lease.release_detached().await;
            });
        }
    }
}

/// Releases a lease in the background runtime, and waits for that for a short time.
fn release_in_background(release: impl Future<Output = ()> + Send + 'static) {
    let Ok(runtime) = runtime() else { return };
    let (released, is_released) = mpsc::channel();
    runtime.spawn(async move {
        release.await;
        // The receiver is gone if this took too long.
        let _ = released.send(());
    });
    let _ = is_released.recv_timeout(MAX_DROP_WAIT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_parsed_whole_or_not_at_all() {
        let content = Content {
            token: [7; 16],
            acquired: Timestamp::from_micros(1_000_000),
            ttl: Duration::from_secs(10),
        };
        let bytes = content.to_bytes();
        assert_eq!(Content::parse(&bytes), Some(content));
        for length in 0..bytes.len() {
            assert_eq!(Content::parse(&bytes[..length]), None);
        }
        assert_eq!(Content::parse(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Content::parse(&[0; LENGTH]), None);
    }

    #[test]
    fn release_takes_no_longer_than_half_of_the_time_that_is_left() {
        let seconds = Duration::from_secs;
        assert_eq!(limit_of_release(seconds(10), seconds(60)), seconds(10));
        assert_eq!(limit_of_release(seconds(10), seconds(4)), seconds(2));
    }

    #[test]
    fn lease_ends_after_its_ttl_and_is_not_held_from_the_future() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let content = Content { token: [0; 16], acquired: at(1000), ttl: Duration::from_secs(10) };
        assert!(content.is_held(at(1000)) && content.is_held(at(1009)));
        assert!(!content.is_held(at(1010)));
        assert!(content.is_held(at(700)), "the clock of the holder may be ahead");
        assert!(!content.is_held(at(699)));
    }
}
