//! A disk in memory that fails when it is told to, and remembers what a loss of power may undo.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::io::Errno;

use super::{File, Folder, Kind, Status};

/// A disk of two levels. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    /// What the tree was when recording began.
    start: Tree,
    /// What has been done since.
    log: Vec<Change>,
    locks: BTreeSet<u64>,
    next_id: u64,
    operations: usize,
    fault: Option<Fault>,
    open_files: usize,
    /// Since a failure was planned: folders that were listed, and files that were opened.
    lists: usize,
    opens: usize,
    /// How many operations do not return at the moment.
    hanging: usize,
    is_remote: bool,
}

/// When everything on every disk was written and changed: no clock is coarser.
static NOW: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// A failure that is planned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The operation of this number, counted from zero, fails once.
    Once(usize, Errno),
    /// From that operation on all fail.
    From(usize, Errno),
    /// One byte is read or written at a time.
    Slow,
    /// No file can be opened while so many are open.
    Full(usize),
    /// No file can be made while there are so many, with this error.
    NoSpace(usize, Errno),
    /// The operation of this number, and those after it, do not return until another plan is made.
    Hangs(usize),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tree {
    /// The names in each folder; the root is the empty name.
    folders: BTreeMap<String, BTreeMap<String, u64>>,
    files: BTreeMap<u64, Vec<u8>>,
}

/// Something that is not on the disk for certain until it is synced.
#[derive(Debug, Clone)]
enum Change {
    MakeFolder { name: String, is_synced: bool },
    Create { folder: String, name: String, id: u64, is_synced: bool },
    Write { id: u64, bytes: Vec<u8>, is_synced: bool },
    Rename { folder: String, from: String, to: String, is_synced: bool },
    Remove { folder: String, name: String, is_synced: bool },
}

/// What became of a change when the power was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Lost,
    /// Half of what was written is there.
    Half,
    /// As many bytes as were written are there, and all are zero.
    Zeros,
}

impl Disk {
    pub(crate) fn root(&self) -> Box<dyn Folder> {
        self.state().tree.folders.entry(String::new()).or_default();
        Box::new(ModelFolder { disk: self.clone(), name: String::new() })
    }

    /// Plans a failure, counting operations from here on.
    pub(crate) fn plan(&self, fault: impl Into<Option<Fault>>) {
        let mut state = self.state();
        state.operations = 0;
        (state.lists, state.opens) = (0, 0);
        state.fault = fault.into();
        self.0.1.notify_all();
    }

    /// Whether an operation hangs.
    pub(crate) fn has_hung(&self) -> bool {
        self.state().hanging > 0
    }

    /// How many operations there were since a failure was planned.
    pub(crate) fn operations(&self) -> usize {
        self.state().operations
    }

    /// How many folders were listed, and files opened, since a failure was planned.
    pub(crate) fn looks(&self) -> (usize, usize) {
        let state = self.state();
        (state.lists, state.opens)
    }

    /// How many files are open.
    pub(crate) fn open_files(&self) -> usize {
        self.state().open_files
    }

    /// Others may change it without this system knowing.
    pub(crate) fn make_remote(&self) {
        self.state().is_remote = true;
    }

    /// What is there now survives; what is done from here on may be lost.
    pub(crate) fn record(&self) {
        let mut state = self.state();
        state.start = state.tree.clone();
        state.log.clear();
    }

    /// A copy that goes its own way.
    pub(crate) fn fork(&self) -> Self {
        let tree = self.state().tree.clone();
        Self::of(tree, self.state().next_id)
    }

    fn of(tree: Tree, next_id: u64) -> Self {
        let state = State { start: tree.clone(), tree, next_id, ..State::default() };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Every disk that a loss of power at this moment may leave behind.
    pub(crate) fn after_power_loss(&self) -> Vec<Self> {
        let state = self.state();
        let mut trees = vec![state.start.clone()];
        for change in &state.log {
            let mut next = Vec::new();
            for tree in &trees {
                for &fate in change.fates() {
                    let mut tree = tree.clone();
                    change.apply(&mut tree, fate);
                    if !next.contains(&tree) {
                        next.push(tree);
                    }
                }
            }
            trees = next;
        }
        trees.into_iter().map(|tree| Self::of(tree, state.next_id)).collect()
    }

    /// All names below the root.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.state();
        let folders = state.tree.folders.iter();
        folders
            .flat_map(|(folder, names)| names.keys().map(move |n| format!("{folder}/{n}")))
            .collect()
    }

    /// Gives a name to another file, which somebody else has written.
    pub(crate) fn replace(&self, path: &str, bytes: &[u8]) {
        let (folder, name) = path.split_once('/').expect("a folder and a name");
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        state.tree.files.insert(id, bytes.to_vec());
        let names = state.tree.folders.get_mut(folder).expect("a folder");
        names.insert(name.to_owned(), id);
    }

