//! What a database is made of that a manifest must bring back: tables, their columns, and the groups of rows that
//! change together.
//!
//! A *group* is what one manifest entry describes: the rows of a table that share the first columns of its primary
//! key. Most groups are one row; the extents of a content, the copies of a blob and the parts of a version come
//! and go as one. A group without rows is one that is gone.
//!
//! The tables stand in the order in which rows can be inserted: each refers only to those before it, and
//! `contents` also to `extents` in the sense that a composite is of no use without them. Tables that are not here
//! are left out on purpose; a test holds the list against the schema, so that a new table or column is a decision:
//!
//! - uploads in progress and their parts: a client begins them anew;
//! - outboxes, jobs, moves, deliveries, nodes, releases, findings: they describe work, which is found again;
//! - keys of links: a recovered install makes its own, and links that were made before open nothing;
//! - `usage` is counted anew.
//!
//! ```text
//!   value    00                              NULL
//!            01  i64, big-endian             integer
//!            02  length  bytes               text
//!            03  length  bytes               bytes          length: u32, big-endian
//!   change   table number, then the values of the group's key
//! ```
//!
//! The numbers of tables and the encoding of values are stored: they are never changed.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::session::{Param, Row, Session};
use crate::model::fault::{Fault, Kind};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A 64-bit integer.
    Int,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A column that refers to the group of another table, whose key is that column alone.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The column, counted from 0.
    pub column: usize,
    /// The table it refers to.
    pub table: TableId,
}

/// A table's number in manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u8);

/// A table that manifests keep.
pub struct Table {
    /// Its number.
    pub id: TableId,
    /// Its name.
    pub name: &'static str,
    /// How many of the first columns name a group.
    pub group: usize,
    /// How many of the first columns name a row: a unique key of the database; the group's come first.
    pub primary: usize,
    /// Its columns and what they hold.
    pub columns: &'static [(&'static str, Type)],
    /// Where it refers to.
    pub references: &'static [Reference],
    /// Sets of columns no two rows share, beside the primary key. A NULL is equal to nothing.
    pub unique: &'static [&'static [usize]],
    texts: LazyLock<Texts>,
}

/// The statements of a table.
struct Texts {
    group: String,
    /// Pages of a scan: equal in the first `n` columns of the key and greater in the next, for each `n`.
    after: Vec<String>,
    first: String,
    insert: String,
    /// Of a table that refers to itself: sets that column.
    link: String,
}

macro_rules! tables {
    ($($name:ident = $id:literal $table:literal ($group:literal, $primary:literal)
        [$($column:literal $type:ident),* $(,)?]
        references [$($from:literal => $to:ident),*] unique [$([$($unique:literal),*]),*];)*) => {
        $(
            #[doc = concat!("The table `", $table, "`.")]
            pub static $name: Table = Table {
                id: TableId($id),
                name: $table,
                group: $group,
                primary: $primary,
                columns: &[$(($column, Type::$type)),*],
                references: &[$(Reference { column: $from, table: TableId(ids::$to) }),*],
                unique: &[$(&[$($unique),*]),*],
                texts: LazyLock::new(|| Texts::of(&$name)),
            };
        )*
        // Not every table is referred to.
        #[allow(dead_code)]
        mod ids {
            $(pub(super) const $name: u8 = $id;)*
        }
        /// Every table, in the order in which rows can be inserted.
        pub static TABLES: &[&Table] = &[$(&$name),*];
    };
}

