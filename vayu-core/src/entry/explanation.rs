//! The explanation of what the next call of an entry would do.

use std::fmt;

use crate::error::Error;

/// The reason for which the next call of an [`Entry`](crate::Entry) would return the cached value, or run
/// its function: [`Entry::explain`](crate::Entry::explain).
#[derive(Debug)]
#[non_exhaustive]
pub enum Explanation {
    /// The value is fresh: the call returns it.
    Hit,
    /// The value is past its ttl and within `stale`: the call refreshes it, or returns it while another
    /// caller does.
    Stale,
    /// There is no value to return, and an error of the function is cached (`err_ttl`): the call returns it.
    ErrorHit,
    /// There is no entry: it was never stored, was removed or evicted, has another version, or had expired
    /// and was swept.
    Absent,
    /// The entry is past its ttl, and past `stale` if the function has that, or was not used for its `idle` time.
    Expired,
    /// The entry was created more than five minutes after the present time of the clock, which was set back.
    FromTheFuture,
    /// Everything was invalidated since the entry was stored.
    AllInvalidated,
    /// The function, or its prefix, was invalidated since the entry was stored.
    FunctionInvalidated,
    /// A tag of the call was invalidated since the entry was stored.
    TagInvalidated,
    /// A tag, the function or everything was invalidated more than once since the entry was stored, so that
    /// it is not known which.
    Invalidated,
    /// The entry holds a value of another type.
    OtherType,
    /// The entry was encoded by another serializer.
    OtherSerializer,
    /// The entry is corrupt, or cannot be decoded: then with the error.
    Corrupt(Option<Error>),
    /// The cache, or every cache, is paused, or the cache is off.
    Paused,
    /// The arguments cannot be encoded, so the call has no key.
    NoKey(Error),
    /// The backend could not be read.
    Unreadable(Error),
}

/// The record that explains a call, or the explanation for why there is none.
pub(super) type Examined<T> = Result<T, Explanation>;

impl Explanation {
    /// Returns whether the next call would return the cached value, and not run the function.
    pub fn is_hit(&self) -> bool {
        matches!(self, Self::Hit)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hit => "hit",
            Self::Stale => "past its ttl, served stale while it is refreshed",
            Self::ErrorHit => "an error of the function is cached",
            Self::Absent => {
                "no entry: never stored, removed, evicted, swept, or of another version"
            }
            Self::Expired => "expired",
            Self::FromTheFuture => "created in the future: the clock was set back",
            Self::AllInvalidated => "everything was invalidated",
            Self::FunctionInvalidated => "the function was invalidated",
            Self::TagInvalidated => "a tag was invalidated",
            Self::Invalidated => "a tag, the function or everything was invalidated",
            Self::OtherType => "the entry holds a value of another type",
            Self::OtherSerializer => "the entry was encoded by another serializer",
            Self::Corrupt(None) => "the entry is corrupt",
            Self::Corrupt(Some(error)) => return write!(f, "the entry is corrupt: {error:?}"),
            Self::Paused => "the cache is paused or off",
            Self::NoKey(error) => return write!(f, "no key: {error:?}"),
            Self::Unreadable(error) => return write!(f, "the backend cannot be read: {error:?}"),
        })
    }
}
