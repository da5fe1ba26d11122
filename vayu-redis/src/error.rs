//! Failures of requests.

#[cfg(feature = "tls")]
mod tls;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, ServerErrorKind};
use vayu_core::__internal::remote::{AtServer, CircuitOpen};
use vayu_core::{Error, ErrorKind};

use crate::error_reply::{self, Misconfiguration, Scope};
use crate::resp;

/// A failure of a request. It becomes the source of the [`Error`] that is returned to the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Redis(RedisError),
    /// The connection was closed before a byte of the reply was received. The command may be sent
    /// again over another connection.
    #[error("the connection was closed: {0}")]
    ConnectionLost(RedisError),
    /// No connection could be opened. This is a failure of the server, whatever its reason is.
    #[error("cannot connect: {0}")]
    Connect(Arc<Failure>),
    #[error("no reply within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    CircuitOpen(#[from] CircuitOpen<Failure>),
    #[error("unexpected reply")]
    UnexpectedReply,
    #[error("too many pending commands")]
    QueueFull,
    #[error("cannot resolve the host name")]
    Resolve(#[source] Arc<io::Error>),
    #[cfg(feature = "sentinel")]
    #[error("no sentinel knows a reachable master")]
    NoMaster,
    #[cfg(feature = "sentinel")]
    #[error("no sentinel knows a master of this name")]
    UnknownMasterName,
    #[cfg(feature = "sentinel")]
    #[error("sentinel: {0}")]
    FromSentinel(Arc<Failure>),
    #[error("background thread has ended")]
    RuntimeStopped,
}

impl From<RedisError> for Failure {
    /// Converts an error, without the arguments that a server repeats if it does not know a
    /// command: they may contain a password or a value.
    fn from(error: RedisError) -> Self {
        const ARGUMENTS: &str = ", with args beginning with";
        let detail = error.detail().unwrap_or_default();
        if let Some((command, _)) = detail.split_once(ARGUMENTS) {
            let kind = redis::ErrorKind::Server(ServerErrorKind::ResponseError);
            return Self::Redis((kind, "refused", command.to_owned()).into());
        }
        if error.is_timeout() {
            // Some systems say "resource temporarily unavailable".
            return Self::Redis(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        Self::Redis(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        RedisError::from(error).into()
    }
}

impl Failure {
    /// Converts an error of a connection of the `redis` crate, which does not say how much of the
    /// reply it has received.
    #[cfg(any(feature = "tls", feature = "cluster"))]
    pub(crate) fn from_library(error: RedisError) -> Self {
        if error.is_connection_dropped() { Self::ConnectionLost(error) } else { error.into() }
    }

    /// Converts a failure to open a connection.
    pub(crate) fn while_connecting(self) -> Self {
        match self {
            Self::Connect(_) | Self::CircuitOpen(_) => self,
            failure => Self::Connect(Arc::new(failure)),
        }
    }

    /// Returns whether the server does not support scripts or does not permit them, and so did
    /// nothing.
    pub(crate) fn is_scripting_refused(&self) -> bool {
        let Self::Redis(error) = self else { return false };
        let is_unknown = |detail: &str| {
            detail.contains("unknown command") || detail.contains("not allowed from script")
        };
        error.code() == Some("NOPERM") || error.detail().is_some_and(is_unknown)
    }

    /// Returns what has failed.
    pub(crate) fn scope(&self) -> Scope {
        let Self::Redis(error) = self else { return Scope::Server };
        let Some(code) = error.code() else { return Scope::Server };
        error_reply::scope(code, error.detail().unwrap_or_default())
    }

    /// Returns the misconfiguration that caused this, if one did.
    pub(crate) fn misconfiguration(&self) -> Option<Misconfiguration> {
        match self {
            Self::Connect(failure) => failure.misconfiguration(),
            #[cfg(feature = "sentinel")]
            Self::UnknownMasterName => Some(Misconfiguration::SentinelName),
            #[cfg(feature = "sentinel")]
            Self::FromSentinel(failure) => Some(match failure.misconfiguration()? {
                Misconfiguration::PasswordMissing
                | Misconfiguration::PasswordWrong
                | Misconfiguration::UnexpectedPassword => Misconfiguration::SentinelPassword,
                cause => cause,
            }),
            Self::Redis(error) | Self::ConnectionLost(error) => {
                #[cfg(feature = "tls")]
                if let Some(cause) = tls::misconfiguration(error) {
                    return Some(cause);
                }
                error_reply::misconfiguration(error.code()?, error.detail().unwrap_or_default())
            }
            _ => None,
        }
    }

    /// Returns whether a reply had a string that is longer than the limit.
    pub(crate) fn is_reply_too_long(&self) -> bool {
        matches!(self, Self::Redis(error) if error.to_string().contains(resp::TOO_LONG))
    }

    /// Returns whether a working server has rejected this one command.
    pub(crate) fn is_command_error(&self) -> bool {
        self.scope() == Scope::Command
    }

    /// Returns whether the connection was closed before the reply, which the server may not be the
    /// cause of.
    pub(crate) fn is_connection_lost(&self) -> bool {
        matches!(self, Self::ConnectionLost(_))
    }

    /// Returns whether the connection is unusable. A timeout or a full queue does not imply that.
    pub(crate) fn ends_connection(&self) -> bool {
        self.scope() == Scope::Server
            && !matches!(self, Self::Timeout(_) | Self::QueueFull | Self::CircuitOpen(_))
    }

    /// Names the time limit in an error of a connection that has received no reply in time.
    pub(crate) fn within(self, limit: Duration) -> Self {
        match self {
            Self::Redis(error) if error.is_timeout() => Self::Timeout(limit),
            failure => failure,
        }
    }

    /// Returns whether the timeout of an operation has passed.
    fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::Redis(error) => error.is_timeout(),
            Self::Resolve(error) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Returns whether the diagnostics of the connection log the cause.
    fn is_logged(&self) -> bool {
        match self {
            Self::UnexpectedReply | Self::RuntimeStopped => false,
            failure => failure.scope() == Scope::Server || failure.misconfiguration().is_some(),
        }
    }

    /// Returns the error of an operation on the server at an address.
    pub(crate) fn into_error(
        self,
        operation: impl Into<Cow<'static, str>>,
        address: &Arc<str>,
    ) -> Error {
        let kind = if self.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Backend };
        let error = Error::new(kind, operation);
        let error = if self.is_logged() { error.logged_by_backend() } else { error };
        error.with_source(AtServer {
            kind: "redis at ",
            address: Arc::clone(address),
            failure: self,
        })
    }
}

/// Creates an error for an invalid URL or option.
pub(crate) fn misconfigured(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    #[test]
    fn arguments_repeated_by_the_server_are_left_out() {
        let line = b"-ERR unknown command 'AUTH', with args beginning with: 'me' 'secret' \r\n";
        let error = parse_redis_value(line).unwrap().extract_error().unwrap_err();
        let failure = Failure::from(error);
        let message = format!("{failure} {failure:?} {:?}", failure.clone().while_connecting());
        assert!(
            message.contains("unknown command 'AUTH'") && !message.contains("secret"),
            "{message}"
        );
        assert_eq!(failure.scope(), Scope::Command);
        assert_eq!(failure.while_connecting().scope(), Scope::Server);
    }
}
