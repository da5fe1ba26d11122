//! The table of the memory backend: entries in slots, read without a lock.
//!
//! # Parts
//!
//! Every entry is in a [slot] of one cache line: its key, its times and its value as words. A
//! longer key and the rarer parts of a record are in an extension of the slot, a second line. What is
//! not made of words, such as a string or a key of more than 48 bytes, is held beside the slot, under
//! a lock of its own. Slots have numbers, and their memory is allocated in [chunks] as the table fills.
//! The [index] leads from the hash of a key to the numbers of a few slots. The [queues] decide which
//! entry is evicted.
//!
//! # Locks
//!
//! The hash of a key selects a shard. Writers lock their shard, so each slot, line of the index and queue
//! has one writer at a time. Readers lock nothing: a slot is a seqlock, whose state has a version that
//! each write increments, and a reader accepts the words that it has loaded if the state is the same
//! afterwards. What is held beside the slot is read under a lock of its own, which readers share. It
//! belongs to the state that was read if that is still the same under the lock: a writer changes both
//! under it. Readers trust nothing of the index, so its lines need no versions. A read writes to no
//! shared memory but that lock, unless the entry has a reference bit left to set, and it takes two cache
//! lines for a number: one of the index, one of a slot.
//!
//! A reader may find that an entry is being written. It then locks the shard, under which no write is
//! in progress. No key that is present is taken for absent: an entry is replaced in its slot, and when
//! the index grows, the new lines are complete before they are used.
//!
//! No code of users runs under a lock: values that leave the table are returned, to be dropped later.
//!
//! # Forks
//!
//! In a child process a lock may be held by a thread that does not exist there. An operation that finds
//! a lock held, or is about to allocate, asks the operating system for the id of the process, and
//! returns [`Forked`] if the table is that of a parent: the backend then replaces it.

mod chunks;
mod index;
#[cfg(all(test, vayu_loom))]
mod loom_tests;
mod queues;
mod slot;
#[cfg(all(test, not(vayu_loom)))]
mod tests;

use smallvec::SmallVec;
use vayu_core::__internal::{
    CompactKey, ProcessId, key_words, record_from_small_words, record_from_words, record_words,
    small_record_words,
};
use vayu_core::{Key, Record, Timestamp};

pub(crate) use self::chunks::Forked;
use self::chunks::{Chunks, Held, MAX_SLOTS, Number, Place, lock_here, read_here, write_here};
use self::index::{HashPart, Index};
use self::queues::{Queues, hash_of};
use self::slot::{Extension, HELD, MoreWords, NARROW_KEY, Slot, State, WIDE_KEY, Words};
use crate::sync::{Mutex, MutexGuard, RwLockReadGuard, unless_held};
use crate::value::{MemoryValue, VALUE_WORDS};

/// A table of entries.
#[derive(Debug)]
pub(crate) struct Table<V> {
    index: Index,
    chunks: Chunks<V>,
    shards: Box<[Shard]>,
    limits: Limits,
    process: ProcessId,
}

/// The limits of a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most entries of a shard.
    pub(crate) entries: usize,
    /// The most that the entries of a shard weigh together.
    pub(crate) weight: u64,
}

/// Aligned so that no two shards share a cache line, nor the pair that is fetched with it.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<ShardState>);

#[derive(Debug)]
struct ShardState {
    queues: Queues,
    weight: u64,
}

/// Values that have left a table, to be dropped when no lock is held.
pub(crate) type Removed<V> = SmallVec<[V; 1]>;

/// The effects of a write on other entries.
#[derive(Debug)]
pub(crate) struct Written<V> {
    pub(crate) removed: Removed<V>,
    pub(crate) evictions: u64,
}

impl<V> Written<V> {
    /// Returns the effects of a write that has changed no other entry.
    pub(crate) fn nothing() -> Self {
        Self { removed: Removed::new(), evictions: 0 }
    }
}

