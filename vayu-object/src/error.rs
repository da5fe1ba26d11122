//! Failures of operations on a store.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use vayu_core::__internal::remote::{AtServer, CircuitOpen};
use vayu_core::__internal::with_causes;
use vayu_core::{Error, ErrorKind};

/// A failure of an operation. It becomes the source of the [`Error`] that is returned to the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}", with_causes(&**.0))]
    Store(Arc<object_store::Error>),
    #[error("not done within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    CircuitOpen(#[from] CircuitOpen<Failure>),
    #[error("object that is not one of a cache")]
    UnexpectedObject,
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

    /// Returns whether the store has rejected the operation, and does so again.
    pub(crate) fn is_refusal(&self) -> bool {
        use object_store::Error as E;
        matches!(
            self,
            Self::Store(error)
                if matches!(**error, E::NotSupported { .. } | E::NotImplemented { .. } | E::PermissionDenied { .. })
        )
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
