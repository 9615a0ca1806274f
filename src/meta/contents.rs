//! Rows of contents, extents, blobs and copies.

use bytes::Bytes;

use super::catalog;
use super::codec::{self, digest_columns};
use super::copies::{self, AnyCopy, CopyState};
use super::findings::{self, suspect};
use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::content::Extent;
use crate::model::digest::Digests;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, ContentId, KeyVersionId, SenderId, SpaceId};

pub use super::known::{Known, Standing, find, find_by_md5, lock_well, standing};

/// One live copy of a blob: which backend, and the blob's name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRow {
    /// The backend's row.
    pub backend: i64,
    /// The name at that backend.
    pub name: String,
}

/// How a content's bytes are encrypted: in frames, under a data key of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// Bytes in a frame before they are encrypted.
    pub frame_bytes: u32,
    /// The data key, wrapped.
    pub key_wrapped: Vec<u8>,
    /// What wrapped it; `None` is a key that only the customer has.
    pub key: Option<KeyVersionId>,
}

/// Where a content's bytes lie, and what they are encrypted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Where.
    pub place: Place,
    /// Bytes of the content.
    pub length: u64,
    /// `None` for bytes as they are.
    pub sealing: Option<Sealing>,
}

/// Where a content's bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the row itself.
    Inline(Bytes),
    /// In a blob, from `offset` on; every live copy of it.
    Stored {
        /// First byte in the blob.
        offset: u64,
        /// At least one, unless none is live.
        copies: Vec<CopyRow>,
    },
    /// In other contents; see [`extents`].
    Composite,
}

/// Whose those copies of a blob are that another system wrote. What was written here is ours in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// That system's, for good: they are never deleted.
    Theirs,
    /// Ours to delete, once nothing refers to the blob.
    Ours,
    /// That system's until nothing there needs them any more and they are handed over.
    TheirsYet,
}

impl Owner {
    /// As a blob's row holds it.
    pub(super) fn column(self) -> i64 {
        match self {
            Self::Theirs => 0,
            Self::Ours => 1,
            Self::TheirsYet => 2,
        }
    }

    /// Whether a row says that they are ours to delete.
    pub(super) fn is_ours(column: i64) -> bool {
        column == Self::Ours.column()
    }
}

/// A new blob, written and not yet named by a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBlob {
    /// Its id.
    pub id: BlobId,
    /// Bytes.
    pub size: u64,
    /// Where its copies are.
    pub copies: Vec<CopyRow>,
    /// Copies its placement wants beside these, whose bytes are not written yet.
    pub missing: Vec<CopyRow>,
    /// Whose its copies are.
    pub owner: Owner,
}

/// What [`location`] reads of contents `c` and their live copies `p`; the bytes come last.
macro_rules! location_columns {
    () => {
        "c.kind, c.blob_offset, p.backend_id, p.name, c.length, c.coding, c.key_wrapped, c.key_id, c.bytes"
    };
}
pub(super) use location_columns;

/// The columns of `location_columns!` from `first` on.
pub(super) fn location(row: &Row<'_>, first: usize) -> Result<Location, Fault> {
    let place = match row.str(first)? {
        "inline" => Place::Inline(Bytes::copy_from_slice(row.bytes(first + 8)?)),
        "stored" => {
            let copy = match row.opt_int(first + 2)? {
                Some(backend) => vec![CopyRow {
                    backend,
                    name: name(row, first + 3)?,
                }],
                None => Vec::new(),
            };
            Place::Stored {
                offset: row.size(first + 1)?,
                copies: copy,
            }
        }
        "composite" => Place::Composite,
        _ => return Err(Fault::new(Kind::Corrupt, "decode row").context("kind of content")),
    };
    let sealing = match codec::coding_from_column(row.opt_str(first + 5)?)? {
        Some(frame_bytes) => Some(Sealing {
            frame_bytes,
            key_wrapped: row.bytes(first + 6)?.to_vec(),
            key: row.opt_int(first + 7)?.map(KeyVersionId),
        }),
        None => None,
    };
    Ok(Location {
        place,
        length: row.size(first + 4)?,
        sealing,
    })
}

