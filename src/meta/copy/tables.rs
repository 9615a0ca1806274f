//! Which tables there are, in the order in which rows can be written, and the statements that walk them.
//!
//! Nothing is listed by hand that the migrations say: tables, columns, keys and references are read from a blank
//! SQLite database that they have just made. What a live database has is compared with that before anything is
//! copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::super::dialect::Dialect;
use super::super::session::{Param, Row, Session, params};
use super::super::sqlite;
use crate::model::fault::{Fault, Kind};

/// Tables whose rows stay behind. Nodes and their fences belong to processes, of which none serves during a copy, and
/// a node's number is never given twice; a copy under way is the target's own business; a version is set by the
/// migrations. Everything else moves as it is: reservations of ids above all, without which ids could repeat; leases
/// of jobs and of event targets run out by themselves.
pub(super) const LEFT_BEHIND: [&str; 4] = ["nodes", "fences", MARKER, VERSION];
/// Says that a copy into this database has not ended.
pub(super) const MARKER: &str = "unfinished_copy";
/// Holds the version of the schema on server databases.
const VERSION: &str = "schema_version";
/// Most rows of a page.
const PAGE_ROWS: usize = 500;
/// Most rows of a page of contents, each with up to `storage.inline_max_bytes` of bytes.
const PAGE_CONTENTS: usize = 64;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Type {
    Int,
    Text,
    Bytes,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

impl Cell {
    fn read(row: &Row<'_>, column: usize, kind: Type) -> Result<Self, Fault> {
        Ok(match kind {
            Type::Int => Self::Int(row.opt_int(column)?),
            Type::Text => Self::Text(row.opt_str(column)?.map(str::to_owned)),
            Type::Bytes => Self::Bytes(row.opt_bytes(column)?.map(<[u8]>::to_vec)),
        })
    }

    pub(super) fn param(&self) -> Param<'_> {
        match self {
            Self::Int(value) => (*value).into(),
            Self::Text(value) => value.as_deref().into(),
            Self::Bytes(value) => value.as_deref().into(),
        }
    }

    /// Bytes it takes, about.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Int(_) => 8,
            Self::Text(value) => value.as_ref().map_or(0, String::len),
            Self::Bytes(value) => value.as_ref().map_or(0, Vec::len),
        }
    }
}

/// The cells of a row, in the order of the table's columns.
pub(super) type Cells = Vec<Cell>;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<(String, Type)>,
    /// The columns of the primary key, in its order.
    key: Vec<usize>,
    /// Tables that its rows refer to.
    refers: BTreeSet<String>,
    /// The column that refers to rows of the table itself: it is written once they are all there.
    itself: Option<usize>,
}

impl Table {
    /// All its rows.
    pub(super) fn rows(self: &Arc<Self>) -> Pass {
        Pass {
            table: Arc::clone(self),
            filter: None,
        }
    }

    /// Those that refer to others of the same table; `None` where none can.
    pub(super) fn links(self: &Arc<Self>) -> Option<Pass> {
        let column = self.name_of(self.itself?);
        Some(Pass {
            table: Arc::clone(self),
            filter: Some(format!("{column} IS NOT NULL")),
        })
    }

    fn name_of(&self, column: usize) -> &str {
        self.columns
            .get(column)
            .map_or("", |(name, _)| name.as_str())
    }

    /// Takes the reference to another row of the table out of a row.
    pub(super) fn unlink(&self, row: &mut [Cell]) {
        if let Some(cell) = self.itself.and_then(|column| row.get_mut(column)) {
            *cell = match cell {
                Cell::Int(_) => Cell::Int(None),
                Cell::Text(_) => Cell::Text(None),
                Cell::Bytes(_) => Cell::Bytes(None),
            };
        }
    }

    /// A table of so many columns of bytes.
    #[cfg(test)]
    pub(super) fn of_columns(name: &str, columns: usize) -> Self {
        Self {
            name: name.to_owned(),
            columns: (0..columns)
                .map(|column| (format!("c{column}"), Type::Bytes))
                .collect(),
            key: vec![0],
            refers: BTreeSet::new(),
            itself: None,
        }
    }

    /// Lets the numbers that PostgreSQL gives by itself go on above those that were copied; elsewhere they do so by
    /// themselves. Without effect on a column that is not numbered so.
    pub(super) async fn go_on_numbering(&self, session: &mut Session) -> Result<(), Fault> {
        let (Some(Dialect::Postgres), [column]) = (session.dialect(), &self.key[..]) else {
            return Ok(());
        };
        let Some((column, Type::Int)) = self.columns.get(*column) else {
            return Ok(());
        };
        let table = &self.name;
        let sql = format!(
            "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), (SELECT MAX({column}) FROM {table}))"
        );
        session.query_made(&sql, &[], |_| Ok(())).await.map(|_| ())
    }

