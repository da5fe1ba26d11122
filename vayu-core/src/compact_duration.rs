//! A duration in two bytes.

use std::time::Duration;

/// A duration in microseconds with a relative error below 1/2000: a mantissa of eleven bits and an
/// exponent of five. A duration of more than 50 days is stored as 50 days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CompactDuration(u16);

const BITS: u32 = 11;
const MOST: u64 = (1 << BITS) - 1;
const MAX_SHIFT: u32 = 31;

impl CompactDuration {
    #[inline]
    pub(crate) fn new(time: Duration) -> Self {
        let seconds = time.as_secs().saturating_mul(1_000_000);
        Self::of_micros(seconds.saturating_add(u64::from(time.subsec_micros())))
    }

    #[inline]
    pub(crate) fn of_micros(micros: u64) -> Self {
        match u16::try_from(micros) {
            Ok(number) if u64::from(number) <= MOST => Self(number),
            _ => Self::of_many(micros),
        }
    }

    #[cold]
    fn of_many(micros: u64) -> Self {
        let micros = micros.min(MOST << MAX_SHIFT);
        let mut shift = (u64::BITS - micros.leading_zeros()).saturating_sub(BITS);
        let mut number = rounded(micros, shift);
        if number > MOST {
            shift += 1;
            number = rounded(micros, shift);
        }
        if shift > MAX_SHIFT {
            (shift, number) = (MAX_SHIFT, MOST);
        }
        let shift = u16::try_from(shift).expect("five bits");
        Self(shift << BITS | u16::try_from(number).expect("eleven bits"))
    }

    pub(crate) fn time(self) -> Duration {
        Duration::from_micros((u64::from(self.0) & MOST) << (self.0 >> BITS))
    }

    #[inline]
    pub(crate) fn to_bits(self) -> u16 {
        self.0
    }

    #[inline]
    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

fn rounded(micros: u64, shift: u32) -> u64 {
    if shift == 0 { micros } else { (micros + (1 << (shift - 1))) >> shift }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(micros: u64) -> u64 {
        let time = CompactDuration::new(Duration::from_micros(micros)).time();
        u64::try_from(time.as_micros()).expect("a time in microseconds")
    }

    #[test]
    fn short_times_are_exact_and_the_longest_is_the_end() {
        for micros in 0..=MOST {
            assert_eq!(there_and_back(micros), micros);
        }
        assert_eq!(there_and_back(u64::MAX), MOST << MAX_SHIFT);
        assert_eq!(CompactDuration::new(Duration::MAX).time(), CompactDuration(u16::MAX).time());
    }

    proptest! {
        #[test]
        fn time_comes_back_nearly_as_it_was(micros in 1_u64..MOST << MAX_SHIFT) {
            let back = there_and_back(micros);
            prop_assert!(back.abs_diff(micros) * 2000 <= micros, "{micros} became {back}");
        }

        #[test]
        fn every_two_bytes_are_a_time(bits: u16) {
            let time = CompactDuration(bits).time();
            prop_assert_eq!(CompactDuration::new(time).time(), time);
        }
    }
}
