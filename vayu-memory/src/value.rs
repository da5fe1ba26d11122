//! What holds a value in memory.

use vayu_core::AnyValue;

/// What a memory backend keeps of a value: a [`AnyValue`], or more than that where it is a part of
/// another backend.
pub trait MemoryValue: Clone + Send + Sync + 'static {
    /// The value.
    fn value(&self) -> &AnyValue;

    /// All of it in a few words, if it is as little as that. What is asked for often is then read
    /// without a lock.
    fn to_words(&self) -> Option<[u64; VALUE_WORDS]> {
        None
    }

    /// What has these words.
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
        let [kind, word] = self.to_words()?;
        Some([kind, word, 0])
    }

    #[inline(always)]
    fn from_words([kind, word, _]: [u64; VALUE_WORDS]) -> Option<Self> {
        Self::from_words([kind, word])
    }
}
