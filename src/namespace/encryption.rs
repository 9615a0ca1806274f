//! How the bytes of new versions are protected, and what it takes to read those of old ones.
//!
//! Bytes that are protected by the same key share a space of their own, beside the bucket's, so that equal ones
//! are stored once there and are never shared with others. Those under a customer's key are shared with none.

use crate::content::Seal;
use crate::keys::{CustomerKey, KeyError, KmsKey};
use crate::meta::uploads::UploadRow;
use crate::meta::{buckets, rehoming};
use crate::model::bucket::{Bucket, Dedup, DefaultEncryption};
use crate::model::content::Protection;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::SpaceId;
use crate::model::object::{Encryption, Version};

use super::{Condition, Namespace};

/// How a client wants new bytes to be encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// As the bucket says.
    Default,
    /// Under the tenant's key.
    S3,
    /// Under a KMS key.
    Kms {
        /// As the client names it; `None` is the tenant's default.
        key: Option<String>,
        /// Echoed; it is not bound into the key.
        context: Option<String>,
        /// Whether a bucket key is wanted; `None` is as the bucket says. Only echoed.
        bucket_key: Option<bool>,
    },
    /// Under a key of the client's own.
    Customer(CustomerKey),
}

/// Where new bytes go and what protects them: decided before a body is read.
#[derive(Debug, Clone)]
pub struct Target {
    encryption: Option<Encryption>,
    pub(super) space: SpaceId,
    pub(super) seal: Seal,
    pub(super) shared: bool,
}

impl Target {
    /// What the version will say of it.
    pub fn encryption(&self) -> Option<&Encryption> {
        self.encryption.as_ref()
    }

    /// Whether nobody but the holder of a key can ever read these bytes: they are not shared, and no
    /// possession is gained or used by sending them.
    pub fn is_customers(&self) -> bool {
        matches!(self.seal, Seal::Customer(_))
    }
}

/// What is wrong with the keys of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyProblem {
    /// The object is under a customer's key, and none was given.
    Missing,
    /// It is not, and one was given.
    NotApplicable,
    /// Another key was given.
    Wrong,
    /// The upload is under a customer's key, and its part came without.
    PartWithout,
    /// A part or the completion came with another key than the upload was begun with, or the upload has none.
    PartWithOther,
    /// No KMS key of this name.
    NoSuchKmsKey(String),
    /// The KMS key may not be used.
    KmsKeyDisabled(String),
}

impl From<KeyError> for Condition {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NoSuchKey(name) => Self::Key(KeyProblem::NoSuchKmsKey(name)),
            KeyError::Disabled(name) => Self::Key(KeyProblem::KmsKeyDisabled(name)),
            KeyError::Fault(fault) => Self::Fault(fault),
            other => Self::Fault(Fault::new(Kind::Internal, "find key").source(other)),
        }
    }
}

fn key_problem(problem: KeyProblem) -> Condition {
    Condition::Key(problem)
}

/// A customer's key that comes with a completion must be the upload's; it must come where parts have checksums
/// ("CompleteMultipartUpload").
pub(super) fn check_upload_key(
    upload: &UploadRow,
    key: Option<&CustomerKey>,
) -> Result<(), Condition> {
    match (&upload.encryption, key) {
        (Some(Encryption::Customer { key_md5 }), Some(key)) if key.md5() == *key_md5 => Ok(()),
        (Some(Encryption::Customer { .. }), None) if upload.checksum.is_some() => {
            Err(key_problem(KeyProblem::PartWithout))
        }
        (_, None) => Ok(()),
        (_, Some(_)) => Err(key_problem(KeyProblem::PartWithOther)),
    }
}

impl Namespace {
    /// Decides how the bytes of a new version or upload in `bucket` are protected.
    pub async fn target(&self, bucket: &Bucket, wanted: Wanted) -> Result<Target, Condition> {
        let default = bucket.settings.encryption.as_ref();
        let by_default = default.is_some_and(|default| default.bucket_key);
        let kms = async |key: Option<&str>, context, bucket_key: Option<bool>| {
            let key = match key {
                Some(name) => self.keys.kms(bucket.tenant, name).await?,
                None => self.keys.kms_default(bucket.tenant).await?,
            };
            let encryption = Encryption::Kms {
                key: key.name.clone(),
                context,
                bucket_key: bucket_key.unwrap_or(by_default),
            };
            self.under_kms(bucket, key, encryption).await
        };
        match wanted {
            Wanted::S3 => self.under_tenant(bucket).await,
            Wanted::Kms {
                key,
                context,
                bucket_key,
            } => {
                // A request that names no key takes the bucket's.
                let key = key.or_else(|| default.and_then(DefaultEncryption::kms_key));
                kms(key.as_deref(), context, bucket_key).await
            }
            Wanted::Customer(key) => Ok(self.under_customer(bucket, key)),
            Wanted::Default => match default {
                None => Ok(Target {
                    encryption: None,
                    space: bucket.space,
                    seal: Seal::Plain,
                    shared: bucket.dedup == Dedup::Object,
                }),
                Some(default) if !default.kms => self.under_tenant(bucket).await,
                Some(default) => kms(default.key.as_deref(), None, None).await,
            },
        }
    }

