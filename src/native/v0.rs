//! Version 0: names, shapes, status codes and units are frozen. An unmodified client of the original works after
//! changing only the base URL.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{get, post, put};
use form_urlencoded::Serializer;

use super::access::Caller;
use super::call::{Call, read_document};
use super::form::Form;
use super::objects::{Shown, name_of};
use super::refusal::{Problem, Refusal};
use super::uploads::{Said, Whole, file_name};
use super::wire::{
    DownloadLink, LinkDownload, LinkParameters, LinkUpload, Meta, MultiUrls, Resume, Resumed,
    UploadLinks, UploadUrls,
};
use super::{Access, Native, READY_DEADLINE};
use crate::auth::{Action, LINK_MAX, LinkDate, Purpose, Subject, Terms};
use crate::model::file::FileName;
use crate::model::ids::{BucketId, Uid};
use crate::namespace::{Condition, Holder, Numbered, PART_NUMBER_MAX, Wanted};

/// Where all routes are.
pub(super) const BASE: &str = "/api/storage/v0";
/// How long a link lives that says nothing of it.
const EXPIRE_DEFAULT: u32 = 86_400;
/// Most paths of one request for upload links.
const PATHS_MAX: usize = 50;
/// Most UIDs of one request for download links.
const UIDS_MAX: usize = 200;
/// Most digests of one request to resume.
const DIGESTS_MAX: usize = 50;

/// The routes below [`BASE`].
pub(super) fn routes() -> Router<Arc<Native>> {
    Router::new()
        .route("/ping", get(ping))
        .route("/health", get(health))
        .route("/link/upload", post(link_upload))
        .route("/link/download", post(link_download))
        .route("/resume", post(resume))
        .route("/checkpoint", get(checkpoint))
        .route("/proxy", get(proxy))
        .route("/upload", put(upload))
        .route("/upload/multi", put(upload_multi))
        .route("/upload/merge", put(upload_merge))
        .route("/download", get(download))
}

// ---- parameters ----

pub(super) fn uid(text: &str) -> Option<Uid> {
    whole_number(text).filter(|uid| *uid > 0).map(Uid)
}

fn md5(text: &str) -> Option<[u8; 16]> {
    let mut digest = [0; 16];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

/// A number in its one form, without a plus or zeros before it: a signature would be that of every other form, too.
pub(super) fn whole_number<T: FromStr + ToString>(text: &str) -> Option<T> {
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

pub(super) fn part_number(text: &str) -> Option<u32> {
    whole_number(text).filter(|number| (1..=PART_NUMBER_MAX).contains(number))
}

/// The life of new links, in seconds.
pub(super) fn expire(seconds: i64) -> Result<u32, Refusal> {
    match u32::try_from(seconds) {
        Ok(0) => Ok(EXPIRE_DEFAULT),
        Ok(seconds) if Duration::from_secs(seconds.into()) <= LINK_MAX => Ok(seconds),
        _ => Err(Refusal::wrong("expire: expected 0 to 604800 seconds")),
    }
}

fn upload_terms(call: &Call) -> Result<Terms<'static>, Refusal> {
    Ok(Terms {
        purpose: Purpose::Upload,
        uid: call.parsed("uid", uid)?,
        date: call.parsed("date", LinkDate::parse)?,
        expire: call.parsed("expire", whole_number)?,
        subject: Subject::default(),
    })
}

fn download_terms(call: &Call) -> Result<Terms<'_>, Refusal> {
    Ok(Terms {
        purpose: Purpose::Download,
        subject: Subject {
            name: call.needed("name")?,
            bucket: call.needed("bucket")?,
            object: call.needed("object")?,
        },
        ..upload_terms(call)?
    })
}

// ---- routes ----

/// Whether the database answers, and Redis where one is configured.
#[utoipa::path(get, path = "/api/storage/v0/ping", tag = "v0", security((), ("basic" = [])),
    responses((status = 200), (status = 401), (status = 503)))]
pub(super) async fn ping(State(native): State<Arc<Native>>, request: Request) -> Response {
    let call = Call::of(request.into_parts().0, "native.v0.ping");
    let outcome = async {
        native.caller(&call).await?;
        native.node.check(READY_DEADLINE).await?;
        match native.redis.is_away() {
            true => Err(Refusal::new(
                Problem::Unavailable,
                "Redis is not available, try again",
            )),
            false => Ok("pong"),
        }
    };
    call.v0(outcome.await)
}

