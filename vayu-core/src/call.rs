//! One call of a cached function.
//!
//! # The course of a call
//!
//! A call begins with a [lookup](lookup), which never waits: it takes the key, the stamp made of
//! the generations of its groups, and the record if the backend returns it without blocking. A hit
//! ends here, before any future for the rest of the call exists. If the generations or the record
//! cannot be read without blocking, the [driver](driver) reads them and resumes the lookup.
//!
//! A call without a fresh value joins the single flight of its key. It either waits for the leader of
//! the flight and shares the record that this computes, or leads. A leader
//!
//! 1. reads the backend again, if a value may have been stored in the meantime,
//! 2. acquires the lease of the key, if processes share the backend,
//! 3. runs the function,
//! 4. stores the value, and
//! 5. completes the flight, which wakes the waiting callers, and releases the lease.
//!
//! There are exceptions:
//!
//! - A caller that must not wait, because the flight may depend on it, runs the function without
//!   coordination.
//! - A caller that has waited for the time limit replaces the leader.
//! - If a leader takes long, one waiting caller runs the function in parallel, and all get the first
//!   value (a hedged request).
//! - With `stale` and `spawn`, a value past its ttl is refreshed in the [background](background_refresh).
//! - With `spawn`, a leader hands its computation over to a [task](task), so that the caller may be dropped.
//! - With `patience`, the callers of a refresh in a task wait a while for its value ([patience]).
//! - A [batch] is many calls, which share the runs of one function.
//! - A value past its ttl is refreshed by one caller, while the others get the stale one
//!   (stale-while-revalidate). If the refresh fails, that caller gets it too (stale-if-error).
//! - If a leader fails, the callers that wait get clones of its error ([failure](failure)), where it is
//!   `Clone + Send + Sync + 'static`. Otherwise they run the function.
//!
//! # Sync and async
//!
//! All of this is written once, as async code that is generic over [`Io`](crate::io::Io). An async
//! caller awaits it ([`future`]). For a sync caller ([`blocking`]) every step blocks the thread until it
//! is done, so the code does not suspend: it is polled once, without an executor, and that poll is the
//! whole call. Only a sync call with `patience` is in a future of its own, which suspends. What waits for
//! nothing, such as the start of a miss in memory (`prepare_now` in
//! [`driver`]), is a plain function that both call. [`Call`] holds the decisions, which are plain
//! functions as well.
//!
//! # The types of the function
//!
//! Hits are compiled for each function. All else is compiled once: it reads the [`Properties`] of the call, and its frame
//! has what involves the types of the function ([`typed`]), which the driver uses by [steps].

pub(crate) mod background_refresh;
pub(crate) mod batch;
pub(crate) mod blocking;
mod cached_fn;
mod checks;
mod compute;
mod conclude;
mod decode;
mod driver;
mod encode;
mod explain;
mod failure;
pub(crate) mod future;
mod idle;
mod kept;
pub(crate) mod late_body;
mod leading;
pub(crate) mod lookup;
mod options;
mod output;
pub(crate) mod patience;
pub(crate) mod previous;
mod read;
mod reason;
pub(crate) mod request;
#[cfg(all(test, vayu_shuttle))]
mod shuttle_tests;
mod steps;
pub(crate) mod task;
#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests;
pub(crate) mod ttl;
pub(crate) mod typed;

pub(crate) use self::cached_fn::Properties;
pub use self::cached_fn::{CachedFn, FnOutput, FnProperties, OwnedSerializer, Policy, Tagged};
pub(crate) use self::explain::RecordState;
pub use self::idle::{Idle, IdleTime, WithIdle};
pub use self::options::CallOptions;
pub(crate) use self::output::CachedOutput;
pub(crate) use self::output::DisplayText;
pub use self::output::{OutputShape, PlainOutput, ResultOutput, SharedResultOutput, WholeOutput};
pub(crate) use self::reason::{ComputeReason, StaleValue};
pub use self::ttl::{CacheIf, FixedTtl, Retention, TtlFn};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backend::Backend;
use crate::background::BackgroundRun;
use crate::cache::{BACKOFF, Declaration, Engine, Flags};
use crate::call::lookup::Begun;
use crate::call::request::Request;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Completions, Flight, Join};
use crate::key::Key;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::{catch_panic, drop_quietly};
use crate::record::Record;
use crate::serializer::EntryContext;
use crate::validity::is_unknown;

