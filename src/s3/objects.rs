//! Put, get, head, delete and attributes of objects.

use std::sync::Arc;

use futures::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::StreamBody;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::answer::BareETag;
use super::body::DocumentDigests;
use super::convert::{self, set_checksums};
use super::upload::Upload;
use super::{Gateway, error};
use crate::auth::Action;
use crate::model::bucket::Bucket;
use crate::model::content::RangeRequest;
use crate::model::digest::ObjectChecksum;
use crate::model::names::ObjectKey as Key;
use crate::model::object::{ReadDecision, Tags, Version, WriteConditions};
use crate::namespace::{Condition, PutRequest, Reader, Written};

/// Most keys of one DeleteObjects.
const DELETE_MAX: usize = 1000;
/// What a version without a type is answered as.
const DEFAULT_TYPE: &str = "binary/octet-stream";
/// The stable number of what was stored or read.
pub(super) const UID_HEADER: &str = "x-osproxy-uid";

/// The storage classes there are at AWS.
const STORAGE_CLASSES: [&[u8]; 8] = [
    b"STANDARD",
    b"REDUCED_REDUNDANCY",
    b"STANDARD_IA",
    b"ONEZONE_IA",
    b"INTELLIGENT_TIERING",
    b"GLACIER",
    b"DEEP_ARCHIVE",
    b"GLACIER_IR",
];

/// What GetObjectAttributes can tell.
const ATTRIBUTES: [&str; 5] = [
    "ETag",
    "Checksum",
    "ObjectParts",
    "StorageClass",
    "ObjectSize",
];

/// An answer given before the body: the connection cannot be used again.
pub(super) fn close_connection<T>(response: &mut S3Response<T>) {
    response
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
}

pub(super) fn set_uid<T>(response: &mut S3Response<T>, uid: crate::model::ids::Uid) {
    response
        .headers
        .insert(UID_HEADER, HeaderValue::from(uid.0));
}

/// The canned ACLs there are at AWS.
pub(super) const CANNED_ACLS: [&str; 8] = [
    "private",
    "bucket-owner-full-control",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "log-delivery-write",
];

/// Refuses what a later version will have: half of it would be worse than none. An object that came with a key
/// must never be stored in clear.
pub(super) fn refuse_unsupported(headers: &HeaderMap) -> S3Result<()> {
    const UNSUPPORTED: [&str; 5] = [
        "x-amz-server-side-encryption",
        "x-amz-copy-source-server-side-encryption",
        "x-amz-object-lock-",
        "x-amz-grant-",
        "x-amz-write-offset-bytes",
    ];
    for side in ["x-amz-", "x-amz-copy-source-"] {
        let has = |name: &str| {
            headers.contains_key(format!("{side}server-side-encryption-customer-{name}").as_str())
        };
        if (has("key") || has("key-md5")) && !has("algorithm") {
            return Err(error::invalid_argument(
                "Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption algorithm.",
            ));
        }
    }
    let unsupported = |name: &str| UNSUPPORTED.iter().any(|prefix| name.starts_with(prefix));
    if headers.keys().any(|name| unsupported(name.as_str())) {
        return Err(error::not_implemented());
    }
    // Every class that is one is stored alike, and answered as STANDARD.
    if let Some(class) = headers.get("x-amz-storage-class")
        && !STORAGE_CLASSES.contains(&class.as_bytes())
    {
        return Err(s3_error!(
            InvalidStorageClass,
            "The storage class you specified is not valid"
        ));
    }
    match convert::header(headers, "x-amz-acl")? {
        None | Some("private" | "bucket-owner-full-control") => Ok(()),
        Some(acl) if CANNED_ACLS.contains(&acl) => Err(error::not_implemented()),
        Some(_) => Err(error::invalid_argument("The canned ACL is not one.")),
    }
}

/// A key for an object that is not encrypted means that the client takes it for another one.
fn refuse_customer_key(headers: &HeaderMap) -> S3Result<()> {
    let given = headers.keys().any(|name| {
        name.as_str()
            .starts_with("x-amz-server-side-encryption-customer-")
    });
    if given {
        return Err(s3_error!(
            InvalidRequest,
            "The encryption parameters are not applicable to this object."
        ));
    }
    Ok(())
}