    /// Takes a name away, as somebody else does.
    pub(crate) fn unlink(&self, path: &str) {
        let (folder, name) = path.split_once('/').expect("a folder and a name");
        self.state().tree.folders.get_mut(folder).and_then(|names| names.remove(name));
    }

    /// Puts bytes in the place of those of a file.
    pub(crate) fn damage(&self, path: &str, bytes: &[u8]) {
        let (folder, name) = path.split_once('/').expect("a folder and a name");
        let mut state = self.state();
        let id = state.tree.folders[folder][name];
        state.tree.files.insert(id, bytes.to_vec());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One operation, which may be the one that fails.
    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let number = state.operations;
        state.operations += 1;
        match state.fault {
            Some(Fault::Once(planned, errno)) if planned == number => Err(errno.into()),
            Some(Fault::From(planned, errno)) if planned <= number => Err(errno.into()),
            Some(Fault::Hangs(planned)) if planned <= number => {
                state.hanging += 1;
                let hangs = |state: &mut State| matches!(state.fault, Some(Fault::Hangs(_)));
                let woken = self.0.1.wait_while(state, hangs);
                let mut state = woken.unwrap_or_else(PoisonError::into_inner);
                state.hanging -= 1;
                Ok(state)
            }
            _ => Ok(state),
        }
    }

    /// An operation that opens a file.
    fn opening(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.operation()?;
        state.opens += 1;
        match state.fault {
            Some(Fault::Full(most)) if state.open_files >= most => Err(Errno::MFILE.into()),
            _ => Ok(state),
        }
    }
}

impl Change {
    fn fates(&self) -> &'static [Fate] {
        match self {
            Self::MakeFolder { is_synced: true, .. }
            | Self::Create { is_synced: true, .. }
            | Self::Write { is_synced: true, .. }
            | Self::Rename { is_synced: true, .. }
            | Self::Remove { is_synced: true, .. } => &[Fate::Done],
            Self::Write { .. } => &[Fate::Done, Fate::Lost, Fate::Half, Fate::Zeros],
            _ => &[Fate::Done, Fate::Lost],
        }
    }

    /// A change to what is not there changes nothing.
    fn apply(&self, tree: &mut Tree, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        match self {
            Self::MakeFolder { name, .. } => {
                tree.folders.entry(name.clone()).or_default();
            }
            Self::Create { folder, name, id, .. } => {
                if let Some(names) = tree.folders.get_mut(folder) {
                    names.insert(name.clone(), *id);
                }
                tree.files.entry(*id).or_default();
            }
            Self::Write { id, bytes, .. } => {
                let file = tree.files.entry(*id).or_default();
                match fate {
                    Fate::Half => file.extend(&bytes[..bytes.len() / 2]),
                    Fate::Zeros => file.resize(file.len() + bytes.len(), 0),
                    _ => file.extend(bytes),
                }
            }
            Self::Rename { folder, from, to, .. } => {
                if let Some(names) = tree.folders.get_mut(folder)
                    && let Some(id) = names.remove(from)
                {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove { folder, name, .. } => {
                if let Some(names) = tree.folders.get_mut(folder) {
                    names.remove(name);
                }
            }
        }
    }
}

impl State {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.tree, Fate::Done);
        self.log.push(change);
    }

    fn names(&self, folder: &str) -> io::Result<&BTreeMap<String, u64>> {
        self.tree.folders.get(folder).ok_or_else(|| Errno::NOENT.into())
    }

    fn id(&self, folder: &str, name: &str) -> io::Result<u64> {
        self.names(folder)?.get(name).copied().ok_or_else(|| Errno::NOENT.into())
    }

    /// Whether another file can be made.
    fn space(&self) -> io::Result<()> {
        let files: usize = self.tree.folders.values().map(BTreeMap::len).sum();
        match self.fault {
            Some(Fault::NoSpace(most, errno)) if files >= most => Err(errno.into()),
            _ => Ok(()),
        }
    }

    fn status(&self, id: u64) -> Status {
        let length = self.tree.files[&id].len() as u64;
        Status { kind: Kind::File, length, modified: *NOW, id: (1, id), changed: *NOW }
    }
}

#[derive(Debug)]
struct ModelFolder {
    disk: Disk,
    name: String,
}

impl ModelFolder {
    fn file(&self, state: &mut State, id: u64) -> Box<dyn File> {
        state.open_files += 1;
        Box::new(ModelFile { disk: self.disk.clone(), id, has_lock: false.into() })
    }

