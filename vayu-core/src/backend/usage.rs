//! The usage of a backend.

/// The number of entries of a backend, and of those that it removed or did not store. `None` means
/// unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Entries, including expired ones that are not yet swept.
    pub entries: Option<u64>,
    /// The limit on entries.
    pub max_entries: Option<u64>,
    /// The weight of all entries, in the unit of the backend's options.
    pub weight: Option<u64>,
    /// The limit on the weight.
    pub max_weight: Option<u64>,
    /// The limit of the size of one entry in bytes.
    pub max_entry_bytes: Option<u64>,
    /// Entries that were removed because a limit was reached.
    pub evictions: Option<u64>,
    /// Entries that were not stored because each of them alone exceeds the limit.
    pub rejections: Option<u64>,
    /// Entries that were removed because they had expired.
    pub expirations: Option<u64>,
    /// Entries that failed verification and were treated as absent. Sealed values are verified when they are decoded: one that
    /// was changed counts as an error of the kind `Decode`.
    pub corrupt_entries: Option<u64>,
    /// Values that were opened with another key than the first one, where a URL seals the values of the cache
    /// (`seal=env:NAME`). Old keys can be removed when this does not grow any more in any process.
    pub opened_with_old_keys: Option<u64>,
    /// Sweeps: searches of a part of the entries for expired ones.
    pub sweeps: Option<u64>,
}
