//! Between the protocol's values and the model's: headers, ETags, checksums, times, tags, ranges.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderValue};
use s3s::dto::{self, Timestamp, TimestampFormat};
use s3s::{S3Error, S3Result, s3_error};

use super::error;
use crate::model::clock::Millis;
use crate::model::content::RangeRequest;
use crate::model::digest::{Checksum, ChecksumAlgorithm, ChecksumKind, ETag, ObjectChecksum};
use crate::model::names::{BucketName, ObjectKey};
use crate::model::object::{
    ETagList, Headers, METADATA_MAX_BYTES, ReadConditions, Tags, VersionId, WriteConditions,
};

pub(super) fn bucket_name(name: &str) -> S3Result<BucketName> {
    BucketName::parse(name).map_err(error::of_name)
}

pub(super) fn object_key(key: &str) -> S3Result<ObjectKey> {
    ObjectKey::parse(key).map_err(error::of_name)
}

/// The version a request names; `None` for the current one.
pub(super) fn version_id(text: Option<&str>) -> S3Result<Option<VersionId>> {
    match text {
        None => Ok(None),
        Some("") => Err(error::invalid_argument(
            "Version id cannot be the empty string",
        )),
        Some(text) => VersionId::parse(text)
            .map(Some)
            .ok_or_else(|| error::invalid_argument("Invalid version id specified")),
    }
}

pub(super) fn timestamp(millis: Millis) -> Timestamp {
    let nanos = i128::from(millis) * 1_000_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        .into()
}

/// Milliseconds since 1970.
pub(super) fn millis(timestamp: &Timestamp) -> Millis {
    let time: time::OffsetDateTime = timestamp.clone().into();
    (time.unix_timestamp_nanos() / 1_000_000) as Millis
}

pub(super) fn etag(etag: &ETag) -> dto::ETag {
    dto::ETag::Strong(etag.to_string())
}

/// A header's value as text; one that is not UTF-8 is refused.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &'static str) -> S3Result<Option<&'h str>> {
    headers
        .get(name)
        .map(|value| {
            std::str::from_utf8(value.as_bytes())
                .map_err(|_| s3_error!(InvalidArgument, "The header {name} is not valid UTF-8."))
        })
        .transpose()
}

fn owned(headers: &HeaderMap, name: &'static str) -> S3Result<Option<String>> {
    Ok(header(headers, name)?
        .filter(|value| !value.is_empty())
        .map(str::to_owned))
}