/// A value that is held beside its slot, under the lock of its readers.
pub(crate) struct HeldValue<'a, V>(RwLockReadGuard<'a, Held<V>>);

impl<V> HeldValue<'_, V> {
    /// Returns the value.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&V> {
        self.0.value.as_ref()
    }
}

/// The result of a lookup that takes no lock of a shard.
enum Found<R> {
    Entry(R),
    /// The entry is being written.
    Changing,
}

/// A key on its way into the table.
enum KeyWords {
    Narrow([u64; NARROW_KEY]),
    Wide([u64; WIDE_KEY]),
    Long([u64; NARROW_KEY]),
}

/// The first word of a key that does not fit into words: no other key begins with it.
const LONG_KEY: u64 = u64::MAX;

impl KeyWords {
    #[inline]
    fn of(key: &Key) -> Self {
        if let Some(words) = key_words(key) {
            return Self::Narrow(words);
        }
        let long = || Self::Long([LONG_KEY, key.hash_code(), 0]);
        key_words(key).map_or_else(long, Self::Wide)
    }

    /// Returns the words that are in the slot.
    #[inline(always)]
    fn first(&self) -> [u64; NARROW_KEY] {
        match *self {
            Self::Narrow(words) | Self::Long(words) => words,
            Self::Wide([first, second, third, ..]) => [first, second, third],
        }
    }

    /// Returns all words, zero where there are no more.
    fn all(&self) -> [u64; WIDE_KEY] {
        match *self {
            Self::Narrow([first, second, third]) | Self::Long([first, second, third]) => {
                [first, second, third, 0, 0, 0, 0]
            }
            Self::Wide(words) => words,
        }
    }
}

impl<V: MemoryValue> Table<V> {
    /// Creates an empty table. The number of shards must be a power of two.
    pub(crate) fn new(shards: usize, limits: Limits) -> Self {
        let process = ProcessId::current();
        let entries = limits.entries.min(MAX_SLOTS as usize / shards);
        let shard = |_| Shard(Mutex::new(ShardState { queues: Queues::new(), weight: 0 }));
        let capacity = u32::try_from(entries * shards).unwrap_or(MAX_SLOTS);
        Self {
            index: Index::new(shards, entries),
            chunks: Chunks::new(capacity, process),
            shards: (0..shards).map(shard).collect(),
            limits: Limits { entries, ..limits },
            process,
        }
    }

    /// Returns the most entries of the table.
    pub(crate) fn max_entries(&self) -> u64 {
        (self.limits.entries * self.shards.len()) as u64
    }

    /// Returns the number of entries, and their weight.
    pub(crate) fn usage(&self) -> Result<(u64, u64), Forked> {
        let mut usage = (0, 0);
        for shard in &self.shards {
            let state = lock_here(&shard.0, self.process)?;
            usage.0 += state.queues.length() as u64;
            usage.1 += state.weight;
        }
        Ok(usage)
    }

    /// Returns the entry of a key if its value consists of words and it is the first candidate of the
    /// index, as most are, without a lock. For others [`read`](Self::read) is to be called: this function
    /// calls no other, so that what it returns stays in registers.
    #[inline(always)]
    pub(crate) fn read_words(&self, key: &Key) -> Option<Record<[u64; VALUE_WORDS]>> {
        let number = self.index.current()?.first(HashPart::of(key.hash_code()))?;
        let place = self.chunks.place(number)?;
        let (slot, state) = (place.slot(), place.slot().state());
        let more = if let Some(words) = key_words::<NARROW_KEY>(key) {
            if !slot.has_key(words) {
                return None;
            }
            if state.is_in_slot() {
                None
            } else if state.is_extended_words() {
                Some(place.extension()?.load())
            } else {
                return None;
            }
        } else {
            if !state.is_extended_words() {
                return None;
            }
            let words = key_words::<WIDE_KEY>(key)?;
            let [first, second, third, ..] = words;
            let extension = place.extension()?;
            if !slot.has_key([first, second, third]) || !extension.has_key(words) {
                return None;
            }
            Some(extension.load())
        };
        let words = Words { more, ..slot.load(state) };
        if !slot.is_still(state) {
            return None;
        }
        touch(slot, state);
        let more = more.map_or(0, |more| more.value);
        Some(record_of(&words).map(|()| [words.kind, words.value, more]))
    }

