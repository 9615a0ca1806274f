//! Request bodies on their way to `s3s`, and the bound on what its decoder may hold.
//!
//! The decoder of `aws-chunked` bodies gathers one whole chunk, as large as the client chose, before it gives
//! any of it on. What it holds is what was taken from the wire less what the handler was given; above
//! [`CHUNK_MAX_BYTES`] the body fails.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::Request;
use http_body::{Body, Frame, SizeHint};

use crate::namespace::BodyError;
use crate::http::InBody;
use crate::telemetry::RequestContext;

/// Most bytes the decoder may hold: clients use chunks of 64 KiB to 1 MiB.
const CHUNK_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A chunk of a signed body is larger than a server should hold.
#[derive(Debug, thiserror::Error)]
#[error("A chunk of the request body is larger than 4 MiB.")]
pub(super) struct ChunkTooLarge;

/// A raw body whose distance to the handler is bounded.
struct Bounded {
    inner: InBody,
    context: Arc<RequestContext>,
}

/// The request as `s3s` takes it.
pub(super) fn bounded(request: Request<InBody>) -> Request<s3s::Body> {
    let context = request.extensions().get::<Arc<RequestContext>>().cloned();
    request.map(|inner| match context {
        _ if inner.is_end_stream() => s3s::Body::empty(),
        Some(context) => s3s::Body::http_body_unsync(Bounded { inner, context }),
        None => s3s::Body::http_body_unsync(inner),
    })
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let context = &self.context;
        if context.wire_bytes().saturating_sub(context.body_bytes()) > CHUNK_MAX_BYTES {
            return Poll::Ready(Some(Err(Box::new(ChunkTooLarge))));
        }
        Pin::new(&mut self.inner)
            .poll_frame(cx)
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A decoded body that tells the request's context how many bytes it was given.
pub(super) struct Counted<S> {
    inner: S,
    context: Option<Arc<RequestContext>>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, context: Option<Arc<RequestContext>>) -> Self {
        Self { inner, context }
    }
}

impl<S> Stream for Counted<S>
where
    S: Stream<Item = Result<Bytes, BodyError>> + Unpin,
{
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.inner).poll_next(cx);
        if let (Poll::Ready(Some(Ok(bytes))), Some(context)) = (&polled, &self.context) {
            context.add_body_bytes(bytes.len() as u64);
        }
        polled
    }
}
