//! One connection to a database, with the few operations that all of them offer.
//!
//! SQL texts are written once, with `$1`, `$2`, ... numbered in the order of their first appearance.
//! Everything that differs between databases stays behind [`Session`]: the row modules beside this file
//! name no driver. On SQLite no operation waits, so a future that uses only its session is ready at once.
//!
//! What a server database needs beside the common text stands in it as a comment that SQLite passes over:
//! `/*FOR UPDATE*/` and `/*FOR SHARE*/` lock the rows that are read, in a transaction; see [`dialect`](super::dialect).

use std::collections::BTreeSet;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode};

use super::catalog::{self, Table};
use super::dialect::Dialect;
use super::pool::SILENCE_MAX;
use super::server::{self, ServerRow};
use super::sqlite;
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::names::ObjectKey;

/// One value bound to a statement; `None` is NULL, which server databases want to know the type of too.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// A 64-bit integer.
    Int(Option<i64>),
    /// Text.
    Text(Option<&'a str>),
    /// Bytes.
    Bytes(Option<&'a [u8]>),
}

impl From<Option<i64>> for Param<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<Option<bool>> for Param<'_> {
    fn from(value: Option<bool>) -> Self {
        Self::Int(value.map(i64::from))
    }
}
impl<'a> From<Option<&'a str>> for Param<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Self::Text(value)
    }
}
impl<'a> From<Option<&'a [u8]>> for Param<'a> {
    fn from(value: Option<&'a [u8]>) -> Self {
        Self::Bytes(value)
    }
}
impl<'a, const N: usize> From<Option<&'a [u8; N]>> for Param<'a> {
    fn from(value: Option<&'a [u8; N]>) -> Self {
        Self::Bytes(value.map(|value| &value[..]))
    }
}
impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Some(value).into()
    }
}
impl From<bool> for Param<'_> {
    fn from(value: bool) -> Self {
        Some(value).into()
    }
}
impl<'a> From<&'a str> for Param<'a> {
    fn from(value: &'a str) -> Self {
        Some(value).into()
    }
}
impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(value: &'a [u8]) -> Self {
        Some(value).into()
    }
}
impl<'a, const N: usize> From<&'a [u8; N]> for Param<'a> {
    fn from(value: &'a [u8; N]) -> Self {
        Some(value).into()
    }
}

/// The parameters of a statement, in order.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$(crate::meta::session::Param::from($value)),*] };
}
pub(crate) use params;

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Int(Some(value)) => ValueRef::Integer(value),
            Self::Text(Some(value)) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(Some(value)) => ValueRef::Blob(value),
            Self::Int(None) | Self::Text(None) | Self::Bytes(None) => ValueRef::Null,
        }))
    }
}

/// One row of an answer; columns are counted from 0. A column of another type than asked for is
/// [`Kind::Corrupt`]: the schema says what it is.
pub struct Row<'a>(RowOf<'a>);

enum RowOf<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Server(ServerRow<'a>),
}

impl<'a> Row<'a> {
    pub(super) fn of_server(row: ServerRow<'a>) -> Self {
        Self(RowOf::Server(row))
    }

    /// An integer.
    pub fn int(&self, column: usize) -> Result<i64, Fault> {
        self.opt_int(column)?.ok_or_else(|| corrupt(column))
    }

    /// An integer or NULL.
    pub fn opt_int(&self, column: usize) -> Result<Option<i64>, Fault> {
        match &self.0 {
            RowOf::Sqlite(row) => match value(row, column)? {
                ValueRef::Null => Ok(None),
                ValueRef::Integer(value) => Ok(Some(value)),
                _ => Err(corrupt(column)),
            },
            RowOf::Server(row) => row
                .int(column)
                .map_err(|error| corrupt(column).source(error)),
        }
    }

    /// A length or count, which is never negative.
    pub fn size(&self, column: usize) -> Result<u64, Fault> {
        u64::try_from(self.int(column)?).map_err(|error| corrupt(column).source(error))
    }

    /// Text or NULL, borrowed from the row.
    pub fn opt_str(&self, column: usize) -> Result<Option<&str>, Fault> {
        match &self.0 {
            RowOf::Sqlite(row) => match value(row, column)? {
                ValueRef::Null => Ok(None),
                ValueRef::Text(bytes) => std::str::from_utf8(bytes)
                    .map(Some)
                    .map_err(|error| corrupt(column).source(error)),
                _ => Err(corrupt(column)),
            },
            RowOf::Server(row) => row
                .text(column)
                .map_err(|error| corrupt(column).source(error)),
        }
    }

