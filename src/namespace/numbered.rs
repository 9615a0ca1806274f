//! Versions and uploads by their number alone: the namespace as the native API sees it.
//!
//! An upload's number is the number of the version that it becomes, so one number stands for both: first what is
//! being sent, then what was.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::multipart::{all_parts, lock_upload};
use super::versions::VersionWriter;
use super::{Cause, Condition, Namespace, Object, Recheck, Target, Written, lock_bucket, release};
use crate::content::Received;
use crate::meta::contents as content_rows;
use crate::meta::uploads::{self, CompletedRow, State, UploadRow};
use crate::meta::{Session, buckets as bucket_rows, objects};
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::digest::{ChecksumAlgorithm, ETag, ObjectChecksum};
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, ContentId, SenderId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::{Headers, Version, WriteConditions};

/// Contents of one MD5 that are looked at; more are as good as none, because which one is meant is not known.
const SAME_MD5_MAX: usize = 8;

/// A version that was found by its number.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// Where it is.
    pub bucket: Arc<Bucket>,
    /// Under which key.
    pub key: ObjectKey,
    /// Whether it is its key's current version.
    pub is_current: bool,
    /// The version, ready to be opened.
    pub object: Object,
}

/// An upload that one body completes.
#[derive(Clone)]
pub struct FillRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Which upload.
    pub upload: UploadRow,
    /// What is told of it.
    pub cause: Cause,
    /// What the version will be answered with.
    pub headers: Headers,
    /// The access key that sent these bytes in full, where it gains possession by it.
    pub sender: Option<SenderId>,
    /// Asked when the bucket's settings changed since the request was admitted.
    pub recheck: Option<Recheck>,
}

/// Who must hold a content for it to count as known.
#[derive(Debug, Clone)]
pub enum Holder {
    /// The access key that sent it in full.
    Sender(SenderId),
    /// A version in one of these buckets.
    Buckets(Vec<BucketId>),
}

impl Namespace {
    /// A number that nothing has.
    pub fn new_uid(&self) -> Result<Uid, Fault> {
        self.uids.next().map(Uid)
    }

    /// The version of this number. A delete marker is none.
    pub async fn numbered(&self, uid: Uid) -> Result<Option<Numbered>, Fault> {
        self.meta
            .read("find by number", move |session| {
                Box::pin(async move {
                    let Some(row) = objects::find_by_uid(session, uid).await? else {
                        return Ok(None);
                    };
                    // One that was deleted in between has no objects.
                    let bucket = bucket_rows::find_by_id(session, row.bucket).await?;
                    Ok(bucket.map(|bucket| Numbered {
                        bucket: Arc::new(bucket),
                        key: row.key,
                        is_current: row.is_current,
                        object: Object {
                            version: row.version,
                            location: row.location,
                        },
                    }))
                })
            })
            .await
    }

    /// The upload of this number in whatever state, and its bucket. One that has ended is forgotten after a time.
    pub async fn numbered_upload(
        &self,
        uid: Uid,
    ) -> Result<Option<(Arc<Bucket>, UploadRow)>, Fault> {
        self.meta
            .read("find upload by number", move |session| {
                Box::pin(async move {
                    let Some(upload) = uploads::find(session, uid).await? else {
                        return Ok(None);
                    };
                    let bucket = bucket_rows::find_by_id(session, upload.bucket).await?;
                    Ok(bucket.map(|bucket| (Arc::new(bucket), upload)))
                })
            })
            .await
    }

    /// Completes an upload with one body in place of parts, atomically, durable when this returns. Parts that were
    /// sent are released. [`Condition::NoSuchUpload`] when it is not open any more.
    pub async fn fill(
        &self,
        request: FillRequest,
        received: Received,
    ) -> Result<Written, Condition> {
        let digests = &received.digests;
        let upload = request.upload;
        let checksum = digests
            .checksum(ChecksumAlgorithm::Crc64Nvme)
            .map(ObjectChecksum::full);
        let version = Version {
            uid: upload.uid,
            is_null: true,
            content: ContentId(0),
            size: digests.length,
            etag: ETag::single(digests.md5),
            modified: self.clock.now(),
            headers: request.headers,
            tags: upload.tags,
            checksum,
            acl: upload.acl,
            encryption: upload.encryption,
            lock: upload.lock,
        };
        let written = Written::of(&version);
        let conditions = WriteConditions::default();
        let (bucket, recheck) = (request.bucket, request.recheck);
        let filling = Arc::new(Filling {
            writer: self.writer(&bucket, &upload.key, conditions, &recheck, request.cause),
            version,
            sender: request.sender,
        });
        let version_id = self
            .commit(
                filling.writer.slot.row(),
                "fill upload",
                received,
                move |session, content| {
                    let filling = Arc::clone(&filling);
                    Box::pin(async move { filling.run(session, content).await })
                },
            )
            .await?;
        self.ring(&bucket);
        Ok(Written {
            version_id,
            ..written
        })
    }