/// Whether the node serves.
#[utoipa::path(get, path = "/api/storage/v0/health", tag = "v0", security((), ("basic" = [])),
    responses((status = 200), (status = 401), (status = 503)))]
pub(super) async fn health(State(native): State<Arc<Native>>, request: Request) -> Response {
    let call = Call::of(request.into_parts().0, "native.v0.health");
    let outcome = async {
        native.caller(&call).await?;
        if native.draining.is_cancelled() {
            return Err(Refusal::new(Problem::Unavailable, "draining"));
        }
        native.node.check(READY_DEADLINE).await?;
        Ok("ready")
    };
    call.v0(outcome.await)
}

/// Links to upload files with.
#[utoipa::path(post, path = "/api/storage/v0/link/upload", tag = "v0", request_body = LinkUpload,
    security((), ("basic" = [])),
    responses((status = 200, body = Vec<UploadLinks>), (status = 401), (status = 422)))]
pub(super) async fn link_upload(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v0.link-upload");
    let outcome = async {
        let caller = native.caller(&call).await?;
        native
            .upload_links(&caller, read_document(body).await?)
            .await
    };
    call.v0(outcome.await)
}

/// Links to download files with.
#[utoipa::path(post, path = "/api/storage/v0/link/download", tag = "v0", request_body = LinkDownload,
    security((), ("basic" = [])),
    responses((status = 200, body = Option<Vec<DownloadLink>>), (status = 401), (status = 422)))]
pub(super) async fn link_download(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v0.link-download");
    let outcome = async {
        let caller = native.caller(&call).await?;
        native
            .download_links(&caller, read_document(body).await?)
            .await
    };
    call.v0(outcome.await)
}

/// Files that need not be sent, because this access key has sent them before.
#[utoipa::path(post, path = "/api/storage/v0/resume", tag = "v0", request_body = Resume,
    security((), ("basic" = [])),
    responses((status = 200, body = Vec<Resumed>), (status = 401), (status = 422)))]
pub(super) async fn resume(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v0.resume");
    let outcome = async {
        let caller = native.caller(&call).await?;
        native.resume(&caller, read_document(body).await?).await
    };
    call.v0(outcome.await)
}

/// The numbers of the parts that have come.
#[utoipa::path(get, path = "/api/storage/v0/checkpoint", tag = "v0", params(("uid" = String, Query)),
    security((), ("basic" = [])),
    responses((status = 200, body = Vec<u32>), (status = 401), (status = 404), (status = 422)))]
pub(super) async fn checkpoint(State(native): State<Arc<Native>>, request: Request) -> Response {
    let call = Call::of(request.into_parts().0, "native.v0.checkpoint");
    let outcome = async {
        let caller = native.caller(&call).await?;
        let uid = call.parsed("uid", uid)?;
        let action = Action::ListMultipartUploadParts;
        let begun = native.open_upload(&caller, action, uid).await?;
        let parts = native
            .parts(&begun)
            .await
            .map_err(|condition| match condition {
                Condition::NoSuchUpload => Refusal::complete(),
                condition => condition.into(),
            })?;
        Ok(parts.iter().map(|part| part.number).collect::<Vec<_>>())
    };
    call.v0(outcome.await)
}

/// The address of the node on whose own disk a file lies; 404 when it lies on none, or where every node reads it alike.
#[utoipa::path(get, path = "/api/storage/v0/proxy", tag = "v0", params(("uid" = String, Query)),
    security((), ("basic" = [])),
    responses((status = 200, body = String), (status = 401), (status = 404), (status = 422)))]
pub(super) async fn proxy(State(native): State<Arc<Native>>, request: Request) -> Response {
    let call = Call::of(request.into_parts().0, "native.v0.proxy");
    let outcome = async {
        let caller = native.caller(&call).await?;
        let uid = call.parsed("uid", uid)?;
        let found = native.readable(&caller, uid).await?;
        let found = found.ok_or_else(Refusal::missing)?;
        let settings = &native.settings;
        let backends = native.namespace.backends_of(&found.object).await?;
        let is_own = match backends.is_empty() {
            true => settings.own_database,
            false => backends.is_subset(&settings.own_backends),
        };
        match is_own {
            true => Ok(native.settings.advertise.clone()),
            false => Err(Refusal::missing()),
        }
    };
    call.v0(outcome.await)
}

