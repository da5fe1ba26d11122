//! Discovery of the master by sentinels.

use std::sync::Arc;
use std::time::Instant;

use redis::{ConnectionInfo, RedisConnectionInfo, Value};

use crate::error::Failure;
use crate::options::RedisOptions;
use crate::request::Request;
use crate::sync_connection::SyncConnection;
use crate::url::with_host;

/// Sentinels, and the name of the master that they watch.
pub(crate) struct Sentinels {
    /// Addresses of the sentinels, with user, password and database of the server.
    servers: Vec<ConnectionInfo>,
    name: String,
    /// User and password for the sentinels.
    settings: RedisConnectionInfo,
}

impl Sentinels {
    pub(crate) fn new(servers: Vec<ConnectionInfo>, name: String, options: &RedisOptions) -> Self {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = &options.sentinel_username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &options.sentinel_password {
            settings = settings.set_password(password);
        }
        Self { servers, name, settings }
    }

    /// Returns the master according to the first sentinel that responds and is right.
    pub(crate) fn master(
        &self,
        connect: impl Fn(&ConnectionInfo) -> Result<Box<dyn SyncConnection>, Failure>,
        deadline: Instant,
    ) -> Result<ConnectionInfo, Failure> {
        let mut last = Failure::NoMaster;
        for sentinel in &self.servers {
            match self.master_of(sentinel, &connect, deadline) {
                Ok(master) => return Ok(master),
                // A misconfiguration is reported rather than that another sentinel is down.
                Err(failure) if last.misconfiguration().is_none() => last = failure,
                Err(_) => {}
            }
        }
        Err(last)
    }

    fn master_of(
        &self,
        sentinel: &ConnectionInfo,
        connect: impl Fn(&ConnectionInfo) -> Result<Box<dyn SyncConnection>, Failure>,
        deadline: Instant,
    ) -> Result<ConnectionInfo, Failure> {
        let own = sentinel.clone().set_redis_settings(self.settings.clone());
        let request = master_address(&self.name);
        let reply =
            connect(&own).and_then(|mut connection| connection.send(request.command(), deadline));
        let reply = reply.map_err(|failure| Failure::FromSentinel(Arc::new(failure)))?;
        let (host, port) = request.parse(reply)?;
        let master = sentinel.clone().set_addr(with_host(sentinel.addr(), host, port));
        // A sentinel may not have noticed a failover yet.
        connect(&master)?.execute(&role(), deadline)?;
        Ok(master)
    }
}

fn master_address(name: &str) -> Request<(String, u16)> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(name);
    Request::new(command, |reply| {
        let Value::Array(parts) = reply else { return Err(Failure::UnknownMasterName) };
        let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else {
            return Err(Failure::UnexpectedReply);
        };
        let utf8 = |bytes| str::from_utf8(bytes).map_err(|_| Failure::UnexpectedReply);
        let port = utf8(port)?.parse().map_err(|_| Failure::UnexpectedReply)?;
        Ok((utf8(host)?.to_owned(), port))
    })
}

/// Checks that a server is a master.
fn role() -> Request<()> {
    Request::new(redis::cmd("ROLE"), |reply| match reply {
        Value::Array(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => {
            Ok(())
        }
        _ => Err(Failure::NoMaster),
    })
}
