//! The program, run with arguments.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;
use vayu_core::testing::ManualClock;
use vayu_core::{Clock, Key, SystemClock, Timestamp};
use vayu_file::{FileCache, FileOptions};

/// Creates a directory with two functions: three fresh entries, and an expired one.
fn temporary_cache() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(directory.path()).expect("a cache");
    for base in ["EUR", "USD"] {
        let key = Key::from_text("shop::rates", base);
        cache.set(&key, &(base.to_owned(), 1.5), Duration::MAX).expect("write");
    }
    let key = Key::new("shop::stock", &(7_u8,)).expect("a key");
    cache.set(&key, &vec!["screws".to_owned()], Duration::from_secs(3600)).expect("write");
    // With a clock that is two hours slow.
    let clock = ManualClock::new();
    clock.set(Timestamp::from_micros(SystemClock.now().as_micros() - 7_200_000_000));
    let late = FileOptions::new().clock(clock).open(directory.path()).expect("a cache");
    let key = Key::from_text("shop::stock", "old");
    late.set(&key, &1_u8, Duration::from_secs(3600)).expect("write");
    directory
}

fn vayu(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vayu-cache"))
        .arg(arguments[0])
        .arg(directory)
        .args(&arguments[1..])
        .output()
        .expect("the program runs")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    text(output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(directory).expect("a directory").flatten();
    let shards = shards.filter(|entry| entry.path().is_dir());
    let files =
        shards.flat_map(|shard| std::fs::read_dir(shard.path()).expect("a shard").flatten());
    files.map(|entry| entry.path()).collect()
}

/// Flips the last bit of an entry.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("an entry");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(path, bytes).expect("write");
}

#[test]
fn ls_prints_a_line_for_each_entry() {
    let directory = temporary_cache();
    let output = vayu(&["ls"], directory.path());
    assert!(output.status.success());
    let lines = text(&output);
    assert_eq!(lines.lines().count(), 1 + 4, "{lines}");
    assert!(lines.contains("shop::rates:EUR") && lines.contains("forever"), "{lines}");
    assert!(lines.contains("expired"), "{lines}");

    let rates = json_lines(&vayu(&["ls", "--function", "rates", "--json"], directory.path()));
    assert_eq!(rates.len(), 2);
    assert!(rates.iter().all(|entry| entry["function"] == "shop::rates"), "{rates:?}");
    assert!(rates.iter().all(|entry| entry["expires"].is_null() && entry["state"] == "fresh"));
    let none = json_lines(&vayu(&["ls", "--function", "ates", "--json"], directory.path()));
    assert!(none.is_empty(), "a suffix must begin after `::`");
}

#[test]
fn show_prints_the_value() {
    let directory = temporary_cache();
    let output = vayu(&["show", "shop::rates:EUR"], directory.path());
    assert!(output.status.success());
    assert!(text(&output).contains(r#"["EUR", 1.5]"#), "{}", text(&output));
    assert!(text(&output).contains("MessagePack"));

    let by_path = json_lines(&vayu(&["ls", "--json"], directory.path()))[0]["path"].clone();
    let path = by_path.as_str().expect("a path").to_owned();
    assert!(vayu(&["show", &path, "--json"], directory.path()).status.success());

    let missing = vayu(&["show", "nothing"], directory.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stdout.is_empty());
}

#[test]
fn stats_count_by_function() {
    let directory = temporary_cache();
    let lines = json_lines(&vayu(&["stats", "--json"], directory.path()));
    let stock = lines.iter().find(|line| line["function"] == "shop::stock").expect("a function");
    assert_eq!((&stock["entries"], &stock["expired"]), (&2.into(), &1.into()));
    let table = text(&vayu(&["stats"], directory.path()));
    assert!(table.contains("shop::rates") && table.contains("all"), "{table}");
}

#[test]
fn verify_finds_corrupt_entries() {
    let directory = temporary_cache();
    let output = vayu(&["verify"], directory.path());
    assert!(output.status.success());
    assert!(text(&output).contains("4 entries") && text(&output).contains("0 corrupt"));

    damage(&entries(directory.path())[0]);
    let output = vayu(&["verify"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("wrong checksum"), "{}", text(&output));
    let lines = json_lines(&vayu(&["verify", "--json"], directory.path()));
    assert_eq!(lines.last().expect("a summary")["corrupt"], 1);
}

#[test]
fn purge_removes_matching_entries_only() {
    let directory = temporary_cache();
    let left = || entries(directory.path()).len();
    let output = vayu(&["purge", "--expired", "--dry-run"], directory.path());
    assert!(output.status.success() && text(&output).starts_with("would remove 1 entries"));
    assert_eq!(left(), 4);
    assert!(vayu(&["purge", "--expired"], directory.path()).status.success());
    assert_eq!(left(), 3);
    assert!(
        vayu(&["purge", "--function", "rates", "--older-than", "1h"], directory.path())
            .status
            .success()
    );
    assert_eq!(left(), 3, "none of them is older than an hour");
    damage(&entries(directory.path())[0]);
    assert!(vayu(&["purge", "--corrupt"], directory.path()).status.success());
    assert_eq!(left(), 2);
    assert!(vayu(&["purge", "--all"], directory.path()).status.success());
    assert_eq!(left(), 0);
    assert!(FileCache::open(directory.path()).is_ok(), "it is still a cache");
}

#[test]
fn failure_prints_an_error_and_exits_with_two() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("notes.txt"), "notes").expect("write");
    for (arguments, path) in [
        (&["ls"][..], directory.path().to_owned()),
        (&["purge", "--all"], directory.path().to_owned()),
        (&["ls"], directory.path().join("nowhere")),
        (&["purge"], directory.path().to_owned()),
        (&["purge", "--older-than", "soon"], directory.path().to_owned()),
    ] {
        let output = vayu(arguments, &path);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    assert_eq!(std::fs::read(directory.path().join("notes.txt")).expect("the notes"), b"notes");
}
