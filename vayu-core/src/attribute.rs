//! Items for the expansions of the attribute. Not for direct use.

mod batch;
mod cache;
mod candidate;
mod err_ttl;
mod error_text;
mod expires_at;
mod idle;
mod invalidates;
mod key_part;
mod output;
mod own;
mod predicate;
mod revalidate;
mod single_flight;
mod storable;
mod stored;
mod weights;

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

#[cfg(all(test, not(vayu_loom)))]
pub(crate) use self::batch::batch_call;
pub use self::batch::{
    BatchCall, BatchOutput, Each, EachIn, ElementValue, Elements, MapKey, OutputOfEach, OutputType,
    Outputs, RunElements, batch_body, batch_body_async, lend,
};
pub use self::cache::AsCache;
pub use self::candidate::{Candidate, Chosen, Other};
pub use self::err_ttl::{CachesErrors, ErrTtl, ErrorShape, err_ttl, err_ttl_of_batch};
pub use self::error_text::{ErrorProbe, HiddenError, ShownError};
pub use self::expires_at::{ExpiresAt, expires_at};
pub use self::idle::{TracksUses, idle};
pub use self::invalidates::{
    AnyOutput, CompleteOutput, HasEnded, Invalidates, LaterOutput, OutputProbe, check_run,
    invalidates, run_body,
};
pub use self::key_part::{
    AnyPart, Bound, BoundByReference, ExclusiveKind, ExclusivePart, KeyPart, Part, SetPart,
    SimplePart, Unchanging, ValuePart,
};
pub use self::output::{
    FutureOutput, FutureShape, KnownShape, PlainShape, Probe, ResultShape, Shareable,
};
pub use self::own::OwnedCopy;
pub use self::predicate::Predicate;
pub use self::revalidate::{Revalidate, previous_of, revalidate, unchanged};
pub use self::single_flight::{SingleFlightCache, single_flights, whole};
pub use self::storable::{ShareableBy, StorableBy, StorableIn};
pub use self::stored::{
    AsBytes, AsTheyAre, Encoded, EncodedStored, HoldsReferences, PlainStored, StoredProbe,
};
pub use self::weights::{Weighed, Weights, weighed};
use crate::backend::Backend;
pub use crate::backend::NoStorage;
use crate::cache::Cache;
pub use crate::cache::Engine;
use crate::call;
pub use crate::call::background_refresh::{CallerBody, Refresh, Refreshed, StartBody};
pub use crate::call::batch::Unusable;
pub use crate::call::late_body::{BodyMaker, LateBody, Made, MakeBody};
use crate::call::lookup::begin;
pub use crate::call::lookup::{Lookup, Start};
pub use crate::call::patience::PatientCall;
use crate::call::patience::RunBody;
pub use crate::call::task::{SpawnableCall, Task};
pub use crate::call::{
    CacheIf, CachedFn, Call, CallOptions, FixedTtl, FnOutput, FnProperties, Idle, IdleTime,
    OutputShape, OwnedSerializer, PlainOutput, Policy, ResultOutput, Retention, SharedResultOutput,
    Tagged, TtlFn, WholeOutput, WithIdle,
};
pub use crate::entry::Query;
use crate::entry::{Entry, Subject};
use crate::generation::Group;
use crate::io::run_blocking;
use crate::key::Prefix;
pub use crate::key::{CallKeyBuilder, FunctionOf, KeyBuilder, KeyError, KeyString, LiteralPrefix};
use crate::panic::catch_panic;

/// Returns the identity of the function that holds this body.
#[inline]
pub fn function_prefix<F: ?Sized>(_body: &F) -> FunctionOf<F> {
    FunctionOf::new()
}

/// Stands for a value in a branch that is never taken.
///
/// # Panics
///
/// Always.
#[cold]
pub fn unreachable<T>() -> T {
    unreachable!("the branch is never taken")
}

