//! The listener over real sockets.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use futures::StreamExt;
use http::StatusCode;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::telemetry::BodyFailure;

/// What a test may wait for before it fails.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Probe {
    calls: AtomicUsize,
    /// Lets `/gate` answer.
    gate: Notify,
    /// `/gate` was entered.
    entered: Notify,
    /// The future of `/gate` was dropped before it answered.
    was_cancelled: Arc<AtomicBool>,
    /// Frames that `/frames` was asked for.
    frames: Arc<AtomicUsize>,
}

type TestBody = UnsyncBoxBody<Bytes, BoxError>;

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<TestBody> {
    let mut response = Response::new(
        Full::new(text.into())
            .map_err(|e| match e {})
            .boxed_unsync(),
    );
    *response.status_mut() = status;
    response
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Facade for Probe {
    type Body = TestBody;

    async fn call(&self, request: Request<InBody>) -> Response<TestBody> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let context = request
            .extensions()
            .get::<Arc<RequestContext>>()
            .expect("the listener adds it")
            .clone();
        context.set_operation("Probe");
        match request.uri().path() {
            "/gate" => {
                let guard = SetOnDrop(Arc::clone(&self.was_cancelled));
                self.entered.notify_one();
                self.gate.notified().await;
                std::mem::forget(guard);
                text(StatusCode::OK, "through")
            }
            "/read" => match request.into_body().collect().await {
                Ok(body) => text(StatusCode::OK, format!("read {}", body.to_bytes().len())),
                Err(error) => {
                    let failure = context.body_failure().expect("recorded with the error");
                    text(StatusCode::BAD_REQUEST, format!("{failure:?}: {error}"))
                }
            },
            "/early" => text(StatusCode::OK, "early"),
            "/frames" => {
                let frames = Arc::clone(&self.frames);
                let frame = Bytes::from(vec![b'x'; 256 << 10]);
                let stream = futures::stream::repeat_with(move || {
                    frames.fetch_add(1, Ordering::SeqCst);
                    Ok(http_body::Frame::data(frame.clone()))
                });
                Response::new(StreamBody::new(stream.take(400)).boxed_unsync())
            }
            "/broken" => {
                let frames: [Result<_, BoxError>; 2] = [
                    Ok(http_body::Frame::data(Bytes::from_static(b"half"))),
                    Err("backend lost".into()),
                ];
                Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
            }
            "/close" => {
                let mut response = text(StatusCode::OK, "bye");
                let close = http::HeaderValue::from_static("close");
                response
                    .headers_mut()
                    .insert(http::header::CONNECTION, close);
                response
            }
            "/panic" => panic!("on purpose"),
            _ => text(StatusCode::OK, "hello"),
        }
    }

    fn refuse(
        &self,
        context: &RequestContext,
        _path: &str,
        refusal: Refusal,
    ) -> Response<TestBody> {
        let status = match refusal {
            Refusal::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::BodyTooLarge => StatusCode::BAD_REQUEST,
            Refusal::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        };
        text(status, format!("{refusal:?} {}", context.id()))
    }
}

struct Running {
    address: SocketAddr,
    probe: Arc<Probe>,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Drained>,
}

impl Running {
    async fn start(config: Config) -> Self {
        let probe = Arc::new(Probe::default());
        let metrics = Metrics::new();
        let server = Server::bind(
            "127.0.0.1:0".parse().expect("an address"),
            &config,
            Arc::clone(&metrics),
        )
        .await
        .expect("a free port");
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(Arc::clone(&probe), async {
            let _ = stopped.await;
        }));
        Self {
            address,
            probe,
            metrics,
            stop: Some(stop),
            served,
        }
    }

    async fn connect(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.address).await.expect("connected"),
            unread: Vec::new(),
        }
    }

    fn stop(&mut self) {
        let _ = self.stop.take().expect("stopped once").send(());
    }

    /// Waits until the exposition has a line, because the books close after the client has the answer.
    async fn expect_metric(&self, line: &str) {
        let start = Instant::now();
        while !self.metrics.expose().contains(line) {
            assert!(
                start.elapsed() < DEADLINE,
                "{line} not in\n{}",
                self.metrics.expose()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head[9..12].parse().expect("a status line")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("sent");
    }

    /// The next bytes; empty at the end of the connection.
    async fn more(&mut self) -> bool {
        let mut bytes = [0; 8192];
        let count = tokio::time::timeout(DEADLINE, self.stream.read(&mut bytes))
            .await
            .expect("an answer in time")
            .unwrap_or(0);
        self.unread.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// Reads up to an empty line, which ends heads and `100 Continue`.
    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            assert!(self.more().await, "closed before an answer");
        }
    }

    async fn answer(&mut self) -> Answer {
        let mut answer = Answer {
            head: self.head().await,
            body: Vec::new(),
        };
        let length: usize = answer
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a length"));
        while self.unread.len() < length {
            assert!(self.more().await, "closed inside a body");
        }
        answer.body = self.unread.drain(..length).collect();
        answer
    }

    /// Waits for the other side to close and returns what came before.
    async fn closed(mut self) -> Vec<u8> {
        while self.more().await {}
        self.unread
    }
}

