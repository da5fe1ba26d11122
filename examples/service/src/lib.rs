//! An HTTP service with cached handlers over a database.
//!
//! Frequently requested data is cached in memory ([`Catalogue::product`]), expensive reports in files that
//! outlive the process ([`Catalogue::report`]). `/` shows cache statistics.

mod catalogue;
mod headers;
mod problem;
mod prometheus;
mod routes;
mod stats;
mod store;

pub use crate::catalogue::{Catalogue, Product, Report};
pub use crate::problem::Problem;
pub use crate::routes::routes;
pub use crate::store::Store;
