//! The stored form of values in memory.

use vayu_core::{AnyValue, InlineValue};

/// The stored form of a memory backend: an [`AnyValue`], or more than that where it is a part of
/// another backend.
pub trait MemoryValue: Clone + Send + Sync + 'static {
    /// Returns the value.
    fn value(&self) -> &AnyValue;

    /// `true` if the words of a value are all of it. Otherwise they are what a lock-free read needs, and
    /// the value is kept beside them.
    #[doc(hidden)]
    const IS_WORDS: bool = true;

    /// Returns the value as words, if it fits. It is then read without a lock.
    #[doc(hidden)]
    fn to_words(&self) -> Option<[u64; VALUE_WORDS]> {
        None
    }

    /// Returns the value of these words, if they are all of it.
    #[doc(hidden)]
    #[inline]
    fn from_words(words: [u64; VALUE_WORDS]) -> Option<Self> {
        let _ = words;
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

    #[inline]
    fn from_words([kind, bits, _]: [u64; VALUE_WORDS]) -> Option<Self> {
        InlineValue::from_words([kind, bits]).to_value()
    }
}
