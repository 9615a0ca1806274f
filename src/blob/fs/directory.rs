//! The directories of the tree, kept open to be synced.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::blob::name::FAN_OUT;
use crate::blob::{BlobName, MARKER};

/// Whether a root is not there, or holds nothing but what every start makes: it may be where a file system is to be
/// mounted.
pub(super) fn is_bare(root: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        let is_empty = is_shard(&entry.file_name())
            && entry.file_type()?.is_dir()
            && std::fs::read_dir(entry.path())?.next().is_none();
        if !is_empty {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a name at the root is that of a directory of the tree.
pub(super) fn is_shard(name: &OsStr) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    name.len() == 2 && name.as_bytes().iter().all(is_digit)
}

/// Makes what is missing of the tree, on stable storage, and opens its directories.
pub(super) fn open_directories(root: &Path) -> io::Result<Vec<Arc<Directory>>> {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    let mut missing: Vec<&Path> = root
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    while let Some(path) = missing.pop() {
        match builder.create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    let mut directories = Vec::with_capacity(FAN_OUT);
    for number in 0..FAN_OUT {
        let path = root.join(format!("{number:02x}"));
        match builder.create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => directories.push(Arc::new(Directory::new(File::open(&path)?))),
        }
    }
    File::open(root)?.sync_all()?;
    Ok(directories)
}

/// One of the directories, kept open.
pub(super) struct Directory {
    pub(super) handle: File,
    syncs: Mutex<Syncs>,
    sync_ended: Condvar,
}

/// Syncs of a directory, numbered from 1 in the order in which they begin.
#[derive(Default)]
struct Syncs {
    begun: u64,
    ended: u64,
    /// The last one that failed.
    failed: u64,
}

impl Directory {
    fn new(handle: File) -> Self {
        Self {
            handle,
            syncs: Mutex::default(),
            sync_ended: Condvar::new(),
        }
    }

    pub(super) fn unlink(&self, name: &BlobName) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.handle, name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Blocks until a sync that began after this call has ended. Callers that come while one is running
    /// share the next.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = syncs.begun + 1;
        loop {
            if syncs.ended >= wanted {
                // The kernel reports a failed write-back once, so whoever shared it must fail with it.
                if syncs.failed >= wanted {
                    return Err(io::Error::other("a shared sync of the directory failed"));
                }
                return Ok(());
            }
            if syncs.begun > syncs.ended {
                syncs = self
                    .sync_ended
                    .wait(syncs)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            syncs.begun += 1;
            drop(syncs);
            let result = self.handle.sync_all();
            syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
            syncs.ended = syncs.begun;
            if result.is_err() {
                syncs.failed = syncs.ended;
            }
            self.sync_ended.notify_all();
            return result;
        }
    }
}
