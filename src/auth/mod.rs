//! Who asks, and what they may do: access keys, tenants, and the one question of permission.
//!
//! ```text
//!   access key --> Authority::identity --> Identity (tenant, secret) --> the facade verifies the signature
//!   Question (who, what, about what) --> Authority::authorize --> Verdict
//!   Terms (one purpose, one UID, until when) --> Links --> a signature, and back to who made it
//!
//!   Registry, ensure_root: tenants and keys are made, listed and taken away
//! ```
//!
//! It guarantees that a secret leaves the database only sealed and is printed by nothing here, and that a
//! change to keys or tenants is in force on every node within a second, and at once where a bell tells of it.
//! Verifying signatures is the protocols' business.

mod authorize;
mod link;
mod manage;
mod policy;
mod root;
mod temporary;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_authorize;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::keys::files::FileError;
use crate::keys::{MasterKey, MasterKeyError};
use crate::meta::{Bell, MetaStore, Remembered, identities};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{SenderId, TenantId, UidGenerator};

pub use crate::keys::Secret;
pub use crate::meta::identities::TenantRow;
pub use authorize::{Facts, Principal, Question, Shown, Target, Verdict};
pub use link::{LINK_MAX, LinkDate, LinkProblem, Links, Purpose, Subject, Terms};
pub use manage::{KeyState, KeySummary, NewKey, Pair, Registry, TenantSummary};
pub use policy::{Malformed, Network, POLICY_MAX_BYTES, Place, Policy, Value};
pub use root::{RootKey, ensure_root};
pub use temporary::{NewSession, NoSession, SESSION_POLICY_MAX_BYTES, SessionRequest, TokenCheck};

/// The tenant that exists from the first start.
pub const DEFAULT_TENANT: &str = "default";

/// How long an answer about an access key is used, also when it is "there is none".
const REMEMBERED_FOR: Duration = Duration::from_secs(1);
/// Access keys remembered for that long, known and unknown ones; tenants too, and policies of buckets.
const REMEMBERED: u64 = 10_000;
/// Longest access key, in bytes; a longer one is nobody's and never looked up.
const ACCESS_KEY_MAX: usize = 128;

/// Why a start or a change of keys or tenants was refused. The texts are for an operator and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A tenant's name breaks the rules.
    #[error(
        "tenant {0:?}: expected 1 to 64 letters, digits, hyphens, underscores or dots, a letter or digit first"
    )]
    TenantName(String),
    /// The name is taken.
    #[error("there is a tenant {0} already")]
    TenantExists(String),
    /// No tenant of this name.
    #[error("there is no tenant {0:?}; `osproxy tenants list` shows those there are")]
    NoSuchTenant(String),
    /// The tenant still owns something.
    #[error(
        "tenant {name} still has {buckets} buckets and {keys} access keys; delete those before the tenant"
    )]
    TenantInUse {
        /// The tenant.
        name: String,
        /// How many buckets it owns.
        buckets: u64,
        /// How many access keys it has.
        keys: u64,
    },
    /// An access key breaks the rules.
    #[error(
        "access key {0:?}: expected 3 to 128 letters, digits, hyphens, underscores or dots, a letter or digit first"
    )]
    AccessKeyText(String),
    /// A secret key breaks the rules. It is not repeated.
    #[error("the secret key is not 3 to 256 printable ASCII characters without spaces")]
    SecretText,
    /// The access key exists, with another tenant or another secret.
    #[error(
        "access key {access_key} exists already, with another {differs}; delete it first, or choose another"
    )]
    AccessKeyTaken {
        /// The access key.
        access_key: String,
        /// What differs: `tenant` or `secret key`.
        differs: &'static str,
    },
    /// The access key exists as wanted, but is disabled.
    #[error("access key {0} exists and is disabled; `osproxy keys enable {0}` enables it")]
    KeyDisabled(String),
    /// No such access key.
    #[error("there is no access key {0:?}; `osproxy keys list` shows those there are")]
    NoSuchKey(String),
    /// The policy of an access key is none.
    #[error("the policy is not one: {0}")]
    KeyPolicy(Malformed),
    /// There is no master key to work with.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The file of the root key cannot be understood.
    #[error(
        "{}: expected aws_access_key_id and aws_secret_access_key under [default]; restore the file or remove it",
        .0.display()
    )]
    RootFile(PathBuf),
    /// A file of the data directory cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Knows access keys and decides. Shared by all requests.
