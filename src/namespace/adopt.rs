//! Versions of objects that another system wrote, under the numbers that they have there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::versions::VersionWriter;
use super::{Cause, Condition, Namespace, Wanted};
use crate::content::{AdoptError, Adopted, Adoption, ContentStore, Foreign, Unsettled};
use crate::meta::Session;
use crate::meta::adoptions::{self, Standing};
use crate::meta::contents::Owner;
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::digest::{ChecksumAlgorithm, ETag, ObjectChecksum};
use crate::model::fault::Fault;
use crate::model::ids::{BlobId, ContentId, Uid};
use crate::model::names::ObjectKey;
use crate::model::object::{ETagList, Headers, Tags, Version, WriteConditions};

/// A version to be made of objects that lie at a backend.
#[derive(Debug, Clone)]
pub struct AdoptRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Under which key; nothing may have it.
    pub key: ObjectKey,
    /// Its number there, which becomes its number here.
    pub uid: Uid,
    /// What it will be answered with.
    pub headers: Headers,
    /// When it was written; `None` for now.
    pub modified: Option<Millis>,
    /// Its bytes, in order; at least one object.
    pub objects: Vec<Foreign>,
    /// What its bytes must hash to, where that is known.
    pub md5: Option<[u8; 16]>,
    /// Whose the objects are.
    pub owner: Owner,
}

/// Why a version was not made. Nothing is left behind.
#[derive(Debug)]
pub enum NotAdopted {
    /// The number or the key has a version already, or an upload.
    Taken,
    /// An object was a blob here before, and what lay in it was deleted.
    Deleted,
    /// The bytes hash to something else.
    Md5([u8; 16]),
    /// What is written to the bucket is encrypted, and the objects are not.
    Encrypted,
    /// The objects are not as they should be, or a store failed.
    Objects(AdoptError),
    /// The namespace refused, or a store failed.
    Condition(Condition),
}

impl From<Fault> for NotAdopted {
    fn from(fault: Fault) -> Self {
        Self::Condition(fault.into())
    }
}

impl Namespace {
    /// What a number stands for.
    pub async fn standing_of(&self, uid: Uid) -> Result<Standing, Fault> {
        self.meta
            .read("find number", move |session| {
                Box::pin(adoptions::standing(session, uid))
            })
            .await
    }

    /// Which of these numbers were adopted.
    pub async fn adopted_among(&self, uids: Vec<Uid>) -> Result<BTreeSet<Uid>, Fault> {
        self.meta
            .scan("find numbers", move |session| {
                let uids = uids.clone();
                Box::pin(async move {
                    let mut adopted = BTreeSet::new();
                    for uid in uids {
                        if adoptions::is_adopted(session, uid).await? {
                            adopted.insert(uid);
                        }
                    }
                    Ok(adopted)
                })
            })
            .await
    }

    /// Blobs above `after` whose objects were adopted and not handed over, in order, at most `limit`.
    pub async fn unsettled(&self, after: BlobId, limit: usize) -> Result<Vec<Unsettled>, Fault> {
        self.content.unsettled(after, limit).await
    }

    /// Makes the objects of blobs ours to delete, once nothing refers to them. Durable when this returns.
    pub async fn hand_over(&self, blobs: Vec<BlobId>) -> Result<(), Fault> {
        self.meta
            .transact("hand over objects", move |session| {
                let blobs = blobs.clone();
                Box::pin(async move {
                    for blob in blobs {
                        adoptions::hand_over(session, blob).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Reads the objects and makes them a version where they lie, atomically, durable when this returns.
    pub async fn adopt(&self, request: AdoptRequest) -> Result<(), NotAdopted> {
        let target = self.target(&request.bucket, Wanted::Default).await;
        let target = target.map_err(NotAdopted::Condition)?;
        if target.encryption().is_some() {
            return Err(NotAdopted::Encrypted);
        }
        let adoption = Adoption {
            space: target.space,
            shared: target.shared,
            objects: request.objects,
            owner: request.owner,
        };
        let adopting = self.content.adopt(&adoption).await;
        let received = adopting.map_err(NotAdopted::Objects)?;
        let digests = &received.digests;
        if request.md5.is_some_and(|md5| md5 != digests.md5) {
            return Err(NotAdopted::Md5(digests.md5));
        }
        let now = self.clock.now();
        let checksum = digests
            .checksum(ChecksumAlgorithm::Crc64Nvme)
            .map(ObjectChecksum::full);
        let version = Version {
            uid: request.uid,
            is_null: true,
            content: ContentId(0),
            size: digests.length,
            etag: ETag::single(digests.md5),
            modified: request.modified.unwrap_or(now),
            headers: request.headers,
            tags: Tags::default(),
            checksum,
            acl: Default::default(),
            encryption: None,
            lock: Default::default(),
        };
        let (bucket, key) = (request.bucket, request.key);
        let absent = WriteConditions {
            if_none_match: Some(ETagList::parse("*")),
            ..WriteConditions::default()
        };
        let adopting = Arc::new(Adopting {
            writer: self.writer(&bucket, &key, absent, &None, Cause::default()),
            version,
            adopted: received.adopted(),
            now,
        });
        let row = adopting.writer.slot.row();
        let outcome = self.commit(row, "adopt object", received, move |session, content| {
            let adopting = Arc::clone(&adopting);
            Box::pin(async move { adopting.run(session, content).await })
        });
        match outcome.await {
            Ok(()) => {}
            Err(Condition::PreconditionFailed) => return Err(NotAdopted::Taken),
            Err(Condition::ContentGone) => return Err(NotAdopted::Deleted),
            Err(condition) => return Err(NotAdopted::Condition(condition)),
        }
        self.ring(&bucket);
        Ok(())
    }
}

/// One version to be made; may run several times.
struct Adopting {
    writer: Arc<VersionWriter>,
    version: Version,
    adopted: Adopted,
    now: Millis,
}

impl Adopting {
    async fn run(&self, session: &mut Session, content: ContentId) -> Result<(), Condition> {
        let uid = self.version.uid;
        if adoptions::standing(session, uid).await? != Standing::Free {
            return Err(Condition::PreconditionFailed);
        }
        let version = Version {
            content,
            ..self.version.clone()
        };
        self.writer.write(session, version, None).await?;
        let noted = ContentStore::note_adopted(session, &self.adopted, content, self.now);
        if !noted.await? {
            return Err(Condition::ContentGone);
        }
        Ok(adoptions::note_uid(session, uid, self.now).await?)
    }
}