    /// Locks the value of a key that is held beside its slot, for reading, if the key is the first candidate
    /// of the index and fits into the slot. Returns the record without its value, and the lock. For
    /// others [`read`](Self::read) is to be called.
    #[inline(always)]
    pub(crate) fn hold(&self, key: &Key) -> Option<(Record<()>, HeldValue<'_, V>)> {
        let words = key_words::<NARROW_KEY>(key)?;
        let number = self.index.current()?.first(HashPart::of(key.hash_code()))?;
        let place = self.chunks.place(number)?;
        let (slot, state) = (place.slot(), place.slot().state());
        if !slot.has_key(words) || !state.is_beside_slot() {
            return None;
        }
        let words = slot.load(state);
        // A writer changes the state under this lock.
        let held = unless_held(place.held()?.try_read())?;
        if !slot.is_still(state) {
            return None;
        }
        touch(slot, state);
        Some((record_of(&words), HeldValue(held)))
    }

    /// Returns what `read` returns for the entry of a key, or `None` if there is none. `read` is called with
    /// the record, whose value may be under a lock: it must not run code of users. Its second argument says whether
    /// the words of the value are in the slot.
    #[inline(never)]
    pub(crate) fn read<R>(
        &self,
        key: &Key,
        mut read: &mut dyn FnMut(Record<&V>, bool) -> R,
    ) -> Result<Option<R>, Forked> {
        let (words, hash) = (KeyWords::of(key), HashPart::of(key.hash_code()));
        match self.look(hash, key, &words, &mut read)? {
            Some(Found::Entry(result)) => Ok(Some(result)),
            Some(Found::Changing) => {
                let _state = self.lock(hash)?;
                Ok(match self.look(hash, key, &words, &mut read)? {
                    Some(Found::Entry(result)) => Some(result),
                    Some(Found::Changing) | None => None,
                })
            }
            None => Ok(None),
        }
    }

    /// Reads the entry of a key, unless it is being written.
    fn look<R>(
        &self,
        hash: HashPart,
        key: &Key,
        words: &KeyWords,
        read: &mut impl FnMut(Record<&V>, bool) -> R,
    ) -> Result<Option<Found<R>>, Forked> {
        let Some(lines) = self.index.current() else { return Ok(None) };
        lines.find(hash, |number| self.read_at(number, key, words, read).transpose()).transpose()
    }

    /// Reads the entry in a slot, if it is that of a key.
    fn read_at<R>(
        &self,
        number: Number,
        key: &Key,
        words: &KeyWords,
        read: &mut impl FnMut(Record<&V>, bool) -> R,
    ) -> Result<Option<Found<R>>, Forked> {
        let Some(place) = self.chunks.place(number) else { return Ok(None) };
        let slot = place.slot();
        let state = slot.state();
        if !slot.has_key(words.first()) {
            return Ok(None);
        }
        if !state.is_valid() {
            return Ok(Some(Found::Changing));
        }
        let mut content = slot.load(state);
        if state.is_extended() || matches!(words, KeyWords::Wide(_)) {
            let Some(extension) = place.extension() else { return Ok(None) };
            if let KeyWords::Wide(words) = words
                && !extension.has_key(*words)
            {
                return Ok(None);
            }
            content.more = state.is_extended().then(|| extension.load());
        }
        let record = record_of(&content);
        if content.kind != HELD && V::IS_WORDS && !matches!(words, KeyWords::Long(_)) {
            if !slot.is_still(state) {
                return Ok(Some(Found::Changing));
            }
            touch(slot, state);
            let more = content.more.map_or(0, |more| more.value);
            let value = V::from_words([content.kind, content.value, more]);
            return Ok(value.map(|value| Found::Entry(read(record.map(|()| &value), true))));
        }
        let Some(held) = place.held() else { return Ok(None) };
        let held = read_here(held, self.process)?;
        // A writer changes the state under this lock.
        if !slot.is_still(state) {
            return Ok(Some(Found::Changing));
        }
        if let KeyWords::Long(_) = words
            && !held.key.as_ref().is_some_and(|held| held.matches(key))
        {
            return Ok(None);
        }
        touch(slot, state);
        Ok(held
            .value
            .as_ref()
            .map(|value| Found::Entry(read(record.map(|()| value), content.kind != HELD))))
    }

