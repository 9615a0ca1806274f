//! Calls about what is not here: acceleration, replication, reports, archives and the calls of other services.
//!
//! A bucket is answered as AWS answers for one that never had such a setting; what would set one is not
//! implemented. Nothing is accepted that would then not happen.

use http::Request;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::access::{Caller, Operation};
use super::{Gateway, convert, error};
use crate::auth::Action;

/// The calls that are not implemented, for whoever would be allowed to make them.
pub(super) const UNSUPPORTED: &[Operation] = &[
    (
        "PutBucketReplication",
        Action::PutReplicationConfiguration,
        true,
    ),
    (
        "PutBucketAnalyticsConfiguration",
        Action::PutAnalyticsConfiguration,
        true,
    ),
    (
        "PutBucketInventoryConfiguration",
        Action::PutInventoryConfiguration,
        true,
    ),
    (
        "PutBucketMetricsConfiguration",
        Action::PutMetricsConfiguration,
        true,
    ),
    (
        "PutBucketIntelligentTieringConfiguration",
        Action::PutIntelligentTieringConfiguration,
        true,
    ),
    (
        "CreateBucketMetadataTableConfiguration",
        Action::CreateBucketMetadataTableConfiguration,
        true,
    ),
    (
        "GetBucketMetadataTableConfiguration",
        Action::GetBucketMetadataTableConfiguration,
        true,
    ),
    (
        "DeleteBucketMetadataTableConfiguration",
        Action::DeleteBucketMetadataTableConfiguration,
        true,
    ),
    ("CreateSession", Action::ListBucket, true),
    ("GetObjectTorrent", Action::GetObjectTorrent, true),
    ("SelectObjectContent", Action::GetObject, true),
    ("ListDirectoryBuckets", Action::ListAllMyBuckets, false),
];

/// Where the answer of an object's transformation is sent. No bucket can have this name.
const WRITE_GET_OBJECT_RESPONSE: &str = "/WriteGetObjectResponse";

/// Sub-resources of calls that `s3s` does not know.
const UNKNOWN: [&str; 7] = [
    "abac",
    "annotation",
    "metadataAnnotationTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "renameObject",
];

/// Sub-resources: a query that names one is never about the bucket or object itself.
const SUB_RESOURCES: [&str; 34] = [
    "accelerate",
    "acl",
    "analytics",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versioning",
    "versions",
    "website",
];

/// What `s3s` takes a request for when its query says nothing to it.
const PLAIN: [&str; 7] = [
    "CreateBucket",
    "DeleteBucket",
    "ListObjects",
    "PutObject",
    "CopyObject",
    "GetObject",
    "DeleteObject",
];

fn names_any(query: Option<&str>, names: &[&str]) -> bool {
    query.is_some_and(|query| {
        form_urlencoded::parse(query.as_bytes()).any(|(name, _)| names.contains(&&*name))
    })
}

/// Whether a query names a sub-resource.
pub(super) fn names_sub_resource(query: Option<&str>) -> bool {
    names_any(query, &SUB_RESOURCES) || names_any(query, &UNKNOWN)
}

/// Refuses a request that `s3s` takes for one about a bucket or object itself, although its query names a
/// sub-resource: `DELETE /bucket?logging` must not delete the bucket.
pub(super) fn refuse_misread(operation: &str, query: Option<&str>) -> S3Result<()> {
    if query.is_none() || !PLAIN.contains(&operation) {
        Ok(())
    } else if names_any(query, &UNKNOWN)
        || (operation == "PutObject" && names_any(query, &["encryption"]))
    {
        Err(error::not_implemented())
    } else if names_any(query, &SUB_RESOURCES) {
        Err(s3_error!(
            MethodNotAllowed,
            "The specified method is not allowed against this resource."
        ))
    } else {
        Ok(())
    }
}

/// Refuses the one call whose path is no bucket's.
pub(super) fn refuse_path<B>(request: &Request<B>) -> Option<S3Error> {
    (request.uri().path() == WRITE_GET_OBJECT_RESPONSE).then(error::not_implemented)
}

