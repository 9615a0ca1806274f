//! The OpenAPI document of both versions, made from the routes themselves, and a page that shows it. Everything is in
//! the binary: the page asks nobody but this server.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa::OpenApi;

use super::call::Call;
use super::openapi::{Common, Security};
use super::{Native, v0, v1};

const PAGE: &str = include_str!("ui/index.html");
const SCRIPT: &str = include_str!("ui/page.js");
const STYLE: &str = include_str!("ui/page.css");
/// The page may load what this server has, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "osproxy native API",
        description = "Files by UID. Version 0 is the frozen contract of existing clients: its answers come in an envelope {\"code\": 0, \"message\": TEXT, \"data\": ANY}, and the HTTP status carries the result. Version 1 has the same abilities with proper status codes; its refusals are RFC 9457 problem documents."
    ),
    paths(
        v0::ping, v0::health, v0::link_upload, v0::link_download, v0::resume, v0::checkpoint, v0::proxy, v0::upload,
        v0::upload_multi, v0::upload_merge, v0::download, v1::links, v1::resume, v1::begin, v1::upload, v1::send,
        v1::send_part, v1::complete, v1::abort, v1::object, v1::delete, v1::content
    ),
    modifiers(&Security, &Common)
)]
struct Document;

/// The routes of the document and the page. Like all that no link opens they want credentials, unless access is open; a
/// browser asks for them once.
pub(super) fn routes(native: Arc<Native>) -> Router<Arc<Native>> {
    let page = || async { asset("text/html; charset=utf-8", PAGE) };
    let script = || async { asset("text/javascript; charset=utf-8", SCRIPT) };
    let style = || async { asset("text/css; charset=utf-8", STYLE) };
    let to_page = || async { Redirect::permanent("/api/storage/v0/swagger/index.html") };
    Router::new()
        .route("/api/storage/v0/swagger", get(to_page))
        .route("/api/storage/v0/swagger/", get(to_page))
        .route("/api/storage/v0/swagger/index.html", get(page))
        .route("/api/storage/v0/swagger/page.js", get(script))
        .route("/api/storage/v0/swagger/page.css", get(style))
        .route("/api/storage/v0/swagger/openapi.json", get(openapi))
        // Where generators of clients look for it.
        .route("/api/storage/v0/swagger/doc.json", get(openapi))
        .route_layer(middleware::from_fn_with_state(native, admit))
}

async fn admit(State(native): State<Arc<Native>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let call = Call::of(parts.clone(), "native.v0.swagger");
    match native.caller(&call).await {
        Ok(_) => next.run(Request::from_parts(parts, body)).await,
        Err(refusal) => call.v0::<()>(Err(refusal)),
    }
}

async fn openapi() -> Response {
    match Document::openapi().to_json() {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "write OpenAPI document");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 3] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_document_has_every_route() {
        let document: Value =
            serde_json::from_str(&Document::openapi().to_json().unwrap()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for source in [include_str!("v0.rs"), include_str!("v1.rs")] {
            let base = match source.contains("//! Version 0") {
                true => v0::BASE,
                false => v1::BASE,
            };
            let mut count = 0;
            for line in source.lines().map(str::trim) {
                let Some(rest) = line.strip_prefix(".route(\"") else {
                    continue;
                };
                let path = rest.split('"').next().unwrap();
                assert!(paths.contains_key(&format!("{base}{path}")), "{path}");
                count += 1;
            }
            assert!(count >= 10, "{count} routes");
        }
        assert_eq!(paths.len(), 21);
    }

    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().iter();
                methods.map(move |(method, operation)| (format!("{method} {path}"), operation))
            })
            .collect()
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_describes_its_answers() {
        let document: Value =
            serde_json::from_str(&Document::openapi().to_json().unwrap()).unwrap();
        let mut ids = std::collections::HashSet::new();
        for (place, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{place}: {id}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let description = answer["description"].as_str();
                assert!(
                    description.is_some_and(|text| !text.is_empty()),
                    "{place} {status}"
                );
                for (content_type, content) in answer["content"].as_object().into_iter().flatten() {
                    let schema = &content["schema"];
                    let told = format!("{place} {status} {content_type}");
                    assert!(schema.is_object(), "{told}");
                    let is_envelope = schema["properties"]["data"].is_object();
                    let expects = place.contains("/v0/") && content_type == "application/json";
                    assert_eq!(is_envelope, expects, "{told}");
                }
            }
            for content in operation["requestBody"]["content"]
                .as_object()
                .into_iter()
                .flatten()
            {
                assert!(content.1["schema"].is_object(), "{place}");
            }
        }
        assert_eq!(ids.len(), 22);
    }

    #[test]
    fn every_shape_is_the_one_of_its_version() {
        let text = Document::openapi().to_json().unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        assert!(schemas["Resumed"]["properties"]["md5"].is_object());
        assert!(schemas["ResumeItem"]["properties"]["path"].is_object());
        assert!(schemas["ResumedBySha256"]["properties"]["sha256"].is_object());
        assert!(schemas["Object"]["properties"]["etag"].is_object());
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for text in [PAGE, SCRIPT, STYLE] {
            assert!(
                !text.contains("http://") && !text.contains("https://") && !text.contains("//cdn")
            );
        }
    }
}
