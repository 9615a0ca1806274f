//! SQLite: one writing thread with group commit, and a pool of reading connections.
//!
//! The writer takes whatever transactions wait, up to [`BATCH_MAX`], runs each in a savepoint inside one
//! `BEGIN IMMEDIATE`, commits, and only then answers them all: concurrent commits share one fsync. A member
//! that fails is rolled back to its savepoint and the others go on. When the database rolls back the whole
//! batch by itself (a full disk), the members run again one by one, so that one too large write does not
//! refuse the small ones. A member that was accepted is never cancelled by a caller that leaves.
//!
//! Another process may write to the same file (the command line adds keys); `busy_timeout` covers that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::{Durability, QUEUE_WAIT, Session, manifests};
use crate::model::fault::{Fault, Kind};

/// Most transactions that share one commit.
const BATCH_MAX: usize = 128;
/// Most transactions that wait for the writer; one more waits for a place, for [`QUEUE_WAIT`] at most.
const QUEUE_MAX: usize = 1024;
/// Idle reading connections that are kept.
const READERS_MAX: usize = 16;
/// How often one transaction is run again after lost races.
const RERUNS_MAX: u32 = 8;

/// The schema, one step a version; a step is never changed once released.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/sqlite/0001_initial.sql"),
    include_str!("migrations/sqlite/0002_encryption.sql"),
    include_str!("migrations/sqlite/0003_events.sql"),
    include_str!("migrations/sqlite/0004_upload_locks.sql"),
    include_str!("migrations/sqlite/0005_temporary_keys.sql"),
    include_str!("migrations/sqlite/0006_install.sql"),
    include_str!("migrations/sqlite/0007_jobs.sql"),
    include_str!("migrations/sqlite/0008_manifests.sql"),
    include_str!("migrations/sqlite/0009_unfinished_copy.sql"),
    include_str!("migrations/sqlite/0010_moves.sql"),
    include_str!("migrations/sqlite/0011_nodes.sql"),
    include_str!("migrations/sqlite/0012_link_keys.sql"),
    include_str!("migrations/sqlite/0013_findings.sql"),
    include_str!("migrations/sqlite/0014_adoptions.sql"),
    include_str!("migrations/sqlite/0015_deliveries.sql"),
    include_str!("migrations/sqlite/0016_known_backends.sql"),
    include_str!("migrations/sqlite/0017_indexes_of_waiting_rows.sql"),
];

pub(super) struct Engine {
    path: PathBuf,
    queue: Mutex<Option<mpsc::Sender<Box<dyn Member>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Mutex<Vec<Session>>,
}

/// A transaction that waits for its commit.
trait Member: Send {
    /// Runs the work once. `false`: it failed, take back what it wrote.
    fn run(&mut self, session: &mut Session) -> bool;
    /// Whether the work failed only because it lost a race, and may be run again.
    fn wants_rerun(&mut self, session: &mut Session) -> bool;
    /// Tells the caller: what the work returned, or why the commit did not happen.
    fn answer(self: Box<Self>, commit: Result<(), Fault>);
}

