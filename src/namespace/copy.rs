//! Copies: by reference inside a space, by bytes between spaces or for a checksum that is not stored.

use std::ops::Range;
use std::sync::Arc;

use futures::stream::unfold;

use super::{
    BodyHint, Cause, Condition, CustomerKey, Namespace, Object, PutRequest, Recheck, Target,
    Written,
};
use crate::content::{ReceiveError, Received, Token};
use crate::meta::{contents, version_parts};
use crate::model::acl::Acl;
use crate::model::bucket::Bucket;
use crate::model::digest::{ChecksumAlgorithm, Digests, ObjectChecksum};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, Uid};
use crate::model::names::ObjectKey;
use crate::model::notification::{Event, Origin};
use crate::model::object::{Headers, Lock, Tags, Version, VersionId, WriteConditions};

/// How often a copy by reference is tried when its source changes meanwhile.
const TRIES: usize = 3;

/// What is copied: an object that was found, whose conditions hold.
#[derive(Debug, Clone)]
pub struct CopySource {
    /// Where it was found.
    pub bucket: Arc<Bucket>,
    /// Under which key.
    pub key: ObjectKey,
    /// The version's id; `None`: the current one.
    pub version: Option<VersionId>,
    /// The version.
    pub object: Object,
    /// The key it takes to read it, where that is a customer's.
    pub customer_key: Option<CustomerKey>,
}

/// A version to be written from another one's bytes.
#[derive(Clone)]
pub struct CopyRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Under which key.
    pub key: ObjectKey,
    /// Who copies, for those who are told of it.
    pub origin: Origin,
    /// New headers; `None` keeps the source's.
    pub headers: Option<Headers>,
    /// New tags; `None` keeps the source's.
    pub tags: Option<Tags>,
    /// The checksum wanted; `None` keeps the source's.
    pub checksum: Option<ChecksumAlgorithm>,
    /// Decided under the key's lock.
    pub conditions: WriteConditions,
    /// Its access control list; never the source's.
    pub acl: Option<Acl>,
    /// Where its bytes go and what protects them.
    pub target: Target,
    /// What keeps it; never what keeps the source.
    pub lock: Lock,
    /// Asked when the bucket's settings changed since the request was admitted.
    pub recheck: Option<Recheck>,
}

impl Namespace {
    /// Copies an object. The copy carries no possession: nobody sent its bytes.
    pub async fn copy(
        &self,
        source: &CopySource,
        request: CopyRequest,
    ) -> Result<Written, Condition> {
        // A bucket that moves meanwhile waits for a reference that was planned where it was before.
        let open = Arc::new(self.content.begin_write());
        let mut object = source.object.clone();
        for _ in 0..TRIES {
            let version = &object.version;
            let checksum = self.checksum_for_copy(version, request.checksum).await?;
            let by_reference = self.may_share(version, &request.target).await?;
            let Some(checksum) = checksum.filter(|_| by_reference) else {
                return self.copy_bytes(source, &object, request).await;
            };
            match self
                .copy_reference(version, &request, checksum, &open)
                .await
            {
                // The source was overwritten and collected since it was read.
                Err(Condition::ContentGone) => {
                    object = self
                        .get(&source.bucket, &source.key, source.version)
                        .await?;
                    let key = source.customer_key.as_ref();
                    self.check_readable(&source.bucket, &object.version, key)
                        .await?;
                }
                outcome => return outcome,
            }
        }
        Err(Condition::ContentGone)
    }

    /// The checksum a copy by reference is stored with; `None` when the bytes must be read for it.
    async fn checksum_for_copy(
        &self,
        version: &Version,
        wanted: Option<ChecksumAlgorithm>,
    ) -> Result<Option<ObjectChecksum>, Condition> {
        let stored = version.checksum.clone();
        match (wanted, stored) {
            (None, Some(stored)) => Ok(Some(stored)),
            (Some(wanted), Some(stored)) if stored.checksum.algorithm == wanted => Ok(Some(stored)),
            (wanted, _) => {
                let algorithm = wanted.unwrap_or(ChecksumAlgorithm::Crc64Nvme);
                let digests = self.digests(version.content).await?;
                Ok(digests
                    .and_then(|digests| digests.checksum(algorithm))
                    .map(ObjectChecksum::full))
            }
        }
    }

    /// The digests of a content, as far as they were computed over all of it: not over one that was joined from parts.
    pub async fn digests(&self, content: ContentId) -> Result<Option<Digests>, Fault> {
        self.meta
            .read("find digests", move |session| {
                Box::pin(contents::digests(session, content))
            })
            .await
    }

