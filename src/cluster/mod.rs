//! This process as a node: the worker id it mints with, and what it tells the others.
//!
//! Three things must hold, and none rests on a timer being punctual or on clocks that agree:
//!
//! - No two processes mint the same id. A worker's ids lie below a time that is reserved in SQL before the
//!   first of them is minted; who takes the worker over starts above it. So a node that was paused beyond its
//!   reservation mints nothing until it has reserved again, whatever its clock did.
//! - The collector spares what is open. A node says in its row when its oldest open read and unfinished write
//!   began; a row that is not renewed only holds the collector back.
//! - A node that is declared dead commits nothing afterwards, so that what it had open need not be spared any
//!   more. Every transaction of a node holds on to its fence; taking the fence away is what declaring it dead
//!   means. A process whose fence is gone ends, and may begin again as another node.
//!
//! A process that serves an embedded database is worker 0: the lock on the data directory makes it the only
//! one. Nodes that share a database watch each other's beats: one whose row has not changed for as many looks as
//! make up a lease is declared dead. Looks are counted, not time, so that who was paused itself declares nobody
//! dead for that. Commands mint as worker 1, see [`mint_beside`].
//!
//! Nodes that share a database go by its clock. What they need not look for again and again is told by [`Hints`],
//! which nothing relies on. [`Peers`] reads what lies on another node's own disk.

mod hints;
mod peers;
mod redis;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::meta::nodes::{self, COMMAND_WORKER, Heartbeat};
use crate::meta::{MetaStore, Session};
use crate::model::clock::{Clock, Millis, millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{UidGenerator, minted_at};
use crate::telemetry::Metrics;

pub use crate::meta::nodes::Who;
pub use hints::{Config as HintsConfig, Hints, Loads, NodeLoad, RedisState, Role, Topic};
pub use peers::{Ask, PEER_HEADER, PeerKey, Peers, TIME_HEADER};
pub use redis::Stream;

/// The worker of the process that has a database for itself, and its node.
const ONLY_WORKER: u16 = 0;

/// How far ahead of the clock ids are reserved: a stall of the database shorter than this stops no write.
const RESERVED_AHEAD: Millis = 60_000;
/// How far ahead of the newest id, when that is ahead of the clock itself: after a restart ids go on where the
/// predecessor's reservation ended. 4096 ids a millisecond make this more than any five seconds can use.
const RESERVED_SLACK: Millis = 5_000;
/// Beats in a lease.
const BEATS: u32 = 6;
/// Longest time between two looks at a node of the same name.
const NAMESAKE_LOOK: Duration = Duration::from_secs(1);
/// Shortest time after which a beat is given up.
const ROUND_MIN: Duration = Duration::from_secs(5);
/// A clock that differs less from the database's is left as it is: the way to the database takes its time too.
const SKEW_MIN: Millis = 50;
/// One that differs more is worth a warning.
const SKEW_MAX: Millis = 5_000;

/// Section `[node]`: this process among others that share its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds without a sign of life after which the other nodes declare this one dead. It then serves nothing
    /// that was begun before, and joins again as a new node.
    pub lease_seconds: NonZeroU64,
    /// What this node is called; empty for the name of the machine. It must stay: a backend of scope `node` is
    /// found by it, and no two nodes may have the same.
    pub name: String,
    /// Address and port at which other nodes read the blobs that lie on this one's own disk; empty for none. Port
    /// 0 takes any free one.
    pub listen: String,
    /// Host and port of that listener as other nodes reach it; empty for `listen` itself.
    pub address: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_seconds: const { NonZeroU64::new(30).expect("not zero") },
            name: String::new(),
            listen: String::new(),
            address: String::new(),
        }
    }
}

/// Longest lease.
const LEASE_MAX_SECONDS: u64 = 3600;
/// Longest name of a node.
const NAME_MAX: usize = 63;

impl Config {
    /// Checks the name by which other nodes know this one.
    pub fn check_name(&self) -> Result<(), String> {
        let name = self.name();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        match !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(is_plain) {
            true => Ok(()),
            false => Err(format!(
                "node.name: expected 1 to {NAME_MAX} letters, digits, hyphens, dots and underscores, found {name:?}"
            )),
        }
    }

