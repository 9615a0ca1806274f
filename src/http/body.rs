//! The body of a request as a facade reads it: counted, bounded in size, and failing when it stalls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::connection::State;
use crate::telemetry::{BodyFailure, Metrics, RequestContext};

/// The raw body of a request, before any decoding.
///
/// Nothing is read from the client before the first poll beyond what came with the head. It is `Send`, `Sync` and
/// `Unpin`. After an error it stays ended.
#[derive(Debug)]
pub struct InBody {
    source: Source,
    context: Arc<RequestContext>,
    /// Absent for a body that does not come from a connection.
    watch: Option<Watch>,
}

#[derive(Debug)]
enum Source {
    Wire(Incoming),
    Memory(Full<Bytes>),
    Failed,
}

#[derive(Debug)]
struct Watch {
    metrics: Arc<Metrics>,
    connection: Arc<State>,
    max_bytes: u64,
    timeout: Duration,
    /// When the reader began to wait for the client; absent while it does not.
    waiting_since: Option<Instant>,
    /// Made at the first wait and moved on only when it fires, which makes a wait cheap.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What a body may take from its client.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) max_bytes: u64,
    pub(super) timeout: Duration,
}

/// Why reading a request body failed. [`RequestContext::body_failure`] tells the same to those who cannot see the
/// error any more.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client sent nothing for as long as allowed.
    #[error("the request body stalled")]
    Stalled,
    /// More than `http.max_body_bytes`.
    #[error("the request body is too large")]
    TooLarge,
    /// The connection broke, or the framing is wrong.
    #[error("the request body ended early")]
    Disconnected(#[source] hyper::Error),
}

impl InBody {
    pub(super) fn new(
        body: Incoming,
        context: Arc<RequestContext>,
        metrics: Arc<Metrics>,
        connection: Arc<State>,
        limits: BodyLimits,
    ) -> Self {
        let watch = Watch {
            metrics,
            connection,
            max_bytes: limits.max_bytes,
            timeout: limits.timeout,
            waiting_since: None,
            sleep: None,
        };
        watch.note_rest(&body);
        Self {
            source: Source::Wire(body),
            context,
            watch: Some(watch),
        }
    }

    /// A body that is already in memory, for requests that do not come from a connection.
    pub fn in_memory(bytes: Bytes, context: Arc<RequestContext>) -> Self {
        Self {
            source: Source::Memory(Full::new(bytes)),
            context,
            watch: None,
        }
    }

    fn fail(
        &mut self,
        failure: BodyFailure,
        error: BodyError,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.context.set_body_failure(failure);
        self.source = Source::Failed;
        Some(Err(error))
    }
}

impl Watch {
    /// Tells the connection how much of the body is still to come.
    fn note_rest(&self, body: &Incoming) {
        let rest = if body.is_end_stream() {
            0
        } else {
            body.size_hint().exact().unwrap_or(u64::MAX)
        };
        self.connection.set_body_rest(rest);
    }

    /// Ready when the client has been waited for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + self.timeout;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Body for InBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let body = match &mut this.source {
            Source::Wire(body) => body,
            Source::Memory(full) => {
                return Pin::new(full)
                    .poll_frame(cx)
                    .map_err(|never| match never {});
            }
            Source::Failed => return Poll::Ready(None),
        };
        let watch = this
            .watch
            .as_mut()
            .expect("a body from a connection is watched");
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => match watch.poll_stalled(cx) {
                Poll::Ready(()) => Poll::Ready(this.fail(BodyFailure::Stalled, BodyError::Stalled)),
                Poll::Pending => Poll::Pending,
            },
            Poll::Ready(None) => {
                watch.connection.set_body_rest(0);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(this.fail(BodyFailure::Disconnected, BodyError::Disconnected(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                watch.waiting_since = None;
                watch.note_rest(body);
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len() as u64;
                    this.context.add_wire_bytes(bytes);
                    watch.metrics.add_bytes_in(bytes);
                    if this.context.wire_bytes() > watch.max_bytes {
                        return Poll::Ready(this.fail(BodyFailure::TooLarge, BodyError::TooLarge));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Wire(body) => body.is_end_stream(),
            Source::Memory(full) => full.is_end_stream(),
            Source::Failed => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Wire(body) => body.size_hint(),
            Source::Memory(full) => full.size_hint(),
            Source::Failed => SizeHint::with_exact(0),
        }
    }
}
