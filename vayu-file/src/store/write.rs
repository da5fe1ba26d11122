//! Writing and deleting an entry: write to a temporary file, then rename.

use std::io;
use std::thread;

use bytes::Bytes;
use vayu_core::wire::{self, HEADER_LENGTH, Header};
use vayu_core::{EndCause, Error, ErrorKind, Key, Record, Result};

use super::{Store, invalidation_of};
use crate::ends::Ending;
use crate::errno::{is_absence, is_open_elsewhere, pauses};
use crate::fs::{Directory, FileType, buffer, overwrite_full, read_full, write_full};
use crate::layout::{EntryPath, FileKind, shard_name, temporary_name};
use crate::located_key::LocatedKey;
use crate::offload::{CancelFlag, cancelled};
use crate::options::Durability;
use crate::random::random_bytes;
use crate::shard_usage::disk_size;

impl Store {
    /// Writes an entry, unless the operation is cancelled before the entry has its name.
    pub(crate) fn write(
        &self,
        key: &Key,
        record: &Record<Bytes>,
        cancel: &CancelFlag,
    ) -> Result<()> {
        let label = key.label();
        let key = LocatedKey::of(key);
        let path = key.path();
        let bytes = self.encode(&key, record, label);
        let length = bytes.len() as u64;
        if length > self.max_entry_bytes
            || disk_size(length) > self.max_bytes
            || self.max_entries == 0
        {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("the entry has {length} bytes, more than the limits of the cache allow"),
            ));
        }
        let invalidation = invalidation_of(&key);
        let publish = || self.publish(invalidation).map_err(io::Error::other);
        let replaced = self.replace(path, &bytes, cancel, publish);
        let replaced = replaced.map_err(|error| self.outages.write_failed(error));
        self.open_files.close(key.wire());
        if !matches!(replaced, Ok(Some(_))) {
            // A write that failed or was cancelled may have replaced the entry, too.
            self.publish(invalidation)?;
        }
        let replaced = replaced?;
        self.outages.write_succeeded();
        let Some(Replaced { old_length, old }) = replaced else { return Err(cancelled()) };
        self.update_usage(path.shard(), |content| {
            if let Some(length) = old_length {
                content.subtract(length);
            }
            content.add(length, record.created(), record.stale_until());
        });
        self.report(old.map(|old| old.replaced_by(record)));
        self.enforce_limits(disk_size(length));
        self.maintain();
        Ok(())
    }

    fn encode(&self, key: &LocatedKey, record: &Record<Bytes>, label: Option<&str>) -> Vec<u8> {
        if self.hides_arguments {
            wire::encode_hashed(key.wire(), record)
        } else {
            wire::encode_labelled(key.wire(), record, label)
        }
    }

    /// Writes the times of an entry whose value stays, by overwriting its header in place, which is in one sector. The entry
    /// is written as a whole if the file is not exactly that of the times `old`, and stays if a fresh one has replaced it.
    pub(crate) fn write_times(
        &self,
        key: &Key,
        old: &Record<()>,
        record: &Record<Bytes>,
        cancel: &CancelFlag,
    ) -> Result<()> {
        let label = key.label();
        let located = LocatedKey::of(key);
        let old = old.clone().map(|()| record.value().clone());
        let old = self.encode(&located, &old, label);
        let new = self.encode(&located, record, label);
        let invalidation = invalidation_of(&located);
        self.publish(invalidation)?;
        let overwritten = self.overwrite_header(located.path(), &old, &new, cancel);
        self.open_files.close(located.wire());
        self.publish(invalidation)?;
        match overwritten {
            _ if cancel.is_set() => return Err(cancelled()),
            Ok(Overwritten::Done) => {}
            Ok(Overwritten::IsNewer) => return Ok(()),
            Ok(Overwritten::Differs) | Err(_) => return self.write(key, record, cancel),
        }
        let length = new.len() as u64;
        self.update_usage(located.path().shard(), |content| {
            content.subtract(length);
            content.add(length, record.created(), record.stale_until());
        });
        self.outages.write_succeeded();
        Ok(())
    }

    /// Overwrites the header of the entry `old` with that of `new`.
    fn overwrite_header(
        &self,
        path: &EntryPath,
        old: &[u8],
        new: &[u8],
        cancel: &CancelFlag,
    ) -> io::Result<Overwritten> {
        let header = Header::parse(old).map_err(io::Error::other)?;
        let shard = self.open_directory(&shard_name(path.shard()))?;
        let mut file = self.open_files.with_fd_retry(|| shard.update(path.file_name()))?;
        let mut found = buffer(old.len() as u64 - header.value_length())?;
        read_full(&*file, &mut found)?;
        if !old.starts_with(&found) || found.len() < HEADER_LENGTH {
            let found = Header::parse(&found).map_err(io::Error::other)?;
            let (new, now) = (Header::parse(new).map_err(io::Error::other)?, self.now());
            let is_another =
                found.created() != header.created() || found.expires() != header.expires();
            let is_fresh = found.created() <= now && now < found.expires();
            let is_alike = found.schema() == new.schema() && found.serializer() == new.serializer();
            return Ok(if is_another && is_fresh && is_alike {
                Overwritten::IsNewer
            } else {
                Overwritten::Differs
            });
        }
        if !cancel.is_set() {
            overwrite_full(&mut *file, 0, &new[..HEADER_LENGTH])?;
            if self.durability == Durability::Synced {
                file.sync()?;
            }
        }
        Ok(Overwritten::Done)
    }

    /// Replaces a file atomically. Calls `publish` before and after the rename if the file existed.
    ///
    /// `None` if the operation was cancelled: a late rename could undo what other callers have done
    /// since.
    pub(crate) fn replace(
        &self,
        path: &EntryPath,
        bytes: &[u8],
        cancel: &CancelFlag,
        publish: impl Fn() -> io::Result<()>,
    ) -> io::Result<Option<Replaced>> {
        let shard = self.shard(path)?;
        let name = temporary_name(random_bytes()?);
        let mut temporary = TemporaryFile { shard: &*shard, name, is_pending: true };
        let mut file = self.open_files.with_fd_retry(|| shard.create(&temporary.name))?;
        write_full(&mut *file, bytes)?;
        if self.durability == Durability::Synced {
            file.sync()?;
        }
        drop(file);
        let old = shard.status(path.file_name()).ok();
        let old = old.filter(|status| status.file_type == FileType::File);
        let old_length = old.map(|status| status.length);
        let old = old.and_then(|_| self.ending(&*shard, path.file_name()));
        if old_length.is_some() {
            publish()?;
        }
        if cancel.is_set() {
            return Ok(None);
        }
        rename_over(&mut temporary, path, old_length.is_some())?;
        temporary.is_pending = false;
        if old_length.is_some() {
            publish()?;
        }
        if cancel.is_set() {
            // On a slow disk, another caller may have removed the key before the rename.
            let _ = shard.remove(path.file_name());
            if let Some(length) = old_length {
                self.update_usage(path.shard(), |content| content.subtract(length));
            }
            return Ok(None);
        }
        self.sync(&*shard)?;
        Ok(Some(Replaced { old_length, old }))
    }

    /// Deletes the entry of a key. Returns whether it existed.
    pub(crate) fn delete(&self, key: &Key) -> Result<bool> {
        let prefix = key.prefix();
        let key = LocatedKey::of(key);
        let (path, invalidation) = (key.path(), invalidation_of(&key));
        self.publish(invalidation)?;
        let removed = self.remove(path);
        self.open_files.close(key.wire());
        let existed = match removed {
            Ok(length) => {
                self.update_usage(path.shard(), |content| content.subtract(length));
                true
            }
            Err(error) if is_absence(&error) => false,
            Err(error) => return Err(self.outages.error("delete entry", error)),
        };
        if existed {
            self.ends.report(prefix.as_str(), EndCause::Invalidated);
        }
        self.publish(invalidation)?;
        Ok(existed)
    }

    /// Removes a file. Returns its length.
    fn remove(&self, path: &EntryPath) -> io::Result<u64> {
        let shard = self.open_directory(&shard_name(path.shard()))?;
        let status = shard.status(path.file_name())?;
        if status.file_type == FileType::Directory {
            return Err(io::ErrorKind::NotFound.into());
        }
        shard.remove(path.file_name())?;
        self.sync(&*shard)?;
        Ok(status.length)
    }
}

