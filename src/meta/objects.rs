//! Rows of keys: the current version of each, noncurrent versions, and the parts of completed uploads.

use super::codec;
use super::contents::{self, Location};
use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::digest::{ETag, ObjectChecksum};
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, ContentId, SenderId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::{Tags, Version};

/// A key's current version under its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Its stable number.
    pub uid: Uid,
    /// Its place in the order of the key's versions.
    pub ord: i64,
    /// The content it refers to.
    pub content: ContentId,
    /// What S3 answers as ETag.
    pub etag: ETag,
    /// When it was written.
    pub modified: Millis,
    /// Bytes.
    pub size: u64,
}

fn etag(row: &Row<'_>, digest: usize, parts: usize) -> Result<ETag, Fault> {
    Ok(ETag {
        md5: row.array(digest)?,
        parts: row.opt_int(parts)?.map(|parts| parts as u32),
    })
}

/// Locks a key's row and reads its current version. A key without a row locks nothing: the plain insert
/// that follows is then the arbiter.
pub async fn lock(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<Locked>, Fault> {
    session
        .query_one(
            "SELECT uid, ord, content_id, etag, parts, mtime, size FROM objects
             WHERE bucket_id = $1 AND key = $2 AND kind = 'object'",
            params![bucket.0, key.as_bytes()],
            |row| {
                Ok(Locked {
                    uid: Uid(row.int(0)?),
                    ord: row.int(1)?,
                    content: ContentId(row.int(2)?),
                    etag: etag(row, 3, 4)?,
                    modified: row.int(5)?,
                    size: row.size(6)?,
                })
            },
        )
        .await
}

/// Writes the current version of a key: over `replaced`, which must come from [`lock`], or as a new row.
/// Two writers that both found no row meet at the unique key, and the loser's transaction runs again.
pub async fn write(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    version: &Version,
    sender: Option<SenderId>,
    replaced: Option<&Locked>,
) -> Result<(), Fault> {
    let headers = codec::headers_to_column(&version.headers)?;
    let tags = codec::tags_to_column(&version.tags)?;
    let checksum = version.checksum.as_ref().map(codec::checksum_to_column);
    let sql = if replaced.is_some() {
        "UPDATE objects SET uid = $1, ord = $2, kind = 'object', is_null = 1, content_id = $3, sender = $4,
                size = $5, etag = $6, parts = $7, mtime = $8, headers = $9, tags = $10, checksum = $11,
                acl = NULL, sse = NULL, lock_mode = NULL, retain_until = NULL, legal_hold = NULL
         WHERE bucket_id = $12 AND key = $13"
    } else {
        "INSERT INTO objects (uid, ord, kind, is_null, content_id, sender, size, etag, parts, mtime, headers,
                tags, checksum, bucket_id, key)
         VALUES ($1, $2, 'object', 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
    };
    session
        .execute(
            sql,
            params![
                version.uid.0,
                replaced.map_or(1, |old| old.ord + 1),
                version.content.0,
                sender.map(|sender| sender.0),
                version.size as i64,
                &version.etag.md5,
                version.etag.parts.map(i64::from),
                version.modified,
                headers.as_deref(),
                tags.as_deref(),
                checksum.as_deref(),
                bucket.0,
                key.as_bytes(),
            ],
        )
        .await
}

/// Replaces the tags of a key's current version.
pub async fn set_tags(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    tags: &Tags,
) -> Result<(), Fault> {
    let tags = codec::tags_to_column(tags)?;
    session
        .execute(
            "UPDATE objects SET tags = $1 WHERE bucket_id = $2 AND key = $3",
            params![tags.as_deref(), bucket.0, key.as_bytes()],
        )
        .await
}

/// Deletes a key's row and the parts of its version.
pub async fn delete(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    uid: Uid,
) -> Result<(), Fault> {
    session
        .execute(
            "DELETE FROM objects WHERE bucket_id = $1 AND key = $2",
            params![bucket.0, key.as_bytes()],
        )
        .await?;
    delete_parts(session, uid).await
}

/// Whether a bucket has any key.
pub async fn any(session: &mut Session, bucket: BucketId) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM objects WHERE bucket_id = $1 LIMIT 1",
            params![bucket.0],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

macro_rules! version_columns {
    () => {
        "SELECT o.uid, o.content_id, o.size, o.etag, o.parts, o.mtime, o.headers, o.tags, o.checksum"
    };
}

fn version(row: &Row<'_>) -> Result<Version, Fault> {
    Ok(Version {
        uid: Uid(row.int(0)?),
        content: ContentId(row.int(1)?),
        size: row.size(2)?,
        etag: etag(row, 3, 4)?,
        modified: row.int(5)?,
        headers: codec::headers_from_column(row.opt_str(6)?)?,
        tags: codec::tags_from_column(row.opt_str(7)?)?,
        checksum: codec::checksum_from_column(row.opt_str(8)?)?,
    })
}

/// A key's current version.
pub async fn find_version(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<Version>, Fault> {
    session
        .query_one(
            concat!(
                version_columns!(),
                " FROM objects o WHERE o.bucket_id = $1 AND o.key = $2 AND o.kind = 'object'"
            ),
            params![bucket.0, key.as_bytes()],
            version,
        )
        .await
}

/// A key's current version and where its bytes lie, inline ones included, in one query.
pub async fn find(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<(Version, Location)>, Fault> {
    let rows = session
        .query(
            concat!(
                version_columns!(),
                ", c.kind, c.blob_offset, p.backend_id, p.name, c.bytes
                 FROM objects o JOIN contents c ON c.id = o.content_id
                 LEFT JOIN copies p ON p.blob_id = c.blob_id AND p.state = 'live'
                 WHERE o.bucket_id = $1 AND o.key = $2 AND o.kind = 'object'"
            ),
            params![bucket.0, key.as_bytes()],
            |row| Ok((version(row)?, contents::location(row, 9, 13)?)),
        )
        .await?;
    Ok(rows.into_iter().reduce(|mut first, next| {
        contents::merge_copies(&mut first.1, next.1);
        first
    }))
}

/// One key of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// The key.
    pub key: ObjectKey,
    /// Bytes.
    pub size: u64,
    /// What S3 answers as ETag.
    pub etag: ETag,
    /// When it was written.
    pub modified: Millis,
    /// Its checksum.
    pub checksum: Option<ObjectChecksum>,
}

/// Where a scan begins.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// At this name or the next one after it.
    At(&'a [u8]),
    /// After this name.
    After(&'a [u8]),
}

/// Keys in byte order from `from` on and below `end` (`None`: to the last), at most `limit`.
pub async fn scan(
    session: &mut Session,
    bucket: BucketId,
    from: From<'_>,
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<ListedKey>, Fault> {
    let (sql, start) = match (from, end) {
        (From::At(start), Some(_)) => (
            "SELECT key, size, etag, parts, mtime, checksum FROM objects
             WHERE bucket_id = $1 AND key >= $2 AND key < $3 AND kind = 'object' ORDER BY key LIMIT $4",
            start,
        ),
        (From::After(start), Some(_)) => (
            "SELECT key, size, etag, parts, mtime, checksum FROM objects
             WHERE bucket_id = $1 AND key > $2 AND key < $3 AND kind = 'object' ORDER BY key LIMIT $4",
            start,
        ),
        (From::At(start), None) => (
            "SELECT key, size, etag, parts, mtime, checksum FROM objects
             WHERE bucket_id = $1 AND key >= $2 AND $3 IS NULL AND kind = 'object' ORDER BY key LIMIT $4",
            start,
        ),
        (From::After(start), None) => (
            "SELECT key, size, etag, parts, mtime, checksum FROM objects
             WHERE bucket_id = $1 AND key > $2 AND $3 IS NULL AND kind = 'object' ORDER BY key LIMIT $4",
            start,
        ),
    };
    session
        .query(sql, params![bucket.0, start, end, limit as i64], |row| {
            Ok(ListedKey {
                key: super::session::key(row, 0)?,
                size: row.size(1)?,
                etag: etag(row, 2, 3)?,
                modified: row.int(4)?,
                checksum: codec::checksum_from_column(row.opt_str(5)?)?,
            })
        })
        .await
}

/// A part of a completed version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionPart {
    /// As the client numbered it.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// Its checksum.
    pub checksum: Option<ObjectChecksum>,
}

/// Records the parts of a version.
pub async fn insert_parts(
    session: &mut Session,
    uid: Uid,
    parts: &[VersionPart],
) -> Result<(), Fault> {
    for part in parts {
        let checksum = part.checksum.as_ref().map(codec::checksum_to_column);
        session
            .execute(
                "INSERT INTO version_parts (uid, number, size, checksum) VALUES ($1, $2, $3, $4)",
                params![
                    uid.0,
                    i64::from(part.number),
                    part.size as i64,
                    checksum.as_deref()
                ],
            )
            .await?;
    }
    Ok(())
}

/// Forgets the parts of a version.
pub async fn delete_parts(session: &mut Session, uid: Uid) -> Result<(), Fault> {
    session
        .execute("DELETE FROM version_parts WHERE uid = $1", params![uid.0])
        .await
}

/// Parts of a version with a number above `after`, in order, at most `limit`.
pub async fn parts(
    session: &mut Session,
    uid: Uid,
    after: u32,
    limit: usize,
) -> Result<Vec<VersionPart>, Fault> {
    session
        .query(
            "SELECT number, size, checksum FROM version_parts WHERE uid = $1 AND number > $2
             ORDER BY number LIMIT $3",
            params![uid.0, i64::from(after), limit as i64],
            |row| {
                Ok(VersionPart {
                    number: row.int(0)? as u32,
                    size: row.size(1)?,
                    checksum: codec::checksum_from_column(row.opt_str(2)?)?,
                })
            },
        )
        .await
}

/// Copies the parts of one version to another that has the same content.
pub async fn copy_parts(session: &mut Session, from: Uid, to: Uid) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO version_parts (uid, number, size, checksum)
             SELECT $1, number, size, checksum FROM version_parts WHERE uid = $2",
            params![to.0, from.0],
        )
        .await
}

/// Adds to what a bucket holds, as counted by `worker`.
pub async fn add_usage(
    session: &mut Session,
    bucket: BucketId,
    worker: u16,
    objects: i64,
    bytes: i64,
) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO usage (bucket_id, worker_id, objects, bytes) VALUES ($1, $2, $3, $4)
             ON CONFLICT (bucket_id, worker_id) DO UPDATE
             SET objects = usage.objects + excluded.objects, bytes = usage.bytes + excluded.bytes",
            params![bucket.0, i64::from(worker), objects, bytes],
        )
        .await
}
