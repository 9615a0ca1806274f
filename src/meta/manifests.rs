//! Rows of manifests: the outbox of changes, who writes manifests, and the objects they consist of.
//!
//! A change is one row a transaction, written as its last statement (see
//! [`Session::changed`]); the writer reads the rows in one snapshot together with the state they speak of, and
//! deletes exactly those it read once the manifest is durable.

use super::nodes;
use super::session::{Session, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};

/// Whether transactions write down what they change.
pub async fn is_recording(session: &mut Session) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT recording FROM manifest_writer WHERE id = 1",
            &[],
            |row| row.int(0),
        )
        .await?;
    Ok(found == Some(1))
}

/// Begins or ends the record of changes. What was recorded before an end is of no use: changes are missing after
/// it, and the first manifest after the next begin is a snapshot.
///
/// A begin waits for the transactions of nodes that do not record, and lets none begin meanwhile: what one of them
/// changed would be neither in the snapshot, if it committed after that was read, nor among the changes.
pub(super) async fn set_recording(session: &mut Session, is_recording: bool) -> Result<(), Fault> {
    let found = session
        .query_one(
            "SELECT recording FROM manifest_writer WHERE id = 1 /*FOR UPDATE*/",
            &[],
            |row| row.int(0),
        )
        .await?;
    if is_recording && found != Some(1) {
        wait_for_nodes(session).await?;
    }
    match (found, is_recording) {
        (None, false) | (Some(0), false) | (Some(1), true) => Ok(()),
        (None, true) => session
            .execute(
                "INSERT INTO manifest_writer (id, recording, seq, lease_until) VALUES (1, 1, 0, 0)",
                &[],
            )
            .await,
        (Some(_), _) => {
            session
                .execute(
                    "UPDATE manifest_writer SET recording = $1, tip = NULL WHERE id = 1",
                    params![is_recording],
                )
                .await?;
            session.execute("DELETE FROM changes", &[]).await
        }
    }
}

/// Waits for the transactions that nodes have under way, and holds up those that begin, for the rest of this one.
async fn wait_for_nodes(session: &mut Session) -> Result<(), Fault> {
    // A node that enters meanwhile waits here, before it has committed anything.
    nodes::take_turn(session).await?;
    nodes::lock_fences(session).await
}

/// Where the writing of manifests stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The newest manifest that counts; `None`: the next one is a snapshot.
    pub tip: Option<i64>,
    /// Whether any change waits.
    pub has_changes: bool,
}

/// Where the writing of manifests stands; `None` while changes are not recorded.
pub async fn standing(session: &mut Session) -> Result<Option<Standing>, Fault> {
    session
        .query_one(
            "SELECT tip, EXISTS (SELECT 1 FROM changes) FROM manifest_writer WHERE id = 1 AND recording = 1",
            &[],
            |row| {
                Ok(Standing {
                    tip: row.opt_int(0)?,
                    has_changes: row.int(1)? != 0,
                })
            },
        )
        .await
}

/// Claims the writing of the next manifest for `holder` and returns its number, greater than any before, and the
/// newest one that counts; `None` while another holds the claim. Numbers are not below `now`, so that they rise
/// even when an older database is restored.
pub async fn claim(
    session: &mut Session,
    holder: i64,
    now: Millis,
    lease_until: Millis,
) -> Result<Option<(i64, Option<i64>)>, Fault> {
    let found = session
        .query_one(
            "SELECT seq, tip, holder, lease_until FROM manifest_writer
             WHERE id = 1 AND recording = 1 /*FOR UPDATE*/",
            &[],
            |row| Ok((row.int(0)?, row.opt_int(1)?, row.opt_int(2)?, row.int(3)?)),
        )
        .await?;
    let Some((seq, tip, other, until)) = found else {
        return Ok(None);
    };
    if other.is_some_and(|other| other != holder) && until > now {
        return Ok(None);
    }
    let seq = (seq + 1).max(now);
    session
        .execute(
            "UPDATE manifest_writer SET seq = $1, holder = $2, lease_until = $3 WHERE id = 1",
            params![seq, holder, lease_until],
        )
        .await?;
    Ok(Some((seq, tip)))
}

/// Checks under lock that `holder` may still write manifest `seq`.
async fn hold(session: &mut Session, holder: i64, seq: i64) -> Result<(), Fault> {
    let found = session
        .query_one(
            "SELECT holder, seq, recording FROM manifest_writer WHERE id = 1 /*FOR UPDATE*/",
            &[],
            |row| Ok((row.opt_int(0)?, row.int(1)?, row.int(2)?)),
        )
        .await?;
    if found == Some((Some(holder), seq, 1)) {
        return Ok(());
    }
    Err(Fault::new(Kind::Busy, "write manifest").context("another node has taken over"))
}

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// The manifest.
    pub seq: i64,
    /// Its place in the manifest.
    pub part: i64,
    /// The configured name of its backend.
    pub backend: String,
    /// Its name there.
    pub name: String,
}

