//! Concurrent writers of the same keys and the same bytes, with the collector among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use osproxy::model::bucket::Versioning;
use osproxy::model::clock::Clock;
use osproxy::model::ids::EPOCH;
use osproxy::model::object::{ETagList, WriteConditions};
use osproxy::model::progress::untold;
use osproxy::namespace::{Condition, PutRequest};

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, bytes};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_conditional_creates_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let install = Arc::new(Install::open(dir.path(), &Clock::manual(EPOCH + 1_000_000)).await);
    for round in 0..20 {
        let name = format!("key{round}");
        let tasks: Vec<_> = (0..16u8)
            .map(|writer| {
                let (install, name) = (install.clone(), name.clone());
                tokio::spawn(async move {
                    let received = install.receive(bytes(writer, 100)).await;
                    let request = PutRequest {
                        conditions: WriteConditions {
                            if_none_match: Some(ETagList::Any),
                            ..WriteConditions::default()
                        },
                        ..install.request(&name)
                    };
                    (writer, install.namespace.put(request, received).await)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                (writer, Ok(_)) => winners.push(writer),
                (_, Err(Condition::PreconditionFailed)) => {}
                (_, Err(condition)) => panic!("{condition:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(install.get(&name).await, Some(bytes(winners[0], 100)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_compare_and_swaps_on_one_etag_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let install = Arc::new(Install::open(dir.path(), &Clock::manual(EPOCH + 1_000_000)).await);
    let mut etag = install.put("k", bytes(0, 10)).await.etag;
    for round in 1..20u8 {
        let tasks: Vec<_> = (0..8u8)
            .map(|writer| {
                let install = install.clone();
                tokio::spawn(async move {
                    let body = bytes(
                        round.wrapping_mul(8).wrapping_add(writer),
                        10 + usize::from(round),
                    );
                    let received = install.receive(body).await;
                    let request = PutRequest {
                        conditions: WriteConditions {
                            if_match: Some(ETagList::Tags(vec![etag.to_string()])),
                            ..WriteConditions::default()
                        },
                        ..install.request("k")
                    };
                    install.namespace.put(request, received).await
                })
            })
            .collect();
        let mut won = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(written) => won.push(written.etag),
                Err(Condition::PreconditionFailed) => {}
                Err(condition) => panic!("{condition:?}"),
            }
        }
        assert_eq!(won.len(), 1);
        etag = won[0];
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versions_deleted_at_the_same_time_are_all_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut install = Install::open(dir.path(), &Clock::manual(EPOCH + 1_000_000)).await;
    install.set_versioning(Versioning::Enabled).await;
    let install = Arc::new(install);
    for round in 0..10 {
        let name = format!("key{round}");
        let mut ids = Vec::new();
        for seed in 0..12 {
            let version = install.put(&name, bytes(seed, 100)).await.version_id;
            ids.push(version.expect("of a versioned bucket"));
        }
        let deletions = ids.iter().map(|id| {
            let (install, name, id) = (install.clone(), name.clone(), *id);
            tokio::spawn(async move { install.delete_version(&name, Some(id)).await })
        });
        for deletion in deletions.collect::<Vec<_>>() {
            deletion.await.unwrap().unwrap();
        }
        for id in ids {
            assert_eq!(install.get_version(&name, Some(id)).await, None);
        }
        assert_eq!(install.get(&name).await, None);
    }
    assert_eq!(install.usage().await, (0, 0));
}

/// Writers, deleters and the collector over few keys and few bodies: whatever a key says it holds can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reference_dangles_while_the_collector_runs() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let install = Arc::new(Install::open(dir.path(), &clock).await);
    let collected = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let (install, collected) = (install.clone(), collected.clone());
            tokio::spawn(async move {
                for step in 0..2000 {
                    // Long enough that there was something to collect.
                    if step >= 60 && collected.load(Ordering::Relaxed) > 0 {
                        return;
                    }
                    let name = format!("k{}", (writer + step) % 5);
                    if step % 4 == 3 {
                        install.delete(&name).await;
                        continue;
                    }
                    let received = install.receive(bytes((step % 7) as u8, BLOB_BYTES)).await;
                    match install
                        .namespace
                        .put(install.request(&name), received)
                        .await
                    {
                        Ok(_) | Err(Condition::ContentGone) => {}
                        Err(condition) => panic!("{condition:?}"),
                    }
                }
            })
        })
        .collect();
    while !writers.iter().all(|writer| writer.is_finished()) {
        clock.advance(GRACE_MILLIS + 1);
        install.beat().await;
        let report = install.content.collect(&untold).await.unwrap();
        collected.fetch_add(report.contents, Ordering::Relaxed);
        install.content.sweep(&untold).await.unwrap();
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let collected = collected.load(Ordering::Relaxed);
    assert!(collected > 0, "the collector found nothing to do");
    for name in ["k0", "k1", "k2", "k3", "k4"] {
        if let Some(body) = install.get(name).await {
            assert_eq!(body.len(), BLOB_BYTES);
            assert_eq!(body, bytes(body[0], BLOB_BYTES));
        }
        install.delete(name).await;
    }
    install.collect_all().await;
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
    assert!(install.blobs().await.is_empty(), "bytes leaked");
}
