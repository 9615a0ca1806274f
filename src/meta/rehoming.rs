//! What lies outside of the placement that its bucket is at, and how it gets there: references of a bucket to
//! contents of another placement's spaces, and the statements that repoint them.

use super::catalog::{CONTENTS, OBJECTS, SPACES, VERSIONS};
use super::codec::{self, digest_columns};
use super::session::{Row, Session, key, params};
use crate::model::content::Extent;
use crate::model::digest::{Digests, Fingerprint};
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, ContentId, SenderId, SpaceId, Uid};
use crate::model::names::ObjectKey;

/// One reference of a bucket to a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The current version of a key.
    Current(ObjectKey),
    /// A noncurrent one, by its place in the key's order.
    Noncurrent(ObjectKey, i64),
    /// A part of an upload.
    Part(Uid, u32),
}

/// A reference to what lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The reference.
    pub from: Reference,
    /// What it refers to.
    pub content: ContentId,
    /// Bytes of that.
    pub size: u64,
}

/// Current versions with keys above `after` whose contents are not at `placement`, in order of key, at most `limit`.
pub async fn current(
    session: &mut Session,
    bucket: BucketId,
    placement: i64,
    after: &[u8],
    limit: usize,
) -> Result<Vec<Elsewhere>, Fault> {
    session
        .query(
            "SELECT o.key, o.content_id, o.size FROM objects o
             JOIN contents c ON c.id = o.content_id JOIN spaces s ON s.id = c.space_id
             WHERE o.bucket_id = $1 AND o.key > $2 AND s.placement_id <> $3 ORDER BY o.key LIMIT $4",
            params![bucket.0, after, placement, limit as i64],
            |row| elsewhere(row, Reference::Current(key(row, 0)?), 1),
        )
        .await
}

/// Noncurrent versions after (`after`, `ord`) whose contents are not at `placement`, in order, at most `limit`.
pub async fn noncurrent(
    session: &mut Session,
    bucket: BucketId,
    placement: i64,
    (after, ord): (&[u8], i64),
    limit: usize,
) -> Result<Vec<Elsewhere>, Fault> {
    session
        .query(
            "SELECT v.key, v.ord, v.content_id, v.size FROM versions v
             JOIN contents c ON c.id = v.content_id JOIN spaces s ON s.id = c.space_id
             WHERE v.bucket_id = $1 AND (v.key > $2 OR (v.key = $2 AND v.ord > $3)) AND s.placement_id <> $4
             ORDER BY v.key, v.ord LIMIT $5",
            params![bucket.0, after, ord, placement, limit as i64],
            |row| elsewhere(row, Reference::Noncurrent(key(row, 0)?, row.int(1)?), 2),
        )
        .await
}

/// Parts of uploads after (`after`, `number`) whose contents are not at `placement`, in order, at most `limit`.
pub async fn parts(
    session: &mut Session,
    bucket: BucketId,
    placement: i64,
    (after, number): (Uid, u32),
    limit: usize,
) -> Result<Vec<Elsewhere>, Fault> {
    session
        .query(
            "SELECT p.upload_uid, p.number, p.content_id, p.size FROM uploads u
             JOIN upload_parts p ON p.upload_uid = u.uid
             JOIN contents c ON c.id = p.content_id JOIN spaces s ON s.id = c.space_id
             WHERE u.bucket_id = $1 AND (u.uid > $2 OR (u.uid = $2 AND p.number > $3)) AND s.placement_id <> $4
             ORDER BY p.upload_uid, p.number LIMIT $5",
            params![
                bucket.0,
                after.0,
                i64::from(number),
                placement,
                limit as i64
            ],
            |row| {
                let from = Reference::Part(Uid(row.int(0)?), row.int(1)? as u32);
                elsewhere(row, from, 2)
            },
        )
        .await
}

fn elsewhere(row: &Row<'_>, from: Reference, column: usize) -> Result<Elsewhere, Fault> {
    Ok(Elsewhere {
        from,
        content: ContentId(row.int(column)?),
        size: row.size(column + 1)?,
    })
}

