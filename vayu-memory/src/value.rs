//! The stored form of values in memory.

use vayu_core::AnyValue;

/// The stored form of a memory backend: an [`AnyValue`], or more than that where it is a part of
/// another backend.
pub trait MemoryValue: Clone + Send + Sync + 'static {
    /// Returns the value.
    fn value(&self) -> &AnyValue;

    /// Returns the whole of it as words, if it fits. It is then read without a lock where it is read
    /// often.
    #[doc(hidden)]
    fn to_words(&self) -> Option<[u64; VALUE_WORDS]> {
        None
    }
}

/// The words of a number, and one more.
pub(crate) const VALUE_WORDS: usize = 3;

impl MemoryValue for AnyValue {
    #[inline]
    fn value(&self) -> &AnyValue {
        self
    }

    #[inline]
    fn to_words(&self) -> Option<[u64; VALUE_WORDS]> {
        let [kind, bits] = self.to_inline()?.to_words();
        Some([kind, bits, 0])
    }
}
