//! How headers, tags and checksums are written into their columns.
//!
//! Headers and tags are JSON with short names, absent when empty, so that a plain object costs nothing.
//! A checksum is `ALGORITHM:KIND:BASE64`, a composite one followed by `:PARTS`. A content's coding is JSON that
//! names the cipher and the bytes in a frame.

use serde::{Deserialize, Serialize};

use super::session::Row;
use crate::model::acl::Acl;
use crate::model::digest::{
    Checksum, ChecksumAlgorithm, ChecksumKind, Digests, Fingerprint, ObjectChecksum, Sha256Digest,
};
use crate::model::fault::{Fault, Kind};
use crate::model::object::{Encryption, Headers, Lock, Retention, RetentionMode, Tags};

#[derive(Serialize, Deserialize)]
struct StoredHeaders {
    #[serde(rename = "ct", default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(rename = "ce", default, skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[serde(rename = "cd", default, skip_serializing_if = "Option::is_none")]
    content_disposition: Option<String>,
    #[serde(rename = "cl", default, skip_serializing_if = "Option::is_none")]
    content_language: Option<String>,
    #[serde(rename = "cc", default, skip_serializing_if = "Option::is_none")]
    cache_control: Option<String>,
    #[serde(rename = "ex", default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(rename = "wr", default, skip_serializing_if = "Option::is_none")]
    website_redirect: Option<String>,
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<(String, String)>,
}

/// The one cipher there is.
const CIPHER: &str = "aes-256-gcm";

#[derive(Serialize, Deserialize)]
struct StoredCoding {
    cipher: String,
    frame: u32,
}

fn corrupt(what: &'static str) -> Fault {
    Fault::new(Kind::Corrupt, "decode column").context(what)
}

fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| {
        Fault::new(Kind::Internal, "encode column")
            .context(what)
            .source(error)
    })
}

/// The column for a list of names.
pub(super) fn names_to_column(names: &[String]) -> Result<String, Fault> {
    encode("names", &names)
}

/// The names in a column.
pub(super) fn names_from_column(column: &str) -> Result<Vec<String>, Fault> {
    serde_json::from_str(column).map_err(|error| corrupt("names").source(error))
}

/// The column for `headers`; `None` when there are none.
pub(super) fn headers_to_column(headers: &Headers) -> Result<Option<String>, Fault> {
    if headers.is_empty() {
        return Ok(None);
    }
    let headers = headers.clone();
    let stored = StoredHeaders {
        content_type: headers.content_type,
        content_encoding: headers.content_encoding,
        content_disposition: headers.content_disposition,
        content_language: headers.content_language,
        cache_control: headers.cache_control,
        expires: headers.expires,
        website_redirect: headers.website_redirect,
        metadata: headers.metadata,
    };
    encode("headers", &stored).map(Some)
}

pub(super) fn headers_from_column(column: Option<&str>) -> Result<Headers, Fault> {
    let Some(text) = column else {
        return Ok(Headers::default());
    };
    let stored: StoredHeaders =
        serde_json::from_str(text).map_err(|error| corrupt("headers").source(error))?;
    Ok(Headers {
        content_type: stored.content_type,
        content_encoding: stored.content_encoding,
        content_disposition: stored.content_disposition,
        content_language: stored.content_language,
        cache_control: stored.cache_control,
        expires: stored.expires,
        website_redirect: stored.website_redirect,
        metadata: stored.metadata,
    })
}

/// The column for `tags`; `None` when there are none.
pub(super) fn tags_to_column(tags: &Tags) -> Result<Option<String>, Fault> {
    if tags.0.is_empty() {
        return Ok(None);
    }
    encode("tags", &tags.0).map(Some)
}

pub(super) fn tags_from_column(column: Option<&str>) -> Result<Tags, Fault> {
    let Some(text) = column else {
        return Ok(Tags::default());
    };
    serde_json::from_str(text)
        .map(Tags)
        .map_err(|error| corrupt("tags").source(error))
}

