//! The first byte of an encoded key, after its version, and what follows it: arguments, or a string and further parts.

use crate::key::KeyBytes;

/// The first byte of an encoded key, which gives the kind of the rest.
pub(super) const ARGUMENTS: u8 = b'A';
pub(super) const TEXT: u8 = b'T';
pub(super) const TEXT_WITH_LENGTH: u8 = b'M';

/// Appends a string that parts may follow.
pub(super) fn push_text_with_length(encoded: &mut KeyBytes, text: &str) {
    push_bytes_with_length(encoded, text.as_bytes());
}

/// Appends the bytes of a string that parts may follow.
pub(super) fn push_bytes_with_length(encoded: &mut KeyBytes, text: &[u8]) {
    encoded.push(TEXT_WITH_LENGTH);
    encoded.extend_from_slice(&(text.len() as u64).to_le_bytes());
    encoded.extend_from_slice(text);
}

/// Returns the string of an encoded key without a version, if it is a string and nothing else.
pub(super) fn text_of(encoded: &[u8]) -> Option<&str> {
    split_text(encoded).and_then(|(text, parts)| parts.is_empty().then_some(text))
}

/// Splits the encoded key of a string, without a version, into the string and the further parts.
pub(super) fn split_text(encoded: &[u8]) -> Option<(&str, &[u8])> {
    let (text, parts) = match encoded.split_first() {
        Some((&TEXT, text)) => (text, &[][..]),
        Some((&TEXT_WITH_LENGTH, rest)) => {
            let (length, rest) = rest.split_first_chunk()?;
            rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?
        }
        _ => return None,
    };
    Some((std::str::from_utf8(text).ok()?, parts))
}

/// Returns the encoded arguments of an encoded key without a version, if it is one of arguments.
#[cfg(feature = "wire")]
pub(super) fn arguments_of(encoded: &[u8]) -> Option<&[u8]> {
    encoded.strip_prefix(&[ARGUMENTS])
}
