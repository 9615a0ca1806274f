//! Wrapping keys made, listed, disabled and rotated; and the names by which clients ask for KMS keys.

use serde::{Deserialize, Serialize};

use super::seal::fill;
use super::store::{KeyError, Keys, insert};
use crate::meta::wrap_keys::{self, KeyKind, WrapKeyRow};
use crate::meta::{Session, identities};
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::ids::{KeyVersionId, TenantId, WrapKeyId};

/// The alias of the key that S3 uses when a request names none; made on first use.
const DEFAULT_ALIAS: &str = "aws/s3";
/// What the aliases of such keys begin with; nobody else may choose one.
const RESERVED_ALIAS: &str = "aws/";
const NAME_MAX: usize = 128;
const DESCRIPTION_MAX: usize = 8192;
/// Keys read in one go.
const PAGE: usize = 500;

/// A KMS key that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsKey {
    /// Its row, which [`Keys::wrap`] wants.
    pub id: WrapKeyId,
    /// The key id that clients see.
    pub name: String,
}

/// A KMS key to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKmsKey {
    /// The tenant's name.
    pub tenant: String,
    /// The key id that clients will see; `None` draws one.
    pub key_id: Option<String>,
    /// Another name, with or without `alias/`.
    pub alias: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// A key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStatus {
    /// The tenant's name.
    pub tenant: String,
    /// The key id that clients see; `None` is the tenant's own key, which clients do not name.
    pub key_id: Option<String>,
    /// Another name, without `alias/`.
    pub alias: Option<String>,
    /// For people.
    pub description: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// How often it was rotated, plus one.
    pub version: i64,
    /// When it was made, in milliseconds since 1970.
    pub created: Millis,
    /// Contents whose data keys it wraps.
    pub contents: u64,
    /// Those of them that an older version wraps still.
    pub outdated: u64,
}

impl Keys {
    /// The KMS key a client means: by key id, alias, or the ARN of either, whatever account and region that
    /// names. [`KeyError::NoSuchKey`], [`KeyError::Disabled`].
    pub async fn kms(&self, tenant: TenantId, reference: &str) -> Result<KmsKey, KeyError> {
        let wanted = reference.to_owned();
        let row = self
            .meta
            .read("find KMS key", move |session| {
                Box::pin(async move { find(session, tenant, &wanted).await })
            })
            .await?;
        match row.enabled {
            true => Ok(KmsKey {
                id: row.id,
                name: row.name,
            }),
            false => Err(KeyError::Disabled(row.name)),
        }
    }

    /// The KMS key of requests that name none, made on the tenant's first.
    pub async fn kms_default(&self, tenant: TenantId) -> Result<KmsKey, KeyError> {
        match self.kms(tenant, &format!("alias/{DEFAULT_ALIAS}")).await {
            Err(KeyError::NoSuchKey(_)) => {}
            found => return found,
        }
        let row = self.new_kms(tenant, None, Some(DEFAULT_ALIAS.to_owned()))?;
        let version = self.draw_version(&row)?;
        let row = self
            .meta
            .transact("make KMS key", move |session| {
                let (row, version) = (row.clone(), version.clone());
                Box::pin(async move {
                    // Another request may have made it meanwhile.
                    let found = wrap_keys::find_alias(session, row.tenant, DEFAULT_ALIAS).await?;
                    if let Some(found) = found {
                        return Ok(found);
                    }
                    insert(session, &row, &version).await?;
                    Ok::<_, Fault>(row)
                })
            })
            .await?;
        Ok(KmsKey {
            id: row.id,
            name: row.name,
        })
    }

    /// Makes a KMS key and answers it as it is listed.
    pub async fn create_kms(&self, new: NewKmsKey) -> Result<KeyStatus, KeyError> {
        let alias = new.alias.as_deref().map(check_alias).transpose()?;
        if let Some(name) = &new.key_id {
            check_name(name)?;
        }
        if new.description.len() > DESCRIPTION_MAX {
            return Err(KeyError::Text {
                what: "description",
                text: String::new(),
                expected: "at most 8192 bytes",
            });
        }
        let tenant = self.tenant(&new.tenant).await?;
        let mut row = self.new_kms(tenant, new.key_id, alias)?;
        row.description = new.description;
        let version = self.draw_version(&row)?;
        let row = self
            .meta
            .transact("make KMS key", move |session| {
                let (row, version) = (row.clone(), version.clone());
                Box::pin(async move {
                    if wrap_keys::find_named(session, tenant, &row.name)
                        .await?
                        .is_some()
                    {
                        return Err(KeyError::Taken(row.name));
                    }
                    if let Some(alias) = &row.alias
                        && wrap_keys::find_alias(session, tenant, alias)
                            .await?
                            .is_some()
                    {
                        return Err(KeyError::Taken(format!("alias/{alias}")));
                    }
                    insert(session, &row, &version).await?;
                    Ok(row)
                })
            })
            .await?;
        Ok(status(row, new.tenant, &[]))
    }

