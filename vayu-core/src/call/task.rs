//! Computations in tasks: a caller that is dropped does not end the computation that it has begun.
//!
//! A call that finds no value creates one future for the rest of it, which owns all that it needs. The caller
//! polls this future itself while the call waits for others. When the call has to run the function for all
//! callers of the key, the future says so and returns to its caller before the function runs ([`Start`]). The
//! caller then moves it, with the lead of the flight in it, to a task that it spawns, and waits for the output.
//!
//! If the task is dropped before its end, because nothing can be spawned or the runtime shuts down, the future goes
//! back to the caller, which continues to poll it.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use crate::backend::Backend;
use crate::background::BackgroundRun;
use crate::cache::Engine;
use crate::call::driver::Prepared;
use crate::call::future::{resume_and_prepare, run_prepared};
use crate::call::late_body::MakeBody;
use crate::call::lookup::Lookup;
use crate::call::previous::InRun;
use crate::call::typed::Frame;
use crate::call::{CachedFn, Properties};
use crate::flight::{FlightContext, HostedLeader};
use crate::key::Prefix;
use crate::panic::{catch_panic, drop_quietly};
use crate::sync::IgnorePoison;
use crate::watch::CallsOfTask;

/// The rest of a call, in a future that may move to a task.
pub struct SpawnableCall<T> {
    future: Pin<Box<T>>,
    is_leading: Arc<AtomicBool>,
    /// The prefix of the function; `None` for a call without the cache.
    prefix: Option<Prefix>,
}

impl<T> fmt::Debug for SpawnableCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnableCall").finish_non_exhaustive()
    }
}

/// Creates the rest of a call.
pub(crate) fn spawnable<B, F, T>(
    engine: Engine<B>,
    function: F,
    lookup: Lookup<F::Output>,
    body: Pin<Box<T>>,
) -> SpawnableCall<impl Future<Output = F::Output> + use<B, F, T>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    let prefix = function.key().ok().map(|key| key.prefix().clone());
    spawnable_from(prefix, |start| finish(engine, function, lookup, body, start))
}

/// Creates the rest of a call from its future, which awaits `start` before it runs the function for other callers, too.
pub(crate) fn spawnable_from<T: Future>(
    prefix: Option<Prefix>,
    future: impl FnOnce(Start) -> T,
) -> SpawnableCall<T> {
    let is_leading = Arc::new(AtomicBool::new(false));
    let start = Start { is_leading: Arc::clone(&is_leading), hosted: None };
    SpawnableCall { future: Box::pin(future(start)), is_leading, prefix }
}

/// Finishes a call as [`future::finish`](super::future::finish) does, but awaits `start` before it runs the function
/// for all callers of the key.
async fn finish<B, F, T>(
    engine: Engine<B>,
    function: F,
    lookup: Lookup<F::Output>,
    mut body: Pin<Box<T>>,
    start: Start,
) -> F::Output
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    let Ok(key) = function.key() else { return InRun::bypassed(body.as_mut()).await };
    let properties = Properties::of(&function);
    let mut frame = Frame::with_found(&function, lookup.found);
    let rest = lookup.rest;
    let mut prepared = resume_and_prepare(&engine, &properties, key, rest, &mut frame).await;
    if let Prepared::Lead(_) | Prepared::Hedge(_) = prepared {
        start.await;
    }
    run_prepared(&mut prepared, &mut frame, body.as_mut()).await
}

/// The moment before the function runs for all callers of the key. It returns to the caller once, with a flag set. The lead is
/// counted for this thread until the next poll: the task may be queued on it.
pub(crate) struct Start {
    is_leading: Arc<AtomicBool>,
    hosted: Option<HostedLeader>,
}

