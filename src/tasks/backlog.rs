//! Jobs as operators see them, and what operators want of them.

use serde::{Deserialize, Serialize};

use crate::content::MERGE;
use crate::meta::jobs::{self, Document};
use crate::meta::{Bell, MetaStore, Session};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::Fault;
use crate::model::ids::JobId;
use crate::model::job::{Job, Refusal, State};

pub use crate::meta::jobs::Filter as JobFilter;

/// Most jobs of one list.
const PAGE_MAX: usize = 200;

/// Types of which there may have been no job yet. Those of the others are made at the first start.
const ON_DEMAND: [&str; 3] = [MERGE, super::moving::KIND, super::events::KIND];

/// All jobs of an open database, with or without an engine that runs them.
pub struct Backlog {
    meta: MetaStore,
    clock: Clock,
    bell: Bell,
}

/// One job. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its number, as text.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `waiting`, `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// What it is about, when such work waits or runs only once.
    pub key: Option<String>,
    /// What it is about.
    pub payload: Document,
    /// The time between two runs of a schedule, in milliseconds.
    pub period: Option<Millis>,
    /// Whether its type is paused.
    pub paused: bool,
    /// Whether its run was told to end, and the job with it.
    pub cancelling: bool,
    /// When it may run, while it waits.
    pub next_run: Option<Millis>,
    /// When another node may take it over, while it runs.
    pub lease_until: Option<Millis>,
    /// The node that runs it, or was the last to do so: its number, as text.
    pub node: Option<String>,
    /// How often it was begun.
    pub runs: i64,
    /// Attempts since it last came forward.
    pub attempt: u32,
    /// Units that are done.
    pub done: u64,
    /// All units, as far as they are known.
    pub total: Option<u64>,
    /// Where the next run goes on.
    pub checkpoint: Option<Document>,
    /// What came of the last run that came to its end.
    pub report: Option<Document>,
    /// Why the last attempt failed, when it did.
    pub reason: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When its last run began.
    pub started: Option<Millis>,
    /// When it ended, or the last run of a schedule did.
    pub ended: Option<Millis>,
}

/// Jobs, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobsReport {
    /// The jobs.
    pub jobs: Vec<JobSummary>,
    /// Types that are paused.
    pub paused: Vec<String>,
}

/// What an operator wants of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That it runs now: a failed or cancelled one again, a waiting one without waiting.
    Retry,
    /// That it does not run, or not on; a failed one, that it is not kept for anyone to look at.
    Cancel,
}

