//! The last touch of every answer: error documents as AWS writes them.
//!
//! `s3s` and the operations say a code and perhaps a text. Here the text is filled in, what `s3s` names
//! otherwise than AWS is renamed, and the document gets what only the request knows: resource, key, request
//! id. Answers of HEAD, 204 and 304 lose their bodies. A success passes untouched, with one exception:
//! see [`Referenced`].

mod details;
mod texts;

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use s3s::{Body, S3Error, s3_error};

use self::details::Facts;
use self::texts::{HEADER_MALFORMED, QUERY_PARAMETERS, RENAMED, Refined, default_message};
use super::escape::{is_unwritable, push_escaped, push_writable};
use super::host::bucket_of_host;
use super::{XML_MAX_BYTES, error, sts};
use crate::http::{InBody, Refusal};
use crate::telemetry::{BodyFailure, RequestContext};

/// Marks an answer whose document holds characters that XML cannot carry as they are. They were written as
/// they are, because `s3s` has no other way, and become character references here: that keeps a carriage
/// return in a key from being read as a line feed. References to other control characters are no XML 1.0
/// either; S3 writes them all the same, and clients that must read such keys ask for `encoding-type=url`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referenced;

/// Marks an answer in whose document the ETag stands without the quotes that `s3s` always writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct BareETag;

/// Whether a text holds characters for which an answer must be [`Referenced`].
pub(super) fn needs_references(text: &str) -> bool {
    // No other character of three bytes begins with 0xEF but U+F000 to U+FFFF.
    text.bytes().any(|byte| byte < 0x20 || byte == 0xEF) && text.chars().any(is_unwritable)
}

fn bare_etag(response: &mut Response<Body>) {
    let Some(bytes) = response.body().bytes() else {
        return;
    };
    let Ok(document) = std::str::from_utf8(&bytes) else {
        return;
    };
    let bare = document
        .replace("<ETag>&quot;", "<ETag>")
        .replace("<ETag>\"", "<ETag>")
        .replace("&quot;</ETag>", "</ETag>")
        .replace("\"</ETag>", "</ETag>");
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(bare.len()));
    *response.body_mut() = Body::from(bare);
}

/// Marks a success that has nothing to say, and for which `s3s` would answer 200.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoContent;

/// Marks an error's document that is complete.
#[derive(Debug, Clone, Copy)]
struct Finished;

/// What a request asks for, by its path and host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Empty for the list of buckets.
    pub(super) bucket: String,
    /// Empty for the bucket itself.
    pub(super) key: String,
}

impl Target {
    /// Virtual-host style under one of `domains`, otherwise path style. `None` for a path that is not UTF-8.
    pub(super) fn of(path: &str, host: Option<&HeaderValue>, domains: &[String]) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let (bucket, key) = match bucket_of_host(host, domains) {
            Some(bucket) => (bucket.to_ascii_lowercase(), path),
            None => {
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                (bucket.to_owned(), key)
            }
        };
        Some(Self {
            bucket,
            key: key.to_owned(),
        })
    }
}

impl Target {
    /// What S3's errors call such a thing.
    pub(super) fn resource_type(&self) -> &'static str {
        match (self.bucket.is_empty(), self.key.is_empty()) {
            (true, _) => "SERVICE",
            (false, true) => "BUCKET",
            (false, false) => "OBJECT",
        }
    }
}

/// What finishing an answer needs of its request.
pub(super) struct About<'d> {
    context: Option<Arc<RequestContext>>,
    facts: Facts,
    host: Option<HeaderValue>,
    payload: Option<HeaderValue>,
    domains: &'d [String],
    is_for_sts: bool,
}

impl<'d> About<'d> {
    /// Clones nothing but reference counts.
    pub(super) fn of(request: &Request<InBody>, domains: &'d [String]) -> Self {
        let headers = request.headers();
        Self {
            context: request.extensions().get::<Arc<RequestContext>>().cloned(),
            facts: Facts::of(request.method(), request.uri(), headers),
            host: headers.get(header::HOST).cloned(),
            payload: headers.get("x-amz-content-sha256").cloned(),
            domains,
            is_for_sts: sts::is_for_sts(request.method(), request.uri(), headers),
        }
    }

