//! A content brought to a backend that takes no blob as long as its own: its bytes are written anew as several
//! contents, and it becomes a composite of those.
//!
//! It keeps its id and its digests, so that versions and what is known of it stay as they are; what it is a part of is
//! made of those from then on. Its old bytes stay for whoever is reading them, as a content that nothing refers to,
//! until the collector takes them.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::receive::{Holding, Incoming, Received};
use super::sealing::Seal;
use super::target::Segment;
use super::{ContentStore, Work};
use crate::meta::contents::{Location, NewContent, NewRun, Place};
use crate::meta::rehoming::Identity;
use crate::meta::splits::{self, Split};
use crate::meta::{releases, wrap_keys};
use crate::model::digest::Sha256Digest;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, ContentId};

/// What became of a blob that was to be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Its contents lie in shorter blobs, of so many bytes.
    Done(u64),
    /// It is condemned or gone, or waits for the collector.
    Gone,
    /// It cannot be split, and why.
    Never(&'static str),
}

impl ContentStore {
    /// Lets the contents in a blob lie in blobs as short as their placements want them. A run that is cut anywhere has
    /// split a content or not.
    pub async fn split_blob(self: &Arc<Self>, blob: BlobId, work: &Work) -> Result<Cut, Fault> {
        let found = self
            .meta
            .scan("find contents of blob", move |session| {
                Box::pin(splits::contents_of(session, blob))
            })
            .await?;
        let mut all = Cut::Gone;
        for content in found {
            match (self.split_content(content, blob, work).await?, &mut all) {
                (never @ Cut::Never(_), _) => return Ok(never),
                (Cut::Gone, _) => {}
                (Cut::Done(bytes), Cut::Done(sum)) => *sum += bytes,
                (done @ Cut::Done(_), all) => *all = done,
            }
        }
        Ok(all)
    }

    async fn split_content(
        self: &Arc<Self>,
        content: ContentId,
        blob: BlobId,
        work: &Work,
    ) -> Result<Cut, Fault> {
        let _read = self.open.read();
        let Some((identity, location)) = self.look_at(content).await? else {
            return Ok(Cut::Gone);
        };
        let Some(seal) = self.seal_of(&location, content).await? else {
            return Ok(Cut::Never("only its customer has its key"));
        };
        let length = location.length;
        let incoming = rewritten(&identity, seal, length);
        let reader = self.open(content, location, 0..length);
        let received = self.rewrite(incoming, reader, work).await?;
        if !matches!(received.holding, Holding::Stored(_)) {
            return Err(Fault::new(Kind::Internal, "split content").context("it is in no blob"));
        }
        is_equal(content, &identity, &received)?;
        self.read_back(content, &received, work).await?;
        let received = Arc::new(received);
        received.begin_commit();
        let outcome = self.place_split(content, blob, &received, work).await;
        match &outcome {
            // It may be committed: the rows, if they are there, need the bytes.
            Err(fault) if fault.kind() == Kind::Unknown => {}
            Ok(Split::Done { .. }) => {}
            Ok(Split::Gone | Split::TooMany) | Err(_) => received.discard(),
        }
        Ok(match outcome? {
            Split::Done { .. } => Cut::Done(length),
            Split::Gone => Cut::Gone,
            Split::TooMany => Cut::Never("its object would be in too many pieces"),
        })
    }

    /// What protects new bytes as a content's are; `None` when only a customer can.
    pub(super) async fn seal_of(
        &self,
        location: &Location,
        content: ContentId,
    ) -> Result<Option<Seal>, Fault> {
        let Some(sealing) = &location.sealing else {
            return Ok(Some(Seal::Plain));
        };
        let Some(version) = sealing.key else {
            return Ok(None);
        };
        let row = self
            .meta
            .read("find wrapping key", move |session| {
                Box::pin(wrap_keys::find_version(session, version))
            })
            .await?;
        let row = row.ok_or_else(|| {
            Fault::new(Kind::Corrupt, "find wrapping key")
                .context(format_args!("content {content}"))
                .context("its wrapping key has no row")
        })?;
        Ok(Some(Seal::Key(row.key)))
    }

