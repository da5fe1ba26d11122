//! One cached call: what is asked of it, and what is decided about it.
//!
//! Everything here is the same for sync and async callers. The two drivers differ in how they
//! wait and in which methods of the backend they call.

pub(crate) mod begin;
pub(crate) mod behind;
pub(crate) mod blocking;
pub(crate) mod future;
mod policy;
#[cfg(all(test, vayu_shuttle))]
mod shuttle_tests;
#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests;
pub(crate) mod wish;

use self::policy::Terms;
pub(crate) use self::policy::Whole;
pub use self::policy::{
    Always, CallKey, Choice, Fallible, Keep, KeepIf, OfCache, Own, Policy, Shape, Ttl, TtlBy,
};
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::clock::Timestamp;
use crate::entry::Remembered;
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::{is_fresh, is_stale, is_young};
use crate::guard::{discard, discard_from, guarded};
use crate::key::Key;
use crate::observer::CallOutcome;
use crate::record::Record;
use crate::serializer::Serializer;
use crate::took::Took;

/// The stamp of calls whose stamp cannot be known.
const UNKNOWN: u64 = u64::MAX;

/// A backend that cannot answer without blocking.
pub(crate) struct Blocking;

/// What a record holds for a call.
pub(crate) enum Found<R> {
    Fresh(R),
    /// Past its ttl, but to be served while it is refreshed.
    Stale(Box<Old<R>>),
    Nothing,
}

/// What was found in a record, and what is told of it.
struct Opened<R> {
    found: Found<R>,
    now: Timestamp,
    created: Timestamp,
    took: Took,
}

impl<R> Opened<R> {
    const NOTHING: Self = Self {
        found: Found::Nothing,
        now: Timestamp::NEVER,
        created: Timestamp::NEVER,
        took: Took::ZERO,
    };
}

/// A value past its ttl.
#[derive(Debug)]
pub struct Old<R> {
    answer: R,
    age: Duration,
    took: Duration,
    /// The first instant at which it may not be served any more.
    end: Timestamp,
}