/// Creates a ttl for all values.
#[inline]
pub fn fixed_ttl(ttl: Duration) -> FixedTtl {
    FixedTtl::new(ttl)
}

/// Creates a ttl that depends on the value.
#[inline]
pub fn ttl_fn<H: OutputShape, F: Fn(&H::Value) -> Duration>(_shape: H, ttl: F) -> TtlFn<F> {
    TtlFn(ttl)
}

/// Adds a predicate on the value to a ttl.
#[inline]
pub fn cache_if<H: OutputShape, L, F: Fn(&H::Value) -> bool>(
    _shape: H,
    ttl: L,
    predicate: F,
) -> CacheIf<L, F> {
    CacheIf { ttl, predicate }
}

/// Returns the groups of the tags of a call. They are computed only if a group may have been
/// invalidated.
#[inline]
pub fn tags<B: Backend, S, const N: usize>(
    cache: &Cache<B, S>,
    make: impl FnOnce() -> [Group; N],
) -> [Group; N] {
    if cache.engine().has_generations() { make() } else { [Group::ALL; N] }
}

/// Returns the group of a tag.
pub fn tag(tag: impl Display) -> Group {
    Group::tag(tag)
}

/// Sets the label of a key, unless the entries of the cache are in memory, where no other program reads
/// them.
#[inline]
pub fn label<B: Backend, S>(
    cache: &Cache<B, S>,
    key: &mut KeyBuilder,
    set: impl FnOnce(&mut KeyBuilder),
) {
    if !cache.engine().backend().is_in_process() {
        set(key);
    }
}

/// Returns the engine of a cache, which all that follows a lookup takes. A hit has fewer instructions without it.
#[inline]
pub fn engine<B: Backend, S>(cache: &Cache<B, S>) -> &Engine<B> {
    cache.engine()
}

/// Starts a call of a cache, see [`Start`].
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn start<B: Backend, S>(cache: &Cache<B, S>) -> Start {
    Start::new(cache.engine())
}

/// Runs a cached call of a sync function.
#[inline]
pub fn call<B: Backend, S, F: CachedFn<Stored = B::Stored>>(
    cache: &Cache<B, S>,
    start: Start,
    function: F,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    call::blocking::run_started(cache.engine(), start, function, body)
}

/// Returns the output of a cached call if it is available without waiting, so that no future is created. The rest of the
/// call is for [`finish_async`] and the other functions that finish one.
#[inline]
pub fn begin_async<B: Backend, S, F: CachedFn<Stored = B::Stored>>(
    cache: &Cache<B, S>,
    function: &F,
) -> Result<F::Output, Lookup<F::Output>> {
    begin(cache.engine(), function)
}

/// Returns the output of a cached call if it is available without waiting, before the body of the function is created. The rest of the
/// call is for [`finish_async`], with the description, which is moved to `moved` and owns the key from there on.
///
/// # Errors
///
/// The rest of a call that has to wait.
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn begin_async_call<B: Backend, S, F: CachedFn<Stored = B::Stored>>(
    cache: &Cache<B, S>,
    start: Start,
    function: F,
    moved: &mut Option<F::Moved>,
) -> Result<F::Output, Lookup<F::Output>> {
    call::lookup::begin_moving(cache.engine(), start, function, moved)
}

/// Returns the description of a call that [`begin_async_call`] has moved.
///
/// # Panics
///
/// If it has not.
#[inline]
pub fn moved<F>(moved: &Option<F>) -> &F {
    moved.as_ref().expect("the call has a rest")
}

/// Finishes a cached call of an async function. The body is pinned where it was created: a future
/// that is moved takes space in the future of the call twice.
pub fn finish_async<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> impl Future<Output = F::Output> {
    call::future::finish(engine, function, lookup, body)
}

/// Finishes a cached call of a sync function, but returns a value past its ttl with a refresh for another thread. `run`
/// runs the body in the caller.
pub fn finish_spawning<B, F, D>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: D,
    run: impl FnOnce(D) -> F::Output,
) -> Refreshed<F::Output, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
{
    call::background_refresh::finish_blocking(engine, function, lookup, body, run)
}

