//! Compression of the stored form of another serializer.

mod frame;
#[cfg(all(test, feature = "json", feature = "lz4", feature = "message-pack", feature = "zstd"))]
mod tests;

use bytes::Bytes;

use self::frame::Method;
use crate::error::Result;
use crate::serializer::layers::Layer;
use crate::serializer::{EntryContext, Serializer, SerializerId};

/// The values of another serializer, compressed.
///
/// The stored form says how it was compressed, so an entry that was compressed by one algorithm is read by
/// the other as well, if its feature is enabled. Values shorter than 256 bytes, and those that compression does
/// not make shorter by an eighth, are stored as they are. An entry that was stored without `Compressed` is a miss
/// with it, and the other way round.
///
/// # Limits
///
/// A value that is longer before compression than the limit on entries of the backend
/// ([`Usage::max_entry_bytes`](crate::Usage::max_entry_bytes)), or than 64 MiB where there is none, is
/// not compressed. An entry that claims to be longer is refused before memory is allocated for it, and is a
/// miss (a decompression bomb). The same holds for a value that is longer than 1 MiB and than 64 times its
/// compressed form: the memory that a decoder needs depends on the length of what it reads.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "lz4", feature = "message-pack", feature = "testing"))] {
/// # use vayu_core as vayu;
/// # use vayu::testing::MapBackend;
/// use vayu::{Cache, Compressed, MessagePack};
///
/// # let cache: Cache<MapBackend, MessagePack> = Cache::new();
/// let cache = cache.with_serializer(Compressed::lz4(MessagePack));
/// # let key = vayu::Key::from_text("pages", "index");
/// # let page = "<p>".repeat(1000);
/// # cache.set(&key, &page, std::time::Duration::from_secs(60)).unwrap();
/// # assert_eq!(cache.get(&key).unwrap(), Some(page));
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Compressed<S> {
    serializer: S,
    method: Method,
}

impl<S> Compressed<S> {
    /// Compresses with Zstandard at level 3: the smallest entries. Needs the feature `zstd`, and a C
    /// compiler.
    #[cfg(feature = "zstd")]
    pub const fn zstd(serializer: S) -> Self {
        Self::zstd_with_level(3, serializer)
    }

    /// Compresses with Zstandard at a level: 1 to 22, or a negative one, which is faster. One that is out of
    /// range is the nearest.
    #[cfg(feature = "zstd")]
    pub const fn zstd_with_level(level: i32, serializer: S) -> Self {
        Self { serializer, method: Method::Zstd(level) }
    }

    /// Compresses with LZ4: the fastest hits. Needs the feature `lz4`.
    #[cfg(feature = "lz4")]
    pub const fn lz4(serializer: S) -> Self {
        Self { serializer, method: Method::Lz4 }
    }

    fn pack<T>(&self, plain: &[u8], limit: Option<u64>) -> Bytes
    where
        S: Serializer<T, Stored = Bytes>,
    {
        frame::pack(plain, self.serializer.id(), self.method, limit)
    }

    fn unpack<T>(&self, stored: &Bytes, limit: Option<u64>) -> Result<Bytes>
    where
        S: Serializer<T, Stored = Bytes>,
    {
        frame::unpack_as(stored, self.serializer.id(), limit)
    }
}

#[diagnostic::do_not_recommend]
impl<T, S: Serializer<T, Stored = Bytes>> Serializer<T> for Compressed<S> {
    type Stored = Bytes;

    #[inline]
    fn id(&self) -> SerializerId {
        self.serializer.id().wrapped(SerializerId::COMPRESSED)
    }

    #[inline]
    fn schema(&self) -> u64 {
        self.serializer.schema()
    }

    fn serialize(&self, value: &T) -> Result<Bytes> {
        Ok(self.pack(&self.serializer.serialize(value)?, None))
    }

    fn deserialize(&self, stored: &Bytes) -> Result<T> {
        self.serializer.deserialize_owned(&mut self.unpack(stored, None)?)
    }

    fn serialize_for(&self, value: &T, entry: &EntryContext<'_>) -> Result<Bytes> {
        let plain = self.serializer.serialize_for(value, entry)?;
        Ok(self.pack(&plain, entry.max_entry_bytes()))
    }

    fn deserialize_for(&self, stored: &Bytes, entry: &EntryContext<'_>) -> Result<T> {
        let mut plain = self.unpack(stored, entry.max_entry_bytes())?;
        self.serializer.deserialize_owned_for(&mut plain, entry)
    }

    fn deserialize_owned_for(&self, stored: &mut Bytes, entry: &EntryContext<'_>) -> Result<T> {
        self.deserialize_for(stored, entry)
    }

    fn rebind(
        &self,
        stored: Bytes,
        from: &EntryContext<'_>,
        to: &EntryContext<'_>,
    ) -> Result<Bytes> {
        let plain = self.unpack(&stored, from.max_entry_bytes())?;
        let plain = self.serializer.rebind(plain, from, to)?;
        Ok(self.pack(&plain, to.max_entry_bytes()))
    }

    fn is_renewable(&self) -> bool {
        self.serializer.is_renewable()
    }

    fn verify(&self, stored: &Bytes, entry: &EntryContext<'_>) -> Result<()> {
        // An entry that is not compressed is not of this serializer, but may be of one that authenticates values.
        let plain = frame::unpack(stored, entry.max_entry_bytes());
        self.serializer.verify(plain.as_ref().map_or(stored, |(_, plain)| plain), entry)
    }
}

impl Layer for Compressed<()> {
    fn id_of(&self, inner: SerializerId) -> SerializerId {
        inner.wrapped(SerializerId::COMPRESSED)
    }

    fn is_outermost(&self, id: SerializerId) -> bool {
        id.is_compressed_last()
    }

    fn wrap(&self, value: &Bytes, inner: SerializerId, entry: &EntryContext<'_>) -> Result<Bytes> {
        Ok(frame::pack(value, inner, self.method, entry.max_entry_bytes()))
    }

    fn unwrap(&self, stored: &Bytes, entry: &EntryContext<'_>) -> Result<(SerializerId, Bytes)> {
        frame::unpack(stored, entry.max_entry_bytes())
    }
}
