//! Moving an install's rows to another database: which databases are meant, and who else must stay away.

use std::path::{Path, PathBuf};

use super::Error;
use super::directory::{self, Held};
use super::stores::durability;
use crate::config::Config;
use crate::keys::Secret;
use crate::meta::copy::{self, CopyReport, Place, Progress};
use crate::model::clock::Clock;

/// A database, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// SQLite, in this file of a data directory.
    Sqlite(PathBuf),
    /// A server's, by its URL.
    Server(Secret),
}

impl Database {
    /// Reads a data directory, `sqlite:FILE`, `postgres://...` or `mysql://...`. The error says what was expected; it
    /// does not repeat the text, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return match path.is_empty() {
                true => Err("expected a file after sqlite:"),
                false => Ok(Self::Sqlite(Self::file(Path::new(path)))),
            };
        }
        match text.split_once("://") {
            None if text.is_empty() => Err("expected a database, found none"),
            None => Ok(Self::Sqlite(directory::database(Path::new(text)))),
            Some(("postgres" | "postgresql" | "mysql" | "mariadb", _)) => {
                Ok(Self::Server(Secret::new(text.to_owned())))
            }
            Some(_) => Err("expected a data directory, sqlite:FILE, postgres://... or mysql://..."),
        }
    }

    fn file(path: &Path) -> PathBuf {
        match path.is_dir() {
            true => directory::database(path),
            false => path.to_owned(),
        }
    }

    fn place(&self) -> Place {
        match self {
            Self::Sqlite(path) => Place::Sqlite(path.clone()),
            Self::Server(url) => Place::Server(url.reveal().to_owned()),
        }
    }

    /// The directory that a process which uses the database holds.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Server(_) => None,
            Self::Sqlite(path) => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => Some(parent),
                _ => Some(Path::new(".")),
            },
        }
    }
}

/// Copies all rows of an install into an empty database, and verifies them. Nobody may serve either; a copy that was
/// interrupted leaves a database that nothing opens but this.
pub async fn copy_meta(
    config: &Config,
    from: &Database,
    to: &Database,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<CopyReport, Error> {
    let mut held = Vec::new();
    if let (Some(dir), Database::Sqlite(path)) = (from.directory(), from) {
        if !path.exists() {
            return Err(Error::NoInstall(dir.to_owned()));
        }
        held.push(Held::take(dir)?);
    }
    if let (Some(dir), Database::Sqlite(path)) = (to.directory(), to) {
        held.push(Held::create(dir)?);
        directory::make_private(path)?;
    }
    let durability = durability(config);
    let (from, to) = (from.place(), to.place());
    let report = copy::copy(&from, &to, durability, &Clock::System, progress).await?;
    drop(held);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_named_by_directory_file_or_url() {
        let sqlite = |path: &str| Ok(Database::Sqlite(PathBuf::from(path)));
        assert_eq!(Database::parse("/data"), sqlite("/data/meta.db"));
        assert_eq!(Database::parse("sqlite:/a/other.db"), sqlite("/a/other.db"));
        let dir = tempfile::tempdir().unwrap();
        let text = format!("sqlite:{}", dir.path().display());
        assert_eq!(
            Database::parse(&text),
            Ok(Database::Sqlite(dir.path().join("meta.db")))
        );
        for url in ["postgres://u:p@h/d", "mariadb://h/d", "mysql://h/d"] {
            let database = Database::parse(url).unwrap();
            assert_eq!(database, Database::Server(Secret::new(url.to_owned())));
            assert!(!format!("{database:?}").contains("u:p"));
        }
        for text in ["", "sqlite:", "oracle://h/d"] {
            assert!(Database::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_directory_of_a_bare_file_is_the_present_one() {
        let database = Database::Sqlite(PathBuf::from("meta.db"));
        assert_eq!(database.directory(), Some(Path::new(".")));
    }
}
