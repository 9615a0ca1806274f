//! A content brought to where another placement's blobs lie, for a bucket that moves.
//!
//! The content itself stays where it is, for whoever else refers to it: an equal one is made in the space of the
//! same protection at the other placement, or found there, and the caller repoints its reference in the same
//! transaction. ([`ContentStore::rehome`] makes the bytes safe, [`Rehomed::place`] takes the place.) Only the
//! content under a customer's key changes its space and its copies itself: its data key is wrapped for its id, and
//! nobody else refers to it.
//!
//! What is made before its reference is, such as the parts of a composite, is released as it is made: should the
//! reference never come, the collector finds it. A read that is open meanwhile keeps it until then.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::copies::{Copied, Route, TOO_LONG};
use super::frames::Frames;
use super::mirrored::StoredBlob;
use super::open::Token;
use super::receive::{Incoming, Received};
use super::split;
use super::{ContentStore, Linked, Work};
use crate::meta::contents::{self, Location, NewContent, NewRun, Place, Placed, Sealing, Standing};
use crate::meta::copies::{self, AnyCopy, CopyState};
use crate::meta::rehoming::{self, Identity};
use crate::meta::{Session, joined, placements, releases, wrap_keys};
use crate::model::clock::Millis;
use crate::model::content::{DEPTH_MAX, Extent};
use crate::model::digest::{Digests, Sha256Digest};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, SenderId, SpaceId};

/// How often a part of a composite is made again when it was collected meanwhile.
const TRIES: usize = 3;
/// Contents whose place elsewhere one run remembers.
const REMEMBERED_MAX: usize = 10_000;

/// Where the contents of one run went, so that a content that is referred to twice is not made twice.
#[derive(Default)]
pub struct Rehoming {
    went: HashMap<ContentId, ContentId>,
}

/// A content whose bytes are safe at the other placement.
pub struct Rehomed {
    old: ContentId,
    how: How,
    now: Millis,
    /// Keeps the collector from what this refers to.
    _read: Token,
    /// Keeps the sweep from the new blob.
    _write: Token,
}

enum How {
    /// It is there already, under this id.
    Known(ContentId),
    Leaf(Box<Leaf>),
    /// Written anew: in several blobs where one would be too long, or because its digests are not known.
    Anew(Box<Received>),
    Composite {
        id: ContentId,
        space: SpaceId,
        /// What it is found by, when it is.
        digests: Option<Box<Digests>>,
        extents: Vec<(Extent, Option<SenderId>)>,
    },
    /// It moves itself.
    InPlace {
        space: SpaceId,
        backends: Vec<i64>,
    },
}

/// A content of its own bytes, in another space.
struct Leaf {
    id: ContentId,
    space: SpaceId,
    digests: Digests,
    shared: bool,
    sealing: Option<Sealing>,
    bytes: LeafBytes,
}

enum LeafBytes {
    Inline(bytes::Bytes),
    Stored(StoredBlob),
}

impl Rehoming {
    /// Notes that a content was placed elsewhere as another one.
    pub fn went(&mut self, old: ContentId, new: ContentId) {
        if self.went.len() >= REMEMBERED_MAX {
            self.went.clear();
        }
        self.went.insert(old, new);
    }

    /// Takes back what [`Rehoming::went`] noted: it was collected.
    pub fn forget(&mut self, old: ContentId) {
        self.went.remove(&old);
    }
}

impl Rehomed {
    /// Takes the place in `session`'s transaction, which repoints the reference to what this answers: the content
    /// itself, where that moved. `None` when what it is made of was collected meanwhile.
    pub async fn place(&self, session: &mut Session) -> Result<Option<ContentId>, Fault> {
        match &self.how {
            How::Known(id) => Ok(contents::lock_well(session, *id).await?.then_some(*id)),
            How::Leaf(leaf) => leaf.place(session, self.now).await.map(Some),
            How::Anew(received) => match ContentStore::link(session, received, self.now).await? {
                Linked::To(id) => Ok(Some(id)),
                Linked::Gone => Ok(None),
            },
            How::Composite {
                id,
                space,
                digests,
                extents,
            } => {
                let mut digests = digests.as_deref();
                if let Some(of) = digests {
                    match contents::standing(session, *space, &of.sha256, of.length).await? {
                        // Made known meanwhile by who sent it again.
                        Some(Standing::Well(known)) => {
                            return Ok(contents::lock(session, known.id)
                                .await?
                                .then_some(known.id));
                        }
                        // Two cannot be known by one digest.
                        Some(Standing::Lost) => digests = None,
                        None => {}
                    }
                }
                for (extent, _) in extents {
                    if !contents::lock(session, extent.child).await? {
                        return Ok(None);
                    }
                }
                contents::insert_composite(session, *id, *space, extents, self.now).await?;
                if let Some(digests) = digests {
                    joined::set_digests(session, *id, digests).await?;
                }
                Ok(Some(*id))
            }
            How::InPlace { space, backends } => {
                if !contents::lock_alone(session, self.old).await? {
                    return Ok(None);
                }
                rehoming::set_space(session, self.old, *space).await?;
                self.leave_others(session, backends).await?;
                Ok(Some(self.old))
            }
        }
    }

