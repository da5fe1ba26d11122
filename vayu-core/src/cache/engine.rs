//! The part of a cache that does not depend on its serializer.

use std::any::TypeId;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::backend::{Backend, BackendExt, NoStorage, Usage};
use crate::background::Refreshes;
use crate::cache::clears::Clears;
use crate::cache::declarations::Declarations;
use crate::cache::error_cache::ErrorCache;
use crate::cache::flags::{CacheFlags, Flags};
use crate::cache::generations::GenerationCache;
use crate::cache::pending::PendingInvalidations;
use crate::cache::refresh_backoff::RefreshBackoff;
use crate::clock::{CacheClock, Sleep, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Deadline, Flight, Flights, Lead};
use crate::io::{Io, Operation};
use crate::key::Key;
use crate::log::Warnings;
use crate::observer::Observers;
use crate::panic::catch_panic;
use crate::record::Record;
use crate::registry::{Listed, Registration};
use crate::serializer::{EntryContext, EntryLimit, ValueClass};
use crate::stats::{Counters, Stats};
use crate::validity::SchemaFlags;

/// A handle on a backend and all state that coordinates the calls to it.
pub struct Engine<B: Backend> {
    pub(super) shared: Arc<Inner<B>>,
    /// The limit that was set. `None` stands for [`MAX_WAIT`], with hedges.
    max_wait: Option<Duration>,
}

pub(super) struct Inner<B: Backend> {
    backend: B,
    clock: CacheClock,
    flights: Flights<Record<B::Stored>>,
    pub(super) counters: Counters,
    pub(super) warnings: Warnings,
    pub(super) observers: Observers,
    backoff: RefreshBackoff,
    refreshes: Arc<Refreshes>,
    errors: ErrorCache,
    pub(super) generations: GenerationCache,
    pub(super) pending: PendingInvalidations,
    declarations: Declarations,
    pub(super) flags: CacheFlags,
    /// The error for which the cache is off, if it is.
    pub(super) why_off: Option<Error>,
    pub(super) clears: Clears,
    pub(super) registration: Registration,
    max_entry_bytes: OnceLock<Option<u64>>,
}

/// The default limit of the time that a call waits.
const MAX_WAIT: Duration = Duration::from_secs(30);

impl<B: Backend> Inner<B> {
    pub(super) fn new(backend: B) -> Self {
        Self {
            clock: CacheClock::new(backend.clock()),
            flags: CacheFlags::new(&backend),
            backend,
            flights: Flights::new(),
            counters: Counters::default(),
            warnings: Warnings::default(),
            observers: Observers::default(),
            backoff: RefreshBackoff::default(),
            refreshes: Arc::default(),
            errors: ErrorCache::default(),
            generations: GenerationCache::default(),
            pending: PendingInvalidations::default(),
            declarations: Declarations::default(),
            why_off: None,
            clears: Clears::default(),
            registration: Registration::new(),
            max_entry_bytes: OnceLock::new(),
        }
    }
}

impl<B: Backend> Inner<B> {
    pub(super) fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the statistics with this usage of the backend.
    fn stats(&self, usage: Usage) -> Stats {
        let mut stats = self.counters.snapshot(self.flights.in_flight(), usage);
        stats.pending_invalidations = self.pending.len();
        stats.off = self.why_off.as_ref().map(|why| format!("{why:?}"));
        stats
    }
}

/// Implemented for the engine, not for [`Inner`], whose destructor is part of each table of virtual functions.
impl<B: Backend> EntryLimit for Engine<B> {
    #[cold]
    fn max_entry_bytes(&self) -> Option<u64> {
        *self.shared.max_entry_bytes.get_or_init(|| {
            let usage = catch_panic("read usage", || Ok(self.backend().usage()));
            usage.ok().and_then(|usage| usage.max_entry_bytes)
        })
    }
}

impl<B: Backend> Listed for Inner<B> {
    fn description(&self) -> String {
        self.backend.description()
    }

