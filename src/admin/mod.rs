//! Health, metrics, and the few things the command line asks of a running server.
//!
//! ```text
//!   GET  /healthz    200 while the process lives
//!   GET  /readyz     200 while it can serve: the database answers, ids are left, it is not draining; else 503
//!   GET  /metrics    OpenMetrics text
//!   POST /v1/gc      collects and sweeps now; answers with a report        } with the token of run.json,
//!   POST /v1/fsck    compares rows and backends: an `FsckOrder`, answered with a report   } see `RunFile`
//!   GET  /v1/stats   what the install holds                               }
//!   GET  /v1/load                   how busy the nodes say they are           }
//!   GET  /v1/nodes   the nodes that share the database                     }
//!   GET  /v1/notifications          how delivery of events goes, by target  }
//!   GET  /v1/events?queue=NAME&max=N  the oldest events of a queue             }
//!   POST /v1/events/acknowledge     {"queue": NAME, "ids": [...]}: deletes   }
//!   GET  /v1/jobs?type=T&state=S&before=ID&max=N  jobs, the newest first        }
//!   GET  /v1/jobs/ID                one job                                   }
//!   POST /v1/jobs/ID/retry          runs a job now, or again                  }
//!   POST /v1/jobs/ID/cancel         ends a job                                }
//!   POST /v1/jobs/pause             {"type": T}: no such job runs ...         }
//!   POST /v1/jobs/resume            {"type": T}: ... until this               }
//!   POST /v1/keys    wrapping keys: a `KeyCommand`, answered with a `KeyReport`   }
//! ```
//!
//! `gc`, `fsck` and `keys` may take long. To whom accepts `application/x-ndjson` they tell in lines how far they are:
//! `{"progress": {"step": S, "done": N, "total": N or null}}` every second, and in the end `{"report": ...}` or
//! `{"failure": {"status": N, "error": TEXT}}`.
//!
//! The first three need no credentials. The others need the token that the server wrote, for its owner alone,
//! into its data directory: who can read that directory may ask. They also refuse a `Host` that is a name
//! other than `localhost`, so that no web page can reach them by having its own name resolve to this address.

mod client;
mod events;
mod extract;
mod jobs;
mod peers;
mod run_file;
mod told;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Loads, Node};
use crate::content::FsckOrder;
use crate::keys::KeyError;
use crate::model::fault::{Fault, Kind};
use crate::rest::is_address;
use crate::tasks::{Backlog, Collector, KeyCommand, Keyring, Outbox, Survey};
use crate::telemetry::Metrics;

pub use client::{Client, ClientError, probe};
pub use peers::{PeerParts, peer_router};
pub use run_file::{RunFile, Token};

/// How long the database may take to answer before the node is not ready.
const READY_DEADLINE: Duration = Duration::from_secs(1);

/// What the routes work on.
pub struct Parts {
    /// What is exposed.
    pub metrics: Arc<Metrics>,
    /// Who knows whether it can serve.
    pub node: Arc<Node>,
    /// What the nodes say of themselves.
    pub nodes: Loads,
    /// What collects.
    pub collector: Arc<Collector>,
    /// What wraps data keys.
    pub keyring: Keyring,
    /// What adds up.
    pub survey: Survey,
    /// The jobs.
    pub backlog: Backlog,
    /// The events that wait.
    pub outbox: Arc<Outbox>,
    /// Cancelled when the process begins to drain.
    pub draining: CancellationToken,
    /// What `/v1` asks for.
    pub token: Token,
}

/// All routes.
pub fn router(parts: Parts) -> Router {
    let parts = Arc::new(parts);
    let guarded = Router::new()
        .route("/v1/gc", post(gc))
        .route("/v1/fsck", post(fsck))
        .route("/v1/stats", get(stats))
        .route("/v1/load", get(load))
        .route("/v1/nodes", get(nodes))
        .route("/v1/notifications", get(events::notifications))
        .route("/v1/events", get(events::read))
        .route("/v1/events/acknowledge", post(events::acknowledge))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/pause", post(jobs::pause))
        .route("/v1/jobs/resume", post(jobs::resume))
        .route("/v1/keys", post(keys))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&parts), guard));
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .with_state(parts)
}

async fn ready(State(parts): State<Arc<Parts>>) -> Response {
    if parts.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    match parts.node.check(READY_DEADLINE).await {
        Ok(()) => "ready\n".into_response(),
        Err(fault) => {
            tracing::debug!(%fault, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
        }
    }
}

async fn metrics(State(parts): State<Arc<Parts>>) -> Response {
    (
        [(CONTENT_TYPE, Metrics::MEDIA_TYPE)],
        parts.metrics.expose(),
    )
        .into_response()
}

/// A client that leaves ends the pass; what is left is done by the next.
async fn gc(State(parts): State<Arc<Parts>>, headers: HeaderMap) -> Response {
    told::answer(&headers, async move |tell| {
        parts.collector.pass(&tell).await
    })
    .await
}

/// A client that leaves ends it; what was repaired stays repaired.
async fn fsck(
    State(parts): State<Arc<Parts>>,
    headers: HeaderMap,
    Json(order): Json<FsckOrder>,
) -> Response {
    told::answer(&headers, async move |tell| {
        parts.collector.fsck(&order, &tell).await
    })
    .await
}

async fn stats(State(parts): State<Arc<Parts>>) -> Response {
    match parts.survey.stats().await {
        Ok(stats) => Json(stats).into_response(),
        Err(fault) => failed(&fault),
    }
}

/// Without Redis no node says anything.
async fn load(State(parts): State<Arc<Parts>>) -> Response {
    Json(json!({ "nodes": parts.nodes.now() })).into_response()
}

async fn nodes(State(parts): State<Arc<Parts>>) -> Response {
    match parts.node.all().await {
        Ok(nodes) => Json(nodes).into_response(),
        Err(fault) => failed(&fault),
    }
}

/// A client that leaves ends the wrapping; the rest is done by a task.
async fn keys(
    State(parts): State<Arc<Parts>>,
    headers: HeaderMap,
    Json(command): Json<KeyCommand>,
) -> Response {
    told::answer(&headers, async move |tell| {
        parts.keyring.run(command, &tell).await
    })
    .await
}

/// Why something was not done, for an operator: whoever has the token is one and is told what went wrong.
struct Refusal {
    status: StatusCode,
    error: String,
}

impl From<&Fault> for Refusal {
    fn from(fault: &Fault) -> Self {
        tracing::warn!(%fault, "admin request failed");
        let status = match fault.kind() {
            Kind::Busy | Kind::Unavailable | Kind::Full => StatusCode::SERVICE_UNAVAILABLE,
            Kind::NotFound | Kind::Unknown | Kind::Corrupt | Kind::Config | Kind::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self {
            status,
            error: fault.to_string(),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::from(&fault)
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Fault(fault) => fault.into(),
            error => Self {
                status: StatusCode::CONFLICT,
                error: error.to_string(),
            },
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}

fn failed(fault: &Fault) -> Response {
    Refusal::from(fault).into_response()
}

fn refusal(status: StatusCode, error: &str) -> Response {
    let error = error.to_owned();
    Refusal { status, error }.into_response()
}

/// Lets a request to `/v1` pass.
async fn guard(State(parts): State<Arc<Parts>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    if !host.is_some_and(is_address) {
        return refusal(StatusCode::FORBIDDEN, "the Host header names no address");
    }
    if !bearer(headers).is_some_and(|given| parts.token.is(given)) {
        let mut response = refusal(StatusCode::UNAUTHORIZED, "expected the token of run.json");
        let challenge = axum::http::HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    }
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}
