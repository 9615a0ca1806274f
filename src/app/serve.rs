//! A server from its start to its end.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::directory::Held;
use super::stores::Stores;
use crate::admin::{self, RunFile, Token};
use crate::auth::{Authority, Links, Network, Pair, Registry, RootKey, ensure_root};
use crate::cluster::{PeerKey, Topic};
use crate::config::{Config, CustomerKeys, InstantUpload};
use crate::http::{Drained, Facade, RouterFacade, Server};
use crate::model::fault::{Fault, Kind};
use crate::native;
use crate::s3;
use crate::tasks::{
    AbortStale, Backlog, Collect, CollectOwn, Deliver, DeliverLogs, Engine, Expire, MeasureOutbox,
    Mend, Merge, Mover, Outbox, Pausable, PurgeJobs, PurgeKeys, Rewrap, Runner, Scrub, Survey,
    Sweep, SweepOwn, TendOutbox, WriteManifests, engine,
};
use crate::telemetry::Metrics;

/// Time between two looks for stale uploads.
const STALE_UPLOADS_INTERVAL: Duration = Duration::from_secs(3600);
/// Time between two looks for events that are too old.
const OUTBOX_INTERVAL: Duration = Duration::from_secs(15);
/// Time between two looks for data keys that an older version of a key wraps.
const REWRAP_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two looks for copies that mirrors miss.
const MEND_INTERVAL: Duration = Duration::from_secs(15);
/// Time between two looks for expired temporary keys.
const EXPIRED_KEYS_INTERVAL: Duration = Duration::from_secs(3600);
/// Time between two looks for jobs that ended long ago.
const ENDED_JOBS_INTERVAL: Duration = Duration::from_secs(3600);
/// How long jobs may take at the end to record how far they are.
const JOBS_DEADLINE: Duration = Duration::from_secs(12);
/// How long the access logs that wait may take at the end.
const LOGS_DEADLINE: Duration = Duration::from_secs(30);
/// How long the last manifest may take at the end.
const LAST_MANIFEST_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two tries to join again.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);
/// How long admin requests in flight may take once the S3 listener has drained.
const ADMIN_DRAIN_SECONDS: u64 = 2;

/// Serves until SIGTERM or SIGINT, then drains: requests in flight finish within `http.drain_timeout_seconds`,
/// and everything is closed in the reverse order of its start. A second signal ends it at once, with
/// [`Error::Cut`]: what was answered is safe all the same.
///
/// Logs `ready` with the addresses once requests are served. A node that the others have declared dead drains and
/// starts again, as another one.
pub async fn serve(config: Config) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    // They go on when the process begins again as another node.
    let metrics = Metrics::new();
    let mut began = false;
    loop {
        let running = match Running::start(&config, &metrics).await {
            // It served before, and serves again as soon as the database lets it.
            Err(error) if began && error.may_pass() => {
                tracing::warn!(%error, "not joined yet");
                tokio::select! {
                    biased;
                    () = signals.next() => return Ok(()),
                    () = tokio::time::sleep(REJOIN_PAUSE) => continue,
                }
            }
            outcome => outcome?,
        };
        began = true;
        introduce(&running.root, running.s3.address, &config.s3.region);
        let end = running.until(signals.next()).await;
        let delay = match end {
            End::Asked => Duration::from_secs(config.http.drain_delay_seconds),
            End::Listener(_) | End::Expelled => Duration::ZERO,
        };
        tokio::select! {
            biased;
            () = signals.next() => return Err(Error::Cut),
            () = running.stop(delay) => {}
        }
        match end {
            End::Asked => return Ok(()),
            End::Listener(name) => return Err(Error::ListenerEnded(name)),
            End::Expelled => {
                tracing::warn!("the other nodes had declared this one dead; it starts again");
                metrics.rejoined();
            }
        }
    }
}