/// Only the version that a key has now can be named until buckets keep versions.
pub(super) fn check_version(version_id: Option<&str>) -> S3Result<()> {
    match version_id {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist."
        )),
    }
}

/// What GetObject and HeadObject answer alike: two types of `s3s` with the same fields.
macro_rules! read_output {
    ($output:ident, $version:expr, $selection:expr, $input:expr) => {{
        let mut output = $output {
            content_length: Some($selection.length()),
            content_range: $selection.content_range($version),
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(convert::etag(&$version.etag)),
            last_modified: Some(convert::timestamp($version.modified)),
            metadata: convert::metadata(&$version.headers),
            parts_count: $selection.parts.map(|parts| parts as i32),
            website_redirect_location: $version.headers.website_redirect.clone(),
            ..$output::default()
        };
        if $selection.shows_checksum($input.checksum_mode.as_ref()) {
            output.checksum_type = set_checksums!(output, $selection.checksum.as_ref());
        }
        output
    }};
}

/// The answer to a read, with the headers that go out as they were stored.
fn read_response<T>(output: T, version: &Version, selection: &Selection) -> S3Response<T> {
    let mut response = S3Response::new(output);
    response.status = Some(selection.status());
    stored_headers(&mut response.headers, version);
    set_uid(&mut response, version.uid);
    response
}

