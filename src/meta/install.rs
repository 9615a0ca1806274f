//! The row of an install as a whole.

use sha2::{Digest, Sha256};

use super::session::{Session, params};
use crate::model::fault::Fault;

/// What the install's master key has sealed to be known by; `None` before the first start.
pub async fn master_check(session: &mut Session) -> Result<Option<Vec<u8>>, Fault> {
    session
        .query_one(
            "SELECT master_check FROM install WHERE id = 1",
            &[],
            |row| Ok(row.bytes(0)?.to_vec()),
        )
        .await
}

/// What an install is known by where its blobs lie, as 64 hexadecimal digits: the SHA-256 of what its master key has
/// sealed, which no two databases have in common unless one is a copy or a backup of the other. `None` before the
/// first start.
pub async fn identity(session: &mut Session) -> Result<Option<String>, Fault> {
    let check = master_check(session).await?;
    Ok(check.map(|check| hex::encode(Sha256::digest(check))))
}

/// Records that, once: of two who begin an install at the same time, one loses a race and looks again.
pub async fn record_master_check(session: &mut Session, check: &[u8]) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO install (id, master_check) VALUES (1, $1)",
            params![check],
        )
        .await
}

/// Excludes every other transaction that locks the install, for the rest of this one.
pub async fn lock(session: &mut Session) -> Result<(), Fault> {
    session
        .query_one(
            "SELECT id FROM install WHERE id = 1 /*FOR UPDATE*/",
            &[],
            |row| row.int(0),
        )
        .await?;
    Ok(())
}
