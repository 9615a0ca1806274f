//! Crashes between any two writes that belong together.

use osproxy::model::clock::Clock;
use osproxy::model::digest::ETag;
use osproxy::model::ids::EPOCH;
use osproxy::model::progress::untold;
use osproxy::namespace::{
    CompleteRequest, Condition, FillRequest, NamedPart, PART_MIN_BYTES, UploadId, Wanted,
};
use tempfile::TempDir;

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, backend_root, bytes, key};
use crate::moves::{begin, part};

fn fresh() -> (TempDir, Clock) {
    (
        tempfile::tempdir().unwrap(),
        Clock::manual(EPOCH + 1_000_000),
    )
}

#[tokio::test]
async fn a_crash_after_the_bytes_and_before_the_row_leaves_only_an_orphan() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let received = install.receive(bytes(1, BLOB_BYTES)).await;
    std::mem::forget(received);
    assert_eq!(install.blobs().await.len(), 1);
    install.crash().await;

    let install = Install::open(dir.path(), &clock).await;
    assert_eq!(install.get("a").await, None);
    install.beat().await;
    assert_eq!(
        install.content.sweep(&untold).await.unwrap().orphans,
        0,
        "too young"
    );
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    assert_eq!(install.content.sweep(&untold).await.unwrap().orphans, 1);
    assert!(install.blobs().await.is_empty());
}

/// Two backends may be one place under two names: each lists what only the other's rows name.
#[tokio::test]
async fn the_sweep_spares_what_a_row_names_at_another_backend() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let name = install.blobs().await.remove(0);
    let path = format!("{}/{name}", &name[16..18]);
    let [there, here] = ["local", "other"].map(|backend| backend_root(dir.path(), backend));
    std::fs::hard_link(there.join(&path), here.join(&path)).unwrap();
    clock.advance(10 * GRACE_MILLIS);
    install.beat().await;
    assert_eq!(install.content.sweep(&untold).await.unwrap().orphans, 0);
    assert!(here.join(&path).exists());
}

#[tokio::test]
async fn the_sweep_spares_a_blob_whose_write_is_still_open() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let received = install.receive(bytes(1, BLOB_BYTES)).await;
    clock.advance(10 * GRACE_MILLIS);
    install.beat().await;
    assert_eq!(install.content.sweep(&untold).await.unwrap().orphans, 0);
    install
        .namespace
        .put(install.request("late"), received)
        .await
        .unwrap();
    assert_eq!(install.get("late").await, Some(bytes(1, BLOB_BYTES)));
}

#[tokio::test]
async fn an_upload_that_is_dropped_takes_its_blob_along() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    drop(install.receive(bytes(1, BLOB_BYTES)).await);
    for _ in 0..500 {
        if install.blobs().await.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the blob stayed for 5 seconds");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    for (seed, length) in [(1, 0), (2, 1), (3, 5000), (4, BLOB_BYTES), (5, 3_000_000)] {
        install.put(&format!("k{seed}"), bytes(seed, length)).await;
    }
    install.crash().await;
    let install = Install::open(dir.path(), &clock).await;
    for (seed, length) in [(1, 0), (2, 1), (3, 5000), (4, BLOB_BYTES), (5, 3_000_000)] {
        let found = install.get(&format!("k{seed}")).await;
        assert_eq!(found, Some(bytes(seed, length)), "k{seed}");
    }
}

#[tokio::test]
async fn a_crash_between_condemning_and_deleting_is_finished_later() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("a", bytes(1, BLOB_BYTES)).await;
    install.delete("a").await;
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    // The transaction alone, as if the process died before it deleted the bytes.
    let content = {
        use osproxy::meta::releases;
        let due = install
            .meta
            .scan("due", |session| {
                Box::pin(releases::due(session, i64::MAX, (0, 0), 10))
            })
            .await
            .unwrap();
        due[0].content
    };
    install
        .meta
        .transact("condemn", move |session| {
            Box::pin(async move {
                use osproxy::meta::releases;
                let blob = releases::delete_content(session, content).await?.unwrap();
                releases::condemn_blob(session, blob, 0).await
            })
        })
        .await
        .unwrap();
    install.crash().await;

    let install = Install::open(dir.path(), &clock).await;
    assert_eq!(install.blobs().await.len(), 1);
    install.beat().await;
    assert_eq!(install.content.collect(&untold).await.unwrap().blobs, 1);
    assert!(install.blobs().await.is_empty());
}

