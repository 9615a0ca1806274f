//! Rebuilding the namespace from manifests.
//!
//! 1. Find the objects of manifests at the backends and read their heads.
//! 2. Take the newest manifest that is whole, and those it follows down to a snapshot.
//! 3. Put them together in a scratch database, the newest state of each group of rows.
//! 4. Compare with what lies at the backends.
//! 5. Insert the rows, in an order in which each finds what it refers to (see [`load`](super::load)).
//!
//! The first four change nothing but the scratch file. An interrupted recovery begins again at the first step;
//! rows that are there already stay.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::{Decoder, Head, ManifestKey, Unreadable};
use super::load;
use super::report::{Report, UnnamedBlob};
use crate::blob::{BlobName, BlobStore, CopyName};
use crate::keys::MasterKey;
use crate::meta::MetaStore;
use crate::meta::catalog::{self, Table, Value};
use crate::meta::manifests::{self, PartRow};
use crate::meta::scratch::Scratch;
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};
use crate::model::finding::LostObject;
use crate::model::ids::{Uid, minted_at, worker_of};
use crate::model::progress::{Progress, Tell};

/// Bytes of an object that are read for its head.
const HEAD_BYTES: u64 = 64 << 10;
/// Groups read from the scratch database at a time.
pub(super) const PAGE: usize = 200;
/// Names listed between two notes of progress.
const NOTED_EVERY: u64 = 1000;

/// Kinds of marks in the scratch database.
pub(in crate::manifest) mod mark {
    /// Copies that rows name: backend, a zero byte, name.
    pub(in crate::manifest) const NAMED: u8 = 1;
    /// Blobs that are at a backend, written alike.
    pub(in crate::manifest) const LISTED: u8 = 2;
    /// Blobs without bytes, by id.
    pub(in crate::manifest) const MISSING_BLOB: u8 = 3;
    /// Contents without bytes, by id.
    pub(in crate::manifest) const MISSING_CONTENT: u8 = 4;
    /// What no two rows share.
    pub(in crate::manifest) const UNIQUE: u8 = 5;
}

/// Why a recovery came to nothing. The texts are for an operator and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is something in the database.
    #[error(
        "the database is not empty, and a recovery would mix with what it holds; move it away or name another one, and keep it until the recovery is done"
    )]
    NotEmpty,
    /// An interrupted recovery was made from other manifests.
    #[error(
        "this database holds the begin of a recovery from other manifests, or with another choice of what to skip; start again with an empty database"
    )]
    OtherSource,
    /// There is nothing to recover from.
    #[error(
        "no manifests at {0}; they are written while [manifests] enabled = true, and lie at the backend that manifests.backend names"
    )]
    NoManifests(String),
    /// No manifest opens.
    #[error(
        "none of the {0} manifest objects opens with this master key: it is not the one they were written under; restore master.key in the data directory or set OSPROXY_MASTER_KEY"
    )]
    WrongKey(usize),
    /// A manifest cannot be read.
    #[error("{0}; recover without it by --skip-broken, which leaves out what only it holds")]
    Broken(String),
    /// A manifest says more than this osproxy understands.
    #[error("{0}; use the osproxy that wrote it, or a newer one")]
    Newer(String),
    /// No manifest is whole.
    #[error("no manifest is whole: {0}; --skip-broken makes the best of what there is")]
    NoneWhole(String),
    /// Blobs lie at a backend that is not configured.
    #[error(
        "the manifests name a backend {0} that is not configured; add [backend.{0}] with the place its blobs are at"
    )]
    Backend(String),
    /// A store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// How a recovery is done.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The only backend whose manifests are looked at; `None`: all.
    pub from: Option<String>,
    /// Go on without manifests that are broken.
    pub skip_broken: bool,
    /// Write nothing.
    pub dry_run: bool,
    /// How long the sweep spares what no recovered row names, in milliseconds.
    pub spare: Millis,
}

/// What a recovery works on.
pub struct Recovery {
    /// The database to fill.
    pub meta: MetaStore,
    /// Where manifests and blobs are.
    pub blobs: BlobStore,
    /// What the manifests are encrypted under.
    pub master_key: MasterKey,
    /// The time.
    pub clock: Clock,
    /// The file of the scratch database.
    pub scratch: PathBuf,
}