/// The spaces that the parts of an upload lie in, with their placements.
pub async fn spaces_of_parts(
    session: &mut Session,
    upload: Uid,
) -> Result<Vec<(SpaceId, i64)>, Fault> {
    session
        .query(
            "SELECT DISTINCT s.id, s.placement_id FROM upload_parts p
             JOIN contents c ON c.id = p.content_id JOIN spaces s ON s.id = c.space_id
             WHERE p.upload_uid = $1 ORDER BY s.id",
            params![upload.0],
            |row| Ok((SpaceId(row.int(0)?), row.int(1)?)),
        )
        .await
}

/// How many versions and parts of a bucket there are, and their bytes. A scan.
pub async fn count(session: &mut Session, bucket: BucketId) -> Result<(u64, u64), Fault> {
    let mut sum = (0, 0);
    for sql in [
        "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS INTEGER) FROM objects
         WHERE bucket_id = $1 AND content_id IS NOT NULL",
        "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS INTEGER) FROM versions
         WHERE bucket_id = $1 AND content_id IS NOT NULL",
        "SELECT COUNT(*), CAST(COALESCE(SUM(p.size), 0) AS INTEGER)
         FROM uploads u JOIN upload_parts p ON p.upload_uid = u.uid WHERE u.bucket_id = $1",
    ] {
        let found = session
            .query_one(sql, params![bucket.0], |row| {
                Ok((row.size(0)?, row.size(1)?))
            })
            .await?;
        let (count, bytes) = found.unwrap_or_default();
        sum = (sum.0 + count, sum.1 + bytes);
    }
    Ok(sum)
}

/// How many versions and parts of a bucket have contents that are not at `placement`, all looked at in the same moment:
/// what becomes another kind of version meanwhile is counted once. A scan.
pub async fn count_elsewhere(
    session: &mut Session,
    bucket: BucketId,
    placement: i64,
) -> Result<u64, Fault> {
    let found = session
        .query_one(
            "SELECT COUNT(*) FROM (
                 SELECT content_id FROM objects WHERE bucket_id = $1
                 UNION ALL SELECT content_id FROM versions WHERE bucket_id = $1
                 UNION ALL SELECT p.content_id FROM uploads u JOIN upload_parts p ON p.upload_uid = u.uid
                           WHERE u.bucket_id = $1
             ) r JOIN contents c ON c.id = r.content_id JOIN spaces s ON s.id = c.space_id
             WHERE s.placement_id <> $2",
            params![bucket.0, placement],
            |row| row.size(0),
        )
        .await?;
    Ok(found.unwrap_or(0))
}

/// Lets a reference that still refers to `old` refer to `new` instead; `false` when it does not any more. The caller
/// holds the lock of the key or the upload.
pub async fn repoint(
    session: &mut Session,
    bucket: BucketId,
    from: &Reference,
    old: ContentId,
    new: ContentId,
) -> Result<bool, Fault> {
    let (find, update) = match from {
        Reference::Current(_) => (
            "SELECT 1 FROM objects WHERE bucket_id = $1 AND key = $2 AND content_id = $3",
            "UPDATE objects SET content_id = $1 WHERE bucket_id = $2 AND key = $3 AND content_id = $4",
        ),
        Reference::Noncurrent(..) => (
            "SELECT 1 FROM versions WHERE bucket_id = $1 AND key = $2 AND ord = $3 AND content_id = $4",
            "UPDATE versions SET content_id = $1 WHERE bucket_id = $2 AND key = $3 AND ord = $4 AND content_id = $5",
        ),
        Reference::Part(..) => (
            "SELECT 1 FROM upload_parts WHERE upload_uid = $1 AND number = $2 AND content_id = $3",
            "UPDATE upload_parts SET content_id = $1 WHERE upload_uid = $2 AND number = $3 AND content_id = $4",
        ),
    };
    macro_rules! both {
        ($($value:expr),+) => {{
            let found = session.query_one(find, params![$($value,)+ old.0], |row| row.int(0)).await?;
            if found.is_none() {
                return Ok(false);
            }
            session.execute(update, params![new.0, $($value,)+ old.0]).await?;
        }};
    }
    match from {
        Reference::Current(key) => {
            session.changed(&OBJECTS, params![bucket.0, key.as_bytes()]);
            both!(bucket.0, key.as_bytes());
        }
        Reference::Noncurrent(key, ord) => {
            session.changed(&VERSIONS, params![bucket.0, key.as_bytes(), *ord]);
            both!(bucket.0, key.as_bytes(), *ord);
        }
        Reference::Part(upload, number) => both!(upload.0, i64::from(*number)),
    }
    Ok(true)
}

