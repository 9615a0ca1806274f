//! Rows of releases, and the statements by which the collector decides.

use super::adoptions;
use super::catalog::{BLOBS, CONTENTS, COPIES, EXTENTS};
use super::contents::{CopyRow, Owner};
use super::session::{Param, Row, Session, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, ContentId};

/// Notes that a reference to `content` was given up. Locks no content: only the collector decides.
pub async fn release(
    session: &mut Session,
    id: i64,
    content: ContentId,
    now: Millis,
) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO released (id, content_id, at) VALUES ($1, $2, $3)",
            params![id, content.0, now],
        )
        .await
}

/// A release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Its own number.
    pub id: i64,
    /// What a reference was given up to.
    pub content: ContentId,
    /// When, by the clock of the node that did, before its transaction began.
    pub at: Millis,
}

/// Releases from before `before`, after `after` in order of time and id, at most `limit`.
pub async fn due(
    session: &mut Session,
    before: Millis,
    after: (Millis, i64),
    limit: usize,
) -> Result<Vec<Release>, Fault> {
    session
        .query(
            "SELECT id, content_id, at FROM released
             WHERE at < $1 AND at >= $2 AND (at > $2 OR id > $3)
             ORDER BY at, id LIMIT $4",
            params![before, after.0, after.1, limit as i64],
            |row| {
                Ok(Release {
                    id: row.int(0)?,
                    content: ContentId(row.int(1)?),
                    at: row.int(2)?,
                })
            },
        )
        .await
}

/// The ids of releases of a content from before `before`, oldest first, at most `limit`.
pub async fn of(
    session: &mut Session,
    content: ContentId,
    before: Millis,
    limit: usize,
) -> Result<Vec<i64>, Fault> {
    session
        .query(
            "SELECT id FROM released WHERE content_id = $1 AND at < $2 ORDER BY at, id LIMIT $3",
            params![content.0, before, limit as i64],
            |row| row.int(0),
        )
        .await
}

/// Whether a content was released at `since` or later, however many releases it has. Decides about a content without
/// a reference only as a statement after the one that found none: a reference that goes in between brings its release.
pub async fn any_since(
    session: &mut Session,
    content: ContentId,
    since: Millis,
) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM released WHERE content_id = $1 AND at >= $2 LIMIT 1",
            params![content.0, since],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// Deletes releases by their ids, a page of them: by content it would swallow one that commits in between.
pub async fn forget(session: &mut Session, ids: &[i64]) -> Result<(), Fault> {
    if ids.is_empty() {
        return Ok(());
    }
    let marks: Vec<String> = (1..=ids.len()).map(|number| format!("${number}")).collect();
    let sql = format!("DELETE FROM released WHERE id IN ({})", marks.join(", "));
    let params: Vec<_> = ids.iter().map(|id| Param::from(*id)).collect();
    session.execute_made(&sql, &params).await
}

/// Whether any reference to a content is left. Must be a statement after the one that locked the row.
pub async fn is_referenced(session: &mut Session, content: ContentId) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT EXISTS (SELECT 1 FROM objects WHERE content_id = $1)
                 OR EXISTS (SELECT 1 FROM versions WHERE content_id = $1)
                 OR EXISTS (SELECT 1 FROM upload_parts WHERE content_id = $1)
                 OR EXISTS (SELECT 1 FROM extents WHERE child_id = $1)",
            params![content.0],
            |row| row.int(0),
        )
        .await?;
    Ok(found == Some(1))
}

/// Takes away a content's extents and returns the contents they referred to, each once.
pub async fn take_extents(
    session: &mut Session,
    content: ContentId,
) -> Result<Vec<ContentId>, Fault> {
    session.changed(&EXTENTS, params![content.0]);
    let children = session
        .query(
            "SELECT DISTINCT child_id FROM extents WHERE content_id = $1",
            params![content.0],
            |row| Ok(ContentId(row.int(0)?)),
        )
        .await?;
    session
        .execute(
            "DELETE FROM extents WHERE content_id = $1",
            params![content.0],
        )
        .await?;
    Ok(children)
}

/// Deletes a content's row and returns the blob it lay in. Its foreign keys refuse while anything still
/// refers to it.
pub async fn delete_content(
    session: &mut Session,
    content: ContentId,
) -> Result<Option<BlobId>, Fault> {
    session.changed(&CONTENTS, params![content.0]);
    let blob = session
        .query_one(
            "SELECT blob_id FROM contents WHERE id = $1",
            params![content.0],
            |row| row.opt_int(0),
        )
        .await?;
    session
        .execute("DELETE FROM contents WHERE id = $1", params![content.0])
        .await?;
    Ok(blob.flatten().map(BlobId))
}

/// Marks a blob and its copies `deleting` when no content lies in it any more. Objects in it that are not ours stay where
/// they are, and are free to be adopted again: nobody here deletes them.
pub async fn condemn_blob(session: &mut Session, blob: BlobId, now: Millis) -> Result<(), Fault> {
    let used = session
        .query_one(
            "SELECT 1 FROM contents WHERE blob_id = $1 LIMIT 1",
            params![blob.0],
            |row| row.int(0),
        )
        .await?;
    if used.is_some() {
        return Ok(());
    }
    let owner = session
        .query_one(
            "SELECT owned FROM blobs WHERE id = $1 /*FOR UPDATE*/",
            params![blob.0],
            |row| row.int(0),
        )
        .await?;
    if owner.is_some_and(|owner| !Owner::is_ours(owner)) {
        for copy in copies(session, blob).await? {
            adoptions::forget_object(session, copy.backend, &copy.name).await?;
        }
    }
    session.changed(&BLOBS, params![blob.0]);
    session.changed(&COPIES, params![blob.0]);
    session
        .execute(
            "UPDATE blobs SET state = 'deleting', since = $1 WHERE id = $2",
            params![now, blob.0],
        )
        .await?;
    session
        .execute(
            "UPDATE copies SET state = 'deleting', since = $1 WHERE blob_id = $2",
            params![now, blob.0],
        )
        .await
}

