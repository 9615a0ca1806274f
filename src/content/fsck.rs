//! Rows and backends compared, in both directions: what rows name and is not there, or not as it should be; what is there
//! and no row names; and rows that refer to each other and should not, or do not and should.
//!
//! Nothing is changed unless that is asked for. Then copies are mended as the scrub does it, orphans are deleted as the
//! sweep does it, and what nothing refers to is handed to the collector. A version whose bytes are gone stays as it is:
//! only its owner can say what is to become of it.

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::claim::Owner;
use super::{Act, ContentStore, Depth, Scrutiny, Work};
use crate::blob::BlobName;
use crate::meta::dangling::{self, Dangling, Which};
use crate::meta::{buckets, findings, releases};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::finding::{Finding, Findings, Problem, Repair};
use crate::model::ids::{BlobId, ContentId, minted_at};
use crate::model::progress::{Progress, Tell};

/// Blobs looked at in one round.
const ROUND: usize = 500;
/// Blobs looked at at a time.
const AT_A_TIME: usize = 4;

/// What rows may dangle, and what that is called.
const DANGLING: [(Dangling, Problem); 7] = [
    (Dangling::ContentWithoutBlob, Problem::ContentWithoutBlob),
    (Dangling::BrokenExtents, Problem::BrokenExtents),
    (Dangling::ExtentsWithoutContent, Problem::BrokenExtents),
    (Dangling::UnreferencedContent, Problem::UnreferencedContent),
    (Dangling::BlobWithoutCopy, Problem::NoCopy),
    (Dangling::UnusedBlob, Problem::UnusedBlob),
    (Dangling::CopyWithoutBlob, Problem::NoBlob),
];
/// Versions that may be without a content.
const VERSIONS: [Which; 3] = [Which::Current, Which::Noncurrent, Which::Parts];

/// What is to be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckOrder {
    /// The only backend to be looked at, and no rows by themselves; `None`: all of it.
    pub backend: Option<String>,
    /// How closely copies are looked at.
    pub depth: Depth,
    /// Whether it is repaired.
    pub act: Act,
    /// How many bytes are read per second at most; `None` is without a limit.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
}

/// What was compared, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckReport {
    /// Live blobs.
    pub blobs: u64,
    /// Their copies.
    pub copies: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs that were listed at the backends.
    pub listed: u64,
    /// Blobs there that no row names, too young to be taken for orphans.
    pub young: u64,
    /// Objects there that are not blobs of ours.
    pub foreign: u64,
    /// Copies and backends of which nothing can be said.
    pub unchecked: u64,
    /// Why the last of those.
    pub reason: Option<String>,
    /// What is wrong.
    pub findings: Findings,
}

impl FsckReport {
    fn not_checked(&mut self, fault: &Fault) {
        self.unchecked += 1;
        self.reason = Some(fault.to_string());
    }
}

impl ContentStore {
    /// Compares as `order` says.
    pub async fn fsck(&self, order: &FsckOrder, tell: Tell<'_>) -> Result<FsckReport, Fault> {
        let rows = self
            .meta
            .read("list backends", |session| {
                Box::pin(buckets::backends(session))
            })
            .await?;
        let only = match &order.backend {
            None => None,
            Some(name) => {
                let found = rows.iter().find(|(_, known)| known == name);
                Some(found.map(|(id, _)| *id).ok_or_else(|| {
                    Fault::new(Kind::Config, "fsck")
                        .context(format_args!("no backend is called {name}"))
                })?)
            }
        };
        let mut report = FsckReport::default();
        if only.is_none() {
            self.fsck_rows(order.act, tell, &mut report).await?;
        }
        for (id, name) in rows {
            // Another node's own disk is that node's to list, and what is not configured here cannot be.
            let is_here = self.blobs.backends().any(|known| known == name);
            if !is_here || only.is_some_and(|only| only != id) {
                continue;
            }
            let listed = self.fsck_listing(&name, order.act, tell, &mut report);
            if let Err(fault) = listed.await {
                report.not_checked(&fault);
            }
        }
        // Last: bytes that are given up here are no orphans of before.
        let scrutiny = Scrutiny {
            backend: only,
            depth: order.depth,
            act: order.act,
        };
        let work = Work::new(order.bytes_per_second, None);
        self.fsck_copies(&scrutiny, &work, tell, &mut report)
            .await?;
        Ok(report)
    }

