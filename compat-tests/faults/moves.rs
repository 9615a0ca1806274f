//! Mirrors and moves: cut anywhere, raced by writers and readers, and with a backend that is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use osproxy::content::{Copied, Received, Route, Work};
use osproxy::meta::buckets;
use osproxy::model::bucket::Versioning;
use osproxy::model::clock::Clock;
use osproxy::model::fault::Fault;
use osproxy::model::ids::{BlobId, EPOCH, SenderId};
use osproxy::model::progress::untold;
use osproxy::namespace::{
    Bell, CompleteRequest, Condition, NamedPart, NewUpload, ReceiveError, UploadId, Wanted,
};
use osproxy::tasks::{Mirrors, MoveError, MoveOrder, MoveSummary, Mover, Moves, Outcome};
use tempfile::TempDir;

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, SHORT_BYTES, backend_root, bytes, key};
use crate::merge::{cut, joined};
use crate::scrub::{files, flip};

const PART: usize = 5 * 1024 * 1024;
/// More than two of the longest blobs of the backend `short`.
const LONG: usize = 2_600_000;

pub fn fresh() -> (TempDir, Clock) {
    (
        tempfile::tempdir().unwrap(),
        Clock::manual(EPOCH + 1_000_000),
    )
}

pub fn order(from: &str, to: &str, bucket: Option<&str>) -> MoveOrder {
    MoveOrder {
        from: from.to_owned(),
        to: to.to_owned(),
        bucket: bucket.map(str::to_owned),
        rate: None,
        // The placements of two backends, which most tests have no use for, name both.
        mirrors: Mirrors::Lose,
    }
}

fn moves(install: &Install) -> Moves {
    Moves::new(install.meta.clone(), install.clock.clone(), Bell::default())
}

pub async fn start(install: &Install, order: MoveOrder) -> Result<i64, MoveError> {
    let begun = moves(install).start(order, &install.uids).await?;
    Ok(begun.id.parse().unwrap())
}

pub fn mover(install: &Install) -> Mover {
    Mover {
        meta: install.meta.clone(),
        content: install.content.clone(),
        namespace: install.namespace.clone(),
        clock: install.clock.clone(),
    }
}

/// Runs a move to its end, with the time and the collector it waits for.
pub async fn finish(install: &Install, id: i64) -> MoveSummary {
    let mover = mover(install);
    for _ in 0..50 {
        if let Outcome::Done(_) = mover.step(id, None).await.unwrap() {
            return moves(install).show(id).await.unwrap();
        }
        install.clock.advance(GRACE_MILLIS / 3);
        install.beat().await;
        install.content.collect(&untold).await.unwrap();
    }
    panic!("{:?}", moves(install).show(id).await);
}

/// Versions of every kind: inline, stored, equal, overwritten, encrypted, joined, and an upload that is open.
pub async fn fill(install: &Install) -> Vec<(String, Bytes)> {
    let mut written = Vec::new();
    for (seed, length) in [(1, 0), (2, 5000), (3, BLOB_BYTES), (4, 600_000)] {
        for name in [format!("k{seed}"), format!("equal{seed}")] {
            install.put(&name, bytes(seed, length)).await;
            written.push((name, bytes(seed, length)));
        }
        install
            .put_encrypted(&format!("sealed{seed}"), bytes(seed, length))
            .await;
        written.push((format!("sealed{seed}"), bytes(seed, length)));
    }
    install.put("k3", bytes(30, BLOB_BYTES)).await;
    written.retain(|(name, _)| name != "k3");
    written.push(("k3".to_owned(), bytes(30, BLOB_BYTES)));
    let parts = [bytes(7, PART), bytes(8, BLOB_BYTES)];
    join(install, "joined", &parts).await;
    written.push(("joined".to_owned(), parts.concat().into()));
    written
}

pub async fn part(
    install: &Install,
    name: &str,
    upload: UploadId,
    number: u32,
    body: Bytes,
) -> NamedPart {
    let received = install.receive(body).await;
    put_part(install, name, upload, number, received, None).await
}

