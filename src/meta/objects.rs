//! Rows of keys: the current version of each in `objects`, whose row is the key's lock, and the noncurrent ones
//! in `versions`.

use super::catalog::{OBJECTS, VERSIONS};
use super::codec;
use super::contents::{self, Location};
use super::session::{Row, Session, key, params};
use crate::model::acl::Acl;
use crate::model::clock::Millis;
use crate::model::digest::ETag;
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, ContentId, SenderId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::{Entry, Lock, Marker, Retention, Tags, Version, VersionId};

/// A version under its key's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Its stable number.
    pub uid: Uid,
    /// Its place in the order of the key's versions.
    pub ord: i64,
    /// Whether it is the null version.
    pub is_null: bool,
    /// When it was written.
    pub modified: Millis,
    /// What it holds; `None` for a delete marker.
    pub object: Option<LockedObject>,
}

/// What a version under its key's lock holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedObject {
    /// The content it refers to.
    pub content: ContentId,
    /// What S3 answers as ETag.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// What keeps it.
    pub lock: Lock,
}

/// A key's row under its lock: its current version, and where its null version stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedKey {
    /// The current version.
    pub current: Locked,
    /// The place of the null version, if there is one: the current version's own, or a noncurrent one's.
    pub null_ord: Option<i64>,
}

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is its key's current one.
    Current,
    /// It is a noncurrent one, at this place in the order.
    Noncurrent(i64),
}

pub(super) fn etag(row: &Row<'_>, digest: usize, parts: usize) -> Result<ETag, Fault> {
    Ok(ETag {
        md5: row.array(digest)?,
        parts: row.opt_int(parts)?.map(|parts| parts as u32),
    })
}

fn lock_of(row: &Row<'_>, first: usize) -> Result<Lock, Fault> {
    Ok(Lock {
        retention: codec::retention_from_columns(row.opt_str(first)?, row.opt_int(first + 1)?)?,
        legal_hold: row.opt_int(first + 2)?.map(|hold| hold != 0),
    })
}

/// What [`locked`] reads, from `$table`.
macro_rules! select_locked {
    ($null_ord:literal, $table:literal, $rest:literal) => {
        concat!(
            "SELECT uid, ord, is_null, mtime, kind, content_id, etag, parts, size, lock_mode, retain_until,
                    legal_hold, ", $null_ord, " FROM ", $table, " WHERE bucket_id = $1 AND key = $2 ", $rest
        )
    };
}

fn locked(row: &Row<'_>) -> Result<Locked, Fault> {
    Ok(Locked {
        uid: Uid(row.int(0)?),
        ord: row.int(1)?,
        is_null: row.int(2)? != 0,
        modified: row.int(3)?,
        object: match row.str(4)? {
            "object" => Some(LockedObject {
                content: ContentId(row.int(5)?),
                etag: etag(row, 6, 7)?,
                size: row.size(8)?,
                lock: lock_of(row, 9)?,
            }),
            _ => None,
        },
    })
}

/// Locks a key's row and reads its current version. A key without a row locks nothing: the plain insert
/// that follows is then the arbiter.
pub async fn lock(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<LockedKey>, Fault> {
    session
        .query_one(
            select_locked!("null_ord", "objects", "/*FOR UPDATE*/"),
            params![bucket.0, key.as_bytes()],
            |row| {
                let current = locked(row)?;
                // A null version that was never anything but current has no place noted.
                let own = current.is_null.then_some(current.ord);
                Ok(LockedKey {
                    null_ord: own.or(row.opt_int(12)?),
                    current,
                })
            },
        )
        .await
}

/// A noncurrent version by its place; the key's row is locked.
pub async fn noncurrent(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    ord: i64,
) -> Result<Option<Locked>, Fault> {
    session
        .query_one(
            select_locked!("NULL", "versions", "AND ord = $3"),
            params![bucket.0, key.as_bytes(), ord],
            locked,
        )
        .await
}

/// A noncurrent version by its number; the key's row is locked.
pub async fn noncurrent_by_uid(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    uid: Uid,
) -> Result<Option<Locked>, Fault> {
    session
        .query_one(
            select_locked!("NULL", "versions", "AND uid = $3"),
            params![bucket.0, key.as_bytes(), uid.0],
            locked,
        )
        .await
}

/// A key's new current version and its place.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// The version or marker.
    pub entry: &'a Entry,
    /// The access key that has possession by it.
    pub sender: Option<SenderId>,
    /// Its place in the order.
    pub ord: i64,
    /// Where the null version stands from now on.
    pub null_ord: Option<i64>,
}

