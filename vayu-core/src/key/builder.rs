//! Building a key part by part, as the attribute does.

use std::fmt::Display;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::generation::Group;
use crate::key::kind::{ARGUMENTS, TEXT, push_bytes_with_length, push_text_with_length};
use crate::key::{
    DirectEncode, Encoder, FunctionOf, Key, KeyBytes, Prefix, encoder, label, version,
};
use crate::panic::catch_panic;

/// A key under construction, and after [`finish`](Self::finish) a finished one. It is not moved in
/// between: moving bytes in words just after they were written one by one stalls (store forwarding).
#[derive(Debug)]
pub struct KeyBuilder {
    /// The key, or the error of the first part that could not be encoded.
    pub(super) key: Key,
}

impl KeyBuilder {
    /// Begins a key of arguments: [`encode`](Self::encode) each, then
    /// [`end_arguments`](Self::end_arguments).
    #[inline]
    pub fn arguments() -> Self {
        Self::begin(&[ARGUMENTS, encoder::TUPLE])
    }

    /// Begins a key of one value that holds all the arguments.
    #[inline]
    pub(super) fn for_value() -> Self {
        Self::begin(&[ARGUMENTS])
    }

    /// Begins a key of a string. Further parts are encoded after [`end_text`](Self::end_text).
    pub fn text<K: KeyString + ?Sized>(text: &K) -> Self {
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

    /// Begins a key of a string that has a version.
    pub fn text_of_version<K: KeyString + ?Sized>(version: &str, text: &K) -> Self {
        let mut builder = Self::begin(&[]);
        version::begin(&mut builder.key.encoded, version);
        push_text_with_length(&mut builder.key.encoded, text.key_text());
        builder
    }

    #[inline]
    fn begin(start: &[u8]) -> Self {
        let mut key = Key::EMPTY;
        key.encoded.extend_from_slice(start);
        Self { key }
    }

    /// Appends a value: an argument, or a further part after the last argument or the string.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn encode(&mut self, value: &(impl Serialize + ?Sized)) {
        self.append(|encoder| encoder.value(value));
    }

    /// Appends a value as [`encode`](Self::encode) does, where encoding cannot fail or panic.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn encode_direct(&mut self, value: &(impl DirectEncode + ?Sized)) {
        // After an error as well, since the key is not used then.
        value.encode(&mut self.key.encoded);
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
        if self.key.encoded.error().is_some() {
            return;
        }
        let encoded = &mut self.key.encoded;
        if let Err(error) = catch_panic("encode arguments", || {
            encode(&mut Encoder::new(encoded)).map_err(|error| {
                Error::new(ErrorKind::Encode, "encode arguments").with_source(error)
            })
        }) {
            self.key.encoded.set_error(error);
        }
    }

    /// Ends the list of arguments: values that are encoded from here on are further parts.
    #[inline]
    pub fn end_arguments(&mut self) {
        // An empty list of arguments is `()`, which is not a tuple in serde.
        let encoded = &mut self.key.encoded;
        if encoded.len() == 2 {
            encoded.set_last(encoder::UNIT);
        } else {
            encoded.push(encoder::END);
        }
    }

    /// Ends the list of arguments of a key that has this version: see
    /// [`end_arguments`](Self::end_arguments).
    #[inline(always)]
    pub fn end_arguments_of_version(&mut self, version: &str) {
        let encoded = &mut self.key.encoded;
        if encoded.len() == version::length(version) + 2 {
            encoded.set_last(encoder::UNIT);
        } else {
            encoded.push(encoder::END);
        }
    }

    /// Adds the tags that the key carries for the methods of a cache.
    pub fn set_tags(&mut self, tags: &[Group]) {
        self.key.encoded.set_tags(tags.to_vec());
    }

    /// Sets the label that the key carries for backends outside of the process.
    pub fn set_label(&mut self, label: impl Display) {
        self.key.encoded.set_label(Some(label::bounded(&label)));
    }

    /// Ends the string of a key, so that further parts can follow: inserts its length, which a key of a string alone does not
    /// have.
    pub fn end_text(&mut self) {
        let encoded = &mut self.key.encoded;
        if encoded.first() == Some(&TEXT) {
            let text = mem::replace(encoded, KeyBytes::new());
            push_bytes_with_length(encoded, &text[1..]);
        }
    }

    /// Completes the key with the prefix of the call.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn finish(&mut self, prefix: impl Into<Prefix>) {
        self.key.set_prefix(prefix);
    }

    /// Completes the key of a call of the function with this body.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn finish_of<F: ?Sized>(&mut self, function: FunctionOf<F>) {
        self.finish(function);
    }

    /// Returns the finished key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] when a part could not be serialized, [`ErrorKind::Panic`] when its
    /// `Serialize` panicked.
    #[inline]
    pub fn key(&self) -> Result<&Key, KeyError<'_>> {
        match self.key.encoded.error() {
            None => Ok(&self.key),
            Some(error) => Err(KeyError { prefix: &self.key.prefix, error }),
        }
    }

    /// Moves the key to another builder. What stays needs no destructor, and is not to be used.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn take(&mut self) -> Self {
        Self { key: self.key.take() }
    }

    /// Returns the finished key, moved out of the builder.
    pub(super) fn into_key(mut self) -> Result<Key> {
        match self.key.encoded.take_error() {
            None => Ok(self.key),
            Some(error) => Err(error),
        }
    }
}