tables! {
    TENANTS = 1 "tenants" (1, 1)
        ["id" Int, "name" Text, "owner_id" Text, "created" Int]
        references [] unique [[1], [2]];
    ACCESS_KEYS = 2 "access_keys" (1, 1)
        ["id" Int, "access_key" Text, "tenant_id" Int, "secret_sealed" Bytes, "policy" Text, "parent" Int,
         "expires_at" Int, "state" Text, "created" Int, "role" Text, "session" Text]
        references [2 => TENANTS, 5 => ACCESS_KEYS] unique [[1]];
    BACKENDS = 3 "backends" (1, 1)
        ["id" Int, "name" Text, "service" Text, "node" Text, "moved_to" Int]
        references [4 => BACKENDS] unique [[1]];
    PLACEMENTS = 4 "placements" (1, 1)
        ["id" Int, "name" Text, "rev" Int, "copies_required" Int]
        references [] unique [[1]];
    PLACEMENT_BACKENDS = 5 "placement_backends" (1, 2)
        ["placement_id" Int, "ordinal" Int, "backend_id" Int]
        references [0 => PLACEMENTS, 2 => BACKENDS] unique [];
    SPACES = 6 "spaces" (1, 1)
        ["id" Int, "realm_id" Int, "placement_id" Int, "encrypted" Int]
        references [1 => TENANTS, 2 => PLACEMENTS] unique [[1, 2, 3]];
    WRAP_KEYS = 7 "wrap_keys" (1, 1)
        ["id" Int, "tenant_id" Int, "kind" Text, "name" Text, "alias" Text, "description" Text, "state" Text,
         "version" Int, "created" Int]
        references [1 => TENANTS] unique [[1, 3], [1, 4]];
    WRAP_KEY_VERSIONS = 8 "wrap_key_versions" (1, 2)
        ["key_id" Int, "version" Int, "id" Int, "sealed" Bytes, "created" Int]
        references [0 => WRAP_KEYS] unique [[2]];
    BUCKETS = 9 "buckets" (1, 1)
        ["id" Int, "name" Text, "tenant_id" Int, "space_id" Int, "dedup" Text, "versioning" Text,
         "object_lock" Int, "rev" Int, "region" Text, "settings" Text, "created" Int]
        references [2 => TENANTS, 3 => SPACES] unique [[1]];
    BLOBS = 10 "blobs" (1, 1)
        ["id" Int, "size" Int, "state" Text, "since" Int, "owned" Int]
        references [] unique [];
    COPIES = 11 "copies" (1, 2)
        ["blob_id" Int, "backend_id" Int, "name" Bytes, "state" Text, "since" Int]
        references [0 => BLOBS, 1 => BACKENDS] unique [];
    CONTENTS = 12 "contents" (1, 1)
        ["id" Int, "space_id" Int, "sha256" Bytes, "length" Int, "kind" Text, "depth" Int, "md5" Bytes,
         "crc32" Int, "crc32c" Int, "crc64nvme" Int, "sha1" Bytes, "created" Int, "blob_id" Int,
         "blob_offset" Int, "stored_length" Int, "coding" Text, "key_wrapped" Bytes, "key_id" Int, "bytes" Bytes]
        references [1 => SPACES, 12 => BLOBS] unique [[1, 2, 3]];
    EXTENTS = 13 "extents" (1, 2)
        ["content_id" Int, "ordinal" Int, "start" Int, "length" Int, "child_id" Int, "child_offset" Int,
         "sender" Int]
        references [0 => CONTENTS, 4 => CONTENTS] unique [];
    OBJECTS = 14 "objects" (2, 2)
        ["bucket_id" Int, "key" Bytes, "uid" Int, "ord" Int, "kind" Text, "is_null" Int, "null_ord" Int,
         "content_id" Int, "sender" Int, "size" Int, "etag" Bytes, "parts" Int, "mtime" Int, "headers" Text,
         "tags" Text, "acl" Text, "checksum" Text, "sse" Text, "lock_mode" Text, "retain_until" Int,
         "legal_hold" Int]
        references [0 => BUCKETS, 7 => CONTENTS] unique [[2]];
    VERSIONS = 15 "versions" (3, 3)
        ["bucket_id" Int, "key" Bytes, "ord" Int, "uid" Int, "kind" Text, "is_null" Int, "content_id" Int,
         "sender" Int, "size" Int, "etag" Bytes, "parts" Int, "mtime" Int, "headers" Text, "tags" Text,
         "acl" Text, "checksum" Text, "sse" Text, "lock_mode" Text, "retain_until" Int, "legal_hold" Int]
        references [0 => BUCKETS, 6 => CONTENTS] unique [[3]];
    VERSION_PARTS = 16 "version_parts" (1, 2)
        ["uid" Int, "number" Int, "size" Int, "checksum" Text]
        references [] unique [];
    ADOPTED_UIDS = 17 "adopted_uids" (1, 1)
        ["uid" Int, "at" Int]
        references [] unique [];
    ADOPTED_OBJECTS = 18 "adopted_objects" (2, 2)
        ["backend_id" Int, "name" Bytes, "at" Int]
        references [0 => BACKENDS] unique [];
}

