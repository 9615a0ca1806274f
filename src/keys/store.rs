//! Wrapping and unwrapping data keys.

use std::sync::Arc;
use std::time::Duration;

use aes_gcm::Aes256Gcm;
use moka::sync::Cache;
use zeroize::Zeroizing;

use super::data::DataKey;
use super::master::{MasterKey, VersionName};
use super::seal::{KEY_BYTES, fill};
use crate::meta::wrap_keys::{self, KeyKind, VersionRow, WrapKeyRow};
use crate::meta::{Bell, MetaStore, Remembered, Session};
use crate::model::clock::Clock;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, KeyVersionId, TenantId, UidGenerator, WrapKeyId};

/// How long an opened key is used before its row is read again.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(2);
/// Opened keys remembered for that long.
const REMEMBERED: u64 = 1024;

/// Why a key could not be used or changed. The texts are for an operator.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No tenant of this name.
    #[error("there is no tenant {0:?}; `osproxy tenants list` shows those there are")]
    NoSuchTenant(String),
    /// The tenant has no key of this name or alias.
    #[error("there is no KMS key {0:?}; `osproxy kms list` shows those there are")]
    NoSuchKey(String),
    /// It may not be used.
    #[error("the KMS key {0:?} is disabled; `osproxy kms enable` enables it")]
    Disabled(String),
    /// The key id or alias is taken.
    #[error("the tenant has a KMS key {0:?} already")]
    Taken(String),
    /// A key id, alias or description breaks the rules.
    #[error("{what} {text:?}: expected {expected}")]
    Text {
        /// Which of them.
        what: &'static str,
        /// What was given.
        text: String,
        /// The rule.
        expected: &'static str,
    },
    /// A store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<KeyError> for Fault {
    /// For where a key was checked before, and is in the way only by a race.
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Fault(fault) => fault,
            KeyError::Disabled(_) => Fault::new(Kind::Unavailable, "use key").source(error),
            other => Fault::new(Kind::Corrupt, "use key").source(other),
        }
    }
}

/// A wrapped data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// What wrapped it.
    pub version: KeyVersionId,
    /// The sealed key.
    pub bytes: Vec<u8>,
}

/// A version ready for use.
pub(super) struct Opened {
    name: VersionName,
    enabled: bool,
    cipher: Aes256Gcm,
}

impl Opened {
    fn usable(self: Arc<Self>) -> Result<Arc<Self>, KeyError> {
        match self.enabled {
            true => Ok(self),
            false => Err(KeyError::Disabled(self.name.key.to_string())),
        }
    }

    /// What a data key under this version is bound to.
    fn bound(&self, content: ContentId) -> Vec<u8> {
        let VersionName { id, key, tenant } = &self.name;
        let mut bound = b"data key".to_vec();
        for number in [tenant.0, key.0, id.0, content.0] {
            bound.extend_from_slice(&number.to_be_bytes());
        }
        bound
    }
}

/// The wrapping keys of all tenants. Shared by all requests.
pub struct Keys {
    pub(super) meta: MetaStore,
    master_key: MasterKey,
    pub(super) uids: Arc<UidGenerator>,
    pub(super) clock: Clock,
    /// What wraps now.
    current: Remembered<WrapKeyId, Arc<Opened>>,
    versions: Remembered<KeyVersionId, Arc<Opened>>,
    pub(super) changed: Bell,
    /// The tenants' own keys; these never change.
    tenants: Cache<TenantId, WrapKeyId>,
}

impl Keys {
    /// The keys in an open database, which `master_key` opens. `changed` is rung when keys were changed.
    pub fn new(
        meta: MetaStore,
        master_key: MasterKey,
        uids: Arc<UidGenerator>,
        clock: Clock,
        changed: Bell,
    ) -> Self {
        Self {
            meta,
            master_key,
            uids,
            clock,
            current: Remembered::new(REMEMBERED, REMEMBERED_FOR, changed.clone()),
            versions: Remembered::new(REMEMBERED, REMEMBERED_FOR, changed.clone()),
            changed,
            tenants: Cache::builder().max_capacity(REMEMBERED).build(),
        }
    }

