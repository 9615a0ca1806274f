//! The Security Token Service beside S3: AssumeRole, GetSessionToken and GetCallerIdentity.
//!
//! A form posted to `/` and signed for the service `sts`, whose signature `s3s` has verified. Any role of the
//! caller's own tenant can be assumed, and gives the caller's own rights narrowed by the session's policy: there
//! are no roles apart from keys here. Answers and errors are STS's ("AWS Security Token Service API Reference").

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use s3s::{Body, S3Error, S3Request, S3Response, S3Result};

use super::access::{Caller, Proof, check_token};
use super::escape::push_escaped;
use super::sent::{Sent, origin};
use super::{Gateway, error};
use crate::auth::{Identity, NewSession, NoSession, SESSION_POLICY_MAX_BYTES, SessionRequest};
use crate::model::clock::{Millis, iso8601};
use crate::telemetry::RequestContext;

/// Most bytes of a form; `s3s` takes no more either.
const FORM_MAX_BYTES: usize = 8192;
const VERSION: &str = "2011-06-15";
/// The namespace of every document.
pub(super) const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// Limits of `DurationSeconds`, and what it is without.
const LASTS_MIN: u64 = 900;
const LASTS_DEFAULT: u64 = 3600;
const ROLE_LASTS_MAX: u64 = 43_200;
const TOKEN_LASTS_MAX: u64 = 129_600;
const TOKEN_LASTS_DEFAULT: u64 = 43_200;

/// Whether a request is for this service and not for S3.
pub(super) fn is_for_sts(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let is_form = kind.is_some_and(|kind| {
        let kind = kind.as_bytes();
        let name = b"application/x-www-form-urlencoded";
        kind.get(..name.len())
            .is_some_and(|kind| kind.eq_ignore_ascii_case(name))
    });
    *method == Method::POST && uri.path() == "/" && uri.query().is_none() && is_form
}

fn failure(code: &'static str, status: u16, message: impl Into<String>) -> S3Error {
    let mut error = S3Error::with_message(s3s::S3ErrorCode::Custom(code.into()), message.into());
    if let Ok(status) = http::StatusCode::from_u16(status) {
        error.set_status_code(status);
    }
    error
}

fn invalid(message: impl Into<String>) -> S3Error {
    failure("ValidationError", 400, message)
}

/// The parameters of a request.
struct Form(Vec<(String, String)>);

impl Form {
    fn get(&self, wanted: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str, field: &str) -> S3Result<&str> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            invalid(format!(
                "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
            ))
        })
    }

    fn lasts(&self, default: u64, most: u64) -> S3Result<Duration> {
        let Some(text) = self.get("DurationSeconds") else {
            return Ok(Duration::from_secs(default));
        };
        let seconds = text.parse::<u64>().ok();
        let seconds = seconds.filter(|seconds| (LASTS_MIN..=most).contains(seconds));
        seconds.map(Duration::from_secs).ok_or_else(|| {
            invalid(format!(
                "1 validation error detected: Value '{text}' at 'durationSeconds' failed to satisfy constraint: Member must have value between {LASTS_MIN} and {most}"
            ))
        })
    }
}

/// The role that an ARN names in the caller's own tenant.
fn role_of(arn: &str, identity: &Identity) -> S3Result<String> {
    let malformed = || invalid(format!("{arn} is invalid"));
    let mut parts = arn.splitn(6, ':');
    let mut part = || parts.next().unwrap_or_default();
    let (prefix, _, service, region) = (part(), part(), part(), part());
    let (account, resource) = (part(), part());
    let role = resource.strip_prefix("role/").unwrap_or_default();
    let role = role.rsplit('/').next().unwrap_or_default();
    if prefix != "arn" || service != "iam" || !region.is_empty() || !is_name(role, 64) {
        return Err(malformed());
    }
    let tenant = &identity.tenant;
    if account != tenant.name && account != tenant.owner_id {
        return Err(failure(
            "AccessDenied",
            403,
            format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}",
                identity.arn()
            ),
        ));
    }
    Ok(role.to_owned())
}

/// What names of roles and sessions are made of.
fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
}

fn session_name(form: &Form) -> S3Result<String> {
    let name = form.required("RoleSessionName", "roleSessionName")?;
    if name.len() >= 2 && is_name(name, 64) {
        return Ok(name.to_owned());
    }
    Err(invalid(format!(
        "1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
    )))
}