    fn page_rows(&self) -> usize {
        match self.name.as_str() {
            "contents" => PAGE_CONTENTS,
            _ => PAGE_ROWS,
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    }

    /// The statement that inserts so many rows.
    pub(super) fn insert(&self, rows: usize) -> String {
        let mut sql = format!("INSERT INTO {} ({}) VALUES ", self.name, self.names());
        let width = self.columns.len();
        for row in 0..rows {
            let places: Vec<String> = (1..=width)
                .map(|column| format!("${}", row * width + column))
                .collect();
            let comma = if row == 0 { "" } else { ", " };
            let _ = write!(sql, "{comma}({})", places.join(", "));
        }
        sql
    }
}

/// Rows of one table, walked in the order of its key.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    table: Arc<Table>,
    filter: Option<String>,
}

impl Pass {
    /// The next rows after the one with this key, from the beginning without one; few enough to hold. An empty
    /// page is the end.
    pub(super) async fn page(
        &self,
        session: &mut Session,
        after: Option<&[Cell]>,
    ) -> Result<Vec<Cells>, Fault> {
        self.page_of(session, after, self.table.page_rows()).await
    }

    /// Rows after `after` are those with a greater last column of the key under equal ones before it, then those
    /// with a greater last but one, and so on: each is one range of the key on every database.
    async fn page_of(
        &self,
        session: &mut Session,
        after: Option<&[Cell]>,
        limit: usize,
    ) -> Result<Vec<Cells>, Fault> {
        let mut rows = Vec::new();
        let Some(after) = after else {
            return self.select(session, None, &[], limit).await;
        };
        for equal in (0..self.table.key.len()).rev() {
            let found = self
                .select(session, Some(equal), &after[..=equal], limit - rows.len())
                .await?;
            rows.extend(found);
            if rows.len() == limit {
                break;
            }
        }
        Ok(rows)
    }

    async fn select(
        &self,
        session: &mut Session,
        equal: Option<usize>,
        key: &[Cell],
        limit: usize,
    ) -> Result<Vec<Cells>, Fault> {
        let table = &*self.table;
        let sql = format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
            table.names(),
            table.name,
            self.condition(equal, ">"),
            self.key_names().join(", "),
        );
        let params: Vec<Param<'_>> = key.iter().map(Cell::param).collect();
        let read = |row: &Row<'_>| {
            let columns = table.columns.iter().enumerate();
            columns
                .map(|(column, (_, kind))| Cell::read(row, column, *kind))
                .collect()
        };
        session.query_made(&sql, &params, read).await
    }

    /// Deletes the rows up to and with the one that has this key.
    pub(super) async fn delete_through(
        &self,
        session: &mut Session,
        through: &[Cell],
    ) -> Result<(), Fault> {
        let change = format!("DELETE FROM {}", self.table.name);
        self.change_through(session, &change, through).await
    }

    async fn change_through(
        &self,
        session: &mut Session,
        change: &str,
        through: &[Cell],
    ) -> Result<(), Fault> {
        let last = self.table.key.len() - 1;
        for equal in 0..=last {
            let comparison = if equal == last { "<=" } else { "<" };
            let sql = format!("{change}{}", self.condition(Some(equal), comparison));
            let params: Vec<Param<'_>> = through[..=equal].iter().map(Cell::param).collect();
            session.execute_made(&sql, &params).await?;
        }
        Ok(())
    }

    /// Takes the references to other rows of the table away from the rows up to and with the one that has this key.
    pub(super) async fn unlink_through(
        &self,
        session: &mut Session,
        through: &[Cell],
    ) -> Result<(), Fault> {
        let Some(column) = self.table.itself else {
            return Ok(());
        };
        let change = format!(
            "UPDATE {} SET {} = NULL",
            self.table.name,
            self.table.name_of(column)
        );
        self.change_through(session, &change, through).await
    }

    /// Writes the reference of a row, which is there without, to another row of the table.
    pub(super) async fn link(&self, session: &mut Session, row: &[Cell]) -> Result<(), Fault> {
        let Some((column, cell)) = self.table.itself.and_then(|at| Some((at, row.get(at)?))) else {
            return Ok(());
        };
        let key: Vec<String> = self
            .key_names()
            .iter()
            .enumerate()
            .map(|(place, name)| format!("{name} = ${}", place + 2))
            .collect();
        let sql = format!(
            "UPDATE {} SET {} = $1 WHERE {}",
            self.table.name,
            self.table.name_of(column),
            key.join(" AND ")
        );
        let key = self.key_of(row);
        let params: Vec<Param<'_>> = std::iter::once(cell).chain(&key).map(Cell::param).collect();
        session.execute_made(&sql, &params).await
    }

    /// The key of a row.
    pub(super) fn key_of(&self, row: &[Cell]) -> Vec<Cell> {
        let columns = self.table.key.iter();
        columns
            .filter_map(|column| row.get(*column))
            .cloned()
            .collect()
    }

    fn key_names(&self) -> Vec<&str> {
        let columns = self.table.key.iter();
        columns
            .filter_map(|column| self.table.columns.get(*column))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Where so many columns of the key are equal to parameters and the next compares with one.
    fn condition(&self, equal: Option<usize>, comparison: &str) -> String {
        let mut conditions: Vec<String> = Vec::new();
        if let Some(equal) = equal {
            for (place, name) in self.key_names().iter().enumerate().take(equal + 1) {
                let comparison = if place == equal { comparison } else { "=" };
                conditions.push(format!("{name} {comparison} ${}", place + 1));
            }
        }
        conditions.extend(self.filter.clone());
        match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        }
    }
}

