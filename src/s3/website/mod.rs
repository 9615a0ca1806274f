//! Buckets as websites, under domains of their own ("Hosting a static website using Amazon S3").
//!
//! Whoever comes is nobody: a page is shown when anybody may read its object, which is asked as for GetObject
//! without a signature. What `s3s` would answer with a document of XML is answered here with a page.
//!
//! ```text
//!   redirect all | routing rule --> elsewhere
//!        | none
//!   document, or index document --> object, or where the object redirects to
//!        | not there
//!   slash missing | routing rule for the status --> elsewhere
//!        | none
//!   the owner's error document, or S3's page, with the status
//! ```

mod page;
mod settings;

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use s3s::service::S3Service;
use s3s::{Body, S3Error};

use self::page::{Problem, moved};
use super::access::Asked;
use super::host::{bucket_of_host, scheme_of};
use super::listing::Encoding;
use super::{Gateway, answer, lenient};
use crate::http::InBody;
use crate::model::website::{self, Redirection, RoutingRule, Scheme, Website};
use crate::telemetry::RequestContext;

/// Code and text for a bucket that is not served as a website.
const NO_WEBSITE: (&str, &str) = (
    "NoSuchWebsiteConfiguration",
    "The specified bucket does not have a website configuration",
);
/// Where an object's own redirection is kept, and answered.
const REDIRECT_LOCATION: &str = "x-amz-website-redirect-location";
/// What of an owner's own text no location can carry as it is.
const UNWRITABLE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');
/// What of a request has a say in how a page is read.
const PASSED: [HeaderName; 5] = [
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// A request for a page.
pub(super) struct Site {
    bucket: String,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    context: Option<Arc<RequestContext>>,
}

impl Site {
    /// Recognises a request by its host.
    pub(super) fn of(request: &Request<InBody>, domains: &[String]) -> Option<Self> {
        if domains.is_empty() {
            return None;
        }
        let headers = request.headers();
        let host = headers.get(header::HOST)?.to_str().ok()?;
        Some(Self {
            bucket: bucket_of_host(host, domains)?.to_ascii_lowercase(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: headers.clone(),
            context: request.extensions().get::<Arc<RequestContext>>().cloned(),
        })
    }

    /// Answers with a page. `admitted` are the operations for who was let in already.
    pub(super) async fn serve(
        self,
        gateway: &Gateway,
        admitted: &S3Service,
        request: Request<InBody>,
    ) -> Response<Body> {
        // A page is read: what else the client sends is left unread.
        drop(request);
        let mut response = match self.answer(gateway, admitted).await {
            Ok(response) => response,
            Err(problem) => problem.page(self.context.as_deref(), None),
        };
        if self.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        if response.status() == StatusCode::NOT_MODIFIED {
            response.headers_mut().remove(header::CONTENT_TYPE);
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        response
    }

    async fn answer(
        &self,
        gateway: &Gateway,
        admitted: &S3Service,
    ) -> Result<Response<Body>, Problem> {
        if !matches!(self.method, Method::GET | Method::HEAD) {
            let message = "The specified method is not allowed against this resource.";
            return Err(
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
                    .with("Method", self.method.as_str())
                    .with("ResourceType", "OBJECT"),
            );
        }
        if self.headers.contains_key(header::AUTHORIZATION) {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "InvalidArgument",
                "Unsupported Authorization Type",
            )
            .with("ArgumentName", "Authorization"));
        }
        let path = percent_decode_str(self.uri.path()).decode_utf8();
        let path = path.map_err(|_| {
            let message = "Couldn't parse the specified URI.";
            Problem::new(StatusCode::BAD_REQUEST, "InvalidURI", message)
        })?;
        let key = path.strip_prefix('/').unwrap_or(&path);
        let bucket = gateway.bucket(&self.bucket).await.map_err(|error| {
            of_error(error, |problem| {
                problem.with("BucketName", self.bucket.as_str())
            })
        })?;
        match &bucket.settings.website {
            None => Err(
                Problem::new(StatusCode::NOT_FOUND, NO_WEBSITE.0, NO_WEBSITE.1)
                    .with("BucketName", self.bucket.as_str()),
            ),
            Some(Website::Elsewhere { host, scheme }) => Ok(self.redirected(&Redirection {
                status: 301,
                scheme: *scheme,
                host: Some(host.clone()),
                text: String::new(),
                rest: key.to_owned(),
            })),
            Some(Website::Pages {
                index,
                error,
                rules,
            }) => {
                let reader = Reader {
                    site: self,
                    gateway,
                    admitted,
                };
                reader.page(key, index, error.as_deref(), rules).await
            }
        }
    }

    /// Sends the client elsewhere, with the query it came with.
    fn redirected(&self, to: &Redirection) -> Response<Body> {
        let scheme = to
            .scheme
            .map_or_else(|| scheme_of(&self.headers), Scheme::as_str);
        let own = self.headers.get(header::HOST);
        let own = own.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = to.host.as_deref().unwrap_or(own);
        let text = utf8_percent_encode(&to.text, UNWRITABLE);
        let rest = Encoding::Url.apply(&to.rest);
        let query = self.uri.query().filter(|query| !query.is_empty());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        moved(to.status, &format!("{scheme}://{host}/{text}{rest}{query}"))
    }
}

/// Reads objects for a site's visitor.
struct Reader<'s> {
    site: &'s Site,
    gateway: &'s Gateway,
    admitted: &'s S3Service,
}

