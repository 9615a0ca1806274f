//! Rows of jobs: work that is done later, and what became of it.
//!
//! A job is inserted in the transaction of the change that makes it necessary, and claimed by a node under a
//! [`Lease`]. What may become of it is decided by [`model::job`](crate::model::job); here a row is locked, read
//! and written.
//!
//! The lease is the number of the claim, and nothing else: while a transaction that holds it has not ended, no
//! other claim can, and after another claim no transaction can hold it. So what a run changes under its lease is
//! changed by that run alone, also when its node was paused or its clock is wrong.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::JobId;
use crate::model::job::{Job, Progress, State};

/// A JSON document as operators are shown it.
pub type Document = serde_json::Value;

/// Longest key in bytes.
const KEY_MAX: usize = 255;
/// Longest payload, checkpoint or report in bytes.
const DOCUMENT_MAX: usize = 64 << 10;
/// The key of a schedule among the jobs of its type.
const SCHEDULE_KEY: &str = "schedule";

/// A job to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob<'a> {
    /// Its id, as minted for anything else.
    pub id: i64,
    /// Its type: the name of the handler that runs it.
    pub kind: &'a str,
    /// Of the jobs of its type with the same key only one waits or runs. At most 255 bytes.
    pub key: Option<&'a str>,
    /// What it is about, by [`encode`]. Operators see it: no secrets.
    pub payload: &'a str,
    /// Not to be run before this.
    pub due: Millis,
    /// The time now.
    pub now: Millis,
}

/// A JSON document for a payload or a checkpoint.
pub fn encode(document: &impl Serialize) -> Result<String, Fault> {
    let fault = || Fault::new(Kind::Internal, "encode document of job");
    let text = serde_json::to_string(document).map_err(|error| fault().source(error))?;
    if text.len() > DOCUMENT_MAX {
        return Err(fault().context(format_args!("{} bytes", text.len())));
    }
    Ok(text)
}

/// What [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text)
        .map_err(|error| Fault::new(Kind::Corrupt, "decode document of job").source(error))
}

/// A document as operators are shown it; one that cannot be read is shown as text.
pub fn shown(text: &str) -> Document {
    serde_json::from_str(text).unwrap_or_else(|_| Document::from(text))
}

/// Inserts a job, and answers the one that will do the work: this one, or one of the same key that waits or runs.
/// One that runs is run again afterwards, so that it sees what this transaction changed, also when it is being
/// cancelled; its payload stays as it is.
///
/// Locks the row of that key: the last thing a transaction does that locks other rows. When the transaction is
/// committed, the engine's bell is to be rung.
pub async fn insert(session: &mut Session, job: &NewJob<'_>) -> Result<JobId, Fault> {
    insert_row(session, job, None).await?;
    match job.key {
        None => Ok(JobId(job.id)),
        Some(key) => live(session, job.kind, key)
            .await?
            .ok_or_else(|| Fault::new(Kind::Internal, "insert job").context("it is not there")),
    }
}

/// Makes the schedule of a type unless it is there, with its first run at `first`; its period is what is given now.
pub async fn ensure_schedule(
    session: &mut Session,
    job: &NewJob<'_>,
    period: Millis,
) -> Result<(), Fault> {
    let job = NewJob {
        key: Some(SCHEDULE_KEY),
        ..job.clone()
    };
    if live(session, job.kind, SCHEDULE_KEY).await?.is_none() {
        insert_row(session, &job, Some(period)).await?;
    }
    // Not beyond its next time: the period may have been longer, or the clock ahead.
    session
        .execute(
            "UPDATE jobs SET period = $1, due = CASE WHEN due > $2 AND state = 'waiting' THEN $2 ELSE due END
             WHERE type = $3 AND live_key = $4",
            params![
                period,
                job.now.saturating_add(period),
                job.kind,
                SCHEDULE_KEY
            ],
        )
        .await
}

