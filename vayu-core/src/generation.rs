//! Groups of entries that are invalidated together.

use std::fmt::{self, Display, Write};

use async_trait::async_trait;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use crate::key::Prefix;

/// Entries that are invalidated together: those with one tag, those of one function, or all.
///
/// A group is known by a number, the same in every process. Two groups with one number are
/// invalidated together, which costs computations and no wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group(u64);

impl Group {
    /// The entries with this tag.
    pub fn tag(tag: impl Display) -> Self {
        Self::named(b't', tag)
    }

    /// The entries of the function, or under the text, that the prefix stands for.
    pub(crate) fn of_prefix(prefix: &Prefix) -> Self {
        Self::named(b'p', prefix.as_str())
    }

    pub(crate) const ALL: Self = Self(0);

    /// No entry is in this group: a backend may keep in its generation what it likes.
    pub const BACKEND: Self = Self(1);

    fn named(kind: u8, name: impl Display) -> Self {
        let mut text = Text(smallvec::smallvec![kind]);
        // A `Display` that fails has written what it could.
        let _ = write!(text, "{name}");
        Self(xxh3_64(&text.0))
    }

    /// The number of the group.
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

/// How often a generation may have changed: see [`Generations::change_count`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeCount {
    /// Another number after each change that was noticed, whether this process made it or another
    /// one, and after a time in which changes were not noticed.
    pub count: u64,
    /// Whether the changes of other processes are noticed at present.
    pub is_connected: bool,
}

/// The generations of groups, where a backend keeps them: see
/// [`Sharing::generations`](crate::Sharing::generations).
///
/// An entry carries the generations that its groups had when its computation began, and is served
/// while they are the same. So a group of any size is invalidated by giving it another generation,
/// and what is computed meanwhile is outdated when it arrives.
#[async_trait]
pub trait Generations: Send + Sync {
    /// The generation of a group; zero if it was never renewed. It must be known for certain:
    /// whoever answers a generation that is past brings outdated entries back.
    ///
    /// # Errors
    ///
    /// When it cannot be known. The call then goes on without the cache.
    fn generation(&self, group: Group) -> Result<u64>;

    /// Gives a group a generation that it never had.
    ///
    /// # Errors
    ///
    /// When it may still have the old one.
    fn bump(&self, group: Group) -> Result<()>;

    /// Returns how often a generation may have changed, as far as this process knows. While the count
    /// stands still, and the changes of others are noticed, the cache keeps the generations that it has
    /// fetched. The default returns `None`: changes of others are not noticed.
    #[inline]
    fn change_count(&self) -> Option<ChangeCount> {
        None
    }

    /// [`generation`](Self::generation) for async callers. The default calls it.
    async fn generation_async(&self, group: Group) -> Result<u64> {
        self.generation(group)
    }

    /// [`bump`](Self::bump) for async callers. The default calls it.
    async fn bump_async(&self, group: Group) -> Result<()> {
        self.bump(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_different_kinds_and_names_are_different() {
        let prefix = |text: &'static str| Group::of_prefix(&Prefix::from(text));
        assert_eq!(Group::tag("a"), Group::tag(format_args!("{}", 'a')));
        assert_ne!(Group::tag("a"), Group::tag("b"));
        assert_ne!(Group::tag("a"), prefix("a"));
        assert_ne!(prefix("a"), Group::ALL);
    }
}
