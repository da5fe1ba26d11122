//! A runtime of this crate's own, which carries all async connections and measures their time limits.
//!
//! The runtime of a caller may have no timers, no I/O or a clock that stands still, and may end while
//! a connection is in use by others. So nothing here depends on it.

use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};

use crate::error::Failure;
use crate::fork::Process;

/// A runtime with one thread, which lives as long as the process.
struct BackgroundRuntime {
    handle: Handle,
    process: Process,
}

impl BackgroundRuntime {
    fn start() -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("vayu-redis".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .ok()?;
        Some(Self { handle, process: Process::current() })
    }
}

/// Returns the helper runtime. Its thread is started when it is first needed, and once more in a
/// child process, which has no thread of its parent.
pub(crate) fn handle() -> Result<&'static Handle, Failure> {
    static FIRST: LazyLock<Option<BackgroundRuntime>> = LazyLock::new(BackgroundRuntime::start);
    static OF_CHILD: Mutex<Option<&'static BackgroundRuntime>> = Mutex::new(None);

    let first = FIRST.as_ref().ok_or(Failure::RuntimeStopped)?;
    if first.process.is_current() {
        return Ok(&first.handle);
    }
    let mut of_child = OF_CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    let handle = match of_child.filter(|handle| handle.process.is_current()) {
        Some(handle) => handle,
        // The one of a parent is never dropped: its connections are those of the parent, too.
        None => Box::leak(Box::new(BackgroundRuntime::start().ok_or(Failure::RuntimeStopped)?)),
    };
    *of_child = Some(handle);
    Ok(&handle.handle)
}
