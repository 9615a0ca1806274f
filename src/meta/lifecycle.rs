//! What lifecycle rules look at: keys, versions that were replaced, and uploads, in pages.

use super::codec;
use super::session::{Row, Session, key, params};
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::{Tags, VersionId};

/// A version or delete marker as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub key: ObjectKey,
    /// Its stable number.
    pub uid: Uid,
    /// What clients name it by.
    pub id: VersionId,
    /// Whether it is a delete marker.
    pub is_marker: bool,
    /// When it was written.
    pub modified: Millis,
    /// Its bytes.
    pub size: u64,
    /// Its tags.
    pub tags: Tags,
}

fn candidate(row: &Row<'_>) -> Result<Candidate, Fault> {
    let uid = Uid(row.int(1)?);
    Ok(Candidate {
        key: key(row, 0)?,
        uid,
        id: match row.int(2)? {
            0 => VersionId::Of(uid),
            _ => VersionId::Null,
        },
        is_marker: row.str(3)? == "marker",
        modified: row.int(4)?,
        size: row.size(5)?,
        tags: codec::tags_from_column(row.opt_str(6)?)?,
    })
}

/// Current versions and markers in order of key, from `start` on and below `end`, at most `limit`; with each,
/// whether noncurrent ones are behind it.
pub async fn current(
    session: &mut Session,
    bucket: BucketId,
    start: &[u8],
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<(Candidate, bool)>, Fault> {
    session
        .query(
            "SELECT o.key, o.uid, o.is_null, o.kind, o.mtime, o.size, o.tags,
                    EXISTS (SELECT 1 FROM versions v WHERE v.bucket_id = o.bucket_id AND v.key = o.key)
             FROM objects o
             WHERE o.bucket_id = $1 AND o.key >= $2 AND ($3 IS NULL OR o.key < $3)
             ORDER BY o.key LIMIT $4",
            params![bucket.0, start, end, limit as i64],
            |row| Ok((candidate(row)?, row.int(7)? != 0)),
        )
        .await
}

/// A version that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The version.
    pub version: Candidate,
    /// Its place in the order of its key's versions.
    pub ord: i64,
    /// When its key's current version was written.
    pub current_modified: Millis,
}

/// Noncurrent versions in order of key and from the newest on, after the place `after` and below `end`, at most
/// `limit`.
pub async fn noncurrent(
    session: &mut Session,
    bucket: BucketId,
    after: (&[u8], i64),
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Replaced>, Fault> {
    session
        .query(
            "SELECT v.key, v.uid, v.is_null, v.kind, v.mtime, v.size, v.tags, v.ord, o.mtime
             FROM versions v JOIN objects o ON o.bucket_id = v.bucket_id AND o.key = v.key
             WHERE v.bucket_id = $1 AND v.key >= $2 AND (v.key > $2 OR v.ord < $3)
               AND ($4 IS NULL OR v.key < $4)
             ORDER BY v.key, v.ord DESC LIMIT $5",
            params![bucket.0, after.0, after.1, end, limit as i64],
            |row| {
                Ok(Replaced {
                    version: candidate(row)?,
                    ord: row.int(7)?,
                    current_modified: row.int(8)?,
                })
            },
        )
        .await
}
