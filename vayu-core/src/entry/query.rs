//! What an entry knows of its call: the cache, the key, and what the function says of freshness.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::{Always, Call, CallKey, Choice, Policy, Shape, Ttl};
use crate::entry::Remembered;
use crate::error::Result;
use crate::key::{Key, NoKey};
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
    fn key(&self) -> Result<&Key, &NoKey>;

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
pub(crate) struct Subject<R, B: Backend, S, H, Z, L> {
    cache: Cache<B, S>,
    policy: Policy<Result<Key, NoKey>, H, Z, L, Always>,
    answer: PhantomData<fn() -> R>,
}

impl<R, B: Backend, S, H, Z, L> Subject<R, B, S, H, Z, L> {
    pub(crate) fn new(
        cache: Cache<B, S>,
        policy: Policy<Result<Key, NoKey>, H, Z, L, Always>,
    ) -> Self {
        Self { cache, policy, answer: PhantomData }
    }
}

impl<R, B, S, H, Z, L> Query for Subject<R, B, S, H, Z, L>
where
    B: Backend,
    S: Send + Sync,
    H: Shape<R>,
    Z: Choice<S>,
    Z::Serializer: Serializer<H::Value, Stored = B::Stored>,
    L: Ttl<H::Value>,
{
    type Answer = R;
    type Found = Record<B::Stored>;

    fn key(&self) -> Result<&Key, &NoKey> {
        self.policy.key.key()
    }

    fn read(&self, key: &Key) -> Result<Option<Self::Found>> {
        if self.cache.is_paused() { Ok(None) } else { self.cache.read(key) }
    }

    fn read_async<'a>(&'a self, key: &'a Key) -> Boxed<'a, Option<Self::Found>> {
        let cache = &self.cache;
        Box::pin(
            async move { if cache.is_paused() { Ok(None) } else { cache.read_async(key).await } },
        )
    }

    fn open(&self, found: Self::Found) -> Option<Remembered<R>> {
        Call::new(&self.cache, &self.policy)?.recall(found)
    }

    fn remove(&self, key: &Key) -> Result<bool> {
        self.cache.remove(key)
    }

    fn remove_async<'a>(&'a self, key: &'a Key) -> Boxed<'a, bool> {
        let cache = &self.cache;
        Box::pin(cache.remove_async(key))
    }
}
