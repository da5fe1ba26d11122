//! Three processes that share results over Redis, with memory in front.
//!
//! It starts a `redis-server` of its own, which must be installed, and ends it afterwards.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vayu::backend::RedisBackend;
use vayu::{RedisOptions, SingleFlight, TieredCache, TieredOptions, cached};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const PROCESSES: usize = 3;
const THREADS: u64 = 8;
const PAGES: u64 = 20;
const ROUNDS: usize = 50;

/// A page that takes a while. Whoever computes it says so.
#[cached(cache = cache, ttl = "1h", skip(cache), tags("pages"))]
fn page(cache: &TieredCache<RedisBackend>, number: u64) -> String {
    thread::sleep(Duration::from_millis(50));
    format!("page {number}, of process {}", std::process::id())
}

fn main() -> Result<()> {
    match env::args().nth(1) {
        Some(url) => work(&url),
        None => direct(),
    }
}

/// One of the processes: does what it is told, line by line.
fn work(url: &str) -> Result<()> {
    let redis = RedisOptions::new().single_flight(SingleFlight::Everywhere).connect(url)?;
    let cache = TieredOptions::new().over(&redis);
    for line in std::io::stdin().lines() {
        if line? == "invalidate" {
            cache.invalidate_tag("pages")?;
        } else {
            let before = (cache.stats(), cache.backend().tier_stats());
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for _ in 0..ROUNDS {
                            (0..PAGES).for_each(|number| drop(page(&cache, number)));
                        }
                    });
                }
            });
            let (stats, tiers) = (cache.stats(), cache.backend().tier_stats());
            let below = tiers.hits - before.1.hits;
            let hits = stats.hits - before.0.hits;
            let (computed, waits) =
                (stats.misses - before.0.misses, stats.coalesced - before.0.coalesced);
            println!("{} {below} {computed} {waits}", hits.saturating_sub(below));
            continue;
        }
        println!("done");
    }
    Ok(())
}

/// Starts everything, and prints what happened.
fn direct() -> Result<()> {
    let (mut server, url) = start_server()?;
    let told = tell_story(&url);
    server.kill()?;
    server.wait()?;
    told
}

fn tell_story(url: &str) -> Result<()> {
    let mut fleet = (0..PROCESSES).map(|_| Worker::start(url)).collect::<Result<Vec<_>>>()?;
    println!(
        "{PROCESSES} processes, each with {THREADS} threads that read {PAGES} pages {ROUNDS} times; \
         a page takes 50 ms to compute\n"
    );
    round("All begin with nothing", &mut fleet)?;
    round("Once more", &mut fleet)?;
    fleet[0].tell("invalidate")?;
    round("After one of them has invalidated the tag of the pages", &mut fleet)
}

fn round(title: &str, fleet: &mut [Worker]) -> Result<()> {
    let began = Instant::now();
    for worker in fleet.iter_mut() {
        worker.send("read")?;
    }
    println!("{title}:");
    let mut all_computed = 0;
    for (index, worker) in fleet.iter_mut().enumerate() {
        let line = worker.hear()?;
        let counts =
            line.split(' ').map(str::parse).collect::<std::result::Result<Vec<u64>, _>>()?;
        let [memory, below, computed, waits] = counts[..] else {
            return Err("four numbers".into());
        };
        all_computed += computed;
        println!(
            "  process {}: {memory:5} from memory, {below:3} from Redis, {waits:3} waited, \
             {computed:2} computed",
            index + 1
        );
    }
    println!("  {all_computed} computations in all, {:?}\n", began.elapsed());
    Ok(())
}

struct Worker {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(url: &str) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("it is piped")?);
        Ok(Self { child, output })
    }

    fn send(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.child.stdin.as_mut().ok_or("it is piped")?, "{line}")?)
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn tell(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        self.hear()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server on a free port, that keeps nothing on the disk.
fn start_server() -> Result<(Child, String)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("this example starts a redis-server: {error}"))?;
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if began.elapsed() > Duration::from_secs(10) {
            return Err("the redis-server does not answer".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok((server, format!("redis://127.0.0.1:{port}/")))
}