/// The table of a number; `None` for one that this osproxy does not know.
pub fn table(id: TableId) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.id == id).copied()
}

/// The rows of one group, each without the columns of the key; none when the group is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The group's key.
    pub key: Vec<Value>,
    /// The other columns of each row, in the order of the primary key.
    pub rows: Vec<Vec<Value>>,
}

impl Group {
    /// All columns of a row.
    pub fn row(&self, index: usize) -> impl Iterator<Item = &Value> {
        self.key
            .iter()
            .chain(self.rows.get(index).into_iter().flatten())
    }
}

impl Texts {
    fn of(table: &Table) -> Self {
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let all = names.join(", ");
        let primary = names[..table.primary].join(", ");
        let select = format!("SELECT {all} FROM {}", table.name);
        let equal = |count: usize| {
            let mut text = String::new();
            for (index, name) in names[..count].iter().enumerate() {
                let and = if index == 0 { "" } else { " AND " };
                let _ = write!(text, "{and}{name} = ${}", index + 1);
            }
            text
        };
        let after = (0..table.primary).map(|count| {
            let and = if count == 0 { "" } else { " AND " };
            format!(
                "{select} WHERE {}{and}{} > ${} ORDER BY {primary} LIMIT ${}",
                equal(count),
                names[count],
                count + 1,
                count + 2
            )
        });
        let numbers: Vec<String> = (1..=names.len())
            .map(|number| format!("${number}"))
            .collect();
        Self {
            group: format!("{select} WHERE {} ORDER BY {primary}", equal(table.group)),
            after: after.collect(),
            first: format!("{select} ORDER BY {primary} LIMIT $1"),
            insert: format!(
                "INSERT INTO {} ({all}) VALUES ({}) ON CONFLICT ({primary}) DO NOTHING",
                table.name,
                numbers.join(", ")
            ),
            link: format!(
                "UPDATE {} SET {} = $1 WHERE {} = $2",
                table.name,
                names[table.itself().unwrap_or_default()],
                names[0]
            ),
        }
    }
}

