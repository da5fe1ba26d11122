//! What a process with memory in front learns of others, on a disk that fails.

use std::mem;
use std::sync::{Arc, Mutex, Weak};

use rustix::io::Errno;
use vayu_core::{Generations, Group, Invalidation, InvalidationFeed, InvalidationListener};

use super::*;
use crate::fs::model::Fault;
use crate::layout::Place;

#[derive(Default)]
struct Told(Mutex<Vec<Invalidation>>);

impl InvalidationListener for Told {
    fn on_invalidation(&self, change: Invalidation) {
        self.0.lock().expect("no panic").push(change);
    }
}

/// A process with memory in front.
struct Process {
    backend: FileBackend,
    clock: ManualClock,
    told: Arc<Told>,
}

impl Process {
    fn on(disk: &Disk) -> Self {
        let clock = ManualClock::new();
        let (backend, told) = (open(disk, &options(&clock)), Arc::<Told>::default());
        let weak: Weak<Told> = Arc::downgrade(&told);
        backend.subscribe(weak);
        Self { backend, clock, told }
    }

    /// What it is told of by its next look.
    fn look(&self) -> Vec<Invalidation> {
        self.clock.advance(Duration::from_millis(100));
        self.backend.poll();
        mem::take(&mut *self.told.0.lock().expect("no panic"))
    }
}

fn slot(key: &Key) -> Invalidation {
    let digest = key.digest();
    Invalidation::KeySlot([digest[0], digest[1]])
}

#[test]
fn each_change_of_another_process_is_told_with_the_next_look() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let process = Process::on(&disk);
    let other = open(&disk, &options(&clock));
    let key = key("k");
    other.write(&key, record(&clock, "1")).expect("write");
    assert_eq!(process.look(), [], "there are no copies of what was not there");
    other.write(&key, record(&clock, "2")).expect("write");
    assert_eq!(process.look(), [slot(&key); 2]);
    assert!(other.delete(&key).expect("delete"));
    assert_eq!(process.look(), [slot(&key); 2]);
    other.bump(Group::tag("a")).expect("bump");
    assert_eq!(process.look(), [Invalidation::Generations; 2]);
    other.clear().expect("clear");
    let told = process.look();
    assert!(!told.is_empty() && told.iter().all(|&change| change == Invalidation::All));
    assert_eq!(process.look(), []);
}

/// Makes a change; whether it is completed.
type Make<'a> = &'a dyn Fn(&FileBackend) -> bool;

#[test]
fn change_is_told_whatever_becomes_of_the_process_that_makes_it() {
    let clock = ManualClock::new();
    let (key, group) = (key("k"), Group::tag("a"));
    let ways: [(Invalidation, Make<'_>); 4] = [
        (slot(&key), &|other| other.write(&key, record(&clock, "2")).is_ok()),
        (slot(&key), &|other| other.delete(&key).is_ok()),
        (Invalidation::All, &|other| other.clear().is_ok()),
        (Invalidation::Generations, &|other| other.bump(group).is_ok()),
    ];
    for (change, make) in ways {
        let mut changed = 0;
        for number in 0.. {
            let disk = Disk::default();
            let process = Process::on(&disk);
            let other = open(&disk, &options(&clock));
            other.write(&key, record(&clock, "1")).expect("write");
            other.bump(group).expect("bump");
            process.look();
            let state = || (value(&process.backend, &key), process.backend.generation(group));
            let before = state().1.expect("read");
            // From then on it does nothing more.
            disk.plan(Fault::From(number, Errno::IO));
            let is_done = make(&other);
            disk.plan(None);
            let (found, generation) = state();
            if found.as_deref() != Some(b"1") || generation.expect("read") != before {
                changed += 1;
                let told = process.look();
                let is_told = told.iter().any(|&it| it == change || it == Invalidation::All);
                assert!(is_told, "{change:?} that ends with operation {number}: {told:?}");
            }
            if is_done {
                break;
            }
        }
        assert!(changed > 1, "{change:?}: it ends before the change, and after it");
    }
}

#[test]
fn log_that_has_become_long_gives_way_to_a_short_one_and_nothing_is_missed() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let process = Process::on(&disk);
    let other = open(&disk, &options(&clock));
    let path = Place::of_generation(Group::BACKEND);
    let length = || disk.root().status(path.path()).expect("it is there").length;
    let long = [&[7; 16][..], &b"k12\n".repeat(64 * 1024 - 10)].concat();
    disk.damage(path.path(), &long);
    process.look();
    let mut is_shorter = false;
    for n in 0..20 {
        let before = length();
        let key = key(n.to_string());
        other.delete(&key).expect("delete");
        is_shorter |= length() < before;
        let told = process.look();
        assert!(told.contains(&slot(&key)) || told.contains(&Invalidation::All), "{n}: {told:?}");
    }
    assert!(is_shorter && length() < 1000);
}

#[test]
fn log_that_is_removed_is_made_again_and_may_have_said_anything() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let process = Process::on(&disk);
    let other = open(&disk, &options(&clock));
    disk.unlink(Place::of_generation(Group::BACKEND).path());
    other.delete(&key("k")).expect("delete");
    assert_eq!(process.look(), [Invalidation::All]);
    other.delete(&key("k")).expect("delete");
    assert_eq!(process.look(), [slot(&key("k")); 2]);
}

#[test]
fn process_without_memory_in_front_leaves_no_log() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let backend = open(&disk, &options(&clock));
    backend.write(&key("k"), record(&clock, "1")).expect("write");
    backend.write(&key("k"), record(&clock, "2")).expect("write");
    backend.delete(&key("k")).expect("delete");
    backend.poll();
    disk.root().status(Place::of_generation(Group::BACKEND).path()).expect_err("nobody reads it");
}
