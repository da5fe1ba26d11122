//! Sliding expiry: an entry that no call uses for a while expires (`idle = ..`).
//!
//! The end of an entry, `stale_until` of its record, is then the time of its last use plus the idle time, and
//! the end that its ttl sets at the latest. A hit compares the end with its time. After a sixteenth of the idle
//! time it takes the longer path of a lookup, which moves the end in the backend. The lowest bit of the end is set
//! once the end is that of the ttl, which no use moves, so that hits leave it alone.
//!
//! Whether there is an idle time is known by type, so a function without one does none of this.

use std::time::Duration;

use crate::backend::Backend;
use crate::call::{CachedFn, Call, FixedTtl, Retention};
use crate::clock::Timestamp;
use crate::panic::catch_panic;
use crate::record::Record;
use crate::shared_error::SharedError;

/// An idle time, or `()` if there is none.
pub trait IdleTime: Copy {
    /// Returns whether a use at `now` moves the end of an entry.
    fn moves(self, end: Timestamp, now: Timestamp) -> bool;

    /// Returns the idle time, if there is one.
    fn get(self) -> Option<Idle>;
}

impl IdleTime for () {
    #[inline(always)]
    fn moves(self, _: Timestamp, _: Timestamp) -> bool {
        false
    }

    #[inline(always)]
    fn get(self) -> Option<Idle> {
        None
    }
}

/// The time after which an entry that is not used expires.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    time: Duration,
    /// The microseconds before the end from which on a use does not move it: fifteen sixteenths.
    recent: i64,
}

impl Idle {
    #[inline]
    pub(crate) fn new(time: Duration) -> Self {
        let micros = Timestamp::micros_of(time).min(i64::MAX as u64).cast_signed();
        Self { time, recent: micros - micros / 16 }
    }

    /// Returns whether the time is zero, so that no entry could be used.
    pub(super) fn is_zero(self) -> bool {
        self.time.is_zero()
    }

    /// Returns when a record expires and when it ends, if it is used at `now` and its ttl sets these times.
    pub(super) fn limit(
        self,
        expires: Timestamp,
        stale_until: Timestamp,
        now: Timestamp,
    ) -> [Timestamp; 2] {
        let idle_end = now.saturating_add(self.time);
        let end = if idle_end < stale_until {
            idle_end.as_micros() & !1
        } else {
            stale_until.as_micros().saturating_sub(1) | 1
        };
        let end = Timestamp::from_micros(end);
        [expires.min(end), end]
    }
}

impl IdleTime for Idle {
    #[inline(always)]
    fn moves(self, end: Timestamp, now: Timestamp) -> bool {
        let (end, now) = (end.as_micros(), now.as_micros());
        end & 1 == 0 && end.wrapping_sub(now) <= self.recent
    }

    #[inline(always)]
    fn get(self) -> Option<Self> {
        Some(self)
    }
}

/// A ttl with an idle time.
#[derive(Debug, Clone, Copy)]
pub struct WithIdle<L> {
    ttl: L,
    idle: Idle,
}

impl<L> WithIdle<L> {
    #[inline]
    pub(crate) fn new(ttl: L, idle: Duration) -> Self {
        Self { ttl, idle: Idle::new(idle) }
    }
}

impl<T, L: Retention<T>> Retention<T> for WithIdle<L> {
    type Idle = Idle;

    #[inline]
    fn fixed_ttl(&self) -> Option<FixedTtl> {
        self.ttl.fixed_ttl()
    }

    #[inline]
    fn ttl(&self, value: &T) -> Duration {
        self.ttl.ttl(value)
    }

    #[inline]
    fn is_until_moment(&self) -> bool {
        self.ttl.is_until_moment()
    }

    #[inline]
    fn should_cache(&self, value: &T) -> bool {
        self.ttl.should_cache(value)
    }

    #[inline(always)]
    fn idle(&self) -> Idle {
        self.idle
    }

    #[inline]
    fn caches_errors(&self) -> bool {
        self.ttl.caches_errors()
    }

    #[inline]
    fn error_ttl(&self, error: &SharedError) -> Duration {
        self.ttl.error_ttl(error)
    }
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Call<'_, B, F> {
    /// Returns whether a use at `now` moves the end of a record.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn moves_end<V>(&self, record: &Record<V>, now: Timestamp) -> bool {
        self.function.idle().moves(record.stale_until(), now)
    }

    /// Moves the end of an entry that was created at `created` and is used at `now`.
    #[cold]
    #[inline(never)]
    pub(super) fn move_end(&self, output: &F::Output, created: Timestamp, now: Timestamp) {
        let (Some(idle), Some(value)) = (self.function.idle().get(), F::value(output)) else {
            return;
        };
        let moved = catch_panic("extend entry", || {
            let ttl = self.function.ttl(value);
            let expires = if self.function.is_until_moment() {
                now.saturating_add(ttl)
            } else {
                created.saturating_add(self.options().jittered(ttl, || self.key.random(created)))
            };
            let stale_until = expires.saturating_add(self.options().stale);
            let [expires, end] = idle.limit(expires, stale_until, now);
            self.engine.backend().renew(self.key, created, expires, end);
            Ok(())
        });
        self.ok_or_count(moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn end_is_that_of_the_last_use_or_of_the_ttl() {
        let idle = Idle::new(Duration::from_micros(1600));
        assert_eq!(idle.limit(at(9000), at(9500), at(1001)), [at(2600), at(2600)]);
        assert_eq!(idle.limit(at(9000), at(9500), at(7800)), [at(9000), at(9400)]);
        assert_eq!(idle.limit(at(9000), at(9500), at(8000)), [at(9000), at(9499)]);
        assert_eq!(idle.limit(at(9001), at(9001), at(8000)), [at(9001), at(9001)]);
        let never = Timestamp::NEVER;
        assert_eq!(Idle::new(Duration::MAX).limit(never, never, at(0)), [never, never]);
    }

    #[test]
    fn use_moves_the_end_after_a_sixteenth_of_the_idle_time() {
        let idle = Idle::new(Duration::from_micros(1600));
        let [_, end] = idle.limit(at(100_000), at(100_000), at(1000));
        assert!(!idle.moves(end, at(1099)));
        assert!(idle.moves(end, at(1100)) && idle.moves(end, at(2599)));
        let [_, end] = idle.limit(at(2000), at(2000), at(1000));
        assert!(!idle.moves(end, at(1999)), "the ttl sets the end");
    }
}
