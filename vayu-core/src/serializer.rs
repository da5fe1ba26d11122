//! Conversion of values to their stored form and back.

mod any_value;
#[cfg(feature = "bincode")]
mod bincode;
#[cfg(any(feature = "bincode", feature = "postcard"))]
mod bounded;
mod by_reference;
#[cfg(any(feature = "lz4", feature = "zstd"))]
mod compressed;
#[cfg(any(feature = "bincode", feature = "json", feature = "message-pack", feature = "postcard"))]
mod decode_error;
mod entry_context;
mod exact;
#[cfg(feature = "json")]
mod json;
#[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
pub(crate) mod layers;
#[cfg(feature = "message-pack")]
mod message_pack;
#[cfg(feature = "postcard")]
mod postcard;
#[cfg(feature = "seal")]
mod sealed;
#[cfg(all(
    test,
    feature = "message-pack",
    feature = "json",
    feature = "postcard",
    feature = "bincode"
))]
mod tests;

use std::any::type_name;

use xxhash_rust::xxh3::xxh3_64;

pub use self::any_value::{AnyValue, InlineValue};
#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
pub use self::by_reference::ByReference;
#[cfg(any(feature = "lz4", feature = "zstd"))]
pub use self::compressed::Compressed;
pub use self::entry_context::EntryContext;
pub(crate) use self::entry_context::EntryLimit;
pub use self::exact::encode_checked;
#[cfg(feature = "json")]
pub use self::json::Json;
#[cfg(feature = "message-pack")]
pub use self::message_pack::MessagePack;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
#[cfg(feature = "seal")]
pub use self::sealed::{SealKeys, Sealed};
use crate::error::Result;

