//! Logs, metrics and the identity of a request.
//!
//! Everything above may name this module; it names nothing of ours. Counting is a few atomic operations, so that
//! it can stand on the hot path; text is made only when a log line or the exposition is asked for.
//!
//! Conventions: log lines go to standard error (standard output belongs to the commands); an event is a short
//! fixed message with fields; `error` needs a human, `warn` may soon, `info` is for changes of state, `debug` for
//! requests. A field `request` holds the request id, which the client also got as `x-amz-request-id`.

mod labels;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::IsTerminal;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use labels::{
    BackendErrorLabels, BackendLabels, EventLabels, ExpiredLabels, HintLabels, JobLabels,
    JobOutcomeLabels, OperationLabels, ReasonLabels, RequestLabels, StoreLabels, TargetLabels,
};

/// Section `[log]`: what is logged and in which form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The form of a line.
    pub format: Format,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or a list such as `info,osproxy::blob=debug`.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Text,
            level: "info".to_owned(),
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A filter that cannot be parsed, or a second start of the log.
#[derive(Debug, thiserror::Error)]
#[error("log.level: {0}")]
pub struct LogError(String);

/// Libraries that speak too loudly at `info`. What `fred` has to say is logged where it is used. `s3s` logs refused
/// requests as errors, but an error of a client is not one of the server, and the access log has it. A directive of the
/// same target in the setting wins.
const QUIET: &str =
    "s3s=off,hyper=warn,hyper_util=warn,opendal=warn,fred=off,reqwest=warn,rustls=warn,sqlx=warn";
/// What is never logged: the library that signs requests to backends writes their secret keys at `debug`.
const SILENT: &str = "reqsign";

impl Config {
    /// Checks `level` without starting the log.
    pub fn filter(&self) -> Result<EnvFilter, LogError> {
        // The filter's grammar takes a lone unknown word for the name of a target and would log nothing else.
        for word in self.level.split(',').map(str::trim) {
            let may_be_level = !word.contains(['=', '[', ':']);
            if word.is_empty() || may_be_level && word.parse::<LevelFilter>().is_err() {
                return Err(LogError(format!(
                    "expected a level or target=level, found {word:?}"
                )));
            }
            if word.contains(SILENT) {
                return Err(LogError(format!("{SILENT} logs secrets, found {word:?}")));
            }
        }
        EnvFilter::try_new(format!("{QUIET},{},{SILENT}=off", self.level))
            .map_err(|error| LogError(format!("{error} in {:?}", self.level)))
    }
}

/// Starts the log of this process. Fails on a filter that cannot be parsed and when called twice.
pub fn init(config: &Config) -> Result<(), LogError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.filter()?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| LogError(error.to_string()))
}

/// What is known of one request while it is served.
///
/// The listener makes it and puts an `Arc` of it into the request's extensions; whoever learns something adds it.
/// All of it may be read at any time from any thread.
#[derive(Debug)]
pub struct RequestContext {
    id: RequestId,
    client_id: OnceLock<String>,
    started: Instant,
    operation: OnceLock<&'static str>,
    access_key: OnceLock<String>,
    wire_bytes: AtomicU64,
    body_bytes: AtomicU64,
    body_failure: AtomicU8,
    remote: OnceLock<IpAddr>,
    error: OnceLock<String>,
    at_end: AtEnd,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer's body that were sent.
    pub sent: u64,
    /// From the request's head to the last byte of the answer.
    pub elapsed: Duration,
}

type EndHook = Box<dyn FnOnce(&RequestContext, End) + Send>;

/// What is done when a request has ended.
#[derive(Default)]
struct AtEnd(Mutex<Option<EndHook>>);

impl fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtEnd")
    }
}

impl Default for RequestContext {
    fn default() -> Self {
        Self {
            id: RequestId::next(),
            client_id: OnceLock::new(),
            started: Instant::now(),
            operation: OnceLock::new(),
            access_key: OnceLock::new(),
            wire_bytes: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            body_failure: AtomicU8::new(0),
            remote: OnceLock::new(),
            error: OnceLock::new(),
            at_end: AtEnd::default(),
        }
    }
}

