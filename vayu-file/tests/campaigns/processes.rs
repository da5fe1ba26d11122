//! Processes that share a directory find whole values only, and compute each key once in all.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::pin::{Pin, pin};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::Duration;

use vayu_core::SingleFlight;
use vayu_core::testing::{ManualClock, watchdog};
use vayu_core::{Backend, Lease};
use vayu_file::FileCache;

use crate::ground::{keys, options};
use crate::stamp::{Dice, Stamp};
use crate::{HANG, HOUR, child, size};

const PROCESSES: usize = 4;
const KEYS: usize = 16;

/// Few enough that entries are evicted while others are read.
const MAX_ENTRIES: u64 = 12;

#[test]
fn every_read_is_a_whole_value_of_its_key_while_others_write_delete_and_clear() {
    // At full size each batch has a watchdog of its own.
    let batches = size("VAYU_ROUNDS", 8_000).div_ceil(2_000);
    for batch in 0..batches {
        crate::progress("batches of rounds", batch, batches);
        watchdog(HANG, move || {
            let directory = tempfile::tempdir().expect("a directory");
            let children: Vec<_> = (0..PROCESSES)
                .map(|process| {
                    let seed = (batch * PROCESSES + process).to_string();
                    let mut command = child::command("processes::meddler", directory.path(), &seed);
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

/// Uses the cache in every way, and reports how many reads found a value, and how many did not.
#[test]
fn meddler() {
    let Some(task) = child::task() else { return };
    let writer: u64 = task.argument.parse().expect("the number of the process");
    let cache = options().max_entries(MAX_ENTRIES).open(&task.place).expect("a cache");
    let keys = keys(KEYS);
    let mut dice = Dice::new(writer);
    let (mut hits, mut reads) = (0, 0);
    for sequence in 0..2_000 {
        let number = dice.below(KEYS);
        let key = &keys[number];
        let value = Stamp { key: number, writer, sequence }.value();
        match dice.below(100) {
            0 => cache.clear().expect("clear"),
            1..10 => drop(cache.remove(key).expect("remove")),
            10..40 => cache.set(key, &value, HOUR).expect("set"),
            40..60 => {
                let found = cache.get_or_insert_with(key, HOUR, || value);
                Stamp::of(&found, number);
            }
            _ => {
                reads += 1;
                if let Some(found) = cache.get::<String>(key).expect("read") {
                    Stamp::of(&found, number);
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
fn processes_that_start_together_compute_each_key_once_in_all() {
    watchdog(HANG, || {
        let directory = tempfile::tempdir().expect("a directory");
        let mut children: Vec<_> =
            (0..PROCESSES).map(|_| start("processes::racer", directory.path(), "")).collect();
        for (child, _) in &mut children {
            wait_for_byte(child);
        }
        for number in 0..KEYS {
            // Whoever computes goes on when all four have called.
            for (_, stdin) in &mut children {
                stdin.write_all(b"!").expect("the child listens");
            }
            for (child, _) in &mut children {
                wait_for_byte(child);
            }
            let runs = fs::read(runs(directory.path(), number)).expect("the key was computed");
            assert_eq!(runs.len(), 1, "key {number} was computed by one process");
        }
        for (child, stdin) in children {
            drop(stdin);
            child::check(&child.wait_with_output().expect("the child ends"));
        }
        println!("{PROCESSES} processes computed each of {KEYS} cold keys once");
    });
}

/// Calls for each key when it is told to.
#[test]
fn racer() {
    let Some(task) = child::task() else { return };
    let cache = machine_wide(&task.place);
    progress();
    for (number, key) in keys(KEYS).iter().enumerate() {
        wait_for_word();
        append(&calls(&task.place, number));
        let value = cache.get_or_insert_with(key, HOUR, || {
            append(&runs(&task.place, number));
            while fs::read(calls(&task.place, number)).expect("the calls").len() < PROCESSES {
                thread::yield_now();
            }
            Stamp { key: number, writer: 0, sequence: 0 }.value()
        });
        Stamp::of(&value, number);
        progress();
    }
    assert_eq!(cache.stats().errors, 0);
}

#[test]
fn process_that_is_killed_while_it_computes_does_not_hold_up_the_next() {
    for round in 0..8 {
        watchdog(HANG, move || {
            let directory = tempfile::tempdir().expect("a directory");
            let key = &keys(1)[0];
            let cache = machine_wide(directory.path());
            let (mut child, _stdin) = start("processes::holder", directory.path(), "");
            wait_for_byte(&mut child);
            let claim = cache
                .backend()
                .sharing()
                .leases
                .expect("leases")
                .try_acquire(key)
                .expect("the lock can be asked for");
            assert!(matches!(claim, Lease::Held), "round {round}: {claim:?}");
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
            assert_eq!(waiting.join().expect("the call answers"), "next");
            assert_eq!(cache.stats().errors, 0);
        });
    }
}

/// Half of the callers are async. The clock of the cache is moved by hand.
#[test]
fn process_that_is_stopped_while_it_computes_costs_the_longest_wait_once() {
    watchdog(HANG, || {
        let directory = tempfile::tempdir().expect("a directory");
        let key = &keys(1)[0];
        let (mut child, _stdin) = start("processes::holder", directory.path(), "");
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
                assert_eq!(caller.join().expect("the call answers"), "value");
            }
        });
        child.kill().expect("the child is there");
        child.wait().expect("the child is gone");
        assert!(waited >= max_wait && waited < max_wait + max_wait / 5, "{waited:?}");
    });
}

/// What another process stores without asking for the lock.
#[test]
fn value_that_anybody_stores_ends_the_wait_for_a_process_that_is_stopped() {
    watchdog(HANG, || {
        let directory = tempfile::tempdir().expect("a directory");
        let key = &keys(1)[0];
        let (mut child, _stdin) = start("processes::holder", directory.path(), "");
        wait_for_byte(&mut child);
        let cache = machine_wide(directory.path());
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
                assert_eq!(caller.join().expect("the call answers"), "set");
            }
        });
        child.kill().expect("the child is there");
        child.wait().expect("the child is gone");
    });
}

/// Runs a future on this thread.
fn block_on<F: Future>(mut future: Pin<&mut F>) -> F::Output {
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

/// Computes for ever.
#[test]
fn holder() {
    let Some(task) = child::task() else { return };
    let cache = machine_wide(&task.place);
    cache.get_or_insert_with(&keys(1)[0], HOUR, || {
        progress();
        wait_for_word();
        "never".to_owned()
    });
}

/// A cache whose callers wait for other processes longer than any test.
fn machine_wide(directory: &Path) -> FileCache {
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

fn wait_for_word() {
    std::io::stdin().read_exact(&mut [0]).expect("the test goes on");
}

fn progress() {
    std::io::stderr().write_all(b".").expect("the test listens");
}

/// Where each call for a key leaves a byte.
fn calls(directory: &Path, number: usize) -> std::path::PathBuf {
    directory.join(format!(".calls-{number}"))
}

/// Where each run of the function leaves a byte.
fn runs(directory: &Path, number: usize) -> std::path::PathBuf {
    directory.join(format!(".runs-{number}"))
}

fn append(path: &Path) {
    let mut file = File::options().append(true).create(true).open(path).expect("the file opens");
    file.write_all(b".").expect("a byte is appended");
}
