//! The client: executes requests within a time limit, behind a circuit breaker.
//!
//! The breaker grants a permit for each attempt, or the request fails at once. The attempt sends the
//! command over a connection of the pool (sync) or over the shared one (async), once more if that
//! connection turns out to be closed, and its outcome is recorded with the permit. After a failure of
//! the server, the first attempt is a probe, and the others fail until its outcome is known.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use redis::Cmd;
use vayu_core::__internal::remote;
use vayu_core::Error;

use crate::commands::{Batch, Commands};
use crate::diagnostics::Operation;
use crate::error::Failure;
use crate::error_reply::Scope;
use crate::options::RedisOptions;
use crate::pool::{Pool, is_retryable};
use crate::request::Request;
use crate::runtime;
use crate::server::Server;
use crate::shared_connection::{Permit, SharedConnection};
use crate::sync_connection::SyncConnection;

/// A client of one server, a cluster or a master that sentinels watch. A clone is the same client.
///
/// Sync callers take a connection from a pool. Async callers share one connection.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientInner>);

struct ClientInner {
    server: Arc<Server>,
    pool: Pool,
    shared: SharedConnection,
    breaker: remote::Breaker<Failure>,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(server: Server, options: &RedisOptions) -> Self {
        let server = Arc::new(server);
        Self(Arc::new(ClientInner {
            pool: Pool::new(options.max_connections, options.max_idle),
            shared: SharedConnection::new(Arc::clone(&server), options.max_idle),
            breaker: options.remote.breaker(),
            timeout: server.timeout(),
            server,
        }))
    }

    /// Returns the value of a request.
    pub(crate) fn execute<T>(&self, request: &Request<T>) -> Result<T, Failure> {
        request.parse(self.send(request.command())?)
    }

    /// Returns the value of a request, on any executor.
    pub(crate) async fn execute_async<T>(&self, request: &Request<T>) -> Result<T, Failure> {
        request.parse(self.send_async(request.command()).await?)
    }

    /// Returns the values of several requests, which are sent without waiting for each other.
    fn execute_all<T>(&self, requests: Vec<Request<T>>) -> Vec<Result<T, Failure>> {
        let Some(batch) = Batch::new(requests) else { return Vec::new() };
        let replies = self.send(batch.commands());
        batch.parse(replies)
    }

    /// Returns the values of several requests, on any executor.
    async fn execute_all_async<T>(&self, requests: Vec<Request<T>>) -> Vec<Result<T, Failure>> {
        let Some(batch) = Batch::new(requests) else { return Vec::new() };
        let replies = self.send_async(batch.commands()).await;
        batch.parse(replies)
    }

    /// Returns an executor for sync callers.
    pub(crate) fn blocking(&self) -> Blocking {
        Blocking(self.clone())
    }

    /// Returns an executor for async callers.
    pub(crate) fn non_blocking(&self) -> NonBlocking {
        NonBlocking(self.clone())
    }

    fn send<C: Commands>(&self, commands: &C) -> Result<C::Reply, Failure> {
        let deadline = self.deadline();
        let permit = self.0.breaker.permit()?;
        let connect = || {
            // Callers that were admitted together need not all try to connect.
            permit.check()?;
            self.0.server.connect(deadline)
        };
        let send =
            |connection: &mut dyn SyncConnection| commands.send_blocking(connection, deadline);
        let reply = self.0.pool.with_connection(deadline, connect, send);
        let reply = reply.map_err(|failure| failure.within(self.0.timeout));
        self.record_outcome(permit, commands.first(), C::failure(&reply));
        reply
    }

    /// Records the outcome of an attempt in the circuit breaker and, if need be, in the log.
    fn record_outcome(&self, permit: Permit<'_>, command: &Cmd, failure: Option<&Failure>) {
        let diagnostics = self.0.server.diagnostics();
        diagnostics.record(&Operation::Command(command), failure);
        match failure {
            // Nothing was sent.
            Some(Failure::CircuitOpen(_)) => drop(permit),
            Some(failure) if failure.scope() == Scope::Server => {
                diagnostics.record_failure(failure, &permit.failed(failure));
                // The others have probably failed with it.
                self.0.pool.close_idle();
            }
            _ => {
                if permit.succeeded() {
                    diagnostics.record_success();
                }
            }
        }
    }

    async fn send_async<C: Commands>(&self, commands: &C) -> Result<C::Reply, Failure> {
        let deadline = self.deadline();
        let permit = self.0.breaker.permit()?;
        if permit.is_probe() {
            // All callers depend on the outcome of a probe, so it does not end with its caller.
            let (client, commands, permit) = (self.clone(), commands.clone(), permit.detach());
            let probe = async move {
                let permit = permit.attach(&client.0.breaker);
                client.send_permitted(permit, &commands, deadline).await
            };
            return runtime::run(probe).await;
        }
        self.send_permitted(permit, commands, deadline).await
    }

