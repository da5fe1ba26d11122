//! Where connections come from.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use redis::ConnectionAddr;
use redis::{AsyncConnectionConfig, ConnectionInfo, ProtocolVersion};
use tokio::time::timeout;
use vayu_core::Result;

use crate::async_connection::AsyncConnection;
use crate::diagnostics::{Diagnostics, Operation};
use crate::error::{Failure, misconfigured};
use crate::options::RedisOptions;
use crate::pipeline::Pipeline;
#[cfg(feature = "sentinel")]
use crate::sentinel::Sentinels;
use crate::subscription::Subscription;
#[cfg(any(feature = "tls", feature = "cluster"))]
use crate::sync_connection::LibraryConnection;
#[cfg(feature = "tls")]
use crate::sync_connection::time_until;
use crate::sync_connection::{PlaintextConnection, SyncConnection};
use crate::url::Deployment;

/// A longer time limit is taken for this one, so that deadlines can be reckoned with.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A server, or several that are one.
pub(crate) struct Server {
    kind: Kind,
    timeout: Duration,
    /// The longest answer, in bytes.
    max_bytes: u64,
    diagnostics: Diagnostics,
}

#[derive(Clone)]
enum Kind {
    One(Arc<ConnectionInfo>),
    #[cfg(feature = "sentinel")]
    Sentinels(Arc<Sentinels>),
    #[cfg(feature = "cluster")]
    Cluster {
        client: Box<redis::cluster::ClusterClient>,
        nodes: Arc<Vec<ConnectionInfo>>,
    },
}

#[cfg(feature = "cluster")]
impl Kind {
    fn cluster(nodes: Vec<ConnectionInfo>, options: &RedisOptions) -> Result<Self> {
        let builder = redis::cluster::ClusterClientBuilder::new(nodes.clone())
            .connection_timeout(options.timeout)
            .response_timeout(options.timeout)
            .retries(1);
        // It does not take them from the addresses.
        #[cfg(feature = "tls")]
        let builder = match crate::tls::certificates(options)? {
            Some(certificates) => builder.certs(certificates),
            None => builder,
        };
        let client = builder
            .build()
            .map_err(|error| misconfigured("a cluster at these addresses").with_source(error))?;
        Ok(Self::Cluster { client: Box::new(client), nodes: Arc::new(nodes) })
    }
}

