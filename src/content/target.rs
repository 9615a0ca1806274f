//! Where a body's bytes go: one blob at the backend, or several one after the other where it takes none so long.
//!
//! Each blob is a content of its own, encrypted under a data key of its own; several are joined as the extents of
//! a composite. A blob is finished before the next is begun, so that a body holds one part's memory at a time.
//! Until rows name them, dropping what was written removes it.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;

use super::ContentStore;
use super::frames::Sealer;
use super::receive::{Incoming, compute};
use super::sealing::{plain_capacity, stored_length};
use crate::blob::{BlobName, BlobStore, Writer};
use crate::meta::buckets;
use crate::meta::contents::{CopyRow, NewBlob, Sealing};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, ContentId};

/// The blobs of one body while they are written.
pub(super) struct Target<'a> {
    store: &'a ContentStore,
    incoming: &'a Incoming,
    backend: i64,
    backend_name: String,
    /// Bytes of the body that one blob takes.
    segment_max: u64,
    finished: Vec<Segment>,
    open: Open,
    /// Bytes of the body in all blobs.
    written: u64,
}

/// The blob being written.
struct Open {
    content: ContentId,
    id: BlobId,
    name: BlobName,
    writer: Writer,
    sealer: Option<Sealer>,
    sealing: Option<Sealing>,
    /// Bytes of the body in it.
    length: u64,
}

/// A finished blob that holds one run of a body, as a content.
pub(super) struct Segment {
    /// The content that fills the blob.
    pub(super) content: ContentId,
    /// Bytes of the body in it.
    pub(super) length: u64,
    /// How they are encrypted.
    pub(super) sealing: Option<Sealing>,
    stored: StoredBlob,
}

impl Segment {
    pub(super) fn blob(&self) -> &NewBlob {
        &self.stored.blob
    }

    /// From here on the bytes stay unless [`Self::discard`] is called, whoever goes away.
    pub(super) fn begin_commit(&self) {
        self.stored.state.store(COMMITTING, Ordering::SeqCst);
    }

    /// The transaction ended without naming it.
    pub(super) fn discard(&self) {
        self.stored.state.store(DISCARDED, Ordering::SeqCst);
    }
}

/// Nobody has tried to name it: dropping it deletes the bytes.
const FRESH: u8 = 0;
/// A transaction may name it at any moment: dropping it leaves the bytes.
const COMMITTING: u8 = 1;
/// The transaction ended without naming it.
const DISCARDED: u8 = 2;

/// A finished blob that no row is known to name.
struct StoredBlob {
    blob: NewBlob,
    blobs: BlobStore,
    copies: Vec<(String, BlobName)>,
    state: AtomicU8,
}

impl Drop for StoredBlob {
    fn drop(&mut self) {
        if self.state.load(Ordering::SeqCst) == COMMITTING {
            return;
        }
        let blobs = self.blobs.clone();
        let copies = std::mem::take(&mut self.copies);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            for (backend, name) in copies {
                if let Err(fault) = blobs.delete(&backend, &name).await {
                    // The sweep will find it.
                    tracing::debug!(%fault, "drop unused blob");
                }
            }
        });
    }
}

impl<'a> Target<'a> {
    /// Begins a body where the space's placement says. `first` is the id of its content, unless it takes
    /// several.
    pub(super) async fn begin(
        store: &'a ContentStore,
        incoming: &'a Incoming,
        first: ContentId,
    ) -> Result<Self, Fault> {
        let space = incoming.space;
        let placement = store
            .meta
            .read("find placement", move |session| {
                Box::pin(buckets::placement_of(session, space))
            })
            .await?;
        let backend = *placement.first().ok_or_else(|| {
            Fault::new(Kind::Corrupt, "find placement").context(format_args!("space {space}"))
        })?;
        let backend_name = store.backend_name(backend)?.to_owned();
        let blob_max = store.blobs.blob_max_bytes(&backend_name)?;
        let segment_max = plain_capacity(&incoming.seal, blob_max);
        let expected = incoming.length.map(|length| length.min(segment_max));
        let open = Open::begin(store, incoming, &backend_name, first, expected).await?;
        Ok(Self {
            store,
            incoming,
            backend,
            backend_name,
            segment_max,
            finished: Vec::new(),
            open,
            written: 0,
        })
    }

