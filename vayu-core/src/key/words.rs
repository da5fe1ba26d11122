//! Short keys as words.

use crate::key::Key;
use crate::key::bytes::{SHORT, WORD};

impl Key {
    /// Returns a short key as `N` words (2 to 7). Two keys are equal if and only if their words are.
    ///
    /// `None` where it does not fit. The first word has the number of the function and the length of the
    /// encoded arguments, which follow in as many words as they need. If the prefix is a string, the first
    /// word has its length in place of the number, and the string follows the arguments, in words of its
    /// own. The words are valid in this process.
    #[inline(always)]
    pub(crate) fn inline_words<const N: usize>(&self) -> Option<[u64; N]> {
        const { assert!(N >= 2 && N <= 1 + SHORT / WORD) };
        let length = self.encoded.len();
        match self.prefix.function() {
            Ok(function) if length <= (N - 1) * WORD => {
                let header = u64::from(function.number()) << 32 | length as u64;
                Some(std::array::from_fn(|n| match n.checked_sub(1) {
                    None => header,
                    Some(n) => self.encoded.word(n),
                }))
            }
            Ok(_) => None,
            Err(text) => self.inline_words_of_text(text),
        }
    }

    #[inline(never)]
    fn inline_words_of_text<const N: usize>(&self, prefix: &str) -> Option<[u64; N]> {
        let start = 1 + self.encoded.len().div_ceil(WORD);
        if start + prefix.len().div_ceil(WORD) > N {
            return None;
        }
        let header = (prefix.len() as u64) << 8 | self.encoded.len() as u64;
        let mut words = std::array::from_fn(|n| match n.checked_sub(1) {
            None => header,
            Some(n) => self.encoded.word(n),
        });
        for (word, bytes) in words[start..].iter_mut().zip(prefix.as_bytes().chunks(WORD)) {
            let mut whole = [0; WORD];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(whole);
        }
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use crate::key::{Key, Prefix};

    fn check<const N: usize>(keys: &[Key]) {
        for key in keys {
            let Some(words) = key.inline_words::<N>() else { continue };
            for other in keys {
                assert_eq!(other.inline_words() == Some(words), key == other, "{key} {other}");
            }
        }
    }

    #[test]
    fn words_are_equal_if_and_only_if_the_keys_are() {
        fn generic<T>() -> Prefix {
            fn of<F>(_: &F) -> Prefix {
                Prefix::of_body::<F>()
            }
            of(&|| size_of::<T>())
        }
        let texts = [
            "",
            "a",
            "b",
            "a\0",
            "\0",
            "seven b",
            "eight by",
            "fifteen letters",
            "sixteen letters!",
        ];
        let strings = ["", "p", "q", "p\0", "eight by", "nine byte", "a prefix of twenty-four"];
        let prefixes: Vec<Prefix> = strings
            .iter()
            .flat_map(|&text| {
                [text.into(), text.to_owned().into(), (&*text.to_owned().leak()).into()]
            })
            .chain([generic::<u8>(), generic::<u8>(), generic::<i8>(), Prefix::of_body::<u8>()])
            .collect();
        let keys: Vec<_> = prefixes
            .iter()
            .flat_map(|prefix| texts.map(|text| Key::from_text(prefix.clone(), text)))
            .chain([
                Key::new("p", &(1_u64,)).expect("a key"),
                Key::new("p", &(1_i64,)).expect("a key"),
            ])
            .collect();
        check::<2>(&keys);
        check::<3>(&keys);
        check::<5>(&keys);
        check::<7>(&keys);
        assert!(keys.iter().all(|key| key.inline_words::<7>().is_some()));
        for key in &keys {
            for other in &keys {
                assert_eq!(key == other, key.hash_code() == other.hash_code());
            }
        }
    }

    #[test]
    fn key_that_is_too_long_has_no_words() {
        let of = |prefix: Prefix, length: usize| Key::from_text(prefix, "k".repeat(length - 1));
        let function = Prefix::of_body::<u8>;
        assert!(of(function(), 16).inline_words::<3>().is_some());
        assert!(of(function(), 17).inline_words::<3>().is_none());
        assert!(of(function(), 48).inline_words::<7>().is_some());
        assert!(of(function(), 49).inline_words::<7>().is_none());
        for prefix in ["p".into(), Prefix::from("eight by".to_owned())] {
            assert!(of(prefix.clone(), 8).inline_words::<3>().is_some());
            assert!(of(prefix.clone(), 9).inline_words::<3>().is_none());
            assert!(of(prefix.clone(), 40).inline_words::<7>().is_some());
            assert!(of(prefix.clone(), 41).inline_words::<7>().is_none());
        }
        assert!(of("nine byte".into(), 8).inline_words::<3>().is_none());
        assert!(of("k".repeat(40).into(), 8).inline_words::<7>().is_some());
        assert!(of("k".repeat(41).into(), 8).inline_words::<7>().is_none());
        assert!(of("k".repeat(10_000).into(), 8).inline_words::<7>().is_none());
    }
}
