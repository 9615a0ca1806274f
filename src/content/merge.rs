//! Joined parts made known by the digest of the whole, so that they are stored once with what came in one piece.
//!
//! ```text
//!   read all of it, each part held against its digest
//!                  --> a part is not what was stored: its copies are mended where one is well, and all is read again;
//!                      else nothing is changed, so that nothing is known by the digest of wrong bytes
//!                  --> equal bytes are known: one extent of those, and the parts are given up
//!                  --> they are not: the composite itself is known by its digests from here on
//!   many small parts, or equal bytes are known and lost: written anew as one content, and that, or the one that was
//!                  lost and lies where they were written, is what it is an extent of
//! ```
//!
//! The composite keeps its id, so that no version changes and whoever reads it goes on: what it read from stays for the
//! grace, like anything that was given up. A merge that is cut anywhere has changed nothing, or is done.

use std::sync::Arc;

use futures::stream;
use serde::{Deserialize, Serialize};

use super::proven::Proven;
use super::receive::{BodyError, Hashing, Incoming, ReceiveError, Received};
use super::scrub::{Act, Depth, Scrutiny};
use super::sealing::Seal;
use super::{ContentStore, Linked, Work};
use crate::meta::contents::{self, Standing};
use crate::meta::jobs::{self, NewJob};
use crate::meta::joined::{self, Joined};
use crate::meta::{Session, findings, releases};
use crate::model::clock::Millis;
use crate::model::digest::Digests;
use crate::model::fault::{Fault, Kind};
use crate::model::finding::Repair;
use crate::model::ids::{ContentId, SpaceId, UidGenerator};

/// The type of the jobs that merge.
pub const MERGE: &str = "merge";
/// Parts that are shorter than this on average are written anew as one: each costs a request of its own to read.
const SMALL_PART_BYTES: u64 = 4 << 20;

/// What one job is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeOrder {
    /// The content of the joined parts.
    pub content: i64,
}

/// What became of joined parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merged {
    /// There is nothing to do: nothing refers to them any more, or it is done.
    Nothing,
    /// They are known by their digests.
    Known,
    /// Equal bytes are there, and stand for them.
    Shared,
    /// They are one content now, written anew.
    Written,
    /// Parts that lie in several blobs each, and nothing equal is there: they stay as they are.
    Deep,
}

/// How the digests of the whole were come by.
#[derive(Clone)]
enum Whole {
    Read(Digests),
    Written(Arc<Received>),
}

impl ContentStore {
    /// Orders the merge of `content`, which `session`'s transaction joins, for `due`.
    pub async fn order_merge(
        session: &mut Session,
        id: i64,
        content: ContentId,
        due: Millis,
        now: Millis,
    ) -> Result<(), Fault> {
        let payload = jobs::encode(&MergeOrder { content: content.0 })?;
        let job = NewJob {
            id,
            kind: MERGE,
            key: Some(&content.to_string()),
            payload: &payload,
            due,
            now,
        };
        jobs::insert(session, &job).await.map(|_| ())
    }

    /// Merges the parts of a composite content that is known by no digest, reading all of it. [`Kind::Corrupt`] when
    /// that is not what was stored, and no copy has it.
    pub async fn merge(self: &Arc<Self>, content: ContentId, work: &Work) -> Result<Merged, Fault> {
        let fault = match self.merge_once(content, work).await {
            Err(fault) if fault.kind() == Kind::Corrupt => fault,
            outcome => return outcome,
        };
        if !self.mend_below(content, work).await? {
            return Err(fault);
        }
        tracing::warn!(%fault, %content, "joined parts read again from other copies");
        self.merge_once(content, work).await
    }

    /// Scrubs what a composite is made of; whether nothing bad is left.
    async fn mend_below(&self, content: ContentId, work: &Work) -> Result<bool, Fault> {
        let blobs = self.meta.scan("find blobs of parts", move |session| {
            Box::pin(findings::blobs_of(session, content))
        });
        let scrutiny = Scrutiny {
            backend: None,
            depth: Depth::All,
            act: Act::Mend,
        };
        let mut is_well = true;
        for blob in blobs.await? {
            let found = self.scrub_blob(blob, &scrutiny, work).await?.findings;
            is_well &= found.iter().all(|it| it.repair != Repair::None);
        }
        Ok(is_well)
    }

    async fn merge_once(
        self: &Arc<Self>,
        content: ContentId,
        work: &Work,
    ) -> Result<Merged, Fault> {
        let found = self.meta.read("find joined parts", move |session| {
            Box::pin(joined::find(session, content))
        });
        let Some(joined) = found.await? else {
            return Ok(Merged::Nothing);
        };
        let is_small = joined.length / joined.extents.max(1) < SMALL_PART_BYTES;
        let may_write = !joined.encrypted && self.space_here(joined.space).await? == joined.space;
        if is_small && may_write {
            return self.merge_anew(content, &joined, work).await;
        }
        let reader = self.read_parts(content, &joined, work).await?;
        let digests = self.digest_whole(&joined, reader, work).await?;
        // Two cannot be known by one digest: whoever sends the bytes of the one that is lost mends it, and here they are.
        if may_write && self.is_lost(joined.space, &digests).await? {
            return self.merge_anew(content, &joined, work).await;
        }
        let outcome = self.end_merge(content, Whole::Read(digests), work).await;
        outcome.map(|(merged, _)| merged)
    }

