//! The moment at which a value expires: `expires_at = ..`.

use std::time::{Duration, SystemTime};

use crate::call::{FixedTtl, OutputShape, Retention};
use crate::clock::time_of_day;

/// A ttl that is the time left until a moment, which is evaluated once, when the value is stored.
#[derive(Debug, Clone, Copy)]
pub struct ExpiresAt<F>(F);

/// Creates a ttl that ends at a moment.
#[inline]
pub fn expires_at<H: OutputShape, F: Fn(&H::Value) -> SystemTime>(
    _shape: H,
    moment: F,
) -> ExpiresAt<F> {
    ExpiresAt(moment)
}

impl<T, F: Fn(&T) -> SystemTime> Retention<T> for ExpiresAt<F> {
    type Idle = ();

    #[inline]
    fn fixed_ttl(&self) -> Option<FixedTtl> {
        None
    }

    /// Returns the time left, zero if the moment has passed. The caller has taken the time at which the value was created
    /// before, so by the system clock the entry does not expire later than at the moment.
    fn ttl(&self, value: &T) -> Duration {
        let moment = (self.0)(value);
        moment.duration_since(time_of_day()).unwrap_or_default()
    }

    #[inline(always)]
    fn idle(&self) {}
}