/// Records an object before anything of it is written, and renews the claim.
pub async fn begin_part(
    session: &mut Session,
    holder: i64,
    part: &PartRow,
    lease_until: Millis,
) -> Result<(), Fault> {
    hold(session, holder, part.seq).await?;
    session
        .execute(
            "UPDATE manifest_writer SET lease_until = $1 WHERE id = 1",
            params![lease_until],
        )
        .await?;
    insert_part(session, part).await
}

/// Records an object that is not known to count.
pub async fn insert_part(session: &mut Session, part: &PartRow) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO manifest_parts (seq, part, backend, name, state, size)
             VALUES ($1, $2, $3, $4, 'writing', 0) ON CONFLICT (seq, part) DO NOTHING",
            params![
                part.seq,
                part.part,
                part.backend.as_str(),
                part.name.as_bytes()
            ],
        )
        .await
}

/// Makes a manifest whose objects are durable the newest one that counts, and gives the claim back.
pub async fn commit(
    session: &mut Session,
    holder: i64,
    seq: i64,
    is_snapshot: bool,
    sizes: &[u64],
) -> Result<(), Fault> {
    hold(session, holder, seq).await?;
    let state = if is_snapshot { "snapshot" } else { "segment" };
    for (part, size) in sizes.iter().enumerate() {
        session
            .execute(
                "UPDATE manifest_parts SET state = $1, size = $2 WHERE seq = $3 AND part = $4",
                params![state, *size as i64, seq, part as i64],
            )
            .await?;
    }
    session
        .execute(
            "UPDATE manifest_writer SET tip = $1, holder = NULL, lease_until = 0 WHERE id = 1",
            params![seq],
        )
        .await
}

/// Gives up a claim, so that the next one need not wait for its end.
pub async fn give_up(session: &mut Session, holder: i64) -> Result<(), Fault> {
    session
        .execute(
            "UPDATE manifest_writer SET holder = NULL, lease_until = 0 WHERE id = 1 AND holder = $1",
            params![holder],
        )
        .await
}

/// What the manifests that count take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// The newest snapshot.
    pub snapshot: Option<i64>,
    /// Its bytes.
    pub snapshot_bytes: u64,
    /// How many objects follow it.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
}

/// What the manifests up to `tip` take.
pub async fn extent(session: &mut Session, tip: i64) -> Result<Extent, Fault> {
    let snapshot = session
        .query_one(
            "SELECT MAX(seq) FROM manifest_parts WHERE state = 'snapshot' AND seq <= $1",
            params![tip],
            |row| row.opt_int(0),
        )
        .await?
        .flatten();
    let Some(snapshot) = snapshot else {
        return Ok(Extent::default());
    };
    let sums = session
        .query_one(
            "SELECT CAST(COALESCE(SUM(CASE state WHEN 'snapshot' THEN size ELSE 0 END), 0) AS INTEGER),
                    CAST(COALESCE(SUM(CASE state WHEN 'segment' THEN 1 ELSE 0 END), 0) AS INTEGER),
                    CAST(COALESCE(SUM(CASE state WHEN 'segment' THEN size ELSE 0 END), 0) AS INTEGER)
             FROM manifest_parts WHERE seq >= $1 AND seq <= $2",
            params![snapshot, tip],
            |row| Ok((row.size(0)?, row.size(1)?, row.size(2)?)),
        )
        .await?;
    let (snapshot_bytes, segments, segment_bytes) = sums.unwrap_or_default();
    Ok(Extent {
        snapshot: Some(snapshot),
        snapshot_bytes,
        segments,
        segment_bytes,
    })
}

fn part(row: &super::Row<'_>) -> Result<PartRow, Fault> {
    let name = String::from_utf8(row.bytes(3)?.to_vec());
    Ok(PartRow {
        seq: row.int(0)?,
        part: row.int(1)?,
        backend: row.str(2)?.to_owned(),
        name: name.map_err(|error| Fault::new(Kind::Corrupt, "decode row").source(error))?,
    })
}

/// The objects that count from manifest `from` to `tip`.
pub async fn live_parts(session: &mut Session, from: i64, tip: i64) -> Result<Vec<PartRow>, Fault> {
    session
        .query(
            "SELECT seq, part, backend, name FROM manifest_parts
             WHERE seq >= $1 AND seq <= $2 AND state <> 'writing' ORDER BY seq, part",
            params![from, tip],
            part,
        )
        .await
}

