//! Multipart uploads.

use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::acl::owner_dto;
use super::convert::{self, set_checksums};
use super::encryption::{Side, is_https};
use super::listing::{Encoding, prefix_list};
use super::notification::origin_of;
use super::objects::{close_connection, refuse_unsupported};
use super::upload::Upload;
use super::{Gateway, encryption, error, lock};
use crate::model::digest::{
    Checksum as Digest, ChecksumAlgorithm as Algorithm, ChecksumKind, ETag as Tag, ObjectChecksum,
};
use crate::namespace::{
    CompleteRequest, Condition, NamedPart, NewUpload, PART_MIN_BYTES, PART_NUMBER_MAX, PartWritten,
    Target, UploadId, UploadQuery,
};

/// Most entries of a page.
const PAGE_MAX: usize = 1000;

fn upload_id(text: &str) -> S3Result<UploadId> {
    UploadId::parse(text).ok_or_else(|| error::of_condition(Condition::NoSuchUpload))
}

pub(super) fn part_number(number: i32) -> S3Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|number| (1..=PART_NUMBER_MAX).contains(number))
        .ok_or_else(|| {
            error::invalid_argument("Part number must be an integer between 1 and 10000, inclusive")
        })
}

/// The checksum an upload announces. CRCs cover the whole unless the client says otherwise, SHAs cannot; and
/// CRC-64/NVME can only cover the whole ("Checking object integrity" in the S3 user guide).
fn announced(headers: &HeaderMap) -> S3Result<Option<(Algorithm, ChecksumKind)>> {
    let algorithm = convert::algorithm_header(headers)?;
    let kind = convert::checksum_kind(headers)?;
    let Some(algorithm) = algorithm else {
        return match kind {
            Some(_) => Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            )),
            None => Ok(None),
        };
    };
    let default = match algorithm {
        Algorithm::Crc64Nvme => ChecksumKind::FullObject,
        Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Sha1 | Algorithm::Sha256 => {
            ChecksumKind::Composite
        }
    };
    let kind = kind.unwrap_or(default);
    let possible = match kind {
        ChecksumKind::FullObject => algorithm.is_linear(),
        ChecksumKind::Composite => algorithm != Algorithm::Crc64Nvme,
    };
    if !possible {
        return Err(s3_error!(
            InvalidRequest,
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            kind.as_str(),
            algorithm.as_str()
        ));
    }
    Ok(Some((algorithm, kind)))
}

