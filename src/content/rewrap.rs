//! Data keys wrapped anew after their wrapping key was rotated. No byte of a content is touched.

use serde::{Deserialize, Serialize};

use super::ContentStore;
use crate::keys::KeyError;
use crate::meta::contents;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, KeyVersionId, WrapKeyId};
use crate::model::progress::{Progress, Tell};

/// Contents whose keys are replaced in one transaction.
const ROUND: usize = 200;
/// Versions looked for in one go.
const VERSIONS: usize = 100;

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewrapReport {
    /// Contents whose data key an older version wrapped, and now the newest does.
    pub rewrapped: u64,
    /// Contents whose data key could not be unwrapped; the log names them.
    pub failed: u64,
}

impl ContentStore {
    /// Wraps anew what older versions of usable keys wrap, until nothing is left. May be called at any time,
    /// also twice at once, and dropped at any point: what is left is found by the next pass.
    pub async fn rewrap(&self, tell: Tell<'_>) -> Result<RewrapReport, Fault> {
        let mut report = RewrapReport::default();
        loop {
            let before = report.rewrapped;
            for (version, key) in self.keys.outdated(VERSIONS).await? {
                let failed = report.failed;
                self.rewrap_version(version, key, tell, &mut report).await?;
                if report.failed > failed {
                    tracing::warn!(%version, "some data keys cannot be unwrapped");
                }
            }
            // What fails would fail again.
            if report.rewrapped == before || report.failed > 0 {
                return Ok(report);
            }
        }
    }

    async fn rewrap_version(
        &self,
        old: KeyVersionId,
        key: WrapKeyId,
        tell: Tell<'_>,
        report: &mut RewrapReport,
    ) -> Result<(), Fault> {
        let mut after = ContentId(0);
        loop {
            let batch = self
                .meta
                .scan("find wrapped", move |session| {
                    Box::pin(contents::wrapped_by(session, old, after, ROUND))
                })
                .await?;
            let Some((last, _)) = batch.last() else {
                return Ok(());
            };
            after = *last;
            let mut wrapped = Vec::with_capacity(batch.len());
            for (content, old_bytes) in batch {
                match self.keys.unwrap(old, &old_bytes, content).await {
                    Ok(data) => {
                        let new = match self.keys.wrap(key, &data, content).await {
                            // Disabled meanwhile: its contents wait until it is enabled.
                            Err(KeyError::Disabled(_)) => return Ok(()),
                            new => new?,
                        };
                        // The newest version may be remembered a moment too long; the next pass sees it.
                        if new.version != old {
                            wrapped.push((content, new));
                        }
                    }
                    Err(KeyError::Disabled(_)) => return Ok(()),
                    Err(KeyError::Fault(fault)) if fault.kind() == Kind::Corrupt => {
                        tracing::error!(%fault, "rewrap");
                        report.failed += 1;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let count = wrapped.len() as u64;
            self.meta
                .transact("rewrap", move |session| {
                    let wrapped = wrapped.clone();
                    Box::pin(async move {
                        for (content, new) in &wrapped {
                            contents::rewrap(session, *content, old, new.version, &new.bytes)
                                .await?;
                        }
                        Ok::<_, Fault>(())
                    })
                })
                .await?;
            report.rewrapped += count;
            tell(Progress::new("wrapping data keys", report.rewrapped, None));
        }
    }
}