    /// Text.
    pub fn str(&self, column: usize) -> Result<&str, Fault> {
        self.opt_str(column)?.ok_or_else(|| corrupt(column))
    }

    /// Bytes or NULL, borrowed from the row.
    pub fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>, Fault> {
        match &self.0 {
            RowOf::Sqlite(row) => match value(row, column)? {
                ValueRef::Null => Ok(None),
                ValueRef::Blob(bytes) => Ok(Some(bytes)),
                _ => Err(corrupt(column)),
            },
            RowOf::Server(row) => row
                .bytes(column)
                .map_err(|error| corrupt(column).source(error)),
        }
    }

    /// Bytes.
    pub fn bytes(&self, column: usize) -> Result<&[u8], Fault> {
        self.opt_bytes(column)?.ok_or_else(|| corrupt(column))
    }

    /// Bytes of a fixed length, or NULL.
    pub fn opt_array<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, Fault> {
        self.opt_bytes(column)?
            .map(|bytes| {
                bytes
                    .try_into()
                    .map_err(|error| corrupt(column).source(error))
            })
            .transpose()
    }

    /// Bytes of a fixed length.
    pub fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], Fault> {
        self.opt_array(column)?.ok_or_else(|| corrupt(column))
    }
}

fn value<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> Result<ValueRef<'r>, Fault> {
    row.get_ref(column)
        .map_err(|error| corrupt(column).source(error))
}

/// A column that holds an object's key.
pub(super) fn key(row: &Row<'_>, column: usize) -> Result<ObjectKey, Fault> {
    std::str::from_utf8(row.bytes(column)?)
        .ok()
        .and_then(|text| ObjectKey::parse(text).ok())
        .ok_or_else(|| corrupt(column))
}

fn corrupt(column: usize) -> Fault {
    Fault::new(Kind::Corrupt, "decode row").context(format_args!("column {column}"))
}

/// The text of a statement: written in the source, or made at run time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text<'a> {
    Fixed(&'static str),
    Made(&'a str),
}

impl<'a> Text<'a> {
    pub(super) fn as_str(self) -> &'a str {
        match self {
            Self::Fixed(sql) => sql,
            Self::Made(sql) => sql,
        }
    }

    /// Whether it asks for locks.
    pub(super) fn locks(self) -> bool {
        self.as_str().contains("/*FOR ")
    }
}

/// One connection.
pub struct Session {
    connection: Connected,
    /// A statement failed in a way that may not happen when the whole transaction is run again.
    rerun: bool,
    /// What the transaction changed so far, as stored; `None` while changes are not recorded.
    changes: Option<BTreeSet<Vec<u8>>>,
}

enum Connected {
    Sqlite(Connection),
    Server(server::Connection),
}

impl Session {
    pub(super) fn of_sqlite(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(128);
        Self {
            connection: Connected::Sqlite(connection),
            rerun: false,
            changes: None,
        }
    }

    pub(super) fn of_server(connection: server::Connection) -> Self {
        Self {
            connection: Connected::Server(connection),
            rerun: false,
            changes: None,
        }
    }

