//! Writing manifests: what changed, or everything, as objects at a backend.
//!
//! Order of steps: claim a number; read in one snapshot of the database while objects are written, each recorded
//! before its first byte; make the manifest count; delete the changes it holds; delete objects it made useless.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::format::{Encoder, Head, ManifestKey, encode_group};
use crate::blob::{BlobName, BlobStore, Writer};
use crate::keys::{MasterKey, fill};
use crate::meta::catalog::{self, Group, TABLES, Table, Value};
use crate::meta::manifests::{self, PartRow};
use crate::meta::{MetaStore, Session};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};

/// How long a claim holds without news of its writer.
const LEASE: Duration = Duration::from_secs(300);
/// Bytes of an object after which the next one begins.
const PART_BYTES: u64 = 32 << 20;
/// Bytes of groups that are sealed together.
const FRAME_BYTES: usize = 256 << 10;
/// Frames that wait to be written.
const FRAMES_WAITING: usize = 2;
/// Rows and changes read by one statement.
const PAGE: usize = 200;
/// Rows of contents, which may have their bytes with them.
const CONTENTS_PAGE: usize = 32;
/// Objects of segments after which a snapshot takes their place.
const SEGMENTS_MAX: u64 = 1000;
/// Bytes by which segments may outgrow their snapshot before the next one takes their place.
const SLACK_BYTES: u64 = 16 << 20;
/// Changes deleted by one transaction.
const DELETED_AT_ONCE: i64 = 1000;

/// What a writer of manifests is made of.
pub struct Parts {
    /// The rows.
    pub meta: MetaStore,
    /// The bytes.
    pub blobs: BlobStore,
    /// What manifests are encrypted under.
    pub master_key: MasterKey,
    /// The time.
    pub clock: Clock,
    /// The backend that manifests go to.
    pub backend: String,
}

/// The writer of manifests.
pub struct Manifests {
    meta: MetaStore,
    blobs: BlobStore,
    key: ManifestKey,
    clock: Clock,
    backend: String,
    holder: i64,
    /// Whether this process has seen that what earlier ones wrote is at the backend still. Held while one is written.
    verified: Mutex<bool>,
}

/// What one manifest holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub seq: i64,
    /// Whether it holds everything.
    pub is_snapshot: bool,
    /// Groups of rows.
    pub groups: u64,
    /// Bytes at the backend.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    seq: i64,
    /// `None`: a snapshot is due.
    previous: Option<i64>,
    /// When it was claimed: what was committed before is in the manifest.
    claimed: Millis,
}

/// What the reader hands to the writer.
enum Piece {
    Groups {
        text: Vec<u8>,
        count: u64,
    },
    /// Everything was read.
    End,
}

impl Manifests {
    /// A writer to a backend that is configured.
    pub fn new(parts: Parts) -> Result<Self, Fault> {
        if !parts.blobs.backends().any(|name| name == parts.backend) {
            return Err(
                Fault::new(Kind::Config, "open manifests").context(format_args!(
                    "manifests.backend: no backend {} is configured",
                    parts.backend
                )),
            );
        }
        let mut holder = [0; 8];
        fill(&mut holder)?;
        Ok(Self {
            key: ManifestKey::of(&parts.master_key),
            meta: parts.meta,
            blobs: parts.blobs,
            clock: parts.clock,
            backend: parts.backend,
            holder: i64::from_be_bytes(holder),
            verified: Mutex::default(),
        })
    }

    /// Writes what changed since the newest manifest, or everything where that is due; `None` when nothing is, or
    /// another node is at it. What had been committed before the call is durable at the backend when this returns.
    ///
    /// May be dropped at any point, and called again.
    pub async fn write(&self) -> Result<Option<Written>, Fault> {
        let mut verified = self.verified.lock().await;
        let standing = self
            .meta
            .scan("find changes", |session| {
                Box::pin(manifests::standing(session))
            })
            .await?;
        let Some(standing) = standing else {
            return Ok(None);
        };
        if standing.tip.is_some() && !standing.has_changes && *verified {
            return Ok(None);
        }
        let whole = match standing.tip {
            Some(_) if *verified => true,
            Some(tip) => self.is_whole(tip).await?,
            None => false,
        };
        if whole && !standing.has_changes {
            *verified = true;
            return Ok(None);
        }
        let Some(claim) = self.claim(whole).await? else {
            return Ok(None);
        };
        let written = match self.write_claimed(claim).await {
            Ok(written) => written,
            Err(fault) => {
                let holder = self.holder;
                let given_up = self.meta.transact("give up manifest", move |session| {
                    Box::pin(manifests::give_up(session, holder))
                });
                // The claim ends by itself as well.
                let _: Result<(), Fault> = given_up.await;
                return Err(fault);
            }
        };
        *verified = true;
        self.clean(claim.seq).await?;
        Ok(Some(written))
    }

