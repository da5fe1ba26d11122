//! The keys of sealed values.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fmt, mem};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::cipher::{self, AssociatedData, Binding, KeyId};
use super::xaes::Cipher;
use crate::error::{Error, ErrorKind, Result};
use crate::serializer::SerializerId;

/// The keys of [`Sealed`](crate::Sealed) values, 256 bits each: the first one seals, all of them open.
///
/// The same keys in several caches need a [context](Self::with_context).
///
/// To replace a key, put the new one first and keep the old one as another until [`opened`](Self::opened) shows in every
/// process that it opens nothing any more, which is after the longest ttl at the latest. Then remove it. Where several
/// processes share entries, all of them need the new key before one of them seals with it: add it as an old
/// key first.
///
/// A key must be random (`openssl rand -hex 32`), not a password. The copy in this value is overwritten when its last
/// clone is dropped; the environment variable and the copies of the caller are not. `Debug` does not show keys.
///
/// # Examples
///
/// ```
/// # use vayu_core as vayu;
/// # fn main() -> vayu::Result<()> {
/// use vayu::SealKeys;
///
/// # let (new, old) = ([1; 32], [2; 32]);
/// let keys = SealKeys::new(new).with_old_key(old);
/// assert_eq!(keys.opened(), [0, 0]);
/// assert_eq!(format!("{keys:?}"), "SealKeys { keys: 2, .. }");
///
/// let error = SealKeys::from_env("A_VARIABLE_THAT_IS_NOT_SET").unwrap_err();
/// assert!(error.to_string().contains("A_VARIABLE_THAT_IS_NOT_SET"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SealKeys {
    keys: Arc<Vec<SealKey>>,
    /// The SHA-256 of the context.
    context: Option<[u8; 32]>,
}

struct SealKey {
    secret: Zeroizing<[u8; 32]>,
    cipher: Cipher,
    id: KeyId,
    opened: AtomicU64,
}

impl SealKey {
    fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        let hash = Sha256::new().chain_update(b"vayu key id").chain_update(&secret[..]).finalize();
        let id = std::array::from_fn(|index| hash[index]);
        Self { cipher: Cipher::new(&secret), secret, id, opened: AtomicU64::new(0) }
    }
}

impl SealKeys {
    /// Creates keys that seal and open with this one.
    pub fn new(key: [u8; 32]) -> Self {
        Self::of([Zeroizing::new(key)].into_iter())
    }

    /// Adds a key that opens values, and seals none.
    #[must_use]
    pub fn with_old_key(self, key: [u8; 32]) -> Self {
        let secrets = self.keys.iter().map(|key| key.secret.clone());
        Self { context: self.context, ..Self::of(secrets.chain([Zeroizing::new(key)])) }
    }

    /// Binds values to a cache: one that was sealed with another context, or without one, is a miss.
    ///
    /// Caches whose keys are the same need different contexts, such as the name of the directory or of the
    /// tenant. Otherwise an attacker who can write to one can copy its entries to another, which
    /// returns their values.
    #[must_use]
    pub fn with_context(self, context: impl AsRef<[u8]>) -> Self {
        Self { context: Some(Sha256::digest(context.as_ref()).into()), ..self }
    }

    /// Reads the keys from an environment variable, in the form that [`FromStr`] accepts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if the variable is not set, or holds something else. The error does not
    /// contain its value.
    pub fn from_env(variable: &str) -> Result<Self> {
        let named = |reason: String| {
            let message = format!("read keys from the environment variable `{variable}`: {reason}");
            Error::new(ErrorKind::Configuration, message)
        };
        match env::var(variable).map(Zeroizing::new) {
            Ok(keys) => keys.parse().map_err(|error: Error| named(error.to_string())),
            Err(env::VarError::NotPresent) => Err(named("it is not set".to_owned())),
            Err(env::VarError::NotUnicode(_)) => Err(named("it is not UTF-8".to_owned())),
        }
    }

