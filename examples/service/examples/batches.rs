//! A list of users in `SQLite`: one query for each user, one for all, and one for those that are not cached.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "`SQLite` has signed integers"
)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params_from_iter};
use vayu::{cached, mem_cache};

const USERS: u64 = 100_000;
const PAGE: u64 = 100;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The database, and the number of its queries.
struct Users {
    connection: Connection,
    queries: RefCell<u64>,
}

impl Users {
    fn new() -> Result<Self> {
        let mut connection = Connection::open_in_memory()?;
        connection
            .execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)", [])?;
        let transaction = connection.transaction()?;
        for id in 0..USERS {
            let name = format!("user {id}");
            transaction.execute("INSERT INTO users VALUES (?, ?)", (id as i64, name))?;
        }
        transaction.commit()?;
        Ok(Self { connection, queries: RefCell::new(0) })
    }

    /// Reads one user.
    fn read(&self, id: u64) -> Result<String> {
        *self.queries.borrow_mut() += 1;
        let mut query = self.connection.prepare_cached("SELECT name FROM users WHERE id = ?")?;
        Ok(query.query_row([id as i64], |row| row.get(0))?)
    }

    /// Reads many users by one query.
    fn read_many(&self, ids: &[u64]) -> Result<HashMap<u64, String>> {
        *self.queries.borrow_mut() += 1;
        let marks = vec!["?"; ids.len()].join(", ");
        let sql = format!("SELECT id, name FROM users WHERE id IN ({marks})");
        let mut query = self.connection.prepare_cached(&sql)?;
        let ids = params_from_iter(ids.iter().map(|&id| id as i64));
        let rows = query.query_map(ids, |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn queries(&self) -> u64 {
        self.queries.take()
    }
}

#[cached(ttl = "10m", each = ids, prefix = "user", skip(users))]
fn many(users: &Users, ids: &[u64]) -> Result<HashMap<u64, String>> {
    users.read_many(ids)
}

#[cached(ttl = "10m", prefix = "user", skip(users))]
fn one(users: &Users, id: u64) -> Result<String> {
    users.read(id)
}

/// Prints the time of one page, the fastest of several.
fn measure(what: &str, users: &Users, mut page: impl FnMut(&[u64]) -> Result<usize>) -> Result<()> {
    let mut fastest = Duration::MAX;
    users.queries();
    for round in 0..50 {
        let first = round * 2 * PAGE;
        let ids: Vec<u64> = (first..first + PAGE).collect();
        let began = Instant::now();
        let found = page(&ids)?;
        fastest = fastest.min(began.elapsed());
        assert_eq!(found as u64, PAGE);
    }
    println!("{what:44} {fastest:>10.1?}, {:>3} queries a page", users.queries() / 50);
    Ok(())
}

fn main() -> Result<()> {
    let users = Users::new()?;
    measure("one query for each user", &users, |ids| {
        let names: Result<Vec<String>> = ids.iter().map(|&id| users.read(id)).collect();
        Ok(names?.len())
    })?;
    measure("one query for all", &users, |ids| Ok(users.read_many(ids)?.len()))?;
    measure("a cached batch, cold", &users, |ids| Ok(many(&users, ids)?.len()))?;
    mem_cache().clear()?;
    // Half of each page is cached by calls for single users.
    for round in 0..50 {
        for id in (0..PAGE).step_by(2) {
            one(&users, round * 2 * PAGE + id)?;
        }
    }
    measure("a cached batch, half of it cached", &users, |ids| Ok(many(&users, ids)?.len()))?;
    measure("a cached batch, all of it cached", &users, |ids| Ok(many(&users, ids)?.len()))?;
    Ok(())
}