impl RequestContext {
    /// A context with a new id that starts now.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id, also the answer's `x-amz-request-id`.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Records what the client calls the request: a short text of printable ASCII. Only the first call counts.
    pub fn set_client_id(&self, id: &str) {
        let _ = self.client_id.set(id.to_owned());
    }

    /// What the client calls the request, in its `request-id`; absent when it says nothing that can be repeated.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.get().map(String::as_str)
    }

    /// When the head of the request had arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Names the operation (`"PutObject"`) for log and metrics. Only the first call counts.
    pub fn set_operation(&self, operation: &'static str) {
        let _ = self.operation.set(operation);
    }

    /// The operation; `"unknown"` before a facade has named it.
    pub fn operation(&self) -> &'static str {
        self.operation.get().copied().unwrap_or("unknown")
    }

    /// Records the id of the access key that signed the request, never its secret. Only the first call counts.
    pub fn set_access_key(&self, id: &str) {
        let _ = self.access_key.set(id.to_owned());
    }

    /// The id of the access key; absent before the signature was verified and for anonymous requests.
    pub fn access_key(&self) -> Option<&str> {
        self.access_key.get().map(String::as_str)
    }

    /// Records the address that the request came from. Only the first call counts.
    pub fn set_remote(&self, address: IpAddr) {
        let _ = self.remote.set(address);
    }

    /// The address that the request came from: that of a proxy, where one stands before this server.
    pub fn remote(&self) -> Option<IpAddr> {
        self.remote.get().copied()
    }

    /// Records the protocol's error code of the answer. Only the first call counts.
    pub fn set_error(&self, code: &str) {
        let _ = self.error.set(code.to_owned());
    }

    /// The protocol's error code of the answer; absent for a success.
    pub fn error(&self) -> Option<&str> {
        self.error.get().map(String::as_str)
    }

    /// Has something done when the request has ended, however it ends. The last call counts. It runs where the
    /// answer's body is dropped, so it must not wait for anything.
    pub fn at_end(&self, hook: impl FnOnce(&Self, End) + Send + 'static) {
        *self.at_end.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Does what [`Self::at_end`] was given; called by the listener, once.
    pub fn end(&self, end: End) {
        let hook = self
            .at_end
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(hook) = hook {
            hook(self, end);
        }
    }

    /// Adds bytes taken from the raw body, before any decoding.
    pub fn add_wire_bytes(&self, bytes: u64) {
        self.wire_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes taken from the raw body so far.
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes.load(Ordering::Relaxed)
    }

    /// Adds bytes of the decoded body that a handler was given. The difference to [`Self::wire_bytes`] is what a
    /// decoder holds back.
    pub fn add_body_bytes(&self, bytes: u64) {
        self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the decoded body that a handler was given so far.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::Relaxed)
    }

    /// Says why the raw body ended early. The last call counts.
    pub fn set_body_failure(&self, failure: BodyFailure) {
        self.body_failure.store(failure as u8, Ordering::Relaxed);
    }

    /// Why the raw body ended early; `None` while it did not. Decoders wrap errors in types of their own, so a
    /// facade asks here for the cause.
    pub fn body_failure(&self) -> Option<BodyFailure> {
        match self.body_failure.load(Ordering::Relaxed) {
            1 => Some(BodyFailure::Stalled),
            2 => Some(BodyFailure::TooLarge),
            3 => Some(BodyFailure::Disconnected),
            _ => None,
        }
    }
}

/// Why a request body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyFailure {
    /// No byte came for the time allowed; S3's `RequestTimeout`.
    Stalled = 1,
    /// It is longer than allowed; S3's `EntityTooLarge`.
    TooLarge = 2,
    /// The connection broke or the framing is wrong; S3's `IncompleteBody`.
    Disconnected = 3,
}

/// Sixteen upper-case hexadecimal digits, unique in this process and random across processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// The next id. A counter goes through a bijection that starts at a random place: no two are equal, they do
    /// not tell how many there were, and no random bytes are drawn per request.
    fn next() -> Self {
        static START: OnceLock<u64> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let start = *START.get_or_init(|| RandomState::new().build_hasher().finish());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let number = scramble(start.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let mut digits = [0; 16];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789ABCDEF"[(number >> (60 - 4 * place)) as usize & 15];
        }
        Self(digits)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014), a bijection on 64 bits.
