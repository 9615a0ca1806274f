//! Moves the rows of an install from one database to another, of any kind.
//!
//! ```text
//!   source   one snapshot for the whole copy; nobody serves it; of a server read again and compared before the end
//!   target   empty -> marked -> rows, table by table -> read back and compared -> mark taken away
//! ```
//!
//! A database that is marked cannot be opened for anything but another copy, which first deletes what is there: a
//! copy that was interrupted is started again and never served half. Each transaction of a copy checks that the mark
//! is still its own, so that of two copies into one target only the later goes on.

mod tables;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::session::{Param, Session, params};
use super::{Durability, Engine, Lane, MetaStore, nodes, server, sqlite};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};
use crate::telemetry::Metrics;
use tables::{Cell, Cells, LEFT_BEHIND, Pass, Table};

/// Connections to a server database.
const CONNECTIONS: u32 = 2;
/// Most values of one statement; SQLite takes the fewest, 32766.
const STATEMENT_VALUES: usize = 16_000;
/// Bytes of values after which a statement takes no further row; MariaDB takes 16 MiB as it is set up.
const STATEMENT_BYTES: usize = 1 << 20;

/// Rows between two words about how far a reading is.
const PROGRESS_ROWS: u64 = 1000;

/// A database.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// The SQLite database in this file.
    Sqlite(PathBuf),
    /// The server database at this URL, which may hold a password.
    Server(String),
}

/// What a copy does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Deletes what an interrupted copy left.
    Clear,
    /// Writes rows.
    Copy,
    /// Reads them back.
    Verify,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What it does.
    pub phase: Phase,
    /// On which table.
    pub table: &'a str,
    /// Rows of the table so far.
    pub rows: u64,
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    /// Every table whose rows moved, in the order in which they did.
    pub tables: Vec<CopiedTable>,
}

/// One table that was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopiedTable {
    /// Its name.
    pub table: String,
    /// Its rows, as many here as there.
    pub rows: u64,
    /// The sum of the SHA-256 of its rows in both databases, in hexadecimal digits.
    pub checksum: String,
}

/// Copies all rows. The caller sees to it that no other process serves a SQLite source or opens a SQLite target.
///
/// Fails with [`Kind::Config`] where the operator must do something first: the source is served or has another
/// schema, the target is not empty. When it fails later, the target stays marked.
pub async fn copy(
    from: &Place,
    to: &Place,
    durability: Durability,
    clock: &Clock,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<CopyReport, Fault> {
    let tables = tables::tables().await?;
    let source = |fault: Fault| fault.context("the source");
    let target = |fault: Fault| fault.context("the target");
    let mut snapshot = Snapshot::begin(from, &tables).await.map_err(source)?;
    let store = attach_target(to, durability).await.map_err(target)?;
    let writer = Writer::begin(store.clone(), &tables, clock.now())
        .await
        .map_err(target)?;
    let moved = || tables.iter().filter(|table| is_moved(table));
    if writer.was_marked {
        for table in moved().rev() {
            writer.clear(table, progress).await.map_err(target)?;
        }
    }
    let mut copied = Vec::new();
    for table in moved() {
        copied.push(writer.copy(table, &mut snapshot, progress).await?);
    }
    for (table, tally) in moved().zip(&copied) {
        let found = read_back(&store, table, progress).await.map_err(target)?;
        if found != *tally {
            let problem = format!(
                "table {} has {} rows of checksum {}, the source has {} of {}: start the copy again",
                table.name,
                found.rows,
                found.checksum(),
                tally.rows,
                tally.checksum()
            );
            return Err(target(
                Fault::new(Kind::Corrupt, "verify copy").context(problem),
            ));
        }
    }
    let tallies: Vec<_> = moved().zip(copied.iter().cloned()).collect();
    snapshot.end(&tallies, progress).await.map_err(source)?;
    writer.end(&tables).await.map_err(target)?;
    store.close().await;
    let tables = moved().zip(copied).map(|(table, tally)| CopiedTable {
        table: table.name.clone(),
        rows: tally.rows,
        checksum: tally.checksum(),
    });
    Ok(CopyReport {
        tables: tables.collect(),
    })
}

/// Refuses a database that a copy has begun to fill.
pub(super) async fn refuse_unfinished(session: &mut Session) -> Result<(), Fault> {
    let found = session
        .query_one("SELECT began FROM unfinished_copy", &[], |row| row.int(0))
        .await?;
    match found {
        None => Ok(()),
        Some(_) => Err(config(
            "a copy into this database has not ended; start the same `osproxy meta copy` again, or empty the database",
        )),
    }
}

fn is_moved(table: &Table) -> bool {
    !LEFT_BEHIND.contains(&table.name.as_str())
}

fn config(what: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Config, "copy database").context(what)
}