    fn new_kms(
        &self,
        tenant: TenantId,
        name: Option<String>,
        alias: Option<String>,
    ) -> Result<WrapKeyRow, Fault> {
        Ok(WrapKeyRow {
            id: WrapKeyId(self.uids.next()?),
            tenant,
            kind: KeyKind::Kms,
            name: match name {
                Some(name) => name,
                None => draw_name()?,
            },
            alias,
            description: String::new(),
            enabled: true,
            version: 1,
            created: self.clock.now(),
        })
    }

    /// Allows or forbids the use of a KMS key; in force here at once, and on other nodes within
    /// [`REMEMBERED_FOR`](super::REMEMBERED_FOR).
    pub async fn enable_kms(
        &self,
        tenant: &str,
        reference: &str,
        enabled: bool,
    ) -> Result<KeyStatus, KeyError> {
        let (id, wanted) = (self.tenant(tenant).await?, reference.to_owned());
        let row = self
            .meta
            .transact("enable KMS key", move |session| {
                let wanted = wanted.clone();
                Box::pin(async move {
                    let mut row = find(session, id, &wanted).await?;
                    wrap_keys::set_enabled(session, row.id, enabled).await?;
                    row.enabled = enabled;
                    Ok::<_, KeyError>(row)
                })
            })
            .await?;
        self.changed.ring();
        self.with_uses(row, tenant.to_owned()).await
    }

    /// Makes a new version of a KMS key, which wraps from now on.
    pub async fn rotate_kms(&self, tenant: &str, reference: &str) -> Result<KeyStatus, KeyError> {
        let (id, wanted) = (self.tenant(tenant).await?, reference.to_owned());
        let row = self
            .meta
            .read("find KMS key", move |session| {
                Box::pin(async move { find(session, id, &wanted).await })
            })
            .await?;
        let row = self.rotate(row).await?;
        self.with_uses(row, tenant.to_owned()).await
    }

    /// Makes a new version of a tenant's own key, or of every tenant's for `None`. Answers how many were
    /// rotated: a tenant that never used its key has none.
    pub async fn rotate_tenants(&self, tenant: Option<&str>) -> Result<u64, KeyError> {
        let only = match tenant {
            Some(name) => Some(self.tenant(name).await?),
            None => None,
        };
        let (mut after, mut rotated) = (WrapKeyId(0), 0);
        loop {
            let page = self.page(after).await?;
            let Some(last) = page.last() else {
                return Ok(rotated);
            };
            after = last.id;
            for row in page {
                let is_meant = only.is_none_or(|tenant| tenant == row.tenant);
                if row.kind == KeyKind::Tenant && is_meant {
                    self.rotate(row).await?;
                    rotated += 1;
                }
            }
        }
    }

    async fn rotate(&self, row: WrapKeyRow) -> Result<WrapKeyRow, KeyError> {
        if !row.enabled {
            return Err(KeyError::Disabled(row.name));
        }
        let (key, now) = (row.id, self.clock.now());
        let version = self.draw_version(&row)?;
        let row = self
            .meta
            .transact("rotate key", move |session| {
                let version = version.clone();
                Box::pin(async move {
                    let found = wrap_keys::find(session, key).await?;
                    let mut row = found.ok_or_else(|| KeyError::NoSuchKey(key.to_string()))?;
                    row.version += 1;
                    wrap_keys::insert_version(
                        session,
                        version.id,
                        key,
                        row.version,
                        &version.sealed,
                        now,
                    )
                    .await?;
                    Ok::<_, KeyError>(row)
                })
            })
            .await?;
        self.changed.ring();
        Ok(row)
    }

    /// All keys, in the order in which they were made, with how many contents each wraps. A scan.
    pub async fn list(&self) -> Result<Vec<KeyStatus>, KeyError> {
        let names = self
            .meta
            .scan("list tenants", |session| {
                Box::pin(identities::tenants(session))
            })
            .await
            .map_err(KeyError::Fault)?;
        let (mut after, mut listed) = (WrapKeyId(0), Vec::new());
        loop {
            let page = self.page(after).await?;
            let Some(last) = page.last() else {
                return Ok(listed);
            };
            after = last.id;
            for row in page {
                let tenant = names.iter().find(|tenant| tenant.id == row.tenant);
                let name = tenant.map_or_else(String::new, |tenant| tenant.name.clone());
                listed.push(self.with_uses(row, name).await?);
            }
        }
    }

