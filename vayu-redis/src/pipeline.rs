//! The connection of async callers without TLS: many of them talk over one at a time.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use redis::{Cmd, ConnectionAddr, ConnectionInfo, RedisError, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep_until};

use crate::error::Failure;
use crate::request;
use crate::resp;

/// A connection without TLS to one server. A clone is the same one.
///
/// Commands that come while others are written are written in one piece. Each reply has a time limit
/// and a limit of bytes.
///
/// Replies come in the order of the commands. A caller that goes, or whose time limit is over, leaves
/// its place in that order to a reply that is not delivered to any caller; the others do not notice.
/// That the connection is of no use any more is decided by the driver alone: when it is closed, when
/// something else than replies is received, or when nothing at all is for a whole time limit.
#[derive(Clone)]
pub(crate) struct Pipeline(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    driver: AbortHandle,
}

/// The driver ends with the last caller.
impl Drop for Handle {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Where callers leave their commands.
struct Queue {
    state: Mutex<State>,
    timeout: Duration,
    /// Not that of the caller's runtime, which may have been stopped.
    now: fn() -> Instant,
}

#[derive(Default)]
struct State {
    /// Commands that nobody has begun to write.
    commands: Vec<u8>,
    /// Those who are owed an answer, in the order in which the server answers.
    pending: VecDeque<Pending>,
    driver: Option<Waker>,
    /// When the driver is to look for those who have waited too long.
    timer: Option<Instant>,
    is_closed: bool,
}

struct Pending {
    /// Nothing once it has taken too long. The answer is then still to come.
    caller: Option<oneshot::Sender<Result<Value, Failure>>>,
    since: Instant,
    deadline: Instant,
}

impl Pipeline {
    /// Connects and says who we are.
    pub(crate) async fn connect(
        server: &ConnectionInfo,
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + timeout;
        let pipeline = match server.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Self::from_stream(stream, timeout, max_bytes, Instant::now)
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => Self::from_stream(
                UnixStream::connect(path).await?,
                timeout,
                max_bytes,
                Instant::now,
            ),
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        for command in request::handshake(server.redis_settings()) {
            pipeline.execute(&command, deadline).await?;
        }
        Ok(pipeline)
    }

    fn from_stream<S>(stream: S, timeout: Duration, max_bytes: u64, now: fn() -> Instant) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let queue = Arc::new(Queue { state: Mutex::default(), timeout, now });
        let driver = Driver {
            stream,
            queue: Arc::clone(&queue),
            writing: Vec::new(),
            written: 0,
            received: BytesMut::new(),
            max_bytes,
            last_received: now(),
            timer: Box::pin(sleep_until(now().into())),
            timer_at: None,
        };
        Self(Arc::new(Handle { queue, driver: tokio::spawn(driver).abort_handle() }))
    }

    /// Returns the reply to a command, before the deadline and on any executor.
    pub(crate) async fn execute(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let reply = self.0.queue.enqueue(command, deadline)?;
        let value = reply.await.unwrap_or_else(|_| Err(connection_closed()))?;
        Ok(value.extract_error()?)
    }
}

impl Queue {
    /// Leaves a command to be written.
    fn enqueue(&self, command: &Cmd, deadline: Instant) -> Result<ReplyReceiver, Failure> {
        let (caller, reply) = oneshot::channel();
        let since = (self.now)();
        let mut state = self.state();
        if state.is_closed {
            return Err(connection_closed());
        }
        if state.pending.len() >= MAX_PENDING {
            return Err(Failure::QueueFull);
        }
        // Whoever left the first of several has woken the driver, and has seen to it that there is an
        // alarm, unless it has gone off since.
        let first_timeout = deadline.min(since + self.timeout);
        let is_sooner = state.timer.is_none_or(|timer| first_timeout < timer);
        if is_sooner {
            state.timer = Some(first_timeout);
        }
        let is_awake = !state.commands.is_empty() && !is_sooner;
        let driver = if is_awake { None } else { state.driver.clone() };
        command.write_packed_command(&mut state.commands);
        state.pending.push_back(Pending { caller: Some(caller), since, deadline });
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(reply)
    }

