//! The cache as a value.

mod compute;
mod declarations;
mod generations;
mod invalidate;
mod off;
mod pause;
mod refresh_backoff;
mod telemetry;

use std::fmt;
use std::iter;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) use self::declarations::Declaration;
use self::declarations::Declarations;
use self::generations::Groups;
pub(crate) use self::generations::Made;
pub use self::off::OffBackend;
pub use self::pause::{PauseAllGuard, PauseGuard, pause_all};
use self::refresh_backoff::Setbacks;
use crate::backend::{Backend, Lease, OpenBackend, Usage};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Deadline, Flight, Flights, Hosted, Landing, Outcome, Waiting, inside};
use crate::freshness::is_fresh;
use crate::key::Key;
use crate::log::Warnings;
use crate::observer::Observers;
use crate::panic::{catch_panic, catch_panic_async};
use crate::record::Record;
use crate::serializer::{Serializer, ValueClass};
use crate::stats::{Counters, Stats};
use crate::sync::block_on;
use crate::validity::{SchemaFlags, Validator, Validity};

/// A cache: the engine over a backend and a serializer.
///
/// A `Cache` is a handle. Clones of it are the same cache, and cost as much as cloning an
/// [`Arc`]. It is what the attribute is given as `cache`, and it works without the attribute too;
/// every method that asks the backend is there for sync callers and, with `_async`, for async
/// ones.
///
/// # Behavior
///
/// Of the callers that want one key at once, one computes and the others wait for its value,
/// whether they are sync or async. No caller waits longer than [`with_max_wait`] says.
///
/// [`with_max_wait`]: Self::with_max_wait
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// use std::time::Duration;
/// use vayu_core::testing::MapBackend;
/// use vayu_core::{Cache, Key, MessagePack};
///
/// let cache: Cache<MapBackend, MessagePack> = Cache::new();
/// let key = Key::from_text("squares", "12");
/// let minute = Duration::from_secs(60);
/// assert_eq!(cache.get_or_insert_with(&key, minute, || 144), 144);
/// assert_eq!(cache.get::<i32>(&key).unwrap(), Some(144));
/// assert!(cache.remove(&key).unwrap());
/// # }
/// ```
pub struct Cache<B: Backend, S> {
    shared: Arc<Inner<B>>,
    serializer: S,
    /// As it was set. `None` stands for [`MAX_WAIT`], with hedges.
    max_wait: Option<Duration>,
}

struct Inner<B: Backend> {
    backend: B,
    clock: Arc<dyn Clock>,
    flights: Flights<Record<B::Stored>>,
    counters: Counters,
    warnings: Warnings,
    observers: Observers,
    setbacks: Setbacks,
    groups: Groups,
    declarations: Declarations,
    pauses: AtomicUsize,
    /// Why the cache is paused for good, if it is.
    why_off: Option<Error>,
}

impl<B: Backend> Inner<B> {
    fn new(backend: B) -> Self {
        Self {
            clock: backend.clock(),
            backend,
            flights: Flights::new(),
            counters: Counters::default(),
            warnings: Warnings::default(),
            observers: Observers::default(),
            setbacks: Setbacks::default(),
            groups: Groups::default(),
            declarations: Declarations::default(),
            pauses: AtomicUsize::new(0),
            why_off: None,
        }
    }
}

/// How long callers wait for another one's computation unless told otherwise.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How long a caller waits before it asks again whether another process still computes.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

impl<B: Backend, S: Default> Cache<B, S> {
    /// A cache over a new backend with its default options.
    pub fn new() -> Self
    where
        B: Default,
    {
        Self::with_backend(B::default())
    }

    /// A cache over this backend.
    pub fn with_backend(backend: B) -> Self {
        Self::over(Arc::new(Inner::new(backend)))
    }

    fn over(shared: Arc<Inner<B>>) -> Self {
        Self { shared, serializer: S::default(), max_wait: None }
    }
}

impl<B: OpenBackend, S: Default> Cache<B, S> {
    /// Opens the cache at a location, such as a path or a URL, with the default options of its backend.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] when the backend cannot work there.
    pub fn open(location: impl Into<B::Location>) -> Result<Self> {
        Ok(Self::with_backend(B::open(location.into())?))
    }
}

