//! What the attributes of the routes leave to be said in the OpenAPI document, because it is the same for all: names of
//! operations, the shapes around answers, and what opens a route besides credentials.

use axum::http::StatusCode;
use utoipa::Modify;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Content, KnownFormat, ObjectBuilder, Ref, RefOr, Required, Response, Schema, SchemaFormat,
    SecurityRequirement, Type,
};

use super::outside::Shape;

const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";
const BYTES: &str = "application/octet-stream";
const FORM: &str = "multipart/form-data";
/// The name of the shape of RFC 9457.
const PROBLEM: &str = "Problem";

/// How whoever asks says who they are.
pub(super) struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let basic = HttpBuilder::new()
            .scheme(HttpAuthScheme::Basic)
            .description(Some("An access key and its secret."))
            .build();
        components.add_security_scheme("basic", SecurityScheme::Http(basic));
        let link = ApiKeyValue::with_description(
            "signature",
            "Of a link, with its `date` and `expire`: POST /api/storage/v1/links makes one.",
        );
        components.add_security_scheme("link", SecurityScheme::ApiKey(ApiKey::Query(link)));
    }
}

/// What all routes of a version have in common.
pub(super) struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components
            .schemas
            .insert(PROBLEM.to_owned(), problem().into());
        for (path, item) in &mut document.paths.paths {
            let methods = [
                &mut item.get,
                &mut item.put,
                &mut item.post,
                &mut item.delete,
            ];
            for operation in methods.into_iter().flatten() {
                complete(operation, Shape::of(path));
            }
        }
    }
}

fn complete(operation: &mut Operation, shape: Shape) {
    // Both versions have routes of one name.
    let version = match shape {
        Shape::Envelope => "v0",
        Shape::ProblemDocument => "v1",
    };
    if let Some(id) = &mut operation.operation_id {
        *id = format!("{version}_{id}");
    }
    let by_link = SecurityRequirement::new("link", [] as [&str; 0]);
    // Of every route: headers may be too long, and open access may be asked by the name of a host.
    let mut statuses = match shape {
        Shape::Envelope => vec!["401", "431", "500", "503"],
        Shape::ProblemDocument => vec!["403", "431", "500", "503"],
    };
    if operation
        .security
        .as_ref()
        .is_some_and(|ways| ways.contains(&by_link))
    {
        let parameters = operation.parameters.get_or_insert_default();
        parameters.extend(link_parameters().map(RefOr::T));
        statuses.push("422");
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::True);
        // Version 0 answers 422 to such bodies.
        if shape == Shape::ProblemDocument {
            statuses.extend(["408", "413"]);
        }
        for (content_type, content) in &mut body.content {
            let RefOr::T(content) = content else { continue };
            match content_type.as_str() {
                FORM => content.schema = Some(form()),
                BYTES => content.schema = Some(bytes()),
                _ => {}
            }
        }
    }
    let responses = &mut operation.responses.responses;
    for status in statuses {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| Response::new("").into());
    }
    for (status, response) in responses {
        if let (Ok(status), RefOr::T(response)) = (status.parse::<StatusCode>(), response) {
            describe(status, response, shape);
        }
    }
}

fn describe(status: StatusCode, response: &mut Response, shape: Shape) {
    if response.description.is_empty() {
        response.description = meaning(status).to_owned();
    }
    let sends_bytes = status == StatusCode::PARTIAL_CONTENT || response.content.contains_key(BYTES);
    let is_failure = status.is_client_error() || status.is_server_error();
    let (content_type, schema) = match shape {
        _ if sends_bytes => (BYTES, bytes()),
        Shape::ProblemDocument if is_failure => {
            (PROBLEM_JSON, Ref::from_schema_name(PROBLEM).into())
        }
        Shape::Envelope if is_failure => (JSON, envelope(text("Empty."))),
        Shape::Envelope if status == StatusCode::OK => {
            let data = response.content.values().find_map(|content| match content {
                RefOr::T(content) => content.schema.clone(),
                RefOr::Ref(_) => None,
            });
            (
                JSON,
                envelope(data.unwrap_or_else(|| text("Says nothing."))),
            )
        }
        // They have no body, or one whose shape is said.
        Shape::Envelope | Shape::ProblemDocument => return,
    };
    response.content.clear();
    let content = RefOr::T(Content::new(Some(schema)));
    response.content.insert(content_type.to_owned(), content);
}

/// What a status means on any route.
fn meaning(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "Success.",
        201 => "It is made.",
        204 => "It is done.",
        206 => "The range that was asked for.",
        304 => "A condition says that the client has it.",
        401 => {
            "No credentials, or wrong ones; in version 0 also: it may not be done with them, or this name of the host \
             is not served."
        }
        403 => "It may not be done with these credentials, or this name of the host is not served.",
        404 => "There is nothing of this number.",
        408 => "The body stalled.",
        409 => "What is there stands against it.",
        412 => "A condition fails.",
        413 => "More bytes than are taken.",
        416 => "No byte of the range exists.",
        422 => "A parameter, a document, a digest or the link is wrong.",
        431 => "The headers are too long.",
        500 => "A bug, or broken data.",
        503 => "Busy, or a store is not available: try again after `Retry-After`.",
        _ => status.canonical_reason().unwrap_or("Another answer."),
    }
}

fn text(description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .into()
}

fn integer(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some(description))
}

fn bytes() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .into()
}

fn form() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("file", bytes())
        .required("file")
        .into()
}

/// The frozen envelope around `data`.
fn envelope(data: RefOr<Schema>) -> RefOr<Schema> {
    let code = integer("Always 0: the status of the answer carries the result.");
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("code", code.enum_values(Some([0])))
        .property("message", text("`ok`, or what is wrong."))
        .property("data", data)
        .required("code")
        .required("message")
        .required("data")
        .into()
}

fn problem() -> utoipa::openapi::Object {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("Why a request was refused (RFC 9457)."))
        .property("title", text("Of the status."))
        .property("status", integer("The status of the answer."))
        .property("detail", text("What is wrong."))
        .required("title")
        .required("status")
        .required("detail")
        .build()
}

/// The parameters of a link, for routes that also credentials open.
fn link_parameters() -> [Parameter; 3] {
    let parameter = |name: &str, schema, description| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(description))
            .schema(Some::<RefOr<Schema>>(schema))
            .build()
    };
    let string = || ObjectBuilder::new().schema_type(Type::String).into();
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).into();
    [
        parameter(
            "date",
            string(),
            "Of a link: when it was made, `YYYY-MM-DDTHH:MM:SSZ`.",
        ),
        parameter(
            "expire",
            seconds,
            "Of a link: for how many seconds it lives.",
        ),
        parameter("signature", string(), "Of a link, in place of credentials."),
    ]
}
