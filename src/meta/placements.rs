//! Rows of placements: to which backends the blobs of a space go, and how many must have one before it counts.
//!
//! A placement keeps the backends it was recorded with for as long as a space is at it, whatever a node's
//! configuration says later: where existing blobs lie, and where the next ones of the same bucket go, is decided
//! here alone. A backend that was moved away from stands for the one that its blobs move to.

use super::catalog::{PLACEMENT_BACKENDS, PLACEMENTS};
use super::session::{Session, params};
use crate::model::fault::Fault;
use crate::model::ids::SpaceId;

/// Where new blobs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Backends, the preferred one first, each once.
    pub backends: Vec<i64>,
    /// How many of them must hold a blob before it is answered for; at least 1, at most all.
    pub copies_required: usize,
}

/// What [`record`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The placement stands as it was asked for, under this id.
    As(i64),
    /// A space is at it already, and it has other backends: nothing was changed.
    Otherwise,
}

/// Where a space's blobs go now; without a backend when there is no such space.
pub async fn of_space(session: &mut Session, space: SpaceId) -> Result<Placement, Fault> {
    let rows = session
        .query(
            "SELECT COALESCE(k.moved_to, k.id), p.copies_required
             FROM spaces s
             JOIN placements p ON p.id = s.placement_id
             JOIN placement_backends b ON b.placement_id = p.id
             JOIN backends k ON k.id = b.backend_id
             WHERE s.id = $1 ORDER BY b.ordinal",
            params![space.0],
            |row| Ok((row.int(0)?, row.int(1)?)),
        )
        .await?;
    Ok(resolve(&rows))
}

/// The placement of backends in order, which may name one twice since another was moved to it.
fn resolve(rows: &[(i64, i64)]) -> Placement {
    let mut backends: Vec<i64> = Vec::with_capacity(rows.len());
    for (backend, _) in rows {
        if !backends.contains(backend) {
            backends.push(*backend);
        }
    }
    let wanted = rows.first().map_or(1, |(_, required)| *required);
    let copies_required = usize::try_from(wanted).unwrap_or(1);
    Placement {
        copies_required: copies_required.clamp(1, backends.len().max(1)),
        backends,
    }
}

/// Records a configured placement: with `new_id` where its name is new, else by its backends. How many copies are
/// required follows the configuration always, the backends only while no space is at it.
pub async fn record(
    session: &mut Session,
    new_id: i64,
    name: &str,
    wanted: &Placement,
) -> Result<Recorded, Fault> {
    let required = wanted.copies_required as i64;
    let found = session
        .query_one(
            "SELECT id, copies_required FROM placements WHERE name = $1 /*FOR UPDATE*/",
            params![name],
            |row| Ok((row.int(0)?, row.int(1)?)),
        )
        .await?;
    let Some((id, recorded)) = found else {
        session.changed(&PLACEMENTS, params![new_id]);
        session
            .execute(
                "INSERT INTO placements (id, name, rev, copies_required) VALUES ($1, $2, 1, $3)",
                params![new_id, name, required],
            )
            .await?;
        insert_backends(session, new_id, &wanted.backends).await?;
        return Ok(Recorded::As(new_id));
    };
    // A file that still names a backend that was moved away from, and one that names the new one, say the same.
    let now = backends_of(session, id).await?;
    let mut asked = Vec::with_capacity(wanted.backends.len());
    for backend in &wanted.backends {
        asked.push((moved_to(session, *backend).await?, required));
    }
    if now != resolve(&asked).backends {
        let used = session
            .query_one(
                "SELECT 1 FROM spaces WHERE placement_id = $1 LIMIT 1",
                params![id],
                |row| row.int(0),
            )
            .await?;
        if used.is_some() {
            return Ok(Recorded::Otherwise);
        }
        session.changed(&PLACEMENT_BACKENDS, params![id]);
        session
            .execute(
                "DELETE FROM placement_backends WHERE placement_id = $1",
                params![id],
            )
            .await?;
        insert_backends(session, id, &wanted.backends).await?;
    } else if recorded == required {
        return Ok(Recorded::As(id));
    }
    session.changed(&PLACEMENTS, params![id]);
    session
        .execute(
            "UPDATE placements SET copies_required = $1, rev = rev + 1 WHERE id = $2",
            params![required, id],
        )
        .await?;
    Ok(Recorded::As(id))
}

