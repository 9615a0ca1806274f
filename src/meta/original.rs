//! The rows of an existing osproxy's database, of which [`adoptions`](super::adoptions) says what became: read, and never
//! written.
//!
//! ```text
//!   meta_data_info    one row a file: uid, where its object lies, size, MD5; status 1 once it is uploaded
//!   multi_part_info   one row a part of a file that was sent in parts: its number, and where its object lies
//! ```
//!
//! A file whose `multi_part` is set is read from its parts; one that was merged since has an object of its own, and
//! what is left of its parts is of no use. Several files may lie in one object.

use super::Durability;
use super::dialect::Dialect;
use super::server;
use super::session::{Row, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};

/// Connections to the database.
const CONNECTIONS: u32 = 1;
/// What `status` says of a file or part that is there.
const UPLOADED: i64 = 1;
/// Tables that must be there.
const TABLES: [&str; 2] = ["meta_data_info", "multi_part_info"];

/// An object as the database names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldObject {
    /// The bucket at the backend.
    pub bucket: String,
    /// The name in that bucket.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Its MD5 in hexadecimal digits; may be empty.
    pub md5: String,
}

/// One row of `meta_data_info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldFile {
    /// Its place in the table.
    pub id: i64,
    /// Its number.
    pub uid: i64,
    /// The name it came under; may be empty.
    pub name: String,
    /// The whole. Of a file in parts there is no such object.
    pub object: OldObject,
    /// How many parts it is in; `None` for one object.
    pub parts: Option<i64>,
    /// Whether it was uploaded to its end.
    pub is_uploaded: bool,
    /// Its content type; may be empty.
    pub content_type: String,
    /// When it was changed last.
    pub modified: Option<Millis>,
}

/// One row of `multi_part_info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldPart {
    /// Its number, from 1.
    pub number: i64,
    /// Where it lies.
    pub object: OldObject,
}

/// One row of `multi_part_info`, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldPartRow {
    /// Its place in the table.
    pub id: i64,
    /// The number of its file.
    pub uid: i64,
    /// Where it lies.
    pub object: OldObject,
}

/// The database of an existing osproxy.
pub struct Original {
    /// Asked for a session each time: what lies between two questions may take longer than a silent one lives.
    engine: server::Engine,
}

impl Original {
    /// Connects to the database at `url`. [`Kind::Config`] when it is not that of an osproxy.
    pub async fn open(url: &str) -> Result<Self, Fault> {
        let engine = server::Engine::attach(url, CONNECTIONS, Durability::Relaxed)?;
        let mut session = engine.session().await?;
        let tables = session
            .query(
                match session.dialect() {
                    Some(Dialect::MySql) => {
                        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()
                         AND table_name IN ($1, $2)"
                    }
                    _ => {
                        "SELECT CAST(table_name AS TEXT) FROM information_schema.tables
                         WHERE table_schema = current_schema() AND table_name IN ($1, $2)"
                    }
                },
                params![TABLES[0], TABLES[1]],
                |_| Ok(()),
            )
            .await?;
        if tables.len() != TABLES.len() {
            return Err(
                Fault::new(Kind::Config, "read original").context(format_args!(
                    "expected the database of an osproxy, with the tables {}",
                    TABLES.join(" and ")
                )),
            );
        }
        drop(session);
        Ok(Self { engine })
    }

