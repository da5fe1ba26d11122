//! Invalidation of groups of entries.

use std::any::type_name;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::{Cache, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Group;
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::Prefix;

/// # Invalidation by group
///
/// Each of these methods takes constant time for any number of entries: the group gets a new generation,
/// and values that were stored, or are being computed, under the old one are not served any more,
/// neither fresh nor stale. Their space is freed when they expire or are evicted.
///
/// An invalidation that returns an error of the kind [`ErrorKind::Backend`] or [`ErrorKind::Timeout`], or whose future is
/// dropped, is not lost: it is delivered once the backend can be reached again, by a thread that tries at least each second.
/// Until then this cache and its clones serve no entry of the group, and other caches and processes may. It is lost with
/// the process, or with the cache. Up to 4,096 groups are pending; beyond that everything is invalidated.
///
/// Each returns an error of the kind [`ErrorKind::Unsupported`], and does nothing, if the entries are not
/// in the memory of this process ([`Backend::is_in_process`]) and the backend has no generations
/// ([`Capabilities::generations`](crate::Capabilities::generations)): the invalidation would end with the
/// process, and the entries would not.
///
/// If processes share the backend, the invalidation of a tag is exact in all of them; that of a function
/// or of everything takes effect in the other processes within 100 ms.
impl<B: Backend, S> Cache<B, S> {
    /// Invalidates all entries with a tag: those of functions under `#[cached(tags(..))]`.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub fn invalidate_tag(&self, tag: impl Display) -> Result<()> {
        let subject = || named("tag", &tag);
        run_blocking(self.engine.invalidate::<Blocking>(Group::tag(&tag), subject))
    }

    /// [`invalidate_tag`](Self::invalidate_tag) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_tag`](Self::invalidate_tag).
    pub async fn invalidate_tag_async(&self, tag: impl Display) -> Result<()> {
        let (group, subject) = (Group::tag(&tag), named("tag", &tag));
        // The future need not hold a tag that is not `Send`.
        drop(tag);
        self.engine.invalidate::<Awaiting>(group, || subject).await
    }

    /// Invalidates all entries of a function; if it is generic, of this instance of it:
    /// `cache.invalidate_function(&rates)`.
    ///
    /// Entries of a function under `#[cached(prefix = ..)]` belong to the prefix: see
    /// [`invalidate_prefix`](Self::invalidate_prefix).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for a closure or a pointer, which are not functions by name;
    /// those of the backend.
    pub fn invalidate_function<F>(&self, function: &F) -> Result<()> {
        let prefix = prefix_of(function)?;
        let subject = || named("function", &prefix.as_str());
        run_blocking(self.engine.invalidate::<Blocking>(Group::of_prefix(prefix.as_str()), subject))
    }

    /// [`invalidate_function`](Self::invalidate_function) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_function`](Self::invalidate_function).
    pub async fn invalidate_function_async<F>(&self, function: &F) -> Result<()> {
        let prefix = prefix_of(function)?;
        let subject = || named("function", &prefix.as_str());
        self.engine.invalidate::<Awaiting>(Group::of_prefix(prefix.as_str()), subject).await
    }

    /// Delivers the invalidations that have not reached the backend, and returns the number of groups that are left after
    /// this time ([`Stats::pending_invalidations`](crate::Stats::pending_invalidations)): at the end of a
    /// program, which loses them.
    ///
    /// It returns as soon as nothing is pending. An attempt that has begun is not interrupted: it takes as long as the
    /// time limit of the backend.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
    /// # use vayu_core::{Cache, MessagePack, testing::MapBackend};
    /// # let cache: Cache<MapBackend, MessagePack> = Cache::new();
    /// let left = cache.deliver_pending(std::time::Duration::from_secs(5));
    /// if left > 0 {
    ///     eprintln!("{left} invalidations are lost");
    /// }
    /// # assert_eq!(left, 0);
    /// # }
    /// ```
    pub fn deliver_pending(&self, timeout: Duration) -> usize {
        run_blocking(self.engine.deliver_within::<Blocking>(timeout))
    }

    /// [`deliver_pending`](Self::deliver_pending) for async callers.
    pub async fn deliver_pending_async(&self, timeout: Duration) -> usize {
        self.engine.deliver_within::<Awaiting>(timeout).await
    }

    /// Invalidates all entries under a prefix: those of functions under `#[cached(prefix = ..)]`,
    /// and those whose [`Key`](crate::Key) was made with it.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub fn invalidate_prefix(&self, prefix: impl Into<Prefix>) -> Result<()> {
        let prefix = prefix.into();
        let subject = || named("prefix", &prefix.as_str());
        run_blocking(self.engine.invalidate::<Blocking>(Group::of_prefix(prefix.as_str()), subject))
    }

    /// [`invalidate_prefix`](Self::invalidate_prefix) for async callers.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn invalidate_prefix_async(&self, prefix: impl Into<Prefix>) -> Result<()> {
        let prefix = prefix.into();
        let subject = || named("prefix", &prefix.as_str());
        self.engine.invalidate::<Awaiting>(Group::of_prefix(prefix.as_str()), subject).await
    }

    /// Invalidates all entries. [`clear`](Self::clear) also frees their space, and takes longer.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub fn invalidate_all(&self) -> Result<()> {
        run_blocking(self.engine.invalidate::<Blocking>(Group::ALL, everything))
    }

    /// [`invalidate_all`](Self::invalidate_all) for async callers.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn invalidate_all_async(&self) -> Result<()> {
        self.engine.invalidate::<Awaiting>(Group::ALL, everything).await
    }
}