fn scramble(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// The metrics of this process. One instance is made at the start and shared.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_duration: Family<OperationLabels, Histogram, fn() -> Histogram>,
    bytes_in: Counter,
    bytes_out: Counter,
    dedup_hits: Counter,
    instant_uploads: Counter,
    open_connections: Gauge,
    requests_in_flight: Gauge,
    store_duration: Family<StoreLabels, Histogram, fn() -> Histogram>,
    backend_errors: Family<BackendErrorLabels, Counter>,
    backend_retries: Family<StoreLabels, Counter>,
    backend_wait: Family<BackendLabels, Histogram, fn() -> Histogram>,
    rejected: Family<ReasonLabels, Counter>,
    events: Family<EventLabels, Counter>,
    events_waiting: Family<TargetLabels, Gauge>,
    log_lines_dropped: Counter,
    hints: Family<HintLabels, Counter>,
    redis_connected: Gauge,
    expired: Family<ExpiredLabels, Counter>,
    jobs: Family<JobOutcomeLabels, Counter>,
    jobs_running: Family<JobLabels, Gauge>,
    jobs_waiting: Family<JobLabels, Gauge>,
    nodes: Gauge,
    nodes_declared_dead: Counter,
    rejoined: Counter,
}

/// Upper bounds of the histograms in seconds, from a cached read to a large upload.
const BUCKETS_SECONDS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    30.0, 120.0,
];

impl Metrics {
    /// The media type of [`Self::expose`].
    pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Metrics at zero.
    pub fn new() -> Arc<Self> {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS_SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("osproxy"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(histogram),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            dedup_hits: Counter::default(),
            instant_uploads: Counter::default(),
            open_connections: Gauge::default(),
            requests_in_flight: Gauge::default(),
            store_duration: Family::new_with_constructor(histogram),
            backend_errors: Family::default(),
            backend_retries: Family::default(),
            backend_wait: Family::new_with_constructor(histogram),
            rejected: Family::default(),
            events: Family::default(),
            events_waiting: Family::default(),
            log_lines_dropped: Counter::default(),
            hints: Family::default(),
            redis_connected: Gauge::default(),
            expired: Family::default(),
            jobs: Family::default(),
            jobs_running: Family::default(),
            jobs_waiting: Family::default(),
            nodes: Gauge::default(),
            nodes_declared_dead: Counter::default(),
            rejoined: Counter::default(),
        };
        // Counters get `_total` from the exposition.
        let registry = &mut metrics.registry;
        registry.register(
            "requests",
            "Requests answered, by operation and status (499: the client left first)",
            metrics.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "From the request's head to the last byte of the answer",
            metrics.request_duration.clone(),
        );
        registry.register(
            "bytes_in",
            "Bytes of request bodies, as sent",
            metrics.bytes_in.clone(),
        );
        registry.register(
            "bytes_out",
            "Bytes of response bodies",
            metrics.bytes_out.clone(),
        );
        registry.register(
            "dedup_hits",
            "Uploads whose content was already stored",
            metrics.dedup_hits.clone(),
        );
        registry.register(
            "instant_uploads",
            "Uploads answered without their body",
            metrics.instant_uploads.clone(),
        );
        registry.register(
            "open_connections",
            "Connections of clients",
            metrics.open_connections.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests that are being served, on all listeners",
            metrics.requests_in_flight.clone(),
        );
        registry.register(
            "store_duration_seconds",
            "One operation of a metadata or blob store",
            metrics.store_duration.clone(),
        );
        registry.register(
            "backend_errors",
            "Operations of a backend that failed, repeats included, by kind of fault",
            metrics.backend_errors.clone(),
        );
        registry.register(
            "backend_retries",
            "Requests to a backend that were made again after a failure that may pass",
            metrics.backend_retries.clone(),
        );
        registry.register(
            "backend_wait_seconds",
            "How long an operation waited for its turn at a backend",
            metrics.backend_wait.clone(),
        );
        registry.register(
            "rejected",
            "Requests refused by a limit of this server",
            metrics.rejected.clone(),
        );
        registry.register(
            "events",
            "Events by what became of them: delivered, failed (an attempt), given_up (too old)",
            metrics.events.clone(),
        );
        registry.register(
            "events_waiting",
            "Events that wait for their target, counted up to 100000",
            metrics.events_waiting.clone(),
        );
        registry.register(
            "log_lines_dropped",
            "Lines of access logs of buckets that were lost",
            metrics.log_lines_dropped.clone(),
        );
        registry.register(
            "hints",
            "Hints between nodes, by topic and what became of them: sent, failed (sent again), heard",
            metrics.hints.clone(),
        );
        registry.register(
            "redis_connected",
            "Whether hints come from other nodes",
            metrics.redis_connected.clone(),
        );
        registry.register(
            "lifecycle",
            "What lifecycle rules did, by action",
            metrics.expired.clone(),
        );
        registry.register(
            "jobs",
            "Runs of jobs here, by type and what became of them: done, more (to do), released (at a stop), retried, failed, cancelled, lost (its lease)",
            metrics.jobs.clone(),
        );
        registry.register(
            "jobs_running",
            "Jobs that this process runs, by type",
            metrics.jobs_running.clone(),
        );
        registry.register(
            "jobs_waiting",
            "Jobs whose time has come and that no node runs, by type; counted now and then, up to 10000",
            metrics.jobs_waiting.clone(),
        );
        registry.register(
            "nodes",
            "Nodes that share the database, this one included, at its last look",
            metrics.nodes.clone(),
        );
        registry.register(
            "nodes_declared_dead",
            "Nodes that this one has declared dead because they did not beat",
            metrics.nodes_declared_dead.clone(),
        );
        registry.register(
            "rejoined",
            "How often this process was declared dead and began again as another node",
            metrics.rejoined.clone(),
        );
        Arc::new(metrics)
    }

