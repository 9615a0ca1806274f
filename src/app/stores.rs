//! What a process that holds the data directory is made of, below the facades.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::directory::{self, Held};
use crate::blob::{self, BackendConfig, BlobStore, Event, Observer};
use crate::cluster::{self, Heart, Hints, Node, Oldest, PeerKey, Peers, Role, Topic, Who};
use crate::config::{self, Config};
use crate::content::{self, ContentStore};
use crate::keys::{Keys, MasterKey};
use crate::manifest::{self, Manifests};
use crate::meta::placements::{self, Placement, Recorded};
use crate::meta::{self, MetaStore, buckets, copies, manifests, moves};
use crate::model::clock::{Clock, millis};
use crate::model::fault::{Fault, Kind};
use crate::namespace::{self, Namespace};
use crate::tasks::{Collector, Keyring};
use crate::telemetry::Metrics;

use super::Error;

/// How long uploads that were cut may take to remove what they wrote.
const SETTLE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a database that nodes share may take to be told that this one leaves.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(10);

/// The stores and the domain over them.
pub(super) struct Stores {
    pub(super) meta: MetaStore,
    pub(super) clock: Clock,
    pub(super) node: Arc<Node>,
    pub(super) master_key: MasterKey,
    pub(super) keys: Arc<Keys>,
    pub(super) content: Arc<ContentStore>,
    pub(super) namespace: Arc<Namespace>,
    pub(super) collector: Arc<Collector>,
    /// Where manifests are written.
    pub(super) manifests: Option<Arc<Manifests>>,
    pub(super) hints: Hints,
    blobs: BlobStore,
    heart: Heart,
}

impl Stores {
    /// Opens everything, from the database up. The node beats when this returns.
    pub(super) async fn open(
        config: &Config,
        held: &Held,
        metrics: &Arc<Metrics>,
        address: Option<String>,
    ) -> Result<Self, Error> {
        let meta = open_meta(config, held.path(), metrics).await?;
        let clock = cluster::clock_of(&meta).await?;
        let blobs = open_blobs(config, held.path(), metrics).await?;
        check_lineage(&meta, &blobs).await?;
        let who = Who {
            name: config.node.name(),
            address,
            backends: blobs.backends().map(str::to_owned).collect(),
        };
        let claimed = Node::claim(
            meta.clone(),
            clock.clone(),
            &config.node,
            who,
            Arc::clone(metrics),
        );
        let node = claimed.await?;
        if config.backend.values().any(|it| config.is_of_node(it))
            && let Err(refused) = node.refuse_namesakes().await
        {
            node.leave().await;
            return Err(refused.into());
        }
        let hints = Hints::start(&config.redis, Role::Node(node.id()), metrics)?;
        let placements = record_placements(config, &meta, &node).await?;
        look_for_bytes(&meta, &blobs).await?;
        let given = config.secrets.master_key.as_ref();
        let master_key = MasterKey::load(held.path(), given, &meta).await?;
        let keys = Arc::new(Keys::new(
            meta.clone(),
            master_key.clone(),
            Arc::clone(node.uids()),
            clock.clone(),
            hints.bell(Topic::WrappingKeys),
        ));
        let content = ContentStore::new(content::Parts {
            meta: meta.clone(),
            blobs: blobs.clone(),
            keys: Arc::clone(&keys),
            uids: Arc::clone(node.uids()),
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
            here: match meta.is_shared() {
                true => Some(here(&meta, &clock, &master_key, &node)?),
                false => None,
            },
            config: content::Config {
                inline_max_bytes: config.storage.inline_max_bytes,
                memory_max_bytes: config.storage.memory_max_bytes,
                grace_seconds: config.storage.grace_seconds.get(),
                blob_retention_seconds: config.storage.blob_retention_seconds,
            },
        });
        let content = Arc::new(content.await?);
        let open = Arc::clone(content.open_times());
        let heart = node
            .start(Box::new(move || Oldest {
                read: open.oldest_read(),
                write: open.oldest_write(),
            }))
            .await?;
        let namespace = Arc::new(Namespace::new(namespace::Parts {
            meta: meta.clone(),
            content: Arc::clone(&content),
            keys: Arc::clone(&keys),
            uids: Arc::clone(node.uids()),
            worker: node.worker(),
            default_placement: placements.default,
            open_placements: placements.open,
            clock: clock.clone(),
            bell: hints.bell(Topic::Events),
            changed: hints.bell(Topic::Buckets),
            config: namespace::Config {
                buckets_max: config.limits.buckets_max,
                stale_upload_days: config.storage.stale_upload_days.get().into(),
                merge: config.merge.enabled.then(|| namespace::MergeRule {
                    delay: millis(Duration::from_secs(config.merge.delay_seconds)),
                    max_bytes: config.merge.max_bytes,
                }),
            },
        }));
        let manifests = match config.manifests.enabled {
            false => None,
            true => Some(Arc::new(Manifests::new(manifest::Parts {
                meta: meta.clone(),
                blobs: blobs.clone(),
                master_key: master_key.clone(),
                clock: clock.clone(),
                backend: manifests_backend(config, &meta).await?,
            })?)),
        };
        let collector = Arc::new(Collector::new(Arc::clone(&content), Arc::clone(&node)));
        Ok(Self {
            meta,
            clock,
            node,
            master_key,
            keys,
            content,
            namespace,
            collector,
            manifests,
            hints,
            blobs,
            heart,
        })
    }

