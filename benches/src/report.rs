//! The report of a part: Markdown, JSON and plots.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::plot;
use crate::race::{Lap, Role};

/// The tables of one part.
pub(crate) struct Report {
    name: &'static str,
    text: String,
    data: Vec<Value>,
    plots: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn new(name: &'static str, title: &str) -> Self {
        let mut text = format!("# {title}\n\n{}\n", machine());
        let _ = writeln!(text, "\n`cargo run --release -p vayu-bench -- {name}`");
        Self { name, text, data: Vec::new(), plots: Vec::new() }
    }

    /// Adds the table and plot of a race, with the limits of vayu.
    pub(crate) fn race(&mut self, work: &str, laps: &[Lap], limits: &[Limit<'_>]) {
        let vayu = laps.iter().find(|lap| lap.role == Role::Vayu).map_or(f64::NAN, Lap::median);
        let mut text = format!(
            "\n## {work}\n\n| | median | quartiles | relative to vayu | allocations | |\n|---|--:|--:|--:|--:|---|\n"
        );
        for lap in laps {
            let (low, high) = lap.quartiles();
            let _ = writeln!(
                text,
                "| {} | {} | {} - {} | {:.2} | {:.1} | {} |",
                lap.name,
                time(lap.median()),
                time(low),
                time(high),
                lap.median() / vayu,
                lap.allocations,
                lap.note
            );
        }
        text.push('\n');
        for limit in limits {
            let _ = writeln!(text, "- {}", limit.verdict(laps));
        }
        self.say(&text);
        self.data.push(json!({
            "work": work,
            "nanoseconds": laps.iter().map(|lap| json!({
                "name": lap.name,
                "median": lap.median(),
                "quartiles": lap.quartiles(),
                "allocations": lap.allocations,
            })).collect::<Vec<_>>(),
        }));
        let bars: Vec<_> =
            laps.iter().map(|lap| (lap.name, lap.median(), lap.role == Role::Vayu)).collect();
        self.plot(work, plot::bars(work, &bars));
    }

    /// Adds other text.
    pub(crate) fn say(&mut self, text: &str) {
        print!("{text}");
        self.text.push_str(text);
    }

    pub(crate) fn data(&mut self, data: Value) {
        self.data.push(data);
    }

    pub(crate) fn plot(&mut self, work: &str, svg: String) {
        let words: String = work
            .chars()
            .map(
                |letter| {
                    if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' }
                },
            )
            .collect();
        let words: Vec<_> = words.split('-').filter(|word| !word.is_empty()).collect();
        let name = format!("{}-{}.svg", self.name, words.join("-"));
        let _ = writeln!(self.text, "\n![{work}]({name})");
        self.plots.push((name, svg));
    }

    pub(crate) fn finish(self) -> Result<(), Box<dyn Error>> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("{}.md", self.name)), self.text)?;
        let data = serde_json::to_string_pretty(&self.data)? + "\n";
        fs::write(directory.join(format!("{}.json", self.name)), data)?;
        for (name, svg) in self.plots {
            fs::write(directory.join(name), svg)?;
        }
        Ok(())
    }
}

/// A limit of vayu's time, relative to another contender.
#[derive(Debug)]
pub(crate) struct Limit<'a> {
    most: f64,
    of: Of<'a>,
}

#[derive(Debug)]
enum Of<'a> {
    BestPeer,
    Named(&'a str),
}

impl<'a> Limit<'a> {
    /// Creates a limit relative to the fastest crate that does the same work.
    pub(crate) fn of_best_peer(most: f64) -> Self {
        Self { most, of: Of::BestPeer }
    }

    pub(crate) fn of(name: &'a str, most: f64) -> Self {
        Self { most, of: Of::Named(name) }
    }

    fn verdict(&self, laps: &[Lap]) -> String {
        let median = |found: Option<&Lap>| found.map_or(f64::NAN, Lap::median);
        let vayu = median(laps.iter().find(|lap| lap.role == Role::Vayu));
        let other = match self.of {
            Of::BestPeer => laps
                .iter()
                .filter(|lap| lap.role == Role::Peer)
                .min_by(|one, other| one.median().total_cmp(&other.median())),
            Of::Named(name) => laps.iter().find(|lap| lap.name == name),
        };
        let ratio = vayu / median(other);
        let word = if ratio <= self.most { "reached" } else { "**not reached**" };
        let name = other.map_or("no contender", |lap| lap.name);
        format!("{ratio:.2} of {name}, at most {:.2}: {word}", self.most)
    }
}

/// Formats nanoseconds with a suitable unit.
pub(crate) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.1} ns"),
        1e3..1e6 => format!("{:.2} µs", nanoseconds / 1e3),
        _ => format!("{:.2} ms", nanoseconds / 1e6),
    }
}

/// Describes the machine.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let model = model.map_or("an unknown processor", |(_, model)| model);
    format!("Measured on {processors} processors, {model}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lap(name: &'static str, role: Role, median: f64) -> Lap {
        Lap { name, role, note: "", times: vec![median], allocations: 0.0 }
    }

    #[test]
    fn verdict_compares_with_the_best_peer_and_with_names() {
        let laps = [
            lap("vayu", Role::Vayu, 20.0),
            lap("slow", Role::Peer, 100.0),
            lap("fast", Role::Peer, 40.0),
            lap("lesser", Role::Lesser, 1.0),
            lap("limit", Role::Limit, 10.0),
        ];
        assert_eq!(Limit::of_best_peer(0.6).verdict(&laps), "0.50 of fast, at most 0.60: reached");
        assert!(
            Limit::of("limit", 1.8).verdict(&laps).contains("2.00 of limit, at most 1.80: **not")
        );
    }

    #[test]
    fn times_have_a_unit_that_fits() {
        assert_eq!([12.34, 5678.0, 9e6].map(time), ["12.3 ns", "5.68 µs", "9.00 ms"]);
    }
}