/// A part whose bytes were received, as `sender`'s.
pub async fn put_part(
    install: &Install,
    name: &str,
    upload: UploadId,
    number: u32,
    received: Received,
    sender: Option<SenderId>,
) -> NamedPart {
    let row = install
        .namespace
        .upload(&install.bucket, &key(name), upload)
        .await
        .unwrap();
    let written = install
        .namespace
        .put_part(&row, number, None, sender, received)
        .await
        .unwrap();
    NamedPart {
        number,
        etag: Some(written.etag),
        checksums: Vec::new(),
    }
}

pub async fn begin(install: &Install, name: &str) -> UploadId {
    install
        .namespace
        .create_upload(&install.bucket, &key(name), NewUpload::default())
        .await
        .unwrap()
}

pub async fn complete(install: &Install, name: &str, upload: UploadId, parts: Vec<NamedPart>) {
    install
        .namespace
        .complete(CompleteRequest {
            origin: Default::default(),
            bucket: install.bucket.clone(),
            key: key(name),
            upload,
            parts,
            checksum: None,
            size: None,
            part_min_bytes: 1,
            headers: None,
            conditions: Default::default(),
            customer_key: None,
            recheck: None,
        })
        .await
        .unwrap();
}

pub async fn join(install: &Install, name: &str, bodies: &[Bytes]) {
    let upload = begin(install, name).await;
    let mut parts = Vec::new();
    for (index, body) in bodies.iter().enumerate() {
        parts.push(part(install, name, upload, index as u32 + 1, body.clone()).await);
    }
    complete(install, name, upload, parts).await;
}

pub async fn check(install: &Install, written: &[(String, Bytes)]) {
    for (name, body) in written {
        assert!(install.get(name).await.as_ref() == Some(body), "{name}");
    }
}

/// Opens the install again as after a crash, in the same bucket.
pub async fn again(install: Install, dir: &TempDir, clock: &Clock) -> Install {
    let name = install.bucket.name.clone();
    install.crash().await;
    let mut install = Install::open(dir.path(), clock).await;
    install.bucket = install.namespace.bucket(&name).await.unwrap();
    install
}

#[tokio::test]
async fn a_move_that_is_cut_anywhere_goes_on_and_leaves_nothing_behind() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    let written = fill(&install).await;
    let there = install.blobs().await.len();
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    for cut in 0..12 {
        let step = mover(&install);
        let patience = Duration::from_millis(cut * cut);
        let _ = tokio::time::timeout(patience, step.step(id, None)).await;
        install = again(install, &dir, &clock).await;
        install
            .put(&format!("new{cut}"), bytes(100 + cut as u8, BLOB_BYTES))
            .await;
        check(&install, &written).await;
    }
    let done = finish(&install, id).await;
    assert_eq!((done.failed, done.remains), (0, Some(0)), "{done:?}");
    assert!(install.blobs().await.is_empty());
    // What the cuts left is the sweep's.
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
    assert_eq!(install.blobs_at("other").await.len(), there + 12);
    std::fs::remove_dir_all(backend_root(dir.path(), "local")).unwrap();
    check(&install, &written).await;
}

#[tokio::test]
async fn a_reader_with_old_rows_finds_what_was_moved_meanwhile() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let object = install
        .namespace
        .get(&install.bucket, &key("k"), None)
        .await
        .unwrap();
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    finish(&install, id).await;
    assert!(install.blobs().await.is_empty());
    let mut reader = install
        .namespace
        .open(&object, 0..object.version.size, None);
    let mut read = Vec::new();
    while let Some(some) = reader.next().await {
        read.extend_from_slice(&some.unwrap());
    }
    assert_eq!(read, bytes(1, BLOB_BYTES));
}

#[tokio::test]
async fn a_write_planned_before_the_move_is_waited_for() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let planned = install.receive(bytes(1, BLOB_BYTES)).await;
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    let mover = mover(&install);
    for _ in 0..5 {
        clock.advance(GRACE_MILLIS);
        install.beat().await;
        assert!(matches!(mover.step(id, None).await, Ok(Outcome::More(_))));
    }
    assert_eq!(moves(&install).show(id).await.unwrap().state, "copying");
    let put = install.namespace.put(install.request("late"), planned);
    put.await.unwrap();
    let done = finish(&install, id).await;
    assert_eq!((done.moved, done.remains), (1, Some(0)));
    assert!(install.blobs().await.is_empty());
    assert_eq!(install.get("late").await, Some(bytes(1, BLOB_BYTES)));
}

