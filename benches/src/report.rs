//! The report of a part: Markdown, JSON and plots.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::comparison::{Measurement, Role};
use crate::units::time;
use crate::{machine, plot, quick, summary};

/// The tables of one part.
pub(crate) struct Report {
    name: &'static str,
    text: String,
    data: Vec<Value>,
    plots: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn new(name: &'static str, title: &str) -> Self {
        let mut text = format!("# {title}\n\n{}\n", machine::describe());
        let _ = writeln!(text, "\n`cargo run --release -p vayu-bench -- {name}`");
        print!("{text}");
        Self { name, text, data: Vec::new(), plots: Vec::new() }
    }

    /// Adds the table and plot of a comparison, with the ratios and limits of vayu.
    pub(crate) fn comparison(
        &mut self,
        work: &str,
        measurements: &[Measurement],
        limits: &[Limit<'_>],
    ) {
        let vayu = of_vayu(measurements);
        let mut text = format!(
            "\n## {work}\n\n| | | median | quartiles | relative to vayu | allocations | |\n|---|---|--:|--:|--:|--:|---|\n"
        );
        for measurement in measurements {
            let (low, high) = measurement.quartiles();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} - {} | {:.2} | {:.1} | {} |",
                measurement.name,
                if measurement.role == Role::Vayu { "" } else { measurement.role.name() },
                time(measurement.median()),
                time(low),
                time(high),
                measurement.median() / vayu,
                measurement.allocations,
                measurement.note
            );
        }
        text.push('\n');
        let ratios = ratios(measurements);
        if measurements.iter().any(|measurement| measurement.role.is_peer()) {
            let ratios =
                ratios.iter().map(|(of, name, ratio)| format!("{ratio:.2} of {of} ({name})"));
            let _ = writeln!(text, "- {}", ratios.collect::<Vec<_>>().join(", "));
        }
        for limit in limits {
            let _ = writeln!(text, "- {}", limit.verdict(measurements));
        }
        self.write(&text);
        self.data.push(json!({
            "work": work,
            "nanoseconds": measurements.iter().map(|measurement| json!({
                "name": measurement.name,
                "role": measurement.role.name(),
                "median": measurement.median(),
                "quartiles": measurement.quartiles(),
                "allocations": measurement.allocations,
            })).collect::<Vec<_>>(),
            "ratios": ratios.iter().map(|(of, name, ratio)| json!({
                "of": of,
                "name": name,
                "ratio": ratio,
            })).collect::<Vec<_>>(),
        }));
        let bars: Vec<_> = measurements
            .iter()
            .map(|measurement| {
                (measurement.name, measurement.median(), measurement.role == Role::Vayu)
            })
            .collect();
        self.plot(work, plot::bars(work, &bars));
    }

    /// Adds other text.
    pub(crate) fn write(&mut self, text: &str) {
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

    /// Writes the files.
    pub(crate) fn finish(self) -> Result<(), Box<dyn Error>> {
        if quick::is_on() {
            return Ok(());
        }
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("{}.md", self.name)), self.text)?;
        let data = serde_json::to_string_pretty(&self.data)? + "\n";
        fs::write(directory.join(format!("{}.json", self.name)), data)?;
        for (name, svg) in self.plots {
            fs::write(directory.join(name), svg)?;
        }
        summary::write(&directory)
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

    fn verdict(&self, measurements: &[Measurement]) -> String {
        let other = match self.of {
            Of::BestPeer => best(measurements, Role::is_peer),
            Of::Named(name) => measurements.iter().find(|measurement| measurement.name == name),
        };
        let ratio = of_vayu(measurements) / other.map_or(f64::NAN, Measurement::median);
        let word = if ratio <= self.most { "reached" } else { "**not reached**" };
        let name = other.map_or("no contender", |measurement| measurement.name);
        format!("{ratio:.2} of {name}, at most {:.2}: {word}", self.most)
    }
}

/// Returns the median of vayu.
fn of_vayu(measurements: &[Measurement]) -> f64 {
    let vayu = measurements.iter().find(|measurement| measurement.role == Role::Vayu);
    vayu.map_or(f64::NAN, Measurement::median)
}

/// Returns the fastest of the contenders with a role.
fn best(measurements: &[Measurement], is_role: impl Fn(Role) -> bool) -> Option<&Measurement> {
    measurements
        .iter()
        .filter(|measurement| is_role(measurement.role))
        .min_by(|one, other| one.median().total_cmp(&other.median()))
}

/// Returns the time of vayu relative to the fastest bounded peer, the fastest peer and the fastest
/// contender of any kind, with their names.
fn ratios(measurements: &[Measurement]) -> Vec<(&'static str, &'static str, f64)> {
    let bests = [
        ("the best bounded peer", best(measurements, |role| role == Role::Bounded)),
        ("the best peer", best(measurements, Role::is_peer)),
        ("the best of all", best(measurements, |role| role != Role::Vayu)),
    ];
    let vayu = of_vayu(measurements);
    let ratio =
        |(of, best): (_, Option<&Measurement>)| Some((of, best?.name, vayu / best?.median()));
    bests.into_iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(name: &'static str, role: Role, median: f64) -> Measurement {
        Measurement { name, role, note: "", times: vec![median], allocations: 0.0 }
    }

    #[test]
    fn bounded_and_unbounded_peers_are_counted_apart() {
        let measurements = [
            measurement("vayu", Role::Vayu, 20.0),
            measurement("bounded", Role::Bounded, 80.0),
            measurement("unbounded", Role::Unbounded, 40.0),
            measurement("limit", Role::Baseline, 10.0),
        ];
        let ratios =
            ratios(&measurements).into_iter().map(|(_, name, ratio)| format!("{name} {ratio}"));
        let ratios: Vec<_> = ratios.collect();
        assert_eq!(ratios, ["bounded 0.25", "unbounded 0.5", "limit 2"]);
    }

    #[test]
    fn verdict_compares_with_the_best_peer_and_with_names() {
        let measurements = [
            measurement("vayu", Role::Vayu, 20.0),
            measurement("slow", Role::Bounded, 100.0),
            measurement("fast", Role::Unbounded, 40.0),
            measurement("lesser", Role::Partial, 1.0),
            measurement("limit", Role::Baseline, 10.0),
        ];
        assert_eq!(
            Limit::of_best_peer(0.6).verdict(&measurements),
            "0.50 of fast, at most 0.60: reached"
        );
        assert!(
            Limit::of("limit", 1.8)
                .verdict(&measurements)
                .contains("2.00 of limit, at most 1.80: **not")
        );
    }
}
