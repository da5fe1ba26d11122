//! What a cache on a Redis server may be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vayu_core::{Clock, MonotonicClock, Result, SingleFlight, SystemClock, duration};

use crate::RedisCache;
use crate::backend::RedisBackend;
use crate::error::misconfigured;
use crate::server::Server;
use crate::url::{self, Deployment};

/// The options of a cache on a Redis server.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use vayu_core::SingleFlight;
/// use vayu_redis::RedisOptions;
///
/// # fn main() -> vayu_core::Result<()> {
/// let cache = RedisOptions::new()
///     .namespace("shop")
///     .timeout(Duration::from_millis(100))
///     .single_flight(SingleFlight::Everywhere)
///     .connect("redis://:password@cache.internal/0")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisOptions {
    pub(crate) namespace: String,
    pub(crate) timeout: Duration,
    pub(crate) max_entry_bytes: u64,
    pub(crate) max_connections: usize,
    pub(crate) max_idle: Duration,
    pub(crate) breaker_threshold: u32,
    pub(crate) breaker_cooldown: Duration,
    pub(crate) single_flight: SingleFlight,
    pub(crate) lease_ttl: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) breaker_clock: Arc<dyn Clock>,
    connects_eagerly: bool,
    #[cfg(feature = "tls")]
    pub(crate) roots: Option<Vec<u8>>,
    #[cfg(feature = "tls")]
    pub(crate) client_certificate: Option<Vec<u8>>,
    #[cfg(feature = "tls")]
    pub(crate) client_key: Option<Vec<u8>>,
    #[cfg(feature = "sentinel")]
    pub(crate) sentinel_username: Option<String>,
    #[cfg(feature = "sentinel")]
    pub(crate) sentinel_password: Option<String>,
}

/// What an answer may have beside the entry, in bytes.
const REPLY_OVERHEAD: u64 = 64 * 1024;

impl RedisOptions {
    /// How long an operation may take unless the cache is told otherwise: 250 ms.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

    /// How long an entry may be unless the cache is told otherwise: 8 MiB.
    pub const DEFAULT_MAX_ENTRY_BYTES: u64 = 8 << 20;

    /// How long a connection may be idle unless the cache is told otherwise: 60 s.
    pub const DEFAULT_MAX_IDLE: Duration = Duration::from_secs(60);

    /// The default options.
    pub fn new() -> Self {
        Self {
            namespace: "vayu".to_owned(),
            timeout: Self::DEFAULT_TIMEOUT,
            max_entry_bytes: Self::DEFAULT_MAX_ENTRY_BYTES,
            max_connections: 16,
            max_idle: Self::DEFAULT_MAX_IDLE,
            breaker_threshold: 3,
            breaker_cooldown: Duration::from_secs(1),
            single_flight: SingleFlight::default(),
            lease_ttl: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
            breaker_clock: Arc::new(MonotonicClock),
            connects_eagerly: false,
            #[cfg(feature = "tls")]
            roots: None,
            #[cfg(feature = "tls")]
            client_certificate: None,
            #[cfg(feature = "tls")]
            client_key: None,
            #[cfg(feature = "sentinel")]
            sentinel_username: None,
            #[cfg(feature = "sentinel")]
            sentinel_password: None,
        }
    }

