//! Failures of operations on a store.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use vayu_core::__internal::remote::{AtServer, CircuitOpen};
use vayu_core::__internal::with_causes;
use vayu_core::{Error, ErrorKind};

/// A failure of an operation. It becomes the source of the [`Error`] that is returned to the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}", message(.0))]
    Store(Arc<object_store::Error>),
    /// Objects that were found before.
    #[error("no permission to delete, or other failure of a deletion: {}", message(.0))]
    NotDeleted(Arc<object_store::Error>),
    #[error("not done within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    CircuitOpen(#[from] CircuitOpen<Failure>),
    #[error("the object {0} is damaged, or not one of a cache, also after it was replaced")]
    UnexpectedObject(Path),
    #[error("no random bytes: {0}")]
    Random(Arc<std::io::Error>),
    /// The store does not support conditional requests, or ignores their condition.
    #[error("the store does not support conditional requests, so no leases are acquired")]
    Unconditional,
    #[error("the cache was opened before a fork: open it in the child process")]
    Forked,
    #[error("the store panicked")]
    Panicked,
    #[error("background thread has ended")]
    RuntimeStopped,
}

/// The size of the longest message of a store that is shown.
const MAX_MESSAGE: usize = 500;

/// Returns the message of a store, which may contain the reply of a server.
fn message(error: &object_store::Error) -> String {
    let mut message = with_causes(error);
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|&end| message.is_char_boundary(end));
        message.truncate(end.unwrap_or_default());
        message.push_str("..");
    }
    message
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Random(Arc::new(error))
    }
}

impl Failure {
    /// Returns whether the store does not work, and not only this operation.
    pub(crate) fn is_of_store(&self) -> bool {
        use object_store::Error as E;
        match self {
            Self::Store(error) => !matches!(
                **error,
                E::NotFound { .. }
                    | E::AlreadyExists { .. }
                    | E::Precondition { .. }
                    | E::NotModified { .. }
                    | E::InvalidPath { .. }
                    | E::NotSupported { .. }
                    | E::NotImplemented { .. }
                    | E::PermissionDenied { .. }
            ),
            Self::Timeout(_) | Self::Panicked => true,
            _ => false,
        }
    }

    /// Returns the error of an operation on this store.
    pub(crate) fn into_error(self, operation: &'static str, store: &Arc<str>) -> Error {
        let kind = match self {
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::Panicked => ErrorKind::Panic,
            _ => ErrorKind::Backend,
        };
        let error = Error::new(kind, operation);
        let is_logged = self.is_of_store() || matches!(self, Self::CircuitOpen(_));
        let error = if is_logged { error.logged_by_backend() } else { error };
        error.with_source(AtServer { kind: "", address: Arc::clone(store), failure: self })
    }
}

/// Creates an error for an invalid URL or option.
pub(crate) fn misconfigured(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_message_of_a_store_is_cut_off() {
        for length in [10, 499, 500, 501, 100_000] {
            let text = "\u{e9}".repeat(length);
            let error = object_store::Error::Generic { store: "s", source: text.into() };
            let shown = Failure::from(error).to_string();
            assert!(shown.len() <= MAX_MESSAGE + 2, "{length}: {}", shown.len());
        }
    }
}
