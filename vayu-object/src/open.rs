//! Constructors of caches in a store.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use vayu_core::{OffBackend, OpenBackend, Result};

use crate::ObjectCache;
use crate::backend::ObjectBackend;
use crate::options::ObjectOptions;
use crate::url;

impl ObjectOptions {
    /// Opens a cache in a store. Nothing is requested before the first call.
    ///
    /// The store should be used by caches alone. Connections of an HTTP client belong to the runtime that has opened them,
    /// and one in a current-thread runtime of the program makes no progress while a sync call blocks its thread, which
    /// then waits until its timeout. Another store of the same bucket has connections of its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](vayu_core::ErrorKind::Configuration) for an option that cannot work.
    pub fn open(self, store: Arc<dyn ObjectStore>) -> Result<ObjectCache> {
        ObjectBackend::new(store, self).map(ObjectCache::with_backend)
    }

    /// Opens a cache at a URL, whose path is the [`prefix`](Self::prefix):
    ///
    /// | URL | store |
    /// |---|---|
    /// | `s3://bucket/prefix` | S3, or a server that is compatible with it (feature `aws`) |
    /// | `gs://bucket/prefix` | Google Cloud Storage (feature `gcp`) |
    /// | `az://container/prefix` | Azure Blob Storage (feature `azure`) |
    /// | `object+file:///directory` | a directory, which must exist, without a prefix |
    /// | `object+memory:/prefix` | memory of this cache, for tests |
    ///
    /// Options may follow a question mark: `timeout`, `max_entry_bytes`, `single_flight=everywhere`, `lease_ttl`,
    /// `arguments=hidden`. They override those that were set before. Times are seconds, or have a unit: `ms`, `s`, `m`,
    /// `h`, `d`, `w` or a word like `minutes`. `region` and `endpoint` are options of `s3://`, where an endpoint that
    /// begins with `http://` is used without TLS.
    ///
    /// Credentials and all other settings are read from the environment, as `from_env` of the builders in the crate
    /// `object_store` does: `AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` .., or the
    /// identity of the machine. A request is repeated up to twice within the timeout.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](vayu_core::ErrorKind::Configuration) for an invalid URL or option, or a store whose
    /// settings are incomplete.
    pub fn connect(self, url: impl AsRef<str>) -> Result<ObjectCache> {
        let (store, options) = url::parse(url.as_ref(), self)?;
        options.open(store)
    }
}

impl OpenBackend for ObjectBackend {
    type Location = String;

    fn open(url: String) -> Result<Self> {
        Ok(ObjectOptions::new().connect(url)?.backend().clone())
    }
}

impl OffBackend for ObjectBackend {
    /// # Panics
    ///
    /// Never: the options are valid.
    fn off() -> Self {
        Self::new(Arc::new(InMemory::new()), ObjectOptions::new()).expect("valid options")
    }
}
