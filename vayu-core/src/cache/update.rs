//! Atomic updates of single entries.

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests;

use std::slice;
use std::time::Duration;

use crate::backend::{Backend, Lease, LeaseGuard};
use crate::cache::{Cache, Engine, release_lease};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Completion, Deadline, Outcome};
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::Key;
use crate::panic::catch_panic;
use crate::serializer::Serializer;

impl<B: Backend, S> Cache<B, S> {
    /// Replaces the value of a key by the one that `update` makes of it, atomically, and returns the new
    /// value. `update` gets `None` if there is no value that [`get`](Self::get) would return: one of another type is
    /// replaced.
    ///
    /// Updates of a key are linearizable within the process: they run one after another. A
    /// [`set`](Self::set), a [`remove`](Self::remove) and an invalidation that begin in the meantime take effect
    /// after the update, a computation in progress does not store its value, and callers of the key wait. An
    /// update never restores what was invalidated before it began. A `set` of the key by `update` itself is
    /// lost, and the entry with it. In a cache with leases, an update waits for a computation that holds the
    /// lease of the key.
    ///
    /// Updates in several processes exclude one another where the backend has leases: in a file or Redis
    /// cache with [`SingleFlight::Everywhere`](crate::SingleFlight::Everywhere), and on Redis as long as the
    /// update takes no longer than the lease. A `set` or `remove` in another process is not excluded. Memory
    /// in front of such a cache may have an outdated copy, so that an update in another process is lost.
    ///
    /// In a paused cache `update` gets `None`, and its value is not stored.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get) and [`set`](Self::set): the value is not stored, and the old one stays. Memory in front of
    /// another cache drops its copy, so the next read is one of that cache. [`ErrorKind::Timeout`] if
    /// another update of the key takes longer than the limit of [`with_max_wait`](Self::with_max_wait), here
    /// or in another process, or must not be waited for, as in an update of the same key: `update` does not
    /// run. The same is true of a computation that holds the lease.
    ///
    /// # Panics
    ///
    /// When `update` panics. The old value stays.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
    /// # use vayu_core as vayu;
    /// # use std::time::Duration;
    /// # use vayu::{Cache, Key, MessagePack, testing::MapBackend};
    /// # let cache: Cache<MapBackend, MessagePack> = Cache::new();
    /// let key = Key::from_text("logins", "alice");
    /// let hour = Duration::from_secs(3600);
    /// let count = |old: Option<u32>| old.unwrap_or(0) + 1;
    /// assert_eq!(cache.update_with(&key, hour, count).unwrap(), 1);
    /// assert_eq!(cache.update_with(&key, hour, count).unwrap(), 2);
    /// # }
    /// ```
    pub fn update_with<T>(
        &self,
        key: &Key,
        ttl: Duration,
        update: impl FnOnce(Option<T>) -> T,
    ) -> Result<T>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        run_blocking(self.update_over::<Blocking, T>(key, ttl, update))
    }

    /// [`update_with`](Self::update_with) for async callers. If the future is dropped before `update` has
    /// run, the old value stays.
    ///
    /// # Errors
    ///
    /// Those of [`update_with`](Self::update_with).
    ///
    /// # Panics
    ///
    /// When `update` panics. The old value stays.
    pub async fn update_with_async<T>(
        &self,
        key: &Key,
        ttl: Duration,
        update: impl FnOnce(Option<T>) -> T,
    ) -> Result<T>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        self.update_over::<Awaiting, T>(key, ttl, update).await
    }

    async fn update_over<M: Io, T>(
        &self,
        key: &Key,
        ttl: Duration,
        update: impl FnOnce(Option<T>) -> T,
    ) -> Result<T>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let engine = &self.engine;
        if engine.is_paused() {
            return Ok(update(None));
        }
        let is_certain = self.check::<T>(key)?;
        let mut deadline = Deadline::default();
        let lead = loop {
            let stamp = engine.stamp::<M>(key.prefix(), key.tags()).await;
            let stamp = stamp.map_err(|error| error.in_operation("update entry"))?;
            match engine.flights().lead_update(key, stamp) {
                Ok(lead) => break lead,
                Err(flight) if engine.wait_for::<M>(&flight, &mut deadline).await => {}
                Err(_) => return Err(busy()),
            }
        };
        engine.errors().remove(key);
        M::lead(lead.id(), async move {
            let lease = engine.lease_for_update::<M>(key, &mut deadline).await?;
            // Again: another update may have been stored under a later stamp in the meantime.
            let stamp = engine.stamp::<M>(key.prefix(), key.tags()).await;
            let stamp = stamp.map_err(|error| error.in_operation("update entry"))?;
            let clears = engine.shared.clears.settled();
            let record = engine.absent_if_unreadable(key, engine.read::<M>(key).await)?;
            if !is_certain && let Some(old) = &record {
                self.check_replaced::<T>(key, old.clone())?;
            }
            let value = update(self.decode_record(key, stamp, record)?);
            let record = self.encode_record(key, &value, stamp, ttl)?;
            let mut result = engine.write::<M>(key, record.clone()).await;
            if result.is_err()
                && let Some(offline) = engine.backend().capabilities().offline
            {
                // It may have stored the value although the rest of the backend has not.
                let deleted = catch_panic("delete entry", || offline.delete(key));
                result = engine.with_cleanup(key, result, deleted);
            }
            if clears.is_none() || clears != engine.shared.clears.settled() || !lead.is_known() {
                // The entry was read before it was cleared, perhaps, or before it was removed in a child process that
                // goes on with the update, and is stored after.
                result = engine.with_cleanup(key, result, engine.delete::<M>(key).await);
            }
            let mut lead = lead.computed(match result {
                Ok(()) => Outcome::Computed { value: record.into(), is_stored: true },
                Err(_) => Outcome::NotShareable,
            });
            while lead.complete() == Completion::MustDelete {
                lead.set_stored(false);
                result = engine.with_cleanup(key, result, engine.delete::<M>(key).await);
            }
            if let Some(lease) = lease
                && let Err(error) = release_lease::<M>(lease).await
            {
                // The value is stored all the same. The lease ends by itself.
                engine.fault(key.prefix(), &error, false);
            }
            result?;
            engine.count_store(key.prefix());
            Ok(value)
        })
        .await
    }
}

impl<B: Backend> Engine<B> {
    /// Acquires the lease of a key, if the backend has leases, or waits for it up to the deadline.
    async fn lease_for_update<M: Io>(
        &self,
        key: &Key,
        deadline: &mut Deadline,
    ) -> Result<Option<LeaseGuard>> {
        let mut pauses = self.lease_pauses();
        loop {
            let mut watch = match self.try_acquire_lease::<M>(key, true).await? {
                Lease::NotRequired => return Ok(None),
                Lease::Acquired(lease) => return Ok(Some(lease)),
                held @ (Lease::Held | Lease::Watched(_)) => held.into_watch(),
            };
            let pause = pauses.next(watch.is_some());
            let watch = slice::from_mut(&mut watch);
            if !self.pause_for::<M>(pause, watch, deadline).await {
                return Err(busy());
            }
        }
    }
}

#[cold]
fn busy() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "update entry: another update or a computation of the key is in progress",
    )
}
