//! Rows copied to another database: all of them, or a database that nothing opens.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use osproxy::meta::copy::{CopyReport, Phase, Place, Progress, copy};
use osproxy::meta::{Durability, MetaStore, Param};
use osproxy::model::bucket::Versioning;
use osproxy::model::clock::Clock;
use osproxy::model::fault::{Fault, Kind};
use osproxy::model::ids::EPOCH;

use crate::install::{BLOB_BYTES, Install, bytes, open_at, place};

const NOW: i64 = EPOCH + 1_000_000;

/// An install with versions, blobs, inline and encrypted contents, and releases; closed.
async fn fill(dir: &Path) {
    let mut install = Install::open(dir, &Clock::manual(NOW)).await;
    install.beat().await;
    for number in 0..700_u16 {
        let name = format!("many/{number}");
        install.put(&name, bytes((number % 7) as u8, 100)).await;
    }
    install.set_versioning(Versioning::Enabled).await;
    install.put("versioned", bytes(1, 10)).await;
    install.put("versioned", bytes(2, BLOB_BYTES)).await;
    install.delete("versioned").await;
    install
        .put_encrypted("encrypted", bytes(3, BLOB_BYTES))
        .await;
    install.put("current", bytes(4, BLOB_BYTES)).await;
    for _ in 0..3 {
        change(&install.meta).await;
    }
    install.meta.close().await;
}

/// Adds a row to the outbox of manifests, whose numbers the database gives, and answers the greatest of them.
async fn change(meta: &MetaStore) -> i64 {
    let added: Result<_, Fault> = meta
        .transact("add change", |session| {
            Box::pin(async move {
                let sql = "INSERT INTO changes (entries) VALUES ($1)";
                session.execute(sql, &[Param::Bytes(Some(b"x"))]).await?;
                session
                    .query_one("SELECT MAX(id) FROM changes", &[], |row| row.int(0))
                    .await
            })
        })
        .await;
    added.unwrap().unwrap()
}

async fn copied(from: &Place, to: &Place) -> Result<CopyReport, Fault> {
    copy(
        from,
        to,
        Durability::Relaxed,
        &Clock::manual(NOW),
        &mut |_| {},
    )
    .await
}

/// Copies until the progress was told so often, and ends there as a crash does. The report when it came to its end
/// before, and what it did last.
fn interrupted(from: &Place, to: &Place, after: usize) -> (Option<CopyReport>, Phase) {
    let (from, to) = (from.clone(), to.clone());
    let phase = Arc::new(Mutex::new(Phase::Clear));
    let last = Arc::clone(&phase);
    let copying = std::thread::spawn(move || {
        let mut told = 0;
        let mut progress = |now: Progress<'_>| {
            told += 1;
            *last.lock().unwrap() = now.phase;
            if told == after {
                std::panic::resume_unwind(Box::new("interrupted"));
            }
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(copy(
            &from,
            &to,
            Durability::Durable,
            &Clock::System,
            &mut progress,
        ))
    });
    let report = copying.join().ok().map(|outcome| outcome.unwrap());
    let phase = *phase.lock().unwrap_or_else(PoisonError::into_inner);
    (report, phase)
}

#[tokio::test]
async fn an_install_is_the_same_after_a_copy_and_back() {
    let (first, between, last) = dirs();
    fill(first.path()).await;
    let file = Place::Sqlite(between.path().join("meta.db"));
    let there = copied(&place(first.path()).await, &file).await.unwrap();
    let back = copied(&file, &place(last.path()).await).await.unwrap();
    assert_eq!(there, back);
    let rows = |name: &str| {
        there
            .tables
            .iter()
            .find(|table| table.table == name)
            .unwrap()
            .rows
    };
    assert_eq!((rows("objects"), rows("versions")), (703, 2));

    std::fs::copy(
        first.path().join("master.key"),
        last.path().join("master.key"),
    )
    .unwrap();
    std::os::unix::fs::symlink(first.path().join("blobs"), last.path().join("blobs")).unwrap();
    let install = Install::open(last.path(), &Clock::manual(NOW)).await;
    assert_eq!(
        install.get("many/699").await.unwrap(),
        bytes((699 % 7) as u8, 100)
    );
    assert_eq!(install.get("versioned").await, None);
    assert_eq!(
        install.get("encrypted").await.unwrap(),
        bytes(3, BLOB_BYTES)
    );
    // Numbers that the database gives go on too.
    let numbers = [change(&install.meta).await, change(&install.meta).await];
    assert_eq!(numbers, [4, 5]);
    // Above everything that was minted before the copy, although the clock stands still.
    let before = install
        .namespace
        .get(&install.bucket, &crate::install::key("current"), None)
        .await;
    let written = install.put("new", bytes(5, 10)).await;
    assert!(written.uid > before.unwrap().version.uid);
    install.meta.close().await;
}

#[tokio::test]
async fn an_interrupted_copy_is_opened_by_nothing_and_started_again() {
    let (first, whole, torn) = dirs();
    fill(first.path()).await;
    let from = place(first.path()).await;
    let wanted = copied(&from, &Place::Sqlite(whole.path().join("meta.db")))
        .await
        .unwrap();
    let to = place(torn.path()).await;
    let mut phases = Vec::new();
    for after in (8..).step_by(9).flat_map(|after| [after, 2]) {
        let (report, phase) = interrupted(&from, &to, after);
        if let Some(report) = report {
            assert_eq!(report, wanted);
            break;
        }
        phases.push(phase);
        let fault = open_at(&to).await.err().expect("refused");
        assert_eq!(fault.kind(), Kind::Config);
        assert!(fault.to_string().contains("meta copy"), "{fault}");
        let fault = copied(&to, &place(whole.path()).await).await.unwrap_err();
        assert_eq!(
            fault.kind(),
            Kind::Config,
            "half a copy is no source: {fault}"
        );
    }
    for phase in [Phase::Clear, Phase::Copy, Phase::Verify] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
    open_at(&to).await.unwrap().close().await;
}

#[tokio::test]
async fn a_target_with_rows_and_a_source_without_are_refused_and_left_alone() {
    let (first, second, third) = dirs();
    fill(first.path()).await;
    fill(second.path()).await;
    let (from, to) = (place(first.path()).await, place(second.path()).await);
    let fault = copied(&from, &to).await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Config);
    assert!(fault.to_string().contains("not empty"), "{fault}");
    let install = Install::open(second.path(), &Clock::manual(NOW)).await;
    assert_eq!(install.get("current").await.unwrap(), bytes(4, BLOB_BYTES));
    install.meta.close().await;
    let fault = copied(&place(third.path()).await, &to).await.unwrap_err();
    assert!(
        matches!(fault.kind(), Kind::Config | Kind::Unavailable),
        "{fault}"
    );
}

#[tokio::test]
async fn a_source_with_a_living_node_is_refused() {
    let (first, second, _) = dirs();
    let from = place(first.path()).await;
    let Place::Server(_) = from else {
        return; // The lock on the data directory stands for the lease there.
    };
    let install = Install::open(first.path(), &Clock::System).await;
    install.beat().await;
    install.meta.close().await;
    let to = Place::Sqlite(second.path().join("meta.db"));
    let fault = copied(&from, &to).await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Config);
    assert!(fault.to_string().contains("serves from it"), "{fault}");
}

fn dirs() -> (tempfile::TempDir, tempfile::TempDir, tempfile::TempDir) {
    let dir = || tempfile::tempdir().unwrap();
    (dir(), dir(), dir())
}
