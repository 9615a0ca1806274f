//! Temporary keys whose time is over.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Handler;
use crate::auth::Authority;
use crate::model::fault::Fault;

/// Takes away the rows of temporary keys that expired some time ago.
pub struct PurgeKeys(pub Arc<Authority>);

impl Handler for PurgeKeys {
    fn name(&self) -> &'static str {
        "purge keys"
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let purged = self.0.purge_expired().await?;
            if purged > 0 {
                tracing::info!(purged, "expired temporary keys purged");
            }
            Ok(())
        })
    }
}