pub(super) fn checksum_to_column(checksum: &ObjectChecksum) -> String {
    let mut text = format!(
        "{}:{}:{}",
        checksum.checksum.algorithm.as_str(),
        checksum.kind.as_str(),
        checksum.checksum.to_base64()
    );
    if let Some(parts) = checksum.parts {
        text.push_str(&format!(":{parts}"));
    }
    text
}

pub(super) fn checksum_from_column(column: Option<&str>) -> Result<Option<ObjectChecksum>, Fault> {
    let Some(text) = column else { return Ok(None) };
    let parse = || {
        let mut fields = text.split(':');
        let algorithm = ChecksumAlgorithm::parse(fields.next()?)?;
        let kind = kind_from_column(fields.next()?)?;
        let checksum = Checksum::parse(algorithm, fields.next()?)?;
        let parts = fields.next().map(str::parse).transpose().ok()?;
        Some(ObjectChecksum {
            checksum,
            kind,
            parts,
        })
    };
    parse().map(Some).ok_or_else(|| corrupt("checksum"))
}

pub(super) fn acl_to_column(acl: Option<&Acl>) -> Result<Option<String>, Fault> {
    acl.map(|acl| encode("acl", acl)).transpose()
}

pub(super) fn acl_from_column(column: Option<&str>) -> Result<Option<Acl>, Fault> {
    column
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| corrupt("acl").source(error))
}

pub(super) fn encryption_to_column(
    encryption: Option<&Encryption>,
) -> Result<Option<String>, Fault> {
    encryption
        .map(|encryption| encode("encryption", encryption))
        .transpose()
}

pub(super) fn encryption_from_column(column: Option<&str>) -> Result<Option<Encryption>, Fault> {
    column
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| corrupt("encryption").source(error))
}

/// The column for the lock of an upload; `None` when there is none.
pub(super) fn lock_to_column(lock: &Lock) -> Result<Option<String>, Fault> {
    (!lock.is_empty()).then(|| encode("lock", lock)).transpose()
}

pub(super) fn lock_from_column(column: Option<&str>) -> Result<Lock, Fault> {
    let lock = column
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| corrupt("lock").source(error))?;
    Ok(lock.unwrap_or_default())
}

/// The column of a retention's mode.
pub(super) fn mode_to_column(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "governance",
        RetentionMode::Compliance => "compliance",
    }
}

pub(super) fn retention_from_columns(
    mode: Option<&str>,
    until: Option<i64>,
) -> Result<Option<Retention>, Fault> {
    let mode = match mode {
        None => return Ok(None),
        Some("governance") => RetentionMode::Governance,
        Some("compliance") => RetentionMode::Compliance,
        Some(_) => return Err(corrupt("mode of retention")),
    };
    let until = until.ok_or_else(|| corrupt("end of retention"))?;
    Ok(Some(Retention { mode, until }))
}

/// The column for the coding of bytes that are encrypted in frames.
pub(super) fn coding_to_column(frame_bytes: u32) -> Result<String, Fault> {
    let stored = StoredCoding {
        cipher: CIPHER.to_owned(),
        frame: frame_bytes,
    };
    encode("coding", &stored)
}

/// Bytes in a frame; `None` for bytes as they are.
pub(super) fn coding_from_column(column: Option<&str>) -> Result<Option<u32>, Fault> {
    let Some(text) = column else { return Ok(None) };
    let stored: StoredCoding =
        serde_json::from_str(text).map_err(|error| corrupt("coding").source(error))?;
    if stored.cipher != CIPHER || stored.frame == 0 {
        return Err(corrupt("coding").context(text));
    }
    Ok(Some(stored.frame))
}

/// Parses S3's name of a checksum's kind.
pub(super) fn kind_from_column(text: &str) -> Option<ChecksumKind> {
    [ChecksumKind::FullObject, ChecksumKind::Composite]
        .into_iter()
        .find(|kind| kind.as_str() == text)
}

