//! What holds a value in memory.

use vayu_core::Shared;

/// What a memory backend keeps of a value: a [`Shared`], or more than that where it is a part of
/// another backend.
pub trait Held: Clone + Send + Sync + 'static {
    /// The value.
    fn shared(&self) -> &Shared;

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

impl Held for Shared {
    #[inline]
    fn shared(&self) -> &Shared {
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
