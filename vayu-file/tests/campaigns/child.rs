//! This test binary as a child process, which runs one test alone.
//!
//! The test that a child runs is one that returns at once where [`task`] is `None`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::thread;

use crate::HANG;

const PLACE: &str = "VAYU_CHILD_PLACE";
const ARGUMENT: &str = "VAYU_CHILD_ARGUMENT";

/// What a child is to do, and in which directory.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) place: PathBuf,
    pub(crate) argument: String,
}

/// The task of this process, if it is a child. It ends in time even when the test does not end it.
pub(crate) fn task() -> Option<Task> {
    let place = env::var_os(PLACE)?.into();
    thread::spawn(|| {
        thread::sleep(2 * HANG);
        process::exit(1);
    });
    Some(Task { place, argument: env::var(ARGUMENT).unwrap_or_default() })
}

/// The command that runs this test in a child. Its standard error is for the test to use.
pub(crate) fn command(test: &str, place: &Path, argument: &str) -> Command {
    let binary = env::current_exe().expect("a test knows its own path");
    with_task(Command::new(binary), test, place, argument)
}

/// The same for a command that runs the binary named by its last argument.
pub(crate) fn with_task(mut command: Command, test: &str, place: &Path, argument: &str) -> Command {
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .env(ARGUMENT, argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a child to its end.
///
/// # Panics
///
/// When its test fails, or did not run.
pub(crate) fn run(mut command: Command) -> Output {
    let output = command.output().expect("the child can be started");
    check(&output);
    output
}

/// Whether the test of a child has passed.
pub(crate) fn check(output: &Output) {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "the child failed with {}:\n{stdout}\n{stderr}",
        output.status
    );
}
