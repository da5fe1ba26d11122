//! The description of a call, resolved at compile time.

use std::marker::PhantomData;
use std::ops::Deref;

use crate::call::{CallOptions, FixedTtl, Idle, IdleTime, OutputShape, Retention};
use crate::error::Result;
use crate::generation::Group;
use crate::key::{CallKeyBuilder, Key, KeyBuilder, KeyError};
use crate::serializer::{Serializer, SerializerId, ValueClass};
use crate::validity::SchemaFlags;

/// The type that a function returns.
///
/// It does not depend on the serializer as [`CachedFn`] does: the future of a call holds outputs, and
/// whether it is `Send` must not depend on the lifetime bounds of a serializer.
pub trait FnOutput {
    /// The type that the function returns.
    type Output;
}

/// The properties of one call of a cached function that involve none of the types of the function.
///
/// Most of the course of a call is compiled once for all functions, and uses these alone.
pub trait FnProperties {
    /// The idle time, or `()`.
    type Idle: IdleTime;

    /// Returns the groups of the tags of the call.
    fn tags(&self) -> &[Group];

    /// Returns the id of the serializer.
    fn serializer_id(&self) -> SerializerId;

    /// Returns the stamp of the type of the value.
    fn type_stamp(&self) -> u64;

    /// Returns what may be assumed about the value.
    fn value_class(&self) -> ValueClass;

    /// Returns whether callers can share errors of the function.
    fn shares_errors(&self) -> bool;

    /// Returns the ttl, if all values have the same.
    fn fixed_ttl(&self) -> Option<FixedTtl>;

    /// Returns whether the ttl or the predicate is a closure, which may panic.
    fn has_closures(&self) -> bool;

    /// Returns whether errors are cached.
    fn caches_errors(&self) -> bool;

    /// Returns whether the function asks for the value that it replaces.
    fn keeps_previous(&self) -> bool;

    /// Returns the time after which a value that is not used expires.
    fn idle(&self) -> Self::Idle;

    /// Returns the options of the call.
    fn options(&self) -> &CallOptions;
}

/// The [`FnProperties`] of a call of any function.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
pub(crate) struct Properties<'a> {
    tags: &'a [Group],
    serializer_id: SerializerId,
    type_stamp: u64,
    value_class: ValueClass,
    shares_errors: bool,
    has_closures: bool,
    caches_errors: bool,
    keeps_previous: bool,
    fixed_ttl: Option<FixedTtl>,
    idle: Option<Idle>,
    options: &'a CallOptions,
}

impl<'a> Properties<'a> {
    /// Returns the properties of a call.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn of<F: FnProperties>(function: &'a F) -> Self {
        Self {
            tags: function.tags(),
            serializer_id: function.serializer_id(),
            type_stamp: function.type_stamp(),
            value_class: function.value_class(),
            shares_errors: function.shares_errors(),
            has_closures: function.has_closures(),
            caches_errors: function.caches_errors(),
            keeps_previous: function.keeps_previous(),
            fixed_ttl: function.fixed_ttl(),
            idle: function.idle().get(),
            options: function.options(),
        }
    }
}

impl FnProperties for Properties<'_> {
    type Idle = Option<Idle>;

    fn tags(&self) -> &[Group] {
        self.tags
    }

    fn serializer_id(&self) -> SerializerId {
        self.serializer_id
    }

    fn type_stamp(&self) -> u64 {
        self.type_stamp
    }

    fn value_class(&self) -> ValueClass {
        self.value_class
    }

    fn shares_errors(&self) -> bool {
        self.shares_errors
    }

    fn fixed_ttl(&self) -> Option<FixedTtl> {
        self.fixed_ttl
    }

    fn has_closures(&self) -> bool {
        self.has_closures
    }

    fn caches_errors(&self) -> bool {
        self.caches_errors
    }

    fn keeps_previous(&self) -> bool {
        self.keeps_previous
    }

    fn idle(&self) -> Option<Idle> {
        self.idle
    }

    fn options(&self) -> &CallOptions {
        self.options
    }
}

