//! The records of all shards in one small file, through which processes exchange them.
//!
//! The file `counts-1` has a record for each shard, which the process that changes the shard overwrites
//! in place. So a process that has just started knows how full the directory is without listing it, and
//! concurrent writers enforce one limit together. A record is a hint: nothing is locked, two processes
//! may overwrite each other's records, and a process may be killed before it writes its own. A wrong
//! record is corrected when its shard is counted, within an hour at most.

use std::io;

use vayu_core::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::fs::{Directory, File, overwrite_full, read_full, write_full};
use crate::layout::{COUNTS, SHARDS};
use crate::shard_usage::{BLOCK, Seconds, ShardContent, ShardState, ShardUsage};

/// The length of a record in bytes.
const LENGTH: usize = 32;

/// The open file and its bytes.
#[derive(Debug)]
pub(crate) struct Counts {
    file: Box<dyn File>,
    bytes: Vec<u8>,
}

impl Counts {
    /// Reads the file.
    pub(crate) fn open(root: &dyn Directory) -> io::Result<Self> {
        let file = root.update(COUNTS)?;
        let mut bytes = Vec::with_capacity(SHARDS * LENGTH);
        read_full(&*file, &mut bytes)?;
        Ok(Self { file, bytes })
    }

    /// Creates the file with these records.
    pub(crate) fn create<'a>(
        root: &dyn Directory,
        shards: impl Iterator<Item = &'a ShardState>,
    ) -> io::Result<()> {
        let bytes: Vec<u8> = shards.flat_map(encode).collect();
        write_full(&mut *root.create(COUNTS)?, &bytes)
    }

    /// Copies the valid records that have changed since the last merge. Most are unchanged, and are
    /// compared only.
    pub(crate) fn merge_into(&self, usage: &mut ShardUsage) {
        const CHUNK: usize = 32;
        let old = usage.replace_last_counts(self.bytes.clone());
        let chunks = self.bytes.chunks(CHUNK * LENGTH).enumerate();
        for (number, chunk) in chunks {
            let start = number * CHUNK * LENGTH;
            if old.get(start..start + chunk.len()) == Some(chunk) {
                continue;
            }
            for (offset, record) in chunk.chunks_exact(LENGTH).enumerate() {
                let at = start + offset * LENGTH;
                if old.get(at..at + LENGTH) != Some(record)
                    && let Some(shard) = decode(record)
                {
                    usage.set_shard(number * CHUNK + offset, shard);
                }
            }
        }
    }

    /// Overwrites the record of a shard.
    pub(crate) fn write(&mut self, index: usize, shard: &ShardState) -> io::Result<()> {
        overwrite_full(&mut *self.file, (index * LENGTH) as u64, &encode(shard))
    }

    /// Overwrites all records.
    pub(crate) fn write_all<'a>(
        &mut self,
        shards: impl Iterator<Item = &'a ShardState>,
    ) -> io::Result<()> {
        let bytes: Vec<u8> = shards.flat_map(encode).collect();
        overwrite_full(&mut *self.file, 0, &bytes)
    }

    /// Invalidates the record of a shard, so that the shard is counted again.
    pub(crate) fn invalidate(&mut self, index: usize) -> io::Result<()> {
        overwrite_full(&mut *self.file, (index * LENGTH) as u64, &[0; LENGTH])
    }
}

/// Encodes a record: the number of entries, the number of blocks, the time of the last count and a
/// checksum in 4 bytes each, then the time of the oldest entry and the first expiry in 8 bytes each.
fn encode(shard: &ShardState) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let Some(counted_at) = shard.counted_at else { return bytes };
    let content = &shard.content;
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    bytes[0..4].copy_from_slice(&number(content.entries));
    bytes[4..8].copy_from_slice(&number(content.bytes / BLOCK));
    bytes[8..12].copy_from_slice(&counted_at.to_le_bytes());
    bytes[16..24].copy_from_slice(&content.oldest.as_micros().to_le_bytes());
    bytes[24..32].copy_from_slice(&content.next_expiry.as_micros().to_le_bytes());
    let checksum = checksum(&bytes);
    bytes[12..16].copy_from_slice(&checksum);
    bytes
}

/// Decodes a record. `None` if its checksum is wrong.
fn decode(record: &[u8]) -> Option<ShardState> {
    let mut bytes: [u8; LENGTH] = record.try_into().ok()?;
    let expected = std::mem::take(bytes[12..16].first_chunk_mut::<4>()?);
    if expected != checksum(&bytes) {
        return None;
    }
    let number = |at: usize| Some(u32::from_le_bytes(*bytes[at..].first_chunk()?));
    let time =
        |at: usize| Some(Timestamp::from_micros(i64::from_le_bytes(*bytes[at..].first_chunk()?)));
    let counted_at: Seconds = number(8)?;
    let content = ShardContent {
        entries: number(0)?.into(),
        bytes: u64::from(number(4)?) * BLOCK,
        oldest: time(16)?,
        next_expiry: time(24)?,
    };
    Some(ShardState { counted_at: Some(counted_at), content })
}

/// Returns the checksum of a record whose checksum field is zero. That of all zeros is not zero.
fn checksum(bytes: &[u8; LENGTH]) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64(bytes).to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_decodes_to_what_was_encoded_or_to_none() {
        let content = ShardContent {
            entries: 7,
            bytes: 12 * BLOCK,
            oldest: Timestamp::from_micros(-1),
            next_expiry: Timestamp::NEVER,
        };
        let shard = ShardState { counted_at: Some(1 << 31), content };
        let bytes = encode(&shard);
        assert_eq!(decode(&bytes), Some(shard));
        for bit in 0..LENGTH * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(decode(&[0; LENGTH]), None);
        assert_eq!(decode(&bytes[1..]), None);
        let uncounted = ShardState { counted_at: None, content };
        assert_eq!(decode(&encode(&uncounted)), None);
    }
}
