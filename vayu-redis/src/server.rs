//! Where connections come from.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use redis::ConnectionAddr;
use redis::{AsyncConnectionConfig, ConnectionInfo, ProtocolVersion};
use tokio::time::timeout;
use vayu_core::Result;

use crate::async_connection::Line;
use crate::error::{Failure, misconfigured};
use crate::options::RedisOptions;
use crate::pipeline::Talk;
#[cfg(feature = "sentinel")]
use crate::sentinel::Sentinels;
use crate::setup::{Setup, Step};
use crate::subscription::Subscription;
#[cfg(any(feature = "tls", feature = "cluster"))]
use crate::sync_connection::LibraryLink;
#[cfg(feature = "tls")]
use crate::sync_connection::left_until;
use crate::sync_connection::{Link, PlainLink};
use crate::url::Place;

/// A longer time limit is taken for this one, so that deadlines can be reckoned with.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A server, or several that are one.
pub(crate) struct Server {
    kind: Kind,
    timeout: Duration,
    /// The longest answer, in bytes.
    max_bytes: u64,
    setup: Setup,
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
    pub(crate) fn at(place: Place, options: &RedisOptions) -> Result<Self> {
        let timeout = options.timeout;
        let setup = Setup::new(place.to_string(), options);
        let kind = match place {
            Place::Server(server) => Kind::One(Arc::new(*server)),
            #[cfg(feature = "sentinel")]
            Place::Sentinels { servers, name } => {
                Kind::Sentinels(Arc::new(Sentinels::new(servers, name, options)))
            }
            #[cfg(feature = "cluster")]
            Place::Cluster(nodes) => Kind::cluster(nodes, options)?,
        };
        let max_bytes = options.max_answer();
        Ok(Self { kind, timeout: timeout.min(LONGEST), max_bytes, setup })
    }

    /// The time limit of an operation.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What is known of the configuration.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Opens a connection for a sync caller.
    pub(crate) fn link(&self, deadline: Instant) -> Result<Box<dyn Link>, Failure> {
        let link = self.try_link(deadline).map_err(Failure::connecting);
        self.setup.note(&Step::Connect, link.as_ref().err());
        link
    }

    fn try_link(&self, deadline: Instant) -> Result<Box<dyn Link>, Failure> {
        match &self.kind {
            Kind::One(server) => self.link_to(server, deadline),
            #[cfg(feature = "sentinel")]
            Kind::Sentinels(sentinels) => {
                let ask = |server: &ConnectionInfo| self.link_to(server, deadline);
                self.link_to(&sentinels.server(ask, deadline)?, deadline)
            }
            #[cfg(feature = "cluster")]
            Kind::Cluster { client, .. } => {
                Ok(Box::new(LibraryLink::new(client.get_connection()?)))
            }
        }
    }

    /// A connection for a sync caller to one server.
    pub(crate) fn link_to(
        &self,
        server: &ConnectionInfo,
        deadline: Instant,
    ) -> Result<Box<dyn Link>, Failure> {
        link_to(server, self.max_bytes, deadline)
    }

    /// Opens a connection for async callers, in the helper runtime.
    pub(crate) async fn line(&self) -> Result<Line, Failure> {
        let opened = timeout(self.timeout, self.try_line()).await;
        let line =
            opened.unwrap_or(Err(Failure::Timeout(self.timeout))).map_err(Failure::connecting);
        self.setup.note(&Step::Connect, line.as_ref().err());
        line
    }

    async fn try_line(&self) -> Result<Line, Failure> {
        match &self.kind {
            #[cfg(feature = "cluster")]
            Kind::Cluster { client, .. } => Ok(Line::Cluster(client.get_async_connection().await?)),
            _ => {
                let server = self.any_node(0).await?;
                #[cfg(feature = "tls")]
                if let ConnectionAddr::TcpTls { .. } = server.addr() {
                    let config = AsyncConnectionConfig::new().set_response_timeout(None);
                    let client = redis::Client::open(server)?;
                    let connect = client.get_multiplexed_async_connection_with_config(&config);
                    return Ok(Line::Tls(connect.await?));
                }
                Ok(Line::Plain(Talk::connect(&server, self.timeout, self.max_bytes).await?))
            }
        }
    }

    /// A connection that hears what is published. Where there are many nodes, `attempt` chooses one.
    pub(crate) async fn listener(
        &self,
        attempt: usize,
        hear: impl redis::aio::AsyncPushSender,
    ) -> Result<Subscription, Failure> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(hear);
        let node = self.any_node(attempt).await?;
        let settings = node.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Subscription::connect(&node.set_redis_settings(settings), self.max_bytes, config).await
    }

    /// Runs `with` on a connection to each server that has entries.
    pub(crate) fn on_each(
        &self,
        deadline: impl Fn() -> Instant,
        mut with: impl FnMut(&mut dyn Link) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match &self.kind {
            #[cfg(feature = "cluster")]
            Kind::Cluster { nodes, .. } => {
                let template = nodes.first().ok_or(Failure::Answer)?;
                let mut cluster = self.link(deadline())?;
                for address in crate::scan::masters(&mut *cluster, template, deadline())? {
                    with(&mut *self.link_to(&address, deadline())?)?;
                }
                Ok(())
            }
            _ => with(&mut *self.link(deadline())?),
        }
    }

    #[cfg_attr(
        not(feature = "sentinel"),
        expect(clippy::unused_async, reason = "sentinels are asked first")
    )]
    async fn any_node(&self, attempt: usize) -> Result<ConnectionInfo, Failure> {
        let _ = attempt;
        match &self.kind {
            Kind::One(server) => Ok((**server).clone()),
            #[cfg(feature = "sentinel")]
            Kind::Sentinels(sentinels) => {
                let sentinels = Arc::clone(sentinels);
                let (timeout, max_bytes) = (self.timeout, self.max_bytes);
                let find = move || {
                    let deadline = Instant::now() + timeout;
                    sentinels.server(|server| link_to(server, max_bytes, deadline), deadline)
                };
                tokio::task::spawn_blocking(find).await.unwrap_or(Err(Failure::Helper))
            }
            #[cfg(feature = "cluster")]
            Kind::Cluster { nodes, .. } => {
                nodes.get(attempt % nodes.len().max(1)).cloned().ok_or(Failure::Answer)
            }
        }
    }
}

fn link_to(
    server: &ConnectionInfo,
    max_bytes: u64,
    deadline: Instant,
) -> Result<Box<dyn Link>, Failure> {
    #[cfg(feature = "tls")]
    if let ConnectionAddr::TcpTls { .. } = server.addr() {
        let client = redis::Client::open(server.clone())?;
        let connection = client.get_connection_with_timeout(left_until(deadline)?)?;
        return Ok(Box::new(LibraryLink::new(connection)));
    }
    Ok(Box::new(PlainLink::connect(server, max_bytes, deadline)?))
}

/// Refuses what can never be connected to.
pub(crate) fn check(server: &ConnectionInfo) -> Result<()> {
    if server.addr().is_supported() {
        return Ok(());
    }
    Err(misconfigured("addresses of this kind need the feature `tls` (of vayu: `redis-tls`)"))
}
