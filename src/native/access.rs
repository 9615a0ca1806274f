//! Who asks, and whether they may.
//!
//! There are three kinds of callers: the holder of an access key, who says so by HTTP Basic; the holder of a link,
//! for whom whoever made the link answers; and, where access is open, anybody, who reaches the buckets of this API
//! and nothing else. Possession of what was sent is gained by the first kind alone: a link hands a key's word to
//! somebody else.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, REFERER, USER_AGENT};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::call::Call;
use super::refusal::{Problem, Refusal};
use super::{Access, Native};
use crate::auth::{
    Action, Authority, Facts, Identity, Principal, Purpose, Question, Secret, Target, TenantRow,
    Terms, Value, Verdict,
};
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::ids::SenderId;
use crate::model::names::BucketName;
use crate::model::notification::Origin;
use crate::model::object::Version;
use crate::namespace::Recheck;

/// Longest `Authorization` header that is looked at.
const AUTHORIZATION_MAX: usize = 1024;

/// Who asks.
#[derive(Clone)]
pub(super) struct Caller {
    /// Who answers for the request; `None` where access is open.
    pub(super) identity: Option<Arc<Identity>>,
    /// Who gains possession of what the request sends.
    pub(super) sender: Option<SenderId>,
    sent: Arc<Sent>,
}

/// What a request says of itself to policies.
struct Sent {
    address: Option<IpAddr>,
    user_agent: Option<String>,
    referer: Option<String>,
    request_id: String,
    by_link: bool,
    at: Millis,
}

impl Sent {
    fn of(call: &Call, by_link: bool, at: Millis) -> Arc<Self> {
        Arc::new(Self {
            address: call.context.remote(),
            user_agent: call.header(USER_AGENT).map(str::to_owned),
            referer: call.header(REFERER).map(str::to_owned),
            request_id: call.context.id().to_string(),
            by_link,
            at,
        })
    }

    /// The value of a condition key, by its name in lower case.
    fn value(&self, key: &str) -> Value {
        let moment = || OffsetDateTime::from_unix_timestamp(self.at.div_euclid(1000)).ok();
        let value = match key {
            "aws:sourceip" => self
                .address
                .map(|address| address.to_canonical().to_string()),
            "aws:securetransport" => Some("false".to_owned()),
            "aws:useragent" => self.user_agent.clone(),
            "aws:referer" => self.referer.clone(),
            "aws:currenttime" => moment().and_then(|moment| moment.format(&Rfc3339).ok()),
            "aws:epochtime" => Some(self.at.div_euclid(1000).to_string()),
            "s3:authtype" => Some(match self.by_link {
                true => "REST-QUERY-STRING".to_owned(),
                false => "REST-HEADER".to_owned(),
            }),
            _ => None,
        };
        value.map_or(Value::Absent, |value| Value::Is(vec![value]))
    }
}

/// What an object of a question is.
#[derive(Clone, Copy)]
pub(super) enum Object<'v> {
    /// One that the request makes.
    New,
    /// One that is there.
    Found(&'v Version),
}

impl Caller {
    /// Who did it, for those who are told of changes in `bucket`.
    pub(super) fn origin(&self, bucket: &Bucket) -> Origin {
        if bucket.settings.notification.is_none() {
            return Origin::default();
        }
        let anonymous = || "Anonymous".to_owned();
        let key = |identity: &Arc<Identity>| format!("AWS:{}", identity.access_key);
        let address = self.sent.address.map(|address| address.to_string());
        Origin {
            principal: self.identity.as_ref().map_or_else(anonymous, key),
            address: address.unwrap_or_default(),
            request_id: self.sent.request_id.clone(),
        }
    }

    /// The access key that links are made with; empty where access is open.
    pub(super) fn issuer(&self) -> &str {
        let identity = self.identity.as_ref();
        identity.map_or("", |identity| &identity.access_key)
    }
}

/// Decides; also asked again by a commit.
struct Gate {
    authority: Arc<Authority>,
    caller: Caller,
    tenant: TenantRow,
    buckets: Arc<Vec<BucketName>>,
}

impl Gate {
    fn admits(&self, action: Action, bucket: &Bucket, key: &str, object: Object<'_>) -> bool {
        let Some(identity) = &self.caller.identity else {
            return bucket.tenant == self.tenant.id && self.buckets.contains(&bucket.name);
        };
        let sent = Arc::clone(&self.caller.sent);
        let verdict = self.authority.authorize(&Question {
            principal: Principal::Key(identity),
            action,
            target: Target::Object(bucket, key),
            object: match object {
                Object::New => Facts::Missing,
                Object::Found(version) => Facts::Found {
                    tags: &version.tags,
                    acl: version.acl.as_ref(),
                },
            },
            context: &move |name| sent.value(name),
        });
        verdict == Verdict::Allowed
    }
}

impl Native {
    /// Who asks for what needs credentials, unless access is open.
    pub(super) async fn caller(&self, call: &Call) -> Result<Caller, Refusal> {
        match self.settings.access {
            Access::Open => Ok(Caller {
                identity: None,
                sender: None,
                sent: Sent::of(call, false, self.namespace.now()),
            }),
            Access::Basic => self.key_holder(call).await,
        }
    }

