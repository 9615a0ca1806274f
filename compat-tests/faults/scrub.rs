//! Scrub and fsck: bytes that were flipped, cut, lengthened or taken away, rows that dangle; mended where a mirror has
//! the bytes, cut anywhere, and raced by writers, the collector and a move.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use osproxy::content::{Act, Depth, FsckOrder, FsckReport};
use osproxy::meta::copy::Place;
use osproxy::model::fault::Fault;
use osproxy::model::finding::{Finding, Problem, Repair};
use osproxy::model::progress::untold;
use osproxy::tasks::scrub::Config;
use osproxy::tasks::{Scrub, ScrubReport};

use crate::install::{BLOB_BYTES, GRACE_MILLIS, Install, backend_root, bytes, place};
use crate::moves::{again, begin, check, fill, finish, fresh, mover, order, part, start};
use crate::schema::run;

fn scrubber(install: &Install) -> Scrub {
    Scrub {
        content: install.content.clone(),
        config: Config {
            bytes_per_second: (1 << 40).try_into().unwrap(),
            ..Config::default()
        },
    }
}

pub async fn scrub(install: &Install) -> ScrubReport {
    scrubber(install).pass(&untold).await.unwrap()
}

pub async fn fsck(install: &Install, depth: Depth, act: Act) -> FsckReport {
    let order = FsckOrder {
        backend: None,
        depth,
        act,
        bytes_per_second: None,
    };
    install.content.fsck(&order, &untold).await.unwrap()
}

/// What is wrong, each with what was done, and the keys it is about.
pub fn told(report: &FsckReport) -> Vec<(Problem, Repair, Vec<String>)> {
    let of = |finding: &Finding| {
        let keys = finding.versions.first.iter().map(|it| it.key.clone());
        let mut keys: Vec<_> = keys.collect();
        keys.sort();
        (finding.problem, finding.repair, keys)
    };
    let mut all: Vec<_> = report.findings.all.first.iter().map(of).collect();
    all.sort_by_key(|(problem, _, keys)| (*problem, keys.clone()));
    all
}

/// The files of a backend's blobs, the oldest first: names begin with the time of birth.
pub fn files(dir: &Path, backend: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(backend_root(dir, backend)).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() {
            for file in std::fs::read_dir(folder).unwrap() {
                found.push(file.unwrap().path());
            }
        }
    }
    found.retain(|path| path.is_file());
    found.sort_by_key(|path| path.file_name().unwrap().to_owned());
    found
}

pub fn flip(path: &Path, at: usize) {
    let mut all = std::fs::read(path).unwrap();
    all[at] ^= 0x10;
    std::fs::write(path, all).unwrap();
}

fn cut(path: &Path, by: usize) {
    let mut all = std::fs::read(path).unwrap();
    all.truncate(all.len() - by);
    std::fs::write(path, all).unwrap();
}

async fn change(install: &Install, sql: &'static str) {
    install
        .meta
        .transact("change rows", move |session| {
            Box::pin(async move { session.execute(sql, &[]).await })
        })
        .await
        .map_err(|fault: Fault| fault)
        .unwrap();
}

/// Changes rows with no regard to those that refer to them, as a broken database may.
async fn tear(dir: &Path, sql: &str) {
    let place = place(dir).await;
    let loose = match &place {
        Place::Sqlite(_) => "PRAGMA foreign_keys = OFF",
        Place::Server(url) if url.starts_with("postgres") => {
            "SET session_replication_role = replica"
        }
        Place::Server(_) => "SET FOREIGN_KEY_CHECKS = 0",
    };
    run(&place, &format!("{loose}; {sql}")).await;
}

pub fn names(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[tokio::test]
async fn a_flipped_byte_is_found_with_every_key_it_is_in_and_forgotten_once_it_is_right() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    let body = bytes(1, BLOB_BYTES);
    install.put("one", body.clone()).await;
    install.put("two", body.clone()).await;
    install.put("other", bytes(2, BLOB_BYTES)).await;
    assert_eq!(scrub(&install).await.bad, 0);
    // Every byte counts: the first, the last, and one between.
    let file = files(dir.path(), "local").remove(0);
    let good = std::fs::read(&file).unwrap();
    let keys = match good == body {
        true => names(&["one", "two"]),
        false => names(&["other"]),
    };
    for at in [0, BLOB_BYTES / 2, BLOB_BYTES - 1] {
        flip(&file, at);
        let report = scrub(&install).await;
        assert_eq!(
            (report.blobs, report.bad, report.repaired, report.left),
            (2, 1, 0, 1)
        );
        // It is durable, and found again without being read.
        install = again(install, &dir, &clock).await;
        let seen = fsck(&install, Depth::Length, Act::Report).await;
        assert_eq!(
            told(&seen),
            [(Problem::Corrupt, Repair::None, keys.clone())]
        );
        // The same again says the same, and no more.
        assert_eq!(scrub(&install).await.left, 1);
        std::fs::write(&file, &good).unwrap();
        assert_eq!(
            scrub(&install).await,
            ScrubReport {
                blobs: 2,
                copies: 2,
                bytes: 2 * BLOB_BYTES as u64,
                ..ScrubReport::default()
            }
        );
        let seen = fsck(&install, Depth::All, Act::Report).await;
        assert_eq!(
            (told(&seen), seen.unchecked, seen.bytes),
            (vec![], 0, 2 * BLOB_BYTES as u64)
        );
    }
}

