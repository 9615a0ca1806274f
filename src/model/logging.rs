//! Server access logs: where a bucket's log goes, how a line is written and how its objects are named.
//!
//! The form is that of "Amazon S3 server access log format" and "Amazon S3 log object key format" in the user
//! guide. Fields are separated by single spaces; one that does not apply is `-`.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::model::clock::Millis;

/// Where the log of a bucket goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// The bucket that gets the log; of the same tenant.
    pub target: String,
    /// What the names of log objects begin with.
    pub prefix: String,
    /// How they go on.
    #[serde(default)]
    pub key_format: KeyFormat,
    /// Who may see the log objects besides; kept to be answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<LogGrant>,
    /// The canonical user id of the bucket's owner, which lines and partitioned names carry.
    pub owner: String,
}

/// How the names of log objects go on after their prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyFormat {
    /// Like [`KeyFormat::Simple`], and answered as if it had not been given.
    #[default]
    Unset,
    /// The time of delivery and a unique text.
    Simple,
    /// By account, region, bucket and the day of the events.
    ByEventTime,
    /// By account, region, bucket and the day of delivery.
    ByDeliveryTime,
}

/// A grant on log objects, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGrant {
    /// The kind of grantee.
    pub kind: String,
    /// Its canonical user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The URI of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
}

/// One request as the log tells it. Texts that are empty become `-`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The canonical user id of the bucket's owner.
    pub owner: String,
    /// The bucket.
    pub bucket: String,
    /// When the request came.
    pub time: Millis,
    /// The address it came from.
    pub remote: String,
    /// The access key or canonical user id that sent it.
    pub requester: String,
    /// Its id.
    pub request_id: String,
    /// Such as `REST.PUT.OBJECT`.
    pub operation: String,
    /// The key it is about.
    pub key: String,
    /// Method, target and protocol.
    pub request: String,
    /// The status of the answer.
    pub status: u16,
    /// The error code of the answer.
    pub error: String,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// The size of the object.
    pub size: Option<u64>,
    /// Milliseconds from the request's head to the last byte of the answer.
    pub total_ms: u64,
    /// Milliseconds until the first byte of the answer.
    pub turnaround_ms: Option<u64>,
    /// The `Referer` header.
    pub referer: String,
    /// The `User-Agent` header.
    pub agent: String,
    /// The version id in the request.
    pub version: String,
    /// The host's id, as in the answer.
    pub host_id: String,
    /// `SigV4`, `SigV2`, or empty for an unsigned request.
    pub signature: &'static str,
    /// `AuthHeader`, `QueryString`, or empty.
    pub authentication: &'static str,
    /// The `Host` header.
    pub host: String,
}

/// A text as one field: spaces and other marks that would end it are percent-encoded.
fn push_field(line: &mut String, text: &str) {
    line.push(' ');
    if text.is_empty() {
        line.push('-');
        return;
    }
    for character in text.chars() {
        match character {
            ' ' => line.push_str("%20"),
            '"' => line.push_str("%22"),
            other if other.is_control() => push_encoded(line, other),
            other => line.push(other),
        }
    }
}

/// A text between quotes; `"-"` when it is empty. Quotes and control characters inside are percent-encoded, so that a client cannot
/// write lines of its own.
fn push_quoted(line: &mut String, text: &str) {
    line.push_str(" \"");
    if text.is_empty() {
        line.push('-');
    }
    for character in text.chars() {
        match character {
            '"' => line.push_str("%22"),
            other if other.is_control() => push_encoded(line, other),
            other => line.push(other),
        }
    }
    line.push('"');
}

fn push_encoded(line: &mut String, character: char) {
    let mut bytes = [0; 4];
    for byte in character.encode_utf8(&mut bytes).bytes() {
        let _ = write!(line, "%{byte:02X}");
    }
}

/// A key as the log carries it: percent-encoded, slashes left alone.
fn encode_key(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

fn push_number(line: &mut String, number: Option<u64>) {
    match number {
        Some(number) => {
            let _ = write!(line, " {number}");
        }
        None => line.push_str(" -"),
    }
}

fn date(time: Millis) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

impl Line {
    /// The line, with its line feed.
    pub fn write(&self) -> String {
        let mut line = String::with_capacity(512);
        line.push_str(if self.owner.is_empty() {
            "-"
        } else {
            &self.owner
        });
        push_field(&mut line, &self.bucket);
        let form =
            format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
        let time = date(self.time).format(form).unwrap_or_default();
        let _ = write!(line, " [{time}]");
        push_field(&mut line, &self.remote);
        push_field(&mut line, &self.requester);
        push_field(&mut line, &self.request_id);
        push_field(&mut line, &self.operation);
        push_field(&mut line, &encode_key(&self.key));
        push_quoted(&mut line, &self.request);
        let _ = write!(line, " {}", self.status);
        push_field(&mut line, &self.error);
        push_number(&mut line, Some(self.sent).filter(|&sent| sent > 0));
        push_number(&mut line, self.size);
        push_number(&mut line, Some(self.total_ms));
        push_number(&mut line, self.turnaround_ms);
        push_quoted(&mut line, &self.referer);
        push_quoted(&mut line, &self.agent);
        push_field(&mut line, &self.version);
        push_field(&mut line, &self.host_id);
        push_field(&mut line, self.signature);
        // No cipher, TLS version or access point: what ends TLS stands before this server. The last one is
        // whether an access control list was needed.
        line.push_str(" -");
        push_field(&mut line, self.authentication);
        push_field(&mut line, &self.host);
        line.push_str(" - - -\n");
        line
    }
}

/// What names a log object.
#[derive(Debug, Clone, Copy)]
pub struct LogObject<'a> {
    /// The bucket whose log it is.
    pub bucket: &'a str,
    /// Where that bucket is.
    pub region: &'a str,
    /// When its first line's request came.
    pub first: Millis,
    /// When it is delivered.
    pub delivered: Millis,
    /// A number that no other log object has.
    pub unique: i64,
}

