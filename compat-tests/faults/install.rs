//! An install in a directory, opened without listeners, with a clock that is moved by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use osproxy::blob::{self, BackendConfig, BlobStore};
use osproxy::content::{self, ContentStore};
use osproxy::keys::{Keys, MasterKey};
use osproxy::meta::copy::Place;
use osproxy::meta::placements::{self, Placement, Recorded};
use osproxy::meta::{Durability, MetaStore, buckets, identities, nodes};
use osproxy::model::bucket::{Bucket, Settings, Versioning};
use osproxy::model::clock::Clock;
use osproxy::model::fault::Fault;
use osproxy::model::ids::{TenantId, UidGenerator};
use osproxy::model::names::{BucketName, ObjectKey};
use osproxy::model::object::{Encryption, Headers, Lock, Tags, VersionId, WriteConditions};
use osproxy::model::progress::untold;
use osproxy::namespace::{
    self, BodyHint, Condition, DeleteRequest, Deleted, Namespace, NewBucket, PUT_MAX_BYTES,
    PutRequest, Received, Wanted, Written,
};
use osproxy::telemetry::Metrics;
use sqlx::Connection;

/// The grace of these installs.
pub const GRACE_MILLIS: i64 = 60_000;
/// Above the inline limit, so that the bytes lie in a blob.
pub const BLOB_BYTES: usize = 100_000;
/// The longest blob of the backend `short`.
pub const SHORT_BYTES: u64 = 1 << 20;

pub struct Install {
    pub meta: MetaStore,
    pub blobs: BlobStore,
    pub content: Arc<ContentStore>,
    pub namespace: Arc<Namespace>,
    pub keys: Arc<Keys>,
    pub uids: Arc<UidGenerator>,
    pub clock: Clock,
    pub bucket: Arc<Bucket>,
}

/// A body of `length` bytes that another `seed` makes different.
pub fn bytes(seed: u8, length: usize) -> Bytes {
    (0..length)
        .map(|index| seed.wrapping_add((index % 251) as u8))
        .collect::<Vec<u8>>()
        .into()
}

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

/// Where the database of the install in `dir` is: SQLite in it, or a database of its own, made if need be, at the
/// server that `COMPAT_META_URL` names.
pub async fn place(dir: &Path) -> Place {
    let Ok(server) = std::env::var("COMPAT_META_URL") else {
        return Place::Sqlite(dir.join("meta.db"));
    };
    let name = dir.file_name().unwrap().to_str().unwrap();
    let name = format!("osproxy{}", name.replace('.', "_").to_lowercase());
    if server.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(&format!("{server}/postgres"))
            .await
            .unwrap();
        // It is there already when the install is opened again.
        let _ = create(&mut connection, &name).await;
    } else {
        let mut connection = sqlx::MySqlConnection::connect(&format!("{server}/mysql"))
            .await
            .unwrap();
        let _ = create(&mut connection, &name).await;
    }
    Place::Server(format!("{server}/{name}"))
}

/// The database of the install in `dir`, opened.
pub async fn database(dir: &Path, metrics: Arc<Metrics>) -> MetaStore {
    match place(dir).await {
        Place::Sqlite(path) => MetaStore::open(&path, Durability::Relaxed, metrics).unwrap(),
        Place::Server(url) => MetaStore::connect(&url, 8, Durability::Relaxed, metrics)
            .await
            .unwrap(),
    }
}

/// Opens a database, if that is allowed.
pub async fn open_at(place: &Place) -> Result<MetaStore, Fault> {
    match place {
        Place::Sqlite(path) => MetaStore::open(path, Durability::Relaxed, Metrics::new()),
        Place::Server(url) => MetaStore::connect(url, 8, Durability::Relaxed, Metrics::new()).await,
    }
}

async fn create<'c, D, E>(connection: E, name: &str) -> Result<(), sqlx::Error>
where
    D: sqlx::Database,
    E: sqlx::Executor<'c, Database = D>,
{
    let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    connection.execute(sqlx::raw_sql(sql)).await.map(|_| ())
}