    /// Checks what the types do not, but for the name. The error names the key.
    pub fn check(&self) -> Result<(), String> {
        let Some(listen) = self.listen()? else {
            return Ok(());
        };
        if self.address.is_empty() && listen.ip().is_unspecified() {
            return Err(format!(
                "node.address: expected host and port where other nodes reach this one, because node.listen is {listen}"
            ));
        }
        let has_port = |text: &str| {
            let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(_)))
        };
        if !self.address.is_empty() && !has_port(&self.address) {
            return Err(format!(
                "node.address: expected HOST:PORT, found {:?}",
                self.address
            ));
        }
        Ok(())
    }

    /// What this node is called.
    pub fn name(&self) -> String {
        match self.name.is_empty() {
            true => rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            false => self.name.clone(),
        }
    }

    /// Where peers are listened to; `None` when they are not.
    pub fn listen(&self) -> Result<Option<SocketAddr>, String> {
        match self.listen.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                format!("node.listen: expected an IP address and a port, found {text:?}")
            }),
        }
    }

    /// Where peers reach the listener that is bound to `bound`.
    pub fn reached_at(&self, bound: SocketAddr) -> String {
        match self.address.is_empty() {
            true => bound.to_string(),
            false => self.address.clone(),
        }
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.get().min(LEASE_MAX_SECONDS))
    }
}

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
    /// The same, for what must go on while requests wait for the database.
    life: MetaStore,
    clock: Clock,
    id: i64,
    who: Arc<Who>,
    worker: u16,
    uids: Arc<UidGenerator>,
    metrics: Arc<Metrics>,
    lease: Duration,
    /// What the row says: it changes with every beat, whatever the clock does.
    lease_until: AtomicI64,
    reserved_until: AtomicI64,
    oldest: OnceLock<OldestOpen>,
    /// One probe of the database at a time, so that one that does not answer collects no crowd.
    probe: Arc<Semaphore>,
}

