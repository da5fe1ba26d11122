//! `vayu-cache show`: one entry and its value.

use std::io::{Write, stdout};

use serde_json::{Value, json};
use vayu_core::SerializerId;
use vayu_file::{CacheDirectory, EntryInfo, Verify};

use super::Outcome;
use crate::Verdict;
use crate::args::Show;
use crate::output::{State, date, entry_json, now, serializer, size, with_causes};

pub(crate) fn run(arguments: &Show) -> Outcome {
    let directory = CacheDirectory::open(&arguments.target.directory)?;
    let Some(entry) = find(&directory, &arguments.entry)? else {
        eprintln!("vayu-cache: entry `{}` not found", arguments.entry);
        return Ok(Verdict::Failure);
    };
    let value = directory.value(&entry).map_err(|error| with_causes(&error));
    let mut out = stdout().lock();
    if arguments.target.json {
        let mut shown = entry_json(&entry, now());
        shown["value"] = value.as_ref().map_or(Value::Null, |bytes| as_json(&entry, bytes));
        writeln!(out, "{shown}")?;
    } else {
        write_lines(&mut out, &entry)?;
        match &value {
            Ok(bytes) => writeln!(out, "\n{}", as_text(&entry, bytes))?,
            Err(error) => writeln!(out, "\n{error}")?,
        }
    }
    Ok(if value.is_ok() { Verdict::Success } else { Verdict::Failure })
}

fn find(directory: &CacheDirectory, wanted: &str) -> Result<Option<EntryInfo>, vayu_core::Error> {
    for entry in directory.entries(Verify::Header) {
        let entry = entry?;
        if entry.key() == Some(wanted) || entry.path() == wanted {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn write_lines(out: &mut impl Write, entry: &EntryInfo) -> std::io::Result<()> {
    writeln!(out, "key         {}", entry.key().unwrap_or("-").escape_debug())?;
    writeln!(out, "file        {}", entry.path())?;
    writeln!(out, "size        {}", size(entry.length()))?;
    writeln!(out, "state       {}", State::of(entry, now()).name())?;
    if let (Some(created), Some(expires), Some(id)) =
        (entry.created(), entry.expires(), entry.serializer())
    {
        writeln!(out, "created     {}", date(created))?;
        writeln!(out, "expires     {}", date(expires))?;
        writeln!(out, "serializer  {}", serializer(id))?;
    }
    if let Some(error) = entry.error() {
        writeln!(out, "error       {error}")?;
    }
    Ok(())
}

/// Formats a value for people.
fn as_text(entry: &EntryInfo, bytes: &[u8]) -> String {
    match entry.serializer() {
        Some(SerializerId::MESSAGE_PACK) => {
            let mut rest = bytes;
            match rmpv::decode::read_value(&mut rest) {
                Ok(value) => value.to_string(),
                Err(_) => hex(bytes),
            }
        }
        Some(SerializerId::JSON) => match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => format!("{value:#}"),
            Err(_) => hex(bytes),
        },
        _ => hex(bytes),
    }
}

/// Converts a value to JSON: itself if it is JSON, otherwise the string for people.
fn as_json(entry: &EntryInfo, bytes: &[u8]) -> Value {
    if entry.serializer() == Some(SerializerId::JSON)
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return value;
    }
    json!(as_text(entry, bytes))
}

/// Formats up to 256 bytes in hex.
fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 256;
    let digits = const_hex::encode(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN { format!("{digits}… ({} bytes)", bytes.len()) } else { digits }
}
