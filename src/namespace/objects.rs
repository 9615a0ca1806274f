//! Put, get, delete and tags of keys: one transaction a change.

use std::ops::Range;
use std::sync::Arc;

use super::{Condition, Namespace, lock_bucket, release};
use crate::content::{Reader, Received};
use crate::meta::Session;
use crate::meta::contents::Location;
use crate::meta::objects::{self, Locked, VersionPart};
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::digest::{ChecksumAlgorithm, ETag, ObjectChecksum};
use crate::model::ids::{BucketId, SenderId, Uid, UidGenerator};
use crate::model::names::ObjectKey;
use crate::model::object::{Headers, Tags, Version, WriteConditions, WriteDecision};

/// A version to be written.
#[derive(Debug, Clone)]
pub struct PutRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Under which key.
    pub key: ObjectKey,
    /// What it will be answered with.
    pub headers: Headers,
    /// Its tags.
    pub tags: Tags,
    /// Its checksum, verified against the bytes; `None` is CRC-64/NVME of the whole, as S3 adds.
    pub checksum: Option<ObjectChecksum>,
    /// Decided under the key's lock.
    pub conditions: WriteConditions,
    /// The access key that sent these bytes in full, where it gains possession by it.
    pub sender: Option<SenderId>,
}

/// A version that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its stable number.
    pub uid: Uid,
    /// What S3 answers as ETag.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// When.
    pub modified: Millis,
    /// The checksum it is stored with.
    pub checksum: Option<ObjectChecksum>,
}

/// A version that was found, and where its bytes lie.
#[derive(Debug, Clone)]
pub struct Object {
    /// The version.
    pub version: Version,
    location: Location,
}

/// One part of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPart {
    /// Its bytes in the object, half-open.
    pub range: Range<u64>,
    /// How many parts the object has; `None` for one that was not uploaded in parts.
    pub count: Option<u32>,
    /// The part's own checksum.
    pub checksum: Option<ObjectChecksum>,
}

/// A page of a version's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectParts {
    /// In order of number.
    pub parts: Vec<VersionPart>,
    /// Whether more follow.
    pub truncated: bool,
}

/// What a transaction needs to write a version.
pub(super) struct VersionWriter {
    pub(super) uids: Arc<UidGenerator>,
    pub(super) worker: u16,
    pub(super) bucket: BucketId,
    pub(super) key: ObjectKey,
    pub(super) conditions: WriteConditions,
}

/// Turns the outcome of a write's conditions into the domain's answer.
fn decide(conditions: &WriteConditions, current: Option<&Locked>) -> Result<(), Condition> {
    let current = current.map(|old| (&old.etag, old.modified, old.size));
    match conditions.decide(current) {
        WriteDecision::Proceed => Ok(()),
        WriteDecision::Failed => Err(Condition::PreconditionFailed),
        WriteDecision::NoSuchKey => Err(Condition::NoSuchKey),
    }
}

impl VersionWriter {
    /// Decides the conditions under the key's lock, writes the version, releases what it replaces, counts.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        version: &Version,
        sender: Option<SenderId>,
    ) -> Result<(), Condition> {
        lock_bucket(session, self.bucket).await?;
        let replaced = objects::lock(session, self.bucket, &self.key).await?;
        decide(&self.conditions, replaced.as_ref())?;
        objects::write(
            session,
            self.bucket,
            &self.key,
            version,
            sender,
            replaced.as_ref(),
        )
        .await?;
        let (mut count, mut bytes) = (1, version.size as i64);
        if let Some(old) = replaced {
            release(session, &self.uids, old.content, version.modified).await?;
            if old.etag.parts.is_some() {
                objects::delete_parts(session, old.uid).await?;
            }
            count = 0;
            bytes -= old.size as i64;
        }
        objects::add_usage(session, self.bucket, self.worker, count, bytes).await?;
        Ok(())
    }
}

impl Namespace {
    /// Writes a received content under a key, atomically, durable when this returns.
    pub async fn put(&self, request: PutRequest, received: Received) -> Result<Written, Condition> {
        let checksum = request.checksum.or_else(|| {
            received
                .digests
                .checksum(ChecksumAlgorithm::Crc64Nvme)
                .map(ObjectChecksum::full)
        });
        let written = Written {
            uid: Uid(self.uids.next()?),
            etag: ETag::single(received.digests.md5),
            size: received.digests.length,
            modified: self.clock.now(),
            checksum,
        };
        let writer = self.writer(&request.bucket, &request.key, request.conditions);
        let sender = request.sender;
        let (headers, tags, new) = (request.headers, request.tags, written.clone());
        self.commit("put", received, move |session, content| {
            let version = Version {
                uid: new.uid,
                content,
                size: new.size,
                etag: new.etag,
                modified: new.modified,
                headers: headers.clone(),
                tags: tags.clone(),
                checksum: new.checksum.clone(),
            };
            let writer = Arc::clone(&writer);
            Box::pin(async move { writer.write(session, &version, sender).await })
        })
        .await?;
        Ok(written)
    }

    pub(super) fn writer(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        conditions: WriteConditions,
    ) -> Arc<VersionWriter> {
        Arc::new(VersionWriter {
            uids: Arc::clone(&self.uids),
            worker: self.worker,
            bucket: bucket.id,
            key: key.clone(),
            conditions,
        })
    }

