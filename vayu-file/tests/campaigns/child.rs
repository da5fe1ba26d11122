//! This test binary as a child process that runs a single test.
//!
//! The test of a child returns at once if [`task`] is `None`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::thread;

use crate::HANG;

const DIRECTORY: &str = "VAYU_CHILD_DIRECTORY";
const ARGUMENT: &str = "VAYU_CHILD_ARGUMENT";

/// The task of a child, and its directory.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) directory: PathBuf,
    pub(crate) argument: String,
}

/// Returns the task of this process, if it is a child. The child exits after a time even if its test
/// does not end.
pub(crate) fn task() -> Option<Task> {
    let directory = env::var_os(DIRECTORY)?.into();
    thread::spawn(|| {
        thread::sleep(2 * HANG);
        process::exit(1);
    });
    Some(Task { directory, argument: env::var(ARGUMENT).unwrap_or_default() })
}

/// Returns the command that runs a test in a child, with standard error piped to the caller.
pub(crate) fn command(test: &str, directory: &Path, argument: &str) -> Command {
    let binary = env::current_exe().expect("a test knows its own path");
    with_task(Command::new(binary), test, directory, argument)
}

/// Adds the arguments for a test to a command whose last argument is the binary.
pub(crate) fn with_task(
    mut command: Command,
    test: &str,
    directory: &Path,
    argument: &str,
) -> Command {
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
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
/// When its test fails, or was not run.
pub(crate) fn run(mut command: Command) -> Output {
    let output = command.output().expect("the child can be started");
    check(&output);
    output
}

/// Checks that the test of a child has passed.
pub(crate) fn check(output: &Output) {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "the child failed with {}:\n{stdout}\n{stderr}",
        output.status
    );
}
