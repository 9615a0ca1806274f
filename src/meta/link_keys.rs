//! Rows of the keys that sign links of the native API.

use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::fault::Fault;

/// Most keys looked at: one is made a month, and old ones go.
const KEYS_MAX: i64 = 64;

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkKeyRow {
    /// Its number, which links name it by.
    pub id: i64,
    /// The key, sealed by the master key.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created: Millis,
}

fn link_key(row: &Row<'_>) -> Result<LinkKeyRow, Fault> {
    Ok(LinkKeyRow {
        id: row.int(0)?,
        sealed: row.bytes(1)?.to_vec(),
        created: row.int(2)?,
    })
}

/// All keys, newest first.
pub async fn all(session: &mut Session) -> Result<Vec<LinkKeyRow>, Fault> {
    session
        .query(
            "SELECT id, sealed, created FROM link_keys ORDER BY created DESC, id DESC LIMIT $1",
            params![KEYS_MAX],
            link_key,
        )
        .await
}

/// A key by its number.
pub async fn find(session: &mut Session, id: i64) -> Result<Option<LinkKeyRow>, Fault> {
    session
        .query_one(
            "SELECT id, sealed, created FROM link_keys WHERE id = $1",
            params![id],
            link_key,
        )
        .await
}

/// Adds a key.
pub async fn insert(session: &mut Session, key: &LinkKeyRow) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO link_keys (id, sealed, created) VALUES ($1, $2, $3)",
            params![key.id, key.sealed.as_slice(), key.created],
        )
        .await
}

/// Forgets a key: its links are refused from now on.
pub async fn delete(session: &mut Session, id: i64) -> Result<(), Fault> {
    session
        .execute("DELETE FROM link_keys WHERE id = $1", params![id])
        .await
}
