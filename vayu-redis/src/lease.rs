//! Leases: the right to compute a key, for all machines.
//!
//! A lease is a key with a random token and an expiry. A script deletes it if it still has the
//! token of its holder, and notifies the processes that wait for it, whose ids follow the token ([`crate::watches`]).
//! Where the server refuses scripts, the holder reads the token and then
//! deletes the key, but only while the lease cannot have expired yet; a lease that is about to
//! expire is left to expire. No lease is acquired on a server until it has been verified that
//! leases can be released there.
//!
//! A lease is released however its call ends: by the call itself, or in the background runtime when
//! the function panics, the future is dropped, or the reply to the acquisition is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use vayu_core::__internal::remote::random_bytes;
use vayu_core::{Clock, Lease, LeaseGuard, LeaseWatch, ReleaseLease, Result, Timestamp};

use crate::client::{Client, Executor, run_blocking};
use crate::error::Failure;
use crate::pubsub::{Channel, Message, Subscribers};
use crate::request::{self, ReleaseChannels, Request};
use crate::runtime;
use crate::sync::lock;
use crate::watches::{LeaseId, WaiterId, Watch, Watches};

type Token = [u8; 16];

/// Leases on one server.
pub(crate) struct Leases {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    /// The address of the server, for errors.
    address: Arc<str>,
    /// Cleared when the server has refused a script.
    runs_scripts: AtomicBool,
    release_support: Mutex<ReleaseSupport>,
    channels: ReleaseChannels,
    watches: Arc<Watches>,
}

/// The lease of a key, and the feed that notifies of its release.
pub(crate) struct KeyLease<'a> {
    pub(crate) name: String,
    pub(crate) id: LeaseId,
    /// Whether the caller waits if it is held.
    pub(crate) waits: bool,
    pub(crate) subscribers: &'a Arc<Subscribers>,
    pub(crate) channel: &'a (dyn Fn() -> Channel + Sync),
}

/// Knowledge of whether leases can be released.
#[derive(Default)]
struct ReleaseSupport {
    is_verified: bool,
    /// The server has refused a release; it is not verified again before this time.
    refused_until: Option<Timestamp>,
    /// The lease of a cancelled call could not be released. The next call reports it.
    unreported: Option<Failure>,
}

/// The next step of a caller that needs a lease.
#[derive(Debug, PartialEq)]
enum Admission {
    Acquire,
    /// Verify that leases can be released.
    VerifyRelease,
    /// Compute without a lease.
    Skip,
}

/// Longest time for which a thread waits until the background runtime has released the lease of a
/// cancelled call. It suffices for a server that responds, so that the lease is released even if
/// the process ends right afterwards.
const MAX_DROP_WAIT: Duration = Duration::from_millis(250);

impl Leases {
    /// Returns the callers that wait for leases.
    pub(crate) fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    pub(crate) fn new(
        ttl: Duration,
        clock: Arc<dyn Clock>,
        address: Arc<str>,
        channels: ReleaseChannels,
    ) -> Arc<Self> {
        Arc::new(Self {
            ttl,
            clock,
            address,
            runs_scripts: AtomicBool::new(true),
            release_support: Mutex::default(),
            channels,
            watches: Arc::default(),
        })
    }

    /// Acquires a lease unless it is held.
    pub(crate) async fn acquire<E: Executor>(
        self: &Arc<Self>,
        client: &Client,
        executor: E,
        key: KeyLease<'_>,
    ) -> Result<Lease> {
        let lease = || RemoteLease::new(self, client, &key);
        match self.admission()? {
            Admission::Acquire => {}
            Admission::Skip => return Ok(Lease::NotRequired),
            Admission::VerifyRelease => {
                let verification = async { lease()?.verify_release(&executor).await };
                if !self.record_verification(verification.await)? {
                    return Ok(Lease::NotRequired);
                }
            }
        }
        let acquire = async {
            // From here on the server may have granted the lease, whether or not this is polled
            // again.
            let guard = ReleaseOnDrop { lease: lease()?, stage: Stage::Requested };
            let (watch, waiter) = self.watch(&key).unzip();
            let is_acquired = guard.lease.acquire(&executor, waiter).await;
            let lease = guard.finish_acquire(is_acquired)?;
            Ok(match (lease, watch) {
                (Lease::Held, Some(watch)) if self.runs_scripts() => {
                    Lease::Watched(LeaseWatch::new(watch))
                }
                (Lease::Held, None) if key.waits && self.runs_scripts() => {
                    key.subscribers.start_for_leases(key.channel);
                    Lease::Held
                }
                (lease, _) => lease,
            })
        };
        acquire.await.map_err(|failure: Failure| failure.into_error("acquire lease", &self.address))
    }