#[tokio::test]
async fn bytes_of_every_kind_are_held_against_what_was_stored() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    let written = fill(&install).await;
    install.collect_all().await;
    assert_eq!(told(&fsck(&install, Depth::All, Act::Report).await), []);
    for file in files(dir.path(), "local") {
        let length = std::fs::metadata(&file).unwrap().len() as usize;
        // Each look reads everything: one byte of the large ones is enough.
        let places = [0, length - 1, length / 2];
        for at in places
            .into_iter()
            .skip(if length > 1 << 20 { 2 } else { 0 })
        {
            flip(&file, at);
            let seen = told(&fsck(&install, Depth::All, Act::Report).await);
            assert_eq!(seen.len(), 1, "{} {at}", file.display());
            let (problem, repair, keys) = &seen[0];
            assert_eq!((*problem, *repair), (Problem::Corrupt, Repair::None));
            assert!(!keys.is_empty());
            for key in keys {
                assert!(written.iter().any(|(name, _)| name == key), "{key}");
            }
            flip(&file, at);
        }
    }
    // Telling changes nothing.
    assert_eq!(told(&fsck(&install, Depth::All, Act::Report).await), []);
    check(&install, &written).await;
}

#[tokio::test]
async fn copies_that_are_missing_cut_or_longer_are_found_without_reading_them() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    for name in ["a", "b", "c"] {
        install
            .put(name, bytes(name.as_bytes()[0], BLOB_BYTES))
            .await;
    }
    let file_of = |seed: u8| {
        let mut all = files(dir.path(), "local").into_iter();
        all.find(|file| std::fs::read(file).unwrap() == bytes(seed, BLOB_BYTES))
            .unwrap()
    };
    let (a, b, c) = (file_of(b'a'), file_of(b'b'), file_of(b'c'));
    std::fs::remove_file(&a).unwrap();
    cut(&b, 1);
    let mut longer = std::fs::read(&c).unwrap();
    longer.push(0);
    std::fs::write(&c, longer).unwrap();
    for depth in [Depth::Length, Depth::All] {
        let seen = fsck(&install, depth, Act::Report).await;
        assert_eq!(
            told(&seen),
            [
                (Problem::Missing, Repair::None, names(&["a"])),
                (Problem::WrongLength, Repair::None, names(&["b"])),
                (Problem::WrongLength, Repair::None, names(&["c"])),
            ]
        );
        assert_eq!(seen.findings.left, 3);
    }
    // Without a mirror nothing can be mended, and nothing is lost by trying.
    let tried = fsck(&install, Depth::All, Act::Mend).await;
    assert_eq!(tried.findings.left, 3);
    assert_eq!(scrub(&install).await.left, 3);
    // What is gone is nobody's finding.
    for name in ["a", "b", "c"] {
        install.delete(name).await;
    }
    install.collect_all().await;
    assert_eq!(scrub(&install).await, ScrubReport::default());
    assert_eq!(told(&fsck(&install, Depth::All, Act::Report).await), []);
}