/// A condemned blob whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condemned {
    /// When it was marked.
    pub since: Millis,
    /// Which.
    pub blob: BlobId,
    /// Whether its bytes are ours to delete.
    pub owned: bool,
}

/// Condemned blobs that were marked before `before`, after `after` in order of that time and id, at most `limit`. None
/// that has a copy on a node's own disk: see [`condemned_on`].
pub async fn condemned(
    session: &mut Session,
    before: Millis,
    after: (Millis, BlobId),
    limit: usize,
) -> Result<Vec<Condemned>, Fault> {
    session
        .query(
            "SELECT id, owned, since FROM blobs
             WHERE state = 'deleting' AND since < $1 AND (since > $2 OR (since = $2 AND id > $3))
               AND NOT EXISTS (SELECT 1 FROM copies c JOIN backends b ON b.id = c.backend_id
                               WHERE c.blob_id = blobs.id AND b.node IS NOT NULL)
             ORDER BY since, id LIMIT $4",
            params![before, after.0, after.1.0, limit as i64],
            of_condemned,
        )
        .await
}

/// The same for those that have a copy on the own disk of `node`, which deletes them.
pub async fn condemned_on(
    session: &mut Session,
    before: Millis,
    node: &str,
    after: (Millis, BlobId),
    limit: usize,
) -> Result<Vec<Condemned>, Fault> {
    session
        .query(
            "SELECT id, owned, since FROM blobs
             WHERE state = 'deleting' AND since < $1
               AND EXISTS (SELECT 1 FROM copies c JOIN backends b ON b.id = c.backend_id
                           WHERE c.blob_id = blobs.id AND b.node = $2)
               AND (since > $3 OR (since = $3 AND id > $4))
             ORDER BY since, id LIMIT $5",
            params![before, node, after.0, after.1.0, limit as i64],
            of_condemned,
        )
        .await
}

fn of_condemned(row: &Row<'_>) -> Result<Condemned, Fault> {
    Ok(Condemned {
        blob: BlobId(row.int(0)?),
        owned: Owner::is_ours(row.int(1)?),
        since: row.int(2)?,
    })
}

/// All copies of a blob, whatever their state.
pub async fn copies(session: &mut Session, blob: BlobId) -> Result<Vec<CopyRow>, Fault> {
    session
        .query(
            "SELECT backend_id, name FROM copies WHERE blob_id = $1",
            params![blob.0],
            |row| {
                Ok(CopyRow {
                    backend: row.int(0)?,
                    name: String::from_utf8(row.bytes(1)?.to_vec())
                        .map_err(|error| Fault::new(Kind::Corrupt, "decode row").source(error))?,
                })
            },
        )
        .await
}

/// Forgets a blob whose bytes are gone.
pub async fn forget_blob(session: &mut Session, blob: BlobId) -> Result<(), Fault> {
    session.changed(&BLOBS, params![blob.0]);
    session.changed(&COPIES, params![blob.0]);
    session
        .execute("DELETE FROM copies WHERE blob_id = $1", params![blob.0])
        .await?;
    session
        .execute("DELETE FROM blobs WHERE id = $1", params![blob.0])
        .await
}

/// Whether any row names this copy of a blob, at whatever backend: two of them may be one place under two names, and
/// no name is given twice.
pub async fn is_named(session: &mut Session, blob: BlobId, name: &str) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM copies WHERE blob_id = $1 AND name = $2 LIMIT 1",
            params![blob.0, name.as_bytes()],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// Contents with ids above `after`, in order, at most `limit`, and whether anything refers to each.
pub async fn references_of(
    session: &mut Session,
    after: ContentId,
    limit: usize,
) -> Result<Vec<(ContentId, bool)>, Fault> {
    session
        .query(
            "SELECT c.id, CASE WHEN EXISTS (SELECT 1 FROM objects o WHERE o.content_id = c.id)
                     OR EXISTS (SELECT 1 FROM versions v WHERE v.content_id = c.id)
                     OR EXISTS (SELECT 1 FROM upload_parts p WHERE p.content_id = c.id)
                     OR EXISTS (SELECT 1 FROM extents e WHERE e.child_id = c.id) THEN 1 ELSE 0 END
             FROM contents c WHERE c.id > $1 ORDER BY c.id LIMIT $2",
            params![after.0, limit as i64],
            |row| Ok((ContentId(row.int(0)?), row.int(1)? != 0)),
        )
        .await
}

/// Live blobs with ids above `after`, in order, at most `limit`.
pub async fn live_blobs(
    session: &mut Session,
    after: BlobId,
    limit: usize,
) -> Result<Vec<BlobId>, Fault> {
    session
        .query(
            "SELECT id FROM blobs WHERE id > $1 AND state = 'live' ORDER BY id LIMIT $2",
            params![after.0, limit as i64],
            |row| row.int(0).map(BlobId),
        )
        .await
}