/// The background work of a started node.
pub struct Heart {
    node: Arc<Node>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    /// Becomes a node: claims a worker and reserves time for its ids, durably, and tells who it is. The caller of an
    /// embedded database holds the lock on the data directory.
    pub async fn claim(
        meta: MetaStore,
        clock: Clock,
        config: &Config,
        who: Who,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, Fault> {
        let (shared, life) = (meta.is_shared(), meta.for_life());
        // Never given twice, so that a fence says which run of a process it is.
        let id = match shared {
            true => draw_id()?,
            false => i64::from(ONLY_WORKER),
        };
        let (now, lease) = (clock.now(), config.lease());
        let who = Arc::new(who);
        let entering = Arc::clone(&who);
        let beat = Heartbeat {
            now,
            lease_until: now + millis(lease),
            oldest_read: now,
            oldest_write: now,
        };
        let (worker, floor, until) = life
            .transact("claim worker", move |session| {
                let who = Arc::clone(&entering);
                Box::pin(async move {
                    let worker = match shared {
                        true => {
                            nodes::enter(session, id, &who, &beat).await?;
                            nodes::free_worker(session, now).await?
                        }
                        false => {
                            nodes::beat(session, id, &who, &beat).await?;
                            ONLY_WORKER
                        }
                    };
                    let floor = nodes::reserved_until(session, worker).await?.max(now);
                    let until = (now + RESERVED_AHEAD).max(floor + RESERVED_SLACK);
                    nodes::reserve(session, worker, id, until).await?;
                    Ok::<_, Fault>((worker, floor, until))
                })
            })
            .await?;
        meta.join(id);
        if shared {
            warn_of_namesakes(&life, &who.name, id).await?;
        }
        let uids = Arc::new(UidGenerator::new(clock.clone(), worker, floor));
        uids.extend(until);
        Ok(Arc::new(Self {
            meta,
            life,
            clock,
            id,
            who,
            worker,
            uids,
            metrics,
            lease,
            lease_until: AtomicI64::new(beat.lease_until),
            reserved_until: AtomicI64::new(until),
            oldest: OnceLock::new(),
            probe: Arc::new(Semaphore::new(1)),
        }))
    }

    /// This run of this process: no other has or had the same number.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.who.name
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
        Ok(Heart {
            node: Arc::clone(self),
            stop,
            task,
        })
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
        let ahead = now + millis(self.lease);
        let lease_until =
            match self
                .lease_until
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                    Some(ahead.max(last + 1))
                }) {
                Ok(last) | Err(last) => ahead.max(last + 1),
            };
        let beat = Heartbeat {
            now,
            lease_until,
            oldest_read: oldest.read,
            oldest_write: oldest.write,
        };
        let reserved = self.reserved_until.load(Ordering::SeqCst);
        let newest = self.uids.next().map_or(reserved, minted_at);
        let until = (now + RESERVED_AHEAD)
            .max(newest + RESERVED_SLACK)
            .max(reserved);
        let (worker, node, who) = (self.worker, self.id, Arc::clone(&self.who));
        self.life
            .transact("beat", move |session| {
                let who = Arc::clone(&who);
                Box::pin(async move {
                    nodes::beat(session, node, &who, &beat).await?;
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

    /// Refuses to run beside another live node of the same name, with [`Kind::Config`]; for a node that has a backend
    /// for itself, which is found by that name: one would be asked for what the other has.
    ///
    /// A row of this name is mostly this process's own, from before a crash, and stays as it is. So it is watched for as
    /// long as a node may be silent, counted from its last beat, and only one that beats meanwhile is another. Of two
    /// that start at the same time, each may take the other for that.
    pub async fn refuse_namesakes(&self) -> Result<(), Fault> {
        let mut watched = self.namesakes().await?;
        let now = self.clock.now();
        let patience = watched.iter().map(|row| may_be_silent(row, now)).max();
        let Some(patience) = patience.filter(|patience| !patience.is_zero()) else {
            return Ok(());
        };
        tracing::info!(
            name = self.who.name,
            seconds = patience.as_secs(),
            "a node of this name has not left; this one waits to see whether it is alive"
        );
        let began = Instant::now();
        while !watched.is_empty() && began.elapsed() < patience {
            tokio::time::sleep((self.lease / BEATS / 2).min(NAMESAKE_LOOK)).await;
            // Nobody shall declare this one dead for its patience.
            self.beat_now().await?;
            let found = self.namesakes().await?;
            let again = |row: &nodes::NodeRow| found.iter().find(|found| found.id == row.id);
            watched.retain(|row| again(row).is_some());
            let alive = |row: &nodes::NodeRow| {
                again(row).is_some_and(|again| again.lease_until != row.lease_until)
            };
            if watched.iter().any(alive) {
                return Err(
                    Fault::new(Kind::Config, "become a node").context(format_args!(
                        "node.name: another node named {} is running, and a backend of scope \"node\" is found by that \
                         name; give each node one of its own",
                        self.who.name
                    )),
                );
            }
        }
        Ok(())
    }

    /// The other nodes of this one's name.
    async fn namesakes(&self) -> Result<Vec<nodes::NodeRow>, Fault> {
        let found = self
            .life
            .read("list nodes", |session| Box::pin(nodes::list(session)))
            .await
            .map_err(|fault: Fault| fault)?;
        let is_namesake = |row: &nodes::NodeRow| row.who.name == self.who.name && row.id != self.id;
        Ok(found.into_iter().filter(is_namesake).collect())
    }

    /// Every node that is not declared dead, this one included.
    pub async fn all(&self) -> Result<Vec<NodeStatus>, Fault> {
        nodes_of(&self.meta, &self.clock).await
    }

    /// Whether the node can serve: the database answers within `deadline` and ids are left to mint.
    pub async fn check(&self, deadline: Duration) -> Result<(), Fault> {
        let unfit = |why| Err(Fault::new(Kind::Unavailable, "check node").context(why));
        // Minted and thrown away: nothing else says as surely that a write will have its id.
        if self.uids.next().is_err() {
            return unfit("no reserved time left");
        }
        let worker = self.worker;
        let probe = async {
            let turn = Arc::clone(&self.probe)
                .acquire_owned()
                .await
                .map_err(|error| Fault::new(Kind::Internal, "check node").source(error))?;
            self.life
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
    let mut watch = Watch::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(node.lease / BEATS) => {}
        }
        let round = async {
            if node.meta.is_shared() {
                set_clock(&node.life, &node.clock).await?;
            }
            node.beat_now().await?;
            if node.meta.is_shared() {
                watch.look(&node).await?;
            }
            Ok::<_, Fault>(())
        };
        // A database that does not answer must not keep this node from beating when it answers again, nor from its end.
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = tokio::time::timeout(node.lease.max(ROUND_MIN), round) => outcome,
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!(%fault, "beat"),
            Err(_) => tracing::warn!("beat: the database does not answer"),
        }
    }
    watch.expelling.shutdown().await;
}

/// What this node has seen of the others' beats.
#[derive(Default)]
struct Watch {
    /// By node: what its row said last, and how many looks in a row found it so.
    seen: HashMap<i64, (Millis, u32)>,
    /// Declares nodes dead, one at a time. Beside the beats: who was paused in the middle of a commit holds on to its
    /// fence until the database ends that, and this node's own beats must not wait for it.
    expelling: JoinSet<()>,
}

impl Watch {
    /// Looks at every node once, and begins to declare dead those that did not beat for a lease.
    async fn look(&mut self, node: &Arc<Node>) -> Result<(), Fault> {
        let found = node
            .life
            .read("watch nodes", |session| Box::pin(nodes::leases(session)))
            .await
            .map_err(|fault: Fault| fault)?;
        node.metrics.nodes(found.len());
        let silent = self.silent(&found, node.id);
        while self.expelling.try_join_next().is_some() {}
        if !silent.is_empty() && self.expelling.is_empty() {
            self.expelling.spawn(expel_all(Arc::clone(node), silent));
        }
        Ok(())
    }

    /// The nodes other than `own` that have been silent for too many looks, with what their rows said.
    fn silent(&mut self, found: &[(i64, Millis)], own: i64) -> Vec<(i64, Millis)> {
        self.seen
            .retain(|id, _| found.iter().any(|(found, _)| found == id));
        let mut silent = Vec::new();
        for (id, lease_until) in found.iter().filter(|(id, _)| *id != own) {
            let (last, looks) = self.seen.entry(*id).or_insert((*lease_until, 0));
            if last == lease_until {
                *looks += 1;
            } else {
                (*last, *looks) = (*lease_until, 1);
            }
            // The first look shows only that it was there.
            if *looks > BEATS {
                silent.push((*id, *lease_until));
            }
        }
        silent
    }
}

/// Declares nodes dead that have not beaten since their rows said what they did.
async fn expel_all(node: Arc<Node>, silent: Vec<(i64, Millis)>) {
    for (other, lease_until) in silent {
        match expel(&node.life, other, lease_until).await {
            Ok(true) => {
                tracing::warn!(node = other, "declared dead: it did not beat");
                node.metrics.node_declared_dead();
            }
            Ok(false) => {}
            Err(fault) => tracing::warn!(%fault, node = other, "not declared dead"),
        }
    }
}

/// Declares a node dead unless it has beaten since its row said `lease_until`.
async fn expel(meta: &MetaStore, node: i64, lease_until: Millis) -> Result<bool, Fault> {
    let outcome = meta
        .transact("declare dead", move |session| {
            Box::pin(async move {
                let before = nodes::expel(session, node).await?;
                match before {
                    Some(found) if found != lease_until => Err(Expel::Alive),
                    _ => Ok(()),
                }
            })
        })
        .await;
    match outcome {
        Ok(()) => Ok(true),
        Err(Expel::Alive) => Ok(false),
        Err(Expel::Fault(fault)) => Err(fault),
    }
}

/// Why a node is not declared dead.
enum Expel {
    /// It has beaten after all.
    Alive,
    Fault(Fault),
}

impl From<Fault> for Expel {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Says so when another node has the same name: this one's predecessor, or a mistake in the configuration.
async fn warn_of_namesakes(meta: &MetaStore, name: &str, own: i64) -> Result<(), Fault> {
    let found = meta
        .read("list nodes", |session| Box::pin(nodes::list(session)))
        .await
        .map_err(|fault: Fault| fault)?;
    if found
        .iter()
        .any(|row| row.who.name == name && row.id != own)
    {
        tracing::info!(
            name,
            "a node of this name has not left; unless it was this process before, set node.name"
        );
    }
    Ok(())
}

/// How much longer a node may be silent and still be alive.
fn may_be_silent(row: &nodes::NodeRow, now: Millis) -> Duration {
    let lease = (row.lease_until - row.beaten).clamp(0, LEASE_MAX_SECONDS as Millis * 1000);
    let left = (row.beaten + lease - now).clamp(0, lease);
    Duration::from_millis(left as u64)
}

/// The time that an install goes by: its database's where that is a server, and this machine's otherwise.
pub async fn clock_of(meta: &MetaStore) -> Result<Clock, Fault> {
    if !meta.is_shared() {
        return Ok(Clock::System);
    }
    let clock = Clock::adjusted();
    set_clock(&meta.for_life(), &clock).await?;
    Ok(clock)
}

/// Puts the clock right by the database's, as far as the way there allows.
async fn set_clock(meta: &MetaStore, clock: &Clock) -> Result<(), Fault> {
    let began = Instant::now();
    let found = meta
        .read("read the time", |session| Box::pin(session.time()))
        .await
        .map_err(|fault: Fault| fault)?;
    let way = began.elapsed();
    let Some(time) = found else {
        return Ok(());
    };
    let time = time + millis(way / 2);
    let error = (time - clock.now()).abs();
    if error > SKEW_MIN.max(millis(way)) {
        let error = clock.adjust(time);
        if error.abs() > SKEW_MAX {
            tracing::warn!(
                milliseconds = error,
                "this machine's clock differs from the database's, which is used"
            );
        }
    }
    Ok(())
}

/// A random positive number.
fn draw_id() -> Result<i64, Fault> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Fault::new(Kind::Unavailable, "draw random bytes").source(error.to_string())
    })?;
    Ok((i64::from_ne_bytes(bytes) & i64::MAX).max(1))
}

