//! The lookup of a call, which never waits, for sync and async callers. Most calls end here.

use crate::backend::Backend;
use crate::cache::{Engine, Flags};
use crate::call::decode::{Decoded, Visited, WouldBlock};
use crate::call::request::Request;
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{CachedFn, Call, ComputeReason, FnProperties, Properties, usable_key};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::flight::Completions;
use crate::generation::Group;
use crate::key::{Key, Prefix};
use crate::log;

/// The state of a call that has begun, beside its function and its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) stamp: u64,
    pub(super) at: Timestamp,
    pub(super) has_timed_out: bool,
}

/// The rest of a call that its lookup could not end. It borrows nothing.
#[derive(Debug)]
pub struct Lookup<R> {
    pub(super) rest: Rest,
    /// The value past its ttl, if one was found.
    pub(super) found: Option<R>,
}

/// The next step of a call that its lookup could not end.
#[derive(Debug)]
pub(super) enum Rest {
    /// Run the function without the cache.
    Bypass,
    /// Read the generations of the groups.
    ReadGenerations,
    /// Read the backend.
    ReadBackend(Begun),
    /// Run the function for all callers of the key, or wait for a caller that does.
    Compute(Begun, ComputeReason),
}

impl<R> Lookup<R> {
    fn new(rest: Rest) -> Self {
        Self { rest, found: None }
    }
}

/// The moment at which a call begins: the present, unless it is one of several calls that begin at one moment.
pub(super) trait Moment<B: Backend> {
    /// Returns the time.
    fn time(&self) -> Timestamp;

    /// Returns the stamp of a call with these tags, see [`known_stamp`](Engine::known_stamp), if a generation may have changed.
    #[inline(always)]
    fn stamp(
        &mut self,
        engine: &Engine<B>,
        flags: Flags,
        prefix: &Prefix,
        tags: &[Group],
    ) -> Option<u64> {
        engine.stamp_of_changed_inline(flags, prefix.seed(), tags)
    }
}

/// The start of a call: its time.
///
/// It precedes a key that consists of arguments alone: while the clock is read, there are no words of a key that would have to be
/// kept. It follows one with an expression of the attribute, which may take any time.
#[derive(Debug, Clone, Copy)]
pub struct Start(Timestamp);

impl Start {
    /// Starts a call.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn new<B: Backend>(engine: &Engine<B>) -> Self {
        Self(engine.now_inline())
    }
}

impl<B: Backend> Moment<B> for Start {
    #[inline(always)]
    fn time(&self) -> Timestamp {
        self.0
    }
}

/// Returns the output of a call if it can be returned without waiting.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn begin<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
) -> Result<F::Output, Lookup<F::Output>> {
    serve_directly(engine, function, &mut Start::new(engine))
        .or_else(|begun| begin_apart(engine, function, begun))
}

/// [`begin`] of a call whose description is moved to `moved` if it has a rest: a hit writes no part of it to memory.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn begin_moving<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    mut start: Start,
    mut function: F,
    moved: &mut Option<F::Moved>,
) -> Result<F::Output, Lookup<F::Output>> {
    match serve_directly(engine, &function, &mut start) {
        Ok(output) => {
            function.clear();
            Ok(output)
        }
        Err(begun) => begin_apart(engine, moved.insert(function.moved()), begun),
    }
}

/// Returns the output of a call if it is a hit on the shortest way: the call is an ordinary one, and its value can be returned
/// without code of users, which inline values and plain ones can. Otherwise, the call has begun, unless it is not an ordinary
/// one.
///
/// The key and the description of the call stay in registers if they are short enough: nothing that is called here takes their
/// address. What follows for other calls is in functions apart, to which the caller [moves](CachedFn::moved) them.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn serve_directly<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    moment: &mut impl Moment<B>,
) -> Result<F::Output, Option<Begun>> {
    let (flags, options) = (engine.flags(), function.options());
    if !flags.is_ordinary() || !options.is_ordinary() || (!options.is_quiet && log::is_enabled()) {
        return Err(None);
    }
    let Ok(key) = function.key() else { return Err(None) };
    let stamp = if flags.may_have_changed() {
        moment.stamp(engine, flags, key.prefix(), function.tags()).ok_or(None)?
    } else {
        0
    };
    let call = Call::begun_at(engine, function, key, stamp, moment.time());
    match call.serve_directly() {
        Some(output) => Ok(output),
        None => Err(Some(call.into_begun())),
    }
}

