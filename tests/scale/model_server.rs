//! A model of a Redis server: the commands that vayu sends, in memory, with counters. It recognizes the scripts by their text.

use std::collections::HashMap;
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

type Bytes = Vec<u8>;

/// A server with two ports, which can be cut off one by one.
pub(crate) struct ModelServer {
    ports: [u16; 2],
    state: Arc<State>,
    _runtime: Runtime,
}

#[derive(Default)]
struct State {
    data: Mutex<Data>,
    connections: Mutex<Vec<Connection>>,
    next_connection: AtomicU64,
    is_cut: [AtomicBool; 2],
    opened: AtomicU64,
    commands: AtomicU64,
    bytes: AtomicU64,
    messages: AtomicU64,
}

struct Connection {
    id: u64,
    port: usize,
    task: AbortHandle,
}

#[derive(Default)]
struct Data {
    values: HashMap<Bytes, Value>,
    subscribers: HashMap<Bytes, Vec<(u64, UnboundedSender<Bytes>)>>,
    unknown: Vec<String>,
}

struct Value {
    bytes: Bytes,
    expires: Option<Instant>,
}

/// The counters of a server, or their differences.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) opened: u64,
    pub(crate) commands: u64,
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            opened: self.opened - before.opened,
            commands: self.commands - before.commands,
            bytes: self.bytes - before.bytes,
            messages: self.messages - before.messages,
        }
    }
}

impl ModelServer {
    pub(crate) fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let state = Arc::<State>::default();
        let ports = [0, 1].map(|port| {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
            let number = listener.local_addr().expect("an address").port();
            runtime.spawn(accept(listener, port, Arc::clone(&state)));
            number
        });
        Self { ports, state, _runtime: runtime }
    }

    pub(crate) fn url(&self, port: usize) -> String {
        format!("redis://127.0.0.1:{}/", self.ports[port])
    }

    /// Closes the connections to a port, and all that are opened until [`heal`](Self::heal).
    pub(crate) fn cut(&self, port: usize) {
        self.state.is_cut[port].store(true, Ordering::SeqCst);
        for connection in self.state.connections.lock().unwrap().iter() {
            if connection.port == port {
                connection.task.abort();
            }
        }
    }

    pub(crate) fn heal(&self, port: usize) {
        self.state.is_cut[port].store(false, Ordering::SeqCst);
    }

    /// Loses all data.
    pub(crate) fn clear(&self) {
        self.state.data.lock().unwrap().values.clear();
    }

    pub(crate) fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let State { opened, commands, bytes, messages, .. } = &*self.state;
        Counts {
            opened: get(opened),
            commands: get(commands),
            bytes: get(bytes),
            messages: get(messages),
        }
    }

    /// Returns the number of open connections.
    pub(crate) fn connections(&self) -> usize {
        let mut connections = self.state.connections.lock().unwrap();
        connections.retain(|connection| !connection.task.is_finished());
        connections.len()
    }

    /// Returns the number of values.
    pub(crate) fn values(&self) -> usize {
        self.state.data.lock().unwrap().values.len()
    }

    /// Returns the commands that the model does not have.
    pub(crate) fn unknown(&self) -> Vec<String> {
        self.state.data.lock().unwrap().unknown.clone()
    }
}

async fn accept(listener: TcpListener, port: usize, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.opened.fetch_add(1, Ordering::SeqCst);
        let id = state.next_connection.fetch_add(1, Ordering::SeqCst);
        let mut connections = state.connections.lock().unwrap();
        if !state.is_cut[port].load(Ordering::SeqCst) {
            let task = tokio::spawn(serve(stream, id, Arc::clone(&state))).abort_handle();
            connections.push(Connection { id, port, task });
        }
    }
}

