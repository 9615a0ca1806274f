//! Contents whose blob is too long for where it is to lie, and what cuts them into shorter ones.

use super::catalog::{CONTENTS, EXTENTS};
use super::contents::{self, NewContent, NewRun};
use super::releases;
use super::session::{Session, params};
use crate::model::content::DEPTH_MAX;
use crate::model::fault::Fault;
use crate::model::ids::{BlobId, ContentId};

/// What became of a content that was to be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// It is made of the shorter ones.
    Done,
    /// Nothing refers to it any more, or it lies elsewhere.
    Gone,
    /// What refers to it does so through as many levels as there may be.
    Deep,
}

/// The contents that lie in a blob and that something refers to.
pub async fn contents_of(session: &mut Session, blob: BlobId) -> Result<Vec<ContentId>, Fault> {
    let all = session
        .query(
            "SELECT id FROM contents WHERE blob_id = $1 ORDER BY id LIMIT 1000",
            params![blob.0],
            |row| row.int(0).map(ContentId),
        )
        .await?;
    let mut used = Vec::with_capacity(all.len());
    for content in all {
        if releases::is_referenced(session, content).await? {
            used.push(content);
        }
    }
    Ok(used)
}

/// Makes `new.id`, a content in `blob`, a composite of `runs`, which are inserted. The bytes it had become those of
/// `old`, a content that nothing refers to: whoever is reading them goes on, and the release that the caller writes
/// lets the collector take them when nobody is any more.
pub async fn split(
    session: &mut Session,
    new: &NewContent<'_>,
    blob: BlobId,
    old: ContentId,
    runs: &[NewRun<'_>],
) -> Result<Split, Fault> {
    let id = new.id;
    if !contents::lock_alone(session, id).await? || !releases::is_referenced(session, id).await? {
        return Ok(Split::Gone);
    }
    let lies_in = session
        .query_one(
            "SELECT blob_id FROM contents WHERE id = $1",
            params![id.0],
            |row| row.opt_int(0),
        )
        .await?;
    if lies_in.flatten() != Some(blob.0) {
        return Ok(Split::Gone);
    }
    if !deepen_those_over(session, id).await? {
        return Ok(Split::Deep);
    }
    session.changed(&CONTENTS, params![old.0]);
    session
        .execute(
            "INSERT INTO contents (id, space_id, length, kind, depth, created, blob_id, blob_offset, stored_length)
             SELECT $1, space_id, stored_length, 'stored', 0, $2, blob_id, blob_offset, stored_length
             FROM contents WHERE id = $3",
            params![old.0, new.now, id.0],
        )
        .await?;
    session.changed(&CONTENTS, params![id.0]);
    session
        .execute(
            "UPDATE contents SET kind = 'composite', depth = 1, blob_id = NULL, blob_offset = NULL,
                    stored_length = NULL, coding = NULL, key_wrapped = NULL, key_id = NULL
             WHERE id = $1",
            params![id.0],
        )
        .await?;
    session.changed(&EXTENTS, params![id.0]);
    contents::insert_runs(session, new, runs).await?;
    Ok(Split::Done)
}

/// Whether what refers to a content is itself part of something, so that there is no room for one level more.
pub async fn is_deep(session: &mut Session, id: ContentId) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM extents e JOIN extents above ON above.child_id = e.content_id WHERE e.child_id = $1 LIMIT 1",
            params![id.0],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// Makes room for one level more below those that refer to a content; `false` when there is none.
async fn deepen_those_over(session: &mut Session, id: ContentId) -> Result<bool, Fault> {
    let over = session
        .query(
            "SELECT DISTINCT content_id FROM extents WHERE child_id = $1 ORDER BY content_id",
            params![id.0],
            |row| row.int(0).map(ContentId),
        )
        .await?;
    for composite in &over {
        // Against whoever is about to refer to it by what its depth was.
        contents::lock_alone(session, *composite).await?;
    }
    if is_deep(session, id).await? {
        return Ok(false);
    }
    for composite in over {
        session.changed(&CONTENTS, params![composite.0]);
        session
            .execute(
                "UPDATE contents SET depth = $1 WHERE id = $2",
                params![DEPTH_MAX as i64, composite.0],
            )
            .await?;
    }
    Ok(true)
}
