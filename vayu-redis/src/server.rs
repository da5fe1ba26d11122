//! Servers, and how to connect to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use redis::ConnectionAddr;
use redis::{AsyncConnectionConfig, ConnectionInfo, ProtocolVersion};
use tokio::time::timeout;
use vayu_core::Result;

use crate::async_connection::AsyncConnection;
#[cfg(feature = "tls")]
use crate::deadline::time_until;
use crate::diagnostics::{Diagnostics, Operation};
use crate::error::Failure;
#[cfg(feature = "cluster")]
use crate::error::misconfigured;
use crate::options::RedisOptions;
use crate::pipeline::Pipeline;
#[cfg(feature = "sentinel")]
use crate::sentinel::Sentinels;
use crate::subscription::Subscription;
#[cfg(any(feature = "tls", feature = "cluster"))]
use crate::sync_connection::LibraryConnection;
use crate::sync_connection::{PlaintextConnection, SyncConnection};
use crate::url::Deployment;

/// Longest timeout. A longer one would overflow deadlines.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A server, a cluster, or the master that sentinels watch.
pub(crate) struct Server {
    kind: Kind,
    timeout: Duration,
    max_reply_bytes: u64,
    limits_replies: bool,
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
            .connection_timeout(options.remote.timeout)
            .response_timeout(options.remote.timeout)
            .retries(1);
        // The builder does not take them from the nodes.
        #[cfg(feature = "tls")]
        let builder = match crate::tls::certificates(options)? {
            Some(certificates) => builder.certs(certificates),
            None => builder,
        };
        let client = builder
            .build()
            .map_err(|error| misconfigured(format!("invalid URLs of a cluster: {error}")))?;
        Ok(Self::Cluster { client: Box::new(client), nodes: Arc::new(nodes) })
    }
}

impl Server {
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unnecessary_wraps, reason = "a cluster may be rejected")
    )]
    pub(crate) fn new(deployment: Deployment, options: &RedisOptions) -> Result<Self> {
        let diagnostics = Diagnostics::new(deployment.to_string(), options);
        let limits_replies = deployment.is_plaintext_server();
        let kind = match deployment {
            Deployment::Server(server) => Kind::One(Arc::new(*server)),
            #[cfg(feature = "sentinel")]
            Deployment::Sentinels { servers, name } => {
                Kind::Sentinels(Arc::new(Sentinels::new(servers, name, options)))
            }
            #[cfg(feature = "cluster")]
            Deployment::Cluster(nodes) => Kind::cluster(nodes, options)?,
        };
        let timeout = options.remote.timeout.min(MAX_TIMEOUT);
        let max_reply_bytes = options.max_reply_bytes();
        Ok(Self { kind, timeout, max_reply_bytes, limits_replies, diagnostics })
    }

    /// Returns the time limit of an operation.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns whether connections limit the length of each string in a reply. Those of the `redis` crate
    /// do not.
    pub(crate) fn limits_replies(&self) -> bool {
        self.limits_replies
    }

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
        let connect = |server: &ConnectionInfo| connect_to(server, self.max_reply_bytes, deadline);
        match &self.kind {
            Kind::One(server) => connect(server),
            #[cfg(feature = "sentinel")]
            Kind::Sentinels(sentinels) => connect(&sentinels.master(connect, deadline)?),
            #[cfg(feature = "cluster")]
            Kind::Cluster { client, .. } => {
                Ok(Box::new(LibraryConnection::new(client.get_connection()?)))
            }
        }
    }

    /// Opens a connection for async callers. Must run in the background runtime.
    pub(crate) async fn connect_async(&self) -> Result<AsyncConnection, Failure> {
        let opened = timeout(self.timeout, self.try_connect_async()).await;
        let opened = opened.unwrap_or(Err(Failure::Timeout(self.timeout)));
        let connection = opened.map_err(Failure::while_connecting);
        self.diagnostics.record(&Operation::Connect, connection.as_ref().err());
        connection
    }

    async fn try_connect_async(&self) -> Result<AsyncConnection, Failure> {
        #[cfg(feature = "cluster")]
        if let Kind::Cluster { client, .. } = &self.kind {
            return Ok(AsyncConnection::Cluster(client.get_async_connection().await?));
        }
        let server = self.resolve_node(0).await?;
        #[cfg(feature = "tls")]
        if let ConnectionAddr::TcpTls { .. } = server.addr() {
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let client = redis::Client::open(server)?;
            let connect = client.get_multiplexed_async_connection_with_config(&config);
            return Ok(AsyncConnection::Tls(connect.await?));
        }
        let pipeline = Pipeline::connect(&server, self.timeout, self.max_reply_bytes);
        Ok(AsyncConnection::Plaintext(pipeline.await?))
    }

    /// Opens a connection that receives published messages. In a cluster `attempt` selects the
    /// node.
    pub(crate) async fn connect_subscription(
        &self,
        attempt: usize,
        sender: impl redis::aio::AsyncPushSender,
    ) -> Result<Subscription, Failure> {
        let config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(sender);
        let node = self.resolve_node(attempt).await?;
        let settings = node.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let node = node.set_redis_settings(settings);
        Subscription::connect(&node, self.max_reply_bytes, config).await
    }

    /// Runs `work` on a connection to each server that has entries.
    pub(crate) fn for_each_master(
        &self,
        deadline: impl Fn() -> Instant,
        mut work: impl FnMut(&mut dyn SyncConnection) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        #[cfg(feature = "cluster")]
        if let Kind::Cluster { nodes, .. } = &self.kind {
            let template = nodes.first().ok_or(Failure::UnexpectedReply)?;
            let mut cluster = self.connect(deadline())?;
            for address in crate::scan::masters(&mut *cluster, template, deadline())? {
                work(&mut *connect_to(&address, self.max_reply_bytes, deadline())?)?;
            }
            return Ok(());
        }
        work(&mut *self.connect(deadline())?)
    }

    #[cfg_attr(
        not(feature = "sentinel"),
        expect(clippy::unused_async, reason = "sentinels are queried first")
    )]
    async fn resolve_node(&self, attempt: usize) -> Result<ConnectionInfo, Failure> {
        let _ = attempt;
        match &self.kind {
            Kind::One(server) => Ok((**server).clone()),
            #[cfg(feature = "sentinel")]
            Kind::Sentinels(sentinels) => {
                let sentinels = Arc::clone(sentinels);
                let (timeout, max_bytes) = (self.timeout, self.max_reply_bytes);
                let find = move || {
                    let deadline = Instant::now() + timeout;
                    sentinels.master(|server| connect_to(server, max_bytes, deadline), deadline)
                };
                let found = tokio::task::spawn_blocking(find).await;
                found.unwrap_or(Err(Failure::RuntimeStopped))
            }
            #[cfg(feature = "cluster")]
            Kind::Cluster { nodes, .. } => {
                let node = nodes.get(attempt % nodes.len().max(1));
                node.cloned().ok_or(Failure::UnexpectedReply)
            }
        }
    }
}

/// Opens a connection to one server for a sync caller.
fn connect_to(
    server: &ConnectionInfo,
    max_reply_bytes: u64,
    deadline: Instant,
) -> Result<Box<dyn SyncConnection>, Failure> {
    #[cfg(feature = "tls")]
    if let ConnectionAddr::TcpTls { .. } = server.addr() {
        let client = redis::Client::open(server.clone())?;
        let connection = client.get_connection_with_timeout(time_until(deadline)?)?;
        return Ok(Box::new(LibraryConnection::new(connection)));
    }
    Ok(Box::new(PlaintextConnection::connect(server, max_reply_bytes, deadline)?))
}
