//! One cached call: what is asked of it, and what is decided about it.
//!
//! Everything here is the same for sync and async callers. The two drivers differ in how they
//! wait and in which methods of the backend they call.

pub(crate) mod background_refresh;
pub(crate) mod blocking;
mod decode;
pub(crate) mod forced_refresh;
pub(crate) mod future;
pub(crate) mod lookup;
mod policy;
#[cfg(all(test, vayu_shuttle))]
mod shuttle_tests;
#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests;

use self::policy::CallOptions;
pub(crate) use self::policy::PlainOutput;
pub use self::policy::{
    Always, CacheIf, CallKey, Choice, FixedTtl, OfCache, OutputShape, Own, Policy, Predicate,
    ResultOutput, Ttl, TtlFn,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::{Cache, Declaration};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::flight::Flight;
use crate::freshness::is_fresh;
use crate::key::Key;
use crate::observer::CallOutcome;
use crate::panic::{catch_panic, drop_quietly};
use crate::record::Record;
use crate::serializer::Serializer;

/// The stamp of calls whose stamp cannot be known.
const UNKNOWN: u64 = u64::MAX;

/// A backend that cannot answer without blocking.
pub(crate) struct Blocking;

/// What a record holds for a call.
pub(crate) enum Decoded<R> {
    Fresh(R),
    /// Past its ttl, but to be served while it is refreshed.
    Stale(Box<StaleValue<R>>),
    Nothing,
    /// An entry that the key must not be used for. The function runs without the cache.
    Refused,
}

/// A value past its ttl.
#[derive(Debug)]
pub struct StaleValue<R> {
    answer: R,
    age: Duration,
    compute_time: Duration,
    /// The first instant at which it may not be served any more.
    end: Timestamp,
}

/// Why a caller runs the function.
pub(crate) enum ComputeReason<R> {
    /// There is nothing to answer.
    Miss,
    /// There is a value past its ttl.
    Expired(Box<StaleValue<R>>),
    /// The caller wants a new value, whatever there is.
    Forced,
    /// The caller was answered with a value past its ttl. Nobody waits for this run.
    Background,
}

/// The key of a call, or nothing if it is to run without the cache.
#[inline]
pub(crate) fn key_in<'a, B, S, K, H, Z, L, P, G>(
    cache: &Cache<B, S>,
    policy: &'a Policy<K, H, Z, L, P, G>,
) -> Option<&'a Key>
where
    B: Backend,
    K: CallKey,
{
    let (prefix, error) = match policy.key.key() {
        Ok(key) if !cache.is_paused() => return Some(key),
        Ok(key) => (key.prefix(), None),
        Err(error) => (error.prefix, Some(error.error)),
    };
    cache.count_bypass(prefix, error, policy.is_quiet());
    None
}

/// One call under way: its cache, its policy and its key. The decisions are made here.
#[derive(Debug)]
pub struct Call<'a, B: Backend, S, H, Z, L, P> {
    pub(crate) cache: &'a Cache<B, S>,
    pub(crate) key: &'a Key,
    /// Made of the generations of its groups when it began.
    pub(crate) stamp: u64,
    serializer: &'a Z,
    options: &'a CallOptions<H, L, P>,
    /// The backend did not respond in time. The rest of the call does without it.
    has_timed_out: AtomicBool,
}

/// The call of a policy that chooses its serializer by `Z`.
pub(crate) type CallOf<'a, B, S, H, Z, L, P> =
    Call<'a, B, S, H, <Z as Choice<S>>::Serializer, L, P>;