/// The key of one call, in a variable that its scope does not drop.
///
/// After a panic, a scope passes the address of each variable to its destructor, and a variable whose address is passed anywhere is in
/// memory: the key of a number would not be in registers. The engine drops the key, or
/// moves it. If code of users panics before that (the label, a tag, a clock, and with a pattern among the arguments the ttl), a key that is
/// longer than the builder leaves its memory allocated.
#[derive(Debug)]
pub struct CallKeyBuilder(ManuallyDrop<KeyBuilder>);

impl CallKeyBuilder {
    /// Creates the key of a call.
    #[inline(always)]
    pub fn new(builder: KeyBuilder) -> Self {
        Self(ManuallyDrop::new(builder))
    }

    /// Moves the key out. What stays needs no destructor.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> KeyBuilder {
        self.0.take()
    }

    /// Drops the key, if it has anything to be dropped.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        if self.key.needs_drop() {
            drop_key(self.take());
        }
    }
}

/// Drops a key, which is passed by value, so that the variable that it was in needs no address.
#[cold]
#[inline(never)]
fn drop_key(key: KeyBuilder) {
    drop(key);
}

impl Deref for CallKeyBuilder {
    type Target = KeyBuilder;

    #[inline(always)]
    fn deref(&self) -> &KeyBuilder {
        &self.0
    }
}

impl DerefMut for CallKeyBuilder {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut KeyBuilder {
        &mut self.0
    }
}

/// The error of a key that could not be encoded, and the prefix of that key.
#[derive(Debug, Clone, Copy)]
pub struct KeyError<'a> {
    pub(crate) prefix: &'a Prefix,
    pub(crate) error: &'a Error,
}

impl KeyError<'_> {
    /// Returns an owned error of the same kind.
    pub(crate) fn to_error(self) -> Error {
        Error::new(self.error.kind(), "encode arguments").with_source(self.error.to_string())
    }
}

/// A string for a key: `&str`, `String` or another type that is `AsRef<str>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a string",
    label = "`key` takes a string",
    note = "write `key = format!(\"{{id}}\")`, or leave `key` out to use all the arguments"
)]
pub trait KeyString {
    /// Returns the string.
    fn key_text(&self) -> &str;
}

#[diagnostic::do_not_recommend]
impl<T: AsRef<str> + ?Sized> KeyString for T {
    fn key_text(&self) -> &str {
        self.as_ref()
    }
}
