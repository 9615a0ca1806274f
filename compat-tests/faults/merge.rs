//! Merges: joined parts and equal bytes in one piece end up stored once, whichever came first; reading stays right
//! during and after; a merge that is cut anywhere, or raced, loses nothing.

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures::{FutureExt, future};
use osproxy::content::{Act, Depth, Merged, Work};
use osproxy::meta::contents;
use osproxy::model::digest::Digests;
use osproxy::model::fault::{Fault, Kind};
use osproxy::model::finding::{Problem, Repair};
use osproxy::model::ids::{ContentId, SenderId};
use osproxy::model::progress::untold;
use osproxy::namespace::{Holder, NewUpload, PutRequest, Wanted};
use osproxy::tasks::{Backlog, JobFilter};

use crate::install::{BLOB_BYTES, Install, backend_root, bytes, key};
use crate::moves::{begin, complete, fresh, join, put_part};
use crate::scrub::{files, flip, fsck, names, told};

/// Two parts of this length are long enough to stay as they are.
const LONG: usize = 5 << 20;

fn parts(length: usize) -> [Bytes; 2] {
    [bytes(1, length), bytes(2, length - 7)]
}

fn whole(parts: &[Bytes]) -> Bytes {
    parts.concat().into()
}

pub async fn joined(install: &Install) -> Vec<ContentId> {
    let found: Result<_, Fault> = install
        .meta
        .scan("find joined", |session| {
            Box::pin(async move {
                let sql = "SELECT id FROM contents WHERE kind = 'composite' ORDER BY id";
                session
                    .query(sql, &[], |row| row.int(0).map(ContentId))
                    .await
            })
        })
        .await;
    found.unwrap()
}

async fn merge(install: &Install, content: ContentId) -> Merged {
    let work = Work::new(None, None);
    install.content.merge(content, &work).await.unwrap()
}

async fn stored(install: &Install) -> u64 {
    let totals: Result<_, Fault> = install
        .meta
        .scan("totals", |session| Box::pin(contents::totals(session)))
        .await;
    let totals = totals.unwrap();
    totals.blob_bytes + totals.inline_bytes
}

#[tokio::test]
async fn parts_and_one_piece_are_stored_once_whichever_came_first() {
    for (length, first) in [
        (LONG, "parts"),
        (LONG, "piece"),
        (BLOB_BYTES, "parts"),
        (BLOB_BYTES, "piece"),
        (100, "parts"),
        (100, "piece"),
    ] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let parts = parts(length);
        let body = whole(&parts);
        let told = format!("{length} {first}");
        if first == "piece" {
            install.put("piece", body.clone()).await;
        }
        join(&install, "parts", &parts).await;
        let content = joined(&install).await[0];
        let merged = merge(&install, content).await;
        let expected = match (first, length) {
            ("piece", _) => Merged::Shared,
            (_, LONG) => Merged::Known,
            _ => Merged::Written,
        };
        assert_eq!(merged, expected, "{told}");
        assert!(install.get("parts").await.as_ref() == Some(&body), "{told}");
        if first == "parts" {
            install.put("piece", body.clone()).await;
        }
        install.collect_all().await;
        install.collect_all().await;
        assert_eq!(stored(&install).await, body.len() as u64, "{told}");
        assert_eq!(merge(&install, content).await, Merged::Nothing, "{told}");
        // Each goes without the other, and both to nothing.
        install.delete("piece").await;
        install.collect_all().await;
        assert!(install.get("parts").await.as_ref() == Some(&body), "{told}");
        install.delete("parts").await;
        install.collect_all().await;
        install.collect_all().await;
        assert_eq!(install.contents().await, 0, "{told}");
    }
}

#[tokio::test]
async fn equal_uploads_in_other_parts_are_stored_once_too() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let body = bytes(3, 3 * LONG);
    for (name, at) in [("one", LONG), ("two", LONG + 12_345)] {
        join(&install, name, &[body.slice(..at), body.slice(at..)]).await;
    }
    let all = joined(&install).await;
    assert_eq!(merge(&install, all[0]).await, Merged::Known);
    assert_eq!(merge(&install, all[1]).await, Merged::Shared);
    install.collect_all().await;
    install.collect_all().await;
    assert_eq!(stored(&install).await, body.len() as u64);
    for name in ["one", "two"] {
        assert!(install.get(name).await.as_ref() == Some(&body), "{name}");
    }
}