    /// Gives an answer the form in which it leaves.
    pub(super) async fn finish(self, mut response: Response<Body>) -> Response<Body> {
        if response.extensions().get::<NoContent>().is_some() {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        let status = response.status();
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            clear(&mut response);
            response.headers_mut().remove(header::CONTENT_TYPE);
            return response;
        }
        if status.is_success() {
            if response.extensions().get::<Referenced>().is_some() {
                write_references(&mut response);
            }
            if response.extensions().get::<BareETag>().is_some() {
                bare_etag(&mut response);
            }
            // `s3s` gives a HEAD 200 whatever its operation says.
            if *self.facts.method() == Method::HEAD
                && response.headers().contains_key(header::CONTENT_RANGE)
            {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
            return response;
        }
        let finished = response.extensions().get::<Finished>().is_some();
        if !finished && (status.is_client_error() || status.is_server_error()) {
            self.finish_error(&mut response);
        }
        response
    }

    fn finish_error(&self, response: &mut Response<Body>) {
        let Some(bytes) = response.body().bytes() else {
            return;
        };
        let Some(said) = std::str::from_utf8(&bytes).ok().and_then(Said::read) else {
            return;
        };
        let refined = self.refine(&said);
        let code = refined.as_ref().map_or(said.code, |refined| refined.code);
        if let Some(context) = &self.context {
            context.set_error(code);
        }
        if self.is_for_sts {
            let message = match (&refined, said.message) {
                (Some(refined), _) => refined.message,
                (None, Some(message)) => message,
                (None, None) => default_message(code),
            };
            let document = self.sts_error(code, message, response.status());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = Body::from(document);
            if code == "InvalidToken" {
                *response.status_mut() = StatusCode::FORBIDDEN;
            }
            return;
        }
        let mut document = Document::new(code);
        match (&refined, said.message) {
            (Some(refined), _) => document.element("Message", refined.message),
            (None, Some(message)) => document.escaped("Message", message),
            (None, None) => document.element("Message", default_message(code)),
        }
        let target = Target::of(self.facts.uri().path(), self.host.as_ref(), self.domains);
        let details = self
            .facts
            .details(code, target.as_ref(), response.headers());
        for (name, text) in details {
            document.element(name, &text);
        }
        document.element("Resource", self.facts.uri().path());
        let status = refined.map(|refined| refined.status);
        document.send(self.context.as_deref(), response);
        if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
            *response.status_mut() = status;
        }
        if *self.facts.method() == Method::HEAD {
            clear(response);
        }
    }

    /// An error as STS writes it; the message is escaped already.
    fn sts_error(&self, code: &str, message: &str, status: StatusCode) -> String {
        let namespace = sts::NAMESPACE;
        let kind = if status.is_server_error() {
            "Receiver"
        } else {
            "Sender"
        };
        // STS has names of its own for what keys and tokens lack.
        let code = match code {
            "InvalidAccessKeyId" | "InvalidToken" => "InvalidClientTokenId",
            code => code,
        };
        let message = match code {
            "InvalidClientTokenId" => "The security token included in the request is invalid.",
            _ => message,
        };
        let id = self
            .context
            .as_ref()
            .map_or("", |context| context.id().as_str());
        format!(
            "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
        )
    }

    /// What AWS says where `s3s` says something else.
    fn refine(&self, said: &Said<'_>) -> Option<Refined> {
        if said.code == "InternalError" && said.message.is_none() {
            return self.unread_document();
        }
        if said.code == "NotImplemented" && !is_method_of_s3(self.facts.method()) {
            return Some(Refined {
                code: "MethodNotAllowed",
                status: 405,
                message: default_message("MethodNotAllowed"),
            });
        }
        let operation = self
            .context
            .as_ref()
            .map_or("", |context| context.operation());
        if said.code == "MalformedXML" && matches!(operation, "PutBucketAcl" | "PutObjectAcl") {
            return Some(Refined {
                code: "MalformedACLError",
                status: 400,
                message: default_message("MalformedXML"),
            });
        }
        let message = said.message.unwrap_or_default();
        let row = RENAMED
            .iter()
            .find(|row| row.code == said.code && message.starts_with(row.text))?;
        let in_query = self
            .facts
            .uri()
            .query()
            .is_some_and(|query| query.contains("X-Amz-Signature"));
        let to = match (&row.to, in_query) {
            (Refined { code: "", .. }, true) => &QUERY_PARAMETERS,
            (Refined { code: "", .. }, false) => &HEADER_MALFORMED,
            (to, _) => to,
        };
        Some(Refined {
            code: to.code,
            status: to.status,
            message: match row.to.message {
                "" => default_message(to.code),
                message => message,
            },
        })
    }

