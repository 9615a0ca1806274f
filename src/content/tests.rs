//! Encrypted contents from body to reader, on a disk of their own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::blob::{self, BackendConfig};
use crate::keys::{CustomerKey, MasterKey, NewKmsKey};
use crate::meta::placements::{self, Placement};
use crate::meta::{Durability, buckets, identities};
use crate::model::content::Protection;
use crate::model::ids::{EPOCH, TenantId};
use crate::model::progress::untold;

const FRAME: usize = 64 * 1024;
const INLINE: usize = 16 * 1024;
const TENANT: TenantId = TenantId(1);

/// Of any length, shared in `space`.
fn incoming(space: SpaceId, seal: Seal) -> Incoming {
    Incoming {
        space,
        shared: true,
        seal,
        length: None,
        limit: u64::MAX,
        verified_sha256: None,
        sha1: false,
    }
}

struct Install {
    dir: TempDir,
    meta: MetaStore,
    keys: Arc<Keys>,
    content: Arc<ContentStore>,
    plain: SpaceId,
    uids: Arc<UidGenerator>,
}

fn body(seed: u8, length: usize) -> Bytes {
    (0..length)
        .map(|index| seed.wrapping_add((index % 251) as u8))
        .collect::<Vec<u8>>()
        .into()
}

fn customer(fill: u8) -> CustomerKey {
    CustomerKey::new(&[fill; 32]).unwrap()
}

impl Install {
    async fn new() -> Self {
        Self::with_blobs_of(blob::BLOB_MAX_BYTES).await
    }

    async fn with_blobs_of(blob_max_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let meta = MetaStore::open(&path, Durability::Relaxed, Metrics::new()).unwrap();
        let clock = Clock::manual(EPOCH + 1_000_000);
        let uids = UidGenerator::new(clock.clone(), 0, clock.now());
        uids.extend(clock.now() + 1_000_000_000);
        let uids = Arc::new(uids);
        let backend = BackendConfig {
            blob_max_bytes,
            ..BackendConfig::new("fs", [("root", dir.path().join("blobs").to_str().unwrap())])
        };
        let blobs = BlobStore::open(
            &BTreeMap::from([("local".to_owned(), backend)]),
            blob::Durability::Relaxed,
            &blob::Limits::default(),
            Arc::new(|_| {}),
        )
        .await
        .unwrap();
        let plain = meta
            .transact("first rows", |session| {
                Box::pin(async move {
                    let tenant = identities::TenantRow {
                        id: TENANT,
                        name: "default".into(),
                        owner_id: "owner".into(),
                        created: 0,
                    };
                    identities::insert_tenant(session, &tenant).await?;
                    let backend = buckets::ensure_backend(session, 10, "local", "fs").await?;
                    let wanted = Placement {
                        backends: vec![backend],
                        copies_required: 1,
                    };
                    placements::record(session, 11, "default", &wanted).await?;
                    buckets::space(session, SpaceId(12), TENANT, 11).await
                })
            })
            .await
            .unwrap_or_else(|fault: Fault| panic!("{fault}"));
        let master_key = MasterKey::load(dir.path(), None, &meta).await.unwrap();
        let keys = Keys::new(
            meta.clone(),
            master_key,
            uids.clone(),
            clock.clone(),
            crate::meta::Bell::default(),
        );
        let keys = Arc::new(keys);
        let content = ContentStore::new(Parts {
            meta: meta.clone(),
            blobs,
            keys: keys.clone(),
            uids: uids.clone(),
            clock,
            metrics: Metrics::new(),
            here: None,
            config: Config {
                inline_max_bytes: INLINE as u64,
                memory_max_bytes: 4 * FRAME as u64,
                grace_seconds: 60,
                blob_retention_seconds: 0,
            },
        });
        Self {
            content: Arc::new(content.await.unwrap()),
            dir,
            meta,
            keys,
            plain,
            uids,
        }
    }

