//! Contents: bytes in once, bytes out, and what may be thrown away.
//!
//! ```text
//!   receive --> Received --> link (in the caller's transaction) --> settle
//!                  |  bytes are durable, or known, before any row names them
//!   open --> Reader, over rows, blobs and extents
//!   collect, sweep: what no reference is left to, what no row names
//!   split: a content in shorter blobs, where a backend takes none as long
//!   merge: joined parts become known, and are stored once with what came in one piece
//!   scrub, fsck: whether bytes and rows are as they should be
//! ```
//!
//! - [`ContentStore::receive`] hashes a body once while it streams. Short bodies stay in memory, so that it
//!   is decided before any backend write whether they are known; long ones go to a new blob meanwhile.
//! - [`ContentStore::link`] runs inside the transaction that takes the reference. Of two uploads of equal
//!   bytes one wins there, and the other's blob is dropped by [`ContentStore::settle`] after the commit.
//! - A content whose bytes a scrub found to be bad or missing at every backend is not known any more: whoever sends
//!   them is taken at their word, and what was lost has them again.
//! - Order of writes: bytes, then the row that names them; and the row goes before the bytes. A crash
//!   anywhere leaves at worst a blob that no row names, which the sweep finds by listing.
//! - What is to be encrypted is encrypted after it is hashed, in frames under a key of its own, so that digests
//!   are those of the plain bytes and equal bytes are stored once where they are protected by the same key.
//! - [`ContentStore::adopt`] makes contents of objects that another system wrote, where they lie.
//! - A commit with an unknown outcome is not undone: its blob stays for the sweep.

mod adopt;
mod claim;
mod collect;
mod copies;
mod elsewhere;
mod examine;
mod frames;
mod fsck;
mod health;
mod merge;
mod mirrored;
mod open;
mod pace;
mod proven;
mod reader;
mod receive;
mod rehome;
mod renew;
mod rewrap;
mod scrub;
mod sealing;
mod split;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Semaphore;

use crate::blob::BlobStore;
use crate::keys::Keys;
use crate::meta::buckets::BackendRow;
use crate::meta::contents::{self, Known, Location, NewContent, Place, Placed};
use crate::meta::{MetaStore, Session, buckets, placements};
use crate::model::clock::Clock;
use crate::model::digest::Sha256Digest;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, SenderId, SpaceId, UidGenerator};
use crate::telemetry::Metrics;

pub use adopt::{AdoptError, Adopted, Adoption, Foreign, Unsettled};
pub use collect::{CollectReport, Left, SweepReport};
pub use copies::{Copied, MendReport, Route};
pub use elsewhere::{CopyReader, Elsewhere, Here, ReadElsewhere};
pub use fsck::{FsckOrder, FsckReport};
pub use merge::{MERGE, MergeOrder, Merged};
pub use open::{OpenTimes, Token};
pub use pace::{Hold, Pace, Work};
pub use reader::Reader;
pub use receive::{Body, BodyError, Incoming, ReceiveError, Received};
pub use rehome::{Rehomed, Rehoming};
pub use rewrap::RewrapReport;
pub use scrub::{Act, Depth, Scrubbed, Scrutiny};
pub use sealing::Seal;
pub use split::Cut;

/// Where and how bytes are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Contents up to this many bytes lie in their SQL row and have no blob.
    pub inline_max_bytes: u64,
    /// Bodies up to this many bytes stay in memory until it is known whether they are new.
    pub memory_max_bytes: u64,
    /// How long after its last reference went a content is kept, in seconds.
    pub grace_seconds: u64,
    /// How long a condemned blob's bytes are kept, in seconds: at least the time between two backups of the
    /// database, so that a restored one finds its blobs.
    pub blob_retention_seconds: u64,
}

impl Config {
    fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// What a content store is made of.
pub struct Parts {
    /// The rows.
    pub meta: MetaStore,
    /// The bytes.
    pub blobs: BlobStore,
    /// What wraps the keys of encrypted bytes.
    pub keys: Arc<Keys>,
    /// Numbers for contents, blobs and releases.
    pub uids: Arc<UidGenerator>,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// This node among others; `None` where it is the only one.
    pub here: Option<Here>,
    /// Settings.
    pub config: Config,
}

/// Backends and spaces remembered.
const REMEMBERED: u64 = 10_000;

/// The store of contents. Shared by all requests.
pub struct ContentStore {
    meta: MetaStore,
    blobs: BlobStore,
    keys: Arc<Keys>,
    uids: Arc<UidGenerator>,
    clock: Clock,
    metrics: Arc<Metrics>,
    config: Config,
    open: Arc<OpenTimes>,
    health: Arc<health::Health>,
    here: Option<Here>,
    /// Backends by the id of their rows.
    backends: Cache<i64, Arc<BackendRow>>,
    /// What stands on this node for each space.
    spaces: Cache<SpaceId, SpaceId>,
    collecting: Semaphore,
}

/// What became of linking a received content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// The content to refer to.
    To(ContentId),
    /// It was known when the body came and is gone or lost now, and the bytes were not kept: the client must
    /// send them again.
    Gone,
}

