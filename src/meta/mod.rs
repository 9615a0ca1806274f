//! The namespace's rows in SQL: one code base over the databases osproxy runs on.
//!
//! [`MetaStore`] runs two things: a *transaction*, which is atomic, durable when it returns, and run again
//! as a whole when it lost a race; and a *read*, which sees what is committed. Both are functions over a
//! [`Session`]. The row modules beside this file hold the SQL, one function a statement or two; which of
//! them form one step is decided by the domain, above.
//!
//! On SQLite one thread owns the writing connection. Transactions that wait for it are committed together,
//! each in a savepoint of its own, so that they share one fsync (see [`sqlite`]); reads use a small pool of
//! connections and run where they are called, because a point query takes a few microseconds and never
//! waits for the writer.
//!
//! On PostgreSQL and MySQL each transaction has a connection of a pool to itself and locks rows (see [`server`]), which
//! a read passes over;
//! the statements are the same, translated once (see [`dialect`]).
//!
//! While manifests are on, each transaction ends with a row that says which groups of rows it changed: the row
//! modules note it where they write (see [`Session::changed`] and [`catalog`]).
//!
//! Lock order, for the databases that lock rows: own node, moves by id, job, backends by id, bucket, upload, keys in
//! byte order, contents by id, blobs by id.

mod address;
pub mod adoptions;
mod bell;
pub mod buckets;
pub mod catalog;
mod codec;
pub mod contents;
pub mod copies;
pub mod copy;
pub mod dangling;
mod dialect;
pub mod events;
pub mod findings;
pub mod identities;
pub mod install;
pub mod jobs;
pub mod joined;
mod known;
pub mod lifecycle;
pub mod link_keys;
pub mod listing;
pub mod manifests;
pub mod moves;
pub mod nodes;
pub mod objects;
pub mod original;
pub mod placements;
mod pool;
pub mod rehoming;
pub mod releases;
pub mod scratch;
mod server;
mod session;
pub mod splits;
mod sqlite;
mod turns;
pub mod uploads;
pub mod version_parts;
pub mod wrap_keys;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use crate::model::fault::{Fault, Kind};
use crate::telemetry::Metrics;

pub use address::check as check_url;
pub use bell::{Bell, Carrier, Reach, Reading, Remembered};
pub use session::{Param, Row, Session};
pub use turns::Contended;

/// Whether what was answered survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every commit reaches stable storage before it is answered.
    Durable,
    /// A power cut may lose the last commits; what is left is consistent.
    Relaxed,
}

/// How long a transaction or read may wait for its turn before it is refused as busy.
const QUEUE_WAIT: Duration = Duration::from_secs(10);

/// Longer than a transaction takes from its call to its commit, with its waits for a turn and for a lock in each of its
/// re-runs. A time that was read before the call is committed while it is younger than this.
pub const TRANSACTION_MAX: Duration = Duration::from_secs(600);

#[derive(Clone)]
enum Engine {
    Sqlite(Arc<sqlite::Engine>),
    Server(Arc<server::Engine>),
}

/// Whose connections to a server database are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Those of requests and background work.
    Common,
    /// Those that are for the node's own signs of life alone.
    Life,
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct MetaStore {
    engine: Engine,
    metrics: Arc<Metrics>,
    /// How metrics name this store.
    store: Arc<str>,
    lane: Lane,
}

impl MetaStore {
    /// Opens the SQLite database at `path`, creates it where it is missing, and brings its schema up to
    /// date. Fails with [`Config`](crate::model::fault::Kind::Config) when it was made by a newer version.
    /// So it does when a copy into it has not ended.
    pub fn open(path: &Path, durability: Durability, metrics: Arc<Metrics>) -> Result<Self, Fault> {
        let engine = sqlite::Engine::open(path, durability)?;
        engine.read(|session| Box::pin(copy::refuse_unfinished(session)))?;
        Ok(Self::of(Engine::Sqlite(Arc::new(engine)), metrics))
    }

    /// Connects to the PostgreSQL or MySQL database that `url` names, and brings its schema up to date. At most
    /// `connections` are open at a time.
    pub async fn connect(
        url: &str,
        connections: u32,
        durability: Durability,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Fault> {
        let engine = server::Engine::open(url, connections, durability).await?;
        engine
            .read(Lane::Common, |session| {
                Box::pin(copy::refuse_unfinished(session))
            })
            .await?;
        Ok(Self::of(Engine::Server(Arc::new(engine)), metrics))
    }

    fn of(engine: Engine, metrics: Arc<Metrics>) -> Self {
        Self {
            engine,
            metrics,
            store: Arc::from("meta"),
            lane: Lane::Common,
        }
    }

    /// The same database over a few connections of its own, which requests cannot use up: for what shows that the node
    /// is alive, whatever they wait for.
    pub fn for_life(&self) -> Self {
        Self {
            lane: Lane::Life,
            ..self.clone()
        }
    }

    /// Whether other processes may use the same database at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Server(_))
    }

    /// Makes every transaction from now on one of this node, which [`nodes::enter`] has recorded: when others have
    /// declared it dead, they fail with [`Kind::Unavailable`] and change nothing. Without effect on SQLite, which
    /// one process holds alone.
    pub fn join(&self, node: i64) {
        if let Engine::Server(engine) = &self.engine {
            engine.join(node);
        }
    }