impl<'a, B, S, H, Z, L, P> Call<'a, B, S, H, Z, L, P>
where
    B: Backend,
    H: Copy,
{
    #[inline]
    pub(crate) fn new<K, C: Choice<S, Serializer = Z>, G>(
        cache: &'a Cache<B, S>,
        policy: &'a Policy<K, H, C, L, P, G>,
        key: &'a Key,
        stamp: u64,
    ) -> Self {
        let serializer = policy.serializer.choose(cache.serializer());
        let has_timed_out = AtomicBool::new(false);
        Self { cache, key, stamp, serializer, options: &policy.options, has_timed_out }
    }

    /// The call whose stamp cannot be known: it finds nothing and stores nothing, and computes for
    /// others like it.
    #[cold]
    pub(crate) fn that_cannot_store<K, C: Choice<S, Serializer = Z>, G>(
        cache: &'a Cache<B, S>,
        policy: &'a Policy<K, H, C, L, P, G>,
        key: &'a Key,
        error: &Error,
    ) -> Self {
        let call = Self::new(cache, policy, key, UNKNOWN);
        call.fault(error);
        call
    }

    /// Whether what this call finds and stores can be believed.
    #[inline]
    pub(crate) fn can_store(&self) -> bool {
        self.stamp != UNKNOWN
    }

    /// Whether the caller wants a new value, whatever there is. It is asked once.
    #[inline]
    pub(crate) fn is_asked_to_refresh(&self) -> bool {
        self.options.has_handle && forced_refresh::is_granted(self.key)
    }

    /// The record to store for an answer that took so long and was there at `created`, or nothing if
    /// it is not to be stored.
    pub(crate) fn encode_record<R>(
        &self,
        answer: &R,
        compute_time: Duration,
        created: Timestamp,
    ) -> Option<Record<B::Stored>>
    where
        H: OutputShape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
        P: CacheIf<H::Value>,
    {
        let value = self.options.shape.value(answer)?;
        if let Some(unsupported) = self.options.shape.unsupported() {
            self.fault(&unsupported);
            return None;
        }
        let sealed = catch_panic("store value", || {
            self.declare::<H::Value>();
            if !self.options.keep.should_cache(value) {
                return Ok(None);
            }
            let ttl = self.options.ttl.for_value(value);
            if ttl.is_zero() {
                return Err(Error::new(ErrorKind::Configuration, "the ttl of this value is zero"));
            }
            let stored = self.serializer.serialize(value)?;
            let lasts = self.options.jitter.apply(ttl, || self.key.random(created));
            let expires = created.saturating_add(lasts);
            let record = Record::new(stored, created, expires)
                .with_stale_until(expires.saturating_add(self.options.stale))
                .with_schema(self.schema())
                .with_serializer(self.serializer.id())
                .with_compute_time(compute_time);
            Ok(Some(record))
        });
        sealed.unwrap_or_else(|error| {
            self.fault(&error);
            None
        })
    }

    /// Lets the cache know what the entries of this function depend on, for those who reach them by a key
    /// that was made by hand.
    #[cold]
    pub(crate) fn declare<T>(&self)
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        if !self.options.is_by_key {
            self.ok_or_count(catch_panic("declare entries", || {
                self.cache.declarations().declare(self.key.prefix(), self.declaration());
                Ok(())
            }));
        }
    }

    pub(crate) fn declaration<T>(&self) -> Declaration
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        Declaration::new(
            self.key,
            self.options.flags,
            self.serializer.id(),
            self.serializer.schema(),
        )
    }

    #[inline]
    fn schema<T>(&self) -> u64
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        self.serializer.schema().wrapping_add(self.options.flags.to_bits()).wrapping_add(self.stamp)
    }

    /// Whether a record that was found before storing is newer than what was computed from
    /// `started` on.
    pub(crate) fn is_newer(&self, record: Record<B::Stored>, started: Timestamp) -> bool {
        let (created, expires) = (record.created(), record.expires());
        drop_quietly(record);
        is_fresh(created, expires, self.cache.now()) && created >= started
    }

    /// The backend was given the value.
    pub(crate) fn record_write(&self, result: Result<()>) {
        if self.ok_or_count(result).is_some() {
            self.cache.count_store(self.key.prefix());
        }
    }

    /// The function is about to run, and there is nothing else to answer.
    pub(crate) fn count_miss(&self) {
        self.cache.counters().miss();
    }

    /// Whether a value past its ttl is to be refreshed by this caller now, as far as the attempts of
    /// the past say. This is one: if it never ends, because its caller is dropped, others have a
    /// pause from it all the same.
    pub(crate) fn begins_refresh(&self) -> bool {
        self.cache.setbacks().begin(self.key, self.cache.now())
    }

    /// There is nothing to refresh any more.
    pub(crate) fn ends_refresh(&self) {
        self.cache.setbacks().forget(self.key);
    }

    /// The answer for a caller who does not wait for a new value.
    pub(crate) fn serve_stale<R>(&self, old: StaleValue<R>) -> R {
        self.cache.counters().stale();
        self.emit(CallOutcome::Stale, Some(old.age), old.compute_time);
        old.answer
    }

    /// Notes what a hedge took that began as number `hedges` of its flight and at `began`, unless it was
    /// hedged itself.
    pub(crate) fn record_hedge(
        &self,
        flight: &Flight<Record<B::Stored>>,
        hedges: u32,
        began: Timestamp,
    ) {
        if flight.hedges.get() == hedges {
            let time = self.cache.now().saturating_since(began);
            self.cache.flights().hedge_times().record(self.key.prefix(), time);
        }
    }

    /// Returns whether an output is a value, not a failure.
    pub(crate) fn has_value<R>(&self, output: &R) -> bool
    where
        H: OutputShape<R>,
    {
        self.options.shape.value(output).is_some()
    }

    /// The answer of a caller whose run of the function ended with `new`: that, unless it is a
    /// failure and there is an old value to serve in its place.
    pub(crate) fn conclude<R>(&self, new: R, compute_time: Duration, reason: ComputeReason<R>) -> R
    where
        H: OutputShape<R>,
    {
        let has_value = self.has_value(&new);
        match reason {
            ComputeReason::Miss => self.emit(CallOutcome::Miss, None, compute_time),
            ComputeReason::Expired(old) if !has_value && self.cache.now() < old.end => {
                drop_quietly(new);
                return self.serve_after_failure(*old);
            }
            reason => {
                match reason {
                    _ if has_value => self.ends_refresh(),
                    ComputeReason::Forced => {}
                    _ => self.note_failure(),
                }
                self.cache.counters().refresh();
                self.emit(CallOutcome::Refresh, None, compute_time);
            }
        }
        new
    }

    fn serve_after_failure<R>(&self, old: StaleValue<R>) -> R {
        self.note_failure();
        self.serve_stale(old)
    }

    /// The function failed while there was a value past its ttl.
    fn note_failure(&self) {
        self.cache.setbacks().note(self.key, self.cache.now());
        self.cache.count_failed_refresh(self.key.prefix());
        let error =
            Error::new(ErrorKind::Miss, "refresh a value past its ttl: the function failed");
        self.cache.warn(self.key.prefix(), &error, self.options.is_quiet);
    }

    /// What a backend answered, with a fault taken as nothing.
    pub(crate) fn ok_or_count<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.fault(&error)).ok()
    }

    /// Whether an operation of this call has timed out.
    pub(crate) fn has_timed_out(&self) -> bool {
        self.has_timed_out.load(Ordering::Relaxed)
    }

    /// An operation of this call has timed out.
    pub(crate) fn times_out(&self) {
        self.has_timed_out.store(true, Ordering::Relaxed);
    }

    /// What the backend has, after an operation of this call has timed out.
    pub(crate) fn read_offline(&self) -> Option<Record<B::Stored>> {
        let offline = self.cache.backend().sharing().offline?;
        self.ok_or_count(catch_panic("read entry", || offline.read(self.key))).flatten()
    }

    /// Stores a record, after an operation of this call has timed out.
    pub(crate) fn write_offline(&self, record: Record<B::Stored>) {
        match self.cache.backend().sharing().offline {
            Some(offline) => {
                self.record_write(catch_panic("write entry", || offline.write(self.key, record)));
            }
            None => drop_quietly(record),
        }
    }

    #[cold]
    fn fault(&self, error: &Error) {
        if error.kind() == ErrorKind::Timeout {
            self.times_out();
        }
        self.cache.fault(self.key.prefix(), error, self.options.is_quiet);
    }

    #[cold]
    pub(crate) fn emit(&self, outcome: CallOutcome, age: Option<Duration>, compute_time: Duration) {
        self.cache.emit(self.key.prefix(), outcome, age, compute_time, self.options.is_quiet);
    }
}
