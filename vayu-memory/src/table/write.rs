//! Writes to a table.

use std::ptr;

use vayu_core::__internal::{
    LongKey, key_words, prefix_of_words, record_words, small_record_words,
};
use vayu_core::{EndCause, Key, Prefix, Record, Timestamp};

use crate::table::chunks::{Forked, Number, Place, lock_here, read_here, write_here};
use crate::table::index::Lines;
use crate::table::queues::{Queued, Room, hash_of};
use crate::table::read::record_of;
use crate::table::slot::{Extension, HELD, MoreWords, References, Words};
use crate::table::{KeyLayout, LONG_KEY, Removed, ShardState, Table, TableKey, Written};
use crate::value::MemoryValue;

/// The lines of the index that a sweep visits without releasing the lock of their shard: those of about
/// 900 entries.
const SWEEP: usize = 128;

impl<V: MemoryValue> Table<V> {
    /// Stores an entry, unless an earlier call has taken the record. The record that is left consists of
    /// words: nothing of it is to be dropped.
    #[inline(never)]
    pub(crate) fn write(
        &self,
        key: &Key,
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        match key_words(key) {
            Some(words) => self.write_key(&TableKey::narrow(key, words), record, written),
            None => self.write_large(key, record, written),
        }
    }

    /// Stores an entry of a key that does not fit into a slot.
    #[inline(never)]
    fn write_large(
        &self,
        key: &Key,
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        self.write_key(&TableKey::large(key), record, written)
    }

    #[inline(always)]
    fn write_key(
        &self,
        key: &TableKey<'_>,
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        let (mut state, lines) = self.lock_with_room(key.hash)?;
        self.write_locked(&mut state, lines, key, record, written)?;
        if written.evictions > 0 {
            self.shard(key.hash).count_evictions(written.evictions);
        }
        Ok(())
    }

    #[inline(always)]
    fn write_locked(
        &self,
        state: &mut ShardState,
        lines: &Lines,
        key: &TableKey<'_>,
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        let home = lines.home(key.hash);
        if !lines.have_no_candidate(home, key.hash)
            && let Some((number, place)) = self.find_locked(lines, key)?
        {
            return self.replace(state, key, (number, place), record, written);
        }
        if self.limits.weight != u64::MAX {
            return self.insert_weighed(state, lines, key, record, written);
        }
        let (entries, room) = (self.limits.entries, Room::of(self.limits.entries));
        let new = if state.queues.length() < entries {
            self.take_slot(state)?
        } else {
            // The slot of the entry that is evicted becomes that of the new one.
            let Some(evicted) = state.queues.pop(&self.chunks, room, None) else {
                refuse(key, record, written);
                return Ok(());
            };
            if written.ended.is_some() {
                self.list_evicted(evicted.place, written)?;
            }
            lines.remove(hash_of(evicted.links), evicted.number);
            written.evictions += 1;
            evicted
        };
        self.write_at(new.place, key, record, References::NONE, &mut written.removed)?;
        state.queues.push(&self.chunks, new, key.hash, room);
        lines.insert(home, key.hash, new.number);
        Ok(())
    }

