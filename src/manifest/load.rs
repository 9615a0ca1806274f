//! From the scratch database into the one that will be served.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::recover::{PAGE, Recovery, each, lost_object, mark};
use super::report::Report;
use crate::blob::Claim;
use crate::meta::catalog::{
    CONTENTS, EXTENTS, Group, OBJECTS, TABLES, Table, TableId, VERSIONS, Value, table,
};
use crate::meta::manifests::{self, PartRow};
use crate::meta::scratch::Scratch;
use crate::meta::{MetaStore, install, nodes, releases};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, ContentId, UidGenerator, minted_at};
use crate::model::progress::{Progress, Tell};

/// How far above the newest id that is known others may have been given: more than a node ever reserves.
const UNKNOWN_IDS: Millis = 120_000;
/// Worker ids there are.
const WORKERS: u16 = 1024;
/// The worker whose ids this recovery mints.
const WORKER: u16 = 1;

/// What is written beside the rows.
pub(super) struct Plan {
    /// Which manifests the rows are from.
    pub(super) source: String,
    /// How long the sweep spares what no row names.
    pub(super) spare: Millis,
    /// The newest id that is known.
    pub(super) newest_id: i64,
    /// The newest number of each worker that was adopted from another system.
    pub(super) adopted: BTreeMap<u16, i64>,
    /// The objects of all manifests: the writer deletes them once it has written a snapshot of its own.
    pub(super) parts: Vec<PartRow>,
}

/// Takes out rows that cannot be inserted, because a broken manifest held what they refer to, or held that they
/// were replaced. Without a broken one there are none.
pub(super) fn prune(scratch: &mut Scratch, report: &mut Report) -> Result<(), Fault> {
    let is_complete = report.skipped.is_empty();
    for table in TABLES {
        // Noncurrent versions first: one of them may have to take the place of a current one.
        let table = match *table {
            table if table.id == OBJECTS.id => &VERSIONS,
            table if table.id == VERSIONS.id => &OBJECTS,
            table => table,
        };
        each(scratch, table, |scratch, mut group| {
            let mut kept = Vec::new();
            for index in 0..group.rows.len() {
                let row: Vec<&Value> = group.row(index).collect();
                let stands = refers(scratch, table, &row)?
                    && (is_complete || is_alone(scratch, table, &row)?);
                if stands {
                    kept.push(group.rows[index].clone());
                }
            }
            // A composite is nothing without all of its extents.
            let is_hollow = table.id == CONTENTS.id
                && group.row(0).nth(4) == Some(&Value::Text("composite".to_owned()))
                && !scratch.contains(&EXTENTS, &group.key)?;
            if kept.len() == group.rows.len() && !is_hollow {
                return Ok(());
            }
            report.rows_left_out += (group.rows.len() - kept.len()) as u64;
            if table.id == OBJECTS.id || table.id == VERSIONS.id {
                report
                    .versions_left_out
                    .push(lost_object(scratch, table, &group)?);
            }
            let is_whole_lost = is_hollow || table.id == EXTENTS.id;
            if is_whole_lost {
                kept.clear();
                scratch.remove(&CONTENTS, &group.key)?;
            }
            if table.id == OBJECTS.id
                && let Some(next) = newest_noncurrent(scratch, &group)?
            {
                scratch.remove(&VERSIONS, &next.key)?;
                return scratch.put(&OBJECTS, &promoted(&group, &next));
            }
            group.rows = kept;
            scratch.put(table, &group)
        })?;
    }
    Ok(())
}

