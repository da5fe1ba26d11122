//! Looking through a shard: what may be forgotten goes.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::{Duration, SystemTime};

use vayu_core::Timestamp;
use vayu_core::wire::{HEADER_LENGTH, Header, ParseError};

use crate::fs::{Folder, Kind, Status, buffer, read_full};
use crate::layout::{Role, shard_name};
use crate::lock::try_lock;
use crate::shard_usage::{BLOCK, Content, Excess, charge};

/// What is done in a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    /// Entries that may be forgotten by then go.
    pub(crate) now: Timestamp,
    /// What else goes.
    pub(crate) eviction: Option<Eviction>,
    /// How many entries are looked at. Where there are more, these are spread over all of them.
    pub(crate) most: usize,
}

/// Of the entries that stay, those that were written longest ago: a tenth, or more of them to get
/// down to a limit. The one that was written last stays then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) excess: Excess,
    /// As much is left for the sake of a limit, or half of what there is, if that is less.
    pub(crate) keep_entries: u64,
    pub(crate) keep_bytes: u64,
}

/// What a sweep found and did.
#[derive(Debug)]
pub(crate) struct Swept {
    /// What is left.
    pub(crate) content: Content,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) defective: u64,
    /// How many entries were looked at.
    pub(crate) looks: usize,
}

impl Swept {
    /// Whether anything of ours has gone.
    pub(crate) fn has_made_room(&self) -> bool {
        self.evicted + self.expired + self.defective > 0
    }
}

/// How old litter must be, by the clock of the file system: a write does not take that long.
const LITTER_AGE: Duration = Duration::from_secs(60 * 60);

impl Sweep {
    /// Sweeps a shard. One that does not exist is empty.
    pub(crate) fn run(self, root: &dyn Folder, shard: usize) -> io::Result<Swept> {
        let mut swept =
            Swept { content: Content::EMPTY, expired: 0, evicted: 0, defective: 0, looks: 0 };
        let folder = match root.folder(&shard_name(shard)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(swept),
            Err(error) => return Err(error),
        };
        let (mut candidates, mut names) = (Vec::new(), Vec::new());
        folder.list(&mut |name| match Role::of(name) {
            Role::Generation | Role::Foreign => {}
            Role::Entry => candidates.push(name.to_owned()),
            Role::Temporary | Role::Lock => names.push(name.to_owned()),
        })?;
        let all = candidates.len();
        let mut entries = Vec::new();
        for name in spread(candidates, self.most) {
            swept.looks += 1;
            entries.extend(self.look_at(&*folder, name, &mut swept));
        }
        for name in names {
            match Role::of(&name) {
                Role::Generation | Role::Foreign | Role::Entry => {}
                Role::Temporary => {
                    if is_litter(&*folder, &name) {
                        let _ = folder.remove(&name);
                    }
                }
                Role::Lock => {
                    // Whoever gives a lock back removes it: that of a process that died goes so.
                    if is_litter(&*folder, &name)
                        && let Ok(folder) = root.folder(&shard_name(shard))
                    {
                        drop(try_lock(folder, name));
                    }
                }
            }
        }
        if let Some(eviction) = self.eviction {
            evict(&*folder, &mut entries, &mut swept, eviction, all);
        }
        for entry in &entries {
            swept.content.add(entry.length, entry.created, entry.end);
        }
        if all > swept.looks {
            self.extrapolate(&mut swept, all);
        }
        Ok(swept)
    }

    /// Takes those that were not looked at for what the others are like.
    fn extrapolate(self, swept: &mut Swept, all: usize) {
        let unseen = (all - swept.looks) as u64;
        let content = &mut swept.content;
        content.bytes += match content.entries {
            0 => unseen * BLOCK,
            entries => content.bytes / entries * unseen,
        };
        content.entries += unseen;
        if swept.expired > 0 {
            // Then others of them have expired, too.
            content.due = self.now;
        }
    }

