//! Request pipelining: many async callers share one connection without TLS.
//!
//! A caller appends its command to a queue and waits for its reply. If no reply is pending, it writes the command to
//! the socket itself, which saves a hand-over to another thread. Otherwise, a driver task writes all queued
//! commands with one system call, without waiting for the replies of earlier ones. The server
//! executes the commands of a connection in order, so replies carry no identifier: the first
//! pending command receives the first reply.
//!
//! A command cannot be withdrawn once it was written. When a caller is cancelled or its deadline
//! passes, its entry stays in the queue without a receiver, and the reply is discarded when it
//! arrives; other callers are not affected. The connection is closed only by the driver: when the
//! server closes it, when something other than a reply is received, or when nothing at all is
//! received for a whole timeout while replies are pending.
//!
//! One timer serves all pending commands. It is set to the earliest deadline and again when it has
//! fired, not for each command.

mod queue;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
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

use self::queue::{Queue, connection_closed};
use crate::error::Failure;
use crate::request::{self, Replies, command_result};
use crate::resp;
use crate::tcp::{self, Socket};

/// A connection without TLS to one server. A clone is the same connection.
///
/// Each reply has a deadline and a limit of bytes.
#[derive(Clone)]
pub(crate) struct Pipeline(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    driver: AbortHandle,
}

/// Stops the driver with the last clone of the pipeline.
impl Drop for Handle {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Pipeline {
    /// Connects and authenticates.
    pub(crate) async fn connect(
        server: &ConnectionInfo,
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + timeout;
        let pipeline = match server.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = tcp::connect_async(host, *port).await?;
                let stream = stream.into_std()?;
                let direct = stream.try_clone()?;
                direct.set_nonblocking(true)?;
                let stream = TcpStream::from_std(stream)?;
                Self::from_stream(stream, Box::new(direct), timeout, max_bytes, Instant::now)
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path).await?.into_std()?;
                let direct = stream.try_clone()?;
                direct.set_nonblocking(true)?;
                let stream = UnixStream::from_std(stream)?;
                Self::from_stream(stream, Box::new(direct), timeout, max_bytes, Instant::now)
            }
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        for command in request::handshake(server.redis_settings()) {
            pipeline.send(&command, deadline).await?;
        }
        Ok(pipeline)
    }

    /// Creates a pipeline over a stream. `direct` writes to the same stream, and never blocks.
    fn from_stream<S>(
        stream: S,
        direct: Box<dyn Socket>,
        timeout: Duration,
        max_bytes: u64,
        now: fn() -> Instant,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let queue = Arc::new(Queue::new(direct, timeout, now));
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
    pub(crate) async fn send(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let reply = self.0.queue.enqueue(command, deadline)?;
        received(reply.await)
    }

    /// Returns the replies to several commands, which are written together, before the deadline and on any
    /// executor. An error reply is that of its command.
    ///
    /// # Errors
    ///
    /// If the reply to one of them was not received, or the server cannot execute any command.
    pub(crate) async fn send_all(
        &self,
        commands: &[Cmd],
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        let mut replies = Vec::with_capacity(commands.len());
        for reply in self.0.queue.enqueue_all(commands, deadline)? {
            replies.push(command_result(received(reply.await))?);
        }
        Ok(replies)
    }
}

fn received(
    reply: Result<Result<Value, Failure>, oneshot::error::RecvError>,
) -> Result<Value, Failure> {
    let value = reply.unwrap_or_else(|_| Err(connection_closed()))?;
    Ok(value.extract_error()?)
}

/// The task that reads and writes, until the connection fails.
struct Driver<S> {
    stream: S,
    queue: Arc<Queue>,
    writing: Vec<u8>,
    written: usize,
    received: BytesMut,
    max_bytes: u64,
    /// Time at which bytes were last received.
    last_received: Instant,
    /// The timer of all pending commands.
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
}

/// Number of bytes to read at once.
const READ_SIZE: usize = 8 * 1024;

/// Capacity above which an empty buffer is freed.
const MAX_IDLE_BUFFER: usize = 256 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn drive(&mut self, context: &mut Context<'_>) -> Result<(), RedisError> {
        // Read first: a server whose replies are not read stops reading commands.
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
                    self.last_received = self.queue.now();
                }
            }
            loop {
                let items = || self.queue.next_items();
                let reply = resp::parse(&self.received, self.max_bytes, items)?;
                let Some((value, length)) = reply else { break };
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

    /// Sets the timer if a command is pending, and expires commands when it has fired.
    fn arm_timeout(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let next = self.queue.next_timeout();
            if let Some(at) = next.filter(|_| next != self.timer_at) {
                self.timer.as_mut().reset(at.into());
            }
            self.timer_at = next;
            if next.is_none() || self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            // A timer that has fired must be set again, even to the same time.
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

/// Fails the pending commands: the runtime of the driver may end before its callers.
impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.queue.close(&io::Error::from(io::ErrorKind::ConnectionAborted).into(), false);
    }
}