#[tokio::test]
async fn a_mirror_mends_what_was_flipped_cut_or_taken_away() {
    for by_fsck in [false, true] {
        let (dir, clock) = fresh();
        let mut install = Install::open(dir.path(), &clock).await;
        install.use_bucket_at("both").await;
        let written = fill(&install).await;
        let before = files(dir.path(), "local").len();
        assert!(before > 3);
        // Each blob is damaged at one of the backends, in turn, in three ways.
        let other = files(dir.path(), "other");
        for (index, here) in files(dir.path(), "local").iter().enumerate() {
            let (here_name, half) = (here.file_name().unwrap().to_str().unwrap(), 16);
            let there = other.iter().find(|file| {
                file.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(&here_name[..half])
            });
            let victim = if index % 2 == 0 { here } else { there.unwrap() };
            match index % 3 {
                0 => flip(victim, 7),
                1 => cut(victim, 100),
                _ => std::fs::remove_file(victim).unwrap(),
            }
        }
        if by_fsck {
            let seen = fsck(&install, Depth::All, Act::Mend).await;
            assert_eq!(
                (seen.findings.all.count, seen.findings.left),
                (before as u64, 0)
            );
            assert!(
                told(&seen)
                    .iter()
                    .all(|(_, repair, keys)| *repair == Repair::Done && !keys.is_empty())
            );
        } else {
            let report = scrub(&install).await;
            assert_eq!(
                (report.bad, report.repaired, report.left),
                (before as u64, before as u64, 0)
            );
        }
        assert_eq!(scrub(&install).await.bad, 0);
        check(&install, &written).await;
        // The bad bytes are the sweep's, and each backend has all that is needed.
        clock.advance(GRACE_MILLIS + 1);
        install.beat().await;
        install.content.sweep(&untold).await.unwrap();
        assert_eq!(told(&fsck(&install, Depth::All, Act::Report).await), []);
        for gone in ["local", "other"] {
            assert_eq!(files(dir.path(), gone).len(), before);
            let root = backend_root(dir.path(), gone);
            std::fs::rename(&root, root.with_extension("away")).unwrap();
            check(&install, &written).await;
            std::fs::rename(root.with_extension("away"), &root).unwrap();
        }
    }
}

#[tokio::test]
async fn a_blob_whose_copies_are_all_bad_keeps_them_and_is_told() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("both").await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    flip(&files(dir.path(), "local")[0], 3);
    flip(&files(dir.path(), "other")[0], 4);
    let report = scrub(&install).await;
    assert_eq!((report.bad, report.repaired, report.left), (2, 0, 2));
    // One of them comes back from a backup: it mends the other.
    flip(&files(dir.path(), "other")[0], 4);
    let report = scrub(&install).await;
    assert_eq!((report.bad, report.repaired, report.left), (1, 1, 0));
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
    assert_eq!(scrub(&install).await.bad, 0);
}

#[tokio::test]
async fn a_mending_that_is_cut_anywhere_is_gone_on_with() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("both").await;
    let written = fill(&install).await;
    let blobs = files(dir.path(), "local").len();
    for turn in 0..14u64 {
        let victims = files(dir.path(), "other");
        flip(&victims[turn as usize % victims.len()], 11);
        let job = scrubber(&install);
        let patience = Duration::from_millis(turn * turn);
        let _ = tokio::time::timeout(patience, job.pass(&untold)).await;
        install = again(install, &dir, &clock).await;
        check(&install, &written).await;
    }
    assert_eq!(scrub(&install).await.left, 0);
    let mending = osproxy::content::Work::new(None, None);
    assert_eq!(install.content.mend(&mending).await.unwrap().failed, 0);
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
    for backend in ["local", "other"] {
        assert_eq!(files(dir.path(), backend).len(), blobs, "{backend}");
    }
    assert_eq!(told(&fsck(&install, Depth::All, Act::Report).await), []);
    std::fs::remove_dir_all(backend_root(dir.path(), "local")).unwrap();
    check(&install, &written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_scrub_that_is_raced_by_writers_a_collector_and_a_move_finds_nothing_that_is_not_so() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("local").await;
    let install = Arc::new(install);
    let written = fill(&install).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..2u8)
        .map(|writer| {
            let (install, stop) = (install.clone(), stop.clone());
            tokio::spawn(async move {
                let mut turn = 0u8;
                while !stop.load(Ordering::SeqCst) && turn < 250 {
                    let name = format!("race{writer}/{}", turn % 5);
                    install.put(&name, bytes(turn, BLOB_BYTES)).await;
                    if turn.is_multiple_of(2) {
                        install.delete(&name).await;
                    }
                    if turn.is_multiple_of(8) {
                        install.clock.advance(GRACE_MILLIS + 1);
                        install.beat().await;
                        install.content.collect(&untold).await.unwrap();
                    }
                    turn += 1;
                }
            })
        })
        .collect();
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    let mover = mover(&install);
    for _ in 0..5 {
        let (scrubbed, seen, moved) = tokio::join!(
            scrub(&install),
            fsck(&install, Depth::All, Act::Mend),
            mover.step(id, None)
        );
        moved.unwrap();
        assert_eq!((scrubbed.bad, scrubbed.left), (0, 0), "{scrubbed:?}");
        assert_eq!(
            seen.findings.by_problem.get(&Problem::Missing),
            None,
            "{seen:?}"
        );
        assert_eq!(
            seen.findings.by_problem.get(&Problem::Corrupt),
            None,
            "{seen:?}"
        );
    }
    stop.store(true, Ordering::SeqCst);
    for task in load {
        task.await.unwrap();
    }
    let done = finish(&install, id).await;
    assert_eq!((done.state.as_str(), done.failed), ("done", 0), "{done:?}");
    check(&install, &written).await;
    install.collect_all().await;
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
    assert_eq!(told(&fsck(&install, Depth::All, Act::Report).await), []);
}

