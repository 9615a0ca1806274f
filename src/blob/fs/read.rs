//! Reading ranges of blobs that are files, and listing the files.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::directory::is_shard;
use super::{Store, kind_of, lost_thread};
use crate::blob::buffers::Buffer;
use crate::blob::name::FAN_OUT;
use crate::blob::{BlobName, CopyName, MARKER};
use crate::model::fault::{Fault, Kind};

/// Names taken from a directory in one hop.
const LIST_BATCH: usize = 1024;

/// A range of a blob while it is read.
pub(in crate::blob) struct Reader {
    store: Arc<Store>,
    name: CopyName,
    file: Arc<File>,
    offset: u64,
    /// Where the range ends; moved to `offset` by a fault, after which nothing follows.
    end: u64,
    /// The piece at `offset`, while a blocking thread reads it.
    hop: Option<JoinHandle<Piece>>,
}

/// What a blocking thread has read.
struct Piece {
    buffer: Buffer,
    result: io::Result<()>,
    /// Whether some of it had to come from the disk.
    cold: bool,
}

impl Reader {
    pub(super) fn new(store: Arc<Store>, name: CopyName, file: File, range: Range<u64>) -> Self {
        Self {
            store,
            name,
            file: Arc::new(file),
            offset: range.start,
            end: range.end,
            hop: None,
        }
    }

    pub(in crate::blob) async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        if self.offset == self.end {
            return None;
        }
        let started = Instant::now();
        let result = self.piece().await;
        self.store
            .watch
            .record("read blob", started, Duration::ZERO, &result);
        match &result {
            Ok(bytes) => self.offset += bytes.len() as u64,
            Err(_) => self.end = self.offset,
        }
        Some(result)
    }

    async fn piece(&mut self) -> Result<Bytes, Fault> {
        let hop = match &mut self.hop {
            Some(hop) => hop,
            None => {
                let mut buffer = self.store.buffers.take(self.end - self.offset);
                let want = buffer.as_ref().len();
                let cached = self
                    .store
                    .read_cached(&self.file, buffer.as_mut(), self.offset);
                if cached == Some(want) {
                    return Ok(buffer.freeze(want));
                }
                let hop = self.start(buffer, self.offset);
                self.hop.insert(hop)
            }
        };
        let piece = hop.await;
        self.hop = None;
        let piece = piece.map_err(|error| lost_thread("read blob", error))?;
        piece.result.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self
                .store
                .watch
                .fault(Kind::Corrupt, "read blob", &self.name)
                .context(format_args!("ends before {}", self.end)),
            _ => self.store.read_fault("read blob", &self.name, error),
        })?;
        let len = piece.buffer.as_ref().len();
        let next = self.offset + len as u64;
        // One piece is read ahead, and only out of the pool: a client that does not drain holds two buffers
        // and no thread.
        if piece.cold
            && next < self.end
            && let Some(buffer) = self.store.buffers.take_pooled(self.end - next)
        {
            self.hop = Some(self.start(buffer, next));
        }
        Ok(piece.buffer.freeze(len))
    }

    fn start(&self, mut buffer: Buffer, offset: u64) -> JoinHandle<Piece> {
        let (store, file) = (self.store.clone(), self.file.clone());
        spawn_blocking(move || {
            let memory = buffer.as_mut();
            let cached = store.read_cached(&file, memory, offset).unwrap_or(0);
            let rest = &mut memory[cached..];
            let cold = !rest.is_empty();
            let result = file.read_exact_at(rest, offset + cached as u64);
            Piece {
                buffer,
                result,
                cold,
            }
        })
    }
}

/// The blobs of the tree while they are listed, one directory after the other, and then what lies beside them.
pub(in crate::blob) struct List {
    store: Arc<Store>,
    next_directory: usize,
    open: Option<std::fs::ReadDir>,
    /// Directories that are not of the tree, still to be looked through; `None` before the root was.
    others: Option<Vec<PathBuf>>,
    batch: VecDeque<BlobName>,
    skipped: u64,
}

