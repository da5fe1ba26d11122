//! Values in the form that both tiers use.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use vayu_core::__internal::{IgnorePoison, QuietDrop, catch_panic};
use vayu_core::{AnyValue, EntryContext, InlineValue, Record, Result, Serializer, Timestamp};
use vayu_memory::MemoryValue;

use crate::slot_versions::Copies;

impl vayu_core::attribute::Encoded for TieredValue {}

/// The stored form of a tiered cache: the value by reference, and its encoder.
#[derive(Clone)]
pub struct TieredValue {
    value: AnyValue,
    /// One word, as memory stores it with every value, where it is `None`.
    encoder: Option<Arc<Box<dyn Encode>>>,
}

/// Bytes of the backing tier, which the first reader of the value decodes.
struct LazyValue {
    decoded: OnceLock<AnyValue>,
    encoded: Mutex<Option<EncodedValue>>,
    /// Those in memory, which are not to be kept if it cannot be decoded: the backing tier may get a value that can be.
    copies: Option<Copies>,
}

/// The bytes of a value, with the times of its record in the backing tier. Those of a copy may differ.
#[derive(Clone)]
struct EncodedValue {
    bytes: Bytes,
    created: Timestamp,
    expires: Timestamp,
    stale_until: Timestamp,
}

trait Encode: Send + Sync {
    fn encode(&self, value: &AnyValue, entry: &EntryContext<'_>) -> Result<Bytes>;
}

struct Encoder<T, S> {
    // An inline value is dropped with this, without a guard against panics.
    serializer: QuietDrop<S>,
    value_type: PhantomData<fn(&T)>,
}

impl<T: 'static, S: Serializer<T, Stored = Bytes>> Encode for Encoder<T, S> {
    fn encode(&self, value: &AnyValue, entry: &EntryContext<'_>) -> Result<Bytes> {
        let value = value.downcast_ref().expect("the encoder was created for this value");
        let serializer = self.serializer.get().expect("it is always there");
        catch_panic("encode value", || serializer.serialize_for(value, entry))
    }
}

impl LazyValue {
    /// Invalidates its copies in memory.
    fn invalidate_copies(&self) {
        if let Some(copies) = &self.copies {
            copies.invalidate();
        }
    }
}

impl TieredValue {
    /// Creates the stored form of a computed value.
    pub(crate) fn computed<T, S>(value: &T, serializer: S) -> Self
    where
        T: Clone + Send + Sync + 'static,
        S: Serializer<T, Stored = Bytes>,
    {
        let encoder = Encoder { serializer: serializer.into(), value_type: PhantomData };
        Self { value: AnyValue::new(value.clone()), encoder: Some(Arc::new(Box::new(encoder))) }
    }

    /// Converts a record of the backing tier.
    pub fn of_record(record: Record<Bytes>) -> Record<Self> {
        Self::of_bytes(record, None)
    }

    /// Converts a record of the backing tier that is copied to memory.
    pub(crate) fn of_copied(record: Record<Bytes>, copies: Copies) -> Record<Self> {
        Self::of_bytes(record, Some(copies))
    }

    fn of_bytes(record: Record<Bytes>, copies: Option<Copies>) -> Record<Self> {
        let (created, expires, stale_until) =
            (record.created(), record.expires(), record.stale_until());
        record.map(|bytes| {
            let encoded = Mutex::new(Some(EncodedValue { bytes, created, expires, stale_until }));
            Self::from_value(AnyValue::new(LazyValue { decoded: OnceLock::new(), encoded, copies }))
        })
    }

    /// Creates the stored form of a value in memory.
    #[inline]
    pub fn from_value(value: AnyValue) -> Self {
        Self { value, encoder: None }
    }

    /// Returns the value by reference.
    pub fn value(&self) -> &AnyValue {
        &self.value
    }

