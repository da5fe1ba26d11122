//! The log of this program: warnings, errors and informational events of all threads.

use std::sync::Mutex;

use tracing::Level;

use crate::recorder;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Begins to record.
pub(crate) fn install() {
    recorder::install(
        |metadata| *metadata.level() <= Level::INFO,
        |line| LINES.lock().unwrap().push(line),
    );
}

/// Returns the lines about the cache on a port.
pub(crate) fn lines(port: u16) -> Vec<String> {
    let lines = LINES.lock().unwrap();
    lines.iter().filter(|line| line.contains(&format!(":{port}"))).cloned().collect()
}
