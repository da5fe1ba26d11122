//! Prefixes that are strings in an attribute.

use once_cell::race::OnceBox;

use crate::key::hasher::Seeds;
use crate::key::words::TextWords;

/// A string that the attribute names as the prefix of a function. All that is computed of it is computed once: the key of a call takes
/// about as long as that of a function without a string of its own.
#[derive(Debug)]
pub struct LiteralPrefix {
    text: &'static str,
    literal: OnceBox<Literal>,
}

impl LiteralPrefix {
    /// Creates the prefix of this string.
    pub const fn new(text: &'static str) -> Self {
        Self { text, literal: OnceBox::new() }
    }

    #[inline(always)]
    pub(super) fn literal(&'static self) -> &'static Literal {
        self.literal.get_or_init(|| Box::new(Literal::of(self.text)))
    }
}

/// The parts of a key that are made of a string in an attribute, made once.
#[derive(Debug)]
pub(super) struct Literal {
    pub(super) text: &'static str,
    pub(super) words: TextWords,
    /// The seeds of the hashes of the keys with this prefix.
    pub(super) seeds: Seeds,
}

impl Literal {
    #[cold]
    fn of(text: &'static str) -> Self {
        Self { text, words: TextWords::of(text), seeds: Seeds::of(text) }
    }
}
