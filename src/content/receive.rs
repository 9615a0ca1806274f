//! Bytes in: one pass of hashing over a body, with bounded memory, into a row or a blob.
//!
//! A long body flows in batches, the smaller the more bodies are received. While one batch is hashed (MD5 on
//! one thread, the rest on another) and written, the next is read from the client into the buffer of the one
//! before; no more than two are held, and no thread waits for a slow client. Frames are copied into the
//! batch: one that was kept would pin the connection's whole read buffer, and a copy costs a twentieth of
//! the hashing.
//!
//! A body to be encrypted is encrypted beside its hashing, batch by batch; what is written is then a batch of
//! frames, the third one held.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use tokio::task::spawn_blocking;

use super::ContentStore;
use super::open::Token;
use super::renew::Renewal;
use super::sealing::Seal;
use super::target::{Segment, Target};
use crate::meta::contents::{self, Known, Sealing};
use crate::meta::releases;
use crate::model::digest::{Digests, IdentityHasher, Md5Hasher, Sha256Digest};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, SpaceId, UidGenerator};

/// Bytes hashed and written in one go while few bodies are received: each hop to another thread is shared
/// by many bytes.
const BATCH_MAX_BYTES: usize = 512 * 1024;
/// The same while many are.
const BATCH_MIN_BYTES: usize = 64 * 1024;
/// Bytes that the batches of all bodies together should hold.
const BATCHES_BYTES: usize = 8 * 1024 * 1024;
/// Bodies up to this many bytes are hashed where they arrive: the hop to another thread would cost more.
const HASH_HERE_BYTES: usize = 64 * 1024;

/// An error of a body, made by the protocol that reads it.
pub type BodyError = Box<dyn Error + Send + Sync>;
/// A body as it arrives.
pub type Body<'a> = Pin<&'a mut (dyn Stream<Item = Result<Bytes, BodyError>> + Send)>;

/// What is known of a body before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where its bytes may be shared.
    pub space: SpaceId,
    /// Whether they may be shared at all; not under a customer's key.
    pub shared: bool,
    /// What protects them.
    pub seal: Seal,
    /// The length the client declared.
    pub length: Option<u64>,
    /// Most bytes taken.
    pub limit: u64,
    /// The SHA-256 that the protocol verifies while the body streams: the stream fails if it is wrong.
    pub verified_sha256: Option<Sha256Digest>,
    /// Whether SHA-1 is wanted too.
    pub sha1: bool,
}

impl Incoming {
    fn is_shared(&self) -> bool {
        self.shared && !matches!(self.seal, Seal::Customer(_))
    }
}

/// Why a body was not received. Nothing is left behind.
#[derive(Debug)]
pub enum ReceiveError {
    /// The body itself failed; the protocol knows its own errors.
    Body(BodyError),
    /// More bytes than the limit.
    TooLarge,
    /// Fewer or more bytes than declared.
    WrongLength,
    /// A store failed.
    Fault(Fault),
}

impl From<Fault> for ReceiveError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A content whose bytes are safe, in memory short enough for a row, or known already; no row names it yet.
/// Dropped before [`Received::begin_commit`], it takes its blob along.
pub struct Received {
    /// What its bytes are known by.
    pub digests: Digests,
    pub(super) space: SpaceId,
    pub(super) shared: bool,
    pub(super) new_id: ContentId,
    pub(super) holding: Holding,
    /// Whether an equal content that was lost got these bytes.
    pub(super) renewal: Renewal,
    pub(super) uids: Arc<UidGenerator>,
    /// Keeps the sweep from this blob until the transaction has ended.
    _open: Token,
}

pub(super) enum Holding {
    /// As they go into the row, and how they are encrypted.
    Inline(Bytes, Option<Sealing>),
    Known(ContentId),
    /// What a version refers to that is copied: as well or as ill as it is.
    Same(ContentId),
    /// In blobs: one, or several where the backend takes none of that length. In order, never empty.
    Stored(Vec<Segment>),
}

impl Received {
    /// The content these bytes are known as, when they were known before they came.
    pub fn known(&self) -> Option<ContentId> {
        match &self.holding {
            Holding::Known(id) | Holding::Same(id) => Some(*id),
            Holding::Inline(..) | Holding::Stored(_) => None,
        }
    }

