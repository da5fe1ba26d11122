//! Building a key part by part, as the attribute does.

use std::mem;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::generation::Group;
use crate::key::{
    DirectEncode, Encoder, FunctionOf, Key, KeyBytes, Prefix, encoder, hasher, version,
};
use crate::panic::catch_panic;

/// The first byte of a key's material says what the rest is.
const ARGUMENTS: u8 = b'A';
const TEXT: u8 = b'T';
const TEXT_WITH_LENGTH: u8 = b'M';

/// A key under construction, and after [`finish`](Self::finish) a finished one, in one place: what is
/// written byte by byte is not moved soon after.
#[derive(Debug)]
pub struct KeyBuilder {
    pub(super) key: Key,
    /// Why the first part that cannot be encoded cannot.
    error: Option<Error>,
}

impl KeyBuilder {
    /// A key of arguments: [`encode`](Self::encode) each, then [`end_arguments`](Self::end_arguments).
    #[inline]
    pub fn arguments() -> Self {
        Self::begin(&[ARGUMENTS, encoder::TUPLE])
    }

    /// A key of one value that holds all the arguments.
    #[inline]
    pub(super) fn for_value() -> Self {
        Self::begin(&[ARGUMENTS])
    }

    /// A key of a text.
    pub fn text<K: KeyText + ?Sized>(text: &K) -> Self {
        let mut builder = Self::begin(&[TEXT]);
        builder.key.encoded.extend_from_slice(text.key_text().as_bytes());
        builder
    }

    /// Begins a key of arguments that has a version: [`encode`](Self::encode) each, then
    /// [`end_arguments_of_version`](Self::end_arguments_of_version).
    #[inline(always)]
    pub fn arguments_of_version(version: &str) -> Self {
        let mut builder = Self::begin(&[]);
        let encoded = &mut builder.key.encoded;
        version::begin(encoded, version);
        encoded.extend_from_slice(&[ARGUMENTS, encoder::TUPLE]);
        builder
    }

    /// Begins a key of a text that has a version.
    pub fn text_of_version<K: KeyText + ?Sized>(version: &str, text: &K) -> Self {
        let mut builder = Self::begin(&[]);
        version::begin(&mut builder.key.encoded, version);
        push_text_with_length(&mut builder.key.encoded, text.key_text());
        builder
    }

    #[inline]
    fn begin(start: &[u8]) -> Self {
        let mut encoded = KeyBytes::new();
        encoded.extend_from_slice(start);
        Self { key: Key { hash: 0, prefix: Prefix::EMPTY, encoded }, error: None }
    }

