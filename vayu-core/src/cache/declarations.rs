//! Declarations of the functions of a cache: how they use their prefixes.
//!
//! A [`Key`] that is made by hand may lack the version or the tags of the function that it is for, and the
//! cache that it is passed to may have another serializer. So each function declares these when it
//! stores a value, and when its generations are read from the backend, but not on a hit in memory. The
//! methods that take a key compare them.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use crate::bounded_map::BoundedMap;
use crate::error::{Error, Result};
use crate::key::{Key, Prefix, hasher};
use crate::per_process::PerProcess;
use crate::serializer::SerializerId;
use crate::sync::IgnorePoison;
use crate::validity::{self, SchemaFlags};

/// The declarations of the functions of a cache.
#[derive(Debug)]
pub(crate) struct Declarations {
    of: PerProcess<RwLock<ByPrefix>>,
    /// Hashes of recent declarations.
    recent: [AtomicU64; RECENT],
    /// `true` if a function has a version, tags or a serializer of its own.
    has_constraints: AtomicBool,
}

type ByPrefix = BoundedMap<Prefix, Vec<Declaration>>;

/// A use of a prefix: by a function, or as the caller with a key assumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declaration {
    has_version: bool,
    flags: SchemaFlags,
    serializer: SerializerId,
    /// The stamp of the type.
    type_stamp: u64,
}

const RECENT: usize = 64;

/// Any odd number with many bits, for hashes.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The maximum number of prefixes. One that was removed past that is declared again.
const MAX_PREFIXES: usize = 4096;

fn empty() -> RwLock<ByPrefix> {
    RwLock::new(BoundedMap::new(MAX_PREFIXES))
}

impl Default for Declarations {
    fn default() -> Self {
        Self {
            of: PerProcess::new(empty()),
            recent: std::array::from_fn(|_| AtomicU64::new(0)),
            has_constraints: AtomicBool::new(false),
        }
    }
}

/// Hashes two numbers only: a declaration is hashed whenever a value is stored.
impl Hash for Declaration {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.type_stamp);
        state.write_u64(self.bits());
    }
}

impl Declaration {
    #[inline]
    pub(crate) fn new(
        key: &Key,
        flags: SchemaFlags,
        serializer: SerializerId,
        type_stamp: u64,
    ) -> Self {
        Self { has_version: key.has_version(), flags, serializer, type_stamp }
    }

    /// Returns all but the stamp of the type as a number.
    #[inline]
    fn bits(self) -> u64 {
        let (serializer, version) = (self.serializer.as_u16(), self.has_version);
        self.flags.to_bits() | u64::from(serializer) << 16 | u64::from(version) << 32
    }

    /// Returns whether two declarations are of the same entries. A serializer of the cache and one that
    /// is named by the function are not distinguished.
    fn is_compatible_with(self, other: Self) -> bool {
        self.has_version == other.has_version
            && self.flags.has_tags() == other.flags.has_tags()
            && self.serializer == other.serializer
            && self.type_stamp == other.type_stamp
    }

    /// Returns why this declaration [is compatible with](Self::is_compatible_with) none of the others.
    fn conflict(self, others: &[Self]) -> Error {
        let of_version = || others.iter().filter(|other| other.has_version == self.has_version);
        let of_tags =
            || of_version().filter(|other| other.flags.has_tags() == self.flags.has_tags());
        if of_version().next().is_none() {
            let needs =
                if self.has_version { validity::needs_no_version } else { validity::needs_version };
            return needs();
        }
        if of_tags().next().is_none() {
            return if self.flags.has_tags() {
                validity::needs_no_tags()
            } else {
                validity::needs_tags()
            };
        }
        if of_tags().all(|other| other.serializer != self.serializer) {
            return validity::needs_serializer();
        }
        validity::needs_type()
    }
}

impl Declarations {
    fn read(&self) -> RwLockReadGuard<'_, ByPrefix> {
        match self.of.get().try_read() {
            Ok(of) => return of,
            Err(TryLockError::Poisoned(of)) => return of.into_inner(),
            Err(TryLockError::WouldBlock) => self.replace_after_fork(),
        }
        self.of.get().read().ignore_poison()
    }

    fn write(&self) -> RwLockWriteGuard<'_, ByPrefix> {
        match self.of.get().try_write() {
            Ok(of) => return of,
            Err(TryLockError::Poisoned(of)) => return of.into_inner(),
            Err(TryLockError::WouldBlock) => self.replace_after_fork(),
        }
        self.of.get().write().ignore_poison()
    }

    /// Starts empty in a child process if a thread of the parent held the lock.
    fn replace_after_fork(&self) {
        if self.of.replace_after_fork(empty) {
            self.clear_recent();
        }
    }

    fn clear_recent(&self) {
        self.recent.iter().for_each(|recent| recent.store(0, Ordering::Relaxed));
    }

    /// Declares the use of a prefix by a function.
    #[inline]
    pub(crate) fn declare(&self, prefix: &Prefix, this: Declaration) {
        let hash = match prefix.function_number() {
            // Neither number is chosen by an attacker, so the hash needs no seed.
            Some(number) => {
                let number = number.rotate_left(16) ^ this.bits();
                this.type_stamp.wrapping_add(number).wrapping_mul(MIX) ^ number | 1
            }
            None => hasher::seeded().hash_one((prefix, this)) | 1,
        };
        let recent = &self.recent[usize::try_from(hash >> 1).unwrap_or(0) % RECENT];
        if recent.load(Ordering::Acquire) != hash {
            self.declare_new(prefix, this, hash, recent);
        }
    }

    #[cold]
    fn declare_new(&self, prefix: &Prefix, this: Declaration, hash: u64, recent: &AtomicU64) {
        let mut of = self.write();
        let (declared, is_removed) = of.get_or_insert_default(prefix);
        if is_removed {
            // Some may be of the prefix that was removed.
            self.clear_recent();
        }
        if !declared.contains(&this) {
            declared.push(this);
        }
        if this.has_version || this.flags != SchemaFlags::default() {
            self.has_constraints.store(true, Ordering::Release);
        }
        recent.store(hash, Ordering::Release);
    }

    /// Returns whether any function has a version, tags or a serializer of its own.
    #[inline]
    pub(crate) fn has_constraints(&self) -> bool {
        self.has_constraints.load(Ordering::Acquire)
    }

    /// Returns whether all declarations of a prefix are compatible with this one. `false` if there are
    /// none.
    ///
    /// # Errors
    ///
    /// When there are declarations, and none is compatible.
    #[cold]
    pub(crate) fn check(&self, prefix: &Prefix, this: Declaration) -> Result<bool> {
        let of = self.read();
        let Some(uses) = of.get(prefix) else { return Ok(false) };
        if !uses.iter().any(|other| other.is_compatible_with(this)) {
            return Err(this.conflict(uses));
        }
        Ok(uses.iter().all(|other| other.is_compatible_with(this)))
    }

    /// Checks a key that is to be removed: its type and its serializer do not matter.
    ///
    /// # Errors
    ///
    /// When all functions under the prefix have a version and the key has none, or the reverse.
    pub(crate) fn check_version(&self, key: &Key) -> Result<()> {
        let of = self.read();
        match of.get(key.prefix()) {
            Some(uses) if uses.iter().all(|other| other.has_version) && !key.has_version() => {
                Err(validity::needs_version())
            }
            _ => Ok(()),
        }
    }
}
