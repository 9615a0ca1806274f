//! A database of its own, in one file that is thrown away: where a recovery puts manifests together.
//!
//! Groups of rows are kept as they are stored in manifests, the newest state of each, so that what comes out does
//! not depend on memory and can be read back in an order in which rows can be inserted. Nothing here survives a
//! crash, and nothing needs to: the manifests are read again.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::catalog::{Group, Table, Value};
use crate::model::fault::{Fault, Kind};

/// The scratch database. Its file is removed when it is dropped.
pub struct Scratch {
    connection: Connection,
    path: PathBuf,
}

fn failed(error: rusqlite::Error) -> Fault {
    let kind = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Kind::Full,
        _ => Kind::Unavailable,
    };
    Fault::new(kind, "use scratch database").source(error)
}

fn encoded(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        value.encode(&mut bytes);
    }
    bytes
}

fn decoded(mut bytes: &[u8]) -> Result<Vec<Value>, Fault> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let value = Value::decode(&mut bytes);
        values.push(value.ok_or_else(|| Fault::new(Kind::Corrupt, "read scratch database"))?);
    }
    Ok(values)
}

impl Scratch {
    /// A new one at `path`, in place of one that a crash left there.
    pub fn create(path: &Path) -> Result<Self, Fault> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Fault::new(Kind::Unavailable, "make scratch database")
                    .context(path.display())
                    .source(error));
            }
            _ => {}
        }
        // It holds what the manifests keep encrypted.
        let made = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        made.map_err(|error| {
            Fault::new(Kind::Unavailable, "make scratch database")
                .context(path.display())
                .source(error)
        })?;
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
                 PRAGMA cache_size = -32768;
                 CREATE TABLE groups (tbl INTEGER NOT NULL, key BLOB NOT NULL, rows BLOB NOT NULL,
                     PRIMARY KEY (tbl, key)) STRICT, WITHOUT ROWID;
                 CREATE TABLE marks (kind INTEGER NOT NULL, what BLOB NOT NULL,
                     PRIMARY KEY (kind, what)) STRICT, WITHOUT ROWID;
                 BEGIN",
            )
            .map_err(failed)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    /// Keeps `group` in place of what was known of it.
    pub fn put(&mut self, table: &Table, group: &Group) -> Result<(), Fault> {
        let key = encoded(&group.key);
        if group.rows.is_empty() {
            return self.remove(table, &group.key);
        }
        let rows: Vec<u8> = group.rows.iter().flat_map(|row| encoded(row)).collect();
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO groups (tbl, key, rows) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| statement.execute(params![table.id.0, key, rows]))
            .map_err(failed)?;
        Ok(())
    }

    /// Forgets a group.
    pub fn remove(&mut self, table: &Table, key: &[Value]) -> Result<(), Fault> {
        self.connection
            .prepare_cached("DELETE FROM groups WHERE tbl = ?1 AND key = ?2")
            .and_then(|mut statement| statement.execute(params![table.id.0, encoded(key)]))
            .map_err(failed)?;
        Ok(())
    }

    /// Whether a group has rows.
    pub fn contains(&self, table: &Table, key: &[Value]) -> Result<bool, Fault> {
        self.connection
            .prepare_cached("SELECT 1 FROM groups WHERE tbl = ?1 AND key = ?2")
            .and_then(|mut statement| statement.exists(params![table.id.0, encoded(key)]))
            .map_err(failed)
    }

    /// One group.
    pub fn get(&self, table: &Table, key: &[Value]) -> Result<Option<Group>, Fault> {
        let rows: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT rows FROM groups WHERE tbl = ?1 AND key = ?2")
            .and_then(|mut statement| {
                statement
                    .query_row(params![table.id.0, encoded(key)], |row| row.get(0))
                    .optional()
            })
            .map_err(failed)?;
        rows.map(|rows| group(table, key.to_vec(), &rows))
            .transpose()
    }

    /// Groups of a table after the one whose key is `after`, in order, at most `limit`.
    pub fn page(
        &self,
        table: &Table,
        after: Option<&[Value]>,
        limit: usize,
    ) -> Result<Vec<Group>, Fault> {
        let after = after.map(encoded).unwrap_or_default();
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT key, rows FROM groups WHERE tbl = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
            )
            .map_err(failed)?;
        let mut rows = statement
            .query(params![table.id.0, after, limit as i64])
            .map_err(failed)?;
        let mut groups = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (key, rows): (Vec<u8>, Vec<u8>) = row
                .get(0)
                .and_then(|key| Ok((key, row.get(1)?)))
                .map_err(failed)?;
            groups.push(group(table, decoded(&key)?, &rows)?);
        }
        Ok(groups)
    }

    /// How many groups of a table there are.
    pub fn count(&self, table: &Table) -> Result<u64, Fault> {
        self.connection
            .query_row(
                "SELECT COUNT(*) FROM groups WHERE tbl = ?1",
                params![table.id.0],
                |row| row.get::<_, i64>(0),
            )
            .map(|count| count as u64)
            .map_err(failed)
    }

    /// Notes something under a kind of the caller's own; `false` when it was noted already.
    pub fn mark(&mut self, kind: u8, what: &[u8]) -> Result<bool, Fault> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO marks (kind, what) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute(params![kind, what]))
            .map(|changed| changed > 0)
            .map_err(failed)
    }

    /// Whether something was noted.
    pub fn is_marked(&self, kind: u8, what: &[u8]) -> Result<bool, Fault> {
        self.connection
            .prepare_cached("SELECT 1 FROM marks WHERE kind = ?1 AND what = ?2")
            .and_then(|mut statement| statement.exists(params![kind, what]))
            .map_err(failed)
    }

    /// What was noted under `kind` after `after`, in order, at most `limit`.
    pub fn marks(&self, kind: u8, after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT what FROM marks WHERE kind = ?1 AND what > ?2 ORDER BY what LIMIT ?3",
            )
            .map_err(failed)?;
        let rows = statement
            .query_map(params![kind, after, limit as i64], |row| row.get(0))
            .map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }
}

