//! Rows of multipart uploads and their parts.

use super::codec;
use super::session::{Param, Row, Session, key, params};
use crate::model::acl::{Acl, Owner};
use crate::model::clock::Millis;
use crate::model::digest::{ChecksumAlgorithm, ChecksumKind, ETag, ObjectChecksum};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BucketId, ContentId, SenderId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::{Encryption, Headers, Lock, Tags, VersionId};

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Takes parts.
    Open,
    /// Its version is written; a repeated complete gets the first one's answer.
    Completed,
    /// Its parts are released.
    Aborted,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRow {
    /// Its number, which is the upload id.
    pub uid: Uid,
    /// Where it will write.
    pub bucket: BucketId,
    /// The key it will write.
    pub key: ObjectKey,
    /// When it was begun.
    pub initiated: Millis,
    /// Where it stands.
    pub state: State,
    /// What its version will be answered with.
    pub headers: Headers,
    /// The version's tags.
    pub tags: Tags,
    /// The checksum the client announced.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// The version's access control list.
    pub acl: Option<Acl>,
    /// How the version's bytes are encrypted.
    pub encryption: Option<Encryption>,
    /// What keeps the version.
    pub lock: Lock,
    /// What it was completed with.
    pub completed: Option<CompletedRow>,
}

/// What an upload was completed with: a repeat of the same request gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedRow {
    /// SHA-256 of the part list.
    pub list_digest: [u8; 32],
    /// The version it wrote.
    pub uid: Uid,
    /// What clients name it by, where the bucket kept versions.
    pub version_id: Option<VersionId>,
    /// The version's ETag.
    pub etag: ETag,
    /// The version's bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Millis,
    /// The version's checksum.
    pub checksum: Option<ObjectChecksum>,
}

impl CompletedRow {
    /// The column `result`: ETag, size, time, checksum and version id, with spaces between.
    fn to_column(&self) -> String {
        let checksum = self.checksum.as_ref().map(codec::checksum_to_column);
        format!(
            "{} {} {} {} {}",
            self.etag,
            self.size,
            self.modified,
            checksum.unwrap_or_default(),
            self.version_id.map(|id| id.to_string()).unwrap_or_default()
        )
    }

    fn from_columns(list_digest: [u8; 32], uid: Uid, result: &str) -> Result<Self, Fault> {
        let corrupt = || Fault::new(Kind::Corrupt, "decode column").context("result of upload");
        let mut fields = result.split(' ');
        let mut next = || fields.next().ok_or_else(corrupt);
        Ok(Self {
            list_digest,
            uid,
            etag: ETag::parse(next()?).ok_or_else(corrupt)?,
            size: next()?.parse().map_err(|_| corrupt())?,
            modified: next()?.parse().map_err(|_| corrupt())?,
            checksum: codec::checksum_from_column(Some(next()?).filter(|text| !text.is_empty()))?,
            version_id: fields.next().and_then(VersionId::parse),
        })
    }
}

/// A part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// As the client numbered it.
    pub number: u32,
    /// Its bytes.
    pub content: ContentId,
    /// Who sent them.
    pub sender: Option<SenderId>,
    /// Bytes.
    pub size: u64,
    /// Its ETag.
    pub md5: [u8; 16],
    /// The checksum it is listed with.
    pub checksum: Option<ObjectChecksum>,
    /// When it was written.
    pub modified: Millis,
}

macro_rules! upload_columns {
    ($rest:literal) => {
        concat!(
            "SELECT uid, bucket_id, key, initiated, state, headers, tags, checksum_algorithm, checksum_kind,
                    list_digest, result_uid, result, acl, sse, lock_state FROM uploads ",
            $rest
        )
    };
}

