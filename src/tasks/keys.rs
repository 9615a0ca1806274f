//! Temporary keys whose time is over.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::auth::Authority;

/// Takes away the rows of temporary keys that expired some time ago.
pub struct PurgeKeys(pub Arc<Authority>);

impl JobHandler for PurgeKeys {
    fn kind(&self) -> &'static str {
        "purge-keys"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let purged = self.0.purge_expired().await?;
            if purged > 0 {
                tracing::info!(purged, "expired temporary keys purged");
            }
            Ok(Outcome::count("purged", purged as u64)?)
        })
    }
}
