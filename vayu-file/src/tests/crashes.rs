//! All states that a power loss may leave.

use vayu_core::wire::WireKey;

use super::*;
use crate::layout::EntryPath;
use crate::options::Durability;

/// An operation on one of two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Write(usize, &'static str),
    Delete(usize),
    Clear,
}

const STEPS: [Step; 6] = [
    Step::Write(0, "a new value"),
    Step::Write(0, "another value of another length"),
    Step::Write(1, "a value of the other key"),
    Step::Delete(0),
    Step::Delete(1),
    Step::Clear,
];

/// The values that each key may have: all since the last one that is durable.
struct Expected([Vec<Option<&'static str>>; 2]);

impl Expected {
    fn take(&mut self, step: Step, durability: Durability) {
        let mut set = |key: usize, value| {
            if durability == Durability::Synced {
                self.0[key].clear();
            }
            self.0[key].push(value);
        };
        match step {
            Step::Write(key, value) => set(key, Some(value)),
            Step::Delete(key) => set(key, None),
            Step::Clear => [0, 1].into_iter().for_each(|key| set(key, None)),
        }
        if durability != Durability::Synced {
            // A corrupt entry is a miss.
            self.0.iter_mut().for_each(|values| values.push(None));
        }
    }
}

/// The rules of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Unix,
    /// The entries are open while they are changed, and cannot be replaced.
    Windows,
}

fn run(steps: &[Step], durability: Durability, is_warm: bool, rules: Rules) -> usize {
    let clock = ManualClock::new();
    let options = options(&clock).durability(durability);
    let keys = [key("0"), key("1")];
    let disk = Disk::default();
    if rules == Rules::Windows {
        disk.follow_windows();
    }
    let read = |key: &Key| disk.root().open(EntryPath::of(&WireKey::new(key)).as_str());
    let backend = open(&disk, &options);
    let mut expected = Expected([vec![None], vec![None]]);
    if is_warm {
        backend.write(&keys[0], record(&clock, "an old value")).expect("write");
        expected = Expected([vec![Some("an old value")], vec![None]]);
    }
    disk.record();
    for &step in steps {
        let _readers: Vec<_> = match rules {
            Rules::Unix => vec![],
            Rules::Windows => keys.iter().map(read).collect(),
        };
        match step {
            Step::Write(key, value) => backend.write(&keys[key], record(&clock, value)),
            Step::Delete(key) => backend.delete(&keys[key]).map(|_| ()),
            Step::Clear => backend.clear(),
        }
        .expect("the disk does not fail");
        expected.take(step, durability);
    }
    let states = disk.after_power_loss();
    for state in &states {
        let backend = open(state, &options);
        for (key, expected) in keys.iter().zip(&expected.0) {
            let found = value(&backend, key);
            let found = found.as_deref().map(|bytes| std::str::from_utf8(bytes).expect("text"));
            assert!(
                expected.contains(&found),
                "{steps:?}, {durability:?}, {rules:?}: {found:?} in {state:?}"
            );
            // The cache works in every state.
            backend.write(key, record(&clock, "later")).expect("write");
            assert_eq!(value(&backend, key), Some("later".into()));
        }
    }
    states.len()
}

/// Returns all sequences of this many steps.
fn sequences(length: usize) -> Vec<Vec<Step>> {
    (0..length).fold(vec![vec![]], |sequences, _| {
        let longer = |sequence: &Vec<Step>| {
            let sequence = sequence.clone();
            STEPS.map(move |step| [&sequence[..], &[step]].concat())
        };
        sequences.iter().flat_map(longer).collect()
    })
}

#[test]
fn no_state_after_a_power_loss_contains_a_wrong_value() {
    let longest = std::env::var("VAYU_CRASH_STEPS")
        .map_or(2, |steps| steps.parse().expect("VAYU_CRASH_STEPS is a number"));
    let mut states = 0;
    for length in 1..=longest {
        for steps in sequences(length) {
            for durability in [Durability::Relaxed, Durability::Synced] {
                for is_warm in [false, true] {
                    for rules in [Rules::Unix, Rules::Windows] {
                        states += run(&steps, durability, is_warm, rules);
                    }
                }
            }
        }
    }
    println!("{states} states of sequences of up to {longest} operations");
    assert!(states > 1_000, "{states} states were tried");
}