impl Gateway {
    pub(super) async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let caller = Caller::of(&request)?.clone();
        let bucket = caller.bucket()?;
        refuse_unsupported(&request.headers)?;
        let key = convert::object_key(&request.input.key)?;
        let upload = Upload::of(&request)?;
        let put = PutRequest {
            bucket: Arc::clone(bucket),
            key,
            headers: convert::object_headers(&request.headers, request.input.metadata)?,
            tags: convert::tagging_header(&request.headers)?.unwrap_or_default(),
            checksum: None,
            conditions: convert::write_conditions(&request.headers)?,
            sender: caller.sender(),
        };
        self.namespace
            .check(bucket, &put.key, &put.conditions)
            .await
            .map_err(error::of_condition)?;
        let instant = upload.instant(self, &caller, bucket).await?;
        if let Some(received) = instant {
            let checksum = upload.stored_checksum(&received);
            let put = PutRequest {
                checksum,
                ..put.clone()
            };
            match self.namespace.put(put, received).await {
                Ok(written) => {
                    self.metrics.instant_upload();
                    let mut response = put_response(&written);
                    close_connection(&mut response);
                    return Ok(response);
                }
                // Collected since it was found: the body is still to come.
                Err(Condition::ContentGone) => {}
                Err(condition) => return Err(error::of_condition(condition)),
            }
        }
        let received = upload.receive(self, bucket, request.input.body).await?;
        let put = PutRequest {
            checksum: upload.stored_checksum(&received),
            ..put
        };
        let written = self
            .namespace
            .put(put, received)
            .await
            .map_err(error::of_condition)?;
        Ok(put_response(&written))
    }

    /// Finds a version and decides the conditions of a read.
    async fn head_for_read(
        &self,
        bucket: &Bucket,
        key: &Key,
        headers: &HeaderMap,
    ) -> S3Result<Version> {
        let version = self
            .namespace
            .head(bucket, key)
            .await
            .map_err(error::of_condition)?;
        decide_read(&version, headers)?;
        Ok(version)
    }

    /// What of an object a request wants.
    async fn select(
        &self,
        version: &Version,
        range: Option<RangeRequest>,
        part: Option<i32>,
    ) -> S3Result<Selection> {
        let size = version.size;
        match (range, part) {
            (Some(_), Some(_)) => Err(s3_error!(
                InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter"
            )),
            (range, None) => Ok(Selection {
                range: range
                    .map_or(Ok(0..size), |range| range.resolve(size))
                    .map_err(|_| unsatisfiable(size))?,
                partial: range.is_some(),
                parts: None,
                checksum: version.checksum.clone(),
            }),
            (None, Some(number)) => {
                let number = u32::try_from(number)
                    .ok()
                    .filter(|number| (1..=10_000).contains(number))
                    .ok_or_else(|| {
                        error::invalid_argument(
                            "Part number must be an integer between 1 and 10000, inclusive",
                        )
                    })?;
                let part = self
                    .namespace
                    .part(version, number)
                    .await
                    .map_err(error::of_condition)?;
                Ok(Selection {
                    range: part.range,
                    partial: true,
                    parts: part.count,
                    checksum: part.checksum,
                })
            }
        }
    }

    pub(super) async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        check_version(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        refuse_customer_key(&request.headers)?;
        let object = self
            .namespace
            .get(caller.bucket()?, &key)
            .await
            .map_err(error::of_condition)?;
        decide_read(&object.version, &request.headers)?;
        let range = convert::range(&request.headers)?;
        let selection = self
            .select(&object.version, range, input.part_number)
            .await?;
        let reader = self.namespace.open(&object, selection.range.clone());
        let body = stream(reader).await.map_err(error::of_fault)?;
        let version = &object.version;
        let mut output = read_output!(GetObjectOutput, version, selection, input);
        output.body = Some(body);
        output.tag_count = tag_count(&version.tags);
        let mut response = read_response(output, version, &selection);
        override_headers(&mut response.headers, input)?;
        Ok(response)
    }

    pub(super) async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        check_version(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        refuse_customer_key(&request.headers)?;
        let version = &self
            .head_for_read(caller.bucket()?, &key, &request.headers)
            .await?;
        let range = convert::range(&request.headers)?;
        let selection = self.select(version, range, input.part_number).await?;
        let output = read_output!(HeadObjectOutput, version, selection, input);
        let mut response = read_response(output, version, &selection);
        if let Some(count) = tag_count(&version.tags) {
            response
                .headers
                .insert("x-amz-tagging-count", HeaderValue::from(count));
        }
        Ok(response)
    }

    pub(super) async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        check_version(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let conditions = WriteConditions {
            if_modified_at: input
                .if_match_last_modified_time
                .as_ref()
                .map(convert::millis),
            if_size: input
                .if_match_size
                .and_then(|size| u64::try_from(size).ok()),
            ..convert::write_conditions(&request.headers)?
        };
        self.namespace
            .delete(caller.bucket()?, &key, conditions)
            .await
            .map_err(error::of_condition)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let caller = &Caller::of(&request)?.clone();
        let bucket = caller.bucket()?;
        DocumentDigests::check(&request)?;
        let Delete { objects, quiet } = request.input.delete;
        if objects.is_empty() || objects.len() > DELETE_MAX {
            return Err(error::malformed_xml());
        }
        // Keys one after the other would each wait for a commit of its own; together they share one.
        let outcomes: Vec<_> = futures::stream::iter(objects)
            .map(|object| async move {
                let outcome = self.delete_one(caller, bucket, &object).await;
                (object, outcome)
            })
            .buffered(64)
            .collect()
            .await;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (object, outcome) in outcomes {
            match outcome {
                Ok(()) if quiet == Some(true) => {}
                Ok(()) => deleted.push(DeletedObject {
                    key: Some(object.key),
                    version_id: object.version_id,
                    ..DeletedObject::default()
                }),
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(object.key),
                    version_id: object.version_id,
                }),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn delete_one(
        &self,
        caller: &Caller,
        bucket: &Bucket,
        object: &ObjectIdentifier,
    ) -> S3Result<()> {
        self.authorize(&caller.identity, Action::DeleteObject, Some(bucket))?;
        check_version(object.version_id.as_deref())?;
        let key = convert::object_key(&object.key)?;
        let conditions = WriteConditions {
            if_match: object
                .e_tag
                .as_ref()
                .map(|etag| crate::model::object::ETagList::parse(etag.value())),
            if_none_match: None,
            if_modified_at: object.last_modified_time.as_ref().map(convert::millis),
            if_size: object.size.and_then(|size| u64::try_from(size).ok()),
        };
        self.namespace
            .delete(bucket, &key, conditions)
            .await
            .map_err(error::of_condition)
    }

    pub(super) async fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        check_version(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let version = &self
            .head_for_read(caller.bucket()?, &key, &request.headers)
            .await?;
        let wanted: Vec<&str> = input
            .object_attributes
            .iter()
            .flat_map(|attribute| attribute.as_str().split(','))
            .map(str::trim)
            .collect();
        if wanted.iter().any(|name| !ATTRIBUTES.contains(name)) {
            return Err(error::invalid_argument("Invalid attribute name specified."));
        }
        let wants = |name: &'static str| wanted.contains(&name);
        let mut output = GetObjectAttributesOutput {
            last_modified: Some(convert::timestamp(version.modified)),
            ..GetObjectAttributesOutput::default()
        };
        if wants("ETag") {
            output.e_tag = Some(convert::etag(&version.etag));
        }
        if wants("ObjectSize") {
            output.object_size = Some(version.size as i64);
        }
        if wants("StorageClass") {
            output.storage_class = Some(StorageClass::from_static(StorageClass::STANDARD));
        }
        if wants("Checksum")
            && let Some(checksum) = &version.checksum
        {
            let mut fields = Checksum::default();
            fields.checksum_type = set_checksums!(fields, Some(&whole_value(checksum)));
            output.checksum = Some(fields);
        }
        if wants("ObjectParts")
            && let Some(count) = version.etag.parts
        {
            let after = input.part_number_marker.unwrap_or(0).max(0);
            let limit = convert::page_size(input.max_parts, 1000, "max-parts")?;
            output.object_parts = Some(self.attribute_parts(version, count, after, limit).await?);
        }
        let mut response = S3Response::new(output);
        response.extensions.insert(BareETag);
        set_uid(&mut response, version.uid);
        Ok(response)
    }

    async fn attribute_parts(
        &self,
        version: &Version,
        count: u32,
        after: i32,
        limit: usize,
    ) -> S3Result<GetObjectAttributesParts> {
        let page = self
            .namespace
            .parts(version, after as u32, limit)
            .await
            .map_err(error::of_condition)?;
        // S3 lists single parts only where each has a checksum of its own to show.
        let composite = version
            .checksum
            .as_ref()
            .is_some_and(|checksum| checksum.parts.is_some());
        let last = page.parts.last().map_or(after, |part| part.number as i32);
        let parts = page.parts.iter().map(|part| {
            let mut output = ObjectPart {
                part_number: Some(part.number as i32),
                size: Some(part.size as i64),
                ..ObjectPart::default()
            };
            let _ = set_checksums!(output, part.checksum.as_ref());
            output
        });
        Ok(GetObjectAttributesParts {
            total_parts_count: Some(count as i32),
            part_number_marker: Some(after),
            next_part_number_marker: Some(last),
            max_parts: Some(limit as i32),
            is_truncated: Some(page.truncated),
            parts: composite.then(|| parts.collect()),
        })
    }
}

