//! Clean builds of a small program, and what one more cached function adds to a release build.

use std::error::Error;
use std::fmt::Write as _;
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

/// The number of functions that are added to a program with one.
const FURTHER: u32 = 20;

/// A program whose cached functions have a type of their own each, in the notation of one library.
struct Functions {
    name: &'static str,
    dependency: String,
    attribute: &'static str,
    is_async: bool,
}

impl Functions {
    fn write(&self, place: &Path, count: u32) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(place.join("src"))?;
        let Self { dependency, attribute, .. } = self;
        let tokio =
            if self.is_async { "tokio = { version = \"1\", features = [\"rt\"] }\n" } else { "" };
        let manifest = format!(
            "[package]\nname = \"functions\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{dependency}\n{tokio}\n[workspace]\n\n[profile.release]\ncodegen-units = 1\nstrip = true\n"
        );
        fs::write(place.join("Cargo.toml"), manifest)?;
        let (keyword, awaited) = if self.is_async { ("async ", ".await") } else { ("", "") };
        let mut code = String::new();
        let mut calls = String::from("0");
        for number in 0..count {
            let _ = writeln!(
                code,
                "#[derive(Clone)]\npub struct S{number} {{ pub a: u64, pub b: String }}\n#[{attribute}]\n#[inline(never)]\n{keyword}fn f{number}(s: &str, n: u64) -> S{number} {{\n    S{number} {{ a: n + {number}, b: s.to_owned() }}\n}}"
            );
            // In a box: the code of a future is else part of its caller.
            let call = if self.is_async {
                format!(" + once(Box::pin(f{number}(\"x\", n))){awaited}.a")
            } else {
                format!(" + f{number}(\"x\", n).a")
            };
            calls += &call;
        }
        code += &if self.is_async {
            format!(
                "fn once<'a, T>(f: std::pin::Pin<Box<dyn Future<Output = T> + 'a>>) -> std::pin::Pin<Box<dyn Future<Output = T> + 'a>> {{ f }}\nasync fn all(n: u64) -> u64 {{ {calls} }}\nfn main() {{ println!(\"{{}}\", tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(all(1))); }}\n"
            )
        } else {
            format!(
                "fn all(n: u64) -> u64 {{ {calls} }}\nfn main() {{ println!(\"{{}}\", all(1)); }}\n"
            )
        };
        Ok(fs::write(place.join("src/main.rs"), code)?)
    }

    /// Builds the program alone, and returns the seconds and the bytes of the file.
    fn build(&self, place: &Path, count: u32) -> Result<(f64, u64), Box<dyn Error>> {
        self.write(place, count)?;
        let target = place.join("target");
        let build = || -> Result<f64, Box<dyn Error>> {
            let began = Instant::now();
            let status = Command::new("cargo")
                .args(["build", "--quiet", "--release"])
                .current_dir(place)
                .env("CARGO_TARGET_DIR", &target)
                .status()?;
            if !status.success() {
                return Err(format!("cannot build the functions of {}", self.name).into());
            }
            Ok(began.elapsed().as_secs_f64())
        };
        build()?;
        let mut best = f64::INFINITY;
        for _ in 0..quick::or(3, 1) {
            // With another time, so that it is built again.
            let main = place.join("src/main.rs");
            fs::write(&main, fs::read(&main)?)?;
            best = best.min(build()?);
        }
        Ok((best, fs::metadata(target.join("release/functions"))?.len()))
    }
}

/// Measures what one more function adds.
fn further(report: &mut Report, vayu: &Path) -> Result<(), Box<dyn Error>> {
    let vayu = format!("vayu-cache = {{ path = '{}' }}", vayu.display());
    let key = r##"cached::macros::cached(ttl_secs = 60, max_size = 1000, key = "(String, u64)", convert = r#"{ (s.to_owned(), n) }"#)"##;
    let functions = [
        ("vayu", vayu.clone(), "vayu::cached(ttl = 60)", false),
        ("cached", "cached = \"4\"".to_owned(), key, false),
        ("vayu, async", vayu, "vayu::cached(ttl = 60)", true),
        (
            "cached, async",
            "cached = { version = \"4\", features = [\"async\"] }".to_owned(),
            key,
            true,
        ),
    ];
    let mut text =
        "\n| a further function, release, one codegen unit | seconds | kB |\n|---|--:|--:|\n"
            .to_owned();
    for (name, dependency, attribute, is_async) in functions {
        let functions = Functions { name, dependency, attribute, is_async };
        let place = tempfile::tempdir()?;
        let (before, small) = functions.build(place.path(), 1)?;
        let (after, large) = functions.build(place.path(), 1 + FURTHER)?;
        let seconds = (after - before) / f64::from(FURTHER);
        #[expect(clippy::cast_precision_loss, reason = "sizes of files are small")]
        let kilobytes = large.saturating_sub(small) as f64 / f64::from(FURTHER) / 1000.0;
        text += &format!("| {name} | {seconds:.3} | {kilobytes:.1} |\n");
        report.data(json!({ "name": name, "seconds": seconds, "kilobytes": kilobytes }));
    }
    report.write(&text);
    Ok(())
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
    let vayu = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vayu").canonicalize()?;
    let mut programs = [
        Program {
            name: "vayu",
            dependency: format!("vayu-cache = {{ path = '{}' }}", vayu.display()),
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
    further(report, &vayu)
}
