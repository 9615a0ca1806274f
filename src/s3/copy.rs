//! CopyObject and UploadPartCopy.

use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::{Caller, Named};
use super::convert::{self, set_checksums};
use super::encryption::{Side, is_https};
use super::notification::origin_of;
use super::objects::refuse_unsupported;
use super::read::shown;
use super::{Gateway, encryption, error, lock};
use crate::auth::Action;
use crate::model::names::ObjectKey as Key;
use crate::model::object::ReadDecision;
use crate::namespace::{Condition, CopyRequest, CopySource as Source, UploadId, Wanted};

impl Gateway {
    /// Finds the source of a copy: permission on it is asked like that of a read.
    async fn source(
        &self,
        caller: &Caller,
        source: &CopySource,
        headers: &HeaderMap,
    ) -> S3Result<Source> {
        let CopySource::Bucket {
            bucket,
            key,
            version_id,
        } = source
        else {
            return Err(error::not_implemented());
        };
        let version = convert::version_id(version_id.as_deref())?;
        let key = convert::object_key(key)?;
        let bucket = self.bucket(bucket).await?;
        let named = Named {
            key: key.as_str(),
            version: version_id.as_deref(),
        };
        let answered = self
            .ask(caller, Action::GetObject, &bucket, Some(named))
            .await?;
        self.check_expected_owner(caller, &bucket, "x-amz-source-expected-bucket-owner")
            .await?;
        // With its bytes: those of a short object may have to be copied.
        let object = self
            .namespace
            .get(&bucket, &key, version)
            .await
            .map_err(|condition| match condition {
                // A delete marker that was named is no source: what AWS answers differs from a read of one.
                Condition::Marker { named: true, .. } => s3_error!(
                    InvalidRequest,
                    "The source of a copy request may not specifically refer to a delete marker by version id."
                ),
                Condition::Marker { named: false, .. } => {
                    self.not_found(caller, &bucket, key.as_str(), Condition::NoSuchKey)
                }
                condition => self.not_found(caller, &bucket, key.as_str(), condition),
            })?;
        caller.confirm_of(self, &bucket, &[answered], &object.version)?;
        let customer_key = self.customer_key(headers, Side::Source, is_https(headers))?;
        self.namespace
            .check_readable(&bucket, &object.version, customer_key.as_ref())
            .await
            .map_err(error::of_condition)?;
        let conditions = convert::source_conditions(headers)?;
        match conditions.decide(&object.version.etag, object.version.modified) {
            ReadDecision::Proceed => Ok(Source {
                bucket,
                key,
                version,
                object,
                customer_key,
            }),
            // A copy has no "not modified": both ways of failing are 412.
            ReadDecision::Failed | ReadDecision::NotModified => {
                Err(error::of_condition(Condition::PreconditionFailed))
            }
        }
    }

