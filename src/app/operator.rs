//! What an operator asks from the command line.

use std::path::PathBuf;
use std::sync::Arc;

use super::directory::{self, Held};
use super::stores::{Stores, open_meta};
use super::{
    BucketUsage, Error, FsckOrder, FsckReport, GcReport, JobFilter, JobSummary, JobsReport,
    KeyCommand, KeyReport, KeyState, KeySummary, MoveError, MoveOrder, MoveSummary, NewKey,
    NodeStatus, Pair, ScrubReport, Stats, TenantSummary, Wish,
};
use crate::admin::{Client, RunFile};
use crate::auth::Registry;
use crate::cluster::{self, Hints, Role, Topic};
use crate::config::Config;
use crate::keys::MasterKey;
use crate::meta::MetaStore;
use crate::model::clock::Clock;
use crate::model::ids::JobId;
use crate::model::progress::Tell;
use crate::tasks::scrub::SCRUB;
use crate::tasks::{Backlog, Moves, Scrub, Survey};
use crate::telemetry::Metrics;

/// An install as the command line sees it, whether a server runs on it or not.
///
/// Keys, tenants, jobs and figures are read and written in the database beside the server: it sees changes within a
/// second, and with Redis at once. Work on the bytes is the server's, and done here only when none runs.
pub struct Operator {
    config: Config,
    dir: PathBuf,
    meta: MetaStore,
    registry: Registry,
    hints: Hints,
    clock: Clock,
}

