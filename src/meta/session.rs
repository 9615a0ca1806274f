//! One connection to a database, with the few operations that all of them offer.
//!
//! SQL texts are written once, with `$1`, `$2`, ... numbered in the order of their first appearance.
//! Everything that differs between databases stays behind [`Session`]: the row modules beside this file
//! name no driver. On SQLite no operation waits, so a future that uses only its session is ready at once.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode};

use crate::model::fault::{Fault, Kind};
use crate::model::names::ObjectKey;

/// One value bound to a statement.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<bool> for Param<'_> {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}
impl<'a> From<&'a str> for Param<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}
impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}
impl<'a, const N: usize> From<&'a [u8; N]> for Param<'a> {
    fn from(value: &'a [u8; N]) -> Self {
        Self::Bytes(value)
    }
}
impl<'a, T: Into<Param<'a>>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Param::Null, Into::into)
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
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

/// One row of an answer; columns are counted from 0. A column of another type than asked for is
/// [`Kind::Corrupt`]: the schema says what it is.
pub struct Row<'a>(&'a rusqlite::Row<'a>);

impl Row<'_> {
    fn value(&self, column: usize) -> Result<ValueRef<'_>, Fault> {
        self.0
            .get_ref(column)
            .map_err(|error| corrupt(column).source(error))
    }

    /// An integer.
    pub fn int(&self, column: usize) -> Result<i64, Fault> {
        self.opt_int(column)?.ok_or_else(|| corrupt(column))
    }

    /// An integer or NULL.
    pub fn opt_int(&self, column: usize) -> Result<Option<i64>, Fault> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(value) => Ok(Some(value)),
            _ => Err(corrupt(column)),
        }
    }

    /// A length or count, which is never negative.
    pub fn size(&self, column: usize) -> Result<u64, Fault> {
        u64::try_from(self.int(column)?).map_err(|error| corrupt(column).source(error))
    }

    /// Text or NULL, borrowed from the row.
    pub fn opt_str(&self, column: usize) -> Result<Option<&str>, Fault> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|error| corrupt(column).source(error)),
            _ => Err(corrupt(column)),
        }
    }

    /// Text.
    pub fn str(&self, column: usize) -> Result<&str, Fault> {
        self.opt_str(column)?.ok_or_else(|| corrupt(column))
    }

    /// Bytes or NULL, borrowed from the row.
    pub fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>, Fault> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(bytes) => Ok(Some(bytes)),
            _ => Err(corrupt(column)),
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

/// One connection.
pub struct Session {
    connection: Connection,
    /// A statement failed in a way that may not happen when the whole transaction is run again.
    rerun: bool,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(128);
        Self {
            connection,
            rerun: false,
        }
    }

    /// Runs a statement whose rows, if any, are of no interest. How many rows it affected is not told:
    /// databases count differently, and nothing may be decided by it.
    pub async fn execute(&mut self, sql: &'static str, params: &[Param<'_>]) -> Result<(), Fault> {
        let run = |connection: &Connection| -> rusqlite::Result<()> {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(rusqlite::params_from_iter(params))?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        run(&self.connection).map_err(|error| self.fault(sql, error))
    }

    /// Runs a query and maps every row. The caller bounds the number of rows in the statement.
    pub async fn query<T: Send>(
        &mut self,
        sql: &'static str,
        params: &[Param<'_>],
        mut map: impl FnMut(&Row<'_>) -> Result<T, Fault> + Send,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        let outcome: rusqlite::Result<Result<(), Fault>> = (|| {
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query(rusqlite::params_from_iter(params))?;
            while let Some(row) = rows.next()? {
                match map(&Row(row)) {
                    Ok(value) => found.push(value),
                    Err(fault) => return Ok(Err(fault)),
                }
            }
            Ok(Ok(()))
        })();
        outcome.map_err(|error| self.fault(sql, error))??;
        Ok(found)
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

    /// Runs schema steps and settings: several statements, compiled each time.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        self.connection
            .execute_batch(sql)
            .map_err(|error| self.fault(sql, error))
    }

    /// Runs one statement of transaction control.
    pub(super) fn control(&mut self, sql: &'static str) -> Result<(), Fault> {
        let run = |connection: &Connection| connection.prepare_cached(sql)?.execute([]);
        run(&self.connection)
            .map(|_| ())
            .map_err(|error| self.fault(sql, error))
    }

    /// Whether a transaction is open. Some failures end one as a whole, savepoints included.
    pub(super) fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Whether the failed transaction should be run again as a whole; forgets it.
    pub(super) fn take_rerun(&mut self) -> bool {
        std::mem::take(&mut self.rerun)
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
        let statement: String = sql.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
        Fault::new(kind, "run statement")
            .context(statement)
            .source(error)
    }
}
