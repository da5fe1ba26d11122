//! The `SQLite` database.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use crate::problem::Problem;

/// A catalogue of products and their orders in `SQLite`.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
    queries: AtomicU64,
    is_down: AtomicBool,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, cents INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS orders (product INTEGER NOT NULL, year INTEGER NOT NULL, cents INTEGER NOT NULL);
";

const NAMES: [&str; 5] = ["teapot", "kettle", "cup", "saucer", "spoon"];
const YEARS: std::ops::Range<i64> = 2020..2026;

impl Store {
    /// Opens the database, and fills it if it is new.
    ///
    /// # Errors
    ///
    /// Returns the errors of `SQLite`.
    pub fn open(path: &Path) -> Result<Arc<Self>, Problem> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        let count: i64 =
            connection.query_row("SELECT count(*) FROM products", [], |row| row.get(0))?;
        if count == 0 {
            fill(&connection)?;
        }
        Ok(Arc::new(Self {
            connection: Mutex::new(connection),
            queries: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
        }))
    }

    /// Returns the number of queries so far, failed ones included.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::SeqCst)
    }

    /// Makes every query fail, or ends that.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Returns the products, as primary key, name and price.
    pub(crate) async fn products(self: Arc<Self>) -> Result<Vec<(i64, String, i64)>, Problem> {
        self.query(|connection| {
            let mut statement =
                connection.prepare("SELECT id, name, cents FROM products ORDER BY id")?;
            let rows =
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })
        .await
    }

    /// Returns the name and price of a product.
    pub(crate) async fn product(
        self: Arc<Self>,
        id: i64,
    ) -> Result<Option<(String, i64)>, Problem> {
        self.query(move |connection| {
            connection
                .query_row("SELECT name, cents FROM products WHERE id = ?1", [id], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
        })
        .await
    }

    /// Sets a price. Returns whether the product exists.
    pub(crate) async fn set_price(self: Arc<Self>, id: i64, cents: i64) -> Result<bool, Problem> {
        self.query(move |connection| {
            let changed =
                connection.execute("UPDATE products SET cents = ?2 WHERE id = ?1", [id, cents])?;
            Ok(changed > 0)
        })
        .await
    }

    /// Returns the revenue of each product in a year, by name.
    pub(crate) async fn revenue(self: Arc<Self>, year: i64) -> Result<Vec<(String, i64)>, Problem> {
        self.query(move |connection| {
            let mut statement = connection.prepare(
                "SELECT name, sum(orders.cents) FROM orders JOIN products ON product = id \
                 WHERE year = ?1 GROUP BY name ORDER BY name",
            )?;
            let rows = statement.query_map([year], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .await
    }

    /// Runs a query on a thread that may block.
    async fn query<T: Send + 'static>(
        self: Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        tokio::task::spawn_blocking(move || {
            self.queries.fetch_add(1, Ordering::SeqCst);
            if self.is_down.load(Ordering::SeqCst) {
                return Err(Problem::Down);
            }
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(query(&connection)?)
        })
        .await?
    }
}

fn fill(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    for (id, name) in (1_i64..).zip(NAMES) {
        connection.execute("INSERT INTO products VALUES (?1, ?2, ?3)", (id, name, 1_000 * id))?;
        for (number, year) in
            (0..2_000_i64).flat_map(|number| YEARS.map(move |year| (number, year)))
        {
            let cents = 900 * id + number % 200;
            connection.execute("INSERT INTO orders VALUES (?1, ?2, ?3)", (id, year, cents))?;
        }
    }
    connection.execute_batch("COMMIT")
}
