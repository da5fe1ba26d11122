//! The arguments of a call as parts of its key.
//!
//! The kind of a part is selected by method resolution, a form of specialization: an inherent method of
//! special types has precedence over the trait method of all types.

use std::collections::HashSet;

use serde::Serialize;

use crate::attribute::candidate::{Candidate, Chosen, Other};
use crate::key::{DirectEncode, KeyBuilder};

/// A value on its way into a key.
#[derive(Debug)]
pub struct Part<'a, T: ?Sized>(pub &'a T);

impl<T: ?Sized> Clone for Part<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Part<'_, T> {}

/// A part that is encoded as it serializes itself.
#[derive(Debug, Clone, Copy)]
pub struct ValuePart;

/// A part that is a number, a string or the like.
#[derive(Debug, Clone, Copy)]
pub struct SimplePart;

impl<T: DirectEncode + ?Sized> Part<'_, T> {
    /// Returns the kind of a simple part.
    #[inline]
    pub fn vayu_kind(&self) -> SimplePart {
        SimplePart
    }
}

/// A part whose elements have no order.
#[derive(Debug, Clone, Copy)]
pub struct SetPart;

impl<T, H> Part<'_, HashSet<T, H>> {
    /// Returns the kind of a set.
    #[inline]
    pub fn vayu_kind(&self) -> SetPart {
        SetPart
    }
}

impl<T, H> Part<'_, &HashSet<T, H>> {
    /// Returns the kind of a set.
    #[inline]
    pub fn vayu_kind(&self) -> SetPart {
        SetPart
    }
}

/// A part that may change during the call.
#[derive(Debug, Clone, Copy)]
pub struct ExclusivePart;

/// The kind of an exclusive reference. It has precedence over all others, as it takes the part by value.
pub trait ExclusiveKind<T> {
    /// Returns the kind. Fails to compile, since no type is [`Unchanging`].
    fn vayu_kind(self) -> ExclusivePart
    where
        T: Unchanging;
}

impl<'a, T: ?Sized> ExclusiveKind<&'a mut T> for Part<'_, &'a mut T> {
    #[inline]
    fn vayu_kind(self) -> ExclusivePart
    where
        &'a mut T: Unchanging,
    {
        ExclusivePart
    }
}

/// A trait that is never implemented, so that an exclusive reference in a key is a compile error.
#[diagnostic::on_unimplemented(
    message = "what `{Self}` refers to may change during the call, so it cannot be part of the key",
    label = "may change",
    note = "leave the argument out with `skip(..)`, or say what the key is with `key = ..`"
)]
pub trait Unchanging {}

/// The kind of any other part.
pub trait AnyPart {
    /// Returns the kind.
    fn vayu_kind(&self) -> ValuePart;
}

impl<T: ?Sized> AnyPart for Part<'_, T> {
    #[inline]
    fn vayu_kind(&self) -> ValuePart {
        ValuePart
    }
}

/// An argument that can be part of a key: any value that is [`Serialize`]. `K` is its kind.
///
/// The implementations are not recommended: a message names this trait and the type of the argument, not a
/// part of that type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "does not implement `serde::Serialize`",
    note = "leave the argument out with `skip(..)`, or also name the part of it that the result depends on, as in \
            `skip(path), include(path.0)`; calls with closures of different types then share entries only with \
            `prefix = \"..\"`",
    note = "or derive `serde::Serialize` for the type (`T: Serialize` for a type parameter), or say what the key is \
            with `key = ..`"
)]
pub trait KeyPart<K, M> {
    /// Appends the value to a key.
    fn add(kind: K, value: &Self, key: &mut KeyBuilder);
}

#[diagnostic::do_not_recommend]
impl<T: DirectEncode + ?Sized> KeyPart<SimplePart, Chosen> for T {
    #[inline(always)]
    fn add(_: SimplePart, value: &Self, key: &mut KeyBuilder) {
        key.encode_direct(value);
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart<ValuePart, Chosen> for T {
    #[inline]
    fn add(_: ValuePart, value: &Self, key: &mut KeyBuilder) {
        key.encode(value);
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize, H> KeyPart<SetPart, Chosen> for HashSet<T, H> {
    fn add(_: SetPart, value: &Self, key: &mut KeyBuilder) {
        key.encode_set(value);
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize, H> KeyPart<SetPart, Chosen> for &HashSet<T, H> {
    fn add(_: SetPart, value: &Self, key: &mut KeyBuilder) {
        key.encode_set(*value);
    }
}

#[diagnostic::do_not_recommend]
impl<T> KeyPart<ExclusivePart, Chosen> for T {
    fn add(_: ExclusivePart, _: &Self, _: &mut KeyBuilder) {}
}

#[diagnostic::do_not_recommend]
impl<T: ?Sized, K> KeyPart<K, Other> for T
where
    Other: Candidate<T>,
{
    fn add(_: K, _: &Self, _: &mut KeyBuilder) {}
}

/// A variable that a pattern binds, by reference in a handle, where the argument is not moved out of: the
/// call needs it.
#[derive(Debug)]
pub struct Bound<'a, T: ?Sized>(pub &'a T);

impl<T: Copy> Bound<'_, T> {
    /// Returns the value, as it is bound in the function.
    #[inline]
    pub fn vayu_bound(self) -> T {
        *self.0
    }
}

/// A bound variable whose value is not `Copy`.
pub trait BoundByReference<'a, T: ?Sized> {
    /// Returns the reference.
    fn vayu_bound(self) -> &'a T;
}

impl<'a, T: ?Sized> BoundByReference<'a, T> for Bound<'a, T> {
    #[inline]
    fn vayu_bound(self) -> &'a T {
        self.0
    }
}
