//! Moves: a whole backend, or one bucket, brought elsewhere while it is used; and the copies that mirrors miss.
//!
//! ```text
//!   start      in one transaction: new writes go to the target, the row of the move, its job
//!   copying    passes over what lies at the source, until one that began when no write planned before
//!              the start was open finds nothing
//!   emptying   of a backend: until the collector has deleted the old copies; what else lies there is counted
//!   done
//! ```
//!
//! Nothing but rows says how far a move is: a run that is cut anywhere is gone on with by the next one, on any node.
//! Every transaction of a run commits only while the move is open, and its state changes only from the one that the run
//! has read: a move that was ended, because another one brings back what it has moved, changes nothing any more.
//! What fails is tried again in the next pass, for as long as the move is not ended; only what is found to be
//! damaged wherever it lies is left, and reported, and so is what the target takes in no form: a blob under a
//! customer's key that is longer than a blob may be there.

mod order;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::content::{ContentStore, Copied, Cut, MendReport, Route, Work};
use crate::meta::jobs::Lease;
use crate::meta::moves::{self, MoveRow, MoveState, Moved, Progress, Turn};
use crate::meta::{MetaStore, Session, copies, nodes, rehoming};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, BucketId};
use crate::model::job;
use crate::namespace::{Namespace, RehomeCursor, Rehoming};

pub use order::{Mirrors, MoveError, MoveOrder, MoveSummary, Moves};

/// The type of the jobs that move.
pub(super) const KIND: &str = "move";
/// How long after the start a write may still begin as if there was no move: a bucket's settings are remembered for
/// a second, and nodes' clocks differ a little.
const SETTLING: Millis = 10_000;
/// Pause before it is asked again whether writes planned before the start are over.
const WRITES_PAUSE: Duration = Duration::from_secs(1);
/// Pause before what failed is tried again.
const FAILED_PAUSE: Duration = Duration::from_secs(15);
/// Pause before it is asked again whether the old copies are deleted.
const EMPTYING_PAUSE: Duration = Duration::from_secs(10);
/// Pause before the last steps of a move away from a node's own disk are left to that node again.
const OWNER_PAUSE: Duration = Duration::from_secs(2);
/// How long an object may be there after its row has gone, before it counts as left.
const DELETION_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a move has another rate, or was ended, while a pass is under way.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
/// Blobs copied at a time.
const AT_A_TIME: usize = 4;
/// Blobs after which it is recorded how far the move is.
const RECORDED_EVERY: usize = 8;

/// What one job is about.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Payload {
    id: i64,
}

/// Runs the jobs of moves.
pub struct Mover {
    /// The rows.
    pub meta: MetaStore,
    /// The bytes.
    pub content: Arc<ContentStore>,
    /// What refers to them.
    pub namespace: Arc<Namespace>,
    /// The time.
    pub clock: Clock,
}

impl JobHandler for Mover {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn at_once(&self) -> usize {
        2
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let Payload { id } = run.payload()?;
            Ok(self.step(id, Some(run.lease())).await?)
        })
    }
}

/// What a pass over the source came to.
#[derive(Debug, Default)]
struct Pass {
    moved: u64,
    /// What may succeed the next time.
    failed: u64,
    /// What is damaged wherever it lies, or can never lie at the target.
    lost: u64,
    reason: Option<String>,
}

impl Mover {
    /// Goes on with a move as far as that can be done at once. Public for tests, which have no engine.
    pub async fn step(&self, id: i64, lease: Option<Lease>) -> Result<Outcome, Fault> {
        let Some(row) = self.row(id).await? else {
            return Ok(Outcome::done());
        };
        let work = Work::of_move(id, row.rate, lease);
        match (row.state, &row.what) {
            (MoveState::Done | MoveState::Ended, _) => Ok(Outcome::done()),
            (MoveState::Copying, _) => self.copy(&row, &work).await,
            (MoveState::Emptying, Moved::Backend) => self.empty(&row, &work).await,
            (MoveState::Emptying, Moved::Bucket { .. }) => self.end(&row, &work, None).await,
        }
    }

