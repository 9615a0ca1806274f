//! One request as the handlers see it, and the two shapes of answers.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::refusal::{Problem, Refusal, of_body};
use crate::telemetry::RequestContext;

/// The header that a client may name its request by.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Longest such name.
const REQUEST_ID_MAX: usize = 128;
/// Most bytes of a JSON document.
const DOCUMENT_MAX_BYTES: usize = 256 * 1024;
/// Most parameters of a query.
const PARAMETERS_MAX: usize = 64;
/// Seconds after which a client should try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");
/// How whoever asks may say who they are.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"osproxy\", charset=\"UTF-8\"");

/// The head of a request.
pub(super) struct Call {
    pub(super) context: Arc<RequestContext>,
    pub(super) headers: HeaderMap,
    parameters: Vec<(String, String)>,
    /// What the request is called: by its client, else by us.
    id: HeaderValue,
}

impl Call {
    /// `operation` names it in log and metrics.
    pub(super) fn of(parts: Parts, operation: &'static str) -> Self {
        let context = parts.extensions.get::<Arc<RequestContext>>().cloned();
        let context = context.unwrap_or_default();
        context.set_operation(operation);
        let given = parts.headers.get(REQUEST_ID).filter(|id| {
            (1..=REQUEST_ID_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        if let Some(given) = given {
            tracing::debug!(request = %context.id(), client_request = ?given, operation, "request named");
        }
        let own = || HeaderValue::from_str(context.id().as_str()).ok();
        let id = given.cloned().or_else(own);
        let query = parts.uri.query().unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .take(PARAMETERS_MAX)
            .collect();
        Self {
            id: id.unwrap_or(HeaderValue::from_static("-")),
            context,
            headers: parts.headers,
            parameters,
        }
    }

    /// A parameter of the query. It may come more than once, with one value.
    pub(super) fn parameter(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self
            .parameters
            .iter()
            .filter_map(|(found, value)| (found == name).then_some(value.as_str()));
        let first = values.next();
        match values.all(|value| Some(value) == first) {
            true => Ok(first),
            false => Err(Refusal::wrong(format!("{name}: given with two values"))),
        }
    }

    /// A parameter that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<&str, Refusal> {
        let missing = || Refusal::wrong(format!("{name}: missing"));
        self.parameter(name)?.ok_or_else(missing)
    }

    /// A parameter that must be there, as what it stands for.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Refusal> {
        parse(self.needed(name)?).ok_or_else(|| Refusal::wrong(format!("{name}: not understood")))
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// An answer of the frozen version.
    pub(super) fn v0<T: Serialize>(&self, outcome: Result<T, Refusal>) -> Response {
        let mut response = match outcome {
            Ok(data) => envelope(StatusCode::OK, "ok", data),
            Err(refusal) => {
                self.context.set_error(&refusal.text);
                let mut response = envelope(refusal.problem.v0(), &refusal.text, "");
                refused(response.headers_mut(), &refusal);
                response
            }
        };
        self.name(&mut response);
        response
    }

    /// An answer of the second version: refusals are RFC 9457 problem documents.
    pub(super) fn v1(&self, outcome: Result<Response, Refusal>) -> Response {
        let mut response = outcome.unwrap_or_else(|refusal| {
            self.context.set_error(&refusal.text);
            let mut response = problem_document(refusal.problem.v1(), &refusal.text);
            refused(response.headers_mut(), &refusal);
            response
        });
        self.name(&mut response);
        response
    }

    /// Puts the request's name on an answer.
    pub(super) fn name(&self, response: &mut Response) {
        response.headers_mut().insert(REQUEST_ID, self.id.clone());
    }
}

fn refused(headers: &mut HeaderMap, refusal: &Refusal) {
    match refusal.problem {
        Problem::Unknown => {
            headers.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        Problem::Range(size) => {
            if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
                headers.insert(CONTENT_RANGE, range);
            }
        }
        Problem::Busy | Problem::Unavailable => {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        _ => {}
    }
}

/// The frozen envelope: `code` is 0 also on errors, and the HTTP status carries the result.
#[derive(Serialize)]
struct Envelope<'a, T> {
    code: i32,
    message: &'a str,
    data: T,
}

/// An answer in the frozen envelope.
pub(super) fn envelope<T: Serialize>(status: StatusCode, message: &str, data: T) -> Response {
    let envelope = Envelope {
        code: 0,
        message,
        data,
    };
    json(status, "application/json; charset=utf-8", &envelope)
}

#[derive(Serialize)]
struct ProblemDocument<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
}

fn problem_document(status: StatusCode, detail: &str) -> Response {
    let document = ProblemDocument {
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail,
    };
    json(status, "application/problem+json", &document)
}

/// A document of the second version.
pub(super) fn document<T: Serialize>(status: StatusCode, document: &T) -> Response {
    json(status, "application/json", document)
}

fn json<T: Serialize>(status: StatusCode, content_type: &'static str, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "write answer");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Reads a JSON document, whatever its type says and however it is framed.
pub(super) async fn read_document<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let bytes: Bytes = to_bytes(body, DOCUMENT_MAX_BYTES)
        .await
        .map_err(|error| of_body(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let text: Cow<'static, str> = format!("the document is not as expected: {error}").into();
        Refusal::wrong(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn call(target: &str, id: Option<&str>) -> Call {
        let mut request = Request::builder().uri(target);
        if let Some(id) = id {
            request = request.header("request-id", id);
        }
        Call::of(request.body(()).unwrap().into_parts().0, "test")
    }

    async fn text(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_parameter_may_come_twice_with_one_value() {
        let call = call("/?uid=7&x=1&uid=7&name=a+b%26&x=2", None);
        assert_eq!(call.needed("uid").unwrap(), "7");
        assert_eq!(call.needed("name").unwrap(), "a b&");
        assert_eq!(call.parameter("none").unwrap(), None);
        assert_eq!(
            call.needed("x").unwrap_err().text,
            "x: given with two values"
        );
        assert_eq!(call.needed("none").unwrap_err().text, "none: missing");
    }

    #[test]
    fn the_clients_name_for_a_request_comes_back() {
        let name = |id| {
            let call = call("/", id);
            let mut response = Response::default();
            call.name(&mut response);
            let own = call.context.id().to_string();
            (
                response.headers()[REQUEST_ID].to_str().unwrap().to_owned(),
                own,
            )
        };
        assert_eq!(name(Some("abc-1")).0, "abc-1");
        let (given, own) = name(None);
        assert_eq!(given, own);
        let (given, own) = name(Some(&"x".repeat(129)));
        assert_eq!(given, own);
    }

    #[tokio::test]
    async fn the_envelope_is_frozen() {
        let call = call("/", None);
        assert_eq!(
            text(call.v0(Ok(""))).await,
            r#"{"code":0,"message":"ok","data":""}"#
        );
        assert_eq!(
            text(call.v0(Ok(vec![1, 2]))).await,
            r#"{"code":0,"message":"ok","data":[1,2]}"#
        );
        let response = call.v0::<()>(Err(Refusal::missing()));
        assert_eq!(response.status(), 404);
        assert_eq!(
            text(response).await,
            r#"{"code":0,"message":"there is nothing of this uid","data":""}"#
        );
        let response = call.v0::<()>(Err(Refusal::unknown()));
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key(WWW_AUTHENTICATE));
        let response = call.v0::<()>(Err(Refusal::new(Problem::Range(9), "no")));
        assert_eq!(
            (
                response.status().as_u16(),
                &response.headers()[CONTENT_RANGE]
            ),
            (416, &HeaderValue::from_static("bytes */9"))
        );
    }

    #[tokio::test]
    async fn refusals_of_the_second_version_are_problem_documents() {
        let response = call("/", None).v1(Err(Refusal::denied()));
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            text(response).await,
            r#"{"title":"Forbidden","status":403,"detail":"access denied"}"#
        );
    }

    #[tokio::test]
    async fn a_document_is_bounded() {
        let long = format!("[{}]", "1,".repeat(DOCUMENT_MAX_BYTES));
        let refused = read_document::<Vec<u8>>(Body::from(long))
            .await
            .unwrap_err();
        assert_eq!(refused.problem, Problem::TooLarge);
        let refused = read_document::<Vec<u8>>(Body::from("{")).await.unwrap_err();
        assert_eq!(refused.problem, Problem::Wrong);
    }
}
