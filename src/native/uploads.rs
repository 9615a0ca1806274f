//! The life of an upload: begun under a name, sent whole or in parts, joined or given up.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};

use super::Native;
use super::access::{Caller, Object};
use super::call::Call;
use super::kind::{SNIFFED_BYTES, sniff};
use super::refusal::{Problem, Refusal};
use crate::auth::Action;
use crate::model::bucket::{Bucket, Dedup, Settings, Versioning};
use crate::model::digest::{ETag, Sha256Digest};
use crate::model::file::{FileName, NAME_METADATA};
use crate::model::ids::{BucketId, SpaceId, Uid};
use crate::model::names::ObjectKey;
use crate::model::notification::Event;
use crate::model::object::{Encryption, Headers, WriteConditions};
use crate::namespace::{
    BodyError, BodyHint, Cause, CompleteRequest, Condition, FillRequest, ListedPart, NamedPart,
    NewBucket, NewUpload, Numbered, PART_NUMBER_MAX, PUT_MAX_BYTES, Received, Target, UploadId,
    UploadRow, UploadState, Wanted, Written,
};

/// The one that holds the MD5 of the whole as its client told it, in Base64: nobody has verified that.
pub(super) const MD5_METADATA: &str = "md5chksum";
/// How often something is looked at again because it changed in between.
const ROUNDS: usize = 3;

/// An upload that was begun.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) bucket: Arc<Bucket>,
    pub(super) upload: UploadRow,
}

/// What a number stands for.
pub(super) enum Standing {
    /// An upload that takes bytes.
    Open(Box<Begun>),
    /// A version.
    Complete(Box<Numbered>),
}

/// What a client says of the bytes that it sends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    pub(super) length: Option<u64>,
    pub(super) md5: Option<[u8; 16]>,
    pub(super) sha256: Option<Sha256Digest>,
}

/// What a client says of the whole when all parts are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    pub(super) parts: u32,
    pub(super) size: u64,
    pub(super) md5: Option<[u8; 16]>,
}

/// Bytes that came, and how they begin.
pub(super) struct Sent {
    received: Received,
    front: Vec<u8>,
}

/// The name of a file that may be begun; `unnamed` says what is wrong with a text that holds none.
pub(super) fn file_name(text: &str, unnamed: &'static str) -> Result<FileName, Refusal> {
    let name = FileName::of(text).ok_or_else(|| Refusal::wrong(unnamed))?;
    match name.encoded() {
        Some(_) => Ok(name),
        None => Err(too_long()),
    }
}

fn too_long() -> Refusal {
    Refusal::wrong("the name is too long")
}

impl Native {
    /// The bucket that files of this name are in, for a caller who may put one there.
    pub(super) async fn bucket_of(
        &self,
        caller: &Caller,
        name: &FileName,
    ) -> Result<Arc<Bucket>, Refusal> {
        let key = name.key(self.namespace.new_uid()?);
        self.bucket_for(caller, name, &key).await
    }

    /// The bucket that files of this name are in, for a caller who may put `key` there. It is made when there is none
    /// yet, and only once it is known that the caller may.
    async fn bucket_for(
        &self,
        caller: &Caller,
        name: &FileName,
        key: &str,
    ) -> Result<Arc<Bucket>, Refusal> {
        let name = self.names.get(name.place()).ok_or_else(Refusal::missing)?;
        let new = NewBucket {
            tenant: self.settings.tenant.id,
            name: name.clone(),
            region: self.settings.region.clone(),
            object_lock: false,
            placement: None,
            settings: Settings::default(),
        };
        let bucket = match self.namespace.bucket(name).await {
            Ok(bucket) if bucket.tenant == new.tenant => bucket,
            Ok(_) => return Err(Condition::BucketTaken.into()),
            Err(Condition::NoSuchBucket) => {
                let planned = planned(&new);
                self.admit(caller, Action::PutObject, &planned, key, Object::New)?;
                self.namespace.ensure_bucket(new).await?
            }
            Err(condition) => return Err(condition.into()),
        };
        self.admit(caller, Action::PutObject, &bucket, key, Object::New)?;
        Ok(bucket)
    }