#[tokio::test]
async fn a_bucket_that_moves_and_is_cut_anywhere_keeps_every_version() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.set_versioning(Versioning::Enabled).await;
    let written = fill(&install).await;
    let old = install.put("history", bytes(50, BLOB_BYTES)).await;
    install.put("history", bytes(51, BLOB_BYTES)).await;
    let upload = begin(&install, "open").await;
    let first = part(&install, "open", upload, 1, bytes(60, PART)).await;
    let usage = install.usage().await;
    let name = install.bucket.name.to_string();
    let id = start(&install, order("local", "other", Some(&name)))
        .await
        .unwrap();
    for cut in 0..10 {
        let step = mover(&install);
        let patience = Duration::from_millis(cut * cut * 3);
        let _ = tokio::time::timeout(patience, step.step(id, None)).await;
        install = again(install, &dir, &clock).await;
        check(&install, &written).await;
    }
    // Joined of a part from before and one from after, while it moves.
    let second = part(&install, "open", upload, 2, bytes(61, BLOB_BYTES)).await;
    complete(&install, "open", upload, vec![first, second]).await;
    let done = finish(&install, id).await;
    assert_eq!((done.state.as_str(), done.failed), ("done", 0), "{done:?}");
    let bodies = [bytes(60, PART), bytes(61, BLOB_BYTES)].concat();
    install.collect_all().await;
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
    assert!(
        install.blobs().await.is_empty(),
        "nothing is left at the old placement"
    );
    std::fs::remove_dir_all(backend_root(dir.path(), "local")).unwrap();
    check(&install, &written).await;
    assert_eq!(install.get("open").await, Some(bodies.into()));
    let version = install.get_version("history", old.version_id).await;
    assert_eq!(version, Some(bytes(50, BLOB_BYTES)));
    let (objects, size) = install.usage().await;
    let joined = (PART + BLOB_BYTES) as u64;
    assert_eq!((objects, size), (usage.0 + 1, usage.1 + joined));
}

