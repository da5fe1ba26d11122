//! A byte buffer for encoded keys.

use std::cmp::Ordering;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use crate::error::Error;
use crate::generation::Group;

/// A byte buffer that stores up to 48 bytes inline, without the heap.
///
/// Short contents are written and read in the same whole words: a load that is wider than the stores
/// before it stalls (store forwarding). The words after them are zero, or those of a prefix.
#[derive(Clone)]
pub struct KeyBytes {
    length: usize,
    short: [u8; SHORT],
    /// Dropped by [`drop_rest`].
    rest: ManuallyDrop<Option<Box<Rest>>>,
}

/// The parts that few keys have, behind one pointer, so that other keys need not initialize and drop
/// them.
#[derive(Default)]
struct Rest {
    /// All the bytes, once there are more than [`SHORT`].
    long: Vec<u8>,
    /// Tags that the key carries. They are not compared: they are not part of its identity.
    tags: Vec<Group>,
    /// A readable description of the call, which is not part of the identity either.
    label: Option<Box<str>>,
    /// The error of the first part that could not be encoded.
    error: Option<Error>,
}

/// Most keys have no such parts, and a small check is all that is inlined.
impl Drop for KeyBytes {
    #[inline]
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            drop_rest(rest);
        }
    }
}

#[cold]
#[inline(never)]
fn drop_rest(rest: Box<Rest>) {
    drop(rest);
}

/// Clones what a finished key has.
impl Clone for Rest {
    fn clone(&self) -> Self {
        let (long, tags, label) = (self.long.clone(), self.tags.clone(), self.label.clone());
        Self { long, tags, label, error: None }
    }
}

/// The maximum length of contents that are stored inline, in bytes.
pub(super) const SHORT: usize = 48;

pub(super) const WORD: usize = size_of::<u64>();