fn upload(row: &Row<'_>) -> Result<UploadRow, Fault> {
    let corrupt = || Fault::new(Kind::Corrupt, "decode row").context("upload");
    let checksum = match (row.opt_str(7)?, row.opt_str(8)?) {
        (Some(algorithm), Some(kind)) => Some((
            ChecksumAlgorithm::parse(algorithm).ok_or_else(corrupt)?,
            codec::kind_from_column(kind).ok_or_else(corrupt)?,
        )),
        _ => None,
    };
    Ok(UploadRow {
        uid: Uid(row.int(0)?),
        bucket: BucketId(row.int(1)?),
        key: key(row, 2)?,
        initiated: row.int(3)?,
        state: match row.str(4)? {
            "open" => State::Open,
            "completed" => State::Completed,
            "aborted" => State::Aborted,
            _ => return Err(corrupt()),
        },
        headers: codec::headers_from_column(row.opt_str(5)?)?,
        tags: codec::tags_from_column(row.opt_str(6)?)?,
        checksum,
        completed: match (row.opt_array(9)?, row.opt_int(10)?, row.opt_str(11)?) {
            (Some(digest), Some(uid), Some(result)) => {
                Some(CompletedRow::from_columns(digest, Uid(uid), result)?)
            }
            _ => None,
        },
        acl: codec::acl_from_column(row.opt_str(12)?)?,
        encryption: codec::encryption_from_column(row.opt_str(13)?)?,
        lock: codec::lock_from_column(row.opt_str(14)?)?,
    })
}

/// Inserts an open upload.
pub async fn insert(session: &mut Session, upload: &UploadRow) -> Result<(), Fault> {
    let headers = codec::headers_to_column(&upload.headers)?;
    let tags = codec::tags_to_column(&upload.tags)?;
    let acl = codec::acl_to_column(upload.acl.as_ref())?;
    let encryption = codec::encryption_to_column(upload.encryption.as_ref())?;
    let lock = codec::lock_to_column(&upload.lock)?;
    session
        .execute(
            "INSERT INTO uploads (uid, bucket_id, key, initiated, state, headers, tags, checksum_algorithm,
                                  checksum_kind, acl, sse, lock_state)
             VALUES ($1, $2, $3, $4, 'open', $5, $6, $7, $8, $9, $10, $11)",
            params![
                upload.uid.0,
                upload.bucket.0,
                upload.key.as_bytes(),
                upload.initiated,
                headers.as_deref(),
                tags.as_deref(),
                upload.checksum.map(|(algorithm, _)| algorithm.as_str()),
                upload.checksum.map(|(_, kind)| kind.as_str()),
                acl.as_deref(),
                encryption.as_deref(),
                lock.as_deref(),
            ],
        )
        .await
}

/// An upload, locked when this runs in a transaction.
pub async fn find(session: &mut Session, uid: Uid) -> Result<Option<UploadRow>, Fault> {
    session
        .query_one(
            upload_columns!("WHERE uid = $1 /*FOR UPDATE*/"),
            params![uid.0],
            upload,
        )
        .await
}

/// Ends an upload: completed, or aborted without it.
pub async fn end(
    session: &mut Session,
    uid: Uid,
    completed: Option<&CompletedRow>,
    now: Millis,
) -> Result<(), Fault> {
    let result = completed.map(CompletedRow::to_column);
    let state = if completed.is_some() {
        "completed"
    } else {
        "aborted"
    };
    session
        .execute(
            "UPDATE uploads SET state = $1, list_digest = $2, result_uid = $3, result = $4, ended_at = $5
             WHERE uid = $6",
            params![
                state,
                completed.map(|row| &row.list_digest),
                completed.map(|row| row.uid.0),
                result.as_deref(),
                now,
                uid.0
            ],
        )
        .await
}

/// Forgets uploads that ended before `before`, at most `limit`, and says how many.
pub async fn forget_ended(
    session: &mut Session,
    before: Millis,
    limit: usize,
) -> Result<usize, Fault> {
    // What has ended stays so: nothing else can become of them in between.
    let ended = session
        .query(
            "SELECT uid FROM uploads WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2",
            params![before, limit as i64],
            |row| row.int(0),
        )
        .await?;
    if !ended.is_empty() {
        let marks: Vec<String> = (1..=ended.len())
            .map(|number| format!("${number}"))
            .collect();
        let sql = format!("DELETE FROM uploads WHERE uid IN ({})", marks.join(", "));
        let params: Vec<_> = ended.iter().map(|uid| Param::from(*uid)).collect();
        session.execute_made(&sql, &params).await?;
    }
    Ok(ended.len())
}

const STALE: &str = "SELECT initiated, uid FROM uploads
     WHERE state = 'open' AND initiated < $1 AND initiated >= $2 AND (initiated > $2 OR uid > $3)
     ORDER BY initiated, uid LIMIT $4";

