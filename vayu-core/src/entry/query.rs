//! What an entry knows of its call: the cache, the key, and what the function says of freshness.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::{Always, Call, Choice, OutputShape, Policy, Ttl};
use crate::entry::Remembered;
use crate::error::Result;
use crate::generation::Group;
use crate::key::{Key, KeyBuilder, KeyError};
use crate::record::Record;
use crate::serializer::Serializer;

/// The questions that an [`Entry`](crate::Entry) puts to its cache.
///
/// The attribute makes what implements it; its type has no name.
pub trait Query {
    /// What the function answers.
    type Answer;
    /// What the backend keeps.
    type Found: Send;

    /// The key of the call.
    ///
    /// # Errors
    ///
    /// When the arguments could not be encoded.
    fn key(&self) -> Result<&Key, KeyError<'_>>;

    /// What the backend has.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn read(&self, key: &Key) -> Result<Option<Self::Found>>;

    /// [`read`](Self::read) for async callers.
    fn read_async<'a>(&'a self, key: &'a Key) -> Boxed<'a, Option<Self::Found>>;

    /// What that holds for the call, if it may be served.
    fn open(&self, found: Self::Found) -> Option<Remembered<Self::Answer>>;

    /// Forgets the call.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn remove(&self, key: &Key) -> Result<bool>;

    /// [`remove`](Self::remove) for async callers.
    fn remove_async<'a>(&'a self, key: &'a Key) -> Boxed<'a, bool>;
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// One call, of which an entry is made.
#[derive(Debug)]
pub(crate) struct Subject<R, B: Backend, S, H, Z, L, G> {
    cache: Cache<B, S>,
    policy: Policy<KeyBuilder, H, Z, L, Always, G>,
    answer: PhantomData<fn() -> R>,
}

impl<R, B: Backend, S, H, Z, L, G> Subject<R, B, S, H, Z, L, G> {
    pub(crate) fn new(
        cache: Cache<B, S>,
        mut policy: Policy<KeyBuilder, H, Z, L, Always, G>,
    ) -> Self
    where
        G: AsRef<[Group]>,
    {
        policy.key.set_tags(policy.tags.as_ref());
        Self { cache, policy, answer: PhantomData }
    }
}

impl<R, B, S, H, Z, L, G> Query for Subject<R, B, S, H, Z, L, G>
where
    B: Backend,
    S: Send + Sync,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
    G: AsRef<[Group]>,
{
    type Answer = R;
    /// The stamp of the call, and the record.
    type Found = (u64, Record<B::Stored>);

    fn key(&self) -> Result<&Key, KeyError<'_>> {
        self.policy.key.key()
    }

    fn read(&self, key: &Key) -> Result<Option<Self::Found>> {
        if self.cache.is_paused() {
            return Ok(None);
        }
        self.declare(key);
        let stamp = self.cache.stamp(key.prefix(), self.policy.tags.as_ref())?;
        Ok(self.cache.or_offline(key, self.cache.read(key))?.map(|record| (stamp, record)))
    }

    fn read_async<'a>(&'a self, key: &'a Key) -> Boxed<'a, Option<Self::Found>> {
        let (cache, tags) = (&self.cache, self.policy.tags.as_ref());
        self.declare(key);
        Box::pin(async move {
            if cache.is_paused() {
                return Ok(None);
            }
            let stamp = cache.stamp_async(key.prefix(), tags).await?;
            Ok(cache.or_offline(key, cache.read_async(key).await)?.map(|record| (stamp, record)))
        })
    }

    fn open(&self, (stamp, record): Self::Found) -> Option<Remembered<R>> {
        let key = self.key().ok()?;
        Call::new(&self.cache, &self.policy, key, stamp).decode_for_entry(record)
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        self.cache.remove(key)
    }

    fn remove_async<'a>(&'a self, key: &'a Key) -> Boxed<'a, bool> {
        let cache = &self.cache;
        Box::pin(cache.remove_async(key))
    }
}

impl<R, B, S, H, Z, L, G> Subject<R, B, S, H, Z, L, G>
where
    B: Backend,
    H: OutputShape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
{
    fn declare(&self, key: &Key) {
        Call::new(&self.cache, &self.policy, key, 0).declare::<H::Value>();
    }
}