#[tokio::test]
async fn contents_that_another_bucket_shares_stay_for_it() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let (moved, name) = (install.bucket.clone(), install.bucket.name.to_string());
    install.use_bucket_at("local").await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    assert_eq!(install.blobs().await.len(), 1);
    let id = start(&install, order("local", "other", Some(&name)))
        .await
        .unwrap();
    finish(&install, id).await;
    install.collect_all().await;
    assert_eq!(install.blobs().await.len(), 1);
    assert_eq!(install.blobs_at("other").await.len(), 1);
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
    install.bucket = moved;
    install.delete("k").await;
    install.collect_all().await;
    assert!(install.blobs_at("other").await.is_empty());
    assert_eq!(install.blobs().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_race_a_move_lose_nothing() {
    for bucket in [false, true] {
        let (dir, clock) = fresh();
        let install = Arc::new(Install::open(dir.path(), &clock).await);
        let written = fill(&install).await;
        let name = install.bucket.name.to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..3u8).map(|writer| {
            let (install, stop) = (install.clone(), stop.clone());
            tokio::spawn(async move {
                let mut turn = 0u8;
                while !stop.load(Ordering::SeqCst) && turn < 100 {
                    // Some are equal to what is being moved, some to each other's.
                    let body = bytes(turn % 5 + 1, BLOB_BYTES + usize::from(turn % 2));
                    let name = format!("race{writer}/{}", turn % 7);
                    install.put(&name, body.clone()).await;
                    assert_eq!(install.get(&name).await, Some(body));
                    if turn.is_multiple_of(3) {
                        install.delete(&name).await;
                    }
                    turn += 1;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let of = bucket.then_some(name.as_str());
        let id = start(&install, order("local", "other", of)).await.unwrap();
        let mover = mover(&install);
        for _ in 0..4 {
            let (one, two) = tokio::join!(mover.step(id, None), mover.step(id, None));
            one.unwrap();
            two.unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
        let done = finish(&install, id).await;
        assert_eq!((done.state.as_str(), done.failed), ("done", 0), "{done:?}");
        check(&install, &written).await;
        install.collect_all().await;
        clock.advance(GRACE_MILLIS + 1);
        install.beat().await;
        install.content.sweep(&untold).await.unwrap();
        assert!(install.blobs().await.is_empty());
        check(&install, &written).await;
    }
}

#[tokio::test]
async fn a_mirror_that_is_gone_is_missed_only_where_all_copies_are_required() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    let other = backend_root(dir.path(), "other");
    install.use_bucket_at("strict").await;
    install.put("both", bytes(1, BLOB_BYTES)).await;
    assert_eq!(install.blobs_at("other").await.len(), 1);
    std::fs::remove_dir_all(&other).unwrap();
    let hint = osproxy::namespace::BodyHint {
        length: None,
        limit: 1 << 30,
        verified_sha256: None,
        sha1: false,
    };
    for length in [BLOB_BYTES, 600_000] {
        let target = install.namespace.target(&install.bucket, Wanted::Default);
        let target = target.await.unwrap();
        let mut body = std::pin::pin!(futures::stream::iter([Ok(bytes(9, length))]));
        let refused = install
            .namespace
            .receive(&target, hint, body.as_mut())
            .await;
        assert!(matches!(refused, Err(ReceiveError::Fault(_))));
    }
    install.use_bucket_at("both").await;
    for (name, length) in [("short", BLOB_BYTES), ("long", 3_000_000)] {
        install.put(name, bytes(2, length)).await;
    }
    assert_eq!(install.content.count_missing().await.unwrap(), 2);
    // A crash later the backend is back, empty: what it has lost it has lost, what it missed it gets.
    install = again(install, &dir, &clock).await;
    let work = Work::new(None, None);
    let report = install.content.mend(&work).await.unwrap();
    assert_eq!((report.copied, report.failed), (2, 0), "{report:?}");
    assert_eq!(install.content.count_missing().await.unwrap(), 0);
    assert_eq!(install.blobs_at("other").await.len(), 2);
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
    assert_eq!(
        install.blobs_at("other").await.len(),
        2,
        "the sweep knows them"
    );
    std::fs::remove_dir_all(backend_root(dir.path(), "local")).unwrap();
    for (name, length) in [("short", BLOB_BYTES), ("long", 3_000_000)] {
        assert_eq!(install.get(name).await, Some(bytes(2, length)));
        install.delete(name).await;
    }
    install.collect_all().await;
    assert!(install.blobs_at("other").await.is_empty());
}

#[tokio::test]
async fn a_mirrored_write_that_is_cut_leaves_only_orphans() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("both").await;
    let received = install.receive(bytes(1, BLOB_BYTES)).await;
    std::mem::forget(received);
    install = again(install, &dir, &clock).await;
    assert_eq!(install.get("k").await, None);
    for backend in ["local", "other"] {
        assert_eq!(install.blobs_at(backend).await.len(), 1);
    }
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    assert_eq!(install.content.sweep(&untold).await.unwrap().orphans, 2);
}

#[tokio::test]
async fn a_move_that_would_leave_one_copy_of_two_is_refused_unless_that_is_wanted() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("strict").await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let keeping = |from: &str, to: &str| MoveOrder {
        mirrors: Mirrors::Keep,
        ..order(from, to, None)
    };
    for (from, to) in [("local", "other"), ("other", "local")] {
        let refused = start(&install, keeping(from, to)).await.unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("both, strict would keep one copy") && text.contains("--lose-copies"),
            "{text}"
        );
    }
    assert!(moves(&install).list(9).await.unwrap().is_empty());
    for backend in ["local", "other"] {
        assert_eq!(install.blobs_at(backend).await.len(), 1, "{backend}");
    }
    // A third backend may stand for one of the two, and then the third is one of them.
    let id = start(&install, keeping("local", "short")).await.unwrap();
    finish(&install, id).await;
    let refused = start(&install, keeping("short", "other")).await;
    assert!(matches!(refused, Err(MoveError::Mirrored { .. })));
    let id = start(&install, order("short", "other", None))
        .await
        .unwrap();
    finish(&install, id).await;
    // There is nothing left to lose.
    let id = start(&install, keeping("other", "local")).await.unwrap();
    finish(&install, id).await;
    install.put("new", bytes(2, BLOB_BYTES)).await;
    assert_eq!(install.blobs_at("local").await.len(), 2);
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
}

#[tokio::test]
async fn nothing_is_moved_to_where_a_node_cannot_write() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let name = install.bucket.name.to_string();
    install.beat().await;
    install.beat_as(2, "behind", &["local", "short"]).await;
    for bucket in [None, Some(name.as_str())] {
        let refused = start(&install, order("local", "other", bucket)).await;
        let Err(MoveError::NotEverywhere { backend, nodes }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (backend.as_str(), nodes),
            ("other", vec!["behind".to_owned()])
        );
    }
    assert!(moves(&install).list(10).await.unwrap().is_empty());
    install.put("k", bytes(1, BLOB_BYTES)).await;
    assert_eq!(install.blobs_at("local").await.len(), 1);
    // Of a placement every backend counts.
    let refused = start(&install, order("local", "both", Some(&name))).await;
    assert!(
        matches!(refused, Err(MoveError::NotEverywhere { .. })),
        "{refused:?}"
    );
    start(&install, order("local", "short", None))
        .await
        .unwrap();
    install
        .beat_as(2, "behind", &["local", "other", "short"])
        .await;
    start(&install, order("short", "local", None))
        .await
        .unwrap();
    start(&install, order("local", "other", Some(&name)))
        .await
        .unwrap();
}

#[tokio::test]
async fn orders_that_cannot_be_change_nothing() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let name = install.bucket.name.to_string();
    for (from, to, bucket) in [
        ("local", "nowhere", None),
        ("local", "local", None),
        ("other", "local", Some(name.as_str())),
        ("local", "nowhere", Some(name.as_str())),
        ("local", "other", Some("no-such-bucket")),
    ] {
        assert!(start(&install, order(from, to, bucket)).await.is_err());
    }
    assert!(moves(&install).list(10).await.unwrap().is_empty());
    install.put("k", bytes(1, BLOB_BYTES)).await;
    assert_eq!(install.blobs().await.len(), 1);
    // The reverse of a move ends it; the same again is the same.
    let there = start(&install, order("local", "other", None))
        .await
        .unwrap();
    assert_eq!(
        start(&install, order("local", "other", None))
            .await
            .unwrap(),
        there
    );
    let back = start(&install, order("other", "local", None))
        .await
        .unwrap();
    assert_eq!(moves(&install).show(there).await.unwrap().state, "ended");
    install.put("l", bytes(2, BLOB_BYTES)).await;
    assert_eq!(install.blobs().await.len(), 2);
    let done = finish(&install, back).await;
    assert_eq!(done.state, "done");
    assert_eq!(install.blobs().await.len(), 2);
    let unreadable = install.get("k").await;
    assert_eq!(unreadable, Some(bytes(1, BLOB_BYTES)));
    assert!(matches!(
        install
            .namespace
            .get(&install.bucket, &key("none"), None)
            .await,
        Err(Condition::NoSuchKey)
    ));
}

