//! Rows of moves: from one backend to another, or of one bucket from one placement to another.

use super::catalog::{BACKENDS, BUCKETS};
use super::session::{Row, Session, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BucketId, SpaceId};

/// What is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// Every blob of a backend; source and target are backends.
    Backend,
    /// Every content of a bucket; source and target are placements.
    Bucket {
        /// Which.
        id: BucketId,
        /// Its name.
        name: String,
    },
}

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveState {
    /// New writes go to the target; what lies at the source is copied.
    Copying,
    /// Nothing is read at the source any more; old copies wait for their deletion.
    Emptying,
    /// The end, as it was meant.
    Done,
    /// Another move has taken its place.
    Ended,
}

/// From which state to which a move goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The state that it must be in.
    pub from: MoveState,
    /// The one that it is in afterwards.
    pub to: MoveState,
}

/// What a move has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blobs or versions that were moved.
    pub moved: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRow {
    /// Its id.
    pub id: i64,
    /// What is moved.
    pub what: Moved,
    /// From here, by row.
    pub source: i64,
    /// To there, by row.
    pub target: i64,
    /// How far it is.
    pub state: MoveState,
    /// From then on nothing new is planned at the source.
    pub switched: Millis,
    /// Bytes per second at most.
    pub rate: Option<u64>,
    /// Blobs or versions to be moved, when it began.
    pub total: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// What it has done so far.
    pub progress: Progress,
    /// What could not be moved in the last pass.
    pub failed: u64,
    /// Why the last of that could not.
    pub reason: Option<String>,
    /// Objects that were left at the source when it was done.
    pub remains: Option<u64>,
    /// When it was done.
    pub ended: Option<Millis>,
}

impl MoveState {
    /// Its name, in rows and for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Emptying => "emptying",
            Self::Done => "done",
            Self::Ended => "ended",
        }
    }

    /// Whether there is something left to do.
    pub fn is_open(self) -> bool {
        match self {
            Self::Copying | Self::Emptying => true,
            Self::Done | Self::Ended => false,
        }
    }
}

/// What [`row`] reads.
macro_rules! columns {
    () => {
        "SELECT id, kind, source_id, target_id, bucket_id, bucket_name, state, switched, rate, total, total_bytes,
                moved, moved_bytes, failed, reason, remains, ended
         FROM moves"
    };
}

fn row(row: &Row<'_>) -> Result<MoveRow, Fault> {
    let corrupt = |what: &'static str| Fault::new(Kind::Corrupt, "decode row").context(what);
    Ok(MoveRow {
        id: row.int(0)?,
        what: match row.str(1)? {
            "backend" => Moved::Backend,
            "bucket" => Moved::Bucket {
                id: BucketId(row.int(4)?),
                name: row.str(5)?.to_owned(),
            },
            _ => return Err(corrupt("kind of move")),
        },
        source: row.int(2)?,
        target: row.int(3)?,
        state: match row.str(6)? {
            "copying" => MoveState::Copying,
            "emptying" => MoveState::Emptying,
            "done" => MoveState::Done,
            "ended" => MoveState::Ended,
            _ => return Err(corrupt("state of move")),
        },
        switched: row.int(7)?,
        rate: row.opt_int(8)?.map(|rate| rate.max(0) as u64),
        total: row.size(9)?,
        total_bytes: row.size(10)?,
        progress: Progress {
            moved: row.size(11)?,
            bytes: row.size(12)?,
        },
        failed: row.size(13)?,
        reason: row.opt_str(14)?.map(str::to_owned),
        remains: row.opt_int(15)?.map(|left| left.max(0) as u64),
        ended: row.opt_int(16)?,
    })
}

/// Writes a new move.
pub async fn insert(session: &mut Session, new: &MoveRow) -> Result<(), Fault> {
    let (kind, bucket) = match &new.what {
        Moved::Backend => ("backend", None),
        Moved::Bucket { id, name } => ("bucket", Some((id.0, name.as_str()))),
    };
    session
        .execute(
            "INSERT INTO moves (id, kind, source_id, target_id, bucket_id, bucket_name, state, switched, rate, total,
                                total_bytes, moved, moved_bytes, failed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, 0)",
            params![
                new.id,
                kind,
                new.source,
                new.target,
                bucket.map(|(id, _)| id),
                bucket.map(|(_, name)| name),
                new.state.as_str(),
                new.switched,
                new.rate.map(|rate| rate as i64),
                new.total as i64,
                new.total_bytes as i64,
            ],
        )
        .await
}

/// A move, locked for the rest of the transaction; a plain read outside of one.
pub async fn find(session: &mut Session, id: i64) -> Result<Option<MoveRow>, Fault> {
    session
        .query_one(
            concat!(columns!(), " WHERE id = $1 /*FOR UPDATE*/"),
            params![id],
            row,
        )
        .await
}

/// The last moves, the newest first, at most `limit`.
pub async fn list(session: &mut Session, limit: usize) -> Result<Vec<MoveRow>, Fault> {
    session
        .query(
            concat!(columns!(), " ORDER BY id DESC LIMIT $1"),
            params![limit as i64],
            row,
        )
        .await
}

