//! Requests that browsers send for pages of other origins: a bucket's rules, the question a browser asks
//! first, and the headers that let the page have the answer.
//!
//! A preflight is not signed and says nothing of objects: it is answered from the rules alone. The headers of
//! an actual request go on every answer, errors included: a page that may not read why it was refused cannot
//! say so.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use s3s::dto::*;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::answer::{self, Target};
use super::host::bucket_of_host;
use super::{Config, Gateway, convert, error};
use crate::http::InBody;
use crate::model::cors::{self, Allowed, CorsError, CorsMethod, CorsRule};
use crate::model::names::BucketName;
use crate::namespace::Condition;
use crate::telemetry::RequestContext;

/// What an answer depends on beside its URL.
const VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

// ---- the rules ----

fn rule_of(rule: CORSRule) -> S3Result<CorsRule> {
    let methods = rule
        .allowed_methods
        .iter()
        .map(|name| {
            CorsMethod::parse(name).ok_or_else(|| {
                s3_error!(
                    InvalidRequest,
                    "Found unsupported HTTP method in CORS config. Unsupported method is {name}"
                )
            })
        })
        .collect::<S3Result<Vec<_>>>()?;
    Ok(CorsRule {
        id: rule.id,
        methods,
        origins: rule.allowed_origins,
        allowed_headers: rule.allowed_headers.unwrap_or_default(),
        expose_headers: rule.expose_headers.unwrap_or_default(),
        max_age_seconds: rule.max_age_seconds,
    })
}

fn of_rule(rule: &CorsRule) -> CORSRule {
    let some = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    CORSRule {
        id: rule.id.clone(),
        allowed_methods: rule
            .methods
            .iter()
            .map(|method| method.as_str().to_owned())
            .collect(),
        allowed_origins: rule.origins.clone(),
        allowed_headers: some(&rule.allowed_headers),
        expose_headers: some(&rule.expose_headers),
        max_age_seconds: rule.max_age_seconds,
    }
}

fn of_cors_error(error: CorsError) -> s3s::S3Error {
    match error {
        CorsError::Incomplete => error::malformed_xml(),
        CorsError::TooMany => s3_error!(
            InvalidRequest,
            "The number of CORS rules should not exceed allowed limit of 100 rules."
        ),
        CorsError::LongId => error::invalid_argument(
            "The ID of a CORS rule should not exceed allowed limit of 255 characters.",
        ),
        CorsError::SameId => s3_error!(InvalidRequest, "The ID of a CORS rule must be unique."),
        CorsError::Origin(origin) => s3_error!(
            InvalidRequest,
            "AllowedOrigin \"{origin}\" can not have more than one wildcard."
        ),
        CorsError::AllowedHeader(name) => s3_error!(
            InvalidRequest,
            "AllowedHeader \"{name}\" can not have more than one wildcard."
        ),
        CorsError::ExposeHeader(name) => s3_error!(
            InvalidRequest,
            "ExposeHeader \"{name}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
        ),
        CorsError::MaxAge => error::invalid_argument("MaxAgeSeconds must not be negative."),
    }
}

impl Gateway {
    pub(super) async fn get_bucket_cors(
        &self,
        request: S3Request<GetBucketCorsInput>,
    ) -> S3Result<S3Response<GetBucketCorsOutput>> {
        let rules = &Caller::of(&request)?.bucket()?.settings.cors;
        if rules.is_empty() {
            return Err(error::custom(
                "NoSuchCORSConfiguration",
                404,
                "The CORS configuration does not exist",
            ));
        }
        Ok(S3Response::new(GetBucketCorsOutput {
            cors_rules: Some(rules.iter().map(of_rule).collect()),
        }))
    }

    pub(super) async fn put_bucket_cors(
        &self,
        request: S3Request<PutBucketCorsInput>,
    ) -> S3Result<S3Response<PutBucketCorsOutput>> {
        let caller = Caller::of(&request)?.clone();
        let rules = request.input.cors_configuration.cors_rules;
        let rules = rules
            .into_iter()
            .map(rule_of)
            .collect::<S3Result<Vec<_>>>()?;
        cors::check(&rules).map_err(of_cors_error)?;
        self.change_bucket(&caller, move |bucket| bucket.settings.cors = rules.clone())
            .await?;
        Ok(S3Response::new(PutBucketCorsOutput::default()))
    }

    pub(super) async fn delete_bucket_cors(
        &self,
        request: S3Request<DeleteBucketCorsInput>,
    ) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
        self.change_bucket(Caller::of(&request)?, |bucket| bucket.settings.cors.clear())
            .await?;
        Ok(S3Response::new(DeleteBucketCorsOutput::default()))
    }
}

// ---- requests ----

/// What a request of another origin's page is about.
pub(super) struct CrossOrigin {
    origin: HeaderValue,
    method: CorsMethod,
    bucket: BucketName,
}

fn target_of<B>(request: &Request<B>, config: &Config) -> Option<Target> {
    let host = request.headers().get(header::HOST);
    let text = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let domains = match bucket_of_host(text, &config.website_domains) {
        Some(_) => &config.website_domains,
        None => &config.domains,
    };
    Target::of(request.uri().path(), host, domains)
}