    /// Counts events of a configured target; `outcome` is `"delivered"`, `"failed"` or `"given_up"`.
    pub fn events(&self, target: &Arc<str>, outcome: &'static str, count: u64) {
        self.events
            .get_or_create(&EventLabels {
                target: Arc::clone(target),
                outcome,
            })
            .inc_by(count);
    }

    /// Records how many events wait for a configured target.
    pub fn events_waiting(&self, target: &Arc<str>, count: u64) {
        self.events_waiting
            .get_or_create(&TargetLabels {
                target: Arc::clone(target),
            })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts lines of access logs that were lost.
    pub fn log_lines_dropped(&self, count: u64) {
        self.log_lines_dropped.inc_by(count);
    }

    /// Counts a hint; `topic` is a fixed word, `outcome` is `"sent"`, `"failed"` or `"heard"`.
    pub fn hint(&self, topic: &'static str, outcome: &'static str) {
        self.hints
            .get_or_create(&HintLabels { topic, outcome })
            .inc();
    }

    /// Says that hints come from other nodes for as long as the returned value lives.
    pub fn redis_connected(&self) -> Counted {
        Counted::new(&self.redis_connected)
    }

    /// What this process is busy with.
    pub fn load(&self) -> Load {
        let gauge = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        Load {
            requests: gauge(&self.requests_in_flight),
            connections: gauge(&self.open_connections),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }

    /// Counts what lifecycle rules did; `action` is a fixed word.
    pub fn lifecycle(&self, action: &'static str, count: u64) {
        self.expired
            .get_or_create(&ExpiredLabels { action })
            .inc_by(count);
    }

    /// Counts one run of a job; `kind` is the fixed name of its type, `outcome` a fixed word.
    pub fn job_done(&self, kind: &'static str, outcome: &'static str) {
        self.jobs
            .get_or_create(&JobOutcomeLabels {
                r#type: kind,
                outcome,
            })
            .inc();
    }

    /// Counts a job as running for as long as the returned value lives.
    pub fn running_job(&self, kind: &'static str) -> Counted {
        Counted::new(&self.jobs_running.get_or_create(&JobLabels { r#type: kind }))
    }

    /// Records how many jobs of a type wait although their time has come.
    pub fn jobs_waiting(&self, kind: &'static str, count: u64) {
        self.jobs_waiting
            .get_or_create(&JobLabels { r#type: kind })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Records how many nodes share the database.
    pub fn nodes(&self, count: usize) {
        self.nodes.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a node that this one has declared dead.
    pub fn node_declared_dead(&self) {
        self.nodes_declared_dead.inc();
    }

    /// Counts a new beginning of this process as another node.
    pub fn rejoined(&self) {
        self.rejoined.inc();
    }

    /// Counts one answered request and the time it took.
    pub fn request_done(&self, operation: &'static str, status: u16, elapsed: Duration) {
        self.requests
            .get_or_create(&RequestLabels { operation, status })
            .inc();
        self.request_duration
            .get_or_create(&OperationLabels { operation })
            .observe(elapsed.as_secs_f64());
    }

    /// Counts bytes of a request body.
    pub fn add_bytes_in(&self, bytes: u64) {
        self.bytes_in.inc_by(bytes);
    }

    /// Counts bytes of a response body.
    pub fn add_bytes_out(&self, bytes: u64) {
        self.bytes_out.inc_by(bytes);
    }

    /// Counts an upload whose content was already stored.
    pub fn dedup_hit(&self) {
        self.dedup_hits.inc();
    }

    /// Counts an upload answered without its body.
    pub fn instant_upload(&self) {
        self.instant_uploads.inc();
    }

    /// Counts a connection as open for as long as the returned value lives.
    pub fn connection(&self) -> Counted {
        Counted::new(&self.open_connections)
    }

    /// Counts a request as being served for as long as the returned value lives.
    pub fn request(&self) -> Counted {
        Counted::new(&self.requests_in_flight)
    }

    /// Counts a request refused for a limit; `reason` is a fixed word such as `"overloaded"`.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Records the time of one operation of a store. `store` is a configured name and `operation` a fixed word:
    /// never anything a client chooses, because every pair is kept for ever.
    pub fn store_done(&self, store: &Arc<str>, operation: &'static str, elapsed: Duration) {
        self.store_duration
            .get_or_create(&StoreLabels {
                store: Arc::clone(store),
                operation,
            })
            .observe(elapsed.as_secs_f64());
    }

    /// Counts an operation of a backend that failed; `kind` is a fixed word.
    pub fn backend_failed(&self, store: &Arc<str>, operation: &'static str, kind: &'static str) {
        self.backend_errors
            .get_or_create(&BackendErrorLabels {
                store: Arc::clone(store),
                operation,
                kind,
            })
            .inc();
    }

    /// Counts a request to a backend that is made again.
    pub fn backend_repeated(&self, store: &Arc<str>, operation: &'static str) {
        self.backend_retries
            .get_or_create(&StoreLabels {
                store: Arc::clone(store),
                operation,
            })
            .inc();
    }

    /// Records how long an operation waited for its turn at a backend.
    pub fn backend_waited(&self, store: &Arc<str>, waited: Duration) {
        self.backend_wait
            .get_or_create(&BackendLabels {
                store: Arc::clone(store),
            })
            .observe(waited.as_secs_f64());
    }

    /// All metrics as OpenMetrics text, which Prometheus reads.
    pub fn expose(&self) -> String {
        let mut text = String::new();
        // The encoder fails only when the writer does, and a `String` does not.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// What a process is busy with. The sums of bytes begin at its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Requests that are being served.
    pub requests: u64,
    /// Connections of clients.
    pub connections: u64,
    /// Bytes of request bodies so far.
    pub bytes_in: u64,
    /// Bytes of response bodies so far.
    pub bytes_out: u64,
}

/// One of what a gauge counts; dropping it takes it off.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn request_ids_are_sixteen_upper_case_hex_digits_and_differ() {
        let ids: HashSet<RequestId> = (0..10_000).map(|_| RequestId::next()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| {
            id.as_str().len() == 16
                && id
                    .as_str()
                    .bytes()
                    .all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'))
        }));
    }

    #[test]
    fn context_keeps_the_first_operation_and_access_key() {
        let context = RequestContext::new();
        assert_eq!(context.operation(), "unknown");
        assert_eq!(context.access_key(), None);
        context.set_operation("PutObject");
        context.set_operation("GetObject");
        context.set_access_key("AKIA");
        context.set_access_key("OTHER");
        assert_eq!(context.operation(), "PutObject");
        assert_eq!(context.access_key(), Some("AKIA"));
    }

    #[test]
    fn body_failure_survives_its_atomic() {
        let context = RequestContext::new();
        assert_eq!(context.body_failure(), None);
        for failure in [
            BodyFailure::Stalled,
            BodyFailure::TooLarge,
            BodyFailure::Disconnected,
        ] {
            context.set_body_failure(failure);
            assert_eq!(context.body_failure(), Some(failure));
        }
    }

    #[test]
    fn exposition_has_every_documented_metric() {
        let metrics = Metrics::new();
        metrics.request_done("GetObject", 200, Duration::from_millis(3));
        metrics.add_bytes_in(5);
        metrics.add_bytes_out(7);
        metrics.dedup_hit();
        metrics.instant_upload();
        metrics.store_done(&Arc::from("local"), "read", Duration::from_micros(90));
        metrics.backend_failed(&Arc::from("far"), "open blob", "unavailable");
        metrics.backend_repeated(&Arc::from("far"), "read");
        metrics.backend_waited(&Arc::from("far"), Duration::from_millis(2));
        metrics.rejected("overloaded");
        metrics.job_done("collect", "done");
        metrics.jobs_waiting("collect", 3);
        let running = metrics.running_job("collect");
        metrics.hint("buckets", "heard");
        let open = metrics.connection();
        let counted = (metrics.request(), metrics.redis_connected());
        let text = metrics.expose();
        for line in [
            "osproxy_requests_total{operation=\"GetObject\",status=\"200\"} 1",
            "osproxy_request_duration_seconds_bucket{le=\"0.005\",operation=\"GetObject\"} 1",
            "osproxy_bytes_in_total 5",
            "osproxy_bytes_out_total 7",
            "osproxy_dedup_hits_total 1",
            "osproxy_instant_uploads_total 1",
            "osproxy_open_connections 1",
            "osproxy_requests_in_flight 1",
            "osproxy_redis_connected 1",
            "osproxy_hints_total{topic=\"buckets\",outcome=\"heard\"} 1",
            "osproxy_store_duration_seconds_count{store=\"local\",operation=\"read\"} 1",
            "osproxy_backend_errors_total{store=\"far\",operation=\"open blob\",kind=\"unavailable\"} 1",
            "osproxy_backend_retries_total{store=\"far\",operation=\"read\"} 1",
            "osproxy_backend_wait_seconds_count{store=\"far\"} 1",
            "osproxy_rejected_total{reason=\"overloaded\"} 1",
            "osproxy_jobs_total{type=\"collect\",outcome=\"done\"} 1",
            "osproxy_jobs_running{type=\"collect\"} 1",
            "osproxy_jobs_waiting{type=\"collect\"} 3",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        let load = metrics.load();
        assert_eq!((load.requests, load.connections), (1, 1));
        assert_eq!((load.bytes_in, load.bytes_out), (5, 7));
        drop((open, counted, running));
        let text = metrics.expose();
        assert!(text.contains("osproxy_open_connections 0"));
        assert!(text.contains("osproxy_requests_in_flight 0"));
        assert!(text.contains("osproxy_redis_connected 0"));
        assert!(text.contains("osproxy_jobs_running{type=\"collect\"} 0"));
    }

    #[test]
    fn a_bad_level_is_refused_and_names_the_setting() {
        for level in ["info,osproxy=loud", "loud", "", "reqsign_core=debug"] {
            let config = Config {
                level: level.to_owned(),
                ..Config::default()
            };
            let error = config.filter().map(|_| ()).expect_err("not a level");
            assert!(error.to_string().starts_with("log.level: "), "{error}");
        }
        assert!(Config::default().filter().is_ok());
    }

    #[test]
    fn a_directive_of_the_setting_wins_over_the_quiet_ones() {
        let config = Config {
            level: "info,s3s=debug".to_owned(),
            ..Config::default()
        };
        let filter = config.filter().expect("a filter").to_string();
        assert!(filter.contains("s3s=debug"), "{filter}");
        assert!(!filter.contains("s3s=off"), "{filter}");
    }
}