/// How many rows, and the sum of their digests: the same whatever order a database has them in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Tally {
    rows: u64,
    sum: [u64; 4],
}

impl Tally {
    fn add(&mut self, row: &[Cell]) {
        let mut hasher = Sha256::new();
        let mut field = |tag: u8, bytes: Option<&[u8]>| {
            hasher.update([tag, u8::from(bytes.is_some())]);
            if let Some(bytes) = bytes {
                hasher.update((bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        };
        for cell in row {
            match cell {
                Cell::Int(value) => field(1, value.map(i64::to_le_bytes).as_ref().map(|b| &b[..])),
                Cell::Text(value) => field(2, value.as_deref().map(str::as_bytes)),
                Cell::Bytes(value) => field(3, value.as_deref()),
            }
        }
        let digest: [u8; 32] = hasher.finalize().into();
        for (sum, bytes) in self.sum.iter_mut().zip(digest.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*bytes));
        }
        self.rows += 1;
    }

    fn checksum(&self) -> String {
        self.sum.iter().map(|sum| format!("{sum:016x}")).collect()
    }
}

/// The source as it was at one moment.
struct Snapshot {
    session: Session,
    /// Of a server; its nodes were declared dead.
    engine: Option<server::Engine>,
}

impl Snapshot {
    /// Begins one. A SQLite source is held against writers. A server's cannot be, so that its nodes lose their fences:
    /// one that was paused commits nothing any more. What others write is found at the [end](Self::end).
    async fn begin(from: &Place, tables: &[Arc<Table>]) -> Result<Self, Fault> {
        let (session, engine) = match from {
            Place::Sqlite(path) => (sqlite::attach(path)?, None),
            Place::Server(url) => {
                // How it syncs is no matter: nothing is to survive there.
                let engine = server::Engine::attach(url, CONNECTIONS, Durability::Relaxed)?;
                (engine.session().await?, Some(engine))
            }
        };
        let mut snapshot = Self { session, engine };
        let session = &mut snapshot.session;
        if !tables::live_columns(session).await?.contains_key("tenants") {
            return Err(config("there is no install in this database"));
        }
        let (version, newest) = session.schema_versions().await?;
        if version != newest {
            return Err(config(format_args!(
                "its schema has version {version}, this osproxy has {newest}: start `osproxy serve` of this version on it once"
            )));
        }
        tables::compare(session, tables).await?;
        refuse_unfinished(session).await?;
        if let Some(engine) = &snapshot.engine {
            let found = refuse_served(session).await?;
            for node in found {
                let expelled: Result<_, Fault> = engine
                    .transact(Lane::Common, move |session| {
                        Box::pin(nodes::expel(session, node))
                    })
                    .await;
                expelled?;
            }
        }
        snapshot.session.begin_snapshot().await?;
        Ok(snapshot)
    }

