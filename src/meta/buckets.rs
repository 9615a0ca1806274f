//! Rows of buckets, and of the backends and spaces they name.

use super::catalog::{BACKENDS, BUCKETS, SPACES};
use super::session::{Row, Session, params};
use crate::model::bucket::{Bucket, Dedup, Settings, Versioning};
use crate::model::content::Protection;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BucketId, SpaceId, TenantId};
use crate::model::names::BucketName;

/// What [`bucket`] reads.
macro_rules! bucket_columns {
    () => {
        "SELECT id, name, tenant_id, space_id, dedup, created, region, rev, versioning, object_lock, settings
         FROM buckets"
    };
}

fn bucket(row: &Row<'_>) -> Result<Bucket, Fault> {
    let corrupt = |what: &'static str| Fault::new(Kind::Corrupt, "decode row").context(what);
    Ok(Bucket {
        id: BucketId(row.int(0)?),
        name: BucketName::parse(row.str(1)?).map_err(|_| corrupt("name of bucket"))?,
        tenant: TenantId(row.int(2)?),
        space: SpaceId(row.int(3)?),
        dedup: match row.str(4)? {
            "off" => Dedup::Off,
            "object" => Dedup::Object,
            _ => return Err(corrupt("dedup of bucket")),
        },
        created: row.int(5)?,
        region: row.str(6)?.to_owned(),
        rev: row.int(7)?,
        versioning: match row.str(8)? {
            "never" => Versioning::Never,
            "enabled" => Versioning::Enabled,
            "suspended" => Versioning::Suspended,
            _ => return Err(corrupt("versioning of bucket")),
        },
        object_lock: row.int(9)? != 0,
        settings: match row.opt_str(10)? {
            None => Settings::default(),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| corrupt("settings of bucket").source(error))?,
        },
    })
}

/// A bucket by its global name.
pub async fn find(session: &mut Session, name: &BucketName) -> Result<Option<Bucket>, Fault> {
    session
        .query_one(
            concat!(bucket_columns!(), " WHERE name = $1"),
            params![name.as_str()],
            bucket,
        )
        .await
}

/// Locks a bucket against its deletion for the rest of the transaction, and reads its revision; `None` when
/// it is gone.
pub async fn lock(session: &mut Session, id: BucketId) -> Result<Option<i64>, Fault> {
    session
        .query_one(
            "SELECT rev FROM buckets WHERE id = $1 /*FOR SHARE*/",
            params![id.0],
            |row| row.int(0),
        )
        .await
}

/// A bucket by its id.
pub async fn find_by_id(session: &mut Session, id: BucketId) -> Result<Option<Bucket>, Fault> {
    session
        .query_one(
            concat!(bucket_columns!(), " WHERE id = $1"),
            params![id.0],
            bucket,
        )
        .await
}

/// A bucket by its id, locked against every other transaction that locks it.
pub async fn lock_alone(session: &mut Session, id: BucketId) -> Result<Option<Bucket>, Fault> {
    session
        .query_one(
            concat!(bucket_columns!(), " WHERE id = $1 /*FOR UPDATE*/"),
            params![id.0],
            bucket,
        )
        .await
}

fn versioning_to_column(versioning: Versioning) -> &'static str {
    match versioning {
        Versioning::Never => "never",
        Versioning::Enabled => "enabled",
        Versioning::Suspended => "suspended",
    }
}

/// The column for settings; `None` when nothing is set.
fn settings_to_column(settings: &Settings) -> Result<Option<String>, Fault> {
    if *settings == Settings::default() {
        return Ok(None);
    }
    serde_json::to_string(settings)
        .map(Some)
        .map_err(|error| Fault::new(Kind::Internal, "encode settings").source(error))
}

/// Writes what can change of a bucket, its revision included.
pub async fn update(session: &mut Session, bucket: &Bucket) -> Result<(), Fault> {
    session.changed(&BUCKETS, params![bucket.id.0]);
    let settings = settings_to_column(&bucket.settings)?;
    session
        .execute(
            "UPDATE buckets SET versioning = $1, object_lock = $2, settings = $3, rev = $4 WHERE id = $5",
            params![
                versioning_to_column(bucket.versioning),
                bucket.object_lock,
                settings.as_deref(),
                bucket.rev,
                bucket.id.0,
            ],
        )
        .await
}

/// Inserts a bucket; its name must be known to be free.
pub async fn insert(session: &mut Session, bucket: &Bucket) -> Result<(), Fault> {
    session.changed(&BUCKETS, params![bucket.id.0]);
    let dedup = match bucket.dedup {
        Dedup::Off => "off",
        Dedup::Object => "object",
    };
    let settings = settings_to_column(&bucket.settings)?;
    session
        .execute(
            "INSERT INTO buckets (id, name, tenant_id, space_id, dedup, versioning, object_lock, rev, region,
                                  created, settings)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                bucket.id.0,
                bucket.name.as_str(),
                bucket.tenant.0,
                bucket.space.0,
                dedup,
                versioning_to_column(bucket.versioning),
                bucket.object_lock,
                bucket.rev,
                bucket.region.as_str(),
                bucket.created,
                settings.as_deref(),
            ],
        )
        .await
}

