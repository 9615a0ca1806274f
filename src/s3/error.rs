//! The one translation from what the domain answers to S3's error codes.
//!
//! The client gets S3's code and a text that names nothing of the stores; the log gets the fault with its
//! sources, once, here. "Busy, try again" and "broken" stay different answers.

use s3s::{S3Error, S3ErrorCode, s3_error};

use crate::http::BodyError;
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::names::NameError;
use crate::model::object::{TagError, VersionId};
use crate::namespace::{Condition, ReceiveError};

/// Seconds after which a client should try again.
const RETRY_AFTER: &str = "1";

/// An error with S3's code for which `s3s` has no name.
pub(super) fn custom(code: &'static str, status: u16, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    if let Ok(status) = http::StatusCode::from_u16(status) {
        error.set_status_code(status);
    }
    error
}

fn retry_later(code: S3ErrorCode, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(code, message);
    error.set_status_code(http::StatusCode::SERVICE_UNAVAILABLE);
    let mut headers = http::HeaderMap::new();
    headers.insert(
        http::header::RETRY_AFTER,
        http::HeaderValue::from_static(RETRY_AFTER),
    );
    error.set_headers(headers);
    error
}

/// 503 for what may succeed when it is tried again.
pub(super) fn slow_down() -> S3Error {
    retry_later(S3ErrorCode::SlowDown, "Please reduce your request rate.")
}

/// Translates a fault, and logs it: this is where it stops.
pub(super) fn of_fault(fault: Fault) -> S3Error {
    match fault.kind() {
        Kind::Busy => {
            tracing::debug!(%fault, "busy");
            slow_down()
        }
        Kind::Unavailable | Kind::Full => {
            tracing::warn!(%fault, "store unavailable");
            retry_later(
                S3ErrorCode::ServiceUnavailable,
                "Service is unable to handle request.",
            )
        }
        Kind::Unknown => {
            tracing::error!(%fault, "outcome unknown");
            // The database went away while it was asked: that is no bug of this server.
            retry_later(
                S3ErrorCode::ServiceUnavailable,
                "The outcome of the request is not known. Please check before you try again.",
            )
        }
        Kind::NotFound | Kind::Corrupt | Kind::Config | Kind::Internal => {
            tracing::error!(%fault, "request failed");
            s3_error!(
                InternalError,
                "We encountered an internal error. Please try again."
            )
        }
    }
}

/// Translates what the namespace answers.
pub(super) fn of_condition(condition: Condition) -> S3Error {
    match condition {
        Condition::NoSuchBucket => {
            s3_error!(NoSuchBucket, "The specified bucket does not exist")
        }
        Condition::BucketTaken => s3_error!(
            BucketAlreadyExists,
            "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again."
        ),
        Condition::BucketOwned => s3_error!(
            BucketAlreadyOwnedByYou,
            "Your previous request to create the named bucket succeeded and you already own it."
        ),
        Condition::BucketNotEmpty => s3_error!(
            BucketNotEmpty,
            "The bucket you tried to delete is not empty"
        ),
        Condition::NoSuchPlacement => no_such_location(),
        Condition::TooManyBuckets => s3_error!(
            TooManyBuckets,
            "You have attempted to create more buckets than allowed"
        ),
        Condition::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
        Condition::NoSuchVersion => {
            s3_error!(NoSuchVersion, "The specified version does not exist.")
        }
        Condition::Marker {
            id,
            modified,
            named,
        } => of_marker(id, modified, named),
        Condition::Locked => s3_error!(
            AccessDenied,
            "Access Denied because object protected by object lock."
        ),
        Condition::NoObjectLock => s3_error!(
            InvalidRequest,
            "Bucket is missing Object Lock Configuration"
        ),
        Condition::Denied => access_denied(),
        Condition::NoSuchUpload => s3_error!(
            NoSuchUpload,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
        ),
        Condition::PreconditionFailed => s3_error!(
            PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold"
        ),
        Condition::BadDigest => bad_digest(),
        Condition::InvalidPart { number } => s3_error!(
            InvalidPart,
            "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag. Part number {number}."
        ),
        Condition::InvalidPartOrder => s3_error!(
            InvalidPartOrder,
            "The list of parts was not in ascending order. Parts must be ordered by part number."
        ),
        Condition::PartTooSmall { number, size } => s3_error!(
            EntityTooSmall,
            "Your proposed upload is smaller than the minimum allowed size: part {number} has {size} bytes."
        ),
        Condition::NoParts => malformed_xml(),
        Condition::NoSuchPart => custom(
            "InvalidPartNumber",
            416,
            "The requested partnumber is not satisfiable",
        ),
        Condition::ChecksumMissing { number } => s3_error!(
            InvalidRequest,
            "The upload was created using a checksum algorithm. Part {number} is missing its checksum."
        ),
        Condition::WrongSize { size } => s3_error!(
            InvalidRequest,
            "The provided 'x-amz-mp-object-size' header value does not match what was computed: {size}"
        ),
        Condition::TooLarge => too_large(),
        Condition::ContentGone => slow_down(),
        Condition::Key(problem) => super::encryption::of_problem(problem),
        Condition::Fault(fault) => of_fault(fault),
    }
}

