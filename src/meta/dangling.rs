//! Rows that refer to what is not there, or that nothing refers to. Each is a scan, read in pages by id; foreign keys
//! and the order of writes should leave nothing for them to find.

use super::findings::lost;
use super::session::{Session, params};
use crate::model::fault::Fault;
use crate::model::finding::LostObject;
use crate::model::ids::{BlobId, ContentId};

/// Rows of a page.
pub const PAGE: usize = 500;

/// What is looked for among contents and blobs. Each finds ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dangling {
    /// Stored contents whose blob is gone or condemned.
    ContentWithoutBlob,
    /// Composite contents whose extents are not whole, or point nowhere.
    BrokenExtents,
    /// Ids of composite contents that only extents know.
    ExtentsWithoutContent,
    /// Contents that nothing refers to and that were never released.
    UnreferencedContent,
    /// Live blobs without a live copy.
    BlobWithoutCopy,
    /// Live blobs in which no content lies.
    UnusedBlob,
    /// Ids of blobs that only copies know.
    CopyWithoutBlob,
}

impl Dangling {
    fn sql(self) -> &'static str {
        match self {
            Self::ContentWithoutBlob => {
                "SELECT c.id FROM contents c LEFT JOIN blobs b ON b.id = c.blob_id
                 WHERE c.kind = 'stored' AND c.id > $1 AND (b.id IS NULL OR b.state <> 'live')
                 ORDER BY c.id LIMIT $2"
            }
            Self::BrokenExtents => {
                "SELECT c.id FROM contents c
                 WHERE c.kind = 'composite' AND c.id > $1
                   AND (c.length <> (SELECT COALESCE(SUM(e.length), 0) FROM extents e WHERE e.content_id = c.id)
                        OR EXISTS (SELECT 1 FROM extents e LEFT JOIN contents k ON k.id = e.child_id
                                   WHERE e.content_id = c.id
                                     AND (k.id IS NULL OR k.length < e.child_offset + e.length)))
                 ORDER BY c.id LIMIT $2"
            }
            Self::ExtentsWithoutContent => {
                "SELECT DISTINCT e.content_id FROM extents e LEFT JOIN contents c ON c.id = e.content_id
                 WHERE e.content_id > $1 AND c.id IS NULL ORDER BY e.content_id LIMIT $2"
            }
            Self::UnreferencedContent => {
                "SELECT c.id FROM contents c
                 WHERE c.id > $1 AND NOT EXISTS (SELECT 1 FROM objects o WHERE o.content_id = c.id)
                   AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.content_id = c.id)
                   AND NOT EXISTS (SELECT 1 FROM upload_parts p WHERE p.content_id = c.id)
                   AND NOT EXISTS (SELECT 1 FROM extents e WHERE e.child_id = c.id)
                   AND NOT EXISTS (SELECT 1 FROM released r WHERE r.content_id = c.id)
                 ORDER BY c.id LIMIT $2"
            }
            Self::BlobWithoutCopy => {
                "SELECT b.id FROM blobs b
                 WHERE b.state = 'live' AND b.id > $1
                   AND NOT EXISTS (SELECT 1 FROM copies p WHERE p.blob_id = b.id AND p.state = 'live')
                 ORDER BY b.id LIMIT $2"
            }
            Self::UnusedBlob => {
                "SELECT b.id FROM blobs b
                 WHERE b.state = 'live' AND b.id > $1
                   AND NOT EXISTS (SELECT 1 FROM contents c WHERE c.blob_id = b.id)
                 ORDER BY b.id LIMIT $2"
            }
            Self::CopyWithoutBlob => {
                "SELECT DISTINCT p.blob_id FROM copies p LEFT JOIN blobs b ON b.id = p.blob_id
                 WHERE p.blob_id > $1 AND b.id IS NULL ORDER BY p.blob_id LIMIT $2"
            }
        }
    }

    /// Ids above `after`, in order; a full page may be followed by another.
    pub async fn find(self, session: &mut Session, after: i64) -> Result<Vec<i64>, Fault> {
        session
            .query(self.sql(), params![after, PAGE as i64], |row| row.int(0))
            .await
    }
}

/// Where versions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are current.
    Current,
    /// The others.
    Noncurrent,
    /// Parts of uploads, named by their upload.
    Parts,
}

/// Versions and parts whose content is gone, with the number of it, with ids above `after`, in order. Of parts the id
/// is that of the upload, and one of each upload is told.
pub async fn without_content(
    session: &mut Session,
    which: Which,
    after: i64,
) -> Result<Vec<(LostObject, Option<i64>)>, Fault> {
    let sql = match which {
        Which::Current => {
            "SELECT b.name, o.key, o.uid, o.is_null, o.content_id FROM objects o JOIN buckets b ON b.id = o.bucket_id
             LEFT JOIN contents c ON c.id = o.content_id
             WHERE o.kind = 'object' AND c.id IS NULL AND o.uid > $1 ORDER BY o.uid LIMIT $2"
        }
        Which::Noncurrent => {
            "SELECT b.name, o.key, o.uid, o.is_null, o.content_id FROM versions o JOIN buckets b ON b.id = o.bucket_id
             LEFT JOIN contents c ON c.id = o.content_id
             WHERE o.kind = 'object' AND c.id IS NULL AND o.uid > $1 ORDER BY o.uid LIMIT $2"
        }
        Which::Parts => {
            "SELECT b.name, u.key, u.uid, 0, MIN(p.content_id) FROM upload_parts p JOIN uploads u ON u.uid = p.upload_uid
             JOIN buckets b ON b.id = u.bucket_id
             LEFT JOIN contents c ON c.id = p.content_id
             WHERE c.id IS NULL AND u.uid > $1 GROUP BY b.name, u.key, u.uid ORDER BY u.uid LIMIT $2"
        }
    };
    session
        .query(sql, params![after, PAGE as i64], |row| {
            let mut found = lost(row, which == Which::Current)?;
            if which == Which::Parts {
                // Both kinds of ids are written alike.
                found.upload_id = found.version_id.take();
            }
            Ok((found, row.opt_int(4)?))
        })
        .await
}

/// The contents that lie in a blob.
pub async fn contents_of_blob(
    session: &mut Session,
    blob: BlobId,
) -> Result<Vec<ContentId>, Fault> {
    session
        .query(
            "SELECT id FROM contents WHERE blob_id = $1 ORDER BY id",
            params![blob.0],
            |row| Ok(ContentId(row.int(0)?)),
        )
        .await
}