impl Gateway {
    pub(super) async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let caller = Caller::of(&request)?.clone();
        let headers = &request.headers;
        refuse_unsupported(headers)?;
        let key = convert::object_key(&request.input.key)?;
        let checksum = announced(headers)?;
        let wanted = self.wanted(headers, is_https(headers))?;
        let target = self.namespace.target(caller.bucket()?, wanted).await;
        let target = target.map_err(error::of_condition)?;
        let new = NewUpload {
            uid: None,
            headers: convert::object_headers(headers, request.input.metadata)?,
            tags: convert::tagging_header(headers)?.unwrap_or_default(),
            checksum,
            acl: self
                .acl_of_new_object(&caller, caller.bucket()?, headers)
                .await?,
            encryption: target.encryption().cloned(),
            lock: lock::of_headers(headers, self.namespace.now())?,
            recheck: Some(caller.recheck(self)),
        };
        let id = self
            .namespace
            .create_upload(caller.bucket()?, &key, new)
            .await
            .map_err(error::of_condition)?;
        let initiated = self.namespace.now();
        let (abort_date, abort_rule_id) = self.abort_of(caller.bucket()?, &key, initiated).unzip();
        let mut response = S3Response::new(CreateMultipartUploadOutput {
            abort_date,
            abort_rule_id,
            bucket: Some(request.input.bucket),
            key: Some(request.input.key),
            upload_id: Some(id.to_string()),
            checksum_algorithm: checksum.map(|(algorithm, _)| convert::algorithm_name(algorithm)),
            checksum_type: checksum.map(|(_, kind)| convert::kind_name(kind)),
            ..CreateMultipartUploadOutput::default()
        });
        encryption::tell_writer(&mut response.headers, target.encryption());
        Ok(response)
    }

    pub(super) async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let caller = Caller::of(&request)?.clone();
        let bucket = caller.bucket()?;
        refuse_unsupported(&request.headers)?;
        let input = &request.input;
        let number = part_number(input.part_number)?;
        let key = convert::object_key(&input.key)?;
        let body = Upload::of(&request)?;
        let upload = self
            .namespace
            .upload(bucket, &key, upload_id(&input.upload_id)?)
            .await
            .map_err(error::of_condition)?;
        let body = body.for_part(&upload)?;
        let headers = &request.headers;
        let customer_key = self.customer_key(headers, Side::Object, is_https(headers))?;
        let target = self
            .namespace
            .part_target(bucket, &upload, customer_key)
            .await
            .map_err(error::of_condition)?;
        let sender = caller.sender().filter(|_| !target.is_customers());
        if let Some(received) = body.instant(self, &caller, &target).await? {
            let checksum = body.stored_checksum(&received);
            let kept = checksum.clone().filter(|_| upload.checksum.is_some());
            let part = self
                .namespace
                .put_part(&upload, number, kept, sender, received)
                .await;
            match part {
                Ok(part) => {
                    self.metrics.instant_upload();
                    let mut response = part_response(&part, checksum.as_ref(), &target);
                    close_connection(&mut response);
                    return Ok(response);
                }
                // Collected since it was found: the body is still to come.
                Err(Condition::ContentGone) => {}
                Err(condition) => return Err(error::of_condition(condition)),
            }
        }
        let received = body.receive(self, &target, request.input.body).await?;
        let checksum = body.stored_checksum(&received);
        // Without an announcement a part's checksum is compared and not kept: the whole is answered with
        // the one that can be joined from every part.
        let kept = checksum.clone().filter(|_| upload.checksum.is_some());
        let part = self
            .namespace
            .put_part(&upload, number, kept, sender, received)
            .await
            .map_err(error::of_condition)?;
        Ok(part_response(&part, checksum.as_ref(), &target))
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let caller = Caller::of(&request)?.clone();
        let origin = origin_of(&request)?;
        let headers = &request.headers;
        let key = convert::object_key(&request.input.key)?;
        let id = upload_id(&request.input.upload_id)?;
        let kind = convert::checksum_kind(headers)?;
        let checksum = whole_checksum(headers)?.map(|checksum| (checksum, kind));
        let conditions = convert::write_conditions(headers)?;
        let list = request.input.multipart_upload.unwrap_or_default();
        let parts = list
            .parts
            .unwrap_or_default()
            .into_iter()
            .map(named_part)
            .collect::<S3Result<Vec<_>>>()?;
        if parts.len() > PART_NUMBER_MAX as usize {
            return Err(error::malformed_xml());
        }
        let complete = CompleteRequest {
            bucket: Arc::clone(caller.bucket()?),
            key,
            upload: id,
            origin,
            parts,
            checksum,
            size: request
                .input
                .mpu_object_size
                .and_then(|size| u64::try_from(size).ok()),
            part_min_bytes: PART_MIN_BYTES,
            headers: None,
            conditions,
            customer_key: self.customer_key(headers, Side::Object, is_https(headers))?,
            recheck: Some(caller.recheck(self)),
        };
        let written = self
            .namespace
            .complete(complete)
            .await
            .map_err(error::of_condition)?;
        let location = format!("/{}/{}", request.input.bucket, request.input.key);
        let expiration = self.expiration_of_written(caller.bucket()?, &request.input.key, &written);
        let mut output = CompleteMultipartUploadOutput {
            expiration,
            bucket: Some(request.input.bucket),
            key: Some(request.input.key),
            location: Some(location),
            e_tag: Some(convert::etag(&written.etag)),
            version_id: written.version_id.map(|id| id.to_string()),
            ..CompleteMultipartUploadOutput::default()
        };
        output.checksum_type = set_checksums!(output, written.checksum.as_ref());
        let mut response = S3Response::new(output);
        encryption::tell(&mut response.headers, written.encryption.as_ref());
        super::objects::set_uid(&mut response, written.uid);
        Ok(response)
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let caller = Caller::of(&request)?;
        let key = convert::object_key(&request.input.key)?;
        let id = upload_id(&request.input.upload_id)?;
        self.namespace
            .abort(caller.bucket()?, &key, id)
            .await
            .map_err(error::of_condition)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let caller = Caller::of(&request)?.clone();
        let input = request.input;
        let key = convert::object_key(&input.key)?;
        let id = upload_id(&input.upload_id)?;
        let after = u32::try_from(input.part_number_marker.unwrap_or(0)).map_err(|_| {
            error::invalid_argument("Argument part-number-marker must be between 0 and 2147483647")
        })?;
        let limit = convert::page_size(input.max_parts, PAGE_MAX, "max-parts")?;
        let page = self
            .namespace
            .upload_parts(caller.bucket()?, &key, id, after, limit)
            .await
            .map_err(error::of_condition)?;
        let last = page.parts.last().map(|part| part.number as i32);
        let announced = page.upload.checksum;
        let parts = page.parts.iter().map(|part| {
            let mut output = Part {
                part_number: Some(part.number as i32),
                size: Some(part.size as i64),
                e_tag: Some(convert::etag(&Tag::single(part.md5))),
                last_modified: Some(convert::timestamp(part.modified)),
                ..Part::default()
            };
            if announced.is_some() {
                let _ = set_checksums!(output, part.checksum.as_ref());
            }
            output
        });
        let owner = match page.upload.acl.map(|acl| acl.owner) {
            Some(owner) => owner,
            None => self.owner_of(caller.bucket()?).await?,
        };
        let owner = owner_dto(owner);
        let (abort_date, abort_rule_id) = self
            .abort_of(caller.bucket()?, &key, page.upload.initiated)
            .unzip();
        Ok(S3Response::new(ListPartsOutput {
            abort_date,
            abort_rule_id,
            parts: Some(parts.collect()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(after as i32),
            next_part_number_marker: last,
            max_parts: Some(limit as i32),
            is_truncated: Some(page.truncated),
            initiator: Some(Initiator {
                id: owner.id.clone(),
                display_name: owner.display_name.clone(),
            }),
            owner: Some(owner),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            checksum_algorithm: announced.map(|(algorithm, _)| convert::algorithm_name(algorithm)),
            checksum_type: announced.map(|(_, kind)| convert::kind_name(kind)),
            ..ListPartsOutput::default()
        }))
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let caller = Caller::of(&request)?.clone();
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = convert::page_size(input.max_uploads, PAGE_MAX, "max-uploads")?;
        let query = UploadQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|text| !text.is_empty()),
            key_marker: input.key_marker.clone().unwrap_or_default(),
            upload_marker: input.upload_id_marker.as_deref().and_then(UploadId::parse),
            limit,
        };
        let page = self
            .namespace
            .uploads(caller.bucket()?, query)
            .await
            .map_err(error::of_condition)?;
        let bucket_owner = self.owner_of(caller.bucket()?).await?;
        let uploads = page.uploads.into_iter().map(|upload| {
            let owner = owner_dto(upload.owner.unwrap_or_else(|| bucket_owner.clone()));
            MultipartUpload {
                key: Some(encoding.apply(upload.key.as_str())),
                upload_id: Some(UploadId(upload.uid).to_string()),
                initiated: Some(convert::timestamp(upload.initiated)),
                initiator: Some(Initiator {
                    id: owner.id.clone(),
                    display_name: owner.display_name.clone(),
                }),
                owner: Some(owner),
                storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
                checksum_algorithm: upload
                    .checksum
                    .map(|(algorithm, _)| convert::algorithm_name(algorithm)),
                checksum_type: upload.checksum.map(|(_, kind)| convert::kind_name(kind)),
            }
        });
        let next = page.next.filter(|_| page.truncated);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            common_prefixes: Some(prefix_list(&page.common_prefixes, encoding)),
            is_truncated: Some(page.truncated),
            next_upload_id_marker: next
                .as_ref()
                .and_then(|(_, upload)| upload.map(|id| id.to_string())),
            next_key_marker: next.map(|(key, _)| encoding.apply(&key)),
            bucket: Some(input.bucket),
            key_marker: Some(encoding.apply(input.key_marker.as_deref().unwrap_or_default())),
            upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
            max_uploads: Some(limit as i32),
            prefix: input.prefix.map(|prefix| encoding.apply(&prefix)),
            delimiter: input.delimiter.map(|delimiter| encoding.apply(&delimiter)),
            encoding_type: input.encoding_type,
            ..ListMultipartUploadsOutput::default()
        }))
    }
}