    /// Who asks for what always needs credentials.
    pub(super) async fn key_holder(&self, call: &Call) -> Result<Caller, Refusal> {
        let identity = self.by_basic(call).await?.ok_or_else(Refusal::unknown)?;
        call.context.set_access_key(&identity.access_key);
        Ok(Caller {
            sender: Some(identity.sender),
            identity: Some(identity),
            sent: Sent::of(call, false, self.namespace.now()),
        })
    }

    /// Who asks with a link that says `terms`: its issuer answers for it, and must be somebody still. Credentials
    /// that come along as well say who sends; those of nobody here are none.
    pub(super) async fn link_holder(
        &self,
        call: &Call,
        terms: &Terms<'_>,
    ) -> Result<Caller, Refusal> {
        let issuer = self.links.check(terms, call.needed("signature")?).await?;
        let identity = match (issuer.as_str(), self.settings.access) {
            ("", Access::Open) => None,
            // Made while access was open, or by a key that is gone.
            ("", Access::Basic) => return Err(Refusal::unknown()),
            (issuer, _) => Some(self.identity(issuer).await?.ok_or_else(Refusal::unknown)?),
        };
        let sender = match (self.settings.access, terms.purpose) {
            (Access::Open, _) | (Access::Basic, Purpose::Download) => None,
            (Access::Basic, Purpose::Upload) => match self.by_basic(call).await {
                Ok(identity) => identity.map(|identity| identity.sender),
                Err(refusal) if refusal.problem == Problem::Unknown => None,
                Err(refusal) => return Err(refusal),
            },
        };
        if let Some(identity) = &identity {
            call.context.set_access_key(&identity.access_key);
        }
        Ok(Caller {
            identity,
            sender,
            sent: Sent::of(call, true, self.namespace.now()),
        })
    }

    /// The holder of the access key that a request names in its `Authorization`; `None` without one.
    async fn by_basic(&self, call: &Call) -> Result<Option<Arc<Identity>>, Refusal> {
        let Some(header) = call.headers.get(AUTHORIZATION) else {
            return Ok(None);
        };
        let (access_key, secret) = header
            .to_str()
            .ok()
            .filter(|text| text.len() <= AUTHORIZATION_MAX)
            .and_then(credentials)
            .ok_or_else(Refusal::unknown)?;
        let identity = self.identity(&access_key).await?;
        // In constant time.
        let identity = identity.filter(|identity| identity.secret == secret);
        Ok(Some(identity.ok_or_else(Refusal::unknown)?))
    }

    /// A key of this listener's tenant that is no temporary one, whose token cannot be sent here.
    async fn identity(&self, access_key: &str) -> Result<Option<Arc<Identity>>, Refusal> {
        let found = self.authority.identity(access_key).await?;
        Ok(found.filter(|identity| {
            identity.tenant.id == self.settings.tenant.id && !identity.is_temporary()
        }))
    }

    fn gate(&self, caller: &Caller) -> Gate {
        Gate {
            authority: Arc::clone(&self.authority),
            caller: caller.clone(),
            tenant: self.settings.tenant.clone(),
            buckets: Arc::clone(&self.names),
        }
    }

    /// Whether the caller may do this to an object.
    pub(super) fn may(
        &self,
        caller: &Caller,
        action: Action,
        bucket: &Bucket,
        key: &str,
        object: Object<'_>,
    ) -> bool {
        self.gate(caller).admits(action, bucket, key, object)
    }

    /// Refuses what the caller may not do.
    pub(super) fn admit(
        &self,
        caller: &Caller,
        action: Action,
        bucket: &Bucket,
        key: &str,
        object: Object<'_>,
    ) -> Result<(), Refusal> {
        match self.may(caller, action, bucket, key, object) {
            true => Ok(()),
            false => Err(Refusal::denied()),
        }
    }

    /// The question once more, for a commit that finds the bucket changed.
    pub(super) fn recheck(&self, caller: &Caller, action: Action, key: &str) -> Recheck {
        let (gate, key) = (self.gate(caller), key.to_owned());
        Arc::new(move |bucket| gate.admits(action, bucket, &key, Object::New))
    }
}

/// The two halves of an access key in an `Authorization` of the scheme Basic (RFC 7617).
fn credentials(header: &str) -> Option<(String, Secret)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (access_key, secret) = text.split_once(':')?;
    Some((access_key.to_owned(), Secret::new(secret.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_rfc_7617() {
        let (access_key, secret) = credentials("Basic QUtJRDpzZWM6cmV0").unwrap();
        assert_eq!((access_key.as_str(), secret.reveal()), ("AKID", "sec:ret"));
        assert!(credentials("bAsIc QUtJRDpz").is_some());
        for none in [
            "",
            "Basic",
            "Basic !",
            "Bearer QUtJRDpz",
            "Basic QUtJRA==",
            "Basic /////w==",
        ] {
            assert!(credentials(none).is_none(), "{none}");
        }
    }
}
