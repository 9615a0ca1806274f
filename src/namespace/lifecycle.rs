//! Lifecycle rules at work on one bucket: page by page, each deletion a transaction of its own.
//!
//! What is due is judged by rows that were read before; a deletion then names the version that was judged, so
//! that one that was replaced or locked meanwhile stays, and asks under the bucket's lock whether the rules are
//! still the same. Nothing is remembered: a pass that was cut short is begun again, and finds what is left.

use std::sync::Arc;

use futures::StreamExt;
use serde::Serialize;

use super::listing::prefix_end;
use super::{Condition, DeleteRequest, Namespace, Reason, Recheck, UploadId};
use crate::meta::lifecycle::{self as rows, Candidate};
use crate::meta::{buckets, uploads};
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::ids::BucketId;
use crate::model::lifecycle::{Calendar, Lifecycle, Subject};
use crate::model::notification::Origin;
use crate::model::object::{VersionId, WriteConditions};

/// Rows judged together.
const PAGE: usize = 500;
/// Deletions at a time; they share commits.
const PARALLEL: usize = 32;
/// Buckets read together.
const BUCKETS_PAGE: usize = 100;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ExpireReport {
    /// Current versions that expired.
    pub current: u64,
    /// Delete markers that went because nothing was left behind them.
    pub markers: u64,
    /// Noncurrent versions that went.
    pub noncurrent: u64,
    /// Uploads that were aborted.
    pub uploads: u64,
    /// What was due and stays, because it is locked or changed meanwhile.
    pub kept: u64,
}

impl ExpireReport {
    /// Adds what another pass did.
    pub fn add(&mut self, other: Self) {
        self.current += other.current;
        self.markers += other.markers;
        self.noncurrent += other.noncurrent;
        self.uploads += other.uploads;
        self.kept += other.kept;
    }
}

/// How one deletion came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Kept,
}

fn subject(candidate: &Candidate) -> Subject<'_> {
    Subject {
        key: candidate.key.as_str(),
        size: candidate.size,
        tags: &candidate.tags.0,
        modified: candidate.modified,
    }
}

/// The name right after `key`: keys hold no NUL.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// The bucket under its rules, during one pass.
struct Pass<'n> {
    namespace: &'n Namespace,
    bucket: Arc<Bucket>,
    calendar: Calendar,
    now: Millis,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl Namespace {
    /// The buckets whose rules do something, with ids above `after`: some of them, and where to go on, until
    /// that is `None`.
    pub async fn buckets_with_lifecycle(
        &self,
        after: Option<BucketId>,
    ) -> Result<(Vec<Arc<Bucket>>, Option<BucketId>), Condition> {
        let after = after.unwrap_or(BucketId(0));
        let page = self
            .meta
            .scan("list buckets with settings", move |session| {
                Box::pin(buckets::with_settings(session, after, BUCKETS_PAGE))
            })
            .await
            .map_err(|fault: Fault| Condition::Fault(fault))?;
        let next = page
            .last()
            .filter(|_| page.len() == BUCKETS_PAGE)
            .map(|last| last.id);
        let acting = page.into_iter().filter(|bucket| {
            let lifecycle = bucket.settings.lifecycle.as_ref();
            lifecycle.is_some_and(Lifecycle::acts)
        });
        Ok((acting.map(Arc::new).collect(), next))
    }

    /// Does once what the rules of `bucket` say is due now.
    pub async fn expire(
        &self,
        bucket: &Arc<Bucket>,
        calendar: Calendar,
    ) -> Result<ExpireReport, Condition> {
        let mut report = ExpireReport::default();
        let Some(lifecycle) = &bucket.settings.lifecycle else {
            return Ok(report);
        };
        let start = lifecycle.common_prefix().as_bytes().to_vec();
        let pass = Pass {
            namespace: self,
            bucket: Arc::clone(bucket),
            calendar,
            now: self.clock.now(),
            end: prefix_end(&start),
            start,
        };
        match pass.run(lifecycle, &mut report).await {
            // The rules were changed: what the new ones say is for the next pass.
            Ok(()) | Err(Condition::Denied) => Ok(report),
            Err(condition) => Err(condition),
        }
    }
}

/// Whether the rules are those of `before`.
fn same_rules(before: &Bucket, now: &Bucket) -> bool {
    before.settings.lifecycle == now.settings.lifecycle
}

