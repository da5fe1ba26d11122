//! The connection of async callers: many of them talk over one at a time.

#[cfg(any(feature = "tls", feature = "cluster"))]
use redis::aio::ConnectionLike;
use redis::{Cmd, Value};

use crate::failure::Failure;
use crate::talk::Talk;

/// A connection. A clone is the same one.
#[derive(Clone)]
pub(crate) enum Line {
    /// To one server.
    Plain(Talk),
    #[cfg(feature = "tls")]
    Tls(redis::aio::MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Line {
    /// The answer to a command.
    pub(crate) async fn ask(self, command: &Cmd) -> Result<Value, Failure> {
        match self {
            Self::Plain(talk) => talk.ask(command).await,
            #[cfg(feature = "tls")]
            Self::Tls(mut connection) => {
                Ok(connection.req_packed_command(command).await?.extract_error()?)
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(mut connection) => {
                Ok(connection.req_packed_command(command).await?.extract_error()?)
            }
        }
    }
}
