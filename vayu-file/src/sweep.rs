//! Sweeping a shard: counting its entries, and removing those that have expired or are evicted.
//!
//! A sweep lists the shard and reads the header of each entry, or of a random sample if there are too
//! many; the count is extrapolated then. Eviction is first in, first out by creation time: the oldest
//! tenth of the entries, or more if a limit requires it. Temporary files and lock files that are older
//! than an hour were abandoned by a process that died, and are removed.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::{Duration, SystemTime};

use vayu_core::wire::{HEADER_LENGTH, Header, ParseError};
use vayu_core::{EndCause, Timestamp};

use crate::ends::{Ended, remove_entry};
use crate::fs::{Directory, FileType, Status, buffer, read_full};
use crate::layout::{FileKind, shard_name};
use crate::lock::try_lock;
use crate::shard_usage::{BLOCK, Excess, ShardContent, disk_size};

/// The parameters of a sweep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    /// Entries that are not served any more at this time are removed.
    pub(crate) now: Timestamp,
    pub(crate) eviction: Option<Eviction>,
    /// The number of entries to inspect at most. If there are more, a sample is inspected.
    pub(crate) max_inspected: usize,
    /// The entries that leave the directory are to be reported.
    pub(crate) is_reported: bool,
}

/// An eviction of the oldest entries: a tenth of them, or more to get below a limit. The newest entry
/// is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) excess: Excess,
    /// This much is kept when a limit is exceeded, or half of the shard, if that is less.
    pub(crate) keep_entries: u64,
    pub(crate) keep_bytes: u64,
}

/// The result of a sweep.
#[derive(Debug)]
pub(crate) struct Swept {
    /// The remaining entries.
    pub(crate) content: ShardContent,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) corrupt: u64,
    /// The number of entries that were inspected.
    pub(crate) inspected: usize,
    /// The entries that have left the directory, if they are to be reported.
    pub(crate) ended: Option<Vec<Ended>>,
}

impl Swept {
    /// Returns whether an entry was removed.
    pub(crate) fn has_freed_space(&self) -> bool {
        self.evicted + self.expired + self.corrupt > 0
    }
}

/// The age from which on a temporary file or a lock file is abandoned, by the clock of the file
/// system: no write takes that long.
const ABANDONED_AGE: Duration = Duration::from_secs(60 * 60);

impl Sweep {
    /// Sweeps a shard. One that does not exist is empty.
    pub(crate) fn run(self, root: &dyn Directory, shard: usize) -> io::Result<Swept> {
        let mut swept = Swept {
            content: ShardContent::EMPTY,
            expired: 0,
            evicted: 0,
            corrupt: 0,
            inspected: 0,
            ended: self.is_reported.then(Vec::new),
        };
        let directory = match root.open_directory(&shard_name(shard)) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(swept),
            Err(error) => return Err(error),
        };
        let (mut candidates, mut others) = (Vec::new(), Vec::new());
        directory.list(&mut |name| match FileKind::of(name) {
            FileKind::Generation | FileKind::Foreign => {}
            FileKind::Entry => candidates.push(name.to_owned()),
            FileKind::Temporary | FileKind::Lock => others.push(name.to_owned()),
        })?;
        let all = candidates.len();
        let mut entries = Vec::new();
        for name in sample(candidates, self.max_inspected) {
            swept.inspected += 1;
            entries.extend(self.inspect(&*directory, name, &mut swept));
        }
        for name in others {
            remove_abandoned(root, shard, &*directory, name);
        }
        if let Some(eviction) = self.eviction {
            evict(&*directory, &mut entries, &mut swept, eviction, all);
        }
        for entry in &entries {
            swept.content.add(entry.length, entry.created, entry.expires);
        }
        if all > swept.inspected {
            self.extrapolate(&mut swept, all);
        }
        Ok(swept)
    }

    /// Assumes that the entries that were not inspected are like the others.
    fn extrapolate(self, swept: &mut Swept, all: usize) {
        let rest = (all - swept.inspected) as u64;
        let content = &mut swept.content;
        content.bytes += match content.entries {
            0 => rest * BLOCK,
            entries => content.bytes / entries * rest,
        };
        content.entries += rest;
        if swept.expired > 0 {
            // Some of the rest have expired, too.
            content.next_expiry = self.now;
        }
    }

    /// Inspects an entry. Removes it if it has expired or is corrupt, otherwise returns it.
    fn inspect(self, directory: &dyn Directory, name: String, swept: &mut Swept) -> Option<Entry> {
        // A file that cannot be read now, or is not a regular file, is not touched.
        let mut read = read_header(directory, &name).ok()?;
        if read.0.is_err() {
            // It may have been read while its times were overwritten.
            read = read_header(directory, &name).ok()?;
        }
        let (header, status) = read;
        match header {
            Ok(header) if header.stale_until() <= self.now => {
                if remove_entry(directory, &name, EndCause::Expired, &mut swept.ended).is_ok() {
                    swept.expired += 1;
                }
                None
            }
            Ok(header) => Some(Entry {
                name,
                length: status.length,
                created: header.created(),
                expires: header.stale_until(),
            }),
            // An entry of a later version is counted, but must not be deleted.
            Err(ParseError::UnsupportedVersion | ParseError::UnknownFlags) => {
                swept.content.add(status.length, Timestamp::NEVER, Timestamp::NEVER);
                None
            }
            Err(_) => {
                swept.corrupt += u64::from(directory.remove(&name).is_ok());
                None
            }
        }
    }
}