#[tokio::test]
async fn a_copy_that_a_move_is_about_to_leave_is_not_written_there_again() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("both").await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let id = start(&install, order("local", "other", None))
        .await
        .unwrap();
    flip(&files(dir.path(), "local")[0], 0);
    let report = scrub(&install).await;
    assert_eq!((report.bad, report.repaired, report.left), (1, 1, 0));
    assert_eq!(files(dir.path(), "local").len(), 1);
    let done = finish(&install, id).await;
    assert_eq!((done.state.as_str(), done.failed), ("done", 0), "{done:?}");
    assert!(files(dir.path(), "local").is_empty());
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
}

#[tokio::test]
async fn orphans_are_told_when_they_are_old_enough_and_deleted_when_that_is_asked_for() {
    let (dir, clock) = fresh();
    let install = Install::open(dir.path(), &clock).await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    let lost = install.receive(bytes(2, BLOB_BYTES)).await;
    // As after a crash: nobody drops the bytes, and no row names them.
    lost.begin_commit();
    drop(lost);
    let seen = fsck(&install, Depth::Length, Act::Mend).await;
    assert_eq!((told(&seen), seen.young, seen.listed), (vec![], 1, 2));
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    let orphan = |repair| vec![(Problem::Orphan, repair, vec![])];
    let seen = fsck(&install, Depth::Length, Act::Report).await;
    assert_eq!((told(&seen), seen.findings.left), (orphan(Repair::None), 1));
    assert_eq!(files(dir.path(), "local").len(), 2);
    let seen = fsck(&install, Depth::Length, Act::Mend).await;
    assert_eq!((told(&seen), seen.findings.left), (orphan(Repair::Done), 0));
    assert_eq!(files(dir.path(), "local").len(), 1);
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
}

#[tokio::test]
async fn a_backend_that_was_replaced_by_an_empty_one_is_filled_again() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("both").await;
    let written = fill(&install).await;
    let blobs = files(dir.path(), "other").len();
    for file in files(dir.path(), "other") {
        std::fs::remove_file(file).unwrap();
    }
    let order = FsckOrder {
        backend: Some("other".to_owned()),
        depth: Depth::Length,
        act: Act::Mend,
        bytes_per_second: None,
    };
    let seen = install.content.fsck(&order, &untold).await.unwrap();
    assert_eq!(
        (seen.findings.all.count, seen.findings.left),
        (blobs as u64, 0)
    );
    assert_eq!(files(dir.path(), "other").len(), blobs);
    std::fs::remove_dir_all(backend_root(dir.path(), "local")).unwrap();
    check(&install, &written).await;
    let unknown = FsckOrder {
        backend: Some("nowhere".to_owned()),
        ..order
    };
    assert!(install.content.fsck(&unknown, &untold).await.is_err());
}

