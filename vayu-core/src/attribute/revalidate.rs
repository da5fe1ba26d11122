//! Functions that ask for the value that they replace: `revalidate`.

use std::time::Duration;

use crate::call::previous::{Previous, Slot, previous};
use crate::call::{FixedTtl, OutputShape, Retention};
use crate::shared_error::SharedError;

/// The ttl of a function that asks for the value that it replaces.
#[derive(Debug, Clone, Copy)]
pub struct Revalidate<L>(L);

/// Lets a function ask for the value that it replaces.
#[inline]
pub fn revalidate<H: OutputShape<Value: Send + 'static>, L>(_shape: H, ttl: L) -> Revalidate<L> {
    Revalidate(ttl)
}

/// Returns the value that the running function replaces.
pub fn previous_of<H: OutputShape<Value: Send + 'static>>(_shape: H) -> Option<Previous<H::Value>> {
    previous()
}

/// Returns the output of a function whose value is unchanged.
pub fn unchanged<H: OutputShape<Value: Send + 'static>>(
    _shape: H,
    previous: Previous<H::Value>,
) -> H::Output {
    H::output(previous.unchanged())
}

impl<T: Send + 'static, L: Retention<T>> Retention<T> for Revalidate<L> {
    type Idle = L::Idle;

    #[inline]
    fn fixed_ttl(&self) -> Option<FixedTtl> {
        self.0.fixed_ttl()
    }

    #[inline]
    fn ttl(&self, value: &T) -> Duration {
        self.0.ttl(value)
    }

    #[inline]
    fn is_until_moment(&self) -> bool {
        self.0.is_until_moment()
    }

    #[inline]
    fn should_cache(&self, value: &T) -> bool {
        self.0.should_cache(value)
    }

    #[inline]
    fn caches_errors(&self) -> bool {
        self.0.caches_errors()
    }

    fn error_ttl(&self, error: &SharedError) -> Duration {
        self.0.error_ttl(error)
    }

    #[inline]
    fn keeps_previous(&self) -> bool {
        true
    }

    fn previous_slot(&self, value: T) -> Option<Slot> {
        Some(Slot::new(value))
    }

    #[inline(always)]
    fn idle(&self) -> L::Idle {
        self.0.idle()
    }
}
