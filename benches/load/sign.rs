//! Signature Version 4 in headers, for requests whose path and query need no further encoding.
//!
//! The key of the day and the time stamp of the second are kept, so that a request costs two short
//! SHA-256 runs. See "Signature Calculations for the Authorization Header" in the S3 API reference.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// SHA-256 of no bytes: what a request without a body signs.
pub(crate) const EMPTY_DIGEST: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Signs the headers only and leaves the body out.
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

const REGION: &str = "us-east-1";
const SIGNED_HEADERS: &str = "host;x-amz-content-sha256;x-amz-date";

/// One request as far as its signature and its head need it.
pub(crate) struct RequestHead<'a> {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path, already percent-encoded.
    pub path: &'a str,
    /// The query without `?`: sorted by name, percent-encoded; may be empty.
    pub query: &'a str,
    /// The value of `x-amz-content-sha256`.
    pub payload: &'a str,
    /// Length of the body, where the method has one.
    pub content_length: Option<u64>,
    /// Further header lines, each ended by CRLF; not signed.
    pub extra: &'a str,
}

/// Writes signed request heads for one access key at one endpoint.
pub(crate) struct Signer {
    access_key: String,
    secret_key: String,
    host: String,
    second: u64,
    /// `20260131T235959Z`; its first eight characters are the day.
    stamp: String,
    scope: String,
    day_key: Option<Hmac<Sha256>>,
    canonical: Vec<u8>,
}

impl Signer {
    /// A signer for `host`, which is what the `Host` header will say.
    pub(crate) fn new(access_key: &str, secret_key: &str, host: &str) -> Self {
        Self {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            host: host.to_owned(),
            second: 0,
            stamp: String::new(),
            scope: String::new(),
            day_key: None,
            canonical: Vec::with_capacity(1024),
        }
    }

    /// Replaces `out` by the request's head, up to and with the empty line.
    pub(crate) fn write_head(&mut self, request: &RequestHead<'_>, out: &mut Vec<u8>) {
        self.turn_clock();
        let signature = self.signature(request);
        out.clear();
        put(out, &[request.method, " ", request.path]);
        if !request.query.is_empty() {
            put(out, &["?", request.query]);
        }
        put(out, &[" HTTP/1.1\r\nhost: ", &self.host]);
        put(out, &["\r\nx-amz-content-sha256: ", request.payload]);
        put(out, &["\r\nx-amz-date: ", &self.stamp]);
        put(out, &["\r\nauthorization: AWS4-HMAC-SHA256 Credential="]);
        put(out, &[&self.access_key, "/", &self.scope]);
        put(out, &[", SignedHeaders=", SIGNED_HEADERS, ", Signature="]);
        out.extend_from_slice(&signature);
        out.extend_from_slice(b"\r\n");
        if let Some(length) = request.content_length {
            write!(out, "content-length: {length}\r\n").expect("writing to memory does not fail");
        }
        put(out, &[request.extra, "\r\n"]);
    }

    fn signature(&mut self, request: &RequestHead<'_>) -> [u8; 64] {
        let text = &mut self.canonical;
        text.clear();
        put(text, &[request.method, "\n", request.path, "\n"]);
        put(text, &[request.query, "\nhost:", &self.host]);
        put(text, &["\nx-amz-content-sha256:", request.payload]);
        put(text, &["\nx-amz-date:", &self.stamp, "\n\n"]);
        put(text, &[SIGNED_HEADERS, "\n", request.payload]);
        let digest = hex_digest(&Sha256::digest(&*text));

        text.clear();
        put(text, &["AWS4-HMAC-SHA256\n", &self.stamp, "\n"]);
        put(text, &[&self.scope, "\n"]);
        text.extend_from_slice(&digest);
        let mut mac = self
            .day_key
            .clone()
            .expect("turn_clock has made the key of the day");
        mac.update(text);
        hex_digest(&mac.finalize().into_bytes())
    }

    /// Brings the time stamp up to the second and the key up to the day.
    fn turn_clock(&mut self) {
        let second = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if second == self.second && self.day_key.is_some() {
            return;
        }
        let same_day = second / 86_400 == self.second / 86_400;
        self.second = second;
        self.stamp = format_stamp(second);
        if same_day && self.day_key.is_some() {
            return;
        }
        let day = self.stamp[..8].to_owned();
        self.scope = format!("{day}/{REGION}/s3/aws4_request");
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for step in [day.as_str(), REGION, "s3", "aws4_request"] {
            let mut mac = keyed(&key);
            mac.update(step.as_bytes());
            key = mac.finalize().into_bytes().to_vec();
        }
        self.day_key = Some(keyed(&key));
    }
}

/// SHA-256 of `bytes`, in lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn hex_digest(digest: &[u8]) -> [u8; 64] {
    let mut text = [0; 64];
    hex::encode_to_slice(digest, &mut text).expect("a SHA-256 digest has 32 bytes");
    text
}

fn put(out: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Seconds since 1970 as `20260131T235959Z`, by Howard Hinnant's days-to-civil rule.
fn format_stamp(second: u64) -> String {
    let days = second / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let time = second % 86_400;
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        time / 3_600,
        time / 60 % 60,
        time % 60
    )
}
