//! Delivery of events from the outbox to their targets.
//!
//! Every target that is sent to has a task of its own, so that a slow or dead one holds up no other. It takes
//! the target's oldest events in order, sends one after the other, and deletes what was taken: at least once,
//! in the order of commits. After a failure it waits, longer each time, and begins again at the event that
//! failed. It sleeps until the bell rings, and looks now and then in case another process made the events.

mod config;
mod outbox;
mod send;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::send::Sender;
use crate::meta::events::{self, EventRow};
use crate::meta::{Bell, MetaStore, Session};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::Fault;
use crate::tasks::backoff;
use crate::telemetry::Metrics;

pub use config::{Address, Config, Kind, Target, Token};
pub use outbox::{MeasureOutbox, Outbox, QueuedEvent, TargetReport, TendOutbox};

/// Events read and settled together.
const BATCH_MAX: usize = 64;
/// How long one batch may take before it is settled.
const BATCH_TIME: Duration = Duration::from_secs(20);
/// Time between two looks without a ring.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The wait after the first failure; each further one doubles it.
const RETRY_FIRST: Millis = 500;
/// The longest wait.
const RETRY_MAX: Millis = 300_000;
/// Most characters of an error that are kept.
const ERROR_MAX: usize = 300;

/// What delivery needs.
pub struct Parts {
    /// Where the events are.
    pub meta: MetaStore,
    /// The time.
    pub clock: Clock,
    /// This node, which alone delivers while it holds the lease.
    pub node: i64,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Rung when events were committed.
    pub bell: Bell,
    /// The targets.
    pub config: Config,
}

/// The tasks that deliver.
pub struct Deliverer {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Deliverer {
    /// Begins to deliver to every target that is sent to. Fails with
    /// [`Config`](crate::model::fault::Kind::Config) when the way to one cannot be made of its settings; a
    /// target that does not answer is no failure.
    pub fn start(parts: &Parts) -> Result<Self, Fault> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (name, target) in &parts.config.target {
            let Some(sender) = Sender::new(name, target)? else {
                continue;
            };
            let timeout = Duration::from_secs(target.timeout_seconds.get());
            let route = Route {
                name: Arc::from(name.as_str()),
                sender,
                lease: (BATCH_TIME + timeout * 2).as_millis() as Millis + 10_000,
                meta: parts.meta.clone(),
                clock: parts.clock.clone(),
                node: parts.node,
                metrics: Arc::clone(&parts.metrics),
                stop: stop.clone(),
                is_new: true,
            };
            tasks.spawn(route.run(parts.bell.clone()));
        }
        Ok(Self { stop, tasks })
    }

    /// Stops all tasks after the event they are sending was settled, or given up for now.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The way to one target, and what is needed on it.
struct Route {
    name: Arc<str>,
    sender: Sender,
    lease: Millis,
    meta: MetaStore,
    clock: Clock,
    node: i64,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// Whether nothing was tried yet: a new process need not wait out the failures of the one before, whose
    /// settings may have been at fault.
    is_new: bool,
}

/// What to do after a round.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// There may be more.
    Again,
    /// Wait for events.
    Listen,
    /// Wait, whatever rings.
    Rest(Millis),
}

