//! The policy of a form: whose it is, what it allows, and whether a form keeps to it. Pure.
//!
//! "POST policy" and "Calculating a signature" under "Browser-based uploads using POST" in the S3 API
//! reference. `s3s` parses the document; what it decides differs from AWS in codes and in what must be
//! covered, so that is decided here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use s3s::post_policy::{PostPolicy, PostPolicyCondition, PostPolicyError};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use sha1::Sha1;
use sha2::Sha256;

use super::fields::Fields;
use crate::model::clock::Millis;
use crate::s3::convert;

/// How a form of signature version 4 says so.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How a form is signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed<'f> {
    pub(super) access_key: &'f str,
    /// The document, as it was signed.
    pub(super) policy: &'f str,
    proof: Proof<'f>,
}

/// What shows that the key's holder signed the policy.
#[derive(Debug, PartialEq, Eq)]
enum Proof<'f> {
    /// Version 4: a key derived for date and region. Any region will do: it is only a part of what is signed.
    V4 {
        date: &'f str,
        region: &'f str,
        signature: [u8; 32],
    },
    /// Version 2, which boto3 still makes by default for an endpoint that is not AWS's.
    V2 { signature: Vec<u8> },
}

fn missing(field: &str) -> S3Error {
    s3_error!(
        InvalidArgument,
        "Bucket POST must contain a field named '{field}'.  If it is specified, please check the order of the fields."
    )
}

fn malformed(message: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::AuthorizationQueryParametersError, message)
}

impl<'f> Signed<'f> {
    /// Reads the signature's fields; `None` for a form without any, which is nobody's.
    pub(super) fn of(fields: &'f Fields) -> S3Result<Option<Self>> {
        match fields.get("policy") {
            Some(policy) => Self::with(policy, fields).map(Some),
            None => {
                let names = ["x-amz-signature", "signature"];
                match names.iter().any(|name| fields.get(name).is_some()) {
                    true => Err(missing("policy")),
                    false => Ok(None),
                }
            }
        }
    }

    fn with(policy: &'f str, fields: &'f Fields) -> S3Result<Self> {
        let required = |name: &str| fields.get(name).ok_or_else(|| missing(name));
        let is_old = ["awsaccesskeyid", "signature"]
            .iter()
            .any(|name| fields.get(name).is_some());
        if is_old && fields.get("x-amz-algorithm").is_none() {
            let access_key = required("awsaccesskeyid")?;
            let signature = BASE64
                .decode(required("signature")?)
                .map_err(|_| does_not_match())?;
            return Ok(Self {
                access_key,
                policy,
                proof: Proof::V2 { signature },
            });
        }
        if required("x-amz-algorithm")? != ALGORITHM {
            return Err(malformed(
                "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256\"",
            ));
        }
        let credential: Vec<&str> = required("x-amz-credential")?.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = credential[..] else {
            return Err(malformed(
                "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
            ));
        };
        if service != "s3" {
            return Err(malformed(
                "Error parsing the X-Amz-Credential parameter; incorrect service. This endpoint belongs to \"s3\".",
            ));
        }
        let moment = required("x-amz-date")?;
        if !is_moment(moment) || moment.get(..8) != Some(date) {
            return Err(malformed(
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\", and of the Credential's date",
            ));
        }
        let mut signature = [0; 32];
        hex::decode_to_slice(required("x-amz-signature")?, &mut signature)
            .map_err(|_| does_not_match())?;
        Ok(Self {
            access_key,
            policy,
            proof: Proof::V4 {
                date,
                region,
                signature,
            },
        })
    }

    /// Compares the signature with the one `secret` makes, in constant time.
    pub(super) fn verify(&self, secret: &str) -> S3Result<()> {
        let same = match &self.proof {
            Proof::V4 {
                date,
                region,
                signature,
            } => {
                let mut key = format!("AWS4{secret}").into_bytes();
                for step in [*date, *region, "s3", "aws4_request"] {
                    key = mac(&key, step).finalize().into_bytes().to_vec();
                }
                mac(&key, self.policy).verify_slice(signature)
            }
            Proof::V2 { signature } => Hmac::<Sha1>::new_from_slice(secret.as_bytes())
                .expect("HMAC takes keys of any length")
                .chain_update(self.policy)
                .verify_slice(signature),
        };
        same.map_err(|_| does_not_match())
    }
}

