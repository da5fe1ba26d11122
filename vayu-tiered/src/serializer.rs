//! The serializer of tiered caches.

use bytes::Bytes;
use vayu_core::{
    ByReference, EntryContext, InlineValue, Result, Serializer, SerializerId, ValueClass,
};

use crate::value::TieredValue;

/// Keeps values in memory by reference, and encodes them with another serializer for the backing tier.
///
/// A value that the other serializer cannot return unchanged is stored in memory only.
#[derive(Debug, Clone, Copy, Default)]
pub struct TieredSerializer<S>(S);

impl<S> TieredSerializer<S> {
    /// Creates a serializer that encodes values for the backing tier with this one.
    pub fn new(serializer: S) -> Self {
        Self(serializer)
    }
}

#[diagnostic::do_not_recommend]
impl<T, S> Serializer<T> for TieredSerializer<S>
where
    T: Clone + Send + Sync + 'static,
    S: Serializer<T, Stored = Bytes> + Clone,
{
    type Stored = TieredValue;

    #[inline]
    fn id(&self) -> SerializerId {
        self.0.id()
    }

    #[inline]
    fn schema(&self) -> u64 {
        self.0.schema()
    }

    fn serialize(&self, value: &T) -> Result<TieredValue> {
        Ok(TieredValue::computed(value, self.0.clone()))
    }

    #[inline]
    fn deserialize(&self, stored: &TieredValue) -> Result<T> {
        stored.get(&self.0, None)
    }

    #[inline]
    fn deserialize_for(&self, stored: &TieredValue, entry: &EntryContext<'_>) -> Result<T> {
        stored.get(&self.0, Some(entry))
    }

    #[inline]
    fn deserialize_owned_for(
        &self,
        stored: &mut TieredValue,
        entry: &EntryContext<'_>,
    ) -> Result<T> {
        stored.get(&self.0, Some(entry))
    }

    /// Returns `false`: the bytes of a value are dropped when it is decoded.
    fn is_renewable(&self) -> bool {
        false
    }

    fn verify(&self, stored: &TieredValue, entry: &EntryContext<'_>) -> Result<()> {
        stored.verify::<T, S>(&self.0, entry)
    }

    #[inline(always)]
    fn deserialize_inline(&self, value: InlineValue) -> Option<T> {
        value.downcast()
    }

    #[inline]
    fn value_class(&self) -> ValueClass {
        // A value that memory keeps is cloned. One that is not decoded yet is decoded under a guard, and
        // not under a lock.
        Serializer::<T>::value_class(&ByReference)
    }
}
