//! Processes that share a directory as an object store.

use std::path::Path;
use std::sync::Arc;

use vayu::backend::object_store::local::LocalFileSystem;
use vayu::testing::watchdog;
use vayu::{ObjectCache, ObjectOptions, SingleFlight, cached};

use crate::process::{self, Process};
use crate::{HANG, cache_with};

const PROCESSES: usize = 3;
const CALLS: u64 = 30;

fn open(place: &Path) -> ObjectCache {
    let store = Arc::new(LocalFileSystem::new_with_prefix(place).expect("a directory"));
    cache_with(&store, ObjectOptions::new().single_flight(SingleFlight::Everywhere))
}

/// A value that names its key and its process.
#[cached(cache = cache, ttl = "1h", prefix = "shared", skip(cache), tags("n:{n}"))]
fn value(cache: &ObjectCache, n: u64) -> (u64, u32, String) {
    (n, std::process::id(), "x".repeat(100_000))
}

#[test]
fn processes_share_entries_leases_and_invalidations() {
    if let Some(place) = process::role() {
        let cache = open(Path::new(&place));
        process::serve(|line| match line.split_once(' ') {
            Some(("call", n)) => {
                let n: u64 = n.parse().unwrap();
                let (of, process, text) = value(&cache, n);
                assert!(of == n && text.len() == 100_000);
                process.to_string()
            }
            Some(("invalidate", n)) => {
                cache.invalidate_tag(format!("n:{n}")).unwrap();
                "done".to_owned()
            }
            _ => format!("{} {}", cache.stats().misses, cache.stats().errors),
        });
        return;
    }
    watchdog(HANG, || {
        let place = tempfile::tempdir().unwrap();
        let test = "processes::processes_share_entries_leases_and_invalidations";
        let role = place.path().to_str().unwrap();
        let mut processes: Vec<_> = (0..PROCESSES).map(|_| Process::start(test, role)).collect();
        let all = |processes: &mut Vec<Process>, n: u64| {
            for process in processes.iter_mut() {
                process.send(&format!("call {n}"));
            }
            let of: Vec<_> = processes.iter_mut().map(Process::receive).collect();
            assert!(of.iter().all(|process| *process == of[0]), "one computes for all: {of:?}");
        };
        for n in 0..CALLS {
            all(&mut processes, n);
        }
        processes[0].ask("invalidate 0");
        all(&mut processes, 0);
        let stats = processes.iter_mut().map(|process| process.ask("stats"));
        let stats: Vec<_> = stats
            .map(|stats| {
                let (misses, errors) = stats.split_once(' ').unwrap();
                (misses.parse::<u64>().unwrap(), errors.parse::<u64>().unwrap())
            })
            .collect();
        assert_eq!(stats.iter().map(|stats| stats.0).sum::<u64>(), CALLS + 1, "{stats:?}");
        assert!(stats.iter().all(|stats| stats.1 == 0), "{stats:?}");
    });
}
