//! The namespace, kept at a backend.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Handler;
use crate::manifest::Manifests;
use crate::model::fault::Fault;

/// Writes what changed to a manifest.
pub struct WriteManifests(pub Arc<Manifests>);

impl Handler for WriteManifests {
    fn name(&self) -> &'static str {
        "write manifests"
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            match self.0.write().await? {
                Some(written) if written.is_snapshot => {
                    tracing::info!(?written, "manifest of everything written");
                }
                Some(written) => tracing::debug!(?written, "manifest written"),
                None => {}
            }
            Ok(())
        })
    }
}