/// Writes the current version of a key: over its row, which must be locked, or as a new row. Two writers that
/// both found no row meet at the unique key, and the loser's transaction runs again.
pub async fn write(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    new: NewEntry<'_>,
    has_row: bool,
) -> Result<(), Fault> {
    session.changed(&OBJECTS, params![bucket.0, key.as_bytes()]);
    let sql = if has_row {
        "UPDATE objects SET uid = $1, ord = $2, kind = $3, is_null = $4, null_ord = $5, content_id = $6,
                sender = $7, size = $8, etag = $9, parts = $10, mtime = $11, headers = $12, tags = $13,
                checksum = $14, acl = $15, sse = $16, lock_mode = $17, retain_until = $18, legal_hold = $19
         WHERE bucket_id = $20 AND key = $21"
    } else {
        "INSERT INTO objects (uid, ord, kind, is_null, null_ord, content_id, sender, size, etag, parts, mtime,
                headers, tags, checksum, acl, sse, lock_mode, retain_until, legal_hold, bucket_id, key)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                 $21)"
    };
    match new.entry {
        Entry::Marker(marker) => {
            let (int, text) = (None::<i64>, None::<&str>);
            session
                .execute(
                    sql,
                    params![
                        marker.uid.0,
                        new.ord,
                        "marker",
                        marker.is_null,
                        new.null_ord,
                        int,
                        int,
                        0,
                        None::<&[u8]>,
                        int,
                        marker.modified,
                        text,
                        text,
                        text,
                        text,
                        text,
                        text,
                        int,
                        int,
                        bucket.0,
                        key.as_bytes(),
                    ],
                )
                .await
        }
        Entry::Object(version) => {
            let headers = codec::headers_to_column(&version.headers)?;
            let tags = codec::tags_to_column(&version.tags)?;
            let checksum = version.checksum.as_ref().map(codec::checksum_to_column);
            let acl = codec::acl_to_column(version.acl.as_ref())?;
            let encryption = codec::encryption_to_column(version.encryption.as_ref())?;
            let retention = version.lock.retention;
            session
                .execute(
                    sql,
                    params![
                        version.uid.0,
                        new.ord,
                        "object",
                        version.is_null,
                        new.null_ord,
                        version.content.0,
                        new.sender.map(|sender| sender.0),
                        version.size as i64,
                        &version.etag.md5,
                        version.etag.parts.map(i64::from),
                        version.modified,
                        headers.as_deref(),
                        tags.as_deref(),
                        checksum.as_deref(),
                        acl.as_deref(),
                        encryption.as_deref(),
                        retention.map(|retention| codec::mode_to_column(retention.mode)),
                        retention.map(|retention| retention.until),
                        version.lock.legal_hold,
                        bucket.0,
                        key.as_bytes(),
                    ],
                )
                .await
        }
    }
}

/// The columns that a version has in both tables.
macro_rules! kept_columns {
    () => {
        "bucket_id, key, uid, ord, kind, is_null, content_id, sender, size, etag, parts, mtime, headers, tags,
         acl, checksum, sse, lock_mode, retain_until, legal_hold"
    };
}

/// Copies a key's current version, which stands at `ord`, to the noncurrent ones, before another takes its place.
pub async fn push_down(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    ord: i64,
) -> Result<(), Fault> {
    session.changed(&VERSIONS, params![bucket.0, key.as_bytes(), ord]);
    session
        .execute(
            concat!(
                "INSERT INTO versions (",
                kept_columns!(),
                ") SELECT ",
                kept_columns!(),
                " FROM objects WHERE bucket_id = $1 AND key = $2"
            ),
            params![bucket.0, key.as_bytes()],
        )
        .await
}

