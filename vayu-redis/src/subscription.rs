//! The connection on which messages of other processes are heard.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use crate::error::Failure;

/// A connection of the library to one server, on which messages are heard.
///
/// Without TLS its stream is one of ours, which has a limit of bytes.
pub(crate) struct Subscription {
    connection: MultiplexedConnection,
    own: Option<Own>,
}

struct Own {
    flow: Arc<Flow>,
    _driver: Driver,
}

impl Subscription {
    /// Connects and says who we are.
    pub(crate) async fn connect(
        server: &ConnectionInfo,
        max_bytes: u64,
        config: AsyncConnectionConfig,
    ) -> Result<Self, Failure> {
        match server.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Self::over(stream, server, max_bytes, config).await
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                Self::over(UnixStream::connect(path).await?, server, max_bytes, config).await
            }
            #[cfg(feature = "tls")]
            ConnectionAddr::TcpTls { .. } => {
                let client = redis::Client::open(server.clone())?;
                let connect = client.get_multiplexed_async_connection_with_config(&config);
                Ok(Self { connection: connect.await?, own: None })
            }
            _ => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        stream: S,
        server: &ConnectionInfo,
        max_bytes: u64,
        config: AsyncConnectionConfig,
    ) -> Result<Self, Failure> {
        let flow = Arc::new(Flow::default());
        let stream = Limited { stream, flow: Arc::clone(&flow), max_bytes };
        let settings = server.redis_settings();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(settings, stream, config).await?;
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Ok(Self { connection, own: Some(Own { flow, _driver: driver }) })
    }

    /// Hears what is published on a channel from now on.
    pub(crate) async fn subscribe(&mut self, channel: &[u8]) -> Result<(), Failure> {
        Ok(self.connection.subscribe(channel).await?)
    }

    /// The answer to a command.
    pub(crate) async fn ask(&mut self, command: &Cmd) -> Result<Value, Failure> {
        let _asking = self.own.as_ref().map(|own| own.flow.ask());
        Ok(self.connection.req_packed_command(command).await?.extract_error()?)
    }

    /// What was received up to now was asked for.
    pub(crate) fn settle(&self) {
        if let Some(own) = &self.own {
            own.flow.settle();
        }
    }
}

/// What carries the bytes. It ends with the subscription.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How much has come over a connection, and how much may have.
#[derive(Debug, Default)]
struct Flow {
    received: AtomicU64,
    settled: AtomicU64,
    asking: AtomicU64,
}

impl Flow {
    fn ask(&self) -> Asking<'_> {
        self.asking.fetch_add(1, Ordering::Relaxed);
        Asking(self)
    }

    fn settle(&self) {
        self.settled.store(self.received.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn receive(&self, length: u64, max_bytes: u64) -> io::Result<()> {
        let received = self.received.fetch_add(length, Ordering::Relaxed) + length;
        let open = received.saturating_sub(self.settled.load(Ordering::Relaxed));
        let askers = self.asking.load(Ordering::Relaxed) + 1;
        if open > askers.saturating_mul(max_bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answers are too long"));
        }
        Ok(())
    }
}

struct Asking<'a>(&'a Flow);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.settle();
        self.0.asking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that breaks when the server sends much more than it was asked for.
struct Limited<S> {
    stream: S,
    flow: Arc<Flow>,
    max_bytes: u64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let length = buffer.filled().len() - before;
        Poll::Ready(self.flow.receive(length as u64, self.max_bytes))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
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
    fn flow_is_limited_by_who_asks_and_counted_anew_with_each_answer() {
        let flow = Flow::default();
        let first = flow.ask();
        let second = flow.ask();
        flow.receive(30, 10).expect("two ask, and one answer may be on its way");
        drop(first);
        flow.receive(20, 10).expect("one asks");
        flow.receive(1, 10).expect_err("that is too much");
        drop(second);
        flow.receive(10, 10).expect("nobody asks");
        flow.receive(1, 10).expect_err("nobody asks");
    }
}
