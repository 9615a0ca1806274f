//! `run.json`: how a command finds the server that runs on its data directory, and proves that it may ask.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

const NAME: &str = "run.json";

/// What opens `/v1`: 64 hexadecimal digits, drawn at every start. Prints as `***`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A new token.
    pub fn draw() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(hex::encode(bytes)))
    }

    /// Whether `given` is this token, in a time that tells nothing of it.
    pub(super) fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// The digits.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A server that runs, as it says of itself in its data directory. The file is readable by its owner alone;
/// one that a killed server left behind is told by the lock on the directory, which nobody holds then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFile {
    /// Its process.
    pub pid: u32,
    /// Where its admin listener is.
    pub admin: SocketAddr,
    /// What opens `/v1` there.
    pub token: Token,
}

impl RunFile {
    /// Writes the file, in one step.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let unfinished = dir.join("run.json.tmp");
        remove(&unfinished)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(&unfinished, path(dir))
    }

    /// Reads the file, `None` when there is none.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path(dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the file, if it is there.
    pub fn remove(dir: &Path) -> io::Result<()> {
        remove(&path(dir))
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_for_its_owner_and_hides_its_token_from_logs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RunFile::read(dir.path()).unwrap().is_none());
        let written = RunFile {
            pid: 7,
            admin: SocketAddr::from(([127, 0, 0, 1], 9001)),
            token: Token::draw().unwrap(),
        };
        written.write(dir.path()).unwrap();
        written.write(dir.path()).unwrap();
        let mode = std::fs::metadata(path(dir.path())).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let read = RunFile::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.pid, read.admin), (written.pid, written.admin));
        assert!(read.token.is(written.token.reveal()));
        assert!(!format!("{read:?}").contains(read.token.reveal()));
        RunFile::remove(dir.path()).unwrap();
        RunFile::remove(dir.path()).unwrap();
        assert!(RunFile::read(dir.path()).unwrap().is_none());
    }

    #[test]
    fn another_token_a_part_of_it_or_none_is_refused() {
        let token = Token::draw().unwrap();
        assert!(!token.is(Token::draw().unwrap().reveal()));
        assert!(!token.is(&token.reveal()[1..]));
        assert!(!token.is(""));
    }
}