/// Puts the newest noncurrent version of a key in the place of its current one, which is gone; without any, the
/// key's row goes too. Otherwise the row stays the same one: whoever waits for its lock must find it.
pub async fn pull_up(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    null_ord: Option<i64>,
) -> Result<(), Fault> {
    session.changed(&OBJECTS, params![bucket.0, key.as_bytes()]);
    let newest = session
        .query_one(
            "SELECT ord FROM versions WHERE bucket_id = $1 AND key = $2 ORDER BY ord DESC LIMIT 1",
            params![bucket.0, key.as_bytes()],
            |row| row.int(0),
        )
        .await?;
    let Some(ord) = newest else {
        return session
            .execute(
                "DELETE FROM objects WHERE bucket_id = $1 AND key = $2",
                params![bucket.0, key.as_bytes()],
            )
            .await;
    };
    session
        .execute(
            concat!(
                "INSERT INTO objects (null_ord, ",
                kept_columns!(),
                ") SELECT $1, ",
                kept_columns!(),
                " FROM versions WHERE bucket_id = $2 AND key = $3 AND ord = $4
                 ON CONFLICT (bucket_id, key) DO UPDATE
                 SET null_ord = excluded.null_ord, uid = excluded.uid, ord = excluded.ord, kind = excluded.kind,
                     is_null = excluded.is_null, content_id = excluded.content_id, sender = excluded.sender,
                     size = excluded.size, etag = excluded.etag, parts = excluded.parts, mtime = excluded.mtime,
                     headers = excluded.headers, tags = excluded.tags, acl = excluded.acl,
                     checksum = excluded.checksum, sse = excluded.sse, lock_mode = excluded.lock_mode,
                     retain_until = excluded.retain_until, legal_hold = excluded.legal_hold"
            ),
            params![null_ord, bucket.0, key.as_bytes(), ord],
        )
        .await?;
    delete_noncurrent(session, bucket, key, ord).await
}

/// Deletes a noncurrent version's row.
pub async fn delete_noncurrent(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    ord: i64,
) -> Result<(), Fault> {
    session.changed(&VERSIONS, params![bucket.0, key.as_bytes(), ord]);
    session
        .execute(
            "DELETE FROM versions WHERE bucket_id = $1 AND key = $2 AND ord = $3",
            params![bucket.0, key.as_bytes(), ord],
        )
        .await
}

/// Notes that a key has no null version any more.
pub async fn forget_null(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<(), Fault> {
    session.changed(&OBJECTS, params![bucket.0, key.as_bytes()]);
    session
        .execute(
            "UPDATE objects SET null_ord = NULL WHERE bucket_id = $1 AND key = $2",
            params![bucket.0, key.as_bytes()],
        )
        .await
}

/// What of a version can be replaced after it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Its tags.
    Tags(Tags),
    /// Its access control list.
    Acl(Option<Acl>),
    /// Its retention.
    Retention(Option<Retention>),
    /// Its legal hold.
    LegalHold(bool),
}

