//! Whether a bucket keeps versions, and the list of them.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::acl::owner_dto;
use super::listing::{Encoding, PAGE_MAX, needs_references, prefix_list, respond};
use super::{Gateway, convert, error};
use crate::model::bucket::Versioning;
use crate::namespace::{Condition, VersionQuery};

impl Gateway {
    pub(super) async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let status = match Caller::of(&request)?.bucket()?.versioning {
            Versioning::Never => None,
            Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
            Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
        };
        Ok(S3Response::new(GetBucketVersioningOutput {
            status: status.map(BucketVersioningStatus::from_static),
            mfa_delete: None,
        }))
    }

    pub(super) async fn put_bucket_versioning(
        &self,
        request: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let caller = Caller::of(&request)?.clone();
        let wanted = request.input.versioning_configuration;
        let mfa = wanted.mfa_delete.as_ref().map(MFADelete::as_str);
        match mfa {
            None | Some(MFADelete::DISABLED) => {}
            Some(MFADelete::ENABLED) => {
                return Err(error::custom(
                    "NotImplemented",
                    501,
                    "MFA delete is not implemented: this endpoint knows no second factor.",
                ));
            }
            Some(_) => return Err(error::malformed_xml()),
        }
        let wanted = match wanted.status.as_ref().map(BucketVersioningStatus::as_str) {
            Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
            Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
            Some(_) => return Err(error::malformed_xml()),
            None => {
                return Err(error::custom(
                    "IllegalVersioningConfigurationException",
                    400,
                    "The Versioning element must be specified",
                ));
            }
        };
        self.namespace
            .update_bucket(caller.bucket()?, Some(caller.recheck(self)), move |bucket| {
                if bucket.object_lock && wanted == Versioning::Suspended {
                    return Err(Condition::Locked);
                }
                bucket.versioning = wanted;
                Ok(())
            })
            .await
            .map_err(|condition| match condition {
                Condition::Locked => s3_error!(
                    InvalidBucketState,
                    "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
                ),
                condition => error::of_condition(condition),
            })?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }

    pub(super) async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let caller = Caller::of(&request)?.clone();
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = convert::page_size(input.max_keys, PAGE_MAX, "max-keys")?;
        let key_marker = input.key_marker.unwrap_or_default();
        let version_marker = match input.version_id_marker.as_deref() {
            None => None,
            Some("") => {
                return Err(error::invalid_argument(
                    "A version-id marker cannot be empty.",
                ));
            }
            Some(_) if key_marker.is_empty() => {
                return Err(error::invalid_argument(
                    "A version-id marker cannot be specified without a key marker.",
                ));
            }
            marker => convert::version_id(marker)?,
        };
        let query = VersionQuery {
            prefix: input.prefix.unwrap_or_default(),
            delimiter: input.delimiter.filter(|delimiter| !delimiter.is_empty()),
            key_marker,
            version_marker,
            limit,
        };
        let page = self
            .namespace
            .list_versions(caller.bucket()?, query.clone())
            .await
            .map_err(error::of_condition)?;
        let echoed = [
            Some(query.prefix.as_str()),
            Some(query.key_marker.as_str()),
            query.delimiter.as_deref(),
        ];
        let keys = page.versions.iter().map(|row| row.key.as_str());
        let marked =
            encoding == Encoding::Plain && needs_references(keys, &page.common_prefixes, &echoed);
        let bucket_owner = owner_dto(self.owner_of(caller.bucket()?).await?);
        let next = page.next.filter(|_| page.truncated);
        let (mut versions, mut markers) = (Vec::new(), Vec::new());
        for row in page.versions {
            let key = Some(encoding.apply(row.key.as_str()));
            let last_modified = Some(convert::timestamp(row.modified.div_euclid(1000) * 1000));
            let owner = Some(match row.owner {
                Some(owner) => owner_dto(owner),
                None => bucket_owner.clone(),
            });
            let version_id = Some(row.id.to_string());
            match row.object {
                Some(object) => versions.push(ObjectVersion {
                    key,
                    last_modified,
                    owner,
                    version_id,
                    is_latest: Some(row.is_latest),
                    size: Some(object.size as i64),
                    e_tag: Some(convert::etag(&object.etag)),
                    storage_class: Some(ObjectVersionStorageClass::from_static(
                        ObjectVersionStorageClass::STANDARD,
                    )),
                    checksum_algorithm: object
                        .checksum
                        .as_ref()
                        .map(|checksum| vec![convert::algorithm_name(checksum.checksum.algorithm)]),
                    checksum_type: object
                        .checksum
                        .as_ref()
                        .map(|checksum| convert::kind_name(checksum.kind)),
                    restore_status: None,
                }),
                None => markers.push(DeleteMarkerEntry {
                    key,
                    last_modified,
                    owner,
                    version_id,
                    is_latest: Some(row.is_latest),
                }),
            }
        }
        let output = ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.apply(&query.prefix)),
            key_marker: Some(encoding.apply(&query.key_marker)),
            version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
            max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX as i32)),
            is_truncated: Some(page.truncated),
            next_version_id_marker: next
                .as_ref()
                .and_then(|(_, id)| id.map(|id| id.to_string())),
            next_key_marker: next.map(|(key, _)| encoding.apply(&key)),
            common_prefixes: Some(prefix_list(&page.common_prefixes, encoding)),
            delimiter: query.delimiter.map(|delimiter| encoding.apply(&delimiter)),
            encoding_type: input.encoding_type,
            versions: Some(versions),
            delete_markers: Some(markers),
            request_charged: None,
        };
        Ok(respond(output, marked))
    }
}