/// Reads the header of an entry. An error if the file is not a regular file.
fn read_header(
    directory: &dyn Directory,
    name: &str,
) -> io::Result<(Result<Header, ParseError>, Status)> {
    let file = directory.open(name)?;
    let status = file.status()?;
    if status.file_type != FileType::File {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = buffer(HEADER_LENGTH as u64)?;
    read_full(&*file, &mut bytes)?;
    let header = Header::parse(&bytes).and_then(|header| {
        let is_complete = header.entry_length() == Some(status.length);
        if is_complete { Ok(header) } else { Err(ParseError::LengthMismatch) }
    });
    Ok((header, status))
}

/// An entry that is valid and has not expired.
struct Entry {
    name: String,
    length: u64,
    created: Timestamp,
    expires: Timestamp,
}

/// Returns a random sample of at most `max` names, spread over the list.
fn sample(names: Vec<String>, max: usize) -> impl Iterator<Item = String> {
    let step = names.len().div_ceil(max.max(1)).max(1);
    let first = RandomState::new().hash_one(0_u8) % step as u64;
    names.into_iter().skip(usize::try_from(first).unwrap_or(0)).step_by(step)
}

/// Removes the oldest entries. `entries` may be a sample of the `all` entries of the shard.
fn evict(
    directory: &dyn Directory,
    entries: &mut Vec<Entry>,
    swept: &mut Swept,
    eviction: Eviction,
    all: usize,
) {
    let Eviction { mut excess, keep_entries, keep_bytes } = eviction;
    entries.sort_unstable_by_key(|entry| Reverse(entry.created));
    let part = |of: u64| of.saturating_mul(entries.len() as u64) / all.max(1) as u64;
    let mut at_least = entries.len().div_ceil(10);
    let mut bytes: u64 = entries.iter().map(|entry| disk_size(entry.length)).sum();
    let keep_entries = part(keep_entries).min(entries.len() as u64 / 2).max(1);
    let keep_bytes = part(keep_bytes).min(bytes / 2);
    while let Some(oldest) = entries.last() {
        let count = entries.len() as u64;
        let is_over_limit = (excess.entries > 0 && count > keep_entries)
            || (excess.bytes > 0 && count > 1 && bytes > keep_bytes);
        if at_least == 0 && !is_over_limit {
            return;
        }
        match remove_entry(directory, &oldest.name, EndCause::Evicted, &mut swept.ended) {
            Ok(()) => swept.evicted += 1,
            // Another process has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return,
        }
        let length = disk_size(oldest.length);
        at_least = at_least.saturating_sub(1);
        excess.entries = excess.entries.saturating_sub(1);
        excess.bytes = excess.bytes.saturating_sub(length);
        bytes -= length;
        entries.pop();
    }
}

/// Removes a temporary file or a lock file that a process left behind when it died.
fn remove_abandoned(root: &dyn Directory, shard: usize, directory: &dyn Directory, name: String) {
    let status = directory.status(&name);
    if !status.is_ok_and(|status| status.file_type == FileType::File && is_old(status.modified)) {
        return;
    }
    if FileKind::of(&name) == FileKind::Temporary {
        let _ = directory.remove(&name);
    } else if let Ok(directory) = root.open_directory(&shard_name(shard)) {
        // A lock removes its file when it is released. A lock that is held is not touched.
        drop(try_lock(directory, name));
    }
}

/// Returns whether a file was written more than an hour ago, or more than an hour in the future,
/// which means that the clock was set back.
fn is_old(modified: SystemTime) -> bool {
    let age = match SystemTime::now().duration_since(modified) {
        Ok(age) => age,
        Err(future) => future.duration(),
    };
    age > ABANDONED_AGE
}