/// Sends a file all at once. The same bytes again are fine.
#[utoipa::path(put, path = "/api/storage/v0/upload", tag = "v0",
    params(LinkParameters, ("md5" = String, Query, description = "of the file, in hexadecimal")),
    request_body(content_type = "multipart/form-data", description = "the file in the field `file`"),
    responses((status = 200), (status = 401), (status = 404), (status = 422)))]
pub(super) async fn upload(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v0.upload");
    let outcome = async {
        let terms = upload_terms(&call)?;
        let said = said(&call)?;
        let caller = native.link_holder(&call, &terms).await?;
        let standing = native.standing(terms.uid).await?;
        let target = native.whole_target(&caller, &standing, &said).await?;
        let content_type = call.header(CONTENT_TYPE);
        let mut form = Form::open(content_type, body).await?;
        let sent = native.receive(&call, &target, &mut form.file, said).await?;
        form.close().await?;
        native.fill_once(&caller, terms.uid, standing, sent).await?;
        Ok("")
    };
    call.v0(outcome.await)
}

/// Sends one part of a file. The same part again is fine: the last one counts.
#[utoipa::path(put, path = "/api/storage/v0/upload/multi", tag = "v0",
    params(LinkParameters, ("md5" = String, Query, description = "of the part, in hexadecimal"),
        ("chunkNum" = u32, Query, minimum = 1, maximum = 10000)),
    request_body(content_type = "multipart/form-data", description = "the part in the field `file`"),
    responses((status = 200), (status = 401), (status = 404), (status = 422)))]
pub(super) async fn upload_multi(State(native): State<Arc<Native>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts, "native.v0.upload-multi");
    let outcome = async {
        let terms = upload_terms(&call)?;
        let said = said(&call)?;
        let number = call.parsed("chunkNum", part_number)?;
        let caller = native.link_holder(&call, &terms).await?;
        let begun = native
            .open_upload(&caller, Action::PutObject, terms.uid)
            .await?;
        let target = native.target_of(&begun).await?;
        let content_type = call.header(CONTENT_TYPE);
        let mut form = Form::open(content_type, body).await?;
        let sent = native.receive(&call, &target, &mut form.file, said).await?;
        form.close().await?;
        native.put_part(&caller, &begun, number, sent).await?;
        Ok("")
    };
    call.v0(outcome.await)
}

/// Makes a file of its parts. Answers before any bytes are joined; the file can be read from then on.
#[utoipa::path(put, path = "/api/storage/v0/upload/merge", tag = "v0",
    params(LinkParameters, ("md5" = String, Query, description = "of the file, in hexadecimal"),
        ("num" = u32, Query, description = "how many parts", minimum = 1, maximum = 10000),
        ("size" = u64, Query, description = "of the file, in bytes")),
    responses((status = 200), (status = 401), (status = 404), (status = 422)))]
pub(super) async fn upload_merge(State(native): State<Arc<Native>>, request: Request) -> Response {
    let call = Call::of(request.into_parts().0, "native.v0.upload-merge");
    let outcome = async {
        let terms = upload_terms(&call)?;
        let whole = Whole {
            parts: call.parsed("num", part_number)?,
            size: call.parsed("size", whole_number)?,
            md5: Some(call.parsed("md5", md5)?),
        };
        let caller = native.link_holder(&call, &terms).await?;
        native.join(&caller, terms.uid, whole).await?;
        Ok("")
    };
    call.v0(outcome.await)
}

/// The bytes of a file.
#[utoipa::path(get, path = "/api/storage/v0/download", tag = "v0",
    params(LinkParameters, ("name" = String, Query), ("bucket" = String, Query), ("object" = String, Query),
        ("online" = Option<u8>, Query, description = "1: to be shown; 0: to be saved"),
        ("Range" = Option<String>, Header), ("If-Range" = Option<String>, Header),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 304),
        (status = 401), (status = 404), (status = 412), (status = 416), (status = 422)))]