/// The columns that [`digests`] reads, and [`fingerprint`] of them.
macro_rules! digest_columns {
    () => {
        "sha256, md5, crc64nvme, length, crc32, crc32c, sha1"
    };
}
pub(super) use digest_columns;

/// The digests in the columns of [`digest_columns`] from `first` on; `None` when the content was stored without. The
/// SHA-256 is zeros where the content is not found by it.
pub(super) fn digests(row: &Row<'_>, first: usize) -> Result<Option<Digests>, Fault> {
    let Some(md5) = row.opt_array(first + 1)? else {
        return Ok(None);
    };
    Ok(Some(Digests {
        sha256: Sha256Digest(row.opt_array(first)?.unwrap_or_default()),
        md5,
        crc64nvme: row.int(first + 2)? as u64,
        length: row.size(first + 3)?,
        crc32: row.int(first + 4)? as u32,
        crc32c: row.int(first + 5)? as u32,
        sha1: row.opt_array(first + 6)?,
    }))
}

/// The same of a content that is found by its digests: it has them.
pub(super) fn known_digests(row: &Row<'_>, first: usize) -> Result<Digests, Fault> {
    digests(row, first)?.ok_or_else(|| corrupt("digests"))
}

/// What three columns from `first` on, `sha256`, `md5` and `crc64nvme`, say of the bytes of their content.
pub(super) fn fingerprint(row: &Row<'_>, first: usize) -> Result<Option<Fingerprint>, Fault> {
    let sha256 = row.opt_array(first)?.map(Sha256Digest);
    let crc64nvme = row.opt_int(first + 2)?.map(|crc| crc as u64);
    Ok(Fingerprint::strongest(
        sha256,
        row.opt_array(first + 1)?,
        crc64nvme,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_coding_survives_and_an_unknown_one_is_corrupt() {
        let text = coding_to_column(65536).unwrap();
        assert_eq!(text, r#"{"cipher":"aes-256-gcm","frame":65536}"#);
        assert_eq!(coding_from_column(Some(&text)).unwrap(), Some(65536));
        assert_eq!(coding_from_column(None).unwrap(), None);
        for text in [
            "",
            "{}",
            r#"{"cipher":"rot13","frame":1}"#,
            r#"{"cipher":"aes-256-gcm","frame":0}"#,
        ] {
            let fault = coding_from_column(Some(text)).unwrap_err();
            assert_eq!(fault.kind(), Kind::Corrupt, "{text}");
        }
    }

    #[test]
    fn empty_headers_and_tags_take_no_column() {
        assert_eq!(headers_to_column(&Headers::default()).unwrap(), None);
        assert_eq!(tags_to_column(&Tags::default()).unwrap(), None);
    }

    #[test]
    fn a_damaged_column_is_corrupt_not_empty() {
        assert_eq!(
            headers_from_column(Some("{")).unwrap_err().kind(),
            Kind::Corrupt
        );
        assert_eq!(
            checksum_from_column(Some("CRC32:FULL_OBJECT:AA"))
                .unwrap_err()
                .kind(),
            Kind::Corrupt
        );
    }

    proptest! {
        #[test]
        fn columns_round_trip(kind in 0usize..2, algorithm in 0usize..5, fill in any::<u8>(), name in "[a-z]{1,9}", value in ".*") {
            let algorithm = ChecksumAlgorithm::ALL[algorithm];
            let composite = kind == 1;
            let checksum = ObjectChecksum {
                checksum: Checksum { algorithm, value: vec![fill; algorithm.len_bytes()] },
                kind: if composite { ChecksumKind::Composite } else { ChecksumKind::FullObject },
                parts: composite.then_some(7),
            };
            prop_assert_eq!(checksum_from_column(Some(&checksum_to_column(&checksum))).unwrap(), Some(checksum));
            let headers = Headers { metadata: vec![(name, value.clone())], expires: Some(value), ..Headers::default() };
            let column = headers_to_column(&headers).unwrap();
            prop_assert_eq!(headers_from_column(column.as_deref()).unwrap(), headers);
        }
    }
}