/// Every table of the newest schema, those first that others refer to.
pub(super) async fn tables() -> Result<Vec<Arc<Table>>, Fault> {
    let mut session = sqlite::blank()?;
    let live = live_columns(&mut session).await?;
    let mut tables = Vec::new();
    for (name, _) in live {
        tables.push(describe(&mut session, &name).await?);
    }
    Ok(in_order(tables)?.into_iter().map(Arc::new).collect())
}

async fn describe(session: &mut Session, name: &str) -> Result<Table, Fault> {
    let found = session
        .query(
            "SELECT name, type, pk FROM pragma_table_info($1) ORDER BY cid",
            params![name],
            |row| Ok((row.str(0)?.to_owned(), kind_of(row.str(1)?)?, row.int(2)?)),
        )
        .await?;
    let mut key: Vec<(i64, usize)> = found
        .iter()
        .enumerate()
        .filter(|(_, (_, _, place))| *place > 0)
        .map(|(column, (_, _, place))| (*place, column))
        .collect();
    key.sort_unstable();
    if key.is_empty() {
        return Err(wrong(format_args!("table {name} has no primary key")));
    }
    let references = session
        .query(
            "SELECT \"table\", \"from\" FROM pragma_foreign_key_list($1)",
            params![name],
            |row| Ok((row.str(0)?.to_owned(), row.str(1)?.to_owned())),
        )
        .await?;
    let mut itself = references.iter().filter(|(table, _)| table == name);
    let itself = match (itself.next(), itself.next()) {
        (None, _) => None,
        (Some((_, column)), None) => found.iter().position(|(name, _, _)| name == column),
        (Some(_), Some(_)) => {
            return Err(wrong(format_args!("table {name} refers to itself twice")));
        }
    };
    Ok(Table {
        name: name.to_owned(),
        columns: found
            .into_iter()
            .map(|(name, kind, _)| (name, kind))
            .collect(),
        key: key.into_iter().map(|(_, column)| column).collect(),
        itself,
        refers: references
            .into_iter()
            .map(|(table, _)| table)
            .filter(|table| table != name)
            .collect(),
    })
}

fn in_order(mut left: Vec<Table>) -> Result<Vec<Table>, Fault> {
    let mut ordered: Vec<Table> = Vec::new();
    while !left.is_empty() {
        let (ready, waiting): (Vec<Table>, Vec<Table>) = left.into_iter().partition(|table| {
            let mut refers = table.refers.iter();
            refers.all(|name| ordered.iter().any(|table| table.name == *name))
        });
        if ready.is_empty() {
            return Err(wrong("tables refer to each other in a circle"));
        }
        ordered.extend(ready);
        left = waiting;
    }
    Ok(ordered)
}

/// The columns of a live database, by table; of tables that are not ours too.
pub(super) async fn live_columns(
    session: &mut Session,
) -> Result<BTreeMap<String, BTreeMap<String, Option<Type>>>, Fault> {
    let sql = match session.dialect() {
        None => {
            "SELECT tables.name, columns.name, columns.type
             FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
             WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite_%'"
        }
        Some(Dialect::Postgres) => {
            "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), CAST(data_type AS TEXT)
             FROM information_schema.columns WHERE table_schema = current_schema()"
        }
        Some(Dialect::MySql) => {
            "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR), CAST(data_type AS CHAR)
             FROM information_schema.columns WHERE table_schema = DATABASE()"
        }
    };
    let found = session
        .query(sql, &[], |row| {
            let kind = kind_of(row.str(2)?).ok();
            Ok((row.str(0)?.to_owned(), row.str(1)?.to_owned(), kind))
        })
        .await?;
    let mut tables: BTreeMap<String, BTreeMap<String, Option<Type>>> = BTreeMap::new();
    for (table, column, kind) in found {
        tables.entry(table).or_default().insert(column, kind);
    }
    Ok(tables)
}

