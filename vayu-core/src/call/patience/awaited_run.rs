//! The run of a call whose caller waits for it a while.

use std::sync::{Mutex, MutexGuard};

use crate::clock::Timestamp;
use crate::observer::CallTimes;
use crate::sync::IgnorePoison;

/// The agreement of a run and its caller on which of them reports the call. The run does if it ends with an output for its
/// caller. If the caller returns an old value, it reports that, and a run that ends later is one in the background.
#[derive(Debug)]
pub(crate) struct AwaitedRun {
    /// The first instant at which the old value may not be served.
    end: Timestamp,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Running,
    /// The caller waits no longer.
    GivenUp,
    /// The run has reported the call.
    Reported,
    /// The run has failed and reported nothing.
    Failed(CallTimes),
}

impl AwaitedRun {
    pub(super) fn new(end: Timestamp) -> Self {
        Self { end, state: Mutex::new(State::Running) }
    }

    /// Ends the run, whose output may have a value. Returns whether the run reports it.
    pub(in crate::call) fn end(&self, has_value: bool, times: CallTimes, now: Timestamp) -> bool {
        let mut state = self.state();
        match *state {
            State::Running if !has_value && now < self.end => {
                *state = State::Failed(times);
                false
            }
            State::Running => {
                *state = State::Reported;
                true
            }
            State::GivenUp | State::Reported | State::Failed(_) => true,
        }
    }

    /// Ends the wait of the caller, unless the run has ended. Returns whether it has not.
    pub(super) fn give_up(&self) -> bool {
        let mut state = self.state();
        let is_running = matches!(*state, State::Running);
        if is_running {
            *state = State::GivenUp;
        }
        is_running
    }

    /// Returns whether the run has ended while its caller waited.
    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.state(), State::Reported | State::Failed(_))
    }

    /// Returns the times of a run that has failed and reported nothing.
    pub(super) fn failure(&self) -> Option<CallTimes> {
        match *self.state() {
            State::Failed(times) => Some(times),
            State::Running | State::GivenUp | State::Reported => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }
}