    /// Replaces the entry of a key.
    #[inline(never)]
    fn replace(
        &self,
        state: &mut ShardState,
        key: &TableKey<'_>,
        (number, place): (Number, Place<'_, V>),
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        let Some(weight) = weight_of(record.as_ref()) else { return Ok(()) };
        let before = weight_at(place);
        if written.ended.is_some() {
            list_replaced(place, key, record.as_ref(), written);
        }
        let references = place.slot().state().references();
        self.write_at(place, key, record, references, &mut written.removed)?;
        if self.limits.weight == u64::MAX {
            return Ok(());
        }
        state.weight = state.weight - before + weight;
        self.make_room(state, Some(number), written)
    }

    /// Stores an entry of a key that has none, in a table with a limit by weight.
    #[cold]
    fn insert_weighed(
        &self,
        state: &mut ShardState,
        lines: &Lines,
        key: &TableKey<'_>,
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        let Some(weight) = weight_of(record.as_ref()) else { return Ok(()) };
        state.weight += weight;
        let length = state.queues.length();
        self.make_room(state, None, written)?;
        let new = self.take_slot(state)?;
        self.write_at(new.place, key, record, References::NONE, &mut written.removed)?;
        // Nothing is known about the most entries before the first is evicted.
        let is_evicting = state.queues.length() < length;
        let entries = if is_evicting { length } else { usize::MAX };
        state.queues.push(&self.chunks, new, key.hash, Room::of(entries));
        lines.insert(lines.home(key.hash), key.hash, new.number);
        Ok(())
    }

    /// Removes the entry of a key. Returns its value, if there was one that was held beside the slot, in
    /// the list of removed values.
    pub(crate) fn remove(&self, key: &Key) -> Result<(bool, Removed<V>), Forked> {
        let key = TableKey::new(key);
        let mut removed = Removed::new();
        let mut state = self.lock(key.hash)?;
        let Some(lines) = self.index.current() else { return Ok((false, removed)) };
        let found = self.find_locked(lines, &key)?;
        if let Some((number, place)) = found {
            removed.push(self.remove_at(&mut state, lines, number, place)?);
        }
        Ok((found.is_some(), removed))
    }

    /// Removes the entries that have expired at `now`, or all entries. Calls `after` with their values, and with their
    /// prefixes if `has_prefixes`, when no lock is held. Returns their number, and when the first of the others expires.
    ///
    /// The lock of a shard is released after every few entries. Those that are written in the meantime may
    /// be removed, too.
    pub(crate) fn remove_expired(
        &self,
        now: Option<Timestamp>,
        has_prefixes: bool,
        mut after: impl FnMut(Vec<V>, Vec<Prefix>),
    ) -> Result<(u64, Timestamp), Forked> {
        let (mut count, mut next) = (0, Timestamp::NEVER);
        // Again, if the index grows in the meantime: the lines are then other ones.
        'again: while let Some(lines) = self.index.current() {
            for first in (0..lines.of_shard()).step_by(SWEEP) {
                // One shard after the other, so that writers can lock them in between.
                for (shard, lock) in self.shards.iter().enumerate() {
                    let mut state = lock_here(&lock.state, self.process)?;
                    if !self.index.current().is_some_and(|current| ptr::eq(current, lines)) {
                        continue 'again;
                    }
                    let (mut expired, mut values, mut prefixes) =
                        (Vec::new(), Vec::new(), Vec::new());
                    for number in lines.slots(shard, first, SWEEP) {
                        let Some(place) = self.chunks.place(number) else { continue };
                        let end = stale_until_at(place);
                        if now.is_some_and(|now| end > now) {
                            next = next.min(end);
                        } else {
                            expired.push((number, place));
                        }
                    }
                    for (number, place) in expired {
                        if has_prefixes {
                            prefixes.extend(self.prefix_at(place)?);
                        }
                        values.extend(self.remove_at(&mut state, lines, number, place)?);
                        count += 1;
                    }
                    drop(state);
                    after(values, prefixes);
                }
            }
            break;
        }
        Ok((count, next))
    }

    /// Writes the words of an entry whose value has become one of words since it was stored. What is held
    /// stays the same, so readers may read it in the meantime.
    #[cold]
    pub(crate) fn store_words(&self, key: &Key) -> Result<(), Forked> {
        let key = TableKey::new(key);
        let _state = self.lock(key.hash)?;
        let Some(lines) = self.index.current() else { return Ok(()) };
        let Some((_, place)) = self.find_locked(lines, &key)? else { return Ok(()) };
        let slot = place.slot();
        let state = slot.state();
        let mut content = slot.load(state);
        let Some(held) = place.held() else { return Ok(()) };
        let held = read_here(held, self.process)?;
        if let Some(value) = held.value.as_ref().filter(|_| content.kind == HELD)
            && let Some([kind, value, more]) = value.to_words()
        {
            let old =
                if state.is_extended() { place.extension().map(Extension::load) } else { None };
            let extension = place.make_extension(self.process)?;
            let words_of_record = record_words(&record_of(&Words { more: old, ..content }));
            let [_, _, stale_until, _, small] = words_of_record;
            (content.kind, content.value) = (kind, value);
            let more = MoreWords { stale_until, small, value: more };
            content.more = Some(more);
            let version = slot.begin_write();
            extension.store(key.wide_words(), more);
            slot.end_write(version, key.words, &content, state.references());
        }
        Ok(())
    }

    /// Sets when an entry ends, if its record is still `seen`, whatever its value and its weight. What is held stays
    /// the same, so readers may read it in the meantime.
    #[cold]
    pub(crate) fn renew(&self, key: &Key, seen: &Record<()>, end: Timestamp) -> Result<(), Forked> {
        let key = TableKey::new(key);
        let _state = self.lock(key.hash)?;
        let Some(lines) = self.index.current() else { return Ok(()) };
        let Some((_, place)) = self.find_locked(lines, &key)? else { return Ok(()) };
        let (slot, state) = (place.slot(), place.slot().state());
        let mut content = words_at(place);
        let [created, expires, old_end, schema, small] = record_words(&record_of(&content));
        let [seen @ .., _] = record_words(seen);
        if [created, expires, old_end, schema] != seen {
            return Ok(());
        }
        let stale_until = end.as_micros().cast_unsigned();
        let value = content.more.map_or(0, |more| more.value);
        let mut extension = None;
        if content.more.is_some() || stale_until != expires {
            extension = Some(place.make_extension(self.process)?);
            content.more = Some(MoreWords { stale_until, small, value });
        }
        let version = slot.begin_write();
        if let (Some(extension), Some(more)) = (extension, content.more) {
            extension.store(key.wide_words(), more);
        }
        slot.end_write(version, key.words, &content, state.references());
        Ok(())
    }