/// Two that are equal, one that is encrypted, one of two parts, one of these parts in one piece that was merged with it,
/// and a short one.
async fn fill_long(install: &Install) -> Vec<(String, Bytes)> {
    let mut written = Vec::new();
    for (name, seed) in [("long", 1), ("equal", 1), ("other", 2)] {
        install.put(name, bytes(seed, LONG)).await;
        written.push((name.to_owned(), bytes(seed, LONG)));
    }
    install.put_encrypted("sealed", bytes(3, LONG)).await;
    written.push(("sealed".to_owned(), bytes(3, LONG)));
    let parts = [bytes(4, LONG), bytes(5, LONG - 1000)];
    join(install, "joined", &parts).await;
    written.push(("joined".to_owned(), parts.concat().into()));
    let [head, tail] = [
        bytes(2, LONG).slice(..1_500_000),
        bytes(2, LONG).slice(1_500_000..),
    ];
    join(install, "merged", &[head, tail]).await;
    written.push(("merged".to_owned(), bytes(2, LONG)));
    for content in joined(install).await {
        let work = Work::new(None, None);
        install.content.merge(content, &work).await.unwrap();
    }
    install.put("short", bytes(6, BLOB_BYTES)).await;
    written.push(("short".to_owned(), bytes(6, BLOB_BYTES)));
    written
}