fn session_policy(form: &Form) -> S3Result<Option<String>> {
    let Some(policy) = form.get("Policy").filter(|policy| !policy.is_empty()) else {
        return Ok(None);
    };
    if policy.len() > SESSION_POLICY_MAX_BYTES {
        return Err(invalid(format!(
            "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to {SESSION_POLICY_MAX_BYTES}"
        )));
    }
    Ok(Some(policy.to_owned()))
}

fn of_refusal(refusal: NoSession, identity: &Identity, action: &str) -> S3Error {
    match refusal {
        NoSession::Temporary => failure(
            "AccessDenied",
            403,
            format!(
                "User: {} is not authorized to perform: sts:{action} with session credentials",
                identity.arn()
            ),
        ),
        NoSession::Policy(reason) => failure("MalformedPolicyDocument", 400, reason.to_string()),
        NoSession::TooMany => failure("Throttling", 400, "Rate exceeded"),
        NoSession::Fault(fault) => error::of_fault(fault),
    }
}

impl Gateway {
    /// Who asks for a session: somebody with a key, and with its token if it has one.
    pub(super) async fn admit_to_sts(&self, request: &S3Request<Body>) -> S3Result<Caller> {
        let context = request.extensions.get::<Arc<RequestContext>>();
        if let Some(context) = context {
            context.set_operation("Sts");
        }
        let Some(credentials) = &request.credentials else {
            return Err(failure(
                "MissingAuthenticationToken",
                403,
                "Request is missing Authentication Token",
            ));
        };
        if request.service.as_deref() != Some("sts") {
            return Err(failure(
                "SignatureDoesNotMatch",
                403,
                "Credential should be scoped to correct service: 'sts'.",
            ));
        }
        if let Some(context) = context {
            context.set_access_key(&credentials.access_key);
        }
        let identity = self.identity(&credentials.access_key).await?;
        let remote = context.and_then(|context| context.remote());
        let origin = origin(remote, &request.headers, &self.config.trusted_proxies);
        let now = self.namespace.now();
        let sent = Sent::new(request.headers.clone(), None, origin, now, Proof::Header);
        check_token(&identity, &sent)?;
        Ok(Caller::new(Some(identity), sent))
    }

    /// Answers a request for a session.
    pub(super) async fn answer_sts(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let caller = Caller::of(&request)?.clone();
        let identity = caller.signed()?;
        let context = request.extensions.get::<Arc<RequestContext>>();
        let id = context
            .map_or("", |context| context.id().as_str())
            .to_owned();
        let mut body = request.input;
        let form = body.store_all_limited(FORM_MAX_BYTES).await;
        let form = form.map_err(|_| invalid("The form could not be read."))?;
        let form = Form(form_urlencoded::parse(&form).into_owned().collect());
        let action = form.get("Action").unwrap_or_default();
        let is_known = ["AssumeRole", "GetSessionToken", "GetCallerIdentity"].contains(&action);
        if !is_known || form.get("Version") != Some(VERSION) {
            let version = form.get("Version").unwrap_or_default();
            return Err(failure(
                "InvalidAction",
                400,
                format!("Could not find operation {action} for version {version}"),
            ));
        }
        let mut document = Document::new(action);
        match action {
            "AssumeRole" => {
                let role = role_of(form.required("RoleArn", "roleArn")?, identity)?;
                let session = session_name(&form)?;
                let wanted = SessionRequest {
                    policy: session_policy(&form)?,
                    lasts: form.lasts(LASTS_DEFAULT, ROLE_LASTS_MAX)?,
                    role: Some((role.clone(), session.clone())),
                };
                let new = self.begin(identity, wanted, action).await?;
                document.open("AssumedRoleUser");
                let tenant = &identity.tenant.name;
                let arn = format!("arn:aws:sts::{tenant}:assumed-role/{role}/{session}");
                document.element("Arn", &arn);
                let user = format!("{}:{session}", identity.access_key);
                document.element("AssumedRoleId", &user);
                document.close("AssumedRoleUser");
                document.credentials(&new);
            }
            "GetSessionToken" => {
                let wanted = SessionRequest {
                    policy: None,
                    lasts: form.lasts(TOKEN_LASTS_DEFAULT, TOKEN_LASTS_MAX)?,
                    role: None,
                };
                let new = self.begin(identity, wanted, action).await?;
                document.credentials(&new);
            }
            _ => {
                document.element("Arn", &identity.arn());
                document.element("UserId", &identity.user_id());
                document.element("Account", &identity.tenant.name);
            }
        }
        let mut response = S3Response::new(Body::from(document.end(&id)));
        response
            .headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        Ok(response)
    }