impl<B: Backend, S> Cache<B, S> {
    /// The same cache, seen through another serializer.
    #[must_use]
    pub fn with_serializer<Z>(self, serializer: Z) -> Cache<B, Z> {
        Cache { shared: self.shared, serializer, max_wait: self.max_wait }
    }

    /// Returns the same cache with a limit for the waits of a call: for another caller's computation, for
    /// that of another process, and for one that takes their place. After that time in total the caller
    /// computes.
    ///
    /// The default is 30 seconds, with hedges: after 3 seconds one waiting caller computes in parallel,
    /// and the first value is for all callers. Where such a hedge takes long itself, the function is
    /// slow, and the next ones follow after 8 times what it took. With a limit that is set here nothing
    /// is hedged.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = Some(max_wait);
        self
    }

    /// The backend.
    #[inline]
    pub fn backend(&self) -> &B {
        &self.shared.backend
    }

    /// The serializer.
    #[inline]
    pub fn serializer(&self) -> &S {
        &self.serializer
    }

    /// What this cache has done since it was made.
    pub fn stats(&self) -> Stats {
        let Inner { counters, flights, backend, .. } = &*self.shared;
        let mut stats = counters.snapshot(flights.in_flight(), backend.usage());
        stats.off = self.why_off();
        stats
    }

    /// Lets every call compute, and neither read nor store, until the answer is dropped. There is
    /// nothing to [`get`](Self::get) meanwhile, and what is [`set`](Self::set) is not kept. Calls
    /// that began before still store.
    ///
    /// Several pauses may overlap; the cache goes on when the last one has ended.
    pub fn pause(&self) -> PauseGuard<B> {
        PauseGuard::begin(Arc::clone(&self.shared))
    }

    /// Returns the value that is stored for a key, or `None`.
    ///
    /// An entry that has expired, was invalidated, is of another type or cannot be decoded is no value.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Configuration`] where the key is not that of the function
    /// whose entry it is meant for, as far as the cache knows the function or the entry says so: the
    /// function has a version or tags that the [`Key`] does not carry, or another serializer, or another
    /// type.
    pub fn get<T>(&self, key: &Key) -> Result<Option<T>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_paused() {
            return Ok(None);
        }
        self.check_before::<T>(key)?;
        let stamp = self.stamp(key.prefix(), key.tags())?;
        let found = self.or_offline(key, self.read(key));
        self.decode_record(key, stamp, found?)
    }

    /// [`get`](Self::get) for async callers.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn get_async<T>(&self, key: &Key) -> Result<Option<T>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_paused() {
            return Ok(None);
        }
        self.check_before::<T>(key)?;
        let stamp = self.stamp_async(key.prefix(), key.tags()).await?;
        let found = self.or_offline(key, self.read_async(key).await);
        self.decode_record(key, stamp, found?)
    }

    /// Stores a value for a key. What is being computed for the key at the moment is not stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for a ttl of zero, and where the function that the key is meant for
    /// would not see the value (see [`get`](Self::get)); [`ErrorKind::Encode`] for a value that the
    /// serializer cannot give back, and those of the backend.
    pub fn set<T>(&self, key: &Key, value: &T, ttl: Duration) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_paused() {
            return Ok(());
        }
        let is_certain = self.check::<T>(key)?;
        let stamp = self.stamp(key.prefix(), key.tags())?;
        let record = self.encode_record(key, value, stamp, ttl)?;
        if !is_certain && let Ok(Some(old)) = self.read(key) {
            self.check_replaced::<T>(key, old)?;
        }
        let mut deadline = Deadline::default();
        let lead = loop {
            match self.flights().seize(key, stamp) {
                Ok(lead) => break Some(lead),
                Err(flight) if self.wait_for(&flight, &mut deadline) => {}
                Err(_) => break None,
            }
        };
        let Some(lead) = lead else {
            return catch_panic("write entry", || self.backend().write(key, record));
        };
        inside(lead.id(), move || {
            let result = catch_panic("write entry", || self.backend().write(key, record.clone()));
            let mut lead = lead.computed(Outcome::Computed(record.into()));
            while lead.land() == Landing::MustDelete {
                catch_panic("delete entry", || self.backend().delete(key))?;
            }
            result.inspect(|()| self.count_store(key.prefix()))
        })
    }

    /// [`set`](Self::set) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Self::set).
    pub async fn set_async<T>(&self, key: &Key, value: &T, ttl: Duration) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_paused() {
            return Ok(());
        }
        let is_certain = self.check::<T>(key)?;
        let stamp = self.stamp_async(key.prefix(), key.tags()).await?;
        let record = self.encode_record(key, value, stamp, ttl)?;
        if !is_certain && let Ok(Some(old)) = self.read_async(key).await {
            self.check_replaced::<T>(key, old)?;
        }
        let mut deadline = Deadline::default();
        let lead = loop {
            match self.flights().seize(key, stamp) {
                Ok(lead) => break Some(lead),
                Err(flight) if self.wait_for_async(&flight, &mut deadline).await => {}
                Err(_) => break None,
            }
        };
        let Some(lead) = lead else {
            return self.write_async(key, record).await;
        };
        Hosted::new(lead.id(), async move {
            let result = self.write_async(key, record.clone()).await;
            let mut lead = lead.computed(Outcome::Computed(record.into()));
            while lead.land() == Landing::MustDelete {
                self.delete_async(key).await?;
            }
            result.inspect(|()| self.count_store(key.prefix()))
        })
        .await
    }

    /// Forgets a key, and says whether there was something to forget. What is being computed for
    /// it at the moment goes to those who already wait for it, and is not stored.
    ///
    /// That is so in this process. What another process computes at the moment, for a directory that
    /// both use, is stored: tags ([`invalidate_tag`](Self::invalidate_tag)) reach that, too.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Configuration`] where the function has a version and the key
    /// has none, as far as the cache knows the function.
    pub fn remove(&self, key: &Key) -> Result<bool> {
        self.check_on()?;
        self.declarations().check_version(key)?;
        if let Some(flight) = self.shared.flights.invalidate(key) {
            self.wait_for(&flight, &mut Deadline::default());
        }
        catch_panic("delete entry", || self.backend().delete(key))
    }

    /// [`remove`](Self::remove) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`remove`](Self::remove).
    pub async fn remove_async(&self, key: &Key) -> Result<bool> {
        self.check_on()?;
        self.declarations().check_version(key)?;
        if let Some(flight) = self.shared.flights.invalidate(key) {
            self.wait_for_async(&flight, &mut Deadline::default()).await;
        }
        self.delete_async(key).await
    }

    /// Forgets everything, as [`remove`](Self::remove) does one key.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`ErrorKind::Unsupported`] where it cannot be cleared.
    pub fn clear(&self) -> Result<()> {
        self.check_on()?;
        let mut deadline = Deadline::default();
        for flight in self.shared.flights.invalidate_all() {
            self.wait_for(&flight, &mut deadline);
        }
        catch_panic("clear", || self.backend().clear())
    }

    /// [`clear`](Self::clear) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`clear`](Self::clear).
    pub async fn clear_async(&self) -> Result<()> {
        self.check_on()?;
        let mut deadline = Deadline::default();
        for flight in self.shared.flights.invalidate_all() {
            self.wait_for_async(&flight, &mut deadline).await;
        }
        catch_panic_async("clear", || self.backend().clear_async()).await
    }

    /// What the backend has.
    pub(crate) fn read(&self, key: &Key) -> Result<Option<Record<B::Stored>>> {
        let backend = self.backend();
        catch_panic("read entry", || {
            backend.read_now(key, ValueClass::Opaque).unwrap_or_else(|| backend.read(key))
        })
    }

    /// [`read`](Self::read) for async callers.
    pub(crate) async fn read_async(&self, key: &Key) -> Result<Option<Record<B::Stored>>> {
        let backend = self.backend();
        match catch_panic("read entry", || Ok(backend.read_now(key, ValueClass::Opaque)))? {
            Some(found) => found,
            None => catch_panic_async("read entry", || backend.read_async(key)).await,
        }
    }

    /// Returns what the backend has of a key that it did not return in time, if it has a part that
    /// responds.
    pub(crate) fn or_offline(
        &self,
        key: &Key,
        found: Result<Option<Record<B::Stored>>>,
    ) -> Result<Option<Record<B::Stored>>> {
        match (found, self.backend().sharing().offline) {
            (Err(error), Some(offline)) if error.kind() == ErrorKind::Timeout => {
                let known = catch_panic("read entry", || offline.read(key));
                known?.map_or(Err(error), |record| Ok(Some(record)))
            }
            (found, _) => found,
        }
    }

    /// Tries to acquire the lease of a key, where the backend has leases.
    pub(crate) fn try_acquire_lease(&self, key: &Key) -> Result<Lease> {
        match self.backend().sharing().leases {
            Some(leases) => catch_panic("acquire lease", || leases.try_acquire(key)),
            None => Ok(Lease::NotRequired),
        }
    }

    /// [`try_acquire_lease`](Self::try_acquire_lease) for async callers.
    pub(crate) async fn try_acquire_lease_async(&self, key: &Key) -> Result<Lease> {
        match self.backend().sharing().leases {
            Some(leases) => {
                catch_panic_async("acquire lease", || leases.try_acquire_async(key)).await
            }
            None => Ok(Lease::NotRequired),
        }
    }

    /// Keeps a record, for async callers.
    pub(crate) async fn write_async(&self, key: &Key, record: Record<B::Stored>) -> Result<()> {
        let backend = self.backend();
        if backend.is_in_process() {
            return catch_panic("write entry", || backend.write(key, record));
        }
        catch_panic_async("write entry", || backend.write_async(key, record)).await
    }

    /// Forgets a key, for async callers.
    pub(crate) async fn delete_async(&self, key: &Key) -> Result<bool> {
        let backend = self.backend();
        if backend.is_in_process() {
            return catch_panic("delete entry", || backend.delete(key));
        }
        catch_panic_async("delete entry", || backend.delete_async(key)).await
    }

    /// Checks a key that was made by hand against the functions of its prefix. `true` where all that is
    /// known of them agrees with it, `false` where nothing is known or some do not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] where none of them agrees.
    #[cold]
    fn check<T>(&self, key: &Key) -> Result<bool>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        catch_panic("check key", || {
            let Validator { serializer, type_stamp, flags, .. } = self.validator::<T>(key, 0);
            self.declarations()
                .check(key.prefix(), Declaration::new(key, flags, serializer, type_stamp))
        })
    }

    /// [`check`](Self::check) before anything is read, where that may be necessary: an entry that was
    /// stored before the cache knew the function may look right.
    #[inline]
    pub(crate) fn check_before<T>(&self, key: &Key) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.declarations().has_constraints() {
            self.check::<T>(key).map(|_| ())
        } else {
            Ok(())
        }
    }

    /// Checks whether the record that is to be replaced is of a function that would not see the new one.
    fn check_replaced<T>(&self, key: &Key, old: Record<B::Stored>) -> Result<()>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let now = self.now();
        let forbidden = catch_panic("check entry", move || {
            let is_alive = is_fresh(old.created(), old.stale_until(), now);
            Ok(self.validator::<T>(key, 0).replacement_error(&old).filter(|_| is_alive))
        });
        forbidden?.map_or(Ok(()), Err)
    }

    fn validator<T>(&self, key: &Key, stamp: u64) -> Validator
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let (serializer, type_stamp) = (self.serializer.id(), self.serializer.schema());
        Validator { serializer, type_stamp, stamp, flags: SchemaFlags::of_key(key) }
    }

    fn encode_record<T>(
        &self,
        key: &Key,
        value: &T,
        stamp: u64,
        ttl: Duration,
    ) -> Result<Record<B::Stored>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if ttl.is_zero() {
            return Err(Error::new(ErrorKind::Configuration, "the ttl of a value is zero"));
        }
        let stored = catch_panic("encode value", || self.serializer.serialize(value))?;
        let created = self.now();
        Ok(Record::new(stored, created, created.saturating_add(ttl))
            .with_schema(self.validator::<T>(key, stamp).schema())
            .with_serializer(self.serializer.id()))
    }

    fn decode_record<T>(
        &self,
        key: &Key,
        stamp: u64,
        record: Option<Record<B::Stored>>,
    ) -> Result<Option<T>>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        let Some(record) = record else { return self.check::<T>(key).map(|_| None) };
        let now = self.now();
        let opened = catch_panic("decode value", move || {
            if !is_fresh(record.created(), record.expires(), now) {
                return Ok(Ok(None));
            }
            let validator = self.validator::<T>(key, stamp);
            let is_own = record.schema() == validator.schema()
                && record.serializer() == validator.serializer;
            match if is_own { Validity::Valid } else { validator.validate(&record) } {
                Validity::Valid => self.serializer.deserialize(record.value()).map(Some).map(Ok),
                Validity::Invalid => Ok(self.check::<T>(key).map(|_| None)),
                Validity::Incompatible(error) => Ok(Err(error)),
            }
        });
        match opened {
            Ok(judged) => judged,
            Err(error) => {
                self.fault(key.prefix(), &error, false);
                Ok(None)
            }
        }
    }

    /// Waits until what is being stored is stored. Whether it is; where this thread may not wait
    /// for that, or the deadline comes first, it is not.
    pub(crate) fn wait_for(
        &self,
        flight: &Arc<Flight<Record<B::Stored>>>,
        deadline: &mut Deadline,
    ) -> bool {
        Waiting::begin_asleep(flight.id())
            .is_some_and(|_waiting| block_on(flight.landed(self.begin(deadline))).is_some())
    }

    pub(crate) async fn wait_for_async(
        &self,
        flight: &Arc<Flight<Record<B::Stored>>>,
        deadline: &mut Deadline,
    ) -> bool {
        let Some(_waiting) = Waiting::begin(flight.id()) else { return false };
        flight.landed(self.begin(deadline)).await.is_some()
    }

    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Sets the deadline of a call that is about to wait, unless it has waited before.
    pub(crate) fn begin<'a>(&self, deadline: &'a mut Deadline) -> &'a mut Deadline {
        deadline.begin(&self.shared.clock, self.max_wait.unwrap_or(MAX_WAIT))
    }

    /// Returns the time after which a caller that waits for a computation computes, too.
    pub(crate) fn hedge_after(&self, key: &Key) -> Duration {
        if self.max_wait.is_some() {
            Duration::MAX
        } else {
            self.flights().hedge_times().hedge_after(key.prefix())
        }
    }

    /// Waits between two looks whether another process still computes. Returns whether the call may
    /// wait longer.
    pub(crate) async fn pause_for(&self, pause: Duration, deadline: &mut Deadline) -> bool {
        self.begin(deadline).limit(self.shared.clock.sleep(pause)).await
    }

    /// The pauses between looks whether another process still computes: longer ones with time.
    pub(crate) fn pauses() -> impl Iterator<Item = Duration> + use<B, S> {
        let double = |pause: &Duration| Some((2 * *pause).min(LONGEST_PAUSE));
        iter::successors(Some(FIRST_PAUSE), double)
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

    pub(crate) fn setbacks(&self) -> &Setbacks {
        &self.shared.setbacks
    }

    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.shared.pauses.load(Ordering::Relaxed) > 0 || pause::is_everything_paused()
    }
}

impl<B: Backend, S: Clone> Clone for Cache<B, S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            serializer: self.serializer.clone(),
            max_wait: self.max_wait,
        }
    }
}

/// A panic of what is computed leaves nothing half-done in the cache.
impl<B: Backend, S: UnwindSafe> UnwindSafe for Cache<B, S> {}
impl<B: Backend, S: RefUnwindSafe> RefUnwindSafe for Cache<B, S> {}

impl<B: Backend + Default, S: Default> Default for Cache<B, S> {
    fn default() -> Self {
        Self::new()
    }
}

/// The counters of this process alone: to know how full the backend is may take work.
impl<B: Backend, S: fmt::Debug> fmt::Debug for Cache<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { hits, misses, coalesced, inserts, errors, .. } =
            self.shared.counters.snapshot(0, Usage::default());
        f.debug_struct("Cache")
            .field("serializer", &self.serializer)
            .field("max_wait", &self.max_wait.unwrap_or(MAX_WAIT))
            .field("hits", &hits)
            .field("misses", &misses)
            .field("coalesced", &coalesced)
            .field("inserts", &inserts)
            .field("errors", &errors)
            .finish_non_exhaustive()
    }
}
