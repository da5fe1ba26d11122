//! Servers that do not speak the protocol.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use vayu::backend::BackendExt;
use vayu::testing::watchdog;
use vayu::{Key, RedisCache, RedisOptions, cached};

use crate::HANG;
use crate::process::{self, Process};

#[cached(cache = cache, ttl = "1m", prefix = "answer", skip(cache), log = false)]
fn next(cache: &RedisCache, n: u64) -> u64 {
    n + 1
}

#[cached(cache = cache, ttl = "1m", prefix = "answer", skip(cache), log = false)]
async fn next_async(cache: &RedisCache, n: u64) -> u64 {
    n + 1
}

/// Returns malformed replies, which a server sends to every command.
fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let mut nested = b"*1\r\n".repeat(1_000_000);
    nested.extend_from_slice(b":1\r\n");
    let megabyte = |start: &str| [start.as_bytes(), &vec![b'x'; 1 << 20]].concat();
    vec![
        ("nothing", Vec::new()),
        ("garbage", (0..=255).cycle().take(4096).collect()),
        ("text of the web", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a number", b":1\r\n".to_vec()),
        ("a negative length", b"$-7\r\n".to_vec()),
        ("a length that is none", b"$99999999999999999999\r\n".to_vec()),
        ("the longest length", b"$9223372036854775807\r\nx".to_vec()),
        ("512 MiB", megabyte("$536870912\r\n")),
        ("a line without end", megabyte("+")),
        ("many arrays", nested),
        ("an array of the longest length", b"*2147483647\r\n:1\r\n".to_vec()),
        ("a map of the longest length", b"%9223372036854775807\r\n:1\r\n".to_vec()),
        ("a push", b">3\r\n+message\r\n+a\r\n+b\r\n".to_vec()),
        ("an attribute", b"|1\r\n+a\r\n+b\r\n".to_vec()),
        ("it is loading", b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()),
        ("it is busy", b"-BUSY a script is running\r\n".to_vec()),
        ("the master is down", b"-MASTERDOWN Link with MASTER is down\r\n".to_vec()),
        ("ask others", b"-ASK 3999 127.0.0.1:6381\r\n".to_vec()),
        ("an entry that is none", b"$5\r\nhello\r\n".to_vec()),
        ("ok", b"+OK\r\n".to_vec()),
        ("an empty value", b"$0\r\n\r\n".to_vec()),
    ]
}

/// Sends a reply to every client, once for each piece it receives, or endlessly.
fn send(listener: &TcpListener, reply: &[u8], is_endless: bool) {
    for client in listener.incoming() {
        let (Ok(mut client), reply) = (client, reply.to_vec()) else { return };
        thread::spawn(move || {
            let _ = client.set_read_timeout(Some(Duration::from_secs(10)));
            let mut buffer = [0; 4096];
            while let Ok(1..) = client.read(&mut buffer) {
                loop {
                    if client.write_all(&reply).is_err() {
                        return;
                    }
                    if !is_endless || reply.is_empty() {
                        break;
                    }
                }
            }
        });
    }
}

/// Sends one byte at a time, so that no single read takes long.
fn trickle(listener: &TcpListener) {
    for client in listener.incoming() {
        let Ok(mut client) = client else { return };
        thread::spawn(move || {
            let _ = client.write_all(b"$1000000\r\n");
            while client.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
    }
}

fn call(port: u16, reply: &str, limit: Duration) {
    let cache = RedisOptions::new()
        .timeout(limit)
        .circuit_breaker(u32::MAX, Duration::from_millis(1))
        .connect(format!("redis://127.0.0.1:{port}/"))
        .expect("a valid URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for n in 0..5 {
        assert_eq!(next(&cache, n), n + 1, "{reply}");
        assert_eq!(runtime.block_on(next_async(&cache, n)), n + 1, "{reply}");
    }
    let keys: Vec<Key> = (0..5).map(|n| Key::from_text("answer", n.to_string())).collect();
    let keys: Vec<&Key> = keys.iter().collect();
    let batches = [
        cache.backend().read_many(&keys),
        runtime.block_on(cache.backend().read_many_async(&keys)),
    ];
    for found in batches.into_iter().flatten() {
        assert!(!found.is_ok_and(|found| found.is_some()), "{reply}");
    }
    assert_eq!(cache.stats().hits, 0, "{reply}");
}

/// Returns the peak memory of this process, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the state of this process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Makes calls to malformed servers of all kinds, and then reports the peak memory.
fn call_all() {
    for (reply, bytes) in replies() {
        for is_endless in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let bytes = bytes.clone();
            // An endless reply is rejected for its length long before that.
            let is_long = is_endless && bytes.len() > 1 << 20 && bytes[0] != b'*';
            let limit = Duration::from_millis(if is_long { 3000 } else { 60 });
            thread::spawn(move || send(&listener, &bytes, is_endless));
            call(port, reply, limit);
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || trickle(&listener));
    call(port, "one byte after the other", Duration::from_millis(60));
    process::serve(|_| peak().to_string());
}

#[test]
fn malformed_replies_cost_bounded_time_and_memory() {
    if process::role().is_some() {
        return watchdog(2 * HANG, call_all);
    }
    watchdog(2 * HANG, || {
        let name = "hostile::malformed_replies_cost_bounded_time_and_memory";
        let peak: u64 = Process::start(name, "victim").ask("").parse().expect("a number");
        println!("at most {} MiB", peak / 1024);
        assert!(peak < 200 * 1024, "{peak} KiB");
    });
}

/// Simulates a server that closes each connection at once.
#[test]
fn closed_connections_do_not_fail_calls() {
    watchdog(HANG, || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || listener.incoming().flatten().for_each(drop::<TcpStream>));
        call(port, "good bye", Duration::from_millis(60));
    });
}
