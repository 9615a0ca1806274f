//! Orders to move, and moves as operators see them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KIND, Payload};
use crate::meta::Bell;
use crate::meta::buckets::BackendRow;
use crate::meta::jobs::{self, NewJob};
use crate::meta::moves::{self, MoveRow, MoveState, Moved, Progress, Turn};
use crate::meta::{MetaStore, Session, buckets, copies, nodes, placements, rehoming};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{SpaceId, UidGenerator};
use crate::model::names::BucketName;
use crate::namespace::Namespace;

/// Moves that are looked at together.
const OPEN_MAX: usize = 100;

/// What an operator wants to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveOrder {
    /// The backend, or of a bucket the placement, that it is moved away from.
    pub from: String,
    /// The backend or placement it is moved to.
    pub to: String,
    /// Which bucket; `None` is all of the backend.
    pub bucket: Option<String>,
    /// Bytes per second at most, read and written together.
    pub rate: Option<u64>,
    /// What is to be done where placements hold both backends.
    pub mirrors: Mirrors,
}

/// What becomes of a placement that has copies at both backends of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirrors {
    /// It keeps them: the order is refused.
    Keep,
    /// It has one copy fewer from then on.
    Lose,
}

/// Why an order was not taken. The texts are for an operator.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Nothing of this name is recorded.
    #[error("there is no {what} {name}; there are {}", .known.join(", "))]
    Unknown {
        /// Backend, placement or bucket.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It is there, with all that it refers to.
    #[error("{0} is where it should be moved to already")]
    There(String),
    /// The bucket is not where the order says.
    #[error("the bucket {bucket} is at the placement {at}; name that with --from")]
    ElseWhere {
        /// Which.
        bucket: String,
        /// Where it is.
        at: String,
    },
    /// Each node has its own.
    #[error(
        "{name} lies on each node's own disk; name one that all nodes share, or that of one node: {}", .own.join(", ")
    )]
    EachNodes {
        /// What was asked for.
        name: String,
        /// Those of the nodes.
        own: Vec<String>,
    },
    /// Nodes could not write to where it is moved to.
    #[error(
        "backend {backend} is not configured on {}: configure it there and start that again, then move", .nodes.join(", ")
    )]
    NotEverywhere {
        /// The one that is missing.
        backend: String,
        /// Where.
        nodes: Vec<String>,
    },
    /// Placements would have one copy where they have two.
    #[error(
        "{} would keep one copy at {to} of what is at {from} and {to} now; move to a backend that they do not name, or \
         bring their buckets to another placement first (osproxy move --bucket), or give the copies up with --lose-copies",
        list_of(.placements)
    )]
    Mirrored {
        /// Which.
        placements: Vec<String>,
        /// From where.
        from: String,
        /// To where.
        to: String,
    },
    /// Another move must end first.
    #[error(
        "{from} is being moved to {to}; see `osproxy move status`, and move on when that is done"
    )]
    Busy {
        /// From where.
        from: String,
        /// To where.
        to: String,
    },
    /// The database failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A move as operators see it. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveSummary {
    /// Its number, as text.
    pub id: String,
    /// The bucket; `None` is a whole backend.
    pub bucket: Option<String>,
    /// From this backend or placement.
    pub from: String,
    /// To this one.
    pub to: String,
    /// `copying`, `emptying`, `done`, or `ended` when another move took its place.
    pub state: String,
    /// When it began.
    pub started: Millis,
    /// When it was done.
    pub ended: Option<Millis>,
    /// Bytes per second at most.
    pub rate: Option<u64>,
    /// Blobs or versions that were there when it began.
    pub total: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Blobs or versions that were moved.
    pub moved: u64,
    /// Their bytes.
    pub moved_bytes: u64,
    /// What could not be moved in the last pass.
    pub failed: u64,
    /// Why the last of that could not.
    pub reason: Option<String>,
    /// Objects that are left at the old backend, ours or not, when it was done.
    pub remains: Option<u64>,
}

