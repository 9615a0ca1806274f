//! One run of a job: the handler at work, its lease renewed beside it, and what came of it recorded.

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Failure, JobHandler, Outcome, Parts, Run, lease_time};
use crate::meta::jobs::{self, Lease, Renewed};
use crate::model::clock::{Millis, millis};
use crate::model::fault::Fault;
use crate::model::job::{Job, State};
use crate::tasks::{backoff, jitter};

/// The wait after the first failed attempt; each further one doubles it.
const RETRY_FIRST: Millis = 1_000;
/// The longest wait.
const RETRY_MAX: Millis = 600_000;
/// Most characters of a reason that are kept.
const REASON_MAX: usize = 1_000;
/// How often it is tried to record the end of a run.
const SETTLE_TRIES: u32 = 5;
/// The pause between two such tries.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// What one run needs.
pub(super) struct Turn {
    pub(super) parts: Arc<Parts>,
    pub(super) handler: Arc<dyn JobHandler>,
    /// From when on the lease counts.
    pub(super) began: Instant,
    /// Cancelled when the node stops.
    pub(super) stop: CancellationToken,
}

/// How a run ended.
#[derive(Debug)]
enum End {
    /// By itself.
    Returned(Result<Outcome, Failure>),
    /// It panicked.
    Panicked,
    /// It was told to stop and dropped.
    Stopped,
    /// Its lease is not its own any more, as far as is known here.
    Lost,
}

impl Turn {
    /// Runs a job that was just claimed; answers its type.
    pub(super) async fn run(self, job: Job) -> &'static str {
        let kind = self.handler.kind();
        let lease = Lease::of(&job);
        let running = self.parts.metrics.running_job(kind);
        tracing::debug!(job = %job.id, kind, run = job.run, attempt = job.attempt, "job begins");
        let run = Run {
            lease,
            meta: self.parts.meta.clone(),
            told: CancellationToken::new(),
            job,
        };
        let end = self.drive(&run).await;
        self.settle(lease, end).await;
        drop(running);
        kind
    }

    async fn drive(&self, run: &Run) -> End {
        let work = AssertUnwindSafe(self.handler.run(run)).catch_unwind();
        tokio::select! {
            biased;
            outcome = work => match outcome {
                Ok(outcome) => End::Returned(outcome),
                Err(_) => End::Panicked,
            },
            end = self.keep(run) => end,
        }
    }

    /// Renews the lease; ends when the run must.
    async fn keep(&self, run: &Run) -> End {
        let lease = lease_time(&self.parts.config);
        let mut held_until = self.began + lease;
        let mut dropped_at: Option<Instant> = None;
        loop {
            let grace = async {
                match dropped_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = grace => return End::Stopped,
                () = self.stop.cancelled(), if dropped_at.is_none() => {
                    run.told.cancel();
                    dropped_at = Some(Instant::now() + self.handler.stop_grace());
                    continue;
                }
                () = tokio::time::sleep(jitter(lease / 3)) => {}
            }
            let asked = Instant::now();
            // A database that does not answer does not make the lease longer.
            let renewed = tokio::time::timeout_at(held_until, self.renew(run.lease)).await;
            match renewed {
                Ok(Ok(Renewed::Yes)) => held_until = asked + lease,
                Ok(Ok(Renewed::Stop)) => {
                    held_until = asked + lease;
                    if dropped_at.is_none() {
                        run.told.cancel();
                        dropped_at = Some(Instant::now() + self.handler.stop_grace());
                    }
                }
                Ok(Ok(Renewed::Lost)) | Err(_) => return End::Lost,
                Ok(Err(fault)) => {
                    tracing::warn!(job = %run.id(), %fault, "renew lease of job");
                    if Instant::now() >= held_until {
                        return End::Lost;
                    }
                }
            }
        }
    }

    async fn renew(&self, lease: Lease) -> Result<Renewed, Fault> {
        let until = self.parts.clock.now() + millis(lease_time(&self.parts.config));
        self.parts
            .meta
            .transact("renew lease of job", move |session| {
                Box::pin(async move { lease.renew(session, until).await })
            })
            .await
    }

    /// Records how the run ended, unless the job is another's by now. When that cannot be recorded the lease runs
    /// out, and another run finds out what is left to do.
    async fn settle(&self, lease: Lease, end: End) {
        let kind = self.handler.kind();
        let end = Arc::new(end);
        let attempts_max = self.handler.attempts_max();
        for _ in 0..SETTLE_TRIES {
            let (end, now) = (Arc::clone(&end), self.parts.clock.now());
            let settled = self
                .parts
                .meta
                .transact("settle job", move |session| {
                    let end = Arc::clone(&end);
                    Box::pin(async move {
                        let Some(mut job) = lease.locked(session).await? else {
                            return Ok::<_, Fault>(None);
                        };
                        let outcome = apply(&mut job, &end, now, attempts_max);
                        jobs::save(session, &job).await?;
                        Ok(Some((outcome, job)))
                    })
                })
                .await;
            match settled {
                Ok(Some((outcome, job))) => {
                    self.parts.metrics.job_done(kind, outcome);
                    tell(outcome, &job);
                    return;
                }
                Ok(None) => {
                    self.parts.metrics.job_done(kind, "lost");
                    tracing::warn!(job = %lease.job(), kind, "job was taken over");
                    return;
                }
                Err(fault) => tracing::warn!(job = %lease.job(), kind, %fault, "settle job"),
            }
            tokio::select! {
                // A node that is none any more records nothing.
                () = self.parts.meta.expelled() => break,
                () = tokio::time::sleep(jitter(SETTLE_PAUSE)) => {}
            }
        }
        self.parts.metrics.job_done(kind, "lost");
    }
}

