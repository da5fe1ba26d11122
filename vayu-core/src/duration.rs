//! Durations as strings: `"90s"`, `"1h 30m"`.
//!
//! `vayu-macros/src/duration.rs` is a copy of this file, so that the attribute and the URLs of caches accept
//! the same units: a crate of macros cannot export functions, and a dependency of vayu-macros on vayu-core
//! would delay its build. A test compares the two files.

use std::time::Duration;

/// The names of each unit, and its nanoseconds. No two names differ by case only, unlike `m` and `M` of
/// other libraries.
const UNITS: [(&[&str], u64); 8] = [
    (&["ms", "msec", "millis", "millisecond", "milliseconds"], 1_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["m", "min", "mins", "minute", "minutes"], 60 * 1_000_000_000),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600 * 1_000_000_000),
    (&["d", "day", "days"], 86_400 * 1_000_000_000),
    (&["w", "wk", "wks", "week", "weeks"], 7 * 86_400 * 1_000_000_000),
    (&["month", "months"], 2_630_016 * 1_000_000_000),
    (&["yr", "yrs", "year", "years"], 31_557_600 * 1_000_000_000),
];

/// The units, for messages.
pub const UNIT_NAMES: &str = "`ms`, `s`, `m`, `h`, `d`, `w` and words like `minutes` or `months`";

/// The error of a string that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseDurationError {
    /// The reason, lower case.
    pub reason: String,
    /// Valid strings that are similar.
    pub suggestions: Vec<String>,
}

/// Parses a duration: numbers, each with its unit, as in `1h 30m` or `0.5s`. A month is 30.44 days and a year
/// 365.25.
///
/// # Errors
///
/// A number without a unit, an unknown unit, a part of a nanosecond, or more than a [`Duration`] holds.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let mut rest = text.trim_start();
    let mut nanoseconds = 0_u128;
    if rest.is_empty() {
        return Err(error("it is empty"));
    }
    while !rest.is_empty() {
        let offset = text.len() - rest.len();
        let number = prefix(rest, |c| c.is_ascii_digit() || c == '.');
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(error(format!("expected number at {offset}")));
        }
        rest = rest[number.len()..].trim_start();
        let unit = prefix(rest, char::is_alphabetic);
        let unit_offset = text.len() - rest.len();
        rest = rest[unit.len()..].trim_start();
        if unit.is_empty() {
            return Err(error("time unit needed, for example 5sec or 5ms"));
        }
        let Some(length) = length(unit) else {
            let (before, after) = (&text[..unit_offset], &text[unit_offset + unit.len()..]);
            let similar = similar(unit);
            let suggestions = similar.iter().map(|unit| format!("{before}{unit}{after}"));
            return Err(ParseDurationError {
                reason: format!("there is no unit `{unit}`: the units are {UNIT_NAMES}"),
                suggestions: suggestions.collect(),
            });
        };
        nanoseconds = scaled(number, length)?
            .checked_add(nanoseconds)
            .ok_or_else(|| error("number is too large"))?;
    }
    from_nanoseconds(nanoseconds).ok_or_else(|| error("number is too large"))
}

/// Parses a decimal number of seconds, `30`, `0.5` or `1e3`.
///
/// # Errors
///
/// A string of another form, a part of a nanosecond, or more than a [`Duration`] holds.
pub fn parse_seconds(number: &str) -> Result<Duration, ParseDurationError> {
    let nanoseconds = scaled(number, 1_000_000_000)?;
    from_nanoseconds(nanoseconds).ok_or_else(|| error("number is too large"))
}

