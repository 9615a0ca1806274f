//! One connection: its state, the time limits that depend on it, and its orderly end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Facade;
use super::guard::{self, Shared};

/// After an answer that did not wait for the whole request, what the client still sends is read and thrown away
/// for at most this long. A socket closed with unread bytes resets the connection, and a reset can overtake the
/// answer.
const LINGER: Duration = Duration::from_secs(5);
/// How long lingering waits for the next byte.
const LINGER_SILENCE: Duration = Duration::from_secs(1);
/// How much lingering takes at most.
const LINGER_BYTES: u64 = 64 << 20;

/// Serves one connection until it ends, breaks a time limit, or has drained.
pub(super) async fn run<F: Facade>(shared: Arc<Shared<F>>, stream: TcpStream, remote: SocketAddr) {
    let _open = shared.metrics.connection();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection lost at accept");
        return;
    }
    let state = Arc::new(State::new());
    let socket = Socket {
        stream,
        state: Arc::clone(&state),
    };
    let service = {
        let shared = Arc::clone(&shared);
        let state = Arc::clone(&state);
        service_fn(move |request| {
            state.enter(Phase::Busy);
            let answer = guard::answer(Arc::clone(&shared), Arc::clone(&state), remote, request);
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let mut connection = shared
        .builder
        .serve_connection(TokioIo::new(socket), service);
    let mut watchdog = Watchdog::new(&state, &shared.timeouts);
    let mut stop = pin!(shared.stop.cancelled());
    let mut stop_is_watched = false;
    let mut draining = false;
    let end = poll_fn(|cx| {
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Closed(result));
        }
        // One poll leaves this task's waker with the signal; from then on a look at the flag is enough.
        if !stop_is_watched {
            stop_is_watched = true;
            let _ = stop.as_mut().poll(cx);
        }
        if !draining && shared.is_draining() {
            draining = true;
            Pin::new(&mut connection).graceful_shutdown();
            if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(End::Closed(result));
            }
        }
        watchdog
            .poll_expired(cx, &state, &shared.timeouts)
            .map(End::TimedOut)
    })
    .await;
    match end {
        End::TimedOut(what) => {
            shared.metrics.rejected(what);
            tracing::debug!(%remote, what, "connection closed by a time limit");
        }
        End::Closed(result) => {
            let refused = result.as_ref().is_err_and(hyper::Error::is_parse);
            if let Err(error) = result {
                tracing::debug!(%remote, %error, "connection ended");
            }
            if refused || state.body_is_unread() {
                linger(connection.into_parts().io.into_inner().stream).await;
            }
        }
    }
}

enum End {
    Closed(hyper::Result<()>),
    TimedOut(&'static str),
}

/// Reads until the client closes, within bounds. The write side is shut down already.
async fn linger(mut stream: TcpStream) {
    let mut scratch = vec![0; 16 << 10];
    let mut taken = 0;
    let _ = tokio::time::timeout(LINGER, async {
        while taken < LINGER_BYTES {
            match tokio::time::timeout(LINGER_SILENCE, stream.read(&mut scratch)).await {
                Ok(Ok(bytes)) if bytes > 0 => taken += bytes as u64,
                _ => return,
            }
        }
    })
    .await;
}

/// Time limits that end a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No request; a first byte leads to `Head`.
    Idle = 0,
    /// A request has begun and its headers are not complete.
    Head = 1,
    /// A request is being answered, until its answer's body is dropped.
    Busy = 2,
}

/// The state of one connection. One task changes and reads it; the atomics only make it shareable with bodies,
/// which may be polled elsewhere.
#[derive(Debug)]
pub(super) struct State {
    opened: Instant,
    phase: AtomicU8,
    /// Milliseconds after `opened`.
    phase_since: AtomicU64,
    /// Milliseconds after `opened`, plus one; 0 while no write waits.
    write_waits_since: AtomicU64,
    /// Bytes of the request body still to come; `u64::MAX` when that is not known.
    body_rest: AtomicU64,
    body_is_unread: AtomicBool,
}

impl State {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            phase: AtomicU8::new(Phase::Idle as u8),
            phase_since: AtomicU64::new(0),
            write_waits_since: AtomicU64::new(0),
            body_rest: AtomicU64::new(0),
            body_is_unread: AtomicBool::new(false),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        if phase != Phase::Busy {
            self.phase_since.store(self.now(), Ordering::Relaxed);
        }
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn set_body_rest(&self, bytes: u64) {
        self.body_rest.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn body_rest(&self) -> u64 {
        self.body_rest.load(Ordering::Relaxed)
    }

    /// Records whether the answer goes out before the request body has ended.
    pub(super) fn set_body_is_unread(&self, unread: bool) {
        self.body_is_unread.store(unread, Ordering::Relaxed);
    }

    fn body_is_unread(&self) -> bool {
        self.body_is_unread.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    fn received(&self) {
        if self.phase.load(Ordering::Relaxed) == Phase::Idle as u8 {
            self.enter(Phase::Head);
        }
    }

    fn wrote<T>(&self, result: &Poll<T>) {
        let waits = self.write_waits_since.load(Ordering::Relaxed) != 0;
        if result.is_pending() != waits {
            let since = if waits { 0 } else { self.now() + 1 };
            self.write_waits_since.store(since, Ordering::Relaxed);
        }
    }

    /// When the connection breaks which limit if nothing happens.
    fn deadline(&self, timeouts: &Timeouts) -> Option<(Instant, &'static str)> {
        let since = self.opened + Duration::from_millis(self.phase_since.load(Ordering::Relaxed));
        let phase = match self.phase.load(Ordering::Relaxed) {
            0 => Some((since + timeouts.idle, "idle timeout")),
            1 => Some((since + timeouts.header, "header timeout")),
            _ => None,
        };
        let write = match self.write_waits_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some((
                self.opened + Duration::from_millis(since - 1) + timeouts.write,
                "write timeout",
            )),
        };
        match (phase, write) {
            (Some(phase), Some(write)) => Some(if write.0 < phase.0 { write } else { phase }),
            (phase, write) => phase.or(write),
        }
    }
}

/// A timer that fires when the state of a connection has broken a limit.
///
/// It is armed at or before the deadline and looks again when it fires, so a request that comes and goes in time
/// touches no timer.
struct Watchdog {
    sleep: Pin<Box<Sleep>>,
    is_registered: bool,
}

impl Watchdog {
    fn new(state: &State, timeouts: &Timeouts) -> Self {
        let first = state
            .deadline(timeouts)
            .map_or(state.opened, |(deadline, _)| deadline);
        Self {
            sleep: Box::pin(tokio::time::sleep_until(first)),
            is_registered: false,
        }
    }

    fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        state: &State,
        timeouts: &Timeouts,
    ) -> Poll<&'static str> {
        let Some((deadline, what)) = state.deadline(timeouts) else {
            return Poll::Pending;
        };
        loop {
            let fired = self.sleep.is_elapsed();
            if fired && Instant::now() >= deadline {
                return Poll::Ready(what);
            }
            if fired || self.sleep.deadline() > deadline {
                self.sleep.as_mut().reset(deadline);
                self.is_registered = false;
            }
            // The waker of this task stays with the timer until it fires.
            if self.is_registered || self.sleep.as_mut().poll(cx).is_pending() {
                self.is_registered = true;
                return Poll::Pending;
            }
        }
    }
}

/// A stream that tells the connection's state when bytes come and when they cannot go.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    state: Arc<State>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.state.received();
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.state.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.state.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
