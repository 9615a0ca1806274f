//! Rows of the parts of completed uploads, by the version they became.

use super::catalog::VERSION_PARTS;
use super::codec;
use super::session::{Session, params};
use crate::model::digest::ObjectChecksum;
use crate::model::fault::Fault;
use crate::model::ids::Uid;

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
pub async fn insert(session: &mut Session, uid: Uid, parts: &[VersionPart]) -> Result<(), Fault> {
    session.changed(&VERSION_PARTS, params![uid.0]);
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
pub async fn delete(session: &mut Session, uid: Uid) -> Result<(), Fault> {
    session.changed(&VERSION_PARTS, params![uid.0]);
    session
        .execute("DELETE FROM version_parts WHERE uid = $1", params![uid.0])
        .await
}

/// Parts of a version with a number above `after`, in order, at most `limit`.
pub async fn list(
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
pub async fn copy(session: &mut Session, from: Uid, to: Uid) -> Result<(), Fault> {
    session.changed(&VERSION_PARTS, params![to.0]);
    session
        .execute(
            "INSERT INTO version_parts (uid, number, size, checksum)
             SELECT $1, number, size, checksum FROM version_parts WHERE uid = $2",
            params![to.0, from.0],
        )
        .await
}