    /// The wrapping keys, and what they wrap.
    pub(super) fn keyring(&self) -> Keyring {
        Keyring::new(Arc::clone(&self.keys), Arc::clone(&self.content))
    }

    /// Closes everything, from the top down. What was answered is safe already; this leaves little behind for
    /// the next start.
    pub(super) async fn close(self) {
        let node = self.heart.stop().await;
        if tokio::time::timeout(SETTLE_DEADLINE, self.blobs.settle())
            .await
            .is_err()
        {
            tracing::warn!("unfinished blobs are left to the sweep");
        }
        self.hints.close().await;
        let is_shared = self.meta.is_shared();
        let farewell = async {
            node.leave().await;
            self.meta.close().await;
        };
        if !is_shared {
            // The database is this process's own: its last commits are waited for.
            farewell.await;
        } else if tokio::time::timeout(FAREWELL_DEADLINE, farewell)
            .await
            .is_err()
        {
            tracing::warn!(
                "the database does not answer: the other nodes will declare this one dead"
            );
        }
    }
}

/// Opens every backend of a configuration.
pub(super) async fn open_blobs(
    config: &Config,
    dir: &Path,
    metrics: &Arc<Metrics>,
) -> Result<BlobStore, Fault> {
    BlobStore::open(
        &backends(config, dir),
        match config.storage.durability {
            config::Durability::Durable => blob::Durability::Durable,
            config::Durability::Relaxed => blob::Durability::Relaxed,
        },
        &blob::Limits {
            read_buffer_bytes: as_usize(config.limits.read_buffer_bytes.get()),
            part_buffer_bytes: as_usize(config.limits.part_buffer_bytes.get()),
        },
        observer(config, metrics),
    )
    .await
}

/// Refuses a database that is not what it should be: one whose recovery has not ended, and a new one beside the
/// manifests of another, which the sweep would strip of their blobs.
async fn check_lineage(meta: &MetaStore, blobs: &BlobStore) -> Result<(), Error> {
    let (is_empty, recovery) = meta
        .scan("look at database", |session| {
            Box::pin(async move {
                let is_empty = manifests::is_empty(session).await?;
                Ok::<_, Fault>((is_empty, manifests::recovery(session).await?))
            })
        })
        .await?;
    if recovery.is_some_and(|recovery| !recovery.is_done) {
        return Err(Error::Unrecovered);
    }
    if !is_empty {
        return Ok(());
    }
    let backends: Vec<String> = blobs.backends().map(str::to_owned).collect();
    for backend in backends {
        match blobs.list_manifests(&backend).await {
            Ok(names) if names.is_empty() => {}
            Ok(_) => return Err(Error::ForeignManifests(backend)),
            // The others must serve; the sweep looks again before it deletes anything.
            Err(fault) => tracing::warn!(%fault, "look for manifests"),
        }
    }
    Ok(())
}

/// Says so where nothing lies at a directory of which the database names blobs. It is served all the same: a disk that was
/// exchanged is filled again from its mirrors.
async fn look_for_bytes(meta: &MetaStore, blobs: &BlobStore) -> Result<(), Fault> {
    let known = meta
        .read("list backends", |session| {
            Box::pin(buckets::backends(session))
        })
        .await?;
    for (id, backend) in known {
        if !blobs.was_bare(&backend) {
            continue;
        }
        let is_named = meta
            .scan("find copies", move |session| {
                Box::pin(copies::any_live_at(session, id))
            })
            .await?;
        if is_named {
            tracing::error!(
                backend,
                "nothing lies at the root of this backend, and the database names blobs there: is it mounted?"
            );
        }
    }
    Ok(())
}

/// This node among those that share the database, and the way to the others.
fn here(
    meta: &MetaStore,
    clock: &Clock,
    master_key: &MasterKey,
    node: &Node,
) -> Result<content::Here, Fault> {
    let key = PeerKey::new(*master_key.derive(PeerKey::PURPOSE));
    let peers = Arc::new(Peers::new(meta.clone(), clock.clone(), key)?);
    Ok(content::Here {
        node: node.name().to_owned(),
        elsewhere: Arc::new(move |asked: content::Elsewhere| {
            let peers = Arc::clone(&peers);
            Box::pin(async move {
                let content::Elsewhere {
                    node,
                    backend,
                    blob,
                    range,
                } = asked;
                peers.read(&node, &backend, &blob, range).await
            })
        }),
    })
}

