//! Uploads that nobody will complete: aborted when they were begun too long ago, and forgotten when they ended as long
//! ago.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::multipart::all_parts;
use super::{Namespace, release};
use crate::meta::uploads::{self, State};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::Uid;

/// Uploads found, or forgotten, in one round.
const ROUND: usize = 500;

/// What became of old uploads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleReport {
    /// Open ones that were aborted.
    pub aborted: u64,
    /// Ended ones that were forgotten.
    pub forgotten: u64,
    /// Open ones that could not be aborted, and will be tried again.
    pub failed: u64,
}

impl Namespace {
    /// Aborts all uploads that were begun too long ago, and forgets those that ended as long ago. One that fails is
    /// counted, and keeps no other from its end. May be dropped at any point: each upload has a transaction of its own,
    /// which looks whether it is open still.
    pub async fn abort_stale(&self) -> Result<StaleReport, Fault> {
        let age = self.config.stale_upload_days as Millis * 86_400_000;
        let before = self.clock.now() - age;
        let mut report = StaleReport::default();
        let mut after = (Millis::MIN, Uid(i64::MIN));
        loop {
            let stale = self
                .meta
                .scan("find stale uploads", move |session| {
                    Box::pin(uploads::stale(session, before, after, ROUND))
                })
                .await?;
            let Some(last) = stale.last() else {
                break;
            };
            after = *last;
            for (_, upload) in stale {
                match self.abort_if_open(upload).await {
                    Ok(true) => report.aborted += 1,
                    Ok(false) => {}
                    // It is the database that does not answer, not something about this upload.
                    Err(fault) if fault.kind() == Kind::Unavailable => return Err(fault),
                    Err(fault) => {
                        tracing::warn!(%fault, upload = %upload.0, "stale upload not aborted");
                        report.failed += 1;
                    }
                }
            }
        }
        loop {
            let forgotten = self
                .meta
                .transact("forget uploads", move |session| {
                    Box::pin(uploads::forget_ended(session, before, ROUND))
                })
                .await?;
            report.forgotten += forgotten as u64;
            if forgotten < ROUND {
                return Ok(report);
            }
        }
    }

    /// Aborts an upload and releases its parts; `false` when it has ended already.
    async fn abort_if_open(&self, upload: Uid) -> Result<bool, Fault> {
        let (uids, now) = (Arc::clone(&self.uids), self.clock.now());
        self.meta
            .transact("abort stale upload", move |session| {
                let uids = Arc::clone(&uids);
                Box::pin(async move {
                    let row = uploads::find(session, upload).await?;
                    if row.is_none_or(|row| row.state != State::Open) {
                        return Ok(false);
                    }
                    for part in all_parts(session, upload).await? {
                        release(session, &uids, part.content, now).await?;
                    }
                    uploads::delete_parts(session, upload).await?;
                    uploads::end(session, upload, None, now).await?;
                    Ok(true)
                })
            })
            .await
    }
}
