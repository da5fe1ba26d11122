//! What the service knows, and how long it remembers that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vayu::telemetry::PerFunctionStats;
use vayu::{FileCache, FileOptions, MemoryCache, MemoryOptions, cached};

use crate::problem::Problem;
use crate::store::Store;

/// The products and reports of a [`Store`], cached.
#[derive(Debug)]
pub struct Catalogue {
    store: Arc<Store>,
    memory: MemoryCache,
    reports: FileCache,
    tally: PerFunctionStats,
}

/// Something that is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its price.
    pub cents: i64,
}

/// What a year brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The year.
    pub year: i64,
    /// What each product brought in cents, by name.
    pub revenue: Vec<(String, i64)>,
}

impl Catalogue {
    /// The catalogue of a store. Reports are kept in a directory.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used.
    pub fn open(store: Arc<Store>, reports: &Path) -> Result<Self, Problem> {
        Self::with_options(store, reports, MemoryOptions::new(), FileOptions::new())
    }

    /// The same with caches of your own making, whose clocks a test can move.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used.
    pub fn with_options(
        store: Arc<Store>,
        reports: &Path,
        memory: MemoryOptions,
        files: FileOptions,
    ) -> Result<Self, Problem> {
        let (memory, reports) = (memory.build(), files.open(reports)?);
        let tally = PerFunctionStats::new();
        memory.observe(tally.clone());
        reports.observe(tally.clone());
        Ok(Self { store, memory, reports, tally })
    }

    /// All products.
    ///
    /// # Errors
    ///
    /// When the store has none to answer, and nothing is remembered.
    #[cached(cache = self.memory, ttl = "5s", stale = "10m", tags("products"))]
    pub async fn products(&self) -> Result<Vec<Product>, Problem> {
        let rows = Arc::clone(&self.store).products().await?;
        Ok(rows.into_iter().map(|(id, name, cents)| Product { id, name, cents }).collect())
    }

    /// One product.
    ///
    /// # Errors
    ///
    /// When there is none, or the store has none to answer, and nothing is remembered.
    #[cached(cache = self.memory, ttl = "5s", stale = "10m", tags("product:{id}", "products"))]
    pub async fn product(&self, id: i64) -> Result<Product, Problem> {
        let found = Arc::clone(&self.store).product(id).await?;
        let (name, cents) = found.ok_or(Problem::NotFound)?;
        Ok(Product { id, name, cents })
    }

    /// Sets the price of a product. Whoever asks from here on gets the new one.
    ///
    /// # Errors
    ///
    /// When there is no such product, or the price could not be set.
    pub async fn set_price(&self, id: i64, cents: i64) -> Result<(), Problem> {
        if !Arc::clone(&self.store).set_price(id, cents).await? {
            return Err(Problem::NotFound);
        }
        self.memory.invalidate_tag(format_args!("product:{id}"))?;
        self.memory.invalidate_function(&Self::products)?;
        Ok(())
    }

    /// What a year brought.
    ///
    /// # Errors
    ///
    /// When the store does not answer, and nothing is remembered.
    #[cached(cache = self.reports, ttl = "1h", handle = report_entry)]
    pub async fn report(&self, year: i64) -> Result<Report, Problem> {
        let revenue = Arc::clone(&self.store).revenue(year).await?;
        Ok(Report { year, revenue })
    }

    /// How old the remembered report of a year is.
    ///
    /// # Errors
    ///
    /// [`Problem::NotFound`] where none is remembered.
    pub async fn report_age(&self, year: i64) -> Result<Duration, Problem> {
        self.report_entry(year).age_async().await?.ok_or(Problem::NotFound)
    }

    /// The report of a year, made anew.
    ///
    /// # Errors
    ///
    /// When the store does not answer; what is remembered stays.
    pub async fn refresh_report(&self, year: i64) -> Result<Report, Problem> {
        self.report_entry(year).refresh_async().await
    }

    /// What each cached function has done.
    pub fn tally(&self) -> &PerFunctionStats {
        &self.tally
    }
}
