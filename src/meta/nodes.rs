//! Rows of nodes: what each has open, and which time each may mint ids in.

use super::session::{Session, params};
use crate::model::clock::Millis;
use crate::model::fault::Fault;

/// The time up to which `worker`'s ids are reserved; 0 when it was never used.
pub async fn reserved_until(session: &mut Session, worker: u16) -> Result<Millis, Fault> {
    let found = session
        .query_one(
            "SELECT reserved_until FROM workers WHERE id = $1",
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

/// What a node has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Until when the node counts as alive.
    pub lease_until: Millis,
    /// No read open on the node began before this.
    pub oldest_read: Millis,
    /// No blob that no row names yet was begun on the node before this.
    pub oldest_write: Millis,
}

/// Records a node's heartbeat.
pub async fn beat(session: &mut Session, node: i64, beat: &Heartbeat) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO nodes (id, lease_until, oldest_read, oldest_write, placement_rev)
             VALUES ($1, $2, $3, $4, 1)
             ON CONFLICT (id) DO UPDATE
             SET lease_until = excluded.lease_until, oldest_read = excluded.oldest_read,
                 oldest_write = excluded.oldest_write",
            params![node, beat.lease_until, beat.oldest_read, beat.oldest_write],
        )
        .await
}

/// The oldest read and the oldest write that any node may have open; `None` when no node has beaten yet.
pub async fn oldest_open(session: &mut Session) -> Result<Option<(Millis, Millis)>, Fault> {
    let found = session
        .query_one(
            "SELECT MIN(oldest_read), MIN(oldest_write) FROM nodes",
            &[],
            |row| Ok(row.opt_int(0)?.zip(row.opt_int(1)?)),
        )
        .await?;
    Ok(found.flatten())
}