struct Work<T, E, F> {
    work: F,
    reruns: u32,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Member for Work<T, E, F>
where
    F: for<'s> Fn(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send,
    T: Send,
    E: From<Fault> + Send,
{
    fn run(&mut self, session: &mut Session) -> bool {
        let outcome = run_now(session, &self.work);
        let good = outcome.is_ok();
        self.outcome = Some(outcome);
        good
    }

    fn wants_rerun(&mut self, session: &mut Session) -> bool {
        self.reruns += 1;
        session.take_rerun() && self.reruns <= RERUNS_MAX
    }

    fn answer(self: Box<Self>, commit: Result<(), Fault>) {
        let outcome = match (commit, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // What the work itself refused stays refused, whatever became of the others.
            (Err(_), Some(Err(error))) => Err(error),
            (Err(fault), _) => Err(fault.into()),
            (Ok(()), None) => Err(stopped().into()),
        };
        // The caller may be gone; the commit stands all the same.
        let _ = self.reply.send(outcome);
    }
}

/// Runs work whose future never waits, and turns a panic in it into a fault.
fn run_now<T, E: From<Fault>>(
    session: &mut Session,
    work: impl for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>>,
) -> Result<T, E> {
    match catch_unwind(AssertUnwindSafe(|| work(session).now_or_never())) {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(Fault::new(Kind::Internal, "transaction")
            .context("the work waited for something other than its session")
            .into()),
        Err(_) => Err(Fault::new(Kind::Internal, "transaction")
            .context("panicked")
            .into()),
    }
}

pub(super) fn stopped() -> Fault {
    Fault::new(Kind::Unavailable, "transaction").context("the database is closed")
}

impl Engine {
    /// Opens the database at `path`, creates it where it is missing, and brings its schema up to date.
    pub(super) fn open(path: &Path, durability: Durability) -> Result<Self, Fault> {
        let mut session = connect(path, false)?;
        // WAL first: synchronous means something else in the other modes.
        session.batch("PRAGMA journal_mode = WAL;")?;
        session.batch(match durability {
            Durability::Durable => "PRAGMA synchronous = FULL;",
            Durability::Relaxed => "PRAGMA synchronous = NORMAL;",
        })?;
        session.batch("PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -8192;")?;
        migrate(&mut session)?;
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("meta-writer".into())
            .spawn(move || write_loop(session, receiver))
            .map_err(|error| Fault::new(Kind::Internal, "start writer").source(error))?;
        Ok(Self {
            path: path.to_owned(),
            queue: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            readers: Mutex::new(Vec::new()),
        })
    }

    pub(super) async fn transact<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'s> Fn(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let queue = self
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(stopped)?;
        let place = tokio::time::timeout(QUEUE_WAIT, queue.reserve())
            .await
            .map_err(|_| {
                Fault::new(Kind::Busy, "transaction").context("the writer's queue is full")
            })?
            .map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        place.send(Box::new(Work {
            work,
            reruns: 0,
            outcome: None,
            reply,
        }));
        drop(queue);
        // A writer that died after it accepted the work leaves the outcome open.
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::new(Kind::Unknown, "transaction")
                .context("the writer stopped")
                .into()),
        }
    }

    pub(super) fn read<T, E: From<Fault>>(
        &self,
        work: impl for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>>,
    ) -> Result<T, E> {
        let kept = self.lock_readers().pop();
        let mut session = match kept {
            Some(session) => session,
            None => connect(&self.path, true)?,
        };
        let outcome = run_now(&mut session, work);
        session.take_rerun();
        let mut readers = self.lock_readers();
        if readers.len() < READERS_MAX {
            readers.push(session);
        }
        outcome
    }

    /// Runs `work`, which may wait for other things, on one unchanging state of the database, in this thread.
    pub(super) fn snapshot<T, E: From<Fault>>(
        &self,
        work: impl for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>>,
    ) -> Result<T, E> {
        let mut session = connect(&self.path, true)?;
        session.control("BEGIN")?;
        let outcome = futures::executor::block_on(work(&mut session));
        session.control("ROLLBACK")?;
        outcome
    }

    fn lock_readers(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        // The writer goes last, so that it can take the log away with it.
        self.lock_readers().clear();
        drop(
            self.queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            // A panic of the writer has been reported by the panic hook already.
            let _ = writer.join();
        }
    }
}

/// An empty database in memory with the newest schema.
pub(super) fn blank() -> Result<Session, Fault> {
    let mut session = connect_as(
        Path::new(":memory:"),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )?;
    migrate(&mut session)?;
    Ok(session)
}

/// A connection to a database that exists, which is left as it is.
pub(super) fn attach(path: &Path) -> Result<Session, Fault> {
    connect_as(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// The version of the newest schema.
pub(super) fn newest_schema() -> usize {
    MIGRATIONS.len()
}

fn connect(path: &Path, read_only: bool) -> Result<Session, Fault> {
    let access = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    connect_as(path, access)
}

fn connect_as(path: &Path, access: OpenFlags) -> Result<Session, Fault> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| {
            Fault::new(Kind::Unavailable, "open database")
                .context(path.display())
                .source(error)
        })?;
    let mut session = Session::of_sqlite(connection);
    session.batch(
        "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -1024;",
    )?;
    Ok(session)
}