impl Logging {
    /// The key of a log object.
    pub fn key(&self, object: LogObject<'_>) -> String {
        let second = format_description!("[year]-[month]-[day]-[hour]-[minute]-[second]");
        let day = format_description!("[year]/[month]/[day]");
        let text = |time: Millis, form| date(time).format(form).unwrap_or_default();
        let prefix = &self.prefix;
        let unique = object.unique;
        match self.key_format {
            KeyFormat::Unset | KeyFormat::Simple => {
                format!("{prefix}{}-{unique:016X}", text(object.delivered, second))
            }
            KeyFormat::ByEventTime | KeyFormat::ByDeliveryTime => {
                let time = match self.key_format {
                    KeyFormat::ByEventTime => object.first,
                    _ => object.delivered,
                };
                // Of the time of events only the day is told.
                let stamp = match self.key_format {
                    KeyFormat::ByEventTime => {
                        let form = format_description!("[year]-[month]-[day]-00-00-00");
                        date(time).format(form).unwrap_or_default()
                    }
                    _ => text(time, second),
                };
                format!(
                    "{prefix}{}/{}/{}/{}/{stamp}-{unique:016X}",
                    self.owner,
                    object.region,
                    object.bucket,
                    text(time, day),
                )
            }
        }
    }
}

/// The operation as the log names it, from the request's method, S3's name for what it does, and whether it is
/// about an object: `REST.GET.OBJECT`, `REST.PUT.LIFECYCLE`, `BATCH.DELETE.OBJECT` are S3's.
pub fn operation(method: &str, name: &str, has_key: bool) -> String {
    let resource = match name {
        "unknown" => "",
        "ListBuckets" => "SERVICE",
        "GetObject" | "HeadObject" | "PutObject" | "DeleteObject" | "PostObject" => "OBJECT",
        "CopyObject" => return "REST.COPY.OBJECT".to_owned(),
        "UploadPartCopy" => return "REST.COPY.PART".to_owned(),
        "UploadPart" => "PART",
        "CreateMultipartUpload" | "ListMultipartUploads" => "UPLOADS",
        "CompleteMultipartUpload" | "AbortMultipartUpload" | "ListParts" => "UPLOAD",
        "DeleteObjects" => "MULTI_OBJECT_DELETE",
        "GetObjectTagging" | "PutObjectTagging" | "DeleteObjectTagging" => "OBJECT_TAGGING",
        "GetBucketTagging" | "PutBucketTagging" | "DeleteBucketTagging" => "TAGGING",
        "GetObjectAcl" | "PutObjectAcl" | "GetBucketAcl" | "PutBucketAcl" => "ACL",
        "GetObjectAttributes" => "OBJECT_ATTRIBUTES",
        "GetObjectRetention" | "PutObjectRetention" => "OBJECT_LOCK_RETENTION",
        "GetObjectLegalHold" | "PutObjectLegalHold" => "OBJECT_LOCK_LEGALHOLD",
        "GetObjectLockConfiguration" | "PutObjectLockConfiguration" => "OBJECT_LOCK",
        "ListObjects" | "ListObjectsV2" | "HeadBucket" | "CreateBucket" | "DeleteBucket" => {
            "BUCKET"
        }
        "ListObjectVersions" => "BUCKETVERSIONS",
        "GetBucketLocation" => "LOCATION",
        "GetBucketVersioning" | "PutBucketVersioning" => "VERSIONING",
        "GetBucketLogging" | "PutBucketLogging" => "LOGGING_STATUS",
        "GetBucketLifecycleConfiguration"
        | "PutBucketLifecycleConfiguration"
        | "DeleteBucketLifecycle" => "LIFECYCLE",
        "GetBucketNotificationConfiguration" | "PutBucketNotificationConfiguration" => {
            "NOTIFICATION"
        }
        "GetBucketPolicy" | "PutBucketPolicy" | "DeleteBucketPolicy" => "BUCKETPOLICY",
        "GetBucketPolicyStatus" => "POLICY_STATUS",
        "GetBucketCors" | "PutBucketCors" | "DeleteBucketCors" => "CORS",
        "GetBucketWebsite" | "PutBucketWebsite" | "DeleteBucketWebsite" => "WEBSITE",
        "GetBucketEncryption" | "PutBucketEncryption" | "DeleteBucketEncryption" => "ENCRYPTION",
        "GetPublicAccessBlock" | "PutPublicAccessBlock" | "DeletePublicAccessBlock" => {
            "PUBLIC_ACCESS_BLOCK"
        }
        "GetBucketOwnershipControls"
        | "PutBucketOwnershipControls"
        | "DeleteBucketOwnershipControls" => "OWNERSHIP_CONTROLS",
        _ => "",
    };
    let resource = match (resource, has_key) {
        ("", true) => "OBJECT",
        ("", false) => "BUCKET",
        (known, _) => known,
    };
    format!("REST.{method}.{resource}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2019-02-06 00:00:38 UTC.
    const TIME: Millis = 1_549_411_238_000;

    fn logging(key_format: KeyFormat) -> Logging {
        Logging {
            target: "logs".to_owned(),
            prefix: "p/".to_owned(),
            key_format,
            grants: Vec::new(),
            owner: "me".to_owned(),
        }
    }

    #[test]
    fn a_line_has_every_field_of_the_published_form() {
        let line = Line {
            owner: "owner".to_owned(),
            bucket: "b".to_owned(),
            time: TIME,
            remote: "192.0.2.3".to_owned(),
            requester: "AKIA".to_owned(),
            request_id: "3E57427F33A59F07".to_owned(),
            operation: "REST.GET.OBJECT".to_owned(),
            key: "a b/c".to_owned(),
            request: "GET /b/a%20b/c HTTP/1.1".to_owned(),
            status: 200,
            sent: 5,
            size: Some(5),
            total_ms: 7,
            turnaround_ms: Some(6),
            agent: "curl/8 \"x\"\n".to_owned(),
            host_id: "h".to_owned(),
            signature: "SigV4",
            authentication: "AuthHeader",
            host: "localhost:9000".to_owned(),
            ..Line::default()
        };
        let text = line.write();
        assert_eq!(
            text,
            "owner b [06/Feb/2019:00:00:38 +0000] 192.0.2.3 AKIA 3E57427F33A59F07 REST.GET.OBJECT a%20b/c \
             \"GET /b/a%20b/c HTTP/1.1\" 200 - 5 5 7 6 \"-\" \"curl/8 %22x%22%0A\" - h SigV4 - AuthHeader \
             localhost:9000 - - -\n"
        );
    }

    #[test]
    fn a_client_cannot_write_lines_or_fields_of_its_own() {
        let line = Line {
            requester: "a b\nc".to_owned(),
            referer: "\" 200\r\n".to_owned(),
            ..Line::default()
        };
        let text = line.write();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.contains(" a%20b%0Ac "), "{text}");
        assert!(text.contains("\"%22 200%0D%0A\""), "{text}");
    }

    #[test]
    fn log_objects_are_named_by_time_and_place() {
        let object = LogObject {
            bucket: "b",
            region: "r",
            first: TIME,
            delivered: TIME + 86_400_000,
            unique: 255,
        };
        for (format, expected) in [
            (KeyFormat::Unset, "p/2019-02-07-00-00-38-00000000000000FF"),
            (KeyFormat::Simple, "p/2019-02-07-00-00-38-00000000000000FF"),
            (
                KeyFormat::ByEventTime,
                "p/me/r/b/2019/02/06/2019-02-06-00-00-00-00000000000000FF",
            ),
            (
                KeyFormat::ByDeliveryTime,
                "p/me/r/b/2019/02/07/2019-02-07-00-00-38-00000000000000FF",
            ),
        ] {
            assert_eq!(logging(format).key(object), expected);
        }
    }

    #[test]
    fn operations_have_the_names_of_the_log() {
        for (method, name, has_key, expected) in [
            ("GET", "GetObject", true, "REST.GET.OBJECT"),
            ("PUT", "CopyObject", true, "REST.COPY.OBJECT"),
            (
                "POST",
                "DeleteObjects",
                false,
                "REST.POST.MULTI_OBJECT_DELETE",
            ),
            ("GET", "ListObjectsV2", false, "REST.GET.BUCKET"),
            ("PUT", "unknown", true, "REST.PUT.OBJECT"),
            ("PUT", "unknown", false, "REST.PUT.BUCKET"),
            (
                "PUT",
                "PutBucketLifecycleConfiguration",
                false,
                "REST.PUT.LIFECYCLE",
            ),
        ] {
            assert_eq!(operation(method, name, has_key), expected);
        }
    }
}