impl List {
    pub(super) fn new(store: Arc<Store>, first: usize) -> Self {
        Self {
            store,
            next_directory: first,
            open: None,
            others: (first > 0).then(Vec::new),
            batch: VecDeque::new(),
            skipped: 0,
        }
    }

    pub(in crate::blob) fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(in crate::blob) async fn next(&mut self) -> Option<Result<BlobName, Fault>> {
        while self.batch.is_empty() {
            let filled = match self.open.is_some() || self.next_directory < FAN_OUT {
                true => self.fill().await,
                false => match self.others.as_ref().is_some_and(Vec::is_empty) {
                    true => return None,
                    false => self.count_others().await,
                },
            };
            if let Err(fault) = filled {
                self.open = None;
                self.next_directory = FAN_OUT;
                self.others = Some(Vec::new());
                return Some(Err(fault));
            }
        }
        self.batch.pop_front().map(Ok)
    }

    /// Counts what lies in one directory that is not of the tree: the root at first.
    async fn count_others(&mut self) -> Result<(), Fault> {
        let root = self.others.is_none().then(|| self.store.root.clone());
        let mut others = self.others.take().unwrap_or_default();
        let counted = spawn_blocking(move || match root {
            Some(root) => count_beside(&root, &mut others, is_ours).map(|count| (count, others)),
            None => match others.pop() {
                // It may be gone, or not for us to read: it is there, or was.
                Some(path) => {
                    let count = count_beside(&path, &mut others, |_| false).unwrap_or(1);
                    Ok((count, others))
                }
                None => Ok((0, others)),
            },
        });
        let counted = counted
            .await
            .map_err(|error| lost_thread("list blobs", error))?;
        let (count, others) = counted.map_err(|error| self.list_fault(&error))?;
        self.skipped += count;
        self.others = Some(others);
        Ok(())
    }

    fn list_fault(&self, error: &io::Error) -> Fault {
        Fault::new(kind_of(error), "list blobs")
            .context(format_args!("backend {}", self.store.watch.backend))
            .source(error.to_string())
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        let started = Instant::now();
        let path = self.store.root.join(format!("{:02x}", self.next_directory));
        let open = self.open.take();
        if open.is_none() {
            self.next_directory += 1;
        }
        let directory = self.next_directory - 1;
        let result = spawn_blocking(move || take_batch(open, &path, directory))
            .await
            .map_err(|error| lost_thread("list blobs", error))
            .and_then(|result| result.map_err(|error| self.list_fault(&error)));
        self.store
            .watch
            .record("list blobs", started, Duration::ZERO, &result);
        let (open, batch, skipped) = result?;
        self.open = open;
        self.batch = batch;
        self.skipped += skipped;
        Ok(())
    }
}

/// Whether a name at the root is that of a directory of the tree, or of the marker.
fn is_ours(name: &OsStr) -> bool {
    is_shard(name) || name == MARKER
}

/// Counts what lies in a directory, but for what is `ours`, and adds the directories in it to `others`. Links are not
/// followed.
fn count_beside(
    path: &Path,
    others: &mut Vec<PathBuf>,
    ours: fn(&OsStr) -> bool,
) -> io::Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if ours(&entry.file_name()) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => others.push(entry.path()),
            false => count += 1,
        }
    }
    Ok(count)
}

type Batch = (Option<std::fs::ReadDir>, VecDeque<BlobName>, u64);

fn take_batch(open: Option<std::fs::ReadDir>, path: &Path, directory: usize) -> io::Result<Batch> {
    let mut entries = match open {
        Some(entries) => entries,
        None => std::fs::read_dir(path)?,
    };
    let (mut batch, mut skipped) = (VecDeque::new(), 0);
    while batch.len() < LIST_BATCH {
        let Some(entry) = entries.next() else {
            return Ok((None, batch, skipped));
        };
        let name = entry?.file_name();
        match name.to_str().and_then(BlobName::parse) {
            Some(name) if name.directory() == directory => batch.push_back(name),
            _ => skipped += 1,
        }
    }
    Ok((Some(entries), batch, skipped))
}
