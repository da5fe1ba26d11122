//! Between a client and a server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

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

/// A proxy on a port of its own. It ends with this value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    treatment: Arc<Mutex<Treatment>>,
    connections: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy that hands everything on.
    pub(crate) fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let treatment = Arc::<Mutex<Treatment>>::default();
        let connections = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (treats, counts, ends) = (treatment.clone(), connections.clone(), is_over.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                counts.fetch_add(1, Ordering::Relaxed);
                // A server that is gone ends the connection at once.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                carry(client, server, &treats);
            }
        });
        Self { port, treatment, connections, is_over }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Treats what comes from now on like this, of connections that are made from now on.
    pub(crate) fn treat(&self, treatment: Treatment) {
        *self.treatment.lock().unwrap() = treatment;
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

fn carry(client: TcpStream, server: TcpStream, treatment: &Arc<Mutex<Treatment>>) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || hand_on(from_client, to_server));
    let treatment = Arc::clone(treatment);
    thread::spawn(move || answer(server, client, &treatment));
}

fn hand_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn answer(mut from: TcpStream, mut to: TcpStream, treatment: &Mutex<Treatment>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0_u64;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let treatment = treatment.lock().unwrap().clone();
        if treatment.swallow {
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
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
