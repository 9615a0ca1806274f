//! Bytes that were lost and come again: the keys that had lost them have them back, whatever they were stored as; until
//! then nobody is told that they are known.

use std::path::Path;

use bytes::Bytes;
use futures::future;
use osproxy::content::{Act, Depth, Merged, Work};
use osproxy::model::ids::SenderId;
use osproxy::model::progress::untold;
use osproxy::namespace::{Condition, PutRequest};
use tempfile::TempDir;

use crate::install::{BLOB_BYTES, Install, bytes};
use crate::merge::{cut, joined};
use crate::moves::{again, fresh, join};
use crate::scrub::{files, flip, fsck, scrub, told};

/// Ways to lose the bytes of a file.
const WAYS: [fn(&Path); 3] = [
    |path| flip(path, 1000),
    |path| {
        let all = std::fs::read(path).unwrap();
        std::fs::write(path, &all[..all.len() - 1]).unwrap();
    },
    |path| std::fs::remove_file(path).unwrap(),
];

async fn assert_reads(install: &Install, names: &[&str], body: &Bytes) {
    for name in names {
        assert!(install.get(name).await.as_ref() == Some(body), "{name}");
    }
}

/// Nothing is bad, and what was given up goes.
async fn assert_mended(install: &Install, dir: &TempDir, backend: &str, blobs: usize) {
    assert_eq!(scrub(install).await.left, 0);
    let seen = fsck(install, Depth::All, Act::Report).await;
    assert_eq!(told(&seen), []);
    install.collect_all().await;
    install.collect_all().await;
    assert_eq!(files(dir.path(), backend).len(), blobs);
}

#[tokio::test]
async fn bytes_that_come_again_are_those_of_every_key_that_had_lost_them() {
    // One that is hashed in memory, one that is written while it comes, one in several blobs.
    for (placement, length, blobs) in [
        ("local", BLOB_BYTES, 1),
        ("local", 600_000, 1),
        ("short", (5 << 20) / 2, 3),
    ] {
        for lose in WAYS {
            let (dir, clock) = fresh();
            let mut install = Install::open(dir.path(), &clock).await;
            if placement == "short" {
                install.use_bucket_at(placement).await;
            }
            let body = bytes(1, length);
            install.put("one", body.clone()).await;
            install.put("two", body.clone()).await;
            lose(&files(dir.path(), placement)[0]);
            assert_eq!(scrub(&install).await.left, 1);
            install.put("again", body.clone()).await;
            assert_reads(&install, &["one", "two", "again"], &body).await;
            assert!(install.receive(body.clone()).await.known().is_some());
            install = again(install, &dir, &clock).await;
            install.put("more", body.clone()).await;
            install.collect_all().await;
            assert_mended(&install, &dir, placement, blobs).await;
            assert_reads(&install, &["one", "two", "again", "more"], &body).await;
            // And lost once more.
            lose(&files(dir.path(), placement)[0]);
            assert_eq!(scrub(&install).await.left, 1);
            install.put("once more", body.clone()).await;
            assert_reads(&install, &["one", "once more"], &body).await;
            for name in ["one", "two", "again", "more", "once more"] {
                install.delete(name).await;
            }
            install.collect_all().await;
            install.collect_all().await;
            assert_eq!(install.contents().await, 0);
            assert_eq!(files(dir.path(), placement).len(), 0);
        }
    }
}

#[tokio::test]
async fn encrypted_bytes_come_again_too() {
    for length in [BLOB_BYTES, 600_000] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let body = bytes(1, length);
        install.put_encrypted("one", body.clone()).await;
        flip(&files(dir.path(), "local")[0], 1000);
        assert_eq!(scrub(&install).await.left, 1);
        install.put_encrypted("again", body.clone()).await;
        assert_reads(&install, &["one", "again"], &body).await;
        assert_mended(&install, &dir, "local", 1).await;
        assert_reads(&install, &["one", "again"], &body).await;
    }
}

#[tokio::test]
async fn joined_parts_get_back_the_part_and_the_whole() {
    for (again, length) in [("part", BLOB_BYTES), ("whole", 5 << 20), ("part", 5 << 20)] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let parts = [bytes(1, length), bytes(2, length)];
        let body: Bytes = parts.concat().into();
        join(&install, "joined", &parts).await;
        let content = joined(&install).await[0];
        let work = Work::new(None, None);
        if length > BLOB_BYTES {
            let merged = install.content.merge(content, &work).await.unwrap();
            assert_eq!(merged, Merged::Known);
        }
        flip(&files(dir.path(), "local")[1], 1000);
        assert_eq!(scrub(&install).await.left, 1);
        let sent = match again {
            "part" => parts[1].clone(),
            _ => body.clone(),
        };
        install.put("again", sent.clone()).await;
        assert_reads(&install, &["joined"], &body).await;
        assert_reads(&install, &["again"], &sent).await;
        // A whole that was written anew has given up its parts.
        install.collect_all().await;
        install.collect_all().await;
        let blobs = if again == "part" { 2 } else { 1 };
        assert_mended(&install, &dir, "local", blobs).await;
        assert_reads(&install, &["joined"], &body).await;
        // What was lost is merged as any once it is there.
        if length == BLOB_BYTES {
            let merged = install.content.merge(content, &work).await.unwrap();
            assert_eq!(merged, Merged::Written);
            assert_reads(&install, &["joined"], &body).await;
        }
    }
}

