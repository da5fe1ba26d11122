//! Options of a cache on a Redis server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vayu_core::__internal::remote::RemoteOptions;
use vayu_core::{Clock, Result, SingleFlight, duration};

use crate::error::misconfigured;

/// Options of a cache on a Redis server.
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
    pub(crate) remote: RemoteOptions,
    pub(crate) max_connections: usize,
    pub(crate) max_idle: Duration,
    pub(crate) connects_eagerly: bool,
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

/// Upper bound of what a reply contains in addition to the entry, in bytes.
const REPLY_OVERHEAD: u64 = 64 * 1024;

/// The options in a URL, for messages.
const OPTION_NAMES: &str = "`namespace`, `timeout`, `max_entry_bytes`, `max_connections`, `max_idle`, \
    `single_flight`, `lease_ttl`, `arguments`, `connect`, `sentinel_username`, `sentinel_password`, \
    `tls_cert_file`, `tls_key_file` and `tls_ca_cert_file`";

impl RedisOptions {
    /// Default [`timeout`](Self::timeout): 250 ms.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

    /// Default [`max_entry_bytes`](Self::max_entry_bytes): 8 MiB.
    pub const DEFAULT_MAX_ENTRY_BYTES: u64 = 8 << 20;

    /// Default [`max_idle`](Self::max_idle): 60 s.
    pub const DEFAULT_MAX_IDLE: Duration = Duration::from_secs(60);

    /// Returns the default options.
    pub fn new() -> Self {
        Self {
            namespace: "vayu".to_owned(),
            remote: RemoteOptions::new(
                Self::DEFAULT_TIMEOUT,
                Self::DEFAULT_MAX_ENTRY_BYTES,
                Duration::from_secs(10),
            ),
            max_connections: 16,
            max_idle: Self::DEFAULT_MAX_IDLE,
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

    /// Sets the namespace, which all key names begin with. Caches with the same namespace share their
    /// entries; [`clear`](vayu_core::Cache::clear) removes those of one namespace. The default is
    /// `vayu`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the timeout of an operation, including connecting where that is needed. The default is
    /// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.remote.timeout = timeout;
        self
    }

    /// Sets the size of the largest entry that is written or read, in bytes, including its key and
    /// a header of 80 bytes. The default is
    /// [`DEFAULT_MAX_ENTRY_BYTES`](Self::DEFAULT_MAX_ENTRY_BYTES).
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.remote.max_entry_bytes = bytes;
        self
    }

    /// Sets the size of the connection pool of sync callers. While all connections are in use, further
    /// callers wait. The default is 16. Async callers share one connection.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets the time after which an idle connection is replaced instead of used again. The default
    /// is [`DEFAULT_MAX_IDLE`](Self::DEFAULT_MAX_IDLE).
    ///
    /// A closed connection is detected and replaced in any case. This option is for load balancers
    /// and firewalls that drop idle connections silently: it must be shorter than their timeout,
    /// which is typically 4 minutes or more.
    pub fn max_idle(mut self, time: Duration) -> Self {
        self.max_idle = time;
        self
    }

    /// Sets the circuit breaker: after `threshold` failures in a row no operation is sent for about
    /// `cooldown`, and for up to 32 times as long while the server continues to fail. While the
    /// breaker is open, calls run their function at once. The default is 3 failures and 1 second.
    pub fn circuit_breaker(mut self, threshold: u32, cooldown: Duration) -> Self {
        self.remote.breaker_threshold = threshold;
        self.remote.breaker_cooldown = cooldown;
        self
    }

    /// Sets the scope in which concurrent misses of a key are coalesced into one computation. The
    /// default is [`SingleFlight::Process`].
    ///
    /// With [`SingleFlight::Everywhere`] a miss acquires a lease on the server before it computes.
    /// While another process holds it, the call waits for a message that it was released. In case that is lost,
    /// the call looks for a value after 500 ms and then each second; where no messages are received, at intervals that
    /// grow to 32 ms.
    pub fn single_flight(mut self, single_flight: SingleFlight) -> Self {
        self.remote.single_flight = single_flight;
        self
    }

    /// Stores no arguments of calls, no string keys and no labels: an entry then contains the name of its
    /// function and the SHA-256 of its key.
    ///
    /// By default an entry contains its key, up to 64 KiB, so that `vayu-cache ls` can show the call.
    /// Caches with and without this option read each other's entries. Arguments that can be guessed can be
    /// found by their digest, which is also in the name of the key on the server.
    pub fn hide_arguments(mut self) -> Self {
        self.remote.hides_arguments = true;
        self
    }

    /// Sets the time after which a lease expires if it is not released, for example because its
    /// process has died. A computation that takes longer may run in two processes. The default is
    /// 10 seconds.
    pub fn lease_ttl(mut self, time: Duration) -> Self {
        self.remote.lease_ttl = time;
        self
    }

    /// Connects when the cache is opened, and returns an error if the server is unreachable or
    /// rejects the credentials. Without this option the first call connects, and calls run their
    /// function while that fails.
    pub fn connect_eagerly(mut self) -> Self {
        self.connects_eagerly = true;
        self
    }

