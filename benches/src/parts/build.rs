//! Clean builds of a small program.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::quick;
use crate::report::Report;

/// A program with one cached function.
struct Program {
    name: &'static str,
    dependency: String,
    attribute: &'static str,
    seconds: Vec<f64>,
}

impl Program {
    fn write(&self, place: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(place.join("src"))?;
        let manifest = format!(
            "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{}\n\n[workspace]\n",
            self.dependency
        );
        fs::write(place.join("Cargo.toml"), manifest)?;
        let code = format!(
            "#[{}]\nfn square(n: u64) -> u64 {{\n    n * n\n}}\n\nfn main() {{\n    println!(\"{{}}\", square(12));\n}}\n",
            self.attribute
        );
        Ok(fs::write(place.join("src/main.rs"), code)?)
    }

    fn build(&mut self, place: &Path) -> Result<(), Box<dyn Error>> {
        let target = place.join("target");
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        let began = Instant::now();
        let status = Command::new("cargo")
            .args(["build", "--quiet", "--offline"])
            .current_dir(place)
            .env("CARGO_TARGET_DIR", &target)
            .status()?;
        if !status.success() {
            return Err(format!("cannot build the program with {}", self.name).into());
        }
        self.seconds.push(began.elapsed().as_secs_f64());
        Ok(())
    }
}

fn crates(place: &Path) -> Result<usize, Box<dyn Error>> {
    let output = Command::new("cargo")
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none", "--no-dedupe"])
        .current_dir(place)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut names: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect();
    names.sort();
    names.dedup();
    // Without the program itself.
    Ok(names.len() - 1)
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let vayu = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vayu");
    let mut programs = [
        Program {
            name: "vayu",
            dependency: format!("vayu-cache = {{ path = '{}' }}", vayu.canonicalize()?.display()),
            attribute: "vayu::cached(ttl = 60)",
            seconds: Vec::new(),
        },
        Program {
            name: "cached",
            dependency: "cached = \"4\"".to_owned(),
            attribute: "cached::macros::cached(ttl_secs = 60)",
            seconds: Vec::new(),
        },
    ];
    for program in &programs {
        let place = directory.path().join(program.name);
        program.write(&place)?;
        // The selected versions are available offline afterwards.
        let _ = Command::new("cargo").args(["fetch", "--quiet"]).current_dir(&place).status()?;
    }
    let rounds = quick::or(5, 1);
    for _ in 0..rounds {
        for program in &mut programs {
            program.build(&directory.path().join(program.name))?;
        }
    }
    let mut text = "\n| | seconds, clean debug build | crates |\n|---|--:|--:|\n".to_owned();
    for program in &mut programs {
        program.seconds.sort_by(f64::total_cmp);
        let count = crates(&directory.path().join(program.name))?;
        let median = program.seconds[rounds / 2];
        text += &format!("| {} | {median:.1} | {count} |\n", program.name);
        report.data(json!({ "name": program.name, "seconds": program.seconds, "crates": count }));
    }
    let ratio = programs[0].seconds[rounds / 2] / programs[1].seconds[rounds / 2];
    let word = if ratio <= 1.0 { "reached" } else { "**not reached**" };
    report.write(&format!("{text}\n- {ratio:.2} of cached, at most 1.00: {word}\n"));
    Ok(())
}
