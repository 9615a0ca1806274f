//! Who asks, and whether they may: the adapters between `s3s` and the authority.

use std::sync::Arc;

use http::{HeaderMap, Request};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3Request, S3Result, s3_error};

use super::{Gateway, error, others};
use crate::auth::{Action, Identity, Principal, Resource};
use crate::model::bucket::Bucket;
use crate::model::digest::Sha256Digest;
use crate::model::ids::SenderId;
use crate::model::names::BucketName;
use crate::namespace::Condition;
use crate::telemetry::RequestContext;

/// Longest life of a presigned URL.
const PRESIGNED_MAX_SECONDS: i64 = 7 * 24 * 3600;

/// Looks up the secret halves of access keys.
pub(super) struct Secrets(pub(super) Arc<Gateway>);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let identity = self.0.identity(access_key).await?;
        Ok(SecretKey::from(identity.secret.reveal()))
    }
}

/// Decides about every operation before its body is read.
pub(super) struct Access(pub(super) Arc<Gateway>);

/// How a request proved who it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A signature in the `Authorization` header: the key's holder sent this request itself.
    Header,
    /// A presigned URL or form: the key's holder let somebody send it.
    Handed,
}

/// Who asks, about which bucket; put into the request once it may go on.
#[derive(Clone)]
pub(super) struct Caller {
    /// The holder of the access key.
    pub(super) identity: Arc<Identity>,
    /// How it proved so.
    pub(super) proof: Proof,
    /// The bucket of the request's path, where the operation needs one that exists.
    bucket: Option<Arc<Bucket>>,
}

impl Caller {
    pub(super) fn new(identity: Arc<Identity>, proof: Proof, bucket: Option<Arc<Bucket>>) -> Self {
        Self {
            identity,
            proof,
            bucket,
        }
    }

    /// Who passed the access check of this request.
    pub(super) fn of<T>(request: &S3Request<T>) -> S3Result<&Self> {
        request
            .extensions
            .get::<Self>()
            .ok_or_else(|| s3_error!(InternalError, "The request was not checked."))
    }

    /// The bucket of the request's path.
    pub(super) fn bucket(&self) -> S3Result<&Arc<Bucket>> {
        self.bucket
            .as_ref()
            .ok_or_else(|| error::of_condition(Condition::NoSuchBucket))
    }

    /// The access key that gains possession of what this request sends: only its holder's own requests.
    pub(super) fn sender(&self) -> Option<SenderId> {
        (self.proof == Proof::Header).then_some(self.identity.sender)
    }
}