async fn insert_backends(session: &mut Session, id: i64, backends: &[i64]) -> Result<(), Fault> {
    session.changed(&PLACEMENT_BACKENDS, params![id]);
    for (ordinal, backend) in backends.iter().enumerate() {
        session
            .execute(
                "INSERT INTO placement_backends (placement_id, ordinal, backend_id) VALUES ($1, $2, $3)",
                params![id, ordinal as i64, *backend],
            )
            .await?;
    }
    Ok(())
}

/// A placement's backends as they are now, each once.
pub async fn backends_of(session: &mut Session, id: i64) -> Result<Vec<i64>, Fault> {
    let rows = session
        .query(
            "SELECT COALESCE(k.moved_to, k.id) FROM placement_backends b JOIN backends k ON k.id = b.backend_id
             WHERE b.placement_id = $1 ORDER BY b.ordinal",
            params![id],
            |row| Ok((row.int(0)?, 1)),
        )
        .await?;
    Ok(resolve(&rows).backends)
}

/// The names of the placements that have a copy at each of two backends now.
pub async fn with_both(session: &mut Session, one: i64, other: i64) -> Result<Vec<String>, Fault> {
    session
        .query(
            "SELECT DISTINCT p.name
             FROM placements p
             JOIN placement_backends a ON a.placement_id = p.id
             JOIN backends k ON k.id = a.backend_id
             JOIN placement_backends b ON b.placement_id = p.id
             JOIN backends l ON l.id = b.backend_id
             WHERE COALESCE(k.moved_to, k.id) = $1 AND COALESCE(l.moved_to, l.id) = $2
             ORDER BY p.name",
            params![one, other],
            |row| Ok(row.str(0)?.to_owned()),
        )
        .await
}

/// The backend that stands for `backend` now.
async fn moved_to(session: &mut Session, backend: i64) -> Result<i64, Fault> {
    let found = session
        .query_one(
            "SELECT COALESCE(moved_to, id) FROM backends WHERE id = $1",
            params![backend],
            |row| row.int(0),
        )
        .await?;
    Ok(found.unwrap_or(backend))
}

/// Every placement's id by name.
pub async fn all(session: &mut Session) -> Result<Vec<(i64, String)>, Fault> {
    session
        .query("SELECT id, name FROM placements ORDER BY id", &[], |row| {
            Ok((row.int(0)?, row.str(1)?.to_owned()))
        })
        .await
}

/// The id of a placement.
pub async fn find(session: &mut Session, name: &str) -> Result<Option<i64>, Fault> {
    session
        .query_one(
            "SELECT id FROM placements WHERE name = $1",
            params![name],
            |row| row.int(0),
        )
        .await
}

/// The placement of a space, as id and name.
pub async fn name_of(
    session: &mut Session,
    space: SpaceId,
) -> Result<Option<(i64, String)>, Fault> {
    session
        .query_one(
            "SELECT p.id, p.name FROM spaces s JOIN placements p ON p.id = s.placement_id WHERE s.id = $1",
            params![space.0],
            |row| Ok((row.int(0)?, row.str(1)?.to_owned())),
        )
        .await
}

/// Backends with the best place that any placement gives them, best first: the order in which copies are read.
pub async fn preference(session: &mut Session) -> Result<Vec<i64>, Fault> {
    session
        .query(
            "SELECT backend_id, MIN(ordinal) FROM placement_backends GROUP BY backend_id ORDER BY 2, 1",
            &[],
            |row| row.int(0),
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_placement_names_each_backend_once_in_order_and_never_wants_more_copies_than_it_has(
            backends in prop::collection::vec(0i64..5, 1..8), required in -1i64..9,
        ) {
            let rows: Vec<_> = backends.iter().map(|backend| (*backend, required)).collect();
            let placement = resolve(&rows);
            let mut seen = Vec::new();
            for backend in backends {
                if !seen.contains(&backend) {
                    seen.push(backend);
                }
            }
            prop_assert!((1..=seen.len()).contains(&placement.copies_required));
            if (1..=seen.len() as i64).contains(&required) {
                prop_assert_eq!(placement.copies_required as i64, required);
            }
            prop_assert_eq!(placement.backends, seen);
        }
    }
}
