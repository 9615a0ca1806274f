//! A bucket's policy, what of public access it blocks, and who owns what is written into it.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::access::Caller;
use super::acl::{conflicts_with_ownership, grants_others};
use super::body::DocumentDigests;
use super::{Gateway, error};
use crate::auth::{Malformed, Place, Policy};
use crate::model::bucket::{Ownership, PublicAccessBlock};

fn malformed(reason: Malformed) -> s3s::S3Error {
    s3s::S3Error::with_message(s3s::S3ErrorCode::MalformedPolicy, reason.to_string())
}

fn no_policy() -> s3s::S3Error {
    error::custom(
        "NoSuchBucketPolicy",
        404,
        "The bucket policy does not exist",
    )
}

/// S3's name of an ownership.
fn ownership_name(ownership: Ownership) -> &'static str {
    match ownership {
        Ownership::ObjectWriter => ObjectOwnership::OBJECT_WRITER,
        Ownership::BucketOwnerPreferred => ObjectOwnership::BUCKET_OWNER_PREFERRED,
        Ownership::BucketOwnerEnforced => ObjectOwnership::BUCKET_OWNER_ENFORCED,
    }
}

/// An ownership by S3's name.
pub(super) fn ownership_of(name: &str) -> Option<Ownership> {
    [
        Ownership::ObjectWriter,
        Ownership::BucketOwnerPreferred,
        Ownership::BucketOwnerEnforced,
    ]
    .into_iter()
    .find(|ownership| ownership_name(*ownership) == name)
}

