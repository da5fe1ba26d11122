//! URLs of servers.

use std::fmt;

#[cfg(any(feature = "cluster", feature = "sentinel"))]
use redis::ConnectionAddr;
use redis::{ConnectionInfo, IntoConnectionInfo};
use vayu_core::Result;

use crate::error::misconfigured;
use crate::options::RedisOptions;

/// Servers that hold the entries.
pub(crate) enum Deployment {
    Server(Box<ConnectionInfo>),
    #[cfg(feature = "cluster")]
    Cluster(Vec<ConnectionInfo>),
    #[cfg(feature = "sentinel")]
    Sentinels {
        servers: Vec<ConnectionInfo>,
        name: String,
    },
}

/// Formats hosts and ports, without user and password.
impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(any(feature = "cluster", feature = "sentinel"))]
        let list = |servers: &[ConnectionInfo]| {
            servers.iter().map(|server| server.addr().to_string()).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Server(server) => server.addr().fmt(f),
            #[cfg(feature = "cluster")]
            Self::Cluster(nodes) => f.write_str(&list(nodes)),
            #[cfg(feature = "sentinel")]
            Self::Sentinels { servers, name } => write!(f, "{}/{name}", list(servers)),
        }
    }
}

/// Returns the deployment that a URL describes, with the options in its query.
///
/// Errors do not contain the URL, as it may contain a password.
pub(crate) fn parse(url: &str, options: RedisOptions) -> Result<(Deployment, RedisOptions)> {
    #[cfg_attr(
        not(any(feature = "cluster", feature = "sentinel")),
        expect(unused_variables, reason = "lists of hosts are parsed")
    )]
    let (scheme, after_scheme) = url.split_once("://").unwrap_or((url, ""));
    match scheme.split_once('+') {
        #[cfg(feature = "cluster")]
        Some((scheme, "cluster")) => {
            let list = HostList::parse(after_scheme);
            let (servers, options) = parse_servers(list.urls(scheme, list.path), options)?;
            Ok((Deployment::Cluster(servers), options))
        }
        #[cfg(feature = "sentinel")]
        Some((scheme, "sentinel")) => {
            let list = HostList::parse(after_scheme);
            let (name, database) = list.path.split_once('/').unwrap_or((list.path, ""));
            if name.is_empty() {
                return Err(misconfigured(
                    "a URL of sentinels must end with the name of the master, \
                     as in `redis+sentinel://host/name`",
                ));
            }
            let (servers, options) = parse_servers(list.urls(scheme, database), options)?;
            Ok((Deployment::Sentinels { servers, name: name.to_owned() }, options))
        }
        #[cfg(not(feature = "cluster"))]
        Some((_, "cluster")) => {
            Err(misconfigured("a cluster needs the feature `cluster` (of vayu: `redis-cluster`)"))
        }
        #[cfg(not(feature = "sentinel"))]
        Some((_, "sentinel")) => {
            Err(misconfigured("sentinels need the feature `sentinel` (of vayu: `redis-sentinel`)"))
        }
        _ => {
            let (server, options) = parse_server(url, options)?;
            Ok((Deployment::Server(Box::new(server)), options))
        }
    }
}

/// Returns the servers at some URLs, with the options in their queries.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
pub(crate) fn parse_servers(
    urls: impl IntoIterator<Item = impl AsRef<str>>,
    mut options: RedisOptions,
) -> Result<(Vec<ConnectionInfo>, RedisOptions)> {
    let mut servers = Vec::new();
    for url in urls {
        let (server, parsed) = parse_server(url.as_ref(), options)?;
        servers.push(server);
        options = parsed;
    }
    if servers.is_empty() {
        return Err(misconfigured("no URL of a Redis server"));
    }
    Ok((servers, options))
}

/// Returns the server at a URL, with the options in its query.
fn parse_server(url: &str, mut options: RedisOptions) -> Result<(ConnectionInfo, RedisOptions)> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        // Parts of the URL of a Unix socket.
        if matches!(name, "db" | "user" | "pass") {
            kept.push(parameter);
        } else {
            options = options.set(name, value)?;
        }
    }
    let address =
        if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    if address.starts_with("rediss:") || address.starts_with("valkeys:") {
        #[cfg(not(feature = "tls"))]
        return Err(misconfigured(
            "`rediss://` URLs need the feature `tls` (of vayu: `redis-tls`)",
        ));
        #[cfg(feature = "tls")]
        crate::tls::provide();
    }
    let server = address
        .into_connection_info()
        .map_err(|error| misconfigured("invalid URL of a Redis server").with_source(error))?;
    #[cfg(feature = "tls")]
    let server = crate::tls::with_certificates(server, &options)?;
    if server.addr().is_supported() {
        Ok((server, options))
    } else {
        Err(misconfigured("URLs of this kind need the feature `tls` (of vayu: `redis-tls`)"))
    }
}