#[tokio::test]
async fn equal_bytes_are_stored_once_until_the_last_name_goes() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    for name in ["a", "b", "c"] {
        install.put(name, bytes(7, BLOB_BYTES)).await;
    }
    assert_eq!(install.blobs().await.len(), 1);
    install.delete("a").await;
    install.put("b", bytes(8, BLOB_BYTES)).await;
    install.collect_all().await;
    assert_eq!(install.get("c").await, Some(bytes(7, BLOB_BYTES)));
    assert_eq!(install.blobs().await.len(), 2);
    install.delete("c").await;
    install.collect_all().await;
    assert_eq!(install.blobs().await.len(), 1);
    assert_eq!(install.get("b").await, Some(bytes(8, BLOB_BYTES)));
}

#[tokio::test]
async fn a_read_longer_than_the_grace_still_gets_every_byte() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let body = bytes(9, 2_000_000);
    install.put("a", body.clone()).await;
    let object = install
        .namespace
        .get(&install.bucket, &key("a"), None)
        .await
        .unwrap();
    let mut reader = install
        .namespace
        .open(&object, 0..object.version.size, None);
    let mut all = reader.next().await.unwrap().unwrap().to_vec();
    install.delete("a").await;
    install.collect_all().await;
    while let Some(bytes) = reader.next().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    assert_eq!(all, body);
    // A file that was deleted can be read by who has it open, and bytes elsewhere cannot.
    assert_eq!(install.blobs().await.len(), 1);
    drop(reader);
    install.collect_all().await;
    assert!(install.blobs().await.is_empty());
}

async fn upload_two_parts(install: &Install) -> (UploadId, Vec<NamedPart>) {
    let id = begin(install, "big").await;
    let mut named = Vec::new();
    for number in [1u32, 2] {
        let body = bytes(number as u8, 5 * 1024 * 1024);
        named.push(part(install, "big", id, number, body).await);
    }
    (id, named)
}

fn complete(install: &Install, id: UploadId, parts: &[NamedPart]) -> CompleteRequest {
    CompleteRequest {
        origin: Default::default(),
        bucket: install.bucket.clone(),
        key: key("big"),
        upload: id,
        parts: parts.to_vec(),
        checksum: None,
        size: None,
        part_min_bytes: PART_MIN_BYTES,
        headers: None,
        conditions: Default::default(),
        customer_key: None,
        recheck: None,
    }
}

#[tokio::test]
async fn a_complete_whose_answer_was_lost_gets_the_same_answer_again() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let (id, parts) = upload_two_parts(&install).await;
    let first = install
        .namespace
        .complete(complete(&install, id, &parts))
        .await
        .unwrap();
    install.crash().await;
    let install = Install::open(dir.path(), &clock).await;
    let again = install
        .namespace
        .complete(complete(&install, id, &parts))
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(first.etag.parts, Some(2));
    let mut wrong = parts.clone();
    wrong[0].etag = Some(ETag::single([0; 16]));
    let other = install
        .namespace
        .complete(complete(&install, id, &wrong))
        .await;
    assert!(matches!(other, Err(Condition::NoSuchUpload)));
    // The parts live on inside the object, and go with it.
    install.collect_all().await;
    let whole = [bytes(1, 5 * 1024 * 1024), bytes(2, 5 * 1024 * 1024)].concat();
    assert_eq!(install.get("big").await, Some(whole.into()));
    install.delete("big").await;
    install.collect_all().await;
    assert!(install.blobs().await.is_empty());
}

fn fill(install: &Install, upload: osproxy::namespace::UploadRow) -> FillRequest {
    FillRequest {
        bucket: install.bucket.clone(),
        upload,
        cause: Default::default(),
        headers: Default::default(),
        sender: None,
        recheck: None,
    }
}

