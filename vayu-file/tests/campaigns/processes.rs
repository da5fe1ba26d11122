//! Processes that share a directory read valid values only, and compute each key once.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use vayu_core::SingleFlight;
use vayu_core::testing::watchdog;
use vayu_core::{Backend, Lease};
use vayu_file::FileCache;

use crate::fixture::{keys, options};
use crate::tagged_value::{Random, TaggedValue};
use crate::{HANG, HOUR, child, size};

const PROCESSES: usize = 4;
const KEYS: usize = 16;

/// Few enough that entries are evicted while others are read.
const MAX_ENTRIES: u64 = 12;

#[test]
fn every_read_returns_a_valid_value_of_its_key_while_other_processes_write_delete_and_clear() {
    // Each batch has a watchdog of its own.
    let batches = size("VAYU_ROUNDS", 8_000).div_ceil(2_000);
    for batch in 0..batches {
        crate::progress("batches of rounds", batch, batches);
        watchdog(HANG, move || {
            let directory = tempfile::tempdir().expect("a directory");
            let children: Vec<_> = (0..PROCESSES)
                .map(|process| {
                    let seed = (batch * PROCESSES + process).to_string();
                    let mut command = child::command(
                        "processes::runs_random_operations",
                        directory.path(),
                        &seed,
                    );
                    command.spawn().expect("the child can be started")
                })
                .collect();
            let (mut hits, mut all) = (0, 0);
            for child in children {
                let output = child.wait_with_output().expect("the child ends");
                child::check(&output);
                let report = String::from_utf8(output.stderr).expect("the report is text");
                let numbers: Vec<usize> = report
                    .split_whitespace()
                    .map(|number| number.parse().expect("a number"))
                    .collect();
                hits += numbers[0];
                all += numbers[1];
            }
            println!("{PROCESSES} processes: {all} reads, {hits} of which found a value");
            assert!(hits > 0, "the processes have seen each other's values");
        });
    }
}

/// Runs all operations at random, and reports the number of hits and of reads.
#[test]
fn runs_random_operations() {
    let Some(task) = child::task() else { return };
    let writer: u64 = task.argument.parse().expect("the number of the process");
    let cache = options().max_entries(MAX_ENTRIES).open(&task.directory).expect("a cache");
    let keys = keys(KEYS);
    let mut random = Random::new(writer);
    let (mut hits, mut reads) = (0, 0);
    for sequence in 0..2_000 {
        let number = random.below(KEYS);
        let key = &keys[number];
        let value = TaggedValue { key: number, writer, sequence }.value();
        match random.below(100) {
            0 => cache.clear().expect("clear"),
            1..10 => drop(cache.remove(key).expect("remove")),
            10..40 => cache.set(key, &value, HOUR).expect("set"),
            40..60 => {
                let found = cache.get_or_insert_with(key, HOUR, || value);
                TaggedValue::of(&found, number);
            }
            _ => {
                reads += 1;
                if let Some(found) = cache.get::<String>(key).expect("read") {
                    TaggedValue::of(&found, number);
                    hits += 1;
                }
            }
        }
    }
    let stats = cache.stats();
    assert_eq!((stats.errors, stats.usage.corrupt_entries), (0, Some(0)), "no value was damaged");
    eprintln!("{hits} {reads}");
}

#[test]
fn processes_that_start_together_compute_each_key_once() {
    watchdog(HANG, || {
        let directory = tempfile::tempdir().expect("a directory");
        let mut children: Vec<_> = (0..PROCESSES)
            .map(|_| start("processes::calls_each_key", directory.path(), ""))
            .collect();
        for (child, _) in &mut children {
            wait_for_byte(child);
        }
        for number in 0..KEYS {
            // The process that computes waits until all four have called.
            for (_, stdin) in &mut children {
                stdin.write_all(b"!").expect("the child listens");
            }
            for (child, _) in &mut children {
                wait_for_byte(child);
            }
            let runs = count(directory.path(), "runs", number);
            assert_eq!(runs, 1, "key {number} was computed by one process");
        }
        for (child, stdin) in children {
            drop(stdin);
            child::check(&child.wait_with_output().expect("the child ends"));
        }
        println!("{PROCESSES} processes computed each of {KEYS} cold keys once");
    });
}

/// Calls for each key when the test asks for it.
#[test]
fn calls_each_key() {
    let Some(task) = child::task() else { return };
    let cache = open_with_leases(&task.directory);
    progress();
    for (number, key) in keys(KEYS).iter().enumerate() {
        wait_for_test();
        note(&task.directory, "calls", number);
        let value = cache.get_or_insert_with(key, HOUR, || {
            note(&task.directory, "runs", number);
            while count(&task.directory, "calls", number) < PROCESSES {
                thread::yield_now();
            }
            TaggedValue { key: number, writer: 0, sequence: 0 }.value()
        });
        TaggedValue::of(&value, number);
        progress();
    }
    assert_eq!(cache.stats().errors, 0);
}

#[test]
fn process_killed_while_it_computes_does_not_block_the_next() {
    for round in 0..8 {
        watchdog(HANG, move || {
            let directory = tempfile::tempdir().expect("a directory");
            let key = &keys(1)[0];
            let cache = open_with_leases(directory.path());
            let (mut child, _stdin) = start("processes::holds_lock", directory.path(), "");
            wait_for_byte(&mut child);
            let lease = cache
                .backend()
                .capabilities()
                .leases
                .expect("leases")
                .try_acquire(key)
                .expect("the lock can be asked for");
            assert!(matches!(lease, Lease::Held), "round {round}: {lease:?}");
            let (called, is_called) = channel();
            let waiting = thread::spawn({
                let (cache, key) = (cache.clone(), key.clone());
                move || {
                    called.send(()).expect("the test waits for it");
                    cache.get_or_insert_with(&key, HOUR, || "next".to_owned())
                }
            });
            is_called.recv().expect("the thread calls");
            child.kill().expect("the child is there");
            child.wait().expect("the child is gone");
            assert_eq!(waiting.join().expect("the call returns"), "next");
            assert_eq!(cache.stats().errors, 0);
        });
    }
}

