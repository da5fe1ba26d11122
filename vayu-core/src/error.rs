//! The error of the public interface.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::{fmt, iter};

use crate::outlined::Outlined;

/// The result of an operation on a cache or a backend.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a cache, a backend or a serializer.
///
/// The message, which [`Display`](fmt::Display) writes, names the operation and its subject. It never
/// contains keys, values or secrets. The cause, where there is one, is the
/// [`source`](StdError::source). [`Debug`](fmt::Debug) writes the message and all causes, as in
/// `invalidate tag: write generation: redis at cache:6379: no reply within 250ms`, so that is what
/// `unwrap` and `expect` show.
///
/// A cached call never returns this error: an error of the cache costs it time only. The methods of
/// [`Cache`](crate::Cache) and of [`Backend`](crate::Backend) return it.
///
/// `Error` is pointer-sized to keep `Result<Option<T>>` small.
pub struct Error(Box<Outlined<Detail>>);

struct Detail {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// The backend has logged the cause, and logs when it is over.
    is_logged: bool,
}

/// The replacement of a dropped detail.
impl Default for Detail {
    fn default() -> Self {
        Self { kind: ErrorKind::Miss, message: Cow::Borrowed(""), source: None, is_logged: false }
    }
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
        Self::of(Detail { kind, message: message.into(), source: None, is_logged: false })
    }

    fn of(detail: Detail) -> Self {
        Self(Box::new(Outlined::new(detail)))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Marks the error as one whose cause the backend logs itself: once when it begins, and once when
    /// it is over. Calls that fail with it log no warning of their own.
    #[must_use]
    pub fn logged_by_backend(mut self) -> Self {
        self.0.is_logged = true;
        self
    }

    /// Returns the kind, by what a caller can do about the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns an error of the same kind with this one as its source, for the operation that a caller
    /// has requested and of which this one is a step.
    pub(crate) fn in_operation(self, message: impl Into<Cow<'static, str>>) -> Self {
        let mut outer = Self::new(self.kind(), message);
        outer.0.is_logged = self.0.is_logged;
        outer.with_source(self)
    }

    /// Returns an error with the message, the kind and the cause of one that several operations share.
    pub(crate) fn shared(error: &Arc<Self>) -> Self {
        Self::of(Detail {
            kind: error.kind(),
            message: error.0.message.clone(),
            source: Some(Box::new(Arc::clone(error))),
            is_logged: error.0.is_logged,
        })
    }

    /// Returns the message, unless it was formatted for this error.
    pub(crate) fn static_message(&self) -> Option<&'static str> {
        match self.0.message {
            Cow::Borrowed(message) => Some(message),
            Cow::Owned(_) => None,
        }
    }

    /// Returns whether the backend logs the cause itself.
    pub(crate) fn is_logged_by_backend(&self) -> bool {
        self.0.is_logged
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_causes(self))
    }
}

/// Returns the message of an error and those of its causes, joined by `: `. A cause that the message
/// before it ends with is not repeated.
pub fn with_causes(error: &dyn StdError) -> String {
    let mut chain = error.to_string();
    for cause in iter::successors(error.source(), |&cause| cause.source()) {
        let message = cause.to_string();
        if !chain.ends_with(&message) {
            chain.push_str(": ");
            chain.push_str(&message);
        }
    }
    chain
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
    fn debug_is_the_message_and_all_causes() {
        let cause = || std::io::Error::other("disk on fire");
        let read = || Error::new(ErrorKind::Backend, "read entry").with_source(cause());
        assert_eq!(format!("{:?}", Error::new(ErrorKind::Backend, "clear")), "clear");
        assert_eq!(format!("{:?}", read()), "read entry: disk on fire");
        let outer = read().logged_by_backend().in_operation("look up");
        assert_eq!(format!("{outer:?}"), "look up: read entry: disk on fire");
        assert_eq!((outer.kind(), outer.to_string().as_str()), (ErrorKind::Backend, "look up"));
        assert!(outer.is_logged_by_backend());
        let repeated = Error::new(ErrorKind::Configuration, "open `x`: disk on fire");
        assert_eq!(format!("{:?}", repeated.with_source(cause())), "open `x`: disk on fire");
    }

    #[test]
    fn kinds_are_listed_in_the_order_of_their_values() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