impl ContentStore {
    /// A store over backends whose rows exist.
    pub async fn new(parts: Parts) -> Result<Self, Fault> {
        let (known, preference) = parts
            .meta
            .read("load backends", |session| {
                Box::pin(async move {
                    let backends = buckets::backends(session).await?;
                    let preference = placements::preference(session).await?;
                    Ok::<_, Fault>((backends, preference))
                })
            })
            .await?;
        let store = Self {
            open: Arc::new(OpenTimes::new(parts.clock.clone())),
            meta: parts.meta,
            blobs: parts.blobs,
            keys: parts.keys,
            uids: parts.uids,
            clock: parts.clock,
            metrics: parts.metrics,
            config: parts.config,
            health: Arc::new(health::Health::new(preference)),
            here: parts.here,
            backends: Cache::new(REMEMBERED),
            spaces: Cache::new(REMEMBERED),
            collecting: Semaphore::new(1),
        };
        for (id, _) in known {
            store.backend(id).await?;
        }
        Ok(store)
    }

    /// When the oldest read and write still open here began.
    pub fn open_times(&self) -> &Arc<OpenTimes> {
        &self.open
    }

    /// Begins a write that takes no bytes in, before it looks at what it will refer to: until the token is dropped, it is
    /// waited for as one that does.
    pub fn begin_write(&self) -> Token {
        self.open.write()
    }

    /// The content of these bytes in `space`, if it is known, is not lost, and `sender` has possession of it: sent these
    /// bytes in full by itself, through a reference that still stands.
    pub async fn possessed(
        &self,
        space: SpaceId,
        sha256: Sha256Digest,
        length: u64,
        sender: SenderId,
    ) -> Result<Option<Known>, Fault> {
        let space = self.space_here(space).await?;
        self.meta
            .read("find possessed", move |session| {
                Box::pin(async move {
                    let known = contents::find(session, space, &sha256, length).await?;
                    Ok(match known {
                        Some(known)
                            if contents::possessed_by(session, known.id, sender).await? =>
                        {
                            Some(known)
                        }
                        _ => None,
                    })
                })
            })
            .await
    }

    /// Takes the place of a received content in `session`'s transaction: inserts it, or finds the equal one
    /// that stands. An equal one that is lost gets the bytes. The caller writes the reference in the same
    /// transaction.
    pub async fn link(
        session: &mut Session,
        received: &Received,
        now: i64,
    ) -> Result<Linked, Fault> {
        let new = NewContent {
            id: received.new_id,
            space: received.space,
            digests: &received.digests,
            shared: received.shared,
            now,
        };
        Ok(match &received.holding {
            receive::Holding::Inline(bytes, sealing) => {
                let sealing = sealing.as_ref();
                Linked::To(contents::insert_inline(session, &new, bytes, sealing).await?)
            }
            receive::Holding::Stored(segments) => {
                let runs: Vec<_> = segments.iter().map(target::Segment::run).collect();
                received.begin_renewal(session).await?;
                Linked::To(match contents::insert_stored(session, &new, &runs).await? {
                    Placed::As(id) => id,
                    Placed::Lost(id) => received.renew(session, id, &new, &runs).await?,
                })
            }
            receive::Holding::Known(id) => match contents::lock_well(session, *id).await? {
                true => Linked::To(*id),
                false => Linked::Gone,
            },
            receive::Holding::Same(id) => match contents::lock(session, *id).await? {
                true => Linked::To(*id),
                false => Linked::Gone,
            },
        })
    }

    /// Says how the transaction that linked `received` ended, so that bytes nobody refers to are dropped:
    /// `Ok` with the content it refers to, or the fault. To be called once, after
    /// [`Received::begin_commit`].
    pub fn settle(&self, received: &Received, outcome: Result<ContentId, Option<Kind>>) {
        match outcome {
            Ok(content) if received.is_in(content) => {}
            Ok(_) => {
                self.metrics.dedup_hit();
                received.discard();
            }
            // It may be committed: the row, if it is there, needs the bytes.
            Err(Some(Kind::Unknown)) => {}
            Err(_) => received.discard(),
        }
    }

    /// Opens `range` of a content whose location was read together with its version.
    pub fn open(
        self: &Arc<Self>,
        content: ContentId,
        location: Location,
        range: std::ops::Range<u64>,
    ) -> Reader {
        Reader::new(Arc::clone(self), content, location, range)
    }

    /// Opens `range` of a content of which no more is known than that something refers to it.
    pub fn open_unlocated(
        self: &Arc<Self>,
        content: ContentId,
        range: std::ops::Range<u64>,
    ) -> Reader {
        Reader::unlocated(Arc::clone(self), content, range)
    }

    /// The names of the backends at which a content's bytes lie, its parts included; none for bytes in the database.
    pub async fn backends_of(
        &self,
        content: ContentId,
        location: &Location,
    ) -> Result<BTreeSet<String>, Fault> {
        let places: Vec<i64> = match &location.place {
            Place::Inline(_) => return Ok(BTreeSet::new()),
            Place::Stored { copies, .. } => copies.iter().map(|copy| copy.backend).collect(),
            Place::Composite => {
                self.meta
                    .scan("find backends", move |session| {
                        Box::pin(contents::backends_below(session, content))
                    })
                    .await?
            }
        };
        let mut names = BTreeSet::new();
        for id in places {
            names.insert(self.backend(id).await?.name.clone());
        }
        Ok(names)
    }
}
