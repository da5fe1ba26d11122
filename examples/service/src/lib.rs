//! An HTTP service over a database whose handlers are cached.
//!
//! What is asked for often is kept in memory ([`Catalogue::product`]), what is dear and may be old in
//! files that outlive the process ([`Catalogue::report`]). `/` shows what the caches do.

mod catalogue;
mod problem;
mod prometheus;
mod routes;
mod stats;
mod store;

pub use crate::catalogue::{Catalogue, Product, Report};
pub use crate::problem::Problem;
pub use crate::routes::routes;
pub use crate::store::Store;
