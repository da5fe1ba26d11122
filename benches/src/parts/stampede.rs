//! Stampedes: 64 threads, and 1,000 tasks, that call with one missing key.

use std::error::Error;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::quick;
use crate::report::Report;

static RUNS: AtomicU64 = AtomicU64::new(0);

const WORK: Duration = Duration::from_millis(20);

/// All do the work and none waits: the cost of threads, tasks and timers.
const ALONE: &str = "no cache";

fn work(key: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(WORK);
    key
}

async fn work_async(key: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(WORK).await;
    key
}

#[vayu::cached(ttl = "1h")]
fn vayu(key: u64) -> u64 {
    work(key)
}

#[cached::macros::cached(ttl_secs = 3600, sync_writes = "by_key")]
fn cached_by_key(key: u64) -> u64 {
    work(key)
}

#[cached::macros::concurrent_cached(ttl_secs = 3600)]
fn cached_concurrent(key: u64) -> u64 {
    work(key)
}

#[vayu::cached(ttl = "1h")]
async fn vayu_async(key: u64) -> u64 {
    work_async(key).await
}

#[cached::macros::cached(ttl_secs = 3600, sync_writes = "by_key")]
async fn cached_by_key_async(key: u64) -> u64 {
    work_async(key).await
}

/// Returns the time until all threads have returned, relative to the work, and how often that was done.
fn threads(key: u64, call: fn(u64) -> u64) -> (f64, u64) {
    let before = RUNS.load(Ordering::Relaxed);
    let start = Barrier::new(65);
    let took = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    call(key)
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        for thread in threads {
            thread.join().expect("no panic");
        }
        began.elapsed()
    });
    (took.as_secs_f64() / WORK.as_secs_f64(), RUNS.load(Ordering::Relaxed) - before)
}

macro_rules! tasks {
    ($runtime:expr, $key:expr, $call:expr) => {{
        let before = RUNS.load(Ordering::Relaxed);
        let took = $runtime.block_on(async {
            let began = Instant::now();
            let tasks: Vec<_> = (0..1000).map(|_| tokio::spawn($call($key))).collect();
            for task in tasks {
                task.await.expect("no panic");
            }
            began.elapsed()
        });
        (took.as_secs_f64() / WORK.as_secs_f64(), RUNS.load(Ordering::Relaxed) - before)
    }};
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows: Vec<(&str, &str, Vec<f64>, u64)> = Vec::new();
    let mut note = |callers, name, (ratio, runs): (f64, u64)| match rows
        .iter_mut()
        .find(|row| row.0 == callers && row.1 == name)
    {
        Some(row) => {
            row.2.push(ratio);
            row.3 = row.3.max(runs);
        }
        None => rows.push((callers, name, vec![ratio], runs)),
    };
    for key in 0..quick::or(21, 1) {
        note("64 threads", "vayu", threads(key, vayu));
        note("64 threads", "cached, ttl, by_key", threads(key, cached_by_key));
        note("64 threads", "cached, concurrent, ttl", threads(key, cached_concurrent));
        note("64 threads", ALONE, threads(key, work));
        note("1,000 tasks", "vayu", tasks!(runtime, key, vayu_async));
        note("1,000 tasks", "cached, ttl, by_key", tasks!(runtime, key, cached_by_key_async));
        note("1,000 tasks", ALONE, tasks!(runtime, key, work_async));
    }
    let mut text =
        "\n| callers | | time / 20 ms of work | executions |\n|---|---|--:|--:|\n".to_owned();
    for (callers, name, ratios, runs) in &mut rows {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        text += &format!("| {callers} | {name} | {median:.3} | {runs} |\n");
        report
            .data(json!({ "callers": callers, "name": name, "ratio": median, "executions": runs }));
    }
    for (callers, name, ratios, runs) in &rows {
        if *name == "vayu" {
            let median = ratios[ratios.len() / 2];
            let word = if *runs == 1 && median <= 1.1 { "reached" } else { "**not reached**" };
            text += &format!(
                "\n- {callers}: {runs} execution, {median:.3} of 20 ms, at most 1.10: {word}"
            );
        }
    }
    report.write(&(text + "\n"));
    Ok(())
}
