//! The user's handle on one call.

mod query;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

pub use self::query::Query;
pub(crate) use self::query::Subject;
use crate::call::{CachedOutput, forced_refresh};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyError};

/// One call of a cached function: what is remembered of it, and ways to renew or forget that.
///
/// It is what the companion of a function answers that `#[cached(handle = ..)]` makes. An entry
/// holds the arguments of the call and runs nothing until it is asked to. Answers have the type of
/// the function's: where that is a `Result`, a remembered value comes as `Ok`.
///
/// Every method that asks the backend is there for sync callers and, with `_async`, for async
/// ones, whichever the function is; only [`get`](Self::get) and [`refresh`](Self::refresh) are for
/// sync functions, and [`get_async`](Self::get_async) and [`refresh_async`](Self::refresh_async)
/// for async ones.
#[must_use = "an entry does nothing until it is asked"]
pub struct Entry<Q, F> {
    query: Q,
    call: F,
}

impl<Q: Query, F> Entry<Q, F> {
    /// The entry of a call. `call` runs the function, through its cache.
    pub(crate) fn new(query: Q, call: F) -> Self {
        Self { query, call }
    }

    /// The key of the call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] when the arguments cannot be serialized; such a call is never
    /// remembered.
    pub fn key(&self) -> Result<&Key> {
        self.query.key().map_err(KeyError::to_error)
    }

    /// What a call would be answered with without running the function, or `None`: a value within
    /// its ttl, or past it and within `stale`. Nothing is counted.
    ///
    /// # Errors
    ///
    /// Those of [`key`](Self::key) and those of the backend.
    pub fn peek(&self) -> Result<Option<Q::Output>> {
        Ok(self.look()?.map(|found| found.output))
    }

    /// [`peek`](Self::peek) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn peek_async(&self) -> impl Future<Output = Result<Option<Q::Output>>> {
        let look = self.look_async();
        async move { Ok(look.await?.map(|found| found.output)) }
    }

    /// [`peek`](Self::peek), where a value is demanded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Miss`] where there is none; those of [`peek`](Self::peek).
    pub fn require(&self) -> Result<Q::Output> {
        self.peek()?.ok_or_else(missing)
    }

    /// [`require`](Self::require) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`require`](Self::require).
    pub fn require_async(&self) -> impl Future<Output = Result<Q::Output>> {
        let peek = self.peek_async();
        async move { peek.await?.ok_or_else(missing) }
    }

    /// How long ago the value was computed that [`peek`](Self::peek) answers.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn age(&self) -> Result<Option<Duration>> {
        Ok(self.look()?.map(|found| found.age))
    }

    /// [`age`](Self::age) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn age_async(&self) -> impl Future<Output = Result<Option<Duration>>> {
        let look = self.look_async();
        async move { Ok(look.await?.map(|found| found.age)) }
    }

    /// How long the value that [`peek`](Self::peek) answers stays within its ttl: zero where it is
    /// past it.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn ttl_left(&self) -> Result<Option<Duration>> {
        Ok(self.look()?.map(|found| found.ttl_left))
    }

    /// [`ttl_left`](Self::ttl_left) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn ttl_left_async(&self) -> impl Future<Output = Result<Option<Duration>>> {
        let look = self.look_async();
        async move { Ok(look.await?.map(|found| found.ttl_left)) }
    }

    /// Forgets the call, and says whether there was something to forget. What is being computed for
    /// it at the moment goes to those who already wait for it, and is not stored.
    ///
    /// # Errors
    ///
    /// Those of [`key`](Self::key) and those of the backend.
    pub fn invalidate(&self) -> Result<bool> {
        self.query.remove(self.key()?)
    }

    /// [`invalidate`](Self::invalidate) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate`](Self::invalidate).
    pub fn invalidate_async(&self) -> impl Future<Output = Result<bool>> {
        let query = &self.query;
        async move { query.remove_async(query.key().map_err(KeyError::to_error)?).await }
    }

    fn look(&self) -> Result<Option<CachedOutput<Q::Output>>> {
        let found = self.query.read(self.key()?)?;
        Ok(found.and_then(|found| self.query.decode(found)))
    }

    /// Borrows nothing of the call: that of an async function can seldom be shared by threads.
    fn look_async(
        &self,
    ) -> impl Future<Output = Result<Option<CachedOutput<Q::Output>>>> + use<'_, Q, F> {
        let query = &self.query;
        async move {
            let found = query.read_async(query.key().map_err(KeyError::to_error)?).await?;
            Ok(found.and_then(|found| query.decode(found)))
        }
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::Miss, "no value is remembered for this call")
}

impl<Q: Query, F: FnOnce() -> Q::Output> Entry<Q, F> {
    /// Calls the function, as without a handle: it runs unless its value is remembered.
    pub fn get(self) -> Q::Output {
        (self.call)()
    }

    /// Runs the function, whatever is remembered, and remembers what it answers.
    ///
    /// Until it has ended, other callers are answered with what was remembered before. When the
    /// function fails, that stays. Callers that find nothing wait for this run, and what is being
    /// computed for the same call at the moment is not stored.
    pub fn refresh(self) -> Q::Output {
        let Self { query, call } = self;
        forced_refresh::with(&mut query.key().ok().cloned(), call)
    }
}

impl<Q: Query, F: Future<Output = Q::Output>> Entry<Q, F> {
    /// [`get`](Self::get) for async functions.
    pub fn get_async(self) -> F {
        self.call
    }

    /// [`refresh`](Self::refresh) for async functions.
    pub fn refresh_async(self) -> impl Future<Output = Q::Output> {
        let mut wish = self.query.key().ok().cloned();
        let call = self.call;
        async move {
            let mut call = pin!(call);
            poll_fn(|context| forced_refresh::with(&mut wish, || call.as_mut().poll(context))).await
        }
    }
}

impl<Q: Query, F> fmt::Debug for Entry<Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", &self.query.key().ok()).finish_non_exhaustive()
    }
}
