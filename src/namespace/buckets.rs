//! The life of a bucket.

use std::sync::Arc;

use super::{Condition, Namespace, Recheck, lock_bucket_alone};
use crate::meta::{buckets, objects, uploads};
use crate::model::bucket::{Bucket, Dedup, Settings, Versioning};
use crate::model::ids::{BucketId, SpaceId, TenantId};
use crate::model::names::BucketName;

/// How often a bucket is looked up again because it was made or deleted in between.
const ROUNDS: usize = 3;

/// A bucket to be made.
#[derive(Debug, Clone)]
pub struct NewBucket {
    /// Whose it will be.
    pub tenant: TenantId,
    /// Its name.
    pub name: BucketName,
    /// Where it will say it is.
    pub region: String,
    /// The placement of its blobs, one of those that are open; `None` is the install's.
    pub placement: Option<String>,
    /// Whether its versions can be locked; they are then kept from the start.
    pub object_lock: bool,
    /// What is set from the start.
    pub settings: Settings,
}

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
        let (wanted, reading) = (name.clone(), self.buckets.begin());
        let found = self
            .meta
            .read("find bucket", move |session| {
                Box::pin(async move { buckets::find(session, &wanted).await })
            })
            .await?;
        match found {
            Some(bucket) => {
                let bucket = Arc::new(bucket);
                self.buckets
                    .insert(name.clone(), Arc::clone(&bucket), reading);
                Ok(bucket)
            }
            None => {
                self.buckets.forget(name);
                Err(Condition::NoSuchBucket)
            }
        }
    }

    /// The bucket of this name, made when there is none yet. [`Condition::BucketTaken`] when it is another tenant's.
    pub async fn ensure_bucket(&self, new: NewBucket) -> Result<Arc<Bucket>, Condition> {
        for _ in 0..ROUNDS {
            match self.bucket(&new.name).await {
                Ok(bucket) if bucket.tenant == new.tenant => return Ok(bucket),
                Ok(_) => return Err(Condition::BucketTaken),
                Err(Condition::NoSuchBucket) => {}
                Err(condition) => return Err(condition),
            }
            match self.create_bucket(new.clone()).await {
                Ok(()) | Err(Condition::BucketOwned) => {}
                Err(condition) => return Err(condition),
            }
        }
        Err(Condition::NoSuchBucket)
    }

    /// Creates a bucket. [`Condition::BucketOwned`] and [`Condition::BucketTaken`] when the name is taken,
    /// [`Condition::NoSuchPlacement`] when its placement is not open.
    pub async fn create_bucket(&self, new: NewBucket) -> Result<(), Condition> {
        let placement = match &new.placement {
            None => self.default_placement,
            Some(name) => *self
                .open_placements
                .get(name)
                .ok_or(Condition::NoSuchPlacement)?,
        };
        let new = Bucket {
            id: BucketId(self.uids.next()?),
            name: new.name,
            tenant: new.tenant,
            space: SpaceId(self.uids.next()?),
            dedup: Dedup::Object,
            versioning: match new.object_lock {
                true => Versioning::Enabled,
                false => Versioning::Never,
            },
            object_lock: new.object_lock,
            created: self.clock.now(),
            region: new.region,
            rev: 1,
            settings: new.settings,
        };
        let buckets_max = self.config.buckets_max;
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
        self.buckets.change();
        Ok(())
    }

    /// Changes what is set of a bucket, as one step: `change` gets it as it is under lock, and may run several
    /// times. `recheck` is asked when other settings changed since the request was admitted. Other nodes see the
    /// change within a second, and at once where they hear of it.
    pub async fn update_bucket<F>(
        &self,
        bucket: &Bucket,
        recheck: Option<Recheck>,
        change: F,
    ) -> Result<(), Condition>
    where
        F: Fn(&mut Bucket) -> Result<(), Condition> + Send + Sync + 'static,
    {
        let (id, rev, change) = (bucket.id, bucket.rev, Arc::new(change));
        let outcome = self
            .meta
            .transact("update bucket", move |session| {
                let (change, recheck) = (Arc::clone(&change), recheck.clone());
                Box::pin(async move {
                    let before = lock_bucket_alone(session, id, rev, recheck.as_ref()).await?;
                    let mut after = before.clone();
                    change(&mut after)?;
                    if after == before {
                        return Ok(());
                    }
                    after.rev = before.rev + 1;
                    Ok(buckets::update(session, &after).await?)
                })
            })
            .await;
        self.changed(bucket, &outcome);
        outcome
    }

    /// Deletes an empty bucket.
    pub async fn delete_bucket(
        &self,
        bucket: &Bucket,
        recheck: Option<Recheck>,
    ) -> Result<(), Condition> {
        let (id, rev) = (bucket.id, bucket.rev);
        let outcome = self
            .meta
            .transact("delete bucket", move |session| {
                let recheck = recheck.clone();
                Box::pin(async move {
                    lock_bucket_alone(session, id, rev, recheck.as_ref()).await?;
                    if objects::any(session, id).await? || uploads::any_open(session, id).await? {
                        return Err(Condition::BucketNotEmpty);
                    }
                    Ok(buckets::delete(session, id).await?)
                })
            })
            .await;
        self.changed(bucket, &outcome);
        outcome
    }

    /// Forgets what was remembered before a change, as far as one was made.
    pub(super) fn changed(&self, bucket: &Bucket, outcome: &Result<(), Condition>) {
        match outcome {
            Ok(()) => self.buckets.change(),
            // Refused requests must not make others read anew; whatever this node knew may be why.
            Err(_) => self.buckets.forget(&bucket.name),
        }
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
