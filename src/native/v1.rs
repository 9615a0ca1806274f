//! Version 1: the abilities of version 0 with proper methods and status codes, raw bodies, digests in standard headers
//! and conditional reads. Refusals are RFC 9457 problem documents.
//!
//! Every route takes the two halves of an access key by HTTP Basic, and where a link can be made for it, a link.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use form_urlencoded::Serializer;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Caller, Object as Asked};
use super::call::{Call, document, read_document};
use super::objects::{Shown, name_of};
use super::refusal::{Problem, Refusal};
use super::uploads::{Begun, Said, Standing, Whole, file_name, stream_of};
use super::{Native, v0};
use crate::auth::{Action, LinkDate, Purpose, Subject, Terms};
use crate::model::clock::iso8601;
use crate::model::digest::Sha256Digest;
use crate::model::file::FileName;
use crate::model::ids::Uid;
use crate::namespace::{Numbered, UploadId, Wanted};

/// Where all routes are.
pub(super) const BASE: &str = "/api/storage/v1";
/// Most digests of one request to resume.
const DIGESTS_MAX: usize = 50;
/// What is wrong with a name that is none.
const NO_NAME: &str = "name: no name of a file";

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The routes below [`BASE`].
pub(super) fn routes() -> Router<Arc<Native>> {
    Router::new()
        .route("/links", post(links))
        .route("/resume", post(resume))
        .route("/uploads", post(begin))
        .route("/uploads/{uid}", get(upload))
        .route("/uploads/{uid}/content", put(send))
        .route("/uploads/{uid}/parts/{number}", put(send_part))
        .route("/uploads/{uid}/complete", post(complete))
        .route("/uploads/{uid}/abort", post(abort))
        .route("/objects/{uid}", get(object).delete(delete))
        .route("/objects/{uid}/content", get(content))
}

// ---- shapes ----

/// An upload to be begun.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUpload {
    /// The file's name; its extension chooses bucket and type.
    name: String,
}

/// An upload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Upload {
    /// Its number, which will be the object's.
    uid: String,
    bucket: String,
    key: String,
    /// `open` or `complete`.
    state: &'static str,
    /// Those that have come, while it is open.
    parts: Vec<Part>,
}

/// A part that has come.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Part {
    number: u32,
    size: u64,
    /// In hexadecimal.
    md5: String,
}

/// What the whole should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Complete {
    /// The parts are 1 to this number.
    parts: u32,
    /// Bytes.
    size: u64,
}

/// An object.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Object)]
pub(super) struct Described {
    uid: String,
    /// The name it came under.
    name: String,
    bucket: String,
    key: String,
    /// Whether it is what its key holds now.
    is_current: bool,
    /// Bytes.
    size: u64,
    etag: String,
    content_type: Option<String>,
    /// In hexadecimal; of one that came in parts as its client told it, if it did.
    md5: Option<String>,
    /// ISO 8601.
    modified: String,
}

/// Objects that may be here already.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResumeBySha256)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// At most 50.
    objects: Vec<ResumeItem>,
}

/// One object that may be here already.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResumeItemBySha256)]
#[serde(deny_unknown_fields)]
pub(super) struct ResumeItem {
    name: String,
    /// In hexadecimal.
    sha256: String,
    size: u64,
}

/// Whether it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResumedBySha256)]
pub(super) struct Resumed {
    sha256: String,
    size: u64,
    /// The number of the new object; `null`: send it.
    uid: Option<String>,
}

/// What a link is for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LinkPurpose {
    /// To send what an open upload waits for.
    Upload,
    /// To read an object.
    Download,
}

/// A link to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLink {
    purpose: LinkPurpose,
    uid: String,
    /// At most 604800; 0 or absent is a day.
    #[serde(default)]
    expires_in_seconds: i64,
}

/// A link. Its URL opens one number for one purpose until its time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Link {
    /// Of `content`. For an upload, `parts/NUMBER` and `complete` in its place are opened by the same query.
    url: String,
    /// ISO 8601.
    expires_at: String,
}

// ---- routes ----

/// What of a path a route takes. One that is not UTF-8 names nothing.
type Segment<T> = Result<Path<T>, PathRejection>;

fn uid(text: &str) -> Result<Uid, Refusal> {
    v0::uid(text).ok_or_else(Refusal::missing)
}

