use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vayu::backend::{Backend, Bytes, Capabilities, Clear, Generations, Group, Record, async_trait};
use vayu::time::Clock;
use vayu::{Error, ErrorKind, Key, Result};

/// A directory with one file for each entry and for each group that was invalidated.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl Directory {
    /// Opens a directory, which is created if it is missing.
    pub fn open(path: impl Into<PathBuf>, clock: impl Clock) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(|error| failed("create directory", error))?;
        Ok(Self { path, clock: Arc::new(clock) })
    }

    fn entry(&self, key: &Key) -> PathBuf {
        let hex = |name, byte| format!("{name}{byte:02x}");
        let name = key.digest().iter().fold(String::new(), hex);
        self.path.join(name).with_extension("entry")
    }

    fn group(&self, group: Group) -> PathBuf {
        self.path.join(format!("{:016x}.generation", group.number()))
    }

    /// Replaces a file as a whole: readers see the old content or the new one.
    fn replace(&self, file: PathBuf, content: &[u8]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.join(format!("{}-{number}.tmp", std::process::id()));
        fs::write(&temporary, content)?;
        fs::rename(temporary, file)
    }
}

/// The kind says what a caller can do about it; the message is lower case and names the operation.
fn failed(operation: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Backend, operation).with_source(error)
}

/// Turns the error of a missing file into `None`.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[async_trait]
impl Backend for Directory {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let content = present(fs::read(self.entry(key)));
        let content = content.map_err(|error| failed("read entry", error))?;
        // A file that is corrupt, or of another key, is absent.
        Ok(content.and_then(|content| Record::decode(key, &Bytes::from(content))))
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let written = self.replace(self.entry(key), &record.encode(key));
        written.map_err(|error| failed("write entry", error))
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let removed = present(fs::remove_file(self.entry(key)));
        Ok(removed.map_err(|error| failed("delete entry", error))?.is_some())
    }

    // These do not yield: local files are quick enough. Work that may take longer belongs in `spawn_blocking`.
    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities::none().with_generations(self).with_clear(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

impl Clear for Directory {
    /// Removes the entries and keeps the generations, or invalidated entries would come back.
    fn clear(&self) -> Result<()> {
        let clear = || {
            for file in fs::read_dir(&self.path)? {
                let file = file?.path();
                if file.extension().is_some_and(|extension| extension == "entry") {
                    present(fs::remove_file(file))?;
                }
            }
            Ok(())
        };
        clear().map_err(|error| failed("clear directory", error))
    }
}

impl Generations for Directory {
    fn generation(&self, group: Group) -> Result<u64> {
        let content = present(fs::read(self.group(group)));
        let Some(content) = content.map_err(|error| failed("read generation", error))? else {
            return Ok(0);
        };
        let bytes =
            content.try_into().map_err(|_| Error::new(ErrorKind::Backend, "corrupt generation"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn bump(&self, group: Group) -> Result<()> {
        // A random number is one that the group never had, also if two processes bump it at once.
        let generation = RandomState::new().hash_one(group) | 1;
        let written = self.replace(self.group(group), &generation.to_le_bytes());
        written.map_err(|error| failed("bump generation", error))
    }
}
