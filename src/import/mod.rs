//! An existing osproxy taken over: its numbers and its objects, where they lie.
//!
//! ```text
//!   Original  -->  plan  -->  Namespace::adopt
//!   rows of the old      which objects,    reads the bytes once, compares them with the row, and makes a version
//!   database, in order   in which order    of the old number; nothing is written to the backend
//! ```
//!
//! Numbers stay valid because they become the numbers of versions, and are never given a second time: no node mints
//! again as a worker whose numbers were adopted, below the newest of them. What was adopted is noted for good, so that
//! an import can be run again: it adopts what is new, and not what was deleted since.
//!
//! What cannot be adopted is reported by its number and left as it is. A store that does not answer ends the import.
//!
//! An object becomes ours to delete at the end of an import by which all rows that name it were adopted; until then it
//! stays, whatever becomes of the files that were.

mod ledger;
mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use serde::Serialize;

use crate::meta::MetaStore;
use crate::meta::adoptions::{self, Reserved};
use crate::meta::contents::Owner;
use crate::meta::nodes::COMMAND_WORKER;
use crate::meta::original::{OldFile, OldPart, Original};
use crate::model::bucket::Settings;
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, TenantId, Uid, minted_at, worker_of};
use crate::model::names::BucketName;
use crate::model::progress::{Progress, Tell};
use crate::namespace::{
    AdoptError, AdoptRequest, Condition, Foreign, Namespace, NewBucket, NotAdopted, Standing,
};

use ledger::Ledger;
pub use plan::Places;
use plan::{Plan, plan};

/// Files read from the old database in one go.
const PAGE: usize = 200;
/// Files adopted at a time.
const AT_A_TIME: usize = 4;
/// Most parts that a file can have.
const PARTS_MAX: usize = 10_000;
/// Refusals that are listed; the others are counted.
const LISTED_MAX: usize = 10_000;
/// The worker of a process that has its database for itself: what it minted is past, what it will mint is not.
const ONLY_WORKER: u16 = 0;
/// Nothing that was minted longer ago is minted again, however far clocks are apart.
const PAST: Millis = 86_400_000;

/// What an import is made of.
pub struct Import {
    /// The old database.
    pub original: Original,
    /// Where versions are made.
    pub namespace: Arc<Namespace>,
    /// Whose buckets they go to.
    pub tenant: TenantId,
    /// The region of buckets that are made.
    pub region: String,
    /// The buckets of the native API.
    pub names: Vec<BucketName>,
    /// Where objects lie.
    pub places: Places,
    /// Whether objects are handed over: once all files in them are adopted they are ours to delete.
    pub owned: bool,
    /// Where a file may be kept for as long as this takes.
    pub scratch: PathBuf,
    /// Which old numbers are never minted here.
    pub numbers: Numbers,
}

/// Why a file was not adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was never uploaded to its end.
    Unfinished,
    /// Its number is not one, or may be minted here.
    InvalidUid,
    /// Its name, size, MD5 or place is not one.
    InvalidRow,
    /// Its parts are not exactly those that make it up.
    Parts,
    /// No backend was named for its bucket.
    NoBackend,
    /// The backend says that its object is not there.
    Missing,
    /// Its object has another length.
    Size,
    /// Its bytes have another MD5.
    Md5,
    /// Its object was adopted before, and has been deleted or is another file's.
    ObjectInUse,
    /// Its number, or its key in the bucket, stands for something else here.
    Taken,
    /// Its bucket encrypts what is written to it.
    Encrypted,
    /// Its bytes cannot be read.
    Unreadable,
}

/// A file that was not adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Its number, in decimal digits.
    pub uid: String,
    /// Why.
    pub reason: Reason,
    /// What was found.
    pub detail: String,
}

impl Refusal {
    fn new(file: &OldFile, reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            uid: file.uid.to_string(),
            reason,
            detail: detail.into(),
        }
    }
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files that the old database names.
    pub files: u64,
    /// Files adopted now.
    pub adopted: u64,
    /// Their bytes.
    pub adopted_bytes: u64,
    /// Files adopted by an import before; some may have been deleted since.
    pub already: u64,
    /// Blobs whose objects became ours to delete now.
    pub handed_over: u64,
    /// How many were not adopted, by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// The first of them, in order.
    pub refusals: Vec<Refusal>,
}

impl Report {
    fn refuse(&mut self, refusal: Refusal) {
        *self.refused.entry(refusal.reason).or_default() += 1;
        if self.refusals.len() < LISTED_MAX {
            self.refusals.push(refusal);
        }
    }
}

/// Which numbers of an old database are never minted here: by worker, those below a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers(BTreeMap<u16, Millis>);

