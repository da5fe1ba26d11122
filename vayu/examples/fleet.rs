//! Three processes that share results over Redis, with memory in front.
//!
//! It starts a `redis-server`, which must be installed, and stops it afterwards.

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

/// Computes a page, which takes a while, with the id of the computing process.
#[cached(cache = cache, ttl = "1h", skip(cache), tags("pages"))]
fn page(cache: &TieredCache<RedisBackend>, number: u64) -> String {
    thread::sleep(Duration::from_millis(50));
    format!("page {number}, of process {}", std::process::id())
}

fn main() -> Result<()> {
    match env::args().nth(1) {
        Some(url) => work(&url),
        None => run_fleet(),
    }
}

/// Runs one of the processes: reads commands from stdin, line by line.
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
            let from_redis = tiers.hits - before.1.hits;
            let hits = stats.hits - before.0.hits;
            let (computed, coalesced) =
                (stats.misses - before.0.misses, stats.coalesced - before.0.coalesced);
            println!("{} {from_redis} {computed} {coalesced}", hits.saturating_sub(from_redis));
            continue;
        }
        println!("done");
    }
    Ok(())
}

/// Starts the server and the processes, and prints the statistics of each round.
fn run_fleet() -> Result<()> {
    let (mut server, url) = start_server()?;
    let result = run_rounds(&url);
    server.kill()?;
    server.wait()?;
    result
}

fn run_rounds(url: &str) -> Result<()> {
    let mut fleet = (0..PROCESSES).map(|_| Worker::start(url)).collect::<Result<Vec<_>>>()?;
    println!(
        "{PROCESSES} processes, each with {THREADS} threads that read {PAGES} pages {ROUNDS} times; \
         a page takes 50 ms to compute\n"
    );
    round("Cold caches", &mut fleet)?;
    round("Warm caches", &mut fleet)?;
    fleet[0].request("invalidate")?;
    round("After one process has invalidated the tag of the pages", &mut fleet)
}

fn round(title: &str, fleet: &mut [Worker]) -> Result<()> {
    let began = Instant::now();
    for worker in fleet.iter_mut() {
        worker.send("read")?;
    }
    println!("{title}:");
    let mut all_computed = 0;
    for (index, worker) in fleet.iter_mut().enumerate() {
        let line = worker.receive()?;
        let counts =
            line.split(' ').map(str::parse).collect::<std::result::Result<Vec<u64>, _>>()?;
        let [memory, from_redis, computed, coalesced] = counts[..] else {
            return Err("expected four numbers".into());
        };
        all_computed += computed;
        println!(
            "  process {}: {memory:5} from memory, {from_redis:3} from Redis, {coalesced:3} coalesced, \
             {computed:2} computed",
            index + 1
        );
    }
    println!("  {all_computed} computations in total, {:?}\n", began.elapsed());
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
        let output = BufReader::new(child.stdout.take().ok_or("stdio is not piped")?);
        Ok(Self { child, output })
    }

    fn send(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.child.stdin.as_mut().ok_or("stdio is not piped")?, "{line}")?)
    }

    fn receive(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn request(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        self.receive()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server on a free port, without persistence.
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
            return Err("no connection to the redis-server".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok((server, format!("redis://127.0.0.1:{port}/")))
}