/// Returns the key of a call, or `None` if the call bypasses the cache.
#[inline]
pub(crate) fn usable_key<'a, B: Backend, F: CachedFn>(
    engine: &Engine<B>,
    flags: Flags,
    function: &'a F,
) -> Option<&'a Key> {
    let is_bypassed = function.options().is_bypassed();
    let (prefix, error) = match function.key() {
        Ok(key) if !flags.is_paused() && !is_bypassed => return Some(key),
        Ok(key) => {
            if function.options().has_handle {
                // Otherwise, a nested call of the same key would take the request of the entry.
                request::take(key);
            }
            (key.prefix(), None)
        }
        Err(error) => (error.prefix, Some(error.error).filter(|_| !is_bypassed)),
    };
    engine.count_bypass(prefix, error, function.options().is_quiet);
    None
}

/// Returns the time for which a value is still fresh, unless the cache only shares running computations.
#[inline]
fn remaining_ttl<B: Backend>(fresh_until: Timestamp, now: Timestamp) -> Option<Duration> {
    (!Engine::<B>::never_stores()).then(|| fresh_until.saturating_since(now))
}

/// A call in progress.
pub struct Call<'a, B: Backend, F> {
    pub(crate) engine: &'a Engine<B>,
    function: &'a F,
    pub(crate) key: &'a Key,
    /// Made of the generations of its groups when it began.
    pub(crate) stamp: u64,
    began: Timestamp,
    /// The backend has not responded in time. The rest of the call does not use it.
    has_timed_out: AtomicBool,
}

