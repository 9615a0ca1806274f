//! The listener: accepts connections, speaks HTTP/1.1, holds every limit, and drains.
//!
//! A [`Server`] serves one [`Facade`] on one address. It guarantees that a slow, silent or greedy client costs a
//! bounded amount of memory for a bounded time, that every request that reached a facade is counted, logged and
//! answered with its `x-amz-request-id`, and that the body of a request is first polled by the facade, never
//! before (`100 Continue` goes out on that first poll). What the protocols say is left to the facades.

mod body;
mod connection;
pub mod form;
mod guard;
mod router;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::model::fault::{Fault, Kind};
use crate::telemetry::{Metrics, RequestContext};

pub use body::{BodyError, InBody};
pub use router::{Refuse, RouterFacade};

/// An error of any type, as bodies carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What answers the requests of one listener.
///
/// Each request carries an `Arc<RequestContext>` in its extensions. A facade that answers before the request body
/// has ended need not say so: the listener closes the connection after such an answer, and announces it, because
/// what is left of the body makes it unusable.
pub trait Facade: Send + Sync + 'static {
    /// The body of an answer. Frames may be of any size; they are passed on without a copy.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;

    /// Answers one request. The future is dropped when the client leaves.
    fn call(&self, request: Request<InBody>) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Shapes an answer that the listener gives in the facade's place to a request for `path`. Must be cheap and must
    /// not wait.
    fn refuse(
        &self,
        context: &RequestContext,
        path: &str,
        refusal: Refusal,
    ) -> Response<Self::Body>;
}

/// Why the listener answers in the facade's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests are in flight: 503 `SlowDown`. The listener adds `Retry-After`.
    Overloaded,
    /// Request line and headers are longer than `http.max_header_bytes`: 431.
    HeadersTooLarge,
    /// The body is announced as longer than `http.max_body_bytes`: 400 `EntityTooLarge`.
    BodyTooLarge,
    /// The facade panicked: 500 `InternalError`.
    Panicked,
}

/// Section `[http]`: the limits of every listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Connections held at a time. More wait in the kernel's queue; meanwhile answers close their connections.
    pub max_connections: NonZeroU32,
    /// Requests in flight at a time, transfers included. More get 503 `SlowDown`.
    pub max_requests: NonZeroUsize,
    /// Size of request line and headers in bytes. More get 431; above twice as much, a 431 without a body.
    pub max_header_bytes: NonZeroUsize,
    /// Number of header lines. More get a 431 without a body.
    pub max_headers: NonZeroUsize,
    /// Size of a request body in bytes as sent, so with the framing of signed chunks.
    pub max_body_bytes: u64,
    /// Buffer of a connection in bytes, at least 8192: the largest frame read, and about what is queued to write.
    pub buffer_bytes: usize,
    /// Seconds from the first byte of a request until its headers are complete.
    pub header_timeout_seconds: NonZeroU64,
    /// Seconds a connection may be open without a request.
    pub idle_timeout_seconds: NonZeroU64,
    /// Seconds without a byte after which a request body fails with `RequestTimeout`.
    pub body_timeout_seconds: NonZeroU64,
    /// Seconds without progress after which a client that does not read its answer is dropped.
    pub write_timeout_seconds: NonZeroU64,
    /// Seconds between a signal to stop, from when `/readyz` answers 503, and the drain. Requests are served as
    /// before, so that a balancer that asks sends none to a listener that is closed already.
    pub drain_delay_seconds: u64,
    /// Seconds that requests in flight may take to finish after a signal to stop.
    pub drain_timeout_seconds: u64,
    /// The level at which each request is logged, with target `access`.
    pub access_log: AccessLog,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: const { NonZeroU32::new(1024).expect("not zero") },
            max_requests: const { NonZeroUsize::new(512).expect("not zero") },
            max_header_bytes: const { NonZeroUsize::new(32 << 10).expect("not zero") },
            // The largest number that hyper keeps on its stack.
            max_headers: const { NonZeroUsize::new(100).expect("not zero") },
            // The largest S3 object of 5 TiB and 64 GiB, which is 1.2 %, for framing.
            max_body_bytes: (5 << 40) + (64 << 30),
            buffer_bytes: 128 << 10,
            header_timeout_seconds: const { NonZeroU64::new(15).expect("not zero") },
            idle_timeout_seconds: const { NonZeroU64::new(60).expect("not zero") },
            body_timeout_seconds: const { NonZeroU64::new(30).expect("not zero") },
            write_timeout_seconds: const { NonZeroU64::new(60).expect("not zero") },
            drain_delay_seconds: 0,
            drain_timeout_seconds: 30,
            access_log: AccessLog::Debug,
        }
    }
}

impl Config {
    /// The smallest `buffer_bytes`.
    pub const MIN_BUFFER_BYTES: usize = 8192;

    /// Checks what the types do not. The error names the key.
    pub fn check(&self) -> Result<(), String> {
        if self.buffer_bytes < Self::MIN_BUFFER_BYTES {
            return Err(format!(
                "http.buffer_bytes: expected at least {}, found {}",
                Self::MIN_BUFFER_BYTES,
                self.buffer_bytes
            ));
        }
        if self.buffer_bytes / 2 < self.max_header_bytes.get() {
            return Err(format!(
                "http.max_header_bytes: expected at most half of http.buffer_bytes ({}), found {}",
                self.buffer_bytes, self.max_header_bytes
            ));
        }
        Ok(())
    }
}

/// Whether and at which level each request is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// Not at all.
    Off,
    /// At `info`.
    Info,
    /// At `debug`.
    Debug,
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    metrics: Arc<Metrics>,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because they had not finished at the deadline.
    pub aborted: usize,
}

/// How long the accept loop rests after an error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

impl Server {
    /// Binds `address` (port 0 for any free one). From here on clients can connect; they are served by
    /// [`Self::serve`]. Fails with kind `Config` when the address cannot be used.
    pub async fn bind(
        address: SocketAddr,
        config: &Config,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Fault> {
        let fault = || Fault::new(Kind::Config, "listen").context(address);
        config.check().map_err(|text| fault().source(text))?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| fault().source(error))?;
        let address = listener
            .local_addr()
            .map_err(|error| fault().source(error))?;
        Ok(Self {
            listener,
            address,
            config: config.clone(),
            metrics,
        })
    }

    /// The address in use, with the port chosen for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready and the connections have drained.
    ///
    /// Then it stops listening, closes idle connections, lets requests in flight finish, and cuts what is left
    /// after `drain_timeout_seconds`. Dropping the future cuts everything at once.
    pub async fn serve<F: Facade>(
        self,
        facade: Arc<F>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Drained {
        let drain_timeout = Duration::from_secs(self.config.drain_timeout_seconds);
        let slots = Arc::new(Semaphore::new(self.config.max_connections.get() as usize));
        let shared = guard::Shared::new(facade, self.config, self.metrics, Arc::clone(&slots));
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            while connections.try_join_next().is_some() {}
            let (stream, remote, slot) = accepted;
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                connection::run(shared, stream, remote).await;
                drop(slot);
            });
        }
        drop(self.listener);
        shared.drain();
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(drain_timeout, all).await;
        while connections.try_join_next().is_some() {}
        let aborted = connections.len();
        connections.shutdown().await;
        Drained { aborted }
    }
}

/// Waits for a free slot and then for a connection, so that connections above the limit stay in the kernel.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => return (stream, remote, slot),
            Err(error) => {
                // Either one client left while it was accepted, or the process is out of descriptors or memory.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