pub(super) async fn download(State(native): State<Arc<Native>>, request: Request) -> Response {
    let call = Call::of(request.into_parts().0, "native.v0.download");
    let outcome = async {
        let terms = download_terms(&call)?;
        let shown = match call.parameter("online")? {
            None | Some("" | "1") => Shown::Inline,
            Some("0") => Shown::Saved,
            Some(_) => return Err(Refusal::wrong("online: expected 0 or 1")),
        };
        let caller = native.link_holder(&call, &terms).await?;
        let found = native.readable(&caller, terms.uid).await?;
        let is_named = |found: &Numbered| {
            found.bucket.name.as_str() == terms.subject.bucket
                && found.key.as_str() == terms.subject.object
        };
        let found = found.filter(is_named).ok_or_else(Refusal::missing)?;
        native.send(&call, &found, terms.subject.name, shown).await
    };
    match outcome.await {
        Ok(response) => response,
        Err(refusal) => call.v0::<()>(Err(refusal)),
    }
}

fn said(call: &Call) -> Result<Said, Refusal> {
    Ok(Said {
        md5: Some(call.parsed("md5", md5)?),
        ..Said::default()
    })
}

impl Native {
    async fn upload_links(
        &self,
        caller: &Caller,
        wanted: LinkUpload,
    ) -> Result<Vec<UploadLinks>, Refusal> {
        if !(1..=PATHS_MAX).contains(&wanted.file_path.len()) {
            return Err(Refusal::wrong("filePath: expected 1 to 50 paths"));
        }
        let expire = expire(wanted.expire)?;
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for path in wanted.file_path {
            if seen.insert(path.clone()) {
                let name = file_name(&path, "filePath: a path without a name")?;
                names.push((path, name));
            }
        }
        // Side by side, so that they share a commit.
        let links = names.into_iter().map(|(path, name)| async move {
            let begun = self.begin(caller, &name).await?;
            self.upload_link(caller, begun.upload.uid, expire, path)
                .await
        });
        futures::future::try_join_all(links).await
    }

    async fn upload_link(
        &self,
        caller: &Caller,
        uid: Uid,
        expire: u32,
        path: String,
    ) -> Result<UploadLinks, Refusal> {
        let terms = Terms {
            purpose: Purpose::Upload,
            uid,
            date: LinkDate::of(self.namespace.now()),
            expire,
            subject: Subject::default(),
        };
        let signature = self.links.sign(&terms, caller.issuer()).await?;
        let url = |route: &str| {
            let query = Serializer::new(String::new())
                .append_pair("uid", &uid.to_string())
                .append_pair("date", &terms.date.to_string())
                .append_pair("expire", &expire.to_string())
                .append_pair("signature", &signature)
                .finish();
            format!("{BASE}{route}?{query}")
        };
        Ok(UploadLinks {
            uid: uid.to_string(),
            url: UploadUrls {
                single: url("/upload"),
                multi: MultiUrls {
                    upload: url("/upload/multi"),
                    merge: url("/upload/merge"),
                },
            },
            path,
        })
    }

    async fn download_links(
        &self,
        caller: &Caller,
        wanted: LinkDownload,
    ) -> Result<Option<Vec<DownloadLink>>, Refusal> {
        if wanted.uid.len() > UIDS_MAX {
            return Err(Refusal::wrong("uid: expected at most 200"));
        }
        let expire = expire(wanted.expire)?;
        let mut seen = HashSet::new();
        let mut links = Vec::new();
        for uid in wanted.uid.iter().filter_map(|text| uid(text)) {
            if !seen.insert(uid) {
                continue;
            }
            if let Some(found) = self.readable(caller, uid).await? {
                links.push(self.download_link(caller, &found, expire).await?);
            }
        }
        Ok(Some(links).filter(|links| !links.is_empty()))
    }

    async fn download_link(
        &self,
        caller: &Caller,
        found: &Numbered,
        expire: u32,
    ) -> Result<DownloadLink, Refusal> {
        let version = &found.object.version;
        let name = name_of(found);
        let terms = Terms {
            purpose: Purpose::Download,
            uid: version.uid,
            date: LinkDate::of(self.namespace.now()),
            expire,
            subject: Subject {
                name: &name,
                bucket: found.bucket.name.as_str(),
                object: found.key.as_str(),
            },
        };
        let signature = self.links.sign(&terms, caller.issuer()).await?;
        let query = Serializer::new(String::new())
            .append_pair("uid", &version.uid.to_string())
            .append_pair("name", &name)
            .append_pair("online", "1")
            .append_pair("date", &terms.date.to_string())
            .append_pair("expire", &expire.to_string())
            .append_pair("bucket", terms.subject.bucket)
            .append_pair("object", terms.subject.object)
            .append_pair("signature", &signature)
            .finish();
        let md5 = self.md5_of(version).await?;
        Ok(DownloadLink {
            uid: version.uid.to_string(),
            url: format!("{BASE}/download?{query}"),
            meta: Meta {
                dst_name: found.key.as_str().to_owned(),
                height: 0,
                width: 0,
                md5: md5.map(hex::encode).unwrap_or_default(),
                size: version.size.to_string(),
                src_name: name,
            },
        })
    }

