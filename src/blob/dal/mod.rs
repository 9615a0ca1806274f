//! Blobs at every service that OpenDAL speaks to.
//!
//! Requests are conservative: plain puts of known length, parts of one size, plain ranged reads, no
//! conditions but for the marker, no metadata; an ETag is never looked at, and lengths are counted here. What fails for a passing
//! reason is repeated with jitter by OpenDAL's layers. A turn at the service, and a part's memory, is held
//! only while the service works on it: a client that does not drain or feed its stream holds neither turn nor
//! thread. (OpenDAL's own concurrency layer holds its turn as long as the stream lives, and waits without
//! end.)
//!
//! What a service says of itself (its errors, its address) goes to the log at `debug` and nowhere else: a fault
//! carries our words for it.
//!
//! OpenDAL keeps one part back until it has the next, so that a stream longer than a part has one part
//! resident and at times a second one filling. Both come out of one [`PartBudget`].

mod read;
mod services;
mod transport;
mod veil;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opendal::layers::{RetryEvent, RetryInterceptor, RetryLayer, TimeoutLayer};
use opendal::{ErrorKind, Operator};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::config::{BackendConfig, bare, is_plain};
use super::{BLOB_MAX_AT_LEAST, Backend, BlobName, Claim, CopyName, MARKER, Watch};
use crate::model::fault::{Fault, Kind};

use self::transport::Checked;
use self::veil::Veil;

pub(super) use self::read::{List, Reader};
pub(super) use self::write::Writer;

/// Length of a part: the smallest that S3 takes, because each stream holds up to two.
const PART_BYTES: usize = 5 << 20;
/// Unit of the part budget, which counts in 32 bits.
const BUDGET_UNIT_BYTES: usize = 4096;
/// One part in this many of the budget is set aside for filling. At the default budget 32 streams have a part
/// resident and at least 3 of them fill the next; while there are fewer streams, more of them do.
const FILLING_SHARE: usize = 11;
/// First and longest pause before a request is repeated.
const RETRY_PAUSE: Range<Duration> = Duration::from_millis(100)..Duration::from_secs(5);

/// Memory for parts, shared by all services.
#[derive(Clone)]
pub(super) struct PartBudget {
    /// For the first part of each stream, which OpenDAL keeps back from then on.
    resident: Pool,
    /// For the part that a stream fills next, which may also use what is free of the resident memory.
    /// Separate, so that streams which each wait for their next part cannot hold up each other: whoever
    /// fills one needs nothing more to hand it over.
    filling: Pool,
}

#[derive(Clone)]
struct Pool {
    permits: Arc<Semaphore>,
    all: u32,
}

impl PartBudget {
    pub(super) fn new(budget_bytes: usize) -> Self {
        let pool = |bytes: usize| {
            let units = u32::try_from(bytes / BUDGET_UNIT_BYTES).unwrap_or(u32::MAX >> 4);
            let all = units.clamp(1, u32::MAX >> 4);
            Pool {
                permits: Arc::new(Semaphore::new(all as usize)),
                all,
            }
        };
        Self {
            resident: pool(budget_bytes - budget_bytes / FILLING_SHARE),
            filling: pool(budget_bytes / FILLING_SHARE),
        }
    }
}

impl Pool {
    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = self.permits.clone();
        permits.try_acquire_many_owned(self.units(bytes)).ok()
    }

    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = self.permits.clone();
        permits
            .acquire_many_owned(self.units(bytes))
            .await
            .expect("the semaphore is never closed")
    }

    /// A part larger than the whole pool takes all of it, alone.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES))
            .map_or(self.all, |it| it.clamp(1, self.all))
    }
}

/// One service.
pub(super) struct Store {
    operator: Operator,
    part_bytes: usize,
    blob_max_bytes: u64,
    parts: PartBudget,
    turns: Semaphore,
    patience: Duration,
    /// Requests made again after a failure, of all operations.
    repeats: Arc<AtomicU64>,
    /// Whether the service answered when it was opened.
    answers: bool,
    veil: Veil,
    watch: Watch,
    cleanups: TaskTracker,
}

