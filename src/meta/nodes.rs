//! Rows of nodes: what each has open, which time each may mint ids in, and the fence without which it commits
//! nothing.

use super::codec;
use super::session::{Session, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};

/// The first worker of nodes that share a database. Those before it: the process that has a database for itself,
/// and commands.
const WORKER_FIRST: i64 = 2;
/// The last one there is room for in an id.
const WORKER_LAST: i64 = 1023;
/// The worker of commands, whose row is also what claims of workers take turns by.
pub const COMMAND_WORKER: u16 = 1;

/// The time up to which `worker`'s ids are reserved; 0 when it was never used.
pub async fn reserved_until(session: &mut Session, worker: u16) -> Result<Millis, Fault> {
    let found = session
        .query_one(
            "SELECT reserved_until FROM workers WHERE id = $1 /*FOR UPDATE*/",
            params![i64::from(worker)],
            |row| row.int(0),
        )
        .await?;
    Ok(found.unwrap_or(0))
}

/// Reserves the time below `until` for `worker`, held by `node`.
pub async fn reserve(
    session: &mut Session,
    worker: u16,
    node: i64,
    until: Millis,
) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO workers (id, node_id, reserved_until) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE
             SET node_id = excluded.node_id, reserved_until = excluded.reserved_until",
            params![i64::from(worker), node, until],
        )
        .await
}

/// Lets the transactions that call this take turns, for the rest of each: those that become a node, and those that go
/// by which nodes there are.
pub async fn take_turn(session: &mut Session) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO workers (id, node_id, reserved_until) VALUES ($1, 0, 0) ON CONFLICT (id) DO NOTHING",
            params![i64::from(COMMAND_WORKER)],
        )
        .await?;
    reserved_until(session, COMMAND_WORKER).await?;
    Ok(())
}

/// A worker that no node holds, for the rest of the transaction, which must reserve it: one whose ids are past,
/// else one that was never used. [`Kind::Busy`] when there is none.
pub async fn free_worker(session: &mut Session, now: Millis) -> Result<u16, Fault> {
    // Two who look at the same time would find the same one.
    take_turn(session).await?;
    let found = session
        .query(
            "SELECT w.id, w.reserved_until FROM workers w
             WHERE w.id >= $1 AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = w.node_id)
             ORDER BY w.reserved_until, w.id LIMIT 1",
            params![WORKER_FIRST],
            |row| Ok((row.int(0)?, row.int(1)?)),
        )
        .await?;
    let left = found.first().copied();
    let last = session
        .query_one("SELECT MAX(id) FROM workers", &[], |row| row.opt_int(0))
        .await?;
    let unused = (last.flatten().unwrap_or(0) + 1).max(WORKER_FIRST);
    let worker = match left {
        Some((id, until)) if until <= now || unused > WORKER_LAST => Some(id),
        _ => (unused <= WORKER_LAST).then_some(unused),
    };
    worker.and_then(|id| u16::try_from(id).ok()).ok_or_else(|| {
        Fault::new(Kind::Busy, "claim worker").context("more than a thousand nodes are alive")
    })
}

/// Records a node that has not been there before, with its fence.
pub async fn enter(
    session: &mut Session,
    node: i64,
    who: &Who,
    beat: &Heartbeat,
) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO fences (node_id, epoch) VALUES ($1, 1)",
            params![node],
        )
        .await?;
    self::beat(session, node, who, beat).await
}

/// Takes a node's fence and its row away, after the commits it has under way: afterwards it commits nothing, and
/// what it has open holds nobody back. Its worker is free. Answers until when it said it was alive; `None` when it
/// was gone already.
pub async fn expel(session: &mut Session, node: i64) -> Result<Option<Millis>, Fault> {
    session
        .execute("DELETE FROM fences WHERE node_id = $1", params![node])
        .await?;
    let lease_until = session
        .query_one(
            "SELECT lease_until FROM nodes WHERE id = $1 /*FOR UPDATE*/",
            params![node],
            |row| row.int(0),
        )
        .await?;
    session
        .execute("DELETE FROM nodes WHERE id = $1", params![node])
        .await?;
    Ok(lease_until)
}

/// Takes the fences of all nodes for the rest of the transaction, after the transactions they have under way.
pub(super) async fn lock_fences(session: &mut Session) -> Result<(), Fault> {
    session
        .query(
            "SELECT node_id FROM fences ORDER BY node_id /*FOR UPDATE*/",
            &[],
            |row| row.int(0),
        )
        .await?;
    Ok(())
}

/// Every node and until when it counts as alive.
pub async fn leases(session: &mut Session) -> Result<Vec<(i64, Millis)>, Fault> {
    session
        .query(
            "SELECT id, lease_until FROM nodes ORDER BY id LIMIT 2000",
            &[],
            |row| Ok((row.int(0)?, row.int(1)?)),
        )
        .await
}

