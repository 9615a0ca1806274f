//! Events that wait: how delivery goes, and queues that are read and acknowledged.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::extract::{Asked, Sent};
use super::{Parts, failed, refusal};

/// Events of one answer when the reader does not say.
const PAGE: usize = 100;
/// Most events acknowledged at once.
const IDS_MAX: usize = 1000;

/// Which events are read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    queue: String,
    max: Option<usize>,
}

/// Which events are done with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    queue: String,
    ids: Vec<String>,
}

fn no_queue(name: &str) -> Response {
    let error = format!("there is no notification target {name:?} of the kind queue");
    refusal(StatusCode::NOT_FOUND, &error)
}

/// How delivery goes, by target.
pub(super) async fn notifications(State(parts): State<Arc<Parts>>) -> Response {
    match parts.outbox.report().await {
        Ok(targets) => Json(json!({ "targets": targets })).into_response(),
        Err(fault) => failed(&fault),
    }
}

/// The oldest events of a queue, which stay there.
pub(super) async fn read(
    State(parts): State<Arc<Parts>>,
    Asked(wanted): Asked<Wanted>,
) -> Response {
    let max = wanted.max.unwrap_or(PAGE);
    match parts.outbox.queue(&wanted.queue, max).await {
        Ok(Some(events)) => Json(json!({ "events": events })).into_response(),
        Ok(None) => no_queue(&wanted.queue),
        Err(fault) => failed(&fault),
    }
}

/// Deletes events of a queue that the reader is done with. Ids that are not there are no error: who does not
/// know whether the answer arrived asks again.
pub(super) async fn acknowledge(
    State(parts): State<Arc<Parts>>,
    Sent(done): Sent<Done>,
) -> Response {
    if done.ids.len() > IDS_MAX {
        return refusal(
            StatusCode::BAD_REQUEST,
            &format!("expected at most {IDS_MAX} ids"),
        );
    }
    let ids: Result<Vec<i64>, _> = done.ids.iter().map(|id| id.parse()).collect();
    let Ok(ids) = ids else {
        return refusal(StatusCode::BAD_REQUEST, "expected ids as they were read");
    };
    match parts.outbox.acknowledge(&done.queue, ids).await {
        Ok(Some(acknowledged)) => Json(json!({ "acknowledged": acknowledged })).into_response(),
        Ok(None) => no_queue(&done.queue),
        Err(fault) => failed(&fault),
    }
}
