//! Copies held against what the rows promise of them: there, of the right length, and of the right bytes.
//!
//! ```text
//!   look --> well                        what was found of it before is forgotten
//!        --> bad, and a good copy is live   row `missing`: reads go to the good one, from which a new one is written
//!        --> bad, and none is            a row of the finding; the copy stays, as the best there is
//!        --> not to be had               nothing: an error is no absence
//! ```
//!
//! What seems bad is looked at twice, and what it means is decided under the blob's lock, when the row still names
//! that very copy: one that was deleted or moved while it was read is nobody's finding. The bytes of a copy that was
//! given up are the sweep's.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::examine::Examined;
use super::{ContentStore, Copied, Route, Work};
use crate::blob::{BlobName, CopyName};
use crate::meta::contents::CopyRow;
use crate::meta::copies::{self, AnyCopy, CopyState};
use crate::meta::findings::{self, Found, Promise};
use crate::model::fault::{Fault, Kind};
use crate::model::finding::{Finding, Listed, LostObject, Problem, Repair};
use crate::model::ids::{BlobId, ContentId};

/// Bytes that a look at a copy counts for, however short that is: a backend has to be asked.
const LOOK_BYTES: usize = 64 << 10;

/// How closely copies are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Whether they are there, and how long they are.
    Length,
    /// The bytes too of copies on disks; of copies at services, which look after their bytes and may charge for
    /// reading, the length.
    Disks,
    /// The bytes of all.
    All,
}

/// What is done about what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It is told.
    Report,
    /// It is recorded, and mended where there are bytes for that.
    Mend,
}

/// How blobs are scrubbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrutiny {
    /// The only backend whose copies are looked at; `None`: all.
    pub backend: Option<i64>,
    /// How closely.
    pub depth: Depth,
    /// What is done.
    pub act: Act,
}

/// What came of one blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Copies looked at.
    pub copies: u64,
    /// Bytes of them that were read.
    pub bytes: u64,
    /// Copies of which nothing can be said, because their backend does not answer.
    pub unchecked: u64,
    /// Why the last of those.
    pub reason: Option<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// What a look at a copy came to.
enum Verdict {
    Well(Option<Examined>),
    Bad(Problem, String),
    Unknown(Fault),
}

/// One live copy and what was seen of it.
struct Look {
    copy: CopyRow,
    verdict: Verdict,
}

/// What became of a bad copy in the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its row waits for a new copy.
    Missing,
    /// Its row waits for a move that is under way.
    Moving,
    /// It is recorded.
    Recorded,
    /// It is not this blob's live copy any more.
    Gone,
}

impl ContentStore {
    /// Looks at the live copies of a blob, and does what `scrutiny` says about what is wrong with them. A fault is one
    /// of the database: a backend that does not answer is told in the result.
    pub async fn scrub_blob(
        &self,
        blob: BlobId,
        scrutiny: &Scrutiny,
        work: &Work,
    ) -> Result<Scrubbed, Fault> {
        let mut done = Scrubbed::default();
        let Some(promise) = self.promise(blob).await? else {
            return Ok(done);
        };
        let mut looks = Vec::with_capacity(promise.copies.len());
        for copy in &promise.copies {
            if scrutiny.backend.is_some_and(|only| only != copy.backend) {
                continue;
            }
            let copy = CopyRow {
                backend: copy.backend,
                name: copy.name.clone(),
            };
            let known = known_of(&promise, &copy);
            let is_read = match scrutiny.depth {
                Depth::All => true,
                Depth::Disks => self.is_disk(copy.backend).await?,
                Depth::Length => false,
            } || known.is_some() && scrutiny.act == Act::Mend;
            let mut verdict = self.look(&copy, is_read, &promise, work).await;
            match (&verdict, known) {
                (Verdict::Well(None), Some(found)) => {
                    let detail = "found when it was read before".to_owned();
                    verdict = Verdict::Bad(found.problem, detail);
                }
                (Verdict::Well(Some(_)), _) => done.bytes += promise.size,
                _ => {}
            }
            done.copies += 1;
            looks.push(Look { copy, verdict });
        }
        tell_apart(&mut looks);
        for look in &looks {
            if let Verdict::Unknown(fault) = &look.verdict {
                tracing::debug!(%fault, "copy not looked at");
                done.unchecked += 1;
                done.reason = Some(fault.to_string());
            }
        }
        if scrutiny.act == Act::Mend {
            self.forget_healed(blob, &promise, &looks, work).await?;
        }
        done.findings = self
            .judge_bad(blob, scrutiny, &promise, looks, work)
            .await?;
        Ok(done)
    }

