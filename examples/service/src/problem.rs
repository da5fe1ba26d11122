//! What a handler answers instead of what it was asked for.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is nothing of that name.
    #[error("there is no such thing")]
    NotFound,
    /// The database did not answer.
    #[error("the database is down")]
    Down,
    /// The database refused.
    #[error("the database refused")]
    Store(#[from] rusqlite::Error),
    /// The cache did not do what it was asked to do.
    #[error("the cache refused")]
    Cache(#[from] vayu::Error),
    /// A task ended without an answer.
    #[error("the task ended")]
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
