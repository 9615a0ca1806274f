//! This process as a node: the worker id it mints with, and what it tells the others.
//!
//! Two things must hold, and neither rests on a timer being punctual:
//!
//! - No two processes mint the same id. A worker's ids lie below a time that is reserved in SQL before the
//!   first of them is minted; who takes the worker over starts above it. So a node that was paused beyond its
//!   reservation mints nothing until it has reserved again, whatever its clock did.
//! - The collector spares what is open. A node says in its row when its oldest open read and unfinished write
//!   began; a row that is not renewed only holds the collector back.
//!
//! A serving process on the embedded database is worker 0: the lock on the data directory makes it the only
//! one. Commands beside it mint as worker 1, see [`mint_beside`]. Leases and epochs of several nodes are not
//! decided here yet.

mod redis;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::meta::nodes::{self, Heartbeat};
use crate::meta::{MetaStore, Session};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{UidGenerator, minted_at};

pub use redis::Stream;

/// The worker of the process that serves an embedded database.
const SERVING_WORKER: u16 = 0;
/// The worker of commands beside it.
const COMMAND_WORKER: u16 = 1;

/// How far ahead of the clock ids are reserved: a stall of the database shorter than this stops no write.
const RESERVED_AHEAD: Millis = 60_000;
/// How far ahead of the newest id, when that is ahead of the clock itself: after a restart ids go on where the
/// predecessor's reservation ended. 4096 ids a millisecond make this more than any five seconds can use.
const RESERVED_SLACK: Millis = 5_000;
/// Time between two beats.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long after a beat the node counts as alive.
const LEASE: Millis = 30_000;

/// When the oldest things open on this node began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// No read open now, or begun later, began before this.
    pub read: Millis,
    /// No unfinished write, and none begun later, began before this.
    pub write: Millis,
}

/// Asked for [`Oldest`] at every beat.
pub type OldestOpen = Box<dyn Fn() -> Oldest + Send + Sync>;

/// This process among the nodes.
pub struct Node {
    meta: MetaStore,
    clock: Clock,
    worker: u16,
    uids: Arc<UidGenerator>,
    reserved_until: AtomicI64,
    oldest: OnceLock<OldestOpen>,
    /// One probe of the database at a time, so that one that does not answer collects no crowd.
    probe: Arc<Semaphore>,
}

/// The background work of a started node.
pub struct Heart {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    /// Claims the worker of the serving process and reserves time for its ids, durably. The caller holds the
    /// lock on the data directory.
    pub async fn claim(meta: MetaStore, clock: Clock) -> Result<Arc<Self>, Fault> {
        let worker = SERVING_WORKER;
        let now = clock.now();
        let (floor, until) = meta
            .transact("claim worker", move |session| {
                Box::pin(async move {
                    let floor = nodes::reserved_until(session, worker).await?.max(now);
                    let until = (now + RESERVED_AHEAD).max(floor + RESERVED_SLACK);
                    nodes::reserve(session, worker, i64::from(worker), until).await?;
                    Ok::<_, Fault>((floor, until))
                })
            })
            .await?;
        let uids = Arc::new(UidGenerator::new(clock.clone(), worker, floor));
        uids.extend(until);
        Ok(Arc::new(Self {
            meta,
            clock,
            worker,
            uids,
            reserved_until: AtomicI64::new(until),
            oldest: OnceLock::new(),
            probe: Arc::new(Semaphore::new(1)),
        }))
    }

    /// What mints this node's ids.
    pub fn uids(&self) -> &Arc<UidGenerator> {
        &self.uids
    }

    /// The worker id in them.
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// Beats once, then every few seconds until the heart is stopped. `oldest` is asked each time.
    pub async fn start(self: &Arc<Self>, oldest: OldestOpen) -> Result<Heart, Fault> {
        // A node is started once; a second call changes nothing and beats with the first one's answers.
        let _ = self.oldest.set(oldest);
        self.beat_now().await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(beat_until(Arc::clone(self), stop.clone()));
        Ok(Heart { stop, task })
    }

    /// Records what is open and reserves time for ids, in one transaction: the collector sees this node as it
    /// is now.
    pub async fn beat_now(&self) -> Result<(), Fault> {
        // Read before the transaction begins: an older answer only holds the collector back.
        let now = self.clock.now();
        let oldest = self.oldest.get().map_or(
            Oldest {
                read: now,
                write: now,
            },
            |oldest| oldest(),
        );
        let beat = Heartbeat {
            lease_until: now + LEASE,
            oldest_read: oldest.read,
            oldest_write: oldest.write,
        };
        let reserved = self.reserved_until.load(Ordering::SeqCst);
        let newest = self.uids.next().map_or(reserved, minted_at);
        let until = (now + RESERVED_AHEAD)
            .max(newest + RESERVED_SLACK)
            .max(reserved);
        let (worker, node) = (self.worker, i64::from(self.worker));
        self.meta
            .transact("beat", move |session| {
                Box::pin(async move {
                    nodes::beat(session, node, &beat).await?;
                    // Two beats at a time may commit in either order; a reservation never shrinks.
                    let until = nodes::reserved_until(session, worker).await?.max(until);
                    nodes::reserve(session, worker, node, until).await
                })
            })
            .await?;
        self.uids.extend(until);
        self.reserved_until.fetch_max(until, Ordering::SeqCst);
        Ok(())
    }