    /// Whether every object of the chain up to `tip` is at its backend still, and that is the one manifests go to: what
    /// lies where they went before is not to stay there.
    async fn is_whole(&self, tip: i64) -> Result<bool, Fault> {
        let parts = self
            .meta
            .scan("find manifest", move |session| {
                Box::pin(async move {
                    let extent = manifests::extent(session, tip).await?;
                    match extent.snapshot {
                        Some(from) => manifests::live_parts(session, from, tip).await,
                        None => Ok(Vec::new()),
                    }
                })
            })
            .await?;
        for part in &parts {
            if part.backend != self.backend {
                tracing::info!(
                    from = part.backend,
                    to = self.backend,
                    "manifests go elsewhere"
                );
                return Ok(false);
            }
            let is_there = match BlobName::parse(&part.name) {
                Some(name) => match self.blobs.size(&part.backend, &name).await {
                    Ok(_) => true,
                    Err(fault) if fault.kind() == Kind::NotFound => false,
                    Err(fault) => return Err(fault),
                },
                None => false,
            };
            if !is_there {
                tracing::warn!(backend = part.backend, name = part.name, "manifest is gone");
                return Ok(false);
            }
        }
        Ok(!parts.is_empty())
    }

    async fn claim(&self, is_whole: bool) -> Result<Option<Claim>, Fault> {
        let (holder, now) = (self.holder, self.clock.now());
        let until = now + LEASE.as_millis() as Millis;
        let claimed = self
            .meta
            .transact("claim manifest", move |session| {
                Box::pin(async move {
                    let Some((seq, tip)) = manifests::claim(session, holder, now, until).await?
                    else {
                        return Ok::<_, Fault>(None);
                    };
                    let extent = match tip {
                        Some(tip) => manifests::extent(session, tip).await?,
                        None => manifests::Extent::default(),
                    };
                    Ok(Some((seq, tip, extent)))
                })
            })
            .await?;
        Ok(claimed.map(|(seq, tip, extent)| {
            let is_grown = extent.segments >= SEGMENTS_MAX
                || extent.segment_bytes > extent.snapshot_bytes + SLACK_BYTES;
            let follows = is_whole && extent.snapshot.is_some() && !is_grown;
            Claim {
                seq,
                previous: tip.filter(|_| follows),
                claimed: now,
            }
        }))
    }

    async fn write_claimed(&self, claim: Claim) -> Result<Written, Fault> {
        let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
        let is_snapshot = claim.previous.is_none();
        let reading = self.meta.snapshot("read manifest", move |session| {
            Box::pin(read(session, is_snapshot, sender))
        });
        let (read, stored) = futures::join!(reading, self.store(claim, receiver));
        // Where the reader failed, the other only says that it ended early.
        let (ids, groups) = read?;
        let sizes = stored?;
        let (holder, seq) = (self.holder, claim.seq);
        let bytes = sizes.iter().sum();
        self.meta
            .transact("commit manifest", move |session| {
                let sizes = sizes.clone();
                Box::pin(async move {
                    manifests::commit(session, holder, seq, is_snapshot, &sizes).await
                })
            })
            .await?;
        for run in ids.chunks() {
            self.meta
                .transact("delete changes", move |session| {
                    Box::pin(manifests::delete_changes(session, run.0, run.1))
                })
                .await?;
        }
        Ok(Written {
            seq,
            is_snapshot,
            groups,
            bytes,
        })
    }