/// Joins the rows of one content that differ only in the copy.
pub(super) fn merge_copies(into: &mut Location, from: Location) {
    if let (Place::Stored { copies, .. }, Place::Stored { copies: more, .. }) =
        (&mut into.place, from.place)
    {
        copies.extend(more);
    }
}

fn name(row: &Row<'_>, column: usize) -> Result<String, Fault> {
    String::from_utf8(row.bytes(column)?.to_vec())
        .map_err(|error| Fault::new(Kind::Corrupt, "decode row").source(error))
}

/// The backends that hold live copies of what a composite content is made of, at most two levels below it.
pub async fn backends_below(session: &mut Session, id: ContentId) -> Result<Vec<i64>, Fault> {
    session
        .query(
            "SELECT DISTINCT p.backend_id FROM extents e JOIN contents c ON c.id = e.child_id
             JOIN copies p ON p.blob_id = c.blob_id AND p.state = 'live' WHERE e.content_id = $1
             UNION
             SELECT DISTINCT p.backend_id FROM extents e JOIN extents f ON f.content_id = e.child_id
             JOIN contents c ON c.id = f.child_id
             JOIN copies p ON p.blob_id = c.blob_id AND p.state = 'live' WHERE e.content_id = $1",
            params![id.0],
            |row| row.int(0),
        )
        .await
}

/// The digests a content was stored with; `None` when it is gone or has none (joined parts).
pub async fn digests(session: &mut Session, id: ContentId) -> Result<Option<Digests>, Fault> {
    let found = session
        .query_one(
            concat!(
                "SELECT ",
                digest_columns!(),
                " FROM contents WHERE id = $1 AND md5 IS NOT NULL AND sha256 IS NOT NULL"
            ),
            params![id.0],
            |row| codec::known_digests(row, 0),
        )
        .await?;
    Ok(found)
}

/// The extents `e` that are all of a composite and all of the content they lie in, as a merge leaves one: whoever refers
/// to the composite refers to these bytes.
macro_rules! whole_extents {
    () => {
        "extents e JOIN contents w ON w.id = e.content_id AND w.length = e.length
                   JOIN contents c ON c.id = e.child_id AND c.length = e.length"
    };
}
pub(super) use whole_extents;

/// Whether `sender` has possession of a content: some reference to it carries the sender's mark. Joined parts that were
/// merged with equal bytes carry it on the reference to the whole that they made.
pub async fn possessed_by(
    session: &mut Session,
    content: ContentId,
    sender: SenderId,
) -> Result<bool, Fault> {
    let found = session
        .query_one(
            concat!(
                "SELECT EXISTS (SELECT 1 FROM objects WHERE content_id = $1 AND sender = $2)
                     OR EXISTS (SELECT 1 FROM versions WHERE content_id = $1 AND sender = $2)
                     OR EXISTS (SELECT 1 FROM upload_parts WHERE content_id = $1 AND sender = $2)
                     OR EXISTS (SELECT 1 FROM extents WHERE child_id = $1 AND sender = $2)
                     OR EXISTS (SELECT 1 FROM ",
                whole_extents!(),
                " JOIN objects o ON o.content_id = w.id WHERE e.child_id = $1 AND o.sender = $2)
                     OR EXISTS (SELECT 1 FROM ",
                whole_extents!(),
                " JOIN versions v ON v.content_id = w.id WHERE e.child_id = $1 AND v.sender = $2)"
            ),
            params![content.0, sender.0],
            |row| row.int(0),
        )
        .await?;
    Ok(found == Some(1))
}

/// Locks a content against the collector for the rest of the transaction; `false` when it is gone.
pub async fn lock(session: &mut Session, id: ContentId) -> Result<bool, Fault> {
    let sql = "SELECT id FROM contents WHERE id = $1 /*FOR SHARE*/";
    let found = session
        .query_one(sql, params![id.0], |row| row.int(0))
        .await?;
    Ok(found.is_some())
}

/// Locks a content against every [`lock`] for the rest of the transaction; `false` when it is gone.
pub async fn lock_alone(session: &mut Session, id: ContentId) -> Result<bool, Fault> {
    let sql = "SELECT id FROM contents WHERE id = $1 /*FOR UPDATE*/";
    let found = session
        .query_one(sql, params![id.0], |row| row.int(0))
        .await?;
    Ok(found.is_some())
}

/// The space of a content that a row refers to.
pub async fn space_of(session: &mut Session, id: ContentId) -> Result<SpaceId, Fault> {
    let found = session
        .query_one(
            "SELECT space_id FROM contents WHERE id = $1",
            params![id.0],
            |row| row.int(0),
        )
        .await?;
    found.map(SpaceId).ok_or_else(|| {
        Fault::new(Kind::Corrupt, "find content").context(format_args!("content {id} has no row"))
    })
}

/// What a new content's row is made of.
pub struct NewContent<'a> {
    /// Its id, unless an equal content is known.
    pub id: ContentId,
    /// Where it may be shared.
    pub space: SpaceId,
    /// What it is known by.
    pub digests: &'a Digests,
    /// Whether other uploads may find it by digest.
    pub shared: bool,
    /// When.
    pub now: Millis,
}

impl NewContent<'_> {
    fn unshared(&self) -> Self {
        Self {
            shared: false,
            ..*self
        }
    }
}