/// Opens the database that is configured: a server's, or that of the data directory, which the first to do so
/// makes.
pub(super) async fn open_meta(
    config: &Config,
    dir: &Path,
    metrics: &Arc<Metrics>,
) -> Result<MetaStore, Error> {
    let durability = durability(config);
    let metrics = Arc::clone(metrics);
    if let Some(url) = config.meta.server() {
        let connections = config.meta.connections.get();
        return Ok(MetaStore::connect(url, connections, durability, metrics).await?);
    }
    let path = directory::database(dir);
    directory::make_private(&path)?;
    Ok(MetaStore::open(&path, durability, metrics)?)
}

/// What a database is asked for.
pub(super) fn durability(config: &Config) -> meta::Durability {
    match config.storage.durability {
        config::Durability::Durable => meta::Durability::Durable,
        config::Durability::Relaxed => meta::Durability::Relaxed,
    }
}

/// The placements that buckets can be made at, by row.
struct Placements {
    /// Of new buckets.
    default: i64,
    /// Those that clients may ask for, by name.
    open: BTreeMap<String, i64>,
}

/// Gives every configured backend and placement its row. A backend that was moved away from needs what it was moved to,
/// since that is where its blobs go. What a placement with buckets holds is kept: one that is configured otherwise by
/// now is refused, because this node would not write where the others do. Of a backend that is one of each node, this
/// one records its own too, and for each placement with such one what stands for it here.
async fn record_placements(
    config: &Config,
    meta: &MetaStore,
    node: &Node,
) -> Result<Placements, Fault> {
    let (wanted, uids) = (Arc::new(config.clone()), Arc::clone(node.uids()));
    let here: Arc<str> = Arc::from(node.name());
    let (rows, known) = meta
        .transact("record placements", move |session| {
            let (config, uids) = (Arc::clone(&wanted), Arc::clone(&uids));
            let here = Arc::clone(&here);
            Box::pin(async move {
                let known = buckets::backends(session).await?;
                // Read after this node's row is there, which is what an order to move goes by.
                for (from, to) in moves::redirected(session).await? {
                    if config.backend.contains_key(&from) && !is_here(&config, &to, &here) {
                        return Err(moved_away(&from, &to));
                    }
                }
                let mut ids = BTreeMap::new();
                let mut own = BTreeMap::new();
                for (name, backend) in &config.backend {
                    let new = uids.next()?;
                    let service = &backend.service;
                    let id = buckets::ensure_backend(session, new, name, service).await?;
                    ids.insert(name.as_str(), id);
                    let own_name = buckets::own_name(name, &here);
                    if config.is_of_node(backend) {
                        if buckets::is_backend_used(session, id).await? {
                            return Err(scope_changed(name, "shared", "node"));
                        }
                        let new = uids.next()?;
                        let id = buckets::ensure_backend(session, new, &own_name, service).await?;
                        buckets::set_backend_node(session, id, &here).await?;
                        own.insert(name.as_str(), id);
                    } else if known.iter().any(|(_, known)| *known == own_name) {
                        return Err(scope_changed(name, "node", "shared"));
                    }
                }
                let mut rows = BTreeMap::new();
                for (name, placement) in config.placements() {
                    let named = placement.backends.iter();
                    let backends = named.filter_map(|name| ids.get(name.as_str()).copied());
                    let wanted = Placement {
                        backends: backends.collect(),
                        copies_required: placement.copies_required(),
                    };
                    let new = uids.next()?;
                    match placements::record(session, new, name, &wanted).await? {
                        Recorded::As(id) => rows.insert(name.to_owned(), id),
                        Recorded::Otherwise => return Err(other_backends(name)),
                    };
                    if !placement
                        .backends
                        .iter()
                        .any(|it| own.contains_key(it.as_str()))
                    {
                        continue;
                    }
                    let named = placement.backends.iter();
                    let backends = named.filter_map(|name| {
                        let name = name.as_str();
                        own.get(name).or_else(|| ids.get(name)).copied()
                    });
                    let wanted = Placement {
                        backends: backends.collect(),
                        copies_required: placement.copies_required(),
                    };
                    let own_name = buckets::own_name(name, &here);
                    let new = uids.next()?;
                    if placements::record(session, new, &own_name, &wanted).await?
                        == Recorded::Otherwise
                    {
                        return Err(other_backends(name));
                    }
                }
                Ok::<_, Fault>((rows, buckets::backends(session).await?))
            })
        })
        .await?;
    for (_, name) in known {
        // Those of other nodes are configured there.
        let is_common = !name.contains('@');
        if is_common && !config.backend.contains_key(&name) {
            tracing::warn!(
                backend = name,
                "not configured any more; its blobs cannot be read"
            );
        }
    }
    let chosen = &config.storage.placement;
    let default = rows.get(chosen).copied().ok_or_else(|| {
        Fault::new(Kind::Config, "record placements")
            .context(format_args!("storage.placement {chosen} is not configured"))
    })?;
    let is_open = |name: &String| config.placement.get(name).is_some_and(|it| it.open);
    let open = rows.into_iter().filter(|(name, _)| is_open(name));
    Ok(Placements {
        default,
        open: open.collect(),
    })
}

