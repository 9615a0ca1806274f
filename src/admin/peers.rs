//! What the other nodes ask of this one: bytes of blobs that lie on its own disk.
//!
//! A listener of its own, which peers reach and operators need not. Every question is signed with what the master key
//! gives; see [`PeerKey`] for what a signature is good for.

use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::cluster::{Ask, PEER_HEADER, PeerKey, TIME_HEADER};
use crate::content::{ContentStore, CopyReader};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};

/// What peers are answered from.
pub struct PeerParts {
    /// What this node is called.
    pub node: String,
    /// Whose blobs.
    pub content: Arc<ContentStore>,
    /// What questions are signed with.
    pub key: PeerKey,
    /// The time.
    pub clock: Clock,
}

/// The routes of the listener for peers.
pub fn peer_router(parts: PeerParts) -> Router {
    Router::new()
        .route("/blobs/{backend}/{blob}", get(blob))
        .with_state(Arc::new(parts))
}

#[derive(Deserialize)]
struct Wanted {
    start: u64,
    end: u64,
}

async fn blob(
    State(parts): State<Arc<PeerParts>>,
    Path((backend, blob)): Path<(String, String)>,
    Query(Wanted { start, end }): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    let mut response = match parts.answer(&backend, &blob, start..end, &headers).await {
        Ok(response) => response,
        Err(status) => status.into_response(),
    };
    if let Ok(name) = HeaderValue::try_from(&parts.node) {
        response.headers_mut().insert(PEER_HEADER, name);
    }
    response
}

impl PeerParts {
    async fn answer(
        &self,
        backend: &str,
        blob: &str,
        range: Range<u64>,
        headers: &HeaderMap,
    ) -> Result<Response, StatusCode> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let time = text(TIME_HEADER).and_then(|text| text.parse::<Millis>().ok());
        let ask = Ask {
            // Signed for another node, it is no good here, whatever the header says.
            node: &self.node,
            backend,
            blob,
            range: range.clone(),
            time: time.ok_or(StatusCode::UNAUTHORIZED)?,
        };
        let signature = text(AUTHORIZATION.as_str()).unwrap_or_default();
        if !self.key.verify(&ask, signature, self.clock.now()) {
            tracing::warn!(
                backend,
                "a question of a peer is not signed as it should be"
            );
            return Err(StatusCode::UNAUTHORIZED);
        }
        let length = range
            .end
            .checked_sub(range.start)
            .ok_or(StatusCode::BAD_REQUEST)?;
        let reader = self
            .content
            .read_for_peer(backend, blob, range)
            .await
            .map_err(|fault| status(&fault))?;
        let headers = [
            (CONTENT_LENGTH, HeaderValue::from(length)),
            (
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            ),
        ];
        Ok((headers, Body::from_stream(stream(reader))).into_response())
    }
}

/// A fault ends the body early, which its announced length makes visible.
fn stream(
    reader: CopyReader,
) -> impl futures::Stream<Item = Result<bytes::Bytes, Fault>> + Send + 'static {
    futures::stream::try_unfold(reader, async |mut reader| match reader.next().await {
        Some(Ok(bytes)) => Ok(Some((bytes, reader))),
        Some(Err(fault)) => {
            tracing::warn!(%fault, "read for peer");
            Err(fault)
        }
        None => Ok(None),
    })
}

fn status(fault: &Fault) -> StatusCode {
    tracing::warn!(%fault, "read for peer");
    match fault.kind() {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Busy | Kind::Unavailable | Kind::Full => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Unknown | Kind::Corrupt | Kind::Config | Kind::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
