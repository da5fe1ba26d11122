//! The directories and the files of a disk in memory.

use std::collections::btree_map::Entry;
use std::{io, mem};

use super::{Change, Disk, Fault, State};
use crate::errno::Errno;
use crate::fs::{Directory, File, FileSystem, Status};

#[derive(Debug)]
pub(super) struct ModelDirectory {
    pub(super) disk: Disk,
    pub(super) name: String,
}

impl ModelDirectory {
    fn file(&self, state: &mut State, id: u64, has_lock: bool) -> Box<dyn File> {
        state.open_files += 1;
        *state.open.entry(id).or_default() += 1;
        Box::new(ModelFile { disk: self.disk.clone(), id, has_lock })
    }

    fn make(&self, state: &mut State, name: &str) -> u64 {
        state.next_id += 1;
        let id = state.next_id;
        let (directory, name) = (self.name.clone(), name.to_owned());
        state.change(Change::Create { directory, name, id, is_synced: false });
        id
    }
}

impl Directory for ModelDirectory {
    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.open_operation()?;
        let (directory, name) = path.split_once('/').unwrap_or((&self.name, path));
        let id = state.id(directory, name)?;
        Ok(self.file(&mut state, id, false))
    }

    fn open_to_append(&self, path: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.open_operation()?;
        let (directory, name) = path.split_once('/').unwrap_or((&self.name, path));
        let id = state.id(directory, name)?;
        state.check_held(id)?;
        Ok(self.file(&mut state, id, false))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.open_operation()?;
        if state.names(&self.name)?.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        state.space()?;
        let id = self.make(&mut state, name);
        if mem::take(&mut state.holds_next) {
            state.held.insert(id);
        }
        Ok(self.file(&mut state, id, false))
    }

    fn update(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.open_operation()?;
        let id = state.id(&self.name, name)?;
        state.check_held(id)?;
        Ok(self.file(&mut state, id, false))
    }

    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn File>>> {
        let mut state = self.disk.open_operation()?;
        let id = match state.id(&self.name, name) {
            Ok(id) => id,
            Err(_) => {
                state.space()?;
                self.make(&mut state, name)
            }
        };
        drop(state);
        let mut state = self.disk.operation()?;
        if !state.locks.insert(id) {
            return Ok(None);
        }
        Ok(Some(self.file(&mut state, id, true)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        state.check_held(state.id(&self.name, from)?)?;
        if let Ok(replaced) = state.id(&self.name, to) {
            state.check_open(replaced)?;
        }
        let (directory, from, to) = (self.name.clone(), from.to_owned(), to.to_owned());
        state.change(Change::Rename { directory, from, to, is_synced: false });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        state.check_held(state.id(&self.name, name)?)?;
        let (directory, name) = (self.name.clone(), name.to_owned());
        state.change(Change::Remove { directory, name, is_synced: false });
        Ok(())
    }

    fn status(&self, path: &str) -> io::Result<Status> {
        let state = self.disk.operation()?;
        let (directory, name) = path.split_once('/').unwrap_or((&self.name, path));
        Ok(state.status(state.id(directory, name)?))
    }

    fn list(&self, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        state.lists += 1;
        state.names(&self.name)?.keys().for_each(|name| visit(name));
        if self.name.is_empty() {
            state
                .tree
                .directorys
                .keys()
                .filter(|name| !name.is_empty())
                .for_each(|name| visit(name));
        }
        Ok(())
    }

    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        let state = self.disk.operation()?;
        state.names(name)?;
        Ok(Box::new(Self { disk: self.disk.clone(), name: name.to_owned() }))
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        if state.names(name).is_ok() {
            return Err(Errno::EXIST.into());
        }
        state.space()?;
        state.change(Change::CreateDirectory { name: name.to_owned(), is_synced: false });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.open_operation()?;
        for change in &mut state.log {
            match change {
                Change::CreateDirectory { is_synced, .. } if self.name.is_empty() => {
                    *is_synced = true;
                }
                Change::Create { directory, is_synced, .. }
                | Change::Rename { directory, is_synced, .. }
                | Change::Remove { directory, is_synced, .. }
                    if *directory == self.name =>
                {
                    *is_synced = true;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        Ok(self.disk.operation()?.file_system.unwrap_or(FileSystem::Local))
    }
}

#[derive(Debug)]
struct ModelFile {
    disk: Disk,
    id: u64,
    has_lock: bool,
}

impl File for ModelFile {
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut state = self.disk.operation()?;
        let rest = state.tree.files[&self.id].get(buffer.len()..).unwrap_or_default();
        let limit = if matches!(state.fault, Some(Fault::Slow)) { 1 } else { usize::MAX };
        let length = rest.len().min(buffer.capacity() - buffer.len()).min(limit);
        let is_torn = buffer.is_empty() && state.torn == Some(self.id);
        buffer.extend_from_slice(&rest[..length]);
        if is_torn {
            state.torn = None;
            buffer[length / 2..].fill(0);
        }
        state.transferred.0 += length;
        Ok(length)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.operation()?;
        let is_slow = matches!(state.fault, Some(Fault::Slow));
        let bytes = if is_slow { &bytes[..1] } else { bytes };
        state.transferred.1 += bytes.len();
        state.change(Change::Write { id: self.id, bytes: bytes.to_vec(), is_synced: false });
        Ok(bytes.len())
    }

    /// Overwritten bytes do not survive a power loss.
    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.operation()?;
        let is_slow = matches!(state.fault, Some(Fault::Slow));
        let bytes = if is_slow { &bytes[..1] } else { bytes };
        let position = usize::try_from(position).expect("a small file");
        let file = state.tree.files.get_mut(&self.id).expect("it is open");
        let end = position + bytes.len();
        file.resize(file.len().max(end), 0);
        file[position..end].copy_from_slice(bytes);
        state.transferred.1 += bytes.len();
        Ok(bytes.len())
    }

    fn status(&self) -> io::Result<Status> {
        Ok(self.disk.operation()?.status(self.id))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        for change in &mut state.log {
            if let Change::Write { id, is_synced, .. } = change
                && *id == self.id
            {
                *is_synced = true;
            }
        }
        Ok(())
    }
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        state.open_files -= 1;
        if let Entry::Occupied(mut count) = state.open.entry(self.id) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if self.has_lock {
            state.locks.remove(&self.id);
        }
    }
}
