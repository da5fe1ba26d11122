//! Benchmarks of vayu, other crates and lower bounds, in one process and one run.
//!
//! `cargo run --release -p vayu-bench` runs all parts that measure, `-- memory redis` some of them, `-- traps` the
//! programs of known traps. Each part writes a table, its numbers and plots to `docs/benchmarks`. With `--quick` the
//! parts do little work, to see that they run, and write no files.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::format_push_string,
    clippy::needless_for_each,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    clippy::unnecessary_wraps,
    clippy::unused_async,
    dropping_copy_types,
    reason = "benchmarks have small numbers, and functions that do almost nothing"
)]

mod comparison;
mod keys;
mod machine;
mod parts;
mod plot;
mod quick;
mod report;
mod summary;
mod traps;
mod units;

use std::env;
use std::error::Error;

use crate::parts::{PARTS, width};

fn main() -> Result<(), Box<dyn Error>> {
    let mut chosen: Vec<_> = env::args().skip(1).collect();
    if let [flag, trap, name] = chosen.as_slice()
        && flag == traps::CHILD
    {
        return traps::run_child(trap, name);
    }
    if let [flag, name, threads, times] = chosen.as_slice()
        && flag == width::CHILD
    {
        return width::run_child(name, threads, times);
    }
    if let Some(index) = chosen.iter().position(|argument| argument == "--quick") {
        chosen.remove(index);
        quick::turn_on();
    }
    if let Some(unknown) = chosen.iter().find(|name| !PARTS.iter().any(|part| part.name == **name))
    {
        let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        return Err(
            format!("unknown part `{unknown}`, expected one of {}", names.join(", ")).into()
        );
    }
    for part in PARTS {
        let takes_minutes =
            part.name == "traps" || quick::is_on() && ["build", "width"].contains(&part.name);
        let by_default = chosen.is_empty() && !takes_minutes;
        if by_default || chosen.iter().any(|name| name == part.name) {
            let mut report = report::Report::new(part.name, part.title);
            (part.measure)(&mut report)?;
            report.finish()?;
        }
    }
    Ok(())
}