impl Install {
    /// Opens the install in `dir`; the first time it makes a tenant and a bucket.
    pub async fn open(dir: &Path, clock: &Clock) -> Self {
        let metrics = Metrics::new();
        let meta = database(dir, metrics.clone()).await;
        let uids = Arc::new(reserved(&meta, clock).await);
        let backend = BACKENDS.map(|name| {
            let root = backend_root(dir, name);
            let mut config = BackendConfig::new("fs", [("root", root.to_str().unwrap())]);
            if name == "short" {
                config.blob_max_bytes = SHORT_BYTES;
            }
            (name.to_owned(), config)
        });
        let backend = BTreeMap::from(backend);
        let blobs = BlobStore::open(
            &backend,
            blob::Durability::Relaxed,
            &blob::Limits::default(),
            Arc::new(|_| {}),
        )
        .await
        .unwrap();
        let placements = first_rows(&meta, &uids).await;
        let master_key = MasterKey::load(dir, None, &meta).await.unwrap();
        let keys = Keys::new(
            meta.clone(),
            master_key,
            uids.clone(),
            clock.clone(),
            namespace::Bell::default(),
        );
        let keys = Arc::new(keys);
        let content = ContentStore::new(content::Parts {
            meta: meta.clone(),
            blobs: blobs.clone(),
            keys: keys.clone(),
            uids: uids.clone(),
            clock: clock.clone(),
            metrics,
            here: None,
            config: content::Config {
                inline_max_bytes: 16 * 1024,
                memory_max_bytes: 256 * 1024,
                grace_seconds: (GRACE_MILLIS / 1000) as u64,
                blob_retention_seconds: 0,
            },
        })
        .await
        .unwrap();
        let content = Arc::new(content);
        let namespace = Arc::new(Namespace::new(namespace::Parts {
            meta: meta.clone(),
            content: content.clone(),
            keys: keys.clone(),
            uids: uids.clone(),
            worker: 0,
            default_placement: placements["local"],
            open_placements: placements,
            clock: clock.clone(),
            bell: namespace::Bell::default(),
            changed: namespace::Bell::default(),
            config: namespace::Config {
                buckets_max: 100,
                stale_upload_days: 7,
                merge: Some(namespace::MergeRule {
                    delay: 0,
                    max_bytes: u64::MAX,
                }),
            },
        }));
        let name = BucketName::parse("bucket").unwrap();
        let new = NewBucket {
            tenant: TenantId(1),
            name: name.clone(),
            region: String::new(),
            placement: None,
            object_lock: false,
            settings: Settings::default(),
        };
        match namespace.create_bucket(new).await {
            // As a server does it in its first minute.
            Ok(()) => drop(content.sweep(&untold).await.unwrap()),
            Err(Condition::BucketOwned) => {}
            Err(condition) => panic!("{condition:?}"),
        }
        let bucket = namespace.bucket(&name).await.unwrap();
        Self {
            meta,
            blobs,
            content,
            namespace,
            keys,
            uids,
            clock: clock.clone(),
            bucket,
        }
    }

    pub async fn receive(&self, body: Bytes) -> Received {
        self.receive_for(Wanted::Default, body).await.1
    }

    /// Receives a body to be protected so; answers how its version must say it is.
    pub async fn receive_for(&self, wanted: Wanted, body: Bytes) -> (Option<Encryption>, Received) {
        let hint = BodyHint {
            length: Some(body.len() as u64),
            limit: PUT_MAX_BYTES,
            verified_sha256: None,
            sha1: false,
        };
        let mut body = std::pin::pin!(futures::stream::iter([Ok(body)]));
        let target = self.namespace.target(&self.bucket, wanted).await.unwrap();
        let received = self.namespace.receive(&target, hint, body.as_mut()).await;
        (target.encryption().cloned(), received.unwrap())
    }

    pub async fn put_encrypted(&self, name: &str, body: Bytes) {
        let (encryption, received) = self.receive_for(Wanted::S3, body).await;
        let request = PutRequest {
            encryption,
            ..self.request(name)
        };
        self.namespace.put(request, received).await.unwrap();
    }