    async fn copy(&self, row: &MoveRow, work: &Work) -> Result<Outcome, Fault> {
        // Asked before the pass: what it then finds to be nothing stays nothing.
        let settled = self.is_settled(row).await?;
        if row.what == Moved::Backend && row.progress == Progress::default() {
            // While most of what lies there is named: later only what a crash has left may be.
            for backend in [row.source, row.target] {
                self.content.claim(backend).await;
            }
        }
        let pass = async {
            match &row.what {
                Moved::Backend => self.backend_pass(row, work).await,
                Moved::Bucket { id, .. } => self.bucket_pass(row, *id, work).await,
            }
        };
        let pass = tokio::select! {
            pass = pass => pass?,
            // What it has not done yet it may not do any more.
            () = self.watch(row.id, work) => return Ok(Outcome::done()),
        };
        let (id, hold) = (row.id, work.hold());
        let (failed, reason) = (pass.failed + pass.lost, Arc::new(pass.reason));
        let recorded = self
            .meta
            .transact("record pass", move |session| {
                let reason = Arc::clone(&reason);
                Box::pin(async move {
                    if !is_open(session, id).await? {
                        return Ok(false);
                    }
                    hold.on(session).await?;
                    moves::set_failed(session, id, failed, reason.as_deref()).await?;
                    Ok::<_, Fault>(true)
                })
            })
            .await?;
        if !recorded {
            return Ok(Outcome::done());
        }
        if pass.failed > 0 {
            return Ok(Outcome::More(FAILED_PAUSE));
        }
        if !settled {
            return Ok(Outcome::More(WRITES_PAUSE));
        }
        if pass.moved > 0 {
            return Ok(Outcome::More(Duration::ZERO));
        }
        match &row.what {
            Moved::Bucket { id, .. } => {
                let (bucket, target) = (*id, row.target);
                let elsewhere = self
                    .meta
                    .scan("look at bucket", move |session| {
                        Box::pin(rehoming::count_elsewhere(session, bucket, target))
                    })
                    .await?;
                if elsewhere > pass.lost {
                    // It went by the pass: a part that became a version, or a version that became the current one.
                    return Ok(Outcome::More(WRITES_PAUSE));
                }
                self.end(row, work, None).await
            }
            Moved::Backend => {
                let turn = Turn {
                    from: row.state,
                    to: MoveState::Emptying,
                };
                self.turn(row, work, turn, None).await?;
                Ok(Outcome::More(Duration::ZERO))
            }
        }
    }

    /// Keeps to the rate of a move, whatever that is at the time, until the move has ended.
    async fn watch(&self, id: i64, work: &Work) {
        loop {
            tokio::time::sleep(WATCHED_EVERY).await;
            match self.row(id).await {
                Ok(Some(row)) if row.state.is_open() => work.pace.set(row.rate),
                Ok(_) => return,
                // The pass meets it too.
                Err(fault) => tracing::debug!(%fault, id, "move not looked at"),
            }
        }
    }

    /// Takes a move to another state; `false` when it is in another one than that was decided in, and nothing is changed.
    async fn turn(
        &self,
        row: &MoveRow,
        work: &Work,
        turn: Turn,
        remains: Option<u64>,
    ) -> Result<bool, Fault> {
        let (id, lease, now) = (row.id, work.lease(), self.clock.now());
        self.meta
            .transact("turn move", move |session| {
                Box::pin(async move {
                    let turned = moves::set_state(session, id, turn, remains, now).await?;
                    if let Some(lease) = lease {
                        lease.hold(session).await?;
                    }
                    Ok::<_, Fault>(turned)
                })
            })
            .await
    }

