//! The refresh of elements in the background.
//!
//! As for one element, the refresh leads the flights once it runs, and is left to the next calls if it is dropped before. The
//! elements of one call are refreshed by one task.

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::backend::Backend;
use crate::background::BackgroundRun;
use crate::cache::Engine;
use crate::call::background_refresh::{is_refreshed, lead};
use crate::call::batch::BatchBody;
use crate::call::batch::lookup::Batch;
use crate::call::batch::resume::{Missed, Resumed, resume, split_missing};
use crate::call::batch::runner::{Part, Runner};
use crate::call::batch::steps::{BatchSteps, Element, TypedBatch};
use crate::call::lookup::{Lookup, Rest};
use crate::call::steps::{Driver, Steps};
use crate::call::typed::Frame;
use crate::call::{CachedFn, Call, ComputeReason, usable_key};
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::Prefix;
use crate::panic::drop_quietly;
use crate::watch::{CallsOfTask, Unwatched};

/// The refresh of elements of type `T`, which a call hands over.
pub struct BatchRefresh<T, F> {
    elements: Vec<T>,
    begun: Begun<F>,
}

/// A refresh that has begun, without its elements.
pub(crate) struct Begun<F> {
    prefix: Prefix,
    /// The call of each element, and its stamp.
    functions: Vec<(F, u64)>,
    run: BackgroundRun,
}

impl<T, F> fmt::Debug for BatchRefresh<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRefresh").finish_non_exhaustive()
    }
}

impl<T, F> BatchRefresh<T, F> {
    /// Returns the prefix of the function.
    pub fn function(&self) -> Prefix {
        self.begun.prefix.clone()
    }

    /// Returns the elements, and the rest.
    pub(crate) fn into_parts(self) -> (Vec<T>, Begun<F>) {
        (self.elements, self.begun)
    }
}

/// Reads what the lookup of a batch could not. Elements past their ttl get the old value, and the refresh of them is returned, as
/// far as it begins.
pub(crate) async fn serve_stale<M: Io, B: Backend, T: Clone, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    batch: &mut Batch<'_, T, F>,
) -> Option<BatchRefresh<T, F>> {
    let (functions, lookups) = (mem::take(&mut batch.functions), mem::take(&mut batch.lookups));
    let (elements, rests, frames) = split_missing(&functions, lookups);
    let (mut typed, steps) = (TypedBatch::new(engine, &elements, frames), BatchSteps::new());
    let mut driver: Driver<'_, _> =
        Box::pin(resume_and_begin::<M, B>(engine, &elements, rests, &steps));
    let ended = typed.drive::<M, _>(&steps, &mut driver).await;
    drop(driver);
    let Ok((served, run)) = ended else { unreachable!("no step is one of the whole batch") };
    let indices: Vec<usize> = elements.iter().map(|element| element.index).collect();
    let found: Vec<_> = typed.into_frames().into_iter().map(Frame::into_found).collect();
    let (mut refreshed, mut elements) = (Vec::new(), Vec::new());
    let found = indices.into_iter().zip(functions).zip(found);
    for (((index, function), found), served) in found.zip(served) {
        match served {
            Served::Found => batch.outputs[index] = found,
            Served::Refreshed(stamp) => {
                batch.outputs[index] = found;
                elements.push(batch.elements[index].clone());
                refreshed.push((function, stamp));
            }
            Served::Rest(rest) => {
                batch.functions.push(function);
                batch.lookups.push((index, Lookup { rest, found }));
            }
        }
    }
    let (prefix, run) = run?;
    Some(BatchRefresh { elements, begun: Begun { prefix, functions: refreshed, run } })
}

/// The end of the lookup of an element.
enum Served {
    /// Fresh, or past its ttl.
    Found,
    /// Past its ttl, with a refresh of this stamp.
    Refreshed(u64),
    Rest(Rest),
}