    /// Begins the upload of a file.
    pub(super) async fn begin(&self, caller: &Caller, name: &FileName) -> Result<Begun, Refusal> {
        let encoded = name.encoded().ok_or_else(too_long)?;
        let headers = Headers {
            content_type: name.content_type().map(str::to_owned),
            metadata: vec![(NAME_METADATA.to_owned(), encoded)],
            ..Headers::default()
        };
        let uid = self.namespace.new_uid()?;
        let key = name.key(uid);
        let key = ObjectKey::parse(&key).map_err(|_| too_long())?;
        let mut round = 0;
        loop {
            let bucket = self.bucket_for(caller, name, key.as_str()).await?;
            let target = self.namespace.target(&bucket, Wanted::Default).await?;
            let new = NewUpload {
                uid: Some(uid),
                headers: headers.clone(),
                encryption: target.encryption().cloned(),
                recheck: Some(self.recheck(caller, Action::PutObject, key.as_str())),
                ..NewUpload::default()
            };
            round += 1;
            match self.namespace.create_upload(&bucket, &key, new).await {
                Ok(_) => {}
                // It was deleted since it was looked up.
                Err(Condition::NoSuchBucket) if round < ROUNDS => {
                    let _ = self.namespace.fresh_bucket(&bucket.name).await;
                    continue;
                }
                Err(condition) => return Err(condition.into()),
            }
            return match self.namespace.numbered_upload(uid).await? {
                Some((bucket, upload)) => Ok(Begun { bucket, upload }),
                None => Err(Refusal::missing()),
            };
        }
    }

    /// What a number stands for.
    pub(super) async fn standing(&self, uid: Uid) -> Result<Standing, Refusal> {
        let upload = self.namespace.numbered_upload(uid).await?;
        match upload {
            Some((bucket, upload)) if upload.state == UploadState::Open => {
                return Ok(Standing::Open(Box::new(Begun { bucket, upload })));
            }
            Some((_, upload)) if upload.state == UploadState::Aborted => {
                return Err(Refusal::missing());
            }
            Some(_) | None => {}
        }
        match self.namespace.numbered(uid).await? {
            Some(found) => Ok(Standing::Complete(Box::new(found))),
            None => Err(Refusal::missing()),
        }
    }

    /// The open upload of a number, which the caller may do this with.
    pub(super) async fn open_upload(
        &self,
        caller: &Caller,
        action: Action,
        uid: Uid,
    ) -> Result<Begun, Refusal> {
        match self.standing(uid).await? {
            Standing::Open(begun) => {
                let key = begun.upload.key.as_str();
                self.admit(caller, action, &begun.bucket, key, Object::New)?;
                Ok(*begun)
            }
            Standing::Complete(found) => {
                self.admit(
                    caller,
                    action,
                    &found.bucket,
                    found.key.as_str(),
                    Object::New,
                )?;
                Err(Refusal::complete())
            }
        }
    }

    /// Where the bytes of an upload go.
    pub(super) async fn target_of(&self, begun: &Begun) -> Result<Target, Refusal> {
        let target = self
            .namespace
            .part_target(&begun.bucket, &begun.upload, None);
        Ok(target.await?)
    }

    /// Reads a body to its end, makes its bytes safe, and compares them with what was said of them.
    pub(super) async fn receive(
        &self,
        call: &Call,
        target: &Target,
        body: impl Stream<Item = Result<Bytes, BodyError>> + Send,
        said: Said,
    ) -> Result<Sent, Refusal> {
        let mut front = Vec::new();
        let received = {
            let body = body.inspect_ok(|bytes| {
                call.context.add_body_bytes(bytes.len() as u64);
                let missing = SNIFFED_BYTES - front.len();
                front.extend_from_slice(&bytes[..bytes.len().min(missing)]);
            });
            let mut body = std::pin::pin!(body);
            let hint = BodyHint {
                length: said.length,
                limit: PUT_MAX_BYTES,
                verified_sha256: None,
                sha1: false,
            };
            self.namespace.receive(target, hint, body.as_mut()).await?
        };
        let digests = &received.digests;
        let differs = said.md5.is_some_and(|md5| md5 != digests.md5)
            || said.sha256.is_some_and(|sha256| sha256 != digests.sha256);
        match differs {
            true => Err(Refusal::bad_digest()),
            false => Ok(Sent { received, front }),
        }
    }

    /// Makes the version of an upload from one body.
    pub(super) async fn fill(
        &self,
        caller: &Caller,
        begun: &Begun,
        sent: Sent,
    ) -> Result<Written, Refusal> {
        let Sent { received, front } = sent;
        let mut headers = begun.upload.headers.clone();
        if headers.content_type.is_none() {
            headers.content_type = Some(sniff(&front).to_owned());
        }
        let request = FillRequest {
            bucket: Arc::clone(&begun.bucket),
            cause: Cause {
                event: Event::CreatedByPut,
                origin: caller.origin(&begun.bucket),
            },
            headers,
            sender: caller.sender,
            recheck: Some(self.recheck(caller, Action::PutObject, begun.upload.key.as_str())),
            upload: begun.upload.clone(),
        };
        Ok(self.namespace.fill(request, received).await?)
    }

