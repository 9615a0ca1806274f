//! Rows of copies while they come and go: missing ones that wait to be written, and old ones of blobs that live
//! elsewhere.
//!
//! ```text
//!   (no row) --> missing --> live --> deleting --> (no row)
//! ```
//!
//! A copy's row is written before its bytes, so that the sweep spares them; it becomes live when the bytes are
//! safe. An old copy's row goes before its bytes. All of it happens under the blob's lock, and only while the
//! blob is live: a condemned blob takes all its copies along.

use super::adoptions;
use super::catalog::COPIES;
use super::contents::Owner;
use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::digest::Sha256Digest;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::BlobId;

/// What a copy is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// Its bytes are whole and may be read.
    Live,
    /// Its bytes are to be written.
    Missing,
    /// Its bytes are there still, and will be deleted.
    Deleting,
}

impl CopyState {
    fn column(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Missing => "missing",
            Self::Deleting => "deleting",
        }
    }
}

/// One copy of a blob, in any state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyCopy {
    /// The backend's row.
    pub backend: i64,
    /// The name at that backend.
    pub name: String,
    /// What it is good for.
    pub state: CopyState,
}

/// A blob under its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedBlob {
    /// Bytes.
    pub size: u64,
    /// Whether it is not condemned.
    pub live: bool,
}

/// Locks a blob against everything that changes its copies, for the rest of the transaction; `None` when it is gone.
pub async fn lock_blob(session: &mut Session, blob: BlobId) -> Result<Option<LockedBlob>, Fault> {
    session
        .query_one(
            "SELECT size, state FROM blobs WHERE id = $1 /*FOR UPDATE*/",
            params![blob.0],
            |row| {
                Ok(LockedBlob {
                    size: row.size(0)?,
                    live: row.str(1)? == "live",
                })
            },
        )
        .await
}

/// All copies of a blob.
pub async fn of_blob(session: &mut Session, blob: BlobId) -> Result<Vec<AnyCopy>, Fault> {
    session
        .query(
            "SELECT backend_id, name, state FROM copies WHERE blob_id = $1",
            params![blob.0],
            |row| {
                Ok(AnyCopy {
                    backend: row.int(0)?,
                    name: name(row, 1)?,
                    state: match row.str(2)? {
                        "live" => CopyState::Live,
                        "missing" => CopyState::Missing,
                        "deleting" => CopyState::Deleting,
                        _ => return Err(corrupt().context("state of copy")),
                    },
                })
            },
        )
        .await
}

/// Writes a copy's row, over the one of the same blob and backend.
pub async fn write(
    session: &mut Session,
    blob: BlobId,
    copy: &AnyCopy,
    now: Millis,
) -> Result<(), Fault> {
    session.changed(&COPIES, params![blob.0]);
    session
        .execute(
            "INSERT INTO copies (blob_id, backend_id, name, state, since) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (blob_id, backend_id) DO UPDATE
             SET name = excluded.name, state = excluded.state, since = excluded.since",
            params![
                blob.0,
                copy.backend,
                copy.name.as_bytes(),
                copy.state.column(),
                now
            ],
        )
        .await
}

/// Forgets a copy.
pub async fn remove(session: &mut Session, blob: BlobId, backend: i64) -> Result<(), Fault> {
    session.changed(&COPIES, params![blob.0]);
    session
        .execute(
            "DELETE FROM copies WHERE blob_id = $1 AND backend_id = $2",
            params![blob.0, backend],
        )
        .await
}

/// The SHA-256 that a blob's bytes must have; `None` when no content says so, as of encrypted bytes.
pub async fn digest_of(
    session: &mut Session,
    blob: BlobId,
    size: u64,
) -> Result<Option<Sha256Digest>, Fault> {
    let found = session
        .query(
            "SELECT sha256 FROM contents
             WHERE blob_id = $1 AND blob_offset = 0 AND length = $2 AND coding IS NULL AND sha256 IS NOT NULL
             LIMIT 1",
            params![blob.0, size as i64],
            |row| row.array(0),
        )
        .await?;
    Ok(found.first().map(|bytes| Sha256Digest(*bytes)))
}

