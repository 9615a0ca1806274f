//! What may be thrown away: contents without a reference, condemned blobs, and blobs that no row names.
//!
//! The collector alone decides. A content goes when its newest release is older than the grace, and by a margin
//! older than the oldest read open anywhere; the check for references is a second statement under the row's lock,
//! and the foreign keys are the second net. The blob is marked in the same transaction, its bytes go later.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use super::ContentStore;
use super::claim::{Owner, Seen};
use crate::blob::{BlobName, CopyName};
use crate::meta::{TRANSACTION_MAX, buckets, contents, copies, manifests, nodes, releases};
use crate::model::clock::{Millis, millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, ContentId, minted_at};
use crate::model::progress::{Progress, Tell, untold};

/// Releases looked at, releases of one content forgotten, and blobs deleted in one round.
const ROUND: usize = 500;

/// What one pass of the collector did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectReport {
    /// Contents looked at; one with very many releases counts more than once.
    pub looked_at: u64,
    /// Contents deleted.
    pub contents: u64,
    /// Blobs whose bytes were deleted.
    pub blobs: u64,
    /// Copies deleted where their blobs were moved away from.
    #[serde(default)]
    pub old_copies: u64,
    /// Contents, blobs and copies that failed and will be tried again.
    pub failed: u64,
}

/// What one sweep found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Blobs listed.
    pub listed: u64,
    /// Blobs that no row names and that were deleted.
    pub orphans: u64,
    /// Objects at the backends that are not blobs of ours, left alone.
    pub foreign: u64,
    /// Backends that were left alone, because the blobs there may be another install's; the log says why.
    #[serde(default)]
    pub refused: u64,
}

/// Which backends are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those that every node reaches.
    Common,
    /// Those on this node's own disk.
    Own,
}

/// What became of the sweep of one backend.
enum Swept {
    /// All of it was looked at. So many manifests lie there, which are none of the sweep's.
    All { manifests: u64 },
    /// Nothing was deleted, because it cannot be told yet whose the blobs are.
    NotYet(Seen),
    /// Nothing was deleted, because they may be another's.
    Not,
}

enum Verdict {
    Kept,
    Deleted,
}