    /// Stores an entry, unless an earlier call has taken the record. It is taken once nothing can fail any
    /// more.
    pub(crate) fn write(
        &self,
        key: &Key,
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        if self.limits.entries == 0 {
            written.removed.extend(record.take().map(Record::into_value));
        }
        if record.is_none() {
            return Ok(());
        }
        let (words, hash) = (KeyWords::of(key), HashPart::of(key.hash_code()));
        self.try_write(key, &words, hash, record, written)
    }

    fn try_write(
        &self,
        key: &Key,
        words: &KeyWords,
        hash: HashPart,
        record: &mut Option<Record<V>>,
        written: &mut Written<V>,
    ) -> Result<(), Forked> {
        let weight = record.as_ref().map_or(0, |record| u64::from(record.weight()));
        let mut state = self.lock_with_room(hash)?;
        if let Some((number, place)) = self.find_locked(hash, key, words)? {
            let before = weight_at(place);
            self.write_at(place, key, words, record, &mut written.removed)?;
            state.weight = state.weight - before + weight;
            return self.make_room(&mut state, Some(number), written);
        }
        state.weight += weight;
        let length = state.queues.length();
        self.make_room(&mut state, None, written)?;
        let number = self.take_slot(&mut state)?;
        let place = self.chunks.place(number).ok_or(Forked)?;
        self.write_at(place, key, words, record, &mut written.removed)?;
        let is_evicting = state.queues.length() < length;
        let entries = match self.limits.weight {
            u64::MAX => self.limits.entries,
            _ if is_evicting => length,
            _ => usize::MAX,
        };
        state.queues.push(&self.chunks, number, hash, entries);
        if let Some(lines) = self.index.current() {
            lines.insert(hash, number);
        }
        Ok(())
    }

    /// Removes the entry of a key. Returns its value, if there was one that was held beside the slot, in
    /// the list of removed values.
    pub(crate) fn remove(&self, key: &Key) -> Result<(bool, Removed<V>), Forked> {
        let (words, hash) = (KeyWords::of(key), HashPart::of(key.hash_code()));
        let mut removed = Removed::new();
        let mut state = self.lock(hash)?;
        let found = self.find_locked(hash, key, &words)?;
        if let Some((number, place)) = found {
            removed.extend(self.remove_at(&mut state, number, place)?);
        }
        Ok((found.is_some(), removed))
    }

    /// Removes the entries that have expired at `now`, or all entries, and adds their values to the `values`.
    /// Returns their number, and when the first of the others expires.
    pub(crate) fn remove_expired(
        &self,
        now: Option<Timestamp>,
        values: &mut Vec<V>,
    ) -> Result<(u64, Timestamp), Forked> {
        let (mut count, mut next) = (0, Timestamp::NEVER);
        for shard in &self.shards {
            let mut state = lock_here(&shard.0, self.process)?;
            let mut expired = Vec::new();
            state.queues.visit(&self.chunks, |number| {
                let Some(place) = self.chunks.place(number) else { return };
                let end = stale_until_at(place);
                if now.is_some_and(|now| end > now) {
                    next = next.min(end);
                } else {
                    expired.push((number, place));
                }
            });
            for (number, place) in expired {
                values.extend(self.remove_at(&mut state, number, place)?);
                count += 1;
            }
        }
        Ok((count, next))
    }

