//! The contract of the store, tried on every backend that runs without a service.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use futures::FutureExt;

use super::*;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A store with the backends `local` (in a directory) and `memory`.
struct Fixture {
    store: BlobStore,
    root: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Backend, operation and outcome, as the observer was told.
type Seen = (String, &'static str, Option<Kind>);

const BACKENDS: [&str; 2] = ["local", "memory"];

async fn fixture(limits: &Limits) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let backends = BTreeMap::from([
        (
            "local".to_owned(),
            BackendConfig::new("fs", [("root", root.path().to_str().unwrap())]),
        ),
        ("memory".to_owned(), BackendConfig::new("memory", [])),
    ]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let observer: Observer = Arc::new(move |it: &Observation<'_>| {
        if let Event::Done {
            operation, fault, ..
        } = it.event
        {
            let seen = (it.backend.to_owned(), operation, fault);
            log.lock().unwrap().push(seen);
        }
    });
    let store = BlobStore::open(&backends, Durability::Durable, limits, observer)
        .await
        .unwrap();
    Fixture { store, root, seen }
}

impl Fixture {
    fn file(&self, name: &BlobName) -> PathBuf {
        self.root.path().join(name.path())
    }
}

/// Bytes that differ at every offset that a mistake in slicing could confuse.
fn content(len: usize) -> Bytes {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect::<Vec<u8>>()
        .into()
}

async fn put(store: &BlobStore, backend: &str, bytes: &Bytes, chunk: usize) -> BlobName {
    let name = BlobName::new(1);
    let mut writer = store.create(backend, &name).unwrap();
    for piece in bytes.chunks(chunk) {
        writer.write(bytes.slice_ref(piece)).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), bytes.len() as u64);
    name
}

async fn get(
    store: &BlobStore,
    backend: &str,
    name: &BlobName,
    range: Range<u64>,
) -> Result<Vec<u8>, Fault> {
    let mut reader = store.read(backend, name, range).await?;
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await {
        let bytes = bytes?;
        assert!(!bytes.is_empty());
        all.extend_from_slice(&bytes);
    }
    assert!(reader.next().await.is_none());
    Ok(all)
}

