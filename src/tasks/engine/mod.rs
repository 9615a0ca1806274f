//! Jobs at work: durable rows are claimed under a lease, run by the handler of their type, and settled.
//!
//! A job is inserted in the transaction of the change that makes it necessary
//! ([`meta::jobs::insert`](crate::meta::jobs::insert)), and some node runs it: at least once, and while leases
//! last on one node at a time. An attempt that fails is made again after a pause that grows, until the job has
//! failed for good and waits for an operator. A node that is killed leaves its jobs to the others once its leases
//! have run out; one that stops hands them over at once.
//!
//! # A handler
//!
//! One file, one type of job. Its contract:
//!
//! - *Idempotent*: a run may come after one that was cut anywhere, also right before its end was recorded.
//! - *Under its lease*: a transaction that changes what the job is about begins with
//!   [`Lease::hold`]. Then it fails, and ends the run, if the job was taken over meanwhile.
//! - *Resumable*: its future may be dropped at any point. Long work records where it is with [`Run::checkpoint`], or
//!   with [`Lease::checkpoint`] in the transaction of what it did, and begins there. Attempts count from the last
//!   checkpoint on, so one is recorded for work that was done and for nothing else.
//! - *Bounded*: memory does not grow with the work, and nothing is locked between two steps.
//!
//! What is outside of the database cannot be held under a lease: it must do no harm when it is done twice, or by two
//! at a time.
//!
//! A handler need not hold its lease where every one of its transactions decides anew, under the locks of the rows that
//! it changes, whether what it does is still due: two of them at a time do no more than one. So do `collect`, `sweep`,
//! `lifecycle`, `abort-stale-uploads`, `rewrap`, `purge-keys` and `tend-outbox`, which operators and other nodes may
//! also do beside a run. A checkpoint holds the lease in any case.
//!
//! # A new type of job
//!
//! - A file in [`tasks`](super) with the handler, its `mod` and `pub use` in `tasks/mod.rs`.
//! - [`Engine::register`], or [`Engine::schedule`] for what is done again and again, in `start_jobs` of `app/serve.rs`.
//! - Without a schedule: its type in `ON_DEMAND` of `tasks/backlog.rs`, so that operators can pause it before the first
//!   one; and a function that inserts its jobs, called in the transactions that make them necessary.
//! - A test of it in `compat-tests/faults` that cuts it at any step.
//!
//! ```
//! use futures::future::BoxFuture;
//! use osproxy::meta::{MetaStore, Session, jobs};
//! use osproxy::model::fault::Fault;
//! use osproxy::model::job::Progress;
//! use osproxy::tasks::{Failure, JobHandler, Outcome, Run};
//! use serde::{Deserialize, Serialize};
//!
//! /// What one job is about.
//! #[derive(Serialize, Deserialize)]
//! struct Recount {
//!     bucket: i64,
//! }
//!
//! /// In the transaction that makes it necessary; after the commit the bell is rung.
//! async fn order(session: &mut Session, id: i64, bucket: i64, now: i64) -> Result<(), Fault> {
//!     let job = jobs::NewJob {
//!         id,
//!         kind: "recount",
//!         key: Some(&bucket.to_string()),
//!         payload: &jobs::encode(&Recount { bucket })?,
//!         due: now,
//!         now,
//!     };
//!     jobs::insert(session, &job).await.map(|_| ())
//! }
//!
//! struct RecountBuckets(MetaStore);
//!
//! impl JobHandler for RecountBuckets {
//!     fn kind(&self) -> &'static str {
//!         "recount"
//!     }
//!
//!     fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
//!         Box::pin(async move {
//!             let Recount { bucket } = run.payload()?;
//!             let mut done: u64 = run.state()?.unwrap_or(0);
//!             while done < 3 {
//!                 let (lease, next) = (run.lease(), done + 1);
//!                 let progress = Progress { done: next, total: Some(3) };
//!                 self.0
//!                     .transact("recount", move |session| {
//!                         Box::pin(async move {
//!                             // Holds the lease; what follows commits with it or not at all.
//!                             lease.checkpoint(session, &next, progress).await?;
//!                             let _ = bucket;
//!                             Ok::<_, Fault>(())
//!                         })
//!                     })
//!                     .await?;
//!                 done = next;
//!             }
//!             Ok(Outcome::done())
//!         })
//!     }
//! }
//! ```

