//! Merges: the parts of completed uploads become known, and stored once with equal bytes that came in one piece.

use std::num::NonZeroU64;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::content::{ContentStore, MERGE, MergeOrder, Merged, Work};
use crate::model::ids::ContentId;

/// Section `[merge]`: joined parts are read again and stored once with equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether that is done.
    pub enabled: bool,
    /// Seconds after the end of an upload before it is done.
    pub delay_seconds: u64,
    /// Bytes that a node reads per second at most.
    pub bytes_per_second: NonZeroU64,
    /// Longer ones are left as they are.
    pub max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            delay_seconds: 60,
            bytes_per_second: const { NonZeroU64::new(32 << 20).expect("not zero") },
            // What can come in one piece.
            max_bytes: 5 << 30,
        }
    }
}

/// Runs the jobs that merge.
pub struct Merge {
    /// The bytes.
    pub content: Arc<ContentStore>,
    /// How fast they are read.
    pub config: Config,
}

#[derive(Debug, Serialize)]
struct Report {
    outcome: Merged,
}

impl JobHandler for Merge {
    fn kind(&self) -> &'static str {
        MERGE
    }

    // One at a time keeps to the rate.
    fn at_once(&self) -> usize {
        1
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let MergeOrder { content } = run.payload()?;
            let rate = self.config.bytes_per_second.get();
            let work = Work::new(Some(rate), Some(run.lease()));
            let merge = self.content.merge(ContentId(content), &work);
            let outcome = run.recording(|| work.progress(), merge).await?;
            Ok(Outcome::report(&Report { outcome })?)
        })
    }
}
