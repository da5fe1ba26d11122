//! One cached call: what is asked of it, and what is decided about it.
//!
//! Everything here is the same for sync and async callers. The two drivers differ in how they
//! wait and in which methods of the backend they call.

pub(crate) mod blocking;
pub(crate) mod future;
mod policy;
#[cfg(all(test, vayu_shuttle))]
mod shuttle_tests;
#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests;

pub(crate) use self::policy::Whole;
pub use self::policy::{Always, CallKey, Fallible, Keep, KeepIf, Policy, Shape, Ttl, TtlBy};
use crate::backend::Backend;
use crate::cache::Cache;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::{is_fresh, is_young};
use crate::guard::{discard, guarded};
use crate::key::Key;
use crate::record::Record;
use crate::report::{self, Answer};
use crate::serializer::Serializer;

/// A backend that cannot answer without blocking.
pub(crate) struct Blocking;

/// One call under way: its cache, its policy and its key. The decisions are made here.
pub(crate) struct Call<'a, B: Backend, S, H, Z, L, P> {
    pub(crate) cache: &'a Cache<B, S>,
    pub(crate) key: &'a Key,
    shape: H,
    serializer: &'a Z,
    ttl: &'a L,
    keep: &'a P,
    version: u64,
    is_quiet: bool,
}

impl<'a, B, S, H, Z, L, P> Call<'a, B, S, H, Z, L, P>
where
    B: Backend,
    H: Copy,
{
    /// The call, or nothing if it is to run without the cache.
    #[inline]
    pub(crate) fn new<K: CallKey>(
        cache: &'a Cache<B, S>,
        policy: &'a Policy<'_, K, H, Z, L, P>,
    ) -> Option<Self> {
        let key = policy.key.key();
        if let Ok(key) = key
            && !cache.is_paused()
        {
            return Some(Self {
                cache,
                key,
                shape: policy.shape,
                serializer: policy.serializer,
                ttl: &policy.ttl,
                keep: &policy.keep,
                version: policy.version,
                is_quiet: policy.is_quiet,
            });
        }
        let (prefix, error) = match key {
            Ok(key) => (key.prefix(), None),
            Err(no_key) => (&no_key.prefix, Some(&no_key.error)),
        };
        cache.without(prefix, error, policy.is_quiet);
        None
    }

    /// The answer that is there without blocking, if the backend can say that: `Err` if it cannot.
    #[inline]
    pub(crate) fn serve_now<R>(&self) -> Result<Option<R>, Blocking>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let mut can_say = true;
        let answer = guarded("read entry", || match self.cache.backend().read_now(self.key) {
            Some(Ok(Some(record))) => self.open(record),
            Some(Ok(None)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => {
                can_say = false;
                Ok(None)
            }
        });
        match answer {
            Ok(answer) if can_say => Ok(answer),
            Ok(_) => Err(Blocking),
            Err(error) => {
                self.fault(&error);
                Ok(None)
            }
        }
    }

    /// The answer that a record holds, if it may be served.
    #[inline]
    pub(crate) fn serve<R>(&self, record: Record<B::Stored>) -> Option<R>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        self.survive(guarded("decode value", || self.open(record))).flatten()
    }

    /// Runs code of the backend, the serializer, the ttl and, where the record is the last to hold
    /// it, the destructor of the value: only for [`guarded`].
    #[inline]
    fn open<R>(&self, record: Record<B::Stored>) -> Result<Option<R>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
    {
        let now = self.cache.now();
        let (created, expires) = (record.created(), record.expires());
        let is_servable = is_fresh(created, expires, now)
            && self.ttl.of_all().is_none_or(|ttl| is_young(created, ttl, now))
            && record.schema() == self.schema()
            && record.serializer() == self.serializer.id();
        if !is_servable {
            return Ok(None);
        }
        let value = self.serializer.deserialize(record.value())?;
        // A closure may have changed since the value was stored.
        if self.ttl.of_all().is_none() && !is_young(created, self.ttl.of(&value), now) {
            return Ok(None);
        }
        drop(record);
        self.cache.counters().hit();
        self.tell(Answer::Hit { age: now.saturating_since(created) });
        Ok(Some(self.shape.wrap(value)))
    }

    /// The answer that another caller has just computed, whatever its age.
    pub(crate) fn share<R>(&self, record: &Record<B::Stored>) -> Option<R>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
    {
        let decoded = guarded("decode value", || {
            if record.schema() != self.schema() || record.serializer() != self.serializer.id() {
                return Ok(None);
            }
            self.serializer.deserialize(record.value()).map(Some)
        });
        let value = self.survive(decoded).flatten()?;
        self.cache.counters().wait();
        self.tell(Answer::Waited);
        Some(self.shape.wrap(value))
    }

    /// The record to store for an answer, or nothing if it is not to be stored.
    pub(crate) fn seal<R>(&self, answer: &R) -> Option<Record<B::Stored>>
    where
        H: Shape<R>,
        Z: Serializer<H::Value, Stored = B::Stored>,
        L: Ttl<H::Value>,
        P: Keep<H::Value>,
    {
        let value = self.shape.value(answer)?;
        if let Some(obstacle) = self.shape.obstacle() {
            self.fault(&obstacle);
            return None;
        }
        let sealed = guarded("store value", || {
            if !self.keep.keeps(value) {
                return Ok(None);
            }
            let ttl = self.ttl.of(value);
            if ttl.is_zero() {
                return Err(Error::new(ErrorKind::Configuration, "the ttl of this value is zero"));
            }
            let stored = self.serializer.serialize(value)?;
            let created = self.cache.now();
            let record = Record::new(stored, created, created.saturating_add(ttl))
                .with_schema(self.schema())
                .with_serializer(self.serializer.id());
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
        self.serializer.schema().wrapping_add(self.version)
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
            self.cache.counters().store();
        }
    }

    /// The function is about to run.
    pub(crate) fn computes(&self) {
        self.cache.counters().miss();
    }

    /// What a backend answered, with a fault taken as nothing.
    pub(crate) fn survive<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.fault(&error)).ok()
    }

    #[cold]
    fn fault(&self, error: &Error) {
        self.cache.fault(self.key.prefix(), error, self.is_quiet);
    }

    #[inline]
    pub(crate) fn tell(&self, answer: Answer) {
        if !self.is_quiet {
            report::answered(self.key.prefix(), answer);
        }
    }
}
