//! Uploads that nobody will complete.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::model::fault::{Fault, Kind};
use crate::namespace::{Namespace, StaleReport};

/// Aborts uploads that were begun too long ago.
pub struct AbortStale(pub Arc<Namespace>);

impl JobHandler for AbortStale {
    fn kind(&self) -> &'static str {
        "abort-stale-uploads"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let report = self.0.abort_stale().await?;
            if report != StaleReport::default() {
                tracing::info!(?report, "stale uploads");
            }
            match report.failed {
                0 => Ok(Outcome::report(&report)?),
                failed => Err(Failure::Passing(
                    Fault::new(Kind::Internal, "abort stale uploads").context(format_args!(
                        "{failed} could not be aborted, {} were; the log says why",
                        report.aborted
                    )),
                )),
            }
        })
    }
}
