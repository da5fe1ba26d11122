//! Requests to a store, with bounds of time and memory. They run in the background runtime.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore, PutMode,
    PutOptions, UpdateVersion,
};
use tokio::time::timeout;

use crate::error::Failure;

/// The objects of a store.
#[derive(Clone)]
pub(crate) struct Objects(Arc<dyn ObjectStore>);

/// What was found under a name.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Object {
        bytes: Bytes,
        version: UpdateVersion,
    },
    /// An object that is longer than the limit. It was not read.
    TooLong,
}

/// The outcome of a conditional request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conditional {
    Done,
    /// The condition does not hold.
    Refused,
    /// The store does not support such conditions.
    Unsupported,
}

/// Objects that are being listed.
type Listed = BoxStream<'static, object_store::Result<ObjectMeta>>;

/// A part of the names in a folder.
pub(crate) struct Page {
    pub(crate) names: Vec<Path>,
    /// `None` at the end.
    pub(crate) rest: Option<Listed>,
}

/// The number of objects that are deleted in one request, as far as the store can. Stores that have no such request get one
/// for each.
const DELETE_BATCH: usize = 250;

/// Returns the next names that are selected.
pub(crate) async fn next_names(
    mut listed: Listed,
    is_selected: impl Fn(&Path) -> bool,
) -> Result<Page, Failure> {
    let mut names = Vec::new();
    while names.len() < DELETE_BATCH {
        let Some(meta) = listed.next().await.transpose()? else {
            return Ok(Page { names, rest: None });
        };
        names.extend(Some(meta.location).filter(&is_selected));
    }
    Ok(Page { names, rest: Some(listed) })
}

/// Returns the result of an operation, or a failure when this time is over.
pub(crate) async fn limited<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, operation).await.unwrap_or(Err(Failure::Timeout(limit)))
}

impl Objects {
    pub(crate) fn new(store: &Arc<dyn ObjectStore>) -> Self {
        Self(Arc::clone(store))
    }

    /// Reads an object of up to `max_bytes`.
    pub(crate) async fn get(&self, path: &Path, max_bytes: u64) -> Result<Found, Failure> {
        let found = match self.0.get_opts(path, GetOptions::default()).await {
            Err(StoreError::NotFound { .. }) => return Ok(Found::Nothing),
            found => found?,
        };
        let version =
            UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        Ok(match bytes(found, max_bytes).await? {
            Some(bytes) => Found::Object { bytes, version },
            None => Found::TooLong,
        })
    }

    /// Writes an object.
    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Failure> {
        self.0.put_opts(path, bytes.into(), PutOptions::default()).await?;
        Ok(())
    }

    /// Writes an object where there is none.
    pub(crate) async fn create(&self, path: &Path, bytes: Bytes) -> Result<Conditional, Failure> {
        self.put_if(path, bytes, PutMode::Create).await
    }

    /// Replaces this version of an object.
    pub(crate) async fn update(
        &self,
        path: &Path,
        bytes: Bytes,
        version: UpdateVersion,
    ) -> Result<Conditional, Failure> {
        self.put_if(path, bytes, PutMode::Update(version)).await
    }

    async fn put_if(
        &self,
        path: &Path,
        bytes: Bytes,
        mode: PutMode,
    ) -> Result<Conditional, Failure> {
        match self.0.put_opts(path, bytes.into(), mode.into()).await {
            Ok(_) => Ok(Conditional::Done),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                Ok(Conditional::Refused)
            }
            Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
                Ok(Conditional::Unsupported)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether there is an object.
    pub(crate) async fn exists(&self, path: &Path) -> Result<bool, Failure> {
        let head = GetOptions { head: true, ..GetOptions::default() };
        match self.0.get_opts(path, head).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an object, if there is one.
    pub(crate) async fn delete(&self, path: Path) -> Result<(), Failure> {
        self.delete_all(vec![path]).await
    }

    /// Removes objects that were found. Where the store allows to read and not to delete, that is a failure of the
    /// operation, and not of the store.
    pub(crate) async fn delete_found(&self, paths: Vec<Path>) -> Result<(), Failure> {
        self.delete_all(paths).await.map_err(|failure| match failure {
            Failure::Store(error) => Failure::NotDeleted(error),
            failure => failure,
        })
    }

    /// Lists the objects in a folder.
    pub(crate) fn list(&self, folder: &Path) -> Listed {
        self.0.list(Some(folder))
    }

    async fn delete_all(&self, paths: Vec<Path>) -> Result<(), Failure> {
        let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.0.delete_stream(paths);
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Returns the bytes of an object, or `None` if there are more than `max_bytes`.
async fn bytes(found: GetResult, max_bytes: u64) -> Result<Option<Bytes>, Failure> {
    let length = found.range.end.saturating_sub(found.range.start);
    if length > max_bytes || found.meta.size > max_bytes {
        return Ok(None);
    }
    let GetResultPayload::Stream(mut chunks) = found.payload else {
        return Ok(Some(found.bytes().await?));
    };
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.next().await.transpose()? {
        if (bytes.len() + chunk.len()) as u64 > length {
            return Ok(None);
        }
        if bytes.is_empty() && chunk.len() as u64 == length {
            return Ok(Some(chunk));
        }
        if bytes.is_empty() {
            // What the store announces is not allocated before a part of it has arrived.
            bytes.reserve(usize::try_from(length).unwrap_or_default());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}
