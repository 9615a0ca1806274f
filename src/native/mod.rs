//! The native API: files by UID, for clients that speak HTTP and JSON.
//!
//! ```text
//!   v0   the frozen contract that existing clients speak                  /api/storage/v0
//!   v1   the same abilities with proper status codes                      /api/storage/v1
//!   docs the OpenAPI document of both, and a page that shows it           /api/storage/v0/swagger/
//!          |
//!          v
//!   access (credentials, links, permission) --> uploads, objects --> namespace
//! ```
//!
//! What is sent here becomes an object of an ordinary bucket, chosen by the name's extension, and any object's UID can
//! be read here by whoever may read it: both APIs are one namespace. An upload is one of the namespace's, so its
//! parts may come in any order to any node, and joining them is metadata only. An upload's number becomes its version's,
//! and names one sequence of bytes for ever: it is written once.

mod access;
mod call;
mod docs;
mod form;
mod kind;
mod objects;
mod openapi;
mod outside;
mod refusal;
mod uploads;
mod v0;
mod v1;
mod wire;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::HOST;
use axum::middleware::{self, Next};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::auth::{Authority, Links, TenantRow};
use crate::cluster::{Node, RedisState};
use crate::http::Refusal as ListenerRefusal;
use crate::model::fault::{Fault, Kind};
use crate::model::file::bucket_names;
use crate::model::names::BucketName;
use crate::namespace::{Condition, Namespace};
use crate::rest::is_address;
use crate::telemetry::RequestContext;

/// How long the database may take to answer before the node is not ready.
const READY_DEADLINE: Duration = Duration::from_secs(1);

/// Section `[native]`: the native API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it is served.
    pub enabled: bool,
    /// Address and port; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Who may make links, and ask what is there.
    pub access: Access,
    /// Whether open access may be served beyond this machine.
    pub allow_open: bool,
    /// The tenant whose buckets it serves.
    pub tenant: String,
    /// What stands before the names of its buckets.
    pub bucket_prefix: String,
    /// Whether open access may refer to content that the buckets of this API hold by its MD5 alone.
    pub open_resume: bool,
    /// What `/proxy` answers as this node's address; empty for `listen`.
    pub advertise: String,
}

/// Who may make links, and ask what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Whoever has an access key of the tenant, by HTTP Basic.
    Basic,
    /// Everybody.
    Open,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: SocketAddr::from(([127, 0, 0, 1], 8888)),
            access: Access::Basic,
            allow_open: false,
            tenant: crate::auth::DEFAULT_TENANT.to_owned(),
            bucket_prefix: String::new(),
            open_resume: false,
            advertise: String::new(),
        }
    }
}

impl Config {
    /// Checks what the types do not. The error names the key.
    pub fn check(&self) -> Result<(), String> {
        if bucket_names(&self.bucket_prefix).is_none() {
            return Err(format!(
                "native.bucket_prefix: expected the begin of a bucket's name, found {:?}",
                self.bucket_prefix
            ));
        }
        let is_open = self.enabled && self.access == Access::Open;
        if is_open && !self.listen.ip().is_loopback() && !self.allow_open {
            return Err(format!(
                "native.listen: expected a loopback address while native.access is \"open\", found {}; set \
                 native.access = \"basic\", or native.allow_open = true to let everybody in",
                self.listen
            ));
        }
        Ok(())
    }
}

/// What the API is made of.
pub struct Parts {
    /// The domain.
    pub namespace: Arc<Namespace>,
    /// Who may do what.
    pub authority: Arc<Authority>,
    /// Signs and checks links.
    pub links: Links,
    /// Who knows whether it can serve.
    pub node: Arc<Node>,
    /// Whether Redis answers, where one is configured.
    pub redis: RedisState,
    /// Cancelled when the process begins to drain.
    pub draining: CancellationToken,
    /// The configuration.
    pub config: Config,
    /// The address that is served.
    pub address: SocketAddr,
    /// The region of buckets that are made.
    pub region: String,
    /// The backends whose bytes lie on this node's own disk.
    pub own_backends: BTreeSet<String>,
    /// Whether the database does.
    pub own_database: bool,
}

/// What the handlers work on.
struct Native {
    namespace: Arc<Namespace>,
    authority: Arc<Authority>,
    links: Links,
    node: Arc<Node>,
    redis: RedisState,
    draining: CancellationToken,
    settings: Settings,
    names: Arc<Vec<BucketName>>,
}

