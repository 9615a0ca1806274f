//! Copies of blobs that are written after the blob itself: at a mirror that was away, and where a backend's blobs
//! move to.
//!
//! ```text
//!   row `missing`, with a name of its own --> bytes --> read back --> row `live`, and the old copy `deleting`
//! ```
//!
//! The row comes first, because the blob's id, which its names begin with, is as old as the blob: the sweep would
//! take the bytes for an orphan. Every try has another name; two that try at a time cannot mix their bytes, and
//! the one whose name the row has wins. Bytes without a row are the sweep's.

use futures::StreamExt;
use futures::stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ContentStore, Work};
use crate::blob::{BlobName, CopyName};
use crate::meta::contents::CopyRow;
use crate::meta::copies::{self, AnyCopy, CopyState};
use crate::meta::{Session, buckets, findings};
use crate::model::clock::Millis;
use crate::model::digest::Sha256Digest;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::BlobId;

/// Copies looked at in one round.
const ROUND: usize = 200;
/// Blobs copied at a time.
const AT_A_TIME: usize = 4;

/// Why a blob has no copy at a backend that it should lie at.
pub(super) const TOO_LONG: &str =
    "a blob is longer than a backend of its placement takes: raise its blob_max_bytes";

/// What one pass over missing copies did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MendReport {
    /// Copies written.
    pub copied: u64,
    /// Copies that could not be written; they are tried again.
    pub failed: u64,
    /// Why the last of them could not.
    pub reason: Option<String>,
}

/// What became of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It has a live copy at the target, of so many bytes.
    Live(u64),
    /// It has none and needs none: it is condemned or gone, or nothing goes to the target any more.
    Gone,
    /// It has none, because it is longer than the target takes: see [`ContentStore::split_blob`].
    TooLong,
}

/// From where to where a blob is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The backend whose copy is given up afterwards; `None` keeps all.
    pub from: Option<i64>,
    /// The backend that gets a copy.
    pub to: i64,
}

/// What to do about the copy of a blob at a backend.
enum Plan {
    Nothing(Copied),
    Copy(Order),
}

/// One blob to be copied.
struct Order {
    size: u64,
    /// What its bytes must hash to, where that is known.
    sha256: Option<Sha256Digest>,
    /// Live copies.
    sources: Vec<CopyRow>,
    /// The name of an old copy at the target, whose bytes may serve again.
    old: Option<String>,
    name: BlobName,
}

impl ContentStore {
    /// Writes the copies that are missing, one pass over all of them. A backend that does not answer is passed over
    /// after its first failure.
    pub async fn mend(&self, work: &Work) -> Result<MendReport, Fault> {
        let mut report = MendReport::default();
        let backends = self
            .meta
            .read("list backends", |session| {
                Box::pin(buckets::backends(session))
            })
            .await
            .map_err(|fault: Fault| fault)?;
        for (backend, _) in backends {
            self.mend_at(backend, work, &mut report).await?;
        }
        Ok(report)
    }

