//! What one attempt sends: a command, or several that do not wait for each other's replies.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use redis::{Cmd, Value};

use crate::async_connection::AsyncConnection;
use crate::error::Failure;
use crate::error_reply::Scope;
use crate::request::{Parse, Replies, Request};
use crate::runtime;
use crate::shared_connection::PendingConnection;
use crate::sync_connection::SyncConnection;

/// The commands of one attempt.
pub(crate) trait Commands: Clone + Send + Sync + 'static {
    type Reply: Send + 'static;

    /// Returns the command by which the attempt is described. There is always one.
    fn first(&self) -> &Cmd;

    /// Returns the reply over a connection of a sync caller.
    fn send_blocking(
        &self,
        connection: &mut dyn SyncConnection,
        deadline: Instant,
    ) -> Result<Self::Reply, Failure>;

    /// Returns the reply over the connection of async callers, which may still have to be opened.
    fn send(
        &self,
        connection: &Arc<PendingConnection>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Reply, Failure>> + Send;

    /// Returns the failure of the attempt, if it has failed.
    fn failure(reply: &Result<Self::Reply, Failure>) -> Option<&Failure>;

    /// Returns the failure of the connection, which may be that of some of its commands: one node of a cluster
    /// may fail.
    fn connection_failure(reply: &Result<Self::Reply, Failure>) -> Option<&Failure> {
        Self::failure(reply)
    }
}

impl Commands for Cmd {
    type Reply = Value;

    fn first(&self) -> &Cmd {
        self
    }

    fn send_blocking(
        &self,
        connection: &mut dyn SyncConnection,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        connection.send(self, deadline)
    }

    async fn send(
        &self,
        connection: &Arc<PendingConnection>,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        if let Some(AsyncConnection::Plaintext(pipeline)) = connection.get() {
            // It enforces the deadline itself.
            return pipeline.send(self, deadline).await;
        }
        let (connection, command) = (Arc::clone(connection), self.clone());
        runtime::run(async move { connection.send(&command, deadline).await }).await
    }

    fn failure(reply: &Result<Value, Failure>) -> Option<&Failure> {
        reply.as_ref().err()
    }
}

/// Several commands. A batch is never empty.
impl Commands for Arc<[Cmd]> {
    type Reply = Replies;

    fn first(&self) -> &Cmd {
        &self[0]
    }

    fn send_blocking(
        &self,
        connection: &mut dyn SyncConnection,
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        connection.send_all(self, deadline)
    }

    async fn send(
        &self,
        connection: &Arc<PendingConnection>,
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        if let Some(AsyncConnection::Plaintext(pipeline)) = connection.get() {
            return pipeline.send_all(self, deadline).await;
        }
        let (connection, commands) = (Arc::clone(connection), Arc::clone(self));
        runtime::run(async move { connection.send_all(&commands, deadline).await }).await
    }

    fn failure(replies: &Result<Replies, Failure>) -> Option<&Failure> {
        match replies {
            Ok(replies) => server_failure(replies),
            Err(failure) => Some(failure),
        }
    }

    fn connection_failure(replies: &Result<Replies, Failure>) -> Option<&Failure> {
        match replies {
            Ok(replies) => {
                let mut failures = replies.iter().filter_map(|reply| reply.as_ref().err());
                failures.find(|failure| failure.scope() == Scope::Server)
            }
            Err(failure) => Some(failure),
        }
    }
}

/// Returns the failure of the server that is the reason for all of these results, `None` if it has executed
/// or rejected one of the commands.
pub(crate) fn server_failure<T>(results: &[Result<T, Failure>]) -> Option<&Failure> {
    let mut failures = results
        .iter()
        .map(|result| result.as_ref().err().filter(|failure| failure.scope() == Scope::Server));
    let first = failures.next()??;
    failures.all(|failure| failure.is_some()).then_some(first)
}

/// Several requests, whose commands are sent together.
pub(crate) struct Batch<T> {
    commands: Arc<[Cmd]>,
    parse: Vec<Parse<T>>,
}

impl<T> Batch<T> {
    /// Creates a batch, or `None` if there are no requests.
    pub(crate) fn new(requests: Vec<Request<T>>) -> Option<Self> {
        let (commands, parse): (Vec<_>, Vec<_>) =
            requests.into_iter().map(Request::into_parts).unzip();
        (!parse.is_empty()).then(|| Self { commands: commands.into(), parse })
    }

    pub(crate) fn commands(&self) -> &Arc<[Cmd]> {
        &self.commands
    }

    /// Returns the meanings of the replies, or the failure of all requests.
    pub(crate) fn parse(self, replies: Result<Replies, Failure>) -> Vec<Result<T, Failure>> {
        match replies {
            Ok(replies) if replies.len() == self.parse.len() => {
                let replies = replies.into_iter().zip(self.parse);
                replies.map(|(reply, parse)| parse(reply?)).collect()
            }
            Ok(_) => self.parse.iter().map(|_| Err(Failure::UnexpectedReply)).collect(),
            Err(failure) => self.parse.iter().map(|_| Err(failure.clone())).collect(),
        }
    }
}
