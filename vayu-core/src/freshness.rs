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

/// [`is_fresh`] for a caller whose current `ttl`, in microseconds, may be shorter than the one that the record was stored with.
#[inline]
pub(crate) fn is_fresh_for(
    ttl: u64,
    created: Timestamp,
    expires: Timestamp,
    now: Timestamp,
) -> bool {
    match now.checked_micros_since(created) {
        // One comparison: the age is in a range from `-SKEW` on.
        Some(age) if ttl <= MAX_COMPARED => {
            now < expires && age.cast_unsigned().wrapping_add(SKEW) < ttl + SKEW
        }
        _ => {
            let is_young = now.micros_since(created) < ttl || created > now;
            is_young && is_fresh(created, expires, now)
        }
    }
}

const SKEW: u64 = Timestamp::micros_of(CLOCK_SKEW);
/// The longest ttl, in microseconds, to which an age is compared as a number without a sign: a negative one is larger.
const MAX_COMPARED: u64 = u64::MAX / 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert!(is_fresh_for(u64::MAX, at(0), Timestamp::NEVER, last));
    }

    #[test]
    fn age_is_compared_with_the_ttl_of_the_caller() {
        let minute = Timestamp::micros_of(Duration::from_secs(60));
        let is_young = |created, now| is_fresh_for(minute, at(created), Timestamp::NEVER, at(now));
        assert!(is_young(0, 59));
        assert!(!is_young(0, 60));
        assert!(is_young(100, 0), "within the skew: age zero");
        assert!(is_young(300, 0) && !is_young(301, 0));
        assert!(!is_fresh_for(minute, at(0), at(20), at(20)), "it has expired");
        let long_ago = Timestamp::from_micros(-i64::MAX / 2);
        assert!(!is_fresh_for(u64::MAX / 4 * 3, at(0), at(0), long_ago), "from the future");
        let [first, last] = [i64::MIN, i64::MAX - 1].map(Timestamp::from_micros);
        assert!(!is_fresh_for(minute, first, Timestamp::NEVER, last), "older than a clock can say");
    }

    /// Returns an instant: of a clock, or of a damaged record.
    fn instants(largest: i64) -> impl Strategy<Value = i64> {
        prop_oneof![
            -400_000_000..400_000_000_i64,
            -largest..=largest,
            Just(-largest),
            Just(largest)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 16 } else { 4096 }))]
        #[test]
        fn freshness_is_that_of_numbers_without_an_end(
            now in prop_oneof![instants(i64::MAX), instants(i64::MAX / 2)],
            created in prop_oneof![instants(i64::MAX), Just(i64::MIN)],
            since in prop::option::of(-400_000_000..400_000_000_i64),
            expires in instants(i64::MAX),
            ttl in prop_oneof![0..400_000_000_u64, any::<u64>(), Just(0), Just(u64::MAX)],
        ) {
            let created = since.map_or(created, |since| now.saturating_sub(since));
            let age = i128::from(now) - i128::from(created);
            let is_fresh = now < expires && -300_000_000 <= age && age < i128::from(ttl);
            let [created, expires, now] = [created, expires, now].map(Timestamp::from_micros);
            prop_assert_eq!(is_fresh_for(ttl, created, expires, now), is_fresh);
        }
    }
}