    /// Writes the words of an entry whose value has become one of words since it was stored. What is held
    /// stays the same, so readers may read it in the meantime.
    #[cold]
    pub(crate) fn store_words(&self, key: &Key) -> Result<(), Forked> {
        let (words, hash) = (KeyWords::of(key), HashPart::of(key.hash_code()));
        let _state = self.lock(hash)?;
        let Some((_, place)) = self.find_locked(hash, key, &words)? else { return Ok(()) };
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
            slot.begin_write();
            extension.store(words.all(), more);
            slot.end_write(words.first(), &content, state.references());
        }
        Ok(())
    }

    fn shard(&self, hash: HashPart) -> &Shard {
        &self.shards[hash.scaled(self.shards.len())]
    }

    /// Locks the shard of a hash.
    fn lock(&self, hash: HashPart) -> Result<MutexGuard<'_, ShardState>, Forked> {
        lock_here(&self.shard(hash).0, self.process)
    }

    /// Locks the shard of a hash, and makes the index larger if it is full.
    fn lock_with_room(&self, hash: HashPart) -> Result<MutexGuard<'_, ShardState>, Forked> {
        loop {
            let state = self.lock(hash)?;
            if !self.index.is_full(state.queues.length()) {
                return Ok(state);
            }
            drop(state);
            self.grow_index()?;
        }
    }

    #[cold]
    fn grow_index(&self) -> Result<(), Forked> {
        if !self.process.is_current() {
            return Err(Forked);
        }
        let shards = self.shards.iter().map(|shard| lock_here(&shard.0, self.process));
        let mut shards = shards.collect::<Result<Vec<_>, _>>()?;
        let longest = shards.iter().map(|state| state.queues.length()).max();
        if self.index.is_full(longest.unwrap_or(0)) {
            self.index.grow(|lines| {
                for state in &mut shards {
                    state.queues.visit(&self.chunks, |number| {
                        lines.insert(hash_of(self.chunks.links(number)), number);
                    });
                }
            });
        }
        Ok(())
    }

    /// Returns the slot of a key. For the holder of the lock of its shard.
    fn find_locked(
        &self,
        hash: HashPart,
        key: &Key,
        words: &KeyWords,
    ) -> Result<Option<(Number, Place<'_, V>)>, Forked> {
        let Some(lines) = self.index.current() else { return Ok(None) };
        let found = lines.find(hash, |number| {
            let place = self.chunks.place(number)?;
            if !place.slot().has_key(words.first()) {
                return None;
            }
            let is_it = match words {
                KeyWords::Narrow(_) => Ok(true),
                KeyWords::Wide(words) => Ok(place.extension()?.has_key(*words)),
                KeyWords::Long(_) => read_here(place.held()?, self.process)
                    .map(|held| held.key.as_ref().is_some_and(|held| held.matches(key))),
            };
            match is_it {
                Ok(true) => Some(Ok((number, place))),
                Ok(false) => None,
                Err(forked) => Some(Err(forked)),
            }
        });
        found.transpose()
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
            let entries = match self.limits.weight {
                u64::MAX => self.limits.entries,
                _ => state.queues.length(),
            };
            let Some(number) = state.queues.pop(&self.chunks, entries, kept) else { break };
            let place = self.chunks.place(number).ok_or(Forked)?;
            written.removed.extend(self.clear(state, number, place)?);
            written.evictions += 1;
        }
        Ok(())
    }

    /// Returns a slot without an entry.
    fn take_slot(&self, state: &mut ShardState) -> Result<Number, Forked> {
        if let Some(number) = state.queues.take_free(&self.chunks) {
            return Ok(number);
        }
        self.chunks.take()
    }

    /// Writes an entry. Its old value, if that was held beside the slot, is added to the removed ones.
    fn write_at(
        &self,
        place: Place<'_, V>,
        key: &Key,
        words: &KeyWords,
        record: &mut Option<Record<V>>,
        removed: &mut Removed<V>,
    ) -> Result<(), Forked> {
        let Some(new) = record.as_ref() else { return Ok(()) };
        let value_words = new.value().to_words();
        let [kind, value, more_value] = value_words.unwrap_or([HELD, 0, 0]);
        let small = small_record_words(new);
        let needs_more = small.is_none() || more_value != 0 || matches!(words, KeyWords::Wide(_));
        let [created, expires, stale_until, schema, small] = record_words(new);
        debug_assert!(kind <= HELD, "{kind} is not the kind of a value");
        let content = Words {
            created,
            expires,
            schema,
            kind,
            value,
            compute_time: (small >> 16 & 0xffff) as u16,
            more: needs_more.then_some(MoreWords { stale_until, small, value: more_value }),
        };
        let is_long = matches!(words, KeyWords::Long(_));
        // All that may fail comes first.
        let extension = if needs_more { Some(place.make_extension(self.process)?) } else { None };
        let is_held = value_words.is_none() || !V::IS_WORDS || is_long;
        let held = if is_held { Some(place.make_held(self.process)?) } else { place.held() };
        let mut held = match held {
            Some(held) => Some(write_here(held, self.process)?),
            None => None,
        };
        let Some(record) = record.take() else { return Ok(()) };
        let slot = place.slot();
        let references = slot.state().references();
        slot.begin_write();
        if let Some(held) = &mut held {
            let old =
                if is_held { held.value.replace(record.into_value()) } else { held.value.take() };
            removed.extend(old);
            held.key = if is_long { Some(Box::new(CompactKey::from(key))) } else { None };
        }
        if let (Some(extension), Some(more)) = (extension, content.more) {
            extension.store(words.all(), more);
        }
        slot.end_write(words.first(), &content, references);
        Ok(())
    }

    /// Removes the entry in a slot. Returns its value, if that was held beside the slot.
    fn remove_at(
        &self,
        state: &mut ShardState,
        number: Number,
        place: Place<'_, V>,
    ) -> Result<Option<V>, Forked> {
        state.queues.remove(&self.chunks, number);
        self.clear(state, number, place)
    }

    /// Empties a slot whose entry is in no queue any more. Returns its value, if that was held beside it.
    fn clear(
        &self,
        state: &mut ShardState,
        number: Number,
        place: Place<'_, V>,
    ) -> Result<Option<V>, Forked> {
        let mut held = match place.held() {
            Some(held) => Some(write_here(held, self.process)?),
            None => None,
        };
        state.weight -= weight_at(place);
        let slot = place.slot();
        slot.begin_write();
        let value = held.as_mut().and_then(|held| {
            held.key = None;
            held.value.take()
        });
        slot.end_empty();
        if let Some(lines) = self.index.current() {
            lines.remove(hash_of(self.chunks.links(number)), number);
        }
        state.queues.free(&self.chunks, number);
        Ok(value)
    }
}

/// Marks an entry as referenced, for the first reads after a while.
#[inline(always)]
fn touch(slot: &Slot, state: State) {
    if !state.is_referenced_twice() {
        slot.mark_referenced(state);
    }
}

/// Returns the record of these words, without its value.
#[inline(always)]
fn record_of(words: &Words) -> Record<()> {
    let times = [words.created, words.expires, words.schema];
    match words.more {
        None => record_from_small_words((times, words.compute_time), ()),
        Some(more) => {
            let [created, expires, schema] = times;
            record_from_words([created, expires, more.stale_until, schema, more.small], ())
        }
    }
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