async fn insert_row(
    session: &mut Session,
    job: &NewJob<'_>,
    period: Option<Millis>,
) -> Result<(), Fault> {
    if job.key.is_some_and(|key| key.len() > KEY_MAX) {
        return Err(Fault::new(Kind::Internal, "insert job").context("its key is too long"));
    }
    session
        .execute(
            "INSERT INTO jobs (id, type, work_key, live_key, payload, period, state, due, run, attempt, again,
                               cancelling, done, created)
             VALUES ($1, $2, $3, $3, $4, $5, 'waiting', $6, 0, 0, 0, 0, 0, $7)
             ON CONFLICT (type, live_key) DO UPDATE SET again = 1",
            params![
                job.id,
                job.kind,
                job.key,
                job.payload,
                period,
                job.due,
                job.now
            ],
        )
        .await
}

/// The job of a type and key that waits or runs.
pub async fn live(session: &mut Session, kind: &str, key: &str) -> Result<Option<JobId>, Fault> {
    session
        .query_one(
            "SELECT id FROM jobs WHERE type = $1 AND live_key = $2",
            params![kind, key],
            |row| row.int(0).map(JobId),
        )
        .await
}

/// The schedule of a type.
pub async fn schedule(session: &mut Session, kind: &str) -> Result<Option<JobId>, Fault> {
    live(session, kind, SCHEDULE_KEY).await
}

/// Lets the job of a type and key that waits for a later time be claimed now.
pub async fn hurry(session: &mut Session, kind: &str, key: &str, now: Millis) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE jobs SET due = $1 WHERE type = $2 AND live_key = $3 AND state = 'waiting' AND due > $1",
            params![now, kind, key],
        )
        .await
}

macro_rules! columns {
    () => {
        "SELECT id, type, work_key, payload, period, state, due, run, node_id, attempt, again, cancelling,
                checkpoint, done, total, report, reason, created, started, ended
         FROM jobs"
    };
}

fn job(row: &Row<'_>) -> Result<Job, Fault> {
    let state = row.str(5)?;
    Ok(Job {
        id: JobId(row.int(0)?),
        kind: row.str(1)?.to_owned(),
        key: row.opt_str(2)?.map(str::to_owned),
        payload: row.str(3)?.to_owned(),
        period: row.opt_int(4)?,
        state: State::parse(state).ok_or_else(|| {
            Fault::new(Kind::Corrupt, "decode job").context(format_args!("state {state}"))
        })?,
        due: row.opt_int(6)?,
        run: row.int(7)?,
        node: row.opt_int(8)?,
        attempt: u32::try_from(row.int(9)?).unwrap_or(u32::MAX),
        again: row.int(10)? != 0,
        cancelling: row.int(11)? != 0,
        checkpoint: row.opt_str(12)?.map(str::to_owned),
        progress: Progress {
            done: row.size(13)?,
            total: row.opt_int(14)?.map(|total| total.max(0) as u64),
        },
        report: row.opt_str(15)?.map(str::to_owned),
        reason: row.opt_str(16)?.map(str::to_owned),
        created: row.int(17)?,
        started: row.opt_int(18)?,
        ended: row.opt_int(19)?,
    })
}

/// One job.
pub async fn find(session: &mut Session, id: JobId) -> Result<Option<Job>, Fault> {
    session
        .query_one(concat!(columns!(), " WHERE id = $1"), params![id.0], job)
        .await
}

/// One job, under its lock.
pub async fn lock(session: &mut Session, id: JobId) -> Result<Option<Job>, Fault> {
    session
        .query_one(
            concat!(columns!(), " WHERE id = $1 /*FOR UPDATE*/"),
            params![id.0],
            job,
        )
        .await
}

/// The jobs of a type with a key that wait or run, at most 1000.
pub async fn live_of(session: &mut Session, kind: &str) -> Result<Vec<Job>, Fault> {
    session
        .query(
            concat!(
                columns!(),
                " WHERE type = $1 AND live_key IS NOT NULL ORDER BY live_key LIMIT 1000"
            ),
            params![kind],
            job,
        )
        .await
}

/// Writes back what became of a locked job.
pub async fn save(session: &mut Session, job: &Job) -> Result<(), Fault> {
    let live_key = job.key.as_deref().filter(|_| !job.state.is_ended());
    let total = job.progress.total.map(|total| total as i64);
    session
        .execute(
            "UPDATE jobs
             SET live_key = $1, state = $2, due = $3, run = $4, node_id = $5, attempt = $6, again = $7,
                 cancelling = $8, checkpoint = $9, done = $10, total = $11, report = $12, reason = $13,
                 started = $14, ended = $15
             WHERE id = $16",
            params![
                live_key,
                job.state.as_str(),
                job.due,
                job.run,
                job.node,
                i64::from(job.attempt),
                job.again,
                job.cancelling,
                job.checkpoint.as_deref(),
                job.progress.done as i64,
                total,
                job.report.as_deref(),
                job.reason.as_deref(),
                job.started,
                job.ended,
                job.id.0,
            ],
        )
        .await
}

