//! The master key, and the secrets it seals.
//!
//! The secret halves of access keys must be known in clear to verify signatures, so they are kept encrypted:
//! a copy of the database alone opens nothing. A sealed secret is bound to its access key's row id, which keeps
//! it from being moved to another key's row; a sealed version of a wrapping key is bound to that version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes_gcm::{Aes256Gcm, KeyInit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::files::{self, FileError};
use super::seal::{self, KEY_BYTES, fill};
use crate::meta::MetaStore;
use crate::meta::identities::{self, KeyRow};
use crate::meta::install;
use crate::meta::wrap_keys::{self, VersionRow};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{KeyVersionId, SenderId, TenantId, WrapKeyId};

/// Versions of wrapping keys that a master key is tried on.
const TRIED: usize = 16;
/// What a master key seals to be known by.
const CHECK: &[u8] = b"osproxy master key";
/// The master key's file in the data directory.
const FILE: &str = "master.key";
/// Where the master key comes from instead of the file.
const VARIABLE: &str = "OSPROXY_MASTER_KEY";

/// A text that prints as `***` and is wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    /// Takes a time that tells only whether the lengths are equal.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why there is no master key to work with. The texts are for an operator and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// It cannot be read; names where it came from.
    #[error("{0}: expected a master key of 32 bytes, as 64 hexadecimal digits or as Base64")]
    Text(String),
    /// Something is sealed and the key is gone.
    #[error(
        "{} is missing, and the secrets in the database cannot be opened without it; restore the file, copy it from another node, or set OSPROXY_MASTER_KEY",
        .0.display()
    )]
    Missing(PathBuf),
    /// What is sealed was sealed by another one.
    #[error(
        "the master key is not the one that sealed the secrets in the database; restore master.key in the data directory or set OSPROXY_MASTER_KEY"
    )]
    Wrong,
    /// Its file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Whether a master key may be made when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nothing is sealed yet: make one.
    Create,
    /// Something is sealed, and another key would not open it.
    Refuse,
}

/// What seals the secrets in the database. Cheap to clone.
#[derive(Clone)]
pub struct MasterKey {
    cipher: Arc<Aes256Gcm>,
    /// What other keys are derived from.
    key: Arc<Zeroizing<[u8; KEY_BYTES]>>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

impl MasterKey {
    /// The key `given` by the environment, else the one in the data directory `dir`; checked against what the
    /// install's key has sealed. While there is nothing, a missing key is made: it is on stable storage, readable
    /// by its owner alone, when this returns. Of several processes that begin one install, each with a key of its
    /// own, one wins; the others are refused. A key made for a server's database is said in the log: its nodes may be
    /// many, and their directories may go with them.
    pub async fn load(
        dir: &Path,
        given: Option<&Secret>,
        meta: &MetaStore,
    ) -> Result<Self, MasterKeyError> {
        let (keys, versions, check) = meta
            .scan("list keys", |session| {
                Box::pin(async move {
                    let keys = identities::keys(session).await?;
                    let versions = wrap_keys::some_versions(session, TRIED).await?;
                    let check = install::master_check(session).await?;
                    Ok::<_, Fault>((keys, versions, check))
                })
            })
            .await?;
        let is_used = check.is_some() || !keys.is_empty() || !versions.is_empty();
        let missing = match is_used {
            true => Missing::Refuse,
            false => Missing::Create,
        };
        let (master_key, made) = Self::find(dir, given, missing)?;
        let opens = |key: &KeyRow| master_key.open(key.id, &key.secret_sealed).is_ok();
        let opens_version = |row: &VersionRow| {
            let opened = master_key.open_version(&VersionName::of(row), &row.sealed);
            opened.is_ok()
        };
        // Installs from before the check are known by what else is sealed.
        let is_known = check.is_some()
            || !is_used
            || keys.iter().any(opens)
            || versions.iter().any(opens_version);
        if !is_known || !master_key.is_recorded(meta).await? {
            if let Some(path) = made {
                // Another process was first, and this key sealed nothing.
                let _ = std::fs::remove_file(&path);
                return Err(MasterKeyError::Missing(path));
            }
            return Err(MasterKeyError::Wrong);
        }
        if let Some(path) = made.filter(|_| meta.is_shared()) {
            tracing::warn!(
                file = %path.display(),
                "master key made, in this node's data directory alone: keep it, and give it to every other node, as \
                 OSPROXY_MASTER_KEY or as the same file; without it nothing in the database opens"
            );
        }
        Ok(master_key)
    }

