//! Buckets, keys, versions and uploads: what the facades see.
//!
//! [`Namespace`] guarantees that every change of a key is one atomic step at the end, after the body: one
//! transaction decides the conditions under the key's lock, writes the version and its reference, releases
//! what it replaced, and counts. Reads see what is committed. It knows no protocol and asks nobody for
//! permission: the facade has asked already.

mod adopt;
mod buckets;
mod condition;
mod copy;
mod encryption;
mod lifecycle;
mod list_versions;
pub mod listing;
mod logs;
mod multipart;
mod notify;
mod numbered;
mod objects;
mod rehome;
mod stale;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::content::{ContentStore, Incoming, Linked};
use crate::keys::Keys;
use crate::meta::{Contended, MetaStore, Remembered, Session, buckets as bucket_rows, releases};
use crate::model::bucket::Bucket;
use crate::model::clock::{Clock, Millis};
use crate::model::content::Protection;
use crate::model::digest::{Checksum, Sha256Digest};
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, ContentId, SenderId, SpaceId, UidGenerator};
use crate::model::names::BucketName;

pub use crate::content::{
    AdoptError, Body, BodyError, Foreign, Reader, ReceiveError, Received, Rehoming, Work,
};
pub use crate::keys::CustomerKey;
pub use crate::meta::Bell;
pub use crate::meta::adoptions::Standing;
pub use crate::meta::uploads::{State as UploadState, UploadRow};
pub use adopt::{AdoptRequest, NotAdopted};
pub use buckets::{BucketPage, NewBucket};
pub use condition::Condition;
pub use copy::{CopyRequest, CopySource};
pub use encryption::{KeyProblem, Target, Wanted};
pub use lifecycle::ExpireReport;
pub use list_versions::{VersionPage, VersionQuery};
pub use logs::LogReport;
pub use multipart::{
    CompleteRequest, Completed, ListedPart, NamedPart, NewUpload, PART_MIN_BYTES, PART_NUMBER_MAX,
    PartPage, PartWritten, UploadId, UploadPage, UploadQuery,
};
pub use notify::Cause;
pub use numbered::{FillRequest, Holder, Numbered};
pub use objects::{Object, ObjectPart, ObjectParts, PutRequest, Written};
pub use rehome::{RehomeCursor, RehomeRound, Switched};
pub use stale::StaleReport;
pub use versions::{ChangeRequest, DeleteRequest, Deleted, Reason, VersionChange};

/// Largest single put and largest part, in bytes ("Amazon S3 multipart upload limits").
pub const PUT_MAX_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// How old a bucket's settings may be for reads.
const BUCKET_TTL: Duration = Duration::from_secs(1);
/// Buckets remembered for that long.
const BUCKETS_REMEMBERED: u64 = 10_000;
/// Spaces remembered.
const SPACES_REMEMBERED: u64 = 10_000;

/// Limits of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Most buckets of one tenant.
    pub buckets_max: u64,
    /// Open uploads older than this many days are aborted.
    pub stale_upload_days: u64,
    /// Which completed uploads are merged; `None`: none is.
    pub merge: Option<MergeRule>,
}

/// Which completed uploads are merged with equal bytes, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeRule {
    /// Time after the complete request, in milliseconds.
    pub delay: Millis,
    /// Longer ones are left as they are.
    pub max_bytes: u64,
}

/// What a namespace is made of.
pub struct Parts {
    /// The rows.
    pub meta: MetaStore,
    /// The bytes.
    pub content: Arc<ContentStore>,
    /// What wraps the keys of encrypted bytes.
    pub keys: Arc<Keys>,
    /// Numbers for everything.
    pub uids: Arc<UidGenerator>,
    /// The worker whose share of the usage counters this process writes.
    pub worker: u16,
    /// Where the blobs of new buckets go.
    pub default_placement: i64,
    /// Where they may go instead, by the name that whoever makes the bucket gives.
    pub open_placements: BTreeMap<String, i64>,
    /// The time.
    pub clock: Clock,
    /// Rung after a commit that told of something.
    pub bell: Bell,
    /// Rung after a bucket was made, changed or deleted.
    pub changed: Bell,
    /// Limits.
    pub config: Config,
}

/// The handle facades use. Shared by all requests.
pub struct Namespace {
    meta: MetaStore,
    content: Arc<ContentStore>,
    keys: Arc<Keys>,
    uids: Arc<UidGenerator>,
    worker: u16,
    default_placement: i64,
    open_placements: BTreeMap<String, i64>,
    clock: Clock,
    config: Config,
    bell: Bell,
    logs: logs::LogBuffer,
    buckets: Remembered<BucketName, Arc<Bucket>>,
    /// Spaces beside buckets' own; these never change.
    spaces: Cache<(SpaceId, Protection), SpaceId>,
}

/// What a client says of a body before it sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHint {
    /// The declared length.
    pub length: Option<u64>,
    /// Most bytes taken.
    pub limit: u64,
    /// The SHA-256 that the protocol verifies while the body streams.
    pub verified_sha256: Option<Sha256Digest>,
    /// Whether a SHA-1 will be compared or stored.
    pub sha1: bool,
}

impl Namespace {
    /// A namespace over stores that are open.
    pub fn new(parts: Parts) -> Self {
        Self {
            meta: parts.meta,
            content: parts.content,
            keys: parts.keys,
            uids: parts.uids,
            worker: parts.worker,
            default_placement: parts.default_placement,
            open_placements: parts.open_placements,
            clock: parts.clock,
            config: parts.config,
            bell: parts.bell,
            logs: logs::LogBuffer::default(),
            buckets: Remembered::new(BUCKETS_REMEMBERED, BUCKET_TTL, parts.changed),
            spaces: Cache::builder().max_capacity(SPACES_REMEMBERED).build(),
        }
    }

