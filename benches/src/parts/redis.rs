//! Hits on a Redis server, compared with the bare command.

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use vayu::backend::{Backend, BackendExt, Serializer};
use vayu::{Cache, Key, MemoryCache, RedisCache, RedisOptions, TieredOptions};

use crate::comparison::{Contender, Role, Schedule, compare};
use crate::keys::{Cycle, uniform};
use crate::report::{Limit, Report};

#[vayu::cached(cache = cache, ttl = "1h", prefix = "number", skip(cache), log = false)]
fn number<B: Backend, S: Serializer<u64, Stored = B::Stored>>(
    cache: &Cache<B, S>,
    key: u64,
) -> u64 {
    key
}

#[vayu::cached(cache = cache, ttl = "1h", prefix = "number", skip(cache), log = false)]
async fn number_async<B: Backend, S: Serializer<u64, Stored = B::Stored>>(
    cache: &Cache<B, S>,
    key: u64,
) -> u64 {
    key
}

#[vayu::cached(cache = cache, ttl = "1h", prefix = "number", skip(cache), log = false, each = keys)]
fn numbers(cache: &RedisCache, keys: &[u64]) -> HashMap<u64, u64> {
    keys.iter().map(|&key| (key, key)).collect()
}

#[vayu::cached(cache = cache, ttl = "1h", prefix = "number", skip(cache), log = false, each = keys)]
async fn numbers_async(cache: &RedisCache, keys: &[u64]) -> HashMap<u64, u64> {
    keys.iter().map(|&key| (key, key)).collect()
}

/// A server that is stopped when this is dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Result<Self, Box<dyn Error>> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("this part needs redis-server: {error}"))?;
        let server = Self { child, url: format!("redis://127.0.0.1:{port}/") };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                return Err("redis-server does not accept connections".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the Redis key of the only entry.
fn entry_name(url: &str) -> Result<String, Box<dyn Error>> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let names: Vec<String> = redis::cmd("KEYS").arg("vayu:e:*").query(&mut connection)?;
    names.into_iter().next().ok_or_else(|| "no entry on the server".into())
}