impl Pass<'_> {
    async fn run(&self, lifecycle: &Lifecycle, report: &mut ExpireReport) -> Result<(), Condition> {
        if lifecycle.acts_on_noncurrent() {
            self.noncurrent(lifecycle, report).await?;
        }
        // After the noncurrent ones, so that markers that nothing is left behind of go in the same pass.
        self.current(lifecycle, report).await?;
        self.uploads(lifecycle, report).await
    }

    async fn noncurrent(
        &self,
        lifecycle: &Lifecycle,
        report: &mut ExpireReport,
    ) -> Result<(), Condition> {
        let mut after = (self.start.clone(), i64::MAX);
        // Of the version before, in the order of the scan: whose it is, when it was written, and how many of
        // the key's noncurrent ones were seen.
        let mut newer: Option<(Candidate, u32)> = None;
        loop {
            let (id, end, from) = (self.bucket.id, self.end.clone(), after.clone());
            let page = self
                .namespace
                .meta
                .scan("list replaced versions", move |session| {
                    Box::pin(async move {
                        let after = (from.0.as_slice(), from.1);
                        rows::noncurrent(session, id, after, end.as_deref(), PAGE).await
                    })
                })
                .await
                .map_err(|fault: Fault| Condition::Fault(fault))?;
            let is_last = page.len() < PAGE;
            let mut due = Vec::new();
            for replaced in page {
                let version = replaced.version;
                let (since, seen) = match &newer {
                    Some((before, seen)) if before.key == version.key => (before.modified, *seen),
                    _ => (replaced.current_modified, 0),
                };
                let expiry =
                    lifecycle.noncurrent_expiry(&subject(&version), since, seen, self.calendar);
                if expiry.is_some_and(|expiry| expiry.at <= self.now) {
                    due.push((version.clone(), Some(version.id)));
                }
                after = (version.key.as_bytes().to_vec(), replaced.ord);
                newer = Some((version, seen + 1));
            }
            let (done, kept) = self.delete(due).await?;
            report.noncurrent += done;
            report.kept += kept;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn current(
        &self,
        lifecycle: &Lifecycle,
        report: &mut ExpireReport,
    ) -> Result<(), Condition> {
        let mut start = self.start.clone();
        loop {
            let (id, end, from) = (self.bucket.id, self.end.clone(), start.clone());
            let page = self
                .namespace
                .meta
                .scan("list current versions", move |session| {
                    Box::pin(async move {
                        rows::current(session, id, &from, end.as_deref(), PAGE).await
                    })
                })
                .await
                .map_err(|fault: Fault| Condition::Fault(fault))?;
            let last = match page.last() {
                Some((last, _)) if page.len() == PAGE => Some(successor(last.key.as_bytes())),
                _ => None,
            };
            let (mut versions, mut markers) = (Vec::new(), Vec::new());
            for (candidate, has_older) in page {
                let expiry = match candidate.is_marker {
                    false => lifecycle.expiry(&subject(&candidate), self.calendar),
                    true if has_older => None,
                    true => lifecycle.marker_expiry(
                        candidate.key.as_str(),
                        candidate.modified,
                        self.calendar,
                    ),
                };
                if expiry.is_none_or(|expiry| expiry.at > self.now) {
                    continue;
                }
                match candidate.is_marker {
                    true => {
                        let id = candidate.id;
                        markers.push((candidate, Some(id)));
                    }
                    false => versions.push((candidate, None)),
                }
            }
            let (done, kept) = self.delete(versions).await?;
            report.current += done;
            report.kept += kept;
            let (done, kept) = self.delete(markers).await?;
            report.markers += done;
            report.kept += kept;
            match last {
                Some(next) => start = next,
                None => return Ok(()),
            }
        }
    }

    async fn uploads(
        &self,
        lifecycle: &Lifecycle,
        report: &mut ExpireReport,
    ) -> Result<(), Condition> {
        let mut after = (self.start.clone(), 0);
        loop {
            let fresh = self.namespace.bucket(&self.bucket.name).await?;
            if fresh.id != self.bucket.id || !same_rules(&self.bucket, &fresh) {
                return Err(Condition::Denied);
            }
            let (id, end, from) = (self.bucket.id, self.end.clone(), after.clone());
            let page = self
                .namespace
                .meta
                .scan("list open uploads", move |session| {
                    Box::pin(async move {
                        let after = (from.0.as_slice(), from.1);
                        uploads::scan(session, id, after, end.as_deref(), PAGE).await
                    })
                })
                .await
                .map_err(|fault: Fault| Condition::Fault(fault))?;
            let is_last = page.len() < PAGE;
            for upload in page {
                after = (upload.key.as_bytes().to_vec(), upload.uid.0);
                let due = lifecycle.abort(upload.key.as_str(), upload.initiated, self.calendar);
                if due.is_none_or(|due| due.at > self.now) {
                    continue;
                }
                let id = UploadId(upload.uid);
                match self.namespace.abort(&self.bucket, &upload.key, id).await {
                    Ok(()) => report.uploads += 1,
                    // Completed or aborted meanwhile.
                    Err(Condition::NoSuchUpload) => report.kept += 1,
                    Err(condition) => return Err(condition),
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Deletes what was judged: a version by its id, or a key's current version as a client would. Answers how
    /// many went and how many stay.
    async fn delete(
        &self,
        due: Vec<(Candidate, Option<VersionId>)>,
    ) -> Result<(u64, u64), Condition> {
        let before = Arc::clone(&self.bucket);
        let recheck: Recheck = Arc::new(move |now: &Bucket| same_rules(&before, now));
        let recheck = &recheck;
        let mut outcomes = futures::stream::iter(due)
            .map(|(candidate, version)| async move {
                let request = DeleteRequest {
                    bucket: Arc::clone(&self.bucket),
                    key: candidate.key,
                    version,
                    conditions: WriteConditions::default(),
                    only: Some(candidate.uid),
                    reason: Reason::Expired,
                    origin: Origin::default(),
                    bypass_governance: false,
                    recheck: Some(Arc::clone(recheck)),
                };
                match self.namespace.delete(request).await {
                    Ok(_) => Ok(Outcome::Done),
                    Err(Condition::Locked | Condition::PreconditionFailed) => Ok(Outcome::Kept),
                    Err(condition) => Err(condition),
                }
            })
            .buffer_unordered(PARALLEL);
        let (mut done, mut kept) = (0, 0);
        while let Some(outcome) = outcomes.next().await {
            match outcome? {
                Outcome::Done => done += 1,
                Outcome::Kept => kept += 1,
            }
        }
        Ok((done, kept))
    }
}
