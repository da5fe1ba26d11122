//! Groups of entries that are invalidated together.

use std::fmt::{self, Display, Write};

use async_trait::async_trait;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;

/// Entries that are invalidated together: those with one tag, those of one function, or all.
///
/// A group is identified by a number, the same in every process. Two groups with one number are
/// invalidated together, which costs recomputations and is otherwise harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group(u64);

impl Group {
    /// Returns the group of the entries with this tag.
    pub fn tag(tag: impl Display) -> Self {
        Self::named(b't', tag)
    }

    /// Returns the group of the entries of a prefix: of a function, or of a string.
    pub(crate) fn of_prefix(prefix: &str) -> Self {
        Self::named(b'p', prefix)
    }

    pub(crate) const ALL: Self = Self(0);

    /// A group without entries, whose generation is for the backend's own use.
    pub const BACKEND: Self = Self(1);

    fn named(kind: u8, name: impl Display) -> Self {
        let mut text = Text(smallvec::smallvec![kind]);
        // If `Display` fails, the part that it has written is the name.
        let _ = write!(text, "{name}");
        Self(xxh3_64(&text.0))
    }

    /// Returns the number of the group.
    pub fn number(self) -> u64 {
        self.0
    }
}

struct Text(smallvec::SmallVec<[u8; 64]>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A count of changes of generations: see [`Generations::change_count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeCount {
    /// A number that changes after each change that was noticed, by this process or another one, and
    /// after a period in which changes were not noticed.
    pub count: u64,
    /// `true` while changes of other processes are noticed.
    pub is_connected: bool,
}

/// The generations of groups, where a backend keeps them: see
/// [`Capabilities::generations`](crate::Capabilities::generations).
///
/// An entry carries the generations that its groups had when its computation began, and is served
/// while they are the same. So a group of any size is invalidated by giving it another generation,
/// and values computed in the meantime are outdated when they are stored.
#[async_trait]
pub trait Generations: Send + Sync {
    /// Returns the generation of a group; zero if it was never bumped. It must be the current one: with
    /// an earlier one, outdated entries are served again.
    ///
    /// # Errors
    ///
    /// When it cannot be read. The call then goes on without the cache.
    fn generation(&self, group: Group) -> Result<u64>;

    /// Gives a group a generation that it never had.
    ///
    /// # Errors
    ///
    /// When it may still have the old one.
    fn bump(&self, group: Group) -> Result<()>;

    /// Returns a count that increases when a generation may have changed, as far as this process has
    /// noticed. While it is the same, and changes of other processes are noticed, the cache uses the
    /// generations that it has fetched. The default returns `None`: changes of other processes are not
    /// noticed.
    #[inline]
    fn change_count(&self) -> Option<ChangeCount> {
        None
    }

    /// Returns the generation of a group, for async callers. The default calls
    /// [`generation`](Self::generation).
    async fn generation_async(&self, group: Group) -> Result<u64> {
        self.generation(group)
    }

    /// Bumps the generation of a group, for async callers. The default calls [`bump`](Self::bump).
    async fn bump_async(&self, group: Group) -> Result<()> {
        self.bump(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_different_kinds_and_names_are_different() {
        let prefix = Group::of_prefix;
        assert_eq!(Group::tag("a"), Group::tag(format_args!("{}", 'a')));
        assert_ne!(Group::tag("a"), Group::tag("b"));
        assert_ne!(Group::tag("a"), prefix("a"));
        assert_ne!(prefix("a"), Group::ALL);
    }
}