/// Measures reads of 100 keys in one batch.
fn measure_batches(
    report: &mut Report,
    cache: &RedisCache,
    client: &redis::Client,
) -> Result<(), Box<dyn Error>> {
    let ids: Vec<u64> = (1_000..1_100).collect();
    let keys = ids.iter().map(|id| Key::new("number", &(id,))).collect::<Result<Vec<Key>, _>>()?;
    let keys: Vec<&Key> = keys.iter().collect();
    numbers(cache, &ids);
    let mut mget = redis::cmd("MGET");
    for key in &keys {
        let digits =
            key.digest().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        mget.arg(format!("vayu:e:{digits}"));
    }
    let backend = cache.backend();
    let is_found = |found: Vec<vayu::Result<Option<_>>>| {
        black_box(&found).iter().all(|found| found.as_ref().is_ok_and(Option::is_some))
    };
    let mut connection = client.get_connection()?;
    let measurements = compare(
        Schedule::LONG,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                (0..times).for_each(|_| drop(black_box(numbers(cache, black_box(&ids)))));
            })
            .note("`each`"),
            Contender::new("vayu, read_many", Role::Vayu, |times| {
                for _ in 0..times {
                    assert!(is_found(backend.read_many(black_box(&keys))), "each key has an entry");
                }
            })
            .note("the backend alone"),
            Contender::new("bare MGET", Role::Baseline, |times| {
                for _ in 0..times {
                    let bytes: Vec<Vec<u8>> = mget.query(&mut connection).expect("they are there");
                    black_box(bytes);
                }
            })
            .note("the same bytes, the same client"),
        ],
    );
    report.comparison("100 keys in a batch, sync", &measurements, &[Limit::of("bare MGET", 1.3)]);

    let runtime = Builder::new_current_thread().enable_all().build()?;
    let line = runtime.block_on(client.get_multiplexed_async_connection())?;
    let measurements = compare(
        Schedule::LONG,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                runtime.block_on(async {
                    for _ in 0..times {
                        drop(black_box(numbers_async(cache, black_box(&ids)).await));
                    }
                });
            })
            .note("`each`"),
            Contender::new("vayu, read_many_async", Role::Vayu, |times| {
                runtime.block_on(async {
                    for _ in 0..times {
                        let found = backend.read_many_async(black_box(&keys)).await;
                        assert!(is_found(found), "each key has an entry");
                    }
                });
            })
            .note("the backend alone"),
            Contender::new("bare MGET", Role::Baseline, |times| {
                let mut line = line.clone();
                runtime.block_on(async {
                    for _ in 0..times {
                        let bytes: Vec<Vec<u8>> =
                            mget.query_async(&mut line).await.expect("they are there");
                        black_box(bytes);
                    }
                });
            })
            .note("the same bytes, the same client"),
        ],
    );
    report.comparison("100 keys in a batch, async", &measurements, &[Limit::of("bare MGET", 1.3)]);
    Ok(())
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let server = Server::start()?;
    let cache = RedisCache::open(server.url.as_str())?;
    let client = redis::Client::open(server.url.as_str())?;
    number(&cache, 1);
    let name = entry_name(&server.url)?;

    let mut connection = client.get_connection()?;
    let measurements = compare(
        Schedule::LONG,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                (0..times).for_each(|_| drop(black_box(number(&cache, black_box(1)))));
            }),
            Contender::new("bare GET", Role::Baseline, |times| {
                for _ in 0..times {
                    let bytes: Vec<u8> =
                        redis::cmd("GET").arg(&name).query(&mut connection).expect("it is there");
                    black_box(bytes);
                }
            })
            .note("the same bytes, the same client"),
        ],
    );
    report.comparison("hit, sync", &measurements, &[Limit::of("bare GET", 1.05)]);

    let runtime = Builder::new_current_thread().enable_all().build()?;
    let config =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_millis(250)));
    let line = runtime.block_on(client.get_multiplexed_async_connection_with_config(&config))?;
    let get = redis::cmd("GET").arg(&name).to_owned();
    let measurements = compare(
        Schedule::LONG,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                runtime.block_on(async {
                    for _ in 0..times {
                        black_box(number_async(&cache, black_box(1)).await);
                    }
                });
            }),
            Contender::new("bare GET", Role::Baseline, |times| {
                let mut line = line.clone();
                runtime.block_on(async {
                    for _ in 0..times {
                        let bytes: Vec<u8> = get.query_async(&mut line).await.expect("it is there");
                        black_box(bytes);
                    }
                });
            })
            .note("the same bytes, the same client, the same time limit"),
        ],
    );
    report.comparison("hit, async", &measurements, &[Limit::of("bare GET", 1.05)]);

    let measurements = compare(
        Schedule::LONG,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..64)
                        .map(|_| {
                            let cache = cache.clone();
                            tokio::spawn(async move {
                                for _ in 0..times.div_ceil(64) {
                                    black_box(number_async(&cache, black_box(1)).await);
                                }
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await.expect("no panic");
                    }
                });
            }),
            Contender::new("bare GET", Role::Baseline, |times| {
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..64)
                        .map(|_| {
                            let (mut line, get) = (line.clone(), get.clone());
                            tokio::spawn(async move {
                                for _ in 0..times.div_ceil(64) {
                                    let bytes: Vec<u8> =
                                        get.query_async(&mut line).await.expect("it is there");
                                    black_box(bytes);
                                }
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await.expect("no panic");
                    }
                });
            }),
        ],
    );
    report.comparison(
        "hit, 64 async callers at once",
        &measurements,
        &[Limit::of("bare GET", 1.15)],
    );

    measure_batches(report, &cache, &client)?;

    let (tiers, memory) = (TieredOptions::new().over(&cache), MemoryCache::new());
    let keys = uniform(1000, 1 << 14, 5);
    let [mut first, mut second] = [Cycle::new(&keys), Cycle::new(&keys)];
    let measurements = compare(
        Schedule::SHORT.warm(1 << 14),
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                (0..times).for_each(|_| drop(black_box(number(&tiers, black_box(first.next())))));
            })
            .note("tiered"),
            Contender::new("vayu, memory alone", Role::Baseline, |times| {
                (0..times).for_each(|_| drop(black_box(number(&memory, black_box(second.next())))));
            }),
        ],
    );
    report.comparison(
        "hit in memory in front of Redis, 1,000 keys",
        &measurements,
        &[Limit::of("vayu, memory alone", 1.0)],
    );

    let dead = RedisOptions::new()
        .circuit_breaker(3, Duration::from_hours(1))
        .connect("redis://127.0.0.1:1/")?;
    number(&dead, 1);
    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                (0..times).for_each(|_| drop(black_box(number(&dead, black_box(1)))));
            })
            .note("circuit breaker open; the function runs"),
            Contender::new("hit, server up", Role::Baseline, |times| {
                (0..times).for_each(|_| drop(black_box(number(&cache, black_box(1)))));
            }),
        ],
    );
    report.comparison("call while the server is down", &measurements, &[]);
    Ok(())
}