    /// From here on the bytes stay unless [`ContentStore::settle`] says otherwise, whoever goes away.
    pub fn begin_commit(&self) {
        for segment in self.segments() {
            segment.begin_commit();
        }
    }

    /// The transaction ended without naming the bytes.
    pub(super) fn discard(&self) {
        for segment in self.segments() {
            segment.discard();
        }
    }

    pub(super) fn segments(&self) -> &[Segment] {
        match &self.holding {
            Holding::Stored(segments) => segments,
            Holding::Inline(..) | Holding::Known(_) | Holding::Same(_) => &[],
        }
    }
}

/// A body being received.
pub(super) struct Begun {
    /// The id its content will have, if that is new.
    pub(super) id: ContentId,
    pub(super) open: Token,
    pub(super) uids: Arc<UidGenerator>,
}

/// A body's hashing in two halves that can run side by side.
pub(super) struct Hashing {
    md5: Md5Hasher,
    identity: IdentityHasher,
}

impl Hashing {
    pub(super) fn new(incoming: &Incoming) -> Self {
        Self {
            md5: Md5Hasher::default(),
            identity: IdentityHasher::new(incoming.verified_sha256.is_none(), incoming.sha1),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.identity.update(bytes);
    }

    /// Takes the next bytes, on another thread when they are many.
    pub(super) async fn take(mut self, bytes: Bytes) -> Result<Self, Fault> {
        compute(bytes.len(), move || {
            self.update(&bytes);
            Ok(self)
        })
        .await
    }

    pub(super) fn finish(self, incoming: &Incoming) -> Result<Digests, Fault> {
        self.identity
            .finish(self.md5.finish(), incoming.verified_sha256)
            .ok_or_else(|| Fault::new(Kind::Internal, "hash body").context("no SHA-256"))
    }
}

impl ContentStore {
    /// Reads a body to its end and makes its bytes safe.
    pub async fn receive(
        &self,
        mut incoming: Incoming,
        mut body: Body<'_>,
    ) -> Result<Received, ReceiveError> {
        if incoming
            .length
            .is_some_and(|length| length > incoming.limit)
        {
            return Err(ReceiveError::TooLarge);
        }
        incoming.space = self.space_here(incoming.space).await?;
        let mut source = Source {
            body: &mut body,
            incoming: &incoming,
            taken: 0,
            ended: false,
            rest: None,
        };
        let begun = Begun {
            id: ContentId(self.uids.next()?),
            open: self.open.write(),
            uids: Arc::clone(&self.uids),
        };
        let memory_max = self.config.memory_max_bytes as usize;
        if let Some(known) = self.known_by_signature(&incoming).await? {
            source.drain().await?;
            let holding = Holding::Known(known.id);
            return Ok(begun.end(&incoming, known.digests, holding));
        }
        // One byte more than fits tells a short body from a long one, where its length does not.
        let enough = match incoming.length {
            Some(length) if length > self.config.memory_max_bytes => {
                batch_bytes(self.open.writes())
            }
            Some(length) => length as usize + 1,
            None => memory_max + 1,
        };
        let buffer = BytesMut::with_capacity(enough);
        let first = source.read_batch(buffer, enough).await?;
        if source.ended {
            self.receive_short(&incoming, first.freeze(), begun).await
        } else {
            self.receive_long(&incoming, first, source, begun).await
        }
    }

    /// A body whose known SHA-256 is signed need only be verified, when the content is there to stay.
    async fn known_by_signature(&self, incoming: &Incoming) -> Result<Option<Known>, Fault> {
        let (Some(sha256), Some(length)) = (incoming.verified_sha256, incoming.length) else {
            return Ok(None);
        };
        if !incoming.is_shared() || length <= self.config.memory_max_bytes {
            return Ok(None);
        }
        let known = self.find(incoming.space, sha256, length).await?;
        // Every checksum a client may send must be comparable with what is stored.
        Ok(known.filter(|known| !incoming.sha1 || known.digests.sha1.is_some()))
    }

