//! What differs between the hosts: time, output and tasks.

use std::future::Future;
#[cfg(not(all(target_family = "wasm", target_os = "unknown", feature = "js")))]
use std::pin::pin;
use std::time::Duration;

pub(crate) use self::imp::{pass, print, remove_timers, spawn};

/// Polls a future until it is ready.
#[cfg(not(all(target_family = "wasm", target_os = "unknown", feature = "js")))]
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Waker};
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        imp::between_polls();
    }
}

/// Waits in real time, without a sleep, which not every host has.
#[cfg(not(all(target_family = "wasm", target_os = "unknown", not(feature = "js"))))]
fn spin(time: Duration) {
    use vayu::time::{Clock, MonotonicClock};
    let began = MonotonicClock.now();
    while MonotonicClock.now().saturating_since(began) < time {}
}

/// A host with the clock of the standard library, and tasks that are run by a spawned future's first poll.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod imp {
    use super::{Duration, Future, block_on, spin};

    pub(crate) fn pass(time: Duration) {
        spin(time);
    }

    pub(crate) fn print(line: &str) {
        println!("{line}");
    }

    pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
        block_on(task);
    }

    pub(crate) fn remove_timers() {}

    pub(super) fn between_polls() {}
}

/// JavaScript.
#[cfg(all(target_family = "wasm", target_os = "unknown", feature = "js"))]
mod imp {
    use js_sys::{Function, Reflect};
    use wasm_bindgen::{JsCast, JsValue};

    use super::{Duration, Future, spin};

    pub(crate) fn pass(time: Duration) {
        spin(time);
    }

    pub(crate) fn print(line: &str) {
        let console = Reflect::get(&js_sys::global(), &"console".into()).expect("a console");
        let log = Reflect::get(&console, &"log".into()).expect("a function");
        log.unchecked_ref::<Function>().call1(&JsValue::UNDEFINED, &line.into()).expect("a line");
    }

    pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
        wasm_bindgen_futures::spawn_local(task);
    }

    pub(crate) fn remove_timers() {
        Reflect::set(&js_sys::global(), &"setTimeout".into(), &JsValue::UNDEFINED)
            .expect("it is set");
    }
}

/// A host without any function: the program moves the clock.
#[cfg(all(target_family = "wasm", target_os = "unknown", not(feature = "js")))]
mod imp {
    use std::sync::atomic::{AtomicI64, Ordering};

    use vayu::time::{Clock, Timestamp};

    use super::{Duration, Future, block_on};

    static NOW: AtomicI64 = AtomicI64::new(1_700_000_000_000_000);

    /// The clock of this program.
    #[derive(Debug)]
    pub(crate) struct Manual;

    impl Clock for Manual {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(NOW.load(Ordering::Relaxed))
        }
    }

    pub(crate) fn pass(time: Duration) {
        let micros = i64::try_from(time.as_micros()).expect("a short time");
        NOW.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn print(_line: &str) {}

    pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
        block_on(task);
    }

    pub(crate) fn remove_timers() {}

    pub(super) fn between_polls() {
        pass(Duration::from_millis(1));
    }
}

#[cfg(all(target_family = "wasm", target_os = "unknown", not(feature = "js")))]
pub(crate) use self::imp::Manual;