/// A delete marker: as good as no key where it is the current version, and nothing to read where it was named
/// ("Working with delete markers").
fn of_marker(id: VersionId, modified: Millis, named: bool) -> S3Error {
    let mut error = match named {
        true => s3_error!(
            MethodNotAllowed,
            "The specified method is not allowed against this resource."
        ),
        false => s3_error!(NoSuchKey, "The specified key does not exist."),
    };
    let mut headers = http::HeaderMap::new();
    headers.insert(
        "x-amz-delete-marker",
        http::HeaderValue::from_static("true"),
    );
    if let Ok(id) = http::HeaderValue::try_from(id.to_string()) {
        headers.insert("x-amz-version-id", id);
    }
    if named && let Some(date) = super::convert::http_date_header(modified) {
        headers.insert(http::header::LAST_MODIFIED, date);
    }
    error.set_headers(headers);
    error
}

/// The text that AWS answers an illegal copy onto itself with.
pub(super) fn copy_onto_itself() -> S3Error {
    s3_error!(
        InvalidRequest,
        "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."
    )
}

pub(super) fn bad_digest() -> S3Error {
    s3_error!(
        BadDigest,
        "The Content-MD5 or checksum value that you specified did not match what the server received."
    )
}

pub(super) fn too_large() -> S3Error {
    s3_error!(
        EntityTooLarge,
        "Your proposed upload exceeds the maximum allowed size"
    )
}

pub(super) fn malformed_xml() -> S3Error {
    s3_error!(
        MalformedXML,
        "The XML you provided was not well-formed or did not validate against our published schema"
    )
}

pub(super) fn invalid_argument(message: &'static str) -> S3Error {
    s3_error!(InvalidArgument, "{message}")
}

/// A location that is no region, or a placement that is not open.
pub(super) fn no_such_location() -> S3Error {
    s3_error!(
        InvalidLocationConstraint,
        "The specified location-constraint is not valid"
    )
}

pub(super) fn not_implemented() -> S3Error {
    s3_error!(
        NotImplemented,
        "A header or operation you provided implies functionality that is not implemented"
    )
}

pub(super) fn access_denied() -> S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

pub(super) fn unknown_access_key() -> S3Error {
    s3_error!(
        InvalidAccessKeyId,
        "The AWS Access Key Id you provided does not exist in our records."
    )
}

fn incomplete_body() -> S3Error {
    s3_error!(
        IncompleteBody,
        "You did not provide the number of bytes specified by the Content-Length HTTP header"
    )
}

pub(super) fn length_required() -> S3Error {
    s3_error!(
        MissingContentLength,
        "You must provide the Content-Length HTTP header."
    )
}

/// Translates why a body was not received.
pub(super) fn of_receive(error: ReceiveError) -> S3Error {
    match error {
        ReceiveError::TooLarge => too_large(),
        ReceiveError::WrongLength => incomplete_body(),
        ReceiveError::Fault(fault) => of_fault(fault),
        ReceiveError::Body(error) => of_body(error.as_ref()),
    }
}

/// Translates an error of a request body. `s3s` keeps the types of its stream errors to itself: they are told
/// apart by their fixed texts.
pub(super) fn of_body(error: &(dyn std::error::Error + 'static)) -> S3Error {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<BodyError>() {
            return of_listener(error);
        }
        cause = error.source();
    }
    let text = error.to_string();
    let says = |what: &str| text.contains(what);
    if says("A chunk of the request body") {
        s3_error!(
            InvalidRequest,
            "A chunk of the request body is larger than 16 MiB."
        )
    } else if says("Sha256Mismatch") {
        custom(
            "XAmzContentSHA256Mismatch",
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    } else if says("SignatureMismatch") {
        s3_error!(
            SignatureDoesNotMatch,
            "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        )
    } else if says("LengthMismatch") || says("Incomplete") {
        incomplete_body()
    } else if says("AwsChunkedStreamError") {
        s3_error!(
            InvalidRequest,
            "The body is not encoded as the request's headers say."
        )
    } else {
        tracing::debug!(error = %text, "request body failed");
        s3_error!(RequestTimeout, "The request body could not be read.")
    }
}

fn of_listener(error: &BodyError) -> S3Error {
    match error {
        BodyError::TooLarge => too_large(),
        BodyError::Stalled => s3_error!(
            RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period."
        ),
        BodyError::Disconnected(_) => incomplete_body(),
    }
}

/// Translates a refused name.
pub(super) fn of_name(error: NameError) -> S3Error {
    match error {
        NameError::Bucket => s3_error!(InvalidBucketName, "The specified bucket is not valid."),
        NameError::KeyTooLong => s3_error!(KeyTooLongError, "Your key is too long"),
        NameError::Key => s3_error!(
            InvalidArgument,
            "The key is empty or holds a NUL character."
        ),
    }
}

/// Translates refused tags.
pub(super) fn of_tags(error: TagError) -> S3Error {
    let message = match error {
        TagError::TooMany => {
            return custom("BadRequest", 400, "Object tags cannot be greater than 10");
        }
        TagError::Name => "The TagKey you have provided is invalid",
        TagError::Value => "The TagValue you have provided is invalid",
        TagError::Duplicate => "Cannot provide multiple Tags with the same key",
    };
    S3Error::with_message(S3ErrorCode::InvalidTag, message)
}