    /// A content that is known, is not lost, and stays for at least the grace: something refers to it now, and whatever is
    /// released from now on is kept that long.
    async fn find(
        &self,
        space: SpaceId,
        sha256: Sha256Digest,
        length: u64,
    ) -> Result<Option<Known>, Fault> {
        self.meta
            .read("find content", move |session| {
                Box::pin(async move {
                    let known = contents::find(session, space, &sha256, length).await?;
                    Ok(match known {
                        Some(known) if releases::is_referenced(session, known.id).await? => {
                            Some(known)
                        }
                        _ => None,
                    })
                })
            })
            .await
    }

    /// A content known already: what is left is to refer to it, unless it is lost by then.
    pub fn known(&self, space: SpaceId, known: Known) -> Result<Received, Fault> {
        self.referring(space, known.digests, Holding::Known(known.id))
    }

    /// The content of a version that is copied: the copy is as well or as ill as that.
    pub fn same(&self, space: SpaceId, known: Known) -> Result<Received, Fault> {
        self.referring(space, known.digests, Holding::Same(known.id))
    }

    fn referring(
        &self,
        space: SpaceId,
        digests: Digests,
        holding: Holding,
    ) -> Result<Received, Fault> {
        Ok(Received {
            digests,
            space,
            shared: true,
            new_id: ContentId(self.uids.next()?),
            holding,
            renewal: Renewal::default(),
            uids: Arc::clone(&self.uids),
            _open: self.open.write(),
        })
    }

    async fn receive_short(
        &self,
        incoming: &Incoming,
        bytes: Bytes,
        begun: Begun,
    ) -> Result<Received, ReceiveError> {
        let length = bytes.len();
        let hashing = (incoming.clone(), bytes.clone());
        let digests = compute(length, move || hash(&hashing.0, &hashing.1)).await?;
        let is_inline = length as u64 <= self.config.inline_max_bytes;
        if !is_inline
            && incoming.is_shared()
            && let Some(known) = self
                .find(incoming.space, digests.sha256, digests.length)
                .await?
        {
            return Ok(begun.end(incoming, digests, Holding::Known(known.id)));
        }
        if is_inline {
            let holding = match self.begin_sealing(&incoming.seal, begun.id).await? {
                None => Holding::Inline(bytes, None),
                Some((mut sealer, sealing)) => {
                    let seal = move || {
                        let first = sealer.push(&bytes)?;
                        Ok([first, sealer.finish()?].concat().into())
                    };
                    Holding::Inline(compute(length, seal).await?, Some(sealing))
                }
            };
            return Ok(begun.end(incoming, digests, holding));
        }
        let mut target = Target::begin(self, incoming, begun.id).await?;
        target.write(bytes).await?;
        let stored = target.finish(digests.length).await?;
        Ok(begun.end_stored(incoming, digests, stored))
    }

    async fn receive_long(
        &self,
        incoming: &Incoming,
        first: BytesMut,
        mut source: Source<'_, '_>,
        begun: Begun,
    ) -> Result<Received, ReceiveError> {
        let mut target = Target::begin(self, incoming, begun.id).await?;
        let mut hashing = Hashing::new(incoming);
        let mut batch = first.freeze();
        let mut spare = BytesMut::new();
        while !batch.is_empty() {
            let work = process(hashing, &mut target, batch.clone());
            let enough = batch_bytes(self.open.writes());
            let (done, next) = tokio::join!(work, source.read_batch(spare, enough));
            hashing = done?;
            // Nobody else holds the batch any more: its buffer takes the one after the next.
            spare = batch.try_into_mut().unwrap_or_default();
            spare.clear();
            batch = next?.freeze();
        }
        let digests = hashing.finish(incoming)?;
        // Looked up before the blob is synced: bytes that are known need not reach the disk.
        if incoming.is_shared()
            && let Some(known) = self
                .find(incoming.space, digests.sha256, digests.length)
                .await?
        {
            target.abort().await;
            return Ok(begun.end(incoming, digests, Holding::Known(known.id)));
        }
        let stored = target.finish(digests.length).await?;
        Ok(begun.end_stored(incoming, digests, stored))
    }
}

impl Begun {
    fn end(self, incoming: &Incoming, digests: Digests, holding: Holding) -> Received {
        Received {
            digests,
            space: incoming.space,
            shared: incoming.is_shared(),
            new_id: self.id,
            holding,
            renewal: Renewal::default(),
            uids: self.uids,
            _open: self.open,
        }
    }