    /// Gives up the copies of the content's blob at other backends than these, when any copy is live at these.
    async fn leave_others(&self, session: &mut Session, backends: &[i64]) -> Result<(), Fault> {
        let Some(blob) = rehoming::blob_of(session, self.old).await? else {
            return Ok(());
        };
        if copies::lock_blob(session, blob).await?.is_none() {
            return Ok(());
        }
        let all = copies::of_blob(session, blob).await?;
        let there = |copy: &AnyCopy| backends.contains(&copy.backend);
        if !all
            .iter()
            .any(|copy| there(copy) && copy.state == CopyState::Live)
        {
            return Err(Fault::new(Kind::Busy, "move content").context("its copy is gone again"));
        }
        for copy in all.into_iter().filter(|copy| !there(copy)) {
            let old = AnyCopy {
                state: CopyState::Deleting,
                ..copy
            };
            copies::write(session, blob, &old, self.now).await?;
        }
        Ok(())
    }

    /// From here on the bytes stay unless [`Rehomed::settle`] says otherwise.
    pub fn begin_commit(&self) {
        match &self.how {
            How::Leaf(leaf) => {
                if let LeafBytes::Stored(stored) = &leaf.bytes {
                    stored.begin_commit();
                }
            }
            How::Anew(received) => received.begin_commit(),
            How::Known(_) | How::Composite { .. } | How::InPlace { .. } => {}
        }
    }

    /// Says how the transaction ended: `Ok` with the content that was referred to, or the fault.
    pub fn settle(&self, outcome: Result<Option<ContentId>, Kind>) {
        let is_in = |placed| match &self.how {
            How::Leaf(leaf) => placed == leaf.id,
            How::Anew(received) => received.is_in(placed),
            How::Known(_) | How::Composite { .. } | How::InPlace { .. } => true,
        };
        match outcome {
            Ok(Some(placed)) if is_in(placed) => {}
            // It may be committed.
            Err(Kind::Unknown) => {}
            Ok(_) | Err(_) => self.discard(),
        }
    }

    fn discard(&self) {
        match &self.how {
            How::Leaf(leaf) => {
                if let LeafBytes::Stored(stored) = &leaf.bytes {
                    stored.discard();
                }
            }
            How::Anew(received) => received.discard(),
            How::Known(_) | How::Composite { .. } | How::InPlace { .. } => {}
        }
    }
}

impl Leaf {
    async fn place(&self, session: &mut Session, now: Millis) -> Result<ContentId, Fault> {
        let new = NewContent {
            id: self.id,
            space: self.space,
            digests: &self.digests,
            shared: self.shared,
            now,
        };
        let sealing = self.sealing.as_ref();
        match &self.bytes {
            LeafBytes::Inline(bytes) => {
                contents::insert_inline(session, &new, bytes, sealing).await
            }
            LeafBytes::Stored(stored) => {
                let runs = [NewRun {
                    content: self.id,
                    length: self.digests.length,
                    crc64nvme: Some(self.digests.crc64nvme),
                    blob: stored.blob(),
                    sealing,
                }];
                match contents::insert_stored(session, &new, &runs).await? {
                    Placed::As(id) => Ok(id),
                    Placed::Lost(_) => contents::insert_beside(session, &new, &runs).await,
                }
            }
        }
    }
}

