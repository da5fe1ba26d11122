//! A write that is killed at each of its system calls, or in which each of them fails once.

use std::fs::{self, File};
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::{AtFlags, CWD};
use tempfile::TempDir;
use vayu_core::testing::watchdog;

use crate::fixture::{age, key, options, temporary_files};
use crate::tagged_value::TaggedValue;
use crate::{HANG, HOUR, child};

/// The system calls of a write.
const CALLS: [&str; 11] = [
    "openat",
    "openat2",
    "mkdirat",
    "write",
    "renameat",
    "renameat2",
    "newfstatat",
    "fstat",
    "statx",
    "close",
    "unlinkat",
];

const ERRORS: [&str; 5] = ["ENOSPC", "EIO", "EMFILE", "EACCES", "EROFS"];

/// Links of these names are read before and after the write, to mark it in the trace.
const BEGIN: &str = "/vayu-the-write-begins";
const END: &str = "/vayu-the-write-ends";

/// The file with the trace. A directory that contains it may become a cache.
const TRACE: &str = ".trace";

/// The content of the directory before the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// No entry.
    Cold,
    /// An entry of the same key.
    Warm,
}

const OLD: TaggedValue = TaggedValue { key: 0, writer: 0, sequence: 1 };
const NEW: TaggedValue = TaggedValue { key: 0, writer: 0, sequence: 2 };

#[test]
fn write_killed_at_any_system_call_leaves_the_old_value_or_the_new_one() {
    if !can_trace() {
        return;
    }
    for start in [Start::Cold, Start::Warm] {
        let (mut kills, mut old, mut new) = (0, 0, 0);
        for (call, number) in numbered(calls_of_a_write(start)) {
            let context = format!("{start:?}, {call} {number}");
            let (directory, output) = traced(start, &format!("{call}:signal=KILL:when={number}"));
            let has_died = !output.status.success();
            let found = read_value(directory.path(), start, &context);
            assert!(has_died || found == Some(NEW), "{context}: {found:?}");
            kills += usize::from(has_died);
            old += usize::from(has_died && found != Some(NEW));
            new += usize::from(has_died && found == Some(NEW));
            assert!(temporary_files(directory.path()).len() <= 1, "{context}");
            sweep(directory.path());
        }
        println!("{start:?}: {kills} kills, the old value was left {old} times, the new one {new}");
        assert!(old > 0 && new > 0, "kills come before the entry is in its directory, and after");
    }
}

#[test]
fn calls_return_when_any_system_call_of_a_write_fails() {
    if !can_trace() {
        return;
    }
    for start in [Start::Cold, Start::Warm] {
        let (mut faults, mut old, mut new) = (0, 0, 0);
        for (call, number) in numbered(calls_of_a_write(start)) {
            for error in ERRORS {
                let context = format!("{start:?}, {call} {number} {error}");
                let (directory, output) =
                    traced(start, &format!("{call}:error={error}:when={number}"));
                child::check(&output);
                let trace = fs::read_to_string(directory.path().join(TRACE)).expect("a trace");
                if !trace.contains("(INJECTED)") {
                    continue;
                }
                faults += 1;
                let found = read_value(directory.path(), start, &context);
                old += usize::from(found != Some(NEW));
                new += usize::from(found == Some(NEW));
                let is_removed = temporary_files(directory.path()).is_empty();
                assert!(is_removed, "{context}: what could not be written is removed");
            }
        }
        println!("{start:?}: {faults} faults, {old} of which kept the value from being stored");
        assert!(old > 0 && new > 0, "some faults keep the value from being stored");
    }
}

/// Writes one entry: by a call, or over the old one.
#[test]
fn writes_once() {
    let Some(task) = child::task() else { return };
    let cache = options().open(&task.directory).expect("a cache");
    let key = key("k");
    count_up();
    let _ = fs::read_link(BEGIN);
    let is_warm = task.argument == format!("{:?}", Start::Warm);
    let has_failed = is_warm && cache.set(&key, &NEW.value(), HOUR).is_err();
    let result = cache.get_or_insert_with(&key, HOUR, || NEW.value());
    let _ = fs::read_link(END);
    let found = TaggedValue::of(&result, 0);
    assert!(found == NEW || found == OLD && has_failed, "{found:?}");
}

