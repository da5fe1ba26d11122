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

use crate::command;
use crate::error::Failure;
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
pub(crate) struct Talk(Arc<Ends>);

struct Ends {
    desk: Arc<Desk>,
    driver: AbortHandle,
}

/// The driver ends with the last caller.
impl Drop for Ends {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Where callers leave their commands.
struct Desk {
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
    asked: VecDeque<Asked>,
    driver: Option<Waker>,
    /// When the driver is to look for those who have waited too long.
    alarm: Option<Instant>,
    is_closed: bool,
}

struct Asked {
    /// Nothing once it has taken too long. The answer is then still to come.
    caller: Option<oneshot::Sender<Result<Value, Failure>>>,
    since: Instant,
    deadline: Instant,
}

impl Talk {
    /// Connects and says who we are.
    pub(crate) async fn connect(
        server: &ConnectionInfo,
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + timeout;
        let talk = match server.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Self::over(stream, timeout, max_bytes, Instant::now)
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                Self::over(UnixStream::connect(path).await?, timeout, max_bytes, Instant::now)
            }
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        for greeting in command::greetings(server.redis_settings()) {
            talk.ask(&greeting, deadline).await?;
        }
        Ok(talk)
    }

    fn over<S>(stream: S, timeout: Duration, max_bytes: u64, now: fn() -> Instant) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let desk = Arc::new(Desk { state: Mutex::default(), timeout, now });
        let driver = Driver {
            stream,
            desk: Arc::clone(&desk),
            writing: Vec::new(),
            written: 0,
            received: BytesMut::new(),
            max_bytes,
            heard: now(),
            alarm: Box::pin(sleep_until(now().into())),
            alarm_at: None,
        };
        Self(Arc::new(Ends { desk, driver: tokio::spawn(driver).abort_handle() }))
    }

    /// Returns the reply to a command, before the deadline and on any executor.
    pub(crate) async fn ask(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let answer = self.0.desk.leave(command, deadline)?;
        let value = answer.await.unwrap_or_else(|_| Err(closed()))?;
        Ok(value.extract_error()?)
    }
}

impl Desk {
    /// Leaves a command to be written.
    fn leave(&self, command: &Cmd, deadline: Instant) -> Result<Owed, Failure> {
        let (caller, answer) = oneshot::channel();
        let since = (self.now)();
        let mut state = self.state();
        if state.is_closed {
            return Err(closed());
        }
        if state.asked.len() >= MOST {
            return Err(Failure::Crowded);
        }
        // Whoever left the first of several has woken the driver, and has seen to it that there is an
        // alarm, unless it has gone off since.
        let first_alarm = deadline.min(since + self.timeout);
        let is_sooner = state.alarm.is_none_or(|alarm| first_alarm < alarm);
        if is_sooner {
            state.alarm = Some(first_alarm);
        }
        let is_awake = !state.commands.is_empty() && !is_sooner;
        let driver = if is_awake { None } else { state.driver.clone() };
        command.write_packed_command(&mut state.commands);
        state.asked.push_back(Asked { caller: Some(caller), since, deadline });
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(answer)
    }

