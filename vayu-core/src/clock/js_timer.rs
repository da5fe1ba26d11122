//! A timer on the `setTimeout` of JavaScript.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use js_sys::{Function, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};

use crate::platform::Instant;
use crate::sync::IgnorePoison;

/// A future that is ready at a deadline.
#[derive(Debug)]
pub(super) struct JsTimer {
    /// `None` if the deadline is never reached.
    deadline: Option<Instant>,
    /// The timeout that is set.
    timeout: Option<u64>,
    waker: Arc<Mutex<Option<Waker>>>,
}

/// A timeout that is set. Its callback wakes the task.
struct Timeout {
    handle: JsValue,
    _callback: Closure<dyn Fn()>,
}

/// The timeouts of this thread. Values of JavaScript cannot be sent to another one, and futures must.
#[derive(Default)]
struct Timeouts {
    last: u64,
    set: HashMap<u64, Timeout>,
}

thread_local! {
    static TIMEOUTS: RefCell<Timeouts> = RefCell::default();
}

/// The longest time of a timeout, in milliseconds.
const LONGEST: i32 = i32::MAX;

impl JsTimer {
    pub(super) fn new(time: Duration) -> Self {
        let deadline = Instant::now().checked_add(time);
        Self { deadline, timeout: None, waker: Arc::default() }
    }

    /// Sets a timeout in place of the one that was set before. Returns `false` if the host has none.
    fn set_timeout(&mut self, time: Duration) -> bool {
        self.clear_timeout();
        let waker = Arc::clone(&self.waker);
        let callback = Closure::<dyn Fn()>::new(move || {
            let waker = waker.lock().ignore_poison().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let millis = time.as_nanos().div_ceil(1_000_000);
        let millis = i32::try_from(millis).unwrap_or(LONGEST);
        let Some(handle) = call("setTimeout", callback.as_ref(), &millis.into()) else {
            return false;
        };
        let timeout = Timeout { handle, _callback: callback };
        self.timeout = TIMEOUTS.with_borrow_mut(|timeouts| {
            timeouts.last += 1;
            timeouts.set.insert(timeouts.last, timeout);
            Some(timeouts.last)
        });
        true
    }

    fn clear_timeout(&mut self) {
        let Some(id) = self.timeout.take() else { return };
        if let Some(timeout) = TIMEOUTS.with_borrow_mut(|timeouts| timeouts.set.remove(&id)) {
            call("clearTimeout", &timeout.handle, &JsValue::UNDEFINED);
        }
    }
}

impl Future for JsTimer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(deadline) = this.deadline else { return Poll::Pending };
        let now = Instant::now();
        if now >= deadline {
            return Poll::Ready(());
        }
        // Code of users, which must not run while the lock is held.
        let waker = context.waker().clone();
        let before = this.waker.lock().ignore_poison().replace(waker);
        // Without a waker before, the timeout was too early. Without a timeout, the host has none, and the task is polled
        // again and again.
        if (this.timeout.is_none() || before.is_none())
            && !this.set_timeout(deadline.saturating_duration_since(now))
        {
            context.waker().wake_by_ref();
        }
        drop(before);
        Poll::Pending
    }
}

impl Drop for JsTimer {
    fn drop(&mut self) {
        self.clear_timeout();
    }
}

/// Calls a function of the global object.
fn call(name: &str, first: &JsValue, second: &JsValue) -> Option<JsValue> {
    let function = Reflect::get(&js_sys::global(), &name.into()).ok()?;
    function.dyn_ref::<Function>()?.call2(&JsValue::UNDEFINED, first, second).ok()
}
