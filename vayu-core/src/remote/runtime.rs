//! The background runtime, which drives all async requests of a backend and their timers.
//!
//! The runtime of a caller may have no timers, no I/O or a paused clock, and may be shut down while
//! other callers use the same connection. So backends on servers do not depend on it.

use std::sync::{Mutex, OnceLock};

use tokio::runtime::{Builder, Handle};

use super::process::Process;
use crate::sync::IgnorePoison;

/// A runtime with one thread, which is started on first use and lives as long as the process. A child process, which
/// has no threads of its parent, starts one of its own.
#[derive(Debug)]
pub struct BackgroundRuntime {
    name: &'static str,
    first: OnceLock<Option<Started>>,
    of_child: Mutex<Option<&'static Started>>,
}

#[derive(Debug)]
struct Started {
    handle: Handle,
    process: Process,
}

impl BackgroundRuntime {
    /// Returns a runtime whose thread has this name. It is not started.
    pub const fn new(name: &'static str) -> Self {
        Self { name, first: OnceLock::new(), of_child: Mutex::new(None) }
    }

    /// Returns the handle of the runtime. `None` if it cannot be started.
    pub fn handle(&'static self) -> Option<&'static Handle> {
        let first = self.first.get_or_init(|| self.start()).as_ref()?;
        if first.process.is_current() {
            return Some(&first.handle);
        }
        let mut of_child = self.of_child.lock().ignore_poison();
        let runtime = match of_child.filter(|runtime| runtime.process.is_current()) {
            Some(runtime) => runtime,
            // The runtime of a parent is never dropped: the parent uses the same sockets.
            None => Box::leak(Box::new(self.start()?)),
        };
        *of_child = Some(runtime);
        Some(&runtime.handle)
    }

    fn start(&self) -> Option<Started> {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .ok()?;
        Some(Started { handle, process: Process::current() })
    }
}
