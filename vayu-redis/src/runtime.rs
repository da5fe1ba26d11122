//! The background runtime, which drives all async connections and their timers.

use std::future::Future;

use tokio::runtime::Handle;
use vayu_core::__internal::remote::BackgroundRuntime;

use crate::error::Failure;

/// Returns the background runtime.
pub(crate) fn handle() -> Result<&'static Handle, Failure> {
    static RUNTIME: BackgroundRuntime = BackgroundRuntime::new("vayu-redis");
    RUNTIME.handle().ok_or(Failure::RuntimeStopped)
}

/// Runs a task in the background runtime to its end, even if the returned future is dropped.
pub(crate) async fn run<T: Send + 'static>(
    task: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    handle()?.spawn(task).await.unwrap_or(Err(Failure::RuntimeStopped))
}