impl Future for Start {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        // The caller polls again at once, or the task does.
        let is_started = self.is_leading.swap(true, Ordering::Relaxed);
        self.hosted = if is_started { None } else { HostedLeader::here() };
        if is_started { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<T: Future> SpawnableCall<T> {
    /// Awaits the call, whose computation `spawn` runs as a task if it is for all callers of the key.
    pub async fn vayu_run<B: Backend, R>(
        self,
        engine: &Engine<B>,
        mut body: impl MakeBody,
        spawn: impl FnOnce(Task<T>) -> R,
    ) -> T::Output {
        let Self { mut future, is_leading, prefix } = self;
        let output = poll_fn(|context| {
            loop {
                return match future.as_mut().poll(context) {
                    Poll::Ready(output) => Poll::Ready(Some(output)),
                    Poll::Pending if is_leading.load(Ordering::Relaxed) => Poll::Ready(None),
                    Poll::Pending if body.make(false) => continue,
                    Poll::Pending => Poll::Pending,
                };
            }
        });
        if let Some(output) = output.await {
            return output;
        }
        body.make(true);
        let run = BackgroundRun::begin();
        spawn_task(engine, prefix.as_ref(), future, CallsOfTask::new(), run, spawn).await
    }
}

/// Spawns a future as a task, and returns the wait for it. A panic of `spawn` is counted.
pub(super) fn spawn_task<B: Backend, T: Future, R>(
    engine: &Engine<B>,
    prefix: Option<&Prefix>,
    future: Pin<Box<T>>,
    calls: CallsOfTask,
    run: BackgroundRun,
    spawn: impl FnOnce(Task<T>) -> R,
) -> Caller<T> {
    let channel = Arc::new(Channel(Mutex::new(ChannelState::new())));
    let caller = Caller { channel: Arc::clone(&channel), future: None };
    let (flights, run) = (FlightContext::current(), Some(run));
    let task = Task { future: Some(future), channel, flights, calls, run };
    let spawned = catch_panic("spawn computation", || {
        drop(spawn(task));
        Ok(())
    });
    if let (Err(error), Some(prefix)) = (spawned, prefix) {
        engine.fault(prefix, &error, false);
    }
    caller
}

/// The task of a computation.
pub struct Task<T: Future> {
    /// `None` once it has ended.
    future: Option<Pin<Box<T>>>,
    channel: Arc<Channel<T>>,
    /// The computations that the caller is part of: it waits for the task, so the task must not wait for them.
    flights: FlightContext,
    calls: CallsOfTask,
    /// `None` once it has ended.
    run: Option<BackgroundRun>,
}

impl<T: Future> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

/// A message of a task to its caller.
enum Message<T: Future> {
    Output(T::Output),
    /// The payload of a panic.
    Panic(Box<dyn Any + Send>),
    /// The task was dropped: the caller continues.
    Dropped(Pin<Box<T>>),
}

/// The connection of a task and its caller.
struct Channel<T: Future>(Mutex<ChannelState<T>>);

struct ChannelState<T: Future> {
    message: Option<(Message<T>, CallsOfTask)>,
    waker: Option<Waker>,
    has_caller: bool,
}

impl<T: Future> ChannelState<T> {
    fn new() -> Self {
        Self { message: None, waker: None, has_caller: true }
    }
}

impl<T: Future> Channel<T> {
    /// Sends a message, with the calls of the task. It is dropped if the caller is gone.
    fn send(&self, message: Message<T>, calls: CallsOfTask) {
        let message = (message, calls);
        let mut state = self.0.lock().ignore_poison();
        let unsent = if state.has_caller { state.message.replace(message) } else { Some(message) };
        let waker = state.waker.take();
        drop(state);
        drop_quietly(unsent);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Future> Future for Task<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        let poll = || {
            let poll = || this.flights.in_scope(|| future.as_mut().poll(context));
            this.calls.collect(poll)
        };
        let message = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Message::Output(output),
            Err(payload) => Message::Panic(payload),
        };
        drop_quietly(this.future.take());
        this.channel.send(message, mem::take(&mut this.calls));
        this.run = None;
        Poll::Ready(())
    }
}

impl<T: Future> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            self.channel.send(Message::Dropped(future), mem::take(&mut self.calls));
        }
    }
}

/// The wait of a caller for its task.
pub(super) struct Caller<T: Future> {
    channel: Arc<Channel<T>>,
    /// The future of a task that was dropped.
    future: Option<Pin<Box<T>>>,
}

impl<T: Future> Caller<T> {
    /// Polls the end of the task. Returns whether it has an output, which this future then returns.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.channel.0.lock().ignore_poison();
        if let Some((message, _)) = &state.message {
            return Poll::Ready(matches!(message, Message::Output(_)));
        }
        let before = state.waker.replace(context.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Polls the message of the task.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<(Message<T>, CallsOfTask)> {
        if self.poll_ended(context).is_pending() {
            return Poll::Pending;
        }
        self.channel.0.lock().ignore_poison().message.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T: Future> Future for Caller<T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T::Output> {
        let this = self.get_mut();
        if this.future.is_none() {
            let Poll::Ready((message, calls)) = this.poll_message(context) else {
                return Poll::Pending;
            };
            calls.record();
            match message {
                Message::Output(output) => return Poll::Ready(output),
                Message::Panic(payload) => resume_unwind(payload),
                Message::Dropped(future) => this.future = Some(future),
            }
        }
        match &mut this.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<T: Future> Drop for Caller<T> {
    fn drop(&mut self) {
        let mut state = self.channel.0.lock().ignore_poison();
        state.has_caller = false;
        let unread = state.message.take();
        drop(state);
        drop_quietly(unread);
    }
}
