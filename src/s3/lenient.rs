//! Requests whose headers S3 takes lightly and `s3s` refuses.
//!
//! S3 ignores a `Range` that is no single byte range and a conditional date that is none (RFC 9110 says so
//! too), and joins metadata headers that come twice, where `s3s` answers 400 before an operation is called.
//! Such a request is taken aside once its signature is verified, has those headers taken away or joined, and
//! goes on as if it had been sent so.
//!
//! The one place where `s3s` hands over whole requests: those for STS leave here too.

use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use super::answer::Target;
use super::{Gateway, access, convert, others, sts};
use crate::telemetry::RequestContext;

/// Headers that carry a date, and mean nothing when it is none.
const DATES: [HeaderName; 2] = [header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

/// Takes those requests aside.
pub(super) struct Lenient {
    pub(super) gateway: Arc<Gateway>,
    /// The same operations, without the signature that no longer fits.
    pub(super) inner: S3Service,
}

/// The headers that S3 would overlook.
pub(super) fn overlooked(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut found = Vec::new();
    if headers.contains_key(header::RANGE) && !matches!(convert::range(headers), Ok(Some(_))) {
        found.push(header::RANGE);
    }
    for name in DATES {
        let text = headers.get(&name).map(|value| value.to_str().unwrap_or(""));
        if text.is_some_and(|text| convert::http_date(text).is_none()) {
            found.push(name);
        }
    }
    found
}

/// Whether metadata comes more than once under a name. A body with trailers is left to `s3s`: what comes after
/// it would be lost on the way around.
fn repeats(headers: &HeaderMap) -> bool {
    let twice = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
    !headers.contains_key("x-amz-trailer")
        && headers
            .keys()
            .any(|name| convert::is_metadata(name.as_str()).is_some() && twice(name))
}

/// Joins repeated metadata with commas, as RFC 9110 section 5.3 has it.
fn join(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| convert::is_metadata(name.as_str()).is_some())
        .cloned()
        .collect();
    for name in names {
        let values: Vec<&[u8]> = headers
            .get_all(&name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if let Ok(joined) = HeaderValue::from_bytes(&values.join(&b","[..])) {
            headers.insert(name, joined);
        }
    }
}

#[async_trait::async_trait]
impl S3Route for Lenient {
    fn is_match(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        _: &mut Extensions,
    ) -> bool {
        if sts::is_for_sts(method, uri, headers) {
            return true;
        }
        let taken_lightly = match *method {
            Method::GET | Method::HEAD => !overlooked(headers).is_empty(),
            Method::PUT => !headers.contains_key("x-amz-copy-source") && repeats(headers),
            _ => false,
        };
        taken_lightly
            && !others::names_sub_resource(uri.query())
            && Target::of(
                uri.path(),
                headers.get(header::HOST),
                &self.gateway.config.domains,
            )
            .is_some_and(|target| !target.key.is_empty())
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        if sts::is_for_sts(&request.method, &request.uri, &request.headers) {
            let caller = self.gateway.admit_to_sts(request).await?;
            request.extensions.insert(caller);
            return Ok(());
        }
        let operation = match request.method {
            Method::HEAD => "HeadObject",
            Method::PUT => "PutObject",
            _ => "GetObject",
        };
        let domains = &self.gateway.config.domains;
        let host = request.headers.get(header::HOST);
        let target =
            Target::of(request.uri.path(), host, domains).ok_or_else(|| s3_error!(InvalidURI))?;
        let asked = access::Asked {
            operation,
            access_key: request
                .credentials
                .as_ref()
                .map(|credentials| credentials.access_key.as_str()),
            bucket: Some(target.bucket.as_str()),
            key: Some(target.key.as_str()),
            headers: &request.headers,
            query: request.uri.query(),
            context: request.extensions.get::<Arc<RequestContext>>().cloned(),
        };
        let caller = self.gateway.admit(asked).await?;
        request.extensions.insert(caller);
        Ok(())
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        if sts::is_for_sts(&request.method, &request.uri, &request.headers) {
            return self.gateway.answer_sts(request).await;
        }
        let mut headers = request.headers;
        for name in overlooked(&headers) {
            headers.remove(name);
        }
        join(&mut headers);
        headers.remove(header::AUTHORIZATION);
        let mut inner = Request::new(request.input);
        *inner.method_mut() = request.method;
        *inner.uri_mut() = without_signature(&request.uri)?;
        *inner.headers_mut() = headers;
        *inner.extensions_mut() = request.extensions;
        let response = self
            .inner
            .call(inner)
            .await
            .map_err(|error| s3_error!(InternalError, "{error:?}"))?;
        let (parts, body) = response.into_parts();
        let mut answer = S3Response::new(body);
        answer.status = Some(parts.status);
        answer.headers = parts.headers;
        answer.extensions = parts.extensions;
        Ok(answer)
    }
}

/// The URI without a presigned URL's own parameters.
fn without_signature(uri: &Uri) -> S3Result<Uri> {
    const SIGNATURE: [&str; 3] = ["AWSAccessKeyId", "Expires", "Signature"];
    let query = uri.query().unwrap_or_default();
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            !pair.is_empty() && !name.starts_with("X-Amz-") && !SIGNATURE.contains(&name)
        })
        .collect();
    let text = match kept.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), kept.join("&")),
    };
    text.parse().map_err(|_| s3_error!(InvalidURI))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_headers_that_mean_nothing_are_overlooked() {
        let with = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            overlooked(&headers).len()
        };
        assert_eq!(with("range", "bytes=0-4"), 0);
        assert_eq!(with("range", "bytes=0-1,3-4"), 1);
        assert_eq!(
            with("if-modified-since", "Wed, 21 Oct 2015 07:28:00 GMT"),
            0
        );
        assert_eq!(with("if-modified-since", "not a date"), 1);
    }

    #[test]
    fn a_presigned_url_loses_its_signature_and_keeps_the_rest() {
        let uri = "/b/k?X-Amz-Signature=1&response-expires=0&x-id=GetObject&X-Amz-Date=2"
            .parse()
            .unwrap();
        assert_eq!(
            without_signature(&uri).unwrap(),
            "/b/k?response-expires=0&x-id=GetObject"
        );
    }
}
