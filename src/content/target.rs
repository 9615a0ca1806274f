//! Where a body's bytes go: one blob, or several one after the other where a backend takes none so long.
//!
//! Each blob is a content of its own, encrypted under a data key of its own; several are joined as the extents of
//! a composite. A blob is finished before the next is begun, so that a body holds one part's memory at a time.
//! Until rows name them, dropping what was written removes it.

use bytes::Bytes;

use super::ContentStore;
use super::frames::Sealer;
use super::mirrored::{Mirrored, StoredBlob};
use super::receive::{Incoming, compute};
use super::sealing::{plain_capacity, stored_length};
use crate::meta::contents::{NewBlob, Sealing};
use crate::model::digest::Crc64Hasher;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::ContentId;

/// The blobs of one body while they are written.
pub(super) struct Target<'a> {
    store: &'a ContentStore,
    incoming: &'a Incoming,
    finished: Vec<Segment>,
    open: Open,
    /// Bytes of the body in all blobs.
    written: u64,
}

/// The blob being written.
struct Open {
    content: ContentId,
    blob: Mirrored,
    /// Bytes of the body that it takes.
    length_max: u64,
    sealer: Option<Sealer>,
    sealing: Option<Sealing>,
    /// Bytes of the body in it.
    length: u64,
    /// Of those, where the frames of their encryption do not vouch for them, and no digest of the whole body does.
    crc64nvme: Option<Crc64Hasher>,
}

/// A finished blob that holds one run of a body, as a content.
pub(super) struct Segment {
    /// The content that fills the blob.
    pub(super) content: ContentId,
    /// Bytes of the body in it.
    pub(super) length: u64,
    /// The checksum of those, if they lie there as they are and may be a piece of the body only.
    pub(super) crc64nvme: Option<u64>,
    /// How they are encrypted.
    pub(super) sealing: Option<Sealing>,
    stored: StoredBlob,
}

impl Segment {
    /// A blob that is `stored` already, as it is.
    pub(super) fn adopted(content: ContentId, stored: StoredBlob) -> Self {
        Self {
            content,
            length: stored.blob().size,
            crc64nvme: None,
            sealing: None,
            stored,
        }
    }

    pub(super) fn blob(&self) -> &NewBlob {
        self.stored.blob()
    }

    /// From here on the bytes stay unless [`Self::discard`] is called, whoever goes away.
    pub(super) fn begin_commit(&self) {
        self.stored.begin_commit();
    }

    /// The transaction ended without naming it.
    pub(super) fn discard(&self) {
        self.stored.discard();
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
        Ok(Self {
            store,
            incoming,
            finished: Vec::new(),
            open: Open::begin(store, incoming, first, 0).await?,
            written: 0,
        })
    }

    /// Appends bytes of the body.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let room = self.open.length_max - self.open.length;
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
        self.open.blob.abort().await;
    }

    /// Completes a body of `length` bytes. Answers the id that its content is to have, and its blobs in order;
    /// when they are several the content is a composite of theirs.
    pub(super) async fn finish(mut self, length: u64) -> Result<(ContentId, Vec<Segment>), Fault> {
        if self.written != length {
            let written = self.written;
            return Err(Fault::new(Kind::Internal, "write blob")
                .context(format_args!("{written} of {length} bytes written")));
        }
        let last = self.open.finish(self.incoming).await?;
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
        let next = Open::begin(self.store, self.incoming, content, self.written).await?;
        let full = std::mem::replace(&mut self.open, next);
        let segment = full.finish(self.incoming).await?;
        self.finished.push(segment);
        Ok(())
    }
}

impl Open {
    /// Nothing is asked of a backend, and no memory taken, before the first write. `before` is how much of the body
    /// lies in other blobs.
    async fn begin(
        store: &ContentStore,
        incoming: &Incoming,
        content: ContentId,
        before: u64,
    ) -> Result<Self, Fault> {
        let left = incoming.length.map(|length| length.saturating_sub(before));
        let (sealer, sealing) = match store.begin_sealing(&incoming.seal, content).await? {
            None => (None, None),
            Some((sealer, sealing)) => (Some(sealer), Some(sealing)),
        };
        let mut blob = store.new_blob(incoming.space, None).await?;
        let length_max = plain_capacity(&incoming.seal, blob.size_max());
        if let Some(left) = left {
            blob.expect_size(stored_length(&incoming.seal, left.min(length_max)));
        }
        let is_piece = before > 0 || left.is_none_or(|left| left > length_max);
        Ok(Self {
            content,
            blob,
            length_max,
            crc64nvme: (is_piece && sealer.is_none()).then(Crc64Hasher::default),
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
        if let Some(hasher) = &mut self.crc64nvme {
            hasher.update(&stored);
        }
        self.blob.write(stored).await
    }

    async fn finish(mut self, incoming: &Incoming) -> Result<Segment, Fault> {
        if let Some(sealer) = self.sealer {
            self.blob.write(sealer.finish()?).await?;
        }
        let expected = stored_length(&incoming.seal, self.length);
        Ok(Segment {
            content: self.content,
            length: self.length,
            crc64nvme: self.crc64nvme.map(Crc64Hasher::finish),
            sealing: self.sealing,
            stored: self.blob.finish(expected).await?,
        })
    }
}
