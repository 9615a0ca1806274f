//! The store of immutable blobs: write once, read ranges, delete, list.
//!
//! It guarantees that a blob whose writer [finished](Writer::finish) is whole, and on stable storage where the
//! backend can promise that; that a reader gives exactly the range it was asked for or a fault, never a short
//! end; and that "not there" is answered only when the backend said so. Memory per stream is bounded.
//! Which blobs exist and what they mean is left to the layers above: names are random, and a blob that no
//! row names is found by listing.
//!
//! ```text
//!   BlobStore --+-- fs       a directory of this machine: own code, because it syncs directories and
//!               |            answers cached reads without a thread hop
//!               +-- dal      every other service, through OpenDAL
//! ```

mod buffers;
mod config;
mod dal;
mod fs;
mod name;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod suite;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use crate::model::fault::{Fault, Kind};

pub use config::{BackendConfig, Durability, Limits, shown};
pub use name::{BlobName, CopyName, MARKER};

/// The longest blob of any backend, unless its configuration says less: what a vendor takes in one object
/// differs, and this much all of them take.
pub const BLOB_MAX_BYTES: u64 = 4 << 30;
/// The shortest that a longest blob may be: shorter ones would make rows of contents instead of blobs.
pub const BLOB_MAX_AT_LEAST: u64 = 1 << 20;

/// Bytes of a marker that are read; no install's name is as long.
const MARKER_MAX_BYTES: u64 = 1024;

/// When a marker is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Where there is none.
    IfNone,
    /// In the place of any other.
    Always,
}

/// What an [`Observer`] is told of a backend.
#[derive(Debug)]
pub struct Observation<'a> {
    /// The configured name of the backend.
    pub backend: &'a str,
    /// What happened there.
    pub event: Event,
}

/// Something that happened at a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An operation has ended.
    Done {
        /// A fixed short phrase such as `"read blob"`, the same as in faults.
        operation: &'static str,
        /// From its turn to its answer.
        elapsed: Duration,
        /// How long it waited for its turn.
        waited: Duration,
        /// Why it failed, if it did.
        fault: Option<Kind>,
    },
    /// A request that failed for a passing reason is made again.
    Repeated {
        /// The kind of request, a fixed word such as `"read"`.
        request: &'static str,
    },
}

