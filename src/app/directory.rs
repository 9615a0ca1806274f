//! The data directory and its lock.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Error;

const LOCK: &str = "lock";
const DATABASE: &str = "meta.db";

/// The directory of an install, held by this process alone for as long as this value lives. The lock is the
/// kernel's: it ends with the process, however that ends.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    /// Takes the directory, and makes it for its owner alone if it is not there.
    pub(super) fn create(dir: &Path) -> Result<Self, Error> {
        let at = |source| Error::Io {
            path: dir.to_owned(),
            source,
        };
        if !dir.exists() {
            make(dir).map_err(at)?;
        }
        let held = Self::take(dir)?;
        if let Err(error) = restrict(&held.path) {
            tracing::warn!(%error, dir = %held.path.display(), "data directory may be open to others");
        }
        Ok(held)
    }

    /// Takes the directory of an install that exists.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        require(dir)?;
        Self::take(dir)
    }

    /// Takes a directory that exists.
    pub(super) fn take(dir: &Path) -> Result<Self, Error> {
        let dir = dir.canonicalize().map_err(|source| Error::Io {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join(LOCK);
        let at = |source| Error::Io {
            path: path.clone(),
            source,
        };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Only for the message: a holder that has not written its number yet is as good.
                let _ = lock.read_to_string(&mut text);
                return Err(Error::InUse {
                    dir,
                    pid: text.trim().parse().ok(),
                });
            }
            Err(error) => return Err(at(error.into())),
        }
        let mut write = || -> io::Result<()> {
            lock.set_len(0)?;
            lock.rewind()?;
            lock.write_all(format!("{}\n", std::process::id()).as_bytes())
        };
        write().map_err(at)?;
        Ok(Self {
            path: dir,
            _lock: lock,
        })
    }

    /// The directory, as an absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where the database is in a data directory.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

/// Refuses a directory that holds no install, so that a mistyped one is not made into an empty one.
pub(super) fn require(dir: &Path) -> Result<(), Error> {
    let path = database(dir);
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::NoInstall(dir.to_owned())),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// Makes an empty file for its owner alone, unless it is there. SQLite gives its other files the same mode.
pub(super) fn make_private(path: &Path) -> Result<(), Error> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(Error::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Makes the directory, durably: what is written into it must not be lost with its own entry.
fn make(dir: &Path) -> io::Result<()> {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// Takes the directory away from others than its owner, before the first start writes anything into it.
/// Afterwards its mode is the operator's business.
fn restrict(dir: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if database(dir).exists() {
        return Err(io::Error::other(format!("its mode is {:o}", mode & 0o777)));
    }
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_directory_is_for_its_owner_alone() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("deep/data");
        let held = Held::create(&dir).unwrap();
        assert!(held.path().is_absolute());
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join(LOCK)), 0o600);
    }

    #[test]
    fn a_directory_without_data_is_taken_from_others_and_one_with_data_is_left() {
        let top = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let dir = top.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
            dir
        };
        let (fresh, used) = (open("fresh"), open("used"));
        std::fs::write(database(&used), "").unwrap();
        Held::create(&fresh).unwrap();
        Held::create(&used).unwrap();
        assert_eq!((mode(&fresh), mode(&used)), (0o700, 0o755));
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let top = tempfile::tempdir().unwrap();
        let held = Held::create(top.path()).unwrap();
        match Held::create(top.path()).unwrap_err() {
            Error::InUse { pid, .. } => assert_eq!(pid, Some(std::process::id())),
            error => panic!("{error}"),
        }
        drop(held);
        Held::create(top.path()).unwrap();
    }

    #[test]
    fn a_command_makes_no_install_out_of_a_mistyped_name() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("data");
        let error = Held::open(&dir).unwrap_err();
        assert!(matches!(error, Error::NoInstall(_)), "{error}");
        assert!(!dir.exists());
        let error = Held::open(top.path()).unwrap_err();
        assert!(error.to_string().contains("--data-dir"), "{error}");
        assert!(!top.path().join(LOCK).exists());
    }
}