    /// Writes what comes as objects, and answers their sizes. Nothing of it counts before the commit.
    async fn store(
        &self,
        claim: Claim,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<Vec<u64>, Fault> {
        let mut sizes = Vec::new();
        let mut open: Option<Object> = None;
        while let Some(piece) = pieces.recv().await {
            let mut object = match open.take() {
                Some(object) => object,
                None => self.begin(claim, sizes.len() as i64).await?,
            };
            match piece {
                Piece::Groups { text, count } => {
                    let bytes = object.encoder.groups(&text)?;
                    object.groups += count;
                    object.size += bytes.len() as u64;
                    object.writer.write(bytes.into()).await?;
                    if object.size < PART_BYTES {
                        open = Some(object);
                    } else {
                        sizes.push(object.finish(false).await?);
                    }
                }
                Piece::End => {
                    sizes.push(object.finish(true).await?);
                    return Ok(sizes);
                }
            }
        }
        Err(Fault::new(Kind::Internal, "write manifest").context("its rows ended early"))
    }

    async fn begin(&self, claim: Claim, part: i64) -> Result<Object, Fault> {
        let now = self.clock.now();
        let name = BlobName::new_manifest();
        let (holder, until) = (self.holder, now + LEASE.as_millis() as Millis);
        let row = PartRow {
            seq: claim.seq,
            part,
            backend: self.backend.clone(),
            name: name.as_str().to_owned(),
        };
        self.meta
            .transact("begin manifest", move |session| {
                let row = row.clone();
                Box::pin(async move { manifests::begin_part(session, holder, &row, until).await })
            })
            .await?;
        let head = Head {
            seq: claim.seq,
            part,
            previous: claim.previous,
            written: claim.claimed,
        };
        let (encoder, bytes) = Encoder::begin(&self.key, &head)?;
        let mut object = Object {
            encoder,
            writer: self.blobs.create(&self.backend, &name)?,
            size: bytes.len() as u64,
            groups: 0,
        };
        object.writer.write(bytes.into()).await?;
        Ok(object)
    }

    /// Deletes objects that are of no use beside the manifest `tip`. What fails is tried again after the next one.
    async fn clean(&self, tip: i64) -> Result<(), Fault> {
        loop {
            let parts = self
                .meta
                .scan("find old manifests", move |session| {
                    Box::pin(async move {
                        match manifests::extent(session, tip).await?.snapshot {
                            Some(from) => manifests::obsolete_parts(session, from, tip, PAGE).await,
                            None => Ok(Vec::new()),
                        }
                    })
                })
                .await?;
            if parts.is_empty() {
                return Ok(());
            }
            for part in parts {
                // One that is not configured any more keeps what it has.
                if let Some(name) = BlobName::parse(&part.name)
                    && self.blobs.backends().any(|name| name == part.backend)
                    && let Err(fault) = self.blobs.delete(&part.backend, &name).await
                {
                    tracing::warn!(%fault, "delete old manifest");
                    return Ok(());
                }
                self.meta
                    .transact("forget manifest", move |session| {
                        Box::pin(manifests::forget_part(session, part.seq, part.part))
                    })
                    .await?;
            }
        }
    }
}

/// An object while it is written.
struct Object {
    encoder: Encoder,
    writer: Writer,
    size: u64,
    groups: u64,
}

impl Object {
    async fn finish(mut self, is_last: bool) -> Result<u64, Fault> {
        let bytes = self.encoder.end(self.groups, is_last)?;
        self.writer.write(bytes.into()).await?;
        self.writer.finish().await
    }
}

/// Numbers in rising order, as runs without a gap: few, however many numbers there are.
#[derive(Debug, Default)]
struct Runs(Vec<(i64, i64)>);

impl Runs {
    fn push(&mut self, id: i64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => self.0.push((id, id)),
        }
    }

    /// The runs, none longer than one transaction deletes.
    fn chunks(&self) -> impl Iterator<Item = (i64, i64)> {
        self.0.iter().flat_map(|&(first, last)| {
            (first..=last)
                .step_by(DELETED_AT_ONCE as usize)
                .map(move |from| (from, last.min(from + DELETED_AT_ONCE - 1)))
        })
    }
}