impl ContentStore {
    /// Waits for the turn to collect. Who has it knows that nobody else in this process deletes bytes whose rows have
    /// gone; it is held for a pass or for a page of work, and never for something as long as a whole listing.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>, Fault> {
        self.collecting
            .acquire()
            .await
            .map_err(|error| Fault::new(Kind::Internal, "collect").source(error))
    }

    /// Deletes what no reference is left to. Stops when nothing is due; may be called at any time. What fails is
    /// counted and keeps nothing else from its turn.
    pub async fn collect(&self, tell: Tell<'_>) -> Result<CollectReport, Fault> {
        let mut report = CollectReport::default();
        let before = self.horizon(millis(self.config.grace())).await?.0;
        let open_read = self.horizon(0).await?.0;
        let judged = self.judge_due(before, tell, &mut report).await;
        let condemned = self
            .delete_condemned(Whose::Common, tell, &mut report)
            .await;
        let outdated = self
            .delete_outdated(Whose::Common, open_read, tell, &mut report)
            .await;
        judged.and(condemned).and(outdated)?;
        Ok(report)
    }

    /// Decides on every content with a release from before `before`, once for each page of its releases.
    async fn judge_due(
        &self,
        before: Millis,
        tell: Tell<'_>,
        report: &mut CollectReport,
    ) -> Result<(), Fault> {
        let mut after = (Millis::MIN, i64::MIN);
        let mut failed = BTreeSet::new();
        loop {
            let due = self
                .meta
                .scan("find released", move |session| {
                    Box::pin(releases::due(session, before, after, ROUND))
                })
                .await?;
            let Some(last) = due.last() else {
                return Ok(());
            };
            after = (last.at, last.id);
            let mut seen = BTreeSet::new();
            for content in due.iter().map(|release| release.content) {
                if failed.contains(&content) || !seen.insert(content) {
                    continue;
                }
                report.looked_at += 1;
                tell(Progress::new("looking at contents", report.looked_at, None));
                match self.judge(content, before).await {
                    Ok(Verdict::Deleted) => report.contents += 1,
                    Ok(Verdict::Kept) => {}
                    // It is the database that does not answer, not something about this content.
                    Err(fault) if fault.kind() == Kind::Unavailable => return Err(fault),
                    Err(fault) => {
                        tracing::warn!(%fault, %content, "content not collected");
                        report.failed += 1;
                        // With that many, trying one again for each page of its releases does no harm either.
                        if failed.len() < ROUND {
                            failed.insert(content);
                        }
                    }
                }
            }
        }
    }

    /// Deletes condemned blobs and old copies on this node's own disk, which no other node does.
    pub async fn collect_own(&self, tell: Tell<'_>) -> Result<CollectReport, Fault> {
        let mut report = CollectReport::default();
        if self.here.is_some() {
            let open_read = self.horizon(0).await?.0;
            let condemned = self.delete_condemned(Whose::Own, tell, &mut report).await;
            let outdated = self
                .delete_outdated(Whose::Own, open_read, tell, &mut report)
                .await;
            condemned.and(outdated)?;
        }
        Ok(report)
    }

    /// Times before which no open read and no open write can matter, at most `age` ago.
    ///
    /// What a reference was given up at is read before the transaction that does so, and a read may find the reference
    /// until that commits: it began later than the release says, and reads on. So an open read spares what was released
    /// up to [`TRANSACTION_MAX`] before it began, in which there is room for the moment between its lookup and its
    /// begin, and for clocks of nodes that differ a little. A node with nothing open delays nothing: a read that begins
    /// there after its beat can only find what is released in a transaction that ends after it too, and a grace longer
    /// than [`TRANSACTION_MAX`], as the default is, does not pass within one.
    ///
    /// A write needs no such margin: it begins before the id is minted which its blob's age is told from, and ends
    /// after its commit.
    pub(super) async fn horizon(&self, age: Millis) -> Result<(Millis, Millis), Fault> {
        let open = self
            .meta
            .read("find open", |session| Box::pin(nodes::oldest_open(session)))
            .await?;
        let limit = self.clock.now() - age;
        let Some(open) = open else {
            return Ok((limit, limit));
        };
        let spared = open.reading.map(|begun| begun - millis(TRANSACTION_MAX));
        let read = open.read.min(spared.unwrap_or(open.read));
        Ok((limit.min(read), limit.min(open.write)))
    }

    /// Decides on one content in one transaction, and forgets a page of its releases that say nothing more then.
    async fn judge(&self, content: ContentId, before: Millis) -> Result<Verdict, Fault> {
        let (uids, now) = (self.uids.clone(), self.clock.now());
        self.meta
            .transact("collect", move |session| {
                let uids = uids.clone();
                Box::pin(async move {
                    let locked = contents::lock_alone(session, content).await?;
                    // Read before the check: what commits after it must be found by the next pass.
                    let old = releases::of(session, content, before, ROUND).await?;
                    // The youngest release decides, whatever there is of older ones. It is asked for after the
                    // references: one that went between the two statements has left its release.
                    let is_due = locked
                        && !old.is_empty()
                        && !releases::is_referenced(session, content).await?
                        && !releases::any_since(session, content, before).await?;
                    if is_due {
                        for child in releases::take_extents(session, content).await? {
                            releases::release(session, uids.next()?, child, now).await?;
                        }
                        if let Some(blob) = releases::delete_content(session, content).await? {
                            releases::condemn_blob(session, blob, now).await?;
                        }
                    }
                    releases::forget(session, &old).await?;
                    Ok(match is_due {
                        true => Verdict::Deleted,
                        false => Verdict::Kept,
                    })
                })
            })
            .await
    }

    async fn delete_condemned(
        &self,
        whose: Whose,
        tell: Tell<'_>,
        report: &mut CollectReport,
    ) -> Result<(), Fault> {
        let before = self.clock.now() - self.retention() + 1;
        let node = self.node_of(whose);
        let mut after = (Millis::MIN, BlobId(i64::MIN));
        loop {
            let node = node.clone();
            let blobs = self
                .meta
                .scan("find condemned", move |session| {
                    Box::pin(async move {
                        match &node {
                            None => releases::condemned(session, before, after, ROUND).await,
                            Some(node) => {
                                releases::condemned_on(session, before, node, after, ROUND).await
                            }
                        }
                    })
                })
                .await?;
            let Some(last) = blobs.last() else {
                return Ok(());
            };
            after = (last.since, last.blob);
            for condemned in blobs {
                match self.delete_blob(condemned.blob, condemned.owned).await {
                    Ok(()) => report.blobs += 1,
                    Err(fault) => {
                        tracing::warn!(%fault, "delete blob");
                        report.failed += 1;
                    }
                }
                tell(Progress::new("deleting blobs", report.blobs, None));
            }
        }
    }

    /// The node on whose disk they lie; `None` for those that every node reaches.
    fn node_of(&self, whose: Whose) -> Option<String> {
        match whose {
            Whose::Common => None,
            Whose::Own => self.here.as_ref().map(|here| here.node.clone()),
        }
    }

    /// How long bytes stay that only a restored database would ask for.
    fn retention(&self) -> Millis {
        self.config.blob_retention_seconds as Millis * 1000
    }

    /// Deletes what lies where its blob was moved away from. The row goes first: from then on the name is nobody's,
    /// and what a crash leaves is the sweep's.
    async fn delete_outdated(
        &self,
        whose: Whose,
        open_read: Millis,
        tell: Tell<'_>,
        report: &mut CollectReport,
    ) -> Result<(), Fault> {
        let before = open_read.min(self.clock.now() - self.retention() + 1);
        let node = self.node_of(whose);
        let mut after = (i64::MIN, BlobId(i64::MIN));
        loop {
            let node = node.clone();
            let copies = self
                .meta
                .scan("find old copies", move |session| {
                    Box::pin(async move {
                        copies::outdated(session, node.as_deref(), before, after, ROUND).await
                    })
                })
                .await?;
            let Some(last) = copies.last() else {
                return Ok(());
            };
            after = (last.1, last.0);
            for (blob, backend) in copies {
                let taken = self
                    .meta
                    .transact("forget old copy", move |session| {
                        Box::pin(copies::take_outdated(session, blob, backend, before))
                    })
                    .await?;
                let Some((name, owned)) = taken else {
                    continue;
                };
                let Some(name) = CopyName::parse(&name).filter(|it| owned || !it.is_adopted())
                else {
                    continue;
                };
                let backend = self.backend(backend).await?;
                match self.blobs.delete(&backend.name, &name).await {
                    Ok(()) => report.old_copies += 1,
                    Err(fault) => {
                        tracing::warn!(%fault, "delete old copy; the sweep will");
                        report.failed += 1;
                    }
                }
                tell(Progress::new(
                    "deleting old copies",
                    report.old_copies,
                    None,
                ));
            }
        }
    }

    /// Deletes every copy of a blob, then its rows. A backend that does not answer keeps the rows, and does not
    /// keep the others from deleting.
    async fn delete_blob(&self, blob: BlobId, owned: bool) -> Result<(), Fault> {
        let copies = self
            .meta
            .read("find copies", move |session| {
                Box::pin(releases::copies(session, blob))
            })
            .await?;
        let mut refused = None;
        for copy in &copies {
            // What another system wrote goes only when it was handed over with its bytes.
            if let Some(name) = CopyName::parse(&copy.name)
                && (owned || !name.is_adopted())
            {
                let backend = self.backend(copy.backend).await?;
                refused = self
                    .blobs
                    .delete(&backend.name, &name)
                    .await
                    .err()
                    .or(refused);
            }
        }
        if let Some(fault) = refused {
            return Err(fault);
        }
        self.meta
            .transact("forget blob", move |session| {
                Box::pin(releases::forget_blob(session, blob))
            })
            .await
    }

    /// Whether a backend holds manifests that this database knows nothing of: it is not the one that names the
    /// blobs there, or is older than they are.
    pub(super) async fn is_of_another(&self, backend: &str) -> Result<bool, Fault> {
        for name in self.blobs.list_manifests(backend).await? {
            let at = backend.to_owned();
            let is_ours = self
                .meta
                .scan("find manifest", move |session| {
                    Box::pin(async move { manifests::is_part(session, &at, name.as_str()).await })
                })
                .await?;
            // One that was deleted since it was listed is nobody's.
            if !is_ours && self.blobs.size(backend, &name).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes blobs that no row names and that are older than the grace and than every open write: what
    /// crashes, cancelled uploads and commits of unknown outcome left behind.
    pub async fn sweep(&self, tell: Tell<'_>) -> Result<SweepReport, Fault> {
        self.sweep_all(Whose::Common, tell).await
    }

    /// The same on this node's own disk, which no other node sweeps.
    pub async fn sweep_own(&self, tell: Tell<'_>) -> Result<SweepReport, Fault> {
        self.sweep_all(Whose::Own, tell).await
    }

    async fn sweep_all(&self, whose: Whose, tell: Tell<'_>) -> Result<SweepReport, Fault> {
        let mut report = SweepReport::default();
        let before = self.horizon(millis(self.config.grace())).await?.1;
        if self.is_spared().await? {
            tracing::info!(
                "not swept: the database was recovered, and what it does not name may be wanted"
            );
            return Ok(report);
        }
        let rows = self
            .meta
            .read("list backends", |session| {
                Box::pin(buckets::backends(session))
            })
            .await
            .map_err(|fault: Fault| fault)?;
        let mut refused = None;
        // Another node's own disk is that node's to sweep, and what is not configured here cannot be listed.
        let here: Vec<_> = self.blobs.backends().map(str::to_owned).collect();
        let is_due = |name: &String| {
            let is_own = name.contains('@');
            here.contains(name) && is_own == (whose == Whose::Own)
        };
        for (_, backend) in rows.iter().filter(|(_, name)| is_due(name)) {
            let swept = self.sweep_backend(backend, before, tell, &mut report);
            match swept.await {
                Ok(Swept::Not) => report.refused += 1,
                Ok(Swept::All { .. } | Swept::NotYet(_)) => {}
                Err(fault) => {
                    // The others are swept all the same.
                    tracing::warn!(%fault, backend, "sweep ended early");
                    refused = Some(fault);
                }
            }
        }
        refused.map_or(Ok(report), Err)
    }

    /// Sweeps one backend, if its blobs are this install's.
    async fn sweep_backend(
        &self,
        backend: &str,
        before: Millis,
        tell: Tell<'_>,
        report: &mut SweepReport,
    ) -> Result<Swept, Fault> {
        if self.is_of_another(backend).await? {
            tracing::error!(
                backend,
                "not swept: manifests of another database lie there, whose blobs these may be"
            );
            return Ok(Swept::Not);
        }
        match self.owner_of(backend, before).await? {
            Owner::Ours => {}
            Owner::Unknown(seen) => {
                tracing::info!(
                    backend,
                    ?seen,
                    "not swept yet: it cannot be told whose these are"
                );
                return Ok(Swept::NotYet(seen));
            }
            Owner::Another(why) => {
                tracing::error!(backend, why, "not swept");
                return Ok(Swept::Not);
            }
        }
        let mut list = self.blobs.list(backend)?;
        let mut manifests = 0;
        while let Some(name) = list.next().await {
            let name = name?;
            report.listed += 1;
            tell(Progress::new("sweeping", report.listed, None));
            if name.is_manifest() {
                manifests += 1;
                continue;
            }
            if minted_at(name.id()) < before && self.delete_orphan(backend, name).await? {
                report.orphans += 1;
            }
        }
        report.foreign += list.skipped();
        Ok(Swept::All { manifests })
    }

    /// Whether nothing may be taken for an orphan: the database was recovered a short time ago, and what it does not name
    /// may be wanted.
    pub(super) async fn is_spared(&self) -> Result<bool, Fault> {
        let recovery = self
            .meta
            .scan("find recovery", |session| {
                Box::pin(manifests::recovery(session))
            })
            .await?;
        Ok(recovery.is_some_and(|recovery| recovery.spare_until > self.clock.now()))
    }

    /// Deletes a blob, of which the caller knows that it is old enough, unless a row names it; `false` when one does.
    pub(super) async fn delete_orphan(&self, backend: &str, name: BlobName) -> Result<bool, Fault> {
        if self.is_named(name).await? {
            return Ok(false);
        }
        self.blobs.delete(backend, &name).await?;
        Ok(true)
    }

    pub(super) async fn is_named(&self, name: BlobName) -> Result<bool, Fault> {
        self.meta
            .scan("find copy", move |session| {
                Box::pin(async move {
                    let blob = BlobId(name.id());
                    releases::is_named(session, blob, name.as_str()).await
                })
            })
            .await
    }

    /// Whether this node lists and deletes at a backend itself: none of it lies on another node's disk.
    pub async fn reaches(&self, backend: i64) -> Result<bool, Fault> {
        let backend = self.backend(backend).await?;
        Ok(self.blobs.backends().any(|name| name == backend.name))
    }

    /// Sweeps one backend whose blobs were moved away, and counts what is left there. Where nothing may be taken for an
    /// orphan, because the database was recovered a short time ago or blobs of another one may lie there, nothing is
    /// deleted, and all of it is counted as what is not ours.
    pub async fn sweep_source(&self, backend: i64) -> Result<Left, Fault> {
        let mut report = SweepReport::default();
        let before = self.horizon(millis(self.config.grace())).await?.1;
        let name = self.backend(backend).await?.name.clone();
        let swept = match self.is_spared().await? {
            true => Swept::Not,
            false => {
                let swept = self.sweep_backend(&name, before, &untold, &mut report);
                swept.await?
            }
        };
        match swept {
            Swept::All { manifests } => Ok(Left {
                ours: report.listed - report.orphans - manifests,
                foreign: report.foreign + manifests,
            }),
            // They are named, or old, by and by.
            Swept::NotYet(seen) => Ok(Left {
                ours: seen.named + seen.old + seen.young,
                foreign: 0,
            }),
            Swept::Not => {
                tracing::warn!(
                    backend = name,
                    "only counted what is left there: it may be wanted"
                );
                Ok(Left {
                    ours: 0,
                    foreign: self.count_objects(&name).await?,
                })
            }
        }
    }

    /// How many objects lie at a backend, blobs or not.
    async fn count_objects(&self, backend: &str) -> Result<u64, Fault> {
        let mut list = self.blobs.list(backend)?;
        let mut listed = 0;
        while let Some(name) = list.next().await {
            name?;
            listed += 1;
        }
        Ok(listed + list.skipped())
    }
}

/// What is left at a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Blobs.
    pub ours: u64,
    /// Anything else, manifests included, and what may be another's.
    pub foreign: u64,
}