impl Store {
    pub(super) async fn open(
        config: &BackendConfig,
        parts: PartBudget,
        watch: Watch,
        cleanups: TaskTracker,
        others: &BTreeMap<String, Backend>,
    ) -> Result<Self, Fault> {
        check_common(config).map_err(|problem| watch.config_fault(problem))?;
        let patience = Duration::from_secs(config.timeout_seconds);
        let repeats = Arc::new(AtomicU64::new(0));
        let veil = Veil::over(config);
        let operator = services::operator(config).map_err(|problem| watch.config_fault(problem))?;
        let context = operator.base_context();
        let context = context.with_http_transport(Checked::over(context.http_transport()));
        let operator = operator
            .with_context(context)
            .layer(
                TimeoutLayer::new()
                    .with_timeout(patience)
                    .with_io_timeout(patience),
            )
            .layer(retry_layer(config.retries, &watch, &veil, &repeats));
        let can = operator.info().capability();
        if !(can.read && can.write && can.stat && can.delete && can.list) {
            return Err(watch.config_fault(format_args!(
                "service {} cannot read, write, measure, delete and list",
                config.service
            )));
        }
        // The memory service takes a blob in several pieces although it does not say so.
        let in_parts = can.write_can_multi || config.service == "memory";
        let (part_bytes, blob_max_bytes) = sizes(&Sizes {
            in_parts,
            part_min: can.write_multi_min_size,
            part_max: can.write_multi_max_size,
            total_max: can.write_total_max_size,
            wanted: config.blob_max_bytes,
        });
        if blob_max_bytes < BLOB_MAX_AT_LEAST {
            return Err(watch.config_fault(format_args!(
                "service {} takes blobs of {blob_max_bytes} bytes at most, too short to be of use",
                config.service
            )));
        }
        let mut store = Self {
            operator,
            part_bytes,
            blob_max_bytes,
            parts,
            turns: Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS)),
            patience,
            repeats,
            answers: false,
            veil,
            watch,
            cleanups,
        };
        store.answers = store.probe(others).await?;
        tracing::info!(
            backend = &*store.watch.backend,
            service = %config.service,
            answers = store.answers,
            in_parts,
            part_bytes,
            blob_max_bytes,
            "backend open"
        );
        Ok(store)
    }

    /// Writes, measures, reads and deletes a blob, and looks for it at the others meanwhile. `false` when the service does
    /// not answer at present; a fault when its answer shows that it is not set up as it must be, or when the blob is at
    /// another backend too.
    async fn probe(&self, others: &BTreeMap<String, Backend>) -> Result<bool, Fault> {
        // Born at time 0: should it stay behind, the sweep takes it.
        let name = BlobName::new(0);
        let path = name.path();
        let content = b"probe";
        let written = async {
            self.operator.write(&path, content.as_slice()).await?;
            let size = self.operator.stat(&path).await?.content_length();
            let tail = self.operator.read_with(&path).range(2..5).await?;
            Ok::<_, opendal::Error>(size == content.len() as u64 && tail.to_bytes() == content[2..])
        };
        // Bounded as a whole: repeated requests to a service that is down must not hold up the start.
        let mut answer = timeout(self.patience, written).await;
        if let Ok(Ok(is_right)) = answer {
            let mut twin = None;
            for (other, backend) in others {
                if is_right && twin.is_none() && backend.holds(&name).await {
                    twin = Some(other);
                }
            }
            let deleted = timeout(self.patience, self.operator.delete(&path)).await;
            if let Some(twin) = twin {
                return Err(self.watch.same_place(twin));
            }
            answer = deleted.map(|deleted| deleted.map(|()| is_right));
        }
        let Ok(answer) = answer else {
            tracing::warn!(backend = &*self.watch.backend, "backend does not answer");
            return Ok(false);
        };
        match answer {
            Ok(true) => Ok(true),
            Ok(false) => Err(self
                .watch
                .config_fault("the service does not give back what it was given")),
            Err(error) => match error.kind() {
                ErrorKind::Unexpected | ErrorKind::RateLimited | ErrorKind::Conflict => {
                    self.heard("probe", &error);
                    tracing::warn!(
                        backend = &*self.watch.backend,
                        problem = problem(&error),
                        "backend does not answer"
                    );
                    Ok(false)
                }
                // Said in the service's own words: the process ends with them.
                _ => Err(self
                    .watch
                    .config_fault("first request refused")
                    .source(self.veil.text(&error))),
            },
        }
    }

    /// Whether a blob is there, as far as the service says so, for the start.
    pub(super) async fn holds(&self, name: &BlobName) -> bool {
        let path = name.path();
        self.answers
            && matches!(
                timeout(self.patience, self.operator.stat(&path)).await,
                Ok(Ok(_))
            )
    }

    /// Logs what the service said. Nobody but whoever asks for `debug` is to see it, and no secrets.
    fn heard(&self, operation: &'static str, error: &opendal::Error) {
        tracing::debug!(
            backend = &*self.watch.backend,
            operation,
            error = self.veil.text(error),
            "answer of backend"
        );
    }

    pub(super) fn blob_max_bytes(&self) -> u64 {
        self.blob_max_bytes
    }

    pub(super) fn create(self: &Arc<Self>, name: BlobName) -> Writer {
        Writer::new(self.clone(), name)
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        name: CopyName,
        range: Range<u64>,
    ) -> Result<Reader, Fault> {
        Reader::open(self.clone(), name, range).await
    }

    pub(super) async fn delete(&self, name: &CopyName) -> Result<(), Fault> {
        let path = name.path();
        let result = self
            .turn("delete blob", name, self.operator.delete(&path))
            .await;
        match result {
            Err(fault) if fault.kind() == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    pub(super) async fn size(&self, name: &CopyName) -> Result<u64, Fault> {
        let path = name.path();
        self.turn("measure blob", name, self.operator.stat(&path))
            .await
            .map(|found| found.content_length())
    }

    /// Writes the marker.
    pub(super) async fn mark(&self, text: &str, claim: Claim) -> Result<(), Fault> {
        let text = text.to_owned();
        let can = self.operator.info().capability();
        let act = async {
            if claim == Claim::IfNone && can.write_with_if_not_exists {
                let write = self.operator.write_with(MARKER, text.clone());
                match write.if_not_exists(true).await {
                    Ok(_) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::ConditionNotMatch => return Ok(()),
                    // There are those that know no condition.
                    Err(error) => self.heard("write marker", &error),
                }
            }
            self.operator.write(MARKER, text).await.map(|_| ())
        };
        self.turn("write blob", CopyName::marker(), act).await
    }

    /// All directories, or one.
    pub(super) fn list(self: &Arc<Self>, directory: Option<usize>) -> List {
        List::new(self.clone(), directory)
    }

    /// Waits for a turn at the service, then for `operation`.
    async fn turn<T>(
        &self,
        operation: &'static str,
        name: impl Into<CopyName>,
        act: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, Fault> {
        let asked = Instant::now();
        let turn = timeout(self.patience, self.turns.acquire()).await;
        let started = Instant::now();
        let result = match turn {
            Ok(Ok(_turn)) => act.await.map_err(|error| {
                self.heard(operation, &error);
                self.watch
                    .fault(kind_of(&error, operation), operation, name)
                    .context(problem(&error))
            }),
            _ => Err(self
                .watch
                .fault(Kind::Busy, operation, name)
                .context("no turn came free in time")),
        };
        self.watch
            .record(operation, started, started - asked, &result);
        result
    }
}

/// What is wrong with a configuration.
pub(super) fn check(config: &BackendConfig) -> Result<(), String> {
    check_common(config)?;
    services::operator(config).map(|_| ())
}

fn check_common(config: &BackendConfig) -> Result<(), String> {
    if config.timeout_seconds == 0 || config.concurrency == 0 {
        return Err("concurrency: expected at least 1, and so for timeout_seconds".to_owned());
    }
    match config.options.get("endpoint") {
        Some(endpoint) if !is_address(&config.service, endpoint) => Err(format!(
            "options.endpoint: expected an address such as \"https://host:port\", found \"{}\"",
            bare(endpoint)
        )),
        _ => Ok(()),
    }
}

/// Services that complete an address without a scheme. For all others OpenDAL makes requests of the address as it is, and
/// each of them would fail.
const COMPLETED: &[&str] = &["cos", "cosn", "obs", "oss", "s3", "swift", "tos", "webhdfs"];
/// Services that are spoken to by other protocols than HTTP, in schemes of their own or without one.
const NOT_HTTP: &[&str] = &["ftp", "sftp"];

/// Whether a text is an address that this service can be asked at: of HTTP or HTTPS, with a host, and with a port that
/// there is where it has one.
fn is_address(service: &str, text: &str) -> bool {
    let is_http = text.starts_with("http://") || text.starts_with("https://");
    let address = match text.contains("://") {
        true if !is_http && !NOT_HTTP.contains(&service) => return false,
        true => text.to_owned(),
        // OpenDAL takes every text that begins with `http` for one with a scheme.
        false if COMPLETED.contains(&service) && !text.starts_with("http") => {
            format!("https://{text}")
        }
        false if NOT_HTTP.contains(&service) => format!("https://{text}"),
        false => return false,
    };
    let Ok(address) = http::Uri::try_from(address) else {
        return false;
    };
    let (Some(authority), Some(host)) = (address.authority(), address.host()) else {
        return false;
    };
    let port = authority.as_str().rsplit_once('@');
    let port = port.map_or(authority.as_str(), |(_, place)| place);
    let port = port.strip_prefix(host).unwrap_or("");
    let is_port_right = match port.strip_prefix(':') {
        Some(port) => port.parse::<std::num::NonZeroU16>().is_ok(),
        None => port.is_empty(),
    };
    !host.is_empty() && is_port_right
}

/// Options that do not tell places apart, or are compared in another way.
fn is_compared_apart(option: &str) -> bool {
    option == "endpoint" || is_plain(option)
}

/// Whether two configurations surely lead to one place: the same bucket, root and address by the same account.
pub(super) fn is_one_place(one: &BackendConfig, other: &BackendConfig) -> bool {
    // Each store in memory is its own.
    if one.service != other.service || one.service == "memory" {
        return false;
    }
    let (Ok(a), Ok(b)) = (services::operator(one), services::operator(other)) else {
        return false;
    };
    let (a, b) = (a.info(), b.info());
    let address =
        |config: &BackendConfig| config.options.get("endpoint").map(|it| plain_address(it));
    let region = |config: &BackendConfig| config.options.get("region").cloned();
    let rest = |config: &BackendConfig| {
        let mut options = config.options.clone();
        options.retain(|option, _| !is_compared_apart(option));
        options
    };
    // Where the address says all, and at S3 where names of buckets are unique, the region tells nothing apart.
    let is_region_idle = one.service == "s3" || address(one).is_some();
    a.name() == b.name()
        && a.root() == b.root()
        && address(one) == address(other)
        && (is_region_idle || region(one) == region(other))
        && rest(one) == rest(other)
}

/// An address as it is compared: without what is meant anyway, and its host in lower case.
fn plain_address(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (scheme, host) = (scheme.to_lowercase(), host.to_lowercase());
    let port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let host = host.strip_suffix(port).unwrap_or(&host);
    format!("{scheme}://{host}/{}", path.trim_end_matches('/'))
}

/// What a service says of lengths, and what was configured.
struct Sizes {
    in_parts: bool,
    part_min: Option<usize>,
    part_max: Option<usize>,
    total_max: Option<usize>,
    wanted: u64,
}

/// The length of a part, and of the longest blob. A service that takes a blob in one piece only gets blobs of one
/// part, because the piece is held in memory.
fn sizes(sizes: &Sizes) -> (usize, u64) {
    let part = PART_BYTES
        .max(sizes.part_min.unwrap_or(0))
        .min(sizes.part_max.unwrap_or(usize::MAX));
    let blob = [
        Some(sizes.wanted),
        sizes.total_max.map(|size| size as u64),
        (!sizes.in_parts).then_some(PART_BYTES as u64),
    ];
    let blob = blob.into_iter().flatten().min().unwrap_or(sizes.wanted);
    let part = usize::try_from(blob).map_or(part, |blob| part.min(blob));
    (part, blob)
}

fn retry_layer(
    retries: usize,
    watch: &Watch,
    veil: &Veil,
    repeats: &Arc<AtomicU64>,
) -> RetryLayer<impl RetryInterceptor + use<>> {
    let (watch, veil, repeats) = (watch.clone(), veil.clone(), Arc::clone(repeats));
    RetryLayer::new()
        .with_jitter()
        .with_min_delay(RETRY_PAUSE.start)
        .with_max_delay(RETRY_PAUSE.end)
        .with_max_times(retries)
        .with_notify(move |event: RetryEvent<'_>| {
            repeats.fetch_add(1, Ordering::Relaxed);
            watch.repeated(event.op.into_static());
            tracing::debug!(
                backend = &*watch.backend,
                operation = event.op.into_static(),
                attempt = event.attempt,
                error = veil.text(event.err),
                "request to backend repeated"
            );
        })
}

/// Our words for an error, for the log.
fn problem(error: &opendal::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::RateLimited => "too many requests",
        ErrorKind::NotFound if is_bucket_missing(error) => "the bucket is not there",
        ErrorKind::NotFound => "not there",
        ErrorKind::RangeNotSatisfied => "shorter than the range",
        ErrorKind::ConfigInvalid => "its settings do not fit",
        ErrorKind::Unsupported => "the service cannot do this",
        ErrorKind::ConditionNotMatch | ErrorKind::Conflict => "refused as a conflict",
        _ => "no answer, or one that makes no sense",
    }
}

