//! The backend: the implementations of the traits of core.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use cap_std::fs::Dir;
use tokio::runtime::Handle;
use vayu_core::__internal::fail_batch;
use vayu_core::{
    Backend, Batches, Capabilities, Clear, Clock, EndListener, EntryTimes, Generations, Group,
    InvalidationFeed, InvalidationListener, Key, Lease, LeaseGuard, Leases, OffBackend,
    OpenBackend, Record, ReportEnds, ReportUsage, Result, Usage,
};

use crate::directory;
use crate::feed::FeedPoller;
use crate::fs::{Directory, DiskDirectory, FileSystem, NoDirectory};
use crate::offload::{self, CancelFlag, OffloadedLock, Overdue};
use crate::options::{AsyncIo, FileOptions};
use crate::store::Store;

/// Stores each entry in a file of its own in one directory, which processes may share.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// An entry is written to a temporary file that is then renamed, so that a reader finds the old entry,
/// the new one or none, and a process may be killed at any moment. Each read verifies the entry: one
/// that is corrupt, belongs to another key or is not an entry is a miss, and is overwritten. The
/// directory is opened once; nothing outside of it is opened, written or removed, and no symbolic link
/// in it is followed. The files of frequently read small entries are kept open
/// ([`FileOptions::open_files`]); a read sees changes by other processes all the same.
///
/// A process does not know which keys other processes are computing: an entry that one process removes
/// may be stored again by a process that had begun to compute it before.
///
/// If the directory is removed while a process uses it, every read is a miss and nothing can be stored.
#[derive(Clone)]
pub struct FileBackend {
    pub(crate) store: Arc<Store>,
    feed: Arc<FeedPoller>,
    /// The path that it was opened with.
    path: Option<Arc<Path>>,
    async_io: AsyncIo,
    pub(crate) overdue: Arc<Overdue>,
}

impl FileBackend {
    pub(crate) fn open(path: &Path, options: &FileOptions) -> Result<Self> {
        Self::open_at(directory::open(path, options.access)?, Some(path), options)
    }

    pub(crate) fn open_dir(dir: Dir, options: &FileOptions) -> Result<Self> {
        Self::open_at(dir, None, options)
    }

    fn open_at(dir: Dir, path: Option<&Path>, options: &FileOptions) -> Result<Self> {
        directory::check(&dir, options.access)?;
        Self::in_directory(Box::new(DiskDirectory::new(dir, options.access)), path, options)
    }

    /// Creates a backend in a directory, and logs a warning if that is on a network.
    pub(crate) fn in_directory(
        root: Box<dyn Directory>,
        path: Option<&Path>,
        options: &FileOptions,
    ) -> Result<Self> {
        let store = Store::new(root, options)?;
        let path = path.map(Arc::<Path>::from);
        if let Some(path) = &path {
            store.outages.set_path(Arc::clone(path));
        }
        if let Ok(FileSystem::Network(name)) = store.root.file_system() {
            store.outages.warn_of_network(name);
        }
        Ok(Self { path, ..Self::with_store(store, options) })
    }

    fn with_store(store: Store, options: &FileOptions) -> Self {
        Self {
            store: Arc::new(store),
            feed: Arc::default(),
            path: None,
            async_io: options.async_io,
            overdue: Arc::default(),
        }
    }

    /// Sweeps the whole directory: removes expired entries and abandoned temporary files, counts the
    /// rest, and returns the updated [`usage`](ReportUsage::usage). This reads the header of every entry; writes do
    /// the same in small steps.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`](vayu_core::ErrorKind::Backend) when a part of the directory cannot be read.
    pub fn sweep(&self) -> Result<Usage> {
        self.store.sweep_all(&CancelFlag::never())
    }

    /// Sweeps like [`sweep`](Self::sweep), on a blocking thread. Dropping the future ends it early.
    ///
    /// # Errors
    ///
    /// Those of [`sweep`](Self::sweep).
    pub async fn sweep_async(&self) -> Result<Usage> {
        self.offload(Store::sweep_all).await
    }

    /// Runs an operation where it may block. If the future is dropped, an operation that has not
    /// started never runs, and one that has started ends by itself; the drop waits for neither. The
    /// operation checks the flag before it does what other callers cannot undo.
    async fn offload<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Store, &CancelFlag) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(runtime) = self.runtime() else {
            return operation(&self.store, &CancelFlag::never());
        };
        let store = Arc::clone(&self.store);
        let operation = move |cancel: &CancelFlag| operation(&store, cancel);
        offload::run(&runtime, &self.overdue, operation).await
    }

    /// Returns the runtime whose blocking threads run operations.
    fn runtime(&self) -> Option<Handle> {
        match self.async_io {
            AsyncIo::SpawnBlocking => Handle::try_current().ok(),
            AsyncIo::Inline => None,
        }
    }
}