async fn serve(mut stream: TcpStream, id: u64, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let (sender, mut messages) = unbounded_channel();
    let (mut received, mut output) = (Bytes::new(), Bytes::new());
    loop {
        tokio::select! {
            read = stream.read_buf(&mut received) => {
                let Ok(1..) = read else { break };
                let mut parsed = 0;
                while let Some((command, length)) = parse(&received[parsed..]) {
                    parsed += length;
                    state.commands.fetch_add(1, Ordering::SeqCst);
                    let mut data = state.data.lock().unwrap();
                    let session = Session { id, sender: &sender, state: &state };
                    output.extend(data.execute(&command, &session));
                }
                received.drain(..parsed);
                state.bytes.fetch_add(parsed as u64, Ordering::SeqCst);
            }
            message = messages.recv() => output.extend(message.expect("there is a sender")),
        }
        state.bytes.fetch_add(output.len() as u64, Ordering::SeqCst);
        if stream.write_all(&output).await.is_err() {
            break;
        }
        output.clear();
    }
    state.connections.lock().unwrap().retain(|connection| connection.id != id);
}

/// Parses an array of strings. Returns it and its length in bytes, or `None` if it is not complete.
fn parse(input: &[u8]) -> Option<(Vec<Bytes>, usize)> {
    let mut at = 0;
    let mut line = |kind: u8| {
        let length = input.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
        let text = std::str::from_utf8(&input[at..at + length]).expect("a number");
        assert_eq!(text.as_bytes()[0], kind, "{text}");
        let start = at + length + 2;
        let number: usize = text[1..].parse().expect("a number");
        at = start;
        if kind == b'*' {
            return Some((number, Bytes::new()));
        }
        let bytes = input.get(start..start + number + 2)?[..number].to_vec();
        at += number + 2;
        Some((number, bytes))
    };
    let (items, _) = line(b'*')?;
    let command = (0..items).map(|_| Some(line(b'$')?.1)).collect::<Option<Vec<_>>>()?;
    Some((command, at))
}

/// The connection of a command.
struct Session<'a> {
    id: u64,
    sender: &'a UnboundedSender<Bytes>,
    state: &'a State,
}