    /// Runs a statement whose rows, if any, are of no interest. How many rows it affected is not told:
    /// databases count differently, and nothing may be decided by it.
    pub async fn execute(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<(), Fault> {
        self.run(Text::Fixed(sql), params).await
    }

    /// Runs a statement whose text was made at run time.
    pub(super) async fn execute_made(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<(), Fault> {
        self.run(Text::Made(sql), params).await
    }

    async fn run(&mut self, sql: Text<'_>, params: &[Param<'_>]) -> Result<(), Fault> {
        match &mut self.connection {
            Connected::Sqlite(connection) => {
                let run = || -> rusqlite::Result<()> {
                    let mut statement = connection.prepare_cached(sql.as_str())?;
                    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
                    while rows.next()?.is_some() {}
                    Ok(())
                };
                run().map_err(|error| self.fault(sql.as_str(), error))
            }
            Connected::Server(connection) => {
                let outcome = connection.execute(sql, params).await;
                outcome.map_err(|error| self.server_fault(sql.as_str(), error))
            }
        }
    }

    /// Runs a query and maps every row. The caller bounds the number of rows in the statement.
    pub async fn query<T: Send>(
        &mut self,
        sql: &'static str,
        params: &[Param<'_>],
        map: impl FnMut(&Row<'_>) -> Result<T, Fault> + Send,
    ) -> Result<Vec<T>, Fault> {
        self.rows(Text::Fixed(sql), params, map).await
    }

    /// Runs a query whose text was made at run time.
    pub(super) async fn query_made<T: Send>(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        map: impl FnMut(&Row<'_>) -> Result<T, Fault> + Send,
    ) -> Result<Vec<T>, Fault> {
        self.rows(Text::Made(sql), params, map).await
    }

    async fn rows<T: Send>(
        &mut self,
        sql: Text<'_>,
        params: &[Param<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, Fault> + Send,
    ) -> Result<Vec<T>, Fault> {
        match &mut self.connection {
            Connected::Sqlite(connection) => {
                let mut found = Vec::new();
                let outcome: rusqlite::Result<Result<(), Fault>> = (|| {
                    let mut statement = connection.prepare_cached(sql.as_str())?;
                    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
                    while let Some(row) = rows.next()? {
                        match map(&Row(RowOf::Sqlite(row))) {
                            Ok(value) => found.push(value),
                            Err(fault) => return Ok(Err(fault)),
                        }
                    }
                    Ok(Ok(()))
                })();
                outcome.map_err(|error| self.fault(sql.as_str(), error))??;
                Ok(found)
            }
            Connected::Server(connection) => {
                let outcome = connection.query(sql, params, map).await;
                match outcome {
                    Ok(rows) => rows,
                    Err(error) => Err(self.server_fault(sql.as_str(), error)),
                }
            }
        }
    }

    /// Runs a query for at most one row.
    pub async fn query_one<T: Send>(
        &mut self,
        sql: &'static str,
        params: &[Param<'_>],
        map: impl FnMut(&Row<'_>) -> Result<T, Fault> + Send,
    ) -> Result<Option<T>, Fault> {
        Ok(self.query(sql, params, map).await?.pop())
    }

    /// The time by the database's clock; `None` where that is this machine's own.
    pub async fn time(&mut self) -> Result<Option<Millis>, Fault> {
        match &mut self.connection {
            Connected::Sqlite(_) => Ok(None),
            Connected::Server(connection) => match connection.time().await {
                Ok(rows) => Ok(rows?.pop()),
                Err(error) => Err(self.server_fault("read the time", error)),
            },
        }
    }

    /// Notes that the transaction changes a group of rows of a table that manifests keep. Called where those rows
    /// are written, before or after; while nothing is recorded it costs nothing.
    pub fn changed(&mut self, table: &Table, key: &[Param<'_>]) {
        if let Some(changes) = &mut self.changes {
            changes.insert(catalog::encode_change(table, key));
        }
    }

    /// Begins a transaction whose changes are recorded, or not.
    pub(super) fn begin_changes(&mut self, is_recording: bool) {
        self.changes = is_recording.then(BTreeSet::new);
    }

    /// Writes down what the transaction changed, as its last statement.
    pub(super) async fn record_changes(&mut self) -> Result<(), Fault> {
        match self.changes.take() {
            Some(changes) if !changes.is_empty() => {
                let entries: Vec<u8> = changes.into_iter().flatten().collect();
                self.execute(
                    "INSERT INTO changes (entries) VALUES ($1)",
                    params![entries.as_slice()],
                )
                .await
            }
            _ => Ok(()),
        }
    }

    /// Runs schema steps and settings of SQLite: several statements, compiled each time.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        let outcome = self
            .sqlite()
            .map(|connection| connection.execute_batch(sql))?;
        outcome.map_err(|error| self.fault(sql, error))
    }

    /// Runs one statement of transaction control on SQLite.
    pub(super) fn control(&mut self, sql: &'static str) -> Result<(), Fault> {
        let run = |connection: &Connection| connection.prepare_cached(sql)?.execute([]);
        let outcome = self.sqlite().map(run)?;
        outcome.map(|_| ()).map_err(|error| self.fault(sql, error))
    }

    /// Whether a transaction is open on SQLite. Some failures end one as a whole, savepoints included.
    pub(super) fn in_transaction(&self) -> bool {
        self.sqlite()
            .is_ok_and(|connection| !connection.is_autocommit())
    }

    fn sqlite(&self) -> Result<&Connection, Fault> {
        match &self.connection {
            Connected::Sqlite(connection) => Ok(connection),
            Connected::Server(_) => {
                Err(Fault::new(Kind::Internal, "run statement").context("not on SQLite"))
            }
        }
    }

    /// Begins a transaction that sees the database as it is now until [`Session::end_snapshot`], however long it is
    /// silent. SQLite holds off writers for as long.
    pub(super) async fn begin_snapshot(&mut self) -> Result<(), Fault> {
        let begin = match self.dialect() {
            None => return self.control("BEGIN IMMEDIATE"),
            Some(Dialect::Postgres) => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                 SET LOCAL idle_in_transaction_session_timeout = 0"
            }
            // TiDB takes a consistent snapshot or READ ONLY, not both.
            Some(Dialect::MySql) => {
                "SET SESSION wait_timeout = 86400;
                 SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
                 START TRANSACTION WITH CONSISTENT SNAPSHOT"
            }
        };
        self.server_control(begin).await
    }

    /// Ends what [`Session::begin_snapshot`] began, and lets the session be silent for as long as any other again.
    pub(super) async fn end_snapshot(&mut self) -> Result<(), Fault> {
        match self.dialect() {
            None => self.control("ROLLBACK"),
            Some(Dialect::Postgres) => self.server_control("ROLLBACK").await,
            Some(Dialect::MySql) => {
                let silence = SILENCE_MAX.as_secs();
                let end = format!("ROLLBACK; SET SESSION wait_timeout = {silence}");
                self.server_control(&end).await
            }
        }
    }

    async fn server_control(&mut self, sql: &str) -> Result<(), Fault> {
        let Some(connection) = self.server() else {
            return Ok(());
        };
        let outcome = connection.control(sql).await;
        outcome.map_err(|error| self.server_fault(sql, error))
    }

    /// The version of the database's schema, and that of the newest one.
    pub(super) async fn schema_versions(&mut self) -> Result<(usize, usize), Fault> {
        let Some(dialect) = self.dialect() else {
            return Ok((sqlite::schema_version(self)?, sqlite::newest_schema()));
        };
        let version = self
            .query_one(
                "SELECT COALESCE(MAX(version), 0) FROM schema_version",
                &[],
                |row| row.size(0),
            )
            .await?;
        Ok((
            version.unwrap_or(0) as usize,
            server::newest_schema(dialect),
        ))
    }

    /// Which server database this is, `None` for SQLite.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        match &self.connection {
            Connected::Sqlite(_) => None,
            Connected::Server(connection) => Some(connection.dialect()),
        }
    }

    /// The server's connection, for transaction control.
    pub(super) fn server(&mut self) -> Option<&mut server::Connection> {
        match &mut self.connection {
            Connected::Sqlite(_) => None,
            Connected::Server(connection) => Some(connection),
        }
    }

    /// Notes that the transaction met another one's change, and would come out otherwise if it were run again.
    pub(super) fn lost_race(&mut self) {
        self.rerun = true;
    }

    /// Whether the failed transaction should be run again as a whole; forgets it.
    pub(super) fn take_rerun(&mut self) -> bool {
        std::mem::take(&mut self.rerun)
    }

    fn server_fault(&mut self, sql: &str, error: server::Failed) -> Fault {
        self.rerun |= error.rerun;
        error.fault("run statement").context(beginning(sql))
    }

    fn fault(&mut self, sql: &str, error: rusqlite::Error) -> Fault {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                self.rerun = true;
                Kind::Busy
            }
            // A unique violation is a lost race; a foreign key violation means that what was looked up
            // is gone by now. Both come out differently when the transaction is run again.
            Some(ErrorCode::ConstraintViolation) => {
                self.rerun = true;
                Kind::Busy
            }
            Some(ErrorCode::DiskFull) => Kind::Full,
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Kind::Unavailable,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Corrupt,
            _ => Kind::Internal,
        };
        Fault::new(kind, "run statement")
            .context(beginning(sql))
            .source(error)
    }
}

/// The first words of a statement, for the log.
fn beginning(sql: &str) -> String {
    sql.split_whitespace().take(6).collect::<Vec<_>>().join(" ")
}