#[tokio::test]
async fn dangling_rows_are_each_told_with_their_keys() {
    let (dir, clock) = fresh();
    // What is done to the rows of a fresh install, and what is to be told of it.
    type Case = (&'static str, Problem, Repair, &'static [&'static str]);
    let cases: [Case; 10] = [
        (
            "UPDATE blobs SET state = 'deleting'",
            Problem::ContentWithoutBlob,
            Repair::None,
            &["joined", "k"],
        ),
        (
            "DELETE FROM copies",
            Problem::NoCopy,
            Repair::None,
            &["joined", "k"],
        ),
        (
            "DELETE FROM extents WHERE ordinal = 1",
            Problem::BrokenExtents,
            Repair::None,
            &["joined"],
        ),
        (
            "UPDATE extents SET child_offset = 5",
            Problem::BrokenExtents,
            Repair::None,
            &["joined"],
        ),
        (
            "UPDATE objects SET content_id = NULL",
            Problem::VersionWithoutContent,
            Repair::None,
            &["joined", "k"],
        ),
        (
            "DELETE FROM objects",
            Problem::UnreferencedContent,
            Repair::Done,
            &[],
        ),
        (
            "INSERT INTO blobs (id, size, state, since, owned) VALUES (77, 5, 'live', 0, 1)",
            Problem::UnusedBlob,
            Repair::Done,
            &[],
        ),
        (
            "DELETE FROM contents WHERE kind = 'composite'",
            Problem::BrokenExtents,
            Repair::None,
            &["joined"],
        ),
        (
            "DELETE FROM blobs",
            Problem::NoBlob,
            Repair::None,
            &["joined", "k"],
        ),
        (
            "DELETE FROM contents WHERE id IN (SELECT p.content_id FROM upload_parts p
                 JOIN uploads u ON u.uid = p.upload_uid WHERE u.state = 'open')",
            Problem::PartWithoutContent,
            Repair::None,
            &["open"],
        ),
    ];
    for (number, (sql, problem, repair, keys)) in cases.into_iter().enumerate() {
        let dir = dir.path().join(number.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let install = Install::open(&dir, &clock).await;
        install.put("k", bytes(1, BLOB_BYTES)).await;
        let parts = [bytes(7, 5 << 20), bytes(8, BLOB_BYTES)];
        crate::moves::join(&install, "joined", &parts).await;
        let open = begin(&install, "open").await;
        part(&install, "open", open, 1, bytes(9, BLOB_BYTES)).await;
        assert_eq!(told(&fsck(&install, Depth::Length, Act::Report).await), []);
        tear(&dir, sql).await;
        for act in [Act::Report, Act::Mend] {
            let report = fsck(&install, Depth::Length, act).await;
            for finding in &report.findings.all.first {
                for lost in &finding.versions.first {
                    let ids = (lost.version_id.as_deref(), lost.upload_id.clone());
                    let expected = match lost.key.as_str() {
                        "open" => (None, Some(open.to_string())),
                        _ => (Some("null"), None),
                    };
                    assert_eq!(ids, expected, "{sql}");
                }
            }
            let seen = told(&report);
            let mut found: Vec<String> = Vec::new();
            for (what, done, keys) in &seen {
                // A blob without content also has no copy.
                if *what == problem {
                    let expected = if act == Act::Mend {
                        repair
                    } else {
                        Repair::None
                    };
                    assert_eq!(*done, expected, "{sql}");
                    found.extend(keys.clone());
                }
            }
            assert!(
                seen.iter().any(|(what, ..)| *what == problem),
                "{sql}: {seen:?}"
            );
            found.sort();
            found.dedup();
            assert_eq!(found, names(keys), "{sql}");
        }
        if repair == Repair::Done {
            // The collector has it now.
            for _ in 0..3 {
                install.collect_all().await;
            }
            let seen = told(&fsck(&install, Depth::Length, Act::Report).await);
            assert_eq!(seen, [], "{sql}");
        }
        install.crash().await;
    }
}

#[tokio::test]
async fn bytes_without_a_digest_are_compared_with_each_other_and_mended_where_one_is_left() {
    let (dir, clock) = fresh();
    let mut install = Install::open(dir.path(), &clock).await;
    install.use_bucket_at("both").await;
    install.put("k", bytes(1, BLOB_BYTES)).await;
    // As of a piece of a content that lies in several blobs.
    change(&install, "UPDATE contents SET sha256 = NULL, md5 = NULL").await;
    flip(&files(dir.path(), "other")[0], 5);
    let seen = fsck(&install, Depth::All, Act::Mend).await;
    let mended = (Problem::Corrupt, Repair::Done, names(&["k"]));
    assert_eq!(told(&seen), [mended]);
    clock.advance(GRACE_MILLIS + 1);
    install.beat().await;
    install.content.sweep(&untold).await.unwrap();
    // As of such a piece that an older version stored, or of bytes under a key that only the customer has.
    change(&install, "UPDATE contents SET crc64nvme = NULL").await;
    flip(&files(dir.path(), "other")[0], 5);
    let seen = fsck(&install, Depth::All, Act::Mend).await;
    let differing = (Problem::Differing, Repair::None, names(&["k"]));
    assert_eq!(told(&seen), [differing.clone(), differing]);
    std::fs::remove_file(&files(dir.path(), "other")[0]).unwrap();
    let seen = fsck(&install, Depth::All, Act::Mend).await;
    assert_eq!(
        told(&seen),
        [(Problem::Missing, Repair::Done, names(&["k"]))]
    );
    assert_eq!(install.get("k").await, Some(bytes(1, BLOB_BYTES)));
    assert_eq!(scrub(&install).await.left, 0);
}