    /// Completes once a transaction has failed for that reason.
    pub async fn expelled(&self) {
        match &self.engine {
            Engine::Sqlite(_) => std::future::pending().await,
            Engine::Server(engine) => engine.expelled().cancelled().await,
        }
    }

    /// Says whether transactions write down what they change from now on, in every process that uses the database:
    /// each transaction goes by what the database says when it begins. All nodes of one database say the same.
    ///
    /// When this has turned it on, no transaction of a node is under way that began before. One of a command may be.
    pub async fn set_recording(&self, is_recording: bool) -> Result<(), Fault> {
        self.transact("record changes", move |session| {
            Box::pin(manifests::set_recording(session, is_recording))
        })
        .await
    }

    /// Runs `work` as one transaction. When this returns `Ok`, everything it wrote is durable; when it
    /// returns an error, nothing is, except that [`Unknown`](crate::model::fault::Kind::Unknown) means what
    /// it says. `work` may run several times and must have no other effect than through its session.
    ///
    /// Not cancelled when the caller goes away: the transaction then finishes by itself.
    pub async fn transact<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, E>
    where
        F: for<'s> Fn(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        self.transact_in_turn(None, operation, work).await
    }

    /// Runs `work` like [`MetaStore::transact`], in turns with the others of this process that lock `row`. For those of
    /// requests, of which there may be many at the same row: no matter how long somebody else holds it, they leave
    /// connections for other rows. [`Kind::Busy`] when no turn comes.
    pub async fn transact_at<T, E, F>(
        &self,
        row: Contended,
        operation: &'static str,
        work: F,
    ) -> Result<T, E>
    where
        F: for<'s> Fn(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        self.transact_in_turn(Some(row), operation, work).await
    }

    async fn transact_in_turn<T, E, F>(
        &self,
        row: Option<Contended>,
        operation: &'static str,
        work: F,
    ) -> Result<T, E>
    where
        F: for<'s> Fn(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let began = Instant::now();
        let outcome = match &self.engine {
            Engine::Sqlite(engine) => engine.transact(work).await,
            Engine::Server(engine) => {
                let (engine, lane) = (Arc::clone(engine), self.lane);
                // A task of its own: a caller that leaves does not cancel it.
                let task = tokio::spawn(async move {
                    let _turn = match row {
                        Some(row) => Some(engine.turn(row).await?),
                        None => None,
                    };
                    engine.transact(lane, work).await
                });
                joined(task, || Fault::new(Kind::Unknown, "transaction")).await
            }
        };
        self.took(operation, began);
        outcome
    }

    /// Runs `work` on a session that only reads, in place. For point queries: it may hold up the calling
    /// thread for as long as the database takes.
    pub async fn read<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, E>
    where
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send,
        E: From<Fault>,
    {
        let began = Instant::now();
        let outcome = match &self.engine {
            Engine::Sqlite(engine) => engine.read(work),
            Engine::Server(engine) => engine.read(self.lane, work).await,
        };
        self.took(operation, began);
        outcome
    }

    /// Runs `work` like [`MetaStore::read`] but away from the threads that serve requests. For scans.
    pub async fn scan<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, E>
    where
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let began = Instant::now();
        let outcome = match &self.engine {
            Engine::Sqlite(engine) => {
                let engine = Arc::clone(engine);
                let task = tokio::task::spawn_blocking(move || engine.read(work));
                joined(task, sqlite::stopped).await
            }
            Engine::Server(engine) => engine.read(self.lane, work).await,
        };
        self.took(operation, began);
        outcome
    }

    /// Runs `work` on one unchanging state of the database, however many statements it takes and whatever it waits
    /// for meanwhile. The database keeps that state for as long: for scans that must be consistent, and no more.
    pub async fn snapshot<T, E, F>(&self, operation: &'static str, work: F) -> Result<T, E>
    where
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let began = Instant::now();
        let outcome = match &self.engine {
            Engine::Sqlite(engine) => {
                let engine = Arc::clone(engine);
                let task = tokio::task::spawn_blocking(move || engine.snapshot(work));
                joined(task, sqlite::stopped).await
            }
            Engine::Server(engine) => {
                let engine = Arc::clone(engine);
                // A task of its own: a caller that leaves must not give the connection back in its transaction.
                let task = tokio::spawn(async move { engine.snapshot(work).await });
                joined(task, || Fault::new(Kind::Internal, "read snapshot")).await
            }
        };
        self.took(operation, began);
        outcome
    }

    fn took(&self, operation: &'static str, began: Instant) {
        self.metrics
            .store_done(&self.store, operation, began.elapsed());
    }

    /// Lets the transactions already accepted finish, then closes the database. Later calls fail.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(engine) => {
                let engine = Arc::clone(engine);
                // The join waits for the writer's thread; a panic there has been logged by the panic hook.
                let _ = tokio::task::spawn_blocking(move || engine.close()).await;
            }
            Engine::Server(engine) => engine.close().await,
        }
    }
}

/// What a task comes to; `lost` where it panicked or the process is ending.
async fn joined<T, E: From<Fault>>(
    task: JoinHandle<Result<T, E>>,
    lost: impl FnOnce() -> Fault,
) -> Result<T, E> {
    match task.await {
        Ok(outcome) => outcome,
        Err(error) => Err(lost().source(error).into()),
    }
}
