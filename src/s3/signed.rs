//! What of a request its signature covers, and what is refused before the signature is looked at.
//!
//! `s3s` verifies signatures. Here is what it leaves open: headers that were added on the way, headers that travel
//! in the query of a presigned URL, and forms of signing that are not taken.

use http::{HeaderMap, HeaderValue, Request};
use s3s::{S3Error, S3Result, s3_error};

use super::access::Proof;
use super::error;
use crate::model::digest::{Checksum, ChecksumAlgorithm, Sha256Digest};

/// Longest life of a presigned URL.
const PRESIGNED_MAX_SECONDS: i64 = 7 * 24 * 3600;

pub(super) fn proof_of(headers: &HeaderMap) -> Proof {
    if headers.contains_key(http::header::AUTHORIZATION) {
        Proof::Header
    } else {
        Proof::Handed
    }
}

/// The names in `SignedHeaders`, of the header or of a presigned URL's query.
fn signed_headers(headers: &HeaderMap, query: Option<&str>, proof: Proof) -> Option<String> {
    match proof {
        Proof::Header => {
            let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
            let list = value.split("SignedHeaders=").nth(1)?;
            Some(list.split(',').next()?.trim().to_ascii_lowercase())
        }
        Proof::Handed => form_urlencoded::parse(query?.as_bytes())
            .find(|(name, _)| name.eq_ignore_ascii_case("X-Amz-SignedHeaders"))
            .map(|(_, value)| value.to_ascii_lowercase()),
        Proof::Form | Proof::None => None,
    }
}

/// The parameters of a presigned URL of version 4 that stand for headers: some SDKs put those into the query,
/// where the signature covers them as well. Checksums are left out: what they are of there is an empty body.
fn folded_headers(query: &str) -> impl Iterator<Item = (String, String)> {
    const OWN: [&str; 9] = [
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
        "x-amz-content-sha256",
        "x-amz-sdk-checksum-algorithm",
    ];
    let is_presigned = query.contains("X-Amz-Signature=");
    let query = if is_presigned { query } else { "" };
    form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned()))
        .filter(|(name, _)| {
            name.starts_with("x-amz-")
                && !OWN.contains(&name.as_str())
                && !name.starts_with("x-amz-checksum-")
        })
}

/// Gives a presigned URL's parameters that stand for headers to the request as headers. One that comes as a header
/// too is left as it came: see [`check_signed_headers`].
pub(super) fn unfold_headers<B>(request: &mut Request<B>) {
    let query = request.uri().query().unwrap_or_default();
    let folded: Vec<_> = folded_headers(query).collect();
    for (name, value) in folded {
        let name = http::HeaderName::try_from(name);
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().entry(name).or_insert(value);
        }
    }
}

/// Refuses `x-amz-*` headers that the signature does not cover: somebody may have added them on the way.
/// A presigned URL need not cover `x-amz-content-sha256`, which clients add by themselves and which can only
/// make the request fail.
pub(super) fn check_signed_headers(
    headers: &HeaderMap,
    query: Option<&str>,
    proof: Proof,
) -> S3Result<()> {
    let Some(signed) = signed_headers(headers, query, proof) else {
        return Ok(());
    };
    let folded: Vec<_> = match proof {
        Proof::Handed => folded_headers(query.unwrap_or_default()).collect(),
        Proof::Header | Proof::Form | Proof::None => Vec::new(),
    };
    // Signed as a header, or in the query with this very value.
    let covered = |name: &str| {
        let in_query = || {
            let all = headers.get_all(name).iter().map(HeaderValue::as_bytes);
            let mut signed = folded.iter().filter(|(signed, _)| signed == name);
            let wanted = signed.next().filter(|_| signed.next().is_none());
            wanted.is_some_and(|(_, wanted)| all.eq([wanted.as_bytes()]))
        };
        signed.split(';').any(|entry| entry == name) || in_query()
    };
    for name in headers.keys() {
        let name = name.as_str();
        let exempt = proof == Proof::Handed && name == "x-amz-content-sha256";
        if name.starts_with("x-amz-") && !exempt && !covered(name) {
            return Err(s3_error!(
                AccessDenied,
                "There were headers present in the request which were not signed"
            ));
        }
    }
    Ok(())
}

/// The SHA-256 of the body that the signature in the header covers, in either of the two headers that can
/// carry it. `true`: `s3s` verifies it while the body streams.
pub(super) fn signed_sha256(headers: &HeaderMap) -> Option<(Sha256Digest, bool)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(digest) = text("x-amz-content-sha256").and_then(Sha256Digest::from_hex) {
        return Some((digest, true));
    }
    let checksum = Checksum::parse(ChecksumAlgorithm::Sha256, text("x-amz-checksum-sha256")?)?;
    Some((Sha256Digest(checksum.value.try_into().ok()?), false))
}

