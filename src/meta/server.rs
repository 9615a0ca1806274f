//! PostgreSQL and MySQL: a pool of connections, one transaction each.
//!
//! Transactions are READ COMMITTED with row locks, in the order of [`meta`](super). One that lost a race (a
//! serialization failure, a deadlock, a unique or foreign key that came out otherwise) is run again as a whole,
//! a bounded number of times and after a pause that grows. A commit whose answer is lost is
//! [`Kind::Unknown`] and neither run again nor undone.
//!
//! A row that is locked for long takes along who wants it and nobody else: transactions never have all connections, so
//! that reads, which wait for no lock, go on; those of one key or upload take [`Turns`]; and the signs of life of the
//! node have connections of their own.
//!
//! A transaction of a node begins with a shared lock on the node's fence. Who declares the node dead takes the
//! fence away, which waits for the commits under way; from then on the node commits nothing, however long it was
//! paused and whatever it believes.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _, TypeInfo, ValueRef};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::dialect::{Dialect, Statement, Translator};
use super::pool::{LOCK_TIMEOUT, Pool, Pooled};
use super::session::{Param, Row, Session, Text};
use super::turns::{Contended, Turn, Turns};
use super::{Durability, Lane, QUEUE_WAIT};
use crate::model::clock::random_fraction;
use crate::model::fault::{Fault, Kind};

/// How often one transaction is run again after lost races.
const RERUNS_MAX: u32 = 12;
/// The first pause before that; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// An answer that has not come after so long does not come any more: the server, or the way to it, is gone without a
/// word. Longer than the server itself allows a statement.
const ANSWER_MAX: Duration = Duration::from_secs(35);
/// As long may a step of the schema take, or the wait for another node that makes it.
const STEP_MAX: Duration = Duration::from_secs(3600);
// A run waits once for a connection and mostly once for a lock, and pauses; as much again is left for its statements.
const _: () = assert!(
    2 * (RERUNS_MAX as u64 + 1)
        * (QUEUE_WAIT.as_secs() + LOCK_TIMEOUT.as_secs() + PAUSE_MAX.as_secs() + 1)
        <= super::TRANSACTION_MAX.as_secs()
);
/// Connections for the node's own signs of life: a beat, a declaration of death, a probe, and one of them that was given
/// up and still waits for its answer.
const LIFE_CONNECTIONS: u32 = 4;

/// The steps of the schema. One that has landed never changes: a change of the schema is a further step.
const POSTGRES_MIGRATIONS: &[&str] = &[
    include_str!("migrations/postgres/0001_initial.sql"),
    include_str!("migrations/postgres/0002_known_backends.sql"),
    include_str!("migrations/postgres/0003_indexes_of_waiting_rows.sql"),
];
const MYSQL_MIGRATIONS: &[&str] = &[
    include_str!("migrations/mysql/0001_initial.sql"),
    include_str!("migrations/mysql/0002_known_backends.sql"),
    include_str!("migrations/mysql/0003_index_of_unfinished_copies.sql"),
    include_str!("migrations/mysql/0004_index_of_open_uploads.sql"),
    include_str!("migrations/mysql/0005_index_of_jobs_by_state.sql"),
];

/// A statement that failed.
pub(super) struct Failed {
    kind: Kind,
    /// Whether it may come out differently when the transaction is run again as a whole.
    pub(super) rerun: bool,
    error: sqlx::Error,
}

impl Failed {
    pub(super) fn fault(self, operation: &'static str) -> Fault {
        Fault::new(self.kind, operation).source(self.error)
    }

