//! Reads of a table.

use vayu_core::__internal::{key_words, record_from_small_words, record_from_words};
use vayu_core::{Key, Record};

use crate::sync::{RwLockReadGuard, unless_held};
use crate::table::chunks::{Forked, Held, Number, read_here};
use crate::table::index::HashPart;
use crate::table::slot::{EntryKind, HELD, MoreWords, NARROW_KEY, Slot, State, WIDE_KEY, Words};
use crate::table::{KeyLayout, Table, TableKey};
use crate::value::{MemoryValue, VALUE_WORDS};

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

impl<V: MemoryValue> Table<V> {
    /// Returns what `read` returns for the entry of a key if its value consists of words of this kind (of any kind if that is
    /// `None`) and it is the first candidate of the index, as most are, without a lock. For others [`read`](Self::read) is to be
    /// called: this function calls no other, so that what it returns stays in registers.
    #[inline(always)]
    pub(crate) fn read_words<R>(
        &self,
        key: &Key,
        kind: Option<u64>,
        read: impl FnOnce(Record<[u64; VALUE_WORDS]>) -> R,
    ) -> Option<R> {
        // No words are of such a kind, for which the state of an entry has no bits.
        if kind.is_some_and(|kind| kind >= HELD) {
            return None;
        }
        let number = self.index.current()?.first(HashPart::of(key.hash_code()))?;
        let place = self.chunks.place(number)?;
        let (slot, state) = (place.slot(), place.slot().state());
        let narrow = key_words::<NARROW_KEY>(key);
        if let Some(words) = narrow {
            if !slot.has_key(words) {
                return None;
            }
            if let Some(state) = touched(slot, state, State::in_slot(kind)) {
                // Here, so that the compiler knows which words there are.
                return Some(read(words_of(slot, state, kind, None)?));
            }
        }
        let extension = place.extension()?;
        if narrow.is_none() {
            let words = key_words::<WIDE_KEY>(key)?;
            let [first, second, third, ..] = words;
            if !slot.has_key([first, second, third]) || !extension.has_key(words) {
                return None;
            }
        }
        let state = touched(slot, state, State::extended(kind))?;
        Some(read(words_of(slot, state, kind, Some(extension.load()))?))
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
        if !slot.has_key(words) {
            return None;
        }
        let state = touched(slot, state, State::BESIDE_SLOT)?;
        let words = slot.load(state);
        // A writer changes the state under this lock.
        let held = unless_held(place.held()?.try_read())?;
        if !slot.is_unchanged(state) {
            return None;
        }
        Some((record_of(&words), HeldValue(held)))
    }

    /// Returns `true` if a key is not in the table and one line of the index is enough to know that, as for
    /// most keys that are not.
    #[inline]
    pub(crate) fn is_absent(&self, key: &Key) -> bool {
        let hash = HashPart::of(key.hash_code());
        self.index.current().is_none_or(|lines| lines.have_no_candidate(lines.home(hash), hash))
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
        let key = TableKey::new(key);
        match self.look(&key, &mut read)? {
            Some(Found::Entry(result)) => Ok(Some(result)),
            Some(Found::Changing) => {
                let _state = self.lock(key.hash)?;
                Ok(match self.look(&key, &mut read)? {
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
        key: &TableKey<'_>,
        read: &mut impl FnMut(Record<&V>, bool) -> R,
    ) -> Result<Option<Found<R>>, Forked> {
        let Some(lines) = self.index.current() else { return Ok(None) };
        lines.find(key.hash, |number| self.read_at(number, key, read).transpose()).transpose()
    }

    /// Reads the entry in a slot, if it is that of a key.
    fn read_at<R>(
        &self,
        number: Number,
        key: &TableKey<'_>,
        read: &mut impl FnMut(Record<&V>, bool) -> R,
    ) -> Result<Option<Found<R>>, Forked> {
        let Some(place) = self.chunks.place(number) else { return Ok(None) };
        let slot = place.slot();
        let state = slot.state();
        if !slot.has_key(key.words) {
            return Ok(None);
        }
        if !state.is_valid() {
            return Ok(Some(Found::Changing));
        }
        let mut content = slot.load(state);
        if state.is_extended() || key.layout == KeyLayout::Wide {
            let Some(extension) = place.extension() else { return Ok(None) };
            if let Some(words) = key.wide_words()
                && !extension.has_key(words)
            {
                return Ok(None);
            }
            content.more = state.is_extended().then(|| extension.load());
        }
        let record = record_of(&content);
        if content.kind != HELD && V::IS_WORDS && key.layout != KeyLayout::Long {
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
        if key.layout == KeyLayout::Long
            && !held.key.as_ref().is_some_and(|held| held.matches(key.key))
        {
            return Ok(None);
        }
        touch(slot, state);
        Ok(held
            .value
            .as_ref()
            .map(|value| Found::Entry(read(record.map(|()| value), content.kind != HELD))))
    }
}

/// Returns the state of a slot that has an entry of this kind, which is marked as referenced.
#[inline(always)]
fn touched(slot: &Slot, state: State, kind: EntryKind) -> Option<State> {
    if state.is_referenced(kind) {
        Some(state)
    } else if state.is(kind) {
        Some(slot.mark_referenced(state))
    } else {
        None
    }
}

/// Returns the entry of a slot, unless its state is another one now. `more` is what its extension has.
#[inline(always)]
fn words_of(
    slot: &Slot,
    state: State,
    kind: Option<u64>,
    more: Option<MoreWords>,
) -> Option<Record<[u64; VALUE_WORDS]>> {
    let words = Words { more, ..slot.load(state) };
    if !slot.is_unchanged(state) {
        return None;
    }
    let more = more.map_or(0, |more| more.value);
    Some(record_of(&words).map(|()| [kind.unwrap_or(words.kind), words.value, more]))
}

/// Marks an entry as referenced, for the first reads after a while.
#[inline(always)]
fn touch(slot: &Slot, state: State) {
    if !state.is_fully_referenced() {
        slot.mark_referenced(state);
    }
}

/// Returns the record of these words, without its value.
#[inline(always)]
pub(super) fn record_of(words: &Words) -> Record<()> {
    let times = [words.created, words.expires, words.schema];
    match words.more {
        None => record_from_small_words((times, words.compute_time), ()),
        Some(more) => {
            let [created, expires, schema] = times;
            record_from_words([created, expires, more.stale_until, schema, more.small], ())
        }
    }
}