impl KeyBytes {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { length: 0, short: [0; SHORT], rest: ManuallyDrop::new(None) }
    }

    /// Returns whether there is memory on the heap.
    #[inline(always)]
    pub(super) fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// Moves the contents out, and leaves some that need no destructor and are not to be used.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn take(&mut self) -> Self {
        let rest = ManuallyDrop::new(self.rest.take());
        Self { length: self.length, short: self.short, rest }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        self.push_word(u64::from(byte), 1);
    }

    /// Appends the lowest bytes of a word, lowest first. The others must be zero.
    #[inline(always)]
    pub(crate) fn push_word(&mut self, word: u64, bytes: usize) {
        let (index, shift) = (self.length / WORD, self.length % WORD * 8);
        let ends_here = shift + bytes * 8 <= 64;
        let (places, _) = self.short.as_chunks_mut::<WORD>();
        match places.get_mut(index..) {
            Some([place, ..]) if ends_here => add(place, word << shift),
            Some([place, next, ..]) => {
                add(place, word << shift);
                *next = (word >> (64 - shift)).to_le_bytes();
            }
            _ => return self.extend_long(&word.to_le_bytes()[..bytes]),
        }
        self.length += bytes;
    }

    /// Appends the lowest bytes of a word as [`push_word`](Self::push_word) does, for one of many words: the
    /// contents are likely to be long.
    #[inline(always)]
    pub(super) fn push_word_of_many(&mut self, word: u64, bytes: usize) {
        match &mut *self.rest {
            Some(rest) if self.length > SHORT => {
                rest.long.extend_from_slice(&word.to_le_bytes()[..bytes]);
                self.length += bytes;
            }
            _ => self.push_first_word(word, bytes),
        }
    }

    #[cold]
    fn push_first_word(&mut self, word: u64, bytes: usize) {
        self.push_word(word, bytes);
    }

    /// Appends a byte and a word.
    #[inline(always)]
    pub(crate) fn push_tagged(&mut self, tag: u8, word: u64) {
        let (index, shift) = (self.length / WORD, self.length % WORD * 8);
        let (first, second) = (word << 8 | u64::from(tag), word >> 56);
        let (places, _) = self.short.as_chunks_mut::<WORD>();
        // Nine bytes end in the second word, wherever they start in the first.
        let Some([place, next, ..]) = places.get_mut(index..) else {
            let mut bytes = [tag; 1 + WORD];
            bytes[1..].copy_from_slice(&word.to_le_bytes());
            return self.extend_long(&bytes);
        };
        add(place, first << shift);
        *next = (carried(first, shift) | second << shift).to_le_bytes();
        self.length += 1 + WORD;
    }

    #[inline]
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        if bytes.len() > SHORT - self.length.min(SHORT) {
            return self.extend_long(bytes);
        }
        let (index, shift) = (self.length / WORD, self.length % WORD * 8);
        let (words, rest) = bytes.as_chunks();
        let last = match bytes.last_chunk() {
            Some(&last) => carried(u64::from_le_bytes(last), rest.len() * 8),
            None => padded(rest),
        };
        let (places, _) = self.short.as_chunks_mut::<WORD>();
        let mut places = places.get_mut(index..).unwrap_or_default().iter_mut();
        let mut carry = places.as_slice().first().map_or(0, |&place| u64::from_le_bytes(place));
        for (&word, place) in words.iter().zip(places.by_ref()) {
            let word = u64::from_le_bytes(word);
            *place = (carry | word << shift).to_le_bytes();
            carry = carried(word, shift);
        }
        if let Some(place) = places.next() {
            *place = (carry | last << shift).to_le_bytes();
            if let Some(next) = places.next() {
                *next = carried(last, shift).to_le_bytes();
            }
        }
        self.length += bytes.len();
    }

    /// Appends bytes whose number is not known in advance.
    pub(crate) fn extend(&mut self, mut bytes: impl Iterator<Item = u8>) {
        // The first bytes are buffered: if they fill the buffer, the contents need the heap.
        let mut buffer = [0; SHORT + 16];
        let mut filled = 0;
        for (place, byte) in buffer.iter_mut().zip(bytes.by_ref()) {
            *place = byte;
            filled += 1;
        }
        self.extend_from_slice(&buffer[..filled]);
        if filled == buffer.len() {
            self.long().extend(bytes);
            self.length = self.long().len();
        }
    }

    /// Reserves heap memory for further bytes, if they are too many to be stored inline.
    #[inline]
    pub(crate) fn reserve(&mut self, bytes: usize) {
        if bytes > SHORT {
            // The end of a key takes a few bytes more.
            self.long().reserve(bytes + 2 * SHORT);
        }
    }

    /// Returns the number of bytes.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Overwrites the last byte.
    #[inline(always)]
    pub(super) fn set_last(&mut self, byte: u8) {
        let Some(last) = self.length.checked_sub(1) else { return };
        if let Some(place) = self.short.get_mut(last) {
            *place = byte;
        } else if let Some(place) = self.long().last_mut() {
            *place = byte;
        }
    }

    /// Sets the words from this one on to the first ones of those given. The contents stay as they are: they end before.
    #[inline(always)]
    pub(super) fn set_words<const N: usize>(&mut self, start: usize, words: &[u64; N]) {
        // A copy to a place that is known when this is compiled takes a few instructions.
        match start {
            1 => self.copy_words(1, words),
            2 => self.copy_words(2, words),
            _ => self.copy_words(start, words),
        }
    }

    #[inline(always)]
    fn copy_words<const N: usize>(&mut self, start: usize, words: &[u64; N]) {
        let (places, _) = self.short.as_chunks_mut::<WORD>();
        for (place, word) in places.iter_mut().skip(start).zip(words) {
            *place = word.to_le_bytes();
        }
    }

    /// Returns the error of the first part that could not be encoded.
    #[inline(always)]
    pub(super) fn error(&self) -> Option<&Error> {
        self.rest.as_ref()?.error.as_ref()
    }

    /// Sets the error of the first part that could not be encoded.
    pub(super) fn set_error(&mut self, error: Error) {
        self.rest.get_or_insert_default().error = Some(error);
    }

    /// Removes that error.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        self.rest.as_mut()?.error.take()
    }

    /// Overwrites the four bytes at this position with a number.
    pub(crate) fn set(&mut self, place: usize, number: u32) {
        let bytes = if self.length <= SHORT { &mut self.short[..] } else { self.long() };
        bytes[place..place + size_of::<u32>()].copy_from_slice(&number.to_le_bytes());
    }

    /// Returns the first words of short contents, padded with zeros.
    #[inline(always)]
    pub(super) fn words<const N: usize>(&self) -> [u64; N] {
        const { assert!(N * WORD <= SHORT) };
        let (words, _) = self.short.as_chunks();
        std::array::from_fn(|n| u64::from_le_bytes(words[n]))
    }

    #[cold]
    fn extend_long(&mut self, bytes: &[u8]) {
        if self.length <= SHORT {
            self.reserve(bytes.len());
            let short = self.short;
            let length = self.length;
            self.long().extend_from_slice(&short[..length]);
        }
        self.long().extend_from_slice(bytes);
        self.length += bytes.len();
    }

    #[inline]
    fn long(&mut self) -> &mut Vec<u8> {
        &mut self.rest.get_or_insert_default().long
    }

    /// Returns the tags that the key carries.
    #[inline]
    pub(super) fn tags(&self) -> &[Group] {
        self.rest.as_ref().map_or(&[], |rest| &rest.tags)
    }

    /// Replaces the tags that the key carries.
    pub(super) fn set_tags(&mut self, tags: Vec<Group>) {
        if !tags.is_empty() || self.rest.is_some() {
            self.rest.get_or_insert_default().tags = tags;
        }
    }

    /// Returns the label that the key carries.
    #[inline]
    pub(super) fn label(&self) -> Option<&str> {
        self.rest.as_ref()?.label.as_deref()
    }

    /// Replaces the label that the key carries.
    pub(super) fn set_label(&mut self, label: Option<Box<str>>) {
        if label.is_some() || self.rest.is_some() {
            self.rest.get_or_insert_default().label = label;
        }
    }
}

