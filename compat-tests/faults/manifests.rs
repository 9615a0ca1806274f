//! The namespace rebuilt from manifests after random histories, in which the writer and the process are cut at any
//! step: what comes back is the database as it was at one moment, never before the last manifest that was finished.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use osproxy::keys::MasterKey;
use osproxy::manifest::{self, Manifests, Options, RecoverError, Recovery, recover};
use osproxy::meta::catalog::{TABLES, Value};
use osproxy::meta::{MetaStore, Session, nodes};
use osproxy::model::bucket::Versioning;
use osproxy::model::clock::Clock;
use osproxy::model::fault::Fault;
use osproxy::model::ids::EPOCH;
use osproxy::model::object::VersionId;
use osproxy::model::progress::untold;
use osproxy::namespace::VersionQuery;
use osproxy::telemetry::Metrics;
use proptest::prelude::*;

use crate::install::{BLOB_BYTES, Install, bytes, database};
use crate::moves;

/// Longer than a claim holds.
const CLAIM_MILLIS: i64 = 400_000;

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u8,
        seed: u8,
        is_large: bool,
    },
    PutEncrypted(u8),
    Delete(u8),
    /// A version of any key, counted modulo how many there are.
    DeleteVersion(usize),
    Set(Versioning),
    Rotate,
    Collect,
    Write,
    /// A writer that ends after so many turns.
    WriteCut(usize),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4u8, 0..6u8, any::<bool>())
            .prop_map(|(key, seed, is_large)| Step::Put { key, seed, is_large }),
        1 => (0..4u8).prop_map(Step::PutEncrypted),
        3 => (0..4u8).prop_map(Step::Delete),
        3 => any::<usize>().prop_map(Step::DeleteVersion),
        1 => Just(Step::Set(Versioning::Enabled)),
        1 => Just(Step::Set(Versioning::Suspended)),
        1 => Just(Step::Rotate),
        1 => Just(Step::Collect),
        3 => Just(Step::Write),
        4 => (0..60usize).prop_map(Step::WriteCut),
        1 => Just(Step::Crash),
    ]
}

/// A server makes a database for each recovery, which takes it a while.
fn fewer(cases: u32) -> u32 {
    match std::env::var_os("COMPAT_META_URL") {
        Some(_) => cases / 8,
        None => cases,
    }
}