/// Deletes a bucket that is known to hold nothing, with what is left of its ended uploads.
pub async fn delete(session: &mut Session, id: BucketId) -> Result<(), Fault> {
    session.changed(&BUCKETS, params![id.0]);
    session
        .execute(
            "DELETE FROM upload_parts WHERE upload_uid IN (SELECT uid FROM uploads WHERE bucket_id = $1)",
            params![id.0],
        )
        .await?;
    for sql in [
        "DELETE FROM uploads WHERE bucket_id = $1",
        "DELETE FROM usage WHERE bucket_id = $1",
        "DELETE FROM buckets WHERE id = $1",
    ] {
        session.execute(sql, params![id.0]).await?;
    }
    Ok(())
}

/// A tenant's buckets whose names begin with `prefix` and come after `after`, in order, at most `limit`.
pub async fn list(
    session: &mut Session,
    tenant: TenantId,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<Vec<Bucket>, Fault> {
    // Names hold none of the bytes above `~`, so this bound ends the prefix.
    let end = format!("{prefix}\u{7f}");
    session
        .query(
            concat!(
                bucket_columns!(),
                " WHERE tenant_id = $1 AND name > $2 AND name >= $3 AND name < $4 ORDER BY name LIMIT $5"
            ),
            params![tenant.0, after, prefix, end.as_str(), limit as i64],
            bucket,
        )
        .await
}

/// Buckets for which something is set, with ids above `after`, by id, at most `limit`.
pub async fn with_settings(
    session: &mut Session,
    after: BucketId,
    limit: usize,
) -> Result<Vec<Bucket>, Fault> {
    session
        .query(
            concat!(
                bucket_columns!(),
                " WHERE settings IS NOT NULL AND id > $1 ORDER BY id LIMIT $2"
            ),
            params![after.0, limit as i64],
            bucket,
        )
        .await
}

/// How many buckets a tenant has.
pub async fn count(session: &mut Session, tenant: TenantId) -> Result<u64, Fault> {
    let count = session
        .query_one(
            "SELECT COUNT(*) FROM buckets WHERE tenant_id = $1",
            params![tenant.0],
            |row| row.size(0),
        )
        .await?;
    Ok(count.unwrap_or(0))
}

/// The sum of a bucket's usage over all workers, as objects and bytes; of all buckets for `None`.
pub async fn usage(session: &mut Session, id: Option<BucketId>) -> Result<(u64, u64), Fault> {
    let found = session
        .query_one(
            "SELECT CAST(COALESCE(SUM(objects), 0) AS INTEGER), CAST(COALESCE(SUM(bytes), 0) AS INTEGER)
             FROM usage WHERE $1 IS NULL OR bucket_id = $1",
            params![id.map(|id| id.0)],
            |row| Ok((row.size(0)?, row.size(1)?)),
        )
        .await?;
    Ok(found.unwrap_or_default())
}

/// The space of a realm at a placement, made with `new_id` when there is none yet.
pub async fn space(
    session: &mut Session,
    new_id: SpaceId,
    realm: TenantId,
    placement: i64,
) -> Result<SpaceId, Fault> {
    ensure_space(session, new_id, (realm.0, placement, 0)).await
}

/// The space of this realm, placement and protection, made with `new_id` when there is none yet.
async fn ensure_space(
    session: &mut Session,
    new_id: SpaceId,
    (realm, placement, encrypted): (i64, i64, i64),
) -> Result<SpaceId, Fault> {
    let found = session
        .query_one(
            "SELECT id FROM spaces WHERE realm_id = $1 AND placement_id = $2 AND encrypted = $3",
            params![realm, placement, encrypted],
            |row| row.int(0),
        )
        .await?;
    if let Some(id) = found {
        return Ok(SpaceId(id));
    }
    session.changed(&SPACES, params![new_id.0]);
    session
        .execute(
            "INSERT INTO spaces (id, realm_id, placement_id, encrypted) VALUES ($1, $2, $3, $4)",
            params![new_id.0, realm, placement, encrypted],
        )
        .await?;
    Ok(new_id)
}

/// The space beside `beside`, of the same realm and placement, whose contents are protected so; made with
/// `new_id` when there is none yet. [`Kind::Corrupt`] when `beside` is not there.
pub async fn space_beside(
    session: &mut Session,
    new_id: SpaceId,
    beside: SpaceId,
    protection: Protection,
) -> Result<SpaceId, Fault> {
    if let Some(found) = find_space_beside(session, beside, protection).await? {
        return Ok(found);
    }
    session.changed(&SPACES, params![new_id.0]);
    session
        .execute(
            "INSERT INTO spaces (id, realm_id, placement_id, encrypted)
             SELECT $1, realm_id, placement_id, $2 FROM spaces WHERE id = $3",
            params![new_id.0, encrypted(protection), beside.0],
        )
        .await?;
    let made = find_space_beside(session, beside, protection).await?;
    made.ok_or_else(|| {
        Fault::new(Kind::Corrupt, "find space").context(format_args!("space {beside} has no row"))
    })
}

/// The space beside `beside` as in [`space_beside`], if there is one.
pub async fn find_space_beside(
    session: &mut Session,
    beside: SpaceId,
    protection: Protection,
) -> Result<Option<SpaceId>, Fault> {
    let found = session
        .query_one(
            "SELECT s.id FROM spaces b
             JOIN spaces s ON s.realm_id = b.realm_id AND s.placement_id = b.placement_id
             WHERE b.id = $1 AND s.encrypted = $2",
            params![beside.0, encrypted(protection)],
            |row| row.int(0),
        )
        .await?;
    Ok(found.map(SpaceId))
}

fn encrypted(protection: Protection) -> i64 {
    match protection {
        Protection::None => 0,
        Protection::Tenant => 1,
        // Ids begin far above.
        Protection::Kms(key) => key.0,
    }
}

/// Every backend's id by name.
pub async fn backends(session: &mut Session) -> Result<Vec<(i64, String)>, Fault> {
    session
        .query("SELECT id, name FROM backends ORDER BY id", &[], |row| {
            Ok((row.int(0)?, row.str(1)?.to_owned()))
        })
        .await
}

/// A backend as its row describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRow {
    /// Its name; that of a node's own backend ends with `@` and the node's name.
    pub name: String,
    /// The node on whose disk it lies; `None`: every node reaches it.
    pub node: Option<String>,
}

