//! Lifecycle rules at work.

use std::num::NonZeroU64;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::lifecycle::Calendar;
use crate::namespace::{Condition, ExpireReport, Namespace};
use crate::telemetry::Metrics;

/// Section `[lifecycle]`: when lifecycle rules are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds of a day. Other than 86400 only for tests; then days are not rounded up to midnight either.
    pub day_seconds: NonZeroU64,
    /// Seconds between two looks.
    pub interval_seconds: NonZeroU64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            day_seconds: const { NonZeroU64::new(86_400).expect("not zero") },
            interval_seconds: const { NonZeroU64::new(3600).expect("not zero") },
        }
    }
}

impl Config {
    /// The calendar that rules count by.
    pub fn calendar(&self) -> Calendar {
        Calendar::new(
            Millis::try_from(self.day_seconds.get().saturating_mul(1000)).unwrap_or(Millis::MAX),
        )
    }
}

/// Does what the rules of all buckets say is due.
pub struct Expire {
    /// Where the rules are, and what they are about.
    pub namespace: Arc<Namespace>,
    /// What they count days by.
    pub calendar: Calendar,
    /// Counts what they did.
    pub metrics: Arc<Metrics>,
}

impl Expire {
    /// Answers also how many buckets failed; every other one had its turn.
    async fn pass(&self) -> Result<(ExpireReport, u64), Condition> {
        let mut total = ExpireReport::default();
        let mut failed = 0;
        let mut after = None;
        loop {
            let (buckets, next) = self.namespace.buckets_with_lifecycle(after).await?;
            for bucket in buckets {
                match self.namespace.expire(&bucket, self.calendar).await {
                    Ok(report) => {
                        self.count(&report);
                        total.add(report);
                    }
                    // Deleted meanwhile.
                    Err(Condition::NoSuchBucket) => {}
                    // One bucket's failure must not keep the others from their turn.
                    Err(condition) => {
                        let bucket = bucket.name.as_str();
                        tracing::warn!(bucket, ?condition, "lifecycle rules not carried out");
                        failed += 1;
                    }
                }
            }
            match next {
                Some(_) => after = next,
                None => return Ok((total, failed)),
            }
        }
    }

    fn count(&self, report: &ExpireReport) {
        for (action, count) in [
            ("expire", report.current),
            ("delete_marker", report.markers),
            ("expire_noncurrent", report.noncurrent),
            ("abort_upload", report.uploads),
            ("keep", report.kept),
        ] {
            if count > 0 {
                self.metrics.lifecycle(action, count);
            }
        }
    }
}

impl JobHandler for Expire {
    fn kind(&self) -> &'static str {
        "lifecycle"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let (report, failed) = self.pass().await.map_err(|condition| match condition {
                Condition::Fault(fault) => fault,
                condition => Fault::new(Kind::Internal, "carry out lifecycle rules")
                    .context(format_args!("{condition:?}")),
            })?;
            if report != ExpireReport::default() {
                tracing::info!(?report, "lifecycle rules carried out");
            }
            match failed {
                0 => Ok(Outcome::report(&report)?),
                failed => Err(Failure::Passing(
                    Fault::new(Kind::Internal, "carry out lifecycle rules").context(format_args!(
                        "those of {failed} buckets were not carried out; the log says why"
                    )),
                )),
            }
        })
    }
}
