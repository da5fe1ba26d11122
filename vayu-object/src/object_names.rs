//! Names of the objects in a store.

use object_store::path::Path;
use vayu_core::__internal::remote::generation_name;
use vayu_core::wire::WireKey;
use vayu_core::{Group, Result};

use crate::error::misconfigured;

/// Names of everything that a prefix has in a store. They contain the major version of the format, so that versions of
/// vayu with different formats do not replace each other's entries.
#[derive(Debug, Clone)]
pub(crate) struct ObjectNames {
    entries: Path,
    leases: Path,
    generations: Path,
}

impl ObjectNames {
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let prefix = Path::parse(prefix).map_err(|error| {
            misconfigured("the prefix of an object cache is not a path").with_source(error)
        })?;
        let version = prefix.join("v1");
        Ok(Self {
            entries: version.clone().join("entries"),
            leases: version.clone().join("leases"),
            generations: version.join("generations"),
        })
    }

    /// Returns the name of an entry: the SHA-256 of its key, in 256 folders.
    pub(crate) fn entry(&self, key: &WireKey) -> Path {
        name(&self.entries, key)
    }

    /// Returns the folder of all entries.
    pub(crate) fn entries(&self) -> &Path {
        &self.entries
    }

    /// Returns whether a name is that of an entry.
    pub(crate) fn is_entry(&self, path: &Path) -> bool {
        let Some(parts) = path.prefix_match(&self.entries) else { return false };
        let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
        let is_hex =
            |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let lengths: Vec<_> = parts.iter().map(String::len).collect();
        lengths == [2, 62] && parts.iter().all(|part| is_hex(part))
    }

    /// Returns the name of the lease for computing a key.
    pub(crate) fn lease(&self, key: &WireKey) -> Path {
        name(&self.leases, key)
    }

    /// Returns the name of a generation.
    pub(crate) fn generation(&self, group: Group) -> Path {
        self.generations.clone().join(generation_name(group))
    }
}

fn name(folder: &Path, key: &WireKey) -> Path {
    let digits = const_hex::encode(key.digest());
    let (shard, rest) = digits.split_at(2);
    folder.clone().join(shard).join(rest)
}

#[cfg(test)]
mod tests {
    use vayu_core::Key;

    use super::*;

    #[test]
    fn names_of_entries_are_recognized() {
        let names = ObjectNames::new("a/b").unwrap();
        let key = WireKey::new(&Key::from_text("p", "k"));
        let entry = names.entry(&key);
        assert!(entry.as_ref().starts_with("a/b/v1/entries/"), "{entry}");
        assert!(names.is_entry(&entry));
        assert!(!names.is_entry(&names.lease(&key)));
        assert!(!names.is_entry(&names.generation(Group::tag("t"))));
        assert!(!names.is_entry(&entry.clone().join("x")));
        for other in ["a/b/v1/entries/ab", "a/b/v1/entries/README", "a/b/v1/entries/ab/cd", "ab/cd"]
        {
            assert!(!names.is_entry(&Path::from(other)), "{other}");
        }
        let other = ObjectNames::new("a").unwrap();
        assert!(!other.is_entry(&entry));
    }

    #[test]
    fn prefix_is_a_path_or_empty() {
        assert!(ObjectNames::new("").unwrap().entries().as_ref() == "v1/entries");
        for wrong in ["a//b", "../b", "a/./b"] {
            assert!(ObjectNames::new(wrong).is_err(), "{wrong}");
        }
    }
}
