//! Backends at which blobs of another install lie, or of one that nobody remembers.

use std::path::{Path, PathBuf};

use osproxy::content::{Act, Depth, FsckOrder, FsckReport};
use osproxy::keys::MasterKey;
use osproxy::manifest::{self, Manifests, Options, Recovery, recover};
use osproxy::meta::Durability;
use osproxy::meta::copy::copy;
use osproxy::model::clock::Clock;
use osproxy::model::progress::untold;
use osproxy::telemetry::Metrics;
use tempfile::TempDir;

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, backend_root, bytes, database, place};
use crate::moves::{finish, fresh, order, start};

fn marker(dir: &Path, backend: &str) -> PathBuf {
    backend_root(dir, backend).join("osproxy-install")
}

fn forget_owner(dir: &Path) {
    for backend in ["local", "other", "short"] {
        std::fs::remove_file(marker(dir, backend)).unwrap();
    }
}

/// An empty data directory whose backends are those of `first`.
fn beside(first: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for backend in ["local", "other", "short"] {
        let root = backend_root(first, backend);
        std::os::unix::fs::symlink(root, backend_root(dir.path(), backend)).unwrap();
    }
    dir
}

/// Sweeps when all that is there has grown old.
async fn sweep_later(install: &Install) -> u64 {
    install.clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap().orphans
}

async fn mend(install: &Install) -> FsckReport {
    let order = FsckOrder {
        backend: Some("local".to_owned()),
        depth: Depth::All,
        act: Act::Mend,
        bytes_per_second: None,
    };
    install.content.fsck(&order, &untold).await.unwrap()
}

/// A body that came whole and is named by nothing.
async fn leave_orphan(install: &Install, seed: u8) {
    let received = install.receive(bytes(seed, BLOB_BYTES)).await;
    std::mem::forget(received);
}

async fn put_three(install: &Install) {
    for seed in 1..=3 {
        let name = format!("k{seed}");
        install.put(&name, bytes(seed, BLOB_BYTES)).await;
    }
}

async fn check_three(install: &Install) {
    for seed in 1..=3 {
        let found = install.get(&format!("k{seed}")).await;
        assert_eq!(found, Some(bytes(seed, BLOB_BYTES)));
    }
}

/// What a server does on an empty data directory with the backends of another install.
async fn second_deletes_nothing(first: &Path, clock: &Clock) {
    let empty = beside(first);
    let second = Install::open(empty.path(), clock).await;
    for _ in 0..2 {
        assert_eq!(sweep_later(&second).await, 0);
        assert_eq!(second.blobs().await.len(), 3);
    }
    let report = mend(&second).await;
    assert_eq!((report.unchecked, report.findings.all.count), (1, 0));
    let reason = report.reason.unwrap();
    assert!(
        reason.contains("another install") && reason.contains("osproxy-install"),
        "{reason}"
    );
    // Nor does it once it has stored something itself, and something of its own is not named.
    second.put("own", bytes(9, BLOB_BYTES)).await;
    leave_orphan(&second, 10).await;
    assert_eq!(sweep_later(&second).await, 0);
    assert_eq!(mend(&second).await.findings.all.count, 0);
    assert_eq!(second.blobs().await.len(), 5);
    assert_eq!(second.get("own").await, Some(bytes(9, BLOB_BYTES)));
    second.meta.close().await;
}

#[tokio::test]
async fn a_second_install_deletes_nothing_where_another_has_swept() {
    let (dir, clock) = fresh();
    let first = Install::open(dir.path(), &clock).await;
    put_three(&first).await;
    second_deletes_nothing(dir.path(), &clock).await;
    // To the first one, what the other has left there is what nobody names.
    assert_eq!(sweep_later(&first).await, 2);
    check_three(&first).await;
    first.meta.close().await;
}

#[tokio::test]
async fn a_second_install_deletes_nothing_where_another_has_not_swept_yet() {
    let (dir, clock) = fresh();
    let first = Install::open(dir.path(), &clock).await;
    put_three(&first).await;
    forget_owner(dir.path());
    clock.advance(GRACE_MILLIS + 1);
    second_deletes_nothing(dir.path(), &clock).await;
    assert!(!marker(dir.path(), "local").exists());
    assert_eq!(
        sweep_later(&first).await,
        2,
        "three of five are the first's"
    );
    check_three(&first).await;
    first.meta.close().await;
}

#[tokio::test]
async fn a_second_install_claims_nothing_while_the_blobs_of_another_are_young() {
    let (dir, clock) = fresh();
    let first = Install::open(dir.path(), &clock).await;
    put_three(&first).await;
    forget_owner(dir.path());
    second_deletes_nothing(dir.path(), &clock).await;
    check_three(&first).await;
    first.meta.close().await;
}

