//! The program, run with arguments.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use vayu_core::testing::ManualClock;
use vayu_core::{Backend, Clock, Key, Record, SystemClock, Timestamp};
use vayu_file::{FileCache, FileOptions};

/// Creates a directory with two functions: three fresh entries, and an expired one.
fn temporary_cache() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(directory.path()).expect("a cache");
    for base in ["EUR", "USD"] {
        let key = Key::from_text("shop::rates", base);
        cache.set(&key, &(base.to_owned(), 1.5), Duration::MAX).expect("write");
    }
    let key =
        Key::new("shop::stock", &(7_u8, "steel")).expect("a key").with_label("seven\u{1b}[31m");
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

fn vayu_without_directory(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vayu-cache"))
        .args(arguments)
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
    assert!(
        lines.contains("shop::stock [seven\\u{1b}[31m]"),
        "control characters are escaped: {lines}"
    );
    let closing = String::from_utf8(output.stderr).expect("text");
    assert!(closing.starts_with("4 entries, ") && closing.contains("headers only"), "{closing}");

    let rates = json_lines(&vayu(&["ls", "--function", "rates", "--json"], directory.path()));
    assert_eq!(rates.len(), 2);
    assert!(rates.iter().all(|entry| entry["function"] == "shop::rates"), "{rates:?}");
    assert!(rates.iter().all(|entry| entry["expires"].is_null() && entry["state"] == "fresh"));
    let none = json_lines(&vayu(&["ls", "--function", "ates", "--json"], directory.path()));
    assert!(none.is_empty(), "a suffix must begin after `::`");
    let two = vayu(&["ls", "--limit", "2", "--json"], directory.path());
    assert_eq!(json_lines(&two).len(), 2);
    assert!(String::from_utf8_lossy(&two.stderr).contains("stopped at the limit"));
}

#[test]
fn json_has_times_and_the_names_that_help_documents() {
    let directory = temporary_cache();
    let lines = json_lines(&vayu(&["ls", "--json"], directory.path()));
    let help = text(&vayu_without_directory(&["ls", "--help"]));
    for line in &lines {
        let object = line.as_object().expect("an object");
        for name in object.keys() {
            assert!(help.contains(name.trim_end_matches("_us")), "{name} is not documented");
        }
        let created = line["created"].as_str().expect("a time");
        let parsed = humantime::parse_rfc3339(created).expect("RFC 3339");
        let micros = parsed.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros();
        assert_eq!(u128::from(line["created_us"].as_u64().expect("a number")), micros);
        assert_eq!(line["expires"].is_null(), line["expires_us"].is_null());
        assert_eq!(line["digest"].as_str().expect("a digest").len(), 64);
    }
    let stock = lines.iter().find(|line| !line["label"].is_null()).expect("a label");
    assert_eq!(stock["label"], "seven\u{1b}[31m");
    let shown =
        vayu(&["show", stock["digest"].as_str().expect("a digest"), "--json"], directory.path());
    assert_eq!(json_lines(&shown)[0]["value"], serde_json::json!(["screws"]));
}

#[test]
fn show_takes_every_name_of_an_entry() {
    let directory = temporary_cache();
    let entries = json_lines(&vayu(&["ls", "--json"], directory.path()));
    let stock = entries.iter().find(|line| !line["label"].is_null()).expect("a label");
    let of = |name: &str| stock[name].as_str().expect("a string").to_owned();
    let digest = of("digest");
    for name in [
        &*of("key"),
        &of("path"),
        &of("call"),
        &of("label"),
        &digest,
        &digest[..40],
        &digest[..12],
        &digest[..12].to_uppercase(),
        "shop::stock [se",
        "stock [seven",
        "seven",
    ] {
        let output = vayu(&["show", name, "--json"], directory.path());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(json_lines(&output)[0]["digest"], digest.as_str(), "{name}");
    }
    for name in ["rates", "shop::rates", "shop::rates:", "rates:", "shop"] {
        let output = vayu(&["show", name], directory.path());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        let listed = String::from_utf8(output.stderr).expect("text");
        let count = if name == "shop" { 4 } else { 2 };
        assert!(listed.contains(&format!("{count} entries match `{name}`")), "{listed}");
        assert!(
            listed.contains("shop::rates:EUR") && listed.contains("shop::rates:USD"),
            "{listed}"
        );
    }
    assert!(
        vayu(&["show", "rates:EUR"], directory.path()).status.success(),
        "the call without modules"
    );
}

