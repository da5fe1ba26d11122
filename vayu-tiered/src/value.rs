//! A value on its way between the tiers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use vayu_core::__internal::value_words;
use vayu_core::{AnyValue, Result, Serializer};
use vayu_memory::MemoryValue;

/// What a tiered cache keeps of a value: a reference, and the way to its bytes.
#[derive(Clone)]
pub struct TieredValue {
    shared: AnyValue,
    encoder: Option<Arc<dyn Encode>>,
}

/// Bytes that were found below, decoded by the first who wants the value.
struct Found {
    decoded: OnceLock<AnyValue>,
    bytes: Mutex<Option<Bytes>>,
}

trait Encode: Send + Sync {
    fn encode(&self, value: &AnyValue) -> Result<Bytes>;
}

struct Encoder<T, S> {
    serializer: S,
    value: PhantomData<fn(&T)>,
}

impl<T: 'static, S: Serializer<T, Stored = Bytes>> Encode for Encoder<T, S> {
    fn encode(&self, value: &AnyValue) -> Result<Bytes> {
        let value = value.downcast_ref().expect("the encoder was made for this very value");
        self.serializer.serialize(value)
    }
}

impl TieredValue {
    /// A value that was just computed.
    pub(crate) fn computed<T, S>(value: &T, serializer: S) -> Self
    where
        T: Clone + Send + Sync + 'static,
        S: Serializer<T, Stored = Bytes>,
    {
        let encoder = Encoder { serializer, value: PhantomData };
        Self { shared: AnyValue::new(value.clone()), encoder: Some(Arc::new(encoder)) }
    }

    /// A value that was found below.
    pub fn from_bytes(bytes: Bytes) -> Self {
        let found = Found { decoded: OnceLock::new(), bytes: Mutex::new(Some(bytes)) };
        Self::from_shared(AnyValue::new(found))
    }

    /// A value that was found in memory.
    #[inline]
    pub fn from_shared(shared: AnyValue) -> Self {
        Self { shared, encoder: None }
    }

    /// The reference that memory keeps.
    pub fn value(&self) -> &AnyValue {
        &self.shared
    }

    /// The bytes of the value, as its serializer writes them, if it was just computed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](vayu_core::ErrorKind::Encode) for a value that the serializer cannot
    /// give back.
    pub fn to_bytes(&self) -> Result<Option<Bytes>> {
        if let Some(found) = self.shared.downcast_ref::<Found>() {
            return Ok(found.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        self.encoder.as_ref().map(|encoder| encoder.encode(&self.shared)).transpose()
    }

    /// The value itself.
    #[inline]
    pub(crate) fn get<T, S>(&self, serializer: &S) -> Result<T>
    where
        T: Clone + Send + Sync + 'static,
        S: Serializer<T, Stored = Bytes>,
    {
        match self.shared.downcast_ref::<T>() {
            Some(value) => Ok(value.clone()),
            None => self.decode(serializer),
        }
    }

    #[cold]
    fn decode<T, S>(&self, serializer: &S) -> Result<T>
    where
        T: Clone + Send + Sync + 'static,
        S: Serializer<T, Stored = Bytes>,
    {
        let Some(found) = self.shared.downcast_ref::<Found>() else { return Err(other_type()) };
        if let Some(decoded) = found.decoded.get() {
            return decoded.downcast_ref::<T>().cloned().ok_or_else(other_type);
        }
        let bytes = found.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Another one has decoded it meanwhile.
        let Some(bytes) = bytes else { return self.decode(serializer) };
        let value = serializer.deserialize(&bytes)?;
        if found.decoded.set(AnyValue::new(value.clone())).is_ok() {
            *found.bytes.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(value)
    }
}

/// The words of a number, be it that it was found below and has been decoded.
pub(crate) fn words(shared: &AnyValue) -> Option<[u64; 2]> {
    match shared.downcast_ref::<Found>() {
        Some(found) => value_words(found.decoded.get()?),
        None => value_words(shared),
    }
}

fn other_type() -> vayu_core::Error {
    vayu_core::Error::new(vayu_core::ErrorKind::Decode, "the entry holds a value of another type")
}

impl MemoryValue for TieredValue {
    fn value(&self) -> &AnyValue {
        &self.shared
    }
}

impl fmt::Debug for TieredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_computed = self.encoder.is_some();
        f.debug_struct("TieredValue").field("is_computed", &is_computed).finish_non_exhaustive()
    }
}
