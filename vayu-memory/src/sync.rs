//! The primitives of the seqlock table, which a model checker replaces.

#[cfg(vayu_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(vayu_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