fn of_path(number: Segment<String>) -> Result<Uid, Refusal> {
    let Path(number) = number.map_err(|_| Refusal::missing())?;
    uid(&number)
}

/// Makes a link.
#[utoipa::path(post, path = "/api/storage/v1/links", tag = "v1", request_body = NewLink, security(("basic" = [])),
    responses((status = 201, body = Link), (status = 401), (status = 403), (status = 404), (status = 409),
        (status = 422)))]
pub(super) async fn links(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v1.links");
    let outcome = async {
        let caller = native.key_holder(&call).await?;
        let link = native.link(&caller, read_document(body).await?).await?;
        Ok(document(StatusCode::CREATED, &link))
    };
    call.v1(outcome.await)
}

/// Objects of content that this access key has sent before, made without sending it again.
#[utoipa::path(post, path = "/api/storage/v1/resume", tag = "v1", request_body = Resume, security(("basic" = [])),
    responses((status = 200, body = Vec<Resumed>), (status = 401), (status = 403), (status = 409), (status = 422)))]
pub(super) async fn resume(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v1.resume");
    let outcome = async {
        let caller = native.key_holder(&call).await?;
        let wanted: Resume = read_document(body).await?;
        if wanted.objects.len() > DIGESTS_MAX {
            return Err(Refusal::wrong("objects: expected at most 50"));
        }
        let mut items = Vec::with_capacity(wanted.objects.len());
        for item in wanted.objects {
            let digest = Sha256Digest::from_hex(&item.sha256);
            let digest = digest.ok_or_else(|| Refusal::wrong("sha256: not understood"))?;
            let name = file_name(&item.name, NO_NAME)?;
            items.push((item, digest, name));
        }
        if caller.sender.is_some() {
            for (_, _, name) in &items {
                native.bucket_of(&caller, name).await?;
            }
        }
        // From here on objects are made, whose numbers a refusal would keep from whoever asks.
        let mut answers = Vec::with_capacity(items.len());
        for (ResumeItem { sha256, size, .. }, digest, name) in items {
            let uid = native.resume_by_sha256(&caller, &name, digest, size);
            answers.push(Resumed {
                sha256,
                size,
                uid: uid.await?.map(|uid| uid.to_string()),
            });
        }
        Ok(document(StatusCode::OK, &answers))
    };
    call.v1(outcome.await)
}

/// Begins an upload.
#[utoipa::path(post, path = "/api/storage/v1/uploads", tag = "v1", request_body = NewUpload,
    security(("basic" = [])),
    responses((status = 201, body = Upload), (status = 401), (status = 403), (status = 409), (status = 422)))]
pub(super) async fn begin(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v1.begin");
    let outcome = async {
        let caller = native.key_holder(&call).await?;
        let wanted: NewUpload = read_document(body).await?;
        let name = file_name(&wanted.name, NO_NAME)?;
        let begun = native.begin(&caller, &name).await?;
        let upload = open_upload(&begun, Vec::new());
        let location = format!("{BASE}/uploads/{}", upload.uid);
        let mut response = document(StatusCode::CREATED, &upload);
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    };
    call.v1(outcome.await)
}

/// How far an upload is.
#[utoipa::path(get, path = "/api/storage/v1/uploads/{uid}", tag = "v1", params(("uid" = String, Path)),
    security(("basic" = []), ("link" = [])),
    responses((status = 200, body = Upload), (status = 401), (status = 403), (status = 404)))]
pub(super) async fn upload(
    State(native): State<Arc<Native>>,
    number: Segment<String>,
    request: Request,
) -> Response {
    let call = Call::of(request.into_parts().0, "native.v1.upload");
    let outcome = async {
        let uid = of_path(number)?;
        let caller = native.sender_of(&call, uid).await?;
        let action = Action::ListMultipartUploadParts;
        let upload = match native.standing(uid).await? {
            Standing::Open(begun) => {
                let key = begun.upload.key.as_str();
                native.admit(&caller, action, &begun.bucket, key, Asked::New)?;
                let parts = native.parts(&begun).await?;
                let parts = parts.iter().map(|part| Part {
                    number: part.number,
                    size: part.size,
                    md5: hex::encode(part.md5),
                });
                open_upload(&begun, parts.collect())
            }
            Standing::Complete(found) => {
                let key = found.key.as_str();
                native.admit(&caller, action, &found.bucket, key, Asked::New)?;
                Upload {
                    uid: uid.to_string(),
                    bucket: found.bucket.name.to_string(),
                    key: key.to_owned(),
                    state: "complete",
                    parts: Vec::new(),
                }
            }
        };
        Ok(document(StatusCode::OK, &upload))
    };
    call.v1(outcome.await)
}