    pub fn request(&self, name: &str) -> PutRequest {
        PutRequest {
            cause: namespace::Cause::default(),
            bucket: self.bucket.clone(),
            key: key(name),
            headers: Headers::default(),
            tags: Tags::default(),
            checksum: None,
            conditions: WriteConditions::default(),
            sender: None,
            acl: None,
            encryption: None,
            lock: Lock::default(),
            recheck: None,
        }
    }

    /// As a facade does it: what was known, and was collected before it was referred to, is received again.
    pub async fn put(&self, name: &str, body: Bytes) -> Written {
        for _ in 0..10 {
            let received = self.receive(body.clone()).await;
            match self.namespace.put(self.request(name), received).await {
                Err(Condition::ContentGone) => {}
                outcome => return outcome.unwrap(),
            }
        }
        panic!("{name}: its content was collected again and again");
    }

    pub async fn delete(&self, name: &str) {
        self.delete_version(name, None).await.unwrap();
    }

    pub async fn delete_version(
        &self,
        name: &str,
        version: Option<VersionId>,
    ) -> Result<Deleted, Condition> {
        self.namespace
            .delete(DeleteRequest {
                reason: namespace::Reason::Asked,
                origin: Default::default(),
                bucket: self.bucket.clone(),
                key: key(name),
                version,
                conditions: WriteConditions::default(),
                only: None,
                bypass_governance: false,
                recheck: None,
            })
            .await
    }

    /// All bytes of a key; `None` when there is no such key.
    pub async fn get(&self, name: &str) -> Option<Bytes> {
        self.get_version(name, None).await
    }

    /// All bytes of a version; `None` when there is none, or it is a delete marker.
    pub async fn get_version(&self, name: &str, id: Option<VersionId>) -> Option<Bytes> {
        let object = match self.namespace.get(&self.bucket, &key(name), id).await {
            Ok(object) => object,
            Err(Condition::NoSuchKey | Condition::NoSuchVersion | Condition::Marker { .. }) => {
                return None;
            }
            Err(condition) => panic!("{condition:?}"),
        };
        let mut reader = self.namespace.open(&object, 0..object.version.size, None);
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await {
            all.extend_from_slice(&bytes.unwrap());
        }
        Some(all.into())
    }

    /// Goes on with a bucket of its own, made at a placement.
    pub async fn use_bucket_at(&mut self, placement: &str) {
        let name = BucketName::parse(&format!("bucket-{placement}")).unwrap();
        let new = NewBucket {
            tenant: TenantId(1),
            name: name.clone(),
            region: String::new(),
            placement: Some(placement.to_owned()),
            object_lock: false,
            settings: Settings::default(),
        };
        self.namespace.create_bucket(new).await.unwrap();
        self.bucket = self.namespace.bucket(&name).await.unwrap();
    }

    /// Names of the blobs the backend holds.
    pub async fn blobs(&self) -> Vec<String> {
        self.blobs_at("local").await
    }

    /// Names of the blobs a backend holds.
    pub async fn blobs_at(&self, backend: &str) -> Vec<String> {
        let mut list = self.blobs.list(backend).unwrap();
        let mut names = Vec::new();
        while let Some(name) = list.next().await {
            names.push(name.unwrap().as_str().to_owned());
        }
        names
    }

    /// Records what is open here, as the node's heartbeat does.
    pub async fn beat(&self) {
        self.beat_as(1, "test", &BACKENDS).await;
    }

    /// Records a node that has some backends.
    pub async fn beat_as(&self, node: i64, name: &str, backends: &[&str]) {
        let times = self.content.open_times();
        let beat = nodes::Heartbeat {
            now: self.clock.now(),
            lease_until: self.clock.now() + 10_000,
            oldest_read: times.oldest_read(),
            oldest_write: times.oldest_write(),
        };
        let who = Arc::new(nodes::Who {
            name: name.to_owned(),
            address: None,
            backends: backends.iter().map(|&name| name.to_owned()).collect(),
        });
        self.meta
            .transact("beat", move |session| {
                let who = Arc::clone(&who);
                Box::pin(async move { nodes::beat(session, node, &who, &beat).await })
            })
            .await
            .unwrap();
    }