impl Numbers {
    /// Sees to it that the numbers of an old database are not minted here, as far as that can be done: not while a node
    /// holds their worker. To be called before this process becomes a node.
    pub async fn reserve(
        meta: &MetaStore,
        original: &Original,
        now: Millis,
    ) -> Result<Self, Fault> {
        let newest = original.newest().await?;
        let reserved = meta.transact("reserve ids", move |session| {
            let newest = newest.clone();
            Box::pin(async move {
                let mut below = BTreeMap::new();
                for (worker, uid) in newest {
                    let until = match worker {
                        ONLY_WORKER => now - PAST,
                        // Commands make no versions.
                        COMMAND_WORKER => Millis::MAX,
                        _ => match adoptions::reserve(session, worker, minted_at(uid) + 1).await? {
                            Reserved::Below(until) => until,
                            Reserved::Held => now - PAST,
                        },
                    };
                    below.insert(worker, until);
                }
                Ok::<_, Fault>(Self(below))
            })
        });
        reserved.await
    }

    fn contain(&self, uid: i64) -> bool {
        let below = self.0.get(&worker_of(uid));
        uid > 0 && below.is_some_and(|below| minted_at(uid) < *below)
    }
}

impl Import {
    /// Adopts all files that are not adopted yet, and then hands over the objects that no other file needs.
    pub async fn run(&self, tell: Tell<'_>) -> Result<Report, Fault> {
        let total = self.original.count().await?;
        let mut report = Report::default();
        let mut ledger = Ledger::create(&self.scratch)?;
        let mut after = i64::MIN;
        loop {
            let page = self.original.files(after, PAGE).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = last.id;
            let mut work = stream::iter(page)
                .map(|file| async move {
                    let outcome = self.adopt(&file).await;
                    (file, outcome)
                })
                .buffered(AT_A_TIME);
            while let Some((file, outcome)) = work.next().await {
                report.files += 1;
                match outcome? {
                    Outcome::Adopted(objects) => {
                        report.adopted += 1;
                        report.adopted_bytes +=
                            objects.iter().map(|object| object.size).sum::<u64>();
                        ledger.adopted(&objects)?;
                    }
                    Outcome::Already(objects) => {
                        report.already += 1;
                        ledger.adopted(&objects)?;
                    }
                    Outcome::Refused(refusal) => {
                        report.refuse(refusal);
                        ledger.needed(self.places.find(&file.object))?;
                    }
                }
                let total = total.max(report.files);
                tell(Progress::new("looking at files", report.files, Some(total)));
            }
        }
        if self.owned {
            report.handed_over = self.hand_over(ledger, tell).await?;
        }
        Ok(report)
    }

    /// Makes those objects ours to delete that files were adopted from and that no file needs which was not. What an
    /// import before this one left undone is done, too.
    async fn hand_over(&self, mut ledger: Ledger, tell: Tell<'_>) -> Result<u64, Fault> {
        let mut handed_over = 0;
        let mut after = BlobId(i64::MIN);
        let mut page = self.namespace.unsettled(after, PAGE).await?;
        if page.is_empty() {
            return Ok(0);
        }
        self.note_parts(&mut ledger).await?;
        while let Some(last) = page.last() {
            after = last.blob;
            let mut settled = Vec::new();
            for blob in &page {
                if ledger.is_free(&blob.objects)? {
                    settled.push(blob.blob);
                }
            }
            handed_over += settled.len() as u64;
            tell(Progress::new("handing objects over", handed_over, None));
            if !settled.is_empty() {
                self.namespace.hand_over(settled).await?;
            }
            page = self.namespace.unsettled(after, PAGE).await?;
        }
        Ok(handed_over)
    }