impl<B: Backend, F> fmt::Debug for Call<'_, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<'a, B: Backend, F: FnProperties> Call<'a, B, F> {
    /// Creates a call that begins now.
    #[inline]
    pub(crate) fn new(engine: &'a Engine<B>, function: &'a F, key: &'a Key, stamp: u64) -> Self {
        Self::begun_at(engine, function, key, stamp, engine.now_inline())
    }

    /// Creates a call that began at this time.
    #[inline]
    fn begun_at(
        engine: &'a Engine<B>,
        function: &'a F,
        key: &'a Key,
        stamp: u64,
        began: Timestamp,
    ) -> Self {
        Self { engine, function, key, stamp, began, has_timed_out: AtomicBool::new(false) }
    }

    /// Creates a call that has begun earlier.
    #[inline]
    fn resumed(engine: &'a Engine<B>, function: &'a F, key: &'a Key, begun: Begun) -> Self {
        let Begun { stamp, at, has_timed_out, .. } = begun;
        Self { engine, function, key, stamp, began: at, has_timed_out: has_timed_out.into() }
    }

    /// Returns what [`resumed`](Self::resumed) creates the call from.
    #[inline]
    fn begun(&self) -> Begun {
        let has_timed_out = self.has_timed_out();
        Begun { stamp: self.stamp, at: self.began, has_timed_out }
    }

    /// [`begun`](Self::begun) of a call that ends here.
    #[inline]
    fn into_begun(self) -> Begun {
        let has_timed_out = self.has_timed_out.into_inner();
        Begun { stamp: self.stamp, at: self.began, has_timed_out }
    }

    /// Creates a call whose stamp is unknown. It finds nothing, stores nothing, and computes for
    /// other callers without a stamp.
    #[cold]
    pub(crate) fn without_stamp(
        engine: &'a Engine<B>,
        function: &'a F,
        key: &'a Key,
        error: &Error,
    ) -> Self {
        let call = Self::new(engine, function, key, engine.unknown_stamp());
        call.count_error(error);
        call
    }

    #[inline]
    fn options(&self) -> &'a CallOptions {
        self.function.options()
    }

    /// Returns whether records of this stamp may be stored.
    #[inline]
    pub(crate) fn can_store(&self) -> bool {
        !is_unknown(self.stamp)
    }

    /// Takes the request of an entry to this call, if there is one. A call with `refresh_if` is a forced refresh
    /// without one.
    #[inline]
    pub(crate) fn take_request(&self) -> Option<Request> {
        let request = if self.options().has_handle { request::take(self.key) } else { None };
        request.or_else(|| self.options().is_refreshed().then_some(Request::Refresh))
    }

    /// Counts a call that an entry runs without the cache.
    #[cold]
    pub(crate) fn count_bypass(&self) {
        self.engine.count_bypass(self.key.prefix(), None, self.options().is_quiet);
    }

    /// Joins the flight of the key, or starts one. A call with `refresh_if` joins that of another refresh
    /// only.
    pub(crate) fn join(&self, before: Option<Completions>) -> Join<'a, Record<B::Stored>> {
        let flights = self.engine.flights();
        if self.options().is_refreshed() {
            flights.join_refresh(self.key, self.stamp)
        } else {
            flights.join(self.key, self.stamp, before)
        }
    }

    /// Returns the context in which the value of a record is encoded or decoded.
    #[inline]
    fn context<V>(&self, record: &Record<V>) -> EntryContext<'a> {
        self.engine.entry_context(self.key, record, self.function.type_stamp())
    }

    /// Declares what the entries of this function depend on, for callers with a key made by hand.
    #[cold]
    pub(crate) fn declare(&self) {
        self.ok_or_count(catch_panic("declare entries", || {
            self.declare_unguarded();
            Ok(())
        }));
    }

    /// [`declare`](Self::declare), to be called within [`catch_panic`].
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn declare_unguarded(&self) {
        if !self.options().is_by_key {
            self.engine.declarations().declare(self.key.prefix(), self.declaration());
        }
    }

    #[inline]
    fn declaration(&self) -> Declaration {
        let (id, stamp) = (self.function.serializer_id(), self.function.type_stamp());
        Declaration::new(self.key, self.options().flags, id, stamp)
    }

    #[inline]
    fn schema(&self) -> u64 {
        let flags = self.options().flags.to_bits();
        self.function.type_stamp().wrapping_add(flags).wrapping_add(self.stamp)
    }

    /// Counts the result of writing a record. Returns whether it was written.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn record_write(&self, result: Result<()>) -> bool {
        self.engine.errors().remove(self.key);
        let is_stored = self.ok_or_count(result).is_some();
        if is_stored {
            self.engine.count_store(self.key.prefix());
        }
        is_stored
    }

    pub(crate) fn count_miss(&self) {
        self.engine.counters().call(CallOutcome::Miss);
    }

    /// Begins a run in the background for a refresh that has begun. If there are too many, the refresh is left to a later
    /// call.
    pub(crate) fn begin_background_run(&self) -> Option<BackgroundRun> {
        let run = self.engine.refreshes().begin(self.engine.now(), self.run_limit());
        if run.is_none() {
            self.engine.refresh_backoff().remove(self.key);
            let message = "refresh left to a later call: too many are running in the background";
            let error = Error::new(ErrorKind::Miss, message);
            self.engine.warn(self.key.prefix(), &error, self.options().is_quiet);
        }
        run
    }

    /// Returns whether a running refresh began so long ago that another one may begin in its place: not sooner than
    /// after a refresh that has failed.
    pub(crate) fn is_overdue(&self, flight: &Flight<Record<B::Stored>>) -> bool {
        flight.is_overdue(self.engine.now(), self.run_limit())
    }

    /// Returns the time after which a run in the background counts as one that hangs.
    fn run_limit(&self) -> Duration {
        self.engine.max_wait().max(BACKOFF)
    }

    /// Ends the backoff of the key: a value was stored.
    pub(crate) fn end_refresh(&self) {
        self.engine.refresh_backoff().remove(self.key);
    }

    /// Begins a refresh of a value past its ttl, unless the last attempt was too recent. Returns whether
    /// it was begun. The backoff applies even if the refresh never ends, since its caller is dropped. Not to be called while
    /// an error of the key is cached.
    pub(crate) fn begin_refresh(&self) -> bool {
        self.engine.refresh_backoff().begin(self.key, self.engine.now())
    }

    /// Counts and reports a call that returns a stale value without waiting for a new one.
    pub(crate) fn serve_stale(&self, stale: &StaleValue) {
        self.engine.counters().call(CallOutcome::Stale);
        self.emit(CallOutcome::Stale, stale.times());
    }

    /// Records the duration of a hedge, which began at `began` as number `hedges` of its flight, unless
    /// it was hedged itself.
    pub(crate) fn record_hedge(
        &self,
        flight: &Flight<Record<B::Stored>>,
        hedges: u32,
        began: Timestamp,
    ) {
        if flight.hedges.get() == hedges {
            let time = self.engine.now().saturating_since(began);
            self.engine.flights().hedge_times().record(self.key.prefix(), time);
        }
    }

    /// Returns the value of a result. An error is counted and logged.
    #[inline]
    pub(crate) fn ok_or_count<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.count_error(&error)).ok()
    }

    /// Returns whether an operation of this call has timed out.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.has_timed_out.load(Ordering::Relaxed)
    }

    /// Records that an operation of this call has timed out.
    pub(crate) fn set_timed_out(&self) {
        self.has_timed_out.store(true, Ordering::Relaxed);
    }

    /// Reads from the part of the backend that still responds after a timeout.
    pub(crate) fn read_offline(&self) -> Option<Record<B::Stored>> {
        let offline = self.engine.backend().capabilities().offline?;
        self.ok_or_count(catch_panic("read entry", || offline.read(self.key))).flatten()
    }

    /// Writes to the part of the backend that still responds after a timeout. Returns whether the record was written.
    pub(crate) fn write_offline(&self, record: Record<B::Stored>) -> bool {
        match self.engine.backend().capabilities().offline {
            Some(offline) => {
                self.record_write(catch_panic("write entry", || offline.write(self.key, record)))
            }
            None => {
                drop_quietly(record);
                false
            }
        }
    }

    #[cold]
    fn count_error(&self, error: &Error) {
        if error.kind() == ErrorKind::Timeout {
            self.set_timed_out();
        }
        self.engine.fault(self.key.prefix(), error, self.options().is_quiet);
    }

    /// Notifies the log, the observers and the watches of the call, if there are any.
    #[inline]
    pub(crate) fn emit(&self, outcome: CallOutcome, times: CallTimes) {
        if self.engine.has_listeners(self.options().is_quiet) {
            self.emit_cold(outcome, times);
        }
    }

    #[cold]
    fn emit_cold(&self, outcome: CallOutcome, mut times: CallTimes) {
        let is_new = times.ttl_left.is_some_and(|ttl_left| !ttl_left.is_zero());
        if is_new && self.is_known_to_be_invalidated() {
            times.ttl_left = None;
        }
        self.engine.emit(self.key.prefix(), outcome, times, self.options().is_quiet);
    }

    /// Returns whether a group of the entry was invalidated since the call began, as far as that is known without a
    /// read.
    fn is_known_to_be_invalidated(&self) -> bool {
        let (prefix, tags) = (self.key.prefix(), self.function.tags());
        let stamp = self.engine.known_stamp(self.engine.flags(), prefix, tags);
        stamp.is_some_and(|stamp| stamp != self.stamp) || self.engine.are_unknown(tags)
    }
}
