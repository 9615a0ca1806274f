//! The body of a form with a file, as every facade feeds it to its parser.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;

use super::BoxError;

/// Most bytes read before the file begins, with all framing; the frame in which it begins may exceed it.
pub const PREAMBLE_MAX_BYTES: u64 = 64 * 1024;

/// Too much comes before the file.
#[derive(Debug, thiserror::Error)]
#[error("the fields before the file are too large")]
pub struct PreambleTooLarge;

/// A form's body, bounded up to its file. It rests after each frame, because the parser gathers all that is ready
/// and a fast client always has something ready: so one frame is read ahead of the file's reader, and no more.
#[derive(Debug)]
pub struct FormBody<S> {
    inner: S,
    taken: u64,
    begun: Arc<AtomicBool>,
    rests: bool,
}

/// Tells a [`FormBody`] that its file has begun.
#[derive(Debug)]
pub struct FileBegun(Arc<AtomicBool>);

impl FileBegun {
    /// Lifts the bound.
    pub fn tell(self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S> FormBody<S> {
    /// Over the frames of a body.
    pub fn new(inner: S) -> (Self, FileBegun) {
        let begun = Arc::new(AtomicBool::new(false));
        let body = Self {
            inner,
            taken: 0,
            begun: Arc::clone(&begun),
            rests: false,
        };
        (body, FileBegun(begun))
    }
}

impl<S, E> Stream for FormBody<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rests) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.taken > PREAMBLE_MAX_BYTES && !self.begun.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(Box::new(PreambleTooLarge))));
        }
        let polled = Pin::new(&mut self.inner).poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.taken += bytes.len() as u64;
            self.rests = true;
        }
        polled.map_err(Into::into)
    }
}