/// The checksum as GetObjectAttributes shows it: a composite value comes without the number of parts.
fn whole_value(checksum: &ObjectChecksum) -> ObjectChecksum {
    ObjectChecksum {
        parts: None,
        ..checksum.clone()
    }
}

/// What of an object is sent.
struct Selection {
    range: std::ops::Range<u64>,
    partial: bool,
    parts: Option<u32>,
    checksum: Option<ObjectChecksum>,
}

impl Selection {
    fn length(&self) -> i64 {
        (self.range.end - self.range.start) as i64
    }

    fn is_empty(&self) -> bool {
        self.range.start == self.range.end
    }

    fn status(&self) -> http::StatusCode {
        if self.partial && !self.is_empty() {
            http::StatusCode::PARTIAL_CONTENT
        } else {
            http::StatusCode::OK
        }
    }

    fn content_range(&self, version: &Version) -> Option<String> {
        (self.partial && !self.is_empty()).then(|| {
            format!(
                "bytes {}-{}/{}",
                self.range.start,
                self.range.end - 1,
                version.size
            )
        })
    }

    /// A checksum covers a whole body: of the object, or of the one part asked for.
    fn shows_checksum(&self, mode: Option<&ChecksumMode>) -> bool {
        let enabled = mode.is_some_and(|mode| mode.as_str().eq_ignore_ascii_case("ENABLED"));
        enabled && (!self.partial || self.parts.is_some())
    }
}

fn put_response(written: &Written) -> S3Response<PutObjectOutput> {
    let mut output = PutObjectOutput {
        e_tag: Some(convert::etag(&written.etag)),
        ..PutObjectOutput::default()
    };
    output.checksum_type = set_checksums!(output, written.checksum.as_ref());
    let mut response = S3Response::new(output);
    set_uid(&mut response, written.uid);
    response
}

fn tag_count(tags: &Tags) -> Option<i32> {
    (!tags.0.is_empty()).then_some(tags.0.len() as i32)
}

