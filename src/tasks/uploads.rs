//! Uploads that nobody will complete.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Handler;
use crate::model::fault::{Fault, Kind};
use crate::namespace::{Condition, Namespace};

/// Aborts uploads that were begun too long ago.
pub struct AbortStale(pub Arc<Namespace>);

impl Handler for AbortStale {
    fn name(&self) -> &'static str {
        "abort stale uploads"
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            match self.0.abort_stale().await {
                Ok(0) => Ok(()),
                Ok(aborted) => {
                    tracing::info!(aborted, "stale uploads aborted");
                    Ok(())
                }
                Err(Condition::Fault(fault)) => Err(fault),
                Err(condition) => Err(Fault::new(Kind::Internal, "abort stale uploads")
                    .context(format_args!("{condition:?}"))),
            }
        })
    }
}