    /// Returns the bytes of a value that was computed or read from the backing tier, encoded for this entry.
    /// `None` for a value from memory, and for one that was decoded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](vayu_core::ErrorKind::Encode) for a value that the serializer cannot
    /// return unchanged.
    pub fn to_bytes(&self, entry: &EntryContext<'_>) -> Result<Option<Bytes>> {
        if let Some(lazy) = self.value.downcast_ref::<LazyValue>() {
            let encoded = lazy.encoded.lock().ignore_poison();
            return Ok(encoded.as_ref().map(|encoded| encoded.bytes.clone()));
        }
        self.encoder.as_ref().map(|encoder| encoder.encode(&self.value, entry)).transpose()
    }

    /// Returns a clone of the value, decoded if necessary.
    #[inline]
    pub(crate) fn get<T, S>(&self, serializer: &S, entry: Option<&EntryContext<'_>>) -> Result<T>
    where
        T: Clone + Send + Sync + 'static,
        S: Serializer<T, Stored = Bytes>,
    {
        match self.value.downcast_ref::<T>() {
            Some(value) => Ok(value.clone()),
            None => self.decode(serializer, entry),
        }
    }

    /// Returns an error for bytes of the backing tier that were not encoded for this entry.
    pub(crate) fn verify<T, S>(&self, serializer: &S, entry: &EntryContext<'_>) -> Result<()>
    where
        S: Serializer<T, Stored = Bytes>,
    {
        let Some(lazy) = self.value.downcast_ref::<LazyValue>() else { return Ok(()) };
        let encoded = lazy.encoded.lock().ignore_poison().clone();
        encoded.map_or(Ok(()), |EncodedValue { bytes, created, expires, stale_until }| {
            let entry = entry.with_times(created, expires, stale_until);
            serializer.verify(&bytes, &entry).inspect_err(|_| lazy.invalidate_copies())
        })
    }

    /// Returns whether the value is to be decoded, which runs code of users.
    #[inline]
    pub(crate) fn is_encoded(&self) -> bool {
        self.value.downcast_ref::<LazyValue>().is_some_and(|lazy| lazy.decoded.get().is_none())
    }

    /// Returns a number as an inline value, also if it came from the backing tier and has been decoded.
    pub(crate) fn to_inline(&self) -> Option<InlineValue> {
        match self.value.downcast_ref::<LazyValue>() {
            Some(lazy) => lazy.decoded.get()?.to_inline(),
            None => self.value.to_inline(),
        }
    }

    #[cold]
    fn decode<T, S>(&self, serializer: &S, entry: Option<&EntryContext<'_>>) -> Result<T>
    where
        T: Clone + Send + Sync + 'static,
        S: Serializer<T, Stored = Bytes>,
    {
        let Some(lazy) = self.value.downcast_ref::<LazyValue>() else { return Err(other_type()) };
        if let Some(decoded) = lazy.decoded.get() {
            return decoded.downcast_ref::<T>().cloned().ok_or_else(other_type);
        }
        let encoded = lazy.encoded.lock().ignore_poison().clone();
        // Another reader has decoded it in the meantime.
        let Some(encoded) = encoded else { return self.decode(serializer, entry) };
        // Guarded here, as an inline value is decoded without a guard where the entry is in this process.
        let value = catch_panic("decode value", || {
            let EncodedValue { bytes, created, expires, stale_until } = &encoded;
            match entry.map(|entry| entry.with_times(*created, *expires, *stale_until)) {
                Some(entry) => serializer.deserialize_for(bytes, &entry),
                None => serializer.deserialize(bytes),
            }
        });
        let value = value.inspect_err(|_| lazy.invalidate_copies())?;
        if lazy.decoded.set(AnyValue::new(value.clone())).is_ok() {
            *lazy.encoded.lock().ignore_poison() = None;
        }
        Ok(value)
    }
}

fn other_type() -> vayu_core::Error {
    vayu_core::Error::new(
        vayu_core::ErrorKind::Decode,
        "the entry contains a value of another type",
    )
}

impl MemoryValue for TieredValue {
    fn value(&self) -> &AnyValue {
        &self.value
    }
}

impl fmt::Debug for TieredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_computed = self.encoder.is_some();
        f.debug_struct("TieredValue").field("is_computed", &is_computed).finish_non_exhaustive()
    }
}