pub struct Authority {
    meta: MetaStore,
    master_key: MasterKey,
    clock: Clock,
    uids: Arc<UidGenerator>,
    remembered: Remembered<String, Option<Arc<Identity>>>,
    tenants: Remembered<TenantId, Arc<TenantRow>>,
    policies: Cache<authorize::Revision, Arc<authorize::BucketPolicy>>,
}

/// The holder of an access key that may be used now.
#[derive(Debug)]
pub struct Identity {
    /// The access key's row, by which possession is recorded.
    pub sender: SenderId,
    /// The public half of the key.
    pub access_key: String,
    /// Whose it is.
    pub tenant: TenantRow,
    /// The secret half of the key.
    pub secret: Secret,
    /// Until when it may be used, for a temporary key.
    expires_at: Option<Millis>,
    /// What its holder may do; `None` is all that the tenant may. A temporary key has its parent's.
    policy: Option<Policy>,
    /// What a temporary key has besides.
    temporary: Option<Temporary>,
}

/// What a temporary key was made from and as.
#[derive(Debug)]
struct Temporary {
    parent: String,
    policy: Option<Policy>,
    /// The role that was assumed, and the session's name.
    role: Option<(String, String)>,
}

impl Identity {
    /// Whether it is a temporary key.
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Whether a policy of its own narrows what it may do.
    pub fn has_policy(&self) -> bool {
        self.policy.is_some() || self.session_policy().is_some()
    }

    /// Its name in policies and answers: `arn:aws:iam::TENANT:user/KEY`, for a temporary key that of its parent
    /// or, when a role was assumed, `arn:aws:sts::TENANT:assumed-role/ROLE/SESSION`.
    pub fn arn(&self) -> String {
        let tenant = &self.tenant.name;
        match self.role() {
            Some((role, session)) => format!("arn:aws:sts::{tenant}:assumed-role/{role}/{session}"),
            None => format!("arn:aws:iam::{tenant}:user/{}", self.holder()),
        }
    }

    /// Its unique id: the access key, and the session's name when a role was assumed.
    pub fn user_id(&self) -> String {
        match self.role() {
            Some((_, session)) => format!("{}:{session}", self.holder()),
            None => self.holder().to_owned(),
        }
    }

    /// The access key of who holds it: of a temporary key its parent's.
    fn holder(&self) -> &str {
        self.temporary
            .as_ref()
            .map_or(&self.access_key, |temporary| &temporary.parent)
    }

    fn role(&self) -> Option<(&str, &str)> {
        let (role, session) = self.temporary.as_ref()?.role.as_ref()?;
        Some((role, session))
    }

    fn session_policy(&self) -> Option<&Policy> {
        self.temporary.as_ref()?.policy.as_ref()
    }
}

impl Policy {
    /// Reads a policy of the database, where none is that was not read before.
    fn stored(text: &str, place: Place<'_>) -> Result<Self, Fault> {
        Self::parse(text, place)
            .map_err(|error| Fault::new(Kind::Corrupt, "read policy").source(error))
    }
}

