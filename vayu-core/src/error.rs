//! The error of the public interface.

use std::borrow::Cow;
use std::error::Error as StdError;

/// The result of an operation on a cache or a backend.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a cache, a backend or a serializer.
///
/// The message names the operation and its subject. It never contains keys, values or secrets. The
/// cause, where there is one, is the [`source`](StdError::source).
///
/// A cached call never returns this error: an error of the cache costs it time only. The methods of
/// [`Cache`](crate::Cache) and of [`Backend`](crate::Backend) return it.
///
/// `Error` is pointer-sized to keep `Result<Option<T>>` small.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Detail>);

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Detail {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`], by what a caller can do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No value is stored where one is required.
    Miss,
    /// The backend failed or could not be reached. A later attempt may succeed.
    Backend,
    /// The backend did not respond within its time limit. The rest of the call does without it.
    Timeout,
    /// The value or the arguments cannot be encoded by the serializer. Another serializer or
    /// another type is needed.
    Encode,
    /// The stored value cannot be decoded as the requested type. The entry counts as absent.
    Decode,
    /// The cache is configured in a way that cannot work.
    Configuration,
    /// The backend does not offer this operation.
    Unsupported,
    /// Code that was given to the cache panicked: a backend, a serializer or a predicate.
    Panic,
}

impl ErrorKind {
    /// All kinds, in the order of declaration.
    pub(crate) const ALL: [Self; 8] = [
        Self::Miss,
        Self::Backend,
        Self::Timeout,
        Self::Encode,
        Self::Decode,
        Self::Configuration,
        Self::Unsupported,
        Self::Panic,
    ];
}

impl Error {
    /// Creates an error of this kind. The message is lower case and names the operation and its subject.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Detail { kind, message: message.into(), source: None }))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns the kind, by what a caller can do about the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_shows_its_message_and_keeps_kind_and_source() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Backend, "read entry").with_source(cause);
        assert_eq!(error.to_string(), "read entry");
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert_eq!(error.source().expect("a source").to_string(), "disk on fire");
    }

    #[test]
    fn kinds_are_listed_in_the_order_of_their_values() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
