//! What went wrong between this process and the server.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use redis::{RedisError, ServerErrorKind};
use vayu_core::{Error, ErrorKind};

/// A failure, kept as the source of the [`Error`] that a caller gets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the server is left alone for a while after it has failed several times")]
    Resting,
    #[error("the answer is none to this command")]
    Answer,
    #[error("the address of the server cannot be looked up")]
    Lookup(#[source] io::Error),
    #[cfg(feature = "sentinel")]
    #[error("no sentinel knows the server")]
    Sentinel,
    #[error("the helper thread has ended")]
    Helper,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Redis(error.into())
    }
}

impl Failure {
    /// The server has answered, if only with an error: the connection is as good as before.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            // A server that has become a replica, or does not know us, does so for every command.
            Self::Redis(error) => error.code().is_some() && !self.is_of_connection(),
            _ => false,
        }
    }

    /// Another connection may be answered better.
    fn is_of_connection(&self) -> bool {
        let Self::Redis(error) = self else { return true };
        let kind = match error.kind() {
            redis::ErrorKind::Server(kind) => Some(kind),
            redis::ErrorKind::Extension => None,
            _ => return true,
        };
        matches!(kind, Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
            || error.code() == Some("NOAUTH")
    }

    /// Returns whether the time limit of an operation has passed.
    fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::Redis(error) => error.is_timeout(),
            Self::Lookup(error) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    pub(crate) fn during(self, operation: impl Into<Cow<'static, str>>) -> Error {
        let kind = if self.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Backend };
        Error::new(kind, operation).with_source(self)
    }
}

/// An address or an option that cannot work.
pub(crate) fn misconfigured(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