/// Returns the address of another host, with the TLS settings of `template`.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
pub(crate) fn with_host(template: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match template {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}

/// The part after the scheme of a URL with several hosts.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
struct HostList<'a> {
    user: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

#[cfg(any(feature = "cluster", feature = "sentinel"))]
impl<'a> HostList<'a> {
    fn parse(rest: &'a str) -> Self {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) =
            hosts.rsplit_once('@').map_or(("", hosts), |(user, hosts)| (user, hosts));
        Self { user, hosts, path, query }
    }

    fn urls(&self, scheme: &str, path: &str) -> Vec<String> {
        let at = if self.user.is_empty() { "" } else { "@" };
        let url = |host| format!("{scheme}://{}{at}{host}/{path}?{}", self.user, self.query);
        self.hosts.split(',').filter(|host| !host.is_empty()).map(url).collect()
    }
}

#[cfg(test)]
mod tests {
    use redis::ConnectionAddr;
    use vayu_core::ErrorKind;

    use super::*;

    fn one(url: &str) -> (ConnectionInfo, RedisOptions) {
        match parse(url, RedisOptions::new()).unwrap() {
            (Deployment::Server(server), options) => (*server, options),
            #[cfg(any(feature = "cluster", feature = "sentinel"))]
            _ => panic!("one server"),
        }
    }

    #[test]
    fn query_of_a_url_sets_options() {
        let (server, options) = one("redis://me:secret@host:7/3?namespace=app&timeout=90ms");
        assert!(matches!(server.addr(), ConnectionAddr::Tcp(host, 7) if host == "host"));
        let settings = server.redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("me"), Some("secret")));
        assert_eq!(settings.db(), 3);
        assert_eq!(options.namespace, "app");
        assert_eq!(options.timeout.as_millis(), 90);
        let (server, options) = one("unix:///run/redis.sock?db=2&lease_ttl=3s");
        assert!(
            matches!(server.addr(), ConnectionAddr::Unix(path) if path.ends_with("redis.sock"))
        );
        assert_eq!(server.redis_settings().db(), 2);
        assert_eq!(options.lease_ttl.as_secs(), 3);
    }

    #[test]
    fn durations_in_a_url_have_the_units_of_the_attribute() {
        for (time, milliseconds) in [
            ("250ms", 250),
            ("2s", 2000),
            ("2", 2000),
            ("1.5s", 1500),
            ("1m", 60_000),
            ("1minute", 60_000),
        ] {
            let (_, options) = one(&format!("redis://host?timeout={time}&lease_ttl={time}"));
            assert_eq!(options.timeout.as_millis(), milliseconds, "{time}");
            assert_eq!(options.lease_ttl, options.timeout);
        }
        for time in ["5M", "5y", "5H", "5us", "", "-5s", "s3cret"] {
            let address = format!("redis://host?timeout={time}");
            let error = parse(&address, RedisOptions::new()).err().expect(time).to_string();
            assert!(error.contains("`ms`, `s`, `m`, `h`, `d`, `w`"), "{time}: {error}");
            assert!(time.is_empty() || !error.contains(time), "{error}");
        }
    }

    #[cfg(all(feature = "cluster", feature = "sentinel"))]
    #[test]
    fn url_may_list_several_hosts() {
        let options = RedisOptions::new();
        let cluster = "redis+cluster://me:p@a:1,b:2/?namespace=app";
        let (Deployment::Cluster(nodes), options) = parse(cluster, options).unwrap() else {
            panic!("a cluster")
        };
        assert_eq!((nodes.len(), options.namespace.as_str()), (2, "app"));
        assert_eq!(nodes[1].redis_settings().password(), Some("p"));
        let sentinels = "redis+sentinel://a:1,b:2,c:3/main/4";
        let (Deployment::Sentinels { servers, name }, _) = parse(sentinels, options).unwrap()
        else {
            panic!("sentinels")
        };
        assert_eq!((servers.len(), name.as_str()), (3, "main"));
        assert_eq!(servers[0].redis_settings().db(), 4);
    }

    #[test]
    fn error_names_the_problem_and_not_the_password() {
        for (url, says) in [
            ("redis://me:secret@host/x", "invalid URL of a Redis server"),
            ("redis://me:secret@:0", "invalid URL of a Redis server"),
            ("http://me:secret@host", "invalid URL of a Redis server"),
            ("me:secret@host", "invalid URL of a Redis server"),
            ("redis://me:secret@host?colour=red", "unknown option `colour`"),
            ("redis://me:secret@host?timeout=soon", "a time like `250ms`"),
            ("redis://me:secret@host?max_entry_bytes=-1", "must be a number"),
            ("redis://me:secret@host?single_flight=no", "invalid value for `single_flight`"),
            ("redis+sentinel://me:secret@host", "name"),
            ("redis+cluster://", "cluster"),
        ] {
            let error = parse(url, RedisOptions::new()).map(drop).map_or_else(
                |error| error,
                |()| crate::RedisCache::open(url).map(drop).expect_err(url),
            );
            assert_eq!(error.kind(), ErrorKind::Configuration, "{url}");
            let message = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
            assert!(!message.contains("secret"), "{message}");
            let is_about_lists = url.contains('+');
            assert!(message.contains(says) || is_about_lists, "{url}: {message}");
        }
    }
}
