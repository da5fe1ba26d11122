//! The invalidation feed on a disk that fails.

use std::mem;
use std::sync::{Arc, Mutex, Weak};

use vayu_core::{Generations, Group, Invalidation, InvalidationFeed, InvalidationListener};

use super::*;
use crate::errno::Errno;
use crate::fs::model::Fault;
use crate::layout::EntryPath;

#[derive(Default)]
struct Recorder(Mutex<Vec<Invalidation>>);

impl InvalidationListener for Recorder {
    fn on_invalidation(&self, change: Invalidation) {
        self.0.lock().expect("no panic").push(change);
    }
}

/// A process with a memory tier.
struct Process {
    backend: FileBackend,
    clock: ManualClock,
    recorder: Arc<Recorder>,
}

impl Process {
    fn on(disk: &Disk) -> Self {
        let clock = ManualClock::new();
        let (backend, recorder) = (open(disk, &options(&clock)), Arc::<Recorder>::default());
        let weak: Weak<Recorder> = Arc::downgrade(&recorder);
        backend.subscribe(weak);
        Self { backend, clock, recorder }
    }

    /// Returns the invalidations of its next poll.
    fn poll(&self) -> Vec<Invalidation> {
        self.clock.advance(Duration::from_millis(100));
        self.backend.poll();
        mem::take(&mut *self.recorder.0.lock().expect("no panic"))
    }
}

fn slot(key: &Key) -> Invalidation {
    let digest = key.digest();
    Invalidation::KeySlot([digest[0], digest[1]])
}

#[test]
fn change_by_another_process_is_notified_by_the_next_poll() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let process = Process::on(&disk);
    let other = open(&disk, &options(&clock));
    let key = key("k");
    other.write(&key, record(&clock, "1")).expect("write");
    assert_eq!(process.poll(), [], "an entry that did not exist has no copies");
    other.write(&key, record(&clock, "2")).expect("write");
    assert_eq!(process.poll(), [slot(&key); 2]);
    assert!(other.delete(&key).expect("delete"));
    assert_eq!(process.poll(), [slot(&key); 2]);
    other.bump(Group::tag("a")).expect("bump");
    assert_eq!(process.poll(), [Invalidation::Generations; 2]);
    other.clear().expect("clear");
    let received = process.poll();
    assert!(!received.is_empty() && received.iter().all(|&change| change == Invalidation::All));
    assert_eq!(process.poll(), []);
}

/// Makes a change. Returns whether it is completed.
type Make<'a> = &'a dyn Fn(&FileBackend) -> bool;

#[test]
fn change_is_notified_even_if_its_process_dies_at_any_operation() {
    let clock = ManualClock::new();
    let (key, group) = (key("k"), Group::tag("a"));
    let kinds: [(Invalidation, Make<'_>); 4] = [
        (slot(&key), &|other| other.write(&key, record(&clock, "2")).is_ok()),
        (slot(&key), &|other| other.delete(&key).is_ok()),
        (Invalidation::All, &|other| other.clear().is_ok()),
        (Invalidation::Generations, &|other| other.bump(group).is_ok()),
    ];
    for (change, make) in kinds {
        let mut changed = 0;
        for number in 0.. {
            let disk = Disk::default();
            let process = Process::on(&disk);
            let other = open(&disk, &options(&clock));
            other.write(&key, record(&clock, "1")).expect("write");
            other.bump(group).expect("bump");
            process.poll();
            let state = || (value(&process.backend, &key), process.backend.generation(group));
            let before = state().1.expect("read");
            // The process dies before this operation.
            disk.plan(Fault::From(number, Errno::IO));
            let is_done = make(&other);
            disk.plan(None);
            let (found, generation) = state();
            if found.as_deref() != Some(b"1") || generation.expect("read") != before {
                changed += 1;
                let received = process.poll();
                let is_notified =
                    received.iter().any(|&it| it == change || it == Invalidation::All);
                assert!(is_notified, "{change:?} that ends with operation {number}: {received:?}");
            }
            if is_done {
                break;
            }
        }
        assert!(changed > 1, "{change:?}: it dies before the change, and after it");
    }
}

#[test]
fn long_log_is_replaced_by_a_short_one_and_no_change_is_missed() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let process = Process::on(&disk);
    let other = open(&disk, &options(&clock));
    let path = EntryPath::of_generation(Group::BACKEND);
    let length = || disk.root().status(path.as_str()).expect("it is there").length;
    let long = [&[7; 16][..], &b"k12\n".repeat(64 * 1024 - 10)].concat();
    disk.damage(path.as_str(), &long);
    process.poll();
    let mut is_shorter = false;
    for n in 0..20 {
        let before = length();
        let key = key(n.to_string());
        other.delete(&key).expect("delete");
        is_shorter |= length() < before;
        let received = process.poll();
        assert!(
            received.contains(&slot(&key)) || received.contains(&Invalidation::All),
            "{n}: {received:?}"
        );
    }
    assert!(is_shorter && length() < 1000);
}

#[test]
fn removed_log_is_created_again_and_everything_is_invalidated() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let process = Process::on(&disk);
    let other = open(&disk, &options(&clock));
    disk.unlink(EntryPath::of_generation(Group::BACKEND).as_str());
    other.delete(&key("k")).expect("delete");
    assert_eq!(process.poll(), [Invalidation::All]);
    other.delete(&key("k")).expect("delete");
    assert_eq!(process.poll(), [slot(&key("k")); 2]);
}

#[test]
fn process_without_a_memory_tier_creates_no_log() {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let backend = open(&disk, &options(&clock));
    backend.write(&key("k"), record(&clock, "1")).expect("write");
    backend.write(&key("k"), record(&clock, "2")).expect("write");
    backend.delete(&key("k")).expect("delete");
    backend.poll();
    disk.root()
        .status(EntryPath::of_generation(Group::BACKEND).as_str())
        .expect_err("there is no log");
}

#[test]
fn removal_by_a_tool_is_notified() {
    let place = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new();
    let cache = options(&clock).open(place.path()).expect("a cache");
    let recorder = Arc::<Recorder>::default();
    let weak: Weak<Recorder> = Arc::downgrade(&recorder);
    let key = key("k");
    cache.backend().write(&key, record(&clock, "1")).expect("write");
    let directory = crate::CacheDirectory::open(place.path()).expect("a cache");
    let entry = directory.entries(crate::Verify::Header).next().expect("an entry").expect("read");
    // Without memory in front of the directory there is no log.
    assert!(directory.remove(&entry).expect("removed"));
    cache.backend().subscribe(weak);
    cache.backend().write(&key, record(&clock, "2")).expect("write");
    assert!(directory.remove(&entry).expect("removed"));
    clock.advance(Duration::from_millis(100));
    cache.backend().poll();
    assert_eq!(*recorder.0.lock().expect("no panic"), [slot(&key); 2]);
}
