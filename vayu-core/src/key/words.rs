//! Short keys as words.
//!
//! The words of a key are a header, the encoded arguments, and the prefix if it is a string, each padded
//! with zeros to whole words. The header has the number of the function (zero for a string), the two
//! lengths and the number of words, so two keys are equal if and only if their words are.

use crate::key::bytes::{KeyBytes, SHORT, WORD};
use crate::key::{Key, Prefix};

/// The maximum number of words after the header.
const MAX: usize = SHORT / WORD;

/// The number of words of a key that has too many.
const TOO_MANY: u64 = 0xff;

/// Returns the header of a key of a function, with this number in its upper half.
#[inline(always)]
pub(super) fn header_of_function(number: u64, length: usize) -> u64 {
    header(number, length, 0, length.div_ceil(WORD))
}

/// A string that is a prefix, as words.
#[derive(Debug)]
pub(super) struct TextWords {
    /// The length of the string, in bytes.
    length: usize,
    /// The number of its words.
    count: usize,
    /// The first of them, padded with zeros.
    words: [u64; MAX],
}

impl TextWords {
    pub(super) fn of(text: &str) -> Self {
        let mut words = [0; MAX];
        for (word, bytes) in words.iter_mut().zip(text.as_bytes().chunks(WORD)) {
            let mut padded = [0; WORD];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        Self { length: text.len(), count: text.len().div_ceil(WORD), words }
    }
}

/// Returns the header of a key whose prefix is this string, and appends the words of the string, if there are
/// not too many.
#[inline(always)]
pub(super) fn header_of_text(text: &TextWords, encoded: &mut KeyBytes) -> u64 {
    let start = encoded.len().div_ceil(WORD);
    let words = start + text.count;
    if words <= MAX {
        encoded.set_words(start, &text.words);
    }
    header(0, encoded.len(), text.length, words)
}

#[inline(always)]
fn header(number: u64, length: usize, prefix_length: usize, words: usize) -> u64 {
    if words > MAX {
        return number | TOO_MANY;
    }
    number | (prefix_length as u64) << 16 | (length as u64) << 8 | words as u64
}

/// Returns the prefix of the key of these words, which has been a key of this process.
pub(crate) fn prefix_of_words(words: &[u64]) -> Option<Prefix> {
    let (&header, rest) = words.split_first()?;
    if header & TOO_MANY > rest.len() as u64 {
        return None;
    }
    let number = header >> 32 << 32;
    if number != 0 {
        return Prefix::of_function_number(number);
    }
    let [_, length, prefix_length, ..] = header.to_le_bytes().map(usize::from);
    let bytes: Vec<u8> = rest.iter().flat_map(|word| word.to_le_bytes()).collect();
    let start = length.next_multiple_of(WORD);
    let text = bytes.get(start..start.checked_add(prefix_length)?)?;
    Some(String::from_utf8(text.to_vec()).ok()?.into())
}

impl Key {
    /// Returns a short key as `N` words (2 to 7). Two keys are equal if and only if their words are.
    ///
    /// `None` where it does not fit. The words are valid in this process.
    #[inline(always)]
    pub(crate) fn inline_words<const N: usize>(&self) -> Option<[u64; N]> {
        const { assert!(N >= 2 && N <= 1 + MAX) };
        if self.header & TOO_MANY >= N as u64 {
            return None;
        }
        let words = self.encoded.words::<MAX>();
        Some(std::array::from_fn(|n| if n == 0 { self.header } else { words[n - 1] }))
    }
}

#[cfg(test)]
mod tests {
    use crate::key::words::prefix_of_words;
    use crate::key::{Key, LiteralPrefix, Prefix};

    fn literal(text: &'static str) -> &'static LiteralPrefix {
        Box::leak(Box::new(LiteralPrefix::new(text)))
    }

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
        let (texts, strings) =
            if cfg!(miri) { (&texts[..4], &strings[..2]) } else { (&texts[..], &strings[..]) };
        let prefixes: Vec<Prefix> = strings
            .iter()
            .flat_map(|&text| {
                let literals = [(); 2].map(|()| Prefix::from(literal(text)));
                let texts =
                    [text.into(), text.to_owned().into(), (&*text.to_owned().leak()).into()];
                texts.into_iter().chain(literals)
            })
            .chain([generic::<u8>(), generic::<u8>(), generic::<i8>(), Prefix::of_body::<u8>()])
            .collect();
        let keys: Vec<_> = prefixes
            .iter()
            .flat_map(|prefix| texts.iter().map(|text| Key::from_text(prefix.clone(), text)))
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
    fn prefix_is_found_in_the_words_of_a_key() {
        let prefixes = [
            Prefix::of_body::<u8>(),
            Prefix::of_body::<u16>(),
            "".into(),
            "p".into(),
            "nine byte".into(),
            literal("p").into(),
            literal("nine byte").into(),
        ];
        for prefix in prefixes {
            for length in 0..18 {
                let key = Key::from_text(prefix.clone(), "k".repeat(length));
                let words = key.inline_words::<7>().expect("a short key");
                assert_eq!(prefix_of_words(&words), Some(prefix.clone()), "{length}");
                if let Some(words) = key.inline_words::<3>() {
                    assert_eq!(prefix_of_words(&words), Some(prefix.clone()), "{length}");
                } else {
                    assert_eq!(prefix_of_words(&words[..3]), None);
                }
            }
        }
        assert_eq!(prefix_of_words(&[]), None);
        assert_eq!(prefix_of_words(&[u64::MAX, 1, 1]), None, "no key has these words");
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