    async fn copy_reference(
        &self,
        source: &Version,
        request: &CopyRequest,
        checksum: ObjectChecksum,
        open: &Arc<Token>,
    ) -> Result<Written, Condition> {
        let version = Version {
            uid: Uid(self.uids.next()?),
            is_null: true,
            content: source.content,
            size: source.size,
            etag: source.etag,
            modified: self.clock.now(),
            headers: request
                .headers
                .clone()
                .unwrap_or_else(|| source.headers.clone()),
            tags: request.tags.clone().unwrap_or_else(|| source.tags.clone()),
            checksum: Some(checksum),
            acl: request.acl.clone(),
            encryption: request.target.encryption().cloned(),
            lock: request.lock,
        };
        let written = Written::of(&version);
        let conditions = request.conditions.clone();
        let cause = Cause {
            event: Event::CreatedByCopy,
            origin: request.origin.clone(),
        };
        let writer = self.writer(
            &request.bucket,
            &request.key,
            conditions,
            &request.recheck,
            cause,
        );
        let (from, open) = (source.uid, Arc::clone(open));
        let version_id = self
            .meta
            .transact_at(writer.slot.row(), "copy", move |session| {
                let (writer, version) = (Arc::clone(&writer), version.clone());
                // To the end of the transaction, which goes on when the request is given up.
                let open = Arc::clone(&open);
                Box::pin(async move {
                    let _open = open;
                    if !contents::lock(session, version.content).await? {
                        return Err(Condition::ContentGone);
                    }
                    // Before the write: a copy onto itself replaces the source and its parts.
                    if version.etag.parts.is_some() {
                        version_parts::copy(session, from, version.uid).await?;
                    }
                    writer.write(session, version, None).await
                })
            })
            .await?;
        self.ring(&request.bucket);
        Ok(Written {
            version_id,
            ..written
        })
    }

    async fn copy_bytes(
        &self,
        source: &CopySource,
        object: &Object,
        request: CopyRequest,
    ) -> Result<Written, Condition> {
        let size = object.version.size;
        let received = self
            .read_again(source, object, 0..size, &request.target, request.checksum)
            .await?;
        let checksum = request
            .checksum
            .and_then(|algorithm| received.digests.checksum(algorithm))
            .map(ObjectChecksum::full);
        let version = &object.version;
        let put = PutRequest {
            bucket: request.bucket,
            key: request.key,
            cause: Cause {
                event: Event::CreatedByCopy,
                origin: request.origin,
            },
            headers: request.headers.unwrap_or_else(|| version.headers.clone()),
            tags: request.tags.unwrap_or_else(|| version.tags.clone()),
            checksum,
            conditions: request.conditions,
            sender: None,
            acl: request.acl,
            encryption: request.target.encryption().cloned(),
            lock: request.lock,
            recheck: request.recheck,
        };
        self.put(put, received).await
    }

    /// Reads a range of an object as a new body for `target`. [`Kind::Corrupt`] where it is not what was stored.
    pub(super) async fn read_again(
        &self,
        source: &CopySource,
        object: &Object,
        range: Range<u64>,
        target: &Target,
        checksum: Option<ChecksumAlgorithm>,
    ) -> Result<Received, Condition> {
        let length = range.end - range.start;
        let reader = self.open(object, range.clone(), source.customer_key.clone());
        let content = object.version.content;
        let reader = self.content.proven(reader, content, range).await?;
        let body = unfold(reader, |mut reader| async {
            let next = reader.next().await?;
            Some((next.map_err(Into::into), reader))
        });
        let mut body = std::pin::pin!(body);
        let hint = BodyHint {
            length: Some(length),
            limit: u64::MAX,
            verified_sha256: None,
            sha1: checksum == Some(ChecksumAlgorithm::Sha1),
        };
        self.receive(target, hint, body.as_mut())
            .await
            .map_err(|error| match error {
                ReceiveError::Fault(fault) => Condition::Fault(fault),
                ReceiveError::Body(error) => Condition::Fault(match error.downcast::<Fault>() {
                    Ok(fault) => *fault,
                    Err(error) => Fault::new(Kind::Internal, "copy bytes").source(error),
                }),
                ReceiveError::TooLarge | ReceiveError::WrongLength => Condition::Fault(
                    Fault::new(Kind::Corrupt, "copy bytes")
                        .context(format_args!("bucket {}", source.bucket.name)),
                ),
            })
    }
}