fn bulk(bytes: &[u8]) -> Bytes {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn integer(number: usize) -> Bytes {
    format!(":{number}\r\n").into_bytes()
}

const OK: &[u8] = b"+OK\r\n";
const NIL: &[u8] = b"$-1\r\n";

fn milliseconds(argument: &[u8]) -> Duration {
    let number = std::str::from_utf8(argument).ok().and_then(|text| text.parse().ok());
    Duration::from_millis(number.expect("a number"))
}

impl Data {
    fn execute(&mut self, command: &[Bytes], session: &Session<'_>) -> Bytes {
        let name = String::from_utf8_lossy(&command[0]).to_uppercase();
        match (name.as_str(), &command[1..]) {
            ("PING", []) => b"+PONG\r\n".to_vec(),
            ("HELLO", [..]) => b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec(),
            ("CLIENT" | "SELECT", [..]) => OK.to_vec(),
            ("GET", [key]) => self.get(key).map_or_else(|| NIL.to_vec(), |value| bulk(&value)),
            ("GETRANGE", [key, ..]) => bulk(&self.get(key).unwrap_or_default()),
            ("MGET", keys) => {
                let mut reply = format!("*{}\r\n", keys.len()).into_bytes();
                for key in keys {
                    reply.extend(self.get(key).map_or_else(|| NIL.to_vec(), |value| bulk(&value)));
                }
                reply
            }
            ("SET", [key, value, options @ ..]) => self.set(key, value, options),
            ("DEL", [key]) => integer(usize::from(self.values.remove(key).is_some())),
            ("PUBLISH", [channel, message]) => integer(self.publish(channel, message, session)),
            ("SUBSCRIBE", [channel]) => {
                let subscriber = (session.id, session.sender.clone());
                self.subscribers.entry(channel.clone()).or_default().push(subscriber);
                [b">3\r\n", &bulk(b"subscribe")[..], &bulk(channel), b":1\r\n"].concat()
            }
            ("EVAL", [script, _, key, arguments @ ..]) => {
                let script = String::from_utf8_lossy(script);
                match self.evaluate(&script, key, arguments, session) {
                    Some(reply) => reply,
                    None => self.unknown(&script),
                }
            }
            _ => self.unknown(&format!("{name} of {} arguments", command.len() - 1)),
        }
    }

    fn unknown(&mut self, command: &str) -> Bytes {
        self.unknown.push(command.to_owned());
        b"-ERR unknown command\r\n".to_vec()
    }

    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        let value = self.values.get(key)?;
        if value.expires.is_some_and(|time| time <= Instant::now()) {
            self.values.remove(key);
            return None;
        }
        Some(value.bytes.clone())
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[Bytes]) -> Bytes {
        let has = |name: &str| options.iter().any(|option| option == name.as_bytes());
        if has("NX") && self.get(key).is_some() {
            return NIL.to_vec();
        }
        let time = options.iter().position(|option| option == b"PX");
        let expires = time.map(|at| Instant::now() + milliseconds(&options[at + 1]));
        self.values.insert(key.to_vec(), Value { bytes: value.to_vec(), expires });
        OK.to_vec()
    }

    /// Runs a script of vayu. Returns `None` if it is not one.
    fn evaluate(
        &mut self,
        script: &str,
        key: &[u8],
        arguments: &[Bytes],
        session: &Session<'_>,
    ) -> Option<Bytes> {
        Some(if script.contains("'KEEPTTL'") {
            self.acquire_lease(key, arguments)
        } else if script.starts_with("local held") {
            self.release_lease(key, arguments, session)
        } else if script.contains("redis.call('exists'") {
            if self.get(key).is_some() {
                self.publish(&arguments[0], &arguments[1], session);
            }
            self.set(key, &arguments[2], &arguments[3..])
        } else if script.ends_with("return redis.call('set', KEYS[1], ARGV[3])") {
            self.publish(&arguments[0], &arguments[1], session);
            self.set(key, &arguments[2], &[])
        } else if script.ends_with("return redis.call('del', KEYS[1])") {
            self.publish(&arguments[0], &arguments[1], session);
            integer(usize::from(self.values.remove(key).is_some()))
        } else {
            return None;
        })
    }

    fn acquire_lease(&mut self, key: &[u8], arguments: &[Bytes]) -> Bytes {
        let token = &arguments[0];
        let Some(held) = self.get(key) else {
            self.set(key, token, &[b"PX".to_vec(), arguments[1].clone()]);
            return integer(1);
        };
        if held.starts_with(token) {
            return integer(1);
        }
        if let [_, _, waiter, limit] = arguments {
            let waiters = &held[token.len()..];
            let limit = usize::try_from(milliseconds(limit).as_millis()).expect("a length");
            if waiters.len() <= limit && !waiters.chunks(waiter.len()).any(|other| other == waiter)
            {
                let value = self.values.get_mut(key).expect("it is held");
                value.bytes.extend(waiter);
            }
        }
        integer(0)
    }

    fn release_lease(&mut self, key: &[u8], arguments: &[Bytes], session: &Session<'_>) -> Bytes {
        let [token, all, one, message, limit] = arguments else { panic!("five arguments") };
        let Some(held) = self.get(key).filter(|held| held.starts_with(token)) else {
            return integer(0);
        };
        self.values.remove(key);
        let waiters = &held[token.len()..];
        if waiters.len() > usize::try_from(milliseconds(limit).as_millis()).expect("a length") {
            self.publish(all, message, session);
        } else {
            for waiter in waiters.chunks(8) {
                self.publish(&[&one[..], waiter].concat(), message, session);
            }
        }
        integer(1)
    }

    fn publish(&mut self, channel: &[u8], message: &[u8], session: &Session<'_>) -> usize {
        let Some(subscribers) = self.subscribers.get_mut(channel) else { return 0 };
        let bytes = [b">3\r\n", &bulk(b"message")[..], &bulk(channel), &bulk(message)].concat();
        // Those whose connection is closed are removed.
        subscribers.retain(|(_, subscriber)| subscriber.send(bytes.clone()).is_ok());
        session.state.messages.fetch_add(subscribers.len() as u64, Ordering::SeqCst);
        subscribers.len()
    }
}
