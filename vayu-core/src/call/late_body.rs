//! Bodies that are made late: a body that borrows arguments needs copies of them in a task, which are made when it runs.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::sync::IgnorePoison;

/// The source of the body of a call whose rest is a future that may move to a task.
pub trait MakeBody {
    /// Makes the body, if the future has polled it, or the rest of the call moves to a task. Returns whether it was made.
    fn make(&mut self, is_task: bool) -> bool;
}

/// A body that is in the future from the start.
#[derive(Debug)]
pub struct Made;

impl MakeBody for Made {
    #[inline]
    fn make(&mut self, _: bool) -> bool {
        false
    }
}

/// The maker of a body, and the body. The future of the call has the same slot.
pub struct BodyMaker<D, M> {
    slot: Slot<D>,
    make: Option<M>,
}

/// A body that is pending until it is made: a future, or the closure of a sync function.
pub struct LateBody<D> {
    slot: Slot<D>,
    body: Option<D>,
}

struct Slot<D>(Arc<Mutex<SlotState<D>>>);

struct SlotState<D> {
    body: Option<D>,
    is_wanted: bool,
}

impl<D, M> fmt::Debug for BodyMaker<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyMaker").finish_non_exhaustive()
    }
}

impl<D> fmt::Debug for LateBody<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LateBody").finish_non_exhaustive()
    }
}

/// Returns a body that is made late, and its maker.
pub(crate) fn late_body<D, M: FnOnce() -> D>(make: M) -> (BodyMaker<D, M>, LateBody<D>) {
    let state = Arc::new(Mutex::new(SlotState { body: None, is_wanted: false }));
    let body = LateBody { slot: Slot(Arc::clone(&state)), body: None };
    (BodyMaker { slot: Slot(state), make: Some(make) }, body)
}

impl<D, M: FnOnce() -> D> MakeBody for BodyMaker<D, M> {
    fn make(&mut self, is_task: bool) -> bool {
        if !is_task && !self.slot.0.lock().ignore_poison().is_wanted {
            return false;
        }
        let Some(make) = self.make.take() else { return false };
        let body = make();
        self.slot.0.lock().ignore_poison().body = Some(body);
        true
    }
}

impl<D> LateBody<D> {
    /// Returns the body, once it is made.
    pub(super) async fn made(self) -> D {
        poll_fn(|_| {
            let mut state = self.slot.0.lock().ignore_poison();
            state.is_wanted = true;
            state.body.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl<D: Future + Unpin> Future for LateBody<D> {
    type Output = D::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<D::Output> {
        let this = self.get_mut();
        if this.body.is_none() {
            let mut state = this.slot.0.lock().ignore_poison();
            this.body = state.body.take();
            state.is_wanted = true;
        }
        match &mut this.body {
            Some(body) => Pin::new(body).poll(context),
            None => Poll::Pending,
        }
    }
}