/// Called for every event at a backend; it must neither block nor panic.
pub type Observer = Arc<dyn Fn(&Observation<'_>) + Send + Sync>;

/// Says what is wrong with a backend's configuration, as far as that can be known without asking the backend.
/// The text begins with the setting at fault, below that of the backend, and holds no secret.
pub fn check(config: &BackendConfig) -> Result<(), String> {
    if !(BLOB_MAX_AT_LEAST..=BLOB_MAX_BYTES).contains(&config.blob_max_bytes) {
        return Err(format!(
            "blob_max_bytes: expected a number between {BLOB_MAX_AT_LEAST} and {BLOB_MAX_BYTES}"
        ));
    }
    if config.service == fs::SERVICE {
        fs::check(config)
    } else {
        dal::check(config)
    }
}

/// Whether two configurations lead to one place, as far as that is certain without asking: the sweep of each would find
/// what only the other's rows name. A directory below another, or a root below another in one bucket, is a place of its
/// own: every blob lies in a directory right below the root, and no listing looks further down.
pub fn is_one_place(one: &BackendConfig, other: &BackendConfig) -> bool {
    match (one.service == fs::SERVICE, other.service == fs::SERVICE) {
        (true, true) => fs::is_one_place(one, other),
        (false, false) => dal::is_one_place(one, other),
        _ => false,
    }
}

/// Where bytes live. Cheap to clone.
#[derive(Clone)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

struct Inner {
    backends: BTreeMap<String, Backend>,
    cleanups: TaskTracker,
}

enum Backend {
    Fs(Arc<fs::Store>),
    Dal(Arc<dal::Store>),
}

impl Backend {
    /// Whether a blob is there, as far as that can be told at the start.
    async fn holds(&self, name: &BlobName) -> bool {
        match self {
            Self::Fs(store) => store.holds(name),
            Self::Dal(store) => store.holds(name).await,
        }
    }
}

impl BlobStore {
    /// Opens every backend, tries what each can do, and logs the answer. Roots of file systems are created.
    ///
    /// Fails with [`Kind::Config`], naming the backend, when a configuration cannot work, or leads to a place that another
    /// one leads to. A service that does
    /// not answer is logged and opened all the same: the others must serve.
    pub async fn open(
        backends: &BTreeMap<String, BackendConfig>,
        durability: Durability,
        limits: &Limits,
        observer: Observer,
    ) -> Result<Self, Fault> {
        let cleanups = TaskTracker::new();
        let buffers = buffers::Buffers::new(limits.read_buffer_bytes);
        let parts = dal::PartBudget::new(limits.part_buffer_bytes);
        let mut open = BTreeMap::new();
        // Directories first: a service that leads to one of them is known by what it writes there.
        let is_disk = |config: &BackendConfig| config.service == fs::SERVICE;
        let disks = backends.iter().filter(|(_, config)| is_disk(config));
        let services = backends.iter().filter(|(_, config)| !is_disk(config));
        for (name, config) in disks.chain(services) {
            let watch = Watch {
                backend: name.as_str().into(),
                observer: observer.clone(),
            };
            check(config).map_err(|problem| watch.config_fault(problem))?;
            let cleanups = cleanups.clone();
            let backend = if is_disk(config) {
                let buffers = buffers.clone();
                let store = fs::Store::open(config, durability, buffers, watch, cleanups, &open);
                let store = store.await?;
                Backend::Fs(Arc::new(store))
            } else {
                let parts = parts.clone();
                let store = dal::Store::open(config, parts, watch, cleanups, &open).await?;
                Backend::Dal(Arc::new(store))
            };
            open.insert(name.clone(), backend);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                backends: open,
                cleanups,
            }),
        })
    }

    /// Begins a blob; nothing is asked of the backend before the first write.
    pub fn create(&self, backend: &str, name: &BlobName) -> Result<Writer, Fault> {
        let inner = match self.backend(backend, "write blob")? {
            Backend::Fs(store) => WriterKind::Fs(store.create(*name)),
            Backend::Dal(store) => WriterKind::Dal(Box::new(store.create(*name))),
        };
        Ok(Writer { inner })
    }

    /// Opens `range` of a blob. An empty range asks nothing of the backend.
    ///
    /// [`Kind::NotFound`] when the blob is not there, [`Kind::Corrupt`] when it is known to end before the
    /// range does.
    pub async fn read(
        &self,
        backend: &str,
        name: impl Into<CopyName>,
        range: Range<u64>,
    ) -> Result<Reader, Fault> {
        let (found, name) = (self.backend(backend, "read blob")?, name.into());
        if range.is_empty() {
            return Ok(Reader {
                inner: ReaderKind::Empty,
            });
        }
        let inner = match found {
            Backend::Fs(store) => ReaderKind::Fs(store.read(name, range).await?),
            Backend::Dal(store) => ReaderKind::Dal(Box::new(store.read(name, range).await?)),
        };
        Ok(Reader { inner })
    }

    /// Deletes a blob; one that is not there is a success. Not synced: after a crash it may be back.
    pub async fn delete(&self, backend: &str, name: impl Into<CopyName>) -> Result<(), Fault> {
        match self.backend(backend, "delete blob")? {
            Backend::Fs(store) => store.delete(name.into()).await,
            Backend::Dal(store) => store.delete(&name.into()).await,
        }
    }

    /// The length of a blob; [`Kind::NotFound`] when the backend says that it is not there.
    pub async fn size(&self, backend: &str, name: impl Into<CopyName>) -> Result<u64, Fault> {
        match self.backend(backend, "measure blob")? {
            Backend::Fs(store) => store.size(&name.into()).await,
            Backend::Dal(store) => store.size(&name.into()).await,
        }
    }

    /// Lists the objects of manifests at a backend, in no order.
    pub async fn list_manifests(&self, backend: &str) -> Result<Vec<BlobName>, Fault> {
        let inner = match self.backend(backend, "list manifests")? {
            Backend::Fs(store) => ListKind::Fs(store.list(name::MANIFESTS)),
            Backend::Dal(store) => ListKind::Dal(Box::new(store.list(Some(name::MANIFESTS)))),
        };
        let mut list = BlobList { inner };
        let mut found = Vec::new();
        while let Some(name) = list.next().await {
            let name = name?;
            if name.is_manifest() {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Lists every blob of a backend and the objects of manifests, in no order. Blobs written or deleted meanwhile may or may not appear.
    pub fn list(&self, backend: &str) -> Result<BlobList, Fault> {
        let inner = match self.backend(backend, "list blobs")? {
            Backend::Fs(store) => ListKind::Fs(store.list(0)),
            Backend::Dal(store) => ListKind::Dal(Box::new(store.list(None))),
        };
        Ok(BlobList { inner })
    }

    /// What the marker of a backend says; `None` where there is none, or an empty one that a crash left.
    pub async fn marker(&self, backend: &str) -> Result<Option<String>, Fault> {
        let name = CopyName::marker();
        let size = match self.size(backend, &name).await {
            Err(fault) if fault.kind() == Kind::NotFound => return Ok(None),
            size => size?.min(MARKER_MAX_BYTES),
        };
        let mut reader = self.read(backend, &name, 0..size).await?;
        let mut text = Vec::new();
        while let Some(bytes) = reader.next().await {
            text.extend_from_slice(&bytes?);
        }
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// Writes the marker of a backend. Of several that do so at a time where there was none one stays, as far as the
    /// service can promise that: look at it afterwards.
    pub async fn mark(&self, backend: &str, text: &str, claim: Claim) -> Result<(), Fault> {
        match self.backend(backend, "write blob")? {
            Backend::Fs(store) => store.mark(text, claim).await,
            Backend::Dal(store) => store.mark(text, claim).await,
        }
    }

    /// Deletes the marker of a backend.
    pub async fn unmark(&self, backend: &str) -> Result<(), Fault> {
        self.delete(backend, CopyName::marker()).await
    }

    /// Bytes of the longest blob that a backend takes: what was configured, or less where the service takes less.
    pub fn blob_max_bytes(&self, backend: &str) -> Result<u64, Fault> {
        Ok(match self.backend(backend, "write blob")? {
            Backend::Fs(store) => store.blob_max_bytes(),
            Backend::Dal(store) => store.blob_max_bytes(),
        })
    }

    /// Whether a backend is a directory of this machine, where reading costs nothing but the disk's time.
    pub fn is_disk(&self, backend: &str) -> bool {
        matches!(self.inner.backends.get(backend), Some(Backend::Fs(_)))
    }

    /// Whether a backend is a directory in which nothing lay when it was opened.
    pub fn was_bare(&self, backend: &str) -> bool {
        matches!(self.inner.backends.get(backend), Some(Backend::Fs(store)) if store.was_bare())
    }

    /// The names of the backends, in order.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.inner.backends.keys().map(String::as_str)
    }

    /// Waits until every writer has ended and what the unfinished ones left has been removed.
    /// For the end of the process, when no new writer is begun.
    pub async fn settle(&self) {
        self.inner.cleanups.close();
        self.inner.cleanups.wait().await;
    }

    fn backend(&self, name: &str, operation: &'static str) -> Result<&Backend, Fault> {
        // A row names a backend that the configuration has lost: nothing is known about its blobs.
        self.inner.backends.get(name).ok_or_else(|| {
            Fault::new(Kind::Unavailable, operation)
                .context(format_args!("no backend {name} is configured"))
        })
    }
}

/// One blob while it is written. Dropped unfinished, it removes in the background what it has written.
pub struct Writer {
    inner: WriterKind,
}

enum WriterKind {
    Fs(fs::Writer),
    Dal(Box<dal::Writer>),
}

impl Writer {
    /// Says how long the blob is expected to be, so that a short one reserves no more memory than it needs.
    #[must_use]
    pub fn expect_size(mut self, size_bytes: u64) -> Self {
        if let WriterKind::Dal(writer) = &mut self.inner {
            writer.expect_size(size_bytes);
        }
        self
    }

    /// Appends bytes. After a fault, or when the future is dropped, nothing but abort remains to be called.
    ///
    /// [`Kind::Full`] when the backend has no room, [`Kind::Busy`] when no part buffer or turn came free in
    /// time.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.inner {
            WriterKind::Fs(writer) => writer.write(bytes).await,
            WriterKind::Dal(writer) => writer.write(bytes).await,
        }
    }

    /// Completes the blob and answers its length. What is durable then is said at [`Durability`].
    /// After a fault the blob is removed, as it is when the future is dropped.
    pub async fn finish(self) -> Result<u64, Fault> {
        match self.inner {
            WriterKind::Fs(writer) => writer.finish().await,
            WriterKind::Dal(writer) => writer.finish().await,
        }
    }

    /// Removes what has been written, as well as that can be done. What remains, no row names.
    pub async fn abort(self) {
        match self.inner {
            WriterKind::Fs(writer) => writer.abort().await,
            WriterKind::Dal(writer) => writer.abort().await,
        }
    }
}