/// What a node is called by operators and peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its configured name, which stays when the process starts again.
    pub name: String,
    /// Host and port where its peers reach it; `None` when they cannot.
    pub address: Option<String>,
    /// The names of the backends that are configured there; of one that each node has, its own name.
    pub backends: Vec<String>,
}

/// What a node has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// When.
    pub now: Millis,
    /// Until when the node counts as alive.
    pub lease_until: Millis,
    /// No read open on the node began before this.
    pub oldest_read: Millis,
    /// No blob that no row names yet was begun on the node before this.
    pub oldest_write: Millis,
}

/// Records a node's heartbeat.
pub async fn beat(
    session: &mut Session,
    node: i64,
    who: &Who,
    beat: &Heartbeat,
) -> Result<(), Fault> {
    let backends = codec::names_to_column(&who.backends)?;
    session
        .execute(
            "INSERT INTO nodes (id, lease_until, oldest_read, oldest_write, placement_rev, name, address, beaten,
                                backends)
             VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE
             SET lease_until = excluded.lease_until, oldest_read = excluded.oldest_read,
                 oldest_write = excluded.oldest_write, name = excluded.name, address = excluded.address,
                 beaten = excluded.beaten, backends = excluded.backends",
            params![
                node,
                beat.lease_until,
                beat.oldest_read,
                beat.oldest_write,
                who.name.as_str(),
                who.address.as_deref(),
                beat.now,
                backends.as_str(),
            ],
        )
        .await
}

/// A node as its row describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// This run of its process.
    pub id: i64,
    /// What it is called.
    pub who: Who,
    /// The worker it mints as; `None` while it claims one.
    pub worker: Option<i64>,
    /// Until when it said that it is alive.
    pub lease_until: Millis,
    /// When it was last heard of.
    pub beaten: Millis,
    /// No read open on it began before this.
    pub oldest_read: Millis,
    /// No unfinished write on it began before this.
    pub oldest_write: Millis,
}

/// Every node, by name.
pub async fn list(session: &mut Session) -> Result<Vec<NodeRow>, Fault> {
    session
        .query(
            "SELECT n.id, n.name, n.address, w.id, n.beaten, n.oldest_read, n.oldest_write, n.lease_until, n.backends
             FROM nodes n LEFT JOIN workers w ON w.node_id = n.id
             ORDER BY n.name, n.id LIMIT 2000",
            &[],
            |row| {
                Ok(NodeRow {
                    id: row.int(0)?,
                    who: Who {
                        name: row.str(1)?.to_owned(),
                        address: row.opt_str(2)?.map(str::to_owned),
                        backends: codec::names_from_column(row.str(8)?)?,
                    },
                    worker: row.opt_int(3)?,
                    beaten: row.int(4)?,
                    oldest_read: row.int(5)?,
                    oldest_write: row.int(6)?,
                    lease_until: row.int(7)?,
                })
            },
        )
        .await
}

/// Where the node of this name is reached by its peers: the one heard of last, if there are several.
pub async fn address_of(session: &mut Session, name: &str) -> Result<Option<String>, Fault> {
    let found = session
        .query_one(
            "SELECT address FROM nodes WHERE name = $1 AND address IS NOT NULL ORDER BY beaten DESC LIMIT 1",
            params![name],
            |row| Ok(row.str(0)?.to_owned()),
        )
        .await?;
    Ok(found)
}

/// What all nodes have open, as each said at its last beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldestOpen {
    /// No read open on any node, or begun since its last beat, began before this.
    pub read: Millis,
    /// No unfinished write on any node, and none begun since its last beat, began before this.
    pub write: Millis,
    /// When the oldest read began that was open at a beat; `None` when none was.
    pub reading: Option<Millis>,
}

/// What all nodes have open; `None` when no node has beaten yet.
pub async fn oldest_open(session: &mut Session) -> Result<Option<OldestOpen>, Fault> {
    // A node with no read open says the time of its beat, or a later one.
    let found = session
        .query_one(
            "SELECT MIN(oldest_read), MIN(oldest_write),
                    MIN(CASE WHEN oldest_read < beaten THEN oldest_read END) FROM nodes",
            &[],
            |row| {
                let Some((read, write)) = row.opt_int(0)?.zip(row.opt_int(1)?) else {
                    return Ok(None);
                };
                let reading = row.opt_int(2)?;
                Ok(Some(OldestOpen {
                    read,
                    write,
                    reading,
                }))
            },
        )
        .await?;
    Ok(found.flatten())
}

/// The newest of the times before which no node has a write open; `None` when no node has beaten yet.
pub async fn newest_write(session: &mut Session) -> Result<Option<Millis>, Fault> {
    let found = session
        .query_one("SELECT MAX(oldest_write) FROM nodes", &[], |row| {
            row.opt_int(0)
        })
        .await?;
    Ok(found.flatten())
}
