//! What a call is to do, and the types that say so at compile time.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::generation::Group;
use crate::key::{Key, KeyBuilder, KeyError};
use crate::validity::SchemaFlags;

/// What a call is to do: everything but the function itself.
#[derive(Debug)]
pub struct Policy<K, H, Z, L, P, G = [Group; 0]> {
    pub(crate) key: K,
    pub(crate) tags: G,
    pub(super) serializer: Z,
    pub(super) options: CallOptions<H, L, P>,
}

/// What holds for every call of a function.
#[derive(Debug)]
pub(crate) struct CallOptions<H, L, P> {
    pub(super) shape: H,
    pub(super) ttl: L,
    pub(super) keep: P,
    pub(super) flags: SchemaFlags,
    pub(super) is_by_key: bool,
    pub(super) stale: Duration,
    pub(super) jitter: Jitter,
    pub(super) has_handle: bool,
    pub(super) is_quiet: bool,
}

impl<K, H, Z, L, P> Policy<K, H, Z, L, P> {
    /// A call of this key whose answer has this shape.
    #[inline]
    pub fn new(key: K, shape: H, serializer: Z, ttl: L, keep: P) -> Self {
        let options = CallOptions {
            shape,
            ttl,
            keep,
            flags: SchemaFlags::default(),
            is_by_key: false,
            stale: Duration::ZERO,
            jitter: Jitter::NONE,
            has_handle: false,
            is_quiet: false,
        };
        Self { key, tags: [], serializer, options }
    }

    /// With the tags of the entry.
    #[inline]
    pub fn tags<const N: usize>(self, tags: [Group; N]) -> Policy<K, H, Z, L, P, [Group; N]> {
        let Self { key, serializer, mut options, .. } = self;
        options.flags = options.flags.with(SchemaFlags::TAGS);
        Policy { key, tags, serializer, options }
    }

    /// Of a caller that has a key made by hand: with the tags that it carries.
    #[inline]
    pub(crate) fn by_key(self, key: &Key) -> Policy<K, H, Z, L, P, &[Group]> {
        let Self { key: own, serializer, mut options, .. } = self;
        options.flags = SchemaFlags::of_key(key);
        options.is_by_key = true;
        Policy { key: own, tags: key.tags(), serializer, options }
    }
}

impl<K, H, Z, L, P, G> Policy<K, H, Z, L, P, G> {
    /// Of a function that names a serializer of its own.
    #[inline]
    #[must_use]
    pub fn with_own_serializer(mut self) -> Self {
        self.options.flags = self.options.flags.with(SchemaFlags::SERIALIZER);
        self
    }

    /// With a time past its ttl in which a value may be served while it is refreshed.
    #[inline]
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> Self {
        self.options.stale = stale;
        self
    }

    /// With up to so many thousandths of the ttl taken off at random.
    #[inline]
    #[must_use]
    pub fn jitter(mut self, thousandths: u16) -> Self {
        self.options.jitter = Jitter(thousandths);
        self
    }

    /// Of a function whose entries have handles: these may ask the call to run the function.
    #[inline]
    #[must_use]
    pub fn with_handle(mut self) -> Self {
        self.options.has_handle = true;
        self
    }

    /// Without events.
    #[inline]
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.options.is_quiet = true;
        self
    }

    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.options.is_quiet
    }
}

/// How much of a ttl is taken off at random, at most, in thousandths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jitter(u16);

impl Jitter {
    const NONE: Self = Self(0);

    /// The ttl of one entry. `random` answers any number.
    pub(super) fn apply(self, ttl: Duration, random: impl FnOnce() -> u64) -> Duration {
        if self.0 == 0 || ttl == Duration::MAX {
            return ttl;
        }
        let most = ttl / 1000 * u32::from(self.0.min(1000));
        let random = u32::try_from(random() >> 32).expect("32 bits");
        ttl.saturating_sub(most.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }
}

/// The key of a call, or why there is none.
pub trait CallKey {
    /// The key.
    ///
    /// # Errors
    ///
    /// When the arguments could not be encoded.
    fn key(&self) -> Result<&Key, KeyError<'_>>;
}

impl CallKey for KeyBuilder {
    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        self.key()
    }
}

impl CallKey for Key {
    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        Ok(self)
    }
}

impl<K: CallKey> CallKey for &K {
    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        (**self).key()
    }
}

/// What a function answers: a value, or a value or an error.
pub trait OutputShape<R>: Copy {
    /// What is stored of an answer.
    type Value;

    /// The part of an answer that can be stored.
    fn value(self, answer: &R) -> Option<&Self::Value>;

    /// The answer that a stored value stands for.
    fn wrap(self, value: Self::Value) -> R;

    /// Why no answer of this type can be stored, if that is so.
    #[inline]
    fn unsupported(self) -> Option<Error> {
        None
    }
}

