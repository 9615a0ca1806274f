//! Jobs: what waits and runs, what became of it, and what an operator wants of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::extract::{Asked, Named, Sent};
use super::{Parts, failed, refusal};
use crate::model::ids::JobId;
use crate::model::job;
use crate::tasks::{JobError, JobFilter, Wish};

/// Jobs of one answer when the reader does not say.
const PAGE: usize = 100;

/// Which jobs are listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    r#type: Option<String>,
    state: Option<String>,
    before: Option<i64>,
    max: Option<usize>,
}

/// Jobs of this type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfType {
    r#type: String,
}

type Id = Named<i64>;

/// Jobs, the newest first.
pub(super) async fn list(
    State(parts): State<Arc<Parts>>,
    Asked(wanted): Asked<Wanted>,
) -> Response {
    let state = match wanted.state.as_deref().map(job::State::parse) {
        None => None,
        Some(Some(state)) => Some(state),
        Some(None) => return refusal(StatusCode::BAD_REQUEST, &unknown_state()),
    };
    let filter = JobFilter {
        kind: wanted.r#type,
        state,
        before: wanted.before.map(JobId),
        limit: wanted.max.unwrap_or(PAGE),
    };
    match parts.backlog.list(filter).await {
        Ok(report) => Json(report).into_response(),
        Err(fault) => failed(&fault),
    }
}

fn unknown_state() -> String {
    let names = job::State::ALL.map(job::State::as_str);
    format!("expected a state: {}", names.join(", "))
}

/// One job.
pub(super) async fn show(State(parts): State<Arc<Parts>>, Named(id): Id) -> Response {
    answer(parts.backlog.show(JobId(id)).await)
}

/// Runs a job now, or again.
pub(super) async fn retry(state: State<Arc<Parts>>, id: Id) -> Response {
    wish(state, id, Wish::Retry).await
}

/// Ends a job.
pub(super) async fn cancel(state: State<Arc<Parts>>, id: Id) -> Response {
    wish(state, id, Wish::Cancel).await
}

async fn wish(State(parts): State<Arc<Parts>>, Named(id): Id, wish: Wish) -> Response {
    answer(parts.backlog.wish(JobId(id), wish).await)
}

/// Keeps the jobs of a type from running.
pub(super) async fn pause(
    State(parts): State<Arc<Parts>>,
    Sent(OfType { r#type: kind }): Sent<OfType>,
) -> Response {
    let paused = parts.backlog.pause(&kind).await;
    answer(paused.map(|()| json!({ "type": kind, "paused": true })))
}

/// Lets them run again.
pub(super) async fn resume(
    State(parts): State<Arc<Parts>>,
    Sent(OfType { r#type: kind }): Sent<OfType>,
) -> Response {
    let resumed = parts.backlog.resume(&kind).await;
    answer(resumed.map(|()| json!({ "type": kind, "paused": false })))
}

fn answer(outcome: Result<impl Serialize, JobError>) -> Response {
    let error = match outcome {
        Ok(answer) => return Json(answer).into_response(),
        Err(JobError::Fault(fault)) => return failed(&fault),
        Err(error) => error,
    };
    let status = match error {
        JobError::NoJob(_) | JobError::NoType { .. } => StatusCode::NOT_FOUND,
        JobError::Refused(..) | JobError::Twice(..) | JobError::Paused(_) => StatusCode::CONFLICT,
        JobError::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refusal(status, &error.to_string())
}