mod dispatch;
mod turn;

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::dispatch::Dispatcher;
use super::jitter;
use crate::meta::jobs::{self, Lease, NewJob};
use crate::meta::{Bell, MetaStore};
use crate::model::clock::{Clock, millis};
use crate::model::fault::Fault;
use crate::model::ids::{JobId, UidGenerator};
use crate::model::job::{Job, Progress};
use crate::telemetry::Metrics;

/// Attempts of a job that does not come forward: with the pauses between them about two hours.
const ATTEMPTS_MAX: u32 = 20;

/// Time between two records of the progress of work that keeps no checkpoints.
const RECORDED_EVERY: Duration = Duration::from_secs(5);

/// Section `[jobs]`: work outside of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Jobs that this node runs at a time; those that deliver events and wait for more are not counted.
    pub concurrency: NonZeroU32,
    /// Seconds after which another node takes over a job whose node does not renew its lease any more.
    pub lease_seconds: NonZeroU64,
    /// Seconds after which jobs that another process inserted are seen at the latest; six times as many while other
    /// nodes are heard to tell of them.
    pub poll_seconds: NonZeroU64,
    /// Seconds that jobs are kept after their end, for operators to look at. Failed ones are kept until they are retried or
    /// cancelled, the newest 10000 of them.
    pub keep_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: const { NonZeroU32::new(8).expect("not zero") },
            lease_seconds: const { NonZeroU64::new(30).expect("not zero") },
            poll_seconds: const { NonZeroU64::new(5).expect("not zero") },
            keep_seconds: 604_800,
        }
    }
}

/// Runs the jobs of one type. The [module](self) has the contract, and an example.
pub trait JobHandler: Send + Sync + 'static {
    /// The type: a short fixed name of lower-case letters and hyphens, in rows, logs, metrics and for operators.
    fn kind(&self) -> &'static str;

    /// Does the work of one job, or goes on with it.
    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>>;

    /// Jobs of this type that one node runs at a time.
    fn at_once(&self) -> usize {
        1
    }

    /// Attempts without a checkpoint between them before a job has failed.
    fn attempts_max(&self) -> u32 {
        ATTEMPTS_MAX
    }

    /// How long a run that is told to stop may go on before it is dropped. A run that outlasts its lease is
    /// dropped at once.
    fn stop_grace(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether a run goes on for as long as the node lives and mostly waits. It takes none of the node's
    /// [`concurrency`](Config::concurrency).
    fn stands(&self) -> bool {
        false
    }
}

/// How a run ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done; what came of it, as a JSON document.
    Done(Option<String>),
    /// There is more to do, or something to wait for: it goes on after the pause.
    More(Duration),
}

impl Outcome {
    /// All of it is done, and there is nothing to say.
    pub fn done() -> Self {
        Self::Done(None)
    }

    /// All of it is done, and so many things are what it was about.
    pub fn count(what: &'static str, count: u64) -> Result<Self, Fault> {
        Self::report(&HashMap::from([(what, count)]))
    }

    /// All of it is done, and this came of it.
    pub fn report(report: &impl Serialize) -> Result<Self, Fault> {
        jobs::encode(report).map(|text| Self::Done(Some(text)))
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub enum Failure {
    /// The next attempt may not.
    Passing(Fault),
    /// No attempt can do it, for this reason.
    Final(String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Passing(fault)
    }
}

/// One run of a job, as its handler sees it.
pub struct Run {
    job: Job,
    lease: Lease,
    meta: MetaStore,
    told: CancellationToken,
}

impl Run {
    /// The job's id.
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// What the job is about.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        // What cannot be read now cannot be read later.
        jobs::decode(&self.job.payload).map_err(|fault| Failure::Final(fault.to_string()))
    }

    /// Where to go on, as the last checkpoint before this run said.
    pub fn state<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let state = self.job.checkpoint.as_deref().map(jobs::decode);
        state
            .transpose()
            .map_err(|fault| Failure::Final(fault.to_string()))
    }

    /// How far the job was when this run began.
    pub fn progress(&self) -> Progress {
        self.job.progress
    }

    /// The right to run it, which every effect holds.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Cancelled when the run is to end: the node stops, or an operator cancelled the job or paused its type. A handler
    /// that has a [grace](JobHandler::stop_grace) then comes to a good place and returns [`Outcome::More`].
    pub fn told_to_stop(&self) -> &CancellationToken {
        &self.told
    }

