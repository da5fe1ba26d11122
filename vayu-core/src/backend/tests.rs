//! Tests of the parts of backends: what their absence means, and that wrappers pass all of them on.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::backend::{
    AnyBackend, Backend, BackendExt, Batches, Capabilities, Clear, EntryTimes, Lease, Leases,
    Offline, ReportEnds, ReportUsage, Usage,
};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::generation::{Generations, Group};
use crate::invalidation::{InvalidationFeed, InvalidationListener};
use crate::key::Key;
use crate::observer::EndListener;
use crate::record::Record;
use crate::sync::{IgnorePoison, block_on};
use crate::testing::FaultyBackend;

/// A backend with all parts or with none, which notes what is called. Clones are the same backend.
#[derive(Clone, Default)]
struct Noting {
    calls: Arc<Mutex<Vec<&'static str>>>,
    has_parts: bool,
}

impl Noting {
    fn note(&self, call: &'static str) {
        self.calls.lock().ignore_poison().push(call);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().ignore_poison())
    }
}

fn record(n: u64) -> Record<u64> {
    Record::new(n, Timestamp::from_micros(0), Timestamp::NEVER)
}

#[async_trait]
impl Backend for Noting {
    type Stored = u64;

    fn read(&self, _: &Key) -> Result<Option<Record<u64>>> {
        self.note("read");
        Ok(None)
    }

    fn write(&self, _: &Key, _: Record<u64>) -> Result<()> {
        self.note("write");
        Ok(())
    }

    fn delete(&self, _: &Key) -> Result<bool> {
        Ok(false)
    }

    async fn read_async(&self, _: &Key) -> Result<Option<Record<u64>>> {
        self.note("read_async");
        Ok(None)
    }

    async fn write_async(&self, _: &Key, _: Record<u64>) -> Result<()> {
        self.note("write_async");
        Ok(())
    }

    async fn delete_async(&self, _: &Key) -> Result<bool> {
        Ok(false)
    }

    fn capabilities(&self) -> Capabilities<'_, u64> {
        if !self.has_parts {
            return Capabilities::none();
        }
        Capabilities {
            generations: Some(self),
            invalidation_feed: Some(self),
            leases: Some(self),
            offline: Some(self),
            batches: Some(self),
            times: Some(self),
            clear: Some(self),
            usage: Some(self),
            ends: Some(self),
        }
    }
}

impl Generations for Noting {
    fn generation(&self, _: Group) -> Result<u64> {
        self.note("generation");
        Ok(0)
    }

    fn bump(&self, _: Group) -> Result<()> {
        Ok(())
    }
}

impl InvalidationFeed for Noting {
    fn subscribe(&self, _: std::sync::Weak<dyn InvalidationListener>) {}

    fn poll(&self) {
        self.note("poll");
    }
}

impl Leases for Noting {
    fn try_acquire(&self, _: &Key) -> Result<Lease> {
        self.note("try_acquire");
        Ok(Lease::NotRequired)
    }
}

impl Offline for Noting {
    type Stored = u64;

    fn read(&self, _: &Key) -> Result<Option<Record<u64>>> {
        self.note("read offline");
        Ok(None)
    }

    fn write(&self, _: &Key, _: Record<u64>) -> Result<()> {
        Ok(())
    }

    fn delete(&self, _: &Key) -> Result<()> {
        Ok(())
    }

    fn generation(&self, _: Group) -> Result<u64> {
        Ok(0)
    }
}

#[async_trait]
impl Batches for Noting {
    type Stored = u64;

    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<u64>>>> {
        self.note("read_many");
        keys.iter().map(|_| Ok(None)).collect()
    }

    fn write_many(&self, entries: Vec<(&Key, Record<u64>)>) -> Vec<Result<()>> {
        self.note("write_many");
        entries.iter().map(|_| Ok(())).collect()
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<u64>>>> {
        self.note("read_many_async");
        keys.iter().map(|_| Ok(None)).collect()
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<u64>)>) -> Vec<Result<()>> {
        self.note("write_many_async");
        entries.iter().map(|_| Ok(())).collect()
    }
}

#[async_trait]
impl EntryTimes for Noting {
    type Stored = u64;

    fn write_times(&self, _: &Key, _: &Record<()>, _: Record<u64>) -> Result<()> {
        self.note("write_times");
        Ok(())
    }

    async fn write_times_async(&self, _: &Key, _: &Record<()>, _: Record<u64>) -> Result<()> {
        self.note("write_times_async");
        Ok(())
    }