impl CrossOrigin {
    /// `None` for a request that no page of another origin sent, which costs it one look at its headers.
    pub(super) fn of<B>(request: &Request<B>, config: &Config) -> Option<Self> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?;
        if request.method() == Method::OPTIONS {
            return None;
        }
        let method = match headers.get(header::ACCESS_CONTROL_REQUEST_METHOD) {
            Some(method) => method.to_str().ok()?,
            None => request.method().as_str(),
        };
        Some(Self {
            origin: origin.clone(),
            method: CorsMethod::parse(method)?,
            bucket: BucketName::parse(&target_of(request, config)?.bucket).ok()?,
        })
    }

    /// Lets the page have the answer, where a rule does.
    pub(super) async fn mark(
        self,
        gateway: &Gateway,
        mut response: Response<Body>,
    ) -> Response<Body> {
        let Ok(bucket) = gateway.namespace.bucket(&self.bucket).await else {
            return response;
        };
        let rules = &bucket.settings.cors;
        if let Ok(origin) = self.origin.to_str()
            && let Some(allowed) = cors::find(rules, origin, self.method, &[])
        {
            mark(response.headers_mut(), &allowed, &self.origin);
        }
        response
    }
}

/// Says what a rule allows.
fn mark(headers: &mut HeaderMap, allowed: &Allowed<'_>, origin: &HeaderValue) {
    let rule = allowed.rule;
    let mut set = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    let methods: Vec<&str> = rule.methods.iter().map(|method| method.as_str()).collect();
    set(header::ACCESS_CONTROL_ALLOW_METHODS, methods.join(", "));
    if !rule.expose_headers.is_empty() {
        set(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            rule.expose_headers.join(", "),
        );
    }
    if let Some(seconds) = rule.max_age_seconds {
        set(header::ACCESS_CONTROL_MAX_AGE, seconds.to_string());
    }
    if allowed.any_origin {
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned());
    } else {
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true".to_owned());
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    headers.append(header::VARY, HeaderValue::from_static(VARY));
}

/// Why a preflight is refused.
enum Refused {
    /// It does not ask what a preflight asks.
    Malformed(String),
    /// No rule allows what it asks for.
    Forbidden(&'static str),
    /// The rules could not be read.
    Fault(s3s::S3Error),
}

/// Answers a browser that asks whether a page may send a request.
pub(super) async fn preflight(gateway: &Gateway, request: &Request<InBody>) -> Response<Body> {
    let context = request.extensions().get::<Arc<RequestContext>>();
    if let Some(context) = context {
        context.set_operation("OptionsObject");
    }
    let target = target_of(request, &gateway.config);
    let (code, status, message) = match allow(gateway, request, target.as_ref()).await {
        Ok(response) => return response,
        Err(Refused::Malformed(message)) => ("BadRequest", StatusCode::BAD_REQUEST, message),
        Err(Refused::Forbidden(message)) => {
            ("AccessForbidden", StatusCode::FORBIDDEN, message.to_owned())
        }
        Err(Refused::Fault(error)) => return answer::of_error(error),
    };
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = asked.and_then(|method| method.to_str().ok());
    let details = [
        ("Method", method.unwrap_or("OPTIONS")),
        (
            "ResourceType",
            target.as_ref().map_or("SERVICE", Target::resource_type),
        ),
    ];
    let details = match code {
        "AccessForbidden" => &details[..],
        _ => &[],
    };
    answer::refusal(context.map(Arc::as_ref), status, code, &message, details)
}

async fn allow(
    gateway: &Gateway,
    request: &Request<InBody>,
    target: Option<&Target>,
) -> Result<Response<Body>, Refused> {
    let headers = request.headers();
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = headers.get(header::ORIGIN);
    let Some((origin, origin_text)) = origin.zip(text(&header::ORIGIN)) else {
        return Err(Refused::Malformed(
            "Insufficient information. Origin request header needed.".to_owned(),
        ));
    };
    let method = text(&header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = method.and_then(CorsMethod::parse).ok_or_else(|| {
        Refused::Malformed(format!(
            "Invalid Access-Control-Request-Method: {}",
            method.unwrap_or("null")
        ))
    })?;
    let no_bucket = || Refused::Forbidden("CORSResponse: Bucket not found");
    let name = target.map_or("", |target| target.bucket.as_str());
    let name = convert::bucket_name(name).map_err(|_| no_bucket())?;
    let bucket = match gateway.namespace.bucket(&name).await {
        Ok(bucket) => bucket,
        Err(Condition::NoSuchBucket) => return Err(no_bucket()),
        Err(condition) => return Err(Refused::Fault(error::of_condition(condition))),
    };
    if bucket.settings.cors.is_empty() {
        return Err(Refused::Forbidden(
            "CORSResponse: CORS is not enabled for this bucket.",
        ));
    }
    let wanted = text(&header::ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
    let wanted = wanted.to_ascii_lowercase();
    let wanted: Vec<&str> = wanted
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    // The texts below are S3's own, its spelling included.
    let allowed = cors::find(&bucket.settings.cors, origin_text, method, &wanted).ok_or(
        Refused::Forbidden(
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
        ),
    )?;
    let mut response = Response::new(Body::empty());
    mark(response.headers_mut(), &allowed, origin);
    if !wanted.is_empty()
        && let Ok(names) = HeaderValue::try_from(wanted.join(", "))
    {
        response
            .headers_mut()
            .insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    Ok(response)
}