    fn make(&self, state: &mut State, name: &str) -> u64 {
        state.next_id += 1;
        let id = state.next_id;
        let (folder, name) = (self.name.clone(), name.to_owned());
        state.change(Change::Create { folder, name, id, is_synced: false });
        id
    }
}

impl Folder for ModelFolder {
    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.opening()?;
        let (folder, name) = path.split_once('/').unwrap_or((&self.name, path));
        let id = state.id(folder, name)?;
        Ok(self.file(&mut state, id))
    }

    fn open_to_append(&self, path: &str) -> io::Result<Box<dyn File>> {
        self.open(path)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.opening()?;
        if state.names(&self.name)?.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        state.space()?;
        let id = self.make(&mut state, name);
        Ok(self.file(&mut state, id))
    }

    fn update(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.opening()?;
        let id = state.id(&self.name, name)?;
        Ok(self.file(&mut state, id))
    }

    fn open_lock(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.disk.opening()?;
        let id = match state.id(&self.name, name) {
            Ok(id) => id,
            Err(_) => {
                state.space()?;
                self.make(&mut state, name)
            }
        };
        Ok(self.file(&mut state, id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        state.id(&self.name, from)?;
        let (folder, from, to) = (self.name.clone(), from.to_owned(), to.to_owned());
        state.change(Change::Rename { folder, from, to, is_synced: false });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        state.id(&self.name, name)?;
        let (folder, name) = (self.name.clone(), name.to_owned());
        state.change(Change::Remove { folder, name, is_synced: false });
        Ok(())
    }

    fn status(&self, path: &str) -> io::Result<Status> {
        let state = self.disk.operation()?;
        let (folder, name) = path.split_once('/').unwrap_or((&self.name, path));
        Ok(state.status(state.id(folder, name)?))
    }

    fn list(&self, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        state.lists += 1;
        state.names(&self.name)?.keys().for_each(|name| visit(name));
        if self.name.is_empty() {
            state.tree.folders.keys().filter(|name| !name.is_empty()).for_each(|name| visit(name));
        }
        Ok(())
    }

    fn folder(&self, name: &str) -> io::Result<Box<dyn Folder>> {
        let state = self.disk.operation()?;
        state.names(name)?;
        Ok(Box::new(Self { disk: self.disk.clone(), name: name.to_owned() }))
    }

    fn make_folder(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        if state.names(name).is_ok() {
            return Err(Errno::EXIST.into());
        }
        state.space()?;
        state.change(Change::MakeFolder { name: name.to_owned(), is_synced: false });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.opening()?;
        for change in &mut state.log {
            match change {
                Change::MakeFolder { is_synced, .. } if self.name.is_empty() => *is_synced = true,
                Change::Create { folder, is_synced, .. }
                | Change::Rename { folder, is_synced, .. }
                | Change::Remove { folder, is_synced, .. }
                    if *folder == self.name =>
                {
                    *is_synced = true;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_local(&self) -> io::Result<bool> {
        Ok(!self.disk.operation()?.is_remote)
    }
}

#[derive(Debug)]
struct ModelFile {
    disk: Disk,
    id: u64,
    has_lock: Mutex<bool>,
}

impl File for ModelFile {
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let state = self.disk.operation()?;
        let rest = state.tree.files[&self.id].get(buffer.len()..).unwrap_or_default();
        let most = if matches!(state.fault, Some(Fault::Slow)) { 1 } else { usize::MAX };
        let length = rest.len().min(buffer.capacity() - buffer.len()).min(most);
        buffer.extend_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.operation()?;
        let is_slow = matches!(state.fault, Some(Fault::Slow));
        let bytes = if is_slow { &bytes[..1] } else { bytes };
        state.change(Change::Write { id: self.id, bytes: bytes.to_vec(), is_synced: false });
        Ok(bytes.len())
    }

    /// What is overwritten in place is lost when the power is.
    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.operation()?;
        let is_slow = matches!(state.fault, Some(Fault::Slow));
        let bytes = if is_slow { &bytes[..1] } else { bytes };
        let position = usize::try_from(position).expect("a small file");
        let file = state.tree.files.get_mut(&self.id).expect("it is open");
        let end = position + bytes.len();
        file.resize(file.len().max(end), 0);
        file[position..end].copy_from_slice(bytes);
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

    fn try_lock(&self) -> io::Result<bool> {
        let is_taken = self.disk.operation()?.locks.insert(self.id);
        *self.has_lock.lock().expect("no panic") = is_taken;
        Ok(is_taken)
    }
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        state.open_files -= 1;
        if *self.has_lock.get_mut().expect("no panic") {
            state.locks.remove(&self.id);
        }
    }
}
