//! What waits in the outbox, for operators and for queues, and the end of what waited too long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::Serialize;

use super::config::{Config, Kind};
use super::{KIND, Order};
use crate::meta::jobs::{self, NewJob};
use crate::meta::{MetaStore, events};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::Fault;
use crate::model::ids::UidGenerator;
use crate::model::job::{Job, State};
use crate::tasks::Handler;
use crate::tasks::engine::{Failure, JobHandler, Outcome, Run};
use crate::telemetry::Metrics;

/// Most events of one answer, and of one transaction that gives some up.
const PAGE_MAX: usize = 1000;
/// Most transactions of one run that gives events up.
const ROUNDS_MAX: usize = 100;

/// The outbox as operators see it.
pub struct Outbox {
    meta: MetaStore,
    clock: Clock,
    uids: Arc<UidGenerator>,
    metrics: Arc<Metrics>,
    config: Config,
    names: BTreeMap<String, Arc<str>>,
}

/// When a job that waits is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    AsItIs,
}

/// How delivery to one target goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TargetReport {
    /// Its name.
    pub name: String,
    /// `webhook`, `redis` or `queue`; absent when it is not configured any more.
    pub kind: Option<Kind>,
    /// Events that wait.
    pub waiting: u64,
    /// When the oldest of them happened, in milliseconds since 1970.
    pub oldest: Option<Millis>,
    /// Events that it got, or that were acknowledged.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events that were dropped because they had waited too long.
    pub given_up: u64,
    /// Attempts that failed since the last success.
    pub attempt: u32,
    /// Not before this, in milliseconds since 1970.
    pub next_run: Option<Millis>,
    /// Why the last failed attempt did.
    pub last_error: Option<String>,
}

/// One event of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueuedEvent {
    /// What it is acknowledged by: a number, as text.
    pub id: String,
    /// When it happened, in milliseconds since 1970.
    pub created: Millis,
    /// What S3 would have sent, a JSON document as text.
    pub body: String,
}

impl Outbox {
    /// The outbox of an open database; `uids` number the jobs that deliver.
    pub fn new(
        meta: MetaStore,
        clock: Clock,
        uids: Arc<UidGenerator>,
        metrics: Arc<Metrics>,
        config: Config,
    ) -> Self {
        let names = config
            .target
            .keys()
            .map(|name| (name.clone(), Arc::from(name.as_str())))
            .collect();
        Self {
            meta,
            clock,
            uids,
            metrics,
            config,
            names,
        }
    }

    /// Makes the jobs that deliver, where they are not there, and lets those that wait after a failure try at once:
    /// the settings of the process before may have been at fault. Before the engine starts.
    pub async fn begin(&self) -> Result<(), Fault> {
        self.ensure(Pace::AtOnce).await
    }

    async fn ensure(&self, pace: Pace) -> Result<(), Fault> {
        let now = self.clock.now();
        for (name, target) in &self.config.target {
            if target.kind == Kind::Queue {
                continue;
            }
            let order = Order {
                target: name.clone(),
            };
            let (name, payload, id) = (name.clone(), jobs::encode(&order)?, self.uids.next()?);
            self.meta
                .transact("make job that delivers", move |session| {
                    let (name, payload) = (name.clone(), payload.clone());
                    Box::pin(async move {
                        if jobs::live(session, KIND, &name).await?.is_none() {
                            let job = NewJob {
                                id,
                                kind: KIND,
                                key: Some(&name),
                                payload: &payload,
                                due: now,
                                now,
                            };
                            jobs::insert(session, &job).await?;
                        } else if pace == Pace::AtOnce {
                            jobs::hurry(session, KIND, &name, now).await?;
                        }
                        Ok::<_, Fault>(())
                    })
                })
                .await?;
        }
        Ok(())
    }

    fn is_queue(&self, name: &str) -> bool {
        self.config
            .target
            .get(name)
            .is_some_and(|target| target.kind == Kind::Queue)
    }

    /// The oldest events of a queue, at most `max`; they stay until they are acknowledged. `None` when there
    /// is no such queue.
    pub async fn queue(&self, name: &str, max: usize) -> Result<Option<Vec<QueuedEvent>>, Fault> {
        if !self.is_queue(name) {
            return Ok(None);
        }
        let name = name.to_owned();
        let found = self
            .meta
            .scan("read queue", move |session| {
                Box::pin(async move { events::head(session, &name, max.min(PAGE_MAX)).await })
            })
            .await?;
        let queued = found.into_iter().map(|event| QueuedEvent {
            id: event.id.to_string(),
            created: event.created,
            body: event.payload,
        });
        Ok(Some(queued.collect()))
    }

