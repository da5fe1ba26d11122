//! Functions that ask for the value that they replace: `revalidate`.

use crate::call::previous::{Previous, PreviousSlot, previous};
use crate::call::ttl::forward_retention;
use crate::call::{OutputShape, Retention};

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

    forward_retention!(
        self => self.0;
        fixed_ttl ttl should_cache caches_errors error_ttl idle
    );

    #[inline]
    fn keeps_previous(&self) -> bool {
        true
    }

    fn previous_slot(&self, value: T) -> Option<PreviousSlot> {
        Some(PreviousSlot::new(value))
    }
}
