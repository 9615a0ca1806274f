//! Multipart uploads: parts are contents of their own; complete joins them by metadata only.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::encryption::check_upload_key;
use super::listing::prefix_end;
use super::rehome::space_of_joined;
use super::{
    Cause, Condition, CopySource, CustomerKey, MergeRule, Namespace, Recheck, Target, Written,
    lock_bucket, release,
};
use crate::content::{ContentStore, Received};
use crate::meta::uploads::{self, CompletedRow, PartRow, State, UploadRow};
use crate::meta::version_parts::{self, VersionPart};
use crate::meta::{Contended, Session, contents as content_rows};
use crate::model::acl::Acl;
use crate::model::bucket::{Bucket, Dedup};
use crate::model::clock::Millis;
use crate::model::content::Extent;
use crate::model::digest::{
    Checksum, ChecksumAlgorithm, ChecksumKind, ETag, ObjectChecksum, join_checksums,
};
use crate::model::fault::Fault;
use crate::model::ids::{BucketId, ContentId, SenderId, Uid};
use crate::model::names::ObjectKey;
use crate::model::notification::{Event, Origin};
use crate::model::object::{Encryption, Headers, Lock, Tags, Version, WriteConditions};

/// Highest part number ("Amazon S3 multipart upload limits").
pub const PART_NUMBER_MAX: u32 = 10_000;
/// Smallest part but the last that S3 takes.
pub const PART_MIN_BYTES: u64 = 5 * 1024 * 1024;
/// Largest object.
const OBJECT_MAX_BYTES: u64 = 5 * 1024 * 1024 * 1024 * 1024;

/// The id of an upload as clients see it: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadId(pub Uid);

impl UploadId {
    /// Parses a client's text; anything else than an id of ours names no upload.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        i64::from_str_radix(text, 16).ok().map(|id| Self(Uid(id)))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.0)
    }
}

/// An upload to be begun.
#[derive(Clone, Default)]
pub struct NewUpload {
    /// Its number, from [`Namespace::new_uid`], where its key must be known by it.
    pub uid: Option<Uid>,
    /// What the version will be answered with.
    pub headers: Headers,
    /// The version's tags.
    pub tags: Tags,
    /// The checksum announced for the parts and the whole.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// The version's access control list.
    pub acl: Option<Acl>,
    /// How the version's bytes are encrypted.
    pub encryption: Option<Encryption>,
    /// What keeps the version.
    pub lock: Lock,
    /// Asked when the bucket's settings changed since the request was admitted.
    pub recheck: Option<Recheck>,
}

/// A part that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartWritten {
    /// Its ETag.
    pub etag: ETag,
    /// When.
    pub modified: Millis,
    /// The checksum it is listed with.
    pub checksum: Option<ObjectChecksum>,
}

/// A part as the list of a complete request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPart {
    /// Its number.
    pub number: u32,
    /// Its ETag; one that is none of ours is `None` and matches no part.
    pub etag: Option<ETag>,
    /// Its checksums, as far as they are given.
    pub checksums: Vec<Checksum>,
}

/// A complete request.
#[derive(Clone)]
pub struct CompleteRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Under which key.
    pub key: ObjectKey,
    /// Which upload.
    pub upload: UploadId,
    /// Who completes it, for those who are told of it.
    pub origin: Origin,
    /// The parts, in the client's order.
    pub parts: Vec<NamedPart>,
    /// The checksum the client expects of the whole: algorithm, value, and kind where it says so.
    pub checksum: Option<(Checksum, Option<ChecksumKind>)>,
    /// The size the client expects.
    pub size: Option<u64>,
    /// Smallest part but the last, in bytes: a rule of the protocol.
    pub part_min_bytes: u64,
    /// What the version is answered with, in place of what the upload was begun with.
    pub headers: Option<Headers>,
    /// Decided under the key's lock.
    pub conditions: WriteConditions,
    /// The customer's key that came along, compared with the upload's.
    pub customer_key: Option<CustomerKey>,
    /// Asked when the bucket's settings changed since the request was admitted.
    pub recheck: Option<Recheck>,
}