async fn names(store: &BlobStore, backend: &str) -> BTreeSet<BlobName> {
    let mut list = store.list(backend).unwrap();
    let mut names = BTreeSet::new();
    while let Some(name) = list.next().await {
        assert!(names.insert(name.unwrap()), "listed twice");
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_read_back() {
    let Fixture {
        store, root: _root, ..
    } = fixture(&Limits::default()).await;
    for backend in BACKENDS {
        for len in [
            0,
            1,
            256 * KIB - 1,
            256 * KIB,
            256 * KIB + 1,
            3 * MIB,
            11 * MIB + 1,
        ] {
            let bytes = content(len);
            let name = put(&store, backend, &bytes, 300 * KIB).await;
            let len = len as u64;
            assert_eq!(store.size(backend, &name).await.unwrap(), len);
            let all = get(&store, backend, &name, 0..len).await.unwrap();
            assert!(all == bytes, "{backend} {len}");
        }
    }
}

#[tokio::test]
async fn every_range_gives_exactly_its_bytes() {
    let Fixture {
        store, root: _root, ..
    } = fixture(&Limits::default()).await;
    let bytes = content(MIB);
    let edges = [0, 1, 32 * KIB, 256 * KIB, 256 * KIB + 1, MIB - 1, MIB];
    for backend in BACKENDS {
        let name = put(&store, backend, &bytes, MIB).await;
        for start in edges {
            for end in edges.into_iter().filter(|end| *end >= start) {
                let read = get(&store, backend, &name, start as u64..end as u64).await;
                assert!(
                    read.unwrap() == bytes[start..end],
                    "{backend} {start}..{end}"
                );
            }
        }
    }
}

#[tokio::test]
async fn readers_that_keep_their_buffers_do_not_stop_each_other() {
    let limits = Limits {
        read_buffer_bytes: 256 * KIB,
        ..Limits::default()
    };
    let Fixture {
        store, root: _root, ..
    } = fixture(&limits).await;
    let bytes = content(600 * KIB);
    let name = put(&store, "local", &bytes, MIB).await;
    let mut slow = store
        .read("local", &name, 0..600 * KIB as u64)
        .await
        .unwrap();
    let held = slow.next().await.unwrap().unwrap();
    assert_eq!(held.len(), 256 * KIB);
    let all = get(&store, "local", &name, 0..600 * KIB as u64)
        .await
        .unwrap();
    assert!(all == bytes);
    assert!(bytes.starts_with(&held));
}

#[tokio::test]
async fn reading_without_the_page_cache_gives_the_same_bytes() {
    let fixture = fixture(&Limits::default()).await;
    let Backend::Fs(store) = &fixture.store.inner.backends["local"] else {
        panic!("local is a directory");
    };
    store.forget_page_cache();
    let bytes = content(3 * MIB + 5);
    let name = put(&fixture.store, "local", &bytes, MIB).await;
    let all = get(&fixture.store, "local", &name, 7..3 * MIB as u64 + 5).await;
    assert!(all.unwrap() == bytes[7..]);
}

#[tokio::test]
async fn a_missing_blob_is_not_found_and_its_deletion_a_success() {
    let Fixture {
        store,
        root: _root,
        seen,
    } = fixture(&Limits::default()).await;
    for backend in BACKENDS {
        let name = BlobName::new(9);
        let read = store.read(backend, &name, 0..1).await.err().unwrap();
        assert_eq!(read.kind(), Kind::NotFound, "{read}");
        let size = store.size(backend, &name).await.unwrap_err();
        assert_eq!(size.kind(), Kind::NotFound, "{size}");
        store.delete(backend, &name).await.unwrap();

        let name = put(&store, backend, &content(10), 10).await;
        store.delete(backend, &name).await.unwrap();
        store.delete(backend, &name).await.unwrap();
        assert!(store.size(backend, &name).await.is_err());
        let told = (backend.to_owned(), "open blob", Some(Kind::NotFound));
        assert!(seen.lock().unwrap().contains(&told));
    }
}

#[tokio::test]
async fn a_backend_that_is_not_configured_is_unavailable() {
    let Fixture {
        store, root: _root, ..
    } = fixture(&Limits::default()).await;
    let fault = store.delete("gone", &BlobName::new(1)).await.unwrap_err();
    assert_eq!(fault.kind(), Kind::Unavailable);
    assert!(fault.to_string().contains("gone"), "{fault}");
}

#[tokio::test]
async fn nothing_is_asked_of_the_backend_before_the_first_write() {
    let Fixture {
        store,
        root: _root,
        seen,
    } = fixture(&Limits::default()).await;
    for backend in BACKENDS {
        drop(store.create(backend, &BlobName::new(1)).unwrap());
    }
    store.settle().await;
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unfinished_blob_leaves_nothing() {
    let Fixture {
        store, root: _root, ..
    } = fixture(&Limits::default()).await;
    let bytes = content(6 * MIB);
    for backend in BACKENDS {
        let mut aborted = store.create(backend, &BlobName::new(1)).unwrap();
        aborted.write(bytes.clone()).await.unwrap();
        aborted.abort().await;

        let mut dropped = store.create(backend, &BlobName::new(2)).unwrap();
        dropped.write(bytes.clone()).await.unwrap();
        drop(dropped);

        let mut cancelled = store.create(backend, &BlobName::new(3)).unwrap();
        assert!(cancelled.write(bytes.clone()).now_or_never().is_none());
        let again = cancelled.write(bytes.clone()).await.unwrap_err();
        assert_eq!(again.kind(), Kind::Internal);
        drop(cancelled);

        let mut unfinished = store.create(backend, &BlobName::new(4)).unwrap();
        unfinished.write(bytes.clone()).await.unwrap();
        assert!(unfinished.finish().now_or_never().is_none());
    }
    store.settle().await;
    for backend in BACKENDS {
        assert_eq!(names(&store, backend).await, BTreeSet::new(), "{backend}");
    }
}

#[tokio::test]
async fn listing_gives_every_blob_and_counts_what_is_not_ours() {
    let fixture = fixture(&Limits::default()).await;
    let store = &fixture.store;
    for backend in BACKENDS {
        let mut written = BTreeSet::new();
        for id in 0..500 {
            let name = BlobName::new(id);
            let mut writer = store.create(backend, &name).unwrap().expect_size(1);
            writer.write(Bytes::from_static(b"x")).await.unwrap();
            writer.finish().await.unwrap();
            written.insert(name);
        }
        assert_eq!(names(store, backend).await, written);
    }
    let beside = fixture.root.path().join("image/old");
    std::fs::create_dir_all(&beside).unwrap();
    std::fs::write(beside.join("a.png"), "another's").unwrap();
    std::os::unix::fs::symlink("/", beside.join("link")).unwrap();
    std::fs::write(fixture.root.path().join("notes"), "another's").unwrap();
    let stray = BlobName::new(1);
    std::fs::write(fixture.root.path().join("00/README"), "not ours").unwrap();
    let elsewhere = (stray.directory() + 1) % name::FAN_OUT;
    let misplaced = format!("{elsewhere:02x}/{stray}");
    std::fs::write(fixture.root.path().join(misplaced), "misplaced").unwrap();
    let mut list = store.list("local").unwrap();
    while let Some(name) = list.next().await {
        assert_ne!(name.unwrap(), stray);
    }
    assert_eq!(list.skipped(), 5);
}

#[tokio::test]
async fn a_marker_is_read_back_kept_replaced_and_never_listed() {
    let fixture = fixture(&Limits::default()).await;
    let store = &fixture.store;
    for backend in BACKENDS {
        assert_eq!(store.marker(backend).await.unwrap(), None);
        store.unmark(backend).await.unwrap();
        for (text, claim, stays) in [
            ("first", Claim::IfNone, "first"),
            ("second", Claim::IfNone, "first"),
            ("third", Claim::Always, "third"),
        ] {
            store.mark(backend, text, claim).await.unwrap();
            let found = store.marker(backend).await.unwrap();
            assert_eq!(found.as_deref(), Some(stays), "{backend}");
        }
        let name = put(store, backend, &content(1), 1).await;
        let mut list = store.list(backend).unwrap();
        assert_eq!(list.next().await.unwrap().unwrap(), name);
        assert!(list.next().await.is_none());
        assert_eq!(list.skipped(), 0, "{backend}");
        store.unmark(backend).await.unwrap();
        assert_eq!(store.marker(backend).await.unwrap(), None);
    }
    // What a crash may leave of one, and one that was written by hand.
    let path = fixture.root.path().join(MARKER);
    std::fs::write(&path, [0; 64]).unwrap();
    assert_eq!(store.marker("local").await.unwrap(), None);
    std::fs::write(&path, "").unwrap();
    store.mark("local", "new", Claim::IfNone).await.unwrap();
    assert_eq!(store.marker("local").await.unwrap().as_deref(), Some("new"));
    std::fs::write(&path, "by hand\n").unwrap();
    let found = store.marker("local").await.unwrap();
    assert_eq!(found.as_deref(), Some("by hand"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_in_parallel_do_not_mix() {
    let limits = Limits {
        part_buffer_bytes: 30 * MIB,
        ..Limits::default()
    };
    let Fixture {
        store, root: _root, ..
    } = fixture(&limits).await;
    for backend in BACKENDS {
        let tasks = (0..12).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let bytes = content(11 * MIB + number).slice(number..);
                let name = put(&store, backend, &bytes, 700 * KIB).await;
                let all = get(&store, backend, &name, 0..bytes.len() as u64).await;
                assert!(all.unwrap() == bytes);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_blob_shorter_than_the_range_is_corrupt() {
    let fixture = fixture(&Limits::default()).await;
    let store = &fixture.store;
    for backend in BACKENDS {
        let name = put(store, backend, &content(100), 100).await;
        let fault = get(store, backend, &name, 50..101).await.unwrap_err();
        assert_eq!(fault.kind(), Kind::Corrupt, "{fault}");
    }
}

#[tokio::test]
async fn a_file_truncated_under_its_reader_is_a_fault() {
    let fixture = fixture(&Limits::default()).await;
    let (store, len) = (&fixture.store, 2 * MIB as u64);
    let name = put(store, "local", &content(2 * MIB), MIB).await;
    let mut reader = store.read("local", &name, 0..len).await.unwrap();
    reader.next().await.unwrap().unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(fixture.file(&name))
        .unwrap()
        .set_len(300 * KIB as u64)
        .unwrap();
    let fault = reader.next().await.unwrap().unwrap_err();
    assert_eq!(fault.kind(), Kind::Corrupt, "{fault}");
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn only_the_owner_may_read_what_is_stored() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = fixture(&Limits::default()).await;
    let name = put(&fixture.store, "local", &content(1), 1).await;
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(fixture.file(&name)), 0o600);
    assert_eq!(mode(fixture.root.path().join("00")), 0o700);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    let cases = [
        (BackendConfig::new("fs", []), "root"),
        (
            BackendConfig::new("fs", [("root", "/dev/null/x")]),
            "/dev/null/x",
        ),
        (
            BackendConfig::new("fs", [("root", "r"), ("rot", "x")]),
            "rot",
        ),
        (BackendConfig::new("memory", [("rot", "x")]), "rot"),
        (BackendConfig::new("s3", [("bukcet", "x")]), "bukcet"),
        (BackendConfig::new("s3", []), "bucket"),
        (BackendConfig::new("no-such-service", []), "no-such-service"),
    ];
    for (config, word) in cases {
        let backends = BTreeMap::from([("mine".to_owned(), config)]);
        let observer: Observer = Arc::new(|_: &Observation<'_>| {});
        let limits = Limits::default();
        let opened = BlobStore::open(&backends, Durability::Durable, &limits, observer).await;
        let fault = opened.err().unwrap();
        assert_eq!(fault.kind(), Kind::Config, "{fault}");
        let text = fault.to_string();
        assert!(text.contains("mine") && text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn two_names_for_one_directory_are_refused_and_one_below_another_is_its_own() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("blobs");
    std::fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink("blobs", top.path().join("link")).unwrap();
    let open = |second: PathBuf| {
        let fs = |root: &PathBuf| BackendConfig::new("fs", [("root", root.to_str().unwrap())]);
        let both = [("a", fs(&root)), ("b", fs(&second))];
        let both = both.map(|(name, config)| (name.to_owned(), config));
        async move {
            let (both, limits) = (BTreeMap::from(both), Limits::default());
            let observer: Observer = Arc::new(|_: &Observation<'_>| {});
            BlobStore::open(&both, Durability::Durable, &limits, observer).await
        }
    };
    for second in ["link", "blobs", "./blobs/../blobs"] {
        let fault = open(top.path().join(second)).await.err().unwrap();
        assert_eq!(fault.kind(), Kind::Config, "{fault}");
        let text = fault.to_string();
        assert!(
            text.contains("backend b") && text.contains("backend a"),
            "{text}"
        );
    }
    let store = open(root.join("ab")).await.unwrap();
    put(&store, "b", &content(10), 10).await;
    assert!(store.list("a").unwrap().next().await.is_none());
    let name = put(&store, "a", &content(10), 10).await;
    let mut list = store.list("b").unwrap();
    while let Some(found) = list.next().await {
        assert_ne!(found.unwrap(), name);
    }
}
