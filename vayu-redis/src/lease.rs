//! Leases: the right to compute a key for all machines.
//!
//! A lease is a key with a random token and an expiry. A script deletes it if it still has the token of
//! its holder. Where the server refuses scripts, the holder reads the token and then deletes the key,
//! but only in the time for which the lease is its own for certain; a lease that is about to end is left
//! to end. No lease is taken before a server has shown that leases can be given back there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::{Cmd, Value};
use vayu_core::{Clock, Lease, LeaseGuard, ReleaseLease, Result, Timestamp};

use crate::backend::Client;
use crate::error::Failure;
use crate::random;
use crate::request;
use crate::runtime;

type Token = [u8; 16];

/// What is known of leases on one server.
pub(crate) struct Leases {
    /// How long a lease lasts at most.
    ttl: Duration,
    clock: Arc<dyn Clock>,
    /// Whether the server runs scripts, as far as is known.
    runs_scripts: AtomicBool,
    release_support: Mutex<ReleaseSupport>,
}

/// Whether leases can be given back.
#[derive(Default)]
struct ReleaseSupport {
    is_verified: bool,
    /// The server has refused to take one back: it is not asked before this.
    refused_until: Option<Timestamp>,
    /// A lease of a cancelled call could not be given back. The next call counts that.
    unreported: Option<Failure>,
}

/// What is to be done before a lease is taken.
#[derive(Debug, PartialEq)]
enum Admission {
    Acquire,
    /// Try whether leases can be given back.
    VerifyRelease,
    /// Take none.
    Skip,
}

/// How long a thread waits for the helper to give back the lease of a cancelled call. It suffices for
/// a server that responds, so that the lease is gone even if the process ends now.
const MAX_DROP_WAIT: Duration = Duration::from_millis(250);