/// One range of a blob while it is read.
pub struct Reader {
    inner: ReaderKind,
}

enum ReaderKind {
    Empty,
    Fs(fs::Reader),
    Dal(Box<dal::Reader>),
}

impl Reader {
    /// The next bytes of the range, of any length but 0; `None` after exactly the whole range, or after a
    /// fault. When the future is dropped, the reader is of no more use.
    pub async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        match &mut self.inner {
            ReaderKind::Empty => None,
            ReaderKind::Fs(reader) => reader.next().await,
            ReaderKind::Dal(reader) => reader.next().await,
        }
    }
}

/// The blobs of a backend while they are listed.
pub struct BlobList {
    inner: ListKind,
}

enum ListKind {
    Fs(fs::List),
    Dal(Box<dal::List>),
}

impl BlobList {
    /// The next blob; `None` at the end. After a fault the listing ends, and is not complete.
    pub async fn next(&mut self) -> Option<Result<BlobName, Fault>> {
        match &mut self.inner {
            ListKind::Fs(list) => list.next().await,
            ListKind::Dal(list) => list.next().await,
        }
    }

    /// How many names were passed over so far because they are not ours. The marker is not counted.
    pub fn skipped(&self) -> u64 {
        match &self.inner {
            ListKind::Fs(list) => list.skipped(),
            ListKind::Dal(list) => list.skipped(),
        }
    }
}