impl Server {
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unnecessary_wraps, reason = "a cluster may be refused")
    )]
    pub(crate) fn at(deployment: Deployment, options: &RedisOptions) -> Result<Self> {
        let timeout = options.timeout;
        let diagnostics = Diagnostics::new(deployment.to_string(), options);
        let kind = match deployment {
            Deployment::Server(server) => Kind::One(Arc::new(*server)),
            #[cfg(feature = "sentinel")]
            Deployment::Sentinels { servers, name } => {
                Kind::Sentinels(Arc::new(Sentinels::new(servers, name, options)))
            }
            #[cfg(feature = "cluster")]
            Deployment::Cluster(nodes) => Kind::cluster(nodes, options)?,
        };
        let max_bytes = options.max_reply_bytes();
        Ok(Self { kind, timeout: timeout.min(MAX_TIMEOUT), max_bytes, diagnostics })
    }

    /// The time limit of an operation.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What is known of the configuration.
    pub(crate) fn diagnostics(&self) -> &Diagnostics {
        &self.diagnostics
    }

    /// Opens a connection for a sync caller.
    pub(crate) fn connect(&self, deadline: Instant) -> Result<Box<dyn SyncConnection>, Failure> {
        let connection = self.try_connect(deadline).map_err(Failure::while_connecting);
        self.diagnostics.record(&Operation::Connect, connection.as_ref().err());
        connection
    }

    fn try_connect(&self, deadline: Instant) -> Result<Box<dyn SyncConnection>, Failure> {
        match &self.kind {
            Kind::One(server) => self.connect_to(server, deadline),
            #[cfg(feature = "sentinel")]
            Kind::Sentinels(sentinels) => {
                let ask = |server: &ConnectionInfo| self.connect_to(server, deadline);
                self.connect_to(&sentinels.server(ask, deadline)?, deadline)
            }
            #[cfg(feature = "cluster")]
            Kind::Cluster { client, .. } => {
                Ok(Box::new(LibraryConnection::new(client.get_connection()?)))
            }
        }
    }

    /// A connection for a sync caller to one server.
    pub(crate) fn connect_to(
        &self,
        server: &ConnectionInfo,
        deadline: Instant,
    ) -> Result<Box<dyn SyncConnection>, Failure> {
        connect_to(server, self.max_bytes, deadline)
    }

    /// Opens a connection for async callers, in the helper runtime.
    pub(crate) async fn connect_async(&self) -> Result<AsyncConnection, Failure> {
        let opened = timeout(self.timeout, self.try_connect_async()).await;
        let connection = opened
            .unwrap_or(Err(Failure::Timeout(self.timeout)))
            .map_err(Failure::while_connecting);
        self.diagnostics.record(&Operation::Connect, connection.as_ref().err());
        connection
    }

    async fn try_connect_async(&self) -> Result<AsyncConnection, Failure> {
        match &self.kind {
            #[cfg(feature = "cluster")]
            Kind::Cluster { client, .. } => {
                Ok(AsyncConnection::Cluster(client.get_async_connection().await?))
            }
            _ => {
                let server = self.resolve_node(0).await?;
                #[cfg(feature = "tls")]
                if let ConnectionAddr::TcpTls { .. } = server.addr() {
                    let config = AsyncConnectionConfig::new().set_response_timeout(None);
                    let client = redis::Client::open(server)?;
                    let connect = client.get_multiplexed_async_connection_with_config(&config);
                    return Ok(AsyncConnection::Tls(connect.await?));
                }
                Ok(AsyncConnection::Plaintext(
                    Pipeline::connect(&server, self.timeout, self.max_bytes).await?,
                ))
            }
        }
    }

    /// A connection that hears what is published. Where there are many nodes, `attempt` chooses one.
    pub(crate) async fn connect_subscription(
        &self,
        attempt: usize,
        sender: impl redis::aio::AsyncPushSender,
    ) -> Result<Subscription, Failure> {
        let config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(sender);
        let node = self.resolve_node(attempt).await?;
        let settings = node.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Subscription::connect(&node.set_redis_settings(settings), self.max_bytes, config).await
    }

    /// Runs `with` on a connection to each server that has entries.
    pub(crate) fn for_each_master(
        &self,
        deadline: impl Fn() -> Instant,
        mut with: impl FnMut(&mut dyn SyncConnection) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match &self.kind {
            #[cfg(feature = "cluster")]
            Kind::Cluster { nodes, .. } => {
                let template = nodes.first().ok_or(Failure::UnexpectedReply)?;
                let mut cluster = self.connect(deadline())?;
                for address in crate::scan::masters(&mut *cluster, template, deadline())? {
                    with(&mut *self.connect_to(&address, deadline())?)?;
                }
                Ok(())
            }
            _ => with(&mut *self.connect(deadline())?),
        }
    }

    #[cfg_attr(
        not(feature = "sentinel"),
        expect(clippy::unused_async, reason = "sentinels are asked first")
    )]
    async fn resolve_node(&self, attempt: usize) -> Result<ConnectionInfo, Failure> {
        let _ = attempt;
        match &self.kind {
            Kind::One(server) => Ok((**server).clone()),
            #[cfg(feature = "sentinel")]
            Kind::Sentinels(sentinels) => {
                let sentinels = Arc::clone(sentinels);
                let (timeout, max_bytes) = (self.timeout, self.max_bytes);
                let find = move || {
                    let deadline = Instant::now() + timeout;
                    sentinels.server(|server| connect_to(server, max_bytes, deadline), deadline)
                };
                tokio::task::spawn_blocking(find).await.unwrap_or(Err(Failure::RuntimeStopped))
            }
            #[cfg(feature = "cluster")]
            Kind::Cluster { nodes, .. } => {
                nodes.get(attempt % nodes.len().max(1)).cloned().ok_or(Failure::UnexpectedReply)
            }
        }
    }
}

fn connect_to(
    server: &ConnectionInfo,
    max_bytes: u64,
    deadline: Instant,
) -> Result<Box<dyn SyncConnection>, Failure> {
    #[cfg(feature = "tls")]
    if let ConnectionAddr::TcpTls { .. } = server.addr() {
        let client = redis::Client::open(server.clone())?;
        let connection = client.get_connection_with_timeout(time_until(deadline)?)?;
        return Ok(Box::new(LibraryConnection::new(connection)));
    }
    Ok(Box::new(PlaintextConnection::connect(server, max_bytes, deadline)?))
}

/// Refuses what can never be connected to.
pub(crate) fn check(server: &ConnectionInfo) -> Result<()> {
    if server.addr().is_supported() {
        return Ok(());
    }
    Err(misconfigured("addresses of this kind need the feature `tls` (of vayu: `redis-tls`)"))
}
