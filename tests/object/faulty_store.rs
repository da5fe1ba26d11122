//! A store in memory that fails, hangs and lies as it is told.

use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::Notify;
use vayu::backend::object_store::memory::InMemory;
use vayu::backend::object_store::path::Path;
use vayu::backend::object_store::{
    CopyOptions, Error, Extensions, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// What the store does instead of what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Each request fails.
    Fails,
    /// Each request is refused: no permission.
    Denies,
    /// No request is ever done.
    Hangs,
    /// Each request panics.
    Panics,
    /// The body ends with an error after so many bytes.
    BodyFails(usize),
    /// The body ends after so many bytes, as if it were complete.
    BodyEnds(usize),
    /// The body hangs after so many bytes.
    BodyHangs(usize),
    /// The body has more bytes than were announced, without an end.
    BodyIsEndless,
    /// The announced length is this.
    Announces(u64),
    /// Conditional requests are refused.
    HasNoConditions,
    /// Conditional requests are refused with an error that servers have for anything else too.
    FailsConditions,
    /// The conditions of requests are ignored.
    IgnoresConditions,
    /// Deletions are refused: no permission.
    DeniesDeletes,
    /// Deletions are refused, with an error that servers have for anything else too.
    FailsDeletes,
    /// The next write of an entry, or deletion, waits until it is resumed.
    Holds,
    /// The last write is kept, so that it can be repeated.
    RepeatsLate,
    /// Writes take effect, and their reply is lost.
    LosesReplies,
}

#[derive(Debug, Default)]
pub(crate) struct FaultyStore {
    /// The rest of its name in messages.
    name: &'static str,
    pub(crate) objects: InMemory,
    fault: Mutex<Fault>,
    requests: AtomicU64,
    writes: AtomicU64,
    held: AtomicU64,
    resumed: Arc<Notify>,
    repeated: Mutex<Option<(Path, PutPayload, PutOptions)>>,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Creates a store with a name in messages that no other has.
    pub(crate) fn named(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, ..Self::default() })
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Returns the number of requests since the last call.
    pub(crate) fn take_requests(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }

    /// Returns the number of writes since the last call.
    pub(crate) fn take_writes(&self) -> u64 {
        self.writes.swap(0, Ordering::Relaxed)
    }

    /// Returns the number of requests that were held.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Resumes the request that is held, and holds no other.
    pub(crate) fn resume(&self) {
        self.set(Fault::None);
        self.resumed.notify_one();
    }

    /// Repeats the last write that was kept.
    pub(crate) fn repeat(&self) {
        let put = self.repeated.lock().unwrap().take();
        let (name, payload, options) = put.expect("a write");
        let _ = now(self.objects.put_opts(&name, payload, options));
    }

    /// Returns the names of all objects that contain a string.
    pub(crate) fn names(&self, part: &str) -> Vec<Path> {
        let all =
            futures_util::FutureExt::now_or_never(self.objects.list(None).collect::<Vec<_>>());
        let all = all.expect("it does not wait").into_iter().map(|meta| meta.unwrap().location);
        all.filter(|name| name.as_ref().contains(part)).collect()
    }

    /// Returns the bytes of an object.
    pub(crate) fn bytes(&self, name: &Path) -> Bytes {
        let get = async { self.objects.get(name).await?.bytes().await };
        now(get).expect("it exists")
    }

    /// Replaces the bytes of an object.
    pub(crate) fn replace(&self, name: &Path, bytes: impl Into<Bytes>) {
        now(self.objects.put(name, PutPayload::from(bytes.into()))).expect("it is in memory");
    }

    async fn request(&self) -> Result<Fault> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        // Requests of operations at the same time take turns.
        tokio::task::yield_now().await;
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Fails => Err(error()),
            Fault::Denies => Err(denied()),
            Fault::Hangs => pending().await,
            Fault::Panics => std::panic::resume_unwind(Box::new("as requested")),
            fault => Ok(fault),
        }
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("memory does not wait")
}

fn error() -> Error {
    Error::Generic { store: "faulty", source: "as requested".into() }
}

fn denied() -> Error {
    Error::PermissionDenied { path: String::new(), source: "as requested".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty{}", self.name)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        match self.request().await? {
            Fault::HasNoConditions if options.mode != PutMode::Overwrite => {
                return Err(Error::NotImplemented {
                    operation: "put".to_owned(),
                    implementer: "faulty".to_owned(),
                });
            }
            Fault::FailsConditions if options.mode != PutMode::Overwrite => return Err(error()),
            Fault::Holds if location.as_ref().contains("/entries/") => {
                self.held.fetch_add(1, Ordering::Relaxed);
                self.resumed.notified().await;
            }
            Fault::RepeatsLate => {
                let put = (location.clone(), payload.clone(), options.clone());
                *self.repeated.lock().unwrap() = Some(put);
            }
            Fault::IgnoresConditions => options.mode = PutMode::Overwrite,
            Fault::LosesReplies => {
                self.objects.put_opts(location, payload, options).await?;
                return Err(error());
            }
            _ => {}
        }
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.request().await?;
        let mut found = self.objects.get_opts(location, options).await?;
        let part = |found: GetResult, length: usize| async move {
            Ok::<_, Error>(found.bytes().await?.slice(..length))
        };
        let meta = found.meta.clone();
        let (range, attributes) = (found.range.clone(), found.attributes.clone());
        let chunks = match fault {
            Fault::BodyFails(length) => {
                let part = part(found, length).await?;
                stream::iter([Ok(part), Err(error())]).boxed()
            }
            Fault::BodyEnds(length) => {
                let part = part(found, length).await?;
                stream::iter([Ok(part)]).boxed()
            }
            Fault::BodyHangs(length) => {
                let part = part(found, length).await?;
                stream::iter([Ok(part)]).chain(stream::pending()).boxed()
            }
            Fault::BodyIsEndless => {
                let chunk = Bytes::from(vec![0; 1 << 20]);
                stream::repeat_with(move || Ok(chunk.clone())).boxed()
            }
            Fault::Announces(length) => {
                found.meta.size = length;
                found.range = 0..length;
                return Ok(found);
            }
            _ => return Ok(found),
        };
        let payload = GetResultPayload::Stream(chunks);
        Ok(GetResult { payload, meta, range, attributes, extensions: Extensions::default() })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match *self.fault.lock().unwrap() {
            Fault::Fails | Fault::FailsDeletes => stream::iter([Err(error())]).boxed(),
            Fault::Holds => {
                self.held.fetch_add(1, Ordering::Relaxed);
                let (resumed, deleted) =
                    (Arc::clone(&self.resumed), self.objects.delete_stream(locations));
                stream::once(async move {
                    resumed.notified().await;
                    deleted
                })
                .flatten()
                .boxed()
            }
            Fault::Denies | Fault::DeniesDeletes => stream::iter([Err(denied())]).boxed(),
            Fault::Hangs => stream::pending().boxed(),
            _ => self.objects.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match *self.fault.lock().unwrap() {
            Fault::Fails => stream::iter([Err(error())]).boxed(),
            Fault::Denies => stream::iter([Err(denied())]).boxed(),
            Fault::Hangs => stream::pending().boxed(),
            _ => self.objects.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