/// Live blobs above `after` with a copy at a backend that is live or to come, in order, at most `limit`.
pub async fn wanted_at(
    session: &mut Session,
    backend: i64,
    after: BlobId,
    limit: usize,
) -> Result<Vec<BlobId>, Fault> {
    session
        .query(
            "SELECT p.blob_id FROM copies p JOIN blobs b ON b.id = p.blob_id
             WHERE p.backend_id = $1 AND p.blob_id > $2 AND p.state <> 'deleting' AND b.state = 'live'
             ORDER BY p.blob_id LIMIT $3",
            params![backend, after.0, limit as i64],
            |row| Ok(BlobId(row.int(0)?)),
        )
        .await
}

// SQLite takes the tables of a cross join in their order: the copies that wait are few, and blobs are not. Its index of
// those that wait holds what is not live, and is used only where a statement says so in these words.
const MISSING: &str = "SELECT p.blob_id FROM copies p CROSS JOIN blobs b CROSS JOIN backends k
     WHERE p.state = 'missing' AND p.state <> 'live' AND p.backend_id = $1 AND p.blob_id > $2
       AND b.id = p.blob_id AND b.state = 'live' AND k.id = p.backend_id AND k.moved_to IS NULL
       AND NOT EXISTS (SELECT 1 FROM copies o JOIN backends f ON f.id = o.backend_id
                       WHERE o.blob_id = p.blob_id AND o.state <> 'deleting' AND f.moved_to = p.backend_id)
     ORDER BY p.blob_id LIMIT $3";

/// Blobs above `after` whose copy at a backend is missing, in order, at most `limit`: none where the backend was moved
/// away from, and none that a move is about to write.
pub async fn missing(
    session: &mut Session,
    backend: i64,
    after: BlobId,
    limit: usize,
) -> Result<Vec<BlobId>, Fault> {
    session
        .query(MISSING, params![backend, after.0, limit as i64], |row| {
            row.int(0).map(BlobId)
        })
        .await
}

/// How many copies are missing.
pub async fn count_missing(session: &mut Session) -> Result<u64, Fault> {
    let found = session
        .query_one(
            "SELECT COUNT(*) FROM copies p JOIN blobs b ON b.id = p.blob_id
             WHERE p.state = 'missing' AND p.state <> 'live' AND b.state = 'live'",
            &[],
            |row| row.size(0),
        )
        .await?;
    Ok(found.unwrap_or(0))
}

macro_rules! outdated {
    ($where:literal) => {
        concat!(
            "SELECT p.blob_id, p.backend_id FROM copies p CROSS JOIN blobs b CROSS JOIN backends k
             WHERE p.state = 'deleting' AND p.state <> 'live' AND p.since < $1
               AND p.backend_id >= $2 AND (p.backend_id > $2 OR p.blob_id > $3)
               AND b.id = p.blob_id AND b.state = 'live' AND k.id = p.backend_id AND ",
            $where,
            " ORDER BY p.backend_id, p.blob_id LIMIT $4"
        )
    };
}
const OUTDATED: &str = outdated!("k.node IS NULL");
const OUTDATED_ON: &str = outdated!("k.node = $5");

/// Old copies of live blobs that were given up before `before`, above `after` in order of backend and blob, at most
/// `limit`: on the own disk of `node`, which deletes them, or where every node reaches them.
pub async fn outdated(
    session: &mut Session,
    node: Option<&str>,
    before: Millis,
    after: (i64, BlobId),
    limit: usize,
) -> Result<Vec<(BlobId, i64)>, Fault> {
    let (after, limit) = ((after.0, after.1.0), limit as i64);
    let decode = |row: &Row<'_>| Ok((BlobId(row.int(0)?), row.int(1)?));
    match node {
        None => {
            let params = params![before, after.0, after.1, limit];
            session.query(OUTDATED, params, decode).await
        }
        Some(node) => {
            let params = params![before, after.0, after.1, limit, node];
            session.query(OUTDATED_ON, params, decode).await
        }
    }
}

