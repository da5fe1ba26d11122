//! TCP connections to a server.
//!
//! A connection to a port of this machine on which no server listens may succeed: if the system assigns that same port
//! to the client, the client is connected to itself, and the server cannot start on its port while that connection
//! exists. Such a connection is closed and reported as refused.
//!
//! The system goes on sending the commands of a connection that was closed, for minutes if the network is interrupted. A write
//! that has timed out could so arrive after a later invalidation. A connection on which a reply is due is therefore
//! [reset](Socket::reset_on_close).

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::deadline::time_until;
use crate::error::Failure;

/// A socket of a connection.
pub(crate) trait Socket: Write + Send {
    /// Discards what was written and not sent, once the connection is closed: its last handle is dropped.
    fn reset_on_close(&self);
}

impl Socket for TcpStream {
    fn reset_on_close(&self) {
        // It fails only if the connection does not exist any more.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// What is written to such a socket has arrived.
#[cfg(unix)]
impl Socket for std::os::unix::net::UnixStream {
    fn reset_on_close(&self) {}
}

/// Connects to the first address of a host that accepts the connection.
pub(crate) fn connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, Failure> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in resolve(host, port, deadline)? {
        let stream = TcpStream::connect_timeout(&address, time_until(deadline)?);
        let stream = stream.and_then(|stream| {
            check_peer(stream.local_addr()?, stream.peer_addr()?)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Connects to the first address of a host that accepts the connection.
pub(crate) async fn connect_async(host: &str, port: u16) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect((host, port)).await?;
    check_peer(stream.local_addr()?, stream.peer_addr()?)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns an error if a connection is one of a socket to itself.
fn check_peer(local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    if local == peer {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// Returns the addresses of both ends of a connection of a socket to itself.
    async fn connected_to_itself() -> io::Result<(SocketAddr, SocketAddr)> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        let stream = socket.connect(address).await?;
        Ok((stream.local_addr()?, stream.peer_addr()?))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn connection_of_a_socket_to_itself_is_refused() {
        let ends = runtime().block_on(connected_to_itself());
        let (local, peer) = ends.expect("a connection");
        let error = check_peer(local, peer).expect_err("it is no server");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn server_on_another_port_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        runtime().block_on(connect_async("127.0.0.1", port)).expect("a connection");
        let deadline = Instant::now() + Duration::from_secs(60);
        connect("127.0.0.1", port, deadline).expect("a connection");
    }
}
