//! Counters, log events and observers of a cache.

use std::sync::Arc;

use crate::backend::{Backend, BackendExt};
use crate::cache::engine::Inner;
use crate::cache::{Cache, Engine};
use crate::error::Error;
use crate::key::Prefix;
use crate::log;
use crate::observer::{CallEvent, CallTimes, EndListener, Observer};
use crate::outcome::CallOutcome;
use crate::watch;

impl<B: Backend, S> Cache<B, S> {
    /// Adds an observer of all calls, insertions, ends of entries and errors of this cache from now on. There may be
    /// several, and none is ever removed.
    ///
    /// A hit does no more than check a flag if there are none.
    pub fn observe(&self, observer: impl Observer) {
        let shared = &self.engine.shared;
        shared.observers.add(observer);
        if shared.flags.set_observed() {
            let cache = Arc::downgrade(shared);
            shared.backend().report_ends(EndListener::new(move |function, cause| {
                if let Some(cache) = cache.upgrade() {
                    cache.notify(|observer| observer.on_end(function, cause));
                }
            }));
        }
    }
}

impl<B: Backend> Inner<B> {
    /// Calls all observers. A panic is counted and has no other effect.
    fn notify(&self, event: impl Fn(&dyn Observer)) {
        if let Err(error) = self.observers.notify(event) {
            self.counters.error(error.kind());
        }
    }
}

impl<B: Backend> Engine<B> {
    /// Returns whether calls are logged or observed.
    #[inline]
    pub(crate) fn has_listeners(&self, is_quiet: bool) -> bool {
        self.flags().is_observed() || (!is_quiet && log::is_enabled())
    }

    /// Reports a call to the log, unless the function is quiet, to the observers and to watches.
    #[cold]
    pub(crate) fn emit(
        &self,
        function: &Prefix,
        outcome: CallOutcome,
        times: CallTimes,
        is_quiet: bool,
    ) {
        let flags = self.flags();
        let is_logged = !is_quiet && log::is_enabled();
        if !flags.is_observed() && !is_logged {
            return;
        }
        let CallTimes { age, ttl_left, compute_time } = times;
        if is_logged {
            log::log_call(function, outcome, age);
        }
        let event = CallEvent { function: function.as_str(), outcome, age, ttl_left, compute_time };
        self.notify(|observer| observer.on_call(&event));
        if flags.is_watched() {
            watch::record(&event);
        }
    }

    /// Counts a call that does not use the cache: it is paused, or there is no key.
    #[cold]
    pub(crate) fn count_bypass(&self, function: &Prefix, error: Option<&Error>, is_quiet: bool) {
        self.counters().call(CallOutcome::Miss);
        if let Some(error) = error {
            self.fault(function, error, is_quiet);
        }
        self.emit(function, CallOutcome::Miss, CallTimes::default(), is_quiet);
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn count_store(&self, function: &Prefix) {
        self.counters().insert();
        if self.flags().is_observed() {
            self.notify_of_store(function);
        }
    }

    #[cold]
    #[inline(never)]
    fn notify_of_store(&self, function: &Prefix) {
        self.notify(|observer| observer.on_insert(function.as_str()));
    }

    /// Counts a refresh that has failed. `text` shows its error, for observers.
    pub(crate) fn count_failed_refresh(
        &self,
        function: &Prefix,
        text: impl FnOnce() -> Option<String>,
    ) {
        self.counters().failed_refresh();
        if self.flags().is_observed() {
            let text = text();
            self.notify(|observer| observer.on_refresh_error(function.as_str(), text.as_deref()));
        }
    }

    /// Counts an error that costs the caller time only, and logs a warning, rate-limited.
    pub(crate) fn fault(&self, function: &Prefix, error: &Error, is_quiet: bool) {
        self.counters().error(error.kind());
        self.notify(|observer| observer.on_error(function.as_str(), error));
        self.warn(function, error, is_quiet);
    }

    /// Logs a warning, rate-limited, unless the function is quiet.
    pub(crate) fn warn(&self, function: &Prefix, error: &Error, is_quiet: bool) {
        if !is_quiet {
            self.shared.warnings.warn(function.as_str(), error, self.now());
        }
    }

    fn notify(&self, event: impl Fn(&dyn Observer)) {
        self.shared.notify(event);
    }
}
