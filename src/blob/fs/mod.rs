//! Blobs as files of this machine.
//!
//! A blob is written under its final name at once: no row names it before it is finished, so a torn file is
//! no more than a blob that nobody names. Finishing syncs the file, then its directory; the directories are
//! made, synced and kept open from the start. Blocking calls run on the runtime's blocking threads, one hop
//! per call of ours. A read first asks for what is in the page cache, on the calling thread; only what is not
//! costs a hop, and the next piece is then read ahead while the client takes this one.

mod directory;
mod read;
mod write;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::task::TaskTracker;

use self::directory::{Directory, is_bare, open_directories};
use super::buffers::Buffers;
use super::config::{BackendConfig, Durability};
use super::{Backend, BlobName, Claim, CopyName, MARKER, Watch};
use crate::model::fault::{Fault, Kind};

pub(super) use self::read::{List, Reader};
pub(super) use self::write::Writer;

/// The service name that selects this module.
pub(super) const SERVICE: &str = "fs";
/// A range at least this long is announced as sequential, which widens the kernel's read-ahead.
const LONG_RANGE_BYTES: u64 = 1 << 20;

/// What is wrong with the options.
pub(super) fn check(config: &BackendConfig) -> Result<(), String> {
    root_of(config).map(|_| ())
}

fn root_of(config: &BackendConfig) -> Result<&str, String> {
    if let Some(odd) = config.options.keys().find(|key| *key != "root") {
        return Err(format!(
            "options: {SERVICE} has no option `{odd}`; it has root"
        ));
    }
    config
        .options
        .get("root")
        .map(String::as_str)
        .filter(|root| !root.is_empty())
        .ok_or_else(|| "options: missing option `root`".to_owned())
}

/// Whether two configurations name one directory. What is not there yet is compared by name.
pub(super) fn is_one_place(one: &BackendConfig, other: &BackendConfig) -> bool {
    let directory = |config: &BackendConfig| {
        let root = Path::new(root_of(config).ok()?);
        std::fs::canonicalize(root)
            .or_else(|_| std::path::absolute(root))
            .ok()
    };
    directory(one).is_some_and(|root| Some(root) == directory(other))
}

/// A directory tree of blobs.
pub(super) struct Store {
    root: PathBuf,
    /// Which directory of the machine it is, whatever names it has: device and inode.
    place: (u64, u64),
    /// Whether nothing lay there when it was opened.
    was_bare: bool,
    directories: Vec<Arc<Directory>>,
    durability: Durability,
    blob_max_bytes: u64,
    buffers: Buffers,
    /// Set once the file system refuses to say what is cached.
    cache_unknown: AtomicBool,
    watch: Watch,
    cleanups: TaskTracker,
}

impl Store {
    pub(super) async fn open(
        config: &BackendConfig,
        durability: Durability,
        buffers: Buffers,
        watch: Watch,
        cleanups: TaskTracker,
        others: &BTreeMap<String, Backend>,
    ) -> Result<Self, Fault> {
        let root = root_of(config).map_err(|problem| watch.config_fault(problem))?;
        let root = PathBuf::from(root);
        let path = root.clone();
        let opened = spawn_blocking(move || {
            let was_bare = is_bare(&path)?;
            let directories = open_directories(&path)?;
            let found = std::fs::metadata(&path)?;
            Ok::<_, io::Error>((was_bare, directories, (found.dev(), found.ino())))
        });
        let (was_bare, directories, place) = opened
            .await
            .map_err(|error| lost_thread("open backend", error))?
            .map_err(|error| watch.config_fault(root.display()).source(error))?;
        let is_same = |it: &Backend| matches!(it, Backend::Fs(store) if store.place == place);
        if let Some((other, _)) = others.iter().find(|(_, it)| is_same(it)) {
            return Err(watch.same_place(other));
        }
        tracing::info!(
            backend = &*watch.backend,
            service = SERVICE,
            root = %root.display(),
            ?durability,
            "backend open"
        );
        Ok(Self {
            root,
            place,
            was_bare,
            directories,
            durability,
            blob_max_bytes: config.blob_max_bytes,
            buffers,
            cache_unknown: AtomicBool::new(false),
            watch,
            cleanups,
        })
    }

    pub(super) fn blob_max_bytes(&self) -> u64 {
        self.blob_max_bytes
    }

    pub(super) fn was_bare(&self) -> bool {
        self.was_bare
    }

    /// Whether a blob is there, for the start.
    pub(super) fn holds(&self, name: &BlobName) -> bool {
        self.root.join(name.path()).exists()
    }

    pub(super) fn create(self: &Arc<Self>, name: BlobName) -> Writer {
        Writer::new(self.clone(), name)
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        name: CopyName,
        range: Range<u64>,
    ) -> Result<Reader, Fault> {
        let started = Instant::now();
        let result = self.open_file(&name).await.and_then(|(file, size)| {
            if size < range.end {
                return Err(self
                    .watch
                    .fault(Kind::Corrupt, "open blob", &name)
                    .context(format_args!("{size} bytes long, read up to {}", range.end)));
            }
            Ok(file)
        });
        self.watch
            .record("open blob", started, Duration::ZERO, &result);
        let file = result?;
        let len = range.end - range.start;
        if len >= LONG_RANGE_BYTES {
            // A hint: what it answers changes nothing.
            let _ =
                rustix::fs::fadvise(&file, range.start, NonZeroU64::new(len), Advice::Sequential);
        }
        Ok(Reader::new(self.clone(), name, file, range))
    }

