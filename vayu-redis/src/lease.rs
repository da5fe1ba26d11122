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

mod remote;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use vayu_core::{Clock, Lease, LeaseWatch, Result, Timestamp};

use self::remote::{ReleaseOnDrop, RemoteLease, Stage};
use crate::client::{Client, Executor};
use crate::error::Failure;
use crate::key_names::ReleaseChannels;
use crate::pubsub::{Channel, Subscribers};
use crate::sync::lock;
use crate::watches::{LeaseId, WaiterId, Watch, Watches};

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

#[cfg(test)]
mod tests {
    use redis::{Arg, ServerErrorKind, parse_redis_value};
    use vayu_core::testing::ManualClock;

    use super::*;
    use crate::RedisOptions;
    use crate::client::run_blocking;
    use crate::request::Request;
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