    /// Appends a value: one argument, or after the last one or a text, one more part.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn encode(&mut self, value: &(impl Serialize + ?Sized)) {
        self.append(|encoder| encoder.value(value));
    }

    /// [`encode`](Self::encode) for what needs no guard.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn encode_direct(&mut self, value: &(impl DirectEncode + ?Sized)) {
        if self.error.is_none() {
            self.prefix_text_with_length();
            value.encode(&mut self.key.encoded);
        }
    }

    /// Appends values whose order has no meaning.
    pub fn encode_set<'a, T: Serialize + 'a>(&mut self, set: impl IntoIterator<Item = &'a T>) {
        self.append(|encoder| encoder.unordered(set));
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn append(
        &mut self,
        encode: impl FnOnce(&mut Encoder<'_>) -> Result<(), encoder::EncodeError>,
    ) {
        if self.error.is_some() {
            return;
        }
        self.prefix_text_with_length();
        let encoded = &mut self.key.encoded;
        if let Err(error) = catch_panic("encode arguments", || {
            encode(&mut Encoder::new(encoded)).map_err(|error| {
                Error::new(ErrorKind::Encode, "encode arguments").with_source(error)
            })
        }) {
            self.error = Some(error);
        }
    }

    /// Ends the list of arguments: what is encoded from here on are further parts.
    #[inline]
    pub fn end_arguments(&mut self) {
        // No arguments are `()`, which serde does not take for a tuple.
        let encoded = &mut self.key.encoded;
        if encoded.len() == 2 {
            *encoded = KeyBytes::new();
            encoded.extend_from_slice(&[ARGUMENTS, encoder::UNIT]);
        } else {
            encoded.push(encoder::END);
        }
    }

    /// [`end_arguments`](Self::end_arguments) of a key that has this version.
    #[inline(always)]
    pub fn end_arguments_of_version(&mut self, version: &str) {
        let encoded = &mut self.key.encoded;
        if encoded.len() == version::length(version) + 2 {
            *encoded = KeyBytes::new();
            version::begin(encoded, version);
            encoded.extend_from_slice(&[ARGUMENTS, encoder::UNIT]);
        } else {
            encoded.push(encoder::END);
        }
    }

    /// Adds the tags that the key carries for the methods of a cache.
    pub fn set_tags(&mut self, tags: &[Group]) {
        self.key.encoded.set_tags(tags.to_vec());
    }

    /// A text alone runs to the end; one that is followed by parts needs its length in front.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn prefix_text_with_length(&mut self) {
        let encoded = &mut self.key.encoded;
        if encoded.first() == Some(&TEXT) {
            let text = mem::replace(encoded, KeyBytes::new());
            push_bytes_with_length(encoded, &text[1..]);
        }
    }

    /// Ends the key, which is that of a call of what has this prefix.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn finish(&mut self, prefix: impl Into<Prefix>) {
        let prefix = prefix.into();
        self.key.hash = hasher::hash(&prefix, &self.key.encoded);
        self.key.prefix = prefix;
    }

    /// [`finish`](Self::finish) for a call of the function with this body.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn finish_of<F: ?Sized>(&mut self, function: FunctionOf<F>) {
        self.key.hash = hasher::hash(&function, &self.key.encoded);
        self.key.prefix = function.into();
    }

    /// The finished key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] when a part could not be serialized, [`ErrorKind::Panic`] when its
    /// `Serialize` panicked.
    #[inline]
    pub fn key(&self) -> Result<&Key, KeyError<'_>> {
        match &self.error {
            None => Ok(&self.key),
            Some(error) => Err(KeyError { prefix: &self.key.prefix, error }),
        }
    }

    /// [`key`](Self::key), taken out.
    pub(super) fn into_key(self) -> Result<Key> {
        self.error.map_or(Ok(self.key), Err)
    }
}

/// Why there is no key, and of what there is none.
#[derive(Debug, Clone, Copy)]
pub struct KeyError<'a> {
    pub(crate) prefix: &'a Prefix,
    pub(crate) error: &'a Error,
}

impl KeyError<'_> {
    /// The error for a caller who asks for the key.
    pub(crate) fn to_error(self) -> Error {
        Error::new(self.error.kind(), "encode arguments").with_source(self.error.to_string())
    }
}

/// Appends a text that parts may follow.
pub(super) fn push_text_with_length(encoded: &mut KeyBytes, text: &str) {
    push_bytes_with_length(encoded, text.as_bytes());
}

fn push_bytes_with_length(encoded: &mut KeyBytes, text: &[u8]) {
    encoded.push(TEXT_WITH_LENGTH);
    encoded.extend_from_slice(&(text.len() as u64).to_le_bytes());
    encoded.extend_from_slice(text);
}

/// The text of this material, if it is a text and nothing else. It has no version in front.
pub(super) fn text_of(encoded: &[u8]) -> Option<&str> {
    let text = match encoded.split_first() {
        Some((&TEXT, text)) => text,
        Some((&TEXT_WITH_LENGTH, rest)) => {
            let (length, text) = rest.split_first_chunk()?;
            (u64::from_le_bytes(*length) == text.len() as u64).then_some(text)?
        }
        _ => return None,
    };
    std::str::from_utf8(text).ok()
}

/// What may be given as the text of a key: `&str`, `String` and whatever else is `AsRef<str>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the text of a key",
    label = "a key is a text",
    note = "write `key = format!(\"{{id}}\")`, or leave `key` out to use all the arguments"
)]
pub trait KeyText {
    /// The text.
    fn key_text(&self) -> &str;
}

impl<T: AsRef<str> + ?Sized> KeyText for T {
    fn key_text(&self) -> &str {
        self.as_ref()
    }
}
