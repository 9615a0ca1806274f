//! Rows of tenants and access keys.

use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::ids::{SenderId, TenantId};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its id.
    pub id: TenantId,
    /// Its name, which is its display name too.
    pub name: String,
    /// The canonical user id S3 answers with.
    pub owner_id: String,
    /// When it was made.
    pub created: Millis,
}

/// An access key with its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id: the sender of possession.
    pub id: SenderId,
    /// The public half.
    pub access_key: String,
    /// Whose it is.
    pub tenant: TenantRow,
    /// The secret half, sealed.
    pub secret_sealed: Vec<u8>,
    /// Whether it may be used.
    pub active: bool,
    /// Until when, for a temporary key.
    pub expires_at: Option<Millis>,
    /// When it was made.
    pub created: Millis,
}

fn tenant(row: &Row<'_>, first: usize) -> Result<TenantRow, Fault> {
    Ok(TenantRow {
        id: TenantId(row.int(first)?),
        name: row.str(first + 1)?.to_owned(),
        owner_id: row.str(first + 2)?.to_owned(),
        created: row.int(first + 3)?,
    })
}

fn key(row: &Row<'_>) -> Result<KeyRow, Fault> {
    Ok(KeyRow {
        id: SenderId(row.int(0)?),
        access_key: row.str(1)?.to_owned(),
        secret_sealed: row.bytes(2)?.to_vec(),
        active: row.str(3)? == "active",
        expires_at: row.opt_int(4)?,
        created: row.int(5)?,
        tenant: tenant(row, 6)?,
    })
}

/// An access key that is not deleted.
pub async fn find_key(session: &mut Session, access_key: &str) -> Result<Option<KeyRow>, Fault> {
    session
        .query_one(
            "SELECT k.id, k.access_key, k.secret_sealed, k.state, k.expires_at, k.created,
                    t.id, t.name, t.owner_id, t.created
             FROM access_keys k JOIN tenants t ON t.id = k.tenant_id
             WHERE k.access_key = $1 AND k.state <> 'deleted'",
            params![access_key],
            key,
        )
        .await
}

/// All access keys that are not deleted, by tenant and name.
pub async fn keys(session: &mut Session) -> Result<Vec<KeyRow>, Fault> {
    session
        .query(
            "SELECT k.id, k.access_key, k.secret_sealed, k.state, k.expires_at, k.created,
                    t.id, t.name, t.owner_id, t.created
             FROM access_keys k JOIN tenants t ON t.id = k.tenant_id
             WHERE k.state <> 'deleted' ORDER BY t.name, k.access_key",
            &[],
            key,
        )
        .await
}

/// Inserts an access key; its name must be known to be free.
pub async fn insert_key(
    session: &mut Session,
    id: SenderId,
    access_key: &str,
    tenant: TenantId,
    secret_sealed: &[u8],
    now: Millis,
) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO access_keys (id, access_key, tenant_id, secret_sealed, state, created)
             VALUES ($1, $2, $3, $4, 'active', $5)",
            params![id.0, access_key, tenant.0, secret_sealed, now],
        )
        .await
}

/// Replaces the sealed secret of an access key.
pub async fn set_secret(
    session: &mut Session,
    id: SenderId,
    secret_sealed: &[u8],
) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE access_keys SET secret_sealed = $1 WHERE id = $2",
            params![secret_sealed, id.0],
        )
        .await
}

/// Enables or disables an access key.
pub async fn set_active(session: &mut Session, id: SenderId, active: bool) -> Result<(), Fault> {
    let state = if active { "active" } else { "disabled" };
    session
        .execute(
            "UPDATE access_keys SET state = $1 WHERE id = $2",
            params![state, id.0],
        )
        .await
}

/// Deletes an access key. The row stays under a name no client can send, so that its id is never given
/// again and what it sent is never another key's.
pub async fn delete_key(session: &mut Session, id: SenderId) -> Result<(), Fault> {
    let name = format!("deleted:{id}");
    session
        .execute(
            "UPDATE access_keys SET state = 'deleted', access_key = $1, secret_sealed = $2 WHERE id = $3",
            params![name.as_str(), &[0u8; 0], id.0],
        )
        .await
}

/// A tenant by name.
pub async fn find_tenant(session: &mut Session, name: &str) -> Result<Option<TenantRow>, Fault> {
    session
        .query_one(
            "SELECT id, name, owner_id, created FROM tenants WHERE name = $1",
            params![name],
            |row| tenant(row, 0),
        )
        .await
}

/// A tenant by id.
pub async fn tenant_by_id(session: &mut Session, id: TenantId) -> Result<Option<TenantRow>, Fault> {
    session
        .query_one(
            "SELECT id, name, owner_id, created FROM tenants WHERE id = $1",
            params![id.0],
            |row| tenant(row, 0),
        )
        .await
}

/// All tenants by name.
pub async fn tenants(session: &mut Session) -> Result<Vec<TenantRow>, Fault> {
    session
        .query(
            "SELECT id, name, owner_id, created FROM tenants ORDER BY name",
            &[],
            |row| tenant(row, 0),
        )
        .await
}

/// Inserts a tenant; its name must be known to be free.
pub async fn insert_tenant(session: &mut Session, tenant: &TenantRow) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO tenants (id, name, owner_id, created) VALUES ($1, $2, $3, $4)",
            params![
                tenant.id.0,
                tenant.name.as_str(),
                tenant.owner_id.as_str(),
                tenant.created
            ],
        )
        .await
}

/// How many access keys that are not deleted a tenant has.
pub async fn count_keys(session: &mut Session, tenant: TenantId) -> Result<u64, Fault> {
    let count = session
        .query_one(
            "SELECT COUNT(*) FROM access_keys WHERE tenant_id = $1 AND state <> 'deleted'",
            params![tenant.0],
            |row| row.size(0),
        )
        .await?;
    Ok(count.unwrap_or(0))
}

/// Deletes a tenant without buckets and keys. Refused by its foreign keys while any content of its realm
/// still waits for the collector; the caller then renames it away instead.
pub async fn rename_tenant(session: &mut Session, id: TenantId, name: &str) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE tenants SET name = $1 WHERE id = $2",
            params![name, id.0],
        )
        .await
}