struct Settings {
    access: Access,
    tenant: TenantRow,
    open_resume: bool,
    advertise: String,
    region: String,
    own_backends: BTreeSet<String>,
    own_database: bool,
}

/// All routes. Fails with kind `Config` when there is no such tenant, or when a bucket of this API belongs to another.
pub async fn router(parts: Parts) -> Result<Router, Fault> {
    let config = parts.config;
    let fault = |text: String| Fault::new(Kind::Config, "start native API").context(text);
    let tenant = parts.authority.tenant_by_account(&config.tenant).await?;
    let tenant = tenant.ok_or_else(|| {
        fault(format!(
            "native.tenant: there is no tenant {:?}; make it, or name another",
            config.tenant
        ))
    })?;
    let names = bucket_names(&config.bucket_prefix).ok_or_else(|| {
        fault("native.bucket_prefix: not the begin of a bucket's name".to_owned())
    })?;
    for name in &names {
        match parts.namespace.fresh_bucket(name).await {
            Ok(bucket) if bucket.tenant != tenant.id => {
                return Err(fault(format!(
                    "native.bucket_prefix: the bucket {name} belongs to another tenant; set another prefix"
                )));
            }
            Ok(_) | Err(Condition::NoSuchBucket) => {}
            Err(Condition::Fault(fault)) => return Err(fault),
            Err(_) => return Err(fault(format!("the bucket {name} cannot be used"))),
        }
    }
    let native = Arc::new(Native {
        namespace: parts.namespace,
        authority: parts.authority,
        links: parts.links,
        node: parts.node,
        redis: parts.redis,
        draining: parts.draining,
        settings: Settings {
            access: config.access,
            tenant,
            open_resume: config.open_resume,
            advertise: match config.advertise.is_empty() {
                true => parts.address.to_string(),
                false => config.advertise,
            },
            region: parts.region,
            own_backends: parts.own_backends,
            own_database: parts.own_database,
        },
        names: Arc::new(names),
    });
    // Whoever is on this machine may ask, and a web page is not: one could have its own name resolve to this address.
    let needs_address = native.settings.access == Access::Open && parts.address.ip().is_loopback();
    let check = move |request: Request, next: Next| async move {
        let context = request.extensions().get::<Arc<RequestContext>>().cloned();
        let host = request.headers().get(HOST);
        let host = host.and_then(|value| value.to_str().ok());
        let mut response = match host {
            Some(host) if needs_address && !is_address(host) => outside::other_host(request),
            _ => next.run(request).await,
        };
        outside::name(&context.unwrap_or_default(), response.headers_mut());
        response
    };
    Ok(Router::new()
        .nest(v0::BASE, v0::routes())
        .nest(v1::BASE, v1::routes())
        .merge(docs::routes(Arc::clone(&native)))
        .fallback(outside::no_route)
        .method_not_allowed_fallback(outside::no_method)
        // Documents have a limit of their own, and files that of the listener.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(check))
        .with_state(native))
}

/// How the listener's own refusals look here.
pub fn refuse(context: &RequestContext, path: &str, refusal: ListenerRefusal) -> Response {
    outside::refuse(context, path, refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_access_stays_on_this_machine_unless_it_is_said_twice() {
        let config = |listen: &str, access, allow_open| Config {
            enabled: true,
            listen: listen.parse().unwrap(),
            access,
            allow_open,
            ..Config::default()
        };
        assert!(config("127.0.0.1:1", Access::Open, false).check().is_ok());
        assert!(config("[::1]:1", Access::Open, false).check().is_ok());
        assert!(config("0.0.0.0:1", Access::Open, true).check().is_ok());
        assert!(config("0.0.0.0:1", Access::Basic, false).check().is_ok());
        let refused = config("0.0.0.0:1", Access::Open, false).check();
        assert!(refused.unwrap_err().starts_with("native.listen"));
    }

    #[test]
    fn a_prefix_begins_six_names_of_buckets() {
        let names = bucket_names("files-").unwrap();
        assert_eq!(names[0].as_str(), "files-image");
        assert_eq!(names.len(), 6);
        for bad in ["-", "UPPER", "a b", &"x".repeat(60)] {
            let config = Config {
                bucket_prefix: bad.to_owned(),
                ..Config::default()
            };
            let refused = config.check().unwrap_err();
            assert!(refused.starts_with("native.bucket_prefix"), "{refused}");
        }
    }
}
