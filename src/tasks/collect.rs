//! The collector at work: what no reference is left to, and what no row names.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Handler;
use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::cluster::Node;
use crate::content::{CollectReport, ContentStore, FsckOrder, FsckReport, SweepReport};
use crate::model::fault::{Fault, Kind};
use crate::model::job;
use crate::model::progress::{Progress, Tell, untold};

/// Collects, sweeps and compares, each one at a time whoever asks, and none waiting for another: a sweep and a comparison
/// may take days, and what is due goes meanwhile.
pub struct Collector {
    content: Arc<ContentStore>,
    node: Arc<Node>,
    sweeping: Semaphore,
    comparing: Semaphore,
}

/// What a whole pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Of contents that no reference is left to.
    pub collect: CollectReport,
    /// Of blobs that no row names.
    pub sweep: SweepReport,
}

impl Collector {
    /// A collector for what `content` holds.
    pub fn new(content: Arc<ContentStore>, node: Arc<Node>) -> Self {
        Self {
            content,
            node,
            sweeping: Semaphore::new(1),
            comparing: Semaphore::new(1),
        }
    }

    /// Deletes what is due: contents without a reference, their bytes, and blobs that no row names.
    pub async fn pass(&self, tell: Tell<'_>) -> Result<GcReport, Fault> {
        let mut collect = self.collect(tell).await?;
        let own = self.collect_own(tell).await?;
        collect.blobs += own.blobs;
        collect.old_copies += own.old_copies;
        collect.failed += own.failed;
        let mut sweep = self.sweep(tell).await?;
        let own = self.sweep_own(tell).await?;
        sweep.listed += own.listed;
        sweep.orphans += own.orphans;
        sweep.foreign += own.foreign;
        sweep.refused += own.refused;
        Ok(GcReport { collect, sweep })
    }

    /// Compares rows and backends, and repairs what can be when that is asked for. Collecting goes on meanwhile.
    pub async fn fsck(&self, order: &FsckOrder, tell: Tell<'_>) -> Result<FsckReport, Fault> {
        tell(Progress::new("waiting for its turn", 0, None));
        let _turn = turn(&self.comparing).await?;
        self.node.beat_now().await?;
        self.content.fsck(order, tell).await
    }

    async fn collect_own(&self, tell: Tell<'_>) -> Result<CollectReport, Fault> {
        let _turn = self.content.turn().await?;
        self.content.collect_own(tell).await
    }

    async fn sweep_own(&self, tell: Tell<'_>) -> Result<SweepReport, Fault> {
        let _turn = turn(&self.sweeping).await?;
        self.node.beat_now().await?;
        self.content.sweep_own(tell).await
    }

    async fn collect(&self, tell: Tell<'_>) -> Result<CollectReport, Fault> {
        tell(Progress::new("waiting for its turn", 0, None));
        let _turn = self.content.turn().await?;
        // What ended since the last beat need not be spared any more.
        self.node.beat_now().await?;
        self.content.collect(tell).await
    }

    async fn sweep(&self, tell: Tell<'_>) -> Result<SweepReport, Fault> {
        tell(Progress::new("waiting for its turn", 0, None));
        let _turn = turn(&self.sweeping).await?;
        self.node.beat_now().await?;
        self.content.sweep(tell).await
    }
}

async fn turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>, Fault> {
    turns
        .acquire()
        .await
        .map_err(|error| Fault::new(Kind::Internal, "collect").source(error))
}

/// What a run was told last.
#[derive(Default)]
struct Last(Mutex<job::Progress>);

impl Last {
    fn tell(&self, now: Progress) {
        let Progress { done, total, .. } = now;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = job::Progress { done, total };
    }

    fn progress(&self) -> job::Progress {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects contents and the bytes of condemned blobs.
pub struct Collect(pub Arc<Collector>);

impl JobHandler for Collect {
    fn kind(&self) -> &'static str {
        "collect"
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let last = Last::default();
            let tell = |now| last.tell(now);
            let report = run.recording(|| last.progress(), self.0.collect(&tell));
            let report = report.await?;
            if report != CollectReport::default() {
                tracing::debug!(?report, "collected");
            }
            Ok(Outcome::report(&report)?)
        })
    }
}

/// Deletes condemned blobs on this node's own disk.
pub struct CollectOwn(pub Arc<Collector>);

impl Handler for CollectOwn {
    fn name(&self) -> &'static str {
        "collect own"
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { self.0.collect_own(&untold).await.map(|_| ()) })
    }
}

/// Sweeps this node's own disk.
pub struct SweepOwn(pub Arc<Collector>);

impl Handler for SweepOwn {
    fn name(&self) -> &'static str {
        "sweep own"
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let report = self.0.sweep_own(&untold).await?;
            if report.orphans > 0 {
                tracing::info!(?report, "swept own disk");
            }
            Ok(())
        })
    }
}

/// Sweeps blobs that no row names.
pub struct Sweep(pub Arc<Collector>);

impl JobHandler for Sweep {
    fn kind(&self) -> &'static str {
        "sweep"
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let last = Last::default();
            let tell = |now| last.tell(now);
            let report = run.recording(|| last.progress(), self.0.sweep(&tell));
            let report = report.await?;
            if report.orphans > 0 {
                tracing::info!(?report, "swept");
            }
            Ok(Outcome::report(&report)?)
        })
    }
}