/// Why a caller runs the function.
pub(crate) enum Reason<R> {
    /// There is nothing to answer.
    Missing,
    /// There is a value past its ttl.
    Outdated(Box<Old<R>>),
    /// The caller wants a new value, whatever there is.
    Asked,
    /// The caller was answered with a value past its ttl. Nobody waits for this run.
    Behind,
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
        Err(no_key) => (no_key.prefix, Some(no_key.error)),
    };
    cache.without(prefix, error, policy.is_quiet());
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
    terms: &'a Terms<H, L, P>,
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
        Self { cache, key, stamp, serializer, terms: &policy.terms }
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
        self.terms.has_handle && wish::is_granted(self.key)
    }

    /// Whether it is worth to [`glance`](Self::glance).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn can_glance<T>(&self) -> bool
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        self.serializer.fits_in_words()
    }

    /// The answer that is there with less than a lock, if there is one. It is a number or the like, so
    /// no code of others runs.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn glance<R>(&self) -> Option<R>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        self.terms.ttl.of_all()?;
        let mut record = self.cache.backend().glance(self.key)?;
        let now = self.cache.now();
        if !self.is_fresh::<R>(&record, now) || !self.is_of_this_call(&record) {
            return None;
        }
        let answer = self.terms.shape.wrap(self.serializer.take(record.value_mut()).ok()?);
        self.count_hit(now, record.created(), record.brief_took());
        Some(answer)
    }

    /// The answer that is there without blocking, if the backend can say that: `Err` if it cannot.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn serve_now<R>(&self) -> Result<Found<R>, Blocking>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let backend = self.cache.backend();
        let mut can_say = true;
        // Without a guard the compiler sees the whole path, and makes half of what it would have made.
        let is_ours = backend.is_in_process()
            && self.serializer.never_panics()
            && self.terms.ttl.of_all().is_some();
        let opened = if is_ours {
            self.read_now(&mut can_say)
        } else {
            guarded("read entry", || self.read_now(&mut can_say))
        };
        match opened {
            Ok(opened) if can_say => Ok(self.count(opened)),
            Ok(_) => Err(Blocking),
            Err(error) => {
                self.fault(&error);
                Ok(Found::Nothing)
            }
        }
    }

    /// What the backend has at once, and whether it can say that.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_now<R>(&self, can_say: &mut bool) -> Result<Opened<R>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        // The record is looked at where it is: see `Material`.
        let mut read = self.cache.backend().read_now(self.key);
        if let Some(Ok(Some(record))) = &mut read {
            let opened = self.open(record);
            if !matches!(opened, Ok(Opened { found: Found::Fresh(_), .. })) {
                // It may be the last to hold a value of any type.
                discard_from(&mut read);
            }
            return opened;
        }
        *can_say = read.is_some();
        read.unwrap_or(Ok(None)).map(|_| Opened::NOTHING)
    }

    /// What a record holds for this call.
    pub(crate) fn look_at<R>(&self, mut record: Record<B::Stored>) -> Found<R>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let opened = guarded("decode value", move || self.open(&mut record));
        self.survive(opened).map_or(Found::Nothing, |opened| self.count(opened))
    }

    /// The answer that a record holds, if it is fresh.
    pub(crate) fn serve<R>(&self, record: Record<B::Stored>) -> Option<R>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        match self.look_at(record) {
            Found::Fresh(answer) => Some(answer),
            Found::Stale(_) | Found::Nothing => None,
        }
    }

    /// Runs code of the serializer and the ttl: only for [`guarded`], in which the record is also to
    /// be dropped, as it may be the last to hold the value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn open<R>(&self, record: &mut Record<B::Stored>) -> Result<Opened<R>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let now = self.cache.now();
        let found = self.examine(record, now)?;
        Ok(Opened { found, now, created: record.created(), took: record.brief_took() })
    }

    /// Counts a hit, if it is one.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn count<R>(&self, opened: Opened<R>) -> Found<R> {
        let Opened { found, now, created, took } = opened;
        if let Found::Fresh(_) = found {
            self.count_hit(now, created, took);
        }
        found
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn count_hit(&self, now: Timestamp, created: Timestamp, took: Took) {
        self.cache.counters().hit();
        if self.cache.is_watched(self.terms.is_quiet) {
            self.tell(CallOutcome::Hit, Some(now.saturating_since(created)), took.time());
        }
    }

    /// Whether a record is fresh, as far as that can be said without its value.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn is_fresh<R>(&self, record: &Record<B::Stored>, now: Timestamp) -> bool
    where
        H: Shape<R>,
        L: Ttl<H::Value>,
    {
        is_fresh(record.created(), record.expires(), now)
            && self.terms.ttl.of_all().is_none_or(|ttl| is_young(record.created(), ttl, now))
    }

    /// Whether a record is of this version of this function, and of nothing that was invalidated.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn is_of_this_call<T>(&self, record: &Record<B::Stored>) -> bool
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        record.schema() == self.schema() && record.serializer() == self.serializer.id()
    }

    /// What a record holds, which is taken out of it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn examine<R>(&self, record: &mut Record<B::Stored>, now: Timestamp) -> Result<Found<R>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let may_be_fresh = self.is_fresh::<R>(record, now);
        if !may_be_fresh && self.terms.stale.is_zero() {
            return Ok(Found::Nothing);
        }
        if !self.is_of_this_call(record) {
            return Ok(Found::Nothing);
        }
        if !may_be_fresh {
            return self.open_stale(record, now);
        }
        let value = if self.terms.ttl.of_all().is_some() {
            self.serializer.take(record.value_mut())?
        } else {
            let value = self.serializer.deserialize(record.value())?;
            // A closure may have changed since the value was stored.
            if !is_young(record.created(), self.terms.ttl.of(&value), now) {
                return self.open_stale(record, now);
            }
            value
        };
        Ok(Found::Fresh(self.terms.shape.wrap(value)))
    }

    /// What [`examine`](Self::examine) answers for a record that is not fresh.
    #[cold]
    fn open_stale<R>(&self, record: &Record<B::Stored>, now: Timestamp) -> Result<Found<R>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let (created, end) = (record.created(), record.stale_until());
        if self.terms.stale.is_zero() || !is_fresh(created, end, now) {
            return Ok(Found::Nothing);
        }
        let value = self.serializer.deserialize(record.value())?;
        let ttl = self.terms.ttl.of(&value);
        if !is_stale(created, end, ttl, self.terms.stale, now) {
            return Ok(Found::Nothing);
        }
        let longest = ttl.saturating_add(self.terms.stale);
        let end = end.min(created.saturating_add(longest));
        let age = now.saturating_since(created);
        let answer = self.terms.shape.wrap(value);
        Ok(Found::Stale(Box::new(Old { answer, age, took: record.took(), end })))
    }

    /// What a record holds for an entry of this call. Nothing is counted.
    pub(crate) fn recall<R>(&self, mut record: Record<B::Stored>) -> Option<Remembered<R>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let now = self.cache.now();
        let (created, expires) = (record.created(), record.expires());
        let recalled = guarded("decode value", move || {
            let answer = match self.examine(&mut record, now)? {
                Found::Fresh(answer) => answer,
                Found::Stale(old) => old.answer,
                Found::Nothing => return Ok(None),
            };
            let ttl = self
                .terms
                .shape
                .value(&answer)
                .map_or(Duration::ZERO, |value| self.terms.ttl.of(value));
            let fresh_until = expires.min(created.saturating_add(ttl));
            Ok(Some(Remembered {
                answer,
                age: now.saturating_since(created),
                ttl_left: fresh_until.saturating_since(now),
            }))
        });
        self.survive(recalled).flatten()
    }

    /// The answer that another caller has just computed, whatever its age.
    pub(crate) fn share<R>(&self, record: &Record<B::Stored>) -> Option<R>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
    {
        let decoded = guarded("decode value", || {
            if !self.is_of_this_call(record) {
                return Ok(None);
            }
            self.serializer.deserialize(record.value()).map(Some)
        });
        let value = self.survive(decoded).flatten()?;
        self.cache.counters().wait();
        self.tell(CallOutcome::Wait, None, record.took());
        Some(self.terms.shape.wrap(value))
    }

    /// The record to store for an answer that took so long and was there at `created`, or nothing if
    /// it is not to be stored.
    pub(crate) fn seal<R>(
        &self,
        answer: &R,
        took: Duration,
        created: Timestamp,
    ) -> Option<Record<B::Stored>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
        P: Keep<H::Value>,
    {
        let value = self.terms.shape.value(answer)?;
        if let Some(obstacle) = self.terms.shape.obstacle() {
            self.fault(&obstacle);
            return None;
        }
        let sealed = guarded("store value", || {
            if !self.terms.keep.keeps(value) {
                return Ok(None);
            }
            let ttl = self.terms.ttl.of(value);
            if ttl.is_zero() {
                return Err(Error::new(ErrorKind::Configuration, "the ttl of this value is zero"));
            }
            let stored = self.serializer.serialize(value)?;
            let lasts = self.terms.jitter.apply(ttl, || self.key.random(created));
            let expires = created.saturating_add(lasts);
            let record = Record::new(stored, created, expires)
                .with_stale_until(expires.saturating_add(self.terms.stale))
                .with_schema(self.schema())
                .with_serializer(self.serializer.id())
                .with_took(took);
            Ok(Some(record))
        });
        sealed.unwrap_or_else(|error| {
            self.fault(&error);
            None
        })
    }

    #[inline]
    fn schema<T>(&self) -> u64
    where
        Z: Serializer<T, Stored = B::Stored>,
    {
        self.serializer.schema().wrapping_add(self.terms.version).wrapping_add(self.stamp)
    }

    /// Whether a record that was found before storing is newer than what was computed from
    /// `started` on.
    pub(crate) fn is_newer(&self, record: Record<B::Stored>, started: Timestamp) -> bool {
        let (created, expires) = (record.created(), record.expires());
        discard(record);
        is_fresh(created, expires, self.cache.now()) && created >= started
    }

    /// The backend was given the value.
    pub(crate) fn stored(&self, result: Result<()>) {
        if self.survive(result).is_some() {
            self.cache.count_store(self.key.prefix());
        }
    }

    /// The function is about to run, and there is nothing else to answer.
    pub(crate) fn computes(&self) {
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
    pub(crate) fn serve_stale<R>(&self, old: Old<R>) -> R {
        self.cache.counters().stale();
        self.tell(CallOutcome::Stale, Some(old.age), old.took);
        old.answer
    }

    /// The answer of a caller whose run of the function ended with `new`: that, unless it is a
    /// failure and there is an old value to serve in its place.
    pub(crate) fn conclude<R>(&self, new: R, took: Duration, reason: Reason<R>) -> R
    where
        H: Shape<R>,
    {
        let has_value = self.terms.shape.value(&new).is_some();
        match reason {
            Reason::Missing => self.tell(CallOutcome::Miss, None, took),
            Reason::Outdated(old) if !has_value && self.cache.now() < old.end => {
                discard(new);
                return self.serve_after_failure(*old);
            }
            reason => {
                match reason {
                    _ if has_value => self.ends_refresh(),
                    Reason::Asked => {}
                    _ => self.note_failure(),
                }
                self.cache.counters().refresh();
                self.tell(CallOutcome::Refresh, None, took);
            }
        }
        new
    }

    fn serve_after_failure<R>(&self, old: Old<R>) -> R {
        self.note_failure();
        self.serve_stale(old)
    }

    /// The function failed while there was a value past its ttl.
    fn note_failure(&self) {
        self.cache.setbacks().note(self.key, self.cache.now());
        self.cache.count_failed_refresh(self.key.prefix());
        let error =
            Error::new(ErrorKind::Miss, "refresh a value past its ttl: the function failed");
        self.cache.warn(self.key.prefix(), &error, self.terms.is_quiet);
    }

    /// What a backend answered, with a fault taken as nothing.
    pub(crate) fn survive<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.fault(&error)).ok()
    }

    #[cold]
    fn fault(&self, error: &Error) {
        self.cache.fault(self.key.prefix(), error, self.terms.is_quiet);
    }

    #[cold]
    pub(crate) fn tell(&self, outcome: CallOutcome, age: Option<Duration>, took: Duration) {
        self.cache.tell(self.key.prefix(), outcome, age, took, self.terms.is_quiet);
    }
}
