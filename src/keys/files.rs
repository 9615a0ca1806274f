//! Small files of the data directory that only its owner may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file of the data directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The text of a file, `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(path, error)),
    }
}

/// Writes a file in one step: afterwards it is whole and on stable storage, its directory entry included, and
/// after a crash it is whole or not there.
pub fn create(path: &Path, text: &str) -> Result<(), FileError> {
    let unfinished = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        // One that a crash left behind may have another owner's mode.
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| refused(&unfinished, error))?;
    rename(&unfinished, path)
}

/// Renames a file within its directory; durable when this returns.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    let run = || -> io::Result<()> {
        std::fs::rename(from, to)?;
        match to.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    run().map_err(|error| refused(to, error))
}

fn refused(path: &Path, source: io::Error) -> FileError {
    FileError {
        path: path.to_owned(),
        source,
    }
}
