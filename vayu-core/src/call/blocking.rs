//! Sync calls: the async code of the driver, which blocks the thread and is polled once.

use std::mem;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::decode::Visited;
use crate::call::driver::{
    Missed, Prepared, Unprepared, into_lead, prepare, prepare_miss_now, prepare_now, resume_lookup,
};
use crate::call::leading::{complete, complete_alike, complete_now};
use crate::call::lookup::{
    Begun, Lookup, Rest, Start, begin_again, classify, end_lookup, serve_directly,
};
use crate::call::previous::in_run;
use crate::call::read::read;
use crate::call::steps::Direct;
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{CachedFn, Call, Properties};
use crate::error::Result;
use crate::flight::{Completions, FlightId, mark};
use crate::io::{Blocking, run_blocking};
use crate::key::Key;

/// Returns the output of a call from the cache, or else runs its function and caches the value.
#[inline]
pub(crate) fn run<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: F,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    run_started(engine, Start::new(engine), function, body)
}

/// [`run`] of a call that was started before its description was made.
#[inline]
pub(crate) fn run_started<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    mut start: Start,
    mut function: F,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    match serve_directly(engine, &function, &mut start) {
        Ok(output) => {
            function.clear();
            output
        }
        // Moved here: a hit writes no part of `function` to the stack.
        Err(begun) => finish(engine, function.moved(), begun, body),
    }
}

/// Finishes a call that was not served directly. Cold, so that the compiler takes what precedes it for the usual case, which it
/// is for all calls that are fast.
#[cold]
#[inline(never)]
#[expect(clippy::needless_pass_by_value, reason = "see `run`")]
fn finish<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: F,
    begun: Option<Begun>,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    let (properties, mut frame) = (Properties::of(&function), Frame::new(&function));
    let prepared = match (begun, function.key()) {
        (Some(begun), Ok(key)) => resume_and_prepare(engine, &properties, key, begun, &mut frame),
        (_, key) => prepare_again(engine, &properties, key.ok(), &mut frame),
    };
    run_prepared(prepared, &mut frame, body)
}

/// Does all that precedes the function of a call that is not an ordinary one.
#[cold]
#[inline(never)]
fn prepare_again<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    properties: &'a Properties<'a>,
    key: Option<&'a Key>,
    frame: &mut Frame<'a, F>,
) -> Prepared<'a, B> {
    match begin_again(engine, frame.function()) {
        Ok(output) => {
            frame.set_found(output);
            Prepared::Found
        }
        Err(Lookup { rest, found }) => {
            *frame = Frame::with_found(frame.function(), found);
            before(engine, properties, key, rest, frame)
        }
    }
}

/// Runs the function of a call that is prepared for it.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn run_prepared<B: Backend, F: CachedFn<Stored = B::Stored>>(
    mut prepared: Prepared<'_, B>,
    frame: &mut Frame<'_, F>,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    let Some(flight) = prepared.begin_run() else {
        return if let Prepared::Found = prepared {
            frame.take_found()
        } else {
            in_run(None, body)
        };
    };
    let _mark = mark(flight);
    let span = prepared.run_span();
    let entered = span.as_ref().map(|span| span.enter());
    frame.set_returned(in_run(prepared.previous(), body));
    drop(entered);
    if let Some(span) = span {
        drop(span);
    }
    let is_stale = after_typed(flight, &mut prepared, frame);
    if let Prepared::Bypass = prepared {
        // There is nothing to drop.
        mem::forget(prepared);
    }
    frame.take_output(is_stale)
}

/// Does all that follows the function, which was part of `flight`. Returns
/// whether the call returns the value past its ttl instead of the new output. Of most calls, nothing is left to be dropped then.
/// It is a separate frame, which is not on the stack while the function runs.
#[inline(never)]
fn after_typed<B: Backend, F: CachedFn<Stored = B::Stored>>(
    flight: FlightId,
    prepared: &mut Prepared<'_, B>,
    frame: &mut Frame<'_, F>,
) -> bool {
    let completed = match prepared {
        Prepared::Lead(leading) => complete_alike(leading, frame),
        _ => None,
    };
    let is_stale = match completed {
        Some(is_stale) => is_stale,
        None => after(flight, prepared, frame),
    };
    if prepared.has_ended() {
        mem::forget(mem::replace(prepared, Prepared::Bypass));
    }
    is_stale
}

/// Resumes the lookup of a call, and does all else that precedes the function.
#[inline(never)]
fn resume_and_prepare<'a, B: Backend>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: &'a Key,
    begun: Begun,
    typed: &mut dyn TypedCall<B>,
) -> Prepared<'a, B> {
    let call = Call::resumed(engine, function, key, begun);
    let before = engine.flights().completions(key);
    let mut visited = Visited::Nothing;
    let read = call.visit_now(&mut visited, typed);
    // Another backend may have leases.
    if engine.backend().is_in_process() && call.is_absent(read.as_ref(), &visited) {
        return prepare_miss_now(call, Some(before), typed, |prepared| prepared, prepare_apart);
    }
    prepare_visited(&call, before, read, visited, typed)
}