    /// `s3s` answers 500 when it cannot read the document of a request, whatever the reason; a bug of ours
    /// has a text. The reason is the client's connection, or else what it said of its body.
    fn unread_document(&self) -> Option<Refined> {
        let context = self.context.as_ref()?;
        let refined = |code, message| {
            Some(Refined {
                code,
                status: 400,
                message,
            })
        };
        match context.body_failure() {
            Some(BodyFailure::Stalled) => {
                return refined("RequestTimeout", default_message("RequestTimeout"));
            }
            Some(BodyFailure::TooLarge) => {
                return refined("EntityTooLarge", default_message("EntityTooLarge"));
            }
            Some(BodyFailure::Disconnected) => {
                return refined("IncompleteBody", default_message("IncompleteBody"));
            }
            None if context.wire_bytes() > XML_MAX_BYTES as u64 => {
                return refined(
                    "MaxMessageLengthExceeded",
                    default_message("MaxMessageLengthExceeded"),
                );
            }
            None => {}
        }
        let has_document = matches!(
            context.operation(),
            "CreateBucket"
                | "CompleteMultipartUpload"
                | "DeleteObjects"
                | "PutObjectTagging"
                | "PutBucketEncryption"
                | "PutBucketVersioning"
                | "PutObjectLockConfiguration"
                | "PutObjectRetention"
                | "PutObjectLegalHold"
                | "PutBucketTagging"
                | "PutBucketCors"
                | "PutBucketWebsite"
                | "PutBucketRequestPayment"
                | "PutBucketAccelerateConfiguration"
                | "RestoreObject"
                | "PutBucketLifecycleConfiguration"
                | "PutBucketNotificationConfiguration"
                | "PutBucketLogging"
                | "PutBucketAcl"
                | "PutObjectAcl"
                | "PutBucketPolicy"
                | "PutPublicAccessBlock"
                | "PutBucketOwnershipControls"
        );
        let payload = self.payload.as_ref().filter(|_| has_document)?.as_bytes();
        if payload.starts_with(b"STREAMING-") {
            refined(
                "InvalidRequest",
                "The body is not encoded as the request's headers say.",
            )
        } else {
            refined(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )
        }
    }
}

