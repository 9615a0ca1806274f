//! Blobs at every service that OpenDAL speaks to.
//!
//! Requests are conservative: plain puts of known length, parts of one size, plain ranged reads, no
//! conditions, no metadata; an ETag is never looked at, and lengths are counted here. What fails for a passing
//! reason is repeated with jitter by OpenDAL's layers. A turn at the service, and a part's memory, is held
//! only while the service works on it: a client that does not drain or feed its stream holds neither turn nor
//! thread. (OpenDAL's own concurrency layer holds its turn as long as the stream lives, and waits without
//! end.)
//!
//! OpenDAL keeps one part back until it has the next, so that a stream longer than a part has one part
//! resident and at times a second one filling. Both come out of one [`PartBudget`].

mod options;
mod read;
mod write;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opendal::layers::{RetryEvent, RetryInterceptor, RetryLayer, TimeoutLayer};
use opendal::{ErrorKind, Operator};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::config::BackendConfig;
use super::{BlobName, Watch};
use crate::model::fault::{Fault, Kind};

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
    blob_max_bytes: Option<u64>,
    parts: PartBudget,
    turns: Semaphore,
    patience: Duration,
    watch: Watch,
    cleanups: TaskTracker,
}

impl Store {
    pub(super) async fn open(
        config: &BackendConfig,
        parts: PartBudget,
        watch: Watch,
        cleanups: TaskTracker,
    ) -> Result<Self, Fault> {
        if let Some(known) = options::known(&config.service)
            && let Some(unknown) = config
                .options
                .keys()
                .find(|key| !known.contains(&key.as_str()))
        {
            return Err(watch.config_fault(format_args!("unknown option `{unknown}`")));
        }
        if config.timeout_seconds == 0 || config.concurrency == 0 {
            return Err(watch.config_fault("`timeout_seconds` and `concurrency` begin at 1"));
        }
        let patience = Duration::from_secs(config.timeout_seconds);
        let operator = Operator::via_iter(&config.service, config.options.clone())
            .map_err(|error| watch.config_fault(&config.service).source(error))?
            .layer(
                TimeoutLayer::new()
                    .with_timeout(patience)
                    .with_io_timeout(patience),
            )
            .layer(retry_layer(config.retries, &watch));
        let can = operator.info().capability();
        if !(can.read && can.write && can.stat && can.delete) {
            return Err(watch.config_fault("the service cannot read, write, measure and delete"));
        }
        let part_bytes = PART_BYTES.max(can.write_multi_min_size.unwrap_or(0));
        // The memory service takes a blob in several pieces although it does not say so.
        let streams = can.write_can_multi || config.service == "memory";
        let one_piece = (!streams).then_some(part_bytes as u64);
        let total = can.write_total_max_size.map(|size| size as u64);
        let store = Self {
            operator,
            part_bytes,
            blob_max_bytes: one_piece.into_iter().chain(total).min(),
            parts,
            turns: Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS)),
            patience,
            watch,
            cleanups,
        };
        let answers = store.probe().await?;
        tracing::info!(
            backend = &*store.watch.backend,
            service = %config.service,
            answers,
            lists = can.list,
            part_bytes,
            blob_max_bytes = store.blob_max_bytes,
            "backend open"
        );
        Ok(store)
    }

    /// Writes, measures, reads and deletes a blob. `false` when the service does not answer at present; a
    /// fault when its answer shows that it is not set up as it must be.
    async fn probe(&self) -> Result<bool, Fault> {
        // Born at time 0: should it stay behind, the sweep takes it.
        let path = BlobName::new(0).path();
        let content = b"probe";
        let tried = async {
            self.operator.write(&path, content.as_slice()).await?;
            let size = self.operator.stat(&path).await?.content_length();
            let tail = self.operator.read_with(&path).range(2..5).await?;
            self.operator.delete(&path).await?;
            Ok::<_, opendal::Error>(size == content.len() as u64 && tail.to_bytes() == content[2..])
        };
        // Bounded as a whole: repeated requests to a service that is down must not hold up the start.
        let Ok(answer) = timeout(self.patience, tried).await else {
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
                    tracing::warn!(backend = &*self.watch.backend, %error, "backend does not answer");
                    Ok(false)
                }
                _ => Err(self
                    .watch
                    .config_fault("first request refused")
                    .source(error)),
            },
        }
    }

    pub(super) fn blob_max_bytes(&self) -> Option<u64> {
        self.blob_max_bytes
    }

    pub(super) fn create(self: &Arc<Self>, name: BlobName) -> Writer {
        Writer::new(self.clone(), name)
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        name: BlobName,
        range: Range<u64>,
    ) -> Result<Reader, Fault> {
        Reader::open(self.clone(), name, range).await
    }

    pub(super) async fn delete(&self, name: BlobName) -> Result<(), Fault> {
        let path = name.path();
        let result = self
            .turn("delete blob", &name, self.operator.delete(&path))
            .await;
        match result {
            Err(fault) if fault.kind() == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    pub(super) async fn size(&self, name: BlobName) -> Result<u64, Fault> {
        let path = name.path();
        self.turn("measure blob", &name, self.operator.stat(&path))
            .await
            .map(|found| found.content_length())
    }

    /// All directories, or one.
    pub(super) fn list(self: &Arc<Self>, directory: Option<usize>) -> List {
        List::new(self.clone(), directory)
    }

    /// Waits for a turn at the service, then for `operation`.
    async fn turn<T>(
        &self,
        operation: &'static str,
        name: &BlobName,
        act: impl Future<Output = opendal::Result<T>>,
    ) -> Result<T, Fault> {
        let busy = || {
            self.watch
                .fault(Kind::Busy, operation, name)
                .context("no turn came free in time")
        };
        let turn = timeout(self.patience, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(busy());
        };
        let started = Instant::now();
        let result = act.await.map_err(|error| {
            let kind = kind_of(&error, operation);
            self.watch.fault(kind, operation, name).source(error)
        });
        self.watch.record(operation, started, &result);
        result
    }
}

fn retry_layer(retries: usize, watch: &Watch) -> RetryLayer<impl RetryInterceptor + use<>> {
    let backend = watch.backend.clone();
    RetryLayer::new()
        .with_jitter()
        .with_min_delay(RETRY_PAUSE.start)
        .with_max_delay(RETRY_PAUSE.end)
        .with_max_times(retries)
        .with_notify(move |event: RetryEvent<'_>| {
            tracing::debug!(
                backend = &*backend,
                operation = ?event.op,
                attempt = event.attempt,
                error = %event.err,
                "request to backend repeated"
            );
        })
}

/// What an error says. Whether OpenDAL calls it temporary is of no use: the retry layer has overwritten it.
fn kind_of(error: &opendal::Error, operation: &'static str) -> Kind {
    match error.kind() {
        // The bucket's absence says nothing about the blob; nor does an answer to a write.
        ErrorKind::NotFound => match operation {
            "open blob" | "read blob" | "measure blob" | "delete blob"
                if !error.to_string().contains("NoSuchBucket") =>
            {
                Kind::NotFound
            }
            _ => Kind::Unavailable,
        },
        ErrorKind::RangeNotSatisfied => Kind::Corrupt,
        ErrorKind::ConfigInvalid => Kind::Config,
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