#[tokio::test]
async fn whoever_deletes_the_marker_or_writes_it_hands_the_backend_over() {
    let (dir, clock) = fresh();
    let first = Install::open(dir.path(), &clock).await;
    put_three(&first).await;
    first.meta.close().await;
    let empty = beside(dir.path());
    let second = Install::open(empty.path(), &clock).await;
    assert_eq!(sweep_later(&second).await, 0);
    std::fs::remove_file(marker(dir.path(), "local")).unwrap();
    let reason = mend(&second).await.reason.unwrap();
    let identity = reason.split("write ").nth(1).unwrap();
    let identity = identity.split(' ').next().unwrap();
    std::fs::write(marker(dir.path(), "local"), format!("{identity}\n")).unwrap();
    assert_eq!(sweep_later(&second).await, 3);
    assert!(second.blobs().await.is_empty());
    second.meta.close().await;
}

#[tokio::test]
async fn an_install_of_before_there_were_markers_claims_its_backends_and_sweeps() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    put_three(&install).await;
    for seed in [11, 12] {
        leave_orphan(&install, seed).await;
    }
    install.crash().await;
    forget_owner(dir.path());
    let install = Install::open(dir.path(), &clock).await;
    assert_eq!(sweep_later(&install).await, 2);
    assert!(marker(dir.path(), "local").exists());
    assert_eq!(install.blobs().await.len(), 3);
    check_three(&install).await;
    install.meta.close().await;
}

#[tokio::test]
async fn a_recovered_install_takes_its_backends_over_and_sweeps() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.meta.set_recording(true).await.unwrap();
    let master_key = || MasterKey::require(dir.path(), None).unwrap();
    let manifests = Manifests::new(manifest::Parts {
        meta: install.meta.clone(),
        blobs: install.blobs.clone(),
        master_key: master_key(),
        clock: clock.clone(),
        backend: "local".to_owned(),
    });
    put_three(&install).await;
    manifests.unwrap().write().await.unwrap();
    leave_orphan(&install, 13).await;
    let before = std::fs::read(marker(dir.path(), "local")).unwrap();

    let new = beside(dir.path());
    let key = dir.path().join("master.key");
    std::fs::copy(key, new.path().join("master.key")).unwrap();
    let recovery = Recovery {
        meta: database(new.path(), Metrics::new()).await,
        blobs: install.blobs.clone(),
        master_key: master_key(),
        clock: clock.clone(),
        scratch: new.path().join("scratch"),
    };
    let look = Options {
        dry_run: true,
        ..Options::default()
    };
    recover(&recovery, &look, &|_| {}).await.unwrap();
    let seen = std::fs::read(marker(dir.path(), "local")).unwrap();
    assert_eq!(seen, before, "a dry run writes nothing");
    recover(&recovery, &Options::default(), &|_| {})
        .await
        .unwrap();
    recovery.meta.close().await;
    let seen = std::fs::read(marker(dir.path(), "local")).unwrap();
    assert_ne!(seen, before);

    let recovered = Install::open(new.path(), &clock).await;
    assert_eq!(sweep_later(&recovered).await, 1);
    check_three(&recovered).await;
    // The database that was given up for lost deletes nothing any more.
    leave_orphan(&install, 14).await;
    assert_eq!(sweep_later(&install).await, 0);
    recovered.meta.close().await;
    install.meta.close().await;
}

#[tokio::test]
async fn a_copied_database_is_of_the_same_install() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    put_three(&install).await;
    leave_orphan(&install, 15).await;
    install.crash().await;
    let new = beside(dir.path());
    let (from, to) = (place(dir.path()).await, place(new.path()).await);
    copy(&from, &to, Durability::Relaxed, &clock, &mut |_| {})
        .await
        .unwrap();
    let key = dir.path().join("master.key");
    std::fs::copy(key, new.path().join("master.key")).unwrap();
    let install = Install::open(new.path(), &clock).await;
    assert_eq!(sweep_later(&install).await, 1);
    check_three(&install).await;
    install.meta.close().await;
}

#[tokio::test]
async fn a_move_leaves_nothing_at_the_old_backend_and_no_later_sweep_does() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    put_three(&install).await;
    assert!(marker(dir.path(), "local").exists());
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    let done = finish(&install, id).await;
    assert_eq!((done.failed, done.remains), (0, Some(0)), "{done:?}");
    for _ in 0..2 {
        assert!(!marker(dir.path(), "local").exists());
        assert_eq!(sweep_later(&install).await, 0);
        mend(&install).await;
    }
    assert!(marker(dir.path(), "other").exists());
    // And back again: it is claimed anew.
    let id = start(&install, order("other", "local", None))
        .await
        .unwrap();
    finish(&install, id).await;
    assert_eq!(sweep_later(&install).await, 0);
    assert!(marker(dir.path(), "local").exists() && !marker(dir.path(), "other").exists());
    check_three(&install).await;
    install.meta.close().await;
}

#[tokio::test]
async fn a_move_away_from_what_holds_something_else_leaves_the_marker() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    put_three(&install).await;
    std::fs::write(backend_root(dir.path(), "local").join("notes"), "x").unwrap();
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    assert_eq!(finish(&install, id).await.remains, Some(1));
    assert!(marker(dir.path(), "local").exists());
    install.meta.close().await;
}