    fn of(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(error) => error.code().map(|code| code.into_owned()),
            _ => None,
        };
        let number = match &error {
            sqlx::Error::Database(error) => error
                .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
                .map(sqlx::mysql::MySqlDatabaseError::number),
            _ => None,
        };
        let (kind, rerun) = match (&error, code.as_deref(), number) {
            // Deadlock, lock wait, unique and foreign key of MySQL.
            (_, _, Some(1213 | 1205 | 1062 | 1451 | 1452 | 1020)) => (Kind::Busy, true),
            (_, _, Some(1021 | 1114)) => (Kind::Full, false),
            // Too many connections, a server that stops, a statement or connection that was ended.
            (_, _, Some(1040 | 1053 | 1152 | 1158..=1161 | 1184 | 1203 | 1317 | 1927 | 4031)) => {
                (Kind::Unavailable, false)
            }
            // Serialization failure, deadlock, unique and foreign key, lock not available.
            (_, Some("40001" | "40P01" | "23505" | "23503" | "55P03"), None) => (Kind::Busy, true),
            (_, Some("53100"), None) => (Kind::Full, false),
            (_, Some("57014"), None) => (Kind::Busy, false),
            // A session that was ended because it was silent for too long: this process was paused.
            (_, Some("25P03" | "25P04"), None) => (Kind::Unavailable, false),
            (_, Some(code), None)
                if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") =>
            {
                (Kind::Unavailable, false)
            }
            (sqlx::Error::Database(_), _, _) => (Kind::Internal, false),
            (sqlx::Error::PoolTimedOut, _, _) => (Kind::Busy, false),
            (
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
                _,
                _,
            ) => (Kind::Unavailable, false),
            _ => (Kind::Internal, false),
        };
        Self { kind, rerun, error }
    }

    /// Whether MySQL says that the column or index is there already which a statement would add.
    fn is_made_already(&self) -> bool {
        let sqlx::Error::Database(error) = &self.error else {
            return false;
        };
        error
            .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
            .is_some_and(|error| matches!(error.number(), 1060 | 1061))
    }
}

/// One row of an answer.
pub(super) enum ServerRow<'a> {
    Postgres(&'a PgRow),
    MySql(&'a MySqlRow),
}

impl ServerRow<'_> {
    pub(super) fn int(&self, column: usize) -> Result<Option<i64>, sqlx::Error> {
        match self {
            Self::Postgres(row) => {
                let value = row.try_get_raw(column)?;
                let name = value.type_info().name().to_owned();
                Ok(match name.as_str() {
                    "BOOL" => row.try_get::<Option<bool>, _>(column)?.map(i64::from),
                    "INT2" => row.try_get::<Option<i16>, _>(column)?.map(i64::from),
                    "INT4" => row.try_get::<Option<i32>, _>(column)?.map(i64::from),
                    _ => row.try_get::<Option<i64>, _>(column)?,
                })
            }
            Self::MySql(row) => row.try_get::<Option<i64>, _>(column),
        }
    }

    pub(super) fn text(&self, column: usize) -> Result<Option<&str>, sqlx::Error> {
        match self {
            Self::Postgres(row) => row.try_get(column),
            Self::MySql(row) => row.try_get(column),
        }
    }

    pub(super) fn bytes(&self, column: usize) -> Result<Option<&[u8]>, sqlx::Error> {
        match self {
            Self::Postgres(row) => row.try_get(column),
            Self::MySql(row) => row.try_get(column),
        }
    }
}

/// One connection of the pool.
pub(super) struct Connection {
    pooled: Pooled,
    translator: Arc<Translator>,
    /// A statement was sent whose answer has not been read to its end.
    unanswered: bool,
    /// A transaction was begun that has not ended.
    in_transaction: bool,
    /// How long an answer may take.
    patience: Duration,
    /// Whether statements lock rows where they say so.
    locks: Locks,
}

/// Whether the statements of a session lock rows where they say so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locks {
    Taken,
    /// A statement that is a transaction by itself would hold its lock for no longer than it waited for it.
    PassedOver,
}

impl Drop for Connection {
    /// A connection in the middle of something, because its caller left or its server is gone, is of no use to
    /// the next.
    fn drop(&mut self) {
        if self.unanswered || self.in_transaction {
            match &mut self.pooled {
                Pooled::Postgres(connection) => connection.close_on_drop(),
                Pooled::MySql(connection) => connection.close_on_drop(),
            }
        }
    }
}

/// Waits for an answer as long as one may take.
async fn answered<T>(
    unanswered: &mut bool,
    patience: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failed> {
    *unanswered = true;
    let outcome = tokio::time::timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
    // What the server says about a statement ends that statement; any other failure may leave half an answer.
    *unanswered = !matches!(outcome, Ok(_) | Err(sqlx::Error::Database(_)));
    outcome.map_err(Failed::of)
}

/// Binds the parameters in the order in which the text wants them.
macro_rules! bound {
    ($statement:expr, $params:expr) => {{
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&$statement.text)));
        let numbered: Vec<usize>;
        let order = match &$statement.order {
            Some(order) => order,
            None => {
                numbered = (0..$params.len()).collect();
                &numbered
            }
        };
        for index in order {
            query = match $params.get(*index) {
                Some(Param::Int(value)) => query.bind(*value),
                Some(Param::Text(value)) => query.bind(*value),
                Some(Param::Bytes(value)) => query.bind(*value),
                None => query,
            };
        }
        query
    }};
}