/// Begins moves and tells of them, on an open database, whether a server runs or not.
pub struct Moves {
    meta: MetaStore,
    clock: Clock,
    bell: Bell,
}

impl Moves {
    /// The moves of an open database; `bell` wakes the engine of this process, if there is one.
    pub fn new(meta: MetaStore, clock: Clock, bell: Bell) -> Self {
        Self { meta, clock, bell }
    }

    /// Begins a move, durably, or sets the rate of the one that is under way. From then on new writes go to the target.
    pub async fn start(
        &self,
        order: MoveOrder,
        uids: &UidGenerator,
    ) -> Result<MoveSummary, MoveError> {
        let started = Start {
            order,
            id: uids.next()?,
            job: uids.next()?,
            space: SpaceId(uids.next()?),
            now: self.clock.now(),
            is_shared: self.meta.is_shared(),
        };
        let started = Arc::new(started);
        let id = self
            .meta
            .transact("start move", move |session| {
                let started = Arc::clone(&started);
                Box::pin(async move { started.run(session).await })
            })
            .await?;
        self.bell.ring();
        Ok(self.show(id).await?)
    }

    /// One move.
    pub async fn show(&self, id: i64) -> Result<MoveSummary, Fault> {
        let found = self
            .meta
            .read("show move", move |session| {
                Box::pin(async move {
                    let row = moves::find(session, id).await?;
                    let row = row.ok_or_else(|| {
                        Fault::new(Kind::NotFound, "show move").context(format_args!("move {id}"))
                    })?;
                    summary(session, row).await
                })
            })
            .await?;
        Ok(found)
    }

    /// The last moves, the newest first, at most `limit`.
    pub async fn list(&self, limit: usize) -> Result<Vec<MoveSummary>, Fault> {
        self.meta
            .read("list moves", move |session| {
                Box::pin(async move {
                    let mut found = Vec::new();
                    for row in moves::list(session, limit).await? {
                        found.push(summary(session, row).await?);
                    }
                    Ok::<_, Fault>(found)
                })
            })
            .await
    }
}

/// An order with the numbers it will use; may run several times.
struct Start {
    order: MoveOrder,
    id: i64,
    job: i64,
    space: SpaceId,
    now: Millis,
    is_shared: bool,
}

impl Start {
    async fn run(&self, session: &mut Session) -> Result<i64, MoveError> {
        // No node enters from here on that has not seen this move: it looks at what was moved before it serves.
        nodes::take_turn(session).await?;
        // Before anything else that a transaction of a move locks: what one of them has begun it has committed, and what
        // comes later it does not do in a move that is ended here.
        let open = moves::open(session, OPEN_MAX).await?;
        let new = match &self.order.bucket {
            None => self.backend(session, open).await?,
            Some(bucket) => self.bucket(session, bucket, open).await?,
        };
        // The clock here may be behind those of the nodes, by which they say what is open.
        let newest = nodes::newest_write(session).await?;
        let id = match new {
            Begun::Before(id) => {
                moves::set_rate(session, id, self.order.rate).await?;
                id
            }
            Begun::New(row) => {
                let switched = newest.map_or(row.switched, |newest| newest.max(row.switched));
                moves::insert(session, &MoveRow { switched, ..row }).await?;
                self.id
            }
        };
        let (key, payload) = (id.to_string(), jobs::encode(&Payload { id })?);
        let job = NewJob {
            id: self.job,
            kind: KIND,
            key: Some(&key),
            payload: &payload,
            due: self.now,
            now: self.now,
        };
        jobs::insert(session, &job).await?;
        Ok(id)
    }

