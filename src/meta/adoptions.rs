//! Rows of what was adopted from an existing osproxy. They are never deleted: a number that was adopted is not adopted
//! again after its version was deleted, and no object gets a second blob.

use super::catalog::{ADOPTED_OBJECTS, ADOPTED_UIDS};
use super::session::{Session, params};
use super::{nodes, objects, uploads};
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::ids::Uid;

/// No node has this number.
const NOBODY: i64 = -1;

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Free,
    /// It was adopted; its version may have been deleted since.
    Adopted,
    /// A version or an upload that was not adopted.
    Taken,
}

/// What a number stands for.
pub async fn standing(session: &mut Session, uid: Uid) -> Result<Standing, Fault> {
    let found = session
        .query_one(
            "SELECT at FROM adopted_uids WHERE uid = $1",
            params![uid.0],
            |row| row.int(0),
        )
        .await?;
    if found.is_some() {
        return Ok(Standing::Adopted);
    }
    let is_taken = objects::find_by_uid(session, uid).await?.is_some()
        || uploads::find(session, uid).await?.is_some();
    Ok(if is_taken {
        Standing::Taken
    } else {
        Standing::Free
    })
}

/// Notes that a number was adopted.
pub async fn note_uid(session: &mut Session, uid: Uid, now: Millis) -> Result<(), Fault> {
    session.changed(&ADOPTED_UIDS, params![uid.0]);
    session
        .execute(
            "INSERT INTO adopted_uids (uid, at) VALUES ($1, $2)",
            params![uid.0, now],
        )
        .await
}

/// Whether an object became a blob once, which may be gone.
pub async fn was_adopted(session: &mut Session, backend: i64, name: &str) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT at FROM adopted_objects WHERE backend_id = $1 AND name = $2",
            params![backend, name.as_bytes()],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// Notes that an object became a blob.
pub async fn note_object(
    session: &mut Session,
    backend: i64,
    name: &str,
    now: Millis,
) -> Result<(), Fault> {
    session.changed(&ADOPTED_OBJECTS, params![backend, name.as_bytes()]);
    session
        .execute(
            "INSERT INTO adopted_objects (backend_id, name, at) VALUES ($1, $2, $3)",
            params![backend, name.as_bytes(), now],
        )
        .await
}

/// What is known of a worker's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserved {
    /// None below this time is minted from now on.
    Below(Millis),
    /// A node holds the worker and mints what is not past.
    Held,
}

/// Sees to it that no id of `worker` below `until` is minted here from now on, unless a node holds the worker.
pub async fn reserve(session: &mut Session, worker: u16, until: Millis) -> Result<Reserved, Fault> {
    // Claims of workers take turns by this row.
    nodes::reserved_until(session, nodes::COMMAND_WORKER).await?;
    let reserved = nodes::reserved_until(session, worker).await?;
    let held = session
        .query_one(
            "SELECT n.id FROM nodes n JOIN workers w ON w.node_id = n.id WHERE w.id = $1",
            params![i64::from(worker)],
            |row| row.int(0),
        )
        .await?;
    if held.is_some() {
        return Ok(Reserved::Held);
    }
    if reserved < until {
        nodes::reserve(session, worker, NOBODY, until).await?;
    }
    Ok(Reserved::Below(reserved.max(until)))
}