    /// Writes the copies that are missing at one backend, until it does not answer.
    async fn mend_at(&self, to: i64, work: &Work, report: &mut MendReport) -> Result<(), Fault> {
        let route = Route { from: None, to };
        let mut after = BlobId(i64::MIN);
        let mut is_away = false;
        while !is_away {
            let found = self
                .meta
                .scan("find missing copies", move |session| {
                    Box::pin(copies::missing(session, to, after, ROUND))
                })
                .await?;
            let Some(last) = found.last() else {
                break;
            };
            after = *last;
            let mut copying = stream::iter(found)
                .map(|blob| self.copy_blob(blob, route, work))
                .buffer_unordered(AT_A_TIME);
            while let Some(outcome) = copying.next().await {
                match outcome {
                    Ok(Copied::Live(_)) => report.copied += 1,
                    Ok(Copied::Gone) => {}
                    Ok(Copied::TooLong) => {
                        report.failed += 1;
                        report.reason = Some(TOO_LONG.to_owned());
                    }
                    Err(fault) => {
                        tracing::warn!(%fault, "missing copy not written");
                        report.failed += 1;
                        report.reason = Some(fault.to_string());
                        if fault.kind() != Kind::Corrupt {
                            is_away = true;
                            break;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether any copy is missing.
    pub async fn count_missing(&self) -> Result<u64, Fault> {
        self.meta
            .scan("count missing copies", |session| {
                Box::pin(copies::count_missing(session))
            })
            .await
    }

    /// Blobs above `after` with a copy at a backend that is live or to come, in order.
    pub async fn blobs_at(&self, backend: i64, after: BlobId) -> Result<Vec<BlobId>, Fault> {
        self.meta
            .scan("find copies", move |session| {
                Box::pin(copies::wanted_at(session, backend, after, ROUND))
            })
            .await
    }

    /// Gives a blob a live copy at backend `to`, and gives up the one at `from`. The new copy is whole and was read
    /// back before the old one is given up; its bytes stay for readers and for restored databases until the
    /// collector takes them.
    pub async fn copy_blob(
        &self,
        blob: BlobId,
        route: Route,
        work: &Work,
    ) -> Result<Copied, Fault> {
        let mut refused = None;
        let mut tried = Vec::new();
        loop {
            let order = match self.plan(blob, route, work).await? {
                Plan::Nothing(outcome) => return Ok(outcome),
                Plan::Copy(order) => order,
            };
            if let Some(old) = &order.old {
                match self.revive(blob, route, &order, old, work).await? {
                    Some(done) => return Ok(done),
                    // The next plan gives the row a new name.
                    None => continue,
                }
            }
            let Some(source) = order
                .sources
                .iter()
                .find(|source| !tried.contains(&source.backend))
            else {
                return Err(refused.unwrap_or_else(|| {
                    Fault::new(Kind::Corrupt, "copy blob")
                        .context(format_args!("blob {blob}"))
                        .context("no live copy is left to copy from")
                }));
            };
            tried.push(source.backend);
            match self.write_copy(source, route.to, &order, work).await {
                Ok(()) => {
                    let name = order.name;
                    let done = self.make_live(blob, route, name, work).await?;
                    if let Some(done) = done {
                        return Ok(done);
                    }
                    // Overtaken: another try has its own name in the row, or the blob is condemned.
                    let backend = self.backend(route.to).await?;
                    self.blobs.delete(&backend.name, &name).await?;
                    return Ok(Copied::Gone);
                }
                Err(Failed::Source(fault)) => {
                    tracing::warn!(%fault, "copy from another backend");
                    refused = Some(fault);
                }
                Err(Failed::Target(fault)) => return Err(fault),
            }
        }
    }

    /// Notes a copy as missing under a new name, unless there is nothing to do.
    async fn plan(&self, blob: BlobId, route: Route, work: &Work) -> Result<Plan, Fault> {
        let (Route { from, to }, hold) = (route, work.hold());
        let (name, clock) = (BlobName::new(blob.0), self.clock.clone());
        let longest = self.blobs.blob_max_bytes(&self.backend(to).await?.name)?;
        let mut plan = self
            .meta
            .transact("plan copy", move |session| {
                let clock = clock.clone();
                Box::pin(async move {
                    hold.on(session).await?;
                    let locked = copies::lock_blob(session, blob).await?;
                    // A read that finds the old copy still begins hardly later than the row says it was given up.
                    let now = clock.now();
                    let Some(locked) = locked.filter(|locked| locked.live) else {
                        return Ok(Plan::Nothing(Copied::Gone));
                    };
                    let all = copies::of_blob(session, blob).await?;
                    let there = all.iter().find(|copy| copy.backend == to);
                    if there.is_some_and(|copy| copy.state == CopyState::Live) {
                        give_up(session, blob, from, &all, now).await?;
                        return Ok(Plan::Nothing(Copied::Live(locked.size)));
                    }
                    // Who asked may have looked before a move began, which comes to each blob once: under this lock,
                    // so that a copy which is begun here before that does it no harm, and one after it would stay.
                    if from.is_none() && !findings::is_in_use(session, to).await? {
                        return Ok(Plan::Nothing(Copied::Gone));
                    }
                    if from.is_some_and(|from| !is_wanted(&all, from)) {
                        return Ok(Plan::Nothing(Copied::Gone));
                    }
                    if locked.size > longest {
                        return Ok(Plan::Nothing(Copied::TooLong));
                    }
                    let old = there.filter(|copy| copy.state == CopyState::Deleting);
                    let old = old.map(|copy| copy.name.clone());
                    let copy = AnyCopy {
                        backend: to,
                        // An old copy keeps its name until it is known whether its bytes are whole: the row
                        // that names them keeps them from the sweep.
                        name: old.clone().unwrap_or_else(|| name.as_str().to_owned()),
                        state: CopyState::Missing,
                    };
                    copies::write(session, blob, &copy, now).await?;
                    let live = all
                        .into_iter()
                        .filter(|copy| copy.state == CopyState::Live)
                        .map(|copy| CopyRow {
                            backend: copy.backend,
                            name: copy.name,
                        });
                    Ok::<_, Fault>(Plan::Copy(Order {
                        size: locked.size,
                        sha256: copies::digest_of(session, blob, locked.size).await?,
                        sources: live.collect(),
                        old,
                        name,
                    }))
                })
            })
            .await?;
        if let Plan::Copy(order) = &mut plan {
            self.health.sort(&mut order.sources, |copy| copy.backend);
        }
        Ok(plan)
    }

    /// Makes an old copy at the target serve again, when its bytes are those of a live one; otherwise its row is
    /// free for a new name.
    async fn revive(
        &self,
        blob: BlobId,
        route: Route,
        order: &Order,
        old: &str,
        work: &Work,
    ) -> Result<Option<Copied>, Fault> {
        let Some(name) = CopyName::parse(old) else {
            return Ok(None);
        };
        let there = self.digest_of(route.to, &name, order.size, work).await;
        let wanted = match (&order.sha256, order.sources.first()) {
            (Some(sha256), _) => Some(*sha256),
            (None, Some(source)) => {
                let source_name = parse(&source.name)?;
                let digest = self.digest_of(source.backend, &source_name, order.size, work);
                digest.await.ok()
            }
            (None, None) => None,
        };
        match (there, wanted) {
            (Ok(there), Some(wanted)) if there == wanted => {
                self.make_live(blob, route, name, work).await
            }
            // It may be whole: nothing is known, and it is asked again later.
            (Err(fault), _) if fault.is_retryable() => Err(fault),
            _ => Ok(None),
        }
    }

    async fn write_copy(
        &self,
        source: &CopyRow,
        to: i64,
        order: &Order,
        work: &Work,
    ) -> Result<(), Failed> {
        let name = parse(&source.name).map_err(Failed::Source)?;
        let source_row = self.backend(source.backend).await;
        let source_name = &source_row.map_err(Failed::Source)?.name;
        let target_row = self.backend(to).await;
        let target_name = &target_row.map_err(Failed::Target)?.name;
        let mut reader = self
            .read_copy(source, 0..order.size)
            .await
            .map_err(Failed::Source)?;
        let mut writer = self
            .blobs
            .create(target_name, &order.name)
            .map_err(Failed::Target)?
            .expect_size(order.size);
        let mut digest = Sha256::new();
        while let Some(bytes) = reader.next().await {
            let bytes = bytes.map_err(Failed::Source)?;
            work.pace.take(bytes.len()).await;
            digest.update(&bytes);
            writer.write(bytes).await.map_err(Failed::Target)?;
        }
        let digest = Sha256Digest(digest.finalize().into());
        if order.sha256.is_some_and(|wanted| wanted != digest) {
            writer.abort().await;
            return Err(Failed::Source(
                Fault::new(Kind::Corrupt, "copy blob")
                    .context(format_args!("blob {name} at {source_name}"))
                    .context("its bytes are not those that were stored"),
            ));
        }
        let written = writer.finish().await.map_err(Failed::Target)?;
        let stored = self
            .digest_of(to, &order.name, order.size, work)
            .await
            .map_err(Failed::Target)?;
        if written == order.size && stored == digest {
            return Ok(());
        }
        Err(Failed::Target(
            Fault::new(Kind::Corrupt, "copy blob")
                .context(format_args!("blob {} at {target_name}", order.name))
                .context("the backend does not give back what it was given"),
        ))
    }

    /// Hashes the bytes of a copy, as far as they are its blob's.
    pub(super) async fn digest_of(
        &self,
        backend: i64,
        name: impl Into<CopyName>,
        size: u64,
        work: &Work,
    ) -> Result<Sha256Digest, Fault> {
        let copy = CopyRow {
            backend,
            name: name.into().as_str().to_owned(),
        };
        let mut reader = self.read_copy(&copy, 0..size).await?;
        let mut digest = Sha256::new();
        while let Some(bytes) = reader.next().await {
            let bytes = bytes?;
            work.pace.take(bytes.len()).await;
            digest.update(&bytes);
        }
        Ok(Sha256Digest(digest.finalize().into()))
    }

    /// Makes a copy live whose bytes are safe, and gives up the one at `from`; `None` when the row does not wait for
    /// this one any more.
    async fn make_live(
        &self,
        blob: BlobId,
        route: Route,
        name: impl Into<CopyName>,
        work: &Work,
    ) -> Result<Option<Copied>, Fault> {
        let (Route { from, to }, clock) = (route, self.clock.clone());
        let (hold, name) = (work.hold(), name.into());
        self.meta
            .transact("make copy live", move |session| {
                let (name, clock) = (name.clone(), clock.clone());
                Box::pin(async move {
                    hold.on(session).await?;
                    let locked = copies::lock_blob(session, blob).await?;
                    let now = clock.now();
                    let Some(locked) = locked.filter(|locked| locked.live) else {
                        return Ok(None);
                    };
                    let mut all = copies::of_blob(session, blob).await?;
                    let Some(copy) = all.iter_mut().find(|copy| {
                        copy.backend == to
                            && copy.state == CopyState::Missing
                            && copy.name == name.as_str()
                    }) else {
                        return Ok(None);
                    };
                    copy.state = CopyState::Live;
                    copies::write(session, blob, copy, now).await?;
                    give_up(session, blob, from, &all, now).await?;
                    Ok::<_, Fault>(Some(Copied::Live(locked.size)))
                })
            })
            .await
    }
}

/// Which side of a copy failed.
enum Failed {
    Source(Fault),
    Target(Fault),
}

/// Whether a copy is there or is to come.
fn is_wanted(all: &[AnyCopy], backend: i64) -> bool {
    all.iter()
        .any(|copy| copy.backend == backend && copy.state != CopyState::Deleting)
}

/// Gives up the copy at `from`; the caller knows another one to be live. A copy that was never written just goes.
async fn give_up(
    session: &mut Session,
    blob: BlobId,
    from: Option<i64>,
    all: &[AnyCopy],
    now: Millis,
) -> Result<(), Fault> {
    let Some(old) = all.iter().find(|copy| Some(copy.backend) == from) else {
        return Ok(());
    };
    match old.state {
        CopyState::Live => {
            let old = AnyCopy {
                state: CopyState::Deleting,
                ..old.clone()
            };
            copies::write(session, blob, &old, now).await
        }
        CopyState::Missing => copies::remove(session, blob, old.backend).await,
        CopyState::Deleting => Ok(()),
    }
}

pub(super) fn parse(name: &str) -> Result<CopyName, Fault> {
    CopyName::parse(name)
        .ok_or_else(|| Fault::new(Kind::Corrupt, "copy blob").context(format_args!("name {name}")))
}
