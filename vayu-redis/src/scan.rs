//! Removing all entries of a namespace.

use std::time::Instant;

use redis::{Cmd, Value};
#[cfg(feature = "cluster")]
use redis::{ConnectionAddr, ConnectionInfo};

use crate::error::Failure;
use crate::sync_connection::SyncConnection;

/// How many keys the server looks at for one answer.
const PAGE: u32 = 1000;

/// Removes what has a name of this pattern from one server, a page at a time, and publishes that before
/// each page and at the end: a process that ends in between leaves no copy in the memory of others of
/// what it had removed long before.
pub(crate) fn remove_all(
    connection: &mut dyn SyncConnection,
    pattern: &str,
    publish: &Cmd,
    deadline: impl Fn() -> Instant,
) -> Result<(), Failure> {
    let mut cursor = b"0".to_vec();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
        let (next, names) = page(connection.execute(&scan, deadline())?)?;
        if !names.is_empty() {
            connection.execute(publish, deadline())?;
        }
        // One at a time: the keys of a cluster's node may be of different slots.
        for name in names {
            connection.execute(redis::cmd("UNLINK").arg(name), deadline())?;
        }
        if next == b"0" {
            connection.execute(publish, deadline())?;
            return Ok(());
        }
        cursor = next;
    }
}

fn page(reply: Value) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    let Value::Array(parts) = reply else { return Err(Failure::UnexpectedReply) };
    let Ok([Value::BulkString(next), Value::Array(names)]) = <[Value; 2]>::try_from(parts) else {
        return Err(Failure::UnexpectedReply);
    };
    let names = names.into_iter().map(|name| match name {
        Value::BulkString(name) => Ok(name),
        _ => Err(Failure::UnexpectedReply),
    });
    Ok((next, names.collect::<Result<_, _>>()?))
}

/// The servers of a cluster that have entries, with the user and the password of `template`.
#[cfg(feature = "cluster")]
pub(crate) fn masters(
    connection: &mut dyn SyncConnection,
    template: &ConnectionInfo,
    deadline: Instant,
) -> Result<Vec<ConnectionInfo>, Failure> {
    let Value::Array(ranges) = connection.execute(redis::cmd("CLUSTER").arg("SLOTS"), deadline)?
    else {
        return Err(Failure::UnexpectedReply);
    };
    let mut masters = std::collections::BTreeSet::new();
    for range in ranges {
        // From, to, the master, its replicas; each of these: host, port, ..
        let Value::Array(range) = range else { return Err(Failure::UnexpectedReply) };
        let Some(Value::Array(master)) = range.into_iter().nth(2) else {
            return Err(Failure::UnexpectedReply);
        };
        let [Value::BulkString(host), Value::Int(port), ..] = master.as_slice() else {
            return Err(Failure::UnexpectedReply);
        };
        let host = String::from_utf8(host.clone()).map_err(|_| Failure::UnexpectedReply)?;
        masters.insert((host, u16::try_from(*port).map_err(|_| Failure::UnexpectedReply)?));
    }
    let at = |(host, port): (String, u16)| {
        let address = match template.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        template.clone().set_addr(address)
    };
    Ok(masters.into_iter().map(at).collect())
}
