//! Rows of what was adopted from an existing osproxy. A number is noted for good: it is not adopted again after its
//! version was deleted. So is an object that is ours to delete: it gets no second blob.
//!
//! ```text
//!   adopted, theirs yet --> handed over: ours --> deleted when nothing refers to it
//!            |
//!            +--> nothing refers to it: left where it is, and free to be adopted again
//! ```
//!
//! Several files of an existing osproxy may lie in one object, of which some cannot be adopted now. So an object is handed
//! over only when all of them were adopted, which the importer finds out.

use super::catalog::{ADOPTED_OBJECTS, ADOPTED_UIDS, BLOBS};
use super::contents::Owner;
use super::copies::{self, AnyCopy};
use super::session::{Session, params};
use super::{nodes, objects, uploads};
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::ids::{BlobId, Uid};

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

/// Whether a number was adopted.
pub async fn is_adopted(session: &mut Session, uid: Uid) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT at FROM adopted_uids WHERE uid = $1",
            params![uid.0],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// What a number stands for.
pub async fn standing(session: &mut Session, uid: Uid) -> Result<Standing, Fault> {
    if is_adopted(session, uid).await? {
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

/// Whether an object became a blob, which may be gone if it was ours.
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

/// Forgets that an object became a blob, which it is no more and which was not ours.
pub(super) async fn forget_object(
    session: &mut Session,
    backend: i64,
    name: &str,
) -> Result<(), Fault> {
    session.changed(&ADOPTED_OBJECTS, params![backend, name.as_bytes()]);
    session
        .execute(
            "DELETE FROM adopted_objects WHERE backend_id = $1 AND name = $2",
            params![backend, name.as_bytes()],
        )
        .await
}

/// Live blobs above `after` whose objects are not handed over yet, in order, at most `limit`, each with its copies of any
/// state. A scan.
pub async fn not_handed_over(
    session: &mut Session,
    after: BlobId,
    limit: usize,
) -> Result<Vec<(BlobId, Vec<AnyCopy>)>, Fault> {
    let blobs = session
        .query(
            "SELECT id FROM blobs WHERE owned = $1 AND state = 'live' AND id > $2 ORDER BY id LIMIT $3",
            params![Owner::TheirsYet.column(), after.0, limit as i64],
            |row| row.int(0).map(BlobId),
        )
        .await?;
    let mut found = Vec::with_capacity(blobs.len());
    for blob in blobs {
        found.push((blob, copies::of_blob(session, blob).await?));
    }
    Ok(found)
}

/// Makes the objects of a blob ours to delete. One that is condemned by now has left them where they are.
pub async fn hand_over(session: &mut Session, blob: BlobId) -> Result<(), Fault> {
    session.changed(&BLOBS, params![blob.0]);
    session
        .execute(
            "UPDATE blobs SET owned = $1 WHERE id = $2 AND owned = $3 AND state = 'live'",
            params![Owner::Ours.column(), blob.0, Owner::TheirsYet.column()],
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