    /// The key of a tenant's own, made when there is none yet.
    pub async fn of_tenant(&self, tenant: TenantId) -> Result<WrapKeyId, Fault> {
        if let Some(key) = self.tenants.get(&tenant) {
            return Ok(key);
        }
        let found = self
            .meta
            .read("find tenant key", move |session| {
                Box::pin(wrap_keys::find_named(session, tenant, ""))
            })
            .await?;
        let key = match found {
            Some(row) => row.id,
            None => {
                let row = WrapKeyRow {
                    id: WrapKeyId(self.uids.next()?),
                    tenant,
                    kind: KeyKind::Tenant,
                    name: String::new(),
                    alias: None,
                    description: String::new(),
                    enabled: true,
                    version: 1,
                    created: self.clock.now(),
                };
                self.ensure(row).await?.id
            }
        };
        self.tenants.insert(tenant, key);
        Ok(key)
    }

    /// Inserts a key with its first version, unless the tenant has one of that name; answers the one that
    /// stands.
    pub(super) async fn ensure(&self, row: WrapKeyRow) -> Result<WrapKeyRow, Fault> {
        let version = self.draw_version(&row)?;
        self.meta
            .transact("make key", move |session| {
                let (row, version) = (row.clone(), version.clone());
                Box::pin(async move {
                    let found = wrap_keys::find_named(session, row.tenant, &row.name).await?;
                    if let Some(found) = found {
                        return Ok(found);
                    }
                    insert(session, &row, &version).await?;
                    Ok(row)
                })
            })
            .await
    }

    /// A new random version of a key, sealed.
    pub(super) fn draw_version(&self, row: &WrapKeyRow) -> Result<VersionRow, Fault> {
        let id = KeyVersionId(self.uids.next()?);
        let name = VersionName {
            id,
            key: row.id,
            tenant: row.tenant,
        };
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill(key.as_mut())?;
        Ok(VersionRow {
            id,
            key: row.id,
            tenant: row.tenant,
            enabled: row.enabled,
            sealed: self.master_key.seal_version(&name, &key)?,
        })
    }

    /// Wraps the data key of a content under the newest version of a key.
    pub async fn wrap(
        &self,
        key: WrapKeyId,
        data: &DataKey,
        content: ContentId,
    ) -> Result<Wrapped, KeyError> {
        let opened = match self.current.get(&key) {
            Some(opened) => opened,
            None => {
                let reading = self.current.begin();
                let found = self
                    .meta
                    .read("find wrapping key", move |session| {
                        Box::pin(wrap_keys::current_version(session, key))
                    })
                    .await?;
                let opened = self.open(found, key)?;
                self.current.insert(key, Arc::clone(&opened), reading);
                opened
            }
        };
        let opened = opened.usable()?;
        Ok(Wrapped {
            version: opened.name.id,
            bytes: data.wrap(&opened.cipher, &opened.bound(content))?,
        })
    }

    /// The data key of a content, as [`Keys::wrap`] wrapped it.
    pub async fn unwrap(
        &self,
        version: KeyVersionId,
        wrapped: &[u8],
        content: ContentId,
    ) -> Result<DataKey, KeyError> {
        let opened = match self.versions.get(&version) {
            Some(opened) => opened,
            None => {
                let reading = self.versions.begin();
                let found = self
                    .meta
                    .read("find wrapping key", move |session| {
                        Box::pin(wrap_keys::find_version(session, version))
                    })
                    .await?;
                let opened = self.open(found, version)?;
                self.versions.insert(version, Arc::clone(&opened), reading);
                opened
            }
        };
        let opened = opened.usable()?;
        DataKey::unwrap(&opened.cipher, &opened.bound(content), wrapped).ok_or_else(|| {
            KeyError::Fault(
                Fault::new(Kind::Corrupt, "unwrap data key")
                    .context(format_args!("content {content}, key version {version}")),
            )
        })
    }

    fn open(
        &self,
        found: Option<VersionRow>,
        wanted: impl std::fmt::Display,
    ) -> Result<Arc<Opened>, Fault> {
        let row = found.ok_or_else(|| {
            Fault::new(Kind::Corrupt, "find wrapping key")
                .context(format_args!("{wanted} has no row"))
        })?;
        let name = VersionName::of(&row);
        Ok(Arc::new(Opened {
            cipher: self.master_key.open_version(&name, &row.sealed)?,
            enabled: row.enabled,
            name,
        }))
    }
}

/// Inserts a key and its first version.
pub(super) async fn insert(
    session: &mut Session,
    row: &WrapKeyRow,
    version: &VersionRow,
) -> Result<(), Fault> {
    wrap_keys::insert(session, row).await?;
    wrap_keys::insert_version(
        session,
        version.id,
        row.id,
        row.version,
        &version.sealed,
        row.created,
    )
    .await
}