/// Whether all that a row refers to is there.
fn refers(scratch: &Scratch, from: &Table, row: &[&Value]) -> Result<bool, Fault> {
    for reference in from.references {
        let value = row[reference.column];
        let Some(to) = table(reference.table).filter(|_| *value != Value::Null) else {
            continue;
        };
        if !scratch.contains(to, std::slice::from_ref(value))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether no row before this one has what no two rows share.
fn is_alone(scratch: &mut Scratch, table: &Table, row: &[&Value]) -> Result<bool, Fault> {
    for (number, columns) in table.unique.iter().enumerate() {
        if columns.iter().any(|column| *row[*column] == Value::Null) {
            continue;
        }
        let mut what = vec![table.id.0, number as u8];
        for column in *columns {
            row[*column].encode(&mut what);
        }
        if !scratch.mark(mark::UNIQUE, &what)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The newest noncurrent version of the key of a row of `objects`.
fn newest_noncurrent(scratch: &Scratch, object: &Group) -> Result<Option<Group>, Fault> {
    let mut newest: Option<Group> = None;
    loop {
        let after = newest.as_ref().map_or(&object.key, |found| &found.key);
        let page = scratch.page(&VERSIONS, Some(after), PAGE)?;
        let mut is_end = page.is_empty();
        for group in page {
            match group.key[..2] == object.key[..] {
                true => newest = Some(group),
                false => is_end = true,
            }
        }
        if is_end {
            return Ok(newest);
        }
    }
}

/// A noncurrent version as the current one, in place of `lost`.
fn promoted(lost: &Group, next: &Group) -> Group {
    let column = |name: &str| match VERSIONS.column(name) {
        Some(place) => next.row(0).nth(place).cloned().unwrap_or(Value::Null),
        None => {
            let null_ord = OBJECTS
                .column(name)
                .and_then(|place| lost.row(0).nth(place));
            null_ord.cloned().unwrap_or(Value::Null)
        }
    };
    let rest = OBJECTS.columns[OBJECTS.group..].iter();
    Group {
        key: lost.key.clone(),
        rows: vec![rest.map(|(name, _)| column(name)).collect()],
    }
}

/// Inserts all rows, and what follows from them.
pub(super) async fn insert(
    recovery: &Recovery,
    scratch: &Scratch,
    plan: Plan,
    tell: Tell<'_>,
) -> Result<(), Fault> {
    let (meta, now) = (&recovery.meta, recovery.clock.now());
    let (source, spare_until) = (plan.source, now + plan.spare);
    meta.transact("begin recovery", move |session| {
        let source = source.clone();
        Box::pin(async move { manifests::begin_recovery(session, &source, now, spare_until).await })
    })
    .await?;
    let mut usage: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for table in TABLES {
        write_table(meta, scratch, table, Pass::Rows, tell, |group| {
            count(table, group, &mut usage);
        })
        .await?;
        if table.itself().is_some() {
            write_table(meta, scratch, table, Pass::Links, tell, |_| {}).await?;
        }
    }
    let uids = reserve(meta, plan.newest_id, plan.adopted, now).await?;
    let seq = finish(meta, usage, plan.parts, &uids, now, tell).await?;
    take_over(recovery).await?;
    meta.transact("end recovery", move |session| {
        Box::pin(manifests::end_recovery(session, now, seq))
    })
    .await
}

/// Makes the database one that is known by itself, and says at each backend that the blobs there are its own: those of
/// other nodes are theirs to hand over.
async fn take_over(recovery: &Recovery) -> Result<(), Fault> {
    let Recovery {
        meta,
        blobs,
        master_key,
        ..
    } = recovery;
    if !master_key.is_recorded(meta).await? {
        return Err(Fault::new(Kind::Config, "record master key")
            .context("the recovery was begun under another one"));
    }
    let identity = meta
        .read("find install", |session| {
            Box::pin(install::identity(session))
        })
        .await?;
    if let Some(identity) = identity {
        let backends: Vec<String> = blobs.backends().map(str::to_owned).collect();
        for backend in backends {
            blobs.mark(&backend, &identity, Claim::Always).await?;
        }
    }
    Ok(())
}

/// Adds a version to what its bucket holds.
fn count(table: &Table, group: &Group, usage: &mut BTreeMap<i64, (i64, i64)>) {
    if table.id != OBJECTS.id && table.id != VERSIONS.id {
        return;
    }
    let column = |name| {
        table
            .column(name)
            .and_then(|column| group.row(0).nth(column))
    };
    if column("kind") != Some(&Value::Text("object".to_owned())) {
        return;
    }
    let (bucket, size) = (group.key[0].int(), column("size").and_then(Value::int));
    if let (Some(bucket), Some(size)) = (bucket, size) {
        let entry = usage.entry(bucket).or_default();
        entry.0 += 1;
        entry.1 += size;
    }
}

/// What is written of a table.
#[derive(Clone, Copy)]
enum Pass {
    /// Its rows, without what refers to others of them: a temporary key names the key that made it, and a backend the
    /// one that its blobs were moved to, whichever has the lower id.
    Rows,
    /// What was left out of them.
    Links,
}

async fn write_table(
    meta: &MetaStore,
    scratch: &Scratch,
    table: &'static Table,
    pass: Pass,
    tell: Tell<'_>,
    mut each: impl FnMut(&Group),
) -> Result<(), Fault> {
    let (mut done, total) = (0, scratch.count(table)?);
    let mut after: Option<Vec<Value>> = None;
    loop {
        tell(Progress::new(step(table.id), done, Some(total)));
        let mut page = scratch.page(table, after.as_deref(), PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.key.clone());
        done += page.len() as u64;
        page.iter().for_each(&mut each);
        if let (Pass::Rows, Some(itself)) = (pass, table.itself()) {
            let links = page.iter_mut().flat_map(|group| &mut group.rows);
            links
                .filter_map(|row| row.get_mut(itself - table.group))
                .for_each(|link| *link = Value::Null);
        }
        let page = Arc::new(page);
        meta.transact("insert recovered", move |session| {
            let page = Arc::clone(&page);
            Box::pin(async move {
                for group in page.iter() {
                    match pass {
                        Pass::Rows => table.insert(session, group).await?,
                        Pass::Links => table.link(session, group).await?,
                    }
                }
                Ok::<_, Fault>(())
            })
        })
        .await?;
    }
}

fn step(table: TableId) -> &'static str {
    match table {
        id if id == CONTENTS.id => "writing contents",
        id if id == EXTENTS.id => "writing extents",
        id if id == OBJECTS.id => "writing keys",
        id if id == VERSIONS.id => "writing versions",
        _ => "writing rows",
    }
}

/// Sees to it that no id is given a second time, and returns ids for the recovery itself.
async fn reserve(
    meta: &MetaStore,
    newest_id: i64,
    adopted: BTreeMap<u16, i64>,
    now: Millis,
) -> Result<UidGenerator, Fault> {
    let used = minted_at(newest_id) + UNKNOWN_IDS;
    let floor = used.max(now);
    // While the clock is behind what was given out, any worker might repeat it.
    let workers = if used > now { WORKERS } else { WORKER + 1 };
    let until = floor + UNKNOWN_IDS;
    meta.transact("reserve ids", move |session| {
        let adopted = adopted.clone();
        Box::pin(async move {
            // The first workers are not of nodes: they mint nothing that an adopted number could be.
            for (worker, newest) in adopted.into_iter().filter(|(worker, _)| *worker > WORKER) {
                let end = nodes::reserved_until(session, worker).await?;
                let end = end.max(minted_at(newest) + 1);
                nodes::reserve(session, worker, i64::from(worker), end).await?;
            }
            for worker in 0..workers {
                let end = if worker == WORKER { until } else { floor };
                let end = nodes::reserved_until(session, worker).await?.max(end);
                nodes::reserve(session, worker, i64::from(worker), end).await?;
            }
            Ok::<_, Fault>(())
        })
    })
    .await?;
    let uids = UidGenerator::new(Clock::manual(floor), WORKER, floor);
    uids.extend(until);
    Ok(uids)
}

/// Writes what is derived from the rows; answers the newest manifest.
async fn finish(
    meta: &MetaStore,
    usage: BTreeMap<i64, (i64, i64)>,
    parts: Vec<PartRow>,
    uids: &UidGenerator,
    now: Millis,
    tell: Tell<'_>,
) -> Result<i64, Fault> {
    let seq = parts.iter().map(|part| part.seq).max().unwrap_or_default();
    let usage: Vec<_> = usage.into_iter().collect();
    for page in usage.chunks(PAGE) {
        let page = page.to_vec();
        meta.transact("count recovered", move |session| {
            let page = page.clone();
            Box::pin(async move {
                for (bucket, (objects, bytes)) in page {
                    manifests::set_usage(session, bucket, objects, bytes).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await?;
    }
    release_unreferenced(meta, uids, now, tell).await?;
    for page in parts.chunks(PAGE) {
        let page = page.to_vec();
        meta.transact("record manifests", move |session| {
            let page = page.clone();
            Box::pin(async move {
                for part in &page {
                    manifests::insert_part(session, part).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await?;
    }
    Ok(seq)
}

/// Hands to the collector what nothing refers to: parts of uploads that were under way, and what had been released
/// when the database was lost.
async fn release_unreferenced(
    meta: &MetaStore,
    uids: &UidGenerator,
    now: Millis,
    tell: Tell<'_>,
) -> Result<(), Fault> {
    let (mut content, mut done) = (ContentId(0), 0);
    loop {
        tell(Progress::new("finding what nothing refers to", done, None));
        let page = meta
            .scan("find unreferenced", move |session| {
                Box::pin(releases::references_of(session, content, PAGE * 5))
            })
            .await?;
        let Some((last, _)) = page.last() else { break };
        content = *last;
        done += page.len() as u64;
        let free: Result<Vec<_>, Fault> = page
            .into_iter()
            .filter(|(_, is_referenced)| !is_referenced)
            .map(|(content, _)| Ok((uids.next()?, content)))
            .collect();
        let free = free?;
        if free.is_empty() {
            continue;
        }
        meta.transact("release unreferenced", move |session| {
            let free = free.clone();
            Box::pin(async move {
                for (id, content) in free {
                    releases::release(session, id, content, now).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await?;
    }
    let mut blob = BlobId(0);
    loop {
        let page = meta
            .scan("find blobs", move |session| {
                Box::pin(releases::live_blobs(session, blob, PAGE * 5))
            })
            .await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        blob = *last;
        meta.transact("condemn unused", move |session| {
            let page = page.clone();
            Box::pin(async move {
                for blob in page {
                    releases::condemn_blob(session, blob, now).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await?;
    }
}
