//! The collector beside reads that are open, very many releases, and contents that it cannot decide on.

use std::time::Duration;

use osproxy::cluster::{self, Node, Who};
use osproxy::content::{Act, Depth, FsckOrder};
use osproxy::meta::TRANSACTION_MAX;
use osproxy::meta::copy::Place;
use osproxy::meta::releases;
use osproxy::model::clock::millis;
use osproxy::model::fault::Fault;
use osproxy::model::ids::ContentId;
use osproxy::model::progress::untold;
use osproxy::namespace::Reader;
use osproxy::tasks::Collector;
use osproxy::telemetry::Metrics;

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, bytes, key, place};
use crate::moves::fresh;

/// Longer than what a reader takes at once.
const LONG: usize = 2_000_000;
/// As many as one content had when its youngest release was overlooked.
const VERY_MANY: i64 = 10_100;

async fn content_of(install: &Install, name: &str) -> ContentId {
    let name = key(name);
    let object = install.namespace.get(&install.bucket, &name, None);
    object.await.unwrap().version.content
}

/// A reader that has read the first bytes.
async fn begin_reading(install: &Install, name: &str) -> (Reader, Vec<u8>) {
    let name = key(name);
    let object = install.namespace.get(&install.bucket, &name, None);
    let object = object.await.unwrap();
    let mut reader = install
        .namespace
        .open(&object, 0..object.version.size, None);
    let first = reader.next().await.unwrap().unwrap().to_vec();
    (reader, first)
}

/// Lets the grace pass and collects, and expects the reader to get every byte from a blob that is there.
async fn collect_beside(install: &Install, reader: (Reader, Vec<u8>), body: &[u8]) {
    let (mut reader, mut all) = reader;
    install.clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.collect(&untold).await.unwrap();
    assert_eq!(install.blobs().await.len(), 1);
    while let Some(bytes) = reader.next().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    assert!(all == body);
    drop(reader);
    install.collect_all().await;
    assert!(install.blobs().await.is_empty());
    assert_eq!(install.contents().await, 0);
}

/// The releases of a content.
async fn releases_of(install: &Install, content: ContentId) -> usize {
    let found: Result<Vec<i64>, Fault> = install
        .meta
        .scan("count", move |session| {
            Box::pin(releases::of(session, content, i64::MAX, 20_000))
        })
        .await;
    found.unwrap().len()
}

#[tokio::test]
async fn a_read_that_begins_while_a_delete_waits_for_its_commit_gets_every_byte() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let body = bytes(1, LONG);
    install.put("a", body.clone()).await;
    // The delete reads the time and then waits as long as a transaction may; meanwhile the read finds the version.
    let waited = millis(TRANSACTION_MAX) - 1;
    clock.advance(waited);
    let reader = begin_reading(&install, "a").await;
    clock.advance(-waited);
    install.delete("a").await;
    clock.advance(waited);
    collect_beside(&install, reader, &body).await;
}

#[tokio::test]
async fn the_youngest_of_very_many_releases_decides() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let body = bytes(1, LONG);
    install.put("a", body.clone()).await;
    let content = content_of(&install, "a").await;
    let (uids, at) = (install.uids.clone(), clock.now());
    for _ in 0..VERY_MANY / 100 {
        let uids = uids.clone();
        install
            .meta
            .transact("release", move |session| {
                let uids = uids.clone();
                Box::pin(async move {
                    for _ in 0..100 {
                        releases::release(session, uids.next()?, content, at).await?;
                    }
                    Ok::<_, Fault>(())
                })
            })
            .await
            .unwrap();
    }
    clock.advance(millis(TRANSACTION_MAX) + GRACE_MILLIS);
    let reader = begin_reading(&install, "a").await;
    clock.advance(1);
    install.delete("a").await;
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.collect(&untold).await.unwrap();
    assert_eq!(releases_of(&install, content).await, 1, "old ones are left");
    collect_beside(&install, reader, &body).await;
    assert_eq!(releases_of(&install, content).await, 0);
}

#[tokio::test]
async fn a_content_that_goes_takes_all_of_very_many_releases_along() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("a", bytes(1, BLOB_BYTES)).await;
    let content = content_of(&install, "a").await;
    let uids = install.uids.clone();
    install
        .meta
        .transact("release", move |session| {
            let uids = uids.clone();
            Box::pin(async move {
                for at in 0..1_200 {
                    releases::release(session, uids.next()?, content, at).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await
        .unwrap();
    install.delete("a").await;
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    let report = install.content.collect(&untold).await.unwrap();
    assert_eq!((report.contents, report.blobs, report.failed), (1, 1, 0));
    assert_eq!(releases_of(&install, content).await, 0);
    assert!(install.blobs().await.is_empty());
}

#[tokio::test]
async fn a_content_that_cannot_be_judged_is_told_of_and_keeps_no_other() {
    let (dir, clock) = fresh();
    let Place::Sqlite(path) = place(dir.path()).await else {
        println!("skipped: the content is spoilt by a trigger of SQLite");
        return;
    };
    let install = Install::open(dir.path(), &clock).await;
    for seed in 1..=3 {
        install
            .put(&format!("k{seed}"), bytes(seed, BLOB_BYTES))
            .await;
    }
    let spoilt = content_of(&install, "k1").await;
    let sql = format!(
        "CREATE TRIGGER spoilt BEFORE DELETE ON contents WHEN OLD.id = {}
         BEGIN SELECT RAISE(ABORT, 'spoilt'); END",
        spoilt.0
    );
    let direct = rusqlite::Connection::open(path).unwrap();
    direct.execute_batch(&sql).unwrap();
    for name in ["k1", "k2", "k3"] {
        install.delete(name).await;
    }
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    let report = install.content.collect(&untold).await.unwrap();
    assert_eq!((report.contents, report.blobs, report.failed), (2, 2, 1));
    assert_eq!(install.blobs().await.len(), 1);
    direct.execute_batch("DROP TRIGGER spoilt").unwrap();
    let report = install.content.collect(&untold).await.unwrap();
    assert_eq!((report.contents, report.blobs, report.failed), (1, 1, 0));
    assert!(install.blobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_stands_still_holds_up_no_collection() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("a", bytes(1, BLOB_BYTES)).await;
    install.delete("a").await;
    clock.advance(GRACE_MILLIS + 1);
    let who = Who {
        name: "compares".to_owned(),
        address: None,
        backends: Vec::new(),
    };
    let (meta, config) = (install.meta.clone(), cluster::Config::default());
    let node = Node::claim(meta, clock, &config, who, Metrics::new()).await;
    let collector = Collector::new(install.content.clone(), node.unwrap());
    let order = FsckOrder {
        backend: None,
        depth: Depth::All,
        act: Act::Mend,
        bytes_per_second: None,
    };
    let mut fsck = std::pin::pin!(collector.fsck(&order, &untold));
    // However far it has come, it is not gone on with while the collector works.
    for _ in 0..20 {
        if futures::poll!(fsck.as_mut()).is_ready() {
            break;
        }
        let collected = tokio::time::timeout(Duration::from_secs(60), collector.pass(&untold));
        collected.await.expect("the collector waits").unwrap();
    }
    assert!(install.blobs().await.is_empty());
}
