//! The program, run on a Redis server.
#![cfg(feature = "redis")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use vayu_core::{Key, Result};
use vayu_redis::{RedisCache, RedisOptions};

/// A server at a socket in a temporary directory. It ends when this is dropped.
struct Server {
    process: Child,
    directory: TempDir,
    url_options: &'static str,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let spawn = |name| {
            Command::new(name)
                .args(["--port", "0", "--unixsocket"])
                .arg(directory.path().join("socket"))
                .args(["--save", "", "--appendonly", "no"])
                .stdout(Stdio::null())
                .spawn()
        };
        let process = spawn("redis-server").or_else(|_| spawn("valkey-server"));
        let server = Self { process: process.expect("a redis-server"), directory, url_options: "" };
        for _ in 0..1000 {
            if UnixStream::connect(server.directory.path().join("socket")).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not respond");
    }

    fn url(&self) -> String {
        let socket = self.directory.path().join("socket");
        format!("unix://{}?namespace=shop{}", socket.display(), self.url_options)
    }

    fn cache(&self) -> RedisCache {
        RedisCache::open(self.url()).expect("a cache")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vayu-cache"))
            .arg(arguments[0])
            .arg(self.url())
            .args(&arguments[1..])
            .output()
            .expect("the program runs")
    }

    fn json(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn fill(cache: &RedisCache) -> Result<()> {
    let key = Key::new("rates", &("EUR", 7))?.with_label("seven euros");
    cache.set(&key, &vec![1.5], Duration::from_secs(60))?;
    cache.set(&Key::new("rates", &("USD", 7))?, &vec![1.0], Duration::MAX)?;
    // A value that is longer than what is read of each entry.
    cache.set(&Key::from_text("pages", "index"), &"x".repeat(10_000), Duration::MAX)
}

#[test]
fn entries_of_a_namespace_are_listed_shown_and_counted() {
    let server = Server::start();
    fill(&server.cache()).expect("write");
    let other =
        RedisOptions::new().namespace("other").connect(server.url().replace("shop", "other"));
    other.expect("a cache").set(&Key::from_text("f", "k"), &1, Duration::MAX).expect("write");

    let mut calls: Vec<String> = server
        .json(&["ls"])
        .iter()
        .map(|entry| entry["call"].as_str().expect("a call").to_owned())
        .collect();
    calls.sort();
    assert_eq!(calls, ["pages:index", "rates [seven euros]", r#"rates("USD", 7)"#]);
    let page = &server.json(&["show", "pages:index"])[0];
    assert_eq!(page["value"].as_str().expect("a string").len(), 10_000);
    assert_eq!((&page["state"], &page["expires"]), (&"fresh".into(), &serde_json::Value::Null));
    let digest = page["digest"].as_str().expect("a digest");
    for name in [digest, &digest[..12], page["path"].as_str().expect("a name"), "pages", "index"] {
        let output = server.run(&["show", name]);
        assert_eq!(output.status.success(), name != "index", "{name}");
    }
    assert_eq!(server.json(&["show", "seven euros"])[0]["value"], serde_json::json!([1.5]));
    let stats = server.json(&["stats"]);
    let rates = stats.iter().find(|line| line["function"] == "rates").expect("a function");
    assert_eq!((&rates["entries"], &rates["fresh"]), (&2.into(), &2.into()));
    assert_eq!(server.json(&["verify"])[0]["corrupt"], 0);

    let limited = server.run(&["ls", "--limit", "1", "--json"]);
    assert_eq!(String::from_utf8_lossy(&limited.stdout).lines().count(), 1);
    assert!(String::from_utf8_lossy(&limited.stderr).contains("stopped at the limit"));
}

#[test]
fn entries_of_a_namespace_are_purged_and_invalidated() {
    let server = Server::start();
    let cache = server.cache();
    fill(&cache).expect("write");
    let tagged = Key::from_text("f", "k").with_tags(["t"]);
    cache.set(&tagged, &1, Duration::MAX).expect("write");
    assert!(server.run(&["purge", "--tag", "t"]).status.success());
    assert_eq!(cache.get::<i32>(&tagged).expect("read"), None);

    assert_eq!(server.json(&["purge", "--function", "rates"])[0]["entries"], 2);
    assert_eq!(server.json(&["purge", "--key", "pages:index"])[0]["entries"], 1);
    assert_eq!(server.json(&["ls"]).len(), 1, "the entry with the tag keeps its space");
}

#[test]
fn hidden_arguments_are_not_on_the_server() {
    let server = Server::start();
    let hiding = RedisCache::open(server.url() + "&arguments=hidden").expect("a cache");
    fill(&hiding).expect("write");
    let key = Key::new("rates", &("EUR", 7)).expect("a key");
    assert_eq!(server.cache().get::<Vec<f64>>(&key).expect("read"), Some(vec![1.5]));
    for entry in server.json(&["ls"]) {
        let function = entry["function"].as_str().expect("a function");
        assert_eq!(
            (&entry["call"], &entry["label"]),
            (&format!("{function}(…)").into(), &().into())
        );
    }
}

#[test]
fn long_entry_is_verified_and_never_taken_for_corrupt() {
    let server = Server::start();
    let cache = RedisOptions::new().max_entry_bytes(32 << 20).connect(server.url());
    let cache = cache.expect("a cache");
    cache.set(&Key::from_text("f", "long"), &"x".repeat(9 << 20), Duration::MAX).expect("write");
    let summary = &server.json(&["verify"])[0];
    assert_eq!((&summary["corrupt"], &summary["unverified"]), (&0.into(), &0.into()), "{summary}");

    let mut limited = server;
    limited.url_options = "&max_entry_bytes=1000";
    let output = limited.run(&["verify"]);
    let lines = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(lines.contains("too long to verify") && lines.contains("0 corrupt"), "{lines}");
    assert_eq!(limited.json(&["purge", "--corrupt"])[0]["entries"], 0);
    assert_eq!(limited.json(&["ls"]).len(), 1);
    let output = limited.run(&["show", "f:long"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("too long"));
}

#[test]
fn names_that_are_not_digests_are_not_listed() {
    let server = Server::start();
    fill(&server.cache()).expect("write");
    let mut stream = UnixStream::connect(server.directory.path().join("socket")).expect("connect");
    let digest = "a".repeat(64);
    let tail = format!("\u{1b}[2J{}", "b".repeat(60));
    let list = format!("shop:e:{digest}");
    for (command, name) in [("SET", format!("shop:e:{tail}")), ("LPUSH", list)] {
        let length = name.len();
        let (verb, size) = (command, command.len());
        write!(stream, "*3\r\n${size}\r\n{verb}\r\n${length}\r\n{name}\r\n$1\r\nx\r\n")
            .expect("write");
        let mut reply = [0; 5];
        stream.read_exact(&mut reply[..if verb == "SET" { 5 } else { 4 }]).expect("a reply");
        assert!(reply.starts_with(b"+OK") || reply.starts_with(b":1"), "{reply:?}");
    }
    let mut states: Vec<_> =
        server.json(&["ls"]).iter().map(|entry| entry["state"].to_string()).collect();
    states.sort();
    let fresh = "\"fresh\"";
    assert_eq!(states, [fresh, fresh, fresh, "\"unreadable\""]);
}

#[test]
fn server_that_does_not_respond_is_an_error_of_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_vayu-cache"))
        .args(["ls", "redis://:secret@127.0.0.1:1/0?namespace=shop"])
        .output()
        .expect("the program runs");
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