    pub(super) async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let caller = Caller::of(&request)?.clone();
        let origin = origin_of(&request)?;
        let headers = &request.headers;
        refuse_unsupported(headers)?;
        let replaces = directive(headers, "x-amz-metadata-directive")?;
        let replaces_tags = directive(headers, "x-amz-tagging-directive")?;
        let key: Key = convert::object_key(&request.input.key)?;
        let bucket = Arc::clone(caller.bucket()?);
        let wanted = self.wanted(headers, is_https(headers))?;
        let encrypts = wanted != Wanted::Default;
        let target = self.namespace.target(&bucket, wanted).await;
        let target = target.map_err(error::of_condition)?;
        let source = self
            .source(&caller, &request.input.copy_source, headers)
            .await?;
        let onto_itself = source.bucket.id == bucket.id && source.key == key;
        let redirects = headers.contains_key("x-amz-website-redirect-location");
        let changes = replaces || replaces_tags || redirects || encrypts;
        if onto_itself && source.version.is_none() && !changes {
            return Err(error::copy_onto_itself());
        }
        let new_headers = if replaces {
            Some(convert::object_headers(headers, request.input.metadata)?)
        } else {
            // Where a copied page redirects to is never taken over ("CopyObject").
            let mut kept = source.object.version.headers.clone();
            kept.website_redirect =
                convert::header(headers, "x-amz-website-redirect-location")?.map(str::to_owned);
            Some(kept)
        };
        let tags = if replaces_tags {
            Some(convert::tagging_header(headers)?.unwrap_or_default())
        } else {
            None
        };
        // Tags that come along are read there and written here.
        if !replaces_tags && !source.object.version.tags.0.is_empty() {
            let there = source.version.map(|id| id.to_string());
            let named = |key, version| Some(Named { key, version });
            let from = named(source.key.as_str(), there.as_deref());
            self.ask(&caller, Action::GetObjectTagging, &source.bucket, from)
                .await?;
            let to = named(key.as_str(), None);
            self.ask(&caller, Action::PutObjectTagging, &bucket, to)
                .await?;
        }
        let acl = self.acl_of_new_object(&caller, &bucket, headers).await?;
        let copy = CopyRequest {
            origin,
            bucket,
            key,
            headers: new_headers,
            tags,
            checksum: convert::algorithm_header(headers)?,
            conditions: convert::write_conditions(headers)?,
            acl,
            target,
            lock: lock::of_headers(headers, self.namespace.now())?,
            recheck: Some(caller.recheck(self)),
        };
        let written = self
            .namespace
            .copy(&source, copy)
            .await
            .map_err(error::of_condition)?;
        let mut result = CopyObjectResult {
            e_tag: Some(convert::etag(&written.etag)),
            last_modified: Some(convert::timestamp(written.modified)),
            ..CopyObjectResult::default()
        };
        result.checksum_type = set_checksums!(result, written.checksum.as_ref());
        let mut response = S3Response::new(CopyObjectOutput {
            expiration: self.expiration_of_written(caller.bucket()?, &request.input.key, &written),
            copy_object_result: Some(result),
            copy_source_version_id: shown(&source.bucket, source.object.version.id()),
            version_id: written.version_id.map(|id| id.to_string()),
            ..CopyObjectOutput::default()
        });
        encryption::tell_writer(&mut response.headers, written.encryption.as_ref());
        super::objects::set_uid(&mut response, written.uid);
        Ok(response)
    }

    pub(super) async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let caller = Caller::of(&request)?.clone();
        let (input, headers) = (&request.input, &request.headers);
        refuse_unsupported(headers)?;
        let number = super::multipart::part_number(input.part_number)?;
        let key = convert::object_key(&input.key)?;
        let bucket = caller.bucket()?;
        let id = UploadId::parse(&input.upload_id)
            .ok_or_else(|| error::of_condition(Condition::NoSuchUpload))?;
        let upload = self
            .namespace
            .upload(bucket, &key, id)
            .await
            .map_err(error::of_condition)?;
        let customer_key = self.customer_key(headers, Side::Object, is_https(headers))?;
        let target = self
            .namespace
            .part_target(bucket, &upload, customer_key)
            .await
            .map_err(error::of_condition)?;
        let source = self.source(&caller, &input.copy_source, headers).await?;
        let range = convert::copy_range(headers, source.object.version.size)?;
        let part = self
            .namespace
            .copy_part(&upload, &target, number, &source, range)
            .await
            .map_err(error::of_condition)?;
        let mut result = CopyPartResult {
            e_tag: Some(convert::etag(&part.etag)),
            last_modified: Some(convert::timestamp(part.modified)),
            ..CopyPartResult::default()
        };
        if upload.checksum.is_some() {
            let _ = set_checksums!(result, part.checksum.as_ref());
        }
        let mut response = S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: shown(&source.bucket, source.object.version.id()),
            ..UploadPartCopyOutput::default()
        });
        encryption::tell(&mut response.headers, target.encryption());
        Ok(response)
    }
}

/// `COPY` or `REPLACE`; `true` for the latter.
fn directive(headers: &HeaderMap, name: &'static str) -> S3Result<bool> {
    match convert::header(headers, name)? {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(s3_error!(
            InvalidArgument,
            "Unknown directive in {name}: use COPY or REPLACE."
        )),
    }
}
