//! `vayu verify`: every byte of every entry is read and checked.

use std::io::{Write, stdout};

use serde_json::json;
use vayu_file::{CacheDirectory, Verify};

use super::Outcome;
use crate::Verdict;
use crate::args;
use crate::output::{entry_json, now, progress, size};

pub(crate) fn run(arguments: &args::Verify) -> Outcome {
    let directory = CacheDirectory::open(&arguments.place.directory)?;
    let bar = progress(&directory)?;
    let now = now();
    let (mut entries, mut bytes, mut damaged) = (0_u64, 0_u64, 0_u64);
    let mut out = stdout().lock();
    for entry in bar.wrap_iter(directory.entries(Verify::Full)) {
        let entry = entry?;
        entries += 1;
        bytes += entry.length();
        if let Some(error) = entry.error() {
            damaged += 1;
            if arguments.place.json {
                writeln!(out, "{}", entry_json(&entry, now))?;
            } else {
                bar.suspend(|| writeln!(out, "{}: {error}", entry.path()))?;
            }
        }
    }
    bar.finish_and_clear();
    if arguments.place.json {
        writeln!(out, "{}", json!({ "entries": entries, "bytes": bytes, "damaged": damaged }))?;
    } else {
        writeln!(out, "{entries} entries, {}, {damaged} damaged", size(bytes))?;
    }
    Ok(if damaged == 0 { Verdict::Good } else { Verdict::Bad })
}