impl Leases {
    pub(crate) fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (runs_scripts, release_support) = (AtomicBool::new(true), Mutex::default());
        Arc::new(Self { ttl, clock, runs_scripts, release_support })
    }

    /// Takes a lease if nobody has it.
    pub(crate) fn acquire(self: &Arc<Self>, client: &Client, name: String) -> Result<Lease> {
        match self.admission()? {
            Admission::Acquire => {}
            Admission::Skip => return Ok(Lease::NotRequired),
            Admission::VerifyRelease => {
                let verification = RemoteLease::new(self, client, name.clone())
                    .and_then(RemoteLease::verify_release);
                if !self.record_verification(verification)? {
                    return Ok(Lease::NotRequired);
                }
            }
        }
        let acquire = || {
            let lease = RemoteLease::new(self, client, name)?;
            let acquire = lease.acquire_command();
            let guard = ReleaseOnDrop { lease, stage: Stage::Requested };
            let mut reply = client.execute(&acquire);
            if let Some(acquire) = guard.lease.fallback_command(&reply) {
                reply = guard.lease.acquired_by_fallback(client.execute(&acquire));
            }
            if guard.lease.is_ambiguous(&reply) {
                let found = client.execute(&request::get(&guard.lease.name));
                reply = guard.lease.resolve_ambiguity(found);
            }
            guard.finish_acquire(reply)
        };
        acquire().map_err(|failure: Failure| failure.into_error("acquire lease"))
    }

    /// [`take`](Self::take) for async callers.
    pub(crate) async fn acquire_async(
        self: &Arc<Self>,
        client: &Client,
        name: String,
    ) -> Result<Lease> {
        match self.admission()? {
            Admission::Acquire => {}
            Admission::Skip => return Ok(Lease::NotRequired),
            Admission::VerifyRelease => {
                let verification = match RemoteLease::new(self, client, name.clone()) {
                    Ok(lease) => lease.verify_release_async().await,
                    Err(failure) => Err(failure),
                };
                if !self.record_verification(verification)? {
                    return Ok(Lease::NotRequired);
                }
            }
        }
        let acquire = async {
            let lease = RemoteLease::new(self, client, name)?;
            let acquire = lease.acquire_command();
            // From here on the server may have granted it, whether this future is polled on or not.
            let guard = ReleaseOnDrop { lease, stage: Stage::Requested };
            let mut reply = client.execute_async(&acquire).await;
            if let Some(acquire) = guard.lease.fallback_command(&reply) {
                reply = guard.lease.acquired_by_fallback(client.execute_async(&acquire).await);
            }
            if guard.lease.is_ambiguous(&reply) {
                let found = client.execute_async(&request::get(&guard.lease.name)).await;
                reply = guard.lease.resolve_ambiguity(found);
            }
            guard.finish_acquire(reply)
        };
        acquire.await.map_err(|failure: Failure| failure.into_error("acquire lease"))
    }

    fn admission(&self) -> Result<Admission> {
        let mut release_support = self.release_support();
        if let Some(failure) = release_support.unreported.take() {
            return Err(failure.into_error("release lease"));
        }
        if release_support.is_verified {
            return Ok(Admission::Acquire);
        }
        let Some(until) = release_support.refused_until else {
            return Ok(Admission::VerifyRelease);
        };
        let now = self.clock.now();
        // A clock that was set back must not make the time longer.
        if now < until && until.saturating_since(now) <= self.ttl {
            return Ok(Admission::Skip);
        }
        // One caller tries, the others do without meanwhile.
        release_support.refused_until = Some(now.saturating_add(self.ttl));
        Ok(Admission::VerifyRelease)
    }

    /// Notes whether leases can be given back, and returns whether one may be taken now. That they
    /// cannot is an error once.
    fn record_verification(&self, verification: Result<(), Failure>) -> Result<bool> {
        match verification {
            Ok(()) => {
                *self.release_support() =
                    ReleaseSupport { is_verified: true, ..ReleaseSupport::default() };
                Ok(true)
            }
            Err(failure) if failure.is_command_error() => {
                let was_refused = self.release_support().refused_until.is_some();
                self.record_refusal();
                if was_refused { Ok(false) } else { Err(failure.into_error("release lease")) }
            }
            Err(failure) => Err(failure.into_error("acquire lease")),
        }
    }

    fn record_refusal(&self) {
        let until = self.clock.now().saturating_add(self.ttl);
        let mut release_support = self.release_support();
        (release_support.is_verified, release_support.refused_until) = (false, Some(until));
    }

    /// A lease could not be given back.
    fn record_failure(&self, failure: &Failure) {
        if failure.is_command_error() {
            self.record_refusal();
        } else {
            // The connection, or the server: the next caller tries.
            self.release_support().is_verified = false;
        }
    }

    fn release_support(&self) -> MutexGuard<'_, ReleaseSupport> {
        self.release_support.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease on a server, whether it was granted or not.
#[derive(Clone)]
struct RemoteLease {
    leases: Arc<Leases>,
    client: Client,
    name: String,
    token: Token,
    /// Until when it is that of this process for certain, measured from before it was asked for.
    ours_until: Instant,
}

impl RemoteLease {
    fn new(leases: &Arc<Leases>, client: &Client, name: String) -> Result<Self, Failure> {
        Ok(Self {
            leases: Arc::clone(leases),
            client: client.clone(),
            name,
            token: random::bytes()?,
            ours_until: Instant::now() + leases.ttl.min(MAX_LEASE),
        })
    }

    /// Returns the command that takes it. It may be sent twice.
    fn acquire_command(&self) -> Cmd {
        let acquire_command = if self.leases.runs_scripts() {
            request::acquire_lease
        } else {
            request::acquire_lease_unscripted
        };
        acquire_command(&self.name, &self.token, self.leases.ttl)
    }

    /// Returns the command to send instead of a script that was refused.
    fn fallback_command(&self, reply: &Result<Value, Failure>) -> Option<Cmd> {
        let is_refused = reply.as_ref().is_err_and(Failure::is_command_error);
        (is_refused && self.leases.runs_scripts())
            .then(|| request::acquire_lease_unscripted(&self.name, &self.token, self.leases.ttl))
    }

    /// If this was accepted, it was the script that is refused, and not the write.
    fn acquired_by_fallback(&self, reply: Result<Value, Failure>) -> Result<Value, Failure> {
        if reply.is_ok() {
            self.leases.disable_scripts();
        }
        reply
    }

