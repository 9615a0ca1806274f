//! Who asks, and whether they may: the adapters between `s3s` and the authority.
//!
//! ```text
//!   Access::check --> Gateway::admit: who (key, token), signed headers, bucket, the operation's questions
//!                         |
//!                         v
//!   operation --> Gateway::ask: one more question (each key of a batch, the source of a copy, ...)
//!             --> Caller::recheck: the same questions for the commit, when the bucket has changed since
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

pub(super) use super::caller::{Caller, Named, values_of};
pub(super) use super::sent::Proof;
use super::sent::{Document, Sent, origin};
use super::signed::{check_signed_headers, proof_of};
use super::{Gateway, error, others};
use crate::auth::{Action, Facts, Identity, Target, TokenCheck, Verdict};
use crate::model::acl::Owner;
use crate::model::bucket::Bucket;
use crate::model::names::BucketName;
use crate::model::object::Tags;
use crate::telemetry::RequestContext;

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
    // Access
    ("GetBucketAcl", Action::GetBucketAcl, true),
    ("PutBucketAcl", Action::PutBucketAcl, true),
    ("GetObjectAcl", Action::GetObjectAcl, true),
    ("PutObjectAcl", Action::PutObjectAcl, true),
    ("GetBucketPolicy", Action::GetBucketPolicy, true),
    ("PutBucketPolicy", Action::PutBucketPolicy, true),
    ("DeleteBucketPolicy", Action::DeleteBucketPolicy, true),
    ("GetBucketPolicyStatus", Action::GetBucketPolicyStatus, true),
    (
        "GetPublicAccessBlock",
        Action::GetBucketPublicAccessBlock,
        true,
    ),
    (
        "PutPublicAccessBlock",
        Action::PutBucketPublicAccessBlock,
        true,
    ),
    (
        "DeletePublicAccessBlock",
        Action::PutBucketPublicAccessBlock,
        true,
    ),
    (
        "GetBucketOwnershipControls",
        Action::GetBucketOwnershipControls,
        true,
    ),
    (
        "PutBucketOwnershipControls",
        Action::PutBucketOwnershipControls,
        true,
    ),
    (
        "DeleteBucketOwnershipControls",
        Action::PutBucketOwnershipControls,
        true,
    ),
];

/// What an operation asks for besides, by what its headers set.
fn besides(operation: &str, headers: &HeaderMap) -> Vec<Action> {
    let has = |name: &str| headers.contains_key(name);
    let mut actions = Vec::new();
    let writes = matches!(
        operation,
        "PutObject" | "CopyObject" | "CreateMultipartUpload" | "PostObject"
    );
    if writes {
        let granted = headers
            .keys()
            .any(|name| name.as_str().starts_with("x-amz-grant-"));
        if has("x-amz-acl") || granted {
            actions.push(Action::PutObjectAcl);
        }
        if has("x-amz-tagging") {
            actions.push(Action::PutObjectTagging);
        }
        if has("x-amz-object-lock-mode") || has("x-amz-object-lock-retain-until-date") {
            actions.push(Action::PutObjectRetention);
        }
        if has("x-amz-object-lock-legal-hold") {
            actions.push(Action::PutObjectLegalHold);
        }
    }
    if operation == "GetObjectAttributes" {
        actions.push(Action::GetObjectAttributes);
    }
    let bypass = headers.get("x-amz-bypass-governance-retention");
    if bypass.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
        && operation != "DeleteObjects"
    {
        actions.push(Action::BypassGovernanceRetention);
    }
    actions
}

/// The condition keys whose values an operation's document holds.
fn document_of(operation: &str) -> Document {
    match operation {
        "PutObjectTagging" => Document::Unread(&["s3:requestobjecttag"]),
        "CreateBucket" => Document::Unread(&["s3:locationconstraint"]),
        "PutObjectRetention" | "PutObjectLegalHold" => Document::Unread(&["s3:object-lock-"]),
        _ => Document::None,
    }
}