    /// Whether the node can serve: the database answers within `deadline` and ids are left to mint.
    pub async fn check(&self, deadline: Duration) -> Result<(), Fault> {
        let unfit = |why| Err(Fault::new(Kind::Unavailable, "check node").context(why));
        if self.clock.now() >= self.reserved_until.load(Ordering::SeqCst) {
            return unfit("no reserved time left");
        }
        let worker = self.worker;
        let probe = async {
            let turn = Arc::clone(&self.probe)
                .acquire_owned()
                .await
                .map_err(|error| Fault::new(Kind::Internal, "check node").source(error))?;
            self.meta
                .scan("probe", move |session: &mut Session| {
                    Box::pin(async move {
                        let _turn = turn;
                        nodes::reserved_until(session, worker).await
                    })
                })
                .await
        };
        match tokio::time::timeout(deadline, probe).await {
            Ok(answer) => answer.map(|_: Millis| ()),
            Err(_) => unfit("the database does not answer"),
        }
    }
}

async fn beat_until(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BEAT_INTERVAL) => {}
        }
        if let Err(fault) = node.beat_now().await {
            tracing::warn!(%fault, "beat");
        }
    }
}

impl Heart {
    /// Ends the beats, after the one under way. The node's row stays: what it says is true until the next
    /// start, and holds the collector back no further than that.
    pub async fn stop(self) {
        self.stop.cancel();
        // It ends by itself; a panic in it has been reported by the panic hook.
        let _ = self.task.await;
    }
}

/// Ids for a command that runs beside a serving process: a span of time of its own, in which the clock stands
/// still, so that a few thousand ids can be minted however long the command takes.
pub async fn mint_beside(meta: &MetaStore, clock: &Clock) -> Result<UidGenerator, Fault> {
    const SPAN: Millis = 2;
    let now = clock.now();
    let worker = COMMAND_WORKER;
    let floor = meta
        .transact("reserve ids", move |session| {
            Box::pin(async move {
                let floor = nodes::reserved_until(session, worker).await?.max(now);
                nodes::reserve(session, worker, i64::from(worker), floor + SPAN).await?;
                Ok::<_, Fault>(floor)
            })
        })
        .await?;
    let uids = UidGenerator::new(Clock::manual(floor), worker, floor);
    uids.extend(floor + SPAN);
    Ok(uids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Durability;
    use crate::model::ids::EPOCH;
    use crate::telemetry::Metrics;
    use std::collections::HashSet;

    const NOW: Millis = EPOCH + 1_000_000;

    fn open(dir: &tempfile::TempDir) -> MetaStore {
        let path = dir.path().join("meta.db");
        MetaStore::open(&path, Durability::Relaxed, Metrics::new()).unwrap()
    }

    async fn oldest_open(meta: &MetaStore) -> Option<(Millis, Millis)> {
        meta.read("find open", |session| Box::pin(nodes::oldest_open(session)))
            .await
            .map_err(|fault: Fault| fault)
            .unwrap()
    }

    #[tokio::test]
    async fn a_restarted_node_mints_above_its_predecessor_even_if_the_clock_stepped_back() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        let mut last = 0;
        for now in [NOW, NOW + 10, NOW - 500_000] {
            let node = Node::claim(meta.clone(), Clock::manual(now)).await.unwrap();
            for _ in 0..10_000 {
                let id = node.uids().next().unwrap();
                assert!(id > last);
                last = id;
            }
        }
    }

    #[tokio::test]
    async fn quick_restarts_do_not_run_far_ahead_of_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        for restart in 1..=20 {
            let node = Node::claim(meta.clone(), Clock::manual(NOW)).await.unwrap();
            let ahead = minted_at(node.uids().next().unwrap()) - NOW;
            assert!(
                ahead <= RESERVED_AHEAD + restart * RESERVED_SLACK,
                "{ahead}"
            );
        }
    }

    #[tokio::test]
    async fn a_paused_node_mints_nothing_until_it_has_reserved_again() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let node = Node::claim(open(&dir), clock.clone()).await.unwrap();
        let second = Duration::from_secs(1);
        node.check(second).await.unwrap();
        clock.advance(RESERVED_AHEAD);
        assert_eq!(node.uids().next().unwrap_err().kind(), Kind::Busy);
        let fault = node.check(second).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Unavailable);
        node.beat_now().await.unwrap();
        node.uids().next().unwrap();
        node.check(second).await.unwrap();
    }

    #[tokio::test]
    async fn a_beat_that_is_not_recorded_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        let node = Node::claim(meta.clone(), Clock::manual(NOW)).await.unwrap();
        meta.close().await;
        assert!(node.beat_now().await.is_err());
    }

    #[tokio::test]
    async fn a_beat_says_what_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        let node = Node::claim(meta.clone(), Clock::manual(NOW)).await.unwrap();
        assert_eq!(oldest_open(&meta).await, None);
        let oldest = Arc::new(AtomicI64::new(NOW - 7));
        let asked = Arc::clone(&oldest);
        let heart = node
            .start(Box::new(move || Oldest {
                read: asked.load(Ordering::SeqCst),
                write: NOW - 9,
            }))
            .await
            .unwrap();
        assert_eq!(oldest_open(&meta).await, Some((NOW - 7, NOW - 9)));
        oldest.store(NOW - 3, Ordering::SeqCst);
        node.beat_now().await.unwrap();
        assert_eq!(oldest_open(&meta).await, Some((NOW - 3, NOW - 9)));
        heart.stop().await;
    }

    #[tokio::test]
    async fn commands_never_mint_the_same_id() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        let clock = Clock::manual(NOW);
        let node = Node::claim(meta.clone(), clock.clone()).await.unwrap();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let uids = mint_beside(&meta, &clock).await.unwrap();
            for _ in 0..1000 {
                assert!(seen.insert(uids.next().unwrap()));
            }
            assert!(seen.insert(node.uids().next().unwrap()));
        }
    }
}
