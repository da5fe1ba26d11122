//! Connections of sync callers.

use std::io::{self, Read};
use std::net::TcpStream;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

#[cfg(any(feature = "tls", feature = "cluster"))]
use redis::ConnectionLike;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, Parser, RedisError, RedisResult, Value};

use crate::deadline::time_until;
use crate::error::Failure;
use crate::request::{self, Replies, Request, command_result};
use crate::resp;
use crate::tcp::{self, Socket};

/// A connection that one caller uses at a time.
pub(crate) trait SyncConnection: Send {
    /// Returns the reply to a command. After an error other than an error reply the connection is
    /// unusable.
    fn send(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure>;

    /// Returns the replies to several commands, which are sent before the first reply is received. An error reply is
    /// that of its command.
    ///
    /// # Errors
    ///
    /// If the reply to one of them was not received, or the server cannot execute any command. The
    /// connection is then unusable. The default sends one command after the other.
    fn send_all(&mut self, commands: &[Cmd], deadline: Instant) -> Result<Replies, Failure> {
        commands.iter().map(|command| command_result(self.send(command, deadline))).collect()
    }
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

/// What connections of the `redis` crate have in common, beside [`ConnectionLike`].
#[cfg(any(feature = "tls", feature = "cluster"))]
pub(crate) trait LibraryClient: ConnectionLike {
    fn set_timeouts(&self, limit: Duration) -> RedisResult<()>;
}

#[cfg(feature = "tls")]
impl LibraryClient for redis::Connection {
    fn set_timeouts(&self, limit: Duration) -> RedisResult<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

#[cfg(feature = "cluster")]
impl LibraryClient for redis::cluster::ClusterConnection {
    fn set_timeouts(&self, limit: Duration) -> RedisResult<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

#[cfg(any(feature = "tls", feature = "cluster"))]
impl<C: LibraryClient> LibraryConnection<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, limit: Duration::ZERO }
    }

    fn update_timeout(&mut self, deadline: Instant) -> Result<(), Failure> {
        let left = time_until(deadline)?;
        if differs(left, self.limit) {
            self.connection.set_timeouts(left)?;
            self.limit = left;
        }
        Ok(())
    }
}

#[cfg(any(feature = "tls", feature = "cluster"))]
impl<C: LibraryClient + Send> SyncConnection for LibraryConnection<C> {
    fn send(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        self.update_timeout(deadline)?;
        self.connection.req_command(command).map_err(Failure::from_library)
    }

    /// Sends one command after the other, each with the whole time limit, up to the first failure of the
    /// connection. In a pipeline the library would wait for every reply that is due, also after a timeout.
    fn send_all(&mut self, commands: &[Cmd], deadline: Instant) -> Result<Replies, Failure> {
        let limit = time_until(deadline)?;
        let mut send = |command| command_result(self.send(command, Instant::now() + limit));
        commands.iter().map(&mut send).collect()
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

trait Stream: Read + Socket {
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
            ConnectionAddr::Tcp(host, port) => Box::new(tcp::connect(host, *port, deadline)?),
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

/// The number of bytes that are read at once for a batch.
const READ_SIZE: usize = 32 * 1024;

impl SyncConnection for PlaintextConnection {
    fn send(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        if request::reply_items(command) > 0 {
            let mut replies = self.send_all(std::slice::from_ref(command), deadline)?;
            return replies.pop().unwrap_or(Err(Failure::UnexpectedReply));
        }
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
            Err(error) => Err(reply.failed(error)),
        }
    }

    fn send_all(&mut self, commands: &[Cmd], deadline: Instant) -> Result<Replies, Failure> {
        let items: Vec<usize> = commands.iter().map(request::reply_items).collect();
        let strings = items.iter().map(|&items| items.max(1) as u64).sum();
        let mut stream = BoundedStream {
            stream: &mut *self.stream,
            limit: &mut self.limit,
            received: 0,
            max_bytes: self.max_bytes.saturating_mul(strings),
            deadline,
        };
        let replies = stream
            .write(&packed(commands))
            .map_err(RedisError::from)
            .and_then(|()| receive_all(&mut stream, &items, self.max_bytes));
        let replies = replies.map_err(|error| stream.failed(error))?;
        let replies = replies.into_iter().map(|reply| Ok(reply.extract_error()?));
        replies.map(command_result).collect()
    }
}

/// Returns the commands as they are sent.
fn packed(commands: &[Cmd]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        command.write_packed_command(&mut bytes);
    }
    bytes
}

/// Receives one reply for each number of items. The strings in them have up to `max_bytes` each.
fn receive_all(
    stream: &mut BoundedStream<'_>,
    items: &[usize],
    max_bytes: u64,
) -> RedisResult<Vec<Value>> {
    let (mut received, mut at) = (Vec::new(), 0);
    let mut replies = Vec::with_capacity(items.len());
    for &items in items {
        loop {
            if let Some((reply, length)) = resp::parse(&received[at..], max_bytes, || items)? {
                replies.push(reply);
                at += length;
                break;
            }
            received.drain(..at);
            at = 0;
            let length = received.len();
            received.resize(length + READ_SIZE, 0);
            let read = stream.read(&mut received[length..]);
            received.truncate(length + read.as_ref().map_or(0, |&read| read));
            if read? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
    if at < received.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unsolicited reply").into());
    }
    Ok(replies)
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
    /// Returns the failure for an error of the connection, which is unusable from then on.
    fn failed(&self, error: RedisError) -> Failure {
        self.stream.reset_on_close();
        if self.received == 0 && error.is_connection_dropped() {
            Failure::ConnectionLost(error)
        } else {
            error.into()
        }
    }

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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use vayu_core::testing::watchdog;

    use super::*;

    #[test]
    fn connection_on_which_a_reply_is_due_is_reset() {
        for is_due in [true, false] {
            watchdog(Duration::from_secs(20), move || {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                let address = listener.local_addr().expect("an address");
                let stream = Box::new(TcpStream::connect(address).expect("a connection"));
                let (mut server, _) = listener.accept().expect("a connection");
                let (parser, limit) = (Parser::new(), Duration::ZERO);
                let mut connection = PlaintextConnection { stream, parser, max_bytes: 100, limit };
                if !is_due {
                    server.write_all(b"+PONG\r\n").expect("it is written");
                }
                let limit =
                    if is_due { Duration::from_millis(20) } else { Duration::from_secs(20) };
                let reply = connection.send(&redis::cmd("PING"), Instant::now() + limit);
                assert_eq!(reply.is_err(), is_due);
                drop(connection);
                let end = server.read_to_end(&mut Vec::new());
                let is_reset =
                    end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                assert_eq!(is_reset, is_due);
            });
        }
    }
}