/// The description of one call of a cached function, without its body.
pub trait CachedFn: FnProperties + FnOutput {
    /// The part of an output that is cached.
    type Value;
    /// The shape of the outputs.
    type Shape: OutputShape<Output = Self::Output, Value = Self::Value>;
    /// The ttl of the values.
    type Retention: Retention<Self::Value>;
    /// The form in which the backend stores a value.
    type Stored;
    /// The serializer of the values.
    type Serializer: Serializer<Self::Value, Stored = Self::Stored>;

    /// The same description, which owns its key.
    type Moved: CachedFn<Stored = Self::Stored> + FnOutput<Output = Self::Output>;

    /// Moves the key from the variables of the call to the description, so that code outside of the hit path may take its
    /// address.
    fn moved(self) -> Self::Moved;

    /// Drops the key of a call that has ended without being moved.
    fn clear(&mut self);

    /// Returns the key of the call.
    ///
    /// # Errors
    ///
    /// When the arguments cannot be encoded.
    fn key(&self) -> Result<&Key, KeyError<'_>>;

    /// Returns the serializer.
    fn serializer(&self) -> &Self::Serializer;

    /// Returns the ttl of the values.
    fn retention(&self) -> &Self::Retention;
}

/// A [`CachedFn`] made of its parts: the key `K`, the shape of the output `H`, a pointer to the
/// serializer `Z`, and the ttl `L`.
#[derive(Debug)]
pub struct Policy<K, H, Z, L> {
    key: K,
    shape: PhantomData<fn() -> H>,
    serializer: Z,
    retention: L,
    pub(super) options: CallOptions,
}

impl<K, H, Z, L> Policy<K, H, Z, L> {
    /// Creates the description of a call with default options.
    #[inline]
    pub fn new(key: K, _shape: H, serializer: Z, retention: L) -> Self {
        Self { key, shape: PhantomData, serializer, retention, options: CallOptions::default() }
    }
}

impl<'a, H, Z, L> Policy<&'a Key, H, Z, L> {
    /// Creates the description of a call by a key made by hand, with the tags that the key carries.
    #[inline]
    pub(crate) fn by_key(key: &'a Key, shape: H, serializer: Z, retention: L) -> Self {
        let mut policy = Self::new(key, shape, serializer, retention);
        policy.options.flags = SchemaFlags::of_key(key);
        policy.options.is_by_key = true;
        policy
    }
}

impl<K, H: OutputShape, Z, L> FnOutput for Policy<K, H, Z, L> {
    type Output = H::Output;
}

impl<K, H, Z, L> FnProperties for Policy<K, H, Z, L>
where
    K: CallKey,
    H: OutputShape,
    Z: Deref<Target: Serializer<H::Value> + Sized>,
    L: Retention<H::Value>,
{
    type Idle = L::Idle;

    #[inline]
    fn tags(&self) -> &[Group] {
        self.key.tags()
    }

    #[inline]
    fn serializer_id(&self) -> SerializerId {
        self.serializer.id()
    }

    #[inline]
    fn type_stamp(&self) -> u64 {
        self.serializer.schema()
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn value_class(&self) -> ValueClass {
        self.serializer.value_class()
    }

    #[inline]
    fn shares_errors(&self) -> bool {
        H::shares_errors()
    }

    #[inline]
    fn fixed_ttl(&self) -> Option<FixedTtl> {
        self.retention.fixed_ttl()
    }

    #[inline]
    fn has_closures(&self) -> bool {
        self.retention.has_closures()
    }

    #[inline]
    fn caches_errors(&self) -> bool {
        self.retention.caches_errors()
    }

    #[inline]
    fn keeps_previous(&self) -> bool {
        self.retention.keeps_previous()
    }

    #[inline(always)]
    fn idle(&self) -> L::Idle {
        self.retention.idle()
    }

    #[inline]
    fn options(&self) -> &CallOptions {
        &self.options
    }
}

impl<K, H, Z, L> CachedFn for Policy<K, H, Z, L>
where
    K: CallKey,
    H: OutputShape,
    Z: Deref<Target: Serializer<H::Value> + Sized>,
    L: Retention<H::Value>,
{
    type Value = H::Value;
    type Shape = H;
    type Retention = L;
    type Stored = <Z::Target as Serializer<H::Value>>::Stored;
    type Serializer = Z::Target;
    type Moved = Policy<K::Moved, H, Z, L>;

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn moved(self) -> Self::Moved {
        let Self { key, shape, serializer, retention, options } = self;
        Policy { key: key.moved(), shape, serializer, retention, options }
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.key.clear();
    }

    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        self.key.key()
    }

    #[inline]
    fn serializer(&self) -> &Z::Target {
        &self.serializer
    }

    #[inline]
    fn retention(&self) -> &L {
        &self.retention
    }
}