/// Groups on their way to the writer.
struct Outlet {
    sender: mpsc::Sender<Piece>,
    text: Vec<u8>,
    count: u64,
    groups: u64,
}

impl Outlet {
    async fn put(&mut self, table: &Table, group: &Group) -> Result<(), Fault> {
        encode_group(table, group, &mut self.text);
        self.count += 1;
        self.groups += 1;
        if self.text.len() >= FRAME_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        if self.text.is_empty() {
            return Ok(());
        }
        let piece = Piece::Groups {
            text: std::mem::take(&mut self.text),
            count: std::mem::take(&mut self.count),
        };
        self.send(piece).await
    }

    async fn send(&self, piece: Piece) -> Result<(), Fault> {
        let sent = self.sender.send(piece).await;
        sent.map_err(|_| Fault::new(Kind::Unavailable, "write manifest").context("not written"))
    }
}

/// Reads what a manifest holds, in the one snapshot of `session`: the changes it makes good for, and their groups.
async fn read(
    session: &mut Session,
    is_snapshot: bool,
    sender: mpsc::Sender<Piece>,
) -> Result<(Runs, u64), Fault> {
    let mut outlet = Outlet {
        sender,
        text: Vec::new(),
        count: 0,
        groups: 0,
    };
    let ids = match is_snapshot {
        true => read_all(session, &mut outlet).await?,
        false => read_changed(session, &mut outlet).await?,
    };
    outlet.flush().await?;
    outlet.send(Piece::End).await?;
    Ok((ids, outlet.groups))
}

async fn read_changed(session: &mut Session, outlet: &mut Outlet) -> Result<Runs, Fault> {
    let mut ids = Runs::default();
    let mut after = 0;
    loop {
        let page = manifests::changes(session, after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(ids);
        };
        after = *last;
        // A key that changes often stands in many changes.
        let mut seen = BTreeSet::new();
        for (id, entries) in page {
            ids.push(id);
            for (table, key) in catalog::decode_changes(&entries)? {
                if seen.insert((table.id, key.clone())) {
                    let group = table.read(session, key).await?;
                    outlet.put(table, &group).await?;
                }
            }
        }
    }
}

async fn read_all(session: &mut Session, outlet: &mut Outlet) -> Result<Runs, Fault> {
    let mut ids = Runs::default();
    let mut after = 0;
    loop {
        let page = manifests::change_ids(session, after, PAGE * 10).await?;
        let Some(last) = page.last() else { break };
        after = *last;
        page.into_iter().for_each(|id| ids.push(id));
    }
    for table in TABLES {
        read_table(session, table, outlet).await?;
    }
    Ok(ids)
}

async fn read_table(
    session: &mut Session,
    table: &'static Table,
    outlet: &mut Outlet,
) -> Result<(), Fault> {
    let limit = match table.id == catalog::CONTENTS.id {
        true => CONTENTS_PAGE,
        false => PAGE,
    };
    let mut last: Option<Vec<Value>> = None;
    let mut open: Option<Group> = None;
    loop {
        let rows = table.page(session, last.as_deref(), limit).await?;
        let Some(row) = rows.last() else { break };
        last = Some(row[..table.primary].to_vec());
        for mut row in rows {
            let rest = row.split_off(table.group);
            match &mut open {
                Some(group) if group.key == row => group.rows.push(rest),
                _ => {
                    let next = Group {
                        key: row,
                        rows: vec![rest],
                    };
                    if let Some(group) = open.replace(next) {
                        outlet.put(table, &group).await?;
                    }
                }
            }
        }
    }
    match open {
        Some(group) => outlet.put(table, &group).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_exactly_the_numbers_they_were_given() {
        let mut runs = Runs::default();
        let given: Vec<i64> = [1..=3, 7..=7, 10..=2500].into_iter().flatten().collect();
        given.iter().for_each(|id| runs.push(*id));
        assert_eq!(runs.0.len(), 3);
        let held: Vec<i64> = runs
            .chunks()
            .flat_map(|(first, last)| first..=last)
            .collect();
        assert_eq!(held, given);
        assert!(
            runs.chunks()
                .all(|(first, last)| last - first < DELETED_AT_ONCE)
        );
    }
}
