//! What a cache in a directory may be told.

use std::path::Path;
use std::sync::Arc;

use cap_std::fs::Dir;
use vayu_core::{Clock, Result, SingleFlight, SystemClock};

use crate::FileCache;
use crate::backend::FileBackend;

/// The options of a cache in a directory.
///
/// # Examples
///
/// ```
/// use vayu_file::{Durability, FileOptions};
///
/// # fn main() -> vayu_core::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// let cache = FileOptions::new()
///     .max_bytes(64 << 20)
///     .durability(Durability::Synced)
///     .open(directory.path())?;
/// # assert_eq!(cache.stats().usage.max_weight, Some(64 << 20));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct FileOptions {
    pub(crate) max_bytes: u64,
    pub(crate) max_entries: u64,
    pub(crate) max_entry_bytes: u64,
    pub(crate) open_files: usize,
    pub(crate) durability: Durability,
    pub(crate) access: Access,
    pub(crate) async_io: AsyncIo,
    pub(crate) single_flight: SingleFlight,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The operating system. A process may be killed at any moment. After a loss of power an entry
    /// may be missing, damaged or the one before, and what was deleted or invalidated just before
    /// may be back; damaged ones are misses.
    #[default]
    Relaxed,
    /// The disk. What was written or deleted is so after a loss of power, too. A write takes many
    /// times longer.
    Synced,
}

/// How the async methods reach the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AsyncIo {
    /// On the threads for blocking work of the tokio runtime that polls, one hand-over for each
    /// operation. Where there is no such runtime, as with [`Inline`](Self::Inline).
    ///
    /// To drop the future never waits for the disk: an operation that has not begun never does, one
    /// that has begun ends by itself, and a write whose caller has gone does not put its entry in
    /// place. An operation for which no thread is free for 20 milliseconds, while none is at work for
    /// this cache, runs on the thread that polls, since the threads may be those of callers that wait
    /// for it.
    #[default]
    SpawnBlocking,
    /// On the thread that polls. A read of a small entry from the page cache takes a few
    /// microseconds, less than handing it over, but a slow disk holds up every task of the thread.
    Inline,
}

/// Who may use the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    OwnerOnly,
    AnyValue,
}

impl FileOptions {
    /// How many bytes of disk a cache takes at most unless it is told otherwise: 1 GiB.
    pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

    /// How long an entry may be unless the cache is told otherwise: 64 MiB.
    pub const DEFAULT_MAX_ENTRY_BYTES: u64 = 64 << 20;

    /// How many files of entries are held open unless the cache is told otherwise: 64.
    pub const DEFAULT_OPEN_FILES: usize = 64;

    /// The default options.
    pub fn new() -> Self {
        Self {
            max_bytes: Self::DEFAULT_MAX_BYTES,
            max_entries: u64::MAX,
            max_entry_bytes: Self::DEFAULT_MAX_ENTRY_BYTES,
            open_files: Self::DEFAULT_OPEN_FILES,
            durability: Durability::default(),
            access: Access::OwnerOnly,
            async_io: AsyncIo::default(),
            single_flight: SingleFlight::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Takes at most this many bytes of disk, in blocks of 4 KiB for each entry. The default is
    /// [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES).
    ///
    /// When a write goes beyond a limit, the entries that were written longest ago are evicted, by that
    /// write and the next ones. All processes that use the directory keep its limits together, however
    /// short they live; each goes by the limits of its own. An entry that takes more than the limit is
    /// refused.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Holds at most this many entries. There is no such limit by default.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    /// Neither writes nor reads an entry of more bytes than this, its key and a header of 80 bytes
    /// included. The default is [`DEFAULT_MAX_ENTRY_BYTES`](Self::DEFAULT_MAX_ENTRY_BYTES).
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = bytes;
        self
    }

    /// Holds at most this many files open, those of short entries that are read again and again,
    /// whose next hit takes three fourths of the time then. None with 0. The default is
    /// [`DEFAULT_OPEN_FILES`](Self::DEFAULT_OPEN_FILES).
    ///
    /// What others write or delete is seen as if none were open. A file that is held keeps its room
    /// on the disk, of at most 16 KiB, after another process has deleted it, until it is asked for
    /// again or gives way to another. When this cache finds no file descriptor left, it closes all of
    /// these; what else opens files does not, so a program with many caches and few descriptors wants
    /// fewer. On network file systems, and on other systems than Linux, none is held.
    pub fn open_files(mut self, files: usize) -> Self {
        self.open_files = files;
        self
    }

    /// What a write waits for. The default is [`Durability::Relaxed`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Accepts a directory that other users may write to, and gives what is made in it to those who may
    /// use the directory: files and folders get its mode and its group, whatever the umask is.
    ///
    /// Any user who can write to the directory decides which values the functions return. Without this
    /// option such a directory is refused, and only the owner may read what is written.
    ///
    /// Two set-ups work:
    ///
    /// - All members of a group read and write: `install -d -m 2770 -g GROUP DIRECTORY`. A directory that
    ///   is made below such a one is like it.
    /// - One user writes, the others read: a directory of mode 755 that this user owns. A call of the others that
    ///   finds nothing computes and counts an error, since it cannot store.
    ///
    /// Opening logs a warning where this user may not write to the directory. One that is made in a
    /// directory with the sticky bit, as `/tmp`, has the rights that the umask allows.
    pub fn allow_shared(mut self) -> Self {
        self.access = Access::AnyValue;
        self
    }

    /// How the async methods reach the file system. The default is [`AsyncIo::SpawnBlocking`].
    pub fn async_io(mut self, async_io: AsyncIo) -> Self {
        self.async_io = async_io;
        self
    }

    /// Among whom a key is computed once at a time. The default is [`SingleFlight::Process`].
    ///
    /// [`SingleFlight::Everywhere`] is by a file lock for each key that is being computed. The lock of
    /// a process that dies is free at once. A hit takes no lock.
    pub fn single_flight(mut self, single_flight: SingleFlight) -> Self {
        self.single_flight = single_flight;
        self
    }

    /// Takes the time from this clock. The default is [`SystemClock`], which other processes have
    /// as well.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The cache in this directory, which is made if it does not exist, as are those above it, all for
    /// their owner alone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](vayu_core::ErrorKind::Configuration)
    ///
    /// - when the directory cannot be made or opened,
    /// - when it belongs to another user, or other users may write to it, without
    ///   [`allow_shared`](Self::allow_shared),
    /// - when it holds other files and is no cache: give the cache a directory of its own.
    pub fn open(self, path: impl AsRef<Path>) -> Result<FileCache> {
        Ok(Self::cache(FileBackend::open(path.as_ref(), &self)?))
    }

    /// The cache in a directory that is open already.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_dir(self, dir: Dir) -> Result<FileCache> {
        Ok(Self::cache(FileBackend::open_dir(dir, &self)?))
    }

    fn cache(backend: FileBackend) -> FileCache {
        FileCache::with_backend(backend)
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}
