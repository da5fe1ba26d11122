//! The value past its ttl of a call that waits for a new one.

use std::sync::Arc;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::decode::Decoded;
use crate::call::lookup::Begun;
use crate::call::typed::{Frame, UntypedCall};
use crate::call::{CachedFn, Call, ComputeReason, FnProperties, Properties, StaleValue};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::flight::Flight;
use crate::io::Io;
use crate::key::Key;
use crate::panic::drop_quietly;
use crate::record::Record;

/// A value past its ttl, and the flight that replaces it.
pub(super) struct OldValue<R, V> {
    pub(super) output: R,
    pub(super) stale: StaleValue,
    /// The stamp of the call that has found it.
    pub(super) stamp: u64,
    pub(super) flight: Option<Arc<Flight<Record<V>>>>,
}

impl<R, V> OldValue<R, V> {
    /// Returns the value for a caller that does not wait for a new one.
    pub(super) fn serve<B: Backend>(self, call: &UntypedCall<'_, B>) -> R {
        call.serve_stale(&self.stale);
        self.output
    }

    /// Returns whether the flight has left the table: the key was invalidated, or the run was replaced.
    pub(super) fn is_detached(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.is_detached())
    }
}

/// Looks a call up again after a wait that has brought no new value. Returns what a call that begins now may return, or
/// else the rest of such a call, which is a miss.
///
/// If the backend cannot be read, the old value is returned, unless an invalidation is known in this process.
pub(super) async fn look_again<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    key: &Key,
    old: OldValue<F::Output, B::Stored>,
) -> Result<F::Output, (Begun, ComputeReason)> {
    let (properties, mut frame) = (Properties::of(function), Frame::new(function));
    let before = engine.flights().completions(key);
    let known = (old.stamp, old.is_detached(), old.stale.end);
    let (call, read) = read_again::<M, B>(engine, &properties, key, known).await;
    let found = match read {
        Reread::Record(record) => call.decode_counted(record, &mut frame),
        Reread::Nothing => Decoded::Nothing,
        Reread::Unreadable => return Ok(old.serve(&call)),
    };
    drop_quietly(old);
    match found {
        Decoded::Fresh => Ok(frame.take_found()),
        Decoded::Stale(stale) => {
            call.serve_stale(&stale);
            Ok(frame.take_found())
        }
        Decoded::NotFresh | Decoded::Nothing | Decoded::Refused => {
            Err((call.into_begun(), ComputeReason::Miss(Some(before))))
        }
    }
}

/// The result of reading the record of a call that is looked up again.
enum Reread<V> {
    Record(Record<V>),
    Nothing,
    /// The backend cannot be read, and no invalidation is known.
    Unreadable,
}

/// Reads the record of a call that has found an old value under this stamp, with this end, and whose flight may have left the
/// table.
async fn read_again<'a, M: Io, B: Backend>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: &'a Key,
    (old_stamp, is_detached, end): (u64, bool, Timestamp),
) -> (UntypedCall<'a, B>, Reread<B::Stored>) {
    let (prefix, tags) = (key.prefix(), function.tags());
    let (call, is_invalidated) = match engine.stamp::<M>(prefix, tags).await {
        Ok(_) if engine.are_unknown(tags) => {
            (Call::new(engine, function, key, engine.unknown_stamp()), true)
        }
        Ok(stamp) => (Call::new(engine, function, key, stamp), stamp != old_stamp),
        Err(error) => {
            let is_pending = engine.has_pending_invalidation(prefix, tags);
            (Call::without_stamp(engine, function, key, &error), is_pending)
        }
    };
    let is_invalidated = is_invalidated || is_detached;
    // At its end, the backend has no entry any more.
    let can_read = call.can_store() && (is_invalidated || engine.now() < end);
    let read = if can_read { call.ok_or_count(engine.read::<M>(key).await) } else { None };
    let read = match read {
        Some(Some(record)) => Reread::Record(record),
        Some(None) => Reread::Nothing,
        None if is_invalidated => Reread::Nothing,
        None => Reread::Unreadable,
    };
    (call, read)
}