/// All rows that manifests keep, by table.
type Rows = Vec<(&'static str, Vec<Vec<Value>>)>;

async fn rows(meta: &MetaStore) -> Rows {
    meta.snapshot("read all", |session| {
        Box::pin(async move {
            let mut all = Vec::new();
            for table in TABLES {
                let mut found: Vec<Vec<Value>> = Vec::new();
                loop {
                    let after = found.last().map(|row| row[..table.primary].to_vec());
                    // Few rows a page, so that pages end within groups.
                    let page = table.page(session, after.as_deref(), 3).await?;
                    if page.is_empty() {
                        break;
                    }
                    found.extend(page);
                }
                all.push((table.name, found));
            }
            Ok::<_, Fault>(all)
        })
    })
    .await
    .unwrap()
}

async fn writer(install: &Install, dir: &Path) -> Manifests {
    install.meta.set_recording(true).await.unwrap();
    Manifests::new(manifest::Parts {
        meta: install.meta.clone(),
        blobs: install.blobs.clone(),
        master_key: MasterKey::require(dir, None).unwrap(),
        clock: install.clock.clone(),
        backend: "local".to_owned(),
    })
    .unwrap()
}

/// Drops a future that is not done after `turns`.
async fn cut<F: Future>(future: F, mut turns: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        if turns == 0 {
            return Poll::Ready(None);
        }
        turns -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// A new database, filled from the manifests of `install`.
async fn rebuilt(install: &Install, dir: &Path) -> Result<Rows, RecoverError> {
    let new = tempfile::tempdir().unwrap();
    let recovery = Recovery {
        meta: database(new.path(), Metrics::new()).await,
        blobs: install.blobs.clone(),
        master_key: MasterKey::require(dir, None).unwrap(),
        clock: install.clock.clone(),
        scratch: new.path().join("scratch"),
    };
    let report = recover(&recovery, &Options::default(), &|_| {}).await?;
    assert_eq!(
        (report.rows_left_out, report.skipped.len()),
        (0, 0),
        "{report:?}"
    );
    let found = rows(&recovery.meta).await;
    let again = recover(&recovery, &Options::default(), &|_| {}).await;
    assert!(matches!(again, Err(RecoverError::NotEmpty)));
    recovery.meta.close().await;
    Ok(found)
}

async fn act(install: &mut Install, step: &Step) {
    let name = |key: &u8| format!("k{key}");
    match step {
        Step::Put {
            key,
            seed,
            is_large,
        } => {
            let length = if *is_large { BLOB_BYTES } else { 20 };
            install.put(&name(key), bytes(*seed, length)).await;
        }
        Step::PutEncrypted(key) => install.put_encrypted(&name(key), bytes(9, 30)).await,
        Step::Delete(key) => install.delete(&name(key)).await,
        Step::DeleteVersion(place) => {
            let query = VersionQuery {
                limit: 1000,
                ..VersionQuery::default()
            };
            let page = install
                .namespace
                .list_versions(&install.bucket, query)
                .await;
            let found: Vec<(String, VersionId)> = page
                .unwrap()
                .versions
                .into_iter()
                .map(|row| (row.key.as_str().to_owned(), row.id))
                .collect();
            if let Some((key, id)) = found.get(place % found.len().max(1)) {
                install.delete_version(key, Some(*id)).await.unwrap();
            }
        }
        Step::Set(versioning) => install.set_versioning(*versioning).await,
        Step::Rotate => {
            install.keys.rotate_tenants(None).await.unwrap();
            install.content.rewrap(&untold).await.unwrap();
        }
        Step::Collect => install.collect_all().await,
        Step::Write | Step::WriteCut(_) | Step::Crash => {}
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let mut install = Install::open(dir.path(), &clock).await;
    let mut manifests = writer(&install, dir.path()).await;
    // What may come back; `None`: nothing, because no manifest was finished.
    let mut expected: Vec<Option<Rows>> = vec![None];
    for step in &steps {
        act(&mut install, step).await;
        match step {
            Step::Write => {
                manifests.write().await.unwrap();
                expected = vec![Some(rows(&install.meta).await)];
            }
            Step::WriteCut(turns) => {
                let done = cut(manifests.write(), *turns).await;
                expected.push(Some(rows(&install.meta).await));
                if let Some(done) = done {
                    done.unwrap();
                    expected.drain(..expected.len() - 1);
                }
            }
            Step::Crash => {
                install.crash().await;
                clock.advance(CLAIM_MILLIS);
                install = Install::open(dir.path(), &clock).await;
                manifests = writer(&install, dir.path()).await;
            }
            _ => {}
        }
    }
    let found = match rebuilt(&install, dir.path()).await {
        Ok(found) => Some(found),
        Err(RecoverError::NoManifests(_) | RecoverError::NoneWhole(_)) => None,
        Err(error) => panic!("{error}"),
    };
    if !expected.contains(&found) {
        assert_eq!(found.as_ref(), expected.last().unwrap().as_ref());
    }
    // Whatever was cut, the next manifest makes good for it.
    clock.advance(CLAIM_MILLIS);
    manifests.write().await.unwrap();
    let found = rebuilt(&install, dir.path()).await.unwrap();
    assert_eq!(found, rows(&install.meta).await);
    install.meta.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(fewer(30)))]

    #[test]
    fn a_recovered_database_is_the_lost_one_at_one_moment(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

/// Two writers at a time, one of which is slow: what it writes after its claim has ended does not count.
#[tokio::test]
async fn a_writer_that_was_paused_beyond_its_claim_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let install = Install::open(dir.path(), &clock).await;
    let (slow, quick) = (
        writer(&install, dir.path()).await,
        writer(&install, dir.path()).await,
    );
    install.put("k", bytes(1, BLOB_BYTES)).await;
    slow.write().await.unwrap();
    for turns in (1..40).step_by(if fewer(30) < 30 { 6 } else { 1 }) {
        install.put("k", bytes(turns as u8, 20)).await;
        let mut paused = std::pin::pin!(slow.write());
        let is_done = cut(paused.as_mut(), turns).await.is_some();
        clock.advance(CLAIM_MILLIS);
        install.put("k", bytes(turns as u8, 21)).await;
        quick.write().await.unwrap().unwrap();
        let newest = rows(&install.meta).await;
        if !is_done {
            // Its changes are in the other's manifest; what it does now must not hide them.
            let _: Result<_, Fault> = paused.await;
        }
        assert_eq!(
            rebuilt(&install, dir.path()).await.unwrap(),
            newest,
            "turn {turns}"
        );
    }
    let _ = Arc::strong_count(&install.content);
    install.meta.close().await;
}

/// A vendor that lost an object of the chain: the next manifest is everything again.
#[tokio::test]
async fn a_manifest_that_is_gone_is_made_good_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let install = Install::open(dir.path(), &clock).await;
    let manifests = writer(&install, dir.path()).await;
    for seed in 0..3 {
        install.put("k", bytes(seed, BLOB_BYTES)).await;
        manifests.write().await.unwrap();
    }
    assert_eq!(manifests.write().await.unwrap(), None, "nothing changed");
    let names = install.blobs.list_manifests("local").await.unwrap();
    assert_eq!(names.len(), 3);
    install.blobs.delete("local", &names[1]).await.unwrap();
    let next = writer(&install, dir.path()).await;
    let written = next.write().await.unwrap().unwrap();
    assert!(written.is_snapshot);
    assert_eq!(
        install.blobs.list_manifests("local").await.unwrap().len(),
        1
    );
    assert_eq!(
        rebuilt(&install, dir.path()).await.unwrap(),
        rows(&install.meta).await
    );
    install.meta.close().await;
}

/// Backends that were moved to another one of any number, by several moves, and back.
#[tokio::test]
async fn moves_of_backends_come_back() {
    let (dir, clock) = moves::fresh();
    let install = Install::open(dir.path(), &clock).await;
    let manifests = writer(&install, dir.path()).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    for (from, to) in [("local", "other"), ("other", "short"), ("short", "local")] {
        let id = moves::start(&install, moves::order(from, to, None))
            .await
            .unwrap();
        assert_eq!(moves::finish(&install, id).await.state, "done");
        manifests.write().await.unwrap();
        assert_eq!(
            rebuilt(&install, dir.path()).await.unwrap(),
            rows(&install.meta).await,
            "{from} to {to}"
        );
    }
    install.meta.close().await;
}

/// Damage anywhere in an object, and an object that ends anywhere, is refused; so is another master key.
#[tokio::test]
async fn any_changed_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, 5000)).await;
    writer(&install, dir.path()).await.write().await.unwrap();
    let names = install.blobs.list_manifests("local").await.unwrap();
    let path = dir.path().join("blobs/ff").join(names[0].as_str());
    let whole = std::fs::read(&path).unwrap();
    let places = fewer(40) as usize;
    for step in 0..places {
        let place = step * (whole.len() - 1) / (places - 1);
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        for damaged in [damaged, whole[..place].to_vec()] {
            std::fs::write(&path, damaged).unwrap();
            let refused = rebuilt(&install, dir.path()).await.unwrap_err();
            // Where its head is damaged there is nothing left that tells it from another install's.
            assert!(
                matches!(refused, RecoverError::Broken(_) | RecoverError::WrongKey(1)),
                "byte {place}: {refused}"
            );
        }
    }
    std::fs::write(&path, &whole).unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("master.key"), "ab".repeat(32)).unwrap();
    let refused = rebuilt(&install, other.path()).await.unwrap_err();
    assert!(matches!(refused, RecoverError::WrongKey(1)), "{refused}");
    assert_eq!(
        rebuilt(&install, dir.path()).await.unwrap(),
        rows(&install.meta).await
    );
    install.meta.close().await;
}