    /// Looks at the live copies of all blobs.
    async fn fsck_copies(
        &self,
        scrutiny: &Scrutiny,
        work: &Work,
        tell: Tell<'_>,
        report: &mut FsckReport,
    ) -> Result<(), Fault> {
        let total = match scrutiny.backend {
            None => Some(self.count_blobs().await?),
            Some(_) => None,
        };
        let told = |blobs: u64| {
            let total = total.map(|total| blobs.max(total));
            tell(Progress::new("looking at copies of blobs", blobs, total));
        };
        told(report.blobs);
        let mut after = BlobId(i64::MIN);
        loop {
            let blobs = match scrutiny.backend {
                None => self.blobs_above(after, ROUND).await?,
                Some(backend) => self.blobs_at(backend, after).await?,
            };
            let Some(last) = blobs.last() else {
                return Ok(());
            };
            after = *last;
            let mut looks = stream::iter(blobs)
                .map(|blob| self.scrub_blob(blob, scrutiny, work))
                .buffer_unordered(AT_A_TIME);
            while let Some(scrubbed) = looks.next().await {
                let scrubbed = scrubbed?;
                report.blobs += 1;
                told(report.blobs);
                report.copies += scrubbed.copies;
                report.bytes += scrubbed.bytes;
                report.unchecked += scrubbed.unchecked;
                report.reason = scrubbed.reason.or(report.reason.take());
                for finding in scrubbed.findings {
                    report.findings.push(finding);
                }
            }
        }
    }

    /// Looks for blobs at a backend that no row names.
    async fn fsck_listing(
        &self,
        backend: &str,
        act: Act,
        tell: Tell<'_>,
        report: &mut FsckReport,
    ) -> Result<(), Fault> {
        let before = self.orphans_before().await?;
        if self.is_of_another(backend).await? {
            return Err(Fault::new(Kind::Config, "list blobs")
                .context(format_args!("backend {backend}"))
                .context("manifests of another database lie there, whose blobs these may be"));
        }
        let refused = |why: String| {
            Fault::new(Kind::Config, "list blobs")
                .context(format_args!("backend {backend}"))
                .context(why)
        };
        match self.owner_of(backend, before).await? {
            Owner::Ours => {}
            Owner::Another(why) => return Err(refused(why)),
            Owner::Unknown(seen) => {
                report.listed += seen.named + seen.old + seen.young;
                report.young += seen.young;
                return match seen.old {
                    0 => Ok(()),
                    old => Err(refused(format!(
                        "{old} blobs that no row names lie there beside too many young ones: ask again after the grace"
                    ))),
                };
            }
        }
        let mut list = self.blobs.list(backend)?;
        let mut orphans = Vec::new();
        while let Some(name) = list.next().await {
            let name = name?;
            if name.is_manifest() {
                continue;
            }
            report.listed += 1;
            tell(Progress::new("listing blobs", report.listed, None));
            if self.is_named(name).await? {
                continue;
            }
            if minted_at(name.id()) >= before {
                report.young += 1;
                continue;
            }
            let mut finding = Finding::new(Problem::Orphan, "no row names it");
            finding.backend = Some(backend.to_owned());
            finding.name = Some(name.as_str().to_owned());
            finding.blob = Some(name.id().to_string());
            orphans.push((finding, name));
            if orphans.len() >= ROUND {
                self.end_orphans(backend, act, &mut orphans, report).await?;
            }
        }
        report.foreign += list.skipped();
        self.end_orphans(backend, act, &mut orphans, report).await
    }

    /// Deletes orphans, if that is asked for, and notes them. What the collector has let go of since it was listed is
    /// none: its row goes before its bytes, and both within a turn.
    async fn end_orphans(
        &self,
        backend: &str,
        act: Act,
        orphans: &mut Vec<(Finding, BlobName)>,
        report: &mut FsckReport,
    ) -> Result<(), Fault> {
        if orphans.is_empty() {
            return Ok(());
        }
        let _turn = self.turn().await?;
        let may_delete = act == Act::Mend && !self.is_spared().await?;
        for (mut finding, name) in orphans.drain(..) {
            match self.blobs.size(backend, &name).await {
                Err(fault) if fault.kind() == Kind::NotFound => continue,
                _ if self.is_named(name).await? => continue,
                _ => {}
            }
            if may_delete && self.delete_orphan(backend, name).await? {
                finding.repair = Repair::Done;
            }
            report.findings.push(finding);
        }
        Ok(())
    }