    async fn send_permitted<C: Commands>(
        &self,
        permit: Permit<'_>,
        commands: &C,
        deadline: Instant,
    ) -> Result<C::Reply, Failure> {
        let reply = self.send_with_retry(&permit, commands, deadline).await;
        self.record_outcome(permit, commands.first(), C::failure(&reply));
        reply
    }

    /// Sends commands over the current connection, and once more over a new one if the current one
    /// turns out to be closed.
    async fn send_with_retry<C: Commands>(
        &self,
        permit: &Permit<'_>,
        commands: &C,
        deadline: Instant,
    ) -> Result<C::Reply, Failure> {
        let shared = &self.0.shared;
        let (mut connection, is_reused) = shared.get_or_open(permit)?;
        let mut reply = commands.send(&connection, deadline).await;
        if let Some(failure) = C::connection_failure(&reply)
            && is_reused
            && is_retryable(failure, connection.began())
        {
            shared.discard(&connection);
            connection = shared.get_or_open(permit)?.0;
            reply = commands.send(&connection, deadline).await;
        }
        if C::connection_failure(&reply).is_some_and(Failure::ends_connection) {
            shared.discard(&connection);
        }
        reply
    }

    /// Runs `work` on a connection to each server that has entries, as one attempt with this
    /// command.
    pub(crate) fn for_each_master(
        &self,
        command: &Cmd,
        work: impl FnMut(&mut dyn SyncConnection) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let permit = self.0.breaker.permit()?;
        let result = self.0.server.for_each_master(|| self.deadline(), work);
        self.record_outcome(permit, command, result.as_ref().err());
        result
    }

    /// Returns whether connections limit the length of each string in a reply.
    pub(crate) fn limits_replies(&self) -> bool {
        self.0.server.limits_replies()
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.0.server
    }

    /// Returns the address of the server, without credentials.
    pub(crate) fn address(&self) -> &str {
        self.0.server.diagnostics().address()
    }

    /// Returns the error of an operation that has failed.
    pub(crate) fn error(&self, failure: Failure, operation: &'static str) -> Error {
        failure.into_error(operation, self.0.server.diagnostics().address())
    }

    /// Returns the time limit of an operation.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Returns the deadline of an operation that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.0.timeout
    }
}

/// Executes the requests of an operation that has several steps, so that the operation is written
/// once for sync and async callers.
pub(crate) trait Executor: Clone + Send + Sync + 'static {
    /// Returns the value of a request.
    fn execute<T>(&self, request: &Request<T>) -> impl Future<Output = Result<T, Failure>> + Send;

    /// Returns the values of several requests, which are sent without waiting for each other.
    fn execute_all<T: Send>(
        &self,
        requests: Vec<Request<T>>,
    ) -> impl Future<Output = Vec<Result<T, Failure>>> + Send;

    /// Runs steps that are completed even if the caller is cancelled in between. The default is for
    /// callers that cannot be cancelled.
    fn run_to_completion<T: Send + 'static>(
        &self,
        steps: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> impl Future<Output = Result<T, Failure>> + Send {
        steps
    }
}

/// An executor for async callers.
#[derive(Clone)]
pub(crate) struct NonBlocking(Client);

impl Executor for NonBlocking {
    async fn execute<T>(&self, request: &Request<T>) -> Result<T, Failure> {
        self.0.execute_async(request).await
    }

    async fn execute_all<T: Send>(&self, requests: Vec<Request<T>>) -> Vec<Result<T, Failure>> {
        self.0.execute_all_async(requests).await
    }

    async fn run_to_completion<T: Send + 'static>(
        &self,
        steps: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        runtime::run(steps).await
    }
}

/// An executor for sync callers. Its futures block, and are ready when they are first polled.
#[derive(Clone)]
pub(crate) struct Blocking(Client);

impl Executor for Blocking {
    async fn execute<T>(&self, request: &Request<T>) -> Result<T, Failure> {
        self.0.execute(request)
    }

    async fn execute_all<T: Send>(&self, requests: Vec<Request<T>>) -> Vec<Result<T, Failure>> {
        self.0.execute_all(requests)
    }
}

/// Returns the output of an operation on a [`Blocking`] executor.
///
/// # Panics
///
/// If the future is not ready at once, which no operation on such an executor is.
pub(crate) fn run_blocking<F: Future>(operation: F) -> F::Output {
    match pin!(operation).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a blocking executor does not suspend"),
    }
}