fn mac(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

fn does_not_match() -> S3Error {
    s3_error!(
        SignatureDoesNotMatch,
        "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    )
}

/// `20260101T000000Z`.
fn is_moment(text: &str) -> bool {
    text.len() == 16
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

/// Whether a policy's expiration is ISO 8601 in UTC, the only form S3 takes; `s3s` reads others too.
fn is_utc(document: &str) -> bool {
    let found = || {
        let text = BASE64.decode(document).ok()?;
        let policy: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let expiration = policy.get("expiration")?.as_str()?;
        Some(expiration.as_bytes().get(10) == Some(&b'T') && expiration.ends_with('Z'))
    };
    found() == Some(true)
}

/// How many bytes a policy lets a file have; both ends allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Sizes {
    /// What no policy says.
    pub(super) const ANY: Self = Self {
        min: 0,
        max: u64::MAX,
    };
}

/// Whether a form keeps to its policy, as far as that is known before its file is read.
pub(super) fn check(document: &str, bucket: &str, fields: &Fields, now: Millis) -> S3Result<Sizes> {
    let policy = PostPolicy::from_base64(document).map_err(|error| invalid_document(&error))?;
    if !is_utc(document) {
        return Err(invalid_document(&PostPolicyError::InvalidExpiration(
            String::new(),
        )));
    }
    if convert::millis(&policy.expiration) <= now {
        return Err(against("Policy expired."));
    }
    let mut sizes = Sizes {
        min: 0,
        max: u64::MAX,
    };
    let value = |name: &str| match name {
        "bucket" => Some(bucket),
        name => fields.get(name),
    };
    for condition in &policy.conditions {
        let (holds, operator, name, wanted) = match condition {
            PostPolicyCondition::ContentLengthRange { min, max } => {
                sizes.min = sizes.min.max(*min);
                sizes.max = sizes.max.min(*max);
                continue;
            }
            PostPolicyCondition::Eq {
                field,
                value: wanted,
            } => (value(field) == Some(wanted.as_str()), "eq", field, wanted),
            PostPolicyCondition::StartsWith { field, prefix } => {
                let found = value(field).unwrap_or_default();
                (
                    starts_with(field, found, prefix),
                    "starts-with",
                    field,
                    prefix,
                )
            }
        };
        if !holds {
            return Err(against(format_args!(
                "Policy Condition failed: [\"{operator}\", \"${name}\", \"{wanted}\"]"
            )));
        }
    }
    let is_covered = |name: &str| {
        policy.conditions.iter().any(|condition| match condition {
            PostPolicyCondition::Eq { field, .. }
            | PostPolicyCondition::StartsWith { field, .. } => field == name,
            PostPolicyCondition::ContentLengthRange { .. } => false,
        })
    };
    // The bucket is a field of every form, in its URL: a policy that does not name one is for none.
    let uncovered = std::iter::once("bucket")
        .chain(fields.names())
        .find(|name| !is_exempt(name) && !is_covered(name));
    match uncovered {
        Some(name) => Err(against(format_args!("Extra input fields: {name}"))),
        None if fields.get("bucket").is_some_and(|named| named != bucket) => {
            Err(against("Extra input fields: bucket"))
        }
        None => Ok(sizes),
    }
}

/// Each value of a list of types must have the prefix; everything else is one value.
fn starts_with(field: &str, found: &str, prefix: &str) -> bool {
    match field {
        "content-type" => found
            .split(',')
            .all(|value| value.trim_start().starts_with(prefix)),
        _ => found.starts_with(prefix),
    }
}

fn is_exempt(name: &str) -> bool {
    let of_signature = ["x-amz-signature", "awsaccesskeyid", "signature"];
    of_signature.contains(&name)
        || matches!(name, "policy" | "file")
        || name.starts_with("x-ignore-")
}

fn against(what: impl std::fmt::Display) -> S3Error {
    s3_error!(AccessDenied, "Invalid according to Policy: {what}")
}

fn invalid_document(error: &PostPolicyError) -> S3Error {
    let message = match error {
        PostPolicyError::Base64(_) | PostPolicyError::Utf8(_) => "Invalid Policy: Invalid Base64.",
        PostPolicyError::Json(_) | PostPolicyError::MissingField(_) => {
            "Invalid Policy: Invalid JSON."
        }
        PostPolicyError::InvalidCondition => "Invalid Policy: Invalid condition.",
        PostPolicyError::InvalidExpiration(_) => "Invalid Policy: Invalid 'expiration' value.",
    };
    S3Error::with_message(S3ErrorCode::InvalidPolicyDocument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_767_225_600_000;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.add(name, value).unwrap();
        }
        fields
    }

    fn decide(conditions: &str, pairs: &[(&str, &str)]) -> Result<Sizes, (String, String)> {
        let document =
            format!(r#"{{"expiration": "2026-01-01T00:00:01Z", "conditions": [{conditions}]}}"#);
        check(&BASE64.encode(document), "b", &fields(pairs), NOW).map_err(|error| {
            (
                error.code().as_str().to_owned(),
                error.message().unwrap_or_default().to_owned(),
            )
        })
    }

    #[test]
    fn forms_keep_to_their_policies_or_are_denied() {
        let any = Sizes {
            min: 0,
            max: u64::MAX,
        };
        type Pairs<'p> = &'p [(&'p str, &'p str)];
        let allowed: [(&str, Pairs<'_>); 9] = [
            (r#"{"bucket": "b"}"#, &[]),
            (r#"{"bucket": "b"}, ["eq", "$key", "k"]"#, &[("key", "k")]),
            (
                r#"["starts-with", "$bucket", ""], ["starts-with", "$key", "user/"]"#,
                &[("key", "user/k")],
            ),
            (
                r#"{"bucket": "b"}, {"X-Amz-Meta-A": "1"}"#,
                &[("x-amz-meta-a", "1")],
            ),
            (
                r#"{"bucket": "b"}, ["starts-with", "$Content-Type", "image/"]"#,
                &[("Content-Type", "image/a, image/b")],
            ),
            (r#"{"bucket": "b"}, ["starts-with", "$acl", ""]"#, &[]),
            (
                r#"{"bucket": "b"}"#,
                &[
                    ("x-ignore-me", "1"),
                    ("policy", "p"),
                    ("x-amz-signature", "s"),
                ],
            ),
            (
                r#"{"bucket": "b"}, ["eq", "$key", "\\$foo"]"#,
                &[("key", "\\$foo")],
            ),
            (r#"{"bucket": "b"}"#, &[("bucket", "b")]),
        ];
        for (conditions, pairs) in allowed {
            assert_eq!(decide(conditions, pairs), Ok(any), "{conditions} {pairs:?}");
        }
        let denied: [(&str, Pairs<'_>, &str); 8] = [
            ("", &[], "Extra input fields: bucket"),
            (
                r#"{"bucket": "other"}"#,
                &[],
                r#"Policy Condition failed: ["eq", "$bucket", "other"]"#,
            ),
            (
                r#"{"bucket": "b"}"#,
                &[("key", "k")],
                "Extra input fields: key",
            ),
            (
                r#"{"bucket": "b"}, {"key": "k"}"#,
                &[("key", "K")],
                r#"Policy Condition failed: ["eq", "$key", "k"]"#,
            ),
            (
                r#"{"bucket": "b"}, {"acl": "private"}"#,
                &[],
                r#"Policy Condition failed: ["eq", "$acl", "private"]"#,
            ),
            (
                r#"{"bucket": "b"}, ["starts-with", "$Content-Type", "image/"]"#,
                &[("Content-Type", "image/a,text/b")],
                r#"Policy Condition failed: ["starts-with", "$content-type", "image/"]"#,
            ),
            (
                r#"{"bucket": "b"}, ["content-length-range", 0, 9]"#,
                &[("content-length-range", "1")],
                "Extra input fields: content-length-range",
            ),
            (
                r#"{"bucket": "b"}"#,
                &[("bucket", "c")],
                "Extra input fields: bucket",
            ),
        ];
        for (conditions, pairs, text) in denied {
            assert_eq!(
                decide(conditions, pairs),
                Err((
                    "AccessDenied".to_owned(),
                    format!("Invalid according to Policy: {text}")
                )),
                "{conditions} {pairs:?}"
            );
        }
    }

    #[test]
    fn ranges_of_length_are_joined() {
        let bucket =
            r#"{"bucket": "b"}, ["content-length-range", 2, 9], ["content-length-range", 1, 5]"#;
        assert_eq!(decide(bucket, &[]), Ok(Sizes { min: 2, max: 5 }));
    }

    #[test]
    fn malformed_policies_are_invalid_documents() {
        for conditions in [
            "{}",
            r#"{"a": "1", "b": "2"}"#,
            r#"["eq", "$key"]"#,
            r#"["like", "$key", "k"]"#,
            r#"["content-length-range", -1, 0]"#,
            r#"["content-length-range", 0]"#,
            r#"["content-length-range", 9, 1]"#,
            "7",
            r#"{"a": 1}"#,
        ] {
            assert_eq!(
                decide(conditions, &[]).unwrap_err().0,
                "InvalidPolicyDocument",
                "{conditions}"
            );
        }
        let documents = [
            "not json",
            "{}",
            r#"{"expiration": "soon", "conditions": []}"#,
            r#"{"conditions": []}"#,
            r#"{"expiration": "2027-01-01T00:00:00Z"}"#,
            r#"{"EXPIRATION": "2027-01-01T00:00:00Z", "conditions": []}"#,
        ];
        for document in documents {
            let error = check(&BASE64.encode(document), "b", &Fields::default(), NOW).unwrap_err();
            assert_eq!(error.code().as_str(), "InvalidPolicyDocument", "{document}");
        }
        assert!(check("!", "b", &Fields::default(), NOW).is_err());
        // Deeply nested documents are refused, not followed.
        let deep = format!("{}{}", "[".repeat(9000), "]".repeat(9000));
        assert_eq!(decide(&deep, &[]).unwrap_err().0, "InvalidPolicyDocument");
    }

    #[test]
    fn an_expired_policy_is_denied() {
        let document = BASE64
            .encode(r#"{"expiration": "2026-01-01T00:00:00Z", "conditions": [{"bucket": "b"}]}"#);
        let error = check(&document, "b", &Fields::default(), NOW).unwrap_err();
        assert_eq!(error.code().as_str(), "AccessDenied");
        assert!(check(&document, "b", &Fields::default(), NOW - 1).is_ok());
    }

    /// The example of "Browser-based upload using HTTP POST" in the S3 API reference.
    const POLICY: &str = "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiLA0KICAiY29uZGl0aW9ucyI6IFsNCiAgICB7ImJ1Y2tldCI6ICJzaWd2NGV4YW1wbGVidWNrZXQifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRrZXkiLCAidXNlci91c2VyMS8iXSwNCiAgICB7ImFjbCI6ICJwdWJsaWMtcmVhZCJ9LA0KICAgIHsic3VjY2Vzc19hY3Rpb25fcmVkaXJlY3QiOiAiaHR0cDovL3NpZ3Y0ZXhhbXBsZWJ1Y2tldC5zMy5hbWF6b25hd3MuY29tL3N1Y2Nlc3NmdWxfdXBsb2FkLmh0bWwifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRDb250ZW50LVR5cGUiLCAiaW1hZ2UvIl0sDQogICAgeyJ4LWFtei1tZXRhLXV1aWQiOiAiMTQzNjUxMjM2NTEyNzQifSwNCiAgICB7IngtYW16LXNlcnZlci1zaWRlLWVuY3J5cHRpb24iOiAiQUVTMjU2In0sDQogICAgWyJzdGFydHMtd2l0aCIsICIkeC1hbXotbWV0YS10YWciLCAiIl0sDQoNCiAgICB7IngtYW16LWNyZWRlbnRpYWwiOiAiQUtJQUlPU0ZPRE5ON0VYQU1QTEUvMjAxNTEyMjkvdXMtZWFzdC0xL3MzL2F3czRfcmVxdWVzdCJ9LA0KICAgIHsieC1hbXotYWxnb3JpdGhtIjogIkFXUzQtSE1BQy1TSEEyNTYifSwNCiAgICB7IngtYW16LWRhdGUiOiAiMjAxNTEyMjlUMDAwMDAwWiIgfQ0KICBdDQp9";
    const SIGNATURE: &str = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn signed(changed: &[(&str, &str)]) -> Fields {
        let mut pairs = vec![
            ("policy", POLICY),
            ("x-amz-algorithm", ALGORITHM),
            (
                "x-amz-credential",
                "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request",
            ),
            ("x-amz-date", "20151229T000000Z"),
            ("x-amz-signature", SIGNATURE),
        ];
        pairs.retain(|(name, _)| !changed.iter().any(|(other, _)| name == other));
        pairs.extend(changed.iter().filter(|(_, value)| !value.is_empty()));
        fields(&pairs)
    }

    #[test]
    fn the_published_example_verifies() {
        let fields = signed(&[]);
        let found = Signed::of(&fields).unwrap().unwrap();
        assert_eq!(found.access_key, "AKIAIOSFODNN7EXAMPLE");
        assert!(found.verify(SECRET).is_ok());
        assert!(found.verify("other").is_err());
        let fields = signed(&[("policy", &POLICY[4..])]);
        let found = Signed::of(&fields).unwrap().unwrap();
        assert!(found.verify(SECRET).is_err());
        let nobodys = signed(&[("policy", ""), ("x-amz-signature", "")]);
        assert_eq!(Signed::of(&nobodys).unwrap(), None);
    }

    #[test]
    fn a_form_of_version_2_verifies_too() {
        let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(POLICY.as_bytes());
        let signature = BASE64.encode(mac.finalize().into_bytes());
        let pairs = [
            ("policy", POLICY),
            ("awsaccesskeyid", "AKIA"),
            ("signature", signature.as_str()),
        ];
        let fields = fields(&pairs);
        let found = Signed::of(&fields).unwrap().unwrap();
        assert_eq!(found.access_key, "AKIA");
        assert!(found.verify(SECRET).is_ok());
        assert!(found.verify("other").is_err());
    }

    #[test]
    fn an_expiration_must_be_utc() {
        let document = |expiration: &str| {
            BASE64.encode(format!(
                r#"{{"expiration":"{expiration}","conditions":[]}}"#
            ))
        };
        assert!(is_utc(&document("2026-11-23T09:30:00.000Z")));
        assert!(!is_utc(&document("2026-11-23 09:30:00.1+00:00")));
    }

    #[test]
    fn incomplete_signatures_are_refused() {
        let scope = "AKIA/20151229/us-east-1";
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("policy", "")], "InvalidArgument"),
            (&[("x-amz-signature", "")], "InvalidArgument"),
            (&[("x-amz-credential", "")], "InvalidArgument"),
            (&[("x-amz-signature", "00")], "SignatureDoesNotMatch"),
            (
                &[("x-amz-credential", scope)],
                "AuthorizationQueryParametersError",
            ),
            (
                &[("awsaccesskeyid", "A"), ("x-amz-algorithm", "")],
                "InvalidArgument",
            ),
            (
                &[("x-amz-date", "20151230T000000Z")],
                "AuthorizationQueryParametersError",
            ),
            (
                &[("x-amz-algorithm", "AWS4-HMAC-SHA1")],
                "AuthorizationQueryParametersError",
            ),
        ];
        for (changed, code) in cases {
            let fields = signed(changed);
            let error = Signed::of(&fields).unwrap_err();
            assert_eq!(error.code().as_str(), code, "{changed:?}");
        }
    }
}