impl Heart {
    /// Ends the beats; one under way may still be recorded. The node's row stays: what it says is true until the next
    /// start or until the others declare the node dead, and holds the collector back no further than that.
    pub async fn stop(self) -> Arc<Node> {
        self.stop.cancel();
        // It ends by itself; a panic in it has been reported by the panic hook.
        let _ = self.task.await;
        self.node
    }
}

impl Node {
    /// Leaves the nodes that share the database, so that nobody waits for this one. It commits nothing more.
    pub async fn leave(&self) {
        if !self.meta.is_shared() {
            return;
        }
        let id = self.id;
        let left = self
            .life
            .transact("leave", move |session| {
                Box::pin(async move { nodes::expel(session, id).await.map(|_| ()) })
            })
            .await;
        if let Err(fault) = left.map_err(|fault: Fault| fault) {
            tracing::warn!(%fault, "the other nodes will declare this one dead");
        }
    }
}

/// A node as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// This run of its process.
    pub id: i64,
    /// What it is called.
    pub name: String,
    /// Where its peers reach it.
    pub address: Option<String>,
    /// The worker id in the ids it mints.
    pub worker: Option<i64>,
    /// The backends that are configured there.
    pub backends: Vec<String>,
    /// Milliseconds since it was last heard of.
    pub beat_age_ms: Millis,
    /// Milliseconds since its oldest open read began; 0 when none is open.
    pub oldest_read_ms: Millis,
    /// Milliseconds since its oldest unfinished write began; 0 when there is none.
    pub oldest_write_ms: Millis,
}