impl<B: Backend> Engine<B> {
    /// Invalidates a group. An error begins with `subject`.
    pub(crate) async fn invalidate<M: Io>(
        &self,
        group: Group,
        subject: impl FnOnce() -> String,
    ) -> Result<()> {
        let bumped = self.bump::<M>(group).await;
        bumped.map_err(|error| error.in_operation(format!("invalidate {}", subject())))
    }

    async fn bump<M: Io>(&self, group: Group) -> Result<()> {
        self.check_on()?;
        match self.backend().capabilities().generations {
            Some(generations) => self.bump_in_backend::<M>(generations, group).await,
            None => self.bump_local(group),
        }
    }

    /// Invalidates a group without waiting for the backend. It is delivered later; until then, no entry of the group is
    /// served in this process.
    pub(crate) fn invalidate_later(&self, group: Group) -> Result<()> {
        self.check_on()?;
        match self.backend().capabilities().generations {
            Some(_) => {
                self.bump_later(group);
                Ok(())
            }
            None => self.bump_local(group),
        }
    }

    /// Bumps a generation of this process, which is correct for entries that end with it.
    fn bump_local(&self, group: Group) -> Result<()> {
        if !self.backend().is_in_process() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the entries of this backend may outlive the process, and it keeps no generations: \
                 groups cannot be invalidated",
            ));
        }
        self.shared.generations.bump(group);
        self.shared.flags.set_has_local_bumps();
        Ok(())
    }
}

/// The length of the longest name in a message, in characters.
const MAX_NAME: usize = 80;

/// Formats the name of a group for a message.
pub(crate) fn named(kind: &str, name: &impl Display) -> String {
    let mut text = String::new();
    // If `Display` fails, the part that it has written is the name.
    let _ = write!(text, "{name}");
    let shown: String = text.escape_debug().take(MAX_NAME).collect();
    let end = if shown.len() < text.len() { ".." } else { "" };
    format!("{kind} `{shown}{end}`")
}

pub(crate) fn everything() -> String {
    "all entries".to_owned()
}

/// Returns the prefix of the entries of a function.
pub(crate) fn prefix_of<F>(_function: &F) -> Result<Prefix> {
    let name = type_name::<F>();
    if size_of::<F>() > 0 || name.ends_with("}}") || !name.contains("::") {
        return Err(Error::new(
            ErrorKind::Configuration,
            "only a function has entries; name the function itself, not a closure or a pointer",
        ));
    }
    Ok(Prefix::from(name.to_owned()))
}