/// Refuses what `s3s` would accept and we do not: signature version 2 in the header, which signs with SHA-1
/// and which no SDK of today sends, and presigned URLs that live longer than a week. Version 2 in a presigned
/// URL is let through: boto3 still makes such URLs by default for an endpoint that is not AWS's.
pub(super) fn refuse_early<B>(request: &Request<B>) -> Option<S3Error> {
    let header = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .is_some_and(|value| value.as_bytes().starts_with(b"AWS "));
    if header {
        return Some(s3_error!(
            InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        ));
    }
    let query = request.uri().query()?;
    let lifetime = form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "X-Amz-Expires")
        .map(|(_, value)| value.parse::<i64>());
    match lifetime? {
        Ok(seconds) if (0..=PRESIGNED_MAX_SECONDS).contains(&seconds) => None,
        _ => Some(error::custom(
            "AuthorizationQueryParametersError",
            400,
            "X-Amz-Expires must be a number from 0 to a week in seconds: 604800",
        )),
    }
}

/// Gives a presigned URL of version 2 its token as the header it was signed as: that version signs headers
/// and has them travel in the query, which `s3s` does not look into.
pub(super) fn unfold_token<B>(request: &mut Request<B>) {
    const TOKEN: &str = "x-amz-security-token";
    let query = request.uri().query().unwrap_or_default();
    if !query.contains(TOKEN) || !query.contains("Signature=") || query.contains("X-Amz-") {
        return;
    }
    let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == TOKEN);
    let value = found.and_then(|(_, value)| HeaderValue::from_str(&value).ok());
    if let Some(value) = value {
        request.headers_mut().insert(TOKEN, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_version_2_is_a_header_again() {
        let unfolded = |uri: &str| {
            let mut request = Request::get(uri).body(()).unwrap();
            unfold_token(&mut request);
            request.headers().get("x-amz-security-token").cloned()
        };
        let old = "/b/k?AWSAccessKeyId=A&Signature=s&x-amz-security-token=a%2Fb%3D";
        assert_eq!(unfolded(old).unwrap(), "a/b=");
        assert_eq!(
            unfolded("/b/k?X-Amz-Signature=s&x-amz-security-token=t"),
            None
        );
        assert_eq!(unfolded("/b/k?x-amz-security-token=t"), None);
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn an_unsigned_amz_header_is_refused() {
        let authorization = "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00";
        let signed = headers(&[("authorization", authorization), ("x-amz-date", "d")]);
        assert!(check_signed_headers(&signed, None, Proof::Header).is_ok());
        let added = headers(&[("authorization", authorization), ("x-amz-acl", "private")]);
        assert!(check_signed_headers(&added, None, Proof::Header).is_err());
    }

    #[test]
    fn a_presigned_url_covers_its_amz_headers_but_the_payload_hash() {
        let query = Some("X-Amz-SignedHeaders=host%3Bx-amz-meta-a&X-Amz-Signature=0");
        let fine = headers(&[
            ("x-amz-meta-a", "1"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ]);
        assert!(check_signed_headers(&fine, query, Proof::Handed).is_ok());
        let added = headers(&[("x-amz-meta-b", "1")]);
        assert!(check_signed_headers(&added, query, Proof::Handed).is_err());
    }

    #[test]
    fn a_presigned_url_covers_headers_that_travel_in_its_query() {
        let uri = "/b/k?X-Amz-SignedHeaders=host&x-amz-acl=public-read&X-Amz-Signature=0&x-amz-checksum-crc32=A";
        let request = |given: Option<&str>| {
            let mut request = Request::put(uri).body(()).unwrap();
            if let Some(given) = given {
                request
                    .headers_mut()
                    .insert("x-amz-acl", given.parse().unwrap());
            }
            unfold_headers(&mut request);
            let checked =
                check_signed_headers(request.headers(), request.uri().query(), Proof::Handed);
            let headers = request.headers();
            assert!(!headers.contains_key("x-amz-checksum-crc32"));
            (headers.get("x-amz-acl").cloned().unwrap(), checked.is_ok())
        };
        assert_eq!(request(None), ("public-read".parse().unwrap(), true));
        assert!(request(Some("public-read")).1);
        assert!(!request(Some("public-read-write")).1);
        // Twice in the query is not one value.
        let query = Some("X-Amz-SignedHeaders=host&X-Amz-Signature=0&x-amz-acl=a&x-amz-acl=b");
        let given = headers(&[("x-amz-acl", "a")]);
        assert!(check_signed_headers(&given, query, Proof::Handed).is_err());
    }

    #[test]
    fn version_2_headers_and_long_lived_urls_are_refused() {
        let refused =
            |request: http::request::Builder| refuse_early(&request.body(()).unwrap()).is_some();
        assert!(refused(
            Request::get("/b/k").header("authorization", "AWS A:s")
        ));
        assert!(!refused(Request::get(
            "/b/k?AWSAccessKeyId=A&Signature=s&Expires=1"
        )));
        assert!(!refused(Request::get("/b/k?X-Amz-Expires=604800")));
        assert!(refused(Request::get("/b/k?X-Amz-Expires=604801")));
        assert!(refused(Request::get("/b/k?X-Amz-Expires=-1")));
        assert!(refused(Request::get("/b/k?X-Amz-Expires=soon")));
    }
}