/// Finishes a cached call of an async function, but returns a value past its ttl with a refresh for a
/// task.
pub fn finish_async_spawning<B, F, D>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: D,
) -> impl Future<Output = Refreshed<F::Output, D::Body>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: StartBody<Future: Future<Output = F::Output>>,
{
    call::background_refresh::finish(engine, function, lookup, body)
}

/// Returns a body that a refresh gets as it is. `start` makes the future of one that runs in the caller.
pub fn caller_body<D, T, S>(body: D, start: S) -> CallerBody<D, S>
where
    T: Future,
    S: FnOnce(D) -> Pin<Box<T>>,
{
    CallerBody::new(body, start)
}

/// Returns a body that is made when it is needed, and its maker.
pub fn late_body<D, M: FnOnce() -> D>(make: M) -> (BodyMaker<D, M>, LateBody<D>) {
    call::late_body::late_body(make)
}

/// Creates the rest of a call whose computation may move to a task. The body is boxed where it was created.
pub fn spawnable<B, F, T>(
    engine: &Engine<B>,
    function: F,
    lookup: Lookup<F::Output>,
    body: Pin<Box<T>>,
) -> SpawnableCall<impl Future<Output = F::Output> + use<B, F, T>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    call::task::spawnable(engine.clone(), function, lookup, body)
}

/// Creates the rest of a call that waits for `patience` at most for the refresh of a value past its ttl, which may
/// move to a task. The body of an async function is boxed where it was created, that of a sync one is a [`LateBody`].
#[allow(private_bounds, reason = "the trait is sealed")]
pub fn patient<B, F, R>(
    engine: &Engine<B>,
    function: F,
    lookup: Lookup<F::Output>,
    body: R,
    patience: Duration,
) -> PatientCall<B, F, impl Future<Output = F::Output> + use<B, F, R>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    R: RunBody<B, F>,
{
    call::patience::patient(engine.clone(), function, lookup, body, patience)
}

/// Returns the closure that runs the task of a sync function.
pub fn job<T: Future>(task: Task<T>) -> impl FnOnce() {
    move || run_blocking(task)
}

/// Returns the task that refreshes a value.
pub fn task_of<B, F, T>(
    engine: &Engine<B>,
    function: F,
    refresh: Refresh<Pin<Box<T>>>,
) -> impl Future<Output = ()> + use<B, F, T>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    call::background_refresh::task(engine.clone(), function, refresh)
}

/// Returns the closure that refreshes a value.
pub fn job_of<B, F, D>(
    engine: &Engine<B>,
    function: F,
    refresh: Refresh<D>,
) -> impl FnOnce() + use<B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: FnOnce() -> F::Output,
{
    call::background_refresh::job(engine.clone(), function, refresh)
}

/// Passes a value to a closure, whose parameter thereby has a known type.
#[inline]
pub fn pass<T, R>(value: T, closure: impl FnOnce(T) -> R) -> R {
    closure(value)
}

/// Spawns a refresh. A panic, such as one because no runtime is running, is counted and does not affect the
/// call.
pub fn spawn_refresh<B: Backend, T>(
    engine: &Engine<B>,
    function: &Prefix,
    spawn: impl FnOnce() -> T,
) {
    let result = catch_panic("spawn refresh", || {
        drop(spawn());
        Ok(())
    });
    if let Err(error) = result {
        engine.fault(function, &error, false);
    }
}

/// Creates the entry of a call, whose key carries its tags. `call` runs the function, through its
/// cache.
pub fn entry<B: Backend, S: Clone, F: CachedFn<Stored = B::Stored>, C>(
    cache: &Cache<B, S>,
    function: F,
    call: C,
) -> Entry<impl Query<Output = F::Output, Backend = B, Serializer = S> + use<B, S, F, C>, C> {
    Entry::new(Subject::new(cache.clone(), function), call)
}
