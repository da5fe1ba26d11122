//! The primitives under the seats, so that a model checker can take their place.

#[cfg(vayu_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(vayu_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