    /// Returns whether a refusal may be that of a second attempt after a first that was granted. The
    /// script knows the token.
    fn is_ambiguous(&self, reply: &Result<Value, Failure>) -> bool {
        matches!(reply, Ok(Value::Nil)) && !self.leases.runs_scripts()
    }

    /// Returns the reply to the claim, by the token that was found.
    fn resolve_ambiguity(&self, found: Result<Value, Failure>) -> Result<Value, Failure> {
        let found = request::bytes(found?)?;
        let is_ours = found.is_some_and(|found| *found == self.token);
        Ok(Value::Int(i64::from(is_ours)))
    }

    /// Gives it back. Returns whether there was anything to give back.
    fn release(&self) -> Result<bool, Failure> {
        if self.leases.runs_scripts() {
            let done = self.client.execute(&request::release_lease(&self.name, &self.token));
            if let Some(result) = Self::released_by_script(done) {
                return result;
            }
        }
        if !self.is_safely_ours() {
            return Ok(true);
        }
        let found = request::bytes(self.client.execute(&request::get(&self.name))?)?;
        let is_ours = found.is_some_and(|found| *found == self.token);
        if is_ours {
            request::done(&self.client.execute(&request::delete(&self.name))?)?;
        }
        self.leases.disable_scripts();
        Ok(is_ours)
    }

    async fn release_async(&self) -> Result<bool, Failure> {
        if self.leases.runs_scripts() {
            let release = request::release_lease(&self.name, &self.token);
            let done = self.client.execute_async(&release).await;
            if let Some(result) = Self::released_by_script(done) {
                return result;
            }
        }
        if !self.is_safely_ours() {
            return Ok(true);
        }
        let found = request::bytes(self.client.execute_async(&request::get(&self.name)).await?)?;
        let is_ours = found.is_some_and(|found| *found == self.token);
        if is_ours {
            request::done(&self.client.execute_async(&request::delete(&self.name)).await?)?;
        }
        self.leases.disable_scripts();
        Ok(is_ours)
    }

    /// Tries all that [`release`](Self::release) does, on names at which there is no lease.
    fn verify_release(mut self) -> Result<(), Failure> {
        self.name = self.unused_name();
        self.release()?;
        if !self.leases.runs_scripts() {
            request::done(&self.client.execute(&request::delete(&self.name))?)?;
        }
        Ok(())
    }

    async fn verify_release_async(mut self) -> Result<(), Failure> {
        self.name = self.unused_name();
        self.release_async().await?;
        if !self.leases.runs_scripts() {
            request::done(&self.client.execute_async(&request::delete(&self.name)).await?)?;
        }
        Ok(())
    }

    fn unused_name(&self) -> String {
        format!("{}:{:032x}", self.name, u128::from_le_bytes(self.token))
    }

    /// What came of the script, or nothing if the server does not run it.
    fn released_by_script(done: Result<Value, Failure>) -> Option<Result<bool, Failure>> {
        match done.and_then(|done| request::done(&done)) {
            Err(failure) if failure.is_command_error() => None,
            result => Some(result),
        }
    }

    /// Whether what is asked for now happens while this lease is that of this process.
    fn is_safely_ours(&self) -> bool {
        Instant::now() + self.client.timeout() < self.ours_until
    }
}

impl Leases {
    fn runs_scripts(&self) -> bool {
        self.runs_scripts.load(Ordering::Relaxed)
    }

    fn disable_scripts(&self) {
        self.runs_scripts.store(false, Ordering::Relaxed);
    }
}

/// A longer time is not added to an instant.
const MAX_LEASE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A lease that is given back whatever happens.
struct ReleaseOnDrop {
    lease: RemoteLease,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// It may have been granted.
    Requested,
    Acquired,
    /// There is nothing to give back.
    Released,
}

impl ReleaseOnDrop {
    /// What came of asking for it.
    fn finish_acquire(mut self, reply: Result<Value, Failure>) -> Result<Lease, Failure> {
        match reply.and_then(|reply| request::done(&reply)) {
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
                    !failure.is_command_error() && !matches!(failure, Failure::CircuitOpen);
                if may_be_acquired {
                    // The call has waited for long enough.
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
            failure.into_error("release lease")
        })
    }