    /// Evicts entries, other than `kept`, until the others and one more are within the limits.
    fn make_room(
        &self,
        state: &mut ShardState,
        kept: Option<Number>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        let own = usize::from(kept.is_some());
        let one_more = 1 - own;
        while state.queues.length() > own
            && (state.queues.length() + one_more > self.limits.entries
                || state.weight > self.limits.weight)
        {
            let room = Room::of(state.queues.length());
            let evicted = state.queues.pop(&self.chunks, room, kept);
            let (Some(evicted), Some(lines)) = (evicted, self.index.current()) else { break };
            if written.ended.is_some() {
                self.list_evicted(evicted.place, written)?;
            }
            let value = self.clear(state, lines, evicted.number, evicted.place)?;
            written.removed.push(value);
            written.evictions += 1;
        }
        Ok(())
    }

    /// Lists an entry that is to be evicted.
    #[cold]
    fn list_evicted(&self, place: Place<'_, V>, written: &mut Written<V>) -> Result<(), Forked> {
        let Some(ended) = &mut written.ended else { return Ok(()) };
        let has_expired = stale_until_at(place) <= ended.now;
        let cause = if has_expired { EndCause::Expired } else { EndCause::Evicted };
        ended.entries.extend(self.prefix_at(place)?.map(|prefix| (prefix, cause)));
        Ok(())
    }

    /// Returns the prefix of the key of the entry in a slot. For the holder of the lock of its shard.
    #[cold]
    fn prefix_at(&self, place: Place<'_, V>) -> Result<Option<Prefix>, Forked> {
        let words = place.slot().key();
        if words[0] == LONG_KEY {
            let Some(held) = place.held() else { return Ok(None) };
            let held = read_here(held, self.process)?;
            return Ok(held.key.as_ref().map(|key| key.prefix().clone()));
        }
        Ok(prefix_of_words(&words).or_else(|| {
            let extension = place.extension()?;
            prefix_of_words(&extension.key_after(words))
        }))
    }

