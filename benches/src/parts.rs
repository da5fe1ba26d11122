//! The parts of the benchmark.

mod asynchronous;
mod at_rest;
mod batch;
mod build;
mod file;
mod growth;
mod latency;
mod memory;
mod memory_use;
mod miss;
mod ratio;
mod redis;
mod stampede;
pub(crate) mod width;

use std::error::Error;

use crate::report::Report;
use crate::traps;

pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) measure: fn(&mut Report) -> Result<(), Box<dyn Error>>,
}

pub(crate) const PARTS: &[Part] = &[
    Part { name: "memory", title: "Hits in memory", measure: memory::measure },
    Part { name: "latency", title: "Latency of hits", measure: latency::measure },
    Part { name: "growth", title: "Hits by number of keys", measure: growth::measure },
    Part { name: "async", title: "Async hits in memory", measure: asynchronous::measure },
    Part { name: "batch", title: "Batches in memory", measure: batch::measure },
    Part { name: "miss", title: "Misses", measure: miss::measure },
    Part {
        name: "stampede",
        title: "Stampede: many callers of one missing key",
        measure: stampede::measure,
    },
    Part { name: "file", title: "Files", measure: file::measure },
    Part { name: "at-rest", title: "Values at rest", measure: at_rest::measure },
    Part { name: "redis", title: "Redis", measure: redis::measure },
    Part { name: "ratio", title: "Hit ratios", measure: ratio::measure },
    Part { name: "memory-use", title: "Memory of an entry", measure: memory_use::measure },
    Part { name: "width", title: "Writes to shared cache lines", measure: width::measure },
    Part { name: "traps", title: "Traps of caching", measure: traps::measure },
    Part { name: "build", title: "Building a program", measure: build::measure },
];
