//! Connections to a server database: how each is set up, and when one that rested is trusted.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Database, MySql, Postgres};

use super::address::Address;
use super::{Durability, QUEUE_WAIT};

/// A statement that takes longer has failed.
const STATEMENT_TIMEOUT_MILLIS: u32 = 30_000;
/// How long a transaction waits for a lock.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// A session that asks nothing for this long is ended by the server, with the locks it holds: those of a process
/// that was paused in the middle of a transaction.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Connections that nobody uses are closed well before that.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// A connection that rested for longer is tried before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// Connections that are used in turns.
pub(super) enum Pool {
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// One of them, until it is dropped.
pub(super) enum Pooled {
    Postgres(PoolConnection<Postgres>),
    MySql(PoolConnection<MySql>),
}

impl Pool {
    /// At most `connections` to the database at `address`, each made when it is needed first.
    pub(super) fn new(address: &Address, connections: u32, durability: Durability) -> Self {
        match address {
            Address::Postgres(options) => {
                Self::Postgres(postgres((**options).clone(), connections, durability))
            }
            Address::MySql(options) => Self::MySql(mysql((**options).clone(), connections)),
        }
    }

    /// One of the connections, when one is free.
    pub(super) async fn acquire(&self) -> Result<Pooled, sqlx::Error> {
        match self {
            Self::Postgres(pool) => pool.acquire().await.map(Pooled::Postgres),
            Self::MySql(pool) => pool.acquire().await.map(Pooled::MySql),
        }
    }

    /// Waits for those in use and closes all.
    pub(super) async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::MySql(pool) => pool.close().await,
        }
    }
}

fn in_turns<D: Database>(connections: u32) -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(QUEUE_WAIT)
        .idle_timeout(IDLE_MAX)
        .test_before_acquire(false)
        .before_acquire(|connection: &mut D::Connection, rested| {
            Box::pin(async move {
                if rested.idle_for > TRUSTED_FOR {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

fn postgres(options: PgConnectOptions, connections: u32, durability: Durability) -> PgPool {
    let commit = match durability {
        Durability::Durable => "on",
        Durability::Relaxed => "off",
    };
    let timeout = STATEMENT_TIMEOUT_MILLIS.to_string();
    let lock = format!("{}s", LOCK_TIMEOUT.as_secs());
    let silence = format!("{}s", SILENCE_MAX.as_secs());
    let options = options.disable_statement_logging().options([
        ("default_transaction_isolation", "read committed"),
        ("synchronous_commit", commit),
        ("statement_timeout", timeout.as_str()),
        ("lock_timeout", lock.as_str()),
        ("idle_in_transaction_session_timeout", silence.as_str()),
    ]);
    in_turns(connections).connect_lazy_with(options)
}

fn mysql(options: MySqlConnectOptions, connections: u32) -> MySqlPool {
    let options = options.disable_statement_logging();
    in_turns::<MySql>(connections)
        .after_connect(|connection, _| {
            Box::pin(async move {
                let settings = format!(
                    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
                     SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE';
                     SET SESSION innodb_lock_wait_timeout = {};
                     SET SESSION wait_timeout = {}",
                    LOCK_TIMEOUT.as_secs(),
                    SILENCE_MAX.as_secs()
                );
                sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options)
}
