//! Connections that receive published messages.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use crate::error::Failure;
use crate::tcp;

/// A connection of the `redis` crate to one server that receives published messages.
///
/// Without TLS the bytes that the server may send are limited.
pub(crate) struct Subscription {
    connection: MultiplexedConnection,
    bounded: Option<Bounded>,
}

/// The driver of a connection without TLS, and its limit.
struct Bounded {
    budget: Arc<ByteBudget>,
    _driver: Driver,
}

impl Subscription {
    /// Connects and authenticates.
    pub(crate) async fn connect(
        server: &ConnectionInfo,
        max_bytes: u64,
        config: AsyncConnectionConfig,
    ) -> Result<Self, Failure> {
        match server.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = tcp::connect_async(host, *port).await?;
                Self::from_stream(stream, server, max_bytes, config).await
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                Self::from_stream(UnixStream::connect(path).await?, server, max_bytes, config).await
            }
            #[cfg(feature = "tls")]
            ConnectionAddr::TcpTls { .. } => {
                let client = redis::Client::open(server.clone())?;
                let connect = client.get_multiplexed_async_connection_with_config(&config);
                Ok(Self { connection: connect.await?, bounded: None })
            }
            _ => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    async fn from_stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        stream: S,
        server: &ConnectionInfo,
        max_bytes: u64,
        config: AsyncConnectionConfig,
    ) -> Result<Self, Failure> {
        let budget = Arc::new(ByteBudget::default());
        let stream = BoundedStream { stream, budget: Arc::clone(&budget), max_bytes };
        let settings = server.redis_settings();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(settings, stream, config).await?;
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Ok(Self { connection, bounded: Some(Bounded { budget, _driver: driver }) })
    }

    /// Subscribes to a channel.
    pub(crate) async fn subscribe(&mut self, channel: &[u8]) -> Result<(), Failure> {
        Ok(self.connection.subscribe(channel).await?)
    }

    /// Returns the reply to a command.
    pub(crate) async fn send(&mut self, command: &Cmd) -> Result<Value, Failure> {
        let _pending = self.bounded.as_ref().map(|bounded| bounded.budget.expect_reply());
        Ok(self.connection.req_packed_command(command).await?.extract_error()?)
    }

    /// Counts received bytes from here: those up to now were expected.
    pub(crate) fn reset_budget(&self) {
        if let Some(bounded) = &self.bounded {
            bounded.budget.reset();
        }
    }
}

/// The task that reads and writes. It is aborted with the subscription.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Received bytes of a connection, limited by the number of pending replies.
#[derive(Debug, Default)]
struct ByteBudget {
    received: AtomicU64,
    /// Bytes that were received when the last expected message or reply was complete.
    counted_from: AtomicU64,
    /// Number of pending replies.
    pending: AtomicU64,
}

impl ByteBudget {
    /// Raises the limit until the returned guard is dropped.
    fn expect_reply(&self) -> PendingReply<'_> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingReply(self)
    }

    fn reset(&self) {
        self.counted_from.store(self.received.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn receive(&self, length: u64, max_bytes: u64) -> io::Result<()> {
        let received = self.received.fetch_add(length, Ordering::Relaxed) + length;
        let open = received.saturating_sub(self.counted_from.load(Ordering::Relaxed));
        let replies = self.pending.load(Ordering::Relaxed) + 1;
        if open > replies.saturating_mul(max_bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "replies too long"));
        }
        Ok(())
    }
}

/// A guard for one pending reply.
struct PendingReply<'a>(&'a ByteBudget);

impl Drop for PendingReply<'_> {
    fn drop(&mut self) {
        self.0.reset();
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that fails when the server sends much more than was requested.
struct BoundedStream<S> {
    stream: S,
    budget: Arc<ByteBudget>,
    max_bytes: u64,
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let length = buffer.filled().len() - before;
        Poll::Ready(self.budget.receive(length as u64, self.max_bytes))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_bytes_are_limited_per_pending_reply_and_counted_from_the_last_reply() {
        let budget = ByteBudget::default();
        let first = budget.expect_reply();
        let second = budget.expect_reply();
        budget.receive(30, 10).expect("two pending replies, and a message may be on its way");
        drop(first);
        budget.receive(20, 10).expect("one pending reply");
        budget.receive(1, 10).expect_err("one byte too many");
        drop(second);
        budget.receive(10, 10).expect("no pending reply");
        budget.receive(1, 10).expect_err("no pending reply");
    }
}