    async fn backend(&self, session: &mut Session, open: Vec<MoveRow>) -> Result<Begun, MoveError> {
        let MoveOrder { from, to, .. } = &self.order;
        let mut ids = Vec::new();
        for name in [from, to] {
            match moves::lock_backend(session, name).await? {
                Some((id, _)) => ids.push(id),
                None => {
                    let known = buckets::backends(session).await?;
                    return Err(MoveError::Unknown {
                        what: "backend",
                        name: name.clone(),
                        known: known.into_iter().map(|(_, name)| name).collect(),
                    });
                }
            }
        }
        let (source, target) = (ids[0], ids[1]);
        if source == target {
            return Err(MoveError::There(from.clone()));
        }
        let known = buckets::backends(session).await?;
        for name in [from, to] {
            check_shared(name, &known)?;
        }
        for row in open {
            if row.what != Moved::Backend {
                continue;
            }
            if (row.source, row.target) == (source, target) {
                return Ok(Begun::Before(row.id));
            }
            if (row.source, row.target) == (target, source) {
                // Back again: what it has moved is at the source of this one.
                self.supersede(session, &row).await?;
                continue;
            }
            if [row.source, row.target]
                .iter()
                .any(|busy| ids.contains(busy))
            {
                let row = summary(session, row).await?;
                return Err(MoveError::Busy {
                    from: row.from,
                    to: row.to,
                });
            }
        }
        self.check_everywhere(session, &[target]).await?;
        if self.order.mirrors == Mirrors::Keep {
            let placements = placements::with_both(session, source, target).await?;
            if !placements.is_empty() {
                return Err(MoveError::Mirrored {
                    placements,
                    from: from.clone(),
                    to: to.clone(),
                });
            }
        }
        moves::redirect(session, source, target).await?;
        let (total, total_bytes) = copies::live_at(session, source).await?;
        Ok(Begun::New(MoveRow {
            total,
            total_bytes,
            ..self.row(Moved::Backend, source, target)
        }))
    }

    async fn bucket(
        &self,
        session: &mut Session,
        bucket: &str,
        open: Vec<MoveRow>,
    ) -> Result<Begun, MoveError> {
        let MoveOrder { from, to, .. } = &self.order;
        let mut ids = Vec::new();
        for name in [from, to] {
            match placements::find(session, name).await? {
                Some(id) => ids.push(id),
                None => {
                    let known = placements::all(session).await?;
                    return Err(MoveError::Unknown {
                        what: "placement",
                        name: name.clone(),
                        known: known.into_iter().map(|(_, name)| name).collect(),
                    });
                }
            }
        }
        let (source, target) = (ids[0], ids[1]);
        if source == target {
            return Err(MoveError::There(from.clone()));
        }
        check_shared(to, &placements::all(session).await?)?;
        let at = placements::backends_of(session, target).await?;
        self.check_everywhere(session, &at).await?;
        let unknown = || MoveError::Unknown {
            what: "bucket",
            name: bucket.to_owned(),
            known: vec!["those of `osproxy buckets`".to_owned()],
        };
        let name = BucketName::parse(bucket).map_err(|_| unknown())?;
        let switched = Namespace::switch_bucket(session, &name, target, self.space).await?;
        let switched = switched.ok_or_else(unknown)?;
        let mut before = None;
        for row in open {
            let ours = matches!(&row.what, Moved::Bucket { id, .. } if *id == switched.bucket);
            if ours && row.target == target {
                before = Some(row.id);
            } else if ours {
                // This one brings along whatever that has not.
                self.supersede(session, &row).await?;
            }
        }
        if let Some(id) = before {
            return Ok(Begun::Before(id));
        }
        // What a move has left, because it was damaged, may be brought along once it is repaired.
        let is_rest = switched.from == target
            && rehoming::count_elsewhere(session, switched.bucket, target).await? > 0;
        if switched.from != source && !is_rest {
            let at = placements::all(session).await?;
            let at = at.into_iter().find(|(id, _)| *id == switched.from);
            return Err(match at {
                Some((id, name)) if id == target => MoveError::There(name),
                at => MoveError::ElseWhere {
                    bucket: bucket.to_owned(),
                    at: at.map(|(_, name)| name).unwrap_or_default(),
                },
            });
        }
        let (total, total_bytes) = rehoming::count(session, switched.bucket).await?;
        let what = Moved::Bucket {
            id: switched.bucket,
            name: bucket.to_owned(),
        };
        Ok(Begun::New(MoveRow {
            total,
            total_bytes,
            ..self.row(what, source, target)
        }))
    }

