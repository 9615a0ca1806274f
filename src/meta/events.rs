//! Rows of the outbox: events that wait for their targets, and how delivery to each target goes.
//!
//! An event is inserted in the transaction of what it tells of, and deleted when its target has it: a crash in
//! between delivers it again. Ids rise in the order of commits, and a target gets its events in that order.

use super::session::{Session, params};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::BucketId;
use crate::model::notification::{Record, TestEvent};

/// Most events that wait for one target and are counted: a look every few seconds must not read millions.
pub const COUNTED_MAX: i64 = 100_000;
/// Most targets that are told of.
const TARGETS_MAX: usize = 10_000;

/// An event to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent<'a> {
    /// Its place in the order; greater than that of all events committed before.
    pub id: i64,
    /// Whom it is for.
    pub target: &'a str,
    /// Where it happened.
    pub bucket: BucketId,
    /// What the target gets.
    pub payload: &'a str,
    /// When it happened.
    pub created: Millis,
}

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the order.
    pub id: i64,
    /// What the target gets: a JSON document.
    pub payload: String,
    /// When it happened.
    pub created: Millis,
}

/// How delivery to a target goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetRow {
    /// Its name.
    pub name: String,
    /// Events that it got.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events that were dropped because they had become too old.
    pub given_up: u64,
    /// Why the last failed attempt did.
    pub last_error: Option<String>,
}

/// What waits for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// Its name.
    pub target: String,
    /// How many events, counted up to [`COUNTED_MAX`].
    pub events: u64,
    /// When the first of them happened.
    pub oldest: Millis,
}

fn encode(document: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(document)
        .map_err(|error| Fault::new(Kind::Internal, "encode event").source(error))
}

/// What a target gets of one event.
pub fn payload(record: &Record) -> Result<String, Fault> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        #[serde(rename = "Records")]
        records: [&'a Record; 1],
    }
    encode(&Document { records: [record] })
}

/// What a target gets when it is configured.
pub fn test_payload(event: &TestEvent) -> Result<String, Fault> {
    encode(event)
}

/// Inserts an event.
pub async fn insert(session: &mut Session, event: &NewEvent<'_>) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO events (id, target, bucket_id, payload, created) VALUES ($1, $2, $3, $4, $5)",
            params![
                event.id,
                event.target,
                event.bucket.0,
                event.payload,
                event.created
            ],
        )
        .await
}

/// The oldest events of a target, at most `limit`.
pub async fn head(
    session: &mut Session,
    target: &str,
    limit: usize,
) -> Result<Vec<EventRow>, Fault> {
    session
        .query(
            "SELECT id, payload, created FROM events WHERE target = $1 ORDER BY id LIMIT $2",
            params![target, limit as i64],
            |row| {
                Ok(EventRow {
                    id: row.int(0)?,
                    payload: row.str(1)?.to_owned(),
                    created: row.int(2)?,
                })
            },
        )
        .await
}

/// Deletes events of a target, and says how many of them there were.
pub async fn delete(session: &mut Session, target: &str, ids: &[i64]) -> Result<u64, Fault> {
    let mut deleted = 0;
    for &id in ids {
        let found = session
            .query_one(
                "SELECT 1 FROM events WHERE id = $1 AND target = $2",
                params![id, target],
                |row| row.int(0),
            )
            .await?;
        if found.is_some() {
            session
                .execute("DELETE FROM events WHERE id = $1", params![id])
                .await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// The oldest events that happened before `before`, at most `limit`, as id and target.
pub async fn older(
    session: &mut Session,
    before: Millis,
    limit: usize,
) -> Result<Vec<(i64, String)>, Fault> {
    session
        .query(
            "SELECT id, target FROM events WHERE created < $1 ORDER BY created LIMIT $2",
            params![before, limit as i64],
            |row| Ok((row.int(0)?, row.str(1)?.to_owned())),
        )
        .await
}

/// What waits, by target; no more than [`COUNTED_MAX`] are counted of each.
pub async fn depths(session: &mut Session) -> Result<Vec<Depth>, Fault> {
    let mut depths = Vec::new();
    let mut target = String::new();
    while depths.len() < TARGETS_MAX {
        let next = session
            .query_one(
                "SELECT target FROM events WHERE target > $1 ORDER BY target LIMIT 1",
                params![target.as_str()],
                |row| Ok(row.str(0)?.to_owned()),
            )
            .await?;
        let Some(next) = next else {
            break;
        };
        target = next;
        let oldest = session
            .query_one(
                "SELECT created FROM events WHERE target = $1 ORDER BY id LIMIT 1",
                params![target.as_str()],
                |row| row.int(0),
            )
            .await?;
        let events = session
            .query_one(
                "SELECT COUNT(*) FROM (SELECT id FROM events WHERE target = $1 LIMIT $2) AS waiting",
                params![target.as_str(), COUNTED_MAX],
                |row| row.size(0),
            )
            .await?;
        // They may have been delivered in between.
        if let Some((oldest, events)) = oldest.zip(events) {
            depths.push(Depth {
                target: target.clone(),
                events,
                oldest,
            });
        }
    }
    Ok(depths)
}

macro_rules! target_columns {
    () => {
        "SELECT name, delivered, failed, given_up, last_error FROM event_targets"
    };
}

fn target(row: &super::Row<'_>) -> Result<TargetRow, Fault> {
    Ok(TargetRow {
        name: row.str(0)?.to_owned(),
        delivered: row.size(1)?,
        failed: row.size(2)?,
        given_up: row.size(3)?,
        last_error: row.opt_str(4)?.map(str::to_owned),
    })
}

/// How delivery to a target goes, under its lock; as at the begin when nothing was delivered yet.
pub async fn lock_target(session: &mut Session, name: &str) -> Result<TargetRow, Fault> {
    let found = session
        .query_one(
            concat!(target_columns!(), " WHERE name = $1 /*FOR UPDATE*/"),
            params![name],
            target,
        )
        .await?;
    Ok(found.unwrap_or_else(|| TargetRow {
        name: name.to_owned(),
        ..TargetRow::default()
    }))
}

/// How delivery goes to every target that there ever was.
pub async fn targets(session: &mut Session) -> Result<Vec<TargetRow>, Fault> {
    session
        .query(
            concat!(target_columns!(), " ORDER BY name LIMIT 10000"),
            &[],
            target,
        )
        .await
}

/// Records how delivery to a target goes.
pub async fn write_target(session: &mut Session, row: &TargetRow) -> Result<(), Fault> {
    session
        .execute(
            "INSERT INTO event_targets (name, delivered, failed, given_up, last_error)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO UPDATE
             SET delivered = excluded.delivered, failed = excluded.failed, given_up = excluded.given_up,
                 last_error = excluded.last_error",
            params![
                row.name.as_str(),
                row.delivered as i64,
                row.failed as i64,
                row.given_up as i64,
                row.last_error.as_deref(),
            ],
        )
        .await
}