impl OpenBackend for FileBackend {
    type Location = PathBuf;

    fn open(path: PathBuf) -> Result<Self> {
        Self::open(&path, &FileOptions::new())
    }
}

impl OffBackend for FileBackend {
    fn off() -> Self {
        let options = FileOptions::new();
        Self::with_store(Store::in_marked(Box::new(NoDirectory), &options, true), &options)
    }
}

/// Accesses no file and waits for no lock.
impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend")
            .field("path", &self.path)
            .field("async_io", &self.async_io)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for FileBackend {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.store.read(key)
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.store.write(key, &record, &CancelFlag::never())
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.store.delete(key)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = key.clone();
        self.offload(move |store, _| store.read(&key)).await
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let key = key.clone();
        self.offload(move |store, cancel| store.write(&key, &record, cancel)).await
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let key = key.clone();
        self.offload(move |store, _| store.delete(&key)).await
    }

    #[inline]
    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities {
            generations: Some(self),
            invalidation_feed: Some(self),
            leases: Some(self),
            offline: None,
            batches: Some(self),
            times: Some(self),
            clear: Some(self),
            usage: Some(self),
            ends: Some(self),
        }
    }

    fn description(&self) -> String {
        match &self.path {
            Some(path) => format!("file {}", path.display()),
            None => "file".to_owned(),
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.store.clock()
    }
}

#[async_trait]
impl Batches for FileBackend {
    type Stored = Bytes;

    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        self.store.read_many(keys, &CancelFlag::never())
    }

    fn write_many(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        self.store.write_many(&entries, &CancelFlag::never())
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        let count = keys.len();
        let keys: Vec<Key> = keys.iter().copied().cloned().collect();
        let read = move |store: &Store, cancel: &CancelFlag| {
            Ok(store.read_many(&keys.iter().collect::<Vec<_>>(), cancel))
        };
        self.offload(read).await.unwrap_or_else(|error| fail_batch(error, count))
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        let count = entries.len();
        let entries: Vec<(Key, Record<Bytes>)> =
            entries.into_iter().map(|(key, record)| (key.clone(), record)).collect();
        let write =
            move |store: &Store, cancel: &CancelFlag| Ok(store.write_many(&entries, cancel));
        self.offload(write).await.unwrap_or_else(|error| fail_batch(error, count))
    }
}

#[async_trait]
impl EntryTimes for FileBackend {
    type Stored = Bytes;

    fn write_times(&self, key: &Key, old: &Record<()>, record: Record<Bytes>) -> Result<()> {
        self.store.write_times(key, old, &record, &CancelFlag::never())
    }

    async fn write_times_async(
        &self,
        key: &Key,
        old: &Record<()>,
        record: Record<Bytes>,
    ) -> Result<()> {
        let (key, old) = (key.clone(), old.clone());
        self.offload(move |store, cancel| store.write_times(&key, &old, &record, cancel)).await
    }
}

#[async_trait]
impl Clear for FileBackend {
    fn clear(&self) -> Result<()> {
        self.store.clear()
    }

    async fn clear_async(&self) -> Result<()> {
        self.offload(|store, _| store.clear()).await
    }
}

impl ReportUsage for FileBackend {
    /// Returns the usage as of the last write of this process, or of the time when it was opened,
    /// without accessing a file. `entries` and `weight` are `None` until each shard was counted once,
    /// by writes of any process or by [`FileBackend::sweep`].
    fn usage(&self) -> Usage {
        self.store.usage()
    }
}

impl ReportEnds for FileBackend {
    /// Reports the entries that this process removes, replaces or evicts. Each costs a read of its file.
    fn report_ends(&self, listener: EndListener) {
        self.store.ends.add(listener);
    }
}

#[async_trait]
impl Leases for FileBackend {
    fn try_acquire(&self, key: &Key) -> Result<Lease> {
        self.store.try_acquire_lease(key, LeaseGuard::new)
    }

    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        let key = key.clone();
        let runtime = self.runtime();
        let to_guard = move |lock| match runtime {
            Some(runtime) => LeaseGuard::new(OffloadedLock::new(lock, runtime)),
            None => LeaseGuard::new(lock),
        };
        self.offload(move |store, _| store.try_acquire_lease(&key, to_guard)).await
    }
}

#[async_trait]
impl Generations for FileBackend {
    fn generation(&self, group: Group) -> Result<u64> {
        self.store.generation(group)
    }

    fn bump(&self, group: Group) -> Result<()> {
        self.store.invalidate(group)
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        self.offload(move |store, _| store.generation(group)).await
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        self.offload(move |store, _| store.invalidate(group)).await
    }
}

impl InvalidationFeed for FileBackend {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.feed.subscribe(&self.store, listener);
    }

    /// Reads a small file, at most ten times per second.
    #[inline]
    fn poll(&self) {
        self.feed.poll(&self.store);
    }
}
