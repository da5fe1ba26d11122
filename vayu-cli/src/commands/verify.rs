//! `vayu-cache verify`: reads every entry and verifies its checksum.

use std::io::{Write, stdout};
use std::ops::ControlFlow;

use serde_json::json;
use vayu_file::Verify;

use super::Outcome;
use crate::Verdict;
use crate::args;
use crate::output::{entry_json, escaped, escaped_json, now, size};
use crate::progress::Progress;
use crate::source::Source;
use crate::state::State;

pub(crate) fn run(arguments: &args::Verify) -> Outcome {
    let target = &arguments.target;
    let source = Source::open(&target.cache)?;
    let now = now();
    let (mut entries, mut bytes, mut corrupt, mut unverified) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut out = stdout().lock();
    let mut progress = Progress::new();
    let visited = source.for_each(Verify::Full, Some(arguments.limit), |entry| {
        progress.advance(&entry);
        entries += 1;
        bytes += entry.length;
        if let Err(error) = &entry.details {
            match entry.state(now) {
                State::Corrupt => corrupt += 1,
                _ => unverified += 1,
            }
            if target.json {
                let line = entry_json(&entry, now, target.redact).to_string();
                writeln!(out, "{}", escaped_json(&line))?;
            } else {
                progress.suspend(|| writeln!(out, "{}: {error}", escaped(&entry.path)))?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    if !visited.is_complete {
        eprintln!("vayu-cache: stopped at the limit; `--limit` sets it");
    }
    if target.json {
        writeln!(
            out,
            "{}",
            json!({ "entries": entries, "bytes": bytes, "corrupt": corrupt, "unverified": unverified })
        )?;
    } else {
        let size = size(bytes);
        writeln!(out, "{entries} entries, {size}, {corrupt} corrupt, {unverified} not verified")?;
    }
    visited.errors.finish()?;
    Ok(if corrupt + unverified == 0 { Verdict::Success } else { Verdict::Failure })
}