/// Multiplies a decimal number by an integer, exactly.
///
/// # Errors
///
/// A string that is not a number, a product that is not whole, or one that is too large.
pub fn scaled(number: &str, factor: u64) -> Result<u128, ParseDurationError> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let exponent = exponent.parse::<i32>().ok().filter(|_| is_number);
    let Some(exponent) = exponent else { return Err(error("expected number")) };
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let dropped = digits.len() - digits.trim_end_matches('0').len();
    let places = i64::from(exponent) + len(dropped) - len(fraction.len());
    let product = significant.parse::<u128>().ok().and_then(|n| n.checked_mul(factor.into()));
    let power = 10_u128.checked_pow(u32::try_from(places.unsigned_abs()).unwrap_or(u32::MAX));
    let whole = match (product, power) {
        (Some(product), Some(power)) if places >= 0 => product.checked_mul(power),
        (Some(product), Some(power)) if product % power == 0 => Some(product / power),
        (Some(_), _) if places < 0 => return Err(error("it has more digits than count")),
        _ => None,
    };
    whole.ok_or_else(|| error("number is too large"))
}

fn len(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn from_nanoseconds(nanoseconds: u128) -> Option<Duration> {
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanoseconds % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, rest))
}

fn length(unit: &str) -> Option<u64> {
    let known = UNITS.iter().find(|(names, _)| names.contains(&unit));
    known.map(|&(_, nanoseconds)| nanoseconds)
}

/// Returns the units that are similar to an unknown one.
fn similar(unit: &str) -> Vec<String> {
    match unit {
        "M" => vec!["m".to_owned(), "months".to_owned()],
        "y" | "Y" => vec!["years".to_owned()],
        "mo" | "mon" | "mos" | "Mo" => vec!["months".to_owned()],
        _ => Some(unit.to_lowercase()).filter(|unit| length(unit).is_some()).into_iter().collect(),
    }
}

fn prefix(text: &str, is_part: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    &text[..end]
}

fn error(reason: impl Into<String>) -> ParseDurationError {
    ParseDurationError { reason: reason.into(), suggestions: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_has_its_length() {
        for (text, seconds) in [
            ("1500ms", 1.5),
            ("5s", 5.0),
            ("5m", 300.0),
            ("5 minutes", 300.0),
            ("1.5h", 5_400.0),
            ("1h 30m", 5_400.0),
            ("1h30min", 5_400.0),
            ("2d", 172_800.0),
            ("1w", 604_800.0),
            ("1month", 2_630_016.0),
            (" 2years ", 63_115_200.0),
            ("0s", 0.0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn unit_of_another_case_is_rejected_with_suggestions() {
        for (text, suggestions) in [
            ("5M", &["5m", "5months"][..]),
            ("1h 5M", &["1h 5m", "1h 5months"]),
            ("5y", &["5years"]),
            ("5Y", &["5years"]),
            ("5H", &["5h"]),
            ("5 MS", &["5 ms"]),
            ("5Minutes 1s", &["5minutes 1s"]),
            ("5fortnights", &[]),
            ("5us", &[]),
            ("5µs", &[]),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.suggestions, suggestions, "{text}");
            assert!(error.reason.contains(UNIT_NAMES), "{text}: {}", error.reason);
        }
    }

    #[test]
    fn inexact_duration_is_rejected() {
        for text in [
            "",
            " ",
            "5",
            "soon",
            "m",
            "-5s",
            "+5s",
            "5..5s",
            ".5s",
            "1.2.3s",
            "5e3s",
            "5_0s",
            "0.0000001ms",
            "20000000000000000000s",
            "999999999999999999999999999999999999999999s",
            "5s!",
            "5s 3",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        for number in
            ["0.0000000001", "1e-10", "1e300", "18446744073709551616", "", "5m", "e5", "-1"]
        {
            assert!(parse_seconds(number).is_err(), "{number}");
        }
        assert_eq!(parse_seconds("9007199254740993.5").unwrap().as_secs(), 9_007_199_254_740_993);
        assert_eq!(parse_seconds("1e3"), Ok(Duration::from_secs(1000)));
        assert_eq!(parse_seconds("0.000000001"), Ok(Duration::from_nanos(1)));
        assert_eq!(parse_seconds("1.50"), Ok(Duration::from_millis(1500)));
    }
}