/// Takes away the row of an old copy that was given up before `before`, under its blob's lock; its name, when the
/// caller is to delete the bytes, and whether the blob's are ours.
pub async fn take_outdated(
    session: &mut Session,
    blob: BlobId,
    backend: i64,
    before: Millis,
) -> Result<Option<(String, bool)>, Fault> {
    if !lock_blob(session, blob).await?.is_some_and(|it| it.live) {
        return Ok(None);
    }
    let found = session
        .query_one(
            "SELECT p.name, b.owned FROM copies p JOIN blobs b ON b.id = p.blob_id
             WHERE p.blob_id = $1 AND p.backend_id = $2 AND p.state = 'deleting' AND p.since < $3",
            params![blob.0, backend, before],
            |row| Ok((name(row, 0)?, Owner::is_ours(row.int(1)?))),
        )
        .await?;
    if let Some((name, is_ours)) = &found {
        remove(session, blob, backend).await?;
        if !is_ours {
            // It stays where it is, and nobody here reads or deletes it any more.
            adoptions::forget_object(session, backend, name).await?;
        }
    }
    Ok(found)
}

/// How many live blobs have a live copy at a backend, and their bytes. A scan.
pub async fn live_at(session: &mut Session, backend: i64) -> Result<(u64, u64), Fault> {
    let found = session
        .query_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(b.size), 0) AS INTEGER)
             FROM copies p JOIN blobs b ON b.id = p.blob_id
             WHERE p.backend_id = $1 AND p.state = 'live'",
            params![backend],
            |row| Ok((row.size(0)?, row.size(1)?)),
        )
        .await?;
    Ok(found.unwrap_or_default())
}

/// Whether a backend has a live copy. A scan where it has none.
pub async fn any_live_at(session: &mut Session, backend: i64) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM copies WHERE backend_id = $1 AND state = 'live' LIMIT 1",
            params![backend],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// How many copies a backend has that are live or to come, whether their blobs are condemned or not.
pub async fn count_wanted_at(session: &mut Session, backend: i64) -> Result<u64, Fault> {
    let found = session
        .query_one(
            "SELECT COUNT(*) FROM copies WHERE backend_id = $1 AND state <> 'deleting'",
            params![backend],
            |row| row.size(0),
        )
        .await?;
    Ok(found.unwrap_or(0))
}

/// Whether a backend has copies that wait for their deletion.
pub async fn any_unsettled_at(session: &mut Session, backend: i64) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM copies WHERE backend_id = $1 AND state = 'deleting' AND state <> 'live' LIMIT 1",
            params![backend],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

fn name(row: &Row<'_>, column: usize) -> Result<String, Fault> {
    String::from_utf8(row.bytes(column)?.to_vec()).map_err(|error| corrupt().source(error))
}

fn corrupt() -> Fault {
    Fault::new(Kind::Corrupt, "decode row")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::sqlite;

    #[tokio::test]
    async fn copies_that_wait_are_found_without_a_look_at_the_others() {
        let mut session = sqlite::blank().unwrap();
        for (sql, count) in [(MISSING, 3), (OUTDATED, 4), (OUTDATED_ON, 5)] {
            let sql = format!("EXPLAIN QUERY PLAN {sql}");
            let params = vec![0_i64.into(); count];
            let plan = session
                .query_made(&sql, &params, |row| Ok(row.str(3)?.to_owned()))
                .await
                .unwrap();
            assert!(plan[0].contains("copies_unfinished"), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("SCAN")), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP")), "{plan:?}");
        }
    }
}
