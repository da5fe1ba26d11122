//! The connection of sync callers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionAddr, ConnectionInfo, ConnectionLike, Parser, RedisResult, Value};

use crate::command;
use crate::failure::Failure;

/// A connection that one caller has at a time.
pub(crate) trait Link: Send {
    /// The answer to a command. After an error that is no answer the connection is of no use.
    fn ask(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure>;
}

/// A connection of the library, whose reads and writes have time limits one by one.
impl<C: ConnectionLike + Send> Link for C {
    fn ask(&mut self, command: &Cmd, _deadline: Instant) -> Result<Value, Failure> {
        Ok(self.req_command(command)?)
    }
}

/// A connection without TLS to one server.
///
/// It has a time limit for each answer as a whole, and a limit of bytes: a server that sends a byte
/// now and then, or sends without end, is cut off.
pub(crate) struct PlainLink {
    stream: Box<dyn Stream>,
    parser: Parser,
    max_bytes: u64,
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

impl PlainLink {
    /// Connects and says who we are.
    pub(crate) fn connect(
        server: &ConnectionInfo,
        timeout: Duration,
        max_bytes: u64,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let stream: Box<dyn Stream> = match server.addr() {
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Box::new(stream)
            }
            ConnectionAddr::Tcp(host, port) => {
                let stream = connect_tcp(host, *port, deadline)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Box::new(stream)
            }
            _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        let mut link = Self { stream, parser: Parser::new(), max_bytes };
        for greeting in command::greetings(server.redis_settings()) {
            link.ask(&greeting, deadline)?;
        }
        Ok(link)
    }

    fn exchange(&mut self, command: &Cmd, deadline: Instant) -> RedisResult<Value> {
        self.stream.write_all(&command.get_packed_command())?;
        let answer = Limited { stream: &mut *self.stream, left: self.max_bytes, deadline };
        self.parser.parse_value(answer)?.extract_error()
    }
}

impl Link for PlainLink {
    fn ask(&mut self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        Ok(self.exchange(command, deadline)?)
    }
}

/// What of a stream may be read for one answer.
struct Limited<'a> {
    stream: &'a mut dyn Stream,
    left: u64,
    deadline: Instant,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let length = self.stream.read(buffer)?;
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"))?;
        Ok(length)
    }
}

fn connect_tcp(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, Failure> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in look_up(host, port, deadline)? {
        match TcpStream::connect_timeout(&address, left_until(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// The addresses of a host. The system's resolver knows no time limit, so it is asked on a thread of
/// its own.
fn look_up(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (answer, answered) = mpsc::channel();
    let host = host.to_owned();
    let ask = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody listens any more if it took too long.
        let _ = answer.send(found);
    };
    thread::Builder::new().name("vayu-redis-dns".to_owned()).spawn(ask).map_err(Failure::Lookup)?;
    answered
        .recv_timeout(left_until(deadline)?)
        .map_err(|_| Failure::Lookup(io::ErrorKind::TimedOut.into()))?
        .map_err(Failure::Lookup)
}

pub(crate) fn left_until(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}
