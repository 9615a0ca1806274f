//! Access logs of buckets: where they go, and what of a request goes in.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use s3s::dto::*;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::answer::Target;
use super::{Gateway, convert, error};
use crate::model::bucket::Bucket;
use crate::model::logging::{KeyFormat, Line, LogGrant, Logging, operation};
use crate::model::names::BucketName;
use crate::namespace::Condition;
use crate::telemetry::{End, RequestContext};

/// Most bytes of a prefix: the rest of a key needs room too.
const PREFIX_MAX: usize = 800;

fn invalid_target(message: &'static str) -> s3s::S3Error {
    error::custom("InvalidTargetBucketForLogging", 400, message)
}

fn key_format(given: Option<TargetObjectKeyFormat>) -> S3Result<KeyFormat> {
    let Some(given) = given else {
        return Ok(KeyFormat::Unset);
    };
    match (given.simple_prefix, given.partitioned_prefix) {
        (Some(_), None) => Ok(KeyFormat::Simple),
        (None, Some(partitioned)) => {
            let source = partitioned.partition_date_source;
            match source.as_ref().map(PartitionDateSource::as_str) {
                Some("EventTime") => Ok(KeyFormat::ByEventTime),
                None | Some("DeliveryTime") => Ok(KeyFormat::ByDeliveryTime),
                Some(_) => Err(error::malformed_xml()),
            }
        }
        _ => Err(error::malformed_xml()),
    }
}

fn grant(given: TargetGrant) -> S3Result<LogGrant> {
    let grantee = given.grantee.ok_or_else(error::malformed_xml)?;
    let permission = given.permission.ok_or_else(error::malformed_xml)?;
    if !["FULL_CONTROL", "READ", "WRITE"].contains(&permission.as_str()) {
        return Err(error::malformed_xml());
    }
    Ok(LogGrant {
        kind: grantee.type_.as_str().to_owned(),
        id: grantee.id,
        name: grantee.display_name,
        email: grantee.email_address,
        uri: grantee.uri,
        permission: Some(permission.as_str().to_owned()),
    })
}

fn grant_out(grant: &LogGrant) -> TargetGrant {
    TargetGrant {
        grantee: Some(Grantee {
            type_: grant.kind.clone().into(),
            id: grant.id.clone(),
            display_name: grant.name.clone(),
            email_address: grant.email.clone(),
            uri: grant.uri.clone(),
        }),
        permission: grant.permission.clone().map(Into::into),
    }
}

fn logging_out(logging: &Logging) -> LoggingEnabled {
    let partitioned = |source: &'static str| TargetObjectKeyFormat {
        simple_prefix: None,
        partitioned_prefix: Some(PartitionedPrefix {
            partition_date_source: Some(PartitionDateSource::from_static(source)),
        }),
    };
    let grants = logging.grants.iter().map(grant_out);
    LoggingEnabled {
        target_bucket: logging.target.clone(),
        target_prefix: logging.prefix.clone(),
        target_grants: (!logging.grants.is_empty()).then(|| grants.collect()),
        target_object_key_format: match logging.key_format {
            KeyFormat::Unset => None,
            KeyFormat::Simple => Some(TargetObjectKeyFormat {
                simple_prefix: Some(SimplePrefix::default()),
                partitioned_prefix: None,
            }),
            KeyFormat::ByEventTime => Some(partitioned("EventTime")),
            KeyFormat::ByDeliveryTime => Some(partitioned("DeliveryTime")),
        },
    }
}

impl Gateway {
    pub(super) async fn put_bucket_logging(
        &self,
        request: S3Request<PutBucketLoggingInput>,
    ) -> S3Result<S3Response<PutBucketLoggingOutput>> {
        let caller = Caller::of(&request)?.clone();
        let bucket = caller.bucket()?;
        let logging = match request.input.bucket_logging_status.logging_enabled {
            None => None,
            Some(given) => Some(self.logging(bucket, given).await?),
        };
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.logging = logging.clone();
        })
        .await?;
        Ok(S3Response::new(PutBucketLoggingOutput::default()))
    }

    async fn logging(&self, bucket: &Bucket, given: LoggingEnabled) -> S3Result<Logging> {
        const MISSING: &str = "The target bucket for logging does not exist";
        let name = BucketName::parse(&given.target_bucket).map_err(|_| invalid_target(MISSING))?;
        let target = match self.namespace.bucket(&name).await {
            Ok(target) => target,
            Err(Condition::NoSuchBucket) => return Err(invalid_target(MISSING)),
            Err(condition) => return Err(error::of_condition(condition)),
        };
        if target.tenant != bucket.tenant {
            return Err(invalid_target(
                "The owner for the bucket to be logged and the target bucket must be the same.",
            ));
        }
        if given.target_prefix.len() > PREFIX_MAX {
            return Err(s3_error!(
                InvalidArgument,
                "The target prefix must not be longer than {PREFIX_MAX} bytes"
            ));
        }
        let grants = given.target_grants.unwrap_or_default().into_iter();
        Ok(Logging {
            target: given.target_bucket,
            prefix: given.target_prefix,
            key_format: key_format(given.target_object_key_format)?,
            grants: grants.map(grant).collect::<S3Result<_>>()?,
            owner: self.owner_of(bucket).await?.id,
        })
    }

    pub(super) async fn get_bucket_logging(
        &self,
        request: S3Request<GetBucketLoggingInput>,
    ) -> S3Result<S3Response<GetBucketLoggingOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        Ok(S3Response::new(GetBucketLoggingOutput {
            logging_enabled: bucket.settings.logging.as_ref().map(logging_out),
        }))
    }
}

