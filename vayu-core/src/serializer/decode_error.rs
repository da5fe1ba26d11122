//! Errors of decoding, without the content of the value.
//!
//! The messages of serde and of the formats repeat what they have read, as in `invalid type: string "secret", expected
//! u32`. These errors are logged, and a log does not contain values. So an error keeps its category, and the position
//! where the format has one.

use std::any::type_name;
use std::borrow::Cow;

use crate::error::{Error, ErrorKind};

pub(super) const MISMATCH: &str = "the stored value is not of this type";
pub(super) const UNEXPECTED_END: &str = "unexpected end";
#[cfg(any(feature = "message-pack", feature = "postcard", feature = "bincode"))]
pub(super) const INVALID_UTF8: &str = "a string is not UTF-8";
#[cfg(feature = "message-pack")]
pub(super) const TOO_DEEP: &str = "the value is nested too deep";

/// Returns the error of decoding a `T` in this format.
pub(super) fn decode_error<T>(format: &str, category: impl Into<Cow<'static, str>>) -> Error {
    let message = format!("decode `{}` as {format}", type_name::<T>());
    Error::new(ErrorKind::Decode, message).with_source(category.into())
}