    /// How many blobs are live. A scan.
    pub async fn count_blobs(&self) -> Result<u64, Fault> {
        self.meta
            .scan("count blobs", |session| {
                Box::pin(findings::count_blobs(session))
            })
            .await
    }

    /// Live blobs above `after`, in order.
    pub async fn blobs_above(&self, after: BlobId, limit: usize) -> Result<Vec<BlobId>, Fault> {
        self.meta
            .scan("find blobs", move |session| {
                Box::pin(crate::meta::releases::live_blobs(session, after, limit))
            })
            .await
    }

    /// Forgets what was found of copies that are not live any more, and counts what is left.
    pub async fn purge_findings(&self, work: &Work) -> Result<u64, Fault> {
        let hold = work.hold();
        self.meta
            .transact("purge findings", move |session| {
                Box::pin(async move {
                    hold.on(session).await?;
                    findings::purge(session).await?;
                    findings::count(session).await
                })
            })
            .await
    }

    async fn promise(&self, blob: BlobId) -> Result<Option<Promise>, Fault> {
        self.meta
            .scan("find promise", move |session| {
                Box::pin(findings::promise(session, blob))
            })
            .await
    }

    /// Whether a backend is a disk, here or at another node.
    async fn is_disk(&self, backend: i64) -> Result<bool, Fault> {
        let row = self.backend(backend).await?;
        Ok(row.node.is_some() || self.blobs.is_disk(&row.name))
    }

    async fn look(&self, copy: &CopyRow, is_read: bool, promise: &Promise, work: &Work) -> Verdict {
        let first = self.look_once(copy, is_read, promise, work).await;
        match first {
            // What a line or a memory did once is not the copy's fault.
            Verdict::Bad(..) => self.look_once(copy, is_read, promise, work).await,
            other => other,
        }
    }

    async fn look_once(
        &self,
        copy: &CopyRow,
        is_read: bool,
        promise: &Promise,
        work: &Work,
    ) -> Verdict {
        work.pace.take(LOOK_BYTES).await;
        match self.measure(copy, promise.size).await {
            Ok(Some(size)) if size != promise.size => {
                let detail = format!("{size} bytes instead of {}", promise.size);
                return Verdict::Bad(Problem::WrongLength, detail);
            }
            Ok(_) => {}
            Err(fault) => return of_fault(fault),
        }
        if !is_read {
            return Verdict::Well(None);
        }
        match self.examine(copy, promise, work).await {
            Ok(examined) => Verdict::Well(Some(examined)),
            Err(fault) => of_fault(fault),
        }
    }

    /// The length of a copy; `None` when only its last byte could be asked for, and is there.
    async fn measure(&self, copy: &CopyRow, size: u64) -> Result<Option<u64>, Fault> {
        let backend = self.backend(copy.backend).await?;
        if self.is_elsewhere(&backend).is_some() {
            let mut last = self.read_copy(copy, size.saturating_sub(1)..size).await?;
            while let Some(bytes) = last.next().await {
                bytes?;
            }
            return Ok(None);
        }
        let name = CopyName::parse(&copy.name).ok_or_else(|| {
            Fault::new(Kind::Internal, "measure blob")
                .context(format_args!("name {} is no copy's", copy.name))
        })?;
        self.blobs.size(&backend.name, &name).await.map(Some)
    }