/// Every node that is not declared dead, by name. Ages are as of its last beat.
pub async fn nodes_of(meta: &MetaStore, clock: &Clock) -> Result<Vec<NodeStatus>, Fault> {
    let (rows, time) = meta
        .read("list nodes", |session| {
            Box::pin(async move {
                let rows = nodes::list(session).await?;
                Ok::<_, Fault>((rows, session.time().await?))
            })
        })
        .await?;
    let now = time.unwrap_or_else(|| clock.now());
    let status = |row: nodes::NodeRow| NodeStatus {
        id: row.id,
        name: row.who.name,
        address: row.who.address,
        worker: row.worker,
        backends: row.who.backends,
        beat_age_ms: (now - row.beaten).max(0),
        oldest_read_ms: (row.beaten - row.oldest_read).max(0),
        oldest_write_ms: (row.beaten - row.oldest_write).max(0),
    };
    Ok(rows.into_iter().map(status).collect())
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
    use std::collections::HashSet;

    const NOW: Millis = EPOCH + 1_000_000;

    fn open(dir: &tempfile::TempDir) -> MetaStore {
        let path = dir.path().join("meta.db");
        MetaStore::open(&path, Durability::Relaxed, Metrics::new()).unwrap()
    }

    async fn claim(meta: &MetaStore, clock: Clock) -> Result<Arc<Node>, Fault> {
        let (config, metrics) = (Config::default(), Metrics::new());
        let who = Who {
            name: config.name(),
            address: None,
            backends: Vec::new(),
        };
        Node::claim(meta.clone(), clock, &config, who, metrics).await
    }

    async fn oldest_open(meta: &MetaStore) -> Option<(Millis, Millis)> {
        meta.read("find open", |session| Box::pin(nodes::oldest_open(session)))
            .await
            .map_err(|fault: Fault| fault)
            .unwrap()
            .map(|open| (open.read, open.write))
    }

    #[tokio::test]
    async fn a_restarted_node_mints_above_its_predecessor_even_if_the_clock_stepped_back() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        let mut last = 0;
        for now in [NOW, NOW + 10, NOW - 500_000] {
            let node = claim(&meta, Clock::manual(now)).await.unwrap();
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
            let node = claim(&meta, Clock::manual(NOW)).await.unwrap();
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
        let node = claim(&open(&dir), clock.clone()).await.unwrap();
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
    async fn a_node_whose_clock_was_far_ahead_mints_as_soon_as_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let node = claim(&open(&dir), clock.clone()).await.unwrap();
        let (second, far) = (Duration::from_secs(1), 40 * 86_400_000);
        clock.advance(far);
        assert_eq!(node.uids().next().unwrap_err().kind(), Kind::Busy);
        node.check(second).await.unwrap_err();
        clock.advance(-far);
        node.check(second).await.unwrap();
        assert!(minted_at(node.uids().next().unwrap()) < NOW + RESERVED_AHEAD);
    }

    #[tokio::test]
    async fn a_node_is_fit_only_while_it_can_mint() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let node = claim(&open(&dir), clock.clone()).await.unwrap();
        let second = Duration::from_secs(1);
        node.check(second).await.unwrap();
        // Ids never go back with the clock: they stay in the last reserved millisecond, and use it up.
        clock.advance(RESERVED_AHEAD - 1);
        while node.uids().next().is_ok() {
            clock.advance(NOW - clock.now());
        }
        let fault = node.check(second).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Unavailable);
        node.beat_now().await.unwrap();
        node.check(second).await.unwrap();
    }

    #[tokio::test]
    async fn a_beat_that_is_not_recorded_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        let node = claim(&meta, Clock::manual(NOW)).await.unwrap();
        meta.close().await;
        assert!(node.beat_now().await.is_err());
    }

    #[tokio::test]
    async fn a_beat_says_what_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(&dir);
        let node = claim(&meta, Clock::manual(NOW)).await.unwrap();
        assert_eq!(oldest_open(&meta).await, Some((NOW, NOW)));
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
        let node = claim(&meta, clock.clone()).await.unwrap();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let uids = mint_beside(&meta, &clock).await.unwrap();
            for _ in 0..1000 {
                assert!(seen.insert(uids.next().unwrap()));
            }
            assert!(seen.insert(node.uids().next().unwrap()));
        }
    }

    #[test]
    fn a_node_of_the_same_name_is_given_the_rest_of_its_lease() {
        let row = |beaten, lease_until| nodes::NodeRow {
            id: 1,
            who: Who {
                name: "a".to_owned(),
                address: None,
                backends: Vec::new(),
            },
            worker: None,
            lease_until,
            beaten,
            oldest_read: beaten,
            oldest_write: beaten,
        };
        let seconds = |row: nodes::NodeRow| may_be_silent(&row, NOW).as_secs();
        assert_eq!(seconds(row(NOW, NOW + 30_000)), 30);
        assert_eq!(seconds(row(NOW - 20_000, NOW + 10_000)), 10);
        assert_eq!(seconds(row(NOW - 30_000, NOW)), 0);
        assert_eq!(seconds(row(NOW - 90_000, NOW - 60_000)), 0);
        // Rows of clocks that were wrong keep nobody for longer than a lease.
        assert_eq!(seconds(row(NOW + 90_000_000, NOW + 90_030_000)), 30);
        assert_eq!(seconds(row(NOW, NOW + 90_000_000)), 3600);
        assert_eq!(seconds(row(NOW, NOW - 1)), 0);
    }

    #[test]
    fn a_node_is_silent_after_a_lease_of_looks_and_only_then() {
        let mut watch = Watch::default();
        for _ in 0..BEATS {
            assert!(watch.silent(&[(1, 10), (2, 20)], 1).is_empty());
        }
        assert_eq!(watch.silent(&[(1, 10), (2, 20)], 1), [(2, 20)]);
        // One beat, and the count begins anew.
        for _ in 0..BEATS {
            assert!(watch.silent(&[(2, 21)], 1).is_empty());
        }
        assert_eq!(watch.silent(&[(2, 21)], 1), [(2, 21)]);
        assert!(watch.silent(&[], 1).is_empty());
        assert!(
            watch.silent(&[(2, 21)], 1).is_empty(),
            "it was away meanwhile"
        );
    }
}
