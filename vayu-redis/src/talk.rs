//! The connection of async callers without TLS: many of them talk over one at a time.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use redis::{Cmd, ConnectionAddr, ConnectionInfo, RedisError, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::answer;
use crate::command;
use crate::failure::Failure;

/// A connection without TLS to one server. A clone is the same one.
///
/// What is asked meanwhile is written in one piece. Each answer has a time limit and a limit of bytes.
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
}

#[derive(Default)]
struct State {
    /// Commands that nobody has begun to write.
    commands: Vec<u8>,
    /// Those who are owed an answer, in the order in which the server answers.
    asked: VecDeque<Asked>,
    driver: Option<Waker>,
    /// Whether the driver will look for those who have waited too long.
    is_alarm_set: bool,
    is_closed: bool,
}

struct Asked {
    /// Nothing once it has taken too long. The answer is then still to come.
    caller: Option<oneshot::Sender<Result<Value, Failure>>>,
    deadline: Instant,
}

impl Talk {
    /// Connects and says who we are.
    pub(crate) async fn connect(
        server: &ConnectionInfo,
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<Self, Failure> {
        let talk = match server.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Self::over(stream, timeout, max_bytes)
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                Self::over(UnixStream::connect(path).await?, timeout, max_bytes)
            }
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        for greeting in command::greetings(server.redis_settings()) {
            talk.ask(&greeting).await?;
        }
        Ok(talk)
    }

    fn over<S>(stream: S, timeout: Duration, max_bytes: u64) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let desk = Arc::new(Desk { state: Mutex::default(), timeout });
        let driver = Driver {
            stream,
            desk: Arc::clone(&desk),
            writing: Vec::new(),
            written: 0,
            received: BytesMut::new(),
            max_bytes,
            alarm: Box::pin(sleep_until(Instant::now())),
            is_alarm_set: false,
        };
        Self(Arc::new(Ends { desk, driver: tokio::spawn(driver).abort_handle() }))
    }

    /// The answer to a command. It takes no longer than the time limit.
    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        let answer = self.0.desk.leave(command)?;
        let value = answer.await.unwrap_or_else(|_| Err(closed()))?;
        Ok(value.extract_error()?)
    }
}

