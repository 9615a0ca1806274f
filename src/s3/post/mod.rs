//! POST Object: a browser sends a form with a file.
//!
//! ```text
//!   fields (bounded) --> signature --> policy --> permission --> file, streamed --> end of form --> put
//! ```
//!
//! The file is never held in memory, and nothing of it is read before it is known whose form this is and that
//! its policy allows it. A form hands somebody's signature to somebody else: its sender gains no possession.

mod fields;
mod policy;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{self, PostResponse, StreamingBlob, Tagging};
use s3s::xml::{self, Deserialize as _, Serialize as _};
use s3s::{Body, S3Error, S3ErrorCode, S3Result, s3_error};

use self::fields::{Fields, Opened};
use self::policy::{Signed, Sizes};
use super::answer::{self, Target};
use super::host::scheme_of;
use super::listing::Encoding;
use super::objects::{UID_HEADER, refuse_unsupported};
use super::upload::Upload;
use super::{Gateway, access, convert, encryption, error, lock, tagging};
use crate::http::InBody;
use crate::model::notification::Event;
use crate::model::object::{Tags, WriteConditions};
use crate::namespace::{Cause, PUT_MAX_BYTES, PutRequest, Written};
use crate::s3::notification::origin;
use crate::telemetry::RequestContext;

/// Fields that mean what the header of the same name means.
const HEADER_FIELDS: [&str; 8] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
    "x-amz-acl",
];

/// A request that is a form, or should be one.
pub(super) struct Form {
    bucket: String,
    boundary: S3Result<String>,
    /// Scheme and host as the client named them, for the location it is told.
    origin: String,
    /// The path before the key.
    folder: String,
}

impl Form {
    /// Recognises a POST to a bucket: a form by its type, or one that names no operation.
    pub(super) fn of(request: &Request<InBody>, domains: &[String]) -> Option<Self> {
        if request.method() != Method::POST {
            return None;
        }
        let headers = request.headers();
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let kind = text(header::CONTENT_TYPE).unwrap_or_default();
        let is_form = kind
            .get(..19)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"));
        if !is_form && request.uri().query().is_some_and(|query| !query.is_empty()) {
            return None;
        }
        let path = request.uri().path();
        let target = Target::of(path, headers.get(header::HOST), domains)
            .filter(|target| !target.bucket.is_empty() && target.key.is_empty())?;
        let boundary = match is_form {
            true => multer::parse_boundary(kind).map_err(|_| fields::malformed()),
            false => Err(s3_error!(
                PreconditionFailed,
                "Bucket POST must be of the enclosure-type multipart/form-data"
            )),
        };
        let scheme = scheme_of(headers);
        let host = text(header::HOST).unwrap_or("localhost");
        let is_path_style = path.trim_matches('/') == target.bucket;
        Some(Self {
            origin: format!("{scheme}://{host}"),
            folder: match is_path_style {
                true => format!("/{}/", target.bucket),
                false => "/".to_owned(),
            },
            bucket: target.bucket,
            boundary,
        })
    }

    /// Stores the form's file and answers.
    pub(super) async fn receive(
        self,
        gateway: &Gateway,
        request: Request<InBody>,
    ) -> Response<Body> {
        self.store(gateway, request)
            .await
            .unwrap_or_else(answer::of_error)
    }