/// An object of a manifest at a backend.
struct Object {
    backend: String,
    name: BlobName,
    size: u64,
    head: Head,
}

/// Rebuilds the namespace in an empty database, and says what it found.
pub async fn recover(
    recovery: &Recovery,
    options: &Options,
    tell: Tell<'_>,
) -> Result<Report, RecoverError> {
    let before = recovery
        .meta
        .scan("look at database", |session| {
            Box::pin(async move {
                let is_empty = manifests::is_empty(session).await?;
                Ok::<_, Fault>((is_empty, manifests::recovery(session).await?))
            })
        })
        .await?;
    let begun = match before {
        (_, Some(begun)) if !begun.is_done => Some(begun),
        (true, None) => None,
        _ => return Err(RecoverError::NotEmpty),
    };
    let mut run = Run {
        recovery,
        options,
        tell,
        key: ManifestKey::of(&recovery.master_key),
        report: Report {
            is_dry_run: options.dry_run,
            ..Report::default()
        },
        scratch: Scratch::create(&recovery.scratch)?,
        newest_id: 0,
        uids: BTreeMap::new(),
        adopted: BTreeMap::new(),
    };
    let objects = run.find().await?;
    let rows = objects.iter().map(|object| object.row()).collect();
    let chain = run.choose(objects).await?;
    let source = run.put_together(&chain).await?;
    if begun.is_some_and(|begun| begun.source != source) {
        return Err(RecoverError::OtherSource);
    }
    run.compare().await?;
    load::prune(&mut run.scratch, &mut run.report)?;
    run.count()?;
    if !options.dry_run {
        let plan = load::Plan {
            source,
            spare: options.spare,
            newest_id: run.newest_id(),
            adopted: std::mem::take(&mut run.adopted),
            parts: rows,
        };
        load::insert(recovery, &run.scratch, plan, tell).await?;
    }
    Ok(run.report)
}

struct Run<'a> {
    recovery: &'a Recovery,
    options: &'a Options,
    tell: Tell<'a>,
    key: ManifestKey,
    report: Report,
    scratch: Scratch,
    /// The newest id that was seen anywhere but in the rows of versions: ids go on above.
    newest_id: i64,
    /// The newest number of a version, by worker.
    uids: BTreeMap<u16, i64>,
    /// The newest number that was adopted, by worker.
    adopted: BTreeMap<u16, i64>,
}

impl Object {
    fn describe(&self) -> String {
        format!(
            "manifest {} (object {} of it, {} at backend {})",
            self.head.seq, self.head.part, self.name, self.backend
        )
    }

    fn row(&self) -> PartRow {
        PartRow {
            seq: self.head.seq,
            part: self.head.part,
            backend: self.backend.clone(),
            name: self.name.as_str().to_owned(),
        }
    }
}

/// The parts of one manifest, in order.
type Parts = Vec<Arc<Object>>;

