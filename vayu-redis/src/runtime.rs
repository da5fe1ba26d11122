//! A runtime of this crate's own: for callers in other runtimes than tokio's, and for what goes on
//! between calls.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Handle};

use crate::failure::Failure;

/// The helper runtime. It has one thread, which is started when it is first needed and lives as long
/// as the process.
pub(crate) fn helper() -> Result<&'static Handle, Failure> {
    static HELPER: LazyLock<Option<Handle>> = LazyLock::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("vayu-redis".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .ok()?;
        Some(handle)
    });
    HELPER.as_ref().ok_or(Failure::Helper)
}

/// The runtime that polls this task, or the helper.
pub(crate) fn nearest() -> Result<Handle, Failure> {
    Handle::try_current().or_else(|_| helper().cloned())
}
