//! Put, get and parts of objects.

use std::ops::Range;
use std::sync::Arc;

use super::versions::decide;
use super::{Cause, Condition, CustomerKey, Namespace, Recheck};
use crate::content::{Reader, Received};
use crate::meta::contents::Location;
use crate::meta::version_parts::VersionPart;
use crate::meta::{objects, version_parts};
use crate::model::acl::Acl;
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::digest::{ChecksumAlgorithm, ETag, ObjectChecksum};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BucketId, ContentId, SenderId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::{
    Encryption, Entry, Headers, Lock, Tags, Version, VersionId, WriteConditions,
};

/// A version to be written.
#[derive(Clone)]
pub struct PutRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Under which key.
    pub key: ObjectKey,
    /// What is told of it.
    pub cause: Cause,
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
    /// Its access control list; `None`: the bucket's tenant owns it alone.
    pub acl: Option<Acl>,
    /// How its bytes are encrypted.
    pub encryption: Option<Encryption>,
    /// What keeps it; without a retention it gets the bucket's.
    pub lock: Lock,
    /// Asked when the bucket's settings changed since the request was admitted.
    pub recheck: Option<Recheck>,
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
    /// What clients name it by, where the bucket keeps versions or did.
    pub version_id: Option<VersionId>,
    /// How its bytes are encrypted.
    pub encryption: Option<Encryption>,
    /// Its tags.
    pub tags: Tags,
}

/// A version that was found, and where its bytes lie.
#[derive(Debug, Clone)]
pub struct Object {
    /// The version.
    pub version: Version,
    pub(super) location: Location,
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

impl Namespace {
    /// Writes a received content under a key, atomically, durable when this returns.
    pub async fn put(&self, request: PutRequest, received: Received) -> Result<Written, Condition> {
        let checksum = request.checksum.or_else(|| {
            received
                .digests
                .checksum(ChecksumAlgorithm::Crc64Nvme)
                .map(ObjectChecksum::full)
        });
        let PutRequest {
            bucket,
            key,
            cause,
            conditions,
            recheck,
            sender,
            ..
        } = request;
        let version = Version {
            uid: Uid(self.uids.next()?),
            is_null: true,
            content: ContentId(0),
            size: received.digests.length,
            etag: ETag::single(received.digests.md5),
            modified: self.clock.now(),
            headers: request.headers,
            tags: request.tags,
            checksum,
            acl: request.acl,
            encryption: request.encryption,
            lock: request.lock,
        };
        let written = Written::of(&version);
        let writer = self.writer(&bucket, &key, conditions, &recheck, cause);
        let version_id = self
            .commit(
                writer.slot.row(),
                "put",
                received,
                move |session, content| {
                    let version = Version {
                        content,
                        ..version.clone()
                    };
                    let writer = Arc::clone(&writer);
                    Box::pin(async move { writer.write(session, version, sender).await })
                },
            )
            .await?;
        self.ring(&bucket);
        Ok(Written {
            version_id,
            ..written
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

    /// A version of a key, the current one for `None`, without the way to its bytes.
    pub async fn head(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        id: Option<VersionId>,
    ) -> Result<Version, Condition> {
        let find = |bucket: BucketId| {
            let wanted = key.clone();
            self.meta.read("find version", move |session| {
                Box::pin(async move { objects::find_version(session, bucket, &wanted, id).await })
            })
        };
        let found = self.found_in(bucket, find).await?;
        object_of(found, id)
    }

    /// A version of a key, the current one for `None`, ready to be opened.
    pub async fn get(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        id: Option<VersionId>,
    ) -> Result<Object, Condition> {
        let find = |bucket: BucketId| {
            let wanted = key.clone();
            self.meta.read("find object", move |session| {
                Box::pin(async move { objects::find(session, bucket, &wanted, id).await })
            })
        };
        let found = self.found_in(bucket, find).await?;
        let (entry, location) = found.unzip();
        let version = object_of(entry, id)?;
        let location = location.flatten().ok_or_else(|| {
            Fault::new(Kind::Corrupt, "find object").context("a version without a content")
        })?;
        Ok(Object { version, location })
    }

    /// What `find` finds in a bucket, or in the one that was made under its name since it was remembered: a miss is
    /// not answered before it is known that the right bucket was asked.
    pub(super) async fn found_in<T, R>(
        &self,
        bucket: &Bucket,
        find: impl Fn(BucketId) -> R,
    ) -> Result<Option<T>, Condition>
    where
        R: Future<Output = Result<Option<T>, Fault>>,
    {
        if let Some(found) = find(bucket.id).await? {
            return Ok(Some(found));
        }
        let fresh = self.fresh_bucket(&bucket.name).await?;
        if fresh.id == bucket.id {
            return Ok(None);
        }
        Ok(find(fresh.id).await?)
    }

    /// Opens a range of an object that came from [`Namespace::get`], and that [`Namespace::check_readable`]
    /// allows to be read with `key`.
    pub fn open(&self, object: &Object, range: Range<u64>, key: Option<CustomerKey>) -> Reader {
        self.content
            .open(object.version.content, object.location.clone(), range)
            .with_customer_key(key)
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
                Box::pin(version_parts::list(session, uid, after, limit + 1))
            })
            .await?;
        let truncated = parts.len() > limit;
        parts.truncate(limit);
        Ok(ObjectParts { parts, truncated })
    }
}

/// The version that was found, or why there is none to answer with.
fn object_of(found: Option<Entry>, id: Option<VersionId>) -> Result<Version, Condition> {
    match (found, id) {
        (Some(Entry::Object(version)), _) => Ok(*version),
        (Some(Entry::Marker(marker)), id) => Err(Condition::Marker {
            id: marker.id(),
            modified: marker.modified,
            named: id.is_some(),
        }),
        (None, Some(_)) => Err(Condition::NoSuchVersion),
        (None, None) => Err(Condition::NoSuchKey),
    }
}

impl Written {
    /// What is answered of a version, before it is known what clients name it by.
    pub(super) fn of(version: &Version) -> Self {
        Self {
            uid: version.uid,
            etag: version.etag,
            size: version.size,
            modified: version.modified,
            checksum: version.checksum.clone(),
            version_id: None,
            encryption: version.encryption.clone(),
            tags: version.tags.clone(),
        }
    }
}
