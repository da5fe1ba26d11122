//! A disk in memory that fails on demand, and records what a power loss may undo.

mod directory;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::time::SystemTime;

use vayu_core::__internal::IgnorePoison;

use self::directory::ModelDirectory;
use super::{Directory, FileSystem, FileType, Status};
use crate::errno::Errno;

/// A disk with two levels of directories. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    /// The tree when recording began.
    start: Tree,
    /// The changes since then.
    log: Vec<Change>,
    locks: BTreeSet<u64>,
    /// The files of the cache that are open, with the number of times.
    open: BTreeMap<u64, usize>,
    /// The files that another program has open, which it does not share.
    held: BTreeSet<u64>,
    /// Another program opens the next file that is created.
    holds_next: bool,
    /// The file whose beginning is read while it is overwritten, once.
    torn: Option<u64>,
    next_id: u64,
    operations: usize,
    fault: Option<Fault>,
    open_files: usize,
    /// The directories that were listed, and the files that were opened, since the last plan.
    lists: usize,
    opens: usize,
    /// The bytes that were read, and those that were written, since the last plan.
    transferred: (usize, usize),
    /// The number of operations that hang.
    hanging: usize,
    /// Local if it is not set.
    file_system: Option<FileSystem>,
    follows_windows: bool,
}

/// The time of every file on every disk: no clock is coarser.
static NOW: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// A planned failure.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The operation of this number, counted from 0, fails once.
    Once(usize, Errno),
    /// The operation of this number and all later ones fail.
    From(usize, Errno),
    /// Each read and write transfers one byte.
    Slow,
    /// No file can be opened while this many are open.
    Full(usize),
    /// No file can be created while there are this many; the error is this one.
    NoSpace(usize, Errno),
    /// The operation of this number and all later ones hang until the next plan.
    Hangs(usize),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tree {
    /// The names in each directory; the root has the empty name.
    directorys: BTreeMap<String, BTreeMap<String, u64>>,
    files: BTreeMap<u64, Vec<u8>>,
}

/// A change that may be lost until it is synced.
#[derive(Debug, Clone)]
enum Change {
    CreateDirectory { name: String, is_synced: bool },
    Create { directory: String, name: String, id: u64, is_synced: bool },
    Write { id: u64, bytes: Vec<u8>, is_synced: bool },
    Rename { directory: String, from: String, to: String, is_synced: bool },
    Remove { directory: String, name: String, is_synced: bool },
}

/// The effect of a power loss on a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CrashEffect {
    Done,
    Lost,
    /// Half of the bytes were written.
    Half,
    /// All bytes are zero.
    Zeros,
}

impl Disk {
    pub(crate) fn root(&self) -> Box<dyn Directory> {
        self.state().tree.directorys.entry(String::new()).or_default();
        Box::new(ModelDirectory { disk: self.clone(), name: String::new() })
    }

    /// Plans a failure, and counts operations from here on.
    pub(crate) fn plan(&self, fault: impl Into<Option<Fault>>) {
        let mut state = self.state();
        state.operations = 0;
        (state.lists, state.opens, state.transferred) = (0, 0, (0, 0));
        state.fault = fault.into();
        self.0.1.notify_all();
    }

    /// Returns whether an operation hangs.
    pub(crate) fn has_hung(&self) -> bool {
        self.state().hanging > 0
    }

    /// Returns the number of operations since the last plan.
    pub(crate) fn operations(&self) -> usize {
        self.state().operations
    }

    /// Returns the number of directories that were listed, and of files that were opened, since the last
    /// plan.
    pub(crate) fn accesses(&self) -> (usize, usize) {
        let state = self.state();
        (state.lists, state.opens)
    }

    /// Returns the number of bytes that were read, and of those that were written, since the last plan.
    pub(crate) fn transferred(&self) -> (usize, usize) {
        self.state().transferred
    }

    /// Returns the number of open files.
    pub(crate) fn open_files(&self) -> usize {
        self.state().open_files
    }

    /// Sets the kind of the file system, which is local at first.
    pub(crate) fn set_file_system(&self, file_system: FileSystem) {
        self.state().file_system = Some(file_system);
    }

    /// Follows the rules of Windows: a file that is open cannot be replaced, and no file is kept open. One
    /// that another program [holds](Self::hold) cannot be renamed, removed or written to.
    pub(crate) fn follow_windows(&self) {
        let mut state = self.state();
        state.file_system = Some(FileSystem::Unknown);
        state.follows_windows = true;
    }

    /// Opens a file as a program that shares it with readers only, until [`release`](Self::release).
    pub(crate) fn hold(&self, path: &str) {
        let (directory, name) = path.split_once('/').expect("a directory and a name");
        let mut state = self.state();
        let id = state.id(directory, name).expect("it exists");
        state.held.insert(id);
    }

    /// [Holds](Self::hold) the next file that is created.
    pub(crate) fn hold_next(&self) {
        self.state().holds_next = true;
    }

    /// Lets the next read of the beginning of a file find it overwritten in part.
    pub(crate) fn tear_next_read(&self, path: &str) {
        let (directory, name) = path.split_once('/').expect("a directory and a name");
        let mut state = self.state();
        state.torn = state.id(directory, name).ok();
    }

    /// Closes all files that another program holds.
    pub(crate) fn release(&self) {
        self.state().held.clear();
    }

    /// Starts to record changes that a power loss may undo. The present tree survives it.
    pub(crate) fn record(&self) {
        let mut state = self.state();
        state.start = state.tree.clone();
        state.log.clear();
    }

    /// Returns an independent copy.
    pub(crate) fn fork(&self) -> Self {
        let tree = self.state().tree.clone();
        Self::of(tree, self.state().next_id)
    }