impl Authority {
    /// An authority over an open database. Temporary keys get their numbers from `uids`; `changed` is rung when keys
    /// or tenants were changed.
    pub fn new(
        meta: MetaStore,
        master_key: MasterKey,
        clock: Clock,
        uids: Arc<UidGenerator>,
        changed: Bell,
    ) -> Self {
        Self {
            meta,
            master_key,
            clock,
            uids,
            remembered: Remembered::new(REMEMBERED, REMEMBERED_FOR, changed.clone()),
            tenants: Remembered::new(REMEMBERED, REMEMBERED_FOR, changed),
            policies: Cache::new(REMEMBERED),
        }
    }

    /// The holder of an access key, `None` when there is no such key, or it is disabled or expired. May be a
    /// second old.
    pub async fn identity(&self, access_key: &str) -> Result<Option<Arc<Identity>>, Fault> {
        let known = self.known(access_key).await?;
        Ok(known.filter(|identity| !self.is_over(identity)))
    }

    /// Whether an access key is a temporary one whose time is over.
    pub async fn has_expired(&self, access_key: &str) -> Result<bool, Fault> {
        let known = self.known(access_key).await?;
        Ok(known.is_some_and(|identity| self.is_over(&identity)))
    }

    fn is_over(&self, identity: &Identity) -> bool {
        identity
            .expires_at
            .is_some_and(|end| self.clock.now() >= end)
    }

    async fn known(&self, access_key: &str) -> Result<Option<Arc<Identity>>, Fault> {
        if access_key.len() > ACCESS_KEY_MAX {
            return Ok(None);
        }
        if let Some(known) = self.remembered.get(access_key) {
            return Ok(known);
        }
        let reading = self.remembered.begin();
        let found = self.look_up(access_key).await?.map(Arc::new);
        self.remembered
            .insert(access_key.to_owned(), found.clone(), reading);
        Ok(found)
    }

    async fn look_up(&self, access_key: &str) -> Result<Option<Identity>, Fault> {
        let wanted = access_key.to_owned();
        let found = self
            .meta
            .read("find key", move |session| {
                Box::pin(async move { identities::find_key(session, &wanted).await })
            })
            .await?;
        let Some(row) = found.filter(|row| row.active) else {
            return Ok(None);
        };
        let read = |text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| Policy::stored(text, Place::Key))
                .transpose()
        };
        let (policy, temporary) = match row.temporary {
            None => (read(&row.policy)?, None),
            Some(temporary) if !temporary.parent_active => return Ok(None),
            Some(temporary) => (
                read(&temporary.parent_policy)?,
                Some(Temporary {
                    policy: read(&row.policy)?,
                    parent: temporary.parent,
                    role: temporary.role.zip(temporary.session),
                }),
            ),
        };
        Ok(Some(Identity {
            sender: row.id,
            secret: self.master_key.open(row.id, &row.secret_sealed)?,
            access_key: row.access_key,
            tenant: row.tenant,
            expires_at: row.expires_at,
            policy,
            temporary,
        }))
    }

    /// A tenant by id, as it is known to own something. May be a second old.
    pub async fn tenant(&self, id: TenantId) -> Result<Arc<TenantRow>, Fault> {
        if let Some(known) = self.tenants.get(&id) {
            return Ok(known);
        }
        let reading = self.tenants.begin();
        let found = self
            .meta
            .read("find tenant", move |session| {
                Box::pin(async move { identities::tenant_by_id(session, id).await })
            })
            .await?;
        let found = Arc::new(found.ok_or_else(|| {
            Fault::new(Kind::Corrupt, "find tenant").context("the owner of a bucket is gone")
        })?);
        self.tenants.insert(id, Arc::clone(&found), reading);
        Ok(found)
    }

    /// A tenant by its canonical user id.
    pub async fn tenant_by_owner_id(&self, owner_id: &str) -> Result<Option<TenantRow>, Fault> {
        let wanted = owner_id.to_owned();
        self.meta
            .read("find tenant", move |session| {
                Box::pin(async move { identities::tenant_by_owner_id(session, &wanted).await })
            })
            .await
    }

    /// A tenant by what policies call it: its name or canonical user id.
    pub async fn tenant_by_account(&self, account: &str) -> Result<Option<TenantRow>, Fault> {
        if let Some(found) = self.tenant_by_owner_id(account).await? {
            return Ok(Some(found));
        }
        let wanted = account.to_owned();
        self.meta
            .read("find tenant", move |session| {
                Box::pin(async move { identities::find_tenant(session, &wanted).await })
            })
            .await
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What is asked for, named as in "Actions, resources, and condition keys for Amazon S3". One action
        /// may stand for several operations: HeadObject asks for `GetObject`, HeadBucket for `ListBucket`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $name),*
        }

        impl Action {
            /// The name that policies use, such as `s3:GetObject`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("s3:", stringify!($name))),*
                }
            }
        }
    };
}