fn other_backends(placement: &str) -> Fault {
    Fault::new(Kind::Config, "record placements").context(format_args!(
        "placement.{placement}.backends: buckets are at this placement, and it was recorded with other backends; \
         give these a placement of another name and move the buckets with `osproxy move`"
    ))
}

/// Whether a backend is configured here; that of another node is there.
fn is_here(config: &Config, name: &str, node: &str) -> bool {
    match name.rsplit_once('@') {
        None => config.backend.contains_key(name),
        Some((name, of)) => of != node || config.backend.contains_key(name),
    }
}

fn moved_away(from: &str, to: &str) -> Fault {
    Fault::new(Kind::Config, "record backends").context(format_args!(
        "backend.{from} was moved to {to}, which is not configured here: blobs of {from} go there; add backend.{to}"
    ))
}

fn scope_changed(name: &str, was: &str, is: &str) -> Fault {
    Fault::new(Kind::Config, "record backends").context(format_args!(
        "backend.{name}.scope was \"{was}\" and cannot become \"{is}\": blobs lie there; give the new one another name"
    ))
}

/// What a backend is called on this node, in its row and in the store of blobs.
pub(super) fn called(config: &Config, name: &str, backend: &config::Backend) -> String {
    match config.is_of_node(backend) {
        true => buckets::own_name(name, &config.node.name()),
        false => name.to_owned(),
    }
}

/// Where manifests go: where it is not configured, and the blobs of new buckets went to a backend that was moved away
/// from, to the one that stands for it.
async fn manifests_backend(config: &Config, meta: &MetaStore) -> Result<String, Fault> {
    let name = config.manifests_backend();
    if !config.manifests.backend.is_empty() {
        return Ok(name.to_owned());
    }
    let moved = meta
        .scan("find moved backends", |session| {
            Box::pin(moves::redirected(session))
        })
        .await?;
    let moved = moved.into_iter().find(|(from, _)| from == name);
    let is_shared = |to: &String| {
        let backend = config.backend.get(to);
        backend.is_some_and(|backend| !config.is_of_node(backend))
    };
    Ok(moved
        .map(|(_, to)| to)
        .filter(is_shared)
        .unwrap_or_else(|| name.to_owned()))
}

fn backends(config: &Config, dir: &Path) -> BTreeMap<String, BackendConfig> {
    config
        .backend
        .iter()
        .map(|(name, backend)| {
            let name = called(config, name, backend);
            (name, backend.placed_in(dir))
        })
        .collect()
}

/// Puts what happens at every backend into the metrics, under names that are shared and not made anew each time.
fn observer(config: &Config, metrics: &Arc<Metrics>) -> Observer {
    let names: BTreeMap<String, Arc<str>> = config
        .backend
        .iter()
        .map(|(name, backend)| {
            let called = called(config, name, backend);
            (called, Arc::from(name.as_str()))
        })
        .collect();
    let metrics = Arc::clone(metrics);
    Arc::new(move |seen| {
        let Some(name) = names.get(seen.backend) else {
            return;
        };
        match seen.event {
            Event::Repeated { request } => metrics.backend_repeated(name, request),
            Event::Done {
                operation,
                elapsed,
                waited,
                fault,
            } => {
                metrics.store_done(name, operation, elapsed);
                metrics.backend_waited(name, waited);
                if let Some(kind) = fault {
                    metrics.backend_failed(name, operation, kind.name());
                }
            }
        }
    })
}

/// A limit of memory; one above what this machine can address is none.
fn as_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_root_is_under_the_data_directory_and_an_absolute_one_stays() {
        let mut config = Config::default();
        let root =
            |config: &Config| backends(config, Path::new("/data"))["local"].options["root"].clone();
        assert_eq!(root(&config), "/data/blobs");
        if let Some(local) = config.backend.get_mut("local") {
            local
                .options
                .0
                .insert("root".to_owned(), "/disk".to_owned());
        }
        assert_eq!(root(&config), "/disk");
    }
}
