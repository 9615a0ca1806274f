//! What differs between the texts of statements: from the common one to that of a server database.
//!
//! The common text is SQLite's, with numbered parameters. It is translated once a statement, on its first use:
//!
//! | common | PostgreSQL | MySQL, MariaDB |
//! |---|---|---|
//! | `$1 ... $1` | as it is | `? ... ?`, the value bound twice |
//! | `/*FOR UPDATE*/` | `FOR UPDATE` | `FOR UPDATE` |
//! | `/*FOR SHARE*/` | `FOR SHARE` | `LOCK IN SHARE MODE` |
//! | `AS INTEGER)` of a cast | `AS BIGINT)` | `AS SIGNED)` |
//! | `ON CONFLICT (a, b) DO NOTHING` | as it is | `ON DUPLICATE KEY UPDATE a = a` |
//! | `ON CONFLICT (...) DO UPDATE SET x = excluded.x` | as it is | `ON DUPLICATE KEY UPDATE x = VALUES(x)` |
//! | the columns and tables `key`, `usage` | as they are | in backticks |

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// A server database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// PostgreSQL and what speaks its protocol.
    Postgres,
    /// MySQL, MariaDB and what speaks their protocol.
    MySql,
}

/// A statement in a dialect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Its text.
    pub(super) text: Arc<str>,
    /// Which parameter, counted from 0, each placeholder stands for; `None`: they are numbered in the text.
    pub(super) order: Option<Vec<usize>>,
}

/// Statements already translated, by their common text.
#[derive(Debug)]
pub(super) struct Translator {
    dialect: Dialect,
    known: RwLock<HashMap<&'static str, Arc<Statement>>>,
}

impl Translator {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            known: RwLock::default(),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn statement(&self, sql: &'static str) -> Arc<Statement> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known.get(sql) {
            return Arc::clone(statement);
        }
        drop(known);
        let statement = self.made(sql);
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(sql, Arc::clone(&statement));
        statement
    }

    /// Translates a text without the locks it asks for, each time anew.
    pub(super) fn without_locks(&self, sql: &str) -> Arc<Statement> {
        self.made(
            &sql.replace("/*FOR UPDATE*/", "")
                .replace("/*FOR SHARE*/", ""),
        )
    }

    /// Translates a text that was made at run time, each time anew.
    pub(super) fn made(&self, sql: &str) -> Arc<Statement> {
        Arc::new(translate(self.dialect, sql))
    }
}

/// Lower-case names that are words of MySQL's own.
const RESERVED: [&str; 2] = ["key", "usage"];

fn translate(dialect: Dialect, sql: &str) -> Statement {
    let sql = match dialect {
        Dialect::Postgres => sql
            .replace("/*FOR UPDATE*/", "FOR UPDATE")
            .replace("/*FOR SHARE*/", "FOR SHARE")
            .replace("AS INTEGER)", "AS BIGINT)"),
        Dialect::MySql => upsert(
            &sql.replace("/*FOR UPDATE*/", "FOR UPDATE")
                .replace("/*FOR SHARE*/", "LOCK IN SHARE MODE")
                .replace("AS INTEGER)", "AS SIGNED)"),
        ),
    };
    match dialect {
        Dialect::Postgres => Statement {
            text: sql.into(),
            order: None,
        },
        Dialect::MySql => positional(&sql),
    }
}

/// Rewrites what follows `ON CONFLICT`.
fn upsert(sql: &str) -> String {
    let Some((before, conflict)) = sql.split_once("ON CONFLICT (") else {
        return sql.to_owned();
    };
    let Some((columns, action)) = conflict.split_once(')') else {
        return sql.to_owned();
    };
    let first = columns.split(',').next().unwrap_or(columns).trim();
    let action = action.trim_start();
    if action.starts_with("DO NOTHING") {
        return format!("{before}ON DUPLICATE KEY UPDATE {first} = {first}");
    }
    let assignments = action.trim_start_matches("DO UPDATE").trim_start();
    let assignments = assignments.trim_start_matches("SET").trim();
    let mut written = String::with_capacity(assignments.len() + 32);
    let mut rest = assignments;
    while let Some((head, tail)) = rest.split_once("excluded.") {
        let end = tail
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(tail.len());
        written.push_str(head);
        written.push_str("VALUES(");
        written.push_str(&tail[..end]);
        written.push(')');
        rest = &tail[end..];
    }
    written.push_str(rest);
    format!("{before}ON DUPLICATE KEY UPDATE {written}")
}

/// Turns numbered parameters into positional ones and quotes names that are words.
fn positional(sql: &str) -> Statement {
    let mut text = String::with_capacity(sql.len() + 16);
    let mut order = Vec::new();
    let mut characters = sql.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                quoted = !quoted;
                text.push(character);
            }
            '$' if !quoted => {
                let mut number = 0;
                while let Some(digit) = characters.peek().and_then(|c| c.to_digit(10)) {
                    number = number * 10 + digit as usize;
                    characters.next();
                }
                order.push(number.saturating_sub(1));
                text.push('?');
            }
            _ if !quoted && (character.is_ascii_alphabetic() || character == '_') => {
                let mut word = String::from(character);
                while let Some(next) =
                    characters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_')
                {
                    word.push(next);
                }
                if RESERVED.contains(&word.as_str()) {
                    text.push('`');
                    text.push_str(&word);
                    text.push('`');
                } else {
                    text.push_str(&word);
                }
            }
            other => text.push(other),
        }
    }
    Statement {
        text: text.into(),
        order: Some(order),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mysql(sql: &str) -> (String, Vec<usize>) {
        let statement = translate(Dialect::MySql, sql);
        (statement.text.to_string(), statement.order.unwrap())
    }

    #[test]
    fn postgres_takes_the_common_text_with_its_locks() {
        let statement = translate(
            Dialect::Postgres,
            "SELECT CAST(SUM(a) AS INTEGER) FROM t WHERE key = $1 AND b = $1 /*FOR UPDATE*/",
        );
        assert_eq!(
            &*statement.text,
            "SELECT CAST(SUM(a) AS BIGINT) FROM t WHERE key = $1 AND b = $1 FOR UPDATE"
        );
        assert_eq!(statement.order, None);
    }

    #[test]
    fn parameters_become_positional_and_words_are_quoted() {
        let (text, order) =
            mysql("SELECT key FROM usage WHERE a = $2 AND b > $1 AND c = '$3 key' OR $2 IS NULL");
        assert_eq!(
            text,
            "SELECT `key` FROM `usage` WHERE a = ? AND b > ? AND c = '$3 key' OR ? IS NULL"
        );
        assert_eq!(order, [1, 0, 1]);
        assert_eq!(
            mysql("SELECT 1 /*FOR SHARE*/").0,
            "SELECT 1 LOCK IN SHARE MODE"
        );
    }

    #[test]
    fn upserts_are_rewritten() {
        let (text, _) = mysql("INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a, b) DO NOTHING");
        assert_eq!(
            text,
            "INSERT INTO t (a, b) VALUES (?, ?) ON DUPLICATE KEY UPDATE a = a"
        );
        let (text, _) = mysql(
            "INSERT INTO usage (a, n) VALUES ($1, $2)
             ON CONFLICT (a) DO UPDATE SET n = usage.n + excluded.n, b = excluded.b",
        );
        assert!(
            text.ends_with("ON DUPLICATE KEY UPDATE n = `usage`.n + VALUES(n), b = VALUES(b)"),
            "{text}"
        );
    }
}