    /// Ends a move whose place another one takes.
    async fn supersede(&self, session: &mut Session, row: &MoveRow) -> Result<(), Fault> {
        let turn = Turn {
            from: row.state,
            to: MoveState::Ended,
        };
        // It is locked since its state was read: it is in that state.
        moves::set_state(session, row.id, turn, None, self.now).await?;
        Ok(())
    }

    /// Refuses backends that a node does not have.
    async fn check_everywhere(
        &self,
        session: &mut Session,
        backends: &[i64],
    ) -> Result<(), MoveError> {
        let mut there = nodes::list(session).await?;
        // The row of a process that has its database for itself stays when it ends.
        there.retain(|node| self.is_shared || node.lease_until > self.now);
        for backend in backends {
            let Some(BackendRow { name, node }) = buckets::find_backend(session, *backend).await?
            else {
                continue;
            };
            let lacking = there.iter().filter(|it| {
                let is_its = node.as_ref().is_none_or(|node| *node == it.who.name);
                is_its && !it.who.backends.contains(&name)
            });
            let lacking: Vec<String> = lacking.map(|it| it.who.name.clone()).collect();
            if !lacking.is_empty() {
                return Err(MoveError::NotEverywhere {
                    backend: name,
                    nodes: lacking,
                });
            }
        }
        Ok(())
    }

    fn row(&self, what: Moved, source: i64, target: i64) -> MoveRow {
        MoveRow {
            id: self.id,
            what,
            source,
            target,
            state: MoveState::Copying,
            switched: self.now,
            rate: self.order.rate,
            total: 0,
            total_bytes: 0,
            progress: Progress::default(),
            failed: 0,
            reason: None,
            remains: None,
            ended: None,
        }
    }
}

/// Refuses what stands for something of which each node has its own.
fn check_shared(name: &str, known: &[(i64, String)]) -> Result<(), MoveError> {
    let own = known.iter().map(|(_, known)| known);
    let own: Vec<String> = own
        .filter(|known| known.rsplit_once('@').is_some_and(|(of, _)| of == name))
        .cloned()
        .collect();
    match own.is_empty() {
        true => Ok(()),
        false => Err(MoveError::EachNodes {
            name: name.to_owned(),
            own,
        }),
    }
}

/// Placements as the begin of a sentence.
fn list_of(placements: &[String]) -> String {
    match placements {
        [one] => format!("the placement {one}"),
        several => format!("the placements {}", several.join(", ")),
    }
}

enum Begun {
    Before(i64),
    New(MoveRow),
}

async fn summary(session: &mut Session, row: MoveRow) -> Result<MoveSummary, Fault> {
    let (names, bucket) = match row.what {
        Moved::Backend => (buckets::backends(session).await?, None),
        Moved::Bucket { name, .. } => (placements::all(session).await?, Some(name)),
    };
    let name = |id: i64| {
        let found = names.iter().find(|(other, _)| *other == id);
        found.map(|(_, name)| name.clone()).unwrap_or_default()
    };
    Ok(MoveSummary {
        id: row.id.to_string(),
        bucket,
        from: name(row.source),
        to: name(row.target),
        state: row.state.as_str().to_owned(),
        started: row.switched,
        ended: row.ended,
        rate: row.rate,
        total: row.total,
        total_bytes: row.total_bytes,
        moved: row.progress.moved,
        moved_bytes: row.progress.bytes,
        failed: row.failed,
        reason: row.reason,
        remains: row.remains,
    })
}
