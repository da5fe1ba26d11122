//! One lease on the server, and its release.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use vayu_core::__internal::remote::random_bytes;
use vayu_core::{Lease, LeaseGuard, ReleaseLease, Result};

use super::{KeyLease, Leases};
use crate::client::{Client, Executor, run_blocking};
use crate::error::Failure;
use crate::pubsub::Message;
use crate::request::{self, Request};
use crate::runtime;
use crate::watches::{LeaseId, WaiterId};

type Token = [u8; 16];

/// Longest time for which a thread waits until the background runtime has released the lease of a
/// cancelled call. It suffices for a server that responds, so that the lease is released even if
/// the process ends right afterwards.
const MAX_DROP_WAIT: Duration = Duration::from_millis(250);

/// A lease on a server, whether it was granted or not.
#[derive(Clone)]
pub(super) struct RemoteLease {
    leases: Arc<Leases>,
    client: Client,
    name: String,
    id: LeaseId,
    token: Token,
    /// Earliest time at which it can expire, measured from before the request.
    ours_until: Instant,
}

/// Longest TTL. A longer one would overflow instants.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl RemoteLease {
    pub(super) fn new(
        leases: &Arc<Leases>,
        client: &Client,
        key: &KeyLease<'_>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            leases: Arc::clone(leases),
            client: client.clone(),
            name: key.name.clone(),
            id: key.id,
            token: random_bytes()?,
            ours_until: Instant::now() + leases.ttl.min(MAX_TTL),
        })
    }

    /// Returns whether the lease was acquired. If it is held, `waiter` is notified of its release.
    pub(super) async fn acquire<E: Executor>(
        &self,
        executor: &E,
        waiter: Option<WaiterId>,
    ) -> Result<bool, Failure> {
        let unscripted =
            || request::acquire_lease_unscripted(&self.name, &self.token, self.leases.ttl);
        let mut result = if self.leases.runs_scripts() {
            executor
                .execute(&request::acquire_lease(&self.name, &self.token, self.leases.ttl, waiter))
                .await
        } else {
            executor.execute(&unscripted()).await
        };
        let refused = result.as_ref().err().filter(|failure| failure.is_command_error());
        if let Some(refused) = refused.cloned()
            && self.leases.runs_scripts()
        {
            result = executor.execute(&unscripted()).await;
            // Another reason, such as a lack of memory, may have passed in between.
            if result.is_ok() && refused.is_scripting_refused() {
                self.leases.disable_scripts();
            }
        }
        let is_held = matches!(result, Ok(false));
        if is_held && !self.leases.runs_scripts() {
            // The first of two attempts may have been granted. A script compares the token itself.
            return self.has_our_token(executor).await;
        }
        result
    }

    /// Returns whether the lease on the server has our token.
    pub(super) async fn has_our_token<E: Executor>(&self, executor: &E) -> Result<bool, Failure> {
        let found = executor.execute(&request::get(&self.name)).await?;
        Ok(found.is_some_and(|found| found.starts_with(&self.token)))
    }

    /// Releases the lease. Returns whether there was one to release.
    pub(super) async fn release<E: Executor>(&self, executor: &E) -> Result<bool, Failure> {
        if self.leases.runs_scripts() {
            let (channels, message) = (&self.leases.channels, Message::released(self.id));
            let release = request::release_lease(&self.name, &self.token, channels, &message);
            match executor.execute(&release).await {
                Err(failure) if failure.is_command_error() => {}
                result => return result,
            }
        }
        if !self.is_safely_ours() {
            return Ok(true);
        }
        let is_ours = self.has_our_token(executor).await?;
        if is_ours {
            executor.execute(&self.delete()).await?;
        }
        self.leases.disable_scripts();
        Ok(is_ours)
    }

    /// Executes all that [`release`](Self::release) executes, on a name at which there is no lease.
    pub(super) async fn verify_release<E: Executor>(mut self, executor: &E) -> Result<(), Failure> {
        self.name = format!("{}:{:032x}", self.name, u128::from_le_bytes(self.token));
        self.release(executor).await?;
        if !self.leases.runs_scripts() {
            executor.execute(&self.delete()).await?;
        }
        Ok(())
    }

    fn delete(&self) -> Request<bool> {
        request::delete(&self.name)
    }

    /// Returns whether an operation that begins now ends before the lease can expire.
    fn is_safely_ours(&self) -> bool {
        Instant::now() + self.client.timeout() < self.ours_until
    }
}

/// A lease that is released when this is dropped.
pub(super) struct ReleaseOnDrop {
    pub(super) lease: RemoteLease,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stage {
    /// The server may have granted it.
    Requested,
    Acquired,
    /// There is nothing to release.
    Released,
}

impl ReleaseOnDrop {
    /// Returns the lease, by the outcome of the request for it.
    pub(super) fn finish_acquire(
        mut self,
        is_acquired: Result<bool, Failure>,
    ) -> Result<Lease, Failure> {
        match is_acquired {
            Ok(true) => {
                self.stage = Stage::Acquired;
                Ok(Lease::Acquired(LeaseGuard::with_release(self)))
            }
            Ok(false) => {
                self.stage = Stage::Released;
                Ok(Lease::Held)
            }
            Err(failure) => {
                let may_be_acquired =
                    !failure.is_command_error() && !matches!(failure, Failure::CircuitOpen(_));
                if may_be_acquired {
                    // The call has waited for a whole timeout already.
                    drop(self.release_in_background());
                }
                self.stage = Stage::Released;
                Err(failure)
            }
        }
    }

    fn finish_release(&mut self, result: Result<bool, Failure>) -> Result<()> {
        self.stage = Stage::Released;
        result.map(drop).map_err(|failure| {
            self.lease.leases.record_failure(&failure);
            failure.into_error("release lease", &self.lease.leases.address)
        })
    }

    /// Releases the lease in the background runtime. The returned channel receives a message when
    /// the release was attempted.
    fn release_in_background(&self) -> Option<mpsc::Receiver<()>> {
        let (attempted, is_attempted) = mpsc::channel();
        let (lease, stage) = (self.lease.clone(), self.stage);
        let release = async move {
            let executor = lease.client.non_blocking();
            let result = lease.release(&executor).await;
            // The receiver is gone if this took too long.
            let _ = attempted.send(());
            match result {
                Ok(true) => {}
                Err(failure) if stage == Stage::Acquired => {
                    lease.leases.record_failure(&failure);
                    lease.leases.release_support().unreported = Some(failure);
                }
                _ if stage == Stage::Acquired => {}
                _ => {
                    // A request on another connection may reach the server later.
                    tokio::time::sleep(lease.client.timeout()).await;
                    let _ = lease.release(&executor).await;
                }
            }
        };
        runtime::handle().ok()?.spawn(release);
        Some(is_attempted)
    }
}

#[async_trait]
impl ReleaseLease for ReleaseOnDrop {
    fn release(mut self: Box<Self>) -> Result<()> {
        let result = run_blocking(self.lease.release(&self.lease.client.blocking()));
        self.finish_release(result)
    }

    async fn release_async(mut self: Box<Self>) -> Result<()> {
        let result = self.lease.release(&self.lease.client.non_blocking()).await;
        self.finish_release(result)
    }
}

impl Drop for ReleaseOnDrop {
    /// Releases the lease after a panic of the function, or when the future of the call was
    /// dropped, possibly together with its runtime.
    fn drop(&mut self) {
        if self.stage != Stage::Released
            && let Some(is_attempted) = self.release_in_background()
        {
            let _ = is_attempted.recv_timeout(MAX_DROP_WAIT);
        }
    }
}