/// Tells the observer about the operations of one backend.
#[derive(Clone)]
struct Watch {
    backend: Arc<str>,
    observer: Observer,
}

impl Watch {
    fn record<T>(
        &self,
        operation: &'static str,
        started: Instant,
        waited: Duration,
        result: &Result<T, Fault>,
    ) {
        self.tell(Event::Done {
            operation,
            elapsed: started.elapsed(),
            waited,
            fault: result.as_ref().err().map(Fault::kind),
        });
    }

    fn repeated(&self, request: &'static str) {
        self.tell(Event::Repeated { request });
    }

    fn tell(&self, event: Event) {
        (self.observer)(&Observation {
            backend: &self.backend,
            event,
        });
    }

    /// A fault names a blob of ours by its id alone: the name at the backend is the backend's business.
    fn fault(&self, kind: Kind, operation: &'static str, name: impl Into<CopyName>) -> Fault {
        Fault::new(kind, operation)
            .context(format_args!("backend {}", self.backend))
            .context(format_args!("blob {}", name.into().label()))
    }

    fn config_fault(&self, problem: impl std::fmt::Display) -> Fault {
        Fault::new(Kind::Config, "open backend")
            .context(format_args!("backend {}", self.backend))
            .context(problem)
    }

    fn same_place(&self, other: &str) -> Fault {
        self.config_fault(format_args!(
            "options: expected another place than that of backend {other}: each would take the other's blobs for \
             what no row names"
        ))
    }
}
