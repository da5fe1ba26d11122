//! Sliding expiry: an entry that no call uses for a while expires (`idle = ..`).
//!
//! The end of an entry, `stale_until` of its record, is then the time of its last use plus the idle time, also
//! while it is fresh: it may be before `expires`. That is the end of the ttl, as in any record, and does not
//! change. The last use sets the end to that of the ttl and of `stale` at the latest.
//!
//! A hit compares the end with its time. After a sixteenth of the idle time it takes the longer path of a lookup,
//! which moves the end in the backend. The lowest bit of the end is set once the end is the latest, so that hits
//! leave it alone. An end that is further away than the idle time is moved, too: the clock was set back, or another
//! function has a longer idle time.
//!
//! Whether there is an idle time is known by type, so a function without one does none of this.

use std::time::Duration;

use crate::backend::{Backend, BackendExt};
use crate::call::ttl::forward_retention;
use crate::call::{Call, FnProperties, Retention};
use crate::clock::Timestamp;
use crate::panic::catch_panic;
use crate::record::Record;

/// An idle time, or `()` if there is none.
pub trait IdleTime: Copy {
    /// Returns whether a use at `now` moves the end of an entry.
    fn moves(self, end: Timestamp, now: Timestamp) -> bool;

    /// Returns whether an entry with this end was not used for the idle time at `now`.
    fn is_over(self, end: Timestamp, now: Timestamp) -> bool;

    /// Returns the idle time, if there is one.
    fn get(self) -> Option<Idle>;
}

impl IdleTime for () {
    #[inline(always)]
    fn moves(self, _: Timestamp, _: Timestamp) -> bool {
        false
    }

    #[inline(always)]
    fn is_over(self, _: Timestamp, _: Timestamp) -> bool {
        false
    }

    #[inline(always)]
    fn get(self) -> Option<Idle> {
        None
    }
}

impl IdleTime for Option<Idle> {
    fn moves(self, end: Timestamp, now: Timestamp) -> bool {
        self.is_some_and(|idle| idle.moves(end, now))
    }

    fn is_over(self, end: Timestamp, now: Timestamp) -> bool {
        self.is_some_and(|idle| idle.is_over(end, now))
    }

    fn get(self) -> Option<Idle> {
        self
    }
}

/// The time after which an entry that is not used expires.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    time: Duration,
    micros: i64,
    /// The microseconds before the end from which on a use does not move it: fifteen sixteenths.
    recent: i64,
}

impl Idle {
    #[inline]
    pub(crate) fn new(time: Duration) -> Self {
        let micros = Timestamp::micros_of(time).min(i64::MAX as u64).cast_signed();
        Self { time, micros, recent: micros - micros / 16 }
    }

    /// Returns whether the time is zero, so that no entry could be used.
    pub(super) fn is_zero(self) -> bool {
        self.time.is_zero()
    }

    /// Returns the end of an entry that is used at `now` and ends at `latest` whatever its use.
    pub(super) fn end(self, latest: Timestamp, now: Timestamp) -> Timestamp {
        let end = now.saturating_add(self.time);
        Timestamp::from_micros(if end < latest {
            end.as_micros() & !1
        } else {
            latest.as_micros() | 1
        })
    }
}

impl IdleTime for Idle {
    #[inline(always)]
    fn moves(self, end: Timestamp, now: Timestamp) -> bool {
        let end = end.as_micros();
        let left = end.wrapping_sub(now.as_micros());
        left > self.micros || (left <= self.recent && end & 1 == 0)
    }

    #[inline(always)]
    fn is_over(self, end: Timestamp, now: Timestamp) -> bool {
        end <= now
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

    forward_retention!(
        self => self.ttl;
        fixed_ttl ttl should_cache caches_errors error_ttl
    );

    #[inline(always)]
    fn idle(&self) -> Idle {
        self.idle
    }
}

impl<B: Backend, F: FnProperties> Call<'_, B, F> {
    /// Returns whether a use at `now` moves the end of a record.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn moves_end<V>(&self, record: &Record<V>, now: Timestamp) -> bool {
        self.function.idle().moves(record.stale_until(), now)
    }

    /// Returns whether a record was not used for the idle time.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_idle<V>(&self, record: &Record<V>, now: Timestamp) -> bool {
        self.function.idle().is_over(record.stale_until(), now)
    }

    /// Returns a record without its value for [`move_end`](Self::move_end), if it has an idle time and a use at `now`
    /// moves its end.
    #[inline]
    pub(super) fn used_record<V>(&self, record: &Record<V>, now: Timestamp) -> Option<Record<()>> {
        let moves_end = self.moves_end(record, now)
            && (self.is_of_this_call(record) || self.validator().has_idle_time(record));
        moves_end.then(|| record.as_ref().map(|_| ()))
    }

    /// Moves the end of an entry whose record was read and is used at `now`.
    #[cold]
    #[inline(never)]
    pub(super) fn move_end(&self, record: &Record<()>, now: Timestamp) {
        let Some(idle) = self.function.idle().get() else { return };
        let latest = record.expires().saturating_add(self.options().stale);
        let end = idle.end(latest, now);
        let moved = catch_panic("extend entry", || {
            self.engine.backend().renew(self.key, record, end);
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
    fn end_is_that_of_the_last_use_or_the_latest() {
        let idle = Idle::new(Duration::from_micros(1600));
        assert_eq!(idle.end(at(9500), at(1001)), at(2600));
        assert_eq!(idle.end(at(9500), at(7800)), at(9400));
        assert_eq!(idle.end(at(9500), at(8000)), at(9501));
        assert_eq!(idle.end(at(9001), at(8000)), at(9001));
        let never = Timestamp::NEVER;
        assert_eq!(Idle::new(Duration::MAX).end(never, at(0)), never);
    }

    #[test]
    fn use_moves_the_end_after_a_sixteenth_of_the_idle_time() {
        let idle = Idle::new(Duration::from_micros(1600));
        let end = idle.end(at(100_000), at(1000));
        assert!(!idle.moves(end, at(1000)) && !idle.moves(end, at(1099)));
        assert!(idle.moves(end, at(1100)) && idle.moves(end, at(2599)));
        let end = idle.end(at(2000), at(1000));
        assert!(!idle.moves(end, at(1999)), "it is the latest");
    }

    #[test]
    fn use_moves_an_end_that_is_further_away_than_the_idle_time() {
        let idle = Idle::new(Duration::from_micros(1600));
        let end = idle.end(at(100_000), at(5000));
        assert!(idle.moves(end, at(4999)) && idle.moves(end, at(1000)));
        assert!(idle.moves(at(9001), at(1000)), "the latest of a longer idle time");
        let never = Idle::new(Duration::MAX);
        assert!(!never.moves(never.end(Timestamp::NEVER, at(1000)), at(1000)));
    }
}
