//! The renewal of a lease while its function runs.

use std::time::Instant;

use tokio::task::JoinHandle;

use super::{Content, HeldLease, MAX_BYTES};
use crate::client::{Client, runtime};
use crate::error::Failure;
use crate::objects::{Conditional, Found};

/// The number of renewals within the ttl of a lease.
const PER_TTL: u32 = 3;

/// The longest time for which a lease is renewed, in multiples of its ttl: a function that never ends must not hold its key
/// forever.
const MAX_TTLS: u32 = 60;

/// A task in the background runtime that renews a lease until this is dropped.
pub(super) struct Renewal {
    client: Client,
    task: JoinHandle<()>,
}

impl Renewal {
    /// Starts to renew a lease that was acquired. `None` if there is no background runtime.
    pub(super) fn start(lease: &HeldLease) -> Option<Self> {
        let task = runtime().ok()?.spawn(renew(lease.clone()));
        Some(Self { client: lease.client.clone(), task })
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        // A child process does not have the task, and must not touch the runtime of its parent.
        if self.client.is_of_this_process() {
            self.task.abort();
        }
    }
}

async fn renew(lease: HeldLease) {
    for _ in 0..MAX_TTLS * PER_TTL {
        tokio::time::sleep(lease.leases.ttl / PER_TTL).await;
        // A failure may be over at the next attempt.
        if matches!(lease.renew().await, Ok(false)) {
            return;
        }
    }
}

impl HeldLease {
    /// Renews the lease if it is ours. Returns `false` if it is not, or the store cannot replace a version of an object.
    ///
    /// A request that is late has no effect: a lease that was released has no version any more.
    pub(super) async fn renew(&self) -> Result<bool, Failure> {
        let until = Instant::now() + self.leases.ttl;
        let lease = self.clone();
        let renewed = self.client.run(|objects| async move {
            let Found::Object { bytes, version } = objects.get(&lease.name, MAX_BYTES).await?
            else {
                return Ok(None);
            };
            let found = Content::parse(&bytes).filter(|found| found.token == lease.token);
            let Some(found) = found else { return Ok(None) };
            let renewed = Content { acquired: lease.leases.clock.now(), ..found }.to_bytes();
            Ok(Some(objects.update(&lease.name, renewed, version).await?))
        });
        Ok(match renewed.await? {
            Some(Conditional::Done) => {
                *self.ours_until() = until;
                true
            }
            // The request was repeated, as its first reply was lost.
            Some(Conditional::Refused) => true,
            Some(Conditional::Unsupported) | None => false,
        })
    }
}