/// What a transaction finds when it begins.
struct Begun {
    /// Its node has not been declared dead.
    is_member: bool,
    /// It is to write down what it changes.
    is_recording: bool,
}

/// The name of a row's first column.
fn first_name<R: sqlx::Row>(row: &R) -> String {
    use sqlx::Column as _;
    let column = row.columns().first();
    column.map_or_else(String::new, |column| column.name().to_owned())
}

impl Connection {
    pub(super) fn dialect(&self) -> Dialect {
        self.translator.dialect()
    }

    fn statement(&self, sql: Text<'_>) -> Arc<Statement> {
        if self.locks == Locks::PassedOver && sql.locks() {
            return self.translator.without_locks(sql.as_str());
        }
        match sql {
            Text::Fixed(sql) => self.translator.statement(sql),
            Text::Made(sql) => self.translator.made(sql),
        }
    }

    pub(super) async fn execute(
        &mut self,
        sql: Text<'_>,
        params: &[Param<'_>],
    ) -> Result<(), Failed> {
        let statement = self.statement(sql);
        let (unanswered, patience) = (&mut self.unanswered, self.patience);
        match &mut self.pooled {
            Pooled::Postgres(connection) => {
                let query = bound!(statement, params);
                let done = answered(unanswered, patience, query.execute(&mut **connection)).await;
                done.map(|_| ())
            }
            Pooled::MySql(connection) => {
                let query = bound!(statement, params);
                let done = answered(unanswered, patience, query.execute(&mut **connection)).await;
                done.map(|_| ())
            }
        }
    }

    /// The outer error is the database's, the inner one that of `map`.
    pub(super) async fn query<T: Send>(
        &mut self,
        sql: Text<'_>,
        params: &[Param<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, Fault> + Send,
    ) -> Result<Result<Vec<T>, Fault>, Failed> {
        let statement = self.statement(sql);
        let (unanswered, patience) = (&mut self.unanswered, self.patience);
        match &mut self.pooled {
            Pooled::Postgres(connection) => {
                let query = bound!(statement, params);
                let rows =
                    answered(unanswered, patience, query.fetch_all(&mut **connection)).await?;
                Ok(rows
                    .iter()
                    .map(|row| map(&Row::of_server(ServerRow::Postgres(row))))
                    .collect())
            }
            Pooled::MySql(connection) => {
                let query = bound!(statement, params);
                let rows =
                    answered(unanswered, patience, query.fetch_all(&mut **connection)).await?;
                Ok(rows
                    .iter()
                    .map(|row| map(&Row::of_server(ServerRow::MySql(row))))
                    .collect())
            }
        }
    }

    /// Begins a transaction; as `node`, only if that has its fence still, which is locked for the rest of the
    /// transaction. One trip.
    ///
    /// Whether changes are recorded is asked after the lock, by a statement of its own, which sees what was committed
    /// while it waited for that: who begins to record them takes the fences of all.
    async fn begin(&mut self, node: Option<i64>) -> Result<Begun, Failed> {
        self.in_transaction = true;
        let lock = match self.translator.dialect() {
            Dialect::Postgres => "FOR SHARE",
            Dialect::MySql => "LOCK IN SHARE MODE",
        };
        let fence = match node {
            Some(node) => format!("SELECT node_id FROM fences WHERE node_id = {node} {lock};"),
            None => String::new(),
        };
        let sql = format!(
            "BEGIN; {fence} SELECT recording FROM manifest_writer WHERE id = 1 AND recording = 1"
        );
        let (unanswered, patience) = (&mut self.unanswered, self.patience);
        let sql = AssertSqlSafe(sql);
        // By the name of each row's column: any of the statements may have found none.
        let found: Vec<String> = match &mut self.pooled {
            Pooled::Postgres(connection) => {
                let query = sqlx::raw_sql(sql).fetch_all(&mut **connection);
                let rows = answered(unanswered, patience, query).await?;
                rows.iter().map(first_name).collect()
            }
            Pooled::MySql(connection) => {
                let query = sqlx::raw_sql(sql).fetch_all(&mut **connection);
                let rows = answered(unanswered, patience, query).await?;
                rows.iter().map(first_name).collect()
            }
        };
        let has = |name: &str| found.iter().any(|found| found == name);
        Ok(Begun {
            is_member: node.is_none() || has("node_id"),
            is_recording: has("recording"),
        })
    }

    /// The time by the database's clock.
    pub(super) async fn time(&mut self) -> Result<Result<Vec<i64>, Fault>, Failed> {
        let sql = match self.translator.dialect() {
            Dialect::Postgres => {
                "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
            }
            Dialect::MySql => "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)",
        };
        self.query(Text::Fixed(sql), &[], |row| row.int(0)).await
    }

    /// Runs statements that take no parameters and cannot be prepared.
    pub(super) async fn control(&mut self, sql: &str) -> Result<(), Failed> {
        let (unanswered, patience) = (&mut self.unanswered, self.patience);
        let text = AssertSqlSafe(sql);
        match &mut self.pooled {
            Pooled::Postgres(connection) => {
                let query = sqlx::raw_sql(text).execute(&mut **connection);
                answered(unanswered, patience, query).await.map(|_| ())
            }
            Pooled::MySql(connection) => {
                let query = sqlx::raw_sql(text).execute(&mut **connection);
                answered(unanswered, patience, query).await.map(|_| ())
            }
        }
    }

    /// Ends the transaction by `COMMIT` or `ROLLBACK`.
    async fn end(&mut self, how: &'static str) -> Result<(), Failed> {
        self.control(how).await?;
        self.in_transaction = false;
        Ok(())
    }
}

pub(super) struct Engine {
    /// What requests and background work share.
    common: Pool,
    /// Of those, how many transactions may have one. The rest is for reads, which wait for no lock.
    transactions: Semaphore,
    /// Those of [`Lane::Life`].
    life: Pool,
    turns: Arc<Turns>,
    translator: Arc<Translator>,
    /// The node whose fence every transaction holds on to.
    node: OnceLock<i64>,
    /// Cancelled when that fence is gone.
    expelled: CancellationToken,
}

/// The version of the newest schema on a server database of this dialect.
pub(super) fn newest_schema(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Postgres => POSTGRES_MIGRATIONS.len(),
        Dialect::MySql => MYSQL_MIGRATIONS.len(),
    }
}

/// How many of `connections` transactions may have: most, and where there are several not all.
fn for_transactions(connections: u32) -> usize {
    (connections as usize * 3 / 4).max(1)
}

impl Engine {
    /// Connects to the database that `url` names, and brings its schema up to date.
    pub(super) async fn open(
        url: &str,
        connections: u32,
        durability: Durability,
    ) -> Result<Self, Fault> {
        let engine = Self::attach(url, connections, durability)?;
        if durability == Durability::Durable {
            engine.require_durability().await?;
        }
        engine.migrate().await?;
        Ok(engine)
    }

