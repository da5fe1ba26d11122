//! The check that a cache can return a `&'static` value: one that encodes values cannot.
//!
//! Without it, the message would be that an implementation of `Deserialize` is not general enough.

use std::marker::PhantomData;

use crate::backend::Backend;
use crate::cache::Cache;

/// A stored form that is, or becomes, bytes.
pub trait Encoded {}

#[cfg(any(
    feature = "message-pack",
    feature = "json",
    feature = "postcard",
    feature = "bincode",
    feature = "wire",
    feature = "testing"
))]
impl Encoded for bytes::Bytes {}

/// Finds whether a cache encodes its values, by the type of their stored form.
#[derive(Debug)]
pub struct StoredProbe<T>(PhantomData<fn() -> T>);

impl StoredProbe<()> {
    /// Creates a probe for a cache.
    pub fn of<B: Backend, S>(_cache: &Cache<B, S>) -> StoredProbe<B::Stored> {
        StoredProbe(PhantomData)
    }
}

/// The stored form of a cache that keeps values as they are, or that nothing is known of.
#[derive(Debug)]
pub struct AsTheyAre;

/// The stored form of a cache that encodes values.
#[derive(Debug)]
pub struct AsBytes;

/// The check of a form that encodes values. It has precedence, as it takes the probe by value.
pub trait EncodedStored {
    /// Returns the form.
    fn vayu_form(self) -> AsBytes;
}

impl<T: Encoded> EncodedStored for StoredProbe<T> {
    fn vayu_form(self) -> AsBytes {
        AsBytes
    }
}

/// The check of any other form.
pub trait PlainStored {
    /// Returns the form.
    fn vayu_form(&self) -> AsTheyAre;
}

impl<T> PlainStored for StoredProbe<T> {
    fn vayu_form(&self) -> AsTheyAre {
        AsTheyAre
    }
}

/// A stored form from which a `&'static` value can be returned.
#[diagnostic::on_unimplemented(
    message = "a borrowed value cannot be read back from bytes",
    label = "borrowed",
    note = "return an owned value, such as `String` in place of `&'static str`"
)]
pub trait HoldsReferences {
    /// Does nothing.
    fn check(_: Self)
    where
        Self: Sized,
    {
    }
}

#[diagnostic::do_not_recommend]
impl HoldsReferences for AsTheyAre {}
