//! Failures with the server on which they happened.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// A failure of a server, which is shown before it without credentials.
#[derive(Debug)]
pub struct AtServer<F> {
    /// The kind of the server, as in `redis at `.
    pub kind: &'static str,
    /// The address or the name of the server.
    pub address: Arc<str>,
    /// The failure.
    pub failure: F,
}

impl<F: fmt::Display> fmt::Display for AtServer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}", self.kind, self.address, self.failure)
    }
}

impl<F: Error> Error for AtServer<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failure.source()
    }
}
