//! Scrub: every copy of every blob is read again, slowly, and held against what was stored.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::content::{Act, ContentStore, Depth, Scrubbed, Scrutiny, Work};
use crate::meta::jobs::Lease;
use crate::model::fault::Fault;
use crate::model::finding::{Finding, Repair};
use crate::model::ids::BlobId;
use crate::model::job;
use crate::model::progress::{Progress, Tell};

/// The type of the job.
pub const SCRUB: &str = "scrub";

/// Blobs found in one go.
const ROUND: usize = 200;
/// Blobs after which it is recorded how far the pass is.
const RECORDED_EVERY: u64 = 32;
/// Time after which it is recorded all the same.
const RECORDED_AFTER: Duration = Duration::from_secs(10);

/// Section `[scrub]`: copies of blobs are read again and compared with what was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether that is done.
    pub enabled: bool,
    /// Seconds from the end of one pass to the begin of the next.
    pub interval_seconds: NonZeroU64,
    /// Bytes that are read per second at most.
    pub bytes_per_second: NonZeroU64,
    /// How closely copies are looked at.
    pub depth: Depth,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_seconds: const { NonZeroU64::new(7 * 86_400).expect("not zero") },
            bytes_per_second: const { NonZeroU64::new(8 << 20).expect("not zero") },
            depth: Depth::Disks,
        }
    }
}

/// What a pass came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Their copies.
    pub copies: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Copies of which nothing can be said, because their backend does not answer.
    pub unchecked: u64,
    /// Why the last of those.
    pub reason: Option<String>,
    /// Copies that are not as they should be.
    pub bad: u64,
    /// How many of them were written anew, or will be.
    pub repaired: u64,
    /// Copies that are not as they should be, after the pass, and that no good copy is left for.
    pub left: u64,
}

/// Where a pass goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    after: i64,
    report: ScrubReport,
}

/// Runs the passes.
pub struct Scrub {
    /// The bytes.
    pub content: Arc<ContentStore>,
    /// How they are read.
    pub config: Config,
}

impl JobHandler for Scrub {
    fn kind(&self) -> &'static str {
        SCRUB
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let state = run.state()?.unwrap_or_else(State::begin);
            let total = self.content.count_blobs().await?;
            let mut walk = Walk::new(self, state, Some(run.lease()));
            let mut recorded = Instant::now();
            while walk.step().await? {
                let done = walk.state.report.blobs;
                if done.is_multiple_of(RECORDED_EVERY) || recorded.elapsed() > RECORDED_AFTER {
                    let progress = job::Progress {
                        done,
                        total: Some(total.max(done)),
                    };
                    run.checkpoint(&walk.state, progress).await?;
                    recorded = Instant::now();
                }
            }
            Ok(Outcome::report(&walk.end().await?)?)
        })
    }
}

impl Scrub {
    /// A whole pass at once, where there is no engine.
    pub async fn pass(&self, tell: Tell<'_>) -> Result<ScrubReport, Fault> {
        let total = self.content.count_blobs().await?;
        let mut walk = Walk::new(self, State::begin(), None);
        while walk.step().await? {
            let done = walk.state.report.blobs;
            tell(Progress::new(
                "reading every copy",
                done,
                Some(total.max(done)),
            ));
        }
        walk.end().await
    }
}

impl State {
    fn begin() -> Self {
        Self {
            after: i64::MIN,
            report: ScrubReport::default(),
        }
    }
}

/// A pass under way.
struct Walk<'a> {
    content: &'a ContentStore,
    scrutiny: Scrutiny,
    work: Work,
    state: State,
    /// Blobs that come next, the first one last.
    next: Vec<BlobId>,
}

impl<'a> Walk<'a> {
    fn new(scrub: &'a Scrub, state: State, lease: Option<Lease>) -> Self {
        Self {
            content: &scrub.content,
            scrutiny: Scrutiny {
                backend: None,
                depth: scrub.config.depth,
                act: Act::Mend,
            },
            work: Work::new(Some(scrub.config.bytes_per_second.get()), lease),
            state,
            next: Vec::new(),
        }
    }

    /// Looks at one blob; `false` when there is none left.
    async fn step(&mut self) -> Result<bool, Fault> {
        if self.next.is_empty() {
            let after = BlobId(self.state.after);
            self.next = self.content.blobs_above(after, ROUND).await?;
            self.next.reverse();
        }
        let Some(blob) = self.next.pop() else {
            return Ok(false);
        };
        let scrubbed = self
            .content
            .scrub_blob(blob, &self.scrutiny, &self.work)
            .await?;
        scrubbed.findings.iter().for_each(tell);
        self.state.after = blob.0;
        self.state.report.add(scrubbed);
        Ok(true)
    }

    async fn end(mut self) -> Result<ScrubReport, Fault> {
        self.state.report.left = self.content.purge_findings(&self.work).await?;
        Ok(self.state.report)
    }
}

impl ScrubReport {
    fn add(&mut self, scrubbed: Scrubbed) {
        self.blobs += 1;
        self.copies += scrubbed.copies;
        self.bytes += scrubbed.bytes;
        self.unchecked += scrubbed.unchecked;
        self.reason = scrubbed.reason.or(self.reason.take());
        self.bad += scrubbed.findings.len() as u64;
        self.repaired += scrubbed
            .findings
            .iter()
            .filter(|finding| finding.repair != Repair::None)
            .count() as u64;
    }
}

/// Writes a finding to the log, with the versions that it is about.
fn tell(finding: &Finding) {
    let versions: Vec<String> = finding
        .versions
        .first
        .iter()
        .map(ToString::to_string)
        .collect();
    let problem = finding.problem.as_str();
    let (blob, backend) = (finding.blob.as_deref(), finding.backend.as_deref());
    let (count, detail) = (finding.versions.count, finding.detail.as_str());
    match finding.repair {
        Repair::Done | Repair::Begun => {
            tracing::warn!(
                blob,
                backend,
                problem,
                detail,
                count,
                ?versions,
                "bad copy replaced"
            );
        }
        Repair::None => {
            tracing::error!(
                blob,
                backend,
                problem,
                detail,
                count,
                ?versions,
                "bad copy, and no good one"
            );
        }
    }
}
