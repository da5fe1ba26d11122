//! The client: performs operations on a store within a time limit, behind a circuit breaker.
//!
//! All operations run in a background runtime, in a task each, since stores need the timers and the I/O of tokio, which
//! their callers may not have. A task runs to its end even if its caller goes away.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use vayu_core::__internal::remote::{BackgroundRuntime, Breaker, Permit, Process, ServerOutages};
use vayu_core::Error;

use crate::error::Failure;
use crate::objects::{Objects, limited};
use crate::options::ObjectOptions;

/// A client of one store. A clone is the same client.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientInner>);

struct ClientInner {
    store: Arc<dyn ObjectStore>,
    /// The name of the store, for messages.
    name: Arc<str>,
    timeout: Duration,
    breaker: Breaker<Failure>,
    outages: ServerOutages,
    process: Process,
}

/// Returns the background runtime.
pub(crate) fn runtime() -> Result<&'static Handle, Failure> {
    static RUNTIME: BackgroundRuntime = BackgroundRuntime::new("vayu-object");
    RUNTIME.handle().ok_or(Failure::RuntimeStopped)
}

impl Client {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, options: &ObjectOptions) -> Self {
        let name: Arc<str> = format!("object store {store}").into();
        Self(Arc::new(ClientInner {
            store,
            timeout: options.remote.timeout,
            breaker: options.remote.breaker(),
            outages: ServerOutages::new(Arc::clone(&name), &options.remote.breaker_clock),
            name,
            process: Process::current(),
        }))
    }

    /// Starts an operation in the background runtime, which has one time limit for all of its requests.
    pub(crate) fn start<T, F>(
        &self,
        operation: impl FnOnce(Objects) -> F,
    ) -> Result<Operation<T>, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        self.start_within(self.0.timeout, operation)
    }

    /// Starts an operation with another time limit.
    fn start_within<T, F>(
        &self,
        limit: Duration,
        operation: impl FnOnce(Objects) -> F,
    ) -> Result<Operation<T>, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        if !self.is_of_this_process() {
            // The connections in the store are those of the parent process.
            return Err(Failure::Forked);
        }
        let runtime = runtime()?;
        let permit = self.0.breaker.permit()?.detach();
        let operation = limited(limit, operation(Objects::new(&self.0.store)));
        let client = self.clone();
        Ok(Operation(runtime.spawn(async move {
            let permit = permit.attach(&client.0.breaker);
            let result = operation.await;
            client.record_outcome(permit, result.as_ref().err());
            result
        })))
    }

    /// Records the outcome of an operation in the circuit breaker and in the log.
    fn record_outcome(&self, permit: Permit<'_, Failure>, failure: Option<&Failure>) {
        match failure {
            Some(failure) if failure.is_of_store() => {
                self.0.outages.failed(failure, &permit.failed(failure));
            }
            _ => {
                if permit.succeeded() {
                    self.0.outages.succeeded();
                }
            }
        }
    }

    /// Performs an operation.
    pub(crate) async fn run<T, F>(&self, operation: impl FnOnce(Objects) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        self.start(operation)?.finish().await
    }

    /// Performs an operation with another time limit.
    pub(crate) async fn run_within<T, F>(
        &self,
        limit: Duration,
        operation: impl FnOnce(Objects) -> F,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        self.start_within(limit, operation)?.finish().await
    }

    /// Returns the error of an operation that has failed.
    pub(crate) fn error(&self, failure: Failure, operation: &'static str) -> Error {
        failure.into_error(operation, &self.0.name)
    }

    /// Returns whether this was created in this process, and not in its parent.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.0.process.is_current()
    }

    /// Returns the name of the store.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the time limit of an operation.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }
}

impl fmt::Debug for Client {
    /// Writes the name of the store: the `Debug` of some stores contains credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.name).finish()
    }
}

/// An operation in the background runtime. It runs to its end, also if this is dropped.
#[derive(Debug)]
pub(crate) struct Operation<T>(JoinHandle<Result<T, Failure>>);

impl<T> Operation<T> {
    /// Waits for the result.
    pub(crate) async fn finish(&mut self) -> Result<T, Failure> {
        (&mut self.0).await.unwrap_or_else(|error| {
            Err(if error.is_panic() { Failure::Panicked } else { Failure::RuntimeStopped })
        })
    }
}