/// A node that was started before the record of changes began records what it changes all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_writes_after_manifests_were_turned_on_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let (first, second) = (
        Install::open(dir.path(), &clock).await,
        Install::open(dir.path(), &clock).await,
    );
    second.put("before", bytes(1, 20)).await;
    let manifests = writer(&first, dir.path()).await;
    assert!(manifests.write().await.unwrap().unwrap().is_snapshot);
    second.put("after", bytes(2, 20)).await;
    // Now it starts again, with manifests; nothing of it makes up for what was not recorded.
    second.meta.set_recording(true).await.unwrap();
    second.put("last", bytes(3, 20)).await;
    let written = manifests.write().await.unwrap().unwrap();
    assert!(!written.is_snapshot);
    assert_eq!(
        rebuilt(&first, dir.path()).await.unwrap(),
        rows(&first.meta).await
    );
    // Nor does either write down what nobody wants any more.
    first.meta.set_recording(false).await.unwrap();
    second.put("unrecorded", bytes(4, 20)).await;
    assert_eq!(changes(&first.meta).await, 0);
    second.meta.close().await;
    first.meta.close().await;
}

async fn changes(meta: &MetaStore) -> usize {
    let found = meta.read("count changes", |session| {
        Box::pin(osproxy::meta::manifests::change_ids(session, 0, 10))
    });
    let found: Result<Vec<i64>, Fault> = found.await;
    found.unwrap().len()
}

