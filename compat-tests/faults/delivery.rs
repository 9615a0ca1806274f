//! Events under crashes of the node that delivers: every one arrives, in order, and is counted once; and the runs that
//! wait for events keep no other job from running.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use osproxy::meta::events::{self, NewEvent};
use osproxy::meta::jobs;
use osproxy::meta::{Bell, MetaStore};
use osproxy::model::clock::Clock;
use osproxy::model::fault::Fault;
use osproxy::model::ids::{BucketId, EPOCH, UidGenerator};
use osproxy::model::job::State;
use osproxy::tasks::engine::Config as JobsConfig;
use osproxy::tasks::{
    Deliver, Failure, JobHandler, Outbox, Outcome, PurgeJobs, Run, events as tasks,
};
use osproxy::telemetry::Metrics;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::jobs::{Node, find, holds, insert, open, until};

/// A webhook that takes everything, and remembers the numbers of the events.
struct Hook {
    url: String,
    received: Arc<Mutex<Vec<i64>>>,
}

impl Hook {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let shared = received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = shared.clone();
                // A connection that a killed node leaves ends with an error.
                tokio::spawn(async move { serve(stream, &received).await });
            }
        });
        Self { url, received }
    }

    fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    fn all(&self) -> Vec<i64> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, received: &Mutex<Vec<i64>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut id, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue; // the request line
            };
            match name.to_ascii_lowercase().as_str() {
                "x-osproxy-event-id" => id = value.parse().ok(),
                "content-length" => length = value.parse().unwrap(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        received.lock().unwrap().push(id.unwrap());
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await?;
    }
}

fn config(url: &str) -> tasks::Config {
    let target = serde_json::json!({ "hook": { "kind": "webhook", "url": url } });
    serde_json::from_value(serde_json::json!({ "target": target })).unwrap()
}

async fn tell(meta: &MetaStore, ids: std::ops::Range<i64>) {
    let done: Result<(), Fault> = meta
        .transact("tell", move |session| {
            let ids = ids.clone();
            Box::pin(async move {
                for id in ids {
                    let event = NewEvent {
                        id,
                        target: "hook",
                        bucket: BucketId(1),
                        payload: "{}",
                        created: Clock::System.now(),
                    };
                    events::insert(session, &event).await?;
                }
                Ok(())
            })
        })
        .await;
    done.unwrap();
}

/// As a server does before its engine starts.
async fn outbox(meta: &MetaStore, config: &tasks::Config) -> Outbox {
    let uids = UidGenerator::new(Clock::System, 900, EPOCH);
    uids.extend(i64::MAX);
    let outbox = Outbox::new(
        meta.clone(),
        Clock::System,
        Arc::new(uids),
        Metrics::new(),
        config.clone(),
    );
    outbox.begin().await.unwrap();
    outbox
}