    /// How many files there are.
    pub async fn count(&self) -> Result<u64, Fault> {
        let mut session = self.engine.session().await?;
        let found = session
            .query_one("SELECT COUNT(*) FROM meta_data_info", &[], |row| {
                row.size(0)
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// The greatest uid of each worker: the ten bits above the lowest twelve.
    pub async fn newest(&self) -> Result<Vec<(u16, i64)>, Fault> {
        let mut session = self.engine.session().await?;
        session
            .query(
                "SELECT CAST((uid >> 12) & 1023 AS INTEGER), MAX(uid) FROM meta_data_info WHERE uid > 0 GROUP BY 1",
                &[],
                |row| {
                    let worker = u16::try_from(row.int(0)?).map_err(|error| {
                        Fault::new(Kind::Corrupt, "decode row").source(error)
                    })?;
                    Ok((worker, row.int(1)?))
                },
            )
            .await
    }

    /// Files after the row `after`, in order, at most `limit`.
    pub async fn files(&self, after: i64, limit: usize) -> Result<Vec<OldFile>, Fault> {
        macro_rules! sql {
            ($modified:literal) => {
                concat!(
                    "SELECT CAST(id AS INTEGER), uid, name, bucket, storage_name, CAST(COALESCE(storage_size, 0) AS INTEGER),
                            COALESCE(md5, ''), CASE WHEN multi_part THEN 1 ELSE 0 END,
                            CAST(COALESCE(part_num, 0) AS INTEGER), CAST(COALESCE(status, 0) AS INTEGER),
                            COALESCE(content_type, ''), ",
                    $modified,
                    " FROM meta_data_info WHERE id > $1 ORDER BY id LIMIT $2"
                )
            };
        }
        let mut session = self.engine.session().await?;
        let sql = match session.dialect() {
            Some(Dialect::MySql) => sql!("CAST(UNIX_TIMESTAMP(updated_at) * 1000 AS INTEGER)"),
            _ => sql!("CAST(EXTRACT(EPOCH FROM updated_at) * 1000 AS INTEGER)"),
        };
        session
            .query(sql, params![after, limit as i64], |row| {
                Ok(OldFile {
                    id: row.int(0)?,
                    uid: row.int(1)?,
                    name: row.str(2)?.to_owned(),
                    object: object(row, 3)?,
                    parts: (row.int(7)? != 0).then_some(row.int(8)?),
                    is_uploaded: row.int(9)? == UPLOADED,
                    content_type: row.str(10)?.to_owned(),
                    modified: row.opt_int(11)?,
                })
            })
            .await
    }

    /// The parts of a file that are there, by number, at most `limit`.
    pub async fn parts(&self, uid: i64, limit: usize) -> Result<Vec<OldPart>, Fault> {
        let mut session = self.engine.session().await?;
        session
            .query(
                "SELECT CAST(chunk_num AS INTEGER), bucket, storage_name,
                        CAST(COALESCE(storage_size, 0) AS INTEGER), COALESCE(part_md5, '')
                 FROM multi_part_info WHERE storage_uid = $1 AND status = $2 ORDER BY chunk_num, id LIMIT $3",
                params![uid, UPLOADED, limit as i64],
                |row| {
                    Ok(OldPart {
                        number: row.int(0)?,
                        object: object(row, 1)?,
                    })
                },
            )
            .await
    }

    /// Rows of parts after the row `after`, in order, at most `limit`.
    pub async fn part_rows(&self, after: i64, limit: usize) -> Result<Vec<OldPartRow>, Fault> {
        let mut session = self.engine.session().await?;
        session
            .query(
                "SELECT CAST(id AS INTEGER), storage_uid, bucket, storage_name,
                        CAST(COALESCE(storage_size, 0) AS INTEGER), COALESCE(part_md5, '')
                 FROM multi_part_info WHERE id > $1 ORDER BY id LIMIT $2",
                params![after, limit as i64],
                |row| {
                    Ok(OldPartRow {
                        id: row.int(0)?,
                        uid: row.int(1)?,
                        object: object(row, 2)?,
                    })
                },
            )
            .await
    }

    /// Ends the connection.
    pub async fn close(self) {
        self.engine.close().await;
    }
}

/// Bucket, name, size and MD5 from column `first` on.
fn object(row: &Row<'_>, first: usize) -> Result<OldObject, Fault> {
    Ok(OldObject {
        bucket: row.str(first)?.to_owned(),
        name: row.str(first + 1)?.to_owned(),
        size: row.int(first + 2)?,
        md5: row.str(first + 3)?.to_owned(),
    })
}
