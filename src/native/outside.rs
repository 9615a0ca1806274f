//! What is answered outside of the routes: other paths, methods and hosts, and the listener's own refusals. Each in the
//! shape of the version below whose base the path is.

use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;

use super::call::{Call, envelope, problem_document};
use super::refusal::{Problem, Refusal};
use super::v1;
use crate::http::Refusal as ListenerRefusal;
use crate::telemetry::RequestContext;

/// The header that a client may name its request by, and that every answer names it by.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// How refusals look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As the frozen version has them.
    Envelope,
    /// As RFC 9457 has them.
    ProblemDocument,
}

impl Shape {
    /// The shape for a path.
    pub(super) fn of(path: &str) -> Self {
        match path.strip_prefix(v1::BASE) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::ProblemDocument,
            _ => Self::Envelope,
        }
    }

    fn write(self, status: StatusCode, text: &str) -> Response {
        match self {
            Self::Envelope => envelope(status, text, ""),
            Self::ProblemDocument => problem_document(status, text),
        }
    }
}

/// Names the request on its answer: as its client does, else as we do.
pub(super) fn name(context: &RequestContext, headers: &mut HeaderMap) {
    let id = context.client_id().unwrap_or(context.id().as_str());
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}

fn refused(request: Request, problem: Problem, text: &'static str) -> Response {
    let shape = Shape::of(request.uri().path());
    let call = Call::of(request.into_parts().0, "native.unknown");
    let refusal = Refusal::new(problem, text);
    match shape {
        Shape::Envelope => call.v0::<()>(Err(refusal)),
        Shape::ProblemDocument => call.v1(Err(refusal)),
    }
}

/// Any other path.
pub(super) async fn no_route(request: Request) -> Response {
    refused(request, Problem::Missing, "there is no such route")
}

/// Any other method.
pub(super) async fn no_method(request: Request) -> Response {
    refused(request, Problem::Method, "the route has no such method")
}

/// A host that is a name, where only addresses are served.
pub(super) fn other_host(request: Request) -> Response {
    let text = "open access is served to addresses and localhost, not to names";
    refused(request, Problem::Denied, text)
}

/// How the listener's own refusals look.
pub(super) fn refuse(context: &RequestContext, path: &str, refusal: ListenerRefusal) -> Response {
    let shape = Shape::of(path);
    let (status, text) = match refusal {
        ListenerRefusal::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "busy, try again"),
        ListenerRefusal::HeadersTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers too large",
        ),
        ListenerRefusal::BodyTooLarge => {
            let status = match shape {
                Shape::Envelope => Problem::TooLarge.v0(),
                Shape::ProblemDocument => Problem::TooLarge.v1(),
            };
            (status, "more bytes than are taken")
        }
        ListenerRefusal::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    };
    let mut response = shape.write(status, text);
    let headers = response.headers_mut();
    if refusal == ListenerRefusal::Overloaded {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    name(context, headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::CONTENT_TYPE;

    #[test]
    fn the_base_of_a_path_chooses_the_shape() {
        for path in ["/api/storage/v1", "/api/storage/v1/", "/api/storage/v1/x"] {
            assert_eq!(Shape::of(path), Shape::ProblemDocument, "{path}");
        }
        for path in [
            "*",
            "/",
            "/api/storage/v0/x",
            "/api/storage/v10/x",
            "/x/api/storage/v1/x",
        ] {
            assert_eq!(Shape::of(path), Shape::Envelope, "{path}");
        }
    }

    #[test]
    fn refusals_of_the_listener_have_the_shape_and_the_name_of_the_request() {
        let context = RequestContext::new();
        context.set_client_id("abc-1");
        for (path, refusal, status, content_type) in [
            (
                "/api/storage/v0/x",
                ListenerRefusal::HeadersTooLarge,
                431,
                "application/json; charset=utf-8",
            ),
            (
                "/api/storage/v1/x",
                ListenerRefusal::HeadersTooLarge,
                431,
                "application/problem+json",
            ),
            (
                "/api/storage/v0/x",
                ListenerRefusal::BodyTooLarge,
                422,
                "application/json; charset=utf-8",
            ),
            (
                "/api/storage/v1/x",
                ListenerRefusal::BodyTooLarge,
                413,
                "application/problem+json",
            ),
            (
                "/api/storage/v1/x",
                ListenerRefusal::Overloaded,
                503,
                "application/problem+json",
            ),
            (
                "/api/storage/v1/x",
                ListenerRefusal::Panicked,
                500,
                "application/problem+json",
            ),
        ] {
            let response = refuse(&context, path, refusal);
            assert_eq!(response.status(), status, "{path} {refusal:?}");
            assert_eq!(response.headers()[CONTENT_TYPE], content_type);
            assert_eq!(response.headers()["request-id"], "abc-1");
        }
    }

    #[test]
    fn the_clients_name_for_a_request_comes_back() {
        let (context, mut headers) = (RequestContext::new(), HeaderMap::new());
        name(&context, &mut headers);
        assert_eq!(headers["request-id"], context.id().as_str());
        context.set_client_id("abc-1");
        name(&context, &mut headers);
        assert_eq!(headers["request-id"], "abc-1");
    }
}
