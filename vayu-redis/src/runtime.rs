//! The background runtime, which drives all async connections and their timers.
//!
//! The runtime of a caller may have no timers, no I/O or a paused clock, and may be shut down while
//! other callers use the same connection. So nothing in this crate depends on it.

use std::future::Future;
use std::sync::{LazyLock, Mutex};

use tokio::runtime::{Builder, Handle};

use crate::error::Failure;
use crate::fork::Process;
use crate::sync::lock;

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

/// Returns the background runtime. Its thread is started on first use, and again in a child
/// process, which has no threads of its parent.
pub(crate) fn handle() -> Result<&'static Handle, Failure> {
    static FIRST: LazyLock<Option<BackgroundRuntime>> = LazyLock::new(BackgroundRuntime::start);
    static OF_CHILD: Mutex<Option<&'static BackgroundRuntime>> = Mutex::new(None);

    let first = FIRST.as_ref().ok_or(Failure::RuntimeStopped)?;
    if first.process.is_current() {
        return Ok(&first.handle);
    }
    let mut of_child = lock(&OF_CHILD);
    let runtime = match of_child.filter(|runtime| runtime.process.is_current()) {
        Some(runtime) => runtime,
        // The runtime of a parent is never dropped: the parent uses the same sockets.
        None => Box::leak(Box::new(BackgroundRuntime::start().ok_or(Failure::RuntimeStopped)?)),
    };
    *of_child = Some(runtime);
    Ok(&runtime.handle)
}

/// Runs a task in the background runtime to its end, even if the returned future is dropped.
pub(crate) async fn run<T: Send + 'static>(
    task: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    handle()?.spawn(task).await.unwrap_or(Err(Failure::RuntimeStopped))
}
