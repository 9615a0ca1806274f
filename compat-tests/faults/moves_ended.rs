//! Moves that are ended or changed while a run of theirs is under way, moves that are taken up again, and what a move
//! leaves alone and counts.

use std::future::{self, Future};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use osproxy::blob::BlobName;
use osproxy::meta::manifests;
use osproxy::model::object::{Lock, WriteConditions};
use osproxy::model::progress::untold;
use osproxy::namespace::{Bell, CopyRequest, CopySource, Wanted};
use osproxy::tasks::{MoveError, MoveOrder, MoveSummary, Moves, Outcome};

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, backend_root, bytes, key};
use crate::moves::{begin, check, complete, finish, fresh, mover, order, part, start};

/// How long a condition is waited for that has no reason to take long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Work that is gone on with by hand, so that others can come between any two of its steps.
struct Held<'a, T> {
    work: Pin<Box<dyn Future<Output = T> + 'a>>,
    outcome: Option<T>,
}

impl<'a, T> Held<'a, T> {
    fn new(work: impl Future<Output = T> + 'a) -> Self {
        Self {
            work: Box::pin(work),
            outcome: None,
        }
    }

    /// Goes on so many times, each when there is something new for it; answers whether it has ended.
    async fn go(&mut self, polls: usize) -> bool {
        let mut left = polls;
        while self.outcome.is_none() && left > 0 {
            left -= 1;
            let mut is_last_look = false;
            future::poll_fn(|context| {
                // The first look may come too early; the second is when it has been woken.
                if let Poll::Ready(outcome) = self.work.as_mut().poll(context) {
                    self.outcome = Some(outcome);
                    return Poll::Ready(());
                }
                match std::mem::replace(&mut is_last_look, true) || left == 0 {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
        self.outcome.is_some()
    }

    async fn finish(self) -> T {
        match self.outcome {
            Some(outcome) => outcome,
            None => self.work.await,
        }
    }
}

fn moves(install: &Install) -> Moves {
    Moves::new(install.meta.clone(), install.clock.clone(), Bell::default())
}

async fn show(install: &Install, id: i64) -> MoveSummary {
    moves(install).show(id).await.unwrap()
}

/// Lets time pass, and the collector do what is due.
async fn pass_time(install: &Install) {
    install.clock.advance(GRACE_MILLIS / 3);
    install.beat().await;
    install.content.collect(&untold).await.unwrap();
}

/// Collects and sweeps all that is due.
async fn clean(install: &Install) {
    install.collect_all().await;
    install.clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
}

/// Puts `count` objects in blobs of their own, one of them encrypted.
async fn put_blobs(install: &Install, count: u8) -> Vec<(String, bytes::Bytes)> {
    let mut written = Vec::new();
    for seed in 0..count {
        let (name, body) = (format!("k{seed}"), bytes(seed, BLOB_BYTES));
        match seed {
            0 => install.put_encrypted(&name, body.clone()).await,
            _ => drop(install.put(&name, body.clone()).await),
        }
        written.push((name, body));
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_move_that_was_ended_moves_nothing_any_more() {
    for bucket in [false, true] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let written = put_blobs(&install, 12).await;
        let name = install.bucket.name.to_string();
        let of = bucket.then_some(name.as_str());
        let mover = mover(&install);
        let mut polls = 1;
        while polls < 120 {
            let there = start(&install, order("local", "other", of)).await.unwrap();
            let mut run = Held::new(mover.step(there, None));
            run.go(polls).await;
            let back = start(&install, order("other", "local", of)).await.unwrap();
            // The other run outlives the way back, which waits for what that writes of a bucket.
            for _ in 0..50 {
                if let Outcome::Done(_) = mover.step(back, None).await.unwrap() {
                    break;
                }
                pass_time(&install).await;
                if bucket {
                    run.go(2).await;
                }
            }
            let at = format!("bucket {bucket}, held after {polls}");
            assert_eq!(show(&install, back).await.state, "done", "{at}");
            run.finish().await.unwrap();
            assert_eq!(show(&install, there).await.state, "ended", "{at}");
            clean(&install).await;
            assert!(install.blobs_at("other").await.is_empty(), "{at}");
            assert_eq!(install.blobs().await.len(), written.len(), "{at}");
            check(&install, &written).await;
            polls += 1 + polls / 3;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_was_ended_stays_so_whatever_its_run_was_about_to_say() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let written = put_blobs(&install, 2).await;
    let name = install.bucket.name.to_string();
    let mover = mover(&install);
    for bucket in [false, true] {
        let of = bucket.then_some(name.as_str());
        for steps in 0..5 {
            for polls in [1, 2, 3, 5] {
                let there = start(&install, order("local", "other", of)).await.unwrap();
                for _ in 0..steps {
                    mover.step(there, None).await.unwrap();
                    pass_time(&install).await;
                }
                let mut run = Held::new(mover.step(there, None));
                run.go(polls).await;
                let back = start(&install, order("other", "local", of)).await.unwrap();
                let before = show(&install, there).await.state;
                assert!(["ended", "done"].contains(&before.as_str()), "{before}");
                run.finish().await.unwrap();
                let after = show(&install, there).await.state;
                let at = format!("bucket {bucket}, held after {steps} steps and {polls}");
                assert_eq!(after, before, "{at}");
                assert_eq!(finish(&install, back).await.state, "done", "{at}");
            }
        }
    }
    clean(&install).await;
    std::fs::remove_dir_all(backend_root(dir.path(), "other")).unwrap();
    check(&install, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_rate_takes_another_one_and_learns_of_its_end() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let mover = mover(&install);
    // More than a day for one blob.
    let slow = |from: &str, to: &str| MoveOrder {
        rate: Some(1),
        ..order(from, to, None)
    };
    let is_under_way = async || {
        while install.content.count_missing().await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let there = start(&install, slow("local", "other")).await.unwrap();
    let hurried = async {
        is_under_way().await;
        let same = start(&install, order("local", "other", None)).await;
        assert_eq!(same.unwrap(), there);
    };
    let run = async { tokio::join!(mover.step(there, None), hurried).0.unwrap() };
    let run = tokio::time::timeout(PATIENCE, run);
    assert!(matches!(run.await.expect("it goes on"), Outcome::More(_)));
    assert_eq!(show(&install, there).await.moved, 1);
    finish(&install, there).await;
    let back = start(&install, slow("other", "local")).await.unwrap();
    let ended = async {
        is_under_way().await;
        start(&install, order("local", "other", None))
            .await
            .unwrap()
    };
    let run = async { tokio::join!(mover.step(back, None), ended) };
    let run = tokio::time::timeout(PATIENCE, run);
    let (outcome, again) = run.await.expect("it ends");
    assert!(matches!(outcome, Ok(Outcome::Done(_))));
    assert_eq!(show(&install, back).await.state, "ended");
    assert_eq!(finish(&install, again).await.state, "done");
    clean(&install).await;
    assert!(install.blobs().await.is_empty());
    check(&install, &[("k".to_owned(), bytes(1, BLOB_BYTES))]).await;
    drop(dir);
}

#[tokio::test]
async fn what_a_recovery_spares_a_move_counts_and_leaves() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    std::mem::forget(install.receive(bytes(9, BLOB_BYTES)).await);
    install = crate::moves::again(install, &dir, &clock).await;
    let now = clock.now();
    install
        .meta
        .transact("recover", move |session| {
            Box::pin(manifests::begin_recovery(
                session,
                "other",
                now,
                now + 100 * GRACE_MILLIS,
            ))
        })
        .await
        .unwrap();
    // Old enough for an orphan.
    clock.advance(GRACE_MILLIS + 1);
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    let done = finish(&install, id).await;
    assert_eq!((done.failed, done.remains), (0, Some(1)), "{done:?}");
    assert_eq!(install.blobs().await.len(), 1);
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
}

#[tokio::test]
async fn what_lies_beside_the_manifests_of_another_install_is_counted_and_left() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let (manifest, blob) = (BlobName::new_manifest(), BlobName::new(1));
    for name in [&manifest, &blob] {
        let mut writer = install.blobs.create("local", name).unwrap();
        writer
            .write(bytes::Bytes::from_static(b"of another"))
            .await
            .unwrap();
        writer.finish().await.unwrap();
    }
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    let done = finish(&install, id).await;
    assert_eq!((done.failed, done.remains), (0, Some(2)), "{done:?}");
    let mut left = install.blobs().await;
    left.sort();
    assert_eq!(left, [blob.as_str(), manifest.as_str()]);
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
}

/// The file of the only blob at a backend.
async fn only_file(install: &Install, root: PathBuf, backend: &str) -> PathBuf {
    let names = install.blobs_at(backend).await;
    let [name] = names.as_slice() else {
        panic!("{names:?}");
    };
    let mut folders = std::fs::read_dir(&root).unwrap();
    folders
        .find_map(|folder| Some(folder.unwrap().path().join(name)).filter(|path| path.is_file()))
        .unwrap()
}

#[tokio::test]
async fn what_was_damaged_is_brought_along_by_the_same_order_once_it_is_repaired() {
    for bucket in [false, true] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let body = bytes(1, BLOB_BYTES);
        install.put("k", body.clone()).await;
        install.put("small", bytes(2, 100)).await;
        let name = install.bucket.name.to_string();
        let order = || order("local", "other", bucket.then_some(name.as_str()));
        let file = only_file(&install, backend_root(dir.path(), "local"), "local").await;
        let good = std::fs::read(&file).unwrap();
        std::fs::write(&file, bytes(3, BLOB_BYTES)).unwrap();
        let first = start(&install, order()).await.unwrap();
        let done = finish(&install, first).await;
        assert_eq!((done.state.as_str(), done.failed), ("done", 1), "{done:?}");
        std::fs::write(&file, good).unwrap();
        let second = start(&install, order()).await.unwrap();
        assert_ne!(second, first);
        let done = finish(&install, second).await;
        assert_eq!((done.state.as_str(), done.failed), ("done", 0), "{done:?}");
        assert_eq!(done.moved, 1);
        clean(&install).await;
        assert!(install.blobs().await.is_empty());
        assert_eq!(install.get("k").await, Some(body));
        if bucket {
            let refused = start(&install, order()).await;
            assert!(matches!(refused, Err(MoveError::There(_))), "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_reference_that_was_planned_before_the_move_is_waited_for() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let body = bytes(1, BLOB_BYTES);
    install.put("k", body.clone()).await;
    let name = install.bucket.name.to_string();
    for polls in 1..12 {
        let of = Some(name.as_str());
        let target = install.namespace.target(&install.bucket, Wanted::Default);
        let object = install
            .namespace
            .get(&install.bucket, &key("k"), None)
            .await;
        let source = CopySource {
            bucket: install.bucket.clone(),
            key: key("k"),
            version: None,
            object: object.unwrap(),
            customer_key: None,
        };
        let request = CopyRequest {
            bucket: install.bucket.clone(),
            key: key(&format!("copy{polls}")),
            origin: Default::default(),
            headers: None,
            tags: None,
            checksum: None,
            conditions: WriteConditions::default(),
            acl: None,
            target: target.await.unwrap(),
            lock: Lock::default(),
            recheck: None,
        };
        let mut copy = Held::new(install.namespace.copy(&source, request));
        copy.go(polls).await;
        let there = start(&install, order("local", "other", of)).await.unwrap();
        for _ in 0..5 {
            mover(&install).step(there, None).await.unwrap();
            pass_time(&install).await;
        }
        copy.finish().await.unwrap();
        finish(&install, there).await;
        clean(&install).await;
        assert!(install.blobs().await.is_empty(), "held after {polls}");
        let name = format!("copy{polls}");
        assert_eq!(install.get(&name).await, Some(body.clone()), "{polls}");
        let back = start(&install, order("other", "local", of)).await.unwrap();
        finish(&install, back).await;
        clean(&install).await;
    }
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_becomes_an_object_in_the_middle_of_a_pass_is_not_left_behind() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let bucket = install.bucket.name.to_string();
    for polls in 1..16 {
        let (name, body) = (format!("joined{polls}"), bytes(polls, BLOB_BYTES));
        let upload = begin(&install, &name).await;
        let first = part(&install, &name, upload, 1, body.clone()).await;
        let of = Some(bucket.as_str());
        let there = start(&install, order("local", "other", of)).await.unwrap();
        // No write is open that may have been planned before: this pass may be the last.
        pass_time(&install).await;
        let mover = mover(&install);
        let mut run = Held::new(mover.step(there, None));
        run.go(usize::from(polls)).await;
        complete(&install, &name, upload, vec![first]).await;
        run.finish().await.unwrap();
        assert_eq!(finish(&install, there).await.failed, 0);
        clean(&install).await;
        assert!(install.blobs().await.is_empty(), "held after {polls}");
        assert_eq!(install.get(&name).await, Some(body), "{polls}");
        let back = start(&install, order("other", "local", of)).await.unwrap();
        finish(&install, back).await;
        clean(&install).await;
    }
    drop(dir);
}