/// Open uploads begun before `before`, after `after` in order of their begin and id, at most `limit`.
pub async fn stale(
    session: &mut Session,
    before: Millis,
    after: (Millis, Uid),
    limit: usize,
) -> Result<Vec<(Millis, Uid)>, Fault> {
    session
        .query(
            STALE,
            params![before, after.0, after.1.0, limit as i64],
            |row| Ok((row.int(0)?, Uid(row.int(1)?))),
        )
        .await
}

/// Whether a bucket has an open upload.
pub async fn any_open(session: &mut Session, bucket: BucketId) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM uploads WHERE bucket_id = $1 AND state = 'open' LIMIT 1",
            params![bucket.0],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// One upload of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    /// Its id.
    pub uid: Uid,
    /// The key it will write.
    pub key: ObjectKey,
    /// When it was begun.
    pub initiated: Millis,
    /// The checksum the client announced.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Who began it, where that is not the bucket's owner.
    pub owner: Option<Owner>,
}

/// Open uploads in order of key and id, after (`key`, `uid`) and below `end`, at most `limit`.
pub async fn scan(
    session: &mut Session,
    bucket: BucketId,
    after: (&[u8], i64),
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<ListedUpload>, Fault> {
    session
        .query(
            upload_columns!(
                "WHERE bucket_id = $1 AND state = 'open' AND key >= $2 AND (key > $2 OR uid > $3)
                   AND ($4 IS NULL OR key < $4)
                 ORDER BY key, uid LIMIT $5"
            ),
            params![bucket.0, after.0, after.1, end, limit as i64],
            |row| {
                let upload = upload(row)?;
                Ok(ListedUpload {
                    uid: upload.uid,
                    key: upload.key,
                    initiated: upload.initiated,
                    checksum: upload.checksum,
                    owner: upload.acl.map(|acl| acl.owner),
                })
            },
        )
        .await
}

/// Writes a part, over an older one of the same number.
pub async fn write_part(session: &mut Session, upload: Uid, part: &PartRow) -> Result<(), Fault> {
    let checksum = part.checksum.as_ref().map(codec::checksum_to_column);
    session
        .execute(
            "INSERT INTO upload_parts (upload_uid, number, content_id, sender, size, md5, checksum, mtime)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (upload_uid, number) DO UPDATE
             SET content_id = excluded.content_id, sender = excluded.sender, size = excluded.size,
                 md5 = excluded.md5, checksum = excluded.checksum, mtime = excluded.mtime",
            params![
                upload.0,
                i64::from(part.number),
                part.content.0,
                part.sender.map(|sender| sender.0),
                part.size as i64,
                &part.md5,
                checksum.as_deref(),
                part.modified,
            ],
        )
        .await
}

/// Parts with a number above `after`, in order, at most `limit`.
pub async fn parts(
    session: &mut Session,
    upload: Uid,
    after: u32,
    limit: usize,
) -> Result<Vec<PartRow>, Fault> {
    session
        .query(
            "SELECT number, content_id, sender, size, md5, checksum, mtime FROM upload_parts
             WHERE upload_uid = $1 AND number > $2 ORDER BY number LIMIT $3",
            params![upload.0, i64::from(after), limit as i64],
            |row| {
                Ok(PartRow {
                    number: row.int(0)? as u32,
                    content: ContentId(row.int(1)?),
                    sender: row.opt_int(2)?.map(SenderId),
                    size: row.size(3)?,
                    md5: row.array(4)?,
                    checksum: codec::checksum_from_column(row.opt_str(5)?)?,
                    modified: row.int(6)?,
                })
            },
        )
        .await
}

/// Deletes all parts of an upload.
pub async fn delete_parts(session: &mut Session, upload: Uid) -> Result<(), Fault> {
    session
        .execute(
            "DELETE FROM upload_parts WHERE upload_uid = $1",
            params![upload.0],
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::sqlite;

    #[tokio::test]
    async fn stale_uploads_are_found_by_their_age() {
        let mut session = sqlite::blank().unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {STALE}");
        let plan = session
            .query_made(&sql, &[0_i64.into(); 4], |row| Ok(row.str(3)?.to_owned()))
            .await
            .unwrap();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].contains("uploads_open"), "{plan:?}");
    }
}
