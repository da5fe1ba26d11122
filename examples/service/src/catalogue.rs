//! The cached data of the service. All code about caching is here, but for the headers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vayu::backend::FileBackend;
use vayu::telemetry::PerFunctionStats;
use vayu::{FileOptions, MemoryCache, MemoryOptions, TieredCache, TieredOptions, cached};

use crate::problem::Problem;
use crate::store::Store;

/// A cached view of the products and reports of a [`Store`].
#[derive(Debug)]
pub struct Catalogue {
    store: Arc<Store>,
    memory: MemoryCache,
    /// Memory in front of files.
    reports: TieredCache<FileBackend>,
    function_stats: PerFunctionStats,
}

/// A product for sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// The primary key.
    pub id: i64,
    /// The name.
    pub name: String,
    /// The price in cents.
    pub cents: i64,
}

/// The revenue of a year.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The year.
    pub year: i64,
    /// The revenue of each product in cents, by name.
    pub revenue: Vec<(String, i64)>,
}

impl Catalogue {
    /// Creates the catalogue of a store and opens the directory for its reports.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be opened as a cache.
    pub fn open(store: Arc<Store>, reports: &Path) -> Result<Self, Problem> {
        Self::with_options(store, reports, MemoryOptions::new(), FileOptions::new())
    }

    /// Creates a catalogue from options, whose clocks a test can move.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be opened as a cache.
    pub fn with_options(
        store: Arc<Store>,
        reports: &Path,
        memory: MemoryOptions,
        files: FileOptions,
    ) -> Result<Self, Problem> {
        let reports = TieredOptions::new().memory(memory.clone()).over(&files.open(reports)?);
        let (memory, reports) =
            (memory.build().with_name("products"), reports.with_name("reports"));
        let function_stats = PerFunctionStats::new();
        memory.observe(function_stats.clone());
        reports.observe(function_stats.clone());
        Ok(Self { store, memory, reports, function_stats })
    }

    /// Returns all products.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails and no value is cached.
    #[cached(cache = self.memory, ttl = "5s", stale = "10m", tags("products"))]
    pub async fn products(&self) -> Result<Vec<Product>, Problem> {
        let rows = Arc::clone(&self.store).products().await?;
        Ok(rows.into_iter().map(|(id, name, cents)| Product { id, name, cents }).collect())
    }

    /// Returns a product.
    ///
    /// # Errors
    ///
    /// Returns [`Problem::NotFound`] if it does not exist, or an error if the store fails and no value is cached.
    #[cached(cache = self.memory, ttl = "5s", stale = "10m", tags("product:{id}", "products"))]
    pub async fn product(&self, id: i64) -> Result<Product, Problem> {
        let found = Arc::clone(&self.store).product(id).await?;
        let (name, cents) = found.ok_or(Problem::NotFound)?;
        Ok(Product { id, name, cents })
    }

    /// Sets the price of a product. Later calls return the new one.
    ///
    /// # Errors
    ///
    /// Returns [`Problem::NotFound`] if it does not exist, or an error if the store or the invalidation fails.
    pub async fn set_price(&self, id: i64, cents: i64) -> Result<(), Problem> {
        if !Arc::clone(&self.store).set_price(id, cents).await? {
            return Err(Problem::NotFound);
        }
        self.memory.invalidate_tag(format_args!("product:{id}"))?;
        self.memory.invalidate_function(&Self::products)?;
        Ok(())
    }

    /// Returns the revenue of a year.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails and no value is cached.
    #[cached(cache = self.reports, ttl = "1h", handle = report_entry)]
    pub async fn report(&self, year: i64) -> Result<Report, Problem> {
        let revenue = Arc::clone(&self.store).revenue(year).await?;
        Ok(Report { year, revenue })
    }

    /// Returns the age of the cached report of a year.
    ///
    /// # Errors
    ///
    /// Returns [`Problem::NotFound`] if none is cached.
    pub async fn report_age(&self, year: i64) -> Result<Duration, Problem> {
        self.report_entry(year).age_async().await?.ok_or(Problem::NotFound)
    }

    /// Computes the report of a year again.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails; the cached report is kept.
    pub async fn refresh_report(&self, year: i64) -> Result<Report, Problem> {
        self.report_entry(year).refresh_async().await
    }

    /// Returns the number of reports that were found in memory, and in files.
    pub fn report_hits(&self) -> [u64; 2] {
        let files = self.reports.backend().tier_stats().hits;
        let stats = self.reports.stats();
        [(stats.hits + stats.stale).saturating_sub(files), files]
    }

    /// Returns the statistics of each cached function.
    pub fn function_stats(&self) -> &PerFunctionStats {
        &self.function_stats
    }
}
