//! Access logs of buckets on their way into other buckets.

use std::num::NonZeroU64;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::Handler;
use crate::model::fault::Fault;
use crate::namespace::Namespace;
use crate::telemetry::Metrics;

/// Section `[logging]`: access logs of buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds that lines wait at most before they are delivered.
    pub interval_seconds: NonZeroU64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval_seconds: const { NonZeroU64::new(300).expect("not zero") },
        }
    }
}

/// Delivers the lines that wait.
pub struct DeliverLogs {
    /// Where they wait, and where they go.
    pub namespace: Arc<Namespace>,
    /// Counts what is lost.
    pub metrics: Arc<Metrics>,
}

impl DeliverLogs {
    /// Delivers all lines that wait now.
    pub async fn deliver(&self) {
        let report = self.namespace.deliver_logs().await;
        if report.dropped > 0 {
            self.metrics.log_lines_dropped(report.dropped);
            tracing::warn!(lines = report.dropped, "lines of access logs were lost");
        }
    }
}

impl Handler for DeliverLogs {
    fn name(&self) -> &'static str {
        "deliver logs"
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.deliver().await;
            Ok(())
        })
    }
}
