//! The beginning of the file of an entry: its header and its key, without its value.

use std::io;

use vayu_core::wire::{EncodedEntry, ParseError};

use crate::fs::{File, read_up_to};

/// The number of bytes that are read to get the key of an entry; most keys are shorter.
const PREFIX_LENGTH: u64 = 4 * 1024;
/// The most bytes that contain a key: a longer one is stored as a digest.
const LONG_PREFIX_LENGTH: u64 = 128 * 1024;

/// Reads the header and the key at the beginning of an entry of this length.
pub(crate) fn read_prefix(file: &dyn File, length: u64) -> io::Result<Vec<u8>> {
    let bytes = read_up_to(file, length.min(PREFIX_LENGTH))?;
    if EncodedEntry::parse_prefix(&bytes).err() == Some(ParseError::LengthMismatch) {
        return read_up_to(file, length.min(LONG_PREFIX_LENGTH));
    }
    Ok(bytes)
}