    async fn store(self, gateway: &Gateway, request: Request<InBody>) -> S3Result<Response<Body>> {
        let context = request.extensions().get::<Arc<RequestContext>>().cloned();
        let remote = context.as_ref().and_then(|context| context.remote());
        if let Some(context) = &context {
            context.set_operation("PostObject");
        }
        let name = convert::bucket_name(&self.bucket)?;
        let boundary = self.boundary?;
        let Opened { fields, file, rest } = fields::open(request.into_body(), &boundary).await?;
        let key = fields.get("key").ok_or_else(no_key)?;

        let now = gateway.namespace.now();
        let signed = Signed::of(&fields)?;
        let (identity, sizes) = match &signed {
            // A form that nobody signed has no policy to keep to.
            None => (None, Sizes::ANY),
            Some(signed) => {
                let identity = gateway.identity(signed.access_key).await?;
                signed.verify(identity.secret.reveal())?;
                if let Some(context) = &context {
                    context.set_access_key(signed.access_key);
                }
                let sizes = policy::check(signed.policy, name.as_str(), &fields, now)?;
                (Some(identity), sizes)
            }
        };
        let key = convert::object_key(key)?;
        let headers = headers_of(&fields)?;
        let tags = tags_of(&fields)?;
        let form = access::Form {
            bucket: name.as_str(),
            key: key.as_str(),
            headers: &headers,
            tags: &tags,
            remote,
        };
        let caller = gateway.admit_form(identity, form).await?;
        let bucket = Arc::clone(caller.bucket()?);
        refuse_unsupported(&headers)?;
        let wanted = gateway.wanted(&headers, self.origin.starts_with("https:"))?;
        let target = gateway.namespace.target(&bucket, wanted).await;
        let target = target.map_err(error::of_condition)?;
        let put = PutRequest {
            bucket: Arc::clone(&bucket),
            key,
            cause: Cause {
                event: Event::CreatedByPost,
                origin: origin(&bucket, caller.identity.as_deref(), context.as_deref()),
            },
            headers: convert::object_headers(&headers, Some(metadata_of(&fields)?))?,
            tags,
            checksum: None,
            conditions: WriteConditions::default(),
            sender: None,
            acl: gateway
                .acl_of_new_object(&caller, &bucket, &headers)
                .await?,
            encryption: target.encryption().cloned(),
            lock: lock::of_headers(&headers, now)?,
            recheck: Some(caller.recheck(gateway)),
        };
        let limit = sizes
            .max
            .min(gateway.config.max_post_bytes)
            .min(PUT_MAX_BYTES);
        let upload = Upload::of_form(&headers, limit, context)?;
        let body = StreamingBlob::from(Body::http_body_unsync(file));
        let received = match upload.receive(gateway, &target, Some(body)).await {
            Ok(received) => received,
            Err(_) if rest.is_broken() => return Err(fields::malformed()),
            Err(error) => return Err(error),
        };
        if received.digests.length < sizes.min {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            ));
        }
        rest.close().await?;
        let put = PutRequest {
            checksum: upload.stored_checksum(&received),
            ..put
        };
        let key = put.key.as_str().to_owned();
        let written = gateway.namespace.put(put, received).await;
        let written = written.map_err(error::of_condition)?;
        let location = format!(
            "{}{}{}",
            self.origin,
            self.folder,
            Encoding::Url.apply(&key)
        );
        let stored = Stored {
            bucket: name.as_str(),
            key: &key,
            location: &location,
            written: &written,
        };
        stored.answer(&fields)
    }
}

fn no_key() -> S3Error {
    error::invalid_argument(
        "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.",
    )
}

/// The fields that stand for headers, as headers; user metadata apart.
fn headers_of(fields: &Fields) -> S3Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (field, value) in fields.iter() {
        let name = match field {
            "acl" => "x-amz-acl",
            field => field,
        };
        let is_signature = matches!(
            name,
            "x-amz-signature" | "x-amz-credential" | "x-amz-date" | "x-amz-algorithm"
        );
        let is_amz = name.starts_with("x-amz-") && convert::is_metadata(name).is_none();
        if !HEADER_FIELDS.contains(&name) && (!is_amz || is_signature) {
            continue;
        }
        headers.insert(header_name(name)?, header_value(field, value)?);
    }
    Ok(headers)
}

fn metadata_of(fields: &Fields) -> S3Result<dto::Metadata> {
    let mut metadata = dto::Metadata::default();
    for (field, value) in fields.iter() {
        let Some(name) = convert::is_metadata(field).filter(|name| !name.is_empty()) else {
            continue;
        };
        header_name(field)?;
        header_value(field, value)?;
        metadata.insert(name.to_owned(), value.to_owned());
    }
    Ok(metadata)
}

