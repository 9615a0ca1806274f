//! A bucket and its settings.

use serde::{Deserialize, Serialize};

use crate::model::acl::Acl;
use crate::model::clock::Millis;
use crate::model::cors::CorsRule;
use crate::model::ids::{BucketId, SpaceId, TenantId};
use crate::model::lifecycle::Lifecycle;
use crate::model::logging::Logging;
use crate::model::names::BucketName;
use crate::model::notification::Notification;
use crate::model::object::{Retention, RetentionMode};
use crate::model::website::Website;

/// Whether and how a bucket shares bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dedup {
    /// Every upload is stored by itself.
    Off,
    /// Equal objects and equal parts are stored once.
    Object,
}

/// Whether a bucket keeps what is overwritten and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// It never did: every version is the null version, and its id is not shown.
    Never,
    /// It does.
    Enabled,
    /// It did, and keeps those versions; new ones are null versions again.
    Suspended,
}

/// Who owns what others write into a bucket, and whether access control lists count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ownership {
    /// The writer owns; lists count.
    #[default]
    ObjectWriter,
    /// The bucket's owner owns what is written with the list `bucket-owner-full-control`; lists count.
    BucketOwnerPreferred,
    /// The bucket's owner owns everything; lists are of no effect and cannot be set.
    BucketOwnerEnforced,
}

/// What is refused or ignored of lists and policies that let everybody in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAccessBlock {
    /// Refuses new lists that are public.
    pub block_public_acls: bool,
    /// Treats public grants of lists as if they were not there.
    pub ignore_public_acls: bool,
    /// Refuses new policies that are public.
    pub block_public_policy: bool,
    /// Lets only the bucket's own tenant in while its policy is public.
    pub restrict_public_buckets: bool,
}

/// How long a default retention lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionPeriod {
    /// So many days.
    Days(u32),
    /// So many years of 365 days.
    Years(u32),
}

/// The retention that new versions of a bucket get when they bring none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRetention {
    /// How strictly.
    pub mode: RetentionMode,
    /// How long.
    pub period: RetentionPeriod,
}

impl DefaultRetention {
    /// The retention of a version written at `now`.
    pub fn from(&self, now: Millis) -> Retention {
        const DAY: Millis = 86_400_000;
        let days = match self.period {
            RetentionPeriod::Days(days) => Millis::from(days),
            RetentionPeriod::Years(years) => Millis::from(years) * 365,
        };
        Retention {
            mode: self.mode,
            until: now + days * DAY,
        }
    }
}

/// How new versions of a bucket are encrypted when their requests do not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultEncryption {
    /// Under a KMS key, else under the tenant's own.
    pub kms: bool,
    /// The KMS key, as the owner named it; `None` is the tenant's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether bucket keys are wanted. Only answered: here they make no difference.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bucket_key: bool,
}

impl DefaultEncryption {
    /// The name of the KMS key, where the default is one.
    pub fn kms_key(&self) -> Option<String> {
        self.key.clone().filter(|_| self.kms)
    }
}

/// What can be set of a bucket. Stored as JSON, absent parts left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Its access control list; `None` is private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
    /// Who owns new objects; `None` when it was never set, or deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,
    /// What is refused of public access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_access_block: Option<PublicAccessBlock>,
    /// Its policy, as its owner wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How new versions are encrypted; `None`: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<DefaultEncryption>,
    /// The retention of new versions, where versions can be locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_retention: Option<DefaultRetention>,
    /// Its tags; empty for none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// Which pages of other origins may be let at it; empty for none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cors: Vec<CorsRule>,
    /// How it is served as a website.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub website: Option<Website>,
    /// Whether its owner suspended the acceleration of transfers, which never was on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub acceleration_suspended: bool,
    /// What becomes of its objects with time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    /// Who is told of what happens in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
    /// Where its access log goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
}

/// One bucket as it was read; `rev` rises with every change of its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its id; a bucket made again under the same name has another.
    pub id: BucketId,
    /// Its global name.
    pub name: BucketName,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Which bytes it may share.
    pub space: SpaceId,
    /// Whether it shares them.
    pub dedup: Dedup,
    /// Whether it keeps versions.
    pub versioning: Versioning,
    /// Whether versions can be locked.
    pub object_lock: bool,
    /// When it was made.
    pub created: Millis,
    /// The region it was made in, empty for the default.
    pub region: String,
    /// Changes whenever a setting does.
    pub rev: i64,
    /// What its owner set.
    pub settings: Settings,
}
