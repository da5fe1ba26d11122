//! The queue between callers and the driver: commands to write, and replies that are pending.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Mutex;
use std::task::Waker;
use std::time::{Duration, Instant};

use redis::{Cmd, RedisError, Value};
use tokio::sync::oneshot;

use crate::error::Failure;
use crate::request::reply_items;
use crate::sync::lock;
use crate::tcp::Socket;

/// A queue of commands and pending replies.
pub(super) struct Queue {
    state: Mutex<State>,
    timeout: Duration,
    /// Returns the time. The clock of the caller's runtime may be paused.
    now: fn() -> Instant,
}

#[derive(Default)]
struct State {
    /// Encoded commands that the driver has not taken yet.
    commands: Vec<u8>,
    /// Commands whose reply was not received yet, in the order of the replies.
    pending: VecDeque<Pending>,
    /// The waker of the driver. `None` until it has run for the first time.
    driver: Option<Waker>,
    /// The driver has taken commands, and has not written all of them yet.
    is_writing: bool,
    /// The socket, for callers. `None` once the connection is closed.
    socket: Option<Box<dyn Socket>>,
    /// Time at which the driver must expire commands.
    next_timeout: Option<Instant>,
}

impl State {
    /// Returns whether no reply is pending and the driver is not writing.
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.is_writing
    }

    /// Writes the commands to the socket as far as it takes them. The rest is left to the driver, and so is an error, which the
    /// driver gets as well. Of long commands, no part is written: callers must not wait while they are copied.
    fn write_directly(&mut self) {
        if self.commands.len() <= MAX_DIRECT
            && let Some(socket) = &mut self.socket
            && let Ok(written) = socket.write(&self.commands)
        {
            self.commands.drain(..written);
        }
    }
}

struct Pending {
    /// `None` after a timeout. The reply is still in the stream and must be discarded.
    caller: Option<ReplySender>,
    since: Instant,
    deadline: Instant,
    /// The number of values in the reply to `MGET`, zero for other commands. The parser accepts an array of this length only.
    items: usize,
}

impl Pending {
    /// Returns the time that the caller waits for the reply at most, in whole milliseconds.
    fn limit(&self) -> Duration {
        let limit = self.deadline.saturating_duration_since(self.since);
        // Rounded up: a part of the first millisecond has passed since the operation of the caller began.
        let past = limit.subsec_nanos() % 1_000_000;
        if past == 0 { limit } else { limit + Duration::from_nanos(u64::from(1_000_000 - past)) }
    }
}

type ReplySender = oneshot::Sender<Result<Value, Failure>>;
type ReplyReceiver = oneshot::Receiver<Result<Value, Failure>>;

/// Largest number of pending replies. Without a limit, cancelled callers could send commands faster
/// than the server executes them.
pub(super) const MAX_PENDING: usize = 1 << 16;

/// The largest queue, in bytes, that a caller writes to the socket itself.
pub(super) const MAX_DIRECT: usize = 64 * 1024;

/// Returns the failure of a command that was not written.
pub(super) fn connection_closed() -> Failure {
    Failure::ConnectionLost(io::Error::from(io::ErrorKind::ConnectionAborted).into())
}

impl Queue {
    /// Creates the queue of a connection. The socket never blocks.
    pub(super) fn new(socket: Box<dyn Socket>, timeout: Duration, now: fn() -> Instant) -> Self {
        let state = State { socket: Some(socket), ..State::default() };
        Self { state: Mutex::new(state), timeout, now }
    }

    pub(super) fn now(&self) -> Instant {
        (self.now)()
    }