#[tokio::test]
async fn what_is_being_read_stays_until_it_is_read() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let parts = parts(BLOB_BYTES);
    let body = whole(&parts);
    join(&install, "parts", &parts).await;
    let content = joined(&install).await[0];
    let mut reader = install
        .content
        .open_unlocated(content, 0..body.len() as u64);
    let mut read = reader.next().await.unwrap().unwrap().to_vec();
    assert_eq!(merge(&install, content).await, Merged::Written);
    install.collect_all().await;
    while let Some(bytes) = reader.next().await {
        read.extend_from_slice(&bytes.unwrap());
    }
    assert!(read == body);
}

/// Goes on with `work` so many times, each when there is something new for it, and drops it where it is then: between
/// two statements, or while one is under way. Answers whether it ended before.
pub async fn cut<T>(work: impl Future<Output = T>, polls: usize) -> bool {
    let mut work = pin!(work);
    let mut left = polls;
    future::poll_fn(|context| {
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_is_cut_anywhere_is_done_by_the_next_one() {
    for (length, first) in [(BLOB_BYTES, false), (BLOB_BYTES, true), (LONG, false)] {
        let mut polls = 1;
        loop {
            let (dir, clock) = fresh();
            let install = Install::open(dir.path(), &clock).await;
            let parts = parts(length);
            let body = whole(&parts);
            if first {
                install.put("piece", body.clone()).await;
            }
            join(&install, "parts", &parts).await;
            let content = joined(&install).await[0];
            let ended = cut(merge(&install, content), polls).await;
            install.crash().await;
            let install = Install::open(dir.path(), &clock).await;
            assert!(
                install.get("parts").await.as_ref() == Some(&body),
                "{polls}"
            );
            merge(&install, content).await;
            assert_eq!(merge(&install, content).await, Merged::Nothing, "{polls}");
            assert!(
                install.get("parts").await.as_ref() == Some(&body),
                "{polls}"
            );
            install.put("piece", body.clone()).await;
            install.collect_all().await;
            install.collect_all().await;
            assert_eq!(stored(&install).await, body.len() as u64, "{polls}");
            if ended {
                break;
            }
            polls += 1 + polls / 2;
            assert!(polls < 10_000, "it does not end");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merges_writers_and_the_collector_race_and_every_key_keeps_its_bytes() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    for round in 0..12_u8 {
        let parts = [
            bytes(round, BLOB_BYTES),
            bytes(round.wrapping_add(90), BLOB_BYTES),
        ];
        let body = whole(&parts);
        for name in ["a", "b", "c"] {
            join(&install, name, &parts).await;
        }
        let before = joined(&install).await;
        let merges = before
            .iter()
            .map(|content| merge(&install, *content).map(drop));
        let collect = async {
            install.beat().await;
            install.content.collect(&untold).await.unwrap();
        };
        let others = async {
            install.delete("a").await;
            install.put("piece", body.clone()).await;
        };
        future::join3(future::join_all(merges), collect, others).await;
        install.collect_all().await;
        for name in ["b", "c", "piece"] {
            assert!(
                install.get(name).await.as_ref() == Some(&body),
                "{round} {name}"
            );
        }
    }
    for name in ["b", "c", "piece"] {
        install.delete(name).await;
    }
    install.collect_all().await;
    install.collect_all().await;
    assert_eq!(install.contents().await, 0);
}

#[tokio::test]
async fn bytes_that_went_bad_are_not_made_known_and_stay_found() {
    for length in [BLOB_BYTES, LONG] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let parts = parts(length);
        let body = whole(&parts);
        join(&install, "parts", &parts).await;
        let content = joined(&install).await[0];
        for index in 0..2 {
            let file = files(dir.path(), "local").remove(index);
            flip(&file, length / 2);
            let work = Work::new(None, None);
            let fault = install.content.merge(content, &work).await.unwrap_err();
            assert_eq!(fault.kind(), Kind::Corrupt, "{length} {index}");
            install.collect_all().await;
            assert_eq!(stored(&install).await, body.len() as u64);
            let seen = fsck(&install, Depth::All, Act::Report).await;
            let expected = (Problem::Corrupt, Repair::None, names(&["parts"]));
            assert_eq!(told(&seen), [expected], "{length} {index}");
            flip(&file, length / 2);
        }
        // Once they are right again they are merged as any.
        let expected = match length {
            LONG => Merged::Known,
            _ => Merged::Written,
        };
        assert_eq!(merge(&install, content).await, expected);
        install.collect_all().await;
        assert!(install.get("parts").await.as_ref() == Some(&body));
        let seen = fsck(&install, Depth::All, Act::Report).await;
        assert_eq!(told(&seen), []);
    }
}

#[tokio::test]
async fn a_part_that_is_bad_at_one_backend_is_merged_from_the_other() {
    for (length, bad) in [
        (BLOB_BYTES, "local"),
        (BLOB_BYTES, "other"),
        (LONG, "local"),
        (LONG, "other"),
    ] {
        let told_of = format!("{length} {bad}");
        let (dir, clock) = fresh();
        let mut install = Install::open(dir.path(), &clock).await;
        install.use_bucket_at("both").await;
        let parts = parts(length);
        let body = whole(&parts);
        join(&install, "parts", &parts).await;
        let content = joined(&install).await[0];
        for file in files(dir.path(), bad) {
            flip(&file, length - 10);
        }
        let expected = match length {
            LONG => Merged::Known,
            _ => Merged::Written,
        };
        assert_eq!(merge(&install, content).await, expected, "{told_of}");
        install.collect_all().await;
        install.collect_all().await;
        // Each backend has all of it, except for what nobody read there: that is the scrub's.
        let seen = fsck(&install, Depth::All, Act::Mend).await;
        assert_eq!(seen.findings.left, 0, "{told_of}");
        for away in ["local", "other"] {
            let root = backend_root(dir.path(), away);
            std::fs::rename(&root, root.with_extension("away")).unwrap();
            assert!(
                install.get("parts").await.as_ref() == Some(&body),
                "{told_of} {away}"
            );
            std::fs::rename(root.with_extension("away"), &root).unwrap();
        }
    }
}

#[tokio::test]
async fn encrypted_parts_are_merged_and_bad_ones_are_not() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let parts = parts(BLOB_BYTES);
    let body = whole(&parts);
    let target = install.namespace.target(&install.bucket, Wanted::S3).await;
    let new = NewUpload {
        encryption: target.unwrap().encryption().cloned(),
        ..NewUpload::default()
    };
    let upload = install
        .namespace
        .create_upload(&install.bucket, &key("sealed"), new)
        .await
        .unwrap();
    let mut named = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let received = install.receive_for(Wanted::S3, part.clone()).await.1;
        named.push(put_part(&install, "sealed", upload, number, received, None).await);
    }
    complete(&install, "sealed", upload, named).await;
    let content = joined(&install).await[0];
    let file = files(dir.path(), "local").remove(1);
    flip(&file, 1000);
    let work = Work::new(None, None);
    let fault = install.content.merge(content, &work).await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Corrupt);
    flip(&file, 1000);
    assert_eq!(merge(&install, content).await, Merged::Known);
    assert!(install.get("sealed").await == Some(body));
}

/// Goes on with `work` as [`cut`] does, does `meanwhile`, and then goes on to the end; answers whether it had ended
/// before that.
async fn held<T>(
    work: impl Future<Output = T>,
    polls: usize,
    meanwhile: impl Future<Output = ()>,
) -> (bool, T) {
    let mut work = pin!(work);
    let mut left = polls;
    let ended = future::poll_fn(|context| {
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match ended {
        Some(done) => (true, done),
        None => {
            meanwhile.await;
            (false, work.await)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_whose_equal_bytes_were_collected_meanwhile_is_not_done() {
    // One that is looked up before it is written, and one after.
    for length in [BLOB_BYTES, 2 * BLOB_BYTES] {
        for polls in 1.. {
            let (dir, clock) = fresh();
            let install = Install::open(dir.path(), &clock).await;
            let parts = parts(length);
            let body = whole(&parts);
            install.put("piece", body.clone()).await;
            join(&install, "parts", &parts).await;
            let content = joined(&install).await[0];
            let collect = async {
                install.delete("piece").await;
                install.collect_all().await;
            };
            let work = Work::new(None, None);
            let merging = install.content.merge(content, &work);
            let (ended, merged) = held(merging, polls, collect).await;
            match merged {
                Ok(merged) => assert_ne!(merged, Merged::Nothing, "{length} {polls}"),
                Err(fault) => {
                    assert!(fault.is_retryable(), "{fault}");
                    assert_ne!(merge(&install, content).await, Merged::Nothing);
                }
            }
            assert!(install.get("parts").await.as_ref() == Some(&body));
            assert_eq!(merge(&install, content).await, Merged::Nothing);
            if ended {
                break;
            }
            assert!(polls < 10_000, "it does not end");
        }
    }
}

#[tokio::test]
async fn the_job_is_inserted_with_the_complete_and_not_where_nothing_is_shared() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let jobs = Backlog::new(install.meta.clone(), clock.clone(), Default::default());
    let merges = async || {
        let filter = JobFilter {
            kind: Some("merge".to_owned()),
            state: None,
            limit: 100,
            before: None,
        };
        jobs.list(filter).await.unwrap().jobs.len()
    };
    join(&install, "one part", &[bytes(1, 1000)]).await;
    assert_eq!(merges().await, 0);
    join(&install, "two parts", &parts(1000)).await;
    assert_eq!(merges().await, 1);
}

/// Joins parts of which each was sent by an access key, or by nobody who gains possession.
async fn join_as(install: &Install, name: &str, bodies: &[Bytes], senders: [Option<SenderId>; 2]) {
    let upload = begin(install, name).await;
    let mut parts = Vec::new();
    for (index, (body, sender)) in bodies.iter().zip(senders).enumerate() {
        let (number, received) = (index as u32 + 1, install.receive(body.clone()).await);
        parts.push(put_part(install, name, upload, number, received, sender).await);
    }
    complete(install, name, upload, parts).await;
}

/// Whether `sender` has possession of the bytes of these digests: by their SHA-256, and as well by their MD5.
pub async fn is_possessed(install: &Install, of: &Digests, sender: SenderId) -> bool {
    let space = install.bucket.space;
    let found = install
        .content
        .possessed(space, of.sha256, of.length, sender);
    let by_sha256 = found.await.unwrap().is_some();
    let by_md5 = is_held(install, of, Holder::Sender(sender)).await;
    assert_eq!(by_sha256, by_md5);
    by_sha256
}

async fn is_held(install: &Install, of: &Digests, holder: Holder) -> bool {
    let namespace = &install.namespace;
    let target = namespace.target(&install.bucket, Wanted::Default).await;
    let target = target.unwrap();
    let found = namespace.possessed_by_md5(&target, of.md5, holder);
    found.await.unwrap().is_some()
}

#[tokio::test]
async fn who_sent_all_parts_has_possession_of_the_whole_and_nobody_else_gains_it() {
    let (mine, other) = (SenderId(71), SenderId(72));
    for (length, senders, piece_by, expected) in [
        (LONG, [Some(mine); 2], None, Merged::Known),
        (LONG, [Some(mine); 2], Some(other), Merged::Shared),
        (BLOB_BYTES, [Some(mine); 2], None, Merged::Written),
        (BLOB_BYTES, [Some(mine); 2], Some(other), Merged::Shared),
        (BLOB_BYTES, [Some(mine), Some(other)], None, Merged::Written),
        (BLOB_BYTES, [Some(mine), None], None, Merged::Written),
        (BLOB_BYTES, [None; 2], Some(other), Merged::Shared),
    ] {
        let told = format!("{length} {senders:?} {piece_by:?}");
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let parts = parts(length);
        let body = whole(&parts);
        let of = install.receive(body.clone()).await.digests.clone();
        if piece_by.is_some() {
            let request = PutRequest {
                sender: piece_by,
                ..install.request("piece")
            };
            let received = install.receive(body.clone()).await;
            install.namespace.put(request, received).await.unwrap();
        }
        join_as(&install, "parts", &parts, senders).await;
        let content = joined(&install).await[0];
        assert_eq!(merge(&install, content).await, expected, "{told}");
        let has_sent = senders == [Some(mine); 2];
        assert_eq!(is_possessed(&install, &of, mine).await, has_sent, "{told}");
        assert_eq!(
            is_possessed(&install, &of, other).await,
            piece_by.is_some(),
            "{told}"
        );
        assert!(!is_possessed(&install, &of, SenderId(73)).await, "{told}");
        // As long as the reference to the whole, and no longer.
        install.collect_all().await;
        assert_eq!(is_possessed(&install, &of, mine).await, has_sent, "{told}");
        install.delete("parts").await;
        assert!(!is_possessed(&install, &of, mine).await, "{told}");
    }
}

#[tokio::test]
async fn a_bucket_that_holds_merged_parts_holds_the_bytes() {
    for (length, merged) in [(LONG, Merged::Known), (BLOB_BYTES, Merged::Written)] {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let parts = parts(length);
        let of = install.receive(whole(&parts)).await.digests.clone();
        join(&install, "parts", &parts).await;
        assert_eq!(merge(&install, joined(&install).await[0]).await, merged);
        let holder = Holder::Buckets(vec![install.bucket.id]);
        assert!(is_held(&install, &of, holder.clone()).await, "{length}");
        install.delete("parts").await;
        assert!(!is_held(&install, &of, holder).await, "{length}");
    }
}
