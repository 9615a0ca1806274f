//! Put and delete of objects.

use std::sync::Arc;

use futures::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::{Caller, Named};
use super::body::DocumentDigests;
use super::convert::{self, set_checksums};
use super::notification::origin_of;
use super::upload::Upload;
use super::{Gateway, encryption, error, lock};
use crate::auth::Action;
use crate::model::notification::{Event, Origin};
use crate::model::object::WriteConditions;
use crate::namespace::{Cause, Condition, DeleteRequest, Deleted, PutRequest, Reason, Written};

/// Most keys of one DeleteObjects.
const DELETE_MAX: usize = 1000;
/// The stable number of what was stored or read.
pub(super) const UID_HEADER: &str = "x-osproxy-uid";

/// The storage classes there are at AWS.
const STORAGE_CLASSES: [&[u8]; 8] = [
    b"STANDARD",
    b"REDUCED_REDUNDANCY",
    b"STANDARD_IA",
    b"ONEZONE_IA",
    b"INTELLIGENT_TIERING",
    b"GLACIER",
    b"DEEP_ARCHIVE",
    b"GLACIER_IR",
];

/// An answer given before the body: the connection cannot be used again.
pub(super) fn close_connection<T>(response: &mut S3Response<T>) {
    response
        .headers
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
}

pub(super) fn set_uid<T>(response: &mut S3Response<T>, uid: crate::model::ids::Uid) {
    response
        .headers
        .insert(UID_HEADER, HeaderValue::from(uid.0));
}

/// Refuses what a later version will have: half of it would be worse than none.
pub(super) fn refuse_unsupported(headers: &HeaderMap) -> S3Result<()> {
    const UNSUPPORTED: [&str; 1] = ["x-amz-write-offset-bytes"];
    let unsupported = |name: &str| UNSUPPORTED.iter().any(|prefix| name.starts_with(prefix));
    if headers.keys().any(|name| unsupported(name.as_str())) {
        return Err(error::not_implemented());
    }
    // Every class that is one is stored alike, and answered as STANDARD.
    if let Some(class) = headers.get("x-amz-storage-class")
        && !STORAGE_CLASSES.contains(&class.as_bytes())
    {
        return Err(s3_error!(
            InvalidStorageClass,
            "The storage class you specified is not valid"
        ));
    }
    Ok(())
}