    async fn merge_anew(
        self: &Arc<Self>,
        content: ContentId,
        joined: &Joined,
        work: &Work,
    ) -> Result<Merged, Fault> {
        let reader = self.read_parts(content, joined, work).await?;
        let incoming = incoming(joined.space, joined.length);
        let received = Arc::new(self.rewrite(incoming, reader, work).await?);
        received.begin_commit();
        let whole = Whole::Written(Arc::clone(&received));
        let outcome = self.end_merge(content, whole, work).await;
        let settled = match &outcome {
            Ok((_, Some(stands))) => Ok(*stands),
            Ok((_, None)) => Err(None),
            Err(fault) => Err(Some(fault.kind())),
        };
        self.settle(&received, settled);
        outcome.map(|(merged, _)| merged)
    }

    async fn read_parts(
        self: &Arc<Self>,
        content: ContentId,
        joined: &Joined,
        work: &Work,
    ) -> Result<Proven, Fault> {
        work.expect(joined.length);
        let all = 0..joined.length;
        let reader = self.open_unlocated(content, all.clone());
        self.proven(reader, content, all).await
    }

    /// Whether an equal content is known and lost.
    async fn is_lost(&self, space: SpaceId, digests: &Digests) -> Result<bool, Fault> {
        let (sha256, length) = (digests.sha256, digests.length);
        let standing = self.meta.read("find equal content", move |session| {
            Box::pin(async move { contents::standing(session, space, &sha256, length).await })
        });
        Ok(matches!(standing.await?, Some(Standing::Lost)))
    }

    /// Receives the bytes of a content again.
    pub(super) async fn rewrite(
        &self,
        incoming: Incoming,
        reader: impl Into<Proven>,
        work: &Work,
    ) -> Result<Received, Fault> {
        let bytes = stream::unfold(reader.into(), async |mut reader| {
            let next = reader.next().await?;
            if let Ok(bytes) = &next {
                work.pace.take(bytes.len()).await;
            }
            Some((next.map_err(BodyError::from), reader))
        });
        let mut bytes = Box::pin(bytes);
        let received = self.receive(incoming, bytes.as_mut());
        received.await.map_err(|error| match error {
            ReceiveError::Fault(fault) => fault,
            ReceiveError::Body(error) => match error.downcast::<Fault>() {
                Ok(fault) => *fault,
                Err(error) => Fault::new(Kind::Internal, "rewrite content").source(error),
            },
            ReceiveError::TooLarge | ReceiveError::WrongLength => {
                Fault::new(Kind::Corrupt, "rewrite content").context("not as long as its row says")
            }
        })
    }

    async fn digest_whole(
        &self,
        joined: &Joined,
        mut reader: Proven,
        work: &Work,
    ) -> Result<Digests, Fault> {
        let incoming = incoming(joined.space, joined.length);
        let mut hashing = Hashing::new(&incoming);
        while let Some(bytes) = reader.next().await {
            let bytes = bytes?;
            work.pace.take(bytes.len()).await;
            hashing = hashing.take(bytes).await?;
        }
        hashing.finish(&incoming)
    }

    /// Records what the whole is; the content that stands for one that was written is answered too.
    async fn end_merge(
        &self,
        content: ContentId,
        whole: Whole,
        work: &Work,
    ) -> Result<(Merged, Option<ContentId>), Fault> {
        let (hold, uids, now) = (work.hold(), Arc::clone(&self.uids), self.clock.now());
        self.meta
            .transact("merge parts", move |session| {
                let (whole, uids) = (whole.clone(), Arc::clone(&uids));
                Box::pin(async move {
                    hold.on(session).await?;
                    end(session, content, &whole, &uids, now).await
                })
            })
            .await
    }
}

async fn end(
    session: &mut Session,
    content: ContentId,
    whole: &Whole,
    uids: &UidGenerator,
    now: Millis,
) -> Result<(Merged, Option<ContentId>), Fault> {
    let nothing = Ok((Merged::Nothing, None));
    if !contents::lock_alone(session, content).await?
        || !releases::is_referenced(session, content).await?
    {
        return nothing;
    }
    let Some(joined) = joined::find(session, content).await? else {
        return nothing;
    };
    let (merged, equal) = match whole {
        Whole::Written(received) => match ContentStore::link(session, received, now).await? {
            Linked::To(id) if id == received.new_id => (Merged::Written, id),
            Linked::To(id) => (Merged::Shared, id),
            // It was read once as what is gone: there are no bytes here to run the transaction again with.
            Linked::Gone => {
                return Err(Fault::new(Kind::Busy, "merge parts").context("collected in between"));
            }
        },
        Whole::Read(digests) => {
            let (sha256, length) = (&digests.sha256, digests.length);
            match contents::standing(session, joined.space, sha256, length).await? {
                // It was well when these bytes were read, or they may not be written here.
                Some(Standing::Lost) => {
                    return Err(Fault::new(Kind::Busy, "merge parts")
                        .context("the equal content that is known is lost"));
                }
                Some(Standing::Well(known)) => {
                    if !contents::lock(session, known.id).await? {
                        return Err(contents::collected_meanwhile(session, "merge parts"));
                    }
                    (Merged::Shared, known.id)
                }
                // Its parts may be two levels deep below what will refer to it.
                None if joined.depth > 1 => return Ok((Merged::Deep, None)),
                None => {
                    joined::set_digests(session, content, digests).await?;
                    return Ok((Merged::Known, None));
                }
            }
        }
    };
    let Some(given_up) = joined::stand_for(session, content, equal).await? else {
        return Ok((Merged::Deep, None));
    };
    for part in given_up {
        releases::release(session, uids.next()?, part, now).await?;
    }
    Ok((merged, Some(equal)))
}

fn incoming(space: SpaceId, length: u64) -> Incoming {
    Incoming {
        space,
        shared: true,
        seal: Seal::Plain,
        length: Some(length),
        limit: length,
        verified_sha256: None,
        sha1: false,
    }
}