fn header_name(field: &str) -> S3Result<HeaderName> {
    HeaderName::from_bytes(field.as_bytes()).map_err(|_| {
        s3_error!(
            InvalidArgument,
            "The form has a field with an invalid name."
        )
    })
}

fn header_value(field: &str, value: &str) -> S3Result<HeaderValue> {
    HeaderValue::from_str(value)
        .map_err(|_| s3_error!(InvalidArgument, "The field '{field}' has an invalid value."))
}

fn tags_of(fields: &Fields) -> S3Result<Tags> {
    let Some(text) = fields.get("tagging") else {
        return Ok(Tags::default());
    };
    let mut document = xml::Deserializer::new(text.as_bytes());
    let tagging = Tagging::deserialize(&mut document)
        .and_then(|tagging| document.expect_eof().map(|()| tagging))
        .map_err(|_| error::malformed_xml())?;
    tagging::tags_of(tagging)
}

/// What was stored, to be told to the browser.
struct Stored<'s> {
    bucket: &'s str,
    key: &'s str,
    location: &'s str,
    written: &'s Written,
}

impl Stored<'_> {
    fn answer(&self, fields: &Fields) -> S3Result<Response<Body>> {
        let etag = format!("\"{}\"", self.written.etag);
        let mut response = Response::new(Body::empty());
        let redirect = fields
            .get("success_action_redirect")
            .or_else(|| fields.get("redirect"))
            .and_then(|url| redirection(url, self.bucket, self.key, &etag));
        let location = match &redirect {
            Some(redirect) => redirect,
            None => self.location,
        };
        *response.status_mut() = match (&redirect, fields.get("success_action_status")) {
            (Some(_), _) => StatusCode::SEE_OTHER,
            (None, Some("200")) => StatusCode::OK,
            (None, Some("201")) => StatusCode::CREATED,
            (None, _) => StatusCode::NO_CONTENT,
        };
        if response.status() == StatusCode::CREATED {
            let said = PostResponse {
                location: self.location,
                bucket: self.bucket,
                key: self.key,
                etag: &etag,
            };
            let mut document = Vec::with_capacity(512);
            let mut serializer = xml::Serializer::new(&mut document);
            serializer
                .decl()
                .and_then(|()| said.serialize(&mut serializer))
                .map_err(|error| S3Error::with_source(S3ErrorCode::InternalError, error.into()))?;
            *response.body_mut() = Body::from(document);
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/xml"),
            );
            if answer::needs_references(self.key) {
                response.extensions_mut().insert(answer::Referenced);
            }
        }
        let headers = response.headers_mut();
        if let Ok(location) = HeaderValue::from_str(location) {
            headers.insert(header::LOCATION, location);
        }
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, etag);
        }
        encryption::tell_writer(headers, self.written.encryption.as_ref());
        headers.insert(UID_HEADER, HeaderValue::from(self.written.uid.0));
        Ok(response)
    }
}

