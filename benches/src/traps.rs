//! Known traps of caching as programs, one for each trap and crate.
//!
//! Each program runs in a process of its own with a time limit, so that one that hangs or aborts is a
//! row of the table. A program uses its crate in the form that the README of the crate shows.

mod calls;
mod values;

use std::error::Error;
use std::io::Read as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::report::Report;

/// The outcome of a program: an error says what was wrong.
pub(crate) type Outcome = Result<(), String>;

/// What the outcome begins with if all values are right, but calls waited.
pub(crate) const WAITS: &str = "waits: ";

/// What a crate does in a trap.
pub(crate) enum Program {
    Run(fn() -> Outcome),
    /// The program is rejected by the compiler, for this reason.
    DoesNotCompile(&'static str),
    /// There is no program, for this reason.
    None(&'static str),
}

/// One trap, with a program for each crate.
pub(crate) struct Trap {
    pub(crate) name: &'static str,
    /// What happens, and the only right outcome.
    pub(crate) title: &'static str,
    pub(crate) programs: &'static [(&'static str, Program)],
    /// Where crates document the trap.
    pub(crate) documented: &'static str,
}

/// The crates, and the packages of their versions.
const CRATES: [(&str, &str); 8] = [
    ("vayu", "vayu-cache"),
    ("cached", "cached"),
    ("cached by_key", "cached"),
    ("cachelito", "cachelito"),
    ("memoize", "memoize"),
    ("hitbox", "hitbox-fn"),
    ("hitbox concurrency", "hitbox-fn"),
    ("moka", "moka"),
];

/// The time limit of a program. vayu waits 3 s for a computation that makes no progress.
const LIMIT: Duration = Duration::from_secs(12);

/// The argument that makes this program run one trap.
pub(crate) const CHILD: &str = "--trap";

/// Returns `Ok` if a value is the only right one.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, right: &T) -> Outcome {
    if got == right { Ok(()) } else { Err(format!("{what} is {got:?} instead of {right:?}")) }
}

fn traps() -> impl Iterator<Item = &'static Trap> {
    calls::TRAPS.iter().chain(values::TRAPS)
}

/// Runs the program of one trap and crate in this process.
pub(crate) fn run_child(trap: &str, name: &str) -> Result<(), Box<dyn Error>> {
    let trap = traps().find(|known| known.name == trap).ok_or("unknown trap")?;
    let program = trap.programs.iter().find(|(known, _)| *known == name).ok_or("unknown crate")?;
    let Program::Run(program) = &program.1 else { return Err("it does not run".into()) };
    // A process that hangs also ends if the one that waits for it is killed.
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT + Duration::from_secs(3));
        std::process::exit(1)
    });
    match program() {
        Ok(()) => println!("right"),
        Err(wrong) => println!("{wrong}"),
    }
    // Threads of a trap may still run.
    std::process::exit(0)
}

/// Runs all programs, and writes the table.
pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let versions: Vec<_> =
        CRATES.iter().map(|(name, package)| format!("{name} {}", version(package))).collect();
    report.write(&format!(
        "\nVersions: {}. `by_key` is `sync_writes = \"by_key\"`, which `cached` has for concurrent first calls.\n\
         `memoize` is used with `SharedCache`, as its default has a cache per thread. `hitbox` is used as in its first\n\
         example, and in the column `hitbox concurrency` with `BroadcastConcurrencyManager` and a concurrency of 1.\n\n\
         right: the only right value. waits: right, but calls wait for seconds. wrong: another value. hangs: no end\n\
         within {} s. -: no program, for the reason that is given below. Each program is a process of its own, and its\n\
         code is in `benches/src/traps`.\n\n",
        versions.join(", "),
        LIMIT.as_secs()
    ));
    let heads: Vec<_> = CRATES.iter().map(|(name, _)| *name).collect();
    report.write(&format!(
        "| trap | {} |\n|---|{}\n",
        heads.join(" | "),
        "---|".repeat(heads.len())
    ));
    let (mut notes, mut without) = (Vec::new(), Vec::new());
    for trap in traps() {
        let mut cells = Vec::new();
        for (name, _) in CRATES {
            let program = trap.programs.iter().find(|(known, _)| *known == name);
            let (cell, note) = match program.map(|(_, program)| program) {
                None => ("-".to_owned(), String::new()),
                Some(Program::None(reason)) => {
                    without.push(format!("- {}, {name}: {reason}", trap.name));
                    ("-".to_owned(), String::new())
                }
                Some(Program::DoesNotCompile(reason)) => {
                    ("does not compile".to_owned(), (*reason).to_owned())
                }
                Some(Program::Run(_)) => spawn(trap.name, name)?,
            };
            if !note.is_empty() {
                notes.push(format!("- {}, {name}: {note}", trap.name));
            }
            report.data(json!({ "trap": trap.name, "crate": name, "outcome": cell, "note": note }));
            cells.push(cell);
        }
        report.write(&format!("| {}: {} | {} |\n", trap.name, trap.title, cells.join(" | ")));
    }
    report.write(&format!("\n## Details\n\n{}\n", notes.join("\n")));
    report.write(&format!("\n## Without a program\n\n{}\n", without.join("\n")));
    let documented = traps().filter(|trap| !trap.documented.is_empty());
    let documented: Vec<_> =
        documented.map(|trap| format!("- {}: {}", trap.name, trap.documented)).collect();
    report.write(&format!("\n## Documented by the crates\n\n{}\n", documented.join("\n")));
    report.write(&format!("\nAll programs took {:.0} s.\n", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Runs a program in a process of its own. Returns the cell of the table, and the details.
fn spawn(trap: &str, name: &str) -> Result<(String, String), Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([CHILD, trap, name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if began.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut output = String::new();
    child.stdout.take().ok_or("it is piped")?.read_to_string(&mut output)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(verdict(status, output.trim(), seconds))
}

fn verdict(status: Option<ExitStatus>, output: &str, seconds: f64) -> (String, String) {
    let cell = match status {
        None => "**hangs**",
        Some(status) if status.success() && output == "right" => {
            if seconds > 2.5 {
                return ("waits".to_owned(), format!("right after {seconds:.0} s"));
            }
            return ("right".to_owned(), String::new());
        }
        Some(status) if status.success() => {
            return match output.strip_prefix(WAITS) {
                Some(note) => ("waits".to_owned(), note.to_owned()),
                None => ("**wrong**".to_owned(), output.to_owned()),
            };
        }
        Some(status) if status.code() == Some(101) => "**panics**",
        Some(_) => "**aborts**",
    };
    (cell.to_owned(), String::new())
}

/// Returns the version of a package in `Cargo.lock`.
fn version(package: &str) -> &'static str {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let name = format!("name = \"{package}\"\nversion = \"");
    let found = LOCK.split_once(&name).and_then(|(_, rest)| rest.split_once('"'));
    found.map_or("", |(version, _)| version)
}
