//! Other processes, which run one test of this binary in a role.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "VAYU_TEST_ROLE";

/// Returns the role of this process, if another one has started it.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Returns the command that runs a test in another process, with a role.
pub(crate) fn command(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// Another process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Runs a test in another process, with a role.
    pub(crate) fn start(test: &str, role: &str) -> Self {
        let mut child = command(test, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, input, output }
    }

    /// Sends a line, and returns the next line that begins with `>`, without the `>`.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.receive()
    }

    pub(crate) fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the process reads its input");
    }

    pub(crate) fn receive(&mut self) -> String {
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).expect("text");
            assert!(length > 0, "the process has ended");
            // The test runner may have written the start of the line.
            if let Some((_, said)) = line.split_once('>') {
                return said.trim().to_owned();
            }
        }
    }

    /// Waits until the process has ended successfully.
    pub(crate) fn wait(mut self) {
        let status = self.child.wait().expect("it runs");
        assert!(status.success(), "{status}");
    }

    /// Stops the process, as a debugger does or the suspension of a machine.
    pub(crate) fn stop(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("it runs"), Signal::STOP).expect("it runs");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replies to each line of the input until it ends. For the other process.
pub(crate) fn serve(mut reply: impl FnMut(&str) -> String) {
    for line in std::io::stdin().lines() {
        println!(">{}", reply(&line.expect("text")));
    }
}
