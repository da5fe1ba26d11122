//! The stored form of values in memory.

use vayu_core::__internal::{value_from_words, value_words};
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

    /// Returns the value of these words.
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
        let [kind, word] = value_words(self)?;
        Some([kind, word, 0])
    }

    #[inline(always)]
    fn from_words([kind, word, _]: [u64; VALUE_WORDS]) -> Option<Self> {
        value_from_words([kind, word])
    }
}