    /// Reads a body to its end and makes its bytes safe; the result is put under a key or into a part.
    pub async fn receive(
        &self,
        target: &Target,
        hint: BodyHint,
        body: Body<'_>,
    ) -> Result<Received, ReceiveError> {
        let incoming = Incoming {
            space: target.space,
            shared: target.shared,
            seal: target.seal.clone(),
            length: hint.length,
            limit: hint.limit,
            verified_sha256: hint.verified_sha256,
            sha1: hint.sha1,
        };
        self.content.receive(incoming, body).await
    }

    /// The content that an upload of these bytes would make, when `sender` has possession of it, so that
    /// the upload can be answered without its body. `checksums` are compared with what is stored: one that
    /// differs is [`Condition::BadDigest`], one that is not stored means that the body must be read.
    pub async fn possessed(
        &self,
        target: &Target,
        sha256: Sha256Digest,
        length: u64,
        sender: SenderId,
        md5: Option<[u8; 16]>,
        checksums: &[Checksum],
    ) -> Result<Option<Received>, Condition> {
        if !target.shared {
            return Ok(None);
        }
        let found = self
            .content
            .possessed(target.space, sha256, length, sender)
            .await?;
        let Some(known) = found else {
            return Ok(None);
        };
        if md5.is_some_and(|md5| md5 != known.digests.md5) {
            return Err(Condition::BadDigest);
        }
        for wanted in checksums {
            match known.digests.checksum(wanted.algorithm) {
                None => return Ok(None),
                Some(stored) if stored != *wanted => return Err(Condition::BadDigest),
                Some(_) => {}
            }
        }
        Ok(Some(self.content.known(target.space, known)?))
    }

    /// The time, as versions are stamped with.
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Runs a transaction that links `received`, and settles its bytes by how it ended. `work` gets the
    /// content to refer to and the session, and returns what the caller wants; it locks `row`.
    async fn commit<T, F>(
        &self,
        row: Contended,
        operation: &'static str,
        received: Received,
        work: F,
    ) -> Result<T, Condition>
    where
        T: Send + 'static,
        F: for<'s> Fn(
                &'s mut Session,
                ContentId,
            ) -> futures::future::BoxFuture<'s, Result<T, Condition>>
            + Send
            + Sync
            + 'static,
    {
        let received = Arc::new(received);
        received.begin_commit();
        let (inside, work, now) = (Arc::clone(&received), Arc::new(work), self.clock.now());
        let outcome = self
            .meta
            .transact_at(row, operation, move |session| {
                let (received, work) = (Arc::clone(&inside), Arc::clone(&work));
                Box::pin(async move {
                    match ContentStore::link(session, &received, now).await? {
                        Linked::To(content) => {
                            let value = work(session, content).await?;
                            Ok::<_, Condition>((value, content))
                        }
                        Linked::Gone => Err(Condition::ContentGone),
                    }
                })
            })
            .await;
        match outcome {
            Ok((value, content)) => {
                self.content.settle(&received, Ok(content));
                Ok(value)
            }
            Err(condition) => {
                let kind = match &condition {
                    Condition::Fault(fault) => Some(fault.kind()),
                    _ => None,
                };
                self.content.settle(&received, Err(kind));
                Err(condition)
            }
        }
    }
}

/// Asked under the bucket's lock when its settings changed since a request was admitted: whether the request
/// would be admitted still.
pub type Recheck = Arc<dyn Fn(&Bucket) -> bool + Send + Sync>;

/// Excludes the deletion of a bucket for the rest of the transaction, and answers it as it is now.
async fn lock_bucket(
    session: &mut Session,
    admitted: &Arc<Bucket>,
    recheck: Option<&Recheck>,
) -> Result<Arc<Bucket>, Condition> {
    let rev = bucket_rows::lock(session, admitted.id).await?;
    let rev = rev.ok_or(Condition::NoSuchBucket)?;
    if rev == admitted.rev {
        return Ok(Arc::clone(admitted));
    }
    let fresh = bucket_rows::find_by_id(session, admitted.id).await?;
    let fresh = fresh.ok_or(Condition::NoSuchBucket)?;
    still_admitted(fresh, admitted.rev, recheck).map(Arc::new)
}

/// Excludes everything else that locks the bucket for the rest of the transaction, and answers it as it is now.
async fn lock_bucket_alone(
    session: &mut Session,
    id: BucketId,
    rev: i64,
    recheck: Option<&Recheck>,
) -> Result<Bucket, Condition> {
    let fresh = bucket_rows::lock_alone(session, id).await?;
    still_admitted(fresh.ok_or(Condition::NoSuchBucket)?, rev, recheck)
}

/// A bucket as it is under lock, if a request that was admitted at `rev` would be admitted to it now.
fn still_admitted(fresh: Bucket, rev: i64, recheck: Option<&Recheck>) -> Result<Bucket, Condition> {
    match recheck {
        Some(admits) if fresh.rev != rev && !admits(&fresh) => Err(Condition::Denied),
        _ => Ok(fresh),
    }
}

/// Gives up one reference.
async fn release(
    session: &mut Session,
    uids: &UidGenerator,
    content: ContentId,
    now: Millis,
) -> Result<(), Fault> {
    releases::release(session, uids.next()?, content, now).await
}