    /// Returns the number of values that each key has opened in this process, in the order of the keys. An
    /// old key whose number does not grow any more can be removed.
    pub fn opened(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.opened.load(Ordering::Relaxed)).collect()
    }

    fn data(&self, inner: SerializerId, binding: &Binding) -> AssociatedData {
        AssociatedData::new(inner, binding, self.context)
    }

    fn of(secrets: impl Iterator<Item = Zeroizing<[u8; 32]>>) -> Self {
        Self { keys: Arc::new(secrets.map(SealKey::new).collect()), context: None }
    }

    /// Seals a value with the first key.
    pub(super) fn seal(
        &self,
        plain: &[u8],
        inner: SerializerId,
        binding: &Binding,
    ) -> Result<Bytes> {
        let first = self.keys.first().expect("there is a first key");
        cipher::seal(&first.cipher, first.id, plain, inner, &self.data(inner, binding))
    }

    /// Opens a value of this serializer.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub(super) fn open_as(
        &self,
        stored: Bytes,
        inner: SerializerId,
        binding: &Binding,
    ) -> Result<Bytes> {
        match self.open(stored, binding)? {
            (other, plain) if other == inner => Ok(plain),
            _ => Err(failed("it was encoded by another serializer")),
        }
    }

    /// Opens a value, and returns the id of its serializer with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] for a value that was not sealed for this entry by one of the keys.
    pub(crate) fn open(
        &self,
        mut stored: Bytes,
        binding: &Binding,
    ) -> Result<(SerializerId, Bytes)> {
        let (id, inner) = cipher::ids(&stored).ok_or_else(|| failed("it is not a sealed value"))?;
        let mut reason = "its key is not one of these";
        let data = self.data(inner, binding);
        let mut keys = self.keys.iter().filter(|key| key.id == id).peekable();
        while let Some(key) = keys.next() {
            reason = "it was changed, or sealed for another entry";
            // What was not opened may have been overwritten.
            let bytes = if keys.peek().is_some() { stored.clone() } else { mem::take(&mut stored) };
            if let Some(plain) = cipher::open(&key.cipher, bytes, &data) {
                key.opened.fetch_add(1, Ordering::Relaxed);
                return Ok((inner, plain));
            }
        }
        Err(failed(reason))
    }
}

fn failed(reason: &'static str) -> Error {
    Error::new(ErrorKind::Decode, "open sealed value").with_source(reason)
}

/// Parses keys, separated by commas: the first one seals. A key is 64 hex digits, or 32 bytes in base64.
impl FromStr for SealKeys {
    type Err = Error;

    fn from_str(keys: &str) -> Result<Self> {
        let secrets = keys.split(',').map(|key| secret(key.trim()).ok_or_else(invalid));
        Ok(Self::of(secrets.collect::<Result<Vec<_>>>()?.into_iter()))
    }
}

fn invalid() -> Error {
    Error::new(
        ErrorKind::Configuration,
        "a key must be 64 hex digits or 32 bytes in base64, as `openssl rand -hex 32` prints it; \
         keys are separated by commas",
    )
}

fn secret(key: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    if key.len() == 64 {
        for (byte, digits) in secret.iter_mut().zip(key.as_bytes().chunks(2)) {
            let [high, low] = [digits[0], digits[1]].map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? << 4 | low?).ok()?;
        }
        return Some(secret);
    }
    // 43 digits of 6 bits are 32 bytes and 2 bits, which are zero.
    let digits = key.strip_suffix('=').unwrap_or(key).as_bytes();
    if digits.len() != 43 {
        return None;
    }
    let (mut bits, mut count, mut bytes) = (0_u32, 0, secret.iter_mut());
    for &digit in digits {
        bits = bits << 6 | sextet(digit)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            *bytes.next()? = (bits >> count & 0xff) as u8;
        }
        bits &= 0xff;
    }
    (bits.trailing_zeros() >= 2).then_some(secret)
}

/// Returns the value of a digit of base64, of the standard or the URL alphabet.
fn sextet(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKeys").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    /// Several keys may have the id that a value names. What one does not open is left for the next.
    #[test]
    fn keys_of_the_same_id_are_all_tried() {
        let key = |byte: u8| SealKey { id: [9; 4], ..SealKey::new(Zeroizing::new([byte; 32])) };
        let of = |keys: Vec<SealKey>| SealKeys { keys: Arc::new(keys), context: None };
        let binding = Binding {
            digest: [0; 32],
            schema: 0,
            serializer: SerializerId::MESSAGE_PACK,
            created: Timestamp::from_micros(0),
            expires: Timestamp::from_micros(1),
            stale_until: Timestamp::from_micros(1),
        };
        let inner = SerializerId::MESSAGE_PACK;
        let stored = of(vec![key(3)]).seal(b"value", inner, &binding).expect("seal");
        let all = of(vec![key(1), key(2), key(3), key(4)]);
        assert_eq!(all.open_as(stored, inner, &binding).expect("open"), "value");
        assert_eq!(all.opened(), [0, 0, 1, 0]);
    }
}
