//! Counters, log events and observers of a cache.

use std::time::Duration;

use crate::backend::Backend;
use crate::cache::{Cache, Engine};
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::error::Error;
use crate::key::Prefix;
use crate::log;
use crate::observer::{CallEvent, Observer};
use crate::outcome::CallOutcome;

impl<B: Backend, S> Cache<B, S> {
    /// Adds an observer of all calls, insertions and errors of this cache from now on. There may be
    /// several, and none is ever removed.
    ///
    /// A hit does no more than check a flag if there are none.
    pub fn observe(&self, observer: impl Observer) {
        self.engine.shared.observers.add(observer);
        self.engine.shared.flags.set_observed();
    }
}

impl<B: Backend> Engine<B> {
    /// Returns whether calls are logged or observed.
    #[inline]
    pub(crate) fn has_listeners(&self, is_quiet: bool) -> bool {
        self.flags().is_observed() || (!is_quiet && log::is_enabled())
    }

    /// Reports a call to the log, unless the function is quiet, and to the observers.
    #[cold]
    pub(crate) fn emit(
        &self,
        function: &Prefix,
        outcome: CallOutcome,
        age: Option<Duration>,
        compute_time: Duration,
        is_quiet: bool,
    ) {
        if !self.has_listeners(is_quiet) {
            return;
        }
        if !is_quiet {
            log::log_call(function, outcome, age);
        }
        let event = CallEvent { function: function.as_str(), outcome, age, compute_time };
        self.notify(|observer| observer.on_call(&event));
    }

    /// Reports a hit at `now` on a value that was created at `created`, as [`emit`](Self::emit) does.
    #[cold]
    pub(crate) fn emit_hit(
        &self,
        function: &Prefix,
        now: Timestamp,
        created: Timestamp,
        compute_time: CompactDuration,
        is_quiet: bool,
    ) {
        let (age, compute_time) = (now.saturating_since(created), compute_time.time());
        self.emit(function, CallOutcome::Hit, Some(age), compute_time, is_quiet);
    }

    /// Counts a call that does not use the cache: it is paused, or there is no key.
    #[cold]
    pub(crate) fn count_bypass(&self, function: &Prefix, error: Option<&Error>, is_quiet: bool) {
        self.counters().call(CallOutcome::Miss);
        if let Some(error) = error {
            self.fault(function, error, is_quiet);
        }
        self.emit(function, CallOutcome::Miss, None, Duration::ZERO, is_quiet);
    }

    pub(crate) fn count_store(&self, function: &Prefix) {
        self.counters().insert();
        if self.flags().is_observed() {
            self.notify(|observer| observer.on_insert(function.as_str()));
        }
    }

    pub(crate) fn count_failed_refresh(&self, function: &Prefix) {
        self.counters().failed_refresh();
        self.notify(|observer| observer.on_refresh_error(function.as_str()));
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

    /// Calls all observers. A panic is counted and has no other effect.
    fn notify(&self, event: impl Fn(&dyn Observer)) {
        if let Err(error) = self.shared.observers.notify(event) {
            self.counters().error(error.kind());
        }
    }
}