    pub(super) fn end_stored(
        mut self,
        incoming: &Incoming,
        digests: Digests,
        (id, segments): (ContentId, Vec<Segment>),
    ) -> Received {
        self.id = id;
        self.end(incoming, digests, Holding::Stored(segments))
    }
}

/// Runs work over `length` bytes in memory: here, or on another thread when it would hold up this one.
pub(super) async fn compute<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    if length <= HASH_HERE_BYTES {
        return work();
    }
    spawn_blocking(work)
        .await
        .map_err(|error| Fault::new(Kind::Internal, "work on body").source(error))?
}

/// Hashes and writes one batch, side by side.
async fn process(
    hashing: Hashing,
    target: &mut Target<'_>,
    batch: Bytes,
) -> Result<Hashing, Fault> {
    let Hashing {
        mut md5,
        mut identity,
    } = hashing;
    let bytes = batch.clone();
    let md5 = spawn_blocking(move || {
        md5.update(&bytes);
        md5
    });
    let bytes = batch.clone();
    let identity = spawn_blocking(move || {
        identity.update(&bytes);
        identity
    });
    let panicked = |error| Fault::new(Kind::Internal, "work on body").source(error);
    let (md5, identity, written) = tokio::join!(md5, identity, target.write(batch));
    written?;
    Ok(Hashing {
        md5: md5.map_err(panicked)?,
        identity: identity.map_err(panicked)?,
    })
}

/// How many bytes one of `bodies` bodies should gather before they are hashed and written.
fn batch_bytes(bodies: usize) -> usize {
    // Each body holds two batches: one in work and one being read.
    (BATCHES_BYTES / (2 * bodies.max(1))).clamp(BATCH_MIN_BYTES, BATCH_MAX_BYTES)
}

fn hash(incoming: &Incoming, bytes: &[u8]) -> Result<Digests, Fault> {
    let mut hashing = Hashing::new(incoming);
    hashing.update(bytes);
    hashing.finish(incoming)
}

/// A body with its limits.
struct Source<'a, 'b> {
    body: &'a mut Body<'b>,
    incoming: &'a Incoming,
    taken: u64,
    ended: bool,
    /// What of the last frame did not fit into its batch.
    rest: Option<Bytes>,
}

impl Source<'_, '_> {
    /// The next frame, within limit and declared length; `None` at a clean end.
    async fn next(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        if self.ended {
            return Ok(None);
        }
        match self.body.next().await {
            Some(frame) => {
                let frame = frame.map_err(ReceiveError::Body)?;
                self.taken += frame.len() as u64;
                if self.taken > self.incoming.limit {
                    return Err(ReceiveError::TooLarge);
                }
                if self
                    .incoming
                    .length
                    .is_some_and(|length| self.taken > length)
                {
                    return Err(ReceiveError::WrongLength);
                }
                Ok(Some(frame))
            }
            None => {
                self.ended = true;
                if self
                    .incoming
                    .length
                    .is_some_and(|length| self.taken != length)
                {
                    return Err(ReceiveError::WrongLength);
                }
                Ok(None)
            }
        }
    }

    /// Fills `buffer` up to `enough` bytes, or with all that is left.
    async fn read_batch(
        &mut self,
        mut buffer: BytesMut,
        enough: usize,
    ) -> Result<BytesMut, ReceiveError> {
        while buffer.len() < enough {
            let mut frame = match self.rest.take() {
                Some(rest) => rest,
                None => match self.next().await? {
                    Some(frame) => frame,
                    None => break,
                },
            };
            let fits = frame.len().min(enough - buffer.len());
            if buffer.is_empty() && buffer.capacity() < fits {
                buffer.reserve(enough);
            }
            buffer.extend_from_slice(&frame[..fits]);
            if fits < frame.len() {
                self.rest = Some(frame.split_off(fits));
            }
        }
        Ok(buffer)
    }

    async fn drain(&mut self) -> Result<(), ReceiveError> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}