/// Returns the output of a call that was not served directly, if it can be returned without waiting.
#[cold]
#[inline(never)]
pub(super) fn begin_apart<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    begun: Option<Begun>,
) -> Result<F::Output, Lookup<F::Output>> {
    match (begun, function.key()) {
        (Some(begun), Ok(key)) => look_up(engine, function, key, begun),
        _ => begin_again(engine, function),
    }
}

/// [`begin`] for a call that may not be an ordinary one.
#[cold]
#[inline(never)]
pub(super) fn begin_again<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
) -> Result<F::Output, Lookup<F::Output>> {
    let flags = engine.flags();
    let Some(key) = usable_key(engine, flags, function) else {
        return Err(Lookup::new(Rest::Bypass));
    };
    let Some(stamp) = engine.known_stamp(flags, key.prefix(), function.tags()) else {
        return Err(Lookup::new(Rest::ReadGenerations));
    };
    let call = Call::new(engine, function, key, stamp);
    match call.take_request() {
        Some(request) => Err(Lookup::new(requested(&call, request))),
        None => look_up(engine, function, key, call.into_begun()),
    }
}

/// Returns what is left of a call that an entry makes.
#[cold]
#[inline(never)]
pub(super) fn requested<B: Backend, F: FnProperties>(
    call: &Call<'_, B, F>,
    request: Request,
) -> Rest {
    match request {
        Request::Refresh => Rest::Compute(call.begun(), ComputeReason::Forced),
        Request::Bypass => {
            call.count_bypass();
            Rest::Bypass
        }
    }
}

/// Returns the output of a call if the backend returns its record without blocking.
#[inline]
fn look_up<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    key: &Key,
    begun: Begun,
) -> Result<F::Output, Lookup<F::Output>> {
    let (properties, mut frame) = (Properties::of(function), Frame::new(function));
    match read_now(&Call::resumed(engine, &properties, key, begun), &mut frame) {
        Ok(()) => Ok(frame.take_found()),
        Err(rest) => Err(Lookup { rest, found: frame.into_found() }),
    }
}

/// Ends a call if the backend returns its record without blocking, and that is fresh.
fn read_now<B: Backend>(
    call: &UntypedCall<'_, B>,
    typed: &mut dyn TypedCall<B>,
) -> Result<(), Rest> {
    let before = call.engine.flights().completions(call.key);
    let mut visited = Visited::Nothing;
    let read = call.visit_now(&mut visited, typed);
    if call.is_absent(read.as_ref(), &visited) {
        return Err(Rest::Compute(call.begun(), ComputeReason::Miss(Some(before))));
    }
    end_lookup(call, before, read, visited, typed)
}

/// Looks up a call whose stamp was just made.
pub(super) fn lookup_with_stamp<B: Backend>(
    call: &UntypedCall<'_, B>,
    typed: &mut dyn TypedCall<B>,
) -> Result<(), Rest> {
    call.declare();
    match call.take_request() {
        Some(request) => Err(requested(call, request)),
        None => read_now(call, typed),
    }
}

/// Ends a lookup that has read the backend.
pub(super) fn end_lookup<B: Backend>(
    call: &UntypedCall<'_, B>,
    before: Completions,
    read: Option<Result<()>>,
    visited: Visited<B::Stored>,
    typed: &mut dyn TypedCall<B>,
) -> Result<(), Rest> {
    match call.decode_visited(read, visited, typed) {
        Ok(decoded) => classify(call, decoded, before),
        Err(WouldBlock) => Err(Rest::ReadBackend(call.begun())),
    }
}

/// Returns what is left of a call whose record was decoded, unless it was fresh.
pub(super) fn classify<B: Backend, F: FnProperties>(
    call: &Call<'_, B, F>,
    decoded: Decoded,
    before: Completions,
) -> Result<(), Rest> {
    let reason = match decoded {
        Decoded::Fresh => return Ok(()),
        Decoded::Stale(stale) => ComputeReason::Expired(stale),
        Decoded::NotFresh | Decoded::Nothing => ComputeReason::Miss(Some(before)),
        Decoded::Refused => return Err(Rest::Bypass),
    };
    Err(Rest::Compute(call.begun(), reason))
}
