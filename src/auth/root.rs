//! The first identity of an install: the tenant `default` and its root key.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{DEFAULT_TENANT, Pair, Refused, Registry};
use crate::keys::{MasterKey, Secret, files};
use crate::model::ids::UidGenerator;

/// The root key's file in the data directory, in the form of an AWS credentials file.
const FILE: &str = "root-credentials";
/// The same file while the key's row may not be written yet.
const UNFINISHED: &str = "root-credentials.new";

/// Where the root key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootKey {
    /// The environment gave it.
    Given,
    /// It was made by this start, and is in this file.
    Created(PathBuf),
    /// An earlier start made it, and it is in this file.
    Kept(PathBuf),
    /// The install has keys, and none is known as root.
    None,
}

/// Sees to it that the tenant `default` exists, and in an install without keys a root key too: the `given`
/// pair, which replaces the secret of a key of that name, or else one that is made once and written to a file
/// that only its owner may read.
///
/// A crash in between is made good by the next call: the file is finished under its name only after the row is
/// durable, and an unfinished one names the key to make.
pub async fn ensure_root(
    registry: &Registry,
    master_key: &MasterKey,
    uids: &UidGenerator,
    dir: &Path,
    given: Option<Pair>,
) -> Result<RootKey, Refused> {
    registry.ensure_tenant(DEFAULT_TENANT, uids).await?;
    if let Some(pair) = given {
        let put = registry.put_key(DEFAULT_TENANT, pair, uids, master_key);
        return match put.await {
            // An operator's word counts for more than the environment's, and is no reason not to start.
            Err(Refused::KeyDisabled(access_key)) => {
                tracing::warn!(access_key, "the root key is disabled");
                Ok(RootKey::Given)
            }
            other => other.map(|()| RootKey::Given),
        };
    }
    let (path, unfinished) = (dir.join(FILE), dir.join(UNFINISHED));
    let begun = read(&unfinished)?;
    if begun.is_none() && path.exists() {
        return Ok(RootKey::Kept(path));
    }
    let pair = match begun {
        Some(pair) => pair,
        None if !registry.keys().await?.is_empty() => return Ok(RootKey::None),
        None => {
            let pair = Pair::generate()?;
            files::create(&unfinished, &write(&pair))?;
            pair
        }
    };
    registry
        .create_key(DEFAULT_TENANT, Some(pair), None, uids, master_key)
        .await?;
    files::rename(&unfinished, &path)?;
    Ok(RootKey::Created(path))
}

fn write(pair: &Pair) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        pair.access_key,
        pair.secret_key.reveal()
    ))
}

fn read(path: &Path) -> Result<Option<Pair>, Refused> {
    let Some(text) = files::read(path)?.map(Zeroizing::new) else {
        return Ok(None);
    };
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    match (value("aws_access_key_id"), value("aws_secret_access_key")) {
        (Some(access_key), Some(secret_key)) => Ok(Some(Pair {
            access_key,
            secret_key: Secret::new(secret_key),
        })),
        _ => Err(Refused::RootFile(path.to_owned())),
    }
}