fn no_such_configuration() -> S3Error {
    error::custom(
        "NoSuchConfiguration",
        404,
        "The specified configuration does not exist.",
    )
}

/// The calls about reports and tiers that a bucket has by id: none of them is there.
macro_rules! no_configurations {
    ($($name:ident($input:ident) -> $output:ident;)*) => {
        impl Gateway {
            $(pub(super) async fn $name(
                &self,
                request: S3Request<$input>,
            ) -> S3Result<S3Response<$output>> {
                Caller::of(&request)?.bucket()?;
                Err(no_such_configuration())
            })*
        }
    };
}

no_configurations! {
    get_bucket_analytics_configuration(GetBucketAnalyticsConfigurationInput) -> GetBucketAnalyticsConfigurationOutput;
    get_bucket_inventory_configuration(GetBucketInventoryConfigurationInput) -> GetBucketInventoryConfigurationOutput;
    get_bucket_metrics_configuration(GetBucketMetricsConfigurationInput) -> GetBucketMetricsConfigurationOutput;
    get_bucket_intelligent_tiering_configuration(GetBucketIntelligentTieringConfigurationInput) -> GetBucketIntelligentTieringConfigurationOutput;
    delete_bucket_analytics_configuration(DeleteBucketAnalyticsConfigurationInput) -> DeleteBucketAnalyticsConfigurationOutput;
    delete_bucket_inventory_configuration(DeleteBucketInventoryConfigurationInput) -> DeleteBucketInventoryConfigurationOutput;
    delete_bucket_metrics_configuration(DeleteBucketMetricsConfigurationInput) -> DeleteBucketMetricsConfigurationOutput;
    delete_bucket_intelligent_tiering_configuration(DeleteBucketIntelligentTieringConfigurationInput) -> DeleteBucketIntelligentTieringConfigurationOutput;
}

/// Their lists: empty, and whole.
macro_rules! empty_lists {
    ($($name:ident($input:ident) -> $output:ident;)*) => {
        impl Gateway {
            $(pub(super) async fn $name(
                &self,
                request: S3Request<$input>,
            ) -> S3Result<S3Response<$output>> {
                Caller::of(&request)?.bucket()?;
                Ok(S3Response::new($output {
                    is_truncated: Some(false),
                    ..$output::default()
                }))
            })*
        }
    };
}

empty_lists! {
    list_bucket_analytics_configurations(ListBucketAnalyticsConfigurationsInput) -> ListBucketAnalyticsConfigurationsOutput;
    list_bucket_inventory_configurations(ListBucketInventoryConfigurationsInput) -> ListBucketInventoryConfigurationsOutput;
    list_bucket_metrics_configurations(ListBucketMetricsConfigurationsInput) -> ListBucketMetricsConfigurationsOutput;
    list_bucket_intelligent_tiering_configurations(ListBucketIntelligentTieringConfigurationsInput) -> ListBucketIntelligentTieringConfigurationsOutput;
}

