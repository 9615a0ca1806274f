//! Joined parts as a merge finds them, and what it makes of them.

use std::ops::Range;

use super::catalog::CONTENTS;
use super::session::{Session, params};
use super::{codec, contents, releases};
use crate::model::content::{DEPTH_MAX, Extent};
use crate::model::digest::{Digests, Fingerprint};
use crate::model::fault::Fault;
use crate::model::ids::{ContentId, SpaceId};

/// A composite content that is known by no digest, as a merge needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Where it may be shared.
    pub space: SpaceId,
    /// Whether bytes of that space are encrypted.
    pub encrypted: bool,
    /// Bytes.
    pub length: u64,
    /// Levels of extents below it.
    pub depth: i64,
    /// Its extents.
    pub extents: u64,
}

/// A run of a content that is a whole content with digests of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The content.
    pub content: ContentId,
    /// Its first byte among all.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What its bytes must have.
    pub fingerprint: Fingerprint,
}

/// What of the bytes `range` of a content its rows vouch for, in order: all of them by what it is known by itself, or
/// those of its parts that lie wholly in them and are known; what is made of parts and not known itself, by its own.
pub async fn parts(
    session: &mut Session,
    id: ContentId,
    range: Range<u64>,
) -> Result<Vec<Part>, Fault> {
    let own = session
        .query_one(
            "SELECT length, sha256, md5, crc64nvme FROM contents WHERE id = $1",
            params![id.0],
            |row| Ok((row.size(0)?, codec::fingerprint(row, 1)?)),
        )
        .await?;
    if let Some((length, Some(fingerprint))) = own
        && range == (0..length)
    {
        return Ok(vec![Part {
            content: id,
            start: 0,
            length,
            fingerprint,
        }]);
    }
    let mut found = Vec::new();
    let mut waiting = vec![(id, 0, 1)];
    while let Some((composite, before, depth)) = waiting.pop() {
        let children = session
            .query(
                "SELECT e.start, e.length, c.id, c.kind, c.sha256, c.md5, c.crc64nvme
                 FROM extents e JOIN contents c ON c.id = e.child_id
                 WHERE e.content_id = $1 AND e.child_offset = 0 AND e.length = c.length AND e.length > 0
                 ORDER BY e.ordinal",
                params![composite.0],
                |row| {
                    let (start, length) = (before + row.size(0)?, row.size(1)?);
                    let content = ContentId(row.int(2)?);
                    let part = codec::fingerprint(row, 4)?.map(|fingerprint| Part {
                        content,
                        start,
                        length,
                        fingerprint,
                    });
                    let is_composite = row.str(3)? == "composite";
                    Ok((part, is_composite.then_some((content, start))))
                },
            )
            .await?;
        for child in children {
            match child {
                (Some(part), _) => found.push(part),
                (None, Some((composite, start))) if depth < DEPTH_MAX => {
                    waiting.push((composite, start, depth + 1));
                }
                (None, _) => {}
            }
        }
    }
    found.retain(|part| range.start <= part.start && part.start + part.length <= range.end);
    found.sort_by_key(|part| part.start);
    Ok(found)
}

/// A composite without digests; `None` when it is gone, is known, or is one extent of a content that is.
pub async fn find(session: &mut Session, id: ContentId) -> Result<Option<Joined>, Fault> {
    let found = session
        .query_one(
            "SELECT c.space_id, s.encrypted, c.length, c.depth FROM contents c JOIN spaces s ON s.id = c.space_id
             WHERE c.id = $1 AND c.kind = 'composite' AND c.md5 IS NULL",
            params![id.0],
            |row| Ok((SpaceId(row.int(0)?), row.int(1)? != 0, row.size(2)?, row.int(3)?)),
        )
        .await?;
    let Some((space, encrypted, length, depth)) = found else {
        return Ok(None);
    };
    let parts = session
        .query(
            "SELECT child_id FROM extents WHERE content_id = $1",
            params![id.0],
            |row| Ok(ContentId(row.int(0)?)),
        )
        .await?;
    let is_merged = match parts[..] {
        [only] => contents::digests(session, only)
            .await?
            .is_some_and(|of| of.length == length),
        _ => false,
    };
    Ok((!is_merged).then_some(Joined {
        space,
        encrypted,
        length,
        depth,
        extents: parts.len() as u64,
    }))
}

/// Makes a composite known by its digests, unless it is so deep that what will refer to it would be too deep. When an
/// equal content came first the row's uniqueness has the transaction run again.
pub async fn set_digests(
    session: &mut Session,
    id: ContentId,
    digests: &Digests,
) -> Result<(), Fault> {
    session.changed(&CONTENTS, params![id.0]);
    session
        .execute(
            "UPDATE contents SET sha256 = $1, md5 = $2, crc32 = $3, crc32c = $4, crc64nvme = $5, sha1 = $6
             WHERE id = $7 AND depth < $8",
            params![
                &digests.sha256.0,
                &digests.md5,
                i64::from(digests.crc32),
                i64::from(digests.crc32c),
                digests.crc64nvme as i64,
                digests.sha1.as_ref(),
                id.0,
                DEPTH_MAX as i64,
            ],
        )
        .await
}

/// Makes a composite one extent of an equal content. The contents that its extents referred to, each once, are the
/// caller's to release; `None` when the equal one lies too deep already.
pub async fn stand_for(
    session: &mut Session,
    id: ContentId,
    equal: ContentId,
) -> Result<Option<Vec<ContentId>>, Fault> {
    let found = session
        .query_one(
            "SELECT depth, length FROM contents WHERE id = $1",
            params![equal.0],
            |row| Ok((row.int(0)?, row.size(1)?)),
        )
        .await?;
    let Some((depth, length)) = found.filter(|(depth, _)| *depth < DEPTH_MAX as i64) else {
        return Ok(None);
    };
    session.changed(&CONTENTS, params![id.0]);
    let given_up = releases::take_extents(session, id).await?;
    let whole = Extent {
        start: 0,
        length,
        child: equal,
        child_offset: 0,
    };
    contents::insert_extent(session, id, 0, &whole, None).await?;
    session
        .execute(
            "UPDATE contents SET depth = $1 WHERE id = $2",
            params![depth + 1, id.0],
        )
        .await?;
    Ok(Some(given_up))
}
