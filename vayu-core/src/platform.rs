//! Differences between systems: WebAssembly has one process, in most cases one thread, and without a host no clock.

/// `true` if threads can be started, and one may block until another one notifies it.
pub(crate) const HAS_THREADS: bool =
    !cfg!(all(target_family = "wasm", any(target_os = "unknown", not(target_feature = "atomics"))));

/// A monotonic clock, in place of that of the standard library where it has none.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use crate::clock::host::Instant;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use std::time::Instant;

/// Returns the id of the process.
#[inline]
pub fn process_id() -> u32 {
    if cfg!(target_family = "wasm") { 1 } else { std::process::id() }
}