impl Table {
    fn texts(&'static self) -> &'static Texts {
        &self.texts
    }

    fn row(&self, row: &Row<'_>) -> Result<Vec<Value>, Fault> {
        let value = |(column, (_, kind)): (usize, &(&str, Type))| {
            Ok(match kind {
                Type::Int => row.opt_int(column)?.map(Value::Int),
                Type::Text => row
                    .opt_str(column)?
                    .map(|text| Value::Text(text.to_owned())),
                Type::Bytes => row
                    .opt_bytes(column)?
                    .map(|bytes| Value::Bytes(bytes.to_vec())),
            }
            .unwrap_or(Value::Null))
        };
        self.columns.iter().enumerate().map(value).collect()
    }

    /// The rows of a group as they are now.
    pub async fn read(
        &'static self,
        session: &mut Session,
        key: Vec<Value>,
    ) -> Result<Group, Fault> {
        let params: Vec<_> = key.iter().map(|value| value.param(Type::Int)).collect();
        let rows = session
            .query(&self.texts().group, &params, |row| {
                Ok(self.row(row)?.split_off(self.group))
            })
            .await?;
        Ok(Group { key, rows })
    }

    /// Rows after the one whose primary key is `after`, in order, about `limit`; none at the end.
    pub async fn page(
        &'static self,
        session: &mut Session,
        after: Option<&[Value]>,
        limit: usize,
    ) -> Result<Vec<Vec<Value>>, Fault> {
        let limit = Param::from(limit as i64);
        let Some(after) = after else {
            let sql = &self.texts().first;
            return session.query(sql, &[limit], |row| self.row(row)).await;
        };
        // First what shares most of the key, so that each statement is one range of the index.
        for (count, sql) in self.texts().after.iter().enumerate().rev() {
            let mut params: Vec<_> = after[..=count]
                .iter()
                .map(|value| value.param(Type::Int))
                .collect();
            params.push(limit);
            let rows = session.query(sql, &params, |row| self.row(row)).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    /// Inserts the rows of a group, unless they are there.
    pub async fn insert(&'static self, session: &mut Session, group: &Group) -> Result<(), Fault> {
        for index in 0..group.rows.len() {
            let params: Vec<_> = group
                .row(index)
                .zip(self.columns)
                .map(|(value, (_, kind))| value.param(*kind))
                .collect();
            session.execute(&self.texts().insert, &params).await?;
        }
        Ok(())
    }

    /// The column that refers to rows of the table itself: it can only be set once they are all there.
    pub fn itself(&self) -> Option<usize> {
        let mut references = self.references.iter();
        let itself = references.find(|reference| reference.table == self.id);
        itself.map(|reference| reference.column)
    }

    /// Sets the column that refers to the table itself, in the row of a group that was inserted without it.
    pub async fn link(&'static self, session: &mut Session, group: &Group) -> Result<(), Fault> {
        let Some(value) = self.itself().and_then(|column| group.row(0).nth(column)) else {
            return Ok(());
        };
        let mut params = vec![value.param(Type::Int)];
        params.extend(group.key.iter().map(|value| value.param(Type::Int)));
        session.execute(&self.texts().link, &params).await
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(column, _)| *column == name)
    }

    /// Whether `row` has the columns of this table, each of its type.
    pub fn takes(&self, group: &Group) -> bool {
        let fits = |(value, (_, kind)): (&Value, &(&str, Type))| {
            matches!(
                (value, kind),
                (Value::Null, _)
                    | (Value::Int(_), Type::Int)
                    | (Value::Text(_), Type::Text)
                    | (Value::Bytes(_), Type::Bytes)
            )
        };
        group.key.len() == self.group
            && group.key.iter().zip(self.columns).all(fits)
            && group.rows.iter().all(|row| {
                row.len() == self.columns.len() - self.group
                    && row.iter().zip(&self.columns[self.group..]).all(fits)
            })
    }
}

impl Value {
    fn param(&self, kind: Type) -> Param<'_> {
        match (self, kind) {
            (Self::Int(value), _) => Param::from(*value),
            (Self::Text(value), _) => Param::from(value.as_str()),
            (Self::Bytes(value), _) => Param::from(value.as_slice()),
            (Self::Null, Type::Int) => Param::Int(None),
            (Self::Null, Type::Text) => Param::Text(None),
            (Self::Null, Type::Bytes) => Param::Bytes(None),
        }
    }

    /// The integer, if it is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Appends the stored form.
    pub fn encode(&self, into: &mut Vec<u8>) {
        encode(self.param(Type::Int), into);
    }

    /// Takes a value off the front of its stored form; `None` when there is none.
    pub fn decode(from: &mut &[u8]) -> Option<Self> {
        let (tag, rest) = from.split_first()?;
        let (value, rest) = match tag {
            0 => (Self::Null, rest),
            1 => {
                let (bytes, rest) = rest.split_first_chunk()?;
                (Self::Int(i64::from_be_bytes(*bytes)), rest)
            }
            2 | 3 => {
                let (length, rest) = rest.split_first_chunk()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (bytes, rest) = rest.split_at_checked(length)?;
                let value = match tag {
                    2 => Self::Text(String::from_utf8(bytes.to_vec()).ok()?),
                    _ => Self::Bytes(bytes.to_vec()),
                };
                (value, rest)
            }
            _ => return None,
        };
        *from = rest;
        Some(value)
    }
}

fn encode(param: Param<'_>, into: &mut Vec<u8>) {
    let mut bytes = |tag: u8, bytes: &[u8]| {
        into.push(tag);
        into.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        into.extend_from_slice(bytes);
    };
    match param {
        Param::Int(Some(value)) => {
            into.push(1);
            into.extend_from_slice(&value.to_be_bytes());
        }
        Param::Text(Some(text)) => bytes(2, text.as_bytes()),
        Param::Bytes(Some(value)) => bytes(3, value),
        Param::Int(None) | Param::Text(None) | Param::Bytes(None) => into.push(0),
    }
}

/// The stored form of a change: which group it was.
pub(super) fn encode_change(table: &Table, key: &[Param<'_>]) -> Vec<u8> {
    debug_assert_eq!(key.len(), table.group, "{}", table.name);
    let mut entry = Vec::with_capacity(24);
    entry.push(table.id.0);
    for param in key {
        encode(*param, &mut entry);
    }
    entry
}

/// The groups that a stored list of changes names.
pub fn decode_changes(mut entries: &[u8]) -> Result<Vec<(&'static Table, Vec<Value>)>, Fault> {
    let corrupt = || Fault::new(Kind::Corrupt, "decode changes");
    let mut changes = Vec::new();
    while let Some((id, rest)) = entries.split_first() {
        let table = table(TableId(*id)).ok_or_else(corrupt)?;
        entries = rest;
        let key: Option<Vec<Value>> = (0..table.group)
            .map(|_| Value::decode(&mut entries))
            .collect();
        changes.push((table, key.ok_or_else(corrupt)?));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Int),
            ".{0,20}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn values_come_back_and_a_cut_one_does_not(values in proptest::collection::vec(value(), 1..5)) {
            let mut stored = Vec::new();
            for value in &values {
                value.encode(&mut stored);
            }
            let mut rest = stored.as_slice();
            for value in &values {
                prop_assert_eq!(Value::decode(&mut rest), Some(value.clone()));
            }
            prop_assert!(rest.is_empty());
            let mut cut = &stored[..stored.len() - 1];
            let read = values.iter().filter(|_| Value::decode(&mut cut).is_some()).count();
            prop_assert!(read < values.len());
        }
    }

