//! The error responses of handlers.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// An error that becomes an HTTP response.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The product or report does not exist.
    #[error("not found")]
    NotFound,
    /// The database is not available.
    #[error("the database is down")]
    Down,
    /// A query failed.
    #[error("the query failed")]
    Store(#[from] rusqlite::Error),
    /// An operation on the cache failed.
    #[error("the cache failed")]
    Cache(#[from] vayu::Error),
    /// A task panicked or was cancelled.
    #[error("the task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Down => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{self}\n")).into_response()
    }
}