#[test]
fn show_of_a_key_reads_no_other_directory() {
    let directory = temporary_cache();
    let lines = json_lines(&vayu(&["ls", "--json"], directory.path()));
    let entry = lines.iter().find(|line| line["key"] == "shop::rates:EUR").expect("an entry");
    let path = entry["path"].as_str().expect("a path").to_owned();
    for shard in
        (0..256).map(|shard| format!("{shard:02x}")).filter(|shard| !path.starts_with(shard))
    {
        let shard = directory.path().join(shard);
        let _ = std::fs::remove_dir_all(&shard);
        std::fs::write(shard, "a file in the place of a directory").expect("write");
    }
    let digest = entry["digest"].as_str().expect("a digest");
    for name in ["shop::rates:EUR", &path, digest, &digest[..12]] {
        let output = vayu(&["show", name, "--json"], directory.path());
        assert_eq!(json_lines(&output)[0]["path"], path.as_str(), "{name}");
    }
    let search = vayu(&["show", "rates:EUR"], directory.path());
    assert_eq!(search.status.code(), Some(2), "a search reads all of them");
}

#[test]
fn redacted_output_has_no_arguments_and_no_values() {
    let directory = temporary_cache();
    let digest = json_lines(&vayu(&["ls", "--json"], directory.path()))[0]["digest"].clone();
    let digest = digest.as_str().expect("a digest");
    for arguments in [
        &["ls", "--redact"][..],
        &["ls", "--redact", "--json"],
        &["show", digest, "--redact"],
        &["show", digest, "--redact", "--json"],
        &["show", "shop", "--redact"],
        &["stats", "--redact"],
        &["verify", "--redact"],
    ] {
        let output = vayu(arguments, directory.path());
        let all = [output.stdout, output.stderr].concat();
        let all = String::from_utf8(all).expect("text");
        for secret in ["EUR", "USD", "seven", "steel", "screws", "old"] {
            assert!(!all.contains(secret), "{arguments:?} shows {secret}: {all}");
        }
        assert!(arguments[0] == "verify" || all.contains("shop::"), "{arguments:?}: {all}");
    }
}

#[test]
fn entry_with_a_corrupt_header_is_listed_as_corrupt() {
    let directory = temporary_cache();
    let path = &entries(directory.path())[0];
    let mut bytes = std::fs::read(path).expect("an entry");
    bytes[30] ^= 1;
    std::fs::write(path, bytes).expect("write");
    let lines = text(&vayu(&["ls"], directory.path()));
    assert!(lines.contains("corrupt header"), "{lines}");
    let lines = json_lines(&vayu(&["ls", "--json"], directory.path()));
    assert_eq!(lines.iter().filter(|line| line["state"] == "corrupt").count(), 1);
    // A corrupt value is not seen by reading headers.
    damage(&entries(directory.path())[1]);
    let lines = json_lines(&vayu(&["ls", "--json"], directory.path()));
    assert_eq!(lines.iter().filter(|line| line["state"] == "corrupt").count(), 1);
}