    /// Returns a slot without an entry.
    #[inline(never)]
    fn take_slot(&self, state: &mut ShardState) -> Result<Queued<'_, V>, Forked> {
        let number = match state.queues.take_free(&self.chunks) {
            Some(number) => number,
            None => self.chunks.take()?,
        };
        Ok(Queued::new(number, self.chunks.place(number).ok_or(Forked)?))
    }

    /// Writes an entry. Its old value, if that was held beside the slot, is added to the removed ones. The
    /// record is taken if it is held, once nothing can fail any more.
    #[inline(always)]
    fn write_at(
        &self,
        place: Place<'_, V>,
        key: &TableKey<'_>,
        record: &mut Option<Record<V>>,
        references: References,
        removed: &mut Removed<V>,
    ) -> Result<(), Forked> {
        let Some(new) = record.as_ref() else { return Ok(()) };
        let value_words = new.value().to_words();
        let [kind, value, more_value] = value_words.unwrap_or([HELD, 0, 0]);
        debug_assert!(kind <= HELD, "{kind} is not the kind of a value");
        if let Some(([created, expires, schema], compute_time)) = small_record_words(new)
            && V::IS_WORDS
            && value_words.is_some()
            && key.layout == KeyLayout::Narrow
            && place.held().is_none()
        {
            let more = None;
            let content = Words { created, expires, schema, kind, value, compute_time, more };
            let version = place.slot().begin_write();
            place.slot().end_write(version, key.words, &content, references);
            return Ok(());
        }
        self.write_large_at(place, key, record, (kind, value, more_value), references, removed)
    }

    /// Writes an entry that may need more than its slot.
    #[inline(never)]
    fn write_large_at(
        &self,
        place: Place<'_, V>,
        key: &TableKey<'_>,
        record: &mut Option<Record<V>>,
        (kind, value, more_value): (u64, u64, u64),
        references: References,
        removed: &mut Removed<V>,
    ) -> Result<(), Forked> {
        let Some(new) = record.as_ref() else { return Ok(()) };
        let wide_words = key.wide_words();
        let needs_more =
            small_record_words(new).is_none() || more_value != 0 || wide_words.is_some();
        let [created, expires, stale_until, schema, small] = record_words(new);
        let content = Words {
            created,
            expires,
            schema,
            kind,
            value,
            compute_time: (small >> 16 & 0xffff) as u16,
            more: needs_more.then_some(MoreWords { stale_until, small, value: more_value }),
        };
        let is_long = key.layout == KeyLayout::Long;
        // All that may fail comes first.
        let extension = if needs_more { Some(place.make_extension(self.process)?) } else { None };
        let is_held = kind == HELD || !V::IS_WORDS || is_long;
        let held = if is_held { Some(place.make_held(self.process)?) } else { place.held() };
        let mut held = match held {
            Some(held) => Some(write_here(held, self.process)?),
            None => None,
        };
        let slot = place.slot();
        let version = slot.begin_write();
        if let Some(held) = &mut held {
            let new = if is_held { record.take().map(Record::into_value) } else { None };
            removed.push(std::mem::replace(&mut held.value, new));
            held.key = if is_long { Some(Box::new(LongKey::from(key.key))) } else { None };
        }
        if let (Some(extension), Some(more)) = (extension, content.more) {
            extension.store(wide_words, more);
        }
        slot.end_write(version, key.words, &content, references);
        Ok(())
    }

    /// Removes the entry in a slot. Returns its value, if that was held beside the slot.
    fn remove_at(
        &self,
        state: &mut ShardState,
        lines: &Lines,
        number: Number,
        place: Place<'_, V>,
    ) -> Result<Option<V>, Forked> {
        state.queues.remove(&self.chunks, number, place.links());
        self.clear(state, lines, number, place)
    }

    /// Empties a slot whose entry is in no queue any more. Returns its value, if that was held beside it.
    fn clear(
        &self,
        state: &mut ShardState,
        lines: &Lines,
        number: Number,
        place: Place<'_, V>,
    ) -> Result<Option<V>, Forked> {
        let mut held = match place.held() {
            Some(held) => Some(write_here(held, self.process)?),
            None => None,
        };
        if self.limits.weight != u64::MAX {
            state.weight -= weight_at(place);
        }
        let slot = place.slot();
        let version = slot.begin_write();
        let value = held.as_mut().and_then(|held| {
            held.key = None;
            held.value.take()
        });
        slot.end_empty(version);
        lines.remove(hash_of(place.links()), number);
        state.queues.free(number, place.links());
        Ok(value)
    }
}

/// Takes a record for which a table has no room.
#[cold]
fn refuse<V>(key: &TableKey<'_>, record: &mut Option<Record<V>>, written: &mut Written<V>) {
    if let Some(ended) = &mut written.ended {
        ended.entries.push((key.key.prefix().clone(), EndCause::Evicted));
    }
    written.removed.push(record.take().map(Record::into_value));
}

/// Lists an entry that is to be replaced. For the holder of the lock of its shard.
#[cold]
fn list_replaced<V>(
    place: Place<'_, V>,
    key: &TableKey<'_>,
    new: Option<&Record<V>>,
    written: &mut Written<V>,
) {
    let (Some(ended), Some(new)) = (&mut written.ended, new) else { return };
    let cause = EndCause::of_replaced(&record_of(&words_at(place)), new);
    ended.entries.push((key.key.prefix().clone(), cause));
}

/// Returns the words of the entry in a slot. For the holder of the lock of its shard.
fn words_at<V>(place: Place<'_, V>) -> Words {
    let (slot, state) = (place.slot(), place.slot().state());
    let more = if state.is_extended() { place.extension().map(Extension::load) } else { None };
    Words { more, ..slot.load(state) }
}

/// Returns the weight of a record, unless an earlier call has taken it.
fn weight_of<V>(record: Option<&Record<V>>) -> Option<u64> {
    record.map(|record| u64::from(record.weight()))
}

/// Returns the weight of the entry in a slot. For the holder of the lock of its shard.
fn weight_at<V>(place: Place<'_, V>) -> u64 {
    if !place.slot().state().is_extended() {
        return 0;
    }
    place.extension().map_or(0, |extension| extension.load().small >> 32)
}

/// Returns when the entry in a slot may be removed. For the holder of the lock of its shard.
fn stale_until_at<V>(place: Place<'_, V>) -> Timestamp {
    let slot = place.slot();
    let more = if slot.state().is_extended() { place.extension() } else { None };
    let end = more.map_or_else(|| slot.expires(), |extension| extension.load().stale_until);
    Timestamp::from_micros(end.cast_signed())
}
