//! Sync calls: the async code of the driver, which blocks the thread and is polled once.

use std::mem;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::decode::Visited;
use crate::call::driver::{
    Prepared, Unprepared, into_lead, prepare, prepare_miss_now, prepare_now, resume_lookup,
};
use crate::call::leading::{complete, complete_now};
use crate::call::lookup::{Begun, Lookup, begin, end_lookup, requested, serve_inline};
use crate::call::previous::in_run;
use crate::call::{CachedFn, Call, ComputeReason};
use crate::error::Result;
use crate::flight::{Completions, FlightId, mark};
use crate::io::{Blocking, run_blocking};
use crate::serializer::{Serializer, ValueClass};

/// Returns the output of a call from the cache, or else runs its function and caches the value.
#[inline]
pub(crate) fn run<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: F,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    if function.serializer().value_class() != ValueClass::Inline {
        return match begin(engine, &function) {
            Ok(output) => output,
            Err(lookup) => finish(engine, &function, lookup, body),
        };
    }
    match serve_inline(engine, &function) {
        Ok(output) => output,
        Err(begun) => {
            // A copy, which is made here: a hit writes no part of `function` to the stack.
            let function = function;
            finish_inline(engine, function, begun, body)
        }
    }
}

/// Finishes a call that did not find an inline value, as [`finish`] does.
#[cold]
#[inline(never)]
#[expect(clippy::needless_pass_by_value, reason = "see `run`")]
fn finish_inline<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: F,
    begun: Option<Begun>,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    run_prepared(resume_and_prepare(engine, &function, begun), body)
}

/// Runs the function of a call that is prepared for it.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn run_prepared<B: Backend, F: CachedFn<Stored = B::Stored>>(
    mut prepared: Prepared<'_, B, F>,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    let Some(flight) = prepared.begin_run() else {
        return if let Prepared::Output(output) = prepared { output } else { in_run(None, body) };
    };
    let _mark = mark(flight);
    let span = prepared.run_span();
    let entered = span.as_ref().map(|span| span.enter());
    let output = in_run(prepared.previous(), body);
    drop(entered);
    if let Some(span) = span {
        drop(span);
    }
    let output = after(flight, &mut prepared, output);
    if let Prepared::Bypass = prepared {
        // There is nothing to drop.
        mem::forget(prepared);
    }
    output
}

/// Resumes the lookup of an inline value, and does all else that precedes the function.
#[inline(never)]
fn resume_and_prepare<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    begun: Option<Begun>,
) -> Prepared<'a, B, F> {
    let (Some(begun), Ok(key)) = (begun, function.key()) else {
        return prepare_looked_up(engine, function, begin(engine, function));
    };
    let (request, call) = (begun.request, Call::resumed(engine, function, key, begun));
    if let Some(request) = request {
        return before(engine, function, requested(call, request));
    }
    let before = engine.flights().completions(key);
    let mut visited = Visited::Nothing;
    let read = call.visit_now(&mut visited);
    // Another backend may have leases.
    if call.engine.backend().is_in_process() && call.is_absent(read.as_ref(), &visited) {
        return prepare_miss_now(call, Some(before), |prepared| prepared, prepare_apart);
    }
    prepare_visited(call, before, read, visited)
}

/// Does all else that precedes the function of a call whose key may have a record.
#[cold]
#[inline(never)]
fn prepare_visited<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
    before: Completions,
    read: Option<Result<()>>,
    visited: Visited<F::Value, B::Stored>,
) -> Prepared<'_, B, F> {
    let (engine, function) = (call.engine, call.function);
    prepare_looked_up(engine, function, end_lookup(call, before, read, visited))
}

/// Does all else that precedes the function of a call whose lookup has ended.
#[cold]
#[inline(never)]
fn prepare_looked_up<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    result: Result<F::Output, Lookup<'a, B, F>>,
) -> Prepared<'a, B, F> {
    match result {
        Ok(output) => Prepared::Output(output),
        Err(lookup) => before(engine, function, lookup),
    }
}

/// Finishes a call that its lookup could not end. While the function runs, this is the only frame of
/// the engine on the stack.
#[cold]
#[inline(never)]
fn finish<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    run_prepared(before(engine, function, lookup), body)
}

/// Does all that precedes the function.
#[inline(never)]
fn before<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
) -> Prepared<'a, B, F> {
    let (call, reason) = match lookup {
        Lookup::Compute(call, reason) => (call, reason),
        lookup => match run_blocking(resume_lookup::<Blocking, B, F>(engine, function, lookup)) {
            Ok(missed) => missed,
            Err(prepared) => return prepared,
        },
    };
    prepare_missed(call, reason)
}

/// Does all that precedes the function of a call whose lookup has found no value.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn prepare_missed<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
    reason: ComputeReason<F::Output>,
) -> Prepared<'_, B, F> {
    prepare_now(call, reason).unwrap_or_else(prepare_apart)
}

/// Does all that precedes the function of a call that may have to wait.
#[cold]
#[inline(never)]
fn prepare_apart<B: Backend, F: CachedFn<Stored = B::Stored>>(
    unprepared: Unprepared<'_, B, F>,
) -> Prepared<'_, B, F> {
    run_blocking(prepare::<Blocking, B, F>(unprepared))
}

/// Does all that follows the function, which was part of `flight`. Of most calls, nothing is left to be dropped then.
#[inline(never)]
fn after<B: Backend, F: CachedFn<Stored = B::Stored>>(
    flight: FlightId,
    prepared: &mut Prepared<'_, B, F>,
    output: F::Output,
) -> F::Output {
    if let Prepared::Lead(leading) = prepared
        && leading.never_waits()
    {
        let output = complete_now(leading, output);
        if leading.has_ended() {
            // As if it was dropped, field by field.
            mem::forget(mem::replace(prepared, Prepared::Bypass));
        }
        return output;
    }
    after_apart(flight, mem::replace(prepared, Prepared::Bypass), output)
}

/// [`after`] for a call that may have to wait, or that does not lead.
#[inline(never)]
fn after_apart<B: Backend, F: CachedFn<Stored = B::Stored>>(
    flight: FlightId,
    prepared: Prepared<'_, B, F>,
    output: F::Output,
) -> F::Output {
    let Some(mut leading) = into_lead(prepared, &output) else { return output };
    // A hedge leads a flight of its own in the end.
    let _mark = if leading.flight() == flight { None } else { mark(leading.flight()) };
    if leading.never_waits() {
        complete_now(&mut leading, output)
    } else {
        run_blocking(complete::<Blocking, B, F>(leading, output))
    }
}
