//! The S3 protocol over the namespace.
//!
//! `s3s` parses requests, verifies signatures and writes XML; here every operation is translated to the
//! namespace's words and back. What clients see comes from their own bytes and our rows: no vendor's header,
//! error or ETag passes through.
//!
//! ```text
//!   Facade::call --> cors (preflights)
//!        +--> website (pages) --> access ------------------------+
//!        +--> post (browser forms) ------------------------------+
//!        |                                                       v
//!        +--> s3s --> access (who, may they) --> operations --> namespace
//!        |                                                       |
//!        +<-- answer (request id, resource) <-- error <----------+
//! ```

mod access;
mod acl;
mod answer;
mod body;
mod bucket_tagging;
mod buckets;
mod caller;
mod convert;
mod copy;
mod cors;
mod encryption;
mod error;
mod escape;
mod host;
mod lenient;
mod lifecycle;
mod listing;
mod lock;
mod logging;
mod multipart;
mod notification;
mod objects;
mod others;
mod policy;
mod post;
mod read;
mod sent;
mod signed;
mod sts;
mod tagging;
mod upload;
mod versioning;
mod website;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Method, Request, Response};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::*;
use s3s::host::MultiDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::auth::{Authority, Network};
use crate::http::{InBody, Refusal};
use crate::model::fault::{Fault, Kind};
use crate::model::lifecycle::Calendar;
use crate::namespace::Namespace;
use crate::telemetry::{Metrics, RequestContext};

/// Most bytes of an XML body: a DeleteObjects of 1000 keys of 1024 bytes, or a list of 10,000 parts.
const XML_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Settings of the protocol.
#[derive(Debug, Clone)]
pub struct Config {
    /// Domains under which buckets are addressed as host names; empty for path style alone.
    pub domains: Vec<String>,
    /// Domains under which buckets are served as websites; empty for none.
    pub website_domains: Vec<String>,
    /// The region this endpoint says it is in.
    pub region: String,
    /// Whether an upload of content that the caller has sent before is answered without its body.
    pub instant: bool,
    /// Most bytes of a file in a browser's form.
    pub max_post_bytes: u64,
    /// The names of the targets that events can be sent to.
    pub targets: BTreeSet<String>,
    /// What lifecycle rules count days by.
    pub calendar: Calendar,
    /// Whether customers' keys are refused where no proxy says that the client's connection is encrypted.
    pub customer_keys_need_https: bool,
    /// Proxies whose word on where a request came from is taken.
    pub trusted_proxies: Vec<Network>,
}

/// What a facade is made of.
pub struct Parts {
    /// Buckets, keys and uploads.
    pub namespace: Arc<Namespace>,
    /// Who may do what.
    pub authority: Arc<Authority>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Settings.
    pub config: Config,
}

/// The S3 endpoint.
pub struct Facade {
    service: S3Service,
    /// The same operations for who was let in already: what websites read with.
    admitted: S3Service,
    gateway: Arc<Gateway>,
}

/// What the operations share.
struct Gateway {
    namespace: Arc<Namespace>,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
    config: Config,
}

impl Facade {
    /// An endpoint over an open namespace. Fails with [`Kind::Config`] on a domain that is none.
    pub fn new(parts: Parts) -> Result<Self, Fault> {
        let gateway = Arc::new(Gateway {
            namespace: parts.namespace,
            authority: parts.authority,
            metrics: parts.metrics,
            config: parts.config,
        });
        if !gateway.config.domains.is_empty() {
            MultiDomain::new(&gateway.config.domains).map_err(|error| {
                Fault::new(Kind::Config, "read s3.domains").source(error.to_string())
            })?;
        }
        let mut builder = gateway.builder();
        builder.set_auth(access::Secrets(Arc::clone(&gateway)));
        builder.set_access(access::Access(Arc::clone(&gateway)));
        builder.set_route(lenient::Lenient {
            inner: gateway.builder().build(),
            gateway: Arc::clone(&gateway),
        });
        Ok(Self {
            service: builder.build(),
            admitted: gateway.builder().build(),
            gateway,
        })
    }
}

impl Gateway {
    /// The operations and their limits, without the checks of who asks.
    fn builder(self: &Arc<Self>) -> S3ServiceBuilder {
        let mut builder = S3ServiceBuilder::new(Operations(Arc::clone(self)));
        let mut limits = S3Config::default();
        limits.xml_max_body_size = XML_MAX_BYTES;
        // Forms never reach s3s: it would hold the file in memory.
        limits.post_object_max_file_size = 0;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits))));
        if !self.config.domains.is_empty() {
            builder.set_host(host::Hosts(self.config.domains.clone()));
        }
        builder
    }
}