/// Sends all of an upload, which is complete then; the same bytes again are fine. Digests in Content-MD5 and Content-Digest (sha-256) are verified.
#[utoipa::path(put, path = "/api/storage/v1/uploads/{uid}/content", tag = "v1", params(("uid" = String, Path)),
    request_body(content_type = "application/octet-stream"), security(("basic" = []), ("link" = [])),
    responses((status = 201, body = Described), (status = 401), (status = 403), (status = 404), (status = 409),
        (status = 413), (status = 422)))]
pub(super) async fn send(
    State(native): State<Arc<Native>>,
    number: Segment<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v1.send");
    let outcome = async {
        let uid = of_path(number)?;
        let caller = native.sender_of(&call, uid).await?;
        let said = said(&call)?;
        let standing = native.standing(uid).await?;
        let target = native.whole_target(&caller, &standing, &said).await?;
        let sent = native
            .receive(&call, &target, stream_of(body), said)
            .await?;
        native.fill_once(&caller, uid, standing, sent).await?;
        native.made(uid).await
    };
    call.v1(outcome.await)
}

/// Sends one part of an upload. The same part again is fine: the last one counts.
#[utoipa::path(put, path = "/api/storage/v1/uploads/{uid}/parts/{number}", tag = "v1",
    params(("uid" = String, Path), ("number" = u32, Path, minimum = 1, maximum = 10000)),
    request_body(content_type = "application/octet-stream"), security(("basic" = []), ("link" = [])),
    responses((status = 200, body = Part), (status = 401), (status = 403), (status = 404), (status = 409),
        (status = 413), (status = 422)))]
pub(super) async fn send_part(
    State(native): State<Arc<Native>>,
    segments: Segment<(String, String)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v1.send-part");
    let outcome = async {
        let Path((number, part)) = segments.map_err(|_| Refusal::missing())?;
        let uid = uid(&number)?;
        let part = v0::part_number(&part);
        let part = part.ok_or_else(|| Refusal::wrong("number: expected 1 to 10000"))?;
        let caller = native.sender_of(&call, uid).await?;
        let begun = native.open_upload(&caller, Action::PutObject, uid).await?;
        let target = native.target_of(&begun).await?;
        let said = said(&call)?;
        let sent = native
            .receive(&call, &target, stream_of(body), said)
            .await?;
        let written = Part {
            number: part,
            size: sent.length(),
            md5: hex::encode(sent.md5()),
        };
        native.put_part(&caller, &begun, part, sent).await?;
        Ok(document(StatusCode::OK, &written))
    };
    call.v1(outcome.await)
}

/// Makes an object of an upload's parts; again for the same whole is fine.
#[utoipa::path(post, path = "/api/storage/v1/uploads/{uid}/complete", tag = "v1", params(("uid" = String, Path)),
    request_body = Complete, security(("basic" = []), ("link" = [])),
    responses((status = 201, body = Described), (status = 401), (status = 403), (status = 404), (status = 409),
        (status = 422)))]
pub(super) async fn complete(
    State(native): State<Arc<Native>>,
    number: Segment<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v1.complete");
    let outcome = async {
        let uid = of_path(number)?;
        let caller = native.sender_of(&call, uid).await?;
        let wanted: Complete = read_document(body).await?;
        let whole = Whole {
            parts: wanted.parts,
            size: wanted.size,
            md5: None,
        };
        native.join(&caller, uid, whole).await?;
        native.made(uid).await
    };
    call.v1(outcome.await)
}

/// Gives an open upload up.
#[utoipa::path(post, path = "/api/storage/v1/uploads/{uid}/abort", tag = "v1", params(("uid" = String, Path)),
    security(("basic" = [])),
    responses((status = 204), (status = 401), (status = 403), (status = 404), (status = 409)))]