    /// Takes what is to be written in exchange for empty room. Who asks to be woken is woken when
    /// there is more.
    fn collect(&self, room: &mut Vec<u8>, waker: &Waker) {
        let mut state = self.state();
        mem::swap(&mut state.commands, room);
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(waker)) {
            state.driver = Some(waker.clone());
        }
    }

    /// Hands an answer to the caller whose turn it is.
    fn answer(&self, value: Value) -> Result<(), RedisError> {
        let next = self.state().asked.pop_front();
        let asked = next.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, UNASKED))?;
        if let Some(caller) = asked.caller {
            // Nobody is there any more if the call was cancelled.
            let _ = caller.send(Ok(value));
        }
        Ok(())
    }

    /// Sends those away who have waited too long, and says when the next one will have.
    ///
    /// # Errors
    ///
    /// When nothing was received, of which `heard` is the last moment, for as long as a reply may take.
    fn dismiss(&self, heard: Instant) -> io::Result<()> {
        let now = (self.now)();
        let mut late = Vec::new();
        let mut state = self.state();
        let mut next: Option<Instant> = None;
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for asked in state.asked.iter_mut().filter(|asked| asked.caller.is_some()) {
            if asked.deadline <= now {
                late.extend(asked.caller.take());
            } else {
                sooner(asked.deadline);
            }
        }
        // Also if all of them have gone: the next one is not to wait in vain.
        let silent = state.asked.front().map(|first| first.since.max(heard) + self.timeout);
        silent.into_iter().for_each(&mut sooner);
        state.alarm = next;
        drop(state);
        for caller in late {
            let _ = caller.send(Err(Failure::Timeout(self.timeout)));
        }
        if silent.is_some_and(|silent| silent <= now) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// When to call [`dismiss`](Self::dismiss).
    fn alarm(&self) -> Option<Instant> {
        self.state().alarm
    }

    /// There will be no answers any more. The first one may have begun.
    fn close(&self, error: &RedisError, has_begun: bool) {
        let mut state = self.state();
        state.is_closed = true;
        let asked = mem::take(&mut state.asked);
        drop(state);
        for (place, asked) in asked.into_iter().enumerate() {
            let failure = if place == 0 && has_begun { Failure::Redis } else { Failure::Lost };
            if let Some(caller) = asked.caller {
                let _ = caller.send(Err(failure(error.clone())));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Owed = oneshot::Receiver<Result<Value, Failure>>;

/// More replies than this are not waited for. Callers who do not wait for theirs might leave commands
/// faster than the server executes them.
const MOST: usize = 1 << 16;

const UNASKED: &str = "an answer to nothing that was asked";

fn closed() -> Failure {
    Failure::Lost(io::Error::from(io::ErrorKind::ConnectionAborted).into())
}

/// What carries the bytes, for as long as all goes well.
struct Driver<S> {
    stream: S,
    desk: Arc<Desk>,
    writing: Vec<u8>,
    written: usize,
    received: BytesMut,
    max_bytes: u64,
    /// When bytes were received the last time.
    heard: Instant,
    /// One alarm for all who wait.
    alarm: Pin<Box<Sleep>>,
    alarm_at: Option<Instant>,
}

/// So much is read at once if it is there.
const PIECE: usize = 8 * 1024;

/// A buffer that has become larger than this is not kept.
const LARGE: usize = 256 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn carry(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        // First what is there: a server that is not listened to does not listen either.
        self.read(context)?;
        self.write(context)?;
        self.watch(context)?;
        Ok(())
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        loop {
            if self.received.is_empty() && self.received.capacity() > LARGE {
                self.received = BytesMut::new();
            }
            self.received.reserve(PIECE);
            let read = pin!(self.stream.read_buf(&mut self.received)).poll(context);
            match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(length) => {
                    if length? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    self.heard = (self.desk.now)();
                }
            }
            while let Some((value, length)) = resp::first(&self.received, self.max_bytes)? {
                self.received.advance(length);
                self.desk.answer(value)?;
            }
        }
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        loop {
            let left = &self.writing[self.written..];
            if left.is_empty() {
                self.written = 0;
                self.writing.clear();
                self.writing.shrink_to(LARGE);
                self.desk.collect(&mut self.writing, context.waker());
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
    fn watch(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let alarm = self.desk.alarm();
            if let Some(at) = alarm.filter(|_| alarm != self.alarm_at) {
                self.alarm.as_mut().reset(at.into());
            }
            self.alarm_at = alarm;
            if alarm.is_none() || self.alarm.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            // What has gone off is set again, if only for the same moment.
            self.alarm_at = None;
            self.desk.dismiss(self.heard)?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.carry(context) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                self.desk.close(&error, !self.received.is_empty());
                Poll::Ready(())
            }
        }
    }
}

/// Its runtime may end before its callers do.
impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.desk.close(&io::Error::from(io::ErrorKind::ConnectionAborted).into(), false);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::runtime::Builder;
    use vayu_core::testing::watchdog;

    use super::*;
    use crate::reply::Scope;

    const TIMEOUT: Duration = Duration::from_millis(250);
    const HANG: Duration = Duration::from_secs(20);

    /// Runs a test whose time moves on when everybody waits.
    fn with_server<F: Future<Output = ()>>(
        test: impl FnOnce(Talk, DuplexStream) -> F + Send + 'static,
    ) {
        watchdog(HANG, || {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let (ours, server) = duplex(64 * 1024);
                test(Talk::over(ours, TIMEOUT, 100, now), server).await;
            });
        });
    }

    /// The time of the runtime, which a test moves.
    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn ask(talk: &Talk, name: &str) -> tokio::task::JoinHandle<Result<Value, Failure>> {
        ask_within(talk, name, TIMEOUT)
    }

    fn ask_within(
        talk: &Talk,
        name: &str,
        limit: Duration,
    ) -> tokio::task::JoinHandle<Result<Value, Failure>> {
        let (talk, command, deadline) = (talk.clone(), command::get(name), now() + limit);
        tokio::spawn(async move { talk.ask(&command, deadline).await })
    }

    async fn hear(server: &mut DuplexStream, names: &[&str]) {
        let expected: Vec<u8> =
            names.iter().flat_map(|name| command::get(name).get_packed_command()).collect();
        let mut heard = vec![0; 2 * expected.len()];
        let length = server.read(&mut heard).await.unwrap();
        assert_eq!(heard[..length], expected, "in one piece");
    }

    fn bytes(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn what_is_asked_at_once_is_written_in_one_piece_and_answered_in_order() {
        with_server(|talk, mut server| async move {
            for _ in 0..3 {
                let asked = ["a", "b", "c"].map(|name| ask(&talk, name));
                hear(&mut server, &["a", "b", "c"]).await;
                for piece in [&b"$1\r\nx\r"[..], b"\n$-1\r", b"\n-WRONGTYPE no\r\n"] {
                    server.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let [first, second, third] = asked;
                assert_eq!(first.await.unwrap().unwrap(), bytes("x"));
                assert_eq!(second.await.unwrap().unwrap(), Value::Nil);
                assert_eq!(third.await.unwrap().unwrap_err().scope(), Scope::Command);
            }
        });
    }

    #[test]
    fn each_has_the_whole_time_limit_and_no_more() {
        with_server(|talk, mut server| async move {
            let began = now();
            let early = ask(&talk, "early");
            tokio::time::sleep(TIMEOUT / 2).await;
            let late = ask(&talk, "late");
            // The connection is not silent.
            tokio::time::sleep(TIMEOUT / 4).await;
            server.write_all(b"$").await.unwrap();
            let sooner = ask_within(&talk, "sooner", TIMEOUT / 8);
            let grain = Duration::from_millis(2);
            for (caller, limit) in
                [(sooner, TIMEOUT * 7 / 8), (early, TIMEOUT), (late, TIMEOUT + TIMEOUT / 2)]
            {
                assert!(matches!(caller.await.unwrap(), Err(Failure::Timeout(TIMEOUT))));
                let compute_time = now() - began;
                assert!(
                    compute_time >= limit && compute_time <= limit + grain,
                    "{compute_time:?} of {limit:?}"
                );
            }
        });
    }

    /// Nothing comes, neither a reply nor the end: as behind a firewall that has forgotten it.
    #[test]
    fn silent_connection_is_given_up_after_a_time_limit_also_if_all_callers_have_gone() {
        for is_cancelled in [false, true] {
            with_server(move |talk, mut server| async move {
                // A connection that was not used for a while is not silent: nothing was asked.
                tokio::time::sleep(10 * TIMEOUT).await;
                let first = ask(&talk, "first");
                hear(&mut server, &["first"]).await;
                tokio::time::sleep(TIMEOUT / 2).await;
                let second = ask(&talk, "second");
                tokio::task::yield_now().await;
                if is_cancelled {
                    first.abort();
                } else {
                    assert!(matches!(first.await.unwrap(), Err(Failure::Timeout(_))));
                }
                assert!(second.await.unwrap().unwrap_err().is_lost(), "it may be sent again");
                assert!(ask(&talk, "third").await.unwrap().unwrap_err().is_lost());
            });
        }
    }

    #[test]
    fn slow_connection_is_kept_and_replies_go_to_whom_they_belong() {
        with_server(|talk, mut server| async move {
            for _ in 0..5 {
                let late = ask(&talk, "late");
                tokio::time::sleep(TIMEOUT * 9 / 10).await;
                let patient = ask(&talk, "patient");
                server.write_all(b"$4\r\nl").await.unwrap();
                late.await.unwrap().unwrap_err();
                server.write_all(b"ate\r\n$1\r\np\r\n").await.unwrap();
                assert_eq!(patient.await.unwrap().unwrap(), bytes("p"));
            }
        });
    }

    #[test]
    fn command_of_which_no_reply_has_begun_may_be_sent_again_when_the_connection_breaks() {
        for (speech, is_first_lost) in [("", true), ("$1\r\n", false)] {
            with_server(move |talk, mut server| async move {
                let callers = ["a", "b", "c"].map(|name| ask(&talk, name));
                hear(&mut server, &["a", "b", "c"]).await;
                server.write_all(speech.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
                drop(server);
                let mut lost = Vec::new();
                for caller in callers {
                    lost.push(caller.await.unwrap().unwrap_err().is_lost());
                }
                assert_eq!(lost, [is_first_lost, true, true]);
            });
        }
    }

    #[test]
    fn commands_of_callers_who_do_not_wait_are_not_kept_without_limit() {
        with_server(|talk, _server| async move {
            let leave = || talk.0.desk.leave(&command::ping(), now() + TIMEOUT);
            for _ in 0..MOST {
                drop(leave().unwrap());
            }
            assert!(matches!(leave(), Err(Failure::Crowded)));
        });
    }

    #[test]
    fn answer_for_who_has_gone_is_nobody_elses() {
        with_server(|talk, mut server| async move {
            let late = ask_within(&talk, "late", TIMEOUT / 2);
            let (cancelled, patient) = (ask(&talk, "cancelled"), ask(&talk, "patient"));
            late.await.unwrap().unwrap_err();
            cancelled.abort();
            server.write_all(b"$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n").await.unwrap();
            assert_eq!(patient.await.unwrap().unwrap(), bytes("3"));
        });
    }

    #[test]
    fn connection_that_breaks_is_an_error_for_all_who_wait_and_all_who_come() {
        for speech in ["", "$1\r\nx\r\n+x\r\n+unasked\r\n", "*1\r\n", "$101\r\n"] {
            with_server(move |talk, mut server| async move {
                let waiting = [ask(&talk, "a"), ask(&talk, "b")];
                hear(&mut server, &["a", "b"]).await;
                server.write_all(speech.as_bytes()).await.unwrap();
                let is_answered = speech.starts_with("$1\r");
                if !is_answered {
                    server.shutdown().await.unwrap();
                }
                let began = now();
                for one in waiting {
                    assert_eq!(one.await.unwrap().is_ok(), is_answered, "{speech:?}");
                }
                tokio::task::yield_now().await;
                let failure = ask(&talk, "c").await.unwrap().unwrap_err();
                assert!(failure.is_lost(), "{failure}");
                assert_eq!(now() - began, Duration::ZERO, "at once");
            });
        }
    }

    #[test]
    fn callers_outlive_the_runtime_of_their_connection() {
        watchdog(HANG, || {
            let (ours, _server) = duplex(1024);
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            let talk = runtime.block_on(async { Talk::over(ours, TIMEOUT, 100, now) });
            let leave = || talk.0.desk.leave(&command::ping(), now() + TIMEOUT);
            let answer = leave().unwrap();
            drop(runtime);
            assert!(answer.blocking_recv().unwrap().is_err());
            assert!(leave().is_err());
        });
    }

    #[test]
    fn driver_ends_with_the_last_caller() {
        with_server(|talk, mut server| async move {
            let other = talk.clone();
            drop(talk);
            let waiting = ask(&other, "a");
            hear(&mut server, &["a"]).await;
            server.write_all(b"$-1\r\n").await.unwrap();
            waiting.await.unwrap().unwrap();
            drop(other);
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "it is closed");
        });
    }

    #[test]
    fn time_limit_holds_behind_a_write_that_does_not_end() {
        watchdog(HANG, || {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let (ours, _server) = duplex(16);
                let talk = Talk::over(ours, TIMEOUT, 100, now);
                let first = ask(&talk, "a name that is longer than what the pipe takes");
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                // Left while the first is being written.
                let second = ask(&talk, "second");
                assert!(matches!(first.await.unwrap(), Err(Failure::Timeout(_))));
                assert!(matches!(second.await.unwrap(), Err(Failure::Timeout(_))));
                // A server that takes nothing is as silent as one that says nothing.
                let third = tokio::time::timeout(100 * TIMEOUT, ask(&talk, "third")).await;
                assert!(third.unwrap().unwrap().unwrap_err().is_lost());
            });
        });
    }
}
