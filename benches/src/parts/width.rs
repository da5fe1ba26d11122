//! Writes of hits to cache lines that several threads write.
//!
//! Processors that write one cache line take turns, so these writes limit how many processors can hit at the same
//! time. They are counted rather than timed, which shows what many processors would do on a machine that has few: this
//! program runs itself in valgrind, whose tool lackey prints the address of each write, and whose scheduler prints which
//! thread runs. The writes of hits are the difference of two runs with different numbers of hits.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::{env, thread};

use serde_json::json;

use super::memory::contenders::{Maps, bytes, number};
use crate::quick;
use crate::report::Report;

/// The argument that makes this program run the hits of one contender.
pub(crate) const CHILD: &str = "--width";

/// As many as own counters of statistics on every machine, with the main thread, and as many as on a large one: there,
/// the threads beyond the number of processors, or beyond 32 where there are fewer, share counters.
const THREADS: [u64; 2] = [31, 128];
const KEYS: u64 = 8;

const CONTENDERS: [&str; 7] = [
    "vayu, u64 -> u64",
    "vayu, u64 -> Arc<[u8]>",
    "cached, ttl",
    "cached, max_size, ttl",
    "cached, concurrent, ttl",
    "moka, ttl, get",
    "quick_cache, deadline",
];

type Call = Box<dyn Fn(u64) + Sync>;

fn call(name: &str) -> Result<Call, Box<dyn Error>> {
    let maps = Maps::of(KEYS);
    Ok(match name {
        "vayu, u64 -> u64" => Box::new(|key| drop(black_box(number::vayu(key)))),
        "vayu, u64 -> Arc<[u8]>" => Box::new(|key| drop(black_box(bytes::vayu(key)))),
        "cached, ttl" => Box::new(|key| drop(black_box(number::cached_ttl(key)))),
        "cached, max_size, ttl" => Box::new(|key| drop(black_box(number::cached_bounded(key)))),
        "cached, concurrent, ttl" => {
            Box::new(|key| drop(black_box(number::cached_concurrent(key))))
        }
        "moka, ttl, get" => Box::new(move |key| drop(black_box(maps.moka.get(&key)))),
        "quick_cache, deadline" => Box::new(move |key| drop(black_box(maps.quick(key)))),
        _ => return Err("unknown contender".into()),
    })
}

/// Runs a number of hits of one contender on each of several threads.
pub(crate) fn run_child(name: &str, threads: &str, times: &str) -> Result<(), Box<dyn Error>> {
    let (call, threads, times): (_, usize, u64) = (call(name)?, threads.parse()?, times.parse()?);
    let hits = |times| (0..times).for_each(|n| call(n % KEYS));
    hits(64 * KEYS);
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                hits(KEYS);
                start.wait();
                hits(times);
                start.wait();
            });
        }
    });
    Ok(())
}

/// The number of writes to each cache line by each thread.
type Writes = HashMap<u64, BTreeMap<u32, u64>>;

/// Counts the writes of one run.
fn writes(name: &str, threads: u64, times: u64) -> Result<Writes, Box<dyn Error>> {
    let mut child = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--trace-sched=yes", "--log-fd=1"])
        .arg(env::current_exe()?)
        .args([CHILD, name, &threads.to_string(), &times.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("this part needs valgrind: {error}"))?;
    let output = BufReader::new(child.stdout.take().ok_or("it is piped")?);
    let (mut writes, mut running) = (Writes::new(), 1);
    for line in output.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        match event(&line) {
            Some(Event::Runs(id)) => running = id,
            Some(Event::Writes(line)) => {
                *writes.entry(line).or_default().entry(running).or_default() += 1;
            }
            None => {}
        }
    }
    if child.wait()?.success() { Ok(writes) } else { Err(format!("{name} has failed").into()) }
}

enum Event {
    /// A thread runs.
    Runs(u32),
    /// It writes to a cache line.
    Writes(u64),
}

/// Parses a line of valgrind.
fn event(line: &str) -> Option<Event> {
    if let Some(write) = line.strip_prefix(" S ").or_else(|| line.strip_prefix(" M ")) {
        let (address, _) = write.split_once(',')?;
        return Some(Event::Writes(u64::from_str_radix(address, 16).ok()? / 64));
    }
    let (_, scheduled) = line.split_once("SCHED[")?;
    let (id, what) = scheduled.split_once(']')?;
    what.contains("acquired lock").then_some(Event::Runs(id.trim().parse().ok()?))
}

/// Returns the writes of `more` beyond those of `few` to lines that several threads write: their number, and that of
/// the lines.
fn shared(few: &Writes, more: &Writes, hits: u64) -> (u64, u64) {
    let (mut count, mut lines) = (0, 0);
    for (line, threads) in more {
        let before = |thread| few.get(line).and_then(|threads| threads.get(thread)).copied();
        let further =
            threads.iter().map(|(thread, count)| count - before(thread).unwrap_or(0).min(*count));
        let further: Vec<_> = further.filter(|count| *count > 0).collect();
        let sum: u64 = further.iter().sum();
        // Lines with fewer are those of threads that start and end.
        if further.len() > 1 && sum * 50 > hits {
            count += sum;
            lines += 1;
        }
    }
    (count, lines)
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let (few, more) = quick::or((50, 250), (8, 24));
    let [some, many] = THREADS;
    let mut text = format!(
        "\nWrites to cache lines that several threads write, for each hit among {KEYS} keys, as counted by \
         valgrind. Processors take turns at such a line. The counter of an `Arc` is on one, and both its clone and its drop \
         write to it.\n\n\
         | | {some} threads: writes per hit | lines | {many} threads: writes per hit | lines |\n|---|--:|--:|--:|--:|\n"
    );
    for name in CONTENDERS {
        text += &format!("| {name} |");
        for threads in THREADS {
            let [few_writes, more_writes] =
                [writes(name, threads, few)?, writes(name, threads, more)?];
            let hits = (more - few) * threads;
            let (count, lines) = shared(&few_writes, &more_writes, hits);
            let per_hit = count as f64 / hits as f64;
            text += &format!(" {per_hit:.2} | {lines} |");
            report.data(json!({
                "name": name, "threads": threads, "writes": per_hit, "lines": lines
            }));
        }
        text += "\n";
    }
    report.write(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_valgrind_are_writes_and_switches_of_threads() {
        let parsed = [
            " S 1040,8",
            " M 0103f,4",
            " L 1040,8",
            "I  04,3",
            "--7--   SCHED[12]:  acquired lock (x)",
        ];
        let parsed = parsed.map(|line| match event(line) {
            Some(Event::Runs(id)) => format!("runs {id}"),
            Some(Event::Writes(line)) => format!("writes {line:x}"),
            None => String::new(),
        });
        assert_eq!(parsed, ["writes 41", "writes 40", "", "", "runs 12"]);
    }

    #[test]
    fn only_lines_of_several_threads_are_counted() {
        let run = |times: u64| {
            let line = |threads: &[u32]| threads.iter().map(|id| (*id, times)).collect();
            Writes::from([
                (1, line(&[1])),
                (2, line(&[1, 2])),
                (3, BTreeMap::from([(1, 5), (2, 5)])),
            ])
        };
        assert_eq!(shared(&run(10), &run(30), 40), (40, 1));
    }
}
