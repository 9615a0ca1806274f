//! Work outside of requests: what a timer, a change or an operator asks for.
//!
//! Durable work is a job, run by the [`engine`] on whichever node claims it; work that is done again and again is a
//! schedule there, on one node at a time. [`Backlog`] shows jobs to operators. What is about this process alone is
//! repeated by the [`Runner`], and nothing is remembered of it. [`Collector`] and [`Survey`] work at an operator's
//! word too.

mod backlog;
mod collect;
mod encryption;
pub mod engine;
pub mod events;
mod keys;
pub mod lifecycle;
pub mod logs;
mod manifests;
pub mod merge;
mod moving;
mod pausable;
mod purge;
pub mod scrub;
mod survey;
mod uploads;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::meta::Bell;
use crate::model::clock::{Millis, random_fraction};
use crate::model::fault::Fault;

pub use backlog::{Backlog, JobError, JobFilter, JobSummary, JobsReport, Wish};
pub use collect::{Collect, CollectOwn, Collector, GcReport, Sweep, SweepOwn};
pub use encryption::{KeyCommand, KeyReport, Keyring, KmsName, Rewrap};
pub use engine::{Engine, Failure, JobHandler, Outcome, Run};
pub use events::{Deliver, MeasureOutbox, Outbox, TendOutbox};
pub use keys::PurgeKeys;
pub use lifecycle::Expire;
pub use logs::DeliverLogs;
pub use manifests::WriteManifests;
pub use merge::Merge;
pub use moving::{Mend, Mirrors, MoveError, MoveOrder, MoveSummary, Mover, Moves};
pub use pausable::Pausable;
pub use purge::PurgeJobs;
pub use scrub::{Scrub, ScrubReport};
pub use survey::{BucketUsage, Stats, Survey};
pub use uploads::AbortStale;

/// Work of this process alone that is done again and again.
///
/// The contract:
/// - *Idempotent*: a run that finds nothing due changes nothing, and two runs do no more than one.
/// - *Resumable*: its future may be dropped at any point and the process may end at any point; what is left
///   undone is found by the next run.
/// - *Bounded*: memory does not grow with the work that is due, and nothing is locked between two steps.
///
/// A handler never runs twice at a time in one runner.
pub trait Handler: Send + Sync + 'static {
    /// A fixed name for the log.
    fn name(&self) -> &'static str;

    /// Does what is due now. A fault ends this run; the next one comes all the same.
    fn run(&self) -> BoxFuture<'_, Result<(), Fault>>;
}

/// Repeats handlers until it is stopped.
pub struct Runner {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

impl Runner {
    /// A runner with nothing to do.
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs `handler` after about a tenth of `period`, and then with pauses of about `period` between the end
    /// of one run and the begin of the next.
    pub fn every(&mut self, period: Duration, handler: impl Handler) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let repeat = repeat(period, Arc::new(handler));
            tokio::select! {
                () = stop.cancelled() => {}
                () = repeat => {}
            }
        });
    }

    /// Runs `handler` like [`Self::every`], and also whenever `bell` rings.
    pub fn every_and_when(&mut self, period: Duration, bell: &Bell, handler: impl Handler) {
        let (stop, mut bell) = (self.stop.clone(), bell.listen());
        self.tasks.spawn(async move {
            let repeat = async {
                loop {
                    tokio::select! {
                        _ = bell.changed() => {}
                        () = tokio::time::sleep(jitter(period)) => {}
                    }
                    run_once(&handler).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = repeat => {}
            }
        });
    }

    /// Stops all handlers where they are, which their contract allows, and waits for their end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn repeat(period: Duration, handler: Arc<impl Handler>) {
    tokio::time::sleep(jitter(period / 10)).await;
    loop {
        run_once(&*handler).await;
        tokio::time::sleep(jitter(period)).await;
    }
}

async fn run_once(handler: &impl Handler) {
    match AssertUnwindSafe(handler.run()).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => tracing::warn!(task = handler.name(), %fault, "task failed"),
        Err(_) => tracing::error!(task = handler.name(), "task panicked"),
    }
}

/// `period` a tenth longer or shorter, so that nodes that started together do not work together.
fn jitter(period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * random_fraction())
}

/// How long to wait after a failure that came after `attempt` others: a half of twice the time before, and at
/// random up to all of it; `first` at the begin and `most` in the end.
fn backoff(first: Millis, most: Millis, attempt: u32) -> Millis {
    let most = first.saturating_mul(1 << attempt.min(20)).min(most);
    most / 2 + ((most / 2) as f64 * random_fraction()) as Millis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fault::Kind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counts {
        begun: AtomicUsize,
        running: AtomicUsize,
        most: AtomicUsize,
    }

    struct Rough(Arc<Counts>);

    impl Handler for Rough {
        fn name(&self) -> &'static str {
            "rough"
        }

        fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
            Box::pin(async {
                let round = self.0.begun.fetch_add(1, Ordering::SeqCst);
                let running = self.0.running.fetch_add(1, Ordering::SeqCst) + 1;
                self.0.most.fetch_max(running, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(3)).await;
                self.0.running.fetch_sub(1, Ordering::SeqCst);
                match round {
                    0 => Err(Fault::new(Kind::Unavailable, "be rough")),
                    1 => panic!("rough"),
                    _ => Ok(()),
                }
            })
        }
    }

    #[tokio::test]
    async fn a_handler_goes_on_after_faults_and_panics_and_never_beside_itself() {
        let counts = Arc::new(Counts::default());
        let mut runner = Runner::new();
        runner.every(Duration::from_millis(1), Rough(Arc::clone(&counts)));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while counts.begun.load(Ordering::SeqCst) < 5 {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        runner.stop().await;
        let begun = counts.begun.load(Ordering::SeqCst);
        assert_eq!(counts.most.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(counts.begun.load(Ordering::SeqCst), begun);
    }

    struct Stuck;

    impl Handler for Stuck {
        fn name(&self) -> &'static str {
            "stuck"
        }

        fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn a_run_that_does_not_end_does_not_hold_up_the_stop() {
        let mut runner = Runner::new();
        runner.every(Duration::from_millis(1), Stuck);
        tokio::time::sleep(Duration::from_millis(20)).await;
        tokio::time::timeout(Duration::from_secs(5), runner.stop())
            .await
            .unwrap();
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        for _ in 0..1000 {
            let pause = jitter(Duration::from_secs(100)).as_secs_f64();
            assert!((89.9..110.1).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn waits_grow_up_to_a_limit() {
        for (attempt, most) in [(0, 500), (1, 1000), (5, 16_000), (40, 300_000)] {
            for _ in 0..100 {
                let wait = backoff(500, 300_000, attempt);
                assert!((most / 2..=most).contains(&wait), "{attempt} {wait}");
            }
        }
    }
}