impl Route {
    async fn run(mut self, bell: Bell) {
        let (stop, mut rings) = (self.stop.clone(), bell.listen());
        while !stop.is_cancelled() {
            // Rings from here on are heard after the round.
            rings.borrow_and_update();
            let next = match self.round().await {
                Ok(next) => next,
                Err(fault) => {
                    tracing::warn!(target = &*self.name, %fault, "deliver events");
                    Next::Rest(LOOK_INTERVAL.as_millis() as Millis)
                }
            };
            match next {
                Next::Again => {}
                Next::Listen => tokio::select! {
                    () = stop.cancelled() => {}
                    _ = rings.changed() => {}
                    () = tokio::time::sleep(bell.patience(LOOK_INTERVAL)) => {}
                },
                Next::Rest(millis) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(Duration::from_millis(millis.max(1) as u64)) => {}
                },
            }
        }
    }

    async fn round(&mut self) -> Result<Next, Fault> {
        let waiting = self.waiting(1).await?;
        if waiting.is_empty() {
            return Ok(Next::Listen);
        }
        if let Some(rest) = self.claim().await? {
            return Ok(Next::Rest(rest));
        }
        let batch = self.waiting(BATCH_MAX).await?;
        let whole = batch.len() == BATCH_MAX;
        let mut sent = Vec::with_capacity(batch.len());
        let mut failure = None;
        let began = Instant::now();
        let stop = self.stop.clone();
        for event in &batch {
            if began.elapsed() > BATCH_TIME {
                break;
            }
            tokio::select! {
                // One that may have arrived is sent again after the next start.
                () = stop.cancelled() => break,
                outcome = self.sender.send(event) => match outcome {
                    Ok(()) => sent.push(event.id),
                    Err(fault) => {
                        failure = Some(fault);
                        break;
                    }
                },
            }
        }
        let more = whole || sent.len() < batch.len();
        let rest = self.settle(sent, failure).await?;
        Ok(match rest {
            Some(rest) => Next::Rest(rest),
            None if more => Next::Again,
            None => Next::Listen,
        })
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<EventRow>, Fault> {
        let name = Arc::clone(&self.name);
        self.meta
            .scan("read events", move |session| {
                Box::pin(async move { events::head(session, &name, limit).await })
            })
            .await
    }

    /// Takes the lease; else how long to wait.
    async fn claim(&mut self) -> Result<Option<Millis>, Fault> {
        let name = Arc::clone(&self.name);
        let claimer = Claimer {
            node: self.node,
            now: self.clock.now(),
            lease: self.lease,
            is_new: self.is_new,
        };
        let rest = self
            .meta
            .transact("claim events", move |session| {
                let name = Arc::clone(&name);
                Box::pin(async move { claim(session, &name, claimer).await })
            })
            .await?;
        self.is_new = false;
        Ok(rest)
    }

    /// Deletes what was sent and records how it went; how long to wait after a failure.
    async fn settle(
        &self,
        sent: Vec<i64>,
        failure: Option<Fault>,
    ) -> Result<Option<Millis>, Fault> {
        let error = failure.as_ref().map(|fault| {
            let text: String = fault.to_string().chars().take(ERROR_MAX).collect();
            Arc::<str>::from(text)
        });
        if let Some(fault) = &failure {
            self.metrics.events(&self.name, "failed", 1);
            tracing::warn!(target = &*self.name, %fault, "event not delivered");
        }
        self.metrics
            .events(&self.name, "delivered", sent.len() as u64);
        let (name, now) = (Arc::clone(&self.name), self.clock.now());
        self.meta
            .transact("settle events", move |session| {
                let (name, sent, error) = (Arc::clone(&name), sent.clone(), error.clone());
                Box::pin(async move {
                    let mut row = events::lock_target(session, &name).await?;
                    row.delivered += events::delete(session, &name, &sent).await?;
                    if !sent.is_empty() {
                        row.attempt = 0;
                    }
                    let rest = error.map(|error| {
                        let rest = backoff(RETRY_FIRST, RETRY_MAX, row.attempt);
                        row.attempt = row.attempt.saturating_add(1);
                        row.failed += 1;
                        row.next_run = now + rest;
                        row.last_error = Some(error.to_string());
                        rest
                    });
                    // The next round takes it anew, and another node may come first.
                    row.lease_until = now;
                    events::write_target(session, &row).await?;
                    Ok::<_, Fault>(rest)
                })
            })
            .await
    }
}

/// Who wants to deliver, and for how long.
#[derive(Debug, Clone, Copy)]
struct Claimer {
    node: i64,
    now: Millis,
    lease: Millis,
    is_new: bool,
}

async fn claim(
    session: &mut Session,
    name: &str,
    claimer: Claimer,
) -> Result<Option<Millis>, Fault> {
    let Claimer {
        node,
        now,
        lease,
        is_new,
    } = claimer;
    let mut row = events::lock_target(session, name).await?;
    // A node may take its own lease again: it was ended in between.
    if row.node != node && row.lease_until > now {
        return Ok(Some((row.lease_until - now).min(lease)));
    }
    // A clock that stepped back must not make a wait longer than any wait is.
    if !is_new && row.attempt > 0 && row.next_run > now && row.next_run - now <= RETRY_MAX {
        return Ok(Some(row.next_run - now));
    }
    row.node = node;
    row.lease_until = now + lease;
    events::write_target(session, &row).await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Durability;
    use crate::meta::events::NewEvent;
    use crate::model::ids::BucketId;

    fn meta(dir: &tempfile::TempDir) -> MetaStore {
        let path = dir.path().join("meta.db");
        MetaStore::open(&path, Durability::Relaxed, Metrics::new()).unwrap()
    }

    async fn try_claim(meta: &MetaStore, node: i64, now: Millis) -> Option<Millis> {
        meta.transact("claim", move |session| {
            let claimer = Claimer {
                node,
                now,
                lease: 1000,
                is_new: false,
            };
            Box::pin(claim(session, "t", claimer))
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn one_node_delivers_while_its_lease_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let meta = meta(&dir);
        assert_eq!(try_claim(&meta, 1, 5_000).await, None);
        assert_eq!(try_claim(&meta, 2, 5_400).await, Some(600));
        assert_eq!(try_claim(&meta, 1, 5_400).await, None);
        assert_eq!(try_claim(&meta, 2, 6_400).await, None);
    }

    #[tokio::test]
    async fn events_of_a_target_come_in_order_and_only_its_own_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let meta = meta(&dir);
        let ids: Result<_, Fault> = meta
            .transact("insert", |session| {
                Box::pin(async move {
                    for (id, target) in [(3, "t"), (1, "t"), (2, "u")] {
                        let event = NewEvent {
                            id,
                            target,
                            bucket: BucketId(1),
                            payload: "{}",
                            created: id,
                        };
                        events::insert(session, &event).await?;
                    }
                    let head = events::head(session, "t", 10).await?;
                    let deleted = events::delete(session, "t", &[1, 2, 7]).await?;
                    let old = events::older(session, 3, 10).await?;
                    let ids: Vec<i64> = head.iter().map(|event| event.id).collect();
                    Ok((ids, deleted, old))
                })
            })
            .await;
        assert_eq!(ids.unwrap(), (vec![1, 3], 1, vec![(2, "u".to_owned())]));
    }
}