/// The headers a version will be answered with, from a request's own headers.
///
/// `Content-Encoding` loses `aws-chunked`, which is how the body travelled and not what it is. Metadata
/// comes decoded by `s3s` (RFC 2047), with lower-case names.
pub(super) fn object_headers(
    headers: &HeaderMap,
    metadata: Option<dto::Metadata>,
) -> S3Result<Headers> {
    let is_framing = |coding: &str| coding.trim().eq_ignore_ascii_case("aws-chunked");
    let encoding = header(headers, "content-encoding")?.and_then(|value| {
        if !value.split(',').any(is_framing) {
            return Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        let kept: Vec<&str> = value
            .split(',')
            .map(str::trim)
            .filter(|coding| !coding.is_empty() && !is_framing(coding))
            .collect();
        (!kept.is_empty()).then(|| kept.join(", "))
    });
    let mut metadata: Vec<(String, String)> = metadata
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    metadata.sort();
    let found = Headers {
        content_type: owned(headers, "content-type")?,
        content_encoding: encoding,
        content_disposition: owned(headers, "content-disposition")?,
        content_language: owned(headers, "content-language")?,
        cache_control: owned(headers, "cache-control")?,
        expires: owned(headers, "expires")?,
        website_redirect: owned(headers, "x-amz-website-redirect-location")?,
        metadata,
    };
    if found.metadata_bytes() > METADATA_MAX_BYTES {
        return Err(error::custom(
            "MetadataTooLarge",
            400,
            "Your metadata headers exceed the maximum allowed metadata size",
        ));
    }
    Ok(found)
}

/// The name of user metadata that a header or form field carries.
pub(super) fn is_metadata(name: &str) -> Option<&str> {
    name.strip_prefix("x-amz-meta-")
}

pub(super) fn metadata(headers: &Headers) -> Option<dto::Metadata> {
    (!headers.metadata.is_empty()).then(|| headers.metadata.iter().cloned().collect())
}

fn etag_list(headers: &HeaderMap, name: &'static str) -> S3Result<Option<ETagList>> {
    Ok(header(headers, name)?.map(ETagList::parse))
}

/// A date in a conditional header; RFC 9110 has one that cannot be parsed ignored.
fn date(headers: &HeaderMap, name: &'static str) -> S3Result<Option<Millis>> {
    Ok(header(headers, name)?.and_then(http_date))
}

/// A date as HTTP writes it; `None` for any other text.
pub(super) fn http_date(text: &str) -> Option<Millis> {
    Timestamp::parse(TimestampFormat::HttpDate, text)
        .ok()
        .map(|time| millis(&time))
}

/// A time as a header writes it.
pub(super) fn http_date_header(time: Millis) -> Option<HeaderValue> {
    let mut text = Vec::new();
    timestamp(time)
        .format(TimestampFormat::HttpDate, &mut text)
        .ok()?;
    HeaderValue::from_bytes(&text).ok()
}

pub(super) fn read_conditions(headers: &HeaderMap) -> S3Result<ReadConditions> {
    Ok(ReadConditions {
        if_match: etag_list(headers, "if-match")?,
        if_none_match: etag_list(headers, "if-none-match")?,
        if_modified_since: date(headers, "if-modified-since")?,
        if_unmodified_since: date(headers, "if-unmodified-since")?,
    })
}

/// The conditions on the source of a copy.
pub(super) fn source_conditions(headers: &HeaderMap) -> S3Result<ReadConditions> {
    Ok(ReadConditions {
        if_match: etag_list(headers, "x-amz-copy-source-if-match")?,
        if_none_match: etag_list(headers, "x-amz-copy-source-if-none-match")?,
        if_modified_since: date(headers, "x-amz-copy-source-if-modified-since")?,
        if_unmodified_since: date(headers, "x-amz-copy-source-if-unmodified-since")?,
    })
}

/// The conditions of a write; read from the raw headers because `s3s` has none for CopyObject's target.
/// `If-None-Match` takes only `*` here ("Conditional writes" in the S3 user guide).
pub(super) fn write_conditions(headers: &HeaderMap) -> S3Result<WriteConditions> {
    let if_none_match = etag_list(headers, "if-none-match")?;
    if matches!(if_none_match, Some(ETagList::Tags(_))) {
        return Err(error::not_implemented());
    }
    Ok(WriteConditions {
        if_match: etag_list(headers, "if-match")?,
        if_none_match,
        ..WriteConditions::default()
    })
}

/// `x-amz-tagging`: tags as a URL's query.
pub(super) fn tagging_header(headers: &HeaderMap) -> S3Result<Option<Tags>> {
    let Some(text) = header(headers, "x-amz-tagging")? else {
        return Ok(None);
    };
    let pairs = form_urlencoded::parse(text.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    Tags::parse(pairs).map(Some).map_err(error::of_tags)
}

/// `Content-MD5`.
pub(super) fn content_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(text) = header(headers, "content-md5")? else {
        return Ok(None);
    };
    BASE64
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map(Some)
        .ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."))
}

fn checksum_header(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

fn bad_checksum_header(name: &str) -> S3Error {
    s3_error!(InvalidRequest, "Value for {name} header is invalid.")
}

/// The checksums among headers or trailers: at most one may be given.
pub(super) fn checksum_of(headers: &HeaderMap) -> S3Result<Option<Checksum>> {
    let mut found = None;
    for algorithm in ChecksumAlgorithm::ALL {
        let name = checksum_header(algorithm);
        let Some(text) = header(headers, name)? else {
            continue;
        };
        let checksum = Checksum::parse(algorithm, text).ok_or_else(|| bad_checksum_header(name))?;
        if found.replace(checksum).is_some() {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            ));
        }
    }
    Ok(found)
}

/// The checksum a request announces to come after its body.
pub(super) fn trailer_algorithm(headers: &HeaderMap) -> S3Result<Option<ChecksumAlgorithm>> {
    let Some(text) = header(headers, "x-amz-trailer")? else {
        return Ok(None);
    };
    ChecksumAlgorithm::ALL
        .into_iter()
        .find(|algorithm| {
            text.split(',').any(|name| {
                name.trim()
                    .eq_ignore_ascii_case(checksum_header(*algorithm))
            })
        })
        .map(Some)
        .ok_or_else(|| {
            s3_error!(
                InvalidRequest,
                "The value specified in the x-amz-trailer header is not supported"
            )
        })
}

/// The algorithm named in `x-amz-checksum-algorithm` or `x-amz-sdk-checksum-algorithm`.
pub(super) fn algorithm_header(headers: &HeaderMap) -> S3Result<Option<ChecksumAlgorithm>> {
    for name in ["x-amz-checksum-algorithm", "x-amz-sdk-checksum-algorithm"] {
        if let Some(text) = header(headers, name)? {
            return ChecksumAlgorithm::parse(text).map(Some).ok_or_else(|| {
                s3_error!(
                    InvalidRequest,
                    "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"
                )
            });
        }
    }
    Ok(None)
}

/// `x-amz-checksum-type`.
pub(super) fn checksum_kind(headers: &HeaderMap) -> S3Result<Option<ChecksumKind>> {
    let Some(text) = header(headers, "x-amz-checksum-type")? else {
        return Ok(None);
    };
    [ChecksumKind::FullObject, ChecksumKind::Composite]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .map(Some)
        .ok_or_else(|| {
            s3_error!(
                InvalidRequest,
                "Value for x-amz-checksum-type header is invalid."
            )
        })
}

pub(super) fn algorithm_name(algorithm: ChecksumAlgorithm) -> dto::ChecksumAlgorithm {
    dto::ChecksumAlgorithm::from_static(algorithm.as_str())
}

