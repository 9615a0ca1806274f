//! Request bodies on their way to `s3s`, and the bound on what its decoder may hold.
//!
//! The decoder of `aws-chunked` bodies gathers one whole chunk, as large as the client chose, before it gives
//! any of it on. What it holds is what was taken from the wire less what the handler was given; above
//! [`CHUNK_MAX_BYTES`] the body fails.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::Request;
use http_body::{Body, Frame, SizeHint};

use crate::namespace::BodyError;
use s3s::{S3Request, S3Result};

use super::{convert, error};
use crate::http::InBody;
use crate::model::digest::{Digests, IdentityHasher, Md5Hasher};
use crate::telemetry::RequestContext;

/// Most bytes the decoder may hold: clients use chunks of 64 KiB to 1 MiB, some of 8 MiB.
const CHUNK_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A chunk of a signed body is larger than a server should hold. `s3s` passes on its text and not its type.
#[derive(Debug, thiserror::Error)]
#[error("A chunk of the request body is larger than 16 MiB.")]
struct ChunkTooLarge;

/// A raw body whose distance to the handler is bounded.
struct Bounded {
    inner: InBody,
    context: Option<Arc<RequestContext>>,
}

/// The request as `s3s` takes it.
pub(super) fn bounded(request: Request<InBody>) -> Request<s3s::Body> {
    let context = request.extensions().get::<Arc<RequestContext>>().cloned();
    if request.body().is_end_stream() {
        return request.map(|_| s3s::Body::empty());
    }
    if !DocumentDigests::wanted(&request) {
        return request.map(|inner| s3s::Body::http_body_unsync(Bounded { inner, context }));
    }
    let (mut parts, inner) = request.into_parts();
    let slot = DocumentDigests::default();
    parts.extensions.insert(slot.clone());
    let hashed = Hashed {
        inner: Bounded { inner, context },
        hashing: Some((Md5Hasher::default(), IdentityHasher::new(true, true))),
        slot,
    };
    Request::from_parts(parts, s3s::Body::http_body_unsync(hashed))
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let held = self.context.as_ref().map_or(0, |context| {
            context.wire_bytes().saturating_sub(context.body_bytes())
        });
        if held > CHUNK_MAX_BYTES {
            return Poll::Ready(Some(Err(Box::new(ChunkTooLarge))));
        }
        Pin::new(&mut self.inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The digests of a request's document, computed while `s3s` reads it: it parses documents and verifies only
/// what the signature covers.
#[derive(Clone, Default)]
pub(super) struct DocumentDigests(Arc<Mutex<Option<Digests>>>);

impl DocumentDigests {
    /// Whether a request's document has its digests compared: a plain body, of the operations that S3 wants
    /// them for, or that decide who is let in.
    fn wanted<B>(request: &Request<B>) -> bool {
        let query = request.uri().query().unwrap_or_default();
        let chunked = request
            .headers()
            .get("x-amz-content-sha256")
            .is_some_and(|value| value.as_bytes().starts_with(b"STREAMING-"));
        let documents: &[&str] = match *request.method() {
            http::Method::POST => &["delete"],
            http::Method::PUT => &[
                "acl",
                "lifecycle",
                "ownershipControls",
                "policy",
                "publicAccessBlock",
            ],
            _ => return false,
        };
        !chunked
            && query
                .split('&')
                .any(|name| documents.contains(&name.strip_suffix('=').unwrap_or(name)))
    }

    /// Compares what the request says of its document. S3 wants it to say something ("DeleteObjects").
    pub(super) fn check<T>(request: &S3Request<T>) -> S3Result<()> {
        let headers = &request.headers;
        let says = convert::content_md5(headers)?.is_some()
            || convert::checksum_of(headers)?.is_some()
            || convert::trailer_algorithm(headers)?.is_some();
        if !says {
            return Err(s3s::s3_error!(
                InvalidRequest,
                "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"
            ));
        }
        Self::compare(request)
    }

    /// Compares what the request says of its document, where it says anything.
    pub(super) fn compare<T>(request: &S3Request<T>) -> S3Result<()> {
        let headers = &request.headers;
        let (md5, checksum) = (
            convert::content_md5(headers)?,
            convert::checksum_of(headers)?,
        );
        let computed = request
            .extensions
            .get::<Self>()
            .and_then(|slot| slot.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(computed) = computed else {
            return Ok(());
        };
        let same = md5.is_none_or(|md5| md5 == computed.md5)
            && checksum.is_none_or(|wanted| computed.checksum(wanted.algorithm) == Some(wanted));
        if same {
            Ok(())
        } else {
            Err(error::bad_digest())
        }
    }
}

/// A document on its way to `s3s`, hashed as it passes.
struct Hashed {
    inner: Bounded,
    hashing: Option<(Md5Hasher, IdentityHasher)>,
    slot: DocumentDigests,
}

impl Body for Hashed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(bytes), Some((md5, identity))) = (frame.data_ref(), &mut self.hashing)
                {
                    md5.update(bytes);
                    identity.update(bytes);
                }
            }
            Poll::Ready(None) => {
                if let Some((md5, identity)) = self.hashing.take() {
                    let digests = identity.finish(md5.finish(), None);
                    *self.slot.0.lock().unwrap_or_else(PoisonError::into_inner) = digests;
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
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
