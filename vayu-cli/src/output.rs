//! Output formats: tables for people, JSON for programs.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use vayu_core::{Clock, SerializerId, SystemClock, Timestamp};
use vayu_file::{CacheDirectory, EntryInfo};

/// The state of an entry at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Fresh,
    /// Expired, but served while a new value is computed.
    Stale,
    Expired,
    Corrupt,
}

impl State {
    pub(crate) fn of(entry: &EntryInfo, now: Timestamp) -> Self {
        match (entry.expires(), entry.stale_until()) {
            (Some(expires), _) if now < expires => Self::Fresh,
            (_, Some(end)) if now < end => Self::Stale,
            (Some(_), _) => Self::Expired,
            (None, _) => Self::Corrupt,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Corrupt => "corrupt",
        }
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// Returns whether an entry belongs to a function that is given by its path or the end of it.
pub(crate) fn is_of(entry: &EntryInfo, function: &str) -> bool {
    entry.function().is_some_and(|path| {
        path.strip_suffix(function).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
    })
}

/// Formats a number of bytes: `12.3 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut amount = bytes;
    let mut rest = 0;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024 || unit == "GiB" {
            return if unit == "B" {
                format!("{amount} B")
            } else {
                format!("{amount}.{} {unit}", rest * 10 / 1024)
            };
        }
        (amount, rest) = (amount / 1024, amount % 1024);
    }
    unreachable!("the last unit fits every number")
}

/// Formats a duration in its two largest units: `3days 4h`.
pub(crate) fn span(time: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub(crate) fn age(entry: &EntryInfo, now: Timestamp) -> String {
    entry.created().map_or_else(|| "-".to_owned(), |created| span(now.saturating_since(created)))
}

pub(crate) fn time_left(entry: &EntryInfo, now: Timestamp) -> String {
    match entry.expires() {
        None => "-".to_owned(),
        Some(Timestamp::NEVER) => "forever".to_owned(),
        Some(expires) => span(expires.saturating_since(now)),
    }
}

pub(crate) fn date(time: Timestamp) -> String {
    let date = u64::try_from(time.as_micros())
        .ok()
        .and_then(|micros| UNIX_EPOCH.checked_add(Duration::from_micros(micros)))
        .filter(|&date| date < SystemTime::now() + Duration::from_secs(100 * 365 * 24 * 60 * 60));
    match date {
        Some(date) => humantime::format_rfc3339_seconds(date).to_string(),
        None if time == Timestamp::NEVER => "never".to_owned(),
        None => format!("{} µs since 1970", time.as_micros()),
    }
}

pub(crate) fn serializer(id: SerializerId) -> String {
    match id {
        SerializerId::MESSAGE_PACK => "MessagePack".to_owned(),
        SerializerId::JSON => "JSON".to_owned(),
        SerializerId::POSTCARD => "Postcard".to_owned(),
        SerializerId::BINCODE => "Bincode".to_owned(),
        other => format!("number {}", other.as_u16()),
    }
}

/// Formats an entry as JSON. Times are in microseconds since 1970; `expires` is `null` for never.
pub(crate) fn entry_json(entry: &EntryInfo, now: Timestamp) -> Value {
    let micros = |time: Option<Timestamp>| {
        time.filter(|&time| time != Timestamp::NEVER).map(Timestamp::as_micros)
    };
    json!({
        "path": entry.path(),
        "function": entry.function(),
        "key": entry.key(),
        "bytes": entry.length(),
        "created": micros(entry.created()),
        "expires": micros(entry.expires()),
        "serializer": entry.serializer().map(serializer),
        "state": State::of(entry, now).name(),
        "error": entry.error().map(|error| error.to_string()),
    })
}

/// Creates a progress bar for reading all entries of a directory.
pub(crate) fn progress(directory: &CacheDirectory) -> Result<ProgressBar, vayu_core::Error> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {eta} left")
        .expect("the template is valid");
    Ok(ProgressBar::new(directory.count()?).with_style(style))
}

/// Formats an error and its causes on one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    vayu_core::__internal::with_causes(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_uses_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (5000 << 30, "5000.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn every_timestamp_is_formatted() {
        assert_eq!(date(Timestamp::from_micros(0)), "1970-01-01T00:00:00Z");
        assert_eq!(date(Timestamp::NEVER), "never");
        assert_eq!(date(Timestamp::from_micros(-5)), "-5 µs since 1970");
        assert_eq!(
            date(Timestamp::from_micros(i64::MAX - 1)),
            format!("{} µs since 1970", i64::MAX - 1)
        );
    }
}
