//! Constructors of caches on a server.

use vayu_core::{OffBackend, OpenBackend, Result};

use crate::RedisCache;
use crate::backend::RedisBackend;
use crate::options::RedisOptions;
use crate::server::Server;
use crate::url::{self, Deployment};

impl RedisOptions {
    /// Opens a cache on one server: `redis://user:password@host:port/db`, `rediss://..` with TLS
    /// (feature `tls`), or `unix:///path?db=0`. A URL may also list several hosts:
    /// `redis+cluster://host:port,host:port/` (feature `cluster`) and
    /// `redis+sentinel://host:port,host:port/name/db` (feature `sentinel`).
    ///
    /// Options may follow a question mark: `namespace`, `timeout`, `max_entry_bytes`,
    /// `max_connections`, `max_idle`, `single_flight=everywhere`, `lease_ttl`, `arguments=hidden`, `connect=eagerly`.
    /// They override those that were set before. Times are seconds, or have a unit: `ms`, `s`, `m`,
    /// `h`, `d`, `w` or a word like `minutes`.
    ///
    /// The feature `sentinel` adds `sentinel_username` and `sentinel_password`, the feature `tls`
    /// the paths of PEM files: `tls_cert_file` and `tls_key_file` of the client certificate,
    /// `tls_ca_cert_file` of the root certificates. In these five, `%26` is an `&` and `%25` a `%`.
    ///
    /// In a password `/`, `?`, `#` and `@` are written `%2F`, `%3F`, `%23` and `%40`. Errors contain
    /// no part of a URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](vayu_core::ErrorKind::Configuration) for an invalid URL or
    /// option; with [`connect_eagerly`](Self::connect_eagerly) also errors of the server.
    pub fn connect(self, url: impl AsRef<str>) -> Result<RedisCache> {
        let (deployment, options) = url::parse(url.as_ref(), self)?;
        options.open(deployment)
    }

    /// Opens a cache on a cluster, some of whose nodes are at these URLs.
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
        options.open(Deployment::Cluster(nodes))
    }

    /// Opens a cache on the master that sentinels at these URLs know by `name`. User, password and
    /// database in the URLs are those of the server; the credentials of the sentinels are
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
        options.open(Deployment::Sentinels { servers, name: name.into() })
    }

    fn open(self, deployment: Deployment) -> Result<RedisCache> {
        self.check()?;
        #[cfg(feature = "sentinel")]
        self.check_sentinels(matches!(deployment, Deployment::Sentinels { .. }))?;
        let connects_eagerly = self.connects_eagerly;
        let backend = RedisBackend::new(Server::new(deployment, &self)?, self);
        if connects_eagerly {
            backend.ping()?;
        }
        Ok(RedisCache::with_backend(backend))
    }
}

impl OpenBackend for RedisBackend {
    type Location = String;

    fn open(url: String) -> Result<Self> {
        Ok(RedisOptions::new().connect(url)?.backend().clone())
    }
}

impl OffBackend for RedisBackend {
    /// # Panics
    ///
    /// Never: the URL is valid, and nothing is connected before the first operation.
    fn off() -> Self {
        let cache = RedisOptions::new().connect("redis://127.0.0.1:0").expect("a valid URL");
        cache.backend().clone()
    }
}
