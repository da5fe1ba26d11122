//! What all processes know of the shards of a directory, in one small file.
//!
//! The file has a record for each shard, which the process that changes the shard overwrites in place.
//! So a process that has just begun knows how full the directory is without looking into it, and
//! processes that write at the same time keep one limit together. A record is a hint: nothing is
//! locked, two processes may overwrite each other's, and a process may be killed before it writes its
//! own. What is wrong is put right when the shard is looked through, within an hour at most.

use std::io;

use vayu_core::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::fs::{File, Folder, read_full};
use crate::layout::{COUNTS, SHARDS};
use crate::shard_usage::{BLOCK, Content, Seconds, Shard};

/// How long a record is, in bytes.
const LENGTH: usize = 32;

/// The file, and what it holds.
#[derive(Debug)]
pub(crate) struct Counts {
    file: Box<dyn File>,
    bytes: Vec<u8>,
}

impl Counts {
    /// Reads the file, if it is there and can be read and written.
    pub(crate) fn open(root: &dyn Folder) -> io::Result<Self> {
        let file = root.update(COUNTS)?;
        let mut bytes = Vec::with_capacity(SHARDS * LENGTH);
        read_full(&*file, &mut bytes)?;
        Ok(Self { file, bytes })
    }

    /// Makes the file, if it does not exist, with these records.
    pub(crate) fn make<'a>(
        root: &dyn Folder,
        shards: impl Iterator<Item = &'a Shard>,
    ) -> io::Result<()> {
        let bytes: Vec<u8> = shards.flat_map(encode).collect();
        crate::fs::write_full(&mut *root.create(COUNTS)?, &bytes)
    }

    /// Hands over what the file says of each shard, where that differs from `seen`, which is what it
    /// said before, and can be trusted. Most records are those of before, and are compared only.
    pub(crate) fn changes(&self, seen: &mut Vec<u8>, mut visit: impl FnMut(usize, Shard)) {
        const CHUNK: usize = 32;
        let old = std::mem::replace(seen, self.bytes.clone());
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
                    visit(number * CHUNK + offset, shard);
                }
            }
        }
    }

    /// Overwrites the record of a shard.
    pub(crate) fn put(&mut self, index: usize, shard: &Shard) -> io::Result<()> {
        overwrite_full(&mut *self.file, (index * LENGTH) as u64, &encode(shard))
    }

    /// Overwrites all records.
    pub(crate) fn put_all<'a>(
        &mut self,
        shards: impl Iterator<Item = &'a Shard>,
    ) -> io::Result<()> {
        let bytes: Vec<u8> = shards.flat_map(encode).collect();
        overwrite_full(&mut *self.file, 0, &bytes)
    }

    /// Overwrites the record of a shard with none, so that the shard is looked through.
    pub(crate) fn forget(&mut self, index: usize) -> io::Result<()> {
        overwrite_full(&mut *self.file, (index * LENGTH) as u64, &[0; LENGTH])
    }
}

/// Writes all bytes over what a file has at a position.
pub(crate) fn overwrite_full(
    file: &mut dyn File,
    mut position: u64,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.overwrite(position, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                position += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Entries, blocks and the time of the last look in 4 bytes each, a checksum, then when the oldest
/// entry was written and when the first one expires in 8 bytes each.
fn encode(shard: &Shard) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let Some(seen) = shard.seen else { return bytes };
    let content = &shard.content;
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    bytes[0..4].copy_from_slice(&number(content.entries));
    bytes[4..8].copy_from_slice(&number(content.bytes / BLOCK));
    bytes[8..12].copy_from_slice(&seen.to_le_bytes());
    bytes[16..24].copy_from_slice(&content.oldest.as_micros().to_le_bytes());
    bytes[24..32].copy_from_slice(&content.due.as_micros().to_le_bytes());
    let checksum = checksum(&bytes);
    bytes[12..16].copy_from_slice(&checksum);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Shard> {
    let mut unsealed: [u8; LENGTH] = bytes.try_into().ok()?;
    let sealed = std::mem::take(unsealed[12..16].first_chunk_mut::<4>()?);
    if sealed != checksum(&unsealed) {
        return None;
    }
    let number = |at: usize| Some(u32::from_le_bytes(*unsealed[at..].first_chunk()?));
    let time = |at: usize| {
        Some(Timestamp::from_micros(i64::from_le_bytes(*unsealed[at..].first_chunk()?)))
    };
    let seen: Seconds = number(8)?;
    let content = Content {
        entries: number(0)?.into(),
        bytes: u64::from(number(4)?) * BLOCK,
        oldest: time(16)?,
        due: time(24)?,
    };
    Some(Shard { seen: Some(seen), content })
}

/// That of a record whose checksum is zero. A record of zeros has another one.
fn checksum(bytes: &[u8; LENGTH]) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64(bytes).to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_what_was_written_or_none() {
        let content = Content {
            entries: 7,
            bytes: 12 * BLOCK,
            oldest: Timestamp::from_micros(-1),
            due: Timestamp::NEVER,
        };
        let shard = Shard { seen: Some(1 << 31), content };
        let bytes = encode(&shard);
        assert_eq!(decode(&bytes), Some(shard));
        for bit in 0..LENGTH * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(decode(&[0; LENGTH]), None);
        assert_eq!(decode(&bytes[1..]), None);
        let unseen = Shard { seen: None, content };
        assert_eq!(decode(&encode(&unseen)), None);
    }
}
