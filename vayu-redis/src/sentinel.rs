//! Asking sentinels which server is the master.

use std::sync::Arc;
use std::time::Instant;

use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo, Value};

use crate::error::Failure;
use crate::options::RedisOptions;
use crate::sync_connection::SyncConnection;

/// Some sentinels and the name of what they watch.
pub(crate) struct Sentinels {
    /// With user, password and database of the server.
    servers: Vec<ConnectionInfo>,
    name: String,
    /// The user and the password of the sentinels.
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

    /// The master, as the first sentinel says that answers and whose answer is true.
    pub(crate) fn server(
        &self,
        connect: impl Fn(&ConnectionInfo) -> Result<Box<dyn SyncConnection>, Failure>,
        deadline: Instant,
    ) -> Result<ConnectionInfo, Failure> {
        let mut last = Failure::NoMaster;
        for sentinel in &self.servers {
            match self.execute(sentinel, &connect, deadline) {
                Ok(server) => return Ok(server),
                // What a user can mend is of more use than that another sentinel is down.
                Err(failure) if last.misconfiguration().is_none() => last = failure,
                Err(_) => {}
            }
        }
        Err(last)
    }

    fn execute(
        &self,
        sentinel: &ConnectionInfo,
        connect: impl Fn(&ConnectionInfo) -> Result<Box<dyn SyncConnection>, Failure>,
        deadline: Instant,
    ) -> Result<ConnectionInfo, Failure> {
        let own = sentinel.clone().set_redis_settings(self.settings.clone());
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.name);
        let reply =
            connect(&own).and_then(|mut connection| connection.execute(&question, deadline));
        let reply = reply.map_err(|failure| Failure::FromSentinel(Arc::new(failure)))?;
        let server = sentinel.clone().set_addr(address(&reply, sentinel.addr())?);
        // A sentinel may not know yet that there is another one.
        let role = connect(&server)?.execute(&redis::cmd("ROLE"), deadline)?;
        match role {
            Value::Array(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => {
                Ok(server)
            }
            _ => Err(Failure::NoMaster),
        }
    }
}

fn address(reply: &Value, sentinel: &ConnectionAddr) -> Result<ConnectionAddr, Failure> {
    let Value::Array(parts) = reply else { return Err(Failure::UnknownMasterName) };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else {
        return Err(Failure::UnexpectedReply);
    };
    let text = |bytes: &[u8]| {
        str::from_utf8(bytes).map(str::to_owned).map_err(|_| Failure::UnexpectedReply)
    };
    let (host, port) = (text(host)?, text(port)?.parse().map_err(|_| Failure::UnexpectedReply)?);
    Ok(match sentinel {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    })
}