/// What the log may need of a request, kept until it is known whether its bucket has a log.
pub(super) struct Seen {
    context: Arc<RequestContext>,
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    authorization: bool,
    has_body: bool,
}

impl Seen {
    /// Clones nothing but reference counts.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let get = |name| headers.get(name).cloned();
        Some(Self {
            context: request.extensions().get::<Arc<RequestContext>>().cloned()?,
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: get(header::HOST),
            referer: get(header::REFERER),
            agent: get(header::USER_AGENT),
            authorization: headers.contains_key(header::AUTHORIZATION),
            has_body: headers
                .get(header::CONTENT_LENGTH)
                .is_some_and(|length| length.as_bytes() != b"0"),
        })
    }

    /// Has the request written to the log of its bucket when it has ended, where there is one.
    pub(super) async fn log(self, gateway: &Arc<Gateway>, response: &Response<Body>) {
        let domains = &gateway.config.domains;
        let Some(target) = Target::of(self.uri.path(), self.host.as_ref(), domains) else {
            return;
        };
        // What is not there has no log, and looking for it would cost every such request a query.
        if target.bucket.is_empty() || self.context.error() == Some("NoSuchBucket") {
            return;
        }
        let Ok(name) = BucketName::parse(&target.bucket) else {
            return;
        };
        let Ok(bucket) = gateway.namespace.bucket(&name).await else {
            return;
        };
        let Some(logging) = &bucket.settings.logging else {
            return;
        };
        let context = Arc::clone(&self.context);
        let line = self.line(&logging.owner, target, gateway.namespace.now(), response);
        let gateway = Arc::clone(gateway);
        context.at_end(move |context, end: End| {
            let mut line = line;
            line.status = end.status;
            line.sent = end.sent;
            line.total_ms = millis(end.elapsed);
            if line.size.is_none() && line.request.starts_with("PUT ") && context.body_bytes() > 0 {
                line.size = Some(context.body_bytes());
            }
            gateway.namespace.log(&bucket, line.time, &line.write());
        });
    }

    fn line(
        self,
        owner: &str,
        target: Target,
        now: crate::model::clock::Millis,
        response: &Response<Body>,
    ) -> Line {
        let context = &self.context;
        let text = |value: &Option<HeaderValue>| {
            let bytes = value.as_ref().map(HeaderValue::as_bytes);
            String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
        };
        let elapsed = millis(context.started().elapsed());
        let id = context.id().to_string();
        let query = self.uri.query().unwrap_or_default();
        let presigned = query.contains("X-Amz-Signature=");
        let presigned_v2 = query.contains("Signature=") && query.contains("AWSAccessKeyId=");
        let (signature, authentication) = match (self.authorization, presigned, presigned_v2) {
            (true, _, _) => ("SigV4", "AuthHeader"),
            (false, true, _) => ("SigV4", "QueryString"),
            (false, false, true) => ("SigV2", "QueryString"),
            _ => ("", ""),
        };
        let version = form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "versionId")
            .map(|(_, value)| value.into_owned());
        Line {
            owner: owner.to_owned(),
            time: now - elapsed as i64,
            remote: context
                .remote()
                .map(|address| address.to_string())
                .unwrap_or_default(),
            requester: context.access_key().unwrap_or_default().to_owned(),
            operation: operation(
                self.method.as_str(),
                context.operation(),
                !target.key.is_empty(),
            ),
            bucket: target.bucket,
            key: target.key,
            request: format!(
                "{} {} HTTP/1.1",
                self.method,
                self.uri
                    .path_and_query()
                    .map_or("/", |target| target.as_str())
            ),
            status: response.status().as_u16(),
            error: context.error().unwrap_or_default().to_owned(),
            sent: 0,
            size: size_of(response.headers()),
            total_ms: elapsed,
            // Of an upload it is not known when its last byte came.
            turnaround_ms: (!self.has_body).then_some(elapsed),
            referer: text(&self.referer),
            agent: text(&self.agent),
            version: version.unwrap_or_default(),
            host_id: BASE64.encode(&id),
            request_id: id,
            signature,
            authentication,
            host: text(&self.host),
        }
    }
}

fn millis(elapsed: std::time::Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The size of the object that is read: of the whole one, also when a range of it is sent.
fn size_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(super::objects::UID_HEADER)?;
    let text = |name| convert::header(headers, name).ok().flatten();
    match text("content-range") {
        Some(range) => range.rsplit_once('/')?.1.parse().ok(),
        None => text("content-length")?
            .parse()
            .ok()
            .filter(|size| *size > 0),
    }
}
