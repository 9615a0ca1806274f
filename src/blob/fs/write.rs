//! Writing a blob as a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::directory::Directory;
use super::{Store, lost_thread};
use crate::blob::BlobName;
use crate::blob::config::Durability;
use crate::model::fault::{Fault, Kind};

/// After so many bytes a sync begins beside the writes, so that little is left for the one at the end.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// A file that no row may name yet. Dropping it removes the file, blocking.
struct Partial {
    directory: Arc<Directory>,
    name: BlobName,
    /// Made by the first write; `None` again when the file is to stay.
    file: Option<Arc<File>>,
    written: u64,
    /// What of it was handed to a sync that runs beside the writes.
    syncing: u64,
    _token: TaskTrackerToken,
}

impl Partial {
    fn file(&mut self) -> io::Result<&Arc<File>> {
        let file = match self.file.take() {
            Some(file) => file,
            None => Arc::new(File::from(rustix::fs::openat(
                &self.directory.handle,
                self.name.as_str(),
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )?)),
        };
        Ok(&*self.file.insert(file))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let offset = self.written;
        self.file()?.write_all_at(bytes, offset)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn complete(&mut self, durability: Durability) -> io::Result<()> {
        let file = self.file()?;
        if durability == Durability::Durable {
            file.sync_data()?;
            self.directory.sync()?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = self.directory.unlink(&self.name)
        {
            tracing::warn!(blob = self.name.id_digits(), %error, "unfinished blob left behind");
        }
    }
}

/// A blob while it is written.
pub(in crate::blob) struct Writer {
    store: Arc<Store>,
    name: BlobName,
    /// `None` while a hop has it, and after a fault or a hop that was not awaited.
    partial: Option<Partial>,
    /// A sync that runs beside the writes. Its failure is told to nobody else, so it must be awaited.
    sync: Option<JoinHandle<io::Result<()>>>,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, name: BlobName) -> Self {
        Self {
            partial: Some(Partial {
                directory: store.directory(&name),
                name,
                file: None,
                written: 0,
                syncing: 0,
                _token: store.cleanups.token(),
            }),
            store,
            name,
            sync: None,
        }
    }

    pub(in crate::blob) async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        let partial = self
            .hop("write blob", move |partial| partial.append(&bytes))
            .await?;
        let partial = self.partial.insert(partial);
        if self.store.durability == Durability::Durable
            && partial.written - partial.syncing >= SYNC_BYTES
            && let Some(file) = partial.file.clone()
            && self.sync.as_ref().is_none_or(JoinHandle::is_finished)
        {
            partial.syncing = partial.written;
            self.synced().await?;
            self.sync = Some(spawn_blocking(move || file.sync_data()));
        }
        Ok(())
    }

    /// Waits for the sync that runs beside the writes, if there is one.
    async fn synced(&mut self) -> Result<(), Fault> {
        let operation = "finish blob";
        match self.sync.take() {
            None => Ok(()),
            Some(sync) => sync
                .await
                .map_err(|error| lost_thread(operation, error))?
                .map_err(|error| self.store.write_fault(operation, self.name, error)),
        }
    }

    pub(in crate::blob) async fn finish(mut self) -> Result<u64, Fault> {
        let durability = self.store.durability;
        self.synced().await?;
        let partial = self.partial.take();
        let mut partial = match partial {
            // Nothing is left that could block.
            Some(partial) if durability == Durability::Relaxed && partial.file.is_some() => partial,
            partial => {
                self.partial = partial;
                self.hop("finish blob", move |partial| partial.complete(durability))
                    .await?
            }
        };
        partial.file = None;
        Ok(partial.written)
    }

    pub(in crate::blob) async fn abort(mut self) {
        if let Some(partial) = self.partial.take() {
            // A panic in there has nobody to be told.
            let _ = spawn_blocking(move || drop(partial)).await;
        }
    }

    /// Runs `act` on a blocking thread. The partial file travels with it and is dropped there, which removes
    /// it, when `act` fails or nobody awaits the end.
    async fn hop(
        &mut self,
        operation: &'static str,
        act: impl FnOnce(&mut Partial) -> io::Result<()> + Send + 'static,
    ) -> Result<Partial, Fault> {
        let Some(mut partial) = self.partial.take() else {
            return Err(self
                .store
                .watch
                .fault(Kind::Internal, operation, self.name)
                .context("the writer has failed before"));
        };
        let started = Instant::now();
        let result = spawn_blocking(move || act(&mut partial).map(|()| partial))
            .await
            .map_err(|error| lost_thread(operation, error))
            .and_then(|result| {
                result.map_err(|error| self.store.write_fault(operation, self.name, error))
            });
        self.store
            .watch
            .record(operation, started, Duration::ZERO, &result);
        result
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take()
            && partial.file.is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(partial));
        }
    }
}