    /// Looks for rows that dangle.
    async fn fsck_rows(
        &self,
        act: Act,
        tell: Tell<'_>,
        report: &mut FsckReport,
    ) -> Result<(), Fault> {
        let told = |looked: usize| {
            let total = (DANGLING.len() + VERSIONS.len()) as u64;
            tell(Progress::new("looking at rows", looked as u64, Some(total)));
        };
        for (looked, (what, problem)) in DANGLING.into_iter().enumerate() {
            told(looked);
            let mut after = i64::MIN;
            loop {
                let page = self
                    .meta
                    .scan("find dangling rows", move |session| {
                        Box::pin(what.find(session, after))
                    })
                    .await?;
                for id in &page {
                    let finding = self.of_dangling(what, problem, *id, act).await?;
                    report.findings.push(finding);
                }
                match page.last() {
                    Some(last) if page.len() == dangling::PAGE => after = *last,
                    _ => break,
                }
            }
        }
        for (looked, which) in VERSIONS.into_iter().enumerate() {
            told(DANGLING.len() + looked);
            let mut after = i64::MIN;
            loop {
                let page = self
                    .meta
                    .scan("find versions without content", move |session| {
                        Box::pin(dangling::without_content(session, which, after))
                    })
                    .await?;
                let (is_full, last) =
                    (page.len() == dangling::PAGE, page.last().map(|it| it.0.uid));
                for (version, content) in page {
                    let (problem, detail) = match which {
                        Which::Current | Which::Noncurrent => {
                            (Problem::VersionWithoutContent, "its content is gone")
                        }
                        Which::Parts => (
                            Problem::PartWithoutContent,
                            "the content of a part of an upload is gone; abort the upload",
                        ),
                    };
                    let mut finding = Finding::new(problem, detail);
                    finding.content = content.map(|id| id.to_string());
                    finding.versions.push(version);
                    report.findings.push(finding);
                }
                match last.filter(|_| is_full) {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        Ok(())
    }

    async fn of_dangling(
        &self,
        what: Dangling,
        problem: Problem,
        id: i64,
        act: Act,
    ) -> Result<Finding, Fault> {
        let detail = match what {
            Dangling::ContentWithoutBlob => "the blob of the content is gone or condemned",
            Dangling::BrokenExtents => {
                "pieces of the content are gone, or do not make up its length"
            }
            Dangling::ExtentsWithoutContent => "extents of a content that is gone",
            Dangling::UnreferencedContent => {
                "nothing refers to the content, and no release tells of it"
            }
            Dangling::BlobWithoutCopy => "no copy of the blob is live",
            Dangling::UnusedBlob => "no content lies in the blob",
            Dangling::CopyWithoutBlob => "a copy of a blob that has no row",
        };
        let mut finding = Finding::new(problem, detail);
        let contents = match what {
            Dangling::ContentWithoutBlob
            | Dangling::BrokenExtents
            | Dangling::ExtentsWithoutContent
            | Dangling::UnreferencedContent => {
                finding.content = Some(id.to_string());
                vec![ContentId(id)]
            }
            Dangling::BlobWithoutCopy | Dangling::UnusedBlob | Dangling::CopyWithoutBlob => {
                finding.blob = Some(id.to_string());
                self.meta
                    .scan("find contents of blob", move |session| {
                        Box::pin(dangling::contents_of_blob(session, BlobId(id)))
                    })
                    .await?
            }
        };
        finding.versions = self.versions_of(&contents).await?;
        if act == Act::Mend && self.mend_dangling(what, id).await? {
            finding.repair = Repair::Done;
        }
        Ok(finding)
    }

    /// Hands what nothing refers to to the collector, which decides anew.
    async fn mend_dangling(&self, what: Dangling, id: i64) -> Result<bool, Fault> {
        let now = self.clock.now();
        match what {
            Dangling::UnreferencedContent => {
                let release = self.uids.next()?;
                self.meta
                    .transact("release lost content", move |session| {
                        Box::pin(releases::release(session, release, ContentId(id), now))
                    })
                    .await
                    .map(|()| true)
            }
            Dangling::UnusedBlob => {
                self.meta
                    .transact("condemn unused blob", move |session| {
                        Box::pin(findings::condemn_unused(session, BlobId(id), now))
                    })
                    .await
            }
            // The mending of the copies that are to come may still succeed.
            Dangling::BlobWithoutCopy
            | Dangling::ContentWithoutBlob
            | Dangling::BrokenExtents
            | Dangling::ExtentsWithoutContent
            | Dangling::CopyWithoutBlob => Ok(false),
        }
    }

    /// A blob that no row names is an orphan when it was born before this.
    async fn orphans_before(&self) -> Result<Millis, Fault> {
        let grace = self.config.grace().as_millis() as Millis;
        Ok(self.horizon(grace).await?.1)
    }
}