/// Ends the leases of a node that is no other's and that nothing runs on yet: they are a predecessor's, and need
/// not be waited for.
pub async fn forsake(session: &mut Session, node: i64, now: Millis) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE jobs SET due = $1 WHERE state = 'running' AND node_id = $2",
            params![now, node],
        )
        .await
}

/// The jobs of a type that may be claimed first, at most `limit`, with the times from which on they may.
pub async fn next(
    session: &mut Session,
    kind: &str,
    limit: usize,
) -> Result<Vec<(Millis, JobId)>, Fault> {
    session
        .query(
            "SELECT due, id FROM jobs WHERE type = $1 AND due IS NOT NULL ORDER BY due LIMIT $2",
            params![kind, limit as i64],
            |row| Ok((row.int(0)?, JobId(row.int(1)?))),
        )
        .await
}

/// How many jobs of a type may be claimed at `now`, counted up to `limit`.
pub async fn waiting(
    session: &mut Session,
    kind: &str,
    now: Millis,
    limit: usize,
) -> Result<u64, Fault> {
    let found = session
        .query_one(
            "SELECT COUNT(*) FROM (SELECT id FROM jobs WHERE type = $1 AND due <= $2 LIMIT $3) AS found",
            params![kind, now, limit as i64],
            |row| row.size(0),
        )
        .await?;
    Ok(found.unwrap_or(0))
}

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of this type alone.
    pub kind: Option<String>,
    /// In this state alone.
    pub state: Option<State>,
    /// Older than this one.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: usize,
}

/// Jobs, the newest first.
pub async fn list(session: &mut Session, filter: &Filter) -> Result<Vec<Job>, Fault> {
    let before = filter.before.map_or(i64::MAX, |id| id.0);
    let kind = filter.kind.as_deref().unwrap_or("");
    let limit = filter.limit as i64;
    match filter.state {
        None => {
            session
                .query(
                    concat!(
                        columns!(),
                        " WHERE id < $1 AND ($2 = '' OR type = $2) ORDER BY id DESC LIMIT $3"
                    ),
                    params![before, kind, limit],
                    job,
                )
                .await
        }
        // Of some states there are few among very many jobs.
        Some(state) => {
            session
                .query(
                    concat!(
                        columns!(),
                        " WHERE state = $1 AND id < $2 AND ($3 = '' OR type = $3) ORDER BY id DESC LIMIT $4"
                    ),
                    params![state.as_str(), before, kind, limit],
                    job,
                )
                .await
        }
    }
}

/// Which jobs that ended are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    /// Those that ended before this.
    pub before: Millis,
    /// Of those that failed only what is older than the newest so many: they wait for an operator.
    pub failed_kept: usize,
    /// At most so many.
    pub limit: usize,
}

/// Deletes jobs that ended, and says how many.
pub async fn purge(session: &mut Session, old: &Old) -> Result<usize, Fault> {
    let newest_surplus = session
        .query_one(
            "SELECT id FROM jobs WHERE state = 'failed' ORDER BY id DESC LIMIT 1 OFFSET $1",
            params![old.failed_kept as i64],
            |row| row.int(0),
        )
        .await?;
    let old = session
        .query(
            "SELECT id FROM jobs
             WHERE ended < $1 AND due IS NULL AND (state <> 'failed' OR id <= $2) ORDER BY ended LIMIT $3",
            params![
                old.before,
                newest_surplus.unwrap_or(i64::MIN),
                old.limit as i64
            ],
            |row| row.int(0),
        )
        .await?;
    for id in &old {
        // One that is retried meanwhile stays.
        session
            .execute(
                "DELETE FROM jobs WHERE id = $1 AND due IS NULL",
                params![*id],
            )
            .await?;
    }
    Ok(old.len())
}

