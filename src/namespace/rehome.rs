//! A bucket brought to another placement, reference by reference, while it is used.
//!
//! New writes go to the new placement from the moment the bucket has its space there. What was there before is
//! found by looking: versions and parts whose contents lie elsewhere. Each reference is repointed under its key's
//! or its upload's lock, if it is still the one that was found; nothing else of a version changes.

use std::sync::Arc;

use super::{Namespace, release};
use crate::content::{Rehoming, Work};
use crate::meta::rehoming::{self, Elsewhere, Reference};
use crate::meta::{Session, buckets, moves, objects, placements, uploads};
use crate::model::bucket::Bucket;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BucketId, SpaceId, Uid};
use crate::model::names::BucketName;

/// References looked at in one round.
const ROUND: usize = 50;
/// How often a reference is tried again when what it is to refer to was collected meanwhile.
const TRIES: usize = 3;

/// Where a pass over a bucket's references is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RehomeCursor {
    /// Among the current versions, after this key.
    Current(Vec<u8>),
    /// Among the noncurrent ones, after this key and place.
    Noncurrent(Vec<u8>, i64),
    /// Among the parts of uploads, after this one.
    Parts(Uid, u32),
}

impl RehomeCursor {
    /// Where a pass begins.
    pub fn begin() -> Self {
        Self::Current(Vec::new())
    }
}

/// What one round did.
#[derive(Debug, Default)]
pub struct RehomeRound {
    /// References repointed.
    pub moved: u64,
    /// Their bytes.
    pub bytes: u64,
    /// References that could not be moved, and may be the next time.
    pub failed: u64,
    /// References to what is damaged.
    pub lost: u64,
    /// Why the last of them could not.
    pub reason: Option<String>,
    /// Where the next round goes on; `None` at the end of the pass.
    pub next: Option<RehomeCursor>,
}

/// What [`Namespace::switch_bucket`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switched {
    /// The bucket.
    pub bucket: BucketId,
    /// The placement it was at.
    pub from: i64,
}

impl Namespace {
    /// Gives a bucket its space at `placement`, in the caller's transaction; `None` when it is gone. What it held before
    /// is brought there by [`Namespace::rehome_round`].
    pub async fn switch_bucket(
        session: &mut Session,
        name: &BucketName,
        placement: i64,
        new_space: SpaceId,
    ) -> Result<Option<Switched>, Fault> {
        let Some(bucket) = buckets::find(session, name).await? else {
            return Ok(None);
        };
        let Some(bucket) = buckets::lock_alone(session, bucket.id).await? else {
            return Ok(None);
        };
        let (from, _) = place_of(session, &bucket).await?;
        if from != placement {
            let space = buckets::space(session, new_space, bucket.tenant, placement).await?;
            moves::set_space(session, bucket.id, space).await?;
        }
        Ok(Some(Switched {
            bucket: bucket.id,
            from,
        }))
    }

    /// Brings some of what a bucket refers to elsewhere to its own placement. May be dropped at any point, and run
    /// by several at a time.
    pub async fn rehome_round(
        &self,
        bucket: BucketId,
        cursor: RehomeCursor,
        run: &mut Rehoming,
        work: &Work,
    ) -> Result<RehomeRound, Fault> {
        let mut round = RehomeRound::default();
        let looked = self
            .meta
            .scan("find what lies elsewhere", move |session| {
                Box::pin(async move {
                    // Gone with all its references.
                    let Some(bucket) = buckets::find_by_id(session, bucket).await? else {
                        return Ok(None);
                    };
                    let (placement, _) = place_of(session, &bucket).await?;
                    let found = look(session, bucket.id, placement, &cursor).await?;
                    let next = following(&cursor, &found);
                    Ok::<_, Fault>(Some((bucket.space, found, next)))
                })
            })
            .await?;
        let Some((space, found, next)) = looked else {
            return Ok(round);
        };
        round.next = next;
        for elsewhere in found {
            match self.rehome(bucket, space, &elsewhere, run, work).await {
                Ok(true) => {
                    round.moved += 1;
                    round.bytes += elsewhere.size;
                }
                Ok(false) => {}
                Err(fault) => {
                    tracing::warn!(%fault, "content not moved");
                    match fault.kind() {
                        Kind::Corrupt | Kind::Config => round.lost += 1,
                        _ => round.failed += 1,
                    }
                    round.reason = Some(fault.to_string());
                }
            }
        }
        Ok(round)
    }

