//! Ordered scans of keys and versions, for listings.

use super::codec;
use super::objects::etag;
use super::session::{Row, Session, key, params};
use crate::model::acl::{Acl, Owner};
use crate::model::clock::Millis;
use crate::model::digest::{ETag, ObjectChecksum};
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::VersionId;

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
    /// Its owner, where that is not the bucket's.
    pub owner: Option<Owner>,
}

/// Where a scan begins.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// At this name or the next one after it.
    At(&'a [u8]),
    /// After this name.
    After(&'a [u8]),
}

/// The statement of a scan over `objects` and the name it begins with: `$select` with `bucket_id = $1 AND` at its
/// end, and `$filter` beside the bounds.
macro_rules! scan_of {
    ($from:expr, $end:expr, $select:expr, $filter:literal) => {
        match ($from, $end) {
            (From::At(start), Some(_)) => (
                concat!(
                    $select,
                    "key >= $2 AND key < $3",
                    $filter,
                    " ORDER BY key LIMIT $4"
                ),
                start,
            ),
            (From::After(start), Some(_)) => (
                concat!(
                    $select,
                    "key > $2 AND key < $3",
                    $filter,
                    " ORDER BY key LIMIT $4"
                ),
                start,
            ),
            (From::At(start), None) => (
                concat!(
                    $select,
                    "key >= $2 AND $3 IS NULL",
                    $filter,
                    " ORDER BY key LIMIT $4"
                ),
                start,
            ),
            (From::After(start), None) => (
                concat!(
                    $select,
                    "key > $2 AND $3 IS NULL",
                    $filter,
                    " ORDER BY key LIMIT $4"
                ),
                start,
            ),
        }
    };
}

/// Keys in byte order from `from` on and below `end` (`None`: to the last), at most `limit`.
pub async fn scan(
    session: &mut Session,
    bucket: BucketId,
    from: From<'_>,
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<ListedKey>, Fault> {
    let (sql, start) = scan_of!(
        from,
        end,
        "SELECT key, size, etag, parts, mtime, checksum, acl FROM objects WHERE bucket_id = $1 AND ",
        " AND kind = 'object'"
    );
    session
        .query(sql, params![bucket.0, start, end, limit as i64], |row| {
            Ok(ListedKey {
                key: key(row, 0)?,
                size: row.size(1)?,
                etag: etag(row, 2, 3)?,
                modified: row.int(4)?,
                checksum: codec::checksum_from_column(row.opt_str(5)?)?,
                owner: codec::acl_from_column(row.opt_str(6)?)?.map(|acl| acl.owner),
            })
        })
        .await
}

/// One version of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// The key.
    pub key: ObjectKey,
    /// What clients name it by.
    pub id: VersionId,
    /// Whether it is the key's current one.
    pub is_latest: bool,
    /// When it was written.
    pub modified: Millis,
    /// Its owner, where that is not the bucket's.
    pub owner: Option<Owner>,
    /// What it holds; `None` for a delete marker.
    pub object: Option<ListedObject>,
}

/// What a listed version holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Bytes.
    pub size: u64,
    /// What S3 answers as ETag.
    pub etag: ETag,
    /// Its checksum.
    pub checksum: Option<ObjectChecksum>,
}

macro_rules! select_listed {
    ($table:literal, $rest:literal) => {
        concat!(
            "SELECT key, uid, is_null, kind, mtime, size, etag, parts, checksum, acl FROM ",
            $table,
            " WHERE bucket_id = $1 AND ",
            $rest
        )
    };
}

fn listed(row: &Row<'_>, is_latest: bool) -> Result<ListedVersion, Fault> {
    Ok(ListedVersion {
        key: key(row, 0)?,
        id: match row.int(2)? {
            0 => VersionId::Of(Uid(row.int(1)?)),
            _ => VersionId::Null,
        },
        is_latest,
        modified: row.int(4)?,
        owner: codec::acl_from_column(row.opt_str(9)?)?.map(|acl: Acl| acl.owner),
        object: match row.str(3)? {
            "object" => Some(ListedObject {
                size: row.size(5)?,
                etag: etag(row, 6, 7)?,
                checksum: codec::checksum_from_column(row.opt_str(8)?)?,
            }),
            _ => None,
        },
    })
}

/// Current versions and markers in byte order of keys, from `from` on and below `end`, at most `limit`.
pub async fn current(
    session: &mut Session,
    bucket: BucketId,
    from: From<'_>,
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<ListedVersion>, Fault> {
    let (sql, start) = scan_of!(from, end, select_listed!("objects", ""), "");
    session
        .query(sql, params![bucket.0, start, end, limit as i64], |row| {
            listed(row, true)
        })
        .await
}

/// Noncurrent versions of the keys from `first` to `last`, both included, by key and from the newest on, at most
/// `limit`.
pub async fn noncurrent(
    session: &mut Session,
    bucket: BucketId,
    first: &ObjectKey,
    last: &ObjectKey,
    limit: usize,
) -> Result<Vec<ListedVersion>, Fault> {
    session
        .query(
            select_listed!(
                "versions",
                "key >= $2 AND key <= $3 ORDER BY key, ord DESC LIMIT $4"
            ),
            params![bucket.0, first.as_bytes(), last.as_bytes(), limit as i64],
            |row| listed(row, false),
        )
        .await
}

/// The versions of a key that are older than `id`, from the newest on, at most `limit`. One that is gone is
/// placed by its number, which rises with time; a null version that is gone has no place: all are older.
pub async fn older_than(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    id: VersionId,
    limit: usize,
) -> Result<Vec<ListedVersion>, Fault> {
    let key = key.as_bytes();
    let found = match id {
        VersionId::Null => {
            session
                .query(
                    "SELECT ord FROM objects WHERE bucket_id = $1 AND key = $2 AND is_null = 1
                     UNION ALL
                     SELECT ord FROM versions WHERE bucket_id = $1 AND key = $2 AND is_null = 1",
                    params![bucket.0, key],
                    |row| row.int(0),
                )
                .await?
        }
        VersionId::Of(uid) => {
            session
                .query(
                    "SELECT ord FROM objects WHERE bucket_id = $1 AND key = $2 AND uid = $3
                     UNION ALL
                     SELECT ord FROM versions WHERE bucket_id = $1 AND key = $2 AND uid = $3",
                    params![bucket.0, key, uid.0],
                    |row| row.int(0),
                )
                .await?
        }
    };
    let (by_ord, by_uid) = match (found.first(), id) {
        (Some(ord), _) => (*ord, i64::MAX),
        (None, VersionId::Of(uid)) => (i64::MAX, uid.0),
        (None, VersionId::Null) => (i64::MAX, i64::MAX),
    };
    let mut older = session
        .query(
            select_listed!("objects", "key = $2 AND ord < $3 AND uid < $4"),
            params![bucket.0, key, by_ord, by_uid],
            |row| listed(row, true),
        )
        .await?;
    let noncurrent = session
        .query(
            select_listed!(
                "versions",
                "key = $2 AND ord < $3 AND uid < $4 ORDER BY ord DESC LIMIT $5"
            ),
            params![bucket.0, key, by_ord, by_uid, limit as i64],
            |row| listed(row, false),
        )
        .await?;
    older.extend(noncurrent);
    older.truncate(limit);
    Ok(older)
}