/// One operation: its name, what it asks permission for, and whether its bucket must exist.
pub(super) type Operation = (&'static str, Action, bool);

/// The operations there are; any other is not implemented.
const OPERATIONS: &[Operation] = &[
    ("GetObject", Action::GetObject, true),
    ("HeadObject", Action::GetObject, true),
    ("PutObject", Action::PutObject, true),
    ("UploadPart", Action::PutObject, true),
    ("ListObjectsV2", Action::ListBucket, true),
    ("ListObjects", Action::ListBucket, true),
    ("DeleteObject", Action::DeleteObject, true),
    ("DeleteObjects", Action::DeleteObject, true),
    ("CopyObject", Action::PutObject, true),
    ("GetObjectAttributes", Action::GetObject, true),
    ("CreateMultipartUpload", Action::PutObject, true),
    ("UploadPartCopy", Action::PutObject, true),
    ("CompleteMultipartUpload", Action::PutObject, true),
    ("AbortMultipartUpload", Action::AbortMultipartUpload, true),
    ("ListParts", Action::ListMultipartUploadParts, true),
    (
        "ListMultipartUploads",
        Action::ListBucketMultipartUploads,
        true,
    ),
    ("GetObjectTagging", Action::GetObjectTagging, true),
    ("PutObjectTagging", Action::PutObjectTagging, true),
    ("DeleteObjectTagging", Action::DeleteObjectTagging, true),
    ("GetBucketVersioning", Action::GetBucketVersioning, true),
    ("PutBucketVersioning", Action::PutBucketVersioning, true),
    ("ListObjectVersions", Action::ListBucketVersions, true),
    (
        "GetObjectLockConfiguration",
        Action::GetBucketObjectLockConfiguration,
        true,
    ),
    (
        "PutObjectLockConfiguration",
        Action::PutBucketObjectLockConfiguration,
        true,
    ),
    ("GetObjectRetention", Action::GetObjectRetention, true),
    ("PutObjectRetention", Action::PutObjectRetention, true),
    ("GetObjectLegalHold", Action::GetObjectLegalHold, true),
    ("PutObjectLegalHold", Action::PutObjectLegalHold, true),
    (
        "GetBucketLifecycleConfiguration",
        Action::GetLifecycleConfiguration,
        true,
    ),
    (
        "PutBucketLifecycleConfiguration",
        Action::PutLifecycleConfiguration,
        true,
    ),
    (
        "DeleteBucketLifecycle",
        Action::PutLifecycleConfiguration,
        true,
    ),
    (
        "GetBucketNotificationConfiguration",
        Action::GetBucketNotification,
        true,
    ),
    (
        "PutBucketNotificationConfiguration",
        Action::PutBucketNotification,
        true,
    ),
    ("GetBucketLogging", Action::GetBucketLogging, true),
    ("PutBucketLogging", Action::PutBucketLogging, true),
    (
        "GetBucketEncryption",
        Action::GetEncryptionConfiguration,
        true,
    ),
    (
        "PutBucketEncryption",
        Action::PutEncryptionConfiguration,
        true,
    ),
    (
        "DeleteBucketEncryption",
        Action::PutEncryptionConfiguration,
        true,
    ),
    ("HeadBucket", Action::ListBucket, true),
    ("ListBuckets", Action::ListAllMyBuckets, false),
    ("CreateBucket", Action::CreateBucket, false),
    ("DeleteBucket", Action::DeleteBucket, true),
    ("GetBucketLocation", Action::GetBucketLocation, true),
    ("GetBucketTagging", Action::GetBucketTagging, true),
    ("PutBucketTagging", Action::PutBucketTagging, true),
    ("DeleteBucketTagging", Action::PutBucketTagging, true),
    ("GetBucketCors", Action::GetBucketCORS, true),
    ("PutBucketCors", Action::PutBucketCORS, true),
    ("DeleteBucketCors", Action::PutBucketCORS, true),
    ("GetBucketWebsite", Action::GetBucketWebsite, true),
    ("PutBucketWebsite", Action::PutBucketWebsite, true),
    ("DeleteBucketWebsite", Action::DeleteBucketWebsite, true),
    (
        "GetBucketRequestPayment",
        Action::GetBucketRequestPayment,
        true,
    ),
    (
        "PutBucketRequestPayment",
        Action::PutBucketRequestPayment,
        true,
    ),
    (
        "GetBucketAccelerateConfiguration",
        Action::GetAccelerateConfiguration,
        true,
    ),
    (
        "PutBucketAccelerateConfiguration",
        Action::PutAccelerateConfiguration,
        true,
    ),
    (
        "GetBucketReplication",
        Action::GetReplicationConfiguration,
        true,
    ),
    (
        "DeleteBucketReplication",
        Action::PutReplicationConfiguration,
        true,
    ),
    (
        "GetBucketAnalyticsConfiguration",
        Action::GetAnalyticsConfiguration,
        true,
    ),
    (
        "DeleteBucketAnalyticsConfiguration",
        Action::PutAnalyticsConfiguration,
        true,
    ),
    (
        "ListBucketAnalyticsConfigurations",
        Action::GetAnalyticsConfiguration,
        true,
    ),
    (
        "GetBucketInventoryConfiguration",
        Action::GetInventoryConfiguration,
        true,
    ),
    (
        "DeleteBucketInventoryConfiguration",
        Action::PutInventoryConfiguration,
        true,
    ),
    (
        "ListBucketInventoryConfigurations",
        Action::GetInventoryConfiguration,
        true,
    ),
    (
        "GetBucketMetricsConfiguration",
        Action::GetMetricsConfiguration,
        true,
    ),
    (
        "DeleteBucketMetricsConfiguration",
        Action::PutMetricsConfiguration,
        true,
    ),
    (
        "ListBucketMetricsConfigurations",
        Action::GetMetricsConfiguration,
        true,
    ),
    (
        "GetBucketIntelligentTieringConfiguration",
        Action::GetIntelligentTieringConfiguration,
        true,
    ),
    (
        "DeleteBucketIntelligentTieringConfiguration",
        Action::PutIntelligentTieringConfiguration,
        true,
    ),
    (
        "ListBucketIntelligentTieringConfigurations",
        Action::GetIntelligentTieringConfiguration,
        true,
    ),
    ("RestoreObject", Action::RestoreObject, true),
];

/// What is asked, by whom, as far as the request says so.
pub(super) struct Asked<'r> {
    /// The operation's name.
    pub(super) operation: &'r str,
    /// The access key that signed; `None` for nobody.
    pub(super) access_key: Option<&'r str>,
    /// The bucket in the path or host.
    pub(super) bucket: Option<&'r str>,
    /// The request's headers.
    pub(super) headers: &'r HeaderMap,
    /// The request's query.
    pub(super) query: Option<&'r str>,
    /// Where the log learns of it.
    pub(super) context: Option<Arc<RequestContext>>,
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let context = cx.extensions_mut().get::<Arc<RequestContext>>().cloned();
        others::refuse_misread(cx.s3_op().name(), cx.uri().query())?;
        let asked = Asked {
            operation: cx.s3_op().name(),
            access_key: cx
                .credentials()
                .map(|credentials| credentials.access_key.as_str()),
            bucket: cx.s3_path().get_bucket_name(),
            headers: cx.headers(),
            query: cx.uri().query(),
            context,
        };
        let caller = self.0.admit(asked).await?;
        cx.extensions_mut().insert(caller);
        Ok(())
    }
}