/// Why a server stops.
enum End {
    /// A signal.
    Asked,
    /// This listener ended by itself.
    Listener(&'static str),
    /// It is no node any more.
    Expelled,
}

/// The two signals that ask for an end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A server that serves, in the order in which it was started.
pub(super) struct Running {
    held: Held,
    stores: Stores,
    runner: Runner,
    jobs: engine::Running,
    logs: DeliverLogs,
    root: RootKey,
    s3: Listener,
    native: Option<Listener>,
    admin: Listener,
    /// For other nodes, where they are listened to.
    peers: Option<Listener>,
    pub(super) draining: CancellationToken,
}

impl Running {
    pub(super) async fn start(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        let held = Held::create(&config.data_dir)?;
        let metrics = Arc::clone(metrics);
        // Addresses first: one that is taken should not leave a half-made install behind. Clients wait.
        let in_vain = |setting| move |source| Error::Listen { setting, source };
        let s3 = Server::bind(config.s3.listen, &config.http, Arc::clone(&metrics))
            .await
            .map_err(in_vain("s3.listen"))?;
        let native = match config.native.enabled {
            true => Some(
                Server::bind(config.native.listen, &config.http, Arc::clone(&metrics))
                    .await
                    .map_err(in_vain("native.listen"))?,
            ),
            false => None,
        };
        let mut http = config.http.clone();
        http.drain_timeout_seconds = http.drain_timeout_seconds.min(ADMIN_DRAIN_SECONDS);
        let admin = Server::bind(config.admin.listen, &http, Arc::clone(&metrics))
            .await
            .map_err(in_vain("admin.listen"))?;
        let peers = match config.node.listen().map_err(in_vain_setting)? {
            None => None,
            Some(address) => Some(
                Server::bind(address, &http, Arc::clone(&metrics))
                    .await
                    .map_err(in_vain("node.listen"))?,
            ),
        };
        let address = peers
            .as_ref()
            .map(|peers| config.node.reached_at(peers.local_addr()));

        let stores = Stores::open(config, &held, &metrics, address).await?;
        // Commands beside the server follow what the database says.
        stores.meta.set_recording(config.manifests.enabled).await?;
        let (authority, root) = open_authority(config, &held, &stores).await?;
        let authority = Arc::new(authority);
        let outbox = Arc::new(Outbox::new(
            stores.meta.clone(),
            stores.clock.clone(),
            Arc::clone(stores.node.uids()),
            Arc::clone(&metrics),
            config.notification.clone(),
        ));
        let runner = start_loops(config, &stores, &metrics, &outbox);
        let jobs = start_jobs(config, &stores, &metrics, &outbox, &authority).await?;
        let logs = DeliverLogs {
            namespace: Arc::clone(&stores.namespace),
            metrics: Arc::clone(&metrics),
        };
        let for_native = Arc::clone(&authority);
        let facade = s3::Facade::new(s3::Parts {
            namespace: Arc::clone(&stores.namespace),
            authority,
            metrics: Arc::clone(&metrics),
            config: s3::Config {
                domains: config.s3.domains.clone(),
                website_domains: config.s3.website_domains.clone(),
                region: config.s3.region.clone(),
                instant: config.s3.instant == InstantUpload::Auto,
                max_post_bytes: config.s3.max_post_bytes,
                targets: config.notification.target.keys().cloned().collect(),
                calendar: config.lifecycle.calendar(),
                customer_keys_need_https: config.s3.customer_keys == CustomerKeys::Https,
                trusted_proxies: trusted_proxies(config)?,
            },
        })?;
        let draining = CancellationToken::new();
        let native = match native {
            Some(server) => {
                Some(serve_native(config, &stores, &for_native, &draining, server).await?)
            }
            None => None,
        };
        let token = publish(&held, admin.local_addr())?;
        let routes = RouterFacade::new(
            "admin",
            admin::router(admin::Parts {
                metrics,
                node: Arc::clone(&stores.node),
                nodes: stores.hints.nodes(),
                collector: Arc::clone(&stores.collector),
                keyring: stores.keyring(),
                survey: Survey::new(stores.meta.clone()),
                backlog: Backlog::new(
                    stores.meta.clone(),
                    stores.clock.clone(),
                    stores.hints.bell(Topic::Jobs),
                ),
                outbox,
                draining: draining.clone(),
                token,
            }),
        );
        let peers = peers.map(|listener| {
            let routes = admin::peer_router(admin::PeerParts {
                node: stores.node.name().to_owned(),
                content: Arc::clone(&stores.content),
                key: PeerKey::new(*stores.master_key.derive(PeerKey::PURPOSE)),
                clock: stores.clock.clone(),
            });
            Listener::serve("peers", listener, RouterFacade::new("peer", routes))
        });
        let running = Self {
            s3: Listener::serve("s3", s3, facade),
            native,
            admin: Listener::serve("admin", admin, routes),
            peers,
            held,
            stores,
            runner,
            jobs,
            logs,
            root,
            draining,
        };
        tracing::info!(
            s3 = %running.s3.address,
            native = running.native.as_ref().map(|listener| tracing::field::display(listener.address)),
            admin = %running.admin.address,
            data_dir = %running.held.path().display(),
            durability = ?config.storage.durability,
            "ready"
        );
        Ok(running)
    }

