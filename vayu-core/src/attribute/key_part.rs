//! The arguments of a call as parts of its key.
//!
//! The kind of a part is selected by method resolution, a form of specialization: an inherent method of
//! special types has precedence over the trait method of all types.

use std::collections::HashSet;

use serde::Serialize;

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
pub trait ExclusiveKind {
    /// Returns the kind.
    fn vayu_kind(self) -> ExclusivePart;
}

impl<T: ?Sized> ExclusiveKind for Part<'_, &mut T> {
    #[inline]
    fn vayu_kind(self) -> ExclusivePart {
        ExclusivePart
    }
}

/// A trait that is never implemented, so that an exclusive reference in a key is a compile error.
#[diagnostic::on_unimplemented(
    message = "what `{Self}` refers to may change during the call, so it cannot be part of the key",
    note = "leave the argument out with `skip(..)`, or say what the key is with `key = ..`"
)]
pub trait Unchanging {}

impl ExclusivePart {
    /// Fails to compile, since no type is [`Unchanging`].
    pub fn add<T: Unchanging>(self, _part: &Part<'_, T>, _key: &mut KeyBuilder) {}
}

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

/// An argument that can be part of a key: any value that is [`Serialize`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "does not implement `serde::Serialize`",
    note = "derive `serde::Serialize` for it, leave the argument out with `skip(..)`, or say what \
            the key is with `key = ..`"
)]
pub trait KeyPart: Serialize {}

impl<T: Serialize + ?Sized> KeyPart for T {}

impl SimplePart {
    /// Appends a number, a string or the like to a key.
    #[inline(always)]
    pub fn add<T: DirectEncode + ?Sized>(self, part: &Part<'_, T>, key: &mut KeyBuilder) {
        key.encode_direct(part.0);
    }
}

impl ValuePart {
    /// Appends a value to a key.
    #[inline]
    pub fn add<T: KeyPart + ?Sized>(self, part: &Part<'_, T>, key: &mut KeyBuilder) {
        key.encode(part.0);
    }
}

impl SetPart {
    /// Appends a set to a key.
    pub fn add<'a, T, C>(self, part: &Part<'a, C>, key: &mut KeyBuilder)
    where
        T: KeyPart + 'a,
        &'a C: Elements<'a, T>,
    {
        key.encode_set(part.0.elements());
    }
}

/// The elements of a set or of a reference to one.
pub trait Elements<'a, T: 'a> {
    /// Returns the elements.
    fn elements(self) -> impl Iterator<Item = &'a T>;
}

impl<'a, T, H> Elements<'a, T> for &'a HashSet<T, H> {
    fn elements(self) -> impl Iterator<Item = &'a T> {
        self.iter()
    }
}

impl<'a, T, H> Elements<'a, T> for &'a &HashSet<T, H> {
    fn elements(self) -> impl Iterator<Item = &'a T> {
        self.iter()
    }
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