#[tokio::test]
async fn joined_parts_bring_back_an_equal_whole_that_was_lost() {
    for length in [BLOB_BYTES, 5 << 20] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let parts = [bytes(1, length), bytes(2, length)];
        let body: Bytes = parts.concat().into();
        install.put("whole", body.clone()).await;
        flip(&files(dir.path(), "local")[0], 1000);
        assert_eq!(scrub(&install).await.left, 1);
        join(&install, "joined", &parts).await;
        let content = joined(&install).await[0];
        let work = Work::new(None, None);
        let merged = install.content.merge(content, &work).await.unwrap();
        assert_eq!(merged, Merged::Shared);
        assert_reads(&install, &["whole", "joined"], &body).await;
        install.collect_all().await;
        install.collect_all().await;
        assert_mended(&install, &dir, "local", 1).await;
        assert_reads(&install, &["whole", "joined"], &body).await;
    }
}

#[tokio::test]
async fn what_is_lost_is_possessed_by_nobody_until_it_comes_again() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let (body, mine) = (bytes(1, BLOB_BYTES), SenderId(71));
    let put = async |name: &str| {
        let request = PutRequest {
            sender: Some(mine),
            ..install.request(name)
        };
        let received = install.receive(body.clone()).await;
        let of = received.digests.clone();
        install.namespace.put(request, received).await.unwrap();
        of
    };
    let of = put("one").await;
    let is_possessed = async || crate::merge::is_possessed(&install, &of, mine).await;
    assert!(is_possessed().await);
    flip(&files(dir.path(), "local")[0], 1000);
    assert_eq!(scrub(&install).await.left, 1);
    assert!(!is_possessed().await);
    put("again").await;
    assert!(is_possessed().await);
    assert_reads(&install, &["one", "again"], &body).await;
}

#[tokio::test]
async fn what_is_found_lost_before_the_commit_is_to_be_sent_again() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let body = bytes(1, BLOB_BYTES);
    install.put("one", body.clone()).await;
    let received = install.receive(body.clone()).await;
    assert!(received.known().is_some());
    flip(&files(dir.path(), "local")[0], 1000);
    assert_eq!(scrub(&install).await.left, 1);
    let refused = install
        .namespace
        .put(install.request("two"), received)
        .await
        .unwrap_err();
    assert!(matches!(refused, Condition::ContentGone), "{refused:?}");
    install.put("two", body.clone()).await;
    assert_reads(&install, &["one", "two"], &body).await;
}

#[tokio::test]
async fn a_mirror_that_has_the_bytes_is_asked_and_nothing_is_lost() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("both").await;
    let body = bytes(1, BLOB_BYTES);
    install.put("one", body.clone()).await;
    flip(&files(dir.path(), "local")[0], 1000);
    flip(&files(dir.path(), "other")[0], 1000);
    assert_eq!(scrub(&install).await.left, 2);
    assert!(install.receive(body.clone()).await.known().is_none());
    // One of them comes back from a backup.
    flip(&files(dir.path(), "other")[0], 1000);
    assert_eq!(scrub(&install).await.left, 0);
    assert!(install.receive(body.clone()).await.known().is_some());
    assert_reads(&install, &["one"], &body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_come_again_many_times_at_once_and_beside_scrubs_are_stored_once() {
    for round in 0..5 {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let body = bytes(round, BLOB_BYTES);
        let parts = [body.clone(), bytes(round + 100, BLOB_BYTES)];
        install.put("one", body.clone()).await;
        join(&install, "joined", &parts).await;
        flip(&files(dir.path(), "local")[0], 1000);
        assert_eq!(scrub(&install).await.left, 1);
        let names = ["a", "b", "c", "d"];
        let puts = names.map(|name| install.put(name, body.clone()));
        let scrubs = [scrub(&install), scrub(&install)];
        future::join(future::join_all(puts), future::join_all(scrubs)).await;
        assert_reads(&install, &["one", "a", "b", "c", "d"], &body).await;
        assert_reads(&install, &["joined"], &parts.concat().into()).await;
        install.collect_all().await;
        clock.advance(1_000_000);
        install.beat().await;
        install.content.sweep(&untold).await.unwrap();
        assert_mended(&install, &dir, "local", 2).await;
        assert_reads(&install, &["one", "a", "b", "c", "d"], &body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_cut_anywhere_is_done_by_the_next_one() {
    let mut polls = 1;
    loop {
        let (dir, clock) = fresh();
        let mut install = Install::open(dir.path(), &clock).await;
        let body = bytes(1, 600_000);
        install.put("one", body.clone()).await;
        flip(&files(dir.path(), "local")[0], 1000);
        assert_eq!(scrub(&install).await.left, 1);
        let ended = cut(install.put("two", body.clone()), polls).await;
        install = again(install, &dir, &clock).await;
        install.put("three", body.clone()).await;
        assert_reads(&install, &["one", "three"], &body).await;
        clock.advance(1_000_000);
        install.beat().await;
        install.content.sweep(&untold).await.unwrap();
        assert_mended(&install, &dir, "local", 1).await;
        assert_reads(&install, &["one", "three"], &body).await;
        if ended {
            break;
        }
        polls += 1 + polls / 4;
        assert!(polls < 10_000, "it does not end");
    }
}
