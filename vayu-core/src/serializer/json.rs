//! JSON, for entries that are read by humans or other programs.

use std::error::Error as StdError;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::decode_error::{MISMATCH, UNEXPECTED_END, decode_error};
use crate::serializer::exact::checked_serializer;

/// JSON, for any serde value that JSON can represent exactly.
///
/// Floats keep every bit. What JSON cannot express (NaN, infinities, `Some(None)`, maps whose keys
/// are not strings or numbers) is refused.
///
/// With the feature `sonic-json` it runs on sonic-rs; entries of either are read by both.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

checked_serializer!(Json, JSON);

#[cfg(not(feature = "sonic-json"))]
fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(not_encoded)
}

#[cfg(not(feature = "sonic-json"))]
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    decode_with_serde_json(bytes)
}

#[cfg(feature = "sonic-json")]
fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    sonic_rs::to_vec(value).map(Bytes::from).map_err(not_encoded)
}

#[cfg(feature = "sonic-json")]
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if suits_sonic(bytes) { decode_with_sonic(bytes) } else { decode_with_serde_json(bytes) }
}

/// Returns whether sonic-rs reads this input as `serde_json` does: it skips values by recursion, so nothing
/// may be nested too deep, and it loses the sign of `-0.0`.
#[cfg(feature = "sonic-json")]
fn suits_sonic(text: &[u8]) -> bool {
    const DEPTH: usize = 128;
    let mut depth = 0_usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => drop(bytes.next()),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'-' => {
                let is_zero = bytes
                    .as_slice()
                    .strip_prefix(b"0.0")
                    .is_some_and(|rest| rest.first().is_none_or(|next| !next.is_ascii_digit()));
                if is_zero {
                    return false;
                }
            }
            _ => {}
        }
        if depth > DEPTH {
            return false;
        }
    }
    true
}

fn not_encoded(error: impl StdError + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Encode, "encode as JSON").with_source(error)
}

fn decode_with_serde_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    use serde_json::error::Category;

    serde_json::from_slice(bytes).map_err(|error| {
        let category = match error.classify() {
            Category::Data => MISMATCH,
            Category::Eof => UNEXPECTED_END,
            Category::Syntax | Category::Io => INVALID_SYNTAX,
        };
        not_decoded::<T>(category, error.line(), error.column())
    })
}

#[cfg(feature = "sonic-json")]
fn decode_with_sonic<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    sonic_rs::from_slice(bytes).map_err(|error: sonic_rs::Error| {
        let category = if error.is_unmatched_type() {
            MISMATCH
        } else if error.is_eof() {
            UNEXPECTED_END
        } else {
            INVALID_SYNTAX
        };
        not_decoded::<T>(category, error.line(), error.column())
    })
}

const INVALID_SYNTAX: &str = "invalid syntax";

fn not_decoded<T>(category: &str, line: usize, column: usize) -> Error {
    decode_error::<T>("JSON", format!("{category} at line {line} column {column}"))
}