impl Desk {
    /// Leaves a command to be written.
    fn leave(&self, command: &Cmd) -> Result<oneshot::Receiver<Result<Value, Failure>>, Failure> {
        let (caller, answer) = oneshot::channel();
        let deadline = Instant::now() + self.timeout.min(LONGEST);
        let mut state = self.state();
        if state.is_closed {
            return Err(closed());
        }
        // Whoever left the first of several has woken the driver, and has seen to it that there is an
        // alarm, unless it has gone off since.
        let is_awake = !state.commands.is_empty() && state.is_alarm_set;
        let driver = if is_awake { None } else { state.driver.clone() };
        command.write_packed_command(&mut state.commands);
        state.asked.push_back(Asked { caller: Some(caller), deadline });
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
    fn dismiss(&self, now: Instant) -> Option<Instant> {
        let mut late = Vec::new();
        let mut state = self.state();
        let mut waiting = state.asked.iter_mut().filter(|asked| asked.caller.is_some());
        let next = loop {
            match waiting.next() {
                Some(asked) if asked.deadline <= now => late.extend(asked.caller.take()),
                next => break next.map(|asked| asked.deadline),
            }
        };
        state.is_alarm_set = next.is_some();
        drop(state);
        for caller in late {
            let _ = caller.send(Err(Failure::Timeout(self.timeout)));
        }
        next
    }

    /// There will be no answers any more.
    fn close(&self, error: &RedisError) {
        let mut state = self.state();
        state.is_closed = true;
        let asked = mem::take(&mut state.asked);
        drop(state);
        for caller in asked.into_iter().filter_map(|asked| asked.caller) {
            let _ = caller.send(Err(Failure::Redis(error.clone())));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time limit beyond this is none.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const UNASKED: &str = "an answer to nothing that was asked";

fn closed() -> Failure {
    io::Error::from(io::ErrorKind::ConnectionAborted).into()
}

/// What carries the bytes, for as long as all goes well.
struct Driver<S> {
    stream: S,
    desk: Arc<Desk>,
    writing: Vec<u8>,
    written: usize,
    received: BytesMut,
    max_bytes: u64,
    /// One alarm for all who wait: they have the same time limit, so the first to ask is the first
    /// for whom it is over.
    alarm: Pin<Box<Sleep>>,
    is_alarm_set: bool,
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
        self.watch(context);
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
                }
            }
            while let Some((value, length)) = answer::first(&self.received, self.max_bytes)? {
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
    fn watch(&mut self, context: &mut Context<'_>) {
        while !self.is_alarm_set || self.alarm.as_mut().poll(context).is_ready() {
            let next = self.desk.dismiss(Instant::now());
            self.is_alarm_set = next.is_some();
            match next {
                Some(deadline) => self.alarm.as_mut().reset(deadline),
                None => return,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.carry(context) {
            Ok(()) => Poll::Pending,
            Err(error) => {
                self.desk.close(&error);
                Poll::Ready(())
            }
        }
    }
}

/// Its runtime may end before its callers do.
impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.desk.close(&io::Error::from(io::ErrorKind::ConnectionAborted).into());
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::runtime::Builder;
    use vayu_core::testing::watchdog;

    use super::*;

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
                test(Talk::over(ours, TIMEOUT, 100), server).await;
            });
        });
    }

    fn ask(talk: &Talk, name: &str) -> tokio::task::JoinHandle<Result<Value, Failure>> {
        let (talk, command) = (talk.clone(), command::get(name));
        tokio::spawn(async move { talk.ask(&command).await })
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
                assert!(third.await.unwrap().unwrap_err().is_answer());
            }
        });
    }

    #[test]
    fn each_has_the_whole_time_limit_and_no_more() {
        with_server(|talk, mut server| async move {
            let began = Instant::now();
            let early = ask(&talk, "early");
            tokio::time::sleep(TIMEOUT / 2).await;
            let late = ask(&talk, "late");
            assert!(matches!(early.await.unwrap(), Err(Failure::Timeout(TIMEOUT))));
            let grain = Duration::from_millis(2);
            assert!(began.elapsed() >= TIMEOUT && began.elapsed() <= TIMEOUT + grain);
            assert!(matches!(late.await.unwrap(), Err(Failure::Timeout(TIMEOUT))));
            let (took, both) = (began.elapsed(), TIMEOUT + TIMEOUT / 2);
            assert!(took >= both && took <= both + grain, "{took:?}");
            // Also after a time in which nobody waited.
            tokio::time::sleep(TIMEOUT).await;
            let began = Instant::now();
            assert!(matches!(ask(&talk, "again").await.unwrap(), Err(Failure::Timeout(TIMEOUT))));
            assert!(began.elapsed() <= TIMEOUT + grain);
            server.shutdown().await.unwrap();
        });
    }

    #[test]
    fn answer_for_who_has_gone_is_nobody_elses() {
        with_server(|talk, mut server| async move {
            let late = ask(&talk, "late");
            tokio::time::sleep(TIMEOUT / 2).await;
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
                let began = Instant::now();
                for one in waiting {
                    assert_eq!(one.await.unwrap().is_ok(), is_answered, "{speech:?}");
                }
                tokio::task::yield_now().await;
                let failure = ask(&talk, "c").await.unwrap().unwrap_err();
                assert!(!failure.is_answer() && !matches!(failure, Failure::Timeout(_)));
                assert_eq!(began.elapsed(), Duration::ZERO, "at once");
            });
        }
    }

    #[test]
    fn callers_outlive_the_runtime_of_their_connection() {
        watchdog(HANG, || {
            let (ours, _server) = duplex(1024);
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            let talk = runtime.block_on(async { Talk::over(ours, TIMEOUT, 100) });
            let answer = talk.0.desk.leave(&command::ping()).unwrap();
            drop(runtime);
            assert!(answer.blocking_recv().unwrap().is_err());
            assert!(talk.0.desk.leave(&command::ping()).is_err());
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
                let talk = Talk::over(ours, TIMEOUT, 100);
                let first = ask(&talk, "a name that is longer than what the pipe takes");
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                // Left while the first is being written.
                let second = ask(&talk, "second");
                assert!(matches!(first.await.unwrap(), Err(Failure::Timeout(_))));
                assert!(matches!(second.await.unwrap(), Err(Failure::Timeout(_))));
                // Nobody waits now, but there are still commands to be written.
                let third = tokio::time::timeout(100 * TIMEOUT, ask(&talk, "third")).await;
                assert!(matches!(third.unwrap().unwrap(), Err(Failure::Timeout(_))));
            });
        });
    }
}
