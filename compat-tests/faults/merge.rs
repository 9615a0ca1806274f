//! Merges: joined parts and equal bytes in one piece end up stored once, whichever came first; reading stays right
//! during and after; a merge that is cut anywhere, or raced, loses nothing.

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures::{FutureExt, future};
use osproxy::content::{Merged, Work};
use osproxy::meta::contents;
use osproxy::model::fault::Fault;
use osproxy::model::ids::ContentId;
use osproxy::tasks::{Backlog, JobFilter};

use crate::install::{BLOB_BYTES, Install, bytes};
use crate::moves::{fresh, join};

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
            install.content.collect().await.unwrap();
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