    /// Versions that wrap no more and are needed still, with their keys; at most `limit`.
    pub async fn outdated(&self, limit: usize) -> Result<Vec<(KeyVersionId, WrapKeyId)>, Fault> {
        self.meta
            .scan("find outdated keys", move |session| {
                Box::pin(wrap_keys::outdated(session, limit))
            })
            .await
    }

    async fn page(&self, after: WrapKeyId) -> Result<Vec<WrapKeyRow>, Fault> {
        self.meta
            .scan("list keys", move |session| {
                Box::pin(wrap_keys::list(session, after, PAGE))
            })
            .await
    }

    async fn with_uses(&self, row: WrapKeyRow, tenant: String) -> Result<KeyStatus, KeyError> {
        let key = row.id;
        let uses = self
            .meta
            .scan("count wrapped", move |session| {
                Box::pin(wrap_keys::uses(session, key))
            })
            .await
            .map_err(KeyError::Fault)?;
        Ok(status(row, tenant, &uses))
    }

    async fn tenant(&self, name: &str) -> Result<TenantId, KeyError> {
        let wanted = name.to_owned();
        let found = self
            .meta
            .read("find tenant", move |session| {
                Box::pin(async move { identities::find_tenant(session, &wanted).await })
            })
            .await
            .map_err(KeyError::Fault)?;
        found
            .map(|tenant| tenant.id)
            .ok_or_else(|| KeyError::NoSuchTenant(name.to_owned()))
    }
}

fn status(row: WrapKeyRow, tenant: String, uses: &[(bool, u64)]) -> KeyStatus {
    let sum = |of: &dyn Fn(bool) -> bool| {
        let counted = uses.iter().filter(|(is_current, _)| of(*is_current));
        counted.map(|(_, count)| count).sum()
    };
    KeyStatus {
        tenant,
        key_id: (row.kind == KeyKind::Kms).then_some(row.name),
        alias: row.alias,
        description: row.description,
        enabled: row.enabled,
        version: row.version,
        created: row.created,
        contents: sum(&|_| true),
        outdated: sum(&|is_current| !is_current),
    }
}

/// The KMS key that `reference` names.
async fn find(
    session: &mut Session,
    tenant: TenantId,
    reference: &str,
) -> Result<WrapKeyRow, KeyError> {
    let name = match reference.strip_prefix("arn:") {
        // partition, service, region, account, resource
        Some(arn) => arn.splitn(5, ':').nth(4).unwrap_or_default(),
        None => reference,
    };
    let name = match reference == name {
        true => name,
        false => name.strip_prefix("key/").unwrap_or(name),
    };
    let found = match name.strip_prefix("alias/") {
        Some(alias) => wrap_keys::find_alias(session, tenant, alias).await?,
        None => wrap_keys::find_named(session, tenant, name).await?,
    };
    found
        .filter(|row| row.kind == KeyKind::Kms)
        .ok_or_else(|| KeyError::NoSuchKey(reference.to_owned()))
}

fn check_name(text: &str) -> Result<(), KeyError> {
    let is_good = text.len() <= NAME_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match is_good {
        true => Ok(()),
        false => Err(KeyError::Text {
            what: "key id",
            text: text.to_owned(),
            expected: "1 to 128 letters, digits, hyphens, underscores or dots, a letter or digit first",
        }),
    }
}

/// The alias without `alias/`.
fn check_alias(text: &str) -> Result<String, KeyError> {
    let alias = text.strip_prefix("alias/").unwrap_or(text);
    let is_good = !alias.is_empty()
        && alias.len() <= NAME_MAX
        && !alias.starts_with(RESERVED_ALIAS)
        && alias
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte));
    match is_good {
        true => Ok(alias.to_owned()),
        false => Err(KeyError::Text {
            what: "alias",
            text: text.to_owned(),
            expected: "1 to 128 letters, digits, hyphens, underscores or slashes, not beginning with aws/",
        }),
    }
}

/// A random UUID, which is what key ids look like elsewhere (RFC 9562, version 4).
fn draw_name() -> Result<String, Fault> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    let group = |from: usize, to: usize| &digits[from..to];
    Ok([
        group(0, 8),
        group(8, 12),
        group(12, 16),
        group(16, 20),
        group(20, 32),
    ]
    .join("-"))
}