/// Why a wish came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is no such job.
    #[error("there is no job {0}")]
    NoJob(JobId),
    /// The rules of jobs forbid it.
    #[error("job {0}: {1}")]
    Refused(JobId, Refusal),
    /// It would be there twice.
    #[error("job {0}: job {1} is about the same and has not ended")]
    Twice(JobId, JobId),
    /// It would not run.
    #[error("jobs of the type {0} are paused; `osproxy jobs resume {0}` lets them run")]
    Paused(&'static str),
    /// Nothing is known of such jobs.
    #[error("there are no jobs of the type {kind:?}; there are {}", .known.join(", "))]
    NoType {
        /// What was asked for.
        kind: String,
        /// Types that there are.
        known: Vec<String>,
    },
    /// The database failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Backlog {
    /// The jobs of an open database; `bell` wakes the engine of this process, if there is one.
    pub fn new(meta: MetaStore, clock: Clock, bell: Bell) -> Self {
        Self { meta, clock, bell }
    }

    /// Jobs, the newest first, and the types that are paused. At most 200.
    pub async fn list(&self, mut filter: JobFilter) -> Result<JobsReport, Fault> {
        filter.limit = filter.limit.min(PAGE_MAX);
        let (jobs, paused) = self
            .meta
            .scan("list jobs", move |session| {
                Box::pin(async move {
                    let jobs = jobs::list(session, &filter).await?;
                    Ok::<_, Fault>((jobs, jobs::pauses(session).await?))
                })
            })
            .await?;
        Ok(JobsReport {
            jobs: jobs.into_iter().map(|job| summary(job, &paused)).collect(),
            paused,
        })
    }

    /// One job.
    pub async fn show(&self, id: JobId) -> Result<JobSummary, JobError> {
        let (job, paused) = self
            .meta
            .scan("show job", move |session| {
                Box::pin(async move {
                    let job = jobs::find(session, id).await?;
                    Ok::<_, Fault>((job, jobs::pauses(session).await?))
                })
            })
            .await?;
        let job = job.ok_or(JobError::NoJob(id))?;
        Ok(summary(job, &paused))
    }

    /// Does what an operator wants of one job, and answers what that made of it.
    pub async fn wish(&self, id: JobId, wish: Wish) -> Result<JobSummary, JobError> {
        let now = self.clock.now();
        let (job, paused) = self
            .meta
            .transact("change job", move |session| {
                Box::pin(async move {
                    let job = change(session, id, wish, now).await?;
                    Ok::<_, JobError>((job, jobs::pauses(session).await?))
                })
            })
            .await?;
        self.bell.ring();
        Ok(summary(job, &paused))
    }

    /// Lets the schedule of a type run now, and answers it; one that runs is left to it. A paused one is
    /// [`JobError::Paused`].
    pub async fn hurry(&self, kind: &'static str) -> Result<JobSummary, JobError> {
        let now = self.clock.now();
        let job = self
            .meta
            .transact("hurry job", move |session| {
                Box::pin(async move {
                    if jobs::pauses(session)
                        .await?
                        .iter()
                        .any(|paused| paused == kind)
                    {
                        return Err(JobError::Paused(kind));
                    }
                    let Some(id) = jobs::schedule(session, kind).await? else {
                        let known = jobs::kinds(session).await?;
                        return Err(JobError::NoType {
                            kind: kind.to_owned(),
                            known,
                        });
                    };
                    let mut job = jobs::lock(session, id).await?.ok_or(JobError::NoJob(id))?;
                    if job.retry(now).is_ok() {
                        jobs::save(session, &job).await?;
                    }
                    Ok(job)
                })
            })
            .await?;
        self.bell.ring();
        Ok(summary(job, &[]))
    }

    /// Keeps the jobs of a type from running; those that run are told to end, and go on when the type is resumed.
    pub async fn pause(&self, kind: &str) -> Result<(), JobError> {
        let (kind, now) = (kind.to_owned(), self.clock.now());
        self.meta
            .transact("pause jobs", move |session| {
                let kind = kind.clone();
                Box::pin(async move {
                    require_known(session, &kind).await?;
                    Ok(jobs::pause(session, &kind, now).await?)
                })
            })
            .await
    }

    /// Lets the jobs of a type run again. One that is not paused is no error, and one that nothing is known of is.
    pub async fn resume(&self, kind: &str) -> Result<(), JobError> {
        let kind = kind.to_owned();
        self.meta
            .transact("resume jobs", move |session| {
                let kind = kind.clone();
                Box::pin(async move {
                    require_known(session, &kind).await?;
                    Ok::<_, JobError>(jobs::resume(session, &kind).await?)
                })
            })
            .await?;
        self.bell.ring();
        Ok(())
    }
}

/// Refuses a type of which there are no jobs and never were, and which nobody paused.
async fn require_known(session: &mut Session, kind: &str) -> Result<(), JobError> {
    let mut known = jobs::kinds(session).await?;
    known.extend(ON_DEMAND.map(str::to_owned));
    known.extend(jobs::pauses(session).await?);
    known.sort();
    known.dedup();
    if known.iter().any(|it| it == kind) {
        return Ok(());
    }
    Err(JobError::NoType {
        kind: kind.to_owned(),
        known,
    })
}

async fn change(
    session: &mut Session,
    id: JobId,
    wish: Wish,
    now: Millis,
) -> Result<Job, JobError> {
    let mut job = jobs::lock(session, id).await?.ok_or(JobError::NoJob(id))?;
    let changed = match wish {
        Wish::Retry => job.retry(now),
        Wish::Cancel => job.cancel(now),
    };
    changed.map_err(|refusal| JobError::Refused(id, refusal))?;
    if let Some(key) = &job.key
        && !job.state.is_ended()
        && let Some(other) = jobs::live(session, &job.kind, key).await?
        && other != id
    {
        return Err(JobError::Twice(id, other));
    }
    jobs::save(session, &job).await?;
    Ok(job)
}

fn summary(job: Job, paused: &[String]) -> JobSummary {
    let due_in = |state| job.due.filter(|_| job.state == state);
    JobSummary {
        id: job.id.to_string(),
        state: job.state.as_str().to_owned(),
        payload: jobs::shown(&job.payload),
        period: job.period,
        paused: paused.contains(&job.kind),
        cancelling: job.cancelling,
        next_run: due_in(State::Waiting),
        lease_until: due_in(State::Running),
        node: job.node.map(|node| node.to_string()),
        runs: job.run,
        attempt: job.attempt,
        done: job.progress.done,
        total: job.progress.total,
        checkpoint: job.checkpoint.as_deref().map(jobs::shown),
        report: job.report.as_deref().map(jobs::shown),
        created: job.created,
        started: job.started,
        ended: job.ended,
        kind: job.kind,
        key: job.key,
        reason: job.reason,
    }
}