    /// Decides how the bytes of a part are protected: as its upload was begun. A customer's key comes with
    /// every part.
    pub async fn part_target(
        &self,
        bucket: &Bucket,
        upload: &UploadRow,
        key: Option<CustomerKey>,
    ) -> Result<Target, Condition> {
        match (&upload.encryption, key) {
            (Some(Encryption::Customer { key_md5 }), Some(key)) if key.md5() == *key_md5 => {
                Ok(self.under_customer(bucket, key))
            }
            (Some(Encryption::Customer { .. }), None) => Err(key_problem(KeyProblem::PartWithout)),
            (_, Some(_)) => Err(key_problem(KeyProblem::PartWithOther)),
            (None, None) => Ok(Target {
                encryption: None,
                space: bucket.space,
                seal: Seal::Plain,
                shared: bucket.dedup == Dedup::Object,
            }),
            (Some(Encryption::S3), None) => self.under_tenant(bucket).await,
            (Some(Encryption::Kms { key, .. }), None) => {
                let key = self.keys.kms(bucket.tenant, key).await?;
                let encryption = upload.encryption.clone();
                let target = self.under_kms_space(bucket, &key).await?;
                Ok(Target {
                    encryption,
                    ..target
                })
            }
        }
    }

    async fn under_tenant(&self, bucket: &Bucket) -> Result<Target, Condition> {
        let key = self.keys.of_tenant(bucket.tenant).await?;
        Ok(Target {
            encryption: Some(Encryption::S3),
            space: self.space_beside(bucket, Protection::Tenant).await?,
            seal: Seal::Key(key),
            shared: bucket.dedup == Dedup::Object,
        })
    }

    async fn under_kms(
        &self,
        bucket: &Bucket,
        key: KmsKey,
        encryption: Encryption,
    ) -> Result<Target, Condition> {
        let target = self.under_kms_space(bucket, &key).await?;
        Ok(Target {
            encryption: Some(encryption),
            ..target
        })
    }

    async fn under_kms_space(&self, bucket: &Bucket, key: &KmsKey) -> Result<Target, Condition> {
        Ok(Target {
            encryption: None,
            space: self.space_beside(bucket, Protection::Kms(key.id)).await?,
            seal: Seal::Key(key.id),
            shared: bucket.dedup == Dedup::Object,
        })
    }

    fn under_customer(&self, bucket: &Bucket, key: CustomerKey) -> Target {
        Target {
            encryption: Some(Encryption::Customer { key_md5: key.md5() }),
            space: bucket.space,
            seal: Seal::Customer(key),
            shared: false,
        }
    }

    /// The space beside a bucket's own for contents that are protected so, made when there is none yet.
    async fn space_beside(
        &self,
        bucket: &Bucket,
        protection: Protection,
    ) -> Result<SpaceId, Fault> {
        let wanted = (bucket.space, protection);
        if let Some(space) = self.spaces.get(&wanted) {
            return Ok(space);
        }
        let beside = bucket.space;
        let found = self
            .meta
            .read("find space", move |session| {
                Box::pin(buckets::find_space_beside(session, beside, protection))
            })
            .await?;
        let space = match found {
            Some(space) => space,
            None => {
                let new = SpaceId(self.uids.next()?);
                self.meta
                    .transact("make space", move |session| {
                        Box::pin(buckets::space_beside(session, new, beside, protection))
                    })
                    .await?
            }
        };
        self.spaces.insert(wanted, space);
        Ok(space)
    }

    /// Whether `key`, or none, is what reading a version takes: asked before anything of it is told.
    pub fn check_key(&self, version: &Version, key: Option<&CustomerKey>) -> Result<(), Condition> {
        match (&version.encryption, key) {
            (Some(Encryption::Customer { .. }), None) => Err(key_problem(KeyProblem::Missing)),
            (Some(Encryption::Customer { key_md5 }), Some(key)) if key.md5() != *key_md5 => {
                Err(key_problem(KeyProblem::Wrong))
            }
            (Some(Encryption::Customer { .. }), Some(_)) => Ok(()),
            (_, Some(_)) => Err(key_problem(KeyProblem::NotApplicable)),
            (_, None) => Ok(()),
        }
    }

    /// Whether a version's bytes may be read with `key`, or none: what [`Namespace::check_key`] asks, and
    /// that its KMS key may be used.
    pub async fn check_readable(
        &self,
        bucket: &Bucket,
        version: &Version,
        key: Option<&CustomerKey>,
    ) -> Result<(), Condition> {
        self.check_key(version, key)?;
        if let Some(Encryption::Kms { key, .. }) = &version.encryption {
            self.keys.kms(bucket.tenant, key).await?;
        }
        Ok(())
    }

    /// Whether `target` may refer to the bytes of a version: they lie in its space or in what stands for it on some
    /// node, which is not always so for the version's bucket while one moves, and nobody's own key is needed to read them. A content that is gone may be
    /// referred to as far as is known here.
    pub(super) async fn may_share(
        &self,
        version: &Version,
        target: &Target,
    ) -> Result<bool, Condition> {
        if target.is_customers() || matches!(version.encryption, Some(Encryption::Customer { .. }))
        {
            return Ok(false);
        }
        let content = version.content;
        let wanted = target.space;
        let may_share = self.meta.read("find content", move |session| {
            Box::pin(async move {
                match rehoming::identity(session, content).await? {
                    Some(found) if found.space != wanted => {
                        buckets::stands_for(session, found.space, wanted).await
                    }
                    _ => Ok::<_, Fault>(true),
                }
            })
        });
        Ok(may_share.await?)
    }
}