/// Objects that are of no use once `tip` counts and begins at the snapshot `from`: those before it, and what was
/// begun and never counted. At most `limit`.
pub async fn obsolete_parts(
    session: &mut Session,
    from: i64,
    tip: i64,
    limit: usize,
) -> Result<Vec<PartRow>, Fault> {
    session
        .query(
            "SELECT seq, part, backend, name FROM manifest_parts
             WHERE seq < $1 OR (seq < $2 AND state = 'writing') ORDER BY seq, part LIMIT $3",
            params![from, tip, limit as i64],
            part,
        )
        .await
}

/// Forgets an object that is deleted.
pub async fn forget_part(session: &mut Session, seq: i64, part: i64) -> Result<(), Fault> {
    session
        .execute(
            "DELETE FROM manifest_parts WHERE seq = $1 AND part = $2",
            params![seq, part],
        )
        .await
}

/// Whether a row names this object of a manifest.
pub async fn is_part(session: &mut Session, backend: &str, name: &str) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT 1 FROM manifest_parts WHERE backend = $1 AND name = $2 LIMIT 1",
            params![backend, name.as_bytes()],
            |row| row.int(0),
        )
        .await?;
    Ok(found.is_some())
}

/// Changes with numbers above `after`, in order, at most `limit`, as stored.
pub async fn changes(
    session: &mut Session,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, Vec<u8>)>, Fault> {
    session
        .query(
            "SELECT id, entries FROM changes WHERE id > $1 ORDER BY id LIMIT $2",
            params![after, limit as i64],
            |row| Ok((row.int(0)?, row.bytes(1)?.to_vec())),
        )
        .await
}

/// The numbers of changes above `after`, in order, at most `limit`.
pub async fn change_ids(
    session: &mut Session,
    after: i64,
    limit: usize,
) -> Result<Vec<i64>, Fault> {
    session
        .query(
            "SELECT id FROM changes WHERE id > $1 ORDER BY id LIMIT $2",
            params![after, limit as i64],
            |row| row.int(0),
        )
        .await
}

/// Deletes the changes of a run of numbers, every one of which was read.
pub async fn delete_changes(session: &mut Session, first: i64, last: i64) -> Result<(), Fault> {
    session
        .execute(
            "DELETE FROM changes WHERE id >= $1 AND id <= $2",
            params![first, last],
        )
        .await
}

/// The recovery that a database came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Which manifests it was made from.
    pub source: String,
    /// Whether it has ended.
    pub is_done: bool,
    /// Until when the sweep spares what no row names.
    pub spare_until: Millis,
}

/// The recovery that this database came from, if it did.
pub async fn recovery(session: &mut Session) -> Result<Option<Recovery>, Fault> {
    session
        .query_one(
            "SELECT source, ended, spare_until FROM recovery WHERE id = 1",
            &[],
            |row| {
                Ok(Recovery {
                    source: row.str(0)?.to_owned(),
                    is_done: row.opt_int(1)?.is_some(),
                    spare_until: row.int(2)?,
                })
            },
        )
        .await
}

/// Whether a database holds nothing that a recovery could meet.
pub async fn is_empty(session: &mut Session) -> Result<bool, Fault> {
    let found = session
        .query_one(
            "SELECT EXISTS (SELECT 1 FROM tenants) OR EXISTS (SELECT 1 FROM buckets)
                 OR EXISTS (SELECT 1 FROM backends) OR EXISTS (SELECT 1 FROM access_keys)",
            &[],
            |row| row.int(0),
        )
        .await?;
    Ok(found == Some(0))
}

/// Records that a recovery begins.
pub async fn begin_recovery(
    session: &mut Session,
    source: &str,
    now: Millis,
    spare_until: Millis,
) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO recovery (id, source, began, spare_until) VALUES (1, $1, $2, $3)
             ON CONFLICT (id) DO NOTHING",
            params![source, now, spare_until],
        )
        .await
}

/// Sets what a bucket holds, in place of all counts.
pub async fn set_usage(
    session: &mut Session,
    bucket: i64,
    objects: i64,
    bytes: i64,
) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO usage (bucket_id, worker_id, objects, bytes) VALUES ($1, 0, $2, $3)
             ON CONFLICT (bucket_id, worker_id) DO UPDATE
             SET objects = excluded.objects, bytes = excluded.bytes",
            params![bucket, objects, bytes],
        )
        .await
}

/// Records that a recovery has ended, and where the numbers of manifests go on.
pub async fn end_recovery(session: &mut Session, now: Millis, seq: i64) -> Result<(), Fault> {
    session
        .execute("UPDATE recovery SET ended = $1 WHERE id = 1", params![now])
        .await?;
    session
        .execute(
            "INSERT INTO manifest_writer (id, recording, seq, lease_until) VALUES (1, 0, $1, 0)
             ON CONFLICT (id) DO UPDATE SET seq = excluded.seq",
            params![seq],
        )
        .await
}