    async fn begin(
        &self,
        identity: &Identity,
        wanted: SessionRequest,
        action: &str,
    ) -> S3Result<NewSession> {
        let begun = self.authority.begin_session(identity, wanted).await;
        begun.map_err(|refusal| of_refusal(refusal, identity, action))
    }
}

/// An answer's document while it is written.
struct Document {
    action: String,
    text: String,
}

impl Document {
    fn new(action: &str) -> Self {
        Self {
            text: format!("<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>"),
            action: action.to_owned(),
        }
    }

    fn open(&mut self, name: &str) {
        let _ = write!(self.text, "<{name}>");
    }

    fn close(&mut self, name: &str) {
        let _ = write!(self.text, "</{name}>");
    }

    fn element(&mut self, name: &str, text: &str) {
        self.open(name);
        push_escaped(&mut self.text, text);
        self.close(name);
    }

    fn credentials(&mut self, session: &NewSession) {
        self.open("Credentials");
        self.element("AccessKeyId", &session.pair.access_key);
        self.element("SecretAccessKey", session.pair.secret_key.reveal());
        self.element("SessionToken", &session.token);
        self.element("Expiration", &moment(session.expires_at));
        self.close("Credentials");
    }

    fn end(mut self, id: &str) -> String {
        let action = std::mem::take(&mut self.action);
        self.close(&format!("{action}Result"));
        self.open("ResponseMetadata");
        self.element("RequestId", id);
        self.close("ResponseMetadata");
        self.close(&format!("{action}Response"));
        self.text
    }
}

/// A time in whole seconds, as STS writes it.
fn moment(at: Millis) -> String {
    iso8601(at.div_euclid(1000) * 1000).replace(".000Z", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Form {
        let pairs = pairs.iter();
        Form(
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn a_form_posted_to_the_root_is_for_sts() {
        let is_for = |method: Method, uri: &str, kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            is_for_sts(&method, &uri.parse().unwrap(), &headers)
        };
        const KIND: &str = "application/x-www-form-urlencoded; charset=utf-8";
        assert!(is_for(Method::POST, "/", KIND));
        assert!(!is_for(Method::GET, "/", KIND));
        assert!(!is_for(Method::POST, "/bucket", KIND));
        assert!(!is_for(Method::POST, "/?delete", KIND));
        assert!(!is_for(Method::POST, "/", "multipart/form-data"));
    }

    #[test]
    fn durations_have_limits() {
        let lasts = |text: &str| form(&[("DurationSeconds", text)]).lasts(3600, 43_200).ok();
        assert_eq!(
            form(&[]).lasts(3600, 43_200).ok(),
            Some(Duration::from_secs(3600))
        );
        assert_eq!(lasts("900"), Some(Duration::from_secs(900)));
        assert_eq!(lasts("43200"), Some(Duration::from_secs(43_200)));
        for wrong in ["899", "43201", "-1", "soon", ""] {
            assert_eq!(lasts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn session_names_are_checked() {
        let name = |text: &str| session_name(&form(&[("RoleSessionName", text)])).is_ok();
        assert!(name("me@example.com"));
        for wrong in ["", "x", "a b", "a/b", "ä1", &"x".repeat(65)] {
            assert!(!name(wrong), "{wrong}");
        }
    }

    #[test]
    fn documents_are_escaped_and_closed() {
        let mut document = Document::new("GetCallerIdentity");
        document.element("Arn", "a<&>b");
        assert_eq!(
            document.end("ID"),
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>a&lt;&amp;&gt;b</Arn></GetCallerIdentityResult><ResponseMetadata><RequestId>ID</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
        );
        assert_eq!(moment(1_600_000_000_999), "2020-09-13T12:26:40Z");
    }
}
