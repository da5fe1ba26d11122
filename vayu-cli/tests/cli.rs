//! The program as people and scripts use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;
use vayu_core::testing::ManualClock;
use vayu_core::{Clock, Key, SystemClock, Timestamp};
use vayu_file::{FileCache, FileOptions};

/// A directory with two functions: three entries that are fresh, one that has expired.
fn directory() -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(place.path()).expect("a cache");
    for base in ["EUR", "USD"] {
        let key = Key::from_text("shop::rates", base);
        cache.set(&key, &(base.to_owned(), 1.5), Duration::MAX).expect("write");
    }
    let key = Key::new("shop::stock", &(7_u8,)).expect("a key");
    cache.set(&key, &vec!["screws".to_owned()], Duration::from_secs(3600)).expect("write");
    // By a clock that is two hours late.
    let clock = ManualClock::new();
    clock.set(Timestamp::from_micros(SystemClock.now().as_micros() - 7_200_000_000));
    let late = FileOptions::new().clock(clock).open(place.path()).expect("a cache");
    let key = Key::from_text("shop::stock", "old");
    late.set(&key, &1_u8, Duration::from_secs(3600)).expect("write");
    place
}

fn vayu(arguments: &[&str], place: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vayu"))
        .arg(arguments[0])
        .arg(place)
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

fn entries(place: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(place).expect("a directory").flatten();
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
    let place = directory();
    let output = vayu(&["ls"], place.path());
    assert!(output.status.success());
    let lines = text(&output);
    assert_eq!(lines.lines().count(), 1 + 4, "{lines}");
    assert!(lines.contains("shop::rates:EUR") && lines.contains("for ever"), "{lines}");
    assert!(lines.contains("expired"), "{lines}");

    let rates = json_lines(&vayu(&["ls", "--function", "rates", "--json"], place.path()));
    assert_eq!(rates.len(), 2);
    assert!(rates.iter().all(|entry| entry["function"] == "shop::rates"), "{rates:?}");
    assert!(rates.iter().all(|entry| entry["expires"].is_null() && entry["state"] == "fresh"));
    let none = json_lines(&vayu(&["ls", "--function", "ates", "--json"], place.path()));
    assert!(none.is_empty(), "a part of a name is not the name");
}

#[test]
fn show_prints_the_value() {
    let place = directory();
    let output = vayu(&["show", "shop::rates:EUR"], place.path());
    assert!(output.status.success());
    assert!(text(&output).contains(r#"["EUR", 1.5]"#), "{}", text(&output));
    assert!(text(&output).contains("MessagePack"));

    let by_path = json_lines(&vayu(&["ls", "--json"], place.path()))[0]["path"].clone();
    let path = by_path.as_str().expect("a path").to_owned();
    assert!(vayu(&["show", &path, "--json"], place.path()).status.success());

    let missing = vayu(&["show", "nothing"], place.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stdout.is_empty());
}

#[test]
fn stats_count_by_function() {
    let place = directory();
    let lines = json_lines(&vayu(&["stats", "--json"], place.path()));
    let stock = lines.iter().find(|line| line["function"] == "shop::stock").expect("a function");
    assert_eq!((&stock["entries"], &stock["expired"]), (&2.into(), &1.into()));
    let table = text(&vayu(&["stats"], place.path()));
    assert!(table.contains("shop::rates") && table.contains("all"), "{table}");
}

#[test]
fn verify_finds_corrupt_entries() {
    let place = directory();
    let output = vayu(&["verify"], place.path());
    assert!(output.status.success());
    assert!(text(&output).contains("4 entries") && text(&output).contains("0 damaged"));

    damage(&entries(place.path())[0]);
    let output = vayu(&["verify"], place.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("its checksum is wrong"), "{}", text(&output));
    let lines = json_lines(&vayu(&["verify", "--json"], place.path()));
    assert_eq!(lines.last().expect("a summary")["damaged"], 1);
}

#[test]
fn purge_removes_matching_entries_only() {
    let place = directory();
    let left = || entries(place.path()).len();
    let output = vayu(&["purge", "--expired", "--dry-run"], place.path());
    assert!(output.status.success() && text(&output).starts_with("would remove 1 entries"));
    assert_eq!(left(), 4);
    assert!(vayu(&["purge", "--expired"], place.path()).status.success());
    assert_eq!(left(), 3);
    assert!(
        vayu(&["purge", "--function", "rates", "--older-than", "1h"], place.path())
            .status
            .success()
    );
    assert_eq!(left(), 3, "none of them is older than an hour");
    damage(&entries(place.path())[0]);
    assert!(vayu(&["purge", "--damaged"], place.path()).status.success());
    assert_eq!(left(), 2);
    assert!(vayu(&["purge", "--all"], place.path()).status.success());
    assert_eq!(left(), 0);
    assert!(FileCache::open(place.path()).is_ok(), "it is a cache still");
}

#[test]
fn failure_prints_an_error_and_exits_with_two() {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::write(place.path().join("letter.txt"), "dear").expect("write");
    for (arguments, path) in [
        (&["ls"][..], place.path().to_owned()),
        (&["purge", "--all"], place.path().to_owned()),
        (&["ls"], place.path().join("nowhere")),
        (&["purge"], place.path().to_owned()),
        (&["purge", "--older-than", "soon"], place.path().to_owned()),
    ] {
        let output = vayu(arguments, &path);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    assert_eq!(std::fs::read(place.path().join("letter.txt")).expect("the letter"), b"dear");
}