    /// Deletes events of a queue, and says how many were there. `None` when there is no such queue.
    pub async fn acknowledge(&self, name: &str, ids: Vec<i64>) -> Result<Option<u64>, Fault> {
        let Some(label) = self.names.get(name).filter(|_| self.is_queue(name)) else {
            return Ok(None);
        };
        let name = name.to_owned();
        let taken = self
            .meta
            .transact("acknowledge", move |session| {
                let (name, ids) = (name.clone(), ids.clone());
                Box::pin(async move {
                    let mut row = events::lock_target(session, &name).await?;
                    let taken = events::delete(session, &name, &ids).await?;
                    row.delivered += taken;
                    events::write_target(session, &row).await?;
                    Ok::<_, Fault>(taken)
                })
            })
            .await?;
        self.metrics.events(label, "delivered", taken);
        Ok(Some(taken))
    }

    /// How delivery goes to every target that is configured or was.
    pub async fn report(&self) -> Result<Vec<TargetReport>, Fault> {
        let (rows, depths, jobs) = self
            .meta
            .scan("look into outbox", |session| {
                Box::pin(async move {
                    let rows = events::targets(session).await?;
                    let depths = events::depths(session).await?;
                    Ok::<_, Fault>((rows, depths, jobs::live_of(session, KIND).await?))
                })
            })
            .await?;
        let mut reports: BTreeMap<String, TargetReport> = BTreeMap::new();
        for (name, target) in &self.config.target {
            reports.entry(name.clone()).or_default().kind = Some(target.kind);
        }
        for row in rows {
            let report = reports.entry(row.name).or_default();
            report.delivered = row.delivered;
            report.failed = row.failed;
            report.given_up = row.given_up;
            report.last_error = row.last_error;
        }
        for job in jobs {
            if let Some(name) = &job.key {
                let report = reports.entry(name.clone()).or_default();
                report.attempt = failed_attempts(&job);
                report.next_run = job.due.filter(|_| job.state == State::Waiting);
            }
        }
        for depth in depths {
            let report = reports.entry(depth.target).or_default();
            report.waiting = depth.events;
            report.oldest = Some(depth.oldest);
        }
        Ok(reports
            .into_iter()
            .map(|(name, report)| TargetReport { name, ..report })
            .collect())
    }

    /// Drops one page of events that are too old; `true` when there may be more.
    async fn give_up(&self, before: Millis) -> Result<bool, Fault> {
        let dropped = self
            .meta
            .transact("give up events", move |session| {
                Box::pin(async move {
                    let mut dropped: BTreeMap<String, Vec<i64>> = BTreeMap::new();
                    for (id, target) in events::older(session, before, PAGE_MAX).await? {
                        dropped.entry(target).or_default().push(id);
                    }
                    for (target, ids) in &dropped {
                        let mut row = events::lock_target(session, target).await?;
                        row.given_up += events::delete(session, target, ids).await?;
                        events::write_target(session, &row).await?;
                    }
                    Ok::<_, Fault>(dropped)
                })
            })
            .await?;
        let mut total = 0;
        for (target, ids) in dropped {
            total += ids.len();
            tracing::warn!(
                target = target.as_str(),
                events = ids.len(),
                "events given up"
            );
            if let Some(label) = self.names.get(&target) {
                self.metrics.events(label, "given_up", ids.len() as u64);
            }
        }
        Ok(total == PAGE_MAX)
    }
}

/// Attempts since the last success, without the one that is made now.
fn failed_attempts(job: &Job) -> u32 {
    match job.state {
        State::Running => job.attempt.saturating_sub(1),
        _ => job.attempt,
    }
}

/// Gives up events that are too old, and sees to it that every target has its job.
pub struct TendOutbox(pub Arc<Outbox>);

impl JobHandler for TendOutbox {
    fn kind(&self) -> &'static str {
        "tend-outbox"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let outbox = &self.0;
            outbox.ensure(Pace::AsItIs).await?;
            let age = outbox.config.give_up_seconds.get().saturating_mul(1000);
            let before = outbox
                .clock
                .now()
                .saturating_sub(Millis::try_from(age).unwrap_or(Millis::MAX));
            for _ in 0..ROUNDS_MAX {
                if !outbox.give_up(before).await? {
                    return Ok(Outcome::done());
                }
            }
            Ok(Outcome::More(Duration::ZERO))
        })
    }
}

/// Measures what waits, for the metrics of this process.
pub struct MeasureOutbox(pub Arc<Outbox>);

impl Handler for MeasureOutbox {
    fn name(&self) -> &'static str {
        "measure outbox"
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let outbox = &self.0;
            for report in outbox.report().await? {
                if let Some(label) = outbox.names.get(&report.name) {
                    outbox.metrics.events_waiting(label, report.waiting);
                }
            }
            Ok(())
        })
    }
}