/// An error as an answer.
pub(super) fn of_error(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// A refusal in the form in which it leaves, with elements of its own.
pub(super) fn refusal(
    context: Option<&RequestContext>,
    status: StatusCode,
    code: &str,
    message: &str,
    details: &[(&'static str, &str)],
) -> Response<Body> {
    let mut document = Document::new(code);
    document.element("Message", message);
    for (name, text) in details {
        document.element(name, text);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.extensions_mut().insert(Finished);
    document.send(context, &mut response);
    response
}

/// Code and text of an error's document that is not finished, as they would read when it is.
pub(super) fn error_of(response: &Response<Body>) -> Option<(String, String)> {
    let bytes = response.body().bytes()?;
    let said = Said::read(std::str::from_utf8(&bytes).ok()?)?;
    let message = said.message.unwrap_or(default_message(said.code));
    Some((said.code.to_owned(), message.to_owned()))
}

/// The answer that the listener gives in the facade's place.
pub(super) fn of_refusal(context: &RequestContext, refusal: Refusal) -> Response<Body> {
    let error = match refusal {
        Refusal::Overloaded => error::slow_down(),
        Refusal::HeadersTooLarge => error::custom(
            "RequestHeaderSectionTooLarge",
            431,
            "Your request header section exceeds the maximum allowed request header section size.",
        ),
        Refusal::BodyTooLarge => error::too_large(),
        Refusal::Panicked => s3_error!(
            InternalError,
            "We encountered an internal error. Please try again."
        ),
    };
    let mut document = Document::new(error.code().as_str());
    document.element("Message", error.message().unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = error
        .status_code()
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(headers) = error.headers() {
        *response.headers_mut() = headers.clone();
    }
    document.send(Some(context), &mut response);
    response
}

fn clear(response: &mut Response<Body>) {
    *response.body_mut() = Body::empty();
    response.headers_mut().remove(header::CONTENT_LENGTH);
}

fn write_references(response: &mut Response<Body>) {
    let Some(bytes) = response.body().bytes() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return;
    };
    let mut written = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        push_writable(&mut written, character);
    }
    *response.body_mut() = Body::from(written);
    response.headers_mut().remove(header::CONTENT_LENGTH);
}

/// What an error's document as `s3s` writes it says; both texts still escaped.
#[derive(Debug, PartialEq, Eq)]
struct Said<'t> {
    code: &'t str,
    message: Option<&'t str>,
}

impl<'t> Said<'t> {
    fn read(document: &'t str) -> Option<Self> {
        let (_, error) = document.split_once("<Error>")?;
        let between = |open: &str, close: &str| {
            let (_, rest) = error.split_once(open)?;
            Some(rest.split_once(close)?.0)
        };
        Some(Self {
            code: between("<Code>", "</Code>")?,
            message: between("<Message>", "</Message>").filter(|text| !text.is_empty()),
        })
    }
}

/// An error's document while it is written.
struct Document(String);

impl Document {
    fn new(code: &str) -> Self {
        let mut document = Self(String::with_capacity(512));
        document
            .0
            .push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
        document.element("Code", code);
        document
    }

    fn element(&mut self, name: &str, text: &str) {
        let _ = write!(self.0, "<{name}>");
        push_escaped(&mut self.0, text);
        let _ = write!(self.0, "</{name}>");
    }

    fn escaped(&mut self, name: &str, text: &str) {
        let _ = write!(self.0, "<{name}>{text}</{name}>");
    }

    /// Ends the document and makes it the answer's body.
    fn send(mut self, context: Option<&RequestContext>, response: &mut Response<Body>) {
        if let Some(context) = context {
            let (id, host_id) = (context.id().as_str(), host_id(context));
            self.escaped("RequestId", id);
            self.escaped("HostId", &host_id);
            insert(response.headers_mut(), "x-amz-id-2", host_id);
        }
        self.0.push_str("</Error>");
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/xml"),
        );
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(self.0);
    }
}

/// What `x-amz-id-2` says: no more than the request's id, in the form that clients expect.
pub(super) fn host_id(context: &RequestContext) -> String {
    BASE64.encode(context.id().as_str())
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn is_method_of_s3(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::POST | Method::DELETE | Method::OPTIONS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hmac::{Hmac, KeyInit, Mac};
    use s3s::auth::SimpleAuth;
    use s3s::dto::{PutObjectTaggingInput, PutObjectTaggingOutput};
    use s3s::service::{S3Service, S3ServiceBuilder};
    use s3s::{S3, S3Request, S3Response, S3Result};
    use sha2::{Digest, Sha256};

    /// Knows one operation that reads a document.
    struct Stub;

    #[async_trait::async_trait]
    impl S3 for Stub {
        async fn put_object_tagging(
            &self,
            _: S3Request<PutObjectTaggingInput>,
        ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
            Ok(S3Response::new(PutObjectTaggingOutput::default()))
        }
    }

    struct Answered {
        status: u16,
        code: String,
        document: String,
    }

    async fn answered(signed: bool, request: Request<Bytes>) -> Answered {
        let mut builder = S3ServiceBuilder::new(Stub);
        if signed {
            builder.set_auth(SimpleAuth::from_single("A", "S"));
        }
        let service: S3Service = builder.build();
        let context = Arc::new(RequestContext::new());
        context.set_operation("PutObjectTagging");
        let (mut parts, bytes) = request.into_parts();
        parts.extensions.insert(Arc::clone(&context));
        let request = Request::from_parts(parts.clone(), InBody::in_memory(bytes.clone(), context));
        let about = About::of(&request, &[]);
        // A stream, as from a connection: s3s treats what is in memory in another way.
        let body =
            s3s::Body::http_body_unsync(http_body_util::StreamBody::new(futures::stream::iter([
                Ok::<_, std::io::Error>(http_body::Frame::data(bytes)),
            ])));
        let response = service
            .call(Request::from_parts(parts, body))
            .await
            .unwrap();
        let response = about.finish(response).await;
        let document = response.body().bytes().unwrap();
        let document = String::from_utf8(document.to_vec()).unwrap();
        Answered {
            status: response.status().as_u16(),
            code: Said::read(&document).map_or(String::new(), |said| said.code.to_owned()),
            document,
        }
    }

    fn now() -> String {
        let format =
            time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        time::OffsetDateTime::now_utc().format(&format).unwrap()
    }

    fn mac(key: &[u8], text: &str) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }

    /// A request signed in its header over `payload`; `scope` is the credential's service.
    fn request(
        method: &str,
        moment: &str,
        scope: &str,
        payload: Option<&str>,
        body: &str,
    ) -> Request<Bytes> {
        let date = moment.get(..8).unwrap_or_default();
        let hash = payload.unwrap_or_default();
        let canonical = format!(
            "{method}\n/bkt/k\ntagging=\nhost:h\nx-amz-content-sha256:{hash}\nx-amz-date:{moment}\n\nhost;x-amz-content-sha256;x-amz-date\n{hash}"
        );
        let canonical = hex::encode(Sha256::digest(canonical));
        let text =
            format!("AWS4-HMAC-SHA256\n{moment}\n{date}/r/{scope}/aws4_request\n{canonical}");
        let mut key = b"AWS4S".to_vec();
        for step in [date, "r", scope, "aws4_request"] {
            key = mac(&key, step);
        }
        let signature = hex::encode(mac(&key, &text));
        let mut builder = Request::builder()
            .method(method)
            .uri("/bkt/k?tagging")
            .header("host", "h")
            .header("x-amz-date", moment)
            .header("content-length", body.len())
            .header("authorization", format!(
                "AWS4-HMAC-SHA256 Credential=A/{date}/r/{scope}/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={signature}"
            ));
        if let Some(payload) = payload {
            builder = builder.header("x-amz-content-sha256", payload);
        }
        builder.body(Bytes::from(body.to_owned())).unwrap()
    }

    const DOCUMENT: &str = "<Tagging><TagSet></TagSet></Tagging>";

    #[tokio::test]
    async fn signatures_are_refused_as_aws_refuses_them() {
        let zeros = "0".repeat(64);
        let fine = hex::encode(Sha256::digest(DOCUMENT));
        let cases = [
            (request("PUT", &now(), "s3", Some(&fine), DOCUMENT), 200, ""),
            (
                request("PUT", &now(), "s3", Some(&zeros), DOCUMENT),
                400,
                "XAmzContentSHA256Mismatch",
            ),
            (
                request("PUT", &now(), "s3", Some("short"), DOCUMENT),
                400,
                "InvalidArgument",
            ),
            (
                request("PUT", &now(), "s3", None, DOCUMENT),
                400,
                "InvalidRequest",
            ),
            (
                request("PUT", &now(), "sqs", Some(&fine), DOCUMENT),
                400,
                "AuthorizationHeaderMalformed",
            ),
            (
                request("PUT", "20160101T000000Z", "s3", Some(&fine), DOCUMENT),
                403,
                "RequestTimeTooSkewed",
            ),
            (
                request("PUT", "yesterday", "s3", Some(&fine), DOCUMENT),
                400,
                "AuthorizationHeaderMalformed",
            ),
            (
                request("PATCH", &now(), "s3", Some(&fine), ""),
                405,
                "MethodNotAllowed",
            ),
        ];
        for (index, (request, status, code)) in cases.into_iter().enumerate() {
            let answered = answered(true, request).await;
            assert_eq!(
                (answered.status, answered.code.as_str()),
                (status, code),
                "case {index}"
            );
        }
    }

    #[tokio::test]
    async fn presigned_urls_are_refused_as_aws_refuses_them() {
        let zeros = "0".repeat(64);
        let url = |algorithm: &str, date: &str, moment: &str, rest: &str| {
            format!(
                "/bkt/k?tagging&X-Amz-Algorithm={algorithm}&X-Amz-Credential=A%2F{date}%2Fr%2Fs3%2Faws4_request&X-Amz-Date={moment}&X-Amz-SignedHeaders=host&X-Amz-Signature={zeros}{rest}"
            )
        };
        let good = "AWS4-HMAC-SHA256";
        let (old, future) = ("20160101T000000Z", "20990101T000000Z");
        let cases = [
            (
                url(good, &old[..8], old, "&X-Amz-Expires=60"),
                403,
                "AccessDenied",
                "Request has expired",
            ),
            (
                url(good, &future[..8], future, "&X-Amz-Expires=60"),
                403,
                "AccessDenied",
                "Request is not yet valid",
            ),
            (
                url(good, &old[..8], old, ""),
                400,
                "AuthorizationQueryParametersError",
                "Query-string",
            ),
            (
                url(good, "20150101", old, "&X-Amz-Expires=60"),
                400,
                "AuthorizationQueryParametersError",
                "Query-string",
            ),
            (
                url("RSA", &old[..8], old, "&X-Amz-Expires=60"),
                400,
                "AuthorizationQueryParametersError",
                "X-Amz-Algorithm only",
            ),
        ];
        for (url, status, code, text) in cases {
            let request = Request::get(&url)
                .header("host", "h")
                .body(Bytes::new())
                .unwrap();
            let answered = answered(true, request).await;
            assert_eq!(
                (answered.status, answered.code.as_str()),
                (status, code),
                "{url}"
            );
            assert!(
                answered.document.contains(&format!("<Message>{text}")),
                "{}",
                answered.document
            );
        }
    }

    #[tokio::test]
    async fn bad_documents_are_malformed_however_deep_they_are() {
        let deep = format!("{}{}", "<a>".repeat(500_000), "</a>".repeat(500_000));
        let deep_inside = format!("<Tagging>{deep}</Tagging>");
        let entities = "<!DOCTYPE a [<!ENTITY x \"y\">]><Tagging><TagSet><Tag><Key>&x;</Key></Tag></TagSet></Tagging>";
        let cases = [
            ("hello", "MalformedXML"),
            ("<Tagging><TagSet><Tag>", "MalformedXML"),
            ("<Other></Other>", "MalformedXML"),
            (&deep, "MalformedXML"),
            (&deep_inside, "MalformedXML"),
            (entities, "MalformedXML"),
            ("", "MissingRequestBodyError"),
            (DOCUMENT, ""),
        ];
        for (body, code) in cases {
            let request = |body: &str| {
                Request::put("/bkt/k?tagging")
                    .header("host", "h")
                    .header("content-length", body.len())
                    .body(Bytes::from(body.to_owned()))
                    .unwrap()
            };
            let answered = answered(false, request(body)).await;
            let head: String = body.chars().take(20).collect();
            assert_eq!(answered.code, code, "{head}");
            assert_eq!(
                answered.status,
                if code.is_empty() { 200 } else { 400 },
                "{head}"
            );
        }
    }

    fn about(method: &str, target: &str, host: &str) -> About<'static> {
        About {
            context: Some(Arc::new(RequestContext::new())),
            facts: Facts::of(
                &method.parse().unwrap(),
                &target.parse().unwrap(),
                &HeaderMap::new(),
            ),
            host: Some(HeaderValue::from_str(host).unwrap()),
            payload: None,
            domains: &[],
            is_for_sts: false,
        }
    }

    fn text(response: &Response<Body>) -> String {
        String::from_utf8(response.body().bytes().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_error_says_what_and_where() {
        let about = about("GET", "/b/a%20%3C%01b?x=1", "h");
        let context = about.context.clone().unwrap();
        let id = context.id().as_str();
        let response = about.finish(of_error(s3_error!(NoSuchKey))).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "application/xml");
        let host_id = response.headers()["x-amz-id-2"].to_str().unwrap();
        assert_eq!(
            text(&response),
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a &lt;&#x1;b</Key><Resource>/b/a%20%3C%01b</Resource><RequestId>{id}</RequestId><HostId>{host_id}</HostId></Error>"
            )
        );
    }

    #[tokio::test]
    async fn a_text_given_with_an_error_stays_and_is_escaped_once() {
        let error = s3_error!(InvalidArgument, "a < b & c");
        let response = about("GET", "/b", "h").finish(of_error(error)).await;
        assert!(text(&response).contains("<Message>a &lt; b &amp; c</Message>"));
    }

    #[tokio::test]
    async fn headers_of_an_error_do_not_cost_it_its_type() {
        let response = about("GET", "/b", "h")
            .finish(of_error(error::slow_down()))
            .await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(response.headers()["content-type"], "application/xml");
    }

    #[tokio::test]
    async fn answers_that_have_no_body_get_none() {
        let head = about("HEAD", "/b/k", "h");
        let response = head.finish(of_error(s3_error!(NoSuchKey))).await;
        assert_eq!(
            (response.status().as_u16(), text(&response).as_str()),
            (404, "")
        );
        assert!(!response.headers().contains_key("content-length"));
        let response = about("GET", "/b/k", "h")
            .finish(of_error(s3_error!(NotModified)))
            .await;
        assert_eq!(
            (response.status().as_u16(), text(&response).as_str()),
            (304, "")
        );
        assert!(!response.headers().contains_key("content-type"));
    }

    #[tokio::test]
    async fn a_success_is_left_alone_unless_it_needs_references() {
        let plain = "<Key>a\rb\u{1}\u{FFFE}ä</Key>";
        let response = about("GET", "/b", "h")
            .finish(Response::new(Body::from(plain.to_owned())))
            .await;
        assert_eq!(text(&response), plain);
        let mut marked = Response::new(Body::from(plain.to_owned()));
        marked.extensions_mut().insert(Referenced);
        let response = about("GET", "/b", "h").finish(marked).await;
        assert_eq!(text(&response), "<Key>a&#xD;b&#x1;&#xFFFE;ä</Key>");
        assert!(needs_references(plain) && needs_references("\u{FFFF}"));
        assert!(!needs_references("ä\u{F8FF}\u{1F600} b"));
    }

    #[test]
    fn a_refusal_of_the_listener_is_an_error_of_s3() {
        let context = RequestContext::new();
        for (refusal, status, code) in [
            (Refusal::Overloaded, 503, "SlowDown"),
            (
                Refusal::HeadersTooLarge,
                431,
                "RequestHeaderSectionTooLarge",
            ),
            (Refusal::BodyTooLarge, 400, "EntityTooLarge"),
            (Refusal::Panicked, 500, "InternalError"),
        ] {
            let response = of_refusal(&context, refusal);
            let document = text(&response);
            assert_eq!(response.status(), status);
            assert_eq!(Said::read(&document).unwrap().code, code);
            assert!(document.contains(context.id().as_str()));
        }
    }

    #[test]
    fn a_bucket_is_in_the_path_or_before_a_domain() {
        let domains = ["s3.local".to_owned(), "other:9000".to_owned()];
        let target = |path, host| {
            let host = HeaderValue::from_static(host);
            let target = Target::of(path, Some(&host), &domains).unwrap();
            (target.bucket, target.key)
        };
        let is = |bucket: &str, key: &str| (bucket.to_owned(), key.to_owned());
        assert_eq!(target("/b/a%20b/c", "127.0.0.1:9000"), is("b", "a b/c"));
        assert_eq!(target("/b/c", "x.y.s3.local:9000"), is("x.y", "b/c"));
        assert_eq!(target("/b/c", "X.S3.LOCAL"), is("x", "b/c"));
        assert_eq!(target("/b/c", "x.other:9000"), is("x", "b/c"));
        assert_eq!(target("/b", "s3.local"), is("b", ""));
        assert_eq!(target("/b", "nots3.local"), is("b", ""));
        assert_eq!(target("/", "h"), is("", ""));
        assert_eq!(Target::of("/b/%FF", None, &domains), None);
    }
}