    /// Tables that manifests leave out; the module says why.
    const LEFT_OUT: &[&str] = &[
        "changes",
        "event_targets",
        "events",
        "fences",
        "findings",
        "install",
        "job_pauses",
        "jobs",
        "link_keys",
        "manifest_parts",
        "manifest_writer",
        "moves",
        "nodes",
        "recovery",
        "released",
        "sqlite_sequence",
        "unfinished_copy",
        "upload_parts",
        "uploads",
        "usage",
        "workers",
    ];

    #[test]
    fn every_table_and_column_of_the_schema_is_kept_or_left_out_on_purpose() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let metrics = crate::telemetry::Metrics::new();
        let store = crate::meta::MetaStore::open(&path, crate::meta::Durability::Relaxed, metrics);
        drop(store.unwrap());
        let database = rusqlite::Connection::open(&path).unwrap();
        let list = |sql: &str| -> Vec<String> {
            let mut statement = database.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        for name in list("SELECT name FROM sqlite_master WHERE type = 'table'") {
            let kept = TABLES.iter().find(|table| table.name == name);
            assert_ne!(
                kept.is_some(),
                LEFT_OUT.contains(&name.as_str()),
                "{name}: in the catalog, or else in LEFT_OUT with a reason"
            );
            let Some(table) = kept else { continue };
            let columns = list(&format!(
                "SELECT name FROM pragma_table_info('{name}') ORDER BY name"
            ));
            let mut ours: Vec<&str> = table.columns.iter().map(|(column, _)| *column).collect();
            ours.sort_unstable();
            assert_eq!(columns, ours, "{name}");
        }
    }

    /// What is written without a note is missing in a recovered database.
    #[test]
    fn whoever_writes_a_table_notes_the_change() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/meta");
        let mut writers = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for function in code
                .split("\npub async fn ")
                .flat_map(|part| part.split("\nasync fn "))
            {
                for table in TABLES {
                    let writes = ["INSERT INTO", "UPDATE", "DELETE FROM"].iter().any(|verb| {
                        let statement = format!("\"{verb} {}", table.name);
                        function.match_indices(&statement).any(|(at, _)| {
                            function[at + statement.len()..].starts_with([' ', '\n'])
                        })
                    });
                    if !writes {
                        continue;
                    }
                    writers += 1;
                    let constant = table.name.to_uppercase();
                    let notes = [format!("&{constant},"), format!("catalog::{constant},")];
                    assert!(
                        notes.iter().any(|note| function.contains(note)),
                        "{}: `{}` writes {} without session.changed(&{constant}, ...)",
                        path.display(),
                        function.split('(').next().unwrap_or_default(),
                        table.name
                    );
                }
            }
        }
        assert!(writers > 30, "{writers}");
    }

    #[test]
    fn tables_refer_only_to_those_before_them() {
        for (place, table) in TABLES.iter().enumerate() {
            assert!(table.group <= table.primary && table.primary <= table.columns.len());
            for reference in table.references {
                let to = TABLES
                    .iter()
                    .position(|to| to.id == reference.table)
                    .unwrap();
                assert!(to <= place, "{}", table.name);
                assert_eq!(TABLES[to].group, 1);
            }
        }
    }
}
