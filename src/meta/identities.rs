//! Rows of tenants and access keys.

use super::catalog::{ACCESS_KEYS, TENANTS};
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
    /// The policy of its holder, or of the session for a temporary key; `None` allows all.
    pub policy: Option<String>,
    /// What a temporary key has besides.
    pub temporary: Option<TemporaryRow>,
}

/// What a temporary key was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporaryRow {
    /// The access key of its parent; one that no client can send when that was deleted.
    pub parent: String,
    /// Whether its parent may be used.
    pub parent_active: bool,
    /// Its parent's policy.
    pub parent_policy: Option<String>,
    /// The role that was assumed.
    pub role: Option<String>,
    /// The session's name.
    pub session: Option<String>,
}

/// A temporary key to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTemporaryKey {
    /// Its id.
    pub id: SenderId,
    /// The public half.
    pub access_key: String,
    /// The secret half, sealed.
    pub secret_sealed: Vec<u8>,
    /// Whose it is.
    pub tenant: TenantId,
    /// The key that it was made with.
    pub parent: SenderId,
    /// The session's policy.
    pub policy: Option<String>,
    /// The role that was assumed, and the session's name.
    pub role: Option<(String, String)>,
    /// Until when it may be used.
    pub expires_at: Millis,
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

/// What [`key`] reads.
macro_rules! key_columns {
    () => {
        "SELECT k.id, k.access_key, k.secret_sealed, k.state, k.expires_at, k.created,
                t.id, t.name, t.owner_id, t.created,
                k.policy, k.role, k.session, p.access_key, p.state, p.policy
         FROM access_keys k JOIN tenants t ON t.id = k.tenant_id
              LEFT JOIN access_keys p ON p.id = k.parent"
    };
}