/// Refuses a live database that does not have exactly the columns of these tables.
pub(super) async fn compare(session: &mut Session, tables: &[Arc<Table>]) -> Result<(), Fault> {
    let live = live_columns(session).await?;
    for table in tables {
        let Some(found) = live.get(&table.name) else {
            return Err(wrong(format_args!("it has no table {}", table.name)));
        };
        let wanted: BTreeMap<String, Option<Type>> = table
            .columns
            .iter()
            .map(|(name, kind)| (name.clone(), Some(*kind)))
            .collect();
        let names = wanted.keys().chain(found.keys());
        if let Some(column) = names
            .into_iter()
            .find(|name| wanted.get(*name) != found.get(*name))
        {
            return Err(wrong(format_args!(
                "its column {}.{column} is not that of this osproxy",
                table.name
            )));
        }
    }
    Ok(())
}

fn kind_of(declared: &str) -> Result<Type, Fault> {
    match declared.to_ascii_lowercase().as_str() {
        "integer" | "bigint" => Ok(Type::Int),
        "text" | "mediumtext" | "varchar" => Ok(Type::Text),
        "blob" | "mediumblob" | "varbinary" | "bytea" => Ok(Type::Bytes),
        other => Err(wrong(format_args!("a column of the type {other}"))),
    }
}

fn wrong(what: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Config, "compare schemas").context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tables_stand_after_those_they_refer_to() {
        let tables = tables().await.unwrap();
        let place = |name: &str| tables.iter().position(|table| table.name == name).unwrap();
        for table in &tables {
            for other in &table.refers {
                assert!(place(other) < place(&table.name), "{} {other}", table.name);
            }
        }
        assert!(place("contents") < place("extents") && place("buckets") < place("objects"));
        for name in LEFT_BEHIND.iter().filter(|name| **name != VERSION) {
            place(name);
        }
        let links = |name: &str| tables[place(name)].links().and_then(|pass| pass.filter);
        assert_eq!(links("access_keys").as_deref(), Some("parent IS NOT NULL"));
        assert_eq!(links("backends").as_deref(), Some("moved_to IS NOT NULL"));
        assert_eq!(links("objects"), None);
    }

    #[tokio::test]
    async fn a_schema_with_another_column_is_refused_by_its_name() {
        let tables = tables().await.unwrap();
        let mut session = sqlite::blank().unwrap();
        compare(&mut session, &tables).await.unwrap();
        for (change, name) in [
            ("ALTER TABLE objects ADD COLUMN odd TEXT", "objects.odd"),
            (
                "ALTER TABLE objects DROP COLUMN odd; ALTER TABLE tenants RENAME COLUMN name TO odd",
                "tenants.",
            ),
            (
                "DROP TABLE jobs; ALTER TABLE tenants RENAME COLUMN odd TO name",
                "jobs",
            ),
        ] {
            session.batch(change).unwrap();
            let fault = compare(&mut session, &tables).await.unwrap_err();
            assert_eq!(fault.kind(), Kind::Config);
            assert!(fault.to_string().contains(name), "{fault}");
        }
    }

    #[tokio::test]
    async fn pages_walk_every_row_once_in_order_and_deletion_takes_exactly_what_is_behind() {
        let mut session = sqlite::blank().unwrap();
        session
            .batch("DROP TABLE version_parts; CREATE TABLE version_parts (a INTEGER, b BLOB, c INTEGER, d TEXT, PRIMARY KEY (a, b, c)) STRICT")
            .unwrap();
        let table = Arc::new(describe(&mut session, "version_parts").await.unwrap());
        let mut all = BTreeSet::new();
        for number in 0..200_i64 {
            let row = vec![
                Cell::Int(Some(number % 3)),
                Cell::Bytes(Some(vec![(number * 7 % 11) as u8; (number % 4) as usize])),
                Cell::Int(Some(number * 37 % 101)),
                Cell::Text((number % 5 > 0).then(|| number.to_string())),
            ];
            let params: Vec<Param<'_>> = row.iter().map(Cell::param).collect();
            if all.iter().all(|other: &Cells| other[..3] != row[..3]) {
                session
                    .execute_made(&table.insert(1), &params)
                    .await
                    .unwrap();
                all.insert(row.clone());
            }
        }
        let all: Vec<Cells> = all.into_iter().collect();
        let pass = table.rows();
        for limit in [1, 2, 7, 64, 1000] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = pass
                    .page_of(&mut session, after.as_deref(), limit)
                    .await
                    .unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(pass.key_of(last));
                seen.extend(page);
            }
            assert_eq!(seen, all, "{limit}");
        }
        let through = pass.key_of(&all[90]);
        pass.delete_through(&mut session, &through).await.unwrap();
        let left = pass.page_of(&mut session, None, 1000).await.unwrap();
        assert_eq!(left, all[91..]);
    }
}