    /// Takes what is to be written in exchange for empty room. Who asks to be woken is woken when
    /// there is more.
    fn take_commands(&self, empty: &mut Vec<u8>, waker: &Waker) {
        let mut state = self.state();
        mem::swap(&mut state.commands, empty);
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(waker)) {
            state.driver = Some(waker.clone());
        }
    }

    /// Hands an answer to the caller whose turn it is.
    fn deliver(&self, value: Value) -> Result<(), RedisError> {
        let next = self.state().pending.pop_front();
        let pending =
            next.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, UNSOLICITED))?;
        if let Some(caller) = pending.caller {
            // Nobody is there any more if the call was cancelled.
            let _ = caller.send(Ok(value));
        }
        Ok(())
    }

    /// Sends those away who have waited too long, and says when the next one will have.
    ///
    /// # Errors
    ///
    /// When nothing was received, of which `last_received` is the last moment, for as long as a reply may take.
    fn expire(&self, last_received: Instant) -> io::Result<()> {
        let now = (self.now)();
        let mut late = Vec::new();
        let mut state = self.state();
        let mut next: Option<Instant> = None;
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for pending in state.pending.iter_mut().filter(|pending| pending.caller.is_some()) {
            if pending.deadline <= now {
                late.extend(pending.caller.take());
            } else {
                sooner(pending.deadline);
            }
        }
        // Also if all of them have gone: the next one is not to wait in vain.
        let silent =
            state.pending.front().map(|first| first.since.max(last_received) + self.timeout);
        silent.into_iter().for_each(&mut sooner);
        state.timer = next;
        drop(state);
        for caller in late {
            let _ = caller.send(Err(Failure::Timeout(self.timeout)));
        }
        if silent.is_some_and(|silent| silent <= now) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// When to call [`expire`](Self::expire).
    fn timer(&self) -> Option<Instant> {
        self.state().timer
    }

    /// There will be no answers any more. The first one may have begun.
    fn close(&self, error: &RedisError, has_begun: bool) {
        let mut state = self.state();
        state.is_closed = true;
        let pending = mem::take(&mut state.pending);
        drop(state);
        for (place, pending) in pending.into_iter().enumerate() {
            let failure =
                if place == 0 && has_begun { Failure::Redis } else { Failure::ConnectionLost };
            if let Some(caller) = pending.caller {
                let _ = caller.send(Err(failure(error.clone())));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type ReplyReceiver = oneshot::Receiver<Result<Value, Failure>>;

/// More replies than this are not waited for. Callers who do not wait for theirs might leave commands
/// faster than the server executes them.
const MAX_PENDING: usize = 1 << 16;

const UNSOLICITED: &str = "unsolicited reply";

fn connection_closed() -> Failure {
    Failure::ConnectionLost(io::Error::from(io::ErrorKind::ConnectionAborted).into())
}

/// What carries the bytes, for as long as all goes well.
struct Driver<S> {
    stream: S,
    queue: Arc<Queue>,
    writing: Vec<u8>,
    written: usize,
    received: BytesMut,
    max_bytes: u64,
    /// When bytes were received the last time.
    last_received: Instant,
    /// One alarm for all who wait.
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
}

/// So much is read at once if it is there.
const READ_SIZE: usize = 8 * 1024;

/// A buffer that has become larger than this is not kept.
const MAX_IDLE_BUFFER: usize = 256 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn drive(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        // First what is there: a server that is not listened to does not listen either.
        self.read(context)?;
        self.write(context)?;
        self.arm_timeout(context)?;
        Ok(())
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        loop {
            if self.received.is_empty() && self.received.capacity() > MAX_IDLE_BUFFER {
                self.received = BytesMut::new();
            }
            self.received.reserve(READ_SIZE);
            let read = pin!(self.stream.read_buf(&mut self.received)).poll(context);
            match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(length) => {
                    if length? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    self.last_received = (self.queue.now)();
                }
            }
            while let Some((value, length)) = resp::parse(&self.received, self.max_bytes)? {
                self.received.advance(length);
                self.queue.deliver(value)?;
            }
        }
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        loop {
            let left = &self.writing[self.written..];
            if left.is_empty() {
                self.written = 0;
                self.writing.clear();
                self.writing.shrink_to(MAX_IDLE_BUFFER);
                self.queue.take_commands(&mut self.writing, context.waker());
                if self.writing.is_empty() {
                    return Ok(());
                }
                continue;
            }
            match Pin::new(&mut self.stream).poll_write(context, left) {
                Poll::Pending => return Ok(()),
                Poll::Ready(length) => match length? {
                    0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                    length => self.written += length,
                },
            }
        }
    }

    /// Sets the alarm if anybody waits, and again whenever it has gone off: not for each command.
    fn arm_timeout(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let timer = self.queue.timer();
            if let Some(at) = timer.filter(|_| timer != self.timer_at) {
                self.timer.as_mut().reset(at.into());
            }
            self.timer_at = timer;
            if timer.is_none() || self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            // What has gone off is set again, if only for the same moment.
            self.timer_at = None;
            self.queue.expire(self.last_received)?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.drive(context) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                self.queue.close(&error, !self.received.is_empty());
                Poll::Ready(())
            }
        }
    }
}

