//! Who asks, and what they may do: access keys, tenants, and the one question of permission.
//!
//! ```text
//!   access key --> Authority::identity --> Identity (tenant, secret) --> the facade verifies the signature
//!   principal, action, resource --> Authority::authorize --> Ok or Denied
//!
//!   Registry, ensure_root: tenants and keys are made, listed and taken away
//! ```
//!
//! It guarantees that a secret leaves the database only sealed and is printed by nothing here, and that a
//! change to keys or tenants is in force on every node within a second. Verifying signatures is the
//! protocols' business.

mod manage;
mod root;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::keys::files::FileError;
use crate::keys::{MasterKey, MasterKeyError, Secret};
use crate::meta::{MetaStore, identities};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::Fault;
use crate::model::ids::{SenderId, TenantId};

pub use crate::meta::identities::TenantRow;
pub use manage::{KeyState, KeySummary, NewKey, Pair, Registry, TenantSummary};
pub use root::{RootKey, ensure_root};

/// The tenant that exists from the first start.
pub const DEFAULT_TENANT: &str = "default";

/// How long an answer about an access key is used, also when it is "there is none".
const REMEMBERED_FOR: Duration = Duration::from_secs(1);
/// Access keys remembered for that long, known and unknown ones.
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
    remembered: Cache<String, Option<Arc<Identity>>>,
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
}

impl Authority {
    /// An authority over an open database.
    pub fn new(meta: MetaStore, master_key: MasterKey, clock: Clock) -> Self {
        Self {
            meta,
            master_key,
            clock,
            remembered: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(REMEMBERED_FOR)
                .build(),
        }
    }

    /// The holder of an access key, `None` when there is no such key, or it is disabled or expired. May be a
    /// second old.
    pub async fn identity(&self, access_key: &str) -> Result<Option<Arc<Identity>>, Fault> {
        if access_key.len() > ACCESS_KEY_MAX {
            return Ok(None);
        }
        let known = match self.remembered.get(access_key) {
            Some(known) => known,
            None => {
                let found = self.look_up(access_key).await?.map(Arc::new);
                self.remembered.insert(access_key.to_owned(), found.clone());
                found
            }
        };
        let now = self.clock.now();
        Ok(known.filter(|identity| identity.expires_at.is_none_or(|end| now < end)))
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
        Ok(Some(Identity {
            sender: row.id,
            secret: self.master_key.open(row.id, &row.secret_sealed)?,
            access_key: row.access_key,
            tenant: row.tenant,
            expires_at: row.expires_at,
        }))
    }

    /// Whether `principal` may do `action` to `resource`: the one place where that is decided, asked by every
    /// facade for every operation, for every key of a batch and for every source of a copy.
    ///
    /// The rules: a tenant may do everything with its own buckets, list them, and create more. Everything else
    /// is denied: other tenants' buckets, and anonymous requests altogether.
    pub fn authorize(
        &self,
        principal: &Principal<'_>,
        action: Action,
        resource: &Resource,
    ) -> Result<(), Denied> {
        let allowed = match (principal, resource.owner) {
            (Principal::Anonymous, _) => false,
            (Principal::Key(identity), Some(owner)) => identity.tenant.id == owner,
            (Principal::Key(_), None) => action.is_of_account(),
        };
        if allowed { Ok(()) } else { Err(Denied) }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Principal<'a> {
    /// Nobody said who they are.
    Anonymous,
    /// The holder of an access key, proven by a signature.
    Key(&'a Identity),
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// The tenant that owns the bucket; `None` when it is about no bucket that exists: the caller's account.
    pub owner: Option<TenantId>,
}

/// The answer is no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied;

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
    /// Read an object, its headers or attributes.
    GetObject,
    /// Write an object: by put, copy, form or upload.
    PutObject,
    /// Delete an object.
    DeleteObject,
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
}

impl Action {
    /// Whether the action needs no bucket.
    fn is_of_account(self) -> bool {
        matches!(self, Self::ListAllMyBuckets | Self::CreateBucket)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