/// Whether a service says that what all blobs lie in is missing, which says nothing about one blob.
fn is_bucket_missing(error: &opendal::Error) -> bool {
    let text = error.to_string();
    [
        "NoSuchBucket",
        "ContainerNotFound",
        "FilesystemNotFound",
        "bucket does not exist",
        "bucket not found",
    ]
    .iter()
    .any(|code| text.contains(code))
}

/// What an error says. Whether OpenDAL calls it temporary is of no use: the retry layer has overwritten it.
fn kind_of(error: &opendal::Error, operation: &'static str) -> Kind {
    match error.kind() {
        // The bucket's absence says nothing about the blob; nor does an answer to a write.
        ErrorKind::NotFound => match operation {
            "open blob" | "read blob" | "measure blob" | "delete blob"
                if !is_bucket_missing(error) =>
            {
                Kind::NotFound
            }
            _ => Kind::Unavailable,
        },
        ErrorKind::RangeNotSatisfied => Kind::Corrupt,
        ErrorKind::Unsupported
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::IsSameFile
        | ErrorKind::ConditionNotMatch => Kind::Internal,
        _ => Kind::Unavailable,
    }
}

/// The error inside an I/O error, which is how OpenDAL's byte streams wrap their own.
fn opendal_error(error: std::io::Error) -> opendal::Error {
    match error.downcast::<opendal::Error>() {
        Ok(error) => error,
        Err(error) => opendal::Error::new(ErrorKind::Unexpected, "stream failed").set_source(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(in_parts: bool) -> Sizes {
        Sizes {
            in_parts,
            part_min: None,
            part_max: None,
            total_max: None,
            wanted: 4 << 30,
        }
    }

    #[test]
    fn parts_are_as_long_as_the_service_wants_and_no_longer_than_a_blob() {
        assert_eq!(sizes(&of(true)), (PART_BYTES, 4 << 30));
        let min = Sizes {
            part_min: Some(8 << 20),
            ..of(true)
        };
        assert_eq!(sizes(&min), (8 << 20, 4 << 30));
        let max = Sizes {
            part_max: Some(1 << 20),
            ..of(true)
        };
        assert_eq!(sizes(&max), (1 << 20, 4 << 30));
        let wanted = Sizes {
            wanted: 1 << 20,
            ..of(true)
        };
        assert_eq!(sizes(&wanted), (1 << 20, 1 << 20));
    }

    #[test]
    fn a_service_that_takes_one_piece_gets_blobs_of_one_part() {
        assert_eq!(sizes(&of(false)), (PART_BYTES, PART_BYTES as u64));
        let short = Sizes {
            total_max: Some(4 << 20),
            ..of(false)
        };
        assert_eq!(sizes(&short), (4 << 20, 4 << 20));
    }

    #[test]
    fn an_endpoint_is_an_address_that_the_service_can_be_asked_at() {
        for (service, endpoint) in [
            ("webdav", "http://127.0.0.1:1"),
            ("webdav", "https://user:pass@host/path"),
            ("azblob", "https://account.blob.core.windows.net"),
            ("s3", "https://[::1]:9000"),
            ("s3", "s3.example.org"),
            ("s3", "127.0.0.1:9000/path"),
            ("cos", "cos.ap-guangzhou.myqcloud.com"),
            ("webhdfs", "localhost:9870"),
            ("ftp", "ftp://host:21"),
            ("sftp", "user@host"),
        ] {
            assert!(is_address(service, endpoint), "{service} {endpoint}");
        }
        for (service, endpoint) in [
            ("webdav", "htp://127.0.0.1:1"),
            ("s3", "htp://127.0.0.1:1"),
            ("s3", "ftp://127.0.0.1"),
            ("s3", "HTTP://host"),
            ("webdav", "127.0.0.1:1"),
            ("azblob", "account.blob.core.windows.net"),
            ("gcs", "host"),
            ("s3", "httpd.example.org"),
            ("s3", "http:/host"),
            ("s3", "https://"),
            ("s3", ""),
            ("s3", "http://host:99999"),
            ("s3", "http://host:"),
            ("webdav", "http://host:port"),
        ] {
            assert!(!is_address(service, endpoint), "{service} {endpoint}");
        }
    }

    #[test]
    fn a_missing_bucket_says_nothing_about_a_blob() {
        let missing = |text: &str| opendal::Error::new(ErrorKind::NotFound, text.to_owned());
        let kind = |text: &str, operation| kind_of(&missing(text), operation);
        for operation in ["open blob", "read blob", "measure blob", "delete blob"] {
            assert_eq!(kind("NoSuchKey", operation), Kind::NotFound);
            for text in ["NoSuchBucket: x", "ContainerNotFound"] {
                assert_eq!(kind(text, operation), Kind::Unavailable);
            }
        }
        for operation in ["write blob", "finish blob", "list blobs"] {
            assert_eq!(kind("NoSuchKey", operation), Kind::Unavailable);
        }
    }
}