impl Facade {
    async fn answer(&self, mut request: Request<InBody>) -> Response<s3s::Body> {
        let config = &self.gateway.config;
        let about = answer::About::of(&request, &config.domains);
        if request.method() == Method::OPTIONS {
            let response = cors::preflight(&self.gateway, &request).await;
            return about.finish(response).await;
        }
        if let Some(site) = website::Site::of(&request, &config.website_domains) {
            return site.serve(&self.gateway, &self.admitted, request).await;
        }
        if let Some(error) = signed::refuse_early(&request).or(others::refuse_path(&request)) {
            return about.finish(answer::of_error(error)).await;
        }
        signed::unfold_token(&mut request);
        signed::unfold_headers(&mut request);
        if let Some(form) = post::Form::of(&request, &config.domains) {
            let response = form.receive(&self.gateway, request).await;
            return about.finish(response).await;
        }
        let response = match self.service.call(body::bounded(request)).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(?error, "answer request");
                answer::of_error(s3s::s3_error!(InternalError))
            }
        };
        about.finish(response).await
    }
}

impl crate::http::Facade for Facade {
    type Body = s3s::Body;

    async fn call(&self, request: Request<InBody>) -> Response<s3s::Body> {
        let cross_origin = cors::CrossOrigin::of(&request, &self.gateway.config);
        let seen = logging::Seen::of(&request);
        let response = self.answer(request).await;
        let response = match cross_origin {
            Some(cross_origin) => cross_origin.mark(&self.gateway, response).await,
            None => response,
        };
        if let Some(seen) = seen {
            seen.log(&self.gateway, &response).await;
        }
        response
    }

    fn refuse(
        &self,
        context: &RequestContext,
        _path: &str,
        refusal: Refusal,
    ) -> Response<s3s::Body> {
        answer::of_refusal(context, refusal)
    }
}

/// The operations, as `s3s` wants them: a newtype because the trait and [`Gateway`] live in different crates.
struct Operations(Arc<Gateway>);

