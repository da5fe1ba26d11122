//! Prefixes that are strings in an attribute.

use once_cell::race::OnceBox;

use crate::key::hasher::Seeds;
use crate::key::words::TextWords;

/// A string that the attribute names as the prefix of a function, with all that is computed of it once: the key of a call takes about
/// as long as that of a function without a string of its own.
#[derive(Debug)]
pub struct LiteralPrefix {
    text: &'static str,
    words: TextWords,
    seeds: OnceBox<Seeds>,
}

impl LiteralPrefix {
    /// Creates the prefix of this string.
    pub const fn new(text: &'static str) -> Self {
        Self { text, words: TextWords::of(text), seeds: OnceBox::new() }
    }

    /// Returns the string.
    #[inline]
    pub(super) fn text(&self) -> &'static str {
        self.text
    }

    /// Returns the string as words.
    #[inline(always)]
    pub(super) fn words(&self) -> &TextWords {
        &self.words
    }

    /// Returns the seeds of the hashes of the keys with this prefix.
    #[inline(always)]
    pub(super) fn seeds(&self) -> &Seeds {
        self.seeds.get_or_init(|| Box::new(Seeds::of(self.text)))
    }
}