/// A completed upload.
pub type Completed = Written;

/// A part as it is listed.
pub type ListedPart = PartRow;

/// A page of an upload's parts.
#[derive(Debug, Clone)]
pub struct PartPage {
    /// The upload.
    pub upload: UploadRow,
    /// In order of number.
    pub parts: Vec<ListedPart>,
    /// Whether more follow.
    pub truncated: bool,
}

/// Which open uploads are listed.
#[derive(Debug, Clone)]
pub struct UploadQuery {
    /// Only keys that begin so.
    pub prefix: String,
    /// Groups keys.
    pub delimiter: Option<String>,
    /// Begin after this key ...
    pub key_marker: String,
    /// ... or after this upload of it.
    pub upload_marker: Option<UploadId>,
    /// Most entries, uploads and common prefixes together.
    pub limit: usize,
}

/// A page of open uploads.
#[derive(Debug, Clone, Default)]
pub struct UploadPage {
    /// In order of key, then of begin.
    pub uploads: Vec<uploads::ListedUpload>,
    /// Groups of keys.
    pub common_prefixes: Vec<String>,
    /// Whether more follow.
    pub truncated: bool,
    /// Where the next page begins: a key or common prefix, and an upload of it.
    pub next: Option<(String, Option<UploadId>)>,
}

/// The upload under its lock, if it belongs to this key.
pub(super) async fn lock_upload(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
) -> Result<UploadRow, Condition> {
    uploads::find(session, upload.0)
        .await?
        .filter(|row| row.bucket == bucket && row.key == *key)
        .ok_or(Condition::NoSuchUpload)
}

async fn lock_open(
    session: &mut Session,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
) -> Result<UploadRow, Condition> {
    let row = lock_upload(session, bucket, key, upload).await?;
    match row.state {
        State::Open => Ok(row),
        State::Completed | State::Aborted => Err(Condition::NoSuchUpload),
    }
}

impl Namespace {
    /// Begins an upload.
    pub async fn create_upload(
        &self,
        bucket: &Arc<Bucket>,
        key: &ObjectKey,
        new: NewUpload,
    ) -> Result<UploadId, Condition> {
        let row = UploadRow {
            uid: new.uid.map_or_else(|| self.new_uid(), Ok)?,
            bucket: bucket.id,
            key: key.clone(),
            initiated: self.clock.now(),
            state: State::Open,
            headers: new.headers,
            tags: new.tags,
            checksum: new.checksum,
            completed: None,
            acl: new.acl,
            encryption: new.encryption,
            lock: new.lock,
        };
        let id = UploadId(row.uid);
        let (bucket, recheck) = (Arc::clone(bucket), new.recheck);
        self.meta
            .transact("create upload", move |session| {
                let (row, bucket, recheck) = (row.clone(), Arc::clone(&bucket), recheck.clone());
                Box::pin(async move {
                    let bucket = lock_bucket(session, &bucket, recheck.as_ref()).await?;
                    if !bucket.object_lock && !row.lock.is_empty() {
                        return Err(Condition::NoObjectLock);
                    }
                    Ok::<_, Condition>(uploads::insert(session, &row).await?)
                })
            })
            .await?;
        Ok(id)
    }

