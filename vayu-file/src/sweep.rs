//! Looking through a shard: what may be forgotten goes.

use std::cmp::Reverse;
use std::io;
use std::time::{Duration, SystemTime};

use vayu_core::Timestamp;
use vayu_core::wire::{Defect, HEADER_LENGTH, Header};

use crate::folder::{Folder, Kind, Status, buffer, read_full};
use crate::layout::{Role, shard_name};
use crate::ledger::Content;
use crate::lock::try_lock;

/// What is done in a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    /// Entries that may be forgotten by then go.
    pub(crate) now: Timestamp,
    pub(crate) eviction: Eviction,
}

/// What else goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    None,
    /// Of the entries that stay, the tenth that was written longest ago.
    OldestTenth,
}

/// What a sweep found and did.
#[derive(Debug)]
pub(crate) struct Swept {
    /// What is left.
    pub(crate) content: Content,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) defective: u64,
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
        let mut swept = Swept { content: Content::EMPTY, expired: 0, evicted: 0, defective: 0 };
        let folder = match root.folder(&shard_name(shard)) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(swept),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        folder.list(&mut |name| names.push(name.to_owned()))?;
        let mut entries = Vec::new();
        for name in names {
            match Role::of(&name) {
                Role::Generation | Role::Foreign => {}
                Role::Entry => {
                    if let Some(entry) = self.look_at(&*folder, name, &mut swept) {
                        entries.push(entry);
                    }
                }
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
        if self.eviction == Eviction::OldestTenth {
            evict(&*folder, &mut entries, &mut swept);
        }
        for entry in &entries {
            swept.content.add(entry.length, entry.created, entry.end);
        }
        Ok(swept)
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
            Err(Defect::Version | Defect::Flags) => {
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
) -> io::Result<(Result<Header, Defect>, Status)> {
    let file = folder.open(name)?;
    let status = file.status()?;
    if status.kind != Kind::File {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = buffer(HEADER_LENGTH as u64)?;
    read_full(&*file, &mut bytes)?;
    let header = Header::parse(&bytes).and_then(|header| {
        let is_whole = header.entry_length() == Some(status.length);
        if is_whole { Ok(header) } else { Err(Defect::Length) }
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

/// Removes the oldest entries.
fn evict(folder: &dyn Folder, entries: &mut Vec<Found>, swept: &mut Swept) {
    entries.sort_unstable_by_key(|entry| Reverse(entry.created));
    for _ in 0..entries.len().div_ceil(10) {
        let Some(oldest) = entries.pop() else { break };
        match folder.remove(&oldest.name) {
            Ok(()) => swept.evicted += 1,
            // It has gone by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                entries.push(oldest);
                break;
            }
        }
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