/// Types of which there are or were jobs, at most 1000.
pub async fn kinds(session: &mut Session) -> Result<Vec<String>, Fault> {
    session
        .query(
            "SELECT DISTINCT type FROM jobs ORDER BY type LIMIT 1000",
            &[],
            |row| Ok(row.str(0)?.to_owned()),
        )
        .await
}

/// Types that do not run until they are resumed.
pub async fn pauses(session: &mut Session) -> Result<Vec<String>, Fault> {
    session
        .query(
            "SELECT type FROM job_pauses ORDER BY type LIMIT 1000",
            &[],
            |row| Ok(row.str(0)?.to_owned()),
        )
        .await
}

/// Whether a type does not run.
pub async fn is_paused(session: &mut Session, kind: &str) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM job_pauses WHERE type = $1",
            params![kind],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// Keeps a type from running.
pub async fn pause(session: &mut Session, kind: &str, now: Millis) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO job_pauses (type, since) VALUES ($1, $2) ON CONFLICT (type) DO NOTHING",
            params![kind, now],
        )
        .await
}

/// Lets a type run again.
pub async fn resume(session: &mut Session, kind: &str) -> Result<(), Fault> {
    session
        .execute("DELETE FROM job_pauses WHERE type = $1", params![kind])
        .await
}

/// The right to run a job: one claim of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    job: JobId,
    run: i64,
}

/// What the holder of a lease is told when it renews it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Go on.
    Yes,
    /// End the run: the job was cancelled, or its type is paused.
    Stop,
    /// Another claim came after this one, or the job has ended.
    Lost,
}

impl Lease {
    /// The lease of a job that was just claimed.
    pub fn of(job: &Job) -> Self {
        Self {
            job: job.id,
            run: job.run,
        }
    }

    /// Whose it is.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Makes the transaction one of this run: it commits only if nobody has claimed the job since, and until it
    /// has ended nobody can. The first thing such a transaction does; a lease that is lost is a fault.
    pub async fn hold(&self, session: &mut Session) -> Result<(), Fault> {
        let run = session
            .query_one(
                "SELECT run FROM jobs WHERE id = $1 AND state = 'running' /*FOR UPDATE*/",
                params![self.job.0],
                |row| row.int(0),
            )
            .await?;
        if run == Some(self.run) {
            Ok(())
        } else {
            Err(self.lost())
        }
    }

    /// Holds the lease and records, in the transaction of what was done, where the next run goes on.
    pub async fn checkpoint(
        &self,
        session: &mut Session,
        state: &(impl Serialize + Sync),
        progress: Progress,
    ) -> Result<(), Fault> {
        let state = encode(state);
        self.advance(session, state?, progress).await
    }

    /// [`Self::checkpoint`] of a document that is encoded already.
    pub async fn advance(
        &self,
        session: &mut Session,
        state: String,
        progress: Progress,
    ) -> Result<(), Fault> {
        let mut job = self.locked(session).await?.ok_or_else(|| self.lost())?;
        job.advance(state, progress);
        save(session, &job).await
    }

    /// Holds the lease and records how far the run is, which changes nothing else.
    pub async fn record(&self, session: &mut Session, progress: Progress) -> Result<(), Fault> {
        let mut job = self.locked(session).await?.ok_or_else(|| self.lost())?;
        job.record(progress);
        save(session, &job).await
    }

    /// The job under its lock, as long as the lease is held.
    pub async fn locked(&self, session: &mut Session) -> Result<Option<Job>, Fault> {
        let found = lock(session, self.job).await?;
        Ok(found.filter(|job| job.run == self.run && job.state == State::Running))
    }

    /// Holds the lease for longer.
    pub async fn renew(&self, session: &mut Session, until: Millis) -> Result<Renewed, Fault> {
        let Some(job) = self.locked(session).await? else {
            return Ok(Renewed::Lost);
        };
        session
            .execute(
                "UPDATE jobs SET due = $1 WHERE id = $2",
                params![until, self.job.0],
            )
            .await?;
        let is_paused = is_paused(session, &job.kind).await?;
        Ok(if job.cancelling || is_paused {
            Renewed::Stop
        } else {
            Renewed::Yes
        })
    }

    fn lost(&self) -> Fault {
        Fault::new(Kind::Busy, "hold lease")
            .context(format_args!("job {} was taken over or has ended", self.job))
    }
}