/// What is asked, by whom, as far as the request says so.
pub(super) struct Asked<'r> {
    /// The operation's name.
    pub(super) operation: &'r str,
    /// The access key that signed; `None` for nobody.
    pub(super) access_key: Option<&'r str>,
    /// The bucket in the path or host.
    pub(super) bucket: Option<&'r str>,
    /// The key in the path.
    pub(super) key: Option<&'r str>,
    /// The request's headers.
    pub(super) headers: &'r HeaderMap,
    /// The request's query.
    pub(super) query: Option<&'r str>,
    /// Where the log learns of it.
    pub(super) context: Option<Arc<RequestContext>>,
}

/// A form, as far as permission is about it.
pub(super) struct Form<'r> {
    pub(super) bucket: &'r str,
    pub(super) key: &'r str,
    /// The fields that stand for headers.
    pub(super) headers: &'r HeaderMap,
    pub(super) tags: &'r Tags,
    /// The other end of the connection.
    pub(super) remote: Option<IpAddr>,
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
            key: cx.s3_path().get_object_key(),
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
        if let (Some(context), Some(access_key)) = (&asked.context, asked.access_key) {
            context.set_access_key(access_key);
        }
        let proof = match asked.access_key {
            None => Proof::None,
            Some(_) => proof_of(asked.headers),
        };
        let remote = asked.context.as_ref().and_then(|context| context.remote());
        let origin = origin(remote, asked.headers, &self.config.trusted_proxies);
        let now = self.namespace.now();
        let mut sent = Sent::new(asked.headers.clone(), asked.query, origin, now, proof);
        sent.document = document_of(asked.operation);
        refuse_unsigned_chunks(&sent)?;
        let identity = match asked.access_key {
            None => None,
            Some(access_key) => {
                check_signed_headers(asked.headers, asked.query, proof)?;
                let identity = self.identity(access_key).await?;
                check_token(&identity, &sent)?;
                Some(identity)
            }
        };
        // Names of buckets are public at S3: what is not there is said to anybody.
        let bucket = match (asked.bucket, operation) {
            (Some(name), Some((_, _, true))) => Some(self.bucket(name).await?),
            _ => None,
        };
        let Some(&(name, action, _)) = operation else {
            return Err(match identity {
                Some(_) => error::not_implemented(),
                None => error::access_denied(),
            });
        };
        let mut caller = Caller::new(identity, sent);
        caller.bucket = bucket;
        self.question(&mut caller, name, action, asked).await?;
        if unsupported.is_some() {
            return Err(error::not_implemented());
        }
        Ok(caller)
    }

    /// Decides about a form, whose signature and policy are verified.
    pub(super) async fn admit_form(
        &self,
        identity: Option<Arc<Identity>>,
        form: Form<'_>,
    ) -> S3Result<Caller> {
        let proof = match identity {
            Some(_) => Proof::Form,
            None => Proof::None,
        };
        let proxies = &self.config.trusted_proxies;
        let origin = origin(form.remote, form.headers, proxies);
        let now = self.namespace.now();
        let mut sent = Sent::new(form.headers.clone(), None, origin, now, proof);
        sent.document = Document::Read(values_of(form.tags));
        if let Some(identity) = &identity {
            check_token(identity, &sent)?;
        }
        let mut caller = Caller::new(identity, sent);
        let bucket = self.bucket(form.bucket).await?;
        caller.bucket = Some(Arc::clone(&bucket));
        let named = Some(Named {
            key: form.key,
            version: None,
        });
        let action = Action::PutObject;
        let mut answered = vec![self.ask(&caller, action, &bucket, named).await?];
        let mut actions = besides("PostObject", form.headers);
        if !form.tags.0.is_empty() {
            actions.push(Action::PutObjectTagging);
        }
        for action in actions {
            answered.push(self.ask_of_new(&caller, action, &bucket, named)?);
        }
        caller.answered = Arc::new(answered);
        Ok(caller)
    }

    /// Asks what an operation must be asked before its body is read.
    async fn question(
        &self,
        caller: &mut Caller,
        operation: &'static str,
        action: Action,
        asked: Asked<'_>,
    ) -> S3Result<()> {
        let Some(bucket) = caller.bucket.clone() else {
            let allowed = match operation {
                // Which buckets it shows is the operation's own question.
                "ListBuckets" => caller.identity.is_some(),
                "CreateBucket" => {
                    let target = Target::NewBucket(asked.bucket.unwrap_or_default());
                    let verdict = caller.decide(&self.authority, action, target, Facts::Unread);
                    verdict != Verdict::Denied
                }
                _ => caller.identity.is_some(),
            };
            return if allowed {
                Ok(())
            } else {
                Err(error::access_denied())
            };
        };
        let version = caller.sent.parameter("versionId");
        let named = asked.key.map(|key| Named {
            key,
            version: version.as_deref().filter(|version| !version.is_empty()),
        });
        let mut answered = Vec::new();
        // Each key of a batch is asked for itself.
        if operation != "DeleteObjects" {
            answered.push(self.ask(caller, action, &bucket, named).await?);
            for action in besides(operation, asked.headers) {
                let answer = match action {
                    // Of what is read, or of the versions that are in the way.
                    Action::GetObjectAttributes | Action::BypassGovernanceRetention => {
                        self.ask(caller, action, &bucket, named).await?
                    }
                    // Of the object that is to be.
                    _ => self.ask_of_new(caller, action, &bucket, named)?,
                };
                answered.push(answer);
            }
        }
        self.check_expected_owner(caller, &bucket, "x-amz-expected-bucket-owner")
            .await?;
        caller.answered = Arc::new(answered);
        Ok(())
    }

    /// Compares the owner that a request expects of a bucket.
    pub(super) async fn check_expected_owner(
        &self,
        caller: &Caller,
        bucket: &Bucket,
        header: &'static str,
    ) -> S3Result<()> {
        let Some(expected) = caller.sent.headers().get(header) else {
            return Ok(());
        };
        let owner = self.owner_of(bucket).await?;
        if expected.as_bytes() == owner.id.as_bytes() {
            Ok(())
        } else {
            Err(error::access_denied())
        }
    }

    /// Who owns a bucket.
    pub(super) async fn owner_of(&self, bucket: &Bucket) -> S3Result<Owner> {
        let tenant = self.authority.tenant(bucket.tenant).await;
        let tenant = tenant.map_err(error::of_fault)?;
        Ok(Owner {
            id: tenant.owner_id.clone(),
            name: tenant.name.clone(),
        })
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
        if let Some(identity) = found.map_err(error::of_fault)? {
            return Ok(identity);
        }
        let expired = self.authority.has_expired(access_key).await;
        Err(match expired.map_err(error::of_fault)? {
            true => s3_error!(ExpiredToken, "The provided token has expired."),
            false => error::unknown_access_key(),
        })
    }
}

/// Refuses a body in chunks that comes without a signature in the header: `s3s` takes chunks apart only for
/// those, and would store the framing of others with the bytes.
fn refuse_unsigned_chunks(sent: &Sent) -> S3Result<()> {
    let payload = sent.headers().get("x-amz-content-sha256");
    let chunked = payload.is_some_and(|value| value.as_bytes().starts_with(b"STREAMING-"));
    if chunked && sent.proof != Proof::Header {
        Err(error::not_implemented())
    } else {
        Ok(())
    }
}

/// Refuses a temporary key without its token, and a token that is not the key's.
pub(super) fn check_token(identity: &Identity, sent: &Sent) -> S3Result<()> {
    match identity.check_token(sent.token().as_deref()) {
        TokenCheck::Right => Ok(()),
        // A temporary key is nothing without its token: at AWS it is only there.
        TokenCheck::Missing => Err(error::unknown_access_key()),
        TokenCheck::Wrong => Err(s3_error!(
            InvalidToken,
            "The provided token is malformed or otherwise invalid."
        )),
    }
}
