//! Which names the files of a cache have.

use vayu_core::Group;
use vayu_core::wire::WireKey;

/// How many folders the entries of a cache are spread over.
pub(crate) const SHARDS: usize = 256;

/// The file that says that a directory is a cache, so that things may be deleted in it.
pub(crate) const MARKER: &str = "VAYU";
pub(crate) const MARKER_TEXT: &str =
    "This directory is a cache of vayu. It may be deleted when no process uses it.\n";

/// The file that tells backup programs to leave a directory out (<https://bford.info/cachedir/>).
pub(crate) const TAG: &str = "CACHEDIR.TAG";
pub(crate) const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a cache of vayu. For information about cache directory tags see\n\
    # https://bford.info/cachedir/\n";

/// The file that says how much is in each shard.
pub(crate) const COUNTS: &str = "counts-1";

const ENTRY: &str = ".v1";
const GENERATION: &str = ".g1";
const LOCK: &str = ".lock";
const TEMPORARY: &str = ".vayu-tmp-";

/// Hex digits of the name of an entry, apart from the two of its folder.
const DIGITS: usize = 38;
const TEMPORARY_DIGITS: usize = 32;

/// Where the entry of a key is: in a folder named by two hex digits, under 38 more. And where the
/// generations of groups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    shard: u8,
    path: String,
}

impl Place {
    pub(crate) fn of(key: &WireKey) -> Self {
        let digest = key.digest();
        let mut digits = [0; 2 + DIGITS];
        let digits = const_hex::encode_to_str(&digest[..20], &mut digits).unwrap_or_default();
        let (shard, name) = digits.split_at(2);
        let path = [shard, "/", name, ENTRY].concat();
        Self { shard: digest[0], path }
    }

    /// Where the generation of a group is: under two hex digits. Groups with one place are
    /// invalidated together.
    pub(crate) fn of_generation(group: Group) -> Self {
        let [.., shard, name] = group.number().to_be_bytes();
        Self { shard, path: format!("{shard:02x}/{name:02x}{GENERATION}") }
    }

    pub(crate) fn shard(&self) -> usize {
        usize::from(self.shard)
    }

    /// The folder and the name.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The name in the folder.
    pub(crate) fn name(&self) -> &str {
        &self.path[3..]
    }

    /// The name of the file that is locked by whoever computes the value of this key.
    pub(crate) fn lock(&self) -> String {
        format!("{}{LOCK}", &self.path[3..3 + DIGITS])
    }
}

/// The name of the folder.
pub(crate) fn shard_name(shard: usize) -> String {
    format!("{shard:02x}")
}

/// A name for an entry that is being written, which no other process chooses.
pub(crate) fn temporary_name(random: [u8; 16]) -> String {
    format!("{TEMPORARY}{}", const_hex::encode(random))
}

/// What a file in a shard is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Entry,
    Temporary,
    Lock,
    Generation,
    /// None of ours: it is left alone.
    Foreign,
}

impl Role {
    pub(crate) fn of(name: &str) -> Self {
        if name.strip_suffix(ENTRY).is_some_and(|stem| is_hex(stem, DIGITS)) {
            Self::Entry
        } else if name.strip_suffix(LOCK).is_some_and(|stem| is_hex(stem, DIGITS)) {
            Self::Lock
        } else if name.strip_suffix(GENERATION).is_some_and(|stem| is_hex(stem, 2)) {
            Self::Generation
        } else if name.strip_prefix(TEMPORARY).is_some_and(|rest| is_hex(rest, TEMPORARY_DIGITS)) {
            Self::Temporary
        } else {
            Self::Foreign
        }
    }
}

/// Whether a name at the top of a directory may be there before it becomes a cache.
pub(crate) fn is_harmless(name: &str) -> bool {
    name == TAG || name == MARKER || name == "lost+found" || name.starts_with('.')
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use vayu_core::Key;

    use super::*;

    #[test]
    fn names_are_hex_whatever_the_key_is() {
        for text in ["", "/", "..", "a\0b", "CON", "é", &"k".repeat(1 << 20)] {
            let place = Place::of(&WireKey::new(&Key::from_text("p", text)));
            let (shard, name) = place.path().split_once('/').expect("a folder and a name");
            assert_eq!(shard, shard_name(place.shard()));
            assert_eq!(name, place.name());
            assert_eq!(Role::of(name), Role::Entry);
            assert_eq!(Role::of(&place.lock()), Role::Lock);
        }
    }

    #[test]
    fn generations_have_names_of_their_own() {
        let place = Place::of_generation(Group::tag("t"));
        let (shard, name) = place.path().split_once('/').expect("a folder and a name");
        assert_eq!((shard, name), (&*shard_name(place.shard()), place.name()));
        assert_eq!(Role::of(name), Role::Generation);
    }

    #[test]
    fn only_names_of_ours_are_ours() {
        assert_eq!(Role::of(&temporary_name([7; 16])), Role::Temporary);
        let digits = "0".repeat(DIGITS);
        for name in [
            "",
            ".v1",
            "VAYU",
            "notes.txt",
            &format!("{digits}.v2"),
            &format!("{digits}0.v1"),
            &format!("{}A.v1", &digits[1..]),
            ".vayu-tmp-",
            ".vayu-tmp-xyz",
            "00.v1",
            "000.g1",
            &format!("é{}.v1", &digits[2..]),
        ] {
            assert_eq!(Role::of(name), Role::Foreign, "{name}");
        }
    }
}