fn key(row: &Row<'_>) -> Result<KeyRow, Fault> {
    let owned = |column| row.opt_str(column).map(|text| text.map(str::to_owned));
    let temporary = match owned(13)? {
        None => None,
        Some(parent) => Some(TemporaryRow {
            parent,
            parent_active: row.opt_str(14)? == Some("active"),
            parent_policy: owned(15)?,
            role: owned(11)?,
            session: owned(12)?,
        }),
    };
    Ok(KeyRow {
        policy: owned(10)?,
        temporary,
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
            concat!(
                key_columns!(),
                " WHERE k.access_key = $1 AND k.state <> 'deleted'"
            ),
            params![access_key],
            key,
        )
        .await
}

/// All access keys that are not deleted, by tenant and name.
pub async fn keys(session: &mut Session) -> Result<Vec<KeyRow>, Fault> {
    session
        .query(
            concat!(
                key_columns!(),
                " WHERE k.state <> 'deleted' ORDER BY t.name, k.access_key"
            ),
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
    session.changed(&ACCESS_KEYS, params![id.0]);
    session
        .execute(
            "INSERT INTO access_keys (id, access_key, tenant_id, secret_sealed, state, created)
             VALUES ($1, $2, $3, $4, 'active', $5)",
            params![id.0, access_key, tenant.0, secret_sealed, now],
        )
        .await
}

/// Inserts a temporary key; its name must be known to be free.
pub async fn insert_temporary_key(
    session: &mut Session,
    new: &NewTemporaryKey,
) -> Result<(), Fault> {
    session.changed(&ACCESS_KEYS, params![new.id.0]);
    let (role, name) = match &new.role {
        Some((role, name)) => (Some(role.as_str()), Some(name.as_str())),
        None => (None, None),
    };
    session
        .execute(
            "INSERT INTO access_keys (id, access_key, tenant_id, secret_sealed, state, created,
                                      policy, parent, expires_at, role, session)
             VALUES ($1, $2, $3, $4, 'active', $5, $6, $7, $8, $9, $10)",
            params![
                new.id.0,
                new.access_key.as_str(),
                new.tenant.0,
                new.secret_sealed.as_slice(),
                new.created,
                new.policy.as_deref(),
                new.parent.0,
                new.expires_at,
                role,
                name,
            ],
        )
        .await
}

/// How many temporary keys of a tenant have not expired at `now`.
pub async fn count_temporary_keys(
    session: &mut Session,
    tenant: TenantId,
    now: Millis,
) -> Result<u64, Fault> {
    let count = session
        .query_one(
            "SELECT COUNT(*) FROM access_keys
             WHERE tenant_id = $1 AND parent IS NOT NULL AND expires_at > $2",
            params![tenant.0, now],
            |row| row.size(0),
        )
        .await?;
    Ok(count.unwrap_or(0))
}

/// Temporary keys that expired before `before`, at most `limit`.
pub async fn expired_keys(
    session: &mut Session,
    before: Millis,
    limit: usize,
) -> Result<Vec<SenderId>, Fault> {
    session
        .query(
            "SELECT id FROM access_keys
             WHERE expires_at < $1 AND parent IS NOT NULL ORDER BY expires_at LIMIT $2",
            params![before, limit as i64],
            |row| row.int(0).map(SenderId),
        )
        .await
}

/// Takes away the row of a temporary key. Nothing refers to it: it never gained possession, and no key is
/// made with it.
pub async fn remove_key(session: &mut Session, id: SenderId) -> Result<(), Fault> {
    session.changed(&ACCESS_KEYS, params![id.0]);
    session
        .execute("DELETE FROM access_keys WHERE id = $1", params![id.0])
        .await
}

/// Replaces the policy of an access key; `None` allows all.
pub async fn set_policy(
    session: &mut Session,
    id: SenderId,
    policy: Option<&str>,
) -> Result<(), Fault> {
    session.changed(&ACCESS_KEYS, params![id.0]);
    session
        .execute(
            "UPDATE access_keys SET policy = $1 WHERE id = $2",
            params![policy, id.0],
        )
        .await
}

/// Replaces the sealed secret of an access key.
pub async fn set_secret(
    session: &mut Session,
    id: SenderId,
    secret_sealed: &[u8],
) -> Result<(), Fault> {
    session.changed(&ACCESS_KEYS, params![id.0]);
    session
        .execute(
            "UPDATE access_keys SET secret_sealed = $1 WHERE id = $2",
            params![secret_sealed, id.0],
        )
        .await
}

/// Enables or disables an access key.
pub async fn set_active(session: &mut Session, id: SenderId, active: bool) -> Result<(), Fault> {
    session.changed(&ACCESS_KEYS, params![id.0]);
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
    session.changed(&ACCESS_KEYS, params![id.0]);
    let name = format!("deleted:{id}");
    session
        .execute(
            "UPDATE access_keys SET state = 'deleted', access_key = $1, secret_sealed = $2, policy = NULL WHERE id = $3",
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

/// A tenant by its canonical user id.
pub async fn tenant_by_owner_id(
    session: &mut Session,
    owner_id: &str,
) -> Result<Option<TenantRow>, Fault> {
    session
        .query_one(
            "SELECT id, name, owner_id, created FROM tenants WHERE owner_id = $1",
            params![owner_id],
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
    session.changed(&TENANTS, params![tenant.id.0]);
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

/// How many access keys that are neither deleted nor temporary a tenant has.
pub async fn count_keys(session: &mut Session, tenant: TenantId) -> Result<u64, Fault> {
    let count = session
        .query_one(
            "SELECT COUNT(*) FROM access_keys
             WHERE tenant_id = $1 AND state <> 'deleted' AND parent IS NULL",
            params![tenant.0],
            |row| row.size(0),
        )
        .await?;
    Ok(count.unwrap_or(0))
}

/// Deletes a tenant without buckets and keys. Refused by its foreign keys while any content of its realm
/// still waits for the collector; the caller then renames it away instead.
pub async fn rename_tenant(session: &mut Session, id: TenantId, name: &str) -> Result<(), Fault> {
    session.changed(&TENANTS, params![id.0]);
    session
        .execute(
            "UPDATE tenants SET name = $1 WHERE id = $2",
            params![name, id.0],
        )
        .await
}