/// A backend by its row's id.
pub async fn find_backend(session: &mut Session, id: i64) -> Result<Option<BackendRow>, Fault> {
    session
        .query_one(
            "SELECT name, node FROM backends WHERE id = $1",
            params![id],
            |row| {
                Ok(BackendRow {
                    name: row.str(0)?.to_owned(),
                    node: row.opt_str(1)?.map(str::to_owned),
                })
            },
        )
        .await
}

/// Says that a backend lies on this node's own disk.
pub async fn set_backend_node(session: &mut Session, id: i64, node: &str) -> Result<(), Fault> {
    session.changed(&BACKENDS, params![id]);
    session
        .execute(
            "UPDATE backends SET node = $1 WHERE id = $2",
            params![node, id],
        )
        .await
}

/// Whether any blob has a copy at a backend.
pub async fn is_backend_used(session: &mut Session, id: i64) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM copies WHERE backend_id = $1 LIMIT 1",
            params![id],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// What a node calls its own of something that every node has one of.
pub fn own_name(name: &str, node: &str) -> String {
    format!("{name}@{node}")
}

/// Whether `own` is what stands for `space` on some node.
pub async fn stands_for(
    session: &mut Session,
    own: SpaceId,
    space: SpaceId,
) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT o.name, p.name FROM spaces a JOIN placements o ON o.id = a.placement_id
             JOIN spaces b ON b.realm_id = a.realm_id AND b.encrypted = a.encrypted
             JOIN placements p ON p.id = b.placement_id
             WHERE a.id = $1 AND b.id = $2",
            params![own.0, space.0],
            |row| Ok((row.str(0)?.to_owned(), row.str(1)?.to_owned())),
        )
        .await?;
    Ok(found.is_some_and(|(own, common)| {
        let node = own.strip_prefix(common.as_str());
        node.is_some_and(|node| node.starts_with('@'))
    }))
}

/// The space that stands for `space` on `node`: its own, where the placement is one of each node, made with
/// `new_id` when there is none yet; else `space` itself.
pub async fn space_on(
    session: &mut Session,
    new_id: SpaceId,
    space: SpaceId,
    node: &str,
) -> Result<SpaceId, Fault> {
    let found = session
        .query_one(
            "SELECT p.name, s.realm_id, s.encrypted FROM spaces s JOIN placements p ON p.id = s.placement_id
             WHERE s.id = $1",
            params![space.0],
            |row| Ok((row.str(0)?.to_owned(), row.int(1)?, row.int(2)?)),
        )
        .await?;
    let (placement, realm, encrypted) = found.ok_or_else(|| {
        Fault::new(Kind::Corrupt, "find space").context(format_args!("space {space} has no row"))
    })?;
    let own = own_name(&placement, node);
    let placement = session
        .query_one(
            "SELECT id FROM placements WHERE name = $1",
            params![own.as_str()],
            |row| row.int(0),
        )
        .await?;
    let Some(placement) = placement else {
        return Ok(space);
    };
    ensure_space(session, new_id, (realm, placement, encrypted)).await
}

/// Records a configured backend under `new_id`, unless its name is known.
pub async fn ensure_backend(
    session: &mut Session,
    new_id: i64,
    name: &str,
    service: &str,
) -> Result<i64, Fault> {
    let found = session
        .query_one(
            "SELECT id FROM backends WHERE name = $1",
            params![name],
            |row| row.int(0),
        )
        .await?;
    if let Some(id) = found {
        return Ok(id);
    }
    session.changed(&BACKENDS, params![new_id]);
    session
        .execute(
            "INSERT INTO backends (id, name, service) VALUES ($1, $2, $3)",
            params![new_id, name, service],
        )
        .await?;
    Ok(new_id)
}