    /// Ends it, and fails when a server's source is not what was copied any more: nothing there keeps others from
    /// writing, and what they were told is done would be missing from the copy. So all of it is read once more, as it is
    /// at one later moment; who changes a row only, such as an access key's, leaves no other trace.
    async fn end(
        mut self,
        copied: &[(&Arc<Table>, Tally)],
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Fault> {
        self.session.end_snapshot().await?;
        let Some(engine) = self.engine.take() else {
            return Ok(());
        };
        self.session.begin_snapshot().await?;
        let nodes = nodes::leases(&mut self.session).await?;
        let mut changed = (!nodes.is_empty()).then_some("nodes");
        for (table, tally) in copied {
            if changed.is_some() {
                break;
            }
            let mut found = Tally::default();
            let mut count = |row: &[Cell]| {
                found.add(row);
                if found.rows.is_multiple_of(PROGRESS_ROWS) {
                    progress(Progress {
                        phase: Phase::Verify,
                        table: &table.name,
                        rows: found.rows,
                    });
                }
            };
            walk(&mut self.session, &table.rows(), &mut count).await?;
            changed = (found != *tally).then_some(table.name.as_str());
        }
        self.session.end_snapshot().await?;
        drop(self.session);
        engine.close().await;
        match changed {
            None => Ok(()),
            Some(table) => Err(config(format_args!(
                "it was written to during the copy, table {table} is not what it was: stop what does so, nodes and \
                 commands, and start the copy again"
            ))),
        }
    }
}

/// Refuses a server's source while a node's lease runs; answers the nodes whose lease has run out.
async fn refuse_served(session: &mut Session) -> Result<Vec<i64>, Fault> {
    let now = session.time().await?.unwrap_or(Millis::MAX);
    let found = nodes::leases(session).await?;
    match found
        .iter()
        .filter(|(_, until)| *until > now)
        .max_by_key(|(_, until)| *until)
    {
        None => Ok(found.into_iter().map(|(node, _)| node).collect()),
        Some((node, until)) => Err(config(format_args!(
            "node {node} serves from it: stop every node; one that was killed counts as alive for {} s more",
            (until - now + 999) / 1000
        ))),
    }
}

async fn walk(
    session: &mut Session,
    pass: &Pass,
    mut each: impl FnMut(&[Cell]),
) -> Result<(), Fault> {
    let mut after = None;
    loop {
        let page = pass.page(session, after.as_deref()).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(pass.key_of(last));
        for row in &page {
            each(row);
        }
    }
}

/// Opens a target, marked or not, with the newest schema.
async fn attach_target(to: &Place, durability: Durability) -> Result<MetaStore, Fault> {
    let engine = match to {
        Place::Sqlite(path) => Engine::Sqlite(Arc::new(sqlite::Engine::open(path, durability)?)),
        Place::Server(url) => {
            let engine = server::Engine::open(url, CONNECTIONS, durability).await?;
            Engine::Server(Arc::new(engine))
        }
    };
    Ok(MetaStore::of(engine, Metrics::new()))
}

async fn read_back(
    store: &MetaStore,
    table: &Arc<Table>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    let pass = table.rows();
    let mut after: Option<Vec<Cell>> = None;
    loop {
        let page = store
            .read("read copied rows", {
                let (pass, after) = (pass.clone(), after.take());
                move |session| Box::pin(async move { pass.page(session, after.as_deref()).await })
            })
            .await?;
        let Some(last) = page.last() else { break };
        after = Some(pass.key_of(last));
        page.iter().for_each(|row| tally.add(row));
        progress(Progress {
            phase: Phase::Verify,
            table: &table.name,
            rows: tally.rows,
        });
    }
    Ok(tally)
}

/// The target, marked as this copy's.
struct Writer {
    store: MetaStore,
    token: Arc<str>,
    /// A copy before this one did not end.
    was_marked: bool,
}

impl Writer {
    /// Marks the target, which is empty or marked already.
    async fn begin(store: MetaStore, tables: &[Arc<Table>], now: Millis) -> Result<Self, Fault> {
        let mut drawn = [0; 16];
        getrandom::fill(&mut drawn).map_err(|error| config("no random bytes").context(error))?;
        let token: Arc<str> = hex::encode(drawn).into();
        let names: Arc<Vec<String>> =
            Arc::new(tables.iter().map(|table| table.name.clone()).collect());
        let ours = tables.to_vec();
        store
            .read("compare schemas", move |session| {
                Box::pin(async move { tables::compare(session, &ours).await })
            })
            .await?;
        let mine = Arc::clone(&token);
        let was_marked = store
            .transact("mark target", move |session| {
                let (names, token) = (Arc::clone(&names), Arc::clone(&mine));
                Box::pin(async move {
                    let marked = session
                        .query_one(
                            "SELECT id FROM unfinished_copy /*FOR UPDATE*/",
                            &[],
                            |row| row.int(0),
                        )
                        .await?
                        .is_some();
                    if marked {
                        session
                            .execute(
                                "UPDATE unfinished_copy SET token = $1, began = $2",
                                params![&*token, now],
                            )
                            .await?;
                        return Ok::<_, Fault>(true);
                    }
                    for name in names.iter() {
                        let sql = format!("SELECT 1 FROM {name} LIMIT 1");
                        if !session.query_made(&sql, &[], |_| Ok(())).await?.is_empty() {
                            return Err(config(format_args!(
                                "it is not empty: table {name} has rows; name an empty database"
                            )));
                        }
                    }
                    session
                        .execute(
                            "INSERT INTO unfinished_copy (id, token, began) VALUES (1, $1, $2)",
                            params![&*token, now],
                        )
                        .await?;
                    Ok(false)
                })
            })
            .await?;
        Ok(Self {
            store,
            token,
            was_marked,
        })
    }

