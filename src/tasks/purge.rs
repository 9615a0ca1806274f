//! Jobs that ended long ago.

use std::time::Duration;

use futures::future::BoxFuture;

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::meta::{MetaStore, jobs};
use crate::model::clock::{Clock, millis};

/// Jobs deleted in one transaction.
const ROUND: usize = 500;
/// Failed jobs that are kept whatever their age, the newest ones: more than anyone looks through. Nothing else bounds them,
/// as each object of which the parts cannot be merged leaves one.
const FAILED_KEPT: usize = 10_000;

/// Deletes the rows of jobs some time after their end. Those that failed stay until they are retried or cancelled.
pub struct PurgeJobs {
    /// Where they are.
    pub meta: MetaStore,
    /// The time.
    pub clock: Clock,
    /// How long they are kept.
    pub keep: Duration,
}

impl JobHandler for PurgeJobs {
    fn kind(&self) -> &'static str {
        "purge-jobs"
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let keep = millis(self.keep);
            let before = self.clock.now().saturating_sub(keep);
            let (lease, mut purged) = (run.lease(), 0);
            loop {
                let round = self
                    .meta
                    .transact("purge jobs", move |session| {
                        Box::pin(async move {
                            lease.hold(session).await?;
                            let old = jobs::Old {
                                before,
                                failed_kept: FAILED_KEPT,
                                limit: ROUND,
                            };
                            jobs::purge(session, &old).await
                        })
                    })
                    .await?;
                purged += round;
                if round < ROUND {
                    return Ok(Outcome::count("purged", purged as u64)?);
                }
            }
        })
    }
}