/// Raises the counts of this thread, so that the numbers of the calls of the write are unique.
fn count_up() {
    for _ in 0..64 {
        let mut null = File::create("/dev/null").expect("it is there");
        null.write_all(b"x").expect("it takes everything");
        null.metadata().expect("it can be looked at");
        rustix::fs::fstat(&null).expect("it can be looked at");
        rustix::fs::statat(CWD, "/dev/null", AtFlags::empty()).expect("it can be looked at");
    }
}

/// Returns the numbers of the system calls of a write.
fn calls_of_a_write(start: Start) -> Vec<(&'static str, RangeInclusive<usize>)> {
    let directory = directory(start);
    let trace = directory.path().join(TRACE);
    let mut command = Command::new("strace");
    command.args(["-f", "-e", &format!("trace=readlink,readlinkat,{}", CALLS.join(",")), "-o"]);
    command.arg(&trace);
    child::check(&run(command, start, directory.path()));
    let trace = fs::read_to_string(trace).expect("the trace is text");
    // Each line begins with the thread.
    let lines: Vec<_> = trace
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(thread, line)| (thread, line.trim_start()))
        .collect();
    let mark = |mark: &str| {
        let is_mark = |(_, line): &(_, &str)| line.starts_with("readlink") && line.contains(mark);
        lines.iter().position(is_mark).expect("the write was traced")
    };
    let (begin, end) = (mark(BEGIN), mark(END));
    let (writer, _) = lines[begin];
    CALLS
        .into_iter()
        .map(|call| {
            let is_call =
                |line: &str| line.strip_prefix(call).is_some_and(|rest| rest.starts_with('('));
            let count = |lines: &[(&str, &str)]| {
                let is_writer =
                    |&&(thread, line): &&(&str, &str)| thread == writer && is_call(line);
                lines.iter().filter(is_writer).count()
            };
            let (before, all) = (count(&lines[..begin]), count(&lines[..end]));
            let by_others =
                lines.iter().filter(|(thread, line)| *thread != writer && is_call(line));
            assert!(
                all == before || by_others.count() <= before,
                "{call}: others have its numbers"
            );
            (call, before + 1..=all)
        })
        .collect()
}

/// Runs the writer in a new directory, and injects a fault at one of its system calls.
fn traced(start: Start, injection: &str) -> (TempDir, Output) {
    let directory = directory(start);
    let call = injection.split(':').next().unwrap_or_default();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", &format!("trace={call}"), "-o"]);
    command.arg(directory.path().join(TRACE));
    command.args(["-e", &format!("inject={injection}")]);
    watchdog(HANG, move || {
        let output = run(command, start, directory.path());
        (directory, output)
    })
}

fn run(mut command: Command, start: Start, directory: &Path) -> Output {
    command.arg(std::env::current_exe().expect("a test knows its own path"));
    let mut command =
        child::with_task(command, "syscalls::writes_once", directory, &format!("{start:?}"));
    // The loader searches every directory in it, which takes as many calls.
    command.env_remove("LD_LIBRARY_PATH");
    command.output().expect("the child can be started")
}

/// Returns a cache directory in the state before the write.
fn directory(start: Start) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = options().open(directory.path()).expect("a cache");
    if start == Start::Warm {
        cache.set(&key("k"), &OLD.value(), HOUR).expect("set");
    }
    directory
}

fn numbered(calls: Vec<(&str, RangeInclusive<usize>)>) -> impl Iterator<Item = (&str, usize)> {
    calls.into_iter().flat_map(|(call, numbers)| numbers.map(move |number| (call, number)))
}

/// Reads the value after a fault: the old one or the new one.
fn read_value(directory: &Path, start: Start, context: &str) -> Option<TaggedValue> {
    let cache = options().open(directory).expect("a cache");
    let found =
        cache.get::<String>(&key("k")).expect("read").map(|value| TaggedValue::of(&value, 0));
    let before = (start == Start::Warm).then_some(OLD);
    assert!(found == before || found == Some(NEW), "{context}: {found:?}");
    assert_eq!(cache.stats().usage.corrupt_entries, Some(0), "{context}");
    found
}

/// Ages the temporary files, and checks that a sweep removes them.
fn sweep(directory: &Path) {
    for path in temporary_files(directory) {
        age(&path, 2 * HOUR);
    }
    let cache = options().open(directory).expect("a cache");
    cache.backend().sweep().expect("a sweep");
    assert!(temporary_files(directory).is_empty());
}

fn can_trace() -> bool {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let can_trace = command.status().is_ok_and(|status| status.success());
    if !can_trace {
        println!("there is no strace, or it may not trace: skipped");
    }
    can_trace
}