    /// The space beside the plain one and the key of `protection`.
    async fn under(&self, protection: Protection) -> (SpaceId, Seal) {
        let key = match protection {
            Protection::None => return (self.plain, Seal::Plain),
            Protection::Tenant => self.keys.of_tenant(TENANT).await.unwrap(),
            Protection::Kms(key) => key,
        };
        let (new, beside) = (SpaceId(self.uids.next().unwrap()), self.plain);
        let space = self
            .meta
            .transact("space", move |session| {
                Box::pin(buckets::space_beside(session, new, beside, protection))
            })
            .await
            .unwrap_or_else(|fault: Fault| panic!("{fault}"));
        (space, Seal::Key(key))
    }

    /// Waits, but not for ever, until so many blobs are left.
    async fn until_blobs_are(&self, count: usize) {
        for _ in 0..2000 {
            if self.blobs().len() == count {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    async fn store(
        &self,
        (space, seal): (SpaceId, Seal),
        body: Bytes,
    ) -> (ContentId, Arc<Received>) {
        let incoming = incoming(space, seal);
        let frames: Vec<_> = body
            .chunks(50_000)
            .map(Bytes::copy_from_slice)
            .map(Ok)
            .collect();
        let mut stream = std::pin::pin!(futures::stream::iter(frames));
        let received = self
            .content
            .receive(incoming, stream.as_mut())
            .await
            .unwrap();
        let received = Arc::new(received);
        received.begin_commit();
        let inside = Arc::clone(&received);
        let linked = self
            .meta
            .transact("link", move |session| {
                let received = Arc::clone(&inside);
                Box::pin(async move { ContentStore::link(session, &received, 0).await })
            })
            .await
            .unwrap_or_else(|fault: Fault| panic!("{fault}"));
        let Linked::To(id) = linked else {
            panic!("gone")
        };
        self.content.settle(&received, Ok(id));
        (id, received)
    }

    async fn put(&self, under: (SpaceId, Seal), body: Bytes) -> ContentId {
        self.store(under, body).await.0
    }

    async fn location(&self, id: ContentId) -> Location {
        self.meta
            .read("location", move |session| {
                Box::pin(contents::find_location(session, id))
            })
            .await
            .unwrap_or_else(|fault: Fault| panic!("{fault}"))
            .unwrap()
    }

    async fn read(
        &self,
        id: ContentId,
        range: Range<usize>,
        key: Option<CustomerKey>,
    ) -> Result<Vec<u8>, Fault> {
        let location = self.location(id).await;
        let range = range.start as u64..range.end as u64;
        let mut reader = self
            .content
            .open(id, location, range)
            .with_customer_key(key);
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await {
            all.extend_from_slice(&bytes?);
        }
        Ok(all)
    }

    fn blobs(&self) -> Vec<PathBuf> {
        fn walk(dir: PathBuf, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(path, found),
                    false => found.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path().join("blobs"), &mut found);
        found
    }
}

fn near_borders() -> impl Strategy<Value = usize> {
    (0usize..7, 0usize..5).prop_map(|(frames, off)| (frames * FRAME + off).saturating_sub(2))
}

/// A length between nothing and long bodies, with two places in it.
fn lengths() -> impl Strategy<Value = (usize, usize, usize)> {
    let length = prop_oneof![near_borders(), 0usize..2 * INLINE, 0usize..1_500_000];
    length.prop_flat_map(|length| {
        let place =
            || prop_oneof![near_borders(), 0usize..=length].prop_map(move |at| at.min(length));
        (Just(length), place(), place())
    })
}

#[test]
fn what_was_sent_is_read_whatever_protects_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let install = runtime.block_on(Install::new());
    let config = ProptestConfig::with_cases(40);
    proptest!(config, |((length, a, b) in lengths(), seed in any::<u8>(), which in 0..3)| {
        let range = a.min(b)..a.max(b);
        let body = body(seed, length);
        runtime.block_on(async {
            let (under, key) = match which {
                0 => (install.under(Protection::None).await, None),
                1 => (install.under(Protection::Tenant).await, None),
                _ => ((install.plain, Seal::Customer(customer(seed))), Some(customer(seed))),
            };
            let (id, received) = install.store(under, body.clone()).await;
            prop_assert_eq!(received.digests.length, length as u64);
            let whole = install.read(id, 0..length, key.clone()).await.unwrap();
            prop_assert!(whole == body, "{} bytes differ", length);
            let part = install.read(id, range.clone(), key).await.unwrap();
            prop_assert!(part == body[range.clone()], "{:?} of {} differs", range, length);
            Ok(())
        })?;
    });
}

#[tokio::test]
async fn equal_bytes_are_shared_under_one_key_and_never_between_keys() {
    let install = Install::new().await;
    let kms = |name: &str| NewKmsKey {
        tenant: "default".into(),
        key_id: Some(name.into()),
        ..NewKmsKey::default()
    };
    let mut protections = vec![Protection::None, Protection::Tenant];
    for name in ["k1", "k2"] {
        install.keys.create_kms(kms(name)).await.unwrap();
        let key = install.keys.kms(TENANT, name).await.unwrap();
        protections.push(Protection::Kms(key.id));
    }
    for length in [100, 3 * FRAME, 10 * FRAME] {
        let mut ids = Vec::new();
        for protection in &protections {
            let under = install.under(*protection).await;
            let first = install.put(under.clone(), body(1, length)).await;
            let again = install.put(under, body(1, length)).await;
            assert_eq!(first, again, "{protection:?}");
            ids.push(first);
        }
        for key in [1, 1, 2] {
            let under = (install.plain, Seal::Customer(customer(key)));
            ids.push(install.put(under, body(1, length)).await);
        }
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "{length} bytes");
    }
}

#[tokio::test]
async fn digests_are_those_of_the_plain_bytes_and_the_disk_has_none_of_them() {
    let install = Install::new().await;
    for length in [INLINE, 3 * FRAME, 10 * FRAME + 5] {
        let body = body(3, length);
        let under = install.under(Protection::None).await;
        let plain = install.store(under, body.clone()).await.1.digests.clone();
        for path in install.blobs() {
            std::fs::remove_file(path).unwrap();
        }
        let sealed = install.under(Protection::Tenant).await;
        let customers = (install.plain, Seal::Customer(customer(1)));
        for under in [sealed, customers] {
            let (id, received) = install.store(under, body.clone()).await;
            assert_eq!(received.digests, plain);
            if let contents::Place::Inline(bytes) = install.location(id).await.place {
                assert!(!bytes.windows(16).any(|window| window == &body[..16]));
            }
        }
        for path in install.blobs() {
            let bytes = std::fs::read(path).unwrap();
            assert!(!bytes.windows(16).any(|window| window == &body[..16]));
        }
    }
}

#[tokio::test]
async fn a_blob_that_was_changed_or_cut_ends_the_read_as_corrupt() {
    let install = Install::new().await;
    let (length, under) = (5 * FRAME + 7, install.under(Protection::Tenant).await);
    let id = install.put(under, body(4, length)).await;
    let [path] = &install.blobs()[..] else {
        panic!("one blob")
    };
    let whole = std::fs::read(path).unwrap();
    for place in [0, FRAME, 2 * FRAME + 40, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        std::fs::write(path, damaged).unwrap();
        let location = install.location(id).await;
        let mut reader = install.content.open(id, location, 0..length as u64);
        let mut before = Vec::new();
        let fault = loop {
            match reader.next().await.unwrap() {
                Ok(bytes) => before.extend_from_slice(&bytes),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault.kind(), Kind::Corrupt, "byte {place}");
        assert_eq!(before, body(4, length)[..place / (FRAME + 16) * FRAME]);
        assert!(reader.next().await.is_none());
    }
    let swapped = [
        &whole[FRAME + 16..2 * (FRAME + 16)],
        &whole[..FRAME + 16],
        &whole[2 * (FRAME + 16)..],
    ];
    std::fs::write(path, swapped.concat()).unwrap();
    let fault = install.read(id, 0..length, None).await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Corrupt);
    std::fs::write(path, &whole[..4 * (FRAME + 16)]).unwrap();
    assert!(install.read(id, 0..length, None).await.is_err());
    std::fs::write(path, &whole).unwrap();
    assert_eq!(
        install.read(id, 0..length, None).await.unwrap(),
        body(4, length)
    );
}

#[tokio::test]
async fn a_customers_content_opens_with_its_key_alone() {
    let install = Install::new().await;
    for length in [100, 5 * FRAME] {
        let under = (install.plain, Seal::Customer(customer(1)));
        let id = install.put(under, body(5, length)).await;
        for key in [None, Some(customer(2))] {
            let fault = install.read(id, 0..length, key).await.unwrap_err();
            assert_eq!(fault.kind(), Kind::Corrupt);
        }
        let read = install.read(id, 0..length, Some(customer(1))).await;
        assert_eq!(read.unwrap(), body(5, length));
        let known = install
            .meta
            .read("digests", move |session| {
                Box::pin(contents::digests(session, id))
            })
            .await
            .unwrap_or_else(|fault: Fault| panic!("{fault}"));
        assert_eq!(known, None, "found by digest");
    }
}

#[tokio::test]
async fn rotation_wraps_every_data_key_anew_and_every_byte_is_still_there() {
    let install = Install::new().await;
    let under = install.under(Protection::Tenant).await;
    let mut ids = Vec::new();
    // More than one round.
    for seed in 0..210u8 {
        ids.push(install.put(under.clone(), body(seed, 300)).await);
    }
    ids.push(install.put(under.clone(), body(0, 5 * FRAME)).await);
    let customers = (install.plain, Seal::Customer(customer(1)));
    let customers = install.put(customers, body(0, 300)).await;
    assert_eq!(
        install.content.rewrap(&untold).await.unwrap(),
        RewrapReport::default()
    );
    install.keys.rotate_tenants(None).await.unwrap();
    let status = install.keys.list().await.unwrap();
    assert_eq!((status[0].contents, status[0].outdated), (211, 211));
    let report = install.content.rewrap(&untold).await.unwrap();
    assert_eq!((report.rewrapped, report.failed), (211, 0));
    let status = install.keys.list().await.unwrap();
    assert_eq!((status[0].contents, status[0].outdated), (211, 0));
    for (seed, id) in ids.iter().enumerate().take(210) {
        let read = install.read(*id, 0..300, None).await.unwrap();
        assert_eq!(read, body(seed as u8, 300));
    }
    let read = install.read(ids[210], 0..5 * FRAME, None).await.unwrap();
    assert_eq!(read, body(0, 5 * FRAME));
    let read = install.read(customers, 0..300, Some(customer(1))).await;
    assert_eq!(read.unwrap(), body(0, 300));
    // Still found, and not stored again.
    assert_eq!(install.put(under, body(7, 300)).await, ids[7]);
}

#[tokio::test]
async fn a_disabled_kms_key_neither_takes_nor_gives_bytes_and_its_contents_wait() {
    let install = Install::new().await;
    let new = NewKmsKey {
        tenant: "default".into(),
        key_id: Some("k1".into()),
        ..NewKmsKey::default()
    };
    install.keys.create_kms(new).await.unwrap();
    let key = install.keys.kms(TENANT, "k1").await.unwrap().id;
    let under = install.under(Protection::Kms(key)).await;
    let id = install.put(under.clone(), body(6, 5 * FRAME)).await;
    install.keys.rotate_kms("default", "k1").await.unwrap();
    install
        .keys
        .enable_kms("default", "k1", false)
        .await
        .unwrap();
    assert!(install.read(id, 0..10, None).await.is_err());
    assert_eq!(install.content.rewrap(&untold).await.unwrap().rewrapped, 0);
    let incoming = Incoming {
        space: under.0,
        shared: true,
        seal: under.1,
        length: None,
        limit: u64::MAX,
        verified_sha256: None,
        sha1: false,
    };
    let mut stream = std::pin::pin!(futures::stream::iter([Ok(body(9, 5 * FRAME))]));
    let refused = install.content.receive(incoming, stream.as_mut()).await;
    assert!(matches!(refused, Err(ReceiveError::Fault(_))));
    install
        .keys
        .enable_kms("default", "k1", true)
        .await
        .unwrap();
    assert_eq!(install.content.rewrap(&untold).await.unwrap().rewrapped, 1);
    assert_eq!(
        install.read(id, 0..5 * FRAME, None).await.unwrap(),
        body(6, 5 * FRAME)
    );
}

/// What a body takes in blobs of 1 MiB.
const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_body_longer_than_a_blob_lies_in_several_and_reads_as_one() {
    let install = Install::with_blobs_of(MIB as u64).await;
    let sealed = MIB - MIB.div_ceil(FRAME + 16) * 16;
    let tenant = install.under(Protection::Tenant).await;
    let customers = (install.plain, Seal::Customer(customer(1)));
    for (under, capacity) in [
        ((install.plain, Seal::Plain), MIB),
        (tenant, sealed),
        (customers, sealed),
    ] {
        for length in [
            capacity - 1,
            capacity,
            capacity + 1,
            2 * capacity,
            3 * capacity + 12_345,
        ] {
            let before = install.blobs().len();
            let bytes = body(length as u8, length);
            let id = install.put(under.clone(), bytes.clone()).await;
            assert_eq!(install.blobs().len() - before, length.div_ceil(capacity));
            let place = install.location(id).await.place;
            let is_composite = place == contents::Place::Composite;
            assert_eq!(is_composite, length > capacity, "{length}");
            let edges = [0, 1, capacity - 1, capacity, capacity + 1, length];
            for start in edges.into_iter().filter(|start| *start < length) {
                for end in edges
                    .into_iter()
                    .filter(|end| (start..=length).contains(end))
                {
                    let read = install.read(id, start..end, Some(customer(1))).await;
                    assert!(
                        read.unwrap() == bytes[start..end],
                        "{length} {start}..{end}"
                    );
                }
            }
        }
    }
    for path in install.blobs() {
        assert!(std::fs::metadata(path).unwrap().len() <= MIB as u64);
    }
}

#[tokio::test]
async fn a_body_in_several_blobs_is_known_again() {
    let install = Install::with_blobs_of(MIB as u64).await;
    let bytes = body(1, 3 * MIB + 5);
    let under = (install.plain, Seal::Plain);
    let first = install.put(under.clone(), bytes.clone()).await;
    let blobs = install.blobs();
    assert_eq!(blobs.len(), 4);
    // Nothing refers to it, so that it is written again and loses to the row that stands.
    let (again, received) = install.store(under, bytes).await;
    assert_eq!(again, first);
    drop(received);
    install.until_blobs_are(blobs.len()).await;
    let (mut left, mut before) = (install.blobs(), blobs);
    left.sort();
    before.sort();
    assert_eq!(left, before);
}

#[tokio::test]
async fn a_body_that_is_dropped_where_no_runtime_is_takes_its_blob_along() {
    let install = Install::with_blobs_of(MIB as u64).await;
    let incoming = incoming(install.plain, Seal::Plain);
    let mut stream = std::pin::pin!(futures::stream::iter([Ok(body(1, 2 * MIB))]));
    let received = install.content.receive(incoming, stream.as_mut()).await;
    let Ok(received) = received else {
        panic!("not received");
    };
    assert_eq!(install.blobs().len(), 2);
    std::thread::spawn(move || drop(received)).join().unwrap();
    install.until_blobs_are(0).await;
    assert_eq!(install.blobs(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_upload_that_ends_early_takes_the_blobs_it_finished_along() {
    let install = Install::with_blobs_of(MIB as u64).await;
    let incoming = incoming(install.plain, Seal::Plain);
    let frames = [Ok(body(1, 2 * MIB)), Ok(body(2, MIB)), Err("gone".into())];
    let mut stream = std::pin::pin!(futures::stream::iter(frames));
    let refused = install.content.receive(incoming, stream.as_mut()).await;
    assert!(matches!(refused, Err(ReceiveError::Body(_))));
    install.until_blobs_are(0).await;
    assert_eq!(install.blobs(), Vec::<PathBuf>::new());
}