/// Half of the callers are async. The clock of the cache is advanced by the test.
#[cfg(unix)]
#[test]
fn process_stopped_while_it_computes_costs_the_maximum_wait_once() {
    use std::pin::pin;
    use std::process::Command;
    use std::time::Duration;

    use vayu_core::testing::ManualClock;

    watchdog(HANG, || {
        let directory = tempfile::tempdir().expect("a directory");
        let key = &keys(1)[0];
        let (mut child, _stdin) = start("processes::holds_lock", directory.path(), "");
        wait_for_byte(&mut child);
        let stopped = Command::new("kill").args(["-STOP", &child.id().to_string()]).status();
        assert!(stopped.expect("kill can be started").success());
        let (clock, max_wait) = (ManualClock::new(), Duration::from_secs(3));
        let options = options().single_flight(SingleFlight::Everywhere).clock(clock.clone());
        let cache = options.open(directory.path()).expect("a cache").with_max_wait(max_wait);
        let (mut waited, step) = (Duration::ZERO, Duration::from_millis(1));
        thread::scope(|scope| {
            let callers = [false, true, false, true].map(|is_async| {
                let cache = &cache;
                scope.spawn(move || {
                    let value = || "value".to_owned();
                    if is_async {
                        let body = async { value() };
                        let call = pin!(cache.get_or_insert_with_async(key, HOUR, body));
                        block_on(call)
                    } else {
                        cache.get_or_insert_with(key, HOUR, value)
                    }
                })
            });
            while clock.sleepers() < 4 {
                thread::yield_now();
            }
            while callers.iter().any(|caller| !caller.is_finished()) {
                if clock.sleepers() > 0 {
                    clock.advance(step);
                    waited += step;
                }
                thread::yield_now();
            }
            for caller in callers {
                assert_eq!(caller.join().expect("the call returns"), "value");
            }
        });
        child.kill().expect("the child is there");
        child.wait().expect("the child is gone");
        assert!(waited >= max_wait && waited < max_wait + max_wait / 5, "{waited:?}");
    });
}

/// The other process stores the value without the lock.
#[test]
fn value_stored_by_another_process_ends_the_wait_for_one_that_is_stopped() {
    watchdog(HANG, || {
        let directory = tempfile::tempdir().expect("a directory");
        let key = &keys(1)[0];
        let (mut child, _stdin) = start("processes::holds_lock", directory.path(), "");
        wait_for_byte(&mut child);
        let cache = open_with_leases(directory.path());
        let other = options().open(directory.path()).expect("a cache");
        let never = || -> String { panic!("there is a value") };
        thread::scope(|scope| {
            let call = || cache.get_or_insert_with(key, HOUR, never);
            let callers = [(); 3].map(|()| scope.spawn(call));
            while cache.stats().in_flight == 0 {
                thread::yield_now();
            }
            other.set(key, &"set".to_owned(), HOUR).expect("set");
            for caller in callers {
                assert_eq!(caller.join().expect("the call returns"), "set");
            }
        });
        child.kill().expect("the child is there");
        child.wait().expect("the child is gone");
    });
}

/// Runs a future on this thread.
#[cfg(unix)]
fn block_on<F: Future>(mut future: std::pin::Pin<&mut F>) -> F::Output {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake};

    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Computes forever.
#[test]
fn holds_lock() {
    let Some(task) = child::task() else { return };
    let cache = open_with_leases(&task.directory);
    cache.get_or_insert_with(&keys(1)[0], HOUR, || {
        progress();
        wait_for_test();
        "never".to_owned()
    });
}

/// Opens a cache whose callers wait for other processes longer than any test.
fn open_with_leases(directory: &Path) -> FileCache {
    let options = options().single_flight(SingleFlight::Everywhere);
    options.open(directory).expect("a cache").with_max_wait(24 * HOUR)
}

fn start(test: &str, directory: &Path, argument: &str) -> (Child, ChildStdin) {
    let mut command = child::command(test, directory, argument);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the child can be started");
    let stdin = child.stdin.take().expect("it was asked for");
    (child, stdin)
}

fn wait_for_byte(child: &mut Child) {
    let stderr = child.stderr.as_mut().expect("it was asked for");
    stderr.read_exact(&mut [0]).expect("the child goes on");
}

fn wait_for_test() {
    std::io::stdin().read_exact(&mut [0]).expect("the test goes on");
}

fn progress() {
    std::io::stderr().write_all(b".").expect("the test listens");
}

/// Notes a call for a key, or a run of its function, by a file of this process: not every system appends to a
/// file atomically.
fn note(directory: &Path, what: &str, number: usize) {
    let name = format!(".{what}-{number}-{}", std::process::id());
    File::create_new(directory.join(name)).expect("it is the first one of this process");
}

/// Returns the number of processes that have noted it.
fn count(directory: &Path, what: &str, number: usize) -> usize {
    let start = format!(".{what}-{number}-");
    let names = fs::read_dir(directory).expect("the directory can be read");
    let names = names.map(|entry| entry.expect("a file").file_name());
    names.filter(|name| name.to_string_lossy().starts_with(&start)).count()
}
