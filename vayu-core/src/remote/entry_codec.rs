//! Encoding and decoding of the entries of a server.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};

use crate::backend::Usage;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::record::Record;
use crate::wire::{self, WireKey};

/// Encodes records with their keys, and decodes what is found under the name of a key.
#[derive(Debug)]
pub struct EntryCodec {
    max_entry_bytes: u64,
    hides_arguments: bool,
    corrupt_entries: AtomicU64,
}

impl EntryCodec {
    /// Creates a codec for entries of up to this size, with or without the arguments of calls.
    pub fn new(max_entry_bytes: u64, hides_arguments: bool) -> Self {
        Self { max_entry_bytes, hides_arguments, corrupt_entries: AtomicU64::new(0) }
    }

    /// Returns the size of the largest entry.
    pub fn max_entry_bytes(&self) -> u64 {
        self.max_entry_bytes
    }

    /// Returns the bytes of an entry.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] when there are too many: a later attempt would fail as well.
    pub fn encode(&self, key: &Key, record: &Record<Bytes>) -> Result<(WireKey, Vec<u8>)> {
        let (label, key) = (key.label(), WireKey::new(key));
        let bytes = if self.hides_arguments {
            wire::encode_hashed(&key, record)
        } else {
            wire::encode_labelled(&key, record, label)
        };
        if bytes.len() as u64 > self.max_entry_bytes {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("entry longer than {} bytes", self.max_entry_bytes),
            ));
        }
        Ok((key, bytes))
    }

    /// Returns the record in the bytes of an entry. Counts bytes that are corrupt, too long or of another key.
    pub fn decode(&self, key: &WireKey, mut bytes: Bytes) -> Option<Record<Bytes>> {
        let is_short = bytes.len() as u64 <= self.max_entry_bytes;
        let Some(record) = wire::decode(key, &bytes).filter(|_| is_short) else {
            self.count_corrupt();
            return None;
        };
        // The entry ends with the value. Unlike a slice, advancing does not allocate.
        bytes.advance(record.value().start);
        Some(record.map(|_| bytes))
    }

    /// Counts an entry that is not decoded.
    pub fn count_corrupt(&self) {
        self.corrupt_entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the limit and the number of corrupt entries.
    pub fn usage(&self) -> Usage {
        Usage {
            max_entry_bytes: Some(self.max_entry_bytes),
            corrupt_entries: Some(self.corrupt_entries.load(Ordering::Relaxed)),
            ..Usage::default()
        }
    }
}
