//! Jobs that ended long ago.

use std::time::Duration;

use futures::future::BoxFuture;

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::meta::{MetaStore, jobs};
use crate::model::clock::{Clock, millis};

/// Jobs deleted in one transaction.
const ROUND: usize = 500;

/// Deletes the rows of jobs some time after their end.
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
                            jobs::purge(session, before, ROUND).await
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
