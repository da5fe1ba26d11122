//! The options of a cache in a directory.

use std::sync::Arc;

use vayu_core::{Clock, SingleFlight, SystemClock};

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
    pub(crate) hides_arguments: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The durability of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// A write returns when the operating system has the data. An entry survives a crash of the
    /// process. After a power loss it may be missing, corrupt or the previous one, and deletions and
    /// invalidations of the last moments may be undone; corrupt entries are misses.
    #[default]
    Relaxed,
    /// A write or a deletion returns when the disk has the data (`fsync`), and survives a power loss.
    /// Writes take many times longer. On Windows the names of the files are not synced: after a power loss an entry of
    /// the last moments may be missing or the previous one, and is not corrupt, and deletions and invalidations of the
    /// last moments may be undone, although they have returned.
    Synced,
}

/// The threads on which async methods access the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AsyncIo {
    /// On the blocking threads of the current tokio runtime (`spawn_blocking`), one task for each
    /// operation. Without a tokio runtime, the same as [`Inline`](Self::Inline).
    ///
    /// Polling and dropping the future of an operation do not wait for the disk: an operation that has not started when its
    /// future is dropped never runs, one that has started ends by itself, and a write that is cancelled does
    /// not publish its entry. An operation that no thread has started within 20 milliseconds runs on a thread
    /// of the cache, which ends when there are no more of them: the blocking threads may be those of callers
    /// that wait for it. The polling thread runs it only where the system starts no more threads.
    ///
    /// Memory in front of the directory is an exception: a lookup reads the log of invalidations on the calling thread, at
    /// most ten times a second, also in async code, so a disk that hangs then blocks the callers.
    #[default]
    SpawnBlocking,
    /// On the polling thread. Reading a small entry from the page cache takes a few microseconds, less
    /// than `spawn_blocking`, but a slow disk blocks every task of the thread.
    Inline,
}

/// The users that may access the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    OwnerOnly,
    Shared,
}

impl FileOptions {
    /// The default of [`max_bytes`](Self::max_bytes): 1 GiB.
    pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

    /// The default of [`max_entry_bytes`](Self::max_entry_bytes): 64 MiB.
    pub const DEFAULT_MAX_ENTRY_BYTES: u64 = 64 << 20;

    /// The default of [`open_files`](Self::open_files): 64.
    pub const DEFAULT_OPEN_FILES: usize = 64;

    /// Creates the default options.
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
            hides_arguments: false,
            clock: Arc::new(SystemClock),
        }
    }

    /// Limits the disk space to this many bytes, counted in blocks of 4 KiB per entry. The default is
    /// [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES).
    ///
    /// When a write exceeds a limit, it and the following writes evict the oldest entries. Processes
    /// that use the directory enforce its limits together, even if each of them writes once and ends;
    /// each uses the limits of its own options. An entry that is larger than the limit is refused.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Limits the number of entries. The default is no limit.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    /// Neither writes nor reads an entry of more bytes than this, including its key and a header of 80
    /// bytes. The default is [`DEFAULT_MAX_ENTRY_BYTES`](Self::DEFAULT_MAX_ENTRY_BYTES).
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = bytes;
        self
    }

    /// Keeps up to `files` frequently read small entries open; hits on them are about 25 % faster. 0
    /// disables this. The default is [`DEFAULT_OPEN_FILES`](Self::DEFAULT_OPEN_FILES).
    ///
    /// Changes by other processes are seen all the same. A file that another process deletes keeps its
    /// disk space of up to 16 KiB until its key is read again or another file replaces it. When this
    /// cache runs out of file descriptors, it closes all these files; other code that opens files does
    /// not, so a program with many caches and few descriptors needs a lower number. On network file
    /// systems, and on systems other than Linux, no files are kept open.
    pub fn open_files(mut self, files: usize) -> Self {
        self.open_files = files;
        self
    }

    /// Sets the durability of writes. The default is [`Durability::Relaxed`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Accepts a directory that other users may write to, and gives new files and subdirectories its
    /// mode and its group, whatever the umask is.
    ///
    /// Any user that can write to the directory decides which values the functions return. Without this
    /// option such a directory is refused, and only the owner may read what is written.
    ///
    /// Two set-ups work:
    ///
    /// - All members of a group read and write: `install -d -m 2770 -g GROUP DIRECTORY`. A directory that
    ///   the cache creates in such a directory gets the same mode and group.
    /// - One user writes, the others read: a directory of mode 755 that this user owns. A miss of another
    ///   user computes, and counts an error because it cannot store.
    ///
    /// Opening logs a warning if this user may not write to the directory. A directory that is created
    /// in one with the sticky bit, such as `/tmp`, has the mode that the umask allows.
    ///
    /// On Windows every directory is accepted, and has the access control list of its parent, with this option
    /// and without it.
    pub fn allow_shared(mut self) -> Self {
        self.access = Access::Shared;
        self
    }

    /// Sets the threads on which async methods access the file system. The default is
    /// [`AsyncIo::SpawnBlocking`].
    pub fn async_io(mut self, async_io: AsyncIo) -> Self {
        self.async_io = async_io;
        self
    }

    /// Sets the scope in which concurrent calls of a key compute once. The default is
    /// [`SingleFlight::Process`].
    ///
    /// [`SingleFlight::Everywhere`] takes a file lock (`flock`, on Windows a file opened without sharing) for
    /// each key that is being computed. The lock of a process that dies is released at once. A hit takes no lock.
    pub fn single_flight(mut self, single_flight: SingleFlight) -> Self {
        self.single_flight = single_flight;
        self
    }

    /// Writes no arguments of calls, no string keys and no labels: an entry then contains the name of its
    /// function and the SHA-256 of its key.
    ///
    /// By default an entry contains its key, up to 64 KiB, so that `vayu-cache ls` can show the call.
    /// Caches with and without this option read each other's entries. Arguments that can be guessed can be
    /// found by their digest, which is also in the name of the file.
    pub fn hide_arguments(mut self) -> Self {
        self.hides_arguments = true;
        self
    }

    /// Sets the clock. The default is [`SystemClock`], which is that of other processes, too.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}
