//! Get, head and attributes of objects.

use futures::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::StreamBody;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::answer::BareETag;
use super::convert::{self, set_checksums};
use super::encryption::Side;
use super::objects::set_uid;
use super::{Gateway, encryption, error, lock};
use crate::model::bucket::{Bucket, Versioning};
use crate::model::content::RangeRequest;
use crate::model::digest::ObjectChecksum;
use crate::model::names::ObjectKey as Key;
use crate::model::object::{ReadDecision, Tags, Version, VersionId};
use crate::namespace::{Condition, CustomerKey, Reader};

/// What a version without a type is answered as.
const DEFAULT_TYPE: &str = "binary/octet-stream";
/// What GetObjectAttributes can tell.
const ATTRIBUTES: [&str; 5] = [
    "ETag",
    "Checksum",
    "ObjectParts",
    "StorageClass",
    "ObjectSize",
];

/// What GetObject and HeadObject answer alike: two types of `s3s` with the same fields.
macro_rules! read_output {
    ($output:ident, $bucket:expr, $version:expr, $selection:expr, $input:expr) => {{
        let retention = $version.lock.retention;
        let mut output = $output {
            version_id: shown($bucket, $version.id()),
            object_lock_mode: retention
                .map(|retention| ObjectLockMode::from_static(lock::mode_name(retention.mode))),
            object_lock_retain_until_date: retention
                .map(|retention| convert::timestamp(retention.until)),
            object_lock_legal_hold_status: $version
                .lock
                .legal_hold
                .map(|hold| ObjectLockLegalHoldStatus::from_static(lock::hold_name(hold))),
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
    encryption::tell(&mut response.headers, version.encryption.as_ref());
    set_uid(&mut response, version.uid);
    response
}

/// The id a version is answered with: none where the bucket never kept versions.
pub(super) fn shown(bucket: &Bucket, id: VersionId) -> Option<String> {
    (bucket.versioning != Versioning::Never).then(|| id.to_string())
}

impl Gateway {
    /// The customer's key that comes with a read.
    fn key_for_read(&self, headers: &HeaderMap) -> S3Result<Option<CustomerKey>> {
        encryption::refuse_on_read(headers)?;
        self.customer_key(headers, Side::Object, encryption::is_https(headers))
    }

    /// Finds a version, and decides about its key and the conditions of a read.
    async fn head_for_read(
        &self,
        caller: &Caller,
        bucket: &Bucket,
        key: &Key,
        id: Option<VersionId>,
        headers: &HeaderMap,
    ) -> S3Result<Version> {
        let customer_key = self.key_for_read(headers)?;
        let version = self
            .namespace
            .head(bucket, key, id)
            .await
            .map_err(|condition| self.not_found(caller, bucket, key.as_str(), condition))?;
        caller.confirm(self, &version)?;
        self.namespace
            .check_key(&version, customer_key.as_ref())
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
        let bucket = caller.bucket()?;
        let id = convert::version_id(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let customer_key = self.key_for_read(&request.headers)?;
        let object = self
            .namespace
            .get(bucket, &key, id)
            .await
            .map_err(|condition| self.not_found(caller, bucket, key.as_str(), condition))?;
        caller.confirm(self, &object.version)?;
        self.namespace
            .check_readable(bucket, &object.version, customer_key.as_ref())
            .await
            .map_err(error::of_condition)?;
        decide_read(&object.version, &request.headers)?;
        let range = convert::range(&request.headers)?;
        let selection = self
            .select(&object.version, range, input.part_number)
            .await?;
        let range = selection.range.clone();
        let reader = self.namespace.open(&object, range, customer_key);
        let body = stream(reader).await.map_err(error::of_fault)?;
        let version = &object.version;
        let mut output = read_output!(GetObjectOutput, bucket, version, selection, input);
        output.expiration = self.expiration_of(bucket, &key, id, version);
        output.body = Some(body);
        output.tag_count = tag_count(&version.tags);
        let mut response = read_response(output, version, &selection);
        override_headers(&mut response.headers, input, caller)?;
        Ok(response)
    }

    pub(super) async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let bucket = caller.bucket()?;
        let id = convert::version_id(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let version = &self
            .head_for_read(caller, bucket, &key, id, &request.headers)
            .await?;
        let range = convert::range(&request.headers)?;
        let selection = self.select(version, range, input.part_number).await?;
        let mut output = read_output!(HeadObjectOutput, bucket, version, selection, input);
        output.expiration = self.expiration_of(bucket, &key, id, version);
        let mut response = read_response(output, version, &selection);
        if let Some(count) = tag_count(&version.tags) {
            response
                .headers
                .insert("x-amz-tagging-count", HeaderValue::from(count));
        }
        Ok(response)
    }

    pub(super) async fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let bucket = caller.bucket()?;
        let id = convert::version_id(input.version_id.as_deref())?;
        let key = convert::object_key(&input.key)?;
        let version = &self
            .head_for_read(caller, bucket, &key, id, &request.headers)
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
            version_id: shown(bucket, version.id()),
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
    if let Some(date) = convert::http_date_header(version.modified) {
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
fn override_headers(into: &mut HeaderMap, input: &GetObjectInput, caller: &Caller) -> S3Result<()> {
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
            // Else anybody could make a link to a public object that a browser takes for a page.
            if caller.signed().is_err() {
                return Err(s3_error!(
                    InvalidRequest,
                    "Request specific response headers cannot be used for anonymous GET requests."
                ));
            }
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
