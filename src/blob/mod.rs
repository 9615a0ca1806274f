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

pub use config::{BackendConfig, Durability, Limits};
pub use name::BlobName;

/// What an [`Observer`] is told about one operation at a backend.
#[derive(Debug)]
pub struct Observation<'a> {
    /// The configured name of the backend.
    pub backend: &'a str,
    /// A fixed short phrase such as `"read blob"`, the same as in faults.
    pub operation: &'static str,
    /// From the call to its answer, waiting for a turn not counted.
    pub elapsed: Duration,
    /// Why it failed, if it did.
    pub fault: Option<Kind>,
}

/// Called at the end of every operation at a backend; it must neither block nor panic.
pub type Observer = Arc<dyn Fn(&Observation<'_>) + Send + Sync>;

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

impl BlobStore {
    /// Opens every backend, tries what each can do, and logs the answer. Roots of file systems are created.
    ///
    /// Fails with [`Kind::Config`], naming the backend, when a configuration cannot work. A service that does
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
        for (name, config) in backends {
            let watch = Watch {
                backend: name.as_str().into(),
                observer: observer.clone(),
            };
            let cleanups = cleanups.clone();
            let backend = if config.service == fs::SERVICE {
                let store =
                    fs::Store::open(config, durability, buffers.clone(), watch, cleanups).await?;
                Backend::Fs(Arc::new(store))
            } else {
                let store = dal::Store::open(config, parts.clone(), watch, cleanups).await?;
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
        name: &BlobName,
        range: Range<u64>,
    ) -> Result<Reader, Fault> {
        let found = self.backend(backend, "read blob")?;
        if range.is_empty() {
            return Ok(Reader {
                inner: ReaderKind::Empty,
            });
        }
        let inner = match found {
            Backend::Fs(store) => ReaderKind::Fs(store.read(*name, range).await?),
            Backend::Dal(store) => ReaderKind::Dal(Box::new(store.read(*name, range).await?)),
        };
        Ok(Reader { inner })
    }

    /// Deletes a blob; one that is not there is a success. Not synced: after a crash it may be back.
    pub async fn delete(&self, backend: &str, name: &BlobName) -> Result<(), Fault> {
        match self.backend(backend, "delete blob")? {
            Backend::Fs(store) => store.delete(*name).await,
            Backend::Dal(store) => store.delete(*name).await,
        }
    }

    /// The length of a blob; [`Kind::NotFound`] when the backend says that it is not there.
    pub async fn size(&self, backend: &str, name: &BlobName) -> Result<u64, Fault> {
        match self.backend(backend, "measure blob")? {
            Backend::Fs(store) => store.size(*name).await,
            Backend::Dal(store) => store.size(*name).await,
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

    /// The largest blob that a backend takes, `None` when there is no limit that matters.
    pub fn blob_max_bytes(&self, backend: &str) -> Result<Option<u64>, Fault> {
        Ok(match self.backend(backend, "write blob")? {
            Backend::Fs(_) => None,
            Backend::Dal(store) => store.blob_max_bytes(),
        })
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

    /// How many names were passed over so far because they are not ours.
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
    fn record<T>(&self, operation: &'static str, started: Instant, result: &Result<T, Fault>) {
        (self.observer)(&Observation {
            backend: &self.backend,
            operation,
            elapsed: started.elapsed(),
            fault: result.as_ref().err().map(Fault::kind),
        });
    }

    fn fault(&self, kind: Kind, operation: &'static str, name: &BlobName) -> Fault {
        Fault::new(kind, operation)
            .context(format_args!("backend {}", self.backend))
            .context(format_args!("blob {name}"))
    }

    fn config_fault(&self, problem: impl std::fmt::Display) -> Fault {
        Fault::new(Kind::Config, "open backend")
            .context(format_args!("backend {}", self.backend))
            .context(problem)
    }
}