    /// Sets the clock that the expiry of entries is measured with. The default is [`SystemClock`](vayu_core::SystemClock),
    /// which machines have in common.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.remote.clock = Arc::new(clock);
        self
    }

    /// Sets the root certificates that are trusted for `rediss://` URLs, in PEM format. By
    /// default those of the system are trusted.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Sets the client certificate for `rediss://` URLs and its private key, in PEM format.
    /// Certificates of intermediate authorities may follow the client certificate.
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

    /// Sets the user for sentinels, together with [`sentinel_password`](Self::sentinel_password).
    /// The default is the user `default`.
    #[cfg(feature = "sentinel")]
    pub fn sentinel_username(mut self, username: impl Into<String>) -> Self {
        self.sentinel_username = Some(username.into());
        self
    }

    /// Sets the password for all sentinels. The password of the server is in the URL. Without this
    /// option connections to sentinels are not authenticated.
    #[cfg(feature = "sentinel")]
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel_password = Some(password.into());
        self
    }

    /// Sets the option of this name to a percent-encoded value from a URL. Messages contain an unknown name only if
    /// `is_shown`: it may be a part of a password.
    pub(crate) fn set(mut self, name: &str, value: &str, is_shown: bool) -> Result<Self> {
        let value = percent_encoding::percent_decode_str(value).decode_utf8().map_err(|_| {
            misconfigured("the value of an option in a Redis URL is not valid UTF-8")
        })?;
        let value = &*value;
        let number = || {
            value.parse::<u64>().map_err(|error| {
                misconfigured(format!(
                    "invalid value for `{name}` in a Redis URL: it must be a number"
                ))
                .with_source(error)
            })
        };
        // The value may be a part of a password, so messages do not contain it.
        let time = || {
            let seconds = value.parse().map(Duration::from_secs).ok();
            seconds.or_else(|| duration::parse(value).ok()).ok_or_else(|| {
                misconfigured(format!(
                    "invalid value for `{name}` in a Redis URL: it must be a time like `250ms` or `2s`; \
                     the units are {}",
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
            "arguments" if value == "hidden" => self.hide_arguments(),
            "arguments" if value == "stored" => {
                self.remote.hides_arguments = false;
                self
            }
            "connect" if value == "eagerly" => self.connect_eagerly(),
            #[cfg(feature = "sentinel")]
            "sentinel_username" => self.sentinel_username(value),
            #[cfg(feature = "sentinel")]
            "sentinel_password" => self.sentinel_password(value),
            #[cfg(feature = "tls")]
            "tls_cert_file" => Self { client_certificate: Some(file(name, value)?), ..self },
            #[cfg(feature = "tls")]
            "tls_key_file" => Self { client_key: Some(file(name, value)?), ..self },
            #[cfg(feature = "tls")]
            "tls_ca_cert_file" => self.root_certificates(file(name, value)?),
            "single_flight" | "connect" | "arguments" => {
                let values = match name {
                    "connect" => "`eagerly`",
                    "arguments" => "`stored` or `hidden`",
                    _ => "`process` or `everywhere`",
                };
                return Err(misconfigured(format!(
                    "invalid value for `{name}` in a Redis URL: {values}"
                )));
            }
            _ => {
                let shown = if is_shown { format!(" `{name}`") } else { String::new() };
                return Err(misconfigured(format!(
                    "unknown option{shown} in a Redis URL; the options are {OPTION_NAMES}"
                )));
            }
        })
    }

    /// Checks the options that every deployment has.
    pub(crate) fn check(&self) -> Result<()> {
        let has_zero = self.max_idle.is_zero() || self.remote.times().contains(&Duration::ZERO);
        let wrong = if self.namespace.is_empty() || self.namespace.len() > 128 {
            "the namespace of a Redis cache must have between 1 and 128 bytes"
        } else if has_zero {
            "a time among the options of a Redis cache is zero"
        } else if self.max_connections == 0 {
            "a Redis cache needs at least one connection"
        } else if self.remote.max_entry_bytes > 512 << 20 {
            "an entry on Redis may not exceed 512 MiB"
        } else {
            return Ok(());
        };
        Err(misconfigured(wrong))
    }

    /// Checks the options for sentinels.
    #[cfg(feature = "sentinel")]
    pub(crate) fn check_sentinels(&self, has_sentinels: bool) -> Result<()> {
        let wrong = if self.sentinel_password.is_some() && !has_sentinels {
            "a password for sentinels, but no sentinels in the URL"
        } else if self.sentinel_username.is_some() && self.sentinel_password.is_none() {
            "a user for sentinels, but no password"
        } else {
            return Ok(());
        };
        Err(misconfigured(wrong))
    }

    /// Returns the size of the longest reply, in bytes.
    pub(crate) fn max_reply_bytes(&self) -> u64 {
        self.remote.max_entry_bytes.saturating_add(REPLY_OVERHEAD)
    }
}

/// Returns the content of the file whose path is the value of an option in a URL.
#[cfg(feature = "tls")]
fn file(name: &str, value: &str) -> Result<Vec<u8>> {
    std::fs::read(value).map_err(|error| {
        misconfigured(format!("cannot read the file of `{name}` in a Redis URL: {error}"))
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
            .field("timeout", &self.remote.timeout)
            .field("max_entry_bytes", &self.remote.max_entry_bytes)
            .field("max_connections", &self.max_connections)
            .field("max_idle", &self.max_idle)
            .field("single_flight", &self.remote.single_flight)
            .finish_non_exhaustive()
    }
}