    /// Names the database at `url` and leaves it as it is; connects with the first session.
    pub(super) fn attach(
        url: &str,
        connections: u32,
        durability: Durability,
    ) -> Result<Self, Fault> {
        let address = Address::parse(url).map_err(|problem| {
            Fault::new(Kind::Config, "open database").context(format_args!("meta.url: {problem}"))
        })?;
        Ok(Self {
            common: Pool::new(&address, connections, durability),
            transactions: Semaphore::new(for_transactions(connections)),
            life: Pool::new(&address, LIFE_CONNECTIONS, durability),
            turns: Arc::default(),
            translator: Arc::new(Translator::new(address.dialect())),
            node: OnceLock::new(),
            expelled: CancellationToken::new(),
        })
    }

    /// Refuses a server that answers commits before they are on stable storage.
    async fn require_durability(&self) -> Result<(), Fault> {
        let mut session = self.session().await?;
        let dialect = self.translator.dialect();
        let (sql, wanted) = match dialect {
            Dialect::Postgres => (
                "SELECT current_setting('fsync') || ' ' || current_setting('full_page_writes')",
                "on on",
            ),
            Dialect::MySql => (
                "SELECT CONCAT(@@GLOBAL.innodb_flush_log_at_trx_commit, ' ',
                               CASE WHEN @@GLOBAL.log_bin = 1 THEN @@GLOBAL.sync_binlog ELSE 1 END)",
                "1 1",
            ),
        };
        let names = match dialect {
            Dialect::Postgres => "fsync and full_page_writes",
            Dialect::MySql => "innodb_flush_log_at_trx_commit and sync_binlog",
        };
        let found = session
            .query_one(sql, &[], |row| Ok(row.str(0)?.to_owned()))
            .await?
            .unwrap_or_default();
        if found != wanted {
            return Err(Fault::new(Kind::Config, "open database").context(format_args!(
                "meta.url: the server has {names} at {found:?} and would lose what was answered; \
                 set them to {wanted:?}, or storage.durability to \"relaxed\""
            )));
        }
        Ok(())
    }

