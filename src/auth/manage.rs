//! Tenants and access keys: made, listed, disabled and taken away.
//!
//! Each change is one transaction and in force within a second on every node; a bell tells those who need not wait
//! so long. Names are checked here, so that none can be mistaken for part of a signature or of a deleted row's name.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{ACCESS_KEY_MAX, Place, Policy, Refused};
use crate::keys::{MasterKey, Secret, fill};
use crate::meta::identities::{self, KeyRow, TenantRow};
use crate::meta::{Bell, MetaStore, Session, buckets};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::Fault;
use crate::model::ids::{SenderId, TenantId, UidGenerator};

/// The start of the name that a deleted tenant's row keeps; no tenant can be given such a name.
const DELETED: &str = "deleted:";
const TENANT_NAME_MAX: usize = 64;
const ACCESS_KEY_MIN: usize = 3;
const SECRET_LENGTHS: std::ops::RangeInclusive<usize> = 3..=256;
/// How generated access keys begin, so that they are known as ours when they turn up somewhere.
const GENERATED_PREFIX: &str = "OS";
const GENERATED_ACCESS_KEY: usize = 20;
const GENERATED_SECRET: usize = 40;

/// Makes and takes away tenants and access keys.
#[derive(Clone)]
pub struct Registry {
    meta: MetaStore,
    clock: Clock,
    changed: Bell,
}

/// An access key and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Secret,
}

/// What became of a key that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The key.
    pub pair: Pair,
    /// Whether it was made, and not there already with the same secret and tenant.
    pub is_new: bool,
}

/// What becomes of an access key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It may be used.
    Active,
    /// It is known and may not be used.
    Disabled,
    /// It is gone.
    Deleted,
}

/// A tenant as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantSummary {
    /// Its name.
    pub name: String,
    /// The canonical user id that S3 answers with.
    pub owner_id: String,
    /// When it was made, in milliseconds since 1970.
    pub created: Millis,
    /// How many buckets it owns.
    pub buckets: u64,
    /// How many access keys it has.
    pub keys: u64,
}

/// An access key as it is listed, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeySummary {
    /// The public half.
    pub access_key: String,
    /// The tenant's name.
    pub tenant: String,
    /// Whether it may be used.
    pub active: bool,
    /// Whether a policy narrows what its holder may do.
    pub has_policy: bool,
    /// When it was made, in milliseconds since 1970.
    pub created: Millis,
}

impl Registry {
    /// A registry over an open database. It rings `changed` after each change.
    pub fn new(meta: MetaStore, clock: Clock, changed: Bell) -> Self {
        Self {
            meta,
            clock,
            changed,
        }
    }

    /// Makes a change and tells of it.
    async fn change<T, F>(&self, operation: &'static str, work: F) -> Result<T, Refused>
    where
        F: for<'s> Fn(&'s mut Session) -> BoxFuture<'s, Result<T, Refused>> + Send + 'static,
        T: Send + 'static,
    {
        let outcome = self.meta.transact(operation, work).await?;
        self.changed.ring();
        Ok(outcome)
    }

    /// Makes a tenant with an owner id of its own.
    pub async fn create_tenant(&self, name: &str, uids: &UidGenerator) -> Result<(), Refused> {
        let tenant = self.new_tenant(name, uids)?;
        self.change("create tenant", move |session| {
            let tenant = tenant.clone();
            Box::pin(async move {
                if identities::find_tenant(session, &tenant.name)
                    .await?
                    .is_some()
                {
                    return Err(Refused::TenantExists(tenant.name));
                }
                Ok(identities::insert_tenant(session, &tenant).await?)
            })
        })
        .await
    }

    /// Makes a tenant unless it is there.
    pub(super) async fn ensure_tenant(
        &self,
        name: &str,
        uids: &UidGenerator,
    ) -> Result<(), Refused> {
        match self.create_tenant(name, uids).await {
            Err(Refused::TenantExists(_)) => Ok(()),
            other => other,
        }
    }

    /// All tenants, by name.
    pub async fn tenants(&self) -> Result<Vec<TenantSummary>, Refused> {
        self.meta
            .scan("list tenants", |session| {
                Box::pin(async move {
                    let mut summaries = Vec::new();
                    for tenant in identities::tenants(session).await? {
                        if tenant.name.starts_with(DELETED) {
                            continue;
                        }
                        summaries.push(TenantSummary {
                            buckets: buckets::count(session, tenant.id).await?,
                            keys: identities::count_keys(session, tenant.id).await?,
                            name: tenant.name,
                            owner_id: tenant.owner_id,
                            created: tenant.created,
                        });
                    }
                    Ok(summaries)
                })
            })
            .await
    }