impl Gateway {
    /// Decides about a request whose signature is verified.
    pub(super) async fn admit(&self, asked: Asked<'_>) -> S3Result<Caller> {
        let find = |operations: &'static [Operation]| {
            operations
                .iter()
                .find(|(name, _, _)| *name == asked.operation)
        };
        let unsupported = find(others::UNSUPPORTED);
        let operation = find(OPERATIONS).or(unsupported);
        if let (Some(context), Some((name, _, _))) = (&asked.context, operation) {
            context.set_operation(name);
        }
        let Some(access_key) = asked.access_key else {
            // Names of buckets are public at S3: what is not there is said to anybody.
            if let (Some(name), Some((_, _, true))) = (asked.bucket, operation) {
                self.bucket(name).await?;
            }
            return Err(error::access_denied());
        };
        if let Some(context) = &asked.context {
            context.set_access_key(access_key);
        }
        let Some(&(_, action, needs_bucket)) = operation else {
            return Err(error::not_implemented());
        };
        let proof = proof_of(asked.headers);
        check_signed_headers(asked.headers, asked.query, proof)?;
        let identity = self.identity(access_key).await?;
        let bucket = match asked.bucket {
            Some(name) if needs_bucket => Some(self.bucket(name).await?),
            _ => None,
        };
        self.authorize(&identity, action, bucket.as_deref())?;
        check_expected_owner(asked.headers, &identity)?;
        if unsupported.is_some() {
            return Err(error::not_implemented());
        }
        Ok(Caller::new(identity, proof, bucket))
    }

    /// A bucket by the name in a request.
    pub(super) async fn bucket(&self, name: &str) -> S3Result<Arc<Bucket>> {
        let name = BucketName::parse(name).map_err(error::of_name)?;
        let found = self.namespace.bucket(&name).await;
        found.map_err(error::of_condition)
    }

    /// The holder of an access key.
    pub(super) async fn identity(&self, access_key: &str) -> S3Result<Arc<Identity>> {
        let found = self.authority.identity(access_key).await;
        found.map_err(error::of_fault)?.ok_or_else(|| {
            s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )
        })
    }

    /// The one question of permission, also asked for every key of a batch and every source of a copy.
    pub(super) fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        bucket: Option<&Bucket>,
    ) -> S3Result<()> {
        let resource = Resource {
            owner: bucket.map(|bucket| bucket.tenant),
        };
        self.authority
            .authorize(&Principal::Key(identity), action, &resource)
            .map_err(error::of_denied)
    }
}

/// Only the caller's own buckets can be reached, so the owner a request expects must be the caller.
fn check_expected_owner(headers: &HeaderMap, identity: &Identity) -> S3Result<()> {
    let expected = [
        "x-amz-expected-bucket-owner",
        "x-amz-source-expected-bucket-owner",
    ];
    let differs = expected.iter().any(|name| {
        headers
            .get(*name)
            .is_some_and(|value| value.as_bytes() != identity.tenant.owner_id.as_bytes())
    });
    if differs {
        Err(error::access_denied())
    } else {
        Ok(())
    }
}

fn proof_of(headers: &HeaderMap) -> Proof {
    if headers.contains_key(http::header::AUTHORIZATION) {
        Proof::Header
    } else {
        Proof::Handed
    }
}