/// Where the browser goes next. A text that is no URL of the web counts as none.
fn redirection(url: &str, bucket: &str, key: &str, etag: &str) -> Option<String> {
    let (url, fragment) = match url.split_once('#') {
        Some((url, fragment)) => (url, Some(fragment)),
        None => (url, None),
    };
    let parsed: http::Uri = url.parse().ok()?;
    if !matches!(parsed.scheme_str(), Some("http" | "https")) {
        return None;
    }
    let join = if parsed.query().is_some() { '&' } else { '?' };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut target = format!(
        "{url}{join}bucket={bucket}&key={}&etag={}",
        encode(key),
        encode(etag)
    );
    if let Some(fragment) = fragment {
        target.push('#');
        target.push_str(fragment);
    }
    HeaderValue::from_str(&target).ok().map(|_| target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.add(name, value).unwrap();
        }
        fields
    }

    fn form(method: Method, target: &str, host: &str, kind: &str) -> Option<Form> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", host)
            .header("content-type", kind)
            .body(InBody::in_memory(
                Bytes::new(),
                Arc::new(RequestContext::new()),
            ))
            .unwrap();
        Form::of(&request, &["s3.local".to_owned()])
    }

    #[test]
    fn a_post_to_a_bucket_is_a_form() {
        const KIND: &str = "multipart/form-data; boundary=X";
        for (target, host, folder) in [
            ("/b", "127.0.0.1:9000", "/b/"),
            ("/b/", "127.0.0.1:9000", "/b/"),
            ("/", "b.s3.local:9000", "/"),
            ("/?x=1", "B.S3.local", "/"),
        ] {
            let form = form(Method::POST, target, host, KIND).unwrap();
            assert_eq!((form.bucket.as_str(), form.folder.as_str()), ("b", folder));
            assert_eq!(form.boundary.unwrap(), "X");
        }
        assert!(form(Method::PUT, "/b", "h", KIND).is_none());
        assert!(form(Method::POST, "/", "s3.local", KIND).is_none());
        assert!(form(Method::POST, "/b/k", "h", KIND).is_none());
        assert!(form(Method::POST, "/b?delete", "h", "application/xml").is_none());
    }

    #[test]
    fn a_post_of_another_type_is_refused() {
        let code = |kind: &str| {
            let form = form(Method::POST, "/b", "h", kind).unwrap();
            form.boundary.unwrap_err().code().as_str().to_owned()
        };
        assert_eq!(code("text/plain"), "PreconditionFailed");
        assert_eq!(code("multipart/form-data"), "MalformedPOSTRequest");
    }

    #[test]
    fn fields_stand_for_headers() {
        let fields = fields(&[
            ("Content-Type", "a/b"),
            ("acl", "private"),
            ("x-amz-checksum-crc32", "AAAAAA=="),
            ("x-amz-meta-A", "ä"),
            ("x-amz-signature", "s"),
            ("x-ignore-me", "1"),
            ("host", "h"),
        ]);
        let headers = headers_of(&fields).unwrap();
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "x-amz-acl", "x-amz-checksum-crc32"]);
        let metadata = metadata_of(&fields).unwrap();
        assert_eq!(metadata.get("a").map(String::as_str), Some("ä"));
    }

    #[test]
    fn values_that_no_header_can_carry_are_refused() {
        for pair in [
            ("content-type", "a\r\nb: c"),
            ("x-amz-meta-a", "a\nb"),
            ("x-amz-meta-a b", "c"),
        ] {
            let fields = fields(&[pair]);
            assert!(
                headers_of(&fields).is_err() || metadata_of(&fields).is_err(),
                "{pair:?}"
            );
        }
    }

    #[test]
    fn tags_come_as_a_document() {
        let document =
            "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>";
        let tags = tags_of(&fields(&[("tagging", document)])).unwrap();
        assert_eq!(tags.0, [("a".to_owned(), "1".to_owned())]);
        for bad in ["", "a=1", "<Tagging>", &format!("{document}<x/>")] {
            assert!(tags_of(&fields(&[("tagging", bad)])).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_browser_is_sent_on_with_what_was_stored() {
        let to = |url| redirection(url, "b", "k/ä", "\"e\"");
        let query = "bucket=b&key=k%2F%C3%A4&etag=%22e%22";
        assert_eq!(to("http://h/done"), Some(format!("http://h/done?{query}")));
        assert_eq!(
            to("https://h/?a=1#f"),
            Some(format!("https://h/?a=1&{query}#f"))
        );
        for none in [
            "",
            "/done",
            "javascript:alert(1)",
            "http://h/\r\nx: y",
            "ftp://h/",
        ] {
            assert_eq!(to(none), None, "{none}");
        }
    }
}