/// One run of a new content, in a blob of its own.
pub struct NewRun<'a> {
    /// The id of the content that fills the blob. The new content's own when there is one run.
    pub content: ContentId,
    /// Bytes of the content in it.
    pub length: u64,
    /// The checksum of those, if they lie there as they are.
    pub crc64nvme: Option<u64>,
    /// The blob.
    pub blob: &'a NewBlob,
    /// How the bytes are encrypted; `None` for bytes as they are.
    pub sealing: Option<&'a Sealing>,
}

/// What stands for the bytes of a new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// This content: the new one, or an equal one that was there.
    As(ContentId),
    /// An equal one is there and its bytes are lost: no row of the new one is.
    Lost(ContentId),
}

/// Where the bytes of a content row are.
#[derive(Clone, Copy)]
enum Holds<'a> {
    Bytes(&'a [u8], Option<&'a Sealing>),
    Blob(&'a NewBlob, Option<&'a Sealing>),
    Extents,
}

/// Inserts an inline content unless an equal one is known; returns the id of the one that stands. Where the equal one
/// lies in blobs and is lost, the new one stands beside it and is found by nobody.
pub async fn insert_inline(
    session: &mut Session,
    new: &NewContent<'_>,
    bytes: &[u8],
    sealing: Option<&Sealing>,
) -> Result<ContentId, Fault> {
    let holds = Holds::Bytes(bytes, sealing);
    Ok(match insert(session, new, holds).await? {
        Placed::As(id) => id,
        Placed::Lost(_) => {
            insert(session, &new.unshared(), holds).await?;
            new.id
        }
    })
}

