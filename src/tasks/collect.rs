//! The collector at work: what no reference is left to, and what no row names.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Handler;
use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::cluster::Node;
use crate::content::{CollectReport, ContentStore, FsckOrder, FsckReport, SweepReport};
use crate::model::fault::{Fault, Kind};

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
    pub async fn pass(&self) -> Result<GcReport, Fault> {
        let mut collect = self.collect().await?;
        let own = self.collect_own().await?;
        collect.blobs += own.blobs;
        collect.failed += own.failed;
        let mut sweep = self.sweep().await?;
        let own = self.sweep_own().await?;
        sweep.listed += own.listed;
        sweep.orphans += own.orphans;
        sweep.foreign += own.foreign;
        Ok(GcReport { collect, sweep })
    }

    /// Compares rows and backends, and repairs what can be when that is asked for. Collecting goes on meanwhile.
    pub async fn fsck(&self, order: &FsckOrder) -> Result<FsckReport, Fault> {
        let _turn = turn(&self.comparing).await?;
        self.node.beat_now().await?;
        self.content.fsck(order).await
    }

    async fn collect_own(&self) -> Result<CollectReport, Fault> {
        let _turn = self.content.turn().await?;
        self.content.collect_own().await
    }

    async fn sweep_own(&self) -> Result<SweepReport, Fault> {
        let _turn = turn(&self.sweeping).await?;
        self.node.beat_now().await?;
        self.content.sweep_own().await
    }

    async fn collect(&self) -> Result<CollectReport, Fault> {
        let _turn = self.content.turn().await?;
        // What ended since the last beat need not be spared any more.
        self.node.beat_now().await?;
        self.content.collect().await
    }

    async fn sweep(&self) -> Result<SweepReport, Fault> {
        let _turn = turn(&self.sweeping).await?;
        self.node.beat_now().await?;
        self.content.sweep().await
    }
}

async fn turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>, Fault> {
    turns
        .acquire()
        .await
        .map_err(|error| Fault::new(Kind::Internal, "collect").source(error))
}

/// Collects contents and the bytes of condemned blobs.
pub struct Collect(pub Arc<Collector>);

impl JobHandler for Collect {
    fn kind(&self) -> &'static str {
        "collect"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let report = self.0.collect().await?;
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
        Box::pin(async { self.0.collect_own().await.map(|_| ()) })
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
            let report = self.0.sweep_own().await?;
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

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let report = self.0.sweep().await?;
            if report.orphans > 0 {
                tracing::info!(?report, "swept");
            }
            Ok(Outcome::report(&report)?)
        })
    }
}
