//! Encryption and authentication of the stored form of another serializer.

mod cipher;
mod keys;
#[cfg(all(test, feature = "message-pack", feature = "testing", not(any(vayu_loom, vayu_shuttle))))]
mod tests;
mod xaes;

use std::mem;

use bytes::Bytes;

use self::cipher::Binding;
pub use self::keys::SealKeys;
use crate::error::{Error, ErrorKind, Result};
use crate::serializer::layers::Layer;
use crate::serializer::{EntryContext, Serializer, SerializerId};

/// The values of another serializer, encrypted and authenticated (AEAD), each for its own entry.
///
/// What is authenticated besides the value is the key of the entry, its schema stamp (the type of the value and the
/// generations of its groups), the time of its creation, and the times until which it is fresh and may be
/// served stale. So an entry that was forged, copied to another key, given other times, or stored before an
/// invalidation is a miss, which counts as an error of the kind [`ErrorKind::Decode`].
///
/// An entry that was stored without `Sealed` is a miss with it, and the other way round. `Sealed` around
/// [`Compressed`](crate::Compressed) compresses first. SECURITY.md says what remains visible.
///
/// The stored form depends on the entry, so [`serialize`](Serializer::serialize) and
/// [`deserialize`](Serializer::deserialize), which do not know it, return errors.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "seal", feature = "message-pack", feature = "testing"))] {
/// # use vayu_core as vayu;
/// # use vayu::testing::MapBackend;
/// use vayu::{Cache, MessagePack, SealKeys, Sealed};
///
/// # let secret = [7; 32];
/// let keys = SealKeys::new(secret); // or `SealKeys::from_env("CACHE_KEY")?`
/// # let cache: Cache<MapBackend, MessagePack> = Cache::new();
/// let cache = cache.with_serializer(Sealed::new(keys, MessagePack));
/// # let key = vayu::Key::from_text("tokens", "alice");
/// # cache.set(&key, &1_u64, std::time::Duration::from_secs(60)).unwrap();
/// # assert_eq!(cache.get::<u64>(&key).unwrap(), Some(1));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Sealed<S> {
    keys: SealKeys,
    serializer: S,
}

impl<S> Sealed<S> {
    /// Seals the values of a serializer with the first of these keys, and opens those of all of them.
    pub fn new(keys: SealKeys, serializer: S) -> Self {
        Self { keys, serializer }
    }

    /// Returns the keys.
    pub fn keys(&self) -> &SealKeys {
        &self.keys
    }
}

#[diagnostic::do_not_recommend]
impl<T, S: Serializer<T, Stored = Bytes>> Serializer<T> for Sealed<S> {
    type Stored = Bytes;

    #[inline]
    fn id(&self) -> SerializerId {
        self.serializer.id().wrapped(SerializerId::SEALED)
    }

    #[inline]
    fn schema(&self) -> u64 {
        self.serializer.schema()
    }

    /// Returns an error: the entry is not known.
    fn serialize(&self, _: &T) -> Result<Bytes> {
        Err(Error::new(ErrorKind::Encode, "seal value: its entry is not known"))
    }

    /// Returns an error: the entry is not known.
    fn deserialize(&self, _: &Bytes) -> Result<T> {
        Err(Error::new(ErrorKind::Decode, "open sealed value: its entry is not known"))
    }

    fn serialize_for(&self, value: &T, entry: &EntryContext<'_>) -> Result<Bytes> {
        let plain = self.serializer.serialize_for(value, entry)?;
        self.keys.seal(&plain, self.serializer.id(), &Binding::of(entry))
    }

    fn deserialize_for(&self, stored: &Bytes, entry: &EntryContext<'_>) -> Result<T> {
        self.deserialize_owned_for(&mut stored.clone(), entry)
    }

    fn deserialize_owned_for(&self, stored: &mut Bytes, entry: &EntryContext<'_>) -> Result<T> {
        let sealed = mem::take(stored);
        let mut plain = self.keys.open_as(sealed, self.serializer.id(), &Binding::of(entry))?;
        self.serializer.deserialize_owned_for(&mut plain, entry)
    }

    fn rebind(
        &self,
        stored: Bytes,
        from: &EntryContext<'_>,
        to: &EntryContext<'_>,
    ) -> Result<Bytes> {
        let inner = self.serializer.id();
        let plain = self.keys.open_as(stored, inner, &Binding::of(from))?;
        let plain = self.serializer.rebind(plain, from, to)?;
        self.keys.seal(&plain, inner, &Binding::of(to))
    }

    /// Returns `false`: the times are authenticated.
    fn is_renewable(&self) -> bool {
        false
    }

    fn verify(&self, stored: &Bytes, entry: &EntryContext<'_>) -> Result<()> {
        self.keys.open(stored.clone(), &Binding::of(entry)).map(|_| ())
    }
}

impl Layer for SealKeys {
    fn id_of(&self, inner: SerializerId) -> SerializerId {
        inner.wrapped(SerializerId::SEALED)
    }

    fn is_outermost(&self, id: SerializerId) -> bool {
        id.is_sealed_last()
    }

    fn wrap(&self, value: &Bytes, inner: SerializerId, entry: &EntryContext<'_>) -> Result<Bytes> {
        self.seal(value, inner, &Binding::of(entry))
    }

    fn unwrap(&self, stored: &Bytes, entry: &EntryContext<'_>) -> Result<(SerializerId, Bytes)> {
        self.open(stored.clone(), &Binding::of(entry))
    }

    fn opened_with_old_keys(&self) -> Option<u64> {
        Some(self.opened().iter().skip(1).sum())
    }
}