    /// Whether this is the install's key; where none is recorded, it becomes that.
    pub async fn is_recorded(&self, meta: &MetaStore) -> Result<bool, Fault> {
        let own = seal::seal(&self.cipher, CHECK, CHECK)?;
        let recorded = meta
            .transact("record master key", move |session| {
                let own = own.clone();
                Box::pin(async move {
                    if let Some(check) = install::master_check(session).await? {
                        return Ok(check);
                    }
                    install::record_master_check(session, &own).await?;
                    Ok::<_, Fault>(own)
                })
            })
            .await?;
        Ok(seal::open(&self.cipher, CHECK, &recorded).is_some())
    }

    /// The key `given` by the environment, else the one in the data directory `dir`; it is neither made nor
    /// checked. For a database that has to be rebuilt with it.
    pub fn require(dir: &Path, given: Option<&Secret>) -> Result<Self, MasterKeyError> {
        Self::find(dir, given, Missing::Refuse).map(|(key, _)| key)
    }

    /// A key for another purpose, which says nothing about this one: HMAC-SHA-256 of `purpose`.
    pub fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice())
            .expect("HMAC takes keys of any length");
        mac.update(purpose);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// The key, and its file where that was made just now.
    fn find(
        dir: &Path,
        given: Option<&Secret>,
        missing: Missing,
    ) -> Result<(Self, Option<PathBuf>), MasterKeyError> {
        if let Some(text) = given {
            let key = parse(text.reveal());
            return key
                .map(|key| (key, None))
                .ok_or_else(|| MasterKeyError::Text(VARIABLE.to_owned()));
        }
        let path = dir.join(FILE);
        match files::read(&path)? {
            Some(text) => {
                let key = parse(text.trim());
                key.map(|key| (key, None))
                    .ok_or_else(|| MasterKeyError::Text(path.display().to_string()))
            }
            None if missing == Missing::Refuse => Err(MasterKeyError::Missing(path)),
            None => {
                let mut key = Zeroizing::new([0; KEY_BYTES]);
                fill(key.as_mut())?;
                let text = Zeroizing::new(hex::encode(*key) + "\n");
                files::create(&path, &text)?;
                Ok((Self::new(&key), Some(path)))
            }
        }
    }

    fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self {
            cipher: Arc::new(Aes256Gcm::new(key.into())),
            key: Arc::new(Zeroizing::new(*key)),
        }
    }

    /// Seals the secret of the access key whose row is `id`.
    pub fn seal(&self, id: SenderId, secret: &Secret) -> Result<Vec<u8>, Fault> {
        seal::seal(&self.cipher, &bound_to(id), secret.reveal().as_bytes())
    }

    /// Opens what [`MasterKey::seal`] made for the same `id`. [`Kind::Corrupt`] when it was sealed by another
    /// master key or for another access key, or was changed since.
    pub fn open(&self, id: SenderId, sealed: &[u8]) -> Result<Secret, Fault> {
        let corrupt = || {
            Fault::new(Kind::Corrupt, "open secret").context(format_args!(
                "access key row {id}: sealed by another master key, or damaged"
            ))
        };
        let text = seal::open(&self.cipher, &bound_to(id), sealed).ok_or_else(corrupt)?;
        let text = std::str::from_utf8(&text).map_err(|_| corrupt())?;
        Ok(Secret::new(text.to_owned()))
    }

    /// Seals the key of links whose row is `id`.
    pub fn seal_link_key(&self, id: i64, key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, Fault> {
        seal::seal(&self.cipher, &bound_to_link_key(id), key)
    }

    /// Opens what [`MasterKey::seal_link_key`] made for the same `id`. [`Kind::Corrupt`] as for
    /// [`MasterKey::open`].
    pub fn open_link_key(&self, id: i64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        seal::open(&self.cipher, &bound_to_link_key(id), sealed).ok_or_else(|| {
            Fault::new(Kind::Corrupt, "open link key").context(format_args!(
                "link key row {id}: sealed by another master key, or damaged"
            ))
        })
    }

    /// Seals a version of a wrapping key.
    pub(super) fn seal_version(
        &self,
        version: &VersionName,
        key: &[u8; KEY_BYTES],
    ) -> Result<Vec<u8>, Fault> {
        seal::seal(&self.cipher, &version.bound(), key)
    }

    /// Opens what [`MasterKey::seal_version`] made for the same version.
    pub(super) fn open_version(
        &self,
        version: &VersionName,
        sealed: &[u8],
    ) -> Result<Aes256Gcm, Fault> {
        let key = seal::open(&self.cipher, &version.bound(), sealed);
        key.and_then(|key| Aes256Gcm::new_from_slice(&key).ok())
            .ok_or_else(|| {
                Fault::new(Kind::Corrupt, "open wrapping key").context(format_args!(
                    "version {}: sealed by another master key, or damaged",
                    version.id
                ))
            })
    }
}

