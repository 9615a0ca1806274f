//! Uploads that nobody will complete.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::model::fault::{Fault, Kind};
use crate::namespace::{Condition, Namespace};

/// Aborts uploads that were begun too long ago.
pub struct AbortStale(pub Arc<Namespace>);

impl JobHandler for AbortStale {
    fn kind(&self) -> &'static str {
        "abort-stale-uploads"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let aborted = self
                .0
                .abort_stale()
                .await
                .map_err(|condition| match condition {
                    Condition::Fault(fault) => fault,
                    condition => Fault::new(Kind::Internal, "abort stale uploads")
                        .context(format_args!("{condition:?}")),
                })?;
            if aborted > 0 {
                tracing::info!(aborted, "stale uploads aborted");
            }
            Ok(Outcome::count("aborted", aborted)?)
        })
    }
}