/// What a node has under way when the record begins is in the first snapshot, because the record waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_changes_begins_after_what_nodes_have_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let install = Install::open(dir.path(), &clock).await;
    if !install.meta.is_shared() {
        // One writer: there is nothing under way beside it.
        return;
    }
    let node = Install::open(dir.path(), &clock).await;
    enter(&node, 7).await;
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go, may_go) = tokio::sync::oneshot::channel::<()>();
    let hooks = Arc::new(std::sync::Mutex::new(Some((begun, may_go))));
    let meta = node.meta.clone();
    let under_way = tokio::spawn(async move {
        meta.transact("under way", move |_| {
            let hooks = hooks.clone();
            Box::pin(async move {
                let hooks = hooks.lock().unwrap().take();
                let (begun, may_go) = hooks.expect("it is run once");
                begun.send(()).unwrap();
                may_go.await.unwrap();
                Ok::<_, Fault>(())
            })
        })
        .await
    });
    has_begun.await.unwrap();
    let recording = install.meta.set_recording(true);
    let mut recording = std::pin::pin!(recording);
    let early = tokio::time::timeout(Duration::from_millis(500), recording.as_mut()).await;
    assert!(early.is_err(), "it did not wait");
    go.send(()).unwrap();
    under_way.await.unwrap().unwrap();
    recording.await.unwrap();
    node.put("k", bytes(1, 20)).await;
    assert_eq!(changes(&install.meta).await, 1);
    node.meta.close().await;
    install.meta.close().await;
}

/// How long a server lets this session be silent in a transaction, in its own words.
async fn silence(session: &mut Session) -> Result<String, Fault> {
    let sql = match std::env::var("COMPAT_META_URL").is_ok_and(|url| url.starts_with("postgres")) {
        true => "SELECT current_setting('idle_in_transaction_session_timeout')",
        false => "SELECT CAST(@@SESSION.wait_timeout AS CHAR)",
    };
    let found = session.query_one(sql, &[], |row| Ok(row.str(0)?.to_owned()));
    Ok(found.await?.unwrap())
}

/// A manifest waits for its backend with a snapshot open, which may take longer than a session may be silent.
#[tokio::test]
async fn a_snapshot_may_be_silent_for_long_and_no_other_session() {
    let dir = tempfile::tempdir().unwrap();
    let meta = database(dir.path(), Metrics::new()).await;
    if !meta.is_shared() {
        // SQLite ends no session.
        return;
    }
    let usual: Result<_, Fault> = meta.read("read", |it| Box::pin(silence(it))).await;
    assert!(["30s", "30"].contains(&usual.as_deref().unwrap()));
    let held: Result<_, Fault> = meta.snapshot("read all", |it| Box::pin(silence(it))).await;
    assert!(["0", "86400"].contains(&held.as_deref().unwrap()));
    // The same connection again.
    let after: Result<_, Fault> = meta.read("read", |it| Box::pin(silence(it))).await;
    assert_eq!(after.unwrap(), usual.unwrap());
    meta.close().await;
}

/// Makes an install's transactions those of a node.
async fn enter(install: &Install, node: i64) {
    let now = install.clock.now();
    let beat = nodes::Heartbeat {
        now,
        lease_until: now + 10_000,
        oldest_read: now,
        oldest_write: now,
    };
    let who = Arc::new(nodes::Who {
        name: format!("node{node}"),
        address: None,
        backends: Vec::new(),
    });
    let entered = install.meta.transact("enter", move |session| {
        let who = who.clone();
        Box::pin(async move { nodes::enter(session, node, &who, &beat).await })
    });
    let entered: Result<(), Fault> = entered.await;
    entered.unwrap();
    install.meta.join(node);
}