    fn of(tree: Tree, next_id: u64) -> Self {
        let state = State { start: tree.clone(), tree, next_id, ..State::default() };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Returns every disk that a power loss at this moment may leave.
    pub(crate) fn after_power_loss(&self) -> Vec<Self> {
        let state = self.state();
        let mut trees = vec![state.start.clone()];
        for change in &state.log {
            let mut next = Vec::new();
            for tree in &trees {
                for &effect in change.crash_effects() {
                    let mut tree = tree.clone();
                    change.apply(&mut tree, effect);
                    if !next.contains(&tree) {
                        next.push(tree);
                    }
                }
            }
            trees = next;
        }
        trees.into_iter().map(|tree| Self::of(tree, state.next_id)).collect()
    }

    /// Returns all paths.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.state();
        let directorys = state.tree.directorys.iter();
        directorys
            .flat_map(|(directory, names)| names.keys().map(move |n| format!("{directory}/{n}")))
            .collect()
    }

    /// Replaces a file by a new one, as another process does.
    pub(crate) fn replace(&self, path: &str, bytes: &[u8]) {
        let (directory, name) = path.split_once('/').expect("a directory and a name");
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        state.tree.files.insert(id, bytes.to_vec());
        let names = state.tree.directorys.get_mut(directory).expect("a folder");
        names.insert(name.to_owned(), id);
    }

    /// Removes a file, as another process does.
    pub(crate) fn unlink(&self, path: &str) {
        let (directory, name) = path.split_once('/').expect("a directory and a name");
        self.state().tree.directorys.get_mut(directory).and_then(|names| names.remove(name));
    }

    /// Overwrites a file in place.
    pub(crate) fn damage(&self, path: &str, bytes: &[u8]) {
        let (directory, name) = path.split_once('/').expect("a directory and a name");
        let mut state = self.state();
        let id = state.tree.directorys[directory][name];
        state.tree.files.insert(id, bytes.to_vec());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().ignore_poison()
    }

    /// Begins an operation, which may fail.
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
                let mut state = woken.ignore_poison();
                state.hanging -= 1;
                Ok(state)
            }
            _ => Ok(state),
        }
    }

    /// Begins an operation that opens a file.
    fn open_operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.operation()?;
        state.opens += 1;
        match state.fault {
            Some(Fault::Full(limit)) if state.open_files >= limit => Err(Errno::MFILE.into()),
            _ => Ok(state),
        }
    }
}

impl Change {
    fn crash_effects(&self) -> &'static [CrashEffect] {
        match self {
            Self::CreateDirectory { is_synced: true, .. }
            | Self::Create { is_synced: true, .. }
            | Self::Write { is_synced: true, .. }
            | Self::Rename { is_synced: true, .. }
            | Self::Remove { is_synced: true, .. } => &[CrashEffect::Done],
            Self::Write { .. } => {
                &[CrashEffect::Done, CrashEffect::Lost, CrashEffect::Half, CrashEffect::Zeros]
            }
            _ => &[CrashEffect::Done, CrashEffect::Lost],
        }
    }

    /// Applies a change. A change of a missing file has no effect.
    fn apply(&self, tree: &mut Tree, effect: CrashEffect) {
        if effect == CrashEffect::Lost {
            return;
        }
        match self {
            Self::CreateDirectory { name, .. } => {
                tree.directorys.entry(name.clone()).or_default();
            }
            Self::Create { directory, name, id, .. } => {
                if let Some(names) = tree.directorys.get_mut(directory) {
                    names.insert(name.clone(), *id);
                }
                tree.files.entry(*id).or_default();
            }
            Self::Write { id, bytes, .. } => {
                let file = tree.files.entry(*id).or_default();
                match effect {
                    CrashEffect::Half => file.extend(&bytes[..bytes.len() / 2]),
                    CrashEffect::Zeros => file.resize(file.len() + bytes.len(), 0),
                    _ => file.extend(bytes),
                }
            }
            Self::Rename { directory, from, to, .. } => {
                if let Some(names) = tree.directorys.get_mut(directory)
                    && let Some(id) = names.remove(from)
                {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove { directory, name, .. } => {
                if let Some(names) = tree.directorys.get_mut(directory) {
                    names.remove(name);
                }
            }
        }
    }
}

impl State {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.tree, CrashEffect::Done);
        self.log.push(change);
    }

    fn names(&self, directory: &str) -> io::Result<&BTreeMap<String, u64>> {
        self.tree.directorys.get(directory).ok_or_else(|| Errno::NOENT.into())
    }

    fn id(&self, directory: &str, name: &str) -> io::Result<u64> {
        self.names(directory)?.get(name).copied().ok_or_else(|| Errno::NOENT.into())
    }

    /// Checks that another file can be created.
    fn space(&self) -> io::Result<()> {
        let files: usize = self.tree.directorys.values().map(BTreeMap::len).sum();
        match self.fault {
            Some(Fault::NoSpace(limit, errno)) if files >= limit => Err(errno.into()),
            _ => Ok(()),
        }
    }

    /// Fails if the rules of Windows forbid to rename, remove or write to a file.
    fn check_held(&self, id: u64) -> io::Result<()> {
        let is_held = self.follows_windows && self.held.contains(&id);
        if is_held { Err(Errno::BUSY.into()) } else { Ok(()) }
    }

    /// Fails if the rules of Windows forbid to replace a file.
    fn check_open(&self, id: u64) -> io::Result<()> {
        let is_open = self.follows_windows && self.open.contains_key(&id);
        if is_open { Err(Errno::BUSY.into()) } else { self.check_held(id) }
    }

    fn status(&self, id: u64) -> Status {
        let length = self.tree.files[&id].len() as u64;
        Status { file_type: FileType::File, length, modified: *NOW, id: (1, id), changed: *NOW }
    }
}
