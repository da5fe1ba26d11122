//! Classification of error replies: by what has failed, and by the misconfiguration that causes
//! them.

/// The scope of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The server works and has rejected this one command. The connection stays usable.
    Command,
    /// The server works, but this command may succeed on another connection, which sentinels or
    /// name resolution may lead to another server.
    Connection,
    /// The server cannot execute any command. The circuit breaker counts these.
    Server,
}

/// Code and start of the message of the error replies of Redis and Valkey.
///
/// Other error replies have the scope of the command. Error replies during the handshake are not
/// looked up: they always have the scope of the server.
const SCOPES: [(&str, &str, Scope); 31] = [
    // The value or the arguments are wrong.
    ("WRONGTYPE", "", Scope::Command),
    ("CROSSSLOT", "", Scope::Command),
    ("NOSCRIPT", "", Scope::Command),
    ("EXECABORT", "", Scope::Command),
    ("NOTBUSY", "", Scope::Command),
    // A user may have the permission to read and not the permission to publish.
    ("NOPERM", "", Scope::Command),
    // Writes are rejected, reads are served.
    ("OOM", "", Scope::Command),
    ("MISCONF", "", Scope::Command),
    ("NOREPLICAS", "", Scope::Command),
    ("READONLY", "", Scope::Connection),
    // Another node has the slot, other slots are served here.
    ("MOVED", "", Scope::Command),
    ("ASK", "", Scope::Command),
    ("TRYAGAIN", "", Scope::Command),
    ("REDIRECT", "", Scope::Connection),
    // No command is served, or none of this user.
    ("NOAUTH", "", Scope::Server),
    ("WRONGPASS", "", Scope::Server),
    ("DENIED", "", Scope::Server),
    ("NOPROTO", "", Scope::Server),
    ("LOADING", "", Scope::Server),
    ("MASTERDOWN", "", Scope::Server),
    ("CLUSTERDOWN", "", Scope::Server),
    ("BUSY", "", Scope::Server),
    ("UNKILLABLE", "", Scope::Server),
    ("FAILOVER", "", Scope::Server),
    ("IOERR", "", Scope::Server),
    ("ERR", "max number of clients", Scope::Server),
    ("ERR", "operation not permitted", Scope::Server),
    ("ERR", "invalid password", Scope::Server),
    ("ERR", "Client sent AUTH, but no password is set", Scope::Server),
    ("ERR", "AUTH <password> called without any password configured", Scope::Server),
    ("ERR", "Protocol error", Scope::Server),
];

/// Returns the scope of an error reply.
pub(crate) fn scope(code: &str, message: &str) -> Scope {
    // Old servers wrap the error of a command in a script.
    if message.contains("-READONLY") {
        return Scope::Connection;
    }
    SCOPES
        .iter()
        .find(|(known, start, _)| *known == code && message.starts_with(start))
        .map_or(Scope::Command, |&(_, _, scope)| scope)
}

/// A misconfiguration of the cache or the server. None is transient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misconfiguration {
    PasswordMissing,
    PasswordWrong,
    UnexpectedPassword,
    PermissionMissing,
    UnknownCommand,
    ProtectedMode,
    InvalidDatabase,
    #[cfg(feature = "sentinel")]
    SentinelPassword,
    #[cfg(feature = "sentinel")]
    SentinelName,
    #[cfg(feature = "tls")]
    ServerCertificate,
    #[cfg(feature = "tls")]
    ClientCertificate,
    #[cfg(feature = "tls")]
    NoTls,
}

/// Code and start of the message of the error replies that a misconfiguration causes.
const MISCONFIGURATIONS: [(&str, &str, Misconfiguration); 14] = [
    ("NOAUTH", "", Misconfiguration::PasswordMissing),
    ("ERR", "operation not permitted", Misconfiguration::PasswordMissing),
    ("WRONGPASS", "", Misconfiguration::PasswordWrong),
    ("ERR", "invalid password", Misconfiguration::PasswordWrong),
    ("ERR", "Client sent AUTH, but no password is set", Misconfiguration::UnexpectedPassword),
    (
        "ERR",
        "AUTH <password> called without any password configured",
        Misconfiguration::UnexpectedPassword,
    ),
    ("NOPERM", "", Misconfiguration::PermissionMissing),
    ("ERR", "unknown command", Misconfiguration::UnknownCommand),
    ("ERR", "Unknown command", Misconfiguration::UnknownCommand),
    ("ERR", "unknown subcommand", Misconfiguration::UnknownCommand),
    ("NOPROTO", "", Misconfiguration::UnknownCommand),
    ("DENIED", "", Misconfiguration::ProtectedMode),
    ("ERR", "DB index is out of range", Misconfiguration::InvalidDatabase),
    ("ERR", "SELECT is not allowed in cluster mode", Misconfiguration::InvalidDatabase),
];

