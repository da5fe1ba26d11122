//! The backend: entries below a directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cap_std::fs::Dir;
use tokio::runtime::Handle;
use vayu_core::{
    Backend, Claim, Clock, Error, ErrorKind, Generations, Key, News, Open, Record, Result, Usage,
};

use crate::directory;
use crate::folder::{DiskFolder, Folder};
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
#[derive(Debug, Clone)]
pub struct FileBackend {
    pub(crate) store: Arc<Store>,
    async_io: AsyncIo,
}

impl FileBackend {
    pub(crate) fn open(path: &Path, options: &FileOptions) -> Result<Self> {
        Self::open_dir(directory::open(path)?, options)
    }

    pub(crate) fn open_dir(dir: Dir, options: &FileOptions) -> Result<Self> {
        directory::check(&dir, options.access)?;
        Self::in_folder(Box::new(DiskFolder::new(dir, options.access)), options)
    }

    pub(crate) fn in_folder(root: Box<dyn Folder>, options: &FileOptions) -> Result<Self> {
        Ok(Self { store: Arc::new(Store::new(root, options)?), async_io: options.async_io })
    }

    /// Runs an operation where it may block. If the future is dropped, the operation has taken
    /// place by then or never will: a write that came later could undo what others did since.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let runtime = match self.async_io {
            AsyncIo::Offloaded => Handle::try_current().ok(),
            AsyncIo::Inline => None,
        };
        let Some(runtime) = runtime else { return operation(&self.store) };
        let store = Arc::clone(&self.store);
        let order = Order::default();
        let ordered = order.0.clone();
        let task = move || match &*lock(&ordered) {
            Validity::Valid => operation(&store),
            Validity::Cancelled => {
                Err(Error::new(ErrorKind::Backend, "the operation was cancelled"))
            }
        };
        runtime.spawn_blocking(task).await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Backend, "hand over to a blocking thread").with_source(error))
        })
    }
}

/// An operation that was handed over. Its lock is held while it takes place.
#[derive(Default)]
struct Order(Arc<Mutex<Validity>>);

#[derive(Default)]
enum Validity {
    #[default]
    Valid,
    Cancelled,
}

impl Drop for Order {
    fn drop(&mut self) {
        *lock(&self.0) = Validity::Cancelled;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open for FileBackend {
    type Place = PathBuf;

    fn open(path: PathBuf) -> Result<Self> {
        Self::open(&path, &FileOptions::new())
    }
}

#[async_trait]
impl Backend for FileBackend {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.store.read(key)
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.store.write(key, &record)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.store.delete(key)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = key.clone();
        self.offload(move |store| store.read(&key)).await
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let key = key.clone();
        self.offload(move |store| store.write(&key, &record)).await
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let key = key.clone();
        self.offload(move |store| store.delete(&key)).await
    }

    fn try_claim(&self, key: &Key) -> Result<Claim> {
        self.store.claim(key)
    }

    async fn try_claim_async(&self, key: &Key) -> Result<Claim> {
        let key = key.clone();
        self.offload(move |store| store.claim(&key)).await
    }

    fn clear(&self) -> Result<()> {
        self.store.clear()
    }

    async fn clear_async(&self) -> Result<()> {
        self.offload(Store::clear).await
    }

    fn generations(&self) -> Option<&dyn Generations> {
        Some(self)
    }

    fn news(&self) -> Option<&dyn News> {
        Some(self)
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.store.clock()
    }
}
