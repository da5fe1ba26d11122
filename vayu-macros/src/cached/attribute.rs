//! The attribute that is being expanded.

/// The attribute that is being expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Attribute {
    #[default]
    Cached,
    MemCached,
    /// Stores nothing.
    SingleFlight,
}

impl Attribute {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::MemCached => "mem_cached",
            Self::SingleFlight => "single_flight",
        }
    }

    /// Returns the participle for messages: what happens to an output.
    pub(crate) fn participle(self) -> &'static str {
        match self {
            Self::Cached | Self::MemCached => "cached",
            Self::SingleFlight => "shared",
        }
    }

    /// Returns the noun for messages: what the calls with one key share.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Cached | Self::MemCached => "entry",
            Self::SingleFlight => "run",
        }
    }
}