    /// Deletes a tenant that has neither buckets nor keys. Its row stays under a name that nobody can ask
    /// for, because contents that wait for the collector still refer to it.
    pub async fn delete_tenant(&self, name: &str) -> Result<(), Refused> {
        check_tenant_name(name)?;
        let name: Arc<str> = name.into();
        self.change("delete tenant", move |session| {
            let name = Arc::clone(&name);
            Box::pin(async move {
                let tenant = find_tenant(session, &name).await?;
                let buckets = buckets::count(session, tenant.id).await?;
                let keys = identities::count_keys(session, tenant.id).await?;
                if buckets + keys > 0 {
                    return Err(Refused::TenantInUse {
                        name: tenant.name,
                        buckets,
                        keys,
                    });
                }
                let gone = format!("{DELETED}{}", tenant.id);
                Ok(identities::rename_tenant(session, tenant.id, &gone).await?)
            })
        })
        .await
    }

    /// Makes an access key of a tenant: the `given` pair, or one of random text. One that is there already
    /// with the same tenant and secret is a success; with another of either it is
    /// [`Refused::AccessKeyTaken`]. A new one gets the `policy`, one that is there keeps its own.
    pub async fn create_key(
        &self,
        tenant: &str,
        given: Option<Pair>,
        policy: Option<String>,
        uids: &UidGenerator,
        master_key: &MasterKey,
    ) -> Result<NewKey, Refused> {
        let pair = match given {
            Some(pair) => pair,
            None => Pair::generate()?,
        };
        pair.check()?;
        check_key_policy(policy.as_deref())?;
        let (id, now) = (SenderId(uids.next()?), self.clock.now());
        let sealed = master_key.seal(id, &pair.secret_key)?;
        let shared = Arc::new((tenant.to_owned(), pair, sealed, master_key.clone(), policy));
        self.change("create key", move |session| {
            let shared = Arc::clone(&shared);
            Box::pin(async move {
                let (tenant, pair, sealed, master_key, policy) = &*shared;
                let tenant = find_tenant(session, tenant).await?;
                let name = &pair.access_key;
                let found = identities::find_key(session, name).await?;
                let is_new = found.is_none();
                match found {
                    Some(found) => compare(&found, &tenant, pair, master_key)?,
                    None => {
                        identities::insert_key(session, id, name, tenant.id, sealed, now).await?;
                        identities::set_policy(session, id, policy.as_deref()).await?;
                    }
                }
                Ok(NewKey {
                    pair: pair.clone(),
                    is_new,
                })
            })
        })
        .await
    }

    /// Makes an access key of a tenant or gives it this secret. [`Refused::AccessKeyTaken`] when it is
    /// another tenant's.
    pub(super) async fn put_key(
        &self,
        tenant: &str,
        pair: Pair,
        uids: &UidGenerator,
        master_key: &MasterKey,
    ) -> Result<(), Refused> {
        let made = self
            .create_key(tenant, Some(pair.clone()), None, uids, master_key)
            .await;
        match made {
            Ok(_) => return Ok(()),
            Err(Refused::AccessKeyTaken { differs, .. }) if differs == SECRET_KEY => {}
            Err(refused) => return Err(refused),
        }
        let shared = Arc::new((pair, master_key.clone()));
        self.change("set secret", move |session| {
            let shared = Arc::clone(&shared);
            Box::pin(async move {
                let (pair, master_key) = &*shared;
                let found = find_key(session, &pair.access_key).await?;
                let sealed = master_key.seal(found.id, &pair.secret_key)?;
                Ok(identities::set_secret(session, found.id, &sealed).await?)
            })
        })
        .await
    }

    /// All access keys but the temporary ones, by tenant and name.
    pub async fn keys(&self) -> Result<Vec<KeySummary>, Refused> {
        let rows = self
            .meta
            .scan("list keys", |session| Box::pin(identities::keys(session)))
            .await
            .map_err(Refused::Fault)?;
        Ok(rows
            .into_iter()
            .filter(|row| row.temporary.is_none())
            .map(|row| KeySummary {
                has_policy: row.policy.is_some(),
                access_key: row.access_key,
                tenant: row.tenant.name,
                active: row.active,
                created: row.created,
            })
            .collect())
    }

    /// The policy of an access key, `None` when it may do all that its tenant may.
    pub async fn key_policy(&self, access_key: &str) -> Result<Option<String>, Refused> {
        let wanted: Arc<str> = access_key.into();
        self.meta
            .transact("read key policy", move |session| {
                let wanted = Arc::clone(&wanted);
                Box::pin(async move { Ok(find_key(session, &wanted).await?.policy) })
            })
            .await
    }

    /// Replaces the policy of an access key; `None` lets it do all that its tenant may.
    pub async fn set_key_policy(
        &self,
        access_key: &str,
        policy: Option<String>,
    ) -> Result<(), Refused> {
        check_key_policy(policy.as_deref())?;
        let shared = Arc::new((access_key.to_owned(), policy));
        self.change("set key policy", move |session| {
            let shared = Arc::clone(&shared);
            Box::pin(async move {
                let (access_key, policy) = &*shared;
                let found = find_key(session, access_key).await?;
                Ok(identities::set_policy(session, found.id, policy.as_deref()).await?)
            })
        })
        .await
    }