    /// From now on every transaction is one of this node. Once.
    pub(super) fn join(&self, node: i64) {
        // A process is one node for as long as it has the database open.
        let _ = self.node.set(node);
    }

    pub(super) fn expelled(&self) -> &CancellationToken {
        &self.expelled
    }

    /// A session for requests and background work.
    pub(super) async fn session(&self) -> Result<Session, Fault> {
        self.session_of(Lane::Common, Locks::Taken).await
    }

    async fn session_of(&self, lane: Lane, locks: Locks) -> Result<Session, Fault> {
        let pool = match lane {
            Lane::Common => &self.common,
            Lane::Life => &self.life,
        };
        let pooled = pool.acquire().await;
        let pooled = pooled.map_err(|error| Failed::of(error).fault("connect to database"))?;
        Ok(Session::of_server(Connection {
            pooled,
            translator: Arc::clone(&self.translator),
            unanswered: false,
            in_transaction: false,
            patience: ANSWER_MAX,
            locks,
        }))
    }

    /// Brings the schema to the newest step. Several nodes may start at once: a lock of the database lets one
    /// at a time do so.
    async fn migrate(&self) -> Result<(), Fault> {
        let failed = |failed: Failed| failed.fault("bring the schema up to date");
        let mut session = self.session().await?;
        let (prepare, lock, unlock, steps) = match self.translator.dialect() {
            Dialect::Postgres => (
                "SET statement_timeout = 0; SET lock_timeout = 0",
                "SELECT CAST(1 AS INTEGER) FROM (SELECT pg_advisory_lock(7236431)) AS held",
                "SELECT pg_advisory_unlock(7236431); RESET statement_timeout; RESET lock_timeout",
                POSTGRES_MIGRATIONS,
            ),
            Dialect::MySql => (
                "DO 0",
                "SELECT CAST(GET_LOCK('osproxy schema', 3600) AS INTEGER)",
                "DO RELEASE_LOCK('osproxy schema')",
                MYSQL_MIGRATIONS,
            ),
        };
        let connection = session.server().ok_or_else(not_a_server)?;
        connection.patience = STEP_MAX + ANSWER_MAX;
        connection.control(prepare).await.map_err(failed)?;
        let held = session.query_one(lock, &[], |row| row.opt_int(0)).await?;
        if held.flatten() != Some(1) {
            return Err(Fault::new(Kind::Busy, "bring the schema up to date")
                .context("another process has been at it for an hour"));
        }
        let outcome = apply(&mut session, steps).await;
        if let Some(connection) = session.server() {
            connection.control(unlock).await.map_err(failed)?;
        }
        outcome
    }

    /// Runs `work` on a session that waits for no lock: it sees what is committed.
    pub(super) async fn read<T, E: From<Fault>>(
        &self,
        lane: Lane,
        work: impl for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>>,
    ) -> Result<T, E> {
        let mut session = self.session_of(lane, Locks::PassedOver).await?;
        work(&mut session).await
    }

    /// Runs `work` on one unchanging state of the database. To be spawned, like [`Self::transact`].
    pub(super) async fn snapshot<T, E: From<Fault>>(
        &self,
        work: impl for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, E>>,
    ) -> Result<T, E> {
        let mut session = self.session().await?;
        let connection = session.server().ok_or_else(not_a_server)?;
        // Until it has ended: a connection where that fails is closed.
        connection.in_transaction = true;
        session.begin_snapshot().await?;
        let outcome = work(&mut session).await;
        let ended = session.end_snapshot().await;
        let connection = session.server().ok_or_else(not_a_server)?;
        connection.in_transaction = ended.is_err();
        outcome
    }

    /// Waits for a turn of this process at a row that a transaction will lock.
    pub(super) async fn turn(&self, row: Contended) -> Result<Turn, Fault> {
        self.turns.take(row).await
    }

