//! The names of the files of a cache. `docs/format.md` specifies them.

use vayu_core::Group;
use vayu_core::wire::WireKey;

/// The number of subdirectories (shards) of a cache.
pub(crate) const SHARDS: usize = 256;

/// The file that marks a directory as a cache, so that files may be deleted in it.
pub(crate) const MARKER: &str = "VAYU";
pub(crate) const MARKER_TEXT: &str =
    "This directory is a cache of vayu. It may be deleted when no process uses it.\n";

/// The file that excludes a directory from backups (<https://bford.info/cachedir/>).
pub(crate) const TAG: &str = "CACHEDIR.TAG";
pub(crate) const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a cache of vayu. For information about cache directory tags see\n\
    # https://bford.info/cachedir/\n";

/// The file with the records of the shards.
pub(crate) const COUNTS: &str = "counts-1";

const ENTRY: &str = ".v1";
const GENERATION: &str = ".g1";
const LOCK: &str = ".lock";
const TEMPORARY: &str = ".vayu-tmp-";

/// The number of hex digits in the name of an entry, without the two of its shard.
const DIGITS: usize = 38;
const TEMPORARY_DIGITS: usize = 32;

/// The path of an entry or a generation: a shard named by two hex digits, and a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryPath {
    shard: u8,
    path: String,
}

impl EntryPath {
    /// Returns the path of the entry of a key: 2 + 38 hex digits of its digest.
    pub(crate) fn of(key: &WireKey) -> Self {
        let digest = key.digest();
        let mut digits = [0; 2 + DIGITS];
        let digits = const_hex::encode_to_str(&digest[..20], &mut digits).unwrap_or_default();
        let (shard, name) = digits.split_at(2);
        let path = [shard, "/", name, ENTRY].concat();
        Self { shard: digest[0], path }
    }

    /// Returns the path of the generation of a group: 2 + 2 hex digits. Groups with the same path are
    /// invalidated together.
    pub(crate) fn of_generation(group: Group) -> Self {
        let [.., shard, name] = group.number().to_be_bytes();
        Self { shard, path: format!("{shard:02x}/{name:02x}{GENERATION}") }
    }

    pub(crate) fn shard(&self) -> usize {
        usize::from(self.shard)
    }

    /// Returns the path relative to the directory of the cache.
    pub(crate) fn as_str(&self) -> &str {
        &self.path
    }

    /// Returns the name in the shard.
    pub(crate) fn file_name(&self) -> &str {
        &self.path[3..]
    }

    /// Returns the name of the lock file of this key.
    pub(crate) fn lock_name(&self) -> String {
        format!("{}{LOCK}", &self.path[3..3 + DIGITS])
    }
}

/// Returns the name of a shard.
pub(crate) fn shard_name(shard: usize) -> String {
    format!("{shard:02x}")
}

/// Returns a unique name for a temporary file.
pub(crate) fn temporary_name(random: [u8; 16]) -> String {
    format!("{TEMPORARY}{}", const_hex::encode(random))
}

/// The kind of a file in a shard, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Entry,
    Temporary,
    Lock,
    Generation,
    /// A file that the cache did not create and does not touch.
    Foreign,
}

impl FileKind {
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

/// Returns whether a directory that contains a file of this name may become a cache.
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
            let path = EntryPath::of(&WireKey::new(&Key::from_text("p", text)));
            let (shard, name) = path.as_str().split_once('/').expect("a shard and a name");
            assert_eq!(shard, shard_name(path.shard()));
            assert_eq!(name, path.file_name());
            assert_eq!(FileKind::of(name), FileKind::Entry);
            assert_eq!(FileKind::of(&path.lock_name()), FileKind::Lock);
        }
    }

    #[test]
    fn generation_has_a_name_of_its_own_kind() {
        let path = EntryPath::of_generation(Group::tag("t"));
        let (shard, name) = path.as_str().split_once('/').expect("a shard and a name");
        assert_eq!((shard, name), (&*shard_name(path.shard()), path.file_name()));
        assert_eq!(FileKind::of(name), FileKind::Generation);
    }

    #[test]
    fn other_names_are_foreign() {
        assert_eq!(FileKind::of(&temporary_name([7; 16])), FileKind::Temporary);
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
            assert_eq!(FileKind::of(name), FileKind::Foreign, "{name}");
        }
    }
}