    /// Where the whole of an upload goes. One that is complete takes the same bytes again, since the client may not have
    /// heard the first answer; others are refused as far as what is said of them tells.
    pub(super) async fn whole_target(
        &self,
        caller: &Caller,
        standing: &Standing,
        said: &Said,
    ) -> Result<Target, Refusal> {
        let (bucket, key) = match standing {
            Standing::Open(begun) => (&begun.bucket, &begun.upload.key),
            Standing::Complete(found) => (&found.bucket, &found.key),
        };
        let action = Action::PutObject;
        self.admit(caller, action, bucket, key.as_str(), Object::New)?;
        match standing {
            Standing::Open(begun) => self.target_of(begun).await,
            Standing::Complete(found) => {
                let version = &found.object.version;
                let is_other = version.etag.parts.is_some()
                    || said.md5.is_some_and(|md5| md5 != version.etag.md5)
                    || said.length.is_some_and(|length| length != version.size);
                match is_other {
                    true => Err(Refusal::complete()),
                    false => Ok(self.namespace.target(bucket, Wanted::Default).await?),
                }
            }
        }
    }

    /// Makes the version of an upload from one body, or finds that it was made of these bytes.
    pub(super) async fn fill_once(
        &self,
        caller: &Caller,
        uid: Uid,
        standing: Standing,
        sent: Sent,
    ) -> Result<(), Refusal> {
        let (md5, length) = (sent.md5(), sent.length());
        if let Standing::Open(begun) = standing {
            match self.fill(caller, &begun, sent).await {
                Ok(_) => return Ok(()),
                // Somebody else was faster: as good, if it was with the same bytes.
                Err(refusal) if refusal.problem == Problem::Missing => {}
                Err(refusal) => return Err(refusal),
            }
        }
        if let Standing::Complete(found) = self.standing(uid).await? {
            let version = &found.object.version;
            if version.size == length && version.etag == ETag::single(md5) {
                return Ok(());
            }
        }
        Err(Refusal::complete())
    }

    /// Writes a body as a part.
    pub(super) async fn put_part(
        &self,
        caller: &Caller,
        begun: &Begun,
        number: u32,
        sent: Sent,
    ) -> Result<(), Refusal> {
        let part =
            self.namespace
                .put_part(&begun.upload, number, None, caller.sender, sent.received);
        match part.await {
            Ok(_) => Ok(()),
            Err(Condition::NoSuchUpload) => Err(Refusal::complete()),
            Err(condition) => Err(condition.into()),
        }
    }

    /// All parts of an open upload.
    pub(super) async fn parts(&self, begun: &Begun) -> Result<Vec<ListedPart>, Condition> {
        let (upload, all) = (&begun.upload, PART_NUMBER_MAX as usize);
        let id = UploadId(upload.uid);
        let page = self
            .namespace
            .upload_parts(&begun.bucket, &upload.key, id, 0, all);
        Ok(page.await?.parts)
    }

    /// Makes the version of an upload from its parts, which must be 1 to `whole.parts`, and `whole.size` bytes
    /// together. Metadata only. Again for the same whole is fine.
    pub(super) async fn join(
        &self,
        caller: &Caller,
        uid: Uid,
        whole: Whole,
    ) -> Result<(), Refusal> {
        for _ in 0..ROUNDS {
            let begun = match self.standing(uid).await? {
                Standing::Open(begun) => begun,
                Standing::Complete(found) => {
                    let key = found.key.as_str();
                    self.admit(caller, Action::PutObject, &found.bucket, key, Object::New)?;
                    return match is_of(&found, &whole) {
                        true => Ok(()),
                        false => Err(Refusal::complete()),
                    };
                }
            };
            let key = begun.upload.key.as_str();
            self.admit(caller, Action::PutObject, &begun.bucket, key, Object::New)?;
            match self.join_now(caller, &begun, &whole).await {
                Ok(()) => return Ok(()),
                // Somebody else was faster, or a part was sent again in between.
                Err(Joining::Condition(
                    Condition::NoSuchUpload | Condition::InvalidPart { .. },
                )) => {}
                Err(Joining::Condition(condition)) => return Err(condition.into()),
                Err(Joining::Refused(refusal)) => return Err(refusal),
            }
        }
        Err(Condition::ContentGone.into())
    }