    /// Allows or forbids the use of an access key, or deletes it. A deleted key's name may be given again, its
    /// id, and with it what it sent, never.
    pub async fn set_state(&self, access_key: &str, state: KeyState) -> Result<(), Refused> {
        let wanted: Arc<str> = access_key.into();
        self.change("set key state", move |session| {
            let wanted = Arc::clone(&wanted);
            Box::pin(async move {
                let id = find_key(session, &wanted).await?.id;
                match state {
                    KeyState::Active => identities::set_active(session, id, true).await?,
                    KeyState::Disabled => identities::set_active(session, id, false).await?,
                    KeyState::Deleted => identities::delete_key(session, id).await?,
                }
                Ok(())
            })
        })
        .await
    }

    fn new_tenant(&self, name: &str, uids: &UidGenerator) -> Result<TenantRow, Refused> {
        check_tenant_name(name)?;
        let mut owner_id = [0; 32];
        fill(&mut owner_id)?;
        Ok(TenantRow {
            id: TenantId(uids.next()?),
            name: name.to_owned(),
            owner_id: hex::encode(owner_id),
            created: self.clock.now(),
        })
    }
}

impl Pair {
    /// A pair of random text.
    pub(super) fn generate() -> Result<Self, Fault> {
        Self::generate_as(GENERATED_PREFIX)
    }

    /// A pair of random text, whose access key begins with `prefix`.
    pub(super) fn generate_as(prefix: &str) -> Result<Self, Fault> {
        let capitals = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let tail = random_text(capitals, GENERATED_ACCESS_KEY - prefix.len())?;
        Ok(Self {
            access_key: format!("{prefix}{tail}"),
            secret_key: Secret::new(random_text(letters, GENERATED_SECRET)?),
        })
    }

    /// Refuses what would not survive a signature's header or a credentials file.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let length = ACCESS_KEY_MIN..=ACCESS_KEY_MAX;
        if !length.contains(&self.access_key.len()) || !is_plain(&self.access_key) {
            return Err(Refused::AccessKeyText(self.access_key.clone()));
        }
        let secret = self.secret_key.reveal();
        if !SECRET_LENGTHS.contains(&secret.len())
            || !secret.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Refused::SecretText);
        }
        Ok(())
    }
}

/// Text of `alphabet`, every letter equally likely.
fn random_text(alphabet: &[u8], length: usize) -> Result<String, Fault> {
    // Bytes at or above the largest multiple would favour the first letters.
    let limit = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    let mut bytes = Zeroizing::new([0; 64]);
    while text.len() < length {
        fill(bytes.as_mut())?;
        let letters = bytes.iter().map(|byte| usize::from(*byte));
        for byte in letters
            .filter(|byte| *byte < limit)
            .take(length - text.len())
        {
            text.push(char::from(alphabet[byte % alphabet.len()]));
        }
    }
    Ok(text)
}

/// Refuses what is no policy of a key.
fn check_key_policy(policy: Option<&str>) -> Result<(), Refused> {
    match policy.map(|policy| Policy::parse(policy, Place::Key)) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(reason)) => Err(Refused::KeyPolicy(reason)),
    }
}

fn check_tenant_name(name: &str) -> Result<(), Refused> {
    if name.len() <= TENANT_NAME_MAX && is_plain(name) {
        Ok(())
    } else {
        Err(Refused::TenantName(name.to_owned()))
    }
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

async fn find_tenant(session: &mut Session, name: &str) -> Result<TenantRow, Refused> {
    identities::find_tenant(session, name)
        .await?
        .filter(|tenant| !tenant.name.starts_with(DELETED))
        .ok_or_else(|| Refused::NoSuchTenant(name.to_owned()))
}

async fn find_key(session: &mut Session, access_key: &str) -> Result<KeyRow, Refused> {
    identities::find_key(session, access_key)
        .await?
        .ok_or_else(|| Refused::NoSuchKey(access_key.to_owned()))
}

/// What differs, in [`Refused::AccessKeyTaken`].
const TENANT: &str = "tenant";
const SECRET_KEY: &str = "secret key";

/// Whether a key that is there is the one that was asked for.
fn compare(
    found: &KeyRow,
    tenant: &TenantRow,
    wanted: &Pair,
    master_key: &MasterKey,
) -> Result<(), Refused> {
    let taken = |differs| Refused::AccessKeyTaken {
        access_key: wanted.access_key.clone(),
        differs,
    };
    if found.tenant.id != tenant.id {
        return Err(taken(TENANT));
    }
    if master_key.open(found.id, &found.secret_sealed)? != wanted.secret_key {
        return Err(taken(SECRET_KEY));
    }
    if !found.active {
        return Err(Refused::KeyDisabled(wanted.access_key.clone()));
    }
    Ok(())
}
