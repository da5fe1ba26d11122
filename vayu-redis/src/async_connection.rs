//! Connections of async callers.

use std::time::Instant;

#[cfg(any(feature = "tls", feature = "cluster"))]
use redis::aio::ConnectionLike;
use redis::{Cmd, Value};
#[cfg(feature = "cluster")]
use tokio::task::JoinSet;

use crate::error::Failure;
use crate::pipeline::Pipeline;
use crate::request::Replies;
#[cfg(feature = "tls")]
use crate::request::command_result;

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

    /// Returns the replies to several commands, which are sent without waiting for each other. In a cluster,
    /// a node that fails is a failure of its commands alone.
    ///
    /// # Errors
    ///
    /// Those of [`Pipeline::send_all`].
    pub(crate) async fn send_all(
        self,
        commands: &[Cmd],
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        match self {
            Self::Plaintext(pipeline) => pipeline.send_all(commands, deadline).await,
            #[cfg(feature = "tls")]
            Self::Tls(mut connection) => {
                let mut pipeline = redis::Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                let replies = connection.req_packed_commands(&pipeline, 0, commands.len()).await;
                let replies = replies.map_err(Failure::from_library)?;
                replies.into_iter().map(|reply| command_result(from_library(Ok(reply)))).collect()
            }
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => {
                let mut tasks = JoinSet::new();
                for (index, command) in commands.iter().cloned().enumerate() {
                    let mut connection = connection.clone();
                    let reply = async move { connection.req_packed_command(&command).await };
                    tasks.spawn(async move { (index, from_library(reply.await)) });
                }
                let mut replies = vec![Err(Failure::RuntimeStopped); commands.len()];
                while let Some(ended) = tasks.join_next().await {
                    let (index, reply) = ended.map_err(|_| Failure::RuntimeStopped)?;
                    replies[index] = reply;
                }
                Ok(replies)
            }
        }
    }
}

#[cfg(any(feature = "tls", feature = "cluster"))]
fn from_library(reply: redis::RedisResult<Value>) -> Result<Value, Failure> {
    reply.and_then(Value::extract_error).map_err(Failure::from_library)
}
