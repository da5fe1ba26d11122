//! A proxy between a client and a server, which delays, cuts, corrupts or drops replies.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// Treatment of the replies of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Treatment {
    /// Delay of each piece.
    pub(crate) delay: Duration,
    /// Number of bytes after which the connection is closed.
    pub(crate) cut_after: Option<u64>,
    /// Position of a byte in which one bit is flipped.
    pub(crate) mangle: Option<u64>,
    /// Drops all replies.
    pub(crate) swallow: bool,
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both directions are closed.
    Closed,
    /// The client receives a reset.
    Reset,
    /// The client receives the end, while its commands are still forwarded to the server.
    HalfClosed,
    /// Nothing is forwarded any more, and neither side is notified.
    Silent,
}

/// A forwarded connection.
struct Carried {
    client: TcpStream,
    server: TcpStream,
    end: Mutex<Option<End>>,
}

/// A proxy on a port of its own. It ends when this is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    treatment: Arc<Mutex<Treatment>>,
    carried: Arc<Mutex<Vec<Weak<Carried>>>>,
    connections: Arc<AtomicU64>,
    replied: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts a proxy that forwards everything.
    pub(crate) fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let treatment = Arc::<Mutex<Treatment>>::default();
        let connections = Arc::new(AtomicU64::new(0));
        let replied = Arc::new(AtomicU64::new(0));
        let carried = Arc::<Mutex<Vec<Weak<Carried>>>>::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (treats, counts, ends) = (treatment.clone(), connections.clone(), is_over.clone());
        let (bytes, keeps) = (replied.clone(), carried.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                counts.fetch_add(1, Ordering::Relaxed);
                // Without a server the connection is closed at once.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let one = Arc::new(Carried { client, server, end: Mutex::default() });
                keeps.lock().unwrap().push(Arc::downgrade(&one));
                forward(&one, &treats, &bytes);
            }
        });
        Self { port, treatment, carried, connections, replied, is_over }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Sets the treatment of later replies.
    pub(crate) fn treat(&self, treatment: Treatment) {
        *self.treatment.lock().unwrap() = treatment;
    }

    /// Ends the open connections. Later ones are forwarded as before.
    pub(crate) fn end(&self, end: End) {
        let carried = std::mem::take(&mut *self.carried.lock().unwrap());
        for one in carried.iter().filter_map(Weak::upgrade) {
            *one.end.lock().unwrap() = Some(end);
            match end {
                End::Closed => {
                    let _ = one.client.shutdown(Shutdown::Both);
                    let _ = one.server.shutdown(Shutdown::Both);
                }
                // It is reset when the threads that forward it have dropped it.
                End::Reset => {
                    let _ = set_socket_linger(&one.client, Some(Duration::ZERO));
                    let _ = one.client.shutdown(Shutdown::Read);
                    let _ = one.server.shutdown(Shutdown::Both);
                }
                End::HalfClosed => {
                    let _ = one.client.shutdown(Shutdown::Write);
                }
                End::Silent => {}
            }
        }
    }

    /// Returns the number of bytes that servers have sent.
    pub(crate) fn replied(&self) -> u64 {
        self.replied.load(Ordering::Relaxed)
    }

    /// Returns the number of connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the listening thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn forward(one: &Arc<Carried>, treatment: &Arc<Mutex<Treatment>>, replied: &Arc<AtomicU64>) {
    let _ = one.client.set_nodelay(true);
    let _ = one.server.set_nodelay(true);
    let sent = Arc::clone(one);
    thread::spawn(move || forward_commands(&sent));
    let (one, treatment, replied) = (Arc::clone(one), Arc::clone(treatment), Arc::clone(replied));
    thread::spawn(move || forward_replies(&one, &treatment, &replied));
}

impl Carried {
    fn end(&self) -> Option<End> {
        *self.end.lock().unwrap()
    }
}

fn forward_commands(one: &Carried) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = (&one.client).read(&mut buffer) {
        if one.end() == Some(End::Silent) {
            continue;
        }
        if (&one.server).write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = one.server.shutdown(Shutdown::Both);
}

fn forward_replies(one: &Carried, treatment: &Mutex<Treatment>, replied: &AtomicU64) {
    let (mut from, mut to) = (&one.server, &one.client);
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0_u64;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let treatment = treatment.lock().unwrap().clone();
        replied.fetch_add(length as u64, Ordering::Relaxed);
        if treatment.swallow || matches!(one.end(), Some(End::Silent | End::HalfClosed)) {
            continue;
        }
        thread::sleep(treatment.delay);
        let piece = &mut buffer[..length];
        let within =
            |at: u64| usize::try_from(at.checked_sub(passed)?).ok().filter(|&at| at < length);
        if let Some(at) = treatment.mangle.and_then(within) {
            piece[at] ^= 1 << (at % 8);
        }
        let end = match treatment.cut_after {
            Some(cut) if cut <= passed => 0,
            Some(cut) => within(cut).unwrap_or(length),
            None => length,
        };
        if to.write_all(&piece[..end]).is_err() || end < length {
            break;
        }
        passed += length as u64;
    }
    if !matches!(one.end(), Some(End::Silent | End::Reset)) {
        let _ = to.shutdown(Shutdown::Both);
    }
    let _ = from.shutdown(Shutdown::Both);
}
