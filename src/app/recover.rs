//! A database that was lost, rebuilt from the manifests at the backends.

use std::path::Path;

use super::Error;
use super::directory::{self, Held};
use super::stores::{open_blobs, open_meta};
use crate::cluster;
use crate::config::Config;
use crate::keys::MasterKey;
use crate::manifest::{self, Options, Recovery, Report};
use crate::model::progress::Tell;
use crate::telemetry::Metrics;

/// The scratch database of a recovery, in the data directory.
const SCRATCH: &str = "recover.tmp";

/// Rebuilds the install of a configuration whose database is lost, and says what it found. The master key must be
/// there; the database must be new, or hold the begin of the same recovery.
pub async fn recover(config: &Config, options: &Options, tell: Tell<'_>) -> Result<Report, Error> {
    let held = Held::create(&config.data_dir)?;
    let dir = held.path();
    let master_key = MasterKey::require(dir, config.secrets.master_key.as_ref())?;
    let was_there = directory::database(dir).exists();
    let metrics = Metrics::new();
    let blobs = open_blobs(config, dir, &metrics).await?;
    let meta = open_meta(config, dir, &metrics).await?;
    let recovery = Recovery {
        clock: cluster::clock_of(&meta).await?,
        meta,
        blobs: blobs.clone(),
        master_key,
        scratch: dir.join(SCRATCH),
    };
    let outcome = manifest::recover(&recovery, options, tell).await;
    let is_begun = recovery.meta.scan("look at recovery", |session| {
        Box::pin(crate::meta::manifests::recovery(session))
    });
    let is_begun = is_begun.await.map_or(true, |begun| begun.is_some());
    recovery.meta.close().await;
    if !was_there && !is_begun {
        forget_database(dir);
    }
    Ok(outcome?)
}

/// Leaves no database behind where nothing was recovered into it.
fn forget_database(dir: &Path) {
    let path = directory::database(dir);
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        // An empty one is as good as none.
        let _ = std::fs::remove_file(name);
    }
}
