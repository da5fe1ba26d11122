//! Connections of async callers.

use std::time::Instant;

#[cfg(any(feature = "tls", feature = "cluster"))]
use redis::aio::ConnectionLike;
use redis::{Cmd, Value};

use crate::error::Failure;
use crate::pipeline::Pipeline;

/// A connection that many callers use at the same time. A clone is the same connection.
#[derive(Clone)]
pub(crate) enum AsyncConnection {
    /// To one server, without TLS.
    Plaintext(Pipeline),
    #[cfg(feature = "tls")]
    Tls(redis::aio::MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl AsyncConnection {
    /// Returns the reply to a command. Connections of the `redis` crate do not enforce the
    /// deadline.
    pub(crate) async fn send(self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        match self {
            Self::Plaintext(pipeline) => pipeline.send(command, deadline).await,
            #[cfg(feature = "tls")]
            Self::Tls(mut connection) => from_library(connection.req_packed_command(command).await),
            #[cfg(feature = "cluster")]
            Self::Cluster(mut connection) => {
                from_library(connection.req_packed_command(command).await)
            }
        }
    }
}

#[cfg(any(feature = "tls", feature = "cluster"))]
fn from_library(reply: redis::RedisResult<Value>) -> Result<Value, Failure> {
    reply.and_then(Value::extract_error).map_err(Failure::from_library)
}
