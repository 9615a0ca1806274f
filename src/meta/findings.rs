//! Rows of copies that were found not to be as they should, and what the other rows promise of a blob's bytes.

use super::codec;
use super::contents::Sealing;
use super::copies::{self, AnyCopy, CopyState};
use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::digest::Fingerprint;
use crate::model::fault::{Fault, Kind};
use crate::model::finding::{Listed, LostObject, Problem};
use crate::model::ids::{BlobId, ContentId, KeyVersionId, Uid};

/// Versions of one finding that are named; their number is told in full.
const VERSIONS_MAX: usize = 100;

/// What was found of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The backend's row.
    pub backend: i64,
    /// The copy's name then: of a copy by another name it says nothing.
    pub name: String,
    /// What.
    pub problem: Problem,
    /// When it was found first.
    pub at: Millis,
}

/// A content in a blob, and what its bytes there must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// The content.
    pub id: ContentId,
    /// Its first byte in the blob.
    pub offset: u64,
    /// Bytes of the content.
    pub length: u64,
    /// Bytes in the blob.
    pub stored_length: u64,
    /// How they are encrypted.
    pub sealing: Option<Sealing>,
    /// What its bytes must have; none for a piece of a content that was stored before pieces had a checksum.
    pub fingerprint: Option<Fingerprint>,
}

/// What the rows say of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// Bytes of each copy.
    pub size: u64,
    /// Its live copies.
    pub copies: Vec<AnyCopy>,
    /// What lies in it, by offset.
    pub contents: Vec<Promised>,
    /// What was found of its copies before.
    pub found: Vec<Found>,
}

/// What the rows say of a blob; `None` when it is condemned or gone.
pub async fn promise(session: &mut Session, blob: BlobId) -> Result<Option<Promise>, Fault> {
    let size = session
        .query_one(
            "SELECT size FROM blobs WHERE id = $1 AND state = 'live'",
            params![blob.0],
            |row| row.size(0),
        )
        .await?;
    let Some(size) = size else {
        return Ok(None);
    };
    let mut copies = copies::of_blob(session, blob).await?;
    copies.retain(|copy| copy.state == CopyState::Live);
    let contents = session
        .query(
            "SELECT id, blob_offset, length, COALESCE(stored_length, length), coding, key_wrapped, key_id, sha256, md5,
                    crc64nvme
             FROM contents WHERE blob_id = $1 ORDER BY blob_offset, id",
            params![blob.0],
            promised,
        )
        .await?;
    Ok(Some(Promise {
        size,
        copies,
        contents,
        found: of_blob(session, blob).await?,
    }))
}

fn promised(row: &Row<'_>) -> Result<Promised, Fault> {
    let sealing = match codec::coding_from_column(row.opt_str(4)?)? {
        Some(frame_bytes) => Some(Sealing {
            frame_bytes,
            key_wrapped: row.bytes(5)?.to_vec(),
            key: row.opt_int(6)?.map(KeyVersionId),
        }),
        None => None,
    };
    Ok(Promised {
        id: ContentId(row.int(0)?),
        offset: row.size(1)?,
        length: row.size(2)?,
        stored_length: row.size(3)?,
        sealing,
        fingerprint: codec::fingerprint(row, 7)?,
    })
}

/// What was found of the copies of a blob.
pub async fn of_blob(session: &mut Session, blob: BlobId) -> Result<Vec<Found>, Fault> {
    let corrupt = || Fault::new(Kind::Corrupt, "decode row").context("finding");
    session
        .query(
            "SELECT backend_id, name, problem, found FROM findings WHERE blob_id = $1",
            params![blob.0],
            |row| {
                Ok(Found {
                    backend: row.int(0)?,
                    name: String::from_utf8(row.bytes(1)?.to_vec())
                        .map_err(|error| corrupt().source(error))?,
                    problem: Problem::of_copy(row.str(2)?).ok_or_else(corrupt)?,
                    at: row.int(3)?,
                })
            },
        )
        .await
}