/// Sweeps what a cut in the middle of a commit has left: its outcome was not known. Each install that was cut had reserved
/// some time for its ids, so that those of the last ones are far ahead of the clock.
async fn sweep_late(install: &Install) {
    install.clock.advance(100 * 24 * 3_600_000);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
}

/// That all of it lies at the backend `short`, once, and goes to nothing when it is deleted.
async fn is_all_short(install: &Install, dir: &TempDir, written: &[(String, Bytes)]) {
    check(install, written).await;
    assert!(install.blobs().await.is_empty());
    let root = backend_root(dir.path(), "short");
    for name in install.blobs_at("short").await {
        let file = std::fs::read_dir(&root)
            .unwrap()
            .map(|folder| folder.unwrap().path().join(&name))
            .find(|path| path.is_file())
            .unwrap();
        let length = file.metadata().unwrap().len();
        assert!(length <= SHORT_BYTES, "{name} has {length} bytes");
    }
    // It is still known by its digests.
    let before = install.contents().await;
    install.put("again", bytes(1, LONG)).await;
    assert_eq!(install.contents().await, before);
    for (name, _) in written {
        install.delete(name).await;
    }
    assert!(install.get("again").await == Some(bytes(1, LONG)));
    install.delete("again").await;
    for _ in 0..3 {
        install.collect_all().await;
    }
    assert_eq!(install.contents().await, 0);
    sweep_late(install).await;
    assert!(install.blobs_at("short").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_the_target_takes_moves_in_pieces_wherever_that_is_cut() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    let written = fill_long(&install).await;
    let id = start(&install, order("local", "short", None))
        .await
        .unwrap();
    let mut polls = 1;
    while polls < 3000 {
        let step = mover(&install);
        cut(step.step(id, None), polls).await;
        install = again(install, &dir, &clock).await;
        check(&install, &written).await;
        polls += 1 + polls / 3;
    }
    let done = finish(&install, id).await;
    assert_eq!((done.failed, done.remains), (0, Some(0)), "{done:?}");
    is_all_short(&install, &dir, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_while_it_is_split_is_read_to_its_end() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let written = fill_long(&install).await;
    let mut readers = Vec::new();
    for (name, body) in &written {
        let object = install
            .namespace
            .get(&install.bucket, &key(name), None)
            .await;
        let mut reader = install
            .namespace
            .open(&object.unwrap(), 0..body.len() as u64, None);
        let first = reader.next().await.unwrap().unwrap();
        readers.push((name, body, reader, first.to_vec()));
    }
    let id = start(&install, order("local", "short", None))
        .await
        .unwrap();
    for _ in 0..6 {
        mover(&install).step(id, None).await.unwrap();
        clock.advance(10 * GRACE_MILLIS);
        install.beat().await;
        install.content.collect(&untold).await.unwrap();
    }
    for (name, body, mut reader, mut read) in readers {
        while let Some(bytes) = reader.next().await {
            read.extend_from_slice(&bytes.unwrap());
        }
        assert!(read == *body, "{name}");
    }
    let done = finish(&install, id).await;
    assert_eq!((done.failed, done.remains), (0, Some(0)), "{done:?}");
    is_all_short(&install, &dir, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_moves_in_pieces_to_where_blobs_are_short() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let written = fill_long(&install).await;
    let id = start(&install, order("local", "short", Some("bucket")))
        .await
        .unwrap();
    let done = finish(&install, id).await;
    assert_eq!(done.failed, 0, "{done:?}");
    install.collect_all().await;
    install.collect_all().await;
    let mut install = again(install, &dir, &clock).await;
    install.bucket = install
        .namespace
        .bucket(&install.bucket.name)
        .await
        .unwrap();
    is_all_short(&install, &dir, &written).await;
}

#[tokio::test]
async fn a_bucket_moves_away_from_where_blobs_are_short() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("short").await;
    let written = fill_long(&install).await;
    let id = start(&install, order("short", "local", Some("bucket-short")))
        .await
        .unwrap();
    let done = finish(&install, id).await;
    assert_eq!(done.failed, 0, "{done:?}");
    let install = again(install, &dir, &clock).await;
    install.collect_all().await;
    install.collect_all().await;
    check(&install, &written).await;
    assert!(install.blobs_at("short").await.is_empty());
    // They are still known by their digests, also those that lie in several blobs.
    let before = install.contents().await;
    for seed in [1, 2] {
        install.put("again", bytes(seed, LONG)).await;
    }
    assert_eq!(install.contents().await, before);
}

#[tokio::test]
async fn a_piece_that_is_not_what_was_stored_is_not_moved() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("short").await;
    install.put("long", bytes(1, LONG)).await;
    let piece = &files(dir.path(), "short")[1];
    flip(piece, 1000);
    let away = || order("short", "local", Some("bucket-short"));
    let id = start(&install, away()).await.unwrap();
    let done = finish(&install, id).await;
    assert_eq!(done.failed, 1, "{done:?}");
    flip(piece, 1000);
    let id = start(&install, away()).await.unwrap();
    let done = finish(&install, id).await;
    assert_eq!(done.failed, 0, "{done:?}");
    assert_eq!(install.get("long").await, Some(bytes(1, LONG)));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_others_stand_for_are_split_no_deeper() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    // The second is an extent of the first, which is known by its digests.
    let body = bytes(3, 3 * PART);
    for (name, at) in [("one", PART), ("two", PART + 12_345)] {
        join(&install, name, &[body.slice(..at), body.slice(at..)]).await;
    }
    for content in joined(&install).await {
        let work = Work::new(None, None);
        install.content.merge(content, &work).await.unwrap();
    }
    install.collect_all().await;
    let id = start(&install, order("local", "short", None))
        .await
        .unwrap();
    let done = finish(&install, id).await;
    assert_eq!((done.failed, done.remains), (0, Some(0)), "{done:?}");
    install.collect_all().await;
    let blobs = install.blobs_at("short").await.len();
    // What is known may still be a part of something.
    let tail = bytes(9, BLOB_BYTES);
    join(&install, "three", &[body.clone(), tail.clone()]).await;
    assert_eq!(install.blobs_at("short").await.len(), blobs + 1);
    for name in ["one", "two"] {
        assert!(install.get(name).await.as_ref() == Some(&body), "{name}");
    }
    assert!(install.get("three").await == Some([body, tail].concat().into()));
    for name in ["one", "two", "three"] {
        install.delete(name).await;
    }
    for _ in 0..4 {
        install.collect_all().await;
    }
    assert_eq!(install.contents().await, 0);
    sweep_late(&install).await;
    assert!(install.blobs_at("short").await.is_empty());
    drop(dir);
}

/// Who looked for missing copies before a move began may write one only after it has ended.
#[tokio::test]
async fn nothing_is_copied_to_a_backend_that_was_moved_away_from() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let backends = install.meta.read("list backends", |session| {
        Box::pin(buckets::backends(session))
    });
    let backends: Result<Vec<(i64, String)>, Fault> = backends.await;
    let backends = backends.unwrap();
    let row = |name: &str| backends.iter().find(|(_, found)| found == name).unwrap().0;
    let (local, other) = (row("local"), row("other"));
    let seen = install.content.blobs_at(local, BlobId(i64::MIN)).await;
    let seen = seen.unwrap();
    assert_eq!(seen.len(), 1);
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    assert_eq!(finish(&install, id).await.state, "done");
    let (work, late) = (
        Work::new(None, None),
        Route {
            from: None,
            to: local,
        },
    );
    let copied = install.content.copy_blob(seen[0], late, &work).await;
    assert_eq!(copied.unwrap(), Copied::Gone);
    assert!(install.blobs_at("local").await.is_empty());
    let left = install.content.blobs_at(local, BlobId(i64::MIN)).await;
    assert_eq!(left.unwrap(), []);
    let there = install.content.blobs_at(other, BlobId(i64::MIN)).await;
    assert_eq!(there.unwrap(), seen);
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
    install.meta.close().await;
}