/// Resumes the lookup of the elements, and begins the refresh of those past their ttl. Returns the end of each, and the run of the
/// refresh.
async fn resume_and_begin<'a, M: Io, B: Backend>(
    engine: &'a Engine<B>,
    elements: &'a [Element<'a>],
    rests: Vec<Rest>,
    steps: &BatchSteps<B::Stored>,
) -> (Vec<Served>, Option<(Prefix, BackgroundRun)>) {
    let mut served: Vec<Served> = elements.iter().map(|_| Served::Found).collect();
    let mut begun = Vec::new();
    for resumed in resume::<M, B>(engine, elements, rests, steps).await {
        match resumed {
            Resumed::Bypass(place) => served[place] = Served::Rest(Rest::Bypass),
            Resumed::Compute(Missed { place, call, reason: ComputeReason::Expired(stale) }) => {
                call.serve_stale(&stale);
                if !is_refreshed(&call)
                    && steps.of(place).read_error(&call, None).await.is_none()
                    && call.begin_refresh()
                {
                    served[place] = Served::Refreshed(call.stamp);
                    begun.push((place, call));
                }
            }
            Resumed::Compute(Missed { place, call, reason }) => {
                served[place] = Served::Rest(Rest::Compute(call.into_begun(), reason));
            }
        }
    }
    let Some((_, first)) = begun.first() else { return (served, None) };
    let run = first.begin_background_run().map(|run| (first.key.prefix().clone(), run));
    if run.is_none() {
        for (place, call) in &begun {
            call.end_refresh();
            served[*place] = Served::Found;
        }
    }
    (served, run)
}

/// Returns a task that runs a refresh, for the elements that no other caller computes.
pub(crate) fn task<B, F, D>(
    engine: Engine<B>,
    refresh: Begun<F>,
    at_most: usize,
    body: D,
) -> impl Future<Output = ()> + use<B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    let Begun { functions, run, .. } = refresh;
    let unstarted = Unstarted(Some((engine, functions)));
    Unwatched::new(async move {
        // It ends last.
        let run = run;
        let mut body = body;
        let Some((engine, functions)) = unstarted.start() else { return };
        run.start(engine.now());
        refresh_now::<Awaiting, B, F, D>(&engine, &functions, at_most, &mut body).await;
    })
}

/// [`task`] for a sync function: a closure. A panic of the function ends there.
pub(crate) fn job<B, F, D>(
    engine: Engine<B>,
    refresh: Begun<F>,
    at_most: usize,
    body: D,
) -> impl FnOnce() + use<B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    let Begun { functions, run, .. } = refresh;
    let unstarted = Unstarted(Some((engine, functions)));
    move || {
        // It ends last.
        let run = run;
        let mut body = body;
        let Some((engine, functions)) = unstarted.start() else { return };
        run.start(engine.now());
        let refresh = || {
            run_blocking(refresh_now::<Blocking, B, F, D>(&engine, &functions, at_most, &mut body));
        };
        let refresh = || CallsOfTask::default().collect(refresh);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(refresh)) {
            drop_quietly(payload);
        }
        drop_quietly((functions, body));
    }
}

/// Runs the function for the elements that no other caller computes.
async fn refresh_now<M: Io, B, F, D>(
    engine: &Engine<B>,
    functions: &[(F, u64)],
    at_most: usize,
    body: &mut D,
) where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    let flags = engine.flags();
    let elements = functions.iter().enumerate().map(|(index, (function, _))| {
        Element::new(index, function, usable_key(engine, flags, function))
    });
    let elements: Vec<Element<'_>> = elements.collect();
    let parts = elements.iter().zip(functions).enumerate().filter_map(|(place, (element, it))| {
        let call = Call::new(engine, &element.properties, element.key?, it.1);
        let lead = lead(&call)?;
        Some(Part::lead(place, call, lead, true, ComputeReason::Background))
    });
    let parts = parts.collect();
    let frames = functions.iter().map(|(function, _)| Frame::new(function)).collect();
    let (mut typed, steps) = (TypedBatch::new(engine, &elements, frames), BatchSteps::new());
    let driver = Box::pin(Runner::new(engine, &steps, at_most).refresh::<M>(parts));
    let ((), unusable) = typed.drive_with::<M, D, _>(body, &steps, driver).await;
    drop_quietly((unusable, typed.into_frames()));
}

/// A refresh that has not started. Dropped, it is left to the next calls, unless the spawner has panicked: then to those after
/// the pause of a refresh that has failed.
struct Unstarted<B: Backend, F: CachedFn<Stored = B::Stored>>(Option<Calls<B, F>>);

/// The calls of a refresh, each with its stamp, and their cache.
type Calls<B, F> = (Engine<B>, Vec<(F, u64)>);

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Unstarted<B, F> {
    fn start(mut self) -> Option<Calls<B, F>> {
        self.0.take()
    }
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Drop for Unstarted<B, F> {
    fn drop(&mut self) {
        let Some((engine, functions)) = &self.0 else { return };
        if thread::panicking() {
            return;
        }
        for (function, _) in functions {
            if let Ok(key) = function.key() {
                engine.refresh_backoff().remove(key);
            }
        }
    }
}