/// Limits with short times.
fn quick() -> Config {
    let second = NonZeroU64::MIN;
    Config {
        header_timeout_seconds: second,
        body_timeout_seconds: second,
        write_timeout_seconds: second,
        drain_timeout_seconds: 1,
        ..Config::default()
    }
}

#[tokio::test]
async fn answers_carry_an_id_and_connections_stay_open() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        client
            .send("GET /hello?X-Amz-Signature=s HTTP/1.1\r\nHost: h\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "hello"));
        assert_eq!(answer.header("connection"), None);
        ids.push(answer.header("x-amz-request-id").expect("an id").to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    server
        .expect_metric("osproxy_requests_total{operation=\"Probe\",status=\"200\"} 3")
        .await;
    server.expect_metric("osproxy_bytes_out_total 15").await;
    server.expect_metric("osproxy_open_connections 1").await;
    drop(client);
    server.expect_metric("osproxy_open_connections 0").await;
}

#[tokio::test]
async fn early_answer_sends_no_100_continue_and_announces_the_close() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    client
        .send("PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "early"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.closed().await.is_empty());
    server.expect_metric("osproxy_bytes_in_total 0").await;
}

#[tokio::test]
async fn first_poll_of_the_body_sends_100_continue() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    client
        .send("PUT /read HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "read 4"));
    assert_eq!(answer.header("connection"), None);
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "hello");
}

#[tokio::test]
async fn early_answer_reaches_a_client_that_keeps_sending() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    client
        .send("PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n")
        .await;
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        // Without lingering this write meets a reset.
        client.stream.write_all(&chunk).await.expect("taken");
    }
    let answer = client.answer().await;
    assert_eq!(
        (answer.status(), answer.header("connection")),
        (200, Some("close"))
    );
}

#[tokio::test]
async fn small_unread_body_without_expect_keeps_the_connection() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client
            .send("PUT /early HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.header("connection")), (200, None));
    }
}

