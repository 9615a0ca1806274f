//! An existing osproxy taken over, while no server runs on the data directory.

use std::collections::BTreeMap;

use super::directory::Held;
use super::stores::{Stores, called, open_meta};
use super::{Error, Secret};
use crate::cluster;
use crate::config::Config;
use crate::import::{Import, Numbers, Places, Report};
use crate::meta::identities;
use crate::meta::original::Original;
use crate::model::fault::{Fault, Kind};
use crate::model::file::bucket_names;
use crate::model::progress::Tell;
use crate::telemetry::Metrics;

/// What an import keeps for itself, in the data directory.
const SCRATCH: &str = "import.scratch";

/// What is to be taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOrder {
    /// The URL of the old database, which may hold a password.
    pub database: Secret,
    /// The backend below whose root the old buckets are folders.
    pub backend: Option<String>,
    /// Backends whose root is an old bucket, by its name.
    pub buckets: BTreeMap<String, String>,
    /// Whether objects stay for ever, also when nothing refers to them any more.
    pub keep_objects: bool,
}

/// Adopts what an old database names, and says what it could not adopt. May be run again.
pub async fn import(config: &Config, order: &ImportOrder, tell: Tell<'_>) -> Result<Report, Error> {
    let wrong = |what: String| Fault::new(Kind::Config, "import").context(what);
    let backend = |name: &String| match config.backend.get(name) {
        Some(backend) => Ok(called(config, name, backend)),
        None => Err(wrong(format!("no backend {name} is configured"))),
    };
    let mut places = Places {
        common: order.backend.as_ref().map(backend).transpose()?,
        own: BTreeMap::new(),
    };
    for (bucket, name) in &order.buckets {
        places.own.insert(bucket.clone(), backend(name)?);
    }
    let names = bucket_names(&config.native.bucket_prefix).ok_or_else(|| {
        wrong("native.bucket_prefix: not the begin of a bucket's name".to_owned())
    })?;
    let held = match config.meta.server() {
        Some(_) => Held::create(&config.data_dir)?,
        None => Held::open(&config.data_dir)?,
    };
    let old = |fault: Fault| fault.context("the old database");
    let original = Original::open(order.database.reveal()).await.map_err(old)?;
    // Before this process becomes a node, so that it is none that mints such numbers.
    let metrics = Metrics::new();
    let meta = open_meta(config, held.path(), &metrics).await?;
    let numbers = match cluster::clock_of(&meta).await {
        Ok(clock) => Numbers::reserve(&meta, &original, clock.now()).await,
        Err(fault) => Err(fault),
    };
    meta.close().await;
    let numbers = numbers?;
    let stores = Stores::open(config, &held, &metrics, None).await?;
    let account = config.native.tenant.clone();
    let tenant = stores.meta.read("find tenant", move |session| {
        let account = account.clone();
        Box::pin(async move { identities::find_tenant(session, &account).await })
    });
    let outcome = match tenant.await {
        Err(fault) => Err(fault),
        Ok(None) => Err(wrong(format!(
            "native.tenant: there is no tenant {:?}; start `osproxy serve` once, or name another",
            config.native.tenant
        ))),
        Ok(Some(tenant)) => {
            let import = Import {
                original,
                namespace: stores.namespace.clone(),
                tenant: tenant.id,
                region: config.s3.region.clone(),
                names,
                places,
                owned: !order.keep_objects,
                scratch: held.path().join(SCRATCH),
                numbers,
            };
            let outcome = import.run(tell).await;
            import.close().await;
            outcome
        }
    };
    stores.close().await;
    Ok(outcome?)
}