/// Returns the misconfiguration that an error reply indicates.
pub(crate) fn misconfiguration(code: &str, message: &str) -> Option<Misconfiguration> {
    let mut causes = MISCONFIGURATIONS.iter();
    causes
        .find(|(known, start, _)| *known == code && message.starts_with(start))
        .map(|&(_, _, cause)| cause)
}

impl Misconfiguration {
    /// Returns what to do about it.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::PasswordMissing => {
                "put the password of the server into the URL, as in `redis://user:password@host`"
            }
            Self::PasswordWrong => "correct the user and the password in the URL",
            Self::UnexpectedPassword => {
                "remove the password from the URL, or set one on the server"
            }
            Self::PermissionMissing => {
                "grant the permission with `ACL SETUSER` on the server; the guide lists those that a cache needs"
            }
            Self::UnknownCommand => {
                "use a server that has the command, and do not rename it with `rename-command`"
            }
            Self::ProtectedMode => "set a password on the server, and put it into the URL",
            Self::InvalidDatabase => "correct the number of the database at the end of the URL",
            #[cfg(feature = "sentinel")]
            Self::SentinelPassword => {
                "set or correct the options `sentinel_username` and `sentinel_password`, which are not \
                 the credentials of the server"
            }
            #[cfg(feature = "sentinel")]
            Self::SentinelName => "correct the name that follows the hosts of the sentinels",
            #[cfg(feature = "tls")]
            Self::ServerCertificate => {
                "use a valid certificate for this host, and trust its authority with the option \
                 `root_certificates` or `tls_ca_cert_file`"
            }
            #[cfg(feature = "tls")]
            Self::ClientCertificate => {
                "set the option `client_certificate`, or `tls_cert_file` and `tls_key_file`, to a \
                 certificate that the server accepts"
            }
            #[cfg(feature = "tls")]
            Self::NoTls => "use the TLS port of the server, or a URL without TLS",
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;
    use crate::error::Failure;

    /// Uses replies of Redis 7 and 8 and of Valkey 8.
    #[test]
    fn error_replies_have_the_expected_scope() {
        for (reply, expected) in [
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Scope::Command),
            ("OOM command not allowed when used memory > 'maxmemory'.", Scope::Command),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it's currently",
                Scope::Command,
            ),
            ("NOREPLICAS Not enough good replicas to write.", Scope::Command),
            ("NOPERM User shop has no permissions to run the 'publish' command", Scope::Command),
            ("NOSCRIPT No matching script. Please use EVAL.", Scope::Command),
            ("MOVED 3999 127.0.0.1:6381", Scope::Command),
            ("ASK 3999 127.0.0.1:6381", Scope::Command),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Scope::Command),
            ("CROSSSLOT Keys in request don't hash to the same slot", Scope::Command),
            ("ERR unknown command 'GETRANGE', with args beginning with: ", Scope::Command),
            ("ERR syntax error", Scope::Command),
            ("ERR value is not an integer or out of range", Scope::Command),
            ("WHATEVER comes later", Scope::Command),
            ("READONLY You can't write against a read only replica.", Scope::Connection),
            ("REDIRECT 127.0.0.1:6381", Scope::Connection),
            ("NOAUTH Authentication required.", Scope::Server),
            ("WRONGPASS invalid username-password pair or user is disabled.", Scope::Server),
            ("DENIED Redis is running in protected mode because", Scope::Server),
            ("ERR max number of clients reached", Scope::Server),
            ("ERR max number of clients + cluster connections reached", Scope::Server),
            ("ERR operation not permitted", Scope::Server),
            ("ERR invalid password", Scope::Server),
            ("ERR Client sent AUTH, but no password is set", Scope::Server),
            ("ERR Protocol error: invalid multibulk length", Scope::Server),
            ("LOADING Redis is loading the dataset in memory", Scope::Server),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data", Scope::Server),
            ("CLUSTERDOWN The cluster is down", Scope::Server),
            ("CLUSTERDOWN Hash slot not served", Scope::Server),
            ("BUSY Redis is busy running a script.", Scope::Server),
        ] {
            let line = format!("-{reply}\r\n");
            let value = parse_redis_value(line.as_bytes()).unwrap();
            let failure = Failure::from(value.extract_error().unwrap_err());
            assert_eq!(failure.scope(), expected, "{reply}");
        }
    }

    #[test]
    fn no_row_is_shadowed_by_an_earlier_one() {
        for (index, (code, message, scope_of_row)) in SCOPES.iter().enumerate() {
            assert_eq!(scope(code, message), *scope_of_row);
            let is_again = SCOPES[..index].iter().any(|row| (row.0, row.1) == (*code, *message));
            assert!(!is_again, "{code} {message}");
        }
    }
}
