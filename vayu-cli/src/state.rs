//! The states of entries.

/// The state of an entry at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Fresh,
    /// Expired, but served while a new value is computed.
    Stale,
    Expired,
    Corrupt,
    /// It cannot be read at the moment, or is not a file. It may be intact.
    Unreadable,
    /// It may be intact, in a format of another release.
    Unsupported,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
            Self::Unsupported => "unsupported",
        }
    }
}