    /// Decides a write's conditions before its body is read, so that a refused one need not be sent. The
    /// commit decides again.
    pub async fn check(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        conditions: &WriteConditions,
    ) -> Result<(), Condition> {
        if conditions.is_empty() {
            return Ok(());
        }
        let (id, key) = (bucket.id, key.clone());
        let current = self
            .meta
            .read("check", move |session| {
                Box::pin(async move { objects::lock(session, id, &key).await })
            })
            .await?;
        decide(conditions, current.as_ref())
    }

    /// The current version of a key, without the way to its bytes.
    pub async fn head(&self, bucket: &Bucket, key: &ObjectKey) -> Result<Version, Condition> {
        let find = |bucket: BucketId| {
            let wanted = key.clone();
            self.meta.read("find version", move |session| {
                Box::pin(async move { objects::find_version(session, bucket, &wanted).await })
            })
        };
        match find(bucket.id).await? {
            Some(version) => Ok(version),
            None => {
                let made_anew = self.made_anew(bucket).await?.ok_or(Condition::NoSuchKey)?;
                find(made_anew).await?.ok_or(Condition::NoSuchKey)
            }
        }
    }

    /// The current version of a key, ready to be opened.
    pub async fn get(&self, bucket: &Bucket, key: &ObjectKey) -> Result<Object, Condition> {
        let find = |bucket: BucketId| {
            let wanted = key.clone();
            self.meta.read("find object", move |session| {
                Box::pin(async move { objects::find(session, bucket, &wanted).await })
            })
        };
        let found = match find(bucket.id).await? {
            Some(found) => Some(found),
            None => {
                let made_anew = self.made_anew(bucket).await?.ok_or(Condition::NoSuchKey)?;
                find(made_anew).await?
            }
        };
        let (version, location) = found.ok_or(Condition::NoSuchKey)?;
        Ok(Object { version, location })
    }

    /// The bucket that was made under the name of `bucket` since that was remembered: a miss is not answered
    /// before it is known that the right bucket was asked.
    async fn made_anew(&self, bucket: &Bucket) -> Result<Option<BucketId>, Condition> {
        let fresh = self.fresh_bucket(&bucket.name).await?;
        Ok((fresh.id != bucket.id).then_some(fresh.id))
    }

    /// Opens a range of an object that came from [`Namespace::get`].
    pub fn open(&self, object: &Object, range: Range<u64>) -> Reader {
        self.content
            .open(object.version.content, object.location.clone(), range)
    }

    /// One part of a version by its place, counted from 1. A version that was not uploaded in parts is its
    /// own part 1.
    pub async fn part(&self, version: &Version, number: u32) -> Result<ObjectPart, Condition> {
        let Some(count) = version.etag.parts else {
            return match number {
                1 => Ok(ObjectPart {
                    range: 0..version.size,
                    count: None,
                    checksum: version.checksum.clone(),
                }),
                _ => Err(Condition::NoSuchPart),
            };
        };
        let page = self.parts(version, 0, count as usize).await?;
        let mut start = 0;
        for (index, part) in page.parts.into_iter().enumerate() {
            if index as u32 + 1 == number {
                return Ok(ObjectPart {
                    range: start..start + part.size,
                    count: Some(count),
                    checksum: part.checksum,
                });
            }
            start += part.size;
        }
        Err(Condition::NoSuchPart)
    }

    /// The parts of a version with numbers above `after`.
    pub async fn parts(
        &self,
        version: &Version,
        after: u32,
        limit: usize,
    ) -> Result<ObjectParts, Condition> {
        let uid = version.uid;
        let mut parts = self
            .meta
            .scan("list version parts", move |session| {
                Box::pin(objects::parts(session, uid, after, limit + 1))
            })
            .await?;
        let truncated = parts.len() > limit;
        parts.truncate(limit);
        Ok(ObjectParts { parts, truncated })
    }

    /// Deletes a key. One that is not there is a success, unless a condition wants it.
    pub async fn delete(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        conditions: WriteConditions,
    ) -> Result<(), Condition> {
        let (id, key, now) = (bucket.id, key.clone(), self.clock.now());
        let (uids, worker) = (Arc::clone(&self.uids), self.worker);
        self.meta
            .transact("delete", move |session| {
                let (uids, key, conditions) = (Arc::clone(&uids), key.clone(), conditions.clone());
                Box::pin(async move {
                    lock_bucket(session, id).await?;
                    let current = objects::lock(session, id, &key).await?;
                    decide(&conditions, current.as_ref())?;
                    let Some(old) = current else { return Ok(()) };
                    objects::delete(session, id, &key, old.uid).await?;
                    release(session, &uids, old.content, now).await?;
                    objects::add_usage(session, id, worker, -1, -(old.size as i64)).await?;
                    Ok(())
                })
            })
            .await
    }

    /// Replaces the tags of a key's current version.
    pub async fn set_tags(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        tags: Tags,
    ) -> Result<(), Condition> {
        let (id, key) = (bucket.id, key.clone());
        self.meta
            .transact("set tags", move |session| {
                let (key, tags) = (key.clone(), tags.clone());
                Box::pin(async move {
                    lock_bucket(session, id).await?;
                    if objects::lock(session, id, &key).await?.is_none() {
                        return Err(Condition::NoSuchKey);
                    }
                    Ok(objects::set_tags(session, id, &key, &tags).await?)
                })
            })
            .await
    }
}