/// What tells one content from another, beside where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where it may be shared.
    pub space: SpaceId,
    /// Its digests; `None` for a composite. The SHA-256 means nothing unless it is shared.
    pub digests: Option<Digests>,
    /// Whether it is found by its digest.
    pub shared: bool,
    /// What its bytes must have; a piece of a longer body has that without digests.
    pub fingerprint: Option<Fingerprint>,
}

/// What a content is known by; `None` when it is gone.
pub async fn identity(session: &mut Session, id: ContentId) -> Result<Option<Identity>, Fault> {
    session
        .query_one(
            concat!(
                "SELECT space_id, ",
                digest_columns!(),
                " FROM contents WHERE id = $1"
            ),
            params![id.0],
            |row| {
                Ok(Identity {
                    space: SpaceId(row.int(0)?),
                    digests: codec::digests(row, 1)?,
                    shared: row.opt_bytes(1)?.is_some(),
                    fingerprint: codec::fingerprint(row, 1)?,
                })
            },
        )
        .await
}

/// All extents of a composite in order, with who sent each.
pub async fn extents(
    session: &mut Session,
    id: ContentId,
) -> Result<Vec<(Extent, Option<SenderId>)>, Fault> {
    session
        .query(
            "SELECT start, length, child_id, child_offset, sender FROM extents
             WHERE content_id = $1 ORDER BY ordinal LIMIT 100000",
            params![id.0],
            |row| {
                let extent = Extent {
                    start: row.size(0)?,
                    length: row.size(1)?,
                    child: ContentId(row.int(2)?),
                    child_offset: row.size(3)?,
                };
                Ok((extent, row.opt_int(4)?.map(SenderId)))
            },
        )
        .await
}

/// The space with the protection of `like` at the placement of `beside`, made with `new_id` when there is none yet.
pub async fn space_like(
    session: &mut Session,
    new_id: SpaceId,
    beside: SpaceId,
    like: SpaceId,
) -> Result<Option<SpaceId>, Fault> {
    let find = "SELECT t.id FROM spaces b JOIN spaces l ON l.id = $1
                JOIN spaces t ON t.realm_id = b.realm_id AND t.placement_id = b.placement_id
                             AND t.encrypted = l.encrypted
                WHERE b.id = $2";
    let ids = params![like.0, beside.0];
    if let Some(found) = session.query_one(find, ids, |row| row.int(0)).await? {
        return Ok(Some(SpaceId(found)));
    }
    session.changed(&SPACES, params![new_id.0]);
    session
        .execute(
            "INSERT INTO spaces (id, realm_id, placement_id, encrypted)
             SELECT $1, b.realm_id, b.placement_id, l.encrypted FROM spaces b JOIN spaces l ON l.id = $2
             WHERE b.id = $3",
            params![new_id.0, like.0, beside.0],
        )
        .await?;
    let made = session.query_one(find, ids, |row| row.int(0)).await?;
    Ok(made.map(SpaceId))
}

/// Gives a content that nobody shares another space; the caller holds its lock.
pub async fn set_space(session: &mut Session, id: ContentId, space: SpaceId) -> Result<(), Fault> {
    session.changed(&CONTENTS, params![id.0]);
    session
        .execute(
            "UPDATE contents SET space_id = $1 WHERE id = $2",
            params![space.0, id.0],
        )
        .await
}

/// The blob of a content, if it has one.
pub async fn blob_of(
    session: &mut Session,
    id: ContentId,
) -> Result<Option<crate::model::ids::BlobId>, Fault> {
    let found = session
        .query_one(
            "SELECT blob_id FROM contents WHERE id = $1",
            params![id.0],
            |row| row.opt_int(0),
        )
        .await?;
    Ok(found.flatten().map(crate::model::ids::BlobId))
}