    /// Whether no write is open that may have been planned before the move began.
    async fn is_settled(&self, row: &MoveRow) -> Result<bool, Fault> {
        let open = self
            .meta
            .read("find open", |session| Box::pin(nodes::oldest_open(session)))
            .await?;
        let oldest = open.map_or_else(|| self.clock.now(), |open| open.write);
        Ok(oldest > row.switched + SETTLING)
    }

    async fn backend_pass(&self, row: &MoveRow, work: &Work) -> Result<Pass, Fault> {
        let (mut pass, mut after) = (Pass::default(), BlobId(i64::MIN));
        let route = Route {
            from: Some(row.source),
            to: row.target,
        };
        loop {
            let blobs = self.content.blobs_at(row.source, after).await?;
            let Some(last) = blobs.last() else {
                return Ok(pass);
            };
            after = *last;
            for some in blobs.chunks(RECORDED_EVERY) {
                let mut copied = stream::iter(some.to_vec())
                    .map(|blob| self.bring(blob, route, work))
                    .buffer_unordered(AT_A_TIME);
                let mut done = Progress::default();
                while let Some(outcome) = copied.next().await {
                    match outcome {
                        Ok(Some(bytes)) => {
                            done.moved += 1;
                            done.bytes += bytes;
                        }
                        Ok(None) => {}
                        Err(fault) => pass.note(&fault),
                    }
                }
                drop(copied);
                pass.moved += done.moved;
                if !self.record(row, work, done).await? {
                    return Ok(pass);
                }
            }
        }
    }

    /// Brings one blob to the target, in shorter ones where that takes none as long; answers its bytes, unless there
    /// is nothing to do.
    async fn bring(&self, blob: BlobId, route: Route, work: &Work) -> Result<Option<u64>, Fault> {
        match self.content.copy_blob(blob, route, work).await? {
            Copied::Live(bytes) => Ok(Some(bytes)),
            Copied::Gone => Ok(None),
            Copied::TooLong => match self.content.split_blob(blob, work).await? {
                Cut::Done(bytes) => Ok(Some(bytes)),
                Cut::Gone => Ok(None),
                Cut::Never(reason) => Err(Fault::new(Kind::Config, "split blob")
                    .context(format_args!("blob {blob}"))
                    .context("it is longer than the target takes, and cannot be split")
                    .context(reason)),
            },
        }
    }

    async fn bucket_pass(
        &self,
        row: &MoveRow,
        bucket: BucketId,
        work: &Work,
    ) -> Result<Pass, Fault> {
        let (mut pass, mut run) = (Pass::default(), Rehoming::default());
        let mut next = Some(RehomeCursor::begin());
        while let Some(cursor) = next {
            let round = self.namespace.rehome_round(bucket, cursor, &mut run, work);
            let round = round.await?;
            next = round.next;
            pass.moved += round.moved;
            pass.failed += round.failed;
            pass.lost += round.lost;
            pass.reason = round.reason.or(pass.reason);
            let done = Progress {
                moved: round.moved,
                bytes: round.bytes,
            };
            if !self.record(row, work, done).await? {
                return Ok(pass);
            }
        }
        Ok(pass)
    }

    /// Records how far the move is; `false` when it is to end.
    async fn record(&self, row: &MoveRow, work: &Work, done: Progress) -> Result<bool, Fault> {
        let (id, lease, total) = (row.id, work.lease(), row.total);
        self.meta
            .transact("record move", move |session| {
                Box::pin(async move {
                    let Some(before) = moves::find(session, id).await? else {
                        return Ok(false);
                    };
                    if let Some(lease) = lease {
                        lease.hold(session).await?;
                        // It has come forward: its attempts are counted anew.
                        let moved = before.progress.moved + done.moved;
                        let progress = job::Progress {
                            done: moved,
                            total: Some(total.max(moved)),
                        };
                        lease.checkpoint(session, &(), progress).await?;
                    }
                    if done != Progress::default() {
                        moves::advance(session, id, done).await?;
                    }
                    Ok::<_, Fault>(before.state.is_open())
                })
            })
            .await
    }