    async fn forget_healed(
        &self,
        blob: BlobId,
        promise: &Promise,
        looks: &[Look],
        work: &Work,
    ) -> Result<(), Fault> {
        for look in looks {
            if !matches!(look.verdict, Verdict::Well(Some(_)))
                || known_of(promise, &look.copy).is_none()
            {
                continue;
            }
            let (hold, backend) = (work.hold(), look.copy.backend);
            self.meta
                .transact("forget finding", move |session| {
                    Box::pin(async move {
                        hold.on(session).await?;
                        copies::lock_blob(session, blob).await?;
                        findings::clear(session, blob, backend).await
                    })
                })
                .await?;
        }
        Ok(())
    }

    /// Tells of the bad copies, and does what is to be done about them.
    async fn judge_bad(
        &self,
        blob: BlobId,
        scrutiny: &Scrutiny,
        promise: &Promise,
        looks: Vec<Look>,
        work: &Work,
    ) -> Result<Vec<Finding>, Fault> {
        if !looks
            .iter()
            .any(|look| matches!(look.verdict, Verdict::Bad(..)))
        {
            return Ok(Vec::new());
        }
        let sources = match scrutiny.act {
            Act::Report => Vec::new(),
            Act::Mend => self.sources(promise, &looks, work).await?,
        };
        let sources = Arc::new(sources);
        let mut bad = Vec::new();
        for look in looks {
            let Verdict::Bad(problem, detail) = look.verdict else {
                continue;
            };
            let fate = match scrutiny.act {
                Act::Report if self.is_live(blob, &look.copy).await? => Fate::Recorded,
                Act::Report => Fate::Gone,
                Act::Mend => {
                    let sources = Arc::clone(&sources);
                    self.set_aside(blob, &look.copy, problem, sources, work)
                        .await?
                }
            };
            if fate != Fate::Gone {
                bad.push((look.copy, problem, detail, fate));
            }
        }
        let contents: Vec<ContentId> = promise.contents.iter().map(|it| it.id).collect();
        let versions = self.versions_of(&contents).await?;
        let mut found = Vec::new();
        // All of them are given up before any is written anew, so that none is written from another.
        for (copy, problem, detail, fate) in bad {
            let mut finding = Finding::new(problem, detail);
            finding.backend = Some(self.backend(copy.backend).await?.name.clone());
            finding.blob = Some(blob.to_string());
            finding.versions = versions.clone();
            finding.repair = match fate {
                Fate::Missing => self.write_anew(blob, &copy, work).await,
                Fate::Moving => Repair::Begun,
                Fate::Recorded | Fate::Gone => Repair::None,
            };
            finding.name = Some(copy.name);
            found.push(finding);
        }
        Ok(found)
    }

    async fn write_anew(&self, blob: BlobId, copy: &CopyRow, work: &Work) -> Repair {
        let route = Route {
            from: None,
            to: copy.backend,
        };
        match self.copy_blob(blob, route, work).await {
            Ok(Copied::Live(_) | Copied::Gone) => Repair::Done,
            Ok(Copied::TooLong) => Repair::None,
            Err(fault) => {
                tracing::warn!(%fault, "copy not written anew yet");
                Repair::Begun
            }
        }
    }

    /// Live copies that were read to their end and are well.
    async fn sources(
        &self,
        promise: &Promise,
        looks: &[Look],
        work: &Work,
    ) -> Result<Vec<CopyRow>, Fault> {
        let mut sources = Vec::new();
        for copy in &promise.copies {
            let copy = CopyRow {
                backend: copy.backend,
                name: copy.name.clone(),
            };
            let look = looks.iter().find(|look| look.copy == copy);
            let is_well = match look.map(|look| &look.verdict) {
                Some(Verdict::Well(Some(_))) => true,
                Some(Verdict::Bad(..) | Verdict::Unknown(_)) => false,
                // Not read yet.
                Some(Verdict::Well(None)) | None => {
                    let verdict = self.look(&copy, true, promise, work).await;
                    matches!(verdict, Verdict::Well(Some(_)))
                }
            };
            if is_well {
                sources.push(copy);
            }
        }
        Ok(sources)
    }

