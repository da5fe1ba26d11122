//! Runs the examples and compares their output.

use std::path::Path;
use std::process::{Command, Stdio};

/// Returns the command that runs an example.
fn example(name: &str) -> Command {
    let binary = std::env::current_exe().expect("a path");
    let target = binary.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let example =
        target.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        example.exists(),
        "{} is missing: `cargo test` without `--test` builds the examples, and so does `cargo build --examples`",
        example.display()
    );
    Command::new(example)
}

/// Runs a command, and returns the lines that it has printed.
fn run(command: &mut Command) -> Vec<String> {
    let output = command.stderr(Stdio::inherit()).output().expect("the example starts");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let output = String::from_utf8(output.stdout).expect("UTF-8");
    output.lines().map(str::to_owned).collect()
}

macro_rules! prints {
    ($($name:ident: [$($line:literal,)*])*) => {$(
        #[test]
        fn $name() {
            assert_eq!(run(&mut example(stringify!($name))), [$($line),*]);
        }
    )*};
}

prints! {
    basic: [
        "a slow query for Vienna",
        "Vienna: 1900006",
        "Vienna: 1900006",
        "a slow query for Graz",
        "Graz: 1900004",
        "1 hit, 2 misses",
    ]
    async_fn: [
        "loading /index.html",
        "100 calls, 1 of them computed",
    ]
    method: [
        "reading the name of 7 in eu",
        "computing the price of 7 in eu",
        "product 7: eu 7.00",
        "computing the price of 7 in asia",
        "product 7: asia 7.00",
        "product 7: eu 7.00",
    ]
    own_cache: [
        "the sum of 1,000 squares is 332833500",
        "entries in SQUARES: Some(100)",
        "calls of mem_cache(): 0",
    ]
    stale: [
        "querying the source for EUR",
        "fresh: 1.1",
        "querying the source for EUR",
        "stale: 1.1",
        "stale: 1.1",
        "failed refreshes: 1",
    ]
    tags: [
        "loading the profile of user 7",
        "loading page 1 of the orders of user 7",
        "loading the profile of user 8",
        "loading page 1 of the orders of user 8",
        "again:",
        "after user 7 has changed:",
        "loading the profile of user 7",
        "loading page 1 of the orders of user 7",
    ]
    handle: [
        "peek: None",
        "call: report of 2026, run 1",
        "peek: Some(\"report of 2026, run 1\")",
        "has an age: true",
        "refresh: report of 2026, run 2",
        "call: report of 2026, run 2",
        "invalidate: true",
        "call: report of 2026, run 3",
    ]
    tiered: [
        "computing the square of 12",
        "144, from the function",
        "144, from memory",
        "144, from the directory",
        "144, from memory",
    ]
    custom_backend: [
        "computing the square of 12",
        "144 144",
        "1 hit",
    ]
    testing: [
        "asking for EUR",
        "an hour later:",
        "asking for EUR",
        "while the cache is paused:",
        "asking for EUR",
        "asking for EUR",
        "1 hit, 4 misses",
    ]
}

#[test]
fn second_run_of_file_reads_the_directory() {
    let place = format!("examples-{}", std::process::id());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(place);
    let run = || run(example("file").arg(&directory));
    assert_eq!(
        run(),
        ["computing the report of 2026", "all of 2026", "0 read from the directory, 1 computed"]
    );
    assert_eq!(run(), ["all of 2026", "1 read from the directory, 0 computed"]);
    std::fs::remove_dir_all(directory).expect("no program uses it");
}

/// The server listens at a socket in a directory: another process may bind a port before the server does.
#[cfg(unix)]
#[test]
fn second_run_of_redis_reads_the_server() {
    let server = redis::Server::start();
    let run = || run(example("redis").env("REDIS_URL", server.url()));
    assert_eq!(
        run(),
        ["computing the price of 7", "10.5", "0 read from the server, 1 computed", "0 errors"]
    );
    assert_eq!(run(), ["10.5", "1 read from the server, 0 computed", "0 errors"]);
}

#[cfg(unix)]
mod redis {
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    /// A Redis server, which ends when this is dropped.
    pub(crate) struct Server {
        process: Child,
        socket: PathBuf,
    }

    impl Server {
        pub(crate) fn start() -> Self {
            // Of the directory for temporary files: the path of a socket has at most 100 bytes.
            let socket = format!("vayu-examples-{}.sock", std::process::id());
            let socket = std::env::temp_dir().join(socket);
            let spawn = |name| {
                Command::new(name)
                    .args(["--port", "0", "--save", "", "--unixsocket"])
                    .arg(&socket)
                    .stdout(Stdio::null())
                    .spawn()
            };
            let process = spawn("redis-server").or_else(|_| spawn("valkey-server"));
            let process = process.expect("redis-server or valkey-server is installed");
            let server = Self { process, socket };
            let began = Instant::now();
            while UnixStream::connect(&server.socket).is_err() {
                assert!(began.elapsed() < Duration::from_secs(30), "the server does not start");
                thread::sleep(Duration::from_millis(5));
            }
            server
        }

        pub(crate) fn url(&self) -> String {
            format!("unix://{}", self.socket.display())
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}