    async fn permit(&self, lane: Lane) -> Result<Option<SemaphorePermit<'_>>, Fault> {
        if lane == Lane::Life {
            return Ok(None);
        }
        match tokio::time::timeout(QUEUE_WAIT, self.transactions.acquire()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(Fault::new(Kind::Busy, "connect to database")
                .context("too many transactions are under way")),
        }
    }

    /// Runs `work` as a transaction. To be spawned, so that a caller that leaves does not cancel it.
    ///
    /// One that has waited for as long as for a lock is not run again: whoever holds that lock may hold it for long,
    /// and the caller, told to come back, holds nothing meanwhile. The node's own are, which have nobody to tell.
    pub(super) async fn transact<T, E, F>(&self, lane: Lane, work: F) -> Result<T, E>
    where
        F: for<'s> Fn(&'s mut Session) -> BoxFuture<'s, Result<T, E>> + Send,
        T: Send,
        E: From<Fault> + Send,
    {
        let (began, mut pause) = (Instant::now(), PAUSE_MIN);
        for round in 0.. {
            let permit = self.permit(lane).await?;
            let mut session = self.session_of(lane, Locks::Taken).await?;
            let failed = |failed: Failed| failed.fault("transaction");
            let connection = session.server().ok_or_else(not_a_server)?;
            let begun = connection
                .begin(self.node.get().copied())
                .await
                .map_err(failed)?;
            if !begun.is_member {
                let _ = connection.end("ROLLBACK").await;
                self.expelled.cancel();
                return Err(expelled().into());
            }
            session.begin_changes(begun.is_recording);
            let mut outcome = work(&mut session).await;
            if outcome.is_ok()
                && let Err(fault) = session.record_changes().await
            {
                outcome = Err(fault.into());
            }
            let lost = session.take_rerun();
            let is_late = lane == Lane::Common && began.elapsed() >= LOCK_TIMEOUT;
            let may_rerun = round < RERUNS_MAX && !is_late;
            let connection = session.server().ok_or_else(not_a_server)?;
            match outcome {
                Ok(value) => match connection.end("COMMIT").await {
                    Ok(()) => return Ok(value),
                    Err(error) if error.rerun && may_rerun => {}
                    Err(error) if error.rerun => return Err(error.fault("commit").into()),
                    // The answer is lost, not necessarily the commit.
                    Err(error) => {
                        return Err(Fault::new(Kind::Unknown, "commit")
                            .source(error.error)
                            .into());
                    }
                },
                Err(error) => {
                    // A connection that cannot roll back is closed by the pool, which rolls back.
                    let _ = connection.end("ROLLBACK").await;
                    if !lost || !may_rerun {
                        return Err(error);
                    }
                }
            }
            drop((session, permit));
            tokio::time::sleep(jitter(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(Fault::new(Kind::Internal, "transaction").into())
    }

    pub(super) async fn close(&self) {
        self.common.close().await;
        self.life.close().await;
    }
}

fn expelled() -> Fault {
    Fault::new(Kind::Unavailable, "transaction")
        .context("the other nodes have declared this one dead")
}

fn not_a_server() -> Fault {
    Fault::new(Kind::Internal, "transaction").context("not a server's session")
}

/// Between half of `pause` and all of it.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * random_fraction())
}

/// Applies the steps that are missing. MySQL ends a transaction at each change of the schema, so that a step which was
/// cut off there is made again: its statements say `IF NOT EXISTS`, or it is a single one that adds a column or an
/// index, where there is no such word.
async fn apply(session: &mut Session, steps: &[&str]) -> Result<(), Fault> {
    let failed = |failed: Failed| failed.fault("bring the schema up to date");
    let connection = session.server().ok_or_else(not_a_server)?;
    connection
        .control("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)")
        .await
        .map_err(failed)?;
    let version = session
        .query_one(
            "SELECT COALESCE(MAX(version), 0) FROM schema_version",
            &[],
            |row| row.size(0),
        )
        .await?
        .unwrap_or(0) as usize;
    if version > steps.len() {
        return Err(
            Fault::new(Kind::Config, "open database").context(format_args!(
                "its schema has version {version}, this osproxy knows up to {}",
                steps.len()
            )),
        );
    }
    for (step, statements) in steps.iter().enumerate().skip(version) {
        let connection = session.server().ok_or_else(not_a_server)?;
        connection.control("BEGIN").await.map_err(failed)?;
        match connection.control(statements).await {
            Err(error) if error.is_made_already() => {}
            made => made.map_err(failed)?,
        }
        let record = format!("INSERT INTO schema_version (version) VALUES ({})", step + 1);
        connection.control(&record).await.map_err(failed)?;
        connection.control("COMMIT").await.map_err(failed)?;
    }
    Ok(())
}