impl Reader<'_> {
    async fn page(
        &self,
        key: &str,
        index: &str,
        error: Option<&str>,
        rules: &[RoutingRule],
    ) -> Result<Response<Body>, Problem> {
        let site = self.site;
        if let Some(to) = website::redirect(rules, key, None) {
            return Ok(site.redirected(&to));
        }
        let mut passed = HeaderMap::new();
        for name in PASSED {
            if let Some(value) = site.headers.get(&name) {
                passed.insert(name, value.clone());
            }
        }
        for name in lenient::overlooked(&passed) {
            passed.remove(name);
        }
        let document = website::document(key, index);
        let problem = match self.read(&site.method, &document, passed).await {
            Ok(response) => return Ok(redirected_by_object(response)),
            Err(problem) => problem,
        };
        let hidden = matches!(
            problem.status,
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN
        );
        if hidden && let Some(below) = website::index_below(key, index) {
            let found = self.read(&Method::HEAD, &below, HeaderMap::new()).await;
            if found.is_ok() {
                let found = Problem::new(StatusCode::FOUND, "Found", "Resource Found");
                let mut response = found.page(site.context.as_deref(), None);
                let location = format!("/{}/", Encoding::Url.apply(key));
                if let Ok(location) = HeaderValue::try_from(location) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                return Ok(response);
            }
        }
        if let Some(to) = website::redirect(rules, key, Some(problem.status.as_u16())) {
            return Ok(site.redirected(&to));
        }
        let Some(error) = error.filter(|_| problem.status.is_client_error()) else {
            return Err(problem);
        };
        match self.read(&site.method, error, HeaderMap::new()).await {
            Ok(mut response) => {
                *response.status_mut() = problem.status;
                problem.mark(&mut response);
                Ok(response)
            }
            Err(unread) => Ok(problem.page(site.context.as_deref(), Some(&unread))),
        }
    }

    /// An object as anybody gets it who may read it.
    async fn read(
        &self,
        method: &Method,
        key: &str,
        headers: HeaderMap,
    ) -> Result<Response<Body>, Problem> {
        let with_key = |problem: Problem| match problem.code.as_str() {
            "NoSuchKey" => problem.with("Key", key),
            _ => problem,
        };
        let site = self.site;
        let asked = Asked {
            operation: "GetObject",
            access_key: None,
            bucket: Some(site.bucket.as_str()),
            key: Some(key),
            headers: &site.headers,
            query: None,
            context: site.context.clone(),
        };
        let caller = self.gateway.admit(asked).await;
        let caller = caller.map_err(|error| of_error(error, with_key))?;
        let path = format!("/{}/{}", site.bucket, Encoding::Url.apply(key));
        let uri: Uri = path.parse().map_err(|_| {
            let message = "Couldn't parse the specified URI.";
            Problem::new(StatusCode::BAD_REQUEST, "InvalidURI", message)
        })?;
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.extensions_mut().insert(caller);
        if let Some(context) = &site.context {
            request.extensions_mut().insert(Arc::clone(context));
        }
        let response = match self.admitted.call(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(?error, "read page");
                answer::of_error(s3s::s3_error!(InternalError))
            }
        };
        match problem_of(&response) {
            Some(problem) => Err(with_key(problem)),
            None => Ok(response),
        }
    }
}

/// What an answer in the words of the API says went wrong; `None` for one that is an object.
fn problem_of(response: &Response<Body>) -> Option<Problem> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let (code, message) = answer::error_of(response).unwrap_or_default();
    Some(Problem::new(status, &code, &message))
}

fn of_error(error: S3Error, with: impl FnOnce(Problem) -> Problem) -> Problem {
    let status = error.status_code();
    let response = answer::of_error(error);
    with(problem_of(&response).unwrap_or_else(|| {
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem::new(status, "InternalError", "")
    }))
}

/// An object may say that it has moved; its bytes are then not shown.
fn redirected_by_object(response: Response<Body>) -> Response<Body> {
    let to = response.headers().get(REDIRECT_LOCATION);
    match to.and_then(|to| to.to_str().ok()) {
        Some(to) => moved(301, to),
        None => response,
    }
}