/// Brings the schema to the newest step, each in a transaction of its own.
fn migrate(session: &mut Session) -> Result<(), Fault> {
    let version = schema_version(session)?;
    if version > MIGRATIONS.len() {
        return Err(
            Fault::new(Kind::Config, "open database").context(format_args!(
                "its schema has version {version}, this osproxy knows up to {}",
                MIGRATIONS.len()
            )),
        );
    }
    for (step, statements) in MIGRATIONS.iter().enumerate().skip(version) {
        session.batch("BEGIN IMMEDIATE")?;
        // Another process may have taken the step while this one waited for the lock.
        if schema_version(session)? == step {
            session.batch(statements)?;
            session.batch(&format!("PRAGMA user_version = {}", step + 1))?;
        }
        session.batch("COMMIT")?;
    }
    Ok(())
}

pub(super) fn schema_version(session: &mut Session) -> Result<usize, Fault> {
    let version = session
        .query_one("PRAGMA user_version", &[], |row| row.size(0))
        .now_or_never()
        .unwrap_or(Ok(None))?;
    Ok(version.unwrap_or(0) as usize)
}

fn write_loop(mut session: Session, mut queue: mpsc::Receiver<Box<dyn Member>>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        let Err((_, members)) = commit_batch(&mut session, &mut batch) else {
            continue;
        };
        // The batch was lost as a whole: each member alone decides its own fate.
        for member in members {
            if let Err((fault, members)) = commit_batch(&mut session, &mut vec![member]) {
                for member in members {
                    member.answer(Err(Fault::new(fault.kind(), "commit").context(&fault)));
                }
            }
        }
    }
    // Leave a small log behind; what is in it is safe either way.
    if let Err(fault) = session.batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::debug!(%fault, "checkpoint at close");
    }
}

type Lost = (Fault, Vec<Box<dyn Member>>);

/// Runs and commits a batch. On `Err` nothing of it is committed and its members are handed back; members
/// whose commit has an unknown outcome are answered so and not handed back.
fn commit_batch(session: &mut Session, batch: &mut Vec<Box<dyn Member>>) -> Result<(), Lost> {
    let mut run = || {
        session.control("BEGIN IMMEDIATE")?;
        for member in batch.iter_mut() {
            run_member(session, member.as_mut())?;
        }
        Ok(())
    };
    if let Err(fault) = run() {
        take_back(session);
        return Err((fault, std::mem::take(batch)));
    }
    match session.control("COMMIT") {
        Ok(()) => {
            for member in batch.drain(..) {
                member.answer(Ok(()));
            }
            Ok(())
        }
        Err(fault) => {
            take_back(session);
            // Busy and full are said before anything of the commit is written. After any other failure
            // the log may hold the commit all the same, and a restart would show it.
            if matches!(fault.kind(), Kind::Busy | Kind::Full) {
                return Err((fault, std::mem::take(batch)));
            }
            for member in batch.drain(..) {
                member.answer(Err(Fault::new(Kind::Unknown, "commit").context(&fault)));
            }
            Ok(())
        }
    }
}

/// Ends the open transaction, unless the database has done so itself.
fn take_back(session: &mut Session) {
    if session.in_transaction()
        && let Err(fault) = session.control("ROLLBACK")
    {
        tracing::warn!(%fault, "roll back");
    }
    session.take_rerun();
}