    /// Deletes all rows of a table, those first that refer to others.
    async fn clear(
        &self,
        table: &Arc<Table>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Fault> {
        let mut rows = 0;
        let links = table.links().map(|pass| (pass, false));
        for (pass, delete) in links.into_iter().chain([(table.rows(), true)]) {
            loop {
                let (pass, token) = (pass.clone(), Arc::clone(&self.token));
                let changed = self
                    .store
                    .transact("clear rows", move |session| {
                        let (pass, token) = (pass.clone(), Arc::clone(&token));
                        Box::pin(async move {
                            hold_mark(session, &token).await?;
                            let page = pass.page(session, None).await?;
                            let Some(last) = page.last() else {
                                return Ok::<_, Fault>(0);
                            };
                            let through = pass.key_of(last);
                            match delete {
                                true => pass.delete_through(session, &through).await?,
                                false => pass.unlink_through(session, &through).await?,
                            }
                            Ok(page.len() as u64)
                        })
                    })
                    .await?;
                if changed == 0 {
                    break;
                }
                rows += changed;
                progress(Progress {
                    phase: Phase::Clear,
                    table: &table.name,
                    rows,
                });
            }
        }
        Ok(())
    }

    /// Writes all rows of a table.
    async fn copy(
        &self,
        table: &Arc<Table>,
        snapshot: &mut Snapshot,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Tally, Fault> {
        let mut tally = Tally::default();
        let pass = table.rows();
        let mut after = None;
        while let Some(mut page) = next_page(&pass, snapshot, &mut after).await? {
            page.iter().for_each(|row| tally.add(row));
            page.iter_mut().for_each(|row| table.unlink(row));
            self.write(table, page)
                .await
                .map_err(|fault| fault.context("the target").context(&table.name))?;
            progress(Progress {
                phase: Phase::Copy,
                table: &table.name,
                rows: tally.rows,
            });
        }
        let Some(pass) = table.links() else {
            return Ok(tally);
        };
        let mut after = None;
        while let Some(page) = next_page(&pass, snapshot, &mut after).await? {
            self.link(&pass, page)
                .await
                .map_err(|fault| fault.context("the target").context(&table.name))?;
        }
        Ok(tally)
    }

    /// Writes what rows refer to in their own table.
    async fn link(&self, pass: &Pass, page: Vec<Cells>) -> Result<(), Fault> {
        let (pass, page, token) = (pass.clone(), Arc::new(page), Arc::clone(&self.token));
        self.store
            .transact("link rows", move |session| {
                let (pass, page, token) = (pass.clone(), Arc::clone(&page), Arc::clone(&token));
                Box::pin(async move {
                    hold_mark(session, &token).await?;
                    for row in page.iter() {
                        pass.link(session, row).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn write(&self, table: &Table, page: Vec<Cells>) -> Result<(), Fault> {
        let statements: Vec<(String, Vec<Cell>)> = statements(table, page);
        let (statements, token) = (Arc::new(statements), Arc::clone(&self.token));
        self.store
            .transact("copy rows", move |session| {
                let (statements, token) = (Arc::clone(&statements), Arc::clone(&token));
                Box::pin(async move {
                    hold_mark(session, &token).await?;
                    for (sql, cells) in statements.iter() {
                        let params: Vec<Param<'_>> = cells.iter().map(Cell::param).collect();
                        session.execute_made(sql, &params).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Takes the mark away: from now on the target is an install.
    async fn end(&self, tables: &[Arc<Table>]) -> Result<(), Fault> {
        let (token, tables) = (Arc::clone(&self.token), Arc::new(tables.to_vec()));
        self.store
            .transact("unmark target", move |session| {
                let (token, tables) = (Arc::clone(&token), Arc::clone(&tables));
                Box::pin(async move {
                    hold_mark(session, &token).await?;
                    for table in tables.iter() {
                        table.go_on_numbering(session).await?;
                    }
                    session.execute("DELETE FROM unfinished_copy", &[]).await
                })
            })
            .await
    }
}

/// The rows of the source after those before; `None` at the end.
async fn next_page(
    pass: &Pass,
    snapshot: &mut Snapshot,
    after: &mut Option<Vec<Cell>>,
) -> Result<Option<Vec<Cells>>, Fault> {
    let page = pass
        .page(&mut snapshot.session, after.as_deref())
        .await
        .map_err(|fault| fault.context("the source"))?;
    Ok(page.last().map(|last| pass.key_of(last)).map(|key| {
        *after = Some(key);
        page
    }))
}

/// Fails unless the mark is still this copy's, and keeps it so until the transaction ends.
async fn hold_mark(session: &mut Session, token: &str) -> Result<(), Fault> {
    let found = session
        .query_one(
            "SELECT token FROM unfinished_copy /*FOR UPDATE*/",
            &[],
            |row| Ok(row.str(0)? == token),
        )
        .await?;
    match found {
        Some(true) => Ok(()),
        _ => Err(config(
            "another copy into it was started; this one ends here",
        )),
    }
}

/// The statements that insert a page, each with few enough values and bytes.
fn statements(table: &Table, page: Vec<Cells>) -> Vec<(String, Vec<Cell>)> {
    let rows_max = (STATEMENT_VALUES / table.columns.len()).max(1);
    let mut statements = Vec::new();
    let (mut rows, mut bytes, mut cells) = (0, 0, Vec::new());
    for row in page {
        bytes += row.iter().map(Cell::size).sum::<usize>();
        cells.extend(row);
        rows += 1;
        if rows == rows_max || bytes >= STATEMENT_BYTES {
            statements.push((table.insert(rows), std::mem::take(&mut cells)));
            (rows, bytes) = (0, 0);
        }
    }
    if rows > 0 {
        statements.push((table.insert(rows), cells));
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &tempfile::TempDir) -> MetaStore {
        let path = dir.path().join("meta.db");
        let engine = sqlite::Engine::open(&path, Durability::Relaxed).unwrap();
        MetaStore::of(Engine::Sqlite(Arc::new(engine)), Metrics::new())
    }

    #[tokio::test]
    async fn of_two_copies_into_one_target_the_later_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (store, tables) = (open(&dir), tables::tables().await.unwrap());
        let tenants = tables.iter().find(|table| table.name == "tenants").unwrap();
        let row = |id: i64| {
            let text = |text: &str| Cell::Text(Some(format!("{text}{id}")));
            vec![
                Cell::Int(Some(id)),
                text("name"),
                text("owner"),
                Cell::Int(Some(0)),
            ]
        };
        let first = Writer::begin(store.clone(), &tables, 1).await.unwrap();
        first.write(tenants, vec![row(1)]).await.unwrap();
        let second = Writer::begin(store.clone(), &tables, 2).await.unwrap();
        assert!(!first.was_marked && second.was_marked);
        for outcome in [
            first.write(tenants, vec![row(2)]).await,
            first.end(&tables).await,
        ] {
            let fault = outcome.unwrap_err();
            assert!(fault.to_string().contains("another copy"), "{fault}");
        }
        second.clear(tenants, &mut |_| {}).await.unwrap();
        second.write(tenants, vec![row(3)]).await.unwrap();
        second.end(&tables).await.unwrap();
        let found = read_back(&store, tenants, &mut |_| {}).await.unwrap();
        let mut wanted = Tally::default();
        wanted.add(&row(3));
        assert_eq!(found, wanted);
    }

    #[tokio::test]
    async fn rows_that_refer_to_each_other_are_copied_whatever_their_order_and_cleared_again() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(&from);
        let filled: Result<(), Fault> = store
            .transact("fill", |session| {
                Box::pin(async move {
                    for (id, next) in [(3_i64, None), (2, Some(3_i64)), (1, Some(2)), (4, Some(1))] {
                        let name = format!("backend{id}");
                        session
                            .execute(
                                "INSERT INTO backends (id, name, service, moved_to) VALUES ($1, $2, 's', $3)",
                                params![id, name.as_str(), next],
                            )
                            .await?;
                    }
                    Ok(())
                })
            })
            .await;
        filled.unwrap();
        store.close().await;
        let place = |dir: &tempfile::TempDir| Place::Sqlite(dir.path().join("meta.db"));
        let copied = async || {
            let (from, to) = (place(&from), place(&to));
            copy(&from, &to, Durability::Relaxed, &Clock::System, &mut |_| {}).await
        };
        let first = copied().await.unwrap();
        let store = open(&to);
        let marked: Result<(), Fault> = store
            .transact("mark", |session| {
                Box::pin(session.execute(
                    "INSERT INTO unfinished_copy (id, token, began) VALUES (1, 'x', 0)",
                    &[],
                ))
            })
            .await;
        marked.unwrap();
        store.close().await;
        assert_eq!(copied().await.unwrap(), first);
    }

    #[test]
    fn a_checksum_knows_values_types_and_rows_but_no_order() {
        let tally = |rows: &[Cells]| {
            let mut tally = Tally::default();
            rows.iter().for_each(|row| tally.add(row));
            tally
        };
        let text = |text: &str| Cell::Text(Some(text.to_owned()));
        let (a, b) = (vec![text("ab"), text("c")], vec![text("a"), text("bc")]);
        assert_eq!(
            tally(&[a.clone(), b.clone()]),
            tally(&[b.clone(), a.clone()])
        );
        assert_ne!(
            tally(&[a.clone(), b.clone()]),
            tally(&[a.clone(), a.clone()])
        );
        assert_ne!(tally(&[a]), tally(&[b]));
        let rows = [
            vec![Cell::Text(None)],
            vec![text("")],
            vec![Cell::Bytes(Some(Vec::new()))],
            vec![Cell::Int(None)],
            vec![Cell::Int(Some(0))],
        ];
        for (place, row) in rows.iter().enumerate() {
            for other in &rows[place + 1..] {
                assert_ne!(
                    tally(std::slice::from_ref(row)),
                    tally(std::slice::from_ref(other))
                );
            }
        }
    }

    #[test]
    fn statements_hold_few_values_and_bytes_and_every_row() {
        let table = tables::Table::of_columns("t", 3);
        let row = |length: usize| {
            vec![
                Cell::Int(Some(1)),
                Cell::Int(None),
                Cell::Bytes(Some(vec![0; length])),
            ]
        };
        let small = statements(&table, vec![row(0); 12_000]);
        assert_eq!(small.len(), 3);
        assert!(
            small
                .iter()
                .all(|(_, cells)| cells.len() <= STATEMENT_VALUES)
        );
        assert_eq!(
            small.iter().map(|(_, cells)| cells.len()).sum::<usize>(),
            36_000
        );
        let large = statements(&table, vec![row(STATEMENT_BYTES / 2); 5]);
        assert_eq!(
            large
                .iter()
                .map(|(_, cells)| cells.len() / 3)
                .collect::<Vec<_>>(),
            [2, 2, 1]
        );
        assert!(
            large[2].0.ends_with("VALUES ($1, $2, $3)"),
            "{}",
            large[2].0
        );
    }
}