impl ContentStore {
    /// Makes the bytes of a content safe where `beside`'s placement says, without taking their place yet; `None` when
    /// the content is gone, or is there.
    pub async fn rehome(
        self: &Arc<Self>,
        content: ContentId,
        beside: SpaceId,
        run: &mut Rehoming,
        work: &Work,
    ) -> Result<Option<Rehomed>, Fault> {
        self.rehome_at(content, beside, run, work, 0).await
    }

    fn rehome_at<'a>(
        self: &'a Arc<Self>,
        content: ContentId,
        beside: SpaceId,
        run: &'a mut Rehoming,
        work: &'a Work,
        depth: usize,
    ) -> BoxFuture<'a, Result<Option<Rehomed>, Fault>> {
        Box::pin(async move {
            let (read, write) = (self.open.read(), self.open.write());
            let Some((identity, location)) = self.look_at(content).await? else {
                return Ok(None);
            };
            let space = self.space_like(beside, identity.space).await?;
            if space == identity.space {
                return Ok(None);
            }
            let how = match run.went.get(&content) {
                Some(id) => How::Known(*id),
                None => match self.known_in(space, &identity).await? {
                    Some(id) => How::Known(id),
                    None if location.place == Place::Composite => {
                        let extents = self.parts_at(content, beside, run, work, depth).await?;
                        How::Composite {
                            id: ContentId(self.uids.next()?),
                            space,
                            digests: identity.digests.filter(|_| identity.shared).map(Box::new),
                            extents,
                        }
                    }
                    None if is_customers(&location) => {
                        let backends = self.bring_along(content, space, work).await?;
                        How::InPlace { space, backends }
                    }
                    // A run of a longer body has no digests yet.
                    None if identity.digests.is_none()
                        || self.is_too_long(&location, space).await? =>
                    {
                        let anew = self.anew(content, space, &identity, location, work);
                        How::Anew(Box::new(anew.await?))
                    }
                    None => {
                        let leaf = self.leaf(content, space, identity, location, work);
                        How::Leaf(Box::new(leaf.await?))
                    }
                },
            };
            Ok(Some(Rehomed {
                old: content,
                how,
                now: self.clock.now(),
                _read: read,
                _write: write,
            }))
        })
    }

    /// Whether a content's blob is longer than one of `space` may be.
    async fn is_too_long(&self, location: &Location, space: SpaceId) -> Result<bool, Fault> {
        Ok(match location.place {
            Place::Stored { .. } => stored_length(location)? > self.blob_max(space).await?,
            Place::Inline(_) | Place::Composite => false,
        })
    }

    /// The bytes of a content that its customer's key does not protect, written for `space` as if they came again.
    async fn anew(
        self: &Arc<Self>,
        content: ContentId,
        space: SpaceId,
        identity: &Identity,
        location: Location,
        work: &Work,
    ) -> Result<Received, Fault> {
        let seal = self.seal_of(&location, content).await?.ok_or_else(|| {
            Fault::new(Kind::Internal, "move content").context("only its customer has its key")
        })?;
        let length = location.length;
        let incoming = Incoming {
            space,
            shared: identity.shared,
            ..split::rewritten(identity, seal, length)
        };
        let reader = self.open(content, location, 0..length);
        let received = self.rewrite(incoming, reader, work).await?;
        split::is_equal(content, identity, &received)?;
        self.read_back(content, &received, work).await?;
        Ok(received)
    }

    pub(super) async fn look_at(
        &self,
        content: ContentId,
    ) -> Result<Option<(Identity, Location)>, Fault> {
        self.meta
            .read("find content", move |session| {
                Box::pin(async move {
                    let Some(identity) = rehoming::identity(session, content).await? else {
                        return Ok(None);
                    };
                    let location = contents::find_location(session, content).await?;
                    Ok::<_, Fault>(location.map(|location| (identity, location)))
                })
            })
            .await
    }

    async fn space_like(&self, beside: SpaceId, like: SpaceId) -> Result<SpaceId, Fault> {
        let new = SpaceId(self.uids.next()?);
        let found = self
            .meta
            .transact("find space", move |session| {
                Box::pin(rehoming::space_like(session, new, beside, like))
            })
            .await?;
        found.ok_or_else(|| {
            Fault::new(Kind::Corrupt, "find space").context(format_args!("space {like} has no row"))
        })
    }

    /// The equal content that is there already, if its digest tells.
    async fn known_in(
        &self,
        space: SpaceId,
        identity: &Identity,
    ) -> Result<Option<ContentId>, Fault> {
        let (Some(digests), true) = (&identity.digests, identity.shared) else {
            return Ok(None);
        };
        let (sha256, length) = (digests.sha256, digests.length);
        // One that nothing refers to any more, or yet, will do: it is locked, or found gone, when it gets its place.
        let known = self
            .meta
            .read("find content", move |session| {
                Box::pin(async move { contents::find(session, space, &sha256, length).await })
            })
            .await?;
        Ok(known.map(|known| known.id))
    }

    /// A new content with the bytes of `content`, which are in blobs or memory when this returns.
    async fn leaf(
        self: &Arc<Self>,
        content: ContentId,
        space: SpaceId,
        identity: Identity,
        location: Location,
        work: &Work,
    ) -> Result<Leaf, Fault> {
        let id = ContentId(self.uids.next()?);
        let digests = identity.digests.ok_or_else(|| {
            Fault::new(Kind::Corrupt, "move content")
                .context(format_args!("content {content} has no digests"))
        })?;
        let sealing = match location.sealing.clone() {
            None => None,
            Some(sealing) => Some(self.wrap_for(sealing, content, id).await?),
        };
        let length = stored_length(&location)?;
        let expected = (identity.shared && sealing.is_none()).then_some(digests.sha256);
        let bytes = match location.place {
            Place::Inline(bytes) => LeafBytes::Inline(bytes),
            Place::Stored { offset, copies } => {
                // Read as they lie: what they are encrypted with stays what it is.
                let as_they_lie = Location {
                    place: Place::Stored { offset, copies },
                    length,
                    sealing: None,
                };
                let stored = self.copy_bytes(content, as_they_lie, space, expected, work);
                LeafBytes::Stored(stored.await?)
            }
            Place::Composite => {
                return Err(Fault::new(Kind::Internal, "move content").context("a composite"));
            }
        };
        Ok(Leaf {
            id,
            space,
            digests,
            shared: identity.shared,
            sealing,
            bytes,
        })
    }

    /// Copies a content's bytes to a new blob of `space`, and reads them back.
    async fn copy_bytes(
        self: &Arc<Self>,
        content: ContentId,
        location: Location,
        space: SpaceId,
        expected: Option<Sha256Digest>,
        work: &Work,
    ) -> Result<StoredBlob, Fault> {
        let length = location.length;
        let mut target = self.new_blob(space, Some(length)).await?;
        let mut reader = self.open(content, location, 0..length);
        let mut digest = Sha256::new();
        while let Some(bytes) = reader.next().await {
            let bytes = bytes?;
            work.pace.take(bytes.len()).await;
            digest.update(&bytes);
            target.write(bytes).await?;
        }
        let digest = Sha256Digest(digest.finalize().into());
        let corrupt = |what: &'static str| {
            Fault::new(Kind::Corrupt, "move content")
                .context(format_args!("content {content}"))
                .context(what)
        };
        if expected.is_some_and(|expected| expected != digest) {
            target.abort().await;
            return Err(corrupt("its bytes are not those that were stored"));
        }
        let stored = target.finish(length).await?;
        for copy in &stored.blob().copies {
            let name = super::copies::parse(&copy.name)?;
            if self.digest_of(copy.backend, &name, length, work).await? != digest {
                return Err(corrupt("the backend does not give back what it was given"));
            }
        }
        Ok(stored)
    }

    /// The same data key, wrapped for another content.
    async fn wrap_for(
        &self,
        sealing: Sealing,
        old: ContentId,
        new: ContentId,
    ) -> Result<Sealing, Fault> {
        let lost = || {
            Fault::new(Kind::Corrupt, "move content")
                .context(format_args!("content {old}"))
                .context("its wrapping key has no row")
        };
        let version = sealing.key.ok_or_else(lost)?;
        let data = self.keys.unwrap(version, &sealing.key_wrapped, old).await?;
        let row = self
            .meta
            .read("find wrapping key", move |session| {
                Box::pin(wrap_keys::find_version(session, version))
            })
            .await?;
        let key = row.ok_or_else(lost)?.key;
        let wrapped = self.keys.wrap(key, &data, new).await?;
        Ok(Sealing {
            key: Some(wrapped.version),
            key_wrapped: wrapped.bytes,
            ..sealing
        })
    }

    /// The extents of a composite over contents that lie at the other placement.
    async fn parts_at(
        self: &Arc<Self>,
        content: ContentId,
        beside: SpaceId,
        run: &mut Rehoming,
        work: &Work,
        depth: usize,
    ) -> Result<Vec<(Extent, Option<SenderId>)>, Fault> {
        if depth >= DEPTH_MAX {
            return Err(Fault::new(Kind::Corrupt, "move content")
                .context(format_args!("content {content}"))
                .context("extents too deep"));
        }
        let mut extents = self
            .meta
            .scan("find extents", move |session| {
                Box::pin(rehoming::extents(session, content))
            })
            .await?;
        for (extent, _) in &mut extents {
            extent.child = self
                .part_at(extent.child, beside, run, work, depth + 1)
                .await?;
        }
        Ok(extents)
    }

    /// Places one part of a composite, which nothing refers to yet.
    async fn part_at(
        self: &Arc<Self>,
        part: ContentId,
        beside: SpaceId,
        run: &mut Rehoming,
        work: &Work,
        depth: usize,
    ) -> Result<ContentId, Fault> {
        for _ in 0..TRIES {
            let Some(rehomed) = self.rehome_at(part, beside, run, work, depth).await? else {
                return Ok(part);
            };
            let rehomed = Arc::new(rehomed);
            let (inside, uids, now) = (Arc::clone(&rehomed), Arc::clone(&self.uids), rehomed.now);
            let hold = work.hold();
            rehomed.begin_commit();
            let outcome = self
                .meta
                .transact("move part", move |session| {
                    let (inside, uids) = (Arc::clone(&inside), Arc::clone(&uids));
                    Box::pin(async move {
                        hold.on(session).await?;
                        let placed = inside.place(session).await?;
                        if let Some(id) = placed
                            && id != inside.old
                        {
                            releases::release(session, uids.next()?, id, now).await?;
                        }
                        Ok::<_, Fault>(placed)
                    })
                })
                .await;
            rehomed.settle(outcome.as_ref().map(|id| *id).map_err(Fault::kind));
            if let Some(id) = outcome? {
                run.went(part, id);
                return Ok(id);
            }
            run.forget(part);
        }
        Err(Fault::new(Kind::Busy, "move content")
            .context(format_args!("content {part}"))
            .context("its equal was collected again and again"))
    }

    /// Gives the blob of a content copies at the backends of `space`'s placement; answers those.
    async fn bring_along(
        &self,
        content: ContentId,
        space: SpaceId,
        work: &Work,
    ) -> Result<Vec<i64>, Fault> {
        let (placement, blob) = self
            .meta
            .read("find placement", move |session| {
                Box::pin(async move {
                    let placement = placements::of_space(session, space).await?;
                    let blob = rehoming::blob_of(session, content).await?;
                    Ok::<_, Fault>((placement, blob))
                })
            })
            .await?;
        let Some(blob) = blob else {
            return Ok(placement.backends);
        };
        let (mut live, mut refused) = (0, None);
        for to in &placement.backends {
            let route = Route {
                from: None,
                to: *to,
            };
            match self.copy_blob(blob, route, work).await {
                Ok(Copied::Live(_)) => live += 1,
                // Condemned, or somebody else writes it at this moment.
                Ok(Copied::Gone) => {}
                Ok(Copied::TooLong) => {
                    let fault = Fault::new(Kind::Config, "move content");
                    refused = Some(fault.context(format_args!("blob {blob}")).context(TOO_LONG));
                }
                // Noted as missing, and written once the backend is back.
                Err(fault) => refused = Some(fault),
            }
        }
        if live >= placement.copies_required {
            return Ok(placement.backends);
        }
        Err(refused.unwrap_or_else(|| {
            Fault::new(Kind::Busy, "move content").context(format_args!("blob {blob}"))
        }))
    }
}

/// Whether only a customer's key opens it.
fn is_customers(location: &Location) -> bool {
    location
        .sealing
        .as_ref()
        .is_some_and(|sealing| sealing.key.is_none())
}

/// Bytes that a content takes where it lies.
fn stored_length(location: &Location) -> Result<u64, Fault> {
    let Some(sealing) = &location.sealing else {
        return Ok(location.length);
    };
    Frames::new(sealing.frame_bytes, location.length)
        .map(|frames| frames.stored_length())
        .ok_or_else(|| Fault::new(Kind::Corrupt, "move content").context("frames of no bytes"))
}
