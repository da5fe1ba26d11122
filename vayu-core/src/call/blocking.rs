//! Sync calls: the async code of the driver, which blocks the thread and is polled once.

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::CachedFn;
use crate::call::driver::{Prepared, complete, into_lead, prepare, prepare_now, resume_lookup};
use crate::call::lookup::{Lookup, begin};
use crate::flight::enter;
use crate::io::{Blocking, run_blocking};

/// Returns the output of a call from the cache, or else runs its function and caches the value.
#[inline]
pub(crate) fn run<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    body: impl FnOnce() -> F::Output,
) -> F::Output {
    match begin(engine, function) {
        Ok(output) => output,
        Err(lookup) => finish(engine, function, lookup, body),
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
    let prepared = before(engine, function, lookup);
    let Some(flight) = prepared.flight() else {
        return if let Prepared::Output(output) = prepared { output } else { body() };
    };
    let output = enter(flight, body);
    after(prepared, output)
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
    match prepare_now(call, reason) {
        Ok(prepared) => prepared,
        Err(unprepared) => run_blocking(prepare::<Blocking, B, F>(unprepared)),
    }
}

/// Does all that follows the function.
#[inline(never)]
fn after<B: Backend, F: CachedFn<Stored = B::Stored>>(
    prepared: Prepared<'_, B, F>,
    output: F::Output,
) -> F::Output {
    match into_lead(prepared, &output) {
        Some(leading) => run_blocking(complete::<Blocking, B, F>(leading, output)),
        None => output,
    }
}