macro_rules! operations {
    ($($(#[$group:meta])* $name:ident($input:ty) -> $output:ty;)*) => {
        #[async_trait::async_trait]
        impl S3 for Operations {
            $($(#[$group])*
            async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.0.$name(request).await
            })*
        }
    };
}

operations! {
    // Buckets
    create_bucket(CreateBucketInput) -> CreateBucketOutput;
    head_bucket(HeadBucketInput) -> HeadBucketOutput;
    list_buckets(ListBucketsInput) -> ListBucketsOutput;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;

    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput;
    put_bucket_lifecycle_configuration(PutBucketLifecycleConfigurationInput) -> PutBucketLifecycleConfigurationOutput;
    delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput) -> GetBucketNotificationConfigurationOutput;
    put_bucket_notification_configuration(PutBucketNotificationConfigurationInput) -> PutBucketNotificationConfigurationOutput;
    get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput;
    put_bucket_logging(PutBucketLoggingInput) -> PutBucketLoggingOutput;
    get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput;
    put_bucket_encryption(PutBucketEncryptionInput) -> PutBucketEncryptionOutput;
    delete_bucket_encryption(DeleteBucketEncryptionInput) -> DeleteBucketEncryptionOutput;

    // Objects
    put_object(PutObjectInput) -> PutObjectOutput;
    get_object(GetObjectInput) -> GetObjectOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    copy_object(CopyObjectInput) -> CopyObjectOutput;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput;

    // Listing
    list_objects(ListObjectsInput) -> ListObjectsOutput;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;

    // Versions and what keeps them
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    put_bucket_versioning(PutBucketVersioningInput) -> PutBucketVersioningOutput;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput;
    get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput;
    put_object_lock_configuration(PutObjectLockConfigurationInput) -> PutObjectLockConfigurationOutput;
    get_object_retention(GetObjectRetentionInput) -> GetObjectRetentionOutput;
    put_object_retention(PutObjectRetentionInput) -> PutObjectRetentionOutput;
    get_object_legal_hold(GetObjectLegalHoldInput) -> GetObjectLegalHoldOutput;
    put_object_legal_hold(PutObjectLegalHoldInput) -> PutObjectLegalHoldOutput;

    // Multipart uploads
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    upload_part(UploadPartInput) -> UploadPartOutput;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    list_parts(ListPartsInput) -> ListPartsOutput;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;

    // Access
    get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput;
    put_bucket_acl(PutBucketAclInput) -> PutBucketAclOutput;
    get_object_acl(GetObjectAclInput) -> GetObjectAclOutput;
    put_object_acl(PutObjectAclInput) -> PutObjectAclOutput;
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput;
    put_bucket_policy(PutBucketPolicyInput) -> PutBucketPolicyOutput;
    delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput;
    get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput;
    get_public_access_block(GetPublicAccessBlockInput) -> GetPublicAccessBlockOutput;
    put_public_access_block(PutPublicAccessBlockInput) -> PutPublicAccessBlockOutput;
    delete_public_access_block(DeletePublicAccessBlockInput) -> DeletePublicAccessBlockOutput;
    get_bucket_ownership_controls(GetBucketOwnershipControlsInput) -> GetBucketOwnershipControlsOutput;
    put_bucket_ownership_controls(PutBucketOwnershipControlsInput) -> PutBucketOwnershipControlsOutput;
    delete_bucket_ownership_controls(DeleteBucketOwnershipControlsInput) -> DeleteBucketOwnershipControlsOutput;

    // Tags
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput;
    put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput;
    delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput;
    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput;
    put_bucket_tagging(PutBucketTaggingInput) -> PutBucketTaggingOutput;
    delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput;

    // Browsers
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput;
    put_bucket_cors(PutBucketCorsInput) -> PutBucketCorsOutput;
    delete_bucket_cors(DeleteBucketCorsInput) -> DeleteBucketCorsOutput;
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput;
    put_bucket_website(PutBucketWebsiteInput) -> PutBucketWebsiteOutput;
    delete_bucket_website(DeleteBucketWebsiteInput) -> DeleteBucketWebsiteOutput;

    // What is not here
    get_bucket_request_payment(GetBucketRequestPaymentInput) -> GetBucketRequestPaymentOutput;
    put_bucket_request_payment(PutBucketRequestPaymentInput) -> PutBucketRequestPaymentOutput;
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput) -> GetBucketAccelerateConfigurationOutput;
    put_bucket_accelerate_configuration(PutBucketAccelerateConfigurationInput) -> PutBucketAccelerateConfigurationOutput;
    get_bucket_replication(GetBucketReplicationInput) -> GetBucketReplicationOutput;
    delete_bucket_replication(DeleteBucketReplicationInput) -> DeleteBucketReplicationOutput;
    get_bucket_analytics_configuration(GetBucketAnalyticsConfigurationInput) -> GetBucketAnalyticsConfigurationOutput;
    get_bucket_inventory_configuration(GetBucketInventoryConfigurationInput) -> GetBucketInventoryConfigurationOutput;
    get_bucket_metrics_configuration(GetBucketMetricsConfigurationInput) -> GetBucketMetricsConfigurationOutput;
    get_bucket_intelligent_tiering_configuration(GetBucketIntelligentTieringConfigurationInput) -> GetBucketIntelligentTieringConfigurationOutput;
    delete_bucket_analytics_configuration(DeleteBucketAnalyticsConfigurationInput) -> DeleteBucketAnalyticsConfigurationOutput;
    delete_bucket_inventory_configuration(DeleteBucketInventoryConfigurationInput) -> DeleteBucketInventoryConfigurationOutput;
    delete_bucket_metrics_configuration(DeleteBucketMetricsConfigurationInput) -> DeleteBucketMetricsConfigurationOutput;
    delete_bucket_intelligent_tiering_configuration(DeleteBucketIntelligentTieringConfigurationInput) -> DeleteBucketIntelligentTieringConfigurationOutput;
    list_bucket_analytics_configurations(ListBucketAnalyticsConfigurationsInput) -> ListBucketAnalyticsConfigurationsOutput;
    list_bucket_inventory_configurations(ListBucketInventoryConfigurationsInput) -> ListBucketInventoryConfigurationsOutput;
    list_bucket_metrics_configurations(ListBucketMetricsConfigurationsInput) -> ListBucketMetricsConfigurationsOutput;
    list_bucket_intelligent_tiering_configurations(ListBucketIntelligentTieringConfigurationsInput) -> ListBucketIntelligentTieringConfigurationsOutput;
    restore_object(RestoreObjectInput) -> RestoreObjectOutput;
}
