//! Short keys as words.

use std::ptr;

use crate::key::Key;
use crate::key::prefix::StaticPrefix;

impl Key {
    /// Returns a short key as `N` words (2 to 6), which compare equal only if the keys are equal.
    ///
    /// `None` where it does not fit: the encoded arguments may have two bytes less than all words but
    /// one, and the prefix must be a function or a static string of up to 254 bytes. The words are valid
    /// in this process. Equal keys may have different words: a function, or a static string, may have
    /// several addresses.
    #[inline(always)]
    pub(crate) fn inline_words<const N: usize>(&self) -> Option<[u64; N]> {
        let length = self.encoded.len();
        if length > (N - 1) * size_of::<u64>() - 2 {
            return None;
        }
        // A static string is identified by its address and one more than its length, a function by its
        // address and zero.
        let (address, text) = match self.prefix.as_static()? {
            StaticPrefix::Function(function) => (ptr::from_ref(function).addr(), 0),
            StaticPrefix::Text(text) => (text.as_ptr().addr(), u8::try_from(text.len() + 1).ok()?),
        };
        let lengths = (length as u64) << 56 | u64::from(text) << 48;
        let encoded = self.encoded.words::<N>();
        Some(std::array::from_fn(|n| match n.checked_sub(1) {
            None => address as u64,
            Some(at) if n == N - 1 => encoded[at] | lengths,
            Some(at) => encoded[at],
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::key::{Key, Prefix};

    #[test]
    fn words_are_those_of_one_key_and_of_no_other() {
        let texts = ["", "a", "b", "a\0", "\0", "thirteen byte", "thirteen bytes"];
        let prefixes =
            || ["p".into(), "q".into(), Prefix::of_body::<u8>(), Prefix::of_body::<i8>()];
        let keys: Vec<_> = texts
            .iter()
            .flat_map(|text| prefixes().map(|prefix: Prefix| Key::from_text(prefix, text)))
            .collect();
        for (n, key) in keys.iter().enumerate() {
            for (m, other) in keys.iter().enumerate() {
                if let Some(words) = key.inline_words::<3>() {
                    assert_eq!(other.inline_words() == Some(words), n == m, "{key} {other}");
                }
                assert_eq!(
                    key.inline_words::<5>() == other.inline_words::<5>(),
                    n == m,
                    "{key} {other}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_long_has_no_words() {
        let of = |prefix: Prefix, length: usize| Key::from_text(prefix, "k".repeat(length - 1));
        assert!(of("p".into(), 14).inline_words::<3>().is_some());
        assert!(of("p".into(), 15).inline_words::<3>().is_none());
        assert!(of("p".into(), 30).inline_words::<5>().is_some());
        assert!(of("p".into(), 31).inline_words::<5>().is_none());
        assert!(of("p".to_owned().into(), 3).inline_words::<5>().is_none());
        let long: &'static str = "k".repeat(255).leak();
        assert!(of(long.into(), 3).inline_words::<5>().is_none());
        assert!(of(long[1..].into(), 3).inline_words::<5>().is_some());
    }
}