/// The blobs that the bytes of content `$1` lie in: its own, and those of what it is made of, at most two levels below.
macro_rules! blobs_of {
    () => {
        "SELECT c.blob_id FROM contents c WHERE c.id = $1 AND c.blob_id IS NOT NULL
         UNION
         SELECT c.blob_id FROM extents e JOIN contents c ON c.id = e.child_id
         WHERE e.content_id = $1 AND c.blob_id IS NOT NULL
         UNION
         SELECT c.blob_id FROM extents e JOIN extents f ON f.content_id = e.child_id
         JOIN contents c ON c.id = f.child_id WHERE e.content_id = $1 AND c.blob_id IS NOT NULL"
    };
}

/// The blobs that a content's bytes lie in.
pub async fn blobs_of(session: &mut Session, content: ContentId) -> Result<Vec<BlobId>, Fault> {
    session
        .query(blobs_of!(), params![content.0], |row| {
            row.int(0).map(BlobId)
        })
        .await
}

/// 1 where a finding may be about the bytes of content `c`, which [`is_lost`] tells: 0 where nothing was found of its blob,
/// and for one that lies in several, where nothing was found of any.
macro_rules! suspect {
    () => {
        "CASE WHEN EXISTS (SELECT 1 FROM findings f WHERE f.blob_id = c.blob_id)
                OR (c.kind = 'composite' AND EXISTS (SELECT 1 FROM findings)) THEN 1 ELSE 0 END"
    };
}
pub(super) use suspect;