    fn renew(&self, _: &Key, _: &Record<()>, _: Timestamp) {
        self.note("renew");
    }
}

#[async_trait]
impl Clear for Noting {
    fn clear(&self) -> Result<()> {
        self.note("clear");
        Ok(())
    }

    async fn clear_async(&self) -> Result<()> {
        self.note("clear_async");
        Ok(())
    }
}

impl ReportUsage for Noting {
    fn usage(&self) -> Usage {
        self.note("usage");
        Usage { entries: Some(7), ..Usage::default() }
    }
}

impl ReportEnds for Noting {
    fn report_ends(&self, _: EndListener) {
        self.note("report_ends");
    }
}

/// What the operations of the parts have called, the results of clearing, and the usage.
type Used = (Vec<&'static str>, [Result<()>; 2], Usage);

/// Calls each operation of the parts once.
fn use_parts<B: Backend<Stored = u64> + ?Sized>(noting: &Noting, backend: &B) -> Used {
    let (one, two) = (Key::from_text("part", "1"), Key::from_text("part", "2"));
    let (keys, times) = ([&one, &two], record(0).map(drop));
    let entries = || keys.iter().map(|key| (*key, record(1))).collect();
    let Capabilities { generations, invalidation_feed, leases, offline, .. } =
        backend.capabilities();
    if let Some(generations) = generations {
        generations.generation(Group::ALL).expect("no fault");
    }
    if let Some(feed) = invalidation_feed {
        feed.poll();
    }
    if let Some(leases) = leases {
        leases.try_acquire(&one).expect("no fault");
    }
    if let Some(offline) = offline {
        offline.read(&one).expect("no fault");
    }
    assert_eq!(backend.read_many(&keys).len(), 2);
    assert_eq!(backend.write_many(entries()).len(), 2);
    assert_eq!(block_on(backend.read_many_async(&keys)).len(), 2);
    assert_eq!(block_on(backend.write_many_async(entries())).len(), 2);
    backend.write_times(&one, &times, record(1)).expect("no fault");
    block_on(backend.write_times_async(&one, &times, record(1))).expect("no fault");
    backend.renew(&one, &times, Timestamp::NEVER);
    let cleared = [backend.clear(), block_on(backend.clear_async())];
    let usage = backend.usage();
    backend.report_ends(EndListener::new(|_, _| {}));
    (noting.take(), cleared, usage)
}

/// Calls each operation of the parts of a backend, and of every wrapper of it.
fn use_parts_of_wrappers(has_parts: bool) -> Vec<Used> {
    let noting = Noting { has_parts, ..Noting::default() };
    let shared: Arc<dyn Backend<Stored = u64>> = Arc::new(noting.clone());
    let boxed: Box<dyn Backend<Stored = u64>> = Box::new(noting.clone());
    vec![
        use_parts(&noting, &noting),
        use_parts(&noting, &*shared),
        use_parts(&noting, &shared),
        use_parts(&noting, &boxed),
        use_parts(&noting, &AnyBackend::new(noting.clone())),
        use_parts(&noting, &FaultyBackend::new(noting.clone())),
        use_parts(&noting, &Arc::new(AnyBackend::new(FaultyBackend::new(noting.clone())))),
    ]
}

#[test]
fn operation_of_a_part_reaches_it_through_every_wrapper() {
    let expected = [
        "generation",
        "poll",
        "try_acquire",
        "read offline",
        "read_many",
        "write_many",
        "read_many_async",
        "write_many_async",
        "write_times",
        "write_times_async",
        "renew",
        "clear",
        "clear_async",
        "usage",
        "report_ends",
    ];
    for (calls, cleared, usage) in use_parts_of_wrappers(true) {
        assert_eq!(calls, expected);
        assert!(cleared.iter().all(Result::is_ok));
        assert_eq!(usage.entries, Some(7));
    }
}

#[test]
fn absent_part_is_replaced_by_single_operations_or_unsupported() {
    let expected = [
        "read",
        "read",
        "write",
        "write",
        "read_async",
        "read_async",
        "write_async",
        "write_async",
        "write",
        "write_async",
    ];
    for (calls, cleared, usage) in use_parts_of_wrappers(false) {
        assert_eq!(calls, expected);
        for result in cleared {
            assert_eq!(result.expect_err("no part").kind(), ErrorKind::Unsupported);
        }
        assert_eq!(usage, Usage::default());
    }
}