fn group(table: &Table, key: Vec<Value>, rows: &[u8]) -> Result<Group, Fault> {
    let width = (table.columns.len() - table.group).max(1);
    let values = decoded(rows)?;
    Ok(Group {
        key,
        rows: values.chunks(width).map(<[Value]>::to_vec).collect(),
    })
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is replaced by the next one.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::catalog::{COPIES, TENANTS};

    #[test]
    fn the_newest_state_of_a_group_is_kept_and_one_without_rows_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scratch");
        let mut scratch = Scratch::create(&path).unwrap();
        let group = |id: i64, names: &[&str]| Group {
            key: vec![Value::Int(id)],
            rows: names
                .iter()
                .map(|name| {
                    let name = Value::Bytes(name.as_bytes().to_vec());
                    vec![Value::Int(1), name, Value::Text("live".into())]
                })
                .collect(),
        };
        scratch.put(&COPIES, &group(2, &["a", "b"])).unwrap();
        scratch.put(&COPIES, &group(1, &["c"])).unwrap();
        scratch.put(&COPIES, &group(2, &["d"])).unwrap();
        scratch.put(&COPIES, &group(300, &["e"])).unwrap();
        scratch.put(&COPIES, &group(1, &[])).unwrap();
        let page = scratch.page(&COPIES, None, 1).unwrap();
        assert_eq!(page, [group(2, &["d"])]);
        let page = scratch.page(&COPIES, Some(&page[0].key), 9).unwrap();
        assert_eq!(page, [group(300, &["e"])]);
        assert_eq!(scratch.count(&COPIES).unwrap(), 2);
        assert!(scratch.contains(&COPIES, &[Value::Int(2)]).unwrap());
        assert!(!scratch.contains(&COPIES, &[Value::Int(1)]).unwrap());
        assert_eq!(
            scratch.get(&COPIES, &[Value::Int(2)]).unwrap(),
            Some(group(2, &["d"]))
        );
        assert_eq!(scratch.count(&TENANTS).unwrap(), 0);
        assert!(scratch.mark(1, b"x").unwrap() && !scratch.mark(1, b"x").unwrap());
        assert!(scratch.is_marked(1, b"x").unwrap() && !scratch.is_marked(2, b"x").unwrap());
        assert_eq!(scratch.marks(1, b"", 9).unwrap(), [b"x".to_vec()]);
        drop(scratch);
        assert!(!path.exists());
    }
}