    /// The file and its length. Without a hop when the name is in the kernel's cache.
    async fn open_file(&self, name: &CopyName) -> Result<(File, u64), Fault> {
        let Some(ours) = name.ours().copied() else {
            return self.open_adopted(name).await;
        };
        let directory = self.directory(&ours);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let cached = rustix::fs::openat2(
            &directory.handle,
            ours.as_str(),
            flags,
            Mode::empty(),
            ResolveFlags::CACHED,
        );
        let opened = match cached {
            Ok(handle) => Ok(handle),
            // Not cached, not known to this kernel, or a failure that the plain call will repeat.
            Err(_) => spawn_blocking(move || {
                rustix::fs::openat(&directory.handle, ours.as_str(), flags, Mode::empty())
            })
            .await
            .map_err(|error| lost_thread("open blob", error))?,
        };
        let file = File::from(
            opened.map_err(|error| self.read_fault("open blob", name, io::Error::from(error)))?,
        );
        let size = file
            .metadata()
            .map_err(|error| self.read_fault("open blob", name, error))?
            .len();
        Ok((file, size))
    }

    /// A file that another system wrote: nothing of it is kept open.
    async fn open_adopted(&self, name: &CopyName) -> Result<(File, u64), Fault> {
        let path = self.root.join(name.path());
        let opened = spawn_blocking(move || {
            // Without waiting for whoever would write into a pipe.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
            let found = file.metadata()?;
            match found.is_file() {
                true => Ok((file, found.len())),
                false => Err(io::Error::from(io::ErrorKind::NotFound)),
            }
        });
        opened
            .await
            .map_err(|error| lost_thread("open blob", error))?
            .map_err(|error| self.read_fault("open blob", name, error))
    }

    pub(super) async fn delete(&self, name: CopyName) -> Result<(), Fault> {
        let started = Instant::now();
        let unlinked = match name.ours().copied() {
            Some(ours) => {
                let directory = self.directory(&ours);
                spawn_blocking(move || directory.unlink(&ours))
            }
            None => {
                let path = self.root.join(name.path());
                spawn_blocking(move || match std::fs::remove_file(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                })
            }
        };
        let result = unlinked
            .await
            .map_err(|error| lost_thread("delete blob", error))
            .and_then(|result| {
                result.map_err(|error| self.write_fault("delete blob", &name, error))
            });
        self.watch
            .record("delete blob", started, Duration::ZERO, &result);
        result
    }

    pub(super) async fn size(&self, name: &CopyName) -> Result<u64, Fault> {
        let started = Instant::now();
        let result = self.open_file(name).await.map(|(_, size)| size);
        self.watch
            .record("measure blob", started, Duration::ZERO, &result);
        result
    }

    /// Writes the marker, on stable storage. One that is empty is what a crash left.
    pub(super) async fn mark(&self, text: &str, claim: Claim) -> Result<(), Fault> {
        let started = Instant::now();
        let (root, text) = (self.root.clone(), text.to_owned());
        let written = spawn_blocking(move || {
            let path = root.join(MARKER);
            let is_there = std::fs::metadata(&path).is_ok_and(|found| found.len() > 0);
            if claim == Claim::IfNone && is_there {
                return Ok(());
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            File::open(root)?.sync_all()
        });
        let result = written
            .await
            .map_err(|error| lost_thread("write blob", error))
            .and_then(|result| {
                let name = CopyName::marker();
                result.map_err(|error| self.write_fault("write blob", name, error))
            });
        self.watch
            .record("write blob", started, Duration::ZERO, &result);
        result
    }

    /// From the directory `first` on.
    pub(super) fn list(self: &Arc<Self>, first: usize) -> List {
        List::new(self.clone(), first)
    }

    fn directory(&self, name: &BlobName) -> Arc<Directory> {
        self.directories[name.directory()].clone()
    }

    /// Makes every read take the way through a blocking thread.
    #[cfg(test)]
    pub(super) fn forget_page_cache(&self) {
        self.cache_unknown.store(true, Ordering::Relaxed);
    }

    /// What is in the page cache at `offset`, as far as `buffer` reaches; `None` when that cannot be told.
    fn read_cached(&self, file: &File, buffer: &mut [u8], offset: u64) -> Option<usize> {
        if self.cache_unknown.load(Ordering::Relaxed) {
            return None;
        }
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Some(read),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.cache_unknown.store(true, Ordering::Relaxed);
                None
            }
            // Not cached, or an error that the plain read will repeat.
            Err(_) => None,
        }
    }

    fn read_fault(
        &self,
        operation: &'static str,
        name: impl Into<CopyName>,
        error: io::Error,
    ) -> Fault {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            _ => kind_of(&error),
        };
        self.watch.fault(kind, operation, name).source(error)
    }

    fn write_fault(
        &self,
        operation: &'static str,
        name: impl Into<CopyName>,
        error: io::Error,
    ) -> Fault {
        self.watch
            .fault(kind_of(&error), operation, name)
            .source(error)
    }
}

/// What an error says when it does not speak of a blob that is read.
fn kind_of(error: &io::Error) -> Kind {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Kind::Full,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Kind::Busy,
        Some(Errno::EXIST) => Kind::Internal,
        _ => Kind::Unavailable,
    }
}

fn lost_thread(operation: &'static str, error: JoinError) -> Fault {
    // Cancelled means that the runtime is shutting down.
    let kind = if error.is_panic() {
        Kind::Internal
    } else {
        Kind::Unavailable
    };
    Fault::new(kind, operation).source(error)
}