impl Gateway {
    pub(super) async fn get_bucket_request_payment(
        &self,
        request: S3Request<GetBucketRequestPaymentInput>,
    ) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
        Caller::of(&request)?.bucket()?;
        Ok(S3Response::new(GetBucketRequestPaymentOutput {
            payer: Some(Payer::from_static(Payer::BUCKET_OWNER)),
        }))
    }

    /// There is nothing to pay: that the owner does is how it is.
    pub(super) async fn put_bucket_request_payment(
        &self,
        request: S3Request<PutBucketRequestPaymentInput>,
    ) -> S3Result<S3Response<PutBucketRequestPaymentOutput>> {
        Caller::of(&request)?.bucket()?;
        match request.input.request_payment_configuration.payer.as_str() {
            Payer::BUCKET_OWNER => Ok(S3Response::new(PutBucketRequestPaymentOutput::default())),
            Payer::REQUESTER => Err(error::not_implemented()),
            _ => Err(error::malformed_xml()),
        }
    }

    pub(super) async fn get_bucket_accelerate_configuration(
        &self,
        request: S3Request<GetBucketAccelerateConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketAccelerateConfigurationOutput>> {
        let suspended = Caller::of(&request)?
            .bucket()?
            .settings
            .acceleration_suspended;
        Ok(S3Response::new(GetBucketAccelerateConfigurationOutput {
            status: suspended
                .then(|| BucketAccelerateStatus::from_static(BucketAccelerateStatus::SUSPENDED)),
            request_charged: None,
        }))
    }

    pub(super) async fn put_bucket_accelerate_configuration(
        &self,
        request: S3Request<PutBucketAccelerateConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketAccelerateConfigurationOutput>> {
        let caller = Caller::of(&request)?;
        let wanted = request.input.accelerate_configuration.status.as_ref();
        match wanted.map(BucketAccelerateStatus::as_str) {
            Some(BucketAccelerateStatus::SUSPENDED) => {}
            Some(BucketAccelerateStatus::ENABLED) => return Err(error::not_implemented()),
            _ => return Err(error::malformed_xml()),
        }
        self.change_bucket(caller, |bucket| {
            bucket.settings.acceleration_suspended = true
        })
        .await?;
        Ok(S3Response::new(
            PutBucketAccelerateConfigurationOutput::default(),
        ))
    }

    pub(super) async fn get_bucket_replication(
        &self,
        request: S3Request<GetBucketReplicationInput>,
    ) -> S3Result<S3Response<GetBucketReplicationOutput>> {
        Caller::of(&request)?.bucket()?;
        Err(error::custom(
            "ReplicationConfigurationNotFoundError",
            404,
            "The replication configuration was not found",
        ))
    }

    /// Succeeds for a bucket without one, as at AWS.
    pub(super) async fn delete_bucket_replication(
        &self,
        request: S3Request<DeleteBucketReplicationInput>,
    ) -> S3Result<S3Response<DeleteBucketReplicationOutput>> {
        Caller::of(&request)?.bucket()?;
        Ok(S3Response::new(DeleteBucketReplicationOutput::default()))
    }

    /// No object is in an archive.
    pub(super) async fn restore_object(
        &self,
        request: S3Request<RestoreObjectInput>,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let key = convert::object_key(&request.input.key)?;
        let version = convert::version_id(request.input.version_id.as_deref())?;
        self.namespace
            .head(bucket, &key, version)
            .await
            .map_err(error::of_condition)?;
        Err(error::custom(
            "InvalidObjectState",
            403,
            "Restore is not allowed for the object's current storage class",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_resource_is_never_taken_for_the_thing_itself() {
        for (operation, query, code) in [
            ("DeleteBucket", Some("logging"), Some("MethodNotAllowed")),
            (
                "DeleteBucket",
                Some("versioning="),
                Some("MethodNotAllowed"),
            ),
            ("DeleteObject", Some("acl"), Some("MethodNotAllowed")),
            ("PutObject", Some("attributes"), Some("MethodNotAllowed")),
            ("PutObject", Some("uploadId=u"), Some("MethodNotAllowed")),
            ("CreateBucket", Some("location"), Some("MethodNotAllowed")),
            ("PutObject", Some("renameObject"), Some("NotImplemented")),
            ("PutObject", Some("encryption"), Some("NotImplemented")),
            ("CreateBucket", Some("abac"), Some("NotImplemented")),
            (
                "ListObjects",
                Some("metadataConfiguration"),
                Some("NotImplemented"),
            ),
            ("PutObject", Some("x-id=PutObject"), None),
            ("GetObject", Some("versionId=1&partNumber=2"), None),
            ("ListObjects", Some("prefix=acl&delimiter=/"), None),
            ("DeleteBucket", None, None),
            ("PutBucketAcl", Some("acl"), None),
        ] {
            let refused = refuse_misread(operation, query).err();
            let found = refused.as_ref().map(|error| error.code().as_str());
            assert_eq!(found, code, "{operation} {query:?}");
        }
    }
}