pub(super) async fn abort(
    State(native): State<Arc<Native>>,
    number: Segment<String>,
    request: Request,
) -> Response {
    let call = Call::of(request.into_parts().0, "native.v1.abort");
    let outcome = async {
        let uid = of_path(number)?;
        let caller = native.key_holder(&call).await?;
        let action = Action::AbortMultipartUpload;
        let begun = native.open_upload(&caller, action, uid).await?;
        let id = UploadId(begun.upload.uid);
        let (bucket, key) = (&begun.bucket, &begun.upload.key);
        native.namespace.abort(bucket, key, id).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    call.v1(outcome.await)
}

/// What is known of an object.
#[utoipa::path(get, path = "/api/storage/v1/objects/{uid}", tag = "v1", params(("uid" = String, Path)),
    security(("basic" = [])), responses((status = 200, body = Described), (status = 401), (status = 404)))]
pub(super) async fn object(
    State(native): State<Arc<Native>>,
    number: Segment<String>,
    request: Request,
) -> Response {
    let call = Call::of(request.into_parts().0, "native.v1.object");
    let outcome = async {
        let caller = native.key_holder(&call).await?;
        let found = native.readable(&caller, of_path(number)?).await?;
        let found = found.ok_or_else(Refusal::missing)?;
        let object = native.describe(&found).await?;
        Ok(document(StatusCode::OK, &object))
    };
    call.v1(outcome.await)
}

/// Deletes an object for good.
#[utoipa::path(delete, path = "/api/storage/v1/objects/{uid}", tag = "v1", params(("uid" = String, Path)),
    security(("basic" = [])),
    responses((status = 204), (status = 401), (status = 403), (status = 404)))]
pub(super) async fn delete(
    State(native): State<Arc<Native>>,
    number: Segment<String>,
    request: Request,
) -> Response {
    let call = Call::of(request.into_parts().0, "native.v1.delete");
    let outcome = async {
        let caller = native.key_holder(&call).await?;
        native.delete(&caller, of_path(number)?).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    call.v1(outcome.await)
}

/// The bytes of an object, as far as `Range` and conditions say.
#[utoipa::path(get, path = "/api/storage/v1/objects/{uid}/content", tag = "v1",
    params(("uid" = String, Path), ("Range" = Option<String>, Header), ("If-Range" = Option<String>, Header),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    security(("basic" = []), ("link" = [])),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 304),
        (status = 401), (status = 404), (status = 412), (status = 416)))]
pub(super) async fn content(
    State(native): State<Arc<Native>>,
    number: Segment<String>,
    request: Request,
) -> Response {
    let call = Call::of(request.into_parts().0, "native.v1.content");
    let outcome = async {
        let uid = of_path(number)?;
        let purpose = Purpose::Download;
        let caller = native.by_key_or_link(&call, purpose, uid).await?;
        let found = native.readable(&caller, uid).await?;
        let found = found.ok_or_else(Refusal::missing)?;
        let name = name_of(&found);
        native.send(&call, &found, &name, Shown::Saved).await
    };
    call.v1(outcome.await)
}

fn open_upload(begun: &Begun, parts: Vec<Part>) -> Upload {
    Upload {
        uid: begun.upload.uid.to_string(),
        bucket: begun.bucket.name.to_string(),
        key: begun.upload.key.as_str().to_owned(),
        state: "open",
        parts,
    }
}

/// What the headers say of a body.
fn said(call: &Call) -> Result<Said, Refusal> {
    let wrong = |header: &str| Refusal::wrong(format!("{header}: not understood"));
    let md5 = match call.header(CONTENT_MD5) {
        None => None,
        Some(text) => {
            let bytes = BASE64
                .decode(text)
                .ok()
                .and_then(|bytes| bytes.try_into().ok());
            Some(bytes.ok_or_else(|| wrong("Content-MD5"))?)
        }
    };
    let sha256 = match call.list(CONTENT_DIGEST) {
        None => None,
        Some(text) => Some(sha256_of(&text).ok_or_else(|| wrong("Content-Digest"))?),
    };
    let length = match call.header(CONTENT_LENGTH) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| wrong("Content-Length"))?),
    };
    Ok(Said {
        length,
        md5,
        sha256,
    })
}

/// The SHA-256 in a `Content-Digest` (RFC 9530), the last where there are several (RFC 9651, 4.2.2); `None` when it holds
/// none that can be read.
fn sha256_of(text: &str) -> Option<Sha256Digest> {
    let mut members = text.split(',').map(str::trim).rev();
    let value = members.find_map(|member| member.strip_prefix("sha-256="))?;
    let encoded = value.strip_prefix(':')?.strip_suffix(':')?;
    let bytes = BASE64.decode(encoded).ok()?.try_into().ok()?;
    Some(Sha256Digest(bytes))
}