/// Makes of the job what its run came to; answers a word for it.
fn apply(job: &mut Job, end: &End, now: Millis, attempts_max: u32) -> &'static str {
    let pause = backoff(RETRY_FIRST, RETRY_MAX, job.attempt.saturating_sub(1));
    match end {
        End::Returned(Ok(Outcome::Done(report))) => {
            let period = Duration::from_millis(job.period.unwrap_or(0).max(0) as u64);
            job.finish(now, report.clone(), millis(jitter(period)));
            return "done";
        }
        End::Returned(Ok(Outcome::More(pause))) => {
            job.go_on(now, millis(*pause));
            if job.state == State::Waiting {
                return "more";
            }
        }
        End::Returned(Err(Failure::Passing(fault))) => {
            job.fail(now, shorten(&fault.to_string()), pause, attempts_max);
        }
        End::Returned(Err(Failure::Final(reason))) => job.fail(now, shorten(reason), pause, 0),
        End::Panicked => {
            let reason = "it panicked; the log has more".to_owned();
            job.fail(now, reason, pause, attempts_max);
        }
        // A lease that was feared lost and is still held is given back.
        End::Stopped | End::Lost => {
            job.release(now);
            if job.state == State::Waiting {
                return "released";
            }
        }
    }
    match job.state {
        State::Waiting => "retried",
        state => state.as_str(),
    }
}

/// Logs what became of a job.
pub(super) fn tell(outcome: &'static str, job: &Job) {
    let (id, kind, reason) = (job.id, job.kind.as_str(), job.reason.as_deref());
    match outcome {
        "failed" => {
            tracing::error!(job = %id, kind, attempt = job.attempt, reason, "job failed for good")
        }
        "retried" => tracing::warn!(job = %id, kind, attempt = job.attempt, reason, "job failed"),
        "cancelled" => tracing::info!(job = %id, kind, "job cancelled"),
        _ => tracing::debug!(job = %id, kind, outcome, "job ended"),
    }
}

fn shorten(reason: &str) -> String {
    reason.chars().take(REASON_MAX).collect()
}