    /// Brings one reference along; `false` when it is not what was found any more.
    async fn rehome(
        &self,
        bucket: BucketId,
        space: SpaceId,
        elsewhere: &Elsewhere,
        run: &mut Rehoming,
        work: &Work,
    ) -> Result<bool, Fault> {
        let old = elsewhere.content;
        for _ in 0..TRIES {
            let Some(rehomed) = self.content.rehome(old, space, run, work).await? else {
                return Ok(false);
            };
            let rehomed = Arc::new(rehomed);
            let (inside, from) = (Arc::clone(&rehomed), Arc::new(elsewhere.from.clone()));
            let (uids, now) = (Arc::clone(&self.uids), self.clock.now());
            let hold = work.hold();
            rehomed.begin_commit();
            let outcome = self
                .meta
                .transact("move reference", move |session| {
                    let (inside, from) = (Arc::clone(&inside), Arc::clone(&from));
                    let uids = Arc::clone(&uids);
                    Box::pin(async move {
                        hold.on(session).await?;
                        if !holds(session, bucket, &from).await? {
                            return Ok((Repointed::Changed, None));
                        }
                        let Some(new) = inside.place(session).await? else {
                            return Ok((Repointed::Gone, None));
                        };
                        if new == old {
                            return Ok((Repointed::Done, Some(new)));
                        }
                        if !rehoming::repoint(session, bucket, &from, old, new).await? {
                            // What was placed goes with the transaction.
                            return Err(changed());
                        }
                        release(session, &uids, old, now).await?;
                        Ok::<_, Fault>((Repointed::Done, Some(new)))
                    })
                })
                .await;
            rehomed.settle(outcome.as_ref().map(|(_, id)| *id).map_err(Fault::kind));
            match outcome {
                Ok((Repointed::Done, new)) => {
                    if let Some(new) = new {
                        run.went(old, new);
                    }
                    return Ok(true);
                }
                Ok((Repointed::Changed, _)) => return Ok(false),
                Ok((Repointed::Gone, _)) => run.forget(old),
                Err(fault) if fault.kind() == Kind::NotFound => return Ok(false),
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::new(Kind::Busy, "move reference").context("collected again and again"))
    }
}

/// What became of a reference.
enum Repointed {
    Done,
    /// It is not what was found any more.
    Changed,
    /// What it was to refer to is gone.
    Gone,
}

fn changed() -> Fault {
    Fault::new(Kind::NotFound, "move reference").context("it changed meanwhile")
}

/// The placement that a bucket is at.
async fn place_of(session: &mut Session, bucket: &Bucket) -> Result<(i64, String), Fault> {
    let found = placements::name_of(session, bucket.space).await?;
    found.ok_or_else(|| {
        Fault::new(Kind::Corrupt, "find placement").context(format_args!("space {}", bucket.space))
    })
}

/// Takes the lock that a reference is changed under; `false` when its key or upload is gone.
async fn holds(session: &mut Session, bucket: BucketId, from: &Reference) -> Result<bool, Fault> {
    Ok(match from {
        Reference::Current(key) | Reference::Noncurrent(key, _) => {
            objects::lock(session, bucket, key).await?.is_some()
        }
        Reference::Part(upload, _) => uploads::find(session, *upload).await?.is_some(),
    })
}

async fn look(
    session: &mut Session,
    bucket: BucketId,
    placement: i64,
    cursor: &RehomeCursor,
) -> Result<Vec<Elsewhere>, Fault> {
    match cursor {
        RehomeCursor::Current(key) => {
            rehoming::current(session, bucket, placement, key, ROUND).await
        }
        RehomeCursor::Noncurrent(key, ord) => {
            rehoming::noncurrent(session, bucket, placement, (key, *ord), ROUND).await
        }
        RehomeCursor::Parts(upload, number) => {
            rehoming::parts(session, bucket, placement, (*upload, *number), ROUND).await
        }
    }
}

/// Where the round after `found` begins.
fn following(cursor: &RehomeCursor, found: &[Elsewhere]) -> Option<RehomeCursor> {
    match (found.last().map(|last| &last.from), cursor) {
        (Some(Reference::Current(key)), _) => Some(RehomeCursor::Current(key.as_bytes().to_vec())),
        (Some(Reference::Noncurrent(key, ord)), _) => {
            Some(RehomeCursor::Noncurrent(key.as_bytes().to_vec(), *ord))
        }
        (Some(Reference::Part(upload, number)), _) => Some(RehomeCursor::Parts(*upload, *number)),
        (None, RehomeCursor::Current(_)) => Some(RehomeCursor::Noncurrent(Vec::new(), i64::MIN)),
        (None, RehomeCursor::Noncurrent(..)) => Some(RehomeCursor::Parts(Uid(0), 0)),
        (None, RehomeCursor::Parts(..)) => None,
    }
}

/// The space that the joined parts of an upload belong to: where one of them lies outside of the bucket's placement,
/// because the bucket is on its way, it is that one's, so that the whole is found there and brought along.
pub(super) async fn space_of_joined(
    session: &mut Session,
    bucket: &Bucket,
    upload: Uid,
) -> Result<SpaceId, Fault> {
    let (placement, _) = place_of(session, bucket).await?;
    let spaces = rehoming::spaces_of_parts(session, upload).await?;
    let elsewhere = spaces.iter().find(|(_, there)| *there != placement);
    let space = elsewhere.or(spaces.first()).map(|(space, _)| *space);
    space.ok_or_else(|| Fault::new(Kind::Internal, "join parts").context("no parts"))
}