    /// Begins the names of all keys with this text and a colon. Caches with one namespace share
    /// their entries; [`clear`](vayu_core::Cache::clear) removes those of a namespace. The default is
    /// `vayu`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Gives an operation up that takes longer than this, with connecting where that is needed. The
    /// default is [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Neither writes nor reads an entry of more bytes than this, its key and a header of 80 bytes
    /// included. The default is [`DEFAULT_MAX_ENTRY_BYTES`](Self::DEFAULT_MAX_ENTRY_BYTES).
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = bytes;
        self
    }

    /// Opens at most this many connections for sync callers; who finds all of them taken waits. The
    /// default is 16. Async callers share one connection.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Replaces a connection that was idle for this long instead of using it again. The default is
    /// [`DEFAULT_MAX_IDLE`](Self::DEFAULT_MAX_IDLE).
    ///
    /// A connection that was closed is noticed and replaced in any case. This is for load balancers and
    /// firewalls that forget an idle connection without closing it: the time is to be shorter than
    /// theirs, which are 4 minutes and more.
    pub fn max_idle(mut self, time: Duration) -> Self {
        self.max_idle = time;
        self
    }

    /// Sets the circuit breaker: after `threshold` failures in a row no operation is sent for about
    /// `breaker_cooldown`, and for up to 32 times as long while the server goes on failing. While the breaker is
    /// open, all calls run their function at once. The default is 3 failures and 1 s.
    pub fn circuit_breaker(mut self, threshold: u32, cooldown: Duration) -> Self {
        self.breaker_threshold = threshold;
        self.breaker_cooldown = cooldown;
        self
    }

    /// Among whom a key is computed once at a time. The default is [`SingleFlight::Process`].
    ///
    /// With [`SingleFlight::Everywhere`] a miss asks the server for the right to compute, and who
    /// does not get it asks again, at growing intervals of up to 32 ms, until there is a value.
    pub fn single_flight(mut self, single_flight: SingleFlight) -> Self {
        self.single_flight = single_flight;
        self
    }

    /// Gives up the right to compute after this time at the latest, as when its process dies. What
    /// takes longer may run in two processes. The default is 10 s.
    pub fn lease_ttl(mut self, time: Duration) -> Self {
        self.lease_ttl = time;
        self
    }

    /// Asks the server when the cache is made, so that one that is not there, or does not let us
    /// in, is an error then. Without this option it is asked by the first call, and the calls go on
    /// without it.
    pub fn connect_eagerly(mut self) -> Self {
        self.connects_eagerly = true;
        self
    }

    /// Takes the time of entries from this clock. The default is [`SystemClock`], which other
    /// machines have as well.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Trusts the certificates in this PEM text for `rediss://` addresses, and no others. Without
    /// this option the system's are trusted.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Shows the certificate in this PEM text to the server, with `rediss://` addresses, and proves it
    /// with the private key in the other one. The certificate comes first, then those of the authorities
    /// that connect it to the root, if any.
    ///
    /// A Redis server with TLS requires one by default (`tls-auth-clients`).
    #[cfg(feature = "tls")]
    pub fn client_certificate(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.client_certificate = Some(certificate_pem.into());
        self.client_key = Some(key_pem.into());
        self
    }

    /// Authenticates to sentinels as this user. It takes effect with
    /// [`sentinel_password`](Self::sentinel_password). The default is the user that needs no name.
    #[cfg(feature = "sentinel")]
    pub fn sentinel_username(mut self, username: impl Into<String>) -> Self {
        self.sentinel_username = Some(username.into());
        self
    }

    /// Authenticates to sentinels with this password, all of which have the same one. It is not that of
    /// the server, which is in the address. Without this option sentinels are asked without one.
    #[cfg(feature = "sentinel")]
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel_password = Some(password.into());
        self
    }

    /// The cache on one server: `redis://user:password@host:port/db`, `rediss://..` with TLS (feature
    /// `tls`), or `unix:///path?db=0`. Several hosts may stand in an address, too:
    /// `redis+cluster://host:port,host:port/` (feature `cluster`) and
    /// `redis+sentinel://host:port,host:port/name/db` (feature `sentinel`).
    ///
    /// Options may follow a question mark: `namespace`, `timeout`, `max_entry_bytes`,
    /// `max_connections`, `max_idle`, `single_flight=everywhere`, `lease_ttl`, `connect=eagerly`. They win
    /// over those that were set before. Times are seconds, or have a unit: `ms`, `s`, `m`, `h`, `d`, `w` or
    /// a word like `minutes`.
    ///
    /// With the feature `sentinel` there are `sentinel_username` and `sentinel_password` as well, with the
    /// feature `tls` the paths of PEM files: `tls_cert_file` and `tls_key_file` of the client certificate,
    /// `tls_ca_cert_file` of the root certificates. In these five, `%26` is an `&` and `%25` a `%`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](vayu_core::ErrorKind::Configuration) for an address or an option
    /// that cannot work; with [`connect_eagerly`](Self::connect_eagerly) those of the server.
    pub fn connect(self, url: impl AsRef<str>) -> Result<RedisCache> {
        let (deployment, options) = url::parse(url.as_ref(), self)?;
        options.cache(deployment)
    }

    /// The cache on a cluster, some of whose nodes are at these addresses.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    #[cfg(feature = "cluster")]
    pub fn connect_cluster(
        self,
        urls: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<RedisCache> {
        let (nodes, options) = url::parse_servers(urls, self)?;
        options.cache(Deployment::Cluster(nodes))
    }

    /// The cache on the server that sentinels at these addresses know by a name. User, password and
    /// database are those of the server; those of the sentinels are
    /// [`sentinel_username`](Self::sentinel_username) and
    /// [`sentinel_password`](Self::sentinel_password).
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    #[cfg(feature = "sentinel")]
    pub fn connect_sentinel(
        self,
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: impl Into<String>,
    ) -> Result<RedisCache> {
        let (servers, options) = url::parse_servers(urls, self)?;
        options.cache(Deployment::Sentinels { servers, name: name.into() })
    }

    /// Sets the option of this name, as it stands in an address.
    pub(crate) fn set(self, name: &str, value: &str) -> Result<Self> {
        let number = || {
            value.parse::<u64>().map_err(|error| {
                misconfigured(format!("the option `{name}` of a Redis address is a number"))
                    .with_source(error)
            })
        };
        // The value may be a part of a password, so no message repeats it.
        let time = || {
            let seconds = value.parse().map(Duration::from_secs).ok();
            seconds.or_else(|| duration::parse(value).ok()).ok_or_else(|| {
                misconfigured(format!(
                    "the option `{name}` of a Redis address is a time like `250ms` or `2s`; the units \
                     are {}",
                    duration::UNIT_NAMES
                ))
            })
        };
        Ok(match name {
            "namespace" => self.namespace(value),
            "timeout" => self.timeout(time()?),
            "max_entry_bytes" => self.max_entry_bytes(number()?),
            "max_connections" => {
                self.max_connections(usize::try_from(number()?).unwrap_or(usize::MAX))
            }
            "max_idle" => self.max_idle(time()?),
            "lease_ttl" => self.lease_ttl(time()?),
            "single_flight" if value == "everywhere" => {
                self.single_flight(SingleFlight::Everywhere)
            }
            "single_flight" if value == "process" => self.single_flight(SingleFlight::Process),
            "connect" if value == "eagerly" => self.connect_eagerly(),
            #[cfg(feature = "sentinel")]
            "sentinel_username" => self.sentinel_username(decoded(name, value)?),
            #[cfg(feature = "sentinel")]
            "sentinel_password" => self.sentinel_password(decoded(name, value)?),
            #[cfg(feature = "tls")]
            "tls_cert_file" => Self { client_certificate: Some(file(name, value)?), ..self },
            #[cfg(feature = "tls")]
            "tls_key_file" => Self { client_key: Some(file(name, value)?), ..self },
            #[cfg(feature = "tls")]
            "tls_ca_cert_file" => self.root_certificates(file(name, value)?),
            "single_flight" | "connect" => {
                return Err(misconfigured(format!(
                    "the option `{name}` of a Redis address has another value than it can have"
                )));
            }
            _ => {
                return Err(misconfigured(format!("a Redis address has no option `{name}`")));
            }
        })
    }

    fn check(&self) -> Result<()> {
        let wrong = if self.namespace.is_empty() || self.namespace.len() > 128 {
            "the namespace of a Redis cache has between 1 and 128 bytes"
        } else if [self.timeout, self.breaker_cooldown, self.lease_ttl, self.max_idle]
            .contains(&Duration::ZERO)
        {
            "a time among the options of a Redis cache is zero"
        } else if self.max_connections == 0 {
            "a Redis cache needs at least one connection"
        } else if self.max_entry_bytes > 512 << 20 {
            "Redis keeps no more than 512 MiB in one entry"
        } else {
            return Ok(());
        };
        Err(misconfigured(wrong))
    }

    fn cache(self, deployment: Deployment) -> Result<RedisCache> {
        self.check()?;
        #[cfg(feature = "sentinel")]
        if self.sentinel_password.is_some() && !matches!(deployment, Deployment::Sentinels { .. }) {
            return Err(misconfigured(
                "there is a password for sentinels, and the address is not one of sentinels",
            ));
        }
        #[cfg(feature = "sentinel")]
        if self.sentinel_username.is_some() && self.sentinel_password.is_none() {
            return Err(misconfigured("there is a user for sentinels, and no password"));
        }
        let connects_eagerly = self.connects_eagerly;
        let server = Server::at(deployment, &self)?;
        let backend = RedisBackend::new(server, self);
        if connects_eagerly {
            backend.ping()?;
        }
        Ok(RedisCache::with_backend(backend))
    }

    /// The longest reply, in bytes.
    pub(crate) fn max_reply_bytes(&self) -> u64 {
        self.max_entry_bytes.saturating_add(REPLY_OVERHEAD)
    }
}

/// Returns the value of an option of an address, which may have any characters as `%` and two digits.
#[cfg(any(feature = "sentinel", feature = "tls"))]
fn decoded(name: &str, value: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
    decoded.map(Into::into).map_err(|_| {
        misconfigured(format!("the option `{name}` of a Redis address is not valid UTF-8"))
    })
}

/// Returns what is in the file whose path is the value of an option of an address.
#[cfg(feature = "tls")]
fn file(name: &str, value: &str) -> Result<Vec<u8>> {
    std::fs::read(decoded(name, value)?).map_err(|error| {
        misconfigured(format!("the file of the option `{name}` of a Redis address cannot be read"))
            .with_source(error)
    })
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("namespace", &self.namespace)
            .field("timeout", &self.timeout)
            .field("max_entry_bytes", &self.max_entry_bytes)
            .field("max_connections", &self.max_connections)
            .field("max_idle", &self.max_idle)
            .field("single_flight", &self.single_flight)
            .finish_non_exhaustive()
    }
}
