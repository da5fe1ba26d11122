//! Iteration over all entries of a namespace, and their removal.

use std::ops::ControlFlow;
use std::time::Instant;

#[cfg(feature = "cluster")]
use redis::ConnectionInfo;
use redis::Value;

use crate::error::Failure;
use crate::request::Request;
use crate::sync_connection::SyncConnection;

/// Number of keys that the server examines for one reply.
const PAGE_SIZE: u32 = 1000;

/// The cursor of the next page, and the names on this one.
type Page = (Vec<u8>, Vec<Vec<u8>>);

/// Calls `visit` for each key that matches a pattern on one server, until it breaks.
pub(crate) fn for_each_name(
    connection: &mut dyn SyncConnection,
    pattern: &str,
    deadline: impl Fn() -> Instant,
    mut visit: impl FnMut(&mut dyn SyncConnection, Vec<u8>) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    let mut cursor = b"0".to_vec();
    loop {
        let (next, names) = connection.execute(&scan(&cursor, pattern), deadline())?;
        for name in names {
            if visit(connection, name)?.is_break() {
                return Ok(());
            }
        }
        if next == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

/// Removes the keys that match a pattern from one server, a page at a time. Publishes the
/// invalidation before each page and at the end, so that an interrupted removal leaves no in-memory
/// copies of what was removed on earlier pages.
pub(crate) fn remove_all(
    connection: &mut dyn SyncConnection,
    pattern: &str,
    publish: &Request<()>,
    deadline: impl Fn() -> Instant,
) -> Result<(), Failure> {
    let mut cursor = b"0".to_vec();
    loop {
        let (next, names) = connection.execute(&scan(&cursor, pattern), deadline())?;
        if !names.is_empty() {
            connection.execute(publish, deadline())?;
        }
        // One at a time: the keys of a cluster node may be in different slots.
        for name in names {
            connection.execute(&unlink(name), deadline())?;
        }
        if next == b"0" {
            return connection.execute(publish, deadline());
        }
        cursor = next;
    }
}

fn scan(cursor: &[u8], pattern: &str) -> Request<Page> {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE_SIZE);
    Request::new(command, page)
}

fn unlink(name: Vec<u8>) -> Request<()> {
    let mut command = redis::cmd("UNLINK");
    command.arg(name);
    Request::without_result(command)
}

fn page(reply: Value) -> Result<Page, Failure> {
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

/// Returns the masters of a cluster, with the user and the password of `template`.
#[cfg(feature = "cluster")]
pub(crate) fn masters(
    connection: &mut dyn SyncConnection,
    template: &ConnectionInfo,
    deadline: Instant,
) -> Result<Vec<ConnectionInfo>, Failure> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let masters = connection.execute(&Request::new(command, master_addresses), deadline)?;
    let at = |(host, port)| {
        template.clone().set_addr(crate::url::with_host(template.addr(), host, port))
    };
    Ok(masters.into_iter().map(at).collect())
}

#[cfg(feature = "cluster")]
fn master_addresses(reply: Value) -> Result<std::collections::BTreeSet<(String, u16)>, Failure> {
    let Value::Array(ranges) = reply else { return Err(Failure::UnexpectedReply) };
    let master = |range| {
        // First slot, last slot, the master, its replicas; each node is host, port and more.
        let Value::Array(range) = range else { return Err(Failure::UnexpectedReply) };
        let Some(Value::Array(master)) = range.into_iter().nth(2) else {
            return Err(Failure::UnexpectedReply);
        };
        let [Value::BulkString(host), Value::Int(port), ..] = master.as_slice() else {
            return Err(Failure::UnexpectedReply);
        };
        let host = String::from_utf8(host.clone()).map_err(|_| Failure::UnexpectedReply)?;
        Ok((host, u16::try_from(*port).map_err(|_| Failure::UnexpectedReply)?))
    };
    ranges.into_iter().map(master).collect()
}
