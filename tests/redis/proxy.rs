//! Between a client and a server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// What happens to what the server says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Treatment {
    /// How long each piece is held back.
    pub(crate) delay: Duration,
    /// The connection ends behind so many bytes.
    pub(crate) cut_after: Option<u64>,
    /// This byte has another value.
    pub(crate) mangle: Option<u64>,
    /// Nothing of it comes.
    pub(crate) swallow: bool,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both directions are closed.
    Closed,
    /// The client receives a reset.
    Reset,
    /// The client receives the end, while what it sends is still carried to the server.
    HalfClosed,
    /// Nothing is carried any more, and neither side is told.
    Silent,
}

/// A connection that is carried.
struct Carried {
    client: TcpStream,
    server: TcpStream,
    end: Mutex<Option<End>>,
}

/// A proxy on a port of its own. It ends with this value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    treatment: Arc<Mutex<Treatment>>,
    carried: Arc<Mutex<Vec<Weak<Carried>>>>,
    connections: Arc<AtomicU64>,
    replied: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy that hands everything on.
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
                // A server that is gone ends the connection at once.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let one = Arc::new(Carried { client, server, end: Mutex::default() });
                keeps.lock().unwrap().push(Arc::downgrade(&one));
                carry(&one, &treats, &bytes);
            }
        });
        Self { port, treatment, carried, connections, replied, is_over }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Treats what comes from now on like this, of connections that are made from now on.
    pub(crate) fn treat(&self, treatment: Treatment) {
        *self.treatment.lock().unwrap() = treatment;
    }

    /// Ends the connections that there are. Those that are made from now on are carried as before.
    pub(crate) fn end(&self, end: End) {
        let carried = std::mem::take(&mut *self.carried.lock().unwrap());
        for one in carried.iter().filter_map(Weak::upgrade) {
            *one.end.lock().unwrap() = Some(end);
            match end {
                End::Closed => {
                    let _ = one.client.shutdown(Shutdown::Both);
                    let _ = one.server.shutdown(Shutdown::Both);
                }
                // It is reset when the threads that carry it have let go of it.
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

    /// How many bytes servers have sent, and were treated.
    pub(crate) fn replied(&self) -> u64 {
        self.replied.load(Ordering::Relaxed)
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that listens.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn carry(one: &Arc<Carried>, treatment: &Arc<Mutex<Treatment>>, replied: &Arc<AtomicU64>) {
    let _ = one.client.set_nodelay(true);
    let _ = one.server.set_nodelay(true);
    let sent = Arc::clone(one);
    thread::spawn(move || hand_on(&sent));
    let (one, treatment, replied) = (Arc::clone(one), Arc::clone(treatment), Arc::clone(replied));
    thread::spawn(move || answer(&one, &treatment, &replied));
}

impl Carried {
    fn end(&self) -> Option<End> {
        *self.end.lock().unwrap()
    }
}

fn hand_on(one: &Carried) {
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

fn answer(one: &Carried, treatment: &Mutex<Treatment>, replied: &AtomicU64) {
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