/// The key of a call and its tags.
pub trait CallKey: Sized {
    /// The same key, with an owner that drops it.
    type Moved: CallKey;

    /// Moves the key out of the variables of the call.
    fn moved(self) -> Self::Moved;

    /// Drops the key in the variables of the call, where their scope does not.
    #[inline(always)]
    fn clear(&mut self) {}

    /// Returns the key.
    ///
    /// # Errors
    ///
    /// When the arguments cannot be encoded.
    fn key(&self) -> Result<&Key, KeyError<'_>>;

    /// Returns the groups of the tags.
    fn tags(&self) -> &[Group];
}

impl CallKey for KeyBuilder {
    type Moved = Self;

    #[inline(always)]
    fn moved(self) -> Self {
        self
    }

    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        self.key()
    }

    #[inline]
    fn tags(&self) -> &[Group] {
        &[]
    }
}

impl CallKey for Key {
    type Moved = Self;

    #[inline(always)]
    fn moved(self) -> Self {
        self
    }

    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        Ok(self)
    }

    #[inline]
    fn tags(&self) -> &[Group] {
        self.tags()
    }
}

/// That of a batch, whose elements are described one by one.
impl CallKey for CallKeyBuilder {
    type Moved = KeyBuilder;

    #[inline(always)]
    fn moved(mut self) -> KeyBuilder {
        self.take()
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.clear();
    }

    #[inline(always)]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        (**self).key()
    }

    #[inline]
    fn tags(&self) -> &[Group] {
        &[]
    }
}

impl CallKey for &mut CallKeyBuilder {
    type Moved = KeyBuilder;

    #[inline(always)]
    fn moved(self) -> KeyBuilder {
        self.take()
    }

    #[inline(always)]
    fn clear(&mut self) {
        (**self).clear();
    }

    #[inline(always)]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        (***self).key()
    }

    #[inline]
    fn tags(&self) -> &[Group] {
        &[]
    }
}

impl<K: CallKey> CallKey for &K {
    type Moved = Self;

    #[inline(always)]
    fn moved(self) -> Self {
        self
    }

    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        (**self).key()
    }

    #[inline]
    fn tags(&self) -> &[Group] {
        (**self).tags()
    }
}

/// A key with tags.
#[derive(Debug)]
pub struct Tagged<K, const N: usize>(pub K, pub [Group; N]);

impl<K: CallKey, const N: usize> CallKey for Tagged<K, N> {
    type Moved = Tagged<K::Moved, N>;

    #[inline(always)]
    fn moved(self) -> Self::Moved {
        Tagged(self.0.moved(), self.1)
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.0.clear();
    }

    #[inline]
    fn key(&self) -> Result<&Key, KeyError<'_>> {
        self.0.key()
    }

    #[inline]
    fn tags(&self) -> &[Group] {
        &self.1
    }
}

/// The serializer of a call that outlives the owner from which it could be borrowed.
#[derive(Debug, Clone, Copy)]
pub struct OwnedSerializer<Z>(pub(crate) Z);

impl<Z> Deref for OwnedSerializer<Z> {
    type Target = Z;

    #[inline]
    fn deref(&self) -> &Z {
        &self.0
    }
}
