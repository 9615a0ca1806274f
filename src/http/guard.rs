//! What surrounds every request: its context, admission, the answer's headers, metrics and the access log.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONNECTION, EXPECT, HeaderName, HeaderValue, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::body::{BodyLimits, InBody};
use super::connection::{Phase, State, Timeouts};
use super::{AccessLog, BoxError, Config, Facade, Refusal};
use crate::telemetry::{Counted, End, Metrics, RequestContext};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
/// The header that a client may name its request by.
const CLIENT_ID: HeaderName = HeaderName::from_static("request-id");
/// Longest such name, in bytes.
const CLIENT_ID_MAX: usize = 128;

/// Up to this much of an unread request body hyper may find in its buffer and skip; above it the connection is
/// certain to close.
const SKIPPABLE_BYTES: u64 = 64 << 10;

/// The status logged and counted for a request whose client left before the answer began.
const CLIENT_LEFT: u16 = 499;

/// What all connections of one server share.
pub(super) struct Shared<F> {
    facade: Arc<F>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) builder: http1::Builder,
    pub(super) timeouts: Timeouts,
    pub(super) stop: CancellationToken,
    draining: AtomicBool,
    /// Free places for connections.
    slots: Arc<Semaphore>,
    in_flight: Arc<AtomicUsize>,
    max_requests: usize,
    max_header_bytes: usize,
    body: BodyLimits,
    access_log: AccessLog,
}

impl<F: Facade> Shared<F> {
    pub(super) fn new(
        facade: Arc<F>,
        config: Config,
        metrics: Arc<Metrics>,
        slots: Arc<Semaphore>,
    ) -> Arc<Self> {
        let mut builder = http1::Builder::new();
        builder
            // The connection's own timers cover this, and tell a slow head from an idle connection.
            .header_read_timeout(None)
            .max_buf_size(config.buffer_bytes)
            // The facade shapes the refusal up to this size.
            .max_header_size(config.max_header_bytes.get() * 2);
        if config.max_headers != Config::default().max_headers {
            // Naming even the default number would move hyper's table of headers from the stack to the heap.
            builder.max_headers(config.max_headers.get());
        }
        Arc::new(Self {
            facade,
            metrics,
            builder,
            timeouts: Timeouts {
                header: Duration::from_secs(config.header_timeout_seconds.get()),
                idle: Duration::from_secs(config.idle_timeout_seconds.get()),
                write: Duration::from_secs(config.write_timeout_seconds.get()),
            },
            stop: CancellationToken::new(),
            draining: AtomicBool::new(false),
            slots,
            in_flight: Arc::new(AtomicUsize::new(0)),
            max_requests: config.max_requests.get(),
            max_header_bytes: config.max_header_bytes.get(),
            body: BodyLimits {
                max_bytes: config.max_body_bytes,
                timeout: Duration::from_secs(config.body_timeout_seconds.get()),
            },
            access_log: config.access_log,
        })
    }

    /// Asks every connection to end after the request it is serving.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.stop.cancel();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What the listener itself has against a request.
    fn refusal(&self, request: &Request<Incoming>, in_flight: usize) -> Option<Refusal> {
        if in_flight > self.max_requests {
            Some(Refusal::Overloaded)
        } else if header_bytes(request) > self.max_header_bytes {
            Some(Refusal::HeadersTooLarge)
        } else if request.body().size_hint().lower() > self.body.max_bytes {
            Some(Refusal::BodyTooLarge)
        } else {
            None
        }
    }
}

/// Answers one request. Does not poll its body.
pub(super) async fn answer<F: Facade>(
    shared: Arc<Shared<F>>,
    connection: Arc<State>,
    remote: SocketAddr,
    request: Request<Incoming>,
) -> Response<OutBody<F::Body>> {
    let context = Arc::new(RequestContext::new());
    context.set_remote(remote.ip());
    if let Some(id) = client_id(request.headers()) {
        context.set_client_id(id);
    }
    let target = request.uri().path_and_query().cloned();
    let in_flight = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    let mut exchange = Exchange {
        context: Arc::clone(&context),
        metrics: Arc::clone(&shared.metrics),
        connection: Arc::clone(&connection),
        in_flight: Arc::clone(&shared.in_flight),
        _counted: shared.metrics.request(),
        status: CLIENT_LEFT,
        sent: 0,
        is_complete: false,
        access: Access::of(&request, remote, shared.access_log),
    };
    let is_head = request.method() == Method::HEAD;
    let expects = request.headers().contains_key(EXPECT);
    let refusal = shared.refusal(&request, in_flight);
    let mut request = request.map(|body| {
        InBody::new(
            body,
            Arc::clone(&context),
            Arc::clone(&shared.metrics),
            Arc::clone(&connection),
            shared.body,
        )
    });
    request.extensions_mut().insert(Arc::clone(&context));

    let mut response = match refusal {
        Some(refusal) => {
            drop(request);
            refuse(&shared, &context, target.as_ref(), refusal)
        }
        None => match AssertUnwindSafe(shared.facade.call(request))
            .catch_unwind()
            .await
        {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(request = %context.id(), operation = context.operation(), "request panicked");
                refuse(&shared, &context, target.as_ref(), Refusal::Panicked)
            }
        },
    };

    exchange.status = response.status().as_u16();
    let rest = connection.body_rest();
    connection.set_body_is_unread(rest > 0);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(context.id().as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    // A client that waits for 100 Continue may send its body after a final answer unless the connection is about
    // to close (RFC 9110, 10.1.1; Go does). When no place is free, connections make room for waiting clients.
    let must_close = rest > 0 && (expects || rest > SKIPPABLE_BYTES);
    if must_close || shared.slots.available_permits() == 0 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let expected = if is_head || has_no_body(response.status()) {
        0
    } else {
        response.body().size_hint().exact().unwrap_or(u64::MAX)
    };
    response.map(|inner| OutBody {
        inner,
        expected,
        exchange,
    })
}