    /// Returns a watch of the lease and the id of this process, if the caller waits and is connected for messages. A message
    /// that is sent from here on is received, unless the connection is lost: then the watch is ready.
    fn watch(&self, key: &KeyLease<'_>) -> Option<(Watch, WaiterId)> {
        if !key.waits || !self.runs_scripts() {
            return None;
        }
        // In a child process the first of these forgets the watches of the parent, so it precedes the watch. The
        // connection may be replaced in between, and the id with it.
        key.subscribers.waiter()?;
        let watch = self.watches.watch(key.id);
        Some((watch, key.subscribers.waiter()?))
    }

    fn admission(&self) -> Result<Admission> {
        let mut support = self.release_support();
        if let Some(failure) = support.unreported.take() {
            return Err(failure.into_error("release lease", &self.address));
        }
        if support.is_verified {
            return Ok(Admission::Acquire);
        }
        let Some(until) = support.refused_until else { return Ok(Admission::VerifyRelease) };
        let now = self.clock.now();
        if now.is_within_before(until, self.ttl) {
            return Ok(Admission::Skip);
        }
        // One caller verifies, the others compute without a lease in the meantime.
        support.refused_until = Some(now.saturating_add(self.ttl));
        Ok(Admission::VerifyRelease)
    }

    /// Records whether leases can be released, and returns whether one may be acquired now. A
    /// refusal is reported as an error once.
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
                if was_refused {
                    Ok(false)
                } else {
                    Err(failure.into_error("release lease", &self.address))
                }
            }
            Err(failure) => Err(failure.into_error("acquire lease", &self.address)),
        }
    }

    fn record_refusal(&self) {
        let until = self.clock.now().saturating_add(self.ttl);
        let mut support = self.release_support();
        (support.is_verified, support.refused_until) = (false, Some(until));
    }

    /// Records that a lease could not be released.
    fn record_failure(&self, failure: &Failure) {
        if failure.is_command_error() {
            self.record_refusal();
        } else {
            // The connection or the server failed: the next caller verifies again.
            self.release_support().is_verified = false;
        }
    }

    fn release_support(&self) -> MutexGuard<'_, ReleaseSupport> {
        lock(&self.release_support)
    }

    fn runs_scripts(&self) -> bool {
        self.runs_scripts.load(Ordering::Relaxed)
    }

    fn disable_scripts(&self) {
        self.runs_scripts.store(false, Ordering::Relaxed);
    }
}