impl Gateway {
    pub(super) async fn get_bucket_policy(
        &self,
        request: S3Request<GetBucketPolicyInput>,
    ) -> S3Result<S3Response<GetBucketPolicyOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let policy = bucket.settings.policy.clone().ok_or_else(no_policy)?;
        let mut response = S3Response::new(GetBucketPolicyOutput {
            policy: Some(policy),
        });
        response.headers.insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        Ok(response)
    }

    pub(super) async fn put_bucket_policy(
        &self,
        request: S3Request<PutBucketPolicyInput>,
    ) -> S3Result<S3Response<PutBucketPolicyOutput>> {
        let caller = Caller::of(&request)?.clone();
        DocumentDigests::compare(&request)?;
        let bucket = caller.bucket()?;
        let text = request.input.policy;
        let policy = Policy::parse(&text, Place::Bucket(bucket.name.as_str()));
        let policy = policy.map_err(malformed)?;
        for account in policy.accounts() {
            let found = self.authority.tenant_by_account(account).await;
            if found.map_err(error::of_fault)?.is_none() {
                return Err(malformed(Malformed::invalid_principal()));
            }
        }
        let block = bucket.settings.public_access_block.unwrap_or_default();
        if block.block_public_policy && policy.is_public() {
            return Err(error::access_denied());
        }
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.policy = Some(text.clone());
        })
        .await?;
        Ok(S3Response::new(PutBucketPolicyOutput::default()))
    }

    pub(super) async fn delete_bucket_policy(
        &self,
        request: S3Request<DeleteBucketPolicyInput>,
    ) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
        let caller = Caller::of(&request)?;
        self.change_bucket(caller, |bucket| bucket.settings.policy = None)
            .await?;
        Ok(S3Response::new(DeleteBucketPolicyOutput::default()))
    }

    /// Whether the policy is public; of lists it says nothing.
    pub(super) async fn get_bucket_policy_status(
        &self,
        request: S3Request<GetBucketPolicyStatusInput>,
    ) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let text = bucket.settings.policy.as_ref().ok_or_else(no_policy)?;
        let policy = Policy::parse(text, Place::Bucket(bucket.name.as_str()));
        let policy = policy.map_err(malformed)?;
        Ok(S3Response::new(GetBucketPolicyStatusOutput {
            policy_status: Some(PolicyStatus {
                is_public: Some(policy.is_public()),
            }),
        }))
    }

    pub(super) async fn get_public_access_block(
        &self,
        request: S3Request<GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let block = bucket.settings.public_access_block.ok_or_else(|| {
            error::custom(
                "NoSuchPublicAccessBlockConfiguration",
                404,
                "The public access block configuration was not found",
            )
        })?;
        Ok(S3Response::new(GetPublicAccessBlockOutput {
            public_access_block_configuration: Some(PublicAccessBlockConfiguration {
                block_public_acls: Some(block.block_public_acls),
                block_public_policy: Some(block.block_public_policy),
                ignore_public_acls: Some(block.ignore_public_acls),
                restrict_public_buckets: Some(block.restrict_public_buckets),
            }),
        }))
    }

    pub(super) async fn put_public_access_block(
        &self,
        request: S3Request<PutPublicAccessBlockInput>,
    ) -> S3Result<S3Response<PutPublicAccessBlockOutput>> {
        let caller = Caller::of(&request)?.clone();
        DocumentDigests::compare(&request)?;
        let wanted = request.input.public_access_block_configuration;
        let block = PublicAccessBlock {
            block_public_acls: wanted.block_public_acls.unwrap_or(false),
            ignore_public_acls: wanted.ignore_public_acls.unwrap_or(false),
            block_public_policy: wanted.block_public_policy.unwrap_or(false),
            restrict_public_buckets: wanted.restrict_public_buckets.unwrap_or(false),
        };
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.public_access_block = Some(block);
        })
        .await?;
        Ok(S3Response::new(PutPublicAccessBlockOutput::default()))
    }

    pub(super) async fn delete_public_access_block(
        &self,
        request: S3Request<DeletePublicAccessBlockInput>,
    ) -> S3Result<S3Response<DeletePublicAccessBlockOutput>> {
        let caller = Caller::of(&request)?;
        self.change_bucket(caller, |bucket| bucket.settings.public_access_block = None)
            .await?;
        Ok(S3Response::new(DeletePublicAccessBlockOutput::default()))
    }

    pub(super) async fn get_bucket_ownership_controls(
        &self,
        request: S3Request<GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let ownership = bucket.settings.ownership.ok_or_else(|| {
            error::custom(
                "OwnershipControlsNotFoundError",
                404,
                "The bucket ownership controls were not found",
            )
        })?;
        Ok(S3Response::new(GetBucketOwnershipControlsOutput {
            ownership_controls: Some(OwnershipControls {
                rules: vec![OwnershipControlsRule {
                    object_ownership: ObjectOwnership::from_static(ownership_name(ownership)),
                }],
            }),
        }))
    }

    pub(super) async fn put_bucket_ownership_controls(
        &self,
        request: S3Request<PutBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<PutBucketOwnershipControlsOutput>> {
        let caller = Caller::of(&request)?.clone();
        DocumentDigests::compare(&request)?;
        let rules = request.input.ownership_controls.rules;
        let [rule] = rules.as_slice() else {
            return Err(error::malformed_xml());
        };
        let ownership = ownership_of(rule.object_ownership.as_str());
        let ownership = ownership.ok_or_else(error::malformed_xml)?;
        let bucket = caller.bucket()?;
        let enforced = ownership == Ownership::BucketOwnerEnforced;
        if enforced && bucket.settings.acl.as_ref().is_some_and(grants_others) {
            return Err(conflicts_with_ownership());
        }
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.ownership = Some(ownership);
        })
        .await?;
        Ok(S3Response::new(PutBucketOwnershipControlsOutput::default()))
    }

    pub(super) async fn delete_bucket_ownership_controls(
        &self,
        request: S3Request<DeleteBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<DeleteBucketOwnershipControlsOutput>> {
        let caller = Caller::of(&request)?;
        self.change_bucket(caller, |bucket| bucket.settings.ownership = None)
            .await?;
        Ok(S3Response::new(
            DeleteBucketOwnershipControlsOutput::default(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ownerships_have_names() {
        for ownership in [
            Ownership::ObjectWriter,
            Ownership::BucketOwnerPreferred,
            Ownership::BucketOwnerEnforced,
        ] {
            assert_eq!(ownership_of(ownership_name(ownership)), Some(ownership));
        }
        assert_eq!(ownership_of("Nobody"), None);
    }
}
