//! Connections of sync callers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionAddr, ConnectionInfo, Parser, RedisError, Value};
#[cfg(any(feature = "tls", feature = "cluster"))]
use redis::{ConnectionLike, RedisResult};

use crate::deadline::time_until;
use crate::error::Failure;
use crate::request::{self, Request};

/// A connection that one caller uses at a time.
pub(crate) trait SyncConnection: Send {
    /// Returns the reply to a command. After an error other than an error reply the connection is
    /// unusable.
    fn send(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure>;
}

impl dyn SyncConnection + '_ {
    /// Returns the value of a request.
    pub(crate) fn execute<T>(
        &mut self,
        request: &Request<T>,
        deadline: Instant,
    ) -> Result<T, Failure> {
        request.parse(self.send(request.command(), deadline)?)
    }
}

/// A connection of the `redis` crate, which has one timeout for each read and write.
#[cfg(any(feature = "tls", feature = "cluster"))]
pub(crate) struct LibraryConnection<C> {
    connection: C,
    limit: Duration,
}

/// A connection whose read and write timeouts can be set.
#[cfg(any(feature = "tls", feature = "cluster"))]
pub(crate) trait SetTimeouts {
    fn set_timeouts(&self, limit: Duration) -> RedisResult<()>;
}

#[cfg(feature = "tls")]
impl SetTimeouts for redis::Connection {
    fn set_timeouts(&self, limit: Duration) -> RedisResult<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

#[cfg(feature = "cluster")]
impl SetTimeouts for redis::cluster::ClusterConnection {
    fn set_timeouts(&self, limit: Duration) -> RedisResult<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

#[cfg(any(feature = "tls", feature = "cluster"))]
impl<C: ConnectionLike + SetTimeouts> LibraryConnection<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, limit: Duration::ZERO }
    }
}

#[cfg(any(feature = "tls", feature = "cluster"))]
impl<C: ConnectionLike + SetTimeouts + Send> SyncConnection for LibraryConnection<C> {
    fn send(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let left = time_until(deadline)?;
        if differs(left, self.limit) {
            self.connection.set_timeouts(left)?;
            self.limit = left;
        }
        self.connection.req_command(command).map_err(Failure::from_library)
    }
}

/// Returns whether a timeout must be set again. That is a system call, so small differences are
/// accepted.
fn differs(limit: Duration, set: Duration) -> bool {
    const TOLERANCE: Duration = Duration::from_millis(10);
    limit.abs_diff(set) > TOLERANCE.min(set / 8)
}

/// A connection without TLS to one server.
///
/// The timeout covers a whole reply, and its size is limited: a server that sends slowly or
/// endlessly is disconnected.
pub(crate) struct PlaintextConnection {
    stream: Box<dyn Stream>,
    parser: Parser,
    max_bytes: u64,
    limit: Duration,
}

trait Stream: Read + Write + Send {
    fn set_timeouts(&self, limit: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_timeouts(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

#[cfg(unix)]
impl Stream for UnixStream {
    fn set_timeouts(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

impl PlaintextConnection {
    /// Connects and authenticates.
    pub(crate) fn connect(
        server: &ConnectionInfo,
        max_bytes: u64,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let stream: Box<dyn Stream> = match server.addr() {
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => Box::new(UnixStream::connect(path)?),
            ConnectionAddr::Tcp(host, port) => {
                let stream = connect_tcp(host, *port, deadline)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        let mut connection =
            Self { stream, parser: Parser::new(), max_bytes, limit: Duration::ZERO };
        for command in request::handshake(server.redis_settings()) {
            connection.send(&command, deadline)?;
        }
        Ok(connection)
    }
}

impl SyncConnection for PlaintextConnection {
    fn send(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let mut reply = BoundedStream {
            stream: &mut *self.stream,
            limit: &mut self.limit,
            received: 0,
            max_bytes: self.max_bytes,
            deadline,
        };
        let result = reply
            .write(&command.get_packed_command())
            .map_err(RedisError::from)
            .and_then(|()| self.parser.parse_value(&mut reply));
        match result {
            Ok(value) => Ok(value.extract_error()?),
            Err(error) if reply.received == 0 && error.is_connection_dropped() => {
                Err(Failure::ConnectionLost(error))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A stream for one command and its reply, with a deadline and a limit of bytes.
struct BoundedStream<'a> {
    stream: &'a mut dyn Stream,
    /// The timeout that is set on the stream.
    limit: &'a mut Duration,
    received: u64,
    max_bytes: u64,
    deadline: Instant,
}

impl BoundedStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.update_timeout()?;
        self.stream.write_all(bytes)
    }

    /// Sets the timeout of the stream to the time until the deadline.
    fn update_timeout(&mut self) -> io::Result<()> {
        let left = time_until(self.deadline)?;
        if differs(left, *self.limit) {
            self.stream.set_timeouts(left)?;
            *self.limit = left;
        }
        Ok(())
    }
}

impl Read for BoundedStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.update_timeout()?;
        let length = self.stream.read(buffer)?;
        self.received += length as u64;
        if self.received > self.max_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "reply too long"));
        }
        Ok(length)
    }
}

fn connect_tcp(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, Failure> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in resolve(host, port, deadline)? {
        match TcpStream::connect_timeout(&address, time_until(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Resolves the addresses of a host. The resolver of the system has no timeout, so it runs on
/// another thread.
fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let lookup = |error| Failure::Resolve(Arc::new(error));
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    let ask = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The receiver is gone if this took too long.
        let _ = sender.send(found);
    };
    thread::Builder::new().name("vayu-redis-dns".to_owned()).spawn(ask).map_err(lookup)?;
    receiver
        .recv_timeout(time_until(deadline)?)
        .map_err(|_| lookup(io::ErrorKind::TimedOut.into()))?
        .map_err(lookup)
}