/// Decides the conditions of a read on the version that was found.
fn decide_read(version: &Version, headers: &HeaderMap) -> S3Result<()> {
    let conditions = convert::read_conditions(headers)?;
    match conditions.decide(&version.etag, version.modified) {
        ReadDecision::Proceed => Ok(()),
        ReadDecision::Failed => Err(error::of_condition(Condition::PreconditionFailed)),
        ReadDecision::NotModified => Err(not_modified(version)),
    }
}

/// 304, with the headers RFC 9110 section 15.4.5 wants on it.
fn not_modified(version: &Version) -> s3s::S3Error {
    let mut error = s3s::S3Error::new(s3s::S3ErrorCode::NotModified);
    let mut headers = HeaderMap::new();
    if let Ok(etag) = convert::etag(&version.etag).to_http_header() {
        headers.insert(header::ETAG, etag);
    }
    let mut text = Vec::new();
    let formatted =
        convert::timestamp(version.modified).format(TimestampFormat::HttpDate, &mut text);
    if let (Ok(()), Ok(date)) = (formatted, HeaderValue::from_bytes(&text)) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    if let Some(cache) = &version.headers.cache_control
        && let Ok(cache) = HeaderValue::from_str(cache)
    {
        headers.insert(header::CACHE_CONTROL, cache);
    }
    error.set_headers(headers);
    error
}

/// 416, with the length that RFC 9110 section 15.5.17 wants on it.
fn unsatisfiable(size: u64) -> s3s::S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
        error.set_headers(HeaderMap::from_iter([(header::CONTENT_RANGE, range)]));
    }
    error
}

/// The headers a version was stored with. Set as they are: the DTO's typed fields would refuse some.
fn stored_headers(into: &mut HeaderMap, version: &Version) {
    let stored = &version.headers;
    let content_type = stored.content_type.as_deref().unwrap_or(DEFAULT_TYPE);
    let fields = [
        (header::CONTENT_TYPE, Some(content_type)),
        (header::CONTENT_ENCODING, stored.content_encoding.as_deref()),
        (
            header::CONTENT_DISPOSITION,
            stored.content_disposition.as_deref(),
        ),
        (header::CONTENT_LANGUAGE, stored.content_language.as_deref()),
        (header::CACHE_CONTROL, stored.cache_control.as_deref()),
        (header::EXPIRES, stored.expires.as_deref()),
    ];
    for (name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            into.insert(name, value);
        }
    }
}

/// `response-*` of the query replace what is stored.
fn override_headers(into: &mut HeaderMap, input: &GetObjectInput) -> S3Result<()> {
    let expires = input.response_expires.as_ref().and_then(|expires| {
        let mut text = Vec::new();
        expires
            .format(TimestampFormat::HttpDate, &mut text)
            .ok()
            .and_then(|()| String::from_utf8(text).ok())
    });
    let fields = [
        (header::CONTENT_TYPE, &input.response_content_type),
        (header::CONTENT_ENCODING, &input.response_content_encoding),
        (
            header::CONTENT_DISPOSITION,
            &input.response_content_disposition,
        ),
        (header::CONTENT_LANGUAGE, &input.response_content_language),
        (header::CACHE_CONTROL, &input.response_cache_control),
        (header::EXPIRES, &expires),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).map_err(|_| {
                error::invalid_argument("A response header in the query has an invalid value.")
            })?;
            into.insert(name, value);
        }
    }
    Ok(())
}

/// A reader as a body. What fits in one read is sent as one piece, and a failure before the first byte is
/// still an answer of its own.
async fn stream(mut reader: Reader) -> Result<StreamingBlob, crate::model::fault::Fault> {
    let Some(first) = reader.first().await? else {
        return Ok(StreamingBlob::from(s3s::Body::empty()));
    };
    if reader.is_done() {
        return Ok(StreamingBlob::from(s3s::Body::from(first)));
    }
    let rest = futures::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await? {
            Ok(bytes) => Some((Ok(Frame::data(bytes)), Some(reader))),
            Err(fault) => {
                tracing::warn!(%fault, "body ended early");
                Some((Err(fault), None))
            }
        }
    });
    let body = futures::stream::iter([Ok(Frame::data(first))]).chain(rest);
    let body = s3s::Body::http_body_unsync(StreamBody::new(body));
    Ok(StreamingBlob::from(body))
}
