//! Delivery of events from the outbox to their targets.
//!
//! Every target that is sent to has a job of its own, so that a slow or dead one holds up no other. The job stands:
//! its run takes the target's oldest events in order, sends one after the other, deletes what was taken, and then waits
//! for more, until the node stops: at least once, in the order of commits. An event that is not taken ends the run as
//! a failed attempt, and the next one begins at it. A run sleeps until the bell rings, and looks now and then in case
//! another process made the events.

mod config;
mod outbox;
mod send;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::send::Sender;
use crate::meta::events::{self, EventRow};
use crate::meta::{Bell, MetaStore};
use crate::model::fault::Fault;
use crate::model::job::Progress;
use crate::tasks::engine::{Failure, JobHandler, Outcome, Run};
use crate::telemetry::Metrics;

pub use config::{Address, Config, Kind, Target, Token};
pub use outbox::{MeasureOutbox, Outbox, QueuedEvent, TargetReport, TendOutbox};

/// The type of the jobs that deliver. The key of each is the name of its target.
pub(super) const KIND: &str = "deliver-events";
/// Events read and settled together.
const BATCH_MAX: usize = 64;
/// How long one batch may take before it is settled.
const BATCH_TIME: Duration = Duration::from_secs(20);
/// Time between two looks without a ring.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two looks at what waits for a target that this node does not know.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(60);
/// How long the events of a batch that were sent may take to be settled when the node stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Most characters of an error that are kept.
const ERROR_MAX: usize = 300;

/// What a job is about.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    target: String,
}

/// Delivers to one target for as long as the node lives.
pub struct Deliver {
    meta: MetaStore,
    metrics: Arc<Metrics>,
    bell: Bell,
    /// Where events are sent to, by name.
    routes: HashMap<String, Route>,
}

/// The way to one target.
struct Route {
    name: Arc<str>,
    /// The run's, which is one at a time.
    sender: Mutex<Sender>,
}

impl Deliver {
    /// The ways to the targets of `config`; `bell` is rung when events were committed. Fails with
    /// [`Config`](crate::model::fault::Kind::Config) when the way to a target cannot be made of its settings; one
    /// that does not answer is no failure.
    pub fn new(
        meta: MetaStore,
        metrics: Arc<Metrics>,
        bell: Bell,
        config: &Config,
    ) -> Result<Self, Fault> {
        let mut routes = HashMap::new();
        for (name, target) in &config.target {
            if let Some(sender) = Sender::new(name, target)? {
                let route = Route {
                    name: Arc::from(name.as_str()),
                    sender: Mutex::new(sender),
                };
                routes.insert(name.clone(), route);
            }
        }
        Ok(Self {
            meta,
            metrics,
            bell,
            routes,
        })
    }

    async fn deliver(&self, run: &Run, route: &Route) -> Result<Outcome, Failure> {
        let told = run.told_to_stop();
        let mut sender = route.sender.lock().await;
        let mut rings = self.bell.listen();
        let mut delivered = run.progress().done;
        while !told.is_cancelled() {
            // Rings from here on are heard after the batch.
            rings.borrow_and_update();
            let batch = self.waiting(&route.name, BATCH_MAX).await?;
            if batch.is_empty() {
                tokio::select! {
                    () = told.cancelled() => {}
                    _ = rings.changed() => {}
                    () = tokio::time::sleep(self.bell.patience(LOOK_INTERVAL)) => {}
                }
                continue;
            }
            let mut sent = Vec::with_capacity(batch.len());
            let mut failure = None;
            let began = Instant::now();
            for event in &batch {
                if began.elapsed() > BATCH_TIME {
                    break;
                }
                tokio::select! {
                    // One that may have arrived is sent again by the next run.
                    () = told.cancelled() => break,
                    outcome = sender.send(event) => match outcome {
                        Ok(()) => sent.push(event.id),
                        Err(fault) => {
                            failure = Some(fault);
                            break;
                        }
                    },
                }
            }
            delivered += sent.len() as u64;
            self.settle(run, route, sent, delivered, failure.as_ref())
                .await?;
            if let Some(fault) = failure {
                return Err(fault.into());
            }
        }
        Ok(Outcome::More(Duration::ZERO))
    }

    async fn waiting(&self, target: &str, limit: usize) -> Result<Vec<EventRow>, Fault> {
        let target = target.to_owned();
        self.meta
            .scan("read events", move |session| {
                Box::pin(async move { events::head(session, &target, limit).await })
            })
            .await
    }

    /// Deletes what was sent, and records how it went.
    async fn settle(
        &self,
        run: &Run,
        route: &Route,
        sent: Vec<i64>,
        delivered: u64,
        failure: Option<&Fault>,
    ) -> Result<(), Fault> {
        let count = sent.len() as u64;
        let (lease, name) = (run.lease(), Arc::clone(&route.name));
        let error = failure.map(|fault| {
            let text: String = fault.to_string().chars().take(ERROR_MAX).collect();
            Arc::<str>::from(text)
        });
        self.meta
            .transact("settle events", move |session| {
                let (name, sent, error) = (Arc::clone(&name), sent.clone(), error.clone());
                Box::pin(async move {
                    if sent.is_empty() {
                        lease.hold(session).await?;
                    } else {
                        let progress = Progress {
                            done: delivered,
                            total: None,
                        };
                        lease.checkpoint(session, &sent.last(), progress).await?;
                    }
                    let mut row = events::lock_target(session, &name).await?;
                    row.delivered += events::delete(session, &name, &sent).await?;
                    if let Some(error) = error {
                        row.failed += 1;
                        row.last_error = Some(error.to_string());
                    }
                    events::write_target(session, &row).await
                })
            })
            .await?;
        self.metrics.events(&route.name, "delivered", count);
        if failure.is_some() {
            self.metrics.events(&route.name, "failed", 1);
        }
        Ok(())
    }
}

impl JobHandler for Deliver {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let Order { target } = run.payload()?;
            match self.routes.get(&target) {
                Some(route) => self.deliver(run, route).await,
                // Other nodes may know it: not all get their new settings at the same moment.
                None if !self.waiting(&target, 1).await?.is_empty() => {
                    Ok(Outcome::More(UNKNOWN_INTERVAL))
                }
                // Made again where the target is known.
                None => Ok(Outcome::done()),
            }
        })
    }

    fn at_once(&self) -> usize {
        config::TARGETS_MAX
    }

    /// Without end: an event is given up for its age.
    fn attempts_max(&self) -> u32 {
        u32::MAX
    }

    fn stop_grace(&self) -> Duration {
        STOP_GRACE
    }

    fn stands(&self) -> bool {
        true
    }
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