#[test]
fn purge_of_a_key_removes_one_entry() {
    let directory = temporary_cache();
    let left = || entries(directory.path()).len();
    let several = vayu(&["purge", "--key", "rates"], directory.path());
    assert_eq!((several.status.code(), left()), (Some(1), 4));
    let dry = vayu(&["purge", "--key", "shop::rates:EUR", "--dry-run"], directory.path());
    assert!(dry.status.success() && text(&dry).starts_with("would remove 1 entries"));
    assert_eq!(left(), 4);
    assert!(vayu(&["purge", "--key", "shop::rates:EUR"], directory.path()).status.success());
    assert_eq!(left(), 3);
    assert_eq!(
        vayu(&["purge", "--key", "shop::rates:EUR"], directory.path()).status.code(),
        Some(1)
    );
}

#[test]
fn purge_of_a_tag_invalidates_its_entries() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(directory.path()).expect("a cache");
    let key = |name: &str| Key::from_text("f", name).with_tags([name]);
    for name in ["one", "two"] {
        cache.set(&key(name), &1_u8, Duration::MAX).expect("write");
    }
    let dry = vayu(&["purge", "--tag", "one", "--dry-run"], directory.path());
    assert!(dry.status.success());
    assert_eq!(cache.get::<u8>(&key("one")).expect("read"), Some(1));
    let output = vayu(&["purge", "--tag", "one", "--json"], directory.path());
    assert_eq!(json_lines(&output), [serde_json::json!({ "tag": "one", "invalidated": true })]);
    assert_eq!(cache.get::<u8>(&key("one")).expect("read"), None);
    assert_eq!(cache.get::<u8>(&key("two")).expect("read"), Some(1));
}

#[test]
fn help_of_every_command_has_an_example() {
    for command in ["ls", "show", "stats", "verify", "purge"] {
        let help = text(&vayu_without_directory(&[command, "--help"]));
        assert!(help.contains(&format!("vayu-cache {command} /var")), "{help}");
    }
    assert!(text(&vayu_without_directory(&["ls", "--help"])).contains("Only headers are read"));
}

#[test]
fn file_url_is_a_directory() {
    let directory = temporary_cache();
    let url = format!("file://{}?max_bytes=1GiB", directory.path().display());
    assert!(vayu_without_directory(&["ls", &url]).status.success());
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

    let cache = FileCache::open(directory.path()).expect("a cache");
    let key = |n: u8| Key::new("shop::slow", &(n,)).expect("a key");
    let now = SystemClock.now();
    for (n, ttl) in [(1, 3600), (2, 3600), (3, 0)] {
        let record = Record::new(
            Bytes::from_static(b"\x01"),
            now,
            now.saturating_add(Duration::from_secs(ttl)),
        )
        .with_compute_time(Duration::from_millis(250));
        cache.backend().write(&key(n), record).expect("write");
    }
    let lines = json_lines(&vayu(&["stats", "--json"], directory.path()));
    let slow = lines.iter().find(|line| line["function"] == "shop::slow").expect("a function");
    let saved = slow["compute_time_us"].as_u64().expect("a number");
    assert!((499_000..501_000).contains(&saved), "the expired value saves nothing: {slow}");
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

#[cfg(unix)]
#[test]
fn entry_that_is_unreadable_or_unsupported_is_not_corrupt() {
    let directory = temporary_cache();
    let paths = entries(directory.path());
    // A symbolic link is not followed.
    let moved = directory.path().join("moved");
    std::fs::rename(&paths[0], &moved).expect("move");
    std::os::unix::fs::symlink(&moved, &paths[0]).expect("a link");
    // The major version of the format.
    let mut bytes = std::fs::read(&paths[1]).expect("an entry");
    bytes[8] = 99;
    std::fs::write(&paths[1], bytes).expect("write");
    let states = || {
        let lines = json_lines(&vayu(&["ls", "--json"], directory.path()));
        let mut states: Vec<_> = lines.iter().map(|line| line["state"].clone()).collect();
        states.sort_by_key(ToString::to_string);
        states
    };
    let before = states();
    assert!(vayu(&["purge", "--corrupt"], directory.path()).status.success());
    assert_eq!(states(), before);
    let count = |name: &str| before.iter().filter(|&state| state == name).count();
    assert_eq!((count("unreadable"), count("unsupported")), (1, 1), "{before:?}");
    let verified = vayu(&["verify", "--json"], directory.path());
    assert_eq!(verified.status.code(), Some(1));
    let summary = json_lines(&verified).pop().expect("a summary");
    assert_eq!((&summary["corrupt"], &summary["unverified"]), (&0.into(), &2.into()));
}

#[test]
fn purge_of_a_key_needs_the_whole_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(directory.path()).expect("a cache");
    let key = Key::from_text("golden", "JSON").with_label("a label");
    cache.set(&key, &1_u8, Duration::MAX).expect("write");
    let entry = json_lines(&vayu(&["ls", "--json"], directory.path())).remove(0);
    let of = |name: &str| entry[name].as_str().expect("a string").to_owned();
    let (digest, path) = (of("digest"), of("path"));
    for part in ["golden:JS", "golden", "a lab", &digest[..7], &path[..3], &path[..8]] {
        let output = vayu(&["purge", "--key", part], directory.path());
        assert_eq!((output.status.code(), entries(directory.path()).len()), (Some(1), 1), "{part}");
        let errors = String::from_utf8(output.stderr).expect("text");
        let is_listed = errors.contains(&digest[..12]) && errors.contains("[a label]");
        assert!(is_listed || part == &digest[..7], "{part}: {errors}");
    }
    for whole in
        [&*of("key"), &of("call"), "a label", &path, &digest, &digest[..8], &path[..path.len() - 3]]
    {
        cache.set(&key, &1_u8, Duration::MAX).expect("write");
        let output = vayu(&["purge", "--key", whole], directory.path());
        assert_eq!(
            (output.status.code(), entries(directory.path()).len()),
            (Some(0), 0),
            "{whole}"
        );
    }
}

