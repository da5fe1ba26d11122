//! Redis servers on free ports of the loopback interface.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Client, Connection, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A server. It ends when this is dropped, or with this process.
pub(crate) struct Server {
    pub(crate) port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    shell: Option<Child>,
    pid: Pid,
}

/// A shell script that ends the server when its input ends: at the latest with this process. It ends after the server,
/// which has then closed its port. The program may be selected by the environment variable `VAYU_REDIS_SERVER`.
const SCRIPT: &str = r#"
if [ -n "$VAYU_REDIS_SERVER" ]; then
    name=$(command -v "$VAYU_REDIS_SERVER")
else
    name=$(command -v redis-server || command -v valkey-server)
fi || { echo missing; exit 1; }
log=$1
shift
"$name" "$@" >"$log" 2>&1 &
echo $!
read -r line
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
"#;

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a sentinel with these settings.
    pub(crate) fn sentinel(settings: &str) -> Self {
        Self::with(&[settings, "--sentinel"])
    }

    /// Starts a server with more arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut log = String::new();
        // Another process may have bound the port in the meantime.
        for _ in 0..10 {
            let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
            let mut server = Self {
                port: free_port(),
                arguments,
                directory: tempfile::tempdir().expect("a directory"),
                shell: None,
                pid: Pid::INIT,
            };
            server.restart();
            if server.becomes_ready() {
                return server;
            }
            log = server.log();
        }
        panic!("a redis-server does not start: {log}");
    }

    /// Starts the server again, empty, on the same port.
    pub(crate) fn restart(&mut self) {
        let port = self.port.to_string();
        let directory = self.directory.path().to_str().expect("a path");
        // The settings of a sentinel come first, and it stores nothing.
        let is_sentinel = self.arguments.last().is_some_and(|last| last == "--sentinel");
        let (first, last) = self.arguments.split_at(usize::from(is_sentinel));
        let of_store = ["--save", "", "--appendonly", "no", "--enable-debug-command", "local"];
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", &format!("{directory}/log")])
            .args(first)
            .args(["--port", &port, "--bind", "127.0.0.1", "--dir", directory])
            .args(if is_sentinel { &[][..] } else { &of_store })
            .args(last)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the output of the shell");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        self.pid = pid.expect(
            "these tests need redis-server or valkey-server: `.ci/test` installs the Debian \
             package, `apt-get install redis-server`",
        );
        self.shell = Some(shell);
    }

    fn becomes_ready(&self) -> bool {
        (0..2000).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            let reply = self.try_ask::<()>(&redis::cmd("PING"));
            reply.map_or_else(|error| error.code() == Some("NOAUTH"), |()| true)
        })
    }

    /// Starts the server again and waits until it responds.
    pub(crate) fn revive(&mut self) {
        self.restart();
        assert!(self.becomes_ready(), "the server does not start again: {}", self.log());
    }

    /// Returns the log of the last start.
    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the server runs");
    }

    /// Stops the process, so that it hangs.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process, like `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }

    fn reap(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }

    pub(crate) fn connection(&self) -> redis::RedisResult<Connection> {
        Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<T> {
        command.query(&mut self.connection()?)
    }

    /// Returns the reply to a command, whose words are separated by spaces.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().expect("a word"));
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.connection().expect("a connection")).expect("a reply")
    }

    /// Returns the names of all keys.
    pub(crate) fn names(&self) -> Vec<String> {
        self.ask("KEYS *")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.reap();
    }
}

/// Returns a port that is free at the moment, as is the port of the cluster bus that belongs to it.
///
/// The system assigns neither to other sockets, so that a server can be started again on its port, and no other call of
/// this process returns it soon.
pub(crate) fn free_port() -> u16 {
    /// From 10,000 on. Linux assigns ports from 32,768, other systems from 49,152.
    const PORTS: u32 = 10_000;
    /// Test processes that run at the same time start at different ports.
    static NEXT: LazyLock<AtomicU32> =
        LazyLock::new(|| AtomicU32::new(std::process::id() % 100 * 100));
    // To bind the port would tell more, but a process that another thread starts at that moment has a copy of the socket
    // until it executes its program, and a server could not bind the port until then.
    let is_free = |port| TcpStream::connect(("127.0.0.1", port)).is_err();
    let candidates = (0..PORTS).map(|_| 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS);
    let mut ports = candidates.map(|port| u16::try_from(port).expect("a port"));
    ports.find(|&port| is_free(port) && is_free(port + 10_000)).expect("a free port")
}

/// Returns the server of all tests that do not change its configuration.
pub(crate) fn shared() -> &'static Server {
    static SHARED: LazyLock<Server> = LazyLock::new(Server::start);
    &SHARED
}

/// A cluster of three nodes.
pub(crate) struct Cluster(pub(crate) Vec<Server>);

impl Cluster {
    pub(crate) fn start() -> Self {
        let node = || Server::with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]);
        let nodes: Vec<_> = (0..3).map(|_| node()).collect();
        for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            let () = node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        }
        for (epoch, node) in nodes.iter().enumerate() {
            let () = node.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", epoch + 1));
            let () = nodes[0].ask(&format!("CLUSTER MEET 127.0.0.1 {}", node.port));
        }
        for node in &nodes {
            crate::until("a cluster comes up", || {
                let info: String = node.ask("CLUSTER INFO");
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
        Self(nodes)
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.0.iter().map(Server::url).collect()
    }
}

/// Returns the cluster of all tests that do not change its configuration.
pub(crate) fn shared_cluster() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(Cluster::start);
    &SHARED
}