    /// Notes the objects of all parts whose file was not adopted, or is not there.
    async fn note_parts(&self, ledger: &mut Ledger) -> Result<(), Fault> {
        let mut after = i64::MIN;
        loop {
            let page = self.original.part_rows(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.id;
            let mut uids: Vec<Uid> = page.iter().map(|part| Uid(part.uid)).collect();
            uids.sort();
            uids.dedup();
            let adopted = self.namespace.adopted_among(uids).await?;
            for part in page {
                if !adopted.contains(&Uid(part.uid)) {
                    ledger.needed(self.places.find(&part.object))?;
                }
            }
        }
    }

    async fn adopt(&self, file: &OldFile) -> Result<Outcome, Fault> {
        match self.try_adopt(file).await {
            Ok(outcome) => Ok(outcome),
            Err(Failed::Refused(refusal)) => Ok(Outcome::Refused(refusal)),
            Err(Failed::Fault(fault)) => Err(fault.context(format_args!("file {}", file.uid))),
        }
    }

    async fn try_adopt(&self, file: &OldFile) -> Result<Outcome, Failed> {
        let refused = |reason, detail: &str| Err(Refusal::new(file, reason, detail).into());
        if !file.is_uploaded {
            return refused(Reason::Unfinished, "it was never uploaded to its end");
        }
        let uid = Uid(file.uid);
        match self.namespace.standing_of(uid).await? {
            Standing::Adopted => {
                // A row that was changed since names nothing that was adopted by it.
                let planned = self.plan(file).await?;
                return Ok(Outcome::Already(
                    planned.map_or_else(|_| Vec::new(), |plan| plan.objects),
                ));
            }
            Standing::Taken => return refused(Reason::Taken, "the number is in use here"),
            Standing::Free => {}
        }
        if !self.numbers.contain(file.uid) {
            return refused(
                Reason::InvalidUid,
                "it may be minted here: it is newer than the begin of this import, or a running node mints such numbers",
            );
        }
        let planned = self.plan(file).await?;
        let Plan {
            name,
            key,
            headers,
            objects,
            md5,
        } = planned.map_err(|(reason, detail)| Refusal::new(file, reason, detail))?;
        let bucket = self.names.get(name.place()).cloned();
        let bucket =
            bucket.ok_or_else(|| Fault::new(Kind::Internal, "import").context("bucket"))?;
        let new = NewBucket {
            tenant: self.tenant,
            name: bucket,
            region: self.region.clone(),
            object_lock: false,
            placement: None,
            settings: Settings::default(),
        };
        let bucket = self.namespace.ensure_bucket(new).await;
        let bucket = bucket.map_err(|condition| Failed::of(file, condition))?;
        let adopted = objects.clone();
        let request = AdoptRequest {
            bucket,
            key,
            uid,
            headers,
            modified: file.modified,
            objects,
            md5,
            owner: match self.owned {
                true => Owner::TheirsYet,
                false => Owner::Theirs,
            },
        };
        match self.namespace.adopt(request).await {
            Ok(()) => Ok(Outcome::Adopted(adopted)),
            Err(error) => Err(Failed::not_adopted(file, error)),
        }
    }

    async fn plan(&self, file: &OldFile) -> Result<Result<Plan, (Reason, String)>, Fault> {
        let parts: Vec<OldPart> = match file.parts {
            Some(_) => self.original.parts(file.uid, PARTS_MAX + 1).await?,
            None => Vec::new(),
        };
        Ok(plan(file, &parts, &self.places))
    }

    /// Ends the connection to the old database.
    pub async fn close(self) {
        self.original.close().await;
    }
}

/// What became of a file; of one that is adopted, with the objects that it is made of.
enum Outcome {
    Adopted(Vec<Foreign>),
    Already(Vec<Foreign>),
    Refused(Refusal),
}

/// Why a file was not adopted, or the import ends.
enum Failed {
    Refused(Refusal),
    Fault(Fault),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Failed {
    fn of(file: &OldFile, condition: Condition) -> Self {
        match condition {
            Condition::Fault(fault) => Self::Fault(fault),
            Condition::BucketTaken => Self::Fault(Fault::new(Kind::Config, "import").context(
                "a bucket of the native API belongs to another tenant; set native.bucket_prefix",
            )),
            condition => Refusal::new(file, Reason::Taken, format!("{condition:?}")).into(),
        }
    }

    fn not_adopted(file: &OldFile, error: NotAdopted) -> Self {
        let (reason, detail) = match error {
            NotAdopted::Taken => (
                Reason::Taken,
                "its key in the bucket, or its number, is in use here".to_owned(),
            ),
            NotAdopted::Deleted => (
                Reason::ObjectInUse,
                "its object was adopted before, and has been deleted or is another file's"
                    .to_owned(),
            ),
            NotAdopted::Md5(found) => (
                Reason::Md5,
                format!(
                    "MD5 {}, the row says {}",
                    plan::digits(&found),
                    file.object.md5
                ),
            ),
            NotAdopted::Encrypted => (
                Reason::Encrypted,
                "its bucket encrypts what is written to it; the object is not encrypted".to_owned(),
            ),
            NotAdopted::Objects(AdoptError::Missing(object)) => (
                Reason::Missing,
                format!("no object {} at backend {}", object.path, object.backend),
            ),
            NotAdopted::Objects(AdoptError::Size { object, found }) => (
                Reason::Size,
                format!(
                    "object {} at backend {} has {found} bytes, the row says {}",
                    object.path, object.backend, object.size
                ),
            ),
            NotAdopted::Objects(AdoptError::Path(object)) => (
                Reason::InvalidRow,
                format!("{} is not the path of an object", object.path),
            ),
            NotAdopted::Objects(AdoptError::Fault(fault)) if fault.kind() == Kind::Corrupt => {
                (Reason::Unreadable, fault.to_string())
            }
            NotAdopted::Objects(AdoptError::Fault(fault)) => return Self::Fault(fault),
            NotAdopted::Condition(condition) => return Self::of(file, condition),
        };
        Refusal::new(file, reason, detail).into()
    }
}
