//! Rows of the keys that wrap data keys, and of their versions.

use super::catalog::{WRAP_KEY_VERSIONS, WRAP_KEYS};
use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{KeyVersionId, TenantId, WrapKeyId};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// The tenant's own key; one of each tenant.
    Tenant,
    /// A key of the tenant's KMS.
    Kms,
}

/// A key that wraps data keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapKeyRow {
    /// Its id.
    pub id: WrapKeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it is for.
    pub kind: KeyKind,
    /// The key id that clients see; empty for the tenant's own.
    pub name: String,
    /// Another name, without `alias/`.
    pub alias: Option<String>,
    /// For people.
    pub description: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// The number of the version that wraps now, from 1.
    pub version: i64,
    /// When it was made.
    pub created: Millis,
}

/// One version of a key, with what is needed to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Its id.
    pub id: KeyVersionId,
    /// The key it is a version of.
    pub key: WrapKeyId,
    /// Whose that is.
    pub tenant: TenantId,
    /// Whether the key may be used.
    pub enabled: bool,
    /// The version itself, sealed by the master key.
    pub sealed: Vec<u8>,
}

macro_rules! key_columns {
    () => {
        "SELECT id, tenant_id, kind, name, alias, description, state, version, created FROM wrap_keys"
    };
}

fn key(row: &Row<'_>) -> Result<WrapKeyRow, Fault> {
    Ok(WrapKeyRow {
        id: WrapKeyId(row.int(0)?),
        tenant: TenantId(row.int(1)?),
        kind: match row.str(2)? {
            "tenant" => KeyKind::Tenant,
            "kms" => KeyKind::Kms,
            _ => return Err(Fault::new(Kind::Corrupt, "decode row").context("kind of key")),
        },
        name: row.str(3)?.to_owned(),
        alias: row.opt_str(4)?.map(str::to_owned),
        description: row.str(5)?.to_owned(),
        enabled: row.str(6)? == "enabled",
        version: row.int(7)?,
        created: row.int(8)?,
    })
}

macro_rules! version_columns {
    () => {
        "SELECT v.id, v.key_id, k.tenant_id, k.state, v.sealed
         FROM wrap_key_versions v JOIN wrap_keys k ON k.id = v.key_id"
    };
}

fn version(row: &Row<'_>) -> Result<VersionRow, Fault> {
    Ok(VersionRow {
        id: KeyVersionId(row.int(0)?),
        key: WrapKeyId(row.int(1)?),
        tenant: TenantId(row.int(2)?),
        enabled: row.str(3)? == "enabled",
        sealed: row.bytes(4)?.to_vec(),
    })
}

/// A key by its id.
pub async fn find(session: &mut Session, id: WrapKeyId) -> Result<Option<WrapKeyRow>, Fault> {
    session
        .query_one(
            concat!(key_columns!(), " WHERE id = $1"),
            params![id.0],
            key,
        )
        .await
}

/// A tenant's key by its name; the empty one is the tenant's own.
pub async fn find_named(
    session: &mut Session,
    tenant: TenantId,
    name: &str,
) -> Result<Option<WrapKeyRow>, Fault> {
    session
        .query_one(
            concat!(key_columns!(), " WHERE tenant_id = $1 AND name = $2"),
            params![tenant.0, name],
            key,
        )
        .await
}

/// A tenant's key by its alias.
pub async fn find_alias(
    session: &mut Session,
    tenant: TenantId,
    alias: &str,
) -> Result<Option<WrapKeyRow>, Fault> {
    session
        .query_one(
            concat!(key_columns!(), " WHERE tenant_id = $1 AND alias = $2"),
            params![tenant.0, alias],
            key,
        )
        .await
}

/// Every key with an id above `after`, in order of id, at most `limit`.
pub async fn list(
    session: &mut Session,
    after: WrapKeyId,
    limit: usize,
) -> Result<Vec<WrapKeyRow>, Fault> {
    session
        .query(
            concat!(key_columns!(), " WHERE id > $1 ORDER BY id LIMIT $2"),
            params![after.0, limit as i64],
            key,
        )
        .await
}