/// Its runtime may end before its callers do.
impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.queue.close(&io::Error::from(io::ErrorKind::ConnectionAborted).into(), false);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::runtime::Builder;
    use vayu_core::testing::watchdog;

    use super::*;
    use crate::error_reply::Scope;

    const TIMEOUT: Duration = Duration::from_millis(250);
    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    /// Runs a test whose time moves on when everybody waits.
    fn with_server<F: Future<Output = ()>>(
        test: impl FnOnce(Pipeline, DuplexStream) -> F + Send + 'static,
    ) {
        watchdog(TEST_TIMEOUT, || {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let (ours, server) = duplex(64 * 1024);
                test(Pipeline::from_stream(ours, TIMEOUT, 100, now), server).await;
            });
        });
    }

    /// The time of the runtime, which a test moves.
    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn send(pipeline: &Pipeline, name: &str) -> tokio::task::JoinHandle<Result<Value, Failure>> {
        send_within(pipeline, name, TIMEOUT)
    }

    fn send_within(
        pipeline: &Pipeline,
        name: &str,
        limit: Duration,
    ) -> tokio::task::JoinHandle<Result<Value, Failure>> {
        let (pipeline, command, deadline) = (pipeline.clone(), request::get(name), now() + limit);
        tokio::spawn(async move { pipeline.execute(&command, deadline).await })
    }

    async fn expect_commands(server: &mut DuplexStream, names: &[&str]) {
        let expected: Vec<u8> =
            names.iter().flat_map(|name| request::get(name).get_packed_command()).collect();
        let mut last_received = vec![0; 2 * expected.len()];
        let length = server.read(&mut last_received).await.unwrap();
        assert_eq!(last_received[..length], expected, "in one piece");
    }

    fn bytes(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn commands_sent_together_are_written_at_once_and_replies_matched_in_order() {
        with_server(|pipeline, mut server| async move {
            for _ in 0..3 {
                let pending = ["a", "b", "c"].map(|name| send(&pipeline, name));
                expect_commands(&mut server, &["a", "b", "c"]).await;
                for piece in [&b"$1\r\nx\r"[..], b"\n$-1\r", b"\n-WRONGTYPE no\r\n"] {
                    server.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let [first, second, third] = pending;
                assert_eq!(first.await.unwrap().unwrap(), bytes("x"));
                assert_eq!(second.await.unwrap().unwrap(), Value::Nil);
                assert_eq!(third.await.unwrap().unwrap_err().scope(), Scope::Command);
            }
        });
    }

    #[test]
    fn each_command_times_out_at_its_own_deadline() {
        with_server(|pipeline, mut server| async move {
            let began = now();
            let early = send(&pipeline, "early");
            tokio::time::sleep(TIMEOUT / 2).await;
            let late = send(&pipeline, "late");
            // The connection is not silent.
            tokio::time::sleep(TIMEOUT / 4).await;
            server.write_all(b"$").await.unwrap();
            let sooner = send_within(&pipeline, "sooner", TIMEOUT / 8);
            let grain = Duration::from_millis(2);
            for (caller, limit) in
                [(sooner, TIMEOUT * 7 / 8), (early, TIMEOUT), (late, TIMEOUT + TIMEOUT / 2)]
            {
                assert!(matches!(caller.await.unwrap(), Err(Failure::Timeout(TIMEOUT))));
                let elapsed = now() - began;
                assert!(elapsed >= limit && elapsed <= limit + grain, "{elapsed:?} of {limit:?}");
            }
        });
    }

    /// Nothing comes, neither a reply nor the end: as behind a firewall that has forgotten it.
    #[test]
    fn silent_connection_is_closed_after_one_timeout_even_without_callers() {
        for is_cancelled in [false, true] {
            with_server(move |pipeline, mut server| async move {
                // A connection that was not used for a while is not silent: nothing was asked.
                tokio::time::sleep(10 * TIMEOUT).await;
                let first = send(&pipeline, "first");
                expect_commands(&mut server, &["first"]).await;
                tokio::time::sleep(TIMEOUT / 2).await;
                let second = send(&pipeline, "second");
                tokio::task::yield_now().await;
                if is_cancelled {
                    first.abort();
                } else {
                    assert!(matches!(first.await.unwrap(), Err(Failure::Timeout(_))));
                }
                assert!(
                    second.await.unwrap().unwrap_err().is_connection_lost(),
                    "it may be sent again"
                );
                assert!(send(&pipeline, "third").await.unwrap().unwrap_err().is_connection_lost());
            });
        }
    }

    #[test]
    fn late_reply_is_discarded_and_the_connection_kept() {
        with_server(|pipeline, mut server| async move {
            for _ in 0..5 {
                let late = send(&pipeline, "late");
                tokio::time::sleep(TIMEOUT * 9 / 10).await;
                let patient = send(&pipeline, "patient");
                server.write_all(b"$4\r\nl").await.unwrap();
                late.await.unwrap().unwrap_err();
                server.write_all(b"ate\r\n$1\r\np\r\n").await.unwrap();
                assert_eq!(patient.await.unwrap().unwrap(), bytes("p"));
            }
        });
    }

    #[test]
    fn commands_without_a_partial_reply_are_retryable_after_a_disconnect() {
        for (sent, is_first_lost) in [("", true), ("$1\r\n", false)] {
            with_server(move |pipeline, mut server| async move {
                let callers = ["a", "b", "c"].map(|name| send(&pipeline, name));
                expect_commands(&mut server, &["a", "b", "c"]).await;
                server.write_all(sent.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
                drop(server);
                let mut lost = Vec::new();
                for caller in callers {
                    lost.push(caller.await.unwrap().unwrap_err().is_connection_lost());
                }
                assert_eq!(lost, [is_first_lost, true, true]);
            });
        }
    }

    #[test]
    fn pending_replies_are_limited() {
        with_server(|pipeline, _server| async move {
            let enqueue = || pipeline.0.queue.enqueue(&request::ping(), now() + TIMEOUT);
            for _ in 0..MAX_PENDING {
                drop(enqueue().unwrap());
            }
            assert!(matches!(enqueue(), Err(Failure::QueueFull)));
        });
    }

    #[test]
    fn reply_to_a_cancelled_command_is_discarded() {
        with_server(|pipeline, mut server| async move {
            let late = send_within(&pipeline, "late", TIMEOUT / 2);
            let (cancelled, patient) = (send(&pipeline, "cancelled"), send(&pipeline, "patient"));
            late.await.unwrap().unwrap_err();
            cancelled.abort();
            server.write_all(b"$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n").await.unwrap();
            assert_eq!(patient.await.unwrap().unwrap(), bytes("3"));
        });
    }

    #[test]
    fn broken_connection_fails_pending_and_later_commands() {
        for sent in ["", "$1\r\nx\r\n+x\r\n+unasked\r\n", "*1\r\n", "$101\r\n"] {
            with_server(move |pipeline, mut server| async move {
                let waiting = [send(&pipeline, "a"), send(&pipeline, "b")];
                expect_commands(&mut server, &["a", "b"]).await;
                server.write_all(sent.as_bytes()).await.unwrap();
                let is_answered = sent.starts_with("$1\r");
                if !is_answered {
                    server.shutdown().await.unwrap();
                }
                let began = now();
                for one in waiting {
                    assert_eq!(one.await.unwrap().is_ok(), is_answered, "{sent:?}");
                }
                tokio::task::yield_now().await;
                let failure = send(&pipeline, "c").await.unwrap().unwrap_err();
                assert!(failure.is_connection_lost(), "{failure}");
                assert_eq!(now() - began, Duration::ZERO, "at once");
            });
        }
    }

    #[test]
    fn commands_fail_when_the_runtime_ends() {
        watchdog(TEST_TIMEOUT, || {
            let (ours, _server) = duplex(1024);
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            let pipeline =
                runtime.block_on(async { Pipeline::from_stream(ours, TIMEOUT, 100, now) });
            let enqueue = || pipeline.0.queue.enqueue(&request::ping(), now() + TIMEOUT);
            let reply = enqueue().unwrap();
            drop(runtime);
            assert!(reply.blocking_recv().unwrap().is_err());
            assert!(enqueue().is_err());
        });
    }

    #[test]
    fn last_handle_stops_the_driver() {
        with_server(|pipeline, mut server| async move {
            let other = pipeline.clone();
            drop(pipeline);
            let waiting = send(&other, "a");
            expect_commands(&mut server, &["a"]).await;
            server.write_all(b"$-1\r\n").await.unwrap();
            waiting.await.unwrap().unwrap();
            drop(other);
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "it is connection_closed");
        });
    }

    #[test]
    fn timeout_holds_while_a_write_blocks() {
        watchdog(TEST_TIMEOUT, || {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let (ours, _server) = duplex(16);
                let pipeline = Pipeline::from_stream(ours, TIMEOUT, 100, now);
                let first = send(&pipeline, "a name that is longer than what the pipe takes");
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                // Left while the first is being written.
                let second = send(&pipeline, "second");
                assert!(matches!(first.await.unwrap(), Err(Failure::Timeout(_))));
                assert!(matches!(second.await.unwrap(), Err(Failure::Timeout(_))));
                // A server that takes nothing is as silent as one that says nothing.
                let third = tokio::time::timeout(100 * TIMEOUT, send(&pipeline, "third")).await;
                assert!(third.unwrap().unwrap().unwrap_err().is_connection_lost());
            });
        });
    }
}