#[inline(always)]
fn add(place: &mut [u8; WORD], bits: u64) {
    *place = (u64::from_le_bytes(*place) | bits).to_le_bytes();
}

/// Returns the upper bits of a word, those that a shift to the left moves out of it.
#[inline(always)]
fn carried(word: u64, shift: usize) -> u64 {
    word >> 1 >> (63 - shift)
}

/// Returns less than a word of bytes as a word, padded with zeros.
#[inline(always)]
fn padded(bytes: &[u8]) -> u64 {
    let part = |at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|&part| u32::from_le_bytes(part))
    };
    if let (Some(first), Some(last)) = (part(0), part(bytes.len().saturating_sub(4))) {
        return u64::from(first) | u64::from(last) << (bytes.len() * 8 - 32);
    }
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

impl Deref for KeyBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self.short.get(..self.length) {
            Some(short) => short,
            None => self.rest.as_ref().map_or(&[], |rest| &rest.long),
        }
    }
}

impl PartialEq for KeyBytes {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        if self.length > SHORT {
            return **self == **other;
        }
        self.length == other.length
            && self.words::<{ SHORT / WORD }>() == other.words::<{ SHORT / WORD }>()
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::collection::vec(0_u8..3, 0..20),
            proptest::collection::vec(3_u8.., 9),
            proptest::collection::vec(Just(0), 4..70),
        ]
    }

    proptest! {
        #[test]
        fn material_is_what_was_written(
            parts in proptest::collection::vec(parts(), 0..9),
        ) {
            let mut encoded = KeyBytes::new();
            for part in &parts {
                match *part.as_slice() {
                    [0, 0, 0, 0, ..] => {
                        encoded.extend(part.iter().copied());
                        let place = encoded.len() - part.len();
                        encoded.set(place, 7);
                        encoded.set(place, 0);
                    }
                    [1, ..] => encoded.extend(part.iter().copied()),
                    [2, ..] => {
                        encoded.reserve(part.len());
                        encoded.extend_from_slice(part);
                    }
                    [byte] => encoded.push(byte),
                    [a, b, c] => encoded.push_word(u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]), 3),
                    [tag, a, b, c, d, e, f, g, h] => {
                        encoded.push_tagged(tag, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
                    }
                    _ => encoded.extend_from_slice(part),
                }
            }
            let written = parts.concat();
            prop_assert_eq!(encoded.to_vec(), &written[..]);
            if written.len() <= SHORT {
                let mut bytes = written;
                bytes.resize(SHORT, 0);
                let words: [u64; SHORT / WORD] = encoded.words();
                prop_assert_eq!(words.map(u64::to_le_bytes).concat(), bytes);
            }
        }
    }
}