/// Renames a file over an entry or a generation, and retries while one of both is open and cannot be replaced. If that
/// is an old entry, it is renamed out of the way. That leaves no entry for a moment, which is a miss, whereas a group must
/// not be without a generation.
fn rename_over(
    temporary: &mut TemporaryFile<'_>,
    path: &EntryPath,
    is_replaced: bool,
) -> io::Result<()> {
    let (shard, to) = (temporary.shard, path.file_name());
    for pause in pauses() {
        match shard.rename(&temporary.name, to) {
            Err(error) if is_open_elsewhere(&error) => {}
            renamed => return renamed,
        }
        if is_replaced && !pause.is_zero() && FileKind::of(to) == FileKind::Entry {
            // The old entry stays if it is the new file that another program has open.
            let other = temporary_name(random_bytes()?);
            if shard.rename(&temporary.name, &other).is_ok() {
                temporary.name = other;
                let old = temporary_name(random_bytes()?);
                if shard.rename(to, &old).is_ok() {
                    // It is gone as soon as no process has it open.
                    let _ = shard.remove(&old);
                    continue;
                }
            }
        }
        thread::sleep(pause);
    }
    shard.rename(&temporary.name, to)
}

/// The result of [`Store::overwrite_header`].
enum Overwritten {
    Done,
    /// The file is of another record, which is fresh.
    IsNewer,
    /// The file is of the same record, with another label or form of its key, or of one that is not fresh.
    Differs,
}

/// The result of a completed [`Store::replace`].
pub(crate) struct Replaced {
    /// The length of the file that was replaced, if there was one.
    old_length: Option<u64>,
    /// Its entry, if that is to be reported.
    old: Option<Ending>,
}

/// A temporary file that is removed when it is dropped before the rename.
struct TemporaryFile<'a> {
    shard: &'a dyn Directory,
    name: String,
    is_pending: bool,
}

impl Drop for TemporaryFile<'_> {
    fn drop(&mut self) {
        if self.is_pending {
            // If this fails, a sweep removes the file later.
            let _ = self.shard.remove(&self.name);
        }
    }
}
