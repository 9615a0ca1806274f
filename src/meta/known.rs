//! Contents as they are found by digest: those that are known, without those whose bytes are lost.

use super::codec::{self, digest_columns};
use super::findings::{self, suspect};
use super::session::{Session, params};
use crate::model::digest::{Digests, Sha256Digest};
use crate::model::fault::Fault;
use crate::model::ids::{ContentId, SpaceId};

/// A content as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: ContentId,
    /// What it is known by; the ETag and checksums a request may be compared with.
    pub digests: Digests,
}

/// The content of these bytes in `space`, if it is known and as far as is known not lost. A plain read: the row may be
/// collected later, and [`lock_well`] decides at commit.
pub async fn find(
    session: &mut Session,
    space: SpaceId,
    sha256: &Sha256Digest,
    length: u64,
) -> Result<Option<Known>, Fault> {
    Ok(match standing(session, space, sha256, length).await? {
        Some(Standing::Well(known)) => Some(known),
        Some(Standing::Lost) | None => None,
    })
}

/// The one content that is found by a digest in its space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known to be wrong with it.
    Well(Known),
    /// Its bytes were found to be bad or missing, and no copy has them: nothing more may refer to it, until somebody
    /// sends them again.
    Lost,
}

/// The content of these bytes in `space`, lost or not. A plain read.
pub async fn standing(
    session: &mut Session,
    space: SpaceId,
    sha256: &Sha256Digest,
    length: u64,
) -> Result<Option<Standing>, Fault> {
    let found = session
        .query_one(
            concat!(
                "SELECT id, ",
                digest_columns!(),
                ", ",
                suspect!(),
                " FROM contents c WHERE c.space_id = $1 AND c.sha256 = $2 AND c.length = $3"
            ),
            params![space.0, &sha256.0, length as i64],
            |row| {
                let known = Known {
                    id: ContentId(row.int(0)?),
                    digests: codec::known_digests(row, 1)?,
                };
                Ok((known, row.int(8)? != 0))
            },
        )
        .await?;
    Ok(match found {
        None => None,
        Some((known, true)) if findings::is_lost(session, known.id).await? => Some(Standing::Lost),
        Some((known, _)) => Some(Standing::Well(known)),
    })
}

/// Contents in `space` whose MD5 is this, that can be shared and do not lie in their row, at most `limit`, without those
/// that are lost. An MD5 is a hint: more than one may have it.
pub async fn find_by_md5(
    session: &mut Session,
    space: SpaceId,
    md5: &[u8; 16],
    limit: usize,
) -> Result<Vec<Known>, Fault> {
    let found = session
        .query(
            concat!(
                "SELECT id, ",
                digest_columns!(),
                ", ",
                suspect!(),
                " FROM contents c
                 WHERE c.space_id = $1 AND c.md5 = $2 AND c.md5 IS NOT NULL AND c.kind <> 'inline'
                   AND c.sha256 IS NOT NULL
                 LIMIT $3"
            ),
            params![space.0, md5, limit as i64],
            |row| {
                let known = Known {
                    id: ContentId(row.int(0)?),
                    digests: codec::known_digests(row, 1)?,
                };
                Ok((known, row.int(8)? != 0))
            },
        )
        .await?;
    let mut well = Vec::with_capacity(found.len());
    for (known, is_suspect) in found {
        if !is_suspect || !findings::is_lost(session, known.id).await? {
            well.push(known);
        }
    }
    Ok(well)
}

/// The same as [`super::contents::lock`] for who was told that the content is known: `false` as well when it is lost.
pub async fn lock_well(session: &mut Session, id: ContentId) -> Result<bool, Fault> {
    let sql = concat!(
        "SELECT ",
        suspect!(),
        " FROM contents c WHERE c.id = $1 /*FOR SHARE*/"
    );
    let found = session
        .query_one(sql, params![id.0], |row| row.int(0))
        .await?;
    Ok(match found {
        None => false,
        Some(0) => true,
        Some(_) => !findings::is_lost(session, id).await?,
    })
}