    /// The one content with this MD5 that `holder` has, where it can be referred to from `target`. The digests
    /// that come with it say what it is; an MD5 that more than one of the holder's contents have names none.
    pub async fn possessed_by_md5(
        &self,
        target: &Target,
        md5: [u8; 16],
        holder: Holder,
    ) -> Result<Option<Received>, Condition> {
        if !target.shared {
            return Ok(None);
        }
        let space = target.space;
        let found = self
            .meta
            .read("find possessed by MD5", move |session| {
                let holder = holder.clone();
                Box::pin(async move {
                    let found =
                        content_rows::find_by_md5(session, space, &md5, SAME_MD5_MAX + 1).await?;
                    if found.len() > SAME_MD5_MAX {
                        return Ok(Vec::new());
                    }
                    let mut held = Vec::new();
                    for known in found {
                        let is_held = match &holder {
                            Holder::Sender(sender) => {
                                content_rows::possessed_by(session, known.id, *sender).await?
                            }
                            Holder::Buckets(buckets) => {
                                objects::refer_to(session, known.id, buckets).await?
                            }
                        };
                        if is_held {
                            held.push(known);
                        }
                    }
                    Ok::<_, Fault>(held)
                })
            })
            .await?;
        match <[_; 1]>::try_from(found) {
            Ok([known]) => Ok(Some(self.content.known(space, known)?)),
            Err(_) => Ok(None),
        }
    }

    /// The first bytes of a content of `size` bytes that something refers to, at most `length`.
    pub async fn front(
        &self,
        content: ContentId,
        size: u64,
        length: u64,
    ) -> Result<Vec<u8>, Fault> {
        let mut reader = self.content.open_unlocated(content, 0..size.min(length));
        let mut front = Vec::new();
        while let Some(bytes) = reader.next().await {
            front.extend_from_slice(&bytes?);
        }
        Ok(front)
    }

    /// The names of the backends at which a version's bytes lie; none for bytes in the database.
    pub async fn backends_of(&self, object: &Object) -> Result<BTreeSet<String>, Fault> {
        self.content
            .backends_of(object.version.content, &object.location)
            .await
    }
}

/// One body that completes an upload; may run several times.
struct Filling {
    writer: Arc<VersionWriter>,
    version: Version,
    sender: Option<SenderId>,
}

impl Filling {
    async fn run(
        &self,
        session: &mut Session,
        content: ContentId,
    ) -> Result<Option<crate::model::object::VersionId>, Condition> {
        let slot = &self.writer.slot;
        let now: Millis = self.version.modified;
        lock_bucket(session, &slot.bucket, slot.recheck.as_ref()).await?;
        let upload = super::UploadId(self.version.uid);
        let upload = lock_upload(session, slot.bucket.id, &slot.key, upload).await?;
        match upload.state {
            State::Open => {}
            State::Completed | State::Aborted => return Err(Condition::NoSuchUpload),
        }
        let version = Version {
            content,
            ..self.version.clone()
        };
        let mut completed = CompletedRow {
            // Of no list of parts.
            list_digest: Sha256::digest(b"one body").into(),
            uid: version.uid,
            version_id: None,
            etag: version.etag,
            size: version.size,
            modified: now,
            checksum: version.checksum.clone(),
        };
        completed.version_id = self.writer.write(session, version, self.sender).await?;
        for part in all_parts(session, upload.uid).await? {
            release(session, &slot.uids, part.content, now).await?;
        }
        uploads::delete_parts(session, upload.uid).await?;
        uploads::end(session, upload.uid, Some(&completed), now).await?;
        Ok(completed.version_id)
    }
}