    /// An open upload; asked before a part's body is read.
    pub async fn upload(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<UploadRow, Condition> {
        let (bucket, key) = (bucket.id, key.clone());
        self.meta
            .read("find upload", move |session| {
                Box::pin(async move { lock_open(session, bucket, &key, upload).await })
            })
            .await
    }

    /// Writes a received content as a part, over an older one of the same number. `checksum` was verified
    /// against the bytes.
    pub async fn put_part(
        &self,
        upload: &UploadRow,
        number: u32,
        checksum: Option<ObjectChecksum>,
        sender: Option<SenderId>,
        received: Received,
    ) -> Result<PartWritten, Condition> {
        let algorithm = upload.checksum.map(|(algorithm, _)| algorithm);
        let digests = &received.digests;
        let checksum = checksum.or_else(|| {
            // CRC-64/NVME is what a whole without an announced checksum is answered with.
            let algorithm = algorithm.unwrap_or(ChecksumAlgorithm::Crc64Nvme);
            digests.checksum(algorithm).map(ObjectChecksum::full)
        });
        let part = PartRow {
            number,
            content: ContentId(0),
            sender,
            size: digests.length,
            md5: digests.md5,
            checksum,
            modified: self.clock.now(),
        };
        let written = PartWritten {
            etag: ETag::single(part.md5),
            modified: part.modified,
            checksum: part.checksum.clone(),
        };
        let (row, uids) = (upload.clone(), Arc::clone(&self.uids));
        let contended = Contended::Upload(row.uid);
        self.commit(contended, "put part", received, move |session, content| {
            let part = PartRow {
                content,
                ..part.clone()
            };
            let (row, uids) = (row.clone(), Arc::clone(&uids));
            Box::pin(async move {
                lock_open(session, row.bucket, &row.key, UploadId(row.uid)).await?;
                let number = part.number;
                let old = uploads::parts(session, row.uid, number - 1, 1).await?;
                if let Some(old) = old.into_iter().find(|old| old.number == number) {
                    release(session, &uids, old.content, part.modified).await?;
                }
                Ok(uploads::write_part(session, row.uid, &part).await?)
            })
        })
        .await?;
        Ok(written)
    }

    /// Writes a range of an object as a part: by reference when it is a whole content of the same space,
    /// else by its bytes.
    pub async fn copy_part(
        &self,
        upload: &UploadRow,
        target: &Target,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<PartWritten, Condition> {
        // As for a copy of an object, from before it is looked at whose space it is.
        let _open = self.content.begin_write();
        let version = &source.object.version;
        let algorithm = upload.checksum.map(|(algorithm, _)| algorithm);
        if range == (0..version.size)
            && self.may_share(version, target).await?
            && let Some(digests) = self.digests(version.content).await?
            && algorithm.is_none_or(|algorithm| digests.checksum(algorithm).is_some())
        {
            let known = content_rows::Known {
                id: version.content,
                digests,
            };
            let received = self.content.same(target.space, known)?;
            match self.put_part(upload, number, None, None, received).await {
                Err(Condition::ContentGone) => {}
                outcome => return outcome,
            }
        }
        let received = self
            .read_again(source, &source.object, range, target, algorithm)
            .await?;
        self.put_part(upload, number, None, None, received).await
    }

    /// Makes a version of the named parts, atomically; its number is the upload's. A repeat with the same list gets
    /// the first answer.
    pub async fn complete(&self, request: CompleteRequest) -> Result<Completed, Condition> {
        check_order(&request.parts)?;
        let completion = Arc::new(Completion {
            list_digest: list_digest(&request.parts),
            composite: ContentId(self.uids.next()?),
            now: self.clock.now(),
            merge: self.config.merge,
            writer: self.writer(
                &request.bucket,
                &request.key,
                request.conditions.clone(),
                &request.recheck,
                Cause {
                    event: Event::CreatedByUpload,
                    origin: request.origin.clone(),
                },
            ),
            request,
        });
        let bucket = Arc::clone(&completion.request.bucket);
        let row = completion.writer.slot.row();
        let completed = self
            .meta
            .transact_at(row, "complete upload", move |session| {
                let completion = Arc::clone(&completion);
                Box::pin(async move { completion.run(session).await })
            })
            .await?;
        self.ring(&bucket);
        Ok(completed)
    }

    /// Ends an open upload and releases its parts.
    pub async fn abort(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<(), Condition> {
        let (bucket, key, now) = (bucket.id, key.clone(), self.clock.now());
        let uids = Arc::clone(&self.uids);
        self.meta
            .transact("abort upload", move |session| {
                let (key, uids) = (key.clone(), Arc::clone(&uids));
                Box::pin(async move {
                    let row = lock_open(session, bucket, &key, upload).await?;
                    for part in all_parts(session, row.uid).await? {
                        release(session, &uids, part.content, now).await?;
                    }
                    uploads::delete_parts(session, row.uid).await?;
                    Ok(uploads::end(session, row.uid, None, now).await?)
                })
            })
            .await
    }

    /// The parts of an open upload with numbers above `after`.
    pub async fn upload_parts(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<PartPage, Condition> {
        let (bucket, key) = (bucket.id, key.clone());
        self.meta
            .scan("list parts", move |session| {
                Box::pin(async move {
                    let upload = lock_open(session, bucket, &key, upload).await?;
                    let mut parts = uploads::parts(session, upload.uid, after, limit + 1).await?;
                    let truncated = parts.len() > limit;
                    parts.truncate(limit);
                    Ok(PartPage {
                        upload,
                        parts,
                        truncated,
                    })
                })
            })
            .await
    }

    /// A page of a bucket's open uploads.
    pub async fn uploads(
        &self,
        bucket: &Bucket,
        query: UploadQuery,
    ) -> Result<UploadPage, Condition> {
        let find = |bucket| {
            let query = query.clone();
            self.meta.scan("list uploads", move |session| {
                Box::pin(async move {
                    let page = page_of_uploads(session, bucket, &query).await?;
                    let is_empty = page.uploads.is_empty() && page.common_prefixes.is_empty();
                    Ok((!is_empty).then_some(page))
                })
            })
        };
        Ok(self.found_in(bucket, find).await?.unwrap_or_default())
    }
}

async fn page_of_uploads(
    session: &mut Session,
    bucket: BucketId,
    query: &UploadQuery,
) -> Result<UploadPage, crate::model::fault::Fault> {
    let mut page = UploadPage::default();
    let end = prefix_end(query.prefix.as_bytes());
    let marker = query.key_marker.clone().into_bytes();
    // Without an upload to begin after, the marker's own uploads are all behind it.
    let mut after = match query.upload_marker {
        _ if marker < query.prefix.clone().into_bytes() => (query.prefix.clone().into_bytes(), 0),
        Some(upload) => (marker, upload.0.0),
        None => (marker, i64::MAX),
    };
    if let Some(delimiter) = &query.delimiter
        && query.key_marker.ends_with(delimiter.as_str())
        && query.key_marker.len() > query.prefix.len()
        && let Some(past) = prefix_end(query.key_marker.as_bytes())
    {
        after = (past, 0);
    }
    let mut next = None;
    loop {
        let want = query.limit + 1;
        let found =
            uploads::scan(session, bucket, (&after.0, after.1), end.as_deref(), want).await?;
        let exhausted = found.len() < want;
        let mut jumped = false;
        for upload in found {
            if page.uploads.len() + page.common_prefixes.len() == query.limit {
                page.truncated = true;
                page.next = next;
                return Ok(page);
            }
            let group = query.delimiter.as_deref().and_then(|delimiter| {
                super::listing::common_prefix(upload.key.as_str(), &query.prefix, delimiter)
            });
            if let Some(group) = group {
                let group = group.to_owned();
                let Some(past) = prefix_end(group.as_bytes()) else {
                    page.common_prefixes.push(group);
                    return Ok(page);
                };
                after = (past, 0);
                next = Some((group.clone(), None));
                page.common_prefixes.push(group);
                jumped = true;
                break;
            }
            after = (upload.key.as_bytes().to_vec(), upload.uid.0);
            next = Some((upload.key.as_str().to_owned(), Some(UploadId(upload.uid))));
            page.uploads.push(upload);
        }
        if exhausted && !jumped {
            return Ok(page);
        }
    }
}

pub(super) async fn all_parts(
    session: &mut Session,
    upload: Uid,
) -> Result<Vec<PartRow>, crate::model::fault::Fault> {
    uploads::parts(session, upload, 0, PART_NUMBER_MAX as usize).await
}

/// Part numbers must rise; an empty list makes no object.
fn check_order(parts: &[NamedPart]) -> Result<(), Condition> {
    if parts.is_empty() {
        return Err(Condition::NoParts);
    }
    if parts
        .windows(2)
        .any(|pair| pair[0].number >= pair[1].number)
    {
        return Err(Condition::InvalidPartOrder);
    }
    Ok(())
}

/// What a repeated complete is recognised by: numbers and ETags.
fn list_digest(parts: &[NamedPart]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        let etag = part.etag.map(|etag| etag.to_string()).unwrap_or_default();
        digest.update(format!("{}:{etag};", part.number));
    }
    digest.finalize().into()
}

/// One complete request with the ids it will use; may run several times.
struct Completion {
    request: CompleteRequest,
    list_digest: [u8; 32],
    composite: ContentId,
    now: Millis,
    merge: Option<MergeRule>,
    writer: Arc<super::versions::VersionWriter>,
}

impl Completion {
    async fn run(&self, session: &mut Session) -> Result<Completed, Condition> {
        let request = &self.request;
        let bucket = lock_bucket(session, &request.bucket, request.recheck.as_ref()).await?;
        let upload = lock_upload(session, request.bucket.id, &request.key, request.upload).await?;
        match (upload.state, &upload.completed) {
            (State::Open, _) => {}
            (State::Completed, Some(first)) if first.list_digest == self.list_digest => {
                return Ok(first_answer(first, &upload));
            }
            (State::Completed | State::Aborted, _) => return Err(Condition::NoSuchUpload),
        }
        check_upload_key(&upload, request.customer_key.as_ref())?;
        let stored = all_parts(session, upload.uid).await?;
        let parts = self.select(&stored)?;
        let size: u64 = parts.iter().map(|part| part.size).sum();
        if size > OBJECT_MAX_BYTES {
            return Err(Condition::TooLarge);
        }
        if request.size.is_some_and(|wanted| wanted != size) {
            return Err(Condition::WrongSize { size });
        }
        let checksum = self.checksum(&upload, &parts)?;
        let version = Version {
            uid: upload.uid,
            is_null: true,
            content: self.content(session, &bucket, &upload, &parts).await?,
            size,
            etag: ETag::multipart(parts.iter().map(|part| &part.md5)),
            modified: self.now,
            headers: request.headers.as_ref().unwrap_or(&upload.headers).clone(),
            tags: upload.tags.clone(),
            checksum,
            acl: upload.acl.clone(),
            encryption: upload.encryption.clone(),
            lock: upload.lock,
        };
        // Who sent every part sent the object.
        let sender = parts[0]
            .sender
            .filter(|first| parts.iter().all(|part| part.sender == Some(*first)));
        let mut completed = CompletedRow {
            list_digest: self.list_digest,
            uid: version.uid,
            version_id: None,
            etag: version.etag,
            size,
            modified: self.now,
            checksum: version.checksum.clone(),
        };
        completed.version_id = self.writer.write(session, version, sender).await?;
        let listed: Vec<VersionPart> = parts
            .iter()
            .map(|part| VersionPart {
                number: part.number,
                size: part.size,
                checksum: part.checksum.clone(),
            })
            .collect();
        version_parts::insert(session, completed.uid, &listed).await?;
        // Every part's own reference ends here; the listed ones live on through the extents.
        for part in &stored {
            let listed = parts.binary_search_by_key(&part.number, |used| used.number);
            if listed.is_err() {
                release(session, &self.writer.slot.uids, part.content, self.now).await?;
            }
        }
        uploads::delete_parts(session, upload.uid).await?;
        uploads::end(session, upload.uid, Some(&completed), self.now).await?;
        Ok(first_answer(&completed, &upload))
    }

    /// Has the joined parts merged with equal bytes later, where bytes are shared at all.
    async fn order_merge(
        &self,
        session: &mut Session,
        bucket: &Bucket,
        upload: &UploadRow,
        size: u64,
    ) -> Result<(), Fault> {
        let is_shared = bucket.dedup == Dedup::Object
            && !matches!(upload.encryption, Some(Encryption::Customer { .. }));
        let Some(rule) = self
            .merge
            .filter(|rule| is_shared && size <= rule.max_bytes)
        else {
            return Ok(());
        };
        let (job, due) = (self.writer.slot.uids.next()?, self.now + rule.delay);
        ContentStore::order_merge(session, job, self.composite, due, self.now).await
    }

    /// The stored parts that the list names, checked.
    fn select<'a>(&self, stored: &'a [PartRow]) -> Result<Vec<&'a PartRow>, Condition> {
        let mut selected = Vec::with_capacity(self.request.parts.len());
        for named in &self.request.parts {
            let invalid = || Condition::InvalidPart {
                number: named.number,
            };
            let part = stored
                .binary_search_by_key(&named.number, |part| part.number)
                .map(|index| &stored[index])
                .map_err(|_| invalid())?;
            if named.etag != Some(ETag::single(part.md5)) {
                return Err(invalid());
            }
            for wanted in &named.checksums {
                let same = part.checksum.as_ref().is_none_or(|stored| {
                    stored.checksum.algorithm != wanted.algorithm || stored.checksum == *wanted
                });
                if !same {
                    return Err(invalid());
                }
            }
            selected.push(part);
        }
        let all_but_last = &selected[..selected.len() - 1];
        let smallest = self.request.part_min_bytes;
        match all_but_last.iter().find(|part| part.size < smallest) {
            Some(small) => Err(Condition::PartTooSmall {
                number: small.number,
                size: small.size,
            }),
            None => Ok(selected),
        }
    }

    /// The checksum of the whole, and the client's expectation of it.
    fn checksum(
        &self,
        upload: &UploadRow,
        parts: &[&PartRow],
    ) -> Result<Option<ObjectChecksum>, Condition> {
        let (algorithm, kind) = upload
            .checksum
            .unwrap_or((ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject));
        let mut values = Vec::with_capacity(parts.len());
        for part in parts {
            match &part.checksum {
                Some(stored) if stored.checksum.algorithm == algorithm => {
                    values.push((stored.checksum.value.clone(), part.size));
                }
                _ if upload.checksum.is_none() => return Ok(None),
                _ => {
                    return Err(Condition::ChecksumMissing {
                        number: part.number,
                    });
                }
            }
        }
        let joined = join_checksums(algorithm, kind, &values).ok();
        if let Some((wanted, wanted_kind)) = &self.request.checksum {
            let same = joined.as_ref().is_some_and(|joined| {
                joined.checksum == *wanted && wanted_kind.is_none_or(|kind| kind == joined.kind)
            });
            if !same {
                return Err(Condition::BadDigest);
            }
        }
        Ok(joined)
    }

    /// The content of the joined parts: a composite, or the only part's own.
    async fn content(
        &self,
        session: &mut Session,
        bucket: &Bucket,
        upload: &UploadRow,
        parts: &[&PartRow],
    ) -> Result<ContentId, Condition> {
        if let [only] = parts {
            return Ok(only.content);
        }
        let mut start = 0;
        let mut extents = Vec::with_capacity(parts.len());
        for part in parts.iter().filter(|part| part.size > 0) {
            let extent = Extent {
                start,
                length: part.size,
                child: part.content,
                child_offset: 0,
            };
            extents.push((extent, part.sender));
            start += part.size;
        }
        let space = space_of_joined(session, bucket, self.request.upload.0).await?;
        content_rows::insert_composite(session, self.composite, space, &extents, self.now).await?;
        self.order_merge(session, bucket, upload, start).await?;
        // An empty last part has no extent to live on through.
        for empty in parts.iter().filter(|part| part.size == 0) {
            release(session, &self.writer.slot.uids, empty.content, self.now).await?;
        }
        Ok(self.composite)
    }
}

/// What the first complete was answered.
fn first_answer(first: &CompletedRow, upload: &UploadRow) -> Completed {
    Written {
        uid: first.uid,
        etag: first.etag,
        size: first.size,
        modified: first.modified,
        checksum: first.checksum.clone(),
        version_id: first.version_id,
        encryption: upload.encryption.clone(),
        tags: upload.tags.clone(),
    }
}