impl Gateway {
    pub(super) async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let caller = Caller::of(&request)?.clone();
        let bucket = caller.bucket()?;
        refuse_unsupported(&request.headers)?;
        let key = convert::object_key(&request.input.key)?;
        let upload = Upload::of(&request)?;
        let wanted = self.wanted(&request.headers, encryption::is_https(&request.headers))?;
        let target = self.namespace.target(bucket, wanted).await;
        let target = target.map_err(error::of_condition)?;
        let put = PutRequest {
            bucket: Arc::clone(bucket),
            key,
            cause: Cause {
                event: Event::CreatedByPut,
                origin: origin_of(&request)?,
            },
            headers: convert::object_headers(&request.headers, request.input.metadata)?,
            tags: convert::tagging_header(&request.headers)?.unwrap_or_default(),
            checksum: None,
            conditions: convert::write_conditions(&request.headers)?,
            sender: caller.sender().filter(|_| !target.is_customers()),
            acl: self
                .acl_of_new_object(&caller, bucket, &request.headers)
                .await?,
            encryption: target.encryption().cloned(),
            lock: lock::of_headers(&request.headers, self.namespace.now())?,
            recheck: Some(caller.recheck(self)),
        };
        self.namespace
            .check(bucket, &put.key, &put.conditions)
            .await
            .map_err(error::of_condition)?;
        let name = request.input.key;
        let expires = |written: &Written| self.expiration_of_written(bucket, &name, written);
        let instant = upload.instant(self, &caller, &target).await?;
        if let Some(received) = instant {
            let checksum = upload.stored_checksum(&received);
            let put = PutRequest {
                checksum,
                ..put.clone()
            };
            match self.namespace.put(put, received).await {
                Ok(written) => {
                    self.metrics.instant_upload();
                    let mut response = put_response(&written, expires(&written));
                    close_connection(&mut response);
                    return Ok(response);
                }
                // Collected since it was found: the body is still to come.
                Err(Condition::ContentGone) => {}
                Err(condition) => return Err(error::of_condition(condition)),
            }
        }
        let received = upload.receive(self, &target, request.input.body).await?;
        let put = PutRequest {
            checksum: upload.stored_checksum(&received),
            ..put
        };
        let written = self
            .namespace
            .put(put, received)
            .await
            .map_err(error::of_condition)?;
        Ok(put_response(&written, expires(&written)))
    }

    pub(super) async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let conditions = WriteConditions {
            if_modified_at: input
                .if_match_last_modified_time
                .as_ref()
                .map(convert::millis),
            if_size: input
                .if_match_size
                .and_then(|size| u64::try_from(size).ok()),
            ..convert::write_conditions(&request.headers)?
        };
        let deleted = self
            .namespace
            .delete(DeleteRequest {
                bucket: Arc::clone(caller.bucket()?),
                key: convert::object_key(&input.key)?,
                reason: Reason::Asked,
                origin: origin_of(&request)?,
                version: convert::version_id(input.version_id.as_deref())?,
                conditions,
                only: None,
                bypass_governance: lock::bypasses_governance(&request.headers),
                recheck: Some(caller.recheck(self)),
            })
            .await
            .map_err(error::of_condition)?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deleted.marker.then_some(true),
            version_id: deleted.version_id.map(|id| id.to_string()),
            request_charged: None,
        }))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let caller = &Caller::of(&request)?.clone();
        let bypass_governance = lock::bypasses_governance(&request.headers);
        let origin = &origin_of(&request)?;
        DocumentDigests::check(&request)?;
        let Delete { objects, quiet } = request.input.delete;
        if objects.is_empty() || objects.len() > DELETE_MAX {
            return Err(error::malformed_xml());
        }
        // Keys one after the other would each wait for a commit of its own; together they share one.
        let outcomes: Vec<_> = futures::stream::iter(objects)
            .map(|object| async move {
                let outcome = self
                    .delete_one(caller, &object, bypass_governance, origin)
                    .await;
                (object, outcome)
            })
            .buffered(64)
            .collect()
            .await;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (object, outcome) in outcomes {
            match outcome {
                Ok(_) if quiet == Some(true) => {}
                Ok(gone) => deleted.push(DeletedObject {
                    key: Some(object.key),
                    version_id: object.version_id,
                    delete_marker: gone.marker.then_some(true),
                    delete_marker_version_id: gone
                        .version_id
                        .filter(|_| gone.marker)
                        .map(|id| id.to_string()),
                }),
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(object.key),
                    version_id: object.version_id,
                }),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn delete_one(
        &self,
        caller: &Caller,
        object: &ObjectIdentifier,
        bypass_governance: bool,
        origin: &Origin,
    ) -> S3Result<Deleted> {
        let bucket = caller.bucket()?;
        let named = Some(Named {
            key: &object.key,
            version: object.version_id.as_deref(),
        });
        let mut answered = vec![
            self.ask(caller, Action::DeleteObject, bucket, named)
                .await?,
        ];
        if bypass_governance {
            let bypass = Action::BypassGovernanceRetention;
            answered.push(self.ask(caller, bypass, bucket, named).await?);
        }
        let conditions = WriteConditions {
            if_match: object
                .e_tag
                .as_ref()
                .map(|etag| crate::model::object::ETagList::parse(etag.value())),
            if_none_match: None,
            if_modified_at: object.last_modified_time.as_ref().map(convert::millis),
            if_size: object.size.and_then(|size| u64::try_from(size).ok()),
        };
        self.namespace
            .delete(DeleteRequest {
                bucket: Arc::clone(bucket),
                key: convert::object_key(&object.key)?,
                reason: Reason::Asked,
                origin: origin.clone(),
                version: convert::version_id(object.version_id.as_deref())?,
                conditions,
                only: None,
                bypass_governance,
                recheck: Some(caller.recheck_of(self, answered)),
            })
            .await
            .map_err(error::of_condition)
    }
}

fn put_response(written: &Written, expiration: Option<String>) -> S3Response<PutObjectOutput> {
    let mut output = PutObjectOutput {
        e_tag: Some(convert::etag(&written.etag)),
        version_id: written.version_id.map(|id| id.to_string()),
        expiration,
        ..PutObjectOutput::default()
    };
    output.checksum_type = set_checksums!(output, written.checksum.as_ref());
    let mut response = S3Response::new(output);
    encryption::tell_writer(&mut response.headers, written.encryption.as_ref());
    set_uid(&mut response, written.uid);
    response
}