/// Whether bytes of a content are lost, as far as is known: a blob that they lie in has findings, and no live copy of
/// which nothing was found.
pub async fn is_lost(session: &mut Session, content: ContentId) -> Result<bool, Fault> {
    let found = session
        .query_one(
            concat!(
                "SELECT 1 FROM (",
                blobs_of!(),
                ") b JOIN findings f ON f.blob_id = b.blob_id
                 WHERE NOT EXISTS
                     (SELECT 1 FROM copies p WHERE p.blob_id = b.blob_id AND p.state = 'live' AND NOT EXISTS
                         (SELECT 1 FROM findings g WHERE g.blob_id = p.blob_id AND g.backend_id = p.backend_id
                          AND g.name = p.name))
                 LIMIT 1"
            ),
            params![content.0],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// Records what was found of a live copy, under its blob's lock. What was found of the same copy before keeps its time.
pub async fn record(session: &mut Session, blob: BlobId, found: &Found) -> Result<(), Fault> {
    let before = of_blob(session, blob).await?;
    let before = before
        .iter()
        .find(|it| it.backend == found.backend && it.name == found.name);
    session
        .execute(
            "INSERT INTO findings (blob_id, backend_id, name, problem, found) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (blob_id, backend_id) DO UPDATE
             SET name = excluded.name, problem = excluded.problem, found = excluded.found",
            params![
                blob.0,
                found.backend,
                found.name.as_bytes(),
                found.problem.as_str(),
                before.map_or(found.at, |before| before.at)
            ],
        )
        .await
}

/// Forgets what was found of a copy.
pub async fn clear(session: &mut Session, blob: BlobId, backend: i64) -> Result<(), Fault> {
    session
        .execute(
            "DELETE FROM findings WHERE blob_id = $1 AND backend_id = $2",
            params![blob.0, backend],
        )
        .await
}

/// Forgets what was found of the copies of a blob.
pub(super) async fn clear_all(session: &mut Session, blob: BlobId) -> Result<(), Fault> {
    session
        .execute("DELETE FROM findings WHERE blob_id = $1", params![blob.0])
        .await
}

/// Forgets what was found of copies that are not live any more.
pub async fn purge(session: &mut Session) -> Result<(), Fault> {
    session
        .execute(
            "DELETE FROM findings WHERE NOT EXISTS
                 (SELECT 1 FROM copies p WHERE p.blob_id = findings.blob_id AND p.backend_id = findings.backend_id
                  AND p.name = findings.name AND p.state = 'live')",
            &[],
        )
        .await
}

/// How many copies were found not to be as they should. A copy of a blob that is gone may be among them.
pub async fn count(session: &mut Session) -> Result<u64, Fault> {
    let found = session
        .query_one("SELECT COUNT(*) FROM findings", &[], |row| row.size(0))
        .await?;
    Ok(found.unwrap_or(0))
}

/// How many blobs are live. A scan.
pub async fn count_blobs(session: &mut Session) -> Result<u64, Fault> {
    let found = session
        .query_one(
            "SELECT COUNT(*) FROM blobs WHERE state = 'live'",
            &[],
            |row| row.size(0),
        )
        .await?;
    Ok(found.unwrap_or(0))
}

/// Whether blobs still go to a backend: nobody has moved away from it.
pub async fn is_in_use(session: &mut Session, backend: i64) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM backends WHERE id = $1 AND moved_to IS NULL",
            params![backend],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// The table of one kind of versions, and whether those are current.
const VERSIONS: [(&str, bool); 2] = [("objects", true), ("versions", false)];

/// Versions whose bytes, wholly or in part, are those of any of `contents`: by itself, or as a piece of a composite,
/// at most two levels below it.
pub async fn versions_of(
    session: &mut Session,
    contents: &[ContentId],
) -> Result<Listed<LostObject>, Fault> {
    let mut listed = Listed::default();
    for content in contents {
        for (table, is_current) in VERSIONS {
            let sql = format!(
                "SELECT b.name, o.key, o.uid, o.is_null FROM {table} o JOIN buckets b ON b.id = o.bucket_id
                 WHERE o.content_id = $1
                 UNION
                 SELECT b.name, o.key, o.uid, o.is_null FROM extents e JOIN {table} o ON o.content_id = e.content_id
                 JOIN buckets b ON b.id = o.bucket_id WHERE e.child_id = $1
                 UNION
                 SELECT b.name, o.key, o.uid, o.is_null FROM extents e JOIN extents f ON f.child_id = e.content_id
                 JOIN {table} o ON o.content_id = f.content_id
                 JOIN buckets b ON b.id = o.bucket_id WHERE e.child_id = $1
                 ORDER BY 3 LIMIT $2"
            );
            let first = session
                .query_made(&sql, params![content.0, VERSIONS_MAX as i64], |row| {
                    lost(row, is_current)
                })
                .await?;
            let count = match first.len() {
                VERSIONS_MAX => count_versions(session, *content, table).await?,
                fewer => fewer as u64,
            };
            let room = VERSIONS_MAX.saturating_sub(listed.first.len());
            listed.count += count;
            listed.first.extend(first.into_iter().take(room));
        }
    }
    Ok(listed)
}

async fn count_versions(
    session: &mut Session,
    content: ContentId,
    table: &'static str,
) -> Result<u64, Fault> {
    let sql = format!(
        "SELECT COUNT(*) FROM
             (SELECT o.uid FROM {table} o WHERE o.content_id = $1
              UNION
              SELECT o.uid FROM extents e JOIN {table} o ON o.content_id = e.content_id WHERE e.child_id = $1
              UNION
              SELECT o.uid FROM extents e JOIN extents f ON f.child_id = e.content_id
              JOIN {table} o ON o.content_id = f.content_id WHERE e.child_id = $1) named"
    );
    let found = session
        .query_made(&sql, params![content.0], |row| row.size(0))
        .await?;
    Ok(found.first().copied().unwrap_or(0))
}

/// A version from its bucket's name, its key, its number, and whether it is the null version.
pub(super) fn lost(row: &Row<'_>, is_current: bool) -> Result<LostObject, Fault> {
    let key = String::from_utf8_lossy(row.bytes(1)?).into_owned();
    let uid = Uid(row.int(2)?);
    Ok(LostObject {
        is_current,
        ..LostObject::version(row.str(0)?.to_owned(), key, uid, row.int(3)? != 0)
    })
}

/// Condemns a live blob in which no content lies; `false` when it is another.
pub async fn condemn_unused(
    session: &mut Session,
    blob: BlobId,
    now: Millis,
) -> Result<bool, Fault> {
    if !copies::lock_blob(session, blob)
        .await?
        .is_some_and(|it| it.live)
    {
        return Ok(false);
    }
    super::releases::condemn_blob(session, blob, now).await?;
    let left = copies::lock_blob(session, blob).await?;
    Ok(left.is_some_and(|it| !it.live))
}
