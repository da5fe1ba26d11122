//! The stamp of a call: a hash of the generations of its groups.

use xxhash_rust::xxh3::xxh3_64;

use super::fetch::Read;
use crate::validity;

/// A builder of the stamp of a call from the generations of its groups.
#[derive(Default)]
pub(super) struct StampBuilder {
    bytes: smallvec::SmallVec<[u8; 64]>,
    /// A generation could not be read, and another number is used in its place.
    pub(super) is_offline: bool,
    /// The backend has not responded in time. No other generation is read for this stamp.
    pub(super) has_timed_out: bool,
}

/// The number of bytes for the coarse groups, which come first: see [`groups`](super::groups).
const COARSE_BYTES: usize = 2 * size_of::<u64>();

impl StampBuilder {
    pub(super) fn add(&mut self, generation: u64) {
        self.bytes.extend_from_slice(&generation.to_le_bytes());
    }

    /// Adds the result of reading a generation.
    pub(super) fn add_read(&mut self, read: Read) {
        self.is_offline |= read.is_offline;
        self.has_timed_out |= read.has_timed_out;
        self.add(read.generation);
    }

    /// Returns the stamp: zero if all generations are zero. Its lowest bits are left for the
    /// [flags](crate::validity). If no tag was ever invalidated, it is that of a call without tags.
    pub(super) fn get(&self) -> u64 {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let (coarse, tags) =
            self.bytes.split_at_checked(COARSE_BYTES).unwrap_or((&self.bytes, &[]));
        let made_of = if is_zero(tags) { coarse } else { &self.bytes[..] };
        if is_zero(made_of) { 0 } else { xxh3_64(made_of) >> validity::BITS << validity::BITS }
    }
}

/// The group by whose invalidation an entry is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidatedGroup {
    All,
    Function,
    Tag,
}

/// The maximum number of groups of which all combinations of generations are compared.
const MAX_COMBINED: usize = 6;

/// Returns the first group whose generation differs in the combination that makes up a stamp. Each group
/// has its present generation and two earlier ones.
pub(super) fn find_changed(known: &[[u64; 3]], stamp: u64) -> Option<InvalidatedGroup> {
    let matches = |choice: &[usize]| {
        let mut made = StampBuilder::default();
        known.iter().zip(choice).for_each(|(generations, &at)| made.add(generations[at]));
        made.get() == stamp
    };
    let name = |choice: &[usize]| match choice.iter().position(|&at| at > 0)? {
        0 => Some(InvalidatedGroup::All),
        1 => Some(InvalidatedGroup::Function),
        _ => Some(InvalidatedGroup::Tag),
    };
    let mut choice = vec![0; known.len()];
    for (group, at) in (0..known.len()).flat_map(|group| [(group, 1), (group, 2)]) {
        choice[group] = at;
        if matches(&choice) {
            return name(&choice);
        }
        choice[group] = 0;
    }
    let combined = known.len().min(MAX_COMBINED);
    for number in 0..3_usize.pow(u32::try_from(combined).unwrap_or(0)) {
        let mut rest = number;
        for at in &mut choice[..combined] {
            (*at, rest) = (rest % 3, rest / 3);
        }
        if matches(&choice) {
            return name(&choice);
        }
    }
    None
}
