//! `vayu-cache verify`: reads every entry and verifies its checksum.

use std::io::{Write, stdout};

use serde_json::json;
use vayu_file::{CacheDirectory, Verify};

use super::Outcome;
use crate::Verdict;
use crate::args;
use crate::output::{entry_json, now, progress, size};

pub(crate) fn run(arguments: &args::Verify) -> Outcome {
    let directory = CacheDirectory::open(&arguments.target.directory)?;
    let bar = progress(&directory)?;
    let now = now();
    let (mut entries, mut bytes, mut corrupt) = (0_u64, 0_u64, 0_u64);
    let mut out = stdout().lock();
    for entry in bar.wrap_iter(directory.entries(Verify::Full)) {
        let entry = entry?;
        entries += 1;
        bytes += entry.length();
        if let Some(error) = entry.error() {
            corrupt += 1;
            if arguments.target.json {
                writeln!(out, "{}", entry_json(&entry, now))?;
            } else {
                bar.suspend(|| writeln!(out, "{}: {error}", entry.path()))?;
            }
        }
    }
    bar.finish_and_clear();
    if arguments.target.json {
        writeln!(out, "{}", json!({ "entries": entries, "bytes": bytes, "corrupt": corrupt }))?;
    } else {
        writeln!(out, "{entries} entries, {}, {corrupt} corrupt", size(bytes))?;
    }
    Ok(if corrupt == 0 { Verdict::Success } else { Verdict::Failure })
}