    async fn resume(&self, caller: &Caller, wanted: Resume) -> Result<Vec<Resumed>, Refusal> {
        if wanted.data.len() > DIGESTS_MAX {
            return Err(Refusal::wrong("data: expected at most 50"));
        }
        let mut seen = HashSet::new();
        let mut items = Vec::with_capacity(wanted.data.len());
        for item in wanted.data {
            let digest = md5(&item.md5);
            let digest = digest.ok_or_else(|| Refusal::wrong("md5: not understood"))?;
            if seen.insert(digest) {
                let name = file_name(&item.path, "path: a path without a name")?;
                items.push((item.md5, digest, name));
            }
        }
        let holder = self.holder(caller).await?;
        if holder.is_some() {
            for (_, _, name) in &items {
                self.bucket_of(caller, name).await?;
            }
        }
        // From here on files are made, whose numbers a refusal would keep from whoever asks.
        let mut answers = Vec::with_capacity(items.len());
        for (md5, digest, name) in items {
            let uid = match &holder {
                Some(holder) => self.resume_one(caller, &name, digest, holder).await?,
                None => None,
            };
            answers.push(Resumed {
                md5,
                uid: uid.map(|uid| uid.to_string()).unwrap_or_default(),
            });
        }
        Ok(answers)
    }

    async fn resume_one(
        &self,
        caller: &Caller,
        name: &FileName,
        md5: [u8; 16],
        holder: &Holder,
    ) -> Result<Option<Uid>, Refusal> {
        let bucket = self.bucket_of(caller, name).await?;
        let target = self.namespace.target(&bucket, Wanted::Default).await?;
        let found = self
            .namespace
            .possessed_by_md5(&target, md5, holder.clone());
        match found.await? {
            Some(received) => self.refer(caller, name, received).await,
            None => Ok(None),
        }
    }

    /// Who must have content for it to be referred to; `None`: nobody can.
    async fn holder(&self, caller: &Caller) -> Result<Option<Holder>, Refusal> {
        match (self.settings.access, caller.sender) {
            (Access::Basic, sender) => Ok(sender.map(Holder::Sender)),
            (Access::Open, _) if !self.settings.open_resume => Ok(None),
            (Access::Open, _) => {
                let mut buckets: Vec<BucketId> = Vec::new();
                for name in self.names.iter() {
                    match self.namespace.bucket(name).await {
                        Ok(bucket) if bucket.tenant == self.settings.tenant.id => {
                            buckets.push(bucket.id);
                        }
                        Ok(_) | Err(Condition::NoSuchBucket) => {}
                        Err(condition) => return Err(condition.into()),
                    }
                }
                Ok(Some(Holder::Buckets(buckets)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_one_form() {
        assert_eq!(uid("7"), Some(Uid(7)));
        for bad in ["", "0", "-7", "+7", "07", " 7", "x", "9223372036854775808"] {
            assert_eq!(uid(bad), None, "{bad}");
        }
        assert_eq!(part_number("10000"), Some(10_000));
        for bad in ["0", "10001", "+1", "-1", "", "1.0", "01"] {
            assert_eq!(part_number(bad), None, "{bad}");
        }
        assert_eq!(whole_number("0"), Some(0u64));
        assert_eq!(whole_number("3600"), Some(3600u32));
        for bad in ["00", "03600", "+3600", "-0", "3600 ", "4294967296"] {
            assert_eq!(whole_number::<u32>(bad), None, "{bad}");
        }
        assert!(md5("D41D8CD98F00B204E9800998ECF8427E").is_some());
        assert!(md5("d41d8cd9").is_none() && md5("").is_none());
        assert_eq!(expire(0).unwrap(), EXPIRE_DEFAULT);
        assert_eq!(expire(604_800).unwrap(), 604_800);
        assert!(expire(604_801).is_err() && expire(-1).is_err());
    }
}
