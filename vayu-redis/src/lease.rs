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

use crate::backend::Asking;
use crate::command;
use crate::error::Failure;
use crate::random;
use crate::runtime;

type Token = [u8; 16];

/// What is known of leases on one server.
pub(crate) struct Leases {
    /// How long a lease lasts at most.
    time: Duration,
    clock: Arc<dyn Clock>,
    /// Whether the server runs scripts, as far as is known.
    runs_scripts: AtomicBool,
    trust: Mutex<Trust>,
}

/// Whether leases can be given back.
#[derive(Default)]
struct Trust {
    is_proven: bool,
    /// The server has refused to take one back: it is not asked before this.
    refused_until: Option<Timestamp>,
    /// A lease of a cancelled call could not be given back. The next call counts that.
    unreported: Option<Failure>,
}

/// What is to be done before a lease is taken.
#[derive(Debug, PartialEq)]
enum Next {
    Take,
    /// Try whether leases can be given back.
    Prove,
    /// Take none.
    Without,
}

/// How long a thread waits for the helper to give back the lease of a cancelled call. It suffices for
/// a server that responds, so that the lease is gone even if the process ends now.
const HAND_OVER: Duration = Duration::from_millis(250);

impl Leases {
    pub(crate) fn new(time: Duration, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (runs_scripts, trust) = (AtomicBool::new(true), Mutex::default());
        Arc::new(Self { time, clock, runs_scripts, trust })
    }

    /// Takes a lease if nobody has it.
    pub(crate) fn take(self: &Arc<Self>, asking: &Asking, name: String) -> Result<Lease> {
        match self.next()? {
            Next::Take => {}
            Next::Without => return Ok(Lease::NotRequired),
            Next::Prove => {
                let proof = HeldLease::new(self, asking, name.clone()).and_then(HeldLease::prove);
                if !self.proven(proof)? {
                    return Ok(Lease::NotRequired);
                }
            }
        }
        let take = || {
            let lease = HeldLease::new(self, asking, name)?;
            let take = lease.claim();
            let holder = Holder { lease, stage: Stage::Asked };
            let mut answer = asking.ask(&take);
            if let Some(take) = holder.lease.claim_instead(&answer) {
                answer = holder.lease.took_instead(asking.ask(&take));
            }
            if holder.lease.may_be_ours(&answer) {
                let found = asking.ask(&command::get(&holder.lease.name));
                answer = holder.lease.found(found);
            }
            holder.asked(answer)
        };
        take().map_err(|failure: Failure| failure.during("claim key"))
    }

    /// [`take`](Self::take) for async callers.
    pub(crate) async fn take_async(
        self: &Arc<Self>,
        asking: &Asking,
        name: String,
    ) -> Result<Lease> {
        match self.next()? {
            Next::Take => {}
            Next::Without => return Ok(Lease::NotRequired),
            Next::Prove => {
                let proof = match HeldLease::new(self, asking, name.clone()) {
                    Ok(lease) => lease.prove_async().await,
                    Err(failure) => Err(failure),
                };
                if !self.proven(proof)? {
                    return Ok(Lease::NotRequired);
                }
            }
        }
        let take = async {
            let lease = HeldLease::new(self, asking, name)?;
            let take = lease.claim();
            // From here on the server may have granted it, whether this future is polled on or not.
            let holder = Holder { lease, stage: Stage::Asked };
            let mut answer = asking.ask_async(&take).await;
            if let Some(take) = holder.lease.claim_instead(&answer) {
                answer = holder.lease.took_instead(asking.ask_async(&take).await);
            }
            if holder.lease.may_be_ours(&answer) {
                let found = asking.ask_async(&command::get(&holder.lease.name)).await;
                answer = holder.lease.found(found);
            }
            holder.asked(answer)
        };
        take.await.map_err(|failure: Failure| failure.during("claim key"))
    }

    fn next(&self) -> Result<Next> {
        let mut trust = self.trust();
        if let Some(failure) = trust.unreported.take() {
            return Err(failure.during("release lease"));
        }
        if trust.is_proven {
            return Ok(Next::Take);
        }
        let Some(until) = trust.refused_until else { return Ok(Next::Prove) };
        let now = self.clock.now();
        // A clock that was set back must not make the time longer.
        if now < until && until.saturating_since(now) <= self.time {
            return Ok(Next::Without);
        }
        // One caller tries, the others do without meanwhile.
        trust.refused_until = Some(now.saturating_add(self.time));
        Ok(Next::Prove)
    }

    /// Notes whether leases can be given back, and returns whether one may be taken now. That they
    /// cannot is an error once.
    fn proven(&self, proof: Result<(), Failure>) -> Result<bool> {
        match proof {
            Ok(()) => {
                *self.trust() = Trust { is_proven: true, ..Trust::default() };
                Ok(true)
            }
            Err(failure) if failure.is_answer() => {
                let was_refused = self.trust().refused_until.is_some();
                self.refused();
                if was_refused { Ok(false) } else { Err(failure.during("release lease")) }
            }
            Err(failure) => Err(failure.during("claim key")),
        }
    }