    pub async fn set_versioning(&mut self, versioning: Versioning) {
        self.namespace
            .update_bucket(&self.bucket, None, move |bucket| {
                bucket.versioning = versioning;
                Ok(())
            })
            .await
            .unwrap();
        self.bucket = self.namespace.bucket(&self.bucket.name).await.unwrap();
    }

    /// Objects and bytes of the bucket, as they are counted.
    pub async fn usage(&self) -> (u64, u64) {
        let id = self.bucket.id;
        let read = self.meta.read("usage", move |session| {
            Box::pin(buckets::usage(session, Some(id)))
        });
        read.await.unwrap()
    }

    /// How many contents have a row.
    pub async fn contents(&self) -> u64 {
        let read = self.meta.read("totals", |session| {
            Box::pin(osproxy::meta::contents::totals(session))
        });
        read.await.unwrap().contents
    }

    /// Lets the grace pass and collects twice: what a composite released waits for a grace of its own.
    pub async fn collect_all(&self) {
        for _ in 0..2 {
            self.clock.advance(GRACE_MILLIS + 1);
            self.beat().await;
            self.content.collect(&untold).await.unwrap();
        }
    }

    /// Ends as a crash does: a write that a test has forgotten gets no chance to clean up. The install itself has
    /// nothing that cleans up when it goes; dropping it gives its open files back.
    pub async fn crash(self) {
        self.meta.close().await;
    }
}

async fn reserved(meta: &MetaStore, clock: &Clock) -> UidGenerator {
    let now = clock.now();
    let floor = meta
        .transact("reserve", move |session| {
            Box::pin(async move {
                let floor = nodes::reserved_until(session, 0).await?.max(now);
                nodes::reserve(session, 0, 1, floor + 86_400_000).await?;
                Ok::<_, Fault>(floor)
            })
        })
        .await
        .unwrap();
    let uids = UidGenerator::new(clock.clone(), 0, floor);
    uids.extend(floor + 86_400_000);
    uids
}

/// Where the blobs of a backend lie.
pub fn backend_root(dir: &Path, backend: &str) -> PathBuf {
    match backend {
        "local" => dir.join("blobs"),
        other => dir.join(other),
    }
}

const BACKENDS: [&str; 3] = ["local", "other", "short"];

/// Each backend alone, two with one copy required, and two with two.
const PLACEMENTS: [(&str, &[&str], usize); 5] = [
    ("short", &["short"], 1),
    ("local", &["local"], 1),
    ("other", &["other"], 1),
    ("both", &["local", "other"], 1),
    ("strict", &["local", "other"], 2),
];

async fn first_rows(meta: &MetaStore, uids: &Arc<UidGenerator>) -> BTreeMap<String, i64> {
    let uids = uids.clone();
    meta.transact("first rows", move |session| {
        let uids = uids.clone();
        Box::pin(async move {
            if identities::find_tenant(session, "default").await?.is_none() {
                let tenant = identities::TenantRow {
                    id: TenantId(1),
                    name: "default".into(),
                    owner_id: "owner".into(),
                    created: 0,
                };
                identities::insert_tenant(session, &tenant).await?;
            }
            let mut ids = BTreeMap::new();
            for name in BACKENDS {
                let id = buckets::ensure_backend(session, uids.next()?, name, "fs").await?;
                ids.insert(name, id);
            }
            let mut rows = BTreeMap::new();
            for (name, backends, copies_required) in PLACEMENTS {
                let wanted = Placement {
                    backends: backends.iter().map(|name| ids[name]).collect(),
                    copies_required,
                };
                match placements::record(session, uids.next()?, name, &wanted).await? {
                    Recorded::As(id) => rows.insert(name.to_owned(), id),
                    Recorded::Otherwise => panic!("other backends are recorded"),
                };
            }
            Ok::<_, Fault>(rows)
        })
    })
    .await
    .unwrap_or_else(|fault: Fault| panic!("{fault}"))
}
