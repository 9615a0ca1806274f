//! The life of a bucket.

use std::sync::Arc;

use super::{Condition, Namespace};
use crate::meta::{buckets, objects, uploads};
use crate::model::bucket::{Bucket, Dedup};
use crate::model::ids::{BucketId, SpaceId, TenantId};
use crate::model::names::BucketName;

/// One page of a tenant's buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPage {
    /// In order of name.
    pub buckets: Vec<Bucket>,
    /// Whether more follow the last one.
    pub truncated: bool,
}

impl Namespace {
    /// A bucket by name; its settings may be a second old, and it may be gone by the time a commit locks it.
    pub async fn bucket(&self, name: &BucketName) -> Result<Arc<Bucket>, Condition> {
        if let Some(bucket) = self.buckets.get(name) {
            return Ok(bucket);
        }
        self.fresh_bucket(name).await
    }

    /// A bucket by name as it is now.
    pub async fn fresh_bucket(&self, name: &BucketName) -> Result<Arc<Bucket>, Condition> {
        let wanted = name.clone();
        let found = self
            .meta
            .read("find bucket", move |session| {
                Box::pin(async move { buckets::find(session, &wanted).await })
            })
            .await?;
        match found {
            Some(bucket) => {
                let bucket = Arc::new(bucket);
                self.buckets.insert(name.clone(), Arc::clone(&bucket));
                Ok(bucket)
            }
            None => {
                self.buckets.invalidate(name);
                Err(Condition::NoSuchBucket)
            }
        }
    }

    /// Creates a bucket. [`Condition::BucketOwned`] and [`Condition::BucketTaken`] when the name is taken.
    pub async fn create_bucket(
        &self,
        tenant: TenantId,
        name: &BucketName,
        region: &str,
    ) -> Result<(), Condition> {
        let new = Bucket {
            id: BucketId(self.uids.next()?),
            name: name.clone(),
            tenant,
            space: SpaceId(self.uids.next()?),
            dedup: Dedup::Object,
            created: self.clock.now(),
            region: region.to_owned(),
            rev: 1,
        };
        let (placement, buckets_max) = (self.default_placement, self.config.buckets_max);
        self.meta
            .transact("create bucket", move |session| {
                let mut new = new.clone();
                Box::pin(async move {
                    if let Some(existing) = buckets::find(session, &new.name).await? {
                        return Err(if existing.tenant == new.tenant {
                            Condition::BucketOwned
                        } else {
                            Condition::BucketTaken
                        });
                    }
                    if buckets::count(session, new.tenant).await? >= buckets_max {
                        return Err(Condition::TooManyBuckets);
                    }
                    new.space = buckets::space(session, new.space, new.tenant, placement).await?;
                    Ok(buckets::insert(session, &new).await?)
                })
            })
            .await?;
        self.buckets.invalidate(name);
        Ok(())
    }

    /// Deletes an empty bucket.
    pub async fn delete_bucket(&self, bucket: &Bucket) -> Result<(), Condition> {
        let id = bucket.id;
        let outcome = self
            .meta
            .transact("delete bucket", move |session| {
                Box::pin(async move {
                    super::lock_bucket(session, id).await?;
                    if objects::any(session, id).await? || uploads::any_open(session, id).await? {
                        return Err(Condition::BucketNotEmpty);
                    }
                    Ok(buckets::delete(session, id).await?)
                })
            })
            .await;
        self.buckets.invalidate(&bucket.name);
        outcome
    }

    /// A tenant's buckets whose names begin with `prefix` and come after `after`.
    pub async fn buckets(
        &self,
        tenant: TenantId,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<BucketPage, Condition> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        let mut buckets = self
            .meta
            .scan("list buckets", move |session| {
                Box::pin(
                    async move { buckets::list(session, tenant, &prefix, &after, limit + 1).await },
                )
            })
            .await?;
        let truncated = buckets.len() > limit;
        buckets.truncate(limit);
        Ok(BucketPage { buckets, truncated })
    }
}