/// A lease on a server, whether it was granted or not.
#[derive(Clone)]
struct RemoteLease {
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
    fn new(leases: &Arc<Leases>, client: &Client, key: &KeyLease<'_>) -> Result<Self, Failure> {
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
    async fn acquire<E: Executor>(
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
    async fn has_our_token<E: Executor>(&self, executor: &E) -> Result<bool, Failure> {
        let found = executor.execute(&request::get(&self.name)).await?;
        Ok(found.is_some_and(|found| found.starts_with(&self.token)))
    }

    /// Releases the lease. Returns whether there was one to release.
    async fn release<E: Executor>(&self, executor: &E) -> Result<bool, Failure> {
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
    async fn verify_release<E: Executor>(mut self, executor: &E) -> Result<(), Failure> {
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
struct ReleaseOnDrop {
    lease: RemoteLease,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// The server may have granted it.
    Requested,
    Acquired,
    /// There is nothing to release.
    Released,
}

impl ReleaseOnDrop {
    /// Returns the lease, by the outcome of the request for it.
    fn finish_acquire(mut self, is_acquired: Result<bool, Failure>) -> Result<Lease, Failure> {
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

#[cfg(test)]
mod tests {
    use redis::{Arg, ServerErrorKind, parse_redis_value};
    use vayu_core::testing::ManualClock;

    use super::*;
    use crate::RedisOptions;
    use crate::server::Server;
    use crate::url;

    const TTL: Duration = Duration::from_secs(10);

    fn leases(clock: &ManualClock) -> Arc<Leases> {
        let channels = ReleaseChannels { all: Vec::new(), one: Vec::new() };
        Leases::new(TTL, Arc::new(clock.clone()), "host:1".into(), channels)
    }

    fn refusal() -> Failure {
        Failure::Redis((ServerErrorKind::ResponseError.into(), "unknown command").into())
    }

    #[test]
    fn lease_is_acquired_once_release_is_verified() {
        let leases = leases(&ManualClock::new());
        assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease);
        assert_eq!(
            leases.admission().unwrap(),
            Admission::VerifyRelease,
            "no caller skips the lease before the first verification"
        );
        assert!(leases.record_verification(Ok(())).unwrap());
        assert_eq!(leases.admission().unwrap(), Admission::Acquire);
    }

    #[test]
    fn refusal_is_reported_once_and_retried_after_the_lease_ttl() {
        let clock = ManualClock::new();
        let leases = leases(&clock);
        leases.record_verification(Err(refusal())).unwrap_err();
        for _ in 0..3 {
            clock.advance(TTL / 2);
            assert_eq!(leases.admission().unwrap(), Admission::Skip);
            clock.advance(TTL / 2);
            assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease);
            assert_eq!(leases.admission().unwrap(), Admission::Skip, "one caller verifies");
            assert!(!leases.record_verification(Err(refusal())).unwrap());
        }
        clock.set(Timestamp::from_micros(0));
        assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease, "the clock was set back");
        assert!(leases.record_verification(Ok(())).unwrap());
        assert_eq!(leases.admission().unwrap(), Admission::Acquire);
    }

    #[test]
    fn failed_release_requires_a_new_verification() {
        let leases = leases(&ManualClock::new());
        assert!(leases.record_verification(Ok(())).unwrap());
        leases.record_failure(&Failure::RuntimeStopped);
        assert_eq!(
            leases.admission().unwrap(),
            Admission::VerifyRelease,
            "the server may be reachable again"
        );
        leases.record_verification(Err(Failure::RuntimeStopped)).unwrap_err();
        assert_eq!(leases.admission().unwrap(), Admission::VerifyRelease);
        leases.record_failure(&refusal());
        assert_eq!(leases.admission().unwrap(), Admission::Skip);
        leases.release_support().unreported = Some(refusal());
        leases.admission().unwrap_err();
        assert_eq!(leases.admission().unwrap(), Admission::Skip);
    }

    /// A server that refuses scripts with an error, and accepts all other commands.
    #[derive(Clone)]
    struct RefusesScripts(&'static str);

    impl Executor for RefusesScripts {
        async fn execute<T>(&self, request: &Request<T>) -> Result<T, Failure> {
            let is_script = request.command().args_iter().next() == Some(Arg::Simple(b"EVAL"));
            let line = if is_script { format!("-{}\r\n", self.0) } else { "+OK\r\n".to_owned() };
            let reply = parse_redis_value(line.as_bytes()).expect("a reply");
            request.parse(reply.extract_error()?)
        }

        async fn execute_all<T: Send>(&self, _: Vec<Request<T>>) -> Vec<Result<T, Failure>> {
            unreachable!("a lease takes one command at a time")
        }
    }

    #[test]
    fn scripts_stay_enabled_unless_the_server_refuses_all() {
        let (deployment, options) =
            url::parse("redis://host:1", RedisOptions::new()).expect("a valid URL");
        let server = Server::new(deployment, &options).expect("valid options");
        let client = Client::new(server, &options);
        for (error, expected) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", true),
            ("MISCONF Redis is configured to save RDB snapshots", true),
            ("ERR unknown command 'EVAL'", false),
            ("NOPERM User shop has no permissions to run the 'eval' command", false),
        ] {
            let leases = leases(&ManualClock::new());
            let key = KeyLease {
                name: "vayu:c:1".to_owned(),
                id: LeaseId::from_bytes([1; 8]),
                waits: false,
                subscribers: &Arc::new(Subscribers::new(Arc::downgrade(leases.watches()))),
                channel: &|| unreachable!("the caller does not wait"),
            };
            let lease = RemoteLease::new(&leases, &client, &key).expect("random bytes");
            let is_acquired = run_blocking(lease.acquire(&RefusesScripts(error), None));
            assert!(is_acquired.expect("the plain command works"), "{error}");
            assert_eq!(leases.runs_scripts(), expected, "{error}");
        }
    }
}