fn refuse<F: Facade>(
    shared: &Shared<F>,
    context: &RequestContext,
    target: Option<&PathAndQuery>,
    refusal: Refusal,
) -> Response<F::Body> {
    shared.metrics.rejected(match refusal {
        Refusal::Overloaded => "overloaded",
        Refusal::HeadersTooLarge => "headers too large",
        Refusal::BodyTooLarge => "body too large",
        Refusal::Panicked => "panicked",
    });
    let path = target.map_or("*", PathAndQuery::path);
    let mut response = shared.facade.refuse(context, path, refusal);
    if refusal == Refusal::Overloaded {
        response
            .headers_mut()
            .entry(RETRY_AFTER)
            .or_insert(HeaderValue::from_static("1"));
    }
    response
}

/// What a client calls its request, if that can be repeated in a header and in the log as it is.
fn client_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(CLIENT_ID)?.to_str().ok()?;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic());
    ((1..=CLIENT_ID_MAX).contains(&id.len()) && is_plain).then_some(id)
}

/// The size of request line and headers as a client writes them, without the method.
fn header_bytes<B>(request: &Request<B>) -> usize {
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum::<usize>()
        + target
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// One request from its head to the end of its answer; dropping it closes the books.
#[derive(Debug)]
struct Exchange {
    context: Arc<RequestContext>,
    metrics: Arc<Metrics>,
    connection: Arc<State>,
    in_flight: Arc<AtomicUsize>,
    _counted: Counted,
    status: u16,
    sent: u64,
    is_complete: bool,
    access: Option<Access>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.connection.enter(Phase::Idle);
        let elapsed = self.context.started().elapsed();
        self.metrics
            .request_done(self.context.operation(), self.status, elapsed);
        if let Some(access) = &self.access {
            access.log(self, elapsed);
        }
        self.context.end(End {
            status: self.status,
            sent: self.sent,
            elapsed,
        });
    }
}

/// What the access log needs of a request, kept only when the line will be written.
#[derive(Debug)]
struct Access {
    remote: SocketAddr,
    method: Method,
    target: Option<PathAndQuery>,
    level: AccessLog,
}

impl Access {
    fn of(request: &Request<Incoming>, remote: SocketAddr, level: AccessLog) -> Option<Self> {
        let is_enabled = match level {
            AccessLog::Off => false,
            AccessLog::Info => tracing::enabled!(target: "access", tracing::Level::INFO),
            AccessLog::Debug => tracing::enabled!(target: "access", tracing::Level::DEBUG),
        };
        is_enabled.then(|| Self {
            remote,
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            level,
        })
    }

    /// Writes the line. The query is left out because it may hold a signature.
    fn log(&self, exchange: &Exchange, elapsed: Duration) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "access",
                    request = %exchange.context.id(),
                    client_request = exchange.context.client_id(),
                    remote = %self.remote,
                    method = %self.method,
                    path = self.target.as_ref().map_or("*", PathAndQuery::path),
                    operation = exchange.context.operation(),
                    status = exchange.status,
                    bytes_in = exchange.context.wire_bytes(),
                    bytes_out = exchange.sent,
                    duration_ms = elapsed.as_micros() as f64 / 1000.0,
                    access_key = exchange.context.access_key(),
                    complete = exchange.is_complete,
                    "request"
                )
            };
        }
        match self.level {
            AccessLog::Off => {}
            AccessLog::Info => line!(info),
            AccessLog::Debug => line!(debug),
        }
    }
}

/// The body of an answer, counted; its end or loss ends the exchange.
#[derive(Debug)]
pub(super) struct OutBody<B: Body> {
    inner: B,
    /// Bytes to come; `u64::MAX` when that is not known, 0 when the answer has no body.
    expected: u64,
    exchange: Exchange,
}

impl<B> Body for OutBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        Pin::new(&mut this.inner)
            .poll_frame(cx)
            .map(|item| match item {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        let bytes = data.len() as u64;
                        this.exchange.sent += bytes;
                        this.exchange.metrics.add_bytes_out(bytes);
                    }
                    Some(Ok(frame))
                }
                Some(Err(error)) => {
                    let error = error.into();
                    let request = this.exchange.context.id();
                    // The cause may name a vendor, which belongs to no line at `info` and above.
                    tracing::warn!(%request, sent = this.exchange.sent, "answer cut off");
                    tracing::debug!(%request, %error, "answer cut off by");
                    Some(Err(error))
                }
                None => {
                    this.exchange.is_complete = true;
                    None
                }
            })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: Body> Drop for OutBody<B> {
    fn drop(&mut self) {
        // The listener drops a body of known length, and one that says that it has ended, without asking for more.
        if self.exchange.sent >= self.expected || self.inner.is_end_stream() {
            self.exchange.is_complete = true;
        }
    }
}