    fn stats(&self) -> Stats {
        self.stats(catch_panic("read usage", || Ok(self.backend.usage())).unwrap_or_default())
    }

    fn set_watched(&self, is_watched: bool) {
        self.flags.set_watched(is_watched);
    }
}

impl<B: Backend> Clone for Engine<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), max_wait: self.max_wait }
    }
}

impl<B: Backend> fmt::Debug for Engine<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl<B: Backend> Engine<B> {
    pub(super) fn new(shared: Arc<Inner<B>>) -> Self {
        Self { shared, max_wait: None }
    }

    pub(crate) fn max_wait(&self) -> Duration {
        self.max_wait.unwrap_or(MAX_WAIT)
    }

    pub(super) fn set_max_wait(&mut self, max_wait: Duration) {
        self.max_wait = Some(max_wait);
    }

    #[inline]
    pub(crate) fn backend(&self) -> &B {
        &self.shared.backend
    }

    /// Returns the context in which the value of a record is encoded or decoded. `type_stamp` is the stamp of the type.
    #[inline]
    pub(crate) fn entry_context<'a, V>(
        &'a self,
        key: &'a Key,
        record: &Record<V>,
        type_stamp: u64,
    ) -> EntryContext<'a> {
        let context = EntryContext::new(key, record).with_lazy_limit(self);
        if SchemaFlags::of_record(record, type_stamp).is_some_and(SchemaFlags::has_idle_time) {
            // Uses of the entry change its end.
            return context.with_times(record.created(), record.expires(), record.expires());
        }
        context
    }

    /// Returns whether the backend is one that stores nothing.
    #[inline]
    pub(crate) fn never_stores() -> bool {
        TypeId::of::<B>() == TypeId::of::<NoStorage<B::Stored>>()
    }

    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Returns the current time for a lookup.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn now_inline(&self) -> Timestamp {
        self.shared.clock.now_inline()
    }

    #[inline]
    pub(crate) fn flights(&self) -> &Flights<Record<B::Stored>> {
        &self.shared.flights
    }

    #[inline]
    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    #[inline]
    pub(crate) fn declarations(&self) -> &Declarations {
        &self.shared.declarations
    }

    pub(crate) fn refresh_backoff(&self) -> &RefreshBackoff {
        &self.shared.backoff
    }

    /// Returns the refreshes that run in the background.
    pub(crate) fn refreshes(&self) -> &Arc<Refreshes> {
        &self.shared.refreshes
    }

    /// Returns the cached errors of functions.
    #[inline]
    pub(crate) fn errors(&self) -> &ErrorCache {
        &self.shared.errors
    }

    #[inline]
    pub(crate) fn flags(&self) -> Flags {
        self.shared.flags.load()
    }

    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.flags().is_paused()
    }

    pub(super) fn stats(&self) -> Stats {
        self.shared.stats(self.backend().usage())
    }

    /// Reads the record of a key.
    #[inline]
    pub(crate) fn read<'a, M: Io>(
        &'a self,
        key: &'a Key,
    ) -> Operation<'a, Option<Record<B::Stored>>> {
        let backend = self.backend();
        let mut found = None;
        let read = catch_panic("read entry", || {
            let mut visit = |record: Record<&B::Stored>| found = Some(record.map(Clone::clone));
            Ok(backend.read_now(key, ValueClass::Opaque, &mut visit))
        });
        match read {
            Ok(Some(result)) => Operation::done(result.map(|()| found)),
            Ok(None) => Operation::perform::<M>(
                "read entry",
                || backend.read(key),
                || backend.read_async(key),
            ),
            Err(error) => Operation::done(Err(error)),
        }
    }

    /// Reads the record of a key. After a timeout, the part of the backend that still responds is
    /// read.
    pub(crate) async fn read_or_offline<M: Io>(
        &self,
        key: &Key,
    ) -> Result<Option<Record<B::Stored>>> {
        match (self.read::<M>(key).await, self.backend().capabilities().offline) {
            (Err(error), Some(offline)) if error.kind() == ErrorKind::Timeout => {
                let known = catch_panic("read entry", || offline.read(key));
                known?.map_or(Err(error), |record| Ok(Some(record)))
            }
            (result, _) => result,
        }
    }

    /// Counts an entry that the backend has read and cannot decode ([`ErrorKind::Decode`]), and returns
    /// `None` for it: it is a miss, as one whose value the serializer cannot decode.
    pub(crate) fn absent_if_unreadable<R>(
        &self,
        key: &Key,
        found: Result<Option<R>>,
    ) -> Result<Option<R>> {
        match found {
            Err(error) if error.kind() == ErrorKind::Decode => {
                self.fault(key.prefix(), &error, false);
                Ok(None)
            }
            found => found,
        }
    }

    /// Writes a record.
    #[inline]
    pub(crate) fn write<'a, M: Io>(
        &'a self,
        key: &'a Key,
        record: Record<B::Stored>,
    ) -> Operation<'a, ()> {
        let backend = self.backend();
        if M::BLOCKS || backend.is_in_process() {
            Operation::blocking("write entry", || backend.write(key, record))
        } else {
            Operation::awaiting("write entry", || backend.write_async(key, record))
        }
    }

    /// Writes a record of a value of this class to a backend in this process.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn write_now(
        &self,
        key: &Key,
        record: Record<B::Stored>,
        class: ValueClass,
    ) -> Result<()> {
        // Without a guard, the compiler sees the whole path.
        if class != ValueClass::Opaque {
            return self.backend().write(key, record);
        }
        catch_panic("write entry", || self.backend().write(key, record))
    }

    /// Writes a record of which only the times differ from the stored one, which has the times `old`.
    pub(crate) async fn write_times<M: Io>(
        &self,
        key: &Key,
        old: Record<()>,
        record: Record<B::Stored>,
    ) -> Result<()> {
        let backend = self.backend();
        if M::BLOCKS || backend.is_in_process() {
            Operation::blocking("write entry", || backend.write_times(key, &old, record)).await
        } else {
            let write = || backend.write_times_async(key, &old, record);
            Operation::awaiting("write entry", write).await
        }
    }

    /// Reads the records of keys, whose results are in the same order. A panic is the only result.
    pub(crate) async fn read_many<M: Io>(
        &self,
        keys: &[&Key],
    ) -> Vec<Result<Option<Record<B::Stored>>>> {
        let backend = self.backend();
        let results = if M::BLOCKS || backend.is_in_process() {
            Operation::blocking("read entry", || Ok(backend.read_many(keys)))
        } else {
            let read = async move { Ok(backend.read_many_async(keys).await) };
            Operation::awaiting("read entry", || Box::pin(read))
        };
        results.await.unwrap_or_else(|error| vec![Err(error)])
    }

    /// Writes records. The results are in the same order; a panic is the only result.
    pub(crate) async fn write_many<M: Io>(
        &self,
        entries: Vec<(&Key, Record<B::Stored>)>,
    ) -> Vec<Result<()>> {
        let backend = self.backend();
        let results = if M::BLOCKS || backend.is_in_process() {
            Operation::blocking("write entry", || Ok(backend.write_many(entries)))
        } else {
            let write = async move { Ok(backend.write_many_async(entries).await) };
            Operation::awaiting("write entry", || Box::pin(write))
        };
        results.await.unwrap_or_else(|error| vec![Err(error)])
    }

    /// Deletes the record of a key.
    #[inline]
    pub(crate) fn delete<'a, M: Io>(&'a self, key: &'a Key) -> Operation<'a, bool> {
        let backend = self.backend();
        if M::BLOCKS || backend.is_in_process() {
            Operation::blocking("delete entry", || backend.delete(key))
        } else {
            Operation::awaiting("delete entry", || backend.delete_async(key))
        }
    }

    /// Removes the entry of a key, and a value that is being stored for it.
    pub(crate) async fn remove<M: Io>(&self, key: &Key) -> Result<bool> {
        self.check_on()?;
        self.declarations().check_version(key)?;
        // As a writer, so that no update of the key reads the entry before and stores after.
        let Some(lead) = self.lead_write::<M>(key, 0).await else {
            return self.delete::<M>(key).await;
        };
        M::lead(lead.id(), async move {
            let removed = self.delete::<M>(key).await;
            // Callers that wait join again, and one of them computes.
            drop(lead);
            removed
        })
        .await
    }

    /// Leads a flight that stores or removes the value of a key, once no other value is being stored. `None`
    /// if that takes too long, or must not be waited for: the leader of the other flight then deletes the
    /// older value, perhaps with the new one.
    pub(super) async fn lead_write<'a, M: Io>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Option<Lead<'a, Record<B::Stored>>> {
        let mut deadline = Deadline::default();
        loop {
            match self.flights().lead_write(key, stamp) {
                Ok(lead) => {
                    // No leader that began earlier stores an error from here on.
                    self.errors().remove(key);
                    return Some(lead);
                }
                Err(flight) if self.wait_for::<M>(&flight, &mut deadline).await => {}
                Err(_) => {
                    self.flights().invalidate(key);
                    self.errors().remove(key);
                    return None;
                }
            }
        }
    }

    /// Removes all entries, and values that are being stored.
    pub(super) async fn remove_all<M: Io>(&self) -> Result<()> {
        self.check_on()?;
        let mut deadline = Deadline::default();
        let _clearing = self.shared.clears.begin();
        self.invalidate_flights::<M>(&mut deadline).await;
        self.errors().clear();
        let backend = self.backend();
        let cleared =
            Operation::perform::<M>("clear", || backend.clear(), || backend.clear_async()).await;
        // Again: an update that has read its entry before may still run. One that has ended in the meantime
        // has deleted its value.
        self.invalidate_flights::<M>(&mut deadline).await;
        cleared
    }

    /// Prevents running computations from storing their values, and waits until those that are being stored
    /// are deleted.
    async fn invalidate_flights<M: Io>(&self, deadline: &mut Deadline) {
        for flight in self.flights().invalidate_all() {
            self.wait_for::<M>(&flight, deadline).await;
        }
    }

    /// Waits until a flight is complete, with its value stored. Returns `false` if the deadline has passed
    /// before, or the caller must not wait.
    pub(crate) async fn wait_for<M: Io>(
        &self,
        flight: &Arc<Flight<Record<B::Stored>>>,
        deadline: &mut Deadline,
    ) -> bool {
        let Some(_waiting) = M::begin_wait(flight.id()) else { return false };
        M::wait(flight.completed(self.begin(deadline))).await
    }

    /// Sets the deadline of a call that is about to wait, unless it has waited before.
    pub(crate) fn begin<'a>(&self, deadline: &'a mut Deadline) -> &'a mut Deadline {
        self.begin_within(deadline, self.max_wait())
    }

    /// Sets the deadline of a wait that has a time limit of its own.
    pub(crate) fn begin_within<'a>(
        &self,
        deadline: &'a mut Deadline,
        limit: Duration,
    ) -> &'a mut Deadline {
        deadline.begin(self.shared.clock.as_dyn(), limit)
    }

    /// Returns a future that is ready after this time.
    pub(crate) fn sleep(&self, time: Duration) -> Sleep {
        self.shared.clock.as_dyn().sleep(time)
    }

    /// Returns the time after which a waiting caller hedges, that is computes in parallel.
    pub(crate) fn hedge_after(&self, key: &Key) -> Duration {
        if self.max_wait.is_some() {
            Duration::MAX
        } else {
            self.flights().hedge_times().hedge_after(key.prefix())
        }
    }
}
