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

/// Most bytes of a JSON document: 50 of the longest names, of 1536 bytes, with each byte written as an escape of six.
const DOCUMENT_MAX_BYTES: usize = 512 * 1024;
/// The parameters that any route knows; others are ignored.
const PARAMETERS: [&str; 12] = [
    "uid",
    "md5",
    "chunkNum",
    "num",
    "size",
    "date",
    "expire",
    "signature",
    "name",
    "online",
    "bucket",
    "object",
];
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
}

impl Call {
    /// `operation` names it in log and metrics.
    pub(super) fn of(parts: Parts, operation: &'static str) -> Self {
        let context = parts.extensions.get::<Arc<RequestContext>>().cloned();
        let context = context.unwrap_or_default();
        context.set_operation(operation);
        Self {
            context,
            parameters: parameters(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
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

    /// A header whose value is a list, which may be cut into several lines.
    pub(super) fn list(&self, name: HeaderName) -> Option<String> {
        list(&self.headers, name)
    }

    /// An answer of the frozen version.
    pub(super) fn v0<T: Serialize>(&self, outcome: Result<T, Refusal>) -> Response {
        match outcome {
            Ok(data) => envelope(StatusCode::OK, "ok", data),
            Err(refusal) => {
                self.context.set_error(&refusal.text);
                let mut response = envelope(refusal.problem.v0(), &refusal.text, "");
                refused(response.headers_mut(), &refusal);
                response
            }
        }
    }

    /// An answer of the second version: refusals are RFC 9457 problem documents.
    pub(super) fn v1(&self, outcome: Result<Response, Refusal>) -> Response {
        outcome.unwrap_or_else(|refusal| {
            self.context.set_error(&refusal.text);
            let mut response = problem_document(refusal.problem.v1(), &refusal.text);
            refused(response.headers_mut(), &refusal);
            response
        })
    }
}

/// The known parameters of a query, each once with a value. Of one that has several two are kept, which are too many.
fn parameters(query: &str) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let mut values = kept.iter().filter(|(known, _)| *known == name);
        let first = values.next();
        let is_new = first.is_none_or(|(_, first)| *first != value) && values.next().is_none();
        if is_new && PARAMETERS.contains(&name.as_ref()) {
            kept.push((name.into_owned(), value.into_owned()));
        }
    }
    kept
}

/// The value of a header that is a list: all its lines, one after the other (RFC 9110, 5.3). What is not text in it is
/// equal to nothing.
pub(super) fn list(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let lines = headers.get_all(name).iter();
    let lines: Vec<_> = lines
        .map(|line| String::from_utf8_lossy(line.as_bytes()))
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
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

/// An RFC 9457 problem document.
pub(super) fn problem_document(status: StatusCode, detail: &str) -> Response {
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

    fn call(target: &str) -> Call {
        let request = Request::builder().uri(target);
        Call::of(request.body(()).unwrap().into_parts().0, "test")
    }

    async fn text(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_parameter_may_come_twice_with_one_value() {
        let call = call("/?uid=7&num=1&uid=7&name=a+b%26&num=2&num=1&x=1");
        assert_eq!(call.needed("uid").unwrap(), "7");
        assert_eq!(call.needed("name").unwrap(), "a b&");
        assert_eq!(call.parameter("size").unwrap(), None);
        assert_eq!(
            call.needed("num").unwrap_err().text,
            "num: given with two values"
        );
        assert_eq!(call.needed("size").unwrap_err().text, "size: missing");
    }

    #[test]
    fn parameters_count_however_many_others_come_before_them() {
        let others: String = (0..200).map(|number| format!("x{number}=1&")).collect();
        let call = call(&format!("/?{others}uid=7&uid=7&uid=8"));
        assert_eq!(
            call.needed("uid").unwrap_err().text,
            "uid: given with two values"
        );
        let many: String = (0..200).map(|number| format!("uid={number}&")).collect();
        assert_eq!(parameters(&many).len(), 2);
    }

    #[test]
    fn the_lines_of_a_list_are_one_value() {
        let mut headers = HeaderMap::new();
        let name = axum::http::header::IF_NONE_MATCH;
        assert_eq!(list(&headers, name.clone()), None);
        for line in ["\"a\"", "\"b\", \"c\""] {
            headers.append(name.clone(), HeaderValue::from_static(line));
        }
        assert_eq!(list(&headers, name).unwrap(), "\"a\", \"b\", \"c\"");
    }

    #[tokio::test]
    async fn the_envelope_is_frozen() {
        let call = call("/");
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
        let response = call("/").v1(Err(Refusal::denied()));
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
