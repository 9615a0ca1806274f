//! What AWS adds to an error's document beside code and text, as far as the request says it.

use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::Target;

/// What of a request an error's details are made of.
pub(super) struct Facts {
    uri: Uri,
    method: Method,
    authorization: Option<HeaderValue>,
    range: Option<HeaderValue>,
    if_match: Option<HeaderValue>,
    if_none_match: Option<HeaderValue>,
    if_unmodified_since: Option<HeaderValue>,
}

type Details = Vec<(&'static str, String)>;

impl Facts {
    /// Clones nothing but reference counts.
    pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            uri: uri.clone(),
            method: method.clone(),
            authorization: headers.get(header::AUTHORIZATION).cloned(),
            range: headers.get(header::RANGE).cloned(),
            if_match: headers.get(header::IF_MATCH).cloned(),
            if_none_match: headers.get(header::IF_NONE_MATCH).cloned(),
            if_unmodified_since: headers.get(header::IF_UNMODIFIED_SINCE).cloned(),
        }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    fn parameter(&self, wanted: &str) -> Option<String> {
        let query = self.uri.query()?;
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    }

    /// A value in the authorization header, such as that of `Signature=`.
    fn authorization(&self, name: &str) -> Option<&str> {
        let text = self.authorization.as_ref()?.to_str().ok()?;
        let (_, rest) = text.split_once(name)?;
        Some(rest.split(',').next()?.trim())
    }

    fn access_key(&self) -> Option<String> {
        let scope = self.authorization("Credential=").map(str::to_owned);
        scope
            .or_else(|| self.parameter("X-Amz-Credential"))
            .and_then(|scope| Some(scope.split('/').next()?.to_owned()))
            .or_else(|| self.parameter("AWSAccessKeyId"))
    }

    fn signature(&self) -> Option<String> {
        self.authorization("Signature=")
            .map(str::to_owned)
            .or_else(|| self.parameter("X-Amz-Signature"))
            .or_else(|| self.parameter("Signature"))
    }

    /// The condition that did not hold. One that is not looked at beside another cannot have failed, and a
    /// read with `If-None-Match` is answered 304.
    fn failed_condition(&self) -> Option<&'static str> {
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        if self.if_match.is_some() {
            Some("If-Match")
        } else if self.if_none_match.is_some() && !reads {
            Some("If-None-Match")
        } else if self.if_unmodified_since.is_some() {
            Some("If-Unmodified-Since")
        } else {
            None
        }
    }

    /// The elements of the document of `code`, in AWS's order; `answer` are the headers of the answer.
    pub(super) fn details(
        &self,
        code: &str,
        target: Option<&Target>,
        answer: &HeaderMap,
    ) -> Details {
        let bucket = || target.map(|target| target.bucket.clone());
        let key = || target.map(|target| target.key.clone());
        let found = match code {
            "NoSuchKey" => vec![("Key", key())],
            "NoSuchVersion" => vec![("Key", key()), ("VersionId", self.parameter("versionId"))],
            "NoSuchUpload" => vec![("UploadId", self.parameter("uploadId"))],
            "NoSuchBucket"
            | "InvalidBucketName"
            | "BucketNotEmpty"
            | "BucketAlreadyExists"
            | "BucketAlreadyOwnedByYou"
            | "NoSuchCORSConfiguration"
            | "NoSuchTagSet"
            | "NoSuchWebsiteConfiguration"
            | "ReplicationConfigurationNotFoundError" => vec![("BucketName", bucket())],
            "MethodNotAllowed" => {
                let resource = target.map(|target| target.resource_type().to_owned());
                let method = Some(self.method.as_str().to_owned());
                vec![("Method", method), ("ResourceType", resource)]
            }
            "PreconditionFailed" => {
                vec![("Condition", self.failed_condition().map(str::to_owned))]
            }
            "InvalidRange" => {
                let range = self.range.as_ref().and_then(|range| range.to_str().ok());
                let size = answer.get(header::CONTENT_RANGE);
                let size = size.and_then(|range| range.to_str().ok()?.strip_prefix("bytes */"));
                vec![
                    ("RangeRequested", range.map(str::to_owned)),
                    ("ActualObjectSize", size.map(str::to_owned)),
                ]
            }
            "InvalidAccessKeyId" => vec![("AWSAccessKeyId", self.access_key())],
            "SignatureDoesNotMatch" => vec![
                ("AWSAccessKeyId", self.access_key()),
                ("SignatureProvided", self.signature()),
            ],
            _ => Vec::new(),
        };
        let known = |(name, text): (_, Option<String>)| Some((name, text?));
        found.into_iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn facts(method: Method, uri: &str, headers: &[(&'static str, &str)]) -> Facts {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        Facts::of(&method, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn an_error_says_what_it_is_about() {
        let v4 = "AWS4-HMAC-SHA256 Credential=AK/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=5ec";
        let target = Target {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
        };
        let mut answer = HeaderMap::new();
        answer.insert(header::CONTENT_RANGE, "bytes */7".parse().unwrap());
        for (code, facts, expected) in [
            ("NoSuchKey", facts(Method::GET, "/b/k", &[]), "Key=k"),
            (
                "NoSuchVersion",
                facts(Method::GET, "/b/k?versionId=a%2Fb", &[]),
                "Key=k VersionId=a/b",
            ),
            (
                "NoSuchUpload",
                facts(Method::PUT, "/b/k?partNumber=1&uploadId=u", &[]),
                "UploadId=u",
            ),
            (
                "MethodNotAllowed",
                facts(Method::PATCH, "/b/k", &[]),
                "Method=PATCH ResourceType=OBJECT",
            ),
            (
                "InvalidRange",
                facts(Method::GET, "/b/k", &[("range", "bytes=9-")]),
                "RangeRequested=bytes=9- ActualObjectSize=7",
            ),
            (
                "SignatureDoesNotMatch",
                facts(Method::GET, "/b/k", &[("authorization", v4)]),
                "AWSAccessKeyId=AK SignatureProvided=5ec",
            ),
            (
                "InvalidAccessKeyId",
                facts(Method::GET, "/b/k?X-Amz-Credential=AK%2F2026", &[]),
                "AWSAccessKeyId=AK",
            ),
            (
                "InvalidAccessKeyId",
                facts(Method::GET, "/b/k?AWSAccessKeyId=AK", &[]),
                "AWSAccessKeyId=AK",
            ),
            (
                "PreconditionFailed",
                facts(Method::PUT, "/b/k", &[("if-none-match", "*")]),
                "Condition=If-None-Match",
            ),
            (
                "PreconditionFailed",
                facts(
                    Method::GET,
                    "/b/k",
                    &[("if-none-match", "e"), ("if-unmodified-since", "d")],
                ),
                "Condition=If-Unmodified-Since",
            ),
            ("PreconditionFailed", facts(Method::PUT, "/b/k", &[]), ""),
            ("AccessDenied", facts(Method::GET, "/b/k", &[]), ""),
        ] {
            let found = facts.details(code, Some(&target), &answer);
            let found: Vec<String> = found
                .iter()
                .map(|(name, text)| format!("{name}={text}"))
                .collect();
            assert_eq!(found.join(" "), expected, "{code}");
        }
    }
}