/// A conversion of values to the form that a backend stores, and back.
///
/// # Behavior
///
/// `deserialize` must return the same value that `serialize` was given. A value for which that is
/// impossible must be refused by `serialize`; it is then returned to its caller and not stored.
///
/// `deserialize` receives whatever the backend has found. It must return an error for bytes that
/// `serialize` did not write, in bounded memory and time.
///
/// Errors are logged with their causes, so their messages must not repeat a part of the value. Those of serde's `Deserialize`
/// do, as in `invalid type: string "..", expected u32`: do not make them the source of an error.
///
/// # Examples
///
/// A serializer for one type:
///
/// ```
/// # mod vayu { pub use vayu_core::*; pub mod backend { pub use vayu_core::*; pub use bytes::Bytes; } }
/// use vayu::backend::{Bytes, Serializer, SerializerId};
/// use vayu::{Error, ErrorKind, Result};
///
/// #[derive(Debug, Default, Clone)]
/// struct Plain;
///
/// impl Serializer<String> for Plain {
///     type Stored = Bytes;
///
///     fn id(&self) -> SerializerId {
///         SerializerId::user(1)
///     }
///
///     fn serialize(&self, value: &String) -> Result<Bytes> {
///         Ok(Bytes::copy_from_slice(value.as_bytes()))
///     }
///
///     fn deserialize(&self, stored: &Bytes) -> Result<String> {
///         String::from_utf8(stored.to_vec())
///             .map_err(|error| error.utf8_error())
///             .map_err(|error| Error::new(ErrorKind::Decode, "decode text").with_source(error))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the serializer `{Self}` cannot store a value of type `{T}`",
    label = "not a value that `{Self}` can store",
    note = "`ByReference`, the serializer of memory caches, needs `Clone + Send + Sync + 'static`",
    note = "`MessagePack` and `Json` need `serde::Serialize + serde::de::DeserializeOwned`"
)]
pub trait Serializer<T>: Send + Sync + 'static {
    /// The form in which a backend stores the value.
    type Stored: Clone + Send + Sync + 'static;

    /// Returns the id of the format. It is stored with each entry, and an entry with another one is a
    /// miss. A hit calls this, perhaps without a guard against panics: it must not panic.
    ///
    /// A wrapper that changes or adds to the stored form of another serializer has an id of its own. That of a
    /// [seal](SerializerId::is_sealed) says that all of the stored form is authenticated when it is decoded.
    fn id(&self) -> SerializerId;

    /// Returns a stamp of the type `T`. It is stored with each entry, and an entry with another one is a
    /// miss. It must not panic either.
    ///
    /// The default is a hash of the type's name, so the value of one type is never decoded as
    /// another.
    fn schema(&self) -> u64 {
        xxh3_64(type_name::<T>().as_bytes())
    }

    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) for a value that this format cannot
    /// represent exactly.
    fn serialize(&self, value: &T) -> Result<Self::Stored>;

    /// Decodes a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) for what is not an encoded `T`.
    fn deserialize(&self, stored: &Self::Stored) -> Result<T>;

    /// Decodes a value, and may move it out of `stored`, which the caller will not use again.
    ///
    /// # Errors
    ///
    /// Those of [`deserialize`](Self::deserialize).
    #[inline]
    fn deserialize_owned(&self, stored: &mut Self::Stored) -> Result<T> {
        self.deserialize(stored)
    }

    /// Encodes a value for an entry. The engine encodes all values with this.
    ///
    /// The default is [`serialize`](Self::serialize). A serializer whose stored form depends on the entry
    /// overrides it, and [`deserialize_for`](Self::deserialize_for),
    /// [`deserialize_owned_for`](Self::deserialize_owned_for), [`rebind`](Self::rebind),
    /// [`is_renewable`](Self::is_renewable) and [`verify`](Self::verify); one that wraps another serializer forwards them.
    ///
    /// # Errors
    ///
    /// Those of [`serialize`](Self::serialize).
    #[inline]
    fn serialize_for(&self, value: &T, entry: &EntryContext<'_>) -> Result<Self::Stored> {
        let _ = entry;
        self.serialize(value)
    }

    /// Decodes a value that was encoded by [`serialize_for`](Self::serialize_for) for the same entry.
    ///
    /// The default is [`deserialize`](Self::deserialize).
    ///
    /// # Errors
    ///
    /// Those of [`deserialize`](Self::deserialize).
    #[inline]
    fn deserialize_for(&self, stored: &Self::Stored, entry: &EntryContext<'_>) -> Result<T> {
        let _ = entry;
        self.deserialize(stored)
    }

    /// [`deserialize_for`](Self::deserialize_for), which may move the value out of `stored`, as
    /// [`deserialize_owned`](Self::deserialize_owned) does. That is the default.
    ///
    /// # Errors
    ///
    /// Those of [`deserialize_for`](Self::deserialize_for).
    #[inline]
    fn deserialize_owned_for(
        &self,
        stored: &mut Self::Stored,
        entry: &EntryContext<'_>,
    ) -> Result<T> {
        let _ = entry;
        self.deserialize_owned(stored)
    }

    /// Converts what was encoded for one entry to the stored form for another one, whose schema stamp differs:
    /// a group of the entry was invalidated since it was encoded. The default returns it unchanged.
    ///
    /// # Errors
    ///
    /// Those of [`deserialize_for`](Self::deserialize_for) and [`serialize_for`](Self::serialize_for).
    #[inline]
    fn rebind(
        &self,
        stored: Self::Stored,
        from: &EntryContext<'_>,
        to: &EntryContext<'_>,
    ) -> Result<Self::Stored> {
        let _ = (from, to);
        Ok(stored)
    }

    /// Returns whether a stored form that was read and decoded can be stored again, with other times: that of a value which
    /// a function with `revalidate` has returned unchanged. Otherwise the value is encoded again. Must not panic.
    ///
    /// The default is `true` for the formats of vayu that are not [sealed](SerializerId::is_sealed), and `false` for those of
    /// users, whose stored form may depend on the times of the entry.
    fn is_renewable(&self) -> bool {
        let id = self.id();
        id.unwrapped().is_some() && !id.is_sealed()
    }

    /// Returns an error for a stored form that is known not to have been encoded for this entry. The default
    /// returns none; a serializer that authenticates values overrides it, and one that wraps another
    /// serializer forwards it.
    ///
    /// The engine calls this before it refuses a key since it does not match the function that stored an
    /// entry, as the header of the entry says. An entry for which this is an error is a miss, and may be
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode).
    #[inline]
    fn verify(&self, stored: &Self::Stored, entry: &EntryContext<'_>) -> Result<()> {
        let _ = (stored, entry);
        Ok(())
    }

    /// Decodes an inline value that the backend has copied from the stored form
    /// ([`Backend::read_optimistic`](crate::Backend::read_optimistic)). Must not panic.
    ///
    /// The default returns `None`: the engine then reads the stored form.
    #[inline]
    fn deserialize_inline(&self, value: InlineValue) -> Option<T> {
        let _ = value;
        None
    }

    /// Returns what the engine may assume about values of type `T` in their stored form.
    ///
    /// The default is [`ValueClass::Opaque`], which is correct for every serializer.
    #[inline]
    fn value_class(&self) -> ValueClass {
        ValueClass::Opaque
    }
}