/// Runs one member in a savepoint. `Err` when the whole transaction is lost.
fn run_member(session: &mut Session, member: &mut dyn Member) -> Result<(), Fault> {
    loop {
        session.control("SAVEPOINT member")?;
        let is_recording = manifests::is_recording(session)
            .now_or_never()
            .unwrap_or_else(|| Err(stopped()))?;
        session.begin_changes(is_recording);
        let good = member.run(session);
        if good {
            // On a fault the batch is lost as a whole, and its members run again one by one.
            session
                .record_changes()
                .now_or_never()
                .unwrap_or_else(|| Err(stopped()))?;
        }
        if !session.in_transaction() {
            return Err(
                Fault::new(Kind::Full, "transaction").context("the database rolled the batch back")
            );
        }
        if good {
            session.take_rerun();
            return session.control("RELEASE member");
        }
        session.control("ROLLBACK TO member")?;
        session.control("RELEASE member")?;
        if !member.wants_rerun(session) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::meta::session::params;

    fn open(dir: &tempfile::TempDir) -> Arc<Engine> {
        let path = dir.path().join("meta.db");
        let engine = Engine::open(&path, Durability::Durable).unwrap();
        Arc::new(engine)
    }

    async fn insert(engine: &Engine, id: i64, fail: bool) -> Result<(), Fault> {
        engine
            .transact(move |session| {
                Box::pin(async move {
                    session
                        .execute(
                            "INSERT INTO fences (node_id, epoch) VALUES ($1, 1)",
                            params![id],
                        )
                        .await?;
                    if fail {
                        return Err(Fault::new(Kind::NotFound, "refuse"));
                    }
                    Ok(())
                })
            })
            .await
    }

    fn count(engine: &Engine) -> i64 {
        engine
            .read(|session| {
                Box::pin(session.query_one("SELECT COUNT(*) FROM fences", &[], |row| row.int(0)))
            })
            .map(|count: Option<i64>| count.unwrap())
            .unwrap_or_else(|fault: Fault| panic!("{fault}"))
    }

    #[tokio::test]
    async fn members_of_a_batch_fail_alone() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        let tasks: Vec<_> = (0..200)
            .map(|id| {
                let engine = Arc::clone(&engine);
                tokio::spawn(async move { (id, insert(&engine, id, id % 3 == 0).await) })
            })
            .collect();
        let mut good = 0;
        for task in tasks {
            let (id, outcome) = task.await.unwrap();
            assert_eq!(outcome.is_err(), id % 3 == 0, "{id}");
            good += i64::from(outcome.is_ok());
        }
        assert_eq!(count(&engine), good);
    }

    #[tokio::test]
    async fn what_a_caller_that_left_had_begun_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        {
            let mut left = Box::pin(insert(&engine, 1, false));
            // One poll hands the work to the writer, which may be done with it at once.
            let _ = futures::poll!(&mut left);
        }
        insert(&engine, 2, false).await.unwrap();
        assert_eq!(count(&engine), 2);
    }

    #[tokio::test]
    async fn a_violated_constraint_is_tried_again_and_then_busy() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        insert(&engine, 1, false).await.unwrap();
        let fault = insert(&engine, 1, false).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Busy);
        insert(&engine, 2, false).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_one_transaction_spares_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        let outcome: Result<(), Fault> = engine
            .transact(|_| Box::pin(async { panic!("on purpose") }))
            .await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::Internal);
        insert(&engine, 1, false).await.unwrap();
    }

    #[tokio::test]
    async fn a_batch_too_large_for_the_file_is_run_member_by_member() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        let limit: Result<(), Fault> = engine
            .transact(|session| {
                Box::pin(async move {
                    // Few pages more than the schema takes.
                    session.execute("PRAGMA max_page_count = 80", &[]).await
                })
            })
            .await;
        limit.unwrap();
        let write = |id: i64, size: usize| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                engine
                    .transact(move |session| {
                        Box::pin(async move {
                            let name = "x".repeat(size) + &id.to_string();
                            session
                                .execute(
                                    "INSERT INTO backends (id, name, service) VALUES ($1, $2, 's')",
                                    params![id, name.as_str()],
                                )
                                .await
                        })
                    })
                    .await
            })
        };
        let tasks = [write(1, 10), write(2, 4_000_000), write(3, 10)];
        let mut kinds: Vec<Option<Kind>> = Vec::new();
        for task in tasks {
            let outcome: Result<(), Fault> = task.await.unwrap();
            kinds.push(outcome.err().map(|fault| fault.kind()));
        }
        assert_eq!(kinds, [None, Some(Kind::Full), None]);
    }

    #[tokio::test]
    async fn a_closed_engine_refuses_and_its_rows_are_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        insert(&engine, 1, false).await.unwrap();
        engine.close();
        let fault = insert(&engine, 2, false).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Unavailable);
        assert_eq!(count(&open(&dir)), 1);
    }
}