impl Native {
    /// Who asks, with credentials or with a link for this number and purpose.
    async fn by_key_or_link(
        &self,
        call: &Call,
        purpose: Purpose,
        uid: Uid,
    ) -> Result<Caller, Refusal> {
        if call.parameter("signature")?.is_none() {
            return self.key_holder(call).await;
        }
        let terms = Terms {
            purpose,
            uid,
            date: call.parsed("date", LinkDate::parse)?,
            expire: call.parsed("expire", v0::whole_number)?,
            subject: Subject::default(),
        };
        self.link_holder(call, &terms).await
    }

    /// Who sends to an upload.
    async fn sender_of(&self, call: &Call, uid: Uid) -> Result<Caller, Refusal> {
        self.by_key_or_link(call, Purpose::Upload, uid).await
    }

    async fn link(&self, caller: &Caller, wanted: NewLink) -> Result<Link, Refusal> {
        let uid = uid(&wanted.uid)?;
        let expire = v0::expire(wanted.expires_in_seconds)?;
        let (purpose, path) = match wanted.purpose {
            LinkPurpose::Upload => {
                self.open_upload(caller, Action::PutObject, uid).await?;
                (Purpose::Upload, "uploads")
            }
            LinkPurpose::Download => {
                let found = self.readable(caller, uid).await?;
                found.ok_or_else(Refusal::missing)?;
                (Purpose::Download, "objects")
            }
        };
        let now = self.namespace.now();
        let terms = Terms {
            purpose,
            uid,
            date: LinkDate::of(now),
            expire,
            subject: Subject::default(),
        };
        let signature = self.links.sign(&terms, caller.issuer()).await?;
        let query = Serializer::new(String::new())
            .append_pair("date", &terms.date.to_string())
            .append_pair("expire", &expire.to_string())
            .append_pair("signature", &signature)
            .finish();
        let life = Duration::from_secs(expire.into()).as_millis() as i64;
        Ok(Link {
            url: format!("{BASE}/{path}/{uid}/content?{query}"),
            expires_at: iso8601(now.div_euclid(1000) * 1000 + life),
        })
    }

    async fn resume_by_sha256(
        &self,
        caller: &Caller,
        name: &FileName,
        digest: Sha256Digest,
        size: u64,
    ) -> Result<Option<Uid>, Refusal> {
        let Some(sender) = caller.sender else {
            return Ok(None);
        };
        let bucket = self.bucket_of(caller, name).await?;
        let target = self.namespace.target(&bucket, Wanted::Default).await?;
        let found = self
            .namespace
            .possessed(&target, digest, size, sender, None, &[]);
        match found.await? {
            Some(received) => self.refer(caller, name, received).await,
            None => Ok(None),
        }
    }

    /// The answer to what has made an object.
    async fn made(&self, uid: Uid) -> Result<Response, Refusal> {
        // It may be deleted already: then there is nothing to describe, and it was made all the same.
        let found = self.namespace.numbered(uid).await?;
        let found = found.ok_or_else(|| Refusal::new(Problem::Missing, "deleted since"))?;
        let object = self.describe(&found).await?;
        Ok(document(StatusCode::CREATED, &object))
    }

    async fn describe(&self, found: &Numbered) -> Result<Described, Refusal> {
        let version = &found.object.version;
        Ok(Described {
            uid: version.uid.to_string(),
            name: name_of(found),
            bucket: found.bucket.name.to_string(),
            key: found.key.as_str().to_owned(),
            is_current: found.is_current,
            size: version.size,
            etag: format!("\"{}\"", version.etag),
            content_type: version.headers.content_type.clone(),
            md5: self.md5_of(version).await?.map(hex::encode),
            modified: iso8601(version.modified),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_found_among_others() {
        let zeros = BASE64.encode([0; 32]);
        let digest = Some(Sha256Digest([0; 32]));
        assert_eq!(sha256_of(&format!("sha-256=:{zeros}:")), digest);
        assert_eq!(sha256_of(&format!("md5=:AA==:, sha-256=:{zeros}:")), digest);
        for none in [
            "",
            "sha-256=",
            "sha-256=:AA==:",
            &format!("sha-256={zeros}"),
            "sha-512=:AA==:",
        ] {
            assert_eq!(sha256_of(none), None, "{none}");
        }
    }
}
