//! The freshness of records: a pure function of their times.

use std::time::Duration;

use crate::clock::Timestamp;

/// The maximum time by which the creation of a record may be in the future: clocks of two machines, or
/// of one before and after a correction, differ a little.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Returns whether a record with these times may be served at `now`.
///
/// A record from the future is not: the clock was set back, and the age of the value is unknown.
#[inline]
pub(crate) fn is_fresh(created: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
    now < expires && created <= now.saturating_add(CLOCK_SKEW)
}

/// Returns whether a record is young enough for the current `ttl` of the caller, in microseconds,
/// which may be shorter than the one it was stored with.
#[inline]
pub(crate) fn is_young(created: Timestamp, ttl: u64, now: Timestamp) -> bool {
    now.micros_since(created) < ttl || created > now
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn record_is_fresh_until_just_before_it_expires() {
        let last = Timestamp::from_micros(at(20).as_micros() - 1);
        assert!(is_fresh(at(10), at(20), at(10)));
        assert!(is_fresh(at(10), at(20), last));
        assert!(!is_fresh(at(10), at(20), at(20)));
    }

    #[test]
    fn record_from_the_future_is_served_within_the_skew_only() {
        assert!(is_fresh(at(1000), at(5000), at(1000 - 300)));
        assert!(!is_fresh(at(1000), at(5000), at(1000 - 301)));
    }

    #[test]
    fn record_that_never_expires_is_fresh_at_the_end_of_time() {
        let last = Timestamp::from_micros(i64::MAX - 1);
        assert!(is_fresh(at(0), Timestamp::NEVER, last));
        assert!(is_young(at(0), u64::MAX, last));
    }

    #[test]
    fn age_is_compared_with_the_ttl_of_the_caller() {
        let minute = Timestamp::micros_of(Duration::from_secs(60));
        assert!(is_young(at(0), minute, at(59)));
        assert!(!is_young(at(0), minute, at(60)));
        assert!(is_young(at(100), minute, at(0)), "within the skew: age zero");
        let [first, last] = [i64::MIN, i64::MAX - 1].map(Timestamp::from_micros);
        assert!(!is_young(first, minute, last), "older than a clock can say");
    }
}
