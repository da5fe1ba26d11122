//! Log lines of the outages of a server: one when an outage begins, one when it is over.

use std::error::Error;
use std::sync::Arc;

use super::breaker::Failed;
use crate::clock::Clock;
use crate::error::with_causes;
use crate::outage::{Outage, display_time};

/// The outages of one server, by its name in log lines.
#[derive(Debug)]
pub struct ServerOutages {
    server: Arc<str>,
    /// From the first failure in a row to the next success.
    failures: Outage,
    /// From when the circuit breaker opens to when it closes.
    open_circuit: Outage,
}

impl ServerOutages {
    /// Returns the state before any outage of the server, such as `redis at host:6379`.
    pub fn new(server: impl Into<Arc<str>>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            server: server.into(),
            failures: Outage::new(Arc::clone(clock)),
            open_circuit: Outage::new(Arc::clone(clock)),
        }
    }

    /// Logs a failure that begins an outage.
    #[cold]
    pub fn failed(&self, failure: &(dyn Error + 'static), consequence: &Failed) {
        match consequence {
            Failed::Counted { .. } if self.failures.failed() => tracing::warn!(
                target: "vayu",
                "{}: {}; the call goes on without the cache",
                self.server,
                with_causes(failure)
            ),
            Failed::Opened { cooldown } if self.open_circuit.failed() => tracing::warn!(
                target: "vayu",
                "{}: {}; circuit breaker open for {}",
                self.server,
                with_causes(failure),
                display_time(*cooldown)
            ),
            _ => {}
        }
    }

    /// Logs that an outage is over. The circuit breaker is closed.
    #[inline]
    pub fn succeeded(&self) {
        let (failures, open_circuit) = (self.failures.succeeded(), self.open_circuit.succeeded());
        // The failures began before the circuit breaker opened.
        if let Some(time) = failures.or(open_circuit) {
            let time = display_time(time);
            tracing::info!(target: "vayu", "{} is back after {time}", self.server);
        }
    }
}
