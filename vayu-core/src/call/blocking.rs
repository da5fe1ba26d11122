//! Sync calls: the async code of the driver, which blocks the thread and is polled once.

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::driver::{Prepared, into_lead, prepare, prepare_now, resume_lookup};
use crate::call::leading::{complete, complete_now};
use crate::call::lookup::{Begun, Lookup, begin, resume, serve_inline};
use crate::call::previous::in_run;
use crate::call::{CachedFn, Call, ComputeReason};
use crate::flight::{FlightId, mark};
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
    prepared: Prepared<'_, B, F>,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    let Some(flight) = prepared.flight() else {
        return if let Prepared::Output(output) = prepared { output } else { in_run(None, body) };
    };
    let _mark = mark(flight);
    let span = prepared.run_span();
    let entered = span.as_ref().map(|span| span.enter());
    let output = in_run(prepared.previous(), body);
    drop(entered);
    drop(span);
    after(flight, prepared, output)
}

/// Resumes the lookup of an inline value, and does all else that precedes the function.
#[inline(never)]
fn resume_and_prepare<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    begun: Option<Begun>,
) -> Prepared<'a, B, F> {
    match resume(engine, function, begun) {
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
    match prepare_now(call, reason) {
        Ok(prepared) => prepared,
        Err(unprepared) => run_blocking(prepare::<Blocking, B, F>(unprepared)),
    }
}

/// Does all that follows the function, which was part of `flight`.
#[inline(never)]
fn after<B: Backend, F: CachedFn<Stored = B::Stored>>(
    flight: FlightId,
    mut prepared: Prepared<'_, B, F>,
    output: F::Output,
) -> F::Output {
    if let Prepared::Lead(leading) = &mut prepared
        && leading.never_waits()
    {
        return complete_now(leading, output);
    }
    let Some(mut leading) = into_lead(prepared, &output) else { return output };
    // A hedge leads a flight of its own in the end.
    let _mark = if leading.flight() == flight { None } else { mark(leading.flight()) };
    if leading.never_waits() {
        complete_now(&mut leading, output)
    } else {
        run_blocking(complete::<Blocking, B, F>(leading, output))
    }
}
