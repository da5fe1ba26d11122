//! Dropping values of users.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops a value. A panic of its destructor ends here: it must not keep the next value from being
/// dropped, nor reach a caller who only wanted to store another one.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // The payload may panic in its turn.
        std::mem::forget(payload);
    }
}
