//! The outcome of a call.

/// The source of the value that a call returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The cache.
    Hit,
    /// A run of the function.
    Miss,
    /// The run of another caller, at the time of the call.
    Coalesced,
    /// The cache, with a value past its ttl.
    Stale,
    /// A run of the function to replace a value past its ttl, or a forced refresh.
    Refresh,
    /// The cache, with an error of the function (`err_ttl`).
    ErrorHit,
}

impl CallOutcome {
    /// Returns the name in lower case, as it is logged.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Refresh => "refresh",
            Self::ErrorHit => "error_hit",
        }
    }
}