#[test]
fn purge_goes_on_after_an_entry_that_cannot_be_removed() {
    let directory = temporary_cache();
    let first = entries(directory.path()).into_iter().min().expect("an entry");
    std::fs::remove_file(&first).expect("remove");
    std::fs::create_dir(&first).expect("a directory");
    let shard = (0..256)
        .map(|shard| directory.path().join(format!("{shard:02x}")))
        .find(|shard| !shard.exists())
        .expect("a shard without entries");
    std::fs::write(&shard, "a file in the place of a directory").expect("write");
    let listed = vayu(&["ls", "--json"], directory.path());
    assert_eq!((listed.status.code(), json_lines(&listed).len()), (Some(2), 4));
    let output = vayu(&["purge", "--all", "--json"], directory.path());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    let summary = &json_lines(&output)[0];
    assert_eq!((&summary["entries"], &summary["failed"]), (&3.into(), &2.into()), "{summary}");
    assert!(errors.contains("2 errors"), "{errors}");
    std::fs::remove_file(shard).expect("remove");
    assert_eq!(entries(directory.path()), [first]);
}

#[test]
fn url_of_the_library_is_accepted() {
    let directory = temporary_cache();
    let spaced = directory.path().join("my cache");
    drop(FileCache::open(&spaced).expect("a cache"));
    let path = directory.path().display();
    for url in [
        format!("memory+file://{path}?memory_max_entries=5&near_ttl=1s&max_bytes=1GiB"),
        format!("memory+file:{path}"),
        format!("file://{path}/my%20cache"),
    ] {
        let output = vayu_without_directory(&["ls", &url]);
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for (url, message) in [
        ("memory:", "in memory"),
        ("off:", "off"),
        ("file://host/path", "no host"),
        ("file:///a%2", "percent-encoding"),
    ] {
        let output = vayu_without_directory(&["ls", url]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(errors.contains(message), "{url}: {errors}");
    }
}

#[cfg(all(feature = "lz4", feature = "seal", feature = "zstd"))]
#[test]
fn show_unpacks_values_and_opens_sealed_ones_with_their_key() {
    use vayu_core::{Compressed, MessagePack, SealKeys, Sealed};

    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(directory.path()).expect("a cache");
    let value = vec!["screws".to_owned(); 100];
    let key = |name| Key::from_text("stock", name);
    let compressed = cache.clone().with_serializer(Compressed::lz4(MessagePack));
    compressed.set(&key("compressed"), &value, Duration::MAX).expect("write");
    let keys = || SealKeys::new([7; 32]);
    let both = cache.clone().with_serializer(Sealed::new(keys(), Compressed::zstd(MessagePack)));
    both.set(&key("both"), &value, Duration::MAX).expect("write");
    let of_tenant = Sealed::new(keys().with_context("a"), MessagePack);
    let of_tenant = cache.clone().with_serializer(of_tenant);
    of_tenant.set(&key("tenant"), &value, Duration::MAX).expect("write");
    let plain = cache.clone();
    plain.set(&key("plain"), &value, Duration::MAX).expect("write");
    let last = cache.clone().with_serializer(Compressed::lz4(Sealed::new(keys(), MessagePack)));
    last.set(&key("compressed last"), &value, Duration::MAX).expect("write");
    let sealed = cache.with_serializer(Sealed::new(keys(), MessagePack));
    sealed.set(&key("sealed"), &value, Duration::MAX).expect("write");

    let show = |name: &str, arguments: &[&str]| {
        let secret = "07".repeat(32);
        let output = Command::new(env!("CARGO_BIN_EXE_vayu-cache"))
            .args([&["show", "--json"], arguments].concat())
            .arg(format!("file:{}?seal=env:URL_KEY", directory.path().display()))
            .arg(format!("stock:{name}"))
            .envs([
                ("CACHE_KEY", &*secret),
                ("OTHER_KEY", &*"08".repeat(32)),
                ("URL_KEY", &*secret),
            ])
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        json_lines(&output).remove(0)
    };
    let expected = serde_json::json!(value);
    for (name, serializer) in [
        ("compressed", "MessagePack, compressed"),
        ("sealed", "MessagePack, sealed"),
        ("both", "MessagePack, compressed, sealed"),
        ("compressed last", "MessagePack, compressed, sealed"),
    ] {
        for arguments in [&[][..], &["--seal", "env:CACHE_KEY"]] {
            let shown = show(name, arguments);
            assert_eq!((&shown["value"], &shown["serializer"]), (&expected, &serializer.into()));
        }
    }
    assert_eq!(show("tenant", &["--seal-context", "a"])["value"], expected);
    assert!(show("tenant", &[])["value_error"].is_string());
    // The variable is not needed.
    assert_eq!(show("plain", &["--seal", "env:NO_SUCH_VARIABLE"])["value"], expected);
    let shown = show("both", &["--seal", "env:OTHER_KEY"]);
    assert_eq!(shown["value_error"], "open sealed value: its key is not one of these");
    assert!(shown.get("value").is_none() && shown.get("value_base64").is_none());
    for name in ["compressed", "both"] {
        let shown = show(name, &["--max-bytes", "400"]);
        assert_eq!(shown["value_error"], "a compressed value exceeds the limit on entries");
    }
    let output = vayu(&["show", "stock:plain", "--max-bytes", "400"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("longer than 400 bytes") && !shown.contains("screws"), "{shown}");
    let text = text(&vayu(&["show", "stock:sealed"], directory.path()));
    assert!(text.contains("serializer  MessagePack, sealed\n"), "{text}");
    assert!(text.contains("\nsealed (") && text.contains("--seal env:NAME"), "{text}");
    for seal in ["secret", "env:", "env:NO_SUCH_VARIABLE"] {
        let output = vayu(&["show", "stock:sealed", "--seal", seal], directory.path());
        assert_eq!(output.status.code(), Some(2), "{seal}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"));
    }
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