    fn refused(&self) {
        let until = self.clock.now().saturating_add(self.time);
        let mut trust = self.trust();
        (trust.is_proven, trust.refused_until) = (false, Some(until));
    }

    /// A lease could not be given back.
    fn failed(&self, failure: &Failure) {
        if failure.is_answer() {
            self.refused();
        } else {
            // The connection, or the server: the next caller tries.
            self.trust().is_proven = false;
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease on a server, whether it was granted or not.
#[derive(Clone)]
struct HeldLease {
    leases: Arc<Leases>,
    asking: Asking,
    name: String,
    token: Token,
    /// Until when it is that of this process for certain, measured from before it was asked for.
    ours_until: Instant,
}

impl HeldLease {
    fn new(leases: &Arc<Leases>, asking: &Asking, name: String) -> Result<Self, Failure> {
        Ok(Self {
            leases: Arc::clone(leases),
            asking: asking.clone(),
            name,
            token: random::bytes()?,
            ours_until: Instant::now() + leases.time.min(LONGEST),
        })
    }

    /// Returns the command that takes it. It may be sent twice.
    fn claim(&self) -> Cmd {
        let claim =
            if self.leases.runs_scripts() { command::claim } else { command::claim_plainly };
        claim(&self.name, &self.token, self.leases.time)
    }

    /// Returns the command to send instead of a script that was refused.
    fn claim_instead(&self, answer: &Result<Value, Failure>) -> Option<Cmd> {
        let is_refused = answer.as_ref().is_err_and(Failure::is_answer);
        (is_refused && self.leases.runs_scripts())
            .then(|| command::claim_plainly(&self.name, &self.token, self.leases.time))
    }

    /// If this was accepted, it was the script that is refused, and not the write.
    fn took_instead(&self, answer: Result<Value, Failure>) -> Result<Value, Failure> {
        if answer.is_ok() {
            self.leases.does_without_scripts();
        }
        answer
    }

    /// Returns whether a refusal may be that of a second attempt after a first that was granted. The
    /// script knows the token.
    fn may_be_ours(&self, answer: &Result<Value, Failure>) -> bool {
        matches!(answer, Ok(Value::Nil)) && !self.leases.runs_scripts()
    }

    /// Returns the reply to the claim, by the token that was found.
    fn found(&self, found: Result<Value, Failure>) -> Result<Value, Failure> {
        let found = command::bytes(found?)?;
        let is_ours = found.is_some_and(|found| *found == self.token);
        Ok(Value::Int(i64::from(is_ours)))
    }

    /// Gives it back. Returns whether there was anything to give back.
    fn release(&self) -> Result<bool, Failure> {
        if self.leases.runs_scripts() {
            let done = self.asking.ask(&command::release(&self.name, &self.token));
            if let Some(result) = Self::released_by_script(done) {
                return result;
            }
        }
        if !self.is_ours_for_long() {
            return Ok(true);
        }
        let found = command::bytes(self.asking.ask(&command::get(&self.name))?)?;
        let is_ours = found.is_some_and(|found| *found == self.token);
        if is_ours {
            command::done(&self.asking.ask(&command::delete(&self.name))?)?;
        }
        self.leases.does_without_scripts();
        Ok(is_ours)
    }

    async fn release_async(&self) -> Result<bool, Failure> {
        if self.leases.runs_scripts() {
            let release = command::release(&self.name, &self.token);
            let done = self.asking.ask_async(&release).await;
            if let Some(result) = Self::released_by_script(done) {
                return result;
            }
        }
        if !self.is_ours_for_long() {
            return Ok(true);
        }
        let found = command::bytes(self.asking.ask_async(&command::get(&self.name)).await?)?;
        let is_ours = found.is_some_and(|found| *found == self.token);
        if is_ours {
            command::done(&self.asking.ask_async(&command::delete(&self.name)).await?)?;
        }
        self.leases.does_without_scripts();
        Ok(is_ours)
    }

    /// Tries all that [`release`](Self::release) does, on names at which there is no lease.
    fn prove(mut self) -> Result<(), Failure> {
        self.name = self.name_of_none();
        self.release()?;
        if !self.leases.runs_scripts() {
            command::done(&self.asking.ask(&command::delete(&self.name))?)?;
        }
        Ok(())
    }

    async fn prove_async(mut self) -> Result<(), Failure> {
        self.name = self.name_of_none();
        self.release_async().await?;
        if !self.leases.runs_scripts() {
            command::done(&self.asking.ask_async(&command::delete(&self.name)).await?)?;
        }
        Ok(())
    }

    fn name_of_none(&self) -> String {
        format!("{}:{:032x}", self.name, u128::from_le_bytes(self.token))
    }

    /// What came of the script, or nothing if the server does not run it.
    fn released_by_script(done: Result<Value, Failure>) -> Option<Result<bool, Failure>> {
        match done.and_then(|done| command::done(&done)) {
            Err(failure) if failure.is_answer() => None,
            result => Some(result),
        }
    }

    /// Whether what is asked for now happens while this lease is that of this process.
    fn is_ours_for_long(&self) -> bool {
        Instant::now() + self.asking.timeout() < self.ours_until
    }
}

impl Leases {
    fn runs_scripts(&self) -> bool {
        self.runs_scripts.load(Ordering::Relaxed)
    }

    fn does_without_scripts(&self) {
        self.runs_scripts.store(false, Ordering::Relaxed);
    }
}

/// A longer time is not added to an instant.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A lease that is given back whatever happens.
struct Holder {
    lease: HeldLease,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// It may have been granted.
    Asked,
    Granted,
    /// There is nothing to give back.
    Over,
}

impl Holder {
    /// What came of asking for it.
    fn asked(mut self, answer: Result<Value, Failure>) -> Result<Lease, Failure> {
        match answer.and_then(|answer| command::done(&answer)) {
            Ok(true) => {
                self.stage = Stage::Granted;
                Ok(Lease::Acquired(LeaseGuard::with_release(self)))
            }
            Ok(false) => {
                self.stage = Stage::Over;
                Ok(Lease::Held)
            }
            Err(failure) => {
                let may_be_granted = !failure.is_answer() && !matches!(failure, Failure::Resting);
                if may_be_granted {
                    // The call has waited for long enough.
                    drop(self.hand_over());
                }
                self.stage = Stage::Over;
                Err(failure)
            }
        }
    }

    fn released(&mut self, result: Result<bool, Failure>) -> Result<()> {
        self.stage = Stage::Over;
        result.map(drop).map_err(|failure| {
            self.lease.leases.failed(&failure);
            failure.during("release lease")
        })
    }

    /// Lets the helper give it back. What is received says that this was tried.
    fn hand_over(&self) -> Option<mpsc::Receiver<()>> {
        let (tried, is_tried) = mpsc::channel();
        let (lease, stage) = (self.lease.clone(), self.stage);
        let release = async move {
            let result = lease.release_async().await;
            // Nobody listens any more if that took too long.
            let _ = tried.send(());
            match result {
                Ok(true) => {}
                Err(failure) if stage == Stage::Granted => {
                    lease.leases.failed(&failure);
                    lease.leases.trust().unreported = Some(failure);
                }
                _ if stage == Stage::Granted => {}
                _ => {
                    // What was asked for on another connection may come to the server later.
                    tokio::time::sleep(lease.asking.timeout()).await;
                    let _ = lease.release_async().await;
                }
            }
        };
        runtime::helper().ok()?.spawn(release);
        Some(is_tried)
    }
}

#[async_trait]
impl ReleaseLease for Holder {
    fn release(mut self: Box<Self>) -> Result<()> {
        let result = self.lease.release();
        self.released(result)
    }

    async fn release_async(mut self: Box<Self>) -> Result<()> {
        let result = self.lease.release_async().await;
        self.released(result)
    }
}

impl Drop for Holder {
    /// The function panicked, or the future of the call was dropped, maybe with its runtime. The
    /// helper has a runtime and a connection of its own.
    fn drop(&mut self) {
        if self.stage != Stage::Over
            && let Some(is_tried) = self.hand_over()
        {
            let _ = is_tried.recv_timeout(HAND_OVER);
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
    fn lease_is_taken_once_it_is_known_that_it_can_be_given_back() {
        let leases = Leases::new(TIME, Arc::new(ManualClock::new()));
        assert_eq!(leases.next().unwrap(), Next::Prove);
        assert_eq!(leases.next().unwrap(), Next::Prove, "nobody does without before it is known");
        assert!(leases.proven(Ok(())).unwrap());
        assert_eq!(leases.next().unwrap(), Next::Take);
    }

    #[test]
    fn refusal_is_reported_once_and_tried_again_after_the_time_of_a_lease() {
        let clock = ManualClock::new();
        let leases = Leases::new(TIME, Arc::new(clock.clone()));
        leases.proven(Err(refusal())).unwrap_err();
        for _ in 0..3 {
            clock.advance(TIME / 2);
            assert_eq!(leases.next().unwrap(), Next::Without);
            clock.advance(TIME / 2);
            assert_eq!(leases.next().unwrap(), Next::Prove);
            assert_eq!(leases.next().unwrap(), Next::Without, "one tries");
            assert!(!leases.proven(Err(refusal())).unwrap());
        }
        clock.set(Timestamp::from_micros(0));
        assert_eq!(leases.next().unwrap(), Next::Prove, "the clock was set back");
        assert!(leases.proven(Ok(())).unwrap());
        assert_eq!(leases.next().unwrap(), Next::Take);
    }

    #[test]
    fn failure_to_give_back_ends_the_trust() {
        let leases = Leases::new(TIME, Arc::new(ManualClock::new()));
        assert!(leases.proven(Ok(())).unwrap());
        leases.failed(&Failure::Helper);
        assert_eq!(leases.next().unwrap(), Next::Prove, "the server may be there again");
        leases.proven(Err(Failure::Helper)).unwrap_err();
        assert_eq!(leases.next().unwrap(), Next::Prove);
        leases.failed(&refusal());
        assert_eq!(leases.next().unwrap(), Next::Without);
        leases.trust().unreported = Some(refusal());
        leases.next().unwrap_err();
        assert_eq!(leases.next().unwrap(), Next::Without);
    }
}
