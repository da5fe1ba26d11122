//! Names of the keys on the server.

use vayu_core::__internal::remote::generation_name;
use vayu_core::Group;
use vayu_core::wire::WireKey;

/// The length of a digest in hex.
const DIGITS: usize = 64;

/// The part of the name of an entry between the namespace and the digest.
const ENTRY: &str = ":e:";

/// Names of everything that a namespace keeps on the server.
#[derive(Debug, Clone)]
pub(crate) struct KeyNames {
    namespace: String,
}

impl KeyNames {
    pub(crate) fn new(namespace: String) -> Self {
        Self { namespace }
    }

    /// Returns the name of an entry.
    pub(crate) fn entry(&self, key: &WireKey) -> String {
        self.for_key(ENTRY, key)
    }

    /// Calls `each` with the names of entries, which are in one string after the other.
    pub(crate) fn for_each_entry(&self, keys: &[WireKey], mut each: impl FnMut(&str)) {
        let mut name = String::with_capacity(self.entry_length());
        name.push_str(&self.namespace);
        name.push_str(ENTRY);
        let (start, mut digits) = (name.len(), [0; DIGITS]);
        for key in keys {
            name.truncate(start);
            name.push_str(const_hex::encode_to_str(key.digest(), &mut digits).unwrap_or_default());
            each(&name);
        }
    }

    /// Returns the length of the names of entries.
    pub(crate) fn entry_length(&self) -> usize {
        self.namespace.len() + ENTRY.len() + DIGITS
    }

    /// Returns the name of the entry with this digest, in hex.
    pub(crate) fn entry_of(&self, digits: &str) -> String {
        [&self.namespace, ENTRY, digits].concat()
    }

    /// Returns a pattern that matches the names of all entries. It matches digests by their length,
    /// so that entries of the namespace `a:e` do not match the pattern of `a`.
    pub(crate) fn entry_pattern(&self) -> String {
        let mut pattern = String::new();
        for character in self.namespace.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + ENTRY + &"?".repeat(DIGITS)
    }

    /// Returns the name of the lease for computing a key.
    pub(crate) fn lease(&self, key: &WireKey) -> String {
        self.for_key(":c:", key)
    }

    fn for_key(&self, kind: &str, key: &WireKey) -> String {
        let mut digits = [0; DIGITS];
        let digits = const_hex::encode_to_str(key.digest(), &mut digits).unwrap_or_default();
        [&self.namespace, kind, digits].concat()
    }

    /// Returns the name of a generation. Groups that share a name are invalidated together.
    pub(crate) fn generation(&self, group: Group) -> String {
        [&self.namespace, ":g:", &generation_name(group)].concat()
    }

    /// Returns the channel on which invalidations are published.
    pub(crate) fn invalidation_channel(&self) -> Vec<u8> {
        format!("{}:invalidations", self.namespace).into_bytes()
    }

    /// Returns the channels on which released leases are published.
    pub(crate) fn release_channels(&self) -> ReleaseChannels {
        let one = format!("{}:released:", self.namespace).into_bytes();
        ReleaseChannels { all: self.invalidation_channel(), one }
    }
}

/// The channels on which released leases are published.
#[derive(Debug)]
pub(crate) struct ReleaseChannels {
    /// The channel of all processes.
    pub(crate) all: Vec<u8>,
    /// The beginning of the name of the channel of one process, which its id follows.
    pub(crate) one: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use vayu_core::Key;

    use super::*;

    #[test]
    fn special_characters_of_a_namespace_are_escaped_in_the_pattern() {
        let names = KeyNames::new("a*b[c]".to_owned());
        assert_eq!(names.entry_pattern(), format!("a\\*b\\[c\\]:e:{}", "?".repeat(64)));
        let key = WireKey::new(&Key::from_text("p", "k"));
        assert!(names.entry(&key).starts_with("a*b[c]:e:"));
        assert_ne!(names.entry(&key), names.lease(&key));
    }
}
