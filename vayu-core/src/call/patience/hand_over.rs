//! The way of an old value from the future of a call to its caller.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use crate::background::BackgroundRun;
use crate::call::patience::awaited_run::AwaitedRun;
use crate::call::patience::old_value::OldValue;
use crate::sync::IgnorePoison;

/// A value past its ttl, and the flight and the run that replace it.
pub(super) struct Old<R, V> {
    pub(super) value: OldValue<R, V>,
    pub(super) run: Arc<AwaitedRun>,
    pub(super) background: BackgroundRun,
}

/// The way of an old value from the future of a call to its caller.
pub(super) struct HandOver<R, V>(Arc<Mutex<Option<Old<R, V>>>>);

impl<R, V> Default for HandOver<R, V> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }
}

impl<R, V> Clone for HandOver<R, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R, V> HandOver<R, V> {
    /// Passes the old value to the caller, and returns to it once: it polls no more, the task does.
    pub(super) async fn pass(self, old: Old<R, V>) {
        *self.0.lock().ignore_poison() = Some(old);
        drop(self);
        let mut has_returned = false;
        poll_fn(|_| {
            let is_task = mem::replace(&mut has_returned, true);
            if is_task { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes the old value, if it was passed.
    pub(super) fn take(&self) -> Option<Old<R, V>> {
        self.0.lock().ignore_poison().take()
    }
}