    /// What stays of an entry.
    fn look_at(self, folder: &dyn Folder, name: String, swept: &mut Swept) -> Option<Found> {
        // Whatever cannot be read now, or is none of ours, is left alone.
        let (header, status) = read_header(folder, &name).ok()?;
        match header {
            Ok(header) if header.stale_until() <= self.now => {
                swept.expired += u64::from(folder.remove(&name).is_ok());
                None
            }
            Ok(header) => Some(Found {
                name,
                length: status.length,
                created: header.created(),
                end: header.stale_until(),
            }),
            // An entry of a later version is not ours to delete, but it takes its room.
            Err(ParseError::UnsupportedVersion | ParseError::UnknownFlags) => {
                swept.content.add(status.length, Timestamp::NEVER, Timestamp::NEVER);
                None
            }
            Err(_) => {
                swept.defective += u64::from(folder.remove(&name).is_ok());
                None
            }
        }
    }
}

/// The header of a regular file under an entry's name, if it is one.
pub(crate) fn read_header(
    folder: &dyn Folder,
    name: &str,
) -> io::Result<(Result<Header, ParseError>, Status)> {
    let file = folder.open(name)?;
    let status = file.status()?;
    if status.kind != Kind::File {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = buffer(HEADER_LENGTH as u64)?;
    read_full(&*file, &mut bytes)?;
    let header = Header::parse(&bytes).and_then(|header| {
        let is_whole = header.entry_length() == Some(status.length);
        if is_whole { Ok(header) } else { Err(ParseError::LengthMismatch) }
    });
    Ok((header, status))
}

/// An entry that stays, for now.
struct Found {
    name: String,
    length: u64,
    created: Timestamp,
    end: Timestamp,
}

/// At most so many of the names, from all over the list. What is left out is left out by chance.
fn spread(names: Vec<String>, most: usize) -> impl Iterator<Item = String> {
    let step = names.len().div_ceil(most.max(1)).max(1);
    let first = RandomState::new().hash_one(0_u8) % step as u64;
    names.into_iter().skip(usize::try_from(first).unwrap_or(0)).step_by(step)
}

/// Removes the oldest entries. There are `all` in the folder, of which these may be a part.
fn evict(
    folder: &dyn Folder,
    entries: &mut Vec<Found>,
    swept: &mut Swept,
    eviction: Eviction,
    all: usize,
) {
    let Eviction { mut excess, keep_entries, keep_bytes } = eviction;
    entries.sort_unstable_by_key(|entry| Reverse(entry.created));
    let part = |of: u64| of.saturating_mul(entries.len() as u64) / all.max(1) as u64;
    let mut least = entries.len().div_ceil(10);
    let mut bytes: u64 = entries.iter().map(|entry| charge(entry.length)).sum();
    let keep_entries = part(keep_entries).min(entries.len() as u64 / 2).max(1);
    let keep_bytes = part(keep_bytes).min(bytes / 2);
    while let Some(oldest) = entries.last() {
        let count = entries.len() as u64;
        let is_wanted = (excess.entries > 0 && count > keep_entries)
            || (excess.bytes > 0 && count > 1 && bytes > keep_bytes);
        if least == 0 && !is_wanted {
            return;
        }
        match folder.remove(&oldest.name) {
            Ok(()) => swept.evicted += 1,
            // It has gone by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return,
        }
        let length = charge(oldest.length);
        least = least.saturating_sub(1);
        excess.entries = excess.entries.saturating_sub(1);
        excess.bytes = excess.bytes.saturating_sub(length);
        bytes -= length;
        entries.pop();
    }
}

fn is_litter(folder: &dyn Folder, name: &str) -> bool {
    folder.status(name).is_ok_and(|status| status.kind == Kind::File && is_old(status.modified))
}

/// Whether it was written more than an hour ago, or the clock was set back by more than an hour.
fn is_old(modified: SystemTime) -> bool {
    let age = match SystemTime::now().duration_since(modified) {
        Ok(age) => age,
        Err(future) => future.duration(),
    };
    age > LITTER_AGE
}