/// Makes the transaction one of a move: it commits only if the move is open, and until it has ended nobody can end the
/// move. A fault of kind [`Kind::Busy`] when it has ended.
pub async fn hold(session: &mut Session, id: i64) -> Result<(), Fault> {
    let open = session
        .query_one(
            "SELECT 1 FROM moves WHERE id = $1 AND (state = 'copying' OR state = 'emptying') /*FOR SHARE*/",
            params![id],
            |row| row.int(0),
        )
        .await?;
    match open {
        Some(_) => Ok(()),
        None => {
            Err(Fault::new(Kind::Busy, "hold move").context(format_args!("move {id} has ended")))
        }
    }
}

/// Moves with something left to do, in the order of their begin, at most `limit`; locked for the rest of the
/// transaction.
pub async fn open(session: &mut Session, limit: usize) -> Result<Vec<MoveRow>, Fault> {
    session
        .query(
            concat!(
                columns!(),
                " WHERE state = 'copying' OR state = 'emptying' ORDER BY id LIMIT $1 /*FOR UPDATE*/"
            ),
            params![limit as i64],
            row,
        )
        .await
}

/// Adds to what a move has done.
pub async fn advance(session: &mut Session, id: i64, by: Progress) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE moves SET moved = moved + $1, moved_bytes = moved_bytes + $2 WHERE id = $3",
            params![by.moved as i64, by.bytes as i64, id],
        )
        .await
}

/// Notes what a pass could not move.
pub async fn set_failed(
    session: &mut Session,
    id: i64,
    failed: u64,
    reason: Option<&str>,
) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE moves SET failed = $1, reason = $2 WHERE id = $3",
            params![failed as i64, reason, id],
        )
        .await
}

/// Sets how fast a move may go.
pub async fn set_rate(session: &mut Session, id: i64, rate: Option<u64>) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE moves SET rate = $1 WHERE id = $2",
            params![rate.map(|rate| rate as i64), id],
        )
        .await
}

/// Takes a move to another state; `remains` and the time where that is an end. `false`, and nothing is changed, when it
/// is in another state than the one it goes from: somebody else has taken it on, or ended it.
pub async fn set_state(
    session: &mut Session,
    id: i64,
    turn: Turn,
    remains: Option<u64>,
    now: Millis,
) -> Result<bool, Fault> {
    let present = find(session, id).await?.map(|row| row.state);
    if present != Some(turn.from) {
        return Ok(false);
    }
    let ended = (!turn.to.is_open()).then_some(now);
    session
        .execute(
            "UPDATE moves SET state = $1, remains = $2, ended = $3 WHERE id = $4",
            params![turn.to.as_str(), remains.map(|left| left as i64), ended, id],
        )
        .await?;
    Ok(true)
}

/// A backend under its lock, as id and what it was moved to.
pub async fn lock_backend(
    session: &mut Session,
    name: &str,
) -> Result<Option<(i64, Option<i64>)>, Fault> {
    session
        .query_one(
            "SELECT id, moved_to FROM backends WHERE name = $1 /*FOR UPDATE*/",
            params![name],
            |row| Ok((row.int(0)?, row.opt_int(1)?)),
        )
        .await
}

/// Lets `target` stand for `source` from now on, and for all that `source` stood for.
pub async fn redirect(session: &mut Session, source: i64, target: i64) -> Result<(), Fault> {
    let stood_for = session
        .query(
            "SELECT id FROM backends WHERE moved_to = $1",
            params![source],
            |row| row.int(0),
        )
        .await?;
    for backend in stood_for.into_iter().chain([source, target]) {
        session.changed(&BACKENDS, params![backend]);
    }
    session
        .execute(
            "UPDATE backends SET moved_to = NULL WHERE id = $1",
            params![target],
        )
        .await?;
    session
        .execute(
            "UPDATE backends SET moved_to = $1 WHERE moved_to = $2 AND id <> $1",
            params![target, source],
        )
        .await?;
    session
        .execute(
            "UPDATE backends SET moved_to = $1 WHERE id = $2",
            params![target, source],
        )
        .await
}

/// Whether a move has left nothing at a backend.
pub async fn has_emptied(session: &mut Session, backend: &str) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM moves m JOIN backends b ON b.id = m.source_id
             WHERE b.name = $1 AND m.kind = 'backend' AND m.state = 'done' AND m.remains = 0 LIMIT 1",
            params![backend],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// The names of the backends that were moved away from, each with that of the one which stands for it.
pub async fn redirected(session: &mut Session) -> Result<Vec<(String, String)>, Fault> {
    session
        .query(
            "SELECT f.name, t.name FROM backends f JOIN backends t ON t.id = f.moved_to ORDER BY f.id",
            &[],
            |row| Ok((row.str(0)?.to_owned(), row.str(1)?.to_owned())),
        )
        .await
}

/// Gives a bucket another space, and a new revision.
pub async fn set_space(
    session: &mut Session,
    bucket: BucketId,
    space: SpaceId,
) -> Result<(), Fault> {
    session.changed(&BUCKETS, params![bucket.0]);
    session
        .execute(
            "UPDATE buckets SET space_id = $1, rev = rev + 1 WHERE id = $2",
            params![space.0, bucket.0],
        )
        .await
}