    async fn join_now(&self, caller: &Caller, begun: &Begun, whole: &Whole) -> Result<(), Joining> {
        let parts = self.parts(begun).await?;
        let named = check(&parts, whole)?;
        let mut headers = begun.upload.headers.clone();
        let is_customers = matches!(begun.upload.encryption, Some(Encryption::Customer { .. }));
        if headers.content_type.is_none() && !is_customers {
            let first = &parts[0];
            let wanted = SNIFFED_BYTES as u64;
            let front = self
                .namespace
                .front(first.content, first.size, wanted)
                .await;
            let front = front.map_err(Condition::from)?;
            headers.content_type = Some(sniff(&front).to_owned());
        }
        if let Some(md5) = whole.md5 {
            let told = (MD5_METADATA.to_owned(), BASE64.encode(md5));
            headers.metadata.push(told);
            headers.metadata.sort();
        }
        let request = CompleteRequest {
            bucket: Arc::clone(&begun.bucket),
            key: begun.upload.key.clone(),
            upload: UploadId(begun.upload.uid),
            origin: caller.origin(&begun.bucket),
            parts: named,
            checksum: None,
            size: Some(whole.size),
            part_min_bytes: 0,
            headers: Some(headers),
            conditions: WriteConditions::default(),
            customer_key: None,
            recheck: Some(self.recheck(caller, Action::PutObject, begun.upload.key.as_str())),
        };
        self.namespace.complete(request).await?;
        Ok(())
    }

    /// A version of content that is here already, without its bytes being sent.
    pub(super) async fn refer(
        &self,
        caller: &Caller,
        name: &FileName,
        received: Received,
    ) -> Result<Option<Uid>, Refusal> {
        let mut front = Vec::new();
        if name.content_type().is_none()
            && let Some(content) = received.known()
        {
            let (size, wanted) = (received.digests.length, SNIFFED_BYTES as u64);
            front = self.namespace.front(content, size, wanted).await?;
        }
        let begun = self.begin(caller, name).await?;
        match self.fill(caller, &begun, Sent { received, front }).await {
            Ok(written) => Ok(Some(written.uid)),
            // The content went in between: the client sends it.
            Err(refusal) if refusal.problem == Problem::Busy => {
                let id = UploadId(begun.upload.uid);
                let _ = self
                    .namespace
                    .abort(&begun.bucket, &begun.upload.key, id)
                    .await;
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        }
    }
}

/// A bucket that is not there yet, as policies are asked about it.
fn planned(new: &NewBucket) -> Bucket {
    Bucket {
        id: BucketId(0),
        name: new.name.clone(),
        tenant: new.tenant,
        space: SpaceId(0),
        dedup: Dedup::Object,
        versioning: Versioning::Never,
        object_lock: new.object_lock,
        created: 0,
        region: new.region.clone(),
        rev: 0,
        settings: new.settings.clone(),
    }
}

/// Why an upload was not joined.
enum Joining {
    Condition(Condition),
    Refused(Refusal),
}

impl From<Condition> for Joining {
    fn from(condition: Condition) -> Self {
        Self::Condition(condition)
    }
}

impl From<Refusal> for Joining {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The parts in order, if they are what the client says.
fn check(parts: &[ListedPart], whole: &Whole) -> Result<Vec<NamedPart>, Refusal> {
    let numbers = parts.iter().map(|part| part.number);
    if whole.parts == 0 || !numbers.eq(1..=whole.parts) {
        return Err(Refusal::wrong(format!(
            "the parts are not exactly 1 to {}",
            whole.parts
        )));
    }
    let size: u64 = parts.iter().map(|part| part.size).sum();
    if size != whole.size {
        return Err(Condition::WrongSize { size }.into());
    }
    if let [only] = parts
        && whole.md5.is_some_and(|md5| md5 != only.md5)
    {
        return Err(Refusal::bad_digest());
    }
    let named = parts.iter().map(|part| NamedPart {
        number: part.number,
        etag: Some(ETag::single(part.md5)),
        checksums: Vec::new(),
    });
    Ok(named.collect())
}

/// Whether a version was made of such a whole.
fn is_of(found: &Numbered, whole: &Whole) -> bool {
    let version = &found.object.version;
    let told = version
        .headers
        .metadata
        .iter()
        .find(|(name, _)| name == MD5_METADATA);
    let same_md5 = match (told, whole.md5) {
        (Some((_, told)), Some(md5)) => *told == BASE64.encode(md5),
        (_, md5) => md5.is_none(),
    };
    version.size == whole.size && version.etag.parts == Some(whole.parts) && same_md5
}

impl Sent {
    /// The MD5 of what came.
    pub(super) fn md5(&self) -> [u8; 16] {
        self.received.digests.md5
    }

    /// How many bytes came.
    pub(super) fn length(&self) -> u64 {
        self.received.digests.length
    }
}

/// A stream of a body whose errors are those of the connection.
pub(super) fn stream_of(
    body: axum::body::Body,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
    body.into_data_stream()
        .map(|piece| piece.map_err(BodyError::from))
}