/// Replaces a part of a version; the key's row is locked.
pub async fn change(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    place: Place,
    change: &Change,
) -> Result<(), Fault> {
    match place {
        Place::Current => session.changed(&OBJECTS, params![bucket.0, key.as_bytes()]),
        Place::Noncurrent(ord) => {
            session.changed(&VERSIONS, params![bucket.0, key.as_bytes(), ord]);
        }
    }
    macro_rules! update {
        ($set:literal, $($value:expr),+; $current:literal, $noncurrent:literal) => {
            match place {
                Place::Current => {
                    session
                        .execute(
                            concat!("UPDATE objects SET ", $set, " WHERE ", $current),
                            params![$($value),+, bucket.0, key.as_bytes()],
                        )
                        .await
                }
                Place::Noncurrent(ord) => {
                    session
                        .execute(
                            concat!("UPDATE versions SET ", $set, " WHERE ", $noncurrent),
                            params![$($value),+, bucket.0, key.as_bytes(), ord],
                        )
                        .await
                }
            }
        };
        ($set:literal, $value:expr) => {
            update!($set, $value; "bucket_id = $2 AND key = $3", "bucket_id = $2 AND key = $3 AND ord = $4")
        };
        ($set:literal, $first:expr, $second:expr) => {
            update!($set, $first, $second;
                "bucket_id = $3 AND key = $4", "bucket_id = $3 AND key = $4 AND ord = $5")
        };
    }
    match change {
        Change::Tags(tags) => {
            let tags = codec::tags_to_column(tags)?;
            update!("tags = $1", tags.as_deref())
        }
        Change::Acl(acl) => {
            let acl = codec::acl_to_column(acl.as_ref())?;
            update!("acl = $1", acl.as_deref())
        }
        Change::Retention(retention) => update!(
            "lock_mode = $1, retain_until = $2",
            retention.map(|retention| codec::mode_to_column(retention.mode)),
            retention.map(|retention| retention.until)
        ),
        Change::LegalHold(hold) => update!("legal_hold = $1", *hold),
    }
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

/// What [`entry`] reads, from a table named `o`.
macro_rules! entry_columns {
    () => {
        "SELECT o.uid, o.content_id, o.size, o.etag, o.parts, o.mtime, o.headers, o.tags, o.checksum, o.is_null,
                o.acl, o.sse, o.lock_mode, o.retain_until, o.legal_hold, o.kind"
    };
}
/// How many columns those are.
const ENTRY_COLUMNS: usize = 16;

fn entry(row: &Row<'_>) -> Result<Entry, Fault> {
    let (uid, is_null, modified) = (Uid(row.int(0)?), row.int(9)? != 0, row.int(5)?);
    if row.str(15)? != "object" {
        return Ok(Entry::Marker(Marker {
            uid,
            is_null,
            modified,
        }));
    }
    Ok(Entry::Object(Box::new(Version {
        uid,
        is_null,
        content: ContentId(row.int(1)?),
        size: row.size(2)?,
        etag: etag(row, 3, 4)?,
        modified,
        headers: codec::headers_from_column(row.opt_str(6)?)?,
        tags: codec::tags_from_column(row.opt_str(7)?)?,
        checksum: codec::checksum_from_column(row.opt_str(8)?)?,
        acl: codec::acl_from_column(row.opt_str(10)?)?,
        encryption: codec::encryption_from_column(row.opt_str(11)?)?,
        lock: lock_of(row, 12)?,
    })))
}

/// Runs a lookup of one version: of the current one, or in both tables by its id.
macro_rules! find_entry {
    ($session:expr, $bucket:expr, $key:expr, $id:expr, $columns:expr, $joins:literal, $map:expr) => {{
        let (session, bucket, key) = ($session, $bucket, $key);
        macro_rules! sql {
            ($table:literal, $rest:literal) => {
                concat!(
                    $columns,
                    " FROM ",
                    $table,
                    " o ",
                    $joins,
                    " WHERE o.bucket_id = $1 AND o.key = $2",
                    $rest
                )
            };
        }
        match $id {
            None => {
                session
                    .query(sql!("objects", ""), params![bucket.0, key.as_bytes()], $map)
                    .await?
            }
            Some(VersionId::Null) => {
                let found = session
                    .query(
                        sql!("objects", " AND o.is_null = 1"),
                        params![bucket.0, key.as_bytes()],
                        $map,
                    )
                    .await?;
                match found.is_empty() {
                    false => found,
                    true => {
                        session
                            .query(
                                sql!("versions", " AND o.is_null = 1"),
                                params![bucket.0, key.as_bytes()],
                                $map,
                            )
                            .await?
                    }
                }
            }
            Some(VersionId::Of(uid)) => {
                let found = session
                    .query(
                        sql!("objects", " AND o.uid = $3 AND o.is_null = 0"),
                        params![bucket.0, key.as_bytes(), uid.0],
                        $map,
                    )
                    .await?;
                match found.is_empty() {
                    false => found,
                    true => {
                        session
                            .query(
                                sql!("versions", " AND o.uid = $3 AND o.is_null = 0"),
                                params![bucket.0, key.as_bytes(), uid.0],
                                $map,
                            )
                            .await?
                    }
                }
            }
        }
    }};
}

/// A version of a key: the current one for `None`.
pub async fn find_version(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    id: Option<VersionId>,
) -> Result<Option<Entry>, Fault> {
    let mut rows = find_entry!(session, bucket, key, id, entry_columns!(), "", entry);
    Ok(rows.pop())
}

/// A version of a key, the current one for `None`, and where its bytes lie, inline ones included, in one query.
pub async fn find(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    id: Option<VersionId>,
) -> Result<Option<(Entry, Option<Location>)>, Fault> {
    let rows = find_entry!(
        session,
        bucket,
        key,
        id,
        concat!(entry_columns!(), ", ", contents::location_columns!()),
        "LEFT JOIN contents c ON c.id = o.content_id
         LEFT JOIN copies p ON p.blob_id = c.blob_id AND p.state = 'live'",
        |row| {
            let found = entry(row)?;
            let location = match &found {
                Entry::Object(_) => Some(contents::location(row, ENTRY_COLUMNS)?),
                Entry::Marker(_) => None,
            };
            Ok((found, location))
        }
    );
    Ok(rows.into_iter().reduce(|mut first, next| {
        if let (Some(into), Some(from)) = (&mut first.1, next.1) {
            contents::merge_copies(into, from);
        }
        first
    }))
}

/// A version wherever it stands, found by its number.
#[derive(Debug, Clone)]
pub struct NumberedRow {
    /// In which bucket.
    pub bucket: BucketId,
    /// Under which key.
    pub key: ObjectKey,
    /// Whether it is its key's current one.
    pub is_current: bool,
    /// The version itself.
    pub version: Version,
    /// Where its bytes lie.
    pub location: Location,
}

/// The version of this number and where its bytes lie; a delete marker is none.
pub async fn find_by_uid(session: &mut Session, uid: Uid) -> Result<Option<NumberedRow>, Fault> {
    macro_rules! sql {
        ($table:literal) => {
            concat!(
                entry_columns!(),
                ", o.bucket_id, o.key, ",
                contents::location_columns!(),
                " FROM ",
                $table,
                " o JOIN contents c ON c.id = o.content_id
                 LEFT JOIN copies p ON p.blob_id = c.blob_id AND p.state = 'live'
                 WHERE o.uid = $1"
            )
        };
    }
    for (sql, is_current) in [(sql!("objects"), true), (sql!("versions"), false)] {
        let rows = session
            .query(sql, params![uid.0], |row| {
                let Entry::Object(version) = entry(row)? else {
                    return Ok(None);
                };
                Ok(Some(NumberedRow {
                    bucket: BucketId(row.int(ENTRY_COLUMNS)?),
                    key: key(row, ENTRY_COLUMNS + 1)?,
                    is_current,
                    version: *version,
                    location: contents::location(row, ENTRY_COLUMNS + 2)?,
                }))
            })
            .await?;
        let found = rows.into_iter().flatten().reduce(|mut first, next| {
            contents::merge_copies(&mut first.location, next.location);
            first
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Whether a version in one of these buckets, current or not, refers to a content, or to joined parts that were merged
/// with it.
pub async fn refer_to(
    session: &mut Session,
    content: ContentId,
    buckets: &[BucketId],
) -> Result<bool, Fault> {
    for bucket in buckets {
        let found = session
            .query_one(
                concat!(
                    "SELECT EXISTS (SELECT 1 FROM objects WHERE content_id = $1 AND bucket_id = $2)
                         OR EXISTS (SELECT 1 FROM versions WHERE content_id = $1 AND bucket_id = $2)
                         OR EXISTS (SELECT 1 FROM ",
                    contents::whole_extents!(),
                    " JOIN objects o ON o.content_id = w.id WHERE e.child_id = $1 AND o.bucket_id = $2)
                         OR EXISTS (SELECT 1 FROM ",
                    contents::whole_extents!(),
                    " JOIN versions v ON v.content_id = w.id WHERE e.child_id = $1 AND v.bucket_id = $2)"
                ),
                params![content.0, bucket.0],
                |row| row.int(0),
            )
            .await?;
        if found == Some(1) {
            return Ok(true);
        }
    }
    Ok(false)
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