/// The names in `SignedHeaders`, of the header or of a presigned URL's query.
fn signed_headers(headers: &HeaderMap, query: Option<&str>, proof: Proof) -> Option<String> {
    match proof {
        Proof::Header => {
            let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
            let list = value.split("SignedHeaders=").nth(1)?;
            Some(list.split(',').next()?.trim().to_ascii_lowercase())
        }
        Proof::Handed => form_urlencoded::parse(query?.as_bytes())
            .find(|(name, _)| name.eq_ignore_ascii_case("X-Amz-SignedHeaders"))
            .map(|(_, value)| value.to_ascii_lowercase()),
    }
}

/// Refuses `x-amz-*` headers that the signature does not cover: somebody may have added them on the way.
/// A presigned URL need not cover `x-amz-content-sha256`, which clients add by themselves and which can only
/// make the request fail.
fn check_signed_headers(headers: &HeaderMap, query: Option<&str>, proof: Proof) -> S3Result<()> {
    let Some(signed) = signed_headers(headers, query, proof) else {
        return Ok(());
    };
    let covered = |name: &str| signed.split(';').any(|entry| entry == name);
    for name in headers.keys() {
        let name = name.as_str();
        let exempt = proof == Proof::Handed && name == "x-amz-content-sha256";
        if name.starts_with("x-amz-") && !exempt && !covered(name) {
            return Err(s3_error!(
                AccessDenied,
                "There were headers present in the request which were not signed"
            ));
        }
    }
    Ok(())
}

/// The SHA-256 of the body that the signature in the header covers, in either of the two headers that can
/// carry it. `true`: `s3s` verifies it while the body streams.
pub(super) fn signed_sha256(headers: &HeaderMap) -> Option<(Sha256Digest, bool)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(digest) = text("x-amz-content-sha256").and_then(Sha256Digest::from_hex) {
        return Some((digest, true));
    }
    let checksum = crate::model::digest::Checksum::parse(
        crate::model::digest::ChecksumAlgorithm::Sha256,
        text("x-amz-checksum-sha256")?,
    )?;
    Some((Sha256Digest(checksum.value.try_into().ok()?), false))
}

/// Refuses what `s3s` would accept and we do not: signature version 2 in the header, which signs with SHA-1
/// and which no SDK of today sends, and presigned URLs that live longer than a week. Version 2 in a presigned
/// URL is let through: boto3 still makes such URLs by default for an endpoint that is not AWS's.
pub(super) fn refuse_early<B>(request: &Request<B>) -> Option<S3Error> {
    let header = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .is_some_and(|value| value.as_bytes().starts_with(b"AWS "));
    if header {
        return Some(s3_error!(
            InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        ));
    }
    let query = request.uri().query()?;
    let lifetime = form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "X-Amz-Expires")
        .map(|(_, value)| value.parse::<i64>());
    match lifetime? {
        Ok(seconds) if (0..=PRESIGNED_MAX_SECONDS).contains(&seconds) => None,
        _ => Some(error::custom(
            "AuthorizationQueryParametersError",
            400,
            "X-Amz-Expires must be a number from 0 to a week in seconds: 604800",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn an_unsigned_amz_header_is_refused() {
        let authorization = "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00";
        let signed = headers(&[("authorization", authorization), ("x-amz-date", "d")]);
        assert!(check_signed_headers(&signed, None, Proof::Header).is_ok());
        let added = headers(&[("authorization", authorization), ("x-amz-acl", "private")]);
        assert!(check_signed_headers(&added, None, Proof::Header).is_err());
    }

    #[test]
    fn a_presigned_url_covers_its_amz_headers_but_the_payload_hash() {
        let query = Some("X-Amz-SignedHeaders=host%3Bx-amz-meta-a&X-Amz-Signature=0");
        let fine = headers(&[
            ("x-amz-meta-a", "1"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ]);
        assert!(check_signed_headers(&fine, query, Proof::Handed).is_ok());
        let added = headers(&[("x-amz-meta-b", "1")]);
        assert!(check_signed_headers(&added, query, Proof::Handed).is_err());
    }

    #[test]
    fn version_2_headers_and_long_lived_urls_are_refused() {
        let refused =
            |request: http::request::Builder| refuse_early(&request.body(()).unwrap()).is_some();
        assert!(refused(
            Request::get("/b/k").header("authorization", "AWS A:s")
        ));
        assert!(!refused(Request::get(
            "/b/k?AWSAccessKeyId=A&Signature=s&Expires=1"
        )));
        assert!(!refused(Request::get("/b/k?X-Amz-Expires=604800")));
        assert!(refused(Request::get("/b/k?X-Amz-Expires=604801")));
        assert!(refused(Request::get("/b/k?X-Amz-Expires=-1")));
        assert!(refused(Request::get("/b/k?X-Amz-Expires=soon")));
    }
}