impl Operator {
    /// Opens the install of a configuration's data directory. [`Error::NoInstall`] when there is none.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let dir = config.data_dir.clone();
        // A server's database may be there without a directory on this machine.
        if config.meta.server().is_none() {
            directory::require(&dir)?;
        }
        let metrics = Metrics::new();
        let meta = open_meta(&config, &dir, &metrics).await?;
        let hints = Hints::start(&config.redis, Role::Command, &metrics)?;
        let clock = cluster::clock_of(&meta).await?;
        Ok(Self {
            registry: Registry::new(meta.clone(), clock.clone(), hints.bell(Topic::Access)),
            hints,
            config,
            dir,
            meta,
            clock,
        })
    }

    /// Tells the servers what was changed, and closes the database.
    pub async fn close(self) {
        self.hints.close().await;
        self.meta.close().await;
    }

    /// Makes a tenant.
    pub async fn create_tenant(&self, name: &str) -> Result<(), Error> {
        let uids = cluster::mint_beside(&self.meta, &self.clock).await?;
        Ok(self.registry.create_tenant(name, &uids).await?)
    }

    /// All tenants, by name.
    pub async fn tenants(&self) -> Result<Vec<TenantSummary>, Error> {
        Ok(self.registry.tenants().await?)
    }

    /// Deletes a tenant that has neither buckets nor keys.
    pub async fn delete_tenant(&self, name: &str) -> Result<(), Error> {
        Ok(self.registry.delete_tenant(name).await?)
    }

    /// Makes an access key of a tenant: the `given` pair, or one of random text.
    /// With a policy it may do no more than that says.
    pub async fn create_key(
        &self,
        tenant: &str,
        given: Option<Pair>,
        policy: Option<String>,
    ) -> Result<NewKey, Error> {
        let given_key = self.config.secrets.master_key.as_ref();
        let master_key = MasterKey::load(&self.dir, given_key, &self.meta).await?;
        let uids = cluster::mint_beside(&self.meta, &self.clock).await?;
        let made = self
            .registry
            .create_key(tenant, given, policy, &uids, &master_key);
        Ok(made.await?)
    }

    /// The policy of an access key, if it has one.
    pub async fn key_policy(&self, access_key: &str) -> Result<Option<String>, Error> {
        Ok(self.registry.key_policy(access_key).await?)
    }

    /// Replaces the policy of an access key, or takes it away.
    pub async fn set_key_policy(
        &self,
        access_key: &str,
        policy: Option<String>,
    ) -> Result<(), Error> {
        Ok(self.registry.set_key_policy(access_key, policy).await?)
    }

    /// All access keys but the temporary ones, by tenant and name, without their secrets.
    pub async fn keys(&self) -> Result<Vec<KeySummary>, Error> {
        Ok(self.registry.keys().await?)
    }

    /// Allows or forbids the use of an access key, or deletes it.
    pub async fn set_key_state(&self, access_key: &str, state: KeyState) -> Result<(), Error> {
        Ok(self.registry.set_state(access_key, state).await?)
    }

    /// Every bucket, by tenant and name, with what it holds.
    pub async fn buckets(&self) -> Result<Vec<BucketUsage>, Error> {
        Ok(Survey::new(self.meta.clone()).buckets().await?)
    }

    /// What the install holds.
    pub async fn stats(&self) -> Result<Stats, Error> {
        Ok(Survey::new(self.meta.clone()).stats().await?)
    }

    /// Jobs, the newest first, and the types that are paused.
    pub async fn jobs(&self, filter: JobFilter) -> Result<JobsReport, Error> {
        Ok(self.backlog().list(filter).await?)
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Result<JobSummary, Error> {
        Ok(self.backlog().show(id).await?)
    }

    /// Runs a job now or again, or ends it. A server sees that when it looks next, or when it renews the lease.
    pub async fn wish_of_job(&self, id: JobId, wish: Wish) -> Result<JobSummary, Error> {
        Ok(self.backlog().wish(id, wish).await?)
    }

    /// Keeps the jobs of a type from running.
    pub async fn pause_jobs(&self, kind: &str) -> Result<(), Error> {
        Ok(self.backlog().pause(kind).await?)
    }

    /// Lets them run again.
    pub async fn resume_jobs(&self, kind: &str) -> Result<(), Error> {
        Ok(self.backlog().resume(kind).await?)
    }

    /// Begins a move, or sets the rate of the one that is under way. A server goes on with it within seconds.
    pub async fn start_move(&self, order: MoveOrder) -> Result<MoveSummary, Error> {
        if order.bucket.is_none() && !self.config.backend.contains_key(&order.to) {
            // It may have been configured once: new blobs would go where nobody can write.
            return Err(Error::Move(MoveError::Unknown {
                what: "backend",
                name: order.to,
                known: self.config.backend.keys().cloned().collect(),
            }));
        }
        let uids = cluster::mint_beside(&self.meta, &self.clock).await?;
        Ok(self.moves().start(order, &uids).await?)
    }

    /// One move.
    pub async fn show_move(&self, id: i64) -> Result<MoveSummary, Error> {
        Ok(self.moves().show(id).await?)
    }

    /// The last moves, the newest first.
    pub async fn list_moves(&self, limit: usize) -> Result<Vec<MoveSummary>, Error> {
        Ok(self.moves().list(limit).await?)
    }

    /// Whether no server runs on this data directory. With a server's database one may run elsewhere.
    pub fn is_idle(&self) -> bool {
        self.config.meta.server().is_none() && self.hold().is_ok()
    }

    fn moves(&self) -> Moves {
        let bell = self.hints.bell(Topic::Jobs);
        Moves::new(self.meta.clone(), self.clock.clone(), bell)
    }

    fn backlog(&self) -> Backlog {
        // There is no engine in this process: those of the servers are woken.
        let bell = self.hints.bell(Topic::Jobs);
        Backlog::new(self.meta.clone(), self.clock.clone(), bell)
    }

    /// The nodes that share the install, by name.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, Error> {
        Ok(cluster::nodes_of(&self.meta, &self.clock).await?)
    }

    /// Collects and sweeps: by the server that runs on the install, or here when none does.
    pub async fn gc(&self, tell: Tell<'_>) -> Result<GcReport, Error> {
        match self.hold() {
            Ok(held) => self.gc_here(held, tell).await,
            Err(Error::InUse { dir, pid }) => self.gc_there(dir, pid, tell).await,
            Err(error) => Err(error),
        }
    }

    /// Compares rows and backends: by the server that runs on the install, or here when none does.
    pub async fn fsck(&self, order: &FsckOrder, tell: Tell<'_>) -> Result<FsckReport, Error> {
        match self.hold() {
            Ok(held) => {
                let stores = Stores::open(&self.config, &held, &Metrics::new(), None).await?;
                let report = stores.collector.fsck(order, tell).await;
                stores.close().await;
                Ok(report?)
            }
            Err(Error::InUse { dir, pid }) => {
                let (client, pid) = self.server(dir, pid)?;
                let asked = client.fsck(order, tell).await;
                asked.map_err(|source| Error::Server { pid, source })
            }
            Err(error) => Err(error),
        }
    }

    /// Lets the servers of the install read every copy now, and answers the job that does it; `None` when none runs.
    pub async fn begin_scrub(&self) -> Result<Option<JobSummary>, Error> {
        if !self.has_servers().await? {
            return Ok(None);
        }
        if !self.config.scrub.enabled {
            return Err(Error::ScrubDisabled);
        }
        Ok(Some(self.backlog().hurry(SCRUB).await?))
    }

    /// Reads every copy here, and mends what it can. No server may run on the data directory.
    pub async fn scrub_here(&self, tell: Tell<'_>) -> Result<ScrubReport, Error> {
        let held = self.hold()?;
        let stores = Stores::open(&self.config, &held, &Metrics::new(), None).await?;
        let scrub = Scrub {
            content: Arc::clone(&stores.content),
            config: self.config.scrub.clone(),
        };
        let report = scrub.pass(tell).await;
        stores.close().await;
        Ok(report?)
    }

    /// Whether a server runs on the install, here or elsewhere.
    async fn has_servers(&self) -> Result<bool, Error> {
        match self.config.meta.server() {
            Some(_) => Ok(!self.nodes().await?.is_empty()),
            None => match self.hold() {
                Ok(_) => Ok(false),
                Err(Error::InUse { .. }) => Ok(true),
                Err(error) => Err(error),
            },
        }
    }

    /// Holds the data directory, if no server does.
    fn hold(&self) -> Result<Held, Error> {
        match self.config.meta.server() {
            Some(_) => Held::create(&self.dir),
            None => Held::open(&self.dir),
        }
    }

    async fn gc_here(&self, held: Held, tell: Tell<'_>) -> Result<GcReport, Error> {
        let stores = Stores::open(&self.config, &held, &Metrics::new(), None).await?;
        let report = stores.collector.pass(tell).await;
        stores.close().await;
        Ok(report?)
    }

    async fn gc_there(
        &self,
        dir: PathBuf,
        pid: Option<u32>,
        tell: Tell<'_>,
    ) -> Result<GcReport, Error> {
        let (client, pid) = self.server(dir, pid)?;
        let asked = client.gc(tell).await;
        asked.map_err(|source| Error::Server { pid, source })
    }

    /// Works on the wrapping keys: by the server that runs on the install, so that it uses them at once, or
    /// here when none does.
    pub async fn keyring(&self, command: KeyCommand, tell: Tell<'_>) -> Result<KeyReport, Error> {
        match self.hold() {
            Ok(held) => {
                let stores = Stores::open(&self.config, &held, &Metrics::new(), None).await?;
                let report = stores.keyring().run(command, tell).await;
                stores.close().await;
                Ok(report?)
            }
            Err(Error::InUse { dir, pid }) => {
                let (client, pid) = self.server(dir, pid)?;
                let asked = client.keys(&command, tell).await;
                asked.map_err(|source| Error::Server { pid, source })
            }
            Err(error) => Err(error),
        }
    }

    /// The server that holds the data directory, and its process.
    fn server(&self, dir: PathBuf, pid: Option<u32>) -> Result<(Client, u32), Error> {
        let server = RunFile::read(&dir).map_err(|source| Error::Io {
            path: dir.clone(),
            source,
        })?;
        // A file of another process is left from before: the holder of the lock is starting, or a command.
        let Some(server) = server.filter(|server| pid.is_none_or(|pid| pid == server.pid)) else {
            return Err(Error::InUse { dir, pid });
        };
        let pid = server.pid;
        Ok((Client::new(server), pid))
    }
}