    /// Gives up a bad copy while one of `sources` is live, and records it when there is none.
    async fn set_aside(
        &self,
        blob: BlobId,
        bad: &CopyRow,
        problem: Problem,
        sources: Arc<Vec<CopyRow>>,
        work: &Work,
    ) -> Result<Fate, Fault> {
        let (hold, now) = (work.hold(), self.clock.now());
        let (bad, name) = (Arc::new(bad.clone()), BlobName::new(blob.0));
        self.meta
            .transact("set bad copy aside", move |session| {
                let (bad, sources) = (Arc::clone(&bad), Arc::clone(&sources));
                Box::pin(async move {
                    hold.on(session).await?;
                    let locked = copies::lock_blob(session, blob).await?;
                    if !locked.is_some_and(|locked| locked.live) {
                        return Ok(Fate::Gone);
                    }
                    let all = copies::of_blob(session, blob).await?;
                    if !is_live_in(&all, &bad) {
                        return Ok(Fate::Gone);
                    }
                    if !sources.iter().any(|source| is_live_in(&all, source)) {
                        let found = Found {
                            backend: bad.backend,
                            name: bad.name.clone(),
                            problem,
                            at: now,
                        };
                        findings::record(session, blob, &found).await?;
                        return Ok(Fate::Recorded);
                    }
                    let missing = AnyCopy {
                        backend: bad.backend,
                        // The bad bytes keep their name, which is nobody's from here on.
                        name: name.as_str().to_owned(),
                        state: CopyState::Missing,
                    };
                    copies::write(session, blob, &missing, now).await?;
                    findings::clear(session, blob, bad.backend).await?;
                    let is_in_use = findings::is_in_use(session, bad.backend).await?;
                    Ok::<_, Fault>(if is_in_use {
                        Fate::Missing
                    } else {
                        Fate::Moving
                    })
                })
            })
            .await
    }

    async fn is_live(&self, blob: BlobId, copy: &CopyRow) -> Result<bool, Fault> {
        let now = self.promise(blob).await?;
        Ok(now.is_some_and(|now| is_live_in(&now.copies, copy)))
    }

    /// The versions that any of these contents is in.
    pub(super) async fn versions_of(
        &self,
        contents: &[ContentId],
    ) -> Result<Listed<LostObject>, Fault> {
        let contents: Arc<[ContentId]> = contents.into();
        self.meta
            .scan("find affected versions", move |session| {
                let contents = Arc::clone(&contents);
                Box::pin(async move { findings::versions_of(session, &contents).await })
            })
            .await
    }
}

/// What was found of this very copy before.
fn known_of<'p>(promise: &'p Promise, copy: &CopyRow) -> Option<&'p Found> {
    promise
        .found
        .iter()
        .find(|found| found.backend == copy.backend && found.name == copy.name)
}

fn is_live_in(all: &[AnyCopy], copy: &CopyRow) -> bool {
    all.iter()
        .any(|it| it.state == CopyState::Live && it.backend == copy.backend && it.name == copy.name)
}

/// What a fault says of the copy that it was met at.
fn of_fault(fault: Fault) -> Verdict {
    match fault.kind() {
        Kind::NotFound => Verdict::Bad(Problem::Missing, "the backend does not have it".to_owned()),
        Kind::Corrupt => Verdict::Bad(Problem::Corrupt, fault.to_string()),
        Kind::Busy
        | Kind::Full
        | Kind::Unavailable
        | Kind::Unknown
        | Kind::Config
        | Kind::Internal => Verdict::Unknown(fault),
    }
}

/// Copies that nothing vouches for are well only when they are alike.
fn tell_apart(looks: &mut [Look]) {
    let mut digests = Vec::new();
    for look in looks.iter() {
        if let Verdict::Well(Some(examined)) = &look.verdict
            && !examined.is_proven
        {
            digests.push(examined.digest);
        }
    }
    if digests.iter().all(|digest| *digest == digests[0]) {
        return;
    }
    for look in looks {
        if matches!(&look.verdict, Verdict::Well(Some(examined)) if !examined.is_proven) {
            let detail = "the copies are not alike, and no digest says which is right".to_owned();
            look.verdict = Verdict::Bad(Problem::Differing, detail);
        }
    }
}