    /// Waits until the old copies are deleted, then counts what is left: on a node's own disk, where that runs.
    async fn empty(&self, row: &MoveRow, work: &Work) -> Result<Outcome, Fault> {
        let source = row.source;
        let (wanted, unsettled) = self
            .meta
            .scan("look at source", move |session| {
                Box::pin(async move {
                    let wanted = copies::count_wanted_at(session, source).await?;
                    let unsettled = copies::any_unsettled_at(session, source).await?;
                    Ok::<_, Fault>((wanted, unsettled))
                })
            })
            .await?;
        if wanted > row.failed {
            // Something came after all, or waits for the collector since it was split.
            let turn = Turn {
                from: row.state,
                to: MoveState::Copying,
            };
            self.turn(row, work, turn, None).await?;
            return Ok(Outcome::More(EMPTYING_PAUSE));
        }
        if unsettled {
            return Ok(Outcome::More(EMPTYING_PAUSE));
        }
        if !self.content.reaches(source).await? {
            // What lies on a node's own disk only that node counts: the next to claim the job may be it.
            return Ok(Outcome::More(OWNER_PAUSE));
        }
        let mut swept = self.content.sweep_source(source).await?;
        if swept.foreign > 0 {
            // An old copy's row goes before its bytes do, and who deletes them may be between the two.
            tokio::time::sleep(DELETION_PAUSE).await;
            swept = self.content.sweep_source(source).await?;
        }
        if swept.ours > wanted {
            // Not named by any row, and too young to be taken for an orphan.
            return Ok(Outcome::More(EMPTYING_PAUSE));
        }
        let left = swept.ours + swept.foreign;
        if left == 0 {
            // Nothing is to be said any more of whose the blobs there are.
            self.content.give_up(source).await?;
        }
        self.end(row, work, Some(left)).await
    }

    async fn end(
        &self,
        row: &MoveRow,
        work: &Work,
        remains: Option<u64>,
    ) -> Result<Outcome, Fault> {
        let turn = Turn {
            from: row.state,
            to: MoveState::Done,
        };
        if self.turn(row, work, turn, remains).await? {
            tracing::info!(id = row.id, remains, failed = row.failed, "moved");
            return Ok(Outcome::done());
        }
        // Ended, or gone on with elsewhere: the next look at it tells.
        Ok(Outcome::More(Duration::ZERO))
    }

    async fn row(&self, id: i64) -> Result<Option<MoveRow>, Fault> {
        self.meta
            .read("find move", move |session| {
                Box::pin(moves::find(session, id))
            })
            .await
    }
}

/// Whether a move has not ended, which nobody ends for the rest of the transaction.
async fn is_open(session: &mut Session, id: i64) -> Result<bool, Fault> {
    let row = moves::find(session, id).await?;
    Ok(row.is_some_and(|row| row.state.is_open()))
}

impl Pass {
    fn note(&mut self, fault: &Fault) {
        tracing::warn!(%fault, "blob not moved");
        match fault.kind() {
            Kind::Corrupt | Kind::Config => self.lost += 1,
            _ => self.failed += 1,
        }
        self.reason = Some(fault.to_string());
    }
}

/// Writes the copies that mirrors miss. The rows of the missing copies, written in the transaction of the blob's own,
/// are the work to be done; that they are looked for, and not queued, keeps uploads from waiting for one row.
pub struct Mend(pub Arc<ContentStore>);

impl JobHandler for Mend {
    fn kind(&self) -> &'static str {
        "mend"
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let work = Work::new(None, Some(run.lease()));
            let report = self.0.mend(&work).await?;
            if report != MendReport::default() {
                tracing::info!(?report, "missing copies");
            }
            Ok(Outcome::report(&report)?)
        })
    }
}