#[tokio::test]
async fn too_large_headers_get_431_shaped_by_the_facade() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    let long = "x".repeat(40 << 10);
    client
        .send(&format!(
            "GET / HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 431);
    assert!(answer.text().starts_with("HeadersTooLarge "));
    assert!(answer.header("x-amz-request-id").is_some());
    assert_eq!(server.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn endless_or_too_many_headers_get_a_bare_431() {
    let server = Running::start(Config::default()).await;
    let endless = format!("GET / HTTP/1.1\r\nX-Long: {}", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    for request in [endless, many] {
        let mut client = server.connect().await;
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 431);
        assert!(client.closed().await.is_empty());
    }
    assert_eq!(server.probe.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn slow_head_is_cut_though_bytes_keep_coming() {
    let server = Running::start(quick()).await;
    let (mut read, mut write) = server.connect().await.stream.into_split();
    let start = Instant::now();
    let drip = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX: "
            .iter()
            .chain(&[b'x'; 200])
        {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, read.read_to_end(&mut answer))
        .await
        .expect("closed in time");
    assert!(answer.is_empty());
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    drip.abort();
    server
        .expect_metric("osproxy_rejected_total{reason=\"header timeout\"} 1")
        .await;
}

#[tokio::test]
async fn idle_connection_is_closed_after_its_own_time() {
    let config = Config {
        idle_timeout_seconds: NonZeroU64::MIN,
        ..Config::default()
    };
    let server = Running::start(config).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    assert!(client.closed().await.is_empty());
    server
        .expect_metric("osproxy_rejected_total{reason=\"idle timeout\"} 1")
        .await;
}

#[tokio::test]
async fn request_in_flight_outlives_idle_and_header_times() {
    let config = Config {
        idle_timeout_seconds: NonZeroU64::MIN,
        ..quick()
    };
    let server = Running::start(config).await;
    let mut client = server.connect().await;
    client.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.probe.entered.notified().await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    server.probe.gate.notify_one();
    assert_eq!(client.answer().await.text(), "through");
}

#[tokio::test]
async fn stalled_body_fails_in_the_hands_of_the_facade() {
    let server = Running::start(quick()).await;
    let mut client = server.connect().await;
    client
        .send("PUT /read HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nonly this")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.text(), "Stalled: the request body stalled");
    server.expect_metric("osproxy_bytes_in_total 9").await;
}

#[tokio::test]
async fn slow_body_that_keeps_moving_is_read_to_its_end() {
    let config = Config {
        body_timeout_seconds: NonZeroU64::new(5).unwrap(),
        ..quick()
    };
    let server = Running::start(config).await;
    let mut client = server.connect().await;
    client
        .send("PUT /read HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n")
        .await;
    // All of it takes longer than may pass between two pieces.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.text(), "read 6");
}

#[tokio::test]
async fn body_over_the_limit_is_refused_announced_or_not() {
    let config = Config {
        max_body_bytes: 10,
        ..Config::default()
    };
    let server = Running::start(config).await;
    let mut client = server.connect().await;
    client
        .send("PUT /read HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().starts_with("BodyTooLarge "));

    let mut client = server.connect().await;
    client
        .send("PUT /read HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n")
        .await;
    assert_eq!(
        client.answer().await.text(),
        "TooLarge: the request body is too large"
    );
}

#[tokio::test]
async fn client_that_does_not_read_is_dropped_and_bounds_what_is_buffered() {
    let server = Running::start(quick()).await;
    let mut client = server.connect().await;
    client.send("GET /frames HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server
        .expect_metric("osproxy_rejected_total{reason=\"write timeout\"} 1")
        .await;
    server
        .expect_metric("osproxy_requests_total{operation=\"Probe\",status=\"200\"} 1")
        .await;
    // 400 frames are 100 MB; the socket's buffers hold a few, the server one or two more.
    let frames = server.probe.frames.load(Ordering::SeqCst);
    assert!(frames < 100, "{frames} frames were taken");
}

#[tokio::test]
async fn large_frames_arrive_whole() {
    let server = Running::start(quick()).await;
    let mut client = server.connect().await;
    client
        .send("GET /frames HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .await;
    let head = client.head().await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let body = client.closed().await;
    assert_eq!(
        body.iter().filter(|byte| **byte == b'x').count(),
        400 * (256 << 10)
    );
    assert!(body.ends_with(b"\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn answer_that_fails_midway_is_visibly_cut() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    client.send("GET /broken HTTP/1.1\r\nHost: h\r\n\r\n").await;
    // What was not yet written when the body failed is lost with the connection, the head included.
    let bytes = client.closed().await;
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{bytes:?}");
}

#[tokio::test]
async fn load_above_the_limit_is_shed_and_recovers() {
    let config = Config {
        max_requests: NonZeroUsize::MIN,
        ..Config::default()
    };
    let server = Running::start(config).await;
    let mut first = server.connect().await;
    first.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.probe.entered.notified().await;
    let mut second = server.connect().await;
    second.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = second.answer().await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let id = answer.header("x-amz-request-id").expect("an id");
    assert_eq!(answer.text(), format!("Overloaded {id}"));
    server.probe.gate.notify_one();
    assert_eq!(first.answer().await.text(), "through");
    server
        .expect_metric("osproxy_requests_total{operation=\"Probe\",status=\"200\"} 1")
        .await;
    second.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(second.answer().await.status(), 200);
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_place() {
    let config = Config {
        max_connections: NonZeroU32::MIN,
        ..Config::default()
    };
    let server = Running::start(config).await;
    let mut first = server.connect().await;
    first.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.probe.entered.notified().await;
    let mut second = server.connect().await;
    second.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.probe.gate.notify_one();
    let answer = first.answer().await;
    // No place is free, so the connection makes room.
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(second.answer().await.status(), 200);
}

#[tokio::test]
async fn close_asked_for_by_the_facade_is_sent_once_and_done() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    client.send("GET /close HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), "bye");
    assert_eq!(answer.head.to_lowercase().matches("connection:").count(), 1);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.closed().await.is_empty());
}

/// Keeps what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn access_log_has_the_request_and_never_its_query() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let config = Config {
        access_log: AccessLog::Info,
        ..Config::default()
    };
    let server = Running::start(config).await;
    let mut client = server.connect().await;
    client
        .send("PUT /read?X-Amz-Signature=0123 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    let answer = client.answer().await;
    let id = answer.header("x-amz-request-id").expect("an id");
    server
        .expect_metric("osproxy_requests_total{operation=\"Probe\",status=\"200\"} 1")
        .await;
    let text = String::from_utf8(log.0.lock().expect("not poisoned").clone()).expect("text");
    for part in [
        "INFO access: ",
        &format!("request={id}"),
        "remote=127.0.0.1:",
        "method=PUT",
        "path=\"/read\"",
        "operation=\"Probe\"",
        "status=200",
        "bytes_in=4",
        "bytes_out=6",
        "duration_ms=",
        "complete=true",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
    assert!(!text.contains("Signature"), "{text}");
}

#[tokio::test]
async fn panic_of_a_facade_is_an_answer() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    client.send("GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 500);
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn client_that_leaves_cancels_its_request() {
    let server = Running::start(Config::default()).await;
    let mut client = server.connect().await;
    client.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.probe.entered.notified().await;
    drop(client);
    server
        .expect_metric("osproxy_requests_total{operation=\"Probe\",status=\"499\"} 1")
        .await;
    assert!(server.probe.was_cancelled.load(Ordering::SeqCst));
}

#[tokio::test]
async fn drain_closes_idle_connections_and_finishes_what_is_in_flight() {
    let config = Config {
        drain_timeout_seconds: 30,
        ..Config::default()
    };
    let mut server = Running::start(config).await;
    let mut idle = server.connect().await;
    idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    idle.answer().await;
    let fresh = server.connect().await;
    let mut busy = server.connect().await;
    busy.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.probe.entered.notified().await;
    server.expect_metric("osproxy_open_connections 3").await;

    server.stop();
    assert!(idle.closed().await.is_empty());
    assert!(fresh.closed().await.is_empty());
    assert!(TcpStream::connect(server.address).await.is_err());
    server.probe.gate.notify_one();
    let answer = busy.answer().await;
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("through", Some("close"))
    );
    let drained = tokio::time::timeout(DEADLINE, server.served)
        .await
        .expect("drained in time")
        .expect("no panic");
    assert_eq!(drained, Drained { aborted: 0 });
}

#[tokio::test]
async fn drain_cuts_what_is_left_at_its_deadline() {
    let mut server = Running::start(quick()).await;
    let mut busy = server.connect().await;
    busy.send("GET /gate HTTP/1.1\r\nHost: h\r\n\r\n").await;
    server.probe.entered.notified().await;
    server.stop();
    let drained = tokio::time::timeout(DEADLINE, server.served)
        .await
        .expect("drained in time")
        .expect("no panic");
    assert_eq!(drained, Drained { aborted: 1 });
    assert!(server.probe.was_cancelled.load(Ordering::SeqCst));
}

#[tokio::test]
async fn router_is_served_under_the_same_limits() {
    let router = axum::Router::new()
        .route("/healthz", axum::routing::get(|| async { "ok" }))
        .route(
            "/echo",
            axum::routing::post(|body: Bytes| async move { body.len().to_string() }),
        );
    let metrics = Metrics::new();
    let server = Server::bind(
        "127.0.0.1:0".parse().expect("an address"),
        &Config::default(),
        Arc::clone(&metrics),
    )
    .await
    .expect("a free port");
    let address = server.local_addr();
    let facade = Arc::new(RouterFacade::new("Admin", router));
    let served = tokio::spawn(server.serve(facade, std::future::pending()));
    let mut client = Client {
        stream: TcpStream::connect(address).await.expect("connected"),
        unread: Vec::new(),
    };
    client
        .send("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), "ok");
    assert!(answer.header("x-amz-request-id").is_some());
    client
        .send("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(client.answer().await.text(), "3");
    client
        .send("GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status(), 404);
    assert!(
        metrics
            .expose()
            .contains("operation=\"Admin\",status=\"200\"")
    );
    served.abort();
}

#[tokio::test]
async fn bind_names_the_address_it_cannot_use() {
    let server = Running::start(Config::default()).await;
    let fault = Server::bind(server.address, &Config::default(), Metrics::new())
        .await
        .expect_err("taken");
    assert_eq!(fault.kind(), Kind::Config);
    assert!(fault.to_string().contains(&server.address.to_string()));
}

#[test]
fn a_buffer_smaller_than_the_headers_is_refused_by_name() {
    let config = Config {
        buffer_bytes: 8192,
        ..Config::default()
    };
    let text = config.check().expect_err("too small");
    assert!(text.starts_with("http.max_header_bytes: "), "{text}");
}

#[test]
fn request_body_can_be_boxed_by_any_facade() {
    fn is_shareable<T: Send + Sync + Unpin + 'static>() {}
    is_shareable::<InBody>();
    assert_eq!(BodyFailure::Stalled as u8, 1);
}

#[tokio::test]
async fn body_in_memory_reads_like_one_from_the_wire() {
    let context = Arc::new(RequestContext::new());
    let body = InBody::in_memory(Bytes::from_static(b"abc"), context);
    assert_eq!(body.collect().await.expect("read").to_bytes(), "abc");
}
