//! Writing a blob to a service, part by part.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use opendal::{Buffer, ErrorKind};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Store;
use crate::blob::BlobName;
use crate::model::fault::{Fault, Kind};

/// A blob while it is written.
pub(in crate::blob) struct Writer {
    store: Arc<Store>,
    name: BlobName,
    expected: Option<u64>,
    /// The part being filled.
    part: Vec<Bytes>,
    part_len: usize,
    written: u64,
    /// How many requests the service had seen repeated when this began.
    repeats: u64,
    /// `None` while a task has it, and after a fault or a task that was not awaited.
    upload: Option<Upload>,
}

/// What the service knows of the blob. Dropping it makes the service forget.
struct Upload {
    store: Arc<Store>,
    name: BlobName,
    /// `None` before the first part, and when the blob is to stay.
    writer: Option<opendal::Writer>,
    resident: Option<OwnedSemaphorePermit>,
    filling: Option<OwnedSemaphorePermit>,
}

/// What a task is to do with an upload.
enum Step {
    /// Give OpenDAL a part; it uploads the one before.
    Part(Buffer),
    Close,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, name: BlobName) -> Self {
        Self {
            upload: Some(Upload {
                store: store.clone(),
                name,
                writer: None,
                resident: None,
                filling: None,
            }),
            repeats: store.repeats.load(Ordering::Relaxed),
            store,
            name,
            expected: None,
            part: Vec::new(),
            part_len: 0,
            written: 0,
        }
    }

    pub(in crate::blob) fn expect_size(&mut self, size_bytes: u64) {
        self.expected = Some(size_bytes);
    }

    pub(in crate::blob) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        if self.written + bytes.len() as u64 > self.store.blob_max_bytes {
            return Err(self.misuse("write blob", "longer than the backend takes"));
        }
        while !bytes.is_empty() {
            self.reserve().await?;
            let piece = bytes.split_to(bytes.len().min(self.store.part_bytes - self.part_len));
            self.part_len += piece.len();
            self.written += piece.len() as u64;
            self.part.push(piece);
            if self.part_len == self.store.part_bytes {
                self.hand_over().await?;
            }
        }
        Ok(())
    }

    pub(in crate::blob) async fn finish(mut self) -> Result<u64, Fault> {
        let untouched = self.upload.as_ref().is_some_and(|it| it.writer.is_none());
        if self.part_len > 0 || untouched {
            self.hand_over().await?;
        }
        let mut upload = self.step("finish blob", Step::Close).await?;
        self.check().await?;
        upload.writer = None;
        Ok(self.written)
    }

    /// Measures the blob when any request was repeated meanwhile: some writers of OpenDAL append what was sent
    /// before the failure a second time.
    async fn check(&self) -> Result<(), Fault> {
        if self.store.repeats.load(Ordering::Relaxed) == self.repeats {
            return Ok(());
        }
        let stored = self.store.size(&self.name.into()).await?;
        if stored == self.written {
            return Ok(());
        }
        Err(self
            .store
            .watch
            .fault(Kind::Unavailable, "finish blob", self.name)
            .context(format_args!(
                "{} bytes written, {stored} stored after a repeat",
                self.written
            )))
    }

    pub(in crate::blob) async fn abort(mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Some(writer) = upload.writer.take()
        {
            forget(self.store.clone(), self.name, writer).await;
        }
    }

    /// Memory for the part that is filled next: the first one stays resident, each later one only fills.
    async fn reserve(&mut self) -> Result<(), Fault> {
        let Some(upload) = &mut self.upload else {
            return Err(self.misuse("write blob", "the writer has failed before"));
        };
        let (budget, part_bytes) = (&self.store.parts, self.store.part_bytes);
        let pools = [&budget.filling, &budget.resident];
        let (held, bytes, pools) = if upload.writer.is_none() {
            let expected = self.expected.and_then(|size| usize::try_from(size).ok());
            let bytes = expected.map_or(part_bytes, |size| size.min(part_bytes));
            (&mut upload.resident, bytes, &pools[1..])
        } else {
            (&mut upload.filling, part_bytes, &pools[..])
        };
        if held.is_some() {
            return Ok(());
        }
        // What is free anywhere is taken; waiting is for the first pool only.
        *held = pools.iter().find_map(|pool| pool.try_take(bytes));
        if held.is_none() {
            *held = timeout(self.store.patience, pools[0].take(bytes))
                .await
                .ok();
        }
        if held.is_none() {
            return Err(self
                .store
                .watch
                .fault(Kind::Busy, "write blob", self.name)
                .context("no part buffer came free in time"));
        }
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<(), Fault> {
        let part = Buffer::from(std::mem::take(&mut self.part));
        self.part_len = 0;
        let mut upload = self.step("write blob", Step::Part(part)).await?;
        upload.filling = None;
        self.upload = Some(upload);
        Ok(())
    }

    /// Takes one step in a task of its own. OpenDAL's writers lose their state when a call is dropped half
    /// way, and could then no longer tell the service to forget the parts; so a call always runs to its end,
    /// and the upload is dropped after it when nobody waits any more.
    async fn step(&mut self, operation: &'static str, step: Step) -> Result<Upload, Fault> {
        let Some(mut upload) = self.upload.take() else {
            return Err(self.misuse(operation, "the writer has failed before"));
        };
        let (store, name) = (self.store.clone(), self.name);
        let task = self.store.cleanups.spawn(async move {
            let work = upload.take_step(step);
            store.turn(operation, &name, work).await.map(|()| upload)
        });
        task.await
            .map_err(|error| Fault::new(Kind::Internal, operation).source(error))?
    }

    fn misuse(&self, operation: &'static str, problem: &str) -> Fault {
        self.store
            .watch
            .fault(Kind::Internal, operation, self.name)
            .context(problem)
    }
}

impl Upload {
    async fn take_step(&mut self, step: Step) -> opendal::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let path = self.name.path();
                self.writer.insert(self.store.operator.writer(&path).await?)
            }
        };
        match step {
            Step::Part(part) => writer.write(part).await,
            Step::Close => writer.close().await.map(|_| ()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let work = forget(self.store.clone(), self.name, writer);
            self.store.cleanups.spawn_on(work, &runtime);
        }
    }
}

/// Makes the service forget an unfinished blob. The name is deleted as well: a close whose answer was lost
/// may have made the blob, and nobody will name it.
async fn forget(store: Arc<Store>, name: BlobName, mut writer: opendal::Writer) {
    if let Err(error) = writer.abort().await
        && error.kind() != ErrorKind::Unsupported
    {
        store.heard("forget blob", &error);
    }
    if let Err(fault) = store.delete(&name.into()).await {
        tracing::warn!(%fault, "unfinished blob is left to the sweep");
    }
}
