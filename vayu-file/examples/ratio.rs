//! Times a hit and a write against the standard library, in one run: `cargo run --release -p vayu-file --example ratio`.
//!
//! The standard library reads a file of the same length, and writes one under another name and renames it.

use std::time::{Duration, Instant};
use std::{fs, io};

use bytes::Bytes;
use vayu_core::{Backend, Clock, Key, Record, Result, SystemClock};
use vayu_file::FileOptions;

const FILES: u32 = 200;
const ROUNDS: u32 = 5;

fn main() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileOptions::new().open(directory.path().join("cache"))?;
    let plain = directory.path().join("plain");
    fs::create_dir(&plain).expect("a directory");
    let value = Bytes::from(vec![7; 1000]);

    let keys: Vec<Key> = (0..FILES).map(|n| Key::from_text("ratio", n.to_string())).collect();
    let record = || {
        let now = SystemClock.now();
        Record::new(value.clone(), now, now.saturating_add(Duration::from_secs(3600)))
    };
    let write = |key: &Key| cache.backend().write(key, record());
    let read = |key: &Key| cache.backend().read(key).map(|found| found.expect("an entry"));
    let write_plain = |key: &Key| -> io::Result<()> {
        let path = plain.join(key.to_string().replace(['/', ':'], "-"));
        fs::write(path.with_extension("tmp"), &value)?;
        fs::rename(path.with_extension("tmp"), path)
    };
    let read_plain = |key: &Key| fs::read(plain.join(key.to_string().replace(['/', ':'], "-")));

    // In turn, so that both have the same load of the machine.
    let mut times = [Duration::ZERO; 4];
    for _ in 0..ROUNDS {
        times[0] += time(&keys, write);
        times[1] += time(&keys, write_plain);
        times[2] += time(&keys, read);
        times[3] += time(&keys, read_plain);
    }
    for (name, ours, plain) in [("write", times[0], times[1]), ("hit", times[2], times[3])] {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(FILES * ROUNDS);
        println!(
            "{name}: {:.0} µs, {:.1} times the {:.0} µs of the standard library",
            each(ours),
            ours.as_secs_f64() / plain.as_secs_f64(),
            each(plain)
        );
    }
    Ok(())
}

/// Returns the time of an operation on all keys.
fn time<T, E: std::fmt::Debug>(keys: &[Key], operation: impl Fn(&Key) -> Result<T, E>) -> Duration {
    let began = Instant::now();
    for key in keys {
        operation(key).expect("the directory can be used");
    }
    began.elapsed()
}