/// The answer is the value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainOutput;

impl<T> OutputShape<T> for PlainOutput {
    type Value = T;

    #[inline]
    fn value(self, answer: &T) -> Option<&T> {
        Some(answer)
    }

    #[inline]
    fn wrap(self, value: T) -> T {
        value
    }
}

/// The answer is a `Result`, and `Ok` holds the value.
#[derive(Debug, Clone, Copy)]
pub struct ResultOutput;

impl<T, E> OutputShape<Result<T, E>> for ResultOutput {
    type Value = T;

    #[inline]
    fn value(self, answer: &Result<T, E>) -> Option<&T> {
        answer.as_ref().ok()
    }

    #[inline]
    fn wrap(self, value: T) -> Result<T, E> {
        Ok(value)
    }
}

/// How long a value is fresh.
pub trait Ttl<T> {
    /// The ttl, if it is the same for every value.
    fn fixed(&self) -> Option<Duration>;

    /// That ttl in microseconds, rounded up.
    #[inline]
    fn fixed_micros(&self) -> Option<u64> {
        self.fixed().map(Timestamp::micros_of)
    }

    /// The ttl of one value.
    fn for_value(&self, value: &T) -> Duration;
}

impl<T> Ttl<T> for Duration {
    #[inline]
    fn fixed(&self) -> Option<Duration> {
        Some(*self)
    }

    #[inline]
    fn for_value(&self, _: &T) -> Duration {
        *self
    }
}

/// A ttl for every value, of which the compiler may know how many microseconds it is. It would not
/// know that on the path of a hit.
#[derive(Debug, Clone, Copy)]
pub struct FixedTtl {
    ttl: Duration,
    micros: u64,
}

impl FixedTtl {
    #[inline]
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, micros: Timestamp::micros_of(ttl) }
    }
}

impl<T> Ttl<T> for FixedTtl {
    #[inline]
    fn fixed(&self) -> Option<Duration> {
        Some(self.ttl)
    }

    #[inline]
    fn fixed_micros(&self) -> Option<u64> {
        Some(self.micros)
    }

    #[inline]
    fn for_value(&self, _: &T) -> Duration {
        self.ttl
    }
}

impl<T, L: Ttl<T>> Ttl<T> for &L {
    #[inline]
    fn fixed(&self) -> Option<Duration> {
        (**self).fixed()
    }

    #[inline]
    fn fixed_micros(&self) -> Option<u64> {
        (**self).fixed_micros()
    }

    #[inline]
    fn for_value(&self, value: &T) -> Duration {
        (**self).for_value(value)
    }
}

/// A ttl that depends on the value.
#[derive(Debug, Clone, Copy)]
pub struct TtlFn<F>(pub(crate) F);

impl<T, F: Fn(&T) -> Duration> Ttl<T> for TtlFn<F> {
    #[inline]
    fn fixed(&self) -> Option<Duration> {
        None
    }

    #[inline]
    fn for_value(&self, value: &T) -> Duration {
        (self.0)(value)
    }
}

/// Which values are stored.
pub trait CacheIf<T> {
    /// Whether this one is.
    fn should_cache(&self, value: &T) -> bool;
}

/// All values are stored.
#[derive(Debug, Clone, Copy)]
pub struct Always;

impl<T> CacheIf<T> for Always {
    #[inline]
    fn should_cache(&self, _: &T) -> bool {
        true
    }
}

/// Values for which a predicate holds are stored.
#[derive(Debug, Clone, Copy)]
pub struct Predicate<F>(pub(crate) F);

impl<T, F: Fn(&T) -> bool> CacheIf<T> for Predicate<F> {
    #[inline]
    fn should_cache(&self, value: &T) -> bool {
        (self.0)(value)
    }
}

/// Which serializer a call uses, seen from the serializer of its cache.
pub trait Choice<S> {
    /// The type of the serializer.
    type Serializer;

    /// The serializer.
    fn choose<'a>(&'a self, of_cache: &'a S) -> &'a Self::Serializer;
}

/// That of the cache.
#[derive(Debug, Clone, Copy)]
pub struct OfCache;

impl<S> Choice<S> for OfCache {
    type Serializer = S;

    #[inline]
    fn choose<'a>(&'a self, of_cache: &'a S) -> &'a S {
        of_cache
    }
}

/// Another one.
#[derive(Debug, Clone, Copy)]
pub struct Own<Z>(pub Z);

impl<S, Z> Choice<S> for Own<Z> {
    type Serializer = Z;

    #[inline]
    fn choose<'a>(&'a self, _: &'a S) -> &'a Z {
        &self.0
    }
}

impl<S, Z> Choice<S> for &Z {
    type Serializer = Z;

    #[inline]
    fn choose<'a>(&'a self, _: &'a S) -> &'a Z {
        self
    }
}