/// Inserts a key; its names must be known to be free. A version follows.
pub async fn insert(session: &mut Session, row: &WrapKeyRow) -> Result<(), Fault> {
    session.changed(&WRAP_KEYS, params![row.id.0]);
    let kind = match row.kind {
        KeyKind::Tenant => "tenant",
        KeyKind::Kms => "kms",
    };
    session
        .execute(
            "INSERT INTO wrap_keys (id, tenant_id, kind, name, alias, description, state, version, created)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            params![
                row.id.0,
                row.tenant.0,
                kind,
                row.name.as_str(),
                row.alias.as_deref(),
                row.description.as_str(),
                state(row.enabled),
                row.version,
                row.created,
            ],
        )
        .await
}

fn state(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

/// Allows or forbids the use of a key.
pub async fn set_enabled(session: &mut Session, id: WrapKeyId, enabled: bool) -> Result<(), Fault> {
    session.changed(&WRAP_KEYS, params![id.0]);
    session
        .execute(
            "UPDATE wrap_keys SET state = $1 WHERE id = $2",
            params![state(enabled), id.0],
        )
        .await
}

/// Inserts version `number` of a key and makes it the one that wraps.
pub async fn insert_version(
    session: &mut Session,
    id: KeyVersionId,
    key: WrapKeyId,
    number: i64,
    sealed: &[u8],
    now: Millis,
) -> Result<(), Fault> {
    session.changed(&WRAP_KEYS, params![key.0]);
    session.changed(&WRAP_KEY_VERSIONS, params![key.0]);
    session
        .execute(
            "INSERT INTO wrap_key_versions (id, key_id, version, sealed, created)
             VALUES ($1, $2, $3, $4, $5)",
            params![id.0, key.0, number, sealed, now],
        )
        .await?;
    session
        .execute(
            "UPDATE wrap_keys SET version = $1 WHERE id = $2",
            params![number, key.0],
        )
        .await
}

/// The version of a key that wraps now.
pub async fn current_version(
    session: &mut Session,
    key: WrapKeyId,
) -> Result<Option<VersionRow>, Fault> {
    session
        .query_one(
            concat!(
                version_columns!(),
                " WHERE v.key_id = $1 AND v.version = k.version"
            ),
            params![key.0],
            version,
        )
        .await
}

/// A version by its id.
pub async fn find_version(
    session: &mut Session,
    id: KeyVersionId,
) -> Result<Option<VersionRow>, Fault> {
    session
        .query_one(
            concat!(version_columns!(), " WHERE v.id = $1"),
            params![id.0],
            version,
        )
        .await
}

/// Some versions, at most `limit`: what a master key can be tried on.
pub async fn some_versions(session: &mut Session, limit: usize) -> Result<Vec<VersionRow>, Fault> {
    session
        .query(
            concat!(version_columns!(), " ORDER BY v.id LIMIT $1"),
            params![limit as i64],
            version,
        )
        .await
}

/// How many contents each version of a key wraps: whether the version is the one that wraps now, and how
/// many. A scan of those contents' entries in an index.
pub async fn uses(session: &mut Session, key: WrapKeyId) -> Result<Vec<(bool, u64)>, Fault> {
    session
        .query(
            "SELECT CASE WHEN v.version = k.version THEN 1 ELSE 0 END,
                    (SELECT COUNT(*) FROM contents c WHERE c.key_id = v.id)
             FROM wrap_key_versions v JOIN wrap_keys k ON k.id = v.key_id WHERE v.key_id = $1",
            params![key.0],
            |row| Ok((row.int(0)? != 0, row.size(1)?)),
        )
        .await
}

/// Versions that wrap no more and that some content still needs, of keys that may be used.
pub async fn outdated(
    session: &mut Session,
    limit: usize,
) -> Result<Vec<(KeyVersionId, WrapKeyId)>, Fault> {
    session
        .query(
            "SELECT v.id, v.key_id FROM wrap_key_versions v JOIN wrap_keys k ON k.id = v.key_id
             WHERE v.version < k.version AND k.state = 'enabled'
               AND EXISTS (SELECT 1 FROM contents c WHERE c.key_id = v.id)
             ORDER BY v.id LIMIT $1",
            params![limit as i64],
            |row| Ok((KeyVersionId(row.int(0)?), WrapKeyId(row.int(1)?))),
        )
        .await
}