    /// Reads every copy of new blobs and holds it against what was written.
    pub(super) async fn read_back(
        self: &Arc<Self>,
        content: ContentId,
        received: &Received,
        work: &Work,
    ) -> Result<(), Fault> {
        let lies = |what: &'static str| {
            Fault::new(Kind::Corrupt, "split content")
                .context(format_args!("content {content}"))
                .context(what)
        };
        if received.segments().is_empty() {
            return Ok(());
        }
        let mut whole = Sha256::new();
        for segment in received.segments() {
            let mut first = None;
            for copy in &segment.blob().copies {
                let location = Location {
                    place: Place::Stored {
                        offset: 0,
                        copies: vec![copy.clone()],
                    },
                    length: segment.length,
                    sealing: segment.sealing.clone(),
                };
                let mut reader = self.open(segment.content, location, 0..segment.length);
                let mut digest = Sha256::new();
                while let Some(bytes) = reader.next().await {
                    let bytes = bytes?;
                    work.pace.take(bytes.len()).await;
                    if first.is_none() {
                        whole.update(&bytes);
                    }
                    digest.update(&bytes);
                }
                let digest = digest.finalize();
                if *first.get_or_insert(digest) != digest {
                    return Err(lies("the copies at its backends differ"));
                }
            }
        }
        if Sha256Digest(whole.finalize().into()) != received.digests.sha256 {
            return Err(lies("the backend does not give back what it was given"));
        }
        Ok(())
    }

    async fn place_split(
        &self,
        content: ContentId,
        blob: BlobId,
        received: &Arc<Received>,
        work: &Work,
    ) -> Result<Split, Fault> {
        let (hold, now) = (work.hold(), self.clock.now());
        let (received, uids) = (Arc::clone(received), Arc::clone(&self.uids));
        self.meta
            .transact("split content", move |session| {
                let (received, uids) = (Arc::clone(&received), Arc::clone(&uids));
                Box::pin(async move {
                    hold.on(session).await?;
                    let new = NewContent {
                        id: content,
                        space: received.space,
                        digests: &received.digests,
                        shared: received.shared,
                        now,
                    };
                    let runs: Vec<_> = received.segments().iter().map(Segment::run).collect();
                    let old = ContentId(uids.next()?);
                    let outcome = splits::split(session, &new, blob, old, &runs).await?;
                    if let Split::Done { referenced } = outcome {
                        releases::release(session, uids.next()?, old, now).await?;
                        if !referenced {
                            releases::release(session, uids.next()?, content, now).await?;
                        }
                    }
                    Ok(outcome)
                })
            })
            .await
    }
}

impl Segment {
    /// What its row is made of.
    pub(super) fn run(&self) -> NewRun<'_> {
        NewRun {
            content: self.content,
            length: self.length,
            crc64nvme: self.crc64nvme,
            blob: self.blob(),
            sealing: self.sealing.as_ref(),
        }
    }
}

/// Bytes of a content that are written again beside it.
pub(super) fn rewritten(identity: &Identity, seal: Seal, length: u64) -> Incoming {
    let digests = identity.digests.as_ref();
    Incoming {
        space: identity.space,
        // What is known by these digests is the content that they are read from.
        shared: false,
        seal,
        length: Some(length),
        limit: length,
        verified_sha256: None,
        sha1: digests.is_some_and(|digests| digests.sha1.is_some()),
    }
}

/// Whether what was read and written again is what was stored, as far as its row tells.
pub(super) fn is_equal(
    content: ContentId,
    identity: &Identity,
    received: &Received,
) -> Result<(), Fault> {
    let is_equal = |fingerprint| received.digests.have(fingerprint);
    if identity.fingerprint.is_none_or(is_equal) {
        return Ok(());
    }
    Err(Fault::new(Kind::Corrupt, "rewrite content")
        .context(format_args!("content {content}"))
        .context("its bytes are not those that were stored"))
}