impl Run<'_> {
    fn tell(&self, step: &'static str, done: u64, total: Option<u64>) {
        (self.tell)(Progress::new(step, done, total));
    }

    /// All objects of manifests that open.
    async fn find(&mut self) -> Result<Vec<Arc<Object>>, RecoverError> {
        let blobs = &self.recovery.blobs;
        let backends: Vec<String> = match &self.options.from {
            Some(name) if blobs.backends().any(|known| known == name) => vec![name.clone()],
            Some(name) => return Err(RecoverError::Backend(name.clone())),
            None => blobs.backends().map(str::to_owned).collect(),
        };
        let mut names = Vec::new();
        for backend in &backends {
            for name in blobs.list_manifests(backend).await? {
                names.push((backend.clone(), name));
            }
        }
        if names.is_empty() {
            return Err(RecoverError::NoManifests(backends.join(", ")));
        }
        let total = names.len();
        let (mut objects, mut broken) = (Vec::new(), Vec::new());
        for (done, (backend, name)) in names.into_iter().enumerate() {
            self.tell(
                "reading heads of manifests",
                done as u64,
                Some(total as u64),
            );
            match self.open(&backend, &name, Some(HEAD_BYTES)).await {
                Ok((_, head, size)) => objects.push(Arc::new(Object {
                    backend,
                    name,
                    size,
                    head,
                })),
                Err(Unreadable::Fault(fault)) => return Err(fault.into()),
                Err(Unreadable::Newer(why)) => return Err(RecoverError::Newer(why)),
                Err(Unreadable::NotOurs) => broken.push(format!(
                    "{name} at backend {backend}: its head does not open; it is damaged, or of another install"
                )),
                Err(Unreadable::Broken(why)) => {
                    broken.push(format!("{name} at backend {backend}: {why}"));
                }
            }
        }
        if objects.is_empty() {
            return Err(RecoverError::WrongKey(total));
        }
        for why in broken {
            self.skip(why)?;
        }
        Ok(objects)
    }

    async fn open(
        &self,
        backend: &str,
        name: &BlobName,
        at_most: Option<u64>,
    ) -> Result<(Decoder, Head, u64), Unreadable> {
        let blobs = &self.recovery.blobs;
        let size = blobs.size(backend, name).await?;
        let end = at_most.map_or(size, |at_most| at_most.min(size));
        let reader = blobs.read(backend, name, 0..end).await?;
        let (decoder, head) = Decoder::open(&self.key, reader).await?;
        Ok((decoder, head, size))
    }

    /// Goes on without something that is broken, if that is wanted.
    fn skip(&mut self, why: String) -> Result<(), RecoverError> {
        if !self.options.skip_broken {
            return Err(RecoverError::Broken(why));
        }
        self.report.skipped.push(why);
        Ok(())
    }

    /// The manifests to apply, oldest first: from a snapshot to the newest one that is whole.
    async fn choose(&mut self, objects: Vec<Arc<Object>>) -> Result<Vec<Parts>, RecoverError> {
        let mut manifests: BTreeMap<i64, Parts> = BTreeMap::new();
        for object in objects {
            manifests.entry(object.head.seq).or_default().push(object);
        }
        for parts in manifests.values_mut() {
            parts.sort_by_key(|object| object.head.part);
        }
        let all = manifests.len() as u64;
        let mut tip = None;
        for (seq, parts) in manifests.iter().rev() {
            if self.is_whole(parts).await? {
                tip = Some(*seq);
                break;
            }
        }
        let Some(mut seq) = tip else {
            let why = format!("{all} were begun and none was finished");
            return Err(RecoverError::NoneWhole(why));
        };
        let mut chain = Vec::new();
        loop {
            let Some(parts) = manifests.remove(&seq) else {
                self.skip(format!(
                    "manifest {seq} is missing, and newer ones follow it"
                ))?;
                // The next older one may hold what changed no more.
                match manifests.range(..seq).next_back() {
                    Some((older, _)) => seq = *older,
                    None => break,
                }
                continue;
            };
            let previous = parts[0].head.previous;
            chain.push(parts);
            match previous {
                Some(previous) => seq = previous,
                None => break,
            }
        }
        self.report.passed_over = all - chain.len() as u64;
        chain.reverse();
        Ok(chain)
    }

    /// Whether a manifest has all its objects, to the last.
    async fn is_whole(&mut self, parts: &Parts) -> Result<bool, RecoverError> {
        let is_gapless = parts
            .iter()
            .enumerate()
            .all(|(place, object)| object.head.part == place as i64);
        let Some(last) = parts.last().filter(|_| is_gapless) else {
            return Ok(false);
        };
        let outcome = async {
            let (mut decoder, ..) = self.open(&last.backend, &last.name, None).await?;
            while decoder.next().await?.is_some() {}
            Ok(decoder.is_last())
        };
        match outcome.await {
            Ok(is_last) => Ok(is_last),
            Err(Unreadable::Fault(fault)) => Err(fault.into()),
            Err(Unreadable::Newer(why)) => Err(RecoverError::Newer(why)),
            // It was finished, or it would not be there, and is damaged since.
            Err(Unreadable::Broken(why)) => {
                self.skip(format!("{}: {why}", last.describe()))?;
                Ok(false)
            }
            Err(Unreadable::NotOurs) => {
                self.skip(format!("{}: it does not open", last.describe()))?;
                Ok(false)
            }
        }
    }

    /// Applies manifests to the scratch database, and says which they were.
    async fn put_together(&mut self, chain: &[Parts]) -> Result<String, RecoverError> {
        let total: u64 = chain.iter().flatten().map(|object| object.size).sum();
        let mut source = String::new();
        for parts in chain {
            let is_ended = self.apply_all(parts, total).await?;
            if let Some(last) = parts.last() {
                if !is_ended {
                    self.skip(format!("{}: no object ends it", last.describe()))?;
                }
                source += &format!("{} ", last.head.seq);
                self.report.written = last.head.written;
                self.report.manifests += 1;
            }
        }
        source += &self.report.skipped.join(" ");
        Ok(source)
    }

    /// Applies the objects of one manifest; whether the last one ended it.
    async fn apply_all(&mut self, parts: &Parts, total: u64) -> Result<bool, RecoverError> {
        let mut is_ended = false;
        for (place, object) in parts.iter().enumerate() {
            if object.head.part != place as i64 {
                self.skip(format!(
                    "{}: an object before it is missing",
                    object.describe()
                ))?;
            }
            self.tell("reading manifests", self.report.bytes, Some(total));
            match self.apply(object).await {
                Ok(is_last) => is_ended = is_last,
                Err(Unreadable::Fault(fault)) => return Err(fault.into()),
                Err(Unreadable::Newer(why)) => return Err(RecoverError::Newer(why)),
                Err(Unreadable::Broken(why)) => {
                    self.skip(format!("{}: {why}", object.describe()))?;
                }
                Err(Unreadable::NotOurs) => {
                    self.skip(format!("{}: it does not open", object.describe()))?;
                }
            }
            self.report.objects += 1;
            self.report.bytes += object.size;
        }
        Ok(is_ended)
    }

    async fn apply(&mut self, object: &Object) -> Result<bool, Unreadable> {
        let (mut decoder, ..) = self.open(&object.backend, &object.name, None).await?;
        while let Some(groups) = decoder.next().await? {
            for (table, group) in groups {
                self.note_ids(table, &group)?;
                self.scratch.put(table, &group)?;
            }
        }
        Ok(decoder.is_last())
    }

    /// Remembers the newest number that was given to anything.
    fn note_ids(&mut self, table: &Table, group: &catalog::Group) -> Result<(), Fault> {
        let uid = table.column("uid");
        let Some(column) = uid.or_else(|| table.column("id")) else {
            return Ok(());
        };
        let is_adopted = table.id == catalog::ADOPTED_UIDS.id;
        for index in 0..group.rows.len().max(1) {
            if let Some(id) = group.row(index).nth(column).and_then(Value::int) {
                let newest = match (is_adopted, uid) {
                    (true, _) => self.adopted.entry(worker_of(id)).or_default(),
                    (false, Some(_)) => self.uids.entry(worker_of(id)).or_default(),
                    (false, None) => &mut self.newest_id,
                };
                *newest = id.max(*newest);
            }
        }
        Ok(())
    }

    /// Of a worker whose numbers were adopted none tells what was minted here: they may be years ahead. What its nodes
    /// minted beside them, contents and blobs, does.
    fn newest_id(&self) -> i64 {
        let own = self.uids.iter();
        let own = own.filter(|(worker, _)| !self.adopted.contains_key(worker));
        own.map(|(_, newest)| *newest)
            .fold(self.newest_id, i64::max)
    }

    /// Compares what the rows name with what lies at the backends.
    async fn compare(&mut self) -> Result<(), RecoverError> {
        let backends = self.backends()?;
        let mut listed = 0;
        for (id, name) in &backends {
            let blobs = &self.recovery.blobs;
            if !blobs.backends().any(|known| known == name) {
                // What was moved away from and is empty may be gone.
                if self.is_any_copy_at(*id)? {
                    return Err(RecoverError::Backend(name.clone()));
                }
                continue;
            }
            let mut list = blobs.list(name)?;
            while let Some(blob) = list.next().await {
                let blob = blob?;
                listed += 1;
                if listed % NOTED_EVERY == 0 {
                    self.tell("listing blobs", listed, None);
                }
                if !blob.is_manifest() {
                    self.newest_id = self.newest_id.max(blob.id());
                    self.scratch
                        .mark(mark::LISTED, &place(name, blob.as_str().as_bytes()))?;
                }
            }
        }
        let is_any_missing = self.find_missing(&backends).await?;
        if is_any_missing {
            self.find_without_bytes()?;
        }
        self.find_unnamed()
    }

    /// Whether any copy lies at a backend.
    fn is_any_copy_at(&self, id: i64) -> Result<bool, Fault> {
        let backend = catalog::COPIES.column("backend_id").unwrap_or_default();
        let mut after = None;
        loop {
            let copies = &catalog::COPIES;
            let page = self.scratch.page(copies, after.as_deref(), PAGE)?;
            let Some(last) = page.last() else {
                return Ok(false);
            };
            after = Some(last.key.clone());
            let is_there = |group: &catalog::Group| {
                let mut places = (0..group.rows.len()).map(|index| group.row(index).nth(backend));
                places.any(|place| place == Some(&Value::Int(id)))
            };
            if page.iter().any(is_there) {
                return Ok(true);
            }
        }
    }

    /// Names of backends by their ids.
    fn backends(&self) -> Result<BTreeMap<i64, String>, Fault> {
        let mut names = BTreeMap::new();
        for group in self
            .scratch
            .page(&catalog::BACKENDS, None, usize::MAX >> 1)?
        {
            let id = group.key[0].int();
            let name = group.row(0).nth(1);
            if let (Some(id), Some(Value::Text(name))) = (id, name) {
                names.insert(id, name.clone());
            }
        }
        Ok(names)
    }

    /// Marks blobs none of whose live copies is there.
    async fn find_missing(&mut self, backends: &BTreeMap<i64, String>) -> Result<bool, Fault> {
        let [backend, name, state] =
            ["backend_id", "name", "state"].map(|column| catalog::COPIES.column(column));
        let mut is_any = false;
        let mut after = None;
        loop {
            let page = self
                .scratch
                .page(&catalog::COPIES, after.as_deref(), PAGE)?;
            let Some(last) = page.last() else {
                return Ok(is_any);
            };
            after = Some(last.key.clone());
            for group in page {
                let (mut live, mut there) = (0, 0);
                for index in 0..group.rows.len() {
                    let of = |column: Option<usize>| column.and_then(|at| group.row(index).nth(at));
                    let backend = of(backend).and_then(Value::int);
                    let (Some(backend), Some(Value::Bytes(name))) =
                        (backend.and_then(|id| backends.get(&id)), of(name))
                    else {
                        continue;
                    };
                    let place = place(backend, name);
                    self.scratch.mark(mark::NAMED, &place)?;
                    if matches!(of(state), Some(Value::Text(state)) if state == "live") {
                        live += 1;
                        let is_there = match adopted_name(name) {
                            // No listing gives it.
                            Some(name) => self.is_there(backend, &name).await?,
                            None => self.scratch.is_marked(mark::LISTED, &place)?,
                        };
                        there += u32::from(is_there);
                    }
                }
                if live > 0 && there == 0 {
                    is_any = true;
                    self.scratch
                        .mark(mark::MISSING_BLOB, &number(&group.key[0]))?;
                }
            }
        }
    }

    /// Asks a backend for an adopted object.
    async fn is_there(&self, backend: &str, name: &CopyName) -> Result<bool, Fault> {
        match self.recovery.blobs.size(backend, name).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.kind() == Kind::NotFound => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Finds the versions whose bytes are, wholly or in part, in blobs that are missing.
    fn find_without_bytes(&mut self) -> Result<(), Fault> {
        let blob = catalog::CONTENTS.column("blob_id").unwrap_or_default();
        each(&mut self.scratch, &catalog::CONTENTS, |scratch, group| {
            let blob = group.row(0).nth(blob).map(number).unwrap_or_default();
            if scratch.is_marked(mark::MISSING_BLOB, &blob)? {
                scratch.mark(mark::MISSING_CONTENT, &number(&group.key[0]))?;
            }
            Ok(())
        })?;
        let child = catalog::EXTENTS.column("child_id").unwrap_or_default();
        // A composite may be made of composites.
        for _ in 0..2 {
            each(&mut self.scratch, &catalog::EXTENTS, |scratch, group| {
                for index in 0..group.rows.len() {
                    let child = group.row(index).nth(child).map(number).unwrap_or_default();
                    if scratch.is_marked(mark::MISSING_CONTENT, &child)? {
                        scratch.mark(mark::MISSING_CONTENT, &number(&group.key[0]))?;
                        break;
                    }
                }
                Ok(())
            })?;
        }
        let lost = &mut self.report.without_bytes;
        for table in [&catalog::OBJECTS, &catalog::VERSIONS] {
            let content = table.column("content_id").unwrap_or_default();
            each(&mut self.scratch, table, |scratch, group| {
                let content = group.row(0).nth(content).map(number).unwrap_or_default();
                if scratch.is_marked(mark::MISSING_CONTENT, &content)? {
                    lost.push(lost_object(scratch, table, &group)?);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Finds blobs that no row names.
    fn find_unnamed(&mut self) -> Result<(), RecoverError> {
        let mut after = Vec::new();
        loop {
            let page = self.scratch.marks(mark::LISTED, &after, PAGE)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after.clone_from(last);
            for place in page {
                if self.scratch.is_marked(mark::NAMED, &place)? {
                    continue;
                }
                let text = String::from_utf8_lossy(&place);
                let Some((backend, name)) = text.split_once('\0') else {
                    continue;
                };
                let Some(blob) = BlobName::parse(name) else {
                    continue;
                };
                let born = minted_at(blob.id());
                if born >= self.report.written {
                    self.report.newer_blobs.push(UnnamedBlob {
                        backend: backend.to_owned(),
                        name: name.to_owned(),
                        born,
                    });
                } else {
                    self.report.older_unnamed_blobs += 1;
                }
            }
        }
    }

    fn count(&mut self) -> Result<(), Fault> {
        let (scratch, report) = (&self.scratch, &mut self.report);
        for (table, count) in [
            (&catalog::TENANTS, &mut report.tenants),
            (&catalog::ACCESS_KEYS, &mut report.access_keys),
            (&catalog::BUCKETS, &mut report.buckets),
            (&catalog::OBJECTS, &mut report.keys),
            (&catalog::VERSIONS, &mut report.versions),
            (&catalog::CONTENTS, &mut report.contents),
            (&catalog::BLOBS, &mut report.blobs),
        ] {
            *count = scratch.count(table)?;
        }
        Ok(())
    }
}

/// Does something with each group of a table, also when that changes the table.
pub(super) fn each(
    scratch: &mut Scratch,
    table: &'static Table,
    mut act: impl FnMut(&mut Scratch, catalog::Group) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut after = None;
    loop {
        let page = scratch.page(table, after.as_deref(), PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.key.clone());
        for group in page {
            act(scratch, group)?;
        }
    }
}

/// What an operator knows a version by.
pub(super) fn lost_object(
    scratch: &Scratch,
    table: &Table,
    group: &catalog::Group,
) -> Result<LostObject, Fault> {
    let bucket = scratch.get(&catalog::BUCKETS, &group.key[..1])?;
    let name = bucket.as_ref().and_then(|bucket| bucket.row(0).nth(1));
    let key = match &group.key[1] {
        Value::Bytes(key) => String::from_utf8_lossy(key).into_owned(),
        _ => String::new(),
    };
    let bucket = match name {
        Some(Value::Text(name)) => name.clone(),
        _ => String::new(),
    };
    let number = |name| {
        let value = table.column(name).and_then(|at| group.row(0).nth(at));
        value.and_then(Value::int).unwrap_or_default()
    };
    Ok(LostObject {
        is_current: table.id == catalog::OBJECTS.id,
        ..LostObject::version(bucket, key, Uid(number("uid")), number("is_null") != 0)
    })
}

/// The name of a copy, if it is that of an adopted object.
fn adopted_name(name: &[u8]) -> Option<CopyName> {
    let name = CopyName::parse(std::str::from_utf8(name).ok()?)?;
    name.is_adopted().then_some(name)
}

/// A copy at a backend, as a mark.
fn place(backend: &str, name: &[u8]) -> Vec<u8> {
    [backend.as_bytes(), &[0], name].concat()
}

/// An id as a mark.
fn number(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}