    /// Records where the next run goes on, durably.
    pub async fn checkpoint(
        &self,
        state: &(impl Serialize + Sync),
        progress: Progress,
    ) -> Result<(), Fault> {
        let (lease, state) = (self.lease, Arc::<str>::from(jobs::encode(state)?));
        self.meta
            .transact("checkpoint of job", move |session| {
                let state = Arc::clone(&state);
                Box::pin(async move { lease.advance(session, state.to_string(), progress).await })
            })
            .await
    }

    /// Does `work` that keeps no checkpoints, and records now and then what `progress` says, for operators.
    pub async fn recording<T>(
        &self,
        progress: impl Fn() -> Progress,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let record = async {
            loop {
                tokio::time::sleep(RECORDED_EVERY).await;
                let (lease, progress) = (self.lease, progress());
                let recorded = self
                    .meta
                    .transact("record progress of job", move |session| {
                        Box::pin(async move { lease.record(session, progress).await })
                    });
                // Nothing depends on it; whether the lease is held, others see to.
                if let Err(fault) = recorded.await {
                    let fault: Fault = fault;
                    tracing::debug!(%fault, job = %self.id(), "progress not recorded");
                }
            }
        };
        tokio::select! {
            biased;
            outcome = work => outcome,
            () = record => unreachable!("it records until the work is done"),
        }
    }
}

/// What the engine needs.
#[derive(Clone)]
pub struct Parts {
    /// Where the jobs are.
    pub meta: MetaStore,
    /// The time.
    pub clock: Clock,
    /// This node, as rows name it; no other process goes by it at the same time.
    pub node: i64,
    /// Numbers of schedules.
    pub uids: Arc<UidGenerator>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Rung when jobs were committed.
    pub bell: Bell,
    /// Limits and times.
    pub config: Config,
}

/// Handlers by the type of their jobs.
type Handlers = HashMap<&'static str, Arc<dyn JobHandler>>;

/// The handlers of this node, before they run.
pub struct Engine {
    parts: Parts,
    handlers: Handlers,
    schedules: Vec<(&'static str, Duration)>,
}

impl Engine {
    /// An engine that runs nothing yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            handlers: HashMap::new(),
            schedules: Vec::new(),
        }
    }

    /// Runs the jobs of a type by `handler`.
    pub fn register(&mut self, handler: impl JobHandler) {
        let kind = handler.kind();
        let before = self.handlers.insert(kind, Arc::new(handler));
        debug_assert!(before.is_none(), "two handlers of {kind}");
    }

    /// Runs `handler` again and again, on one node at a time: with pauses of about `period` from the end of one run
    /// to the begin of the next, and the first time after about a tenth of it. After a failure it is tried sooner.
    pub fn schedule(&mut self, period: Duration, handler: impl JobHandler) {
        self.schedules.push((handler.kind(), period));
        self.register(handler);
    }

    /// Makes the schedules that are not there yet, and begins to claim. No other engine may run as the same node;
    /// what a predecessor of that name had claimed goes on at once.
    pub async fn start(self) -> Result<Running, Fault> {
        let (node, now) = (self.parts.node, self.parts.clock.now());
        self.parts
            .meta
            .transact("forsake leases", move |session| {
                Box::pin(async move { jobs::forsake(session, node, now).await })
            })
            .await
            .map_err(|fault: Fault| fault)?;
        for (kind, period) in &self.schedules {
            self.ensure(kind, *period).await?;
        }
        let stop = CancellationToken::new();
        let bell = self.parts.bell.listen();
        let dispatcher = Dispatcher::new(self.parts, self.handlers, stop.clone());
        let task = tokio::spawn(dispatcher.run(bell));
        Ok(Running { stop, task })
    }

    async fn ensure(&self, kind: &'static str, period: Duration) -> Result<(), Fault> {
        let id = self.parts.uids.next()?;
        let now = self.parts.clock.now();
        let first = now.saturating_add(millis(jitter(period / 10)));
        self.parts
            .meta
            .transact("make schedule", move |session| {
                Box::pin(async move {
                    let job = NewJob {
                        id,
                        kind,
                        key: None,
                        payload: "{}",
                        due: first,
                        now,
                    };
                    jobs::ensure_schedule(session, &job, millis(period)).await
                })
            })
            .await
    }
}

/// The engine at work.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Claims nothing more, tells the runs to stop, and gives their leases back, so that another node continues
    /// at once.
    pub async fn stop(self) {
        self.stop.cancel();
        // A panic in it has been reported by the panic hook.
        let _ = self.task.await;
    }
}

fn lease_time(config: &Config) -> Duration {
    Duration::from_secs(config.lease_seconds.get())
}