pub(super) fn kind_name(kind: ChecksumKind) -> dto::ChecksumType {
    dto::ChecksumType::from_static(kind.as_str())
}

/// The five checksum fields that many answers have.
#[derive(Debug, Default)]
pub(super) struct ChecksumFields {
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
    pub(super) kind: Option<dto::ChecksumType>,
}

impl ChecksumFields {
    pub(super) fn of(checksum: Option<&ObjectChecksum>) -> Self {
        let mut fields = Self::default();
        let Some(checksum) = checksum else {
            return fields;
        };
        let value = Some(checksum.to_header());
        match checksum.checksum.algorithm {
            ChecksumAlgorithm::Crc32 => fields.crc32 = value,
            ChecksumAlgorithm::Crc32c => fields.crc32c = value,
            ChecksumAlgorithm::Crc64Nvme => fields.crc64nvme = value,
            ChecksumAlgorithm::Sha1 => fields.sha1 = value,
            ChecksumAlgorithm::Sha256 => fields.sha256 = value,
        }
        fields.kind = Some(kind_name(checksum.kind));
        fields
    }
}

/// Fills the checksum fields of an answer, and its kind where it has one.
macro_rules! set_checksums {
    ($output:expr, $checksum:expr) => {{
        let fields = crate::s3::convert::ChecksumFields::of($checksum);
        $output.checksum_crc32 = fields.crc32;
        $output.checksum_crc32c = fields.crc32c;
        $output.checksum_crc64nvme = fields.crc64nvme;
        $output.checksum_sha1 = fields.sha1;
        $output.checksum_sha256 = fields.sha256;
        fields.kind
    }};
}
pub(super) use set_checksums;

/// The range a request wants. A header that is not a single byte range is ignored, as S3 does.
pub(super) fn range(headers: &HeaderMap) -> S3Result<Option<RangeRequest>> {
    Ok(header(headers, "range")?.and_then(RangeRequest::parse))
}

/// `x-amz-copy-source-range`, which unlike `Range` must have both ends and lie inside the source.
pub(super) fn copy_range(headers: &HeaderMap, length: u64) -> S3Result<std::ops::Range<u64>> {
    let Some(text) = header(headers, "x-amz-copy-source-range")? else {
        return Ok(0..length);
    };
    match RangeRequest::parse(text) {
        Some(RangeRequest::From {
            first,
            last: Some(last),
        }) => {
            if last >= length {
                return Err(s3_error!(
                    InvalidArgument,
                    "Range specified is not valid for source object of size: {length}"
                ));
            }
            Ok(first..last + 1)
        }
        _ => Err(error::invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy",
        )),
    }
}

/// A page size a client asked for, at most `most`; negative ones are refused.
pub(super) fn page_size(wanted: Option<i32>, most: usize, name: &'static str) -> S3Result<usize> {
    match wanted {
        None => Ok(most),
        Some(wanted) => usize::try_from(wanted)
            .map(|wanted| wanted.min(most))
            .map_err(|_| {
                s3_error!(
                    InvalidArgument,
                    "Argument {name} must be an integer between 0 and 2147483647"
                )
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_byte_ranges_count() {
        let from = |first, last| Some(RangeRequest::From { first, last });
        assert_eq!(RangeRequest::parse("bytes=0-4"), from(0, Some(4)));
        assert_eq!(RangeRequest::parse("bytes=7-"), from(7, None));
        assert_eq!(
            RangeRequest::parse("bytes=-9"),
            Some(RangeRequest::Suffix { length: 9 })
        );
        for ignored in [
            "bytes=0-1,3-4",
            "bytes=5-4",
            "items=0-4",
            "bytes=a-b",
            "bytes=-",
            "",
        ] {
            assert_eq!(RangeRequest::parse(ignored), None, "{ignored}");
        }
        assert_eq!(
            RangeRequest::parse("bytes=99999999999999999999-"),
            from(u64::MAX, None)
        );
    }

    #[test]
    fn aws_chunked_is_not_an_encoding_of_the_object() {
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", "gzip, aws-chunked".parse().unwrap());
        let found = object_headers(&headers, None).unwrap();
        assert_eq!(found.content_encoding.as_deref(), Some("gzip"));
        headers.insert("content-encoding", "deflate, gzip".parse().unwrap());
        let found = object_headers(&headers, None).unwrap();
        assert_eq!(found.content_encoding.as_deref(), Some("deflate, gzip"));
        headers.insert("content-encoding", "aws-chunked".parse().unwrap());
        let found = object_headers(&headers, None).unwrap();
        assert_eq!(found.content_encoding, None);
    }

    #[test]
    fn two_checksum_headers_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-checksum-crc32", "AAAAAA==".parse().unwrap());
        assert!(checksum_of(&headers).unwrap().is_some());
        headers.insert("x-amz-checksum-crc32c", "AAAAAA==".parse().unwrap());
        assert!(checksum_of(&headers).is_err());
    }
}