/// Inserts a content that lies in `runs`, one after the other, with their blobs, unless an equal content is
/// known; returns the id of the one that stands. One run is the content's own blob; several make it a composite
/// of contents that only it refers to. When that is not `new.id`, no row of the blobs is there and their bytes
/// are the caller's to drop after the commit.
pub async fn insert_stored(
    session: &mut Session,
    new: &NewContent<'_>,
    runs: &[NewRun<'_>],
) -> Result<Placed, Fault> {
    let own = Placed::As(new.id);
    if let [only] = runs {
        insert_blob(session, only.blob, new.now).await?;
        let placed = insert(session, new, Holds::Blob(only.blob, only.sealing)).await?;
        if placed != own {
            delete_blob(session, only.blob).await?;
        }
        return Ok(placed);
    }
    let placed = insert(session, new, Holds::Extents).await?;
    if placed == own {
        insert_runs(session, new, runs).await?;
    }
    Ok(placed)
}

/// Inserts a content as [`insert_stored`] does that is found by nobody, beside an equal one.
pub async fn insert_beside(
    session: &mut Session,
    new: &NewContent<'_>,
    runs: &[NewRun<'_>],
) -> Result<ContentId, Fault> {
    insert_stored(session, &new.unshared(), runs).await?;
    Ok(new.id)
}

/// Inserts contents, each alone in its blob, as the extents of a composite that is there.
pub(super) async fn insert_runs(
    session: &mut Session,
    new: &NewContent<'_>,
    runs: &[NewRun<'_>],
) -> Result<(), Fault> {
    if let [only] = runs {
        insert_blob(session, only.blob, new.now).await?;
        // All of the composite: known to nobody, and held against the digests of that by who reads it again.
        let whole = NewContent {
            id: only.content,
            shared: false,
            ..*new
        };
        let holds = Holds::Blob(only.blob, only.sealing);
        insert(session, &whole, holds).await?;
        let extent = Extent {
            start: 0,
            length: only.length,
            child: only.content,
            child_offset: 0,
        };
        return insert_extent(session, new.id, 0, &extent, None).await;
    }
    let mut start = 0;
    for (ordinal, run) in runs.iter().enumerate() {
        insert_blob(session, run.blob, new.now).await?;
        insert_run(session, new, run).await?;
        let extent = Extent {
            start,
            length: run.length,
            child: run.content,
            child_offset: 0,
        };
        insert_extent(session, new.id, ordinal, &extent, None).await?;
        start += run.length;
    }
    Ok(())
}

async fn insert_blob(session: &mut Session, blob: &NewBlob, now: Millis) -> Result<(), Fault> {
    session.changed(&catalog::BLOBS, params![blob.id.0]);
    session.changed(&catalog::COPIES, params![blob.id.0]);
    session
        .execute(
            "INSERT INTO blobs (id, size, state, since, owned) VALUES ($1, $2, 'live', $3, $4)",
            params![blob.id.0, blob.size as i64, now, blob.owner.column()],
        )
        .await?;
    insert_copies(session, blob, now).await
}

async fn delete_blob(session: &mut Session, blob: &NewBlob) -> Result<(), Fault> {
    session.changed(&catalog::BLOBS, params![blob.id.0]);
    session.changed(&catalog::COPIES, params![blob.id.0]);
    session
        .execute("DELETE FROM copies WHERE blob_id = $1", params![blob.id.0])
        .await?;
    session
        .execute("DELETE FROM blobs WHERE id = $1", params![blob.id.0])
        .await
}

/// A run's own content: without digests, because only its composite is known by them, and with a checksum for whoever
/// looks at its blob.
async fn insert_run(
    session: &mut Session,
    new: &NewContent<'_>,
    run: &NewRun<'_>,
) -> Result<(), Fault> {
    session.changed(&catalog::CONTENTS, params![run.content.0]);
    let coding = run
        .sealing
        .map(|sealing| codec::coding_to_column(sealing.frame_bytes))
        .transpose()?;
    session
        .execute(
            "INSERT INTO contents (id, space_id, length, kind, depth, crc64nvme, created, blob_id, blob_offset,
                                   stored_length, coding, key_wrapped, key_id)
             VALUES ($1, $2, $3, 'stored', 0, $4, $5, $6, 0, $7, $8, $9, $10)",
            params![
                run.content.0,
                new.space.0,
                run.length as i64,
                run.crc64nvme.map(|crc| crc as i64),
                new.now,
                run.blob.id.0,
                run.blob.size as i64,
                coding.as_deref(),
                run.sealing.map(|sealing| &sealing.key_wrapped[..]),
                run.sealing.and_then(|sealing| sealing.key).map(|key| key.0),
            ],
        )
        .await
}

pub(super) async fn insert_extent(
    session: &mut Session,
    composite: ContentId,
    ordinal: usize,
    extent: &Extent,
    sender: Option<SenderId>,
) -> Result<(), Fault> {
    session.changed(&catalog::EXTENTS, params![composite.0]);
    session
        .execute(
            "INSERT INTO extents (content_id, ordinal, start, length, child_id, child_offset, sender)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                composite.0,
                ordinal as i64,
                extent.start as i64,
                extent.length as i64,
                extent.child.0,
                extent.child_offset as i64,
                sender.map(|sender| sender.0),
            ],
        )
        .await
}

async fn insert_copies(session: &mut Session, blob: &NewBlob, now: Millis) -> Result<(), Fault> {
    let live = blob.copies.iter().map(|copy| (copy, CopyState::Live));
    let missing = blob.missing.iter().map(|copy| (copy, CopyState::Missing));
    for (copy, state) in live.chain(missing) {
        let copy = AnyCopy {
            backend: copy.backend,
            name: copy.name.clone(),
            state,
        };
        copies::write(session, blob.id, &copy, now).await?;
    }
    Ok(())
}

async fn insert(
    session: &mut Session,
    new: &NewContent<'_>,
    holds: Holds<'_>,
) -> Result<Placed, Fault> {
    let (kind, depth, blob, bytes, sealing) = match holds {
        Holds::Bytes(bytes, sealing) => ("inline", 0, None, Some(bytes), sealing),
        Holds::Blob(blob, sealing) => ("stored", 0, Some(blob), None, sealing),
        Holds::Extents => ("composite", 1, None, None, None),
    };
    let digests = new.digests;
    let sha256 = new.shared.then_some(&digests.sha256.0[..]);
    let coding = sealing
        .map(|sealing| codec::coding_to_column(sealing.frame_bytes))
        .transpose()?;
    session
        .execute(
            "INSERT INTO contents (id, space_id, sha256, length, kind, depth, md5, crc32, crc32c, crc64nvme,
                                   sha1, created, blob_id, blob_offset, stored_length, coding, key_wrapped,
                                   key_id, bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
             ON CONFLICT (space_id, sha256, length) DO NOTHING",
            params![
                new.id.0,
                new.space.0,
                sha256,
                digests.length as i64,
                kind,
                depth,
                &digests.md5,
                i64::from(digests.crc32),
                i64::from(digests.crc32c),
                digests.crc64nvme as i64,
                digests.sha1.as_ref(),
                new.now,
                blob.map(|blob| blob.id.0),
                blob.map(|_| 0),
                blob.map(|blob| blob.size as i64),
                coding.as_deref(),
                sealing.map(|sealing| &sealing.key_wrapped[..]),
                sealing.and_then(|sealing| sealing.key).map(|key| key.0),
                bytes,
            ],
        )
        .await?;
    session.changed(&catalog::CONTENTS, params![new.id.0]);
    if sha256.is_none() {
        return Ok(Placed::As(new.id));
    }
    // The id tells who won, never the number of rows affected.
    let found = session
        .query_one(
            concat!(
                "SELECT c.id, ",
                suspect!(),
                " FROM contents c WHERE c.space_id = $1 AND c.sha256 = $2 AND c.length = $3 /*FOR SHARE*/"
            ),
            params![new.space.0, sha256, digests.length as i64],
            |row| Ok((ContentId(row.int(0)?), row.int(1)? != 0)),
        )
        .await?;
    Ok(match found {
        None => return Err(collected_meanwhile(session, "insert content")),
        Some((id, true)) if id != new.id && findings::is_lost(session, id).await? => {
            Placed::Lost(id)
        }
        Some((id, _)) => Placed::As(id),
    })
}

/// Has the transaction run again: what it found to stand was collected before it could be locked.
pub fn collected_meanwhile(session: &mut Session, operation: &'static str) -> Fault {
    overtaken(session, operation, "collected in between")
}

/// Has the transaction run again, and says why.
pub fn overtaken(session: &mut Session, operation: &'static str, why: &'static str) -> Fault {
    session.lost_race();
    Fault::new(Kind::Busy, operation).context(why)
}

/// Inserts a composite content whose extents lie one after the other. It has no digest: it is never found,
/// only referred to.
pub async fn insert_composite(
    session: &mut Session,
    id: ContentId,
    space: SpaceId,
    extents: &[(Extent, Option<SenderId>)],
    now: Millis,
) -> Result<(), Fault> {
    let length: u64 = extents.iter().map(|(extent, _)| extent.length).sum();
    session.changed(&catalog::CONTENTS, params![id.0]);
    session
        .execute(
            "INSERT INTO contents (id, space_id, length, kind, depth, created)
             VALUES ($1, $2, $3, 'composite', 1, $4)",
            params![id.0, space.0, length as i64, now],
        )
        .await?;
    for (ordinal, (extent, sender)) in extents.iter().enumerate() {
        insert_extent(session, id, ordinal, extent, *sender).await?;
    }
    // A part may lie in several blobs, and then is a composite itself.
    let below = session
        .query_one(
            "SELECT MAX(c.depth) FROM extents e JOIN contents c ON c.id = e.child_id WHERE e.content_id = $1",
            params![id.0],
            |row| row.opt_int(0),
        )
        .await?
        .flatten();
    match below {
        None | Some(0) => Ok(()),
        Some(depth) => {
            session
                .execute(
                    "UPDATE contents SET depth = $1 WHERE id = $2",
                    params![depth + 1, id.0],
                )
                .await
        }
    }
}

/// Where a content's bytes lie; `None` when it is gone.
pub async fn find_location(
    session: &mut Session,
    id: ContentId,
) -> Result<Option<Location>, Fault> {
    let rows = session
        .query(
            concat!(
                "SELECT ",
                location_columns!(),
                " FROM contents c LEFT JOIN copies p ON p.blob_id = c.blob_id AND p.state = 'live'
                 WHERE c.id = $1"
            ),
            params![id.0],
            |row| location(row, 0),
        )
        .await?;
    Ok(rows.into_iter().reduce(|mut first, next| {
        merge_copies(&mut first, next);
        first
    }))
}

/// Contents whose data keys `version` wrapped, with those, and ids above `after`, in order, at most `limit`.
pub async fn wrapped_by(
    session: &mut Session,
    version: KeyVersionId,
    after: ContentId,
    limit: usize,
) -> Result<Vec<(ContentId, Vec<u8>)>, Fault> {
    session
        .query(
            "SELECT id, key_wrapped FROM contents WHERE key_id = $1 AND id > $2 ORDER BY id LIMIT $3",
            params![version.0, after.0, limit as i64],
            |row| Ok((ContentId(row.int(0)?), row.bytes(1)?.to_vec())),
        )
        .await
}

/// Replaces a content's wrapped data key, if `old` wrapped it still.
pub async fn rewrap(
    session: &mut Session,
    id: ContentId,
    old: KeyVersionId,
    new: KeyVersionId,
    key_wrapped: &[u8],
) -> Result<(), Fault> {
    session.changed(&catalog::CONTENTS, params![id.0]);
    session
        .execute(
            "UPDATE contents SET key_wrapped = $1, key_id = $2 WHERE id = $3 AND key_id = $4",
            params![key_wrapped, new.0, id.0, old.0],
        )
        .await
}

/// The extents of a composite that overlap `start..end`, in order.
pub async fn extents(
    session: &mut Session,
    id: ContentId,
    start: u64,
    end: u64,
) -> Result<Vec<Extent>, Fault> {
    session
        .query(
            "SELECT start, length, child_id, child_offset FROM extents
             WHERE content_id = $1 AND start < $2 AND start + length > $3 ORDER BY ordinal",
            params![id.0, end as i64, start as i64],
            |row| {
                Ok(Extent {
                    start: row.size(0)?,
                    length: row.size(1)?,
                    child: ContentId(row.int(2)?),
                    child_offset: row.size(3)?,
                })
            },
        )
        .await
}

/// What the contents of an install add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Contents that hold bytes of their own.
    pub contents: u64,
    /// Bytes of those that lie in rows.
    pub inline_bytes: u64,
    /// Bytes of blobs that are live.
    pub blob_bytes: u64,
    /// Bytes of blobs that wait for their deletion.
    pub deleting_bytes: u64,
}

/// Adds up all contents and blobs. A scan.
pub async fn totals(session: &mut Session) -> Result<Totals, Fault> {
    let (contents, inline_bytes) = session
        .query_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE kind WHEN 'inline' THEN length ELSE 0 END), 0) AS INTEGER)
             FROM contents WHERE kind <> 'composite'",
            &[],
            |row| Ok((row.size(0)?, row.size(1)?)),
        )
        .await?
        .unwrap_or_default();
    let (blob_bytes, deleting_bytes) = session
        .query_one(
            "SELECT CAST(COALESCE(SUM(CASE state WHEN 'live' THEN size ELSE 0 END), 0) AS INTEGER),
                    CAST(COALESCE(SUM(CASE state WHEN 'deleting' THEN size ELSE 0 END), 0) AS INTEGER)
             FROM blobs",
            &[],
            |row| Ok((row.size(0)?, row.size(1)?)),
        )
        .await?
        .unwrap_or_default();
    Ok(Totals {
        contents,
        inline_bytes,
        blob_bytes,
        deleting_bytes,
    })
}
