//! The ttl of values, and predicates on them.

use std::sync::Arc;
use std::time::Duration;

use crate::call::IdleTime;
use crate::call::previous::PreviousSlot;
use crate::clock::Timestamp;
use crate::shared_error::SharedError;

/// The ttl of a value, and whether the value is cached at all.
pub trait Retention<T> {
    /// The time after which a value that is not used expires: [`Idle`](crate::call::Idle), or `()`.
    type Idle: IdleTime;

    /// Returns the ttl, if all values have the same.
    fn fixed_ttl(&self) -> Option<FixedTtl>;

    /// Returns the ttl of a value. Zero is an error if all values have it, and else that of a value that is not cached.
    fn ttl(&self, value: &T) -> Duration;

    /// Returns whether a value is to be cached.
    #[inline]
    fn should_cache(&self, value: &T) -> bool {
        let _ = value;
        true
    }

    /// Returns whether the ttl or the predicate is a closure, which may panic.
    #[inline]
    fn has_closures(&self) -> bool {
        true
    }

    /// Returns whether errors are cached.
    #[inline]
    fn caches_errors(&self) -> bool {
        false
    }

    /// Returns the ttl of an error, zero for one that is not cached.
    #[inline]
    fn error_ttl(&self, error: &SharedError) -> Duration {
        let _ = error;
        Duration::ZERO
    }

    /// Returns whether the function asks for the value that it replaces.
    #[inline]
    fn keeps_previous(&self) -> bool {
        false
    }

    /// Returns the slot of the value that the function replaces, if it asks for that.
    fn previous_slot(&self, value: T) -> Option<PreviousSlot> {
        let _ = value;
        None
    }

    /// Returns the idle time.
    fn idle(&self) -> Self::Idle;
}

/// Implements methods of [`Retention`] by those of another one.
macro_rules! forward_retention {
    ($this:ident => $to:expr; $($method:ident)*) => {$(
        $crate::call::ttl::forward_retention!(@$method $this $to);
    )*};
    (@fixed_ttl $this:ident $to:expr) => {
        #[inline]
        fn fixed_ttl(&$this) -> Option<$crate::call::FixedTtl> {
            $to.fixed_ttl()
        }
    };
    (@ttl $this:ident $to:expr) => {
        #[inline]
        fn ttl(&$this, value: &T) -> ::std::time::Duration {
            $to.ttl(value)
        }
    };
    (@should_cache $this:ident $to:expr) => {
        #[inline]
        fn should_cache(&$this, value: &T) -> bool {
            $to.should_cache(value)
        }
    };
    (@has_closures $this:ident $to:expr) => {
        #[inline]
        fn has_closures(&$this) -> bool {
            $to.has_closures()
        }
    };
    (@caches_errors $this:ident $to:expr) => {
        #[inline]
        fn caches_errors(&$this) -> bool {
            $to.caches_errors()
        }
    };
    (@error_ttl $this:ident $to:expr) => {
        #[inline]
        fn error_ttl(&$this, error: &$crate::shared_error::SharedError) -> ::std::time::Duration {
            $to.error_ttl(error)
        }
    };
    (@idle $this:ident $to:expr) => {
        #[inline(always)]
        fn idle(&$this) -> Self::Idle {
            $to.idle()
        }
    };
}

pub(crate) use forward_retention;

/// The ttl of the elements of a batch, which all of them have.
macro_rules! shared {
    ($($pointer:ty),*) => {$(
        impl<T, L: Retention<T>> Retention<T> for $pointer {
            type Idle = L::Idle;

            forward_retention!(
                self => (**self);
                fixed_ttl ttl should_cache has_closures caches_errors error_ttl idle
            );
        }
    )*};
}

shared!(&L, Arc<L>);

/// One ttl for all values, and its microseconds: often a constant here, which would otherwise be
/// computed on every hit.
#[derive(Debug, Clone, Copy)]
pub struct FixedTtl {
    pub(super) time: Duration,
    /// Rounded up.
    pub(super) micros: u64,
}

impl FixedTtl {
    #[inline]
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, micros: Timestamp::micros_of(time) }
    }
}

impl<T> Retention<T> for FixedTtl {
    type Idle = ();

    #[inline]
    fn fixed_ttl(&self) -> Option<FixedTtl> {
        Some(*self)
    }

    #[inline]
    fn ttl(&self, _: &T) -> Duration {
        self.time
    }

    #[inline]
    fn has_closures(&self) -> bool {
        false
    }

    #[inline(always)]
    fn idle(&self) {}
}

/// A ttl that depends on the value.
#[derive(Debug, Clone, Copy)]
pub struct TtlFn<F>(pub(crate) F);

impl<T, F: Fn(&T) -> Duration> Retention<T> for TtlFn<F> {
    type Idle = ();

    #[inline]
    fn fixed_ttl(&self) -> Option<FixedTtl> {
        None
    }

    #[inline]
    fn ttl(&self, value: &T) -> Duration {
        (self.0)(value)
    }

    #[inline(always)]
    fn idle(&self) {}
}

/// A ttl for the values that a predicate accepts. Others are not cached.
#[derive(Debug, Clone, Copy)]
pub struct CacheIf<L, F> {
    pub(crate) ttl: L,
    pub(crate) predicate: F,
}

impl<T, L: Retention<T>, F: Fn(&T) -> bool> Retention<T> for CacheIf<L, F> {
    type Idle = L::Idle;

    forward_retention!(self => self.ttl; fixed_ttl ttl idle);

    #[inline]
    fn should_cache(&self, value: &T) -> bool {
        (self.predicate)(value)
    }
}