async fn node(dir: &Path, number: i64, config: &tasks::Config) -> Node {
    let meta = open(dir).await;
    let deliver = Deliver::new(meta, Metrics::new(), Bell::default(), config).unwrap();
    Node::start(dir, number, |engine| engine.register(deliver)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_node_that_delivers_is_killed_every_event_arrives_in_order() {
    const EVENTS: i64 = 300;
    /// More are not settled together, so no more come twice after a kill.
    const BATCH: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let hook = Hook::open().await;
    let config = config(&hook.url);
    let outbox = outbox(&meta, &config).await;
    tell(&meta, 1..EVENTS + 1).await;
    let mut number = 0;
    for received in [1, 40, 63, 64, 65, 100, 190] {
        number += 1;
        let mut node = node(dir.path(), number, &config).await;
        holds(|| hook.count() >= received).await;
        node.kill();
    }
    let kills = number as usize;
    // Two at a time: one waits until the other is gone.
    let mut nodes = Vec::new();
    for number in [100, 101] {
        nodes.push(node(dir.path(), number, &config).await);
    }
    let last = async || {
        let reports = outbox.report().await.unwrap();
        reports.into_iter().find(|it| it.name == "hook").unwrap()
    };
    let began = std::time::Instant::now();
    while last().await.waiting > 0 {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = hook.all();
    let distinct: BTreeSet<i64> = all.iter().copied().collect();
    assert_eq!(distinct, (1..EVENTS + 1).collect());
    assert!(
        all.len() <= EVENTS as usize + kills * BATCH,
        "{}",
        all.len()
    );
    // One comes before its predecessor only as a repetition, by a run that began anew.
    let mut highest = 0;
    for id in &all {
        assert!(*id <= highest + 1, "{id} after {highest}");
        highest = highest.max(*id);
    }
    let report = last().await;
    assert_eq!((report.delivered, report.failed), (EVENTS as u64, 0));
    for node in &mut nodes {
        node.stop().await;
    }
}

/// Runs until the node stops, and is of a type of which many run.
struct Standing;

impl JobHandler for Standing {
    fn kind(&self) -> &'static str {
        "standing"
    }

    fn at_once(&self) -> usize {
        1000
    }

    fn stands(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(std::future::pending())
    }
}

struct Quick;

impl JobHandler for Quick {
    fn kind(&self) -> &'static str {
        "quick"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async { Ok(Outcome::done()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_stand_keep_no_other_job_from_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let slots = JobsConfig::default().concurrency.get();
    let mut standing = Vec::new();
    for _ in 0..slots + 2 {
        standing.push(insert(&meta, "standing", None).await);
    }
    let mut node = Node::start_steady(dir.path(), 1, |engine| {
        engine.register(Standing);
        engine.register(Quick);
    })
    .await;
    for job in &standing {
        until(&meta, *job, |job| job.state == State::Running).await;
    }
    let quick = insert(&meta, "quick", None).await;
    until(&meta, quick, |job| job.state == State::Done).await;
    for job in &standing {
        assert_eq!(find(&meta, *job).await.state, State::Running);
    }
    node.stop().await;
    for job in &standing {
        assert_eq!(find(&meta, *job).await.state, State::Waiting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_ended_jobs_go_and_no_others_wherever_the_node_is_killed() {
    const ENDED: i64 = 1200;
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let waits = insert(&meta, "by-hand", None).await;
    let first = 1_000_000;
    let made: Result<(), Fault> = meta
        .transact("end jobs", move |session| {
            Box::pin(async move {
                for id in first..first + ENDED {
                    let job = jobs::NewJob {
                        id,
                        kind: "by-hand",
                        key: None,
                        payload: "{}",
                        due: 0,
                        now: 0,
                    };
                    let id = jobs::insert(session, &job).await?;
                    let mut job = jobs::lock(session, id).await?.unwrap();
                    job.cancel(0).unwrap();
                    jobs::save(session, &job).await?;
                }
                Ok(())
            })
        })
        .await;
    made.unwrap();
    let purge = || PurgeJobs {
        meta: meta.clone(),
        clock: Clock::System,
        keep: Duration::from_secs(60),
    };
    let left = async || {
        let counted: Result<_, Fault> = meta
            .scan("count", |session| {
                Box::pin(session.query_one(
                    "SELECT COUNT(*) FROM jobs WHERE type = 'by-hand'",
                    &[],
                    |row| row.int(0),
                ))
            })
            .await;
        counted.unwrap().unwrap()
    };
    for number in 1..6 {
        let handler = purge();
        let mut node = Node::start(dir.path(), number, |engine| {
            engine.schedule(Duration::from_millis(50), handler);
        })
        .await;
        tokio::time::sleep(Duration::from_millis(2 << number)).await;
        node.kill();
    }
    let handler = purge();
    let mut node = Node::start(dir.path(), 9, |engine| {
        engine.schedule(Duration::from_millis(50), handler);
    })
    .await;
    let began = std::time::Instant::now();
    while left().await > 1 {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.stop().await;
    assert_eq!(find(&meta, waits).await.state, State::Waiting);
}
