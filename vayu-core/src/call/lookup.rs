//! The lookup of a call, which never waits, for sync and async callers. Most calls end here.

use std::fmt;

use crate::backend::Backend;
use crate::cache::{CallStamp, Engine};
use crate::call::decode::{Decoded, Visited, WouldBlock};
use crate::call::request::Request;
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, usable_key};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::flight::Completions;
use crate::key::Key;
use crate::serializer::ValueClass;

/// The state of a call that has begun, beside its function and its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) stamp: u64,
    pub(super) at: Timestamp,
    pub(super) has_timed_out: bool,
    pub(super) request: Option<Request>,
}

impl Begun {
    /// Creates the state of a call that no entry makes.
    pub(super) fn new(stamp: u64, at: Timestamp, has_timed_out: bool) -> Self {
        Self { stamp, at, has_timed_out, request: None }
    }
}

/// The rest of a call that a lookup could not end.
pub enum Lookup<'a, B: Backend, F: FnOutput> {
    /// Run the function without the cache.
    Bypass,
    /// Read the generations of the groups.
    ReadGenerations(&'a Key),
    /// Read the backend.
    ReadBackend(Call<'a, B, F>),
    /// Run the function for all callers of the key, or wait for a caller that does.
    Compute(Call<'a, B, F>, ComputeReason<F::Output>),
}

impl<B: Backend, F: FnOutput> fmt::Debug for Lookup<'_, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bypass => "Bypass",
            Self::ReadGenerations(_) => "ReadGenerations(..)",
            Self::ReadBackend(_) => "ReadBackend(..)",
            Self::Compute(..) => "Compute(..)",
        })
    }
}

/// Returns the output of a call if it can be returned without waiting.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn begin<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
) -> Result<F::Output, Lookup<'a, B, F>> {
    begin_at(engine, function, || engine.now_inline())
}

/// [`begin`] for a call that begins at the time that `now` returns.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn begin_at<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    now: impl FnOnce() -> Timestamp,
) -> Result<F::Output, Lookup<'a, B, F>> {
    let flags = engine.flags();
    let Some(key) = usable_key(engine, flags, function) else { return Err(Lookup::Bypass) };
    match engine.known_stamp(flags, key.prefix(), function.tags()) {
        Some(stamp) => lookup(Call::begun_at(engine, function, key, stamp, now())),
        None => Err(Lookup::ReadGenerations(key)),
    }
}

/// Returns the output of a call with a stamp if it can be returned without waiting.
#[cfg_attr(not(debug_assertions), inline(always))]
fn lookup<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
) -> Result<F::Output, Lookup<'_, B, F>> {
    if let Some(request) = call.take_request() {
        return Err(requested(call, request));
    }
    if call.value_class() != ValueClass::Inline {
        return lookup_full(call);
    }
    match call.serve_optimistic() {
        Some(output) => Ok(output),
        None => lookup_full_cold(call.engine, call.function, call.key, call.into_begun()),
    }
}

/// Returns the rest of a call that an entry makes.
#[cold]
#[inline(never)]
pub(super) fn requested<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
    request: Request,
) -> Lookup<'_, B, F> {
    match request {
        Request::Refresh => Lookup::Compute(call, ComputeReason::Forced),
        Request::Bypass => {
            call.count_bypass();
            Lookup::Bypass
        }
    }
}

/// Looks up a call whose stamp was just made.
pub(super) fn lookup_with_stamp<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    key: &'a Key,
    stamp: CallStamp,
) -> Result<F::Output, Lookup<'a, B, F>> {
    let call = Call::new(engine, function, key, stamp.stamp);
    if stamp.has_timed_out {
        call.set_timed_out();
    }
    call.declare();
    lookup(call)
}

/// Returns the output of a call if the backend returns its record without blocking.
#[cfg_attr(not(debug_assertions), inline(always))]
fn lookup_full<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
) -> Result<F::Output, Lookup<'_, B, F>> {
    let before = call.engine.flights().completions(call.key);
    match call.decode_now() {
        Ok(decoded) => classify(call, decoded, before),
        Err(WouldBlock) => Err(Lookup::ReadBackend(call)),
    }
}

/// Calls [`lookup_full`], out of line for calls that most often end with an optimistic read. The call is
/// passed in parts: all of it would be stored on the stack by every hit.
#[inline(never)]
fn lookup_full_cold<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    key: &'a Key,
    begun: Begun,
) -> Result<F::Output, Lookup<'a, B, F>> {
    lookup_full(Call::resumed(engine, function, key, begun))
}

/// Returns the output of a call if it is an inline value that is read without a lock. Otherwise, the
/// rest of the lookup is for the caller.
///
/// The error is `None` if the call is not an ordinary one.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn serve_inline<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
) -> Result<F::Output, Option<Begun>> {
    let flags = engine.flags();
    let is_bypassed = flags.is_paused() || function.options().is_bypassed();
    let Some(key) = function.key().ok().filter(|_| !is_bypassed) else { return Err(None) };
    let stamp = engine.known_stamp(flags, key.prefix(), function.tags()).ok_or(None)?;
    let call = Call::new(engine, function, key, stamp);
    let request = call.take_request();
    let served = if request.is_some() { None } else { call.serve_optimistic() };
    served.ok_or_else(|| Some(Begun { request, ..call.into_begun() }))
}

/// Ends a lookup that has read the backend.
pub(super) fn end_lookup<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
    before: Completions,
    read: Option<Result<()>>,
    visited: Visited<F::Value, B::Stored>,
) -> Result<F::Output, Lookup<'_, B, F>> {
    match call.decode_visited(read, visited) {
        Ok(decoded) => classify(call, decoded, before),
        Err(WouldBlock) => Err(Lookup::ReadBackend(call)),
    }
}

/// Returns a fresh output, or else the rest of the call.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn classify<B: Backend, F: FnOutput>(
    call: Call<'_, B, F>,
    decoded: Decoded<F::Output>,
    before: Completions,
) -> Result<F::Output, Lookup<'_, B, F>> {
    match decoded {
        Decoded::Fresh(output) => Ok(output),
        Decoded::Stale(stale) => Err(Lookup::Compute(call, ComputeReason::Expired(stale))),
        Decoded::Nothing => Err(Lookup::Compute(call, ComputeReason::Miss(Some(before)))),
        Decoded::Refused => Err(Lookup::Bypass),
    }
}