fn bound_to(id: SenderId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// Longer than a row id, and shorter than what a version is bound to.
fn bound_to_link_key(id: i64) -> Vec<u8> {
    [&b"link key"[..], &id.to_be_bytes()].concat()
}

/// What a sealed version is bound to.
pub(super) struct VersionName {
    pub(super) id: KeyVersionId,
    pub(super) key: WrapKeyId,
    pub(super) tenant: TenantId,
}

impl VersionName {
    pub(super) fn of(row: &VersionRow) -> Self {
        Self {
            id: row.id,
            key: row.key,
            tenant: row.tenant,
        }
    }

    /// Longer than a row id, so that a secret's seal and a version's cannot stand for each other.
    fn bound(&self) -> Vec<u8> {
        [
            &b"wrapping key"[..],
            &self.tenant.0.to_be_bytes(),
            &self.key.0.to_be_bytes(),
            &self.id.0.to_be_bytes(),
        ]
        .concat()
    }
}

/// 32 bytes as 64 hexadecimal digits or as Base64.
fn parse(text: &str) -> Option<MasterKey> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if hex::decode_to_slice(text, key.as_mut()).is_err() {
        let bytes = Zeroizing::new(BASE64.decode(text).ok()?);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.copy_from_slice(&bytes);
    }
    Some(MasterKey::new(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key(fill: u8) -> MasterKey {
        MasterKey::new(&[fill; KEY_BYTES])
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_sealed_secret_opens_and_no_two_seals_are_equal() {
        let first = key(1).seal(SenderId(7), &secret("hush")).unwrap();
        let second = key(1).seal(SenderId(7), &secret("hush")).unwrap();
        assert_ne!(first, second);
        assert_eq!(key(1).open(SenderId(7), &first).unwrap().reveal(), "hush");
        assert!(!first.windows(4).any(|window| window == b"hush"));
    }

    #[test]
    fn any_changed_or_missing_byte_is_corrupt() {
        let sealed = key(1).seal(SenderId(7), &secret("hush")).unwrap();
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            let fault = key(1).open(SenderId(7), &damaged).unwrap_err();
            assert_eq!(fault.kind(), Kind::Corrupt, "byte {place}");
            let fault = key(1).open(SenderId(7), &sealed[..place]).unwrap_err();
            assert_eq!(fault.kind(), Kind::Corrupt, "{place} bytes");
        }
    }

    #[test]
    fn another_master_key_or_another_row_opens_nothing() {
        let sealed = key(1).seal(SenderId(7), &secret("hush")).unwrap();
        assert!(key(2).open(SenderId(7), &sealed).is_err());
        assert!(key(1).open(SenderId(8), &sealed).is_err());
    }

    #[test]
    fn the_file_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (made, _) = MasterKey::find(dir.path(), None, Missing::Create).unwrap();
        let sealed = made.seal(SenderId(1), &secret("hush")).unwrap();
        let mode = std::fs::metadata(dir.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let (again, _) = MasterKey::find(dir.path(), None, Missing::Refuse).unwrap();
        assert_eq!(again.open(SenderId(1), &sealed).unwrap().reveal(), "hush");
    }

    #[test]
    fn a_missing_file_is_not_replaced_when_something_may_be_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let refused = MasterKey::find(dir.path(), None, Missing::Refuse).unwrap_err();
        assert!(matches!(refused, MasterKeyError::Missing(_)), "{refused}");
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn a_key_of_the_wrong_form_is_refused_and_names_its_source() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "short", &"0".repeat(63), &"zz".repeat(32), "AAAA"] {
            let given = secret(text);
            let refused = MasterKey::find(dir.path(), Some(&given), Missing::Create).unwrap_err();
            let message = refused.to_string();
            assert!(message.contains(VARIABLE), "{message}");
            assert!(text.is_empty() || !message.contains(text), "{message}");
        }
        std::fs::write(dir.path().join(FILE), "nonsense").unwrap();
        let refused = MasterKey::find(dir.path(), None, Missing::Create).unwrap_err();
        assert!(refused.to_string().contains(FILE), "{refused}");
    }

    #[test]
    fn hexadecimal_and_base64_name_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let load = |text: String| {
            MasterKey::find(dir.path(), Some(&Secret::new(text)), Missing::Refuse)
                .unwrap()
                .0
        };
        let sealed = load("ab".repeat(32))
            .seal(SenderId(1), &secret("hush"))
            .unwrap();
        let opened = load(BASE64.encode([0xab; 32])).open(SenderId(1), &sealed);
        assert_eq!(opened.unwrap().reveal(), "hush");
    }

    #[test]
    fn a_secret_prints_as_stars() {
        let shown = format!("{:?} {} {:?}", secret("hush"), secret("hush"), key(3));
        assert!(!shown.contains("hush") && shown.contains("***"), "{shown}");
        assert_eq!(secret("a"), secret("a"));
        assert_ne!(secret("a"), secret("b"));
    }
}
