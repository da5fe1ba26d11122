//! Fleets of 10, 100 and 1,000 nodes in one process, before a model of a Redis server: connections, commands, bytes and
//! messages, which the tests print and limit. Time is a [`ManualClock`].
//!
//! ```sh
//! VAYU_NODES=1000 cargo test -p vayu-tests --test scale -- --nocapture
//! ```

#![cfg(unix)]

mod fleet;
mod model_server;

use std::sync::Mutex;
use std::time::Duration;

use vayu::testing::watchdog;

use crate::fleet::Fleet;
use crate::model_server::Counts;

/// Time after which a test counts as hanging.
const HANG: Duration = Duration::from_secs(600);

/// One fleet at a time, so that each has the machine for itself.
static TURN: Mutex<()> = Mutex::new(());

/// Prints a row of the table, and returns the counts for each node, rounded up.
fn report(scenario: &str, fleet: &Fleet, runs: u64, counts: Counts) -> Counts {
    let nodes = fleet.len() as u64;
    let Counts { opened, commands, bytes, messages } = counts;
    let (tenths, kib) = (10 * commands / nodes, bytes / 1024);
    let each = format!("{}.{}", tenths / 10, tenths % 10);
    println!(
        "| {nodes} | {scenario} | {runs} | {commands} | {each} | {kib} | {messages} | {opened} |"
    );
    let each = |count: u64| count.div_ceil(nodes);
    Counts {
        opened: each(opened),
        commands: each(commands),
        bytes: each(bytes),
        messages: each(messages),
    }
}

/// Runs all scenarios with this number of nodes.
fn simulate(nodes: usize) {
    let _turn = TURN.lock();
    watchdog(HANG, move || {
        println!("| nodes | | runs | commands | for each node | KiB | messages | connections |");
        println!("|--:|---|--:|--:|--:|--:|--:|--:|");
        let fleet = Fleet::start(nodes);

        let counts = fleet.measure(|| fleet.connect());
        let each = report("start: each node subscribes", &fleet, 0, counts);
        assert_eq!(fleet.connections(), 2 * nodes, "two for each node");
        assert!(each.commands <= 12, "{each:?}");

        // The source takes a second. Nodes that wait are notified.
        let counts = fleet.measure(|| fleet.call_all(0, Duration::from_secs(1)));
        let each = report("cold hot key, source takes 1 s", &fleet, fleet.runs(0), counts);
        assert_eq!(fleet.runs(0), 1, "one run in all");
        // A node that acquires the lease right after its release finds the value, and notifies those that wait for it.
        assert!(each.commands <= 16 && each.messages <= 4, "{each:?}");

        let counts = fleet.measure(|| fleet.call_all(0, Duration::ZERO));
        report("the same key from memory", &fleet, 0, counts);
        assert_eq!((counts.commands, counts.messages), (0, 0));

        let (calls, keys) = (200, 100);
        let counts = fleet.measure(|| fleet.zipf(calls, keys));
        let runs = (1..=keys).map(|n| fleet.runs(n)).sum();
        let each = report("200 calls of each node, zipf, 100 keys", &fleet, runs, counts);
        assert!((1..=keys).all(|n| fleet.runs(n) <= 1), "one run for each key");
        // A node reads a key once, and perhaps has to wait for its lease.
        assert!(each.commands <= 8 * keys, "{each:?}");

        let counts = fleet.measure(|| fleet.zipf(calls, keys));
        let again: u64 = (1..=keys).map(|n| fleet.runs(n)).sum();
        report("the same calls again", &fleet, again - runs, counts);
        assert!(again - runs <= keys, "keys that no node has called before");

        let counts = fleet.measure(|| {
            fleet.change(0);
            fleet.invalidate(0);
            fleet.call_until_current(0);
        });
        let each = report("invalidation of one key", &fleet, fleet.runs(0) - 1, counts);
        assert_eq!(fleet.runs(0), 2, "one run in all");
        // The removal, and releases.
        assert!(each.commands <= 16 && each.messages <= 5, "{each:?}");

        let counts = fleet.measure(|| {
            fleet.cut_all();
            fleet.lose_data();
            fleet.call_all(0, Duration::ZERO);
            assert_eq!(fleet.runs(0), 2, "memory serves without the server");
            fleet.heal_all();
            fleet.call_all(0, Duration::ZERO);
        });
        report("restart of the server, empty", &fleet, fleet.runs(0) - 2, counts);
        assert_eq!(fleet.runs(0), 3, "one run in all");
        assert_eq!(fleet.connections(), 2 * nodes);

        let before = fleet.runs(0);
        let counts = fleet.measure(|| {
            fleet.cut_third();
            fleet.change(0);
            fleet.invalidate(0);
            fleet.call_until_current(0);
            assert_eq!(fleet.runs(0), before + 1, "one run of those that reach the server");
            // The others serve their copies no longer than `near_ttl`, and then compute.
            fleet.advance(fleet::NEAR_TTL);
            fleet.assert_current(0);
        });
        let runs = fleet.runs(0) - before;
        report("partition of a third, one key changes", &fleet, runs, counts);
        assert!(runs <= 1 + fleet.cut_off() as u64, "one run of each node that is cut off: {runs}");

        let counts = fleet.measure(|| {
            fleet.heal_all();
            fleet.call_all(0, Duration::ZERO);
        });
        report("end of the partition", &fleet, fleet.runs(0) - before - runs, counts);
        assert_eq!(fleet.runs(0), before + runs, "the value is on the server");
        fleet.assert_current(0);

        assert_eq!(fleet.unknown_commands(), [""; 0]);
        // Entries and generations, no leases.
        assert!(fleet.values() as u64 <= 2 * keys, "{}", fleet.values());
    });
}

#[test]
fn fleet_of_10_nodes() {
    simulate(10);
}

#[test]
fn fleet_of_100_nodes() {
    simulate(100);
}

/// A fleet of as many nodes as the environment variable says.
#[test]
fn fleet_of_any_number_of_nodes() {
    if let Ok(nodes) = std::env::var("VAYU_NODES") {
        simulate(nodes.parse().expect("`VAYU_NODES` must be a number"));
    }
}
