//! The backend: entries below a directory.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cap_std::fs::Dir;
use tokio::runtime::Handle;
use vayu_core::{
    Backend, Clock, Key, Lease, LeaseGuard, Leases, OffBackend, OpenBackend, Record, Result,
    Sharing, Usage,
};

use crate::directory;
use crate::fs::{DiskFolder, Folder, NoFolder};
use crate::offload::{self, CancelFlag, OffloadedLock, UnderWay};
use crate::options::{AsyncIo, FileOptions};
use crate::store::Store;

/// Keeps each entry in a file of its own below one directory, which processes may share.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// An entry is written beside its place and renamed, so whoever reads it finds the old one, the
/// new one or none, and a process may be killed at any moment. Whatever is read is checked first:
/// what is damaged, of another key or no entry at all is taken for missing and overwritten. The
/// directory is opened once; nothing outside it is opened, written or removed, and no link in it is
/// followed to open anything. The files of short entries that are read again and again are held open
/// ([`FileOptions::open_files`]); a read sees what others write or delete all the same.
///
/// A process does not learn what others compute at the moment: what one process removes may be
/// stored again by another one that had begun to compute it before.
///
/// When the directory is removed under a process, everything is missing from then on and nothing
/// can be stored.
#[derive(Clone)]
pub struct FileBackend {
    pub(crate) store: Arc<Store>,
    /// The one that it was opened with.
    path: Option<Arc<Path>>,
    async_io: AsyncIo,
    under_way: Arc<UnderWay>,
}

impl FileBackend {
    pub(crate) fn open(path: &Path, options: &FileOptions) -> Result<Self> {
        let backend = Self::open_dir(directory::open(path, options.access)?, options)?;
        Ok(Self { path: Some(path.into()), ..backend })
    }

    pub(crate) fn open_dir(dir: Dir, options: &FileOptions) -> Result<Self> {
        directory::check(&dir, options.access)?;
        Self::in_folder(Box::new(DiskFolder::new(dir, options.access)), options)
    }

    pub(crate) fn in_folder(root: Box<dyn Folder>, options: &FileOptions) -> Result<Self> {
        Ok(Self::with_store(Store::new(root, options)?, options))
    }

    fn with_store(store: Store, options: &FileOptions) -> Self {
        Self {
            store: Arc::new(store),
            path: None,
            async_io: options.async_io,
            under_way: Arc::default(),
        }
    }

    /// Looks through the whole directory: removes what has expired and what processes that died have
    /// left behind, counts the rest, and returns what [`Backend::usage`] returns from then on. That reads
    /// the header of every entry; writes do the same by and by.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`](vayu_core::ErrorKind::Backend) when a part of the directory cannot be read.
    pub fn sweep(&self) -> Result<Usage> {
        self.store.sweep_all(&CancelFlag::never())
    }

    /// [`sweep`](Self::sweep) for async callers, on a thread for blocking work. It ends early when the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`sweep`](Self::sweep).
    pub async fn sweep_async(&self) -> Result<Usage> {
        self.offload(Store::sweep_all).await
    }

    /// Runs an operation where it may block. If the future is dropped, an operation that has not
    /// begun never does, and one that has begun ends by itself; the drop waits for neither. What an
    /// operation does last, and cannot be undone by others, it does only while the flag is not set.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Store, &CancelFlag) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(runtime) = self.runtime() else {
            return operation(&self.store, &CancelFlag::never());
        };
        let store = Arc::clone(&self.store);
        let operation = move |cancelled: &CancelFlag| operation(&store, cancelled);
        offload::run(&runtime, Arc::clone(&self.under_way), operation).await
    }

    /// The runtime whose threads do what may block.
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
        Self::with_store(Store::in_marked(Box::new(NoFolder), &options, true), &options)
    }
}

/// What is at hand: no file is touched, and no lock is waited for.
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
        self.offload(move |store, cancelled| store.write(&key, &record, cancelled)).await
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let key = key.clone();
        self.offload(move |store, _| store.delete(&key)).await
    }

    fn clear(&self) -> Result<()> {
        self.store.clear()
    }

    async fn clear_async(&self) -> Result<()> {
        self.offload(|store, _| store.clear()).await
    }

    fn sharing(&self) -> Sharing<'_, Bytes> {
        Sharing::none().with_generations(self).with_invalidation_feed(self).with_leases(self)
    }

    /// What is known since the last write of this process, or since it was opened: no file is
    /// touched. `entries` and `weight` are `None` until each part of the directory was counted once,
    /// by writes of any process or by [`FileBackend::sweep`].
    fn usage(&self) -> Usage {
        self.store.usage()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.store.clock()
    }
}

#[async_trait]
impl Leases for FileBackend {
    fn try_acquire(&self, key: &Key) -> Result<Lease> {
        self.store.claim(key, LeaseGuard::new)
    }

    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        let key = key.clone();
        let runtime = self.runtime();
        let claimed = move |lock| match runtime {
            Some(runtime) => LeaseGuard::new(OffloadedLock::new(lock, runtime)),
            None => LeaseGuard::new(lock),
        };
        self.offload(move |store, _| store.claim(&key, claimed)).await
    }
}