    /// Appends a command. Writes it if the connection is idle, or else wakes the driver if need be.
    pub(super) fn enqueue(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<ReplyReceiver, Failure> {
        let (caller, reply) = oneshot::channel();
        self.append(deadline, [(command, caller)].into_iter())?;
        Ok(reply)
    }

    /// Appends several commands, which are written together, like [`enqueue`](Self::enqueue). Returns the
    /// receivers of the replies, or an error if nothing was appended.
    pub(super) fn enqueue_all(
        &self,
        commands: &[Cmd],
        deadline: Instant,
    ) -> Result<Vec<ReplyReceiver>, Failure> {
        let (callers, replies): (Vec<_>, _) = commands.iter().map(|_| oneshot::channel()).unzip();
        self.append(deadline, commands.iter().zip(callers))?;
        Ok(replies)
    }

    fn append<'c>(
        &self,
        deadline: Instant,
        commands: impl ExactSizeIterator<Item = (&'c Cmd, ReplySender)>,
    ) -> Result<(), Failure> {
        let since = self.now();
        let mut state = lock(&self.state);
        if state.socket.is_none() {
            return Err(connection_closed());
        }
        if state.pending.len() + commands.len() > MAX_PENDING {
            return Err(Failure::QueueFull);
        }
        let expires_at = deadline.min(since + self.timeout);
        let is_sooner = state.next_timeout.is_none_or(|next| expires_at < next);
        if is_sooner {
            state.next_timeout = Some(expires_at);
        }
        // If commands are queued, the caller that queued the first of them has woken the driver.
        let (is_idle, had_commands) = (state.is_idle(), !state.commands.is_empty());
        for (command, caller) in commands {
            let items = reply_items(command);
            command.write_packed_command(&mut state.commands);
            state.pending.push_back(Pending { caller: Some(caller), since, deadline, items });
        }
        if is_idle {
            state.write_directly();
        }
        let is_left = !state.commands.is_empty() && !had_commands;
        let driver = if is_sooner || is_left { state.driver.clone() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(())
    }

    /// Returns the number of values in the next reply, zero if it is not an array.
    pub(super) fn next_items(&self) -> usize {
        lock(&self.state).pending.front().map_or(0, |next| next.items)
    }

    /// Takes the commands in exchange for an empty buffer. The waker is woken when there are more.
    pub(super) fn take_commands(&self, empty: &mut Vec<u8>, waker: &Waker) {
        let mut state = lock(&self.state);
        state.is_writing = !state.commands.is_empty();
        mem::swap(&mut state.commands, empty);
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(waker)) {
            state.driver = Some(waker.clone());
        }
    }

    /// Delivers a reply to the first pending command.
    pub(super) fn deliver(&self, value: Value) -> Result<(), RedisError> {
        let next = lock(&self.state).pending.pop_front();
        let unsolicited = || io::Error::new(io::ErrorKind::InvalidData, "unsolicited reply");
        if let Some(caller) = next.ok_or_else(unsolicited)?.caller {
            // The receiver is gone if the call was cancelled.
            let _ = caller.send(Ok(value));
        }
        Ok(())
    }

    /// Fails the commands whose deadline has passed, and sets the next timeout.
    ///
    /// # Errors
    ///
    /// If a reply is pending and nothing was received for a whole timeout. `last_received` is the
    /// time at which bytes were last received.
    pub(super) fn expire(&self, last_received: Instant) -> io::Result<()> {
        let now = self.now();
        let mut late = Vec::new();
        let mut state = lock(&self.state);
        let mut next: Option<Instant> = None;
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for pending in state.pending.iter_mut().filter(|pending| pending.caller.is_some()) {
            if pending.deadline <= now {
                late.extend(pending.caller.take().map(|caller| (caller, pending.limit())));
            } else {
                sooner(pending.deadline);
            }
        }
        // Checked even if all callers are gone, so that the next one does not use a dead
        // connection.
        let first = state.pending.front();
        let silent = first.map(|first| first.since.max(last_received) + self.timeout);
        silent.into_iter().for_each(&mut sooner);
        state.next_timeout = next;
        drop(state);
        for (caller, limit) in late {
            let _ = caller.send(Err(Failure::Timeout(limit)));
        }
        if silent.is_some_and(|silent| silent <= now) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Returns when [`expire`](Self::expire) must be called.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        lock(&self.state).next_timeout
    }

    /// Fails all pending and later commands. `has_begun` is `true` if a part of the first reply
    /// was received; the other commands may be sent again.
    pub(super) fn close(&self, error: &RedisError, has_begun: bool) {
        let mut state = lock(&self.state);
        let socket = state.socket.take();
        let pending = mem::take(&mut state.pending);
        drop(state);
        if let Some(socket) = socket.filter(|_| !pending.is_empty()) {
            socket.reset_on_close();
        }
        for (index, pending) in pending.into_iter().enumerate() {
            let failure =
                if index == 0 && has_begun { Failure::Redis } else { Failure::ConnectionLost };
            if let Some(caller) = pending.caller {
                let _ = caller.send(Err(failure(error.clone())));
            }
        }
    }
}