    /// Lets the helper give it back. What is received says that this was tried.
    fn release_in_background(&self) -> Option<mpsc::Receiver<()>> {
        let (tried, is_tried) = mpsc::channel();
        let (lease, stage) = (self.lease.clone(), self.stage);
        let release = async move {
            let result = lease.release_async().await;
            // Nobody listens any more if that took too long.
            let _ = tried.send(());
            match result {
                Ok(true) => {}
                Err(failure) if stage == Stage::Acquired => {
                    lease.leases.record_failure(&failure);
                    lease.leases.release_support().unreported = Some(failure);
                }
                _ if stage == Stage::Acquired => {}
                _ => {
                    // What was asked for on another connection may come to the server later.
                    tokio::time::sleep(lease.client.timeout()).await;
                    let _ = lease.release_async().await;
                }
            }
        };
        runtime::handle().ok()?.spawn(release);
        Some(is_tried)
    }
}

#[async_trait]
impl ReleaseLease for ReleaseOnDrop {
    fn release(mut self: Box<Self>) -> Result<()> {
        let result = self.lease.release();
        self.finish_release(result)
    }

    async fn release_async(mut self: Box<Self>) -> Result<()> {
        let result = self.lease.release_async().await;
        self.finish_release(result)
    }
}

impl Drop for ReleaseOnDrop {
    /// The function panicked, or the future of the call was dropped, maybe with its runtime. The
    /// helper has a runtime and a connection of its own.
    fn drop(&mut self) {
        if self.stage != Stage::Released
            && let Some(is_tried) = self.release_in_background()
        {
            let _ = is_tried.recv_timeout(MAX_DROP_WAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::ServerErrorKind;
    use vayu_core::testing::ManualClock;

    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    fn refusal() -> Failure {
        Failure::Redis((ServerErrorKind::ResponseError.into(), "unknown command").into())
    }

    #[test]
    fn lease_is_acquired_once_release_is_verified() {
        let leases = Leases::new(TIME, Arc::new(ManualClock::new()));
        assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease);
        assert_eq!(
            leases.admission().unwrap(),
            Admission::VerifyRelease,
            "nobody does without before it is known"
        );
        assert!(leases.record_verification(Ok(())).unwrap());
        assert_eq!(leases.admission().unwrap(), Admission::Acquire);
    }

    #[test]
    fn refusal_is_reported_once_and_retried_after_the_lease_ttl() {
        let clock = ManualClock::new();
        let leases = Leases::new(TIME, Arc::new(clock.clone()));
        leases.record_verification(Err(refusal())).unwrap_err();
        for _ in 0..3 {
            clock.advance(TIME / 2);
            assert_eq!(leases.admission().unwrap(), Admission::Skip);
            clock.advance(TIME / 2);
            assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease);
            assert_eq!(leases.admission().unwrap(), Admission::Skip, "one tries");
            assert!(!leases.record_verification(Err(refusal())).unwrap());
        }
        clock.set(Timestamp::from_micros(0));
        assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease, "the clock was set back");
        assert!(leases.record_verification(Ok(())).unwrap());
        assert_eq!(leases.admission().unwrap(), Admission::Acquire);
    }

    #[test]
    fn failed_release_requires_a_new_verification() {
        let leases = Leases::new(TIME, Arc::new(ManualClock::new()));
        assert!(leases.record_verification(Ok(())).unwrap());
        leases.record_failure(&Failure::RuntimeStopped);
        assert_eq!(
            leases.admission().unwrap(),
            Admission::VerifyRelease,
            "the server may be there again"
        );
        leases.record_verification(Err(Failure::RuntimeStopped)).unwrap_err();
        assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease);
        leases.record_failure(&refusal());
        assert_eq!(leases.admission().unwrap(), Admission::Skip);
        leases.release_support().unreported = Some(refusal());
        leases.admission().unwrap_err();
        assert_eq!(leases.admission().unwrap(), Admission::Skip);
    }
}