#[tokio::test]
async fn one_body_completes_an_upload_once_and_frees_its_parts() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let (id, parts) = upload_two_parts(&install).await;
    let found = install.namespace.numbered_upload(id.0).await.unwrap();
    let (_, row) = found.unwrap();
    // A body that came whole, and a crash before its commit.
    let received = install.receive(bytes(9, BLOB_BYTES)).await;
    std::mem::forget(received);
    install.crash().await;

    let install = Install::open(dir.path(), &clock).await;
    assert!(install.namespace.numbered(id.0).await.unwrap().is_none());
    let received = install.receive(bytes(9, BLOB_BYTES)).await;
    let request = fill(&install, row.clone());
    let written = install.namespace.fill(request, received).await.unwrap();
    assert_eq!(written.uid, id.0, "the upload's number is the version's");
    install.crash().await;

    let install = Install::open(dir.path(), &clock).await;
    let found = install.namespace.numbered(id.0).await.unwrap().unwrap();
    assert_eq!(found.key, key("big"));
    assert!(found.is_current);
    assert_eq!(install.get("big").await, Some(bytes(9, BLOB_BYTES)));
    let received = install.receive(bytes(8, BLOB_BYTES)).await;
    let again = install.namespace.fill(fill(&install, row), received).await;
    assert!(matches!(again, Err(Condition::NoSuchUpload)));
    let late = install.namespace.complete(complete(&install, id, &parts));
    assert!(matches!(late.await, Err(Condition::NoSuchUpload)));
    assert_eq!(install.get("big").await, Some(bytes(9, BLOB_BYTES)));
    install.delete("big").await;
    assert!(install.namespace.numbered(id.0).await.unwrap().is_none());
    install.collect_all().await;
    // The refused body is open until its transaction has let go of it, and is spared for as long.
    for _ in 0..1000 {
        install.content.sweep(&untold).await.unwrap();
        if install.blobs().await.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("left: {:?}", install.blobs().await);
}

#[tokio::test]
async fn an_aborted_upload_frees_its_parts() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let (id, parts) = upload_two_parts(&install).await;
    install
        .namespace
        .abort(&install.bucket, &key("big"), id)
        .await
        .unwrap();
    let late = install
        .namespace
        .complete(complete(&install, id, &parts))
        .await;
    assert!(matches!(late, Err(Condition::NoSuchUpload)));
    install.collect_all().await;
    assert!(install.blobs().await.is_empty());
}

#[tokio::test]
async fn what_was_encrypted_is_there_after_a_crash_in_a_rotation() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let lengths = [0, 1, 5000, BLOB_BYTES, 3_000_000];
    for (seed, length) in lengths.into_iter().enumerate() {
        let body = bytes(seed as u8, length);
        install.put_encrypted(&format!("k{seed}"), body).await;
    }
    // A body that came whole, under the old version, and was never named.
    let (_, received) = install.receive_for(Wanted::S3, bytes(9, BLOB_BYTES)).await;
    std::mem::forget(received);
    install.crash().await;

    // The new version is durable, and nothing was wrapped anew yet.
    let install = Install::open(dir.path(), &clock).await;
    install.keys.rotate_tenants(None).await.unwrap();
    install.crash().await;

    let install = Install::open(dir.path(), &clock).await;
    for (seed, length) in lengths.into_iter().enumerate() {
        let found = install.get(&format!("k{seed}")).await;
        assert_eq!(found, Some(bytes(seed as u8, length)), "{length} bytes");
    }
    assert_eq!(install.content.rewrap(&untold).await.unwrap().rewrapped, 5);
    install.crash().await;

    let install = Install::open(dir.path(), &clock).await;
    for (seed, length) in lengths.into_iter().enumerate() {
        let found = install.get(&format!("k{seed}")).await;
        assert_eq!(found, Some(bytes(seed as u8, length)), "{length} bytes");
        install.delete(&format!("k{seed}")).await;
    }
    install.collect_all().await;
    install.content.sweep(&untold).await.unwrap();
    assert!(install.blobs().await.is_empty(), "bytes leaked");
    let status = install.keys.list().await.unwrap();
    assert_eq!((status[0].version, status[0].contents), (2, 0));
}