fn part_response(
    part: &PartWritten,
    checksum: Option<&ObjectChecksum>,
    target: &Target,
) -> S3Response<UploadPartOutput> {
    let mut output = UploadPartOutput {
        e_tag: Some(convert::etag(&part.etag)),
        ..UploadPartOutput::default()
    };
    let _ = set_checksums!(output, checksum);
    let mut response = S3Response::new(output);
    encryption::tell(&mut response.headers, target.encryption());
    response
}

/// The checksum a complete request expects of the whole; a composite one may end in its number of parts.
fn whole_checksum(headers: &HeaderMap) -> S3Result<Option<Digest>> {
    let mut stripped = HeaderMap::new();
    for (name, value) in headers {
        if !name.as_str().starts_with("x-amz-checksum-") {
            continue;
        }
        let text = value.to_str().unwrap_or_default();
        let text = text.split_once('-').map_or(text, |(value, _)| value);
        if let Ok(value) = text.parse() {
            stripped.insert(name, value);
        }
    }
    convert::checksum_of(&stripped)
}

fn named_part(part: CompletedPart) -> S3Result<NamedPart> {
    let number = part.part_number.ok_or_else(error::malformed_xml)?;
    let given = [
        (Algorithm::Crc32, part.checksum_crc32),
        (Algorithm::Crc32c, part.checksum_crc32c),
        (Algorithm::Crc64Nvme, part.checksum_crc64nvme),
        (Algorithm::Sha1, part.checksum_sha1),
        (Algorithm::Sha256, part.checksum_sha256),
    ];
    let mut checksums = Vec::new();
    for (algorithm, text) in given {
        if let Some(text) = text {
            let checksum = Digest::parse(algorithm, &text).ok_or_else(|| {
                s3_error!(InvalidPart, "The checksum of part {number} is not valid.")
            })?;
            checksums.push(checksum);
        }
    }
    Ok(NamedPart {
        number: part_number(number)?,
        etag: part.e_tag.and_then(|etag| Tag::parse(etag.value())),
        checksums,
    })
}