/// Does all else that precedes the function of a call whose key may have a record.
#[cold]
#[inline(never)]
fn prepare_visited<'a, B: Backend>(
    call: &Call<'a, B, Properties<'a>>,
    completions: Completions,
    read: Option<Result<()>>,
    visited: Visited<B::Stored>,
    typed: &mut dyn TypedCall<B>,
) -> Prepared<'a, B> {
    let (engine, function, key) = (call.engine, call.function, call.key);
    match end_lookup(call, completions, read, visited, typed) {
        Ok(()) => Prepared::Found,
        Err(rest) => before(engine, function, Some(key), rest, typed),
    }
}

/// Does all that precedes the function of a call that its lookup could not end. One without a key bypasses the cache.
#[inline(never)]
fn before<'a, B: Backend>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: Option<&'a Key>,
    rest: Rest,
    typed: &mut dyn TypedCall<B>,
) -> Prepared<'a, B> {
    match resume(engine, function, key, rest, typed) {
        Ok(missed) => prepare_missed(missed, typed),
        Err(prepared) => prepared,
    }
}

/// Reads the generations and the backend, as far as the lookup could not. Returns the reason to run
/// the function, or else the rest of the call.
#[allow(clippy::result_large_err, reason = "the rest of the call is not moved further")]
pub(super) fn resume<'a, B: Backend>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: Option<&'a Key>,
    rest: Rest,
    typed: &mut dyn TypedCall<B>,
) -> Result<Missed<'a, B>, Prepared<'a, B>> {
    let Some(key) = key else { return Err(Prepared::Bypass) };
    let rest = match rest {
        // Most of them, in a short way: without a driver.
        Rest::ReadBackend(begun) => {
            let call = Call::resumed(engine, function, key, begun);
            match read_and_decode(&call, typed) {
                Ok(()) => return Err(Prepared::Found),
                Err(rest) => rest,
            }
        }
        rest => rest,
    };
    if let Rest::Compute(begun, reason) = rest {
        return Ok((Call::resumed(engine, function, key, begun), reason));
    }
    run_blocking(resume_lookup::<Blocking, B>(engine, function, key, rest, &Direct::new(typed)))
}

/// Reads the backend, and ends a call whose record is fresh.
fn read_and_decode<B: Backend>(
    call: &UntypedCall<'_, B>,
    typed: &mut dyn TypedCall<B>,
) -> Result<(), Rest> {
    let before = call.engine.flights().completions(call.key);
    let record = run_blocking(read::<Blocking, B>(call));
    classify(call, call.decode_read(record, typed), before)
}

/// Does all that precedes the function of a call whose lookup has found no value.
pub(super) fn prepare_missed<'a, B: Backend>(
    missed: Missed<'a, B>,
    typed: &mut dyn TypedCall<B>,
) -> Prepared<'a, B> {
    let mut left = None;
    let prepared = prepare_now(missed, typed, &mut left);
    match left {
        None => prepared,
        Some(unprepared) => prepare_apart(*unprepared, typed),
    }
}

/// Does all that precedes the function of a call that may have to wait.
#[cold]
#[inline(never)]
fn prepare_apart<'a, B: Backend>(
    unprepared: Unprepared<'a, B>,
    typed: &mut dyn TypedCall<B>,
) -> Prepared<'a, B> {
    run_blocking(prepare::<Blocking, B>(unprepared, &Direct::new(typed)))
}

/// [`after_typed`] for a call whose output does not encode alike.
#[inline(never)]
fn after<B: Backend>(
    flight: FlightId,
    prepared: &mut Prepared<'_, B>,
    typed: &mut dyn TypedCall<B>,
) -> bool {
    match prepared {
        Prepared::Lead(leading) if leading.never_waits() => complete_now(leading, typed),
        prepared => after_apart(flight, mem::replace(prepared, Prepared::Bypass), typed),
    }
}

/// [`after`] for a call that may have to wait, or that does not lead.
#[inline(never)]
fn after_apart<B: Backend>(
    flight: FlightId,
    prepared: Prepared<'_, B>,
    typed: &mut dyn TypedCall<B>,
) -> bool {
    let Some(mut leading) = into_lead(prepared, typed) else { return false };
    // A hedge leads a flight of its own in the end.
    let _mark = if leading.flight() == flight { None } else { mark(leading.flight()) };
    if leading.never_waits() {
        return complete_now(&mut leading, typed);
    }
    let encoded = leading.encode(typed);
    let completed = run_blocking(complete::<Blocking, B>(encoded, &Direct::new(&mut *typed)));
    completed.conclude(typed)
}