    /// Appends bytes of the body.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let room = self.segment_max - self.open.length;
            if room == 0 {
                self.roll_over().await?;
                continue;
            }
            let fits = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            let now = bytes.split_to(fits);
            self.written += now.len() as u64;
            self.open.write(now).await?;
        }
        Ok(())
    }

    /// Removes what has been written.
    pub(super) async fn abort(self) {
        self.open.writer.abort().await;
    }

    /// Completes a body of `length` bytes. Answers the id that its content is to have, and its blobs in order;
    /// when they are several the content is a composite of theirs.
    pub(super) async fn finish(mut self, length: u64) -> Result<(ContentId, Vec<Segment>), Fault> {
        if self.written != length {
            let written = self.written;
            return Err(Fault::new(Kind::Internal, "write blob")
                .context(format_args!("{written} of {length} bytes written")));
        }
        let last = self
            .open
            .finish(
                self.incoming,
                self.backend,
                &self.backend_name,
                &self.store.blobs,
            )
            .await?;
        let id = if self.finished.is_empty() {
            last.content
        } else {
            ContentId(self.store.uids.next()?)
        };
        self.finished.push(last);
        Ok((id, self.finished))
    }

    async fn roll_over(&mut self) -> Result<(), Fault> {
        let content = ContentId(self.store.uids.next()?);
        let left = self
            .incoming
            .length
            .map(|length| length.saturating_sub(self.written).min(self.segment_max));
        let (store, incoming) = (self.store, self.incoming);
        let next = Open::begin(store, incoming, &self.backend_name, content, left).await?;
        let full = std::mem::replace(&mut self.open, next);
        let segment = full
            .finish(incoming, self.backend, &self.backend_name, &store.blobs)
            .await?;
        self.finished.push(segment);
        Ok(())
    }
}

impl Open {
    /// Nothing is asked of the backend, and no memory taken, before the first write.
    async fn begin(
        store: &ContentStore,
        incoming: &Incoming,
        backend_name: &str,
        content: ContentId,
        expected: Option<u64>,
    ) -> Result<Self, Fault> {
        let (sealer, sealing) = match store.begin_sealing(&incoming.seal, content).await? {
            None => (None, None),
            Some((sealer, sealing)) => (Some(sealer), Some(sealing)),
        };
        let id = store.uids.next()?;
        let name = BlobName::new(id);
        let mut writer = store.blobs.create(backend_name, &name)?;
        if let Some(length) = expected {
            writer = writer.expect_size(stored_length(&incoming.seal, length));
        }
        Ok(Self {
            content,
            id: BlobId(id),
            name,
            writer,
            sealer,
            sealing,
            length: 0,
        })
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Fault> {
        let length = bytes.len();
        let stored = match self.sealer.take() {
            None => bytes,
            Some(mut sealer) => {
                let seal = move || sealer.push(&bytes).map(|sealed| (sealer, sealed));
                let (sealer, sealed) = compute(length, seal).await?;
                self.sealer = Some(sealer);
                sealed
            }
        };
        self.length += length as u64;
        self.writer.write(stored).await
    }

    async fn finish(
        mut self,
        incoming: &Incoming,
        backend: i64,
        backend_name: &str,
        blobs: &BlobStore,
    ) -> Result<Segment, Fault> {
        if let Some(sealer) = self.sealer {
            self.writer.write(sealer.finish()?).await?;
        }
        let expected = stored_length(&incoming.seal, self.length);
        let size = self.writer.finish().await?;
        let segment = Segment {
            content: self.content,
            length: self.length,
            sealing: self.sealing,
            stored: StoredBlob {
                blob: NewBlob {
                    id: self.id,
                    size,
                    copies: vec![CopyRow {
                        backend,
                        name: self.name.as_str().to_owned(),
                    }],
                },
                blobs: blobs.clone(),
                copies: vec![(backend_name.to_owned(), self.name)],
                state: AtomicU8::new(FRESH),
            },
        };
        if size == expected {
            Ok(segment)
        } else {
            Err(Fault::new(Kind::Corrupt, "write blob")
                .context(format_args!("{expected} bytes sent, {size} stored")))
        }
    }
}
