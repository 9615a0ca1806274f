//! Jobs on a namespace that a crash cuts at any step, and that are run again: their effect happens once, and nothing
//! is left behind.

use std::sync::Arc;

use osproxy::meta::copy::Place;
use osproxy::meta::{events, uploads};
use osproxy::model::bucket::Versioning;
use osproxy::model::fault::Fault;
use osproxy::model::ids::Uid;
use osproxy::model::lifecycle::{Calendar, DAY, Expiration, Filter, Lifecycle, Noncurrent, Rule};
use osproxy::model::notification::{Arn, Configuration, Kind, Notification};
use osproxy::model::progress::untold;
use osproxy::namespace::{Condition, ExpireReport, UploadRow};
use osproxy::tasks::Expire;
use osproxy::telemetry::Metrics;

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, bytes, key, place};
use crate::jobs;
use crate::merge::cut;
use crate::moves::{again, begin, complete, fresh, join, part};

/// How often a piece of work is gone on with before it is cut: each time more often, until it comes to its end. At first
/// every step is tried, and later one of some.
struct Cuts(usize);

impl Cuts {
    fn begin() -> Self {
        Self(1)
    }

    /// Whether there is another cut to try.
    fn next(&mut self, ended: bool) -> bool {
        self.0 += 1 + self.0 / 8;
        assert!(self.0 < 20_000, "it does not end");
        !ended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_uploads_are_aborted_once_wherever_it_is_cut() {
    let mut cuts = Cuts::begin();
    loop {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let shared = bytes(1, BLOB_BYTES);
        install.put("kept", shared.clone()).await;
        let mut stale = Vec::new();
        for name in ["a", "b", "c"] {
            let upload = begin(&install, name).await;
            part(&install, name, upload, 1, shared.clone()).await;
            let own = bytes(name.as_bytes()[0], BLOB_BYTES);
            part(&install, name, upload, 2, own).await;
            stale.push((name, upload));
        }
        clock.advance(8 * DAY);
        let install = again(install, &dir, &clock).await;
        let young = begin(&install, "young").await;
        let only = bytes(2, BLOB_BYTES);
        let parts = vec![part(&install, "young", young, 1, only.clone()).await];

        let ended = cut(install.namespace.abort_stale(), cuts.0).await;
        let install = again(install, &dir, &clock).await;
        install.namespace.abort_stale().await.unwrap();
        let told = cuts.0;
        let report = install.namespace.abort_stale().await.unwrap();
        assert_eq!((report.aborted, report.failed), (0, 0), "{told}");
        for (name, upload) in stale {
            let found = install
                .namespace
                .upload(&install.bucket, &key(name), upload)
                .await;
            assert!(matches!(found, Err(Condition::NoSuchUpload)), "{told}");
        }
        complete(&install, "young", young, parts).await;
        install.collect_all().await;
        assert!(install.get("kept").await == Some(shared), "{told}");
        assert!(install.get("young").await == Some(only), "{told}");
        assert_eq!(install.blobs().await.len(), 2, "{told}");
        // Each release was one reference less and not two: what is used is deleted to the last, and nothing else is.
        install.delete("kept").await;
        install.delete("young").await;
        install.collect_all().await;
        install.collect_all().await;
        assert_eq!(install.contents().await, 0, "{told}");
        assert!(install.blobs().await.is_empty(), "{told}");
        if !cuts.next(ended) {
            break;
        }
    }
}

#[tokio::test]
async fn however_many_uploads_are_stale_one_run_ends_them_all() {
    const MANY: i64 = 1_100;
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let first = begin(&install, "first").await;
    let row = install
        .namespace
        .upload(&install.bucket, &key("first"), first)
        .await;
    let row = Arc::new(row.unwrap());
    let uids = install.uids.clone();
    install
        .meta
        .transact("begin", move |session| {
            let (uids, row) = (uids.clone(), row.clone());
            Box::pin(async move {
                for _ in 0..MANY {
                    let row = UploadRow {
                        uid: Uid(uids.next()?),
                        ..row.as_ref().clone()
                    };
                    uploads::insert(session, &row).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .await
        .unwrap();
    clock.advance(8 * DAY);
    let install = again(install, &dir, &clock).await;
    let young = begin(&install, "young").await;
    let report = install.namespace.abort_stale().await.unwrap();
    assert_eq!((report.aborted, report.forgotten), (MANY as u64 + 1, 0));
    assert_eq!(report.failed, 0);
    clock.advance(6 * DAY);
    let report = install.namespace.abort_stale().await.unwrap();
    assert_eq!((report.aborted, report.forgotten), (0, 0));
    clock.advance(2 * DAY);
    let report = install.namespace.abort_stale().await.unwrap();
    assert_eq!((report.aborted, report.forgotten), (1, MANY as u64 + 1));
    let gone = install
        .namespace
        .upload(&install.bucket, &key("young"), young)
        .await;
    assert!(matches!(gone, Err(Condition::NoSuchUpload)));
}

#[tokio::test]
async fn a_stale_upload_that_cannot_be_aborted_keeps_no_other_from_its_end() {
    let (dir, clock) = fresh();
    let Place::Sqlite(path) = place(dir.path()).await else {
        println!("skipped: the upload is spoilt by a trigger of SQLite");
        return;
    };
    let install = Install::open(dir.path(), &clock).await;
    let spoilt = begin(&install, "spoilt").await;
    clock.advance(1);
    begin(&install, "other").await;
    let direct = rusqlite::Connection::open(path).unwrap();
    let sql = format!(
        "CREATE TRIGGER spoilt BEFORE UPDATE ON uploads WHEN OLD.uid = {}
         BEGIN SELECT RAISE(ABORT, 'spoilt'); END",
        spoilt.0.0
    );
    direct.execute_batch(&sql).unwrap();
    clock.advance(8 * DAY);
    let report = install.namespace.abort_stale().await.unwrap();
    assert_eq!((report.aborted, report.failed), (1, 1));
    direct.execute_batch("DROP TRIGGER spoilt").unwrap();
    let report = install.namespace.abort_stale().await.unwrap();
    assert_eq!((report.aborted, report.failed), (1, 0));
}

fn rule(days: u32) -> Lifecycle {
    Lifecycle {
        rules: vec![Rule {
            id: "all".to_owned(),
            enabled: true,
            filter: Filter {
                prefix: Some("old/".to_owned()),
                ..Filter::default()
            },
            expiration: Some(Expiration::Days(days)),
            noncurrent: Some(Noncurrent { days, keep: None }),
            abort_days: Some(days),
            transitions: Vec::new(),
            noncurrent_transitions: Vec::new(),
        }],
        minimum_size: None,
    }
}

/// Everything that happens in the bucket goes to one target.
fn told_of_all() -> Notification {
    let arn = Arn {
        region: "",
        account: "default",
        name: "all",
    };
    Notification {
        configurations: vec![Configuration {
            id: "all".to_owned(),
            kind: Kind::Topic,
            arn: format!("arn:aws:sns:{}:{}:{}", arn.region, arn.account, arn.name),
            events: vec!["s3:LifecycleExpiration:*".to_owned()],
            filter: Vec::new(),
        }],
        event_bridge: false,
        owner: "owner".to_owned(),
    }
}

/// The names and keys of the events that wait, sorted.
async fn events_of(install: &Install) -> Vec<(String, String)> {
    let found: Result<_, Fault> = install
        .meta
        .scan("read events", |session| {
            Box::pin(events::head(session, "all", 1000))
        })
        .await;
    let mut all: Vec<_> = found
        .unwrap()
        .iter()
        .map(|event| {
            let event: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
            let record = &event["Records"][0];
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (
                text(&record["eventName"]),
                text(&record["s3"]["object"]["key"]),
            )
        })
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_rules_are_carried_out_once_wherever_they_are_cut() {
    const KEYS: u8 = 6;
    let calendar = Calendar::new(DAY);
    let mut cuts = Cuts::begin();
    loop {
        let (dir, clock) = fresh();
        let mut install = Install::open(dir.path(), &clock).await;
        install.set_versioning(Versioning::Enabled).await;
        install
            .namespace
            .update_bucket(&install.bucket, None, |bucket| {
                bucket.settings.lifecycle = Some(rule(1));
                bucket.settings.notification = Some(told_of_all());
                Ok(())
            })
            .await
            .unwrap();
        let kept = bytes(1, BLOB_BYTES);
        install.put("new/kept", kept.clone()).await;
        for number in 0..KEYS {
            let name = format!("old/{number}");
            install.put(&name, bytes(10 + number, BLOB_BYTES)).await;
            install.put(&name, kept.clone()).await;
        }
        let upload = begin(&install, "old/upload").await;
        part(&install, "old/upload", upload, 1, kept.clone()).await;

        clock.advance(3 * DAY);
        let mut install = again(install, &dir, &clock).await;
        let first = cut(install.namespace.expire(&install.bucket, calendar), cuts.0).await;
        install = again(install, &dir, &clock).await;
        install
            .namespace
            .expire(&install.bucket, calendar)
            .await
            .unwrap();
        let told = cuts.0;
        let mut expected = Vec::new();
        for (name, keys) in [
            ("LifecycleExpiration:Delete", 0..KEYS),
            ("LifecycleExpiration:DeleteMarkerCreated", 0..KEYS),
        ] {
            expected.extend(keys.map(|number| (name.to_owned(), format!("old/{number}"))));
        }
        assert_eq!(events_of(&install).await, expected, "{told}");
        for number in 0..KEYS {
            assert_eq!(install.get(&format!("old/{number}")).await, None, "{told}");
        }

        // Now the versions that the markers hide go, and the markers.
        clock.advance(3 * DAY);
        install = again(install, &dir, &clock).await;
        let second = cut(install.namespace.expire(&install.bucket, calendar), cuts.0).await;
        install = again(install, &dir, &clock).await;
        install
            .namespace
            .expire(&install.bucket, calendar)
            .await
            .unwrap();
        let nothing = install.namespace.expire(&install.bucket, calendar).await;
        assert_eq!(nothing.unwrap(), ExpireReport::default(), "{told}");
        assert_eq!(
            events_of(&install).await.len(),
            expected.len() + 2 * usize::from(KEYS),
            "{told}"
        );
        assert_eq!(install.usage().await, (1, BLOB_BYTES as u64), "{told}");
        assert!(install.get("new/kept").await == Some(kept), "{told}");
        install.collect_all().await;
        assert_eq!(install.contents().await, 1, "{told}");
        assert_eq!(install.blobs().await.len(), 1, "{told}");
        if !cuts.next(first && second) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_rules_fail_fails_the_run_after_the_others_had_their_turn() {
    let (dir, clock) = fresh();
    let Place::Sqlite(path) = place(dir.path()).await else {
        println!("skipped: the bucket is spoilt by a trigger of SQLite");
        return;
    };
    let mut install = Install::open(dir.path(), &clock).await;
    let spoilt = install.bucket.id.0;
    for _ in 0..2 {
        install
            .namespace
            .update_bucket(&install.bucket, None, |bucket| {
                bucket.settings.lifecycle = Some(rule(1));
                Ok(())
            })
            .await
            .unwrap();
        install.put("old/gone", bytes(1, 100)).await;
        if install.bucket.id.0 == spoilt {
            install.use_bucket_at("local").await;
        }
    }
    let sql = format!(
        "CREATE TRIGGER spoilt BEFORE DELETE ON objects WHEN OLD.bucket_id = {spoilt}
         BEGIN SELECT RAISE(ABORT, 'spoilt'); END"
    );
    rusqlite::Connection::open(path)
        .unwrap()
        .execute_batch(&sql)
        .unwrap();
    clock.advance(3 * DAY);
    let install = again(install, &dir, &clock).await;
    let handler = Expire {
        namespace: install.namespace.clone(),
        calendar: Calendar::new(DAY),
        metrics: Metrics::new(),
    };
    let _node =
        jobs::Node::start_steady(dir.path(), 7, move |engine| engine.register(handler)).await;
    let job = jobs::insert(&install.meta, "lifecycle", None).await;
    let job = jobs::until(&install.meta, job, |job| {
        job.reason.is_some() || job.state.is_ended()
    })
    .await;
    assert!(job.reason.unwrap().contains("1 buckets"));
    assert_eq!(install.get("old/gone").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_cut_anywhere_is_finished_by_the_next_one() {
    let mut cuts = Cuts::begin();
    loop {
        let (dir, clock) = fresh();
        let install = Install::open(dir.path(), &clock).await;
        let shared = bytes(1, BLOB_BYTES);
        install.put("kept", shared.clone()).await;
        install.put("shared", shared.clone()).await;
        for seed in 2..6 {
            install
                .put(&format!("gone{seed}"), bytes(seed, BLOB_BYTES))
                .await;
        }
        let parts = [bytes(6, BLOB_BYTES), shared.clone()];
        join(&install, "joined", &parts).await;
        for name in ["shared", "gone2", "gone3", "gone4", "gone5", "joined"] {
            install.delete(name).await;
        }
        clock.advance(GRACE_MILLIS + 1);
        install.beat().await;
        let ended = cut(install.content.collect(&untold), cuts.0).await;
        let install = again(install, &dir, &clock).await;
        let told = cuts.0;
        assert!(install.get("kept").await == Some(shared), "{told}");
        // Stored again beside a collection that was cut: whatever became of the old bytes, these are there.
        install.put("back", bytes(2, BLOB_BYTES)).await;
        install.collect_all().await;
        install.collect_all().await;
        assert!(
            install.get("back").await == Some(bytes(2, BLOB_BYTES)),
            "{told}"
        );
        assert_eq!(install.contents().await, 2, "{told}");
        assert_eq!(install.blobs().await.len(), 2, "{told}");
        if !cuts.next(ended) {
            break;
        }
    }
}