/// The assumptions that the engine may make about the values of a serializer
/// ([`Serializer::value_class`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ValueClass {
    /// Nothing. The engine catches the panics of decoding a value and dropping it.
    #[default]
    Opaque,
    /// Encoding and decoding it runs code of the standard library only, which does not panic, and neither does
    /// cloning or dropping the stored form. In caches in memory the engine does without a guard, and
    /// the backend may let it decode under a lock.
    Plain,
    /// As [`Plain`](Self::Plain), and the value fits into a machine word: a number, a `bool`, a `char`.
    /// A backend may keep copies that are read without a lock
    /// ([`Backend::read_optimistic`](crate::Backend::read_optimistic)).
    Inline,
}

/// The id of a stored format. Numbers from 0x8000 are free for formats of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SerializerId(pub(crate) u16);

impl SerializerId {
    /// A reference to the value itself, which never leaves the process.
    pub const BY_REFERENCE: Self = Self(0);
    /// MessagePack with named fields.
    pub const MESSAGE_PACK: Self = Self(1);
    /// JSON.
    pub const JSON: Self = Self(2);
    /// Postcard.
    pub const POSTCARD: Self = Self(4);
    /// Bincode 2 in its standard configuration.
    pub const BINCODE: Self = Self(5);

    /// The bits of the ids of formats whose values are compressed, sealed, or compressed after they were
    /// sealed.
    const COMPRESSED: u16 = 0x0100;
    const SEALED: u16 = 0x0200;
    const COMPRESSED_LAST: u16 = 0x0400;

    /// Returns the id of a user's format: `number` is counted from 0x8000, and its highest bit is
    /// ignored.
    pub const fn user(number: u16) -> Self {
        Self(number | 0x8000)
    }

    /// Returns the id of a wrapper of this format.
    #[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
    const fn wrapped(self, wrapper: u16) -> Self {
        // The exact id of the format is a part of the stored form.
        let format = if self.0 < 0x8000 { self.0 } else { 0xff };
        if wrapper == Self::COMPRESSED && self.is_sealed() {
            return Self(format | Self::COMPRESSED_LAST);
        }
        Self(format | wrapper)
    }

    /// Returns whether compression is the outermost wrapper of values of this format.
    #[cfg(any(feature = "lz4", feature = "zstd"))]
    const fn is_compressed_last(self) -> bool {
        self.is_compressed() && !self.is_sealed() || self.is_wrapped_by(Self::COMPRESSED_LAST)
    }

    /// Returns whether a seal is the outermost wrapper of values of this format.
    #[cfg(feature = "seal")]
    const fn is_sealed_last(self) -> bool {
        self.is_sealed() && !self.is_wrapped_by(Self::COMPRESSED_LAST)
    }

    /// Returns whether values of this format are compressed, or were before they were sealed
    /// ([`Compressed`](https://docs.rs/vayu-cache/latest/vayu/struct.Compressed.html)).
    pub const fn is_compressed(self) -> bool {
        self.is_wrapped_by(Self::COMPRESSED | Self::COMPRESSED_LAST)
    }

    /// Returns whether values of this format are sealed
    /// ([`Sealed`](https://docs.rs/vayu-cache/latest/vayu/struct.Sealed.html)): decoding one detects that it was changed, so
    /// backends do not verify a checksum of it.
    pub const fn is_sealed(self) -> bool {
        self.is_wrapped_by(Self::SEALED)
    }

    const fn is_wrapped_by(self, wrapper: u16) -> bool {
        self.0 < 0x8000 && self.0 & wrapper != 0
    }

    /// Returns the id of the format of these values without compression and seal. `None` if it is that of a
    /// user.
    pub const fn unwrapped(self) -> Option<Self> {
        match self.0 & !(Self::COMPRESSED | Self::SEALED | Self::COMPRESSED_LAST) {
            _ if self.0 >= 0x8000 => None,
            0xff => None,
            number => Some(Self(number)),
        }
    }

    /// Returns the number as it is written in an entry.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Returns the id of a number that was read from an entry.
    pub const fn from_u16(number: u16) -> Self {
        Self(number)
    }
}
