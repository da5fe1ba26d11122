//! Output formats: tables for people, JSON for programs.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use vayu_core::wire::EntryDetails;
use vayu_core::{Clock, SerializerId, SystemClock, Timestamp};

use crate::source::Entry;

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
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

/// Formats a compute time: `12.3 ms`, or its two largest units.
pub(crate) fn duration(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0 => "-".to_owned(),
        1..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        1_000_000..60_000_000 => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
        _ => span(time),
    }
}

/// The heading of the lines of entries.
pub(crate) const HEADING: &str =
    "STATE              SIZE            AGE           LEFT  KEY           CALL";

/// Formats an entry as a line.
pub(crate) fn entry_line(entry: &Entry, now: Timestamp, is_redacted: bool) -> String {
    let state = entry.state(now).name();
    let size = size(entry.length);
    match &entry.details {
        Ok(details) => {
            let age = span(now.saturating_since(details.created()));
            let left = match details.expires() {
                Timestamp::NEVER => "forever".to_owned(),
                expires => span(expires.saturating_since(now)),
            };
            let key = entry.short_digest().unwrap_or_else(|| "-".to_owned());
            let call = call(details, is_redacted).unwrap_or_else(|| escaped(&entry.path));
            format!("{state:<11} {size:>11} {age:>14} {left:>14}  {key:<12}  {call}")
        }
        Err(error) => {
            let (path, none) = (escaped(&entry.path), "-");
            format!("{state:<11} {size:>11} {none:>14} {none:>14}  {none:<12}  {path}: {error}")
        }
    }
}

/// Returns the call of an entry, with `…` for its arguments, string key or label if they are redacted.
fn call(details: &EntryDetails, is_redacted: bool) -> Option<String> {
    if is_redacted {
        details.function().map(|function| format!("{}(…)", function.escape_debug()))
    } else {
        details.call().map(str::to_owned)
    }
}

/// Converts a time after 1970 that is not in the distant future.
fn system_time(time: Timestamp) -> Option<SystemTime> {
    u64::try_from(time.as_micros())
        .ok()
        .and_then(|micros| UNIX_EPOCH.checked_add(Duration::from_micros(micros)))
        .filter(|&date| date < SystemTime::now() + Duration::from_secs(100 * 365 * 24 * 60 * 60))
}

/// Formats a time.
pub(crate) fn date(time: Timestamp) -> String {
    match system_time(time) {
        Some(date) => humantime::format_rfc3339_seconds(date).to_string(),
        None if time == Timestamp::NEVER => "never".to_owned(),
        None => format!("{} µs since 1970", time.as_micros()),
    }
}

/// Returns the name of a serializer, and how its values are wrapped: `MessagePack, compressed, sealed`.
pub(crate) fn serializer(id: SerializerId) -> String {
    let mut name = match id.unwrapped() {
        Some(SerializerId::MESSAGE_PACK) => "MessagePack".to_owned(),
        Some(SerializerId::JSON) => "JSON".to_owned(),
        Some(SerializerId::POSTCARD) => "Postcard".to_owned(),
        Some(SerializerId::BINCODE) => "Bincode".to_owned(),
        None if id.is_compressed() || id.is_sealed() => "user-defined".to_owned(),
        _ => format!("number {}", id.as_u16()),
    };
    for (is_wrapped, wrapper) in
        [(id.is_compressed(), ", compressed"), (id.is_sealed(), ", sealed")]
    {
        if is_wrapped {
            name.push_str(wrapper);
        }
    }
    name
}

/// Formats an entry as JSON, as `ls --help` describes it.
pub(crate) fn entry_json(entry: &Entry, now: Timestamp, is_redacted: bool) -> Value {
    let details = entry.details.as_ref().ok();
    let digest = details.and_then(EntryDetails::digest).map(const_hex::encode);
    let function = entry.function();
    let key = match (is_redacted, function, &digest) {
        (false, ..) => details.and_then(EntryDetails::key).map(str::to_owned),
        (true, Some(function), Some(digest)) => Some(format!("{function}:{digest}")),
        (true, ..) => None,
    };
    let mut object = json!({
        "path": entry.path,
        "function": function,
        "call": details.and_then(|details| call(details, is_redacted)),
        "label": details.and_then(EntryDetails::label).filter(|_| !is_redacted),
        "key": key,
        "digest": digest,
        "bytes": entry.length,
        "compute_time_us": details.map(|details| micros(details.compute_time())),
        "serializer": details.map(|details| serializer(details.serializer())),
        "state": entry.state(now).name(),
        "error": entry.details.as_ref().err().map(|invalid| &invalid.reason),
    });
    let times = [
        ("created", details.map(EntryDetails::created)),
        ("expires", details.map(EntryDetails::expires)),
        ("stale_until", details.map(EntryDetails::stale_until)),
    ];
    for (name, time) in times {
        let time = time.filter(|&time| time != Timestamp::NEVER);
        object[name] = json!(
            time.and_then(system_time)
                .map(|time| { humantime::format_rfc3339_micros(time).to_string() })
        );
        object[format!("{name}_us")] = json!(time.map(Timestamp::as_micros));
    }
    object
}

/// Escapes control characters, which a terminal may take for commands.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Escapes the control characters in JSON that JSON allows in strings: U+007F to U+009F.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(character));
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\u{1b}[2J\u{9b}é\n"), "a\\u{1b}[2J\\u{9b}é\\u{a}");
        let value = json!("\u{1b}\u{7f}\u{9b}é\u{a0}");
        let shown = escaped_json(&value.to_string());
        assert_eq!(shown, "\"\\u001b\\u007f\\u009bé\u{a0}\"");
        assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), value);
    }

    #[test]
    fn duration_uses_the_unit_that_fits() {
        for (micros, text) in [
            (0, "-"),
            (7, "7 µs"),
            (1_250, "1.2 ms"),
            (59_990_000, "59.9 s"),
            (61_000_000, "1m 1s"),
            (90_000_000_000, "1day 1h"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), text);
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
