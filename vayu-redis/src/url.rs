//! URLs of servers.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
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

impl Deployment {
    /// Returns whether it is one server at a time, without TLS.
    pub(crate) fn is_plaintext_server(&self) -> bool {
        let is_plaintext =
            |server: &ConnectionInfo| !matches!(server.addr(), ConnectionAddr::TcpTls { .. });
        match self {
            Self::Server(server) => is_plaintext(server),
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => false,
            #[cfg(feature = "sentinel")]
            Self::Sentinels { servers, .. } => servers.iter().all(is_plaintext),
        }
    }
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
/// Errors do not contain parts of the URL, as any of them may be a part of a password.
pub(crate) fn parse(url: &str, options: RedisOptions) -> Result<(Deployment, RedisOptions)> {
    check_escapes(url)?;
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

/// Rejects a URL whose password may contain a `/`, `?` or `#`: it would be taken apart there, and a
/// part of the password would become a host or a name, which is logged.
fn check_escapes(url: &str) -> Result<()> {
    if url.ends_with("#insecure") {
        return Err(misconfigured(
            "`#insecure` in a Redis URL is not supported: certificates are always verified; trust the \
             authority of the server with the option `root_certificates` or `tls_ca_cert_file`",
        ));
    }
    if url.contains('#') {
        return Err(misconfigured("a Redis URL has no `#`; escape it in a password as `%23`"));
    }
    let (_, after_scheme) = url.split_once("://").unwrap_or(("", url));
    let end = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(end);
    // The path of a Unix socket may contain an `@`.
    let is_path = rest.starts_with('/') && authority.is_empty();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_misplaced = path.contains('@')
        || query
            .split('&')
            .any(|pair| pair.split('=').next().is_some_and(|name| name.contains('@')))
        || (query.contains('@') && !are_hosts(authority));
    if !is_path && is_misplaced {
        return Err(misconfigured(
            "an `@` after the host of a Redis URL; escape a `/` or `?` in a password as `%2F` or \
             `%3F`, and an `@` in an option as `%40`",
        ));
    }
    Ok(())
}

/// Returns whether what precedes the path is complete: a user with an `@`, or hosts whose ports are
/// numbers. Otherwise it may be a part of a password that a `/` or `?` has split.
fn are_hosts(authority: &str) -> bool {
    let is_host = |host: &str| {
        let port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
        port.map_or(!host.is_empty(), |(host, port)| !host.is_empty() && is_port(port))
    };
    authority.contains('@') || authority.split(',').all(is_host)
}

/// Returns the server at a URL, with the options in its query.
fn parse_server(url: &str, mut options: RedisOptions) -> Result<(ConnectionInfo, RedisOptions)> {
    check_escapes(url)?;
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let is_secret = |parameter: &str| {
        ["pass", "sentinel_password"].iter().any(|name| parameter.split('=').next() == Some(name))
    };
    let has_secret = query.split('&').any(is_secret);
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        // Parts of the URL of a Unix socket.
        if matches!(name, "db" | "user" | "pass") {
            kept.push(parameter);
        } else {
            // What follows an unescaped `&` in a password would be taken for a name.
            let is_shown =
                !has_secret && !query.contains('@') && parameter.contains('=') && is_plain(name);
            options = options.set(name, value, is_shown)?;
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
    let server =
        address.as_str().into_connection_info().map_err(|_| misconfigured(problem(&address)))?;
    #[cfg(feature = "tls")]
    let server = crate::tls::with_certificates(server, &options)?;
    if server.addr().is_supported() {
        Ok((server, options))
    } else {
        Err(misconfigured("URLs of this kind need the feature `tls` (of vayu: `redis-tls`)"))
    }
}

/// Returns whether a name can be repeated in a message.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Returns what is wrong with a URL that the `redis` crate has rejected, without any part of it.
fn problem(url: &str) -> String {
    let (scheme, after_scheme) = url.split_once("://").unwrap_or(("", url));
    let end = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // A port follows the last colon, unless that is in brackets.
    let port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    let port_is_valid = port.is_none_or(|(_, port)| port.is_empty() || port.parse::<u16>().is_ok());
    let database = rest.split('?').next().unwrap_or_default().trim_matches('/');
    let is_tcp = ["redis", "rediss", "valkey", "valkeys"].contains(&scheme);
    let is_unix = scheme.ends_with("unix");
    let what = if !is_tcp && !is_unix {
        "the scheme must be `redis`, `rediss`, `valkey`, `valkeys` or `unix`, followed by `://`"
    } else if is_tcp && port.map_or(host, |(host, _)| host).is_empty() {
        "the host is missing"
    } else if is_tcp && !port_is_valid {
        "the port must be a number from 0 to 65535; escape special characters in a password, \
         such as `/` as `%2F`"
    } else if is_tcp && !database.is_empty() && database.parse::<i64>().is_err() {
        "the database after the host must be a number, as in `redis://host/0`"
    } else {
        "expected `redis://user:password@host:port/database`, with special characters in the \
         password escaped, such as `%25` for `%`"
    };
    format!("invalid URL of a Redis server: {what}")
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
        assert_eq!(options.remote.timeout.as_millis(), 90);
        let (server, options) = one("unix:///run/redis.sock?db=2&lease_ttl=3s");
        assert!(
            matches!(server.addr(), ConnectionAddr::Unix(path) if path.ends_with("redis.sock"))
        );
        assert_eq!(server.redis_settings().db(), 2);
        assert_eq!(options.remote.lease_ttl.as_secs(), 3);
    }

    #[test]
    fn option_in_a_url_may_have_an_at_sign_and_is_percent_decoded() {
        for url in [
            "redis://h/0?namespace=me@home",
            "redis://h/0?namespace=me%40home",
            "redis://h:6379?namespace=me@home&timeout=2s",
            "redis://[::1]:7/?timeout=2%73&namespace=%6de@home",
            "redis://u:p@h?namespace=me@home",
            #[cfg(feature = "cluster")]
            "redis+cluster://a:1,b:2/?namespace=me@home",
        ] {
            let (_, options) = parse(url, RedisOptions::new()).expect(url);
            assert_eq!(options.namespace, "me@home", "{url}");
        }
        let (_, options) = one("redis://h/0?namespace=100%");
        assert_eq!(options.namespace, "100%");
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
            assert_eq!(options.remote.timeout.as_millis(), milliseconds, "{time}");
            assert_eq!(options.remote.lease_ttl, options.remote.timeout);
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

    /// A password is split at each character that has a meaning in a URL. No part of it is in an
    /// error, and none becomes a part of the address, which is logged.
    #[test]
    fn no_part_of_a_password_is_in_an_error_or_in_the_address() {
        const PARTS: [&str; 2] = ["zwiebel", "4711"];
        let mut opened = 0;
        for template in [
            "redis://:PASSWORD@cache/0",
            "redis://me:PASSWORD@cache:6379/0?timeout=2s",
            "redis://PASSWORD@cache",
            "rediss://me:PASSWORD@cache/0",
            "valkey://me:PASSWORD@[::1]:6379/0",
            "redis://me:PASSWORD@cache/notadb",
            "redis://me:PASSWORD@cache:port",
            "redis://me:PASSWORD@cache?colour=red",
            "redis://me:PASSWORD@cache?timeout=soon",
            "redis://me:PASSWORD@",
            "redis:/me:PASSWORD@cache",
            "me:PASSWORD@cache",
            "redis+cluster://me:PASSWORD@a:1,b:2/",
            "redis+sentinel://me:PASSWORD@a:1,b:2/main/0",
            "redis+sentinel://a:1/main?sentinel_password=PASSWORD",
            "redis+sentinel://me:x@a:1/main?sentinel_password=PASSWORD&colour=red",
            "redis://cache/0?sentinel_password=PASSWORD",
            "redis://:4?PASSWORD=4@cache",
            "redis://me:4?PASSWORD=4@cache",
            "redis://me:x?namespace=4&PASSWORD@cache/0",
            "unix:///run/redis.sock?pass=PASSWORD",
            "unix:///run/redis.sock?user=me&pass=PASSWORD&db=0",
        ] {
            for separator in "/?#&@:=%+,;[]\\ '\"!$()*|^`{}<>~._-0\u{e9}\n".chars() {
                for (first, second) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
                    let password = format!("{}{separator}{}", PARTS[first], PARTS[second]);
                    let url = template.replace("PASSWORD", &password);
                    let shown = match parse(&url, RedisOptions::new()) {
                        Err(error) => {
                            let source = std::error::Error::source(&error);
                            format!("{error} {error:?} {source:?}")
                        }
                        Ok((deployment, options)) => {
                            opened += 1;
                            format!("{deployment} {options:?}")
                        }
                    };
                    for part in PARTS {
                        assert!(!shown.contains(part), "{url:?}: {shown}");
                    }
                }
            }
        }
        assert!(opened > 500, "{opened}");
    }

    #[test]
    fn error_says_which_part_is_wrong_and_what_is_accepted() {
        for (url, says) in [
            ("redis://localhost/notadb", "the database after the host must be a number"),
            ("redis://localhost:port", "the port must be a number"),
            ("redis://localhost:99999", "the port must be a number"),
            ("redis://:4711@", "the host is missing"),
            ("http://localhost", "the scheme must be `redis`"),
            ("localhost:6379", "the scheme must be `redis`"),
            ("redis://:p?ssw0rd@cache/0", "escape a `/` or `?` in a password"),
            ("redis://me:12/34@cache/0", "escape a `/` or `?` in a password"),
            ("redis://me:12#34@cache/0", "escape it in a password as `%23`"),
            ("redis+sentinel://me:12/34@cache/main", "escape a `/` or `?` in a password"),
            ("redis://:p?a=b@cache", "escape a `/` or `?` in a password"),
            ("redis://me:p?namespace=b@cache", "escape a `/` or `?` in a password"),
            ("redis://:p@ss?x@cache", "escape a `/` or `?` in a password"),
            (
                "redis://cache?namespace=%FF",
                "the value of an option in a Redis URL is not valid UTF-8",
            ),
            ("rediss://cache/#insecure", "`#insecure` in a Redis URL is not supported"),
            ("redis://cache?colour=red", "unknown option `colour` in a Redis URL; the options are"),
            ("redis://cache?Colour=red", "unknown option in a Redis URL; the options are"),
            ("redis://cache?single_flight=no", "`single_flight` in a Redis URL: `process` or"),
        ] {
            let error = parse(url, RedisOptions::new()).err().expect(url);
            assert!(error.to_string().contains(says), "{url}: {error}");
        }
        let (socket, _) = one("unix:///run/me@host/redis.sock");
        assert!(socket.addr().to_string().contains("me@host"));
        let (server, _) = one("redis://me:p%3Fss%40@host");
        assert_eq!(server.redis_settings().password(), Some("p?ss@"));
    }
}