    /// Waits for the signal, or for what else ends a server.
    async fn until(&self, asked: impl Future<Output = ()>) -> End {
        let native = async {
            match &self.native {
                Some(listener) => listener.ended.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = asked => End::Asked,
            () = self.stores.meta.expelled() => End::Expelled,
            () = native => End::Listener("native"),
            () = self.s3.ended.cancelled() => End::Listener(self.s3.name),
            () = self.admin.ended.cancelled() => End::Listener(self.admin.name),
            () = ended(self.peers.as_ref()) => End::Listener("peers"),
        }
    }

    /// Says that it stops, serves for `delay` as before, and closes everything.
    pub(super) async fn stop(self, delay: Duration) {
        self.draining.cancel();
        tokio::time::sleep(delay).await;
        tracing::info!("draining");
        // Side by side: each has its deadline.
        let native = async {
            if let Some(listener) = self.native {
                listener.stop().await;
            }
        };
        tokio::join!(self.s3.stop(), native);
        self.admin.stop().await;
        if let Some(peers) = self.peers {
            peers.stop().await;
        }
        self.runner.stop().await;
        if timeout(JOBS_DEADLINE, self.jobs.stop()).await.is_err() {
            tracing::warn!("jobs that were under way are left to the end of their leases");
        }
        // All requests are in their logs by now.
        if timeout(LOGS_DEADLINE, self.logs.deliver()).await.is_err() {
            tracing::warn!("lines of access logs were lost");
        }
        write_last_manifest(&self.stores).await;
        self.stores.close().await;
        if let Err(error) = RunFile::remove(self.held.path()) {
            tracing::warn!(%error, "remove run.json");
        }
        tracing::info!("stopped");
    }
}

/// Completes when a listener that there is has ended.
async fn ended(listener: Option<&Listener>) {
    match listener {
        Some(listener) => listener.ended.cancelled().await,
        None => std::future::pending().await,
    }
}

fn in_vain_setting(problem: String) -> Fault {
    Fault::new(Kind::Config, "listen").context(problem)
}

/// One listener that serves.
struct Listener {
    name: &'static str,
    address: SocketAddr,
    stop: CancellationToken,
    ended: CancellationToken,
    task: JoinHandle<Drained>,
}

impl Listener {
    fn serve(name: &'static str, server: Server, facade: impl Facade) -> Self {
        let address = server.local_addr();
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (asked, guard) = (stop.clone().cancelled_owned(), ended.clone().drop_guard());
        let task = tokio::spawn(async move {
            // Also when the listener panics.
            let _ended = guard;
            server.serve(Arc::new(facade), asked).await
        });
        Self {
            name,
            address,
            stop,
            ended,
            task,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        match self.task.await {
            Ok(Drained { aborted: 0 }) => {}
            Ok(Drained { aborted }) => {
                tracing::warn!(
                    listener = self.name,
                    aborted,
                    "connections cut at the deadline"
                );
            }
            Err(error) => tracing::error!(listener = self.name, %error, "listener failed"),
        }
    }
}

/// Serves the native API.
async fn serve_native(
    config: &Config,
    stores: &Stores,
    authority: &Arc<Authority>,
    draining: &CancellationToken,
    server: Server,
) -> Result<Listener, Error> {
    let is_alone = !stores.meta.is_shared();
    let node = stores.node.name();
    let own = config.backend.iter().filter_map(|(name, backend)| {
        match config.is_of_node(backend) {
            true => Some(format!("{name}@{node}")),
            // Where nodes share a database, a disk that is not said to be a node's own may be everybody's.
            false => (is_alone && backend.service == "fs").then(|| name.clone()),
        }
    });
    let router = native::router(native::Parts {
        namespace: Arc::clone(&stores.namespace),
        authority: Arc::clone(authority),
        links: Links::new(
            stores.meta.clone(),
            stores.master_key.clone(),
            stores.clock.clone(),
            Arc::clone(stores.node.uids()),
        ),
        node: Arc::clone(&stores.node),
        redis: stores.hints.redis(),
        draining: draining.clone(),
        config: config.native.clone(),
        address: server.local_addr(),
        region: config.s3.region.clone(),
        own_backends: own.collect(),
        own_database: is_alone,
    });
    let facade = RouterFacade::new("native", router.await?).refusing_as(native::refuse);
    Ok(Listener::serve("native", server, facade))
}

async fn open_authority(
    config: &Config,
    held: &Held,
    stores: &Stores,
) -> Result<(Authority, RootKey), Error> {
    let (dir, meta, clock) = (held.path(), &stores.meta, &stores.clock);
    let master_key = stores.master_key.clone();
    let changed = stores.hints.bell(Topic::Access);
    let registry = Registry::new(meta.clone(), clock.clone(), changed.clone());
    let given = config.secrets.root.as_ref().map(|root| Pair {
        access_key: root.access_key.clone(),
        secret_key: root.secret_key.clone(),
    });
    let root = ensure_root(&registry, &master_key, stores.node.uids(), dir, given).await?;
    Ok((
        Authority::new(
            meta.clone(),
            master_key,
            clock.clone(),
            Arc::clone(stores.node.uids()),
            changed,
        ),
        root,
    ))
}

/// Writes down what changed since the newest manifest, as far as there is time: the next start goes on with it.
async fn write_last_manifest(stores: &Stores) {
    let Some(manifests) = &stores.manifests else {
        return;
    };
    match timeout(LAST_MANIFEST_DEADLINE, manifests.write()).await {
        Ok(Ok(_)) => {}
        Ok(Err(fault)) => tracing::warn!(%fault, "write last manifest"),
        Err(_) => tracing::warn!("the last manifest is left to the next start"),
    }
}

fn trusted_proxies(config: &Config) -> Result<Vec<Network>, Fault> {
    let parse = |text: &String| {
        Network::parse(text).ok_or_else(|| {
            Fault::new(Kind::Config, "read s3.trusted_proxies")
                .context(format_args!("{text:?} is neither an address nor a CIDR"))
        })
    };
    config.s3.trusted_proxies.iter().map(parse).collect()
}

/// Begins the work of this process alone.
fn start_loops(
    config: &Config,
    stores: &Stores,
    metrics: &Arc<Metrics>,
    outbox: &Arc<Outbox>,
) -> Runner {
    let mut runner = Runner::new();
    runner.every_and_when(
        seconds(config.logging.interval_seconds),
        &stores.namespace.full_logs(),
        DeliverLogs {
            namespace: Arc::clone(&stores.namespace),
            metrics: Arc::clone(metrics),
        },
    );
    runner.every(OUTBOX_INTERVAL, MeasureOutbox(Arc::clone(outbox)));
    if let Some(manifests) = &stores.manifests {
        runner.every(
            seconds(config.manifests.interval_seconds),
            WriteManifests(Arc::clone(manifests)),
        );
    }
    if config.backend.values().any(|it| config.is_of_node(it)) {
        runner.every(
            seconds(config.storage.collect_interval_seconds),
            Pausable {
                kind: "collect",
                meta: stores.meta.clone(),
                handler: CollectOwn(Arc::clone(&stores.collector)),
            },
        );
        runner.every(
            seconds(config.storage.sweep_interval_seconds),
            Pausable {
                kind: "sweep",
                meta: stores.meta.clone(),
                handler: SweepOwn(Arc::clone(&stores.collector)),
            },
        );
    }
    runner
}

/// Begins to run jobs: what any node may do, and one at a time does.
async fn start_jobs(
    config: &Config,
    stores: &Stores,
    metrics: &Arc<Metrics>,
    outbox: &Arc<Outbox>,
    authority: &Arc<Authority>,
) -> Result<engine::Running, Fault> {
    let mut engine = Engine::new(engine::Parts {
        meta: stores.meta.clone(),
        clock: stores.clock.clone(),
        node: stores.node.id(),
        uids: Arc::clone(stores.node.uids()),
        metrics: Arc::clone(metrics),
        bell: stores.hints.bell(Topic::Jobs),
        config: config.jobs.clone(),
    });
    engine.schedule(
        seconds(config.storage.collect_interval_seconds),
        Collect(Arc::clone(&stores.collector)),
    );
    engine.schedule(
        seconds(config.storage.sweep_interval_seconds),
        Sweep(Arc::clone(&stores.collector)),
    );
    engine.schedule(
        STALE_UPLOADS_INTERVAL,
        AbortStale(Arc::clone(&stores.namespace)),
    );
    engine.schedule(
        seconds(config.lifecycle.interval_seconds),
        Expire {
            namespace: Arc::clone(&stores.namespace),
            calendar: config.lifecycle.calendar(),
            metrics: Arc::clone(metrics),
        },
    );
    outbox.begin().await?;
    engine.register(Deliver::new(
        stores.meta.clone(),
        Arc::clone(metrics),
        stores.hints.bell(Topic::Events),
        &config.notification,
    )?);
    engine.schedule(OUTBOX_INTERVAL, TendOutbox(Arc::clone(outbox)));
    engine.schedule(REWRAP_INTERVAL, Rewrap(Arc::clone(&stores.content)));
    engine.schedule(EXPIRED_KEYS_INTERVAL, PurgeKeys(Arc::clone(authority)));
    engine.schedule(
        ENDED_JOBS_INTERVAL,
        PurgeJobs {
            meta: stores.meta.clone(),
            clock: stores.clock.clone(),
            keep: Duration::from_secs(config.jobs.keep_seconds),
        },
    );
    engine.schedule(MEND_INTERVAL, Mend(Arc::clone(&stores.content)));
    if config.scrub.enabled {
        engine.schedule(
            seconds(config.scrub.interval_seconds),
            Scrub {
                content: Arc::clone(&stores.content),
                config: config.scrub.clone(),
            },
        );
    }
    if config.merge.enabled {
        engine.register(Merge {
            content: Arc::clone(&stores.content),
            config: config.merge.clone(),
        });
    }
    engine.register(Mover {
        meta: stores.meta.clone(),
        content: Arc::clone(&stores.content),
        namespace: Arc::clone(&stores.namespace),
        clock: stores.clock.clone(),
    });
    engine.start().await
}

fn seconds(seconds: NonZeroU64) -> Duration {
    Duration::from_secs(seconds.get())
}

/// Writes down for commands where this server is and what opens its `/v1`.
fn publish(held: &Held, admin: SocketAddr) -> Result<Token, Error> {
    let write = || {
        let token = Token::draw()?;
        let file = RunFile {
            pid: std::process::id(),
            admin,
            token: token.clone(),
        };
        file.write(held.path())?;
        Ok(token)
    };
    write().map_err(|source| Error::Io {
        path: held.path().to_owned(),
        source,
    })
}

/// Says where the root key is, and at the first start how to use it. Never the key itself.
fn introduce(root: &RootKey, s3: SocketAddr, region: &str) {
    match root {
        RootKey::Created(path) => {
            // Nobody may be reading; the file is there all the same.
            let _ = writeln!(std::io::stdout(), "{}", instructions(path, s3, region));
        }
        RootKey::Kept(path) => tracing::info!(file = %path.display(), "root key"),
        RootKey::Given => tracing::info!("root key from the environment"),
        RootKey::None => {}
    }
}

fn instructions(path: &Path, mut s3: SocketAddr, region: &str) -> String {
    let quoted = quote(path);
    if s3.ip().is_unspecified() {
        s3.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!(
        "A root key was made. It is in {}, which only you can read. To use it:\n\n  \
         export AWS_SHARED_CREDENTIALS_FILE={quoted}\n  \
         export AWS_ENDPOINT_URL_S3=http://{s3}\n  \
         export AWS_REGION={region}\n  \
         aws s3 mb s3://my-bucket\n",
        path.display(),
    )
}

/// A path as a shell takes it.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if is_plain {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_a_shell_only_where_it_must_be() {
        assert_eq!(quote(Path::new("/a/b-c_d.e")), "/a/b-c_d.e");
        assert_eq!(quote(Path::new("/a b")), "'/a b'");
        assert_eq!(quote(Path::new("/it's")), "'/it'\\''s'");
    }

    #[test]
    fn instructions_point_every_client_at_this_server() {
        let text = instructions(
            Path::new("/data/root-credentials"),
            SocketAddr::from(([127, 0, 0, 1], 9000)),
            "us-east-1",
        );
        for part in [
            "AWS_SHARED_CREDENTIALS_FILE=/data/root-credentials",
            "AWS_ENDPOINT_URL_S3=http://127.0.0.1:9000",
            "AWS_REGION=us-east-1",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