actions! {
    /// List the caller's buckets.
    ListAllMyBuckets,
    /// Make a bucket.
    CreateBucket,
    /// Delete a bucket.
    DeleteBucket,
    /// List the keys of a bucket, or see that it is there.
    ListBucket,
    /// See where a bucket is.
    GetBucketLocation,
    /// List the uploads in progress in a bucket.
    ListBucketMultipartUploads,
    /// Read an object and its headers.
    GetObject,
    /// Read a version of an object that the request names, and its headers.
    GetObjectVersion,
    /// Read what an object is made of.
    GetObjectAttributes,
    /// Read what a version that the request names is made of.
    GetObjectVersionAttributes,
    /// Write an object: by put, copy, form or upload.
    PutObject,
    /// Delete an object.
    DeleteObject,
    /// Delete a version of an object that the request names.
    DeleteObjectVersion,
    /// Give up an upload.
    AbortMultipartUpload,
    /// List the parts of an upload.
    ListMultipartUploadParts,
    /// Read an object's tags.
    GetObjectTagging,
    /// Replace an object's tags.
    PutObjectTagging,
    /// Delete an object's tags.
    DeleteObjectTagging,
    /// See how a bucket's new objects are encrypted.
    GetEncryptionConfiguration,
    /// Set or delete that.
    PutEncryptionConfiguration,
    /// See whether a bucket keeps versions.
    GetBucketVersioning,
    /// Decide whether a bucket keeps versions.
    PutBucketVersioning,
    /// List the versions of a bucket's keys.
    ListBucketVersions,
    /// See how new versions of a bucket are locked.
    GetBucketObjectLockConfiguration,
    /// Decide how new versions of a bucket are locked.
    PutBucketObjectLockConfiguration,
    /// See until when a version is kept.
    GetObjectRetention,
    /// Decide until when a version is kept.
    PutObjectRetention,
    /// See whether a version is held.
    GetObjectLegalHold,
    /// Hold a version, or let it go.
    PutObjectLegalHold,
    /// Read a bucket's tags.
    GetBucketTagging,
    /// Replace or delete a bucket's tags.
    PutBucketTagging,
    /// Read which origins a bucket allows.
    GetBucketCORS,
    /// Replace or delete which origins a bucket allows.
    PutBucketCORS,
    /// Read how a bucket is served as a website.
    GetBucketWebsite,
    /// Replace how a bucket is served as a website.
    PutBucketWebsite,
    /// Stop serving a bucket as a website.
    DeleteBucketWebsite,
    /// Read who pays for requests.
    GetBucketRequestPayment,
    /// Set who pays for requests.
    PutBucketRequestPayment,
    /// Read whether transfers are accelerated.
    GetAccelerateConfiguration,
    /// Set whether transfers are accelerated.
    PutAccelerateConfiguration,
    /// Read where a bucket is replicated to.
    GetReplicationConfiguration,
    /// Set or delete where a bucket is replicated to.
    PutReplicationConfiguration,
    /// Read what is analysed of a bucket.
    GetAnalyticsConfiguration,
    /// Set or delete what is analysed of a bucket.
    PutAnalyticsConfiguration,
    /// Read what is reported of a bucket.
    GetInventoryConfiguration,
    /// Set or delete what is reported of a bucket.
    PutInventoryConfiguration,
    /// Read what is measured of a bucket.
    GetMetricsConfiguration,
    /// Set or delete what is measured of a bucket.
    PutMetricsConfiguration,
    /// Read what is archived by its use of a bucket.
    GetIntelligentTieringConfiguration,
    /// Set or delete what is archived by its use of a bucket.
    PutIntelligentTieringConfiguration,
    /// Keep a bucket's metadata in a table.
    CreateBucketMetadataTableConfiguration,
    /// Read whether a bucket's metadata is kept in a table.
    GetBucketMetadataTableConfiguration,
    /// Stop keeping a bucket's metadata in a table.
    DeleteBucketMetadataTableConfiguration,
    /// Read an object's torrent file.
    GetObjectTorrent,
    /// Bring an object back from an archive.
    RestoreObject,
    /// See what becomes of a bucket's objects with time.
    GetLifecycleConfiguration,
    /// Decide what becomes of a bucket's objects with time.
    PutLifecycleConfiguration,
    /// See who is told of what happens in a bucket.
    GetBucketNotification,
    /// Decide who is told of what happens in a bucket.
    PutBucketNotification,
    /// See where a bucket's access log goes.
    GetBucketLogging,
    /// Decide where a bucket's access log goes.
    PutBucketLogging,
    /// Read the tags of a version that the request names.
    GetObjectVersionTagging,
    /// Replace the tags of a version that the request names.
    PutObjectVersionTagging,
    /// Delete the tags of a version that the request names.
    DeleteObjectVersionTagging,
    /// Delete or shorten what is kept in governance mode.
    BypassGovernanceRetention,
    /// Read a bucket's access control list.
    GetBucketAcl,
    /// Replace a bucket's access control list.
    PutBucketAcl,
    /// Read an object's access control list.
    GetObjectAcl,
    /// Replace an object's access control list.
    PutObjectAcl,
    /// Read the access control list of a version that the request names.
    GetObjectVersionAcl,
    /// Replace the access control list of a version that the request names.
    PutObjectVersionAcl,
    /// Read a bucket's policy.
    GetBucketPolicy,
    /// Replace a bucket's policy.
    PutBucketPolicy,
    /// Delete a bucket's policy.
    DeleteBucketPolicy,
    /// See whether a bucket's policy is public.
    GetBucketPolicyStatus,
    /// See what of public access is blocked.
    GetBucketPublicAccessBlock,
    /// Change what of public access is blocked.
    PutBucketPublicAccessBlock,
    /// See who owns a bucket's new objects.
    GetBucketOwnershipControls,
    /// Change who owns a bucket's new objects.
    PutBucketOwnershipControls,
}

impl Action {
    /// Whether the action needs no bucket.
    fn is_of_account(self) -> bool {
        matches!(self, Self::ListAllMyBuckets | Self::CreateBucket)
    }

    /// Whether the action is about a bucket's policy itself.
    fn is_of_policy(self) -> bool {
        matches!(
            self,
            Self::GetBucketPolicy | Self::PutBucketPolicy | Self::DeleteBucketPolicy
        )
    }

    /// The action on a version that the request names; most actions know no difference.
    pub fn on_version(self) -> Self {
        match self {
            Self::GetObject => Self::GetObjectVersion,
            Self::GetObjectAttributes => Self::GetObjectVersionAttributes,
            Self::DeleteObject => Self::DeleteObjectVersion,
            Self::GetObjectTagging => Self::GetObjectVersionTagging,
            Self::PutObjectTagging => Self::PutObjectVersionTagging,
            Self::DeleteObjectTagging => Self::DeleteObjectVersionTagging,
            Self::GetObjectAcl => Self::GetObjectVersionAcl,
            Self::PutObjectAcl => Self::PutObjectVersionAcl,
            other => other,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
